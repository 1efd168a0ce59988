"""What a namespace with a leader keeps besides its log: its ballot, and what it shows.

The log says which terms there are (`log.terms`). A ballot says how far this device has
gone in electing the next one, and is on disk before anybody hears of it. Entries of a
leader take effect here once a majority of the voters has them, so that nobody is shown
what the next leader may not know of; where there are no voters, as they come.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from syncengine.ids import ActorId, DeviceId, EntryId
from syncengine.log.batch import Header
from syncengine.log.terms import BESIDE, DEPOSED, NO_MODE, OPEN, Term
from syncengine.replication.host import Signal
from syncengine.replication.keeper import Keeper
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

log = logging.getLogger("syncengine")


@dataclass(frozen=True, slots=True)
class Ballot:
    """How far this device has gone in a mode.

    Invariants: `number` never goes back; in one number there is one vote.
    """

    mode: EntryId = NO_MODE
    number: int = 0
    """The highest term that this device has heard of from one it trusts"""
    voted_for: DeviceId | None = None
    vote: bytes | None = None
    """The hash of what was signed for him: nothing else is, in that number"""
    shown: int = 0
    """Up to which index entries may take effect here"""
    may_vote: bool = True
    """Not where it may have voted before and does not know it any more"""
    forgot_at: int | None = None
    """Since then a leader of that term was heard: a later one may let it vote again"""


class Sealed(NamedTuple):
    """What the header of a leader's next batch says."""

    term: int
    last: int
    """The index of the entry before it"""


