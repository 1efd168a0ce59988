"""The store on plain sqlite3: for simulation, tools, and callers without a loop."""

import sqlite3
from typing import Any

from syncengine.storage.opening import (
    mark_backup,
    prepare,
    quoted,
    refuse_foreign,
    translate,
)
from syncengine.storage.query import Guarded, drop_views
from syncengine.storage.store import QueryParams, Views, Writes


class InlineStore:
    """A store whose commits happen before `commit` first suspends."""

    def __init__(self, path: str, *, read_only: bool = False):
        create = refuse_foreign(path)
        self.path = path
        self._closed = False
        try:
            if read_only:
                self.connection = sqlite3.connect(
                    f"file:{quoted(path)}?mode=ro", uri=True
                )
            else:
                # Used by one thread at a time: see `syncengine.blocking`.
                self.connection = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False
                )
        except sqlite3.Error as error:
            raise translate(error, path) from error
        if not read_only:
            prepare(self.connection, path, create=create)

    def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def commit(self, writes: Writes) -> None:
        self.commit_now(writes)

    def commit_now(self, writes: Writes) -> None:
        """The same without a loop."""
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in writes.definitions:
                    connection.execute(statement)
                for statement, rows in writes.items():
                    connection.executemany(statement, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    async def query(
        self, views: Views, sql: str, params: QueryParams
    ) -> list[sqlite3.Row]:
        try:
            with Guarded(self.connection, views) as guarded:
                return guarded.rows(sql, params)
        finally:
            # It is the connection that writes, too.
            if not self._closed:
                drop_views(self.connection)

    async def backup(self, path: str) -> None:
        try:
            self.connection.execute("VACUUM INTO ?", (path,))
            mark_backup(path)
        except sqlite3.Error as error:
            raise translate(error, path) from error

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.connection.close()
