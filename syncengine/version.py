"""What a replica has seen: version vectors, called frontiers when they have no gaps.

A version is a plain dict from actor to the last seq seen; an absent actor means 0.
Laws, shown in `tests/syncengine/test_version.py`: `join` is commutative, associative
and idempotent, and `covers` is the order it makes.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from syncengine.ids import ActorId, OpId

Version = Mapping[ActorId, int]

Node = TypeVar("Node", ActorId, str)
"""Who counts: an actor, or a node of a `VectorClock` by its name."""


def covers(version: Mapping[Node, int], other: Mapping[Node, int]) -> bool:
    """Tell whether `version` has seen everything that `other` has."""
    return all(version.get(node, 0) >= seq for node, seq in other.items())


def join(*versions: Mapping[Node, int]) -> dict[Node, int]:
    """Return the least version that covers all of `versions`."""
    joined: dict[Node, int] = {}
    for version in versions:
        advance(joined, version.items())
    return joined


def advance(version: dict[Node, int], items: Iterable[tuple[Node, int]]) -> None:
    """Raise `version` in place to cover the ids in `items`."""
    for actor, seq in items:
        if seq > version.get(actor, 0):
            version[actor] = seq


def growth(before: Version, after: Version) -> list[OpId]:
    """Return, in actor order, the entries of `after` that exceed `before`."""
    return sorted(
        (actor, seq) for actor, seq in after.items() if seq > before.get(actor, 0)
    )
