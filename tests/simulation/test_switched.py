"""The story of a namespace switched between masters and a leader: L1-L5, D1, O2, B2."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.switching import switched
from tests.simulation.test_standard import first_seed

SEEDS = 64
PARTS = 8

# One for each bug that a seed has found; they stay for ever.
PAST = {
    25: "a write repeated when its log had been ended was named in the present one",
    166: "who stopped leading while it switched failed an assertion",
    317: "a new leader wrote before what its log has had its effect: an older write won",
    450: "a new leader's strong read missed what waited for a clock",
}


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(switched, seeds=each, first_seed=first)
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
    simulate(switched, seeds=1, first_seed=seed)
