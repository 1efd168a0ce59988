"""Writing, catching up, reconnecting, opening: through the public API, on real files.

The hub and each client are processes of their own; bytes are counted by a proxy
between them, CPU is read from the processes themselves.
"""

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

from benchmarks.row import Row
from clients.demo.stage import HubProcess, Proxy, own_environment

DOCUMENTS = 10_000
UPDATES = 100_000
WRITERS = 100
IDLERS = 1_000

WRITE = """
    import asyncio, json, os, sys, time
    import syncengine, transport

    async def main(path, documents, updates, writers):
        async with syncengine.open(path) as replica:
            space = await replica.namespace("bench")
            commits = replica.writer.commit_count
            began = time.perf_counter()
            exist = [1 async for _ in space.documents("item")]

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

            if not exist:
                await asyncio.gather(
                    *(create(range(w, documents, writers)) for w in range(writers)))
            created = time.perf_counter()
            await asyncio.gather(
                *(update(range(w, updates, writers)) for w in range(writers)))
            ended = time.perf_counter()
            count = updates + (0 if exist else documents)
            print(json.dumps({
                "pid": os.getpid(),
                "seconds": ended - began,
                "changes": count,
                "commits": replica.writer.commit_count - commits,
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
    import asyncio, json, os, sys, time
    import syncengine, transport, transport.websocket
    import syncengine.documents.model, syncengine.replication.replica
    # As with opening, what is measured comes after imports; this one is lazy.
    import cryptography.hazmat.backends.openssl.backend

    async def main(path, invite, address):
        async with syncengine.open(path) as replica:
            if invite:
                await replica.join(invite, name="bench")
            began = time.process_time()
            async with transport.connect(replica, address) as link:
                await link.synced()
                spent = time.process_time() - began
                space = replica.spaces()[0]
                seen = sum(n for _, n in space.collections())
                total = 0
                async for _, page in space.documents("item"):
                    total += page.get("updated", 1700000000) - 1700000000
                version = sorted(
                    (a.hex(), s) for a, s in space.engine.delivery.version().items())
                print(json.dumps({"cpu": spent, "documents": seen, "total": total,
                                  "pid": os.getpid(), "version": version}))

    asyncio.run(main(*sys.argv[1:4]))
"""

BUILD = """
    import asyncio, json, sys
    import syncengine, transport

    async def main(path, address, invite, share, number):
        async with syncengine.open(path) as replica:
            if invite:
                space = await replica.join(invite, name="bench")
            else:
                space = await replica.namespace("bench")
            async with transport.connect(replica, address) as link:
                await link.synced()

                async def create(numbers):
                    for n in numbers:
                        async with space.transaction() as tx:
                            tx[f"item/{number}-{n:05}"]["title"] = f"title {n}"

                await asyncio.gather(
                    *(create(range(w, int(share), 100)) for w in range(100)))
                # Each acknowledged before the next: a batch each.
                for n in range(340 if int(share) else 1):
                    async with space.transaction() as tx:
                        tx[f"item/{number}-00000"]["n"] = n
                    await tx.receipt.durable_on("hub")
                await link.synced()
                made = ""
                if not invite:
                    made = str(await space.invite(hub=link.hub, uses=9))
                    await link.synced()
            rows = replica.store.read(
                "SELECT count(*) FROM _sync_log WHERE kind = 0")
            version = sorted(
                (a.hex(), s) for a, s in space.engine.delivery.version().items())
            print(json.dumps(
                {"invite": made, "batches": rows[0][0], "version": version}))

    asyncio.run(main(*sys.argv[1:6]))
"""

IDLE = """
    import asyncio, sys
    import syncengine, transport
    from contextlib import AsyncExitStack

    async def main(address, count, together):
        async with AsyncExitStack() as stack:
            async def one(invite):
                replica = await stack.enter_async_context(syncengine.open(":memory:"))
                if invite:
                    space = await replica.join(invite, name="shared")
                else:
                    space = await replica.namespace("shared")
                async with space.transaction() as tx:
                    tx["note/1"]["title"] = "x"
                link = transport.connect(replica, address)
                await stack.enter_async_context(link)
                await link.synced()
                if not invite and together > 1:
                    made = await space.invite(hub=link.hub, uses=together)
                    await link.synced()
                    return str(made)

            async def group():
                invite = await one("")
                for _ in range(together - 1):
                    await one(invite)

            for _ in range(max(1, 20 // together)):
                await group()
            print("some", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for _ in range(count // together):
                await group()
            print("all", flush=True)
            await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""

OPEN = """
    import asyncio, json, os, sys, time
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
            print(json.dumps({"ms": ms, "mb": (resident() - before) / 1e6,
                              "pid": os.getpid()}))

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


