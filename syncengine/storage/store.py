"""What replication relies on: a store, and what is written to it at once.

A store promises: `commit` is atomic (all of the writes or none, also after a crash),
durable (once it returns, power loss takes nothing back) and ordered (a later commit
never survives an earlier one). `read` sees what was committed. A failed commit
changed nothing, or raises `CommitUnknown` when that cannot be told.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Params = Sequence[Any]

SqlRow = sqlite3.Row
"""A row of somebody's query: by position, by name, `keys()`."""


class Path(Protocol):
    """A path object, as `pathlib.Path` is one."""

    def __fspath__(self) -> str: ...


Views = Mapping[str, str]
"""name -> the SELECT that it stands for"""

QueryParams = Sequence[Any] | Mapping[str, Any]

StorePath = str | Path
"""Where a file is, as an application says it."""


class Writes:
    """Statements with their rows: what clears first, what finishes last, the rest in
    order of asking."""

    __slots__ = ("_clearing", "_finishing", "_statements", "definitions")

    def __init__(self) -> None:
        self.definitions: dict[str, None] = {}
        self._clearing: dict[str, list[Params]] = {}
        self._statements: dict[str, list[Params]] = {}
        self._finishing: dict[str, list[Params]] = {}

    def define(self, statement: str) -> None:
        """Run a `CREATE` or `DROP` before everything else, once."""
        self.definitions[statement] = None

    def clear(self, statement: str, *params: Any) -> None:
        """Run `statement` before everything that `add` was given."""
        self._clearing.setdefault(statement, []).append(params)

    def finish(self, statement: str, *params: Any) -> None:
        """Run `statement` after everything that `add` was given."""
        self._finishing.setdefault(statement, []).append(params)

    def add(self, statement: str, *params: Any) -> None:
        """Run `statement` with `params` in this commit."""
        rows = self._statements.get(statement)
        if rows is None:
            rows = self._statements[statement] = []
        rows.append(params)

    def items(self) -> list[tuple[str, list[Params]]]:
        """Return (statement, its rows), in the order of execution."""
        return [
            *self._clearing.items(),
            *self._statements.items(),
            *self._finishing.items(),
        ]

    def __bool__(self) -> bool:
        return bool(self._statements or self._clearing or self.definitions)


class Store(Protocol):
    """One SQLite file with one writer."""

    path: str

    def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query; raises `StoreDamaged` on a broken file."""
        ...

    async def commit(self, writes: Writes) -> None:
        """Write all of `writes`, durably, or nothing.

        Raises `StoreFull`, `StoreReadOnly` or `StoreError`. Safe to cancel: the
        commit then happens or not, as a whole.
        """
        ...

    async def query(
        self, views: "Views", sql: str, params: "QueryParams"
    ) -> list[SqlRow]:
        """Return the rows of somebody's query, who may read `views` and nothing else.

        Raises `Invalid` for what is no query, or asks for more. Safe to cancel.
        """
        ...

    async def backup(self, path: str) -> None:
        """Write one consistent file to `path`, which must not exist."""
        ...

    async def close(self) -> None: ...
