"""Values that merge: state-based twins of the field types.

Laws (`tests/syncengine/conflicts/test_crdts.py`): `merge` is commutative, associative
and idempotent, changes the one that it is called on and never its argument; what
`to_json` says `from_json` makes again.

A replica's name for itself (`node_id`) must be its own: two that use the same one count
each other's increments as theirs.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from syncengine import values
from syncengine.crdt import counter, multivalue, register
from syncengine.crdt import set as add_wins
from syncengine.crdt.register import Entry, Slot
from syncengine.errors import Invalid
from syncengine.ids import ActorId
from syncengine.values import Value
from syncengine.version import advance, join

T = TypeVar("T")
Number = int | float

# Timestamps are stored as numbers of 64 bits.
TIMESTAMP_MAX = 2**63


class Mergeable(ABC):
    """A value that merges with another of its class. Equal by its state."""

    name: ClassVar[str]
    """What it is called where it is tagged, as in `register_crdt`."""

    node_id: str = ""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Take in what `other` has, which stays as it is."""

    @abstractmethod
    def to_json(self) -> Any:
        """Return the state, without whose it is, as a value."""

    @classmethod
    @abstractmethod
    def from_json(cls, state: Any, node_id: str = "") -> "Mergeable":
        """Make it of its state, to be changed as `node_id`; raises `Invalid`."""

    def copy(self) -> Self:
        return copy.deepcopy(self)

    def _check_same(self, other: object) -> None:
        if type(other) is not type(self):
            raise Invalid(
                f"a {type(self).__name__} merges with another one, not with a "
                f"{type(other).__name__}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mergeable) or type(other) is not type(self):
            return False
        ours, theirs = self.to_json(), other.to_json()
        return values.canonical(ours) == values.canonical(theirs)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_json()!r})"


class GCounter(Mergeable):
    """A counter that only grows: each node's total, of which the greatest is known.

    Shapiro et al., "A comprehensive study of CRDTs" (2011), G-Counter.
    """

    name = "gcounter"

    def __init__(self, node_id: str = ""):
        self.node_id = _node(node_id)
        self._totals: dict[str, Number] = {}

    def increment(self, n: Number = 1) -> None:
        """Add `n`, 0 or more. Raises `Invalid`; without a `node_id`, too."""
        _check_amount(n)
        node = _own(self)
        if n:
            self._totals[node] = _added(self._totals.get(node, 0), n)

    def value(self) -> Number:
        """Return the sum."""
        return _sum(self._totals.values())

    def merge(self, other: "GCounter") -> None:
        self._check_same(other)
        for node, total in other._totals.items():
            # A large int and a float that adds to it can be equal as numbers.
            ours = self._totals.get(node, 0)
            if (total, isinstance(total, float)) > (ours, isinstance(ours, float)):
                self._totals[node] = total

    def to_json(self) -> dict[str, Number]:
        return dict(sorted(self._totals.items()))

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "GCounter":
        made = cls(node_id)
        for node, total in _mapping(state, cls).items():
            _check_amount(total)
            if total:
                made._totals[_named(node)] = total
        return made


class PNCounter(Mergeable):
    """A counter that goes both ways: what was added, and what was taken.

    Shapiro et al. (2011), PN-Counter.
    """

    name = "pncounter"

    def __init__(self, node_id: str = ""):
        self._added, self._taken = GCounter(node_id), GCounter(node_id)
        self.node_id = node_id

    def increment(self, n: Number = 1) -> None:
        """Add `n`, 0 or more. Raises `Invalid`; without a `node_id`, too."""
        self._added.increment(n)

    def decrement(self, n: Number = 1) -> None:
        """Take `n`, 0 or more. Raises `Invalid`; without a `node_id`, too."""
        self._taken.increment(n)

    def value(self) -> Number:
        """Return what was added less what was taken."""
        taken = self._taken.to_json().values()
        return _sum([*self._added.to_json().values(), *(-total for total in taken)])

    def merge(self, other: "PNCounter") -> None:
        self._check_same(other)
        self._added.merge(other._added)
        self._taken.merge(other._taken)

    def to_json(self) -> dict[str, dict[str, Number]]:
        return {"positive": self._added.to_json(), "negative": self._taken.to_json()}

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "PNCounter":
        made, parts = cls(node_id), _mapping(state, cls)
        made._added = GCounter.from_json(parts.get("positive", {}), node_id)
        made._taken = GCounter.from_json(parts.get("negative", {}), node_id)
        return made


