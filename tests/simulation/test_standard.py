"""The standard story in many worlds: C1, C2, D1, D2, D3, O1, O3."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from syncengine.testing import simulate
from syncengine.testing.story import cloned, standard

SEEDS = 120
PARTS = 24

# One for each bug that a seed has found; they stay for ever.
PAST = {
    0: "an invite that had not reached the hub was a final refusal",
    1: "a restarted device became a new actor while its dead connection lingered",
    3: "a failed commit rolled the clock back: one stamp twice",
    5: "a clock set back by an hour stopped everything for an hour",
    15: "a handshake that timed out was taken for an impostor",
    626841: "a hub restored to before a namespace was never shown it again",
    733188: "what was stored and unapplied at a restart waited for the next batch",
    84127: "a text read from disk took in twice what was typed since",
    155: "a rebuild counted the outbox of a commit under way",
}


def first_seed() -> int:
    """Return where the seeds begin: another place with each commit."""
    root = Path(__file__).parent.parent.parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, check=True
        ).stdout
        return 1_000 + int(head[:7], 16) % 1_000_000
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 1_000


@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds(part: int, record_property: Callable[[str, object], None]) -> None:
    each = SEEDS // PARTS
    first = first_seed() + part * each
    reports = simulate(standard, seeds=each, first_seed=first)
    record_property(
        f"seeds from {first}",
        {
            "seeds": each,
            "transactions": sum(report.transactions for report in reports),
            "cuts": sum(report.cuts for report in reports),
            "crashes": sum(report.crashes for report in reports),
            "virtual hours": round(sum(r.virtual_seconds for r in reports) / 3600),
        },
    )

    assert sum(report.transactions for report in reports) >= 100 * each


@pytest.mark.parametrize("seed", sorted(PAST))
def test_past_bugs_stay_fixed(seed: int) -> None:
    simulate(standard, seeds=1, first_seed=seed)


@pytest.mark.parametrize("first_seed", [0, 4])
def test_clones_of_a_device_converge(first_seed: int) -> None:
    simulate(cloned, seeds=4, first_seed=first_seed)
