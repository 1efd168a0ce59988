"""One namespace on a replica: its log, its documents, and the one way between them.

Everything that changes a document goes through here: own transactions and changes
from others are applied by the same `Document.apply`, written by the same `collect`,
and undone by the same `undo`. Memory runs ahead of the disk; what leaves the machine
does not: a change travels in a batch whose bytes are committed first.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar
from weakref import ref

from syncengine import limits, values
from syncengine.clock import Entropy, HybridClock, hlc_from_ms, ms_from_hlc
from syncengine.crdt.document import Document
from syncengine.crdt.operation import (
    InvalidOperation,
    Operation,
    UnknownOperation,
    length,
)
from syncengine.crdt.sequence.state import Steps
from syncengine.errors import Closed, Invalid, NotLeader, Refused, SyncError, TooLarge
from syncengine.ids import (
    ActorId,
    BatchId,
    DeviceId,
    DocumentId,
    EntryId,
    Stamp,
    parse_document_id,
    short,
)
from syncengine.log.batch import (
    SALT_BYTES,
    Batch,
    Header,
    decode_spine,
    seal,
    split_payload,
)
from syncengine.log.change import (
    Change,
    Dep,
    Origin,
    Touch,
)
from syncengine.log.delivery import Applied, Delivery, Ready
from syncengine.log.run import Row
from syncengine.log.sealing import coalesce, cut
from syncengine.log.terms import FORKED, Term
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Notice, StateDigest
from syncengine.replication.audit import Audit
from syncengine.replication.body import BodyWatch
from syncengine.replication.documents import Documents
from syncengine.replication.draft import Draft, Mark
from syncengine.replication.host import Signal, Told
from syncengine.replication.keeper import Admission, Keeper
from syncengine.replication.leadership import Leadership
from syncengine.replication.notices import Notices
from syncengine.replication.origins import Origins, key_of
from syncengine.replication.outbox import Outbox
from syncengine.replication.pace import Pace
from syncengine.replication.rewriting import Rewriting
from syncengine.replication.writer import Flush, Writer
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.trust.entry import Entry, Kind, entry_id
from syncengine.trust.keys import PrivateKey
from syncengine.trust.leadership import TermRecord, make_term
from syncengine.trust.membership import Ops, gives_more, make_actor

log = logging.getLogger("syncengine")

T = TypeVar("T")

# Own changes sealed in one commit: four batches; more follow in the next commit.
SEAL_BYTES_MAX = 4 * limits.BATCH_BYTES_CUT

# Remote changes applied before others get a turn of the event loop: about 5 ms.
SLICE_CHANGES = 200

# Of these, how many before the clock is looked at: that takes a twentieth of one.
LOOK_CHANGES = 8

# The same within one change, and so many operations count like a change.
SLICE_OPERATIONS = 1024
OPERATIONS_A_CHANGE = SLICE_OPERATIONS // SLICE_CHANGES

# How often it is looked whether a step has taken long enough: some operations are dear
# (an insertion among ten thousand concurrent ones, say).
CHECK_OPERATIONS = 64
STEP_SECONDS = 0.010

# Each time, one knows more of which changes repeat others and of which seeds show; two
# are enough, as far as is known.
REBUILDS_MAX = 16

# A change that is stamped further ahead of now is told of: nobody's clock drifts so.
FUTURE_HOURS_ALARM = 24


def _gone() -> SyncError:
    return SyncError(
        "a disk write that this transaction built upon failed; nothing of it was kept, "
        "run it again"
    )


class Closable(Protocol):
    """Something that shows what may turn out never to have happened."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Group:
    """A commit under way: what to do when it is done."""

    documents: list[Document]
    position: int


class _Turn(asyncio.Lock):
    """The lock under which changes are made, one after the other. Whoever takes it
    finds nothing half typed; whoever lets it go lets the writer look again."""

    def __init__(self, end_typing: Callable[[], None], wake: Callable[[], None]):
        super().__init__()
        self._end_typing = end_typing
        self._wake = wake

    async def acquire(self) -> Literal[True]:
        await super().acquire()
        try:
            self._end_typing()
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        super().release()
        self._wake()


