"""Every command, as a person or a script runs it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import syncengine
from tests.wires import meet

ROOT = Path(__file__).parent.parent.parent


class Shell:
    """A folder in which commands are run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def run(self, *words: str, db: str = "a.db", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "syncengine", "--db", db, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (
            words,
            done.returncode,
            done.stdout,
            done.stderr,
        )
        self.stderr = done.stderr
        return done.stdout

    def json(self, *words: str, db: str = "a.db", code: int = 0) -> Any:
        return json.loads(self.run("--json", *words, db=db, code=code))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def hub(shell: Shell) -> Iterator[str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "syncengine",
            "--json",
            "hub",
            "--listen",
            "127.0.0.1:0",
        ],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["address"]
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    process.stdout.close()


def test_two_devices_from_nothing_to_the_same_note(shell: Shell, hub: str) -> None:
    made = shell.json("init", "family")
    assert made["recovery_key"]
    shell.run("put", "notes/1", "title=Milk", "body:text=two litres", "n:counter+=2")
    assert shell.json("get", "notes/1")["value"] == {
        "title": "Milk",
        "body": "two litres",
        "n": 2,
    }
    assert shell.json("status")["namespaces"][0]["pending"] == 1
    assert shell.json("sync", hub)["state"] == "synced"
    invite = shell.json("invite")["invite"]
    shell.run("join", invite, "--name", "family", db="b.db")
    shell.run("sync", db="b.db")
    assert shell.run("get", "notes/1/title", db="b.db") == "Milk\n"
    shell.run("put", "notes/1", "body:text+=, fresh", 'tags=["a", "b"]', db="b.db")
    shell.run("sync", db="b.db")
    shell.run("sync")
    assert shell.run("get", "notes/1/body") == "two litres, fresh\n"
    assert shell.run("get", "notes/1/tags/1") == "b\n"
    assert shell.json("ls")["collections"] == {"notes": 1}
    assert shell.run("ls", "notes") == "1\n"
    status = shell.json("status")["namespaces"][0]
    assert status["pending"] == 0
    assert status["peers"][0]["behind"] == 0
    assert "family" in shell.run("status")
    assert shell.json("doctor", "a.db", "b.db")["clean"] is True
    shell.run("backup", "copy.db")
    assert (shell.folder / "copy.db").exists()
    assert shell.run("doctor", "copy.db", code=1).count("key is missing") == 1
    shell.run("join", invite, "--name", "x", db="c.db")
    shell.run("sync", db="c.db", code=4)
    assert "joined with this invite before" in shell.stderr


def test_a_copy_is_noticed_and_let_in_again(shell: Shell, hub: str) -> None:
    key = shell.json("init", "family")["recovery_key"]
    shell.run("put", "notes/1", "title=Milk")
    shell.run("sync", hub)
    invite = shell.json("invite")["invite"]
    for name, let_in in (
        ("copy.db", ["join", invite]),
        ("backup.db", ["recover", "--key", key]),
    ):
        shell.run("backup", name)
        shell.run("put", "notes/2", f"title={name}", db=name)
        assert "restored or copied" in shell.stderr
        assert "no right to the namespace yet" in shell.stderr
        shell.run("sync", hub, db=name, code=4)
        shell.run(*let_in, db=name)
        shell.run("sync", hub, db=name)
        shell.run("sync")
        assert shell.run("get", "notes/2/title") == f"{name}\n"
    lost = shell.json("status")["namespaces"][0]["namespace_id"]
    shell.run("recover", "--key", key, "--namespace-id", lost, db="new.db")
    shell.run("sync", hub, db="new.db")
    assert shell.run("get", "notes/1/title", db="new.db") == "Milk\n"


def test_only_the_namespace_that_is_named(shell: Shell, hub: str) -> None:
    shell.run("init", "one")
    shell.run("init", "two")
    for name in ("one", "two"):
        shell.run("--namespace", name, "put", "notes/1", f"title={name}")
    shell.run("--namespace", "one", "sync", hub)
    (shown,) = shell.json("--namespace", "two", "status")["namespaces"]
    assert (shown["namespace"], shown["pending"]) == ("two", 1)
    assert json.loads(shell.run("-n", "one", "status", "--json"))["namespaces"][0][
        "pending"
    ] == 0  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get", "notes/1"], 3, "init"),
        (["sync"], 3, "init"),
        (["put", "notes", "a=1"], 2, "collection/id"),
        (["join", "hello"], 2, "sync1:"),
        (["hub", "--listen", "nowhere"], 2, "HOST:PORT"),
        (["hub", "--listen", "0.0.0.0:0"], 2, "--tls-cert"),
        (["hub", "--listen", "127.0.0.1:99999"], 2, "HOST:PORT"),
        (["hub", "--tls-cert", __file__], 2, "--tls-cert"),
        (["hub", "--bogus"], 2, "--bogus"),
        (["demo", "--text", "/dev/null"], 2, "--text"),
        (["demo", "--keep", "/dev/null/x"], 2, "--keep"),
        (["invite", "--expires", "soon"], 3, "init"),
        (["doctor", "absent.db"], 3, "absent.db"),
        (["demo", "--devices", "1"], 2, "--devices"),
        (["demo", "--speed", "nan"], 2, "--speed"),
        (["demo", "--trace", __file__, "--keep", "/dev/null/x"], 2, "--keep"),
        (["hub", "--listen", "nohost.invalid:0", "--behind-proxy"], 2, "no address"),
        (["hub", "--tls-key", __file__], 2, "--tls-cert"),
        (["hub", "--public-url", "junk"], 2, "public_url"),
        (["--db", "/proc/x.db", "init"], 5, "cannot be made"),
    ],
)
def test_bad_usage_has_its_code_and_says_what_to_do(
    shell: Shell, words: list[str], code: int, says: str
) -> None:
    shell.run(*words, code=code)

    assert says in shell.stderr


