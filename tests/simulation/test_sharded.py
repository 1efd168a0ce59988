"""The story of a fleet in many worlds: moves lose nothing, and end."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.sharding import sharded
from tests.simulation.test_standard import first_seed

SEEDS = 32
PARTS = 8

# One for each bug that a seed has found; they stay for ever.
PAST = {
    1001: "whoever came while a namespace was being given away was never sent on",
    1134: "a hub went on pushing to a former home, and neither could delete its copy",
    1203: "a new home refused for good what was on its way to it",
    2041: "a push that was asked for before the placement changed was kept open",
    58714: "what was on its way to the disk of a namespace came after its deletion",
}


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(sharded, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "writes": sum(report.transactions for report in reports),
            "receipts": sum(report.receipts for report in reports),
            "cuts": sum(report.cuts for report in reports),
            "crashes": sum(report.crashes for report in reports),
        },
    )


@pytest.mark.parametrize("seed", sorted(PAST))
def test_past_bugs_stay_fixed(seed: int) -> None:
    simulate(sharded, seeds=1, first_seed=seed)
