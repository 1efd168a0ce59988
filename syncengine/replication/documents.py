"""The documents of one namespace that are decoded in memory, and their rows."""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from syncengine import limits, values
from syncengine.crdt.document import Document
from syncengine.errors import SyncError
from syncengine.ids import ActorId, DocumentId, parse_document_id
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Store, Writes


class StoredCells:
    """The stored cells of one document."""

    __slots__ = ("_row", "_store")

    def __init__(self, store: Store, row: int):
        self._store = store
        self._row = row

    def read(
        self, container: bytes, start: bytes = b"", stop: bytes = b"\xff" * 8
    ) -> Iterable[tuple[bytes, bytes]]:
        rows: Any = self._store.read(sql.CELLS, self._row, container, start, stop)
        return rows  # type: ignore[no-any-return]  # two blobs each, by the statement


class CopiedCells:
    """All stored cells of one document, as they were when they were read."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes, bytes]]):
        self._cells: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for container, key, state in sorted(rows):
            self._cells.setdefault(container, []).append((key, state))

    def read(
        self, container: bytes, start: bytes = b"", stop: bytes = b"\xff" * 8
    ) -> Iterable[tuple[bytes, bytes]]:
        cells = self._cells.get(container, [])
        return [cell for cell in cells if start <= cell[0] < stop]


class Projection(Protocol):
    """What is written beside documents, in their commit."""

    def write(
        self, writes: Writes, document: Document, number: int, ns: int
    ) -> None: ...

    def clear(self, writes: Writes, ns: int) -> None:
        """Forget what a namespace has of it, before a rebuild."""
        ...


def digest_of(document: Document) -> bytes:
    """Return what a member tells of what a document shows."""
    shown = document.name.encode() + b"\0" + document.canonical()
    return hashlib.sha256(shown).digest()


class Documents:
    """A cache in front of the store.

    Invariant: a document with changes that are not on disk is in the cache.
    """

    def __init__(self, store: Store, ns: int, new_row: Callable[[], int]):
        self._store = store
        self._ns = ns
        self._new_row = new_row
        self._cache: OrderedDict[DocumentId, Document] = OrderedDict()
        self._rows: dict[DocumentId, int] = {}
        self._dirty: dict[Document, int] = {}  # -> stamp of the last change (ms)
        self._unwritten: dict[Document, int] = {}  # -> groups that hold it
        self._digests: dict[int, bytes] = {}  # of rows, to be written
        self._preferred: dict[DocumentId, dict[str, ActorId]] = {}
        self.preferences = 0
        """How often a document turned out to show another seed than it did."""
        self.projection: Projection | None = None
        self.fresh = False  # in a rebuild nothing stored is looked at

    def __contains__(self, name: DocumentId) -> bool:
        """Whether the document is decoded now: then its name is a good one."""
        return name in self._cache

    def name(self, path: str) -> DocumentId:
        """Return `path` as a document id; raises `Invalid`."""
        if path in self._cache:
            return DocumentId(path)
        return parse_document_id(path)

    def find(self, name: DocumentId) -> Document | None:
        """Return the document, or None when nothing was ever written to it."""
        document = self._cache.get(name)
        if document is not None:
            self._cache.move_to_end(name)
            return document
        if self.fresh:
            return None
        stored = self._stored(name)
        if stored is None:
            return None
        row, touches, upgrade = stored
        document = Document(name, StoredCells(self._store, row))
        self._rows[name] = row
        self._cache[name] = document
        return _with(document, touches, upgrade)

    def copy(self, name: DocumentId) -> Document | None:
        """Return a document as it is on disk, for somebody of his own: it does not
        change with this one. None: it is not there."""
        stored = self._stored(name)
        if stored is None:
            return None
        row, touches, upgrade = stored
        cells = CopiedCells(self._store.read(sql.ALL_CELLS, row))
        return _with(Document(name, cells), touches, upgrade)

    def _stored(self, name: DocumentId) -> tuple[int, bytes, int] | None:
        collection, _, key = name.partition("/")
        rows: list[Any] = self._store.read(
            "SELECT document, touches, upgrade FROM _sync_document "
            "WHERE ns = ? AND collection = ? AND id = ?",
            self._ns,
            collection,
            key,
        )
        return rows[0] if rows else None

    def get(self, name: DocumentId) -> Document:
        """Return the document, made when nothing was ever written to it."""
        document = self.find(name)
        if document is None:
            document = Document(name)
            document.preferred = self._preferred.get(name, {})
            self._cache[name] = document
        return document

    def prefer(self, document: Document) -> None:
        """Remember, beyond `forget`, which seeds of `document` are to show."""
        self._preferred[document.name] = document.preferred
        self.preferences += 1

    def prefer_first(self) -> None:
        """After a rebuild: see whether of each document's seeds the right ones show."""
        self._preferred.clear()
        for document in self._cache.values():
            keys = {seed.key for seed in document.seeds.values()}
            wanted = {key: document.first_seed(key) for key in sorted(keys)}
            document.preferred = {}
            if any(not document.seeds[name].shows for name in wanted.values()):
                document.preferred = wanted
                self.prefer(document)

    def changed(self, document: Document, ms: int) -> None:
        """Note that `document` has something to write."""
        self._dirty[document] = ms
        self._digests.pop(self._rows.get(document.name, 0), None)

    def collect(self, writes: Writes) -> list[Document]:
        """Add the rows and cells of changed documents to `writes`."""
        group = list(self._dirty)
        for document, ms in self._dirty.items():
            name = document.name
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = self._new_row()
            if self.projection is not None:
                self.projection.write(writes, document, row, self._ns)
            for container, (key, state) in document.take_cells():
                if state is None:
                    writes.add(sql.DROP_CELL, row, container, key)
                else:
                    writes.add(sql.PUT_CELL, row, container, key, state)
            collection, _, key_ = name.partition("/")
            touches = values.encode(
                [(actor, *touch) for actor, touch in sorted(document.touches.items())]
            )
            writes.add(
                sql.PUT_DOCUMENT,
                row,
                self._ns,
                collection,
                key_,
                touches,
                int(document.visible),
                int(document.needs_upgrade),
                ms,
                None,
            )
            if document.conflicts:
                self._write_conflicts(writes, document, row)
            self._unwritten[document] = self._unwritten.get(document, 0) + 1
        self._dirty.clear()
        for row, digest in self._digests.items():
            writes.add(sql.SET_DIGEST, digest, row)
        self._digests.clear()
        return group

    def _write_conflicts(self, writes: Writes, document: Document, row: int) -> None:
        seen = {
            (path, loser.actor, loser.seq): (winner, loser)
            for path, winner, loser in document.conflicts or ()
        }
        document.conflicts = []
        for (path, actor, seq), (winner, loser) in seen.items():
            value = document.entry_value(loser)
            if loser.type and not value:
                continue  # a container that was never filled
            writes.add(
                sql.PUT_CONFLICT,
                row,
                path,
                actor,
                seq,
                loser.hlc,
                values.encode(value),
                b"" if winner is None else winner.actor,
            )

    def written(self, group: list[Document]) -> None:
        """A group is on disk: its documents may leave memory."""
        for document in group:
            # Absent after a rebuild: what was on its way was of the old state.
            left = self._unwritten.get(document, 0) - 1
            if left > 0:
                self._unwritten[document] = left
            else:
                self._unwritten.pop(document, None)
        over = len(self._cache) - limits.CACHED_DOCUMENTS_MAX
        if over > 0:
            for name in list(self._cache)[: over + limits.CACHED_DOCUMENTS_MAX // 10]:
                document = self._cache[name]
                if not (
                    document.is_held
                    or document in self._dirty
                    or document in self._unwritten
                ):
                    del self._cache[name]
                    self._rows.pop(name, None)

    def forget(self) -> None:
        """Drop everything; what is read next comes from disk.

        Whoever holds a snapshot keeps what it shows.
        """
        for document in self._cache.values():
            if document.is_held:
                with contextlib.suppress(SyncError):  # a damaged file shows less
                    document.detach()
        self._cache.clear()
        self._rows.clear()
        self._dirty.clear()
        self._unwritten.clear()
        self._digests.clear()

    def names(self, collection: str, prefix: str) -> Iterator[DocumentId]:
        """Yield the visible documents of a collection in id order."""
        rows = self._store.read(
            "SELECT id FROM _sync_document WHERE ns = ? AND collection = ? "
            "AND id >= ? AND id < ? AND visible ORDER BY id",
            self._ns,
            collection,
            prefix,
            prefix + "\U0010ffff",
        )
        stored = {key for (key,) in rows}
        for document in self._unwritten.keys() | self._dirty.keys():
            at, _, key = document.name.partition("/")
            if at == collection and key.startswith(prefix):
                (stored.add if document.visible else stored.discard)(key)
        for key in sorted(stored):
            yield DocumentId(f"{collection}/{key}")

    def digests(
        self, low: str, high: str, count: int
    ) -> list[tuple[DocumentId, bytes]] | None:
        """Return (name, digest) of up to `count` visible documents in [low, high).

        All that is shown must be on disk. None when one of them was written by a
        newer version: nobody here knows what it shows.
        """
        collection, _, key = low.partition("/")
        rows = self._store.read(sql.DIGESTS, self._ns, collection, key, count)
        found: list[tuple[DocumentId, bytes]] = []
        for row, collection, key, upgrade, stored in rows:
            name = DocumentId(f"{collection}/{key}")
            if name >= high:
                break
            if upgrade:
                return None
            digest = stored or self._digests.get(row)
            if digest is None:
                digest = self._digests[row] = self._digest(name)
            found.append((name, digest))
        return found

    @property
    def has_new_digests(self) -> bool:
        """Whether the next commit keeps somebody from hashing again."""
        return bool(self._digests)

    def _digest(self, name: DocumentId) -> bytes:
        passing = name not in self._cache
        document = self.find(name)
        assert document is not None, "it has a row"
        digest = digest_of(document)
        if passing:  # nobody asked for it: it does not displace what somebody did
            del self._cache[name], self._rows[name]
        return digest

    def in_memory(self) -> list[DocumentId]:
        """Return the documents that are decoded now."""
        return list(self._cache)

    def collections(self) -> list[tuple[str, int]]:
        """Return (collection, how many documents), as on disk."""
        rows = self._store.read(
            "SELECT collection, count(*) FROM _sync_document "
            "WHERE ns = ? AND visible GROUP BY collection ORDER BY collection",
            self._ns,
        )
        return [(name, count) for name, count in rows]


def _with(document: Document, touches: bytes, upgrade: int) -> Document:
    document.touches = {
        ActorId(actor): (seq, hlc) for actor, seq, hlc in values.decode(touches)
    }
    document.needs_upgrade = bool(upgrade)
    return document
