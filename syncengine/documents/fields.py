"""The containers an application edits: Counter, Set, List, Text, and untyped maps.

The same classes stand in a `Document`'s annotations, where an empty one is the
default. In a draft they write operations; in a snapshot a write raises
`FrozenDocument`.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

from collections.abc import (
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
)
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, cast, overload

from syncengine import values
from syncengine.crdt.document import element_key
from syncengine.crdt.operation import Action, ContainerId, Type
from syncengine.crdt.register import EMPTY, Entry
from syncengine.crdt.sequence.difference import splices
from syncengine.documents.bound import Bound
from syncengine.documents.text import Text
from syncengine.documents.view import View, own_copy
from syncengine.errors import Invalid, NotFound

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar as _TypeVar

    def TypeVar(name: str, *, default: Any = None, **options: Any) -> Any:
        """Checkers know defaults; before Python 3.13 `typing` does not."""
        return _TypeVar(name, **options)


T = TypeVar("T")
K = TypeVar("K", bound=str, default=str)
V = TypeVar("V", default=Any)


class Counter(int):
    """An int to which many can add at once: `likes += 1`, or `increment()`.

    Nothing overwrites it: an assignment adds the difference to what you see.
    """

    _view: View
    _container: ContainerId

    def __get__(self, instance: object, owner: type | None = None) -> "Counter":
        return self

    def __set__(self, instance: object, value: int) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def increment(self, by: int | float = 1) -> None:
        """Add `by`, which may be negative."""
        increment(self._view, self._container, by)

    def decrement(self, by: int | float = 1) -> None:
        """Subtract `by`."""
        increment(self._view, self._container, -by)


class FloatCounter(float):
    """A counter to which a float was added."""

    _view: View
    _container: ContainerId

    def increment(self, by: int | float = 1) -> None:
        """Add `by`, which may be negative."""
        increment(self._view, self._container, by)

    def decrement(self, by: int | float = 1) -> None:
        """Subtract `by`."""
        increment(self._view, self._container, -by)


def increment(view: View, container: ContainerId, by: int | float) -> None:
    if type(by) not in (int, float):
        raise Invalid(
            f"a counter counts in int or float, not {type(by).__name__}",
            path=view.path(container),
        )
    values.check(by, view.path(container))
    if by:
        view.emit(Action.INCREMENT, container, by)
    else:
        view.writable()


def bound_counter(view: View, container: ContainerId) -> Counter | FloatCounter:
    number = view.number(container)
    counter: Counter | FloatCounter
    counter = Counter(number) if isinstance(number, int) else FloatCounter(number)
    counter._view, counter._container = view, container
    return counter


class Set(Bound, MutableSet[T], Generic[T]):
    """A set where a concurrent add wins over a remove that did not see it."""

    def __get__(self, instance: object, owner: type | None = None) -> "Set[T]":
        return self

    def __set__(self, instance: object, value: Iterable[T]) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def _elements(self) -> dict[bytes, Any]:
        return {} if self._view is None else self._view.elements(self._container)

    def add(self, value: T) -> None:
        view = self._bound()
        element_key(value, view.path(self._container))
        view.emit(Action.ADD, self._container, value)

    def discard(self, value: T) -> None:
        view = self._bound()
        if element_key(value, view.path(self._container)) in self._elements():
            view.emit(Action.REMOVE, self._container, value)
        else:
            view.writable()

    def replace(self, new: Iterable[T]) -> None:
        """Make this the set of `new` by adding and removing the difference."""
        view = self._bound()
        path = view.path(self._container)
        wanted = {element_key(value, path): value for value in new}
        with view.writable().whole():
            # In order, not as a set has them: that differs from process to process.
            here = dict.fromkeys(sorted(self._elements()))
            for element in here:
                if element not in wanted:
                    view.emit(Action.REMOVE, self._container, values.decode(element))
            for element, value in wanted.items():
                if element not in here:
                    view.emit(Action.ADD, self._container, value)

    def clear(self) -> None:
        self.replace(())

    def __contains__(self, value: object) -> bool:
        try:
            return element_key(value, "") in self._elements()
        except Invalid:
            return False

    def __iter__(self) -> Iterator[T]:
        for element in sorted(self._elements()):
            yield values.decode(element)

    def __len__(self) -> int:
        return len(self._elements())

    def __repr__(self) -> str:
        return f"Set({list(self)!r})"

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return set(it)


class MultiValue(Bound, Generic[T]):
    """A field where nobody wins: concurrent values all show, until somebody decides.

    `note.status = "done"` replaces those that you see; iterate to see them, the latest
    first.
    """

    def __get__(self, instance: object, owner: type | None = None) -> "MultiValue[T]":
        return self

    def __set__(self, instance: object, value: "T | MultiValue[T]") -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def set(self, *several: T) -> None:
        """Replace all that is seen by one value, or by several; none: by nothing."""
        view = self._bound()
        path = view.path(self._container)
        for value in several:
            values.check(value, path)
        view.emit(Action.MULTI_SET, self._container, list(several))

    def clear(self) -> None:
        """Replace all that is seen by nothing."""
        self.set()

    def _shown(self) -> list[T]:
        return [] if self._view is None else self._view.several(self._container)

    def __iter__(self) -> Iterator[T]:
        return iter(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def __contains__(self, value: object) -> bool:
        return any(_exact(value) == _exact(shown) for shown in self._shown())

    def __eq__(self, other: object) -> bool:
        """Equal to what shows the same values, whichever is the latest."""
        if isinstance(other, MultiValue | list | tuple | set | frozenset):
            theirs = list(cast(Iterable[Any], other))
            return len(theirs) == len(self) and all(value in self for value in theirs)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a draft's values change

    def __repr__(self) -> str:
        return f"MultiValue({self._shown()!r})"


class List(Bound, MutableSequence[T], Generic[T]):
    """A list that many can edit at once."""

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
            return [wrap(view, entry) for entry in self._shown()[index]]
        return wrap(view, view.entry_at(self._container, self._index(index)))

    def __iter__(self) -> Iterator[T]:
        if self._view is not None:
            for entry in self._shown():
                yield wrap(self._view, entry)

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
        at = self._at(self._index(index), 1)
        path = f"{view.path(self._container)}/{index}"
        type_ = container_type(value, path)
        if type_:
            with view.writable().whole():
                seq = view.emit(Action.LIST_PUT, self._container, at, type_)
                fill(view, (view.writable().actor, seq), type_, value, path)
        else:
            view.emit(Action.LIST_SET, self._container, at, value)

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
        element the latest counts. Raises `IndexError`.
        """
        view = self._bound()
        index, to = self._index(index), self._index(to)
        view.writable()
        if index != to:
            source = self._at(index, 1)
            target = self._at(to + (to > index))
            view.emit(Action.MOVE, self._container, source, target)

    def insert(self, index: SupportsIndex, value: T) -> None:
        self.insert_all(index.__index__(), [value])

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
                type_ = container_type(value, where)
                if not type_:
                    one: Any = value
                    plain.append(one.value if isinstance(one, Single) else one)
                    continue
                self._insert_plain(at + offset - len(plain), plain)
                plain = []
                seq = view.emit(
                    Action.LIST_MAKE, self._container, self._at(at + offset), type_
                )
                fill(view, (view.writable().actor, seq), type_, value, where)
            self._insert_plain(at + len(new) - len(plain), plain)

    def _insert_plain(self, at: int, plain: list[Any]) -> None:
        if plain:
            view = self._bound()
            view.emit(Action.LIST_INSERT, self._container, self._at(at), plain)

    def _index(self, index: int) -> int:
        length = len(self)
        at = index + length if index < 0 else index
        if not 0 <= at < length:
            raise IndexError(f"index {index} is beyond the length {length}")
        return at

    def _at(self, index: int, n: int = 0) -> int:
        view = self._bound()
        return view.author_position(self._container, Type.LIST, index, n)

    def replace(self, new: Iterable[T]) -> None:
        """Make this the list of `new` by edits where it differs: elements that stay
        keep what others do to them."""
        items = list(new)
        before: list[Any] = [_exact(item) for item in self]
        after: list[Any] = [_exact(item) for item in items]
        with self._bound().writable().whole():
            for start, deleted, end in splices(before, after):
                if deleted:
                    del self[start : start + deleted]
                if end.stop > end.start:
                    self.insert_all(start, items[end])

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


