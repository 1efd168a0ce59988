"""Trees: nodes that many can move at once, without cycles and without doubles.

Which parent a node has follows Kleppmann, Mulligan, Gomes and Beresford, "A Highly-
Available Move Operation for Replicated Trees" (2022): all moves count in the order of
`(hlc, actor, seq)`, and one that would put a node below itself has no effect. A move
that comes late takes back those behind it. They are not done again before somebody
looks, so that a branch of many is merged at the cost of one look.

In which order the children of one parent stand is that of *slots*, which form one
sequence for the whole tree: making or moving a node inserts a slot. So what two insert
at one place does not interleave, as in texts.

Deleting a node moves it nowhere, with all that is below it; moving it back, or having
moved it away concurrently but later, brings it back.

Laws (`tests/syncengine/crdt/test_tree.py`): every order of delivery leaves the same
tree; it has each node once, and no cycle.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence.order import Order
from syncengine.crdt.sequence.state import Cell, Read, Sequence, Undo
from syncengine.ids import ActorId, OpId, Stamp

ORDER, NODE, MOVE = b"o", b"n", b"z"  # moves behind all else: they are read when needed

Parent = OpId | None
"""A node, or None: the top."""


class Place(NamedTuple):
    """Where a node is: the slot in which it stands is its order among siblings."""

    parent: Parent
    slot: OpId | None
    """None: it was deleted, and is nowhere"""


class _Move(NamedTuple):
    """`slot` None: the node is deleted."""

    stamp: Stamp
    node: OpId
    parent: Parent
    slot: OpId | None


class TreeState(Sequence):
    """A tree. A node's name is that of the operation that made it.

    Invariants: (1) `_moves` are all moves in order, unless they are still to be read;
    (2) `places` is the effect of the first `len(_before)` of them, or of all; (3)
    `_children` has each node with a slot in `places` once, in the order of slots.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order = Order()
        self.places: dict[OpId, Place] = {}
        self._children: dict[Parent, list[OpId]] = {}
        self._moves: list[_Move] = []
        self._before: list[Place | None] = []
        """Where the node of each move that was done had been; None: it was not there"""
        self._newest: Stamp | None = None
        self._newest_unread: Stamp | None = None
        self._read_moves: Callable[[], Iterable[tuple[bytes, bytes]]] | None = None
        self._changed: set[OpId] = set()
        self._changed_moves: dict[Stamp, _Move | None] = {}

    # --- reading ------------------------------------------------------------------

    @property
    def length(self) -> int:
        return self.order.length

    def children(self, parent: Parent = None) -> list[OpId]:
        """Return the nodes below one in order; None: those at the top."""
        self._settle()
        return self._children.get(parent, [])

    def place(self, node: OpId) -> Place | None:
        """Return where a node is; None when there never was such a node."""
        self._settle()
        return self.places.get(node)

    def moved(self, node: OpId) -> Stamp:
        """Return the move that put a node where it is. It reads all moves."""
        self._read_all()
        self._settle()
        place = self.places[node]
        return next(
            move.stamp
            for move in reversed(self._moves)
            if move.node == node and (move.parent, move.slot) == place
        )

    def nodes(self) -> Iterator[tuple[OpId, Parent]]:
        """Yield (node, parent) of all that show, each before those below it."""
        self._settle()
        yield from walk(self._children)

    def deleted(self) -> list[OpId]:
        """Return the nodes that were deleted, and not with one above them."""
        self._settle()
        return sorted(node for node, place in self.places.items() if not place.slot)

    def frozen(self) -> tuple[dict[OpId, Place], dict[Parent, list[OpId]]]:
        """Return places and children that later changes leave alone."""
        self._settle()
        copies = {parent: list(below) for parent, below in self._children.items()}
        return dict(self.places), copies

    def position(self, node: OpId) -> int:
        """Return the position of the slot in which a node that shows stands."""
        slot = self.places[node].slot
        assert slot is not None
        return self.order.position(slot)

    # --- changing -----------------------------------------------------------------

    def move(
        self, stamp: Stamp, node: OpId, parent: Parent, slot: OpId | None, undo: Undo
    ) -> None:
        """Let a move count, among all others, at its stamp."""
        one = _Move(stamp, node, parent, slot)
        if self._newest is not None and stamp < self._newest:
            self._read_all()
            at = bisect_left(self._moves, stamp, key=_stamp)
            self._take_back(at)
            self._moves.insert(at, one)
        else:
            self._settle()
            self._newest = stamp
            self._moves.append(one)
            self._perform(one)
        self._changed_moves[stamp] = one
        if undo is not None:
            undo.append(lambda: self._forget(stamp))

    def _forget(self, stamp: Stamp) -> None:
        at = bisect_left(self._moves, stamp, key=_stamp)
        self._take_back(at)
        del self._moves[at]
        self._changed_moves[stamp] = None
        self._newest = self._moves[-1].stamp if self._moves else self._newest_unread

    def _take_back(self, at: int) -> None:
        """Undo the moves from number `at` on."""
        while len(self._before) > at:
            move, before = self._moves[len(self._before) - 1], self._before.pop()
            self._put(move.node, before)

    def _settle(self) -> None:
        """Do what moves were not done yet."""
        while len(self._before) < len(self._moves):
            self._perform(self._moves[len(self._before)])

    def _perform(self, move: _Move) -> None:
        before = self.places.get(move.node)
        self._before.append(before)
        _, node, parent, slot = move
        makes = move.stamp[1:] == node
        if (before is None) != makes:
            return  # its making was void, or it was made before
        if slot is None:
            self._put(node, Place(None, None))
        elif not self._is_below(parent, node):
            self._put(node, Place(parent, slot))
        elif makes:
            self._put(node, Place(None, None))

    def _is_below(self, parent: Parent, node: OpId) -> bool:
        """Whether a place below `parent` would be below `node`, or nowhere at all."""
        while parent is not None:
            if parent == node:
                return True
            place = self.places.get(parent)
            if place is None:
                return True
            parent = place.parent
        return False

    def _put(self, node: OpId, place: Place | None) -> None:
        before = self.places.get(node)
        if before is not None and before.slot is not None:
            siblings = self._children[before.parent]
            if siblings[-1] == node:
                siblings.pop()
            else:
                siblings.remove(node)
            if not siblings:
                del self._children[before.parent]
        self._changed.add(node)
        if place is None:
            self.places.pop(node, None)
            return
        self.places[node] = place
        if place.slot is not None:
            siblings = self._children.setdefault(place.parent, [])
            if not siblings or self.position(siblings[-1]) < self.position(node):
                siblings.append(node)
            else:
                insort(siblings, node, key=self.position)

    # --- the sequence of slots ----------------------------------------------------

    def _splice(
        self, pos: int, deleted: int, content: list[OpId] | None, undo: Undo
    ) -> None:
        if deleted:
            raise InvalidOperation("the slots of a tree are not deleted")
        slots = content or []
        self.order.insert(pos, slots)
        if undo is not None:
            undo.append(lambda: self.order.delete(pos, len(slots)))

    def _set(self, pos: int, content: Any, undo: Undo) -> None:
        raise InvalidOperation("a tree has no elements to set")

    # --- storing ------------------------------------------------------------------

    def _shown_header(self) -> Any:
        return [self.order.names(), self.order.next_name, self._newest]

    def _shown_cells(self) -> Iterable[Cell]:
        self._settle()
        order = self.order
        for name in sorted(order.changed):
            slots = order.block(name)
            state = None if slots is None else values.encode(slots)
            yield ORDER + name.to_bytes(8, "big"), state
        order.changed.clear()
        for node in sorted(self._changed):
            place = self.places.get(node)
            state = None if place is None else values.encode(place)
            yield NODE + node[0] + node[1].to_bytes(8, "big"), state
        self._changed.clear()
        for stamp, move in sorted(self._changed_moves.items()):
            hlc, actor, seq = stamp
            key = MOVE + hlc.to_bytes(8, "big") + actor + seq.to_bytes(8, "big")
            yield key, None if move is None else values.encode(move)
        self._changed_moves.clear()

    def _load_shown(
        self, header: Any, cells: Mapping[bytes, bytes], read: Read
    ) -> None:
        names, next_name, newest = header
        blocks: list[tuple[int, list[OpId]]] = []
        for name in names:
            slots = values.decode(cells[ORDER + name.to_bytes(8, "big")])
            blocks.append((name, [(ActorId(actor), seq) for actor, seq in slots]))
        self.order.load(blocks, next_name)
        at: dict[OpId, OpId] = {}  # slot -> the node in it
        for key, raw in cells.items():
            if key[:1] == NODE:
                node = (ActorId(key[1:17]), int.from_bytes(key[17:], "big"))
                place = Place(*map(_name, values.decode(raw)))
                self.places[node] = place
                if place.slot is not None:
                    at[place.slot] = node
        for slot in self.order:
            node_ = at.get(slot)
            if node_ is not None:
                parent = self.places[node_].parent
                self._children.setdefault(parent, []).append(node_)
        self._newest = self._newest_unread = newest and _stamp_of(newest)
        self._read_moves = lambda: read(MOVE, MOVE + b"\xff")

    def _read_all(self) -> None:
        """Have all moves here: one came late."""
        if self._read_moves is None:
            return
        stored, self._read_moves = self._read_moves(), None
        self._newest_unread = None
        newer = self._moves
        known = {*self._changed_moves, *(move.stamp for move in newer)}
        self._moves = [
            _Move(_stamp_of(stamp), _name(node), _name(parent), _name(slot))
            for _, raw in stored
            for stamp, node, parent, slot in [values.decode(raw)]
            if _stamp_of(stamp) not in known
        ]
        self._moves += newer
        shown, self.places, self._before = self.places, {}, []
        self._children = {}
        changed = set(self._changed)
        self._settle()
        self._changed = changed
        assert self.places == shown, "what is stored is the effect of all moves"


def walk(children: Mapping[Parent, list[OpId]]) -> Iterator[tuple[OpId, Parent]]:
    """Yield (node, parent) of a tree, each before those below it; however deep."""
    waiting: list[tuple[OpId, Parent]] = [
        (n, None) for n in reversed(children.get(None, []))
    ]
    while waiting:
        node, parent = waiting.pop()
        yield node, parent
        waiting += [(below, node) for below in reversed(children.get(node, []))]


def _stamp(move: _Move) -> Stamp:
    return move.stamp


def _stamp_of(raw: Any) -> Stamp:
    hlc, actor, seq = raw
    return hlc, ActorId(actor), seq


def _name(raw: Any) -> Any:
    return None if raw is None else (ActorId(raw[0]), raw[1])
