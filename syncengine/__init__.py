"""Offline-first documents that sync: a plain SQLite file, every device the same.

    import syncengine

    class Note(syncengine.Document):
        title: str
        body: syncengine.Text = syncengine.Text()

    async with syncengine.open("notes.db") as replica:
        space = await replica.namespace("family")
        async with space.transaction() as tx:
            tx.create(Note, "groceries", title="Groceries")

Names are loaded when they are first used: a hub never loads the document code.
"""

import os
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

from syncengine.errors import (
    AlreadyExists,
    ClockSuspect,
    Closed,
    Compacted,
    ConnectionLost,
    DivergenceDetected,
    Fenced,
    FrozenDocument,
    HistoryDiverged,
    Invalid,
    InviteExpired,
    InviteUsed,
    Moved,
    NewerFormat,
    NotFound,
    NotLeader,
    NotOurs,
    OutcomeUnknown,
    OutOfRange,
    PipelineError,
    PositionConflict,
    PromotionFailed,
    ProtocolError,
    Refused,
    StaleRead,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    SyncError,
    TooLarge,
    TransactionClosed,
    TransactionOpen,
    WrongLoop,
)
from syncengine.ids import NamespaceId, parse_namespace_id
from syncengine.limits import MOVED_KEEP_SECONDS
from syncengine.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from syncengine.conflicts.crdts import (
        GCounter,
        GSet,
        LWWRegister,
        MVRegister,
        ORSet,
        PNCounter,
    )
    from syncengine.conflicts.resolver import (
        ConflictEntry,
        ConflictResolver,
        CRDTMergeStrategy,
        CustomResolverStrategy,
        FieldMergeStrategy,
        LastWriteWinsStrategy,
        MergeWarning,
        Resolution,
        Strategy,
        VersionVectorStrategy,
    )
    from syncengine.conflicts.tagging import register_crdt
    from syncengine.conflicts.vector_clock import VectorClock
    from syncengine.crdt.marks import MarkRange, Span
    from syncengine.crdt.sequence.state import Edit
    from syncengine.documents.comparing import Difference
    from syncengine.documents.fields import List, Map, Node, Tree
    from syncengine.documents.leaves import Counter, FloatCounter, MultiValue, Set
    from syncengine.documents.lenses import Converted, Renamed
    from syncengine.documents.model import Document
    from syncengine.documents.record import Record
    from syncengine.documents.shape import Indexed, Searchable, Whole
    from syncengine.documents.text import Text
    from syncengine.replication.branches import Branch
    from syncengine.replication.election import Lease
    from syncengine.replication.feed import (
        Change,
        WriteEvent,
        validate_event_timestamp,
    )
    from syncengine.replication.fleet import Fleet, HubLoad
    from syncengine.replication.history import Conflict, LostValue, Passage, Why
    from syncengine.replication.hub import Admit, Hub
    from syncengine.replication.leader_follower import (
        HeartbeatService,
        LeaderFollowerManager,
    )
    from syncengine.replication.live import Live
    from syncengine.replication.multi_master import (
        ApplyResult,
        MasterMetrics,
        MasterWriteResult,
        MultiMasterManager,
    )
    from syncengine.replication.past import Past
    from syncengine.replication.pipeline import PipelineEmitter, PipelineReceiver
    from syncengine.replication.replica import Opening, Replica
    from syncengine.replication.rescue import Rescue, Rescued
    from syncengine.replication.roles import (
        FollowerInfo,
        FollowerState,
        LeaderFollowerWriteResult,
        LeaderState,
        ReadResult,
        ReplicationRole,
    )
    from syncengine.replication.space import Found, Space, StateStore
    from syncengine.replication.subscriber import EventSubscriber, SubscriberMetrics
    from syncengine.replication.transaction import Receipt, Transaction
    from syncengine.replication.undo import Undoing
    from syncengine.replication.versions import (
        ConflictVersion,
        Entity,
        EntityConflict,
    )
    from syncengine.replication.watch import Subscription
    from syncengine.storage.checkpoints import (
        CheckpointStore,
        CheckpointTransaction,
        DeadLetter,
    )
    from syncengine.storage.pipeline.contract import Pipeline
    from syncengine.storage.pipeline.memory import MemoryPipeline
    from syncengine.storage.pipeline.sqlite import SqlitePipeline
    from syncengine.storage.store import StorePath
    from syncengine.trust.invite import Invite

