"""Lists: order as in texts, and a register for each element."""

import random
from typing import Any

import pytest

from syncengine.crdt.document import Document
from syncengine.crdt.list import ListState
from syncengine.crdt.operation import Action, InvalidOperation, Type, length
from syncengine.crdt.register import Entry
from syncengine.crdt.sequence import order
from syncengine.crdt.sequence.oplog import DEL, INS, SET
from syncengine.crdt.sequence.state import Steps
from syncengine.ids import ActorId, DocumentId
from tests.strategies import ACTORS
from tests.syncengine.crdt.test_document import Kept

A, B, C, _ = ACTORS
Seen = dict[ActorId, int]


def insert(state: ListState, pos: int, values: str, actor: ActorId, seq: int, seen: Seen) -> None:  # fmt: skip
    entries = [Entry(1, actor, seq + i, v) for i, v in enumerate(values)]
    state.apply(INS, pos, len(entries), entries, (1, actor, seq), seen, None)


def put(state: ListState, pos: int, value: str, actor: ActorId, seq: int, seen: Seen) -> None:  # fmt: skip
    content = [(Entry(seq, actor, seq, value), seen)]
    state.apply(SET, pos, 1, content, (seq, actor, seq), seen, None)


def shown(state: ListState) -> str:
    return "".join(state.slots[name][0].value for name in state.elements())


def test_a_set_finds_its_element_behind_concurrent_insertions() -> None:
    state = ListState()
    insert(state, 0, "abc", A, 1, {})
    insert(state, 0, "xy", A, 4, {A: 3})
    put(state, 1, "B", B, 1, {A: 3})

    assert shown(state) == "xyaBc"


def test_concurrent_sets_keep_the_one_that_lost() -> None:
    state = ListState()
    insert(state, 0, "a", A, 1, {})
    put(state, 0, "x", B, 7, {A: 1})
    put(state, 0, "y", C, 3, {A: 1})

    assert [entry.value for entry in state.slots[(A, 1)]] == ["x", "y"]


def test_a_delete_is_final_whatever_was_concurrently_set() -> None:
    state = ListState()
    insert(state, 0, "ab", A, 1, {})
    state.apply(DEL, 0, 1, None, (2, B, 1), {A: 2}, None)
    put(state, 0, "!", C, 3, {A: 2})

    assert shown(state) == "b"


def test_a_stored_list_goes_on_where_it_was() -> None:
    state = ListState()
    insert(state, 0, "abcdef", A, 1, {})
    cells = {key: raw for key, raw in state.cells() if raw is not None}
    loaded = ListState()
    logs = [(k, v) for k, v in cells.items() if k[:1] == b"l"]
    loaded.load(cells, lambda _, __: logs)
    for one in (state, loaded):
        insert(one, 2, "!", B, 1, {A: 3})

    assert shown(loaded) == shown(state) == "ab!cdef"


# --- moving -------------------------------------------------------------------------


class Writer:
    """A replica that edits at the indexes it shows, as an application does."""

    def __init__(self, actor: ActorId):
        self.actor = actor
        self.document = Document(DocumentId("page/1"))
        self.version: Seen = {}
        self.clock = 0
        self.changes: list[tuple[int, int, list[Any], Seen]] = []
        self.kept = Kept()

    @property
    def state(self) -> ListState:
        state = self.document.state(("items", Type.LIST), Type.LIST)
        assert isinstance(state, ListState)
        return state

    def shown(self) -> list[Any]:
        return list(self.document.to_value(("items", 4), 4))

    def write(self, *op: Any) -> None:
        self.clock += 1
        seq = self.version.get(self.actor, 0) + 1
        seen = dict(self.version)
        self.document.apply(list(op), (self.clock, self.actor, seq), None)
        self.changes.append((seq, self.clock, list(op), seen))
        self.version[self.actor] = seq + length(list(op)) - 1

    def edit(self, chance: random.Random, name: int) -> None:
        """Do one thing; what shows is what it does to a plain list."""
        expected = self.shown()
        count = len(expected)
        kind = chance.random()
        if count and kind < 0.5:
            at, to = chance.randrange(count), chance.randrange(count)
            if at != to:
                (source, _), *_ = self.state.author_ranges(at, 1)
                ((target, _),) = self.state.author_ranges(to + (to > at), 0)
                self.write(Action.MOVE, "items", source, target)
                expected.insert(to, expected.pop(at))
        elif count and kind < 0.65:
            at = chance.randrange(count)
            n = chance.randint(1, min(3, count - at))
            for source, several in self.state.author_ranges(at, n):
                self.write(Action.LIST_DELETE, "items", source, several)
            del expected[at : at + n]
        elif count and kind < 0.8:
            at = chance.randrange(count)
            (source, _), *_ = self.state.author_ranges(at, 1)
            self.write(Action.LIST_SET, "items", source, name)
            expected[at] = name
        else:
            at = chance.randint(0, count)
            ((target, _),) = self.state.author_ranges(at, 0)
            self.write(Action.LIST_INSERT, "items", target, [name, -name])
            expected[at:at] = [name, -name]
        assert self.shown() == expected

    def receive(self, other: "Writer", chance: random.Random) -> bool:
        moved = False
        for seq, hlc, op, seen in other.changes:
            if seq != self.version.get(other.actor, 0) + 1:
                continue
            if any(self.version.get(actor, 0) < at for actor, at in seen.items()):
                break
            known = {**seen, other.actor: seq - 1}
            stamp = (hlc, other.actor, seq)
            if chance.random() < 0.3:
                before = self.shown()
                self.document.undo = undo = Steps()
                self.document.apply(op, stamp, known)
                self.document.take_back(undo)
                self.document.undo = None
                assert self.shown() == before, "undo leaves a trace"
            self.document.apply(op, stamp, known)
            self.clock = max(self.clock, hlc)
            self.version[other.actor] = seq + length(op) - 1
            moved = True
            if chance.random() < 0.3:
                break
        return moved

    def restart(self) -> None:
        self.kept.take(self.document)
        touches = self.document.touches
        self.document = Document(DocumentId("page/1"), self.kept)
        self.document.touches = touches


