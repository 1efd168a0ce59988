"""Masters as processes of their own, on real files and sockets: added, parted, killed,
recovered and removed, as the guide's procedures have it."""

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
from tests.integration.test_leaders import Proxy
from tests.processes import ROOT, findings

# The command, on a machine whose clock is off by so many hours.
DRIFTED = """
import runpy, sys, time
right, off = time.time_ns, int(sys.argv.pop(1)) * 3_600 * 10**9
time.time_ns = lambda: right() + off
runpy.run_module("syncengine", run_name="__main__")
"""


class Masters:
    """A hub, and masters that dial it through a proxy each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.proxies: dict[str, Proxy] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.hub = ""
        self.port = 0
        self._readers: list[asyncio.Task[None]] = []

    def db(self, name: str) -> str:
        return str(self.folder / f"{name}.db")

    async def spawn(
        self, *words: str, hours_off: int = 0
    ) -> asyncio.subprocess.Process:
        program = ("-c", DRIFTED, str(hours_off)) if hours_off else ("-m", "syncengine")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "--json"),
            *words,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def run(self, name: str, *words: str, code: int = 0) -> Any:
        process = await self.spawn("--db", self.db(name), *words)
        out, _ = await process.communicate()
        assert process.returncode == code, (words, out)
        return json.loads(out)

    async def start_hub(self) -> None:
        """Start the hub, at the port where it was before."""
        listen = f"127.0.0.1:{self.port}"
        hub = await self.spawn("hub", "--data", self.db("hub"), "--listen", listen)
        self.processes["hub"] = hub
        assert hub.stdout is not None
        self.hub = json.loads(await hub.stdout.readline())["address"]
        self.port = int(self.hub.split(":")[2].split("/")[0])

    async def found(self) -> None:
        await self.start_hub()
        await self.run("usa", "init", "shop")
        await self.start("usa")

    async def start(
        self, name: str, strategy: str = "manual", *, hours_off: int = 0
    ) -> None:
        proxy = self.proxies.get(name)
        if proxy is None:
            proxy = self.proxies[name] = Proxy()
            await proxy.start()
            proxy.target = self.port
        where = self.hub.replace(f":{self.port}/", f":{proxy.port}/")
        process = await self.spawn(
            *("--db", self.db(name), "master", name, "--strategy", strategy),
            *("--peer", where),
            hours_off=hours_off,
        )
        self.processes[name] = process
        assert process.stdout is not None
        told = self.told[name] = []
        while json.loads(await process.stdout.readline()).get("event") != "started":
            pass
        self._readers.append(asyncio.create_task(self._read(process, told)))

    async def _read(self, process: Any, told: list[dict[str, Any]]) -> None:
        while line := await process.stdout.readline():
            told.append(json.loads(line))

    async def add(self, name: str, **options: Any) -> None:
        """Let a new one join, by an invite of the first."""
        invite = await self.do(
            "usa", "invite", ops="write", uses=1, expires=600, hub=self.hub
        )
        await self.run(name, "join", invite, "--name", "shop")
        await self.start(name, **options)

    async def do(self, name: str, do: str, **options: Any) -> Any:
        async with asyncio.timeout(20):
            return await control.ask(self.db(name), {"do": do, **options})

    async def write(self, name: str, key: str, value: Any) -> Any:
        return await self.do(
            name, "write", key=key, value=value, operation="update", client_op_id=None
        )

    async def shown(self, name: str, key: str) -> Any:
        found = await self.do(name, "read", key=key, consistency="any")
        return found["value"]

    async def until(self, so: Callable[[], Any], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if await so():
                        return
                except (SyncError, TypeError):  # it starts, or is gone
                    pass
                await asyncio.sleep(0.05)

    async def show(self, key: str, value: Any, *names: str) -> None:
        """Wait until all of these show it."""
        for name in names:

            async def so(name: str = name) -> bool:
                return bool(await self.shown(name, key) == value)

            await self.until(so)

    async def end(self, name: str, number: signal.Signals) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return await process.wait()

    async def stop(self) -> None:
        for name in list(self.processes):
            await self.end(name, signal.SIGKILL)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for proxy in self.proxies.values():
            await proxy.stop()


@pytest.fixture
async def masters(tmp_path: Path) -> AsyncGenerator[Masters]:
    made = Masters(tmp_path)
    try:
        async with asyncio.timeout(120):
            await made.found()
            yield made
    finally:
        await made.stop()


async def test_a_master_is_added_killed_recovered_and_removed(masters: Masters) -> None:
    for number in range(20):
        assert (await masters.write("usa", f"c{number}", number))["success"]
    await masters.add("eu")  # it catches up with what was before
    await masters.show("c19", 19, "eu")

    async def announced() -> bool:
        presence = await masters.shown("usa", "_cluster:eu")
        return bool(presence["status"] == "online")

    await masters.until(announced)
    assert (await masters.write("eu", "theirs", 1))["success"]
    await masters.show("theirs", 1, "usa")

    # Killed, it goes on where it was, with what the others wrote since.
    await masters.end("eu", signal.SIGKILL)
    await masters.write("usa", "meanwhile", 1)
    await masters.start("eu")
    await masters.show("meanwhile", 1, "eu")
    assert await masters.shown("eu", "theirs") == 1

    # Asked to stop it says goodbye, and waits until somebody has all that it wrote.
    for number in range(50):
        await masters.write("eu", f"last{number}", number)
    assert await masters.end("eu", signal.SIGTERM) == 0
    await masters.show("last49", 49, "usa")
    assert (await masters.shown("usa", "_cluster:eu"))["status"] == "leaving"


async def test_masters_that_are_parted_write_on_and_somebody_decides(
    masters: Masters,
) -> None:
    await masters.add("eu")
    await masters.write("usa", "cart", ["milk"])
    await masters.show("cart", ["milk"], "eu")

    masters.proxies["eu"].open = False
    for turn in range(3):
        await masters.write("usa", "cart", ["milk", "tea", turn])
        await masters.write("eu", "cart", ["milk", "eggs", turn])
    await masters.write("eu", "only-there", 1)
    assert await masters.shown("usa", "only-there") is None
    masters.proxies["eu"].open = True
    for writer in list(masters.proxies["eu"]._writers):  # pyright: ignore[reportPrivateUsage]
        writer.close()  # what was lost on the way is noticed
    await masters.show("only-there", 1, "usa")

    async def asks() -> bool:
        return "cart" in (await masters.do("usa", "peers"))["pending"]

    await masters.until(asks)
    told = await masters.do("usa", "peers")
    assert told["metrics"]["conflicts_detected"] >= 1
    assert told["hot_entities"][0][0] == "cart"
    assert any(event["event"] == "conflictDetected" for event in masters.told["usa"])

    shown = await masters.run("usa", "conflicts", "show", "cart")
    found = sorted(version["data"][1] for version in shown["versions"])
    assert found == ["eggs", "tea"]
    decided = ["milk", "tea", "eggs"]
    await masters.run(
        *("usa", "conflicts", "resolve", "cart", json.dumps(decided)),
        *("--conflict", shown["id"]),
    )
    await masters.show("cart", decided, "usa", "eu")
    for name in ("usa", "eu"):

        async def quiet(name: str = name) -> bool:
            return not (await masters.do(name, "peers"))["pending"]

        await masters.until(quiet)
    await masters.run("usa", "peers")


async def test_a_storm_of_conflicts_ends_in_one_state_and_is_found(
    masters: Masters,
) -> None:
    names = ("usa", "eu", "asia")
    for name in names[1:]:
        await masters.add(name, strategy="lww")

    async def storm(name: str) -> None:
        for turn in range(30):
            await masters.write(name, "hot", {"by": name, "turn": turn})

    await asyncio.gather(*(storm(name) for name in names))
    for name in names:
        await masters.write(name, f"done:{name}", 1)
    for name in names:
        await masters.show(f"done:{name}", 1, *names)
    shown = [await masters.shown(name, "hot") for name in names]
    assert shown == [shown[0]] * 3
    told = [await masters.do(name, "peers") for name in names]
    assert all(one["hot_entities"][0][0] == "hot" for one in told)
    assert all(one["conflict_rate"] > 0 for one in told)
    versions = [one["vector_clock"] for one in told]
    await asyncio.sleep(1)
    told = [await masters.do(name, "peers") for name in names]
    assert [one["vector_clock"] for one in told] == versions, "somebody writes on"
    assert [await masters.shown(name, "hot") for name in names] == shown


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_wrong_clock_wins_nothing_and_holds_up_nothing(
    masters: Masters, hours: int
) -> None:
    await masters.add("eu", strategy="lww", hours_off=hours)
    assert (await masters.write("usa", "k", "first"))["success"]
    await masters.show("k", "first", "eu")
    assert (await masters.write("eu", "k", "second"))["success"]
    await masters.show("k", "second", "usa")
    found = await masters.do("usa", "read", key="k", consistency="any")
    assert abs(found["updated_at"] - time.time() * 1000) < 60_000
    assert (await masters.write("usa", "k", "third"))["success"]
    await masters.show("k", "third", "eu")


async def test_a_hub_put_back_from_an_old_backup_gets_all_again(
    masters: Masters,
) -> None:
    """What it had acknowledged meanwhile is with those who wrote it."""
    await masters.add("eu")
    await masters.write("usa", "before", 1)
    await masters.show("before", 1, "eu")
    await masters.end("hub", signal.SIGTERM)
    old = masters.folder / "backup"
    old.mkdir()
    for path in masters.folder.glob("hub.db*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, old / path.name)
    await masters.start_hub()

    for number in range(20):
        await masters.write("usa", f"after{number}", number)
        await masters.write("eu", f"theirs{number}", number)
    await masters.show("after19", 19, "eu")
    await masters.show("theirs19", 19, "usa")
    await masters.end("hub", signal.SIGKILL)
    for path in masters.folder.glob("hub.db*"):
        if not path.is_dir():  # its folder, with its key, is not in a backup
            path.unlink()
    shutil.copy(old / "hub.db", masters.folder / "hub.db")
    await masters.start_hub()

    # Whoever comes now knows the hub alone.
    await masters.write("eu", "last", 1)
    await masters.show("last", 1, "usa")
    await masters.add("asia")
    for number in range(20):
        await masters.show(f"after{number}", number, "asia")
        await masters.show(f"theirs{number}", number, "asia")


async def test_a_file_copied_to_a_second_machine_loses_nothing_of_either(
    masters: Masters,
) -> None:
    """Both are at work at once, with one key and one log, and do not reach each other:
    when they meet, one goes on under another name."""
    await masters.add("eu")
    await masters.write("usa", "shared", 1)
    await masters.show("shared", 1, "eu")
    await masters.end("usa", signal.SIGTERM)
    for path in masters.folder.glob("usa.db*"):
        target = masters.folder / path.name.replace("usa", "copy")
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)

    await masters.start("usa")
    masters.proxies["copy"] = proxy = Proxy()
    await proxy.start()
    proxy.target, proxy.open = masters.port, False
    await masters.start("copy")
    for number in range(20):
        await masters.write("usa", f"usa{number}", number)
        await masters.write("copy", f"copy{number}", number)
    await masters.show("usa19", 19, "eu")
    await masters.end("usa", signal.SIGKILL)
    proxy.open = True
    for number in range(20):
        await masters.show(f"usa{number}", number, "copy", "eu")
        await masters.show(f"copy{number}", number, "copy", "eu")
    await masters.write("eu", "end", 1)
    await masters.end("copy", signal.SIGTERM)
    await masters.start("usa")
    await masters.show("end", 1, "usa")
    await masters.show("copy19", 19, "usa")
    for name in ("usa", "eu"):
        await masters.end(name, signal.SIGTERM)
    for name in ("usa", "copy", "eu"):
        assert not await findings(masters.folder / f"{name}.db")
