"""Somebody outside says who may lead: an engine that is asked, hangs, or talks nonsense."""

# pyright: reportPrivateUsage=false

import asyncio
import time
from typing import Any

import pytest

from syncengine import (
    LeaderFollowerManager,
    NotLeader,
    PromotionFailed,
    StaleRead,
    StoreFull,
)
from syncengine.storage.pipeline.memory import MemoryPipeline
from syncengine.storage.store import Writes
from tests.syncengine.replication.test_leader_follower import (
    FAST,
    Cluster,
    cluster,
    until,
)

__all__ = ["cluster"]


class Engine:
    """Compare and swap, and a time, for those it knows by name."""

    def __init__(self, holds: Any = 0.5) -> None:
        self.term, self.holds = 0, holds
        self.holder, self.ends = "", 0.0
        self.away: set[str] = set()
        self.hangs = False
        self.slow = 0.0
        """For how many seconds each answer takes more"""
        self.gives: Any = None

    def __call__(self, node: str) -> "Asked":
        return Asked(self, node)

    async def reached(self, node: str) -> float:
        if self.hangs:
            await asyncio.Event().wait()
        if node in self.away:
            raise OSError("not reached")
        return time.monotonic()


class Asked:
    """An engine, as one node reaches it."""

    def __init__(self, engine: Engine, node: str):
        self.engine, self.node = engine, node

    async def acquire(self, expected_term: int) -> int:
        engine, now = self.engine, await self.engine.reached(self.node)
        if now < engine.ends and engine.holder != self.node:
            raise OSError(f"{engine.holder} holds it")
        engine.term = max(engine.term, expected_term) + 1
        engine.holder, engine.ends = self.node, now + 0.5
        await asyncio.sleep(engine.slow)
        return engine.term if engine.gives is None else engine.gives

    async def renew(self, term: int) -> float:
        engine, now = self.engine, await self.engine.reached(self.node)
        if (engine.holder, engine.term) != (self.node, term) or now >= engine.ends:
            raise OSError("it is not yours")
        engine.ends = now + (engine.holds if isinstance(engine.holds, float) else 0.5)
        holds: float = engine.holds
        return holds

    async def release(self, term: int) -> None:
        engine, now = self.engine, await self.engine.reached(self.node)
        if (engine.holder, engine.term) == (self.node, term):
            engine.ends = now
        await asyncio.sleep(engine.slow)


async def both(cluster: Cluster, engine: Engine) -> list[LeaderFollowerManager]:
    await cluster.join(2)
    await cluster.mesh()
    nodes = await cluster.start(lease=engine)
    await until(lambda: nodes[1].leader_id)
    return nodes


async def test_a_lease_decides_where_there_is_one(cluster: Cluster) -> None:
    engine = Engine()
    leader, follower = await both(cluster, engine)
    await asyncio.sleep(0.8)  # it is renewed
    assert leader.get_role() == "leader"
    with pytest.raises(PromotionFailed, match="leader-1 holds it"):
        await follower.promote(timeout_ms=300)
    assert (await leader.write("k", 1)).term == engine.term
    engine.away = {"leader-1", "follower-1"}
    await until(lambda: leader.get_role() == "follower")
    with pytest.raises(PromotionFailed, match="lease is not ours"):
        await follower.promote(timeout_ms=300)
    engine.away.clear()
    await asyncio.sleep(0.2)  # the engine counts a little longer
    await follower.promote()
    assert (await follower.write("k", 2)).success


async def test_who_hands_over_gives_the_lease_to_whoever_takes_over(
    cluster: Cluster,
) -> None:
    """He held it on, while the other one asked for it."""
    engine = Engine(holds=30.0)
    leader, follower = await both(cluster, engine)
    await leader.write("k", 1)
    await leader.demote(handoff=True)
    assert (follower.get_role(), follower.term) == ("leader", engine.term)
    assert engine.holder == "follower-1"
    assert await follower.read("k", "strong") == 1
    assert (await leader.write("k", 2)).error_code == "NOT_LEADER"


