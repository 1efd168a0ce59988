"""Typed collections as tables: a projection, written in the commit of the change.

Which collections, with which columns, stands in the file (`_sync_table`). A table is
filled in slices, a commit each; its view is made when it holds all there is.
"""

import contextlib
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from syncengine.crdt.document import Document as State
from syncengine.documents import columns, model
from syncengine.documents.columns import Column
from syncengine.documents.lenses import Converted
from syncengine.errors import Closed
from syncengine.replication.documents import Documents
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Store, Writes

if TYPE_CHECKING:
    from syncengine.replication.writer import Writer

log = logging.getLogger("syncengine")

# SQLite has at most 2,000, and three are ours.
COLUMNS_MAX = 1_990

# What the file says of a table: it holds all; or all, but some columns were written by
# who could not convert them.
FILLED, GUESSED = 1, 2

# The number of a document in what the index of words is made of: no field is called so.
ROW = "_row"

# Documents brought into a new table in one commit: others write in between.
FILL_DOCUMENTS = 200


class Table:
    """One collection's table."""

    def __init__(self, collection: str, made_of: list[Column], *, filled: bool):
        self.collection = collection
        self.columns = made_of
        self.lenses: dict[str, Converted] = {}
        """How columns, by the stored name of their field, are converted: as far as
        this program knows"""
        self.filled = filled
        self.fill_after = 0  # the document up to which it is filled
        self.name = f"_sync_table_{collection}"
        names = [_quoted(column.name) for column in made_of]
        listed = ", ".join(["document", "ns", '"id"', *map(_column, range(len(names)))])
        marks = ", ".join("?" * (len(names) + 3))
        self.fill = f"INSERT OR IGNORE INTO {self.name} ({listed}) VALUES ({marks})"
        updates = ", ".join(f"c{i} = excluded.c{i}" for i in range(len(names)))
        self.put = (
            f"INSERT INTO {self.name} ({listed}) VALUES ({marks}) "
            f"ON CONFLICT (document) DO "
            + (f"UPDATE SET {updates}" if updates else "NOTHING")
        )
        self.drop = f"DELETE FROM {self.name} WHERE document = ?"
        self.clear = f"DELETE FROM {self.name} WHERE ns = ?"
        shown = [f"t.c{i} AS {name}" for i, name in enumerate(names)]
        own = {column.name.lower() for column in made_of}
        if "id" not in own:
            shown.insert(0, 't."id" AS "id"')
        self.words_made_in: Writes | None = None
        """The commit that makes all of the index of words anew: it has to be told of no
        row besides"""
        searched = [(i, c.name) for i, c in enumerate(made_of) if c.searched]
        self._searched = [_column(i) for i, _ in searched]
        taken = {"rank", "rowid", ROW}  # FTS5's own, and ours
        self._words: list[str] = []
        for _, name in searched:
            while name.lower() in taken:
                name += "_"
            taken.add(name.lower())
            self._words.append(_quoted(name))
        self.search = f"_sync_search_{collection}" if self._searched else None
        self._shown = ", ".join(shown)
        self._has_namespace = "namespace" in own

    def definitions(self) -> list[str]:
        """Return the statements that make the table anew."""
        body = ", ".join(map(_column, range(len(self.columns))))
        found = [
            f"DROP VIEW IF EXISTS {_quoted(self.collection)}",
            f"DROP TABLE IF EXISTS {self.name}",
            f"CREATE TABLE {self.name} (document INTEGER PRIMARY KEY, "
            f'ns INTEGER NOT NULL, "id" TEXT NOT NULL{", " if body else ""}{body})',
            # Not named by a suffix: `note_id` is a collection's name, too.
            f"CREATE INDEX _sync_index_id_of_{self.collection} "
            f'ON {self.name} (ns, "id")',
        ]
        for i, column in enumerate(self.columns):
            if column.indexed:
                name = f"_sync_index_{i}_of_{self.collection}"
                found.append(f"CREATE INDEX {name} ON {self.name} (ns, c{i})")
        return found + self._search_definitions()

    def _search_definitions(self) -> list[str]:
        """Return the statements that make the index of words: it holds no text of its
        own. No triggers keep it: a file that trusts no schema lets none write to it."""
        content = f"_sync_words_{self.collection}"
        found = [
            f"DROP TABLE IF EXISTS _sync_search_{self.collection}",
            f"DROP VIEW IF EXISTS {content}",
        ]
        if self.search:
            named = zip(self._searched, self._words, strict=True)
            shown = ", ".join(f"{column} AS {name}" for column, name in named)
            found += [
                f"CREATE VIEW {content} AS "
                f"SELECT document AS {ROW}, {shown} FROM {self.name}",
                f"CREATE VIRTUAL TABLE {self.search} USING fts5("
                f"{', '.join(self._words)}, content='{content}', "
                f"content_rowid='{ROW}')",
            ]
        return found

    def write_words(self, writes: Writes, number: int) -> None:
        """Take the words of a row, as it is on disk, out of the index, and put in those
        that it has after this commit."""
        names, columns_ = ", ".join(self._words), ", ".join(self._searched)
        row = f"document, {columns_} FROM {self.name} WHERE document = ?"
        writes.clear(
            f"INSERT INTO {self.search} ({self.search}, rowid, {names}) "
            f"SELECT 'delete', {row}",
            number,
        )
        writes.finish(
            f"INSERT INTO {self.search} (rowid, {names}) SELECT {row}", number
        )

    def write_all_words(self, writes: Writes) -> None:
        """Make the index of words anew, of what the table holds after this commit."""
        self.words_made_in = writes
        writes.finish(f"INSERT INTO {self.search} ({self.search}) VALUES ('rebuild')")

    def searching(self) -> str:
        """Return the query of who looks for words."""
        return (
            f"SELECT t.\"id\", snippet({self.search}, -1, '[', ']', '...', 16) "
            f"FROM {self.search} s JOIN {self.name} t ON t.document = s.rowid "
            f"WHERE {self.search} MATCH ? AND t.ns = ? ORDER BY rank LIMIT ?"
        )

    def view(self) -> str:
        """Return the statement that shows it to whoever opens the file."""
        namespace = "" if self._has_namespace else "n.name AS namespace, "
        return (
            f"CREATE VIEW IF NOT EXISTS {_quoted(self.collection)} AS "
            # There are few namespaces: indexes begin with them.
            f"SELECT {namespace}{self._shown} FROM _sync_namespace n "
            f"CROSS JOIN {self.name} t ON t.ns = n.ns"
        )

    def of_namespace(self, ns: int) -> str:
        """Return the SELECT of what one namespace has of it."""
        return f"SELECT {self._shown} FROM {self.name} t WHERE t.ns = {ns:d}"

    def row(self, document: State, number: int, ns: int) -> list[Any]:
        """Return all that `put` and `fill` ask for."""
        key = document.name.partition("/")[2]
        return [number, ns, key, *(self.cell(document, c) for c in self.columns)]

    def cell(self, document: State, column: Column) -> Any:
        lens = self.lenses.get(column.stored) if column.converts else None
        return columns.value_of(document, column, lens)

    @property
    def guesses(self) -> bool:
        """Whether it has columns of which this program does not know how to convert."""
        return any(
            column.converts and column.stored not in self.lenses
            for column in self.columns
        )


