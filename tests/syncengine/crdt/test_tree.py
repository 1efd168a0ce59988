"""Trees: whatever comes first, each node is there once, and no node below itself."""

import random
from typing import Any

import pytest

from syncengine.crdt.operation import Action, InvalidOperation, Type
from syncengine.crdt.sequence import order
from syncengine.crdt.sequence.state import Steps
from syncengine.crdt.tree import TreeState
from syncengine.ids import OpId, node_id, parse_node_id
from tests.second_decoder import merge
from tests.strategies import ACTORS
from tests.syncengine.crdt.test_list import Writer as Base

A, B, C, _ = ACTORS

Node = OpId | None


class Writer(Base):
    """A replica that makes, moves and deletes nodes where it sees them."""

    @property
    def tree(self) -> TreeState:
        state = self.document.state(("outline", Type.TREE), Type.TREE)
        assert isinstance(state, TreeState)
        return state

    def shown(self) -> list[Any]:
        return list(self.tree.nodes())

    def ref(self, node: Node) -> Any:
        if node is None:
            return None
        return node[1] if node[0] == self.actor else list(node)

    def add(self, parent: Node = None, index: int | None = None) -> OpId:
        at = self.place_for(parent, index)
        self.write(Action.TREE_MOVE, "outline", None, self.ref(parent), at)
        return self.actor, self.changes[-1][0]

    def move(self, node: OpId, parent: Node = None, index: int | None = None) -> None:
        at = self.place_for(parent, index)
        self.write(Action.TREE_MOVE, "outline", self.ref(node), self.ref(parent), at)

    def delete(self, node: OpId) -> None:
        self.write(Action.TREE_MOVE, "outline", self.ref(node), 0)

    def place_for(self, parent: Node, index: int | None) -> int:
        tree = self.tree
        below = tree.children(parent)
        if index is None:
            index = len(below)
        if index < len(below):
            position = tree.position(below[index])
        else:
            position = tree.position(below[-1]) + 1 if below else tree.length
        return tree.author_ranges(position, 0)[0][0]

    def edit(self, chance: random.Random, name: int) -> None:
        nodes = [node for node, _ in self.shown()]
        gone = self.tree.deleted()
        kind = chance.random()
        parent = chance.choice([None, *nodes])
        index = chance.randint(0, len(self.tree.children(parent)))
        if len(nodes) < 3 or kind < 0.3:
            made = self.add(parent, index)
            assert self.tree.children(parent)[index] == made
        elif kind < 0.85:
            self.move(chance.choice(nodes), parent, index)
        elif gone and kind < 0.92:
            self.move(chance.choice(gone), parent, index)
        else:
            self.delete(chance.choice(nodes))


def defined(writers: list[Writer], order_: list[tuple[Writer, int]]) -> list[Any]:
    """Return what shows, by the plain definition."""
    name: dict[str, OpId] = {}
    edits: list[Any] = []
    moves: list[Any] = []
    for number, (writer, at) in enumerate(order_):
        seq, hlc, (_, _, node, parent, *pos), seen = writer.changes[at]
        if pos:
            char = chr(0x4E00 + number)
            name[char] = (writer.actor, seq)
            edits.append([writer.actor, seq, seen, [8, "t", pos[0], char]])
        moves.append(((hlc, writer.actor, seq), node, parent, bool(pos)))
    slots = [name[char] for char in merge(edits)]
    parents: dict[OpId, Node] = {}
    where: dict[OpId, OpId | None] = {}
    for (_, actor, seq), node, parent, lives in sorted(moves, key=lambda m: m[0]):
        moved = named(node, actor) or (actor, seq)
        below = named(parent, actor) if lives else None
        above, cycle = below, False
        while above is not None:
            cycle = cycle or above == moved
            above = parents[above]
        if not cycle:
            parents[moved] = below
            where[moved] = (actor, seq) if lives else None
    found: list[Any] = []

    def go(parent: Node) -> None:
        for slot in slots:
            for node in parents:
                if where[node] == slot and parents[node] == parent:
                    found.append((node, parent))
                    go(node)

    go(None)
    return found


def named(raw: Any, author: Any) -> Node:
    if raw is None:
        return None
    return (author, raw) if isinstance(raw, int) else (raw[0], raw[1])


@pytest.mark.parametrize("block", [2, 256])
@pytest.mark.parametrize("part", range(4))
def test_every_order_shows_what_the_plain_definition_shows(
    part: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "BLOCK_MAX", block)
    for seed in range(part * 100, part * 100 + 40):
        chance = random.Random(seed)
        writers = [Writer(actor) for actor in (A, B, C)]
        history: list[tuple[Writer, int]] = []
        for name in range(1, 50):
            writer = chance.choice(writers)
            if chance.random() < 0.6:
                before = len(writer.changes)
                writer.edit(chance, name)
                history += [(writer, at) for at in range(before, len(writer.changes))]
            elif chance.random() < 0.3:
                writer.restart()
            else:
                other = chance.choice([w for w in writers if w is not writer])
                writer.receive(other, chance)
        while any(a.receive(b, chance) for a in writers for b in writers if a is not b):
            pass

        expected = defined(writers, history)
        for writer in writers:
            assert writer.shown() == expected, f"seed {seed}"
            writer.restart()
            assert writer.shown() == expected, f"seed {seed}, stored"
            nodes = [node for node, _ in writer.shown()]
            assert len(set(nodes)) == len(nodes)


