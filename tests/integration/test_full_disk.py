"""No space and no permission: a typed error, nothing half-written, and on it goes.

The limit is the kernel's: a small file system of its own where the machine lets us
mount one, and RLIMIT_FSIZE everywhere. Writes beyond it fail inside SQLite, wherever it
happens to be. The file grows past a random size, fails, and gets space again.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import syncengine
import transport
from syncengine.protocol.codes import Code
from tests.processes import child, findings, seen

ROOT = Path(__file__).parent.parent.parent

WRITER = """
import asyncio, json, os, random, resource, sys
import syncengine
from syncengine import StoreFull

BALLAST = os.path.join(os.path.dirname(sys.argv[1]), "ballast")

def limit(size):
    if not os.path.exists(BALLAST):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    elif size == resource.RLIM_INFINITY:
        os.unlink(BALLAST)

async def main(path, room, seed):
    chance = random.Random(int(seed))
    told, full, after = [], 0, 0
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        limit(int(room))
        number = 0
        while after < 20:
            number += 1
            mark = f"{seed}-{number}"
            try:
                async with space.transaction() as tx:
                    tx["marks/all"].set("seen").add(mark)
                    tx["marks/all"].text("log").append(mark)
                    tx[f"noise/{number}"]["bytes"] = chance.randbytes(4000)
            except StoreFull as error:
                full += 1
                assert "free some space" in str(error)
                shown = set((await space.get("marks/all")).set("seen")) if told else set()
                assert mark not in shown, "memory shows what the disk refused"
                if full == 3:
                    limit(resource.RLIM_INFINITY)
                continue
            told.append(mark)
            after += full >= 3
    print(json.dumps({"told": told, "full": full}))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", range(8))
async def test_a_full_disk_costs_nothing_that_was_told(
    tmp_path: Path, seed: int
) -> None:
    room = random.Random(seed).randint(150_000, 1_000_000)
    path = tmp_path / "a.db"
    process = child(WRITER, str(path), str(room), str(seed), errors=subprocess.PIPE)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    report = json.loads(out)

    assert report["full"] >= 3
    assert set(report["told"]) == await seen(path)
    assert await findings(path) == []


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=6m tmpfs "$1"
head -c "$2" /dev/zero > "$1/ballast"
"$3" -c "$4" "$1/a.db" 0 "$5"
cp -a "$1/a.db" "$1/a.db-sync" "$6"
"""


def can_mount() -> bool:
    """Whether this machine lets us mount a file system that nobody else sees."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", folder]
        try:
            return (
                subprocess.run(command, capture_output=True, check=False).returncode
                == 0
            )
        except FileNotFoundError:
            return False


def written_on_a_small_disk(folder: Path, seed: int) -> str:
    """Run the writer on 6 MB, most of them taken; return what it printed.

    Where nothing may be mounted, within another limit of the kernel's.
    """
    if not can_mount():
        (folder / "out").mkdir()
        path = str(folder / "out" / "a.db")
        limited = child(WRITER, path, str(200_000 + 50_000 * seed), str(seed))
        return limited.communicate(timeout=60)[0]
    ballast = 6_000_000 - random.Random(seed).randint(600_000, 1_500_000)
    for name in ("disk", "out"):
        (folder / name).mkdir()
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", ON_A_SMALL_DISK, "sh", str(folder / "disk"),
         str(ballast), sys.executable, WRITER, str(seed), str(folder / "out")],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", range(4))
async def test_a_full_file_system_costs_nothing_that_was_told(
    tmp_path: Path, seed: int
) -> None:
    out = await asyncio.to_thread(written_on_a_small_disk, tmp_path, seed)
    report = json.loads(out)

    assert report["full"] >= 3
    assert set(report["told"]) == await seen(tmp_path / "out" / "a.db")
    assert await findings(tmp_path / "out" / "a.db") == []


HUB = """
import asyncio, resource, sys
import syncengine, transport

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path, room, seconds):
    async with syncengine.open_hub(path) as hub, transport.serve(hub) as server:
        limit(int(room))
        print(server.address, flush=True)
        await asyncio.sleep(float(seconds))
        limit(resource.RLIM_INFINITY)
        print("space", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_hub_without_space_says_so_and_goes_on_when_there_is(
    tmp_path: Path,
) -> None:
    process = child(HUB, str(tmp_path / "hub.db"), "400000", "1", stdin=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        for number in range(40):
            async with space.transaction() as tx:
                tx[f"noise/{number}"]["bytes"] = random.Random(number).randbytes(30_000)
        async with transport.connect(replica, address) as link:
            async with asyncio.timeout(10):
                async for _ in link.states():
                    if link.error is not None:
                        break
            assert getattr(link.error, "code", None) == Code.FULL
        assert (await asyncio.to_thread(process.stdout.readline)) == "space\n"
        async with transport.connect(replica, address) as again:
            async with asyncio.timeout(20):
                await again.synced()
        assert space.pending == 0
    process.communicate("\n", timeout=20)

    assert await findings(tmp_path / "hub.db") == []


READ_ONLY = """
import asyncio, os, sys
import syncengine
from syncengine import StoreReadOnly

async def main(path):
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "kept"
    for name in os.listdir(os.path.dirname(path)):
        os.chmod(os.path.join(os.path.dirname(path), name), 0o444)
    os.chmod(os.path.dirname(path), 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # permissions bind everybody but root
    try:
        async with syncengine.open(path):
            print("opened")
    except StoreReadOnly as error:
        print(error)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_file_that_may_not_be_written_is_refused_with_its_name() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "kept" / "a.db"
        path.parent.mkdir(mode=0o777)
        process = child(READ_ONLY, str(path), errors=subprocess.PIPE)
        out, errors = process.communicate(timeout=30)
        path.parent.chmod(0o777)
        for name in path.parent.iterdir():
            name.chmod(0o666)

        assert process.returncode == 0, errors
        assert "cannot be written" in out
        assert "permissions" in out
        assert str(path) in out
        assert await findings(path) == []
