"""A text as an application edits it: marks over it, cursors in it."""

import base64
import json
import random
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    Document,
    FrozenDocument,
    Invalid,
    MarkRange,
    NotFound,
    Space,
    Span,
    Text,
    values,
)
from tests.wires import meet, two_members


class Note(Document):
    title: str = ""
    body: Text = Text()


@pytest.fixture
async def space() -> AsyncGenerator[Space]:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "n").body.insert(0, "see here now")
        yield space


# --- marks ----------------------------------------------------------------------------


async def test_marks_show_as_spans_and_ranges(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        body.mark(4, 8, "bold")
        body.mark(4, 8, "link", "https://example.org")
        body.insert(8, "!")

    body = (await space.get(Note, "n")).body
    assert body.spans() == [
        Span("see ", {}),
        Span("here", {"bold": True, "link": "https://example.org"}),
        Span("!", {"bold": True}),
        Span(" now", {}),
    ]
    assert body.marks() == [
        MarkRange(4, 9, "bold", True),
        MarkRange(4, 8, "link", "https://example.org"),
    ]
    assert body == "see here! now"
    assert (len(body), body[4:8], body[-3:], body[8]) == (13, "here", "now", "!")


async def test_a_mark_is_taken_off(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        body.mark(0, 12, "bold")
        body.unmark(4, 8, "bold")

        assert [mark[:2] for mark in body.marks()] == [(0, 4), (8, 12)]


async def test_a_snapshot_keeps_its_marks(space: Space) -> None:
    async with space.transaction() as tx:
        tx.get(Note, "n").body.mark(0, 3, "bold")
    before = await space.get(Note, "n")
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        body.unmark(0, 3, "bold")
        body.mark(4, 8, "italic")
        body.insert(0, ">")

    assert before.body.marks() == [MarkRange(0, 3, "bold", True)]
    assert before.body[0:3] == "see"
    with pytest.raises(FrozenDocument):
        before.body.mark(0, 1, "bold")


@pytest.mark.parametrize(
    ("start", "stop", "name", "value"),
    [(0, 99, "b", 1), (5, 4, "b", 1), (-1, 4, "b", 1), (0, 4, 5, 1), (0, 4, "b", None),
     (0, 4, "b", float("nan")), (0, 4, "b", {1}), (0, 4, "x" * 2000, 1)],
)  # fmt: skip
async def test_what_is_no_mark_is_refused_with_the_path(
    space: Space, start: int, stop: int, name: str, value: Any
) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        with pytest.raises(Invalid, match="note/n/body"):
            body.mark(start, stop, name, value)
        body.mark(3, 3, "b")  # over nothing: nothing

        assert body.marks() == []


async def test_restyle_writes_what_differs(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        body.mark(0, 8, "bold")
        wanted = [MarkRange(2, 8, "bold", True), MarkRange(4, 6, "italic", True)]
        body.restyle(wanted)
        assert body.marks() == wanted
    before = space.engine.next_seq
    async with space.transaction() as tx:
        tx.get(Note, "n").body.restyle(wanted)

    assert space.engine.next_seq == before


async def test_what_is_written_after_a_delete_bears_no_old_marks(space: Space) -> None:
    async with space.transaction() as tx:
        tx.get(Note, "n").body.mark(0, 8, "bold", expand="both")
    async with space.transaction() as tx:
        tx.delete(Note, "n")
    async with space.transaction() as tx:
        body = tx.create(Note, "n").body
        body.insert(0, "anew")

    assert (await space.get(Note, "n")).body.spans() == [Span("anew", {})]


async def test_marks_travel_and_survive_a_restart(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica, two_members() as pair:
        space, theirs = pair
        kept = await replica.join(await space.invite("write"), name="home")
        async with space.transaction() as tx:
            tx.create(Note, "n").body.insert(0, "see here now")
        await meet(*pair)
        async with space.transaction() as tx:
            tx.get(Note, "n").body.mark(4, 8, "bold")
        async with theirs.transaction() as tx:
            tx.get(Note, "n").body.insert(8, "!")
        await meet(*pair)
        await meet(space, kept)
        spans = [(await one.get(Note, "n")).body.spans() for one in (*pair, kept)]
        assert spans[0] == spans[1] == spans[2]
        assert spans[0][1] == Span("here!", {"bold": True})
    async with syncengine.open(tmp_path / "a.db") as replica:
        again = await (await replica.namespace("home")).get(Note, "n")
        assert again.body.spans() == spans[0]


async def test_an_editor_is_told_of_marks(space: Space) -> None:
    patches: list[Any] = []
    async with space.live(Note, "n") as live:
        live.on_patch("body", patches.extend)
        async with space.transaction() as tx:
            body = tx.get(Note, "n").body
            body.mark(4, 8, "bold")
            body.insert(8, "!")

    assert patches == [
        MarkRange(4, 8, "bold", True),
        (8, 0, "!"),
        MarkRange(8, 9, "bold", True),
    ]


async def test_marks_are_exported_and_imported(space: Space) -> None:
    async with space.transaction() as tx:
        tx.get(Note, "n").body.mark(4, 8, "bold")
        deep = tx["page/1"].map("m").text("t")
        deep.insert(0, "deep")
        deep.mark(0, 2, "link", "x")
    records = json.loads(json.dumps([record async for record in space.dump()]))
    async with syncengine.open(":memory:") as replica:
        copy = await replica.namespace("copy")
        await copy.load(records)

        assert [record async for record in copy.dump()] == records
        assert (await copy.get(Note, "n")).body.marks() == [MarkRange(4, 8, "bold", True)]  # fmt: skip
        before = copy.engine.next_seq
        await copy.load(records)
        assert copy.engine.next_seq == before
        for wrong in ({"/body": [[0, 99, "b", 1]]}, {"/body": 5}, {"/body": [[0]]}, 5):
            with pytest.raises(Invalid):
                await copy.load([{**records[0], "marks": wrong}])


# --- cursors --------------------------------------------------------------------------


async def test_a_cursor_holds_on_to_its_character(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        after, before = body.cursor(4), body.cursor(4, stick="before")
        body.insert(4, "right ")
        body.insert(0, "> ")

        assert (body.index_of(after), body.index_of(before)) == (12, 6)


async def test_where_its_character_was_deleted_a_cursor_stays(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        cursor = body.cursor(6)
        body.delete(4, 5)

        assert body.index_of(cursor) == 4


async def test_the_ends_of_a_text_have_cursors(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        start, end = body.cursor(0, stick="before"), body.cursor(len(body))
        body.insert(0, "x")
        body.append("y")

        assert (body.index_of(start), body.index_of(end)) == (0, len(body))


async def test_a_cursor_in_a_snapshot_is_of_the_snapshot(space: Space) -> None:
    before = await space.get(Note, "n")
    async with space.transaction() as tx:
        tx.get(Note, "n").body.insert(0, "> ")
    now = await space.get(Note, "n")
    made_before, made_now = before.body.cursor(4), now.body.cursor(6)

    assert now.body.index_of(made_before) == 6
    assert before.body.index_of(made_before) == 4
    with pytest.raises(NotFound):
        before.body.index_of(made_now)


async def test_what_is_no_cursor_is_refused(space: Space) -> None:
    body = (await space.get(Note, "n")).body
    for wrong in ("", "x", "!!", "gA", "kwE", "wcEB"):
        with pytest.raises(Invalid, match="no cursor"):
            body.index_of(wrong)
    with pytest.raises(Invalid, match="beyond"):
        body.cursor(13)
    async with syncengine.open(":memory:") as replica:
        other = await replica.namespace("home")
        async with other.transaction() as tx:
            stranger = tx.create(Note, "n").body
            stranger.insert(0, "something else")
            with pytest.raises(NotFound, match="not here"):
                stranger.index_of(body.cursor(4))


@pytest.mark.parametrize("seed", range(6))
async def test_cursors_survive_what_two_devices_do(seed: int) -> None:
    """Each character is one of a kind: a cursor is where its own stands, or between
    what stood around it."""
    chance = random.Random(seed)
    names = iter(map(chr, range(0x4E00, 0x9000)))
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tx.create(Note, "n").body.insert(0, "abcdef")
        await meet(*pair)
        cursors: list[tuple[str, str, str]] = []
        for _ in range(12):
            for space in pair:
                async with space.transaction() as tx:
                    body = tx.get(Note, "n").body
                    for _ in range(3):
                        edit(body, chance, names)
                body = (await space.get(Note, "n")).body
                at = chance.randint(0, len(body))
                cursors.append((body.cursor(at), body[:at], body[at:]))
            if chance.random() < 0.5:
                await meet(*pair)
        await meet(*pair)

        for space in pair:
            body = (await space.get(Note, "n")).body
            text = str(body)
            for cursor, left, right in cursors:
                at = body.index_of(cursor)
                if right[:1] and right[0] in text:
                    assert text[at] == right[0]
                assert all(text.index(c) < at for c in left if c in text)
                assert all(text.index(c) >= at for c in right if c in text)


def edit(body: Text, chance: random.Random, names: Iterator[str]) -> None:
    at = chance.randint(0, len(body))
    if chance.random() < 0.4 and at < len(body):
        body.delete(at)
    elif chance.random() < 0.3 and at < len(body):
        body.mark(at, len(body), "b")
    else:
        body.insert(at, next(names))


@pytest.mark.parametrize("pos", [-3, -1, 12, 13, 10**9, 2**60, 1.5, True, None, [1]])
async def test_a_forged_cursor_is_refused(space: Space, pos: Any) -> None:
    body = (await space.get(Note, "n")).body
    raw = base64.urlsafe_b64decode(body.cursor(2) + "==")
    names, _ = values.decode(raw)[1]
    for place in ([names, pos], [[[[1], 1]], 0], [names * 10_001, 0], [names], names):
        forged = base64.urlsafe_b64encode(values.encode([True, place])).decode()
        with pytest.raises((Invalid, NotFound)):
            body.index_of(forged)


async def test_a_deleted_text_with_a_mark_at_its_start_is_written_again(
    space: Space,
) -> None:
    for again in ("insert", "append", "revert"):
        async with space.transaction() as tx:
            body = tx["page/1"].text("body")
            body.insert(0, "hello")
            body.mark(0, 5, "bold", expand="before")
        past = await space.get("page/1")
        async with space.transaction() as tx:
            del tx["page/1"]["body"]
        async with space.transaction() as tx:
            if again == "insert":
                tx["page/1"].text("body").insert(0, "new")
            elif again == "append":
                tx["page/1"].text("body").append("new")
            else:
                tx.revert(past)
        now = await space.get("page/1")
        assert now["body"] == ("hello" if again == "revert" else "new")
        async with space.transaction() as tx:
            tx.delete("page/1")


async def test_a_mark_s_value_belongs_to_nobody(space: Space) -> None:
    link = {"href": "x"}
    async with space.transaction() as tx:
        tx.get(Note, "n").body.mark(0, 3, "link", link)
    link["href"] = "y"
    note = await space.get(Note, "n")
    note.body.spans()[0].marks["link"]["href"] = "z"

    assert note.body.marks() == [MarkRange(0, 3, "link", {"href": "x"})]


async def test_marks_of_equal_values_of_two_types_are_two(space: Space) -> None:
    async with space.transaction() as tx:
        body = tx.get(Note, "n").body
        body.mark(0, 3, "level", True)
        body.mark(3, 6, "level", 1)
    marks = (await space.get(Note, "n")).body.marks()

    assert [(m.start, m.stop, type(m.value)) for m in marks] == [
        (0, 3, bool),
        (3, 6, int),
    ]


async def test_places_that_are_no_ints_are_refused_with_their_path(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        body: Any = tx.get(Note, "n").body
        writes: list[Any] = [
            lambda: body.insert(1.5, "x"),
            lambda: body.delete(0, 1.5),
            lambda: body.splice(0, "1", "x"),
            lambda: body.mark(0, "1", "bold"),
            lambda: body.mark(0, 1, "bold", expand="sideways"),
            lambda: body.cursor(1, stick="x"),
            lambda: body.restyle([MarkRange(0, 99, "bold", True)]),
        ]
        for write in writes:
            with pytest.raises(Invalid, match="note/n/body"):
                write()
        body.splice(0, 3, "look")
        with pytest.raises(Invalid):
            body.splice(0, 99, "x")
        assert body == "look here now"