def together(*writers: Writer) -> None:
    chance = random.Random(0)
    while any(a.receive(b, chance) for a in writers for b in writers if a is not b):
        pass
    assert all(writer.shown() == writers[0].shown() for writer in writers)


def test_of_two_moves_that_make_a_cycle_the_later_has_no_effect() -> None:
    one, other = Writer(A), Writer(B)
    x, y = one.add(), one.add()
    together(one, other)
    one.move(x, y)
    other.clock += 5
    other.move(y, x)
    together(one, other)

    assert one.shown() == [(y, None), (x, y)]


def test_what_two_insert_at_one_place_does_not_interleave() -> None:
    one, other = Writer(A), Writer(B)
    top = one.add()
    together(one, other)
    mine = [one.add(top) for _ in range(3)]
    theirs = [other.add(top) for _ in range(3)]
    together(one, other)

    assert one.tree.children(top) in (mine + theirs, theirs + mine)


def test_a_deleted_node_comes_back_with_all_below_it() -> None:
    one, other = Writer(A), Writer(B)
    top, deep = one.add(), one.add()
    one.move(deep, top)
    together(one, other)
    one.delete(top)
    added = other.add(deep)
    together(one, other)
    assert one.shown() == []
    assert one.tree.deleted() == [top]
    one.move(top)

    assert one.shown() == [(top, None), (deep, top), (added, deep)]


def test_a_deep_tree_is_read_without_recursion() -> None:
    one = Writer(A)
    node = one.add()
    for _ in range(2_000):
        node = one.add(node)

    assert len(one.shown()) == len(one.document.to_value()["outline"]) == 2_001
    assert one.document.canonical()


def test_a_branch_of_many_moves_is_merged_at_one_look() -> None:
    one, other = Writer(A), Writer(B)
    nodes = [one.add() for _ in range(40)]
    together(one, other)
    chance = random.Random(1)
    for writer in (one, other):
        for _ in range(200):
            writer.move(chance.choice(nodes), chance.choice(nodes))
    done = 0
    real = TreeState._perform  # pyright: ignore[reportPrivateUsage]

    def counted(self: TreeState, move: Any) -> None:
        nonlocal done
        done += 1
        real(self, move)

    TreeState._perform = counted  # type: ignore[method-assign]  # pyright: ignore
    try:
        for seq, hlc, op, seen in other.changes:
            one.document.apply(op, (hlc, B, seq), {**seen, B: seq - 1})
        one.shown()
        one.version[B] = other.version[B]
    finally:
        TreeState._perform = real  # type: ignore[method-assign]  # pyright: ignore
    together(one, other)

    assert done < 3 * 400


@pytest.mark.parametrize(
    "op", [[21, "outline", 9, None, 0], [21, "outline", [B, 5], None, 0],
           [21, "outline", None, 9, 0], [21, "outline", None, None, 9],
           [21, "outline", None, None, -1], [21, "outline", None, None],
           [21, "outline", None, 0], [21, "outline", "x", None, 0],
           [21, "outline", 0, None, 0], [21, None, None, None, 0]],
)  # fmt: skip
def test_a_move_of_what_is_not_there_is_void(op: list[Any]) -> None:
    one = Writer(A)
    one.add()
    one.document.undo = undo = Steps()
    with pytest.raises(InvalidOperation):
        one.document.apply(op, (5, B, 1), {A: 1})
    one.document.take_back(undo)

    assert one.shown() == [((A, 1), None)]


def test_a_move_into_oneself_has_no_effect() -> None:
    one = Writer(A)
    top = one.add()
    below = one.add(top)
    one.move(top, top)
    one.move(top, below)

    assert one.shown() == [(top, None), (below, top)]


def test_a_void_move_counts_for_places_and_shows_nothing() -> None:
    one = Writer(A)
    top = one.add()
    one.document.apply_void([21, "outline", None, None, 0], (5, B, 1), {A: 1})
    one.document.apply([21, "outline", None, None, 2], (6, C, 1), {A: 1, B: 1})
    # What was made in a void change is no node: what is below it is nowhere.
    one.document.apply([21, "outline", None, [B, 1], 0], (7, C, 2), {A: 1, B: 1, C: 1})

    assert one.shown() == [(top, None), ((C, 1), None)]


def test_nodes_are_named() -> None:
    assert parse_node_id(node_id((A, 7))) == (A, 7)
