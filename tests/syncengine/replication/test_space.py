"""Transactions: turns, groups, retries, cancellation, editors."""

# pyright: reportPrivateUsage=false

import asyncio
import inspect
import logging
import time
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    AlreadyExists,
    Counter,
    Document,
    Invalid,
    List,
    NotFound,
    Space,
    StoreFull,
    SyncError,
    Text,
    TooLarge,
    Transaction,
    TransactionClosed,
    TransactionOpen,
    limits,
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


async def test_a_retry_while_the_first_is_on_its_way_to_disk_happens_once(
    space: Space,
) -> None:
    async def pay(number: int) -> bool:
        async with space.transaction(f"pay-{number}") as tx:
            tx.get(Doc, "d").n += 5
        return tx.repeated

    for number in range(20):
        task = asyncio.create_task(pay(number))
        while not space.engine._committing:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await pay(number) is True

    assert (await space.get(Doc, "d")).n == 100


async def test_a_retry_may_create_and_delete_as_the_first_run_did(space: Space) -> None:
    for expected in (False, True):
        async with space.transaction("move-1") as tx:
            assert tx.repeated is expected
            made = tx.create(Doc, "moved")
            made.n += 1
            tx.get(Doc, "d")
            tx.delete(Doc, "d")
        await tx.receipt
        assert made.n == 1


async def test_an_empty_first_transaction_waits_for_nobody() -> None:
    async with syncengine.open(":memory:") as replica:
        fresh = await replica.namespace("fresh")
        async with fresh.transaction() as tx:
            with pytest.raises(TransactionOpen, match="receipt"):
                print(tx.receipt)
        assert not tx.receipt.pending


async def test_a_nested_transaction_is_an_error_and_not_a_deadlock(
    space: Space,
) -> None:
    async with space.transaction():
        with pytest.raises(TransactionOpen):
            async with space.transaction():
                pass


async def test_others_see_the_state_before_an_open_transaction(space: Space) -> None:
    async def look() -> tuple[Any, ...]:
        shown = await space.get(Doc, "d")
        there = [doc.id async for doc in space.documents(Doc)]
        return shown.n, str(shown.body), there, await space.get(Doc, "new", None)

    before = (0, "", ["d"], None)
    snapshots: list[Doc] = []
    with pytest.raises(RuntimeError):
        async with space.transaction() as tx:
            draft = tx.get(Doc, "d")
            tx.create(Doc, "new").body.insert(0, "x")
            for round_ in range(3):
                draft.n += 1
                draft.body.append("ab")
                draft.body.insert(1, "-")
                snapshots.append(await space.get(Doc, "d"))
                assert await look() == before
                assert await asyncio.create_task(look()) == before
                assert (draft.n, len(draft.body)) == (round_ + 1, 3 * (round_ + 1))
            raise RuntimeError
    assert await look() == before
    async with space.transaction() as tx:
        draft = tx.get(Doc, "d")
        draft.body.insert(0, "ab")
        snapshots.append(await space.get(Doc, "d"))
        draft.body.insert(1, "-")
        tx.create(Doc, "new")
    assert [(shown.n, str(shown.body)) for shown in snapshots] == [(0, "")] * 4
    assert str(draft.body) == str((await space.get(Doc, "d")).body) == "a-b"
    assert await space.get(Doc, "new", None) is not None


async def test_what_is_not_there_is_named(space: Space) -> None:
    with pytest.raises(NotFound):
        await space.get(Doc, "absent")
    assert await space.get("doc/absent", default=None) is None
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

    drafts: list[Doc] = []

    async def add() -> None:
        async with space.transaction() as tx:
            drafts.append(tx.get(Doc, "d"))
            drafts[-1].n += 1

    with monkeypatch.context() as patched:
        patched.setattr(store, "commit", full)
        outcomes = await asyncio.gather(
            *(add() for _ in range(5)), return_exceptions=True
        )
    assert all(isinstance(outcome, StoreFull) for outcome in outcomes)
    assert (await space.get(Doc, "d")).n == 0
    for draft in drafts:
        with pytest.raises(TransactionClosed):
            print(draft.n)
    await add()

    assert (await space.get(Doc, "d")).n == 1


