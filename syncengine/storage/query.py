"""Somebody's SQL over this file: it reads what it was given, and nothing else.

The views that it may read are temporary ones, and an authorizer refuses whatever is not
read through them: other tables, other namespaces, the schema, settings, and every
write. The authorizer is told the name of the view, or of the `WITH` clause, that reads;
so each view reads through another one whose name nobody can guess.
"""

import re
import sqlite3
from types import TracebackType
from typing import Any

from syncengine.errors import Invalid
from syncengine.storage.store import QueryParams, Views

# How often SQLite asks whether to go on: in steps of its machine, about 8 us.
PROGRESS_STEPS = 500

# Functions of tables that read nothing of the file.
_HARMLESS = frozenset({"json_each", "json_tree"})

# Bytes of one value: a function makes one in a single step, which nothing stops. In the
# event loop 0.2 s of `printf`, which makes none that is larger; a text may be larger.
INLINE_BYTES_MAX = 16 << 20
VALUE_BYTES_MAX = 80 << 20

_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})


# It would tell how the views are made. It stands at the beginning or nowhere: behind
# what SQLite passes over.
_EXPLAIN = re.compile(
    r"(?:[\s;\ufeff]|--[^\n]*(?:\n|$)|/\*.*?\*/)*explain\b", re.I | re.S
)


# Bytes of all that a query returns, and how many rows are fetched between two looks: of
# the largest values in the event loop, as many.
RESULT_BYTES_MAX = 256 << 20
RESULT_ROWS = 16

# Queries whose names were looked at and are good: an application has few.
LOOKED_AT_MAX = 256

# What a name may stand as: bare, or in one of four quotes. (A text is one, too, where a
# table is meant.) Comments and numbers name nothing.
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""
    r"""|[^\W\d][\w$]*|\d[\w.]*|\.|\S""",
    re.S,
)
_OURS = ("_sync_", "sqlite_", "pragma_")


class TakesLong(Exception):
    """A query took more steps than it was given."""


