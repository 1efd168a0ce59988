"""A namespace as an application uses it."""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from syncengine import values
from syncengine.crdt.document import Document as State
from syncengine.crdt.list import ListState
from syncengine.crdt.operation import ContainerId, Type
from syncengine.crdt.tree import TreeState
from syncengine.documents import exchange, model
from syncengine.documents.comparing import Difference, differences
from syncengine.documents.fields import Map
from syncengine.documents.model import Document, view_of
from syncengine.documents.versions import encode_version
from syncengine.documents.view import View
from syncengine.errors import (
    Closed,
    DivergenceDetected,
    Invalid,
    NotFound,
    Refused,
    StoreError,
    TransactionOpen,
)
from syncengine.ids import (
    DeviceId,
    DocumentId,
    base32,
    check_collection,
    document_id,
    node_id,
    parse_device_id,
    parse_document_id,
)
from syncengine.protocol.codes import Code
from syncengine.replication import archive, branches, feed, history, sessions, watch
from syncengine.replication.address import parse_address
from syncengine.replication.branches import Branch, Trunk
from syncengine.replication.feed import Change
from syncengine.replication.history import Conflict, LostValue, Passage, Why
from syncengine.replication.host import sealed
from syncengine.replication.live import Live
from syncengine.replication.modes import Mode, mode_of, switch
from syncengine.replication.namespace import Namespace
from syncengine.replication.past import Index, Past
from syncengine.replication.rescue import Rescue
from syncengine.replication.transaction import Transaction
from syncengine.replication.undo import Undoing
from syncengine.replication.watch import Subscription
from syncengine.storage.store import SqlRow, StorePath
from syncengine.trust.entry import Entry, entry_id
from syncengine.trust.invite import SECRET_BYTES, Invite, invite_key
from syncengine.trust.membership import OPS_BY_NAME, Grant, Ops, allows, make_grant

if TYPE_CHECKING:
    from syncengine.replication.replica import Replica

log = logging.getLogger("syncengine")

D = TypeVar("D", bound=Document)
Other = TypeVar("Other")
_MISSING: Any = object()

# Documents that one search returns at most: each with an extract.
SEARCH_MAX = 1_000

_WORD = re.compile(r"[a-z_][a-z0-9_]*")

# Documents of a collection that are looked at in one step.
PAGE_DOCUMENTS = 256

# Invites are for now, not for ever: whoever finds an old one cannot use it.
INVITE_LIFETIME_MAX = timedelta(days=30)


@dataclass(frozen=True)
class PeerStatus:
    """What one peer has of a namespace."""

    peer: str
    behind: int
    """Rows of our log that it has not acknowledged."""
    last_contact: datetime | None


@dataclass(frozen=True)
class Found:
    """A document in which words were found."""

    id: str
    extract: str
    """Where they stand, in brackets"""


