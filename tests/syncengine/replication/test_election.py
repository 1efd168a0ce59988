"""What an election rests on: what was said is on disk first, and what is over counts
no more. Each of these was planted as a bug, and went through all stories."""

# pyright: reportPrivateUsage=false

import asyncio
from typing import Any

import pytest

from syncengine import PromotionFailed
from syncengine.ids import DeviceId
from syncengine.log.terms import Term
from syncengine.protocol.notices import Beat, Candidacy, Progress, Vote, decode
from syncengine.replication.election import Election
from syncengine.replication.leadership import Leadership
from syncengine.storage.store import Writes
from syncengine.trust.leadership import TermRecord
from tests.syncengine.replication.test_leader_follower import (
    Cluster,
    cluster,
    three,
    until,
)

__all__ = ["cluster", "three"]


def hears(election: Election) -> list[Any]:
    """Note what a node says, and send none of it."""
    said: list[Any] = []
    notices = election.engine.notices

    def note(body: bytes, to: DeviceId | None = None) -> None:
        said.append(decode(body))

    notices.say = note  # type: ignore[method-assign]
    return said


def candidacy(of: Election, number: int, actor: bytes) -> Candidacy:
    """What a candidate asks whose log has all."""
    top = of.top
    assert top is not None
    base = of._base()
    return Candidacy(
        of._mode(), number, of.node, False, actor * 16, top.id, base,
        [*of.voters], True,
    )  # fmt: skip


async def quiet(three: Cluster) -> list[Election]:
    """Three that know of the leader, and whose tasks do nothing by themselves."""
    await until(lambda: len({node.term for node in three.nodes}) == 1)
    await until(lambda: len(set(three.applied())) == 1)
    for node in three.nodes:
        assert node._task is not None
        node._task.cancel()
        await asyncio.wait([node._task])
    return [node._election for node in three.nodes]


async def test_a_vote_outlives_a_restart(three: Cluster) -> None:
    """It votes for one, forgets all but its file, and votes for no other."""
    one, two, voter = await quiet(three)
    said = hears(voter)
    number = voter.ballot.number + 5
    await voter.hear(one.me, candidacy(one, number, b"a"))
    assert [vote.is_granted for vote in said] == [True]

    voter.engine.leadership.load()  # as after a restart
    assert voter.ballot.number == number
    await voter.hear(two.me, candidacy(two, number, b"b"))
    assert [vote.is_granted for vote in said] == [True, False]
    await voter.hear(one.me, candidacy(one, number, b"c"))  # the same, another log
    assert [vote.is_granted for vote in said] == [True, False, False]
    await voter.hear(one.me, candidacy(one, number, b"a"))  # asked again
    assert [vote.is_granted for vote in said] == [True, False, False, True]


