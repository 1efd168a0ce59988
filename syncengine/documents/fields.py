"""The containers that hold others: List, Map, Tree; and what becomes of a value that
is written into one.

The same classes stand in a `Document`'s annotations, where an empty one is the
default. In a draft they write operations; in a snapshot a write raises
`FrozenDocument`.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
)
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, cast, overload

from syncengine import limits, values
from syncengine.crdt.operation import Action, ContainerId, Type, reference
from syncengine.crdt.register import EMPTY, Entry
from syncengine.crdt.sequence.difference import longest_ascending, sources
from syncengine.crdt.tree import TreeState
from syncengine.documents.bound import Bound, Name, Shaped
from syncengine.documents.equality import exact, exact_entry, rough
from syncengine.documents.leaves import (
    Counter,
    FloatCounter,
    MultiValue,
    Set,
    bound_counter,
    increment,
)
from syncengine.documents.shape import (
    Single,
    checked,
    container_of,
    converted,
    item_of,
    record_of,
)
from syncengine.documents.text import Text
from syncengine.documents.view import Unmade, View
from syncengine.errors import Invalid, NotFound, OutOfRange
from syncengine.ids import OpId, node_id, parse_node_id

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar as _TypeVar

    def TypeVar(name: str, *, default: Any = None, **options: Any) -> Any:
        """Checkers know defaults; before Python 3.13 `typing` does not."""
        return _TypeVar(name, **options)


# Plain values that an assignment moves; of more it writes those anew that stand
# elsewhere (20,000 in another order: 7 s of moves). Containers are always moved.
MOVES_MAX = 1_000

T = TypeVar("T")
K = TypeVar("K", bound=str, default=str)
V = TypeVar("V", default=Any)


class List(Bound, MutableSequence[T], Generic[T]):
    """A list that many can edit at once."""

    _type = Type.LIST

    def __get__(self, instance: object, owner: type | None = None) -> "List[T]":
        return self

    def __set__(self, instance: object, value: Iterable[T]) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def _shown(self) -> list[Entry]:
        return [] if self._view is None else self._view.entries(self._container)

    def __len__(self) -> int:
        return 0 if self._view is None else self._view.list_length(self._container)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "List[T]": ...
    def __getitem__(self, index: int | slice) -> Any:
        view = self._bound()
        if isinstance(index, slice):
            return [wrap(view, entry, self._item) for entry in self._shown()[index]]
        entry = view.entry_at(self._container, self._index(index))
        return wrap(view, entry, self._item)

    def __iter__(self) -> Iterator[T]:
        if self._view is not None:
            for entry in self._shown():
                yield wrap(self._view, entry, self._item)

    @overload
    def __setitem__(self, index: int, value: T) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[T]) -> None: ...
    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            items: list[Any] = list(self)
            items[index] = list(value)
            self.replace(items)
            return
        view = self._bound()
        index = self._index(index)
        there = (view, view.entry_at(self._container, index).container)
        if isinstance(value, Bound) and (value._view, value._container) == there:
            return  # `rows[0] += [x]` has done its work already
        at = self._at(index, 1)
        path = f"{view.path(self._container)}/{index}"
        type_ = container_type(value, path, self._item)
        if type_:
            with view.writable().whole():
                seq = view.emit(Action.LIST_PUT, self._container, at, type_)
                made = (view.writable().actor, seq)
                fill(view, made, type_, value, path, self._item)
        else:
            plain = plain_of(value, path, self._item)
            view.emit(Action.LIST_SET, self._container, at, plain)

    @overload
    def __delitem__(self, index: int) -> None: ...
    @overload
    def __delitem__(self, index: slice) -> None: ...
    def __delitem__(self, index: int | slice) -> None:
        view = self._bound()
        if not isinstance(index, slice):
            at = self._index(index)
            view.delete_elements(self._container, Type.LIST, at, 1)
            return
        start, stop, step = index.indices(len(self))
        if step == 1:
            if start < stop:
                view.delete_elements(self._container, Type.LIST, start, stop - start)
            return
        for at in sorted(range(start, stop, step), reverse=True):
            del self[at]

    def move(self, index: int, to: int) -> None:
        """Move the element at `index` so that it then stands at `to`.

        What others do to it meanwhile stays with it; of concurrent moves of one
        element the latest counts. Raises `OutOfRange`.
        """
        view = self._bound()
        index, to = self._index(index), self._index(to)
        view.writable()
        if index != to:
            source = self._at(index, 1)
            target = self._at(to + (to > index))
            view.emit(Action.MOVE, self._container, source, target)

    def insert(self, index: SupportsIndex, value: T) -> None:
        self.insert_all(self._int(index), [value])

    def extend(self, new: Iterable[T]) -> None:
        self.insert_all(len(self), list(new))

    def insert_all(self, index: int, new: list[T]) -> None:
        """Insert several values at once before `index`, as `list.insert` counts."""
        view = self._bound()
        length = len(self)
        at = max(0, index + length) if index < 0 else min(index, length)
        path = view.path(self._container)
        plain: list[Any] = []
        with view.writable().whole():
            for offset, value in enumerate(new):
                where = f"{path}/{at + offset}"
                type_ = container_type(value, where, self._item)
                if not type_:
                    plain.append(plain_of(value, where, self._item))
                    continue
                self._insert_plain(at + offset - len(plain), plain)
                plain = []
                seq = view.emit(
                    Action.LIST_MAKE, self._container, self._at(at + offset), type_
                )
                made = (view.writable().actor, seq)
                fill(view, made, type_, value, where, self._item)
            self._insert_plain(at + len(new) - len(plain), plain)

    def _insert_plain(self, at: int, plain: list[Any]) -> None:
        if plain:
            view = self._bound()
            view.emit(Action.LIST_INSERT, self._container, self._at(at), plain)

    def _int(self, index: SupportsIndex) -> int:
        if not hasattr(index, "__index__"):
            raise Invalid(
                f"a place in a list is an int, not {type(index).__name__}",
                path=self._bound().path(self._container),
            )
        return index.__index__()

    def _index(self, index: SupportsIndex) -> int:
        length, given = len(self), self._int(index)
        at = given + length if given < 0 else given
        if not 0 <= at < length:
            raise OutOfRange(
                f"index {given} is beyond the length {length}",
                path=self._bound().path(self._container),
                bound=length,
            )
        return at

    def _at(self, index: int, n: int = 0) -> int:
        view = self._bound()
        return view.author_position(self._container, Type.LIST, index, n)

    def replace(self, new: Iterable[T]) -> None:
        """Make this the list of `new` by edits where it differs: elements that stay, or
        stand elsewhere now, keep what others do to them.

        An element is known by itself, where it is one of this list, else by its value.
        """
        items = [_loose(item) for item in new]
        view = self._bound()
        path = view.path(self._container)
        wanted = [exact(item, path) for item in items]
        source = self._sources(items)
        staying = longest_ascending([old for old in source if old is not None])
        if len(source) - len(staying) > MOVES_MAX:
            # Each move costs more than writing a plain value anew.
            shown = self._shown()
            source = [
                old if old is None or old in staying or shown[old].type else None
                for old in source
            ]
        with view.writable().whole():
            here = sorted(staying.union(old for old in source if old is not None))
            gone = sorted(set(range(len(self))).difference(here), reverse=True)
            for stop, start in _ranges(gone):
                del self[start : stop + 1]
            put: set[int] = set()
            at = (
                0  # what stands before is as it shall be, but for what is still to move
            )
            for index, old in enumerate(source):
                if index in put:
                    continue
                if old is None:
                    end = index
                    while end < len(source) and source[end] is None:
                        end += 1
                    self.insert_all(at, items[index:end])
                    here[at:at] = [-1] * (end - index)
                    put.update(range(index, end))
                    at += end - index
                    continue
                if old in staying:
                    at = here.index(old, at) + 1
                    continue
                was = here.index(old)
                to = at - (was < at)
                self.move(was, to)
                del here[was]
                here.insert(to, old)
                at = to + 1
            for index, item in enumerate(items):
                if index not in put:
                    self._make(index, item, wanted[index], f"{path}/{index}")

    def _sources(self, items: list[T]) -> list[int | None]:
        """Return for each item which element of this list it is; None: a new one."""
        shown = self._shown()
        own = {entry.container: at for at, entry in enumerate(shown) if entry.type}
        before: list[Any] = [_key_of(item) for item in self]
        after: list[Any] = []
        for item in items:
            bound = isinstance(item, Bound | Shaped) and getattr(item, "_view", None)
            at = own.pop(cast(Any, item)._container, None) if bound else None
            if at is not None:
                before[at] = (at,)  # nothing but itself
            after.append(_key_of(item) if at is None else (at,))
        found = sources(before, after)
        # A map in the place of a map is that one, edited.
        left = set(range(len(shown))).difference(
            old for old in found if old is not None
        )
        last = -1
        for index, item in enumerate(items):
            old = found[index]
            if old is None and isinstance(item, dict | Map | Shaped):
                old = last + 1
                if old in left and shown[old].type == Type.MAP:
                    found[index] = old
            last = last if found[index] is None else cast(int, found[index])
        return found

    def reverse(self) -> None:
        """Turn the order round: each element is moved, none is written anew."""
        self.replace([*self][::-1])

    def sort(
        self, *, key: Callable[[T], Any] | None = None, reverse: bool = False
    ) -> None:
        """Put the elements in order by moving them; as `list.sort`."""
        by: Callable[[T], Any] = key or (lambda item: item)
        self.replace(sorted(self, key=by, reverse=reverse))

    def _make(self, index: int, value: Any, wanted: Any, path: str) -> None:
        """Make the element at an index the same as a value."""
        view = self._bound()
        entry = view.entry_at(self._container, index)
        if exact_entry(view, entry) == wanted:
            return
        type_ = container_type(value, path, self._item)
        if type_ and type_ == entry.type:
            assign(view, entry.container, type_, value, path, self._item)
        elif type_ or entry.type or rough(value) != rough(entry.value):
            self[index] = value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list | List):
            theirs = cast(Iterable[Any], other)
            return list(map(plain_value, self)) == list(map(plain_value, theirs))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a draft's list changes

    def __add__(self, other: Iterable[T]) -> list[T]:
        return [*self, *other]

    def __repr__(self) -> str:
        return f"List({[plain_value(item) for item in self]!r})"


def _loose(value: Any, depth: int = 0) -> Any:
    """Return what is to be written, with copies of what is shown inside of it: that may
    change while it is written."""
    if depth > limits.DEPTH_MAX:
        return value  # it is refused, by its path
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: _loose(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple):
        return [_loose(item, depth + 1) for item in cast(Iterable[Any], value)]
    if depth and isinstance(value, Bound | Shaped) and getattr(value, "_view", None):
        from syncengine.documents.copies import copy_of  # which is made of these

        found = cast(Any, value)
        return copy_of(found._view, found._container, found._type)
    return value


def _key_of(value: Any) -> Hashable:
    """Return what is equal for plain values that are, to look them up by."""
    value = plain_value(value)
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return ("map", frozenset((key, _key_of(item)) for key, item in items))
    if isinstance(value, list | tuple | set | frozenset):
        return ("list", *map(_key_of, cast(Iterable[Any], value)))
    return (type(value).__name__, value if isinstance(value, Hashable) else id(value))


def _ranges(descending: Iterable[int]) -> list[tuple[int, int]]:
    """Return runs of neighbours as (last, first)."""
    found: list[tuple[int, int]] = []
    for number in descending:
        if found and found[-1][1] == number + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class Map(Bound, MutableMapping[K, V], Generic[K, V]):
    """A map whose keys merge one by one: a field, an untyped document, or a dict in it.

    Plain values become registers, a dict a map, a list a list; `counter()`, `text()`,
    `set()`, `list()` and `map()` name a container of that type, made by first use.
    """

    _type = Type.MAP

    def __get__(self, instance: object, owner: type | None = None) -> "Map[K, V]":
        return self

    def __set__(self, instance: object, value: Mapping[K, V]) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def __getitem__(self, key: str) -> V:
        view = self._bound()
        slot = view.slot(self._container, key) if view.shows(self._container) else ()
        if not slot:
            raise KeyError(key)
        return wrap(view, slot[0], self._item)  # type: ignore[no-any-return]  # what was declared

    def __setitem__(self, key: str, value: V) -> None:
        view = self._bound()
        try:
            values.check_key(key, "")
            type_ = container_type(value, "", self._item)
            if not type_:
                value = plain_of(value, "", self._item)
        except Invalid:
            # Paths are made only for those who read them.
            values.check_key(key, view.path(self._container))
            container_type(value, view.path(self._container, key), self._item)
            plain_of(value, view.path(self._container, key), self._item)
            raise
        number = type(value) is int or type(value) is float
        if not type_ and not number:
            view.emit(Action.SET, self._container, key, value)
            return
        slot = view.slot(self._container, key)
        shown = slot[0].type if slot else 0
        if not type_ and shown != Type.COUNTER:
            view.emit(Action.SET, self._container, key, value)
            return
        if not view.shows(self._container):
            slot, shown = EMPTY, 0
        if not type_:
            # `page["total"] += 1` on a counter is an increment, as it is on a field.
            if not shown:
                view.emit(Action.SET, self._container, key, value)
                return
            type_ = Type.COUNTER
        path = view.path(self._container, key)
        if isinstance(value, Counter | FloatCounter) and _is_own(value, view, path):
            return  # assigned to itself: nothing to add
        with view.writable().whole():
            if slot and shown == type_:
                assign(view, slot[0].container, type_, value, path, self._item)
            elif self._container is None:
                if slot:
                    view.emit(Action.DELETE, None, key)
                fill(view, (key, type_), type_, value, path, self._item)
            else:
                seq = view.emit(Action.MAKE, self._container, key, type_)
                made = (view.writable().actor, seq)
                fill(view, made, type_, value, path, self._item)

    def __delitem__(self, key: str) -> None:
        view = self._bound()
        if key not in self:
            raise KeyError(key)
        view.emit(Action.DELETE, self._container, key)

    def pop(self, key: str, *default: Any) -> Any:
        """Take out what is at `key` and return it: as it was, to be read or written
        elsewhere. Raises `KeyError` where there is neither that nor a default."""
        view = self._bound()
        if key not in self:
            if default:
                return default[0]
            raise KeyError(key)
        entry = view.slot(self._container, key)[0]
        found = _taken_out(view, entry, self._item)
        del self[key]
        return found

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return what is at `key`, where nothing is after writing `default` there."""
        if key not in self:
            self[key] = default
        if key in self:
            return self[key]
        # In the document itself an empty container is made by its first use.
        view = self._bound()
        type_ = container_type(default, view.path(self._container, key), self._item)
        return container_at(
            view, unmade(self._container, key, type_), type_, self._item
        )

    def __iter__(self) -> Iterator[K]:
        keys = [] if self._view is None else self._view.keys(self._container)
        return iter(cast(list[K], keys))

    def __len__(self) -> int:
        return 0 if self._view is None else len(self._view.keys(self._container))

    def __contains__(self, key: object) -> bool:
        return self._view is not None and key in self._view.keys(self._container)

    def __repr__(self) -> str:
        return f"Map({self.to_dict()!r})"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        view = self._bound()
        return view.plain(self._container, Type.MAP)  # type: ignore[no-any-return]  # a map is a dict

    def counter(self, key: str) -> Counter | FloatCounter:
        """Return the counter at `key`."""
        return bound_counter(self._bound(), self._named(key, Type.COUNTER))

    def text(self, key: str) -> Text:
        """Return the text at `key`."""
        return bound(Text(), self._bound(), self._named(key, Type.TEXT))

    def set(self, key: str) -> Set[Any]:
        """Return the set at `key`."""
        return bound(Set[Any](), self._bound(), self._named(key, Type.SET))

    def multi(self, key: str) -> MultiValue[Any]:
        """Return the multi-value register at `key`."""
        return bound(MultiValue[Any](), self._bound(), self._named(key, Type.MULTI))

    def list(self, key: str) -> List[Any]:
        """Return the list at `key`."""
        return bound(List[Any](), self._bound(), self._named(key, Type.LIST))

    def map(self, key: str) -> "Map[str, Any]":
        """Return the map at `key`."""
        return bound(Map[str, Any](), self._bound(), self._named(key, Type.MAP))

    def tree(self, key: str) -> "Tree[Any]":
        """Return the tree at `key`."""
        return bound(Tree[Any](), self._bound(), self._named(key, Type.TREE))

    def _named(self, key: str, type_: Type) -> ContainerId:
        view = self._bound()
        values.check_key(key, view.path(self._container))
        if self._container is None:
            return (key, int(type_))
        slot = view.slot(self._container, key)
        for entry in slot[:1]:
            if entry.type == type_:
                return entry.container
        if view.tx is None:
            raise NotFound(f"{view.path(self._container, key)} is not there")
        seq = view.emit(Action.MAKE, self._container, key, int(type_))
        return (view.tx.actor, seq)


