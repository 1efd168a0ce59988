"""Which hub is to keep which partition: as even as can be, and little moved.

Pure planning. Partitions of hubs that left go to whoever has least; then single
partitions move from the fullest hub to the emptiest, as long as that evens out enough.
Among equally good ones the one with less in it moves. (Longest processing time first,
Graham 1969, then local search; a hash ring or rendezvous hashing would need no table,
but leaves the fullest of a few hubs a third above the mean: `benchmarks/fleets.py`.)
"""

from collections.abc import Mapping, Sequence

from syncengine.ids import DeviceId
from syncengine.trust.placement import HubRecord

# What is measured changes all the time: who is so close to the mean is even enough.
WORTH_MOVING = 0.05

# Sums of floats differ by their order: what helps less than this, of all, does not.
TINY = 1e-9

# Of the mean, what each partition counts at least: empty ones, in which namespaces will
# be, are spread too.
FLOOR = 0.25


def spread(
    hubs: Sequence[HubRecord],
    homes: Sequence[DeviceId | None],
    load: Mapping[int, float] | None = None,
) -> bytes:
    """Return, for each partition, the index in `hubs` of its home.

    `homes` are the present ones (None: nowhere), `load` what each partition weighs (in
    any unit; without it, each the same). Hubs get shares by their weight.
    """
    if not hubs:
        return b""
    weigh = _weights(len(homes), load)
    index = {hub.device: at for at, hub in enumerate(hubs)}
    placed = [None if home is None else index.get(home) for home in homes]
    total = [0.0] * len(hubs)
    for partition, at in enumerate(placed):
        if at is not None:
            total[at] += weigh[partition]
    orphans = [p for p, at in enumerate(placed) if at is None]
    for partition in sorted(orphans, key=lambda p: (-weigh[p], p)):
        at = min(
            range(len(hubs)),
            key=lambda h: ((total[h] + weigh[partition]) / hubs[h].weight, h),
        )
        placed[partition] = at
        total[at] += weigh[partition]
    homes_of = [at for at in placed if at is not None]
    even = 0.0 if load is None else 2 * WORTH_MOVING * sum(weigh) / _shares(hubs)
    while _even_out(hubs, homes_of, weigh, total, even):
        pass
    return bytes(homes_of)


def _even_out(
    hubs: Sequence[HubRecord],
    placed: list[int],
    weigh: Sequence[float],
    total: list[float],
    even: float,
) -> bool:
    """Move one partition from the fullest hub to the emptiest, where these differ by
    more than `even` and that helps."""
    fullness = [total[at] / hub.weight for at, hub in enumerate(hubs)]
    hot = max(range(len(hubs)), key=lambda at: (fullness[at], at))
    cold = min(range(len(hubs)), key=lambda at: (fullness[at], at))

    if fullness[hot] - fullness[cold] <= even:
        return False

    def after(partition: int) -> float:
        return max(
            (total[hot] - weigh[partition]) / hubs[hot].weight,
            (total[cold] + weigh[partition]) / hubs[cold].weight,
        )

    best = min(
        (p for p, at in enumerate(placed) if at == hot),
        key=lambda p: (after(p), weigh[p], p),
        default=None,
    )
    if best is None or after(best) > fullness[hot] - TINY * sum(weigh):
        return False
    placed[best] = cold
    total[hot] -= weigh[best]
    total[cold] += weigh[best]
    return True


def imbalance(
    hubs: Sequence[HubRecord],
    homes: Sequence[int],
    load: Mapping[int, float] | None = None,
) -> float:
    """Return how much fuller the fullest hub is than its share: 1.0 is even."""
    weigh = [load.get(p, 0.0) if load else 1.0 for p in range(len(homes))]
    if not hubs or not sum(weigh):
        return 1.0
    total = [0.0] * len(hubs)
    for partition, at in enumerate(homes):
        total[at] += weigh[partition]
    fullest = max(each / hub.weight for each, hub in zip(total, hubs, strict=True))
    return fullest * _shares(hubs) / sum(weigh)


def _shares(hubs: Sequence[HubRecord]) -> int:
    return sum(hub.weight for hub in hubs)


def _weights(partitions: int, load: Mapping[int, float] | None) -> list[float]:
    if not load or not sum(load.values()):
        return [1.0] * partitions
    floor = FLOOR * sum(load.values()) / partitions
    return [max(load.get(partition, 0.0), floor) for partition in range(partitions)]
