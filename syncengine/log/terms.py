"""Which of the entries of leaders count.

The log of a namespace with a leader is a chain of batches, each with the term and the
index of its last change in its header. Valid are the ancestors of the head of the
highest term; every other batch of a leader is void, and so is what anybody wrote beside
the leaders. All of it is a function of what is stored, the same on every replica in any
order of arrival, and nothing is ever taken out of the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from syncengine import limits
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId, NamespaceId
from syncengine.log.batch import NO_BATCH, Header
from syncengine.trust.keys import Scheme
from syncengine.trust.leadership import ModeRecord, TermRecord, majority, vote_bytes
from syncengine.trust.membership import Membership, Ops

DEPOSED = "its leader was deposed: the log of the highest term goes on without it"
BESIDE = "it was written beside the leader"
FORKED = "its author wrote two histories from here on"

NO_MODE = EntryId(bytes(32))

# A cut of an actor whose batches all count, whatever is still to come.
OPEN = 2**63


@dataclass(frozen=True, slots=True)
class Term:
    """A term that counts: its entry, and what was stored when it was judged."""

    id: EntryId
    record: TermRecord

    @property
    def number(self) -> int:
        return self.record.number

    @property
    def leader(self) -> DeviceId:
        return self.record.issuer


@dataclass(slots=True)
class _Period:
    """The time from a switch to leaders until the next switch, if there was one."""

    id: EntryId
    mode: ModeRecord
    until: ModeRecord | None = None


@dataclass(slots=True)
class _Verdict:
    """What all entries say together."""

    mode: tuple[EntryId, ModeRecord] | None = None
    top: Term | None = None
    cuts: dict[ActorId, int] = field(default_factory=dict[ActorId, int])
    """Up to which index the batches of a leader's actor count"""
    periods: list[_Period] = field(default_factory=list[_Period])


