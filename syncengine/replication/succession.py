"""Who leads, changed by hand: promotion, hand-over, other voters, another mode.

Each ends or begins a term, so that none can be half done: what counts is the log.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from syncengine import values
from syncengine.errors import (
    Invalid,
    OutcomeUnknown,
    PromotionFailed,
    StaleRead,
    SyncError,
)
from syncengine.ids import DeviceId, parse_device_id
from syncengine.log.terms import Term
from syncengine.protocol.notices import TakeOver
from syncengine.replication.election import Race
from syncengine.replication.modes import MULTI_MASTER, switch
from syncengine.replication.seat import Seat
from syncengine.trust.leadership import majority
from syncengine.trust.membership import Ops

# Writes that somebody who is to vote may be behind: he has them in a moment.
VOTER_BEHIND_MAX = 1_000


def _is_over(race: Race) -> bool:
    return race.is_over


class Succession:
    """What a node does about who leads when somebody asks it to. Each method promises
    what `LeaderFollowerManager` says of it."""

    def __init__(self, seat: Seat):
        self._seat = seat
        self._returning: asyncio.Future[None] | None = None

    async def promote(
        self,
        *,
        require: Literal["majority", "i_accept_loss"],
        reason: str,
        without: Iterable[str],
        expected_term: int | None,
        timeout_ms: int,
    ) -> None:
        """Begin a term in which this node leads."""
        self._seat.check()
        election = self._seat.election
        if require not in ("majority", "i_accept_loss"):
            raise Invalid(
                'promote requires a "majority", or says "i_accept_loss"', path="require"
            )
        values.check_key(reason, "reason")
        if require == "i_accept_loss" and not reason:
            raise Invalid("who accepts loss says why: reason=...", path="reason")
        lost_voters = {parse_device_id(device) for device in without}
        if lost_voters and require != "i_accept_loss":
            raise Invalid("who votes no more is lost: i_accept_loss", path="without")
        if (
            election.leading is not None
            and election.holds_lease
            and not lost_voters & {*election.voters}
        ):
            return
        before, end, told = election.top, election.end()[1], election.told_commit
        self._seat.metrics.elections_started += 1
        lost: PromotionFailed | None = None
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(until):
                while True:
                    standing = asyncio.ensure_future(
                        self._stand(require, reason, lost_voters, expected_term, until)
                    )
                    try:
                        race = await asyncio.shield(standing)
                    except asyncio.CancelledError:
                        await asyncio.wait([standing])  # not in the middle of it
                        error = standing.exception()
                        lost = error if isinstance(error, PromotionFailed) else lost
                        raise
                    race = await self._decided(race)
                    lost = race.error
                    if lost is None:
                        break
                    await asyncio.sleep(self._seat.beat_seconds)
        except TimeoutError:
            async with self._seat.turn:
                election.drop_race()
            self._seat.bell.set()  # what was taken for it is given back
            if election.leading is None:
                why = "it took longer than that; nothing changed"
                if election.voters:
                    why = (
                        "no majority of the voters has answered; nothing changed. "
                        "Where they are lost for good: "
                        'promote(require="i_accept_loss", reason=...)'
                    )
                raise lost or PromotionFailed(why) from None
        self._seat.metrics.promotions += 1
        if before is not None:
            self._seat.metrics.writes_missing = max(0, told - end)

    async def _stand(
        self,
        require: str,
        reason: str,
        lost_voters: set[DeviceId],
        expected_term: int | None,
        until: float,
    ) -> Race:
        election = self._seat.election
        async with self._seat.turn:
            self._seat.check_open()
            if expected_term is not None and self._seat.term != expected_term:
                raise PromotionFailed(
                    f"the term is {self._seat.term} by now, and not {expected_term}: "
                    "look who leads, and promote again"
                )
            election.check_may_lead()
            if election.voters and require == "majority" and not election.is_voter:
                raise PromotionFailed(
                    f"{self._seat.node} is no voter (any more): a leader makes it one "
                    "by add_voter"
                )
            if require == "i_accept_loss":
                left = tuple(v for v in election.voters if v not in lost_voters)
                if election.voters and not left:
                    raise PromotionFailed("not all voters can be lost")
                terms = election.engine.keeper.terms
                if left != election.voters and not terms.may_decide(election.me):
                    raise PromotionFailed(
                        "that voters are lost is said by an owner's device, or by one "
                        "that may admin and lead"
                    )
                return await election.stand(
                    "forced", voters=left, reason=reason, lease_by=until
                )
            asks = bool(election.voters)
            return await election.stand(
                "manual",
                is_asking=asks,
                is_wished=True,
                reason=reason,
                lease_by=until,
            )

    async def _decided(self, race: Race) -> Race:
        """Wait until enough voters have answered; whoever was not reached is asked
        again. Returns the race that was decided."""

        def ask(race: Race) -> None:
            if not self._seat.election.ask(race):
                race.fail("another candidacy of this node has begun meanwhile")

        while not race.is_over or race.then is not None:
            race = race.then or race
            await self._asking(partial(_is_over, race), partial(ask, race))
        return race

    async def _asking(self, so: Callable[[], bool], ask: Callable[[], Any]) -> None:
        """Wait until it is so, and ask again with each beat: a notice may be lost."""
        now = asyncio.get_running_loop().time
        due = now() + self._seat.beat_seconds
        while not so():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._seat.stirs()
            if now() >= due and not so():
                ask()
                due = now() + self._seat.beat_seconds

    async def demote(
        self,
        handoff: bool | None,
        timeout_ms: int,
    ) -> None:
        """End the term in which this node leads, or let another one begin his."""
        self._seat.check()
        election = self._seat.election
        term = election.leading
        if term is None:
            return
        if handoff is None:
            handoff = election.best_successor() is not None
        if handoff:
            await self._hand_over(term, timeout_ms)
        else:
            async with self._seat.turn:
                await self.resign()
                election.deadline += self._seat.timeout_seconds  # others first
        self._seat.metrics.demotions += 1

    async def resign(self) -> None:
        """Lead no more, whatever the term is by now, and give the lease back. The
        caller holds the turn."""
        election = self._seat.election
        term = election.leading
        if term is not None:
            await election.engine.end_term()
            await election.release_lease(term.number)

    async def _hand_over(self, term: Term, timeout_ms: int) -> None:
        seat, election, engine = self._seat, self._seat.election, self._seat.engine
        seat.drains = True
        is_over = False  # or may be, since somebody was asked to begin another one
        try:
            async with asyncio.timeout(timeout_ms / 1000), engine.writes_held():
                await engine.flush()
                device = await self._successor(term)
                mode = engine.keeper.terms.mode_id
                said = TakeOver(mode, term.number, seat.node)
                is_over = election.lease is not None or not election.voters
                if election.lease is not None:
                    async with seat.turn:
                        await self.resign()
                election.say(said, device)
                await self._asking(
                    lambda: election.top is not None and election.top.id != term.id,
                    lambda: election.say(said, device),
                )
        except BaseException as error:
            is_last = election.top is not None and election.top.id == term.id
            if is_over and is_last:  # who was asked is late
                self._returning = asyncio.ensure_future(self._lead_on())
                await asyncio.shield(self._returning)
            if isinstance(error, TimeoutError):
                leads = "this node leads on" if election.leading else "nobody leads now"
                raise PromotionFailed(f"nobody took over in time; {leads}") from None
            raise
        finally:
            seat.drains = False
        if election.leading is not None:  # in a term of its own: voters were changed
            raise PromotionFailed("nobody took over; this node leads on")

    async def _successor(self, term: Term) -> DeviceId:
        """Wait until a follower has all, and return its device."""
        seat, election = self._seat, self._seat.election
        while True:
            leading = election.leading
            if leading is None or leading.id != term.id:
                raise PromotionFailed(f"{seat.leader_id or 'nobody'} leads by now")
            found = election.best_successor()
            if found is not None and found[1].stored >= seat.engine.newest_index:
                return found[0]
            await seat.stirs()

    # --- the mode -------------------------------------------------------------------

    async def switch_to_masters(self, timeout_ms: int) -> None:
        """End the log of leaders."""
        self._seat.check()
        election = self._seat.election
        term = self._seat.led_term()
        engine, voters = election.engine, election.voters
        self._seat.drains = True
        try:
            async with asyncio.timeout(timeout_ms / 1000), engine.writes_held():
                await engine.flush()
                beat = self._seat.ask(term)
                index = engine.newest_index
                if voters and not await self._seat.acks.until(
                    index, term.id, "majority", beat
                ):
                    raise self._seat.superseded()
                async with self._seat.turn:
                    self._seat.check_open()
                    await switch(self._seat.space, MULTI_MASTER)
                    await election.release_lease(term.number)
                mode = engine.keeper.terms.mode_id
                while election.count_of_mode(mode, voters) < majority(voters):
                    await self._seat.stirs()
        except TimeoutError:
            if engine.keeper.terms.has_leader:
                raise StaleRead(
                    "no majority of the voters has answered; nothing was switched",
                    have=engine.applied_index,
                    staleness_ms=0,
                ) from None
            raise OutcomeUnknown(
                "it is switched here; no majority of the voters knows of it yet"
            ) from None
        finally:
            self._seat.drains = False
            self._seat.bell.set()

    # --- voters ---------------------------------------------------------------------

    async def add_voter(self, device: str, timeout_ms: int) -> None:
        """Begin a term in which a device votes, too."""
        self._seat.check()
        self._seat.led_term()
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        election, added = self._seat.election, parse_device_id(device)
        known, newest = election.followers.get(added), election.engine.newest_index
        if added != election.me and (
            known is None or newest - known.stored > VOTER_BEHIND_MAX
        ):
            raise PromotionFailed(
                "a new voter follows first, until it has nearly all of the log"
            )
        if not election.engine.keeper.membership.may(added, Ops.LEAD):
            raise PromotionFailed(
                "a voter may lead, and this device may not: invite it with the right "
                'to, or `space.grant_device(id, "lead")`'
            )
        if not election.voters and added != election.me:
            # Or somebody else would decide alone.
            await self._change_voters((election.me,), deadline)
        if known is not None and not known.votes:
            await self._forgive(added, deadline)
        if added not in election.voters:
            await self._change_voters((*election.voters, added), deadline)

    async def _forgive(self, device: DeviceId, deadline: float) -> None:
        """Begin terms in which a device does not vote, until it has heard of one that
        began after it was back: what it voted before is over then."""
        election = self._seat.election
        others = tuple(voter for voter in election.voters if voter != device)

        def votes() -> bool:
            known = election.followers.get(device)
            return known is not None and known.votes

        try:
            async with asyncio.timeout_at(deadline):
                while not votes():
                    await self._change_voters(others, deadline)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(2 * self._seat.beat_seconds):
                            while not votes():
                                await self._seat.stirs()
        except TimeoutError:
            raise PromotionFailed(
                "it may have voted and not know it any more, and does not follow now; "
                "add it again once it does"
            ) from None

    async def remove_voter(self, device: str, timeout_ms: int) -> None:
        """Begin a term in which a device votes no more."""
        self._seat.check()
        self._seat.led_term()
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        removed = parse_device_id(device)
        left = tuple(v for v in self._seat.election.voters if v != removed)
        if not left and self._seat.election.voters:
            raise PromotionFailed("the last voter stays: somebody decides who leads")
        if left == self._seat.election.voters:
            return
        await self._change_voters(left, deadline)
        if removed == self._seat.election.me:
            try:
                await self.demote(True, timeout_ms)
            except PromotionFailed:
                await self.demote(False, timeout_ms)

    async def _change_voters(
        self, voters: tuple[DeviceId, ...], deadline: float
    ) -> None:
        """A term of its own, with other voters; what was written stays."""
        self._seat.check()
        election = self._seat.election
        term = self._seat.led_term()
        self._seat.drains = self._seat.changes_voters = True
        has_stopped = False
        engine = election.engine
        try:
            async with asyncio.timeout_at(deadline), engine.writes_held():
                # Nothing of an earlier term may be undecided: Raft, section 4.1.
                await engine.flush()
                index = engine.newest_index
                if election.voters and not await self._seat.acks.until(
                    index, term.id, "majority"
                ):
                    raise self._seat.superseded()
                async with self._seat.turn:
                    self._seat.check_open()
                    if self._seat.led_term().id != term.id:
                        raise self._seat.superseded()
                    has_stopped = True
                    race = await election.stand("voters", is_wished=True, voters=voters)
                race = await self._decided(race)
            if race.error is not None:
                raise race.error
        except BaseException as error:
            if has_stopped and election.leading is None:
                # Whatever came of it: it leads on, with the voters of before.
                self._returning = asyncio.ensure_future(self._lead_on())
                await asyncio.shield(self._returning)
            if isinstance(error, TimeoutError):
                raise PromotionFailed("the voters did not agree in time") from None
            raise
        finally:
            self._seat.drains = self._seat.changes_voters = False
            self._seat.bell.set()
            self._seat.stir()

    async def _lead_on(self) -> None:
        election = self._seat.election
        with contextlib.suppress(SyncError, TimeoutError):
            async with asyncio.timeout(2 * self._seat.timeout_seconds):
                async with self._seat.turn:
                    self._seat.check_open()
                    asks = bool(election.voters)
                    race = await election.stand(
                        "manual", is_asking=asks, is_wished=True
                    )
                await self._decided(race)
