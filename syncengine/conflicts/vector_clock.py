"""Vector clocks: which of two events could have known of the other.

After Fidge and Mattern (1988). The order is that of `syncengine.version`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from syncengine import values
from syncengine.errors import Invalid
from syncengine.version import covers, join

Order = Literal["before", "after", "equal", "concurrent"]


class VectorClock:
    """How many events of each node are known: `VectorClock({"usa": 1})`. Immutable.

    A node that is not named counts as 0. Raises `Invalid` for what is no count.
    """

    __slots__ = ("entries",)

    def __init__(self, entries: Mapping[str, int] | None = None):
        counts: dict[str, int] = {}
        given: Any = {} if entries is None else entries
        if not isinstance(given, Mapping):
            raise Invalid(
                f"a vector clock is counts by node, not {given!r}", path="vector_clock"
            )
        for node, count in cast(Mapping[str, int], given).items():
            values.check_key(node, "vector_clock")
            if type(count) is not int or count < 0:
                raise Invalid(
                    f"{node} counts its events: 0 or more, not {count!r}",
                    path=f"vector_clock/{node}",
                )
            if count:
                counts[node] = count
        self.entries: Mapping[str, int] = counts

    @classmethod
    def of(cls, raw: "VectorClock | Mapping[str, Any]") -> "VectorClock":
        """Return `raw` as a clock: one, its JSON, or `{"entries": its JSON}`."""
        if isinstance(raw, VectorClock) or not isinstance(cast(object, raw), Mapping):
            return raw if isinstance(raw, VectorClock) else cls(raw)
        entries: object = raw.get("entries")
        if isinstance(entries, Mapping):
            return cls(cast(Mapping[str, int], entries))
        return cls(raw)

    @staticmethod
    def compare(a: "VectorClock", b: "VectorClock") -> Order:
        """Return where `a` stands to `b`: it happened before it, after it, is the same,
        or neither knew of the other."""
        if covers(a.entries, b.entries):
            return "equal" if covers(b.entries, a.entries) else "after"
        return "before" if covers(b.entries, a.entries) else "concurrent"

    @staticmethod
    def merge(a: "VectorClock", b: "VectorClock") -> "VectorClock":
        """Return the clock of one who knows what both know."""
        return VectorClock(join(a.entries, b.entries))

    def tick(self, node: str) -> "VectorClock":
        """Return the clock after one more event of `node`."""
        return VectorClock({**self.entries, node: self[node] + 1})

    def to_json(self) -> dict[str, int]:
        """Return the counts by node, as `VectorClock` takes them."""
        return dict(sorted(self.entries.items()))

    def __getitem__(self, node: str) -> int:
        return self.entries.get(node, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorClock) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(frozenset(self.entries.items()))

    def __repr__(self) -> str:
        return f"VectorClock({self.to_json()})"
