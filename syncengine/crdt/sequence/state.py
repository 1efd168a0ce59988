"""A sequence as a state: what is shown, and the log it came from.

A sequence is edited at its newest version (the common case: a splice and one line in
the log) or at an older one (what came is merged by `walker`). Positions are code
points in texts, elements in lists, counted in the version that the author saw.

Once a void change has touched a sequence, positions count elements that are not
shown. Such a sequence keeps all its content and is replayed as a whole with each
change. It is rare, and slow on purpose: it is simple.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.register import Seen
from syncengine.crdt.sequence.oplog import INS, SET, OpLog
from syncengine.crdt.sequence.walker import PRESENT, SHOWN, Patch, Run, merge, replay
from syncengine.ids import ActorId, OpId, Stamp

Content = Any
"""What an event carries: str in texts; in lists, entries, or (entry, seen) of a SET."""

Undo = list[Callable[[], None]] | None
"""Where to leave what takes a step back; None: it will not be taken back."""

Cell = tuple[bytes, bytes | None]
"""(key, state) to store; None: to delete."""

HEADER, LOG, VOID = b"h", b"l", b"v"


class Edit(NamedTuple):
    """A splice of what is shown: delete `deleted` at `pos`, then insert `inserted`."""

    pos: int
    deleted: int
    inserted: Any  # str in texts, list of values in lists


class NeedsReplay(Exception):
    """A void change touched this sequence: its document must be made anew."""


class Sequence(ABC):
    """What Text and List share; subclasses keep what is shown.

    Invariants: (1) what is shown is the effect of the log up to `log.heads`;
    (2) in a sequence with voids, `_runs` is the whole of it, in order.
    """

    def __init__(self) -> None:
        self.log = OpLog()
        self.voids: list[tuple[int, int]] | None = None  # set: replayed as a whole
        self._contents: list[tuple[int, Content]] = []  # of what is merged, or of all
        self._runs: list[Run] = []
        self._sets: list[tuple[int, int]] = []
        self._watching: list[list[Edit]] = []

    @property
    @abstractmethod
    def length(self) -> int:
        """How many elements are shown."""

    @abstractmethod
    def _splice(self, pos: int, deleted: int, content: Content) -> Any:
        """Change what is shown; return what `_unsplice` takes back."""

    @abstractmethod
    def _unsplice(self, taken: Any) -> None: ...

    @abstractmethod
    def _set(self, pos: int, content: Content, undo: Undo) -> None:
        """Write to the element at `pos`."""

    @abstractmethod
    def _show(self) -> None:
        """Make what is shown anew from `_runs` and `_sets`."""

    # --- editing ------------------------------------------------------------------

    def author_position(self, pos: int) -> int:
        """Return `pos`, as shown, in the coordinates of an operation."""
        if self.voids is None or pos == 0:
            return pos
        present = shown = 0
        for _, n, flags in self._runs:
            if flags & SHOWN and shown + n >= pos:
                if not flags & PRESENT:
                    break
                return present + pos - shown
            shown += n if flags & SHOWN else 0
            present += n if flags & PRESENT else 0
        raise InvalidOperation(
            "what stands here came back when its deletion was refused, and has no "
            "position of its own; edit beside it"
        )

    def apply(
        self,
        kind: int,
        pos: int,
        n: int,
        content: Content,
        stamp: Stamp,
        seen: Seen,
        undo: Undo,
    ) -> None:
        """Apply one operation of an author who had seen `seen`.

        Raises `InvalidOperation`; `undo` then takes back what was done so far.
        """
        log = self.log
        _, actor, seq = stamp
        newest = log.seen_heads(seen)
        if newest and self.voids is None:
            reach = pos if kind == INS else pos + n
            if reach > self.length:
                raise InvalidOperation(
                    f"position {reach} is beyond the length {self.length}"
                )
            if undo is not None:
                self._remember(undo)
            log.push(kind, pos, n, actor, seq, log.heads)
            if kind == SET:
                self._set(pos, content, undo)
            else:
                self._do(pos, 0 if kind == INS else n, content, undo)
            return
        shown = log.heads
        parents = log.heads if newest else log.parents_at(seen)
        if undo is not None:
            self._remember(undo)
        lv = log.push(kind, pos, n, actor, seq, parents)
        if content is not None:
            self._contents.append(
                (lv, content if self.voids is None else self._kept(content))
            )
        if self.voids is not None:
            self._replay()
            return
        for patch in merge(log, shown, self.length):
            self._patch(patch, undo)
        self._contents.clear()

    def apply_void(
        self, kind: int, pos: int, n: int, content: Content, name: OpId, seen: Seen
    ) -> None:
        """Let a void operation count for positions, and show nothing of it.

        Raises `NeedsReplay` when the content of what came before is not at hand.
        """
        if self.voids is None:
            raise NeedsReplay
        mark = self.log.mark()
        lv = self.log.push(kind, pos, n, *name, self.log.parents_at(seen))
        if content is not None:
            self._contents.append((lv, self._kept(content)))
        self.voids.append((lv, lv + n))
        try:
            self._replay()
        except InvalidOperation:
            # It has no place even where its author stood: it takes part in nothing.
            self.log.rewind(mark)
            self.voids.pop()
            if content is not None:
                self._contents.pop()

    def keep_everything(self) -> None:
        """Be ready, from the beginning, for void changes to come."""
        assert not self.log.n, "only a new sequence can keep everything"
        self.voids = []

    def watch(self) -> list[Edit]:
        """Return a list to which every splice is added from now on.

        Whoever shows this empties it, and `unwatch`es it in the end.
        """
        edits: list[Edit] = []
        self._watching.append(edits)
        return edits

    def unwatch(self, edits: list[Edit]) -> None:
        self._watching = [other for other in self._watching if other is not edits]

    def _edited(self, pos: int, deleted: int, inserted: Any) -> None:
        for edits in self._watching:
            edits.append(Edit(pos, deleted, inserted))

    def _patch(self, patch: Patch, undo: Undo) -> None:
        if patch.inserted:
            self._do(patch.pos, 0, self._content(patch.lv, patch.inserted), undo)
        elif patch.deleted:
            self._do(patch.pos, patch.deleted, None, undo)
        else:
            self._set(patch.pos, self._content(patch.lv, 1), undo)

    def _do(self, pos: int, deleted: int, content: Content, undo: Undo) -> None:
        taken = self._splice(pos, deleted, content)
        if undo is not None:
            undo.append(lambda: self._unsplice(taken))

    def _remember(self, undo: list[Callable[[], None]]) -> None:
        mark, contents = self.log.mark(), len(self._contents)
        watching = [(edits, len(edits)) for edits in self._watching]
        runs, sets = self._runs, self._sets

        def back() -> None:
            self.log.rewind(mark)
            del self._contents[contents:]
            for edits, count in watching:
                del edits[count:]
            if self.voids is not None:
                self._runs, self._sets = runs, sets
                self._show()

        undo.append(back)

    def _content(self, lv: int, n: int) -> Content:
        """Return the content of `n` events from `lv` on."""
        for start, content in reversed(self._contents):
            if start <= lv < start + len(content):
                piece = content[lv - start : lv - start + n]
                if len(piece) < n:
                    return piece + self._content(lv + len(piece), n - len(piece))
                return piece
        raise AssertionError("the content of what is inserted is at hand")

    def _replay(self) -> None:
        assert self.voids is not None
        self._runs, self._sets = replay(self.log, self.voids)
        self._show()

    # --- storing ------------------------------------------------------------------

    @abstractmethod
    def _shown_header(self) -> Any:
        """Return what the header keeps of what is shown."""

    @abstractmethod
    def _shown_cells(self) -> Iterable[Cell]:
        """Yield the changed pieces of what is shown."""

    @abstractmethod
    def _load_shown(self, header: Any, cells: Mapping[bytes, bytes]) -> None:
        """Invert the two above."""

    def _kept(self, content: Content) -> Content:
        """Return `content` in a form that nobody changes later."""
        return content

    @abstractmethod
    def _encode_content(self, content: Content) -> Any: ...

    @abstractmethod
    def _decode_content(self, raw: Any) -> Content: ...

    def cells(self) -> Iterable[Cell]:
        """Yield what changed since the last call, as it is to be stored."""
        log = self.log
        header = [log.n, log.heads, log.head_ids, self._shown_header()]
        yield HEADER, values.encode(header)
        for lv, segment in log.unstored():
            yield LOG + lv.to_bytes(8, "big"), segment
        if self.voids is not None:
            contents = [
                (lv, self._encode_content(content)) for lv, content in self._contents
            ]
            yield VOID, values.encode([self.voids, contents])
        yield from self._shown_cells()

    def load(
        self,
        cells: Mapping[bytes, bytes],
        load_log: Callable[[], Iterable[tuple[bytes, bytes]]],
    ) -> None:
        """Take over stored cells; `load_log` fetches those of the log, in order."""
        n, heads, ids, shown = values.decode(cells[HEADER])
        self.log.unload(
            n,
            tuple(heads),
            [(ActorId(actor), seq) for actor, seq in ids],
            lambda: [log for key, log in load_log() if _first_lv(key) < n],
        )
        self._load_shown(shown, cells)
        if VOID in cells:
            voids, contents = values.decode(cells[VOID])
            self.voids = [(start, end) for start, end in voids]
            self._contents = [(lv, self._decode_content(raw)) for lv, raw in contents]
            self.log.load()
            self._runs, self._sets = replay(self.log, self.voids)


def _first_lv(key: bytes) -> int:
    """Return where a stored segment begins: those from `n` on are in memory too."""
    return int.from_bytes(key[len(LOG) :], "big")
