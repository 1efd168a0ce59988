"""Marks: who typed where, whatever comes first, all see the same over the same text."""

import random
from typing import Any

import pytest

from syncengine.crdt.document import Document
from syncengine.crdt.marks import MarkRange, Span, changes, ranges, spliced
from syncengine.crdt.operation import Action, InvalidOperation, Type
from syncengine.crdt.sequence import buffer
from syncengine.crdt.sequence.state import Steps
from syncengine.crdt.text import TextState
from tests.second_decoder import merge_spans
from tests.strategies import ACTORS
from tests.syncengine.crdt.test_list import Writer as Base

A, B, C, _ = ACTORS

NONE, BEFORE, AFTER, BOTH = range(4)


class Writer(Base):
    """A replica that edits at the indexes it shows."""

    @property
    def text(self) -> TextState:
        state = self.document.state(("body", Type.TEXT), Type.TEXT)
        assert isinstance(state, TextState)
        return state

    def shown(self) -> list[Any]:
        return [[text, marks] for text, marks in self.text.spans()]

    def type(self, index: int, what: str) -> None:
        ((at, _),) = self.text.author_ranges(index, 0)
        self.write(Action.TEXT_INSERT, "body", at, what)

    def erase(self, index: int, n: int) -> None:
        for at, count in self.text.author_ranges(index, n):
            self.write(Action.TEXT_DELETE, "body", at, count)

    def mark(
        self, start: int, stop: int, name: str, value: Any = True, edges: int = AFTER
    ) -> None:
        ((at, _),) = self.text.author_ranges(start, 0)
        ((end, _),) = self.text.author_ranges(stop, 0)
        self.write(Action.MARK, "body", at, end, name, value, edges)

    def edit(self, chance: random.Random, name: int) -> None:
        shown = str(self.text)
        kind = chance.random()
        if len(shown) > 1 and kind < 0.4:
            start = chance.randrange(len(shown))
            stop = chance.randint(start + 1, len(shown))
            value = chance.choice((True, None, name))
            self.mark(start, stop, chance.choice("bl"), value, chance.randrange(4))
            assert str(self.text) == shown
        elif shown and kind < 0.6:
            at = chance.randrange(len(shown))
            n = chance.randint(1, min(3, len(shown) - at))
            self.erase(at, n)
            assert str(self.text) == shown[:at] + shown[at + n :]
        elif shown and kind < 0.65:  # one who is no honest author
            at = chance.randrange(self.text.length)
            self.write(Action.TEXT_DELETE, "body", at, 1)
        else:
            at = chance.randint(0, len(shown))
            new = chance.choice(("x", "yé"))
            self.type(at, new)
            assert str(self.text) == shown[:at] + new + shown[at:]


def together(*writers: Writer) -> None:
    chance = random.Random(0)
    while any(a.receive(b, chance) for a in writers for b in writers if a is not b):
        pass
    assert all(writer.shown() == writers[0].shown() for writer in writers)


def two(text: str) -> tuple[Writer, Writer]:
    one, other = Writer(A), Writer(B)
    one.type(0, text)
    together(one, other)
    return one, other


@pytest.mark.parametrize("chunk", [4, 2048])
@pytest.mark.parametrize("part", range(4))
def test_every_order_shows_what_the_plain_definition_shows(
    part: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "CHUNK_MAX", chunk)
    for seed in range(part * 100, part * 100 + 40):
        chance = random.Random(seed)
        writers = [Writer(actor) for actor in (A, B, C)]
        order: list[tuple[Writer, int]] = []
        for name in range(1, 40):
            writer = chance.choice(writers)
            if chance.random() < 0.6:
                before = len(writer.changes)
                writer.edit(chance, name)
                order += [(writer, at) for at in range(before, len(writer.changes))]
            elif chance.random() < 0.2:
                writer.restart()
            else:
                other = chance.choice([w for w in writers if w is not writer])
                writer.receive(other, chance)
        while any(a.receive(b, chance) for a in writers for b in writers if a is not b):
            pass

        edits = [
            [w.actor, seq, seen, op, hlc]
            for w, at in order
            for seq, hlc, op, seen in [w.changes[at]]
        ]
        expected = merge_spans(edits)
        for writer in writers:
            assert writer.shown() == expected, f"seed {seed}"
            writer.restart()
            assert writer.shown() == expected, f"seed {seed}, stored"
            assert_counts(writer.text)


