"""Mistakes an application makes; each marked line must be reported by both checkers.

Never run, only read by `test_bad.py`.
"""

import syncengine
from syncengine import Counter, Document, List, MultiValue, Set, Text, Whole


class Note(Document, collection="note"):
    title: str
    body: Text = Text()
    votes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    size: int = 0
    status: MultiValue[str] = MultiValue()
    codes: Whole[list[str]] = []


async def mistakes(space: syncengine.Space) -> None:
    async with space.transaction() as tx:
        tx.create(Note, "a")  # bad: title has no default
        tx.create(Note, "a", title=1)  # bad: title is text
        tx.create(Note, "a", title="x", colour="red")  # bad: no such field
        tx.create(Note, 7, title="x")  # bad: an id is text
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
    with space.transaction():  # bad: a transaction is awaited
        pass
    snapshot = await space.get(Note, "a")
    length: int = snapshot.title  # bad: title is text
    nothing: Note = await space.get(Note, "a", None)  # bad: it may be None
    print(length, nothing)
    space.get(Note, "a").title  # bad: a coroutine has no title