class Namespace:
    """The engine of one namespace. `replication.space.Space` is its public face.

    Invariants: (1) `next_seq` and the clock are ahead of every change ever made by
    `actor`, on disk or not; (2) changes in `_new` are in no outbox and no batch;
    (3) while `turn` is held the state may be half a transaction, and is not
    collected.
    """

    def __init__(
        self,
        keeper: Keeper,
        writer: Writer,
        clock: HybridClock,
        entropy: Entropy,
        key: PrivateKey,
        new_row: Callable[[], int],
    ):
        self.keeper = keeper
        self.writer = writer
        self.clock = clock
        self.entropy = entropy
        self.key = key
        self.ns = keeper.ns
        self.documents = Documents(keeper.store, keeper.ns, new_row)
        self.turn = _Turn(self.end_typing, writer.wake)
        self._holds = 0
        self._let_go = Signal()
        self._typing: Callable[[], None] | None = None
        self.owner: asyncio.Task[Any] | None = None
        self._alarmed = False
        self.draft: Draft | None = None
        """What an open transaction has done so far."""
        self.actor: ActorId | None = None
        self.grant: EntryId | None = None
        self.next_seq = 1
        self.generation = 0
        self.origins = Origins(keeper)
        self.own = Rewriting(keeper, self.origins, clock)
        self.outbox = Outbox(keeper.store, keeper.ns)
        self.leadership = Leadership(keeper)
        self.body = BodyWatch()
        self.channels: list[Told] = []
        self.feeds = 0
        """How many follow the log: what is written comes into it with its commit."""
        self.in_flight: set[object] = set()  # channels that wait for our data's ack
        self.log_grew = Signal()  # rows were committed: links have something to send
        self.progress = Signal()  # sealed or acknowledged further
        self._committing = False
        self._settled = Signal()
        self._also: list[tuple[tuple[str, ...], tuple[Any, ...]]] = []
        self._is_reseeded = False
        self._is_half = False
        self._whole_again = Signal()
        self._time = asyncio.get_running_loop().time
        self._step_until = 0.0
        self.is_between_changes = False
        """Whether others' changes are being applied, and all of each that has begun."""
        self.edited: dict[DocumentId, int] = {}
        """Documents that editors show, and how many: they see each step at once."""
        self.on_changed: list[Callable[[Document], None]] = []
        self.on_applied: list[Callable[[Header, list[Touch]], None]] = []
        """A change of a log row has its effect"""
        self.on_void: list[Callable[[Header, int, str], None]] = []
        """A change has no effect, or none any more; why"""
        self.on_terms: list[Callable[[], None]] = []
        """Another mode, another term, or another part in it."""
        self.on_stopped: list[Callable[[], None]] = []
        self.on_reloaded: list[Callable[[], None]] = []
        """What is shown was read or made anew: documents are other objects now."""
        self._reset()
        self.notices = Notices(keeper, key, entropy, self)
        self.audit = Audit(keeper, self.documents, self.turn, entropy, key, self)

    def _reset(self) -> None:
        self.delivery = Delivery(self.keeper)
        self.delivery.hold = self._is_held
        self.delivery.is_ordered = self._is_ordered
        self._version: dict[ActorId, int] | None = None
        self._grown: set[ActorId] = set()
        self._changed_actors: set[ActorId] = set()
        self._branch_tips: dict[ActorId, tuple[ActorId, BatchId]] = {}
        self._voids: list[tuple[ActorId, int, BatchId, str]] = []
        self.shown: list[ref[Closable]] = []
        """What shows changes that are in no commit yet, while somebody holds it: each
        snapshot that is alive makes the next change dearer"""
        self._shown_writing: list[ref[Closable]] = []
        self._operations: list[tuple[str, ActorId, int]] = []
        self._operations_writing: list[tuple[str, ActorId, int]] = []
        self._seal_due = False
        self._seal_timer: asyncio.TimerHandle | None = None
        self._clear_first = False
        self._whole_until = None

    # --- opening ------------------------------------------------------------------

    def load(self) -> None:
        """Read the state from the store; whatever was not committed is forgotten."""
        store, ns = self.keeper.store, self.ns
        self.keeper.load()
        self.documents.forget()
        self.documents.fresh = False
        self._reset()
        ((actor, self.next_seq, hlc, grant),) = store.read(
            "SELECT actor, next_seq, hlc, grant_id FROM _sync_namespace WHERE ns = ?",
            ns,
        )
        self.actor = None if actor is None else ActorId(actor)
        self.grant = None if grant is None else EntryId(grant)
        mine = self.keeper.membership.grants.get(self.grant or EntryId(b""))
        if mine is not None and mine.subject != self.key.public:
            self.grant = None  # of the device that this file was copied from
        # Never back, not even for changes that were lost with a failed commit.
        self.clock.observe(hlc)
        applied = self.delivery.applied
        self.own.heads.clear()
        for actor, seq, stamp, seen, own in store.read(
            "SELECT actor, applied, hlc, seen, own FROM _sync_actor WHERE ns = ?", ns
        ):
            vector = {ActorId(a): s for a, s in values.decode(seen)}
            applied[ActorId(actor)] = Applied(seq, stamp, vector)
            if own is not None:
                self.own.heads[ActorId(actor)] = BatchId(own)
        self.origins.load()
        self.outbox.load()
        self.leadership.load()
        for actor, head in list(self.keeper.heads.items()):
            state = applied.get(actor)
            done = state.seq if state else 0
            if head.seq > done or actor in self.keeper.forks:
                for batch in self.keeper.batches_of(actor, 1):
                    name = self.keeper.branch_of(batch)
                    known = applied.get(name)
                    if batch.header.end > (known.seq if known else 0):
                        self.delivery.queue(name, batch)
        if self.actor is not None:
            own = applied.setdefault(self.actor, Applied())
            self._grown = {
                actor
                for actor, state in applied.items()
                if actor != self.actor and state.seq > own.seen.get(actor, 0)
            }

    async def take_grant(self, link: Entry) -> None:
        """Act under another grant of this device from now on, on disk.

        Where nothing of the namespace ever came in, the log so far is of one who was
        never let in, and nobody else's: it begins anew, without the grant that was
        of no use.
        """
        async with self.turn:
            await self.settled()
            if self.keeper.membership.genesis is None:
                kept = [
                    entry
                    for entry in self.keeper.membership.entries.values()
                    if entry.kind != Kind.GRANT
                ]
                self.keeper.begin_again([link, *kept])
                self.committed_position = 0
            else:
                self.keeper.append_own(link)
            self.grant = entry_id(link)
            if self.actor is None:
                self.new_actor()
        await self.flush()

    def new_actor(self, nonce: bytes | None = None) -> None:
        """Begin to write under a new actor; the old one's past stays as it is."""
        assert not self.outbox.new, "own changes are written or re-authored first"
        self.actor = self._fresh_actor(nonce)
        self.next_seq = 1
        self.delivery.applied[self.actor] = Applied()
        self._grown = {
            actor for actor, state in self.delivery.applied.items() if state.seq
        } - {self.actor}
        self._changed_actors.add(self.actor)

    def _take_wider_grant(self) -> None:
        """Act under what somebody has granted this device besides."""
        membership = self.keeper.membership
        best = membership.grant_of(DeviceId(self.key.public))
        mine = membership.grants.get(self.grant or EntryId(b""))
        if best and mine and gives_more(membership.grants[best], mine):
            self.grant = best

    def _fresh_actor(self, nonce: bytes | None = None) -> ActorId:
        if nonce is None:
            nonce = self.entropy.bytes(16)
        heads = self.keeper.membership.recent_heads()
        entry = make_actor(self.key, self.keeper.namespace, heads, nonce)
        before = set(self.keeper.membership.actors)
        self.keeper.append_own(entry)
        (actor,) = self.keeper.membership.actors.keys() - before
        return actor

    # --- own changes --------------------------------------------------------------

    def begin_typing(self, name: DocumentId, end: Callable[[], None]) -> Draft:
        """Begin a change of an editor, which goes on without the turn until somebody
        takes that, or looks, or the loop's turn is over: `end` then finishes it."""
        draft = self.begin()
        self.draft_document(draft, name)
        self._typing = end
        asyncio.get_running_loop().call_soon(self.end_typing)
        return draft

    def end_typing(self) -> None:
        """Make a change of what an editor has typed in this turn of the loop."""
        end, self._typing = self._typing, None
        if end is not None:
            end()

    def begin(self) -> Draft:
        """Begin a change; the caller holds the turn."""
        self.end_typing()
        assert self.actor is not None
        stamp = self.clock.tick()
        self.draft = Draft(self.generation, self.actor, stamp, self.next_seq)
        return self.draft

    def draft_document(self, draft: Draft, name: DocumentId) -> Document:
        """Return a document to edit in `draft`; raises as `emit` does."""
        if draft.generation != self.generation:
            raise _gone()
        return draft.document(self.documents, name)

    def show(self, views: Iterable[Closable]) -> None:
        """Close these if what they show does not get to the disk."""
        self.shown += map(ref, views)

    def id_of(self, path: str) -> DocumentId:
        """Return a path as a document id; raises `Invalid`."""
        return self.documents.name(path)

    def emit(self, draft: Draft, document: Document, op: Operation) -> int:
        """Apply one own operation and put it into the change; return its seq.

        Raises `Invalid`, and then nothing was changed; `SyncError` when what the
        draft builds upon is gone.
        """
        if draft.generation != self.generation:
            raise _gone()
        return draft.emit(document, op)

    def as_before(self, names: Iterable[DocumentId]) -> AbstractContextManager[None]:
        """Show documents without the open transaction; never await inside."""
        self.end_typing()
        draft = self.draft
        if draft is None or draft.generation != self.generation:
            return contextlib.nullcontext()
        return draft.hidden(names)

    def abandon(self, draft: Draft) -> None:
        """Take back all of `draft`."""
        self.draft = None
        if draft.generation == self.generation:
            draft.take_back()

    def back_to(self, draft: Draft, mark: Mark) -> None:
        """Take back what was done in `draft` since `mark`; nobody awaited meanwhile."""
        if draft.generation == self.generation:
            draft.back_to(mark)

    def finish(self, draft: Draft, operation_id: str | None) -> Change | None:
        """Turn `draft` into a change; None when it did nothing.

        Raises `TooLarge` or `SyncError`, and then all of it was taken back.
        """
        self.draft = None
        if draft.generation != self.generation:
            raise _gone()
        changed = draft.end()
        if not changed:
            return None
        try:
            change, encoded = draft.change(changed, self._deps(), operation_id)
        except TooLarge:
            self.abandon(draft)
            raise
        self._accept(change, encoded)
        for document in changed:
            self._document_changed(document, draft.hlc)
        return change

    @property
    def version(self) -> dict[ActorId, int]:
        """The applied frontier; not to be changed."""
        self.end_typing()
        if self._version is None:
            self._version = self.delivery.version()
        return self._version

    def _accept(self, change: Change, encoded: bytes) -> None:
        """Count an own change that has taken effect."""
        self._version = None
        own = self.delivery.applied.setdefault(change.actor, Applied())
        own.seq, own.hlc = change.end, change.hlc
        if change.deps:
            own.seen = {
                **own.seen,
                **{actor: self.delivery.applied[actor].seq for actor in self._grown},
            }
            self._grown.clear()
        self.next_seq = change.end + 1
        self._changed_actors.add(change.actor)
        self.outbox.add(change, encoded)
        if change.meta.operation_id:
            made = (change.meta.operation_id, change.actor, change.seq)
            self._operations.append(made)

    def _deps(self) -> list[Dep]:
        """Return how the applied frontier grew since our previous change."""
        applied = self.delivery.applied
        return [self._dep(actor, applied[actor].seq) for actor in sorted(self._grown)]

    def _dep(self, actor: ActorId, seq: int) -> Dep:
        if actor in self._branch_tips:
            real, name = self._branch_tips[actor]
            return Dep(real, seq, name[:16])
        found = self.keeper.hash16_at(actor, seq)
        assert found is not None, "what is applied of others is in a stored batch"
        return Dep(actor, seq, found)

    def _document_changed(self, document: Document, hlc: int) -> None:
        self.documents.changed(document, ms_from_hlc(hlc))
        for tell in self.on_changed:
            tell(document)

    def done_by(self, operation_id: str) -> tuple[ActorId, int] | None:
        """Return the name of the change with that client operation id, on disk or on
        its way there: an own one, or a leader's. What is off the log of leaders was not
        done."""
        made: tuple[ActorId, int] | None = None
        for known, actor, seq in (*self._operations_writing, *self._operations):
            if known == operation_id:
                made = actor, seq
        if made is None:
            rows = self.keeper.store.read(
                "SELECT actor, seq FROM _sync_operation WHERE ns = ? AND operation = ?",
                self.ns,
                operation_id,
            )
            made = (ActorId(rows[0][0]), rows[0][1]) if rows else None
        return None if made is None or self._is_off_the_log(*made) else made

    def _is_off_the_log(self, actor: ActorId, seq: int) -> bool:
        if not self.keeper.membership.modes:
            return False
        batches = self.keeper.batches_at(actor, seq)
        if not batches:
            return self.leadership.void_of_own(actor) is not None
        return all(self.keeper.terms.void_reason(batch.header) for batch in batches)

    # --- others' changes ----------------------------------------------------------

    async def take_in(self, rows: Iterable[Row]) -> Admission:
        """Admit rows of a peer and apply what can be; the caller then flushes.

        Cancelled, it ends at a place where it can, and goes on later.
        """
        pace = Pace()
        async with self.turn:
            generation = self.generation
            admission = Admission()
            rows = list(rows)
            before = self.keeper.terms.verdict
            for _ in self.keeper.admitting(rows, admission):
                await pace.pause()
                self._check_generation(generation)
            again = await self._heed_terms(before, generation)
            if admission.forks:
                self.keeper.tell_forks(self.key)
                log.warning(
                    "%s wrote two histories; from the fork on they have no effect",
                    ", ".join(map(short, sorted(admission.forks))),
                )
            if self._is_written_by_another(admission):
                log.warning("a copy of this replica writes too: it takes a new actor")
                await self.settled()
                self._check_generation(generation)
                again |= self._retire()
                generation = self.generation
            for actor, known in sorted(admission.forks.items()):
                if actor in self.own.heads:
                    self._publish_again(actor, known)
            if again or admission.forks:
                await self.settled()
                self._check_generation(generation)
                await self.rebuild(pace)
            else:
                for _, row in admission.stored:
                    if isinstance(row, Batch):
                        self.delivery.queue(self.keeper.branch_of(row), row)
                await self._apply_ready(pace)
        self._look_again_later()
        if any(isinstance(row, Entry) for _, row in admission.stored):
            self._take_wider_grant()
            self.seal_now()  # what was written may leave now
        self._went_on(pace)
        return admission

    # --- leaders ------------------------------------------------------------------

    async def _heed_terms(self, before: object, generation: int) -> bool:
        """Do as the entries that came in say, where they are judged otherwise than
        `before`; tell whether something that is applied has no effect any more, or has
        it again. The caller holds the turn."""
        terms = self.keeper.terms
        if terms.verdict is before:
            return False
        # What is being written is in the outbox of the file and in memory: see there.
        await self.settled()
        self._check_generation(generation)
        leading, top = self.leadership.leading, terms.top
        if leading is not None and (top is None or top.id != leading.id):
            log.warning("this replica leads no more: a higher term has begun")
            self._stop_leading()
        self.leadership.heed_terms(DeviceId(self.key.public), before)
        self._whole_until = None
        self._leave_term()
        self.delivery.look_again()
        self._tell_terms()
        index_at = self.leadership.index_at
        applied = self.delivery.version()
        return terms.differs(before, applied, index_at) or self.shows_too_much

    def _leave_term(self) -> None:
        """Where all write, write on as somebody who is in no term. The caller holds the
        turn, and no commit is under way."""
        actor = self.actor
        if actor is None or self.keeper.terms.has_leader:
            return
        if self.keeper.terms.term_of(actor) is not None and self._sealing_grant:
            self._seal_rest()
            self.new_actor()

    async def begin_term(self, nonce: bytes, record: TermRecord) -> Term:
        """Lead from now on, in a term whose actor was drawn with `nonce`; on disk when
        this returns. Raises `SyncError` when a higher one has begun meanwhile."""
        pace = Pace()
        async with self.turn:
            await self.settled()
            if (
                self.leadership.current.number > record.number
                or self.keeper.terms.mode_id != record.mode
            ):
                raise SyncError("a higher term has begun meanwhile")
            if record.how == "handed over" and not record.voters:
                top = self.keeper.terms.top
                if top is None or (top.id, self.end_of(top)) != (
                    record.previous,
                    record.base,
                ):
                    raise SyncError("the leader goes on meanwhile")
            self._seal_rest()
            self.leadership.set(number=record.number)
            self.new_actor(nonce)
            assert self.actor == record.actor, "the actor is the nonce's"
            heads = self.keeper.membership.recent_heads()
            entry = make_term(self.key, self.keeper.namespace, heads, record)
            before = self.keeper.terms.verdict
            self.keeper.append_own(entry)
            top = self.keeper.terms.top
            leads = top is not None and top.id == entry_id(entry)
            self.leadership.leading = top if leads else None
            # It may go on from an earlier term than the one that came in meanwhile.
            if await self._heed_terms(before, self.generation):
                await self.rebuild(pace)
            await self._apply_ready(pace)
        self._tell_terms()
        await self.flush()
        self._went_on(pace)
        if top is None or not leads:
            raise SyncError("somebody else leads by now, in a higher term")
        return top

    def end_of(self, term: Term) -> tuple[int, BatchId] | None:
        """Return the last entry of the log here, where a term is the highest."""
        head = self.keeper.heads.get(term.record.actor)
        if head is None:
            return term.record.base
        return self.keeper.last_index(term.record.actor), head.id

    async def take_turn(self) -> None:
        """Wait until a change may be begun: it has `turn`, which is to be released."""
        while True:
            await self.turn.acquire()
            if not self._holds:
                return
            self.turn.release()
            await self._let_go.wait()

    @contextlib.asynccontextmanager
    async def writes_held(self) -> AsyncGenerator[None]:
        """No change is open meanwhile, and none is begun: a leader hands over what
        there is. Who wants to write waits; what is typed is refused."""
        self._holds += 1
        try:
            async with self.turn:
                pass  # whoever was writing has ended
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._let_go.set()

    def check_leads(self) -> None:
        """Raise `NotLeader` where another one writes, or before all that this one goes
        on from has its effect: what it writes would not come after it."""
        leading = self.leadership.leading
        if self._holds and leading is not None and self.draft is None:
            raise NotLeader("another one is about to lead; write again")
        if leading is None and self.keeper.terms.has_leader:
            top = self.keeper.terms.top
            raise NotLeader(leader_id=None if top is None else top.record.node)
        if leading is not None and not self.leadership.holds_lease():
            raise NotLeader("its lease has ended; another one may lead")
        if leading is not None and not self.has_all_before(leading):
            raise NotLeader(
                "it has begun to lead, and not all of the log has its effect here yet; "
                "write again",
                leader_id=leading.record.node,
            )

    def has_all_before(self, term: Term) -> bool:
        """Whether all that a term goes on from has its effect here."""
        if self._began is not term:
            if self.applied_index < term.record.index:
                return False
            self._began = term
        return True

    _began: Term | None = None
    """A term of which that is so"""

    async def end_term(self, number: int | None = None) -> None:
        """Lead no more, if it does, and know of a higher term from now on; on disk when
        this returns."""
        if number is not None and number > self.leadership.current.number:
            self.leadership.set(number=number)
        if self.leadership.leading is not None:
            async with self.turn:
                await self.settled()
                self._stop_leading()
                if self.shows_too_much:
                    await self.rebuild()
            self._tell_terms()
        await self.flush()

    def _stop_leading(self) -> None:
        if self.leadership.leading is not None:
            self._seal_rest()
            self.leadership.leading = None

    @property
    def shows_too_much(self) -> bool:
        """Whether what a leader wrote, and no majority is known to have, shows after he
        has stopped: whoever leads next may not have it."""
        shown = self.leadership.shown_max
        return shown is not None and self.applied_index > shown

    async def settle_terms(self) -> None:
        """Show no more than what a majority is known to have, and write as nobody who
        led once: what a crash, or a failed commit, has left undone."""
        if not self.keeper.membership.modes:
            return
        term = self.keeper.terms.term_of(self.actor) if self.actor else None
        leaves = term is not None and not self.keeper.terms.has_leader
        if leaves or self.shows_too_much:
            async with self.turn:
                await self.settled()
                self._leave_term()
                if self.shows_too_much:
                    await self.rebuild()
            self.flush()

    def _tell_terms(self) -> None:
        for tell in list(self.on_terms):
            tell()

    def show_until(self, index: int) -> None:
        """Let entries up to an index take effect, soon: a majority has them."""
        if index > self.leadership.current.shown:
            self.leadership.set(shown=index)
            if self._showing is None or self._showing.done():
                self._showing = asyncio.ensure_future(self._show())
            else:
                self._shows_again = True

    async def _show(self) -> None:
        while True:
            self._shows_again = False
            with contextlib.suppress(SyncError):  # then it is looked at after the load
                await self.apply_held()
            self._tell_terms()
            if not self._shows_again:
                return

    _showing: "asyncio.Future[None] | None" = None
    _shows_again = False

    async def switch(self, make: Callable[[list[EntryId]], Entry]) -> None:
        """Put a mode that `make` says into the log, given the heads that it names."""
        async with self.turn:
            await self.settled()
            self._stop_leading()
            self._seal_rest()
            before = self.keeper.terms.verdict
            self.keeper.append_own(make(self.keeper.membership.recent_heads()))
            if await self._heed_terms(before, self.generation):
                await self.rebuild()
        await self.flush()

    def _seal_rest(self) -> None:
        """Put all own changes into batches, whatever else they would wait for: the
        caller goes on under another actor, and no commit is under way."""
        grant = self._sealing_grant
        if self.actor is None or not self.outbox or grant is None:
            return
        self._seal_as(self.actor, self.outbox.take(self.actor), grant)

    @property
    def newest_index(self) -> int:
        """The index of the newest change of a leader, on disk or not."""
        assert self.actor is not None, "a leader has an actor"
        return self.keeper.last_index(self.actor) + len(self.outbox)

    def index_of(self, actor: ActorId, seq: int) -> int | None:
        """Return the index of a sealed change of a leader; None where none holds it."""
        for batch in self.keeper.batches_at(actor, seq):
            if batch.header.end == seq:
                return batch.header.term_index
            heads = decode_spine(batch.header, split_payload(batch.payload))
            later = sum(head.seq > seq for head in heads)
            return batch.header.term_index - later
        return None

    @property
    def applied_index(self) -> int:
        """Up to which index the log of leaders has its effect here, without a gap."""
        terms, keeper = self.keeper.terms, self.keeper
        path: list[Term] = []
        term = terms.top
        while term is not None and term.id != self._whole_until:
            path.append(term)
            term = terms.find(term.record.previous)
        index = 0 if term is None else terms.cuts.get(term.record.actor, 0)
        for term in reversed(path):
            actor, cut = term.record.actor, terms.cuts.get(term.record.actor, 0)
            state = self.delivery.applied.get(actor)
            if state is not None and state.seq:
                head = keeper.heads.get(actor)
                done = keeper.last_index(actor)
                if head is None or state.seq > head.seq:
                    done += len(self.outbox)
                elif state.seq < head.seq:
                    done = self.index_of(actor, state.seq) or term.record.index
                index = max(index, min(done, cut))
            if index < cut:
                break  # what comes later waits for what is missing
            self._whole_until = term.id
        return index

    _whole_until: EntryId | None = None
    """A term up to whose end all has its effect"""

    def entry_at(self, index: int) -> Batch | None:
        """Return the batch that holds an entry of the log of leaders."""
        terms, keeper = self.keeper.terms, self.keeper
        term = terms.top
        while term is not None and index <= term.record.index:
            term = terms.find(term.record.previous)
        if term is None or index < 1 or index > terms.cuts.get(term.record.actor, 0):
            return None
        actor = term.record.actor
        head = keeper.heads.get(actor)
        if head is None or index > keeper.last_index(actor):
            return None
        low, high = 1, head.seq  # seqs: it begins in between
        while True:
            middle = (low + high) // 2
            (batch, *_) = keeper.batches_at(actor, middle)
            header = batch.header
            if header.term_index < index:
                low = header.end + 1
            elif index > header.term_index - _changes_in(batch):
                return batch
            else:
                high = header.first_seq - 1

    def entries_from(self, index: int, count: int) -> list[tuple[int, Batch]]:
        """Return (position, batch) of the next entries of the log of leaders, from the
        batch on that holds `index`: up to `count` of one leader."""
        first = self.entry_at(index)
        if first is None:
            return []
        header, keeper = first.header, self.keeper
        cut = keeper.terms.cuts[header.actor]
        return [
            (keeper.position_of(batch.id), batch)
            for batch in keeper.batches_of(header.actor, header.first_seq, count)
            if batch.header.term_index <= cut
        ]

    def _went_on(self, pace: Pace) -> None:
        """Let the rest happen soon where it was cancelled."""
        if pace.cancelled:
            if not self._is_stopped:
                self.apply_soon()
            raise asyncio.CancelledError

    async def apply_held(self) -> None:
        """Apply what `delivery.hold` lets through now."""
        pace = Pace()
        async with self.turn:
            self.delivery.look_again()
            applied = await self._apply_ready(pace)
        if applied:
            self.flush()
        self._went_on(pace)

    def _look_again_later(self) -> None:
        """Apply what is stamped ahead of now when its time has come."""
        due = self.delivery.blocked_until_ms()
        if due is None or self._due_timer is not None:
            return
        hours = (due - self.clock.now_ms()) / 3_600_000
        if hours > FUTURE_HOURS_ALARM and not self._alarmed:
            self._alarmed = True  # once: whoever stamps so could fill the log
            log.warning(
                "a change is stamped %.0f h ahead of now and waits that long: its "
                "author's clock, or ours, is wrong",
                hours,
            )
        delay = (due - limits.CLOCK_AHEAD_MS_MAX - self.clock.now_ms()) / 1000
        loop = asyncio.get_running_loop()
        # Not longer: somebody may set the clock right in the meantime.
        delay = min(max(0.0, delay) + 0.001, limits.DUE_SECONDS_MAX)
        self._due_timer = loop.call_later(delay, self._due)

    def apply_soon(self, delay: float = 0.0) -> None:
        """Look at what was stored and not applied when the state was read."""
        if self.delivery.waiting_count:
            if self._due_timer is not None:
                self._due_timer.cancel()
                self._due_timer = None
            if delay:
                loop = asyncio.get_running_loop()
                self._due_timer = loop.call_later(delay, self._due)
            else:
                self._due()

    def _due(self) -> None:
        self._due_timer = None
        self._due_task = asyncio.ensure_future(self._take_due())

    async def _take_due(self) -> None:
        pace = Pace()
        with contextlib.suppress(SyncError):  # then it is looked at after the load
            async with self.turn:
                await self._apply_ready(pace)
        self._look_again_later()
        with contextlib.suppress(SyncError):  # closing: what is dirty is written
            self.writer.flush(self)
        self._went_on(pace)

    _is_stopped = False
    is_cleared = False
    """Whether it was taken out of the file"""
    _due_timer: asyncio.TimerHandle | None = None
    _due_task: "asyncio.Future[None] | None" = None

    def stop(self) -> None:
        """Cancel what was to happen later."""
        self.end_typing()
        self._is_stopped = True
        for tell in list(self.on_stopped):
            tell()
        for timer in (self._due_timer, self._seal_timer):
            if timer is not None:
                timer.cancel()
        for task in (self._due_task, self._showing):
            if task is not None:
                task.cancel()
        self.body.stop()
        self.audit.stop()

    def unsent_count(self) -> int:
        """How many own batches, and changes in none, no peer has on its disk."""
        acked = max((record.acked for record in self.keeper.peers.values()), default=0)
        me = DeviceId(self.key.public)
        actors = self.keeper.membership.actors
        count = self.pending_count()
        for actor, device in actors.items():
            if device == me:
                read = self.keeper.store.read(sql.OWN_AFTER, self.ns, actor, acked)
                count += int(read[0][0])
        return count

    def collect_end(self, writes: Writes) -> None:
        """Add to `writes` what takes all of this namespace out of the file."""
        if self.documents.projection is not None:
            self.documents.projection.clear(writes, self.ns)
        for statement in sql.CLEAR_NAMESPACE:
            writes.add(statement, self.ns)

    def _check_generation(self, generation: int) -> None:
        """Raise when a commit failed meanwhile: all that was in memory is gone."""
        if self.generation != generation:
            raise SyncError("a disk write failed; what was being applied comes again")

    async def _apply_ready(self, pace: Pace) -> int:
        """Apply what can be; return how many changes that was."""
        count = steps = looked = 0
        again = False
        generation = self.generation
        self._step_until = self._time() + STEP_SECONDS
        while True:
            for ready in self.delivery.ready(self.clock.now_ms()):
                applying = self.apply(ready)
                try:
                    next(applying)  # nearly always all of it
                except StopIteration as done:
                    again |= done.value
                else:
                    again |= await self._as_a_whole(applying, pace, begun=True)
                count += 1
                steps += 1 + ready.head.n // OPERATIONS_A_CHANGE
                if steps < looked + LOOK_CHANGES:
                    continue
                looked = steps
                if steps >= SLICE_CHANGES or self._time() > self._step_until:
                    steps = looked = 0
                    self.is_between_changes = True
                    await pace.pause()
                    self.is_between_changes = False
                    self.end_typing()
                    self._step_until = self._time() + STEP_SECONDS
                    self._check_generation(generation)
                if pace.cancelled:
                    break
            due = self.delivery.blocked_until_ms()
            if due is None or pace.cancelled:
                break
            self.clock.saw(due)
            if due > self.clock.now_ms() + limits.CLOCK_AHEAD_MS_MAX:
                break
        if again:
            await self.rebuild(pace)
        return count

    async def _as_a_whole(
        self, steps: Generator[None, None, T], pace: Pace, *, begun: bool = False
    ) -> T:
        """Do something in steps between which nobody reads what is shown."""
        generation = self.generation
        paused = False
        try:
            while True:
                if not begun:
                    next(steps)
                begun = False
                paused = self._is_half = True
                await pace.pause()
                self._is_half = False
                self._step_until = self._time() + STEP_SECONDS
                self._check_generation(generation)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # a T
        finally:
            if paused:
                self._whole_again.set()

    async def whole(self) -> None:
        """Wait while a change is in the middle of taking effect. Safe to cancel."""
        while self._is_half:
            await self._whole_again.wait()

    def apply(self, ready: Ready) -> Generator[None, None, bool]:
        """Give a change its effect, or none, in steps; tell whether to rebuild."""
        actor, head = ready.actor, ready.head
        self._version = None
        ms = ms_from_hlc(head.hlc)
        terms = self.keeper.terms
        if ready.batch is not self._judged or terms.verdict is not self._judged_by:
            self._judged, self._judged_by = ready.batch, terms.verdict
            self._beside = terms.void_reason(ready.batch.header)
        counts = self._beside is None or not self._is_ordered(ready.batch)
        if counts:  # else it may be ahead of all clocks, and is nobody's
            self.clock.observe(head.hlc)
        author = self.keeper.membership.actors[ready.batch.header.actor]
        if ms > self._seen_ms and author != self.key.public and counts:
            self._seen_ms = ms  # an older one says nothing new
            self.clock.saw(ms)
        self._grown.add(actor)
        self._changed_actors.add(actor)
        header = ready.batch.header
        if actor != header.actor:
            self._branch_tips[actor] = (header.actor, ready.batch.id)
        reason = ready.problem
        touches: list[Touch] = []
        if reason is None:
            try:
                touches = ready.parts.touches(head)
            except ValueError as error:
                reason = str(error)
        again = False
        if reason is None:
            reason, again = self._void_reason(ready, touches)
        if reason is None:
            reason = yield from self._give_effect(ready, touches)
        if reason is None:
            for tell in self.on_applied:
                tell(header, touches)
        if reason is None and header.term and head.meta.operation_id:
            # Whoever leads next is asked for it, too.
            made = (head.meta.operation_id, header.actor, head.seq)
            self._operations.append(made)
        if reason is not None:
            self._note_void(ready.batch, head.seq, reason)
            stamp = (head.hlc, actor, head.seq)
            yield from self._count_void(stamp, ready.seen, touches)
        again |= self._is_reseeded
        self._is_reseeded = False
        return again

    # Whether the last batch is off the log of leaders, and by what that was judged.
    _judged: Batch | None = None
    _judged_by: object = None
    _beside: str | None = None

    def _is_held(self, batch: Batch, end: int) -> bool:
        return self.leadership.is_held(batch.header)

    def _is_ordered(self, batch: Batch) -> bool:
        header, terms = batch.header, self.keeper.terms
        if header.term:
            return terms.term_of(header.actor) is not None
        return terms.is_before_a_leader(header)

    def _void_reason(
        self, ready: Ready, touches: list[Touch]
    ) -> tuple[str | None, bool]:
        """Return why a well-formed change is void, and whether to rebuild."""
        header, head = ready.batch.header, ready.head
        fork = self.keeper.forks.get(header.actor)
        if fork is not None and head.end >= fork:
            return FORKED, False
        if self._beside is not None:
            return self._beside, False
        for touch in touches:  # within its grant: the keeper stores nothing else
            if touch.document not in self.documents:
                try:
                    parse_document_id(touch.document)
                except Invalid as error:
                    return str(error), False
        again = self.origins.may_be_repeated(header.actor, head.seq, head.end)
        origin = head.meta.origin
        if origin is not None:
            try:
                key = key_of(origin, header.actor, head.seq, touches)
            except ValueError as error:
                return str(error), again
            own = (header.actor, head.seq)
            if key is None:
                return None, again
            again |= self.origins.note(key, own)
            if self.origins.repeats(key, own):
                return "it repeats a change that is here already", again
        return None, again

    def _give_effect(
        self, ready: Ready, touches: list[Touch]
    ) -> Generator[None, None, str | None]:
        """Apply a change as a whole; return why it is void, when it is."""
        head = ready.head
        undo = Steps()
        changed: list[Document] = []
        seq = head.seq
        problem: str | None = None
        try:
            for touch in touches:
                document = self.documents.get(touch.document)
                document.undo = undo
                if document not in changed:
                    changed.append(document)
                end = seq + touch.n
                if not document.needs_upgrade:
                    mark = undo.place()
                    for start in range(0, len(touch.ops), CHECK_OPERATIONS):
                        part = touch.ops[start : start + CHECK_OPERATIONS]
                        seq = self._apply_some(document, part, ready, seq, mark)
                        done = start + CHECK_OPERATIONS
                        if done < len(touch.ops) and self._is_due(done, touch):
                            yield
                    if seq != end and not document.needs_upgrade:
                        raise InvalidOperation("a change counts its operations wrongly")
                seq = end
        except InvalidOperation as error:
            problem = str(error)
        for document in changed:
            document.undo = None
        if problem is not None:
            if changed:
                changed[0].take_back(undo)
            return problem
        for document in changed:
            self._document_changed(document, head.hlc)
            if document.is_reseeded:
                self.documents.prefer(document)
                self._is_reseeded = True
        return None

    def _apply_some(
        self, document: Document, ops: list[Any], ready: Ready, seq: int, mark: int
    ) -> int:
        """Apply some operations of a touch, begun at `mark`; return the next seq."""
        if document.needs_upgrade:
            return seq  # an earlier one could not be read
        hlc, actor, seen = ready.head.hlc, ready.actor, ready.seen
        if document.conflicts is None:
            document.conflicts = []
        try:
            for op in ops:
                seen[actor] = seq - 1
                document.apply(op, (hlc, actor, seq), seen)
                seq += length(op)
        except UnknownOperation:
            assert document.undo is not None
            document.take_back(document.undo.cut(mark))
            self._newer(document)
        return seq

    def _is_due(self, done: int, touch: Touch) -> bool:
        """Whether others should have the loop after `done` operations of a touch."""
        if touch.document in self.edited:
            return False  # readers wait for the rest of it, an editor cannot
        return done % SLICE_OPERATIONS == 0 or self._time() > self._step_until

    def _newer(self, document: Document) -> None:
        document.needs_upgrade = True
        log.warning("%s was written by a newer version", document.name)

    def _count_void(
        self,
        first: Stamp,
        seen: dict[ActorId, int],
        touches: list[Touch],
    ) -> Generator[None, None, None]:
        """Let the positions of a void change count for those who saw it."""
        hlc, actor, seq = first
        for touch in touches:
            end = seq + touch.n
            try:
                parse_document_id(touch.document)
            except Invalid:
                seq = end
                continue
            document = self.documents.get(touch.document)
            for index, op in enumerate(touch.ops, 1):
                seen[actor] = seq - 1
                try:
                    n = length(op)
                except InvalidOperation:
                    break
                if index % CHECK_OPERATIONS == 0 and self._is_due(index, touch):
                    yield
                try:
                    document.apply_void(op, (hlc, actor, seq), seen)
                except InvalidOperation:
                    pass  # in something that only void changes made, say
                except UnknownOperation:
                    self._newer(document)
                    self._document_changed(document, hlc)
                    break
                seq += n
            seq = end
            if document.dirty:
                self._document_changed(document, hlc)

    # --- rebuilding ---------------------------------------------------------------

    async def rebuild(self, pace: Pace | None = None) -> None:
        """Make all derived state anew from the log; the caller holds the turn.

        Slow (it reads the whole log) and rare: after a fork proof, a change that
        repeats another, or a seed that turns out to be older than what shows.
        """
        await self.settled()
        for _ in range(REBUILDS_MAX):
            known = (self.origins.changes, self.documents.preferences)
            self.generation += 1
            await self._as_a_whole(self._rebuild_once(), pace or Pace())
            self.documents.prefer_first()
            if (self.origins.changes, self.documents.preferences) == known:
                break
        else:
            log.error("a rebuild came to no end; please report it, with the file")
        for tell in self.on_reloaded:
            tell()

    async def settled(self) -> None:
        """Wait for the commit that is under way: until it ends, the file's outbox
        and the log in memory overlap. The caller holds the turn, so none follows."""
        while self._committing:
            await self._settled.wait()

    def _rebuild_once(self) -> Generator[None, None, None]:
        self.documents.forget()
        self.documents.fresh = True
        operations, shown = self._operations, self.shown
        self._reset()
        # Known from before, so that the verdict does not depend on arrival.
        self.origins.write_all()
        self._operations, self.shown = operations, shown
        self._clear_first = True
        # What was applied once is applied again, wherever the wall clock stands now.
        latest = ms_from_hlc(self.clock.last) - limits.CLOCK_AHEAD_MS_MAX
        now = max(self.clock.now_ms(), latest)
        position = 0
        while True:
            rows = self.keeper.rows_after(position, 1000)
            if not rows:
                break
            position = rows[-1][0]
            for _, row in rows:
                if isinstance(row, Batch):
                    self.delivery.queue(self.keeper.branch_of(row), row)
            for count, ready in enumerate(self.delivery.ready(now), 1):
                yield from self.apply(ready)
                if count % SLICE_CHANGES == 0:
                    yield
            yield
        self._grown.discard(self.actor)
        new = [change for change, _ in self.outbox.new]
        for change in [*self.outbox.stored(self.actor), *new]:
            yield from self._apply_own_again(change)
        if self.actor is not None:
            own = self.delivery.applied.setdefault(self.actor, Applied())
            self._grown = {
                actor
                for actor, state in self.delivery.applied.items()
                if actor != self.actor and state.seq > own.seen.get(actor, 0)
            }

    def _apply_own_again(self, change: Change) -> Generator[None, None, None]:
        state = self.delivery.applied.setdefault(change.actor, Applied())
        seen = dict(state.seen)
        for dep in change.deps:
            on = self.keeper.branch(dep.actor, dep.seq, dep.hash16)
            if on is not None:
                seen[on] = max(dep.seq, seen.get(on, 0))
        state.seen = seen = {**seen, change.actor: change.seq - 1}
        state.seq, state.hlc = change.end, change.hlc
        self._version = None
        self._changed_actors.add(change.actor)
        origin, seq = change.meta.origin, change.seq
        if self.leadership.void_of_own(change.actor) is not None:
            stamp = (change.hlc, change.actor, seq)
            yield from self._count_void(stamp, seen, change.touches)
            return
        key = origin and key_of(origin, change.actor, seq, change.touches)
        if key is not None and self.origins.repeats(key, (change.actor, seq)):
            stamp = (change.hlc, change.actor, seq)
            yield from self._count_void(stamp, seen, change.touches)
            return
        for touch in change.touches:
            document = self.documents.get(touch.document)
            for op in touch.ops:
                seen[change.actor] = seq - 1
                document.apply(op, (change.hlc, change.actor, seq), seen)
                seq += length(op)
            self._document_changed(document, change.hlc)
            yield

    async def retire_actor(self) -> None:
        """Go on under a new actor, and write again what the old one had not sealed.

        After a restore or a copy. Whoever else holds the old actor's changes may
        have sealed them too: each new writing names its origin, and of two equal
        ones only one has effect.
        """
        async with self.turn:
            await self.settled()
            if self._retire():
                await self.rebuild()
        self._tell_terms()
        await self.flush()

    def _retire(self) -> bool:
        """Write all that is not sealed again, under a new actor.

        Returns whether there was something; the caller then rebuilds.
        """
        before = self.actor
        old = self.outbox.take(before)
        if self.leadership.leading is not None:
            # What is written under another actor is in no term.
            log.warning("this replica leads no more: its actor is in use elsewhere")
            self.leadership.leading = None
            self.generation += 1
        self.new_actor()
        if not old:
            return self.shows_too_much
        assert before is not None
        assert self.actor is not None
        self.generation += 1
        again = self._written_again(before, old, self.actor)
        self.outbox.fill(again)
        self.next_seq = again[-1].end + 1
        return True

    def _written_again(
        self, before: ActorId, old: list[Change], author: ActorId
    ) -> list[Change]:
        changes = self.own.rewritten(before, old, author)
        for change in changes:
            if change.meta.operation_id:
                made = (change.meta.operation_id, author, change.seq)
                self._operations.append(made)
        return changes

    def _publish_again(self, forked: ActorId, known: int | None) -> None:
        """Seal again, under an actor of its own, what a fork made void of ours.

        `known`: from where on that was done before.
        """
        old = [
            change
            for change in self.own.branch(forked)
            if known is None or change.seq < known
        ]
        grant = self._sealing_grant
        if not old or grant is None:
            return
        author = self._fresh_actor()
        self._seal_as(author, self._written_again(forked, old, author), grant)

    def _seal_as(
        self, author: ActorId, changes: list[Change], grant: EntryId
    ) -> list[Batch]:
        """Put the next changes of an actor of ours into the log."""
        made: list[Batch] = []
        left = changes
        while left:
            group, left = cut(left)
            made.append(self._seal_one(author, group, grant))
        return made

    def _seal_one(
        self, author: ActorId, changes: list[Change], grant: EntryId
    ) -> Batch:
        """Put one batch of an actor of ours into the log."""
        keeper = self.keeper
        term = self.leadership.sealing(author)
        head = keeper.heads.get(author)
        batch = seal(
            *(self.key, keeper.namespace, grant),
            head.id if head else keeper.base_of(author),
            changes,
            self.entropy.bytes(SALT_BYTES),
            term=term.term if term else 0,
            index=term.last + len(changes) if term else 0,
        )
        keeper.append_own(batch)
        self.own.heads[author] = batch.id
        reason = keeper.terms.void_reason(batch.header)
        if reason is not None:
            for change in changes:
                self._note_void(batch, change.seq, reason)
        return batch

    def _note_void(self, batch: Batch, seq: int, reason: str) -> None:
        log.info("void: %s of %s: %s", seq, short(batch.header.actor), reason)
        self._voids.append((batch.header.actor, seq, batch.id, reason))
        for tell in list(self.on_void):
            tell(batch.header, seq, reason)

    async def also(self, drop: tuple[tuple[str, ...], tuple[Any, ...]]) -> None:
        """Run statements, each with the same parameters, in the next commit."""
        self._also.append(drop)
        await self.flush()

    async def publish(
        self,
        changes: list[Change],
        seen: Mapping[ActorId, int],
        drop: tuple[tuple[str, ...], tuple[Any, ...]],
    ) -> ActorId:
        """Write the changes of a branch under an actor of their own, as one who had
        seen a version and nothing else; and in the same commit take them from where
        they were kept. Return the actor.

        Each names its origin: merged again from a backup, it has no second effect.
        Raises `Refused` where this device's grant is not known.
        """
        pace = Pace()
        async with self.turn:
            await self.settled()
            if self.keeper.terms.has_leader:
                raise Invalid(
                    "a branch is merged where all write; what it holds would not be in "
                    "the log of leaders"
                )
            grant = self._sealing_grant
            if grant is None:
                raise Refused(
                    Code.NOT_GRANTED,
                    "this device cannot sign changes here yet: connect it first",
                    retry="after_action",
                )
            author = self._fresh_actor()
            deps = [self._dep(actor, seen[actor]) for actor in sorted(seen)]
            again: list[Change] = []
            for change, hlc in zip(changes, self._stamps_of(changes), strict=True):
                origin = Origin(change.actor, change.seq, change.hlc)
                meta = replace(change.meta, origin=origin)
                one = replace(change, actor=author, hlc=hlc, deps=deps, meta=meta)
                again.append(one)
                deps = []
                if meta.operation_id:
                    made = (meta.operation_id, author, change.seq)
                    self._operations.append(made)
            for batch in self._seal_as(author, again, grant):
                self.delivery.queue(author, batch)
            self._also.append(drop)
            on_disk = self.flush()
            await self._apply_ready(pace)
        await on_disk
        self._look_again_later()
        self._went_on(pace)
        return author

    def _stamps_of(self, changes: list[Change]) -> list[int]:
        """Return the stamps that changes have, or where a clock was set back meanwhile
        the nearest ones that increase and are not ahead of now."""
        stamps: list[int] = []
        for change in changes:
            stamps.append(max(change.hlc, stamps[-1] + 1 if stamps else 1))
        latest = hlc_from_ms(self.clock.now_ms())
        for index in range(len(stamps) - 1, -1, -1):
            stamps[index] = min(stamps[index], latest)
            latest = stamps[index] - 1
        return stamps

    def _is_written_by_another(self, admission: Admission) -> bool:
        """Tell whether a peer had changes of our actor that we did not write."""
        return self.actor in admission.forks or any(
            isinstance(row, Batch) and row.header.actor == self.actor
            for _, row in admission.stored
        )

    def position_of(self, actor: ActorId, seq: int) -> int | None:
        """Return the log position of the batch that holds a change, once it does."""
        actor, seq = self.own.written_as(actor, seq)
        head = self.keeper.heads.get(actor)
        if head is None or head.seq < seq:
            return None
        rows = self.keeper.store.read(
            "SELECT position FROM _sync_log WHERE ns = ? AND actor = ? AND kind = 0 "
            "AND first_seq <= ? AND last_seq >= ?",
            self.ns,
            actor,
            seq,
            seq,
        )
        return rows[0][0] if rows else None

    # --- sealing and writing ------------------------------------------------------

    def flush(self) -> Flush:
        """Return the commit after which all that is here now is on disk."""
        if self.is_cleared:
            raise Closed("this namespace was taken out of the file")
        self.end_typing()
        return self.writer.flush(self)

    @property
    def all_on_disk(self) -> bool:
        """Whether everything that memory shows is committed."""
        self.end_typing()
        return not (self._committing or self.writer.is_waited_for(self))

    def ready_to_collect(self) -> bool:
        return not self.turn.locked()

    def collect(self, writes: Writes) -> _Group:
        """Add all that changed since the last time to `writes`."""
        self.end_typing()
        ns = self.ns
        if self._clear_first:
            for statement in sql.CLEAR_DERIVED:
                writes.clear(statement, ns)
            if self.documents.projection is not None:
                self.documents.projection.clear(writes, ns)
            self._clear_first = False
        leads = self.leadership.leading is not None
        followed = bool(self.channels or self.feeds)
        if self._seal_due or leads or (followed and not self.in_flight):
            self._seal(writes)
        self.outbox.collect(writes)
        if (followed or leads) and self.outbox:
            self._seal_later()
        self.leadership.collect(writes)
        for statements, params in self._also:
            for statement in statements:
                writes.add(statement, *params)
        self._also.clear()
        self.keeper.collect(writes, self.clock.now_ms())
        group = self.documents.collect(writes)
        for actor in sorted(self._changed_actors):
            state = self.delivery.applied[actor]
            seen = values.encode(sorted(state.seen.items()))
            own = self.own.heads.get(actor)
            writes.add(sql.PUT_ACTOR, ns, actor, state.seq, state.hlc, seen, own)
        self._changed_actors.clear()
        for void in self._voids:
            writes.add(sql.PUT_VOID, ns, *void)
        self._voids.clear()
        for operation, author, seq in self._operations:
            writes.add(sql.PUT_OPERATION, ns, operation, author, seq)
        self._operations_writing, self._operations = self._operations, []
        self._shown_writing, self.shown = self.shown, []
        self.origins.collect(writes)
        writes.add(
            sql.SET_NAMESPACE,
            self.keeper.position,
            self.actor,
            self.next_seq,
            self.clock.last,
            self.grant,
            ns,
        )
        self._committing = True
        return _Group(group, self.keeper.position)

    def committed(self, token: _Group) -> None:
        self._committing = False
        self._operations_writing.clear()
        self._shown_writing.clear()
        self._settled.set()
        self.keeper.committed()
        self.leadership.committed()
        # Until now the file showed what there was before a rebuild.
        self.documents.fresh = self._clear_first
        self.documents.written(token.documents)
        if token.position > self.committed_position:
            self.committed_position = token.position
            self.log_grew.set()
            self.audit.changed()
        self.progress.set()

    committed_position = 0
    _seen_ms = 0

    def failed(self, error: Exception) -> None:
        """Forget what is not on disk, and everything that rested on it."""
        self._committing = False
        self._settled.set()
        self._also.clear()  # who asked for it is told
        self.generation += 1
        for shown in (*self._shown_writing, *self.shown):
            if (view := shown()) is not None:
                view.close()
        self.load()
        # Not at once: a disk that is full now will be in a moment.
        self.apply_soon(limits.STORE_RETRY_SECONDS)
        for tell in self.on_reloaded:
            tell()
        if self.channels and self.outbox:
            self._seal_later(limits.STORE_RETRY_SECONDS)

    def _seal_later(self, delay: float = limits.SEAL_DELAY_SECONDS) -> None:
        """Seal what waits, when the acknowledgement does not come first."""
        if self._seal_timer is None and not self._seal_due:
            loop = asyncio.get_running_loop()
            self._seal_timer = loop.call_later(delay, self.seal_now)

    def seal_now(self, *, ahead: bool = False) -> None:
        """Seal what is in the outbox with the next commit; `ahead` of a link, too."""
        if self._seal_timer is not None:
            self._seal_timer.cancel()
            self._seal_timer = None
        leads = self.leadership.leading is not None
        if (self.channels or self.feeds or leads or ahead) and self.outbox:
            self._seal_due = True
            self.writer.flush(self)

    def _seal(self, writes: Writes) -> None:
        """Make batches of own changes, within what one commit should hold."""
        self._seal_due = False
        grant = self._sealing_grant
        if self.actor is None or grant is None:
            return
        self._changed_actors.add(self.actor)
        changes = self.outbox.unsealed(self.actor)
        if not changes:
            return
        left = changes
        total = 0
        leads = self.leadership.sealing(self.actor) is not None
        while left and total < SEAL_BYTES_MAX:
            group, left = cut(left)
            if not leads:  # each write of a leader has its index
                group = coalesce(group)
            total += len(self._seal_one(self.actor, group, grant).payload)
        self.outbox.sealed(changes[: len(changes) - len(left)], writes)
        self.leadership.fence(writes)

    def opened(self, channel: Told) -> None:
        self.channels.append(channel)
        self.seal_now()
        self.audit.changed()

    def closed(self, channel: Told) -> None:
        self.channels.remove(channel)

    def hear_state(self, message: StateDigest, source: Told) -> None:
        self.audit.hear(message)

    def hear_notice(self, message: Notice, source: Told) -> None:
        self.notices.hear(message, source)

    @property
    def _sealing_grant(self) -> EntryId | None:
        """The grant under which peers take our batches; without one, or before it is
        known where it comes from, what is written waits in the outbox."""
        membership = self.keeper.membership
        grant = membership.grants.get(self.grant or EntryId(b""))
        if membership.genesis is None or grant is None or not grant.ops & Ops.WRITE:
            return None
        return self.grant

    def pending_count(self) -> int:
        """How many own changes no batch holds yet."""
        self.end_typing()
        return len(self.outbox)

    @property
    def is_sealed(self) -> bool:
        """Whether all own changes that may leave are in batches."""
        return not (self._sealing_grant and self.pending_count())


def _changes_in(batch: Batch) -> int:
    return len(decode_spine(batch.header, split_payload(batch.payload)))