async def test_who_finds_nobody_to_hand_over_to_leads_on(cluster: Cluster) -> None:
    engine = Engine(holds=30.0)
    leader, _ = await both(cluster, engine)
    await leader.write("k", 1)
    engine.away.add("follower-1")
    with pytest.raises(PromotionFailed, match="this node leads on"):
        await leader.demote(handoff=True, timeout_ms=500)
    assert (await leader.write("k", 2)).success
    assert engine.holder == "leader-1"


@pytest.mark.parametrize("leaves", ["closes", "is demoted"])
async def test_who_leaves_gives_the_lease_back(cluster: Cluster, leaves: str) -> None:
    engine = Engine(holds=30.0)
    leader, follower = await both(cluster, engine)
    await (leader.close() if leaves == "closes" else leader.demote(handoff=False))
    await follower.promote(timeout_ms=1_000)
    assert engine.holder == "follower-1"


async def test_an_engine_that_hangs_holds_up_nobody_who_leaves(
    cluster: Cluster,
) -> None:
    engine = Engine(holds=30.0)
    leader, _ = await both(cluster, engine)
    engine.hangs = True
    async with asyncio.timeout(2):
        await leader.close()


async def test_who_led_follows_while_another_one_holds_the_lease(
    cluster: Cluster,
) -> None:
    """It started as nothing at all, and what it had to tell nobody heard."""
    engine = Engine()
    leader, follower = await both(cluster, engine)
    await leader.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1])
    await cluster.part(0)
    await leader.close()
    await follower.promote()
    again = LeaderFollowerManager(
        *("again", "leader", None, cluster.replicas[0], "tenant-abc"),
        lease=engine("again"),
        **FAST,
    )
    async with again:
        assert again.get_role() == "follower"
        assert await again.read("k") == 1
        cluster.heal()
        await until(lambda: again.leader_id == "follower-1")


async def voting(cluster: Cluster, engine: Engine) -> list[LeaderFollowerManager]:
    """Three voters, and an engine; the first leads."""
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3, lease=engine)
    await until(lambda: nodes[0].get_role() == "leader")
    await until(lambda: len({node.term for node in nodes}) == 1)
    return nodes


async def test_who_is_promoted_leads_when_that_returns(cluster: Cluster) -> None:
    """Asked well, it waited for the engine, and was told that it leads."""
    engine = Engine()
    one, two, _ = await voting(cluster, engine)
    with pytest.raises(PromotionFailed, match="leader-1 holds it"):
        await two.promote(timeout_ms=500)
    await one.demote(handoff=False)
    engine.slow = 0.2
    await two.promote()
    assert two.get_role() == "leader"


async def test_who_is_closed_while_it_stands_does_not_lead(cluster: Cluster) -> None:
    engine = Engine(holds=30.0)
    leader, follower = await both(cluster, engine)
    await leader.demote(handoff=False)
    engine.slow = 0.2
    standing = asyncio.create_task(follower.promote())
    await asyncio.sleep(0.05)
    space = follower._space
    await follower.close()
    await asyncio.gather(standing, return_exceptions=True)
    assert space.engine.leadership.leading is None
    assert engine.ends <= time.monotonic(), "nobody would get it for a while"
    with pytest.raises(NotLeader):
        async with space.transaction():
            pass


async def test_a_write_that_waited_past_the_lease_is_none(cluster: Cluster) -> None:
    """It was acknowledged, and in the rescue area."""
    engine = Engine()
    leader, follower = await both(cluster, engine)
    space = leader._space

    async def long() -> None:
        async with space.transaction() as tx:
            tx["note/1"]["text"] = "long"
            await asyncio.sleep(1)

    working = asyncio.create_task(long())
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(leader.write("k", "too late"))
    await asyncio.sleep(0.05)
    engine.away.add("leader-1")
    await asyncio.sleep(0.6)
    await follower.promote()
    assert (await follower.write("k", "of the new one")).success
    assert not (await waiting).success
    await working
    await until(lambda: leader.leader_id == "follower-1")
    await until(lambda: cluster.applied()[0] == cluster.applied()[1])
    assert await leader.read("k") == "of the new one"