class Node(Generic[V]):
    """A node of a tree: what it holds, where it stands, and moving it."""

    def __init__(self, tree: "Tree[V]", name: OpId):
        self._tree = tree
        self._name = name

    @property
    def id(self) -> str:
        """The node's name, the same on every device."""
        return node_id(self._name)

    @property
    def value(self) -> V:
        """What the node holds: a Record if one was declared, else a Map."""
        view = self._tree._bound()
        entry = Entry(0, self._name[0], 0, None, Type.MAP, self._name)
        return wrap(view, entry, self._tree._item)  # type: ignore[no-any-return]  # V

    @property
    def parent(self) -> "Node[V] | None":
        """The node above; None at the top, and for one that was deleted."""
        place = self._tree._state().place(self._name)
        return self._tree._node(place.parent) if place and place.parent else None

    @property
    def children(self) -> "list[Node[V]]":
        """The nodes below, in order."""
        return [self._tree._node(n) for n in self._tree._state().children(self._name)]

    @property
    def is_deleted(self) -> bool:
        """Whether it shows no more: it was deleted, or one above it."""
        tree, above = self._tree._state(), self._name
        while (place := tree.place(above)) is not None:
            if place.slot is None or place.parent is None:
                return place.slot is None
            above = place.parent
        return True

    def move(self, *, under: "Node[V] | None" = None, index: int | None = None) -> None:
        """Let it stand under another (None: at the top) at an index among those there,
        behind the last if none is given, with all that is below it.

        Brings back one that was deleted. Raises `Invalid` below itself, and
        `OutOfRange`.
        """
        self._tree._move(self._name, under, index)

    def delete(self) -> None:
        """Take it out of the tree, with all that is below it; `tree.deleted()` keeps
        it, and `move` brings it back."""
        view = self._tree._bound()
        name = reference(self._name, view.writable().actor)
        view.emit(Action.TREE_MOVE, self._tree._container, name, 0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Node):
            return self._name == other._name
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"Node({self.id!r}, {plain_value(self.value)!r})"


