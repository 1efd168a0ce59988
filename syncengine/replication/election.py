"""Who leads: the rules of Raft (Ongaro and Ousterhout 2014) on the log of a namespace.

Terms are entries of the log and so is what a leader writes; what is exchanged here are
notices about it, which may be lost, doubled or late. A ballot is on disk before anybody
hears of it. Besides the paper: a candidate asks first who would elect him (pre-vote,
Ongaro 2014, section 9.6), a leader who hears from no majority stops (section 6.2), and
a change of voters is a term of its own, elected by the voters before.

Everything here runs in one task of `LeaderFollowerManager`, or under its lock.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from syncengine import limits
from syncengine.errors import ClockSuspect, PromotionFailed, SyncError
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId, actor_id
from syncengine.log.terms import Term
from syncengine.protocol.notices import (
    Beat,
    Candidacy,
    Progress,
    Spoken,
    TakeOver,
    Vote,
    encode,
)
from syncengine.replication.leadership import Ballot
from syncengine.replication.namespace import Namespace
from syncengine.trust.leadership import How, TermRecord, majority, vote_bytes
from syncengine.trust.membership import NONCE_BYTES, Ops

log = logging.getLogger("syncengine")

# Below this nobody is elected without a person: of two, none is a majority when one
# fails.
VOTERS_TO_ELECT = 3

# Election time-outs are drawn from [T, T * this]: far enough apart that one candidate
# has asked all before the next begins.
SPREAD = 1.2

# Beats that told of more than has its effect here yet.
BEATS_KEPT = 64

# A leader's own beats whose time is known: strong reads ask with one each.
SAID_KEPT = 1024

# The share of a lease during which its holder leads (see `Lease`).
LEASE_SHARE = 0.8

# How long what a voter's clock said is used: clocks are set, and go wrong.
CLOCK_KEPT_SECONDS = 60.0


class Lease(Protocol):
    """Somebody outside who says who may lead: an engine with compare-and-swap.

    Calls have the heartbeat timeout to answer, and may be cancelled. A holder
    leads for 0.8 of the lease, from the moment at which it asked, by a clock that
    nobody sets; the engine gives the lease to nobody else before it has ended, as
    counted from the answer.
    """

    async def acquire(self, expected_term: int) -> int:
        """Return a term above `expected_term` that is ours alone, and at most 2^31
        above; raises when another one holds the lease."""
        ...

    async def renew(self, term: int) -> float:
        """Return for how many seconds the lease holds; raises when it does not."""
        ...

    async def release(self, term: int) -> None:
        """Give it to whoever asks next: its holder leads no more. Of a term that holds
        it no more this does nothing. Not called by one that dies; what it raises is
        logged."""
        ...


@dataclass(slots=True)
class Reported:
    """A follower as the leader knows him."""

    node: str = ""
    heard_at: float = float("-inf")
    heard_ms: int = 0
    top: EntryId | None = None
    term: int = 0
    stored: int = 0
    applied: int = 0
    beat: int = 0
    eligible: bool = False
    votes: bool = True


@dataclass(slots=True)
class Race:
    """A candidacy."""

    number: int
    nonce: bytes
    actor: ActorId
    previous: EntryId | None
    base: tuple[int, BatchId] | None
    voters: tuple[DeviceId, ...]
    how: How
    reason: str
    is_asking: bool
    is_wished: bool
    votes: dict[DeviceId, bytes] = field(default_factory=dict[DeviceId, bytes])
    refusals: set[DeviceId] = field(default_factory=set[DeviceId])
    error: PromotionFailed | None = None
    is_over: bool = False
    is_won: bool = False
    """Whether enough would vote: the one in earnest is about to begin"""
    then: "Race | None" = None
    """The one in earnest, after asking"""
    lease_by: float = float("inf")
    """When it takes too long to get the lease, by the loop's clock"""
    asked_at: float = 0.0
    """When the voters were asked last, by the loop's clock"""

    def fail(self, why: str) -> None:
        """It is lost."""
        if not self.is_over:
            self.is_over, self.error = True, PromotionFailed(why)


