"""Add-wins sets (OR-set): an element is in while one of its adds was not removed.

State: canonical bytes of the element -> its dots, actor -> seq of the last add.
A remove drops the dots that its author had seen; a concurrent add survives it.
After Bieniusa et al., "An Optimized Conflict-free Replicated Set" (2012).
"""

from collections.abc import Mapping

from syncengine.crdt.register import Seen
from syncengine.ids import ActorId

Dots = Mapping[ActorId, int]


def unseen(dots: Dots, seen: Seen) -> dict[ActorId, int]:
    """Return the dots that a remove by one who had seen `seen` leaves."""
    if seen is None:
        return {}
    return {actor: seq for actor, seq in dots.items() if seq > seen.get(actor, 0)}


def add(dots: Dots, actor: ActorId, seq: int, seen: Seen) -> dict[ActorId, int]:
    """Return the dots after an add: it replaces those that its author had seen."""
    left = unseen(dots, seen)
    left[actor] = max(seq, left.get(actor, 0))
    return left
