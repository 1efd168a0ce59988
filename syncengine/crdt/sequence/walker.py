"""Replaying a concurrent region: from edits at their own versions to patches on what
is shown.

The conflict between what is shown (A) and what came (B) is cut into segments, which
are only ever applied, retreated or advanced as a whole. Where one event dominates
everything before it, the region ends (a critical version); a region of one segment
is applied as it is. Other regions go through a `Tracker`, a temporary CRDT in which
all the text at the base is one placeholder that is never read.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence.oplog import (
    INS,
    ONLY_B,
    ROOT,
    SET,
    Heads,
    OpLog,
    Piece,
)

# A block of spans is split above this; it bounds the scan inside a block.
BLOCK_SPANS_MAX = 128

_BASE = -(1 << 50)  # the id of the first element of the base
_BASE_LENGTH = 1 << 48
_START = -(1 << 60)  # the left origin of what stands at the very beginning
_NONE = 1 << 60  # the right origin of what has none: infinitely far right


class Patch(NamedTuple):
    """One step on what is shown, to be applied in order.

    Delete `deleted` elements at `pos`, or insert `inserted` events from `lv` on; or
    neither: the SET event `lv` is about the element at `pos`.
    """

    pos: int
    deleted: int
    lv: int
    inserted: int


class Span:
    """A run of elements with one fate.

    `state` is the prepare version's: 0 not yet inserted, 1 present, k deleted k-1
    times. `dead` and `shown` are the effect: gone for good; visible before B.
    """

    __slots__ = (
        "block",
        "dead",
        "deleters",
        "id",
        "left",
        "n",
        "right",
        "segment",
        "shown",
        "state",
    )

    def __init__(self, id_: int, n: int, left: int, right: int):
        self.id = id_
        self.n = n
        self.left = left
        self.right = right
        self.state = 1
        self.dead = False
        self.shown = False
        self.segment: Segment | None = None
        self.deleters: list[Segment] = []
        self.block: Block


class Block:
    """Neighbouring spans, and how many of their elements are present."""

    __slots__ = ("present", "spans")

    def __init__(self, spans: list[Span], present: int):
        self.spans = spans
        self.present = present


@dataclass(eq=False, slots=True)
class Segment:
    """Consecutive events that are only handled together."""

    start: int
    end: int
    only_b: bool
    void: bool = False
    parents: list[int] = field(default_factory=list[int])
    ancestors: int = 0
    inserted: list[Span] = field(default_factory=list[Span])
    deleted: list[Span] = field(default_factory=list[Span])


class Tracker:
    """The temporary CRDT of one region.

    `base_length` is how many elements the base has, where it is known: positions of
    B are checked against it, so every replica gives the same verdict.
    """

    def __init__(self, log: OpLog):
        self._log = log
        base = Span(_BASE, _BASE_LENGTH, _START, _NONE)
        block = Block([base], _BASE_LENGTH)
        base.block = block
        self._blocks = [block]
        self._present = 0  # beyond the base's own length
        self.shown_change = 0  # what the region does to the shown length
        self.base_length: int | None = None
        self.sets: list[tuple[int, int]] = []  # (event, element it is about)

    # --- prepare version ----------------------------------------------------------

    def retreat(self, segment: Segment) -> None:
        for span in segment.deleted:
            span.state -= 1
            if span.state == 1:
                self._count(span.block, span.n)
        for span in segment.inserted:
            span.state = 0
            self._count(span.block, -span.n)

    def advance(self, segment: Segment) -> None:
        for span in segment.inserted:
            span.state = 1
            self._count(span.block, span.n)
        for span in segment.deleted:
            if span.state == 1:
                self._count(span.block, -span.n)
            span.state += 1

    def _count(self, block: Block, n: int) -> None:
        block.present += n
        self._present += n

    # --- applying -----------------------------------------------------------------

    def apply(self, segment: Segment) -> None:
        """Apply a segment at its own version, which must be prepared."""
        for piece in self._log.pieces(segment.start, segment.end):
            if self.base_length is not None:
                length = self.base_length + self._present
                reach = piece.pos if piece.kind == INS else piece.pos + piece.n
                if reach > length:
                    raise InvalidOperation(
                        f"position {reach} is beyond the length {length} that its "
                        "author saw"
                    )
            if piece.kind == INS:
                self._insert(piece, segment)
            elif piece.kind == SET:
                block, index, offset = self._find(piece.pos)
                self.sets.append((piece.lv, block.spans[index].id + offset))
            else:
                self._delete(piece, segment)

    def _find(self, pos: int) -> tuple[Block, int, int]:
        """Return where the present element number `pos` is: block, index, offset."""
        for block in self._blocks:
            if pos < block.present:
                for index, span in enumerate(block.spans):
                    if span.state == 1:
                        if pos < span.n:
                            return block, index, pos
                        pos -= span.n
            else:
                pos -= block.present
        raise AssertionError("the placeholder never runs out")

    def _insert(self, piece: Piece, segment: Segment) -> None:
        if piece.pos == 0:
            left = _START
            block, at = self._blocks[0], 0
        else:
            block, index, offset = self._find(piece.pos - 1)
            span = block.spans[index]
            left = span.id + offset
            at = index + 1
            if offset + 1 < span.n:
                self._split(span, index, offset + 1)
                right = block.spans[at].id
                self._put(block, at, piece, left, right, segment)
                return
            if (
                span.segment is segment
                and span.id + span.n == piece.lv
                and not span.dead
                and self._right_origin(block, at, left) == (_NONE, False)
            ):
                span.n += piece.n
                self._count(block, piece.n)
                self.shown_change += piece.n
                return
        right, skipped = self._right_origin(block, at, left)
        if skipped:
            block, at = self._integrate(block, at, piece, left, right)
        self._put(block, at, piece, left, right, segment)

    def _right_origin(self, block: Block, at: int, left: int) -> tuple[int, bool]:
        """Return the right origin at a place, and whether anything was skipped.

        Fugue's rule: the next element that the prepare version knows (present or
        deleted) is the right origin iff its own left origin is `left` too.
        """
        skipped = False
        for span in self._from(block, at):
            if span.state == 0:
                skipped = True
                continue
            return (span.id if span.left == left else _NONE), skipped
        raise AssertionError("the placeholder is never skipped")

    def _from(self, block: Block, at: int) -> Iterator[Span]:
        yield from block.spans[at:]
        for later in self._blocks[self._blocks.index(block) + 1 :]:
            yield from later.spans

    def _integrate(
        self, block: Block, at: int, piece: Piece, left: int, right: int
    ) -> tuple[Block, int]:
        """Return the place among concurrent insertions, by Fugue's order."""
        skipped: list[Span] = []
        for span in self._from(block, at):
            if span.state:
                break
            skipped.append(span)
        place: Span | None = None  # go right after this one
        scanning = False
        for index, other in enumerate(skipped):
            if other.left == left:
                if other.right == right:
                    if self._log.actor_seq(piece.lv) < self._log.actor_seq(other.id):
                        break
                    scanning = False
                else:
                    scanning = other.right != _NONE and (
                        right == _NONE
                        or any(s.id == other.right for s in skipped[index:])
                    )
            elif not any(s.id <= other.left < s.id + s.n for s in skipped[:index]):
                break
            if not scanning:
                place = other
        if place is None:
            return block, at
        return place.block, place.block.spans.index(place) + 1

    def _put(
        self,
        block: Block,
        at: int,
        piece: Piece,
        left: int,
        right: int,
        segment: Segment,
    ) -> None:
        span = Span(piece.lv, piece.n, left, right)
        span.segment = segment
        span.dead = segment.void
        segment.inserted.append(span)
        block.spans.insert(at, span)
        span.block = block
        self._count(block, piece.n)
        if not segment.void:
            self.shown_change += piece.n
        self._balance(block)

    def _balance(self, block: Block) -> None:
        """Halve `block` when it has grown too long to scan."""
        if len(block.spans) <= BLOCK_SPANS_MAX:
            return
        half = len(block.spans) // 2
        spans = block.spans[half:]
        del block.spans[half:]
        right = Block(spans, sum(span.n for span in spans if span.state == 1))
        block.present -= right.present
        for span in spans:
            span.block = right
        self._blocks.insert(self._blocks.index(block) + 1, right)

    def _split(self, span: Span, index: int, offset: int) -> None:
        """Cut `span` at `offset`; its right half stands right after it."""
        right = Span(span.id + offset, span.n - offset, span.id + offset - 1, _NONE)
        right.state, right.dead, right.shown = span.state, span.dead, span.shown
        right.segment, right.deleters = span.segment, list(span.deleters)
        span.n = offset
        if right.segment is not None:
            right.segment.inserted.append(right)
        for segment in right.deleters:
            segment.deleted.append(right)
        span.block.spans.insert(index + 1, right)
        right.block = span.block

    def _delete(self, piece: Piece, segment: Segment) -> None:
        left = piece.n
        while left:
            block, index, offset = self._find(piece.pos)
            if offset:
                self._split(block.spans[index], index, offset)
                index += 1
            # Neighbours in the block often go together: one search for all.
            while left and index < len(block.spans):
                span = block.spans[index]
                if span.state == 1:
                    if span.n > left:
                        self._split(span, index, left)
                    left -= span.n
                    self._count(block, -span.n)
                    span.state = 2
                    span.deleters.append(segment)
                    segment.deleted.append(span)
                    if not span.dead and not segment.void:
                        span.dead = True
                        self.shown_change -= span.n
                index += 1
            self._balance(block)

    # --- the result ---------------------------------------------------------------

    def spans(self) -> Iterator[Span]:
        for block in self._blocks:
            yield from block.spans

    def mark_shown(self) -> None:
        """Remember what is shown now: the state before B."""
        for span in self.spans():
            span.shown = not span.dead

    def patches(self) -> Iterator[Patch]:
        """Yield what leads from the state before B to the state after it."""
        pos = 0
        for span in self.spans():
            if span.shown:
                if span.dead:
                    yield Patch(pos, span.n, 0, 0)
                else:
                    pos += span.n
            elif not span.dead:
                yield Patch(pos, 0, span.id, span.n)
                pos += span.n

    def set_patches(self) -> Iterator[Patch]:
        """Yield, at final positions, which elements the SET events are about."""
        if not self.sets:
            return
        starts: list[tuple[int, int, int]] = []  # (id, n, final position)
        pos = 0
        for span in self.spans():
            if not span.dead:
                starts.append((span.id, span.n, pos))
                pos += span.n
        starts.sort()
        keys = [start[0] for start in starts]
        for lv, element in self.sets:
            at = bisect_right(keys, element) - 1
            if at >= 0 and element < keys[at] + starts[at][1]:
                yield Patch(starts[at][2] + element - keys[at], 0, lv, 0)


