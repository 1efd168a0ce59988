"""Counters: the sum of all increments, each counted once.

State is a subtotal per actor, in seq order: a pair of an exact int and a float.
Exactly-once comes from `(actor, seq)`: an operation is applied once or not at all.
Floats are read through `math.fsum`, so the order of actors cannot show.
"""

import math
from collections.abc import Mapping

from syncengine.ids import ActorId

Subtotals = Mapping[ActorId, tuple[int, float]]


def increment(subtotal: tuple[int, float], amount: int | float) -> tuple[int, float]:
    """Return an actor's `subtotal` after one more of its increments."""
    whole, fraction = subtotal
    if isinstance(amount, int):
        return whole + amount, fraction
    return whole, fraction + amount


def value(subtotals: Subtotals) -> int | float:
    """Return what the counter shows: an int unless a float was ever added."""
    whole = sum(part for part, _ in subtotals.values())
    fractions = [part for _, part in subtotals.values() if part]
    if not fractions:
        return whole
    return math.fsum([float(whole), *fractions])
