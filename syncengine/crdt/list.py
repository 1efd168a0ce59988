"""Lists: slots in order, each element with a register for its value.

The initial value of an element is its first write. Deleting an element is final,
whatever was concurrently written to it. Moving comes later; its kind is reserved.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from syncengine import values
from syncengine.crdt import register
from syncengine.crdt.register import Entry, Seen, Slot
from syncengine.crdt.sequence.state import Cell, Sequence, Undo
from syncengine.ids import ActorId, OpId

ORDER, ELEMENT = b"o", b"e"

# Elements of one stored piece of the order: what one insertion writes anew.
ORDER_PIECE = 256

Write = tuple[Entry, Seen]
"""The content of a SET: what is written, and what its author had seen."""


class ListState(Sequence):
    """A list: element ids in order, and each element's slot."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[OpId] = []
        self.slots: dict[OpId, Slot] = {}
        self.changed: set[OpId] = set()
        self._order_from = 0  # the least index at which `order` may have changed
        self._pieces = 0

    @property
    def length(self) -> int:
        return len(self.order)

    def _splice(
        self, pos: int, deleted: int, content: list[Entry] | None
    ) -> tuple[int, int, list[tuple[OpId, Slot]]]:
        gone = self.order[pos : pos + deleted]
        removed = [(name, self.slots.pop(name)) for name in gone]
        names: list[OpId] = []
        for entry in content or ():
            name = (entry.actor, entry.seq)
            names.append(name)
            self.slots[name] = (entry,)
        self.order[pos : pos + deleted] = names
        self.changed.update(gone, names)
        self._order_from = min(self._order_from, pos)
        if self._watching:
            self._edited(pos, deleted, [entry.value for entry in content or ()])
        return pos, len(names), removed

    def _unsplice(self, taken: tuple[int, int, list[tuple[OpId, Slot]]]) -> None:
        pos, inserted, removed = taken
        for name in self.order[pos : pos + inserted]:
            del self.slots[name]
        self.order[pos : pos + inserted] = [name for name, _ in removed]
        self.slots.update(removed)

    def _set(self, pos: int, content: list[Write], undo: Undo) -> None:
        name = self.order[pos]
        before = self.slots[name]
        ((entry, seen),) = content
        self.slots[name] = register.write(before, entry, seen)
        self.changed.add(name)
        if self._watching:
            self._edited(pos, 1, [self.slots[name][0].value])
        if undo is not None:
            undo.append(lambda: self.slots.__setitem__(name, before))

    def _shown_header(self) -> Any:
        return [-(-len(self.order) // ORDER_PIECE)]

    def _shown_cells(self) -> Iterable[Cell]:
        count = -(-len(self.order) // ORDER_PIECE)
        for piece in range(self._order_from // ORDER_PIECE, max(count, self._pieces)):
            names = self.order[piece * ORDER_PIECE : (piece + 1) * ORDER_PIECE]
            state = values.encode(names) if names else None
            yield ORDER + piece.to_bytes(8, "big"), state
        self._order_from, self._pieces = len(self.order), count
        for actor, seq in sorted(self.changed):
            slot = self.slots.get((actor, seq))
            state = None if slot is None else values.encode(register.encode(slot))
            yield ELEMENT + actor + seq.to_bytes(8, "big"), state
        self.changed.clear()

    def _load_shown(self, header: Any, cells: Mapping[bytes, bytes]) -> None:
        (self._pieces,) = header
        for piece in range(self._pieces):
            names = values.decode(cells[ORDER + piece.to_bytes(8, "big")])
            self.order += [(ActorId(actor), seq) for actor, seq in names]
        for actor, seq in self.order:
            raw = cells[ELEMENT + actor + seq.to_bytes(8, "big")]
            self.slots[(actor, seq)] = register.decode(values.decode(raw))
        self._order_from = len(self.order)
