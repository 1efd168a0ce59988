"""Files: opened once, by their owner, and recognised after a restore."""

# pyright: reportPrivateUsage=false

import asyncio
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import syncengine
import transport
from syncengine import (
    ClockSuspect,
    Closed,
    Invalid,
    NotFound,
    NotOurs,
    StoreError,
    StoreLocked,
    StoreReadOnly,
    WrongLoop,
)
from syncengine.replication.replica import Opening
from syncengine.system import SystemEntropy
from tests.processes import findings
from tests.wires import meet, two_members


async def write(path: Path, text: str) -> Any:
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = text
        return space.engine.actor


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    actor = await write(tmp_path / "a.db", "one")
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home", create=False)
        assert (await space.get("note/1"))["title"] == "one"
        assert space.engine.actor == actor
        with pytest.raises(NotFound, match="home"):
            await replica.namespace("other", create=False)


async def test_a_second_opener_is_told_who_holds_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with syncengine.open(path):
        with pytest.raises(StoreLocked, match="process"):
            await syncengine.open(path)
    await (await syncengine.open(path)).close()


@pytest.mark.parametrize("when", ["restored", "copied"])
async def test_a_restored_or_copied_file_becomes_a_new_actor(
    tmp_path: Path, when: str
) -> None:
    path = tmp_path / "a.db"
    first = await write(path, "before")
    shutil.copy(path, tmp_path / "backup.db")
    await write(path, "after")
    if when == "restored":
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", path)
    else:
        path = tmp_path / "backup.db"
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home")
        assert space.engine.actor != first
        assert (await space.get("note/1"))["title"] == "before"
        assert space.pending == 1


async def test_a_retry_after_a_restore_names_the_change_as_it_is_now(
    tmp_path: Path,
) -> None:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction("pay-1") as tx:
            tx["note/1"].counter("n").increment(5)
        await replica.backup(str(tmp_path / "copy.db"))
    async with syncengine.open(str(tmp_path / "copy.db")) as restored:
        space = restored.spaces()[0]
        for _ in range(2):
            async with space.transaction("pay-1") as tx:
                tx["note/1"].counter("n").increment(5)
            assert tx.repeated
            assert tx.receipt.actor == space.engine.actor
            assert tx.receipt.pending
        assert (await space.get("note/1"))["n"] == 5


async def test_moving_file_and_folder_together_changes_nothing(tmp_path: Path) -> None:
    first = await write(tmp_path / "a.db", "x")
    target = tmp_path / "elsewhere"
    target.mkdir()
    shutil.move(tmp_path / "a.db", target / "a.db")
    shutil.move(tmp_path / "a.db-sync", target / "a.db-sync")

    assert await write(target / "a.db", "y") == first


async def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    await write(tmp_path / "a.db", "x")
    folder = tmp_path / "a.db-sync"
    key = folder / "device.key"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)

    with pytest.raises(StoreError, match="chmod 600"):
        await syncengine.open(str(tmp_path / "a.db"))


async def test_another_loop_or_thread_is_told_at_once(tmp_path: Path) -> None:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "x"
        address = f"ws://127.0.0.1:9/#{'a' * 51}q"
        link = transport.connect(replica, address)

        async def call(use: Any) -> Any:
            return use()

        uses: dict[str, Callable[[], Any]] = {
            "get": lambda: space.get("note/1"),
            "namespace": lambda: replica.namespace("home"),
            "transaction": lambda: space.transaction().__aenter__(),
            "receipt": lambda: tx.receipt.durable_on("hub"),
            "synced": link.synced,
            "connected": link.connected,
            "states": lambda: anext(aiter(link.states())),
            "enter": link.__aenter__,
            "collections": lambda: call(space.collections),
            "peers": lambda: call(space.peers),
            "invite": space.invite,
            "backup": lambda: replica.backup(str(tmp_path / "b.db")),
            "remember": lambda: replica.remember(address),
            "serve": lambda: transport.serve(replica).__aenter__(),
            "join": lambda: replica.join("sync1:x"),
            "recover": lambda: replica.recover("x"),
        }
        caught: dict[str, BaseException] = {}

        def elsewhere() -> None:
            async def use(name: str) -> None:
                try:
                    async with asyncio.timeout(5):
                        await uses[name]()
                except (WrongLoop, TimeoutError) as error:
                    caught[name] = error

            for name in uses:
                asyncio.run(use(name))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    for name in uses:
        assert "syncengine.blocking" in str(caught.get(name)), name

    with pytest.raises(Closed):
        await space.get("note/1")


