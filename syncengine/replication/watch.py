"""Watching documents: what they show now, then the latest, as often as one looks.

A watcher holds no queue: whoever is slow skips what was in between, and its memory is
the names of what changed.
"""

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from syncengine.crdt.document import Document as State
from syncengine.errors import Closed
from syncengine.ids import DocumentId
from syncengine.replication.host import Bell

if TYPE_CHECKING:
    from syncengine.replication.space import Space

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
