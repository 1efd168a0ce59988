"""Multi-master: entities that any node writes, and what becomes of versions written at
once.

An entity is a document of one multi-value register, whose values are *versions*: data
with who wrote it, when, and what he knew (a vector clock). So all masters hold the same
set of versions of which none knew of another, and a conflict strategy is a pure
function of that set: nothing is written back, and masters with the same set show the
same.
"""

import asyncio
import contextlib
import hashlib
import inspect
import json
import logging
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from syncengine import values
from syncengine.conflicts.resolver import (
    ConflictEntry,
    ConflictResolver,
    CRDTMergeStrategy,
    CustomResolverStrategy,
    FieldMergeStrategy,
    Strategy,
)
from syncengine.conflicts.tagging import from_plain, to_plain
from syncengine.conflicts.vector_clock import VectorClock
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import ContainerId, Type
from syncengine.errors import Closed, Invalid, NotFound, NotLeader, StoreError
from syncengine.ids import DocumentId, parse_document_id, parse_node_id
from syncengine.log.batch import Batch, Header, split_payload
from syncengine.log.change import Touch
from syncengine.replication import feed
from syncengine.replication.feed import Change
from syncengine.replication.host import Bell, sealed
from syncengine.replication.pipeline import PipelineEmitter, PipelineReceiver
from syncengine.replication.telling import Handler, Handlers
from syncengine.replication.versions import (
    RESOLUTION_OPTIONS,
    VERSIONS,
    ConflictVersion,
    Entity,
    EntityConflict,
    Version,
    by_order,
    differ,
    has_one,
    read_versions,
    stored_conflicts,
    version_to_json,
)
from syncengine.storage.pipeline.contract import Pipeline
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

if TYPE_CHECKING:
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

ConflictStrategy = Literal["lww", "custom", "manual", "detect", "field", "crdt"]
STRATEGIES = ("lww", "custom", "manual", "detect", "field", "crdt")

MergeFn = Callable[["Entity", "Entity"], Any]

EVENTS = ("conflictDetected", "eventApplied")

MANAGER_CLOSED = "MANAGER_CLOSED"
EVENT_NOT_HERE = "EVENT_NOT_HERE"
EVENT_IS_VOID = "EVENT_IS_VOID"

# Versions of one entity that are kept beside each other by `manual`: what is beyond
# stays in the history, the earliest first.
VERSIONS_MAX = 64

# How far a version may be stamped ahead for the next one to be stamped behind it.
AHEAD_MS_MAX = 24 * 60 * 60 * 1000

# How long handlers may take to hear what is left, when a master is closed.
CLOSE_SECONDS = 5.0

# Between two times that it is kept how far events were told, in s.
SAVE_SECONDS = 5.0


@dataclass(frozen=True)
class MasterWriteResult:
    success: bool
    master_id: str
    entity_id: str
    queued: bool = False
    """Whether it waits here for the others to be reached"""
    vector_clock: dict[str, int] | None = None
    timestamp: int | None = None
    error: str | None = None
    error_code: str | None = None


@dataclass(frozen=True)
class ApplyResult:
    """What an event came to."""

    success: bool
    is_conflict: bool = False
    entity_ids: tuple[str, ...] = ()
    error: str | None = None
    error_code: str | None = None


@dataclass
class MasterMetrics:
    writes_local: int = 0
    events_applied: int = 0
    conflicts_detected: int = 0
    conflicts_resolved: int = 0
    merge_failures: int = 0
    """How often `merge_fn` raised, or returned nonsense"""
    event_buffer_size: int = 0
    vector_clock_nodes: int = 0


