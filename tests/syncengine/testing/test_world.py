"""The simulated world: it repeats, its dead stay dead, its disks lose what they may."""

import asyncio
import random
from typing import Any

import pytest

from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.testing import World, assert_converged, simulate
from syncengine.testing.disk import SimDisk
from syncengine.testing.loop import VirtualLoop
from syncengine.testing.story import standard
from syncengine.testing.world import run_seed


def test_time_jumps_to_the_next_timer() -> None:
    loop = VirtualLoop(0)

    async def main() -> float:
        await asyncio.sleep(86_400)
        return loop.time()

    assert loop.run(main) == 86_400


def test_a_deadlock_is_an_error_and_not_a_hang() -> None:
    loop = VirtualLoop(0)
    with pytest.raises(RuntimeError, match="deadlock"):
        loop.run(lambda: asyncio.Event().wait())


def test_one_seed_is_one_world() -> None:
    one, two = run_seed(standard, 3), run_seed(standard, 3)

    assert one.error is None
    assert one.report == two.report
    assert one.report.trace != run_seed(standard, 4).report.trace


def test_the_dead_run_no_finally() -> None:
    ran: list[str] = []

    async def story(world: World) -> None:
        node = await world.replica("a")

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                ran.append("finally")

        node.run(work())
        await asyncio.sleep(1)
        node.crash()
        await asyncio.sleep(100)

    simulate(story, seeds=1)
    assert ran == []


def put(key: str) -> Writes:
    writes = Writes()
    writes.add(sql.PUT_META, key, 1)
    return writes


@pytest.mark.parametrize(("level", "kept"), [("FULL", True), ("NORMAL", False)])
def test_power_loss_takes_what_was_not_synced(level: str, kept: bool) -> None:
    disk = SimDisk(bytes(32), random.Random(0))
    disk.store.commit_now(put("first"))
    disk.committed()
    disk.store.connection.execute(f"PRAGMA synchronous={level}")
    for key in ("second", "third"):
        disk.store.commit_now(put(key))
        disk.committed()
    disk.power_loss()

    keys = {key for (key,) in disk.store.read("SELECT key FROM _sync_meta")}
    assert ("third" in keys) is kept


def test_an_applications_own_story() -> None:
    """What a user writes: a world, machines, a fault, and convergence."""

    async def story(world: World) -> None:
        hub = await world.hub()
        a = await world.replica("a")
        assert a.replica is not None
        await a.wait(a.replica.namespace("home"))
        await a.connect(hub)
        b = await world.replica("b")
        invite = await a.wait(a.space.invite("write"))
        assert b.replica is not None
        await b.wait(b.replica.join(str(invite)))
        await b.connect(hub)
        await b.wait(write(b.space))
        world.network.part("a", "hub")
        await asyncio.sleep(30)
        world.network.heal()
        await assert_converged(world)

    async def write(space: Any) -> None:
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "hello"

    (report,) = simulate(story, seeds=1)
    assert report.virtual_seconds > 30
