"""Many seeds of a story, on all cores: `python -m syncengine.testing`."""

import argparse
import functools
import logging
import multiprocessing
import os
import sys
import time

from syncengine.testing.leading import led
from syncengine.testing.leasing import leased
from syncengine.testing.mastering import mastered
from syncengine.testing.operating import operated
from syncengine.testing.sharding import sharded
from syncengine.testing.story import cloned, standard
from syncengine.testing.switching import switched
from syncengine.testing.world import Report, run_seed

STORIES = {
    "standard": standard,
    "cloned": cloned,
    "led": led,
    "leased": leased,
    "operated": operated,
    "switched": switched,
    "mastered": mastered,
    "sharded": sharded,
}

# Worlds of one process: what died in them is kept until it ends.
CHUNK = 20


def one(story: str, seed: int) -> tuple[Report, str]:
    """Run one seed; return what it did, and how it failed."""
    logging.disable(logging.CRITICAL)
    outcome = run_seed(STORIES[story], seed)
    problem = f"{outcome.error}\n{outcome.text}" if outcome.error is not None else ""
    return outcome.report, problem


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m syncengine.testing")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--story", choices=STORIES, default="standard")
    arguments = parser.parse_args()
    began = time.monotonic()
    totals = {"transactions": 0, "cuts": 0, "crashes": 0, "elections": 0, "hours": 0.0}
    failed: list[int] = []
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), maxtasksperchild=CHUNK) as pool:
        run = functools.partial(one, arguments.story)
        for report, problem in pool.imap(run, seeds):
            totals["transactions"] += report.transactions
            totals["cuts"] += report.cuts
            totals["crashes"] += report.crashes
            totals["elections"] += report.elections
            totals["hours"] += report.virtual_seconds / 3600
            if problem:
                failed.append(report.seed)
                shown = problem if len(failed) == 1 else problem.partition("\n")[0]
                print(f"seed {report.seed}: {shown}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(
        f"{arguments.seeds} seeds from {arguments.first} in {seconds:.0f} s: "
        f"{totals['transactions']:,} transactions, {totals['cuts']:,} cuts, "
        f"{totals['crashes']:,} crashes, {totals['elections']:,} elections, "
        f"{totals['hours']:.1f} virtual hours; "
        f"{len(failed)} failed{f': {failed[:20]}' if failed else ''}"
    )
    return 1 if failed else 0
