"""Who leads, changed by hand: promotion, hand-over, and other voters."""

# pyright: reportPrivateUsage=false

import asyncio
from typing import Any

import pytest

from syncengine import HistoryDiverged, Invalid, NotLeader, PromotionFailed
from syncengine.storage.store import Writes
from tests.syncengine.replication.test_leader_follower import (
    Cluster,
    cluster,
    pair,
    three,
    until,
)

__all__ = ["cluster", "pair", "three"]


async def test_a_follower_is_promoted_and_goes_on_counting(pair: Cluster) -> None:
    leader, follower = pair.nodes
    await leader.write("k", 1)
    await until(lambda: pair.applied() == [1, 1])

    await follower.promote()
    assert (follower.get_node_id(), follower.get_role()) == ("follower-1", "leader")
    result = await follower.write("customer-789", {"name": "Charlie"}, "create")
    assert (result.success, result.sequence) == (True, 2)
    await until(lambda: leader.get_role() == "follower")
    await until(lambda: pair.applied() == [2, 2])
    refused = await leader.write("k", 2)
    assert (refused.error_code, refused.leader_id) == ("NOT_LEADER", "follower-1")
    assert await leader.read("customer-789") == {"name": "Charlie"}


async def test_a_demoted_leader_catches_up_and_may_lead_again(pair: Cluster) -> None:
    leader, follower = pair.nodes
    await leader.write("k", 1)
    await until(lambda: pair.applied() == [1, 1])

    await leader.demote()
    assert leader.get_role() == "follower"
    assert (await leader.write("k", 2)).error_code == "NOT_LEADER"
    await follower.promote()
    assert (await follower.write("k", 3)).sequence == 2
    await until(lambda: pair.applied() == [2, 2])
    await follower.demote()
    await leader.promote()
    assert (await leader.write("k", 4)).sequence == 3
    await until(lambda: pair.applied() == [3, 3])
    assert await follower.read("k") == 4


async def test_a_leader_hands_over_and_nothing_has_to_be_rescued(
    three: Cluster,
) -> None:
    old = three.nodes[0]
    counted = 0
    ended = False

    async def write_on() -> None:
        nonlocal counted
        while not ended:
            for node in three.leaders:
                result = await node.write(f"k{counted}", counted)
                if result.success:
                    counted += 1
                assert result.status != "unknown"
            await asyncio.sleep(0.001)

    writer = asyncio.create_task(write_on())
    await until(lambda: counted > 20)
    await old.demote()
    assert old.get_role() == "follower"
    assert three.leaders
    before = counted
    await until(lambda: counted > before + 20)
    ended = True
    await writer
    await until(lambda: len(set(three.applied())) == 1)
    assert three.applied()[0] == counted
    for node in three.nodes:
        assert await node.rescue.list(decided=True) == []


async def test_two_that_are_promoted_at_once_both_lead_until_they_meet(
    pair: Cluster,
) -> None:
    one, two = pair.nodes
    await one.write("k", "common")
    await until(lambda: pair.applied() == [1, 1])
    await pair.part(0)
    await two.promote(require="i_accept_loss", reason="the other site burns")
    await one.write("a", "of one")
    await one.write("k", "of one")
    written = await two.write("k", "of two")
    lost = await one.write("c", 1)
    assert len(pair.leaders) == 2

    pair.heal()
    await until(lambda: pair.leaders == [two])
    await until(lambda: pair.applied() == [2, 2])
    assert [await n.read("k") for n in pair.nodes] == ["of two"] * 2
    assert [await n.read("a") for n in pair.nodes] == [None] * 2
    top = one._election.top
    assert top is not None
    assert (top.record.how, top.record.reason) == ("forced", "the other site burns")
    with pytest.raises(HistoryDiverged):
        await one.read("k", token=lost.token)
    assert await one.read("k", token=written.token) == "of two"
    waiting = await two.rescue.list()
    assert [one.documents for one in waiting] == [
        ("entry/a",), ("entry/k",), ("entry/c",),
    ]  # fmt: skip
    wrote = await two.rescue.replay()
    assert wrote == [waiting[0].id, waiting[2].id]  # somebody wrote k since
    assert await two.read("k") == "of two"
    assert await two.rescue.replay([waiting[0].id], "write") == []  # it is done
    assert await two.read("a") == "of one"


async def test_who_has_no_majority_is_not_promoted(three: Cluster) -> None:
    await three.part(2)
    with pytest.raises(PromotionFailed, match="no majority"):
        await three.nodes[2].promote(timeout_ms=200)
    assert three.nodes[2].get_role() == "follower"
    three.heal()
    await three.nodes[2].promote()
    assert three.nodes[2].get_role() == "leader"
    await until(lambda: len(three.leaders) == 1)
    assert (await three.nodes[2].write("k", 1)).success


async def test_who_may_not_lead_is_not_promoted(cluster: Cluster) -> None:
    await cluster.join(2, ops="write")
    await cluster.mesh()
    leader, follower = await cluster.start()
    await until(lambda: follower.leader_id)

    assert not follower.can_participate_in_election()
    with pytest.raises(PromotionFailed, match="no grant to lead"):
        await follower.promote()
    with pytest.raises(Invalid, match="says why"):
        await leader.promote(require="i_accept_loss")
    with pytest.raises(Invalid, match="majority"):
        await leader.promote(require="force")  # type: ignore[arg-type]


