"""The rescue area: what was written and does not count, and somebody may still want.

A deposed leader's last writes, what was written beside a leader, what a forked actor
wrote: it is in the log, without effect, the same on every replica, for ever. Here it is
listed, shown as what it would have done, written again by a change of now, or
dismissed.

What is written again keeps the client operation id of the first writing: one that was
committed after all, by another leader or by a retry, is not done twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from syncengine.clock import ms_from_hlc
from syncengine.documents import exchange
from syncengine.documents.view import View
from syncengine.errors import Invalid, NotFound
from syncengine.ids import ActorId, DocumentId, base32, node_id
from syncengine.log.batch import Batch, ChangeHead, split_payload
from syncengine.log.terms import BESIDE, DEPOSED, FORKED
from syncengine.replication.pace import Pace
from syncengine.replication.past import Includes, heads_of, replay
from syncengine.storage.sql import statements as sql

if TYPE_CHECKING:
    from syncengine.replication.space import Space

RESCUED = (DEPOSED, BESIDE, FORKED)
"""The reasons for which a change has no effect, though nothing is wrong with it."""

How = Literal["merge", "write"]
"""Whether what somebody wrote over it meanwhile stays, or is written over."""

_DISMISSED, _REPLAYED = "dismissed", "replayed"


@dataclass(frozen=True)
class Rescued:
    """A change in the rescue area."""

    id: str
    """Its name, the same on every device"""
    author: str
    """The device that wrote it"""
    leader_id: str | None
    """How that called itself as the leader; None: it was none"""
    term: int
    sequence: int
    """Its place in that leader's log; 0: it was none"""
    at: datetime
    """When, by its author's clock"""
    documents: tuple[str, ...]
    operation_id: str | None
    reason: str
    decided: str | None
    """"replayed" or "dismissed" here, "committed" where it was done after all; None:
    somebody is to decide"""


@dataclass(frozen=True)
class _Found:
    shown: Rescued
    batch: Batch
    head: ChangeHead

    @property
    def operation(self) -> str:
        """By what it is known again when it was written once more."""
        return self.shown.operation_id or f"rescue {self.shown.id}"


# `Rescue.list` hides the type's name inside the class.
Changes = list[Rescued]
Ids = list[str]
Records = list[dict[str, Any]]
_Several = list[_Found]
_Pair = list[View]
_Views = list[tuple[View, View]]


