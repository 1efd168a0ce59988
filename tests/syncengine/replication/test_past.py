"""The past: what was shown at any moment is shown again, on every device."""

import random
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    Counter,
    Document,
    Invalid,
    List,
    MultiValue,
    NotFound,
    Record,
    Set,
    Space,
    Text,
    Tree,
)
from syncengine.crdt.sequence.state import Edit
from tests.wires import meet, two_members


class Item(Record):
    text: str = ""


class Note(Document):
    title: str = ""
    size: int = 0
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    items: List[Item] = List()
    body: Text = Text()
    outline: Tree[Item] = Tree()
    several: MultiValue[int] = MultiValue()


@pytest.fixture
async def space() -> AsyncGenerator[Space]:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "1", title="first")
        yield space


def edit(note: Note, chance: random.Random) -> None:
    match chance.randint(0, 9):
        case 0:
            note.title = chance.choice("abc")
        case 1:
            note.likes += chance.randint(-2, 3)
        case 2:
            note.tags.add(chance.choice("xyz"))
        case 3:
            note.tags.discard(chance.choice("xyz"))
        case 4:
            note.todo.insert(chance.randint(0, len(note.todo)), chance.choice("pq"))
        case 5 if len(note.todo) > 1:
            note.todo.move(0, len(note.todo) - 1)
        case 6 if len(note.body) > 2:
            note.body.delete(chance.randrange(len(note.body)))
            note.body.mark(0, 1, "bold")
        case 7:
            node = chance.choice([None, *note.outline])
            note.outline.add(Item(text=chance.choice("rs")), under=node)
        case 8:
            note.several = chance.randint(0, 3)
        case _:
            note.body.insert(chance.randint(0, len(note.body)), "text")


@pytest.mark.parametrize("seed", range(8))
async def test_every_snapshot_can_be_seen_again(seed: int) -> None:
    chance = random.Random(seed)
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tx.create(Note, "1")
        await meet(*pair)
        seen: list[tuple[str, dict[str, Any], list[Any]]] = []
        for _ in range(40):
            space = chance.choice(pair)
            async with space.transaction() as tx:
                for _ in range(chance.randint(1, 3)):
                    edit(tx.get(Note, "1"), chance)
                    tx["page/other"]["n"] = 1
            if chance.random() < 0.1:
                async with space.transaction() as tx:
                    tx.delete(Note, "1")
                    tx.create(Note, "1", title="anew")
            note = await space.get(Note, "1")
            seen.append((note.meta.version, note.to_dict(), note.body.spans()))
            if chance.random() < 0.2:
                await meet(*pair)
        await meet(*pair)

        for space in pair:
            for version, shown, spans in seen:
                past = await (await space.at(version)).get(Note, "1")
                assert past.to_dict() == shown
                assert past.body.spans() == spans
                assert past.meta.version == version
            now = await (await space.at(space.version)).get(Note, "1")
            assert now == await space.get(Note, "1")


async def test_a_version_in_the_middle_of_typing_is_kept(space: Space) -> None:
    versions: list[str] = []
    async with space.live(Note, "1") as live:
        for at, char in enumerate("hello"):
            live.doc.body.insert(at, char)
            versions.append(space.version)
        live.doc.body.delete(4)
        versions.append(space.version)
        live.doc.body.delete(3)

    assert len(await space.history(Note, "1")) == 2, "sealed as one change"
    shown = [str((await (await space.at(v)).get(Note, "1")).body) for v in versions]
    assert shown == ["h", "he", "hel", "hell", "hello", "hell"]


async def test_a_moment_is_a_change_or_a_time(space: Space) -> None:
    for title in ("second", "third"):
        async with space.transaction() as tx:
            tx.get(Note, "1").title = title
    third, second, first = await space.history(Note, "1")

    titles = [
        (await (await space.at(when)).get(Note, "1")).title
        for when in (first, second, third.id, datetime.now(UTC))
    ]
    assert titles == ["first", "second", "third", "third"]
    before = await space.at(first.at - timedelta(hours=1))
    assert await before.get(Note, "1", None) is None
    with pytest.raises(NotFound):
        await before.get(Note, "1")
    with pytest.raises(NotFound):
        await before.get("note/1")


@pytest.mark.parametrize("wrong", ["", "v.", "v.!", "v.kQE", "x", "aaaa-1", "v.gaEB"])
async def test_what_is_no_moment_is_refused(space: Space, wrong: str) -> None:
    with pytest.raises(Invalid):
        await space.at(wrong)


async def test_a_change_that_is_not_here_is_named(space: Space) -> None:
    (change,) = await space.history(Note, "1")
    name, _, _ = change.id.partition("-")
    with pytest.raises(NotFound, match="no change"):
        await space.at(f"{name}-999")
    with pytest.raises(Invalid, match="time zone"):
        await space.at(datetime.now())  # that is the mistake


async def test_the_index_goes_on_where_it_was(tmp_path: Path) -> None:
    for number in range(3):
        async with syncengine.open(tmp_path / "a.db") as replica:
            space = await replica.namespace("home")
            for _ in range(30):
                async with space.transaction() as tx:
                    tx[f"page/{number}"]["n"] = number
            assert len(await space.history(f"page/{number}", limit=100)) == 30
            assert len(await space.history("page", limit=500)) == 30 * (number + 1)