async def test_voters_come_and_go_one_at_a_time(cluster: Cluster) -> None:
    await cluster.join(4)
    await cluster.mesh()
    nodes = await cluster.start(voters=3)
    await until(lambda: nodes[0].get_role() == "leader")
    await nodes[0].write("k", 1)
    fourth = cluster.replicas[3].id
    await until(lambda: nodes[0].get_follower_lag("follower-3") == 0)

    await nodes[0].add_voter(fourth)
    assert nodes[0].get_role() == "leader"
    assert set(nodes[0].get_voters()) == {replica.id for replica in cluster.replicas}
    assert (await nodes[0].write("k", 2)).sequence == 2
    await until(lambda: fourth in nodes[3].get_voters())
    await nodes[0].remove_voter(cluster.replicas[2].id)
    assert (await nodes[0].write("k", 3)).success
    await until(lambda: len(nodes[2].get_voters()) == 3)
    assert not nodes[2].can_participate_in_election()
    with pytest.raises(PromotionFailed, match="follows first"):
        await nodes[0].add_voter("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")


async def test_who_promotes_by_an_old_view_of_the_terms_changes_nothing(
    pair: Cluster,
) -> None:
    """Two people who saw the same leader fail, each with another node in mind."""
    one, two = pair.nodes
    await one.write("k", 1)
    await until(lambda: two.term == one.term)
    seen = two.term
    await two.promote(expected_term=seen)
    await until(lambda: one.term == two.term)
    with pytest.raises(PromotionFailed, match=f"the term is {seen + 1} by now"):
        await one.promote(expected_term=seen)
    assert pair.leaders == [two]


async def test_who_is_promoted_leads_when_that_returns_however_slow_its_disk(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked well, it was told that it leads before its vote was on disk."""
    _, two, _ = three.nodes
    store = three.replicas[1].store
    commit = store.commit

    async def slow(writes: Writes) -> None:
        await asyncio.sleep(0.15)
        await commit(writes)

    monkeypatch.setattr(store, "commit", slow)
    await two.promote()
    assert two.get_role() == "leader"
    assert (await two.write("k", 1)).success


async def test_who_is_asked_too_late_does_not_take_over(pair: Cluster) -> None:
    """What was acknowledged since was void on both."""
    one, two = pair.nodes
    await one.write("k", 1)
    await until(lambda: pair.applied() == [1, 1])
    count = two._election._count

    async def slow(race: Any) -> None:
        await asyncio.sleep(0.5)
        await count(race)

    two._election._count = slow  # type: ignore[method-assign]
    with pytest.raises(PromotionFailed, match="this node leads on"):
        await one.demote(handoff=True, timeout_ms=200)
    assert (await one.write("k", 2)).success
    await asyncio.sleep(0.8)
    await until(lambda: pair.applied() == [2, 2])
    assert [await node.read("k") for node in pair.nodes] == [2, 2]
    assert pair.leaders == [one]


async def test_only_a_leader_changes_voters(pair: Cluster) -> None:
    follower = pair.nodes[1]
    for replica in pair.replicas:
        with pytest.raises(NotLeader):
            await follower.add_voter(replica.id)
    with pytest.raises(NotLeader):
        await follower.remove_voter(pair.replicas[0].id)


async def test_what_is_written_while_the_first_voters_come_has_their_majority(
    pair: Cluster,
) -> None:
    leader = pair.nodes[0]
    await until(lambda: leader.get_follower_lag("follower-1") == 0)
    adding = asyncio.create_task(leader.add_voter(pair.replicas[1].id))
    await asyncio.sleep(0)
    written = await leader.write("k", 1)
    await adding
    assert (written.success, written.level) == (True, "majority")


async def test_who_is_deposed_while_it_hands_over_says_so_at_once(
    three: Cluster,
) -> None:
    one, two, _ = three.nodes
    one._election.best_successor = lambda: None  # type: ignore[method-assign]
    handing = asyncio.create_task(one.demote(handoff=True))
    await asyncio.sleep(0.05)
    await two.promote()
    with pytest.raises(PromotionFailed, match="leads by now"):
        await handing
    assert one.get_role() == "follower"


@pytest.mark.parametrize("voters", [0, 3])
async def test_a_leader_whose_actor_is_retired_acknowledges_nothing_in_its_term(
    cluster: Cluster, voters: int
) -> None:
    """A copy of its file is at work: what it wrote on was in no term."""
    await cluster.join(3)
    await cluster.mesh()
    leader = (await cluster.start(voters=voters))[0]
    assert (await leader.write("k", 1)).success
    await leader._space.engine.retire_actor()
    written = await leader.write("k", 2)
    await until(lambda: cluster.leaders)
    if not written.success:
        assert (await cluster.leaders[0].write("k", 2)).success
    await until(lambda: len(set(cluster.applied())) == 1)
    assert [await node.read("k") for node in cluster.nodes] == [2, 2, 2]
    assert await leader.rescue.list() == []


async def test_a_branch_is_not_merged_beside_the_leader(pair: Cluster) -> None:
    """It came back with a receipt, and was in the rescue area."""
    space = pair.nodes[0]._space
    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        tx["note/1"]["text"] = "mine"
    with pytest.raises(Invalid, match="all write"):
        await branch.merge()
    assert (await branch.get("note/1")).to_dict() == {"text": "mine"}
