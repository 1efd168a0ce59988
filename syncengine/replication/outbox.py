"""Own changes that no batch holds yet: those on disk, and those made since."""

from collections.abc import Iterable

from syncengine.ids import ActorId
from syncengine.log.change import Change, decode_change, encode_change
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Store, Writes

# Changes read at once to be sealed: with small ones about a batch's worth.
READ_ROWS = 4_000


class Outbox:
    """The outbox of one namespace.

    Invariant: in the author's order, what is on disk comes before `new`.
    """

    def __init__(self, store: Store, ns: int):
        self._store = store
        self._ns = ns
        self.new: list[tuple[Change, bytes]] = []
        self.stored_count = 0
        self._clear = False

    def load(self) -> None:
        """Forget what is not on disk."""
        self.new, self._clear = [], False
        ((self.stored_count,),) = self._store.read(
            "SELECT count(*) FROM _sync_outbox WHERE ns = ?", self._ns
        )

    def __len__(self) -> int:
        return self.stored_count + len(self.new)

    def stored(self, actor: ActorId | None, most: int = -1) -> list[Change]:
        """Return what is on disk of `actor`, oldest first."""
        if actor is None or self._clear:  # what is there is a former actor's
            return []
        rows = self._store.read(
            "SELECT change FROM _sync_outbox WHERE ns = ? ORDER BY seq LIMIT ?",
            self._ns,
            most,
        )
        return [decode_change(actor, change) for (change,) in rows]

    def add(self, change: Change, encoded: bytes) -> None:
        self.new.append((change, encoded))

    def take(self, actor: ActorId | None) -> list[Change]:
        """Return all and hold nothing: it goes on under another actor."""
        changes = self.stored(actor) + [change for change, _ in self.new]
        self.new, self.stored_count, self._clear = [], 0, True
        return changes

    def fill(self, changes: Iterable[Change]) -> None:
        self.new = [(change, encode_change(change)) for change in changes]

    def unsealed(self, actor: ActorId) -> list[Change]:
        """Return what to seal next, oldest first."""
        changes = self.stored(actor, READ_ROWS) if self.stored_count else []
        if len(changes) == self.stored_count:
            changes += [change for change, _ in self.new]
        return changes

    def sealed(self, changes: list[Change], writes: Writes) -> None:
        """Batches hold `changes` now, the first of what `unsealed` returned."""
        on_disk = min(len(changes), self.stored_count)
        if on_disk:
            first, last = changes[0].seq, changes[on_disk - 1].end
            writes.add(sql.DROP_OUTBOX, self._ns, first, last)
            self.stored_count -= on_disk
        del self.new[: len(changes) - on_disk]

    def collect(self, writes: Writes) -> None:
        """Write what is new."""
        if self._clear:
            writes.clear(sql.CLEAR_OUTBOX, self._ns)
            self._clear = False
        for change, encoded in self.new:
            writes.add(sql.PUT_OUTBOX, self._ns, change.seq, encoded)
        self.stored_count += len(self.new)
        self.new.clear()
