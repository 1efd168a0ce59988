"""Versions of a class: they write one document at a time, and each understands it."""

from collections.abc import Callable
from typing import Any

import pytest

import syncengine
from syncengine import (
    Converted,
    Document,
    FrozenDocument,
    Indexed,
    Invalid,
    List,
    Record,
    Renamed,
    Text,
)
from tests.wires import meet, two_members


class Task1(Document, collection="task"):
    title: str = ""
    done: bool = False
    notes: Text = Text()


LENSES = [
    Renamed("title", "headline"),
    Renamed("notes", "body"),
    Converted(
        "done",
        "status",
        up=lambda done: "done" if done else "open",
        down=lambda status: status == "done",
    ),
]


class Task2(Document, collection="task", version=2, lenses=LENSES):
    headline: Indexed[str] = ""
    status: str = "open"
    body: Text = Text()
    extra: List[str] = List()


class Task3(
    Document, collection="task", version=3, since=3,
    lenses=[*LENSES, Renamed("headline", "name")],
):  # fmt: skip
    name: str = ""
    status: str = "open"
    body: Text = Text()


async def test_versions_write_at_once_and_converge() -> None:
    async with two_members() as pair:
        old, new = pair
        async with old.transaction() as tx:
            tx.create(Task1, "1", title="first", done=True).notes.insert(0, "some")
        await meet(*pair)
        task = await new.get(Task2, "1")
        assert (task.headline, task.status, str(task.body)) == ("first", "done", "some")
        async with new.transaction() as tx:
            task = tx.get(Task2, "1")
            task.status = "waiting"
            task.body.append(" text")
            task.extra.append("x")
        async with old.transaction() as tx:
            tx.get(Task1, "1").notes.insert(0, "> ")
        await meet(*pair)
        for space in pair:
            seen, later = await space.get(Task1, "1"), await space.get(Task2, "1")
            assert (seen.done, later.status) == (False, "waiting")
            assert str(seen.notes) == str(later.body) == "> some text"
        async with old.transaction() as tx:
            tx.get(Task1, "1").done = True
            tx.get(Task1, "1").title = "renamed by the old"
        await meet(*pair)
        for space in pair:
            later = await space.get(Task2, "1")
            assert (later.status, later.headline) == ("done", "renamed by the old")
            assert list(later.extra) == ["x"], "what the old does not know stays"


async def test_of_two_versions_that_write_at_once_one_is_read_by_both() -> None:
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tx.create(Task1, "1")
        await meet(*pair)
        async with pair[0].transaction() as tx:
            tx.get(Task1, "1").done = True
        async with pair[1].transaction() as tx:
            tx.get(Task2, "1").status = "waiting"
        await meet(*pair)
        shown = [
            ((await space.get(Task1, "1")).done, (await space.get(Task2, "1")).status)
            for space in pair
        ]

        assert shown[0] == shown[1]
        assert shown[0] in ((True, "done"), (False, "waiting"))


async def test_an_older_version_reads_what_it_must_not_write() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Task2, "1", headline="x")
        assert not (await space.get(Task1, "1")).meta.needs_upgrade
        async with space.transaction() as tx:
            task = tx.get(Task3, "1")
            assert task.name == "x"
            task.status = "waiting"
        seen = await space.get(Task1, "1")
        assert (seen.title, seen.meta.needs_upgrade) == ("x", True)
        writes: tuple[Callable[[Any], Any], ...] = (
            lambda task: setattr(task, "title", "y"),
            lambda task: task.notes.append("y"),
        )
        for write in writes:
            with pytest.raises(
                Invalid, match=r"version 3 of Task1 and this is 1.*update"
            ):
                async with space.transaction() as tx:
                    write(tx.get(Task1, "1"))
        with pytest.raises(FrozenDocument):
            seen.title = "y"
        async with space.transaction() as tx:
            tx.get(Task3, "1").name = "z"
        assert (await space.get(Task3, "1")).name == "z"


