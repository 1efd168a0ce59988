"""The documents are true: README runs, protocol.md says what the code does."""

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import syncengine
from syncengine import limits
from syncengine.crdt.operation import Action, Type
from syncengine.log.batch import HEADER_BYTES
from syncengine.protocol import messages
from syncengine.protocol.codes import Code
from syncengine.protocol.states import TRANSITIONS

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "protocol.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_first_example_runs_and_is_the_one_in_the_folder(tmp_path: Path) -> None:
    shown = README.split("```python\n")[1].split("```")[0]
    example = ROOT / "examples" / "first.py"
    assert example.read_text().endswith(shown)
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "body='milk, eggs'" in done.stdout


def test_the_story_for_testing_runs() -> None:
    shown = README.split("## Testing your application")[1]
    story = shown.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(story, names)
    names["test_story"]()


async def test_the_untyped_example_runs() -> None:
    shown = README.split("## Documents")[1].split("```python\n")[1].split("```")[0]
    lines = "".join(f"    {line}\n" for line in shown.splitlines())
    names: dict[str, Any] = {}
    exec(f"async def example(space):\n{lines}", names)
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        await names["example"](space)
        page = await space.get("notes/1")
        assert page.to_dict() == {
            "title": "front", "tree": {"a": [1, {"b": 2}]}, "visits": 1, "body": "hello",
        }  # fmt: skip


def test_the_state_table_is_the_one_in_the_code() -> None:
    table = PROTOCOL.split("| state | what happens | next |")[1].split("\n\n")[0]
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in table.splitlines()[2:]
    }

    assert rows == {
        (state.value, what, after.value) for (state, what), after in TRANSITIONS.items()
    }


def test_every_message_is_in_the_document() -> None:
    structs = [
        struct
        for struct in vars(messages).values()
        if isinstance(struct, type) and issubclass(struct, messages.Message)
    ]
    tags = {struct.__struct_config__.tag for struct in structs} - {None}
    section = PROTOCOL.split("## 6. Messages")[1].split("\n1. ")[0]
    listed = {int(n) for line in re.findall(r"^\| ([\d, ]+) \|", section, re.M)
              for n in line.split(",")}  # fmt: skip

    assert listed | {1, 2, 3, 4} == tags
    assert len(tags) == len(structs) - 1
    assert issubclass(messages.Hello, msgspec.Struct)


def test_every_code_is_in_the_document_and_the_reverse() -> None:
    section = PROTOCOL.split("## 7. Codes")[1].split("## 8")[0]
    listed = {int(code) for code in re.findall(r"\b(\d{4})\b", section)}

    assert listed == {int(code) for code in Code}


def test_the_modes_are_compared() -> None:
    page = (ROOT / "docs/replication.md").read_text().split("## Leader and")[0]
    for row in (
        "a write waits for",
        "a read waits for",
        "what you have to think about",
    ):
        assert re.search(rf"^\| {row} \|.{{20,}}\|.{{5,}}\|$", page, re.MULTILINE), row


def test_the_guides_values_and_strategies_do_what_it_prints() -> None:
    failed, tried = doctest.testfile(
        str(ROOT / "docs/replication.md"), module_relative=False
    )
    assert tried > 40
    assert failed == 0


@pytest.mark.parametrize(
    ("heading", "made"),
    [
        ("## Leader and followers", syncengine.LeaderFollowerManager),
        ("## Masters", syncengine.MultiMasterManager),
        ("## Handing changes on", syncengine.EventSubscriber),
        ("### Pipelines", syncengine.PipelineEmitter),
    ],
)
def test_the_guide_has_the_options_with_their_defaults(
    heading: str, made: Callable[..., Any]
) -> None:
    page = (ROOT / "docs/replication.md").read_text()
    section = page.split(f"\n{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    told: dict[str, str] = {}
    for line in section.split("| option")[1].split("\n\n")[0].splitlines()[2:]:
        names, defaults = line.split(" | ")[:2]
        each = [default.strip(' "') for default in defaults.split(",")]
        told |= dict(zip(re.findall(r"`(\w+)`", names), each, strict=False))
    options = inspect.signature(made).parameters
    for name, default in told.items():
        if isinstance(options[name].default, int | float | str):
            assert default == str(options[name].default), name
    assert len(told) > 5


def test_actions_and_types_are_those_of_the_code() -> None:
    section = PROTOCOL.split("## 3. Operations")[1].split("## 4")[0]
    for action in list(Action)[: Action.LIST_PUT + 1]:
        assert re.search(rf"\b{int(action)} [a-z]", section), action
    for type_ in Type:
        assert (
            f"{int(type_)} {'multi-value' if type_ is Type.MULTI else type_.name.lower()}"
            in section
        )
    assert f"{HEADER_BYTES} bytes" in PROTOCOL


def test_the_limits_are_those_of_the_code() -> None:
    section = PROTOCOL.split("## 8. Limits")[1]

    assert f"change {limits.CHANGE_BYTES_MAX >> 20} MiB" in section
    assert f"frame {limits.FRAME_BYTES_MAX >> 10} KiB" in section
    assert f"{limits.ACTORS_MAX:,}" in section


def test_the_repository_speaks_of_the_product_alone() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    words = re.compile(r"/work/|\.library|pypi-more")
    for name in listed:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".sql"}
            and path.name != "test_documents.py"
        ):
            assert not words.search(path.read_text()), name
