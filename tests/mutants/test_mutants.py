"""Planted bugs fit the code as it is, and are caught: some here, all by
`make mutants`."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import Mutant, hunt, mutants, plant

# Caught within the first seeds: the others are hunted by command.
QUICK = ("anybodys_actor", "commit_without_a_majority", "conflicts_forgotten")


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_the_patch_fits(mutant: Mutant, tmp_path: Path) -> None:
    plant(mutant, tmp_path)


@pytest.mark.parametrize("name", QUICK)
def test_the_bug_is_caught(name: str) -> None:
    (mutant,) = [mutant for mutant in mutants() if mutant.name == name]
    seeds, how = hunt(mutant)
    assert seeds, how