async def test_reading_writes_no_version() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Task1, "1")
        before = space.engine.next_seq
        async with space.transaction() as tx:
            assert tx.get(Task3, "1").status == "open"
        assert space.engine.next_seq == before


async def test_queries_and_paths_follow_a_renamed_field() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Task1, "1", title="old").notes.insert(0, "text")
        async with space.transaction() as tx:
            tx.get(Task2, "1").headline = "new"
        (row,) = await space.sql(
            "SELECT headline, body FROM task WHERE headline = ?", "new"
        )
        assert tuple(row) == ("new", "text")
        assert (await space.why(Task2, "1", "headline")).value == "new"
        assert (await space.blame(Task2, "1", "body"))[0].text == "text"
        assert await space.lost_values(Task2, "1", "headline") == []


async def test_who_lost_is_told_as_it_is_read() -> None:
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tx.create(Task1, "1", done=False)
        await meet(*pair)
        async with pair[1].transaction() as tx:
            tx.get(Task2, "1").status = "waiting"
        async with pair[0].transaction() as tx:
            tx.get(Task1, "1").done = True
        await meet(*pair)
        for space in pair:
            shown = (await space.get(Task2, "1")).status
            why = await space.why(Task2, "1", "status")
            (lost,) = await space.lost_values(Task2, "1", "status")
            assert why.value == shown
            assert {shown, lost.value} == {"waiting", "done"}
            assert why.over == [lost]
        async with pair[0].transaction() as tx:
            tx.get(Task1, "1").done = False
        await meet(*pair)
        for space in pair:
            assert (await space.get(Task2, "1")).status == "open"
            assert (await space.why(Task2, "1", "status")).value == "open"
            assert await space.lost_values(Task2, "1", "status") == []


class Line1(Record):
    text: str = ""


class Line2(Record, lenses=[Renamed("text", "said")]):
    said: str = ""


class Page1(Document, collection="page"):
    lines: List[Line1] = List()


class Page2(Document, collection="page"):
    lines: List[Line2] = List()


async def test_records_have_lenses_too() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Page1, "1").lines.append(Line1(text="a"))
            tx.get(Page2, "1").lines.append(Line2(said="b"))
        assert [line.said for line in (await space.get(Page2, "1")).lines] == ["a", "b"]
        assert [line.text for line in (await space.get(Page1, "1")).lines] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "fields", "says"),
    [
        ({"lenses": [Renamed("a", "b")]}, {"c": "str"}, "b, which is no field"),
        ({"lenses": [Renamed("a", "b")]}, {"a": "str", "b": "str"}, "stored as one"),
        ({"lenses": [Converted("a", "b", up=str, down=str)]}, {"b": "Text"}, "one value"),
        ({"version": 2, "since": 3}, {"a": "str"}, "since"),
        ({"lenses": [Converted("a", "b", up=str, down=str), Converted("b", "c", up=str, down=str)]}, {"c": "str"}, "once already"),
    ],
)  # fmt: skip
def test_lenses_that_cannot_be_are_refused(
    options: Any, fields: dict[str, str], says: str
) -> None:
    made: Any = type(Document)
    with pytest.raises(TypeError, match=says):
        made(
            "Bad",
            (Document,),
            {"__module__": __name__, "__annotations__": fields},
            **options,
        )


async def test_going_back_keeps_which_version_wrote_last() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Task2, "1", headline="x", status="wip")
        async with space.transaction() as tx:
            tx.get(Task1, "1").done = True
        past = await space.get(Task2, "1")
        async with space.transaction() as tx:
            tx.get(Task2, "1").status = "open"
        await space.undoing(Task2, "1").undo()
        assert (await space.get(Task2, "1")).status == past.status == "done"
        async with space.transaction() as tx:
            tx.get(Task2, "1").status = "open"
        async with space.transaction() as tx:
            tx.revert(past)
        assert (await space.get(Task2, "1")).status == "done"
