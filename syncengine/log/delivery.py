"""When a stored change takes effect: causal delivery.

Stored is not applied. A change is applied when its author's earlier changes and its
deps are, and its stamp is not too far ahead of now. This is the only hold-back there
is; what waits is on disk already.

After a fork, each branch counts as an actor of its own (`Branches`), so that what
others saw of one branch is never read in the context of another.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from syncengine import limits
from syncengine.clock import ms_from_hlc
from syncengine.ids import ActorId
from syncengine.log.batch import (
    Batch,
    ChangeHead,
    Parts,
    UndecodableBatch,
    decode_spine,
    split_payload,
)
from syncengine.log.change import NO_META, Dep


@dataclass(slots=True)
class Applied:
    """How far an actor is applied: its last seq, that change's stamp, what it saw."""

    seq: int = 0
    hlc: int = 0
    seen: dict[ActorId, int] = field(default_factory=dict[ActorId, int])


class History(Protocol):
    """What delivery asks about stored batches."""

    def hash16_at(self, actor: ActorId, seq: int) -> bytes | None:
        """Return the short id of the batch that holds `seq`, if it is stored."""
        ...

    def branch(self, actor: ActorId, seq: int, hash16: bytes) -> ActorId | None:
        """Return the branch that a dep on a forked actor means; `actor` itself
        below the fork; None when that branch is not stored."""
        ...


class Ready(msgspec.Struct, gc=False):
    """A change whose time has come."""

    actor: ActorId
    batch: Batch
    head: ChangeHead
    parts: Parts
    seen: dict[ActorId, int]
    """What its author had seen; raise its own entry from operation to operation."""
    problem: str | None = None
    """Why it is void, if its form alone tells."""


class _Queued:
    """A batch on its way: its changes from `index` on are not applied."""

    __slots__ = ("batch", "heads", "index", "parts", "problem")

    def __init__(self, batch: Batch):
        self.batch = batch
        self.index = 0
        payload = split_payload(batch.payload)
        self.parts = Parts(payload)
        try:
            self.heads: list[ChangeHead] | None = decode_spine(batch.header, payload)
        except UndecodableBatch as error:
            self.heads = None
            self.problem = f"its spine is not readable: {error}"


