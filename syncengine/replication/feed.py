"""Every change in the order of this file's log: a feed that can be resumed."""

import itertools
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from syncengine import limits
from syncengine.clock import ms_from_hlc
from syncengine.errors import Closed, Invalid, NotFound
from syncengine.ids import DeviceId, base32, node_id, parse_node_id
from syncengine.log.batch import Batch, UndecodableBatch, decode_spine, split_payload
from syncengine.log.change import Change as Pending
from syncengine.log.run import Row
from syncengine.replication.host import Bell
from syncengine.replication.keeper import Keeper
from syncengine.system import SystemClock

if TYPE_CHECKING:
    from syncengine.replication.namespace import Namespace
    from syncengine.replication.space import Space

# The position that is done, changes of the row behind it that are too, and the chain.
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,9})-((?:[0-9a-f]{2})*)")

log = logging.getLogger("syncengine")

# What is older is worth a word, and accepted: people are offline for weeks.
OLD_MS = 24 * 3_600_000

# Rows of the log that are looked at in one step.
READ_ROWS = 100


@dataclass(frozen=True)
class Change:
    """What one transaction of somebody did, as the feed tells it."""

    cursor: str
    """Where to go on after this change; it is of this file, and of no other. Empty for
    what is in no log yet: not signed, and on this device alone"""
    id: str
    """Its name, the same on every device: for `space.at`, say."""
    author: str
    """The device that wrote it."""
    at: datetime
    """When, by its author's clock."""
    documents: tuple[str, ...]
    """`collection/id` of what it touched"""
    operation_id: str | None
    void: str | None
    """Why it has no effect; None: it has."""

    @property
    def timestamp(self) -> int:
        """`at` in milliseconds since 1970."""
        return round(self.at.timestamp() * 1000)


WriteEvent = Change
"""What the replication guide calls what a write tells others."""


def validate_event_timestamp(
    event: WriteEvent,
    *,
    max_drift_ms: int = limits.CLOCK_AHEAD_MS_MAX,
    now_ms: int | None = None,
) -> bool:
    """Tell whether an event is stamped at most `max_drift_ms` ahead of now.

    One that is not is logged as an error: its author's clock is wrong. One older than a
    day is good, as somebody may have been offline, and logged as a warning. The engine
    does this by itself: what is stamped ahead has no effect before its time.
    """
    now_ms = SystemClock().now_ms() if now_ms is None else now_ms
    if event.timestamp > now_ms + max_drift_ms:
        log.error("Future timestamp rejected: %d", event.timestamp)
        return False
    if event.timestamp < now_ms - OLD_MS:
        log.warning("Old timestamp: %d", event.timestamp)
    return True


async def changes(
    space: "Space", after: str | None, *, decided: bool = False
) -> AsyncGenerator[Change, None]:
    """Yield every change that is on disk, then those that come. See `Space.changes`.
    With `decided`, what a leader wrote once a majority of the voters has it, or nobody
    ever will: so what is yielded without effect had none, and nothing gets or loses its
    effect later."""
    engine = space.engine
    keeper = engine.keeper
    done, skip = checked(keeper, after)
    bell = Bell()
    engine.log_grew.listen(bell.set)
    engine.leadership.decided.listen(bell.set)
    engine.on_terms.append(bell.set)
    engine.on_stopped.append(bell.set)
    engine.feeds += 1
    try:
        engine.seal_now(ahead=True)
        while True:
            rows = _readable(engine, done, engine.committed_position, decided=decided)
            for at, row in rows:
                for change in told(keeper, done, at, row)[skip:]:
                    yield change
                done, skip = at, 0
            if not rows:
                await bell.heard()
            try:
                space.check_usable()
            except Closed:
                return
    finally:
        engine.feeds -= 1
        engine.on_stopped.remove(bell.set)
        engine.on_terms.remove(bell.set)
        engine.leadership.decided.unlisten(bell.set)
        engine.log_grew.unlisten(bell.set)


