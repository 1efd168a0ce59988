"""A document that an editor shows: edited at once, patched at once."""

import contextlib
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from syncengine.crdt import marks
from syncengine.crdt.document import Document as State
from syncengine.crdt.marks import MarkRange, Span
from syncengine.crdt.operation import Action, ContainerId, Operation, Type, length
from syncengine.crdt.sequence.difference import difference
from syncengine.crdt.sequence.state import Edit, Sequence
from syncengine.documents import model
from syncengine.documents.fields import List
from syncengine.documents.model import Document
from syncengine.documents.text import Text
from syncengine.documents.view import View
from syncengine.errors import Invalid, NotFound, TransactionOpen
from syncengine.ids import ActorId, document_id
from syncengine.replication.draft import Draft

# Bound views share protected parts: an underscore keeps a user's field names free.
# pyright: reportPrivateUsage=false

if TYPE_CHECKING:
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

D = TypeVar("D", bound=Document)

# What is typed without a pause is a change at the latest with so many elements: far
# below what a change may hold.
TYPING_MAX = 4096


@dataclass
class _Shown:
    """What an editor shows of one field."""

    container: ContainerId
    type: int
    edits: list[Any]
    """What was spliced or marked since the listeners were told"""
    listeners: list[Callable[[list[Any]], Any]]
    visible: bool


