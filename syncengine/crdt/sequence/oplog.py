"""The run-length log of one sequence: its edits, their graph, whose they are.

It is an index derived from the signed log and holds no content. Every deleted or
inserted element is one event, numbered locally by its LV (local version); LVs never
leave the replica. Three run-length lists:

* operations: `lv, kind, pos, n`. INS (pos grows), DEL (the same pos again and again),
  BACK (backspaces; pos is the lowest), SET (an element's value; n is 1), FIRST and LAST
  (one element is inserted, before or behind what is concurrently inserted there);
* graph: `start, end, parents`; inside a run each event's parent is the one before;
* agents: `lv, end, actor, seq`; wire ids are (actor, seq).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.register import Seen
from syncengine.ids import ActorId, OpId

INS, DEL, BACK, SET, FIRST, LAST = 0, 1, 2, 3, 4, 5

# How many runs of operations one stored segment holds: small enough to rewrite the
# open tail with each commit, large enough that a long history has few rows.
SEGMENT_RUNS = 64

# Typing beyond this starts a new run, so that one event's run is found cheaply.
RUN_MAX = 4096

Heads = tuple[int, ...]

ROOT = -1


class Piece(NamedTuple):
    """A part of an operation run, at its own position."""

    lv: int
    kind: int
    pos: int
    n: int


class OpLog:
    """Invariants: (1) LVs are dense from 0 to `n`; (2) an event's parents have
    lower LVs; (3) `heads` are the events without children, ascending; (4) what is
    not loaded is a prefix, `[0, loaded_from)`.
    """

    __slots__ = (
        "_load",
        "_seen_by",
        "a_actor",
        "a_end",
        "a_lv",
        "a_seq",
        "by_actor",
        "closed_runs",
        "g_end",
        "g_parents",
        "g_start",
        "head_ids",
        "heads",
        "loaded_from",
        "n",
        "op_kind",
        "op_lv",
        "op_n",
        "op_pos",
    )

    def __init__(self) -> None:
        self.n = 0
        self.heads: Heads = ()
        self.head_ids: list[OpId] = []
        self.loaded_from = 0
        self._load: Callable[[], Iterable[bytes]] | None = None
        self.closed_runs = 0  # operation runs of this memory that are stored for good
        # What an author had seen when it made its last event (None: all there was), and
        # that event: most of what it has seen since is the same.
        self._seen_by: dict[ActorId, tuple[dict[ActorId, int] | None, int]] = {}
        self._clear()

    def _clear(self) -> None:
        self.op_lv: list[int] = []
        self.op_kind: list[int] = []
        self.op_pos: list[int] = []
        self.op_n: list[int] = []
        self.g_start: list[int] = []
        self.g_end: list[int] = []
        self.g_parents: list[Heads] = []
        self.a_lv: list[int] = []
        self.a_end: list[int] = []
        self.a_actor: list[ActorId] = []
        self.a_seq: list[int] = []
        self.by_actor: dict[ActorId, list[int]] = {}

    # --- writing ------------------------------------------------------------------

    def push(
        self, kind: int, pos: int, n: int, actor: ActorId, seq: int, parents: Heads
    ) -> int:
        """Append `n` events; return the first one's LV."""
        lv = self.n
        end = lv + n
        goes_on = len(parents) == 1 and parents[0] == lv - 1
        if (
            kind == INS
            and goes_on
            and len(self.op_lv) > self.closed_runs
            and self.op_kind[-1] == INS
            and self.op_pos[-1] + self.op_n[-1] == pos
            and self.op_n[-1] + n <= RUN_MAX
            and self.a_actor[-1] == actor
            and self.a_seq[-1] + lv - self.a_lv[-1] == seq
            and self.g_end[-1] == lv
        ):
            # Typing goes on: what the three steps below come to.
            self.op_n[-1] += n
            self.g_end[-1] = self.a_end[-1] = end
        else:
            self._push_op(lv, kind, pos, n)
            self._push_graph(lv, n, parents)
            self._push_agent(lv, n, actor, seq)
        self.n = end
        if self._seen_by:
            noted = self._seen_by.get(actor)
            if noted is not None:
                self._seen_by[actor] = (noted[0], end - 1)
        heads = self.heads
        name = (actor, seq + n - 1)
        if goes_on:  # what was made last is the last of the heads
            self.heads = (end - 1,) if len(heads) == 1 else (*heads[:-1], end - 1)
            self.head_ids[-1] = name
        elif parents == heads:
            self.heads = (end - 1,)
            self.head_ids = [name]
        else:
            names = self.head_ids
            kept = [i for i, head in enumerate(heads) if head not in parents]
            self.heads = (*(heads[i] for i in kept), end - 1)
            self.head_ids = [*(names[i] for i in kept), name]
        return lv

    def _push_op(self, lv: int, kind: int, pos: int, n: int) -> None:
        if self.op_lv and len(self.op_lv) > self.closed_runs:
            last_kind, last_n = self.op_kind[-1], self.op_n[-1]
            last_pos = self.op_pos[-1]
            if last_n + n <= RUN_MAX and last_kind != SET:
                if kind == INS:
                    if last_kind == INS and pos == last_pos + last_n:
                        self.op_n[-1] = last_n + n
                        return
                elif kind == DEL and last_kind == DEL and pos == last_pos:
                    self.op_n[-1] = last_n + n
                    return
                # One element deleted before the last one: a backspace. A longer
                # deletion runs forward and would give its elements other LVs.
                elif (
                    (kind == BACK or (kind == DEL and n == 1))
                    and (last_kind == BACK or (last_kind == DEL and last_n == 1))
                    and pos + n == last_pos
                ):
                    self.op_kind[-1] = BACK
                    self.op_pos[-1] = pos
                    self.op_n[-1] = last_n + n
                    return
        self.op_lv.append(lv)
        self.op_kind.append(kind)
        self.op_pos.append(pos)
        self.op_n.append(n)

    def _push_graph(self, lv: int, n: int, parents: Heads) -> None:
        if self.g_end and parents == (lv - 1,):
            self.g_end[-1] = lv + n
            return
        self.g_start.append(lv)
        self.g_end.append(lv + n)
        self.g_parents.append(parents)

    def _push_agent(self, lv: int, n: int, actor: ActorId, seq: int) -> None:
        if (
            self.a_end
            and self.a_actor[-1] == actor
            and self.a_seq[-1] + (lv - self.a_lv[-1]) == seq
        ):
            self.a_end[-1] = lv + n
            return
        self.by_actor.setdefault(actor, []).append(len(self.a_lv))
        self.a_lv.append(lv)
        self.a_end.append(lv + n)
        self.a_actor.append(actor)
        self.a_seq.append(seq)

    # --- undoing a transaction ----------------------------------------------------

    def mark(self) -> tuple[Any, ...]:
        """Return what `rewind` needs to forget everything pushed from now on."""
        return (
            self.n,
            self.heads,
            list(self.head_ids),
            len(self.op_lv),
            (self.op_kind[-1], self.op_pos[-1], self.op_n[-1]) if self.op_lv else None,
            len(self.g_start),
            self.g_end[-1] if self.g_end else 0,
            len(self.a_lv),
            self.a_end[-1] if self.a_end else 0,
            self.loaded_from,
        )

    def rewind(self, mark: tuple[Any, ...]) -> None:
        """Forget what was pushed since `mark`."""
        n, heads, head_ids, ops, last_op, graph, g_end, agents, a_end, from_ = mark
        self._seen_by.clear()
        if from_ != self.loaded_from:
            # The tail was loaded in between: its runs stand before what to forget.
            ops = bisect_right(self.op_lv, n - 1) if n else 0
            graph = bisect_right(self.g_start, n - 1) if n else 0
            agents = bisect_right(self.a_lv, n - 1) if n else 0
        self.n, self.heads, self.head_ids = n, heads, list(head_ids)
        for runs in (self.op_lv, self.op_kind, self.op_pos, self.op_n):
            del runs[ops:]
        if self.op_lv and last_op is not None:
            self.op_kind[-1], self.op_pos[-1], self.op_n[-1] = last_op
        for index in range(agents, len(self.a_lv)):
            indexes = self.by_actor[self.a_actor[index]]
            indexes.remove(index)
        del self.g_start[graph:], self.g_end[graph:], self.g_parents[graph:]
        del self.a_lv[agents:], self.a_end[agents:]
        del self.a_actor[agents:], self.a_seq[agents:]
        if self.g_end:
            self.g_end[-1] = g_end if from_ == self.loaded_from else n
        if self.a_end:
            self.a_end[-1] = a_end if from_ == self.loaded_from else n

    # --- reading ------------------------------------------------------------------

    def seen_heads(self, seen: Seen) -> bool:
        """Tell whether one who had seen `seen` had seen all of this sequence."""
        if seen is not None:
            for actor, seq in self.head_ids:
                if seen.get(actor, 0) < seq:
                    return False
        return True

    def parents_at(self, seen: Seen, author: ActorId) -> Heads:
        """Return the maximal events that `author`, who had seen `seen`, had seen.

        To be followed by the push of what it made then, or by `forget_seen`.
        """
        if seen is None or self.seen_heads(seen):
            self._seen_by[author] = (None, self.n)
            return self.heads
        self.load()
        before, own = self._seen_by.get(author, ({}, ROOT))
        if own != ROOT and before is not None:
            for actor in self.by_actor:
                if actor != author and before.get(actor, 0) != seen.get(actor, 0):
                    break
            else:
                return (own,)  # nothing but what it saw when it made its own last one
        known = {actor: seen.get(actor, 0) for actor in self.by_actor}
        last: list[int] = [own] if own != ROOT else []
        for actor, seq in known.items():
            if not seq or (own != ROOT and actor == author):
                continue
            if before is not None and before.get(actor) == seq:
                continue  # what it saw when it made its own last one
            lv = self._last_of(actor, seq)
            if lv != ROOT and (before is not None or lv > own):
                last.append(lv)
        self._seen_by[author] = (known, self.n)
        return self.dominators(last)

    def forget_seen(self, author: ActorId) -> None:
        """What `parents_at` was asked for is not pushed after all."""
        self._seen_by.pop(author, None)

    def _last_of(self, actor: ActorId, seq: int) -> int:
        """Return the last event of `actor` up to `seq`; ROOT when there is none."""
        runs = self.by_actor[actor]
        at = bisect_right(runs, seq, key=self.a_seq.__getitem__) - 1
        if at < 0:
            return ROOT
        run = runs[at]
        end = self.a_seq[run] + self.a_end[run] - self.a_lv[run] - 1
        return self.a_lv[run] + min(seq, end) - self.a_seq[run]

    def dominators(self, lvs: list[int]) -> Heads:
        """Return those of `lvs` that are ancestors of no other one, ascending."""
        if len(lvs) < 2:
            return tuple(lvs)
        queue = [(-lv, 0) for lv in set(lvs)]  # 0: asked for, 1: an ancestor of one
        heapify(queue)
        waiting = len(queue)
        found: list[int] = []
        while waiting:
            negative, reached = heappop(queue)
            lv = -negative
            waiting -= not reached
            kept = not reached
            while queue and queue[0][0] == negative:
                _, other = heappop(queue)
                waiting -= not other
                kept = kept and not other
            if kept:
                found.append(lv)
            run = bisect_right(self.g_start, lv) - 1
            start = self.g_start[run]
            # Whatever was asked for in the rest of the run is an ancestor.
            while queue and -queue[0][0] >= start:
                _, other = heappop(queue)
                waiting -= not other
            for parent in self.g_parents[run]:
                heappush(queue, (-parent, 1))
        return tuple(sorted(found))

    def actor_seq(self, lv: int) -> OpId:
        """Return the wire id of one event."""
        run = bisect_right(self.a_lv, lv) - 1
        return self.a_actor[run], self.a_seq[run] + lv - self.a_lv[run]

    def rank(self, lv: int) -> int:
        """Return where an inserted element stands among concurrent ones: -1 before
        all others, 1 behind them."""
        kind = self.op_kind[bisect_right(self.op_lv, lv) - 1]
        return 0 if kind == INS else -1 if kind == FIRST else 1

    def lv_of(self, name: OpId) -> int | None:
        """Return the event of a wire id; None when it is not here."""
        actor, seq = name
        self.load()
        if actor not in self.by_actor:
            return None
        lv = self._last_of(actor, seq)
        return lv if lv != ROOT and self.actor_seq(lv) == name else None

    def agents(self, start: int, end: int) -> Iterable[tuple[ActorId, int, int]]:
        """Yield (actor, first seq, how many) of the events [start, end) in order."""
        run = bisect_right(self.a_lv, start) - 1
        while start < end:
            stop = min(end, self.a_end[run])
            seq = self.a_seq[run] + start - self.a_lv[run]
            yield self.a_actor[run], seq, stop - start
            start, run = stop, run + 1

    def pieces(self, start: int, end: int) -> Iterable[Piece]:
        """Yield the operations of the events [start, end) in order."""
        run = bisect_right(self.op_lv, start) - 1
        while start < end:
            lv, kind = self.op_lv[run], self.op_kind[run]
            pos, run_end = self.op_pos[run], self.op_lv[run] + self.op_n[run]
            stop = min(end, run_end)
            if kind == INS:
                pos += start - lv
            elif kind == BACK:
                pos += run_end - stop
            yield Piece(start, kind, pos, stop - start)
            start, run = stop, run + 1

    def parents_of(self, lv: int) -> Heads:
        """Return what an event's author had seen when making it."""
        run = bisect_right(self.g_start, lv) - 1
        return self.g_parents[run] if lv == self.g_start[run] else (lv - 1,)

    def base(self, versions: Iterable[Heads]) -> int:
        """Return the latest event that is in all of `versions`, and on whose other side
        all they have apart stands; ROOT when there is none."""
        self.load()
        queue: list[int] = []
        for version in versions:
            if not version:
                return ROOT
            queue += [-lv for lv in version]
        heapify(queue)
        while True:
            lv = -heappop(queue)
            while queue and -queue[0] == lv:
                heappop(queue)
            if not queue:
                return lv
            run = bisect_right(self.g_start, lv) - 1
            start = self.g_start[run]
            if -queue[0] >= start:
                continue  # in one run: whoever has the later one has the earlier
            parents = self.g_parents[run]
            if not parents:
                return ROOT
            for parent in parents:
                heappush(queue, -parent)

    def difference(
        self, a: Heads, b: Heads
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return what only version `a` has, and what only `b` has: ranges of events
        [start, end), the latest first."""
        only_a: list[tuple[int, int]] = []
        only_b: list[tuple[int, int]] = []
        # An event and who has it (1: a, 2: b, 3: both) as one number, latest first.
        queue = [1 - 4 * lv for lv in a] + [2 - 4 * lv for lv in b]
        heapify(queue)
        apart = len(queue)  # how many in the queue are not in both
        starts, all_parents = self.g_start, self.g_parents
        while apart:
            key = heappop(queue)
            of = key & 3
            apart -= of != 3
            lv = -(key >> 2)
            run = bisect_right(starts, lv) - 1
            start = starts[run]
            least = 3 - 4 * start
            while queue and queue[0] <= least:
                key = heappop(queue)
                other = key & 3
                apart -= other != 3
                if of | other != of:
                    at = -(key >> 2)
                    if at != lv:
                        if of != 3:
                            (only_a if of == 1 else only_b).append((at + 1, lv + 1))
                        lv = at
                    of = 3
            if of != 3:
                (only_a if of == 1 else only_b).append((start, lv + 1))
            for parent in all_parents[run]:
                heappush(queue, of - 4 * parent)
                apart += of != 3
        return only_a, only_b

    # --- storing ------------------------------------------------------------------

    def unload(self, n: int, heads: Heads, ids: list[OpId], load: Any) -> None:
        """Begin with `n` stored events, to be loaded by `load()` when asked for."""
        self.n, self.heads, self.head_ids = n, heads, ids
        self.loaded_from, self._load = n, load

    def load(self) -> None:
        """Make all of the log present."""
        if self._load is None:
            return
        stored, self._load = self._load(), None
        newer = (
            list(zip(self.op_lv, self.op_kind, self.op_pos, self.op_n, strict=True)),
            list(zip(self.g_start, self.g_end, self.g_parents, strict=True)),
            list(zip(self.a_lv, self.a_end, self.a_actor, self.a_seq, strict=True)),
        )
        self._clear()
        for segment in stored:
            self._append_segment(values.decode(segment))
        self.closed_runs += len(self.op_lv)
        self.loaded_from = 0
        for lv, kind, pos, n in newer[0]:
            self.op_lv.append(lv)
            self.op_kind.append(kind)
            self.op_pos.append(pos)
            self.op_n.append(n)
        for start, end, parents in newer[1]:
            self._push_graph(start, end - start, parents)
        for lv, end, actor, seq in newer[2]:
            self._push_agent(lv, end - lv, actor, seq)

    def _append_segment(self, segment: list[Any]) -> None:
        start, ops, graph, agents = segment
        lv = start
        for at in range(0, len(ops), 3):
            self.op_lv.append(lv)
            self.op_kind.append(ops[at])
            self.op_pos.append(ops[at + 1])
            self.op_n.append(ops[at + 2])
            lv += ops[at + 2]
        lv = start
        for n, parents in graph:
            self._push_graph(lv, n, tuple(lv - back for back in parents))
            lv += n
        lv = start
        for n, actor, seq in agents:
            self._push_agent(lv, n, ActorId(actor), seq)
            lv += n

    def unstored(self) -> list[tuple[int, bytes]]:
        """Return (first LV, bytes) of the segments to write: the open tail and on.

        A full segment is closed and never written again.
        """
        segments: list[tuple[int, bytes]] = []
        at = self.closed_runs
        while at < len(self.op_lv):
            stop = min(at + SEGMENT_RUNS, len(self.op_lv))
            segments.append((self.op_lv[at], self._segment(at, stop)))
            if stop - at == SEGMENT_RUNS and stop < len(self.op_lv):
                self.closed_runs = stop
            at = stop
        return segments

    def _segment(self, first: int, stop: int) -> bytes:
        start = self.op_lv[first]
        end = self.op_lv[stop - 1] + self.op_n[stop - 1]
        ops: list[int] = []
        for run in range(first, stop):
            ops += (self.op_kind[run], self.op_pos[run], self.op_n[run])
        graph: list[Any] = []
        run, lv = bisect_right(self.g_start, start) - 1, start
        while lv < end:
            till = min(end, self.g_end[run])
            first_of_run = lv == self.g_start[run]
            parents = self.g_parents[run] if first_of_run else (lv - 1,)
            graph.append((till - lv, [lv - parent for parent in parents]))
            run, lv = run + 1, till
        agents: list[Any] = []
        run, lv = bisect_right(self.a_lv, start) - 1, start
        while lv < end:
            till = min(end, self.a_end[run])
            seq = self.a_seq[run] + lv - self.a_lv[run]
            agents.append((till - lv, self.a_actor[run], seq))
            run, lv = run + 1, till
        return values.encode([start, ops, graph, agents])
