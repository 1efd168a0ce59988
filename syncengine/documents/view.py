"""One document as somebody sees it: a draft while its transaction is open, after
that a snapshot that never changes.

A snapshot copies nothing when it is made. Before a container changes, the document
offers it to the snapshots that are still alive (`capture`), and those keep the old
one; a snapshot that nobody holds any more costs nothing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from syncengine import limits, values
from syncengine.crdt import marks, multivalue
from syncengine.crdt.counter import parts as counter_parts
from syncengine.crdt.counter import value as counter_value
from syncengine.crdt.document import (
    CounterState,
    Document,
    MapState,
    MultiState,
    SetState,
    State,
)
from syncengine.crdt.list import ListState
from syncengine.crdt.marks import Span
from syncengine.crdt.operation import (
    Action,
    ContainerId,
    Operation,
    Type,
    reference,
)
from syncengine.crdt.register import EMPTY, Entry, Slot
from syncengine.crdt.sequence.buffer import pieces
from syncengine.crdt.text import TextState
from syncengine.crdt.tree import Place, TreeState, walk
from syncengine.documents.lenses import SCHEMA
from syncengine.documents.versions import NO_VERSION, Version
from syncengine.errors import FrozenDocument, Invalid, TooLarge, TransactionClosed
from syncengine.ids import ActorId, OpId, node_id

_MAKING = frozenset({Action.MAKE, Action.LIST_MAKE, Action.LIST_PUT})


Spot = tuple[list[OpId], int]
"""(the newest events of a version of a text, position of a character there)"""


class Unmade(NamedTuple):
    """The container at a key of a map, which may not be made yet."""

    above: "ContainerId | Unmade"
    key: str
    type: int


Name = ContainerId | Unmade

# No operation has this name: it finds nothing.
_NOWHERE: OpId = (ActorId(bytes(16)), 0)


class Transaction(Protocol):
    """What a draft writes through."""

    @property
    def actor(self) -> ActorId: ...

    def emit(self, document: Document, *ops: Operation) -> int:
        """Write operations that belong together; return the first one's seq."""
        ...

    def types(self, document: Document, op: Operation) -> bool:
        """Write an operation that goes on with typing; tell whether it does."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """Make what is written inside happen as a whole or not at all."""
        ...


class FrozenList:
    """The order and slots of a list at one moment."""

    def __init__(self, state: ListState):
        self._elements = list(state.elements())
        self.shown_length = len(self._elements)
        self.slots = dict(state.slots)

    def elements(self) -> list[OpId]:
        return self._elements

    def element_at(self, index: int) -> OpId:
        return self._elements[index]


class FrozenTree:
    """A tree at one moment."""

    def __init__(self, state: TreeState):
        self._places, self._children = state.frozen()

    def children(self, parent: OpId | None = None) -> list[OpId]:
        return self._children.get(parent, [])

    def place(self, node: OpId) -> Place | None:
        return self._places.get(node)

    def nodes(self) -> Iterator[tuple[OpId, OpId | None]]:
        return walk(self._children)

    def deleted(self) -> list[OpId]:
        return sorted(n for n, place in self._places.items() if place.slot is None)


class FrozenText:
    """The chunks of a text at one moment; joined when somebody reads it."""

    def __init__(self, state: TextState):
        self.live = state
        self.version = state.version
        self.shown_length = state.shown_length
        self.buffer = state.buffer.copy()
        self._marks = dict(state.marks) if state.marks else {}
        self._text: str | None = None

    def __str__(self) -> str:
        if self._text is None:
            self._text = str(self.buffer)
        return self._text

    def spans(self) -> list[Span]:
        return marks.spans(pieces(self.buffer.chunks()), self._marks)


def _frozen(state: State) -> Any:
    if isinstance(state, MapState):
        frozen = MapState()
        frozen.slots = dict(state.slots)
        return frozen
    if isinstance(state, CounterState):
        counted = CounterState()
        counted.subtotals = dict(state.subtotals)
        return counted
    if isinstance(state, SetState):
        elements = SetState()
        elements.dots = dict(state.dots)
        return elements
    if isinstance(state, MultiState):
        several = MultiState()
        several.slot = dict(state.slot)
        return several
    if isinstance(state, TreeState):
        return FrozenTree(state)
    return FrozenList(state) if isinstance(state, ListState) else FrozenText(state)


class View:
    """A document seen through one transaction, or frozen at one moment."""

    __slots__ = (
        "__weakref__",
        "_captured",
        "_closed",
        "_exists",
        "_newest",
        "_since",
        "document",
        "pending",
        "refusal",
        "tx",
        "version",
    )

    def __init__(
        self,
        document: Document,
        tx: Transaction | None,
        *,
        pending: bool = False,
        version: Version = NO_VERSION,
    ):
        self.document = document
        self._captured: dict[ContainerId, Any] = {}
        self._closed = False
        self._since = 1
        self.refusal: str | None = None
        """Why this program must not write to it, though it can read it"""
        self.version = version
        if tx is None:
            self.freeze(pending=pending, version=version)
        else:
            self.tx: Transaction | None = tx
            self.pending = pending

    # --- life ---------------------------------------------------------------------

    def freeze(self, *, pending: bool, version: Version) -> None:
        """From now on this is a snapshot of the document at a version."""
        self.tx = None
        self.version = version
        self.pending = pending
        self._exists = self.document.visible
        self._newest = self.document.newest
        self.document.add_viewer(self)

    def close(self) -> None:
        """The transaction failed: what this shows never happened."""
        self._closed = True

    def capture(self, container: ContainerId) -> None:
        """Keep `container` as it is: it is about to change."""
        if self.tx is None and container not in self._captured:
            self._captured[container] = _frozen(self.document.loaded(container))

    def copy(self) -> None:
        """Keep all of it as it is: whoever holds this may be in another thread."""
        self.read_all()
        for container in self.document.containers():
            self.capture(container)

    def read_all(self) -> None:
        """Have all that is shown in memory: the store is about to change."""
        if not self._closed:
            self.plain(None, Type.MAP)

    @property
    def exists(self) -> bool:
        """Whether the document is there for a reader."""
        if self._closed:
            self._check_open()
        return self.document.visible if self.tx is not None else self._exists

    @property
    def newest(self) -> int:
        """The stamp of the newest change that is shown; 0: none."""
        if self._closed:
            self._check_open()
        return self.document.newest if self.tx is not None else self._newest

    def _check_open(self) -> None:
        if self._closed:
            raise TransactionClosed(
                f"the transaction that made this draft of {self.document.name} failed; "
                "read the document again"
            )

    # --- reading ------------------------------------------------------------------

    def state(self, container: Name, type_: int) -> Any:
        """Return a container's state, live or as captured; None: never made."""
        if self._closed:
            self._check_open()
        container = self.found(container)
        if self._captured and (captured := self._captured.get(container)) is not None:
            return captured
        return self.document.state(container, type_)

    def found(self, container: Name) -> ContainerId:
        """Return the container that shows where one may have to be made."""
        if not isinstance(container, Unmade):
            return container
        for entry in self.slot(container.above, container.key)[:1]:
            if entry.type == container.type:
                return entry.container
        return _NOWHERE

    def made(self, container: Name) -> ContainerId:
        """Return a container, made if it was not."""
        if not isinstance(container, Unmade):
            return container
        found = self.found(container)
        if found != _NOWHERE:
            return found
        above = self.made(container.above)
        seq = self.emit(Action.MAKE, above, container.key, container.type)
        return (self.writable().actor, seq)

    def slot(self, container: Name, key: str) -> Slot:
        """Return a key's slot in a map; empty when nothing shows there."""
        state = self.state(container, Type.MAP)
        return EMPTY if state is None else state.slots.get(key, EMPTY)

    def keys(self, container: Name) -> list[str]:
        """Return the keys that a map shows."""
        if not self.shows(container):
            return []
        state = self.state(container, Type.MAP)
        return [] if state is None else list(state.slots)

    def shows(self, container: Name) -> bool:
        """Whether a container is visible: not deleted, nor another type's turn."""
        container = self.found(container)
        if container is None:
            return self.exists
        if not isinstance(container[0], str):
            return True
        if not self.exists:
            return False
        slot = self.slot(None, container[0])
        return bool(slot) and slot[0].container == container

    def text(self, container: Name) -> str:
        if not self.shows(container):
            return ""
        state = self.state(container, Type.TEXT)
        return "" if state is None else str(state)

    def text_length(self, container: Name) -> int:
        if not self.shows(container):
            return 0
        state = self.state(container, Type.TEXT)
        return 0 if state is None else state.shown_length

    def text_slice(self, container: Name, start: int, stop: int) -> str:
        if not self.shows(container):
            return ""
        state = self.state(container, Type.TEXT)
        return "" if state is None else state.buffer.between(start, stop)

    def spans(self, container: Name) -> list[Span]:
        """Return a text with its marks."""
        if not self.shows(container):
            return []
        state = self.state(container, Type.TEXT)
        spans: list[Span] = [] if state is None else state.spans()
        return [
            Span(text, {name: values.own_copy(value) for name, value in marks.items()})
            for text, marks in spans
        ]

    def cursor(self, container: Name, index: int) -> Spot:
        """Return (the version that is shown, the position there of the character at
        `index`), by which it is found again."""
        state = self.state(container, Type.TEXT)
        live = state.live if isinstance(state, FrozenText) else state
        at, anchors = state.buffer.gap(index)
        pos = live.position_at(at + len(anchors), state.version)
        return live.ids(state.version.heads), pos

    def follow(self, container: Name, spot: Spot) -> tuple[int, bool] | None:
        """Return at which index the character of a cursor is, or would be, and whether
        it is shown; None when this replica does not know it."""
        state = self.state(container, Type.TEXT) if self.shows(container) else None
        if state is None:
            return None
        live = state.live if isinstance(state, FrozenText) else state
        found = live.follow(*spot, state.version)
        return None if found is None else (state.buffer.index(found[0]), found[1])

    def number(self, container: Name) -> int | float:
        if not self.shows(container):
            return 0
        state = self.state(container, Type.COUNTER)
        return 0 if state is None else counter_value(state.subtotals)

    def elements(self, container: Name) -> dict[bytes, Any]:
        if not self.shows(container):
            return {}
        state = self.state(container, Type.SET)
        return {} if state is None else state.dots

    def several(self, container: Name) -> list[Any]:
        """Return what a multi-value register shows, the latest first."""
        if not self.shows(container):
            return []
        state = self.state(container, Type.MULTI)
        if state is None:
            return []
        return values.own_copy(multivalue.shown(state.slot.get(None, EMPTY)))  # type: ignore[no-any-return]  # a list

    def entries(self, container: Name) -> list[Entry]:
        """Return what each element of a list shows."""
        if not self.shows(container):
            return []
        state = self.state(container, Type.LIST)
        if state is None:
            return []
        return [state.slots[name][0] for name in state.elements()]

    def entry_at(self, container: Name, index: int) -> Entry:
        """Return what an element of a list shows; the index is within it."""
        state = self.state(container, Type.LIST)
        return state.slots[state.element_at(index)][0]  # type: ignore[no-any-return]  # an entry

    def list_length(self, container: Name) -> int:
        if not self.shows(container):
            return 0
        state = self.state(container, Type.LIST)
        return 0 if state is None else state.shown_length

    def tree(self, container: Name) -> "TreeState | FrozenTree | None":
        """Return a tree that shows."""
        if not self.shows(container):
            return None
        return self.state(container, Type.TREE)  # type: ignore[no-any-return]  # a tree

    def plain(self, container: Name, type_: int) -> Any:
        """Return what a container shows as plain data."""
        match type_:
            case Type.MAP:
                return {
                    key: self.plain_entry(self.slot(container, key)[0])
                    for key in self.keys(container)
                }
            case Type.COUNTER:
                return self.number(container)
            case Type.SET:
                return [values.decode(e) for e in sorted(self.elements(container))]
            case Type.MULTI:
                return self.several(container)
            case Type.LIST:
                return [self.plain_entry(entry) for entry in self.entries(container)]
            case Type.TREE:
                tree = self.tree(container)
                return [
                    {
                        "id": node_id(node),
                        "parent": None if parent is None else node_id(parent),
                        "value": self.plain(node, Type.MAP),
                    }
                    for node, parent in (tree.nodes() if tree else ())
                ]
            case _:
                return self.text(container)

    def plain_entry(self, entry: Entry) -> Any:
        if entry.type:
            return self.plain(entry.container, entry.type)
        return values.own_copy(entry.value)

    # --- writing ------------------------------------------------------------------

    def writable(self) -> Transaction:
        """Return the open transaction; raises the error that says what to do."""
        if self._closed:
            self._check_open()
        if self.tx is None:
            raise FrozenDocument(self.document.name)
        if self.document.needs_upgrade:
            raise Invalid(
                "was written by a newer version and is read-only here; update first",
                path=self.document.name,
            )
        if self.refusal is not None:
            raise Invalid(self.refusal, path=self.document.name)
        return self.tx

    def understand(self, kind: str, version: int, since: int) -> None:
        """Read it as a version of a class does, whose writes are for those from `since`
        on."""
        needed = self._schema()
        if needed > version:
            self.refusal = (
                f"was written for version {needed} of {kind} and this is {version}, so "
                "it is read-only here; update first"
            )
        self._since = max(self._since, since)

    def _schema(self) -> int:
        """Return which version of its class may write a document."""
        slot = self.slot(None, SCHEMA) if self.exists else ()
        said = [entry.value for entry in slot]
        return max((one for one in said if type(one) is int), default=1)

    def emit(self, action: int, container: Name, *rest: Any) -> int:
        """Write one operation in `container`."""
        tx = self.writable()
        if self._since > 1:
            since, self._since = self._since, 1
            if self._schema() < since:
                self.uncover(None)
                self._raw(Action.SET, None, SCHEMA, since)
        container = self.made(container)
        if action in _MAKING and self.document.depth(container) >= limits.DEPTH_MAX:
            raise TooLarge(
                f"nested deeper than {limits.DEPTH_MAX}",
                path=self.path(container),
                bound=limits.DEPTH_MAX,
            )
        self.uncover(container)
        # What is written is not the caller's own, who may go on editing it.
        return tx.emit(
            self.document,
            [int(action), reference(container, tx.actor), *map(values.own_copy, rest)],
        )

    def types(self, action: int, container: Name, index: int, what: Any) -> bool:
        """Write an edit of a text that goes on with the one before: nothing is between
        them, so all there was to check was checked. Tell whether it does."""
        run = self.document.run
        if run is None or run.container != container or self.tx is None:
            return False
        if self._closed or self._since > 1 or self.refusal is not None:
            return False
        return self.tx.types(self.document, [action, run.field, index, what])

    def author_position(self, container: Name, type_: int, pos: int, n: int = 0) -> int:
        """Return how an operation names the place before what is shown at `pos`, or
        with n = 1 the element there."""
        self.writable()
        found = self.found(container)
        if found != _NOWHERE:
            self.uncover(found)  # what is hidden is not counted
        state = self.state(container, type_)
        return pos if state is None else state.author_ranges(pos, n)[0][0]

    def delete_elements(self, container: Name, type_: int, pos: int, n: int) -> None:
        """Delete `n` shown elements, or code points, from `pos` on."""
        tx = self.writable()
        state = self.state(container, type_)
        action = Action.TEXT_DELETE if type_ == Type.TEXT else Action.LIST_DELETE
        ranges = state.author_ranges(pos, n)
        if len(ranges) == 1:
            self.emit(action, container, *ranges[0])
            return
        with tx.whole():
            for at, count in ranges:
                self.emit(action, container, at, count)

    def splice_text(self, container: Name, index: int, n: int, text: str) -> None:
        """Delete `n` > 0 shown characters and insert `text` in their place, both or
        nothing."""
        tx = self.writable()
        state = self.state(container, Type.TEXT)
        ranges = state.author_ranges(index, n)
        if self._since > 1 or ranges != [(index, n)] or isinstance(container, Unmade):
            with tx.whole():
                self.delete_elements(container, Type.TEXT, index, n)
                at = self.author_position(container, Type.TEXT, index)
                self.emit(Action.TEXT_INSERT, container, at, text)
            return
        raw = reference(container, tx.actor)
        delete = [int(Action.TEXT_DELETE), raw, index, n]
        tx.emit(self.document, delete, [int(Action.TEXT_INSERT), raw, index, text])

    def uncover(self, container: ContainerId) -> None:
        """Empty what a delete had hidden, before it is written to again.

        A delete erases nothing, so that a concurrent edit can bring all of it back;
        one who writes here after the delete means to begin anew.
        """
        if not self.document.visible:
            root = self.document.root.slots
            with self.writable().whole():
                for key in list(root):
                    for entry in root[key]:
                        if entry.type:
                            self._empty(entry.container, entry.type)
                    self._raw(Action.DELETE, None, key)
                self._raw(Action.TOUCH)
        if container is not None and isinstance(container[0], str):
            field, type_ = container
            slot = self.document.root.slots.get(str(field), EMPTY)
            if all(entry.container != container for entry in slot):
                self._empty(container, type_)

    def _empty(self, container: ContainerId, type_: int) -> None:
        state = self.document.state(container, type_)
        actor = self.writable().actor
        if isinstance(state, MapState):
            for key in list(state.slots):
                self._raw(Action.DELETE, container, key)
        elif isinstance(state, CounterState):
            for part in counter_parts(-counter_value(state.subtotals)):
                self._raw(Action.INCREMENT, container, part)
        elif isinstance(state, SetState):
            for element in list(state.dots):
                self._raw(Action.REMOVE, container, values.decode(element))
        elif isinstance(state, MultiState):
            if state.slot:
                self._raw(Action.MULTI_SET, container, [])
        elif isinstance(state, ListState) and state.shown_length:
            for at, count in state.author_ranges(0, state.shown_length):
                self._raw(Action.LIST_DELETE, container, at, count)
        elif isinstance(state, TreeState):
            for node in list(state.children()):
                self._raw(Action.TREE_MOVE, container, reference(node, actor), 0)
        elif isinstance(state, TextState):
            for at, count in state.all_ranges():
                self._raw(Action.TEXT_DELETE, container, at, count)

    def _raw(self, action: int, *rest: Any) -> None:
        tx = self.writable()
        if rest:
            rest = (reference(rest[0], tx.actor), *rest[1:])
        tx.emit(self.document, [int(action), *rest])

    def path(self, container: Name, key: str | None = None) -> str:
        if not isinstance(container, Unmade):
            return self.document.path(container, key)
        path = f"{self.path(container.above)}/{values.escape(container.key)}"
        return path if key is None else f"{path}/{values.escape(key)}"


class Uncovered(View):
    """A document with what does not show in it: deleted, or another type's turn."""

    __slots__ = ()

    def shows(self, container: Name) -> bool:
        return True
