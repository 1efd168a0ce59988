"""Undo and redo: what this device did goes back and comes again; what others did stays."""

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import syncengine
import transport
from syncengine import (
    Counter,
    Document,
    Invalid,
    List,
    Map,
    MarkRange,
    MultiValue,
    Record,
    Set,
    Space,
    Text,
    TransactionOpen,
    Tree,
)
from tests.wires import meet, two_members


class Item(Record):
    text: str = ""
    done: bool = False


class Note(Document):
    title: str = ""
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    items: List[Item] = List()
    by_name: Map[str, Item] = Map()
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


async def shown(space: Space) -> Any:
    note = await space.get(Note, "1", None)
    if note is None:
        return None
    plain = note.to_dict()
    plain["outline"] = [
        (row["value"], row["parent"] is None) for row in plain["outline"]
    ]
    return plain, note.body.spans()


def edit(note: Note, chance: random.Random) -> None:
    match chance.randint(0, 15):
        case 0:
            note.title = chance.choice("abc")
        case 1:
            note.likes += chance.randint(1, 3)
        case 2:
            note.tags.add(chance.choice("xyz"))
        case 3:
            note.tags.discard(chance.choice("xyz"))
        case 4:
            note.todo.insert(chance.randint(0, len(note.todo)), chance.choice("pq"))
        case 5 if len(note.todo) > 1:
            note.todo.move(chance.randrange(len(note.todo)), 0)
        case 6 if len(note.todo):
            del note.todo[chance.randrange(len(note.todo))]
        case 7 if len(note.todo):
            note.todo[chance.randrange(len(note.todo))] = chance.choice("rs")
        case 8 if len(note.body) > 2:
            at = chance.randrange(len(note.body) - 1)
            note.body.delete(at, chance.randint(1, 2))
        case 9 if len(note.body) > 3:
            note.body.mark(1, chance.randint(2, 4), chance.choice("bi"))
        case 10:
            node = chance.choice([None, *note.outline])
            note.outline.add(Item(text=chance.choice("rs")), under=node)
        case 11 if len(note.outline):
            chance.choice(list(note.outline)).delete()
        case 12 if len(note.outline):
            node = chance.choice(list(note.outline))
            node.move(index=0)
            node.value.done = True
        case 13:
            note.items.append(Item(text="x"))
            note.items[0].done = not note.items[0].done
        case 14:
            key = chance.choice("kl")
            if key in note.by_name:
                del note.by_name[key]
            else:
                note.by_name[key] = Item(text=key)
        case 15:
            note.several = chance.randint(0, 3)
        case _:
            note.body.insert(chance.randint(0, len(note.body)), "text")


@pytest.mark.parametrize("seed", range(12))
async def test_alone_undo_and_redo_go_through_all_that_was_shown(seed: int) -> None:
    chance = random.Random(seed)
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "1", title="first", body="some text")
        states = [await shown(space)]
        for _ in range(25):
            before = space.engine.next_seq
            async with space.transaction(operation_id=f"step {before}") as tx:
                for _ in range(chance.randint(1, 3)):
                    edit(tx.get(Note, "1"), chance)
            if await shown(space) != states[-1]:  # of the others, nothing is undone
                states.append(await shown(space))
        history = space.undoing(Note, "1")
        for _ in range(2):
            for state in reversed(states[:-1]):
                assert await history.undo()
                assert await shown(space) == state
            for state in states[1:]:
                assert await history.redo()
                assert await shown(space) == state
            assert not await history.redo()


async def test_undo_takes_back_what_this_device_did_and_nothing_else() -> None:
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            tx.create(Note, "1", title="first", body="some text")
        await meet(*pair)
        async with space.transaction() as tx:
            note = tx.get(Note, "1")
            note.title = "mine"
            note.body.insert(4, " more")
            note.likes += 5
            note.todo.append("a")
        await meet(*pair)
        async with theirs.transaction() as tx:
            note = tx.get(Note, "1")
            note.title = "theirs"
            note.body.insert(9, " words and")
            note.body.insert(0, "> ")
            note.likes += 2
            note.todo.insert(0, "b")
        await meet(*pair)
        assert await space.undoing(Note, "1").undo()
        await meet(*pair)

        for one in pair:
            note = await one.get(Note, "1")
            assert note.title == "theirs", "somebody wrote over it"
            assert str(note.body) == "> some words and text"
            assert (int(note.likes), list(note.todo)) == (2, ["b"])
        assert await space.undoing(Note, "1").redo()
        note = await space.get(Note, "1")
        assert str(note.body) == "> some more words and text"
        assert (int(note.likes), list(note.todo), note.title) == (7, ["b", "a"], "theirs")  # fmt: skip


