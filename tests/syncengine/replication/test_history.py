"""Why a field shows what it shows, and which changes made a document."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

import syncengine
import transport
from syncengine import (
    Document,
    Invalid,
    MarkRange,
    MultiValue,
    NotFound,
    Space,
    Text,
)
from tests.wires import meet, two_members


class Note(Document):
    title: str
    body: Text = Text()
    several: MultiValue[str] = MultiValue()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Space, Space]]:
    """Two members that wrote a title at the same time, and met."""
    async with two_members() as pair:
        space, theirs = pair
        async with space.transaction() as tx:
            tx.create(Note, "1", title="first")
        await meet(*pair)
        for each, title in ((space, "mine"), (theirs, "theirs")):
            async with each.transaction() as tx:
                tx.get(Note, "1").title = title
        await meet(*pair)
        yield pair


async def test_why_of_concurrent_writes_names_who_lost(
    pair: tuple[Space, Space],
) -> None:
    answers = [await space.why(Note, "1", "title") for space in pair]
    why = answers[0]
    assert why == replace(answers[1], arrived=why.arrived)
    assert why.change in [change.id for change in await pair[0].history(Note, "1")]
    assert why.arrived is not None
    assert abs(datetime.now(UTC) - why.arrived) < timedelta(minutes=5)
    devices = [space._replica.id for space in pair]  # pyright: ignore[reportPrivateUsage]
    (lost,) = why.over
    told = {(why.value, why.author), (lost.value, lost.author)}
    assert told == {("mine", devices[0]), ("theirs", devices[1])}
    assert (await pair[0].get(Note, "1")).title == why.value
    assert "latest of 2 concurrent writes" in why.rule
    assert why == await pair[0].why("note/1/title")


async def test_why_of_what_was_replaced_and_of_what_merges(
    pair: tuple[Space, Space],
) -> None:
    space, _ = pair
    async with space.transaction() as tx:
        note = tx.get(Note, "1")
        note.title = "settled"
        note.body.append("x")
        note.several = "a"
        tx["page/1"]["deep"] = {"list": ["a", {"b": 1}]}
        tx.seed("page/2", key="k", title="seeded")
    assert "had seen all others" in (await space.why(Note, "1", "title")).rule
    assert (await space.why(Note, "1", "body")).rule.startswith("a text")
    assert "all show" in (await space.why("note/1/several")).rule
    assert (await space.why("page/1/deep/list/1/b")).value == 1
    assert (await space.why("page/1/deep")).value == {"list": ["a", {"b": 1}]}
    assert "seeded" in (await space.why("page/2/title")).rule


@pytest.mark.parametrize(
    "path", ["note/1/nothing", "note/9/title", "page/1/deep/list/9",
             "page/1/deep/list/x", "note/1/title/deeper", "note/1", "note"],
)  # fmt: skip
async def test_why_of_what_is_not_there(pair: tuple[Space, Space], path: str) -> None:
    space, _ = pair
    async with space.transaction() as tx:
        tx["page/1"]["deep"] = {"list": ["a"]}
    with pytest.raises((NotFound, Invalid)):
        await space.why(path)


async def test_history_is_the_changes_of_a_document(pair: tuple[Space, Space]) -> None:
    for space in pair:
        async with space.transaction() as tx:
            tx["other/1"]["x"] = 1
        found = await space.history(Note, "1")
        assert [change.documents for change in found] == [("note/1",)] * 3
        assert len({change.author for change in found}) == 2
        assert len(await space.history("note/1", limit=2)) == 2
        assert len(await space.history("note")) == 3
        assert await space.history("nothing/1") == []


async def test_blame_says_who_wrote_which_part(pair: tuple[Space, Space]) -> None:
    one, other = (space._replica for space in pair)  # pyright: ignore[reportPrivateUsage]
    space, theirs = pair
    async with space.transaction() as tx:
        tx.get(Note, "1").body.insert(0, "Hello world")
        tx.seed("page/1", key="k", body=Text())
        tx["page/1"]["n"] = 1
    async with (
        transport.serve(one, "127.0.0.1", 0) as server,
        transport.connect(other, server.address) as link,
    ):
        await link.synced()
        async with theirs.transaction() as tx:
            body = tx.get(Note, "1").body
            body.insert(5, ", dear")
            body.delete(11, 2)
        await link.synced()
    passages = await space.blame(Note, "1", "body")
    assert passages == await theirs.blame("note/1/body")
    written = [(passage.text, passage.author) for passage in passages]
    assert written == [("Hello", one.id), (", dear", other.id), ("orld", one.id)]
    assert {p.author for p in passages} == {one.id, other.id}
    for path in ("note/1/title", "note/1/nothing", "page/1/n"):
        with pytest.raises(NotFound):
            await space.blame(path)


async def test_blame_of_a_seed_has_no_time() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            note = tx.seed(Note, "1", key="k", title="x", body="seeded")
            note.body.append(" and typed")
        seeded, typed = await space.blame(Note, "1", "body")
        assert (seeded.text, seeded.at) == ("seeded", None)
        assert (typed.text, typed.author) == (" and typed", replica.id)
        assert typed.at is not None


async def test_a_lost_value_is_restored(pair: tuple[Space, Space]) -> None:
    space, theirs = pair
    (lost,) = await space.lost_values(Note, "1", "title")
    async with space.transaction() as tx:
        tx.restore(lost)
    await meet(*pair)

    assert [(await one.get(Note, "1")).title for one in pair] == [lost.value] * 2
    assert await theirs.lost_values(Note, "1") == []


async def test_lost_values_in_containers_are_restored() -> None:
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            page = tx["page/1"]
            page["m"] = {"k": "old"}
            page["l"] = ["old"]
            node = page.tree("t").add({"n": "old"})
        await meet(*pair)
        for number, space in enumerate(pair):
            async with space.transaction() as tx:
                page = tx["page/1"]
                page["m"]["k"] = [{"whole": number}]
                page["l"][0] = f"of {number}"
                page["t"][node.id].value["n"] = number
        await meet(*pair)
        space = pair[0]
        lost = await space.lost_values("page/1")
        assert len(lost) == 3
        async with space.transaction() as tx:
            for one in lost:
                tx.restore(one)
        shown = (await space.get("page/1")).to_dict()
        by_path = {one.path: one.value for one in lost}

        assert shown["m"]["k"] == by_path["page/1/m/k"]
        assert shown["l"] == [by_path["page/1/l/0"]]
        assert shown["t"][0]["value"] == {"n": by_path[f"page/1/t/{node.id}/n"]}
        assert await space.lost_values("page/1") == []
        async with space.transaction() as tx:
            del tx["page/1"]["m"]
        with pytest.raises(NotFound, match="any more"):
            async with space.transaction() as tx:
                tx.restore(next(one for one in lost if one.path.endswith("m/k")))


async def test_a_lost_element_is_restored_where_it_is_now() -> None:
    async with two_members() as (one, other):
        async with one.transaction() as tx:
            tx["page/1"]["l"] = ["x"]
        await meet(one, other)
        async with one.transaction() as tx:
            tx["page/1"]["l"][0] = "A"
        async with other.transaction() as tx:
            tx["page/1"]["l"][0] = "B"
        await meet(one, other)
        (lost,) = await one.lost_values("page/1")
        async with one.transaction() as tx:
            tx["page/1"]["l"].insert(0, "innocent")
        async with one.transaction() as tx:
            tx.restore(lost)
        assert (await one.get("page/1")).to_dict() == {"l": ["innocent", lost.value]}
        async with one.transaction() as tx:
            del tx["page/1"]["l"][1]
        with pytest.raises(NotFound):
            async with one.transaction() as tx:
                tx.restore(lost)


async def test_a_lost_container_is_restored_as_what_it_was() -> None:
    async with two_members() as (one, other):
        async with one.transaction() as tx:
            held = tx["page/1"].map("m").map("k")
            held.text("body").insert(0, "precious")
            held.text("body").mark(0, 3, "bold")
            held.counter("n").increment(3)
        await meet(one, other)
        async with one.transaction() as tx:
            tx["page/1"]["m"]["k"].text("body").append("!")
        await asyncio.sleep(0.005)
        async with other.transaction() as tx:
            tx["page/1"]["m"]["k"] = 5
        await meet(one, other)
        assert (await one.get("page/1")).to_dict() == {"m": {"k": 5}}
        (lost,) = (await one.why("page/1/m/k")).over
        async with one.transaction() as tx:
            tx.restore(lost)
        held = (await one.get("page/1"))["m"]["k"]
        assert (held["body"], held["n"]) == ("precious!", 3)
        assert held["body"].marks() == [MarkRange(0, 3, "bold", True)]


async def test_an_edit_inside_what_somebody_replaces_is_not_lost_in_silence() -> None:
    async with two_members() as (one, other):
        async with one.transaction() as tx:
            tx["page/1"]["rows"] = [{"text": "old"}, 1]
        await meet(one, other)
        async with one.transaction() as tx:
            tx["page/1"]["rows"][0]["text"] = "edited"
        async with other.transaction() as tx:
            tx["page/1"]["rows"][0] = {"text": "replaced"}
        await meet(one, other)
        await meet(other, one)
        for space in (one, other):
            row = (await space.get("page/1")).to_dict()["rows"][0]["text"]
            (lost,) = await space.lost_values("page/1")
            assert {row, lost.value["text"]} == {"edited", "replaced"}


async def test_what_goes_with_a_deleted_element_is_in_the_journal() -> None:
    async with two_members() as (ours, theirs):
        async with ours.transaction() as tx:
            page = tx["page/1"]
            page["plain"] = ["a", "b"]
            page["rows"] = [{"n": 1}, {"n": 2}]
        await meet(ours, theirs)
        async with ours.transaction() as tx:
            del tx["page/1"]["plain"][0]
            del tx["page/1"]["rows"][0]
        async with theirs.transaction() as tx:
            tx["page/1"]["plain"][0] = "new"
            tx["page/1"]["rows"][0]["text"] = "hello"
        await meet(ours, theirs)

        author, deleter = (s._replica.id for s in (theirs, ours))  # pyright: ignore[reportPrivateUsage]
        for space in (ours, theirs):
            found = {c.path: c for c in await space.conflicts("page/1")}
            assert found["page/1/plain/-"].value == "new"
            assert found["page/1/rows/-"].value == {"n": 1, "text": "hello"}
            assert {c.author for c in found.values()} == {author}
            assert {c.winner for c in found.values()} == {None}
            shown = (await space.get("page/1")).to_dict()
            assert shown == {"plain": ["b"], "rows": [{"n": 2}]}
        assert deleter != author


async def test_conflicts_stay_in_the_journal_when_somebody_decided(
    pair: tuple[Space, Space],
) -> None:
    space = pair[0]
    async with space.transaction() as tx:
        tx.get(Note, "1").title = "decided"

    assert await space.lost_values(Note, "1") == []
    (conflict,) = await space.conflicts(Note, "1")
    assert {conflict.value, "mine", "theirs"} == {"mine", "theirs"}
    assert conflict.winner != conflict.author
    assert await space.conflicts("note/none") == []


async def test_lost_values_are_asked_for_by_path(pair: tuple[Space, Space]) -> None:
    (lost,) = await pair[0].lost_values("note/1/title")

    assert lost == (await pair[0].lost_values(Note, "1", "title"))[0]
    assert await pair[0].lost_values("note/1/body") == []


async def test_why_says_who_moved_an_element_and_a_node() -> None:
    async with two_members() as (ours, theirs):
        async with ours.transaction() as tx:
            page = tx["page/1"]
            page["items"] = ["a", "b"]
            tree = page.tree("outline")
            first, second = tree.add({"n": 1}), tree.add({"n": 2})
        await meet(ours, theirs)
        async with theirs.transaction() as tx:
            page = tx["page/1"]
            page["items"].move(1, 0)
            page.tree("outline")[second.id].move(under=first)
        await meet(ours, theirs)

        mover = theirs._replica.id  # pyright: ignore[reportPrivateUsage]
        why = await ours.why("page/1/items/0")
        assert (why.value, why.author == mover) == ("b", False)
        assert f"{mover[:8]} moved it" in why.rule
        assert "moved it" not in (await ours.why("page/1/items/1")).rule
        why = await ours.why(f"page/1/outline/{second.id}")
        assert why.author == mover
        assert abs(datetime.now(UTC) - why.at) < timedelta(minutes=5)
