"""The story of leaders by a lease: an engine outside says who may lead, and machines
ask it when they hear of no leader.

Checked is that nobody takes a write, or confirms a read, without holding the lease at a
moment of it. Where there are voters, too, all holds that holds for leaders (see
`leading`). Without, a leader's disk alone acknowledges: what was acknowledged is in the
log, or in the rescue area of somebody (L5).
"""

import asyncio
import contextlib
from dataclasses import dataclass

from syncengine.errors import SyncError
from syncengine.replication.election import Lease
from syncengine.testing.leading import FAULTS, NAMES, Done, Led, Session
from syncengine.testing.world import Invariant, Node, World

MACHINES = 3

# The lease of an engine: a few of the leaders' heartbeats.
LEASE_SECONDS = 6.0

# How many of the calls to an engine get lost: half on their way, half with the answer.
LOST = 0.05


async def leased(world: World) -> None:
    """Three machines, an engine, and all that can go wrong with both."""
    await _Leased(world).lived()


@dataclass
class Tenure:
    """A time for which the engine gave the lease to somebody."""

    node: str
    term: int
    began: float
    ends: float


class Engine:
    """Compare-and-swap with a time, on a machine that does not fail."""

    def __init__(self, world: World):
        self._world = world
        self.tenures: list[Tenure] = []
        self.away: dict[str, float] = {}
        """Until when it is not reached from a machine"""
        self.lost = 0.0
        """How many calls get lost"""

    def acquire(self, node: str, expected_term: int) -> int:
        now = self._world.loop.now
        last = self.tenures[-1] if self.tenures else None
        if last is not None and now < last.ends and last.node != node:
            raise OSError(f"{last.node} holds it")
        if last is not None:
            last.ends = min(last.ends, now)
        term = max(expected_term, 0 if last is None else last.term) + 1
        self.tenures.append(Tenure(node, term, now, now + LEASE_SECONDS))
        return term

    def renew(self, node: str, term: int) -> float:
        last = self._held(node, term)
        last.ends = self._world.loop.now + LEASE_SECONDS
        return LEASE_SECONDS

    def release(self, node: str, term: int) -> None:
        last = self._held(node, term)
        last.ends = self._world.loop.now

    def _held(self, node: str, term: int) -> Tenure:
        last = self.tenures[-1]
        if (last.node, last.term) != (node, term) or self._world.loop.now >= last.ends:
            raise OSError("it is not yours")
        return last


class Asked(Lease):
    """The engine, as one machine reaches it."""

    def __init__(self, world: World, engine: Engine, node: str):
        self._world, self._engine, self._node = world, engine, node

    async def acquire(self, expected_term: int) -> int:
        await self._travel()
        term = self._engine.acquire(self._node, expected_term)
        await self._travel()
        return term

    async def renew(self, term: int) -> float:
        await self._travel()
        seconds = self._engine.renew(self._node, term)
        await self._travel()
        return seconds

    async def release(self, term: int) -> None:
        await self._travel()
        self._engine.release(self._node, term)
        await self._travel()

    async def _travel(self) -> None:
        chance = self._world.random
        await asyncio.sleep(chance.expovariate(1 / 0.02))
        away = self._engine.away.get(self._node, 0) - self._world.loop.now
        await asyncio.sleep(max(0, away))
        if chance.random() < self._engine.lost / 2:
            raise OSError("the engine is not reached")


class _Leased(Led):
    # Who was elected waits for a lease that is not his to end.
    done_min, writes_min, reads_min = 50, 10, 0
    faults = (*FAULTS, "engine", "engine", "pause", "slow")
    asks_paused = True

    def __init__(self, world: World):
        super().__init__(world, NAMES[:MACHINES])
        self.votes = world.random.random() < 0.5
        self.engine = Engine(world)

    def lease(self, name: str) -> Lease:
        return Asked(self.world, self.engine, name)

    async def found(self) -> None:
        await super().found()
        self.engine.lost = LOST

    async def manage(self, node: Node, voters: list[str]) -> None:
        await super().manage(node, voters if self.votes else [])

    async def lived(self) -> None:
        tasks = [asyncio.ensure_future(self._look_after(name)) for name in self.names]
        try:
            await super().lived()
        finally:
            for task in tasks:
                task.cancel()

    async def _look_after(self, name: str) -> None:
        """Promote a machine that hears of no leader, as a supervisor beside it does."""
        while True:
            await asyncio.sleep(self.world.random.uniform(2, 6))
            if self.works(name) and not self.managers[name].is_leader_healthy():
                with contextlib.suppress(SyncError):
                    await self.world.nodes[name].wait(
                        self.managers[name].promote(timeout_ms=3_000)
                    )

    async def strike(self, what: str, victim: str) -> None:
        if what == "engine":
            later = self.world.random.uniform(1, 15)
            self.engine.away[victim] = self.world.loop.now + later
        else:
            await super().strike(what, victim)

    async def heal(self) -> None:
        self.engine.away.clear()
        self.engine.lost = 0.0
        await super().heal()

    # --- what must hold ---------------------------------------------------------------

    def diverged(self, seen: Session) -> None:
        if self.votes:
            super().diverged(seen)
        # What one disk had may be taken back: he is told, and begins anew.
        seen.token, seen.sequence = None, 0

    async def judged(self, chain: list[str | None]) -> None:
        if self.votes:
            await super().judged(chain)
        else:
            await self.judged_with_rescue(chain)
        for done in self.history:
            if done.kind != "session" and done.status == "ok":
                self._check_held(done)

    def _check_held(self, done: Done) -> None:
        if not any(
            tenure.node == done.server
            and tenure.began <= done.ended
            and done.began < tenure.ends
            for tenure in self.engine.tenures
        ):
            raise Invariant("L1", f"{done.server} held no lease during {done}")
