"""Counters: exact for ints, and independent of the order of actors for floats."""

import math

from hypothesis import given
from hypothesis import strategies as st

from syncengine.crdt import counter
from syncengine.ids import ActorId
from tests.strategies import ACTORS, actors

amounts = st.integers(-(2**62), 2**62) | st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(actors, st.integers(-(2**62), 2**62))))
def test_ints_are_exact(increments: list[tuple[object, int]]) -> None:
    subtotals: dict[object, tuple[int, float]] = {}
    for actor, amount in increments:
        subtotals[actor] = counter.increment(subtotals.get(actor, (0, 0.0)), amount)

    assert counter.value(subtotals) == sum(amount for _, amount in increments)  # type: ignore[arg-type]  # any key will do


@given(st.lists(st.floats(-1e9, 1e9), min_size=4, max_size=4))
def test_the_order_of_actors_does_not_show(parts: list[float]) -> None:
    one = {actor: (0, part) for actor, part in zip(ACTORS, parts, strict=True)}
    two = dict(reversed(list(one.items())))

    assert counter.value(one) == counter.value(two)
    assert math.isclose(counter.value(one), math.fsum(parts), abs_tol=1e-6)


@given(st.lists(st.tuples(actors, st.sampled_from((1e308, -1e308, 1.7e308, 1.0)))))
def test_what_is_beyond_all_floats_is_the_greatest(
    increments: list[tuple[ActorId, float]],
) -> None:
    subtotals: dict[ActorId, tuple[int, float]] = {}
    for actor, amount in increments:
        subtotals[actor] = counter.increment(subtotals.get(actor, (0, 0.0)), amount)

    assert math.isfinite(counter.value(subtotals))


def test_a_sum_that_is_too_large_on_the_way_is_exact() -> None:
    parts = zip(ACTORS, (1e308, 1e308, -1e308), strict=False)

    assert counter.value({actor: (0, part) for actor, part in parts}) == 1e308


@given(st.integers(-(2**70), 2**70))
def test_a_total_beyond_64_bits_is_several_operations(amount: int) -> None:
    parts = list(counter.parts(amount))

    assert sum(parts) == amount
    assert all(-(2**63) <= part < 2**63 for part in parts)
