"""What reads promise: strong, bounded, of a session, or as it is here."""

# pyright: reportPrivateUsage=false

import asyncio
from typing import Any

import pytest

from syncengine import Invalid, NotLeader, StaleRead, StoreFull
from syncengine.storage.store import Writes
from tests.syncengine.replication.test_leader_follower import (
    Cluster,
    cluster,
    pair,
    three,
    until,
)

__all__ = ["cluster", "pair", "three"]


async def test_strong_reads_are_the_leaders(three: Cluster) -> None:
    leader, follower, _ = three.nodes
    await leader.write("k", 1)

    read = await leader.read_result("k", "strong")
    assert (read.value, read.sequence, read.served_by) == (1, 1, "leader-1")
    assert read.staleness_ms == 0
    with pytest.raises(NotLeader):
        await follower.read("k", "strong")
    await three.part(0)
    with pytest.raises((StaleRead, NotLeader)):
        await leader.read("k", "strong", timeout_ms=600)


async def test_a_bounded_read_is_not_older(pair: Cluster) -> None:
    leader, follower = pair.nodes
    await leader.write("k", 1)
    await until(lambda: pair.applied() == [1, 1])
    await until(lambda: not follower.is_stale())
    assert await follower.read("k", "bounded", max_staleness_ms=5_000) == 1

    await pair.part(0)
    await until(lambda: (follower.staleness_ms() or 0) > 100)
    with pytest.raises(StaleRead) as stale:
        await follower.read("k", "bounded", max_staleness_ms=100)
    assert stale.value.have == 1
    assert await follower.read("k") == 1


async def test_a_follower_knows_of_no_staleness_before_it_heard_a_beat(
    cluster: Cluster,
) -> None:
    await cluster.join(2)
    _, follower = await cluster.start()

    assert follower.staleness_ms() is None
    assert follower.is_stale()
    with pytest.raises(StaleRead):
        await follower.read("k", "bounded")


async def test_a_session_sees_what_it_wrote(pair: Cluster) -> None:
    leader, follower = pair.nodes
    written = await leader.write("k", 1)
    assert await follower.read("k", token=written.token) == 1

    await pair.part(0)
    later = await leader.write("k", 2)
    with pytest.raises(StaleRead):
        await follower.read("k", token=later.token, timeout_ms=50)
    waiting = asyncio.create_task(follower.read("k", token=later.token))
    pair.heal()
    assert await waiting == 2
    with pytest.raises(Invalid, match="no session token"):
        await follower.read("k", token="nonsense")


async def test_a_token_of_another_namespace_is_refused_at_once(pair: Cluster) -> None:
    written = await pair.nodes[0].write("k", 1)
    assert written.named is not None
    foreign = written.named._replace(namespace8=b"another!").encode()
    for node in pair.nodes:
        with pytest.raises(Invalid, match="another namespace"):
            await node.read("k", token=foreign)
        with pytest.raises(Invalid, match="another namespace"):
            await node.caught_up_to(foreign)


async def test_reads_go_on_while_the_disk_is_full(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown ahead of a commit that failed is not what a session reads."""
    leader, store = pair.nodes[0], pair.replicas[0].store
    first = await leader.write("k", 1)

    async def full(writes: Writes) -> None:
        await asyncio.sleep(0.05)
        raise StoreFull("no space")

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", full)
        writing = asyncio.create_task(leader.write("k", 2))
        await until(lambda: leader._space.engine.newest_index > (first.sequence or 0))
        strong = asyncio.create_task(leader.read_result("k", "strong"))
        read = await leader.read_result("k", token=first.token)
        with pytest.raises(NotLeader):
            await strong
        assert (await writing).status == "failed"
    assert (read.value, read.token) == (1, first.token)


async def test_a_leader_that_nobody_reaches_reads_nothing_as_fresh(
    cluster: Cluster,
) -> None:
    """Another one may have been promoted, and written."""
    await cluster.join(3)
    await cluster.mesh()
    one, two, _ = await cluster.start(
        voters=3, heartbeat_interval_ms=50, heartbeat_timeout_ms=3_000
    )
    await until(lambda: one.get_role() == "leader")
    await one.write("k", "old")
    assert await one.read("k", "bounded", max_staleness_ms=2_000) == "old"
    await cluster.part(0)
    await two.promote()
    assert (await two.write("k", "new")).success
    await asyncio.sleep(0.5)
    assert one.get_role() == "leader"
    with pytest.raises(StaleRead):
        await one.read("k", "bounded", max_staleness_ms=300)
    assert (one.staleness_ms() or 0) > 300


async def test_a_strong_read_as_a_term_begins_is_answered(three: Cluster) -> None:
    """It waited for a beat that was never told: the beats were counted anew."""
    one, two, _ = three.nodes
    await one.write("k", 1)
    await asyncio.sleep(0.5)  # beats are counted
    engine, flush, reads = two._space.engine, two._space.engine.flush, list[Any]()

    def flushed() -> Any:
        if engine.leadership.leading is not None and not reads:
            reads.append(asyncio.ensure_future(two.read("k", "strong")))
        return flush()

    engine.flush = flushed  # type: ignore[method-assign]
    await two.promote()
    await until(lambda: reads)
    async with asyncio.timeout(3):
        assert await asyncio.gather(*reads) == [1]
