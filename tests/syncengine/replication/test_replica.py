"""Files: opened once, by their owner, and recognised after a restore."""

import asyncio
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    Closed,
    NotFound,
    NotOurs,
    StoreError,
    StoreLocked,
    StoreReadOnly,
    WrongLoop,
)


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
        caught: list[BaseException] = []

        def elsewhere() -> None:
            async def use() -> None:
                await space.get("note/1")

            try:
                asyncio.run(use())
            except WrongLoop as error:
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert len(caught) == 1

    with pytest.raises(Closed):
        await space.get("note/1")


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


def test_ids_sort_by_time() -> None:
    ids = [syncengine.new_id() for _ in range(3)]

    assert all(len(one) == 26 for one in ids)
