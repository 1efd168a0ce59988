"""Documents: any causal order leaves the same state; undo leaves no trace."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from syncengine.crdt.document import Document
from syncengine.crdt.operation import (
    Action,
    InvalidOperation,
    Type,
    UnknownOperation,
    container_from_key,
    container_key,
    length,
)
from syncengine.crdt.sequence.state import Steps
from syncengine.ids import ActorId, DocumentId
from tests.strategies import ACTORS

NAME = DocumentId("page/1")


class Kept:
    """Stored cells, as a store would hand them back."""

    def __init__(self) -> None:
        self.cells: dict[tuple[bytes, bytes], bytes] = {}

    def take(self, document: Document) -> None:
        for container, (key, state) in document.take_cells():
            if state is None:
                self.cells.pop((container, key), None)
            else:
                self.cells[(container, key)] = state

    def read(
        self, container: bytes, start: bytes = b"", stop: bytes = b"\xff" * 8
    ) -> Any:
        return [
            (key, state)
            for (at, key), state in sorted(self.cells.items())
            if at == container and start <= key < stop
        ]


class Author:
    """A replica of one document that writes random operations."""

    def __init__(self, actor: ActorId):
        self.actor = actor
        self.document = Document(NAME)
        self.version: dict[ActorId, int] = {}
        self.clock = 0
        self.changes: list[tuple[int, int, list[Any], dict[ActorId, int]]] = []
        self.kept = Kept()

    def commit(self) -> None:
        self.kept.take(self.document)

    def restart(self) -> None:
        """Go on with what is stored; each container is read when it is asked for."""
        self.commit()
        touches = self.document.touches
        self.document = Document(NAME, self.kept)
        self.document.touches = touches

    def write(self, chance: random.Random, op: list[Any] | None = None) -> None:
        self.clock += chance.randint(1, 3)
        seq = self.version.get(self.actor, 0) + 1
        op = op or random_op(self.document, chance, self.actor)
        seen = dict(self.version)
        self.document.apply(op, (self.clock, self.actor, seq), None)
        self.changes.append((seq, self.clock, op, seen))
        self.version[self.actor] = seq + length(op) - 1

    def receive(self, other: "Author", chance: random.Random | None) -> bool:
        moved = False
        for seq, hlc, op, seen in other.changes:
            if other is self or seq != self.version.get(other.actor, 0) + 1:
                continue
            if any(self.version.get(a, 0) < s for a, s in seen.items()):
                break
            at = {**seen, other.actor: seq - 1}
            if chance is not None and chance.random() < 0.3:
                before = self.document.canonical()
                undo = Steps()
                self.document.undo = undo
                self.document.apply(op, (hlc, other.actor, seq), at)
                self.document.take_back(undo)
                self.document.undo = None
                assert self.document.canonical() == before, "undo leaves a trace"
            self.document.apply(op, (hlc, other.actor, seq), at)
            self.clock = max(self.clock, hlc)
            self.version[other.actor] = seq + length(op) - 1
            moved = True
            if chance is not None and chance.random() < 0.5:
                break
        return moved


def random_op(document: Document, chance: random.Random, actor: ActorId) -> list[Any]:
    items = document.to_value(("items", 4), 4)
    body = document.to_value(("body", 5), 5)
    maps = [
        [entry.actor, entry.seq] if entry.actor != actor else entry.seq
        for entry in document.root.slots.get("m", ())
        if entry.type == 1 and entry.container == (entry.actor, entry.seq)
    ]
    rows: Any = document.state(("items", 4), 4)
    held = [
        list(entry.container) if entry.container[0] != actor else entry.container[1]
        for slot in rows.slots.values()
        for entry in slot
        if entry.type
    ]
    tree: Any = document.state(("outline", 6), 6)
    nodes = [list(node) if node[0] != actor else node[1] for node in tree.places]
    choices: list[Callable[[], list[Any]]] = [
        lambda: [Action.SET, None, chance.choice("ab"), chance.randint(0, 9)],
        lambda: [Action.DELETE, None, chance.choice("abm")],
        lambda: [Action.MAKE, None, "m", 1],
        lambda: (
            [Action.SET, chance.choice(maps), "k", chance.randint(0, 9)]
            if maps
            else [Action.TOUCH]
        ),
        lambda: [Action.INCREMENT, "n", chance.choice((1, -2, 0.5))],
        lambda: [Action.ADD, "tags", chance.choice("xyz")],
        lambda: [Action.REMOVE, "tags", chance.choice("xyz")],
        lambda: [
            Action.MULTI_SET,
            "several",
            [chance.randint(0, 3) for _ in range(chance.randint(0, 2))],
        ],
        lambda: [Action.TEXT_INSERT, "body", chance.randint(0, len(body)), "héé"],
        lambda: (
            [Action.TEXT_DELETE, "body", len(body) - 1, 1] if body else [Action.TOUCH]
        ),
        lambda: (
            [Action.MARK, "body", 0, len(body), "b", chance.choice((1, None)), 2]
            if body
            else [Action.TOUCH]
        ),
        lambda: [
            Action.LIST_INSERT,
            "items",
            chance.randint(0, len(items)),
            [1, 2],
        ],
        lambda: (
            [Action.LIST_SET, "items", len(items) - 1, chance.randint(0, 9)]
            if items
            else [Action.TOUCH]
        ),
        lambda: [Action.LIST_MAKE, "items", 0, 1],
        lambda: (
            [Action.LIST_PUT, "items", chance.randrange(len(items)), 1]
            if items
            else [Action.TOUCH]
        ),
        lambda: (
            [Action.SET, chance.choice(held), "k", chance.randint(0, 9)]
            if held
            else [Action.TOUCH]
        ),
        lambda: (
            [
                Action.MOVE,
                "items",
                chance.randrange(len(items)),
                chance.randint(0, len(items)),
            ]
            if items
            else [Action.TOUCH]
        ),
        lambda: [Action.TREE_MOVE, "outline", None, None, 0],
        lambda: (
            [
                Action.TREE_MOVE,
                "outline",
                chance.choice(nodes),
                *chance.choice(((0,), (None, 0), (chance.choice(nodes), 0))),
            ]
            if nodes
            else [Action.TOUCH]
        ),
        lambda: (
            [Action.SET, chance.choice(nodes), "k", chance.randint(0, 9)]
            if nodes
            else [Action.TOUCH]
        ),
        lambda: [
            Action.SEED,
            None,
            chance.choice("uv"),
            [[0, None], [1, None, "a", "s"], [8, "body", 0, "seed"], [5, "n", 100]],
        ],
        lambda: [Action.LIST_DELETE, "items", 0, 1] if items else [Action.TOUCH],
        lambda: [Action.DROP],
    ]
    return chance.choice(choices)()


@pytest.mark.parametrize("restarts", [0, 0.3])
@pytest.mark.parametrize("part", range(4))
def test_every_order_of_delivery_leaves_the_same_state(
    part: int, restarts: float
) -> None:
    for seed in range(part * 100, part * 100 + 60):
        chance = random.Random(seed)
        authors = [Author(actor) for actor in ACTORS[:3]]
        for _ in range(45):
            author = chance.choice(authors)
            if chance.random() < restarts:
                chance.choice((author.commit, author.restart))()
            elif chance.random() < 0.6:
                author.write(chance)
            else:
                author.receive(chance.choice(authors), chance)
        while any(a.receive(b, None) for a in authors for b in authors):
            pass

        shown = {(a.document.canonical(), a.document.visible) for a in authors}
        assert len(shown) == 1, f"seed {seed}"


def plain_op(author: Author, chance: random.Random) -> list[Any]:
    """Return a random operation of a map, a counter, a set or a multi-value."""
    maps = [
        list(entry.container)
        if entry.container[0] != author.actor
        else entry.container[1]
        for entry in author.document.root.slots.get("m", ())
        if entry.container is not None
    ]
    choices: list[list[Any]] = [
        [Action.SET, None, chance.choice("ab"), chance.randint(0, 9)],
        [Action.DELETE, None, chance.choice("abm")],
        [Action.MAKE, None, "m", 1],
        [Action.INCREMENT, "n", chance.choice((1, -2, 5))],
        [Action.ADD, "tags", chance.choice("xyz")],
        [Action.REMOVE, "tags", chance.choice("xyz")],
        [Action.MULTI_SET, "several", chance.choices((1, 1.0, True), k=2)],
    ]
    if maps:
        choices += 2 * [[Action.SET, chance.choice(maps), "k", chance.randint(0, 9)]]
    return chance.choice(choices)


Written = tuple[tuple[int, ActorId, int], list[Any], dict[ActorId, int]]


def slow(writes: list[Written]) -> dict[str, Any]:
    """Return what shows of operations, said as plainly as can be: an operation counts
    unless one of its kind and place knew of it; of those that count the latest shows."""

    def knew(later: Written, one: Written) -> bool:
        (_, actor, seq), (_, other, known) = one[0], later[0]
        return known > seq if other == actor else later[2].get(actor, 0) >= seq

    def of(*actions: Action, **at: Any) -> list[Written]:
        wanted = [at.get("where"), at["key"]] if "key" in at else [at["where"]]
        places = [op[1 : 1 + len(wanted)] for _, op, _ in writes]
        return [
            write
            for write, place in zip(writes, places, strict=True)
            if write[1][0] in actions and place == wanted
        ]

    def left(ones: list[Written], over: list[Written]) -> list[Written]:
        return [w for w in ones if not any(knew(u, w) for u in over if u is not w)]

    shown: dict[str, Any] = {}
    for key in "ab":
        sets = of(Action.SET, key=key)
        counts = left(sets, [*sets, *of(Action.DELETE, key=key)])
        if counts:
            shown[key] = max(counts)[1][3]
    makes = of(Action.MAKE, key="m")
    over = [*makes, *of(Action.DELETE, key="m")]
    touched: list[tuple[Any, dict[str, Any]]] = []
    for make in makes:
        (_, actor, seq), _, _ = make
        inside = [
            write
            for write in writes
            if write[1][:3:2] == [Action.SET, "k"]
            and write[1][1] == (seq if write[0][1] == actor else [actor, seq])
        ]
        alive = left([make, *inside], over)
        values = left(inside, inside)
        if alive:
            content = {"k": max(values)[1][3]} if values else {}
            touched.append((max(alive)[0], content))
    if touched:
        shown["m"] = max(touched, key=lambda one: one[0])[1]
    shown["n"] = sum(write[1][2] for write in of(Action.INCREMENT, where="n"))
    shown["tags"] = [
        tag
        for tag in "xyz"
        if left(
            of(Action.ADD, where="tags", key=tag),
            of(Action.REMOVE, where="tags", key=tag),
        )
    ]
    several = of(Action.MULTI_SET, where="several")
    kept = [value for write in left(several, several) for value in write[1][2]]
    shown["several"] = sorted({(type(value).__name__, value) for value in kept})
    return shown


@pytest.mark.parametrize("seed", range(150))
def test_what_shows_is_what_a_slow_model_says(seed: int) -> None:
    chance = random.Random(seed)
    authors = [Author(actor) for actor in ACTORS[:3]]
    for _ in range(40):
        author = chance.choice(authors)
        if chance.random() < 0.6:
            author.write(chance, plain_op(author, chance))
        else:
            author.receive(chance.choice(authors), None)
    while any(a.receive(b, None) for a in authors for b in authors):
        pass
    writes: list[Written] = [
        ((hlc, author.actor, seq), op, seen)
        for author in authors
        for seq, hlc, op, seen in author.changes
    ]

    for author in authors:
        document = author.document
        shown = {
            key: document.entry_value(slot[0])
            for key, slot in document.root.slots.items()
            if key in "abm"
        }
        shown["n"] = document.to_value(("n", Type.COUNTER), Type.COUNTER)
        shown["tags"] = document.to_value(("tags", Type.SET), Type.SET)
        several = document.to_value(("several", Type.MULTI), Type.MULTI)
        shown["several"] = sorted((type(v).__name__, v) for v in several)
        assert shown == slow(writes)


@pytest.mark.parametrize("seed", range(40))
def test_a_stored_document_is_the_same_document(seed: int) -> None:
    chance = random.Random(seed)
    author = Author(ACTORS[0])
    for _ in range(40):
        author.write(chance)
        author.commit()
        if chance.random() < 0.3:
            author.restart()
    again = Document(NAME, author.kept)

    assert again.canonical() == author.document.canonical()


@pytest.mark.parametrize(
    "op",
    [[], ["x"], [-1], [1, None, 7, 1], [1, None, "k", {1: 2}], [1, "f"], [5, "n", "x"],
     [8, "t", 0, ""], [8, "t", -1, "x"], [8, "t", 1, "x"], [9, "t", 0, 1], [9, "t", 0, 0],
     [8, None, 0, "x"], [1, [b"short", 1], "k", 1], [6, "s", "x" * 2000], [5, "n", True],
     [2, None, "m", 0], [2, None, "m", "1"], [14, "l", 0, 0], [15, "l", 0, -1],
     [1, None, "k", float("nan")], [8, "t", 0, "\ud800"], [11, "l", 0, "text"]],
)  # fmt: skip
def test_malformed_operations_are_invalid_and_leave_nothing(op: list[Any]) -> None:
    document = Document(NAME)
    undo = Steps()
    document.undo = undo
    with pytest.raises(InvalidOperation):
        document.apply(op, (1, ACTORS[0], 1), {})
    document.take_back(undo)

    assert document.to_value() == {}


@pytest.mark.parametrize("op", [[19, "t", 0, 1], [99], [2, None, "t", 66]])
def test_operations_of_newer_versions_are_unknown(op: list[Any]) -> None:
    with pytest.raises(UnknownOperation):
        Document(NAME).apply(op, (1, ACTORS[0], 1), {})


def test_nesting_has_a_bound() -> None:
    document = Document(NAME)
    document.apply([2, None, "m", 1], (1, ACTORS[0], 1), None)
    for seq in range(2, 33):
        document.apply([2, seq - 1, "m", 1], (1, ACTORS[0], seq), None)
    with pytest.raises(InvalidOperation, match="deeper than 32"):
        document.apply([2, 32, "m", 1], (1, ACTORS[0], 33), None)


def test_two_types_under_one_field_are_both_kept_and_the_later_shows() -> None:
    document = Document(NAME)
    document.apply([8, "f", 0, "text"], (1, ACTORS[0], 1), {})
    document.apply([5, "f", 3], (2, ACTORS[1], 1), {})

    assert document.to_value() == {"f": 3}
    assert len(document.root.slots["f"]) == 2


def test_a_concurrent_edit_brings_a_deleted_container_back_whole() -> None:
    a, b, *_ = ACTORS
    document = Document(NAME)
    document.apply([8, "body", 0, "hello"], (1, a, 1), {})
    document.apply([3, None, "body"], (2, b, 1), {a: 5})
    assert document.to_value() == {}
    document.apply([8, "body", 5, "!"], (2, a, 6), {a: 5})

    assert document.to_value() == {"body": "hello!"}


@pytest.mark.parametrize("container", [None, ("f", 5), (ACTORS[0], 77)])
def test_names_of_containers_can_be_read_back(container: Any) -> None:
    assert container_from_key(container_key(container)) == container


@pytest.mark.parametrize(
    "op", [[1, 1, "k", 5], [8, 1, 0, "x"], [16, 1, 0, 0], [5, 1, 1], [7, 1, "x"]]
)
def test_what_its_author_had_not_seen_made_cannot_be_named(op: list[Any]) -> None:
    """Or it would have effect where that came first, and none where it comes later."""
    for type_ in (1, 2, 3, 4, 5):
        document = Document(NAME)
        document.apply([2, None, "m", type_], (1, ACTORS[0], 1), {})
        named = [op[0], [ACTORS[0], 1], *op[2:]]
        with pytest.raises(InvalidOperation, match="had not seen"):
            document.apply(named, (2, ACTORS[1], 1), {})
        document.apply_void(named, (2, ACTORS[1], 1), {})
    with pytest.raises(InvalidOperation, match="had not seen"):
        Document(NAME).apply([1, 7, "k", 1], (2, ACTORS[1], 5), {ACTORS[1]: 4})


def test_every_element_of_a_set_is_stored() -> None:
    """What an element is stored under is no name of another cell."""
    document = Document(NAME)
    for seq in range(128):
        document.apply([Action.ADD, "tags", seq], (seq + 1, ACTORS[0], seq + 1), None)
    kept = Kept()
    kept.take(document)

    assert Document(NAME, kept).to_value()["tags"] == list(range(128))


@pytest.mark.parametrize("first", range(1, 8))
@pytest.mark.parametrize("second", range(1, 8))
def test_a_name_that_was_taken_back_is_of_any_type_the_next_time(
    first: int, second: int
) -> None:
    """A transaction that fails gives its names to the next one."""
    inside: dict[int, list[Any]]
    inside = {1: [1, 1, "k", 1], 2: [5, 1, 1], 3: [6, 1, "x"], 4: [11, 1, 0, [1]],
              5: [8, 1, 0, "x"], 6: [21, 1, None, None, 0], 7: [20, 1, [1]]}  # fmt: skip
    document, kept = Document(NAME), Kept()
    document.undo = undo = Steps()
    document.apply([Action.MAKE, None, "m", first], (1, ACTORS[0], 1), None)
    document.apply(inside[first], (1, ACTORS[0], 2), None)
    document.take_back(undo)
    document.apply([Action.MAKE, None, "m", second], (2, ACTORS[0], 1), None)
    document.apply(inside[second], (2, ACTORS[0], 2), None)
    kept.take(document)

    assert Document(NAME, kept).canonical() == document.canonical()


def test_an_edit_inside_an_element_is_not_lost_to_who_replaces_it() -> None:
    a, b, _ = (Author(actor) for actor in ACTORS[:3])
    made: list[list[Any]]
    made = [[Action.LIST_MAKE, "rows", 0, 1], [Action.SET, 1, "k", "old"]]
    inside: list[Any] = [Action.SET, [a.actor, 1], "k", "edited"]
    over: list[Any] = [Action.LIST_SET, "rows", 0, "replaced"]
    orders: list[list[list[Any]]] = [[inside, over], [over, inside]]
    for order in orders:
        document = Document(NAME)
        for seq, op in enumerate(made, 1):
            document.apply(op, (seq, a.actor, seq), {})
        for op in order:
            writer, seq = (a.actor, 3) if op is inside else (b.actor, 1)
            seen = {a.actor: 2}
            document.apply(op, (9 if op is inside else 8, writer, seq), seen)

        assert document.to_value()["rows"] == [{"k": "edited"}]
