"""Subscribers: every change once in order, whatever the handler does."""

# pyright: reportPrivateUsage=false

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    Change,
    CheckpointStore,
    CheckpointTransaction,
    Closed,
    EventSubscriber,
    Invalid,
    NotFound,
    Space,
    StoreFull,
)
from tests.syncengine.replication.test_leader_follower import (
    Cluster,
    cluster,
    three,
    until,
)
from tests.wires import meet, two_members

__all__ = ["cluster", "three"]


@pytest.fixture
async def space() -> AsyncGenerator[Space]:
    async with syncengine.open(":memory:") as replica:
        yield await replica.namespace("home")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[CheckpointStore]:
    async with await CheckpointStore.open(str(tmp_path / "audit.db")) as opened:
        async with opened.transaction() as tx:
            await tx.execute("CREATE TABLE line (document TEXT)")
        yield opened


async def write(space: Space, *numbers: int) -> None:
    for number in numbers:
        async with space.transaction() as tx:
            tx[f"page/{number}"]["n"] = number


def names(events: list[Change]) -> list[str]:
    return [event.documents[0].removeprefix("page/") for event in events]


async def audit(event: Change, tx: CheckpointTransaction) -> None:
    await tx.execute("INSERT INTO line VALUES (?)", (event.documents[0],))


async def audited(store: CheckpointStore) -> list[str]:
    async with store.transaction() as tx:
        found = await tx.execute("SELECT document FROM line ORDER BY rowid")
    return [row[0].removeprefix("page/") for row in found]


