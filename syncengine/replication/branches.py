"""Branches: changes that this device keeps to itself until they are merged.

A branch stands on a version of its namespace. What is done in it is made by an actor of
its own, which has seen that version and itself; merged, those changes go into the log
as they are, and take effect as anybody's do who was away: there is no other merge.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import ref

from syncengine import values
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import InvalidOperation, Operation, length
from syncengine.documents import model
from syncengine.documents.comparing import Difference, differences
from syncengine.documents.fields import Map
from syncengine.documents.model import Document
from syncengine.documents.versions import NO_VERSION, Version, encode_version
from syncengine.documents.view import View
from syncengine.errors import (
    AlreadyExists,
    Invalid,
    NotFound,
    Refused,
    SyncError,
    TransactionOpen,
)
from syncengine.ids import ActorId, DocumentId, document_id, parse_document_id
from syncengine.log.change import Change, decode_change
from syncengine.protocol.codes import Code
from syncengine.replication.body import BodyWatch
from syncengine.replication.draft import Draft, Mark
from syncengine.replication.past import Index, replay_at_once
from syncengine.replication.transaction import Receipt, Transaction
from syncengine.replication.writer import Writer
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

if TYPE_CHECKING:
    from syncengine.replication.namespace import Namespace
    from syncengine.replication.space import Space

T = TypeVar("T")
D = TypeVar("D", bound=Document)
Other = TypeVar("Other")
_MISSING: Any = object()

# A branch's name is a key in a table and a word on the command line.
NAME_MAX = 64


class Trunk:
    """What a branch is made of, as a transaction needs it: the documents of its base
    with what was done since; and as a source of commits."""

    def __init__(self, engine: "Namespace", writer: Writer, index: Index, name: str):
        self._engine = engine
        self._index = index
        self.writer = writer
        self.name = name
        self.turn = asyncio.Lock()
        self.owner: asyncio.Task[Any] | None = None
        self.body = BodyWatch()
        self.key = engine.key
        self.keeper = engine.keeper
        self.progress = engine.progress
        self.generation = 0
        self.draft: Draft | None = None
        self.shown: list[ref[View]] = []
        self._shown_writing: list[ref[View]] = []
        self._committing = False
        self._open: dict[DocumentId, State] = {}
        self._new: list[tuple[int, bytes]] = []
        self._is_new = False
        self.changes: list[Change] = []
        self.actor: ActorId | None = None
        self.base: Version = NO_VERSION
        self.over: str | None = None
        """What became of it, when it is no more"""

    async def take_turn(self) -> None:
        await self.turn.acquire()

    # --- on disk ------------------------------------------------------------------

    @property
    def _key(self) -> tuple[int, str]:
        return self._engine.ns, self.name

    def load(self) -> bool:
        """Read what is on disk; tell whether there is such a branch."""
        store = self.keeper.store
        rows = store.read(
            "SELECT actor, base FROM _sync_branch WHERE ns = ? AND name = ?",
            *self._key,
        )
        if not rows:
            return False
        ((actor, base),) = rows
        self.actor = ActorId(actor)
        self.base = {ActorId(a): seq for a, seq in values.decode(base)}
        stored = store.read(
            "SELECT change FROM _sync_branch_change WHERE ns = ? AND name = ? "
            "ORDER BY seq",
            *self._key,
        )
        self.changes = [decode_change(self.actor, raw) for (raw,) in stored]
        return True

    def begin_at(self, version: Version) -> None:
        """Be a new branch, that stands on a version."""
        self.actor = ActorId(self._engine.entropy.bytes(16))
        self.base, self._is_new = version, True

    def ready_to_collect(self) -> bool:
        return not self.turn.locked()

    def collect(self, writes: Writes) -> None:
        if self._is_new:
            for statement in sql.DROP_BRANCH:
                writes.add(statement, *self._key)
            base = values.encode(sorted(self.base.items()))
            writes.add(sql.PUT_BRANCH, *self._key, self.actor, base)
            self._is_new = False
        for seq, encoded in self._new:
            writes.add(sql.PUT_BRANCH_CHANGE, *self._key, seq, encoded)
        self._new.clear()
        self._shown_writing, self.shown = self.shown, []
        self._committing = True

    def committed(self, token: None) -> None:
        self._committing = False
        self._shown_writing.clear()

    def failed(self, error: Exception) -> None:
        """Forget what is not on disk, and everything that rested on it."""
        self._committing = self._is_new = False
        self.generation += 1
        for shown in (*self._shown_writing, *self.shown):
            if (view := shown()) is not None:
                view.close()
        self.shown.clear()
        self._new.clear()
        self._open.clear()
        self.load()

    @property
    def all_on_disk(self) -> bool:
        return not (self._committing or self.writer.is_waited_for(self))

    # --- documents ----------------------------------------------------------------

    @property
    def next_seq(self) -> int:
        return self.changes[-1].end + 1 if self.changes else 1

    @property
    def version(self) -> Version:
        assert self.actor is not None
        return {**self.base, self.actor: self.next_seq - 1}

    def id_of(self, path: str) -> DocumentId:
        return parse_document_id(path)

    def get(self, name: DocumentId) -> State:
        """Return a document as it is here. The first time it reads the document's
        history up to the base."""
        document = self._open.get(name)
        if document is None:
            document = self.at_base(name)
            for change in self.changes:
                self._do_again(document, change)
            self._open[name] = document
        return document

    def at_base(self, name: DocumentId) -> State:
        """Return a document as the base has it."""
        version = self.base
        document = self._index.stored(name, version)
        if document is not None:
            return document
        document = self._index.empty(name)
        steps = self._index.steps(name, lambda lane, _: version.get(lane, 0))
        replay_at_once(document, steps)
        return document

    def _do_again(self, document: State, change: Change) -> None:
        seq, seen = change.seq, dict(self.base)
        for touch in change.touches:
            for op in touch.ops if touch.document == document.name else ():
                seen[change.actor] = seq - 1
                try:
                    document.apply(op, (change.hlc, change.actor, seq), seen)
                except InvalidOperation:
                    return  # what it stood on turned out to be void
                seq += length(op)
            if touch.document != document.name:
                seq += touch.n

    # --- writing ------------------------------------------------------------------

    def begin(self) -> Draft:
        assert self.actor is not None
        hlc = self._engine.clock.tick()
        self.draft = Draft(self.generation, self.actor, hlc, self.next_seq)
        return self.draft

    def draft_document(self, draft: Draft, name: DocumentId) -> State:
        self._check(draft)
        return draft.document(self, name)

    def emit(self, draft: Draft, document: State, op: Operation) -> int:
        self._check(draft)
        return draft.emit(document, op)

    def _check(self, draft: Draft) -> None:
        if draft.generation != self.generation:
            raise SyncError("a disk write failed; what this builds upon is gone")

    def abandon(self, draft: Draft) -> None:
        self.draft = None
        if draft.generation == self.generation:
            draft.take_back()

    def back_to(self, draft: Draft, mark: Mark) -> None:
        if draft.generation == self.generation:
            draft.back_to(mark)

    def finish(self, draft: Draft, operation_id: str | None) -> Change | None:
        self.draft = None
        self._check(draft)
        changed = draft.end()
        if not changed:
            return None
        try:
            change, encoded = draft.change(changed, [], operation_id)
        except SyncError:
            self.abandon(draft)
            raise
        self.changes.append(change)
        self._new.append((change.seq, encoded))
        return change

    def show(self, views: Iterable[View]) -> None:
        self.shown += map(ref, views)

    def hidden(self, names: Iterable[DocumentId]) -> AbstractContextManager[None]:
        """Show documents without the open transaction; never await inside."""
        if self.draft is None or self.draft.generation != self.generation:
            return contextlib.nullcontext()
        return self.draft.hidden(names)

    def done_by(self, operation_id: str) -> tuple[ActorId, int] | None:
        for change in self.changes:
            if change.meta.operation_id == operation_id:
                return change.actor, change.seq
        return self._engine.done_by(operation_id)

    def position_of(self, actor: ActorId, seq: int) -> int | None:
        return None  # on no peer, until it is merged


class Branch:
    """Documents as they would be: edited here, seen by nobody else, merged or not.

    `space.fork("draft")` gives one. It is kept in the file until it is merged or
    discarded. What others write meanwhile does not show here.
    """

    def __init__(self, space: "Space", trunk: Trunk):
        self._space = space
        self.engine = trunk
        self.name = trunk.name

    def __repr__(self) -> str:
        return f"<Branch {self.name} of {self._space!r}>"

    # --- what a transaction asks --------------------------------------------------

    def check_usable(self) -> None:
        self._space.check_usable()
        self._check_not_over()

    def check_may_write(self, document: DocumentId | None = None) -> None:
        self._check_not_over()  # it may have ended while somebody waited for the turn
        self._space.check_may_write(document)

    def _check_not_over(self) -> None:
        if self.engine.over is not None:
            raise NotFound(f"the branch {self.name} was {self.engine.over}")

    def check_leaves(self) -> None:
        raise Invalid("what is in a branch is on other devices when it is merged")

    def collection_of(self, kind: Any) -> str:
        return self._space.collection_of(kind)

    def is_pending(self, document: State) -> bool:
        """Whether something was done to a document here."""
        return self.engine.actor in document.touches

    def transaction(
        self, operation_id: str | None = None, *, wait: bool = True
    ) -> Transaction:
        """Return a transaction on the documents of the branch, as
        `space.transaction` does."""
        return Transaction(self, operation_id, wait)

    # --- reading ------------------------------------------------------------------

    @property
    def base(self) -> str:
        """The version that the branch stands on, as `space.at` takes it."""
        self.check_usable()
        return encode_version(self.engine.base)

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
        """Return a snapshot of a document as it is here; as `space.get` does."""
        self.check_usable()
        if isinstance(kind, str):
            name = parse_document_id(kind)
        else:
            name = document_id(self.collection_of(kind), id)
        trunk = self.engine
        with trunk.hidden([name]):
            document = trunk.get(name)
            if not document.visible:
                if default is not _MISSING:
                    return default
                raise NotFound(f"there is no {name} in {self.name}")
            pending = self.is_pending(document)
            view = View(document, None, pending=pending, version=trunk.version)
        return model.untyped(view) if isinstance(kind, str) else model.typed(kind, view)

    def documents(self) -> list[str]:
        """Return what was written to in the branch: `collection/id`, in order."""
        self.check_usable()
        touched = {t.document for c in self.engine.changes for t in c.touches}
        return sorted(touched)

    async def diff(self, kind: Any, id: str | None = None) -> list[Difference]:
        """Return what was done to a document in the branch: its differences from the
        base. `space.diff` compares any two snapshots."""
        self.check_usable()
        if not isinstance(kind, str):
            kind = document_id(self.collection_of(kind), id or "")
        name = parse_document_id(kind)
        base = self.engine.at_base(name)
        with self.engine.hidden([name]):
            now = self.engine.get(name)
            before = View(base, None) if base.visible else None
            after = View(now, None) if now.visible else None
            return differences(before, after)

    # --- going on -----------------------------------------------------------------

    async def merge(self) -> Receipt:
        """Put what was done here into the namespace, change by change, as done by one
        who had not seen what came since; the branch is no more.

        As a whole or not at all; on this disk when this returns. Cursors and nodes that
        were made here have other names then. Raises `Refused` where this device cannot
        sign, `Invalid` where one leads: what is merged would not be in its log.
        Cancelled, it happens all the same.
        """
        trunk, engine = self.engine, self._space.engine
        self._space.check_may_write()
        async with await self._ending():
            self.check_usable()
            if trunk.changes:
                await self._space.index.ready()
                publishing = engine.publish(trunk.changes, trunk.base, self._drop)
                author: ActorId | None = await self._end("merged", publishing)
                last = trunk.changes[-1].seq
            else:
                await self._end("merged", engine.also(self._drop))
                author, last = None, 0
        return Receipt(self._space, author, last, None)

    async def discard(self) -> None:
        """Forget the branch and all that was done in it. Cancelled, it happens all the
        same."""
        async with await self._ending():
            self.check_usable()
            await self._end("discarded", self._space.engine.also(self._drop))

    @property
    def _drop(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return sql.DROP_BRANCH, (self._space.engine.ns, self.name)

    async def _ending(self) -> asyncio.Lock:
        """Return the turn under which the branch may end: all of it is on disk."""
        self.check_usable()
        self._space.check_outside()
        trunk = self.engine
        if trunk.owner is not None and trunk.owner is asyncio.current_task():
            raise TransactionOpen("end the transaction's block first")
        while trunk.turn.locked() or not trunk.all_on_disk:
            async with trunk.turn:
                pass
            await trunk.writer.flush(trunk)
        return trunk.turn

    async def _end(self, how: str, doing: Coroutine[Any, Any, T]) -> T:
        """End the branch for all who hold it, unless that fails."""
        trunk = self.engine
        trunk.over = how
        done = asyncio.ensure_future(doing)

        def ended(done: "asyncio.Future[T]") -> None:
            if done.cancelled() or done.exception() is not None:
                trunk.over = None
            else:
                self._space.trunks.pop(self.name, None)

        done.add_done_callback(ended)
        return await asyncio.shield(done)


async def fork(space: "Space", name: str) -> Branch:
    """Begin a branch at what a namespace has now."""
    check_name(name)
    if name in space.trunks or name in names(space):
        raise AlreadyExists(f"there is a branch {name}; space.branch opens it")
    trunk = space.trunks[name] = _trunk(space, name)
    trunk.over = "not begun"
    try:
        trunk.begin_at(await _version(space))
        await trunk.writer.flush(trunk)
    except BaseException:
        del space.trunks[name]
        raise
    trunk.over = None
    return Branch(space, trunk)


async def reopen(space: "Space", name: str) -> Branch:
    """Return a branch that is kept in the file; raises `NotFound`."""
    await space.index.ready()
    trunk = space.trunks.get(name)
    if trunk is None:
        trunk = _trunk(space, name)
        if not trunk.load():
            raise NotFound(f"there is no branch {name}")
        space.trunks[name] = trunk
    return Branch(space, trunk)


def names(space: "Space") -> list[str]:
    rows = space.engine.keeper.store.read(
        "SELECT name FROM _sync_branch WHERE ns = ? ORDER BY name", space.engine.ns
    )
    return [name for (name,) in rows]


def check_name(name: str) -> None:
    if not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise Invalid(
            f"a branch is named by 1 to {NAME_MAX} characters", bound=NAME_MAX
        )


def _trunk(space: "Space", name: str) -> Trunk:
    engine = space.engine
    return Trunk(engine, engine.writer, space.index, name)


async def _version(space: "Space") -> Version:
    """Return what a namespace has now, all of it in the log; raises `Refused`."""
    await space.index.ready()
    engine = space.engine
    if engine.is_sealed and engine.pending_count():  # none of it may leave
        raise Refused(
            Code.NOT_GRANTED,
            "what was written here is not signed yet: connect this device first",
            retry="after_action",
        )
    version = dict(engine.version)
    head = engine.keeper.heads.get(engine.actor) if engine.actor else None
    if engine.actor is not None:
        # What was written while this waited is not signed yet: it has no name.
        version.pop(engine.actor, None)
        if head is not None:
            version[engine.actor] = head.seq
    await space.index.ready()  # what came in meanwhile is in the version
    return version
