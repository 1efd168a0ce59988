"""One leads and all read: what was acknowledged stays, whoever leads next."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import syncengine
from syncengine import (
    Invalid,
    LeaderFollowerManager,
    MemoryPipeline,
    NotLeader,
    PromotionFailed,
    Refused,
    Replica,
    SyncError,
)
from syncengine.clock import ms_from_hlc
from syncengine.ids import DeviceId
from syncengine.protocol.notices import Candidacy, Spoken, Vote
from syncengine.replication.election import Election
from syncengine.replication.link import Link
from syncengine.replication.replica import Opening
from syncengine.system import SystemClock, SystemEntropy
from tests.wires import Wire

# Not faster: a test beside others on two cores may stand still for 0.3 s.
FAST: dict[str, Any] = {"heartbeat_interval_ms": 20, "heartbeat_timeout_ms": 500}


async def until(so: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not so():  # many things may make it so
            await asyncio.sleep(0.005)


class Off(SystemClock):
    """A clock that may be wrong."""

    off_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


class Cluster:
    """Nodes of one namespace, each linked with each."""

    def __init__(self, stack: contextlib.AsyncExitStack):
        self.stack = stack
        self.replicas: list[Replica] = []
        self.clocks: list[Off] = []
        self.wires: dict[tuple[int, int], Wire] = {}
        self.nodes: list[LeaderFollowerManager] = []

    async def join(self, count: int, ops: str = "lead", **options: Any) -> None:
        for _ in range(count):
            clock, entropy = Off(), SystemEntropy()
            self.clocks.append(clock)
            opening = Opening(":memory:", clock=clock, entropy=entropy, **options)
            self.replicas.append(await self.stack.enter_async_context(opening))
        space = await self.replicas[0].namespace("tenant-abc")
        invite = await space.invite(ops, uses=count)
        for replica in self.replicas[1:]:
            await replica.join(invite, name="tenant-abc")

    async def reader(self) -> Replica:
        """One more, which may read and no more."""
        space = self.replicas[0].spaces()[0]
        replica = await self.stack.enter_async_context(syncengine.open(":memory:"))
        await replica.join(await space.invite("read"), name="tenant-abc")
        self.replicas.append(replica)
        self.clocks.append(Off())
        return replica

    async def mesh(self) -> None:
        for index, host in enumerate(self.replicas):
            for other in range(index + 1, len(self.replicas)):
                wire = self.wires[index, other] = Wire(host)
                link: Link = wire.link(self.replicas[other])
                await self.stack.enter_async_context(link)

    async def start(
        self,
        *,
        voters: int = 0,
        pipeline: Any = None,
        lease: Callable[[str], Any] | None = None,
        **options: Any,
    ) -> list[LeaderFollowerManager]:
        ids = [replica.id for replica in self.replicas[:voters]]
        for index, replica in enumerate(self.replicas):
            role = "follower" if index else "leader"
            name = f"{role}-{index or 1}"
            node = LeaderFollowerManager(
                name,
                role,  # type: ignore[arg-type]
                *(pipeline, replica, "tenant-abc"),
                voters=() if index else ids,
                lease=None if lease is None else lease(name),
                **{**FAST, **options},
            )
            await self.stack.enter_async_context(node)
            self.nodes.append(node)
        if voters:
            await until(lambda: self.leaders)
        return self.nodes

    @property
    def leaders(self) -> list[LeaderFollowerManager]:
        return [node for node in self.nodes if node.get_role() == "leader"]

    async def part(self, *apart: int) -> None:
        """Let nobody reach these nodes, nor they anybody else."""
        for pair, wire in self.wires.items():
            if len({*pair} & {*apart}) == 1:
                wire.plugged = False
                await wire.cut()

    def heal(self) -> None:
        for wire in self.wires.values():
            wire.plugged = True

    def applied(self) -> list[int]:
        return [node._space.engine.applied_index for node in self.nodes]


@pytest.fixture
async def cluster() -> AsyncGenerator[Cluster]:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        yield Cluster(stack)


@pytest.fixture
async def pair(cluster: Cluster) -> Cluster:
    """A leader and a follower, without voters."""
    await cluster.join(2)
    await cluster.mesh()
    await cluster.start()
    await until(lambda: cluster.nodes[1].leader_id)
    return cluster


@pytest.fixture
async def three(cluster: Cluster) -> Cluster:
    """Three voters; the first leads."""
    await cluster.join(3)
    await cluster.mesh()
    await cluster.start(voters=3)
    await until(lambda: cluster.nodes[0].get_role() == "leader")
    return cluster


# --- the guide's examples -------------------------------------------------------------


async def test_a_leader_writes_and_followers_read(pair: Cluster) -> None:
    leader, follower = pair.nodes
    applied: list[int] = []
    follower.on("eventApplied", lambda event: applied.append(event.sequence))

    one = await leader.write(
        "customer-123", {"name": "Alice", "email": "alice@example.com"}, "create"
    )
    two = await leader.write("customer-456", {"name": "Bob"})
    gone = await leader.write("customer-456", operation="delete")
    assert one.success
    assert [one.sequence, two.sequence, gone.sequence] == [1, 2, 3]
    await until(lambda: applied == [1, 2, 3])

    value = await follower.read("customer-123")
    assert value == {"name": "Alice", "email": "alice@example.com"}
    assert await follower.read("customer-456") is None
    await until(lambda: not follower.is_stale())
    assert follower.get_metrics().events_applied == 3
    assert leader.get_metrics().events_emitted == 3
    assert leader.get_metrics().heartbeats_sent > 0
    assert follower.get_metrics().heartbeats_sent == 0


async def test_a_follower_refuses_writes_and_says_who_leads(pair: Cluster) -> None:
    follower = pair.nodes[1]

    result = await follower.write("customer-456", {"name": "Bob"}, "create")

    assert not result.success
    assert result.error == "Follower is read-only. Redirect to leader."
    assert result.error_code == "FOLLOWER_READ_ONLY"
    assert result.leader_id == "leader-1"
    assert follower.get_metrics().writes_rejected == 1
    space = await pair.replicas[1].namespace("tenant-abc")
    with pytest.raises(NotLeader) as refused:
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "beside"
    assert refused.value.leader_id == "leader-1"


async def test_a_leader_knows_how_far_followers_are(pair: Cluster) -> None:
    leader, follower = pair.nodes
    await leader.register_follower("follower-9")
    for number in range(5):
        await leader.write("k", number)
    await until(lambda: leader.get_follower_lag("follower-1") == 0)

    state = leader.get_leader_state()
    assert state is not None
    assert (state.current_sequence, state.follower_count) == (5, 2)
    assert state.followers["follower-1"].last_reported_sequence == 5
    assert state.followers["follower-1"].last_heartbeat > 0
    assert leader.get_follower_lag("follower-9") == 5
    assert leader.get_connected_followers() == ["follower-1"]
    assert follower.get_leader_state() is None
    await until(lambda: pair.applied() == [5, 5])
    followed = follower.get_follower_state()
    assert followed is not None
    assert (followed.applied_sequence, followed.leader_id) == (5, "leader-1")
    await leader.unregister_follower("follower-9")
    assert leader.get_follower_lag("follower-9") is None


async def test_a_leader_that_falls_silent_has_failed_once(pair: Cluster) -> None:
    leader, follower = pair.nodes
    failed: list[str] = []
    follower.on("leaderFailed", lambda event: failed.append(event.leader_id))
    await until(follower.is_leader_healthy)
    assert follower.can_participate_in_election()

    await pair.part(0)
    await until(lambda: failed)
    await asyncio.sleep(0.5)
    assert failed == ["leader-1"]
    assert not follower.is_leader_healthy()
    pair.heal()
    await until(follower.is_leader_healthy)
    assert leader.get_role() == "leader"


# --- writing and reading --------------------------------------------------------------


async def test_creating_and_changing_may_be_strict(pair: Cluster) -> None:
    leader = pair.nodes[0]

    assert (await leader.write("k", 1, "create")).success
    again = await leader.write("k", 2, "create", strict=True)
    missing = await leader.write("none", 2, "update", strict=True)
    gone = await leader.write("none", operation="delete", strict=True)
    assert (again.error_code, again.status) == ("ALREADY_EXISTS", "failed")
    assert missing.error_code == gone.error_code == "NOT_FOUND"
    assert await leader.read("k") == 1
    assert (await leader.write("k", 3, "create")).success


async def test_a_write_is_done_once_whoever_leads_when_it_is_tried_again(
    pair: Cluster,
) -> None:
    leader, follower = pair.nodes
    one = await leader.write("k", 1, client_op_id="pay-1")
    assert (await leader.write("k", 1, client_op_id="pay-1")).sequence == one.sequence
    await until(lambda: pair.applied() == [1, 1])
    await leader.demote()
    await follower.promote()
    await follower.write("k", 2)

    again = await follower.write("k", 1, client_op_id="pay-1")
    assert (again.success, again.sequence) == (True, 1)
    assert await follower.read("k") == 2


async def test_a_write_says_how_far_it_got(three: Cluster) -> None:
    leader = three.nodes[0]

    local = await leader.write("k", 1, level="local")
    most = await leader.write("k", 2)
    one = await leader.write("k", 3, level=1)
    every = await leader.write("k", 4, level="all")
    levels = [result.level for result in (local, most, one, every)]
    assert levels == ["local", "majority", 1, "all"]
    assert all(result.status == "ok" for result in (local, most, one, every))
    await three.part(2)
    late = await leader.write("k", 5, level="all", timeout_ms=50)
    assert (late.success, late.status, late.error_code) == (False, "unknown", "TIMEOUT")
    assert (await leader.write("k", 6)).success


async def test_what_only_voters_can_acknowledge_is_refused_without(
    pair: Cluster,
) -> None:
    leader = pair.nodes[0]
    with pytest.raises(Invalid, match="no voters"):
        await leader.write("k", 1, level="majority")
    with pytest.raises(Invalid, match="no operation"):
        await leader.write("k", 1, "upsert")  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        await leader.write("a/b", 1)
    with pytest.raises(Invalid):
        await leader.write("k", object())
    assert pair.applied()[0] == 0


# --- elections ------------------------------------------------------------------------


async def test_three_voters_elect_another_when_the_leader_is_gone(
    three: Cluster,
) -> None:
    nodes = three.nodes
    written = await nodes[0].write("k", 1)
    assert (written.success, written.level) == (True, "majority")

    await nodes[0].close()
    await until(lambda: any(n.get_role() == "leader" for n in nodes[1:]))

    (leader,) = [n for n in nodes[1:] if n.get_role() == "leader"]
    assert await leader.read("k", "strong") == 1
    again = await leader.write("k", 2)
    assert (again.success, again.sequence) == (True, 2)


async def test_a_leader_without_a_majority_stops_and_its_tail_is_rescued(
    three: Cluster,
) -> None:
    old = three.nodes[0]
    rescued: list[Any] = []
    old.on("writesRescued", rescued.append)
    await old.write("k", "kept")
    await until(lambda: three.applied() == [1, 1, 1])
    await three.part(0)
    writing = [
        asyncio.create_task(old.write(f"t{n}", n, client_op_id=f"op{n}"))
        for n in range(3)
    ]
    results = await asyncio.gather(*writing)
    assert {result.status for result in results} == {"unknown"}
    await until(lambda: old.get_role() == "follower")
    assert await old.read("t0") is None  # nobody is promised it
    await until(lambda: any(n.get_role() == "leader" for n in three.nodes[1:]))
    (leader,) = [n for n in three.nodes[1:] if n.get_role() == "leader"]
    again = await leader.write("t1", 1, client_op_id="op1")
    assert again.success

    three.heal()
    await until(lambda: rescued)
    assert sum(event.count for event in rescued) == 3
    assert {event.leader_id for event in rescued} == {"leader-1"}
    await until(lambda: three.applied() == [2, 2, 2])
    waiting = await leader.rescue.list()
    assert [one.operation_id for one in waiting] == ["op0", "op2"]
    assert {one.sequence for one in waiting} <= {2, 3, 4}
    told = await leader.rescue.list(decided=True)
    assert [one.decided for one in told] == [None, "committed", None]
    (record, _) = await leader.rescue.export()
    (document,) = record["documents"]
    assert document["before"] is None
    assert document["after"]["value"] == {"value": 0}
    with pytest.raises(NotLeader):
        await old.rescue.replay()
    assert await leader.rescue.dismiss([waiting[1].id]) == 1
    assert await leader.rescue.replay() == [waiting[0].id]
    assert await leader.rescue.list() == []
    await until(lambda: three.applied() == [3, 3, 3])
    assert [await old.read(f"t{n}") for n in range(3)] == [0, 1, None]


async def test_what_was_written_over_may_be_written_again(pair: Cluster) -> None:
    one, two = pair.nodes
    await one.write("k", "common")
    await until(lambda: pair.applied() == [1, 1])
    await pair.part(0)
    await two.promote(require="i_accept_loss", reason="test")
    await one.write("k", "of one")
    await two.write("k", "of two")
    pair.heal()
    await until(lambda: pair.leaders == [two] and pair.applied() == [2, 2])
    (waiting,) = await two.rescue.list()

    assert await two.rescue.replay([waiting.id], "write") == [waiting.id]
    assert await two.read("k") == "of one"
    with pytest.raises(syncengine.NotFound):
        await two.rescue.dismiss(["nobody"])
    with pytest.raises(Invalid):
        await two.rescue.replay(how="force")  # type: ignore[arg-type]


async def test_texts_counters_and_sets_of_the_rescue_area_merge(pair: Cluster) -> None:
    two = pair.nodes[1]
    ours, theirs = [await r.namespace("tenant-abc") for r in pair.replicas]
    async with ours.transaction() as tx:
        tx["doc/1"].text("body").insert(0, "shared")
        tx["doc/1"].counter("n").increment(1)
    await until(lambda: pair.applied() == [1, 1])
    await pair.part(0)
    await two.promote(require="i_accept_loss", reason="test")
    for word in ("<1>", "<2>"):
        async with ours.transaction() as tx:
            tx["doc/1"].text("body").append(word)
            tx["doc/1"].counter("n").increment(10)
            tx["doc/1"].set("tags").add(word)
    async with theirs.transaction() as tx:
        tx["doc/1"].text("body").insert(0, "their ")
        tx["doc/1"].counter("n").increment(100)
    pair.heal()
    await until(lambda: pair.leaders == [two] and pair.applied() == [2, 2])

    assert len(await two.rescue.replay()) == 2
    document = await theirs.get("doc/1")
    assert document["body"] == "their shared<1><2>"
    assert document["n"] == 121
    assert document["tags"] == {"<1>", "<2>"}
    await until(lambda: pair.applied() == [4, 4])


async def test_nobody_votes_for_one_who_lacks_something(three: Cluster) -> None:
    for number in range(3):
        await three.nodes[0].write("k", number)
    await until(lambda: three.applied() == [3, 3, 3])
    candidate = three.nodes[2]._election
    answers: list[bool] = []
    hear = candidate.hear

    async def noting(author: DeviceId, said: Spoken) -> None:
        if isinstance(said, Vote):
            answers.append(said.is_granted)
        await hear(author, said)

    candidate.hear = noting  # type: ignore[method-assign]
    top = candidate.top
    assert top is not None
    entry = three.nodes[2]._space.engine.entry_at(2)
    assert entry is not None
    for base in (None, (2, entry.id)):
        mode = three.nodes[2]._space.engine.keeper.terms.mode_id
        candidate.say(Candidacy(mode, 9, "n", True, bytes(16), top.id, base, [], True))
    await until(lambda: len(answers) == 4)
    assert answers == [False] * 4


async def test_a_voter_votes_once_in_a_term(three: Cluster) -> None:
    granted: list[DeviceId] = []

    def note(election: Election) -> None:
        hear = election.hear

        async def noting(author: DeviceId, said: Spoken) -> None:
            if isinstance(said, Vote) and said.is_granted and said.term == 9:
                granted.append(author)
            await hear(author, said)

        election.hear = noting  # type: ignore[method-assign]

    candidates = [three.nodes[n]._election for n in (0, 1)]
    voters: list[bytes] = list(candidates[0].voters)
    top = candidates[0].top
    assert top is not None
    await until(lambda: candidates[1].top is not None)
    mode = three.nodes[0]._space.engine.keeper.terms.mode_id
    for number, candidate in enumerate(candidates):
        note(candidate)
        for actor in (bytes([number]) * 16, bytes([number + 5]) * 16):
            candidate.say(
                Candidacy(mode, 9, "n", False, actor, top.id, None, voters, True)
            )
    await until(lambda: len(granted) >= 3 or len(set(granted)) == 3)
    await asyncio.sleep(0.1)
    third = three.nodes[2]._election.me
    assert granted.count(third) == 1


async def test_who_is_not_eligible_neither_stands_nor_is_promoted(
    cluster: Cluster,
) -> None:
    await cluster.join(2)
    await cluster.mesh()
    await cluster.start()
    other = LeaderFollowerManager(
        *("late", "follower", None, cluster.replicas[1], "tenant-abc"),
        promotion_eligible=False,
    )
    await cluster.nodes[1].close()
    async with other:
        await until(lambda: other.leader_id)
        assert not other.can_participate_in_election()
        with pytest.raises(PromotionFailed, match="not eligible"):
            await other.promote()


async def test_only_an_owner_gives_a_namespace_a_leader(cluster: Cluster) -> None:
    await cluster.join(2)
    stranger = LeaderFollowerManager(
        *("x", "leader", None, cluster.replicas[1], "tenant-abc")
    )
    with pytest.raises(Refused, match="only an owner"):
        await stranger.start()


TEN_MINUTES = 600_000


def stamped_ms(node: LeaderFollowerManager) -> int:
    """When the latest change of a leader was made, as it says."""
    return ms_from_hlc(node._space.engine.clock.last)


async def test_a_leaders_wrong_clock_is_corrected_by_the_voters(
    three: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    leader = three.nodes[0]
    three.clocks[0].off_ms = TEN_MINUTES
    await until(lambda: three.replicas[0].clock_suspect)
    assert "600 s off the others'" in caplog.text
    assert (await leader.write("k", 1)).success
    assert stamped_ms(leader) < SystemClock().now_ms() + TEN_MINUTES / 2


async def test_who_is_elected_asks_for_the_time_first(three: Cluster) -> None:
    """What it stamps before would stay ahead."""
    three.clocks[1].off_ms = TEN_MINUTES
    await three.nodes[1].promote()
    assert (await three.nodes[1].write("k", 1)).success
    assert stamped_ms(three.nodes[1]) < SystemClock().now_ms() + TEN_MINUTES / 2


async def test_one_wrong_clock_among_the_voters_decides_nothing(three: Cluster) -> None:
    three.clocks[1].off_ms = TEN_MINUTES
    leader = three.nodes[0]
    voter, election = DeviceId(three.replicas[1].key.public), leader._election
    await until(lambda: voter in election.followers)
    beat = election.beat
    await until(lambda: election.followers[voter].beat > beat + 2)
    assert not three.replicas[0].clock_suspect


async def test_with_a_strict_clock_a_leader_that_is_off_leads_no_more(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.join(3, strict_clock=True)
    await cluster.mesh()
    await cluster.start(voters=3)
    await until(lambda: cluster.leaders)
    leader = cluster.leaders[0]
    cluster.clocks[cluster.nodes.index(leader)].off_ms = TEN_MINUTES
    await until(lambda: leader not in cluster.leaders)
    await until(lambda: cluster.leaders)
    assert leader not in cluster.leaders
    assert "set it right" in caplog.text


# --- over a pipeline, and otherwise ---------------------------------------------------


async def test_a_pipeline_carries_all_of_it(cluster: Cluster) -> None:
    await cluster.join(3)
    pipeline = MemoryPipeline(4)
    nodes = await cluster.start(voters=3, pipeline=pipeline)
    await until(lambda: nodes[0].get_role() == "leader")
    result = await nodes[0].write("k", 1)
    assert (result.success, result.level, result.queued) == (True, "majority", False)
    await until(lambda: cluster.applied() == [1, 1, 1])

    await nodes[0].close()
    await until(lambda: any(n.get_role() == "leader" for n in nodes[1:]))
    (leader,) = [n for n in nodes[1:] if n.get_role() == "leader"]
    assert (await leader.write("k", 2)).sequence == 2


async def test_a_write_while_nobody_is_there_is_queued_and_goes_out_later(
    cluster: Cluster,
) -> None:
    await cluster.join(2)
    await cluster.mesh()
    await cluster.part(0)
    leader, follower = await cluster.start()

    result = await leader.write("k", 1)
    assert (result.success, result.queued, result.sequence) == (True, True, 1)
    cluster.heal()
    await until(lambda: cluster.applied() == [1, 1])
    assert await follower.read("k") == 1
    assert not (await leader.write("k", 2)).queued


async def test_a_heartbeat_service_carries_what_links_do_not(cluster: Cluster) -> None:
    heard: list[Callable[[bytes], None]] = []

    class Bus:
        def send(self, raw: bytes) -> None:
            for one in heard:
                asyncio.get_running_loop().call_soon(one, raw)

        def listen(self, one: Callable[[bytes], None]) -> None:
            heard.append(one)

    await cluster.join(2)
    await cluster.mesh()
    leader, follower = await cluster.start(heartbeat_service=Bus())
    await leader.write("k", 1)
    await until(lambda: cluster.applied() == [1, 1])
    await cluster.part(0)
    await asyncio.sleep(0.5)
    assert follower.is_leader_healthy()
    heard[0](b"garbage")


async def test_a_new_follower_begins_from_the_beginning(pair: Cluster) -> None:
    leader, follower = pair.nodes
    for number in range(150):
        await leader.write("k", number, level="local")
    await until(lambda: pair.applied() == [150, 150])
    await follower.close()
    sequences: list[int] = []
    again = LeaderFollowerManager(
        *("follower-new", "follower", None, pair.replicas[1], "tenant-abc"),
        "leader-1",
        last_applied_sequence=0,
    )
    again.on("eventApplied", lambda event: sequences.append(event.sequence))
    async with again:
        await until(lambda: len(sequences) == 150)
    assert sequences == list(range(1, 151))


async def test_a_closed_manager_says_so(pair: Cluster) -> None:
    leader = pair.nodes[0]
    await leader.close()

    result = await leader.write("k", 1)
    assert (result.success, result.error_code) == (False, "MANAGER_CLOSED")
    with pytest.raises(syncengine.Closed):
        await leader.read("k")
    with pytest.raises(syncengine.Closed):
        await leader.promote()


async def test_wrong_options_are_refused(pair: Cluster) -> None:
    def made(**options: Any) -> LeaderFollowerManager:
        given: dict[str, Any] = {
            "node_id": "n", "role": "leader", "pipeline": None,
            "state_store": pair.replicas[0], "namespace": "tenant-abc", **options,
        }  # fmt: skip
        return LeaderFollowerManager(**given)

    for wrong in (
        {"node_id": ""},
        {"role": "boss"},
        {"heartbeat_interval_ms": 0},
        {"heartbeat_timeout_ms": 1000},
        {"max_staleness_ms": -1},
        {"last_applied_sequence": -1},
        {"voters": ["nobody"]},
        {"collection": "Upper Case"},
    ):
        with pytest.raises(Invalid):
            made(**wrong)
    with pytest.raises(Invalid, match="no event"):
        made().on("explosion", print)
    with pytest.raises(Invalid, match="start the manager"):
        made().is_stale()
    with pytest.raises(syncengine.NotFound):
        await made(namespace="other").start()


async def test_a_handler_that_fails_holds_up_nobody(pair: Cluster) -> None:
    leader, follower = pair.nodes
    seen: list[int] = []

    async def bad(_: Any) -> None:
        raise RuntimeError("a bug of the application")

    follower.on("eventApplied", bad)
    follower.on("eventApplied", lambda event: seen.append(event.sequence))
    await leader.write("k", 1)
    await leader.write("k", 2)
    await until(lambda: seen == [1, 2])


async def test_a_manager_may_be_cancelled_while_it_writes(three: Cluster) -> None:
    leader = three.nodes[0]
    for number in range(20):
        task = asyncio.create_task(leader.write("k", number, client_op_id=str(number)))
        await asyncio.sleep(0.0005 * number)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SyncError):
            await task
        again = await leader.write("k", number, client_op_id=str(number))
        assert again.success
    await until(lambda: len(set(three.applied())) == 1)
    assert three.applied()[0] == 20
