"""Registers: the same slot for every causal order, and nothing lost in silence."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from syncengine import values
from syncengine.crdt import register
from syncengine.crdt.register import EMPTY, Entry, Slot
from syncengine.ids import ActorId
from tests.strategies import ACTORS

A, B, C, _ = ACTORS


def entry(hlc: int, actor: ActorId, seq: int) -> Entry:
    return Entry(hlc, actor, seq, f"{hlc}")


def test_a_write_replaces_what_it_saw() -> None:
    slot = register.write(EMPTY, entry(1, A, 1), {})
    slot = register.write(slot, entry(2, B, 1), {A: 1})

    assert [e.value for e in slot] == ["2"]


def test_of_concurrent_writes_the_greatest_shows_and_the_others_stay() -> None:
    slot = register.write(EMPTY, entry(5, A, 1), {})
    slot = register.write(slot, entry(3, B, 1), {})

    assert [e.value for e in slot] == ["5", "3"]


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([A, B, C])), max_size=5))
def test_concurrent_writes_commute(stamps: list[tuple[int, ActorId]]) -> None:
    entries = {actor: entry(hlc, actor, 1) for hlc, actor in stamps}
    outcomes: set[Slot] = set()
    for order in permutations(entries.values()):
        slot = EMPTY
        for one in order:
            slot = register.write(slot, one, {})
        outcomes.add(slot)

    assert len(outcomes) == 1


def test_a_container_lives_while_a_touch_is_unseen() -> None:
    slot = register.touch(EMPTY, 1, ("m", 1), (1, A, 1))
    slot = register.touch(slot, 1, ("m", 1), (2, B, 4))

    assert register.unseen(slot, {A: 1, B: 4}) == EMPTY
    (left,) = register.unseen(slot, {A: 1, B: 3})
    assert left.touches == {B: (4, 2)}


def test_a_slot_survives_its_encoding() -> None:
    slot = register.write(EMPTY, entry(1, A, 1), {})
    slot = register.touch(slot, 5, (B, 7), (9, B, 8))

    raw = values.decode(values.encode(register.encode(slot)))

    assert register.decode(raw) == slot
