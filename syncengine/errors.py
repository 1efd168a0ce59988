"""What can go wrong, as a tree whose branches say who has to act.

::

    SyncError
    ├── NotFound (LookupError)        the caller asked for what is not there
    ├── AlreadyExists                 the caller made what is there already
    ├── Invalid (ValueError)          the caller's value, with its path and bound
    │   ├── OutOfRange (IndexError)   ... is a position that is not there
    │   └── TooLarge                  ... exceeds a limit
    ├── FrozenDocument                a write to a snapshot
    ├── TransactionClosed             a draft used after its block
    ├── TransactionOpen               a second transaction inside the first
    ├── WrongLoop                     used from another loop, thread or process
    ├── Closed                        used after closing
    ├── StoreError                    the world: the disk, the file
    │   ├── StoreLocked               another process owns the file
    │   ├── StoreFull (OSError)       no space left
    │   ├── StoreReadOnly (OSError)   the file or its folder cannot be written
    │   ├── StoreDamaged              the file fails its checks
    │   ├── NotOurs                   a file of another program
    │   └── NewerFormat               written by a newer version
    ├── PipelineError                 what carries entries between nodes
    │   ├── PositionConflict          another entry came before
    │   ├── Fenced                    somebody else took the partition
    │   ├── Compacted                 what is asked for is not kept any more
    │   └── OutcomeUnknown            maybe stored: publish it again
    ├── Refused                       a peer said no, and why
    │   ├── InviteExpired
    │   ├── InviteUsed
    │   └── Moved                     another hub keeps the namespace
    ├── ProtocolError                 a peer broke the protocol
    ├── ConnectionLost                normal life: the link is gone
    ├── ClockSuspect                  this device's clock is off (strict mode)
    └── DivergenceDetected            two replicas differ: a bug, named by path

Errors carry their facts as fields; the text is built from them.
"""

from typing import Literal

Retry = Literal["never", "later", "after_action"]
Effect = Literal["none", "unknown"]


class SyncError(Exception):
    """The root of everything this library raises on purpose."""


class NotFound(SyncError, LookupError):
    """There is no such namespace or document."""


class AlreadyExists(SyncError):
    """`create` found the document; use `get` to edit it."""


class Invalid(SyncError, ValueError):
    """A value that cannot be stored.

    `path` is where it was meant to go, `bound` the limit it broke, if one.
    """

    def __init__(self, message: str, *, path: str = "", bound: int | None = None):
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.bound = bound


class OutOfRange(Invalid, IndexError):
    """A position that is not there; `bound` is the length."""


class TooLarge(Invalid):
    """A value, change or message above its limit. Nothing was written."""


class FrozenDocument(SyncError):
    """A snapshot never changes; edit a draft inside a transaction instead."""

    def __init__(self, what: str):
        super().__init__(
            f"{what} is a snapshot and never changes; edit it inside "
            "`async with space.transaction() as tx:` through `tx.get(...)`"
        )


class TransactionClosed(SyncError):
    """A draft was used after its transaction failed or was abandoned."""


class TransactionOpen(SyncError):
    """A transaction was begun inside another one of the same namespace."""


class WrongLoop(SyncError):
    """A replica belongs to the event loop, thread and process that opened it."""


class Closed(SyncError):
    """The replica, link or server was closed before."""


class StoreError(SyncError):
    """The file or the disk below it."""


class PipelineError(SyncError):
    """Of a pipeline, which carries entries between nodes."""


class PositionConflict(PipelineError):
    """An entry was to follow another one of its namespace, which is not the last.

    `last` is the position of that which is. Nothing was stored.
    """

    def __init__(self, expected: int, last: int):
        super().__init__(
            f"the last entry of this namespace is at {last}, not at {expected}; read "
            "what came since, and decide again"
        )
        self.expected = expected
        self.last = last


class Fenced(PipelineError):
    """Somebody else took the partition since. Nothing was stored."""

    def __init__(self, epoch: int, now: int):
        super().__init__(
            f"the token is of epoch {epoch}, and the partition was taken since (epoch "
            f"{now}); stop writing, or take it again"
        )
        self.epoch = epoch
        self.now = now