class Tree(Bound, Generic[V]):
    """Nodes under nodes, in order, that many can add and move at once.

    Of concurrent moves of one node the latest counts; none makes a cycle, or a second
    copy. Iterating yields all nodes, each before those below it.
    """

    _type = Type.TREE

    def __get__(self, instance: object, owner: type | None = None) -> "Tree[V]":
        return self

    def __set__(self, instance: object, value: "Tree[V]") -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def add(
        self,
        value: "V | Mapping[str, Any] | None" = None,
        *,
        under: Node[V] | None = None,
        index: int | None = None,
    ) -> Node[V]:
        """Add a node that holds `value`, under another (None: at the top) at an index
        among those there, behind the last if none is given.

        Raises `Invalid`, and `OutOfRange`.
        """
        view = self._bound()
        with view.writable().whole():
            name = self._move(None, under, index)
            if value is not None:
                path = view.path(name)
                fill(view, name, Type.MAP, value, path, self._item)
            elif (record := record_of(self._item)) is not None:
                fill(view, name, Type.MAP, record(), view.path(name), self._item)
        return self._node(name)

    def _move(
        self, name: OpId | None, under: Node[V] | None, index: int | None
    ) -> OpId:
        """Place a node, a new one if it has no name; return its name."""
        view = self._bound()
        actor = view.writable().actor
        container = view.made(self._container)
        view.uncover(container)
        tree = cast(TreeState, view.state(container, Type.TREE))
        parent = None if under is None else under._name
        above = parent
        while above is not None:
            if above == name:
                raise Invalid(
                    "a node cannot be moved below itself", path=view.path(name)
                )
            place = tree.place(above)
            if place is None:
                raise NotFound(f"there is no node {node_id(above)} in this tree")
            above = place.parent
        siblings = [node for node in tree.children(parent) if node != name]
        if index is None:
            index = len(siblings)
        elif not 0 <= index <= len(siblings):
            raise OutOfRange(
                f"index {index} is beyond the {len(siblings)} siblings",
                path=view.path(self._container),
                bound=len(siblings),
            )
        if index < len(siblings):
            at = tree.position(siblings[index])
        else:
            at = tree.position(siblings[-1]) + 1 if siblings else tree.length
        seq = view.emit(
            Action.TREE_MOVE,
            container,
            None if name is None else reference(name, actor),
            None if parent is None else reference(parent, actor),
            tree.author_ranges(at, 0)[0][0],
        )
        return (actor, seq) if name is None else name

    @property
    def roots(self) -> list[Node[V]]:
        """The nodes at the top, in order."""
        return [self._node(name) for name in self._state().children(None)]

    def deleted(self) -> list[Node[V]]:
        """Return the nodes that were deleted, and not with one above them."""
        return [self._node(name) for name in self._state().deleted()]

    def _state(self) -> Any:
        tree = None if self._view is None else self._view.tree(self._container)
        return _NO_TREE if tree is None else tree

    def _node(self, name: OpId) -> Node[V]:
        return Node(self, name)

    def __getitem__(self, id: str) -> Node[V]:
        """Return the node of that id, deleted ones too; raises `NotFound`."""
        name = parse_node_id(id)
        if self._state().place(name) is None:
            raise NotFound(f"there is no node {id} in this tree")
        return self._node(name)

    def __iter__(self) -> Iterator[Node[V]]:
        for name, _ in self._state().nodes():
            yield self._node(name)

    def __len__(self) -> int:
        return sum(1 for _ in self._state().nodes())

    def __contains__(self, node: object) -> bool:
        """Whether a node is in this tree and shows."""
        return isinstance(node, Node) and any(one == node for one in self)

    def to_list(self) -> list[dict[str, Any]]:
        """Return it as plain data: `{"id", "parent", "value"}` of each node, each
        before those below it."""
        return [] if self._view is None else self._view.plain(self._container, 6)

    def replace(self, new: "Iterable[dict[str, Any]] | Tree[Any]") -> None:
        """Make this what `to_list` of a tree says, by edits where it differs: nodes are
        known by their id, and of another tree's by where they stand."""
        rows = new.to_list() if isinstance(new, Tree) else list(new)
        view = self._bound()
        known: dict[str | None, Node[V] | None] = {None: None}
        with view.writable().whole():
            below: dict[str | None, list[dict[str, Any]]] = {}
            for row in rows:
                below.setdefault(row["parent"], []).append(row)
            for row in rows:
                if row["parent"] not in known:
                    raise Invalid(
                        f"node {row['id']} is below {row['parent']}, which is not "
                        "before it",
                        path=view.path(self._container),
                    )
                siblings = below[row["parent"]]
                known[row["id"]] = self._placed(
                    row, known[row["parent"]], siblings.index(row)
                )
            kept = {node for node in known.values() if node}
            for node in list(self):
                if node not in kept and not node.is_deleted:
                    node.delete()

    def _placed(
        self, row: dict[str, Any], under: Node[V] | None, index: int
    ) -> Node[V]:
        """Return the node of a row, which stands at its place now."""
        view = self._bound()
        there = self.roots if under is None else under.children
        try:
            node = self[row["id"]]
        except (Invalid, NotFound):
            if index >= len(there):
                return self.add(row["value"], under=under, index=len(there))
            node = there[index]
        if index >= len(there) or there[index] != node:
            node.move(under=under, index=min(index, len(there) - (node in there)))
        path = view.path(node._name)
        assign(view, node._name, Type.MAP, row["value"], path, self._item)
        return node

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Tree):
            return self.to_list() == other.to_list()
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a draft's tree changes

    def __repr__(self) -> str:
        return f"Tree({self.to_list()!r})"


