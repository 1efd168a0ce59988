"""One leads and all read: what was acknowledged stays, whoever leads next."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import syncengine
from syncengine import (
    LeaderFollowerManager,
    NotLeader,
    Replica,
)
from syncengine.replication.link import Link
from tests.wires import Wire

FAST: dict[str, Any] = {"heartbeat_interval_ms": 20, "heartbeat_timeout_ms": 300}


async def until(so: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not so():  # many things may make it so
            await asyncio.sleep(0.005)


class Cluster:
    """Nodes of one namespace, all linked to the first one's replica or to a hub."""

    def __init__(self, stack: contextlib.AsyncExitStack):
        self.stack = stack
        self.replicas: list[Replica] = []
        self.wires: list[Wire] = []
        self.links: list[Link] = []
        self.nodes: list[LeaderFollowerManager] = []

    async def join(self, count: int, ops: str = "lead") -> None:
        for _ in range(count):
            replica = await self.stack.enter_async_context(syncengine.open(":memory:"))
            self.replicas.append(replica)
        space = await self.replicas[0].namespace("tenant-abc")
        invite = await space.invite(ops, uses=count)
        for replica in self.replicas[1:]:
            await replica.join(invite, name="tenant-abc")

    async def mesh(self) -> None:
        """Link each with each."""
        for index, host in enumerate(self.replicas):
            for other in self.replicas[index + 1 :]:
                wire = Wire(host)
                self.wires.append(wire)
                link = await self.stack.enter_async_context(wire.link(other))
                self.links.append(link)

    async def start(
        self, *, voters: int = 0, pipeline: Any = None, **options: Any
    ) -> list[LeaderFollowerManager]:
        ids = [replica.id for replica in self.replicas[:voters]]
        for index, replica in enumerate(self.replicas):
            role = "follower" if index else "leader"
            name = f"{role}-{index or 1}"
            node = LeaderFollowerManager(
                name, role, pipeline, replica, "tenant-abc",  # type: ignore[arg-type]
                voters=() if index else ids, **{**FAST, **options},
            )  # fmt: skip
            await self.stack.enter_async_context(node)
            self.nodes.append(node)
        return self.nodes

    def cut(self, index: int) -> None:
        """Let nobody reach a node any more."""
        raise NotImplementedError


@pytest.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        yield Cluster(stack)


async def test_a_leader_writes_and_followers_read(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    leader, follower = await cluster.start()

    one = await leader.write(
        "customer-123", {"name": "Alice", "email": "alice@example.com"}, "create"
    )
    two = await leader.write("customer-456", {"name": "Bob"})
    gone = await leader.write("customer-456", operation="delete")
    assert one.success
    assert [one.sequence, two.sequence, gone.sequence] == [1, 2, 3]
    await until(lambda: (s := follower.get_follower_state()) and s.applied_sequence > 2)

    value = await follower.read("customer-123")
    assert value == {"name": "Alice", "email": "alice@example.com"}
    assert await follower.read("customer-456") is None


async def test_a_follower_refuses_writes_and_says_who_leads(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    _, follower = await cluster.start()
    await until(lambda: follower.leader_id)

    result = await follower.write("customer-456", {"name": "Bob"}, "create")

    assert not result.success
    assert result.error == "Follower is read-only. Redirect to leader."
    assert result.error_code == "FOLLOWER_READ_ONLY"
    assert result.leader_id == "leader-1"
    space = await cluster.replicas[1].namespace("tenant-abc")
    with pytest.raises(NotLeader) as refused:
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "beside"
    assert refused.value.leader_id == "leader-1"


async def test_three_voters_elect_another_when_the_leader_is_gone(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    written = await nodes[0].write("k", 1)
    assert (written.success, written.level) == (True, "majority")
    failed: list[Any] = []
    nodes[1].on("leaderFailed", failed.append)

    await nodes[0].close()
    await until(lambda: any(n.get_role() == "leader" for n in nodes[1:]))

    (leader,) = [n for n in nodes[1:] if n.get_role() == "leader"]
    assert await leader.read("k", "strong") == 1
    again = await leader.write("k", 2)
    assert (again.success, again.sequence) == (True, 2)
    assert [event.leader_id for event in failed] in (["leader-1"], [])
