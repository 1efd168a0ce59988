"""A world: machines with disks and clocks, a network, and what must always hold."""

import asyncio
import atexit
import hashlib
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from syncengine.clock import DRIFT_MS, ms_from_hlc
from syncengine.ids import ActorId, DeviceId, NamespaceId, base32
from syncengine.replication.address import Address
from syncengine.replication.conversation import Listening, Registry
from syncengine.replication.hub import Hub
from syncengine.replication.link import Link
from syncengine.replication.opening import HUB, REPLICA, take_over
from syncengine.replication.replica import Replica
from syncengine.replication.space import Space
from syncengine.testing.disk import SimDisk, SimStore
from syncengine.testing.loop import LIFE, Life, VirtualLoop
from syncengine.testing.network import Network, SimConnection, Weather
from syncengine.trust.entry import Kind
from syncengine.trust.keys import ED25519, Scheme, StandIn

# The virtual day on which every world begins.
EPOCH_MS = 1_800_000_000_000

CONVERGE_SECONDS = 240.0


class Invariant(AssertionError):
    """Something that must always hold did not; the text begins with its name."""

    def __init__(self, name: str, what: str):
        super().__init__(f"{name}: {what}")
        self.name = name


class SimClock:
    """A machine's wall clock: skewed, drifting, and set wrong at times."""

    def __init__(self, loop: VirtualLoop, skew_ms: int, rate: float):
        self._loop = loop
        self.skew_ms = skew_ms
        self.rate = rate
        self._most_ahead_ms = skew_ms

    def now_ms(self) -> int:
        true_ms = int(self._loop.now * 1000)
        now_ms = EPOCH_MS + int(true_ms * self.rate) + self.skew_ms
        self._most_ahead_ms = max(self._most_ahead_ms, now_ms - EPOCH_MS - true_ms)
        return now_ms

    def latest_ms(self) -> int:
        """Return what it would show, had it never been set back since it was read."""
        self.now_ms()
        return EPOCH_MS + int(self._loop.now * 1000) + self._most_ahead_ms


class SimEntropy:
    """Random bytes from the seed."""

    def __init__(self, chance: random.Random):
        self._chance = chance

    def bytes(self, n: int) -> bytes:
        return self._chance.randbytes(n)


@dataclass
class Report:
    """What one seed did: too little of it proves nothing."""

    seed: int
    virtual_seconds: float = 0.0
    transactions: int = 0
    receipts: int = 0
    cuts: int = 0
    crashes: int = 0
    elections: int = 0
    frames: int = 0
    steps: int = 0
    trace: str = ""


@dataclass
class Promise:
    """A change that its author was told is durable."""

    node: str
    actor: ActorId
    seq: int
    check: Any = None


Image = tuple[bytes, list[bytes]]
"""A backup of a machine: its file, and the tokens of the folder beside it."""