def test_a_forked_child_is_told_at_once(tmp_path: Path) -> None:
    async def story() -> int:
        async with syncengine.open(str(tmp_path / "a.db")) as replica:
            child = os.fork()
            if child == 0:
                try:
                    replica.check_usable()
                except WrongLoop as error:
                    os._exit(7 if "before a fork" in str(error) else 1)
                os._exit(0)
            return child

    _, status = os.waitpid(asyncio.run(story()), 0)
    assert os.waitstatus_to_exitcode(status) == 7


class Hand:
    """A clock that is set by hand."""

    ms = 1_750_000_000_000

    def now_ms(self) -> int:
        return self.ms


def opening(path: Path, clock: Hand, *, strict: bool = False) -> Opening:
    entropy = SystemEntropy()
    return Opening(str(path), strict_clock=strict, clock=clock, entropy=entropy)


async def test_a_clock_that_went_back_is_said_and_order_holds(tmp_path: Path) -> None:
    clock = Hand()
    path = tmp_path / "a.db"
    async with opening(path, clock) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "first"
        assert not replica.clock_suspect
        before = space.engine.clock.last
    clock.ms = 0  # 1970
    with pytest.raises(ClockSuspect, match="behind what it was"):
        await opening(path, clock, strict=True)
    async with opening(path, clock) as replica:
        assert replica.clock_suspect
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "second"
        assert space.engine.clock.last > before
        assert (await space.get("note/1"))["title"] == "second"


async def test_a_strict_clock_that_is_off_the_hubs_ends_the_link(
    tmp_path: Path,
) -> None:
    clock = Hand()
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
        opening(tmp_path / "a.db", clock, strict=True) as replica,
    ):
        await replica.namespace("home")
        async with transport.connect(replica, server.address) as link:
            with pytest.raises(ClockSuspect, match="off the others'"):
                await link.synced()
        assert link.state == "closed"
        assert replica.clock_suspect


async def test_a_hubs_file_is_no_replica(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.db")
    await (await syncengine.open_hub(path)).close()
    with pytest.raises(NotOurs, match="belongs to a hub"):
        await syncengine.open(path)


async def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreReadOnly, match="create it first"):
        await syncengine.open(str(tmp_path / "no" / "such" / "a.db"))


async def test_a_backup_has_no_key_and_is_a_new_actor_elsewhere(tmp_path: Path) -> None:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "kept"
        await replica.backup(str(tmp_path / "copy.db"))
        actor = space.engine.actor
    async with syncengine.open(str(tmp_path / "copy.db")) as copy:
        again = await copy.namespace("home")
        assert again.engine.actor != actor
        assert (await again.get("note/1"))["title"] == "kept"


async def test_a_backup_put_back_is_noticed_though_nothing_was_opened_between(
    tmp_path: Path,
) -> None:
    """A voter would vote a second time: seed 70017 of `operated`."""
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "kept"
        await replica.backup(str(copy))
        actor = space.engine.actor
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "lost"
    for name in (path, *tmp_path.glob("a.db-*")):
        if name.is_file():
            name.unlink()
    shutil.move(copy, path)
    async with syncengine.open(str(path)) as restored:
        space = await restored.namespace("home")
        assert space.engine.actor != actor
        assert (await space.get("note/1"))["title"] == "kept"
        assert restored.store.read(
            "SELECT 1 FROM _sync_meta WHERE key = 'rolled_back'"
        ), "and it says so to whoever asks for its vote"


def test_ids_sort_by_time() -> None:
    ids = [syncengine.new_id() for _ in range(3)]

    assert all(len(one) == 26 for one in ids)


# --- taking a namespace out -------------------------------------------------------------


async def meet_at_home(space: Any, theirs: Any) -> None:
    async with (
        transport.serve(space._replica) as server,
        transport.connect(theirs._replica, server.address, namespaces=["home"]) as link,
    ):
        await link.synced()


