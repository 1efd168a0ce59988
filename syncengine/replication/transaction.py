"""A transaction: drafts to edit, one atomic change when the block ends."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload
from weakref import ref

from syncengine import values
from syncengine.crdt.document import Document as State
from syncengine.crdt.list import ListState
from syncengine.crdt.operation import Action, Operation, Type
from syncengine.documents import exchange, model
from syncengine.documents.copies import copy_of, copy_of_plain
from syncengine.documents.fields import List, Map, Node, assign
from syncengine.documents.merging import merge
from syncengine.documents.model import Document
from syncengine.documents.versions import Version
from syncengine.documents.view import Uncovered, View
from syncengine.errors import (
    AlreadyExists,
    Invalid,
    NotFound,
    TransactionClosed,
    TransactionOpen,
)
from syncengine.ids import (
    ActorId,
    DocumentId,
    document_id,
    parse_device_id,
    parse_document_id,
)
from syncengine.log.change import Change
from syncengine.replication.body import BodyWatch
from syncengine.replication.draft import Draft, Mark
from syncengine.replication.history import LostValue, steps_of
from syncengine.replication.host import Signal
from syncengine.replication.keeper import Keeper
from syncengine.replication.writer import Flush, Writer
from syncengine.storage.store import Writes
from syncengine.trust.keys import PrivateKey

P = ParamSpec("P")
D = TypeVar("D", bound=Document)
Other = TypeVar("Other")

_MISSING: Any = object()


class Engine(Protocol):
    """What makes changes of drafts: a namespace, or a branch of one."""

    owner: "asyncio.Task[Any] | None"

    @property
    def turn(self) -> asyncio.Lock: ...
    @property
    def body(self) -> BodyWatch: ...
    @property
    def writer(self) -> Writer: ...
    @property
    def progress(self) -> Signal: ...
    @property
    def keeper(self) -> Keeper: ...
    @property
    def key(self) -> PrivateKey: ...
    @property
    def actor(self) -> ActorId | None: ...
    @property
    def next_seq(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def version(self) -> Version: ...
    @property
    def all_on_disk(self) -> bool: ...
    async def take_turn(self) -> None: ...
    def begin(self) -> Draft: ...
    def draft_document(self, draft: Draft, name: DocumentId) -> State: ...
    def emit(self, draft: Draft, document: State, op: Operation) -> int: ...
    def abandon(self, draft: Draft) -> None: ...
    def back_to(self, draft: Draft, mark: Mark) -> None: ...
    def finish(self, draft: Draft, operation_id: str | None) -> Change | None: ...
    def done_by(self, operation_id: str) -> tuple[ActorId, int] | None: ...
    def position_of(self, actor: ActorId, seq: int) -> int | None: ...
    def id_of(self, path: str) -> DocumentId: ...
    def show(self, views: Iterable[View]) -> None: ...
    def collect(self, writes: Writes) -> Any: ...
    def committed(self, token: Any) -> None: ...
    def failed(self, error: Exception) -> None: ...
    def ready_to_collect(self) -> bool: ...


class Home(Protocol):
    """Where a transaction is at home: a space, or a branch of one."""

    @property
    def engine(self) -> Engine: ...
    def check_usable(self) -> None: ...
    def check_may_write(self, document: DocumentId | None = None) -> None: ...
    def check_leaves(self) -> None:
        """Raise where what is written here goes to nobody."""
        ...

    def collection_of(self, kind: Any) -> str: ...
    def is_pending(self, document: State) -> bool: ...


class Receipt:
    """How far one change got: this disk, then a peer's.

    Awaiting it waits for this disk; `durable_on` for another's.
    """

    def __init__(
        self,
        space: Home,
        actor: ActorId | None,
        seq: int,
        on_disk: Flush | None,
    ):
        self._space = space
        self.seq = seq
        """The first operation of the change, in its author's count."""
        self.actor = actor
        """The author; after a restore the change goes on under another's name."""
        self._on_disk = on_disk

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> None:
        self._space.check_usable()
        if self._on_disk is not None:
            await self._on_disk

    @property
    def pending(self) -> bool:
        """Whether the change is still in the outbox: in no batch, on no peer."""
        return self._position() is None

    def _position(self) -> int | None:
        if not self.seq:
            return 0  # nothing was ever written: everybody has that
        assert self.actor is not None
        return self._space.engine.position_of(self.actor, self.seq)

    async def durable_on(self, peer: str = "hub") -> None:
        """Wait until the change is on a peer's disk too.

        `peer` is "hub" (a peer that is no member), "any", or a peer's id as
        `space.peers()` gives it. Waits for ever while offline: use
        `asyncio.timeout`. Raises `Invalid` for what is no peer. Safe to cancel.
        """
        self._space.check_leaves()
        await self._wait()
        engine = self._space.engine
        wanted = None if peer in ("hub", "any") else parse_device_id(peer)
        while True:
            position = self._position()
            if position is not None:
                members = set(engine.keeper.membership.actors.values())
                if any(
                    record.acked >= position
                    for device, record in engine.keeper.peers.items()
                    if device == wanted
                    or peer == "any"
                    or (peer == "hub" and device not in members)
                ):
                    return
            await engine.progress.wait()


