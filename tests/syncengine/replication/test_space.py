"""Transactions: turns, groups, retries, cancellation, editors."""

# pyright: reportPrivateUsage=false

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    AlreadyExists,
    Counter,
    Document,
    NotFound,
    Space,
    StoreFull,
    Text,
    TooLarge,
    TransactionOpen,
)
from syncengine.storage.store import Writes


class Doc(Document):
    n: Counter = Counter()
    body: Text = Text()


@pytest.fixture
async def space(tmp_path: Path) -> Any:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        made = await replica.namespace("home")
        async with made.transaction() as tx:
            tx.create(Doc, "d")
        yield made


async def test_concurrent_callers_share_commits(space: Space) -> None:
    async def add() -> None:
        async with space.transaction() as tx:
            tx.get(Doc, "d").n += 1

    before = space.engine.writer.commit_count
    await asyncio.gather(*(add() for _ in range(100)))

    assert (await space.get(Doc, "d")).n == 100
    assert space.engine.writer.commit_count - before < 20


async def test_without_waiting_a_change_is_visible_and_then_durable(
    space: Space,
) -> None:
    async with space.transaction(wait=False) as tx:
        tx.get(Doc, "d").n += 1
    assert (await space.get(Doc, "d")).n == 1
    await tx.receipt

    assert tx.receipt.pending


async def test_a_retry_with_its_operation_id_happens_once(space: Space) -> None:
    for expected in (False, True, True):
        async with space.transaction("pay-1") as tx:
            tx.get(Doc, "d").n += 5
        assert tx.repeated is expected

    assert (await space.get(Doc, "d")).n == 5


async def test_a_nested_transaction_is_an_error_and_not_a_deadlock(
    space: Space,
) -> None:
    async with space.transaction():
        with pytest.raises(TransactionOpen):
            async with space.transaction():
                pass


async def test_inside_a_transaction_get_shows_the_state_with_it(space: Space) -> None:
    async with space.transaction() as tx:
        tx.get(Doc, "d").n += 1
    with pytest.raises(NotFound):
        await space.get(Doc, "absent")
    async with space.transaction() as tx:
        with pytest.raises(AlreadyExists):
            tx.create(Doc, "d")
        with pytest.raises(NotFound):
            tx.delete(Doc, "absent")
        assert tx.get(Doc, "absent", None) is None


async def test_a_change_above_the_limit_writes_nothing(space: Space) -> None:
    with pytest.raises(TooLarge, match="split"):
        async with space.transaction() as tx:
            tx.get(Doc, "d").body.insert(0, "x" * (9 << 20))

    assert str((await space.get(Doc, "d")).body) == ""


async def test_a_cancelled_caller_leaves_no_transaction_open(space: Space) -> None:
    async def slow() -> None:
        async with space.transaction() as tx:
            tx.get(Doc, "d").n += 1
            await asyncio.sleep(60)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with space.transaction() as tx:
        tx.get(Doc, "d").n += 1

    assert (await space.get(Doc, "d")).n == 1


async def test_a_failed_disk_fails_everything_that_rested_on_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = space.engine.writer.store

    async def full(writes: Writes) -> None:
        await asyncio.sleep(0.01)
        raise StoreFull("no space")

    async def add() -> None:
        async with space.transaction() as tx:
            tx.get(Doc, "d").n += 1

    with monkeypatch.context() as patched:
        patched.setattr(store, "commit", full)
        outcomes = await asyncio.gather(
            *(add() for _ in range(5)), return_exceptions=True
        )
    assert all(isinstance(outcome, StoreFull) for outcome in outcomes)
    assert (await space.get(Doc, "d")).n == 0
    await add()

    assert (await space.get(Doc, "d")).n == 1


async def test_an_editor_sees_edits_from_elsewhere_as_splices(space: Space) -> None:
    patches: list[Any] = []
    async with space.live(Doc, "d") as live:
        live.on_patch("body", patches.extend)
        live.doc.body.insert(0, "hello")
        async with space.transaction() as tx:
            tx.get(Doc, "d").body.insert(5, "!")
        live.doc.body.delete(0, 1)

    assert [tuple(edit) for edit in patches] == [(5, 0, "!")]
    assert str((await space.get(Doc, "d")).body) == "ello!"


async def test_a_long_body_is_named_in_a_warning(
    space: Space, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from syncengine import limits

    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", 0.01)
    space.engine.stop()  # the watch of an earlier transaction looks in 5 s
    space.engine._body_timer = None
    with caplog.at_level(logging.WARNING, "syncengine"):
        async with space.transaction():
            await asyncio.sleep(0.05)

    assert "test_space.py" in caplog.text
