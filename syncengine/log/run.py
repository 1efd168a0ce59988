"""Rows as they travel: membership entries, and runs of batches of one actor.

In a run the header of each batch follows from the one before: the same namespace,
actor, grant and term; `first_seq` and `prev` continue. So only payloads travel, and
the last signature binds the rest through `prev`. A run ends in a signature that its
sender has checked, or the sender would forward somebody else's poison.
"""

from collections.abc import Iterable, Iterator
from typing import Any

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
from syncengine.trust.membership import Entry

ENTRY, RUN = 0, 1

# Batches between two signatures: a verification is 160 us, and a fork proof must
# carry the headers up to the next signature.
RUN_BATCHES_MAX = 16

Row = Entry | Batch
"""One row of a log, in the order in which it is kept."""


def encode_rows(rows: Iterable[Row]) -> bytes:
    """Return `rows` as the body of a data message.

    Batches without a signature must be followed by their successors up to a
    signed one; the log hands them out so.
    """
    return values.encode(list(_groups(rows)))


def _groups(rows: Iterable[Row]) -> Iterator[list[Any]]:
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
    try:
        groups = values.decode(body)
        rows: list[Row] = []
        for group in groups:
            if group[0] == ENTRY:
                _, kind, entry, signature, *_ = group
                if type(kind) is not int or not 0 <= kind <= 255:
                    raise ValueError("an entry's kind is one byte")
                rows.append(Entry(kind, _bytes(entry), _bytes(signature, 64)))
            elif group[0] == RUN:
                rows += _batches(namespace, group)
            else:
                raise ValueError("rows are entries and runs")
    except (*values.DECODE_ERRORS, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"malformed rows: {error}") from error
    return rows


def _batches(namespace: NamespaceId, group: list[Any]) -> Iterator[Batch]:
    _, actor, first_seq, prev, grant, term, index, epoch, flat, signature, *_ = group
    actor = ActorId(_bytes(actor, 16))
    grant = EntryId(_bytes(grant, 32))
    epoch = NO_EPOCH if epoch is None else _bytes(epoch, 16)
    _bytes(prev, 32)
    _bytes(signature, 64)
    for number in (first_seq, term, index):
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError("a run counts in whole numbers")
    if first_seq < 1 or not flat or len(flat) % 2:
        raise ValueError("a run holds batches from seq 1")
    last = len(flat) - 2
    for at in range(0, len(flat), 2):
        n_ops, payload = flat[at], _bytes(flat[at + 1])
        if type(n_ops) is not int or not 0 < n_ops < 2**32:
            raise ValueError("a batch has operations")
        root = root_of(split_payload(payload))
        header = Header(
            namespace,
            actor,
            first_seq,
            n_ops,
            BatchId(prev),
            grant,
            root,
            term,
            index,
            epoch,
        )
        name = batch_id(header.encode())
        yield Batch(header, name, signature if at == last else b"", payload)
        first_seq += n_ops
        index += 1 if term else 0
        prev = name


def _bytes(value: Any, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise ValueError(f"expected {length or 'some'} bytes")
    return value
