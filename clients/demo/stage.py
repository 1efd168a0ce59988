"""The stage of a demo: processes to start and kill, a counting proxy, the count."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from syncengine.errors import Invalid, SyncError
from syncengine.ids import ActorId
from syncengine.log.batch import decode_header, decode_spine, split_payload
from syncengine.replication.address import parse_address
from syncengine.replication.reader import Reader

HUB_START_SECONDS = 20.0


class Proxy:
    """Counts the bytes between devices and the hub, from outside of both."""

    def __init__(self) -> None:
        self.port = 0
        self.bytes = 0
        self.turns = 0
        """how often the direction changed: two make a round trip"""
        self.hub_port = 0
        self._direction: object = None
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            hub_reader, hub_writer = await asyncio.open_connection(
                "127.0.0.1", self.hub_port
            )
        except OSError:
            writer.close()
            return
        for source, target in ((reader, hub_writer), (hub_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(65536):
                self.bytes += len(data)
                self.turns += self._direction is not source
                self._direction = source
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._pumps):
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


def make_folder(path: str) -> Path:
    """Return the folder in which everything is kept; raises `Invalid`."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"--keep is a folder: {error}") from error
    return folder


class HubProcess:
    """The hub, as its command runs it."""

    def __init__(self, folder: Path, proxy: Proxy):
        self._folder = folder
        self._proxy = proxy
        self.process: asyncio.subprocess.Process | None = None
        self.address = ""

    async def start(self) -> None:
        """Start the hub and learn its address; the proxy stands in front of it."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "syncengine",
            "--json",
            "hub",
            "--data",
            str(self._folder / "hub.db"),
            "--listen",
            "127.0.0.1:0",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours: we stop them in order
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(HUB_START_SECONDS):
            line = await self.process.stdout.readline()
        if not line:
            raise SyncError("the hub did not start")
        address = parse_address(json.loads(line)["address"])
        self._proxy.hub_port = int(address.url.rpartition(":")[2])
        front = type(address)(
            f"ws://127.0.0.1:{self._proxy.port}", address.device, address.ticket
        )
        self.address = str(front)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()


class DeviceProcess:
    """A process that plays one device or several."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._events: dict[tuple[str, str], asyncio.Queue[dict[str, Any]]] = (
            defaultdict(asyncio.Queue)
        )
        self._listening: asyncio.Task[None] | None = None
        self.failures: list[str] = []

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clients.demo.device",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
            start_new_session=True,
        )
        self._listening = asyncio.create_task(self._listen(self.process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "failed":
                self.failures.append(f"{event['device']}: {event['error']}")
            self._events[(event["device"], event["event"])].put_nowait(event)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def tell(self, device: str, do: str, **facts: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        order = {"device": device, "do": do, **facts}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()

    async def hear(
        self, device: str, event: str, seconds: float = 60.0
    ) -> dict[str, Any]:
        """Wait for an event of a device; raises when it fails or is silent."""
        heard = asyncio.ensure_future(self._events[(device, event)].get())
        failed = asyncio.ensure_future(self._events[(device, "failed")].get())
        done, _ = await asyncio.wait(
            {heard, failed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for waiting in (heard, failed):
            waiting.cancel()
        if heard in done:
            return heard.result()
        why = failed.result()["error"] if failed in done else "no answer"
        raise SyncError(f"{device}: waiting for {event!r}: {why}")

    async def status(self, device: str) -> dict[str, Any]:
        while not self._events[(device, "status")].empty():
            self._events[(device, "status")].get_nowait()
        await self.tell(device, "status")
        return await self.hear(device, "status")

    async def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        await self._gone()

    async def stop(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
        await self._gone()

    async def _gone(self) -> None:
        assert self.process is not None
        await self.process.wait()
        if self._listening is not None:
            await self._listening


async def read_back(path: Path, field: str) -> str:
    """Return a text as a fresh process reads it from a file that nobody has open."""
    value = await _fresh("--db", str(path), "get", field)
    return str(value["value"])


async def examined(paths: list[Path]) -> bool:
    """Tell whether `doctor`, in a fresh process, finds every file clean."""
    answer = await _fresh("doctor", *map(str, paths))
    return bool(answer["clean"])


async def _fresh(*arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "syncengine",
        "--json",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    answer: dict[str, Any] = json.loads(out)
    return answer


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def count_concurrent(path: Path) -> tuple[int, int]:
    """Return (changes, how many are concurrent with at least one other).

    Counted from the deps in the stored log, in a file that nobody has open.
    """
    reader = Reader(str(path))
    try:
        (ns, *_), *_ = reader.namespaces()
        rows = reader.store.read(
            "SELECT head, body FROM _sync_log WHERE ns = ? AND kind = 0 "
            "ORDER BY position",
            ns,
        )
    finally:
        reader.close()
    chains: dict[ActorId, list[tuple[int, int, dict[ActorId, int]]]] = {}
    for head, body in rows:
        header = decode_header(head)
        chain = chains.setdefault(header.actor, [])
        for change in decode_spine(header, split_payload(body)):
            seen = dict(chain[-1][2]) if chain else {}
            for dep in change.deps:
                seen[dep.actor] = max(dep.seq, seen.get(dep.actor, 0))
            chain.append((change.seq, change.end, seen))
    return sum(map(len, chains.values())), _concurrent(chains)


def _concurrent(
    chains: dict[ActorId, list[tuple[int, int, dict[ActorId, int]]]],
) -> int:
    """Count changes with a concurrent one: per other actor the first unseen change
    decides, since what later ones have seen only grows."""
    count = 0
    for actor, chain in chains.items():
        at = dict.fromkeys(chains, 0)
        for _, end, seen in chain:
            found = False
            for other, others in chains.items():
                if other == actor:
                    continue
                while at[other] < len(others) and (
                    others[at[other]][1] <= seen.get(other, 0)
                ):
                    at[other] += 1
                if at[other] < len(others):
                    found = found or others[at[other]][2].get(actor, 0) < end
            count += found
    return count


def own_environment() -> None:
    """Let child processes find the same packages, wherever we were started."""
    root = str(Path(__file__).parent.parent.parent)
    paths = os.environ.get("PYTHONPATH", "")
    if root not in paths.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, paths)))