def merge(log: OpLog, shown: Heads, length: int) -> Iterator[Patch]:
    """Yield the patches from version `shown` (of `length` elements) to all of `log`.

    Each must be applied before the next is asked for, or collected and applied in
    order. Raises `InvalidOperation` when an event stands outside what its author
    saw: the caller undoes what it has applied.
    """
    conflict = log.conflict(shown, log.heads)
    segments = _segments(log, conflict.ranges)
    for part in _parts(segments):
        if len(part) == 1:
            if not part[0].only_b:
                continue
            for patch in _straight(log, part[0], length):
                length += patch.inserted - patch.deleted
                yield patch
            continue
        if not any(segment.only_b for segment in part):
            continue
        for patch in _region(log, part, length):
            length += patch.inserted - patch.deleted
            yield patch


PRESENT, SHOWN = 1, 2

Run = tuple[int, int, int]
"""(lv, n, flags): PRESENT at the newest version as authors count positions (void
events included), SHOWN (void insertions left out, void deletions undone)."""


def replay(
    log: OpLog, voids: list[tuple[int, int]]
) -> tuple[list[Run], list[tuple[int, int]]]:
    """Return the whole sequence from nothing, in order, and its SET events with the
    element each is about (both as LVs)."""
    conflict = log.conflict((), log.heads)
    segments = _segments(log, conflict.ranges, voids)
    tracker = Tracker(log)
    tracker.base_length = 0
    everything = (1 << len(segments)) - 1
    prepared = 0
    for index, segment in enumerate(segments):
        prepared = _prepare(tracker, segments, prepared, segment.ancestors)
        tracker.apply(segment)
        prepared |= 1 << index
    _prepare(tracker, segments, prepared, everything)
    runs = [
        (
            span.id,
            span.n,
            (PRESENT if span.state == 1 else 0) | (0 if span.dead else SHOWN),
        )
        for span in tracker.spans()
        if span.id >= 0 and (span.state == 1 or not span.dead)
    ]
    return runs, tracker.sets


