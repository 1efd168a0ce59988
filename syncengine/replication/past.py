"""Documents as they were: the log, read again for one of them.

For that the log is indexed: which rows touch a document, and how what authors had seen
grew. The index is continued when somebody asks for the past, so that writing pays
nothing for it; from then on the past of a document costs what its own history is.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from syncengine import values
from syncengine.clock import ms_from_hlc
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import (
    InvalidOperation,
    Operation,
    UnknownOperation,
    first_part,
    length,
)
from syncengine.documents import model
from syncengine.documents.fields import Map
from syncengine.documents.model import Document
from syncengine.documents.versions import Version, decode_version, is_version
from syncengine.documents.view import View
from syncengine.errors import Invalid, NotFound
from syncengine.ids import (
    ActorId,
    BatchId,
    DocumentId,
    OpId,
    document_id,
    node_id,
    parse_document_id,
    parse_node_id,
)
from syncengine.log.batch import (
    Batch,
    ChangeHead,
    Parts,
    UndecodableBatch,
    decode_spine,
    split_payload,
)
from syncengine.log.change import Dep
from syncengine.log.run import Row
from syncengine.replication.host import sealed
from syncengine.replication.pace import Pace
from syncengine.replication.writer import Writer
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

if TYPE_CHECKING:
    from syncengine.replication.namespace import Namespace
    from syncengine.replication.space import Space

D = TypeVar("D", bound=Document)
Other = TypeVar("Other")
_MISSING: Any = object()

# Rows of the log that are indexed in one commit: some milliseconds of the loop.
INDEX_ROWS = 100

# Under this name the index has what undid and redid; a document's has a slash.
UNDOS = "undo"

# Operations that are done again between two pauses.
REPLAY_OPERATIONS = 1_024

Includes = Callable[[ActorId, ChangeHead], int]
"""Returns up to which seq a change counts: none, all of it, or, where typing of one
second was sealed as one change, a part."""


@dataclass(slots=True)
class Step:
    """What one change did to one document."""

    actor: ActorId
    """Its author, or the branch of one who forked"""
    head: ChangeHead
    touches: list[tuple[int, list[Operation]]]
    """(seq of the first operation, operations)"""
    is_void: bool
    seen: dict[ActorId, int]
    """What its author had seen"""
    author: ActorId


class Index:
    """The index of one namespace's log, as a source of commits."""

    def __init__(self, engine: "Namespace", writer: Writer):
        self._engine = engine
        self._writer = writer
        rows = engine.keeper.store.read(
            "SELECT position FROM _sync_past WHERE ns = ? AND name = ''", engine.ns
        )
        self._done: int = rows[0][0] if rows else 0

    async def ready(self) -> None:
        """Put all that is here now into the log and the index. Safe to cancel."""
        engine = self._engine
        await sealed(engine)
        until = engine.committed_position
        while self._done < until:
            await self._writer.flush(self)

    def ready_to_collect(self) -> bool:
        return True

    def collect(self, writes: Writes) -> int:
        engine, done = self._engine, self._done
        keeper, ns = engine.keeper, engine.ns
        for position, row in keeper.rows_after(done, INDEX_ROWS):
            if position > engine.committed_position:
                break
            done = position
            if not isinstance(row, Batch):
                continue
            payload = split_payload(row.payload)
            for name, _ in payload.parts:
                writes.add(sql.PUT_PAST, ns, name, position)
            for head in heads_of(row):
                if is_undo(head):
                    writes.add(sql.PUT_PAST, ns, UNDOS, position)
                if head.deps:
                    deps = values.encode([list(dep) for dep in head.deps])
                    actor = row.header.actor
                    writes.add(sql.PUT_SEEN, ns, actor, head.seq, position, deps)
        if done > self._done:
            writes.clear(sql.DROP_PAST, ns)
            writes.add(sql.PUT_PAST, ns, "", done)
        return done

    def committed(self, token: int) -> None:
        self._done = token

    def failed(self, error: Exception) -> None:
        """Nothing is lost: it is made anew by who asks next."""

    # --- reading ------------------------------------------------------------------

    def positions(self, name: str) -> list[int]:
        """Return the rows of the log that touch a document, in order; or, with a name
        that ends in "/", one of a collection."""
        store, ns = self._engine.keeper.store, self._engine.ns
        if name.endswith("/"):
            rows = store.read(
                "SELECT DISTINCT position FROM _sync_past WHERE ns = ? "
                "AND name > ? AND name < ? ORDER BY position",
                *(ns, name, name + "\U0010ffff"),
            )
        else:
            rows = store.read(
                "SELECT position FROM _sync_past WHERE ns = ? AND name = ? "
                "ORDER BY position",
                *(ns, name),
            )
        return [position for (position,) in rows]

    def row_at(self, position: int) -> Row:
        """Return one row of the log."""
        return self._engine.keeper.rows_after(position - 1, 1)[0][1]

    def seen_at(self, actor: ActorId, seq: int) -> dict[ActorId, int]:
        """Return what the author of a change had seen when making it, by the name of
        any of its operations: its own earlier ones too."""
        batches = self._engine.keeper.batches_at(actor, seq)
        if not batches:
            raise NotFound(f"there is no change {node_id((actor, seq))} here")
        heads = [head for head in heads_of(batches[0]) if head.seq <= seq <= head.end]
        first = heads[0].seq if heads else batches[0].header.first_seq
        seen: dict[ActorId, int] = {}
        for _, grown in self._grown(actor, actor):
            seen.update((a, s) for at, a, s in grown if at <= first)
        return {**seen, actor: first - 1}

    def end_of(self, actor: ActorId, seq: int) -> int:
        """Return the last seq of the change that holds one."""
        for batch in self._engine.keeper.batches_at(actor, seq):
            for head in heads_of(batch):
                if head.seq <= seq <= head.end:
                    return head.end
        raise NotFound(f"there is no change {node_id((actor, seq))} here")

    def _grown(
        self, lane: ActorId, author: ActorId
    ) -> list[tuple[int, list[tuple[int, ActorId, int]]]]:
        """Return (seq of a change, [(that seq, actor, up to which seq of it was new)])
        of all changes of an author's lane that had seen something new."""
        keeper, ns = self._engine.keeper, self._engine.ns
        found: list[tuple[int, list[tuple[int, ActorId, int]]]] = []
        for seq, position, raw in keeper.store.read(
            "SELECT seq, position, deps FROM _sync_seen WHERE ns = ? AND actor = ? "
            "ORDER BY seq",
            *(ns, author),
        ):
            if author in keeper.forks and seq >= keeper.forks[author]:
                row = self.row_at(position)
                if isinstance(row, Batch) and keeper.branch_of(row) != lane:
                    continue
            grown: list[tuple[int, ActorId, int]] = []
            for actor, to, hash16 in values.decode(raw):
                dep = Dep(ActorId(actor), to, hash16)
                on = keeper.branch(dep.actor, dep.seq, dep.hash16)
                if on is not None:
                    grown.append((seq, on, to))
            found.append((seq, grown))
        return found

    def empty(self, name: DocumentId) -> State:
        """Return a document in which nothing was done yet."""
        document = State(name)
        shown = self._engine.documents.find(name)
        if shown is not None:
            document.preferred = shown.shown_seeds()
        return document

    def stored(self, name: DocumentId, version: Version) -> State | None:
        """Return a document of a version that knows all that was done to it: as the
        file has it, without its history. None: it has to be done again."""
        engine = self._engine
        is_known = self._done == engine.committed_position  # all of it is indexed
        if not (version and is_known and engine.all_on_disk) or engine.pending_count():
            return None
        ends: list[Any] = engine.keeper.store.read(sql.PAST_ENDS, engine.ns, name)
        applied = engine.version
        if not ends or any(
            min(version.get(actor, 0), applied.get(actor, 0)) < end
            or actor in engine.keeper.forks
            for actor, end in ends
        ):
            return None  # or some is held back, and does not show yet
        document = engine.documents.copy(name)
        return None if document is None or document.needs_upgrade else document

    def steps(self, name: DocumentId, includes: Includes) -> list[Step]:
        """Return what was done to a document, in an order in which it can be done
        again: each change behind what its author had seen."""
        lanes: dict[ActorId, list[Step]] = {}
        authors: dict[ActorId, ActorId] = {}
        voids = self.voids()
        for position in self.positions(name):
            row = self.row_at(position)
            if not isinstance(row, Batch):
                continue
            lane = self._engine.keeper.branch_of(row)
            authors[lane] = row.header.actor
            parts = Parts(split_payload(row.payload))
            for head in heads_of(row):
                until = includes(lane, head)
                if until >= head.seq:
                    touches = _touches(parts, head, name, until)
                    void = (row.header.actor, head.seq, row.id) in voids
                    if touches:
                        author = row.header.actor
                        step = Step(lane, head, touches, void, {}, author)
                        lanes.setdefault(lane, []).append(step)
        for lane, steps in lanes.items():
            steps.sort(key=lambda step: step.head.seq)
            self._see(lane, authors[lane], steps)
        return _in_causal_order(lanes)

    def voids(self) -> dict[tuple[ActorId, int, BatchId], str]:
        """Return (author, seq, batch) of the changes without effect, and why."""
        rows = self._engine.keeper.store.read(
            "SELECT actor, seq, batch, reason FROM _sync_void WHERE ns = ?",
            self._engine.ns,
        )
        return {
            (ActorId(actor), seq, BatchId(batch)): reason
            for actor, seq, batch, reason in rows
        }

    def _see(self, lane: ActorId, author: ActorId, steps: list[Step]) -> None:
        seen: dict[ActorId, int] = {}
        if lane != author:
            seen[author] = self._engine.keeper.forks[author] - 1
        waiting = self._grown(lane, author)[::-1]
        for step in steps:
            while waiting and waiting[-1][0] <= step.head.seq:
                _, grown = waiting.pop()
                seen = {**seen, **{actor: seq for _, actor, seq in grown}}
            step.seen = seen


