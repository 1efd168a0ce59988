"""The story of a leader and its voters: who leads changes all the time, and nothing
that a majority acknowledged is ever lost.

Checked are L1 (one leader a term), L2 (one log), L3 and D1 (what was acknowledged is in
every later log, at its place), L4 (strong reads are linearizable), L5 (what is in no
log is void everywhere, and in the rescue area once), O2 (sessions), B3 (what failed has
no effect, and each outcome has a name) and C1. `judge`
knows nothing of the engine but the ids in the log.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from syncengine.errors import (
    Closed,
    HistoryDiverged,
    NotLeader,
    StaleRead,
    SyncError,
)
from syncengine.ids import ActorId, DeviceId, node_id
from syncengine.replication import feed
from syncengine.replication.election import Lease
from syncengine.replication.leader_follower import LeaderFollowerManager
from syncengine.replication.rescue import RESCUED
from syncengine.testing.disk import SimDisk
from syncengine.testing.world import Invariant, Node, World, assert_converged
from syncengine.trust.entry import Kind

NAMES = ("ann", "bob", "cyd", "dee", "eve")
CLIENTS = 4
KEYS = ("x", "y", "z")

SECONDS_MIN = 90.0
ELECTIONS_MIN = 3
DONE_MIN = 100
WRITES_MIN = 30
READS_MIN = 5  # strong ones, and of sessions

FAULTS = (
    *("crash", "crash", "isolate", "isolate", "deaf", "pause", "bridge", "split"),
    *("clock", "full", "cut", "hand over"),
)

# What a write that is tried again may be refused for: it is not known, or there is
# nobody who could know it.
REFUSED = (
    *("FOLLOWER_READ_ONLY", "NOT_LEADER", "STALE_LEADER", "MANAGER_CLOSED"),
    *("STORE_FAILED", "TIMEOUT"),
)

# How much longer than it was to be a seed may be, so that it proves something.
PATIENCE_SECONDS = 240.0

# What is waited for until one leads who can.
LEADER_SECONDS = 120.0


@dataclass
class Done:
    """An operation of a client, as it saw it."""

    client: int
    kind: Literal["write", "strong", "session"]
    key: str
    began: float
    ended: float
    name: str = ""
    """Of a write: its client operation id"""
    status: str = "ok"
    value: Any = None
    sequence: int = 0
    floor: int = 0
    """What the client had seen before"""
    token: str | None = None
    """What names the log and the place in it"""
    server: str = ""
    """Which node was asked"""


async def led(world: World) -> None:
    """Three or five voters, each linked with each, and all that can go wrong."""
    await Led(world, NAMES[: world.random.choice((3, 3, 5))]).lived()


def check_once(log: list[str | None]) -> set[str]:
    """Return the client operation ids in a log; D2: each is there once."""
    named = [name for name in log if name is not None]
    if len(set(named)) != len(named):
        raise Invariant("D2", "a write is in the log twice")
    return set(named)


def judge(
    history: list[Done],
    chain: list[str | None],
    before: Sequence[tuple[str, Any]] = (),
) -> None:
    """Check what clients saw against the log that came of it: the client operation id
    of each entry, from index 1 on; `before`: (key, value) of what was written before
    it. Raises `Invariant`."""
    named = check_once(chain)
    writes = {done.name: done for done in history if done.kind == "write"}
    for done in writes.values():
        place = done.sequence - 1
        if done.status == "ok" and (place >= len(chain) or chain[place] != done.name):
            raise Invariant("L3", f"{done.name} was acknowledged and is not in the log")
        if done.status == "failed" and done.name in named:
            raise Invariant("B3", f"{done.name} failed and is in the log")
    for done in history:
        if done.kind == "write":
            continue
        if done.sequence > len(chain):
            raise Invariant("L4", f"a read saw {done.sequence}, which is not there")
        expected = dict(before).get(done.key)
        for name in chain[: done.sequence]:
            if name is not None and writes[name].key == done.key:
                expected = writes[name].value
        if done.value != expected:
            raise Invariant(
                "L4", f"a {done.kind} read of {done.key} at {done.sequence} saw "
                f"{done.value!r}, and not {expected!r}"
            )  # fmt: skip
    _check_order([done for done in history if done.status == "ok"])
    for done in history:
        if done.status == "ok" and done.sequence < done.floor:
            raise Invariant(
                "O2", f"client {done.client} saw {done.sequence} after {done.floor}"
            )


def _check_order(history: list[Done]) -> None:
    """What ended before another began has no higher place in the log."""
    strong = [done for done in history if done.kind != "session"]
    moments = sorted(
        [(done.began, 0, done) for done in strong]
        + [(done.ended, 1, done) for done in strong],
        key=lambda moment: moment[:2],
    )
    newest = 0
    least: dict[int, int] = {}
    for _, is_end, done in moments:
        if not is_end:
            least[id(done)] = newest
            continue
        before = least[id(done)]
        if done.sequence < before or (done.kind == "write" and done.sequence <= before):
            raise Invariant(
                "L4", f"{done.kind} at {done.sequence}, after one at {before} had ended"
            )
        newest = max(newest, done.sequence)


@dataclass
class Session:
    token: str | None = None
    sequence: int = 0
    unknown: list[Done] = field(default_factory=list[Done])
    """Writes of which nobody knows what became"""

    def saw(self, token: str | None, sequence: int) -> None:
        if token is not None and sequence >= self.sequence:
            self.token, self.sequence = token, sequence


class Led:
    """Machines that elect a leader, their clients, and their troubles."""

    invite_uses = 5
    faults: tuple[str, ...] = FAULTS
    elections_min = ELECTIONS_MIN
    done_min = DONE_MIN
    writes_min = WRITES_MIN
    reads_min = READS_MIN
    asks_paused = False
    """Whether clients ask nodes that sleep, too: they answer once they are awake"""
    founder_role: Literal["leader", "follower"] = "leader"

    def __init__(self, world: World, names: tuple[str, ...], voters: int | None = None):
        self.world = world
        self.names = list(names)
        self.voting = self.names[:voters]
        """Who votes from the beginning on; the others follow"""
        self.founder = self.names[0]
        self.invite = ""
        self.managers: dict[str, LeaderFollowerManager] = {}
        self.history: list[Done] = []
        self.terms: dict[tuple[int, bytes], str] = {}
        self.starting: set[str] = set()
        self._tasks: list[asyncio.Future[None]] = []

    async def lived(self) -> None:
        """Live through it, and judge what came of it."""
        world = self.world
        await self.found()
        until = world.loop.now + world.random.uniform(SECONDS_MIN, SECONDS_MIN + 30)
        clients = [
            asyncio.ensure_future(self.client(number, until))
            for number in range(CLIENTS)
        ]
        trouble = asyncio.ensure_future(self.trouble(until))
        watcher = asyncio.ensure_future(self.watch())
        await asyncio.gather(trouble, *clients, *self.others(until))
        if watcher.done():
            watcher.result()
        watcher.cancel()
        await self.ended()
        await self.heal()
        await self.one_leads()
        await self.mended()
        await assert_converged(world)
        chain = self.chain()
        await self.judged(chain)
        await self.check_logs(chain)
        report = world.report
        report.transactions = sum(done.status == "ok" for done in self.history)
        report.elections = len(self.terms) - 1
        if (
            report.elections < self.elections_min
            or self.is_little()
            or world.loop.now < SECONDS_MIN
        ):
            raise AssertionError(f"this seed proves too little: {report}")

    def is_little(self) -> bool:
        """Whether clients were answered so rarely that it proves nothing."""
        seen = Counter(done.kind for done in self.history if done.status == "ok")
        return (
            seen.total() < self.done_min
            or seen["write"] < self.writes_min
            or min(seen["strong"], seen["session"]) < self.reads_min
        )

    def others(self, until: float) -> list[Coroutine[Any, Any, None]]:
        """What else goes on until then."""
        return []

    async def nobody_leads(self) -> None:
        """What people do when nobody leads."""

    async def mended(self) -> None:
        """What people do when all is over."""

    async def judged(self, chain: list[str | None]) -> None:
        """Check what clients saw."""
        judge(self.history, chain)

    async def judged_with_rescue(self, chain: list[str | None]) -> None:
        """Where not only a majority decides: what was acknowledged is in the log, or
        in the rescue area of somebody."""
        log = check_once(chain)
        rescued: set[str | None] = set()
        for node in self.world.replicas():
            found = await node.wait(node.space.rescue.list(decided=True))
            rescued |= {one.operation_id for one in found}
        for done in self.history:
            if done.kind != "write":
                continue
            if done.status == "ok" and done.name not in log | rescued:
                raise Invariant("L5", f"{done.name} was acknowledged and is nowhere")
            if done.status == "failed" and done.name in log:
                raise Invariant("B3", f"{done.name} failed and is in the log")

    # --- machines ---------------------------------------------------------------------

    async def found(self) -> None:
        world = self.world
        founder = await world.replica(self.founder)
        assert founder.replica is not None
        await founder.wait(founder.replica.namespace("home"))
        invite = founder.space.invite("lead", uses=self.invite_uses)
        self.invite = str(await founder.wait(invite))
        voters = [founder.replica.id]
        for name in self.names[1:]:
            node = await self.joined(name)
            if name in self.voting:
                assert node.replica is not None
                voters.append(node.replica.id)
        for name in self.names:
            await self.link(world.nodes[name])
        for name in self.names:
            await self.manage(world.nodes[name], voters)
        await self.one_leads()

    async def joined(self, name: str) -> Node:
        """Start a new machine, which is a member."""
        node = await self.world.replica(name)
        assert node.replica is not None
        await node.wait(node.replica.join(self.invite, name="home"))
        return node

    async def link(self, node: Node) -> None:
        """Dial those who come before: so each pair has one link."""
        for name in self.names[: self.names.index(node.name)]:
            host = self.world.nodes[name]
            if node.is_up and host.is_up and host.replica is not None:
                await node.connect(host)  # else it dials us, once it has started
        for name in self.names[self.names.index(node.name) + 1 :]:
            other = self.world.nodes[name]
            is_ready = other.is_up and other.replica is not None
            if is_ready and node.is_up and not self._dials(other, node):
                await other.connect(node)

    def _dials(self, node: Node, host: Node) -> bool:
        return any(link.address.url == f"ws://{host.name}" for link in node.links)

    async def manage(self, node: Node, voters: list[str]) -> None:
        if not node.is_up:
            return
        manager = LeaderFollowerManager(
            node.name,
            self.founder_role if node.name == self.founder else "follower",
            None,
            node.space,
            "home",
            voters=voters,
            lease=self.lease(node.name),
        )
        self.managers[node.name] = manager
        await node.wait(manager.start())

    def lease(self, name: str) -> Lease | None:
        """Return who says outside whether a machine may lead."""

    async def start(self, name: str) -> None:
        node = self.world.nodes.get(name)
        if node is None or node.is_up or name in self.starting:
            return
        self.starting.add(name)
        try:
            _free(node.disk)
            await node.start()
            await self.link(node)
            await self.manage(node, [])
        finally:
            self.starting.discard(name)

    def leader(self) -> str | None:
        """Return who leads by his own word, in the highest term."""
        found = [
            (manager.term, name)
            for name, manager in self.managers.items()
            if self.works(name) and manager.get_role() == "leader"
        ]
        return max(found)[1] if found else None

    def works(self, name: str) -> bool:
        node, manager = self.world.nodes.get(name), self.managers.get(name)
        if node is None or manager is None or not node.is_up:
            return False
        if node.life.paused and not self.asks_paused:
            return False
        return bool(node.replica and node.replica.spaces()) and manager.is_of(
            node.space
        )

    async def one_leads(self) -> None:
        deadline = self.world.loop.now + LEADER_SECONDS
        while self.world.loop.now < deadline:
            self.world.check_failures()
            name = self.leader()
            if name is None:
                await self.nobody_leads()
            else:
                done = await self._write(-1, name, self.world.random.choice(KEYS))
                if done.status == "ok":
                    return
            await asyncio.sleep(1)
        raise Invariant("B2", f"nobody leads within {LEADER_SECONDS:.0f} s")

    # --- clients ----------------------------------------------------------------------

    async def client(self, number: int, until: float) -> None:
        world, chance = self.world, self.world.random
        seen = Session()
        while world.loop.now < until or (
            self.is_little() and world.loop.now < until + PATIENCE_SECONDS
        ):
            await asyncio.sleep(chance.expovariate(0.8))
            world.check_failures()
            name = self.leader() if chance.random() < 0.8 else None
            name = name or chance.choice(self.names)
            if not self.works(name):
                continue
            key = chance.choice(KEYS)
            roll = chance.random()
            if seen.unknown and roll < 0.3:
                await self._write_again(name, seen)
            elif roll < 0.5:
                await self._write(number, name, key, seen)
            elif roll < 0.75:
                await self._read(number, name, key, "strong", seen)
            else:
                anywhere = chance.choice(self.names)
                if self.works(anywhere):
                    await self._read(number, anywhere, key, "session", seen)

    _count = 0
    retried = 0

    async def _write(
        self, client: int, name: str, key: str, seen: "Session | None" = None
    ) -> Done:
        self._count += 1
        node, manager = self.world.nodes[name], self.managers[name]
        op = f"op{self._count}"
        done = Done(client, "write", key, self.world.loop.now, 0, op, "unknown", op)
        done.server = name
        self.history.append(done)
        try:
            result = await node.wait(manager.write(key, op, client_op_id=op))
        except Closed:  # its machine is going down
            result = None
        except SyncError as error:
            raise Invariant(
                "B3", f"{op} raised {error!r}, which says nothing"
            ) from error
        done.ended = self.world.loop.now
        if result is not None:  # else it crashed: nobody knows
            done.status, done.sequence = result.status, result.sequence or 0
            done.token = result.token
            self.world.trace(op, result.status)
            if seen is not None and result.status == "ok":
                seen.saw(result.token, done.sequence)
        if seen is not None and done.status == "unknown":
            seen.unknown.append(done)
        return done

    async def _write_again(self, name: str, seen: "Session") -> None:
        """Try a write again, under its operation id: it happens once."""
        node, manager = self.world.nodes[name], self.managers[name]
        done = seen.unknown[-1]
        try:
            result = await node.wait(
                manager.write(done.key, done.value, client_op_id=done.name)
            )
        except Closed:
            return
        if (
            result is not None
            and result.status == "failed"
            and result.error_code not in REFUSED
        ):
            raise Invariant(
                "B3", f"{done.name} failed when it was tried again: {result}"
            )
        if result is not None and result.status == "ok":
            done.status, done.sequence = "ok", result.sequence or 0
            done.token = result.token
            done.server, done.ended = name, self.world.loop.now
            self.retried += 1
            seen.unknown.remove(done)
            seen.saw(result.token, done.sequence)

    async def _read(
        self,
        client: int,
        name: str,
        key: str,
        kind: Literal["strong", "session"],
        seen: "Session",
    ) -> None:
        node, manager = self.world.nodes[name], self.managers[name]
        done = Done(client, kind, key, self.world.loop.now, 0, floor=seen.sequence)
        token = seen.token or ""
        strong = kind == "strong"
        if not strong and manager.get_role() == "leader":
            strong = True  # what a leader shows may be in no later log
        try:
            result = await node.wait(
                manager.read_result(
                    key, "strong" if strong else "any", token=token, timeout_ms=8_000
                )
            )
        except HistoryDiverged:
            self.diverged(seen)
            return
        except (StaleRead, NotLeader, Closed):
            return
        if result is None or (not strong and manager.get_role() == "leader"):
            return
        done.ended, done.server = self.world.loop.now, name
        done.value, done.sequence = result.value, result.sequence
        done.token = result.token
        self.history.append(done)
        seen.saw(result.token, done.sequence)

    def diverged(self, seen: "Session") -> None:
        """A session was told that what it saw was taken back."""
        raise Invariant("O2", "what a majority has was taken back")

    # --- trouble ----------------------------------------------------------------------

    async def trouble(self, until: float) -> None:
        world, chance = self.world, self.world.random
        while world.loop.now < until or len(self.terms) - 1 < ELECTIONS_MIN:
            await asyncio.sleep(chance.uniform(4, 16))
            if world.loop.now > until + PATIENCE_SECONDS:
                return
            victim = self.leader() if chance.random() < 0.75 else None
            victim = victim or chance.choice(self.names)
            what = chance.choice(self.faults)
            world.trace(what, victim)
            await self.strike(what, victim)

    async def strike(self, what: str, victim: str) -> None:
        world, chance = self.world, self.world.random
        node, network = world.nodes[victim], world.network
        others = [name for name in self.names if name != victim]
        later = chance.uniform(4, 25)
        match what:
            case "crash" if node.is_up and victim not in self.starting:
                world.loop.resume(node.life)
                node.crash()
                self.begin(self._restart(victim, later))
            case "isolate":
                for other in others:
                    network.part(victim, other)
                world.loop.call_later(later, network.heal)
            case "bridge" | "split":
                side = others[: len(self.names) // 2]
                rest = [name for name in others if name not in side]
                if what == "split":
                    side = [*side, victim] if chance.random() < 0.5 else side
                    rest = [name for name in self.names if name not in side]
                for one in side:
                    for two in rest:
                        network.part(one, two)
                world.loop.call_later(later, network.heal)
            case "strand":  # with one other, and no majority
                friend = chance.choice(others)
                for other in others:
                    if other != friend:
                        network.part(victim, other)
                        network.part(friend, other)
                world.loop.call_later(later, network.heal)
            case "deaf":
                for other in others:
                    network.deaf.add(
                        (victim, other) if chance.random() < 0.7 else (other, victim)
                    )
                world.loop.call_later(later, network.heal)
            case "pause" if node.is_up:
                node.life.paused = True
                life = node.life
                world.loop.call_later(later, world.loop.resume, life)
            case "clock":
                node.clock.skew_ms += chance.choice((-3_600_000, 3_600_000, 50_000))
            case "full" if victim not in self.starting:
                node.disk.full = True
                world.loop.call_later(chance.uniform(0.1, 6), _free, node.disk)
            case "slow":
                node.disk.delay = chance.uniform(0.1, 3)
                world.loop.call_later(later, _free, node.disk)
            case "ring":  # each reaches the next two
                places = enumerate(self.names)
                for (place, one), (other_place, two) in combinations(places, 2):
                    if other_place - place not in (1, len(self.names) - 1):
                        network.part(one, two)
                world.loop.call_later(later, network.heal)
            case "hand over" if self.works(victim):
                self.begin(self._hand_over(victim))
            case _:
                network.cut_one()

    def begin(self, what: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(what))

    async def ended(self) -> None:
        """Wait for all that was begun, and raise what it raised."""
        await asyncio.gather(*self._tasks)

    async def _restart(self, name: str, later: float) -> None:
        await asyncio.sleep(later)
        await self.start(name)

    async def _hand_over(self, name: str) -> None:
        with contextlib.suppress(SyncError):  # nobody took over
            await self.world.nodes[name].wait(self.managers[name].demote())

    async def watch(self) -> None:
        """L1 and C2 all the time."""
        while True:
            await asyncio.sleep(1.3)
            self._check_terms()
            self.world.compare_equal_versions()

    is_forced = False
    """Whether somebody may lead without a majority; two may then take one number"""

    def _check_terms(self) -> None:
        numbers: dict[tuple[bytes, int, str], bytes] = {}
        for node in self.world.replicas():
            if node.replica is None or not node.replica.spaces():
                continue
            for name, record in node.space.engine.keeper.membership.terms.items():
                node_id = record.node if self.is_forced else ""
                own = record.mode, record.number, node_id
                if numbers.setdefault(own, name) != name:
                    raise Invariant("L1", f"two lead in term {record.number}")
                self.terms[record.number, name] = record.node

    async def heal(self) -> None:
        world = self.world
        world.network.heal()
        weather = world.network.weather
        weather.drop = weather.duplicate = weather.reorder = weather.delay_tail = 0.0
        for name in self.names:
            node = world.nodes[name]
            _free(node.disk)
            node.clock.skew_ms, node.clock.rate = 0, 1.0
            if node.is_up:
                world.loop.resume(node.life)
        for name in self.names:
            await self.start(name)

    # --- at the end -------------------------------------------------------------------

    def chain(self) -> list[str | None]:
        """Return the client operation ids of the log, as one node has it."""
        engine = self.world.nodes[self.names[0]].space.engine
        chain: list[str | None] = []
        while found := engine.entries_from(len(chain) + 1, 100):
            for position, batch in found:
                changes = feed.told(engine.keeper, position - 1, position, batch)
                chain += [change.operation_id for change in changes]
        return chain

    def _names(self, node: Node) -> list[bytes]:
        """Return the batches of the log of leaders, as a node has it."""
        engine, names, index = node.space.engine, list[bytes](), 1
        while found := engine.entries_from(index, 100):
            names += [batch.id for _, batch in found]
            index = found[-1][1].header.term_index + 1
        return names

    async def check_logs(self, chain: list[str | None]) -> None:
        """L2, L5: everywhere the same entries count, and all others are void."""
        self._check_terms()
        for node in self.world.replicas():
            engine = node.space.engine
            await node.wait(engine.flush())  # the file is asked
            if self._names(node) != self._names(self.world.replicas()[0]):
                raise Invariant("L2", f"{node.name} has another log")
            me, state = DeviceId(engine.key.public), engine.leadership.current
            if me in engine.keeper.terms.voters and not state.may_vote:
                raise Invariant("B2", f"{node.name} may not vote any more")
            if engine.applied_index != len(chain):
                raise Invariant("L2", f"{node.name} shows {engine.applied_index}")
            left = engine.keeper.store.read(
                "SELECT count(*) FROM _sync_log l WHERE kind = 0 AND NOT EXISTS "
                "(SELECT 1 FROM _sync_void v WHERE v.batch = l.id) AND ns = ? "
                "AND actor IN (SELECT actor FROM _sync_actor)",
                engine.ns,
            )
            counted = 0
            index = 1
            while found := engine.entries_from(index, 100):
                counted += len(found)
                index = found[-1][1].header.term_index + 1
            if left[0][0] != counted:
                raise Invariant(
                    "L5",
                    f"{node.name}: {left[0][0]} batches count, {counted} in the log",
                )
            if engine.keeper.store.read(
                "SELECT 1 FROM _sync_log WHERE kind = ?", Kind.FORK
            ):
                raise Invariant("D1", "an honest leader was taken for a forger")
            await self._check_rescue(node, set(chain))

    async def _check_rescue(self, node: Node, chain: set[str | None]) -> None:
        """L5: what was taken back is in the rescue area, each once; it waits for a
        decision unless it was committed after all."""
        engine = node.space.engine
        found = await node.wait(node.space.rescue.list(decided=True))
        void = engine.keeper.store.read(
            f"SELECT DISTINCT actor, seq FROM _sync_void WHERE ns = ? "
            f"AND reason IN ({', '.join('?' * len(RESCUED))})",
            *(engine.ns, *RESCUED),
        )
        names = {node_id((ActorId(actor), seq)) for actor, seq in void}
        listed = [one.id for one in found]
        if len(listed) != len(set(listed)) or set(listed) != names:
            raise Invariant(
                "L5", f"{node.name} lists {len(listed)} rescued, {len(names)} are void"
            )
        for one in found:
            was_done = one.operation_id is not None and one.operation_id in chain
            if was_done and one.decided is None:
                raise Invariant("L5", f"{one.operation_id} is in the log, and waits")
            if one.decided == "committed" and not was_done:
                raise Invariant("L5", f"{one.operation_id} was committed nowhere")


def _free(disk: SimDisk) -> None:
    disk.full, disk.delay = False, 0.0
