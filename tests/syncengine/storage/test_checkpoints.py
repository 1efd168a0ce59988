"""Checkpoints: kept with what was written beside them, or not at all."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import syncengine
from syncengine import (
    CheckpointStore,
    CheckpointTransaction,
    Closed,
    DeadLetter,
    NotOurs,
    StoreError,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[CheckpointStore]:
    async with await CheckpointStore.open(str(tmp_path / "audit.db")) as opened:
        async with opened.transaction() as tx:
            await tx.execute("CREATE TABLE line (text TEXT)")
        yield opened


async def lines(store: CheckpointStore) -> list[str]:
    async with store.transaction() as tx:
        return [row[0] for row in await tx.execute("SELECT text FROM line")]


async def test_what_was_written_is_there_with_its_checkpoint(
    store: CheckpointStore,
) -> None:
    assert await store.load("audit") is None
    async with store.transaction() as tx:
        await tx.execute("INSERT INTO line VALUES (?)", ("a",))
        await tx.save("audit", "1-0-ab")

    assert await store.load("audit") == "1-0-ab"
    assert await store.load("other") is None
    again = await CheckpointStore.open(store.path)
    assert await again.load("audit") == "1-0-ab"
    await again.close()


async def test_what_fails_leaves_neither(store: CheckpointStore) -> None:
    kept: list[CheckpointTransaction] = []
    with pytest.raises(KeyError):
        async with store.transaction() as tx:
            kept.append(tx)
            await tx.execute("INSERT INTO line VALUES ('a')")
            await tx.save("audit", "1-0-ab")
            raise KeyError

    assert await store.load("audit") is None
    assert await lines(store) == []
    with pytest.raises(Closed):
        await kept[0].execute("INSERT INTO line VALUES ('late')")


async def test_a_part_is_taken_back_alone(store: CheckpointStore) -> None:
    async with store.transaction() as tx:
        await tx.execute("INSERT INTO line VALUES ('kept')")
        with pytest.raises(KeyError):
            async with tx.part():
                await tx.execute("INSERT INTO line VALUES ('gone')")
                raise KeyError
        async with tx.part():
            await tx.execute("INSERT INTO line VALUES ('too')")

    assert await lines(store) == ["kept", "too"]


async def test_who_is_cancelled_leaves_no_transaction_open(
    store: CheckpointStore,
) -> None:
    async def work() -> None:
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO line VALUES ('a')")
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await lines(store) == []
    async with store.transaction() as tx:
        await tx.save("audit", "x")
    assert await store.load("audit") == "x"


async def test_transactions_are_one_after_the_other(store: CheckpointStore) -> None:
    async def add(number: int) -> None:
        async with store.transaction() as tx:
            ((count,),) = await tx.execute("SELECT count(*) FROM line")
            await asyncio.sleep(0)
            await tx.execute("INSERT INTO line VALUES (?)", (f"{count}",))

    await asyncio.gather(*map(add, range(20)))

    assert await lines(store) == [str(number) for number in range(20)]


async def test_what_was_put_aside_is_listed(store: CheckpointStore) -> None:
    letters = [DeadLetter(f"e{n}", f"{n}-0-", "KeyError: x", 4, n) for n in (2, 1)]
    async with store.transaction() as tx:
        for letter in letters:
            await tx.bury("audit", letter)
    assert await store.dead_letters("audit") == letters[::-1]
    async with store.transaction() as tx:
        await tx.dig_up("audit", "e1")
    assert await store.dead_letters("audit") == letters[:1]
    assert await store.dead_letters("other") == []


async def test_a_replicas_file_is_no_place_for_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with syncengine.open(path):
        pass
    with pytest.raises(NotOurs, match="another"):
        await CheckpointStore.open(str(path))
    with pytest.raises(StoreError):
        await CheckpointStore.open(str(tmp_path / "none" / "x.db"))
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StoreError):
        await CheckpointStore.open(str(tmp_path / "text"))


async def test_a_closed_store_says_so(store: CheckpointStore) -> None:
    await store.close()
    await store.close()
    for doing in (store.load("audit"), store.dead_letters("audit")):
        with pytest.raises(Closed):
            await doing
    with pytest.raises(Closed):
        async with store.transaction():
            pass


async def test_an_error_of_sql_is_sqlites_own(store: CheckpointStore) -> None:
    with pytest.raises(sqlite3.Error, match="nothing"):
        async with store.transaction() as tx:
            await tx.execute("INSERT INTO nothing VALUES (1)")
    assert await lines(store) == []
