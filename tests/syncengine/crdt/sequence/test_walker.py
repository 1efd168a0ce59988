"""Merging texts: conformance, recorded sessions, and random histories against a slow,
obviously right model."""

# pyright: reportPrivateUsage=false

import contextlib
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence import oplog, state, walker
from syncengine.crdt.sequence.oplog import DEL, INS
from syncengine.crdt.sequence.state import Steps
from syncengine.crdt.text import TextState
from syncengine.ids import ActorId

ACTORS = [ActorId(bytes([i]) * 16) for i in range(5)]


def push(
    text: TextState,
    kind: int,
    edit: tuple[int, int, str | None],
    actor: ActorId,
    seq: int,
    parents: tuple[int, ...],
) -> None:
    """Merge one operation at explicit parents, as the conformance cases name them."""
    pos, n, content = edit
    merging = text._walker_for(parents)
    lv = text.log.push(kind, pos, n, actor, seq, parents)
    for patch in merging.take(lv, kind, pos, n, parents):
        text._splice(
            patch.pos, patch.deleted, content if patch.inserted else None, None
        )


@pytest.mark.parametrize("part", range(7))
def test_conformance(shared: Path, part: int) -> None:
    raw = gzip.open(shared / "eg-walker-conformance" / "cases.json.gz").read()
    cases: list[dict[str, Any]] = json.loads(raw)
    assert len(cases) == 700
    for number, case in list(enumerate(cases))[part::7]:
        text = TextState()
        for txn in case["txns"]:
            agent: str = txn["agent"]
            actor = ActorId(agent.encode().ljust(16, b"\0"))
            seq: int = txn["seqStart"]
            parents: tuple[int, ...] = tuple(txn["parents"])
            ops: list[tuple[int, int, str]] = txn["ops"]
            for pos, deleted, inserted in ops:
                if deleted:
                    push(text, DEL, (pos, deleted, None), actor, seq, parents)
                    seq, parents = seq + deleted, (text.log.n - 1,)
                if inserted:
                    edit = (pos, len(inserted), inserted)
                    push(text, INS, edit, actor, seq, parents)
                    seq, parents = seq + len(inserted), (text.log.n - 1,)
        assert str(text) == case["endContent"], f"case {number}"


@pytest.mark.parametrize(
    "name",
    ["automerge-paper", "rustcode", "sveltecomponent", "seph-blog1",
     "seph-blog1_unicode", "friendsforever_flat", "clownschool_flat"],
)  # fmt: skip
def test_sequential_sessions_build_no_walker(shared: Path, name: str) -> None:
    trace = json.loads(
        gzip.open(shared / "editing-traces" / "sequential" / f"{name}.json.gz").read()
    )
    text, seq, actor = TextState(), 1, ACTORS[0]
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                text.apply(DEL, pos, deleted, None, (0, actor, seq), None, None)
                seq += deleted
            if inserted:
                n = len(inserted)
                text.apply(INS, pos, n, inserted, (0, actor, seq), None, None)
                seq += n

    assert str(text) == trace["endContent"]
    assert text._walker is None


def test_two_who_take_turns_build_no_walker() -> None:
    chance = random.Random(7)
    texts, seqs, shown = [TextState(), TextState()], [0, 0], ""
    for turn in range(500):
        author = turn % 2
        at = chance.randint(0, len(shown))
        seen = {ACTORS[one]: seq for one, seq in enumerate(seqs) if seq}
        stamp = (turn, ACTORS[author], seqs[author] + 1)
        for number, text in enumerate(texts):
            known = None if number == author else {**seen}
            text.apply(INS, at, 3, f"{turn:03}", stamp, known, None)
        seqs[author] += 3
        shown = shown[:at] + f"{turn:03}" + shown[at:]

    assert str(texts[0]) == str(texts[1]) == shown
    assert [text._walker for text in texts] == [None, None]


def test_a_walker_goes_when_nothing_is_concurrent_any_more() -> None:
    text = TextState()
    text.apply(INS, 0, 1, "a", (0, ACTORS[0], 1), {}, None)
    text.apply(INS, 0, 1, "b", (0, ACTORS[1], 1), {}, None)
    assert text._walker is not None
    for _ in range(state.UNUSED_COMMITS_MAX):
        list(text.cells())
    assert text._walker is not None
    list(text.cells())
    assert text._walker is None