def _segments(
    log: OpLog,
    ranges: list[tuple[int, int, int]],
    voids: list[tuple[int, int]] | None = None,
) -> list[Segment]:
    """Cut `ranges` where a graph run starts and after everybody's parent."""
    cuts: set[int] = set()
    for start, end, _ in ranges:
        run = bisect_right(log.g_start, start) - 1
        while run < len(log.g_start) and log.g_start[run] < end:
            cuts.add(log.g_start[run])
            cuts.update(parent + 1 for parent in log.g_parents[run])
            run += 1
    for start, end in voids or ():
        cuts.update((start, end))
    edges = sorted(cuts)
    segments: list[Segment] = []
    for start, end, flag in ranges:
        at = bisect_right(edges, start)
        while start < end:
            stop = min(end, edges[at]) if at < len(edges) else end
            segments.append(Segment(start, stop, flag == ONLY_B))
            start, at = stop, at + 1
    starts = [segment.start for segment in segments]
    for segment in segments:
        run = bisect_right(log.g_start, segment.start) - 1
        first = log.g_start[run] == segment.start
        parents = log.g_parents[run] if first else (segment.start - 1,)
        for parent in parents:
            index = bisect_right(starts, parent) - 1
            # A parent outside the conflict is the base, or below it.
            if index >= 0 and parent < segments[index].end:
                segment.parents.append(index)
                segment.ancestors |= segments[index].ancestors | 1 << index
        if voids:
            at = bisect_right(voids, (segment.start, 1 << 62)) - 1
            segment.void = at >= 0 and segment.start < voids[at][1]
    return segments


