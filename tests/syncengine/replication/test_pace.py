"""Long work in steps: others go on, and a cancelled one ends where it can be left."""

import asyncio

import pytest

from syncengine.replication.pace import Pace


async def test_others_go_on_in_between() -> None:
    pace = Pace()
    seen: list[str] = []

    async def other() -> None:
        seen.append("other")

    task = asyncio.create_task(other())
    await pace.pause()
    await task

    assert seen == ["other"]
    assert not pace.cancelled


async def test_cancelled_it_goes_on_without_waiting() -> None:
    steps: list[int] = []

    async def work() -> None:
        pace = Pace()
        for step in range(3):
            steps.append(step)
            await pace.pause()
        assert pace.cancelled
        raise asyncio.CancelledError

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert steps == [0, 1, 2]
