"""The story of masters in many worlds: C1, C2, D1, D2, conflicts, no ping-pong."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.mastering import mastered
from tests.simulation.test_standard import first_seed

SEEDS = 64
PARTS = 16

# One for each bug that a seed has found; they stay for ever.
PAST = {
    700224: "who was not let in yet was drained, and removed with all that it wrote",
    900236: "who was let in while it was drained was removed with all that it wrote before",
    146: "after a failed commit a master's clock knew of writes that it had forgotten",
}


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(mastered, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "writes": sum(report.transactions for report in reports),
            "cuts": sum(report.cuts for report in reports),
            "crashes": sum(report.crashes for report in reports),
        },
    )


@pytest.mark.parametrize("seed", sorted(PAST))
def test_past_bugs_stay_fixed(seed: int) -> None:
    simulate(mastered, seeds=1, first_seed=seed)
