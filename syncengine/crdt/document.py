"""A document: containers composed into a tree, and what operations do to it.

One path for all: local drafts and remote changes both come in through `apply`. What
an operation's author had seen decides what it replaces; `seen=None` means all that
is here (a local edit). State is kept in cells, one for each key, element or piece of
text, so that a small edit of a large document touches little.

Laws (`tests/syncengine/crdt/test_document.py`): any causal order of the same changes
leaves the same visible state; `undo` takes a change back without a trace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol
from weakref import ref

from syncengine import limits, values
from syncengine.crdt import counter, multivalue, register, seeds
from syncengine.crdt import set as add_wins
from syncengine.crdt.list import MOVED, ListState
from syncengine.crdt.marks import Expand, Mark
from syncengine.crdt.operation import (
    Action,
    ContainerId,
    InvalidOperation,
    Operation,
    Type,
    UnknownOperation,
    check_nestable,
    container_from_key,
    container_key,
    length,
    resolve,
)
from syncengine.crdt.register import EMPTY, Entry, Seen, Slot
from syncengine.crdt.seeds import Seed
from syncengine.crdt.sequence.oplog import BACK, DEL, FIRST, INS, LAST, SET
from syncengine.crdt.sequence.state import (
    HEADER,
    LATER,
    LOG,
    LOG_END,
    Cell,
    Sequence,
    Steps,
    Undo,
)
from syncengine.crdt.text import TextState
from syncengine.crdt.tree import TreeState
from syncengine.crdt.typing_run import Typing
from syncengine.errors import Invalid
from syncengine.ids import ActorId, DocumentId, OpId, Stamp, node_id

KEY, PARENT, COUNT, ELEMENT, VALUES, SEED = b"k", b"p", b"n", b"e", b"v", b"s"

# A set's element is an index key, like a map's key.
ELEMENT_BYTES_MAX = limits.KEY_BYTES_MAX


class MapState:
    """A map: a slot for each key."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}


class CounterState:
    """A counter: a subtotal for each actor."""

    def __init__(self) -> None:
        self.subtotals: dict[ActorId, tuple[int, float]] = {}


class SetState:
    """A set: dots for each element, by its canonical bytes."""

    def __init__(self) -> None:
        self.dots: dict[bytes, add_wins.Dots] = {}


class MultiState:
    """A multi-value register: its maximal writes, under the one key that there is."""

    def __init__(self) -> None:
        self.slot: dict[None, Slot] = {}


State = (
    MapState | CounterState | SetState | ListState | TextState | TreeState | MultiState
)

_STATES: dict[int, type[State]] = {
    Type.MAP: MapState,
    Type.COUNTER: CounterState,
    Type.SET: SetState,
    Type.LIST: ListState,
    Type.TEXT: TextState,
    Type.TREE: TreeState,
    Type.MULTI: MultiState,
}

Parent = tuple[ContainerId, str | OpId | None, int, int]
"""(container above, key there or element of a list, own type, depth); None: a node of a
tree, or in a list an element that was deleted before"""


_Step = tuple[ContainerId, Sequence, int, int, Any, Stamp, Seen]


class Cells(Protocol):
    """Where a document's stored cells are read from."""

    def read(
        self, container: bytes, start: bytes = b"", stop: bytes = b"\xff" * 8
    ) -> Iterable[tuple[bytes, bytes]]:
        """Yield (key, state) of the cells of `container` in [start, stop)."""
        ...


class Viewer(Protocol):
    """Somebody who shows the document as it was: told before a container changes."""

    def capture(self, container: ContainerId) -> None: ...

    def read_all(self) -> None:
        """Have all that is shown in memory."""
        ...


_TREE_MOVE = Action.TREE_MOVE

_POSITIONAL = frozenset(range(Action.TEXT_INSERT, Action.LIST_PUT + 1))


