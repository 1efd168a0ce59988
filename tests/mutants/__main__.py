"""`python -m tests.mutants [NAME ...]`: plants each bug in a copy, and hunts it.

A patch begins with a sentence, and with how it is hunted: `hunt: story NAME BUDGET` (so
many seeds at most), or `hunt: test PATH`. Prints how many seeds it took. Fails when one
goes through.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

SEEDS = """
import logging, sys
from syncengine.testing.campaign import STORIES
from syncengine.testing.world import run_seed

logging.disable(logging.CRITICAL)
story, budget = STORIES[sys.argv[1]], int(sys.argv[2])
for seed in range(budget):
    error = run_seed(story, seed).error
    if error is not None and "too little" not in str(error):
        print(seed + 1, f"{type(error).__name__}: {error}"[:100].replace("\\n", " "))
        sys.exit(1)
"""

# A hunt on one of two shared cores; one that hangs is caught, too.
HUNT_SECONDS = 900


class Mutant(NamedTuple):
    name: str
    sentence: str
    how: list[str]
    path: Path


def mutants() -> list[Mutant]:
    """Return all planted bugs."""
    found: list[Mutant] = []
    for path in sorted(HERE.glob("*.patch")):
        sentence, hunt, *_ = path.read_text().splitlines()
        found.append(Mutant(path.stem, sentence, hunt.split()[1:], path))
    return found


def plant(mutant: Mutant, folder: Path) -> None:
    """Make a copy of the project with the bug in it; raises when it does not fit."""
    for name in ("syncengine", "transport", "clients", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", "*.patch")
            shutil.copytree(source, folder / name, ignore=skip)
        else:
            shutil.copy(source, folder / name)
    subprocess.run(
        ["git", "apply", "--unsafe-paths", f"--directory={folder}", str(mutant.path)],
        check=True,
        cwd=folder,
    )


def hunt(mutant: Mutant) -> tuple[int, str]:
    """Return (seeds it took, how it was caught); no seeds: it went through."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        plant(mutant, folder)
        kind, what, *rest = mutant.how
        if kind == "story":
            command = [sys.executable, "-c", SEEDS, what, *rest]
        else:
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:xdist",
                what,
            ]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False,
                env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin",
                     "PYTHONHASHSEED": "0"},
                timeout=HUNT_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 0, f"nobody noticed within {HUNT_SECONDS} s"
    if done.returncode == 0:
        return 0, "went through"
    if kind == "test":
        failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
        return (1, failed[0][:100]) if failed else (0, done.stdout[-200:])
    if not done.stdout:
        return 0, done.stderr[-300:]
    seeds, _, error = done.stdout.strip().partition(" ")
    return int(seeds), error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args().names
    missed = 0
    for mutant in mutants():
        if wanted and mutant.name not in wanted:
            continue
        began = time.monotonic()
        seeds, how = hunt(mutant)
        missed += not seeds
        spent = time.monotonic() - began
        told = f"{seeds} seeds" if seeds else "NOT CAUGHT"
        print(f"{mutant.name:34} {told:>12} {spent:5.0f} s  {how}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