def is_undo(head: ChangeHead) -> bool:
    """Whether a change says that it undid or redid others."""
    return (head.meta.operation_id or "").startswith(("undo ", "redo "))


def heads_of(batch: Batch) -> list[ChangeHead]:
    """Return the changes of a batch, without what they did."""
    try:
        return decode_spine(batch.header, split_payload(batch.payload))
    except UndecodableBatch:
        return []  # nobody can say what it would have done


def _touches(
    parts: Parts, head: ChangeHead, name: DocumentId, until: int
) -> list[tuple[int, list[Operation]]]:
    try:
        touches = parts.touches(head)
    except ValueError:
        return []
    found: list[tuple[int, list[Operation]]] = []
    seq = head.seq
    for touch in touches:
        if touch.document == name:
            ops = touch.ops
            if until < seq + touch.n - 1:
                ops = _up_to(ops, until - seq + 1)
            found.append((seq, ops))
        seq += touch.n
    return found


def _up_to(ops: list[Operation], n: int) -> list[Operation]:
    """Return the first operations, those of `n` seqs."""
    found: list[Operation] = []
    for op in ops:
        try:
            own = length(op)
        except InvalidOperation:
            break
        if own > n:
            part = first_part(op, n)
            return [*found, part] if part else found
        found.append(op)
        n -= own
    return found


