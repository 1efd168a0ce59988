"""Which version of a value stands, or what becomes of several.

A strategy is a pure function of the *set* of versions: who is asked, and in which order
they are given, cannot show in the value. That is what lets each replica decide for
itself. `converges` says whether the same holds when versions come in one after another,
in any order and again: whether what was resolved may be resolved further.
"""

import copy
import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

from syncengine import values
from syncengine.conflicts.crdts import Mergeable, Number, check_timestamp
from syncengine.conflicts.tagging import to_plain
from syncengine.conflicts.vector_clock import VectorClock
from syncengine.errors import Invalid

Stamp = tuple[Number, str]
"""(timestamp, node): when and by whom a field was written"""

How = Literal["local", "remote", "merged", "custom"]


@dataclass(frozen=True)
class ConflictEntry:
    """A version of a value: what, when (milliseconds, by custom) and by which node.

    `stamps` says of fields that were written at another time than the rest. Raises
    `Invalid`, naming the path, for what cannot be stored.
    """

    value: Any
    timestamp: Number
    node_id: str
    vector_clock: VectorClock | Mapping[str, Any] | None = None
    stamps: Mapping[str, Stamp] = field(default_factory=dict[str, Stamp])

    def __post_init__(self) -> None:
        check_timestamp(self.timestamp)
        values.check_key(self.node_id, "node_id")
        to_plain(self.value)
        if self.vector_clock is not None:
            clock = VectorClock.of(self.vector_clock)
            object.__setattr__(self, "vector_clock", clock)
        stamps: dict[str, Stamp] = {}
        if not isinstance(cast(object, self.stamps), Mapping):
            raise Invalid("stamps are (timestamp, node) by field", path="stamps")
        for name, stamp in self.stamps.items():
            try:
                timestamp, node = stamp
            except (TypeError, ValueError):
                raise Invalid(
                    f"a stamp is (timestamp, node), not {stamp!r}",
                    path=f"stamps/{name}",
                ) from None
            check_timestamp(timestamp)
            values.check_key(node, f"stamps/{name}")
            stamps[name] = (timestamp, node)
        object.__setattr__(self, "stamps", stamps)

    @property
    def clock(self) -> VectorClock:
        """The vector clock; raises `Invalid` where there is none."""
        if self.vector_clock is None:
            raise Invalid(
                "this strategy compares vector clocks, and an entry has none; give it "
                "one, or use another strategy",
                path="vector_clock",
            )
        return cast(VectorClock, self.vector_clock)

    @functools.cached_property
    def order(self) -> tuple[Number, str, bytes]:
        """By what versions are ordered: time, node, and the value where one node wrote
        two at once. Equal only for the same version."""
        return (self.timestamp, self.node_id, values.canonical(to_plain(self.value)))

    def resolved(self, resolution: How = "custom", **changes: Any) -> "Resolution":
        """Return this version, with changes, as what a resolver function decided."""
        return _resolution(replace(self, **changes), resolution)


@dataclass(frozen=True)
class Resolution:
    """What became of versions: a version itself, and how it came about.

    `resolution`: "local" (the first one given stands), "remote" (another one does),
    "merged" or "custom". `conflicts`: the versions of which none knew of another, where
    the strategy can tell. May be resolved further.
    """

    value: Any
    resolution: How
    conflicts: tuple[ConflictEntry, ...]
    timestamp: Number
    node_id: str
    vector_clock: VectorClock | None = None
    stamps: Mapping[str, Stamp] = field(default_factory=dict[str, Stamp])

    @property
    def entry(self) -> ConflictEntry:
        """This as a version."""
        return ConflictEntry(
            self.value, self.timestamp, self.node_id, self.vector_clock, self.stamps
        )


Version = ConflictEntry | Resolution


class Strategy(ABC):
    """What decides between versions of a value."""

    name: ClassVar[str]
    converges: ClassVar[bool]
    why: ClassVar[str]
    """Why it converges, or what it takes that it does."""

    @abstractmethod
    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        """Return what becomes of `versions`, given in order and each once.

        Its `resolution` may be "merged" or "custom"; otherwise the resolver finds out
        whether it is one of those that were given.
        """


class LastWriteWinsStrategy(Strategy):
    """The latest version stands; of two at one time, that of the greater node."""

    name = "lww"
    converges = True
    why = "the greatest of a set, by a total order, does not depend on how it is asked"

    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        return _resolution(versions[-1], "remote")


class VersionVectorStrategy(Strategy):
    """The version that knew of all others stands; where none did, the latest of those
    that nobody knew of, and all of them are the `conflicts`."""

    name = "version_vector"
    converges = True
    why = "a resolution bears its conflicts, and is resolved further as those"

    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        greatest = [
            one
            for one in versions
            if all(
                VectorClock.compare(one.clock, o.clock) != "before" for o in versions
            )
        ]
        shown = _resolution(greatest[-1], "remote")
        if len(greatest) == 1:
            return shown
        clock = functools.reduce(VectorClock.merge, (one.clock for one in greatest))
        return replace(
            shown, resolution="merged", conflicts=tuple(greatest), vector_clock=clock
        )


