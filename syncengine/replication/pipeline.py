"""A namespace over a pipeline: what this device wrote goes out, what others wrote comes
in.

The log is the outbox: a change is in it with the commit that wrote it, and the emitter
is a cursor along it. What comes in goes the way of what comes over a link. So a
namespace may have links and pipelines at once: a row that comes twice is known already.

Rows are packed: an entry of a pipeline costs a disk write somewhere, a row in it none.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from syncengine import limits, values
from syncengine.errors import (
    Closed,
    Compacted,
    Invalid,
    PipelineError,
    StoreError,
    SyncError,
)
from syncengine.log.batch import Batch
from syncengine.log.run import Row, decode_rows, encode_rows
from syncengine.protocol.messages import Notice
from syncengine.replication.feed import READ_ROWS
from syncengine.replication.host import Bell, sealed
from syncengine.replication.notices import decode_notice, encode_notice
from syncengine.storage.pipeline.contract import ENTRY_BYTES_MAX, Pipeline
from syncengine.storage.pipeline.contract import Entry as Carried
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

if TYPE_CHECKING:
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

Health = Literal["healthy", "degraded"]

# Between two attempts to reach a pipeline that fails, at most.
RETRY_DELAY_MS_MAX = 30_000

# What one entry says besides its rows.
ENVELOPE_BYTES = 64
PIECE_BYTES = ENTRY_BYTES_MAX - ENVELOPE_BYTES

# Packs that wait for something before them, or for their other pieces. A pipeline keeps
# each author's order, so few ever wait; what is beyond this is read again later.
WAITING_MAX = 256

# How often an emitter that has nothing to do looks whether the pipeline still has what
# it acknowledged.
MAKE_SURE_SECONDS = 30.0

# How often what waits is tried again while rows come in another way: each takes the
# checking of a signature.
LOOK_AGAIN_SECONDS = 1.0

# What is wrong with a pipeline that may pass; anything else is a bug, and told.
_PASSING = (PipelineError, StoreError, OSError, TimeoutError)


@dataclass
class EmitterMetrics:
    """What an emitter did since it was made."""

    entries_published: int = 0
    rows_published: int = 0
    bytes_published: int = 0
    duplicates: int = 0
    """Entries that were there already: published before a crash"""
    retries: int = 0


# Notices that wait for a pipeline: the newest say all.
NOTICES_WAITING_MAX = 64


class _Worker:
    """A task beside a namespace, for as long as it is started."""

    def __init__(self, space: "Space", pipeline: Pipeline, name: str, what: str):
        self._space = space
        self._engine = space.engine
        self._pipeline = pipeline
        self._namespace = bytes(space.engine.keeper.namespace)
        self._partition = pipeline.partition_of(self._namespace)
        self._key = f"{what}/{space.engine.ns}/{name}"
        self._task: asyncio.Task[None] | None = None
        self._done = 0
        self._moved = asyncio.Event()
        self.health: Health = "healthy"
        """Whether the pipeline could be reached the last time"""
        self.last_error: Exception | None = None

    async def start(self) -> None:
        """Go on where it was. Raises `Closed` when the replica is."""
        if self._task is not None:
            raise Invalid("it is started already")
        self._space.check_usable()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; it goes on where it was when it is started again. Twice does
        nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # it was logged

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self) -> None:
        try:
            await self._work()
        except Closed:
            self.health = "degraded"
        except Exception as error:
            self.health, self.last_error = "degraded", error
            log.exception("%s ended", self._key)
            raise

    async def _work(self) -> None:
        raise NotImplementedError

    async def _has(self, position: int, name: bytes) -> bool:
        """Whether the pipeline has an entry that it had once: not where it lost its
        tail, or was put back from a backup. What it keeps no more it had."""
        first, last = await self._pipeline.bounds(self._partition)
        if position < first or not position:
            return position <= last
        try:
            found = await self._pipeline.read(self._partition, position - 1, 1)
        except Compacted:
            return True
        return [(entry.position, entry.id) for entry in found] == [(position, name)]

    def _stored(self) -> Any:
        rows = self._engine.keeper.store.read(
            "SELECT value FROM _sync_meta WHERE key = ?", self._key
        )
        if not rows:
            return None
        pipeline, cursor = values.decode(rows[0][0])
        is_ours = pipeline == self._pipeline.id and values.is_list(cursor)
        return cursor if is_ours else None

    async def _store(self, cursor: Any) -> None:
        writes = Writes()
        told = values.encode([self._pipeline.id, cursor])
        writes.add(sql.PUT_META, self._key, told)
        await self._engine.keeper.store.commit(writes)

    def _failed(self, error: Exception) -> None:
        if self.health == "healthy":
            log.warning("%s: the pipeline cannot be reached: %s", self._key, error)
        self.health, self.last_error = "degraded", error

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until something is so, or this has ended."""
        task = self._task
        if task is None:
            raise Closed("it is not started")
        while not done():
            self._moved.clear()
            waiting = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if task.done() and not done():
                if not task.cancelled():
                    task.result()
                raise Closed("it was stopped")