def _in_causal_order(lanes: Mapping[ActorId, list[Step]]) -> list[Step]:
    done: list[Step] = []
    at = dict.fromkeys(lanes, 0)
    waiting = sorted(lanes)
    while waiting:
        moved = False
        for lane in list(waiting):
            steps = lanes[lane]
            while at[lane] < len(steps):
                step = steps[at[lane]]
                if any(
                    at[other] < len(lanes[other])
                    and lanes[other][at[other]].head.end <= step.seen.get(other, 0)
                    for other in waiting
                    if other != lane
                ):
                    break
                done.append(step)
                at[lane] += 1
                moved = True
            else:
                waiting.remove(lane)
        assert moved or not waiting, "what an author had seen was made before"
    return done


async def replay(
    document: State,
    steps: list[Step],
    pace: Pace,
    without: AbstractSet[OpId] = frozenset(),
) -> None:
    """Do again what was done to a document, some changes as if they were void. Safe to
    cancel: it is nobody else's."""
    count = 0
    for step in steps:
        is_void = step.is_void or (step.actor, step.head.seq) in without
        for seq, ops in step.touches:
            _redo(document, step, seq, ops, is_void=is_void)
            count += len(ops)
        if count >= REPLAY_OPERATIONS:
            count = 0
            await pace.pause()


