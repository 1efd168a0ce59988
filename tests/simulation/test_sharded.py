"""The story of a fleet in many worlds: moves lose nothing, and end."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.sharding import sharded
from tests.simulation.test_standard import first_seed

SEEDS = 32
PARTS = 8

# One for each bug that a seed of this story has found; those that its earlier forms found
# have tests of their own in test_moving.py.
PAST = {
    644290: "synced() never returned: rows that were skipped woke nobody",
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