class Election:
    """One node's part in leading a namespace."""

    def __init__(
        self,
        engine: Namespace,
        node: str,
        *,
        beat_seconds: float,
        timeout_seconds: float,
        eligible: bool,
        lease: Lease | None = None,
        is_first: bool = False,
    ):
        self.engine = engine
        self.node = node
        self.me = DeviceId(engine.key.public)
        self.beat_seconds = beat_seconds
        self.timeout = timeout_seconds
        self.eligible = eligible
        self.lease = lease
        self.is_first = is_first
        """Whether it is to lead before anybody else does: it asks again and again"""
        self.followers: dict[DeviceId, Reported] = {}
        self.commit = -1
        """As leader: up to where a majority has all; -1: not even that this leads"""
        self.contact = float("-inf")
        """When the leader was heard last"""
        self.fresh: float | None = None
        """When it was known last that nothing was missing here"""
        self.progress = 0
        """Raised with each answer: for who waits for some"""
        self.on_progress: list[Callable[[], None]] = []
        self._now = asyncio.get_running_loop().time
        self._beats: deque[tuple[int, float]] = deque(maxlen=BEATS_KEPT)
        self._beat = 0
        self.beats_said = 0
        self._said: deque[tuple[int, float]] = deque(maxlen=SAID_KEPT)
        """As leader: the last beats, and when they were told"""
        self._elected_at: float | None = None
        """As leader: when a majority was asked that then voted for it"""
        self._beat_of: EntryId | None = None
        self._next_beat = 0.0
        self._led_since = 0.0
        self._lease_until = float("inf") if lease is None else float("-inf")
        self._lease_until_ms = self._lease_until
        self._lease_number: int | None = None
        """The term for which the lease was given to this node"""
        self._hook: Callable[[], bool] = lambda: self.holds_lease
        engine.leadership.holds_lease = self._hook
        self._renewing: asyncio.Task[None] | None = None
        self._told_commit = -1
        self._race: Race | None = None
        self.has_time = True
        """As leader: whether this clock is as those of a majority, as far as it could
        be found out"""
        self._asked = 0, 0.0
        """The newest beat that asked for answers, and when"""
        self._clocks: dict[DeviceId, tuple[float, float]] = {}
        """What voters' clocks said, in ms, and when that was by the loop's clock"""
        self._modes: dict[DeviceId, EntryId] = {}
        """Who said to know which mode"""
        self._reported: tuple[object, ...] | None = None
        self.deadline = 0.0
        self.wait_anew()

    # --- what is so now ---------------------------------------------------------------

    @property
    def ballot(self) -> Ballot:
        return self.engine.leadership.current

    @property
    def leading(self) -> Term | None:
        return self.engine.leadership.leading

    @property
    def top(self) -> Term | None:
        return self.engine.keeper.terms.top

    @property
    def voters(self) -> tuple[DeviceId, ...]:
        return self.engine.keeper.terms.voters

    @property
    def is_voter(self) -> bool:
        """Whether this node may vote now."""
        return self.me in self.voters and self.ballot.may_vote

    @property
    def heard(self) -> int:
        """The number below which nobody leads, as far as this node may say: one that
        may not vote follows whoever is in the log."""
        if self.voters and self.is_voter:
            return self.ballot.number
        return 0 if self.top is None else self.top.number

    @property
    def may_lead(self) -> bool:
        """Whether this node may be elected, or promoted by hand."""
        may = self.engine.keeper.membership.may(self.me, Ops.LEAD)
        return self.eligible and may and (self.is_voter or not self.voters)

    @property
    def elects(self) -> bool:
        """Whether a leader that fails is replaced by himself."""
        return len(self.voters) >= VOTERS_TO_ELECT

    @property
    def beat(self) -> int:
        """The newest beat: told, or heard."""
        return self._beat

    def staleness(self) -> float | None:
        """Return for how many seconds something may be missing here; None: it is not
        known."""
        if self.leading is None:
            return None if self.fresh is None else self._now() - self.fresh
        if not self.holds_lease:
            return None
        return self._unconfirmed() if self.voters else 0.0

    def _unconfirmed(self) -> float | None:
        """Return since when a majority may have elected another leader: since it was
        told the newest beat that it has answered."""
        beat = sorted(
            self._beat if voter == self.me else self._answered(voter)
            for voter in self.voters
        )[len(self.voters) - majority(self.voters)]
        if beat == self._beat and majority(self.voters) == 1:
            return 0.0
        at = next((at for number, at in self._said if number == beat), self._elected_at)
        return None if at is None else self._now() - at

    def _answered(self, voter: DeviceId) -> int:
        """Return the newest beat of this leader that a voter has answered; -1: none."""
        term, known = self.leading, self.followers.get(voter)
        if term is None or known is None or not known.votes:
            return -1
        is_his = known.top == term.id and known.term == term.number
        return known.beat if is_his else -1

    def is_leader_healthy(self) -> bool:
        """Whether the leader was heard within the time-out, or is this node."""
        return self.leading is not None or self._now() - self.contact <= self.timeout

    def wait_anew(self) -> None:
        """Give others an election time-out from now on; who is to lead first asks again
        soon, since others may have to be started yet."""
        again = self.is_first and self.top is None
        self.deadline = self._now() + (self.beat_seconds if again else self._drawn())

    def _drawn(self) -> float:
        draw = int.from_bytes(self.engine.entropy.bytes(4), "big") / 2**32
        return self.timeout * (1 + (SPREAD - 1) * draw)

    def _mode(self) -> EntryId:
        return self.engine.keeper.terms.mode_id

    def end(self) -> tuple[tuple[object, ...], int]:
        """Return (order of the highest term, index of the last entry) of what is
        stored: of two logs the greater one knows all that a majority has."""
        top = self.top
        if top is None:
            return (0, b"", b""), 0
        return top.record.order, self.engine.keeper.last_index(top.record.actor)

    # --- time -------------------------------------------------------------------------

    def next_time(self) -> float:
        """Return when something is due, on the loop's clock."""
        if self.leading is not None:
            soon = self._now() + self.timeout / 4
            return min(self._next_beat, soon, self._lease_until)
        due = self.contact + self.timeout
        if self._may_stand():
            due = min(due, self.deadline) if due > self._now() else self.deadline
        return due if due > self._now() else self._now() + self.timeout

    async def on_time(self) -> None:
        """Do what is due."""
        now = self._now()
        if self._lease_number is not None and not (self.leading or self._is_standing()):
            self._renewing = asyncio.create_task(self.release_lease(self._lease_number))
        if self.leading is not None:
            if self._has_lost_touch(now):
                why = "it hears from no majority"
                if not self.holds_lease:
                    why = "its lease has ended"
                log.warning("%s leads no more: %s", self.node, why)
                await self.engine.end_term()
                self.wait_anew()
                return
            if now >= self._next_beat:
                if not await self._settle_time():
                    return
                self._renew()
                self.say_beat(asks=True)
        elif self._may_stand() and now >= self.deadline:
            race = self._race
            if race is not None and race.is_wished and not race.is_over:
                # Not at once: somebody wished it, and may be waiting for it.
                race.is_wished = False
                self.wait_anew()
                return
            await self.stand("elected", is_asking=True)

    def _may_stand(self) -> bool:
        return (
            self.elects
            and self.eligible
            and self.is_voter
            and (self.lease is None or (self.is_first and self.top is None))
            and self.engine.keeper.terms.has_leader
        )

    def _has_lost_touch(self, now: float) -> bool:
        if not self.holds_lease:
            return True
        if not self.voters or now - self._led_since <= self.timeout:
            return False
        heard = sum(
            voter == self.me
            or (
                (known := self.followers.get(voter)) is not None
                and known.votes
                and now - known.heard_at <= self.timeout
            )
            for voter in self.voters
        )
        return heard < majority(self.voters)

    @property
    def holds_lease(self) -> bool:
        """Whether it may lead, where somebody outside decides: also looked at before
        a write and behind a strong read, since a process may sleep in between."""
        # A machine that sleeps stops the loop's clock, and not the wall's.
        slept = self.engine.clock.now_ms() >= self._lease_until_ms
        return self._now() < self._lease_until and not slept

    def _renew(self) -> None:
        """Ask for the lease anew, beside all else: who does not answer holds up
        nothing, and the lease ends when it ends."""
        if self.lease is None or (self._renewing and not self._renewing.done()):
            return
        self._renewing = asyncio.create_task(self._renewed(self.lease, self.leading))

    async def _renewed(self, lease: Lease, term: Term | None) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                number = self._lease_number
                if term is None or number is None:
                    return
                until, until_ms = await self._held(lease, number)
        except Exception as error:
            log.warning("%s: the lease was not renewed: %r", self.node, error)
            return
        leading = self.leading
        if leading and leading.id == term.id and self._lease_number == number:
            self._lease_until, self._lease_until_ms = until, until_ms

    async def _held(self, lease: Lease, number: int) -> tuple[float, float]:
        """Return until when a lease holds, by the loop's clock and by the wall's. From
        asking on, and not to the last moment: clocks differ in rate."""
        asked, asked_ms = self._now(), self.engine.clock.now_ms()
        holds = await lease.renew(number)
        if not 0 < holds < float("inf"):
            raise ValueError(f"a lease does not hold for {holds!r} seconds")
        return asked + LEASE_SHARE * holds, asked_ms + 1000 * LEASE_SHARE * holds

    async def release_lease(self, number: int) -> None:
        """Let another one have the lease of a term at once, if it is held for that; who
        leads in that term has ended it before."""
        if self.lease is None or self._lease_number != number:
            return
        self._lease_number = None
        self._lease_until = self._lease_until_ms = float("-inf")
        renewing = self._renewing
        if renewing is not None and renewing is not asyncio.current_task():
            renewing.cancel()
        try:
            async with asyncio.timeout(self.beat_seconds):  # else it ends when it ends
                await self.lease.release(number)
        except Exception as error:
            log.warning("%s: the lease was not released: %r", self.node, error)

    def close(self) -> None:
        """It takes no more part."""
        if self.engine.leadership.holds_lease is self._hook:  # else another one's
            self.engine.leadership.holds_lease = lambda: True
        if self._renewing is not None:
            self._renewing.cancel()

    # --- leading ----------------------------------------------------------------------

    def say_beat(self, *, asks: bool) -> int:
        """Tell all that this leads, and how far; return the number of the beat."""
        term = self.leading
        assert term is not None, "who leads says so"
        self._beat += 1
        self._said.append((self._beat, self._now()))
        self.beats_said += 1
        if asks:
            self._asked = self._beat, self._now()
            self._next_beat = self._now() + self.beat_seconds
        self._told_commit = self.commit
        durable = self._durable()
        commit = self.commit if self.voters else durable
        self.say(
            Beat(
                *(self._mode(), term.number, self.node, term.id, self._beat, asks),
                *(durable, max(0, commit)),
            )
        )
        return self._beat

    def say(self, said: Spoken, to: DeviceId | None = None) -> None:
        self.engine.notices.say(encode(said), to)

    def _durable(self) -> int:
        """Return the index of the last entry of the present term that is on disk."""
        term, durable = self.leading, self.engine.leadership.durable
        if term is None or durable is None or durable[0].id != term.id:
            return -1
        return durable[1]

    def advance(self) -> bool:
        """Count who has what; tell whether a majority has more than before."""
        term = self.leading
        if term is None:
            return False
        own = self._durable()
        commit = own
        if term.record.voters:
            stored = sorted(
                own if voter == self.me else self._counted_at(voter, term)
                for voter in term.record.voters
            )
            commit = stored[len(stored) - majority(term.record.voters)]
        if commit <= self.commit:
            return False
        self.commit = commit
        if term.record.voters:
            self.engine.leadership.set(shown=commit)
        return True

    def _stored_at(self, device: DeviceId, term: Term) -> int:
        known = self.followers.get(device)
        if known is None or known.top != term.id or known.term != term.number:
            return -1
        return known.stored

    def _counted_at(self, voter: DeviceId, term: Term) -> int:
        """Return the same of a voter, for a majority: one that may have forgotten its
        vote for somebody else cannot depose this leader, and does not count for him."""
        known = self.followers.get(voter)
        return self._stored_at(voter, term) if known and known.votes else -1

    def count_stored(self, index: int) -> int:
        """Return how many others have the leader's log up to `index` on disk."""
        term = self.leading
        if term is None:
            return 0
        return sum(self._stored_at(other, term) >= index for other in self.followers)

    def have_all_stored(self, index: int) -> bool:
        """Tell whether every voter has the leader's log up to `index` on disk."""
        term = self.leading
        return term is not None and all(
            self._counted_at(voter, term) >= index
            for voter in term.record.voters
            if voter != self.me
        )

    def tell_commit(self) -> None:
        """Tell followers that more may take effect."""
        if self.leading is not None and self.voters and self.commit > self._told_commit:
            self.say_beat(asks=False)

    def count_heard(self, beat: int) -> int:
        """Return how many voters have answered a beat or a later one, with this one."""
        term = self.leading
        if term is None:
            return 0
        return sum(
            voter == self.me or self._answered(voter) >= beat
            for voter in term.record.voters
        )

    # --- following --------------------------------------------------------------------

    def note_applied(self) -> None:
        """Something took effect: what was missing may not be any more."""
        if not self._beats:
            return
        applied = self.engine.applied_index
        while self._beats and self._beats[0][0] <= applied:
            self.fresh = self._beats.popleft()[1]

    def report(self, *, answer: bool = False) -> None:
        """Tell the leader how far this is, where that is news or he asks."""
        top = self.top
        durable = self.engine.leadership.durable
        if top is None or top.leader == self.me or self.leading is not None:
            return
        at = durable[1] if durable is not None and durable[0].id == top.id else -1
        if at < 0 and not answer:
            return
        votes = self.ballot.may_vote
        # What took effect is told with the next answer: nobody waits for it.
        state = (top.id, self.ballot.number, at, votes)
        if state == self._reported and not answer:
            return
        self._reported = state
        self.say(
            Progress(
                *(self._mode(), self.ballot.number, self.node),
                top.id if at >= 0 else None,
                self._beat if self._beat_of == top.id else 0,
                max(0, at),
                self.engine.applied_index,
                self.may_lead,
                votes,
                self.engine.clock.now_ms(),
            ),
            top.leader,
        )

    # --- standing ---------------------------------------------------------------------

    async def stand(
        self,
        how: How,
        *,
        is_asking: bool = False,
        is_wished: bool = False,
        voters: tuple[DeviceId, ...] | None = None,
        reason: str = "",
        lease_by: float = float("inf"),
    ) -> Race:
        """Ask to be elected; `race.is_over` once it is known. Who leads ends that
        before, unless it does not get the lease."""
        self.wait_anew()
        leased = None if is_asking else await self._take_lease(lease_by)
        if not is_asking and self.leading is not None:
            await self.engine.end_term()
        if leased is not None and leased - 1 > self.ballot.number:
            self.engine.leadership.set(number=leased - 1)
        await self._all_on_disk()
        engine, ballot, top = self.engine, self.ballot, self.top
        nonce = engine.entropy.bytes(NONCE_BYTES)
        number = max(ballot.number, top.number if top is not None else 0) + 1
        if leased not in (None, number):
            raise PromotionFailed("a higher term has begun meanwhile")
        race = self._race = Race(
            number,
            nonce,
            actor_id(self.me, engine.keeper.namespace, nonce),
            None if top is None else top.id,
            self._base(),
            self.voters if voters is None else voters,
            *(how, reason, is_asking, is_wished),
            lease_by=lease_by,
        )
        if not is_asking:
            vote = _hashed(self._vote_bytes(race, self.me))
            engine.leadership.set(number=number, voted_for=self.me, vote=vote)
            await engine.flush()
        if how != "forced" and self.voters:
            if self.is_voter:
                race.votes[self.me] = self._signed(race, self.me)
            self.ask(race)
        await self._count(race)
        return race

    def ask(self, race: Race) -> bool:
        """Ask all voters, once more where some were not reached; tell whether that
        candidacy still counts."""
        if race.is_won:
            return True
        if race is not self._race:
            return False
        if not race.is_over:
            race.asked_at = self._now()
            self.say(
                Candidacy(
                    *(self._mode(), race.number, self.node, race.is_asking, race.actor),
                    *(race.previous, race.base),
                    [*race.voters],
                    race.is_wished,
                )
            )
        return True

    async def _all_on_disk(self) -> None:
        engine = self.engine
        while engine.committed_position != engine.keeper.position:
            await engine.flush()

    def _base(self) -> tuple[int, BatchId] | None:
        """Return the last entry of the log here."""
        return None if self.top is None else self.engine.end_of(self.top)

    def _vote_bytes(self, race: Race, candidate: DeviceId) -> bytes:
        return vote_bytes(
            self.engine.keeper.namespace,
            mode=self._mode(),
            number=race.number,
            candidate=candidate,
            actor=race.actor,
            previous=race.previous,
            base=race.base,
            voters=race.voters,
        )

    def _signed(self, race: Race, candidate: DeviceId) -> bytes:
        return self.engine.key.sign(self._vote_bytes(race, candidate))

    async def _count(self, race: Race) -> None:
        """Begin to lead, or to ask in earnest, once enough have voted."""
        if race.is_over or race is not self._race:
            return
        if race.how != "forced" and len(race.votes) < majority(self.voters):
            return
        if race.is_asking:
            race.is_won = True
            try:
                race.then = await self.stand(
                    race.how,
                    is_wished=race.is_wished,
                    voters=race.voters,
                    reason=race.reason,
                    lease_by=race.lease_by,
                )
            except PromotionFailed as error:
                race.error = error
            finally:
                race.is_over, race.is_won = True, False
            return
        if self.ballot.number != race.number:
            race.fail("a higher term has begun meanwhile")
            return
        race.is_over = True
        try:
            self.has_time = self._compare_clocks()
        except ClockSuspect as error:
            race.error = PromotionFailed(str(error))
            return
        record = TermRecord(
            self.me,
            self._mode(),
            race.number,
            race.actor,
            self.node,
            race.previous,
            race.base,
            race.voters,
            race.how,
            race.reason,
            race.votes if race.how != "forced" and self.voters else {},
        )
        # Before it leads: strong reads ask from then on, and count.
        self.commit = self._told_commit = -1
        self._said.clear()
        self._elected_at = None if race.how == "forced" else race.asked_at
        try:
            term = await self.engine.begin_term(race.nonce, record)
        except SyncError as error:
            race.error = PromotionFailed(str(error))
            return
        if self.leading is None or self.leading.id != term.id:
            # While this one's beginning was written to the disk.
            race.error = PromotionFailed("a higher term has begun meanwhile")
            return
        self._begin_leading()

    def _begin_leading(self) -> None:
        """It leads from now on: nothing is known of the followers in this term."""
        self._beat_of = None
        self._led_since = self._now()
        self._beats.clear()
        self.fresh = None
        self.advance()
        self.say_beat(asks=True)

    # --- what time it is --------------------------------------------------------------

    def _note_clock(self, voter: DeviceId, now_ms: int, asked_at: float) -> None:
        """A voter has answered with what its clock said, half a round trip ago."""
        if now_ms and voter in self.voters:
            half = (self._now() - asked_at) / 2
            self._clocks[voter] = now_ms + 1000 * half, self._now()

    def _compare_clocks(self) -> bool:
        """Believe the median of the voters' clocks, where two others have told theirs:
        one alone that is off, or lies, decides nothing. Tell whether this clock is as
        a majority's. Raises `ClockSuspect`."""
        clock, now = self.engine.clock, self._now()
        own = clock.now_ms()
        off = [
            said + 1000 * (now - at) - own
            for voter, (said, at) in self._clocks.items()
            if voter in self.voters and now - at <= CLOCK_KEPT_SECONDS
        ]
        if len(off) >= 2:
            all_ = sorted((0.0, *off))
            # Of an even number the one that changes less.
            low, high = all_[(len(all_) - 1) // 2], all_[len(all_) // 2]
            clock.told(own + int(min(low, high, key=abs)))
        corrected = clock.now_ms() - own
        agree = 1 + sum(abs(one - corrected) <= limits.CLOCK_OFF_MS for one in off)
        return len(self.voters) < VOTERS_TO_ELECT or agree >= majority(self.voters)

    async def _settle_time(self) -> bool:
        """As leader: correct this clock, or lead no more; tell whether it does. What is
        stamped ahead once has all later stamps be ahead, too: so nothing is written
        before a majority agrees, or could not be asked for a beat."""
        try:
            agrees = self._compare_clocks()
        except ClockSuspect as error:
            log.warning("%s leads no more: %s", self.node, error)
            await self.engine.end_term()
            self.wait_anew()
            return False
        waited = self._now() - self._led_since >= self.beat_seconds
        self.has_time = self.has_time or agrees or waited
        return True

    # --- hearing ----------------------------------------------------------------------

    async def hear(self, author: DeviceId, said: Spoken) -> None:
        """A member said something; what is of another mode, or from too far ahead,
        means nothing."""
        if said.mode != self._mode() or author == self.me:
            return
        known = 0 if self.top is None else self.top.number
        if said.term > known + limits.BALLOT_AHEAD_MAX:
            log.warning("%s speaks of a term far ahead: it is not heard", said.node)
            return
        match said:
            case Beat():
                await self._hear_beat(author, said)
            case Progress():
                await self._hear_progress(author, said)
            case Candidacy():
                await self._hear_candidacy(author, said)
            case Vote():
                await self._hear_vote(author, said)
            case TakeOver():
                await self._hear_take_over(author, said)

    async def _hear_beat(self, author: DeviceId, said: Beat) -> None:
        top = self.top
        if said.term < self.heard:
            # A leader of a term that is over learns it.
            self._tell_number(author)
            return
        if top is None or said.top != top.id or author != top.leader:
            return  # the entry of its term is on its way
        if self._beat_of == top.id and said.beat <= self._beat:
            return  # late, or told again
        if self.leading is not None:
            return
        self._beat, self._beat_of = said.beat, top.id
        self.contact = now = self._now()
        self.wait_anew()
        if self._race is not None and self._race.number <= said.term:
            self._race.fail(f"{said.node} was elected meanwhile")
        ballot = self.ballot
        if not ballot.may_vote and ballot.forgot_at is None:
            self.engine.leadership.set(forgot_at=said.term)
        self.engine.show_until(said.commit)
        if len(self._beats) == BEATS_KEPT:
            self._beats.popleft()
        self._beats.append((said.commit, now))
        self.note_applied()
        if said.asks:
            self.report(answer=True)

    def _tell_number(self, to: DeviceId) -> None:
        self.say(
            Progress(
                *(self._mode(), self.ballot.number, self.node, None, 0, 0),
                self.engine.applied_index,
                self.eligible,
            ),
            to,
        )

    async def _hear_progress(self, author: DeviceId, said: Progress) -> None:
        term = self.leading
        if term is None:
            return
        if said.term > term.number and author in self.voters:
            log.warning("%s leads no more: %s knows a later term", self.node, said.node)
            await self.engine.end_term(said.term)
            self.wait_anew()
            return
        known = self.followers.setdefault(author, Reported())
        known.node = said.node
        known.heard_at, known.heard_ms = self._now(), self.engine.clock.now_ms()
        known.eligible, known.votes = said.eligible, said.votes
        known.top = EntryId(said.top) if said.top is not None else None
        known.term = said.term
        known.stored, known.applied, known.beat = said.stored, said.applied, said.beat
        beat, asked_at = self._asked
        if said.top == term.id and said.beat >= beat:
            self._note_clock(author, said.now_ms, asked_at)
            if not self.has_time:
                await self._settle_time()
        self.progress += 1

    async def _hear_candidacy(self, author: DeviceId, said: Candidacy) -> None:
        if author not in self.voters or not self.is_voter:
            return
        if not self._is_up_to_date(said) or self._has_a_leader(said):
            self._answer(author, said, b"", is_granted=False)
            return
        if said.is_asking:
            granted = said.term > self.ballot.number
            self._answer(author, said, b"", is_granted=granted)
            return
        if said.term > self.ballot.number:
            await self.engine.end_term(said.term)
        race = Race(
            said.term,
            b"",
            ActorId(said.actor),
            EntryId(said.previous) if said.previous is not None else None,
            (said.base[0], BatchId(said.base[1])) if said.base is not None else None,
            tuple(map(DeviceId, said.voters)),
            *("elected", "", False, False),
        )
        ballot, vote = self.ballot, _hashed(self._vote_bytes(race, author))
        if (
            said.term < ballot.number
            or ballot.voted_for not in (None, author)
            or ballot.vote not in (None, vote)
        ):
            self._answer(author, said, b"", is_granted=False)
            return
        self.engine.leadership.set(voted_for=author, vote=vote)
        await self.engine.flush()  # before anybody hears of it
        self.wait_anew()
        self._answer(author, said, self._signed(race, author), is_granted=True)

    def _is_up_to_date(self, said: Candidacy) -> bool:
        """Tell whether a candidate's log has all that this one has."""
        terms = self.engine.keeper.terms
        order: tuple[object, ...] = (0, b"", b"")
        if said.previous is not None:
            term = terms.find(EntryId(said.previous))
            if term is None:
                return False  # its entry is on its way
            order = term.record.order
        return (order, said.base[0] if said.base is not None else 0) >= self.end()

    def _has_a_leader(self, said: Candidacy) -> bool:
        """Tell whether somebody leads whom a candidate would disturb."""
        if said.is_wished:
            return False
        if self.leading is not None:
            return True
        return self._now() - self.contact < self.timeout

    def _answer(
        self, to: DeviceId, said: Candidacy, signature: bytes, *, is_granted: bool
    ) -> None:
        term = said.term if is_granted else self.ballot.number
        vote = Vote(
            *(self._mode(), term, self.node, said.is_asking, is_granted, signature),
            self.engine.clock.now_ms(),
        )
        self.say(vote, to)

    async def _hear_vote(self, author: DeviceId, said: Vote) -> None:
        if author not in self.voters:
            return
        race = self._race
        if not said.is_granted and said.term > self.ballot.number:
            await self.engine.end_term(said.term)
            if race is not None:
                race.fail(f"{said.node} knows a later term")
        if race is None or race.is_over or said.is_asking != race.is_asking:
            return
        if not said.is_granted:
            race.refusals.add(author)
            if len(self.voters) - len(race.refusals) < majority(self.voters):
                race.fail(
                    "a majority of the voters did not vote for it: they know more of "
                    "the log, or voted for another one"
                )
            return
        if said.term != race.number:
            return
        self._note_clock(author, said.now_ms, race.asked_at)
        if not race.is_asking and not self.engine.keeper.scheme.verify(
            author, self._vote_bytes(race, self.me), said.signature
        ):
            return
        race.refusals.discard(author)
        race.votes[author] = said.signature
        await self._count(race)

    async def _hear_take_over(self, author: DeviceId, said: TakeOver) -> None:
        top = self.top
        if top is None or author != top.leader or said.term != top.number:
            return
        if self.may_lead and not self.leading and not self._is_standing():
            with contextlib.suppress(PromotionFailed):  # the lease is not ours
                await self.stand("handed over", is_wished=True)

    # --- where all write ----

    def say_mode(self) -> None:
        """Tell all that this node knows the present mode, in which nobody leads."""
        self.say(
            Progress(
                *(self._mode(), self.ballot.number, self.node, None, 0, 0, 0),
                self.eligible,
            )
        )

    def note_mode(self, author: DeviceId, said: Spoken) -> None:
        self._modes[author] = EntryId(said.mode)

    def count_of_mode(self, mode: EntryId, voters: tuple[DeviceId, ...]) -> int:
        """Return how many of voters are known to know a mode, with this one."""
        return sum(
            voter == self.me or self._modes.get(voter) == mode for voter in voters
        )

    # --- by hand ----------------------------------------------------------------------

    def check_may_lead(self) -> None:
        """Raise `PromotionFailed` with what keeps this node from leading."""
        membership = self.engine.keeper.membership
        if not self.engine.keeper.terms.has_leader:
            raise PromotionFailed("this namespace has no leader: all are masters")
        if not self.eligible:
            raise PromotionFailed(
                f"{self.node} is not eligible: it was made with "
                "promotion_eligible=False"
            )
        if not membership.may(self.me, Ops.LEAD):
            raise PromotionFailed(
                f"{self.node} has no grant to lead; an owner grants it: "
                "space.grant_device(device, 'lead')"
            )

    def _is_standing(self) -> bool:
        return self._race is not None and not self._race.is_over

    async def _take_lease(self, by: float) -> int | None:
        """Get the lease, where there is one, and return for which term; raises
        `PromotionFailed`."""
        if self.lease is None:
            return None
        top = self.top
        expected = max(self.ballot.number, top.number if top is not None else 0)
        most = limits.BALLOT_AHEAD_MAX
        try:
            async with asyncio.timeout_at(min(by, self._now() + self.timeout)):
                number: object = await self.lease.acquire(expected)
                if type(number) is not int or not 0 < number - expected <= most:
                    raise ValueError(
                        f"a term is a whole number above {expected}, by {most} at "
                        f"most; not {number!r}"
                    )
                self._lease_number = number
                until, until_ms = await self._held(self.lease, number)
        except TimeoutError as error:
            raise PromotionFailed(
                "the lease did not answer in time; who may lead is not known"
            ) from error
        except Exception as error:
            raise PromotionFailed(f"the lease is not ours: {error}") from error
        self._lease_until, self._lease_until_ms = until, until_ms
        return number

    def drop_race(self) -> None:
        """It takes too long: votes that still come count no more."""
        self._race = None

    @property
    def told_commit(self) -> int:
        """Up to where the leader is known to have had entries that are not here."""
        return max((commit for commit, _ in self._beats), default=0)

    def best_successor(self) -> tuple[DeviceId, Reported] | None:
        """Return the follower with most of the log who may lead."""
        now = self._now()
        able = [
            (known.stored, device)
            for device, known in self.followers.items()
            if known.eligible
            and now - known.heard_at <= self.timeout
            and self._may_succeed(device)
        ]
        if not able:
            return None
        _, device = max(able)
        return device, replace(self.followers[device])

    def _may_succeed(self, device: DeviceId) -> bool:
        """Tell whether somebody may lead, whatever he says of himself, and has no more
        than there is."""
        if self.voters:
            may = device in self.voters
        else:
            may = self.engine.keeper.membership.may(device, Ops.LEAD)
        return may and self.followers[device].stored <= self.engine.newest_index


def _hashed(said: bytes) -> bytes:
    return hashlib.sha256(said).digest()[:16]
