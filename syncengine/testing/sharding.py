"""The story of a fleet: namespaces move between hubs while all goes wrong.

Hubs come and go, the operator places partitions anew again and again, and each hub
hears of it when it can. Devices dial any hub and go where they are sent. Some die for
good, once a hub has acknowledged what they wrote: nobody else has it then. In the end
each namespace is at its home and nowhere else, all members show the same, and what any
hub ever acknowledged is there (D1); nothing else is (D2).
"""

import asyncio
from typing import Any

from syncengine.errors import AlreadyExists, Invalid, NotFound, SyncError
from syncengine.ids import NamespaceId, base32, parse_namespace_id
from syncengine.replication.fleet import Fleet
from syncengine.replication.space import Space
from syncengine.testing.world import (
    CONVERGE_SECONDS,
    Invariant,
    Node,
    World,
    check_converged,
)

HUBS = ("h1", "h2", "h3", "h4")
DEVICES = ("ann", "bob", "cyd")
MORTALS = ("meg", "ned")  # die for good
OPERATOR = "op"

SECONDS_MIN = 60.0
WRITES_MIN = 60
MOVES_MIN = 3  # namespaces given away by a hub
CUTS_MIN = 3

# Within which what a device has at the beginning is with its hub.
SYNCED_SECONDS = 600.0


async def sharded(world: World) -> None:
    """Three hubs at first, five devices in up to eight namespaces, an operator."""
    chance = world.random
    story = _Story(world)
    await story.found()
    until = world.loop.now + chance.uniform(SECONDS_MIN, SECONDS_MIN + 20)
    await asyncio.gather(
        story.trouble(until),
        story.operate(until),
        *(story.write_on(name, until) for name in DEVICES),
        *(story.die(name, until) for name in MORTALS),
    )
    await story.heal()
    await story.settle()
    story.check()
    report = world.report
    if (
        report.transactions < WRITES_MIN
        or story.moves < MOVES_MIN
        or world.network.cut_count < CUTS_MIN
        or world.loop.now < SECONDS_MIN
    ):
        raise AssertionError(
            f"this seed proves too little: {report}, {story.moves} moves"
        )