class Node:
    """A machine. Its disk and its clock outlive its runs."""

    def __init__(self, world: "World", name: str, role: str):
        self.world = world
        self.name = name
        self.role = role
        self.lasting_address: Address
        """Of a hub, also while it is down"""
        chance = random.Random(f"{world.seed}/{name}")
        self.entropy = SimEntropy(chance)
        self.disk = SimDisk(
            chance.randbytes(32), random.Random(f"{world.seed}/d/{name}")
        )
        self.clock = SimClock(world.loop, *world.draw_clock(chance, role))
        world.clocks.append(self.clock)
        self.slow = chance.choice((0.0005, 0.005, 0.05))
        self.life = Life(name)
        self.life.over = True
        self.replica: Replica | None = None
        self.hub: Hub | None = None
        self.link: Link | None = None
        self.links: list[Link] = []
        self.registry = Registry()
        self.fleet: NamespaceId | None = None  # of a hub that is part of one
        self.keep_moved = 0.0
        self.rolled_back = False  # a backup came back, or it was cloned

    @property
    def is_up(self) -> bool:
        return not self.life.over

    def run(self, coroutine: Awaitable[Any]) -> "asyncio.Task[Any]":
        """Run something as part of this machine's present life."""
        context = self._context()

        async def wrapped() -> Any:
            return await coroutine

        task = self.world.loop.create_task(wrapped(), context=context)
        task._life = self.life  # type: ignore[attr-defined]  # see VirtualLoop
        self.life.kept.append(task)
        return task

    def _context(self) -> Context:
        context = copy_context()
        context.run(LIFE.set, self.life)
        return context

    async def start(self) -> None:
        """Begin a life: open the file, and listen."""
        assert not self.is_up, f"{self.name} is up already"
        self.life = Life(self.name)
        self.registry = Registry()
        await self.wait(self._start())

    async def wait(self, coroutine: Awaitable[Any]) -> Any:
        """Run something here and wait for it; None when the machine crashes first."""
        task = self.run(coroutine)
        life = self.life
        while not task.done():
            if life.over:
                return None
            await asyncio.wait({task}, timeout=0.5)
        return task.result()

    async def _start(self) -> None:
        store = SimStore(self.disk, self.life, slow=self.slow)
        world = self.world
        opened = await take_over(
            store, self.disk.identity, world.scheme, self.entropy, self.role
        )
        if self.role == HUB:
            self.hub = Hub(
                opened,
                clock=self.clock,
                entropy=self.entropy,
                scheme=world.scheme,
                admit="ticket",
                fleet=self.fleet,
                keep_moved=self.keep_moved,
            )
            await self.hub.make_ticket()
            self.lasting_address = self.address
            if self.hub.moves is not None:
                self.hub.moves.start(self._dial)
            world.network.listen(self.name, self._accept)
        else:
            self.replica = Replica(
                opened, clock=self.clock, entropy=self.entropy, scheme=world.scheme
            )
            await self.replica.start()
            world.network.listen(self.name, self._accept)
            world.watch(self)

    def _accept(self, make: Callable[[Life], SimConnection]) -> SimConnection:
        connection = make(self.life)
        host: Any = self.hub if self.hub is not None else self.replica

        async def serve() -> None:
            await Listening(host, connection, self.registry).run()

        self.run(serve())
        return connection

    @property
    def device(self) -> str:
        """Its device's id, also while it is down."""
        return base32(self.world.scheme.private_key(self.disk.identity.seed).public)

    @property
    def address(self) -> Address:
        """Where to dial this machine."""
        host: Any = self.hub if self.hub is not None else self.replica
        ticket = self.hub.ticket if self.hub is not None else None
        return Address(f"ws://{self.name}", DeviceId(host.key.public), ticket)

    async def connect(self, to: "Node | Address") -> None:
        """Begin to keep a link to another machine."""
        await self.wait(self._connect(to.address if isinstance(to, Node) else to))

    async def _connect(self, address: Address) -> None:
        replica = self.replica
        assert replica is not None
        link = Link(
            replica,
            self._dial,
            address,
            lambda: [space.engine for space in replica.spaces()],
        )
        self.link = await link.__aenter__()
        self.links.append(self.link)

    async def _dial(self, address: Address) -> SimConnection:
        target = address.url.removeprefix("ws://")
        return await self.world.network.dial(self.name, target)

    def crash(self, *, power_loss: bool = True) -> None:
        """End this life at once: nothing more of it runs."""
        if not self.is_up:
            return
        self.life.over = True
        self.life.kept.append((self.replica, self.hub, self.links, self.registry))
        self.links = []
        self.world.graveyard.append(self.life)
        self.world.network.unlisten(self.name)
        self.world.network.end_of(self.life)
        self.replica = self.hub = self.link = None
        if power_loss:
            self.disk.power_loss()
        self.world.check_cursors(self)
        self.world.report.crashes += 1
        self.world.trace("crash", self.name)

    def restore(self, image: Image, *, with_folder: bool) -> None:
        """Put a backup in the place of a dead machine's file (and folder)."""
        assert not self.is_up, f"{self.name} is up"
        self.disk.restore(image, with_folder=with_folder)
        self.rolled_back = True
        self.world.trace("restore", self.name)

    @property
    def space(self) -> Space:
        assert self.replica is not None, f"{self.name} is down"
        return self.replica.spaces()[0]


