"""A sequence as a state: what is shown, and the log it came from.

A sequence is edited at its newest version (the common case: a splice and one line in
the log) or at an older one (what came is merged by `walker`). Positions are code
points in texts, elements in lists, counted in the version that the author saw.

Once a void change has touched a sequence, positions count elements that are not
shown: from then on all goes through the walker.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.operation import InvalidOperation
from syncengine.crdt.register import Seen
from syncengine.crdt.sequence.oplog import INS, ROOT, SET, Heads, OpLog
from syncengine.crdt.sequence.walker import Walker, too_long
from syncengine.ids import ActorId, OpId, Stamp
from syncengine.limits import ELEMENTS_MAX

Content = Any
"""What an event carries: str in texts; in lists, entries, or (entry, seen) of a SET."""

Cell = tuple[bytes, bytes | None]
"""(key, state) to store; None: to delete."""

Read = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]
"""Returns (key, state) of the stored cells from one key up to another, in order."""

HEADER, LOG, LOG_END, VOID, LATER = b"h", b"l", b"m", b"v", b"z"

# Commits after which a walker that nobody asked for is let go: it holds some hundred
# bytes for each piece of what was concurrent.
UNUSED_COMMITS_MAX = 64


class Steps(list[Any]):
    """What takes steps back, the newest last."""

    def __init__(self) -> None:
        super().__init__()
        self.since = object()
        """Stands for the last place to which one may go back: what was remembered once
        since then need not be remembered again"""

    def place(self) -> int:
        """Return a place to which one may go back."""
        self.since = object()
        return len(self)

    def cut(self, place: int) -> list[Any]:
        """Return the steps behind a place, and leave those before it."""
        self.since = object()
        later = self[place:]
        del self[place:]
        return later


Undo = Steps | None
"""Where to leave what takes a step back; None: it will not be taken back."""


class Edit(NamedTuple):
    """A splice of what is shown: delete `deleted` at `pos`, then insert `inserted`."""

    pos: int
    deleted: int
    inserted: Any  # str in texts, list of values in lists


class Run(NamedTuple):
    """Elements inserted or deleted one after the other, as the log has them."""

    kind: int
    pos: int
    n: int
    content: Content


class Version(NamedTuple):
    """A sequence at one moment."""

    heads: Heads
    length: int


class Sequence(ABC):
    """What Text and List share; subclasses keep what is shown.

    Invariants: (1) what is shown is the effect of the log up to `log.heads`;
    (2) `_walker`, where there is one, holds a part of the log that ends at `fed`.
    """

    def __init__(self) -> None:
        self.log = OpLog()
        self.voids: list[tuple[int, int]] = []
        self._walker: Walker | None = None
        self._unused = 0  # commits since the walker was asked
        self._since: object = None  # from where on it is remembered how this was
        self._watching: list[list[Any]] = []

    @property
    @abstractmethod
    def length(self) -> int:
        """How many elements positions count: those that show, and in lists slots too
        in which nothing shows."""

    @abstractmethod
    def _splice(self, pos: int, deleted: int, content: Content, undo: Undo) -> None:
        """Change what is shown."""

    def _kept(self) -> Callable[[], None] | None:
        """Return what makes what is shown as it is now; None: `_splice` leaves what
        takes it back with each step."""
        return None

    @abstractmethod
    def _set(self, pos: int, content: Content, undo: Undo) -> None:
        """Write to the element at `pos`."""

    def _missed(self, content: Content) -> None:
        """Note a write to an element that another had deleted."""
        raise AssertionError("only elements of lists are written to")

    # --- editing ------------------------------------------------------------------

    def author_ranges(self, pos: int, n: int) -> list[tuple[int, int]]:
        """Return where an operation finds `n` elements that are shown from `pos` on:
        (position, how many), the last first. With n = 0: where an insertion goes.

        Raises `InvalidOperation` for what has no position of its own.
        """
        if not self.voids or pos == n == 0:
            return [(pos, n)]
        heads = self.log.heads
        return self._walker_for(heads).author_ranges(heads, pos, n)

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
        if not self.voids and log.seen_heads(seen):
            inserts = kind == INS or kind > SET
            reach = pos if inserts else pos + n
            if reach > self.length:
                raise InvalidOperation(
                    f"position {reach} is beyond the length {self.length}"
                )
            if inserts and self.length + n > ELEMENTS_MAX:
                raise too_long()
            if undo is not None:
                self._remember(undo)
            log.push(kind, pos, n, actor, seq, log.heads)
            if kind == SET:
                self._set(pos, content, undo)
            else:
                self._splice(pos, 0 if inserts else n, content, undo)
            return
        parents = log.parents_at(seen, actor)
        walker = self._checked(kind, pos, n, actor, parents)
        if undo is not None:
            self._remember(undo)
        lv = log.push(kind, pos, n, actor, seq, parents)
        patches = walker.take(lv, kind, pos, n, parents)
        if kind == SET and not patches:
            self._missed(content)
        for at, deleted, _, inserted in patches:
            if deleted or inserted:
                self._splice(at, deleted, content if inserted else None, undo)
            else:
                self._set(at, content, undo)

    def apply_runs(self, runs: list[Run], actor: ActorId, seq: int, undo: Undo) -> None:
        """Apply what an author did who had seen all there is, and that is known to
        stand within it; there is nothing void."""
        if undo is not None:
            self._remember(undo)
        log = self.log
        for kind, pos, n, content in runs:
            log.push(kind, pos, n, actor, seq, log.heads)
            self._splice(pos, 0 if kind == INS else n, content, undo)
            seq += n

    def apply_void(self, kind: int, pos: int, n: int, name: OpId, seen: Seen) -> None:
        """Let a void operation count for positions, and show nothing of it."""
        log = self.log
        parents = log.parents_at(seen, name[0])
        try:
            walker = self._checked(kind, pos, n, name[0], parents)
        except InvalidOperation:
            return  # no place even where its author stood: it takes part in nothing
        lv = log.push(kind, pos, n, *name, parents)
        walker.take(lv, kind, pos, n, parents, void=True)
        if self.voids and self.voids[-1][1] == lv:
            self.voids[-1] = (self.voids[-1][0], log.n)
        else:
            self.voids.append((lv, log.n))

    def _checked(
        self, kind: int, pos: int, n: int, author: ActorId, parents: Heads
    ) -> Walker:
        """Return what merges an operation; raises `InvalidOperation` where that has no
        place."""
        walker = self._walker_for(parents)
        try:
            walker.check(kind, pos, n, parents)
        except InvalidOperation:
            self.log.forget_seen(author)
            raise
        return walker

    def _walker_for(self, parents: Heads) -> Walker:
        """Return what merges an event of one who had seen `parents`."""
        walker = self._walker
        if walker is None or not walker.serves(parents):
            walker = Walker.at(self.log, parents, self.voids, self.length)
            self._walker = walker
        self._unused = 0
        walker.feed()
        return walker

    def writers(self) -> list[tuple[ActorId, int, int]]:
        """Return (actor, first seq, how many) of what is shown, in order: who inserted
        it. It reads the whole log of this sequence."""
        self.log.load()
        walker = Walker(self.log, ROOT, self.voids)
        walker.feed()
        return [
            run
            for lv, n in walker.shown_events()
            for piece in self.log.pieces(lv, lv + n)
            if piece.kind == INS
            for run in self.log.agents(piece.lv, piece.lv + piece.n)
        ]

    # --- places that are kept -----------------------------------------------------

    @property
    def version(self) -> Version:
        """Where one stands now who reads this."""
        return Version(self.log.heads, self.length)

    def ids(self, heads: Heads) -> list[OpId]:
        """Return a version's events as everybody knows them."""
        if heads == self.log.heads:
            return list(self.log.head_ids)
        self.log.load()
        return [self.log.actor_seq(head) for head in heads]

    def position_at(self, pos: int, version: Version) -> int:
        """Return how authors count the element that shows at `pos` of a version."""
        if not self.voids:
            return pos
        heads, length = version
        walker = Walker.at(self.log, heads, self.voids, length, heads)
        return walker.author_ranges(heads, pos, 1)[0][0]

    def follow(
        self, ids: list[OpId], pos: int, version: Version | None = None
    ) -> tuple[int, bool] | None:
        """Return where the element at `pos` of the version `ids` is in a later one
        (None: now), as `Walker.where` does; None when such a version is not here."""
        lvs = [self.log.lv_of(name) for name in ids]
        heads, length = version or self.version
        known = [lv for lv in lvs if lv is not None]
        if len(known) < len(lvs) or max(known, default=ROOT) > max(heads, default=ROOT):
            return None
        parents = self.log.dominators(known)
        walker = Walker.at(self.log, parents, self.voids, length, heads)
        try:
            walker.check(SET, pos, 1, parents)
        except InvalidOperation:
            return None  # it has no such element
        return walker.where(parents, pos)

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for each splice."""
        return bool(self._watching)

    def watch(self) -> list[Any]:
        """Return a list to which every splice is added from now on; in texts, what it
        did to marks behind it (`marks.MarkRange`).

        Whoever shows this empties it, and `unwatch`es it in the end.
        """
        edits: list[Any] = []
        self._since = None  # what was remembered knows nothing of this one
        self._watching.append(edits)
        return edits

    def unwatch(self, edits: list[Any]) -> None:
        self._watching = [other for other in self._watching if other is not edits]

    def _edited(self, pos: int, deleted: int, inserted: Any) -> None:
        for edits in self._watching:
            edits.append(Edit(pos, deleted, inserted))

    def _remember(self, undo: Steps) -> None:
        if undo.since is self._since:
            return
        self._since = undo.since
        mark, n, shown = self.log.mark(), self.log.n, self._kept()
        watching = [(edits, len(edits)) for edits in self._watching]

        def back() -> None:
            if self._walker is not None and self._walker.base < n:
                self._walker.rewind(n)
            else:
                self._walker = None
            self.log.rewind(mark)
            if shown is not None:
                shown()
            for edits, count in watching:
                del edits[count:]

        undo.append(back)

    # --- storing ------------------------------------------------------------------

    @abstractmethod
    def _shown_header(self) -> Any:
        """Return what the header keeps of what is shown."""

    @abstractmethod
    def _shown_cells(self) -> Iterable[Cell]:
        """Yield the changed pieces of what is shown."""

    @abstractmethod
    def _load_shown(
        self, header: Any, cells: Mapping[bytes, bytes], read: Read
    ) -> None:
        """Invert the two above."""

    def cells(self) -> Iterable[Cell]:
        """Yield what changed since the last call, as it is to be stored."""
        log = self.log
        header = [log.n, log.heads, log.head_ids, self._shown_header()]
        yield HEADER, values.encode(header)
        for lv, segment in log.unstored():
            yield LOG + lv.to_bytes(8, "big"), segment
        if self.voids:
            yield VOID, values.encode(self.voids)
        self._unused += 1
        if self._unused > UNUSED_COMMITS_MAX:
            self._walker = None  # nothing is concurrent any more
        yield from self._shown_cells()

    def load(self, cells: Mapping[bytes, bytes], read: Read) -> None:
        """Take over stored cells; `read` fetches those that are read when needed."""
        n, heads, ids, shown = values.decode(cells[HEADER])
        self.log.unload(
            n,
            tuple(heads),
            [(ActorId(actor), seq) for actor, seq in ids],
            lambda: [log for key, log in read(LOG, LOG_END) if _first_lv(key) < n],
        )
        self._load_shown(shown, cells, read)
        if VOID in cells:
            self.voids = [(start, end) for start, end in values.decode(cells[VOID])]


def _first_lv(key: bytes) -> int:
    """Return where a stored segment begins: those from `n` on are in memory too."""
    return int.from_bytes(key[len(LOG) :], "big")
