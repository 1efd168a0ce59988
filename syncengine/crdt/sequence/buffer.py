"""The text that is shown: a list of strings with a hot chunk.

Edits come in runs at one place, so the chunk last used and the position where it
begins are remembered. A chunk has a number of its own; with each commit only the
chunks that changed are written.

*Anchors*, between which marks stand, are elements of a text without a character of
their own: the buffer has `ANCHOR` for each. A *position* counts them; an *index* counts
what a reader sees.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, repeat
from operator import sub

from syncengine.ids import OpId

# A chunk is split above this. Larger: fewer rows to read a long text (100 kB from the
# disk: 0.24 ms at 2,048, 0.15 at 4,096, 0.09 at 8,192); smaller: less to copy for each
# edit (of 7 us 0.1 more at 4,096, 0.3 at 8,192) and to write for each commit.
CHUNK_MAX = 6144

# The same for its anchors, whose names are copied with each one that is added.
ANCHORS_MAX = 256

ANCHOR = "\ud800"  # half a surrogate pair: no text that is let in holds one

Piece = tuple[str, OpId | None]
"""Characters, then the anchor behind them; None: there is none."""


class TextBuffer:
    """A mutable text. Positions are code points and anchors.

    Invariant: `anchors` has, for the name of each chunk that holds any, their names in
    order; `hidden` is how many there are.
    """

    __slots__ = (
        "_chunks",
        "_counts",
        "_ends",
        "_hot",
        "_hot_start",
        "anchors",
        "changed",
        "hidden",
        "length",
        "names",
        "next_name",
    )

    def __init__(self) -> None:
        self._chunks: list[str] = []
        self.names: list[int] = []  # of the chunks, in order
        self.next_name = 0
        self.changed: set[int] = set()  # names to write; a name not in `names`: delete
        self.length = 0
        self.anchors: dict[int, tuple[OpId, ...]] = {}
        self._counts: dict[int, int] = {}  # how many anchors a chunk has, if any
        self.hidden = 0
        self._hot = 0
        self._hot_start = 0
        # Where chunks end: (positions, indexes); None: to be counted.
        self._ends: tuple[list[int], list[int]] | None = None

    @classmethod
    def of(
        cls,
        chunks: list[tuple[int, str]],
        next_name: int,
        anchors: Mapping[int, tuple[OpId, ...]],
    ) -> "TextBuffer":
        """Return the buffer of stored chunks."""
        buffer = cls()
        buffer._chunks = [text for _, text in chunks]
        buffer.names = [name for name, _ in chunks]
        buffer.next_name = next_name
        buffer.length = sum(map(len, buffer._chunks))
        buffer.anchors = dict(anchors)
        buffer._counts = {name: len(held) for name, held in anchors.items()}
        buffer.hidden = sum(buffer._counts.values())
        return buffer

    def __str__(self) -> str:
        text = "".join(self._chunks)
        return text.replace(ANCHOR, "") if self.hidden else text

    def copy(self) -> "TextBuffer":
        """Return one that later edits do not change."""
        copied = TextBuffer()
        copied._chunks, copied.names = self._chunks.copy(), self.names.copy()
        copied.next_name, copied.changed = self.next_name, self.changed.copy()
        copied.length = self.length
        if self.hidden:
            copied.anchors, copied.hidden = dict(self.anchors), self.hidden
            copied._counts = dict(self._counts)
        return copied

    def chunks(self) -> list[tuple[str, tuple[OpId, ...]]]:
        """Return (characters and anchors, names of these) in pieces: a copy that later
        edits do not change."""
        if not self.hidden:
            return [(chunk, ()) for chunk in self._chunks]
        held = [self.anchors.get(name, ()) for name in self.names]
        return list(zip(self._chunks, held, strict=True))

    def sizes(self) -> list[tuple[int, int]]:
        """Return (name, length) of each chunk, in order."""
        return list(zip(self.names, map(len, self._chunks), strict=True))

    def chunk(self, name: int) -> str | None:
        """Return the chunk of that name, or None when it is gone."""
        try:
            return self._chunks[self.names.index(name)]
        except ValueError:
            return None

    def slice(self, start: int, stop: int) -> str:
        """Return the text between two positions within bounds."""
        if start >= stop:
            return ""
        index, offset = self._seek(start)
        found: list[str] = []
        left = stop - start
        while left:
            piece = self._chunks[index][offset : offset + left]
            found.append(piece)
            left -= len(piece)
            index, offset = index + 1, 0
        return "".join(found)

    # --- anchors ------------------------------------------------------------------

    def index(self, pos: int) -> int:
        """Return how many characters stand before a position."""
        if not self.hidden:
            return pos
        number, offset = self._seek(pos)
        before = self._chunks[number].count(ANCHOR, 0, offset) if self._chunks else 0
        return pos - before - sum(map(self._counts.get, self.names[:number], repeat(0)))

    def gap(self, index: int) -> tuple[int, list[OpId]]:
        """Return the position right behind `index` characters, and the anchors between
        it and the next character."""
        if not self.hidden:
            return index, []
        if self._ends is None:
            hidden = list(map(self._counts.get, self.names, repeat(0)))
            sizes = list(map(len, self._chunks))
            self._ends = (
                list(accumulate(sizes)),
                list(accumulate(map(sub, sizes, hidden))),
            )
        ends, shown = self._ends
        number = bisect_left(shown, index)
        chunk, held = self._chunks[number], self.anchors.get(self.names[number], ())
        offset = _behind(chunk, index - (shown[number - 1] if number else 0))
        pos = offset + (ends[number - 1] if number else 0)
        at = chunk.count(ANCHOR, 0, offset)
        found: list[OpId] = []
        while True:
            while offset < len(chunk) and chunk[offset] == ANCHOR:
                found.append(held[at])
                at, offset = at + 1, offset + 1
            number += 1
            if offset < len(chunk) or number == len(self._chunks):
                return pos, found
            chunk, held = self._chunks[number], self.anchors.get(self.names[number], ())
            at = offset = 0

    def anchors_in(self, pos: int, n: int) -> list[OpId]:
        """Return the anchors among `n` elements from a position on."""
        found: list[OpId] = []
        if not self.hidden or not n:
            return found
        index, offset = self._seek(pos)
        while n:
            chunk = self._chunks[index]
            stop = min(len(chunk), offset + n)
            held = self.anchors.get(self.names[index])
            if held:
                first = chunk.count(ANCHOR, 0, offset)
                found += held[first : first + chunk.count(ANCHOR, offset, stop)]
            n -= stop - offset
            index, offset = index + 1, 0
        return found

    def _hold(self, name: int, held: tuple[OpId, ...]) -> None:
        self.hidden += len(held) - self._counts.get(name, 0)
        if held:
            self.anchors[name] = held
            self._counts[name] = len(held)
        else:
            self.anchors.pop(name, None)
            self._counts.pop(name, None)

    # --- changing -----------------------------------------------------------------

    def between(self, start: int, stop: int) -> str:
        """Return the characters between two indexes within bounds."""
        if start >= stop or not self.hidden:
            return self.slice(start, stop)
        found = self.slice(self.gap(start)[0], self.gap(stop)[0])
        return found.replace(ANCHOR, "")

    def insert(self, pos: int, text: str, anchors: Iterable[OpId] = ()) -> None:
        """Insert `text` before position `pos`, which is within bounds; `anchors` are
        the names of those in it."""
        if not text:
            return
        self._ends = None
        self.length += len(text)
        if not self._chunks:
            self._add(0, "")
        index, offset = self._seek(pos)
        chunk = self._chunks[index]
        held: tuple[OpId, ...] = ()
        if anchors or self.hidden:
            name = self.names[index]
            before = self.anchors.get(name, ())
            at = chunk.count(ANCHOR, 0, offset)
            held = (*before[:at], *anchors, *before[at:])
            self._hold(name, held)
        chunk = chunk[:offset] + text + chunk[offset:]
        self._chunks[index] = chunk
        self.changed.add(self.names[index])
        if len(chunk) > CHUNK_MAX or len(held) > ANCHORS_MAX:
            self._split(index, held)

    def _split(self, index: int, held: tuple[OpId, ...]) -> None:
        """Make several chunks of one that has grown too long."""
        chunk = self._chunks[index]
        half = (len(chunk) + 1) // 2 if len(chunk) <= CHUNK_MAX else CHUNK_MAX // 2
        starts = range(0, len(chunk), half)
        self._hold(self.names[index], ())
        self._chunks[index] = chunk[:half]
        for number, start in enumerate(starts[1:], index + 1):
            self._add(number, chunk[start : start + half])
        at = 0
        for number in range(index, index + len(starts)):
            stop = at + self._chunks[number].count(ANCHOR) if held else at
            self._hold(self.names[number], held[at:stop])
            at = stop

    def delete(self, pos: int, n: int) -> None:
        """Delete `n` elements from `pos` on."""
        self._ends = None
        self.length -= n
        while n:
            index, offset = self._seek(pos)
            chunk = self._chunks[index]
            if offset == len(chunk):  # at a seam: what follows is in the next one
                index, offset = index + 1, 0
                self._hot_start += len(chunk)
                self._hot = index
                chunk = self._chunks[index]
            piece = chunk[offset : offset + n]
            n -= len(piece)
            rest = chunk[:offset] + chunk[offset + len(piece) :]
            name = self.names[index]
            self.changed.add(name)
            if self.hidden and (held := self.anchors.get(name)):
                first = chunk.count(ANCHOR, 0, offset)
                stop = first + piece.count(ANCHOR)
                self._hold(name, (*held[:first], *held[stop:]))
            if rest or len(self._chunks) == 1:
                self._chunks[index] = rest
            else:
                del self._chunks[index], self.names[index]
                self._hot = self._hot_start = 0

    def _add(self, index: int, text: str) -> None:
        self._chunks.insert(index, text)
        self.names.insert(index, self.next_name)
        self.changed.add(self.next_name)
        self.next_name += 1

    def _seek(self, pos: int) -> tuple[int, int]:
        """Return (chunk, offset) of `pos`; at a seam, the end of the left one."""
        index, start = self._hot, self._hot_start
        if pos < start and pos < start - pos:
            index = start = 0
        chunks = self._chunks
        while pos < start:
            index -= 1
            start -= len(chunks[index])
        last = len(chunks) - 1
        while index < last and pos > start + len(chunks[index]):
            start += len(chunks[index])
            index += 1
        self._hot, self._hot_start = index, start
        return index, pos - start


def _behind(chunk: str, index: int) -> int:
    """Return right behind how many elements of a chunk are `index` characters."""
    at = index
    while True:  # each anchor before moves it on by one
        further = index + chunk.count(ANCHOR, 0, at)
        if further == at:
            return at
        at = further


def pieces(chunks: Iterable[tuple[str, tuple[OpId, ...]]]) -> Iterator[Piece]:
    """Yield what `TextBuffer.chunks` tells in pieces that end at an anchor."""
    for chunk, held in chunks:
        if not held:
            yield chunk, None
            continue
        *parts, last = chunk.split(ANCHOR)
        yield from zip(parts, held, strict=True)
        if last:
            yield last, None
