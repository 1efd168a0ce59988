"""Changes that were written again: of those that say the same, one counts.

After a restore or a copy a replica writes what it had not sealed again, under a new
actor. Somebody else may hold the first writing, sealed after all, or a copy may write
the same again. Each new writing names its origin (actor and seq); whether two writings
are the same is decided by what they do, never by a stamp: a restored replica gives the
same seqs, and with a stopped clock the same stamps, to other changes.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from syncengine import limits, values
from syncengine.crdt.operation import Action, Operation, length, renamed
from syncengine.ids import ActorId
from syncengine.log.batch import (
    Parts,
    UndecodableBatch,
    decode_spine,
    split_payload,
)
from syncengine.log.change import Origin, Touch
from syncengine.replication.keeper import Keeper
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes

Writer = tuple[ActorId, int]
"""(actor, seq) of a change that repeats another."""


class Key(NamedTuple):
    """What was written first: where, and what it did."""

    actor: ActorId
    seq: int
    n: int
    digest: bytes


class Origins:
    """The repeated changes of one namespace."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper
        self._writers: dict[Key, set[Writer]] = {}
        self._actors: set[ActorId] = set()
        self._unwritten: list[tuple[Key, Writer]] = []
        self.changes = 0
        """how often a verdict that was given has changed"""

    def load(self) -> None:
        """Read what the file knows; forget the rest."""
        self._writers, self._actors, self._unwritten = {}, set(), []
        for raw, actor, seq in self._keeper.store.read(
            "SELECT origin, actor, seq FROM _sync_origin WHERE ns = ?", self._keeper.ns
        ):
            self._note(Key(*values.decode(raw)), (ActorId(actor), seq))

    def write_all(self) -> None:
        """Write everything with the next commit: the table was cleared."""
        self._unwritten = [
            (key, writer)
            for key, writers in self._writers.items()
            for writer in sorted(writers)
        ]

    def collect(self, writes: Writes) -> None:
        for key, writer in self._unwritten:
            row = values.encode(key)
            writes.add(sql.PUT_ORIGIN, self._keeper.ns, row, *writer)
        self._unwritten.clear()

    def _note(self, key: Key, writer: Writer) -> None:
        self._writers.setdefault(key, set()).add(writer)
        self._actors.add(key.actor)

    def note(self, key: Key, writer: Writer) -> bool:
        """Remember a repeated change; tell whether it takes another's place."""
        writers = self._writers.get(key, set())
        if writer in writers:
            return False
        first = bool(writers) and writer < min(writers)
        self.changes += first
        self._note(key, writer)
        self._unwritten.append((key, writer))
        return first

    def repeats(self, key: Key, writer: Writer) -> bool:
        """Tell whether a repeated change is here already, so that this one is void."""
        forks = self._keeper.forks
        good = [
            (actor, seq)
            for actor, seq in self._writers[key]
            if actor not in forks or seq < forks[actor]
        ]
        return writer != min(good, default=writer) or self._has_original(key)

    def was_repeated(self, actor: ActorId, seq: int) -> bool:
        """Tell whether a first writing was written again."""
        return any(key.actor == actor and key.seq == seq for key in self._writers)

    def may_be_repeated(self, actor: ActorId, first: int, last: int) -> bool:
        """Tell whether one of these first writings was written again."""
        return actor in self._actors and any(
            key.actor == actor and first <= key.seq <= last for key in self._writers
        )

    def _has_original(self, key: Key) -> bool:
        """Tell whether the first writing is stored, and no fork has made it void.

        Sealing may have joined it with what was typed right after it.
        """
        fork = self._keeper.forks.get(key.actor)
        if fork is not None and key.seq >= fork:
            return False
        for batch in self._keeper.batches_at(key.actor, key.seq):
            if self._keeper.terms.void_reason(batch.header) is not None:
                continue  # it was written beside a leader, or he was deposed
            try:
                payload = split_payload(batch.payload)
                parts = Parts(payload)
                for head in decode_spine(batch.header, payload):
                    if head.n > limits.REPEATED_OPS_MAX:
                        continue
                    if head.seq <= key.seq and key.seq + key.n - 1 <= head.end:
                        touches = parts.touches(head)
                        if sum(sum(map(length, t.ops)) for t in touches) != head.n:
                            continue
                        done = events(touches, key.actor, key.actor, 0)
                        start = key.seq - head.seq
                        if _digest(done[start : start + key.n]) == key.digest:
                            return True
            except (
                *(UndecodableBatch, ValueError, TypeError, IndexError),
                OverflowError,
            ):
                continue  # it is void, and so is not here
        return False


def key_of(
    origin: Origin, author: ActorId, seq: int, touches: list[Touch]
) -> Key | None:
    """Return what the change of `author` at `seq` repeats; raises `ValueError`.

    None for a change too long to be compared: it counts, whatever else is there.
    """
    try:
        for touch in touches:
            if sum(map(length, touch.ops)) != touch.n:
                raise ValueError("a change counts its operations wrongly")
        if sum(touch.n for touch in touches) > limits.REPEATED_OPS_MAX:
            return None
        done = events(touches, author, origin.actor, seq - origin.seq)
        return Key(origin.actor, origin.seq, len(done), _digest(done))
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError("an operation is [action, ...]") from error


def events(
    touches: Iterable[Touch], author: ActorId, first: ActorId, shift: int
) -> list[Any]:
    """Return what a change does at each of its seqs, as its first author meant it.

    `shift`: by how much the seqs of `author` are ahead of those of `first`.
    """
    return [
        [touch.document, *event]
        for touch in touches
        for op in touch.ops
        for event in _events(op, author, first, shift)
    ]


def _events(
    op: Operation, author: ActorId, first: ActorId, shift: int
) -> Iterable[list[Any]]:
    op = renamed(op, lambda seq: [first, seq - shift])
    action, rest = op[0], op[2:]
    container: Any = op[1] if len(op) > 1 else None
    match action:
        case Action.TEXT_INSERT | Action.LIST_INSERT:
            pos, content = rest[0], rest[1]
            for index, what in enumerate(content):
                yield [action, container, pos + index, what]
        case Action.TEXT_DELETE | Action.LIST_DELETE:
            for _ in range(rest[1]):
                yield [action, container, rest[0]]
        case Action.TEXT_BACKSPACE:
            for index in reversed(range(rest[1])):
                yield [Action.TEXT_DELETE, container, rest[0] + index]
        case _:
            yield [action, container, *rest]


def _digest(done: list[Any]) -> bytes:
    return hashlib.sha256(values.encode(done)).digest()
