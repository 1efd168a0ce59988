"""Watching: now, then the latest; nothing in between is owed, nothing at the end lost."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syncengine
from syncengine import Closed, Document, Invalid, Replica, Space, StoreError
from tests.wires import Wire


class Note(Document):
    title: str = ""


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    async with syncengine.open(":memory:") as opened, asyncio.timeout(20):
        await opened.namespace("home")
        yield opened


@pytest.fixture
def space(replica: Replica) -> Space:
    return replica.spaces()[0]


async def write(space: Space, id: str, title: str) -> None:
    async with space.transaction() as tx:
        tx[f"note/{id}"]["title"] = title


async def delete(space: Space, id: str) -> None:
    async with space.transaction() as tx:
        tx.delete(Note, id)


async def test_a_document_is_shown_now_and_after_each_change(space: Space) -> None:
    watching = space.watch(Note, "1")
    assert await anext(watching) is None
    await write(space, "2", "another")
    await write(space, "1", "made")
    seen = await anext(watching)
    assert seen is not None
    assert seen.title == "made"
    await delete(space, "1")
    assert await anext(watching) is None
    await write(space, "1", "again")
    again = await anext(watching)
    assert again is not None
    assert (seen.title, again.title) == ("made", "again"), "a snapshot stays"


async def test_who_is_slow_sees_the_latest(space: Space) -> None:
    watching = space.watch("note/1")
    await anext(watching)
    for number in range(100):
        await write(space, "1", f"{number}")
    assert (await anext(watching))["title"] == "99"
    later = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0.01)
    assert not later.done(), "nothing is shown twice"
    later.cancel()


async def test_what_others_write_is_shown(replica: Replica) -> None:
    space = replica.spaces()[0]
    async with (
        syncengine.open_hub(":memory:") as hub,
        syncengine.open(":memory:") as other,
    ):
        wire = Wire(hub)
        theirs = await other.join(await space.invite("write"))
        async with wire.link(replica) as link, wire.link(other) as far:
            await link.synced()
            await far.synced()
            watching = space.watch(Note, "1")
            assert await anext(watching) is None
            await write(theirs, "1", "from far")
            seen = await anext(watching)
            assert seen is not None
            assert seen.title == "from far"


async def test_a_collection_is_shown_whole_and_then_what_changed(space: Space) -> None:
    await write(space, "a", "first")
    await write(space, "b", "second")
    watching = space.watch(Note)
    step = await anext(watching)
    assert {id: note and note.title for id, note in step.items()} == {
        "a": "first", "b": "second",
    }  # fmt: skip
    await write(space, "c", "third")
    await delete(space, "a")
    await write(space, "d", "short-lived")
    await delete(space, "d")
    async with space.transaction() as tx:
        tx["page/1"]["title"] = "of another collection"
    step = await anext(watching)
    assert {id: note and note.title for id, note in step.items()} == {
        "c": "third", "a": None,
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "delete", "look", "made anew"]),
                  st.sampled_from("abc")),
        max_size=25,
    )
)  # fmt: skip
async def test_steps_add_up_to_what_is_there(steps: list[tuple[str, str]]) -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        watching = space.watch(Note)
        there: dict[str, str] = {}
        seen: dict[str, str] = {}

        async def look() -> None:
            for id, note in (await anext(watching)).items():
                if note is None:
                    del seen[id]
                else:
                    seen[id] = note.title
            assert seen == there

        await look()
        for number, (what, id) in enumerate(steps):
            if what == "write":
                await write(space, id, f"{number}")
                there[id] = f"{number}"
            elif what == "delete" and id in there:
                await delete(space, id)
                del there[id]
            elif what == "made anew":
                async with space.engine.turn:
                    await space.engine.rebuild()
            elif what == "look" and seen != there:
                await look()
        if seen != there:
            await look()


async def test_a_prefix_narrows_a_collection(space: Space) -> None:
    watching = space.watch("note", prefix="2026-")
    assert await anext(watching) == {}
    await write(space, "2025-12", "old")
    await write(space, "2026-01", "new")
    assert list(await anext(watching)) == ["2026-01"]


async def test_what_never_reached_the_disk_is_taken_back(
    replica: Replica, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(space, "1", "kept")
    one, all_ = space.watch(Note, "1"), space.watch(Note)
    await anext(one)
    await anext(all_)

    async def fail(*_: Any) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(replica.store), "commit", fail)
        async with space.transaction(wait=False) as tx:
            tx["note/1"]["title"] = "lost"
            tx["note/2"]["title"] = "lost too"
        shown = await anext(one)
        assert shown is not None
        assert shown.title == "lost", "visible at once"
        assert set(await anext(all_)) == {"1", "2"}
        with pytest.raises(StoreError):
            await tx.receipt
    back = await anext(one)
    assert back is not None
    assert back.title == "kept"
    step = await anext(all_)
    assert (step["1"] and step["1"].title, step["2"]) == ("kept", None)


async def test_it_ends_with_the_replica_and_leaves_nothing(space: Space) -> None:
    engine = space.engine
    before = [len(engine.on_changed), len(engine.on_reloaded), len(engine.on_stopped)]
    async for _ in space.watch(Note):
        break
    for watching in (space.watch(Note), space.watch(Note, "1")):
        await anext(watching)
        await watching.aclose()
    await asyncio.sleep(0.01)
    assert before == [
        len(engine.on_changed), len(engine.on_reloaded), len(engine.on_stopped),
    ]  # fmt: skip
    steps: list[Any] = []

    async def follow() -> None:
        async for step in space.watch(Note, "1"):
            steps.append(step)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    await space._replica.close()  # pyright: ignore[reportPrivateUsage]
    await following
    assert steps == [None]
    with pytest.raises(Closed):
        space.watch(Note)


@pytest.mark.parametrize("name", ["Note", "note/", "/1", ""])
def test_a_wrong_name_is_told_at_once(name: str) -> None:
    async def ask() -> None:
        async with syncengine.open(":memory:") as replica:
            space = await replica.namespace("home")
            with pytest.raises(Invalid):
                space.watch(name)

    asyncio.run(ask())


# --- queries --------------------------------------------------------------------------


async def test_a_query_is_answered_again_when_its_rows_are_others(space: Space) -> None:
    await write(space, "1", "a")
    space.collection_of(Note)
    watching = space.watch_sql("SELECT title FROM note ORDER BY title LIMIT ?", 2)
    assert [row["title"] for row in await anext(watching)] == ["a"]
    later = asyncio.ensure_future(anext(watching))
    async with space.transaction() as tx:
        tx["page/1"]["title"] = "of another collection"
    await write(space, "9", "z")
    assert [tuple(row) for row in await later] == [("a",), ("z",)]
    later = asyncio.ensure_future(anext(watching))
    await write(space, "8", "zz")  # beyond the limit: the same rows
    await asyncio.sleep(0.05)
    assert not later.done()
    await delete(space, "1")
    assert [tuple(row) for row in await later] == [("z",), ("zz",)]


async def test_a_query_that_is_none_is_refused(space: Space) -> None:
    with pytest.raises(Invalid):
        await anext(space.watch_sql("DELETE FROM note"))


async def test_watching_a_query_ends_with_the_replica(replica: Replica) -> None:
    space = replica.spaces()[0]
    space.collection_of(Note)
    watching = space.watch_sql("SELECT count(*) FROM note")
    await anext(watching)
    later = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    await replica.close()
    with pytest.raises(StopAsyncIteration):
        await later


# --- callbacks ------------------------------------------------------------------------


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_subscriber_is_told_until_it_is_cancelled(space: Space) -> None:
    told: list[Any] = []
    subscription = space.subscribe(lambda note: told.append(note and note.title), Note, "1")  # fmt: skip
    await settled()
    await write(space, "1", "a")
    await settled()
    assert told == [None, "a"]
    subscription.cancel()
    await write(space, "1", "b")
    await settled()
    assert told == [None, "a"]


async def test_nobody_has_to_hold_a_subscription(space: Space) -> None:
    told: list[Any] = []
    space.subscribe(lambda notes: told.append(sorted(notes)), Note, prefix="2026-")
    gc.collect()
    await settled()
    await write(space, "2026-1", "a")
    await write(space, "1999-1", "b")
    await settled()

    assert told == [[], ["2026-1"]]


async def test_a_subscriber_that_fails_is_told_of_the_next(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    async def tell(page: Any) -> None:
        await asyncio.sleep(0)
        told.append(page and page.to_dict())
        if len(told) == 1:
            raise RuntimeError("a bug of the window")

    space.subscribe(tell, "page/1")
    await settled()
    async with space.transaction() as tx:
        tx["page/1"]["n"] = 1
    await settled()

    assert told == [None, {"n": 1}]
    assert "a bug of the window" in caplog.text
