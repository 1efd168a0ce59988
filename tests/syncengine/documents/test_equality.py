"""Two values are the same where they are of one type, with all they wear."""

# pyright: reportPrivateUsage=false

from typing import Any

import pytest
from hypothesis import given

import syncengine
from syncengine import Document, List, Map, Record, Text
from syncengine.documents.equality import exact, rough
from tests.strategies import plain_values


class Section(Record):
    body: Text = Text()


class Note(Document):
    section: Section = Section()
    by_name: Map[str, Section] = Map()
    sections: List[Section] = List()


@given(plain_values)
def test_what_is_plain_is_the_same_as_itself(value: Any) -> None:
    assert rough(value) == rough(value)
    assert exact(value) == exact(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [(True, 1), (1, 1.0), (False, 0), ([True], [1]), ({"k": 1}, {"k": True})],
)
def test_types_tell_values_apart(one: Any, other: Any) -> None:
    assert one == other
    assert rough(one) != rough(other)
    assert exact(one) != exact(other)


async def test_going_back_takes_marks_and_types_inside_along() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            hello = Section(body="hello")
            note = tx.create(Note, "1", sections=[hello], by_name={"k": hello})
            note.section.body.insert(0, "hello")
            tx["page/1"]["m"] = {"set": ["a"], "text": "abc"}
        plain, page = await space.get(Note, "1"), await space.get("page/1")
        async with space.transaction() as tx:
            note = tx.get(Note, "1")
            for section in (note.section, note.sections[0], note.by_name["k"]):
                section.body.mark(0, 3, "bold")
            inside = tx["page/1"]["m"]
            inside["set"] = {"a"}
            del inside["text"]
            inside.text("text").insert(0, "abc")
        marked, other = await space.get(Note, "1"), await space.get("page/1")
        for past, was in ((plain, page), (marked, other), (plain, page)):
            async with space.transaction() as tx:
                tx.revert(past)
                tx.revert(was)
            now = await space.get(Note, "1")
            assert exact(now.section) == exact(past.section)
            assert exact(now.sections) == exact(past.sections)
            assert exact(now.by_name) == exact(past.by_name)
            assert exact(await space.get("page/1")) == exact(was)
        async with space.transaction() as tx:
            copied = tx.create(Note, "2")
            copied.section.body.insert(0, "hello")
            copied.section = marked.section
        assert (await space.get(Note, "2")).section.body.marks()
