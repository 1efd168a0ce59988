"""The standard story: people write everything everywhere while all goes wrong.

Phases: faults with writing; then everything heals and all must converge; then what
was promised is looked for. A seed has at least 100 transactions over at least 60
virtual seconds, 5 cut links and a crash with restart, or it fails: too little of it
proves nothing.
"""

import asyncio
from typing import Any

from syncengine.documents.text import Text
from syncengine.errors import Invalid, SyncError
from syncengine.replication.namespace import Namespace
from syncengine.replication.transaction import Receipt
from syncengine.testing.world import Image, Invariant, Node, World, assert_converged

WRITERS = ("ann", "bob", "cyd")
CLONE = "dan"  # a second machine with the file and the key of one of them

PLAIN, HUB_RESTORED, RESTORED, CLONED = "plain", "hub restored", "restored", "cloned"
FATES = (PLAIN, HUB_RESTORED, RESTORED)

TRANSACTIONS_MIN = 100
SECONDS_MIN = 60.0
CUTS_MIN = 5
CRASHES_MIN = 1


async def standard(world: World) -> None:
    """One hub, three replicas, all field types, all faults."""
    await _lived(world, world.random.choice(FATES))


async def cloned(world: World) -> None:
    """The same, and one of the devices is cloned, key and all, while it runs."""
    await _lived(world, CLONED)


async def _lived(world: World, fate: str) -> None:
    chance = world.random
    hub = await world.hub()
    founder = await world.replica(WRITERS[0])
    assert founder.replica is not None
    await founder.wait(founder.replica.namespace("home"))
    await founder.connect(hub)
    address = hub.address
    space = founder.space
    invite = await founder.wait(
        space.invite("write", hub=address.without_ticket, uses=len(WRITERS))
    )
    for name in WRITERS[1:]:
        node = await world.replica(name)
        assert node.replica is not None
        await node.wait(node.replica.join(str(invite), name="home"))
        await node.connect(address)
    life = _Life(world, fate)
    until = world.loop.now + chance.uniform(SECONDS_MIN, SECONDS_MIN + 30)
    writers = [asyncio.ensure_future(life.write(name, until)) for name in WRITERS]
    trouble = asyncio.ensure_future(life.trouble(until))
    checker = asyncio.ensure_future(life.check(until))
    await asyncio.gather(*writers, trouble, checker)
    await life.heal()
    await assert_converged(world)
    await life.check_promises()
    report = world.report
    if (
        report.transactions < TRANSACTIONS_MIN
        or world.loop.now < SECONDS_MIN
        or world.network.cut_count < CUTS_MIN
        or report.crashes < CRASHES_MIN
    ):
        raise AssertionError(f"this seed proves too little: {report}")


