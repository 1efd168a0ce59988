"""State-based CRDTs: the guide's examples, and the laws against replicas that merge in
any order."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import (
    GCounter,
    GSet,
    Invalid,
    LWWRegister,
    MVRegister,
    ORSet,
    PNCounter,
    TooLarge,
)
from syncengine.conflicts.crdts import Mergeable


def test_counters_of_two_nodes_add_up() -> None:
    a, b = GCounter("node-a"), GCounter("node-b")
    a.increment(5)
    b.increment(3)
    assert (a.value(), b.value()) == (5, 3)

    a.merge(b)

    assert a.value() == 8
    assert a.to_json() == {"node-a": 5, "node-b": 3}
    assert b.to_json() == {"node-b": 3}
    assert GCounter.from_json(a.to_json()) == a


def test_a_counter_goes_both_ways() -> None:
    counter, remote = PNCounter("node-a"), PNCounter("node-b")
    counter.increment(10)
    counter.decrement(3)
    assert counter.value() == 7
    remote.increment(5)
    remote.decrement(2)

    counter.merge(remote)

    assert counter.value() == 10
    assert counter.to_json() == {
        "positive": {"node-a": 10, "node-b": 5},
        "negative": {"node-a": 3, "node-b": 2},
    }
    assert PNCounter.from_json(counter.to_json(), "node-a") == counter


def test_a_restored_counter_goes_on_as_who_it_is_given_to() -> None:
    counter = GCounter.from_json({"node-a": 5}, "node-b")
    counter.increment(2)

    assert counter.to_json() == {"node-a": 5, "node-b": 2}


def test_whoever_has_no_name_can_read_but_not_count() -> None:
    counter = GCounter.from_json({"node-a": 5})

    assert counter.value() == 5
    for nameless in (counter, PNCounter()):
        with pytest.raises(Invalid, match="node_id"):
            nameless.increment()
    with pytest.raises(Invalid, match="node_id"):
        LWWRegister[int]().set(1, 1)
    with pytest.raises(Invalid, match="node_id"):
        ORSet[int]().add(1)
    with pytest.raises(Invalid, match="node_id"):
        MVRegister[int]().set(1)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "1", True, None])
def test_a_counter_counts_in_numbers_from_zero_up(amount: Any) -> None:
    counter = GCounter("a")
    with pytest.raises(Invalid):
        counter.increment(amount)
    assert counter.value() == 0


def test_a_total_has_64_bits() -> None:
    counter = GCounter("a")
    counter.increment(2**63 - 1)
    with pytest.raises(TooLarge):
        counter.increment()
    assert counter.value() == 2**63 - 1


def test_floats_are_summed_exactly() -> None:
    counter = GCounter("a")
    for _ in range(10):
        counter.increment(0.5)
    counter.merge(GCounter.from_json({"b": 2}))

    assert counter.value() == 7.0


def test_sets_unite() -> None:
    a, b = GSet[str](), GSet[str]()
    a.add("apple")
    a.add("banana")
    b.add("banana")
    b.add("cherry")

    a.merge(b)

    assert a.elements() == ["apple", "banana", "cherry"]
    assert a.has("cherry")
    assert b.elements() == ["banana", "cherry"]


@pytest.mark.parametrize("make", [GSet[Any], lambda: ORSet[Any]("a")])
def test_elements_are_told_apart_as_their_types_say(make: Callable[[], Any]) -> None:
    made = make()
    for element in (1, "1", 1.0, True, -0.0, 0.0, {"b": 1, "a": 2}, {"a": 2, "b": 1}):
        made.add(element)

    assert len(made) == 6
    assert made.has({"a": 2, "b": 1})
    assert not made.has(False)


def test_an_element_is_what_it_was_when_it_was_added() -> None:
    tags, element = GSet[list[int]](), [1]
    tags.add(element)
    element.append(2)

    assert tags.elements() == [[1]]


def test_what_is_no_value_is_no_element() -> None:
    with pytest.raises(Invalid, match="time zone"):
        GSet[datetime]().add(datetime(2026, 1, 1))
    with pytest.raises(Invalid, match="object"):
        GSet[object]().add(object())


def test_an_add_wins_over_a_remove_that_had_not_seen_it() -> None:
    a, b = ORSet[str]("a"), ORSet[str]("b")
    a.add("x")
    b.merge(a)
    b.remove("x")
    a.add("x")

    a.merge(b)
    b.merge(a)

    assert a.elements() == b.elements() == ["x"]


def test_a_remove_takes_what_it_had_seen() -> None:
    a, b = ORSet[str]("a"), ORSet[str]("b")
    a.add("x")
    b.merge(a)
    b.remove("x")

    a.merge(b)

    assert "x" not in a
    assert ORSet.from_json(a.to_json()).elements() == []


def test_the_later_write_stands() -> None:
    a, b = LWWRegister[str]("node-a"), LWWRegister[str]("node-b")
    a.set("value-1", 1000)
    b.set("value-2", 2000)

    a.merge(b)

    assert a.get() == "value-2"
    assert a.timestamp() == 2000


def test_an_earlier_write_does_not_stand() -> None:
    register = LWWRegister[str]("node-a")
    assert register.timestamp() is None
    assert register.set("new", 2000)
    assert not register.set("old", 1000)
    assert register.get() == "new"


def test_of_two_writes_at_one_time_that_of_the_greater_node_stands() -> None:
    a, b = LWWRegister[str]("node-a"), LWWRegister[str]("node-b")
    a.set("a", 1000)
    b.set("b", 1000)

    a.merge(b)
    b.merge(
        LWWRegister.from_json({"value": "a", "timestamp": 1000, "node_id": "node-a"})
    )

    assert a.get() == b.get() == "b"


@pytest.mark.parametrize("timestamp", [float("nan"), "1000", None, True])
def test_a_timestamp_is_a_number(timestamp: Any) -> None:
    with pytest.raises(Invalid, match="timestamp"):
        LWWRegister[int]("a").set(1, timestamp)


def test_values_written_at_once_are_all_there_until_a_write_that_saw_them() -> None:
    a, b = MVRegister[str]("a"), MVRegister[str]("b")
    a.set("x")
    b.set("y")
    a.merge(b)
    assert a.values() == ["y", "x"]

    a.set("z")
    b.merge(a)

    assert a.values() == b.values() == ["z"]


@pytest.mark.parametrize(
    ("cls", "state"),
    [
        (GCounter, {"a": -1}),
        (GCounter, {"a": "1"}),
        (GCounter, {"": 1}),
        (GCounter, {"a": 2**64}),
        (GCounter, [1]),
        (PNCounter, {"positive": {"a": -1}}),
        (GSet, {"a": 1}),
        (GSet, [object()]),
        (ORSet, {"elements": [["x"]]}),
        (ORSet, {"elements": [["x", {"a": 0}]]}),
        (LWWRegister, {"timestamp": "now"}),
        (LWWRegister, {"timestamp": 1, "value": 1}),
        (MVRegister, {"values": [["x", "a", -1]]}),
        (MVRegister, {"values": 1}),
    ],
)
def test_what_is_no_state_is_refused(cls: type[Mergeable], state: Any) -> None:
    with pytest.raises(Invalid):
        cls.from_json(state)


def test_only_values_of_one_class_merge() -> None:
    with pytest.raises(Invalid, match="PNCounter"):
        GCounter("a").merge(PNCounter("b"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- laws: replicas of one value, changed and merged at random --------------------------


def _count(counter: Any, chance: random.Random) -> None:
    counter.increment(chance.choice((0, 1, 7, 0.25)))
    if isinstance(counter, PNCounter) and chance.random() < 0.5:
        counter.decrement(chance.randint(0, 4))


def _toggle(one: "GSet[Any] | ORSet[Any]", chance: random.Random) -> None:
    element = chance.choice((1, 1.0, "1", True, None))
    if isinstance(one, ORSet) and chance.random() < 0.4:
        one.remove(element)
    else:
        one.add(element)


def _write(one: "LWWRegister[Any] | MVRegister[Any]", chance: random.Random) -> None:
    if isinstance(one, LWWRegister):
        one.set(chance.randint(0, 9), chance.randint(0, 4))
    else:
        one.set(chance.randint(0, 9))


Change = Callable[[Any, random.Random], None]

KINDS: dict[str, tuple[Callable[[str], Any], Change]] = {
    "gcounter": (GCounter, _count),
    "pncounter": (PNCounter, _count),
    "gset": (lambda _: GSet[Any](), _toggle),
    "orset": (ORSet[Any], _toggle),
    "lwwregister": (LWWRegister[Any], _write),
    "mvregister": (MVRegister[Any], _write),
}


def replicas(kind: str, seed: int) -> list[Any]:
    make, change = KINDS[kind]
    chance = random.Random(seed)
    made = [make(name) for name in "abc"]
    for _ in range(chance.randint(0, 25)):
        one, other = chance.choice(made), chance.choice(made)
        if chance.random() < 0.6:
            change(one, chance)
        else:
            one.merge(other)
    return made


def merged(*states: Any) -> Any:
    first = states[0].copy()
    for state in states[1:]:
        first.merge(state)
    return first


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32))
def test_merging_does_not_depend_on_order_or_repetition(kind: str, seed: int) -> None:
    a, b, c = replicas(kind, seed)
    before = [one.copy() for one in (a, b, c)]

    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, a) == a
    assert merged(a, b, b, a) == merged(a, b)
    assert [a, b, c] == before


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32))
def test_a_state_says_all_there_is(kind: str, seed: int) -> None:
    for one in replicas(kind, seed):
        cls = cast(type[Mergeable], one.__class__)
        again = cls.from_json(one.to_json(), one.node_id)
        assert again == one
        assert again.to_json() == one.to_json()


@given(seed=st.integers(0, 2**32))
def test_a_set_holds_what_was_added_and_not_removed_by_who_saw_it(seed: int) -> None:
    # The slow, obviously right one: every add is kept, and every remove names adds.
    chance = random.Random(seed)
    sets = [ORSet[int](name) for name in "abc"]
    adds: list[set[tuple[int, int]]] = [set(), set(), set()]  # (element, number)
    gone: list[set[tuple[int, int]]] = [set(), set(), set()]
    for number in range(30):
        at, other, element = (
            chance.randrange(3),
            chance.randrange(3),
            chance.randrange(3),
        )
        how = chance.random()
        if how < 0.4:
            sets[at].add(element)
            adds[at].add((element, number))
        elif how < 0.6:
            sets[at].remove(element)
            gone[at] |= {add for add in adds[at] if add[0] == element}
        else:
            sets[at].merge(sets[other])
            adds[at] |= adds[other]
            gone[at] |= gone[other]
        assert sets[at].elements() == sorted({e for e, _ in adds[at] - gone[at]})