class PipelineEmitter(_Worker):
    """Publishes what this device writes in a namespace, in order, for ever again until
    the pipeline has it.

        async with PipelineEmitter(space, pipeline) as emitter:
            ...
            await emitter.drained()

    Args:
        space: Whose log goes out.
        pipeline: Where to.
        name: Of the cursor, kept in the replica's file: one for each pipeline.
        batch_size: Rows of an entry, at most.
        batch_bytes: Bytes of an entry, about; larger changes go in several.
        flush_interval_ms: How long an entry waits for more rows.
        retry_delay: After a failure, in ms; twice as long each time, up to half a
            minute.
        max_pending: Rows that wait until `room` makes writers wait.
        bridge: Also publish what others wrote and came here by a link.
    """

    def __init__(
        self,
        space: "Space",
        pipeline: Pipeline,
        *,
        name: str = "pipeline",
        batch_size: int = 100,
        batch_bytes: int = 256 * 1024,
        flush_interval_ms: int = 10,
        retry_delay: int = 100,
        max_pending: int = 10_000,
        bridge: bool = False,
    ):
        for option, value, least in (
            ("batch_size", batch_size, 1),
            ("batch_bytes", batch_bytes, 1),
            ("flush_interval_ms", flush_interval_ms, 0),
            ("retry_delay", retry_delay, 1),
            ("max_pending", max_pending, 1),
        ):
            values.check_count(value, option, least=least)
        super().__init__(space, pipeline, name, "emitter")
        self._batch_size, self._batch_bytes = batch_size, batch_bytes
        self._flush = flush_interval_ms / 1000
        self._retry_delay = retry_delay / 1000
        self._max_pending = max_pending
        self._bridge = bridge
        self._metrics = EmitterMetrics()
        self._bell = Bell()
        self._last = 0, b""
        """The position and the id of the newest entry that was acknowledged"""
        self._is_sure = False
        """Whether the pipeline was seen to have that one, since it failed last"""
        self._is_asked = False
        """Whether somebody waits for it to be looked"""

    @property
    def pending(self) -> int:
        """How many rows of the log wait to go out, others' among them."""
        return max(0, self._engine.committed_position - self._done)

    def get_metrics(self) -> EmitterMetrics:
        return EmitterMetrics(**vars(self._metrics))

    async def drained(self) -> None:
        """Wait until the pipeline has all that is here now; for ever while it cannot
        be reached. Safe to cancel. Raises `Closed` when it is stopped."""
        await sealed(self._engine)
        while self._engine.outbox:  # not let in yet: it can go nowhere before
            await self._engine.progress.wait()
            self._space.check_usable()
            await sealed(self._engine)
        until = self._engine.committed_position
        self._is_asked = True
        self._bell.set()
        await self._until(lambda: not self._is_asked and self._done >= until)

    async def room(self) -> None:
        """Wait until less than `max_pending` rows wait. Safe to cancel."""
        await self._until(lambda: self.pending < self._max_pending)

    async def _work(self) -> None:
        engine, bell = self._engine, self._bell
        self._done, self._last = self._where()
        self._moved.set()
        engine.log_grew.listen(bell.set)
        engine.on_stopped.append(bell.set)
        engine.feeds += 1
        try:
            engine.seal_now(ahead=True)
            while True:
                self._space.check_usable()
                if self._is_asked or not self._is_sure:
                    await self._make_sure()
                rows = self._rows()
                if not rows:
                    try:
                        async with asyncio.timeout(MAKE_SURE_SECONDS):
                            await bell.heard()
                    except TimeoutError:
                        self._is_sure = False
                    continue
                if len(rows) < self._batch_size and self._flush:
                    await asyncio.sleep(self._flush)
                    rows = self._rows()
                for last, pack in self._packs(rows):
                    await self._publish(pack)
                    if not self._is_sure:
                        break  # it failed meanwhile: first what it has is looked at
                    self._done = last
                    chain = engine.keeper.chain_at(last) or b""
                    await self._store([last, chain, *self._last])
                    self._moved.set()
        finally:
            engine.feeds -= 1
            engine.on_stopped.remove(bell.set)
            engine.log_grew.unlisten(bell.set)

    def _where(self) -> tuple[int, tuple[int, bytes]]:
        """Return (up to where the log is out, the newest entry that is); nothing after
        it was restored, and for another pipeline."""
        position, chain, *last = self._stored() or (0, b"")
        if len(last) < 2 or self._engine.keeper.chain_at(position) != chain:
            return 0, (0, b"")
        return position, (last[0], last[1])

    async def _make_sure(self) -> None:
        """Look whether the pipeline has what it acknowledged. One that lost its tail,
        or began anew, gets all that is here again: what it has it knows by its id."""
        delay, has = self._retry_delay, None
        while has is None:
            try:
                has = await self._has(*self._last)
            except _PASSING as error:
                self._failed(error)
                self._metrics.retries += 1
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_DELAY_MS_MAX / 1000)
        self.health, self.last_error = "healthy", None
        if not has or (self._done and self._stored() is None):
            log.warning("%s: the pipeline lost what it had: all again", self._key)
            self._partition = self._pipeline.partition_of(self._namespace)
            self._done, self._last = 0, (0, b"")
        self._is_sure, self._is_asked = True, False
        self._moved.set()

    def _rows(self) -> list[tuple[int, Row]]:
        """Return what comes next: to the end of a run, that a signature binds."""
        engine, count = self._engine, max(self._batch_size, READ_ROWS)
        rows = engine.keeper.rows_after(self._done, count)
        rows = [(at, row) for at, row in rows if at <= engine.committed_position]
        while rows and isinstance(rows[-1][1], Batch) and not rows[-1][1].signature:
            rows.pop()
        return rows

    def _packs(self, rows: list[tuple[int, Row]]) -> Iterator[tuple[int, list[Row]]]:
        """Yield (position, the rows up to there that are to go out)."""
        pack: list[Row] = []
        size, last = 0, self._done
        for position, row in rows:
            last = position
            if self._goes_out(row):
                pack.append(row)
                size += len(row.payload if isinstance(row, Batch) else row.body)
            full = len(pack) >= self._batch_size or size >= self._batch_bytes
            if full and not (isinstance(row, Batch) and not row.signature):
                yield last, pack
                pack, size = [], 0
        if last > self._done or pack:
            yield last, pack

    def _goes_out(self, row: Row) -> bool:
        if self._bridge or not isinstance(row, Batch):
            return True
        actors = self._engine.keeper.membership.actors
        return actors.get(row.header.actor) == self._engine.key.public

    async def _publish(self, pack: list[Row]) -> None:
        if not pack:
            return
        body = encode_rows(pack)
        name = hashlib.blake2b(body, digest_size=16).digest()
        count = -(-len(body) // PIECE_BYTES)
        for index in range(count):
            piece = body[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]
            entry = name + index.to_bytes(4, "big")
            await self._until_there(entry, values.encode([name, index, count, piece]))
        self._metrics.rows_published += len(pack)

    async def _until_there(self, name: bytes, payload: bytes) -> None:
        delay = self._retry_delay
        while True:
            try:
                ack = await self._pipeline.publish(
                    self._partition, self._namespace, name, payload
                )
            except _PASSING as error:
                self._failed(error)
                self._is_sure = False
                self._metrics.retries += 1
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_DELAY_MS_MAX / 1000)
                continue
            self.health, self.last_error = "healthy", None
            if ack.position > self._last[0]:
                self._last = ack.position, name
            elif not ack.duplicate:
                self._is_sure = False  # it counts from further back
            self._metrics.entries_published += 1
            self._metrics.bytes_published += len(payload)
            self._metrics.duplicates += ack.duplicate
            return


