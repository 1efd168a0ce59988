"""Typed and untyped documents, as an application writes them."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import syncengine
from syncengine import (
    Counter,
    Document,
    FrozenDocument,
    Invalid,
    List,
    Replica,
    Set,
    Space,
    Text,
    TransactionClosed,
)


class Note(Document):
    title: str
    pinned: bool = False
    due: datetime | None = None
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    body: Text = Text()


# A class statement inside `pytest.raises`, as a call.
META: Any = type(Document)


@pytest.fixture
async def space() -> Any:
    async with syncengine.open(":memory:") as replica:
        yield await replica.namespace("home")


async def make(space: Space) -> None:
    async with space.transaction() as tx:
        tx.create(Note, "n", title="T", tags={"a"})


async def test_a_draft_reads_its_own_writes_and_ends_as_a_snapshot(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="T")
        note.likes += 2
        note.likes.increment(3)
        note.body.insert(0, "hello")
        note.body += "!"
        note.todo.append("x")
        note.tags.add("b")
        assert (note.likes, str(note.body), list(note.todo)) == (5, "hello!", ["x"])
    with pytest.raises(FrozenDocument, match="transaction"):
        note.title = "other"

    assert note.to_dict() == (await space.get(Note, "n")).to_dict()
    assert note.pinned is False


async def test_a_snapshot_never_changes(space: Space) -> None:
    await make(space)
    before = await space.get(Note, "n")
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        note.title = "new"
        note.body.insert(0, "text")
        note.tags.discard("a")

    assert (before.title, str(before.body), set(before.tags)) == ("T", "", {"a"})
    assert (await space.get(Note, "n")).title == "new"


async def test_a_failed_block_writes_nothing(space: Space) -> None:
    await make(space)
    drafts: list[Note] = []
    with pytest.raises(RuntimeError):
        async with space.transaction() as tx:
            note = tx.get(Note, "n")
            drafts.append(note)
            note.title = "lost"
            note.body.insert(0, "lost")
            note.todo.extend(["lost", "too"])
            tx.create(Note, "other", title="lost")
            raise RuntimeError

    assert (await space.get(Note, "n")).to_dict()["title"] == "T"
    assert str((await space.get(Note, "n")).body) == ""
    assert await space.get(Note, "other", None) is None
    with pytest.raises(TransactionClosed):
        print(drafts[0].title)


async def test_assigning_a_container_writes_the_difference(space: Space) -> None:
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="T", todo=["a", "b", "c"], body="kitten")
        note.todo = ["a", "x", "c"]
        note.body = "sitting"
        note.tags = {"p", "q"}
        note.likes = 7
        note.todo = note.todo + ["z"]

    assert note.to_dict()["todo"] == ["a", "x", "c", "z"]
    assert (str(note.body), sorted(note.tags), note.likes) == ("sitting", ["p", "q"], 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [("title", 3), ("pinned", "yes"), ("due", datetime(2026, 1, 1)), ("tags", [1]),
     ("todo", "text"), ("body", 1), ("likes", "x"), ("title", "\ud800")],
)  # fmt: skip
async def test_wrong_values_are_named_by_path(
    space: Space, field: str, value: Any
) -> None:
    await make(space)
    with pytest.raises(Invalid, match=f"note/n/{field}"):
        async with space.transaction() as tx:
            setattr(tx.get(Note, "n"), field, value)

    assert (await space.get(Note, "n")).title == "T"


async def test_bounds_of_texts_and_lists_are_checked(space: Space) -> None:
    await make(space)
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        with pytest.raises(Invalid, match="beyond the length 0"):
            note.body.insert(1, "x")
        with pytest.raises(Invalid, match="beyond the length 0"):
            note.body.delete(0, 1)
        with pytest.raises(IndexError):
            note.todo[0] = "x"
        note.due = datetime(2026, 1, 1, tzinfo=UTC)

    assert note.due == datetime(2026, 1, 1, tzinfo=UTC)


async def test_untyped_documents_are_mappings(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["notes/1"]
        page["title"] = "front"
        page["tree"] = {"a": [1, {"b": 2}], "c": None}
        page.counter("total").increment(2)
        page.text("body").insert(0, "hi")
        page["tree"]["a"][1]["b"] = 3
        page["tree"]["a"].append([4])
        del page["tree"]["c"]
    shown = await space.get("notes/1")

    assert shown.to_dict() == {
        "title": "front",
        "tree": {"a": [1, {"b": 3}, [4]]},
        "total": 2,
        "body": "hi",
    }
    assert "title" in shown
    assert len(shown) == 4


async def test_a_deleted_document_begins_anew(space: Space) -> None:
    await make(space)
    async with space.transaction() as tx:
        tx.get(Note, "n").body.insert(0, "old")
        tx.delete(Note, "n")
    assert await space.get(Note, "n", None) is None
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="new")
        note.body.append("fresh")

    assert note.to_dict()["tags"] == []
    assert str(note.body) == "fresh"


@pytest.mark.parametrize("kind", ["list[str]", "dict[str, int]", "set[str]"])
def test_plain_containers_are_refused_with_the_two_ways_out(kind: str) -> None:
    with pytest.raises(TypeError, match=r"Whole\["):
        META("Bad", (Document,), {"__annotations__": {"x": kind}})


def test_an_unknown_annotation_is_named() -> None:
    with pytest.raises(TypeError, match="Nowhere"):
        META("Bad", (Document,), {"__annotations__": {"x": "Nowhere"}})


def test_reserved_names_are_refused() -> None:
    with pytest.raises(TypeError, match="reserved"):
        META("Bad", (Document,), {"__annotations__": {"id": "str"}})


def test_documents_are_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match=r"tx\.create"):
        Note(title="x")


async def test_the_meta_tells_pending_and_time(space: Space, tmp_path: Any) -> None:
    await make(space)
    note = await space.get(Note, "n")

    assert note.id == "n"
    assert note.meta.pending
    assert not note.meta.conflicted
    assert note.meta.updated_at is not None
    assert isinstance(space._replica, Replica)
