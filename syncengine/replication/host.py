"""What a link needs of the one who holds the logs: a replica or a hub."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from syncengine.clock import Clock, Entropy
from syncengine.ids import ActorId, DeviceId, Lineage, NamespaceId
from syncengine.log.run import Row
from syncengine.protocol.messages import Notice, Open, Refusal, StateDigest
from syncengine.replication.keeper import Admission, Keeper
from syncengine.replication.writer import Flush
from syncengine.trust.keys import PrivateKey, Scheme
from syncengine.trust.membership import Grant


class Signal:
    """Tells everybody who listens, each time it is raised."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        for listener in list(self._listeners):
            listener()

    async def wait(self) -> None:
        """Wait until it is raised next. Safe to cancel."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)


class Bell:
    """Wakes the one who waits, or the next who will: an event in 100 bytes."""

    __slots__ = ("_rung", "_waiting")

    def __init__(self) -> None:
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._rung = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def heard(self) -> None:
        """Wait until it was rung since the last time. Safe to cancel."""
        if not self._rung:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        self._rung = False


class Told(Protocol):
    """Somebody who can be told what members say: a channel."""

    device: DeviceId

    def tell(self, message: StateDigest | Notice) -> None: ...

    def dismiss(self, refusal: Refusal) -> None:
        """Tell the peer this instead of anything more: by a listener."""
        ...


class Hosted(Protocol):
    """A namespace's log at its keeper, as links see it."""

    keeper: Keeper
    committed_position: int
    """Up to where rows may leave: what is beyond is not on disk yet."""
    in_flight: set[object]
    log_grew: Signal
    progress: Signal

    @property
    def actor(self) -> ActorId | None:
        """The actor that writes here; None at a hub."""
        ...

    async def take_in(self, rows: Iterable[Row]) -> Admission: ...

    def flush(self) -> Flush:
        """Return the commit after which all that is here now is on disk."""
        ...

    def opened(self, channel: Told) -> None:
        """A link begins to carry this namespace."""
        ...

    def closed(self, channel: Told) -> None: ...

    def seal_now(self, *, ahead: bool = False) -> None:
        """Put own changes into batches with the next commit; `ahead` of a link, too."""
        ...

    @property
    def is_sealed(self) -> bool:
        """Whether all own changes that may leave are in batches."""
        ...

    async def retire_actor(self) -> None: ...

    def hear_state(self, message: StateDigest, source: Told) -> None:
        """A member told what it shows: see `replication.audit`."""
        ...

    def hear_notice(self, message: Notice, source: Told) -> None:
        """A member told something: see `replication.notices`."""
        ...


class Host(Protocol):
    """Who accepts and dials links."""

    key: PrivateKey
    scheme: Scheme
    entropy: Entropy
    lineage: Lineage
    instance: bytes
    """Drawn at each opening: two with one actor at once are clones."""

    @property
    def clock(self) -> Clock: ...

    def check_usable(self) -> None:
        """Raise `WrongLoop` or `Closed`."""
        ...

    def find(self, namespace: NamespaceId) -> Hosted | None: ...

    def admit(self, request: Open, device: DeviceId) -> Hosted:
        """Take in a namespace that is not here; raises `Refused`."""
        ...

    def check_home(self, request: Open, device: DeviceId) -> None:
        """Raise `Moved` where another hub keeps the namespace."""
        ...

    def rights_of_fellow(self, request: Open, device: DeviceId) -> Grant | None:
        """Return what a hub of the same fleet may do, whatever it was granted."""
        ...

    def told_time(self, now_ms: int) -> None:
        """A listener told its clock."""
        ...


# Commits that are made to seal what waits: 1 MiB each, and somebody may write on.
SEALINGS_MAX = 64


async def sealed(hosted: Hosted) -> None:
    """Put into batches, on disk, what was written while nobody was there: it is part of
    what somebody is told to be here."""
    for _ in range(SEALINGS_MAX):
        if hosted.is_sealed:
            break
        hosted.seal_now(ahead=True)
        await hosted.flush()
    if hosted.committed_position != hosted.keeper.position:
        await hosted.flush()  # sealed, and on its way
