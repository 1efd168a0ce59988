"""Segments give back every byte, are small, and hostile ones are errors."""

import lzma
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import values
from syncengine.ids import DocumentId, EntryId, NamespaceId
from syncengine.log import segment
from syncengine.log.batch import (
    NO_BATCH,
    Batch,
    Header,
    batch_id,
    root_of,
    seal,
    split_payload,
)
from syncengine.log.change import Change, Dep, Meta, Touch
from syncengine.log.run import Row, encode_rows
from syncengine.log.segment import (
    COLUMN_BYTES_MAX,
    FILTERS,
    SEGMENT_BYTES_MAX,
    decode_segment,
    encode_segment,
)
from syncengine.trust.entry import Entry
from syncengine.trust.keys import ED25519
from tests.strategies import ACTORS, plain_values, texts

KEY = ED25519.private_key(bytes(32))
NS, GRANT = NamespaceId(b"n" * 32), EntryId(b"g" * 32)
A, B, *_ = ACTORS

containers = st.sampled_from(["body", "title", 7, [bytes(16), 3], None])
ints = st.integers(0, 2**40) | st.sampled_from([2**60, 2**63 - 1, -1, 2**64 - 1])
operations = (
    st.tuples(st.just(8), containers, ints, texts)
    | st.tuples(st.sampled_from((9, 10)), containers, ints, ints)
    | st.tuples(st.integers(0, 30), containers, plain_values)
    | st.tuples(st.just(11), containers, ints, st.lists(plain_values, max_size=3))
    | st.tuples(st.just(8.0), containers, st.just(True), texts, st.just(5))
).map(list)
names = st.sampled_from(["note/1", "note/2", "page/x"]).map(DocumentId)
touches = st.builds(
    Touch, names, st.lists(operations, min_size=1, max_size=5), st.integers(1, 9)
)


def batches(parts: list[list[tuple[list[Touch], int]]]) -> list[Batch]:
    made: list[Batch] = []
    prev, seq, hlc = NO_BATCH, 1, 1 << 40
    for part in parts:
        changes: list[Change] = []
        for touched, step in part:
            hlc += step
            deps = [Dep(B, step, b"h" * 16)] if step % 5 == 0 else []
            meta = Meta(operation_id="once") if step % 7 == 0 else Meta()
            changes.append(Change(A, seq, hlc, deps, touched, meta))
            seq = changes[-1].end + 1
        made.append(seal(KEY, NS, GRANT, prev, changes, random.randbytes(16)))
        prev = made[-1].id
    return made


@given(
    st.lists(
        st.lists(
            st.tuples(st.lists(touches, min_size=1, max_size=3), st.integers(1, 2**41)),
            min_size=1,
            max_size=4,
        ),
        max_size=4,
    )
)
def test_every_row_comes_back_as_it_was(
    parts: list[list[tuple[list[Touch], int]]],
) -> None:
    rows: list[Row] = [*batches(parts), Entry(1, b"body", bytes(64))]
    again = decode_segment(NS, encode_segment(rows))

    assert encode_rows(again) == encode_rows(rows)


def test_a_payload_of_another_shape_is_kept_as_it_is() -> None:
    (whole,) = batches([[([Touch(DocumentId("note/1"), [[8, "t", 0, "x"]], 1)], 1)]])
    salt = bytes(16)
    for payload in (
        b"no payload",
        values.encode([b"no spine", salt, {}]),
        values.encode([values.encode([[1], [], [], [[0, 1]], "more"]), salt, {}]),
        values.encode([values.encode([[-1], [], [], [[0, 1]]]), salt, {}]),
        values.encode([values.encode([[1], [], [], [[0]]]), salt, {"n/1": b"\x01"}]),
        values.encode([values.encode([[1], [], [], [[0, 1]]]), salt, {"n/1": b"\x90"}])
        + b"more",
        # A number in more bytes than it needs.
        whole.payload.replace(b"\x94\x08\xa1t\x00", b"\x94\x08\xa1t\xcc\x00"),
    ):
        writer = segment._Writer()  # pyright: ignore[reportPrivateUsage]
        assert not writer.add(payload), payload
    assert segment._Writer().add(whole.payload)  # pyright: ignore[reportPrivateUsage]


def test_typing_takes_little_more_than_its_text() -> None:
    chance = random.Random(1)
    name, parts = DocumentId("note/1"), list[Any]()
    at = 0
    for _ in range(2_000):
        word = chance.choice(("and ", "to ", "the ", "of ", "it "))
        parts.append(([Touch(name, [[8, "body", at, word]], len(word))], 1 << 26))
        at += len(word)
    rows = batches([parts[i : i + 200] for i in range(0, 2_000, 200)])
    packed = encode_segment(rows)

    assert len(packed) < 3_000
    assert len(packed) * 15 < len(encode_rows(rows))


def _column(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=FILTERS)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_segment_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        decode_segment(NS, data)


@given(st.integers(0, 2**32))
def test_a_segment_that_was_changed_is_an_error_or_says_something_else(
    seed: int,
) -> None:
    chance = random.Random(seed)
    rows = batches([[([Touch(DocumentId("note/1"), [[8, "t", 0, "xyz"]], 3)], 1)]])
    groups, columns = values.decode(encode_segment(rows))
    at = chance.randrange(len(columns))
    raw = bytearray(
        lzma.decompress(columns[at], lzma.FORMAT_RAW, filters=FILTERS) or b"\0"
    )
    raw[chance.randrange(len(raw))] = chance.randrange(256)
    columns[at] = _column(bytes(raw))
    try:
        found = decode_segment(NS, values.encode([groups, columns]))
    except ValueError:
        return
    for row in found:
        assert isinstance(row, Batch)
        assert row.id == rows[0].id or not ED25519.verify(
            KEY.public, b"sync1:batch\0" + row.id, row.signature
        )


def test_a_segment_makes_no_more_than_it_may() -> None:
    bomb = _column(bytes(COLUMN_BYTES_MAX + 1))
    many = _column(b"\xff" * 8)
    group = [1, bytes(16), 1, bytes(32), bytes(32), 0, 0, None, [1, None], bytes(64)]
    for columns in ([bomb] * 10, [many] * 10, [many, *[_column(b"")] * 9]):
        with pytest.raises(ValueError, match="malformed"):
            decode_segment(NS, values.encode([[group], columns]))
    assert SEGMENT_BYTES_MAX > COLUMN_BYTES_MAX


def test_what_is_too_much_for_columns_is_kept_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment, "COLUMN_BYTES_MAX", 1_000)
    rows = batches(
        [[([Touch(DocumentId("note/1"), [[8, "t", 0, "x" * 50]], 50)], 1)]] * 5
    )
    again = decode_segment(NS, encode_segment(rows))

    assert encode_rows(again) == encode_rows(rows)


def test_the_header_follows_from_what_is_written() -> None:
    rows = batches([[([Touch(DocumentId("note/1"), [[0]], 1)], 1)]] * 3)
    for row, again in zip(rows, decode_segment(NS, encode_segment(rows)), strict=True):
        assert isinstance(again, Batch)
        header: Header = again.header
        assert batch_id(header.encode()) == row.id
        assert header.root == root_of(split_payload(row.payload))