class MultiMasterManager:
    """A master: writes entities here at once, and takes in what others write.

        master = MultiMasterManager("master-eu", pipeline, space)
        await master.subscribe()
        await master.write("customer-123", {"name": "Alice"})

    Args:
        master_id: This master's name, its own among all.
        pipeline: What carries the namespace to the others; None: links do.
        state_manager: The space in which entities are kept.
        conflict_strategy: What shows of versions that were written at once. "lww": the
            latest. "field": of each field the latest. "crdt": as "field", and CRDTs in
            fields merge. "custom": what `merge_fn` makes of them. "manual": the latest
            for now, until somebody resolves it. "detect": the latest, and people are
            told. All masters of a namespace should have the same.
        merge_fn: For "custom": a function of two `Entity`s, the earlier one first, that
            returns one. It must depend on them alone.
        event_buffer_size: Packs of a pipeline that may wait for something before them.
        apply_timeout: How long `apply_remote_event` waits for an event, in ms.
        collection: Where entities are kept: documents `collection/entity_id`.
        debug: Call `merge_fn` twice, and tell when it is not a function of its input.

    Raises `Invalid` for what is none of these.
    """

    def __init__(
        self,
        master_id: str,
        pipeline: Pipeline | None,
        state_manager: "Space",
        conflict_strategy: ConflictStrategy = "lww",
        merge_fn: MergeFn | None = None,
        event_buffer_size: int = 1000,
        apply_timeout: int = 5000,
        *,
        collection: str = "entity",
        debug: bool = False,
    ):
        values.check_key(master_id, "master_id")
        if not master_id:
            raise Invalid("a master has a name", path="master_id")
        if conflict_strategy not in STRATEGIES:
            raise Invalid(
                f"there is no conflict strategy {conflict_strategy!r}; there are "
                f"{', '.join(STRATEGIES)}",
                path="conflict_strategy",
            )
        given: Any = merge_fn
        if given is not None and (
            not callable(given) or inspect.iscoroutinefunction(given)
        ):
            raise Invalid(
                "merge_fn is a function of two entities, and no coroutine function",
                path="merge_fn",
            )
        if (merge_fn is not None) != (conflict_strategy == "custom"):
            raise Invalid(
                "the strategy custom takes a merge_fn, and no other one does",
                path="merge_fn",
            )
        values.check_count(event_buffer_size, "event_buffer_size")
        values.check_count(apply_timeout, "apply_timeout")
        parse_document_id(f"{collection}_clock/{master_id}")
        self._master = master_id
        self._space = state_manager
        self._strategy: ConflictStrategy = conflict_strategy
        self._merge_fn = merge_fn
        self._apply_timeout = apply_timeout / 1000
        self._collection = collection
        self._prefix = f"{collection}/"
        self._debug = debug
        self._emitter: PipelineEmitter | None = None
        self._receiver: PipelineReceiver | None = None
        if pipeline is not None:
            name = f"master {collection}"
            self._emitter = PipelineEmitter(state_manager, pipeline, name=name)
            self._receiver = PipelineReceiver(
                state_manager, pipeline, name=name, waiting_max=event_buffer_size
            )
        self._metrics = MasterMetrics()
        self._handlers = Handlers(EVENTS)
        self._prefixes = f"{collection}/", f"{collection}_clock/"
        self._changed: dict[DocumentId, None] = {}
        self._bell = Bell()
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._told_bell = Bell()
        self._came = asyncio.Event()
        self._turn = asyncio.Lock()
        self._seen: dict[str, frozenset[tuple[str, int]]] = {}
        """The versions of entities that somebody was shown, who may decide"""
        self._pending: set[str] = set()
        """Entities about which somebody has to decide"""
        self._position = 0
        """Up to where others' changes were looked at"""
        self._applied = 0
        """Others' changes of entities since it was looked the last time"""
        self._later: dict[int, Batch] = {}
        """Of these, what has no effect yet: it waits for what it builds upon"""
        self._queue: deque[tuple[str, Any]] = deque()
        """Events that are still to be told"""
        self._ending = False
        self._saved_at = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._clock: VectorClock | None = None
        self._clock_of = 0

    @classmethod
    def of_file(
        cls, master_id: str, space: "Space", *, collection: str = "entity"
    ) -> "MultiMasterManager":
        """Return a master that leaves conflicts as the one that has the file decides
        them: for a person at a command line."""
        made = cls(master_id, None, space, "manual", collection=collection)
        _, strategies = made._place()
        if strategies:
            made._strategy = strategies[0]
            made._merge_fn = _only_the_application_knows
        return made

    # --- life -----------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Begin to take in what others write, and what was missed. Twice does
        nothing."""
        self._check_open()
        if self._task is not None:
            return
        engine = self._space.engine
        await self._load()
        engine.on_changed.append(self._note)
        engine.on_applied.append(self._note_applied)
        engine.on_stopped.append(self._ring)
        engine.log_grew.listen(self._ring)
        self._bell.set()
        self._task = asyncio.create_task(self._run())
        self._telling = asyncio.create_task(self._tell_all())
        for worker in (self._emitter, self._receiver):
            if worker is not None:
                await worker.start()

    async def drain(self) -> None:
        """Wait until the pipeline has all that was written here, or, where links carry
        it, until another one has all that is here on disk: before a master is removed.
        Waits for ever while offline: use `asyncio.timeout`. Safe to cancel."""
        self._check_open()
        if self._emitter is not None:
            await self._emitter.drained()
            return
        engine = self._space.engine
        await sealed(engine)
        until, waits = engine.committed_position, bool(engine.outbox)
        while waits or not any(
            peer.acked >= until for peer in engine.keeper.peers.values()
        ):
            await engine.progress.wait()
            self._check_open()
            if waits:  # it was not let in: what it wrote could go nowhere before
                await sealed(engine)
                until, waits = engine.committed_position, bool(engine.outbox)

    async def caught_up(self) -> None:
        """Wait until all that the pipeline has now is here, or all that is at the other
        end of the links that this device dials: of those that are reached, one at
        least; and conflicts are noted and told. Waits while offline. Safe to cancel."""
        self._check_open()
        if self._receiver is not None:
            await self._receiver.caught_up()
        else:
            await self._space.links_synced()
        await self._looked()
        task = self._telling
        while self._queue and task is not None and not task.done():
            if asyncio.current_task() is task:
                return  # a handler: the rest is told behind it
            await self._next_change()

    async def close(self) -> None:
        """Take in no more; what is written here waits in the file. Twice does nothing.
        Cancelled, it happens all the same."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        if asyncio.current_task() is not self._telling:  # a handler that closes goes on
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for worker in (self._receiver, self._emitter):
            if worker is not None:
                await worker.stop()
        task, engine = self._task, self._space.engine
        if task is None:
            return
        try:
            self._ending = True
            self._bell.set()
            await asyncio.wait([task])
            await self._end_telling()
            with contextlib.suppress(Closed, StoreError):
                self._space.check_usable()
                await self._save()
        finally:
            engine.on_changed.remove(self._note)
            engine.on_applied.remove(self._note_applied)
            engine.on_stopped.remove(self._ring)
            engine.log_grew.unlisten(self._ring)

    async def _end_telling(self) -> None:
        """Let handlers hear what was noted, unless they do not return."""
        telling = self._telling
        assert telling is not None, "it began with the other task"
        if telling is asyncio.current_task():
            return
        self._told_bell.set()
        await asyncio.wait([telling], timeout=CLOSE_SECONDS)
        if not telling.done():
            log.warning("%s: %d events are not told", self._master, len(self._queue))
            telling.cancel()
            await asyncio.wait([telling])

    async def __aenter__(self) -> "MultiMasterManager":
        await self.subscribe()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        self._space.check_usable()
        if self._closed:
            raise Closed("this master was closed; make another one")

    # --- what it is -----------------------------------------------------------------

    def get_master_id(self) -> str:
        return self._master

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more, also since its replica was closed."""
        return self._closed or self._space.is_closed

    def get_conflict_strategy(self) -> ConflictStrategy:
        return self._strategy

    def get_vector_clock(self) -> VectorClock:
        """Return how many writes of each master are known here."""
        return self._known_clock()

    def get_metrics(self) -> MasterMetrics:
        """Return what happened here since it was made, and what waits now."""
        buffered = 0 if self._receiver is None else self._receiver.waiting
        nodes = len(self._known_clock())
        return replace(
            self._metrics, event_buffer_size=buffered, vector_clock_nodes=nodes
        )

    def on(self, event: str, handler: Handler) -> None:
        """Call `handler`, which may be a coroutine function, with each event:
        "conflictDetected" (an `EntityConflict`), "eventApplied" (a `Change` of another
        master). What it raises is logged. Raises `Invalid`."""
        self._handlers.add(event, handler)

    def is_of(self, space: "Space") -> bool:
        """Whether it serves that space: after a restart of the replica it serves
        nobody."""
        return self._space is space

    def versions(self, entity_id: str) -> list[ConflictVersion]:
        """Return the versions of an entity that stand beside each other, the one that
        shows last; of one without conflict there is one."""
        found = sorted(self._versions(self._name(entity_id)), key=by_order)
        self._seen[entity_id] = frozenset(one.name for one in found)
        return [
            ConflictVersion(
                one.master,
                None if one.deleted else one.live_data(self._master),
                one.clock.to_json(),
                one.timestamp,
            )
            for one in found
        ]

    def session_token(self) -> str:
        """Return what names all that shows here now, for a session."""
        return self._space.token()

    async def caught_up_to(self, token: str, *, timeout_ms: int = 5_000) -> None:
        """Wait until what a session has seen shows here. Raises `StaleRead`,
        `HistoryDiverged`, `Invalid`. Safe to cancel."""
        self._check_open()
        await self._space.reached(token, timeout_ms=timeout_ms)

    # --- writing --------------------------------------------------------------------

    async def write(
        self, entity_id: str, data: Any, *, type: str | None = None
    ) -> MasterWriteResult:
        """Write an entity here, on this disk when this returns; others have it later.

        With "manual", versions that nobody decided about stay beside the new one.
        Raises `Invalid` for what cannot be stored.
        """
        return await self._write(entity_id, self._plain(data), type)

    async def delete(self, entity_id: str) -> MasterWriteResult:
        """Delete an entity: a version without data."""
        return await self._write(entity_id, None, None, deleted=True)

    async def resolve_conflict(
        self, entity_id: str, resolved_data: Any, *, conflict: str | None = None
    ) -> MasterWriteResult:
        """Decide: write what stands instead of the versions of a conflict (its id), or
        of those that were told, listed or asked for last; all that are here, if none
        was. A version that came in since stays beside it: nobody has seen it. Raises
        `NotFound` where there is nothing to decide."""
        here = {one.name for one in self._versions(self._name(entity_id))}
        seen = self._seen.get(entity_id, here)
        if conflict is not None:
            seen = self._named(entity_id, conflict)
        if len(here) < 2:
            raise NotFound(f"there is no conflict of {entity_id}")
        if not here & seen:
            raise NotFound(
                f"the versions of {entity_id} that were shown are no more; look at "
                "those that are here now"
            )
        return await self._write(
            entity_id, self._plain(resolved_data), None, resolve=here & seen
        )

    def _named(self, entity_id: str, conflict: str) -> frozenset[tuple[str, int]]:
        """Return the names of the versions of a conflict; raises `NotFound`."""
        engine = self._space.engine
        store, name = engine.keeper.store, self._name(entity_id)
        for one in stored_conflicts(store, engine.ns, name, pending=False):
            if one.id == conflict:
                return _names(one)
        raise NotFound(f"there is no conflict {conflict!r} of {entity_id}")

    async def _write(
        self,
        entity_id: str,
        data: Any,
        type_: str | None,
        *,
        resolve: Set[tuple[str, int]] | None = None,
        deleted: bool = False,
    ) -> MasterWriteResult:
        name = self._name(entity_id)
        if self._closed:
            return MasterWriteResult(
                False,
                self._master,
                entity_id,
                error="this master was closed",
                error_code=MANAGER_CLOSED,
            )
        try:
            result = await self._written(
                name, data, type_, resolve=resolve, deleted=deleted
            )
            self._seen.pop(entity_id, None)
            return result
        except NotLeader as error:
            return MasterWriteResult(
                False,
                self._master,
                entity_id,
                error=str(error),
                error_code=error.error_code,
            )

    async def _written(
        self,
        name: DocumentId,
        data: Any,
        type_: str | None,
        *,
        resolve: Set[tuple[str, int]] | None,
        deleted: bool,
    ) -> MasterWriteResult:
        async with self._space.transaction() as tx:
            versions = read_versions(tx[name].multi(VERSIONS))
            clock = self._known_clock()
            for one in versions:
                clock = VectorClock.merge(clock, one.clock)
            clock = clock.tick(self._master)
            version = self._made(name, versions, data, type_, clock, deleted=deleted)
            left: list[Version] = []
            if resolve is not None:
                left = [one for one in versions if one.name not in resolve]
            elif self._strategy != "detect" and self._shown(name, versions)[1]:
                # He saw the one that shows; the others wait for somebody to decide.
                left = sorted(versions, key=by_order)[:-1]
            left = left[1 - VERSIONS_MAX :]
            kept = [one.plain() for one in left]
            tx[name].multi(VERSIONS).set(version.plain(), *kept)
            tx[self._clock_name]["clock"] = clock.to_json()
            self._clock = clock  # for who writes before this is on disk
        self._metrics.writes_local += 1
        return MasterWriteResult(
            True,
            self._master,
            name.partition("/")[2],
            self._is_queued(),
            clock.to_json(),
            version.timestamp,
        )

    def _made(
        self,
        name: DocumentId,
        versions: list[Version],
        data: Any,
        type_: str | None,
        clock: VectorClock,
        *,
        deleted: bool,
    ) -> Version:
        shown, _ = self._shown(name, versions)
        now = self._space.engine.clock.now_ms()
        latest = max((one.timestamp for one in versions), default=0)
        now = max(now, min(latest, now + AHEAD_MS_MAX) + 1)
        stamps: dict[str, tuple[int, str]] = {}
        before, after = _fields(shown and shown.data), _fields(data)
        for field, value in after.items():
            # What he left as it was is of whoever wrote it.
            if shown and field in before and _same(to_plain(before[field]), value):
                stamps[field] = shown.stamps.get(field, shown.order)
        type_ = type_ or next((one.type for one in versions), self._collection)
        number = 1 + max((one.version for one in versions), default=0)
        return Version(self._master, data, clock, now, number, type_, stamps, deleted)

    def _plain(self, data: Any) -> Any:
        plain = to_plain(data)
        from_plain(plain, self._master)  # what others could not read is refused
        return plain

    def _is_queued(self) -> bool:
        if self._emitter is not None:
            running = self._emitter.is_running
            return not running or self._emitter.health == "degraded"
        return not self._space.engine.channels

    def _name(self, entity_id: str) -> DocumentId:
        values.check_key(entity_id, "entity_id")
        return parse_document_id(f"{self._collection}/{entity_id}")

    @property
    def _clocks(self) -> str:
        return f"{self._collection}_clock"

    @property
    def _clock_name(self) -> DocumentId:
        return parse_document_id(f"{self._clocks}/{self._master}")

    def _known_clock(self) -> VectorClock:
        """Return the clock: from the file the first time, also after a restart, and
        after a commit that failed: what was known by then is not known any more."""
        generation = self._space.engine.generation
        if self._clock is None or self._clock_of != generation:
            self._clock_of = generation
            self._clock = VectorClock()
            for name in list(self._space.engine.documents.names(self._clocks, "")):
                self._learn(name)
        return self._clock

    def _learn(self, name: DocumentId) -> None:
        """Take over what a master knows, as its document of that says."""
        assert self._clock is not None
        raw = self._value(name, None, Type.MAP)
        with contextlib.suppress(Invalid, AttributeError):
            counts = dict(raw.get("clock", {}))
            if name != self._clock_name:
                counts.pop(self._master, None)  # nobody else counts our writes
            self._clock = VectorClock.merge(self._clock, VectorClock(counts))

    def _value(self, name: DocumentId, container: ContainerId, type_: int) -> Any:
        """Return what a document holds, without a transaction that is open."""
        engine = self._space.engine
        with engine.as_before([name]):
            document = engine.documents.find(name)
            if document is None or not document.visible:
                return None
            return document.to_value(container, type_)

    def _versions(self, name: DocumentId) -> list[Version]:
        container = (VERSIONS, int(Type.MULTI))
        return read_versions(self._value(name, container, Type.MULTI) or ())

    # --- reading --------------------------------------------------------------------

    async def get_entity(self, entity_id: str) -> Entity | None:
        """Return what shows of an entity; None: there is none, or it was deleted."""
        name = self._name(entity_id)
        self._space.check_usable()
        await self._space.engine.whole()
        shown, conflicted = self._shown(name, self._versions(name))
        if shown is None:
            return None
        return shown.entity(entity_id, conflicted=conflicted)

    def _shown(
        self, name: DocumentId, versions: list[Version]
    ) -> tuple[Version | None, bool]:
        """Return (what shows of versions, whether somebody has to decide)."""
        if not versions:
            return None, False
        live = sorted((one for one in versions if not one.deleted), key=by_order)
        latest = max(versions, key=by_order)
        asks = differ(versions) and self._strategy in ("manual", "detect")
        merges = self._strategy in ("field", "crdt", "custom")
        if not live or (latest.deleted and not merges):
            return None, asks
        if len(live) == 1 or not merges:
            shown = live[-1]
            return replace(shown, data=shown.live_data(self._master)), asks
        try:
            return self._merged(name, live), False
        except Exception as error:
            self._metrics.merge_failures += 1
            log.warning("versions of %s could not be merged: %s", name, error)
            shown = live[-1]
            return replace(shown, data=shown.live_data(self._master)), True

    def _merged(self, name: DocumentId, live: list[Version]) -> Version:
        """Return what a strategy makes of versions; raises what it does."""
        latest, is_custom = live[-1], self._strategy == "custom"
        entries = [
            ConflictEntry(
                _given(name, one) if is_custom else one.live_data(),
                one.timestamp,
                one.master,
                one.clock,
                one.stamps,
            )
            for one in live
        ]
        decided = ConflictResolver(self._decider()).resolve(entries)
        clock = latest.clock
        for one in live[:-1]:
            clock = VectorClock.merge(clock, one.clock)
        data, version, type_ = decided.value, max(o.version for o in live), latest.type
        if is_custom:
            data, version, type_ = (data[key] for key in ("data", "version", "type"))
        stamps = {field: (int(at), by) for field, (at, by) in decided.stamps.items()}
        return Version(
            decided.node_id,
            from_plain(to_plain(data), self._master),
            clock,
            int(decided.timestamp),
            version,
            type_,
            stamps,
            deleted=False,
        )

    def _decider(self) -> Strategy:
        if self._strategy == "field":
            return FieldMergeStrategy()
        if self._strategy == "crdt":
            return CRDTMergeStrategy()

        def merge_fn(local: ConflictEntry, remote: ConflictEntry) -> ConflictEntry:
            return self._merge_two(local, remote)

        named = getattr(self._merge_fn, "__qualname__", repr(self._merge_fn))
        merge_fn.__qualname__ = named  # messages say whose it is
        return CustomResolverStrategy(merge_fn, debug=self._debug)

    def _merge_two(self, local: ConflictEntry, remote: ConflictEntry) -> ConflictEntry:
        """Let `merge_fn` decide between two entities."""
        assert self._merge_fn is not None
        both = [
            Entity(
                e.value["id"],
                e.value["type"],
                e.value["version"],
                e.value["data"],
                int(e.timestamp),
            )
            for e in (local, remote)
        ]
        merged = self._merge_fn(*both)
        if not isinstance(merged, Entity):
            raise Invalid(f"merge_fn returned {merged!r}; return an Entity")
        value = {
            "id": local.value["id"],
            "data": merged.data,
            "version": merged.version,
            "type": merged.type,
        }
        return ConflictEntry(value, merged.updated_at, remote.node_id)

    # --- conflicts ------------------------------------------------------------------

    async def get_conflicts(self) -> list[EntityConflict]:
        """Return all conflicts that were seen here, decided or not, the oldest
        first."""
        await self._looked()
        return self._stored(pending=False)

    async def get_pending_conflicts(self) -> list[EntityConflict]:
        """Return the conflicts that wait for somebody to decide, the oldest first."""
        await self._looked()
        return self._stored(pending=True)

    async def hot_entities(self, limit: int = 10) -> list[tuple[str, int]]:
        """Return the entities with most conflicts, and how many."""
        await self._looked()
        return [
            (entity, count)
            for entity, count in self._space.engine.keeper.store.read(
                "SELECT substr(entity, ?), count(*) AS n FROM _sync_versions "
                "WHERE ns = ? AND entity GLOB ? GROUP BY 1 ORDER BY n DESC, 1 LIMIT ?",
                *(len(self._collection) + 2, self._space.engine.ns, self._glob, limit),
            )
        ]

    def conflict_rate(self) -> float:
        """Return how many conflicts there were for each event that came in."""
        metrics = self._metrics
        return metrics.conflicts_detected / max(1, metrics.events_applied)

    @property
    def _glob(self) -> str:
        return f"{self._collection}/*"

    def _stored(self, *, pending: bool) -> list[EntityConflict]:
        engine = self._space.engine
        found = stored_conflicts(
            engine.keeper.store, engine.ns, self._glob, self._master, pending=pending
        )
        self._seen.update((c.entity_id, _names(c)) for c in found if not c.resolution)
        return found

    # --- what comes in --------------------------------------------------------------

    async def apply_remote_event(self, event: Change | str) -> ApplyResult:
        """Wait until a change (or its id) has come in here, and say what came of it:
        whether entities that it wrote have versions that somebody wrote at the same
        time. Waits up to `apply_timeout`, then the result says so. Safe to cancel."""
        self._check_open()
        name = event if isinstance(event, str) else event.id
        actor, seq = parse_node_id(name)
        engine = self._space.engine
        try:
            async with asyncio.timeout(self._apply_timeout):
                while engine.version.get(actor, 0) < seq:
                    await self._next_change()
        except TimeoutError:
            return ApplyResult(
                False,
                error=f"{name} has not come in here yet",
                error_code=EVENT_NOT_HERE,
            )
        await sealed(engine)
        await self._looked()
        change = feed.find(engine.keeper, name)
        if change.void is not None:
            why = f"{name} has no effect: {change.void}"
            return ApplyResult(False, error=why, error_code=EVENT_IS_VOID)
        own = [d for d in change.documents if d.startswith(self._prefix)]
        disputed = any(differ(self._versions(DocumentId(d))) for d in own)
        ids = tuple(document.partition("/")[2] for document in own)
        return ApplyResult(True, disputed, ids)

    async def _next_change(self) -> None:
        self._came.clear()
        await self._came.wait()

    def _note(self, document: State) -> None:
        self._came.set()
        if document.name.startswith(self._prefixes):
            if not self._changed:
                self._bell.set()
            self._changed[document.name] = None

    def _note_applied(self, header: Header, touches: list[Touch]) -> None:
        for touch in touches:
            if touch.document.startswith(self._prefix):
                author = self._space.engine.keeper.membership.actors.get(header.actor)
                self._applied += author != self._space.engine.key.public
                return

    def _ring(self) -> None:
        self._came.set()
        self._bell.set()

    async def _run(self) -> None:
        while True:
            await self._bell.heard()
            try:
                await self._process()
                if asyncio.get_running_loop().time() > self._saved_at + SAVE_SECONDS:
                    await self._save()
            except Closed:
                return
            except Exception as error:  # a full disk, say: again, a little later
                log.warning("conflicts could not be noted: %s", error)
                if self._ending:
                    return
                await asyncio.sleep(1)
                self._bell.set()
            if self._ending:
                return

    async def _tell_all(self) -> None:
        """Call the handlers, one event after the other."""
        while True:
            while self._queue:
                event, what = self._queue[0]
                if isinstance(what, EntityConflict) and self._handlers.has(event):
                    self._seen[what.entity_id] = _names(what)
                await self._handlers.tell(event, what)
                self._queue.popleft()
                self._came.set()
            if self._ending:
                return
            await self._told_bell.heard()

    async def _looked(self) -> None:
        """Look at what changed by now. Cancelled, it happens all the same."""
        if self._task is not None and not self._task.done():
            await asyncio.shield(asyncio.ensure_future(self._process()))

    async def _process(self) -> None:
        """Look at what changed since the last time: note conflicts, and what to
        tell."""
        self._space.check_usable()
        engine = self._space.engine
        async with self._turn:
            await engine.whole()
            changed, self._changed = self._changed, {}
            try:
                entities = list(filter(self._is_entity, changed))
                if self._clock is not None and len(entities) < len(changed):
                    for name in changed:
                        if not self._is_entity(name):
                            self._learn(name)
                found = [self._conflict_of(name) for name in entities]
                new = await self._keep(list(filter(None, found)), entities)
            except BaseException:
                self._changed = {**changed, **self._changed}
                raise
            self._metrics.conflicts_detected += len(new)
            self._queue += [("conflictDetected", conflict) for conflict in new]
            if self._handlers.has("eventApplied"):
                events = self._others()
                self._queue += [("eventApplied", event) for event in events]
            elif engine.delivery.waiting_count:
                self._others()  # nobody is to be told; what waits is looked at later
            else:
                self._position = engine.committed_position
                self._later.clear()
            self._metrics.events_applied, self._applied = (
                self._metrics.events_applied + self._applied,
                0,
            )
            if self._queue:
                self._told_bell.set()

    def _is_entity(self, name: DocumentId) -> bool:
        return name.startswith(self._prefix)

    def _others(self) -> list[Change]:
        """Return what others wrote to entities, and has its effect since the last
        time."""
        engine = self._space.engine
        until = engine.committed_position
        while self._position < until:
            rows = engine.keeper.rows_after(self._position, feed.READ_ROWS)
            for at, row in rows:
                if at > until:
                    break
                if isinstance(row, Batch) and not self._is_own(row):
                    self._later[at] = row
                self._position = at
            if not rows or rows[-1][0] > until:
                break
        version, found = engine.version, list[Change]()
        for at, row in list(self._later.items()):
            if version.get(engine.keeper.branch_of(row), 0) < row.header.end:
                continue
            del self._later[at]
            for change in feed.told(engine.keeper, at - 1, at, row):
                own = any(self._is_entity(DocumentId(d)) for d in change.documents)
                if own and change.void is None:
                    found.append(change)
        return found

    def _is_own(self, row: Batch) -> bool:
        engine = self._space.engine
        author = engine.keeper.membership.actors.get(row.header.actor)
        return author == engine.key.public

    def _is_single(self, name: DocumentId) -> bool:
        """Whether there is at most one version, as there nearly always is."""
        engine = self._space.engine
        if engine.draft is not None:
            with engine.as_before([name]):
                return has_one(engine.documents.find(name))
        return has_one(engine.documents.find(name))

    def _conflict_of(self, name: DocumentId) -> EntityConflict | None:
        if self._is_single(name):
            return None
        versions = sorted(self._versions(name), key=by_order)
        if not differ(versions):
            return None
        named = values.encode(sorted(one.name for one in versions))
        told = [
            ConflictVersion(
                one.master, one.live_data(), one.clock.to_json(), one.timestamp
            )
            for one in versions
        ]
        now = self._space.engine.clock.now_ms()
        entity = name.partition("/")[2]
        id_ = hashlib.blake2b(name.encode() + named, digest_size=16).hexdigest()
        return EntityConflict(id_, entity, now, told, list(RESOLUTION_OPTIONS))

    async def _keep(
        self, found: list[EntityConflict], entities: list[DocumentId]
    ) -> list[EntityConflict]:
        """Write down conflicts that are new, and those that are decided; return the
        new ones."""
        engine = self._space.engine
        current = {conflict.entity_id: conflict.id for conflict in found}
        known = self._known([conflict.id for conflict in found])
        new = [conflict for conflict in found if conflict.id not in known]
        now = engine.clock.now_ms()
        how = {conflict.id: self._decides(conflict.entity_id) for conflict in found}
        writes: list[tuple[str, tuple[Any, ...]]] = []
        settled: set[str] = set()

        def decided(entity: str, how: str, but: str) -> None:
            given = (now, how, engine.ns, self._name(entity), bytes.fromhex(but))
            writes.append((sql.RESOLVE_VERSIONS, given))

        for name in entities if self._pending else ():
            entity = name.partition("/")[2]
            waits = current.get(entity, "")
            if entity in self._pending and waits not in known:
                decided(entity, "superseded" if waits else "resolved", waits)
                settled.add(entity)
        for one in new:
            told = json.dumps([version_to_json(version) for version in one.versions])
            name = self._name(one.entity_id)
            row = (engine.ns, bytes.fromhex(one.id), name, one.detected_at)
            writes.append((sql.PUT_VERSIONS, (*row, told)))
            if (by := how[one.id]) is not None:
                decided(one.entity_id, by, "")
        # What another strategy left: a conflict that stands is as ours has it.
        left = [
            replace(one, detected_at=known[one.id][0])
            for one in found
            if one.id in known
            and (was := known[one.id][1]) != how[one.id]
            and was in (None, *STRATEGIES)
        ]
        for one in left:
            by = how[one.id]
            given = (by and now, by, engine.ns, bytes.fromhex(one.id))
            writes.append((sql.SETTLE_VERSIONS, given))
        if writes:
            await asyncio.gather(*(engine.also(((s,), g)) for s, g in writes))
        self._metrics.conflicts_resolved += len(settled)
        self._pending -= settled
        waiting = {c.entity_id for c in found if how[c.id] is None}
        self._pending = (self._pending - current.keys()) | waiting
        # Those asked of somebody for the first time are told, too.
        return [
            one
            if (by := how[one.id]) is None
            else replace(one, resolved_at=now, resolution=by)
            for one in (*new, *(one for one in left if how[one.id] is None))
        ]

    def _decides(self, entity_id: str) -> str | None:
        """Return the strategy, where it decides about an entity; None: somebody has
        to, also where versions could not be merged."""
        name = self._name(entity_id)
        asks = self._shown(name, self._versions(name))[1]
        return None if asks else self._strategy

    def _known(self, ids: list[str]) -> dict[str, tuple[int, str | None]]:
        """Return of the conflicts that are written down since when, and how they were
        decided; None: they are not yet."""
        store, ns = self._space.engine.keeper.store, self._space.engine.ns
        asked = (
            "SELECT detected_at, resolution FROM _sync_versions WHERE ns = ? AND id = ?"
        )
        rows = [(id_, store.read(asked, ns, bytes.fromhex(id_))) for id_ in ids]
        return {id_: (found[0][0], found[0][1]) for id_, found in rows if found}

    # --- what was missed ------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"master/{self._space.engine.ns}/{self._collection}"

    async def _load(self) -> None:
        """Find what came in while nobody looked."""
        engine = self._space.engine
        self._position, strategies = self._place()
        for name, pending in engine.keeper.store.read(
            "SELECT entity, max(resolved_at IS NULL) FROM _sync_versions "
            "WHERE ns = ? AND entity GLOB ? GROUP BY entity",
            *(engine.ns, self._glob),
        ):
            if pending:
                self._pending.add(name.partition("/")[2])
            if pending or strategies != [self._strategy]:
                self._changed[DocumentId(name)] = None
        done, until = self._position, engine.committed_position
        while done < until and (
            found := engine.keeper.rows_after(done, feed.READ_ROWS)
        ):
            done = found[-1][0]
            batches = [row for _, row in found if isinstance(row, Batch)]
            parts = [
                part for row in batches for part in split_payload(row.payload).parts
            ]
            names = [DocumentId(name) for name, _ in parts]
            self._changed.update(dict.fromkeys(filter(self._is_entity, names)))

    def _place(self) -> tuple[int, list[ConflictStrategy]]:
        """Return (up to where others' changes were looked at, with which strategy)."""
        keeper = self._space.engine.keeper
        rows = keeper.store.read(
            "SELECT value FROM _sync_meta WHERE key = ?", self._key
        )
        if not rows:
            return 0, []
        position, chain, *strategies = values.decode(rows[0][0])
        is_here = keeper.chain_at(position) == chain
        return position if is_here else 0, strategies

    async def _save(self) -> None:
        engine = self._space.engine
        position = min(self._later, default=self._position + 1) - 1
        self._saved_at = asyncio.get_running_loop().time()
        chain = engine.keeper.chain_at(position) or b""
        place = [position, chain, self._strategy]
        writes = Writes()
        writes.add(sql.PUT_META, self._key, values.encode(place))
        await engine.keeper.store.commit(writes)


def _given(name: DocumentId, one: Version) -> dict[str, Any]:
    return {
        "id": name.partition("/")[2],
        "data": one.live_data(),
        "version": one.version,
        "type": one.type,
    }


def _fields(data: Any) -> dict[str, Any]:
    return cast(dict[str, Any], data) if isinstance(data, dict) else {}


def _same(one: Any, other: Any) -> bool:
    return values.canonical(one) == values.canonical(other)


def _names(conflict: EntityConflict) -> frozenset[tuple[str, int]]:
    versions = conflict.versions
    return frozenset(
        (v.master_id, v.vector_clock.get(v.master_id, 0)) for v in versions
    )


def _only_the_application_knows(local: Entity, remote: Entity) -> Entity:
    raise Invalid("only the application knows how to merge these")