@pytest.mark.parametrize("block", [2, 256])
@pytest.mark.parametrize("part", range(4))
def test_moves_converge_and_nothing_is_doubled(
    part: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "BLOCK_MAX", block)
    for seed in range(part * 100, part * 100 + 50):
        chance = random.Random(seed)
        writers = [Writer(actor) for actor in (A, B, C)]
        for name in range(1, 50):
            writer = chance.choice(writers)
            if chance.random() < 0.6:
                writer.edit(chance, name)
            elif chance.random() < 0.2:
                writer.restart()
            else:
                other = chance.choice([w for w in writers if w is not writer])
                writer.receive(other, chance)
        while any(a.receive(b, chance) for a in writers for b in writers if a is not b):
            pass

        shown_ = [writer.shown() for writer in writers]
        assert shown_[0] == shown_[1] == shown_[2], f"seed {seed}"
        elements = list(writers[0].state.elements())
        assert len(set(elements)) == len(elements) == len(writers[0].state.slots)
        for writer in writers:
            writer.restart()
            assert writer.shown() == shown_[0], f"seed {seed}"


def test_of_concurrent_moves_the_latest_counts_and_edits_go_along() -> None:
    one, two = Writer(A), Writer(B)
    one.write(Action.LIST_INSERT, "items", 0, ["a", "b", "c", "d"])
    chance = random.Random(0)
    two.receive(one, chance)
    one.write(Action.MOVE, "items", 0, 4)  # a to the end
    two.clock = 9
    two.write(Action.MOVE, "items", 0, 2)  # a behind b, later
    two.write(Action.LIST_SET, "items", 3, "C")
    one.write(Action.LIST_SET, "items", 4, "A")  # in its new place
    while one.receive(two, chance) or two.receive(one, chance):
        pass

    assert one.shown() == two.shown() == ["b", "A", "C", "d"]


def test_a_delete_wins_over_a_concurrent_move() -> None:
    one, two = Writer(A), Writer(B)
    one.write(Action.LIST_INSERT, "items", 0, ["a", "b"])
    chance = random.Random(0)
    two.receive(one, chance)
    one.write(Action.LIST_DELETE, "items", 0, 1)
    two.write(Action.MOVE, "items", 0, 2)
    while one.receive(two, chance) or two.receive(one, chance):
        pass

    assert one.shown() == two.shown() == ["b"]


@pytest.mark.parametrize(
    "op", [[16, "items", 5, 0], [16, "items", 0, 5], [16, "items", -1, 0],
           [16, "items", "0", 0], [16, "items", 0], [16, None, 0, 0]],
)  # fmt: skip
def test_a_move_of_what_is_not_there_is_void(op: list[Any]) -> None:
    one = Writer(A)
    one.write(Action.LIST_INSERT, "items", 0, ["a", "b"])
    undo = Steps()
    one.document.undo = undo
    with pytest.raises(InvalidOperation):
        one.document.apply(op, (5, B, 1), {A: 2})
    one.document.take_back(undo)

    assert one.shown() == ["a", "b"]