class Guarded:
    """A connection that answers queries over `views` only."""

    def __init__(self, connection: sqlite3.Connection, views: Views):
        self.connection = connection
        self.views = views
        self._stopped = False
        self._left: int | None = None
        drop_views(connection)
        self._length = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        schema = (
            "SELECT name FROM sqlite_master UNION SELECT name FROM pragma_module_list"
        )
        self._tables = {name.lower() for (name,) in connection.execute(schema)}
        self._known = {name.lower() for name in views} | _HARMLESS
        self._looked_at: set[str] = set()
        for function in sorted(_HARMLESS):
            # Its first use defines it, which is nothing that a query may do.
            connection.execute(f"SELECT 1 FROM {function}('[]')").close()
        ((self._secret,),) = connection.execute("SELECT lower(hex(randomblob(16)))")
        self._inner = {f"{name}_{self._secret}" for name in views}
        for name, select in views.items():
            inner = f"{name}_{self._secret}"
            connection.execute(f'CREATE TEMP VIEW "{inner}" AS {select}')
            connection.execute(f'CREATE TEMP VIEW "{name}" AS SELECT * FROM "{inner}"')
        # Once: with each change of these SQLite forgets the statements it prepared.
        connection.set_authorizer(self._allows)
        connection.set_progress_handler(self._goes_on, PROGRESS_STEPS)

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.set_authorizer(None)
        self.connection.set_progress_handler(None, 0)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._length)

    def stop(self, *, stopped: bool = True) -> None:
        """Let the query that is running, and each that follows, end with an error."""
        self._stopped = stopped

    def rows(
        self, sql: str, params: QueryParams, *, steps: int | None = None
    ) -> list[sqlite3.Row]:
        """Return all rows; raises `TakesLong` after `steps`, and `Invalid`."""
        return self._asked(sql, params, steps)[1]

    def table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return (names of the columns, rows); raises `Invalid`."""
        names, rows = self._asked(sql, (), None)
        return names, [tuple(row) for row in rows]

    def _asked(
        self, sql: str, params: QueryParams, steps: int | None
    ) -> tuple[list[str], list[sqlite3.Row]]:
        if _EXPLAIN.match(sql):
            raise Invalid("SQL: EXPLAIN is not for this; ask the file with `sqlite3`")
        if sql not in self._looked_at:
            self._check_names(sql)
            if len(self._looked_at) >= LOOKED_AT_MAX:
                self._looked_at.clear()
            self._looked_at.add(sql)
        self._left = steps
        most = VALUE_BYTES_MAX if steps is None else INLINE_BYTES_MAX
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
        cursor = self.connection.cursor()
        cursor.row_factory = sqlite3.Row
        try:
            cursor.execute(sql, params)
            rows: list[sqlite3.Row] = []
            size = 0
            while found := cursor.fetchmany(RESULT_ROWS):
                rows += found
                cells = [cell for row in found for cell in row]
                size += sum(
                    [len(c) for c in cells if type(c) is str or type(c) is bytes]
                )
                if size > RESULT_BYTES_MAX:
                    raise Invalid(
                        f"SQL: the rows have more than {RESULT_BYTES_MAX} bytes; ask "
                        "for fewer at once",
                        bound=RESULT_BYTES_MAX,
                    )
            return [column[0] for column in cursor.description or ()], rows
        except sqlite3.Error as error:
            too_big = getattr(error, "sqlite_errorname", "") == "SQLITE_TOOBIG"
            if steps is not None and (too_big or (self._left or 0) <= 0):
                raise TakesLong from None
            told = _told(error, self.views).replace(f"_{self._secret}", "")
            raise Invalid(f"SQL: {told}") from None
        finally:
            cursor.close()

    def _check_names(self, sql: str) -> None:
        """Raise `Invalid` where a query names what it may not read. The authorizer is
        not asked about columns that `USING` joins by."""
        tokens = [t for t in _TOKEN.findall(sql) if not t.startswith(("--", "/*"))]
        for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
            name = token
            if token[0] in "'\"`":
                name = token[1:-1].replace(2 * token[0], token[0])
            elif token[0] == "[":
                name = token[1:-1]
            name = name.lower()
            schema = name in ("main", "temp") and after == "."
            ours = name.startswith(_OURS) or (
                name in self._tables and name not in self._known
            )
            if schema or ours:
                tables = ", ".join(sorted(self.views)) or "none yet"
                raise Invalid(
                    f"SQL: {name} is not for queries, which read the tables of typed "
                    f"collections ({tables}); give a text of that name as a parameter"
                )

    def _goes_on(self) -> int:
        if self._left is not None:
            self._left -= PROGRESS_STEPS
            if self._left <= 0:
                return 1
        return int(self._stopped)

    def _is_clause(self, name: str) -> bool:
        """Whether a name, of which no column is read, is of a `WITH` clause: none of
        the file's tables is called so."""
        name = name.lower()
        return name not in self._tables and not name.startswith(("sqlite_", "pragma_"))

    def _allows(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        inside: str | None,
    ) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            refused = (second or "").lower() in _REFUSED_FUNCTIONS
            return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and (
            database == "temp"
            or (database is None and self._is_clause(first or ""))
            or (
                inside in self._inner
                and database == "main"
                and (first or "").startswith("_sync_table_")
            )
            or first in _HARMLESS
        ):
            # The temporary schema itself, though, tells how the views are made.
            hidden = first in ("sqlite_temp_master", "sqlite_temp_schema")
            return sqlite3.SQLITE_DENY if hidden else sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def drop_views(connection: sqlite3.Connection) -> None:
    """Drop the temporary views of `connection`."""
    connection.set_authorizer(None)
    connection.set_progress_handler(None, 0)
    found: list[tuple[Any, ...]] = connection.execute(
        "SELECT name FROM temp.sqlite_master WHERE type = 'view'"
    ).fetchall()
    for (name,) in found:
        connection.execute(f'DROP VIEW temp."{name}"')


def _told(error: sqlite3.Error, views: Views) -> str:
    text = str(error)
    if "not authorized" in text or "prohibited" in text or "it is a view" in text:
        names = ", ".join(sorted(views)) or "none yet"
        return f"{text}; a query reads the tables of typed collections ({names})"
    if "no such table" in text:
        names = ", ".join(sorted(views)) or "none yet"
        return f"{text}; there are: {names}"
    return text
