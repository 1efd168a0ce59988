"""Both stores keep the same promises."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncengine.errors import StoreError
from syncengine.storage.inline import InlineStore
from syncengine.storage.sql import statements as sql
from syncengine.storage.sqlite import SqliteStore
from syncengine.storage.store import Store, Writes


@pytest.fixture(params=["inline", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    path = str(tmp_path / "x.db")
    opened: Store
    opened = (
        InlineStore(path) if request.param == "inline" else await SqliteStore.open(path)
    )
    yield opened
    await opened.close()


def put(key: str, value: object) -> Writes:
    writes = Writes()
    writes.add(sql.PUT_META, key, value)
    return writes


async def test_what_is_committed_is_read(store: Store) -> None:
    await store.commit(put("a", b"1"))

    assert store.read("SELECT value FROM _sync_meta WHERE key = 'a'") == [(b"1",)]


async def test_a_commit_is_all_or_nothing(store: Store) -> None:
    writes = put("a", 1)
    writes.add("INSERT INTO _sync_namespace (nothing) VALUES (?)", 1)
    with pytest.raises(StoreError):
        await store.commit(writes)

    assert store.read("SELECT * FROM _sync_meta") == []
    await store.commit(put("b", 2))


async def test_what_follows_a_statement_that_failed_is_not_kept_either(
    store: Store,
) -> None:
    writes = Writes()
    writes.add("INSERT INTO _sync_namespace (nothing) VALUES (?)", 1)
    writes.add(sql.PUT_META, "later", 1)
    with pytest.raises(StoreError):
        await store.commit(writes)

    await store.commit(put("b", 2))
    assert store.read("SELECT key FROM _sync_meta") == [("b",)]


async def test_what_fails_before_the_disk_is_asked_leaves_nothing_open(
    store: Store,
) -> None:
    writes = put("a", 1)
    writes.add(sql.SET_POSITION, 2**63, 1)  # does not fit: sqlite3 raises OverflowError
    with pytest.raises(OverflowError):
        await store.commit(writes)

    await store.commit(put("b", 2))
    assert store.read("SELECT key FROM _sync_meta") == [("b",)]


async def test_what_clears_runs_before_what_is_added(store: Store) -> None:
    await store.commit(put("old", 1))
    writes = put("new", 2)
    writes.clear("DELETE FROM _sync_meta WHERE value > ?", 0)
    await store.commit(writes)

    assert store.read("SELECT key FROM _sync_meta") == [("new",)]


async def test_a_cancelled_commit_happens_as_a_whole_or_not(store: Store) -> None:
    task = asyncio.create_task(store.commit(put("a", 1)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.commit(put("b", 2))

    keys = {key for (key,) in store.read("SELECT key FROM _sync_meta")}
    assert keys in ({"a", "b"}, {"b"})


async def test_commits_are_synced_in_full(store: Store) -> None:
    connection = getattr(store, "connection", None)
    if connection is not None:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        return
    assert isinstance(store, SqliteStore)
    async with store._writer.execute("PRAGMA synchronous") as cursor:
        assert await cursor.fetchone() == (2,)


async def test_a_backup_is_one_whole_file(store: Store, tmp_path: Path) -> None:
    await store.commit(put("a", 1))
    await store.backup(str(tmp_path / "copy.db"))

    copy = InlineStore(str(tmp_path / "copy.db"))
    assert copy.read("SELECT key FROM _sync_meta") == [("a",)]
    await copy.close()