_HOMES = {
    "StateStore": "syncengine.replication.space",
    "WriteEvent": "syncengine.replication.feed",
    "validate_event_timestamp": "syncengine.replication.feed",
    "Fleet": "syncengine.replication.fleet",
    "HubLoad": "syncengine.replication.fleet",
    "LeaderFollowerManager": "syncengine.replication.leader_follower",
    "LeaderFollowerWriteResult": "syncengine.replication.roles",
    "ReplicationRole": "syncengine.replication.roles",
    "LeaderState": "syncengine.replication.roles",
    "FollowerState": "syncengine.replication.roles",
    "FollowerInfo": "syncengine.replication.roles",
    "ReadResult": "syncengine.replication.roles",
    "HeartbeatService": "syncengine.replication.leader_follower",
    "Lease": "syncengine.replication.election",
    "MultiMasterManager": "syncengine.replication.multi_master",
    "Entity": "syncengine.replication.versions",
    "EntityConflict": "syncengine.replication.versions",
    "ConflictVersion": "syncengine.replication.versions",
    "MasterWriteResult": "syncengine.replication.multi_master",
    "MasterMetrics": "syncengine.replication.multi_master",
    "ApplyResult": "syncengine.replication.multi_master",
    "PipelineEmitter": "syncengine.replication.pipeline",
    "PipelineReceiver": "syncengine.replication.pipeline",
    "Pipeline": "syncengine.storage.pipeline.contract",
    "MemoryPipeline": "syncengine.storage.pipeline.memory",
    "SqlitePipeline": "syncengine.storage.pipeline.sqlite",
    "EventSubscriber": "syncengine.replication.subscriber",
    "SubscriberMetrics": "syncengine.replication.subscriber",
    "CheckpointStore": "syncengine.storage.checkpoints",
    "CheckpointTransaction": "syncengine.storage.checkpoints",
    "DeadLetter": "syncengine.storage.checkpoints",
    "VectorClock": "syncengine.conflicts.vector_clock",
    "GCounter": "syncengine.conflicts.crdts",
    "PNCounter": "syncengine.conflicts.crdts",
    "GSet": "syncengine.conflicts.crdts",
    "ORSet": "syncengine.conflicts.crdts",
    "LWWRegister": "syncengine.conflicts.crdts",
    "MVRegister": "syncengine.conflicts.crdts",
    "register_crdt": "syncengine.conflicts.tagging",
    "ConflictEntry": "syncengine.conflicts.resolver",
    "ConflictResolver": "syncengine.conflicts.resolver",
    "Resolution": "syncengine.conflicts.resolver",
    "Strategy": "syncengine.conflicts.resolver",
    "MergeWarning": "syncengine.conflicts.resolver",
    "LastWriteWinsStrategy": "syncengine.conflicts.resolver",
    "VersionVectorStrategy": "syncengine.conflicts.resolver",
    "FieldMergeStrategy": "syncengine.conflicts.resolver",
    "CRDTMergeStrategy": "syncengine.conflicts.resolver",
    "CustomResolverStrategy": "syncengine.conflicts.resolver",
    "Counter": "syncengine.documents.leaves",
    "FloatCounter": "syncengine.documents.leaves",
    "List": "syncengine.documents.fields",
    "Map": "syncengine.documents.fields",
    "MultiValue": "syncengine.documents.leaves",
    "Node": "syncengine.documents.fields",
    "Set": "syncengine.documents.leaves",
    "Tree": "syncengine.documents.fields",
    "Record": "syncengine.documents.record",
    "Text": "syncengine.documents.text",
    "Edit": "syncengine.crdt.sequence.state",
    "MarkRange": "syncengine.crdt.marks",
    "Span": "syncengine.crdt.marks",
    "Converted": "syncengine.documents.lenses",
    "Renamed": "syncengine.documents.lenses",
    "Document": "syncengine.documents.model",
    "Indexed": "syncengine.documents.shape",
    "Searchable": "syncengine.documents.shape",
    "Found": "syncengine.replication.space",
    "Subscription": "syncengine.replication.watch",
    "Whole": "syncengine.documents.shape",
    "Change": "syncengine.replication.feed",
    "Hub": "syncengine.replication.hub",
    "Replica": "syncengine.replication.replica",
    "Live": "syncengine.replication.live",
    "Branch": "syncengine.replication.branches",
    "Past": "syncengine.replication.past",
    "Undoing": "syncengine.replication.undo",
    "Difference": "syncengine.documents.comparing",
    "Conflict": "syncengine.replication.history",
    "Rescue": "syncengine.replication.rescue",
    "Rescued": "syncengine.replication.rescue",
    "LostValue": "syncengine.replication.history",
    "Why": "syncengine.replication.history",
    "Passage": "syncengine.replication.history",
    "Space": "syncengine.replication.space",
    "Receipt": "syncengine.replication.transaction",
    "Transaction": "syncengine.replication.transaction",
    "Invite": "syncengine.trust.invite",
}

