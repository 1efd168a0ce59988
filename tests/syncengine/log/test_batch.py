"""Batches and runs: what is sealed can be read, and nothing else."""

import random
from typing import Any

import pytest

from syncengine import values
from syncengine.ids import DocumentId, EntryId, NamespaceId
from syncengine.log.batch import (
    NO_BATCH,
    Batch,
    Parts,
    UndecodableBatch,
    batch_id,
    decode_header,
    decode_spine,
    root_of,
    seal,
    signed_bytes,
    split_payload,
)
from syncengine.log.change import Change, Dep, Touch
from syncengine.log.run import ROWS_MAX, RUN_BATCHES_MAX, decode_rows, encode_rows
from syncengine.replication.peer import READ_ROWS
from syncengine.trust.entry import Entry
from syncengine.trust.keys import ED25519
from tests.strategies import ACTORS

KEY = ED25519.private_key(bytes(32))
NS = NamespaceId(b"n" * 32)
GRANT = EntryId(b"g" * 32)
A, B, *_ = ACTORS


def changes(first: int = 1) -> list[Change]:
    one, two = DocumentId("note/1"), DocumentId("note/2")
    return [
        Change(A, first, 100, [], [Touch(one, [[1, None, "k", 1]], 1)]),
        Change(
            A,
            first + 1,
            105,
            [Dep(B, 3, b"h" * 16)],
            [Touch(two, [[8, "t", 0, "ab"]], 2), Touch(one, [[0]], 1)],
        ),
    ]


def sealed(first: int = 1, prev: Any = NO_BATCH) -> Batch:
    return seal(KEY, NS, GRANT, prev, changes(first), b"s" * 16)


def test_a_sealed_batch_tells_its_changes_again() -> None:
    batch = sealed()
    payload = split_payload(batch.payload)
    heads = decode_spine(batch.header, payload)
    parts = Parts(payload)

    told = [
        Change(A, head.seq, head.hlc, head.deps, parts.touches(head), head.meta)
        for head in heads
    ]
    assert told == changes()


def test_the_id_commits_to_every_part_and_the_signature_to_the_id() -> None:
    batch = sealed()

    assert batch.id == batch_id(batch.header.encode())
    assert root_of(split_payload(batch.payload)) == batch.header.root
    assert ED25519.verify(KEY.public, signed_bytes(batch.id), batch.signature)
    assert decode_header(batch.header.encode()) == batch.header


def test_a_run_carries_headers_only_by_what_follows_from_them() -> None:
    one = sealed()
    two = sealed(5, one.id)
    entry = Entry(2, b"body", b"s" * 64)
    body = encode_rows([entry, one, two])

    back = decode_rows(NS, body)
    assert back == [entry, one._replace(signature=b""), two]
    assert body.count(one.header.grant) == 1


def test_long_runs_are_cut_at_signatures() -> None:
    batches = [sealed()]
    for _ in range(40):
        batches.append(sealed(batches[-1].header.end + 1, batches[-1].id))
    back = decode_rows(NS, encode_rows(batches))

    assert [b.id for b in back if isinstance(b, Batch)] == [b.id for b in batches]
    unsigned = "".join("." if row.signature else "x" for row in back).split(".")
    assert max(map(len, unsigned)) < 16


@pytest.mark.parametrize("seed", range(300))
def test_a_mutated_payload_is_refused_or_another_batch(seed: int) -> None:
    """Never another exception, and never the same id for other bytes."""
    chance = random.Random(seed)
    batch = sealed()
    raw = bytearray(encode_rows([batch]))
    for _ in range(chance.randint(1, 3)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    try:
        rows = decode_rows(NS, bytes(raw))
    except ValueError:
        return
    for row in rows:
        if isinstance(row, Batch) and row.id == batch.id:
            assert row.payload == batch.payload or row.header == batch.header
            try:
                decode_spine(row.header, split_payload(row.payload))
            except UndecodableBatch:
                continue


@pytest.mark.parametrize(
    "spine",
    [b"", b"\xc1", values.encode([]), values.encode([[0], [], [], [[0, 1]]]),
     values.encode([[5, -1], [], [], [[0, 1], [1, 1]]]),
     values.encode([[5], [], [], [[3, 1]]]), values.encode([[5], [], [], [[0, 0]]])],
)  # fmt: skip
def test_malformed_spines_are_undecodable(spine: bytes) -> None:
    batch = sealed()
    payload = split_payload(batch.payload)._replace(spine=spine)
    with pytest.raises(UndecodableBatch):
        decode_spine(batch.header, payload)


def test_a_message_of_more_rows_than_a_third_of_a_second_checks_is_refused() -> None:
    """Each may have a signature; whoever sends more is closed before one is checked."""
    entry = Entry(1, b"body", bytes(64))

    assert len(decode_rows(NS, encode_rows([entry] * ROWS_MAX))) == ROWS_MAX
    with pytest.raises(ValueError, match="malformed rows"):
        decode_rows(NS, encode_rows([entry] * (ROWS_MAX + 1)))


def test_no_sender_gathers_so_many_rows() -> None:
    assert READ_ROWS + RUN_BATCHES_MAX < ROWS_MAX
