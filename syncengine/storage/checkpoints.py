"""How far somebody read a feed, in a SQLite file of his own: and in one transaction
with that, whatever he made of what he read.

So a reader that writes only through the transaction it is given has done each event
once, whenever it crashed.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any

import aiosqlite

from syncengine.errors import Closed, NotOurs, StoreError
from syncengine.storage.opening import translate

_SCHEMA = """
CREATE TABLE IF NOT EXISTS _sync_checkpoint (
    subscriber TEXT PRIMARY KEY,
    cursor     TEXT                  -- what is done: NULL, nothing
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _sync_handled (
    subscriber TEXT NOT NULL,
    event      TEXT NOT NULL,
    at         INTEGER NOT NULL,     -- ms
    PRIMARY KEY (subscriber, event)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _sync_dead_letter (
    subscriber TEXT NOT NULL,
    event      TEXT NOT NULL,
    cursor     TEXT NOT NULL,
    error      TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    at         INTEGER NOT NULL,     -- ms
    PRIMARY KEY (subscriber, event)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class DeadLetter:
    """An event that its handler failed at, as often as it was to be tried."""

    event: str
    """Its id, as in `space.history`"""
    cursor: str
    error: str
    """Of the last attempt: its type and text"""
    attempts: int
    at_ms: int
    """When it was given up"""


class TransactionLost(StoreError):
    """A statement took back the whole transaction (by `ON CONFLICT ROLLBACK`, or on a
    full disk): nothing of it is kept."""


class CheckpointTransaction:
    """What a handler writes through: it is kept with the checkpoint, or not at all."""

    def __init__(self, connection: aiosqlite.Connection):
        self._connection = connection
        self._open = True

    async def execute(
        self, sql: str, params: Iterable[Any] = ()
    ) -> list[sqlite3.Row | tuple[Any, ...]]:
        """Run a statement and return its rows. Raises `sqlite3.Error`; `Closed` when
        the handler has ended."""
        if not self._open:
            raise Closed("this transaction has ended with the handler it was given to")
        self.check()
        return list(await self._connection.execute_fetchall(sql, params))

    def check(self) -> None:
        """Raise `TransactionLost` when a statement took it back: what is written now
        would be kept alone."""
        if not self._connection.in_transaction:
            raise TransactionLost(
                "a statement took back the whole transaction; what was written in it "
                "is not kept, and comes again"
            )

    @contextlib.asynccontextmanager
    async def part(self) -> AsyncGenerator[None, None]:
        """Take back what was done inside when that fails, and nothing before."""
        await self.execute("SAVEPOINT part")
        try:
            yield
        except BaseException as error:
            try:
                await asyncio.shield(asyncio.ensure_future(self._undo_part()))
            except TransactionLost as lost:
                raise lost from error
            raise
        await self.execute("RELEASE part")

    async def _undo_part(self) -> None:
        await self.execute("ROLLBACK TO part")
        await self.execute("RELEASE part")

    async def save(self, subscriber: str, cursor: str | None) -> None:
        """Let a subscriber go on behind `cursor`."""
        await self.execute(
            "INSERT OR REPLACE INTO _sync_checkpoint VALUES (?, ?)",
            (subscriber, cursor),
        )

    async def cursor_of(self, subscriber: str) -> str | None:
        """Return the cursor behind which a subscriber goes on; None: at the first."""
        asked = "SELECT cursor FROM _sync_checkpoint WHERE subscriber = ?"
        rows = await self.execute(asked, (subscriber,))
        return rows[0][0] if rows else None

    async def was_handled(self, subscriber: str, event: str) -> bool:
        asked = "SELECT 1 FROM _sync_handled WHERE subscriber = ? AND event = ?"
        return bool(await self.execute(asked, (subscriber, event)))

    async def note_handled(self, subscriber: str, event: str, now_ms: int) -> None:
        await self.execute(
            "INSERT OR REPLACE INTO _sync_handled VALUES (?, ?, ?)",
            (subscriber, event, now_ms),
        )

    async def forget_handled(self, subscriber: str, before_ms: int) -> None:
        await self.execute(
            "DELETE FROM _sync_handled WHERE subscriber = ? AND at < ?",
            (subscriber, before_ms),
        )

    async def bury(self, subscriber: str, letter: DeadLetter) -> None:
        await self.execute(
            "INSERT OR REPLACE INTO _sync_dead_letter VALUES (?, ?, ?, ?, ?, ?)",
            (
                subscriber,
                letter.event,
                letter.cursor,
                letter.error,
                letter.attempts,
                letter.at_ms,
            ),
        )

    async def is_buried(self, subscriber: str, event: str) -> bool:
        asked = "SELECT 1 FROM _sync_dead_letter WHERE subscriber = ? AND event = ?"
        return bool(await self.execute(asked, (subscriber, event)))

    async def dig_up(self, subscriber: str, event: str) -> None:
        """Forget a dead letter."""
        await self.execute(
            "DELETE FROM _sync_dead_letter WHERE subscriber = ? AND event = ?",
            (subscriber, event),
        )

    def end(self) -> None:
        self._open = False


class CheckpointStore:
    """Checkpoints of any number of subscribers in one SQLite file, which may be the
    application's own: `await CheckpointStore.open("audit.db")`. It is not a replica's.

    `transaction()` is for one at a time; others wait.
    """

    def __init__(self, path: str, connection: aiosqlite.Connection):
        self.path = path
        self._connection = connection
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, path: str) -> "CheckpointStore":
        """Open a file, made when absent. Raises `StoreError`, `NotOurs`."""
        try:
            connecting = aiosqlite.connect(path, isolation_level=None)
            # It must not outlive who forgets to close it (`_thread` since 0.22).
            thread: Any = getattr(connecting, "_thread", connecting)
            thread.daemon = True
            connection = await connecting
        except sqlite3.Error as error:
            raise translate(error, path) from error
        try:
            await connection.execute("PRAGMA busy_timeout=5000")
            await connection.execute("PRAGMA journal_mode=WAL")
            await connection.execute("PRAGMA synchronous=FULL")
            found = await connection.execute_fetchall(
                "SELECT 1 FROM sqlite_master WHERE name = '_sync_log'"
            )
            if list(found):
                raise NotOurs(
                    f"{path} is a replica's or a hub's file, which nobody else writes "
                    "to; name another one"
                )
            await connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            await connection.close()
            raise translate(error, path) from error
        except BaseException:
            await connection.close()
            raise
        return cls(path, connection)

    async def __aenter__(self) -> "CheckpointStore":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the file; twice does nothing."""
        async with self._turn:
            if not self._closed:
                self._closed = True
                await self._connection.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[CheckpointTransaction, None]:
        """Do all that is inside, or nothing: an exception takes it back and passes on.

        On this disk when the block was left. Raises `StoreError`, `Closed`. Cancelled
        at its end, it happens or not, as a whole.
        """
        async with self._turn:
            if self._closed:
                raise Closed(f"{self.path} is closed")
            tx = CheckpointTransaction(self._connection)
            try:
                await asyncio.shield(asyncio.ensure_future(self._do("BEGIN IMMEDIATE")))
                yield tx
                tx.end()
                tx.check()
                await asyncio.shield(asyncio.ensure_future(self._do("COMMIT")))
            except BaseException:
                tx.end()
                await asyncio.shield(asyncio.ensure_future(self._roll_back()))
                raise

    async def _do(self, sql: str) -> None:
        try:
            await self._connection.execute(sql)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def _roll_back(self) -> None:
        # Behind whatever the thread was still to do, a BEGIN or a COMMIT say: only then
        # it is known whether there is something to take back.
        try:
            await self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            if "no transaction" not in str(error):
                raise translate(error, self.path) from error

    async def load(self, subscriber: str) -> str | None:
        """Return the cursor behind which a subscriber goes on; None: at the first."""
        rows = await self._read(
            "SELECT cursor FROM _sync_checkpoint WHERE subscriber = ?", subscriber
        )
        return rows[0][0] if rows else None

    async def dead_letters(self, subscriber: str) -> list[DeadLetter]:
        """Return what was given up, the oldest first."""
        return [
            DeadLetter(*row)
            for row in await self._read(
                "SELECT event, cursor, error, attempts, at FROM _sync_dead_letter "
                "WHERE subscriber = ? ORDER BY at, cursor",
                subscriber,
            )
        ]

    async def _read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        async with self._turn:
            if self._closed:
                raise Closed(f"{self.path} is closed")
            try:
                rows = await self._connection.execute_fetchall(sql, params)
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
        return [tuple(row) for row in rows]
