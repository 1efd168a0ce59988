"""What applications, disks and engines outside do to leaders: nothing is lost."""

# pyright: reportPrivateUsage=false

import asyncio
from typing import Any

import pytest

from syncengine import (
    Invalid,
    LeaderFollowerManager,
    NotLeader,
    PromotionFailed,
    StoreError,
    StoreFull,
    TransactionOpen,
)
from syncengine.storage.store import Writes
from tests.syncengine.replication.test_leader_follower import (
    FAST,
    Cluster,
    cluster,
    pair,
    three,
    until,
)

__all__ = ["cluster", "pair", "three"]


# --- what is given ----------------------------------------------------------------


@pytest.mark.parametrize("name", [b"x", 7, "", "\udcff", 1.5])
async def test_an_operation_id_is_text_or_nothing_is_written(
    pair: Cluster, name: Any
) -> None:
    leader = pair.nodes[0]
    good = asyncio.gather(*(leader.write(f"k{n}", n) for n in range(5)))
    with pytest.raises(Invalid, match="op"):
        await leader.write("k", 1, client_op_id=name)
    with pytest.raises(Invalid, match="operation"):
        leader._space.transaction(name)

    assert all(result.success for result in await good)
    assert await leader.read("k") is None


@pytest.mark.parametrize("key", [{"key": "k", "value": 1}, None, 5, b"k"])
async def test_a_key_is_text(pair: Cluster, key: Any) -> None:
    with pytest.raises(Invalid, match="key"):
        await pair.nodes[0].write(key, 1)
    with pytest.raises(Invalid, match="key"):
        await pair.nodes[0].read(key)


# --- handing over -----------------------------------------------------------------


@pytest.mark.parametrize("voters", [0, 3])
async def test_transactions_wait_while_a_leader_hands_over(
    cluster: Cluster, voters: int
) -> None:
    """Each is in the log of the next leader, or was refused; none is in rescue."""
    await cluster.join(3)
    await cluster.mesh()
    leader = (await cluster.start(voters=voters))[0]
    await until(lambda: len(leader.get_connected_followers()) == 2)
    space, committed = leader._space, list[int]()

    async def write(start: int) -> None:
        for number in range(start, 100_000, 4):
            try:
                async with space.transaction() as tx:
                    tx[f"note/{number}"]["n"] = number
            except NotLeader:
                return
            committed.append(number)

    writers = [asyncio.create_task(write(start)) for start in range(4)]
    await until(lambda: len(committed) > 20)
    await leader.demote()
    await asyncio.gather(*writers)

    await until(lambda: len(cluster.leaders) == 1)
    assert cluster.leaders != [leader]
    assert not await leader.rescue.list(decided=True)
    there = cluster.leaders[0]._space
    assert [
        n for n in committed if await there.get(f"note/{n}", default=None) is None
    ] == []


# --- disks ------------------------------------------------------------------------