class Map(Bound, MutableMapping[K, V], Generic[K, V]):
    """A map whose keys merge one by one: a field, an untyped document, or a dict in it.

    Plain values become registers, a dict a map, a list a list; `counter()`, `text()`,
    `set()`, `list()` and `map()` name a container of that type, made by first use.
    """

    def __get__(self, instance: object, owner: type | None = None) -> "Map[K, V]":
        return self

    def __set__(self, instance: object, value: Mapping[K, V]) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def __getitem__(self, key: str) -> V:
        view = self._bound()
        slot = view.slot(self._container, key) if view.shows(self._container) else ()
        if not slot:
            raise KeyError(key)
        return wrap(view, slot[0])  # type: ignore[no-any-return]  # what was declared

    def __setitem__(self, key: str, value: V) -> None:
        view = self._bound()
        try:
            values.check_key(key, "")
            type_ = container_type(value, "")
        except Invalid:
            # Paths are made only for those who read them.
            values.check_key(key, view.path(self._container))
            container_type(value, view.path(self._container, key))
            raise
        if isinstance(value, Single):
            value = value.value
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
                assign(view, slot[0].container, type_, value)
            elif self._container is None:
                if slot:
                    view.emit(Action.DELETE, None, key)
                fill(view, (key, type_), type_, value, path)
            else:
                seq = view.emit(Action.MAKE, self._container, key, type_)
                fill(view, (view.writable().actor, seq), type_, value, path)

    def __delitem__(self, key: str) -> None:
        view = self._bound()
        if key not in self:
            raise KeyError(key)
        view.emit(Action.DELETE, self._container, key)

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


