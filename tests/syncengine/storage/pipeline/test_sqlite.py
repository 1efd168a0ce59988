"""A pipeline in a file: of several processes, whatever becomes of them."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import Invalid, NotOurs, StoreError, StoreFull
from syncengine.storage.pipeline.sqlite import SqlitePipeline


async def test_it_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = str(tmp_path / "p.db")
    async with await SqlitePipeline.open(path, partitions=8) as pipeline:
        await pipeline.publish(7, b"ns", b"1", b"one")
        token = await pipeline.take(7, "me")
    async with await SqlitePipeline.open(path, partitions=2) as pipeline:
        assert pipeline.partitions == 8
        assert [e.payload for e in await pipeline.read(7)] == [b"one", b"me"]
        await pipeline.publish(7, b"ns", b"2", b"two", token=token)


async def test_another_process_follows(tmp_path: Path) -> None:
    path = str(tmp_path / "p.db")
    async with (
        await SqlitePipeline.open(path) as one,
        await SqlitePipeline.open(path) as other,  # shares nothing but the file
        asyncio.timeout(20),
    ):
        following = other.follow(3)
        for number in range(5):
            await one.publish(3, b"ns", b"%d" % number, b"%d" % number)
            assert (await anext(following)).payload == b"%d" % number
        await following.aclose()


async def test_who_publish_at_once_share_a_commit(tmp_path: Path) -> None:
    async with await SqlitePipeline.open(str(tmp_path / "p.db")) as pipeline:
        commits = 0
        real: Any = pipeline._commit  # pyright: ignore[reportPrivateUsage]

        def counted(group: list[Any]) -> list[Any]:
            nonlocal commits
            commits += 1
            outcomes: list[Any] = real(group)
            return outcomes

        pipeline._commit = counted  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        publishing = (pipeline.publish(1, b"ns", b"%d" % n, b"") for n in range(200))
        await asyncio.gather(*publishing)
    assert commits <= 3


async def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    async with await SqlitePipeline.open(str(tmp_path / "p.db")) as pipeline:
        writer = pipeline._writer  # pyright: ignore[reportPrivateUsage]
        ((pages,),) = writer.execute("PRAGMA page_count")
        writer.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreFull):
            await pipeline.publish(1, b"ns", b"big", bytes(200_000))
        writer.execute("PRAGMA max_page_count = 1000000")
        await pipeline.publish(1, b"ns", b"small", b"")
        assert [entry.id for entry in await pipeline.read(1)] == [b"small"]


async def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "notes.db"):
        pass
    with sqlite3.connect(tmp_path / "other.db") as plain:
        plain.execute("CREATE TABLE t (x)")
    for name in ("notes.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(NotOurs):
            await SqlitePipeline.open(str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(StoreError):
        await SqlitePipeline.open(str(tmp_path / "none" / "p.db"))
    with pytest.raises(Invalid, match="MemoryPipeline"):
        await SqlitePipeline.open(":memory:")


PUBLISHER = """
import asyncio, sys
from syncengine.storage.pipeline.sqlite import SqlitePipeline

async def main():
    async with await SqlitePipeline.open(sys.argv[1]) as pipeline:
        async def one(number):
            name = b"%d" % number
            await pipeline.publish(1, b"ns", name, name)
            print(number, flush=True)
        for start in range(0, 10_000, 20):
            await asyncio.gather(*map(one, range(start, start + 20)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "p.db")
    child = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, path], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(150)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    async with await SqlitePipeline.open(path) as pipeline:
        stored = [int(entry.payload) for entry in await pipeline.read(1, limit=20_000)]

    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
