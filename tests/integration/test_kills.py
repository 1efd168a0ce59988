"""`kill -9` with a write in flight: nothing that was acknowledged is lost.

A child writes; after each returned `async with` it tells the mark through a pipe.
It is killed at a random moment, and the ledger is compared with its file.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import syncengine
from syncengine.replication.doctor import examine
from syncengine.system import SystemClock, SystemEntropy
from syncengine.trust.keys import ED25519

ROOT = Path(__file__).parent.parent.parent

WRITER = """
import asyncio, sys
import syncengine, transport

async def write(space, worker):
    number = 0
    while True:
        number += 1
        mark = f"{worker}-{number}"
        async with space.transaction() as tx:
            tx["marks/all"].set("seen").add(mark)
            tx["marks/all"].text("log").append(mark)
        print(mark, flush=True)

async def main(path, address):
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            if address:
                link = transport.connect(replica, address)
                await link.__aenter__()
            for worker in range(8):
                group.create_task(write(space, f"{sys.argv[3]}.{worker}"))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""

# More by command: KILLS=200 python -m pytest tests/integration/test_kills.py
KILLS = int(os.environ.get("KILLS", "10"))


def kill_while_writing(path: Path, address: str, run: int, after: float) -> set[str]:
    """Let a child write for a moment; return what it was told is durable."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), address, str(run)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(after)
    child.kill()
    told = set(child.stdout.read().split("\n")[:-1])
    child.stdout.close()
    child.wait()
    return told


async def seen(path: Path) -> set[str]:
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home", create=False)
        page = await space.get("marks/all")
        marks = set(page.set("seen"))
        log = str(page.text("log"))
        assert all(mark in log for mark in marks), "half a transaction"
        return marks


@pytest.mark.timeout(3600)
async def test_a_killed_writer_keeps_what_it_was_told(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "a.db"
    ledger: set[str] = set()
    for run in range(KILLS):
        ledger |= kill_while_writing(path, "", run, chance.uniform(0.02, 0.3))
    assert len(ledger) > 10 * KILLS

    assert ledger <= await seen(path)
    found = await examine(
        str(path), clock=SystemClock(), entropy=SystemEntropy(), scheme=ED25519
    )
    assert found == []


@pytest.mark.timeout(3600)
async def test_a_killed_hub_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """The hub dies under a writer's load, again and again, on the same file."""
    import json

    chance = random.Random(2)
    path, hub_path = tmp_path / "a.db", tmp_path / "hub.db"
    ledger: set[str] = set()
    for run in range(KILLS):
        hub = subprocess.Popen(
            [sys.executable, "-m", "syncengine", "--json", "hub", "--data", str(hub_path),
             "--listen", "127.0.0.1:0"],
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert hub.stdout is not None
        address = json.loads(hub.stdout.readline())["address"]
        ledger |= kill_while_writing(path, address, run, chance.uniform(0.2, 0.6))
        hub.kill()
        hub.wait()
        hub.stdout.close()
    assert ledger <= await seen(path)
    # What the device counts as acknowledged, the hub's file has.
    from syncengine.storage.inline import InlineStore

    device, hub_file = InlineStore(str(path)), InlineStore(str(hub_path))
    ((acked,),) = device.read("SELECT max(acked) FROM _sync_peer")
    lacking = {
        name
        for (name,) in device.read(
            "SELECT id FROM _sync_log WHERE position <= ?", acked
        )
    } - {name for (name,) in hub_file.read("SELECT id FROM _sync_log")}
    assert lacking == set()
    await device.close()
    await hub_file.close()