class Space:
    """One namespace: its documents, its members, its history.

    Its methods belong to the event loop that opened the replica.
    """

    def __init__(self, replica: "Replica", engine: Namespace, name: str | None):
        self._replica = replica
        self.engine = engine
        self.name = name
        self._index: Index | None = None
        self._subscriptions: set[Subscription] = set()
        self.undo_turn = asyncio.Lock()
        self.trunks: dict[str, Trunk] = {}
        """The branches that somebody opened"""

    def __repr__(self) -> str:
        return f"<Space {self.name or self.id[:8]}>"

    @property
    def id(self) -> str:
        """The namespace's id: it commits to the owners' keys."""
        return base32(self.engine.keeper.namespace)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be done with it any more: its replica was closed, or it
        was taken out of the file."""
        try:
            self.check_usable()
        except Closed:
            return True
        return False

    @property
    def mode(self) -> Mode:
        """Who may write here: all ("multi-master"), or the leader of the present term
        ("leader-follower")."""
        return mode_of(self)

    async def switch_mode(self, mode: Mode, *, voters: Sequence[str] = ()) -> None:
        """Let all write from now on, or the leader alone, while everybody is at work.

        `voters` are the devices whose majority decides about leaders (none: they are
        promoted by hand). With a leader, what others wrote and is not here yet has no
        effect, and is in `rescue`; with all, what a leader wrote and is not here yet.
        Raises `Refused` for one who is no owner, or where voters have a leader and this
        is not it (see `LeaderFollowerManager.switch_to_masters`), `Invalid`.
        """
        self.check_usable()
        self.check_outside()
        await switch(self, mode, [parse_device_id(voter) for voter in voters])

    async def links_synced(self) -> None:
        """Wait until all that is ours and theirs now is on both ends of the links of
        this device that carry this namespace, where they reach their peers: one does,
        or is waited for. Raises as `Link.synced`. Safe to cancel."""
        self.check_usable()
        await self._replica.links_synced(self.engine.keeper.namespace)

    @property
    def rescue(self) -> Rescue:
        """What was written here and does not count, and somebody may still want."""
        return Rescue(self)

    @property
    def recovery_key(self) -> str | None:
        """The printed owner key, while it is still in the folder beside the file.

        Write it down, keep it apart from the device, then delete that file.
        """
        return self._replica.identity.read_secret(f"recovery-{self.id[:8]}.txt")

    @property
    def index(self) -> Index:
        """The index of the log, by which the past is read."""
        if self._index is None:
            self._index = Index(self.engine, self._replica.writer)
        return self._index

    # --- checks -------------------------------------------------------------------

    def check_usable(self) -> None:
        self._replica.check_usable()
        if self.engine.is_cleared:
            raise Closed(f"{self.name or self.id[:8]} was cleared from this file")

    def check_may_write(self, document: DocumentId | None = None) -> None:
        """Raise `Refused` unless this device's grant covers the write.

        A restored or copied file has no grant until it is let in again; what is
        written until then waits in it.
        """
        self.engine.check_leads()
        grant = self.grant
        if grant is None and self.engine.actor is None:
            raise Refused(
                Code.NOT_GRANTED,
                f"this device was never let in to {self.name or self.id[:8]}; join it "
                "by an invite",
                retry="after_action",
            )
        if grant is None:
            return
        if not grant.ops & Ops.WRITE:
            raise Refused(
                Code.NOT_GRANTED,
                f"this device may read but not write in {self.name or self.id[:8]}",
                retry="after_action",
            )
        if document is not None and not allows(grant, document):
            raise Refused(
                Code.NOT_GRANTED, f"this device may not write {document}", path=document
            )

    @property
    def is_member(self) -> bool:
        """Whether this device is known to be let in: it has a grant that holds."""
        membership = self.engine.keeper.membership
        return membership.grant_of(DeviceId(self._replica.key.public)) is not None

    @property
    def is_new(self) -> bool:
        """Whether it was joined and has not come in from any peer yet."""
        return self.engine.keeper.membership.genesis is None

    @property
    def grant(self) -> Grant | None:
        """The grant under which this device acts."""
        if self.engine.grant is None:
            return None
        return self.engine.keeper.membership.grants.get(self.engine.grant)

    def collection_of(self, kind: Any) -> str:
        """Return a class's collection, which is kept as a table from now on."""
        self._replica.tables.declare(kind)
        return model.collection_of(kind)

    # --- writing ------------------------------------------------------------------

    def transaction(
        self, operation_id: str | None = None, *, wait: bool = True
    ) -> Transaction:
        """Return a transaction, to be used with `async with`.

        Leaving the block means: on this disk (with `wait=False`: on its way there;
        await `tx.receipt`). An exception inside writes nothing. A retry with the
        same `operation_id` has no second effect. Safe to cancel.
        """
        return Transaction(self, operation_id, wait)

    # --- reading ------------------------------------------------------------------

    @overload
    async def get(self, kind: str) -> Map[str, Any]: ...
    @overload
    async def get(self, kind: str, *, default: Other) -> Map[str, Any] | Other: ...
    @overload
    async def get(self, kind: Callable[..., D], id: str) -> D: ...
    @overload
    async def get(
        self, kind: Callable[..., D], id: str, default: Other
    ) -> D | Other: ...
    async def get(self, kind: Any, id: Any = None, default: Any = _MISSING) -> Any:
        """Return a snapshot: of a typed document, or of `collection/id` as a map.

        Raises `NotFound` without a default.
        """
        self.check_usable()
        if isinstance(kind, str):
            name = parse_document_id(kind)
        else:
            name = document_id(self.collection_of(kind), id)
        await self.engine.whole()
        (view,) = self._views([name])
        if view is None:
            if default is not _MISSING:
                return default
            raise NotFound(f"there is no {name}")
        return _shown(kind, view)

    def _views(self, names: Iterable[DocumentId]) -> list[View | None]:
        """Return how documents stand, without a transaction that is open; None: not
        there."""
        views: list[View | None] = []
        with self.engine.as_before(names):
            for name in names:
                document = self.engine.documents.find(name)
                if document is None or not document.visible:
                    views.append(None)
                else:
                    pending = self.is_pending(document)
                    version = self.engine.version
                    views.append(View(document, None, pending=pending, version=version))
        return views

    def is_pending(self, document: State) -> bool:
        """Whether a change of this device to `document` is in no batch yet."""
        actor = self.engine.actor
        if actor is None or actor not in document.touches:
            return False
        head = self.engine.keeper.heads.get(actor)
        return document.touches[actor][0] > (head.seq if head else 0)

    @overload
    def documents(
        self, kind: str, prefix: str = ""
    ) -> AsyncIterator[tuple[str, Map[str, Any]]]: ...
    @overload
    def documents(
        self, kind: Callable[..., D], prefix: str = ""
    ) -> AsyncIterator[D]: ...
    async def documents(self, kind: Any, prefix: str = "") -> AsyncIterator[Any]:
        """Yield snapshots in id order: typed, or (id, map) of a collection's name."""
        self.check_usable()
        collection = kind if isinstance(kind, str) else self.collection_of(kind)
        check_collection(collection)
        names = list(self.engine.documents.names(collection, prefix))
        for start in range(0, len(names), PAGE_DOCUMENTS):
            await self.engine.whole()
            self.check_usable()
            page = names[start : start + PAGE_DOCUMENTS]
            for name, view in zip(page, self._views(page), strict=True):
                if view is None:
                    continue
                snapshot = _shown(kind, view)
                if isinstance(kind, str):
                    yield name.partition("/")[2], snapshot
                else:
                    yield snapshot

    def collections(self) -> list[tuple[str, int]]:
        """Return (collection, number of documents), as on disk."""
        self.check_usable()
        return self.engine.documents.collections()

    async def conflicts(self, kind: Any, id: str | None = None) -> list[Conflict]:
        """Return what conflicts of a document were seen here, the oldest first: what
        lost, also what somebody replaced since, and what went with an element that
        another deleted.

        `conflicts(Note, "groceries")`, or `conflicts("note/groceries")`. A journal of
        this device: another one may have seen others.
        """
        self.check_usable()
        if isinstance(kind, str):
            name = parse_document_id(kind)
        else:
            name = document_id(model.collection_of(kind), id or "")
        await self.engine.flush()
        return list(history.conflicts(self.engine.keeper, name))

    async def lost_values(
        self, kind: Any, id: str | None = None, field: str | None = None
    ) -> list[LostValue]:
        """Return the values that lost to concurrent writes and nobody replaced since.

        `lost_values(Note, "groceries", "title")`; or `lost_values("note/groceries")`
        for all fields, `lost_values("note/groceries/title")`. The same on every
        replica.
        """
        self.check_usable()
        if isinstance(kind, str):
            lens, within = None, kind if kind.count("/") > 1 else None
            name = parse_document_id(history.steps_of(kind)[0] if within else kind)
        else:
            name = document_id(model.collection_of(kind), id or "")
            lens = model.lens_of(kind, field or "")
            field = None if field is None else model.stored_name(kind, field)
            within = None
        await self.engine.whole()
        with self.engine.as_before([name]):
            document = self.engine.documents.find(name)
            if document is None:
                raise NotFound(f"there is no {name}")
            if lens is not None:
                path = document.path(None, lens.new)
                with contextlib.suppress(NotFound):  # nobody wrote it
                    keeper = self.engine.keeper
                    return history.why(document, path, [lens.new], keeper, lens).over
                return []
            return [
                lost
                for key, lost in self._lost(document, None, Type.MAP)
                if field is None or key == field
                if within is None or f"{lost.path}/".startswith(f"{within}/")
            ]

    def _lost(
        self, document: State, container: ContainerId, type_: int
    ) -> Iterator[tuple[str, LostValue]]:
        state = document.state(container, type_)
        slots: Any = getattr(state, "slots", {})
        elements = state.elements() if isinstance(state, ListState) else ()
        order = {name: f"{at}" for at, name in enumerate(elements)}
        for key, slot in slots.items():
            name = key if isinstance(key, str) else order[key]
            for index, entry in enumerate(slot):
                if index and entry.hlc:  # a seed that others wrote over is no loss
                    path = document.path(container, name)
                    devices = self.engine.keeper.membership.actors
                    place = (container, key)
                    lost = history.lost_value(document, path, entry, devices, place)
                    yield name, lost
                if entry.type in (Type.MAP, Type.LIST, Type.TREE):
                    for _, lost in self._lost(document, entry.container, entry.type):
                        yield name, lost
        if isinstance(state, TreeState):
            for node, _ in state.nodes():
                for _, lost in self._lost(document, node, Type.MAP):
                    yield node_id(node), lost

    @property
    def version(self) -> str:
        """What this shows now, for `at`: the changes that it knows."""
        self.check_usable()
        return encode_version(self.engine.version)

    def token(self) -> str:
        """Return what names all that shows here now, for a session: another replica
        that has `reached` it shows no less. Short, whatever the history."""
        self.check_usable()
        return sessions.token_of(self)

    async def reached(self, token: str, *, timeout_ms: int = 5_000) -> None:
        """Wait until all that a session has seen shows here. Raises `StaleRead` when it
        does not in time, `HistoryDiverged` when it never will, `Invalid`. Safe to
        cancel."""
        await sessions.reach(self, token, timeout_ms)

    async def at(self, when: str | datetime | Change) -> Past:
        """Return this namespace as it was: at a version (`space.version`,
        `note.meta.version`), right after a change (what its author saw), or at a time
        by the clocks of the authors.

        `old = await (await space.at(version)).get(Note, "groceries")`. What was written
        here is signed with it; the first time the log is indexed, then the history of
        each document that is asked for is read, and nothing else. Raises `Invalid`,
        and `NotFound` for a change that is not here. Safe to cancel.
        """
        self.check_usable()
        self.check_outside()
        await self.index.ready()
        return Past(self, self.index, when.id if isinstance(when, Change) else when)

    async def diff(
        self,
        kind: Any,
        id: str | None = None,
        *,
        before: str | datetime | Change,
        after: str | datetime | Change | None = None,
    ) -> list[Difference]:
        """Return how a document differs between two moments (None: now).

        `await space.diff(Note, "groceries", before=version)`. Raises as `at` does.
        """
        views: list[View | None] = []
        for when in (before, after):
            if when is None:
                seen = await self._snapshot(kind, id)
            else:
                seen = await self._past_snapshot(await self.at(when), kind, id)
            views.append(None if seen is None else view_of(seen))
        return differences(views[0], views[1])

    async def _snapshot(self, kind: Any, id: str | None) -> Any:
        if isinstance(kind, str):
            return await self.get(kind, default=None)
        return await self.get(kind, id or "", None)

    async def _past_snapshot(self, past: Past, kind: Any, id: str | None) -> Any:
        if isinstance(kind, str):
            return await past.get(kind, default=None)
        return await past.get(kind, id or "", None)

    def undoing(
        self,
        kind: Any = None,
        id: str | None = None,
        *,
        since: datetime | None = None,
    ) -> Undoing:
        """Return what takes back, and does again, what this device did: to a document,
        or (without one) anywhere, from a moment on (None: ever).

        `history = space.undoing(Note, "groceries")`, then `await history.undo()` and
        `await history.redo()`. Typing of one second is one step. It goes on after a
        restart, and takes back nothing of what others did.
        """
        self.check_usable()
        name: DocumentId | None = None
        if isinstance(kind, str):
            name = parse_document_id(kind)
        elif kind is not None:
            name = document_id(self.collection_of(kind), id or "")
        if since is not None and since.tzinfo is None:
            raise Invalid("a moment has a time zone: datetime.now(UTC), say")
        since_ms = 0 if since is None else int(since.timestamp() * 1000)
        return Undoing(self, name, since_ms)

    async def fork(self, name: str) -> Branch:
        """Begin a branch at what is here now: edit it with `branch.transaction()`,
        compare with `branch.diff`, then `merge` or `discard` it.

        It is kept in this file, for this device alone, until then. Raises
        `AlreadyExists`, `Invalid`. Safe to cancel.
        """
        self.check_usable()
        self.check_outside()
        self.check_may_write()
        return await branches.fork(self, name)

    async def branch(self, name: str) -> Branch:
        """Return a branch that was begun here before; raises `NotFound`."""
        self.check_usable()
        self.check_outside()
        return await branches.reopen(self, name)

    def branches(self) -> list[str]:
        """Return the names of the branches that are kept here."""
        self.check_usable()
        return branches.names(self)

    async def why(
        self, kind: Any, id: str | None = None, field: str | None = None
    ) -> Why:
        """Return why a field shows what it shows: whose write, by what rule, over what.

        `why(Note, "groceries", "title")`, or `why("note/groceries/title")` with as many
        steps as it is deep. Raises `NotFound`.
        """
        self.check_usable()
        path = _field_path(kind, id, field)
        lens = None if isinstance(kind, str) else model.lens_of(kind, field or "")
        await self.engine.whole()
        with self._document_of(path) as (document, steps):
            return history.why(document, path, steps, self.engine.keeper, lens)

    async def blame(
        self, kind: Any, id: str | None = None, field: str | None = None
    ) -> list[Passage]:
        """Return who wrote which part of a text, and when, in the order of the text.

        `blame(Note, "groceries", "body")`, or `blame("note/groceries/body")`. It reads
        that text's history; what was written here is signed with it. Raises `NotFound`.
        """
        self.check_usable()
        self.check_outside()
        path = _field_path(kind, id, field)
        await sealed(self.engine)
        await self.engine.whole()
        with self._document_of(path) as (document, steps):
            container = history.text_at(document, path, steps)
            return history.blame(document, container, self.engine.keeper)

    @contextlib.contextmanager
    def _document_of(self, path: str) -> Generator[tuple[State, list[str]], None, None]:
        """Give the document of a field's path, without a transaction that is open, and
        the steps to the field; never await inside. Raises `NotFound`."""
        name_, steps = history.steps_of(path)
        name = parse_document_id(name_)
        with self.engine.as_before([name]):
            document = self.engine.documents.find(name)
            if document is None or not document.visible:
                raise NotFound(f"there is no {name}")
            yield document, steps

    async def history(
        self, kind: Any, id: str | None = None, *, limit: int = 100
    ) -> list[Change]:
        """Return up to `limit` changes of a document, the newest first.

        `history(Note, "groceries")`, `history("note/groceries")`, or of a collection:
        `history("note")`. It reads what touched these and nothing else, once the log is
        indexed; what was written here is signed with it, so that it is in the log.
        """
        self.check_usable()
        self.check_outside()
        if not isinstance(kind, str):
            kind = document_id(model.collection_of(kind), id or "")
        path: str = kind
        await self.index.ready()
        return history.newest_of(self.engine.keeper, self.index, path, limit)

    async def sql(self, query: str, *params: Any) -> list[SqlRow]:
        """Return the rows of a query over the typed collections of this namespace.

        `await space.sql("SELECT title, likes FROM note WHERE pinned = ?", 0)`; named
        parameters are given as one mapping. A table has the document's `id` and a
        column for each field: datetimes as text, what merges or nests as JSON. It
        shows what is on disk, so it waits for what is on its way there. Reads only,
        and only this namespace; raises `Invalid`. Safe to cancel.
        """
        self.check_usable()
        self.check_outside()
        replica, engine = self._replica, self.engine
        await replica.tables.ready()
        if not engine.all_on_disk:
            await engine.flush()
        given: Any = params
        if len(params) == 1 and isinstance(params[0], Mapping):
            (given,) = params
        return await replica.store.query(replica.tables.views(engine.ns), query, given)

    async def search(
        self, kind: type[Document], words: str, *, limit: int = 20
    ) -> list[Found]:
        """Return up to `limit` documents in whose `Searchable` fields the words stand,
        the best first.

        `await space.search(Note, "milk eggs")`; words in the syntax of SQLite's FTS5
        (`"whole phrase"`, `mil*`, `milk OR eggs`, `milk NOT eggs`). It shows what is on
        disk, as `sql` does. Raises `Invalid`.
        """
        self.check_usable()
        self.check_outside()
        collection = self.collection_of(kind)
        replica, engine = self._replica, self.engine
        await replica.tables.ready()
        if not engine.all_on_disk:
            await engine.flush()
        table = replica.tables.find(collection)
        if table is None or table.search is None:
            raise Invalid(
                f"{kind.__name__} has no Searchable field: declare body: "
                "Searchable[Text], say"
            )
        if type(limit) is not int or not 1 <= limit <= SEARCH_MAX:
            raise Invalid(f"a search finds 1 to {SEARCH_MAX} documents")
        try:
            rows = replica.store.read(table.searching(), words, engine.ns, limit)
        except StoreError as error:
            said = error.__cause__
            if getattr(said, "sqlite_errorname", "") != "SQLITE_ERROR":
                raise
            raise Invalid(f"{words!r:.60} is no search: {said}") from None
        return [Found(id, extract) for id, extract in rows]

    async def watch_sql(
        self, query: str, *params: Any
    ) -> AsyncGenerator[list[SqlRow], None]:
        """Yield the rows of a query as they are, then whenever they are others.

        As `sql` does it; who is slow sees the latest. It asks again when a document
        of a collection that the query names has changed. Ends when the replica is
        closed. Raises `Invalid`.
        """
        self.check_usable()
        named = set(_WORD.findall(query.lower()))
        steps = watch.query(self, named, lambda: self.sql(query, *params))
        async with contextlib.aclosing(steps):
            async for rows in steps:
                yield rows

    def subscribe(
        self,
        tell: Callable[[Any], Any],
        kind: Any,
        id: str | None = None,
        *,
        prefix: str = "",
    ) -> Subscription:
        """Call `tell` with what `watch` would yield, until it is cancelled or the
        replica is closed.

        `space.subscribe(show, Note, "groceries")`. Nobody has to hold what is returned.
        What `tell` raises is logged, and it is called again with the next change; if it
        is a coroutine function it is awaited, and changes meanwhile come as one.
        """
        watching: Any = self.watch
        if isinstance(kind, str) or id is None:
            steps = watching(kind, prefix=prefix)
        else:
            steps = watching(kind, id)
        return self._subscribed(steps, tell)

    def subscribe_sql(
        self, tell: Callable[[list[SqlRow]], Any], query: str, *params: Any
    ) -> Subscription:
        """Call `tell` with what `watch_sql` would yield; as `subscribe` does."""
        self.check_usable()
        return self._subscribed(self.watch_sql(query, *params), tell)

    def _subscribed(
        self, steps: AsyncGenerator[Any, None], tell: Callable[[Any], Any]
    ) -> Subscription:
        subscription = Subscription(steps, tell)
        self._subscriptions.add(subscription)
        subscription.task.add_done_callback(
            lambda _: self._subscriptions.discard(subscription)
        )
        return subscription

    # --- what goes on -------------------------------------------------------------

    @overload
    def watch(self, kind: str, *, prefix: str = "") -> AsyncGenerator[Any, None]: ...
    @overload
    def watch(
        self, kind: Callable[..., D], id: str
    ) -> AsyncGenerator[D | None, None]: ...
    @overload
    def watch(
        self, kind: Callable[..., D], *, prefix: str = ""
    ) -> AsyncGenerator[dict[str, D | None], None]: ...
    def watch(
        self, kind: Any, id: str | None = None, *, prefix: str = ""
    ) -> AsyncGenerator[Any, None]:
        """Yield what is shown now, then the latest whenever it has changed.

        `watch(Note, "groceries")` yields that document (None: it is not there);
        `watch(Note)` a dict of id to document: all of them, then those that changed
        (None: deleted). `watch("notes")` and `watch("notes/1")` do the same untyped.
        Own changes, and others', are seen as soon as they show here. Ends when the
        replica is closed; leave the loop to stop before. Raises `Invalid`.
        """
        self.check_usable()

        def shown(name: DocumentId) -> Any:
            (view,) = self._views([name])
            return None if view is None else _shown(kind, view)

        if isinstance(kind, str):
            if "/" in kind:
                return watch.document(self, parse_document_id(kind), shown)
            named = kind
        else:
            named = self.collection_of(kind)
            if id is not None:
                return watch.document(self, document_id(named, id), shown)
        check_collection(named)
        return watch.collection(self, named, prefix, shown)

    def changes(self, after: str | None = None) -> AsyncGenerator[Change, None]:
        """Yield every change of this namespace that is on this disk, then those that
        come, in the order of this file's log; keep `change.cursor` and go on there.

        `async for change in space.changes(after=cursor)`. A change is told once it is
        stored, with why it is void if it is; one that is stamped ahead of now shows
        when its time has come. While somebody follows, what is written here is signed
        with its commit. Ends when the replica is closed. Raises `Invalid` for a cursor
        of another file.
        """
        self.check_usable()
        return feed.changes(self, after)

    # --- JSON ---------------------------------------------------------------------

    async def dump(self, prefix: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """Yield a record for each document whose `collection/id` begins with `prefix`:
        what JSON can say, and the types that it cannot.

        `{"path": "note/1", "value": {...}, "types": {"/body": "text"}}`. Raises
        `Invalid` for a value without JSON form.
        """
        self.check_usable()
        for collection, _ in self.collections():
            names = list(self.engine.documents.names(collection, ""))
            for start in range(0, len(names), PAGE_DOCUMENTS):
                await self.engine.whole()
                self.check_usable()
                page = [
                    name
                    for name in names[start : start + PAGE_DOCUMENTS]
                    if name.startswith(prefix)
                ]
                for name in page:
                    with self.engine.as_before([name]):
                        document = self.engine.documents.find(name)
                        if document is None or not document.visible:
                            continue
                        record = exchange.dump(document)
                    yield record

    async def archive(self, path: StorePath) -> int:
        """Write this namespace with all of its history to a new file; return how many
        rows. `replica.unarchive` reads it, on any device.

        It holds no key: who reads it can show it, and takes part when let in by an
        invite. Raises `AlreadyExists`, and `OSError` from the disk.
        """
        self.check_usable()
        self.check_outside()
        name = path if isinstance(path, str) else path.__fspath__()
        return await archive.write(self, name)

    async def load(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Make documents what their records say, by edits where they differ; return
        how many there were.

        A transaction for each `PAGE_DOCUMENTS`: where a record is none, nothing of its
        own is written, and what earlier ones wrote stays. Raises `Invalid`.
        """
        count = 0
        waiting = iter(records)
        while page := list(itertools.islice(waiting, PAGE_DOCUMENTS)):
            async with self.transaction() as tx:
                for record in page:
                    tx.load(record)
            count += len(page)
        return count

    # --- editors ------------------------------------------------------------------

    def live(self, kind: Callable[..., D], id: str) -> "Live[D]":
        """Return a live document for an editor, to be used with `async with`."""
        return Live(self, kind, id)

    # --- members ------------------------------------------------------------------

    async def invite(
        self,
        ops: str = "write",
        *,
        hub: str = "",
        expires: timedelta = timedelta(hours=24),
        uses: int = 1,
    ) -> Invite:
        """Return an invite by which `uses` devices can join with `ops`.

        `ops` is "read", "write" or "lead" (vote, and be elected); `hub` the address
        that the newcomer is to dial (`link.hub`). Raises `Refused` without the right to
        issue grants.
        """
        self.check_usable()
        if ops not in ("read", "write", "lead"):
            raise Invalid(
                'an invite grants "read", "write" or "lead"; admins are granted'
            )
        if uses < 1:
            raise Invalid("an invite has at least one use")
        if not timedelta(0) < expires <= INVITE_LIFETIME_MAX:
            raise Invalid(f"an invite expires within {INVITE_LIFETIME_MAX.days} days")
        self.check_outside()
        replica, engine = self._replica, self.engine
        address = parse_address(hub).without_ticket if hub else ""
        accept_by = replica.clock.now_ms() + int(expires.total_seconds() * 1000)
        secret = replica.entropy.bytes(SECRET_BYTES)
        namespace = engine.keeper.namespace
        async with engine.turn:
            entry = self._issue(
                DeviceId(invite_key(secret, replica.scheme).public),
                ops,
                is_invite=True,
                accept_by_ms=accept_by,
                uses=uses,
            )
            name = entry_id(entry)
        await engine.flush()
        return Invite(namespace, name, secret, accept_by, OPS_BY_NAME[ops], address)

    async def grant_device(self, device: str, ops: str = "write") -> None:
        """Grant `ops` (read, write, lead or admin) to a device by its id.

        Raises `Invalid`, and `Refused` without the right to issue grants.
        """
        self.check_usable()
        subject = parse_device_id(device)
        if not self._replica.scheme.is_good_key(subject):
            raise Invalid(f"no device has the id {device!r}")
        self.check_outside()
        async with self.engine.turn:
            self._issue(subject, ops)
        await self.engine.flush()

    async def clear(self, *, lose_unsent: bool = False) -> None:
        """Take this namespace out of the file: its documents, its log, all of it.

        Other devices and hubs keep what they have; to take part again, join by an
        invite. Raises `Invalid`, and does nothing, while some change of this device's
        is on no other disk, unless `lose_unsent` says that it may be lost. Close what
        works on it first; what is used later raises `Closed`.
        """
        self.check_usable()
        self.check_outside()
        await self._replica.clear(self, lose_unsent=lose_unsent)

    def check_leaves(self) -> None:
        """What is written here goes to others."""

    def check_outside(self) -> None:
        """Raise `TransactionOpen` where waiting for the turn would wait for oneself."""
        owner = self.engine.owner
        if owner is not None and owner is asyncio.current_task():
            raise TransactionOpen(
                "end the transaction's block first: this waits for it"
            )

    def _issue(
        self,
        subject: DeviceId,
        ops: str,
        *,
        is_invite: bool = False,
        accept_by_ms: int | None = None,
        uses: int | None = None,
    ) -> Entry:
        engine, own = self.engine, self.grant
        if ops not in OPS_BY_NAME:
            raise Invalid('rights are "read", "write", "lead" or "admin"')
        if own is None or not own.ops & Ops.ADMIN or own.depth < 1:
            raise Refused(
                Code.NOT_GRANTED,
                "only a device with admin rights can invite or grant",
                retry="after_action",
            )
        membership = engine.keeper.membership
        entry = make_grant(
            self._replica.key,
            engine.keeper.namespace,
            membership.recent_heads(),
            parent=engine.grant,
            subject=subject,
            ops=OPS_BY_NAME[ops],
            depth=own.depth - 1,
            nonce=self._replica.entropy.bytes(16),
            scope=own.scope,
            is_invite=is_invite,
            accept_by_ms=accept_by_ms,
            uses=uses,
        )
        engine.keeper.append_own(entry)
        return entry

    # --- status -------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many own changes are in no batch yet."""
        return self.engine.pending_count()

    @property
    def divergences(self) -> list[DivergenceDetected]:
        """Documents that another member shows otherwise, for the same changes.

        Empty, or something is broken: run `syncengine doctor` on both files.
        """
        return list(self.engine.audit.found.values())

    def peers(self) -> list[PeerStatus]:
        """Return what each peer has, as last heard."""
        self.check_usable()
        keeper = self.engine.keeper
        return [
            PeerStatus(
                base32(device),
                max(0, self.engine.committed_position - record.acked),
                datetime.fromtimestamp(record.seen_ms / 1000, tz=UTC)
                if record.seen_ms
                else None,
            )
            for device, record in sorted(keeper.peers.items())
        ]


StateStore = Space
"""What the replication guide calls where a node keeps what it knows."""


def _field_path(kind: Any, id: str | None, field: str | None) -> str:
    """Return the path that a class, an id and a field mean; a path as it is."""
    if isinstance(kind, str):
        return kind
    stored = model.stored_name(kind, field or "")
    steps = (model.collection_of(kind), id or "", stored)
    return "/".join(map(values.escape, steps))


def _shown(kind: Any, view: View) -> Any:
    return model.untyped(view) if isinstance(kind, str) else model.typed(kind, view)