def schedule_of(pid: int) -> float:
    """Return the CPU seconds that a process has used, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def syncs_of(folder: Path) -> Row:
    """Count `fdatasync` from outside of the process: durable now, not later."""
    log = folder / "strace"
    name = "changes a disk sync, counted by the kernel"
    if shutil.which("strace") is None:
        return Row(name, "changes", [0.0], 1e9, detail={"missing": "strace"})
    program = [sys.executable, "-c", textwrap.dedent(WRITE)]
    sizes = ["1000", "5000", str(WRITERS)]
    done = subprocess.run(
        ["strace", "-f", "-c", "-e", "trace=fdatasync", "-o", str(log), *program,
         str(folder / "traced.db"), *sizes],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    told = json.loads(done.stdout)
    calls = next(
        int(line.split()[3])
        for line in log.read_text().splitlines()
        if line.endswith("fdatasync")
    )
    assert calls >= told["commits"], "a commit without a sync is not durable"
    detail = {**told, "fdatasync": calls}
    return Row(name, "changes", [told["changes"] / calls], 10, at_least=True,
               detail=detail)  # fmt: skip


async def measure(folder: Path) -> list[Row]:
    rows: list[Row] = []
    sizes = (str(DOCUMENTS), str(UPDATES), str(WRITERS))
    alone = [
        json.loads(await in_child(WRITE, str(folder / f"alone{n}.db"), *sizes))
        for n in range(2)
    ]
    path = str(folder / "writer.db")
    created = json.loads(await in_child(WRITE, path, sizes[0], "0", sizes[2]))
    proxy = Proxy()
    await proxy.start()
    hub = HubProcess(folder, proxy)
    await hub.start()
    try:
        invite = await in_child(PUSH, path, hub.address, "9")
        reader = str(folder / "reader.db")
        await in_child(PULL, reader, invite, hub.address)
        updated = json.loads(await in_child(WRITE, path, *sizes))
        changes = created["changes"] + updated["changes"]
        seconds = created["seconds"] + updated["seconds"]
        rows.append(
            Row("durable changes by 100 writers, each its own awaited transaction",
                "changes/s",
                [changes / seconds, *(w["changes"] / w["seconds"] for w in alone)],
                10_000, at_least=True,
                detail={"created": created, "updated": updated, "alone": alone})
        )  # fmt: skip
        commits = created["commits"] + updated["commits"]
        rows.append(
            Row("changes a commit with 100 writers", "changes", [changes / commits],
                10, at_least=True)
        )  # fmt: skip
        rows.append(await asyncio.to_thread(syncs_of, folder))
        await in_child(PUSH, path, hub.address)
        before, bytes_before = schedule_of(hub.pid), proxy.bytes
        pulled = json.loads(await in_child(PULL, reader, "", hub.address))
        # Every document was made with its number, and each update added one.
        expected = DOCUMENTS * (DOCUMENTS - 1) // 2 + UPDATES
        assert (pulled["documents"], pulled["total"]) == (DOCUMENTS, expected), pulled
        server = schedule_of(hub.pid) - before
        rows.append(
            Row("catch-up of 100,000 changes over 10,000 documents",
                "s CPU, both sides", [pulled["cpu"] + server], 3.5,
                detail={"client": pulled, "hub": {"pid": hub.pid, "cpu": server}})
        )  # fmt: skip
        rows.append(
            Row("the same, on the wire", "bytes", [float(proxy.bytes - bytes_before)],
                2_400_000.0)
        )  # fmt: skip
    finally:
        await hub.stop()
        await proxy.stop()
    return rows


async def reconnected(folder: Path, documents: int) -> tuple[list[Row], float]:
    """Reconnect to a namespace by three actors in a thousand batches or more."""
    folder.mkdir()
    proxy = Proxy()
    await proxy.start()
    hub = HubProcess(folder, proxy)
    await hub.start()
    try:
        invite, batches = "", 0
        for number in range(3):
            share = str(documents // 3 + (number < documents % 3))
            wrote = json.loads(
                await in_child(BUILD, str(folder / f"{number}.db"), hub.address,
                               invite, share, str(number))
            )  # fmt: skip
            invite, batches = invite or wrote["invite"], wrote["batches"]
        assert batches >= 1_000, batches
        reader = str(folder / "reader.db")
        await in_child(PULL, reader, invite, hub.address)
        sizes: list[float] = []
        cpus: list[float] = []
        turns: list[float] = []
        for _ in range(7):
            before, bytes_before = schedule_of(hub.pid), proxy.bytes
            turns_before = proxy.turns
            again = json.loads(await in_child(PULL, reader, "", hub.address))
            assert again["documents"] == documents, again
            sizes.append(float(proxy.bytes - bytes_before))
            cpus.append((again["cpu"] + schedule_of(hub.pid) - before) * 1000)
            # The upgrade, HELLO and CHALLENGE take two turns each; the close two, or
            # three when both sides begin it.
            turns.append(float((proxy.turns - turns_before - 6) // 2))
        arrived = json.loads(
            await in_child(BUILD, str(folder / "0.db"), hub.address, "", "0", "0")
        )
        seen = json.loads(await in_child(PULL, reader, "", hub.address))
        assert seen["version"] == arrived["version"], "a later write arrives"
    finally:
        await hub.stop()
        await proxy.stop()
    name = f"reconnect, nothing changed, {documents:,} documents"
    rows = [
        Row(name, "bytes", sizes, 1_900.0, detail={"batches": batches, "hub": hub.pid}),
        Row("the same", "ms CPU, both sides", cpus, 10.0),
        Row("the same", "round trips after authentication", turns, 1.0),
    ]
    return rows, statistics.median(sizes)


async def idle(folder: Path, together: int) -> Row:
    """A hub with 1,000 connections, `together` of them to a namespace."""
    folder.mkdir()
    proxy = Proxy()  # only its address is used: the devices dial the hub itself
    await proxy.start()
    hub = HubProcess(folder, proxy)
    await hub.start()
    direct = hub.address.replace(f":{proxy.port}/", f":{proxy.hub_port}/")
    crowd = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(IDLE), direct, str(IDLERS),
        str(together), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert crowd.stdout is not None
    assert crowd.stdin is not None
    try:
        await crowd.stdout.readline()  # a few are there: what is made once is made
        before = resident_of(hub.pid)
        crowd.stdin.write(b"\n")
        assert await crowd.stdout.readline() == b"all\n", "all are connected"
        await asyncio.sleep(2)
        each = (resident_of(hub.pid) - before) / IDLERS / 1000
    finally:
        crowd.stdin.close()
        await crowd.wait()
        await hub.stop()
        await proxy.stop()
    name = f"hub with {IDLERS:,} idle connections, {together} to a namespace"
    return Row(name, "kB of memory each", [each], 30.0,
               detail={"hub": hub.pid, "devices": crowd.pid})  # fmt: skip


def resident_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def reconnects(folder: Path) -> list[Row]:
    rows: list[Row] = []
    medians: list[float] = []
    for documents in (10, 10_000, 100_000):
        found, median = await reconnected(folder / str(documents), documents)
        rows += found
        medians.append(median)
    same = Row("reconnect, largest of the three sizes", "bytes", [max(medians)], 1.1,
               [min(medians)], "the smallest")  # fmt: skip
    return [*rows, same]


def opened(folder: Path) -> list[Row]:
    """Open a replica of 100,000 documents and read one."""
    path = str(folder / "large.db")
    child(WRITE, path, "100000", "1", str(WRITERS))
    samples = [json.loads(child(OPEN, path)) for _ in range(5)]
    return [
        Row("open a replica of 100,000 documents and read one", "ms",
            [sample["ms"] for sample in samples], 30.0,
            detail={"processes": [sample["pid"] for sample in samples]}),
        Row("the same", "MB of memory", [sample["mb"] for sample in samples], 10.0),
    ]  # fmt: skip


def _in_scratch(measure: Callable[[Path], list[Row]]) -> Callable[[], list[Row]]:
    def run() -> list[Row]:
        own_environment()
        with tempfile.TemporaryDirectory(prefix="syncengine-bench-") as scratch:
            return measure(Path(scratch))

    return run


def _idle(folder: Path) -> list[Row]:
    return [
        asyncio.run(idle(folder / "idle", 20)),
        asyncio.run(idle(folder / "alone", 1)),
    ]


PARTS = {
    "writes": _in_scratch(lambda folder: asyncio.run(measure(folder))),
    "reconnect": _in_scratch(lambda folder: asyncio.run(reconnects(folder))),
    "idle": _in_scratch(_idle),
    "open": _in_scratch(opened),
}
