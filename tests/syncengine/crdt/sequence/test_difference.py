"""The splices of an assignment: right, as few as can be, and readable in texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine.crdt.sequence import difference
from syncengine.crdt.sequence.difference import (
    longest_ascending,
    rebased,
    sources,
    splices,
    text_splices,
)

SHORT = st.lists(st.integers(0, 3), max_size=9)
TEXTS = st.text("ab \n.", max_size=40)


def written(before: list[int], after: list[int]) -> tuple[list[int], int]:
    """Return what the splices make of `before`, and how many elements they write."""
    made, count = list(before), 0
    for pos, deleted, inserted in splices(before, after):
        made[pos : pos + deleted] = after[inserted]
        count += deleted + inserted.stop - inserted.start
    return made, count


def common(before: list[int], after: list[int]) -> int:
    """The length of a longest common subsequence, the slow way."""
    if not before or not after:
        return 0
    if before[-1] == after[-1]:
        return common(before[:-1], after[:-1]) + 1
    return max(common(before[:-1], after), common(before, after[:-1]))


@given(SHORT, SHORT)
def test_splices_lead_there_and_write_no_more_than_needed(
    before: list[int], after: list[int]
) -> None:
    made, count = written(before, after)

    assert made == after
    assert count == len(before) + len(after) - 2 * common(before, after)


@given(TEXTS, TEXTS)
def test_text_splices_lead_there(before: str, after: str) -> None:
    made = before
    for pos, deleted, inserted in text_splices(before, after):
        made = made[:pos] + inserted + made[pos + deleted :]

    assert made == after
    assert all(d or i for _, d, i in text_splices(before, after))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "x", [(0, 0, "x")]),
        ("same", "same", []),
        ("kitten", "sitting", [(0, 6, "sitting")]),
        ("one two", "one and two", [(4, 0, "and ")]),
        ("mid", "AmidB", [(0, 0, "A"), (4, 0, "B")]),
        ("a\nb\nc\n", "a\nB\nc\nd\n", [(2, 1, "B"), (6, 0, "d\n")]),
    ],
)
def test_texts_differ_by_lines_and_words(
    before: str, after: str, expected: list[tuple[int, int, str]]
) -> None:
    assert text_splices(before, after) == expected


def test_what_has_little_in_common_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(difference, "DIFFERENCE_MAX", 3)
    before, after = [9, 1, 2, 3, 4, 5, 9], [9, 5, 4, 3, 2, 1, 9]

    assert splices(before, after) == [(1, 5, slice(1, 6))]
    assert written(before, after)[0] == after


def applied(text: str, changes: list[tuple[int, int, str]]) -> str:
    for at, deleted, inserted in changes:
        text = text[:at] + inserted + text[at + deleted :]
    return text


words = st.lists(st.sampled_from(["one ", "two ", "three\n", "four "]), max_size=8)


@given(words, words)
def test_changes_of_what_nobody_else_changed_make_it_mine(
    before: list[str], mine: list[str]
) -> None:
    old, new = "".join(before), "".join(mine)
    assert applied(old, rebased(old, new, old)) == new
    assert applied(new, rebased(old, old, new)) == new


@pytest.mark.parametrize(
    ("before", "mine", "theirs", "both"),
    [
        ("a b c", "a X c", "a b c d", "a X c d"),
        ("a b c", "a c", "0 a b c", "0 a c"),
        ("a b c", "a b c!", "b c", "b c!"),
        ("a b c", "a c", "a c", "a c"),
        ("one\ntwo\nthree\n", "one\n2\nthree\n", "zero\none\ntwo\n", "zero\none\n2\n"),
    ],
)
def test_changes_of_both_meet(before: str, mine: str, theirs: str, both: str) -> None:
    assert applied(theirs, rebased(before, mine, theirs)) == both


@given(SHORT, SHORT)
def test_each_element_comes_from_an_equal_one_as_far_as_there_are_any(
    before: list[int], after: list[int]
) -> None:
    found = sources(before, after)
    used = [old for old in found if old is not None]

    assert len(set(used)) == len(used)
    for new, old in enumerate(found):
        assert old is None or before[old] == after[new]
    for element in set(after):
        taken = sum(
            after[new] == element for new, old in enumerate(found) if old is None
        )
        assert taken == max(0, after.count(element) - before.count(element))
    # No more has to move than in the shortest difference.
    assert len(longest_ascending(used)) >= common(before, after)


@given(st.lists(st.integers(0, 20), unique=True, max_size=8))
def test_a_longest_ascent_is_found(numbers: list[int]) -> None:
    found = longest_ascending(numbers)
    kept = [number for number in numbers if number in found]

    assert kept == sorted(kept)
    assert len(kept) == common(numbers, sorted(numbers))
