"""Nodes as processes of their own, on real files and sockets: killed, parted, copied."""

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from clients.cli import control
from syncengine import SyncError
from tests.processes import ROOT

TIMEOUT_MS = 1_000
NAMES = ("n1", "n2", "n3")


class Proxy:
    """A port in front of a node: what goes through it may be held back."""

    def __init__(self) -> None:
        self.target = self.port = 0
        self.open = True
        self.answers = True
        """Whether what comes back from the target gets through"""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if not self.open:
                raise ConnectionRefusedError
            other, out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, out}
        for source, target, back in ((reader, out, False), (other, writer, True)):
            task = asyncio.create_task(self._pump(source, target, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, back: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                # Else it is lost, and nobody is told.
                if self.open and (self.answers or not back):
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Nodes:
    """Three voters; the second and third dial those before them, through proxies."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.proxies: dict[tuple[str, str], Proxy] = {}
        self.ports: dict[str, int] = {}
        self.addresses: dict[str, str] = {}
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self._readers: list[asyncio.Task[None]] = []

    def db(self, name: str) -> str:
        return str(self.folder / f"{name}.db")

    async def run(self, name: str, *words: str) -> Any:
        process = await self._spawn(name, *words)
        assert process.stdout is not None
        out = await process.stdout.read()
        assert await process.wait() == 0, (words, out)
        return json.loads(out)

    async def _spawn(self, name: str, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "syncengine", "--json", "--db", self.db(name)),
            *words,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def found(self) -> None:
        await self.run("n1", "init", "shop")
        await self.start("n1", "--role", "leader")
        invite = await self.do("n1", "invite", ops="lead", uses=9, expires=600, hub="")
        for name in NAMES[1:]:
            await self.run(name, "join", invite, "--name", "shop")
            await self.start(name)
        await self.until(lambda told: len(told["leader"]["followers"]) == 2, "n1")
        for name in NAMES:
            await self.do("n1", "add voter", node=name)

    async def start(self, name: str, *words: str) -> None:
        dialled: list[str] = []
        for other in NAMES[: NAMES.index(name)]:
            proxy = self.proxies.get((name, other))
            if proxy is None:
                proxy = self.proxies[name, other] = Proxy()
                await proxy.start()
            proxy.target = self.ports[other]
            where = self.addresses[other].replace(
                f":{self.ports[other]}/", f":{proxy.port}/"
            )
            dialled += ["--peer", where]
        listen = f"127.0.0.1:{self.ports.get(name, 0)}"
        process = await self._spawn(
            name, "node", name, "--listen", listen, *dialled, *words,
            "--heartbeat-timeout", str(TIMEOUT_MS),
        )  # fmt: skip
        self.processes[name] = process
        assert process.stdout is not None
        while True:
            line = json.loads(await process.stdout.readline())
            if line.get("event") == "started":
                break
        self.addresses[name] = line["address"]
        self.ports[name] = int(line["address"].split(":")[2].split("/")[0])
        self._readers.append(asyncio.create_task(self._read(name, process)))

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.logs.setdefault(name, []).append(json.loads(line))

    async def do(self, name: str, do: str, **options: Any) -> Any:
        answer = await control.ask(self.db(name), {"do": do, **options})
        assert answer is not None, f"{name} does not answer"
        return answer

    async def until(self, so: Callable[[Any], bool], *names: str) -> str:
        """Wait until it is so at one of these nodes; return which."""
        async with asyncio.timeout(30):
            while True:
                for name in names or NAMES:
                    if self.processes[name].returncode is None:
                        told = await self.do(name, "peers")
                        if so(told):
                            return name
                await asyncio.sleep(0.02)

    async def leader(self, *names: str) -> str:
        return await self.until(lambda told: told["role"] == "leader", *names)

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)

    def part(self, name: str, *, open: bool = False) -> None:
        for pair, proxy in self.proxies.items():
            if name in pair:
                proxy.open = open

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
        for task in self._readers:
            await task
        for proxy in self.proxies.values():
            await proxy.stop()


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncGenerator[Nodes]:
    nodes = Nodes(tmp_path)
    async with asyncio.timeout(120):
        try:
            await nodes.found()
            yield nodes
        finally:
            await nodes.stop()


class Load:
    """Writes on whoever leads, until it is stopped; keeps what was acknowledged."""

    def __init__(self, nodes: Nodes, writers: int = 8):
        self.nodes = nodes
        self.acknowledged: dict[str, int] = {}
        self.last_at = self.longest = 0.0
        self._ends = False
        self._leader = "n1"
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(writers)]

    async def _write(self, number: int) -> None:
        count = 0
        while not self._ends:
            key = f"k{number}-{count}"
            try:
                result = await control.ask(
                    self.nodes.db(self._leader),
                    {"do": "write", "key": key, "value": count, "client_op_id": key,
                     "timeout_ms": 2_000},
                )  # fmt: skip
            except (SyncError, ValueError):
                result = None
            if result is not None and result["success"]:
                self.acknowledged[key] = count
                count += 1
                now = time.monotonic()
                if self.last_at:
                    self.longest = max(self.longest, now - self.last_at)
                self.last_at = now
                continue
            known = None if result is None else result["leader_id"]
            if known in NAMES and known != self._leader:
                self._leader = known
            else:
                index = NAMES.index(self._leader)
                self._leader = NAMES[(index + 1) % len(NAMES)]
            await asyncio.sleep(0.02)

    async def more(self, count: int) -> None:
        until = len(self.acknowledged) + count
        async with asyncio.timeout(30):
            while len(self.acknowledged) < until:
                await asyncio.sleep(0.01)

    async def stop(self) -> dict[str, int]:
        self._ends = True
        await asyncio.gather(*self._tasks)
        return self.acknowledged


async def assert_kept(nodes: Nodes, acknowledged: dict[str, int], *names: str) -> None:
    """What was acknowledged is at these nodes, once they have all."""
    leader = await nodes.leader(*names)
    for key, value in acknowledged.items():
        read = await nodes.do(leader, "read", key=key, consistency="any")
        assert read["value"] == value, key
    sequence = (await nodes.do(leader, "peers"))["leader"]["current_sequence"]
    for name in names:
        if name != leader:
            await nodes.until(
                lambda told: told["follower"]["applied_sequence"] >= sequence, name
            )
            for key, value in acknowledged.items():
                read = await nodes.do(name, "read", key=key)
                assert read["value"] == value, (name, key)


async def test_what_was_acknowledged_outlives_a_leader_that_is_killed(
    nodes: Nodes,
) -> None:
    load = Load(nodes)
    await load.more(100)
    nodes.kill("n1")
    killed = time.monotonic()
    await load.more(100)
    print(f"no acknowledgement for {load.longest:.2f} s", time.monotonic() - killed)
    acknowledged = await load.stop()

    assert await nodes.leader("n2", "n3")
    await nodes.start("n1")
    await assert_kept(nodes, acknowledged, *NAMES)
    rescued = await nodes.do("n1", "rescue list", decided=True)
    keys = {one["operation_id"] for one in rescued if one["decided"] is None}
    assert not keys & acknowledged.keys()


async def test_a_leader_that_nobody_reaches_stops_and_comes_back_as_a_follower(
    nodes: Nodes,
) -> None:
    load = Load(nodes)
    await load.more(50)
    nodes.part("n1")
    other = await nodes.leader("n2", "n3")
    await nodes.until(lambda told: told["role"] == "follower", "n1")
    await load.more(50)
    nodes.part("n1", open=True)
    await nodes.until(lambda told: told["leader_id"] == other, "n1")
    await assert_kept(nodes, await load.stop(), *NAMES)
    told = [event["event"] for event in nodes.logs["n1"]]
    assert told[-1] in ("leaderChanged", "writesRescued")


async def test_a_leader_that_hears_and_is_not_heard_gives_way(nodes: Nodes) -> None:
    """A partition of one direction: its followers dial it, and get no answer."""
    load = Load(nodes)
    await load.more(50)
    dialled = [proxy for pair, proxy in nodes.proxies.items() if pair[1] == "n1"]
    for proxy in dialled:
        proxy.answers = False
    other = await nodes.leader("n2", "n3")
    await nodes.until(lambda told: told["role"] == "follower", "n1")
    await load.more(50)
    for proxy in dialled:
        proxy.answers = True
    await nodes.until(lambda told: told["leader_id"] == other, "n1")
    await assert_kept(nodes, await load.stop(), *NAMES)


async def test_a_bridge_elects_nobody_and_carries_all(nodes: Nodes) -> None:
    """The leader and a voter do not reach each other, and the third reaches both."""
    load = Load(nodes)
    await load.more(50)
    term = (await nodes.do("n1", "peers"))["term"]
    nodes.proxies["n2", "n1"].open = False
    await load.more(50)
    await asyncio.sleep(3 * TIMEOUT_MS / 1000)  # it could have been elected by now
    await load.more(50)
    acknowledged = await load.stop()
    assert await nodes.leader() == "n1"
    assert (await nodes.do("n2", "peers"))["term"] == term
    await assert_kept(nodes, acknowledged, *NAMES)


async def test_of_two_leaders_one_goes_on_and_nothing_is_lost(nodes: Nodes) -> None:
    """An owner believes that the others are gone, and they elect one meanwhile."""
    load = Load(nodes)
    await load.more(50)
    before = await load.stop()
    followers = (await nodes.do("n1", "peers"))["leader"]["followers"]
    gone = [followers[name]["device"] for name in ("n2", "n3")]
    nodes.part("n1")
    with pytest.raises(SyncError, match="no majority"):
        await nodes.until(lambda told: told["role"] == "follower", "n1")
        await nodes.do("n1", "promote", timeout_ms=500)
    await nodes.do(
        "n1", "promote", require="i_accept_loss", reason="the other site burns",
        without=gone,
    )  # fmt: skip
    other = await nodes.leader("n2", "n3")
    assert await nodes.leader("n1")
    written: dict[str, str] = {}
    for name in ("n1", other):
        for number in range(10):
            key = f"by-{name}-{number}"
            result = await nodes.do(name, "write", key=key, value=name)
            assert result["success"], result
            written[key] = name

    nodes.part("n1", open=True)
    await nodes.until(lambda told: told["role"] == "follower", "n1", other)
    await nodes.until(
        lambda told: len({told["leader_id"], told["node"]}) == 2, "n1", other
    )
    leader = await nodes.leader()
    waiting = await nodes.do(leader, "rescue list")
    assert len(waiting) == 10
    assert len(await nodes.do(leader, "rescue replay")) == 10
    await assert_kept(nodes, {**before, **written}, *NAMES)  # type: ignore[dict-item]


async def test_who_is_asked_to_stop_hands_over(nodes: Nodes) -> None:
    load = Load(nodes)
    await load.more(50)
    nodes.processes["n1"].send_signal(signal.SIGTERM)
    await nodes.processes["n1"].wait()
    await nodes.leader("n2", "n3")
    await load.more(50)
    acknowledged = await load.stop()
    await assert_kept(nodes, acknowledged, "n2", "n3")
    assert await nodes.do("n2", "rescue list") == []


async def test_a_voter_that_lost_its_file_votes_no_more_and_catches_up(
    nodes: Nodes,
) -> None:
    load = Load(nodes)
    await load.more(30)
    nodes.kill("n3")
    await nodes.processes["n3"].wait()
    for path in nodes.folder.glob("n3.db*"):
        if path.is_file():
            path.unlink()  # the folder with its key stays
    acknowledged = await load.stop()
    leader = await nodes.leader("n1", "n2")
    where = nodes.addresses[leader]
    invite = await nodes.do(
        leader, "invite", ops="lead", uses=1, expires=600, hub=where
    )
    await nodes.run("n3", "join", invite, "--name", "shop")
    await nodes.start("n3")

    await assert_kept(nodes, acknowledged, *NAMES)
    with pytest.raises(SyncError, match="no voter"):
        await nodes.do("n3", "promote", timeout_ms=2_000)
    await nodes.do(leader, "remove voter", node="n3")
    await nodes.until(lambda told: len(told["voters"]) == 2, "n3")
    await nodes.do(leader, "add voter", node="n3")
    await nodes.until(lambda told: len(told["voters"]) == 3, "n3")
    await nodes.do("n3", "promote")
    assert await nodes.leader("n3") == "n3"


async def test_a_file_that_was_copied_leads_nobody_astray(nodes: Nodes) -> None:
    """An old copy of a voter comes back in its place."""
    load = Load(nodes)
    await load.more(20)
    nodes.kill("n2")
    await nodes.processes["n2"].wait()
    for suffix in ("", "-wal", "-shm"):
        source = nodes.folder / f"n2.db{suffix}"
        if source.exists():
            shutil.copy(source, nodes.folder / f"old{suffix}")
    await nodes.start("n2")
    await load.more(50)
    nodes.kill("n2")
    await nodes.processes["n2"].wait()
    for suffix in ("", "-wal", "-shm"):
        (nodes.folder / f"n2.db{suffix}").unlink(missing_ok=True)
        if (nodes.folder / f"old{suffix}").exists():
            shutil.copy(nodes.folder / f"old{suffix}", nodes.folder / f"n2.db{suffix}")
    await nodes.start("n2")
    await load.more(50)
    acknowledged = await load.stop()

    await assert_kept(nodes, acknowledged, *NAMES)
    with pytest.raises(SyncError, match="no voter"):
        await nodes.do("n2", "promote", timeout_ms=2_000)
