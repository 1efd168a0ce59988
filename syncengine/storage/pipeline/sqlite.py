"""A pipeline in a SQLite file, for the processes of one machine.

Who publishes waits for the disk; all who wait at once share a commit. Processes that
follow ask a counter of SQLite's whether others wrote.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import Any

from syncengine import limits
from syncengine.errors import (
    Closed,
    Compacted,
    Fenced,
    Invalid,
    NotOurs,
    OutcomeUnknown,
    PositionConflict,
    SyncError,
)
from syncengine.ids import check_partitions
from syncengine.storage.opening import MEMORY, translate
from syncengine.storage.pipeline.contract import (
    NAME_BYTES_MAX,
    TOLD_WAITING_MAX,
    Ack,
    Entry,
    Pipeline,
    Token,
    owner_name,
)
from syncengine.system import SystemEntropy

APPLICATION_ID = 0x53796E70  # "Synp", in the file's header

# How often others' entries are looked for: what a follower adds to their way.
POLL_SECONDS = 0.02

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE partition (
    partition INTEGER PRIMARY KEY,
    first     INTEGER NOT NULL,      -- the first position that is kept
    last      INTEGER NOT NULL,      -- the last that was given
    epoch     INTEGER NOT NULL       -- how often it was taken
);
CREATE TABLE entry (
    partition INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    namespace BLOB NOT NULL,         -- empty: somebody took the partition
    id        BLOB NOT NULL,
    epoch     INTEGER NOT NULL,
    payload   BLOB NOT NULL,
    PRIMARY KEY (partition, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_id ON entry (partition, id);
CREATE INDEX entry_namespace ON entry (partition, namespace, position);
CREATE TABLE last_of (
    partition INTEGER NOT NULL,
    namespace BLOB NOT NULL,
    position  INTEGER NOT NULL,
    PRIMARY KEY (partition, namespace)
) WITHOUT ROWID;
"""

# What is told passes through here; AUTOINCREMENT: a number never comes back.
_TOLD = """
CREATE TABLE IF NOT EXISTS told (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL,
    namespace BLOB NOT NULL,
    payload   BLOB NOT NULL
)
"""

_Work = Callable[[sqlite3.Connection], Any]