class World:
    """Everything that a story can reach. Made by `simulate`."""

    def __init__(self, seed: int, loop: VirtualLoop):
        self.seed = seed
        self.loop = loop
        self.random = random.Random(f"world/{seed}")
        # Real signatures in every tenth world; elsewhere only speed is simulated.
        self.scheme: Scheme = ED25519 if seed % 10 == 0 else StandIn()
        self.network = Network(loop, Weather.draw(self.random))
        self.nodes: dict[str, Node] = {}
        self.clocks: list[SimClock] = []
        """Of all machines that there ever were"""
        self.report = Report(seed)
        self.graveyard: list[Life] = []
        self.ledger: list[Promise] = []
        self.broken: Invariant | None = None
        self._trace = hashlib.sha256()
        self._hlcs: dict[tuple[str, ActorId], list[tuple[int, int]]] = {}
        self._by_version: dict[tuple[Any, ...], tuple[str, bytes]] = {}

    def draw_clock(self, chance: random.Random, role: str) -> tuple[int, float]:
        """Return (skew in ms, rate) of a machine's clock; hubs keep good time."""
        if role == HUB:
            return chance.randint(-2_000, 2_000), 1.0
        skew = chance.choice((0, chance.randint(-2_000, 2_000), -600_000, 30_000))
        return skew, chance.choice((1.0, 0.95, 1.05))

    def trace(self, *what: object) -> None:
        """Add to the hash by which two runs of one seed are compared."""
        self._trace.update(repr((round(self.loop.now, 6), what)).encode())

    @property
    def trace_hash(self) -> str:
        return self._trace.hexdigest()[:16]

    # --- machines -----------------------------------------------------------------

    async def hub(self, name: str = "hub") -> Node:
        """Start a hub."""
        return await self._node(name, HUB)

    async def replica(self, name: str) -> Node:
        """Start a replica."""
        return await self._node(name, REPLICA)

    async def clone(self, name: str, of: Node, image: Image) -> Node:
        """Start a second machine from a backup of a first: its file, folder and key."""
        node = self.nodes[name] = Node(self, name, of.role)
        node.disk.identity.seed = of.disk.identity.seed
        node.disk.restore(image, with_folder=True)
        await node.start()
        return node

    async def _node(self, name: str, role: str) -> Node:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = Node(self, name, role)
        await node.start()
        return node

    def replicas(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.role == REPLICA]

    # --- what must always hold ----------------------------------------------------

    def watch(self, node: Node) -> None:
        """Check every change that a replica applies, as it applies it."""
        assert node.replica is not None
        for space in node.replica.spaces():
            self._watch_space(node, space)
        add = node.replica.add_space

        def added(ns: int, namespace: NamespaceId, name: str | None) -> Space:
            space = add(ns, namespace, name)
            self._watch_space(node, space)
            return space

        node.replica.add_space = added  # type: ignore[method-assign]  # to see new ones too

    def _watch_space(self, node: Node, space: Space) -> None:
        engine = space.engine
        apply, finish = engine.apply, engine.finish

        def checked_apply(ready: Any) -> Generator[None, None, bool]:
            applied = engine.delivery.applied
            for dep in ready.head.deps:
                on = engine.keeper.branch(dep.actor, dep.seq, dep.hash16)
                state = applied.get(on) if on is not None else None
                if state is None or state.seq < dep.seq:
                    raise Invariant("O1", f"{node.name} applied before its deps")
            return apply(ready)

        def checked_finish(draft: Any, operation_id: str | None) -> Any:
            change = finish(draft, operation_id)
            if change is not None:
                self.stamped(node, change.actor, change.seq, change.hlc)
            return change

        engine.apply = checked_apply  # type: ignore[method-assign]  # see above
        engine.finish = checked_finish  # type: ignore[method-assign]  # see above

    def stamped(self, node: Node, actor: ActorId, seq: int, hlc: int) -> None:
        """O3: an actor's stamps strictly increase, across restarts, and none is later
        than what some clock would show by now."""
        latest = max(clock.latest_ms() for clock in self.clocks)
        ahead = ms_from_hlc(hlc) - latest
        # Without a hub each is told the time by others that were told it.
        told = (
            1
            if any(one.role == HUB for one in self.nodes.values())
            else len(self.replicas())
        )
        if ahead > told * DRIFT_MS:
            raise Invariant("O3", f"{node.name} stamped {ahead} ms ahead of all clocks")
        stamps = self._hlcs.setdefault((node.name, actor), [])
        # What a crash or a full disk took back was never anybody's.
        while stamps and stamps[-1][0] >= seq:
            if self._is_durable(node, actor, stamps[-1][0]):
                raise Invariant("D1", f"{node.name} wrote seq {seq} twice")
            stamps.pop()
        if stamps and hlc <= stamps[-1][1]:
            raise Invariant("O3", f"{node.name} stamped {hlc} after {stamps[-1][1]}")
        stamps.append((seq, hlc))

    def _is_durable(self, node: Node, actor: ActorId, seq: int) -> bool:
        return any(
            (promise.node, promise.actor) == (node.name, actor) and promise.seq >= seq
            for promise in self.ledger
        )

    def forget(self, node: Node) -> list[Promise]:
        """A backup came back: what nobody else stores is rightly gone; return it."""
        for name, actor in list(self._hlcs):
            if name == node.name:
                del self._hlcs[name, actor]
        own = [promise for promise in self.ledger if promise.node == node.name]
        self.ledger = [promise for promise in self.ledger if promise not in own]
        return [promise for promise in own if not self._is_stored(promise)]

    def _is_stored(self, promise: Promise) -> bool:
        return any(
            node.disk.store.read(
                "SELECT 1 FROM _sync_log WHERE kind = 0 AND actor = ? "
                "AND first_seq <= ? AND last_seq >= ?",
                *(promise.actor, promise.seq, promise.seq),
            )
            for node in self.nodes.values()
        )

    def promise(self, node: Node, actor: ActorId, seq: int, check: Any) -> None:
        """Note what was acknowledged as durable: D1 is checked against it."""
        self.ledger.append(Promise(node.name, actor, seq, check))

    def compare_equal_versions(self) -> None:
        """C2: whoever has applied the same shows the same, at any time."""
        for node in self.replicas():
            if node.replica is None:
                continue
            for space in node.replica.spaces():
                engine = space.engine
                if engine.turn.locked() or not engine.all_on_disk:
                    continue  # what a crash may yet take back is nobody's version
                if node.rolled_back and engine.pending_count():
                    continue  # its actor's seqs may mean two things, until it retires
                version = tuple(sorted(engine.delivery.version().items()))
                # Which changes count is for the mode and the term to say.
                terms = engine.keeper.terms
                term = None if terms.top is None else terms.top.id
                key = (engine.keeper.namespace, terms.mode_id, term, version)
                shown = state_of(space)
                known = self._by_version.setdefault(key, (node.name, shown))
                if known[1] != shown:
                    raise Invariant(
                        "C2", f"{node.name} and {known[0]} differ at one version"
                    )

    @property
    def has_forks(self) -> bool:
        """Whether a clone and its original wrote two histories."""
        return any(
            node.disk.store.read("SELECT 1 FROM _sync_log WHERE kind = ?", Kind.FORK)
            for node in self.nodes.values()
        )

    def check_cursors(self, node: Node) -> None:
        """D3: a stored cursor never runs ahead of the stored rows it stands for."""
        ours = node.disk.store
        for ns, peer, lineage, cursor, chain in ours.read(
            "SELECT ns, peer, lineage, cursor, chain FROM _sync_peer"
        ):
            for other in self.nodes.values():
                key = self.scheme.private_key(other.disk.identity.seed).public
                theirs = other.disk.store
                meta = dict(theirs.read("SELECT key, value FROM _sync_meta"))
                if key != peer or meta.get("lineage") != lineage:
                    continue
                if other.rolled_back or self.has_forks:
                    continue  # its positions mean other rows; digests tell
                ((namespace,),) = ours.read(
                    "SELECT id FROM _sync_namespace WHERE ns = ?", ns
                )
                passed = theirs.read(
                    "SELECT l.id FROM _sync_log l JOIN _sync_namespace n USING (ns) "
                    "WHERE n.id = ? AND l.position <= ? AND EXISTS "
                    "(SELECT 1 FROM _sync_log e WHERE e.ns = n.ns "
                    "AND e.position = ? AND e.chain = ?)",
                    *(namespace, cursor, cursor, chain),
                )
                held = ours.read("SELECT id FROM _sync_log WHERE ns = ?", ns)
                lacking = set(passed) - set(held)
                if lacking:
                    self.broken = Invariant(
                        "D3", f"{node.name}'s cursor passed {len(lacking)} rows"
                    )

    def check_failures(self) -> None:
        """Whatever was raised where nobody listened is a failure too."""
        if self.broken is not None:
            raise self.broken
        for message, error in self.loop.failures:
            if isinstance(error, BaseException):
                raise error
            raise AssertionError(message)
        for node in self.replicas():
            for space in node.replica.spaces() if node.replica else ():
                for error in space.divergences:  # a false alarm, or worse
                    raise Invariant("C1", f"{node.name}: {error}")