# --- random histories -----------------------------------------------------------------


class Model:
    """The slow, obviously right version: Fugue on single characters.

    Each character is a node of a tree, left or right child of its origin; siblings
    are ordered by (actor, seq); the text is the tree in order. After Weidner and
    Kleppmann, "The Art of the Fugue" (2023).
    """

    def __init__(self) -> None:
        self.nodes: dict[Any, tuple[Any, str, str]] = {}  # id -> (parent, side, char)
        self.deleted: set[Any] = set()

    def _walk(self, known: set[Any]) -> list[Any]:
        children: dict[tuple[Any, str], list[Any]] = {}
        for name in sorted(known):
            parent, side, _ = self.nodes[name]
            children.setdefault((parent, side), []).append(name)
        order: list[Any] = []
        stack: list[tuple[Any, bool]] = [(None, False)]
        while stack:
            name, expanded = stack.pop()
            if expanded:
                if name is not None:
                    order.append(name)
                continue
            rights = [(c, False) for c in reversed(children.get((name, "r"), []))]
            lefts = [(c, False) for c in reversed(children.get((name, "l"), []))]
            stack += [*rights, (name, True), *lefts]
        return order

    def order(self, known: set[Any], deleted: set[Any]) -> list[Any]:
        return [name for name in self._walk(known) if name not in deleted]

    def insert(
        self, name: Any, char: str, pos: int, known: set[Any], dead: set[Any]
    ) -> None:
        shown = self.order(known, dead)
        left = shown[pos - 1] if pos else None
        everything = self._walk(known)
        at = everything.index(left) + 1 if left is not None else 0
        right = everything[at] if at < len(everything) else None
        # A left child of `right` iff `right` stands below `left`.
        if right is not None and self._is_right_below(right, left):
            self.nodes[name] = (right, "l", char)
        else:
            self.nodes[name] = (left, "r", char)

    def _is_right_below(self, name: Any, left: Any) -> bool:
        parent, side, _ = self.nodes[name]
        while side == "l":
            name = parent
            parent, side, _ = self.nodes[name]
        return bool(parent == left)

    def text(self, known: set[Any], dead: set[Any]) -> str:
        return "".join(self.nodes[name][2] for name in self.order(known, dead))


def is_void(actor: ActorId, seq: int) -> bool:
    """In histories with void changes: one in four."""
    return (actor[0] * 7 + seq) % 4 == 0


class Writer:
    """A replica under test beside the model's view of the same history."""

    with_voids = False

    def __init__(self, actor: ActorId):
        self.actor = actor
        self.text = TextState()
        self.version: dict[ActorId, int] = {}
        self.changes: list[
            tuple[int, int, int, int, str | None, dict[ActorId, int]]
        ] = []
        self.disk: dict[bytes, bytes] = {}

    def store(self) -> None:
        for key, cell in self.text.cells():
            if cell is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = cell

    def restart(self) -> None:
        """Go on with what is stored; the log is fetched when it is asked for."""
        self.store()
        if b"h" in self.disk:
            self.text = TextState()
            self.text.load(
                {key: state for key, state in self.disk.items() if key[:1] != b"l"},
                lambda _, __: sorted(
                    (k, v) for k, v in self.disk.items() if k[:1] == b"l"
                ),
            )

    def receive(self, other: "Writer", one: Any, undo: bool) -> None:
        seq, kind, pos, n, content, seen = one
        at = {**seen, other.actor: seq - 1}
        stamp = (0, other.actor, seq)
        self.version[other.actor] = seq + n - 1
        if self.with_voids and is_void(other.actor, seq):
            self.text.apply_void(kind, pos, n, (other.actor, seq), at)
            return
        if undo:
            # Taken back and done again: as if it had not been.
            before = str(self.text)
            steps = Steps()
            self.text.apply(kind, pos, n, content, stamp, at, steps)
            while steps:
                steps.pop()()
            assert str(self.text) == before
        self.text.apply(kind, pos, n, content, stamp, at, None)

    def edit(self, kind: int, pos: int, n: int, content: str | None) -> None:
        """Make an edit at what is shown here; it shows as that of a plain text."""
        shown = str(self.text)
        end = pos + n if kind == DEL else pos
        expected = shown[:pos] + (content or "") + shown[end:]
        for at, count in self.text.author_ranges(pos, n if kind == DEL else 0):
            seq = self.version.get(self.actor, 0) + 1
            seen = dict(self.version)
            count = count or n
            self.changes.append((seq, kind, at, count, content, seen))
            self.version[self.actor] = seq + count - 1
            if self.with_voids and is_void(self.actor, seq):
                self.text.apply_void(kind, at, count, (self.actor, seq), seen)
                expected = str(self.text)
                break
            stamp = (0, self.actor, seq)
            self.text.apply(kind, at, count, content, stamp, None, None)
        assert str(self.text) == expected