async def test_each_change_is_handed_on_in_order_and_goes_on_after_a_restart(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []
    await write(space, 1, 2)
    async with EventSubscriber(space, store, seen.append) as subscriber:
        await subscriber.caught_up()
        assert names(seen) == ["1", "2"]
        await write(space, 3)
        await subscriber.caught_up()
    await write(space, 4)
    async with EventSubscriber(space, store, seen.append) as subscriber:
        await subscriber.caught_up()

    assert names(seen) == ["1", "2", "3", "4"]
    assert subscriber.checkpoint == seen[-1].cursor
    assert subscriber.get_metrics().events_handled == 1


async def test_two_subscribers_have_each_their_own_checkpoint(
    space: Space, store: CheckpointStore
) -> None:
    one: list[Change] = []
    other: list[Change] = []
    await write(space, 1)
    async with EventSubscriber(space, store, one.append, name="one") as subscriber:
        await subscriber.caught_up()
    async with EventSubscriber(space, store, other.append, name="two") as subscriber:
        await subscriber.caught_up()

    assert names(one) == names(other) == ["1"]


async def test_changes_of_others_come_too(store: CheckpointStore) -> None:
    seen: list[Change] = []
    async with (
        two_members() as (ours, theirs),
        EventSubscriber(ours, store, seen.append) as subscriber,
    ):
        await write(theirs, 1)
        await meet(ours, theirs)
        await subscriber.caught_up()
        assert names(seen) == ["1"]
        assert seen[0].author == theirs._replica.id


async def test_what_a_handler_writes_is_kept_with_the_checkpoint(
    space: Space, store: CheckpointStore
) -> None:
    await write(space, 1, 2, 3)
    async with EventSubscriber(space, store, audit) as subscriber:
        await subscriber.caught_up()
    async with EventSubscriber(space, store, audit) as subscriber:
        await subscriber.caught_up()

    assert await audited(store) == ["1", "2", "3"]


async def test_a_handler_that_fails_is_tried_again_and_then_passed_over(
    space: Space, store: CheckpointStore
) -> None:
    attempts: list[str] = []
    errors: list[tuple[str, str | None]] = []

    async def fails_at_2(event: Change, tx: CheckpointTransaction) -> None:
        attempts.extend(names([event]))
        await audit(event, tx)
        if names([event]) == ["2"]:
            raise ValueError("no twos")

    def on_error(error: Exception, event: Change | None = None) -> None:
        errors.append((str(error), names([event])[0] if event else None))

    await write(space, 1, 2, 3)
    subscriber = EventSubscriber(
        space, store, fails_at_2, on_error=on_error, max_retries=2, retry_delay=1
    )
    async with subscriber:
        await subscriber.caught_up()
        assert attempts == ["1", "2", "2", "2", "3"]
        assert errors == [("no twos", "2")] * 3
        assert await audited(store) == ["1", "3"], "what it wrote is taken back"
        (letter,) = await subscriber.dead_letters()
        assert (letter.error, letter.attempts) == ("ValueError: no twos", 3)
        metrics = subscriber.get_metrics()
        assert (metrics.dead_letters, metrics.retries) == (1, 2)

        with pytest.raises(ValueError, match="no twos"):
            await subscriber.retry(letter.event)
        assert await subscriber.dead_letters() == [letter]


async def test_what_was_put_aside_is_done_later_or_dismissed(
    space: Space, store: CheckpointStore
) -> None:
    away = True

    async def sometimes(event: Change, tx: CheckpointTransaction) -> None:
        if away:
            raise OSError("away")
        await audit(event, tx)

    await write(space, 1, 2)
    async with EventSubscriber(space, store, sometimes, max_retries=0) as subscriber:
        await subscriber.caught_up()
        one, two = await subscriber.dead_letters()
        away = False
        await subscriber.retry(two.event)
        await subscriber.dismiss(one.event)
        assert await subscriber.dead_letters() == []
        with pytest.raises(NotFound):
            await subscriber.dismiss(one.event)
        with pytest.raises(NotFound):
            await subscriber.retry(one.event)

    assert await audited(store) == ["2"]


async def test_a_batch_is_handed_on_as_one(
    space: Space, store: CheckpointStore
) -> None:
    batches: list[list[str]] = []

    def note(events: list[Change]) -> None:
        batches.append(names(events))

    await write(space, *range(7))
    subscriber = EventSubscriber(
        space,
        store,
        on_batch=note,
        batch_size=3,
        poll_interval=10,
    )
    async with subscriber:
        await subscriber.caught_up()

    assert batches == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


async def test_of_a_batch_that_fails_only_the_culprit_is_put_aside(
    space: Space, store: CheckpointStore
) -> None:
    async def no_threes(events: list[Change], tx: CheckpointTransaction) -> None:
        for event in events:
            await audit(event, tx)
        if "3" in names(events):
            raise ValueError("three")

    await write(space, *range(6))
    subscriber = EventSubscriber(
        space, store, on_batch=no_threes, poll_interval=1, max_retries=1, retry_delay=0
    )
    async with subscriber:
        await subscriber.caught_up()
        (letter,) = await subscriber.dead_letters()

    assert await audited(store) == ["0", "1", "2", "4", "5"]
    assert letter.error == "ValueError: three"


async def test_a_checkpoint_by_hand_is_written_by_hand(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []

    def subscriber() -> EventSubscriber:
        return EventSubscriber(space, store, seen.append, checkpoint_mode="manual")

    await write(space, 1, 2, 3)
    async with subscriber() as by_hand:
        await by_hand.caught_up()
        assert by_hand.checkpoint is None
        await by_hand.commit(seen[0])
    async with subscriber() as by_hand:
        await by_hand.caught_up()
        assert names(seen) == ["1", "2", "3", "2", "3"]
        await by_hand.commit()
    assert await store.load("subscriber") == seen[-1].cursor


async def test_a_checkpoint_is_written_now_and_then(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []
    await write(space, 1, 2)
    subscriber = EventSubscriber(
        space, store, seen.append, checkpoint_mode="interval", checkpoint_interval=20
    )
    async with subscriber:
        await subscriber.caught_up()
        assert await store.load("subscriber") is None
        async with asyncio.timeout(5):
            while subscriber.checkpoint is None:
                await asyncio.sleep(0.005)
        assert await store.load("subscriber") == seen[-1].cursor
        await write(space, 3)
        await subscriber.caught_up()
    assert await store.load("subscriber") == seen[-1].cursor, "and in the end"


async def test_what_was_handled_lately_is_skipped(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []

    def subscriber(**options: Any) -> EventSubscriber:
        return EventSubscriber(
            space, store, seen.append, enable_idempotency=True, **options
        )

    await write(space, 1, 2)
    async with subscriber(checkpoint_mode="manual") as one:
        await one.caught_up()
    async with subscriber() as again:
        await again.caught_up()
        await write(space, 3)
        await again.caught_up()
        await again.replay()
        await again.caught_up()
        assert names(seen) == ["1", "2", "3"]
        assert again.get_metrics().events_skipped == 5
    await asyncio.sleep(0.01)
    async with subscriber(idempotency_window_ms=1) as late:
        await late.replay()
        await late.caught_up()
    assert names(seen) == ["1", "2", "3"] * 2


async def test_a_replay_begins_where_it_is_told(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []
    await write(space, 1, 2, 3)
    async with EventSubscriber(space, store, seen.append) as subscriber:
        await subscriber.caught_up()
        await subscriber.replay(seen[0].cursor)
        await subscriber.caught_up()

    assert names(seen) == ["1", "2", "3", "2", "3"]


async def test_a_handler_that_hangs_is_given_up(
    space: Space, store: CheckpointStore
) -> None:
    async def hangs(event: Change) -> None:
        await asyncio.sleep(3600)

    await write(space, 1)
    subscriber = EventSubscriber(
        space, store, hangs, max_retries=0, handler_timeout_ms=10
    )
    async with subscriber:
        await subscriber.caught_up()
        (letter,) = await subscriber.dead_letters()
    assert letter.error.startswith("TimeoutError")


async def test_who_stops_while_a_handler_runs_hands_the_event_on_again(
    space: Space, store: CheckpointStore
) -> None:
    started = asyncio.Event()

    async def slow(event: Change, tx: CheckpointTransaction) -> None:
        await audit(event, tx)
        started.set()
        await asyncio.sleep(3600)

    await write(space, 1)
    subscriber = EventSubscriber(space, store, slow)
    await subscriber.start()
    waiting = asyncio.create_task(subscriber.caught_up())
    await started.wait()
    await subscriber.stop()
    await subscriber.stop()
    with pytest.raises(Closed):
        await waiting
    assert not subscriber.is_running
    assert await audited(store) == []
    async with EventSubscriber(space, store, audit) as again:
        await again.caught_up()
    assert await audited(store) == ["1"]


async def test_a_checkpoint_of_another_file_is_refused(
    space: Space, store: CheckpointStore
) -> None:
    async with store.transaction() as tx:
        await tx.save("subscriber", "3-0-abcd")
    seen: list[Change] = []
    subscriber = EventSubscriber(space, store, seen.append)
    with pytest.raises(Invalid, match="another file"):
        await subscriber.start()
    await write(space, 1)
    await subscriber.replay()
    async with subscriber:
        await subscriber.caught_up()
        with pytest.raises(Invalid, match="another file"):
            await subscriber.replay("9-0-abcd")
        with pytest.raises(Invalid, match="no cursor"):
            await subscriber.replay("nonsense")
    assert names(seen) == ["1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "on_event or on_batch"),
        ({"on_event": print, "on_batch": print}, "on_event or on_batch"),
        ({"on_event": 7}, "no function"),
        ({"on_event": print, "on_error": 7}, "no function"),
        ({"on_event": print, "batch_size": 0}, "batch_size"),
        ({"on_event": print, "batch_size": 10**6}, "batch_size"),
        ({"on_event": print, "max_retries": -1}, "max_retries"),
        ({"on_event": print, "retry_delay": 0.5}, "retry_delay"),
        ({"on_event": print, "checkpoint_interval": 0}, "checkpoint_interval"),
        ({"on_event": print, "idempotency_window_ms": 0}, "idempotency_window_ms"),
        ({"on_event": print, "poll_interval": None}, "poll_interval"),
        ({"on_event": print, "checkpoint_mode": "never"}, "auto, manual, interval"),
        ({"on_event": print, "handler_timeout_ms": -1}, "handler_timeout_ms"),
        ({"on_event": print, "handler_timeout_ms": 0}, "handler_timeout_ms"),
        ({"on_event": audit, "checkpoint_mode": "manual"}, "auto"),
    ],
)
async def test_wrong_options_are_refused(
    space: Space, store: CheckpointStore, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        EventSubscriber(space, store, **options)


async def test_a_store_that_fails_ends_it_and_says_so(
    space: Space, store: CheckpointStore
) -> None:
    errors: list[Exception] = []
    subscriber = EventSubscriber(space, store, audit, on_error=errors.append)
    async with subscriber:
        await store.close()
        await write(space, 1)
        with pytest.raises(Closed):
            await subscriber.caught_up()
    assert isinstance(errors[0], Closed)


async def test_a_statement_that_takes_back_all_loses_nothing(
    space: Space, store: CheckpointStore
) -> None:
    async with store.transaction() as tx:
        await tx.execute("CREATE TABLE one (n UNIQUE ON CONFLICT ROLLBACK)")

    async def once(event: Change, tx: CheckpointTransaction) -> None:
        await audit(event, tx)
        odd = int(names([event])[0]) % 2
        await tx.execute("INSERT INTO one VALUES (?)", (f"odd {odd}",))

    await write(space, 0, 1, 2, 3)
    subscriber = EventSubscriber(space, store, once, max_retries=1, retry_delay=0)
    async with subscriber:
        await subscriber.caught_up()
        letters = await subscriber.dead_letters()
        assert subscriber.is_running

    assert await audited(store) == ["0", "1"]
    assert [letter.error.partition(":")[0] for letter in letters] == [
        "IntegrityError",
        "IntegrityError",
    ]


async def test_who_is_stopped_at_any_moment_leaves_the_store_whole(
    space: Space, store: CheckpointStore
) -> None:
    await write(space, *range(30))
    for turns in range(60):
        subscriber = EventSubscriber(space, store, audit, batch_size=3)
        await subscriber.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await subscriber.stop()
    async with EventSubscriber(space, store, audit) as last:
        await last.caught_up()

    assert await audited(store) == [str(number) for number in range(30)]


async def test_a_handler_does_not_wait_for_itself(
    space: Space, store: CheckpointStore
) -> None:
    errors: list[str] = []

    async def commits(event: Change, tx: CheckpointTransaction) -> None:
        await subscriber.commit(event)

    async def stops(event: Change) -> None:
        await subscriber.stop()

    await write(space, 1)
    for handler in (commits, stops):
        subscriber = EventSubscriber(
            space, store, handler, name=handler.__name__, max_retries=0
        )
        async with subscriber:
            await subscriber.caught_up()
            (letter,) = await subscriber.dead_letters()
            errors.append(letter.error)
    assert all("wait for itself" in error for error in errors)


async def test_what_a_handler_waits_for_may_be_cancelled(
    space: Space, store: CheckpointStore
) -> None:
    async def waits(event: Change) -> None:
        other = asyncio.ensure_future(asyncio.sleep(60))
        other.cancel()
        await other

    await write(space, 1)
    async with EventSubscriber(space, store, waits, max_retries=0) as subscriber:
        await subscriber.caught_up()
        (letter,) = await subscriber.dead_letters()
    assert "CancelledError" in letter.error


async def test_it_is_started_once(space: Space, store: CheckpointStore) -> None:
    seen: list[Change] = []
    await write(space, *range(5))
    subscriber = EventSubscriber(space, store, seen.append)
    outcomes = await asyncio.gather(
        subscriber.start(), subscriber.start(), return_exceptions=True
    )
    await subscriber.caught_up()
    await subscriber.stop()

    assert sum(isinstance(outcome, Invalid) for outcome in outcomes) == 1
    assert len(seen) == 5


async def test_a_store_that_is_away_is_waited_for(
    space: Space, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    real, away = store.transaction, [True] * 3

    def sometimes() -> Any:
        if away:
            away.pop()
            raise StoreFull("no space")
        return real()

    monkeypatch.setattr(store, "transaction", sometimes)
    await write(space, 1, 2)
    subscriber = EventSubscriber(
        space, store, audit, on_error=errors.append, retry_delay=1
    )
    async with subscriber:
        await subscriber.caught_up()

    assert [type(error) for error in errors] == [StoreFull] * 3
    assert await audited(store) == ["1", "2"]


async def test_one_poisoned_event_does_not_repeat_the_others_of_its_batch(
    space: Space, store: CheckpointStore
) -> None:
    handled: list[str] = []

    def fails(events: list[Change]) -> None:
        handled.extend(names(events))
        if "19" in names(events):
            raise ValueError

    await write(space, *range(20))
    subscriber = EventSubscriber(
        space, store, on_batch=fails, poll_interval=1, max_retries=2, retry_delay=0
    )
    async with subscriber:
        await subscriber.caught_up()
    assert max(handled.count(str(number)) for number in range(19)) == 2


KILLED = """
import asyncio, sys
import syncengine
from syncengine import CheckpointStore, EventSubscriber

async def main():
    async with (
        syncengine.open(sys.argv[1]) as replica,
        await CheckpointStore.open(sys.argv[2]) as store,
    ):
        space = await replica.namespace("home")

        async def audit(event, tx):
            await tx.execute("INSERT INTO line VALUES (?)", event.documents[:1])
            print("one", flush=True)

        async with EventSubscriber(space, store, audit, batch_size=7) as subscriber:
            await subscriber.caught_up()
            print("all", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_killed_at_any_time_it_has_done_each_once(
    tmp_path: Path, store: CheckpointStore
) -> None:
    path, wanted = str(tmp_path / "notes.db"), 120
    async with syncengine.open(path) as replica:
        await write(await replica.namespace("home"), *range(wanted))
    for patience in (1, 5, 17, 40, wanted):  # lines that are waited for
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, path, store.path],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        for _ in range(patience):
            if child.stdout.readline().strip() in ("all", ""):
                break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()

    found = await audited(store)
    assert found == [str(number) for number in range(wanted)][: len(found)]
    assert len(found) == wanted


# --- handlers and stores that are misused ---------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize("error", [ValueError("no file \udcff here"), Unspeakable()])
async def test_an_error_that_is_no_text_is_put_aside_too(
    space: Space, store: CheckpointStore, error: Exception
) -> None:
    """As `os.fsdecode` names files; else no event behind it would ever be handled."""
    seen: list[Change] = []

    def handle(event: Change) -> None:
        if event.documents[0] == "page/1":
            raise error
        seen.append(event)

    await write(space, 1, 2)
    async with (
        EventSubscriber(space, store, handle, max_retries=0) as subscriber,
        asyncio.timeout(10),
    ):
        await subscriber.caught_up()
        (letter,) = await subscriber.dead_letters()
    assert letter.error.startswith(type(error).__name__)
    assert names(seen) == ["2"]


async def test_a_checkpoint_by_hand_is_of_this_file(
    space: Space, store: CheckpointStore
) -> None:
    seen: list[Change] = []
    await write(space, 1, 2)
    async with syncengine.open(":memory:") as other:
        strange = await other.namespace("home")
        await write(strange, 1)
        feed = strange.changes()
        event = await anext(feed)
        await feed.aclose()
    async with EventSubscriber(
        space, store, seen.append, checkpoint_mode="manual"
    ) as subscriber:
        await subscriber.caught_up()
        await subscriber.commit(seen[0])
        for wrong in (event, "x"):
            with pytest.raises(Invalid):
                await subscriber.commit(wrong)  # type: ignore[arg-type]
    async with EventSubscriber(space, store, seen.append) as subscriber:
        await subscriber.caught_up()
    assert names(seen) == ["1", "2", "2"]


async def test_a_generator_is_no_handler(space: Space, store: CheckpointStore) -> None:
    async def yields(event: Change) -> AsyncGenerator[None]:
        yield

    with pytest.raises(Invalid, match="generator"):
        EventSubscriber(space, store, yields)
    with pytest.raises(Invalid, match="generator"):
        EventSubscriber(space, store, print, on_error=yields)

    await write(space, 1)

    def hidden(event: Change) -> Any:
        return yields(event)

    async with EventSubscriber(space, store, hidden, max_retries=0) as subscriber:
        await subscriber.caught_up()
        (letter,) = await subscriber.dead_letters()
    assert "nothing was done" in letter.error


async def test_two_of_one_name_do_not_do_things_twice(
    space: Space, store: CheckpointStore
) -> None:
    one, two = (EventSubscriber(space, store, audit) for _ in range(2))
    async with one, two, asyncio.timeout(20):
        for number in range(30):
            await write(space, number)
        outcomes = await asyncio.gather(
            one.caught_up(), two.caught_up(), return_exceptions=True
        )
    ended = [error for error in outcomes if error is not None]
    assert len(ended) == 1
    assert "a name of its own" in str(ended[0])
    assert await audited(store) == [str(n) for n in range(30)]


async def test_who_waits_in_a_handler_or_hangs_in_on_error_holds_up_nobody(
    space: Space, store: CheckpointStore
) -> None:
    told: list[Exception] = []

    async def handle(event: Change) -> None:
        await subscriber.caught_up()

    async def hang(error: Exception, event: Change) -> None:
        told.append(error)
        await asyncio.Event().wait()

    subscriber = EventSubscriber(
        space, store, handle, on_error=hang, max_retries=0, handler_timeout_ms=50
    )
    await write(space, 1)
    async with subscriber, asyncio.timeout(10):
        await subscriber.caught_up()
    assert "wait for itself" in str(told[0])


# --- leaders --------------------------------------------------------------------------


async def test_what_no_majority_has_is_handed_on_once_it_is_known_what_it_did(
    three: Cluster, store: CheckpointStore
) -> None:
    """Also on the leader, which shows it before: a deposed one's last writes are
    handed on as what they are, and again when somebody writes them again."""
    leader = three.nodes[0]
    space, seen = leader._space, list[Change]()
    assert (await leader.write("k", "first")).success
    async with EventSubscriber(space, store, seen.append) as subscriber:
        await subscriber.caught_up()
        assert [event.void for event in seen] == [None]

        await three.part(0)
        ghost = await leader.write("k", "ghost", timeout_ms=200, client_op_id="op")
        assert ghost.status == "unknown"
        await subscriber.caught_up()
        assert len(seen) == 1
        await until(lambda: any(n.get_role() == "leader" for n in three.nodes[1:]))
        (other,) = [n for n in three.leaders if n is not leader]
        assert (await other.write("k", "second")).success
        three.heal()
        await until(lambda: len(seen) >= 3)

        told = {event.operation_id: event.void is None for event in seen}
        assert told == {None: True, "op": False}
        (waiting,) = await other.rescue.list()
        await other.rescue.replay([waiting.id], "write")
        await until(lambda: len(seen) == 4)
        assert (seen[-1].operation_id, seen[-1].void) == ("op", None)
