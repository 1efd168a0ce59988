"""The feed of changes: each once, in order, wherever one stopped."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import syncengine
import transport
from syncengine import Change, Invalid, Space, limits
from syncengine.replication import namespace


@pytest.fixture
async def space() -> AsyncIterator[Space]:
    async with syncengine.open(":memory:") as replica:
        yield await replica.namespace("home")


async def taken(space: Space, count: int, after: str | None = None) -> list[Change]:
    found: list[Change] = []
    async with asyncio.timeout(5):
        async for change in space.changes(after=after):
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_what_was_and_what_comes(space: Space) -> None:
    for number in range(3):
        async with space.transaction(operation_id=f"op{number}") as tx:
            tx[f"note/{number}"]["n"] = number
            tx["note/all"]["n"] = number
    following = asyncio.create_task(taken(space, 5))
    await asyncio.sleep(0.01)
    for number in (3, 4):
        async with space.transaction() as tx:
            tx[f"note/{number}"]["n"] = number
    found = await following

    assert [set(change.documents) for change in found[:3]] == [
        {f"note/{number}", "note/all"} for number in range(3)
    ]
    assert [change.documents for change in found[3:]] == [("note/3",), ("note/4",)]
    assert [c.operation_id for c in found] == ["op0", "op1", "op2", None, None]
    assert {change.void for change in found} == {None}


async def test_every_cursor_resumes_behind_its_change(space: Space) -> None:
    for number in range(10):
        async with space.transaction() as tx:
            tx[f"note/{number}"]["n"] = number
    found = await taken(space, 10)
    for at, change in enumerate(found[:-1]):
        assert await taken(space, 9 - at, change.cursor) == found[at + 1 :]


async def test_others_changes_are_in_it_with_who_made_them(space: Space) -> None:
    replica = space._replica  # pyright: ignore[reportPrivateUsage]
    async with (
        syncengine.open(":memory:") as other,
        transport.serve(replica, "127.0.0.1", 0) as server,
    ):
        theirs = await other.join(await space.invite("write"))
        async with transport.connect(other, server.address) as link:
            await link.synced()
            async with theirs.transaction() as tx:
                tx["note/1"]["n"] = 1
            (change,) = await taken(space, 1)
            assert change.author == other.id
            assert change.documents == ("note/1",)


async def test_a_feed_ends_with_its_replica(tmp_path: Path) -> None:
    replica = await syncengine.open(tmp_path / "a.db")
    space = await replica.namespace("home")

    async def follow() -> int:
        return len([change async for change in space.changes()])

    following = asyncio.create_task(follow())
    async with space.transaction() as tx:
        tx["note/1"]["n"] = 1
    await asyncio.sleep(0.05)
    await replica.close()
    assert await following == 1


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["n"] = 1
        (first,) = await taken(space, 1)
        async with space.transaction() as tx:
            tx["note/2"]["n"] = 1
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        (second,) = await taken(space, 1, first.cursor)
        assert second.documents == ("note/2",)


@pytest.mark.parametrize("cursor", ["", "x", "1-2", "-1-0-", "1-0-zz", "9" * 30])
async def test_what_is_no_cursor_is_refused(space: Space, cursor: str) -> None:
    with pytest.raises(Invalid, match="no cursor"):
        await taken(space, 1, cursor)


async def test_a_cursor_of_another_file_is_refused(space: Space) -> None:
    async with space.transaction() as tx:
        tx["note/1"]["n"] = 1
    (change,) = await taken(space, 1)
    async with syncengine.open(":memory:") as other:
        with pytest.raises(Invalid, match="another file"):
            await taken(await other.namespace("home"), 1, change.cursor)


async def test_all_that_was_written_alone_is_told_however_much(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit seals so much, and the rest with the next ones."""
    monkeypatch.setattr(namespace, "SEAL_BYTES_MAX", 1)
    monkeypatch.setattr(limits, "BATCH_BYTES_CUT", 200)
    for number in range(20):
        async with space.transaction() as tx:
            tx["note/1"].text("body").append(f"{number} ")
            tx[f"note/{number}"]["n"] = number
    assert len(await space.history("note/1")) == 20
    assert len(await taken(space, 20)) == 20


async def test_a_feed_goes_on_by_itself_behind_what_one_commit_seals(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "SEAL_BYTES_MAX", 1)
    monkeypatch.setattr(limits, "BATCH_BYTES_CUT", 200)
    for number in range(20):
        async with space.transaction() as tx:
            tx[f"note/{number}"]["n"] = number
    assert len(await taken(space, 20)) == 20


@pytest.mark.parametrize(
    ("ahead_ms", "is_good", "word"),
    [
        (60_001, False, "Future timestamp rejected"),
        (60_000, True, ""),
        (0, True, ""),
        (-24 * 3_600_000, True, ""),
        (-24 * 3_600_000 - 1, True, "Old timestamp"),
    ],
)
async def test_a_stamp_from_the_future_is_no_good_and_an_old_one_is(
    space: Space,
    caplog: pytest.LogCaptureFixture,
    ahead_ms: int,
    is_good: bool,
    word: str,
) -> None:
    async with space.transaction() as tx:
        tx["note/1"]["title"] = "now"
    async for event in space.changes():
        assert isinstance(event, syncengine.WriteEvent)
        now_ms = event.timestamp - ahead_ms
        good = syncengine.validate_event_timestamp(event, now_ms=now_ms)
        assert good is is_good
        assert caplog.messages == ([f"{word}: {event.timestamp}"] if word else [])
        break


async def test_what_is_written_now_is_stamped_now_in_utc(space: Space) -> None:
    async with space.transaction() as tx:
        tx["note/1"]["at"] = datetime(
            2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5))
        )
    async for event in space.changes():
        assert syncengine.validate_event_timestamp(event)
        assert event.at.utcoffset() == timedelta(0)
        break
    # Whatever zone somebody lives in: one moment is one value.
    stored = (await space.get("note/1"))["at"]
    assert stored == datetime(2026, 1, 1, 7, tzinfo=UTC)
