"""Vector clocks: the guide's examples, and the laws of an order and of its joins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import Invalid, VectorClock

A = VectorClock({"usa": 1, "eu": 0})
B = VectorClock({"usa": 0, "eu": 1})
C = VectorClock({"usa": 1, "eu": 1})

clocks = st.builds(
    VectorClock, st.dictionaries(st.sampled_from("abc"), st.integers(0, 3))
)


def test_neither_of_two_concurrent_events_knew_of_the_other() -> None:
    assert VectorClock.compare(A, B) == "concurrent"


def test_what_knew_of_another_event_is_after_it() -> None:
    assert VectorClock.compare(A, C) == "before"
    assert VectorClock.compare(C, A) == "after"
    assert VectorClock.compare(C, VectorClock({"eu": 1, "usa": 1})) == "equal"


def test_merging_takes_the_greatest_of_each_node() -> None:
    assert VectorClock.merge(A, B).to_json() == {"usa": 1, "eu": 1}


def test_the_timeline_of_the_guide() -> None:
    usa, eu = VectorClock({"usa": 0}), VectorClock({"eu": 0})
    first = usa = usa.tick("usa")
    eu = VectorClock.merge(eu, first)
    second = eu = eu.tick("eu")
    usa = VectorClock.merge(usa, second)
    third = usa.tick("usa")

    assert first.to_json() == {"usa": 1}
    assert second.to_json() == {"eu": 1, "usa": 1}
    assert third.to_json() == {"eu": 1, "usa": 2}
    assert VectorClock.compare(first, second) == "before"


def test_a_node_that_is_not_named_counts_as_zero() -> None:
    assert VectorClock({"usa": 0}) == VectorClock()
    assert VectorClock({"usa": 1})["eu"] == 0
    assert hash(A) == hash(VectorClock({"usa": 1}))


@pytest.mark.parametrize("count", [-1, 1.0, "1", True, None])
def test_what_is_no_count_is_refused(count: object) -> None:
    with pytest.raises(Invalid, match="usa"):
        VectorClock({"usa": count})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


@given(clocks, clocks, clocks)
def test_merging_is_a_least_upper_bound(
    a: VectorClock, b: VectorClock, c: VectorClock
) -> None:
    merge, compare = VectorClock.merge, VectorClock.compare

    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a
    assert compare(a, merge(a, b)) in ("before", "equal")


@given(clocks, clocks)
def test_the_order_reads_the_same_from_both_sides(
    a: VectorClock, b: VectorClock
) -> None:
    other = {"before": "after", "after": "before"}
    order = VectorClock.compare(a, b)

    assert VectorClock.compare(b, a) == other.get(order, order)
    assert (order == "equal") == (a == b)
