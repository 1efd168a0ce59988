"""The story of people who look after leaders and voters, while all goes wrong.

They do what the guide's procedures say: voters are added and removed, a machine that
lost its disk is replaced, one that came back from a backup is added again, and where
nobody else is left somebody is made the leader by force.

Without force all holds that holds for leaders (see `leading`). With it a majority's
word may be lost, and then L5 alone says what became of it: it is in the log, or in the
rescue area of somebody. At the end every machine votes (B2).
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from syncengine.errors import SyncError
from syncengine.ids import EntryId
from syncengine.testing.leading import (
    FAULTS,
    NAMES,
    Led,
    Session,
    judge,
)
from syncengine.testing.world import Image, Invariant, Node, World

VOTERS_AT_FIRST = 3
VOTERS_MIN = 3
MACHINES_MAX = 40  # of one world: that many invitations are enough

VOTERS, WIPED, RESTORED, FORCED = "voters", "wiped", "restored", "forced"

# By which time all machines vote again, once nothing goes wrong any more.
MENDED_SECONDS = 240.0


async def operated(world: World) -> None:
    """Five machines, three voters at first, and people with their hands on them."""
    await _Operated(world).lived()


class _Operated(Led):
    invite_uses = MACHINES_MAX
    # Nobody leads for long, in some of these worlds.
    done_min, writes_min, reads_min = 50, 1, 0
    faults = (*FAULTS, "strand", "strand", "strand", "ring", "slow")

    def __init__(self, world: World):
        super().__init__(world, NAMES, VOTERS_AT_FIRST)
        chance = world.random
        if chance.random() < 0.3:
            self.doing = [FORCED, VOTERS]
        else:
            self.doing = [
                VOTERS,
                *(x for x in (WIPED, RESTORED) if chance.random() < 0.7),
            ]
        self.is_forced = FORCED in self.doing
        self.images: dict[str, Image] = {}
        self.suspects: set[str] = set()
        """Devices that may have voted and do not know it any more"""
        self.done = dict.fromkeys((*self.doing, "removed", "added"), 0)
        self._machines = len(NAMES)

    def others(self, until: float) -> list[Coroutine[Any, Any, None]]:
        return [self._operate(until)]

    async def _operate(self, until: float) -> None:
        world, chance = self.world, self.world.random
        while world.loop.now < until:
            await asyncio.sleep(chance.uniform(3, 12))
            world.check_failures()
            what = chance.choice(self.doing)
            victim = chance.choice(self.names)
            if what == WIPED and self._may_be_hurt(victim):
                await self._wipe(victim)
            elif what == RESTORED and self._may_be_hurt(victim):
                await self._restore(victim)
            elif what == FORCED and self.works(victim):
                await self._force(victim)
            else:
                await self._tend(may_change=True)

    # --- what happens to machines -----------------------------------------------------

    def _may_be_hurt(self, victim: str) -> bool:
        """One voter at a time: beyond that nobody promises anything."""
        leader = self.leader()
        if leader is None or victim in self.starting:
            return False
        voters = set(self.managers[leader].get_voters())
        return len(voters) >= VOTERS_MIN and not self._unfit(voters)

    def _unfit(self, voters: set[str]) -> list[str]:
        """Return voters that are gone for good, or do not vote."""
        here = {self.device(name) for name in self.names}
        for name in self.names:
            device = self.device(name)
            if device in self.suspects and self.works(name):
                engine = self.world.nodes[name].space.engine
                if engine.leadership.current.may_vote:
                    self.suspects.discard(device)
        return sorted((voters - here) | (voters & self.suspects))

    def device(self, name: str) -> str:
        return self.world.nodes[name].device

    def _crash(self, node: Node) -> None:
        self.world.loop.resume(node.life)
        node.crash()

    async def _wipe(self, name: str) -> None:
        """Its disk is gone; a new one comes in its place, with a key of its own."""
        world = self.world
        node = world.nodes.pop(name)
        self._crash(node)
        world.network.heal()
        self.managers.pop(name, None)
        self.images.pop(name, None)
        self._machines += 1
        new = f"{name.rstrip('0123456789')}{self._machines}"
        self.names[self.names.index(name)] = new
        self.starting.add(new)
        try:
            fresh = await self.joined(new)
            await self.link(fresh)
            await self.manage(fresh, [])
        finally:
            self.starting.discard(new)
        self.done[WIPED] += 1
        world.trace("wiped", name, new)

    async def _restore(self, name: str) -> None:
        """Its file comes back from a backup; its folder knows better."""
        world = self.world
        node = world.nodes[name]
        image = self.images.pop(name, None)
        if image is None:
            self.images[name] = node.disk.image()  # for the next time
            return
        self.starting.add(name)  # nobody else starts it
        self._crash(node)
        self.suspects.add(self.device(name))
        world.forget(node)
        node.restore(image, with_folder=False)
        # As `Replica.backup` leaves it.
        node.disk.store.connection.execute("DELETE FROM _sync_meta WHERE key = 'token'")
        await asyncio.sleep(world.random.uniform(1, 10))
        self.starting.discard(name)
        await self.start(name)
        self.done[RESTORED] += 1

    async def _force(self, name: str) -> None:
        """Somebody believes that the others are gone, and makes one the leader."""
        world, chance = self.world, self.world.random
        others = [other for other in self.names if other != name]
        if chance.random() < 0.7:
            for other in others:
                world.network.part(name, other)
            world.loop.call_later(chance.uniform(10, 30), world.network.heal)
            await asyncio.sleep(chance.uniform(0, 10))
        if not self.works(name):
            return
        # An owner may say that others vote no more; then it leads on alone.
        is_owner = name == self.founder
        gone = [self.device(other) for other in others] if is_owner else []
        with contextlib.suppress(SyncError):
            await world.nodes[name].wait(
                self.managers[name].promote(
                    require="i_accept_loss", reason="they burned", without=gone
                )
            )
            self.done[FORCED] += 1
            world.trace("forced", name)

    # --- what people do ---------------------------------------------------------------

    async def _tend(self, *, may_change: bool) -> None:
        """Remove a voter that is gone or votes no more; else add or remove one."""
        chance = self.world.random
        leader = self.leader()
        if leader is None:
            await self.nobody_leads()
            return
        manager = self.managers[leader]
        voters = manager.get_voters()
        unfit = self._unfit(set(voters))
        learners = [
            device for device in map(self.device, self.names) if device not in voters
        ]
        can_remove = may_change and len(voters) > VOTERS_MIN
        if unfit:
            is_here = unfit[0] in self.suspects  # it came back from a backup
            what = "add" if is_here and chance.random() < 0.5 else "remove"
            await self._change(leader, what, unfit[0])
        elif can_remove and (not learners or chance.random() < 0.5):
            await self._change(leader, "remove", chance.choice(voters))
        elif learners:
            await self._change(leader, "add", chance.choice(learners))

    async def nobody_leads(self) -> None:
        """One or two voters elect nobody by themselves: somebody is promoted."""
        voting = [
            name
            for name in self.names
            if self.works(name)
            and self.device(name) in (voters := self.managers[name].get_voters())
            and len(voters) < VOTERS_MIN
        ]
        if voting:
            name = self.world.random.choice(voting)
            with contextlib.suppress(SyncError):
                await self.world.nodes[name].wait(self.managers[name].promote())

    async def _change(self, leader: str, what: str, device: str) -> None:
        node, manager = self.world.nodes[leader], self.managers[leader]
        change = manager.remove_voter if what == "remove" else manager.add_voter
        with contextlib.suppress(SyncError):
            await node.wait(change(device))
            self.done["added" if what == "add" else "removed"] += 1
            self.world.trace(what, device)

    async def mended(self) -> None:
        """All vote again, within a while."""
        world = self.world
        deadline = world.loop.now + MENDED_SECONDS
        while True:
            world.check_failures()
            leader = self.leader()
            here = {self.device(name) for name in self.names}
            voters = set(self.managers[leader].get_voters() if leader else [])
            tops = {self._top(name) for name in self.names}
            if voters == here and len(tops) == 1 and not self._unfit(voters):
                break  # and nobody knows of another leader
            if world.loop.now > deadline:
                raise Invariant("B2", f"not all vote again: {self._state()}")
            await self._tend(may_change=False)
            await asyncio.sleep(1)
        await self.one_leads()

    def _top(self, name: str) -> EntryId | None:
        """Return the term that a machine knows as the highest; of those that were
        forced two may have one number."""
        if not self.works(name):
            return None
        top = self.world.nodes[name].space.engine.keeper.terms.top
        return None if top is None else top.id

    def _state(self) -> str:
        leader = self.leader()
        voters = self.managers[leader].get_voters() if leader else []
        names = {self.device(name): name for name in self.names}
        told = [names.get(voter, voter[:6]) for voter in voters]
        return f"{leader} leads {told} of {self.names}; {self.done}"

    # --- what must hold ---------------------------------------------------------------

    def diverged(self, seen: Session) -> None:
        if not self.is_forced:
            super().diverged(seen)
        # Force may take back what somebody saw: he is told, and begins anew.
        seen.token, seen.sequence = None, 0

    async def judged(self, chain: list[str | None]) -> None:
        if not self.is_forced:
            judge(self.history, chain)
            return
        await self.judged_with_rescue(chain)
