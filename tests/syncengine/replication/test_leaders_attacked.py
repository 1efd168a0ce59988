"""Members that lie, nodes that come back, and other things that shall not matter."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import syncengine
from syncengine import (
    Invalid,
    LeaderFollowerManager,
    NotLeader,
    PromotionFailed,
    Space,
    limits,
)
from syncengine.clock import hlc_from_ms, ms_from_hlc
from syncengine.crdt.operation import Action
from syncengine.ids import DeviceId, DocumentId, EntryId, actor_id
from syncengine.log.batch import NO_BATCH, Batch, seal
from syncengine.log.change import Change, Touch
from syncengine.protocol.notices import Progress
from syncengine.storage.store import Writes
from syncengine.trust.entry import Entry
from syncengine.trust.leadership import ModeRecord, TermRecord, make_mode, make_term
from syncengine.trust.membership import make_actor
from tests.syncengine.replication.test_leader_follower import FAST, Cluster, until
from tests.syncengine.replication.test_modes import shown, spaces_of, write
from tests.wires import Wire

NOWHERE = EntryId(b"m" * 32)


@pytest.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        yield Cluster(stack)


async def joined(cluster: Cluster, ops: str) -> Space:
    """Let one more in, linked to the first."""
    host = await cluster.replicas[0].namespace("tenant-abc")
    invite = await host.invite(ops, uses=1)
    replica = await cluster.stack.enter_async_context(syncengine.open(":memory:"))
    space = await replica.join(invite, name="tenant-abc")
    wire = cluster.wires[0, len(cluster.replicas)] = Wire(cluster.replicas[0])
    cluster.replicas.append(replica)
    await cluster.stack.enter_async_context(wire.link(replica))
    return space


def forced(space: Space, actor: Any, **more: Any) -> Entry:
    """Return a term of one who says that he leads."""
    engine = space.engine
    me = DeviceId(engine.key.public)
    mode = more.pop("mode", engine.keeper.terms.mode_id)
    number = more.pop("number", 1)
    record = TermRecord(
        me, mode, number, actor, "x", None, None, more.pop("voters", ()), "forced",
        "because", {},
    )  # fmt: skip
    return make_term(engine.key, engine.keeper.namespace, [], record)


def bogus_mode(space: Space) -> Entry:
    engine = space.engine
    record = ModeRecord(DeviceId(engine.key.public), 1, True, (), {}, None)
    return make_mode(engine.key, engine.keeper.namespace, [], record)


async def put(space: Space, *rows: Entry | Batch) -> None:
    async with space.engine.turn:
        for row in rows:
            space.engine.keeper.append_own(row)
    await space.engine.flush()


async def test_who_only_reads_takes_nothing_from_the_leaders(cluster: Cluster) -> None:
    await cluster.join(3)
    await cluster.mesh()
    reader = await joined(cluster, "read")
    nodes = [n for n in await cluster.start(voters=3) if n]
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", 1)
    await nodes[1].promote()
    assert (await nodes[1].write("k", 2)).success
    await until(lambda: cluster.applied()[:3] == [2, 2, 2])

    top = reader.engine.keeper.terms.top
    assert top is not None
    await put(reader, forced(reader, top.record.actor), bogus_mode(reader))
    await until(lambda: len(nodes[0]._space.engine.keeper.membership.terms) > 2)
    await asyncio.sleep(0.1)
    assert cluster.applied()[:3] == [2, 2, 2]
    assert [await node.read("k") for node in nodes[:3]] == [2, 2, 2]
    assert (await nodes[1].write("k", 3)).success


async def test_what_comes_first_decides_nothing(cluster: Cluster) -> None:
    """One writes as an ordinary member here, and says there that he leads."""
    await cluster.join(3, ops="write")
    await cluster.mesh()
    spaces = await spaces_of(cluster)
    for number, space in enumerate(spaces):
        await write(space, f"k{number}", number)
    await until(lambda: all(len(s.engine.version) == 3 for s in spaces))
    liar = spaces[2]
    await cluster.part(1)
    await write(liar, "b", "seen by the first only")
    assert liar.engine.actor is not None
    rows = [bogus_mode(liar), forced(liar, liar.engine.actor, mode=NOWHERE)]
    await spaces[1].engine.take_in(rows)
    await spaces[1].engine.flush()
    await write(spaces[0], "y", "honest")

    cluster.heal()
    one, two = spaces[0].engine, spaces[1].engine
    await until(lambda: one.keeper.digest() == two.keeper.digest())
    for space in spaces[:2]:
        assert await shown(space, "y") == "honest"
        assert await shown(space, "b") == "seen by the first only"


async def test_nobody_sets_the_clocks_of_others_by_saying_that_he_leads(
    cluster: Cluster,
) -> None:
    await cluster.join(3, ops="write")
    await cluster.mesh()
    spaces = await spaces_of(cluster)
    for space in spaces:
        await write(space, "k", 1)
    engine = spaces[2].engine
    me, nonce = DeviceId(engine.key.public), b"n" * 16
    actor = actor_id(me, engine.keeper.namespace, nonce)
    far = hlc_from_ms(engine.clock.now_ms() + 50 * 365 * 86_400_000)
    touch = Touch(DocumentId("entry/z"), [[int(Action.TOUCH), None]], 1)
    assert engine.grant is not None
    batch = seal(
        *(engine.key, engine.keeper.namespace, engine.grant, NO_BATCH),
        [Change(actor, 1, far, [], [touch])],
        b"s" * 16,
        term=1,
        index=1,
    )
    own = make_actor(engine.key, engine.keeper.namespace, [], nonce)
    await put(
        spaces[2], own, bogus_mode(spaces[2]), forced(spaces[2], actor, mode=NOWHERE)
    )
    await put(spaces[2], batch)
    await until(lambda: spaces[0].engine.keeper.has(batch.id))
    await until(lambda: spaces[1].engine.keeper.has(batch.id))

    for space in spaces[:2]:
        ahead = ms_from_hlc(space.engine.clock.last) - space.engine.clock.now_ms()
        assert ahead < 60_000
    await write(spaces[0], "k", 2)
    while await shown(spaces[1], "k") != 2:  # nobody tells of it
        await asyncio.sleep(0.01)


async def test_what_waits_when_a_leader_is_deposed_is_rescued_whole(
    cluster: Cluster,
) -> None:
    """More than one commit seals, while one is under way."""
    await cluster.join(2)
    await cluster.mesh()
    old, new = await cluster.start()
    await until(lambda: new.leader_id)
    await old.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1])
    await cluster.part(0)
    store, engine = cluster.replicas[0].store, old._space.engine
    commit = store.commit

    async def slowly(writes: Writes) -> None:
        await asyncio.sleep(0.3)
        await commit(writes)

    store.commit = slowly  # type: ignore[method-assign]
    writing = [
        asyncio.create_task(old.write(f"b{n}", "x" * 400_000, client_op_id=f"b{n}"))
        for n in range(16)
    ]
    await new.promote()
    await until(lambda: engine._committing and engine.outbox.stored_count)
    rows = [row for _, row in new._space.engine.keeper.rows_after(0, 1000)]
    await engine.take_in(rows)
    store.commit = commit  # type: ignore[method-assign]
    results = await asyncio.gather(*writing)
    await engine.flush()

    waiting = {one.operation_id for one in await old.rescue.list()}
    assert {r.client_op_id for r in results if r.success} <= waiting
    assert [n for n in range(16) if await old.read(f"b{n}") is not None] == []


async def test_who_led_once_writes_as_somebody_else_where_all_write(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    one, two, _ = await cluster.start(voters=3)
    await until(lambda: one.get_role() == "leader")
    await one.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1, 1])
    await two.promote()
    await two.write("k", 2)
    await until(lambda: cluster.applied() == [2, 2, 2])
    await one.promote()
    await one.switch_to_masters()
    spaces = await spaces_of(cluster)
    await until(lambda: all(space.mode == "multi-master" for space in spaces))

    for number, space in enumerate(spaces):
        await write(space, f"m{number}", number)

    async def seen() -> list[object]:
        return [await shown(space, f"m{n}") for space in spaces for n in range(3)]

    while await seen() != [0, 1, 2] * 3:
        await asyncio.sleep(0.01)
    assert [await space.rescue.list() for space in spaces] == [[], [], []]


async def test_what_earlier_leaders_wrote_shows_under_later_ones(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    for number in range(9):
        await nodes[0].write(f"k{number}", number)
    await nodes[0].switch_to_masters()
    ids = [replica.id for replica in cluster.replicas]
    await nodes[0]._space.switch_mode("leader-follower", voters=ids)
    await until(lambda: cluster.leaders)
    assert (await cluster.leaders[0].write("z", "new")).sequence == 1
    await until(lambda: cluster.applied() == [1, 1, 1])

    for node in nodes:
        engine = node._space.engine
        async with engine.turn:
            await engine.rebuild()
        assert [await node.read(f"k{n}") for n in range(9)] == list(range(9))
        assert await node.read("z") == "new"


async def test_a_term_from_the_far_future_is_not_heard_of(cluster: Cluster) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    liar, mode = nodes[2]._election, nodes[2]._space.engine.keeper.terms.mode_id
    for ahead in (limits.TERM_STEP_MAX, limits.BALLOT_AHEAD_MAX - 1):
        liar.say(Progress(mode, ahead, "liar", None, 0, 0, 0, True))
        await asyncio.sleep(0.2)
        await until(lambda: len(cluster.leaders) == 1)
        assert (await cluster.leaders[0].write("k", ahead)).success
    await nodes[1].promote()
    assert (await nodes[1].write("k", "on")).success


async def test_all_means_every_voter(cluster: Cluster) -> None:
    await cluster.join(5)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await until(lambda: len(nodes[0].get_connected_followers()) == 4)
    await cluster.part(2)

    result = await nodes[0].write("k", 1, level="all", timeout_ms=300)
    assert result.status == "unknown"
    assert (await nodes[0].write("k", 2, level=3)).success


async def test_a_transaction_that_stays_open_deposes_nobody(cluster: Cluster) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3, heartbeat_timeout_ms=500)
    await until(lambda: nodes[0].get_role() == "leader")
    await until(lambda: all(node.is_leader_healthy() for node in nodes))
    space = nodes[0]._space

    async with space.transaction() as tx:
        tx["entry/slow"]["value"] = 1
        await asyncio.sleep(1.5)  # three heartbeat time-outs
    assert nodes[0].get_role() == "leader"
    assert nodes[0].term == 1
    assert (await nodes[0].write("k", 1)).success


async def test_a_leader_that_was_restarted_is_heard(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    leader, follower = await cluster.start()
    await leader.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1])
    await asyncio.sleep(0.5)  # many beats
    await leader.close()
    again = LeaderFollowerManager(
        *("leader-1", "leader", None, cluster.replicas[0], "tenant-abc"), **FAST
    )
    async with again:
        assert again.get_role() == "leader"
        assert (await again.write("k", 2)).sequence == 2
        await until(lambda: follower.term == again.term)
        await until(lambda: not follower.is_stale())
        await until(follower.is_leader_healthy)
        await until(lambda: again.get_connected_followers() == ["follower-1"])


async def test_who_may_not_lead_is_no_successor(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    reader = await joined(cluster, "read")
    nodes = await cluster.start()
    leader, follower = nodes[:2]
    await leader.write("k", 1)
    await until(lambda: leader.get_follower_lag("follower-1") == 0)
    mode, top = reader.engine.keeper.terms.mode_id, reader.engine.keeper.terms.top
    assert top is not None
    nodes[2]._election.say(
        Progress(mode, top.number, "follower-1", top.id, 1, 10**9, 10**9, True)
    )
    await until(lambda: len(leader._election.followers) == 2)

    await leader.demote(handoff=True)
    await until(lambda: follower.get_role() == "leader")


async def test_who_is_closed_while_it_starts_ends(cluster: Cluster) -> None:
    await cluster.join(1)
    node = LeaderFollowerManager(
        *("n", "leader", None, cluster.replicas[0], "tenant-abc"), **FAST
    )
    starting = asyncio.create_task(node.start())
    await asyncio.sleep(0)
    await node.close()
    await starting
    assert node.get_role() == "follower"
    space = await cluster.replicas[0].namespace("tenant-abc")
    assert space.engine.notices.listeners == []


async def test_who_may_have_forgotten_its_votes_votes_no_more(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[2].close()
    await cluster.part(2)
    engine = nodes[2]._space.engine
    ids = [replica.id for replica in cluster.replicas]
    await nodes[0].switch_to_masters()
    await nodes[0]._space.switch_mode("leader-follower", voters=ids)
    await until(lambda: cluster.leaders and cluster.leaders[0]._election.top)
    engine.leadership.forget_votes()  # as after a backup came back
    await engine.flush()

    cluster.heal()
    await until(lambda: engine.keeper.terms.top is not None)
    await until(lambda: engine.leadership.ballot.mode == engine.keeper.terms.mode_id)
    assert not engine.leadership.current.may_vote
    again = LeaderFollowerManager(
        *("again", "follower", None, cluster.replicas[2], "tenant-abc"), **FAST
    )
    async with again:
        leader = cluster.leaders[0]
        # Only a term that begins after it was back says that it voted for nobody else.
        await until(lambda: engine.leadership.current.forgot_at is not None)
        await until(lambda: leader.get_follower_lag("again") == 0)
        await leader.remove_voter(ids[2])
        await until(lambda: engine.leadership.current.may_vote)
        await until(lambda: leader.get_follower_lag("again") == 0)
        await leader.add_voter(ids[2])
        await until(lambda: again.can_participate_in_election())


async def test_a_follower_shows_nothing_that_no_majority_has(cluster: Cluster) -> None:
    await cluster.join(4)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", "decided")
    await until(lambda: nodes[0].get_follower_lag("follower-3") == 0)
    await cluster.part(1)
    await cluster.part(2)
    await nodes[0].write("k", "undecided", level="local")
    # It has it, with its leader, for as long as he leads.
    await until(lambda: nodes[0].get_follower_lag("follower-3") == 0)
    assert await nodes[3].read("k") == "decided"
    await until(lambda: nodes[0].get_role() == "follower")
    assert await nodes[3].read("k") == "decided"
    cluster.heal()
    await until(lambda: bool(cluster.leaders))


async def test_a_new_leader_writes_after_what_it_goes_on_from(
    cluster: Cluster,
) -> None:
    """Else what it wrote was concurrent with what its log has before, and the stamps
    decided: seed 317 of `switched`."""
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", 1)
    await until(lambda: cluster.applied() == [1, 1, 1])
    engine = nodes[1]._space.engine
    engine.delivery.hold = lambda batch, end: True  # for a clock, or for what it saw
    await nodes[0].write("k", 2)
    await until(lambda: nodes[0].get_follower_lag("follower-1") == 0)
    await nodes[1].promote()
    assert nodes[1].get_role() == "leader"

    early = await nodes[1].write("k", 3, timeout_ms=100)
    assert (early.status, early.error_code) == ("failed", "TIMEOUT")
    with pytest.raises(NotLeader, match="write again"):
        async with nodes[1]._space.transaction() as tx:
            tx["entry/k"]["value"] = 3
    assert engine.applied_index == 1
    writing = asyncio.create_task(nodes[1].write("k", 3))
    await asyncio.sleep(0.05)
    engine.delivery.hold = engine._is_held
    await engine.apply_held()
    assert (await writing).sequence == 3
    assert engine.applied_index == 3
    await until(lambda: cluster.applied() == [3, 3, 3])
    for node in nodes:
        assert await node.read("k") == 3


async def test_what_is_made_anew_after_leading_is_written(cluster: Cluster) -> None:
    """Who compared what it showed with others found rows of documents that it had not:
    seeds 1067 and 1109 of `operated`."""
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", 1)
    await nodes[0].close()
    await cluster.part(0)
    engine = nodes[0]._space.engine
    # As after a failed commit: it shows what it wrote as a leader, and is none.
    engine.leadership.set(shown=0)
    await engine.flush()
    assert engine.shows_too_much

    await engine.settle_terms()
    assert not engine.shows_too_much
    assert not engine.all_on_disk
    await until(lambda: engine.all_on_disk)
    assert engine.documents.digests("", "\uffff", 100) == []


@pytest.mark.parametrize("was_removed", [False, True])
async def test_a_voter_from_a_backup_votes_again_when_it_is_added(
    cluster: Cluster, was_removed: bool
) -> None:
    """Also one that was removed before it was back: it never heard of that term."""
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[2].close()
    engine, device = nodes[2]._space.engine, cluster.replicas[2].id
    if was_removed:
        await nodes[0].remove_voter(device)
        await until(lambda: device not in nodes[1].get_voters())
    engine.leadership.forget_votes()  # as after a backup came back
    await engine.flush()
    again = LeaderFollowerManager(
        *("again", "follower", None, cluster.replicas[2], "tenant-abc"), **FAST
    )
    async with again:
        await until(lambda: nodes[0].get_follower_lag("again") == 0)
        state = nodes[0].get_leader_state()
        assert state is not None
        assert not state.followers["again"].votes
        await nodes[0].add_voter(device)
        await until(lambda: again.can_participate_in_election())
        assert device in nodes[0].get_voters()
        await until(lambda: nodes[0].get_leader_state() is not None)


async def test_who_lost_a_majority_for_good_leads_on_without_it(
    cluster: Cluster,
) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    ids = [replica.id for replica in cluster.replicas]
    await cluster.part(0)
    await until(lambda: nodes[0].get_role() == "follower")
    assert nodes[0].leader_id != "leader-1"
    refused = await nodes[0].write("k", 1)
    assert refused.error is not None
    assert "Nobody is known to lead" in refused.error

    with pytest.raises(PromotionFailed, match="not all"):
        await nodes[0].promote(
            require="i_accept_loss", reason="they burnt", without=ids
        )
    await nodes[0].promote(
        require="i_accept_loss", reason="they burnt", without=ids[1:]
    )
    assert nodes[0].get_voters() == ids[:1]
    await asyncio.sleep(2 * FAST["heartbeat_timeout_ms"] / 1000)
    assert nodes[0].get_role() == "leader"
    assert (await nodes[0].write("k", 2)).status == "ok"


async def test_only_an_owner_says_that_voters_are_lost(cluster: Cluster) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    ids = [replica.id for replica in cluster.replicas]
    await cluster.part(1)
    with pytest.raises(PromotionFailed, match="owner"):
        await nodes[1].promote(require="i_accept_loss", reason="mine", without=[ids[0]])
    with pytest.raises(Invalid, match="i_accept_loss"):
        await nodes[1].promote(without=[ids[0]])


async def test_writes_wait_while_the_voters_change(cluster: Cluster) -> None:
    await cluster.join(3)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    ids = [replica.id for replica in cluster.replicas]
    results: list[str] = []
    ended = False

    async def writer() -> None:
        while not ended:
            result = await nodes[0].write("k", len(results))
            results.append(result.status)
            await asyncio.sleep(0)

    writing = asyncio.ensure_future(writer())
    await nodes[0].remove_voter(ids[2])
    await until(lambda: nodes[0].get_follower_lag("follower-2") == 0)
    await nodes[0].add_voter(ids[2])
    ended = True
    await writing
    assert "failed" not in results


async def test_who_leads_without_voters_hands_over_too(cluster: Cluster) -> None:
    await cluster.join(2)
    await cluster.mesh()
    leader, follower = await cluster.start()
    assert (await leader.write("k", 1)).success
    await until(lambda: leader.get_follower_lag("follower-1") == 0)
    await leader.demote()
    await until(lambda: follower.get_role() == "leader")
    assert leader.get_role() == "follower"
    assert (await follower.write("k", 2)).success


async def test_whoever_lets_the_turn_go_lets_the_commit_begin(cluster: Cluster) -> None:
    await cluster.join(1)
    space = await cluster.replicas[0].namespace("tenant-abc")
    await cluster.start()
    engine = space.engine
    async with engine.turn:
        asked = engine.flush()
        await asyncio.sleep(0.01)  # the writer has looked, and found it taken
    async with asyncio.timeout(10):
        await asked


async def test_a_term_that_ended_while_it_was_written_began_nothing(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.join(2)
    await cluster.mesh()
    leader, follower = await cluster.start()
    await leader.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1])
    engine = follower._space.engine
    begin = engine.begin_term

    async def overtaken(nonce: bytes, record: Any) -> Any:
        term = await begin(nonce, record)
        await engine.end_term(record.number + 1)
        return term

    engine.begin_term = overtaken  # type: ignore[method-assign]  # a higher one comes
    with pytest.raises(PromotionFailed, match="higher term"):
        await follower.promote(timeout_ms=300)
    assert follower.get_role() == "follower"
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
    engine.begin_term = begin  # type: ignore[method-assign]  # as it was
    await follower.promote()
    assert (await follower.write("k", 2)).success