def history(
    seed: int, writers: int, steps: int, stored: float = 0, *, voids: bool = False
) -> list[Writer]:
    """Return replicas after random typing and partial, random delivery.

    `stored`: how often one commits, or restarts from what it committed; `voids`: some
    of what they write is void, as `is_void` says.
    """
    chance = random.Random(seed)
    all_ = [Writer(actor) for actor in ACTORS[:writers]]
    for writer in all_:
        writer.with_voids = voids
    for _ in range(steps):
        writer = chance.choice(all_)
        if chance.random() < stored:
            chance.choice((writer.store, writer.restart))()
        elif chance.random() < 0.5:
            length = writer.text.length
            if length and chance.random() < 0.35:
                pos = chance.randrange(length)
                n = min(length - pos, chance.randint(1, 3))
                with contextlib.suppress(InvalidOperation):  # has no place any more
                    writer.edit(DEL, pos, n, None)
            else:
                pos = chance.randint(0, length)
                content = "".join(chance.choices("abcdefgh", k=chance.randint(1, 3)))
                with contextlib.suppress(InvalidOperation):
                    writer.edit(INS, pos, len(content), content)
        else:
            deliver(writer, chance.choice(all_), chance)
    for _ in range(writers * steps):
        moved = [deliver(a, b, None) for a in all_ for b in all_]
        if not any(moved):
            break
    return all_


def deliver(to: Writer, source: Writer, chance: random.Random | None) -> bool:
    moved = False
    if to is source:
        return False
    for one in source.changes:
        seq, seen = one[0], one[5]
        if seq != to.version.get(source.actor, 0) + 1:
            continue
        if any(to.version.get(actor, 0) < known for actor, known in seen.items()):
            break
        to.receive(source, one, chance is not None and chance.random() < 0.3)
        moved = True
        if chance is not None and chance.random() < 0.4:
            break
    return moved


def by_model(writers: list[Writer]) -> str:
    """Return what the model makes of the same history."""
    model, known, gone = modelled(writers)
    return model.text(known, gone)


def modelled(writers: list[Writer]) -> tuple[Model, set[Any], set[Any]]:
    """Return the model of the same history, all it knows, and what does not show."""
    model = Model()
    known_at: dict[tuple[ActorId, int], tuple[set[Any], set[Any]]] = {}
    todo = {writer.actor: list(writer.changes) for writer in writers}
    done: dict[ActorId, int] = {}
    void: set[Any] = set()
    while any(todo.values()):
        for actor, changes in todo.items():
            if not changes:
                continue
            seq, kind, pos, n, content, seen = changes[0]
            if any(done.get(a, 0) < s for a, s in seen.items()):
                continue
            known: set[Any] = set()
            dead: set[Any] = set()
            for a, s in seen.items():
                for at in range(1, s + 1):
                    what = known_at[(a, at)]
                    known |= what[0]
                    dead |= what[1]
            for offset in range(n):
                name = (actor, seq + offset)
                if kind == INS:
                    assert content is not None
                    model.insert(name, content[offset], pos + offset, known, dead)
                    known = known | {name}
                    known_at[name] = ({name}, set())
                else:
                    victim = model.order(known, dead)[pos]
                    dead = dead | {victim}
                    known_at[name] = (set(), {victim})
            if writers[0].with_voids and is_void(actor, seq):
                void |= {(actor, seq + offset) for offset in range(n)}
            done[actor] = seq + n - 1
            changes.pop(0)
    return (
        model,
        {name for added, _ in known_at.values() for name in added},
        {name for by, (_, gone) in known_at.items() if by not in void for name in gone}
        | void,
    )