async def test_a_body_that_outlives_a_failed_commit_changes_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it goes on to edit would be shown, and stored with the next write."""
    async with space.transaction() as tx:
        tx.create(Doc, "e", body="kept")
    store: Any = space.engine.writer.store
    commit = store.commit
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def full(writes: Writes) -> None:
        begun.set()
        await go_on.wait()
        raise StoreFull("no space")

    monkeypatch.setattr(store, "commit", full)
    async with space.transaction(wait=False) as first:
        first.get(Doc, "d").n += 1
    await begun.wait()
    with pytest.raises(SyncError, match="run it again"):
        async with space.transaction() as tx:
            tx.get(Doc, "d").n += 1
            go_on.set()
            with pytest.raises(StoreFull):
                await first.receipt
            monkeypatch.setattr(store, "commit", commit)
            with pytest.raises(SyncError, match="run it again"):
                tx.get(Doc, "e").body.append("ghost")
    assert (await space.get(Doc, "e")).body == "kept"
    assert (await space.get(Doc, "d")).n == 0


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


async def test_an_editor_sees_edits_of_a_text_inside(space: Space) -> None:
    patches: list[Any] = []
    async with space.transaction() as tx:
        tx["page/1"]["rows"] = [{}]
        tx["page/1"]["rows"][0].text("body").append("hello")

    class Page(Document, collection="page"):
        rows: List[Any] = List()

    async with space.live(Page, "1") as live:
        live.on_patch(live.doc.rows[0].text("body"), patches.extend)
        async with space.transaction() as tx:
            tx["page/1"]["rows"].insert(0, "x")
            tx["page/1"]["rows"][1].text("body").insert(5, "!")
        live.doc.rows[1].text("body").append("?")
        with pytest.raises(Invalid, match="no Text or List"):
            live.on_patch("nothing", patches.extend)

    assert [tuple(edit) for edit in patches] == [(5, 0, "!")]


async def test_an_editor_is_told_when_a_text_inside_is_gone(space: Space) -> None:
    class Page(Document, collection="page"):
        rows: List[Any] = List()

    def gone(tx: Transaction, how: str) -> None:
        page = tx["page/1"]
        if how == "element":
            del page["rows"][0]
        elif how == "replaced":
            page["rows"][0] = "x"
        elif how == "key":
            del page["rows"][0]["body"]
        else:
            tx.delete("page/1")

    for how in ("element", "replaced", "key", "document"):
        patches: list[Any] = []
        async with space.transaction() as tx:
            tx["page/1"]["rows"] = [{}]
            tx["page/1"]["rows"][0].text("body").append("hello")
        async with space.live(Page, "1") as live:
            live.on_patch(live.doc.rows[0].text("body"), patches.extend)
            async with space.transaction() as tx:
                gone(tx, how)
        assert [tuple(edit) for edit in patches] == [(0, 5, "")], how


async def test_editors_of_one_document_see_each_other(space: Space) -> None:
    one: list[Any] = []
    two: list[Any] = []
    async with space.live(Doc, "d") as left, space.live(Doc, "d") as right:
        left.on_patch("body", one.extend)
        right.on_patch("body", two.extend)
        left.doc.body.insert(0, "hello")
        right.doc.body.insert(5, "!")

    assert (one, two) == ([(5, 0, "!")], [(0, 0, "hello")])


async def test_a_listener_that_fails_harms_nobody(
    space: Space, caplog: pytest.LogCaptureFixture
) -> None:
    patches: list[Any] = []

    def broken(edits: list[Any]) -> None:
        raise RuntimeError("a bug of the widget")

    async with space.live(Doc, "d") as live:
        live.on_patch("body", broken)
        live.on_patch("body", patches.extend)
        async with space.transaction() as tx:
            tx.get(Doc, "d").body.insert(0, "!")

    assert patches == [(0, 0, "!")]
    assert "a bug of the widget" in caplog.text


async def test_an_editor_is_told_of_a_delete_and_of_what_comes_back(
    space: Space,
) -> None:
    widget = ""

    def apply(edits: list[Any]) -> None:
        nonlocal widget
        for pos, deleted, inserted in edits:
            widget = widget[:pos] + inserted + widget[pos + deleted :]

    async with space.live(Doc, "d") as live:
        live.on_patch("body", apply)
        async with space.transaction() as tx:
            tx.get(Doc, "d").body.insert(0, "text")
        assert widget == "text"
        async with space.transaction() as tx:
            tx.delete(Doc, "d")
        assert widget == str(live.doc.body) == ""
        async with space.transaction() as tx:
            tx.create(Doc, "d", body="anew")
        assert widget == str(live.doc.body) == "anew"


async def test_an_editor_goes_back_to_what_the_disk_holds(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches: list[Any] = []
    store: Any = space.engine.writer.store
    commit = store.commit

    async def full(writes: Writes) -> None:
        raise StoreFull("no space")

    async with space.live(Doc, "d") as live:
        live.on_patch("body", patches.extend)
        live.doc.body.insert(0, "kept")
        await space.engine.flush()
        monkeypatch.setattr(store, "commit", full)
        live.doc.body.insert(4, " lost")
        with pytest.raises(StoreFull):
            await space.engine.flush()
        monkeypatch.setattr(store, "commit", commit)
        assert patches == [(4, 5, "")]
        assert str(live.doc.body) == "kept"
        live.doc.body.insert(4, "!")

    assert str((await space.get(Doc, "d")).body) == "kept!"


async def test_what_is_typed_without_a_pause_is_one_change(space: Space) -> None:
    engine, ends = space.engine, list[int]()
    engine.on_changed.append(lambda _: ends.append(engine.next_seq))
    async with space.live(Doc, "d") as live:
        start = engine.next_seq
        for i, char in enumerate("hello"):
            live.doc.body.insert(i, char)
            assert str(live.doc.body) == "hello"[: i + 1]
        live.doc.body.delete(4)
        assert str((await space.get(Doc, "d")).body) == "hell"
        live.doc.body.splice(0, 1, "J")
        await asyncio.sleep(0)
        live.doc.body.splice(0, 4, "")

    assert [end - start for end in ends] == [6, 8, 12]


async def test_a_transaction_finds_all_that_was_typed(space: Space) -> None:
    async with space.live(Doc, "d") as live:
        live.doc.body.insert(0, "typed")
        async with space.transaction() as tx:
            assert tx.get(Doc, "d").body == "typed"
            tx.get(Doc, "d").body.append("!")
            with pytest.raises(TransactionOpen):
                live.doc.body.insert(0, "x")
        live.doc.body.insert(0, "un")
        assert live.doc.body == "untyped!"
        await asyncio.sleep(0)

    assert (await space.get(Doc, "d")).body == "untyped!"


async def test_a_paste_that_is_too_large_takes_nothing_else_with_it(
    space: Space,
) -> None:
    async with space.live(Doc, "d") as live:
        live.doc.body.insert(0, "kept")
        with pytest.raises(TooLarge):
            live.doc.body.insert(4, "x" * (limits.CHANGE_BYTES_MAX + 1))
        live.doc.body.insert(4, "!")

    assert (await space.get(Doc, "d")).body == "kept!"


async def test_what_an_editor_assigns_is_one_change(space: Space) -> None:
    async with space.live(Doc, "d") as live:
        live.doc.body = "one two"
        before = space.engine.next_seq
        live.doc.body = "zero one and two three"
        with pytest.raises(Invalid):
            live.doc.body.insert(99, "x")

    assert str((await space.get(Doc, "d")).body) == "zero one and two three"
    assert len(space.engine.outbox.stored(space.engine.actor)) == 3
    assert space.engine.next_seq > before


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_long_body_is_named_in_a_warning(
    blocks: bool,
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from syncengine import limits

    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", 0.01)
    space.engine.stop()  # the watch of an earlier transaction looks in 5 s
    space.engine.body._timer = None

    async def body() -> int:
        line = 0
        async with space.transaction():
            line = inspect.currentframe().f_lineno  # type: ignore[union-attr]
            if blocks:
                time.sleep(0.05)  # noqa: ASYNC251  # what is to be warned of
            else:
                await asyncio.sleep(0.05)
        return line

    with caplog.at_level(logging.WARNING, "syncengine"):
        line = await body()

    (record,) = [r for r in caplog.records if "has been open" in r.message]
    named = int(record.message.partition("test_space.py:")[2].partition(";")[0])
    assert line - 1 <= named <= line + 5  # where it stood, or where it ended


async def test_a_paste_at_the_caret_is_refused_where_it_is_too_large(
    space: Space,
) -> None:
    async with space.live(Doc, "d") as live:
        live.doc.body.insert(0, "typed")
        with pytest.raises(TooLarge):
            live.doc.body.insert(5, "x" * (limits.CHANGE_BYTES_MAX + 1))
        async with space.transaction() as tx:
            assert tx.get(Doc, "d").body == "typed"
        assert not space.engine.turn.locked()


async def test_everybody_finds_what_was_typed_just_now(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Doc, "d")
        live = await space.live(Doc, "d").__aenter__()
        await space.engine.flush()
        live.doc.body.append("one")
        assert [tuple(r) for r in await space.sql("SELECT body FROM doc")] == [("one",)]
        live.doc.body.append(" two")
        past = await space.at(space.version)
        assert str((await past.get(Doc, "d")).body) == "one two"
        live.doc.body.append(" three")
        branch = await space.fork("x")
        assert str((await branch.get(Doc, "d")).body) == "one two three"
        count = len(await space.history(Doc, "d"))
        live.doc.body.append(" four")
        assert len(await space.history(Doc, "d")) > count
        live.doc.body.append(" last")
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        body = (await space.get(Doc, "d")).body
        assert str(body) == "one two three four last"


async def test_a_read_inside_a_part_that_fails_takes_nothing_else(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        body = tx.get(Doc, "d").body
        body.append("a")
        with tx.whole():
            pass
        body.append("b")
        with pytest.raises(KeyError), tx.whole():
            body.append("c")
            await space.get(Doc, "d")
            raise KeyError
        body.append("d")
    assert str((await space.get(Doc, "d")).body) == "abd"
    past = await space.at(space.version)
    assert str((await past.get(Doc, "d")).body) == "abd"
