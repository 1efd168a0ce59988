"""Texts: characters that many can type at once, without interleaving runs."""

from collections.abc import Iterable, Mapping
from typing import Any

from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.sequence.buffer import TextBuffer
from syncengine.crdt.sequence.state import Cell, Sequence, Undo

CHUNK = b"c"


class TextState(Sequence):
    """A text; positions are Unicode code points."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = TextBuffer()

    @property
    def length(self) -> int:
        return self.buffer.length

    def __str__(self) -> str:
        return str(self.buffer)

    def _splice(
        self, pos: int, deleted: int, content: str | None
    ) -> tuple[int, int, str]:
        removed = self.buffer.delete(pos, deleted) if deleted else ""
        if content:
            self.buffer.insert(pos, content)
        if self._watching:
            self._edited(pos, deleted, content or "")
        return pos, len(content or ""), removed

    def _unsplice(self, taken: tuple[int, int, str]) -> None:
        pos, inserted, removed = taken
        if inserted:
            self.buffer.delete(pos, inserted)
        self.buffer.insert(pos, removed)

    def _set(self, pos: int, content: Any, undo: Undo) -> None:
        raise InvalidOperation("a text has no elements to set")

    def _shown_header(self) -> Any:
        return [self.buffer.next_name, self.buffer.names]

    def _shown_cells(self) -> Iterable[Cell]:
        for name in sorted(self.buffer.changed):
            chunk = self.buffer.chunk(name)
            state = None if chunk is None else chunk.encode()
            yield CHUNK + name.to_bytes(8, "big"), state
        self.buffer.changed.clear()

    def _load_shown(self, header: Any, cells: Mapping[bytes, bytes]) -> None:
        next_name, names = header
        chunks = [
            (name, cells[CHUNK + name.to_bytes(8, "big")].decode()) for name in names
        ]
        self.buffer = TextBuffer.of(chunks, next_name)
