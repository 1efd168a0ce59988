"""The one task that writes: it gathers what all namespaces have and commits it once.

Group commit: whoever changed something asks for the next commit and waits; the
commit that is under way is not theirs, the next one holds everything until then.
"""

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Protocol

from syncengine.errors import Closed, SyncError
from syncengine.storage.store import Store, Writes

log = logging.getLogger("syncengine")


class Flush:
    """A commit to come. Any number may await it, each safe to cancel: nobody who gives
    up disturbs it. Raises what the commit raised."""

    __slots__ = ("_listeners", "_settled", "_waiting", "error")

    def __init__(self) -> None:
        self._settled = False
        self._waiting: list[asyncio.Future[None]] = []
        self._listeners: list[Callable[[Exception | None], None]] = []
        self.error: Exception | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if not self._settled:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            yield from waiting
        if self.error is not None:
            raise self.error

    def then(self, listener: Callable[[Exception | None], None]) -> None:
        """Call `listener` with the error, or None, soon after it is settled."""
        assert not self._settled, "who asks for a flush listens at once"
        self._listeners.append(listener)

    def settle(self, error: Exception | None = None) -> None:
        self._settled = True
        self.error = error
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, error)
        self._listeners.clear()


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
        self._dirty: dict[Source, Flush] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self.commit_count = 0

    def flush(self, source: Source) -> Flush:
        """Return the commit after which all that `source` has now is on disk."""
        if self._closing:
            raise Closed("the replica is closed")
        flush = self._dirty.get(source)
        if flush is None:
            flush = self._dirty[source] = Flush()
            self._wake.set()
        return flush

    def drop(self, source: Source) -> None:
        """Write nothing more of `source`, which is no more; who waits is told."""
        flush = self._dirty.pop(source, None)
        if flush is not None:
            flush.settle(Closed("it was taken out of the file"))

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
        group: list[tuple[Source, Flush]] = []
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
            for source, flush in group:
                flush.settle(error)
                later = self._dirty.pop(source, None)
                if later is not None:
                    later.settle(error)
            return
        for (source, _), token in zip(group, tokens, strict=True):
            source.committed(token)
        for _, flush in group:
            flush.settle()
        if self._dirty:
            self._wake.set()

    def close(self) -> None:
        """Let `run` end once everything is written."""
        self._closing = True
        self._wake.set()
