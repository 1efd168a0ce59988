"""Ctrl-C anywhere: the file is clean, what was told is kept, and nobody sees a trace."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import syncengine
import transport
from tests.processes import child, findings, seen

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

async def main(path, address, run):
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with transport.connect(replica, address):
            print("ready", flush=True)
            async with asyncio.TaskGroup() as group:
                for worker in range(4):
                    group.create_task(write(space, f"{run}.{worker}"))

try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
"""


async def test_an_interrupted_application_leaves_a_clean_file(tmp_path: Path) -> None:
    chance = random.Random(3)
    path = tmp_path / "a.db"
    told: set[str] = set()
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
    ):
        for run in range(6):
            process = child(WRITER, str(path), server.address, str(run))
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
            await asyncio.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGINT)
            out, _ = await asyncio.to_thread(process.communicate, None, 20)
            assert process.returncode == 130
            told |= set(out.split("\n")[:-1])
            assert not (tmp_path / "a.db-wal").exists(), "closed, not dropped"
    assert told

    assert told <= await seen(path)
    assert await findings(path) == []
    assert await findings(tmp_path / "hub.db") == []


@pytest.mark.parametrize("seed", range(4))
async def test_an_interrupted_command_says_nothing_but_that(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    run = "from clients.cli import main; main()"
    path = tmp_path / "a.db"
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("main")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "x"
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
    ):
        words = ("--db", str(path), "sync", "--watch", server.address)
        process = child(run, *words, errors=subprocess.PIPE)
        # From the interpreter's first steps to a live link.
        await asyncio.sleep(0.25 + chance.uniform(0, 0.6))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.to_thread(process.communicate, None, 20)

    assert time.monotonic() - began < 5
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors
    assert await findings(path) == []


UNCLOSED = """
import asyncio, sys
import syncengine

async def main(path):
    replica = await syncengine.open(path)
    space = await replica.namespace("home")
    async with space.transaction() as tx:
        tx["marks/all"].set("seen").add("told")
        tx["marks/all"].text("log").append("told")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_program_that_closes_nothing_ends_and_loses_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    process = child(UNCLOSED, str(path))
    await asyncio.to_thread(process.communicate, None, 20)

    assert process.returncode == 0
    assert await seen(path) == {"told"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupted_demo_ends_with_all_its_processes(
    tmp_path: Path, how: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "syncengine", "demo", "--keep", str(tmp_path / "kept")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert demo.stderr is not None
    while "share an empty text" not in await asyncio.to_thread(demo.stderr.readline):
        assert demo.poll() is None
    if how is signal.SIGINT:  # a terminal's goes to the whole group
        os.killpg(demo.pid, how)
    else:
        demo.send_signal(how)
    _, errors = await asyncio.to_thread(demo.communicate, None, 20)

    assert demo.returncode == 130
    assert "Traceback" not in errors
    for name in ("laptop", "phone", "tablet"):
        async with syncengine.open(str(tmp_path / "kept" / f"{name}.db")):
            pass  # nobody has it open any more
    async with syncengine.open_hub(str(tmp_path / "kept" / "hub.db")):
        pass