def checked(keeper: Keeper, cursor: str | None) -> tuple[int, int]:
    """Return (position that is done, changes of the next row that are); raises
    `Invalid` for a cursor of another file."""
    done, skip, chain = _parse(cursor)
    if done and keeper.chain_at(done) != chain:
        raise Invalid(
            "this cursor is of another file, or of one before it was restored; begin "
            "without it, and take what you know already for done"
        )
    return done, skip


def _readable(
    engine: "Namespace", after: int, until: int, *, decided: bool
) -> list[tuple[int, Row]]:
    """Return the next rows behind a position, up to another one, and up to the first
    that is to be `decided` and is not."""

    def may(at: int, row: Row) -> bool:
        if at > until:
            return False
        if not decided or not isinstance(row, Batch):
            return True
        return not engine.leadership.is_undecided(row.header)

    rows = engine.keeper.rows_after(after, READ_ROWS)
    return list(itertools.takewhile(lambda item: may(*item), rows))


def has_more(engine: "Namespace", cursor: str | None, until: int) -> bool:
    """Whether there are decided changes behind a cursor, up to a position."""
    keeper = engine.keeper
    done, skip = checked(keeper, cursor)
    while rows := _readable(engine, done, until, decided=True):
        for at, row in rows:
            if told(keeper, done, at, row)[skip:]:
                return True
            done, skip = at, 0
    return False


def find(keeper: Keeper, name: str) -> Change:
    """Return a change by its id; raises `NotFound`."""
    actor, seq = parse_node_id(name)
    for batch in keeper.batches_at(actor, seq):
        at = keeper.position_of(batch.id)
        for change in told(keeper, at - 1, at, batch):
            if change.id == name:
                return change
    raise NotFound(f"there is no change {name} here")


def _parse(cursor: str | None) -> tuple[int, int, bytes]:
    """Return (position that is done, changes of the next row that are, chain)."""
    if cursor is None:
        return 0, 0, b""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise Invalid(f"{cursor!r} is no cursor; they come with the changes of a feed")
    return int(match[1]), int(match[2]), bytes.fromhex(match[3])


def told(keeper: Keeper, before: int, position: int, row: Row) -> list[Change]:
    """Return the changes of a row of the log; `before`: of the one before it."""
    if not isinstance(row, Batch):
        return []
    payload = split_payload(row.payload)
    try:
        heads = decode_spine(row.header, payload)
    except UndecodableBatch:
        return []  # nobody can say what it would have done
    author = keeper.membership.actors.get(row.header.actor)
    void: dict[int, str] = dict(
        keeper.store.read(
            "SELECT seq, reason FROM _sync_void WHERE ns = ? AND actor = ? "
            "AND batch = ?",
            *(keeper.ns, row.header.actor, row.id),
        )
    )
    beside = keeper.terms.void_reason(row.header)  # also before that is on disk
    here = f"{position}-0-{(keeper.chain_at(position) or b'').hex()}"
    chain = (keeper.chain_at(before) or b"").hex()
    found: list[Change] = []
    for number, head in enumerate(heads, 1):
        names = dict.fromkeys(payload.parts[part][0] for part, _, _ in head.touches)
        found.append(
            Change(
                f"{before}-{number}-{chain}" if number < len(heads) else here,
                node_id((row.header.actor, head.seq)),
                base32(author or DeviceId(row.header.actor)),
                datetime.fromtimestamp(ms_from_hlc(head.hlc) / 1000, tz=UTC),
                tuple(names),
                head.meta.operation_id,
                void.get(head.seq, beside),
            )
        )
    return found


def unsigned(keeper: Keeper, pending: list[Pending]) -> list[Change]:
    """Return own changes that are in no batch yet, the newest first."""
    authors = keeper.membership.actors
    return [
        Change(
            "",
            node_id((change.actor, change.seq)),
            base32(authors.get(change.actor, DeviceId(change.actor))),
            datetime.fromtimestamp(ms_from_hlc(change.hlc) / 1000, tz=UTC),
            tuple(touch.document for touch in change.touches),
            change.meta.operation_id,
            None,
        )
        for change in reversed(pending)
    ]