__all__ = [
    "AlreadyExists",
    "ApplyResult",
    "Branch",
    "CRDTMergeStrategy",
    "Change",
    "CheckpointStore",
    "CheckpointTransaction",
    "ClockSuspect",
    "Closed",
    "Compacted",
    "Conflict",
    "ConflictEntry",
    "ConflictResolver",
    "ConflictVersion",
    "ConnectionLost",
    "Converted",
    "Counter",
    "CustomResolverStrategy",
    "DeadLetter",
    "Difference",
    "DivergenceDetected",
    "Document",
    "Edit",
    "Entity",
    "EntityConflict",
    "EventSubscriber",
    "Fenced",
    "FieldMergeStrategy",
    "Fleet",
    "FloatCounter",
    "FollowerInfo",
    "FollowerState",
    "Found",
    "FrozenDocument",
    "GCounter",
    "GSet",
    "HeartbeatService",
    "HistoryDiverged",
    "Hub",
    "HubLoad",
    "Indexed",
    "Invalid",
    "Invite",
    "InviteExpired",
    "InviteUsed",
    "LWWRegister",
    "LastWriteWinsStrategy",
    "LeaderFollowerManager",
    "LeaderFollowerWriteResult",
    "LeaderState",
    "Lease",
    "List",
    "Live",
    "LostValue",
    "MVRegister",
    "Map",
    "MarkRange",
    "MasterMetrics",
    "MasterWriteResult",
    "MemoryPipeline",
    "MergeWarning",
    "Moved",
    "MultiMasterManager",
    "MultiValue",
    "NewerFormat",
    "Node",
    "NotFound",
    "NotLeader",
    "NotOurs",
    "ORSet",
    "OutOfRange",
    "OutcomeUnknown",
    "PNCounter",
    "Passage",
    "Past",
    "Pipeline",
    "PipelineEmitter",
    "PipelineError",
    "PipelineReceiver",
    "PositionConflict",
    "PromotionFailed",
    "ProtocolError",
    "ReadResult",
    "Receipt",
    "Record",
    "Refused",
    "Renamed",
    "Replica",
    "ReplicationRole",
    "Rescue",
    "Rescued",
    "Resolution",
    "Searchable",
    "Set",
    "Space",
    "Span",
    "SqlitePipeline",
    "StaleRead",
    "StateStore",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "Strategy",
    "SubscriberMetrics",
    "Subscription",
    "SyncError",
    "Text",
    "TooLarge",
    "Transaction",
    "TransactionClosed",
    "TransactionOpen",
    "Tree",
    "Undoing",
    "VectorClock",
    "VersionVectorStrategy",
    "Whole",
    "Why",
    "WriteEvent",
    "WrongLoop",
    "new_id",
    "open",
    "open_hub",
    "register_crdt",
    "validate_event_timestamp",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'syncengine' has no attribute {name!r}")
    return getattr(import_module(home), name)


def open(path: "StorePath", *, strict_clock: bool = False) -> "Opening":
    """Open a replica, made when absent: `async with syncengine.open("notes.db")`.

    `:memory:` gives one with a throw-away identity. With `strict_clock`, a clock that
    a hub finds off by more than a minute is an error instead of a flag. Raises
    `StoreLocked`, `NotOurs`, `NewerFormat`, `StoreReadOnly`, `StoreFull`.
    """
    from syncengine.replication.replica import Opening

    return Opening(
        os.fspath(path),
        strict_clock=strict_clock,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )


def open_hub(
    path: "StorePath",
    *,
    admit: "Admit" = "ticket",
    fleet: str | None = None,
    keep_moved: float = MOVED_KEEP_SECONDS,
) -> "HubOpening":
    """Open a hub's file, made when absent: `async with syncengine.open_hub(path)`.

    `admit` says who may bring a new namespace: whoever holds the `"ticket"`,
    `"anyone"`, or whom a function of (namespace id, device id) returns true for.
    `fleet` is the id of the namespace of the fleet that it is part of (see `Fleet`);
    `keep_moved` for how many seconds it keeps its copy of what it gave to another hub.
    Raises as `open` does, and `Invalid`.
    """
    namespace = None if fleet is None else parse_namespace_id(fleet)
    if not 0 <= keep_moved < inf:
        raise Invalid("keep_moved is a number of seconds", path="keep_moved")
    return HubOpening(os.fspath(path), admit, namespace, keep_moved)


class HubOpening:
    """What `open_hub` returns: await it, or use it with `async with`."""

    def __init__(
        self,
        path: str,
        admit: "Admit",
        fleet: NamespaceId | None,
        keep_moved: float,
    ):
        self._path = path
        self._admit: Admit = admit
        self._fleet = fleet
        self._keep_moved = keep_moved
        self._hub: Hub | None = None

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aenter__(self) -> "Hub":
        self._hub = await self._open()
        return self._hub

    async def __aexit__(self, *exception: object) -> None:
        assert self._hub is not None
        await self._hub.close()

    async def _open(self) -> "Hub":
        from syncengine.replication.hub import Hub, check_admit
        from syncengine.replication.opening import HUB, open_file
        from syncengine.trust.keys import ED25519

        entropy = SystemEntropy()
        opened = await open_file(self._path, entropy, ED25519, HUB)
        hub = Hub(
            opened,
            clock=SystemClock(),
            entropy=entropy,
            scheme=ED25519,
            admit=check_admit(self._admit),
            fleet=self._fleet,
            keep_moved=self._keep_moved,
        )
        await hub.make_ticket()
        return hub


def new_id() -> str:
    """Return a fresh document id: 26 characters that sort by time of making."""
    from syncengine.ids import base32

    stamp = SystemClock().now_ms().to_bytes(6, "big")
    return base32(stamp + SystemEntropy().bytes(10))