async def test_reading_the_past_of_one_document_reads_no_other(space: Space) -> None:
    for number in range(20):
        async with space.transaction() as tx:
            tx[f"page/{number}"]["text"] = "x" * 1000
    await space.index.ready()
    read: list[int] = []
    real = space.index.row_at

    def counted(position: int) -> Any:
        read.append(position)
        return real(position)

    space.index.row_at = counted  # type: ignore[method-assign]
    before = space.version
    shown = await (await space.at(before)).get(Note, "1")
    assert len(read) == 0, "it is as the file has it"

    async with space.transaction() as tx:
        tx.get(Note, "1").title = "later"
    past = await space.at(before)
    assert (await past.get(Note, "1")).to_dict() == shown.to_dict()
    assert len(read) == 2, "its own changes, and no other's"


async def test_what_was_read_of_now_stays_as_it_was(space: Space) -> None:
    async with space.transaction() as tx:
        tx.get(Note, "1").body.insert(0, "x" * 3_000)
    past = await space.at(space.version)
    shown = await past.get(Note, "1")
    for number in range(20):
        async with space.transaction() as tx:
            tx.get(Note, "1").body.insert(number * 50, "new")
            tx.get(Note, "1").title = "later"

    assert shown.title == "first"
    assert str(shown.body) == "x" * 3_000
    assert (await past.get(Note, "1")).body == shown.body


# --- differences and going back -------------------------------------------------------


async def test_differences_name_each_place(space: Space) -> None:
    async with space.transaction() as tx:
        note = tx.get(Note, "1")
        note.body.insert(0, "milk and eggs")
        note.todo = ["a", "b", "c"]
        note.items.append(Item(text="x"))
    before = space.version
    async with space.transaction() as tx:
        note = tx.get(Note, "1")
        note.title = "changed"
        note.likes += 2
        note.body.insert(4, ", bread")
        note.body.mark(0, 4, "bold")
        del note.todo[1]
        note.items[0].text = "y"
        tx["note/1"]["extra"] = 1

    found = {d.path: d for d in await space.diff(Note, "1", before=before)}
    assert sorted(found) == [
        *("body", "extra", "items/0/text", "likes", "title", "todo")
    ]
    assert (found["title"].before, found["title"].after) == ("first", "changed")
    assert (found["likes"].before, found["likes"].after) == (None, 2)
    assert found["body"].edits == [(4, 0, ", bread"), (0, 4, "bold", True)]
    assert found["todo"].edits == [Edit(1, 1, [])]
    assert found["items/0/text"].after == "y"
    assert await space.diff(Note, "1", before=before, after=before) == []
    back = await space.diff("note/1", before=space.version, after=before)
    assert {d.path: d.after for d in back}["extra"] is None


async def test_what_changed_inside_of_what_was_moved_is_told_there(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        page = tx["page/1"]
        page["rows"] = [{"n": 1}, "x", {"n": 2}]
        page["rows"][0].text("body").append("hello")
        tree = page.tree("outline")
        top, other = tree.add({"t": "top"}), tree.add({"t": "other"})
    before = space.version
    async with space.transaction() as tx:
        page = tx["page/1"]
        page["rows"].move(0, 2)
        page["rows"][2].text("body").insert(5, "!")
        page.tree("outline")[top.id].value["t"] = "new"
    found = {d.path: d for d in await space.diff("page/1", before=before)}

    assert sorted(found) == sorted(["rows", "rows/2/body", f"outline/{top.id}/t"])
    assert found["rows/2/body"].edits == [Edit(5, 0, "!")]
    async with space.transaction() as tx:
        tx["page/1"].tree("outline")[other.id].move(under=top)
    found = {d.path: d for d in await space.diff("page/1", before=before)}
    assert "outline" in found


async def test_a_document_goes_back_by_a_change_of_its_own() -> None:
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            note = tx.create(Note, "1", title="old")
            note.body.insert(0, "text")
            note.body.mark(0, 2, "bold")
            top = note.outline.add(Item(text="top"))
            note.outline.add(Item(text="below"), under=top)
            note.several.set(1, 2)
            tx["note/1"]["extra"] = {"deep": [1, {"x": {2}}]}
        shown = (await space.get("note/1")).to_dict()
        version = space.version
        async with space.transaction() as tx:
            note = tx.get(Note, "1")
            note.title = "new"
            note.body.replace("other")
            note.outline[top.id].delete()
            note.several = 9
            note.tags.add("t")
            del tx["note/1"]["extra"]
        await meet(*pair)
        async with theirs.transaction() as tx:
            tx.get(Note, "1").likes += 1
        old = await (await space.at(version)).get(Note, "1")
        async with space.transaction() as tx:
            tx.revert(old)
        await meet(*pair)

        notes = [await one.get(Note, "1") for one in pair]
        assert notes[0] == notes[1]
        note = notes[0]
        assert (note.title, str(note.body), int(note.likes)) == ("old", "text", 1)
        assert note.body.marks()[0].name == "bold"
        now = (await space.get("note/1")).to_dict()
        assert now["extra"] == shown["extra"]
        assert [row["value"] for row in now["outline"]] == [{"text": "top"}, {"text": "below"}]  # fmt: skip
        assert set(note.several) == {1, 2}


async def test_a_deleted_document_comes_back(space: Space) -> None:
    before = await space.get(Note, "1")
    async with space.transaction() as tx:
        tx.delete(Note, "1")
    async with space.transaction() as tx:
        tx.revert(before)

    assert (await space.get(Note, "1")).title == "first"
    untyped = await (await space.at(before.meta.version)).get("note/1")
    async with space.transaction() as tx:
        tx.revert(untyped)
        with pytest.raises(Invalid, match="no document"):
            tx.revert(tx["page/1"].map("m"))
