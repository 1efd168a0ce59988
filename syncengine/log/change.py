"""A change: what one transaction did, and the bytes it becomes.

Alone (in the outbox) a change is a MessagePack array
`[seq, hlc, deps, [[document, ops, n]...], meta]`; in a batch it is taken apart into
a spine and parts (`batch.py`). `ops` are MessagePack arrays, encoded once.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from syncengine import values
from syncengine.ids import ActorId, BatchId, DocumentId


class Dep(NamedTuple):
    """How far the author had applied one other actor, and in which history.

    `hash16` is the beginning of the id of the batch that holds `seq`, so that an
    actor who equivocates cannot make honest peers read one change in two contexts.
    """

    actor: ActorId
    seq: int
    hash16: bytes


class Origin(NamedTuple):
    """Names the change that this one writes again, after a restore or a rescue.

    A stamp tells two changes at one seq apart: a restored copy writes later.
    """

    actor: ActorId
    seq: int
    hlc: int


@dataclass(frozen=True, slots=True)
class Meta:
    """What rides along: `[schema, operation_id, origin, ...]`; nil when all empty."""

    schema: int | None = None
    operation_id: str | None = None
    origin: Origin | None = None

    def encode(self) -> list[Any] | None:
        if self == NO_META:
            return None
        origin = list(self.origin) if self.origin else None
        return [self.schema, self.operation_id, origin]


NO_META = Meta()


def parse_meta(raw: Any) -> Meta:
    """Return the meta in `raw`; raises `ValueError` when it is malformed."""
    if raw is None:
        return NO_META
    if not values.is_list(raw):
        raise ValueError("meta is an array")
    schema, operation_id, origin = [*raw, None, None, None][:3]
    if schema is not None and type(schema) is not int:
        raise ValueError("a schema version is a number")
    if operation_id is not None and not isinstance(operation_id, str):
        raise ValueError("an operation id is text")
    if origin is not None:
        actor, seq, hlc = origin
        if not (
            isinstance(actor, bytes)
            and len(actor) == 16
            and type(seq) is int
            and type(hlc) is int
            and 0 < seq < 2**63
            and 0 < hlc < 2**63
        ):
            raise ValueError("an origin is [actor, seq, hlc]")
        origin = Origin(ActorId(actor), seq, hlc)
    return Meta(schema, operation_id, origin)


class Touch(NamedTuple):
    """What a change did to one document: `n` operations, as encoded `ops`."""

    document: DocumentId
    ops: list[Any]
    n: int


@dataclass(slots=True)
class Change:
    """One transaction of one actor; covers the operations [seq, seq + n)."""

    actor: ActorId
    seq: int
    hlc: int
    deps: list[Dep]
    touches: list[Touch]
    meta: Meta = NO_META
    n: int = field(init=False)

    def __post_init__(self) -> None:
        touches = self.touches
        if len(touches) == 1:  # nearly always
            self.n = touches[0][2]
        else:
            self.n = sum(touch.n for touch in touches)

    @property
    def end(self) -> int:
        """The last seq of the change: where frontiers may stand."""
        return self.seq + self.n - 1


class _Row(msgspec.Struct, array_like=True):
    seq: int
    hlc: int
    deps: list[tuple[bytes, int, bytes]]
    touches: list[tuple[str, list[Any], int]]
    meta: list[Any] | None


_row_decoder = msgspec.msgpack.Decoder(_Row)


def encode_change(change: Change) -> bytes:
    """Return the bytes under which the outbox keeps `change`."""
    meta = None if change.meta is NO_META else change.meta.encode()
    return values.encode([change.seq, change.hlc, change.deps, change.touches, meta])


def decode_change(actor: ActorId, data: bytes) -> Change:
    """Invert `encode_change` for a row of our own."""
    row = _row_decoder.decode(data)
    return Change(
        actor,
        row.seq,
        row.hlc,
        [Dep(ActorId(a), seq, hash16) for a, seq, hash16 in row.deps],
        [Touch(DocumentId(name), ops, n) for name, ops, n in row.touches],
        parse_meta(row.meta),
    )


def hash16(batch: BatchId) -> bytes:
    """Return the short form by which deps name a batch."""
    return batch[:16]
