"""The order of slots equals a plain list of which some are hidden."""

import random

import pytest

from syncengine.crdt.sequence import order
from syncengine.crdt.sequence.order import Order
from syncengine.ids import ActorId, OpId

A = ActorId(b"a" * 16)


@pytest.mark.parametrize("block", [2, 5, 512])
@pytest.mark.parametrize("seed", range(10))
def test_it_is_a_list_of_which_some_are_hidden(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "BLOCK_MAX", block)
    chance = random.Random(seed)
    made, plain, hidden = Order(), list[OpId](), set[OpId]()
    disk: dict[int, list[OpId]] = {}
    for step in range(120):
        kind = chance.random()
        if not plain or kind < 0.4:
            at = chance.randint(0, len(plain))
            slots = [(A, step * 10 + i) for i in range(chance.randint(1, 4))]
            made.insert(at, slots)
            plain[at:at] = slots
        elif kind < 0.6:
            at = chance.randrange(len(plain))
            n = chance.randint(1, len(plain) - at)
            gone = [(slot, slot in hidden) for slot in plain[at : at + n]]
            assert made.delete(at, n) == gone
            del plain[at : at + n]
            hidden.intersection_update(plain)
        elif kind < 0.9:
            slot = chance.choice(plain)
            shown = chance.random() < 0.5
            made.show(slot, shown=shown)
            (hidden.discard if shown else hidden.add)(slot)
        else:
            for name in made.changed:
                slots_ = made.block(name)
                if slots_ is None:
                    disk.pop(name, None)
                else:
                    disk[name] = list(slots_)
            made.changed.clear()
            again = Order()
            again.hidden = set(hidden)
            again.load([(name, disk[name]) for name in made.names()], made.next_name)
            made = again
        visible = [slot for slot in plain if slot not in hidden]
        assert list(made) == visible
        assert (made.length, made.shown) == (len(plain), len(visible))
        for pos, slot in enumerate(plain):
            assert made.at(pos) == slot
            assert made.position(slot) == pos
            before = sum(other not in hidden for other in plain[:pos])
            assert made.index(slot) == made.index_at(pos) == before
        assert [made.at_index(i) for i in range(len(visible))] == visible
