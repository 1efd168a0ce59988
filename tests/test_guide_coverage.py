"""`docs/guide-coverage.md` says what is true: of what is built, and of what is not."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import clients
import syncengine
from syncengine.replication.multi_master import STRATEGIES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/guide-coverage.md").read_text()


class Thing(NamedTuple):
    owner: str
    kind: str
    name: str
    default: str
    shown_by: str


def things() -> list[Thing]:
    found: list[Thing] = []
    owner = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            owner = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| kind", "| ---")):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.append(Thing(owner, *(cell.strip() for cell in cells)))
    return found


THINGS = things()
SHOWN = [thing for thing in THINGS if thing.shown_by != "open"]


def test_the_sums_are_right() -> None:
    told = re.search(r"(\d+) things: (\d+) shown, (\d+) open", PAGE)
    assert told is not None
    counts = len(THINGS), len(SHOWN), len(THINGS) - len(SHOWN)
    assert tuple(map(int, told.groups())) == counts


@pytest.mark.parametrize("shown_by", sorted({thing.shown_by for thing in SHOWN}))
def test_what_shows_something_is_a_test(shown_by: str) -> None:
    path, _, name = shown_by.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


def named(kind: str) -> list[Any]:
    return [
        pytest.param(thing, id=f"{thing.owner}.{thing.name}")
        for thing in SHOWN
        if thing.kind == kind
    ]


def found(name: str) -> Any:
    """Return a class, or a method of one, by its name."""
    owner, _, method = name.partition(".")
    one = getattr(syncengine if hasattr(syncengine, owner) else clients, owner)
    return getattr(one, method) if method else one


@pytest.mark.parametrize("thing", [*named("class"), *named("strategy")])
def test_a_class_can_be_imported(thing: Thing) -> None:
    if thing.owner == "ConflictStrategy":
        assert thing.name in STRATEGIES
    else:
        assert inspect.isclass(found(thing.name))


@pytest.mark.parametrize("thing", named("method"))
def test_a_method_is_there(thing: Thing) -> None:
    assert callable(getattr(found(thing.owner), thing.name))


@pytest.mark.parametrize("thing", named("option"))
def test_an_option_has_its_default(thing: Thing) -> None:
    of = inspect.signature(found(thing.owner))
    parameter = of.parameters[thing.name]
    if not thing.default.startswith("required"):
        default = ast.literal_eval(thing.default.partition(";")[0])
        assert parameter.default == default
