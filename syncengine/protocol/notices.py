"""What members say to each other about leading, in the body of a NOTICE.

On the wire each is a MessagePack array that begins with its number. Unknown trailing
fields are ignored, so that a newer member can say more.
"""

from typing import Annotated

import msgspec

from syncengine import limits
from syncengine.protocol.messages import Bytes16, Bytes32, Count

Name = Annotated[str, msgspec.Meta(max_length=200)]
Base = tuple[Count, Bytes32]
Voters = Annotated[list[Bytes32], msgspec.Meta(max_length=limits.VOTERS_MAX)]


class Said(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base of all."""

    mode: Bytes32
    """The entry that began the present mode"""
    term: Count
    """The number of the highest term that the author knows, or asks for"""
    node: Name
    """How the author calls himself"""


class Beat(Said, frozen=True, tag=1):
    """The leader, to all: I lead, and this is how far."""

    top: Bytes32
    """The entry of the term"""
    beat: Count
    """Grows with each of a term"""
    asks: bool
    """Whether an answer is asked for"""
    last: Count
    """The index of the last entry on its disk"""
    commit: Count
    """Up to where a majority has all; without voters, `last`"""


class Progress(Said, frozen=True, tag=2):
    """A follower, to the leader: so far is on my disk, and has its effect."""

    top: Bytes32 | None
    """The highest term whose beginning I have"""
    beat: Count
    """The newest that I heard of that term"""
    stored: Count
    applied: Count
    eligible: bool
    """Whether I may be promoted"""
    votes: bool = True
    """Whether my disk counts for a majority: not where I may have forgotten votes"""
    now_ms: Count = 0
    """What my clock says; 0: it is not told"""


class Candidacy(Said, frozen=True, tag=3):
    """A candidate, to all: elect me, with this log."""

    is_asking: bool
    """Whether this only asks who would (a pre-vote), and binds nobody"""
    actor: Bytes16
    previous: Bytes32 | None
    base: Base | None
    voters: Voters
    is_wished: bool
    """Whether the leader wishes it: then nobody waits for him to fail"""


class Vote(Said, frozen=True, tag=4):
    """A voter, to a candidate."""

    is_asking: bool
    is_granted: bool
    signature: Annotated[bytes, msgspec.Meta(max_length=64)]
    now_ms: Count = 0
    """As in `Progress`"""


class TakeOver(Said, frozen=True, tag=5):
    """The leader, to a follower who has all: have yourself elected now."""


Spoken = Beat | Progress | Candidacy | Vote | TakeOver

_decoder: msgspec.msgpack.Decoder[Spoken] = msgspec.msgpack.Decoder(Spoken)
_encoder = msgspec.msgpack.Encoder()


def encode(said: Spoken) -> bytes:
    """Return `said` as the body of a notice."""
    return _encoder.encode(said)


def decode(body: bytes) -> Spoken:
    """Return what a body says; raises `ValueError`."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no notice: {error}") from error