class _Again(Exception):
    """What was dropped may fit in now: read it again."""


@dataclass
class _Pack:
    """Rows on their way in, of which some pieces are here."""

    since: int
    """The position before its first entry"""
    count: int
    pieces: dict[int, bytes] = field(default_factory=dict[int, bytes])


class PipelineReceiver(_Worker):
    """Takes in what others published of a namespace; it goes on behind what was taken
    in when it is started again.

    Rows are checked as those of a link are: the pipeline is trusted with nothing but
    delivery.
    """

    def __init__(
        self,
        space: "Space",
        pipeline: Pipeline,
        *,
        name: str = "pipeline",
        waiting_max: int = WAITING_MAX,
    ):
        super().__init__(space, pipeline, name, "receiver")
        self._waiting_max = waiting_max
        self._partial: dict[bytes, _Pack] = {}
        self._waiting: list[tuple[int, list[Row]]] = []
        self._turn = asyncio.Lock()  # of who takes in what waits
        self._evicted: int | None = None
        self._id: bytes | None = None
        self.gaps = 0
        """How often what it was to read was not kept any more"""
        self.refused = 0
        """Rows that were not taken in, and wait for nothing: forged, or not allowed"""

    @property
    def waiting(self) -> int:
        """How many packs wait for something before them, or for their other
        pieces."""
        return len(self._waiting) + len(self._partial)

    async def caught_up(self) -> None:
        """Wait until all that the pipeline has now was read. Safe to cancel."""
        _, last = await self._pipeline.bounds(self._partition)
        await self._until(lambda: self._done >= last)

    async def _work(self) -> None:
        looking = asyncio.create_task(self._look_again())
        try:
            await self._follow()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_again(self) -> None:
        """Take in what waits when what it waits for came in another way."""
        grew = Bell()
        self._engine.log_grew.listen(grew.set)
        try:
            while True:
                await grew.heard()
                async with self._turn:
                    # The next entry comes upon whatever is raised here.
                    with contextlib.suppress(StoreError, _Again):
                        await self._take_waiting()
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        finally:
            self._engine.log_grew.unlisten(grew.set)

    async def _follow(self) -> None:
        delay = 0.1
        while True:
            # What waited is read again.
            async with self._turn:
                self._partial.clear()
                self._waiting.clear()
                self._evicted = None
            try:
                done = await self._where()
                following = self._pipeline.follow(self._partition, done)
                async with contextlib.aclosing(following):
                    async for entry in following:
                        self.health, self.last_error, delay = "healthy", None, 0.1
                        await self._take(entry)
                        done = entry.position
                return  # the pipeline was closed
            except _Again:
                continue
            except Compacted as error:
                # What is gone comes by a link, or with what its author writes next.
                log.warning("%s: %s", self._key, error)
                self.gaps += 1
                await self._store([error.first - 1, 0, b""])
            except _PASSING as error:
                self._failed(error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_DELAY_MS_MAX / 1000)

    async def _where(self) -> int:
        """Return up to where the pipeline was taken in: nothing of one that lost its
        tail, or began anew, since it may count from further back."""
        await self._pipeline.bounds(self._partition)  # also: is it the same one?
        stored, id_, self._id = self._stored(), self._id, self._pipeline.id
        done, position, name = stored or (0, 0, b"")
        if id_ not in (None, self._id) or not await self._has(position, name):
            log.warning("%s: the pipeline lost what it had: read again", self._key)
            self._partition = self._pipeline.partition_of(self._namespace)
            done = self._done = 0
        self._done = max(self._done, done)
        self._moved.set()
        return int(done)

    async def _take(self, entry: Carried) -> None:
        self._space.check_usable()
        if entry.namespace == self._namespace:
            body, since = self._assembled(entry)
            if body is not None:
                try:
                    rows = decode_rows(self._engine.keeper.namespace, body)
                except ValueError:
                    log.warning("%s: what is at %d is no rows", self._key, since + 1)
                    self.refused += 1
                else:
                    await self._take_in(since, rows)
            # What waits is read again after a restart.
            held = [p.since for p in self._partial.values()]
            held += [at for at, _ in self._waiting]
            held += [] if self._evicted is None else [self._evicted]
            held_from = min(held, default=entry.position)
            await self._store([held_from, entry.position, entry.id])
        self._done = entry.position
        self._moved.set()

    def _assembled(self, entry: Carried) -> tuple[bytes | None, int]:
        """Return (a pack whose last piece this is, the position before its first)."""
        since = entry.position - 1
        parts: list[Any] = [None] * 4
        with contextlib.suppress(*values.DECODE_ERRORS, TypeError):
            parts = values.decode(entry.payload)
        if not values.is_list(parts) or len(parts) != 4:
            parts = [None] * 4
        name, index, count, piece = parts
        known = self._partial.get(name) if type(name) is bytes else None
        if not (
            (type(name), type(index), type(count), type(piece))
            == (bytes, int, int, bytes)
            and len(name) == 16
            and 0 <= index < count
            and count * PIECE_BYTES <= limits.MESSAGE_BYTES_MAX + PIECE_BYTES
            and (known is None or known.count == count)
        ):
            log.warning("%s: what is at %d is no pack", self._key, entry.position)
            self.refused += 1
            return None, since
        if count == 1:
            return piece, since
        pack = self._partial.setdefault(name, _Pack(since, count))
        pack.pieces[index] = piece
        if len(pack.pieces) < pack.count:
            if len(self._partial) > self._waiting_max:
                oldest = min(self._partial, key=lambda n: self._partial[n].since)
                self._evict(self._partial.pop(oldest).since)
            return None, since
        del self._partial[name]
        return b"".join(pack.pieces[n] for n in range(count)), pack.since

    async def _take_in(self, since: int, rows: list[Row]) -> None:
        """Take in rows, and then what waited for them."""
        async with self._turn:
            self._waiting.append((since, rows))
            await self._take_waiting()
            await self._engine.flush()
            if len(self._waiting) > self._waiting_max:
                self._evict(self._waiting.pop(0)[0])

    async def _take_waiting(self) -> None:
        moved = True
        while moved and self._waiting:
            moved = False
            for item in list(self._waiting):
                try:
                    admission = await self._engine.take_in(item[1])
                except SyncError as error:
                    self._space.check_usable()
                    raise StoreError(f"it comes in again: {error}") from error
                moved = moved or bool(admission.stored)
                if admission.stored and self._evicted is not None:
                    raise _Again
                if not admission.missing:
                    self._waiting.remove(item)
                    self.refused += len(admission.refused)

    def _evict(self, since: int) -> None:
        """Drop what waits: it is read again after a restart, or when that is due."""
        self._evicted = since if self._evicted is None else min(since, self._evicted)


