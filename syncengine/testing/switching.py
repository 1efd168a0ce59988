"""The story of a namespace that is switched between a leader and masters, and back,
while all goes wrong.

What was acknowledged under a leader is in the log of that time, at its place (L3), and
sessions and strong reads hold within it (O2, L4); what somebody wrote as a master and
was told is durable shows everywhere, or is in his rescue area, because nobody knew of
it when a leader came (D1, L5). At the end all are in one mode, with one leader (B2).
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from syncengine.errors import SyncError
from syncengine.ids import EntryId
from syncengine.log.batch import Batch
from syncengine.replication import feed
from syncengine.replication.modes import LEADER_FOLLOWER, MULTI_MASTER
from syncengine.replication.tokens import Token
from syncengine.testing.leading import (
    FAULTS,
    NAMES,
    Done,
    Led,
    Session,
    check_once,
    judge,
)
from syncengine.testing.world import Invariant, Node, World
from syncengine.trust.entry import Kind

MACHINES = 3
PAGE = "page/marks"

# Of one world, or it proves too little.
SWITCHES_MIN = 2
SWITCHING_SECONDS = 120.0

# By which time all are in one mode, once nothing goes wrong any more.
MENDED_SECONDS = 240.0


async def switched(world: World) -> None:
    """Three machines whose owner cannot make up his mind."""
    await _Switched(world, NAMES[:MACHINES]).lived()


class _Switched(Led):
    elections_min = SWITCHES_MIN
    # All may write for most of the time, as masters, in some of these worlds.
    done_min, writes_min, reads_min = 50, 1, 0
    # What a master stamps an hour ahead waits for an hour, and is not lost.
    faults = tuple(fault for fault in FAULTS if fault != "clock")

    def __init__(self, world: World, names: tuple[str, ...]):
        super().__init__(world, names)
        self.marks: set[str] = set()
        """What was written as a master, and promised durable"""
        self._count_marks = 0
        self._switches = 0

    def others(self, until: float) -> list[Coroutine[Any, Any, None]]:
        return [self._switch(until), *(self._write_marks(n, until) for n in self.names)]

    async def found(self) -> None:
        await super().found()
        # Whoever starts as a leader makes a namespace of masters have one.
        self.founder_role = "follower"

    # --- what people do ---------------------------------------------------------------

    async def _switch(self, until: float) -> None:
        world, chance = self.world, self.world.random
        patience = until + SWITCHING_SECONDS
        while world.loop.now < until or (
            self._switches < SWITCHES_MIN and world.loop.now < patience
        ):
            await asyncio.sleep(chance.uniform(6, 18))
            world.check_failures()
            if self.works(self.founder):
                leads = world.nodes[self.founder].space.mode == LEADER_FOLLOWER
                await self._switch_to(MULTI_MASTER if leads else LEADER_FOLLOWER)

    async def _switch_to(self, mode: str) -> None:
        """Switch on the owner's machine, who has to lead where there is a leader."""
        node, manager = self.world.nodes[self.founder], self.managers[self.founder]
        assert node.replica is not None
        with contextlib.suppress(SyncError):
            if mode == MULTI_MASTER:
                await node.wait(manager.promote())
                await node.wait(manager.switch_to_masters())
            else:
                voters = [self.world.nodes[name].device for name in self.names]
                await node.wait(node.space.switch_mode(LEADER_FOLLOWER, voters=voters))
            if self.works(self.founder) and node.space.mode == mode:
                self._switches += 1  # else it crashed meanwhile
        self.world.trace("switched to", mode)

    async def _write_marks(self, name: str, until: float) -> None:
        """Write on one machine whenever all may."""
        world, chance = self.world, self.world.random
        while world.loop.now < until:
            await asyncio.sleep(chance.expovariate(0.5))
            if not self.works(name):
                continue
            node = world.nodes[name]
            if node.space.mode == MULTI_MASTER:
                await node.wait(self._write_mark(node))

    async def _write_mark(self, node: Node) -> None:
        self._count_marks += 1
        mark = f"mark{self._count_marks}"
        try:
            async with node.space.transaction(mark) as tx:
                tx[PAGE].set("seen").add(mark)
        except SyncError:
            return  # a leader came, or the disk said no: not promised
        self.marks.add(mark)
        self.world.trace(mark)

    async def mended(self) -> None:
        """One mode, and one leader."""
        world = self.world
        deadline = world.loop.now + MENDED_SECONDS
        while True:
            world.check_failures()
            nodes = world.replicas()
            modes = {node.space.engine.keeper.terms.mode_id for node in nodes}
            terms = {manager.term for manager in self.managers.values()}
            if world.nodes[self.founder].space.mode == MULTI_MASTER:
                await self._switch_to(LEADER_FOLLOWER)
            elif len(modes) == len(terms) == 1 and self.leader() is not None:
                break
            if world.loop.now > deadline:
                raise Invariant("B2", f"no end of switching: {modes}, {terms}")
            await asyncio.sleep(1)
        await self.one_leads()

    async def one_leads(self) -> None:
        if self.world.nodes[self.founder].space.mode == MULTI_MASTER:
            await self._switch_to(LEADER_FOLLOWER)
        await super().one_leads()

    # --- what must hold ---------------------------------------------------------------

    def diverged(self, seen: Session) -> None:
        mode = Token.parse(seen.token or "").mode
        nodes = [
            node
            for node in self.world.replicas()
            if node.is_up and node.replica is not None and node.replica.spaces()
        ]
        if all(node.space.engine.keeper.terms.mode_id == mode for node in nodes):
            super().diverged(seen)
        seen.token, seen.sequence = None, 0  # that log was ended: he begins anew

    async def judged(self, chain: list[str | None]) -> None:
        logs = self._logs()
        check_once([name for log in logs.values() for name in log])
        before: list[tuple[str, Any]] = []
        writes = {done.name: done for done in self.history if done.kind == "write"}
        for mode, log in logs.items():
            judge(self._of(mode, log), log, before)
            known = [writes[name] for name in log if name is not None]
            before += [(done.key, done.value) for done in known]
        everything = {name for log in logs.values() for name in log}
        for done in self.history:
            if done.kind == "write" and done.status == "ok":
                if done.name not in everything:
                    raise Invariant("L3", f"{done} is in no log")
            elif done.token and Token.parse(done.token).mode not in logs:
                raise Invariant("L4", f"{done} saw a log that nobody has")
        await self._check_marks()

    def _of(self, mode: EntryId, log: list[str | None]) -> list[Done]:
        """Return what is to be judged by a log."""
        found: list[Done] = []
        for done in self.history:
            if done.kind == "write" and (done.status != "ok" or not done.sequence):
                if done.name in log and done.status == "ok":
                    # Repeated when its log had been ended: there, and without a place.
                    found.append(replace(done, status="unknown"))
                elif done.name in log or done.status == "failed":
                    found.append(done)
            elif done.token is not None and Token.parse(done.token).mode == mode:
                found.append(done)
        return found

    def _logs(self) -> dict[EntryId, list[str | None]]:
        """Return the client operation ids of the log of each time with a leader."""
        engine = self.world.replicas()[0].space.engine
        keeper = engine.keeper
        found: dict[EntryId, dict[int, str | None]] = {
            mode: {}
            for mode, record in sorted(
                keeper.membership.modes.items(), key=lambda one: one[1].number
            )
            if record.has_leader
        }
        at = 0
        while rows := keeper.rows_after(at, 100):
            for position, row in rows:
                at, before = position, at
                term = keeper.terms.term_of(row.header.actor) if isinstance(
                    row, Batch
                ) else None  # fmt: skip
                if not isinstance(row, Batch) or term is None:
                    continue
                changes = feed.told(keeper, before, position, row)
                first = row.header.term_index - len(changes) + 1
                for index, change in enumerate(changes, first):
                    if change.void is None:
                        log = found[term.record.mode]
                        if index in log:
                            raise Invariant("L2", f"two entries at {index}")
                        log[index] = change.operation_id
        return {mode: [log[i] for i in sorted(log)] for mode, log in found.items()}

    async def _check_marks(self) -> None:
        shown: set[str] = set()
        rescued: set[str | None] = set()
        for node in self.world.replicas():
            page = await node.wait(node.space.get(PAGE, default=None))
            shown = set() if page is None else set(page.to_dict()["seen"])
            found = await node.wait(node.space.rescue.list(decided=True))
            rescued |= {one.operation_id for one in found}
        lost = self.marks - shown - rescued
        if lost:
            raise Invariant("D1", f"written as masters and nowhere: {sorted(lost)}")
        if both := shown & rescued:
            raise Invariant("L5", f"shown and rescued: {sorted(both)}")

    async def check_logs(self, chain: list[str | None]) -> None:
        self._check_terms()
        nodes = self.world.replicas()
        for node in nodes:
            engine = node.space.engine
            await node.wait(engine.flush())  # the file is asked
            if self._names(node) != self._names(nodes[0]):
                raise Invariant("L2", f"{node.name} has another log")
            if engine.applied_index != len(chain):
                raise Invariant("L2", f"{node.name} shows {engine.applied_index}")
            if engine.keeper.store.read(
                "SELECT 1 FROM _sync_log WHERE kind = ?", Kind.FORK
            ):
                raise Invariant("D1", "an honest leader was taken for a forger")
        switches = len(nodes[0].space.engine.keeper.membership.modes) - 1
        if switches < SWITCHES_MIN:
            raise AssertionError(f"this seed proves too little: {switches} switches")