async def test_undo_of_a_deletion_brings_text_back_with_its_marks(space: Space) -> None:
    async with space.transaction() as tx:
        note = tx.get(Note, "1")
        note.body.insert(0, "see here now")
        note.body.mark(4, 8, "bold")
    async with space.transaction(operation_id="deleting") as tx:
        tx.get(Note, "1").body.delete(2, 8)
    async with space.transaction(operation_id="quoting") as tx:
        tx.get(Note, "1").body.insert(0, "> ")
    history = space.undoing(Note, "1")
    await history.undo()
    await history.undo()

    body = (await space.get(Note, "1")).body
    assert (str(body), body.marks()) == ("see here now", [MarkRange(4, 8, "bold", True)])  # fmt: skip


async def test_undo_survives_a_restart(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        for title in "abc":
            async with space.transaction(operation_id=title) as tx:
                tx.ensure(Note, "1").title = title
        assert await space.undoing(Note, "1").undo()
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        history = space.undoing(Note, "1")
        assert await history.depth() == (2, 1)
        assert await history.undo()
        assert (await space.get(Note, "1")).title == "a"
        assert await history.redo()
        assert await history.redo()
        assert (await space.get(Note, "1")).title == "c"


async def test_whoever_goes_on_writing_cannot_redo(space: Space) -> None:
    history = space.undoing()
    async with space.transaction() as tx:
        tx.get(Note, "1").title = "second"
    assert await history.undo()
    async with space.transaction() as tx:
        tx.get(Note, "1").title = "third"

    assert not await history.redo()
    assert await history.undo()
    assert (await space.get(Note, "1")).title == "first"


async def test_making_a_document_is_undone_and_deleting_it_too(space: Space) -> None:
    async with space.transaction() as tx:
        note = tx.create(Note, "2", title="x", body="text")
        note.outline.add(Item(text="node"))
    async with space.transaction() as tx:
        tx.delete(Note, "2")
    history = space.undoing(Note, "2")
    assert await history.undo()
    note = await space.get(Note, "2")
    assert (note.title, str(note.body), len(note.outline)) == ("x", "text", 1)
    assert await history.undo()
    assert await space.get(Note, "2", None) is None
    assert await history.redo()
    assert str((await space.get(Note, "2")).body) == "text"
    assert await history.redo()
    assert await space.get(Note, "2", None) is None


async def test_what_another_edited_stays_when_its_making_is_undone() -> None:
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            tx.create(Note, "1")
        async with space.transaction() as tx:
            tx.get(Note, "1").by_name["k"] = Item(text="k")
        await meet(*pair)
        async with theirs.transaction() as tx:
            tx.get(Note, "1").by_name["k"].done = True
        await meet(*pair)
        await space.undoing(Note, "1").undo()

        assert (await space.get(Note, "1")).by_name["k"].done


async def test_a_change_of_which_nothing_is_left_is_passed_over() -> None:
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            tx.create(Note, "1", title="first")
        for title in ("mine", "theirs"):
            async with (space if title == "mine" else theirs).transaction() as tx:
                if title == "mine":
                    tx.get(Note, "1").likes += 1
            async with space.transaction() as tx:
                tx.get(Note, "1").title = title
        await meet(*pair)
        async with theirs.transaction() as tx:
            tx.get(Note, "1").title = "last"
        await meet(*pair)
        assert await space.undoing(Note, "1").undo()

        note = await space.get(Note, "1")
        assert (note.title, int(note.likes)) == ("last", 0)


async def test_typing_of_one_second_is_one_step(space: Space) -> None:
    async with space.live(Note, "1") as live:
        for at, char in enumerate("hello"):
            live.doc.body.insert(at, char)
    history = space.undoing(Note, "1")
    assert await history.undo()

    assert str((await space.get(Note, "1")).body) == ""
    assert await history.redo()
    assert str((await space.get(Note, "1")).body) == "hello"


async def test_only_what_was_done_since_is_undone(space: Space) -> None:
    from datetime import UTC, datetime

    with pytest.raises(Invalid, match="time zone"):
        space.undoing(since=datetime.now())  # that is the mistake
    history = space.undoing(since=datetime.now(UTC))
    assert not await history.undo()
    async with space.transaction() as tx:
        tx.get(Note, "1").title = "second"
    assert await history.undo()
    assert not await history.undo()


@pytest.mark.parametrize("seed", range(6))
async def test_two_that_undo_beside_each_other_converge(seed: int) -> None:
    chance = random.Random(seed)
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tx.create(Note, "1", body="some text")
        await meet(*pair)
        for _ in range(40):
            space = chance.choice(pair)
            if chance.random() < 0.5:
                async with space.transaction() as tx:
                    note = tx.get(Note, "1", None)
                    if note is not None:
                        edit(note, chance)
            else:
                history = space.undoing(Note, "1")
                await (history.undo() if chance.random() < 0.6 else history.redo())
            if chance.random() < 0.2:
                await meet(*pair)
        await meet(*pair)

        assert await shown(pair[0]) == await shown(pair[1])


# --- what a second pair of eyes found -------------------------------------------------


async def test_undo_behind_a_link_sees_what_was_done_just_now() -> None:
    async with (
        syncengine.open(":memory:") as one,
        syncengine.open(":memory:") as other,
        transport.serve(one, "127.0.0.1", 0) as server,
    ):
        space = await one.namespace("home")
        await other.join(await space.invite("write"), name="home")
        async with transport.connect(other, server.address) as link:
            await link.synced()
            theirs = other.spaces()[0]
            for _ in range(3):
                async with theirs.transaction(operation_id=None) as tx:
                    tx.ensure(Note, "1").likes += 10
            history = theirs.undoing(Note, "1")
            shown: list[Any] = []
            for how in (history.undo, history.undo, history.redo, history.redo):
                assert await how()
                note = await theirs.get(Note, "1", None)
                shown.append(None if note is None else int(note.likes))
                at = await (await theirs.at(theirs.version)).get(Note, "1", None)
                assert (None if at is None else int(at.likes)) == shown[-1]
            assert shown == [20, 10, 20, 30]


async def test_what_was_undone_in_one_document_stays_undone_elsewhere(
    space: Space,
) -> None:
    for name in "ab":
        async with space.transaction() as tx:
            tx.create(Note, name)
    assert await space.undoing(Note, "a").undo()
    everywhere = space.undoing()
    assert await everywhere.undo()
    assert await space.get(Note, "b", None) is None
    assert await everywhere.undo()

    assert await space.get(Note, "a", None) is None
    assert await space.get(Note, "1", None) is None


async def test_a_change_of_two_documents_is_undone_once(space: Space) -> None:
    async with space.transaction() as tx:
        tx.create(Note, "a")
        tx.create(Note, "b")
    async with space.transaction() as tx:
        tx.delete(Note, "a")
    await space.undoing(Note, "b").undo()
    await space.undoing().undo()

    assert await space.get(Note, "b", None) is None


async def test_several_undo_at_once_one_after_the_other(space: Space) -> None:
    for _ in range(5):
        async with space.transaction() as tx:
            tx.get(Note, "1").likes += 10
    history = space.undoing(Note, "1")

    async def edit(number: int) -> None:
        async with space.transaction() as tx:
            tx["page/1"]["n"] = number

    await asyncio.gather(history.undo(), edit(1), history.undo(), edit(2), history.undo())  # fmt: skip
    assert int((await space.get(Note, "1")).likes) == 20
    assert await history.depth() == (3, 3)
    for _ in range(3):
        assert await history.redo()
    assert int((await space.get(Note, "1")).likes) == 50


async def test_undo_inside_a_transaction_says_so(space: Space) -> None:
    with pytest.raises(TransactionOpen):
        async with space.transaction():
            await space.undoing(Note, "1").undo()


async def test_many_that_were_written_over_are_passed_over() -> None:
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            tx.create(Note, "1", body="hello")
        async with space.transaction() as tx:
            tx.get(Note, "1").body.append(" world")
        for number in range(70):
            async with space.transaction() as tx:
                tx.get(Note, "1").title = f"t{number}"
        await meet(*pair)
        async with theirs.transaction() as tx:
            tx.get(Note, "1").title = "theirs"
        await meet(*pair)
        history = space.undoing(Note, "1")
        assert await history.undo()
        note = await space.get(Note, "1")
        assert (note.title, str(note.body)) == ("theirs", "hello")
        assert await history.redo()
        note = await space.get(Note, "1")
        assert (note.title, str(note.body)) == ("theirs", "hello world")


async def test_what_shows_inside_a_list_is_one_step(space: Space) -> None:
    """A mark, or True where 1 was, shows: it is not undone with what was before it."""
    async with space.transaction() as tx:
        tx["page/1"]["l"] = [{"x": 1}]
    async with space.transaction() as tx:
        tx["page/1"]["l"][0].text("body").insert(0, "hello")
    async with space.transaction() as tx:
        tx["page/1"]["l"][0].text("body").mark(0, 5, "bold")
    undoing = space.undoing("page/1")
    assert await undoing.undo()
    body = (await space.get("page/1"))["l"][0]["body"]
    assert (str(body), body.marks()) == ("hello", [])

    async with space.transaction() as tx:
        tx["page/2"]["l"] = [1]
    async with space.transaction() as tx:
        tx["page/2"]["l"][0] = True
    assert await space.undoing("page/2").undo()
    assert (await space.get("page/2"))["l"][0] is not True


async def test_text_that_comes_back_wears_what_it_wore(space: Space) -> None:
    """It comes back at the edge of a mark, which takes in what is typed there."""
    async with space.transaction() as tx:
        body = tx["page/1"].text("body")
        body.insert(0, "a plain")
        body.mark(0, 1, "bold")
    async with space.transaction() as tx:
        tx["page/1"].text("body").delete(1, 6)
    await space.undoing("page/1").undo()
    body = (await space.get("page/1"))["body"]

    assert (str(body), body.marks()) == ("a plain", [MarkRange(0, 1, "bold", True)])
