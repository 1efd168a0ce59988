"""Typing that goes on comes to what its operations come to one by one."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine.crdt.document import Document
from syncengine.crdt.operation import InvalidOperation, length
from syncengine.crdt.sequence.oplog import INS
from syncengine.crdt.sequence.state import LOG, Steps
from syncengine.crdt.text import TextState
from syncengine.ids import DocumentId
from tests.strategies import ACTORS

A, B, *_ = ACTORS
NAME = DocumentId("notes/1")


def keystrokes(seed: int, count: int) -> list[list[Any]]:
    """Return edits of somebody who types, erases, and jumps to another place."""
    chance = Random(seed)
    length = cursor = 0
    ops: list[list[Any]] = []
    for _ in range(count):
        what = chance.choice(("type", "type", "type", "back", "back", "erase", "jump"))
        if what == "jump":
            cursor = chance.randint(0, length)
        elif what == "type":
            typed = chance.choice(("a", "bc", "\n", "ü", "漢字", "x" * 30))
            ops.append([8, chance.choice(("body", "body", "title")), 0, typed])
            if ops[-1][1] == "body":
                ops[-1][2] = cursor
                cursor += len(typed)
                length += len(typed)
        elif what == "back" and cursor:
            cursor -= 1
            length -= 1
            ops.append([9, "body", cursor, 1])
        elif what == "erase" and cursor < length:
            n = chance.randint(1, min(3, length - cursor))
            ops.append([9, "body", cursor, n])
            length -= n
    return ops


def typed(
    ops: list[list[Any]], *, settled: bool, undo: Steps | None = None
) -> Document:
    document = Document(NAME)
    document.apply([8, "body", 0, "."], (1, A, 1), None)
    document.apply([9, "body", 0, 1], (2, A, 2), None)
    document.take_cells()
    document.undo = undo
    seq = 3
    for hlc, op in enumerate(ops, 3):
        document.apply(list(op), (hlc, A, seq), None)
        seq += length(op)
        if settled:
            document.settle()
    return document


def events(document: Document) -> list[Any]:
    """Return (whether it inserts, position) of each event of the text's log: its runs
    may be cut elsewhere."""
    text = document.state(("body", 5), 5)
    assert isinstance(text, TextState)
    log = text.log
    single = [next(iter(log.pieces(lv, lv + 1))) for lv in range(log.n)]
    names = [log.actor_seq(lv) for lv in range(log.n)]
    return [(piece.kind == INS, piece.pos) for piece in single] + names


def stored(document: Document) -> list[Any]:
    """Return what is stored, the log left out."""
    return sorted(
        (container, cell)
        for container, cell in document.take_cells()
        if cell[0][:1] != LOG
    )


@given(st.integers(0, 2**32), st.integers(0, 60))
def test_a_run_comes_to_its_operations_one_by_one(seed: int, count: int) -> None:
    ops = keystrokes(seed, count)
    one, other = typed(ops, settled=False), typed(ops, settled=True)

    assert one.canonical() == other.canonical()
    assert one.touches == other.touches
    assert one.newest == other.newest
    assert one.dirty == other.dirty
    assert events(one) == events(other)
    assert stored(one) == stored(other)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_a_run_is_taken_back_without_a_trace(seed: int, count: int) -> None:
    undo = Steps()
    document = typed(keystrokes(seed, count), settled=False, undo=undo)
    document.undo = None
    document.take_back(undo)
    before = typed([], settled=True)

    assert document.canonical() == before.canonical()
    assert document.touches == before.touches
    document.apply([8, "body", 0, "again"], (99, A, 3), None)
    assert document.to_value()["body"] == "again"


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 60))
def test_who_merges_in_between_sees_all_that_was_typed(
    seed: int, count: int, moment: int
) -> None:
    """Another's operation comes in while somebody types."""
    ops = keystrokes(seed, count)
    moment = min(moment, len(ops))
    found: list[bytes] = []
    for settled in (True, False):
        document = typed(ops[:moment], settled=settled)
        document.apply([8, "body", 0, "other "], (50, B, 1), {})
        document.apply([1, None, "k", 1], (51, B, 7), {A: 1, B: 6})
        found.append(document.canonical())

    assert found[0] == found[1]


def test_what_is_no_edit_of_the_text_is_refused_behind_a_run() -> None:
    for op in (
        [8, "body", 5, "x"],
        [8, "body", 1.0, "x"],
        [8, "body", True, "x"],
        [8, "body", 1, "\ud800"],
        [8, "body", 1, 3],
        [8, "body", 1, ""],
        [9, "body", 1, 1],
        [9, "body", 0, 2],
        [9, "body", -1, 1],
        [9, "body", 0, 0],
        [9, "body", 0, True],
    ):
        document = typed([[8, "body", 0, "a"]], settled=False)
        assert document.run is not None
        with pytest.raises(InvalidOperation):
            document.apply(op, (9, A, 4), None)
        assert document.to_value()["body"] == "a"


def test_typing_is_kept_together_until_somebody_looks() -> None:
    document = typed([[8, "body", i, "x"] for i in range(100)], settled=False)

    assert document.run is not None
    assert document.run.count == 100
    assert document.run.operations() == [[8, "body", 0, "x" * 100]]
    assert document.to_value()["body"] == "x" * 100
    assert document.run is None


def test_a_text_that_does_not_show_is_typed_into_as_ever() -> None:
    """After a delete a run would hide that the first edit brings the field back."""
    document = typed([[8, "body", 0, "abc"]], settled=True)
    document.apply([3, None, "body"], (10, A, 6), None)
    document.apply([8, "body", 3, "d"], (11, A, 7), None)

    assert document.run is None
    assert document.to_value()["body"] == "abcd"
