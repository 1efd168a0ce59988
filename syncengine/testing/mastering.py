"""The story of masters: three to seven write a few hot entities while all goes wrong.

Checked are C1 (all show the same, by one strategy of all that there are, and what that
strategy means), C2, D1 and D2 (each write is there, or one that knew of it is; nothing
else is), that conflicts are complete, real, and told without anybody asking, and that
nobody writes but those who were asked to: what a strategy decides is decided by each
alone, and written by none. Who knew of what is judged by the vector clocks that writers
were told, not by the engine.
"""

import asyncio
import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from syncengine.conflicts.crdts import GCounter
from syncengine.conflicts.vector_clock import VectorClock
from syncengine.errors import NotFound, SyncError
from syncengine.replication.multi_master import (
    STRATEGIES,
    MultiMasterManager,
)
from syncengine.replication.versions import Entity, stored_conflicts
from syncengine.testing.world import Invariant, Node, World, assert_converged

NAMES: tuple[str, ...] = ("ann", "bob", "cyd", "dee", "eve", "fay", "gus")

# Masters that come later, or in the place of one that lost its disk: enough names.
NEWCOMERS_MAX = 30

MASTERS_MIN, MASTERS_MAX = 3, 7

# How long somebody who is to be removed is given to hand on what it wrote.
DRAIN_SECONDS = 60.0
ENTITIES = ("hot", "warm", "cold")

SECONDS_MIN = 60.0
WRITES_MIN = 60
CONFLICTS_MIN = 2
CONFLICTS_TOLD_WISHED = 10  # to anybody; a calm world has less, however long it lasts
CUTS_MIN = 3

# By when all that was stamped ahead is due: clocks are minutes off, here.
DUE_SECONDS = 900.0

# How much longer than it was to be a seed may be, so that it proves something.
PATIENCE_SECONDS = 120.0

# By all of them together.
WRITES_A_SECOND = 2.5

# How soon conflicts are noted by themselves.
NOTED_SECONDS = 3.0

# As long as somebody who answers every change with a write would need to show it.
QUIET_SECONDS = 30.0


@dataclass
class Write:
    """What a writer did, as he saw it."""

    entity: str
    op: str
    clock: VectorClock | None
    """None: it crashed, or the disk said no; nobody knows"""
    by: str = ""
    at: int | None = None
    """Its stamp, as its writer was told"""


@dataclass
class _Masters:
    world: World
    names: list[str]
    strategy: Any
    managers: dict[str, MultiMasterManager] = field(
        default_factory=dict[str, MultiMasterManager]
    )
    writes: dict[str, Write] = field(default_factory=dict[str, Write])
    tried: Counter[str] = field(default_factory=Counter[str])
    """How often each was asked to write"""
    told: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """The conflicts that each master's handlers heard of"""
    detected: int = 0
    count: int = 0
    written: int = 0
    added: int = 0
    removed: int = 0
    replaced: int = 0


async def mastered(world: World) -> None:
    """Masters of one namespace, each linked to a hub, or each with each."""
    chance = world.random
    names = list(NAMES[: chance.randint(MASTERS_MIN, MASTERS_MAX)])
    story = _Story(_Masters(world, names, chance.choice(STRATEGIES)))
    await story.found()
    until = world.loop.now + chance.uniform(SECONDS_MIN, SECONDS_MIN + 20)
    writers = [
        asyncio.ensure_future(story.write_on(place, until))
        for place in range(len(names))
    ]
    trouble = asyncio.ensure_future(story.trouble(until))
    operator = asyncio.ensure_future(story.operate(until))
    await asyncio.gather(trouble, operator, *writers)
    await story.heal()
    await assert_converged(world)
    await story.due()
    await assert_converged(world)
    await asyncio.sleep(NOTED_SECONDS)
    await story.check()
    report = world.report
    report.transactions = story.of.written
    if (
        report.transactions < WRITES_MIN
        or story.of.detected < CONFLICTS_MIN
        or world.network.cut_count < CUTS_MIN
        or world.loop.now < SECONDS_MIN
    ):
        raise AssertionError(f"this seed proves too little: {report}")