_NO_TREE = TreeState()  # of fields that nobody wrote to

B = TypeVar("B", bound=Bound)


def bound(container: B, view: View, name: Name, item: Any = None) -> B:
    """Return `container`, bound to `name` in `view`, to hold `item`s."""
    container._bind(view, name, item)
    return container


def wrap(view: View, entry: Entry, declared: Any = None) -> Any:
    """Return what one write shows, as an application handles it."""
    if not entry.type:
        return converted(entry.value, declared)
    return container_at(view, entry.container, entry.type, declared)


def container_at(view: View, name: Name, type_: int, declared: Any = None) -> Any:
    """Return a container as an application handles it."""
    match type_:
        case Type.COUNTER:
            return bound_counter(view, name, declared)
        case Type.TEXT:
            return bound(Text(), view, name)
        case Type.SET:
            return bound(Set[Any](), view, name, item_of(declared))
        case Type.LIST:
            return bound(List[Any](), view, name, item_of(declared))
        case Type.MULTI:
            return bound(MultiValue[Any](), view, name, item_of(declared))
        case Type.TREE:
            return bound(Tree[Any](), view, name, item_of(declared))
        case _:
            record = record_of(declared)
            if record is not None:
                return record._at(view, name)
            return bound(Map[str, Any](), view, name, item_of(declared))