class FieldMergeStrategy(Strategy):
    """All fields of all versions; one that several have is taken from the latest.

    A field that a version does not have is not deleted by it; None does that.
    """

    name = "field"
    converges = True
    why = "each field has its own stamp, and the greatest of a set decides"

    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        fields: dict[str, list[tuple[Stamp, Any]]] = {}
        for one in versions:
            for name, value in _fields(one).items():
                stamp = one.stamps.get(name, (one.timestamp, one.node_id))
                fields.setdefault(name, []).append((stamp, value))
        merged = {name: self.merge(written) for name, written in fields.items()}
        latest = versions[-1]
        value = {name: value for name, (_, value) in merged.items()}
        stamps = {
            name: stamp
            for name, (stamp, _) in merged.items()
            if stamp != (latest.timestamp, latest.node_id)
        }
        return replace(_resolution(latest, "remote"), value=value, stamps=stamps)

    def merge(self, written: list[tuple[Stamp, Any]]) -> tuple[Stamp, Any]:
        """Return what becomes of the values of one field."""
        return max(written, key=lambda one: (*one[0], _canonical(one[1])))


class CRDTMergeStrategy(FieldMergeStrategy):
    """As `FieldMergeStrategy`, but CRDTs of one class in one field merge.

    Where a field holds CRDTs and other values, the CRDTs stand, whatever is later: the
    rest cannot be merged with what others count on. Of several classes the greatest
    name stands. A version may be a CRDT as a whole.
    """

    name = "crdt"
    converges = True
    why = "CRDTs merge by their laws, other fields by their stamps"

    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        if not any(isinstance(one.value, Mergeable) for one in versions):
            return super().resolve(versions)
        written = [((one.timestamp, one.node_id), one.value) for one in versions]
        _, value = self.merge(written)
        return replace(_resolution(versions[-1], "remote"), value=value)

    def merge(self, written: list[tuple[Stamp, Any]]) -> tuple[Stamp, Any]:
        crdts = [
            (stamp, value) for stamp, value in written if isinstance(value, Mergeable)
        ]
        if not crdts:
            return super().merge(written)
        name = max(value.name for _, value in crdts)
        alike = [(stamp, value) for stamp, value in crdts if value.name == name]
        stamp = max(stamp for stamp, _ in alike)
        merged = alike[0][1].copy()
        for _, value in alike[1:]:
            merged.merge(value)
        return stamp, merged


Resolver = Callable[[ConflictEntry, ConflictEntry], Any]
ResolveAll = Callable[[Sequence[ConflictEntry]], Any]


class MergeWarning(UserWarning):
    """A function that resolves does not do so in every order alike."""


class CustomResolverStrategy(Strategy):
    """A function decides: of two versions, the earlier and the later, as often as there
    are more of them; or of all at once (`resolve_all=`), the earliest first.

    It gets copies and returns a version (`later.resolved("custom")`, a `ConflictEntry`,
    or a mapping with `value`, `timestamp`, `node_id` and maybe `resolution`); anything
    else raises `Invalid`. With `debug` it is called twice: `Invalid` when it returns
    another result or changes what it was given, `MergeWarning` when two versions the
    other way round, or three in another order, have another value.
    """

    name = "custom"
    converges = False
    why = (
        "a function is not known to be commutative, associative and idempotent; with "
        "debug=True it is tried on what comes in"
    )

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        resolve_all: ResolveAll | None = None,
        debug: bool = False,
    ):
        if (resolver is None) == (resolve_all is None):
            raise Invalid("give a function of two versions, or resolve_all=, not both")
        for function in (resolver, resolve_all):
            if function is not None and not callable(function):
                raise Invalid(f"{function!r} is not a function")
        self._two, self._all, self._debug = resolver, resolve_all, debug

    def resolve(self, versions: Sequence[ConflictEntry]) -> Resolution:
        decided = self._decide(versions)
        if self._debug:
            again = self._decide(versions)
            if _canonical([again.value, again.timestamp]) != _canonical(
                [decided.value, decided.timestamp]
            ):
                raise Invalid(
                    f"{self._function} returned another value for the same versions: "
                    "replicas would not agree; it must depend on them alone"
                )
            orders = [versions[::-1], [*versions[1:], versions[0]]]
            for order in orders if self._two and len(versions) > 1 else []:
                if _canonical(self._decide(order).value) != _canonical(decided.value):
                    warnings.warn(
                        f"{self._function} has another value for the same versions in "
                        "another order: what is resolved twice depends on who comes "
                        "first",
                        MergeWarning,
                        stacklevel=3,
                    )
                    break
        return decided

    @property
    def _function(self) -> str:
        function = self._two or self._all
        return getattr(function, "__qualname__", repr(function))

    def _decide(self, versions: Sequence[ConflictEntry]) -> Resolution:
        if self._all is not None:
            return self._call(self._all, [list(versions)], versions)
        assert self._two is not None
        decided = _resolution(versions[0], "local")
        for one in versions[1:]:
            both = (decided.entry, one)
            decided = self._call(self._two, both, both)
        return decided

    def _call(
        self, function: Callable[..., Any], args: Sequence[Any], of: Iterable[Any]
    ) -> Resolution:
        before = [one.order for one in of] if self._debug else []
        given = copy.deepcopy(list(args))
        decided = self._checked(function(*given))
        if self._debug:
            flat = given[0] if self._all is not None else given
            after = [replace(one).order for one in flat]
            if after != before:
                raise Invalid(
                    f"{self._function} changed what it was given; it must return "
                    "something new"
                )
        return decided

    def _checked(self, decided: Any) -> Resolution:
        if isinstance(decided, Resolution):
            return decided
        if isinstance(decided, ConflictEntry):
            return _resolution(decided, "custom")
        if isinstance(decided, Mapping):
            parts = cast(Mapping[str, Any], decided)
            if {"value", "timestamp", "node_id"} <= parts.keys():
                how = parts.get("resolution", "custom")
                entry = ConflictEntry(
                    parts["value"],
                    parts["timestamp"],
                    parts["node_id"],
                    parts.get("vector_clock"),
                )
                if how in ("local", "remote", "merged", "custom"):
                    return _resolution(entry, how)
        raise Invalid(
            f"{self._function} returned {decided!r}; return a version: value, "
            "timestamp, node_id, and a resolution of local, remote, merged or custom"
        )


STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        LastWriteWinsStrategy,
        VersionVectorStrategy,
        FieldMergeStrategy,
        CRDTMergeStrategy,
    )
}


class ConflictResolver:
    """Decides between versions by a strategy, given as such or by its name.

        ConflictResolver(LastWriteWinsStrategy()).resolve(local, remote).value

    Raises `Invalid` for an unknown one.
    """

    def __init__(self, strategy: Strategy | str):
        if isinstance(strategy, str):
            known = STRATEGIES.get(strategy)
            if known is None:
                raise Invalid(
                    f"there is no strategy {strategy!r}; there are "
                    f"{', '.join(sorted(STRATEGIES))} and CustomResolverStrategy"
                )
            strategy = known()
        elif not isinstance(cast(object, strategy), Strategy):
            raise Invalid(f"{strategy!r} is not a strategy; make one: {strategy!r}()")
        self.strategy = strategy

    def resolve(
        self, local: Version | Sequence[Version], remote: Version | None = None
    ) -> Resolution:
        """Return what becomes of two versions, or of those in a sequence.

        Neither is changed. Raises `Invalid` for none, and for what the strategy cannot
        take.
        """
        given: list[Version] = [] if remote is None else [remote]
        if isinstance(local, ConflictEntry | Resolution):
            given.insert(0, local)
        elif isinstance(cast(object, local), Sequence):
            given[:0] = local
        else:
            raise Invalid(f"{local!r} is no version; make a ConflictEntry of it")
        if not given:
            raise Invalid("there is no version to resolve")
        entries: list[ConflictEntry] = []
        for one in given:
            if isinstance(one, Resolution):
                entries += one.conflicts or [one.entry]
            elif isinstance(cast(object, one), ConflictEntry):
                entries.append(one)
            else:
                raise Invalid(f"{one!r} is no version; make a ConflictEntry of it")
        unique = {
            (one.order, one.vector_clock, tuple(sorted(one.stamps.items()))): one
            for one in entries
        }
        versions = sorted(unique.values(), key=lambda one: one.order)
        decided = self.strategy.resolve(versions)
        if decided.resolution in ("custom", "merged"):
            return decided
        return replace(decided, resolution=_how(decided, given))


def _how(decided: Resolution, given: Sequence[Version]) -> How:
    """Return which of the given versions stands."""
    value = _canonical(decided.value)
    alike = [
        at
        for at, one in enumerate(given)
        if (one.timestamp, one.node_id) == (decided.timestamp, decided.node_id)
        and _canonical(one.value) == value
    ]
    if not alike:
        return "merged"
    return "remote" if alike[0] else "local"


def _resolution(entry: ConflictEntry, how: How) -> Resolution:
    clock = cast(VectorClock | None, entry.vector_clock)
    return Resolution(
        entry.value, how, (), entry.timestamp, entry.node_id, clock, entry.stamps
    )


def _fields(entry: ConflictEntry) -> Mapping[str, Any]:
    value: object = entry.value
    if not isinstance(value, Mapping):
        raise Invalid(
            f"fields are merged of mappings, not of {type(value).__name__}; use "
            "another strategy",
            path="value",
        )
    return cast(Mapping[str, Any], value)


def _canonical(value: object) -> bytes:
    return values.canonical(to_plain(value))
