"""Merging what is concurrent: from edits at their own versions to patches on what is
shown.

After Gentle and Kleppmann, "Collaborative Text Editing with Eg-walker" (2025), with
Fugue's order among concurrent insertions (Weidner and Kleppmann, 2023). A `Walker`
holds the events after one *base* that comes before everything concurrent: the text at
the base is one placeholder that is never read, so neither the base nor any content is
needed. It stays from one change to the next while what is concurrent goes on; events
that everybody had seen (one's own typing, say) are fed to it when the next concurrent
one comes.

Events are handled in *segments*, which are retreated and advanced as a whole. A
segment is cut when somebody turns out to have seen only the first part of it.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator
from typing import NamedTuple

from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence.oplog import BACK, INS, ROOT, SET, Heads, OpLog
from syncengine.limits import ELEMENTS_MAX

# A block of spans is split above this; it bounds the scan inside a block.
BLOCK_SPANS_MAX = 128

# A segment of more spans is followed by another: to cut one, all of it is looked at.
SEGMENT_SPANS_MAX = 128

# A walker that has grown to more segments, and to twice what it began with, is made
# anew: what is not concurrent any more is then left out.
SEGMENTS_MAX = 4096

_BASE = -(1 << 50)  # the id of the first element of the base
_BASE_LENGTH = 1 << 48
_START = -(1 << 60)  # the left origin of what stands at the very beginning
_NONE = 1 << 60  # the right origin of what has none: infinitely far right


def too_long() -> InvalidOperation:
    return InvalidOperation(
        f"a text or a list has at most {ELEMENTS_MAX} elements", bound=ELEMENTS_MAX
    )


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
    times. `dead` is the effect: not shown, or not any more. `deleters` says who
    deleted it: (segment, the event that deleted its first element, and by how much
    the event of each further one is higher or lower).
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
        "state",
    )

    def __init__(self, id_: int, n: int, left: int, right: int):
        self.id = id_
        self.n = n
        self.left = left
        self.right = right
        self.state = 1
        self.dead = False
        self.segment: Segment | None = None
        self.deleters: list[tuple[Segment, int, int]] = []
        self.block: Block


class Block:
    """Neighbouring spans; how many of their elements are present, and are shown."""

    __slots__ = ("index", "present", "shown", "spans")

    def __init__(self, spans: list[Span], index: int):
        self.spans = spans
        self.index = index
        self.present = sum(span.n for span in spans if span.state == 1)
        self.shown = sum(span.n for span in spans if not span.dead)
        for span in spans:
            span.block = self


class Segment:
    """Consecutive events [start, end) that are only handled together."""

    __slots__ = ("deleted", "end", "inserted", "start", "void")

    def __init__(self, start: int, end: int, *, void: bool):
        self.start = start
        self.end = end
        self.void = void
        self.inserted: list[Span] = []
        self.deleted: list[Span] = []


class Walker:
    """The events of `log` after `base` as a temporary CRDT.

    Invariants: (1) segments are in order and leave no gap from `base + 1` to `fed`;
    (2) `_hot` is a block, and `_hot_present` and `_hot_shown` what stands before it;
    (3) `_prepared` is the version that states of spans speak of.
    """

    def __init__(self, log: OpLog, base: int, voids: list[tuple[int, int]]):
        self.base = base
        self.fed = base + 1
        self._log = log
        self._voids = voids
        block = Block([Span(_BASE, _BASE_LENGTH, _START, _NONE)], 0)
        self._blocks = [block]
        self._hot, self._hot_present, self._hot_shown = block, 0, 0
        self._present = 0  # in the prepare version, beyond the base's own length
        self._shown = 0  # by effect, likewise
        self._base_length: int | None = None
        self._segments: list[Segment] = []
        self._starts: list[int] = []
        self._prepared: Heads = () if base == ROOT else (base,)
        self._typed: Span | None = None
        """The span that was inserted last, and where it ends: typing goes on there"""
        self._typed_pos = self._typed_shown = 0
        self._segments_max = SEGMENTS_MAX

    @classmethod
    def at(
        cls,
        log: OpLog,
        parents: Heads,
        voids: list[tuple[int, int]],
        length: int,
        heads: Heads | None = None,
    ) -> "Walker":
        """Return a walker of all there is, for one who had seen `parents`.

        `length` elements are shown. With `heads`, of what was there when they were the
        newest events.
        """
        log.load()
        heads = log.heads if heads is None else heads
        versions = [heads, parents]
        if voids:
            # Below the base nothing is void, so that positions are what is shown.
            versions.append(log.parents_of(voids[0][0]))
        walker = cls(log, log.base(versions), voids)
        walker.feed(max(heads, default=ROOT) + 1)
        walker._base_length = length - walker._shown
        walker._segments_max = max(SEGMENTS_MAX, 2 * len(walker._segments))
        return walker

    def serves(self, parents: Heads) -> bool:
        """Whether an event of one who had seen `parents` can be taken."""
        if len(self._segments) > self._segments_max:
            return False
        if not parents:
            return self.base == ROOT
        return min(parents) >= self.base

    def feed(self, until: int | None = None) -> None:
        """Take in what the log has besides, or has up to an event; it is shown."""
        log = self._log
        stop = log.n if until is None else until
        if self.fed >= stop:
            return
        run = bisect_right(log.g_start, self.fed) - 1
        while self.fed < stop:
            start, end = self.fed, min(stop, log.g_end[run])
            parents = log.g_parents[run] if start == log.g_start[run] else (start - 1,)
            at = bisect_right(self._voids, (start, 1 << 62)) - 1
            void = at >= 0 and start < self._voids[at][1]
            if void:
                end = min(end, self._voids[at][1])
            elif at + 1 < len(self._voids):
                end = min(end, self._voids[at + 1][0])
            for piece in log.pieces(start, end):
                self.take(*piece, parents, void=void)
                parents = (piece.lv + piece.n - 1,)
            run += end == log.g_end[run]

    def check(self, kind: int, pos: int, n: int, parents: Heads) -> None:
        """Raise `InvalidOperation` unless an operation stands within what its author,
        who had seen `parents`, saw."""
        if parents != self._prepared:
            self._prepare(parents)
        assert self._base_length is not None, "it was made for one who had seen much"
        length = self._base_length + self._present
        inserts = kind == INS or kind > SET
        reach = pos if inserts else pos + n
        if reach > length:
            raise InvalidOperation(
                f"position {reach} is beyond the length {length} that its author saw"
            )
        if inserts and length + n > ELEMENTS_MAX:
            raise too_long()

    def take(
        self,
        lv: int,
        kind: int,
        pos: int,
        n: int,
        parents: Heads,
        *,
        void: bool = False,
    ) -> list[Patch]:
        """Take in the newest operation of the log; return what to do to what is shown.

        Where it is not known to stand within what its author saw, `check` comes first.
        """
        if parents != self._prepared:
            self._prepare(parents)
        segment = self._segments[-1] if self._segments else None
        if (
            segment is None
            or parents != (lv - 1,)
            or segment.void != void
            or len(segment.inserted) + len(segment.deleted) > SEGMENT_SPANS_MAX
        ):
            segment = Segment(lv, lv, void=void)
            self._segments.append(segment)
            self._starts.append(lv)
            self._typed = None
        patches: list[Patch] = []
        if kind == INS:
            span = self._typed
            if span and pos == self._typed_pos and lv == span.id + span.n:
                self._type(span, lv, n, patches)
            else:
                self._insert(lv, pos, n, segment, patches)
        elif kind > SET:
            self._insert(lv, pos, n, segment, patches)
        elif kind != SET:
            self._delete(lv, kind, pos, n, segment, patches)
        elif not void:
            self._set(lv, pos, patches)
        segment.end = self.fed = lv + n
        self._prepared = (self.fed - 1,)
        return patches

    def rewind(self, n: int) -> None:
        """Forget all events from `n` on; the log still has them."""
        if self.fed <= n:
            return
        self._typed = None
        self._prepare((n - 1,) if n else ())
        at = bisect_right(self._starts, n - 1) - 1
        if at >= 0 and self._segments[at].end > n:
            self._cut(at, n)
        while self._segments and self._segments[-1].start >= n:
            segment = self._segments.pop()
            self._starts.pop()
            for span in segment.deleted:
                span.deleters = [one for one in span.deleters if one[0] is not segment]
                void = span.segment is not None and span.segment.void
                if span.dead and not void and all(d[0].void for d in span.deleters):
                    span.dead = False
                    self._count(span.block, 0, span.n)
            for span in segment.inserted:
                if not span.dead:
                    self._count(span.block, 0, -span.n)
                span.block.spans.remove(span)
        self.fed = max(n, self.base + 1)

    # --- versions -----------------------------------------------------------------

    def _prepare(self, wanted: Heads) -> None:
        """Move the prepare version to `wanted`: retreat down, advance up."""
        self._typed = None
        away, missing = self._log.difference(self._prepared, wanted)
        for start, end in away:
            first, stop = self._cut_out(start, end)
            for index in range(stop - 1, first - 1, -1):
                self._retreat(self._segments[index])
        for start, end in reversed(missing):
            first, stop = self._cut_out(start, end)
            for index in range(first, stop):
                self._advance(self._segments[index])
        self._prepared = wanted

    def _cut_out(self, start: int, end: int) -> tuple[int, int]:
        """Return which segments are the events [start, end): first, and behind last."""
        starts = self._starts
        first = bisect_right(starts, start) - 1
        if starts[first] != start:
            self._cut(first, start)
            first += 1
        stop = bisect_right(starts, end - 1)
        if self._segments[stop - 1].end != end:
            self._cut(stop - 1, end)
        return first, stop

    def _cut(self, index: int, lv: int) -> None:
        """Make two segments of one, at the event `lv`."""
        segment = self._segments[index]
        right = Segment(lv, segment.end, void=segment.void)
        for span in list(segment.inserted):
            if span.id < lv < span.id + span.n:
                self._split(span, lv - span.id)
        for span in list(segment.deleted):
            _, at, step = next(d for d in span.deleters if d[0] is segment)
            # The elements that events from `lv` on deleted are the last, or the first.
            offset = lv - at if step > 0 else at - lv + 1
            if 0 < offset < span.n:
                self._split(span, offset)
        inserted, segment.inserted = segment.inserted, []
        for span in inserted:
            half = right if span.id >= lv else segment
            span.segment = half
            half.inserted.append(span)
        deleted, segment.deleted = segment.deleted, []
        for span in deleted:
            which = next(i for i, d in enumerate(span.deleters) if d[0] is segment)
            _, at, step = span.deleters[which]
            half = right if at >= lv else segment
            span.deleters[which] = (half, at, step)
            half.deleted.append(span)
        segment.end = lv
        self._segments.insert(index + 1, right)
        self._starts.insert(index + 1, lv)

    def _retreat(self, segment: Segment) -> None:
        for span in segment.deleted:
            span.state -= 1
            if span.state == 1:
                self._count(span.block, span.n, 0)
        for span in segment.inserted:
            span.state = 0
            self._count(span.block, -span.n, 0)

    def _advance(self, segment: Segment) -> None:
        for span in segment.inserted:
            span.state = 1
            self._count(span.block, span.n, 0)
        for span in segment.deleted:
            if span.state == 1:
                self._count(span.block, -span.n, 0)
            span.state += 1

    # --- places -------------------------------------------------------------------

    def _count(self, block: Block, present: int, shown: int) -> None:
        block.present += present
        block.shown += shown
        self._present += present
        self._shown += shown
        if block.index < self._hot.index:
            self._hot_present += present
            self._hot_shown += shown

    def _heat(self, block: Block) -> None:
        """Make `block` the one from which places are counted."""
        while self._hot.index > block.index:
            self._hot = self._blocks[self._hot.index - 1]
            self._hot_present -= self._hot.present
            self._hot_shown -= self._hot.shown
        while self._hot.index < block.index:
            self._hot_present += self._hot.present
            self._hot_shown += self._hot.shown
            self._hot = self._blocks[self._hot.index + 1]

    def _find(self, pos: int) -> tuple[Block, int, int]:
        """Return where the present element number `pos` is: block, index, offset."""
        if pos < self._hot_present // 2:
            self._hot, self._hot_present, self._hot_shown = self._blocks[0], 0, 0
        while pos < self._hot_present:
            self._heat(self._blocks[self._hot.index - 1])
        while pos >= self._hot_present + self._hot.present:
            self._heat(self._blocks[self._hot.index + 1])
        pos -= self._hot_present
        for index, span in enumerate(self._hot.spans):
            if span.state == 1:
                if pos < span.n:
                    return self._hot, index, pos
                pos -= span.n
        raise AssertionError("a block counts what it holds")

    def _shown_before(self, block: Block, index: int) -> int:
        """Return how many shown elements stand before a span."""
        self._heat(block)
        shown = self._hot_shown
        for span in block.spans[:index]:
            if not span.dead:
                shown += span.n
        return shown

    def author_ranges(self, heads: Heads, pos: int, n: int) -> list[tuple[int, int]]:
        """Return where those at `heads`, who count void elements, see `n` shown ones
        from `pos` on: (position, how many), the last first. With n = 0: where an
        insertion goes.

        Raises `InvalidOperation` for what has no position.
        """
        self._prepare(heads)
        found: list[tuple[int, int]] = []
        present = shown = 0
        first, end = (pos, pos + n) if n else (pos - 1, pos)
        for block in self._blocks:
            if shown + block.shown <= first:
                present, shown = present + block.present, shown + block.shown
                continue
            for span in block.spans:
                start, stop = max(first, shown), min(end, shown + span.n)
                if not span.dead and start < stop:
                    if span.state != 1:
                        raise InvalidOperation(
                            "what stands here came back when its deletion was refused, "
                            "and has no position of its own; edit beside it"
                        )
                    at = present + start - shown
                    if found and sum(found[-1]) == at:
                        found[-1] = (found[-1][0], found[-1][1] + stop - start)
                    else:
                        found.append((at, stop - start))
                present += span.n if span.state == 1 else 0
                shown += 0 if span.dead else span.n
                if shown >= end:
                    if n:
                        return found[::-1]
                    ((at, _),) = found
                    return [(at + 1, 0)]
        raise AssertionError("the placeholder never runs out")

    def where(self, parents: Heads, pos: int) -> tuple[int, bool]:
        """Return where the element at `pos` of the version `parents` is now, or would
        be: how many shown ones stand before it; and whether it is shown."""
        self._prepare(parents)
        block, index, offset = self._find(pos)
        dead = block.spans[index].dead
        return self._shown_before(block, index) + (0 if dead else offset), not dead

    def shown_events(self) -> Iterator[tuple[int, int]]:
        """Yield (first event, how many) of what is shown, in order: the insertions that
        made it. Only a walker of the whole log can tell."""
        assert self.base == ROOT, "what the base holds has no events here"
        for block in self._blocks:
            for span in block.spans:
                if not span.dead and span.id >= 0:
                    yield span.id, span.n

    # --- events -------------------------------------------------------------------

    def _set(self, lv: int, pos: int, patches: list[Patch]) -> None:
        block, index, offset = self._find(pos)
        if not block.spans[index].dead:
            at = self._shown_before(block, index) + offset
            patches.append(Patch(at, 0, lv, 0))

    def _type(self, span: Span, lv: int, n: int, patches: list[Patch]) -> None:
        """Insert right behind what was inserted last, with nothing in between."""
        patches.append(Patch(self._typed_shown, 0, lv, n))
        span.n += n
        self._typed_pos += n
        self._typed_shown += n
        self._count(span.block, n, n)

    def _insert(
        self, lv: int, pos: int, n: int, segment: Segment, patches: list[Patch]
    ) -> None:
        right = _NONE
        if pos == 0:
            left = _START
            block, at = self._blocks[0], 0
            right, skipped = self._right_origin(block, at, left)
        else:
            block, index, offset = self._find(pos - 1)
            span = block.spans[index]
            left = span.id + offset
            at = index + 1
            if offset + 1 < span.n:
                self._split(span, offset + 1)
                right, skipped = block.spans[at].id, False
            else:
                right, skipped = self._right_origin(block, at, left)
        if skipped:
            block, at = self._integrate(block, at, lv, left, right)
        shown = self._shown_before(block, at)
        new = Span(lv, n, left, right)
        new.segment = segment
        segment.inserted.append(new)
        block.spans.insert(at, new)
        new.block = block
        if segment.void:
            new.dead = True
            self._count(block, n, 0)
            self._typed = None
        else:
            patches.append(Patch(shown, 0, lv, n))
            self._count(block, n, n)
            self._typed = new
            self._typed_pos, self._typed_shown = pos + n, shown + n
        if len(block.spans) > BLOCK_SPANS_MAX:
            self._halve(block)

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
        for number in range(block.index + 1, len(self._blocks)):
            yield from self._blocks[number].spans

    def _integrate(
        self, block: Block, at: int, lv: int, left: int, right: int
    ) -> tuple[Block, int]:
        """Return the place among concurrent insertions, by Fugue's order."""
        skipped: list[Span] = []
        for span in self._from(block, at):
            if span.state:
                break
            skipped.append(span)
        where = {span.id: index for index, span in enumerate(skipped)}
        before: list[int] = []  # ids of those looked at, ascending
        place: Span | None = None  # go right after this one
        scanning = False
        for index, other in enumerate(skipped):
            if other.left == left:
                if other.right == right:
                    if self._stands_before(lv, other.id):
                        break
                    scanning = False
                else:
                    scanning = other.right != _NONE and (
                        right == _NONE or where.get(other.right, -1) >= index
                    )
            else:
                at_left = bisect_right(before, other.left) - 1
                if at_left < 0:
                    break
                holder = skipped[where[before[at_left]]]
                if other.left >= holder.id + holder.n:
                    break
            insort(before, other.id)
            if not scanning:
                place = other
        if place is None:
            return block, at
        return place.block, place.block.spans.index(place) + 1

    def _stands_before(self, a: int, b: int) -> bool:
        """Tell in which order two stand that were inserted at one place."""
        log = self._log
        ranks = log.rank(a), log.rank(b)
        if ranks[0] != ranks[1]:
            return ranks[0] < ranks[1]
        return log.actor_seq(a) < log.actor_seq(b)

    def _halve(self, block: Block) -> None:
        """Make two of a block that has grown too long to scan."""
        half = len(block.spans) // 2
        right = Block(block.spans[half:], block.index + 1)
        del block.spans[half:]
        block.present -= right.present
        block.shown -= right.shown
        self._blocks.insert(right.index, right)
        for index in range(right.index + 1, len(self._blocks)):
            self._blocks[index].index = index

    def _split(self, span: Span, offset: int) -> None:
        """Cut `span` at `offset`; its right half stands right after it."""
        right = Span(span.id + offset, span.n - offset, span.id + offset - 1, _NONE)
        right.state, right.dead, right.segment = span.state, span.dead, span.segment
        span.n = offset
        if right.segment is not None:
            right.segment.inserted.append(right)
        for segment, at, step in span.deleters:
            right.deleters.append((segment, at + step * offset, step))
            segment.deleted.append(right)
        spans = span.block.spans
        spans.insert(spans.index(span) + 1, right)
        right.block = span.block

    def _delete(
        self,
        lv: int,
        kind: int,
        pos: int,
        n: int,
        segment: Segment,
        patches: list[Patch],
    ) -> None:
        self._typed = None
        # Backspaces delete from the last to the first.
        event, step = (lv + n - 1, -1) if kind == BACK else (lv, 1)
        while n:
            block, index, offset = self._find(pos)
            if offset:
                self._split(block.spans[index], offset)
                index += 1
            shown = self._shown_before(block, index)
            # Neighbours in the block often go together: one search for all.
            while n and index < len(block.spans):
                span = block.spans[index]
                if span.state == 1:
                    if span.n > n:
                        self._split(span, n)
                    n -= span.n
                    span.state = 2
                    span.deleters.append((segment, event, step))
                    segment.deleted.append(span)
                    event += step * span.n
                    goes = not span.dead and not segment.void
                    if goes:
                        span.dead = True
                        if patches and patches[-1].pos == shown:
                            patches[-1] = Patch(
                                shown, patches[-1].deleted + span.n, 0, 0
                            )
                        else:
                            patches.append(Patch(shown, span.n, 0, 0))
                    self._count(block, -span.n, -span.n if goes else 0)
                if not span.dead:
                    shown += span.n
                index += 1
            if len(block.spans) > BLOCK_SPANS_MAX:
                self._halve(block)