async def test_a_leader_without_voters_leads_on_after_a_full_disk(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, store = pair.nodes[0], pair.replicas[0].store
    await leader.write("k", 1)

    async def full(writes: Writes) -> None:
        raise StoreFull("no space")

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", full)
        result = await leader.write("k", 2)
        assert (result.status, result.error_code) == ("failed", "STORE_FAILED")
    await until(lambda: leader.get_role() == "leader")
    assert (await leader.write("k", 3)).success
    await until(lambda: pair.applied()[1] == pair.applied()[0])
    assert await pair.nodes[1].read("k") == 3


async def test_an_error_at_commit_is_unknown(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may have it, and in this test it has."""
    leader, store = pair.nodes[0], pair.replicas[0].store
    commit = store.commit

    async def broken(writes: Writes) -> None:
        await commit(writes)
        raise StoreError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", broken)
        result = await leader.write("k", 2, client_op_id="once")
    assert (result.status, result.error_code) == ("unknown", "STORE_FAILED")
    assert not result.success
    await until(lambda: leader.get_role() == "leader")
    assert (await leader.write("k", 2, client_op_id="once")).success
    assert await leader.read("k") == 2


# --- handlers ---------------------------------------------------------------------


async def test_a_handler_that_hangs_does_not_keep_failures_from_being_told(
    pair: Cluster,
) -> None:
    follower, told = pair.nodes[1], list[object]()

    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    follower.on("eventApplied", hang)
    follower.on("leaderFailed", told.append)
    await pair.nodes[0].write("k", 1)
    await until(lambda: pair.applied()[1] == 1)
    await pair.part(0)
    await until(lambda: told)
    async with asyncio.timeout(5):
        await follower.close()


async def test_a_handler_that_awaits_what_is_cancelled_fails_as_others_do(
    pair: Cluster,
) -> None:
    follower, told = pair.nodes[1], list[int]()

    async def careless(event: Any) -> None:
        task = asyncio.ensure_future(asyncio.sleep(1))
        task.cancel()
        told.append(event.sequence)
        await task

    follower.on("eventApplied", careless)
    for number in range(3):
        await pair.nodes[0].write("k", number)
    await until(lambda: told == [1, 2, 3])


async def test_events_are_told_from_where_one_says_and_not_before(
    pair: Cluster,
) -> None:
    leader, follower = pair.nodes
    for number in range(5):
        await leader.write("k", number)
    await until(lambda: pair.applied()[1] == 5)
    await follower.close()
    told: list[int] = []
    again = LeaderFollowerManager(
        "again", "follower", None, pair.replicas[1], "tenant-abc",
        last_applied_sequence=7, **FAST,
    )  # fmt: skip
    again.on("eventApplied", lambda event: told.append(event.sequence))
    async with again:
        for number in range(5):
            await leader.write("k", number)
        await until(lambda: told[-1:] == [10])
    assert told == [8, 9, 10]


async def test_a_log_that_begins_anew_is_told_from_its_beginning(
    pair: Cluster,
) -> None:
    leader, follower = pair.nodes
    told: list[tuple[int, Any]] = []
    for number in range(3):
        await leader.write("k", number)
    await until(lambda: pair.applied()[1] == 3)
    follower.on("eventApplied", lambda e: told.append((e.sequence, e.change.id)))
    await pair.part(1)
    await leader.switch_to_masters()
    await leader._space.switch_mode("leader-follower")
    await leader.promote()
    for number in range(5):
        assert (await leader.write("k", number)).success
    pair.heal()
    await until(lambda: pair.applied()[1] == 5)
    await until(lambda: [sequence for sequence, _ in told] == [1, 2, 3, 4, 5])


# --- voters -----------------------------------------------------------------------


async def test_who_may_not_lead_does_not_vote(cluster: Cluster) -> None:
    await cluster.join(3)
    reader = await cluster.reader()
    await cluster.mesh()
    leader = (await cluster.start(voters=3))[0]
    await until(lambda: len(leader.get_connected_followers()) == 3)
    with pytest.raises(PromotionFailed, match="may not"):
        await leader.add_voter(reader.id)
    assert len(leader.get_voters()) == 3


async def test_a_leader_that_removes_itself_leads_no_more(three: Cluster) -> None:
    leader = three.nodes[0]
    await leader.write("k", 1)
    await leader.remove_voter(three.replicas[0].id)
    assert leader.get_role() == "follower"
    await until(lambda: three.leaders)
    assert three.leaders[0].get_role() == "leader"
    assert (await three.leaders[0].write("k", 2)).success
    assert len(three.leaders[0].get_voters()) == 2


async def test_first_voters_are_members_each_once(cluster: Cluster) -> None:
    await cluster.join(2)
    me, other = (replica.id for replica in cluster.replicas)
    for voters in ([me, other, me], [me] * 16):
        manager = LeaderFollowerManager(
            "x", "leader", None, cluster.replicas[0], "tenant-abc", voters=voters
        )
        with pytest.raises(Invalid, match="voters"):
            await manager.start()
    assert cluster.replicas[0].spaces()[0].mode == "multi-master"


async def test_a_reason_fits_into_the_log(pair: Cluster) -> None:
    for reason in ("x" * 5_000, "\udcff", 7):
        with pytest.raises(Invalid, match="reason"):
            await pair.nodes[1].promote(require="i_accept_loss", reason=reason)  # type: ignore[arg-type]


# --- a bus outside ----------------------------------------------------------------


async def test_a_heartbeat_service_that_fails_keeps_nobody_from_leading(
    cluster: Cluster,
) -> None:
    class Bus:
        def send(self, raw: bytes) -> None:
            raise OSError("the bus is down")

        def listen(self, heard: Any) -> None:
            for junk in (None, 5, "text", b"", b"\xff" * 40):
                heard(junk)

    await cluster.join(3)
    await cluster.mesh()
    await cluster.start(voters=3, heartbeat_service=Bus())
    await until(lambda: cluster.leaders)
    assert (await cluster.leaders[0].write("k", 1)).success


# --- inside one's own transaction -------------------------------------------------


async def test_what_would_wait_for_its_own_transaction_is_refused(
    pair: Cluster,
) -> None:
    leader = pair.nodes[0]
    space = leader._space
    async with asyncio.timeout(5), space.transaction() as tx:
        tx["note/1"]["n"] = 1
        for what in (
            leader.write("k", 1),
            leader.close(),
            leader.demote(),
            leader.promote(),
            leader.add_voter(pair.replicas[1].id),
            leader.switch_to_masters(),
            leader.rescue.list(),
            leader.rescue.export(),
            leader.rescue.dismiss([]),
        ):
            with pytest.raises(TransactionOpen):
                await what
    assert (await leader.write("k", 1)).success


async def test_a_follower_that_is_to_begin_anew_is_cleared(pair: Cluster) -> None:
    """The guide's `follower.state_store.clear()`."""
    follower = pair.nodes[1]
    await pair.nodes[0].write("k", 1)
    await until(lambda: pair.applied()[1] == 1)
    store: Any = follower.state_store
    await follower.close()
    await store.clear(lose_unsent=True)
    assert follower.is_closed
    assert pair.replicas[1].spaces() == []


# --- the end ----------------------------------------------------------------------


async def test_who_cancels_a_close_closes_all_the_same(pair: Cluster) -> None:
    leader = pair.nodes[0]
    space = leader._space
    async with space.transaction() as tx:
        tx["note/1"]["text"] = "open"
        closing = asyncio.create_task(_closed(leader))
        await asyncio.sleep(0.05)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    await leader.close()
    assert space.engine.leadership.leading is None
    assert (space.engine.feeds, space.engine.notices.listeners) == (0, [])


async def _closed(leader: LeaderFollowerManager) -> None:
    await leader.close()


async def test_a_start_that_is_cancelled_leads_nothing(cluster: Cluster) -> None:
    await cluster.join(1)
    space = await cluster.replicas[0].namespace("tenant-abc")
    node = LeaderFollowerManager("n", "leader", None, space, "tenant-abc")
    engine = space.engine
    starting = asyncio.create_task(node.start())
    flush = engine.flush

    def flushed() -> Any:
        if engine.leadership.leading is not None:
            starting.cancel()
        return flush()

    engine.flush = flushed  # type: ignore[method-assign]
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled()
    assert engine.leadership.leading is None
    await node.close()


async def test_a_handler_may_close_its_manager(pair: Cluster) -> None:
    follower = pair.nodes[1]
    ended = asyncio.Event()

    async def end(event: Any) -> None:
        await follower.close()
        await asyncio.sleep(0.05)
        ended.set()

    follower.on("eventApplied", end)
    await pair.nodes[0].write("k", 1)
    async with asyncio.timeout(5):
        await ended.wait()
        await asyncio.wait(follower._telling)


async def test_a_write_behind_an_open_transaction_ends_in_its_time(
    pair: Cluster,
) -> None:
    leader = pair.nodes[0]
    opened, end = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        async with leader._space.transaction() as tx:
            tx["note/1"]["text"] = "long"
            opened.set()
            await end.wait()

    working = asyncio.create_task(long())
    await opened.wait()
    result = await leader.write("k", 1, timeout_ms=100)
    assert (result.status, result.error_code) == ("failed", "TIMEOUT")
    end.set()
    await working
    assert await leader.read("k") is None
    assert (await leader.write("k", 1)).success


async def test_a_write_that_waits_for_voters_is_told_of_the_close(
    pair: Cluster,
) -> None:
    leader = pair.nodes[0]
    leader._seat.changes_voters = True
    writing = asyncio.create_task(leader.write("k", 1))
    await asyncio.sleep(0.05)
    await leader.close()
    assert (await writing).error_code == "MANAGER_CLOSED"


async def test_a_write_in_flight_is_told_of_the_close(three: Cluster) -> None:
    leader = three.nodes[0]
    await leader.write("k", 0)
    await three.part(0)

    async def slow(event: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise

    leader.on("leaderChanged", slow)
    leader._queue_event("leaderChanged", 1)
    await asyncio.sleep(0.02)
    writing = asyncio.create_task(leader.write("k", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await leader.close()
        result = await writing
    assert (result.status, result.error_code) == ("unknown", "STALE_LEADER")