class Delivery:
    """The applied frontier of one namespace, and what waits to get behind it."""

    def __init__(self, history: History):
        self._history = history
        self.hold: Callable[[Batch, int], bool] | None = None
        """Whether to keep back a batch's change that ends at a seq, though its time
        has come: an entry that the next leader may not know of, say."""
        self.is_ordered: Callable[[Batch], bool] = lambda _: False
        """Whether a batch waits for no clock, within a day: its log has one order, and
        would stand still for all."""
        self.applied: dict[ActorId, Applied] = {}
        self._queues: dict[ActorId, deque[_Queued]] = {}
        self._candidates: deque[ActorId] = deque()
        self._waiting: dict[ActorId, set[ActorId]] = {}  # for -> who
        self._until: dict[ActorId, int] = {}  # blocked on the clock: stamp's ms

    def version(self) -> dict[ActorId, int]:
        """Return the applied frontier."""
        return {actor: state.seq for actor, state in self.applied.items() if state.seq}

    def blocked_until_ms(self) -> int | None:
        """Return when the next stamp from the future will be due."""
        return min(self._until.values(), default=None)

    @property
    def waiting_count(self) -> int:
        """How many stored batches are not wholly applied."""
        return sum(len(queue) for queue in self._queues.values())

    def queue(self, actor: ActorId, batch: Batch) -> None:
        """Take a stored batch; `actor` is its author, or its branch."""
        if actor not in self._queues:
            self._queues[actor] = deque()
        queued = _Queued(batch)
        state = self.applied.get(actor)
        if state is not None and queued.heads is not None:
            while (
                queued.index < len(queued.heads)
                and queued.heads[queued.index].end <= state.seq
            ):
                queued.index += 1
        self._queues[actor].append(queued)
        self._candidates.append(actor)

    def ready(self, now_ms: int) -> Iterator[Ready]:
        """Yield changes that can be applied now, each to be applied before the next
        is asked for."""
        for actor, due in list(self._until.items()):
            if due <= now_ms + limits.CLOCK_AHEAD_MS_MAX:
                del self._until[actor]
                self._candidates.append(actor)
        while self._candidates:
            # Taken away when done with: whoever iterates may be cancelled between.
            actor = self._candidates[0]
            queue = self._queues.get(actor)
            while queue:
                queued = queue[0]
                if queued.heads is None:
                    unreadable = self._undecodable(actor, queued)
                    if unreadable is None:
                        break
                    yield unreadable
                    queue.popleft()
                    continue
                if queued.index == len(queued.heads):
                    queue.popleft()
                    continue
                ready = self._check(actor, queued, now_ms)
                if ready is None:
                    break
                queued.index += 1
                yield ready
            if queue is not None and not queue:
                del self._queues[actor]
            self._candidates.popleft()

    def _check(self, actor: ActorId, queued: _Queued, now_ms: int) -> Ready | None:
        assert queued.heads is not None
        head = queued.heads[queued.index]
        if self.hold is not None and self.hold(queued.batch, head.end):
            return None
        state = self._state(actor, queued.batch)
        if state is None:
            return None
        deps: list[tuple[ActorId, int]] = []
        for dep in head.deps:
            on = self._satisfied(dep)
            if on is None:
                self._waiting.setdefault(dep.actor, set()).add(actor)
                return None
            deps.append((on, dep.seq))
        problem = None
        if head.hlc <= state.hlc:
            problem = "its stamp does not follow its author's last one"
        elif ms_from_hlc(head.hlc) > now_ms + limits.CLOCK_AHEAD_MS_MAX and (
            ms_from_hlc(head.hlc) > now_ms + limits.LEADER_AHEAD_MS_MAX
            or not self.is_ordered(queued.batch)
        ):
            self._until[actor] = ms_from_hlc(head.hlc)
            return None
        seen = state.seen
        for on, seq in deps:
            if seq > seen.get(on, 0):
                seen[on] = seq
        seen[actor] = head.seq - 1
        self._advance(queued, state, head.end, max(head.hlc, state.hlc))
        return Ready(actor, queued.batch, head, queued.parts, seen, problem)

    def _satisfied(self, dep: Dep) -> ActorId | None:
        on = self._history.branch(dep.actor, dep.seq, dep.hash16)
        if on is None:
            return None
        state = self.applied.get(on)
        return on if state is not None and state.seq >= dep.seq else None

    def _state(self, actor: ActorId, batch: Batch) -> Applied | None:
        """Return how far an actor is; None where a branch waits for its beginning.

        A branch goes on from what its author had seen and written before the fork.
        """
        state = self.applied.get(actor)
        if state is not None:
            return state
        author, first = batch.header.actor, batch.header.first_seq
        state = Applied()
        if actor != author and first > 1:
            base = self.applied.get(author)
            if base is None or base.seq < first - 1:
                self._waiting.setdefault(author, set()).add(actor)
                return None
            state = Applied(0, base.hlc, {**base.seen, author: first - 1})
        self.applied[actor] = state
        return state

    def _undecodable(self, actor: ActorId, queued: _Queued) -> Ready | None:
        header = queued.batch.header
        state = self._state(actor, queued.batch)
        if state is None:
            return None
        head = ChangeHead(header.first_seq, header.n_ops, state.hlc, [], NO_META, [])
        self._advance(queued, state, header.end, state.hlc)
        return Ready(actor, queued.batch, head, queued.parts, {}, queued.problem)

    def _advance(self, queued: _Queued, state: Applied, seq: int, hlc: int) -> None:
        state.seq, state.hlc = seq, hlc
        # A dep names the author, also where its branch is meant.
        for waiting in sorted(self._waiting.pop(queued.batch.header.actor, ())):
            self._candidates.append(waiting)

    def look_again(self) -> None:
        """Let everything that waits be tried: `hold`, or `is_ordered`, has changed its
        mind."""
        self._until.clear()
        self._candidates.extend(sorted(self._queues.keys() - set(self._candidates)))
