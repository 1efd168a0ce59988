"""The story of people who look after voters: L1-L5, D1, O2, B2, B3, C1."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.operating import operated
from tests.simulation.test_standard import first_seed

SEEDS = 48
PARTS = 8

# One for each bug that a seed has found; they stay for ever.
PAST = {
    105: "a voter from a backup, removed before it was back and then added, never voted",
    1067: "what was made anew after leading was not written, and compared with others",
}


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


@pytest.mark.parametrize("seed", sorted(PAST))
def test_past_bugs_stay_fixed(seed: int) -> None:
    simulate(operated, seeds=1, first_seed=seed)