class Rescue:
    """The rescue area of a namespace: `space.rescue`."""

    def __init__(self, space: "Space"):
        self._space = space

    async def list(self, *, decided: bool = False) -> Changes:
        """Return what waits for a decision, in the order in which it was written; with
        `decided`, all that ever was here."""
        found = await self._find()
        return [one.shown for one in found if decided or one.shown.decided is None]

    async def export(self, ids: Iterable[str] | None = None) -> Records:
        """Return records, as JSON has them, of what changes would have done: for each
        document what it was before and after (None: it was not there). Without `ids`,
        of all that wait for a decision. Raises `NotFound`."""
        records: Records = []
        for one in await self._chosen(ids):
            shown = one.shown
            records.append(
                {
                    "id": shown.id,
                    "author": shown.author,
                    "leader_id": shown.leader_id,
                    "term": shown.term,
                    "sequence": shown.sequence,
                    "at": shown.at.isoformat(),
                    "operation_id": shown.operation_id,
                    "reason": shown.reason,
                    "documents": [
                        {"before": _record(before), "after": _record(after)}
                        for before, after in await self._views(one)
                    ],
                }
            )
        return records

    async def replay(self, ids: Iterable[str] | None = None, how: How = "merge") -> Ids:
        """Write changes again, each as a transaction of now, oldest first; return the
        ids of those that wrote something.

        Without `ids`, all that wait for a decision. With "merge", what somebody wrote
        over meanwhile stays; counters, sets, lists and texts merge. With "write", what
        the change wrote shows again. Raises `NotLeader` where another one writes,
        `NotFound`, `Invalid`. Cancelled between two, the rest waits on.
        """
        if how not in get_args(How):
            raise Invalid('rescued changes are replayed by "merge" or "write"')
        self._space.check_outside()
        wrote: Ids = []
        for one in await self._chosen(ids):
            if one.shown.decided == "committed":
                continue
            views = await self._views(one)
            async with self._space.transaction(one.operation) as tx:
                for before, after in views:
                    tx.merge(before, after, is_over=how == "write")
                if tx.has_written and not tx.repeated:
                    wrote.append(one.shown.id)
            await self._decide(one, _REPLAYED)
        return wrote

    async def dismiss(self, ids: Iterable[str]) -> int:
        """Decide, on this device, that changes are not wanted; return how many. They
        stay in the log. Raises `NotFound`."""
        found = await self._chosen(ids)
        for one in found:
            await self._decide(one, _DISMISSED)
        return len(found)

    # --- finding ------------------------------------------------------------------

    async def _find(self) -> _Several:
        space = self._space
        space.check_usable()
        space.check_outside()
        engine = space.engine
        await space.index.ready()
        await engine.flush()
        decided = {
            (ActorId(actor), seq): how
            for actor, seq, how in engine.keeper.store.read(
                "SELECT actor, seq, how FROM _sync_rescue WHERE ns = ?", engine.ns
            )
        }
        found: _Several = []
        for (actor, seq, name), reason in space.index.voids().items():
            if reason not in RESCUED:
                continue
            for batch in engine.keeper.batches_at(actor, seq):
                if batch.id == name:
                    found += self._of(batch, seq, reason, decided.get((actor, seq)))
        return sorted(found, key=lambda one: (one.head.hlc, one.shown.id))

    def _of(self, batch: Batch, seq: int, reason: str, decided: str | None) -> _Several:
        engine, header = self._space.engine, batch.header
        heads = heads_of(batch)
        term = engine.keeper.terms.term_of(header.actor)
        for number, head in enumerate(heads):
            if head.seq != seq:
                continue
            parts = split_payload(batch.payload).parts
            names = dict.fromkeys(parts[part][0] for part, _, _ in head.touches)
            author = engine.keeper.membership.actors[header.actor]
            behind = len(heads) - 1 - number
            shown = Rescued(
                node_id((header.actor, seq)),
                base32(author),
                None if term is None else term.record.node,
                header.term,
                header.term_index - behind if header.term else 0,
                datetime.fromtimestamp(ms_from_hlc(head.hlc) / 1000, tz=UTC),
                tuple(names),
                head.meta.operation_id,
                reason,
                decided,
            )
            found = _Found(shown, batch, head)
            was_done = engine.done_by(found.operation) is not None
            if decided is None and (
                was_done or engine.origins.was_repeated(header.actor, seq)
            ):
                found = replace(found, shown=replace(shown, decided="committed"))
            return [found]
        return []

    async def _chosen(self, ids: Iterable[str] | None) -> _Several:
        found = await self._find()
        if ids is None:
            return [one for one in found if one.shown.decided is None]
        wanted = dict.fromkeys(ids)
        known = {one.shown.id for one in found}
        for name in wanted:
            if name not in known:
                raise NotFound(f"there is no change {name!r} in the rescue area")
        return [one for one in found if one.shown.id in wanted]

    async def _decide(self, one: _Found, how: str) -> None:
        engine = self._space.engine
        at = engine.clock.now_ms()
        actor, seq = one.batch.header.actor, one.head.seq
        await engine.also(((sql.PUT_RESCUE,), (engine.ns, actor, seq, at, how)))
        await engine.flush()

    # --- what it would have done ----------------------------------------------------

    async def _views(self, one: _Found) -> _Views:
        """Return each document that a change touched as its author saw it, and as it
        was then."""
        actor, seq = one.batch.header.actor, one.head.seq
        index = self._space.index
        lane = self._space.engine.keeper.branch_of(one.batch)
        seen = {**index.seen_at(actor, seq), lane: seq - 1}
        rescued = {name[:2] for name, why in index.voids().items() if why in RESCUED}
        found: _Views = []
        for name in one.shown.documents:
            made: _Pair = []
            for version in (seen, {**seen, lane: one.head.end}):
                document = index.empty(DocumentId(name))
                steps = index.steps(DocumentId(name), _until(version))
                for step in steps:
                    # What its author saw had its effect then.
                    if (step.author, step.head.seq) in rescued:
                        step.is_void = False
                await replay(document, steps, Pace())
                made.append(View(document, None))
            found.append((made[0], made[1]))
        return found


def _until(version: dict[ActorId, int]) -> Includes:
    return lambda actor, _: version.get(actor, 0)


def _record(view: View) -> dict[str, Any] | None:
    return exchange.dump(view.document) if view.exists else None