def state_of(space: Space) -> bytes:
    """Return a hash of all that a namespace shows: what is in memory, too."""
    engine = space.engine
    digest = hashlib.sha256()
    names = {
        f"{collection}/{key}"
        for collection, key in engine.keeper.store.read(
            "SELECT collection, id FROM _sync_document WHERE ns = ?", engine.ns
        )
    }
    names |= set(engine.documents.in_memory())
    for name in sorted(names):
        document = engine.documents.find(name)  # type: ignore[arg-type]  # a document's name
        if document is not None and document.visible:
            digest.update(name.encode() + b"\0" + document.canonical())
    return digest.digest()


async def assert_converged(world: World, within: float = CONVERGE_SECONDS) -> None:
    """C1: wait until all replicas have applied the same, then compare what they show.

    Raises `Invariant` when it takes longer than `within` virtual seconds.
    """
    deadline = world.loop.now + within
    while True:
        world.check_failures()
        versions: list[tuple[tuple[ActorId, int], ...]] = []
        pending = False
        for node in world.replicas():
            assert node.replica is not None, f"{node.name} is down"
            engine = node.space.engine
            versions.append(tuple(sorted(engine.delivery.version().items())))
            pending |= bool(engine.pending_count())
            pending |= engine.committed_position != engine.keeper.position
        if len(set(versions)) == 1 and not pending:
            break
        if world.loop.now > deadline:
            raise Invariant(
                "C1", f"no convergence within {within:.0f} s: {_why(world)}"
            )
        await asyncio.sleep(0.5)
    shown = {node.name: state_of(node.space) for node in world.replicas()}
    if len(set(shown.values())) != 1:
        raise Invariant("C1", f"replicas differ: {_differing(world)}")


