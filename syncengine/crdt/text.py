"""Texts: characters that many can type at once, without interleaving runs, and marks
over them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from syncengine import values
from syncengine.crdt import marks
from syncengine.crdt.marks import Mark, MarkRange, Span
from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence.buffer import ANCHOR, TextBuffer, pieces
from syncengine.crdt.sequence.state import Cell, Read, Sequence, Undo
from syncengine.ids import ActorId, OpId

ANCHORS, CHUNK, MARK = b"a", b"c", b"s"


class TextState(Sequence):
    """A text; its indexes are Unicode code points, its positions count anchors too."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = TextBuffer()
        self.marks: dict[OpId, Mark] = {}
        self.changed_marks: set[OpId] = set()
        self._anchored: set[int] = set()  # chunks whose anchors are stored

    @property
    def length(self) -> int:
        return self.buffer.length

    @property
    def shown_length(self) -> int:
        """How many characters a reader sees."""
        return self.buffer.length - self.buffer.hidden

    def __str__(self) -> str:
        return str(self.buffer)

    def spans(self) -> list[Span]:
        """Return the text with its marks."""
        return marks.spans(pieces(self.buffer.chunks()), self.marks)

    def author_ranges(self, pos: int, n: int) -> list[tuple[int, int]]:
        buffer = self.buffer
        if not buffer.hidden:
            return super().author_ranges(pos, n)
        if not n:
            start, anchors = buffer.gap(pos)
            return super().author_ranges(start + marks.place(self.marks, anchors), 0)
        start, anchors = buffer.gap(pos)
        start += len(anchors)
        runs: list[tuple[int, int]] = []
        for run in buffer.slice(start, buffer.gap(pos + n)[0]).split(ANCHOR):
            if run:
                runs.append((start, len(run)))
            start += len(run) + 1
        found: list[tuple[int, int]] = []
        for at, count in reversed(runs):
            found += super().author_ranges(at, count)
        return found

    def all_ranges(self) -> list[tuple[int, int]]:
        """Return where an operation finds all there is, the last first."""
        return super().author_ranges(0, self.length) if self.length else []

    def _splice(
        self, pos: int, deleted: int, content: str | OpId | None, undo: Undo
    ) -> None:
        buffer = self.buffer
        if buffer.hidden or type(content) is tuple:
            self._splice_marked(pos, deleted, content)
            return
        if deleted:
            buffer.delete(pos, deleted)
        text: Any = content or ""
        if text:
            buffer.insert(pos, text)
        if self._watching:
            self._edited(pos, deleted, text)

    def _kept(self) -> Callable[[], None]:
        kept = self.buffer.copy()

        def back() -> None:
            self.buffer = kept

        return back

    def _splice_marked(
        self, pos: int, deleted: int, content: str | OpId | None
    ) -> None:
        buffer = self.buffer
        index = buffer.index(pos) if self._watching else 0
        gone = buffer.anchors_in(pos, deleted)
        anchor = content if type(content) is tuple else None
        text = content if type(content) is str else ""
        restyles = bool(self._watching) and (anchor is not None or bool(gone))
        before = self.spans() if restyles else []
        if deleted > len(gone):
            before = marks.spliced(before, index, deleted - len(gone))
        if deleted:
            buffer.delete(pos, deleted)
        if anchor is not None:
            buffer.insert(pos, ANCHOR, [anchor])
        else:
            buffer.insert(pos, text)
        if self._watching:
            if deleted > len(gone) or text:
                self._edited(index, deleted - len(gone), text)
            restyled: list[MarkRange] = []
            if restyles:
                restyled = marks.changes(before, self.spans())
            elif text:
                restyled = self._marks_of(index, index + len(text))
            for edits in self._watching:
                edits += restyled

    def _marks_of(self, start: int, stop: int) -> list[MarkRange]:
        """Return what marks characters bear that were inserted just now."""
        found = marks.ranges(self.spans())
        return [
            r._replace(start=start, stop=stop)
            for r in found
            if r.start <= start and stop <= r.stop
        ]

    def _set(self, pos: int, content: Any, undo: Undo) -> None:
        raise InvalidOperation("a text has no elements to set")

    def _shown_header(self) -> Any:
        return [self.buffer.next_name, self.buffer.names]

    def _shown_cells(self) -> Iterable[Cell]:
        buffer = self.buffer
        for name in sorted(buffer.changed):
            chunk = buffer.chunk(name)
            key = name.to_bytes(8, "big")
            held = buffer.anchors.get(name)
            if held is None:
                yield CHUNK + key, None if chunk is None else chunk.encode()
                if name in self._anchored:
                    self._anchored.discard(name)
                    yield ANCHORS + key, None
            else:
                assert chunk is not None
                yield CHUNK + key, chunk.encode(errors="surrogatepass")
                yield ANCHORS + key, values.encode(held)
                self._anchored.add(name)
        buffer.changed.clear()
        for actor, seq in sorted(self.changed_marks):
            mark = self.marks.get((actor, seq))
            row = None if mark is None else values.encode(mark)
            yield MARK + actor + seq.to_bytes(8, "big"), row
        self.changed_marks.clear()

    def _load_shown(
        self, header: Any, cells: Mapping[bytes, bytes], read: Read
    ) -> None:
        next_name, names = header
        keys = [(name, name.to_bytes(8, "big")) for name in names]
        chunks = [
            (name, cells[CHUNK + key].decode(errors="surrogatepass"))
            for name, key in keys
        ]
        anchors: dict[int, tuple[OpId, ...]] = {
            name: tuple((ActorId(a), s) for a, s in values.decode(cells[ANCHORS + key]))
            for name, key in keys
            if ANCHORS + key in cells
        }
        self.buffer = TextBuffer.of(chunks, next_name, anchors)
        self._anchored = set(anchors)
        for key, raw in cells.items():
            if key[:1] == MARK:
                hlc, actor, *rest = values.decode(raw)
                mark = Mark(hlc, ActorId(actor), *rest)
                self.marks[mark.anchors[0]] = mark
