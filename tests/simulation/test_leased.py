"""The story of leaders by a lease: L1-L5, D1, O2, B3."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.leasing import leased
from tests.simulation.test_standard import first_seed

SEEDS = 32
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(leased, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "operations": sum(report.transactions for report in reports),
            "elections": sum(report.elections for report in reports),
            "crashes": sum(report.crashes for report in reports),
        },
    )
