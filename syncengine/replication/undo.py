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
from syncengine.documents.comparing import differences
from syncengine.documents.view import View
from syncengine.errors import Invalid
from syncengine.ids import ActorId, DocumentId, OpId, node_id, parse_node_id
from syncengine.log.batch import Batch, ChangeHead, split_payload
from syncengine.replication.pace import Pace
from syncengine.replication.past import UNDOS, Step, heads_of, is_undo, replay

if TYPE_CHECKING:
    from syncengine.replication.space import Space

_UNDO, _REDO = "undo", "redo"

# Changes without visible effect that one step may pass over: they are named in it.
GROUP_MAX = 10_000

Group = tuple[OpId, ...]
"""Changes that are undone as one, the latest first: the last is one that shows, those
before it wrote what was there already, or what others wrote over"""


_Views = list[tuple[View, View]]
"""(before, after) of each document"""


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
        return await self._step(_UNDO)

    async def redo(self) -> bool:
        """Do again what was undone last, unless something else was done since."""
        return await self._step(_REDO)

    async def depth(self) -> tuple[int, int]:
        """Return how many changes can be undone, and redone."""
        done = await self._done()
        return len(done.undo), len(done.redo)

    async def _step(self, how: str) -> bool:
        self._space.check_usable()
        self._space.check_outside()
        async with self._space.undo_turn:  # or two would take back the same
            done = await self._done()
            groups = done.undo if how == _UNDO else done.redo
            return await self._take_back(groups, done, how)

    async def _done(self) -> _Done:
        self._space.check_usable()
        self._space.check_outside()
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
            names = set(what)
            taken, given = done.undo, done.redo
            if how == _REDO:
                taken, given = given, taken
                done.undone -= names
            else:
                done.undone |= names
            # Wherever they stand: another scope may have another order.
            group = [name for one in taken[::-1] if set(one) <= names for name in one]
            taken[:] = [one for one in taken if not set(one) <= names]
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
            places = {*index.positions(self._document), *index.positions(UNDOS)}
            rows = [index.row_at(at) for at in sorted(places)]
        else:
            rows = [row for actor in sorted(own) for row in keeper.batches_of(actor, 1)]
        return [
            (row.header.actor, head)
            for row in rows
            if isinstance(row, Batch) and row.header.actor in own
            for head in heads_of(row)
            if (row.header.actor, head.seq, row.id) not in voids
            and (
                self._document is None
                or is_undo(head)
                or self._document in _documents(row, head)
            )
        ]

    async def _take_back(self, groups: list[Group], done: _Done, how: str) -> bool:
        space, passed = self._space, 0
        while True:
            found = await self._first_that_shows(groups, passed, done, how)
            if found is None:
                return False
            passed, names, views = found
            said = "+".join(map(node_id, names))
            operation = f"{how} {said} {space.engine.next_seq}"
            async with space.transaction(operation) as tx:
                for before, after in views:
                    tx.merge(before, after)
                wrote = tx.has_written
            if wrote:
                return True

    async def _first_that_shows(
        self, groups: list[Group], passed: int, done: _Done, how: str
    ) -> tuple[int, list[OpId], _Views] | None:
        """Return how many groups, more than `passed`, have to be taken together for
        something to be different, with their names and what differs; None: nothing is,
        with all of them."""
        best: tuple[int, list[OpId], _Views] | None = None
        known: dict[DocumentId, tuple[list[Step], View]] = {}

        async def shows(count: int) -> bool:
            nonlocal best
            names = [name for group in groups[::-1][:count] for name in group]
            if len(names) > GROUP_MAX:
                return False
            views = await self._views(names, done, how, known)
            differs = any(_differ(before, after) for before, after in views)
            if differs:
                best = (count, names, views)
            return differs

        low, high = passed, passed + 1
        while high <= len(groups) and not await shows(high):
            low, high = high, high + (high - passed)  # twice as many
        if best is None and low < len(groups) and not await shows(len(groups)):
            return None
        while best is not None and best[0] - low > 1:
            middle = (low + best[0]) // 2
            if not await shows(middle):
                low = middle
        return best

    async def _views(
        self,
        names: list[OpId],
        done: _Done,
        how: str,
        known: dict[DocumentId, tuple[list[Step], View]],
    ) -> _Views:
        """Return each document that changes touched, as it would be without what was
        undone, and then; `known` has the former from one call to the next."""
        without = done.undone | done.steps
        then = without | set(names) if how == _UNDO else without - set(names)
        found: _Views = []
        for document in dict.fromkeys(d for name in names for d in self._touched(name)):
            index = self._space.index
            if document not in known:
                steps = index.steps(document, lambda _, head: head.end)
                before = index.empty(document)
                await replay(before, steps, Pace(), without)
                known[document] = steps, View(before, None)
            steps, view = known[document]
            after = index.empty(document)
            await replay(after, steps, Pace(), then)
            found.append((view, View(after, None)))
        return found

    def _touched(self, name: OpId) -> list[DocumentId]:
        return [
            document
            for batch in self._space.engine.keeper.batches_at(*name)
            for head in heads_of(batch)
            if head.seq == name[1]
            for document in _documents(batch, head)
        ]


def _differ(before: View, after: View) -> bool:
    if before.exists != after.exists:
        return True
    return before.exists and bool(differences(before, after))


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
