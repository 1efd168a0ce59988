"""The containers that hold plain values: Counter, Set, MultiValue."""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

import math
from collections.abc import Iterable, Iterator, MutableSet
from typing import TYPE_CHECKING, Any, Generic, cast

from syncengine import limits, values
from syncengine.crdt.counter import MOST, parts
from syncengine.crdt.document import element_key
from syncengine.crdt.operation import Action, Type
from syncengine.documents.bound import Bound, Name
from syncengine.documents.shape import converted, plain_item, unwrapped
from syncengine.documents.view import View
from syncengine.errors import Invalid

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar

T = TypeVar("T")

# An operation adds up to 2**63; more is several operations.
INCREMENT_MAX = 10_000 * limits.INT_MAX


class Counter(int):
    """An int to which many can add at once: `likes += 1`, or `increment()`.

    Nothing overwrites it: an assignment adds the difference to what you see.
    """

    _type = Type.COUNTER
    _view: View
    _container: Name

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
    """A counter of floats: as `Counter`, and reads as a float."""

    _type = Type.COUNTER
    _view: View
    _container: Name

    def __get__(self, instance: object, owner: type | None = None) -> "FloatCounter":
        return self

    def __set__(self, instance: object, value: float) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def increment(self, by: int | float = 1) -> None:
        """Add `by`, which may be negative."""
        increment(self._view, self._container, by)

    def decrement(self, by: int | float = 1) -> None:
        """Subtract `by`."""
        increment(self._view, self._container, -by)


def increment(view: View, container: Name, by: int | float) -> None:
    if type(by) not in (int, float):
        raise Invalid(
            f"a counter counts in int or float, not {type(by).__name__}",
            path=view.path(container),
        )
    path = view.path(container)
    if type(by) is float:
        values.check(by, path)
        if math.isinf(view.number(container) + by):
            raise Invalid(f"a counter counts to {MOST:g}", path=path)
    elif abs(by) > INCREMENT_MAX:
        raise Invalid(
            f"at once a counter grows by at most {INCREMENT_MAX}",
            path=path,
            bound=INCREMENT_MAX,
        )
    if -limits.INT_MAX <= by <= limits.INT_MAX:
        if by:
            view.emit(Action.INCREMENT, container, by)
        else:
            view.writable()
        return
    with view.writable().whole():
        for part in parts(by):
            view.emit(Action.INCREMENT, container, part)


def bound_counter(
    view: View, container: Name, declared: Any = None
) -> Counter | FloatCounter:
    number = view.number(container)
    counter: Counter | FloatCounter
    if isinstance(number, int) and unwrapped(declared)[0] is not FloatCounter:
        counter = Counter(number)
    else:
        counter = FloatCounter(number)
    counter._view, counter._container = view, container
    return counter


class Set(Bound, MutableSet[T], Generic[T]):
    """A set where a concurrent add wins over a remove that did not see it."""

    _type = Type.SET

    def __get__(self, instance: object, owner: type | None = None) -> "Set[T]":
        return self

    def __set__(self, instance: object, value: Iterable[T]) -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def _elements(self) -> dict[bytes, Any]:
        return {} if self._view is None else self._view.elements(self._container)

    def add(self, value: T) -> None:
        view = self._bound()
        plain = plain_item(value, self._item, view.path(self._container))
        element_key(plain, view.path(self._container))
        view.emit(Action.ADD, self._container, plain)

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
        plain = [plain_item(value, self._item, path) for value in new]
        wanted = {element_key(value, path): value for value in plain}
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
            yield converted(values.decode(element), self._item)

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

    _type = Type.MULTI

    def __get__(self, instance: object, owner: type | None = None) -> "MultiValue[T]":
        return self

    def __set__(self, instance: object, value: "T | MultiValue[T]") -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def set(self, *several: T) -> None:
        """Replace all that is seen by one value, or by several; none: by nothing."""
        view = self._bound()
        path = view.path(self._container)
        plain = [plain_item(value, self._item, path) for value in several]
        view.emit(Action.MULTI_SET, self._container, plain)

    def clear(self) -> None:
        """Replace all that is seen by nothing."""
        self.set()

    def _shown(self) -> list[T]:
        shown = [] if self._view is None else self._view.several(self._container)
        return [converted(value, self._item) for value in shown]

    def __iter__(self) -> Iterator[T]:
        return iter(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def __contains__(self, value: object) -> bool:
        try:
            values.check(value, "")
        except Invalid:
            return False
        one = values.canonical(value)
        return any(one == values.canonical(shown) for shown in self._shown())

    def __eq__(self, other: object) -> bool:
        """Equal to what shows the same values, whichever is the latest."""
        if isinstance(other, MultiValue | list | tuple | set | frozenset):
            theirs = list(cast(Iterable[Any], other))
            return len(theirs) == len(self) and all(value in self for value in theirs)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a draft's values change

    def __repr__(self) -> str:
        return f"MultiValue({self._shown()!r})"