B = TypeVar("B", bound=Bound)


def bound(container: B, view: View, name: ContainerId) -> B:
    """Return `container`, bound to `name` in `view`."""
    container._bind(view, name)
    return container


def wrap(view: View, entry: Entry) -> Any:
    """Return what one write shows, as an application handles it."""
    match entry.type:
        case 0:
            return own_copy(entry.value)
        case Type.COUNTER:
            return bound_counter(view, entry.container)
        case Type.TEXT:
            return bound(Text(), view, entry.container)
        case Type.SET:
            return bound(Set[Any](), view, entry.container)
        case Type.LIST:
            return bound(List[Any](), view, entry.container)
        case Type.MULTI:
            return bound(MultiValue[Any](), view, entry.container)
        case _:
            return bound(Map[str, Any](), view, entry.container)


def plain_value(value: Any) -> Any:
    """Return `value` without our classes."""
    if isinstance(value, Single):
        return value.value
    if isinstance(value, Map):
        return value.to_dict()
    if isinstance(value, List | Set | MultiValue):
        return list(map(plain_value, cast(Iterable[Any], value)))
    if isinstance(value, Text):
        return str(value)
    return value


def _exact(value: Any) -> Any:
    """Return what is equal only for equal values of one type: True is not 1."""
    value = plain_value(value)
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: _exact(item) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_exact(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float):
        return ("float", value)
    return value


class Single:
    """A list or a dict that is to be one value, where it would become a container."""

    def __init__(self, value: Any):
        self.value = value


def container_type(value: Any, path: str) -> int:
    """Return which container `value` becomes: 0 for a register's plain value."""
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
    if isinstance(value, dict | Map):
        return Type.MAP
    if isinstance(value, list | List | tuple):
        return Type.LIST
    if isinstance(value, set | frozenset | Set):
        return Type.SET
    if isinstance(value, Text):
        return Type.TEXT
    if isinstance(value, MultiValue):
        return Type.MULTI
    values.check(value, path)
    raise AssertionError("unreachable: what is no container was checked")


def _is_own(value: Counter | FloatCounter, view: View, path: str) -> bool:
    return getattr(value, "_view", None) is view and view.path(value._container) == path


def fill(view: View, name: ContainerId, type_: int, value: Any, path: str) -> None:
    """Write the content of a container that was just made."""
    match type_:
        case Type.MAP:
            inner = bound(Map[str, Any](), view, name)
            for key, item in value.items():
                values.check_key(key, path)
                inner[key] = item
        case Type.LIST:
            bound(List[Any](), view, name).insert_all(0, list(value))
        case Type.SET:
            elements = bound(Set[Any](), view, name)
            for item in value:
                elements.add(item)
        case Type.TEXT:
            bound(Text(), view, name).insert(0, str(value))
        case Type.MULTI:
            bound(MultiValue[Any](), view, name).set(*value)
        case _:
            increment(view, name, _number(value))


def assign(view: View, name: ContainerId, type_: int, value: Any) -> None:
    """Make an existing container equal `value` by writing the difference."""
    match type_:
        case Type.MAP:
            inner = bound(Map[str, Any](), view, name)
            for key in [key for key in inner if key not in value]:
                del inner[key]
            for key, item in value.items():
                if key not in inner or _exact(inner[key]) != _exact(item):
                    inner[key] = item
        case Type.LIST:
            bound(List[Any](), view, name).replace(value)
        case Type.SET:
            bound(Set[Any](), view, name).replace(value)
        case Type.TEXT:
            bound(Text(), view, name).replace(value)
        case Type.MULTI:
            bound(MultiValue[Any](), view, name).set(*value)
        case _:
            increment(view, name, _number(value) - view.number(name))


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, int) else float(value)
