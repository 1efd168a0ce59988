"""What judges histories of leaders finds what is wrong with one: each invariant has a
history that breaks it, and one a line away that does not."""

from typing import Any, Literal

import pytest

from syncengine.testing.leading import Done, check_once, judge
from syncengine.testing.world import Invariant

Kind = Literal["write", "strong", "session"]


def done(kind: Kind, at: float, sequence: int, value: Any = None, **more: Any) -> Done:
    """An operation that took half a second."""
    ended = more.pop("ended", at + 0.5)
    fields: dict[str, Any] = {"name": value or "", **more}
    if kind != "write":
        fields["name"] = ""
    return Done(0, kind, "x", at, ended, value=value, sequence=sequence, **fields)


CHAIN: list[str | None] = ["a", "b", "c"]
GOOD = [
    done("write", 0, 1, "a"),
    done("strong", 1, 1, "a"),
    done("write", 2, 2, "b"),
    done("session", 3, 1, "a"),
    done("write", 4, 3, "c"),
    done("strong", 5, 3, "c", floor=3),
]


def test_a_good_history_is_good() -> None:
    judge(GOOD, CHAIN)
    judge([*GOOD, done("write", 6, 0, "d", status="unknown")], CHAIN)
    judge([*GOOD, done("write", 6, 4, "d", status="unknown")], [*CHAIN, "d"])
    judge([*GOOD, done("write", 6, 0, "d", status="failed")], CHAIN)


@pytest.mark.parametrize(
    ("bad", "breaks"),
    [
        (done("write", 6, 4, "d"), "L3"),  # acknowledged, and not there
        (done("write", 6, 3, "d"), "L3"),  # at its place is another one
        (done("strong", 6, 9, "c"), "L4"),  # of what never was
        (done("strong", 6, 3, "b"), "L4"),  # another value than at that place
        (done("session", 6, 2, "c"), "L4"),  # more than it says it knows
        (done("strong", 6, 2, "b"), "L4"),  # older than what had been read before
        (done("strong", 6, 1, "a"), "L4"),
        (done("session", 6, 2, "b", floor=3), "O2"),  # its session had seen more
    ],
)
def test_a_history_with_one_bad_operation_is_bad(bad: Done, breaks: str) -> None:
    with pytest.raises(Invariant, match=breaks):
        judge([*GOOD, bad], CHAIN)


def test_what_failed_has_no_effect() -> None:
    with pytest.raises(Invariant, match="B3"):
        judge([*GOOD, done("write", 6, 0, "d", status="failed")], [*CHAIN, "d"])


def test_a_write_comes_after_what_had_ended() -> None:
    late = done("write", 6, 2, "b")
    history = [one for one in GOOD if one.name != "b"]
    with pytest.raises(Invariant, match="L4"):
        judge([*history, late], CHAIN)


def test_operations_at_the_same_time_have_any_order() -> None:
    judge([done("write", 0, 2, "b", ended=9), done("write", 1, 1, "a")], ["a", "b"])
    with pytest.raises(Invariant, match="L4"):
        judge([done("write", 0, 2, "b"), done("write", 1, 1, "a")], ["a", "b"])


def test_what_was_before_the_log_is_read_until_it_is_written_over() -> None:
    before = [("x", "old")]
    judge([done("session", 0, 0, "old")], [], before)
    with pytest.raises(Invariant, match="L4"):
        judge([done("session", 0, 0, None)], [], before)


def test_nothing_is_in_the_log_twice() -> None:
    assert check_once(["a", None, None, "b"]) == {"a", "b"}
    with pytest.raises(Invariant, match="D2"):
        check_once(["a", "b", "a"])