def assert_counts(text: TextState) -> None:
    """The buffer counts anchors and characters rightly at every place."""
    shown = str(text)
    assert text.shown_length == len(shown)
    position = 0
    for index in range(len(shown) + 1):
        at, anchors = text.buffer.gap(index)
        assert at == position
        assert text.buffer.index(at) == index
        assert text.buffer.anchors_in(at, len(anchors)) == anchors
        position = at + len(anchors) + 1
    assert position == text.length + 1


# --- at the edges ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "before", "behind"),
    [(NONE, False, False), (BEFORE, True, False), (AFTER, False, True), (BOTH, True, True)],
)  # fmt: skip
def test_typing_at_an_edge_is_marked_where_the_mark_expands(
    edges: int, before: bool, behind: bool
) -> None:
    one, _ = two("ab cd ef")
    one.mark(3, 5, "b", edges=edges)
    one.type(5, "!")
    one.type(3, "¡")

    marked = "".join(text for text, marks in one.text.spans() if marks)
    assert marked == "¡" * before + "cd" + "!" * behind


@pytest.mark.parametrize("actors", [(A, B), (B, A)])
@pytest.mark.parametrize(
    ("edges", "before", "behind"),
    [(NONE, False, False), (BEFORE, True, False), (AFTER, False, True), (BOTH, True, True)],
)  # fmt: skip
def test_so_is_what_somebody_typed_there_who_had_not_seen_the_mark(
    edges: int, before: bool, behind: bool, actors: Any
) -> None:
    """It does not depend on who is who."""
    marking, typing = Writer(actors[0]), Writer(actors[1])
    marking.type(0, "ab cd ef")
    together(marking, typing)
    marking.mark(3, 5, "b", edges=edges)
    typing.type(5, "!")
    typing.type(3, "¡")
    together(marking, typing)

    marked = "".join(text for text, marks in marking.text.spans() if marks)
    assert marked == "¡" * before + "cd" + "!" * behind


def test_a_bold_word_ends_where_its_link_ends_and_typing_stays_bold() -> None:
    one, _ = two("see here now")
    one.mark(4, 8, "bold")
    one.mark(4, 8, "link", "https://example.org", NONE)
    one.type(8, "!")

    assert one.text.spans()[1:3] == [
        Span("here", {"bold": True, "link": "https://example.org"}),
        Span("!", {"bold": True}),
    ]


def test_overlapping_marks_of_two_both_show() -> None:
    one, other = two("The fox jumped.")
    one.mark(0, 7, "bold")
    other.mark(4, 14, "italic")
    together(one, other)

    assert ranges(other.text.spans()) == [
        MarkRange(0, 7, "bold", True),
        MarkRange(4, 14, "italic", True),
    ]


def test_of_bold_and_not_bold_the_later_shows_where_they_overlap() -> None:
    one, other = two("The fox jumped.")
    one.mark(0, 15, "bold")
    together(one, other)
    one.mark(0, 7, "bold", None)
    other.clock += 5
    other.mark(4, 14, "bold", "heavy")
    together(one, other)

    assert ranges(one.text.spans()) == [
        MarkRange(4, 14, "bold", "heavy"),
        MarkRange(14, 15, "bold", True),
    ]


def test_what_is_typed_inside_a_word_that_was_deleted_is_still_bold() -> None:
    one, other = two("a word b")
    one.mark(2, 6, "bold")
    together(one, other)
    one.erase(2, 4)
    other.type(4, "XY")
    together(one, other)

    assert one.text.spans() == [Span("a ", {}), Span("XY", {"bold": True}), Span(" b", {})]  # fmt: skip


def test_where_a_marked_word_was_deleted_typing_is_plain() -> None:
    one, _ = two("a word b")
    one.mark(2, 6, "bold")
    one.mark(2, 6, "link", "x", NONE)
    one.erase(2, 4)
    one.type(2, "new")

    assert one.text.spans() == [Span("a new b", {})]


# --- what is no mark ------------------------------------------------------------------


