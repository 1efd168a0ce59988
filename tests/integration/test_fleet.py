"""A fleet of real processes, run from the command line, and killed in the middle."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import syncengine
import transport
from syncengine.ids import parse_namespace_id, partition_of
from tests.processes import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
COMMAND = [sys.executable, "-m", "syncengine"]


class Fleet:
    """Hub processes, and an operator who has a file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hubs: dict[str, subprocess.Popen[str]] = {}
        self.addresses: dict[str, str] = {}
        self.id: str = self.run("new", "--partitions", "16")["fleet"]

    def run(self, *args: str, code: int = 0) -> Any:
        """Run a command of the operator's; return what it printed."""
        done = subprocess.run(
            [*COMMAND, "--json", "--db", "op.db", "fleet", *args],
            cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return json.loads(done.stdout.splitlines()[0])

    def start(self, name: str) -> str:
        """Start a hub where it was before; return its address."""
        port = self.addresses.get(name, "ws://x:0/").split(":")[2].split("/")[0]
        hub = subprocess.Popen(
            [*COMMAND, "--json", "hub", "--data", f"{name}.db", "--keep-moved", "0s",
             "--listen", f"127.0.0.1:{port}", "--fleet", self.id],
            cwd=self.folder, env=ENVIRONMENT, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert hub.stdout is not None
        self.addresses[name] = json.loads(hub.stdout.readline())["address"]
        self.hubs[name] = hub
        return self.addresses[name]

    def kill(self, name: str) -> None:
        hub = self.hubs.pop(name)
        hub.send_signal(signal.SIGKILL)
        hub.wait(10)
        assert hub.stdout is not None
        hub.stdout.close()

    def hub_id(self, name: str) -> str:
        return self.addresses[name].split("#")[1].split(".")[0]

    def status(self) -> dict[str, dict[str, Any]]:
        said = self.run("status")
        return {hub["hub"]: hub for hub in said["hubs"]}

    async def settled(self, namespaces: int) -> dict[str, dict[str, Any]]:
        """Wait until each namespace is in one place, and nothing is to move."""
        async with asyncio.timeout(60):
            while True:
                status = await asyncio.to_thread(self.status)
                hubs = status.values()
                if sum(hub["namespaces"] for hub in hubs) == namespaces and not any(
                    hub["moving"] or hub["kept"] for hub in hubs
                ):
                    return status
                await asyncio.sleep(0.2)


@contextmanager
def fleet(folder: Path, *names: str) -> Generator[Fleet]:
    made = Fleet(folder)
    try:
        for name in names:
            made.run("add", made.start(name))
        yield made
    finally:
        for name in list(made.hubs):
            made.kill(name)


async def test_the_operator_runs_it_from_the_command_line(tmp_path: Path) -> None:
    with fleet(tmp_path, "a", "b") as here:
        a, b = here.hub_id("a"), here.hub_id("b")
        async with syncengine.open(tmp_path / "ann.db") as ann:
            for number in range(10):
                space = await ann.namespace(f"team {number}")
                async with space.transaction() as tx:
                    tx["note/1"]["body"] = "x" * 1000
            async with (
                asyncio.timeout(20),
                transport.connect(ann, here.addresses["a"]) as link,
            ):
                await link.synced()
        status = await here.settled(10)
        assert all(hub["namespaces"] for hub in status.values())
        assert all(len(hub["partitions"]) == 8 for hub in status.values())

        moved = status[b]["partitions"][0]
        told = here.run("move", str(moved), a[:6])
        assert (told["moved"], told["hubs"], told["told"]) == (
            [moved],
            {a: 9, b: 7},
            True,
        )
        assert here.run("balance")["hubs"] == {a: 8, b: 8}
        assert set(here.run("balance", "--by-bytes")["hubs"]) == {a, b}
        assert len(here.run("remove", b)["hubs"]) == 1
        status = await here.settled(10)
        assert set(status) == {a}
        # It may be switched off.
        assert here.run("status")["former"] == {b: {"namespaces": 0, "moving": 0}}


async def test_bad_input_and_absent_hubs_decide_nothing(tmp_path: Path) -> None:
    with fleet(tmp_path, "a", "b") as here:
        before = here.run("status")["placement"]
        gone = here.addresses["b"].replace("127.0.0.1", "127.0.0.2")
        assert "no hub" in here.run("move", "0", "zzz", code=3)["message"]
        here.run("move", "16", here.hub_id("a"), code=2)
        here.run("add", "ws://127.0.0.1:1", code=2)
        here.run("add", gone, code=6)
        here.run("add", here.addresses["b"], "--weight", "0", code=2)
        here.run("new", code=2)
        assert here.run("status")["placement"] == before

        here.kill("b")
        status = here.run("status", "--timeout", "1", code=6)
        assert [hub["answered"] for hub in status["hubs"]].count(False) == 1
        here.run("balance", "--by-bytes", code=6)
        here.kill("a")
        told = here.run("move", "3", here.hub_id("a"), code=6)
        assert told["told"] is False


async def test_whoever_is_killed_in_the_middle_of_a_move_loses_nothing(
    tmp_path: Path,
) -> None:
    many = 12
    with fleet(tmp_path, "a") as here:
        bob = await syncengine.open(tmp_path / "bob.db")
        async with syncengine.open(tmp_path / "ann.db") as ann:
            for number in range(many):
                space = await ann.namespace(f"team {number}")
                await bob.join(await space.invite("write"), name=f"team {number}")
                for note in range(40):
                    async with space.transaction(wait=False) as tx:
                        tx[f"note/{note}"]["body"] = f"{number}/{note} " * 2_000
            async with (
                asyncio.timeout(60),
                transport.connect(ann, here.addresses["a"]) as link,
            ):
                await link.synced()
        # Nobody who wrote it is there any more: the hubs have the only copies.
        here.run("add", here.start("b"))
        for name in ("a", "b", "a", "b", "a"):
            await asyncio.sleep(0.15)
            here.kill(name)
            here.start(name)
        here.run("status")
        status = await here.settled(many)
        assert len([hub for hub in status.values() if hub["namespaces"]]) == 2
        async with (
            asyncio.timeout(60),
            transport.connect(bob, here.addresses["b"]) as link,
        ):
            await link.synced()
        for number in range(many):
            space = await bob.namespace(f"team {number}", create=False)
            for note in range(40):
                page = await space.get(f"note/{note}")
                assert str(page["body"]).startswith(f"{number}/{note} ")
        await bob.close()


async def test_a_led_namespace_moves_while_its_leader_writes(tmp_path: Path) -> None:
    with fleet(tmp_path, "a", "b") as here:
        async with (
            syncengine.open(tmp_path / "one.db") as one,
            syncengine.open(tmp_path / "two.db") as two,
        ):
            space = await one.namespace("ledger")
            theirs = await two.join(await space.invite("lead"), name="ledger")
            managers = [
                syncengine.LeaderFollowerManager(name, role, None, at, "ledger")
                for name, role, at in (
                    ("one", syncengine.ReplicationRole.LEADER, space),
                    ("two", syncengine.ReplicationRole.FOLLOWER, theirs),
                )
            ]
            async with (
                transport.connect(one, here.addresses["a"]) as link,
                transport.connect(two, here.addresses["b"]),
                managers[0] as leader,
                managers[1] as follower,
            ):
                await link.connected()
                written = 0
                partition = partition_of(parse_namespace_id(space.id), 16)
                for name in ("a", "b", "a"):
                    here.run("move", str(partition), here.hub_id(name))
                    for _ in range(20):
                        written += 1
                        result = await leader.write(
                            f"n{written}", {"n": written}, level=1
                        )
                        assert result.success
                async with asyncio.timeout(20):
                    while not (await follower.read(f"n{written}")):
                        await asyncio.sleep(0.05)


@pytest.mark.parametrize("wrong", ["no fleet", "aaaa"])
def test_a_hub_says_what_is_no_fleet(tmp_path: Path, wrong: str) -> None:
    done = subprocess.run(
        [*COMMAND, "hub", "--data", "h.db", "--fleet", wrong],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
        timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "namespace's id" in done.stderr