async def test_a_namespace_is_taken_out_of_the_file(tmp_path: Path) -> None:
    class Note(syncengine.Document):
        title: str = ""

    path = tmp_path / "a.db"
    async with two_members() as (space, theirs):
        replica = theirs._replica
        other = await replica.namespace("other")
        async with other.transaction() as tx:
            tx.create(Note, "1", title="stays")
        async with theirs.transaction() as tx:
            tx.create(Note, "1", title="goes")
            tx["page/1"].text("body").insert(0, "words")
        await meet_at_home(space, theirs)
        assert theirs.collections() == [("note", 1), ("page", 1)]
        async with (
            transport.serve(replica) as server,
            transport.connect(space._replica, server.address) as link,
        ):
            await link.synced()
            await theirs.clear()
            assert [one.name for one in replica.spaces()] == ["other"]
        with pytest.raises(Closed, match="cleared"):
            await theirs.get("page/1")
        tables = replica.store.read(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '_sync_*'"
        )
        for (table,) in tables:
            columns = [
                row[1] for row in replica.store.read(f"PRAGMA table_info({table})")
            ]
            if "ns" in columns:
                found = replica.store.read(f"SELECT DISTINCT ns FROM {table}")
                assert set(found) <= {(other.engine.ns,)}, table
        rows = await other.sql("SELECT title FROM note")
        assert [tuple(row) for row in rows] == [("stays",)]
        await replica.backup(path)
        wrong = await findings(path)
        assert [one.what for one in wrong if "key" not in one.what] == []
        # Whoever is let in again has all of it again.
        again = await replica.join(await space.invite("write"), name="home")
        await meet_at_home(space, again)
        assert str((await again.get("page/1")).text("body")) == "words"


async def test_what_nobody_else_has_is_not_cleared_by_chance() -> None:
    async with two_members() as (space, theirs):
        async with theirs.transaction() as tx:
            tx["page/1"]["title"] = "only here"
        with pytest.raises(Invalid, match="on no other disk"):
            await theirs.clear()
        assert (await theirs.get("page/1"))["title"] == "only here"
        await meet(space, theirs)
        await theirs.clear()
        assert (await space.get("page/1"))["title"] == "only here"
        alone = await theirs._replica.namespace("alone")
        async with alone.transaction() as tx:
            tx["page/1"]["title"] = "nowhere else"
        with pytest.raises(Invalid, match="on no other disk"):
            await alone.clear()
        await alone.clear(lose_unsent=True)
        assert theirs._replica.spaces() == []


async def test_a_full_disk_clears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_members() as (space, theirs):
        await meet(space, theirs)
        store = theirs._replica.store

        async def full(_: object) -> None:
            raise syncengine.StoreFull("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(store, "commit", full)
            with pytest.raises(syncengine.StoreFull):
                await theirs.clear(lose_unsent=True)
        async with theirs.transaction() as tx:
            tx["page/1"]["title"] = "goes on"
        await meet(space, theirs)
        assert (await space.get("page/1"))["title"] == "goes on"


async def test_what_is_written_meanwhile_is_not_cleared() -> None:
    async with two_members() as (space, theirs):
        await meet(space, theirs)
        entered, leave = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with theirs.transaction() as tx:
                tx["page/1"]["title"] = "meanwhile"
                entered.set()
                await leave.wait()

        writing = asyncio.create_task(write())
        await entered.wait()
        clearing = asyncio.create_task(theirs.clear())
        await asyncio.sleep(0.05)
        leave.set()
        await writing
        with pytest.raises(Invalid, match="on no other disk"):
            await clearing
        assert (await theirs.get("page/1"))["title"] == "meanwhile"
        await meet(space, theirs)
        assert (await space.get("page/1"))["title"] == "meanwhile"


async def test_who_is_cancelled_has_cleared_all_or_nothing() -> None:
    async with two_members() as (space, theirs):
        await meet(space, theirs)
        store = theirs._replica.store
        commit, begun = store.commit, asyncio.Event()

        async def slow(writes: Any) -> None:
            begun.set()
            await asyncio.sleep(0.05)
            await commit(writes)

        store.commit = slow  # type: ignore[method-assign]  # to be cancelled in it
        clearing = asyncio.create_task(theirs.clear())
        await begun.wait()
        clearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await clearing
        store.commit = commit  # type: ignore[method-assign]  # as it was
        assert theirs._replica.spaces() == []
        with pytest.raises(Closed, match="cleared"):
            await theirs.get("page/1")
