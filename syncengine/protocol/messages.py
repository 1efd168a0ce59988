"""Every message, in the order of protocol.md section 6: one frozen struct each.

On the wire a message is a MessagePack array that begins with its number. Unknown
trailing fields are ignored, so that a newer peer can say more.
"""

from typing import Annotated

import msgspec

from syncengine import limits

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Bytes8 = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Channel = Annotated[int, msgspec.Meta(ge=0, lt=limits.NAMESPACES_PER_LINK_MAX)]
EntryKind = Annotated[int, msgspec.Meta(ge=0, le=255)]
Place = tuple[Count, Bytes8]
"""A position in a log, and the chain of what stands up to it."""
Reason = Annotated[str, msgspec.Meta(max_length=500)]

VERSION = 1


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base of all messages."""


class Hello(Message, frozen=True, tag=1):
    """Dialler, first: fresh values, and which listener it means (nil: any)."""

    version: Count
    nonce: Bytes32
    exchange: Bytes32
    wanted: Bytes32 | None


class Challenge(Message, frozen=True, tag=2):
    """Listener: fresh values, who it is, and the lineage of its logs. Signed."""

    version: Count
    nonce: Bytes32
    exchange: Bytes32
    device: Bytes32
    lineage: Bytes16


class Open(Message, frozen=True, tag=10):
    """Dialler: let us sync this namespace. What it has, and where it stands."""

    channel: Channel
    namespace: Bytes32
    grant: Bytes32 | None
    actor: Bytes16 | None
    head_seq: Count
    head: Bytes32 | None
    lineage: Bytes16
    position: Count
    cursor: Place | None
    digest: Bytes32
    entries: Annotated[
        list[tuple[EntryKind, bytes, bytes]], msgspec.Meta(max_length=64)
    ] = []
    ticket: bytes | None = None


class Opened(Message, frozen=True, tag=11):
    """Listener: granted. Its own state, and its head of the dialler's actor."""

    channel: Channel
    ops: Count
    position: Count
    cursor: Place | None
    digest: Bytes32
    head_seq: Count
    head: Bytes32 | None


class Refusal(Message, frozen=True, tag=12):
    """Listener: not granted (any more), and why, in words a person can act on.

    `retry`: never, later, or after_action; `effect`: none or unknown; `address`: the
    hub that keeps the namespace, where it moved.
    """

    channel: Channel
    code: Count
    reason: Reason
    retry: Annotated[str, msgspec.Meta(max_length=20)]
    effect: Annotated[str, msgspec.Meta(max_length=20)]
    address: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class Auth(Message, frozen=True, tag=3):
    """Dialler, sealed: which device, which run of it, what it wants. Signed."""

    device: Bytes32
    instance: Bytes16
    opens: Annotated[list[Open], msgspec.Meta(max_length=limits.OPENS_IN_AUTH_MAX)]


class Ready(Message, frozen=True, tag=4):
    """Listener, sealed: authenticated; its clock, and an answer to each open."""

    session: Bytes16
    now_ms: Count
    answers: Annotated[
        list[Opened | Refusal], msgspec.Meta(max_length=limits.OPENS_IN_AUTH_MAX)
    ]


class Void(Message, frozen=True, tag=14):
    """Either: your cursor is of another log than mine is now; send a FRONTIER."""

    channel: Channel


class Leave(Message, frozen=True, tag=13):
    """Either: this namespace is closed on this link."""

    channel: Channel


class Frontier(Message, frozen=True, tag=20):
    """Either: all I have stored, so send what is missing from the beginning.

    Sent instead of a cursor that is void, and when digests disagree.
    """

    channel: Channel
    tips: Annotated[
        list[tuple[Bytes16, Count, Bytes32]],
        msgspec.Meta(max_length=limits.FRONTIER_ITEMS_MAX),
    ]
    heads: Annotated[list[Bytes32], msgspec.Meta(max_length=limits.ARRAY_ITEMS_MAX)]


class Data(Message, frozen=True, tag=21):
    """Either: rows of my log up to `place`; `digest` when that is its end."""

    channel: Channel
    place: Place
    digest: Bytes32 | None
    packed: bool
    body: bytes


class Ack(Message, frozen=True, tag=22):
    """Either: all up to `position` of your log is on my disk."""

    channel: Channel
    position: Count


class Idle(Message, frozen=True, tag=23):
    """Either: my log ends at `place` with `digest`; nothing else was for you."""

    channel: Channel
    place: Place
    digest: Bytes32


class StateDigest(Message, frozen=True, tag=24):
    """Members: what I show of [low, high) for what I have applied. Signed by `author`.

    A hub hands it on to the others of the namespace and keeps nothing of it.
    """

    channel: Channel
    author: Bytes32
    applied: Bytes32
    low: Annotated[str, msgspec.Meta(max_length=400)]
    high: Annotated[str, msgspec.Meta(max_length=400)]
    count: Count
    digest: Bytes32
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Notice(Message, frozen=True, tag=25):
    """Members: something of no lasting worth, for one (`to`) or for all. Signed by
    `author`.

    Whoever has other links hands it on, once, and keeps nothing of it.
    """

    channel: Channel
    author: Bytes32
    to: Bytes32 | None
    name: Bytes8
    body: Annotated[bytes, msgspec.Meta(max_length=limits.NOTICE_BYTES_MAX)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Ping(Message, frozen=True, tag=30):
    """Either: are you there?"""


class Pong(Message, frozen=True, tag=31):
    """Either: I am."""


class Goodbye(Message, frozen=True, tag=32):
    """Either, last: why I close, and when to come back (0: as you like)."""

    code: Count
    reason: Reason
    retry_after_ms: Count


HandshakeMessage = Hello | Challenge | Auth | Ready
LinkMessage = (
    Open
    | Opened
    | Refusal
    | Leave
    | Void
    | Frontier
    | Data
    | Ack
    | Idle
    | StateDigest
    | Notice
    | Ping
    | Pong
    | Goodbye
)
