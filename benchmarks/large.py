"""One field changed in a large document costs what it costs in a small one."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import syncengine
from benchmarks.row import Row

ROUNDS = 300


async def changes(path: str, fields: int) -> float:
    """Return CPU microseconds for one changed field in a document of many."""
    async with syncengine.open(path) as replica:
        space = await replica.namespace("bench")
        async with space.transaction() as tx:
            page = tx["big/1"]
            for number in range(fields):
                page[f"field{number}"] = "x" * 100
        began = time.process_time()
        for number in range(ROUNDS):
            seen = await space.get("big/1")
            async with space.transaction() as tx:
                tx["big/1"]["field7"] = f"{number}"
            assert seen["field7"] != f"{number}"
        return (time.process_time() - began) / ROUNDS * 1e6


def run() -> list[Row]:
    large: list[float] = []
    small: list[float] = []
    with tempfile.TemporaryDirectory(prefix="syncengine-bench-") as folder:
        for turn in range(3):
            for fields, samples in ((10_000, large), (100, small)):
                path = str(Path(folder) / f"{turn}-{fields}.db")
                samples.append(asyncio.run(changes(path, fields)))
    return [
        Row(
            "one field changed in a document of 1 MB, an old snapshot held",
            "us CPU",
            large,
            2.0,
            small,
            "the same in 10 kB",
            detail={"process": os.getpid()},
        )
    ]