class GSet(Mergeable, Generic[T]):
    """A set that only grows. Elements are values; 1, 1.0, "1" and True are four.

    Shapiro et al. (2011), G-Set.
    """

    name = "gset"

    def __init__(self, elements: Iterable[T] = ()):
        self._elements: dict[bytes, T] = {}
        for element in elements:
            self.add(element)

    def add(self, element: T) -> None:
        """Put in an element; raises `Invalid` for what is no value."""
        self._elements.setdefault(_key(element), copy.deepcopy(element))

    def has(self, element: T) -> bool:
        return _key(element) in self._elements

    __contains__ = has

    def __len__(self) -> int:
        return len(self._elements)

    def elements(self) -> list[T]:
        """Return the elements, in the same order everywhere."""
        return _in_order(self._elements)

    def merge(self, other: "GSet[T]") -> None:
        self._check_same(other)
        for key, element in other._elements.items():
            self._elements.setdefault(key, element)

    def to_json(self) -> list[T]:
        return self.elements()

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "GSet[Any]":
        return cls(_list(state, cls))


class ORSet(Mergeable, Generic[T]):
    """A set in which an add wins over a remove that had not seen it.

    Bieniusa et al., "An Optimized Conflict-free Replicated Set" (2012): dots and what
    was seen, no tombstones.
    """

    name = "orset"

    def __init__(self, node_id: str = ""):
        self.node_id = _node(node_id)
        self._seen: dict[ActorId, int] = {}
        self._dots: dict[bytes, tuple[T, dict[ActorId, int]]] = {}

    def add(self, element: T) -> None:
        """Put in an element; raises `Invalid` for what is no value, and without a
        `node_id`."""
        key, actor = _key(element), _actor(_own(self))
        seq = self._seen.get(actor, 0) + 1
        self._seen[actor] = seq
        self._dots[key] = (copy.deepcopy(element), add_wins.add({}, actor, seq, None))

    def remove(self, element: T) -> None:
        """Take out an element, as far as its adds are known here."""
        self._dots.pop(_key(element), None)

    discard = remove

    def has(self, element: T) -> bool:
        return _key(element) in self._dots

    __contains__ = has

    def __len__(self) -> int:
        return len(self._dots)

    def elements(self) -> list[T]:
        """Return the elements, in the same order everywhere."""
        return _in_order({key: element for key, (element, _) in self._dots.items()})

    def merge(self, other: "ORSet[T]") -> None:
        self._check_same(other)
        merged: dict[bytes, tuple[T, dict[ActorId, int]]] = {}
        for key in self._dots.keys() | other._dots.keys():
            element, ours = self._dots.get(key) or (other._dots[key][0], {})
            _, theirs = other._dots.get(key) or (element, {})
            both = {
                actor: seq for actor, seq in ours.items() if theirs.get(actor) == seq
            }
            left = join(
                both,
                add_wins.unseen(ours, other._seen),
                add_wins.unseen(theirs, self._seen),
            )
            if left:
                merged[key] = (element, left)
        self._dots = merged
        advance(self._seen, other._seen.items())

    def to_json(self) -> dict[str, Any]:
        dots = sorted(self._dots.items())
        return {
            "elements": [[element, _named_counts(seqs)] for _, (element, seqs) in dots],
            "seen": _named_counts(self._seen),
        }

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "ORSet[Any]":
        made, parts = cls(node_id), _mapping(state, cls)
        made._seen = _counts(parts.get("seen", {}), cls)
        for element, seqs in _pairs(parts.get("elements", []), cls):
            made._dots[_key(element)] = (element, _counts(seqs, cls))
            advance(made._seen, made._dots[_key(element)][1].items())
        return made


