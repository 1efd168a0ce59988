"""The one task that writes: it gathers what all namespaces have and commits it once.

Group commit: whoever changed something asks for the next commit and waits; the
commit that is under way is not theirs, the next one holds everything until then.
"""

import asyncio
import logging
from typing import Any, Protocol

from syncengine.errors import Closed, SyncError
from syncengine.storage.store import Store, Writes

log = logging.getLogger("syncengine")


class Source(Protocol):
    """A namespace that has things to write."""

    def collect(self, writes: Writes) -> Any:
        """Add what changed to `writes`; return a token for what becomes of it."""
        ...

    def committed(self, token: Any) -> None:
        """Called after the commit, before anybody who waited for it goes on."""
        ...

    def failed(self, error: Exception) -> None:
        """The commit failed, or was never made: forget what is not on disk."""
        ...

    def ready_to_collect(self) -> bool:
        """Whether no transaction is half-way; if not, `Writer.wake` follows."""
        ...


class Writer:
    """Commits for one store. `run()` is its task."""

    def __init__(self, store: Store):
        self.store = store
        self._dirty: dict[Source, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self.commit_count = 0

    def flush(self, source: Source) -> asyncio.Future[None]:
        """Return a future that is done when all that `source` has now is on disk."""
        if self._closing:
            raise Closed("the replica is closed")
        future = self._dirty.get(source)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            # Whoever asked may be gone when it fails: that is no stray error.
            future.add_done_callback(_retrieve)
            self._dirty[source] = future
        self._wake.set()
        return future

    def is_waited_for(self, source: Source) -> bool:
        """Whether somebody waits for a commit of `source` that has not begun."""
        return source in self._dirty

    def wake(self) -> None:
        """Look again: a namespace became ready to collect."""
        if self._dirty:
            self._wake.set()

    async def run(self) -> None:
        """Commit groups until closed and everything is written."""
        while not (self._closing and not self._dirty):
            await self._wake.wait()
            self._wake.clear()
            if not self._dirty:
                continue
            # Let everybody who is ready now into this group.
            await asyncio.sleep(0)
            await self._commit_group()

    async def _commit_group(self) -> None:
        writes = Writes()
        group: list[tuple[Source, asyncio.Future[None]]] = []
        tokens: list[Any] = []
        for source in list(self._dirty):
            if source.ready_to_collect():
                group.append((source, self._dirty.pop(source)))
        if not group:
            return
        try:
            for source, _ in group:
                tokens.append(source.collect(writes))
            if writes:
                await self.store.commit(writes)
                self.commit_count += 1
        except Exception as error:
            if not isinstance(error, SyncError):
                log.exception("a commit failed")
            for source, _ in group:
                source.failed(error)
            # What was queued on top of it rests on what is not there.
            for source, future in group:
                later = self._dirty.pop(source, None)
                for waiting in (future, later):
                    if waiting is not None and not waiting.done():
                        waiting.set_exception(error)
            return
        for (source, _), token in zip(group, tokens, strict=True):
            source.committed(token)
        for _, future in group:
            if not future.done():
                future.set_result(None)
        if self._dirty:
            self._wake.set()

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._closing = True
        self._wake.set()


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()
