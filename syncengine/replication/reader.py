"""Reading a replica's file beside the process that owns it: no lock, no writes."""

from collections.abc import Iterator
from typing import Any

from syncengine.crdt.document import Document
from syncengine.errors import NotFound, NotOurs
from syncengine.ids import ActorId, DocumentId, Lineage, NamespaceId, parse_document_id
from syncengine.log.change import Change as LogChange
from syncengine.log.terms import BESIDE, DEPOSED
from syncengine.replication import feed, history
from syncengine.replication.documents import Documents
from syncengine.replication.feed import Change
from syncengine.replication.history import Conflict, Why
from syncengine.replication.keeper import Keeper
from syncengine.replication.outbox import Outbox
from syncengine.replication.tables import stored_views
from syncengine.replication.versions import EntityConflict, stored_conflicts
from syncengine.storage.inline import InlineStore
from syncengine.storage.query import Guarded
from syncengine.trust.keys import ED25519


class Reader:
    """A file opened read-only. Raises `NotFound`, `NotOurs`, `NewerFormat`."""

    def __init__(self, path: str):
        from pathlib import Path

        if not Path(path).exists():
            raise NotFound(f"there is no {path}; `syncengine init` makes it")
        self.store = InlineStore(path, read_only=True)
        if not self.store.read("SELECT 1 FROM sqlite_master WHERE name = '_sync_meta'"):
            self.close()
            raise NotFound(f"{path} is empty; `syncengine init` or `join` fills it")
        meta = dict(self.store.read("SELECT key, value FROM _sync_meta"))
        if meta.get("role") == "hub":
            self.close()
            raise NotOurs(f"{path} belongs to a hub, which cannot read documents")

    def close(self) -> None:
        self.store.connection.close()

    def namespaces(self) -> list[tuple[int, bytes, str | None]]:
        """Return (number, id, name) of the namespaces in the file."""
        return [
            (ns, name, called)
            for ns, name, called in self.store.read(
                "SELECT ns, id, name FROM _sync_namespace ORDER BY ns"
            )
        ]

    def number(self, name: str | None) -> int:
        """Return the number of a namespace: the only one, when none is named."""
        found = self.namespaces()
        if name is None and len(found) == 1:
            return found[0][0]
        for ns, _, called in found:
            if called == name:
                return ns
        names = ", ".join(str(called) for _, _, called in found) or "none"
        if name is None:
            raise NotFound(f"say which namespace (--namespace): {names}")
        raise NotFound(f"there is no namespace {name!r}; there are: {names}")

    def documents(self, ns: int) -> Documents:
        """Return the documents of a namespace, to be read only."""
        return Documents(self.store, ns, _no_rows)

    def document(self, ns: int, name: DocumentId) -> Document:
        document = self.documents(ns).find(name)
        if document is None or not document.visible:
            raise NotFound(f"there is no {name}")
        return document

    def sql(self, ns: int, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return (columns, rows) of a query over a namespace's typed collections.

        Raises `Invalid`.
        """
        ((version,),) = self.store.read("PRAGMA user_version")
        views = stored_views(self.store, ns) if version >= 2 else {}
        with Guarded(self.store.connection, views) as guarded:
            return guarded.table(query)

    def changes(self, ns: int, path: str | None, count: int) -> list[Change]:
        """Return up to `count` changes, the newest first: all, or those of a document
        or a collection; also what is not signed yet, and on this device alone. Raises
        `NotFound` where there is no such document."""
        keeper = self._keeper(ns)
        found = [
            change
            for change in feed.unsigned(keeper, self._pending(ns))
            if history.is_about(change, path)
        ][:count]
        found += history.newest(keeper, keeper.position, path, count - len(found))
        if not found and path is not None and "/" in path:
            self.document(ns, parse_document_id(path))
        return found

    def _pending(self, ns: int) -> list[LogChange]:
        ((actor,),) = self.store.read(
            "SELECT actor FROM _sync_namespace WHERE ns = ?", ns
        )
        outbox = Outbox(self.store, ns)
        return outbox.stored(None if actor is None else ActorId(actor))

    def why(self, ns: int, path: str) -> Why:
        """Return why a field shows what it shows; raises `NotFound`."""
        name, steps = history.steps_of(path)
        document = self.document(ns, parse_document_id(name))
        return history.why(document, path, steps, self._keeper(ns))

    def conflicts(self, ns: int, name: DocumentId | None, count: int) -> list[Conflict]:
        """Return up to `count` conflicts that were seen here, the latest first: all, or
        those of a document."""
        return list(history.latest_conflicts(self._keeper(ns), name, count))

    def entity_conflicts(self, ns: int, *, pending: bool) -> list[EntityConflict]:
        """Return conflicts between masters, the oldest first."""
        ((version,),) = self.store.read("PRAGMA user_version")
        if version < 6:
            return []
        return stored_conflicts(self.store, ns, "*", pending=pending)

    def leadership(self, ns: int) -> dict[str, Any]:
        """Return the mode of a namespace, who leads, in which term, and how many
        changes wait in the rescue area."""
        terms = self._keeper(ns).terms
        top = terms.top
        ((waiting,),) = self.store.read(
            "SELECT count(*) FROM _sync_void v WHERE ns = ? AND reason IN (?, ?) "
            "AND NOT EXISTS (SELECT 1 FROM _sync_rescue r WHERE r.ns = v.ns "
            "AND r.actor = v.actor AND r.seq = v.seq)",
            *(ns, DEPOSED, BESIDE),
        )
        return {
            "mode": "leader-follower" if terms.has_leader else "multi-master",
            "leader_id": None if top is None else top.record.node,
            "term": 0 if top is None else top.number,
            "not_counted": waiting,
        }

    def _keeper(self, ns: int) -> Keeper:
        ((name,),) = self.store.read("SELECT id FROM _sync_namespace WHERE ns = ?", ns)
        namespace, lineage = NamespaceId(name), Lineage(bytes(16))
        keeper = Keeper(self.store, ns, namespace, lineage, ED25519)
        keeper.load()
        return keeper

    def all_names(self, ns: int) -> Iterator[DocumentId]:
        """Yield every visible document."""
        rows: list[tuple[Any, ...]] = self.store.read(
            "SELECT collection, id FROM _sync_document WHERE ns = ? AND visible "
            "ORDER BY collection, id",
            ns,
        )
        for collection, key in rows:
            yield DocumentId(f"{collection}/{key}")


def _no_rows() -> int:
    raise AssertionError("a reader makes no documents")