def check_converged(
    members: Mapping[NamespaceId, Sequence[tuple[str, Space]]],
) -> str | None:
    """Return why members have not all applied the same yet, or None.

    Raises `Invariant` (C1) where they have, and show something else.
    """
    for spaces in members.values():
        versions: dict[tuple[tuple[ActorId, int], ...], str] = {}
        for name, space in spaces:
            engine = space.engine
            if engine.pending_count():
                return f"{name} has not sent all of {space.name}"
            if engine.committed_position != engine.keeper.position:
                return f"{name} has not written all of {space.name}"
            versions[tuple(sorted(engine.delivery.version().items()))] = name
        if len(versions) > 1:
            return f"{', '.join(versions.values())} are not equally far"
        if len({state_of(space) for _, space in spaces}) > 1:
            raise Invariant("C1", f"members of {spaces[0][1].name} differ")
    return None


def _why(world: World) -> str:
    lines: list[str] = []
    for node in world.replicas():
        if node.replica is None:
            lines.append(f"{node.name} down")
            continue
        engine = node.space.engine
        state = node.link.state if node.link else "no link"
        error = node.link.error if node.link else None
        version = sorted(engine.delivery.version().items())
        lines.append(
            f"{node.name}: {state} ({error}), pending {engine.pending_count()}, "
            f"waiting {engine.delivery.waiting_count}, "
            f"version {[(base32(actor)[:4], seq) for actor, seq in version]}"
        )
    return "; ".join(lines)