def test_an_invite_is_shown_whether_or_not_the_hub_hears_of_it(shell: Shell) -> None:
    shell.run("init")
    nobody = f"ws://127.0.0.1:1/#{'a' * 51}q"
    shell.environment["SYNCENGINE_ADDRESS"] = nobody
    made = shell.run("invite", "--timeout", "1", code=6)
    assert made.startswith("sync1:")
    assert "has not been told" in shell.stderr
    assert "syncengine sync" in shell.stderr


def test_what_was_not_read_when_it_was_shown_is_pointed_to(shell: Shell) -> None:
    shell.run("init", "home")
    assert "recovery-*.txt" in shell.run("init", "home")
    (kept,) = (shell.folder / "a.db-sync").glob("recovery-*.txt")
    kept.unlink()
    assert "recovery" not in shell.run("init", "home")


def test_more_wrong_words(shell: Shell, hub: str) -> None:
    shell.run("init")
    shell.run("invite", "--expires", "99999999999d", code=2)
    assert "longer than anything" in shell.stderr
    for seconds in ("-1", "nan"):
        shell.run("sync", hub, "--timeout", seconds, code=2)
        assert "--timeout" in shell.stderr
    found = shell.json("doctor", "a.db", "absent.db", code=1)
    assert [file["clean"] for file in found["files"]] == [True, False]
    (shell.folder / "syncengine.toml").write_bytes(b"\xff")
    shell.run("ls", code=2)
    assert "syncengine.toml" in shell.stderr


def test_a_file_without_a_namespace_is_not_in_sync(shell: Shell, hub: str) -> None:
    async def make() -> None:
        await (await syncengine.open(str(shell.folder / "bare.db"))).close()

    asyncio.run(make())
    shell.run("sync", hub, code=3, db="bare.db")
    assert "init" in shell.stderr


def test_errors_are_json_too(shell: Shell) -> None:
    shell.run("init")
    for words, code, error in (
        (["get", "notes/absent"], 3, "NotFound"),
        (["ls", "absent"], 3, "NotFound"),
        (["put", "notes/1", "body:text=@absent"], 2, "Invalid"),
        (["backup", "/no/such/folder/b.db"], 5, "StoreReadOnly"),
        (["get", "--bogus"], 2, "Invalid"),
        (["join", "sync1:AAAA"], 2, "Invalid"),
    ):
        assert shell.json(*words, code=code)["error"] == error
        assert shell.stderr == ""
    assert "is a folder" in shell.json("status", db=".", code=5)["message"]
    (shell.folder / "empty.db").touch()
    assert "is empty" in shell.json("ls", db="empty.db", code=3)["message"]