def _parts(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield the segments in parts that end at critical versions.

    After segment i the version is critical iff i is the only open tip and no later
    segment has a parent before it. Inside a part, indices are its own.
    """
    count = len(segments)
    least = [count] * (count + 1)  # the least parent of any later segment
    for index in range(count - 1, -1, -1):
        parents = segments[index].parents
        own = min(parents) if parents else ROOT
        least[index] = min(own, least[index + 1])
    begin = 0
    tips: set[int] = set()
    for index, segment in enumerate(segments):
        tips.difference_update(segment.parents)
        tips.add(index)
        if len(tips) == 1 and least[index + 1] >= index:
            yield _reindexed(segments[begin : index + 1], begin)
            begin = index + 1
    if begin < count:  # several heads are open at the end
        yield _reindexed(segments[begin:], begin)


def _reindexed(part: list[Segment], begin: int) -> list[Segment]:
    for segment in part:
        segment.ancestors >>= begin
    return part


def _straight(log: OpLog, segment: Segment, length: int) -> Iterator[Patch]:
    """Yield the patches of a segment made at exactly the version that is shown."""
    for piece in log.pieces(segment.start, segment.end):
        reach = piece.pos if piece.kind == INS else piece.pos + piece.n
        if reach > length:
            raise InvalidOperation(
                f"position {reach} is beyond the length {length} that its author saw"
            )
        if piece.kind == INS:
            length += piece.n
            yield Patch(piece.pos, 0, piece.lv, piece.n)
        elif piece.kind == SET:
            yield Patch(piece.pos, 0, piece.lv, 0)
        else:
            length -= piece.n
            yield Patch(piece.pos, piece.n, 0, 0)


def _region(log: OpLog, part: list[Segment], length: int) -> list[Patch]:
    """Return the patches of a concurrent region: A's segments first, then B's."""
    tracker = Tracker(log)
    prepared = 0
    marked = False
    order = [i for i, s in enumerate(part) if not s.only_b]
    order += [i for i, s in enumerate(part) if s.only_b]
    for index in order:
        segment = part[index]
        if segment.only_b and not marked:
            tracker.mark_shown()
            tracker.base_length = length - tracker.shown_change
            tracker.sets.clear()
            marked = True
        prepared = _prepare(tracker, part, prepared, segment.ancestors)
        tracker.apply(segment)
        prepared |= 1 << index
    return [*tracker.patches(), *tracker.set_patches()]


def _prepare(
    tracker: Tracker, segments: list[Segment], prepared: int, wanted: int
) -> int:
    """Move the prepare version to `wanted`: retreat down, advance up."""
    away = prepared & ~wanted
    while away:
        index = away.bit_length() - 1
        tracker.retreat(segments[index])
        away ^= 1 << index
    missing = wanted & ~prepared
    while missing:
        lowest = missing & -missing
        tracker.advance(segments[lowest.bit_length() - 1])
        missing ^= lowest
    return wanted