class Terms:
    """The modes and terms of one namespace, judged anew when one of them comes."""

    def __init__(
        self,
        namespace: NamespaceId,
        membership: Membership,
        scheme: Scheme,
        header_of: Callable[[BatchId], Header | None],
    ):
        self._namespace = namespace
        self._membership = membership
        self._scheme = scheme
        self._header_of = header_of
        self._good_votes: dict[EntryId, bool] = {}
        self._bases: dict[BatchId, Header] = {}
        self._may: dict[tuple[DeviceId, int], bool] = {}
        self._by_actor: dict[ActorId, Term] = {}
        self._awaited: set[BatchId] = set()
        self._verdict = _Verdict()
        self._is_stale = False

    def changed(self) -> None:
        """An entry came: judge again when somebody asks."""
        self._is_stale = self._is_stale or bool(self._membership.modes)

    def stored(self, batch: BatchId) -> None:
        """A batch came: a term may have waited for it."""
        if batch in self._awaited:
            self._is_stale = True

    @property
    def is_waiting(self) -> bool:
        """Whether a batch that comes may change what counts."""
        return bool(self._awaited)

    # --- what there is ----------------------------------------------------------------

    @property
    def mode(self) -> tuple[EntryId, ModeRecord] | None:
        """The present mode; None: nobody ever switched it, all are masters."""
        return self._judged().mode

    @property
    def mode_id(self) -> EntryId:
        """The entry that began the present mode; zeros where none did."""
        return NO_MODE if self.mode is None else self.mode[0]

    @property
    def has_leader(self) -> bool:
        """Whether one leads, or is to be found, now."""
        mode = self.mode
        return mode is not None and mode[1].has_leader

    @property
    def top(self) -> Term | None:
        """The highest term of the present mode whose beginning is stored."""
        return self._judged().top

    @property
    def cuts(self) -> Mapping[ActorId, int]:
        """Up to which index the batches of each leader's actor count."""
        return self._judged().cuts

    def cuts_of(self, verdict: object) -> Mapping[ActorId, int]:
        """Return the cuts of an earlier `verdict`."""
        assert isinstance(verdict, _Verdict), "it was `verdict` before"
        return verdict.cuts

    @property
    def voters(self) -> tuple[DeviceId, ...]:
        """Who decides about the next leader."""
        verdict = self._judged()
        if verdict.top is not None:
            return verdict.top.record.voters
        return verdict.mode[1].voters if verdict.mode is not None else ()

    def find(self, name: EntryId | None) -> Term | None:
        """Return a term that is known by its entry's id."""
        record = self._membership.terms.get(name) if name is not None else None
        return None if name is None or record is None else Term(name, record)

    def term_of(self, actor: ActorId) -> Term | None:
        """Return the term in which an actor leads, whether or not that counts."""
        self._judged()
        return self._by_actor.get(actor)

    def void_reason(self, header: Header) -> str | None:
        """Return why a stored batch has no effect; None when it has."""
        verdict = self._judged()
        if header.term:
            return None if self._is_in_the_log(header, verdict) else DEPOSED
        for period in verdict.periods:
            began = period.mode.frontier.get(header.actor)
            if began is not None and header.end <= began[0]:
                continue
            if period.until is None:
                return BESIDE
            ended = period.until.frontier.get(header.actor)
            if ended is not None and header.end <= ended[0]:
                return BESIDE
        return None

    def is_before_a_leader(self, header: Header) -> bool:
        """Whether a leader's log goes on from a batch: whoever switched had it."""
        return any(
            (stood := period.mode.frontier.get(header.actor)) is not None
            and header.end <= stood[0]
            for period in self._judged().periods
        )

    def _is_in_the_log(self, header: Header, verdict: _Verdict) -> bool:
        cut = verdict.cuts.get(header.actor)
        term = self._by_actor.get(header.actor)
        if cut is None or term is None or header.term_index > cut:
            return False
        if header.first_seq == 1:
            # It goes on where its term says so.
            base = term.record.base
            if header.prev != (NO_BATCH if base is None else base[1]):
                return False
        return header.term == term.number and header.term_index > term.record.index

    def spans_beside(self, actor: ActorId, seq: int) -> list[tuple[int, int]]:
        """Return which of the seqs of an actor, who is no leader's, up to `seq` were
        written beside a leader: (first, last)."""
        return _spans(self._judged(), actor, seq)

    def differs(
        self,
        before: object,
        applied: Mapping[ActorId, int],
        index_at: Callable[[ActorId, int], int],
    ) -> bool:
        """Tell whether of what is applied something counts now that did not by an
        earlier `verdict`, or the reverse; `index_at` is that of a seq of a leader's
        actor."""
        assert isinstance(before, _Verdict), "it was `verdict` before"
        now = self._judged()
        for actor in before.cuts.keys() | now.cuts.keys():
            one, other = before.cuts.get(actor, 0), now.cuts.get(actor, 0)
            if one != other and actor in applied:
                index = index_at(actor, applied[actor])
                if min(index, one) != min(index, other):
                    return True
        return [(p.id, p.until) for p in before.periods] != [
            (p.id, p.until) for p in now.periods
        ] and any(
            _spans(before, actor, seq) != _spans(now, actor, seq)
            for actor, seq in applied.items()
            if actor not in self._by_actor
        )

    @property
    def verdict(self) -> object:
        """Another one when something was judged anew."""
        return self._judged()

    # --- judging ----------------------------------------------------------------------

    def _judged(self) -> _Verdict:
        if self._is_stale:
            self._is_stale = False
            self._verdict = self._judge()
        return self._verdict

    def _judge(self) -> _Verdict:
        verdict = _Verdict()
        self._awaited = set()
        self._may = {}
        by_mode: dict[EntryId, list[Term]] = {}
        self._by_actor = {}
        for name, record in self._membership.terms.items():
            term = Term(name, record)
            if self._membership.actors.get(record.actor) != record.issuer:
                continue  # of another one's actor nobody says anything
            if not self._allows(record.issuer, Ops.LEAD):
                continue
            by_mode.setdefault(record.mode, []).append(term)
            known = self._by_actor.get(record.actor)
            if known is None or record.order < known.record.order:
                self._by_actor[record.actor] = term
        period: _Period | None = None
        good: dict[EntryId, Term] = {}
        top: Term | None = None
        last = 0
        for name, mode in self._modes():
            if mode.number <= last:
                continue
            if period is not None:
                closes = good.get(mode.closed[0]) if mode.closed is not None else None
                if not self._may_close(mode, closes, period, good):
                    continue
                period.until = mode
                self._cut(period, closes, good, verdict.cuts)
            verdict.mode, last = (name, mode), mode.number
            period, good, top = None, {}, None
            if mode.has_leader:
                period = _Period(name, mode)
                verdict.periods.append(period)
                good = self._good(period, by_mode.get(name, []))
                top = max(good.values(), key=_weight, default=None)
        if period is not None:
            self._cut(period, top, good, verdict.cuts)
        verdict.top = top
        return verdict

    def _may_close(
        self,
        mode: ModeRecord,
        closes: Term | None,
        period: _Period,
        good: Mapping[EntryId, Term],
    ) -> bool:
        """Tell whether a switch ends a period: not where a majority elected somebody
        after the leader whom it knew of, since what he acknowledged stands. Whoever was
        forced, or had no voters, had asked nobody."""
        if closes is None:
            return mode.closed is None and not good
        return not any(
            _weight(term) > _weight(closes)
            and term.record.how != "forced"
            and (term.record.voters or period.mode.voters)
            for term in good.values()
        )

    def _allows(self, device: DeviceId, ops: int) -> bool:
        known = self._may.get((device, ops))
        if known is None:
            known = self._may[device, ops] = self._membership.may(device, ops)
        return known

    def may_decide(self, device: DeviceId) -> bool:
        """Tell whether a device may say whether one leads, and that voters are lost."""
        genesis = self._membership.genesis
        owners = genesis.owners if genesis is not None else ()
        return device in owners or self._allows(device, Ops.ADMIN | Ops.LEAD)

    def _modes(self) -> list[tuple[EntryId, ModeRecord]]:
        """Return the switches of those who may, in the order in which they count: by
        number, then by id."""
        return sorted(
            (
                (name, mode)
                for name, mode in self._membership.modes.items()
                if self.may_decide(mode.issuer)
            ),
            key=lambda one: (one[1].number, one[0]),
        )

    def _good(self, period: _Period, terms: list[Term]) -> dict[EntryId, Term]:
        """Return the terms of a period that began as they must."""
        good: dict[EntryId, Term] = {}
        for term in sorted(terms, key=lambda term: term.record.order):
            if self._is_good(term, period, good):
                good[term.id] = term
        return good

    def _cut(
        self,
        period: _Period,
        top: Term | None,
        good: Mapping[EntryId, Term],
        cuts: dict[ActorId, int],
    ) -> None:
        """Note up to where the actors of a period count."""
        last, cut = top, OPEN
        if period.until is not None and period.until.closed is not None:
            cut = period.until.closed[1]
        while last is not None:
            cuts[last.record.actor] = cut
            cut = min(cut, last.record.index)
            before = last.record.previous
            last = good[before] if before is not None else None

    def _is_good(
        self, term: Term, period: _Period, good: Mapping[EntryId, Term]
    ) -> bool:
        """Tell whether a term began as it must, and what it goes on from is stored."""
        record = term.record
        before = good.get(record.previous) if record.previous is not None else None
        if record.previous is not None and before is None:
            return False
        is_asked = record.how != "forced" and bool(period.mode.voters)
        if before is None and good and not is_asked:
            return False  # nobody takes all away who has asked nobody
        last = before.number if before is not None else 0
        if not last < record.number <= last + limits.TERM_STEP_MAX:
            return False
        voters = period.mode.voters if before is None else before.record.voters
        if self._by_actor[record.actor] is not term:
            return False
        if not self._follows(record, before, good):
            return False
        if record.how == "forced":
            left = set(record.voters)
            if left == set(voters):
                return True
            # Some of who decides are gone for good, as an owner says; never all.
            return bool(left) and left < set(voters) and self.may_decide(record.issuer)
        return self._is_elected(term, voters, before)

    def _follows(
        self, record: TermRecord, before: Term | None, good: Mapping[EntryId, Term]
    ) -> bool:
        """Tell whether the entry that a term goes on from is in the log before it."""
        if before is None:
            return record.base is None
        if record.base is None:
            return before.record.base is None
        index, batch = record.base
        header = self._bases.get(batch) or self._header_of(batch)
        if header is None:
            self._awaited.add(batch)
            return False
        self._bases[batch] = header
        at: Term | None = before
        while at is not None:
            if at.record.actor == header.actor:
                return header.term_index == index > at.record.index
            if index > at.record.index:
                return False  # a later one has cut it off
            at = good[at.record.previous] if at.record.previous is not None else None
        return False

    def _is_elected(
        self, term: Term, voters: tuple[DeviceId, ...], before: Term | None
    ) -> bool:
        """Tell whether a majority of the voters before it voted for a term."""
        record = term.record
        changed = set(voters) ^ set(record.voters)
        if voters and not record.voters:
            return False  # somebody decides, for ever
        if changed and not (
            record.how == "voters"
            and len(changed) == 1
            and before is not None
            and before.leader == record.issuer
        ):
            return False
        if not voters:
            return True
        known = self._good_votes.get(term.id)
        if known is None:
            known = self._good_votes[term.id] = self._count(term, voters)
        return known

    def _count(self, term: Term, voters: tuple[DeviceId, ...]) -> bool:
        record = term.record
        said = vote_bytes(
            self._namespace,
            mode=record.mode,
            number=record.number,
            candidate=record.issuer,
            actor=record.actor,
            previous=record.previous,
            base=record.base,
            voters=record.voters,
        )
        good = sum(
            self._scheme.verify(voter, said, vote)
            for voter, vote in record.votes.items()
            if voter in voters
        )
        return good >= majority(voters)


def _weight(term: Term) -> tuple[bool, tuple[int, DeviceId, ActorId]]:
    """Return by which the highest of good terms is told: one that knows of voters goes
    before any that knows of none, however often that one promoted itself."""
    return bool(term.record.voters), term.record.order


def _spans(verdict: _Verdict, actor: ActorId, seq: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for period in verdict.periods:
        first = period.mode.frontier.get(actor, (0,))[0] + 1
        last = seq
        if period.until is not None:
            last = min(seq, period.until.frontier.get(actor, (0,))[0])
        if first <= last:
            spans.append((first, last))
    return spans
