"""Counters: the sum of all increments, each counted once.

State is a subtotal per actor, in seq order: a pair of an exact int and a float.
Exactly-once comes from `(actor, seq)`: an operation is applied once or not at all.
Floats are added exactly and rounded once, so the order of actors cannot show; what is
beyond all floats is the greatest of them (`MOST`), never an infinity.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction

from syncengine import limits
from syncengine.ids import ActorId

MOST = sys.float_info.max

Subtotals = Mapping[ActorId, tuple[int, float]]


def increment(subtotal: tuple[int, float], amount: int | float) -> tuple[int, float]:
    """Return an actor's `subtotal` after one more of its increments."""
    whole, fraction = subtotal
    if isinstance(amount, int):
        return whole + amount, fraction
    return whole, max(-MOST, min(MOST, fraction + amount))


def value(subtotals: Subtotals) -> int | float:
    """Return what the counter shows: an int unless a float was ever added."""
    whole = sum(part for part, _ in subtotals.values())
    fractions = [part for _, part in subtotals.values() if part]
    if not fractions:
        return whole
    try:
        return math.fsum([float(whole), *fractions])
    except OverflowError:  # on the way, or of what there is
        exact = whole + sum(map(Fraction, fractions))
        return float(max(-Fraction(MOST), min(Fraction(MOST), exact)))


def parts(amount: int | float) -> Iterator[int | float]:
    """Yield what to add one by one to add `amount`: an operation has 64 bits, a total
    may have more."""
    if isinstance(amount, float):
        if amount:
            yield amount
        return
    while amount:
        part = max(limits.INT_MIN, min(limits.INT_MAX, amount))
        yield part
        amount -= part
