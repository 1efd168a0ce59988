"""Partitions are shared evenly, by count or by what they weigh, and little moves."""

from hypothesis import given
from hypothesis import strategies as st

from syncengine.ids import DeviceId
from syncengine.replication.balancing import WORTH_MOVING, imbalance, spread
from syncengine.trust.placement import HubRecord


def hubs(*weights: int) -> list[HubRecord]:
    return [
        HubRecord(DeviceId(bytes([n + 1]) * 32), "ws://hub", None, weight)
        for n, weight in enumerate(weights)
    ]


def homes(fleet: list[HubRecord], placed: bytes) -> list[DeviceId | None]:
    return [fleet[at].device for at in placed]


def counts(placed: bytes, many: int) -> list[int]:
    return [placed.count(at) for at in range(many)]


@given(st.integers(1, 12), st.sampled_from([1, 2, 16, 64, 256]))
def test_equal_hubs_differ_by_one_at_most(many: int, partitions: int) -> None:
    placed = spread(hubs(*[1] * many), [None] * partitions)

    assert len(placed) == partitions
    assert max(counts(placed, many)) - min(counts(placed, many)) <= 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_shares_go_by_weight(weights: list[int]) -> None:
    placed = spread(hubs(*weights), [None] * 256)

    for count, weight in zip(counts(placed, len(weights)), weights, strict=True):
        assert abs(count - 256 * weight / sum(weights)) <= max(weights)


@given(st.integers(1, 11))
def test_a_hub_that_comes_takes_its_share_and_nothing_else_moves(many: int) -> None:
    before = spread(hubs(*[1] * many), [None] * 64)
    now = hubs(*[1] * (many + 1))

    after = spread(now, homes(now, before))

    moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert all(to == many for _, to in moved)
    assert len(moved) == 64 // (many + 1)


@given(st.integers(2, 12), st.data())
def test_when_a_hub_leaves_only_what_it_kept_moves(
    many: int, data: st.DataObject
) -> None:
    fleet = hubs(*[1] * many)
    before = spread(fleet, [None] * 64)
    gone = data.draw(st.integers(0, many - 1))
    left = fleet[:gone] + fleet[gone + 1 :]

    after = spread(left, homes(fleet, before))

    for old, new in zip(homes(fleet, before), homes(left, after), strict=True):
        assert old == new or old == fleet[gone].device
    assert max(counts(after, many - 1)) - min(counts(after, many - 1)) <= 1


@given(
    st.lists(st.integers(0, 1_000_000), min_size=64, max_size=64),
    st.integers(2, 6),
)
def test_by_load_nobody_is_much_above_the_mean_but_for_one_large_partition(
    sizes: list[int], many: int
) -> None:
    load = {partition: float(size) for partition, size in enumerate(sizes)}
    fleet = hubs(*[1] * many)
    before = spread(fleet, [None] * 64)

    after = spread(fleet, homes(fleet, before), load)

    mean = sum(sizes) / many
    assert imbalance(fleet, after, load) <= imbalance(fleet, before, load) + 0.1
    if sum(sizes):
        # Whoever is fullest has nothing that would be worth giving to the emptiest.
        fullest = max(counts_by(after, load, many))
        assert fullest <= mean * (1 + 2 * WORTH_MOVING) + max(sizes)


def counts_by(placed: bytes, load: dict[int, float], many: int) -> list[float]:
    return [
        sum(load[p] for p, at in enumerate(placed) if at == hub) for hub in range(many)
    ]


def test_what_is_even_enough_stays() -> None:
    fleet = hubs(1, 1)
    before = bytes(n % 2 for n in range(64))
    load = {n: 100.0 + n % 2 for n in range(64)}

    assert spread(fleet, homes(fleet, before), load) == before


def test_one_hot_partition_drives_the_others_away_and_stays() -> None:
    fleet = hubs(1, 1)
    before = bytes(n % 2 for n in range(64))
    load = dict.fromkeys(range(64), 1.0) | {0: 60.0}

    after = spread(fleet, homes(fleet, before), load)

    assert after[0] == before[0]
    assert imbalance(fleet, after, load) < 1.06
    assert imbalance(fleet, before, load) > 1.4


def test_nobody_and_nothing() -> None:
    assert spread([], [None] * 4) == b""
    assert imbalance([], b"") == 1.0
    assert imbalance(hubs(1), b"\0", {0: 0.0}) == 1.0
