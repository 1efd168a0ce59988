"""Registers: one value shows, and what lost to it stays readable.

A slot (a key of a map, the value of a list's element) holds its *maximal* writes:
those that no other write had seen. The greatest by (hlc, actor, seq) shows; the
others are lost values. A slot may also hold containers: such an entry lives as long
as one of its touches (its making, or any operation below it) has not been seen by a
delete, and counts as written when it was touched last.

Laws (`tests/syncengine/crdt/test_register.py`): writing is commutative for
concurrent writes, idempotent, and leaves the same slot for every causal order.

Slots are immutable tuples: a snapshot shares them with the document.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from syncengine.crdt.operation import ContainerId
from syncengine.ids import ActorId, Stamp
from syncengine.values import Value

Touches = Mapping[ActorId, tuple[int, int]]
"""actor -> (greatest seq, its hlc)"""

Seen = Mapping[ActorId, int] | None
"""What the author of a write had seen; None: all that is here."""


class Entry(NamedTuple):
    """One maximal write. `type` is 0 for a plain value, else a container's type."""

    hlc: int
    actor: ActorId
    seq: int
    value: Value
    type: int = 0
    container: ContainerId = None
    touches: Touches | None = None


Slot = tuple[Entry, ...]
"""Entries, the one that shows first. An empty slot is as good as none."""

EMPTY: Slot = ()


def write(slot: Slot, entry: Entry, seen: Seen) -> Slot:
    """Return `slot` after `entry`, whose author had seen `seen`."""
    rest = unseen(slot, seen)
    if not rest:
        return (entry,)
    return _ordered((*rest, entry))


def unseen(slot: Slot, seen: Seen) -> Slot:
    """Return what a deletion by one who had seen `seen` leaves of `slot`."""
    if seen is None or not slot:
        return EMPTY
    if len(slot) == 1 and slot[0][6] is None:  # one plain value: the common case
        return slot if slot[0][2] > seen.get(slot[0][1], 0) else EMPTY
    kept: list[Entry] = []
    for entry in slot:
        if entry.touches is None:
            if entry.seq > seen.get(entry.actor, 0):
                kept.append(entry)
            continue
        left = {
            actor: touch
            for actor, touch in entry.touches.items()
            if touch[0] > seen.get(actor, 0)
        }
        if len(left) == len(entry.touches):
            kept.append(entry)
        elif left:
            kept.append(_touched(entry.type, entry.container, left))
    return _ordered(tuple(kept))


def touch(slot: Slot, type_: int, container: ContainerId, stamp: Stamp) -> Slot:
    """Return `slot` after an operation `stamp` in or below `container`."""
    hlc, actor, seq = stamp
    if len(slot) == 1:  # nearly always, and by one and the same for a while
        before = slot[0].touches
        if before is not None and len(before) == 1 and slot[0].container == container:
            last = before.get(actor)
            if last is not None and last[0] < seq:
                one = {actor: (seq, hlc)}
                return (Entry(hlc, actor, seq, None, type_, container, one),)
    touches: dict[ActorId, tuple[int, int]] = {}
    rest: list[Entry] = []
    for entry in slot:
        if entry.container == container:
            made = {entry.actor: (entry.seq, entry.hlc)}  # where none are kept yet
            touches.update(made if entry.touches is None else entry.touches)
        else:
            rest.append(entry)
    if touches.get(actor, (0, 0))[0] < seq:
        touches[actor] = (seq, hlc)
    entry = _touched(type_, container, touches)
    return _ordered((*rest, entry)) if rest else (entry,)


def _touched(type_: int, container: ContainerId, touches: Touches) -> Entry:
    if len(touches) == 1:
        ((actor, (seq, hlc)),) = touches.items()
    else:
        hlc, actor, seq = max((h, a, s) for a, (s, h) in touches.items())
    return Entry(hlc, actor, seq, None, type_, container, touches)


def _ordered(entries: Slot) -> Slot:
    if len(entries) < 2:
        return entries
    return tuple(sorted(entries, key=_stamp, reverse=True))


def _stamp(entry: Entry) -> Stamp:
    return entry[:3]


def encode(slot: Slot) -> list[list[object]]:
    """Return `slot` as it is kept: values and stamps in order."""
    return [
        [e.hlc, e.actor, e.seq, e.value]
        if not e.type
        else [e.hlc, e.actor, e.seq, None, e.type, _ref(e.container), _rows(e.touches)]
        for e in slot
    ]


def _ref(container: ContainerId) -> list[object] | None:
    return None if container is None else list(container)


def _rows(touches: Touches | None) -> list[list[object]] | None:
    if touches is None:
        return None
    return [[actor, *touch] for actor, touch in sorted(touches.items())]


def decode(raw: list[list[Any]]) -> Slot:
    """Invert `encode`."""
    return tuple(_entry(*fields) for fields in raw)


def _entry(
    hlc: int,
    actor: ActorId,
    seq: int,
    value: Value,
    type_: int = 0,
    container: list[Any] | None = None,
    touches: list[tuple[ActorId, int, int]] | None = None,
) -> Entry:
    return Entry(
        hlc,
        actor,
        seq,
        value,
        type_,
        None if container is None else (container[0], container[1]),
        None if touches is None else {a: (s, h) for a, s, h in touches},
    )
