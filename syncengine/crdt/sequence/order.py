"""The slots of a list in order, of which some show.

An element that was moved has several slots, and shows in one. Slots stand in blocks, so
that an index among those that show is found without looking at all of them, and a
commit writes the blocks that changed.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

from syncengine.ids import OpId

# A block is halved above this: half of it is looked at to find an index.
BLOCK_MAX = 256


class _Block:
    __slots__ = ("name", "slots")

    def __init__(self, name: int, slots: list[OpId]):
        self.name = name
        self.slots = slots


class Order:
    """Slots by position, counting all of them or those that show.

    Invariant: `_sizes` and `_shown` have, for each block, how many slots it has and how
    many of them show: plain numbers, so that they are summed at once.
    """

    def __init__(self) -> None:
        self.length = 0
        self.hidden: set[OpId] = set()
        self.changed: set[int] = set()
        """Names of blocks to be written; those that are gone, deleted"""
        self.next_name = 0
        self._blocks: list[_Block] = []
        self._sizes: list[int] = []
        self._shown: list[int] = []
        self._block_of: dict[OpId, _Block] = {}

    @property
    def shown(self) -> int:
        """How many slots show."""
        return self.length - len(self.hidden)

    def __iter__(self) -> Iterator[OpId]:
        """Yield the slots that show, in order."""
        for number, block in enumerate(self._blocks):
            if self._shown[number] == self._sizes[number]:
                yield from block.slots
            else:
                yield from (slot for slot in block.slots if slot not in self.hidden)

    def __contains__(self, slot: OpId) -> bool:
        return slot in self._block_of

    # --- places -------------------------------------------------------------------

    def at(self, pos: int) -> OpId:
        """Return the slot at a position among all."""
        block, offset = self._find(pos)
        return self._blocks[block].slots[offset]

    def _find(self, pos: int) -> tuple[int, int]:
        """Return (which block, offset) of a position; the end of the last one."""
        ends = list(accumulate(self._sizes))
        number = min(bisect_right(ends, pos), len(ends) - 1)
        return number, pos - (ends[number - 1] if number else 0)

    def at_index(self, index: int) -> OpId:
        """Return the slot at an index among those that show."""
        ends = list(accumulate(self._shown))
        number = bisect_right(ends, index)
        index -= ends[number - 1] if number else 0
        slots = self._blocks[number].slots
        if self._shown[number] == len(slots):
            return slots[index]
        shown = (slot for slot in slots if slot not in self.hidden)
        return next(islice(shown, index, None))

    def position(self, slot: OpId) -> int:
        """Return a slot's position among all."""
        return self._before(slot)[0]

    def index(self, slot: OpId) -> int:
        """Return how many slots that show stand before one."""
        return self._before(slot)[1]

    def _before(self, slot: OpId) -> tuple[int, int]:
        block = self._block_of[slot]
        number = self._blocks.index(block)
        offset = block.slots.index(slot)
        position = sum(self._sizes[:number]) + offset
        index = sum(self._shown[:number])
        if self._shown[number] == len(block.slots):
            return position, index + offset
        hidden = self.hidden
        return position, index + sum(s not in hidden for s in block.slots[:offset])

    def index_at(self, pos: int) -> int:
        """Return how many slots that show stand before a position among all."""
        return self.index(self.at(pos)) if pos < self.length else self.shown

    # --- changing -----------------------------------------------------------------

    def insert(self, pos: int, slots: list[OpId]) -> None:
        """Insert slots that show before a position among all."""
        if not self._blocks:
            self._add(0, [])
        number, offset = self._find(pos)
        block = self._blocks[number]
        block.slots[offset:offset] = slots
        self._sizes[number] += len(slots)
        self._shown[number] += len(slots)
        self.length += len(slots)
        for slot in slots:
            self._block_of[slot] = block
        self.changed.add(block.name)
        while len(block.slots) > BLOCK_MAX:
            rest = block.slots[BLOCK_MAX // 2 :]
            del block.slots[BLOCK_MAX // 2 :]
            block = self._add(number + 1, rest)
            self._sizes[number] -= self._sizes[number + 1]
            self._shown[number] -= self._shown[number + 1]
            number += 1

    def _add(self, number: int, slots: list[OpId]) -> _Block:
        block = _Block(self._new_name(), slots)
        self._blocks.insert(number, block)
        self._sizes.insert(number, len(slots))
        hidden = sum(slot in self.hidden for slot in slots)
        self._shown.insert(number, len(slots) - hidden)
        for slot in slots:
            self._block_of[slot] = block
        return block

    def _new_name(self) -> int:
        name, self.next_name = self.next_name, self.next_name + 1
        self.changed.add(name)
        return name

    def delete(self, pos: int, n: int) -> list[tuple[OpId, bool]]:
        """Delete slots from a position among all on; return (slot, was hidden)."""
        gone: list[tuple[OpId, bool]] = []
        while n:
            number, offset = self._find(pos)
            block = self._blocks[number]
            slots = block.slots[offset : offset + n]
            del block.slots[offset : offset + n]
            n -= len(slots)
            self.length -= len(slots)
            self._sizes[number] -= len(slots)
            self.changed.add(block.name)
            for slot in slots:
                del self._block_of[slot]
                hidden = slot in self.hidden
                if hidden:
                    self.hidden.discard(slot)
                else:
                    self._shown[number] -= 1
                gone.append((slot, hidden))
            if not block.slots:
                del self._blocks[number], self._sizes[number], self._shown[number]
        return gone

    def show(self, slot: OpId, *, shown: bool) -> None:
        """Show or hide a slot; one that is not here stays away."""
        block = self._block_of.get(slot)
        if block is None or shown == (slot not in self.hidden):
            return
        number = self._blocks.index(block)
        if shown:
            self.hidden.discard(slot)
            self._shown[number] += 1
        else:
            self.hidden.add(slot)
            self._shown[number] -= 1
        self.changed.add(block.name)

    # --- storing ------------------------------------------------------------------

    def names(self) -> list[int]:
        """Return the names of the blocks, in order."""
        return [block.name for block in self._blocks]

    def block(self, name: int) -> list[OpId] | None:
        """Return the slots of one block; None when it is gone."""
        for block in self._blocks:
            if block.name == name:
                return block.slots
        return None

    def load(self, blocks: Iterable[tuple[int, list[OpId]]], next_name: int) -> None:
        """Take over stored blocks; `hidden` is set before."""
        for name, slots in blocks:
            block = _Block(name, slots)
            self._blocks.append(block)
            self._sizes.append(len(slots))
            self._shown.append(sum(slot not in self.hidden for slot in slots))
            self.length += len(slots)
            for slot in slots:
                self._block_of[slot] = block
        self.next_name = next_name