def union(one: Entity, other: Entity) -> Entity:
    """What both have: a merge that is a function of its input."""
    ops = sorted({*one.data["ops"], *other.data["ops"]})
    return dataclasses.replace(other, data={**one.data, **other.data, "ops": ops})


class _Story:
    def __init__(self, of: _Masters):
        self.of = of
        self.world = of.world
        self.has_hub = of.world.random.random() < 0.6
        self._invite = ""
        self._leaving: set[str] = set()
        self._count = 0

    # --- machines ---------------------------------------------------------------------

    async def found(self) -> None:
        world, names = self.world, self.of.names
        if self.has_hub:
            await world.hub()
        founder = await world.replica(names[0])
        assert founder.replica is not None
        await founder.wait(founder.replica.namespace("home"))
        invite = founder.space.invite("write", uses=len(names) + NEWCOMERS_MAX)
        self._invite = str(await founder.wait(invite))
        for name in names[1:]:
            await self._joined(name)
        for name in names:
            await self._begin(world.nodes[name])

    async def _joined(self, name: str) -> Node:
        node = await self.world.replica(name)
        assert node.replica is not None
        await node.wait(node.replica.join(self._invite, name="home"))
        return node

    async def _begin(self, node: Node) -> None:
        world = self.world
        if self.has_hub:
            await node.connect(world.nodes["hub"].address)
        else:
            names = self.of.names
            before = names[: names.index(node.name)] if node.name in names else names
            for name in list(before):
                host = world.nodes.get(name)
                while host is not None and not (host.is_up and host.replica):
                    await asyncio.sleep(0.5)  # it starts
                    host = world.nodes.get(name)
                if host is not None:
                    await node.connect(host)
        if not node.is_up:
            return
        manager = MultiMasterManager(
            *(node.name, None, node.space),
            self.of.strategy,
            union if self.of.strategy == "custom" else None,
        )
        told = self.of.told.setdefault(node.name, set())
        manager.on("conflictDetected", lambda conflict: told.add(conflict.id))
        self.of.managers[node.name] = manager
        await node.wait(manager.subscribe())

    def works(self, name: str) -> bool:
        node, manager = self.world.nodes.get(name), self.of.managers.get(name)
        return (
            node is not None
            and node.is_up
            and manager is not None
            and node.replica is not None
            and bool(node.replica.spaces())
            and manager.is_of(node.space)
        )

    # --- writing ----------------------------------------------------------------------

    async def write_on(self, place: int, until: float) -> None:
        """Write at whoever has that place in the list of masters."""
        world, chance = self.world, self.world.random
        while world.loop.now < until or (
            self._is_little() and world.loop.now < until + PATIENCE_SECONDS
        ):
            await asyncio.sleep(
                chance.expovariate(WRITES_A_SECOND / len(self.of.names))
            )
            world.check_failures()
            name = self.of.names[place % len(self.of.names)]
            if self.works(name):
                entity = chance.choices(ENTITIES, (6, 3, 1))[0]
                await self._write(name, entity)

    def _is_little(self) -> bool:
        """Whether so little was written, or at once, that it proves nothing."""
        of = self.of
        told = sum(len(of.told[name]) for name in of.names if name in of.told)
        return of.written < WRITES_MIN or told < CONFLICTS_TOLD_WISHED

    async def _write(self, name: str, entity: str) -> None:
        of, chance = self.of, self.world.random
        node, manager = self.world.nodes[name], of.managers[name]
        of.count += 1
        of.tried[name] += 1
        op = f"op{of.count}"
        write = of.writes[op] = Write(entity, op, None, name)
        try:
            shown = await node.wait(manager.get_entity(entity))
            data: dict[str, Any] = {"op": op, "ops": [op], f"f{of.count % 3}": op}
            if shown is not None:
                data = {**shown.data, **data, "ops": [*shown.data["ops"], op]}
            if of.strategy == "crdt":
                views = data.get("views")
                counter = GCounter(name)
                if views is not None:
                    counter.merge(views)
                counter.increment(1)
                data["views"] = counter
            if of.strategy == "manual" and chance.random() < 0.3:
                asked: Any = manager.resolve_conflict(entity, data)
            else:
                asked = manager.write(entity, data)
            result = await node.wait(asked)
        except NotFound:
            del of.writes[op]  # there was nothing to resolve
            return
        except SyncError:
            return
        if result is not None and result.success:
            write.clock = VectorClock(result.vector_clock)
            write.at = result.timestamp
            of.written += 1
            self.world.trace(op)

    # --- trouble ----------------------------------------------------------------------

    async def trouble(self, until: float) -> None:
        world, chance = self.world, self.world.random
        while world.loop.now < until or world.network.cut_count < CUTS_MIN:
            await asyncio.sleep(chance.expovariate(0.25))
            victim = chance.choice(self.of.names)
            roll = chance.random()
            if victim in self._leaving or victim not in world.nodes:
                continue
            node = world.nodes[victim]
            others = [name for name in world.nodes if name != victim]
            if roll < 0.12 and node.is_up:
                await self._crash(node)
            elif roll < 0.35:
                for other in chance.sample(others, chance.randint(1, len(others))):
                    world.network.part(victim, other)
            elif roll < 0.42:
                for other in others:
                    world.network.deaf.add((victim, other))
            elif roll < 0.6:
                world.network.heal()
            elif roll < 0.66:
                node.clock.skew_ms += chance.choice((-3_600_000, 50_000, -20_000))
            elif roll < 0.72:
                node.disk.full = True
                world.loop.call_later(chance.uniform(0.1, 3), _free, node.disk)
            else:
                world.network.cut_one()

    # --- what operators do ------------------------------------------------------------

    async def operate(self, until: float) -> None:
        """Add and remove masters, and replace one that lost its disk, as the guide's
        procedures say."""
        world, chance, of = self.world, self.world.random, self.of
        while world.loop.now < until:
            await asyncio.sleep(chance.uniform(5, 20))
            if len(world.nodes) > NEWCOMERS_MAX:
                return
            victim = chance.choice(of.names)
            what = chance.choice(("add", "remove", "replace"))
            if what == "add" and len(of.names) < MASTERS_MAX:
                await self._add()
                of.added += 1
            elif what == "remove" and len(of.names) > MASTERS_MIN:
                of.removed += await self._remove(victim)
            elif what == "replace" and self.has_hub and victim != of.names[0]:
                await self._replace(victim)
                of.replaced += 1

    async def _add(self) -> None:
        self._count += 1
        node = await self._joined(f"new{self._count}")
        await self._begin(node)
        self.of.names.append(node.name)

    async def _remove(self, name: str) -> bool:
        """It announces itself, hands on what it has, and is seen no more."""
        world, of = self.world, self.of
        if not self.works(name):
            return False
        self._leaving.add(name)
        node, manager = world.nodes[name], of.managers[name]
        left = False
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                of.tried[name] += 1
                said = manager.write(f"_cluster:{name}", {"status": "leaving"})
                await node.wait(said)
                of.names.remove(name)  # nobody writes here any more
                await node.wait(manager.drain())
                left = node.is_up
        except (SyncError, TimeoutError):
            pass
        self._leaving.discard(name)
        if left:
            self._gone(name)
        elif name not in of.names:
            of.names.append(name)  # nobody has what it wrote: it stays
        return left

    async def _replace(self, name: str) -> None:
        """Its disk is gone, and what nobody else had of it; another one joins."""
        self._leaving.add(name)
        for write in self.of.writes.values():
            if write.by == name:
                write.clock = None
        if name in self.of.names:
            self.of.names.remove(name)
        self._gone(name)
        self._leaving.discard(name)
        await self._add()

    def _gone(self, name: str) -> None:
        node = self.world.nodes.pop(name)
        if node.is_up:
            node.crash()
        self.of.managers.pop(name, None)

    async def _crash(self, node: Node) -> None:
        node.disk.full = False
        node.crash()
        await asyncio.sleep(self.world.random.choice((0.1, 2.0, 8.0)))
        if self.world.nodes.get(node.name) is not node:
            return  # it is no more
        node.disk.full = False
        await node.start()
        await self._begin(node)

    async def heal(self) -> None:
        world = self.world
        world.network.heal()
        weather = world.network.weather
        weather.drop = weather.duplicate = weather.reorder = weather.delay_tail = 0.0
        for node in world.nodes.values():
            node.disk.full = False
            node.clock.skew_ms, node.clock.rate = 0, 1.0

    async def due(self) -> None:
        """Wait for what was stamped ahead, by a clock that was set so."""
        world = self.world
        deadline = world.loop.now + DUE_SECONDS
        while any(n.space.engine.delivery.waiting_count for n in world.replicas()):
            world.check_failures()
            if world.loop.now > deadline:
                raise Invariant("B2", f"something waits for {DUE_SECONDS:.0f} s")
            await asyncio.sleep(1)

    # --- what must hold ---------------------------------------------------------------

    async def check(self) -> None:
        world, of = self.world, self.of
        world.compare_equal_versions()
        for name in of.names:
            self._check_told(name)
        for name in of.names:
            await world.nodes[name].wait(of.managers[name].caught_up())
        for entity in ENTITIES:
            await self._check_shown(entity)
            for name in of.names:
                self._check_versions(name, entity)
        for name in of.names:
            await self._check_conflicts(name)
        await self._check_quiet()

    def _check_told(self, name: str) -> None:
        """Conflicts that stand were noted and told, though nobody asked for them."""
        of, node = self.of, self.world.nodes[name]
        ns = node.space.engine.ns
        noted = stored_conflicts(node.space.engine.keeper.store, ns, "*", pending=False)
        for entity in ENTITIES:
            versions = of.managers[name].versions(entity)
            ops = {one.data["op"] for one in versions if one.data}
            found = [
                conflict.id
                for conflict in noted
                if conflict.entity_id == entity
                and {v.data["op"] for v in conflict.versions if v.data} == ops
            ]
            if len(ops) > 1 and not found:
                raise Invariant("conflicts", f"{name} did not note {ops}")
            if len(ops) > 1 and not of.told[name] & {*found}:
                raise Invariant("conflicts", f"{name} told nobody of {ops}")

    def _check_meaning(self, entity: str, shown: Entity) -> None:
        """What shows is what the strategy says, of the versions that stand."""
        of = self.of
        versions = of.managers[of.names[0]].versions(entity)
        if of.strategy in ("lww", "manual", "detect"):
            latest = max(versions, key=lambda v: (v.timestamp, v.master_id))
            if shown.data["op"] != latest.data["op"]:
                raise Invariant(
                    "C1", f"{entity} shows {shown.data['op']}, and is older"
                )
        if of.strategy == "field":
            for name in {key for one in versions for key in one.data} - {"ops"}:
                writes = [of.writes[v.data[name]] for v in versions if name in v.data]
                stamps = [(w.at, w.by, w.op) for w in writes if w.at is not None]
                if len(stamps) < len(writes):
                    continue  # nobody knows when one of them was
                if shown.data[name] != max(stamps)[2]:
                    raise Invariant("C1", f"{name} of {entity} is not the latest")

    async def _check_shown(self, entity: str) -> None:
        """C1: by all masters the same, and nothing that nobody wrote."""
        of = self.of
        shown: list[Any] = []
        for name in of.names:
            found = await self.world.nodes[name].wait(
                of.managers[name].get_entity(entity)
            )
            shown.append(found)
            if found is not None and found.data["op"] not in of.writes:
                raise Invariant("D2", f"{name} shows {found.data['op']}")
        if any(_plain(one) != _plain(shown[0]) for one in shown):
            raise Invariant("C1", f"masters differ in {entity}: {shown}")
        if shown[0] is None:
            return
        self._check_meaning(entity, shown[0])
        known = [w for w in of.writes.values() if w.entity == entity]
        if of.strategy in ("custom", "crdt"):
            # Writers keep what they were shown: nothing was ever dropped.
            ops = set(shown[0].data["ops"])
            if of.strategy == "custom":
                lost = {w.op for w in known if w.clock is not None} - ops
                if lost:
                    raise Invariant("D1", f"{entity} lost {sorted(lost)[:5]}")
            else:
                views = shown[0].data["views"].value()
                least = sum(w.clock is not None for w in known)
                if not least <= views <= len(known):
                    raise Invariant(
                        "D2", f"{entity} counts {views} of {least}..{len(known)}"
                    )

    def _check_versions(self, name: str, entity: str) -> None:
        """D1: each write is there, or one that knew of it."""
        manager = self.of.managers[name]
        versions = manager.versions(entity)
        there = [
            (one.data["op"], VectorClock(one.vector_clock))
            for one in versions
            if one.data
        ]
        for write in self.of.writes.values():
            if write.entity != entity or write.clock is None:
                continue
            if not any(
                op == write.op
                or VectorClock.compare(write.clock, clock) in ("before", "equal")
                for op, clock in there
            ):
                raise Invariant("D1", f"{name} lost {write.op}, and nothing knew of it")
        for op, clock in there:
            for other, over in there:
                if op != other and VectorClock.compare(clock, over) == "before":
                    if self.of.strategy == "manual":
                        continue  # he left it for somebody who decides
                    raise Invariant("D2", f"{name} keeps {op} beside {other}")

    async def _check_conflicts(self, name: str) -> None:
        """What was detected is real, and what stands side by side was detected."""
        of, manager = self.of, self.of.managers[name]
        node = self.world.nodes[name]
        found = await node.wait(manager.get_conflicts())
        of.detected += len(found)
        hot = await node.wait(manager.hot_entities(len(found) + 1))
        if sum(count for _, count in hot) != len(found):
            raise Invariant("conflicts", f"{name}: {hot} of {len(found)} conflicts")
        for conflict in found:
            clocks = [VectorClock(v.vector_clock) for v in conflict.versions]
            apart = any(
                VectorClock.compare(one, other) == "concurrent"
                for index, one in enumerate(clocks)
                for other in clocks[index + 1 :]
            )
            if not apart and of.strategy != "manual":  # or he left it for somebody
                raise Invariant("conflicts", f"{name}: {conflict} is none")
        for entity in ENTITIES:
            versions = manager.versions(entity)
            ops = {one.data["op"] for one in versions if one.data}
            told = [
                {v.data["op"] for v in conflict.versions if v.data}
                for conflict in found
                if conflict.entity_id == entity
            ]
            if len(ops) > 1 and ops not in told:
                raise Invariant("conflicts", f"{name} did not tell of {ops}")

    async def _check_quiet(self) -> None:
        """Nobody writes because of what came in: no ping-pong, and no answer."""
        of = self.of
        clock = of.managers[of.names[0]].get_vector_clock()
        for name in clock:
            if clock[name] > of.tried[name]:
                raise Invariant(
                    "ping-pong", f"{name} wrote {clock[name]}, asked {of.tried[name]}"
                )
        replicas = self.world.replicas()
        before = {node.name: node.space.engine.next_seq for node in replicas}
        await asyncio.sleep(QUIET_SECONDS)
        for node in replicas:
            if node.space.engine.next_seq != before[node.name]:
                raise Invariant("ping-pong", f"{node.name} wrote in quiet times")


def _plain(shown: Any) -> Any:
    if shown is None:
        return None
    data = {
        key: value.to_json() if isinstance(value, GCounter) else value
        for key, value in shown.data.items()
    }
    return data, shown.version, shown.updated_at, shown.conflicted


def _free(disk: Any) -> None:
    disk.full = False
