"""Watching documents: what they show now, then the latest, as often as one looks.

A watcher holds no queue: whoever is slow skips what was in between, and its memory is
the names of what changed.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from syncengine.crdt.document import Document as State
from syncengine.errors import Closed
from syncengine.ids import DocumentId
from syncengine.replication.host import Bell

if TYPE_CHECKING:
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

Shown = Callable[[DocumentId], Any]
"""Returns a snapshot of a document, or None."""


class _Watcher:
    """Notes which documents changed since somebody looked."""

    def __init__(self, space: "Space", wanted: Callable[[DocumentId], bool]):
        self._engine = space.engine
        self._check_usable = space.check_usable
        self._wanted = wanted
        self._bell = Bell()
        self.changed: dict[DocumentId, None] = {}
        self.reloaded = False
        """Whether what was shown may be gone: look at everything again."""

    def __enter__(self) -> "_Watcher":
        engine = self._engine
        engine.on_changed.append(self._note)
        engine.on_reloaded.append(self._reload)
        engine.on_stopped.append(self._bell.set)
        return self

    def __exit__(self, *_: object) -> None:
        engine = self._engine
        engine.on_changed.remove(self._note)
        engine.on_reloaded.remove(self._reload)
        engine.on_stopped.remove(self._bell.set)

    def _note(self, document: State) -> None:
        if self._wanted(document.name):
            self.changed[document.name] = None
            self._bell.set()

    def _reload(self) -> None:
        self.reloaded = True
        self._bell.set()

    async def more(self) -> bool:
        """Wait until something changed; False when the replica was closed."""
        await self._bell.heard()
        await self._engine.whole()
        try:
            self._check_usable()
        except Closed:
            return False
        return True


async def document(
    space: "Space", name: DocumentId, shown: Shown
) -> AsyncGenerator[Any, None]:
    """Yield one document as it is, then after changes; None: it is not there."""
    with _Watcher(space, name.__eq__) as watcher:
        await space.engine.whole()
        while True:
            yield shown(name)
            if not await watcher.more():
                return


async def collection(
    space: "Space", collection: str, prefix: str, shown: Shown
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield {id: snapshot} of all, then of what changed; None: it is gone."""
    start = f"{collection}/{prefix}"
    with _Watcher(space, lambda name: name.startswith(start)) as watcher:
        there: set[DocumentId] = set()
        watcher.reloaded = True
        await space.engine.whole()
        while True:
            names = dict.fromkeys(watcher.changed)
            if watcher.reloaded:
                found = space.engine.documents.names(collection, prefix)
                names = dict.fromkeys([*there, *found])
            watcher.changed.clear()
            watcher.reloaded = False
            step: dict[str, Any] = {}
            for name in names:
                snapshot = shown(name)
                if snapshot is not None:
                    there.add(name)
                elif name not in there:
                    continue  # made and deleted in between
                else:
                    there.discard(name)
                step[name.partition("/")[2]] = snapshot
            yield step
            if not await watcher.more():
                return


async def query(
    space: "Space", named: set[str], ask: Callable[[], Awaitable[list[Any]]]
) -> AsyncGenerator[list[Any], None]:
    """Yield the rows of a query now, then when they are others; `named` are the words
    of it, collections among them."""

    def wanted(name: DocumentId) -> bool:
        return name.partition("/")[0] in named

    before: list[tuple[Any, ...]] | None = None
    with _Watcher(space, wanted) as watcher:
        while True:
            watcher.changed.clear()
            rows = await ask()
            shown = [tuple(row) for row in rows]
            if shown != before:
                before = shown
                yield rows
            if not await watcher.more():
                return


class Subscription:
    """A callback that is told of changes: see `Space.subscribe`."""

    def __init__(self, steps: AsyncGenerator[Any, None], tell: Callable[[Any], Any]):
        self._tell = tell
        self.task = asyncio.create_task(self._run(steps))

    async def _run(self, steps: AsyncGenerator[Any, None]) -> None:
        async with contextlib.aclosing(steps):
            async for seen in steps:
                try:
                    told = self._tell(seen)
                    if inspect.isawaitable(told):
                        await told
                except Exception:
                    log.exception("a subscriber failed; it is told of the next change")

    def cancel(self) -> None:
        """Call no more; what is being told is cancelled."""
        self.task.cancel()
