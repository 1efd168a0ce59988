"""Mistakes an application makes; each marked line must be reported by both checkers.

Never run, only read by `test_bad.py`.
"""

import syncengine
from syncengine import (
    Counter,
    Document,
    List,
    Map,
    MultiValue,
    Record,
    Set,
    Text,
    Tree,
    Whole,
)


class Line(Record):
    text: str
    done: bool = False


class Note(Document, collection="note"):
    title: str
    body: Text = Text()
    votes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    size: int = 0
    status: MultiValue[str] = MultiValue()
    codes: Whole[list[str]] = []
    first: Line
    lines: List[Line] = List()
    by_name: Map[str, Line] = Map()
    outline: Tree[Line] = Tree()


async def mistakes(space: syncengine.Space) -> None:
    async with space.transaction() as tx:
        one = Line(text="x")
        tx.create(Note, "a", first=one)  # bad: title has no default
        tx.create(Note, "a", title=1, first=one)  # bad: title is text
        tx.create(Note, "a", title="x", first=one, colour="red")  # bad: no such field
        tx.create(Note, 7, title="x", first=one)  # bad: an id is text
        tx.create(Note, "a", title="x", first="y")  # bad: it is a line
        tx.ensure(Note, "a", title="x")  # bad: first has no default
        Line(done=True)  # bad: a line has a text
        Line(text="x", colour="red")  # bad: no such field
        note = tx.get(Note, "a")
        note.title = 3  # bad: title is text
        note.size = "big"  # bad: size is a number
        note.status = 5  # bad: a status is text
        note.status.set(b"x")  # bad: a status is text
        note.codes = ["x", 1]  # bad: codes are text
        note.tags.add(5)  # bad: tags are text
        note.todo.append(b"x")  # bad: an item is text
        note.body.insert("x", 0)  # bad: position first
        note.body.mark("x", 4, "bold")  # bad: positions are numbers
        note.body.mark(0, 4, "bold", expand="left")  # bad: no such edge
        note.body.index_of(4)  # bad: a cursor is text
        note.votes += "one"  # bad: a counter counts
        print(note.headline)  # bad: no such field
        note.headline = "x"  # bad: no such field
        note.first.text = 5  # bad: a text is text
        note.first.colour = "red"  # bad: no such field
        note.lines.append("x")  # bad: it is a line
        note.lines[0].done = "yes"  # bad: done is a bool
        note.lines.move("x", 0)  # bad: positions are numbers
        note.by_name["k"] = "x"  # bad: it is a line
        note.by_name["k"].text += 1  # bad: text is text
        note.outline.add(Line(text="x"), under="top")  # bad: under is a node
        note.outline.roots[0].value.text = 5  # bad: text is text
        note.outline.roots[0].move(under=note)  # bad: under is a node
    with space.transaction():  # bad: a transaction is awaited
        pass
    snapshot = await space.get(Note, "a")
    length: int = snapshot.title  # bad: title is text
    nothing: Note = await space.get(Note, "a", None)  # bad: it may be None
    print(length, nothing)
    space.get(Note, "a").title  # bad: a coroutine has no title
