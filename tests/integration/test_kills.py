"""`kill -9` with a write in flight: nothing that was acknowledged is lost.

A child writes; after each returned `async with` it tells the mark through a pipe. It
dies at a chosen point (or at any), and the ledger is compared with its file. The
closing lines of the run show the kills by phase.
"""

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import syncengine
import transport
from syncengine.storage.inline import InlineStore
from tests.processes import child, findings, seen

# Run before the program itself: it dies by SIGKILL at the NTH time it comes to PHASE.
DIE = """
import os, signal, sys, threading, time
import aiosqlite

phase, nth = os.environ["PHASE"], int(os.environ["NTH"])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def arrived():
    global nth
    nth -= 1
    return nth == 0

commit = aiosqlite.Connection.commit

async def deadly(self):
    if phase == "before the commit" and arrived():
        die()
    await commit(self)
    if phase == "before the acknowledgement" and arrived():
        die()
    if phase == "during a checkpoint" and arrived():
        # Copying thousands of pages back takes longer than this.
        threading.Timer(float(os.environ["AFTER"]), die).start()
        await self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

aiosqlite.Connection.commit = deadly

from syncengine.replication.conversation import Conversation
take_in = Conversation._take_in

async def deadly_take_in(self, channel, message):
    await take_in(self, channel, message)
    if phase == "during a catch-up" and arrived():
        die()

Conversation._take_in = deadly_take_in
"""

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

HUB = "from clients.cli import main; main()"

ANYWHERE = "anywhere"
PHASES = (
    "before the commit", "before the acknowledgement", "during a checkpoint",
    "during a catch-up", ANYWHERE,
)  # fmt: skip

# More by command: KILLS=200 python -m pytest tests/integration/test_kills.py
KILLS = int(os.environ.get("KILLS", "20"))
EACH = KILLS // (2 * len(PHASES))


def start(
    program: str, phase: str, chance: random.Random, *args: str
) -> "subprocess.Popen[str]":
    """Start a child that will die in `phase`."""
    nth = (
        chance.randint(1, 4) if phase == "during a catch-up" else chance.randint(5, 40)
    )
    after = str(chance.uniform(0, 0.004))
    return child(DIE + program, *args, PHASE=phase, NTH=str(nth), AFTER=after)


def told_by(
    writer: "subprocess.Popen[str]", phase: str, seconds: float | None
) -> set[str]:
    """Let a writer write until it dies or is killed; return what it was told."""
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    if seconds is not None:
        time.sleep(seconds)
        writer.kill()
    told = set(writer.stdout.read().split("\n")[:-1])
    writer.stdout.close()
    assert writer.wait() == -9, f"it was killed {phase}"
    return told


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("phase", [p for p in PHASES if p != "during a catch-up"])
async def test_a_killed_writer_keeps_what_it_was_told(
    tmp_path: Path, phase: str, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(phase)
    path = tmp_path / "a.db"
    ledger: set[str] = set()
    for run in range(EACH):
        writer = start(WRITER, phase, chance, str(path), "", str(run))
        after = chance.uniform(0.02, 0.3) if phase == ANYWHERE else None
        ledger |= told_by(writer, phase, after)
    assert len(ledger) > 10 * EACH

    assert ledger <= await seen(path)
    assert await findings(path) == []
    record_property(f"writer {phase}", EACH)


@pytest.mark.timeout(3600)
async def test_a_device_killed_during_a_catch_up_keeps_what_it_was_told(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """It writes while a hub sends it a long past."""
    phase = "during a catch-up"
    chance = random.Random(phase)
    hub_path, other = tmp_path / "hub.db", tmp_path / "other.db"
    ledger: set[str] = set()
    async with (
        syncengine.open_hub(str(hub_path)) as hub,
        transport.serve(hub) as server,
        syncengine.open(str(other)) as founder,
        transport.connect(founder, server.address) as link,
    ):
        space = await founder.namespace("home")
        for number in range(30):
            async with space.transaction() as tx:
                tx[f"past/{number}"]["noise"] = chance.randbytes(60_000)
        await link.synced()
        invite = await space.invite("write", hub=link.hub, uses=EACH)
        await link.synced()
        for run in range(EACH):
            path = tmp_path / f"device{run}.db"
            async with syncengine.open(str(path)) as device:
                await device.join(str(invite), name="home")
            writer = start(WRITER, phase, chance, str(path), server.address, str(run))
            told = await asyncio.to_thread(told_by, writer, phase, None)
            ledger |= told
            assert told <= await seen(path)
    record_property(f"writer {phase}", EACH)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("phase", PHASES)
async def test_a_killed_hub_keeps_what_it_acknowledged(
    tmp_path: Path, phase: str, record_property: Callable[[str, object], None]
) -> None:
    """The hub dies under a writer's load, again and again, on the same file."""
    chance = random.Random(phase)
    path, hub_path = tmp_path / "a.db", tmp_path / "hub.db"
    ledger: set[str] = set()
    for run in range(EACH):
        hub = start(
            HUB, phase, chance,
            "--json", "hub", "--data", str(hub_path), "--listen", "127.0.0.1:0",
        )  # fmt: skip
        assert hub.stdout is not None
        address = json.loads(hub.stdout.readline())["address"]
        writer = start(WRITER, ANYWHERE, chance, str(path), address, str(run))
        ledger |= _until_the_hub_dies(hub, writer, phase, chance)
    assert ledger <= await seen(path)
    # What the device counts as acknowledged, the hub's file has.
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
    record_property(f"hub {phase}", EACH)


def _until_the_hub_dies(
    hub: "subprocess.Popen[str]",
    writer: "subprocess.Popen[str]",
    phase: str,
    chance: random.Random,
) -> set[str]:
    assert writer.stdout is not None
    assert hub.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    told: set[str] = set()
    deadline = time.monotonic() + (
        chance.uniform(0.2, 0.6) if phase == ANYWHERE else 20.0
    )
    while hub.poll() is None and time.monotonic() < deadline:
        told.add(writer.stdout.readline().strip())
    if phase == ANYWHERE:
        hub.kill()
    assert hub.wait(5) == -9, f"the hub was killed {phase}"
    writer.kill()
    told |= set(writer.stdout.read().split("\n")[:-1])
    for process in (hub, writer):
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return told