def plain_value(value: Any) -> Any:
    """Return `value` without our classes."""
    if isinstance(value, Single):
        return value.value
    if isinstance(value, Map | Shaped):
        return cast(Map[str, Any], value).to_dict()
    if isinstance(value, Tree):
        return value.to_list()
    if isinstance(value, List | Set | MultiValue):
        return list(map(plain_value, cast(Iterable[Any], value)))
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, Counter):
        return int(value)
    if isinstance(value, FloatCounter):
        return float(value)
    return value


def _taken_out(view: View, entry: Entry, declared: Any) -> Any:
    """Return what one write shows, for when that is there no more."""
    from syncengine.documents.copies import copy_of  # which is made of these classes

    if entry.type:
        return copy_of(view, entry.container, entry.type)
    return converted(entry.value, declared)


def container_type(value: Any, path: str, declared: Any = None) -> int:
    """Return which container `value` becomes: 0 for a register's plain value."""
    if declared is not None:
        return container_of(declared)
    if isinstance(value, Single):
        values.check(value.value, path)
        return 0
    if value is None or isinstance(value, bool | str | bytes | datetime):
        values.check(value, path)
        return 0
    if isinstance(value, Counter | FloatCounter):
        return Type.COUNTER
    if isinstance(value, int | float):
        values.check(value, path)
        return 0
    if isinstance(value, dict | Map | Shaped):
        return Type.MAP
    if isinstance(value, list | List | tuple):
        return Type.LIST
    if isinstance(value, set | frozenset | Set):
        return Type.SET
    if isinstance(value, Bound):
        return type(value)._type
    values.check(value, path)
    raise AssertionError("unreachable: what is no container was checked")