class LWWRegister(Mergeable, Generic[T]):
    """A value that the write with the greatest (timestamp, node) decides.

    Johnson and Thomas, RFC 677 (1975). What lost is gone: a `MVRegister` keeps it.
    """

    name = "lwwregister"

    def __init__(self, node_id: str = ""):
        self.node_id = _node(node_id)
        self._value: Any = None
        self._timestamp: Number | None = None
        self._author = ""

    def set(self, value: T, timestamp: Number) -> bool:
        """Write; return whether it won over what is known. Raises `Invalid`, also
        without a `node_id`."""
        values.check(value, "value")
        check_timestamp(timestamp)
        return self._take(copy.deepcopy(value), timestamp, _own(self))

    def get(self) -> T | None:
        """Return the value; None before the first write."""
        return cast(T | None, self._value)

    def timestamp(self) -> Number | None:
        """Return the winning write's; None before the first one."""
        return self._timestamp

    def merge(self, other: "LWWRegister[T]") -> None:
        self._check_same(other)
        if other._timestamp is not None:
            self._take(other._value, other._timestamp, other._author)

    def _take(self, value: Any, timestamp: Number, author: str) -> bool:
        ours = self._timestamp
        if ours is not None and stamp_order(timestamp, author, value) <= stamp_order(
            ours, self._author, self._value
        ):
            return False
        self._value, self._timestamp, self._author = value, timestamp, author
        return True

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self._value,
            "timestamp": self._timestamp,
            "node_id": self._author,
        }

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "LWWRegister[Any]":
        made, parts = cls(node_id), _mapping(state, cls)
        if parts.get("timestamp") is not None:
            check_timestamp(parts["timestamp"])
            values.check(parts.get("value"), "value")
            author = _named(parts.get("node_id"))
            made._take(parts.get("value"), parts["timestamp"], author)
        return made


class MVRegister(Mergeable, Generic[T]):
    """All values that were written at once, until somebody writes who saw them.

    Shapiro et al. (2011), MV-Register.
    """

    name = "mvregister"

    def __init__(self, node_id: str = ""):
        self.node_id = _node(node_id)
        self._seen: dict[ActorId, int] = {}
        self._slot: Slot = ()

    def set(self, value: T) -> None:
        """Write over all that is known here. Raises `Invalid`; without a `node_id`,
        too."""
        values.check(value, "value")
        actor = _actor(_own(self))
        seq = self._seen.get(actor, 0) + 1
        self._seen[actor] = seq
        entry = Entry(0, actor, seq, copy.deepcopy(value))
        self._slot = multivalue.write((), [entry], None)

    def values(self) -> list[T]:
        """Return the values, each once, in the same order everywhere."""
        return cast(list[T], multivalue.shown(self._slot))

    def merge(self, other: "MVRegister[T]") -> None:
        self._check_same(other)
        both = set(_dots(self._slot)) & set(_dots(other._slot))
        kept = [entry for entry in self._slot if entry[1:3] in both]
        kept += register.unseen(self._slot, other._seen)
        kept += register.unseen(other._slot, self._seen)
        unique = {entry[1:3]: entry for entry in kept}
        self._slot = multivalue.write((), unique.values(), None)
        advance(self._seen, other._seen.items())

    def to_json(self) -> dict[str, Any]:
        written = [[e.value, e.actor.decode(), e.seq] for e in self._slot]
        return {"values": written, "seen": _named_counts(self._seen)}

    @classmethod
    def from_json(cls, state: Any, node_id: str = "") -> "MVRegister[Any]":
        made, parts = cls(node_id), _mapping(state, cls)
        made._seen = _counts(parts.get("seen", {}), cls)
        entries: list[Entry] = []
        for row in _list(parts.get("values", []), cls):
            value, node, seq = _row(row, 3, cls)
            ((actor, count),) = _counts({node: seq}, cls).items()
            values.check(value, "value")
            entries.append(Entry(0, actor, count, value))
        made._slot = multivalue.write((), entries, None)
        advance(made._seen, _dots(made._slot))
        return made


