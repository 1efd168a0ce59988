"""Rows as they travel: membership entries, and runs of batches of one actor.

In a run the header of each batch follows from the one before: the same namespace,
actor, grant and term; `first_seq` and `prev` continue. So only payloads travel, and
the last signature binds the rest through `prev`. A run ends in a signature that its
sender has checked, or the sender would forward somebody else's poison.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec

from syncengine import values
from syncengine.ids import ActorId, BatchId, EntryId, NamespaceId
from syncengine.log.batch import (
    NO_EPOCH,
    Batch,
    Header,
    batch_id,
    root_of,
    split_payload,
)
from syncengine.trust.entry import Entry

ENTRY, RUN = 0, 1

# Rows of one message: more than a sender gathers, and a third of a second's work when
# each has a signature. Whoever sends more is closed, before any is looked at.
ROWS_MAX = 2_048

# Batches between two signatures: a verification is 160 us, and a fork proof must
# carry the headers up to the next signature.
RUN_BATCHES_MAX = 16

Row = Entry | Batch
"""One row of a log, in the order in which it is kept."""

# Decoded as what they are, or a small frame of empty maps would fill the memory.
_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Bytes64 = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
_Flat = Annotated[
    list[int | bytes], msgspec.Meta(min_length=2, max_length=2 * RUN_BATCHES_MAX)
]


class _EntryRow(msgspec.Struct, array_like=True, gc=False, tag=ENTRY):
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    body: bytes
    signature: _Bytes64


class _RunRow(msgspec.Struct, array_like=True, gc=False, tag=RUN):
    actor: _Bytes16
    first_seq: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    prev: _Bytes32
    grant: _Bytes32
    term: _Whole
    term_index: _Whole
    epoch: _Bytes16 | None
    flat: _Flat
    signature: _Bytes64


_rows = msgspec.msgpack.Decoder(
    Annotated[list[_EntryRow | _RunRow], msgspec.Meta(max_length=ROWS_MAX)]
)


def encode_rows(rows: Iterable[Row]) -> bytes:
    """Return `rows` as the body of a data message.

    Batches without a signature must be followed by their successors up to a
    signed one; the log hands them out so.
    """
    return values.encode(list(row_groups(rows)))


def row_groups(rows: Iterable[Row]) -> Iterator[list[Any]]:
    """Yield what `encode_rows` encodes: entries, and runs whose item 8 is pairs of how
    many operations a batch has, and its payload."""
    run: list[Batch] = []
    for row in rows:
        if isinstance(row, Batch):
            if run and not _continues(run[-1], row):
                yield _run(run)
                run = []
            run.append(row)
            if len(run) == RUN_BATCHES_MAX:
                # Whoever stored a run kept its last signature, so there is one.
                end = max(i for i, batch in enumerate(run) if batch.signature) + 1
                yield _run(run[:end])
                run = run[end:]
        else:
            if run:
                yield _run(run)
                run = []
            yield [ENTRY, row.kind, row.body, row.signature]
    if run:
        yield _run(run)


def _continues(last: Batch, row: Batch) -> bool:
    before, after = last.header, row.header
    return (
        after.actor == before.actor
        and after.prev == last.id
        and after.first_seq == before.end + 1
        and after.grant == before.grant
        and after.term == before.term
        and after.term_index == before.term_index + (1 if after.term else 0)
        and after.epoch == before.epoch
    )


def _run(run: list[Batch]) -> list[Any]:
    assert run[-1].signature, "a run ends in a signature"
    first = run[0].header
    flat: list[Any] = []
    for batch in run:
        flat += (batch.header.n_ops, batch.payload)
    return [
        RUN,
        first.actor,
        first.first_seq,
        first.prev,
        first.grant,
        first.term,
        first.term_index,
        first.epoch if first.epoch != NO_EPOCH else None,
        flat,
        run[-1].signature,
    ]


def decode_rows(namespace: NamespaceId, body: bytes) -> list[Row]:
    """Return the rows in `body`, unverified; raises `ValueError` when malformed."""
    rows: list[Row] = []
    try:
        for group in _rows.decode(body):
            if isinstance(group, _EntryRow):
                rows.append(Entry(group.kind, group.body, group.signature))
            else:
                rows += _batches(namespace, group)
    except values.DECODE_ERRORS as error:
        raise ValueError(f"malformed rows: {error}") from error
    return rows


def _batches(namespace: NamespaceId, run: _RunRow) -> Iterator[Batch]:
    flat, prev, first_seq, index = run.flat, run.prev, run.first_seq, run.term_index
    if len(flat) % 2:
        raise ValueError("a run holds pairs of a count and a payload")
    last = len(flat) - 2
    for at in range(0, len(flat), 2):
        n_ops, payload = flat[at], flat[at + 1]
        if not isinstance(n_ops, int) or not 0 < n_ops < 2**32:
            raise ValueError("a batch has operations")
        if not isinstance(payload, bytes):
            raise ValueError("a payload is bytes")
        root = root_of(split_payload(payload))
        header = Header(
            namespace,
            ActorId(run.actor),
            first_seq,
            n_ops,
            BatchId(prev),
            EntryId(run.grant),
            root,
            run.term,
            index,
            NO_EPOCH if run.epoch is None else run.epoch,
        )
        name = batch_id(header.encode())
        yield Batch(header, name, run.signature if at == last else b"", payload)
        first_seq += n_ops
        index += 1 if run.term else 0
        prev = name
