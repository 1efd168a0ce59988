"""What the operator and the hubs of a fleet say to each other, in the body of a NOTICE.

On the wire each is a MessagePack array that begins with its number; numbers go on from
those of `protocol.notices`. Unknown trailing fields are ignored.
"""

from typing import Annotated

import msgspec

from syncengine import limits
from syncengine.protocol.messages import Bytes8, Count


class LoadAsked(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """The operator, to all hubs: what do you keep?"""

    question: Bytes8


class Load(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """A hub, to who asked: a part of what it keeps."""

    question: Bytes8
    number: Count
    """Of the placement that it knows"""
    partitions: Count
    """Of how many partitions it keeps something, in all parts together"""
    moving: Count
    """Namespaces that are at home elsewhere and not there yet"""
    kept: Count
    """Namespaces that are there, of which it still has a copy"""
    loads: Annotated[
        list[tuple[Count, Count, Count]],
        msgspec.Meta(max_length=limits.LOADS_IN_NOTICE_MAX),
    ]
    """(partition, namespaces, bytes)"""


_decoder: msgspec.msgpack.Decoder[LoadAsked | Load] = msgspec.msgpack.Decoder(
    LoadAsked | Load
)
_encoder = msgspec.msgpack.Encoder()


def encode(said: LoadAsked | Load) -> bytes:
    """Return `said` as the body of a notice."""
    return _encoder.encode(said)


def decode(body: bytes) -> LoadAsked | Load:
    """Return what a body says; raises `ValueError`."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no notice of a fleet: {error}") from error
