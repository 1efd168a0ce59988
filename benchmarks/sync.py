"""Writing, catching up, reconnecting, opening: through the public API, on real files.

The hub and each client are processes of their own; bytes are counted by a proxy
between them, CPU is read from the processes themselves.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from benchmarks.row import Row
from clients.demo.stage import HubProcess, Proxy, own_environment

DOCUMENTS = 10_000
UPDATES = 100_000
WRITERS = 100

WRITE = """
    import asyncio, json, sys, time
    import syncengine, transport

    async def main(path, documents, updates, writers):
        async with syncengine.open(path) as replica:
            space = await replica.namespace("bench")
            commits = replica.writer.commit_count
            began = time.perf_counter()

            async def create(numbers):
                for number in numbers:
                    async with space.transaction() as tx:
                        page = tx[f"item/{number:05}"]
                        page["title"] = f"title {number}"
                        page["done"] = False
                        page["priority"] = number % 10
                        page["assignee"] = f"user{number % 50}"
                        page["updated"] = 1700000000 + number

            async def update(numbers):
                for number in numbers:
                    async with space.transaction() as tx:
                        page = tx[f"item/{number % documents:05}"]
                        assert page["updated"] > 0
                        page["updated"] = page["updated"] + 1

            await asyncio.gather(
                *(create(range(w, documents, writers)) for w in range(writers)))
            created = time.perf_counter()
            await asyncio.gather(
                *(update(range(w, updates, writers)) for w in range(writers)))
            ended = time.perf_counter()
            count = documents + updates
            print(json.dumps({
                "rate": count / (ended - began),
                "update_rate": updates / (ended - created),
                "per_commit": count / (replica.writer.commit_count - commits),
            }))

    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
"""

PUSH = """
    import asyncio, sys
    import syncengine, transport

    async def main(path, address):
        async with syncengine.open(path) as replica:
            async with transport.connect(replica, address) as link:
                await link.synced()
                if len(sys.argv) > 3:
                    space = replica.spaces()[0]
                    print(await space.invite(hub=link.hub, uses=int(sys.argv[3])))
                    await link.synced()

    asyncio.run(main(*sys.argv[1:3]))
"""

PULL = """
    import asyncio, json, sys, time
    import syncengine, transport, transport.websocket
    import syncengine.documents.model, syncengine.replication.replica

    async def main(path, invite, address):
        async with syncengine.open(path) as replica:
            if invite:
                await replica.join(invite, name="bench")
            began = time.process_time()
            async with transport.connect(replica, address) as link:
                await link.synced()
                spent = time.process_time() - began
                space = replica.spaces()[0]
                if invite:
                    seen = sum([1 async for _ in space.documents("item")])
                    await asyncio.shield(space.engine.flush())
                    print(json.dumps({"cpu": spent, "documents": seen}))
                else:
                    print(json.dumps({"cpu": spent}))

    asyncio.run(main(*sys.argv[1:4]))
"""

OPEN = """
    import asyncio, json, resource, sys, time
    import syncengine, transport
    import syncengine.replication.replica, syncengine.documents.model

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    async def main(path):
        before, began = resident(), time.perf_counter()
        async with syncengine.open(path) as replica:
            space = await replica.namespace("bench")
            page = await space.get("item/00007")
            assert page["title"] == "title 7"
            ms = (time.perf_counter() - began) * 1000
            print(json.dumps({"ms": ms, "mb": (resident() - before) / 1e6}))

    asyncio.run(main(sys.argv[1]))
"""


def child(program: str, *arguments: str) -> str:
    """Run a program in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.strip()


async def in_child(program: str, *arguments: str) -> str:
    return await asyncio.to_thread(child, program, *arguments)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(folder: Path) -> list[Row]:
    rows: list[Row] = []
    path = str(folder / "writer.db")
    wrote = json.loads(
        await in_child(WRITE, path, str(DOCUMENTS), str(UPDATES), str(WRITERS))
    )
    rows.append(
        Row("durable changes by 100 writers, each its own awaited transaction",
            "changes/s", [wrote["rate"]], 10_000, at_least=True, detail=wrote)
    )  # fmt: skip
    rows.append(
        Row("changes a commit with 100 writers", "changes", [wrote["per_commit"]], 10,
            at_least=True)
    )  # fmt: skip
    proxy = Proxy()
    await proxy.start()
    hub = HubProcess(folder, proxy)
    await hub.start()
    try:
        invite = await in_child(PUSH, path, hub.address, "9")
        before, bytes_before = cpu_of(hub.pid), proxy.bytes
        reader = str(folder / "reader.db")
        pulled = json.loads(await in_child(PULL, reader, invite, hub.address))
        assert pulled["documents"] == DOCUMENTS, pulled
        server = cpu_of(hub.pid) - before
        rows.append(
            Row("catch-up of 110,000 changes over 10,000 documents",
                "s CPU, both sides", [pulled["cpu"] + server], 3.5,
                detail={"client": pulled["cpu"], "server": server})
        )  # fmt: skip
        rows.append(
            Row("the same, on the wire", "bytes", [float(proxy.bytes - bytes_before)],
                2_400_000.0)
        )  # fmt: skip
        await in_child(PULL, reader, "", hub.address)
        sizes: list[float] = []
        cpus: list[float] = []
        for _ in range(5):
            before, bytes_before = cpu_of(hub.pid), proxy.bytes
            again = json.loads(await in_child(PULL, reader, "", hub.address))
            sizes.append(float(proxy.bytes - bytes_before))
            cpus.append((again["cpu"] + cpu_of(hub.pid) - before) * 1000)
        rows.append(
            Row("reconnect, nothing changed, 10,000 documents", "bytes", sizes, 1_900.0)
        )
        rows.append(Row("the same", "ms CPU, both sides", cpus, 10.0))
    finally:
        await hub.stop()
        await proxy.stop()
    return rows


def opened(folder: Path) -> list[Row]:
    """Open a replica of 100,000 documents and read one."""
    path = str(folder / "large.db")
    child(WRITE, path, "100000", "1", str(WRITERS))
    samples = [json.loads(child(OPEN, path)) for _ in range(5)]
    return [
        Row("open a replica of 100,000 documents and read one", "ms",
            [sample["ms"] for sample in samples], 30.0),
        Row("the same", "MB of memory", [sample["mb"] for sample in samples], 10.0),
    ]  # fmt: skip


def run() -> list[Row]:
    own_environment()
    with tempfile.TemporaryDirectory(prefix="syncengine-bench-") as scratch:
        folder = Path(scratch)
        rows: list[Row] = asyncio.run(measure(folder))
        return rows + opened(folder)
