"""The story of people who look after voters: L1-L5, D1, O2, B2, B3, C1."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.operating import operated
from tests.simulation.test_standard import first_seed

SEEDS = 48
PARTS = 8

# The bugs that this story has found have tests of their own, in `test_leaders_attacked`
# and `test_replica`.


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(operated, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "operations": sum(report.transactions for report in reports),
            "elections": sum(report.elections for report in reports),
            "crashes": sum(report.crashes for report in reports),
        },
    )
