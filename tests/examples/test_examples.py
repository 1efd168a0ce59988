"""The examples do what they say, and other programs read the file meanwhile."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import Counter, Document, Set, Text

ROOT = Path(__file__).parents[2]


def run(example: str, *words: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *words],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_task_list(tmp_path: Path) -> None:
    assert run("tasks.py", folder=tmp_path) == []
    run("tasks.py", "add", "Buy milk", "shop", folder=tmp_path)
    run("tasks.py", "add", "Call Ann", folder=tmp_path)
    run("tasks.py", "done", "1", folder=tmp_path)
    shown = run("tasks.py", "first", "2", folder=tmp_path)
    assert shown == ["1. [ ] Call Ann", "2. [x] Buy milk #shop"]
    assert run("tasks.py", "undo", folder=tmp_path) == ["1. [x] Buy milk #shop", "2. [ ] Call Ann"]  # fmt: skip


def test_the_fleet(tmp_path: Path) -> None:
    assert run("fleet.py", folder=tmp_path) == [
        "three hubs: 3 keep 12 namespaces",
        "one leaves: 2 keep 12 namespaces",
        "in sync",
    ]


def test_the_shared_note(tmp_path: Path) -> None:
    shown = run("shared_note.py", folder=tmp_path)
    assert shown[0] == "# Trip"
    assert shown[2] == "We leave on **Saturday** morning at *nine*."
    assert "patches" in shown[3]


def test_the_analytics(tmp_path: Path) -> None:
    shown = run("analytics.py", folder=tmp_path)
    assert shown[:3] == ["s0|50|13.0", "s1|50|12.96", "s2|50|13.04"]
    assert shown[3] == "['a [bird] sat on it']"
    if shutil.which("sqlite3"):
        assert shown[5:] == shown[:3]


def test_the_audit_log(tmp_path: Path) -> None:
    run("audit_log.py", "order", "tea", "3", folder=tmp_path)
    assert run("audit_log.py", "audit", folder=tmp_path) == ["1 new"]
    run("audit_log.py", "order", "milk", "-1", folder=tmp_path)
    run("audit_log.py", "order", "eggs", "6", folder=tmp_path)
    assert run("audit_log.py", "audit", folder=tmp_path) == ["1 new"]
    assert run("audit_log.py", "audit", folder=tmp_path) == ["0 new"]

    assert run("audit_log.py", "show", folder=tmp_path) == [
        "3 tea",
        "6 eggs",
        "not logged: ValueError: nobody orders -1 of milk",
    ]


def test_the_three_masters(tmp_path: Path) -> None:
    shown = run("three_masters.py", folder=tmp_path)
    regions = ("us-east", "eu-west", "ap-south")
    assert shown[:-1] == [
        "everywhere: [1, 1, 1]",
        *(f"{one} wrote at once; it waits for the others: True" for one in regions),
        "apart: [2, 3, 4]",
        "everywhere: [7, 7, 7]",
        "ap-north is served by ap-south",
    ]
    assert shown[-1].startswith("conflicts that merged by themselves: [")


def test_the_offline_cart(tmp_path: Path) -> None:
    whole = ["eggs", "milk", "tea"]
    assert run("offline_cart.py", folder=tmp_path) == [
        "phone, offline; it waits for the others: True",
        "tablet, offline: ['milk', 'eggs']",
        "for now both show the same: True",
        "  phone has ['milk', 'tea']",
        "  tablet has ['milk', 'eggs']",
        f"both: {whole} {whole}",
        "to be decided: 0",
    ]


def test_what_an_operator_of_masters_does(tmp_path: Path) -> None:
    shown = run("operating_masters.py", folder=tmp_path)
    assert shown.count("conflict: views") == 8
    assert [line for line in shown if line != "conflict: views"] == [
        "eu has 51 events",
        "usa knows that eu is online",
        "eu is cut off; its write is queued: True",
        "conflict: customer-1",
        "both show the same: True",
        "High conflict rate detected! Hot entities: [('views', 8)]",
        "views, of both: 10",
        "stamped well: True",
        "seen by a clock that is an hour behind: False",
        "usa's own clock is off: False",
        *[line for line in shown if line.startswith("Catch-up: ")],
        "Buffer: 0 events pending",
        "eu-2 is leaving; it left 'goodbye'",
    ]


async def test_the_editor(tmp_path: Path) -> None:
    pytest.importorskip("textual", reason="the extra examples is not installed")
    spec = importlib.util.spec_from_file_location("editor", ROOT / "examples/editor.py")
    assert spec is not None
    assert spec.loader is not None
    editor: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(editor)
    app = editor.Editor(str(tmp_path / "notes.db"))
    async with app.run_test() as pilot:
        await pilot.pause()
        for key in "hi":
            await pilot.press(key)
        await pilot.pause()
        async with app.space.transaction(operation_id="elsewhere") as tx:
            tx.get(editor.Note, "note").body.insert(0, "> ")
        await pilot.pause()
        assert app.area.text == "> hi"
        assert app.area.cursor_location == (0, 4)
        await pilot.press("!")
        await pilot.pause()
        assert app.area.text == str(app.live.doc.body) == "> hi!"
        await pilot.press("ctrl+z")
        await pilot.pause()
        assert app.area.text == str(app.live.doc.body) == "> hi"
        await pilot.press("ctrl+y")
        await pilot.pause()
        assert app.area.text == "> hi!"
    async with syncengine.open(tmp_path / "notes.db") as replica:
        note = await (await replica.namespace("notes")).get(editor.Note, "note")
        assert str(note.body) == "> hi!"


def test_reads_are_spread_over_three_followers(tmp_path: Path) -> None:
    shown = "\n".join(run("read_scaling.py", folder=tmp_path))
    alice = "{'name': 'Alice', 'email': 'alice@example.com'}"
    assert "Write sequence: 1" in shown
    for number in (1, 2, 3):
        assert f"follower-{number} {alice}" in shown
        assert f"Follower follower-{number}: lag = " in shown
    refused = "Follower is read-only. Redirect to leader. FOLLOWER_READ_ONLY leader-1"
    assert refused in shown
    assert "Reads go to follower-1, follower-2, follower-3" in shown
    assert "follower-3 is removed" in shown
    assert "I see what I wrote: {'name': 'Alice Smith'}" in shown
    assert "Current sequence: 2\nEvents emitted: 2\nFollower count: 3" in shown


def test_a_killed_leader_is_replaced(tmp_path: Path) -> None:
    shown = "\n".join(run("failover.py", folder=tmp_path))
    assert "node-1 failed" in shown
    assert "is now leader, in term" in shown
    assert "acknowledged orders are there" in shown
    assert "Durably written at sequence" in shown


def test_what_an_operator_does(tmp_path: Path) -> None:
    shown = "\n".join(run("operations.py", folder=tmp_path))
    assert "Recovery progress: 50.0%, 100.0%" in shown
    assert "Partition detected: cannot reach leader-1" in shown
    assert "SPLIT BRAIN DETECTED!" in shown
    assert "Winner: follower-1; leader-1 follows follower-1" in shown
    assert "rescued: entry/k0\n  rescued: entry/only-here" in shown
    assert "written again: 1; k0 is 'by the new leader'" in shown
    assert "leader-1 leads again: leader" in shown


class Note(Document):
    title: str = ""
    likes: Counter = Counter()
    tags: Set[str] = Set()
    body: Text = Text()


async def test_datasette_and_the_sqlite3_shell_read_an_open_file(tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "notes.db"
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            note = tx.create(Note, "1", title="Milk", tags={"a", "b"}, body="text")
            note.likes += 2
        await space.sql("SELECT 1 FROM note")  # the table is there
        query = "SELECT namespace, id, title, likes, tags, body FROM note"
        expected = ["home", "1", "Milk", 2, '["a","b"]', "text"]
        if shell := shutil.which("sqlite3"):
            asked = subprocess.run(  # noqa: ASYNC221  # it is what is tested
                [shell, "-readonly", "-json", str(path), query],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            assert [list(row.values()) for row in json.loads(asked.stdout)] == [expected]  # fmt: skip
        app_module = pytest.importorskip("datasette.app", reason="Datasette is not installed")  # fmt: skip
        app = app_module.Datasette([str(path)], settings={"num_sql_threads": 0})
        answer = await app.client.get("/notes.json", params={"sql": query, "_shape": "arrays"})  # fmt: skip
        assert answer.json()["rows"] == [expected] if isinstance(answer.json(), dict) else answer.json() == [expected]  # fmt: skip
        page = await app.client.get("/notes/note")
        assert page.status_code == 200
        assert "Milk" in page.text
        async with space.transaction() as tx:
            tx.get(Note, "1").title = "Eggs"
        page = await app.client.get("/notes/note")
        assert "Eggs" in page.text