class _Story:
    def __init__(self, world: World):
        self.world = world
        self.written: dict[NamespaceId, set[str]] = {}
        """Marks that were tried"""
        self.acknowledged: dict[NamespaceId, set[str]] = {}
        """Marks of which a hub said that they are on its disk, or that survive"""
        self.names: dict[NamespaceId, str] = {}
        self.entries: dict[str, str] = {}  # device -> the hub that it dials
        self.gone: set[str] = set()
        self.given_away: set[tuple[str, NamespaceId, int]] = set()
        self.fleet_id: NamespaceId | None = None
        self.partitions = world.random.choice((4, 16, 64))
        self.keep_moved = world.random.choice((0.0, 3.0, 20.0))
        self.is_watching = True

    @property
    def moves(self) -> int:
        return len(self.given_away)

    # --- machines -----------------------------------------------------------------

    async def found(self) -> None:
        world, chance = self.world, self.world.random
        operator = await world.replica(OPERATOR)
        assert operator.replica is not None
        space = await operator.wait(operator.replica.namespace("fleet"))
        self.fleet_id = parse_namespace_id(space.id)
        await operator.wait(Fleet(space).found(self.partitions))
        for name in HUBS:
            node = world.nodes[name] = Node(world, name, "hub")
            node.fleet, node.keep_moved = self.fleet_id, self.keep_moved
            await node.start()
        await self._dial(operator, *HUBS)
        for name in HUBS[:3]:
            await operator.wait(Fleet(space).add(str(world.nodes[name].address)))
        invites: dict[str, list[str]] = {}
        for name in DEVICES + MORTALS:
            node = await world.replica(name)
            assert node.replica is not None
            for number in range(chance.randint(1, 2)):
                called = f"{name}{number}"
                made = await node.wait(node.replica.namespace(called))
                self.names[parse_namespace_id(made.id)] = called
                uses = len(DEVICES + MORTALS)
                invite = await node.wait(made.invite("write", uses=uses))
                invites[called] = [str(invite), name]
        for called, (invite, owner) in invites.items():
            # Whoever dies is not the only one, and one who lives is there.
            others = {n for n in DEVICES + MORTALS if chance.random() < 0.5}
            for name in sorted(others | {chance.choice(DEVICES)} - {owner}):
                node = world.nodes[name]
                if name != owner and node.replica is not None:
                    await node.wait(node.replica.join(invite, name=called))
        for name in DEVICES + MORTALS:
            self.entries[name] = chance.choice(HUBS[:3])
            await self._dial(world.nodes[name], self.entries[name])
        for name in MORTALS:
            # Who dies before an invite of hers arrives lets nobody in.
            node = world.nodes[name]
            assert node.link is not None
            try:
                async with asyncio.timeout(SYNCED_SECONDS):
                    await node.wait(node.link.synced())
            except TimeoutError:
                raise Invariant("B2", f"{name} is never synced") from None

    async def _dial(self, node: Node, *hubs: str) -> None:
        for hub in hubs:
            await node.connect(self.world.nodes[hub].lasting_address)

    async def _start(self, name: str) -> None:
        node = self.world.nodes[name]
        node.disk.full = False
        await node.start()
        if not node.is_up:
            return
        if name == OPERATOR:
            await self._dial(node, *HUBS)
        elif name not in HUBS:
            await self._dial(node, self.entries[name])

    # --- what people do ---------------------------------------------------------------

    async def write_on(self, name: str, until: float) -> None:
        world, chance = self.world, self.world.random
        count = 0
        while world.loop.now < until and name not in self.gone:
            await asyncio.sleep(chance.expovariate(0.5))
            node = world.nodes[name]
            if not node.is_up or node.replica is None or not node.replica.spaces():
                continue
            count += 1
            space = chance.choice(node.replica.spaces())
            await node.wait(self._write(node, space, f"{name}{count}"))
            world.check_failures()

    async def _write(self, node: Node, space: Space, mark: str) -> None:
        chance = self.world.random
        namespace = space.engine.keeper.namespace
        self.written.setdefault(namespace, set()).add(mark)
        try:
            async with space.transaction() as tx:
                tx["marks/all"].set("seen").add(mark)
                tx["pad/1"].text("body").append("x" * chance.choice((1, 1, 500)))
        except SyncError:
            return
        self.world.report.transactions += 1
        if node.name in MORTALS:
            node.run(self._acknowledge(tx.receipt, namespace, mark))
        else:
            self.acknowledged.setdefault(namespace, set()).add(mark)

    async def _acknowledge(self, receipt: Any, namespace: NamespaceId, m: str) -> None:
        await receipt.durable_on("hub")
        self.world.report.receipts += 1
        self.acknowledged.setdefault(namespace, set()).add(m)

    async def die(self, name: str, until: float) -> None:
        """Write for a while, and vanish with the machine."""
        world, chance = self.world, self.world.random
        end = world.loop.now + chance.uniform(15, until - world.loop.now)
        await self.write_on(name, end)
        self.gone.add(name)
        world.nodes[name].crash()
        world.trace("dies", name)

    async def operate(self, until: float) -> None:
        """Place partitions anew, again and again."""
        world, chance = self.world, self.world.random
        while world.loop.now < until or self.moves < MOVES_MIN:
            await asyncio.sleep(chance.uniform(1, 10))
            node = world.nodes[OPERATOR]
            if node.is_up and node.replica is not None and node.replica.spaces():
                await node.wait(self._decide(Fleet(node.space)))
            world.check_failures()

    async def _decide(self, fleet: Fleet) -> None:
        world, chance = self.world, self.world.random
        name = chance.choice(HUBS)
        hub = base32(world.nodes[name].lasting_address.device)
        try:
            roll = chance.random()
            if roll < 0.3:
                await fleet.add(
                    str(world.nodes[name].lasting_address),
                    weight=chance.choice((1, 1, 3)),
                )
            elif roll < 0.5:
                await fleet.remove(hub)
            elif roll < 0.8:
                for _ in range(self.partitions // 4):
                    await fleet.move(chance.randrange(self.partitions), hub)
            elif roll < 0.9:
                await fleet.balance(await fleet.ask_load(within=3.0))
            else:
                await fleet.balance()
            world.trace("placed", fleet.placement.number)
        except (NotFound, Invalid, AlreadyExists, SyncError):
            return  # not a hub of it now, the last one, a full disk

    # --- trouble ------------------------------------------------------------------

    async def trouble(self, until: float) -> None:
        world, chance = self.world, self.world.random
        watching = asyncio.ensure_future(self._watch())
        cuts = 0
        while world.loop.now < until or cuts < CUTS_MIN:
            await asyncio.sleep(chance.expovariate(1 / world.network.weather.cut_mean))
            cuts += world.network.cut_one()
            roll = chance.random()
            living = [n for n in (*DEVICES, *MORTALS, OPERATOR) if n not in self.gone]
            if roll < 0.35:
                await self._crash(chance.choice([*HUBS, *HUBS, *living]))
            elif roll < 0.5:
                world.network.part(chance.choice(living), chance.choice(HUBS))
            elif roll < 0.6:
                world.network.part(*chance.sample(HUBS, 2))
            elif roll < 0.7:
                world.network.heal()
            elif roll < 0.8:
                disk = world.nodes[chance.choice([*HUBS, *living])].disk
                disk.full = True
                world.loop.call_later(chance.uniform(0.1, 5), _free, disk)
            world.trace("trouble", roll)
        while self.moves < MOVES_MIN:  # noqa: ASYNC110  # no event tells of one
            await asyncio.sleep(1)
        self.is_watching = False
        await watching

    async def _crash(self, name: str) -> None:
        node = self.world.nodes[name]
        if not node.is_up:
            return
        node.disk.full = False
        node.crash()
        await asyncio.sleep(self.world.random.choice((0.1, 2.0, 6.0)))
        if name not in self.gone:
            await self._start(name)

    async def _watch(self) -> None:
        """Count what hubs gave away."""
        while self.is_watching:
            await asyncio.sleep(0.3)
            self._note_moves()

    def _note_moves(self) -> None:
        for name in HUBS:
            hub = self.world.nodes[name].hub
            for relay in hub.relays() if hub is not None else ():
                if relay.moved is not None:
                    namespace = relay.keeper.namespace
                    self.given_away.add((name, namespace, relay.moved[1]))

    async def heal(self) -> None:
        """Everything works from now on; who died stays dead."""
        world = self.world
        world.network.heal()
        weather = world.network.weather
        weather.drop = weather.duplicate = weather.reorder = weather.delay_tail = 0.0
        for name, node in world.nodes.items():
            node.disk.full = False
            node.clock.skew_ms, node.clock.rate = 0, 1.0
            if not node.is_up and name not in self.gone:
                await self._start(name)

    # --- what must hold -----------------------------------------------------------

    async def settle(self) -> None:
        """Wait until each namespace is where it belongs, and nowhere else."""
        world = self.world
        deadline = world.loop.now + CONVERGE_SECONDS + 2 * self.keep_moved
        while (problem := self._unsettled()) is not None:
            world.check_failures()
            self._note_moves()
            if world.loop.now > deadline:
                raise Invariant("C1", f"the fleet does not settle: {problem}")
            await asyncio.sleep(0.5)

    def _unsettled(self) -> str | None:
        nodes = self.world.nodes
        placement = Fleet(nodes[OPERATOR].space).placement
        for name in HUBS:
            hub = nodes[name].hub
            assert hub is not None, f"{name} is down"
            if hub.moves is None or hub.moves.placement() != placement:
                return f"{name} does not know the newest placement"
        for namespace, called in self.names.items():
            home = placement.home_of(namespace)
            for name in HUBS:
                hub = nodes[name].hub
                assert hub is not None
                relay = hub.find(namespace)
                is_home = home is not None and home.device == hub.id
                if is_home and relay is None and self._was_anywhere(namespace):
                    return f"{called} is not at home at {name}"
                for member, space in self._members().get(namespace, ()):
                    digest = space.engine.keeper.digest()
                    if is_home and relay and relay.keeper.digest() != digest:
                        return f"{member} and {name} differ in {called}"
                if relay is not None and (not is_home or relay.moved is not None):
                    return f"{called} is at {name}, at home: {is_home}"
        return check_converged(self._members())

    def _was_anywhere(self, namespace: NamespaceId) -> bool:
        return bool(self.acknowledged.get(namespace))

    def _members(self) -> dict[NamespaceId, list[tuple[str, Space]]]:
        found: dict[NamespaceId, list[tuple[str, Space]]] = {}
        for name in DEVICES:
            replica = self.world.nodes[name].replica
            for space in replica.spaces() if replica is not None else ():
                namespace = space.engine.keeper.namespace
                found.setdefault(namespace, []).append((name, space))
        return found

    def check(self) -> None:
        """D1: what was acknowledged is there. D2: nothing is that nobody wrote."""
        for namespace, members in self._members().items():
            for name, space in members:
                document = space.engine.documents.find("marks/all")  # type: ignore[arg-type]  # a document's name
                value: Any = document.to_value() if document is not None else {}
                seen: set[str] = set(value.get("seen", ()))
                lost = self.acknowledged.get(namespace, set()) - seen
                if lost:
                    called = self.names[namespace]
                    raise Invariant("D1", f"{name} lacks {sorted(lost)} of {called}")
                if phantoms := seen - self.written.get(namespace, set()):
                    raise Invariant("D2", f"{name} shows {sorted(phantoms)[:5]}")


def _free(disk: Any) -> None:
    disk.full = False
