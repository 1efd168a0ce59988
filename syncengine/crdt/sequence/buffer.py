"""The text that is shown: a list of strings with a hot chunk.

Edits come in runs at one place, so the chunk last used and the position where it
begins are remembered. A chunk has a number of its own; with each commit only the
chunks that changed are written.
"""

# A chunk is split above this. Larger: fewer rows for a long text; smaller: less to
# copy for each edit.
CHUNK_MAX = 2048


class TextBuffer:
    """A mutable text. Positions are code points."""

    __slots__ = (
        "_chunks",
        "_hot",
        "_hot_start",
        "changed",
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
        self._hot = 0
        self._hot_start = 0

    @classmethod
    def of(cls, chunks: list[tuple[int, str]], next_name: int) -> "TextBuffer":
        """Return the buffer of stored chunks."""
        buffer = cls()
        buffer._chunks = [text for _, text in chunks]
        buffer.names = [name for name, _ in chunks]
        buffer.next_name = next_name
        buffer.length = sum(map(len, buffer._chunks))
        return buffer

    def __str__(self) -> str:
        return "".join(self._chunks)

    def chunks(self) -> list[str]:
        """Return the text in pieces: a copy that later edits do not change."""
        return list(self._chunks)

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

    def insert(self, pos: int, text: str) -> None:
        """Insert `text` before position `pos`, which is within bounds."""
        if not text:
            return
        self.length += len(text)
        if not self._chunks:
            self._add(0, "")
        index, offset = self._seek(pos)
        chunk = self._chunks[index]
        chunk = chunk[:offset] + text + chunk[offset:]
        self._chunks[index] = chunk
        self.changed.add(self.names[index])
        if len(chunk) > CHUNK_MAX:
            self._chunks[index] = chunk[: CHUNK_MAX // 2]
            for number, at in enumerate(
                range(CHUNK_MAX // 2, len(chunk), CHUNK_MAX // 2), 1
            ):
                self._add(index + number, chunk[at : at + CHUNK_MAX // 2])

    def delete(self, pos: int, n: int) -> str:
        """Delete `n` code points from `pos` on and return them."""
        self.length -= n
        removed: list[str] = []
        while n:
            index, offset = self._seek(pos)
            chunk = self._chunks[index]
            if offset == len(chunk):  # at a seam: what follows is in the next one
                index, offset = index + 1, 0
                self._hot_start += len(chunk)
                self._hot = index
                chunk = self._chunks[index]
            piece = chunk[offset : offset + n]
            removed.append(piece)
            n -= len(piece)
            rest = chunk[:offset] + chunk[offset + len(piece) :]
            self.changed.add(self.names[index])
            if rest or len(self._chunks) == 1:
                self._chunks[index] = rest
            else:
                del self._chunks[index], self.names[index]
                self._hot = self._hot_start = 0
        return "".join(removed)

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
