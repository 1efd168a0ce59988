"""Lists: order as in texts, and a register for each element."""

from syncengine.crdt.list import ListState
from syncengine.crdt.register import Entry
from syncengine.crdt.sequence.oplog import DEL, INS, SET
from syncengine.ids import ActorId
from tests.strategies import ACTORS

A, B, C, _ = ACTORS
Seen = dict[ActorId, int]


def insert(state: ListState, pos: int, values: str, actor: ActorId, seq: int, seen: Seen) -> None:  # fmt: skip
    entries = [Entry(1, actor, seq + i, v) for i, v in enumerate(values)]
    state.apply(INS, pos, len(entries), entries, (1, actor, seq), seen, None)


def put(state: ListState, pos: int, value: str, actor: ActorId, seq: int, seen: Seen) -> None:  # fmt: skip
    content = [(Entry(seq, actor, seq, value), seen)]
    state.apply(SET, pos, 1, content, (seq, actor, seq), seen, None)


def shown(state: ListState) -> str:
    return "".join(state.slots[name][0].value for name in state.order)


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
    loaded.load(cells, lambda: logs)
    for one in (state, loaded):
        insert(one, 2, "!", B, 1, {A: 3})

    assert shown(loaded) == shown(state) == "ab!cdef"