class Compacted(PipelineError):
    """What is asked for is not kept any more; `first` is the first that is."""

    def __init__(self, first: int):
        super().__init__(
            f"entries before {first} are not kept any more; take a snapshot, and go on "
            "behind that"
        )
        self.first = first


class OutcomeUnknown(PipelineError):
    """It may be stored or not: publish it again, with the same id."""


class StoreLocked(StoreError):
    """Another process owns the file; `holder` is what it wrote about itself."""

    def __init__(self, path: str, holder: str):
        super().__init__(
            f"{path} is open in {holder or 'another process'}; close it there, or "
            "use a reading command, which works beside it"
        )
        self.path = path
        self.holder = holder


class StoreFull(StoreError, OSError):
    """No space left. Nothing was half-written; free some space and retry."""


class StoreReadOnly(StoreError, OSError):
    """The file or its folder cannot be written."""


class StoreDamaged(StoreError):
    """The file fails its own checks; `syncengine doctor` says what is lost."""


class NotOurs(StoreError):
    """The file is a database of another program. It was not touched."""


class NewerFormat(StoreError):
    """The file was written by a newer version. It was not touched."""


class NotLeader(SyncError):
    """Only the leader writes here, and this is not him. Nothing was written.

    `leader_id` is how he calls himself, if he is known; `error_code` as in results of
    `LeaderFollowerManager`.
    """

    def __init__(
        self,
        message: str = "Follower is read-only. Redirect to leader.",
        *,
        leader_id: str | None = None,
        error_code: str = "FOLLOWER_READ_ONLY",
    ):
        super().__init__(message)
        self.leader_id = leader_id
        self.error_code = error_code


class PromotionFailed(SyncError):
    """A node did not become the leader; the message says why, and nothing changed."""


class StaleRead(SyncError):
    """What was asked for is not here yet: read from the leader, or wait longer.

    `have` is the sequence up to which it is, `staleness_ms` how old that may be (None:
    unknown).
    """

    def __init__(self, message: str, *, have: int, staleness_ms: int | None):
        super().__init__(message)
        self.have = have
        self.staleness_ms = staleness_ms


class HistoryDiverged(SyncError):
    """What a session has seen is not in the log any more: its leader was deposed before
    a majority had it, or a backup came back. What was written may be in the rescue
    area."""


class Refused(SyncError):
    """A peer refused, with a reason a person can act on.

    `code` is stable (protocol.md, codes); `retry` says whether trying again can
    help, `effect` whether anything may have happened.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        *,
        path: str = "",
        retry: Retry = "never",
        effect: Effect = "none",
    ):
        reason = reason.removesuffix(f" ({code})")  # as a peer's own error tells it
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason
        self.path = path
        self.retry: Retry = retry
        self.effect: Effect = effect


class InviteExpired(Refused):
    """The invite's time is over; ask for a new one."""


class InviteUsed(Refused):
    """Somebody joined with this invite before; ask for a new one."""


class Moved(Refused):
    """Another hub of the fleet keeps the namespace: `address` says which. A link goes
    there by itself; this is raised where it cannot."""

    def __init__(self, code: int, reason: str, *, address: str):
        super().__init__(code, reason, retry="after_action")
        self.address = address


class ProtocolError(SyncError):
    """A peer broke the protocol; the connection closes with `code`."""

    def __init__(self, code: int, message: str):
        super().__init__(f"{message.removesuffix(f' ({code})')} ({code})")
        self.code = code


class ConnectionLost(SyncError):
    """The connection is gone. Links dial again by themselves."""


class ClockSuspect(SyncError):
    """This device's clock is too far off (raised only with `strict_clock`)."""


class DivergenceDetected(SyncError):
    """Two replicas with the same changes show different documents."""

    def __init__(self, path: str, peer: str):
        super().__init__(
            f"{path} differs from what device {peer} shows for the same changes; run "
            "`syncengine doctor` on both files to learn which one is damaged"
        )
        self.path = path
        self.peer = peer
