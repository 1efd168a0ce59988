"""The twin without async: from a plain thread, beside others."""

# pyright: reportPrivateUsage=false

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import syncengine
import syncengine.blocking as blocking
from syncengine import (
    Closed,
    Counter,
    Document,
    FrozenDocument,
    NotFound,
    Text,
    TransactionClosed,
    TransactionOpen,
    WrongLoop,
    limits,
)
from syncengine.blocking import Replica, Space


class Note(Document):
    title: str
    likes: Counter = Counter()
    body: Text = Text()


@pytest.fixture(params=["file", ":memory:"])
def replica(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Replica]:
    path = str(tmp_path / "a.db") if request.param == "file" else ":memory:"
    with blocking.open(path) as opened:
        yield opened


@pytest.fixture
def space(replica: Replica) -> Space:
    return replica.namespace("home")


MISSING = {
    "Replica": {
        # What links and the simulator use, and the command line.
        "add_space", "admit", "check_home", "check_usable", "clear", "find", "flush_all", "homes", "hub_of", "keep_home",
        "rights_of_fellow",
        "invited_addresses", "link_began", "link_ended", "links_synced", "remember", "start",
        "told_time",
    },
    "Space": {
        "check_may_write", "collection_of", "check_usable", "grant", "is_member", "is_new", "is_pending",
        "live",  # for editors, which live in the loop
        "index",
        "check_outside", "check_leaves", "is_closed", "links_synced",
        "subscribe", "subscribe_sql",  # an iterator in a thread of one's own does it
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MISSING))
def test_it_has_the_names_of_its_twin(name: str) -> None:
    async_twin, twin = (
        {n for n in dir(getattr(module, name)) if not n.startswith("_")}
        for module in (syncengine, blocking)
    )
    assert async_twin - twin == MISSING[name]


def test_what_documents_are_made_of_is_here_too() -> None:
    shared = {
        "Counter",
        "Document",
        "List",
        "Map",
        "MultiValue",
        "Set",
        "Text",
        "Whole",
    }
    assert all(getattr(blocking, n) is getattr(syncengine, n) for n in shared)


def test_the_past_is_read_and_undone(space: Space) -> None:
    with space.transaction() as tx:
        tx.create(Note, "1", title="Milk")
    before = space.version
    with space.transaction() as tx:
        tx.get(Note, "1").title = "Eggs"

    assert space.at(before).get(Note, "1").title == "Milk"
    assert space.at(before).get("note/2", default=None) is None
    assert [d.path for d in space.diff(Note, "1", before=before)] == ["title"]
    undoing = space.undoing(Note, "1")
    assert undoing.undo()
    assert undoing.depth() == (1, 1)
    assert space.get(Note, "1").title == "Milk"
    assert undoing.redo()
    assert space.get(Note, "1").title == "Eggs"


def test_a_note_is_written_and_read(space: Space) -> None:
    with space.transaction() as tx:
        note = tx.create(Note, "1", title="Milk")
        note.body.append("two litres")
        note.likes += 1
        assert str(note.body) == "two litres"
    assert note.title == "Milk", "what was a draft is a snapshot"
    with pytest.raises(FrozenDocument):
        note.title = "later"
    seen = space.get(Note, "1")
    assert (seen.title, seen.likes, str(seen.body)) == ("Milk", 1, "two litres")
    assert [found.id for found in space.documents(Note)] == ["1"]
    assert dict(space.collections()) == {"note": 1}
    assert space.pending == 1
    with pytest.raises(NotFound):
        space.get(Note, "2")
    assert space.get(Note, "2", None) is None


def test_a_failed_block_writes_nothing(space: Space) -> None:
    drafts: list[Note] = []
    with pytest.raises(ZeroDivisionError), space.transaction() as tx:
        drafts.append(tx.create(Note, "1", title="never"))
        _ = 1 / 0
    with pytest.raises(TransactionClosed):
        _ = drafts[0].title
    assert space.get("note/1", default=None) is None


def test_inside_a_block_the_state_before_is_read_and_nothing_hangs(
    space: Space,
) -> None:
    with space.transaction() as tx:
        tx["note/1"]["title"] = "inside"
        assert space.get("note/1", default=None) is None
        with pytest.raises(TransactionOpen), space.transaction():
            pass
        tx["note/1"]["title"] = "still inside"
    assert space.get("note/1")["title"] == "still inside"


def test_threads_take_turns(space: Space) -> None:
    def work(name: int) -> None:
        for _ in range(50):
            with space.transaction() as tx:
                tx["note/1"].counter("n").increment()
                tx[f"page/{name}"]["seen"] = True
            assert space.get(f"page/{name}")["seen"] is True

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert space.get("note/1")["n"] == 200


def test_a_snapshot_is_read_while_others_write(space: Space) -> None:
    with space.transaction() as tx:
        page = tx["note/1"]
        page.text("body").insert(0, "x" * 1000)
        page["deep"] = {"list": list(range(100))}
    snapshot = space.get("note/1")
    before = snapshot.to_dict()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with space.transaction(wait=False) as tx:
                page = tx["note/1"]
                page.text("body").insert(number % 100, "abc")
                page["deep"]["list"].insert(0, number)
                page[f"key{number % 50}"] = number

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert snapshot.to_dict() == before
    finally:
        stop.set()
        writer.join(30)