async def test_while_it_hands_over_nothing_is_written_in_the_old_term(
    cluster: Cluster,
) -> None:
    engine = Engine(holds=30.0)
    leader, follower = await both(cluster, engine)
    await leader.write("k", 1)
    await until(lambda: leader.get_follower_lag("follower-1") == 0)
    engine.slow = 0.3
    engine.away.add("follower-1")
    handing = asyncio.create_task(leader.demote(handoff=True, timeout_ms=250))
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(leader.write("k", 2))
    await asyncio.sleep(0.1)
    engine.holder, engine.ends = "somebody", time.monotonic() + 30
    with pytest.raises(PromotionFailed, match="nobody leads now"):
        await handing
    assert not (await waiting).success
    assert leader.get_role() == follower.get_role() == "follower"


async def test_who_is_cancelled_while_it_hands_over_leads_on(cluster: Cluster) -> None:
    engine = Engine(holds=30.0)
    leader, _ = await both(cluster, engine)
    await leader.write("k", 1)
    engine.away.add("follower-1")
    handing = asyncio.create_task(leader.demote(handoff=True))
    await asyncio.sleep(0.2)
    handing.cancel()
    await asyncio.gather(handing, return_exceptions=True)
    await until(lambda: leader.get_role() == "leader")
    assert (await leader.write("k", 2)).success


async def test_who_does_not_get_the_lease_anew_leads_on_by_the_old_one(
    cluster: Cluster,
) -> None:
    """It ended its term first, and then asked."""
    engine = Engine(holds=30.0)
    one, _, _ = await voting(cluster, engine)
    await until(lambda: len(one.get_connected_followers()) == 2)
    engine.away.add("leader-1")
    with pytest.raises(PromotionFailed, match="not reached"):
        await one.remove_voter(cluster.replicas[2].id, timeout_ms=500)
    with pytest.raises(PromotionFailed, match="not reached"):
        await one.promote(
            require="i_accept_loss",
            reason="test",
            without=[cluster.replicas[2].id],
            timeout_ms=500,
        )
    assert one.get_role() == "leader"
    assert (await one.write("k", 1)).success
    assert len(one.get_voters()) == 3


async def test_a_candidate_that_is_not_elected_gives_the_lease_back(
    cluster: Cluster,
) -> None:
    engine = Engine(holds=30.0)
    one, two, three = await voting(cluster, engine)
    await one.demote(handoff=False)
    take = two._election._take_lease

    async def cut(by: float) -> int | None:
        number = await take(by)
        await cluster.part(1)
        return number

    two._election._take_lease = cut  # type: ignore[method-assign]
    with pytest.raises(PromotionFailed):
        await two.promote(timeout_ms=500)
    await until(lambda: engine.ends <= time.monotonic())
    await three.promote()
    assert three.get_role() == "leader"


async def test_no_read_is_fresh_where_the_lease_has_ended(cluster: Cluster) -> None:
    engine = Engine(holds=30.0)
    leader, _ = await both(cluster, engine)
    await leader.write("k", 1)
    assert await leader.read("k", "bounded", max_staleness_ms=1) == 1
    cluster.clocks[0].off_ms = 60_000
    assert leader.is_stale()
    with pytest.raises(StaleRead):
        await leader.read("k", "bounded", max_staleness_ms=30_000)
    with pytest.raises(NotLeader):
        async with leader._space.transaction():
            pass


async def test_a_promotion_ends_in_its_time_though_the_engine_hangs(
    cluster: Cluster,
) -> None:
    engine = Engine()
    await cluster.join(2)
    await cluster.mesh()
    _, follower = await cluster.start(lease=engine, heartbeat_timeout_ms=20_000)
    await until(lambda: follower.leader_id)
    engine.hangs = True
    async with asyncio.timeout(5):
        with pytest.raises(PromotionFailed, match="did not answer"):
            await follower.promote(timeout_ms=200)


async def test_masters_need_no_lease(cluster: Cluster) -> None:
    engine = Engine(holds=30.0)
    leader, _ = await both(cluster, engine)
    await leader.switch_to_masters()
    assert engine.ends <= time.monotonic()


