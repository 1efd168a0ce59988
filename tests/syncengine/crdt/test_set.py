"""Sets: an add wins over a concurrent remove."""

from hypothesis import given
from hypothesis import strategies as st

from syncengine.crdt import set as add_wins
from syncengine.ids import ActorId
from tests.strategies import ACTORS, versions

A, B, *_ = ACTORS


def test_a_remove_takes_what_it_saw() -> None:
    dots = add_wins.add({}, A, 1, {})

    assert add_wins.unseen(dots, {A: 1}) == {}


def test_a_concurrent_add_survives() -> None:
    dots = add_wins.add({}, A, 1, {})
    dots = add_wins.add(dots, B, 1, {A: 1})

    assert add_wins.unseen(dots, {A: 1}) == {B: 1}


@given(st.dictionaries(st.sampled_from(ACTORS), st.integers(1, 9)), versions)
def test_removing_twice_is_removing_once(
    dots: dict[ActorId, int], seen: dict[ActorId, int]
) -> None:
    once = add_wins.unseen(dots, seen)

    assert add_wins.unseen(once, seen) == once
