"""Reads go where they are fresh, and a session sees what it has seen."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import syncengine
from clients import ReadRouter, RegionRouter, SessionConsistentClient
from syncengine import (
    Closed,
    HistoryDiverged,
    Invalid,
    MemoryPipeline,
    MultiMasterManager,
    NotFound,
    NotLeader,
    StaleRead,
)
from tests.syncengine.replication.test_leader_follower import Cluster, until


@pytest.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    """One that leads, without voters, and two that follow."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        cluster = Cluster(stack)
        await cluster.join(3)
        await cluster.mesh()
        await cluster.start()
        await cluster.nodes[0].write("k", 0)
        await until(lambda: cluster.applied() == [1, 1, 1])
        await until(lambda: not any(node.is_stale() for node in cluster.nodes))
        yield cluster


async def test_reads_go_around_the_followers(cluster: Cluster) -> None:
    leader, *followers = cluster.nodes
    router = ReadRouter(leader, followers)

    asked = [router.next_node() for _ in range(4)]
    assert asked == [*followers, *followers]
    assert router.round_robin_index == 4
    assert await router.read("k") == 0
    assert router.next_node(prefer_fresh=True) is leader
    assert await router.read("k", prefer_fresh=True) == 0


async def test_who_is_stale_is_passed_over(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    router = ReadRouter(leader, [one, two])
    for node in cluster.nodes:
        node._max_staleness_ms = 100  # pyright: ignore[reportPrivateUsage]

    await cluster.part(1)
    await until(one.is_stale)
    assert [router.next_node() for _ in range(3)] == [two] * 3
    await cluster.part(2)
    await until(two.is_stale)
    assert router.next_node() is leader


async def test_who_was_promoted_is_the_leader(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    router = ReadRouter(leader, [one, two])
    await one.promote()
    await until(lambda: leader.get_role() == "follower")
    await until(lambda: not any(node.is_stale() for node in cluster.nodes))

    assert router.present_leader is one
    assert router.next_node(prefer_fresh=True) is one
    assert {router.next_node() for _ in range(2)} == {leader, two}


async def test_a_session_reads_what_it_wrote(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    client = SessionConsistentClient(leader, [one, two])
    for number in range(30):
        result = await client.write("k", number)
        assert result.success
        assert await client.read("k") == number
    assert client.last_write_sequence == 31


async def test_a_session_reads_from_a_follower_that_has_it(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    client = SessionConsistentClient(leader, [one, two])
    await client.write("k", 1)
    await until(lambda: cluster.applied() == [2, 2, 2])
    served = {(await client.read_result("k")).served_by for _ in range(4)}
    assert served == {"follower-1", "follower-2"}

    await cluster.part(1)
    await client.write("k", 2)
    await until(lambda: cluster.applied() == [3, 2, 3])
    served = {(await client.read_result("k")).served_by for _ in range(4)}
    assert served == {"follower-2"}


async def test_reads_never_go_back(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    await cluster.part(2)
    await leader.write("k", 1)
    await until(lambda: cluster.applied()[:2] == [2, 2])
    client = SessionConsistentClient(one, [], timeout_ms=50)

    assert await client.read("k") == 1
    other = SessionConsistentClient(two, [], token=client.token, timeout_ms=50)
    with pytest.raises(StaleRead):
        await other.read("k")
    loose = SessionConsistentClient(
        two, [], token=client.token, guarantees=["monotonic_writes"]
    )
    assert await loose.read("k") == 0
    cluster.heal()
    await until(lambda: cluster.applied() == [2, 2, 2])
    assert await other.read("k") == 1


async def test_a_session_goes_on_in_another_process(cluster: Cluster) -> None:
    leader, one, _ = cluster.nodes
    first = SessionConsistentClient(leader, [one])
    await first.write("k", 7)
    second = SessionConsistentClient(one, [], token=first.token)

    assert await second.read("k") == 7
    with pytest.raises(Invalid, match="no session token"):
        SessionConsistentClient(leader, token="x")
    with pytest.raises(Invalid, match="no guarantee"):
        SessionConsistentClient(leader, guarantees=["linearizable"])  # type: ignore[list-item]


async def test_a_session_learns_that_what_it_saw_was_taken_back(
    cluster: Cluster,
) -> None:
    leader, one, two = cluster.nodes
    await cluster.part(0)
    client = SessionConsistentClient(leader, [one, two], timeout_ms=200)
    await client.write("k", "lost")
    await one.promote(require="i_accept_loss", reason="test")
    await one.write("k", "kept")
    cluster.heal()
    await until(lambda: leader.get_role() == "follower")
    await until(lambda: [node.term for node in cluster.nodes] == [2, 2, 2])
    await until(lambda: cluster.applied() == [2, 2, 2])

    with pytest.raises(HistoryDiverged):
        await client.read("k")
    with pytest.raises(HistoryDiverged):
        await client.write("k", "more")
    client.forget()
    assert await client.read("k") == "kept"


async def test_a_user_is_served_by_the_master_of_his_region() -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        pipeline = MemoryPipeline(4)
        replicas = [
            await stack.enter_async_context(syncengine.open(":memory:"))
            for _ in range(2)
        ]
        space = await replicas[0].namespace("home")
        other = await replicas[1].join(await space.invite("write"), name="home")
        masters: dict[str, MultiMasterManager] = {}
        for region, one in (("us-east", space), ("eu-west", other)):
            master = MultiMasterManager(f"master-{region}", pipeline, one)
            masters[region] = await stack.enter_async_context(master)
        region_of: Any = {"alice": "us-east", "bob": "eu-west", "eve": "ap-south"}.get
        router = RegionRouter(masters, region_of, {"ap-south": ["eu-west"]})

        result = await router.write("customer-1", {"name": "Alice"}, user="alice")
        assert result.master_id == "master-us-east"
        assert router.master_of("eve").get_master_id() == "master-eu-west"
        token = masters["us-east"].session_token()
        found = await router.get_entity("customer-1", user="bob", token=token)
        assert found is not None
        assert found.data == {"name": "Alice"}
        await masters["eu-west"].close()
        assert router.master_of("bob") is masters["us-east"]
        await masters["us-east"].close()
        with pytest.raises(NotFound, match="no master serves"):
            router.master_of("bob")
        with pytest.raises(Invalid):
            RegionRouter({}, region_of)


async def test_who_was_closed_is_asked_no_more(cluster: Cluster) -> None:
    """The guide's way of removing a follower."""
    leader, one, two = cluster.nodes
    router = ReadRouter(leader, [one, two])
    await one.close()
    assert [await router.read("k") for _ in range(4)] == [0] * 4
    await cluster.replicas[2].close()
    assert two.is_closed
    assert [await router.read("k") for _ in range(4)] == [0] * 4
    await leader.close()
    with pytest.raises(Closed):
        await router.read("k")


async def test_what_is_to_be_fresh_is_not_asked_of_who_leads_no_more(
    cluster: Cluster,
) -> None:
    leader, *followers = cluster.nodes
    router = ReadRouter(leader, followers)
    await leader.demote(handoff=False)
    with pytest.raises(NotLeader, match="fresh"):
        await router.read("k", prefer_fresh=True)
    assert await router.read("k") == 0


async def test_a_session_writes_on_when_its_leader_was_closed(cluster: Cluster) -> None:
    leader, one, two = cluster.nodes
    session = SessionConsistentClient(leader, [one, two])
    assert (await session.write("k", 1)).success
    await until(lambda: one._space.engine.applied_index == 2)  # pyright: ignore[reportPrivateUsage]
    await leader.close()
    await one.promote()
    assert (await session.write("k", 2)).success
    assert await session.read("k") == 2


async def test_a_master_whose_replica_was_closed_serves_nobody() -> None:
    async with syncengine.open(":memory:") as one:
        two = await syncengine.open(":memory:")
        space = await one.namespace("home")
        near = MultiMasterManager("eu", None, await two.namespace("home"))
        far = MultiMasterManager("usa", None, space)
        router = RegionRouter({"eu": near, "usa": far}, region_of=str)
        assert router.master_of("eu") is near
        await two.close()
        assert router.master_of("eu") is far
        assert (await router.write("c", 1, user="eu")).success