class Leadership:
    """A namespace's part in having a leader. Kept by `Namespace`."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper
        self.ballot = Ballot()
        self.leading: Term | None = None
        """The term in which this replica leads now"""
        self.holds_lease: Callable[[], bool] = lambda: True
        """Whether it may lead on, where somebody outside decides"""
        self.durable: tuple[Term, int] | None = None
        """The highest term, and the index of its last entry, on this disk"""
        self._writing: tuple[Term, int] | None = None
        self._is_changed = False
        self._is_rolled_back = False
        self.decided = Signal()
        """Other entries are known for good"""

    def load(self) -> None:
        """Read the ballot; whoever led asks again whether he does."""
        rows = self._keeper.store.read(sql.BALLOT, self._keeper.ns)
        self.ballot = Ballot()
        if rows:
            mode, number, voted_for, vote, shown, may_vote, forgot_at = rows[0]
            self.ballot = Ballot(
                *(mode, number, voted_for, vote, shown, bool(may_vote), forgot_at)
            )
        rolled = self._keeper.store.read(
            "SELECT 1 FROM _sync_meta WHERE key = 'rolled_back'"
        )
        self._is_rolled_back = bool(rolled)
        self.leading = None
        self._is_changed = False
        self.durable = self._writing = self._end()

    def _end(self) -> tuple[Term, int] | None:
        top = self._keeper.terms.top
        return None if top is None else (top, self._keeper.last_index(top.record.actor))

    def committed(self) -> None:
        self.durable = self._writing

    def collect(self, writes: Writes) -> None:
        if self._keeper.membership.modes:
            self._writing = self._end()
        if self._is_changed:
            self._is_changed = False
            ballot = self.ballot
            writes.add(
                sql.PUT_BALLOT,
                self._keeper.ns,
                *(ballot.mode, ballot.number, ballot.voted_for, ballot.vote),
                *(ballot.shown, ballot.may_vote, ballot.forgot_at),
            )

    def fence(self, writes: Writes) -> None:
        """Make the commit fail unless this is still the leader's term: whoever wakes
        up after another was elected writes nothing as a leader."""
        if self.leading is not None:
            ns = self._keeper.ns
            writes.finish(sql.FENCE, ns, ns, self.leading.number)

    # --- the ballot -------------------------------------------------------------------

    @property
    def current(self) -> Ballot:
        """The ballot in the present mode."""
        mode = self._keeper.terms.mode
        if mode is None or self.ballot.mode == mode[0]:
            return self.ballot
        ballot = self.ballot
        return Ballot(mode[0], may_vote=ballot.may_vote, forgot_at=ballot.forgot_at)

    def set(
        self,
        *,
        number: int | None = None,
        voted_for: DeviceId | None = None,
        vote: bytes | None = None,
        shown: int | None = None,
        may_vote: bool | None = None,
        forgot_at: int | None = None,
    ) -> None:
        """Change the ballot with the next commit; a new number has no vote yet."""
        ballot = self.current
        if number is not None and number != ballot.number:
            assert number > ballot.number, "a term never comes back"
            ballot = replace(ballot, number=number, voted_for=None, vote=None)
        if voted_for is not None:
            assert ballot.voted_for in (None, voted_for), "one vote in a term"
            assert ballot.vote in (None, vote), "and for one log"
            ballot = replace(ballot, voted_for=voted_for, vote=vote)
        if shown is not None and shown != ballot.shown:
            ballot = replace(ballot, shown=shown)
            self.decided.set()
        if may_vote is not None:
            ballot = replace(ballot, may_vote=may_vote, forgot_at=None)
        if forgot_at is not None:
            ballot = replace(ballot, forgot_at=forgot_at)
        if ballot != self.ballot:
            self.ballot, self._is_changed = ballot, True

    def take_part(self, me: DeviceId) -> None:
        """Keep a ballot from now on: entries are shown when a majority has them.

        One whose file is new, or older, than the folder with its key may have voted
        and does not know it any more: it votes no more until it was no voter for a
        while. Any other file without a ballot has never voted.
        """
        terms = self._keeper.terms
        top = terms.top
        if self.ballot.mode == NO_MODE and self._is_rolled_back:
            self.set(may_vote=False)  # whether it votes now or later
            if me in terms.voters:
                log.warning(
                    "this voter may have voted and not know it any more: it votes no "
                    "more until it is added to the voters again"
                )
        self.set(number=max(self.current.number, top.number if top is not None else 0))

    def forget_votes(self) -> None:
        """It was restored from a backup: it may have voted since."""
        if self.ballot.mode != NO_MODE:
            self.set(may_vote=False)

    def heed_terms(self, me: DeviceId, before: object) -> None:
        """Know of the highest term in the log, and show nothing of what is behind the
        place where it left the log of a verdict before, until a majority has it."""
        keeper = self._keeper
        cuts = keeper.terms.cuts_of(before)
        top = keeper.terms.top
        if self.ballot.mode == NO_MODE or top is None:
            return
        self.set(number=max(self.current.number, top.number))
        ballot = self.current
        if (
            not ballot.may_vote
            and ballot.forgot_at is not None
            and top.number > ballot.forgot_at
            and me not in top.record.voters
        ):
            self.set(may_vote=True)
        common = (
            min(cuts[actor], cut, keeper.last_index(actor))
            for actor, cut in keeper.terms.cuts.items()
            if actor in cuts and self._is_of_present_mode(actor)
        )
        self.set(shown=min(self.current.shown, max(common, default=0)))

    def _is_of_present_mode(self, actor: ActorId) -> bool:
        term = self._keeper.terms.term_of(actor)
        return term is not None and term.record.mode == self._keeper.terms.mode_id

    # --- what counts ------------------------------------------------------------------

    def is_held(self, header: Header) -> bool:
        """Tell whether an entry waits until a majority is known to have it."""
        terms, shown = self._keeper.terms, self.shown_max
        if not header.term or shown is None or header.term_index <= shown:
            return False
        return (
            self._is_of_present_mode(header.actor)  # not of one that was ended
            and header.actor in terms.cuts
            and terms.void_reason(header) is None
        )

    def is_undecided(self, header: Header) -> bool:
        """Tell whether an entry may still be taken back, also where this leads and
        shows it: until a majority of the voters is known to have it."""
        if not header.term or self.ballot.mode == NO_MODE:
            return False
        terms = self._keeper.terms
        return (
            bool(terms.voters)
            and header.term_index > self.current.shown
            and self._is_of_present_mode(header.actor)
            and terms.void_reason(header) is None
        )

    @property
    def shown_max(self) -> int | None:
        """Up to which index entries may show here; None: all may."""
        if self.leading is not None or self.ballot.mode == NO_MODE:
            return None
        if not self._keeper.terms.voters:
            return None  # there is no majority to wait for
        return self.current.shown

    def void_of_own(self, actor: ActorId) -> str | None:
        """Return why what `actor`, of this replica, has not sealed yet has no
        effect."""
        terms = self._keeper.terms
        term = terms.term_of(actor)
        if term is not None:
            return None if terms.cuts.get(actor) == OPEN else DEPOSED
        return BESIDE if terms.has_leader else None

    def sealing(self, actor: ActorId) -> Sealed | None:
        """Return what the next batch of `actor` says, if it is a leader's."""
        term = self._keeper.terms.term_of(actor)
        if term is None:
            return None
        return Sealed(term.number, self._keeper.last_index(actor))

    def index_at(self, actor: ActorId, seq: int) -> int:
        """Return the index of a leader's change, at least: of one that is in no batch
        yet, one behind all."""
        batches = self._keeper.batches_at(actor, seq)
        if not batches:
            return self._keeper.last_index(actor) + 1
        return max(batch.header.term_index for batch in batches)