class Live(Generic[D]):
    """A document that an editor shows: edited at once, patched at once.

    `doc` is always what the replica shows now. An edit takes effect before its call
    returns; changes from elsewhere are told in the same turn of the event loop, so
    that no keystroke comes between a change and its patch. Leaving the block waits
    until all edits are on disk; if the disk fails before, what is shown goes back,
    by a patch, to what it holds.
    """

    def __init__(self, space: "Space", kind: Any, id: str):
        self._space = space
        self._kind = kind
        self._name = document_id(space.collection_of(kind), id)
        self._fields: dict[ContainerId, _Shown] = {}
        self._draft: Draft | None = None
        self._typed: Draft | None = None
        self._view: View
        self.doc: D

    async def __aenter__(self) -> "Live[D]":
        self._space.check_usable()
        engine = self._space.engine
        async with engine.turn:
            document = engine.documents.find(self._name)
            if document is None or not document.visible:
                raise NotFound(f"there is no {self._name}")
            self._view = View(document, self)
            document.add_viewer(self._view)
            self.doc = model.typed(self._kind, self._view)
            engine.edited[self._name] = engine.edited.get(self._name, 0) + 1
            engine.on_changed.append(self._changed)
            engine.on_reloaded.append(self._reloaded)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        engine = self._space.engine
        engine.on_changed.remove(self._changed)
        engine.edited[self._name] -= 1
        if not engine.edited[self._name]:
            del engine.edited[self._name]
        engine.on_reloaded.remove(self._reloaded)
        for shown in self._fields.values():
            if (state := self._sequence(shown)) is not None:
                state.unwatch(shown.edits)
        on_disk = engine.flush()
        pending = self._space.is_pending(self._view.document)
        self._view.freeze(pending=pending, version=engine.version)
        await on_disk

    # --- editing ------------------------------------------------------------------

    @property
    def actor(self) -> ActorId:
        actor = self._space.engine.actor
        assert actor is not None, "a namespace that may be written to has an actor"
        return actor

    def emit(self, document: State, *ops: Operation) -> int:
        """Make an edit a change of its own, at what is shown now. Typing of one turn of
        the loop is one change."""
        engine = self._space.engine
        if self._draft is None and all(map(_is_typing, ops)):
            draft = self._typing_draft()
            seqs = [engine.emit(draft, document, op) for op in ops]
            if draft.n > TYPING_MAX or engine.edited[self._name] > 1:
                engine.end_typing()  # another editor of it is told before it goes on
            return seqs[0]
        with self.whole():
            assert self._draft is not None
            seqs = [engine.emit(self._draft, document, op) for op in ops]
            return seqs[0]

    def types(self, document: State, op: Operation) -> bool:
        draft = self._typed
        if draft is None or draft.generation != self._space.engine.generation:
            return False
        return draft.types(document, op)

    def _typing_draft(self) -> Draft:
        engine = self._space.engine
        draft = self._typed
        if draft is None or draft.generation != engine.generation:
            self._check()
            draft = engine.begin_typing(self._name, self._end_typing)
            self._typed = draft
        return draft

    def _end_typing(self) -> None:
        engine = self._space.engine
        draft, self._typed = self._typed, None
        if draft is None or draft.generation != engine.generation:
            return  # a write failed: what is shown went back
        self._draft = draft
        try:
            engine.finish(draft, None)
        finally:
            self._draft = None
        engine.writer.flush(engine)

    def _check(self) -> None:
        """Raise unless an edit may be made now."""
        space, engine = self._space, self._space.engine
        space.check_usable()
        space.check_may_write(self._name)
        if engine.turn.locked() and not engine.is_between_changes:
            raise TransactionOpen(
                "a transaction of this namespace is open across an `await`; an "
                "editor's edits need it to end first"
            )

    @contextlib.contextmanager
    def whole(self) -> Generator[None, None, None]:
        """Make what is edited inside one change."""
        if self._draft is not None:
            yield
            return
        engine = self._space.engine
        self._check()
        draft = self._draft = engine.begin()
        try:
            state = engine.draft_document(draft, self._name)
            assert state is self._view.document, "what is held stays in memory"
            yield
            engine.finish(draft, None)
        except BaseException:
            engine.abandon(draft)
            raise
        finally:
            self._draft = None
        engine.writer.flush(engine)

    # --- telling ------------------------------------------------------------------

    def on_patch(
        self,
        field: "str | Text | List[Any]",
        listener: Callable[[list[Edit | MarkRange]], Any],
    ) -> None:
        """Call `listener` with what was done elsewhere to a Text or List: a field by
        its name, or one inside, as `live.doc.rows[0].body`. Splices
        `(pos, deleted, inserted)` in order; in a text that has marks, `MarkRange`s too,
        each of the text as it is at that step. What is inserted bears no mark until
        told. What the listener raises is logged, and harms nobody.
        """
        container, type_ = self._sequence_named(field)
        shown = self._fields.get(container)
        if shown is None:
            shown = _Shown(container, type_, [], [], True)
            self._watch(shown)
            self._fields[container] = shown
        shown.listeners.append(listener)

    def _sequence_named(self, field: Any) -> tuple[ContainerId, int]:
        """Return which container is meant, and its type; raises `Invalid`."""
        if isinstance(field, Text | List) and field._view is self._view:
            container = self._view.found(field._container)
            if self._view.document.state(container, field._type) is not None:
                return container, field._type
            raise Invalid("nothing was written there yet", path=self._name)
        declared = self._kind._fields.get(field) if isinstance(field, str) else None
        if declared is None or declared.type not in (Type.TEXT, Type.LIST):
            raise Invalid(f"{field!r} is no Text or List of it", path=self._name)
        return declared.container, declared.type

    def _sequence(self, shown: _Shown) -> Sequence | None:
        """Return what is shown; None: it is not there any more."""
        state = self._view.document.state(shown.container, shown.type)
        return state if isinstance(state, Sequence) else None

    def _watch(self, shown: _Shown) -> None:
        state = self._sequence(shown)
        shown.edits = [] if state is None else state.watch()
        shown.visible = state is not None and self._view.document.shows(shown.container)

    def _content(self, shown: _Shown) -> Any:
        """Return what a reader sees of a field: str, or a list of values."""
        if shown.type == Type.TEXT:
            return self._view.text(shown.container)
        return [entry.value for entry in self._view.entries(shown.container)]

    def _spans(self, shown: _Shown) -> list[Span]:
        is_text = shown.type == Type.TEXT
        return self._view.spans(shown.container) if is_text else []

    def _changed(self, document: State) -> None:
        if document is not self._view.document:
            return
        for shown in self._fields.values():
            edits, shown.edits[:] = list(shown.edits), []
            was = shown.visible
            shown.visible = self._view.document.shows(shown.container)
            state = self._sequence(shown)
            if state is None:
                continue  # it went with what a disk did not take
            if was and not shown.visible:
                # It went as a whole, with a deleted document say.
                length = getattr(state, "shown_length", state.length)
                splices = [edit for edit in edits if isinstance(edit, Edit)]
                gone = length - sum(len(e.inserted) - e.deleted for e in splices)
                edits = [Edit(0, gone, "" if shown.type == Type.TEXT else [])]
            elif shown.visible and not was:
                edits = [Edit(0, 0, self._content(shown))]
                edits += marks.ranges(self._spans(shown))
            elif not shown.visible:
                edits = []
            if self._draft is None:
                self._tell(shown, edits)

    def _reloaded(self) -> None:
        before = [
            (self._content(shown), self._spans(shown))
            for shown in self._fields.values()
        ]
        document = self._space.engine.documents.get(self._name)
        self._view.document = document
        document.add_viewer(self._view)
        for shown, (old, spans) in zip(self._fields.values(), before, strict=True):
            self._watch(shown)
            edit = Edit(*difference(old, self._content(shown)))
            edits: list[Any] = [edit] if edit.deleted or edit.inserted else []
            if shown.type == Type.TEXT:
                spans = marks.spliced(spans, *edit)
                edits += marks.changes(spans, self._spans(shown))
            self._tell(shown, edits)

    def _tell(self, shown: _Shown, edits: list[Any]) -> None:
        for listener in shown.listeners if edits else ():
            try:
                listener(edits)
            except Exception:
                log.exception("a listener of %s failed", self._name)


def _is_typing(op: Operation) -> bool:
    """Whether an operation is one of text, and so small that it is refused by no bound
    of a change."""
    return op[0] in (Action.TEXT_INSERT, Action.TEXT_DELETE) and (
        length(op) <= TYPING_MAX
    )
