"""The same API without async, for programs that have no event loop of their own.

    import syncengine.blocking as syncengine, transport.blocking as transport

    with syncengine.open("notes.db") as replica:
        space = replica.namespace("family")
        with space.transaction() as tx:
            tx.create(Note, "groceries", title="Groceries")
        with transport.connect(replica, address) as link:
            link.synced(timeout=10)

One thread runs the loop for all replicas of a process. While the body of a transaction
runs in your thread, that loop stands still: keep bodies short, as always. Where a call
waits for somebody else it takes a `timeout` in seconds and raises `TimeoutError`.
Snapshots are whole copies: they may be handed from thread to thread.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import syncengine
from syncengine import new_id
from syncengine.documents.comparing import Difference
from syncengine.documents.fields import List, Map
from syncengine.documents.leaves import Counter, MultiValue, Set
from syncengine.documents.model import Document
from syncengine.documents.shape import Indexed, Whole
from syncengine.documents.text import Text
from syncengine.errors import DivergenceDetected, TransactionOpen, WrongLoop
from syncengine.limits import MOVED_KEEP_SECONDS
from syncengine.replication import branches as _branches
from syncengine.replication import past as _past
from syncengine.replication import replica as _replica
from syncengine.replication import rescue as _rescue
from syncengine.replication import space as _space
from syncengine.replication import transaction as _transaction
from syncengine.replication import undo as _undo
from syncengine.replication.feed import Change
from syncengine.replication.history import Conflict, LostValue, Passage, Why
from syncengine.replication.hub import Admit
from syncengine.replication.hub import Hub as _AsyncHub
from syncengine.replication.modes import Mode
from syncengine.replication.space import PeerStatus
from syncengine.storage.store import SqlRow, StorePath
from syncengine.system import process
from syncengine.trust.invite import Invite

T = TypeVar("T")
D = TypeVar("D", bound=Document)
Other = TypeVar("Other")
_MISSING: Any = object()


class Loop:
    """An event loop in a thread of its own, which can be made to stand still."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._life = process.life
        self._resume: threading.Event | None = None
        self._holder: int | None = None
        self._left: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="syncengine", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `work` in the loop and wait for it; raises what it raises.

        Raises `TimeoutError` after `timeout` seconds; `work` is cancelled then, and
        when this thread is interrupted. Raises `WrongLoop` in a forked child, and in
        the loop's own thread.
        """
        if wrong := self._wrong():
            work.close()
            raise WrongLoop(wrong)
        held = self.is_held_here
        if held:
            self.release()
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            try:
                return future.result(timeout)
            except BaseException:
                future.cancel()
                raise
        finally:
            if held:
                self.hold()

    def leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` run when it can; nobody waits for it."""
        if sys.is_finalizing() or self._life != process.life:
            work.close()
            return

        def begin() -> None:
            task = self._loop.create_task(work)
            self._left.add(task)
            task.add_done_callback(self._left.discard)

        self._loop.call_soon_threadsafe(begin)

    def _wrong(self) -> str | None:
        if self._life != process.life:
            return "this was opened before a fork; open it in the child process"
        if threading.get_ident() == self._thread.ident:
            return (
                "this is the thread that everything runs in: what is called back from "
                "there cannot wait for it"
            )
        return None

    @property
    def is_held_here(self) -> bool:
        """Whether this thread has made the loop stand still."""
        return self._holder == threading.get_ident()

    def hold(self) -> None:
        """Make the loop stand still, so that this thread may touch what is its."""
        stands, resume, me = threading.Event(), threading.Event(), threading.get_ident()

        def stand() -> None:
            if resume.is_set():  # whoever asked was interrupted
                return
            self._resume, self._holder = resume, me
            stands.set()
            resume.wait()
            if self._resume is resume:
                self._resume = self._holder = None

        self._loop.call_soon_threadsafe(stand)
        try:
            stands.wait()
        except BaseException:
            resume.set()
            raise

    def release(self) -> None:
        """Let the loop go on, if this thread has made it stand."""
        if self.is_held_here:
            resume, self._resume, self._holder = self._resume, None, None
            assert resume is not None, "who holds it can let it go"
            resume.set()

    def each(self, source: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """Yield what an asynchronous iterator does, waiting for each."""

        async def begin() -> AsyncIterator[T]:
            return source()

        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(steps)
            except StopAsyncIteration:
                return False, None

        async def end() -> None:
            close = getattr(steps, "aclose", None)
            if close is not None:
                await close()

        steps = self.run(begin())
        try:
            while True:
                more, value = self.run(step())
                if not more:
                    return
                yield value
        finally:
            # Whoever drops it may be the garbage collector, anywhere: in the loop's
            # thread, in the middle of a transaction's body, at the program's end.
            if sys.is_finalizing() or self.is_held_here or self._wrong():
                self.leave(end())
            else:
                self.run(end())


_loops: list[Loop] = []


def loop() -> Loop:
    """Return the loop of this process, begun by first use."""
    if not _loops or _loops[-1]._life != process.life:  # pyright: ignore[reportPrivateUsage]
        _loops.append(Loop())
    return _loops[-1]


class Closing:
    """What is closed when its `with` block ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class Replica(Closing):
    """`syncengine.Replica` without async. Make one with `open`."""

    def __init__(self, loop: Loop, inner: _replica.Replica):
        self._loop = loop
        self.inner = inner

    def close(self) -> None:
        """Close its links, write what is left, and close the file. Idempotent."""
        self._loop.run(self.inner.close())

    @property
    def id(self) -> str:
        """This device's id: a public key."""
        return self.inner.id

    def namespace(self, name: str, *, create: bool = True) -> "Space":
        """Return the namespace of that name, made on first use; `NotFound`."""
        found = self._loop.run(self.inner.namespace(name, create=create))
        return Space(self._loop, found)

    def spaces(self) -> "list[Space]":
        """Return all namespaces of this replica."""
        return [Space(self._loop, space) for space in self.inner.spaces()]

    def join(
        self, invite: str | Invite, *, name: str | None = None, adopt: bool = False
    ) -> "Space":
        """Join a namespace by an invite; works offline. See `syncengine.Replica`."""
        joined = self._loop.run(self.inner.join(invite, name=name, adopt=adopt))
        return Space(self._loop, joined)

    def recover(
        self, key: str, namespace_id: str | None = None, *, name: str = "main"
    ) -> "Space":
        """Make this device an owner's again. See `syncengine.Replica.recover`."""
        found = self._loop.run(self.inner.recover(key, namespace_id, name=name))
        return Space(self._loop, found)

    def unarchive(self, path: StorePath, name: str | None = None) -> "Space":
        """Take in a namespace from a file that `space.archive` wrote."""
        return Space(self._loop, self._loop.run(self.inner.unarchive(path, name)))

    def backup(self, path: StorePath) -> None:
        """Write the replica into one file, without the device's key."""
        self._loop.run(self.inner.backup(path))


class Rescue:
    """`syncengine.Rescue` without async."""

    def __init__(self, loop: Loop, inner: _space.Space):
        self._loop = loop
        self._inner = inner.rescue

    def list(self, *, decided: bool = False) -> _rescue.Changes:
        """Return what waits for a decision, in the order in which it was written."""
        return self._loop.run(self._inner.list(decided=decided))

    def export(self, ids: Iterable[str] | None = None) -> _rescue.Records:
        """Return records, as JSON has them, of what changes would have done."""
        return self._loop.run(self._inner.export(ids))

    def replay(
        self, ids: Iterable[str] | None = None, how: _rescue.How = "merge"
    ) -> _rescue.Ids:
        """Write changes again; return the ids of those that wrote something."""
        return self._loop.run(self._inner.replay(ids, how))

    def dismiss(self, ids: Iterable[str]) -> int:
        """Decide, on this device, that changes are not wanted; return how many."""
        return self._loop.run(self._inner.dismiss(ids))


class Space:
    """`syncengine.Space` without async."""

    def __init__(self, loop: Loop, inner: _space.Space):
        self._loop = loop
        self.inner = inner

    @property
    def id(self) -> str:
        """The namespace's id."""
        return self.inner.id

    @property
    def name(self) -> str | None:
        """What this replica calls it."""
        return self.inner.name

    @property
    def recovery_key(self) -> str | None:
        """The printed owner key, while it is still in the folder beside the file."""
        return self.inner.recovery_key

    @property
    def pending(self) -> int:
        """How many own changes no peer has been sent yet."""
        return self.inner.pending

    @property
    def mode(self) -> Mode:
        """Who may write here: all, or the leader of the present term."""
        return self.inner.mode

    def switch_mode(self, mode: Mode, *, voters: Sequence[str] = ()) -> None:
        """Let all write from now on, or the leader alone. See `syncengine.Space`."""
        self._loop.run(self.inner.switch_mode(mode, voters=voters))

    @property
    def rescue(self) -> "Rescue":
        """What was written here and does not count, and somebody may still want."""
        return Rescue(self._loop, self.inner)

    def token(self) -> str:
        """Return what names all that shows here now, for a session."""

        async def token() -> str:
            return self.inner.token()

        return self._loop.run(token())

    def reached(self, token: str, *, timeout_ms: int = 5_000) -> None:
        """Wait until all that a session has seen shows here. Raises `StaleRead`,
        `HistoryDiverged`, `Invalid`."""
        self._loop.run(self.inner.reached(token, timeout_ms=timeout_ms))

    def transaction(
        self, operation_id: str | None = None, *, wait: bool = True
    ) -> "Transaction":
        """Return a transaction, to be used with `with`. See `syncengine.Space`."""
        return Transaction(self._loop, self.inner, operation_id, wait)

    @overload
    def get(self, kind: str) -> Map[str, Any]: ...
    @overload
    def get(self, kind: str, *, default: Other) -> Map[str, Any] | Other: ...
    @overload
    def get(self, kind: Callable[..., D], id: str) -> D: ...
    @overload
    def get(self, kind: Callable[..., D], id: str, default: Other) -> D | Other: ...
    def get(self, kind: Any, id: Any = None, default: Any = _MISSING) -> Any:
        """Return a snapshot; raises `NotFound` without a default."""

        async def get() -> Any:
            options = {} if default is _MISSING else {"default": default}
            found = (
                await self.inner.get(kind, **options)
                if isinstance(kind, str)
                else await self.inner.get(kind, id, **options)
            )
            return _whole(found)

        return self._loop.run(get())

    @overload
    def documents(
        self, kind: str, prefix: str = ""
    ) -> Iterator[tuple[str, Map[str, Any]]]: ...
    @overload
    def documents(self, kind: Callable[..., D], prefix: str = "") -> Iterator[D]: ...
    def documents(self, kind: Any, prefix: str = "") -> Iterator[Any]:
        """Yield snapshots in id order: typed, or (id, map) of a collection's name."""

        async def whole() -> AsyncIterator[Any]:
            async for found in self.inner.documents(kind, prefix):
                yield _whole(found)

        return self._loop.each(whole)

    @overload
    def watch(self, kind: str, *, prefix: str = "") -> Iterator[Any]: ...
    @overload
    def watch(self, kind: Callable[..., D], id: str) -> Iterator[D | None]: ...
    @overload
    def watch(
        self, kind: Callable[..., D], *, prefix: str = ""
    ) -> Iterator[dict[str, D | None]]: ...
    def watch(
        self, kind: Any, id: str | None = None, *, prefix: str = ""
    ) -> Iterator[Any]:
        """Yield what is shown now, then the latest. See `syncengine.Space.watch`."""

        async def whole() -> AsyncIterator[Any]:
            watching: Any = self.inner.watch
            async with contextlib.aclosing(watching(kind, id, prefix=prefix)) as steps:
                async for seen in steps:
                    yield _whole(seen)

        return self._loop.each(whole)

    def collections(self) -> list[tuple[str, int]]:
        """Return (collection, number of documents), as on disk."""
        return self._loop.run(_call(self.inner.collections))

    def why(self, kind: Any, id: str | None = None, field: str | None = None) -> Why:
        """Return why a field shows what it shows. See `syncengine.Space.why`."""
        return self._loop.run(self.inner.why(kind, id, field))

    def blame(
        self, kind: Any, id: str | None = None, field: str | None = None
    ) -> list[Passage]:
        """Return who wrote which part of a text. See `syncengine.Space.blame`."""
        return self._loop.run(self.inner.blame(kind, id, field))

    @property
    def version(self) -> str:
        """What this shows now, for `at`."""
        return self._loop.run(_call(lambda: self.inner.version))

    def at(self, when: str | datetime | Change) -> "Past":
        """Return this namespace as it was. See `syncengine.Space.at`."""
        return Past(self._loop, self._loop.run(self.inner.at(when)))

    def diff(
        self,
        kind: Any,
        id: str | None = None,
        *,
        before: str | datetime | Change,
        after: str | datetime | Change | None = None,
    ) -> list[Difference]:
        """Return how a document differs between two moments."""
        return self._loop.run(self.inner.diff(kind, id, before=before, after=after))

    def fork(self, name: str) -> "Branch":
        """Begin a branch at what is here now. See `syncengine.Space.fork`."""
        return Branch(self._loop, self._loop.run(self.inner.fork(name)))

    def branch(self, name: str) -> "Branch":
        """Return a branch that was begun here before; raises `NotFound`."""
        return Branch(self._loop, self._loop.run(self.inner.branch(name)))

    def branches(self) -> list[str]:
        """Return the names of the branches that are kept here."""
        return self._loop.run(_call(self.inner.branches))

    def undoing(
        self,
        kind: Any = None,
        id: str | None = None,
        *,
        since: datetime | None = None,
    ) -> "Undoing":
        """Return what takes back what this device did. See `syncengine.Space`."""
        undoing = self.inner.undoing
        made = self._loop.run(_call(lambda: undoing(kind, id, since=since)))
        return Undoing(self._loop, made)

    def history(
        self, kind: Any, id: str | None = None, *, limit: int = 100
    ) -> list[Change]:
        """Return the changes of a document. See `syncengine.Space.history`."""
        return self._loop.run(self.inner.history(kind, id, limit=limit))

    def changes(self, after: str | None = None) -> Iterator[Change]:
        """Yield every change, then those that come. See `syncengine.Space.changes`."""
        return self._loop.each(lambda: self.inner.changes(after))

    def dump(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield a record for each document. See `syncengine.Space.dump`."""
        return self._loop.each(lambda: self.inner.dump(prefix))

    def archive(self, path: StorePath) -> int:
        """Write this namespace with all of its history to a new file."""
        return self._loop.run(self.inner.archive(path))

    def load(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Make documents what records say. See `syncengine.Space.load`."""
        return self._loop.run(self.inner.load(records))

    def sql(self, query: str, *params: Any) -> list[SqlRow]:
        """Return the rows of a query. See `syncengine.Space.sql`."""
        return self._loop.run(self.inner.sql(query, *params))

    def search(
        self, kind: type[Document], words: str, *, limit: int = 20
    ) -> list[_space.Found]:
        """Return documents in which words stand. See `syncengine.Space.search`."""
        return self._loop.run(self.inner.search(kind, words, limit=limit))

    def watch_sql(self, query: str, *params: Any) -> Iterator[list[SqlRow]]:
        """Yield the rows of a query, now and whenever they are others."""
        return self._loop.each(lambda: self.inner.watch_sql(query, *params))

    def conflicts(self, kind: Any, id: str | None = None) -> list[Conflict]:
        return self._loop.run(self.inner.conflicts(kind, id))

    def lost_values(
        self, kind: Any, id: str | None = None, field: str | None = None
    ) -> list[LostValue]:
        """Return the values that lost to concurrent writes."""
        return self._loop.run(self.inner.lost_values(kind, id, field))

    def _check_outside(self) -> None:
        if self._loop.is_held_here:
            raise TransactionOpen(
                "end the transaction's block first: this waits for it"
            )

    def peers(self) -> list[PeerStatus]:
        """Return what each peer has of this namespace."""
        return self._loop.run(_call(self.inner.peers))

    def divergences(self) -> list[DivergenceDetected]:
        """Return the documents that another member shows otherwise."""
        return self._loop.run(_call(lambda: self.inner.divergences))

    def invite(
        self,
        ops: str = "write",
        *,
        hub: str = "",
        expires: timedelta = timedelta(hours=24),
        uses: int = 1,
    ) -> Invite:
        """Return an invite; raises `Refused` without the right to issue grants."""
        self._check_outside()
        return self._loop.run(
            self.inner.invite(ops, hub=hub, expires=expires, uses=uses)
        )

    def grant_device(self, device: str, ops: str = "write") -> None:
        """Grant `ops` (read, write or admin) to a device by its id."""
        self._check_outside()
        self._loop.run(self.inner.grant_device(device, ops))

    def clear(self, *, lose_unsent: bool = False) -> None:
        """Take this namespace out of the file. See `syncengine.Space.clear`."""
        self._check_outside()
        self._loop.run(self.inner.clear(lose_unsent=lose_unsent))


class Past:
    """A namespace as it was at a moment."""

    def __init__(self, loop: Loop, inner: _past.Past):
        self._loop = loop
        self._inner = inner

    @overload
    def get(self, kind: str) -> Map[str, Any]: ...
    @overload
    def get(self, kind: str, *, default: Other) -> Map[str, Any] | Other: ...
    @overload
    def get(self, kind: Callable[..., D], id: str) -> D: ...
    @overload
    def get(self, kind: Callable[..., D], id: str, default: Other) -> D | Other: ...
    def get(self, kind: Any, id: Any = None, default: Any = _MISSING) -> Any:
        """Return a snapshot of a document as it was; raises `NotFound`."""
        options: Any = {} if default is _MISSING else {"default": default}
        given = (kind,) if isinstance(kind, str) else (kind, id)
        reading: Any = self._inner.get
        return self._loop.run(reading(*given, **options))


class Branch:
    """Documents as they would be. See `syncengine.Branch`."""

    def __init__(self, loop: Loop, inner: _branches.Branch):
        self._loop = loop
        self._inner = inner
        self.name = inner.name

    @property
    def base(self) -> str:
        """The version that the branch stands on."""
        return self._loop.run(_call(lambda: self._inner.base))

    def transaction(
        self, operation_id: str | None = None, *, wait: bool = True
    ) -> "Transaction":
        """Return a transaction on the documents of the branch."""
        return Transaction(self._loop, self._inner, operation_id, wait)

    def get(self, kind: Any, id: Any = None, default: Any = _MISSING) -> Any:
        """Return a snapshot of a document as it is here; raises `NotFound`."""

        async def get() -> Any:
            options: Any = {} if default is _MISSING else {"default": default}
            given = (kind,) if isinstance(kind, str) else (kind, id)
            reading: Any = self._inner.get
            found = await reading(*given, **options)
            return _whole(found)

        return self._loop.run(get())

    def documents(self) -> list[str]:
        """Return what was written to in the branch."""
        return self._loop.run(_call(self._inner.documents))

    def diff(self, kind: Any, id: str | None = None) -> list[Difference]:
        """Return what was done to a document in the branch."""
        return self._loop.run(self._inner.diff(kind, id))

    def merge(self) -> "Receipt":
        """Put what was done here into the namespace. See `syncengine.Branch.merge`."""
        return Receipt(self._loop, self._loop.run(self._inner.merge()))

    def discard(self) -> None:
        """Forget the branch and all that was done in it."""
        self._loop.run(self._inner.discard())


class Undoing:
    """What this device did, to be taken back and done again."""

    def __init__(self, loop: Loop, inner: _undo.Undoing):
        self._loop = loop
        self._inner = inner

    def undo(self) -> bool:
        """Take back the last change; tell whether there was one."""
        return self._loop.run(self._inner.undo())

    def redo(self) -> bool:
        """Do again what was undone last."""
        return self._loop.run(self._inner.redo())

    def depth(self) -> tuple[int, int]:
        """Return how many changes can be undone, and redone."""
        return self._loop.run(self._inner.depth())


class Transaction(_transaction.Transaction):
    """What `with space.transaction() as tx` gives; drafts are as they always are."""

    def __init__(
        self, loop: Loop, space: _transaction.Home, operation_id: str | None, wait: bool
    ):
        super().__init__(space, operation_id, wait)
        self._loop = loop

    def __enter__(self) -> "Transaction":
        if self._loop.is_held_here:
            raise TransactionOpen(
                "a transaction is open in this thread already; use its `tx`, or end "
                "its block first"
            )
        try:
            self._loop.run(self.__aenter__())
            self._loop.hold()
        except BaseException as error:
            # An interrupt may come when it was entered already.
            self._loop.release()
            self._loop.leave(self._abandon(error))
            raise
        self._engine.body.runs_behind(sys._getframe())  # pyright: ignore[reportPrivateUsage]
        return self

    async def _abandon(self, error: BaseException) -> None:
        for _ in range(3):  # what was cancelled ends first
            await asyncio.sleep(0)
        if self._draft is not None:
            await self.__aexit__(type(error), error, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.release()

        async def end() -> None:
            await self.__aexit__(kind, error, trace)
            self._copy_shown()

        self._loop.run(end())

    @property
    def receipt(self) -> "Receipt":  # type: ignore[override]  # the same, blocking
        """How far the change got; there is one once the block has ended well."""
        return Receipt(self._loop, super().receipt)


class Receipt:
    """How far one change got: this disk, then a peer's."""

    def __init__(self, loop: Loop, inner: _transaction.Receipt):
        self._loop = loop
        self._inner = inner

    @property
    def pending(self) -> bool:
        """Whether the change is still in the outbox: in no batch, on no peer."""
        return self._loop.run(_call(lambda: self._inner.pending))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the change is on this disk."""

        async def wait() -> None:
            await self._inner

        self._loop.run(wait(), timeout)

    def durable_on(self, peer: str = "hub", *, timeout: float | None = None) -> None:
        """Wait until it is on a peer's disk too. See `syncengine.Receipt`."""
        self._loop.run(self._inner.durable_on(peer), timeout)


class Hub(Closing):
    """`syncengine.Hub` without async. Make one with `open_hub`."""

    def __init__(self, loop: Loop, inner: _AsyncHub):
        self._loop = loop
        self.inner = inner

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._loop.run(self.inner.close())


def open(path: StorePath, *, strict_clock: bool = False) -> Replica:
    """Open a replica, made when absent; use with `with`. See `syncengine.open`."""
    here = loop()

    async def opened() -> _replica.Replica:
        return await syncengine.open(path, strict_clock=strict_clock)

    return Replica(here, here.run(opened()))


def open_hub(
    path: StorePath,
    *,
    admit: Admit = "ticket",
    fleet: str | None = None,
    keep_moved: float = MOVED_KEEP_SECONDS,
) -> Hub:
    """Open a hub's file, made when absent. See `syncengine.open_hub`."""
    here = loop()

    async def opened() -> _AsyncHub:
        hub: _AsyncHub = await syncengine.open_hub(
            path, admit=admit, fleet=fleet, keep_moved=keep_moved
        )
        return hub

    return Hub(here, here.run(opened()))


async def _call(function: Callable[[], T]) -> T:
    return function()


def _whole(shown: Any) -> Any:
    """Return a snapshot, or several, copied whole: other threads may read it."""
    if isinstance(shown, dict):
        for inner in cast(dict[str, Any], shown).values():
            _whole(inner)
    elif isinstance(shown, tuple):
        _whole(cast(tuple[str, Any], shown)[1])
    else:
        view = getattr(shown, "_view", None)
        if view is not None:
            view.copy()
    return cast(Any, shown)


__all__ = [
    "Change",
    "Counter",
    "Document",
    "Hub",
    "Indexed",
    "Invite",
    "List",
    "Map",
    "MultiValue",
    "Receipt",
    "Replica",
    "Set",
    "Space",
    "Text",
    "Transaction",
    "Whole",
    "new_id",
    "open",
    "open_hub",
]