class _Life:
    """What happens in one world."""

    def __init__(self, world: World, fate: str):
        self.world = world
        self.address = world.nodes["hub"].address
        self.marks: set[str] = set()  # texts that were promised durable
        self.amounts: dict[str, int] = {}  # what each mark that was tried counts
        self.fate = fate
        self.hub_is_restored = False

    # --- writing ------------------------------------------------------------------

    async def write(self, name: str, until: float) -> None:
        world, chance = self.world, self.world.random
        count = 0
        while world.loop.now < until:
            await asyncio.sleep(chance.expovariate(1.2))
            node = world.nodes[name]
            if not node.is_up or node.replica is None:
                continue
            count += 1
            await node.wait(self._transaction(node, f"{name}{count}"))
            world.check_failures()

    async def _transaction(self, node: Node, mark: str) -> None:
        chance = self.world.random
        space = node.space
        amount = chance.randint(1, 9)
        wait = chance.random() < 0.7
        try:
            async with space.transaction(wait=wait) as tx:
                self._edit(tx, chance, mark)
                # D3: both or neither, everywhere and at any time.
                tx["pair/left"].counter("n").increment(amount)
                tx["pair/right"].counter("n").increment(amount)
                tx["marks/all"].set("seen").add(mark)
                self.amounts[mark] = amount
            if not wait:
                await tx.receipt
        except SyncError:
            return  # the disk said no: not promised
        self.world.report.transactions += 1
        self.world.trace(mark)
        engine, actor = space.engine, tx.receipt.actor
        assert actor is not None
        self.marks.add(mark)
        self.world.promise(node, actor, tx.receipt.seq, mark)
        if chance.random() < 0.2:
            node.run(self._durable_at_hub(tx.receipt, engine))

    async def _durable_at_hub(self, receipt: Receipt, engine: Namespace) -> None:
        """D1: a receipt that says `durable_on hub` is looked up on the hub's disk."""
        await receipt.durable_on("hub")
        assert receipt.actor is not None
        actor, seq = engine.own.written_as(receipt.actor, receipt.seq)
        rows = self.world.nodes["hub"].disk.store.read(
            "SELECT 1 FROM _sync_log WHERE actor = ? AND first_seq <= ? "
            "AND last_seq >= ?",
            actor,
            seq,
            seq,
        )
        self.world.report.receipts += 1
        if not rows and not self.hub_is_restored:
            self.world.broken = Invariant("D1", "the hub acknowledged what it lacks")

    def _edit(self, tx: Any, chance: Any, mark: str) -> None:
        page = tx[f"page/{chance.randint(1, 3)}"]
        for _ in range(chance.randint(1, 3)):
            match chance.randint(0, 12):
                case 0:
                    page["title"] = mark
                case 1:
                    page[chance.choice("abc")] = chance.randint(0, 99)
                case 2:
                    page.pop(chance.choice("abcm"), None)
                case 3:
                    page.set("tags").add(chance.choice("xyz"))
                case 4:
                    page.set("tags").discard(chance.choice("xyz"))
                case 5:
                    items = page.list("items")
                    if len(items) and chance.random() < 0.4:
                        del items[chance.randrange(len(items))]
                    else:
                        items.insert(chance.randint(0, len(items)), mark)
                case 6:
                    items = page.list("items")
                    if len(items):
                        items[chance.randrange(len(items))] = mark
                        at, to = (chance.randrange(len(items)) for _ in range(2))
                        items.move(at, to)
                case 7:
                    several = [mark, chance.randint(0, 3)][: chance.randint(0, 2)]
                    page.multi("several").set(*several)
                case 8:
                    page.map("m")[chance.choice("pq")] = {"deep": [mark, {"x": 1}]}
                case 10:
                    tree = page.tree("outline")
                    nodes = [*tree, *tree.deleted(), None]
                    node, under = chance.choice(nodes), chance.choice(nodes)
                    try:
                        if node is None or chance.random() < 0.3:
                            tree.add({"n": mark}, under=under).value["x"] = 1
                        elif chance.random() < 0.2:
                            node.delete()
                        else:
                            node.move(under=under)
                            node.value["n"] = mark
                    except Invalid:
                        pass  # below itself
                case 9:
                    said = chance.choice(("one", "two"))  # the source changes
                    seeded = tx.seed("seeded/1", key="file", title=said, body=Text())
                    seeded.text("body").append(chance.choice("ab"))
                case _:
                    text = page.text("body")
                    length = len(text)
                    if length and chance.random() < 0.3:
                        at = chance.randrange(length)
                        text.delete(at, min(length - at, chance.randint(1, 5)))
                    elif length and chance.random() < 0.2:
                        at, to = sorted(chance.randint(0, length) for _ in range(2))
                        value = chance.choice((mark, None))
                        edges = chance.choice(("none", "before", "after", "both"))
                        text._mark(at, to, chance.choice("bl"), value, edges)
                    else:
                        text.insert(chance.randint(0, length), f"<{mark}>")

    # --- trouble ------------------------------------------------------------------

    async def trouble(self, until: float) -> None:
        """Cuts, crashes, partitions, full disks, clocks that jump."""
        world, chance = self.world, self.world.random
        crash_at = world.loop.now + chance.uniform(10, 40)
        fate = asyncio.ensure_future(self._fate(self.fate))
        cuts = 0
        while world.loop.now < until or cuts < CUTS_MIN:
            await asyncio.sleep(chance.expovariate(1 / world.network.weather.cut_mean))
            roll = chance.random()
            if world.loop.now > crash_at:
                crash_at = world.loop.now + chance.uniform(15, 40)
                await self._crash(chance.choice([*WRITERS, "hub"]))
            elif roll < 0.1:
                name = chance.choice(WRITERS)
                world.network.part(name, "hub")
                world.trace("part", name)
            elif roll < 0.2:
                world.network.heal()
            elif roll < 0.25:
                node = world.nodes[chance.choice(WRITERS)]
                node.clock.skew_ms += chance.choice((-3_600_000, 50_000, -20_000))
                world.trace("clock", node.name)
            elif roll < 0.3:
                disk = world.nodes[chance.choice(WRITERS)].disk
                disk.full = True
                world.loop.call_later(chance.uniform(0.1, 3), _free, disk)
            else:
                cuts += world.network.cut_one()
                world.trace("cut")
        await fate

    async def _fate(self, fate: str) -> None:
        """What happens at most once in a life: an old backup comes back, or a copy."""
        world, chance = self.world, self.world.random
        if fate == PLAIN:
            return
        node = world.nodes["hub" if fate == HUB_RESTORED else chance.choice(WRITERS)]
        await asyncio.sleep(chance.uniform(5, 25))
        image = node.disk.image()
        await asyncio.sleep(chance.uniform(5, 25))
        world.trace(fate, node.name)
        if fate == CLONED:
            clone = await world.clone(CLONE, node, image)
            node.rolled_back = clone.rolled_back = True
            await clone.connect(self.address)
            return
        while not node.is_up:  # noqa: ASYNC110  # no event tells of a restart
            await asyncio.sleep(1)
        await self._crash(node.name, image)

    async def _crash(self, name: str, image: Image | None = None) -> None:
        world, chance = self.world, self.world.random
        node = world.nodes[name]
        if not node.is_up:
            return
        node.disk.full = False
        node.crash()
        if image is not None:
            self.hub_is_restored |= name == "hub"
            node.restore(image, with_folder=chance.random() < 0.5)
            for promise in world.forget(node):
                self.marks.discard(promise.check)
        await asyncio.sleep(chance.choice((0.1, 2.0, 10.0)))
        await self._start(node)

    async def _start(self, node: Node) -> None:
        node.disk.full = False
        await node.start()
        if node.name != "hub" and node.is_up:
            await node.connect(self.address)

    async def heal(self) -> None:
        """Everything works from now on."""
        world = self.world
        world.network.heal()
        weather = world.network.weather
        weather.drop = weather.duplicate = weather.reorder = weather.delay_tail = 0.0
        for node in world.nodes.values():
            node.disk.full = False
            node.clock.skew_ms, node.clock.rate = 0, 1.0
            if not node.is_up:
                await self._start(node)

    # --- what must hold -----------------------------------------------------------

    async def check(self, until: float) -> None:
        """C2 and D3 all the time."""
        while self.world.loop.now < until:
            await asyncio.sleep(1.7)
            self.world.compare_equal_versions()
            self._check_pairs()

    def _check_pairs(self) -> None:
        for node in self.world.replicas():
            if node.replica is None or not node.replica.spaces():
                continue
            engine = node.space.engine
            if engine.turn.locked():
                continue
            shown = [
                document.to_value().get("n", 0) if document and document.visible else 0
                for document in (
                    engine.documents.find("pair/left"),  # type: ignore[arg-type]  # a document's name
                    engine.documents.find("pair/right"),  # type: ignore[arg-type]  # the same
                )
            ]
            if shown[0] != shown[1]:
                raise Invariant("D3", f"{node.name} shows half a transaction: {shown}")

    async def check_promises(self) -> None:
        """D1: what was promised is everywhere. D2: nothing is there twice, or that
        nobody wrote."""
        world = self.world
        if self.fate in (PLAIN, HUB_RESTORED):
            actors = world.replicas()[0].space.engine.keeper.membership.actors
            if len(actors) != len(WRITERS) or world.has_forks:
                raise Invariant("D1", "an honest crash was taken for a restored backup")
        if self.fate != CLONED and world.has_forks:
            raise Invariant("D1", "one who came back from a backup wrote two histories")
        for node in world.replicas():
            page = await node.space.get("marks/all")
            seen = set(page.set("seen"))
            lost = self.marks - seen
            # What others built on a branch that became void may be void too.
            if lost and not world.has_forks:
                raise Invariant("D1", f"{node.name} lost {sorted(lost)[:5]}")
            if phantoms := seen - self.amounts.keys():
                raise Invariant("D2", f"{node.name} shows {sorted(phantoms)[:5]}")
            left = await node.space.get("pair/left")
            total = int(left.counter("n"))
            # A mark and its amount are one transaction: exactly what is marked counts.
            expected = sum(self.amounts[mark] for mark in seen)
            if total != expected:
                raise Invariant("D2", f"{node.name} counts {total}, not {expected}")
        self._check_pairs()


def _free(disk: Any) -> None:
    disk.full = False
