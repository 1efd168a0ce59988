"""Texts: void changes count for positions and show nothing."""

import pytest

from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.register import Seen
from syncengine.crdt.sequence.oplog import DEL, INS
from syncengine.crdt.text import TextState
from syncengine.ids import Stamp
from tests.strategies import ACTORS

A, B, C, _ = ACTORS


def insert(text: TextState, pos: int, what: str, stamp: Stamp, seen: Seen) -> None:
    text.apply(INS, pos, len(what), what, stamp, seen, None)


def test_a_position_beyond_the_end_is_refused_and_changes_nothing() -> None:
    text = TextState()
    with pytest.raises(InvalidOperation, match="beyond the length 0"):
        insert(text, 1, "x", (1, A, 1), {})

    assert str(text) == ""
    assert text.log.n == 0


def test_the_verdict_is_made_at_the_authors_version() -> None:
    """B saw three characters; that A deleted them since makes no difference."""
    text = TextState()
    insert(text, 0, "abc", (1, A, 1), {})
    text.apply(DEL, 0, 3, None, (2, A, 4), {A: 3}, None)
    insert(text, 3, "!", (2, B, 1), {A: 3})
    with pytest.raises(InvalidOperation):
        insert(text, 4, "?", (2, C, 1), {A: 3})


def test_a_void_insertion_shifts_positions_and_does_not_show() -> None:
    text = TextState()
    insert(text, 0, "ab", (1, A, 1), {})
    text.apply_void(INS, 1, 3, (B, 1), {A: 2})
    # C saw the void text too: its position counts it.
    insert(text, 4, "!", (3, C, 1), {A: 2, B: 3})

    assert str(text) == "a!b"
    assert text.author_ranges(1, 0) == [(1, 0)]
    assert text.author_ranges(1, 1) == [(4, 1)]
    assert text.author_ranges(0, 3) == [(4, 2), (0, 1)]


def test_a_void_deletion_is_undone_for_everybody() -> None:
    text = TextState()
    insert(text, 0, "abc", (1, A, 1), {})
    text.apply_void(DEL, 0, 2, (B, 1), {A: 3})

    assert str(text) == "abc"