class SqlitePipeline(Pipeline):
    """A pipeline in a file: `async with await SqlitePipeline.open("events.db")`."""

    def __init__(self, path: str, partitions: int, id: bytes):
        self.path = path
        self.partitions = partitions
        self.id = id
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self._reading = asyncio.Lock()
        self._waiting: list[tuple[_Work, asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._grew = asyncio.Condition()
        self._telling: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, path: str, *, partitions: int = limits.PARTITIONS
    ) -> "SqlitePipeline":
        """Open a file, made with so many partitions when absent: an existing one keeps
        its own. Raises `StoreError`, `NotOurs`, `Invalid`."""
        check_partitions(partitions)
        if path == MEMORY:
            raise Invalid("a pipeline in memory is a MemoryPipeline")
        try:
            count, id_ = await asyncio.to_thread(_prepare, path, partitions)
            return cls(path, count, id_)
        except sqlite3.Error as error:
            raise translate(error, path) from error

    async def publish(
        self,
        partition: int,
        namespace: bytes,
        id: bytes,
        payload: bytes,
        *,
        expect: int | None = None,
        token: Token | None = None,
    ) -> Ack:
        self.check_entry(partition, namespace, id, payload, expect, token)

        def work(connection: sqlite3.Connection) -> Ack:
            known = connection.execute(
                "SELECT position FROM entry WHERE partition = ? AND id = ?",
                (partition, id),
            ).fetchone()
            if known is not None:
                return Ack(known[0], duplicate=True)
            if expect is not None:
                found = connection.execute(
                    "SELECT position FROM last_of WHERE partition = ? "
                    "AND namespace = ?",
                    (partition, namespace),
                ).fetchone()
                last = found[0] if found else 0
                if last != expect:
                    raise PositionConflict(expect, last)
            if token is not None:
                epoch = _partition(connection, partition)[2]
                if epoch != token.epoch:
                    raise Fenced(token.epoch, epoch)
            epoch = 0 if token is None else token.epoch
            position = _append(connection, partition, namespace, id, epoch, payload)
            return Ack(position, duplicate=False)

        ack: Ack = await self._write(work)
        return ack

    async def take(self, partition: int, owner: str) -> Token:
        self.check_partition(partition)
        name = owner_name(owner)

        def work(connection: sqlite3.Connection) -> Token:
            epoch = _partition(connection, partition)[2] + 1
            connection.execute(
                "UPDATE partition SET epoch = ? WHERE partition = ?", (epoch, partition)
            )
            fence = b"\0" * NAME_BYTES_MAX + b"%d" % epoch  # longer than anybody's
            position = _append(connection, partition, b"", fence, epoch, name)
            return Token(partition, epoch, position)

        token: Token = await self._write(work)
        return token

    async def truncate(self, partition: int, before: int) -> None:
        self.check_partition(partition)

        def work(connection: sqlite3.Connection) -> None:
            first, last, _ = _partition(connection, partition)
            stop = min(before, last + 1)
            connection.execute(
                "DELETE FROM entry WHERE partition = ? AND position < ?",
                (partition, stop),
            )
            connection.execute(
                "UPDATE partition SET first = ? WHERE partition = ?",
                (max(first, stop), partition),
            )

        await self._write(work)

    async def read(
        self,
        partition: int,
        after: int = 0,
        limit: int = 1000,
        namespace: bytes | None = None,
    ) -> list[Entry]:
        self.check_read(partition, after, limit, namespace)

        def work(connection: sqlite3.Connection) -> list[Entry]:
            first, _, _ = _partition(connection, partition)
            if after + 1 < first:
                raise Compacted(first)
            of: str = ""
            given: list[Any] = [partition, after]
            if namespace is not None:
                of, given = "AND namespace = ? ", [partition, after, namespace]
            rows = connection.execute(
                "SELECT position, namespace, id, epoch, payload FROM entry "
                f"WHERE partition = ? AND position > ? {of}ORDER BY position LIMIT ?",
                (*given, limit),
            )
            return [Entry(*row) for row in rows]

        entries: list[Entry] = await self._read(work)
        return entries

    async def bounds(self, partition: int) -> tuple[int, int]:
        self.check_partition(partition)
        first, last, _ = await self._read(lambda c: _partition(c, partition))
        return first, last

    async def follow(
        self, partition: int, after: int = 0
    ) -> AsyncGenerator[Entry, None]:
        self.check_read(partition, after)
        while not self._closed:
            version = await self._version()
            try:
                entries = await self.read(partition, after)
            except Closed:
                return
            for entry in entries:
                yield entry
                after = entry.position
            if not entries:
                await self._news(version)

    async def tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        self.check_told(partition, namespace, payload)
        await self._in_thread(self._tell, partition, namespace, payload)
        async with self._grew:
            self._grew.notify_all()

    def _tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        """Write it where other processes see it: without waiting for the disk, and
        only the newest stay."""
        if self._telling is None:
            self._telling = _connect(self.path)
            self._telling.execute("PRAGMA synchronous=OFF")
        with contextlib.closing(self._telling.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute(
                "INSERT INTO told (partition, namespace, payload) VALUES (?, ?, ?)",
                (partition, namespace, payload),
            )
            cursor.execute(
                "DELETE FROM told WHERE number <= ?",
                ((cursor.lastrowid or 0) - TOLD_WAITING_MAX,),
            )
            cursor.execute("COMMIT")

    async def listen(self, partition: int) -> AsyncGenerator[tuple[bytes, bytes], None]:
        self.check_partition(partition)

        def newest(connection: sqlite3.Connection) -> int:
            ((number,),) = connection.execute("SELECT max(number) FROM told").fetchall()
            return number or 0

        def work(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(
                "SELECT number, namespace, payload FROM told "
                "WHERE number > ? AND partition = ? ORDER BY number",
                (heard, partition),
            ).fetchall()

        heard = await self._read(newest)
        while not self._closed:
            version = await self._version()
            try:
                told: list[tuple[int, bytes, bytes]] = await self._read(work)
            except Closed:
                return
            for number, namespace, payload in told:
                heard = number
                yield namespace, payload
            if not told:
                await self._news(version)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._committing is not None:
            await asyncio.wait([self._committing])
        async with self._reading:
            self._reader.close()
            self._writer.close()
            if self._telling is not None:
                self._telling.close()
        async with self._grew:
            self._grew.notify_all()

    # --- the file -------------------------------------------------------------------

    async def _news(self, version: int) -> None:
        """Wait until something was written since `version`, here or elsewhere."""
        while await self._version() == version:
            async with self._grew:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._grew.wait()

    async def _version(self) -> int:
        """Return what changes whenever another process, or connection, writes."""
        async with self._reading:
            if self._closed:
                return -1
            # It reads a counter in shared memory: no thread is worth that.
            ((version,),) = self._reader.execute("PRAGMA data_version").fetchall()
            return int(version)

    async def _read(self, work: _Work) -> Any:
        return await self._in_thread(self._asked, work)

    async def _in_thread(self, do: Callable[..., Any], *given: Any) -> Any:
        """Do something with a connection that is no commit of entries."""
        async with self._reading:
            self._check_open()
            try:
                # Shielded: the connection is the thread's until it has ended.
                running = asyncio.ensure_future(asyncio.to_thread(do, *given))
                try:
                    return await asyncio.shield(running)
                except asyncio.CancelledError:
                    while not running.done():
                        with contextlib.suppress(asyncio.CancelledError):
                            await asyncio.wait([running])
                    running.exception()
                    raise
            except sqlite3.Error as error:
                raise translate(error, self.path) from error

    def _asked(self, work: _Work) -> Any:
        self._reader.execute("BEGIN")
        try:
            return work(self._reader)
        finally:
            self._reader.execute("COMMIT")

    async def _write(self, work: _Work) -> Any:
        """Do something in the next commit; return what it returns, once on disk."""
        self._check_open()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all())
        return await done

    async def _commit_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            outcomes: list[Any]
            try:
                outcomes = await asyncio.to_thread(
                    self._commit, [work for work, _ in group]
                )
            except Exception as error:
                outcomes = [error] * len(group)
            for (_, done), outcome in zip(group, outcomes, strict=True):
                if done.done():
                    continue  # who asked was cancelled
                if isinstance(outcome, Exception):
                    done.set_exception(outcome)
                else:
                    done.set_result(outcome)
            async with self._grew:
                self._grew.notify_all()

    def _commit(self, group: list[_Work]) -> list[Any]:
        """Do all in one transaction; return what came of each. What is refused had no
        effect, and does not hinder the others."""
        outcomes: list[Any] = []
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work in group:
                try:
                    outcomes.append(work(connection))
                except SyncError as refused:
                    outcomes.append(refused)
        except sqlite3.Error as error:
            self._roll_back()
            failed = translate(error, self.path)
            return [failed] * len(group)
        except BaseException:
            self._roll_back()
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            unknown = OutcomeUnknown(
                f"the commit failed ({error}); publish it again, with the same id"
            )
            return [
                outcome if isinstance(outcome, SyncError) else unknown
                for outcome in outcomes
            ]
        return outcomes

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.path} is closed")


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _prepare(path: str, partitions: int) -> tuple[int, bytes]:
    """Make the file when it is absent; return how many partitions it has, and its
    id."""
    connection = _connect(path)
    try:
        ((application,),) = connection.execute("PRAGMA application_id")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
        if application != APPLICATION_ID and (application or tables):
            raise NotOurs(f"{path} is a file of another kind; name another one")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been faster.
            ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
            if not tables:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO meta VALUES ('partitions', ?)", (partitions,)
                )
                connection.execute(
                    "INSERT INTO meta VALUES ('id', ?)", (SystemEntropy().bytes(16),)
                )
                connection.executemany(
                    "INSERT INTO partition VALUES (?, 1, 0, 0)",
                    [(number,) for number in range(partitions)],
                )
            connection.execute(_TOLD)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        count, id_ = meta.get("partitions"), meta.get("id")
        if type(count) is not int or type(id_) is not bytes:
            raise Invalid(f"{path} does not say how many partitions it has, or its id")
        return count, id_
    finally:
        connection.close()


def _partition(connection: sqlite3.Connection, partition: int) -> tuple[int, int, int]:
    """Return (first, last, epoch)."""
    row: tuple[int, int, int] = connection.execute(
        "SELECT first, last, epoch FROM partition WHERE partition = ?", (partition,)
    ).fetchone()
    return row


def _append(
    connection: sqlite3.Connection,
    partition: int,
    namespace: bytes,
    id: bytes,
    epoch: int,
    payload: bytes,
) -> int:
    ((position,),) = connection.execute(
        "UPDATE partition SET last = last + 1 WHERE partition = ? RETURNING last",
        (partition,),
    ).fetchall()
    connection.execute(
        "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)",
        (partition, position, namespace, id, epoch, payload),
    )
    connection.execute(
        "INSERT OR REPLACE INTO last_of VALUES (?, ?, ?)",
        (partition, namespace, position),
    )
    return int(position)
