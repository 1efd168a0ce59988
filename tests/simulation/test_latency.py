"""What a write waits for in each mode, on a network with a known delay."""

import asyncio
from typing import Any

from syncengine.replication.leader_follower import LeaderFollowerManager
from syncengine.replication.multi_master import MultiMasterManager
from syncengine.testing import Node, World, simulate
from syncengine.testing.network import Weather

# One way, between a machine and the hub, on the average: its disk takes 50 ms at most.
DELAY = 0.5
TWO_WAYS_OVER_THE_HUB = 4 * DELAY


async def members(world: World, name: str) -> list[Node]:
    """Three machines in one namespace, linked through a hub."""
    world.network.weather = Weather(delay_mean=DELAY, cut_mean=1e9)
    hub = await world.hub()
    nodes = [await world.replica(f"{name}{number}") for number in range(3)]
    first = nodes[0].replica
    assert first is not None
    space = await nodes[0].wait(first.namespace("home"))
    invite = str(await nodes[0].wait(space.invite("lead", uses=2)))
    for node in nodes[1:]:
        assert node.replica is not None
        await node.wait(node.replica.join(invite, name="home"))
    for node in nodes:
        await node.connect(hub)
        assert node.link is not None
        await node.wait(node.link.synced())
    return nodes


async def took(world: World, node: Node, work: Any) -> float:
    began = world.loop.now
    await node.wait(work)
    return world.loop.now - began


async def one_that_leads(managers: list[LeaderFollowerManager]) -> int:
    while True:
        await asyncio.sleep(1)
        for number, manager in enumerate(managers):
            if manager.get_role() == "leader" and manager.is_leader_healthy():
                return number


async def led(world: World) -> None:
    nodes = await members(world, "n")
    voters = [node.replica.id for node in nodes if node.replica is not None]
    managers = [
        LeaderFollowerManager(
            node.name,
            "leader" if node is nodes[0] else "follower",
            None,
            node.space,
            "home",
            heartbeat_interval_ms=1_000,
            heartbeat_timeout_ms=60_000,
            voters=voters if node is nodes[0] else [],
        )
        for node in nodes
    ]
    for node, manager in zip(nodes, managers, strict=True):
        await node.wait(manager.start())
    led_by = await one_that_leads(managers)
    writes: list[float] = []
    for number in range(9):
        began = world.loop.now
        work = managers[led_by].write("k", {"n": number}, timeout_ms=60_000)
        result = await nodes[led_by].wait(work)
        assert result.success, result
        writes.append(world.loop.now - began)
    reads = [
        await took(world, node, m.read("k"))
        for node, m in zip(nodes, managers, strict=True)
    ]
    assert sorted(writes)[4] > TWO_WAYS_OVER_THE_HUB / 2, writes
    assert max(reads) < DELAY / 4, reads
    for node, manager in zip(nodes, managers, strict=True):
        await node.wait(manager.close())


async def mastered(world: World) -> None:
    nodes = await members(world, "n")
    managers = [MultiMasterManager(node.name, None, node.space) for node in nodes]
    for node, manager in zip(nodes, managers, strict=True):
        await node.wait(manager.subscribe())
    began = world.loop.now
    writes = [
        await took(world, nodes[0], managers[0].write("k", {"n": n})) for n in range(9)
    ]
    assert max(writes) < DELAY / 4, writes
    # The others have it a way later, not at once.
    while (
        seen := await nodes[1].wait(managers[1].get_entity("k"))
    ) is None:  # the moment is what is measured
        await asyncio.sleep(0.01)
    assert world.loop.now - began > DELAY / 4, seen
    reads = [await took(world, nodes[1], managers[1].get_entity("k"))]
    assert max(reads) < DELAY / 4, reads
    for node, manager in zip(nodes, managers, strict=True):
        await node.wait(manager.close())


def test_a_led_write_takes_a_round_trip_and_a_masters_none() -> None:
    for story in (led, mastered):
        simulate(story, seeds=3)
