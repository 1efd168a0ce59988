"""A namespace is switched between many masters and one leader while all are at work."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from syncengine import (
    HistoryDiverged,
    Invalid,
    MultiMasterManager,
    NotLeader,
    OutcomeUnknown,
    Refused,
    Space,
)
from syncengine.clock import hlc_from_ms
from tests.syncengine.replication.test_leader_follower import Cluster, until


@pytest.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        yield Cluster(stack)


async def spaces_of(cluster: Cluster) -> list[Space]:
    return [await r.namespace("tenant-abc") for r in cluster.replicas]


async def write(space: Space, key: str, value: object) -> None:
    async with space.transaction() as tx:
        tx[f"entry/{key}"]["value"] = value


async def shown(space: Space, key: str) -> object:
    document = await space.get(f"entry/{key}", default=None)
    return None if document is None else document.get("value")


async def test_what_all_wrote_stands_and_from_then_on_one_writes(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    one, two, three = spaces = await spaces_of(cluster)
    for number, space in enumerate(spaces):
        await write(space, f"k{number}", number)
    await until(lambda: all(len(s.engine.version) == 3 for s in spaces))
    await cluster.part(2)
    await write(three, "late", "unheard of")

    assert one.mode == "multi-master"
    await one.switch_mode("leader-follower", voters=[r.id for r in cluster.replicas])
    nodes = await cluster.start()
    await until(lambda: cluster.leaders)
    await cluster.leaders[0].write("k0", "led")
    cluster.heal()
    await until(lambda: all(node.leader_id for node in nodes))
    await until(lambda: cluster.applied() == [1, 1, 1])
    assert [space.mode for space in spaces] == ["leader-follower"] * 3
    for space in spaces:
        assert [await shown(space, f"k{n}") for n in range(3)] == ["led", 1, 2]
        assert await shown(space, "late") is None
    with pytest.raises(NotLeader):
        await write(next(s for s, n in zip(spaces, nodes, strict=True)
                         if n not in cluster.leaders), "k", 1)  # fmt: skip
    (rescued,) = await cluster.leaders[0].rescue.list()
    assert (rescued.documents, rescued.leader_id) == (("entry/late",), None)
    assert await cluster.leaders[0].rescue.replay() == [rescued.id]
    await until(lambda: cluster.applied() == [2, 2, 2])
    assert await shown(two, "late") == "unheard of"


async def test_all_write_again_and_what_the_leaders_wrote_stands(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    for number in range(5):
        await nodes[0].write("k", number)
    one, two, three = spaces = await spaces_of(cluster)
    with pytest.raises(NotLeader):
        await nodes[1].switch_to_masters()

    await nodes[0].switch_to_masters()
    await until(lambda: all(space.mode == "multi-master" for space in spaces))
    assert cluster.leaders == []
    assert [await shown(space, "k") for space in spaces] == [4, 4, 4]
    for number, space in enumerate(spaces):
        await write(space, f"m{number}", number)
    await until(lambda: len(three.engine.version) >= 3)

    async def is_all_there() -> bool:
        seen = [await shown(s, f"m{n}") for s in spaces for n in range(3)]
        return seen == [0, 1, 2] * 3

    while not await is_all_there():  # nobody tells of it
        await asyncio.sleep(0.01)
    assert await two.rescue.list() == []
    await one.switch_mode("leader-follower", voters=[r.id for r in cluster.replicas])
    await until(lambda: cluster.leaders)
    result = await cluster.leaders[0].write("k", "again")
    assert (result.success, result.sequence) == (True, 1)


async def test_a_switch_that_no_majority_heard_of_takes_nothing_from_them(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", 1)
    await until(lambda: cluster.applied() == [1, 1, 1])
    one, *_ = spaces = await spaces_of(cluster)

    election = nodes[0]._election
    original = election.count_of_mode
    election.count_of_mode = lambda mode, voters: 1  # type: ignore[method-assign]
    asked = asyncio.create_task(nodes[0].switch_to_masters(timeout_ms=3_000))
    while one.mode != "multi-master":
        await asyncio.sleep(0)
    await cluster.part(0)
    with pytest.raises(OutcomeUnknown):
        await asked
    election.count_of_mode = original  # type: ignore[method-assign]
    heard = [space.mode == "multi-master" for space in spaces[1:]]
    if any(heard):
        return  # it went out before they were parted: nothing to see this time
    await write(one, "island", 1)
    await until(lambda: cluster.leaders)
    acknowledged = await cluster.leaders[0].write("k", 2)
    assert acknowledged.success
    cluster.heal()
    await until(lambda: cluster.applied() == [2, 2, 2])
    assert [space.mode for space in spaces] == ["leader-follower"] * 3
    assert [await shown(space, "k") for space in spaces] == [2, 2, 2]
    (rescued,) = await cluster.leaders[0].rescue.list()
    assert rescued.documents == ("entry/island",)


async def test_only_who_may_switches(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    one, other = await spaces_of(cluster)

    with pytest.raises(Refused, match="only an owner"):
        await other.switch_mode("leader-follower")
    with pytest.raises(Invalid, match="a mode is"):
        await one.switch_mode("anarchy")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="voters"):
        await one.switch_mode("multi-master", voters=[cluster.replicas[0].id])
    await one.switch_mode("leader-follower", voters=[r.id for r in cluster.replicas])
    with pytest.raises(Refused, match="the leader switches"):
        await one.switch_mode("multi-master")


async def test_a_master_says_that_one_leads_now(cluster: Cluster) -> None:
    await cluster.join(2)
    one, _ = await spaces_of(cluster)
    async with MultiMasterManager("master", None, one) as master:
        assert (await master.write("e", 1)).success
        await one.switch_mode("leader-follower")
        refused = await master.write("e", 2)
        assert (refused.success, refused.error_code) == (False, "FOLLOWER_READ_ONLY")
        await one.switch_mode("multi-master")
        assert (await master.write("e", 3)).success


async def test_what_was_written_before_a_switch_is_not_written_again_after_it(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3, heartbeat_timeout_ms=1_500)  # one leads on
    await until(lambda: nodes[0].get_role() == "leader")
    first = await nodes[0].write("k", 1, client_op_id="once")
    await nodes[0].switch_to_masters()
    spaces = await spaces_of(cluster)
    ids = [replica.id for replica in cluster.replicas]
    await spaces[0].switch_mode("leader-follower", voters=ids)
    await until(lambda: cluster.leaders)
    leader = cluster.leaders[0]
    await leader.write("other", 1)

    again = await leader.write("k", 2, client_op_id="once")
    assert (again.status, again.sequence) == ("ok", None), "its log was ended"
    assert await leader.read("k", "strong") == 1
    assert first.token is not None
    assert again.token is not None
    # The token is of the present log, which goes on from the other one.
    for node in nodes:
        assert await node.read("k", token=again.token) == 1
        with pytest.raises(HistoryDiverged):
            await node.read("k", token=first.token)


async def test_who_stops_leading_while_it_switches_says_so(cluster: Cluster) -> None:
    """It was an assertion that failed: seed 166 of `switched`."""
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    engine = nodes[0]._space.engine
    flush = engine.flush

    async def overtaken() -> None:
        engine.flush = flush  # type: ignore[method-assign]  # as it was
        await engine.end_term()

    engine.flush = overtaken  # type: ignore[method-assign,assignment]  # it takes long
    with pytest.raises(NotLeader):
        await nodes[0].switch_to_masters()
    assert nodes[0]._space.mode == "leader-follower"


async def test_what_a_leader_goes_on_from_waits_for_no_clock(cluster: Cluster) -> None:
    """Seeds 317 and 450 of `switched`: a master's clock was ahead, and what came after
    it in the log of leaders waited on who was elected next."""
    await cluster.join(3)
    await cluster.mesh()
    one, two, three = spaces = await spaces_of(cluster)
    await write(one, "k", 0)
    await until(lambda: all(len(s.engine.version) == 1 for s in spaces))
    ahead = 600_000
    two.engine.clock.observe(hlc_from_ms(two.engine.clock.now_ms() + ahead))
    await write(two, "k", "ahead")
    await until(lambda: two.engine.pending_count() == 0)
    await until(lambda: three.engine.delivery.waiting_count == 1)
    assert await shown(three, "k") == 0

    await one.switch_mode("leader-follower", voters=[r.id for r in cluster.replicas])
    while await shown(three, "k") != "ahead":
        await asyncio.sleep(0.01)
    assert three.engine.delivery.blocked_until_ms() is None