@pytest.mark.parametrize("block", [3, 128])
@pytest.mark.parametrize("part", range(4))
def test_random_histories_converge_to_what_the_model_says(
    part: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walker, "BLOCK_SPANS_MAX", block)
    for seed in range(part * 100, part * 100 + 40):
        writers = history(seed, writers=3, steps=25)
        texts = {str(writer.text) for writer in writers}
        assert texts == {by_model(writers)}, f"seed {seed}"


@pytest.mark.parametrize("stored", [0, 0.2])
@pytest.mark.parametrize("part", range(4))
def test_what_is_void_counts_for_positions_and_does_not_show(
    part: int, stored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walker, "BLOCK_SPANS_MAX", 3)
    for seed in range(part * 100, part * 100 + 40):
        writers = history(seed, writers=3, steps=25, stored=stored, voids=True)
        texts = {str(writer.text) for writer in writers}
        assert texts == {by_model(writers)}, f"seed {seed}"


@pytest.mark.parametrize("voids", [False, True])
def test_each_character_is_known_by_who_wrote_it(voids: bool) -> None:
    for seed in range(40):
        writers = history(seed, writers=3, steps=25, stored=0.1, voids=voids)
        model, known, gone = modelled(writers)
        for writer in writers:
            names = [
                (actor, seq + offset)
                for actor, seq, n in writer.text.writers()
                for offset in range(n)
            ]
            assert names == model.order(known, gone), f"seed {seed}"


def test_a_walker_that_has_grown_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walker, "SEGMENTS_MAX", 3)
    for seed in range(60):
        writers = history(seed, writers=3, steps=30)
        texts = {str(writer.text) for writer in writers}
        assert texts == {by_model(writers)}, f"seed {seed}"


@pytest.mark.parametrize("segment", [2, 64])
@pytest.mark.parametrize("part", range(2))
def test_random_histories_converge_over_commits_and_restarts(
    part: int, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oplog, "SEGMENT_RUNS", segment)
    for seed in range(part * 100, part * 100 + 60):
        writers = history(seed, writers=3, steps=40, stored=0.3)
        texts = {str(writer.text) for writer in writers}
        assert texts == {by_model(writers)}, f"seed {seed}"


def test_a_stored_text_goes_on_where_it_was() -> None:
    """Loading needs no log until something concurrent comes."""
    writers = history(7, writers=3, steps=40)
    one = writers[0].text
    cells = {key: state for key, state in one.cells() if state is not None}
    loaded = TextState()
    logs = sorted((k, v) for k, v in cells.items() if k[:1] == b"l")
    loaded.load({k: v for k, v in cells.items() if k[:1] != b"l"}, lambda _, __: logs)
    assert str(loaded) == str(one)
    for text in (one, loaded):
        text.apply(INS, 0, 1, "z", (0, ACTORS[4], 1), {}, None)

    assert str(loaded) == str(one)


def test_what_is_tested_is_what_was_asked_for() -> None:
    """`test_accelerator.py` runs this file over what it compiled; else it is source."""
    compiled = os.environ.get("EXPECT_COMPILED", "")
    assert (walker.__file__ or "").startswith(compiled)
    assert (walker.__file__ or "").endswith(".py") == (not compiled)


def test_a_log_can_be_taken_back_to_one_place_twice() -> None:
    log, author = oplog.OpLog(), ACTORS[0]
    log.push(INS, 0, 3, author, 1, ())
    mark = log.mark()
    before = log.heads, list(log.head_ids)
    for pos in (3, 0):
        log.push(INS, pos, 2, author, 4, log.heads)
        log.rewind(mark)
        assert (log.heads, log.head_ids) == before