async def test_a_term_that_is_overtaken_before_it_is_written_begins_nothing(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an assertion that failed: seed 30119 of `operated`."""
    _, two, _ = await quiet(three)
    engine, number = two.engine, two.ballot.number
    begin_term = engine.begin_term

    async def late(nonce: bytes, record: TermRecord) -> Term:
        async with engine.turn:  # somebody wrote, and a term came in
            began = asyncio.ensure_future(begin_term(nonce, record))
            await asyncio.sleep(0.01)
            engine.leadership.set(number=number + 2)
        return await began

    monkeypatch.setattr(engine, "begin_term", late)
    race = await two.stand("forced", reason="test")
    assert isinstance(race.error, PromotionFailed)
    assert (two.leading, two.ballot.number) == (None, number + 2)


async def test_a_vote_is_on_disk_before_it_is_said(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, voter = await quiet(three)
    said, store = hears(voter), three.replicas[2].store
    commit, gate = store.commit, asyncio.Event()

    async def slow(writes: Writes) -> None:
        await gate.wait()
        await commit(writes)

    monkeypatch.setattr(store, "commit", slow)
    hearing = asyncio.ensure_future(
        voter.hear(one.me, candidacy(one, voter.ballot.number + 5, b"a"))
    )
    await asyncio.sleep(0.1)
    assert said == []
    gate.set()
    await hearing
    assert [type(one) for one in said] == [Vote]


async def test_what_is_not_on_a_followers_disk_is_acknowledged_by_nobody(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, gate = three.nodes[0], asyncio.Event()
    assert (await leader.write("k", 1)).success
    await until(lambda: set(three.applied()) == {1})
    told: list[tuple[int, int]] = []
    for replica in three.replicas[1:]:
        leadership = replica.spaces()[0].engine.leadership

        async def slow(
            writes: Writes,
            commit: Any = replica.store.commit,
            leadership: Leadership = leadership,
        ) -> None:
            assert leadership.durable is not None
            end = leadership._end()
            assert end is not None
            told.append((leadership.durable[1], end[1]))
            await gate.wait()
            await commit(writes)

        monkeypatch.setattr(replica.store, "commit", slow)
    writing = asyncio.ensure_future(leader.write("k", 2, timeout_ms=10_000))
    try:
        await until(lambda: (1, 2) in told or (2, 2) in told)
        await asyncio.sleep(0.1)
        assert not writing.done()
        assert (2, 2) not in told, "it would say so, and it is not there"
        assert leader._election.count_stored(2) == 0
    finally:
        gate.set()
    assert (await writing).success


async def test_what_was_stored_in_an_earlier_term_acknowledges_nothing(
    three: Cluster,
) -> None:
    one, two, _ = await quiet(three)
    term = one.leading
    assert term is not None
    progress = Progress(one._mode(), term.number, "n2", term.id, 9_999, 1_000, 0, True)
    await one.hear(two.me, progress)
    assert (one.count_stored(1_000), one.count_heard(9_999)) == (1, 2)
    for other in (
        replace_struct(progress, top=b"\x01" * 32),
        replace_struct(progress, top=None),
        replace_struct(progress, term=term.number - 1),
    ):
        await one.hear(two.me, other)
        assert one.count_stored(1_000) == 0
        assert one.count_heard(9_999) == 1  # itself


def replace_struct(said: Any, **changes: Any) -> Any:
    """`dataclasses.replace`, for what is said."""
    fields = {name: getattr(said, name) for name in said.__struct_fields__}
    return type(said)(**{**fields, **changes})


async def test_a_beat_of_a_term_that_is_over_is_no_sign_of_life(three: Cluster) -> None:
    one, _, follower = await quiet(three)
    top = follower.top
    assert top is not None
    beat = Beat(one._mode(), top.number, "n1", top.id, follower.beat + 1, True, 9, 9)
    said = hears(follower)
    follower.engine.leadership.set(number=top.number + 1)  # it has heard of another
    follower.contact = 0.0
    await follower.hear(one.me, beat)
    assert follower.contact == 0.0
    assert [answer.term for answer in said] == [top.number + 1]


async def test_a_commit_behind_a_later_term_writes_nothing(three: Cluster) -> None:
    """Whoever wakes up after another was elected: the file knows better."""
    leader, replica = three.nodes[0], three.replicas[0]
    assert (await leader.write("k", 1)).success
    store: Any = replica.store
    store.connection.execute("UPDATE _sync_ballot SET number = number + 1")
    before = leader._space.engine.keeper.position
    result = await leader.write("k", 2, timeout_ms=500)
    assert not result.success
    await until(lambda: leader._space.engine.keeper.position >= before)
    for node in three.nodes:
        assert await node.read("k") == 1


async def test_of_equal_terms_the_longer_log_is_elected(three: Cluster) -> None:
    """Raft, section 5.4.1: by the last term, and then by how much of it there is."""
    assert (await three.nodes[0].write("k", 1)).success
    _, two, voter = await quiet(three)
    top = voter.top
    assert top is not None
    said = hears(voter)
    end = voter.engine.keeper.last_index(top.record.actor)
    asks = candidacy(two, voter.ballot.number + 5, b"a")
    short = replace_struct(asks, base=(end - 1, b"\x07" * 32))
    await voter.hear(two.me, short)
    assert [vote.is_granted for vote in said] == [False]
    said.clear()
    await voter.hear(two.me, replace_struct(asks, base=(end + 5, b"\x07" * 32)))
    assert [vote.is_granted for vote in said] == [True]