def stamp_order(timestamp: Number, node_id: str, value: Value) -> tuple[Any, ...]:
    """Return by what versions of a value are ordered; equal only for the same one."""
    return (timestamp, node_id, values.canonical(value))


def check_timestamp(timestamp: object) -> None:
    """Raise `Invalid` unless it is a finite number (milliseconds, by custom)."""
    is_number = type(timestamp) in (int, float)
    if not is_number or not -TIMESTAMP_MAX < cast(float, timestamp) < TIMESTAMP_MAX:
        raise Invalid("a timestamp is a finite number of 64 bits", path="timestamp")


def _check_amount(n: object) -> None:
    if type(n) not in (int, float):
        raise Invalid(f"a counter counts in numbers, not in {n!r}")
    values.check(n, "n")
    if cast(float, n) < 0:
        raise Invalid(f"{n} is less than 0; a PNCounter decrements")


def _added(total: Number, n: Number) -> Number:
    added = total + n
    if isinstance(added, float):
        return min(added, counter.MOST)
    values.check(added, "total")
    return added


def _sum(totals: Iterable[Number]) -> Number:
    """Return the sum as the counter of a document does: exact, rounded once."""
    return counter.value(
        {
            ActorId(b"%d" % number): (n, 0.0) if isinstance(n, int) else (0, n)
            for number, n in enumerate(totals)
        }
    )


def _node(node_id: object) -> str:
    values.check_key(node_id, "node_id")
    return cast(str, node_id)


def _named(node_id: object) -> str:
    if not _node(node_id):
        raise Invalid("a node has a name", path="node_id")
    return cast(str, node_id)


def _own(crdt: Mergeable) -> str:
    """Return as whom it is changed."""
    if not crdt.node_id:
        raise Invalid(
            f"a {type(crdt).__name__} without a node_id can be read and merged; give "
            "the name of this node to change it",
            path="node_id",
        )
    return crdt.node_id


def _actor(node: str) -> ActorId:
    return ActorId(node.encode())


def _dots(slot: Slot) -> list[tuple[ActorId, int]]:
    return [(entry.actor, entry.seq) for entry in slot]


def _key(element: object) -> bytes:
    values.check(element, "element")
    return values.canonical(element)


def _in_order(elements: Mapping[bytes, T]) -> list[T]:
    """Return elements by kind: numbers by size, texts by their letters, others by their
    canonical bytes."""

    def order(item: tuple[bytes, T]) -> tuple[Any, ...]:
        key, element = item
        if isinstance(element, str):
            return (1, element, key)
        if isinstance(element, int | float):
            return (0, element, key)
        return (2, key)

    return [element for _, element in sorted(elements.items(), key=order)]


def _named_counts(counts: Mapping[ActorId, int]) -> dict[str, int]:
    return {actor.decode(): seq for actor, seq in sorted(counts.items())}


def _counts(raw: object, cls: type) -> dict[ActorId, int]:
    counts: dict[ActorId, int] = {}
    for node, seq in _mapping(raw, cls).items():
        if type(seq) is not int or seq < 1:
            raise Invalid(f"{seq!r} is no count of the writes of {node!r}")
        counts[_actor(_named(node))] = seq
    return counts


def _mapping(raw: object, cls: type) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise Invalid(f"{raw!r} is not the state of a {cls.__name__}")
    return cast(Mapping[str, Any], raw)


def _list(raw: object, cls: type) -> list[Any]:
    if not values.is_list(raw):
        raise Invalid(f"{raw!r} is not the state of a {cls.__name__}")
    return raw


def _pairs(raw: object, cls: type) -> list[tuple[Any, Any]]:
    return [cast(tuple[Any, Any], _row(row, 2, cls)) for row in _list(raw, cls)]


def _row(raw: object, length: int, cls: type) -> tuple[Any, ...]:
    row = _list(raw, cls)
    if len(row) != length:
        raise Invalid(f"{raw!r} is not part of the state of a {cls.__name__}")
    return tuple(row)