class NoticeCarrier(_Worker):
    """Takes notices between members over a pipeline, beside the rows: heartbeats, where
    no link does. They are told, and no entries: nobody wants them later.
    """

    def __init__(self, space: "Space", pipeline: Pipeline, *, name: str = "pipeline"):
        super().__init__(space, pipeline, name, "notices")
        self._waiting: deque[Notice] = deque(maxlen=NOTICES_WAITING_MAX)
        self._bell = Bell()

    def _carry(self, notice: Notice) -> None:
        self._waiting.append(notice)
        self._bell.set()

    async def _work(self) -> None:
        notices = self._engine.notices
        notices.carriers.append(self._carry)
        hearing = asyncio.create_task(self._hear())
        try:
            while True:
                await self._bell.heard()
                while self._waiting:
                    notice = encode_notice(self._waiting.popleft())
                    try:
                        await self._pipeline.tell(
                            self._partition, self._namespace, notice
                        )
                        self.health, self.last_error = "healthy", None
                    except _PASSING as error:  # the next one says more
                        self._failed(error)
        finally:
            notices.carriers.remove(self._carry)
            hearing.cancel()
            await asyncio.wait([hearing])

    async def _hear(self) -> None:
        while True:
            try:
                listening = self._pipeline.listen(self._partition)
                async with contextlib.aclosing(listening):
                    async for namespace, told in listening:
                        if namespace == self._namespace:
                            with contextlib.suppress(ValueError):
                                self._engine.notices.hear(decode_notice(told))
                return
            except _PASSING as error:
                self._failed(error)
                await asyncio.sleep(1)
