"""Yjs: content goes there and back, and a second time changes nothing."""

from typing import Any

import pytest

import syncengine
from syncengine import Counter, Document, List, Set, Text, Tree

pycrdt = pytest.importorskip("pycrdt", reason="the extra yjs is not installed")
yjs = pytest.importorskip("syncengine.bridges.yjs")


class Note(Document):
    title: str = ""
    likes: Counter = Counter()
    body: Text = Text()
    todo: List[Any] = List()
    tags: Set[str] = Set()
    outline: Tree[Any] = Tree()


async def test_a_document_goes_to_yjs_and_back() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            note = tx.create(Note, "1", title="T")
            note.likes += 3
            note.body.insert(0, "héllo 😀 world")
            note.body.mark(0, 5, "bold")
            note.body.mark(6, 13, "link", "https://e.org")
            note.todo = ["a", {"deep": [1, 2.5, None, True, b"x"]}]
            note.tags.add("t")
            note.outline.add({"n": 1})
            tx["note/1"]["m"] = {"k": {"inner": "v"}}
            tx["note/1"].map("m").text("inside").insert(0, "text")
        note = await space.get(Note, "1")
        authors = {"body": await space.blame(Note, "1", "body")}
        signed = yjs.to_yjs(note, authors).get("body", type=pycrdt.Text).diff()
        assert {formats["author"] for _, formats in signed} == {space._replica.id}  # pyright: ignore[reportPrivateUsage]
        doc = yjs.to_yjs(note)

        body = doc.get("body", type=pycrdt.Text)
        assert str(body) == "héllo 😀 world"
        assert body.diff()[0] == ("héllo", {"bold": True})
        assert dict(doc.get("values", type=pycrdt.Map).to_py()) == {"title": "T", "likes": 3.0}  # fmt: skip
        other = pycrdt.Doc()
        other.apply_update(doc.get_update())
        roots = {
            "values": pycrdt.Map, "body": pycrdt.Text, "todo": pycrdt.Array,
            "m": pycrdt.Map, "tags": pycrdt.Array,
        }  # fmt: skip
        before = 0
        for _ in range(2):
            before = space.engine.next_seq
            async with space.transaction() as tx:
                yjs.from_yjs(other, tx["note/2"], roots)
        assert space.engine.next_seq == before, "a second time changes nothing"
        copied = (await space.get("note/2")).to_dict()
        assert copied == {
            "title": "T", "likes": 3, "body": "héllo 😀 world", "tags": ["t"],
            "todo": ["a", {"deep": [1, 2.5, None, True, b"x"]}],
            "m": {"k": {"inner": "v"}, "inside": "text"},
        }  # fmt: skip
        assert (await space.get("note/2")).text("body").marks() == note.body.marks()


async def test_edits_made_in_yjs_come_over_as_edits() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        doc = pycrdt.Doc()
        text = doc.get("body", type=pycrdt.Text)
        text += "some text"
        async with space.transaction() as tx:
            yjs.from_yjs(doc, tx["note/1"], {"body": pycrdt.Text})
        cursor = (await space.get("note/1")).text("body").cursor(5)
        text.insert(0, "> ")
        text.format(2, 6, {"bold": True})
        async with space.transaction() as tx:
            yjs.from_yjs(doc, tx["note/1"], {"body": pycrdt.Text})

        body = (await space.get("note/1")).text("body")
        assert (str(body), body.index_of(cursor)) == ("> some text", 7)
        assert [tuple(mark) for mark in body.marks()] == [(2, 6, "bold", True)]