class Document:
    """The state of one document.

    Invariants: (1) a container that is not in `_states` is unchanged in `cells`;
    (2) every change since the last `take_cells` is named in `dirty`; (3) whatever
    changes is first offered to the viewers and remembered in `undo`.
    """

    def __init__(self, name: DocumentId, cells: Cells | None = None):
        self.name = name
        self._run: Typing | None = None
        self._touches: dict[ActorId, tuple[int, int]] = {}
        self.needs_upgrade = False
        self._dirty: set[tuple[ContainerId, Any]] = set()
        self._undo: Undo = None
        self._viewers: dict[int, ref[Viewer]] = {}
        self.conflicts: list[tuple[str, Entry | None, Entry]] | None = None
        """(where, what won, what lost) of concurrent writes; None won: a deletion"""
        self.seeds: dict[ActorId, Seed] = {}
        self._seeds_of: dict[str, tuple[ActorId, ...]] = {}
        self.preferred: dict[str, ActorId] = {}
        """Which seed of a key shows, where that is known from before."""
        self.is_reseeded = False
        """Whether another seed of a key shows than before: make the document anew."""
        self._cells = cells
        self._parents: dict[ContainerId, Parent] = {}
        self._root = MapState()
        self._states: dict[ContainerId, State] = {None: self._root}
        if cells is not None:
            self._load_root(cells.read(b""))

    # --- what is known of it, all typing included ------------------------------------

    @property
    def touches(self) -> dict[ActorId, tuple[int, int]]:
        """Who keeps the document alive: (seq, hlc) of the last operation of each."""
        self.settle()
        return self._touches

    @touches.setter
    def touches(self, touches: dict[ActorId, tuple[int, int]]) -> None:
        self.settle()
        self._touches = touches

    @property
    def dirty(self) -> set[tuple[ContainerId, Any]]:
        """(container, key) of what changed since `take_cells`."""
        self.settle()
        return self._dirty

    @property
    def root(self) -> MapState:
        """The map of the document's fields."""
        self.settle()
        return self._root

    @property
    def undo(self) -> Undo:
        """Where what takes a step back is left; None: nobody will take it back."""
        self.settle()
        return self._undo

    @undo.setter
    def undo(self, undo: Undo) -> None:
        self.settle()
        self._undo = undo

    @property
    def run(self) -> Typing | None:
        """Typing that goes on, whose effect is still to be given."""
        return self._run

    def settle(self) -> None:
        """Give typing its effect: somebody looks, or writes elsewhere."""
        run = self._run
        if run is not None:
            self._run = None
            stamp = run.settle(self._undo)
            self._dirty.add((run.container, None))
            self._touch(run.container, stamp)

    @property
    def visible(self) -> bool:
        """Whether the document exists for a reader."""
        return bool(self._touches)

    @property
    def newest(self) -> int:
        """The stamp of the newest change that is still visible; 0: none."""
        self.settle()
        touches = self._touches
        if len(touches) == 1:  # nearly always
            ((_, hlc),) = touches.values()
            return hlc
        return max((hlc for _, hlc in touches.values()), default=0)

    # --- applying -----------------------------------------------------------------

    def apply(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        """Give `op` its effect.

        Raises `InvalidOperation` when it can have none anywhere, `UnknownOperation`
        when a newer version is needed.
        """
        try:
            if seen is not None:
                self.settle()
                if self.seeds:
                    seen = seeds.Known(seen, self.seeds)
                if len(op) > 1:
                    _check_seen(op[1], stamp, seen)
            elif self._run is not None:
                if self._run.takes(op, stamp):
                    return
                self.settle()
            action = op[0]
            if action in _POSITIONAL:
                self._apply_positional(op, stamp, seen)
                return
            match action:
                case Action.SET:
                    self._apply_set(op, stamp, seen)
                case Action.TOUCH:
                    self._apply_touch(op, stamp, seen)
                case Action.MAKE:
                    self._apply_make(op, stamp, seen)
                case Action.DELETE:
                    self._apply_delete(op, stamp, seen)
                case Action.DROP:
                    self._apply_drop(op, stamp, seen)
                case Action.INCREMENT:
                    self._apply_increment(op, stamp, seen)
                case Action.ADD:
                    self._apply_add(op, stamp, seen)
                case Action.REMOVE:
                    self._apply_remove(op, stamp, seen)
                case Action.MULTI_SET:
                    self._apply_multi(op, stamp, seen)
                case Action.MOVE | Action.MARK:
                    self._apply_steps(op, stamp, seen)
                case Action.TREE_MOVE:
                    self._apply_tree(op, stamp, seen)
                case Action.SEED:
                    self._apply_seed(op, stamp)
                case int() if action > 0:
                    raise UnknownOperation(f"action {action}")
                case _:
                    raise InvalidOperation("an action is a number")
        except InvalidOperation:
            raise
        except Invalid as error:
            raise InvalidOperation(str(error)) from error
        except (TypeError, IndexError, KeyError, ValueError) as error:
            raise InvalidOperation(f"malformed operation: {error}") from error

    def apply_void(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        """Let the positions of a void `op` count.

        Raises `UnknownOperation` when a newer version would count.
        """
        self.settle()
        try:
            action = op[0]
            steps = _STEPS.get(action)
            if steps is None and action not in _POSITIONAL and action != _TREE_MOVE:
                return
            if seen is not None:
                if self.seeds:
                    seen = seeds.Known(seen, self.seeds)
                _check_seen(op[1], stamp, seen)
            if steps is not None:
                for container, moving, kind, pos, _, at, known in steps(
                    self, op, stamp, seen
                ):
                    moving.apply_void(kind, pos, 1, (at[1], at[2]), known)
                    self._dirty.add((container, None))
                return
            if action == Action.TREE_MOVE:
                container, tree, _, _, slot = self._planting(op, stamp, seen)
                if tree is not None and slot is not None:
                    tree.apply_void(INS, slot, 1, (stamp[1], stamp[2]), seen)
                    self._dirty.add((container, None))
                return
            found = self._positional(op, stamp, seen)
        except (TypeError, IndexError, KeyError, ValueError):
            return
        if found is None:
            return
        container, state, kind, pos, n, _ = found
        state.apply_void(kind, pos, n, (stamp[1], stamp[2]), seen)
        self._dirty.add((container, None))

    def _apply_set(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        _, raw, key, value, *_ = op
        values.check(value, "")
        hlc, actor, seq = stamp
        self._write(raw, key, Entry(hlc, actor, seq, value), Action.SET, stamp, seen)

    def _apply_make(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        _, raw, key, type_, *_ = op
        hlc, actor, seq = stamp
        check_nestable(type_)
        container = (actor, seq)
        touches = {actor: (seq, hlc)}
        entry = Entry(hlc, actor, seq, None, type_, container, touches)
        parent = self._write(raw, key, entry, Action.MAKE, stamp, seen)
        if parent is not _MISSING:
            self._found(container, (parent, key, type_, self.depth(parent) + 1))

    def _write(
        self, raw: Any, key: Any, entry: Entry, action: int, stamp: Stamp, seen: Seen
    ) -> Any:
        if raw is None:
            container: ContainerId = None
            state: State | None = self._root
        else:
            container = resolve(raw, action, stamp[1])
            state = self.state(container, Type.MAP)
        values.check_key(key, "")
        if state is None:
            return _MISSING
        assert isinstance(state, MapState)
        slot = register.write(state.slots.get(key, EMPTY), entry, seen)
        self._put_slot(container, state, key, slot)
        self._touch(container, stamp)
        return container

    def _apply_delete(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        _, raw, key, *_ = op
        container = resolve(raw, Action.DELETE, stamp[1])
        state = self.state(container, Type.MAP)
        values.check_key(key, "")
        if state is None:
            return
        assert isinstance(state, MapState)
        before = state.slots.get(key, EMPTY)
        self._put_slot(container, state, key, register.unseen(before, seen))
        self._touch(container, stamp)

    def _apply_touch(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        self._touch(None, stamp)

    def _apply_drop(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        left = {
            actor: touch
            for actor, touch in self._touches.items()
            if seen is not None and touch[0] > seen.get(actor, 0)
        }
        for actor in self._touches.keys() - left.keys():
            self._put(self._touches, actor, None)

    def _apply_increment(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        _, raw, amount, *_ = op
        container = resolve(raw, Action.INCREMENT, stamp[1])
        state = self.state(container, Type.COUNTER)
        if type(amount) not in (int, float):
            raise InvalidOperation("a counter counts in numbers")
        values.check(amount, "")
        if state is None:
            return
        assert isinstance(state, CounterState)
        self._changing(container)
        actor = stamp[1]
        subtotal = state.subtotals.get(actor, (0, 0.0))
        self._put(state.subtotals, actor, counter.increment(subtotal, amount))
        self._dirty.add((container, COUNT))
        self._touch(container, stamp)

    def _apply_add(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        self._apply_element(op, stamp, seen, added=True)

    def _apply_remove(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        self._apply_element(op, stamp, seen, added=False)

    def _apply_element(
        self, op: Operation, stamp: Stamp, seen: Seen, *, added: bool
    ) -> None:
        _, raw, value, *_ = op
        container = resolve(raw, op[0], stamp[1])
        state = self.state(container, Type.SET)
        element = element_key(value, "")
        if state is None:
            return
        assert isinstance(state, SetState)
        self._changing(container)
        dots = state.dots.get(element, {})
        if added:
            left = add_wins.add(dots, stamp[1], stamp[2], seen)
        else:
            left = add_wins.unseen(dots, seen)
        self._put(state.dots, element, left or None)
        self._dirty.add((container, ELEMENT + element))
        self._touch(container, stamp)

    def _apply_multi(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        _, raw, written, *_ = op
        container = resolve(raw, Action.MULTI_SET, stamp[1])
        state = self.state(container, Type.MULTI)
        if not values.is_list(written):
            raise InvalidOperation("several values are a list")
        for value in written:
            values.check(value, "")
        if state is None:
            return
        assert isinstance(state, MultiState)
        self._changing(container)
        entries = [Entry(*stamp, value) for value in written]
        slot = multivalue.write(state.slot.get(None, EMPTY), entries, seen)
        self._put(state.slot, None, slot or None)
        self._dirty.add((container, VALUES))
        self._touch(container, stamp)

    def _apply_steps(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        for container, state, kind, pos, content, at, known in _STEPS[op[0]](
            self, op, stamp, seen
        ):
            self._changing(container)
            if kind in (FIRST, LAST):
                content = self._put_mark(state, content)
            state.apply(kind, pos, 1, content, at, known, self._undo)
            self._dirty.add((container, None))
            self._touch(container, at)

    def _moving(self, op: Operation, stamp: Stamp, seen: Seen) -> Iterator[_Step]:
        """Yield the two steps of a move: a new slot, and that it is the place of the
        element at the old one; each as (container, its state, kind, position, content,
        stamp, what was seen). Nothing when the list was never made."""
        _, raw, source, target, *_ = op
        hlc, actor, seq = stamp
        container = resolve(raw, Action.MOVE, actor)
        state = self.state(container, Type.LIST)
        for pos in (source, target):
            if type(pos) is not int or pos < 0:
                raise InvalidOperation("a position is 0 or more")
        if state is None:
            return
        assert isinstance(state, ListState)
        slot = Entry(hlc, actor, seq, None, MOVED)
        yield container, state, INS, target, [slot], stamp, seen
        place = Entry(hlc, actor, seq + 1, (actor, seq), MOVED)
        known = None if seen is None else {**seen, actor: seq}
        pos = source + (source >= target)
        at = (hlc, actor, seq + 1)
        yield container, state, SET, pos, [(place, known)], at, known

    def _marking(self, op: Operation, stamp: Stamp, seen: Seen) -> Iterator[_Step]:
        """Yield the two anchors of a mark, as `_moving` does."""
        _, raw, start, end, name, value, expand, *_ = op
        hlc, actor, seq = stamp
        container = resolve(raw, Action.MARK, actor)
        state = self.state(container, Type.TEXT)
        for number in (start, end, expand):
            if type(number) is not int or number < 0:
                raise InvalidOperation("a position is 0 or more")
        if start >= end:
            raise InvalidOperation("a mark stands over something")
        values.check_key(name, "")
        values.check(value, "")
        if state is None:
            return
        assert isinstance(state, TextState)
        mark = Mark(hlc, actor, seq, name, value, expand & Expand.BOTH)
        kind = FIRST if expand & Expand.BEFORE else LAST
        yield container, state, kind, start, (mark, 0), stamp, seen
        known = None if seen is None else {**seen, actor: seq}
        kind = LAST if expand & Expand.AFTER else FIRST
        at = (hlc, actor, seq + 1)
        yield container, state, kind, end + 1, (mark, 1), at, known

    def _put_mark(self, state: Sequence, content: tuple[Mark, int]) -> OpId:
        """Keep a mark with its text; return the name of one of its anchors."""
        assert isinstance(state, TextState)
        mark, which = content
        name, _ = mark.anchors
        if not which:
            self._put(state.marks, name, mark)
            state.changed_marks.add(name)
        return mark.anchors[which]

    def _apply_tree(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        container, state, node, parent, at = self._planting(op, stamp, seen)
        if state is None:
            return
        self._changing(container)
        name = (stamp[1], stamp[2])
        if at is not None:
            state.apply(INS, at, 1, [name], stamp, seen, self._undo)
        state.move(stamp, node, parent, None if at is None else name, self._undo)
        if node == name:
            self._found(name, (container, None, Type.MAP, self.depth(container) + 1))
        self._dirty.add((container, None))
        self._touch(container, stamp)

    def _planting(
        self, op: Operation, stamp: Stamp, seen: Seen
    ) -> tuple[ContainerId, TreeState | None, OpId, OpId | None, int | None]:
        """Return (container, its state, node, parent, position) of a move in a tree,
        checked; the position is None for one that deletes, the state when the tree was
        never made."""
        _, raw, moved, below, *rest = op
        actor, seq = stamp[1:]
        container = resolve(raw, Action.TREE_MOVE, actor)
        state = self.state(container, Type.TREE)
        for name in (moved, below):
            if seen is not None and name != 0:
                _check_seen(name, stamp, seen)
        node = (actor, seq) if moved is None else _node(moved, actor)
        parent = None if below is None or below == 0 else _node(below, actor)
        at: int | None = None
        if below == 0:
            if moved is None:
                raise InvalidOperation("a node is made somewhere")
        else:
            at = rest[0]
            if type(at) is not int or at < 0:
                raise InvalidOperation("a position is 0 or more")
        assert state is None or isinstance(state, TreeState)
        return container, state, node, parent, at

    def _apply_seed(self, op: Operation, stamp: Stamp) -> None:
        _, raw, key, content, *_ = op
        if raw is not None:
            raise InvalidOperation("a seed is one of the document itself")
        values.check_key(key, "")
        name = seeds.actor_of(self.name, key, content)
        known = self.seeds.get(name)
        if known is not None:
            self._put_seed(name, known.carried_by(stamp))
            return
        # Whether it is one depends on nothing else here, nor on whether it shows.
        alone = Document(self.name)
        n = 0
        for part in content:
            alone.apply(part, (0, name, n + 1), {name: n})
            n += length(part)
        shows = self.preferred.get(key, name) == name and not any(
            self.seeds[rival].shows for rival in self._seeds_of.get(key, ())
        )
        n = 0
        for part in content:
            at = (0, name, n + 1)
            if shows:
                self.apply(part, at, {name: n})
            else:
                self.apply_void(part, at, {name: n})
            n += length(part)
        self._put_seed(name, Seed(key, n, stamp, {stamp[1]: stamp[2]}, shows))

    def _put_seed(self, name: ActorId, seed: Seed) -> None:
        known = self._seeds_of.get(seed.key, ())
        if name not in known:
            self._put(self._seeds_of, seed.key, (*known, name))
        self._put(self.seeds, name, seed)
        self._dirty.add((None, name))
        if seed.key in self.preferred:
            return  # known from before: looked at when all is here
        first = self.first_seed(seed.key)
        if not self.seeds[first].shows:
            before = (self.preferred, self.is_reseeded)
            if self._undo is not None:
                self._undo.append(lambda: self._prefer(*before))
            self.preferred = {**self.preferred, seed.key: first}
            self.is_reseeded = True

    def _prefer(self, preferred: dict[str, ActorId], is_reseeded: bool) -> None:
        self.preferred, self.is_reseeded = preferred, is_reseeded

    def first_seed(self, key: str) -> ActorId:
        """Return the seed of a key that is to show, of those that are known."""
        return seeds.first(self.seeds, self._seeds_of[key])

    def shown_seeds(self) -> dict[str, ActorId]:
        """Return which seed of each key shows."""
        return {seed.key: name for name, seed in self.seeds.items() if seed.shows}

    def has_seed(self, key: str) -> bool:
        """Whether content was brought in under a key."""
        return key in self._seeds_of

    def _apply_positional(self, op: Operation, stamp: Stamp, seen: Seen) -> None:
        if seen is None and self._begins_run(op, stamp):
            return
        found = self._positional(op, stamp, seen)
        if found is None:
            return
        container, state, kind, pos, n, content = found
        action = op[0]
        if self._viewers:
            self._changing(container)
        state.apply(kind, pos, n, content, stamp, seen, self._undo)
        if action in (Action.LIST_MAKE, Action.LIST_PUT):
            assert isinstance(state, ListState)
            name = (stamp[1], stamp[2])
            element = name if kind == INS else state.put_in.pop(name, None)
            child = (container, element, op[3], self.depth(container) + 1)
            self._found(name, child)
        if isinstance(state, ListState) and state.lost:
            self._deleted(container, state)
        self._dirty.add((container, None))
        self._touch(container, stamp)

    def _deleted(self, container: ContainerId, state: ListState) -> None:
        """Note what went with elements whose deletion had not seen it."""
        lost, state.lost = state.lost, []
        if self.conflicts is None:
            return
        path = self.path(container, "-")  # it stands nowhere any more
        self.conflicts += [(path, None, entry) for entry in lost]

    def _begins_run(self, op: Operation, stamp: Stamp) -> bool:
        """Take up typing in a field that was used before; tell whether it is that."""
        action, field, *_ = op
        if action > 9 or type(field) is not str or not self._touches:  # TEXT_DELETE
            return False
        text = self._states.get((field, 5))
        slot = self._root.slots.get(field, EMPTY)
        if text is None or len(slot) != 1 or slot[0][5] != (field, 5):
            return False  # it is to be made, or does not show
        container = slot[0][5]
        self._run = Typing.begin(container, text, op, stamp)  # type: ignore[arg-type]  # a text, by its name
        if self._run is None:
            return False
        if self._viewers:
            self._changing(container)
            self._changing(None)
        return True

    def _positional(
        self, op: Operation, stamp: Stamp, seen: Seen
    ) -> tuple[ContainerId, Sequence, int, int, int, Any] | None:
        """Return (container, its state, kind, position, elements, content) of `op`,
        checked; None when the container was never made."""
        action, raw, pos, what, *_ = op
        hlc, actor, seq = stamp
        type_ = 5 if action <= 10 else 4  # TEXT, up to TEXT_BACKSPACE; else LIST
        container: ContainerId = None
        state: State | None = None
        if type(raw) is str:  # of a field that was used before: its name is a good one
            container = (raw, type_)
            state = self._states.get(container)
        if state is None:
            container = resolve(raw, action, actor)
            state = self.state(container, type_)
        if type(pos) is not int or pos < 0:
            raise InvalidOperation("a position is 0 or more")
        content: Any = None
        if action == 8:  # TEXT_INSERT
            if type(what) is not str or not what:
                raise InvalidOperation("an insertion into a text is text")
            if not what.isascii():
                values.check_text(what, "")
            kind, content = INS, what
            n = len(what)
            if state is None:
                return None
            return container, state, kind, pos, n, content  # type: ignore[return-value]  # a text, by its type
        n = length(op)
        if action == Action.LIST_INSERT:
            if not values.is_list(what) or not what:
                raise InvalidOperation("an insertion into a list is a list")
            for value in what:
                values.check(value, "")
            kind = INS
            content = [Entry(hlc, actor, seq + i, v) for i, v in enumerate(what)]
        elif action in (Action.TEXT_DELETE, Action.LIST_DELETE):
            kind = DEL
        elif action == Action.TEXT_BACKSPACE:
            kind = BACK
        else:
            kind = INS if action == Action.LIST_MAKE else SET
            if action == Action.LIST_SET:
                values.check(what, "")
                entry = Entry(hlc, actor, seq, what)
            else:
                check_nestable(what)
                touches = {actor: (seq, hlc)}
                entry = Entry(hlc, actor, seq, None, what, (actor, seq), touches)
            content = [entry] if kind == INS else [(entry, seen)]
        if state is None:
            return None
        assert isinstance(state, Sequence)
        return container, state, kind, pos, n, content

    # --- containers ---------------------------------------------------------------

    def state(self, container: ContainerId, type_: int) -> State | None:
        """Return a container; None when it was never made (its maker was void).

        A field's container exists from first use. Raises `InvalidOperation` when it
        is of another type.
        """
        self.settle()
        state = self._states.get(container)
        if state is None:
            state = self._load(container, type_)
            if state is None:
                return None
        if not isinstance(state, _STATES[type_]):
            raise InvalidOperation("the container is of another type")
        return state

    def containers(self) -> list[ContainerId]:
        """Return the containers that are in memory."""
        self.settle()
        return list(self._states)

    def loaded(self, container: ContainerId) -> State:
        """Return a container that is about to change, so it was loaded."""
        return self._states[container]

    def _load(self, container: ContainerId, type_: int) -> State | None:
        assert container is not None
        key = container_key(container)
        if isinstance(container[0], str):
            type_ = container[1]
        else:
            parent = self._parent(container)
            if parent is None:
                return None
            type_ = parent[2]
        state = _STATES[type_]()
        if isinstance(state, Sequence):
            self._load_sequence(state, key, container)
        elif self._cells is not None:
            rows = self._cells.read(key)
            if isinstance(state, MapState):
                self._load_map(state, rows)
            else:
                for cell, raw in rows:
                    if cell == COUNT and isinstance(state, CounterState):
                        state.subtotals = {
                            ActorId(actor): (int(whole), fraction)
                            for actor, whole, fraction in values.decode(raw)
                        }
                    elif cell[:1] == ELEMENT and isinstance(state, SetState):
                        dots = values.decode(raw)
                        state.dots[cell[1:]] = {ActorId(a): s for a, s in dots}
                    elif cell == VALUES and isinstance(state, MultiState):
                        state.slot[None] = register.decode(values.decode(raw))
        self._states[container] = state
        return state

    def _load_root(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        fields: list[tuple[bytes, bytes]] = []
        for cell, raw in rows:
            if cell[:1] == SEED:
                seed = seeds.decode(values.decode(raw))
                name = ActorId(cell[1:])
                self.seeds[name] = seed
                known = self._seeds_of.get(seed.key, ())
                self._seeds_of[seed.key] = (*known, name)
            else:
                fields.append((cell, raw))
        self._load_map(self._root, fields)

    def _load_map(self, state: MapState, rows: Iterable[tuple[bytes, bytes]]) -> None:
        for cell, raw in rows:
            if cell[:1] == KEY:
                state.slots[cell[1:].decode()] = register.decode(values.decode(raw))

    def _load_sequence(
        self, state: Sequence, key: bytes, container: ContainerId
    ) -> None:
        cells = self._cells
        if cells is not None:
            shown = dict(cells.read(key, b"", LOG))
            shown.update(cells.read(key, LOG_END, LATER))
            if HEADER in shown:
                state.load(shown, lambda start, stop: cells.read(key, start, stop))

    def _parent(self, container: ContainerId) -> Parent | None:
        parent = self._parents.get(container)
        if parent is None and self._cells is not None:
            rows = self._cells.read(container_key(container), PARENT, PARENT + b"\xff")
            for _, raw in rows:
                type_, above, key, depth = values.decode(raw)
                if values.is_list(key):
                    key = (ActorId(key[0]), key[1])
                parent = (container_from_key(above), key, type_, depth)
                self._parents[container] = parent
        return parent

    def _found(self, container: ContainerId, parent: Parent) -> None:
        """Make a nested container, as its operation says."""
        if parent[3] > limits.DEPTH_MAX:
            raise InvalidOperation(f"nested deeper than {limits.DEPTH_MAX}")
        state = _STATES[parent[2]]()
        self._put(self._parents, container, parent)
        self._put(self._states, container, state)
        self._dirty.add((container, PARENT))

    def _type_of(self, container: ContainerId) -> int:
        if container is None:
            return Type.MAP
        if isinstance(container[0], str):
            return container[1]
        parent = self._parent(container)
        return parent[2] if parent else 0

    def depth(self, container: ContainerId) -> int:
        """Return how many containers deep `container` stands; the document is 0."""
        if container is None:
            return 0
        if isinstance(container[0], str):
            return 1
        parent = self._parent(container)
        return parent[3] if parent else 0

    # --- changing -----------------------------------------------------------------

    def _touch(self, container: ContainerId, stamp: Stamp) -> None:
        """Let an operation in `container` keep everything above it alive."""
        hlc, actor, seq = stamp
        if container is not None and type(container[0]) is str:
            # A field that goes on being edited: what the rest comes to.
            slots, field = self._root.slots, container[0]
            slot = slots.get(field, EMPTY)
            if len(slot) == 1 and slot[0][5] == container:
                entry = slot[0]
                touches = entry[6]
                last = None if touches is None else touches.get(actor, _NEVER)
                if last is not None and last[0] < seq and stamp > entry[:3]:
                    self._changing(None)
                    if self._undo is not None:
                        self._undo.append((slots, field, slot))
                    own = (seq, hlc)
                    all_ = {**touches, actor: own}  # type: ignore[dict-item]  # not None
                    type_ = container[1]
                    entry = Entry(hlc, actor, seq, None, type_, container, all_)
                    slots[field] = (entry,)
                    self._dirty.add((None, field))
                    self._put(self._touches, actor, own)
                    return
        while container is not None:
            if isinstance(container[0], str):
                above: ContainerId = None
                key: str | OpId | None = container[0]
                type_ = container[1]
            else:
                parent = self._parent(container)
                if parent is None:
                    return
                above, key, type_, _ = parent
            if isinstance(key, tuple):
                state = self.state(above, Type.LIST)
                assert isinstance(state, ListState)
                self._changing(above)
                name: Any = container  # in a list none is a field
                state.touch(key, type_, name, stamp, self._undo)
                if state.lost:
                    self._deleted(above, state)
                self._dirty.add((above, None))
            elif key is not None:
                state = self._root if above is None else self.state(above, Type.MAP)
                assert isinstance(state, MapState)
                slot = state.slots.get(key, EMPTY)
                slot = register.touch(slot, type_, container, stamp)
                self._put_slot(above, state, key, slot)
            container = above
        self._put(self._touches, actor, (seq, hlc))

    def _put_slot(
        self, container: ContainerId, state: MapState, key: str, slot: Slot
    ) -> None:
        if self._viewers:
            self._changing(container)
        slots = state.slots
        if self._undo is not None:
            self._undo.append((slots, key, slots.get(key)))
        if slot:
            slots[key] = slot
        else:
            slots.pop(key, None)
        self._dirty.add((container, key))
        if len(slot) > 1 and self.conflicts is not None:
            path = self.path(container, key)
            # A seed that others wrote over is no loss.
            lost = [loser for loser in slot[1:] if loser.hlc]
            self.conflicts += [(path, slot[0], loser) for loser in lost]

    def _put(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        """Set `target[key]` (None: remove it), remembering what was there."""
        if self._undo is not None:
            self._undo.append((target, key, target.get(key)))
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value

    def _changing(self, container: ContainerId) -> None:
        if self._viewers:
            for reference in list(self._viewers.values()):
                viewer = reference()
                if viewer is not None:
                    viewer.capture(container)

    @property
    def is_held(self) -> bool:
        """Whether a snapshot or an open transaction still needs this very object."""
        return bool(self._viewers) or self._undo is not None

    def detach(self) -> None:
        """Read all that is shown, and the store no more: it is about to change."""
        self.to_value()
        for state in self._states.values():
            if isinstance(state, Sequence):
                state.log.load()  # a snapshot may ask where a cursor stood
        for reference in list(self._viewers.values()):
            viewer = reference()
            if viewer is not None:
                viewer.read_all()
        self._cells = None

    def add_viewer(self, viewer: Viewer) -> None:
        """Tell `viewer`, for as long as somebody holds it, what is to change."""
        self.settle()
        key = id(viewer)
        viewers = self._viewers
        viewers[key] = ref(viewer, lambda _: viewers.pop(key, None))

    # --- reading ------------------------------------------------------------------

    def path(self, container: ContainerId, key: str | None = None) -> str:
        """Return where `container` (or a key in it) is: collection/id/field/..."""
        steps = [] if key is None else [values.escape(key)]
        while container is not None:
            if isinstance(container[0], str):
                steps.append(values.escape(container[0]))
                break
            parent = self._parent(container)
            if parent is None:
                break
            above, at, _, _ = parent
            steps.append(
                values.escape(at)
                if isinstance(at, str)
                else self._index(above, at, container)
            )
            container = above
        collection, _, key_ = self.name.partition("/")
        return "/".join([collection, values.escape(key_), *reversed(steps)])

    def _index(
        self, container: ContainerId, element: OpId | None, held: ContainerId
    ) -> str:
        """Return at which index of a list the element stands that holds a container;
        in a tree, the name of its node."""
        if self._type_of(container) == Type.TREE:
            return node_id(held)  # type: ignore[arg-type]  # no field is a node
        state = self.state(container, Type.LIST)
        assert isinstance(state, ListState)
        if element is not None:
            entries = state.slots.get(element, ())
            if any(entry.container == held for entry in entries):
                return str(state.index_of(element))
        return "-"  # deleted: it stands nowhere

    def shows(self, container: ContainerId) -> bool:
        """Whether a reader who begins at the document comes upon a container."""
        self.settle()
        while container is not None and self.visible:
            if isinstance(container[0], str):
                slot = self._root.slots.get(container[0], EMPTY)
                return bool(slot) and slot[0].container == container
            parent = self._parent(container)
            if parent is None:
                return False
            above, at, _, _ = parent
            state = self.state(above, self._type_of(above))
            if isinstance(state, TreeState):
                if not any(node == container for node, _ in state.nodes()):
                    return False
            elif isinstance(state, MapState | ListState):
                slots: Any = state.slots  # by keys, or by elements
                entries: Slot = slots.get(at, EMPTY)
                if not entries or entries[0].container != container:
                    return False
            container = above
        return self.visible

    def to_value(self, container: ContainerId = None, type_: int = Type.MAP) -> Any:
        """Return what a container shows, as plain data."""
        self.settle()
        state = self.state(container, type_)
        if isinstance(state, MapState):
            return {key: self.entry_value(slot[0]) for key, slot in state.slots.items()}
        if isinstance(state, CounterState):
            return counter.value(state.subtotals)
        if isinstance(state, SetState):
            return [values.decode(element) for element in sorted(state.dots)]
        if isinstance(state, ListState):
            return [self.entry_value(state.slots[name][0]) for name in state.elements()]
        if isinstance(state, MultiState):
            return multivalue.shown(state.slot.get(None, EMPTY))
        if isinstance(state, TreeState):
            return [
                {
                    "id": node_id(node),
                    "parent": None if parent is None else node_id(parent),
                    "value": self.to_value(node),
                }
                for node, parent in state.nodes()
            ]
        return str(state)

    def entry_value(self, entry: Entry) -> Any:
        """Return what one write shows."""
        if entry.type:
            return self.to_value(entry.container, entry.type)
        return entry.value

    def canonical(self) -> bytes:
        """Return the visible state as bytes that are equal iff the states are."""
        return values.canonical(self._canonical(None, Type.MAP))

    def _canonical(self, container: ContainerId, type_: int) -> Any:
        state = self.state(container, type_)
        if isinstance(state, MapState):
            return {key: self._canonical_entry(s[0]) for key, s in state.slots.items()}
        if isinstance(state, ListState):
            return [
                self._canonical_entry(state.slots[name][0]) for name in state.elements()
            ]
        if isinstance(state, TreeState):
            return [
                [node, parent, self._canonical(node, Type.MAP)]
                for node, parent in state.nodes()
            ]
        if isinstance(state, TextState) and state.buffer.hidden:
            spans = state.spans()
            if any(span.marks for span in spans):
                return [list(span) for span in spans]
        shown = self.to_value(container, type_)
        if isinstance(shown, int) and not limits.INT_MIN <= shown <= limits.INT_MAX:
            return str(shown)
        return shown

    def _canonical_entry(self, entry: Entry) -> Any:
        shown = (
            self._canonical(entry.container, entry.type) if entry.type else entry.value
        )
        return [entry.type, shown]

    # --- storing ------------------------------------------------------------------

    def changed_fields(self) -> set[str]:
        """Return the fields in which something changed since `take_cells`."""
        self.settle()
        found: set[str] = set()
        for container, key in self._dirty:
            at, field = container, key
            while at is not None and not isinstance(at[0], str):
                parent = self._parent(at)
                if parent is None:
                    break
                at, field = parent[0], parent[1]
            if at is not None:
                field = at[0]
            if isinstance(field, str):
                found.add(field)
        return found

    def take_cells(self) -> list[tuple[bytes, Cell]]:
        """Return (container, (key, state)) of what changed, and call it stored."""
        self.settle()
        taken: list[tuple[bytes, Cell]] = []
        for container, key in self._dirty:
            state = self._states.get(container)
            name = container_key(container)
            if container is None and type(key) is bytes:
                seed = self.seeds.get(ActorId(key))
                row_ = None if seed is None else values.encode(seed)
                taken.append((name, (SEED + key, row_)))
            elif key == PARENT:
                parent = self._parents.get(container)
                if parent is None:  # made and undone
                    continue
                above, at, type_, depth = parent
                row = values.encode([type_, container_key(above), at, depth])
                taken.append((name, (PARENT, row)))
            elif isinstance(state, MapState):
                if type(key) is not str:
                    continue  # of another container of this name, which was taken back
                slot = state.slots.get(key)
                row_ = None if not slot else values.encode(register.encode(slot))
                taken.append((name, (KEY + key.encode(), row_)))
            elif isinstance(state, CounterState):
                rows = [
                    # A total may outgrow 64 bits; text has no such bound.
                    (actor, str(whole), fraction)
                    for actor, (whole, fraction) in sorted(state.subtotals.items())
                ]
                taken.append((name, (COUNT, values.encode(rows))))
            elif isinstance(state, SetState):
                if type(key) is not bytes or key[:1] != ELEMENT:
                    continue
                dots = state.dots.get(key[1:])
                row_ = values.encode(sorted(dots.items())) if dots else None
                taken.append((name, (key, row_)))
            elif isinstance(state, MultiState):
                slot = state.slot.get(None)
                row_ = None if not slot else values.encode(register.encode(slot))
                taken.append((name, (VALUES, row_)))
            elif isinstance(state, Sequence) and key is None:
                taken += [(name, cell) for cell in state.cells()]
        self._dirty.clear()
        return taken

    def take_back(self, undo: list[Any]) -> None:
        """Undo what was remembered in `undo`, newest first."""
        self.settle()
        if isinstance(undo, Steps):
            undo.place()
        while undo:
            step = undo.pop()
            if callable(step):
                step()
                continue
            target, key, before = step
            if before is None:
                target.pop(key, None)
            else:
                target[key] = before


# Operations of two steps, and what yields them.
_STEPS: dict[int, Callable[[Document, Operation, Stamp, Seen], Iterator[_Step]]] = {
    Action.MOVE: Document._moving,  # pyright: ignore[reportPrivateUsage]  # ours
    Action.MARK: Document._marking,  # pyright: ignore[reportPrivateUsage]  # ours
}

_MISSING: Any = object()
_NEVER = (0, 0)


def _node(raw: Any, author: ActorId) -> OpId:
    """Return the node that an operation names."""
    named = resolve(raw, Action.TREE_MOVE, author)
    if named is None or isinstance(named[0], str):
        raise InvalidOperation("a node is a seq or [actor, seq]")
    return named[0], named[1]


def _check_seen(raw: Any, stamp: Stamp, seen: Mapping[ActorId, int]) -> None:
    """Raise unless an author had seen the making of the container that is named.

    Else it would have effect where that came in before, and none where it comes later.
    """
    if raw is None or type(raw) is str:
        return
    actor, seq = (stamp[1], raw) if type(raw) is int else raw
    known = stamp[2] - 1 if actor == stamp[1] else seen.get(actor, 0)
    if seq > known:
        raise InvalidOperation("its author had not seen the making of what it names")


def element_key(value: Any, path: str) -> bytes:
    """Return the bytes by which a set knows `value`; raises `Invalid`."""
    values.check(value, path)
    element = values.canonical(value)
    if len(element) > ELEMENT_BYTES_MAX:
        raise Invalid(
            f"an element of a set has at most {ELEMENT_BYTES_MAX} bytes",
            path=path,
            bound=ELEMENT_BYTES_MAX,
        )
    return element


__all__ = [
    "Cells",
    "CounterState",
    "Document",
    "MapState",
    "MultiState",
    "SetState",
    "State",
    "element_key",
]