def test_what_is_watched_comes_in_turn(space: Space) -> None:
    watching = space.watch(Note, "1")
    assert next(watching) is None
    with space.transaction() as tx:
        tx.create(Note, "1", title="made")
    seen = next(watching)
    assert seen is not None
    assert seen.title == "made"
    watching.close()  # type: ignore[attr-defined]  # a generator
    assert space.inner.engine.on_changed == []


def test_receipts_say_how_far_it_got(space: Space) -> None:
    with space.transaction("once", wait=False) as tx:
        tx["note/1"]["n"] = 1
    tx.receipt.wait(timeout=10)
    assert tx.receipt.pending
    with pytest.raises(TimeoutError):
        tx.receipt.durable_on("hub", timeout=0.05)
    with space.transaction("once") as tx:
        assert tx.repeated
        tx["note/1"]["n"] = 2
    assert space.get("note/1")["n"] == 1


def test_a_long_body_is_named_by_its_line(
    space: Space, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", -1.0)
    with space.transaction() as tx:
        tx["note/1"]["n"] = 1
    assert "test_blocking.py" in caplog.text


def test_what_would_wait_for_its_own_block_is_told(space: Space) -> None:
    with space.transaction() as tx:
        tx["note/1"]["n"] = 1
        with pytest.raises(TransactionOpen):
            space.invite()
    assert str(space.invite()).startswith("sync1:")


def test_what_is_called_back_cannot_wait(space: Space) -> None:
    async def called() -> None:
        with pytest.raises(WrongLoop, match="called back"):
            space.peers()

    blocking.loop().run(called(), 10)


def test_an_interrupt_while_entering_leaves_the_turn_free(space: Space) -> None:
    loop = blocking.loop()
    with pytest.MonkeyPatch.context() as patch:

        def interrupted() -> None:
            raise KeyboardInterrupt

        patch.setattr(loop, "hold", interrupted)
        with pytest.raises(KeyboardInterrupt), space.transaction():
            pass
    with space.transaction() as tx:
        tx["note/1"]["n"] = 1
    assert space.get("note/1")["n"] == 1


def test_an_interrupt_while_holding_stops_nobody(space: Space) -> None:
    loop = blocking.loop()
    busy, go_on = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        go_on.wait()

    loop._loop.call_soon_threadsafe(block)
    busy.wait()
    with pytest.MonkeyPatch.context() as patch:

        def interrupted(self: threading.Event, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

        patch.setattr(threading.Event, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.hold()
    go_on.set()
    with space.transaction() as tx:
        tx["note/1"]["n"] = 2
    assert not loop.is_held_here


PROGRAM = """
import sys, threading
import syncengine.blocking as syncengine
replica = syncengine.open(":memory:")
space = replica.namespace("home")
with space.transaction() as tx:
    tx["note/1"]["n"] = 1
watching = space.watch("note/1")
next(watching)
listed = space.documents("note")
next(listed)

class Cycle:
    pass

cycle = Cycle()
cycle.me, cycle.watching = cycle, space.watch("note/1")
next(cycle.watching)
del cycle
if sys.argv[1] == "closed":
    replica.close()
print("ends")
"""


@pytest.mark.parametrize("how", ["closed", "open"])
def test_a_program_ends_whatever_it_still_watches(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_after_closing_it_says_so(tmp_path: Path) -> None:
    replica = blocking.open(str(tmp_path / "b.db"))
    space = replica.namespace("home")
    replica.close()
    replica.close()
    with pytest.raises(Closed):
        space.get("note/1")
    with pytest.raises(Closed), space.transaction():
        pass


def test_the_async_twin_points_here(space: Space) -> None:
    async def ask() -> None:
        with pytest.raises(WrongLoop, match=r"syncengine\.blocking"):
            await space.inner.get("note/1")

    asyncio.run(ask())


def _child(space: Any, told: Any) -> None:
    try:
        space.get("note/1")
    except WrongLoop as error:
        told.send(str(error))
    with blocking.open(":memory:") as mine:  # a fresh one works
        mine.namespace("home")
        told.send("opened")
    os._exit(0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that it forks is the point
def test_a_forked_child_opens_its_own(space: Space) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(space, theirs))
    child.start()
    assert ours.poll(20)
    assert "fork" in ours.recv()
    assert ours.poll(20)
    assert ours.recv() == "opened"
    child.join(20)


def test_the_mode_and_what_was_rescued_are_here_too(space: Space) -> None:
    assert space.mode == "multi-master"
    with space.transaction() as tx:
        tx["note/1"]["title"] = "x"
    space.reached(space.token())
    assert space.rescue.list() == []
    assert space.rescue.export() == []
    assert space.rescue.replay() == []
    assert space.rescue.dismiss([]) == 0
    space.switch_mode("leader-follower")
    assert str(space.mode) == "leader-follower"
    with pytest.raises(syncengine.NotLeader), space.transaction() as tx:
        tx["note/1"]["title"] = "y"
