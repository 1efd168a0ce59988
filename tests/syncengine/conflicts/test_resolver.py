"""Resolving conflicts: the guide's examples to the letter, and the laws of each strategy
that claims to converge."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import (
    ConflictEntry,
    ConflictResolver,
    CRDTMergeStrategy,
    CustomResolverStrategy,
    FieldMergeStrategy,
    GCounter,
    Invalid,
    LastWriteWinsStrategy,
    LWWRegister,
    MergeWarning,
    PNCounter,
    Resolution,
    VectorClock,
    VersionVectorStrategy,
)
from syncengine.conflicts.resolver import STRATEGIES
from syncengine.conflicts.tagging import to_plain

LWW = ConflictResolver(LastWriteWinsStrategy())
VECTOR = ConflictResolver(VersionVectorStrategy())
FIELD = ConflictResolver(FieldMergeStrategy())
CRDT = ConflictResolver(CRDTMergeStrategy())


# --- the guide --------------------------------------------------------------------------


def test_the_last_write_wins() -> None:
    result = LWW.resolve(
        ConflictEntry({"name": "Alice"}, 1000, "node-1"),
        ConflictEntry({"name": "Bob"}, 2000, "node-2"),
    )

    assert result.value == {"name": "Bob"}
    assert result.resolution == "remote"


def test_of_two_at_one_time_the_higher_node_wins() -> None:
    a, b = ConflictEntry("A", 1000, "node-1"), ConflictEntry("B", 1000, "node-2")

    assert LWW.resolve(a, b).value == "B"
    assert LWW.resolve(b, a).value == "B"
    assert LWW.resolve(b, a).resolution == "local"


def test_what_knew_of_the_other_version_stands() -> None:
    result = VECTOR.resolve(
        ConflictEntry({"v": 1}, 1000, "A", {"entries": {"A": 1, "B": 0}}),
        ConflictEntry({"v": 2}, 2000, "B", {"entries": {"A": 1, "B": 1}}),
    )

    assert result.resolution == "remote"
    assert result.value == {"v": 2}
    assert result.conflicts == ()


def test_versions_of_which_none_knew_of_the_other_are_conflicts() -> None:
    versions = [
        ConflictEntry({"v": 1}, 1000, "A", VectorClock({"A": 1})),
        ConflictEntry({"v": 2}, 1000, "B", VectorClock({"B": 1})),
    ]

    result = VECTOR.resolve(*versions)

    assert result.resolution == "merged"
    assert list(result.conflicts) == versions
    assert result.value == {"v": 2}
    assert result.vector_clock == VectorClock({"A": 1, "B": 1})


def test_knowing_counts_for_more_than_the_clock_on_the_wall() -> None:
    older = ConflictEntry("older", 9000, "A", {"A": 1})
    newer = ConflictEntry("newer", 1000, "B", {"A": 1, "B": 1})

    assert VECTOR.resolve(newer, older).value == "newer"
    assert VECTOR.resolve(newer, older).resolution == "local"


def test_fields_are_merged() -> None:
    result = FIELD.resolve(
        ConflictEntry(
            {"name": "Alice", "email": "alice@old.com", "age": 30}, 1000, "A"
        ),
        ConflictEntry({"name": "Alice Smith", "phone": "555-1234"}, 2000, "B"),
    )

    assert list(result.value.items()) == [
        ("name", "Alice Smith"),
        ("email", "alice@old.com"),
        ("age", 30),
        ("phone", "555-1234"),
    ]
    assert result.resolution == "merged"


def test_crdts_in_fields_are_merged() -> None:
    local, remote = (
        ConflictEntry(
            {
                "views": GCounter.from_json({node: views}),
                "likes": PNCounter.from_json(
                    {"positive": {node: likes}, "negative": {}}
                ),
                "title": title,
            },
            timestamp,
            name,
        )
        for node, views, likes, title, timestamp, name in (
            ("node-a", 100, 50, "Original Title", 1000, "A"),
            ("node-b", 75, 30, "Updated Title", 2000, "B"),
        )
    )

    for result in (CRDT.resolve(local, remote), CRDT.resolve(remote, local)):
        assert result.value["views"].value() == 175
        assert result.value["likes"].value() == 80
        assert result.value["title"] == "Updated Title"
    assert local.value["views"].value() == 100


def cart(local: ConflictEntry, remote: ConflictEntry) -> dict[str, Any]:
    merged: dict[str, int] = {}
    for item in (*local.value.get("items", []), *remote.value.get("items", [])):
        merged[item["id"]] = merged.get(item["id"], 0) + item["qty"]
    return {
        "value": {"items": [{"id": id_, "qty": qty} for id_, qty in merged.items()]},
        "timestamp": max(local.timestamp, remote.timestamp),
        "node_id": remote.node_id,
        "resolution": "merged",
    }


def test_a_function_resolves_shopping_carts() -> None:
    resolver = ConflictResolver(CustomResolverStrategy(cart))
    result = resolver.resolve(
        ConflictEntry({"items": [{"id": "milk", "qty": 1}]}, 1000, "A"),
        ConflictEntry(
            {"items": [{"id": "milk", "qty": 2}, {"id": "tea", "qty": 1}]}, 2000, "B"
        ),
    )

    assert result.value == {
        "items": [{"id": "milk", "qty": 3}, {"id": "tea", "qty": 1}]
    }
    assert (result.resolution, result.timestamp, result.node_id) == (
        "merged",
        2000,
        "B",
    )


def test_a_function_may_hand_on_a_version() -> None:
    resolver = ConflictResolver(
        CustomResolverStrategy(lambda local, remote: remote.resolved("custom"))
    )
    result = resolver.resolve(ConflictEntry(2, 2000, "B"), ConflictEntry(1, 1000, "A"))

    assert (result.value, result.resolution) == (
        2,
        "custom",
    )  # in order of their stamps


# --- beyond the guide -------------------------------------------------------------------


def test_a_field_that_nobody_wrote_again_keeps_its_own_stamp() -> None:
    first = ConflictEntry({"a": 1, "b": 1}, 3000, "C")
    second = ConflictEntry({"a": 2}, 2000, "B")
    third = ConflictEntry({"b": 3, "c": 3}, 1000, "A")
    late = ConflictEntry({"c": 4}, 1500, "D")

    halfway = FIELD.resolve(third, first)
    assert halfway.stamps == {"c": (1000, "A")}
    orders: list[list[ConflictEntry | Resolution]]
    orders = [[halfway, second, late], [late, halfway, second]]
    for order in orders:
        assert FIELD.resolve(order).value == {"a": 1, "b": 1, "c": 4}


def test_a_counter_stands_beside_what_was_written_over_it() -> None:
    counter = GCounter.from_json({"a": 5})
    result = CRDT.resolve(
        ConflictEntry({"n": counter}, 1000, "A"), ConflictEntry({"n": 7}, 2000, "B")
    )

    assert result.value == {"n": counter}


def test_a_version_may_be_a_crdt_as_a_whole() -> None:
    one, other = GCounter.from_json({"a": 5}), GCounter.from_json({"b": 1})

    result = CRDT.resolve(ConflictEntry(one, 1, "A"), ConflictEntry(other, 2, "B"))

    assert result.value.value() == 6


def test_several_versions_are_resolved_at_once() -> None:
    versions = [ConflictEntry(n, n, "A") for n in (1, 3, 2)]

    assert LWW.resolve(versions).value == 3
    assert LWW.resolve(versions[:1]).resolution == "local"


def test_a_function_of_all_versions_gets_them_in_order() -> None:
    def newest_two(versions: Sequence[ConflictEntry]) -> Resolution:
        return versions[-1].resolved(value=[one.value for one in versions])

    resolver = ConflictResolver(
        CustomResolverStrategy(resolve_all=newest_two, debug=True)
    )
    versions = [ConflictEntry(n, n, "A") for n in (1, 3, 2)]

    assert resolver.resolve(versions).value == [1, 2, 3]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_strategy_is_known_by_its_name(name: str) -> None:
    assert ConflictResolver(name).strategy.converges


@pytest.mark.parametrize("strategy", ["newest", 7, LastWriteWinsStrategy])
def test_an_unknown_strategy_is_refused(strategy: Any) -> None:
    with pytest.raises(Invalid, match="strategy"):
        ConflictResolver(strategy)


def test_a_function_does_not_claim_to_converge() -> None:
    strategy = CustomResolverStrategy(cart)

    assert not strategy.converges
    assert "commutative" in strategy.why


@pytest.mark.parametrize("returned", [None, 7, {"value": 1}, {}, "remote"])
def test_nonsense_of_a_function_is_refused(returned: Any) -> None:
    resolver = ConflictResolver(CustomResolverStrategy(lambda a, b: returned))
    with pytest.raises(Invalid, match="returned"):
        resolver.resolve(ConflictEntry(1, 1, "A"), ConflictEntry(2, 2, "B"))


def test_what_a_function_changes_is_a_copy() -> None:
    def spoil(local: ConflictEntry, remote: ConflictEntry) -> ConflictEntry:
        local.value.clear()
        return remote

    versions = ConflictEntry({"a": 1}, 1, "A"), ConflictEntry({"b": 1}, 2, "B")
    ConflictResolver(CustomResolverStrategy(spoil)).resolve(*versions)
    assert versions[0].value == {"a": 1}

    with pytest.raises(Invalid, match="changed what it was given"):
        ConflictResolver(CustomResolverStrategy(spoil, debug=True)).resolve(*versions)


def test_a_function_that_rolls_dice_is_found_out() -> None:
    dice = iter(range(100))

    def roll(local: ConflictEntry, remote: ConflictEntry) -> Resolution:
        return remote.resolved(value=next(dice))

    resolver = ConflictResolver(CustomResolverStrategy(roll, debug=True))
    with pytest.raises(Invalid, match="another value"):
        resolver.resolve(ConflictEntry(1, 1, "A"), ConflictEntry(2, 2, "B"))


def test_a_function_that_depends_on_the_order_is_warned_of() -> None:
    def first(local: ConflictEntry, remote: ConflictEntry) -> ConflictEntry:
        return local

    resolver = ConflictResolver(CustomResolverStrategy(first, debug=True))
    with pytest.warns(MergeWarning, match="another order"):
        resolver.resolve(ConflictEntry(1, 1, "A"), ConflictEntry(2, 2, "B"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": object()},
        {"value": float("nan")},
        {"timestamp": "now"},
        {"timestamp": float("inf")},
        {"node_id": 7},
        {"vector_clock": {"A": -1}},
    ],
)
def test_what_is_no_version_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        fields: dict[str, Any] = {"value": 1, "timestamp": 1, "node_id": "A"}
        ConflictEntry(**fields | arguments)


def test_what_a_strategy_cannot_take_is_refused() -> None:
    plain = ConflictEntry(1, 1, "A"), ConflictEntry(2, 2, "B")
    with pytest.raises(Invalid, match="vector clocks"):
        VECTOR.resolve(*plain)
    with pytest.raises(Invalid, match="mappings"):
        FIELD.resolve(*plain)
    with pytest.raises(Invalid, match="no version"):
        LWW.resolve([])
    with pytest.raises(Invalid, match="ConflictEntry"):
        LWW.resolve({"value": 1}, plain[0])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(Invalid, match="not both"):
        CustomResolverStrategy()


# --- laws -------------------------------------------------------------------------------


def versions(name: str, seed: int) -> list[ConflictEntry]:
    """Return what three nodes wrote who heard of each other now and then."""
    chance = random.Random(seed)
    clocks = {node: VectorClock() for node in "ABC"}
    made: list[ConflictEntry] = []
    for number in range(chance.randint(1, 6)):
        node = chance.choice("ABC")
        if chance.random() < 0.4:
            other = chance.choice("ABC")
            clocks[node] = VectorClock.merge(clocks[node], clocks[other])
        clocks[node] = clocks[node].tick(node)
        value: Mapping[str, Any] = {
            chance.choice("xyz"): chance.randint(0, 3) for _ in range(2)
        }
        if name == "crdt" and chance.random() < 0.7:
            counter = chance.choice((GCounter, PNCounter))(node)
            counter.increment(number)
            value = {**value, chance.choice("xyz"): counter}
        timestamp = chance.randint(0, 3)
        made.append(ConflictEntry(value, timestamp, f"{node}{number}", clocks[node]))
    return made


def shown(resolution: Resolution) -> Any:
    conflicts = [one.order for one in resolution.conflicts]
    stamps = sorted(resolution.stamps.items())
    who = resolution.timestamp, resolution.node_id
    return to_plain(resolution.value), who, conflicts, stamps


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@given(seed=st.integers(0, 2**32))
def test_what_converges_does_so_in_any_order_and_grouping(name: str, seed: int) -> None:
    resolver = ConflictResolver(name)
    chance = random.Random(seed + 1)
    given_ = versions(name, seed)
    at_once = resolver.resolve(given_)

    shuffled = [*given_, *chance.sample(given_, chance.randint(0, len(given_)))]
    chance.shuffle(shuffled)
    one_by_one: Resolution | ConflictEntry = shuffled[0]
    for version in shuffled[1:]:
        pair = [one_by_one, version]
        chance.shuffle(pair)
        one_by_one = resolver.resolve(pair)
    cut = chance.randint(1, len(shuffled))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]

    assert shown(resolver.resolve([one_by_one])) == shown(at_once)
    assert shown(resolver.resolve([resolver.resolve(p) for p in parts])) == shown(
        at_once
    )


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConflictEntry(1, 10**400, "a"),
        lambda: ConflictEntry(1, float("inf"), "a"),
        lambda: ConflictEntry(1, 1, "a", 5),  # type: ignore[arg-type]
        lambda: ConflictEntry(1, 1, "a", stamps=5),  # type: ignore[arg-type]
        lambda: ConflictEntry(nested(100_000), 1, "a"),
        lambda: VectorClock([1]),  # type: ignore[arg-type]
        lambda: VectorClock.of(5),  # type: ignore[arg-type]
        lambda: ConflictResolver(LastWriteWinsStrategy()).resolve(5),  # type: ignore[arg-type]
        lambda: LWWRegister[int]("a").set(1, 10**400),
    ],
)
def test_what_makes_no_sense_is_invalid(make: Callable[[], object]) -> None:
    with pytest.raises(Invalid):
        make()