async def test_after_a_full_disk_a_leader_without_its_lease_follows(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked for the lease at each step, and took no other one."""
    engine = Engine(holds=30.0)
    leader, follower = await both(cluster, engine)
    roles: list[Any] = []
    leader.on("roleChanged", lambda event: roles.append(event.role))

    async def full(writes: Writes) -> None:
        raise StoreFull("no space")

    engine.away.add("leader-1")
    with monkeypatch.context() as patch:
        patch.setattr(cluster.replicas[0].store, "commit", full)
        assert not (await leader.write("k", 1)).success
    await until(lambda: roles == ["follower"])
    engine.ends = 0.0
    await follower.promote()
    await until(lambda: leader.leader_id == "follower-1")


async def test_a_start_that_fails_leaves_nothing_behind(cluster: Cluster) -> None:
    class Held:
        async def acquire(self, expected_term: int) -> int:
            raise OSError("held")

        async def renew(self, term: int) -> float:
            return 0

        async def release(self, term: int) -> None:
            raise OSError("held")

    await cluster.join(1)
    node = LeaderFollowerManager(
        *("n", "leader", MemoryPipeline(4), cluster.replicas[0], "tenant-abc"),
        lease=Held(),
        **FAST,
    )
    space = await cluster.replicas[0].namespace("tenant-abc")
    engine = space.engine
    before = engine.feeds, len(engine.on_terms), len(asyncio.all_tasks())
    with pytest.raises(PromotionFailed, match="held"):
        await node.start()
    await asyncio.sleep(0.05)
    assert (engine.feeds, len(engine.on_terms), len(asyncio.all_tasks())) == before
    assert engine.notices.listeners == []
    await node.close()


async def test_a_lease_that_is_not_answered_ends(cluster: Cluster) -> None:
    engine = Engine()
    leader, follower = await both(cluster, engine)
    assert (await leader.write("k", 1)).success
    engine.hangs = True
    await until(lambda: leader.get_role() == "follower", seconds=2)
    assert (await leader.write("k", 2)).error_code == "NOT_LEADER"
    with pytest.raises(PromotionFailed, match="did not answer"):
        await follower.promote(timeout_ms=1_000)
    engine.hangs = False
    await follower.promote()
    assert (await follower.write("k", 3)).success


async def test_who_slept_past_its_lease_writes_and_confirms_nothing(
    cluster: Cluster,
) -> None:
    """The loop's clock may have stood still meanwhile: the wall's has not."""
    await cluster.join(1)
    (leader,) = await cluster.start(lease=Engine(holds=30))
    assert (await leader.write("k", 1)).success
    cluster.clocks[0].off_ms = 60_000
    assert (await leader.write("k", 2)).error_code == "NOT_LEADER"
    with pytest.raises(NotLeader):
        await leader.read("k", "strong")


@pytest.mark.parametrize("number", [2**40, 1.5, 2**70, "3", 0, -5, True])
async def test_a_nonsensical_term_harms_nobody(cluster: Cluster, number: Any) -> None:
    engine = Engine()
    leader, follower = await both(cluster, engine)
    engine.away.add("leader-1")
    await until(lambda: leader.get_role() == "follower")
    await asyncio.sleep(0.2)  # the engine counts a little longer
    engine.gives = number
    with pytest.raises(PromotionFailed, match="above"):
        await follower.promote(timeout_ms=500)
    engine.gives = None
    await follower.promote()
    assert (await follower.write("k", 1)).success
    await until(lambda: leader.leader_id == "follower-1")


@pytest.mark.parametrize("holds", [None, "x", float("nan"), -1, float("inf")])
async def test_a_nonsensical_lease_is_none(cluster: Cluster, holds: Any) -> None:
    engine = Engine()
    await cluster.join(1)
    (leader,) = await cluster.start(lease=engine)
    engine.holds = holds
    await until(lambda: leader.get_role() == "follower", seconds=2)
    with pytest.raises(PromotionFailed, match="not ours"):
        await leader.promote(timeout_ms=500)