def _differing(world: World) -> str:
    found: dict[str, set[str]] = {}
    for node in world.replicas():
        for name in node.space.engine.documents.in_memory():
            document = node.space.engine.documents.find(name)
            if document is not None:
                found.setdefault(name, set()).add(repr(document.to_value())[:300])
    return str({name: shown for name, shown in found.items() if len(shown) > 1})[:2000]


Story = Callable[[World], Awaitable[None]]


@dataclass
class _Outcome:
    report: Report
    error: BaseException | None = None
    text: str = field(default="")


def simulate(
    story: Story, *, seeds: int = 20, first_seed: int = 0, repeat: bool = True
) -> list[Report]:
    """Run `story` in `seeds` worlds; raise the first failure with how to repeat it.

    A failing seed is run once more: the same failure must come again.
    """
    reports: list[Report] = []
    for seed in range(first_seed, first_seed + seeds):
        outcome = run_seed(story, seed)
        if outcome.error is not None:
            again = run_seed(story, seed) if repeat else outcome
            same = again.report.trace == outcome.report.trace
            raise AssertionError(
                f"seed {seed} failed: {type(outcome.error).__name__}: {outcome.error}\n"
                f"{outcome.text}\n"
                f"repeat it with: simulate({getattr(story, '__name__', 'story')}, "
                f"seeds=1, first_seed={seed}) "
                f"({'it repeats' if same else 'IT DOES NOT REPEAT: the world leaks'})"
            ) from outcome.error
        reports.append(outcome.report)
    return reports


def run_seed(story: Story, seed: int) -> _Outcome:
    """Run one world to its end."""
    loop = VirtualLoop(seed)
    world = World(seed, loop)
    outcome = _Outcome(world.report)

    async def main() -> None:
        await story(world)
        world.check_failures()

    try:
        loop.run(main)
    except (Exception, asyncio.CancelledError) as error:
        outcome.error = error
        outcome.text = traceback.format_exc()
    report = world.report
    report.virtual_seconds = loop.now
    report.cuts = world.network.cut_count
    report.frames = world.network.frames
    report.steps = loop.steps
    world.trace("end", report.transactions, report.frames)
    report.trace = world.trace_hash
    # What died stays dead: were its coroutines collected, their `finally` would run.
    _BURIED.append((loop, world.graveyard, world))
    return outcome


_BURIED: list[Any] = []


def _bury() -> None:
    """At the very end even the dead are collected: their last words are nobody's."""
    sys.unraisablehook = lambda _: None


atexit.register(_bury)
