"""Undo and redo: taking back what this device did, change by change.

Which changes were undone is in the log: an undo is a change like any other, that names
what it takes back. So the order of undoing survives a restart, and what others do
in between.

What an undo has to write is known from two replays: of the document without what was
undone before, and without this change, too. What is left out is void in the replay (its
positions count), as are the changes that undid: what differs between the two is done to
the document as it is.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syncengine.clock import ms_from_hlc
from syncengine.crdt.document import Document as State
from syncengine.documents.view import View
from syncengine.errors import Invalid
from syncengine.ids import ActorId, DocumentId, OpId, node_id, parse_node_id
from syncengine.log.batch import Batch, ChangeHead, split_payload
from syncengine.replication.pace import Pace
from syncengine.replication.past import heads_of, replay

if TYPE_CHECKING:
    from syncengine.replication.space import Space

_UNDO, _REDO = "undo", "redo"

# Changes without visible effect that one step may pass over: they are named in it.
GROUP_MAX = 64

Group = tuple[OpId, ...]
"""Changes that are undone as one, the latest first: the last is one that shows, those
before it wrote what was there already, or what others wrote over"""


@dataclass
class _Done:
    """What a device did."""

    undo: list[Group] = field(default_factory=list[Group])
    """What can be undone, the next one last"""
    redo: list[Group] = field(default_factory=list[Group])
    undone: set[OpId] = field(default_factory=set[OpId])
    """All that is undone now, what can be done again or not"""
    steps: set[OpId] = field(default_factory=set[OpId])
    """The changes that undid and redid"""


class Undoing:
    """What this device did, to be taken back and done again: see `Space.undoing`."""

    def __init__(self, space: "Space", document: DocumentId | None, since_ms: int):
        self._space = space
        self._document = document
        self._since_ms = since_ms

    async def undo(self) -> bool:
        """Take back the last change that was not taken back; tell whether there is
        one of which something is left.

        What others wrote over stays as they wrote it. It is a change of its own, on
        this disk when this returns. It reads the history of what the change touched.
        Safe to cancel: it happens or not, as a whole.
        """
        done = await self._done()
        return await self._take_back(done.undo, done, _UNDO)

    async def redo(self) -> bool:
        """Do again what was undone last, unless something else was done since."""
        done = await self._done()
        return await self._take_back(done.redo, done, _REDO)

    async def depth(self) -> tuple[int, int]:
        """Return how many changes can be undone, and redone."""
        done = await self._done()
        return len(done.undo), len(done.redo)

    async def _done(self) -> _Done:
        self._space.check_usable()
        await self._space.index.ready()
        done = _Done()
        own = sorted(self._own(), key=lambda one: (one[1].hlc, one[0]))
        for actor, head in own:
            name = (actor, head.seq)
            how, what = _said(head)
            if how is None:
                if ms_from_hlc(head.hlc) >= self._since_ms:
                    done.undo.append((name,))
                    done.redo.clear()
                continue
            done.steps.add(name)
            done.undone ^= set(what)
            taken, given = (
                (done.undo, done.redo) if how == _UNDO else (done.redo, done.undo)
            )
            group: list[OpId] = []
            while taken and set(taken[-1]) <= set(what):
                group += taken.pop()
            if group:
                given.append(tuple(group))
        return done

    def _own(self) -> list[tuple[ActorId, ChangeHead]]:
        """Return the changes of this device that are asked for, and not void."""
        engine, index = self._space.engine, self._space.index
        keeper = engine.keeper
        own = {a for a, d in keeper.membership.actors.items() if d == engine.key.public}
        voids = index.voids()
        if self._document is not None:
            rows = [index.row_at(at) for at in index.positions(self._document)]
        else:
            rows = [row for actor in sorted(own) for row in keeper.batches_of(actor, 1)]
        return [
            (row.header.actor, head)
            for row in rows
            if isinstance(row, Batch) and row.header.actor in own
            for head in heads_of(row)
            if (row.header.actor, head.seq, row.id) not in voids
            and (self._document is None or self._document in _documents(row, head))
        ]

    async def _take_back(self, groups: list[Group], done: _Done, how: str) -> bool:
        space = self._space
        names: list[OpId] = []
        for group in reversed(groups):
            names += group
            if len(names) > GROUP_MAX:
                return False
            without = done.undone | done.steps
            documents = dict.fromkeys(d for name in names for d in self._touched(name))
            views = [
                (
                    await self._replayed(document, without),
                    await self._replayed(document, without ^ set(names)),
                )
                for document in documents
            ]
            first = space.engine.next_seq
            said = "+".join(map(node_id, names))
            async with space.transaction(f"{how} {said} {first}") as tx:
                for before, after in views:
                    tx.merge(before, after)
            if space.engine.next_seq != first:
                return True
        return False

    def _touched(self, name: OpId) -> list[DocumentId]:
        return [
            document
            for batch in self._space.engine.keeper.batches_at(*name)
            for head in heads_of(batch)
            if head.seq == name[1]
            for document in _documents(batch, head)
        ]

    async def _replayed(self, name: DocumentId, without: set[OpId]) -> View:
        """Return a document as it would be without some changes."""
        steps = self._space.index.steps(name, lambda _, head: head.end)
        for step in steps:
            step.is_void |= (step.actor, step.head.seq) in without
        document = State(name)
        shown = self._space.engine.documents.find(name)
        if shown is not None:
            document.preferred = shown.shown_seeds()
        await replay(document, steps, Pace())
        return View(document, None)


def _said(head: ChangeHead) -> tuple[str | None, Group]:
    """Return what a change undid or redid; None where it did neither."""
    how, _, rest = (head.meta.operation_id or "").partition(" ")
    if how not in (_UNDO, _REDO):
        return None, ()
    try:
        return how, tuple(map(parse_node_id, rest.partition(" ")[0].split("+")))
    except Invalid:
        return None, ()  # an application's own name for it


def _documents(batch: Batch, head: ChangeHead) -> list[DocumentId]:
    parts = split_payload(batch.payload).parts
    names = [DocumentId(parts[part][0]) for part, _, _ in head.touches]
    return list(dict.fromkeys(names))