def replay_at_once(document: State, steps: list[Step]) -> None:
    """Do the same for somebody who cannot wait."""
    for step in steps:
        for seq, ops in step.touches:
            _redo(document, step, seq, ops, is_void=step.is_void)


def _redo(
    document: State, step: Step, seq: int, ops: list[Operation], *, is_void: bool
) -> None:
    """Let one touch have the effect that it had."""
    seen = dict(step.seen)
    hlc, actor = step.head.hlc, step.actor
    for op in ops:
        seen[actor] = seq - 1
        try:
            if is_void:
                document.apply_void(op, (hlc, actor, seq), seen)
            else:
                document.apply(op, (hlc, actor, seq), seen)
            seq += length(op)
        except InvalidOperation:
            return  # it was void here, too
        except UnknownOperation as error:
            raise Invalid(
                "its history was written by a newer version; update first",
                path=document.name,
            ) from error


def moment(index: Index, when: str | datetime) -> tuple[Includes, Version]:
    """Return what counts at a moment, and its version if it is one.

    A moment is a version, the id of a change (what its author saw, with it), or a time
    by the clocks of the authors. Raises `Invalid`, and `NotFound` for a change that is
    not here.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise Invalid("a moment has a time zone: datetime.now(UTC), say")
        until = int(when.astimezone(UTC).timestamp() * 1000)
        return lambda _, head: head.end if ms_from_hlc(head.hlc) <= until else 0, {}
    if not is_version(when):
        try:
            actor, seq = parse_node_id(when)
        except Invalid:
            raise Invalid(
                f"{when!r:.60} is no moment: space.version, snapshot.meta.version, the "
                "id of a change and a datetime are"
            ) from None
        version: Version = {
            **index.seen_at(actor, seq),
            actor: index.end_of(actor, seq),
        }
    else:
        version = decode_version(when)
    return lambda actor, _: version.get(actor, 0), version


class Past:
    """A namespace as it was at a moment; `await space.at(...)` gives it."""

    def __init__(self, space: "Space", index: Index, when: str | datetime):
        self._space = space
        self._index = index
        self._includes, self._version = moment(index, when)
        self._documents: dict[DocumentId, State] = {}

    @overload
    async def get(self, kind: str) -> Map[str, Any]: ...
    @overload
    async def get(self, kind: str, *, default: Other) -> Map[str, Any] | Other: ...
    @overload
    async def get(self, kind: Callable[..., D], id: str) -> D: ...
    @overload
    async def get(
        self, kind: Callable[..., D], id: str, default: Other
    ) -> D | Other: ...
    async def get(self, kind: Any, id: Any = None, default: Any = _MISSING) -> Any:
        """Return a snapshot of a document as it was; as `space.get` does.

        It reads the history of this one document. Raises `NotFound` without a
        default. Safe to cancel.
        """
        if isinstance(kind, str):
            name = parse_document_id(kind)
        else:
            name = document_id(self._space.collection_of(kind), id)
        document = await self._document(name)
        if not document.visible:
            if default is not _MISSING:
                return default
            raise NotFound(f"there was no {name}")
        view = View(document, None, version=self._version)
        return model.untyped(view) if isinstance(kind, str) else model.typed(kind, view)

    async def _document(self, name: DocumentId) -> State:
        document = self._documents.get(name)
        if document is None:
            document = self._index.stored(name, self._version)
        if document is None:
            document = self._index.empty(name)
            steps = self._index.steps(name, self._includes)
            await replay(document, steps, Pace())
        self._documents[name] = document
        return document
