"""Leaders and masters: acknowledged writes, following, failing over, propagation.

Each node is a process of its own on a real file; they are linked over loopback. What is
written is written by the leader's own process, as an application would.
"""

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from benchmarks.row import Row
from clients.demo.stage import own_environment

WRITES = 20_000
WRITERS = 64
FOLLOWED = 60_000
PROPAGATED = 300
APPLIED = 20_000
HEARTBEAT_MS = 1_000

NODE = """
    import asyncio, json, os, signal, sys, time
    import syncengine, transport

    async def main(path, name, role, port, peers, invite, count, writers):
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)

        def say(**what):
            print(json.dumps(what), flush=True)

        async with syncengine.open(path) as replica:
            if invite:
                space = await replica.join(invite, name="bench")
            else:
                space = await replica.namespace("bench")
            manager = syncengine.LeaderFollowerManager(
                name, role, None, space, "bench",
                heartbeat_interval_ms=HEARTBEAT // 5, heartbeat_timeout_ms=HEARTBEAT)
            async with transport.serve(replica, "127.0.0.1", port) as server:
                links = [transport.connect(replica, peer) for peer in peers]
                for link in links:
                    await link.__aenter__()
                await manager.start()
                made = "" if invite else str(
                    await space.invite("lead", hub=server.address, uses=9))
                say(address=server.address, device=replica.id, invite=made)

                async def commands():
                    while line := await loop.run_in_executor(
                            None, sys.stdin.readline):
                        words = line.split()
                        if words[0] == "voters":
                            for device in words[1:]:
                                while True:
                                    try:
                                        await manager.add_voter(device)
                                        break
                                    except syncengine.SyncError:
                                        await asyncio.sleep(0.05)
                            say(voters=manager.get_voters())
                        elif words[0] == "write":
                            total, writers, level = *map(int, words[1:3]), words[3]
                            commits = replica.writer.commit_count
                            failed = 0

                            async def write(number):
                                nonlocal failed
                                for n in range(number, total, writers):
                                    result = await manager.write(
                                        f"k{n % 10_000}", n, level=level)
                                    failed += not result.success

                            began, cpu = time.perf_counter(), time.process_time()
                            await asyncio.gather(*map(write, range(writers)))
                            say(seconds=time.perf_counter() - began, failed=failed,
                                cpu=time.process_time() - cpu,
                                commits=replica.writer.commit_count - commits)
                        elif words[0] == "reach":
                            wanted = int(words[1])
                            began, cpu = time.perf_counter(), time.process_time()
                            while space.engine.applied_index < wanted:
                                await asyncio.sleep(0.002)
                            say(seconds=time.perf_counter() - began,
                                cpu=time.process_time() - cpu)
                        elif words[0] == "acknowledge":
                            while True:
                                if manager.get_role() == "leader":
                                    result = await manager.write("x", 1)
                                    if result.success:
                                        say(at=time.monotonic())
                                        break
                                await asyncio.sleep(0.002)

                asking = asyncio.create_task(commands())
                await stop.wait()
                os._exit(0)

    HEARTBEAT = int(sys.argv[7])
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]),
                     json.loads(sys.argv[5]), sys.argv[6], 0, 0))
"""

MASTER = """
    import asyncio, json, sys, time
    import syncengine, transport

    async def main(path, name, address, invite, count):
        loop = asyncio.get_running_loop()
        async with syncengine.open(path) as replica:
            if invite:
                space = await replica.join(invite, name="bench")
            else:
                space = await replica.namespace("bench")
            master = syncengine.MultiMasterManager(name, None, space)
            async with master, transport.connect(replica, address) as link:
                await link.synced()
                made = "" if invite else str(await space.invite("write", hub=link.hub))
                await link.synced()
                print(json.dumps({"invite": made}), flush=True)
                if invite:
                    seen = {}

                    def applied(event):
                        seen.setdefault(event.id, time.monotonic())

                    master.on("eventApplied", applied)
                    await loop.run_in_executor(None, sys.stdin.readline)
                    print(json.dumps(seen), flush=True)
                else:
                    await loop.run_in_executor(None, sys.stdin.readline)
                    ids = {}
                    feed = space.changes(after=None)

                    for number in range(count):
                        at = time.monotonic()
                        await master.write(f"e{number % 50}", {"n": number})
                        engine = space.engine
                        last = engine.delivery.applied[engine.actor]
                        ids[number] = [at, time.monotonic(), last.seq]
                        await asyncio.sleep(0.02)
                    await asyncio.sleep(1)
                    from syncengine.ids import base32, node_id
                    changes = {}
                    async for change in feed:
                        changes[change.id] = None
                        if len([c for c in changes]) >= count:
                            break
                    names = [name for name in changes]
                    print(json.dumps([[name, ids[n][0]]
                                      for n, name in enumerate(names[-count:])]),
                          flush=True)

    asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
"""

APPLY = """
    import asyncio, json, sys, time
    import syncengine
    from syncengine.replication.host import sealed

    async def main(count):
        # Two take in the same rows by turns, so that a noisy neighbour slows both.
        async with syncengine.open(":memory:") as one:
            space = await one.namespace("bench")
            invite = str(await space.invite("write"))
            async with (
                syncengine.open(":memory:") as two,
                syncengine.open(":memory:") as three,
            ):
                spaces = [await each.join(invite, name="b") for each in (two, three)]
                author = syncengine.MultiMasterManager("a", None, space)
                async with author:
                    for start in range(0, count, 500):
                        await asyncio.gather(*(
                            author.write(f"e{n % 2000}", {"n": n, "text": "some text"})
                            for n in range(start, start + 500)))
                    space.engine.seal_now(ahead=True)
                    await sealed(space.engine)
                rows = [row for _, row in space.engine.keeper.rows_after(0, 1_000_000)]
                spent = [0.0, 0.0]
                master = syncengine.MultiMasterManager("b", None, spaces[1])
                async with master:
                    for start in range(0, len(rows), 8):
                        turns = (0, 1) if start % 16 else (1, 0)
                        for which in turns:
                            began = time.process_time()
                            await spaces[which].engine.take_in(rows[start:start + 8])
                            await spaces[which].engine.flush()
                            if which:
                                await master.caught_up()
                            spent[which] += time.process_time() - began
                print(json.dumps(spent))

    asyncio.run(main(int(sys.argv[1])))
"""


