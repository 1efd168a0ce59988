"""Multi-value registers: concurrent values all show, until a write that saw them.

State: the maximal writes, as a register keeps them, and all of them are the value.
A write may bring several values at once (somebody keeps both), or none.
After Shapiro et al., "A comprehensive study of CRDTs" (2011), MV-Register.
"""

from collections.abc import Iterable

from syncengine import values
from syncengine.crdt import register
from syncengine.crdt.register import Entry, Seen, Slot


def write(slot: Slot, entries: Iterable[Entry], seen: Seen) -> Slot:
    """Return `slot` after a write of `entries`, whose author had seen `seen`."""
    written = (*register.unseen(slot, seen), *entries)
    if len(written) < 2:
        return written  # nearly always
    return tuple(sorted(written, key=_order))[::-1]


def shown(slot: Slot) -> list[values.Value]:
    """Return each value once, the latest first."""
    distinct: dict[bytes, values.Value] = {}
    for entry in slot:
        distinct.setdefault(values.canonical(entry.value), entry.value)
    return list(distinct.values())


def _order(entry: Entry) -> tuple[object, ...]:
    # Those of one write have one stamp.
    return (entry.hlc, entry.actor, entry.seq, values.canonical(entry.value))