def plain_of(value: Any, path: str, declared: Any) -> Any:
    """Return what a register is to hold; raises `Invalid`."""
    if declared is not None:
        return checked(value, declared, path)
    return value.value if isinstance(value, Single) else value


def _is_own(value: Counter | FloatCounter, view: View, path: str) -> bool:
    return getattr(value, "_view", None) is view and view.path(value._container) == path


def fill(
    view: View, name: ContainerId, type_: int, value: Any, path: str, declared: Any
) -> None:
    """Write the content of a container that was just made; raises `Invalid`."""
    value = _content(value, type_, path)
    match type_:
        case Type.MAP:
            record = record_of(declared)
            if record is not None:
                record._of(value, path)._write(view, name)
            elif isinstance(value, Shaped):
                value._write(view, name)
            else:
                inner = bound(Map[str, Any](), view, name, item_of(declared))
                for key, item in value.items():
                    values.check_key(key, path)
                    inner[key] = item
        case Type.LIST:
            bound(List[Any](), view, name, item_of(declared)).insert_all(0, value)
        case Type.SET:
            elements = bound(Set[Any](), view, name, item_of(declared))
            for item in value:
                elements.add(item)
        case Type.TEXT:
            text = bound(Text(), view, name)
            text.insert(0, str(value))
            if isinstance(value, Text) and (marks := value.marks()):
                text.restyle(marks)
        case Type.MULTI:
            bound(MultiValue[Any](), view, name, item_of(declared)).set(*value)
        case Type.TREE:
            bound(Tree[Any](), view, name, item_of(declared)).replace(value)
        case _:
            increment(view, name, _number(value))