class Node:
    """A node's process."""

    def __init__(self, folder: Path, name: str, *, role: str, peers: list[str],
                 invite: str = ""):  # fmt: skip
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", textwrap.dedent(NODE)),
                *(str(folder / f"{name}.db"), name, role, "0", json.dumps(peers)),
                *(invite, str(HEARTBEAT_MS)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = self.hear()
        self.address, self.device = told["address"], told["device"]
        self.invite = told["invite"]

    def say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a node ended")
        return json.loads(line)

    def ask(self, words: str) -> Any:
        self.say(words)
        return self.hear()

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()


def run() -> list[Row]:
    """Measure leaders, then masters."""
    own_environment()
    return [*_led(), *_mastered()]


def _led() -> list[Row]:
    rates: list[float] = []
    groups: list[float] = []
    local: list[float] = []
    applied: list[float] = []
    failovers: list[float] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            one = Node(place, "n1", role="leader", peers=[])
            others = [Node(place, "n2", role="follower", peers=[one.address],
                           invite=one.invite)]  # fmt: skip
            others.append(
                Node(place, "n3", role="follower", invite=one.invite,
                     peers=[one.address, others[0].address])
            )  # fmt: skip
            nodes = [one, *others]
            try:
                devices = " ".join(node.device for node in nodes)
                assert len(one.ask(f"voters {devices}")["voters"]) == 3
                one.ask(f"write 2000 {WRITERS} majority")  # warm
                told = one.ask(f"write {WRITES} {WRITERS} majority")
                assert not told["failed"], told
                rates.append(WRITES / told["seconds"])
                groups.append(WRITES / told["commits"])
                alone = one.ask(f"write {WRITES} {WRITERS} local")
                local.append(WRITES / alone["seconds"])
                one.ask(f"write {FOLLOWED - 2 * WRITES - 2000} {WRITERS} local")
                last = Node(place, "n4", role="follower", peers=[one.address],
                            invite=one.invite)  # fmt: skip
                nodes.append(last)
                reached = last.ask(f"reach {FOLLOWED}")
                applied.append(FOLLOWED / reached["seconds"])
                for other in others:
                    other.ask(f"reach {FOLLOWED}")
                for other in others:
                    other.say("acknowledge")
                time.sleep(0.5)
                began = time.monotonic()
                one.end()
                failovers.append(_first(others) - began)
            finally:
                for node in nodes:
                    node.end()
    detail = {"changes a commit": [round(group, 1) for group in groups]}
    bar = HEARTBEAT_MS / 1000 + 2
    return [
        Row("leader, 2 followers, 64 writers, majority", "writes/s", rates, 3_000,
            at_least=True, detail=detail),
        Row("the same, the leader's disk alone", "writes/s", local, None),
        Row("a new follower of 60,000 writes, until they show", "changes/s", applied,
            30_000, at_least=True),
        Row("kill -9 of the leader, to the next acknowledgement", "s", failovers, bar),
    ]  # fmt: skip


def _first(nodes: list[Node]) -> float:
    """Return when the first of these was acknowledged something."""

    async def first() -> float:
        waiting = [asyncio.create_task(asyncio.to_thread(node.hear)) for node in nodes]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        at: float = done.pop().result()["at"]
        for node in nodes:
            node.end()  # the others hear nothing more
        await asyncio.wait(waiting)
        for task in waiting:
            task.exception()
        return at

    return asyncio.run(first())


def _mastered() -> list[Row]:
    delays: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        hub = subprocess.Popen(
            [sys.executable, "-m", "syncengine", "--json", "hub", "--data",
             str(place / "hub.db"), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert hub.stdout is not None
        address = json.loads(hub.stdout.readline())["address"]

        def master(name: str, invite: str) -> "subprocess.Popen[str]":
            return subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(MASTER),
                 str(place / f"{name}.db"), name, address, invite, str(PROPAGATED)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip

        one = master("a", "")
        assert one.stdout is not None
        invite = json.loads(one.stdout.readline())["invite"]
        two = master("b", invite)
        assert two.stdout is not None
        two.stdout.readline()
        assert one.stdin is not None
        assert two.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
        written = json.loads(one.stdout.readline())
        two.stdin.write("tell\n")
        two.stdin.flush()
        seen = json.loads(two.stdout.readline())
        delays = [(seen[name] - at) * 1000 for name, at in written if name in seen]
        assert len(delays) >= PROPAGATED * 0.99, (len(delays), len(seen))
        for process in (one, two):
            process.communicate(timeout=30)
        hub.terminate()
        hub.communicate(timeout=30)
    with_: list[float] = []
    without: list[float] = []
    for _ in range(9):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(APPLY), str(APPLIED)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        plain, managed = json.loads(done.stdout)
        without.append(plain)
        with_.append(managed)
    return [
        Row("a master's write, through a hub, to another's event, p50 of 100 each",
            "ms", [statistics.median(delays[at::3]) for at in range(3)], 15),
        Row("20,000 events taken in, conflicts detected", "s CPU", with_, 1.1,
            without, "without a manager"),
    ]  # fmt: skip
