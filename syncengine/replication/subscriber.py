"""Subscribers: each change of a namespace is handed to a handler, once it is here.

The feed of a namespace (`space.changes`) with a checkpoint that survives restarts, and
with what becomes of an event whose handler fails: it is tried again, later and later,
and then put aside with its error, where somebody can look at it. Only then does the
checkpoint move.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from syncengine import values
from syncengine.errors import Closed, Invalid, NotFound, StoreError
from syncengine.replication import feed
from syncengine.replication.feed import Change
from syncengine.replication.host import sealed
from syncengine.replication.keeper import Keeper
from syncengine.storage.checkpoints import (
    CheckpointStore,
    CheckpointTransaction,
    DeadLetter,
    TransactionLost,
)

if TYPE_CHECKING:
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

CheckpointMode = Literal["auto", "manual", "interval"]
Transaction = CheckpointTransaction | None
_MODES = ("auto", "manual", "interval")

# Each attempt waits twice as long as the one before, up to this: a handler whose
# database is away for a day is tried again when that is back.
RETRY_DELAY_MS_MAX = 60_000

BATCH_MAX = 10_000


@dataclass
class SubscriberMetrics:
    """What a subscriber did since it was made."""

    events_received: int = 0
    events_handled: int = 0
    events_skipped: int = 0
    """Handled before, within the window"""
    retries: int = 0
    dead_letters: int = 0
    checkpoints: int = 0


class EventSubscriber:
    """Hands each change of a namespace to a handler: at least once, in the order of
    this file's log.

        async with EventSubscriber(space, store, on_event=audit) as subscriber:
            await subscriber.caught_up()

    Args:
        namespace: The space whose changes are handed on.
        checkpoint_store: Where it is kept how far that is.
        on_event: Called with each `Change`; or
        on_batch: called with a list of them. Either may be a coroutine function. A
            handler of two arguments, `handle(event, tx)`, is given a
            `CheckpointTransaction` too: what it writes through that is kept with the
            checkpoint or not at all, so each event has its effect once, whatever
            crashes. It goes with the checkpoint mode "auto" alone.
        on_error: Called with (error, event) for each attempt that failed; with the
            error alone where no single event is to blame.
        name: Whose checkpoint it is, among others in the store.
        batch_size: Events of a batch, and of a commit, at most.
        poll_interval: How long a batch waits for more events, in ms.
        checkpoint_mode: "auto": with what was handled; "interval": every
            `checkpoint_interval` ms, and in the end; "manual": by `commit(event)`.
        checkpoint_interval: In ms.
        enable_idempotency: Skip events that were handled within the last
            `idempotency_window_ms`, also before a restart: where checkpoints come
            later, and after `replay`.
        max_retries: How often a failing event is tried again before it is put aside.
        retry_delay: Before the first of these, in ms; then twice as long each time.
        handler_timeout_ms: A handler that takes longer has failed, `on_error` is left.
            None: they may hang.

    Where a namespace has a leader and voters, events are handed on once it is known for
    good what they did: those of a deposed leader have `void`, the reason.

    Raises `Invalid` for what is none of these.
    """

    def __init__(
        self,
        namespace: "Space",
        checkpoint_store: CheckpointStore,
        on_event: Callable[..., Any] | None = None,
        on_batch: Callable[..., Any] | None = None,
        on_error: Callable[..., Any] | None = None,
        *,
        name: str = "subscriber",
        batch_size: int = 100,
        poll_interval: int = 1000,
        checkpoint_mode: CheckpointMode = "auto",
        checkpoint_interval: int = 5000,
        enable_idempotency: bool = False,
        idempotency_window_ms: int = 60_000,
        max_retries: int = 3,
        retry_delay: int = 100,
        handler_timeout_ms: int | None = None,
    ):
        if (on_event is None) == (on_batch is None):
            raise Invalid(
                "give on_event or on_batch: one of them says when an event is done"
            )
        handler = cast(Callable[..., Any], on_event or on_batch)
        for what in (handler, on_error):
            if what is not None and not callable(what):
                raise Invalid(f"{what!r} is no function")
            if inspect.isgeneratorfunction(what) or inspect.isasyncgenfunction(what):
                raise Invalid(
                    f"{what!r} is a generator: calling it does nothing; a handler has "
                    "no yield"
                )
        if checkpoint_mode not in _MODES:
            raise Invalid(
                f"there is no checkpoint mode {checkpoint_mode!r}; there are "
                f"{', '.join(_MODES)}"
            )
        for option, value, least, most in (
            ("batch_size", batch_size, 1, BATCH_MAX),
            ("poll_interval", poll_interval, 0, None),
            ("checkpoint_interval", checkpoint_interval, 1, None),
            ("idempotency_window_ms", idempotency_window_ms, 1, None),
            ("max_retries", max_retries, 0, None),
            ("retry_delay", retry_delay, 0, None),
        ):
            values.check_count(value, option, least=least, most=most)
        if handler_timeout_ms is not None:
            values.check_count(handler_timeout_ms, "handler_timeout_ms")
        if _takes_two(handler) and checkpoint_mode != "auto":
            raise Invalid(
                "what a handler writes through its transaction is kept with the "
                'checkpoint: use the mode "auto", or a handler of one argument',
                path="checkpoint_mode",
            )
        self._space = namespace
        self._store = checkpoint_store
        self._handler = handler
        self._takes_tx = _takes_two(handler)
        self._by_batch = on_batch is not None
        self._on_error = on_error
        self.name = name
        self._batch_size = batch_size
        self._poll = poll_interval / 1000
        self._mode: CheckpointMode = checkpoint_mode
        self._interval = checkpoint_interval / 1000
        self._window = idempotency_window_ms if enable_idempotency else None
        self._max_retries = max_retries
        self._retry_delay = retry_delay / 1000
        self._timeout = None if handler_timeout_ms is None else handler_timeout_ms / 1e3
        self._metrics = SubscriberMetrics()
        self._task: asyncio.Task[None] | None = None
        self._handled: str | None = None
        """The cursor behind the last event that was handled"""
        self._saved: str | None = None
        self._save_due = 0.0
        self._moved = asyncio.Event()
        self._last_error: BaseException | None = None
        self._is_starting = False
        self._in_handler: asyncio.Task[Any] | None = None

    # --- life -----------------------------------------------------------------------

    async def start(self) -> None:
        """Go on behind the checkpoint. Raises `Invalid` when that is of another file
        (or of one before it was restored): `replay` then says where to begin."""
        if self._task is not None or self._is_starting:
            raise Invalid("it is started already")
        self._check_outside()
        self._space.check_usable()
        self._is_starting = True
        try:
            cursor = await self._store.load(self.name)
            feed.checked(self._keeper, cursor)
            self._handled = self._saved = cursor
            self._save_due = self._now() + self._interval
            self._task = asyncio.create_task(self._run())
        finally:
            self._is_starting = False

    async def stop(self) -> None:
        """Hand on no more: what is being handled is cancelled, and comes again. With
        "interval" the checkpoint is written first. Twice does nothing."""
        self._check_outside()
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            return  # it had ended, and said so
        if self._mode == "interval" and self._handled != self._saved:
            await self._save(self._handled)

    async def __aenter__(self) -> "EventSubscriber":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def caught_up(self) -> None:
        """Wait until all that is here was handled or put aside. Raises what ended the
        subscriber, if something did. Safe to cancel."""
        self._check_outside()
        task = self._task
        if task is None:
            raise Closed("the subscriber is not started")
        engine = self._space.engine
        await sealed(engine)
        until = engine.committed_position
        while feed.has_more(engine, self._handled, until):
            self._moved.clear()
            waiting = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if task.done():
                if not task.cancelled():
                    task.result()
                raise Closed("the subscriber was stopped")

    # --- where it is ----------------------------------------------------------------

    @property
    def checkpoint(self) -> str | None:
        """The cursor that is on disk; None: nothing was handled yet."""
        return self._saved

    async def commit(self, event: Change | None = None) -> None:
        """Write the checkpoint behind an event; None: behind the last one handled.
        Raises `Invalid` for an event of another file."""
        if self._takes_tx:
            self._check_outside()
        if event is not None:
            if not isinstance(cast(object, event), Change):
                raise Invalid(f"an event is a Change, not {event!r}")
            feed.checked(self._keeper, event.cursor)
        await self._save(self._handled if event is None else event.cursor)

    async def replay(self, after: str | None = None) -> None:
        """Begin again behind a cursor; None: with the first event of the log. What was
        put aside stays so. Raises `Invalid` for a cursor of another file."""
        feed.checked(self._keeper, after)
        running = self.is_running
        await self.stop()
        await self._save(after)
        self._handled = after
        if running:
            await self.start()

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the events that were put aside, the oldest first."""
        self._check_outside()
        return await self._store.dead_letters(self.name)

    async def retry(self, event: str) -> None:
        """Hand on once more what was put aside, by its id; it is not put aside any more
        when that succeeds. Raises what the handler does, and `NotFound`."""
        await self._letter(event)
        change = feed.find(self._keeper, event)
        async with self._before() as tx:
            if tx is not None and not await tx.is_buried(self.name, event):
                raise NotFound(f"no event {event} is put aside any more")
            await self._call([change], tx)
            async with self._inside(tx) as inside:
                await inside.dig_up(self.name, event)
                if self._window is not None:
                    await inside.note_handled(self.name, event, self._now_ms())

    async def dismiss(self, event: str) -> None:
        """Forget what was put aside, by its id. Raises `NotFound`."""
        await self._letter(event)
        async with self._store.transaction() as tx:
            await tx.dig_up(self.name, event)

    def _check_outside(self) -> None:
        """Raise in a handler: it would wait for itself."""
        if self._in_handler is not None and self._in_handler is asyncio.current_task():
            raise Invalid("a handler cannot do this: it would wait for itself")

    async def _letter(self, event: str) -> None:
        if all(letter.event != event for letter in await self.dead_letters()):
            raise NotFound(f"no event {event} was put aside by {self.name}")

    def get_metrics(self) -> SubscriberMetrics:
        """Return what it did since it was made."""
        metrics = self._metrics
        return SubscriberMetrics(*(getattr(metrics, f.name) for f in fields(metrics)))

    # --- the work -------------------------------------------------------------------

    @property
    def _keeper(self) -> Keeper:
        return self._space.engine.keeper

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _now_ms(self) -> int:
        return self._space.engine.clock.now_ms()

    async def _run(self) -> None:
        changes = feed.changes(self._space, self._handled, decided=True)
        coming: asyncio.Future[Change] | None = None
        try:
            batch: list[Change] = []
            until = 0.0
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(anext(changes))
                    await asyncio.sleep(0)  # what is here already comes at once
                if not coming.done():
                    wait = until - self._now() if batch else self._until_save()
                    timeout = None if wait is None else max(0.0, wait)
                    await asyncio.wait([coming], timeout=timeout)
                if coming.done():
                    try:
                        batch.append(coming.result())
                    except StopAsyncIteration:
                        break
                    finally:
                        coming = None
                    self._metrics.events_received += 1
                    if len(batch) == 1:
                        until = self._now() + (self._poll if self._by_batch else 0)
                if batch and (
                    len(batch) >= self._batch_size
                    or (coming is not None and self._now() >= until)
                ):
                    await self._take(batch)
                    batch = []
                if self._until_save() == 0:
                    await self._save(self._handled)
            if batch:
                await self._take(batch)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("the subscriber %s ended", self.name)
            await self._tell(error)
            raise
        finally:
            if coming is not None:
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await coming
            await changes.aclose()

    def _until_save(self) -> float | None:
        """How long until a checkpoint is due; None: none is."""
        if self._mode != "interval" or self._handled == self._saved:
            return None
        return max(0.0, self._save_due - self._now())

    async def _save(self, cursor: str | None) -> None:
        async with self._store.transaction() as tx:
            await tx.save(self.name, cursor)
        self._noted(cursor)

    def _noted(self, cursor: str | None) -> None:
        self._saved = cursor
        self._save_due = self._now() + self._interval
        self._metrics.checkpoints += 1

    async def _take(self, batch: list[Change]) -> None:
        """Hand on events; each is done or put aside when this returns."""
        waiting = list(batch)
        hand_on = self._as_one if self._by_batch else self._one_by_one
        delay = max(self._retry_delay, 0.001)
        while waiting:
            try:
                try:
                    done = await hand_on(waiting)
                except TransactionLost:
                    # Nothing of them is kept: each in a transaction of its own.
                    done = await self._each(waiting)
                del waiting[:done]
                if waiting:  # the first of these failed
                    await self._again(waiting[0])
                    del waiting[0]
            except StoreError as error:  # a full disk, a lock: no event is to blame
                await self._tell(error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_DELAY_MS_MAX / 1000)

    async def _one_by_one(self, events: list[Change]) -> int:
        """Hand on each, with one commit for all; return how many went well."""
        async with self._before() as tx:
            new = await self._new(events, tx)
            done = 0
            for event in events:
                if event in new and not await self._try([event], tx):
                    break
                done += 1
            await self._finish(events[:done], tx)
        if done:
            self._advance(events[done - 1].cursor)
        return done

    async def _as_one(self, events: list[Change]) -> int:
        """Hand on all at once, or, where that fails, each; return how many went well,
        up to the first that did not."""
        if await self._attempt(events):
            return len(events)
        return 0 if len(events) == 1 else await self._each(events)

    async def _each(self, events: list[Change]) -> int:
        for done, event in enumerate(events):
            if not await self._attempt([event]):
                return done
        return len(events)

    async def _attempt(self, events: list[Change]) -> bool:
        done = False
        try:
            async with self._before() as tx:
                new = await self._new(events, tx)
                done = not new or await self._try(new, tx)
                if done:
                    await self._finish(events, tx)
        except TransactionLost as lost:
            if len(events) > 1:
                raise
            self._last_error, done = lost.__cause__ or lost, False
        if done:
            self._advance(events[-1].cursor)
        return done

    async def _again(self, event: Change) -> None:
        """Try a failed event again, and put it aside in the end."""
        delay = self._retry_delay
        for _ in range(self._max_retries):
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_DELAY_MS_MAX / 1000)
            self._metrics.retries += 1
            if await self._attempt([event]):
                return
        error = self._last_error
        letter = DeadLetter(
            event.id,
            event.cursor,
            _said(error),
            1 + self._max_retries,
            self._now_ms(),
        )
        async with self._store.transaction() as tx:
            await tx.bury(self.name, letter)
            if self._mode == "auto":
                await tx.save(self.name, event.cursor)
        self._metrics.dead_letters += 1
        self._advance(event.cursor)
        log.error("%s put %s aside: %s", self.name, event.id, letter.error)

    def _before(self) -> contextlib.AbstractAsyncContextManager[Transaction]:
        """Begin the transaction that a handler is given; one that takes none runs
        outside of any, for as long as it likes."""
        if self._takes_tx:
            return self._store.transaction()
        return contextlib.nullcontext()

    def _inside(self, tx: Transaction) -> contextlib.AbstractAsyncContextManager[Any]:
        return self._store.transaction() if tx is None else contextlib.nullcontext(tx)

    async def _new(self, events: list[Change], tx: Transaction) -> list[Change]:
        """Return the events that were not handled lately."""
        if self._window is None:
            return events
        async with self._inside(tx) as inside:
            await inside.forget_handled(self.name, self._now_ms() - self._window)
            new = [e for e in events if not await inside.was_handled(self.name, e.id)]
        self._metrics.events_skipped += len(events) - len(new)
        return new

    async def _try(self, events: list[Change], tx: Transaction) -> bool:
        """Hand on events as one; tell whether that went well."""
        culprit = events[0] if len(events) == 1 else None
        try:
            async with contextlib.nullcontext() if tx is None else tx.part():
                await self._call(events, tx)
        except TransactionLost as lost:
            await self._tell(lost, culprit)
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # it is stopped; else the handler waited for what was cancelled
            self._last_error = error
            await self._tell(RuntimeError("what it waited for was cancelled"), culprit)
            return False
        except Exception as error:
            self._last_error = error
            await self._tell(error, culprit)
            return False
        self._metrics.events_handled += len(events)
        return True

    async def _call(self, events: list[Change], tx: Transaction) -> None:
        given: list[Any] = [events if self._by_batch else events[0]]
        if self._takes_tx:
            given.append(tx)
        before, self._in_handler = self._in_handler, asyncio.current_task()
        try:
            answer = self._handler(*given)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(self._timeout):
                    await answer
            elif inspect.isgenerator(answer) or inspect.isasyncgen(answer):
                raise Invalid("the handler returned a generator: nothing was done")
        finally:
            self._in_handler = before

    async def _finish(self, events: list[Change], tx: Transaction) -> None:
        """Keep that events are done, beside what a handler wrote."""
        if not events or (self._window is None and self._mode != "auto"):
            return
        async with self._inside(tx) as inside:
            if tx is not None and await tx.cursor_of(self.name) != self._saved:
                raise _Shared(
                    f"somebody else moved the checkpoint {self.name!r}: each "
                    "subscriber has a name of its own in a store"
                )
            for event in events if self._window is not None else ():
                await inside.note_handled(self.name, event.id, self._now_ms())
            if self._mode == "auto":
                await inside.save(self.name, events[-1].cursor)

    def _advance(self, cursor: str) -> None:
        """All up to a cursor is done; with "auto" the file says so."""
        self._handled = cursor
        self._moved.set()
        if self._mode == "auto":
            self._noted(cursor)

    async def _tell(self, error: Exception, event: Change | None = None) -> None:
        if self._on_error is None:
            return
        try:
            told = self._on_error(error, event) if event else self._on_error(error)
            if inspect.isawaitable(told):
                async with asyncio.timeout(self._timeout):
                    await told
        except Exception:
            log.exception("on_error of %s failed", self.name)


class _Shared(Invalid):
    """Two subscribers have one checkpoint; what this one was about to write is not
    kept."""


def _said(error: BaseException | None) -> str:
    """Return what an error says, as text that can be stored."""
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:
        said = f"{type(error).__name__}, which cannot be shown"
    return said.encode("utf-8", "backslashreplace").decode()


def _takes_two(handler: Callable[..., Any]) -> bool:
    """Whether a handler is to be given a transaction beside what happened."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return False  # a builtin: list.append, say
    by_place = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    found = [p for p in parameters if p.kind in by_place]
    if len(found) < 2:
        return False
    return found[1].default is inspect.Parameter.empty or found[1].name == "tx"