def assign(
    view: View, name: Name, type_: int, value: Any, path: str, declared: Any = None
) -> None:
    """Make an existing container equal `value` by writing the difference; raises
    `Invalid`."""
    value = _content(value, type_, path)
    match type_:
        case Type.MAP:
            record = record_of(declared)
            if record is not None:
                record._of(value, path)._assign(view, name)
                return
            if isinstance(value, Shaped):
                value._assign(view, name)
                return
            inner = bound(Map[str, Any](), view, name, item_of(declared))
            for key in [key for key in inner if key not in value]:
                del inner[key]
            for key, item in value.items():
                wanted = exact(item, path)
                slot = view.slot(inner._container, key) if key in inner else ()
                if not slot or exact_entry(view, slot[0]) != wanted:
                    inner[key] = item
        case Type.LIST:
            bound(List[Any](), view, name, item_of(declared)).replace(value)
        case Type.SET:
            bound(Set[Any](), view, name, item_of(declared)).replace(value)
        case Type.TEXT:
            text = bound(Text(), view, name)
            text.replace(value)
            if isinstance(value, Text):
                text.restyle(value.marks())
        case Type.MULTI:
            bound(MultiValue[Any](), view, name, item_of(declared)).set(*value)
        case Type.TREE:
            bound(Tree[Any](), view, name, item_of(declared)).replace(value)
        case _:
            number = _number(value)
            increment(view, name, number - view.number(name))
            if view.number(name) != number:  # the difference was rounded
                increment(view, name, number - view.number(name))


def _content(value: Any, type_: int, path: str) -> Any:
    """Return what a container is to hold, read once; raises `Invalid`."""
    if type_ == Type.COUNTER:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        wrong = "a counter is set to a number"
    elif type_ == Type.TEXT:
        if isinstance(value, str | Text):
            return value
        wrong = "a text is set to a str"
    elif type_ == Type.MAP:
        if isinstance(value, Shaped):
            return value
        if isinstance(value, Mapping):
            return dict(cast(Mapping[str, Any], value))
        wrong = "a map is set to a mapping"
    elif type_ == Type.MULTI:
        several = isinstance(value, MultiValue)
        return list(cast(Iterable[Any], value)) if several else [value]
    elif type_ == Type.TREE:
        if isinstance(value, Tree | list):
            return cast(Any, value)
        wrong = "a tree is set to a tree"
    elif isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        wrong = f"a {Type(type_).name.lower()} is set to an iterable"
    else:
        return list(value)
    raise Invalid(f"{wrong}, not {type(value).__name__}", path=path)


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, int) else float(value)


def unmade(above: Name, key: str, type_: int) -> Name:
    """Return the name of the container at a key: in the document itself its own, else
    that of one which its first write makes."""
    return (key, type_) if above is None else Unmade(above, key, type_)
