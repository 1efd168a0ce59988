"""Lists: slots in order, each element with a register for its value and its place.

The initial value of an element is its first write. A move is a new slot and a write of
the element's place, so that of concurrent moves one counts and nothing is doubled.
Deleting an element is final, whatever was concurrently written to it or wherever it was
moved: an element lives while none of its slots has been deleted.

Slots that do not show (left behind by a move, or made by one that lost) count in the
positions of operations, as `author_ranges` tells.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from syncengine import values
from syncengine.crdt import register
from syncengine.crdt.register import EMPTY, Entry, Seen, Slot
from syncengine.crdt.sequence.order import Order
from syncengine.crdt.sequence.state import Cell, Read, Sequence, Undo
from syncengine.ids import ActorId, OpId, Stamp

ORDER, ELEMENT, PLACE = b"o", b"e", b"q"

MOVED = -1
"""The type of an entry that is no value: a slot made by a move, or a place."""

Write = tuple[Entry, Seen]
"""The content of a SET: what is written, and what its author had seen."""


@dataclass(slots=True)
class _Taken:
    """What a splice did: enough to take it back."""

    pos: int
    gone: list[tuple[OpId, bool]]
    """(slot, whether it was hidden)"""
    dead: list[tuple[OpId, Slot, Slot, OpId | None]]
    """(element, its value, its place, the slot that was hidden for it)"""
    inserted: int


class ListState(Sequence):
    """A list. An element's name is that of the slot in which it was inserted.

    Invariants: (1) `slots` has the elements that live; (2) `places` has those of them
    that were ever moved, with the slots they were moved to; (3) `element_of` has the
    elements of slots that moves made, whether they live or not; (4) a slot shows iff
    its element lives and is there now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order = Order()
        self.slots: dict[OpId, Slot] = {}
        self.places: dict[OpId, Slot] = {}
        self.element_of: dict[OpId, OpId] = {}
        self.put_in: dict[OpId, OpId] = {}
        """In which element a container was put that is just being made"""
        self.lost: list[Entry] = []
        """Writes that went with an element whose deletion had not seen them"""
        self.changed: set[OpId] = set()
        self._deleter: Seen = None
        self._placed: set[OpId] = set()  # whose place is stored

    @property
    def length(self) -> int:
        return self.order.length

    @property
    def shown_length(self) -> int:
        """How many elements a reader sees."""
        return self.order.shown

    def elements(self) -> Iterator[OpId]:
        """Yield the elements that a reader sees, in order."""
        if not self.element_of:
            return iter(self.order)
        return (self.element_of.get(slot, slot) for slot in self.order)

    def element_at(self, index: int) -> OpId:
        """Return the element that a reader sees at an index."""
        slot = self.order.at_index(index)
        return self.element_of.get(slot, slot)

    def index_of(self, element: OpId) -> int:
        """Return at which index a reader sees a living element."""
        return self.order.index(self._place_of(element))

    def author_ranges(self, pos: int, n: int) -> list[tuple[int, int]]:
        order = self.order
        if not order.hidden:
            return super().author_ranges(pos, n)
        if not n:
            behind = order.position(order.at_index(pos - 1)) + 1 if pos else 0
            return super().author_ranges(behind, 0)
        wanted: list[int] = []
        for index in range(pos, pos + n):
            element = self.element_at(index)
            slots = {element, *(_slot_of(e) for e in self.places.get(element, ()))}
            wanted += [order.position(slot) for slot in slots if slot in order]
        found: list[tuple[int, int]] = []
        for at in sorted(wanted, reverse=True):
            if found and found[-1][0] == at + 1:
                found[-1] = (at, found[-1][1] + 1)
            else:
                found.append((at, 1))
        parts: list[tuple[int, int]] = []
        for at, count in found:
            parts += super().author_ranges(at, count)
        return parts

    def apply(
        self,
        kind: int,
        pos: int,
        n: int,
        content: Any,
        stamp: Stamp,
        seen: Seen,
        undo: Undo,
    ) -> None:
        self._deleter = seen
        super().apply(kind, pos, n, content, stamp, seen, undo)

    def _splice(
        self, pos: int, deleted: int, content: list[Entry] | None, undo: Undo
    ) -> None:
        order = self.order
        index = order.index_at(pos) if self._watching else 0
        taken = _Taken(pos, [], [], 0)
        if deleted:
            taken.gone = order.delete(pos, deleted)
            shown = sum(not hidden for _, hidden in taken.gone)
            if self._watching and shown:
                self._edited(index, shown, [])
            for slot, _ in taken.gone:
                self._die(self.element_of.get(slot, slot), taken)
        if content:
            names = [(entry.actor, entry.seq) for entry in content]
            taken.inserted = len(names)
            order.insert(pos, names)
            for name, entry in zip(names, content, strict=True):
                if entry.type == MOVED:
                    order.show(name, shown=False)  # until it is told whose place it is
                else:
                    self.slots[name] = (entry,)
            self.changed.update(names)
            if self._watching and content[0].type != MOVED:
                self._edited(index, 0, [entry.value for entry in content])
        if undo is not None:
            undo.append(lambda: self._unsplice(taken))

    def _die(self, element: OpId, taken: "_Taken") -> None:
        """One of its slots was deleted: the others show no more."""
        value = self.slots.pop(element, None)
        if value is None:
            return
        if self._deleter is not None:
            self.lost += register.unseen(value, self._deleter)
        place = self.places.pop(element, EMPTY)
        self.changed.add(element)
        here = _slot_of(place[0]) if place else element
        hides = here in self.order and here not in self.order.hidden
        if hides:
            if self._watching:
                self._edited(self.order.index(here), 1, [])
            self.order.show(here, shown=False)
        taken.dead.append((element, value, place, here if hides else None))

    def _unsplice(self, taken: "_Taken") -> None:
        order = self.order
        if taken.inserted:
            for name, _ in order.delete(taken.pos, taken.inserted):
                self.slots.pop(name, None)
        if taken.gone:
            order.insert(taken.pos, [slot for slot, _ in taken.gone])
            for slot, hidden in taken.gone:
                order.show(slot, shown=not hidden)
        for element, value, place, hid in taken.dead:
            self.slots[element] = value
            if place:
                self.places[element] = place
            if hid is not None:
                order.show(hid, shown=True)

    def _set(self, pos: int, content: list[Write], undo: Undo) -> None:
        slot = self.order.at(pos)
        element = self.element_of.get(slot, slot)
        before = self.slots.get(element)
        if before is None:  # it was deleted, or nobody knows whose place this was
            self._missed(content)
            return
        self.changed.add(element)
        ((entry, seen),) = content
        if entry.type == MOVED:
            self._move(element, entry._replace(type=0), seen, undo)
            return
        self.slots[element] = register.write(before, entry, seen)
        if entry.type:
            self.put_in[(entry.actor, entry.seq)] = element
        if self._watching:
            shown = self.slots[element][0].value
            self._edited(self.index_of(element), 1, [shown])
        if undo is not None:
            undo.append(lambda: self.slots.__setitem__(element, before))

    def _missed(self, content: list[Write]) -> None:
        ((entry, _),) = content
        if entry.type != MOVED:
            self.lost.append(entry)

    def touch(
        self, element: OpId, type_: int, container: OpId, stamp: Stamp, undo: Undo
    ) -> None:
        """Let an operation in or below a container that an element holds keep that
        alive, beside what somebody put there who had not seen it."""
        before = self.slots.get(element)
        if before is None:  # deleted, which is for good
            hlc, actor, seq = stamp
            touches = {actor: (seq, hlc)}
            entry = Entry(hlc, actor, container[1], None, type_, container, touches)
            self.lost.append(entry)
            return
        if undo is not None:
            self._remember(undo)
            undo.append(lambda: self.slots.__setitem__(element, before))
        after = self.slots[element] = register.touch(before, type_, container, stamp)
        self.changed.add(element)
        if self._watching and after[0].container != before[0].container:
            self._edited(self.index_of(element), 1, [after[0].value])

    def _place_of(self, element: OpId) -> OpId:
        """Return the slot in which a living element shows."""
        place = self.places.get(element)
        return _slot_of(place[0]) if place else element

    def _move(self, element: OpId, entry: Entry, seen: Seen, undo: Undo) -> None:
        places, to = self.places, _slot_of(entry)
        before, here = places.get(element, EMPTY), self._place_of(element)
        places[element] = register.write(before, entry, seen)
        self.element_of[to] = element
        self.changed.add(to)
        there = self._place_of(element)
        self._show_at(element, here, there)

        def back() -> None:
            if before:
                places[element] = before
            else:
                del places[element]
            del self.element_of[to]
            self.order.show(there, shown=False)
            self.order.show(here, shown=True)

        if undo is not None:
            undo.append(back)

    def _show_at(self, element: OpId, here: OpId, there: OpId) -> None:
        if here == there:
            return
        if self._watching:
            self._edited(self.order.index(here), 1, [])
        self.order.show(here, shown=False)
        self.order.show(there, shown=True)
        if self._watching:
            value = self.slots[element][0].value
            self._edited(self.order.index(there), 0, [value])

    # --- storing ------------------------------------------------------------------

    def _shown_header(self) -> Any:
        return [self.order.names(), self.order.next_name]

    def _shown_cells(self) -> Iterable[Cell]:
        order = self.order
        for name in sorted(order.changed):
            slots = order.block(name)
            state = (
                None if slots is None else values.encode(list(map(self._row, slots)))
            )
            yield ORDER + name.to_bytes(8, "big"), state
        order.changed.clear()
        for element in sorted(self.changed):
            key = element[0] + element[1].to_bytes(8, "big")
            value, place = self.slots.get(element), self.places.get(element)
            yield ELEMENT + key, _encoded(value)
            if place is not None or element in self._placed:
                yield PLACE + key, _encoded(place)
            (self._placed.discard if place is None else self._placed.add)(element)
        self.changed.clear()

    def _row(self, slot: OpId) -> tuple[Any, ...]:
        element = self.element_of.get(slot)
        if element is None and slot not in self.order.hidden:
            return slot
        return (*slot, int(slot in self.order.hidden), element)

    def _load_shown(
        self, header: Any, cells: Mapping[bytes, bytes], read: Read
    ) -> None:
        names, next_name = header
        blocks: list[tuple[int, list[OpId]]] = []
        for name in names:
            slots: list[OpId] = []
            rows = values.decode(cells[ORDER + name.to_bytes(8, "big")])
            for actor, seq, *more in rows:
                slot = (ActorId(actor), seq)
                slots.append(slot)
                if more:
                    hidden, element = more
                    if hidden:
                        self.order.hidden.add(slot)
                    if element is not None:
                        self.element_of[slot] = (ActorId(element[0]), element[1])
            blocks.append((name, slots))
        self.order.load(blocks, next_name)
        for key, raw in cells.items():
            if key[:1] not in (ELEMENT, PLACE):
                continue
            element = (ActorId(key[1:17]), int.from_bytes(key[17:], "big"))
            if key[:1] == ELEMENT:
                self.slots[element] = register.decode(values.decode(raw))
            else:
                self.places[element] = register.decode(values.decode(raw))
                self._placed.add(element)


def _encoded(slot: Slot | None) -> bytes | None:
    return None if slot is None else values.encode(register.encode(slot))


def _slot_of(place: Entry) -> OpId:
    actor, seq = place.value
    return ActorId(actor), seq
