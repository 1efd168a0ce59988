"""`space.sql` over 100,000 documents, by an indexed field, beside plain sqlite3."""

import asyncio
import os
import sqlite3
import tempfile
import time
from pathlib import Path

import syncengine
from benchmarks.row import Row
from syncengine import Document, Indexed

DOCUMENTS = 100_000
QUERIES = 1_000
ROUNDS = 3

# A hundred documents each.
QUERY = "SELECT id, title, size FROM item WHERE shelf = ?"


class Item(Document):
    title: str
    shelf: Indexed[int]
    size: int = 0


async def filled(path: Path) -> None:
    async with syncengine.open(path) as replica:
        space = await replica.namespace("bench")
        for start in range(0, DOCUMENTS, 1_000):
            async with space.transaction() as tx:
                for number in range(start, start + 1_000):
                    tx.create(
                        Item, f"{number:06}", title=f"item {number}",
                        shelf=number % 1_000, size=number,
                    )  # fmt: skip


async def ours(path: Path) -> float:
    """Return CPU microseconds of one query."""
    async with syncengine.open(path) as replica:
        space = await replica.namespace("bench")
        assert len(await space.sql(QUERY, 7)) == DOCUMENTS // 1_000
        began = time.process_time()
        for number in range(QUERIES):
            await space.sql(QUERY, number % 1_000)
        return (time.process_time() - began) / QUERIES * 1e6


def plain(path: Path, source: Path) -> float:
    """Return the same of a table with the same rows, made by hand."""
    if not path.exists():
        connection = sqlite3.connect(path)
        connection.execute(
            "CREATE TABLE item (id TEXT PRIMARY KEY, title, shelf, size)"
        )
        connection.execute("ATTACH ? AS source", (str(source),))
        connection.execute(
            "INSERT INTO item SELECT id, title, shelf, size FROM source.item"
        )
        connection.execute("CREATE INDEX item_shelf ON item (shelf)")
        connection.commit()
        connection.close()
    connection = sqlite3.connect(path)
    assert len(connection.execute(QUERY, (7,)).fetchall()) == DOCUMENTS // 1_000
    began = time.process_time()
    for number in range(QUERIES):
        connection.execute(QUERY, (number % 1_000,)).fetchall()
    spent = (time.process_time() - began) / QUERIES * 1e6
    connection.close()
    return spent


def run() -> list[Row]:
    mine: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="syncengine-bench-") as folder:
        path = Path(folder) / "ours.db"
        asyncio.run(filled(path))
        for _ in range(ROUNDS):
            mine.append(asyncio.run(ours(path)))
            theirs.append(plain(Path(folder) / "plain.db", path))
    return [
        Row(
            "space.sql over 100,000 documents, 100 rows by an indexed field",
            "us CPU",
            mine,
            2.0,
            theirs,
            "plain sqlite3",
            detail={"process": os.getpid()},
        )
    ]
