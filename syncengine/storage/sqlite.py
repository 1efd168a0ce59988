"""The store on aiosqlite: one writer connection in its own thread, and a reader.

Only `commit` writes, and it is called by one task; so a cancelled caller can neither
half-apply a transaction nor leave one open. Reads go through a second, `query_only`
connection in the loop's own thread: a point read costs less than a thread hop.
"""

import asyncio
import sqlite3
from typing import Any

import aiosqlite

from syncengine.errors import Closed
from syncengine.storage.opening import (
    MEMORY,
    mark_backup,
    prepare,
    quoted,
    refuse_foreign,
    translate,
)
from syncengine.storage.query import Guarded, TakesLong
from syncengine.storage.store import QueryParams, Views, Writes

# Pages in the write-ahead log before the writer copies them back. Larger groups
# cost fewer fsyncs; 4,000 pages are 16 MB of log beside the file.
CHECKPOINT_PAGES = 4_000

# A query that takes more steps of SQLite's machine (about 1 ms) goes on in a thread.
STEPS_INLINE = 50_000


class SqliteStore:
    """A store for an asyncio program. Open with `await SqliteStore.open(path)`."""

    def __init__(
        self, path: str, writer: aiosqlite.Connection, reader: sqlite3.Connection
    ):
        self.path = path
        self._writer = writer
        self._reader = reader
        self._busy = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._guarded: Guarded | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: str) -> "SqliteStore":
        """Open or create the file; raises `NotOurs`, `NewerFormat`, `StoreError`."""
        assert path != MEMORY, "an in-memory replica uses the inline store"
        create = refuse_foreign(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                prepare(connection, path, create=create)
            finally:
                connection.close()
            connecting = aiosqlite.connect(path, isolation_level="IMMEDIATE")
            # A program that ends without closing us must be able to end. Before
            # aiosqlite 0.22 the connection was its own thread.
            thread: Any = getattr(connecting, "_thread", connecting)
            thread.daemon = True
            writer = await connecting
        except sqlite3.Error as error:
            raise translate(error, path) from error
        try:
            await writer.execute("PRAGMA synchronous=FULL")
            await writer.execute("PRAGMA foreign_keys=ON")
            await writer.execute("PRAGMA trusted_schema=OFF")
            await writer.execute("PRAGMA busy_timeout=5000")
            await writer.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            # Used by one thread at a time: see `syncengine.blocking`.
            reader = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            reader.execute("PRAGMA query_only=ON")
            reader.execute("PRAGMA busy_timeout=5000")
        except sqlite3.Error as error:
            await writer.close()
            raise translate(error, path) from error
        return cls(path, writer, reader)

    def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        if self._closed:
            raise Closed(f"{self.path} is closed")
        try:
            return self._reader.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def commit(self, writes: Writes) -> None:
        # Shielded: a commit that has begun ends, whatever becomes of who asked.
        task = asyncio.ensure_future(self._commit(writes))
        await asyncio.shield(task)

    async def _commit(self, writes: Writes) -> None:
        async with self._busy:
            if self._closed:
                raise Closed(f"{self.path} is closed")
            writer = self._writer
            try:
                if writes.definitions:
                    # These begin no transaction by themselves.
                    await writer.execute("BEGIN IMMEDIATE")
                    for statement in writes.definitions:
                        await writer.execute(statement)
                # All on their way at once: the thread is waited for twice, not at each.
                # The first that writes begins the transaction (`isolation_level`), so
                # what follows one that failed is never committed by itself.
                done = await asyncio.gather(
                    *(writer.executemany(sql, rows) for sql, rows in writes.items()),
                    return_exceptions=True,
                )
                for outcome in done:
                    if isinstance(outcome, BaseException):
                        raise outcome
                await writer.commit()
            except BaseException as error:
                # Whatever it was: what is open now is not the next commit's.
                if writer.in_transaction:
                    await writer.rollback()
                if isinstance(error, sqlite3.Error):
                    raise translate(error, self.path) from error
                raise

    async def query(
        self, views: Views, sql: str, params: QueryParams
    ) -> list[sqlite3.Row]:
        async with self._asking:
            if self._closed:
                raise Closed(f"{self.path} is closed")
            if self._guarded is None or self._guarded.views is not views:
                if self._guarded is not None:
                    self._guarded.connection.close()
                self._guarded = Guarded(self._connect_reader(), views)
            try:
                return self._guarded.rows(sql, params, steps=STEPS_INLINE)
            except TakesLong:
                return await self._in_thread(self._guarded, sql, params)

    def _connect_reader(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quoted(self.path)}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    async def _in_thread(
        self, guarded: Guarded, sql: str, params: QueryParams
    ) -> list[sqlite3.Row]:
        running = asyncio.ensure_future(asyncio.to_thread(guarded.rows, sql, params))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            guarded.stop()
            await asyncio.wait([running])
            running.exception()  # seen: it was stopped
            guarded.stop(stopped=self._closed)
            raise

    async def backup(self, path: str) -> None:
        # Shielded: a copy that is there says that it is one.
        await asyncio.shield(asyncio.ensure_future(self._back_up(path)))

    async def _back_up(self, path: str) -> None:
        async with self._busy:
            try:
                await self._writer.execute("VACUUM INTO ?", (path,))
                await asyncio.to_thread(mark_backup, path)
            except sqlite3.Error as error:
                raise translate(error, path) from error

    async def close(self) -> None:
        async with self._busy:
            if self._closed:
                return
            self._closed = True
            if self._guarded is not None:
                self._guarded.stop()
                async with self._asking:
                    self._guarded.connection.close()
            self._reader.close()
            await self._writer.close()
