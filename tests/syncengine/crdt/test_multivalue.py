"""Multi-value registers against the plain definition: what no other write has seen."""

import random

from hypothesis import given
from hypothesis import strategies as st

from syncengine import values
from syncengine.crdt import multivalue
from syncengine.crdt.register import EMPTY, Entry, Slot
from syncengine.ids import ActorId
from tests.strategies import ACTORS

Write = tuple[int, ActorId, int, list[int], dict[ActorId, int]]
"""(stamp, author, seq, values, what the author had seen)"""


@st.composite
def histories(draw: st.DrawFn) -> list[Write]:
    """Writes of three, who hear of each other now and then."""
    versions: dict[ActorId, dict[ActorId, int]] = {actor: {} for actor in ACTORS[:3]}
    history: list[Write] = []
    for stamp in range(1, draw(st.integers(1, 12)) + 1):
        author = draw(st.sampled_from(ACTORS[:3]))
        version = versions[author]
        heard = draw(st.sampled_from([None, *ACTORS[:3]]))
        if heard is not None:
            for actor, seq in versions[heard].items():
                version[actor] = max(seq, version.get(actor, 0))
        seen = dict(version)
        version[author] = seq = seen.get(author, 0) + 1
        several = draw(st.lists(st.integers(0, 3), max_size=2))
        history.append((stamp, author, seq, several, seen))
    return history


def after(history: list[Write]) -> Slot:
    slot: Slot = EMPTY
    for stamp, author, seq, several, seen in history:
        entries = [Entry(stamp, author, seq, value) for value in several]
        slot = multivalue.write(slot, entries, seen)
    return slot


@given(histories())
def test_what_nobody_has_seen_shows(history: list[Write]) -> None:
    kept = [
        write
        for write in history
        if not any(write[2] <= other[4].get(write[1], 0) for other in history)
    ]
    expected: list[int] = []
    for _, _, _, several, _ in sorted(kept, key=lambda w: w[:3], reverse=True):
        for value in sorted(set(several), key=values.canonical, reverse=True):
            if value not in expected:
                expected.append(value)

    assert multivalue.shown(after(history)) == expected


@given(histories(), st.randoms())
def test_the_order_of_arrival_does_not_show(
    history: list[Write], chance: random.Random
) -> None:
    """Any order in which nothing comes before what its author had seen."""
    left, version = list(history), dict[ActorId, int]()
    order: list[Write] = []
    while left:
        ready = [
            write
            for write in left
            if write[2] == version.get(write[1], 0) + 1
            and all(version.get(a, 0) >= s for a, s in write[4].items())
        ]
        write = chance.choice(ready)
        left.remove(write)
        order.append(write)
        version[write[1]] = write[2]

    assert after(order) == after(history)