@pytest.mark.parametrize(
    "op", [[18, "body", 2, 2, "b", True, 0], [18, "body", 3, 2, "b", True, 0],
           [18, "body", 0, 9, "b", True, 0], [18, "body", -1, 2, "b", True, 0],
           [18, "body", 0, 2, 5, True, 0], [18, "body", 0, 2, "b", float("nan"), 0],
           [18, "body", 0, 2, "b", True], [18, "body", 0, 2, "b", True, "x"],
           [18, None, 0, 2, "b", True, 0]],
)  # fmt: skip
def test_a_mark_over_nothing_is_void(op: list[Any]) -> None:
    one, _ = two("abcd")
    one.document.undo = undo = Steps()
    with pytest.raises(InvalidOperation):
        one.document.apply(op, (5, B, 1), {A: 4})
    one.document.take_back(undo)

    assert one.shown() == [["abcd", {}]]
    assert one.text.marks == {}


def test_a_void_mark_counts_and_shows_nothing() -> None:
    one, other = two("abcd")
    mark = [18, "body", 1, 3, "b", True, AFTER]
    for writer in (one, other):
        writer.document.apply_void(mark, (5, C, 1), {A: 4})
        writer.document.apply([8, "body", 6, "!"], (6, C, 3), {A: 4, C: 2})

    assert one.shown() == other.shown() == [["abcd!", {}]]


def test_the_canonical_state_tells_marks() -> None:
    one, other = two("abcd")
    plain = one.document.canonical()
    one.mark(0, 2, "b")
    assert one.document.canonical() != plain
    one.mark(0, 2, "b", None)

    assert one.document.canonical() == plain == other.document.canonical()


# --- patches --------------------------------------------------------------------------


def test_patches_make_of_what_was_shown_what_is_shown() -> None:
    for seed in range(60):
        chance = random.Random(seed)
        one, other = Writer(A), Writer(B)
        edits = one.text.watch()
        shown: list[tuple[str, dict[str, Any]]] = []
        for name in range(1, 30):
            chance.choice((one, other)).edit(chance, name)
            if chance.random() < 0.5:
                one.receive(other, chance)
                other.receive(one, chance)
            for patch in edits:
                if isinstance(patch, MarkRange):
                    for _, marks in shown[patch.start : patch.stop]:
                        marks.pop(patch.name, None)
                        if patch.value is not None:
                            marks[patch.name] = patch.value
                else:
                    new = [(char, dict[str, Any]()) for char in patch.inserted]
                    shown[patch.pos : patch.pos + patch.deleted] = new
            edits.clear()

            expected = [(c, marks) for text, marks in one.text.spans() for c in text]
            assert shown == expected, f"seed {seed}"


def test_changes_and_deletions_of_spans() -> None:
    before = [Span("ab", {"b": 1}), Span("cd", {})]
    after = [Span("a", {"b": 2}), Span("bc", {"b": 2, "i": 3}), Span("d", {})]

    assert changes(before, after) == [
        MarkRange(0, 3, "b", 2),
        MarkRange(1, 3, "i", 3),
    ]
    assert changes(after, before) == [
        MarkRange(0, 2, "b", 1),
        MarkRange(1, 3, "i", None),
        MarkRange(2, 3, "b", None),
    ]


def test_a_splice_of_spans() -> None:
    spans = [Span("ab", {"b": 1}), Span("cd", {})]

    assert spliced(spans, 1, 2) == [Span("a", {"b": 1}), Span("d", {})]
    assert spliced(spans, 1, 0, "x") == [
        Span("a", {"b": 1}),
        Span("x", {}),
        Span("b", {"b": 1}),
        Span("cd", {}),
    ]
    assert spliced(spans, 0, 4, "x") == [Span("x", {})]
    assert spliced([], 0, 0, "x") == [Span("x", {})]
    assert spliced(spans, 4, 0, "x")[-1] == Span("x", {})


def test_a_stored_document_keeps_its_marks() -> None:
    one, _ = two("abcd" * 1000)
    one.mark(10, 3000, "b")
    one.restart()
    one.erase(0, 4000)
    one.restart()

    assert one.shown() == []
    assert isinstance(one.document, Document)
