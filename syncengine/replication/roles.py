"""What a node of a namespace that one leads is, and what it tells: results, states,
events, and the codes of what did not happen."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from syncengine.replication.feed import Change
from syncengine.replication.tokens import Token

Operation = Literal["create", "update", "delete"]
Level = Literal["local", "majority", "all"] | int
Consistency = Literal["strong", "bounded", "any"]
Status = Literal["ok", "unknown", "failed"]

OPERATIONS = ("create", "update", "delete")
EVENTS = (
    "leaderFailed",
    "leaderChanged",
    "roleChanged",
    "eventApplied",
    "writesRescued",
)

FOLLOWER_READ_ONLY = "FOLLOWER_READ_ONLY"
NOT_LEADER = "NOT_LEADER"
STALE_LEADER = "STALE_LEADER"
MANAGER_CLOSED = "MANAGER_CLOSED"
ALREADY_EXISTS = "ALREADY_EXISTS"
NOT_FOUND = "NOT_FOUND"
TIMEOUT = "TIMEOUT"
STORE_FAILED = "STORE_FAILED"


class ReplicationRole(StrEnum):
    """What a node is."""

    LEADER = "leader"
    FOLLOWER = "follower"


@dataclass(frozen=True)
class LeaderFollowerWriteResult:
    """What became of a write.

    `status`: "ok" as far as `level` says; "failed": nothing was written; "unknown": it
    is in this node's log, and who leads next may not have it. Write again with the same
    `client_op_id`: it happens once.
    """

    success: bool
    sequence: int | None = None
    """Its place in the log of leaders; None: nothing was written now, or what is
    repeated is of a log that was ended, by a switch of the mode"""
    status: Status = "ok"
    level: Level = "local"
    term: int | None = None
    queued: bool = False
    """Whether nobody could be reached to hand it on to yet"""
    error: str | None = None
    error_code: str | None = None
    leader_id: str | None = None
    client_op_id: str | None = None
    named: Token | None = None

    @property
    def token(self) -> str | None:
        """For a session: read with it, and see this write."""
        return None if self.named is None else self.named.encode()


@dataclass(frozen=True)
class ReadResult:
    """What was read, and how."""

    value: Any
    sequence: int
    """Up to which write this node shows all"""
    staleness_ms: int | None
    """For how long something may be missing; None: it is not known"""
    served_by: str
    consistency: str
    token: str | None


@dataclass(frozen=True)
class FollowerInfo:
    """A follower as its leader knows it."""

    last_heartbeat: int
    """When it was heard last, in ms of the leader's clock; 0: never"""
    last_reported_sequence: int
    """Up to where the log is on its disk"""
    applied_sequence: int = 0
    is_connected: bool = False
    device: str | None = None
    is_voter: bool = False
    votes: bool = True
    """Not where it may have voted and does not know it any more: see `add_voter`"""


@dataclass(frozen=True)
class LeaderState:
    current_sequence: int
    followers: dict[str, FollowerInfo]
    follower_count: int
    commit_sequence: int
    """Up to where a majority has all; without voters, what is on this disk"""
    term: int


@dataclass(frozen=True)
class FollowerState:
    applied_sequence: int
    is_stale: bool
    stored_sequence: int
    leader_id: str | None
    last_heartbeat: int
    """When the leader was heard last, in ms of this node's clock; 0: never"""
    staleness_ms: int | None
    term: int


@dataclass
class ReplicationMetrics:
    events_emitted: int = 0
    """Writes made here as the leader"""
    events_applied: int = 0
    """Writes of others that took effect here"""
    writes_rejected: int = 0
    heartbeats_sent: int = 0
    """Beats of this leader, each to all, also those that told what a majority has"""
    elections_started: int = 0
    promotions: int = 0
    demotions: int = 0
    writes_missing: int = 0
    """Writes of the former leader that were reported and are not here, at the last
    promotion"""
    writes_rescued: int = 0
    """Writes that do not count (any more), and wait in `rescue`"""


@dataclass(frozen=True)
class LeaderFailed:
    leader_id: str
    term: int


@dataclass(frozen=True)
class LeaderChanged:
    leader_id: str
    term: int
    how: str
    reason: str


@dataclass(frozen=True)
class RoleChanged:
    role: ReplicationRole
    term: int


@dataclass(frozen=True)
class EventApplied:
    sequence: int
    change: Change


@dataclass(frozen=True)
class WritesRescued:
    """Writes that are not in the log of leaders (any more): see `manager.rescue`."""

    count: int
    first: int
    """The least sequence that one of them had (in a batch: that of its last)"""
    last: int
    leader_id: str
    """Who wrote them; empty: somebody beside the leaders"""