class Tables:
    """The tables of one file; a source of commits for as long as one is not filled."""

    def __init__(self, store: Store, writer: "Writer"):
        self._store = store
        self._writer = writer
        self._tables: dict[str, Table] = {}
        self._declared: set[type[model.Document]] = set()
        self._undefined: dict[str, Table] = {}
        self._whole: WeakSet[State] = WeakSet()
        """Documents whose row was written whole: later only what changes is"""
        self._views: dict[int, dict[str, str]] = {}
        self._taken = {name for (name,) in store.read("PRAGMA module_list")}
        self._is_cleared = False
        self._guessed: set[str] = set()
        """Whose rows a program wrote that did not know how to convert"""
        self._load()
        if any(not table.filled for table in self._tables.values()):
            writer.flush(self)

    def _load(self) -> None:
        """Take over what the file has."""
        for collection, raw, filled in self._store.read("SELECT * FROM _sync_table"):
            made_of = columns.decode(raw)
            self._tables[collection] = Table(collection, made_of, filled=bool(filled))
            if filled == GUESSED:
                self._guessed.add(collection)

    def declare(self, kind: type[model.Document]) -> None:
        """Keep the documents of a class in a table from now on."""
        if kind in self._declared:
            return
        self._declared.add(kind)
        collection = model.collection_of(kind)
        if collection in self._taken or collection.startswith("pragma_"):
            log.warning("%s is a name of SQLite's own: no table is made", collection)
            return
        known = self._tables.get(collection)
        wanted = columns.columns_of(kind)
        if known is not None:
            # As the file has it: a default, say, may have no equal in JSON.
            wanted = columns.decode(columns.encode(wanted))
            wanted = columns.merged(known.columns, wanted)
            guessed = known.guesses and (
                collection in self._guessed or not known.filled
            )
            known.lenses.update(model.lenses(kind))
            guessed = guessed and not known.guesses
            if wanted == known.columns and not guessed:
                return
        if len(wanted) > COLUMNS_MAX:
            log.warning("%s has too many fields for a table", collection)
            return
        table = Table(collection, wanted, filled=False)
        table.lenses = {**(known.lenses if known else {}), **model.lenses(kind)}
        self._guessed.discard(collection)
        self._tables[collection] = self._undefined[collection] = table
        self._views.clear()
        self._whole.clear()
        self._writer.flush(self)

    def find(self, collection: str) -> Table | None:
        """Return a collection's table."""
        return self._tables.get(collection)

    def views(self, ns: int) -> dict[str, str]:
        """Return what a query of a namespace may read: the same object until it is
        something else."""
        if ns not in self._views:
            tables = self._tables.values()
            self._views[ns] = {t.collection: t.of_namespace(ns) for t in tables}
        return self._views[ns]

    async def ready(self) -> None:
        """Wait until every table holds all there is; raises `StoreError`. Safe to
        cancel."""
        while any(not table.filled for table in self._tables.values()):
            await self._writer.flush(self)

    # --- what a document's commit writes ------------------------------------------

    def write(self, writes: Writes, document: State, number: int, ns: int) -> None:
        """Write what changed of a document's row; before its cells are taken."""
        table = self._tables.get(document.name.partition("/")[0])
        if table is None:
            return
        self._define(writes)
        if table.guesses and table.filled and table.collection not in self._guessed:
            self._guessed.add(table.collection)
            made_of = columns.encode(table.columns)
            writes.clear(sql.PUT_TABLE, table.collection, made_of, GUESSED)
        by_row = table.search and table.filled and table.words_made_in is not writes
        if by_row and (document not in self._whole or self._has_words(table, document)):
            table.write_words(writes, number)
        if not document.visible:
            self._whole.discard(document)
            writes.add(table.drop, number)
        elif document not in self._whole:
            self._whole.add(document)
            writes.add(table.put, *table.row(document, number, ns))
        else:
            fields = document.changed_fields()
            for i, column in enumerate(table.columns):
                if column.stored in fields or column.converts in fields:
                    value = table.cell(document, column)
                    writes.add(
                        f"UPDATE {table.name} SET c{i} = ? WHERE document = ?",
                        value,
                        number,
                    )

    def _has_words(self, table: Table, document: State) -> bool:
        fields = document.changed_fields()
        return not document.visible or any(
            column.stored in fields or column.converts in fields
            for column in table.columns
            if column.searched
        )

    def clear(self, writes: Writes, ns: int) -> None:
        """Before a rebuild: forget a namespace's rows."""
        self._define(writes)
        self._is_cleared = True
        self._whole.clear()
        for table in self._tables.values():
            writes.clear(table.clear, ns)
            if table.search is not None and table.filled:
                table.write_all_words(writes)

    def _define(self, writes: Writes) -> None:
        """Make what was declared, before anything is written to it."""
        for table in self._undefined.values():
            for statement in table.definitions():
                writes.define(statement)
            made_of = columns.encode(table.columns)
            writes.clear(sql.PUT_TABLE, table.collection, made_of, 0)
        self._undefined.clear()

    # --- filling, as a source of commits ------------------------------------------

    def ready_to_collect(self) -> bool:
        return True

    def collect(self, writes: Writes) -> None:
        self._define(writes)
        if self._is_cleared:
            return  # what the file has is of before: in the next commit
        for table in self._tables.values():
            if not table.filled:
                self._fill(table, writes)
                return

    def _fill(self, table: Table, writes: Writes) -> None:
        """Bring in some documents as the file has them; whatever changes in this
        commit is written after them."""
        rows = self._store.read(
            "SELECT document, ns, id FROM _sync_document WHERE collection = ? "
            "AND visible AND document > ? ORDER BY document LIMIT ?",
            *(table.collection, table.fill_after, FILL_DOCUMENTS),
        )
        for number, ns, key in rows:
            stored = Documents(self._store, ns, _makes_none)
            document = stored.find(stored.name(f"{table.collection}/{key}"))
            if document is not None:
                writes.clear(table.fill, *table.row(document, number, ns))
            table.fill_after = number
        if len(rows) < FILL_DOCUMENTS:
            table.filled = True
            writes.define(table.view())
            if table.search is not None:
                table.write_all_words(writes)
            if table.guesses:
                self._guessed.add(table.collection)
            writes.clear(
                sql.PUT_TABLE,
                table.collection,
                columns.encode(table.columns),
                GUESSED if table.guesses else FILLED,
            )

    def committed(self, token: None) -> None:
        self._is_cleared = False
        if any(not table.filled for table in self._tables.values()):
            with contextlib.suppress(Closed):  # then it is filled when opened next
                self._writer.flush(self)

    def failed(self, error: Exception) -> None:
        """Go on with what the file has; a class is declared anew by its next use."""
        self._is_cleared = False
        self._declared.clear()
        self._undefined.clear()
        self._tables.clear()
        self._views.clear()
        self._whole.clear()
        self._guessed.clear()
        self._load()


def stored_views(store: Store, ns: int) -> dict[str, str]:
    """Return what a query of a namespace may read in somebody else's file."""
    found: dict[str, str] = {}
    for collection, raw in store.read(
        "SELECT collection, columns FROM _sync_table WHERE filled"
    ):
        table = Table(collection, columns.decode(raw), filled=True)
        found[collection] = table.of_namespace(ns)
    return found


def _makes_none() -> int:
    raise AssertionError("a table is filled from what is stored")


def _column(index: int) -> str:
    return f"c{index}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
