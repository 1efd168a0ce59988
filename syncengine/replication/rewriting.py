"""What this replica sealed under actors of its own, and writing it again as another.

After a restore, a copy or a fork the old actor is left to its past: what it had not
sealed, or what the fork made void, is written once more under a new one. Each new
writing names its origin, see `replication.origins`.
"""

from syncengine.clock import HybridClock
from syncengine.ids import ActorId, BatchId
from syncengine.log.batch import NO_BATCH, Batch, Parts, decode_spine, split_payload
from syncengine.log.change import Change, Dep, Meta, Origin, Touch
from syncengine.log.sealing import moved
from syncengine.replication.keeper import Keeper
from syncengine.replication.origins import Origins, key_of


class Rewriting:
    """The own writings of one namespace."""

    def __init__(self, keeper: Keeper, origins: Origins, clock: HybridClock):
        self._keeper = keeper
        self._origins = origins
        self._clock = clock
        self._written_as: dict[tuple[ActorId, int], tuple[ActorId, int]] = {}
        self.heads: dict[ActorId, BatchId] = {}
        """The last batch that this replica sealed under each of its actors."""

    def written_as(self, actor: ActorId, seq: int) -> tuple[ActorId, int]:
        """Return the present name of an own change of this run of the program."""
        while (actor, seq) in self._written_as:
            actor, seq = self._written_as[actor, seq]
        return actor, seq

    def branch(self, actor: ActorId) -> list[Change]:
        """Return what this replica sealed after the fork of an actor of its own."""
        changes: list[Change] = []
        for batch in self._batches(actor, self._keeper.forks[actor]):
            payload = split_payload(batch.payload)
            parts = Parts(payload)
            changes += [
                Change(
                    *(actor, head.seq, head.hlc, head.deps),
                    parts.touches(head),
                    head.meta,
                )
                for head in decode_spine(batch.header, payload)
            ]
        return changes

    def rewritten(
        self, before: ActorId, old: list[Change], author: ActorId
    ) -> list[Change]:
        """Return `old`, made under `before`, as the first changes of `author`."""
        changes: list[Change] = []
        shift = 1 - old[0].seq
        for index, change in enumerate(old):
            deps = change.deps
            if index == 0:
                known = self._seen_when_sealed(before, change.seq)
                known.update((dep.actor, dep) for dep in deps)
                deps = [known[actor] for actor in sorted(known)]
            touches = [
                Touch(
                    touch.document,
                    [moved(op, before, shift, old[0].seq) for op in touch.ops],
                    touch.n,
                )
                for touch in change.touches
            ]
            origin = change.meta.origin or Origin(before, change.seq, change.hlc)
            meta = Meta(change.meta.schema, change.meta.operation_id, origin)
            seq, hlc = change.seq + shift, self._clock.tick()
            key = key_of(origin, author, seq, touches)
            if key is not None:
                self._origins.note(key, (author, seq))
            self._written_as[before, change.seq] = (author, seq)
            changes.append(Change(author, seq, hlc, deps, touches, meta))
        return changes

    def _batches(self, actor: ActorId, from_seq: int) -> list[Batch]:
        """Return what this replica sealed under an actor, and what that follows."""
        found = self._keeper.batches_of(actor, from_seq)
        by_id = {batch.id: batch for batch in found}
        chain: list[Batch] = []
        batch = by_id.get(self.heads.get(actor, NO_BATCH))
        while batch is not None:
            chain.append(batch)
            batch = by_id.get(batch.header.prev)
        return chain[::-1]

    def _seen_when_sealed(self, actor: ActorId, before: int) -> dict[ActorId, Dep]:
        """Return what `actor` had seen at its last sealed change before a seq, itself
        included."""
        seen: dict[ActorId, Dep] = {}
        for batch in self._batches(actor, 1):
            if batch.header.end >= before:
                break
            for head in decode_spine(batch.header, split_payload(batch.payload)):
                seen.update((dep.actor, dep) for dep in head.deps)
            seen[actor] = Dep(actor, batch.header.end, batch.id[:16])
        return seen