class Transaction:
    """What `async with space.transaction() as tx` gives. Its methods never await."""

    def __init__(self, space: Home, operation_id: str | None, wait: bool):
        if operation_id is not None:
            values.check_name(operation_id, "operation_id")
        self._space = space
        self._engine = space.engine
        self._operation_id = operation_id
        self._wait = wait
        self._draft: Draft | None = None
        self._views: dict[DocumentId, View] = {}
        self._may_write: State | None = None
        self._receipt: Receipt | None = None
        self.repeated = False
        """Whether a transaction with this operation id was committed before: then
        this one has no effect, and what the first run made or deleted raises
        nothing. Known from the first line of the block on."""

    # --- the block ----------------------------------------------------------------

    async def __aenter__(self) -> "Transaction":
        self._space.check_usable()
        engine = self._engine
        task = asyncio.current_task()
        if engine.owner is not None and engine.owner is task:
            raise TransactionOpen(
                "a transaction of this namespace is open in this task already; use "
                "its `tx`, or end its block first"
            )
        await engine.take_turn()
        engine.owner = task
        try:
            self._space.check_may_write()
            if self._operation_id is not None:
                self._before = engine.done_by(self._operation_id)
                self.repeated = self._before is not None
            self._draft = engine.begin()
        except BaseException:
            self._release()
            raise
        # Not kept in a name: a frame that names itself is for the garbage collector.
        engine.body.began(sys._getframe())  # pyright: ignore[reportPrivateUsage]
        return self

    _before: tuple[ActorId, int] | None = None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        draft, self._draft = self._draft, None
        assert draft is not None
        engine = self._engine
        done = False
        try:
            if error is not None or self.repeated:
                engine.abandon(draft)
                if error is not None:
                    return
                made = self._before
            else:
                change = engine.finish(draft, self._operation_id)
                made = (change.actor, change.seq) if change else None
            done = True
        finally:
            for view in self._views.values():
                if done:
                    pending = self._space.is_pending(view.document)
                    view.freeze(pending=pending, version=engine.version)
                else:
                    view.close()
            self._release()
        if made is None:
            last = engine.next_seq - 1
            self._receipt = Receipt(self._space, engine.actor, last, None)
            return
        if self.repeated and engine.all_on_disk:
            self._receipt = Receipt(self._space, *made, None)
            return
        engine.show(self._views.values())
        on_disk = engine.writer.flush(engine)
        self._receipt = Receipt(self._space, *made, on_disk)
        if self._wait:
            await on_disk

    def _copy_shown(self) -> None:
        """Keep what is still held of the drafts for readers in another thread."""
        alive = [ref(view) for view in self._views.values()]
        self._views.clear()
        for held in alive:
            if (view := held()) is not None:
                view.copy()

    @property
    def receipt(self) -> Receipt:
        """How far the change got; there is one once the block has ended well."""
        if self._receipt is None:
            raise TransactionOpen("a transaction has its receipt when its block ends")
        return self._receipt

    def _release(self) -> None:
        self._engine.body.ended()
        self._engine.owner = None
        self._engine.turn.release()
        self._engine.writer.wake()

    # --- what drafts write through ------------------------------------------------

    @property
    def actor(self) -> ActorId:
        actor = self._engine.actor
        assert actor is not None, "a namespace that may be written to has an actor"
        return actor

    def emit(self, document: State, *ops: Operation) -> int:
        if self._draft is None:
            raise TransactionClosed("the transaction is over; begin another")
        if document is not self._may_write:
            self._space.check_may_write(document.name)
            self._may_write = document
        seqs = [self._engine.emit(self._draft, document, op) for op in ops]
        return seqs[0]

    def types(self, document: State, op: Operation) -> bool:
        draft = self._draft
        return (
            draft is not None
            and document is self._may_write
            and draft.generation == self._engine.generation
            and draft.types(document, op)
        )

    @contextlib.contextmanager
    def whole(self) -> Generator[None, None, None]:
        """Make what is done inside happen as a whole or not at all."""
        if self._draft is None:
            raise TransactionClosed("the transaction is over; begin another")
        mark = self._draft.mark()
        try:
            yield
        except BaseException:
            self._engine.back_to(self._draft, mark)
            raise

    def _view(self, name: DocumentId) -> View:
        if self._draft is None:
            raise TransactionClosed("the transaction is over; begin another")
        view = self._views.get(name)
        if view is None:
            document = self._engine.draft_document(self._draft, name)
            version = self._engine.version
            view = self._views[name] = View(document, self, version=version)
        return view

    # --- documents ----------------------------------------------------------------

    def create(
        self, kind: Callable[P, D], id: str, /, *args: P.args, **fields: P.kwargs
    ) -> D:
        """Return the draft of a new document; raises `AlreadyExists`, `Invalid`.

        Two devices may both create it while offline: that is one document then.
        """
        cls = _class(kind)
        if args:
            raise TypeError(f"{cls.__name__}'s fields are given by name")
        view = self._view(document_id(self._space.collection_of(cls), id))
        if not view.exists:
            with self.whole():
                model.create(cls, view, fields)
        elif not self.repeated:
            raise AlreadyExists(f"{view.document.name} exists; use tx.get to edit it")
        return model.typed(cls, view)  # type: ignore[return-value]  # `kind` makes D

    @overload
    def get(self, kind: Callable[..., D], id: str) -> D: ...
    @overload
    def get(self, kind: Callable[..., D], id: str, default: Other) -> D | Other: ...
    def get(self, kind: Any, id: str, default: Any = _MISSING) -> Any:
        """Return the draft of a document; raises `NotFound` without a default."""
        cls = _class(kind)
        view = self._view(document_id(self._space.collection_of(cls), id))
        if not view.exists:
            if default is not _MISSING:
                return default
            if not self.repeated:
                raise NotFound(f"there is no {view.document.name}; tx.create makes it")
        return model.typed(cls, view)

    def ensure(
        self, kind: Callable[P, D], id: str, /, *args: P.args, **fields: P.kwargs
    ) -> D:
        """Return the draft of a document, made of `fields` when there is none.

        Two devices that do this, even offline, have one document with its content
        once. Raises `Invalid`.
        """
        if args:
            raise TypeError(f"{_class(kind).__name__}'s fields are given by name")
        draft: Any = self._seed(_class(kind), id, "ensure", fields, update=False)
        return draft  # type: ignore[no-any-return]  # `kind` makes D

    @overload
    def seed(self, kind: str, /, *, key: str, **content: Any) -> Map[str, Any]: ...
    @overload
    def seed(
        self, kind: Callable[..., D], id: str, /, *, key: str, **content: Any
    ) -> D: ...
    def seed(
        self, kind: Any, id: str | None = None, /, *, key: str, **content: Any
    ) -> Any:
        """Bring content from a source, which `key` names, into a document once,
        however many devices do it; return the draft.

        `tx.seed(Note, "welcome", key="handbook", title="Welcome", body=Text...)`, or
        `tx.seed("notes/welcome", key=..., title="Welcome")`. Where that key's content
        is, this does nothing, whatever the source says now: from then on it is the
        document that counts. A document that is there without it is made to say the
        same, by edits where it differs. Raises `Invalid`.
        """
        if isinstance(kind, str):
            return self._seed(None, kind, key, content, update=True)
        return self._seed(_class(kind), id or "", key, content, update=True)

    def _seed(
        self,
        kind: type[Document] | None,
        id: str,
        key: str,
        content: dict[str, Any],
        *,
        update: bool,
    ) -> Any:
        if kind is None:
            view = self._view(parse_document_id(id))
        else:
            view = self._view(document_id(self._space.collection_of(kind), id))
        known = view.document.has_seed(key)
        if not view.exists and not known:
            ops = model.content_of(kind, view.document.name, content)
            view.emit(Action.SEED, None, key, ops)
        elif not view.exists and not update:
            # It was deleted since: one who ensures it wants it back.
            with self.whole():
                assert kind is not None
                model.create(kind, view, content)
        elif view.exists and update and not known:
            with self.whole():
                model.write_difference(kind, view, content)
        return model.untyped(view) if kind is None else model.typed(kind, view)

    def load(self, record: Mapping[str, Any]) -> Map[str, Any]:
        """Make a document what a record of `space.dump` says; return its draft.

        By edits where it differs. Raises `Invalid`.
        """
        given: Any = record
        path = record.get("path") if isinstance(given, Mapping) else None
        if not isinstance(path, str):
            raise Invalid('a record is {"path": ..., "value": {...}, "types": {...}}')
        view = self._view(parse_document_id(path))
        with self.whole():
            if not view.exists:
                view.emit(Action.TOUCH, None)
            exchange.load(view, record)
        return model.untyped(view)

    @overload
    def revert(self, snapshot: D) -> D: ...
    @overload
    def revert(self, snapshot: Map[str, Any]) -> Map[str, Any]: ...
    def revert(self, snapshot: Any) -> Any:
        """Make a document what a snapshot of it shows, by edits where it differs;
        return its draft. `tx.revert(await past.get(Note, "groceries"))`.

        What others do to it at the same time merges with that. Raises `Invalid`.
        """
        shown = model.view_of(snapshot)
        view = self._view(shown.document.name)
        with self.whole():
            if not view.exists:
                view.emit(Action.TOUCH, None)
            wanted = copy_of(shown, None, Type.MAP)
            assign(view, None, Type.MAP, wanted, view.document.name)
        if isinstance(snapshot, Map):
            return model.untyped(view)
        return model.typed(snapshot.__class__, view)

    def restore(self, lost: LostValue) -> None:
        """Write a value again that lost to a concurrent write: where it stood, over
        what shows there. Raises `NotFound` where there is no such place any more."""
        view = self._view(parse_document_id(steps_of(lost.path)[0]))
        document = view.document
        if lost.type:  # still here, with all it is
            value = copy_of(Uncovered(document, self), lost.container, lost.type)
        else:
            value = copy_of_plain(lost.value, lost.type)
        container, key = lost.place
        _, steps = steps_of(document.path(container, "it"))
        inside: Any = model.untyped(view)
        try:
            for step in steps[:-1]:
                inside = _inside(inside, step)
            if issubclass(inside.__class__, List):
                state = document.state(container, Type.LIST)
                assert isinstance(state, ListState)
                inside[list(state.elements()).index(key)] = value
            else:
                if lost.type and key in inside:
                    del inside[key]  # else it would be lost still, beside that
                inside[key] = value
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, Invalid):
                raise
            raise NotFound(f"there is no {lost.path} any more") from error

    @property
    def has_written(self) -> bool:
        """Whether anything was written in this block so far."""
        return self._draft is not None and bool(self._draft.touches)

    def merge(self, before: View, after: View, *, is_over: bool = False) -> None:
        """Do to a document what makes one of two snapshots of it of the other: see
        `documents.merging`."""
        actors = self._engine.keeper.membership.actors
        own = self._engine.key.public

        def is_own(actor: ActorId) -> bool:
            return actors.get(actor) == own

        with self.whole():
            view = self._view(before.document.name)
            merge(before, after, view, is_own, is_over=is_over)

    def delete(self, kind: Any, id: str | None = None) -> None:
        """Delete a document: `tx.delete(Note, "old")` or `tx.delete("notes/old")`.

        A concurrent edit that did not see this brings it back whole. Raises
        `NotFound`.
        """
        if isinstance(kind, str):
            name = parse_document_id(kind)
        else:
            if id is None:
                raise TypeError("a typed document is deleted by its class and its id")
            name = document_id(self._space.collection_of(_class(kind)), id)
        view = self._view(name)
        if not view.exists:
            if self.repeated:
                return
            raise NotFound(f"there is no {name}")
        view.writable()
        self.emit(view.document, [int(Action.DROP)])

    def __getitem__(self, path: str) -> Map[str, Any]:
        """Return a document as a map; it is made by its first write."""
        view = self._views.get(cast(DocumentId, path))
        return model.untyped(view or self._view(self._engine.id_of(path)))


def _inside(container: Any, step: str) -> Any:
    """Return what is at one step of a path: of a node, what it holds."""
    kind: type = container.__class__
    found: Any = container[int(step) if issubclass(kind, List) else step]
    kind = found.__class__
    return found.value if issubclass(kind, Node) else found


def _class(kind: Any) -> type[Document]:
    if not (isinstance(kind, type) and issubclass(kind, Document)):
        raise TypeError(f"expected a Document class, not {kind!r}")
    return kind