def test_a_port_in_use_is_said(shell: Shell, hub: str) -> None:
    where = hub.partition("//")[2].partition("/")[0]
    shell.run("hub", "--data", "other.db", "--listen", where, code=5)
    assert "address already in use" in shell.stderr


def test_a_command_waits_for_one_that_ends_soon(shell: Shell) -> None:
    shell.run("init")
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "syncengine", "--db", "a.db", "put", "notes/1",
             f"n{number}=1"],
            cwd=shell.folder, env=shell.environment, stdout=subprocess.DEVNULL,
        )
        for number in range(3)
    ]  # fmt: skip
    assert [process.wait(30) for process in together] == [0, 0, 0]
    assert len(shell.json("get", "notes/1")["value"]) == 3


def test_an_error_quotes_what_was_typed_as_it_was_typed(shell: Shell) -> None:
    shell.run("init")
    shell.run("get", "notes", code=2)
    assert "collection/id[/field...]" in shell.stderr
    shell.run("get", "notes/[nope]x", code=3)
    assert "notes/[nope]x" in shell.stderr


def test_what_cannot_be_reached_is_given_up_with_a_reason(shell: Shell) -> None:
    (shell.folder / "syncengine.toml").write_text('db = "from-file.db"\n')
    shell.run("init")
    assert shell.json("status", db="a.db")["db"] == "a.db"
    done = subprocess.run(
        [sys.executable, "-m", "syncengine", "status"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "from-file.db" in done.stderr


def test_reading_works_beside_the_owner(shell: Shell, hub: str) -> None:
    shell.run("init")
    shell.run("put", "notes/1", "title=x")
    owner = subprocess.Popen(
        [sys.executable, "-m", "syncengine", "--json", "--db", "a.db", "sync", "--watch",
         hub],
        cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    while json.loads(owner.stdout.readline())["state"] != "live":
        pass
    assert shell.run("get", "notes/1/title") == "x\n"
    shell.run("put", "notes/1", "title=y", code=5)
    assert f"process {owner.pid}" in shell.stderr
    owner.send_signal(signal.SIGINT)
    owner.wait(10)
    owner.stdout.close()
    shell.run("put", "notes/1", "title=y")


def test_a_foreign_clients_package_is_named(shell: Shell) -> None:
    (shell.folder / "clients").mkdir()
    (shell.folder / "clients" / "__init__.py").touch()
    shell.environment["PYTHONPATH"] = f"{shell.folder}:{ROOT}"
    shell.run("status", code=1)

    assert "shadows our package 'clients'" in shell.stderr


CLASS = """
import asyncio, syncengine
from syncengine import Document, Set

class Note(Document):
    title: str
    tags: Set[str] = Set()

async def main():
    async with syncengine.open("a.db") as replica:
        space = await replica.namespace("family")
        async with space.transaction() as tx:
            tx.create(Note, "1", title="[Milk]", tags={"x"})
        await space.sql("SELECT 1")

asyncio.run(main())
"""


def test_sql_prints_a_table(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("sql", "SELECT * FROM note", code=2)
    assert "there are: none yet" in shell.stderr
    subprocess.run(
        [sys.executable, "-c", CLASS],
        cwd=shell.folder, env=shell.environment, check=True,
    )  # fmt: skip
    assert shell.run("sql", "SELECT id, title, tags FROM note").split() == [
        "id", "title", "tags", "1", "[Milk]", '["x"]',
    ]  # fmt: skip
    shell.run("put", "note/1", "title=Bread")
    asked = shell.json("sql", "SELECT title FROM note")
    assert asked == {"columns": ["title"], "rows": [{"title": "Bread"}]}
    shell.run("sql", "DELETE FROM note", code=2)
    assert "typed collections (note)" in shell.stderr.replace("\n", "")


def test_export_and_import(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("put", "notes/1", "title=[Milk]", "body:text=two", "n:counter+=2")
    shell.run("put", "pages/1", "title=x")
    lines = shell.run("export", "notes/").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["notes/1"]
    shell.run("export", "--out", "all.jsonl")
    shell.run("export", "--out", "all.jsonl", code=5)
    shell.run("init", "other", db="b.db")
    assert shell.json("import", "all.jsonl", db="b.db")["documents"] == 2
    assert shell.run("export", db="b.db") == shell.run("export")
    (shell.folder / "bad.jsonl").write_text('{"path": "a/1", "value": {}}\nnonsense\n')
    shell.run("import", "bad.jsonl", code=2)
    assert "line 2 is no record" in shell.stderr
    bad = {"path": "a/1", "value": {"t": "x"}, "types": {"/t": "datetime"}}
    (shell.folder / "bad.jsonl").write_text(f"{json.dumps(bad)}\n")
    shell.run("import", "bad.jsonl", code=2)
    assert "line 1: a/1/t: not a datetime" in shell.stderr


def test_log_lists_changes_beside_whoever_has_the_file(shell: Shell) -> None:
    shell.run("init", "family")
    for number in range(3):
        shell.run("put", f"notes/{number}", "x=1")
    assert shell.run("log").count("on this device alone") == 3
    assert len(shell.json("log", "notes/1")["changes"]) == 1
    shell.run("log", "notes/none", code=3)

    async def seal() -> None:
        async with syncengine.open(str(shell.folder / "a.db")) as replica:
            space = await replica.namespace("family")
            count = 0
            async for _ in space.changes():
                count += 1
                if count == 3:
                    break
            assert shell.json("log", "-c", "2")["changes"][0]["documents"] == [
                "notes/2"
            ]
            assert len(shell.json("log", "notes/1")["changes"]) == 1
            assert len(shell.json("log", "notes")["changes"]) == 3

    asyncio.run(seal())


def test_edit_writes_the_difference_to_what_the_text_is_by_then(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("put", "notes/1", "body:text=milk and eggs")
    editor = shell.folder / "editor.py"
    editor.write_text(
        "import subprocess, sys\n"
        "text = open(sys.argv[1]).read()\n"
        f"subprocess.run([{sys.executable!r}, '-m', 'syncengine', '--db', 'a.db', "
        "'put', 'notes/1', 'body:text=fresh milk and eggs'], check=True, stdout=subprocess.DEVNULL)\n"
        "open(sys.argv[1], 'w').write(text.replace('eggs', 'bread'))\n"
    )
    shell.environment["EDITOR"] = f"{sys.executable} {editor}"
    assert shell.json("edit", "notes/1/body")["changes"] == 2
    assert shell.json("get", "notes/1/body")["value"] == "fresh milk and bread"
    shell.environment["EDITOR"] = "true"
    assert shell.json("edit", "notes/1/body")["changes"] == 0
    shell.run("put", "notes/1", "title=plain")
    shell.run("edit", "notes/1/title", code=2)
    shell.run("edit", "notes/1", code=2)


def test_edit_shows_marks_as_markdown(shell: Shell) -> None:
    async def mark() -> None:
        async with syncengine.open(shell.folder / "a.db") as replica:
            space = replica.spaces()[0]
            async with space.transaction() as tx:
                body = tx["notes/1"].text("body")
                body.insert(0, "milk and eggs")
                body.mark(0, 4, "bold")

    shell.run("init", "family")
    asyncio.run(mark())
    editor = shell.folder / "editor.py"
    editor.write_text(
        "import sys\n"
        "text = open(sys.argv[1]).read()\n"
        "assert text == '**milk** and eggs\\n', text\n"
        "open(sys.argv[1], 'w').write('**milk** and *eggs*')\n"
    )
    shell.environment["EDITOR"] = f"{sys.executable} {editor}"
    assert shell.json("edit", "notes/1/body")["changes"] == 1
    record = json.loads(shell.run("export"))
    assert record["marks"] == {"/body": [[0, 4, "bold", True], [9, 13, "italic", True]]}


def test_a_namespace_is_archived_and_taken_in(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("put", "notes/1", "title=Milk")
    assert shell.json("archive", "family.archive")["rows"] > 3
    shell.run("archive", "family.archive", code=2)
    shell.run("-n", "copy", "unarchive", "family.archive", db="b.db")
    assert shell.json("get", "notes/1", db="b.db")["value"] == {"title": "Milk"}
    (shell.folder / "bad").write_text("no archive")
    shell.run("unarchive", "bad", db="b.db", code=2)


def test_watch_prints_what_is_and_what_comes(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("put", "notes/1", "x=1")
    watching = subprocess.Popen(
        [sys.executable, "-m", "syncengine", "--db", "a.db", "watch", "notes",
         "--offline", "--json"],
        cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdout is not None
    seen = json.loads(watching.stdout.readline())
    assert seen == {"path": "notes/1", "value": {"x": 1}}
    watching.send_signal(signal.SIGINT)
    assert watching.wait(10) == 130
    watching.stdout.close()


def test_why_says_who_wrote_it(shell: Shell) -> None:
    shell.run("init", "family")
    shell.run("put", "notes/1", "title=x")
    assert '"x"\n  written by' in shell.run("why", "notes/1/title")
    assert shell.json("why", "notes/1/title")["over"] == []
    shell.run("why", "notes/1/nothing", code=3)
    shell.run("why", "notes/1", code=3)


def test_conflicts_are_listed_shown_and_decided(shell: Shell) -> None:
    async def dispute() -> None:
        path = str(shell.folder / "a.db")
        async with (
            syncengine.open(path) as one,
            syncengine.open(":memory:") as other,
        ):
            space = await one.namespace("family")
            theirs = await other.join(await space.invite("write"), name="family")
            await meet(space, theirs)
            for each, title in ((space, "mine"), (theirs, "theirs")):
                async with each.transaction() as tx:
                    tx["notes/1"]["title"] = title
            masters = [
                syncengine.MultiMasterManager(name, None, each, "manual")
                for name, each in (("usa", space), ("eu", theirs))
            ]
            for number, master in enumerate(masters):
                await master.subscribe()
                await master.write("cart", {"n": number})
            await meet(space, theirs)
            assert len(await masters[0].get_pending_conflicts()) == 1
            for master in masters:
                await master.close()

    asyncio.run(dispute())
    listed = shell.json("conflicts", "list")
    (lost,) = [one for one in listed["lost"] if one["path"] == "notes/1/title"]
    assert lost["value"] in ("mine", "theirs")
    assert [one["entity_id"] for one in listed["pending"]] == ["cart"]
    assert "notes/1/title" in shell.run("conflicts", "list", "notes/1")
    shown = shell.run("conflicts", "show", "cart")
    assert 'usa: {"n": 0}' in shown
    assert 'eu: {"n": 1}' in shown
    shell.run("conflicts", "show", "nothing", code=3)
    shell.run("conflicts", "resolve", "cart", "{", "--master", "usa", code=2)
    shown = shell.json("conflicts", "show", "cart")
    assert f"--conflict {shown['id']}" in shell.run("conflicts", "show", "cart")
    decide = ("conflicts", "resolve", "cart", '{"n": 2}', "--master", "usa")
    shell.run(*decide, "--conflict", "nonsense", code=3)
    shell.run("mode", "leader-follower")
    assert "read-only" in shell.run(*decide, code=1)
    shell.run("mode", "multi-master")
    shell.run(*decide, "--conflict", shown["id"])
    assert shell.json("conflicts", "list")["pending"] == []
    shell.run("conflicts", "resolve", "cart", "1", "--master", "usa", code=3)


@pytest.fixture
def node(shell: Shell) -> Iterator[str]:
    """A leader in a.db; gives where others reach it."""
    shell.run("init", "shop")
    process = subprocess.Popen(
        [sys.executable, "-m", "syncengine", "--db", "a.db", "--json", "node", "n1",
         "--role", "leader", "--listen", "127.0.0.1:0", "--heartbeat-timeout", "500"],
        cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while (line := json.loads(process.stdout.readline())).get("event") != "started":
        pass
    yield line["address"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_a_node_is_told_what_to_do_while_it_runs(shell: Shell, node: str) -> None:
    assert shell.run("write", "customer-1", '{"name": "Alice"}').startswith(
        "written as 1, acknowledged by local"
    )
    assert shell.run("write", "note", "plain text", "--operation", "create")
    assert json.loads(shell.run("read", "customer-1")) == {"name": "Alice"}
    assert shell.json("read", "note", "--strong")["value"] == "plain text"
    told = shell.json("peers")
    assert (told["node"], told["role"], told["term"]) == ("n1", "leader", 1)
    assert "follower" in shell.run("peers")
    assert "n1 is the leader of term 1" in shell.stderr
    assert shell.run("voters", "add", "n1") == "1 vote now.\n"
    assert shell.json("promote")["role"] == "leader"
    (space,) = shell.json("status")["namespaces"]
    assert (space["mode"], space["leader_id"]) == ("leader-follower", "n1")
    shell.run("status")
    assert "n1 leads" in shell.stderr
    assert shell.run("demote").startswith("n1 follows")
    refused = shell.json("write", "k", "1", code=1)
    assert refused["error_code"] == "NOT_LEADER"
    late = shell.json("promote", "--expected-term", "1", code=1)["message"]
    assert late.startswith("the term is 2 by now, and not 1")
    assert shell.run("promote", "--force", "--reason", "test").startswith("n1 leads")
    assert "--reason" in shell.json("promote", "--force", code=2)["message"]


def test_the_mode_is_switched_while_a_node_runs_and_without_one(
    shell: Shell, node: str
) -> None:
    assert shell.run("mode") == "leader-follower: the leader writes\n"
    assert "--voter" in shell.json("mode", "--voter", "n1", code=2)["message"]
    assert shell.json("mode", "multi-master") == {"mode": "multi-master"}
    assert shell.json("mode", "leader-follower", "--voter", "n1") == {
        "mode": "leader-follower"
    }
    assert shell.json("promote")["role"] == "leader"
    assert shell.json("write", "k", "1")["success"]
    shell.run("init", "other", db="b.db")
    assert shell.run("mode", db="b.db") == "multi-master: all write\n"
    assert shell.json("mode", "leader-follower", db="b.db")["mode"] == "leader-follower"
    shell.run("put", "entry/k", "value=1", db="b.db", code=1)
    assert "read-only" in shell.stderr
    shell.run("mode", "multi-master", db="b.db")
    shell.run("put", "entry/k", "value=1", db="b.db")


def test_a_follower_joins_while_the_leader_runs(shell: Shell, node: str) -> None:
    invite = shell.run("invite", "--ops", "lead", "--hub", node).strip()
    shell.run("join", invite, "--name", "shop", db="b.db")
    shell.run("sync", node, db="b.db")
    (space,) = shell.json("status", db="b.db")["namespaces"]
    assert space["leader_id"] == "n1"
    shell.run("put", "entry/k", "value=1", db="b.db", code=1)
    assert "read-only" in shell.stderr


def test_what_was_rescued_is_listed_shown_replayed_and_dismissed(
    shell: Shell,
) -> None:
    async def parted() -> None:
        """Somebody writes and is away while the namespace gets a leader."""
        async with (
            syncengine.open(shell.folder / "a.db") as one,
            syncengine.open(shell.folder / "b.db") as two,
        ):
            space = await one.namespace("shop")
            other = await two.join(await space.invite("lead"), name="shop")
            await meet(space, other)
            for number in range(3):
                async with other.transaction() as tx:
                    tx[f"note/{number}"]["n"] = number
            await space.switch_mode("leader-follower")
            await meet(space, other)

    asyncio.run(parted())
    found = shell.json("rescue", "list")["rescued"]
    assert [one["documents"] for one in found] == [[f"note/{n}"] for n in range(3)]
    assert "note/1" in shell.run("rescue", "list", db="b.db")
    (record,) = shell.json("rescue", "show", found[0]["id"])["rescued"]
    assert record["documents"][0]["after"]["value"] == {"n": 0}
    assert shell.run("rescue", "dismiss", found[0]["id"]) == "1 dismissed.\n"
    assert len(shell.json("rescue", "list")["rescued"]) == 2
    assert len(shell.json("rescue", "list", "--all")["rescued"]) == 3
    shell.run("rescue", "replay", code=1)
    assert "read-only" in shell.stderr  # nobody leads here
    shell.run("rescue", "dismiss", "nothing", code=3)
    shell.run("peers", code=3)
    assert "no node has" in shell.stderr
