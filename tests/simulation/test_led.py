"""The story of leaders in many worlds: L1-L5, D1, O2, B3, C1."""

from collections.abc import Callable

import pytest

from syncengine.testing import simulate
from syncengine.testing.leading import led
from tests.simulation.test_standard import first_seed

SEEDS = 96
PARTS = 16

# One for each bug that a seed has found; they stay for ever.
PAST = {
    0: "a session's token was judged by a node that knew less of who leads",
    40: "a new leader read what waited for a clock, and said it was all there",
    46: "a leader whose clock was an hour ahead stopped everybody for an hour",
    146: "an actor of whose writes none shows yet was forgotten at a restart",
    2281: "what a rebuild had taken away was read from the file until its commit",
    54459: "who let the turn go without a word left a commit waiting for ever",
    300021: "who led shows, while its disk is full, what the next leader never had",
    300625: "who was elected to go on from an earlier term did not judge anew",
}


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(led, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "operations": sum(report.transactions for report in reports),
            "elections": sum(report.elections for report in reports),
            "cuts": sum(report.cuts for report in reports),
            "crashes": sum(report.crashes for report in reports),
        },
    )


@pytest.mark.parametrize("seed", sorted(PAST))
def test_past_bugs_stay_fixed(seed: int) -> None:
    simulate(led, seeds=1, first_seed=seed)
