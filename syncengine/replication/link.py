"""A link: dial, talk, and dial again, for as long as it is open.

Entering never waits for a network; losing one is normal life. What ends a link is
its owner, or a refusal that trying again cannot help.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Literal, Protocol

from syncengine import limits
from syncengine.errors import (
    ClockSuspect,
    ConnectionLost,
    InviteExpired,
    InviteUsed,
    ProtocolError,
    Refused,
    SyncError,
)
from syncengine.errors import (
    Closed as ClosedError,
)
from syncengine.ids import NamespaceId
from syncengine.protocol.codes import FINAL, Code
from syncengine.protocol.messages import Refusal
from syncengine.protocol.session import Closed
from syncengine.replication.address import Address
from syncengine.replication.backoff import Backoff
from syncengine.replication.conversation import Connection, Dialling
from syncengine.replication.host import Host, Hosted, Signal

log = logging.getLogger("syncengine")

LinkState = Literal["connecting", "live", "waiting", "refused", "closed"]
Dial = Callable[[Address], Awaitable[Connection]]


class Dialler(Host, Protocol):
    """A replica, as its links see it."""

    def link_began(self, link: "Link") -> None: ...

    def link_ended(self, link: "Link") -> None: ...

    async def flush_all(self) -> None: ...


class Link:
    """A connection to one listener that keeps itself up. Use with `async with`."""

    def __init__(
        self,
        host: Dialler,
        dial: Dial,
        address: Address,
        namespaces: Callable[[], list[Hosted]],
        lives_elsewhere: Callable[[Hosted], bool] = lambda _: False,
    ):
        """`lives_elsewhere` tells of a namespace that another hub is known for: that
        this peer does not have it is no reason to wait, or to give up."""
        self._host = host
        self._dial = dial
        self.address = address
        self._namespaces = namespaces
        self._lives_elsewhere = lives_elsewhere
        self._backoff = Backoff(host.entropy)
        self._state: LinkState = "connecting"
        self._changed = Signal()
        self._task: asyncio.Task[None] | None = None
        self._conversation: Dialling | None = None
        self._in_use_since: dict[NamespaceId, float] = {}
        self._put_off: Refused | None = None
        self.error: SyncError | None = None
        """Why the link is refused; or the last reason why it waits."""

    # --- life ---------------------------------------------------------------------

    async def __aenter__(self) -> "Link":
        self._host.link_began(self)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the link; what was acknowledged is on the peer's disk."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._host.link_ended(self)
        self._set("closed")

    @property
    def state(self) -> LinkState:
        """connecting, live, waiting (to dial again), refused (for good), closed."""
        return self._state

    async def states(self) -> AsyncIterator[LinkState]:
        """Yield the state now and each later one; ends when the link does."""
        self._host.check_usable()
        seen: LinkState | None = None
        while True:
            if self._state != seen:
                seen = self._state
                yield seen
                continue
            if seen in ("refused", "closed"):
                return
            await self._changed.wait()

    @property
    def hub(self) -> str:
        """The address without its ticket: to be named in invites."""
        return self.address.without_ticket

    def _set(self, state: LinkState) -> None:
        if state != self._state:
            self._state = state
            self._changed.set()

    # --- waiting ------------------------------------------------------------------

    async def connected(self) -> None:
        """Wait until live; raises the refusal if that is final. Safe to cancel."""
        self._host.check_usable()
        while self._state != "live":
            self._check()
            await self._changed.wait()

    @property
    def progress(self) -> tuple[int, int]:
        """How far catching up has come: rows of the peer's logs that were passed, of
        how many there were when the link began; (0, 0) while there is no link."""
        conversation = self._conversation
        channels = [] if conversation is None else list(conversation.channels.values())
        passed = sum(
            min(c.received.position, c.their_position) for c in channels if c.received
        )
        return passed, sum(channel.their_position for channel in channels)

    async def synced(self) -> None:
        """Wait until what was ours and theirs at this moment is on both disks.

        Raises `Refused` when that cannot happen any more for one of the namespaces,
        once it has happened for the others. Safe to cancel.
        """
        self._host.check_usable()
        await self._host.flush_all()
        waiting = [_Goal(hosted) for hosted in self._namespaces()]
        while True:
            self._check()
            conversation = self._conversation
            if conversation is not None and self._state == "live":
                waiting = [goal for goal in waiting if not goal.reached(conversation)]
                refused = [
                    refusal
                    for goal in waiting
                    if (refusal := conversation.refusals.get(goal.namespace))
                    and (self._lives_elsewhere(goal.hosted) or refusal.retry != "later")
                ]
                if len(refused) == len(waiting):
                    self._raise_first(waiting, conversation)
                    return
            await self._wait_for_any(waiting)

    def _raise_first(self, refused: "list[_Goal]", conversation: Dialling) -> None:
        for goal in refused:
            if not self._lives_elsewhere(goal.hosted):
                raise _error_of(conversation.refusals[goal.namespace])

    async def _wait_for_any(self, goals: "list[_Goal]") -> None:
        signals = [self._changed, *(goal.hosted.progress for goal in goals)]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        for signal in signals:
            signal.listen(wake)
        try:
            await done
        finally:
            for signal in signals:
                signal.unlisten(wake)

    def _check(self) -> None:
        if self._state == "refused":
            assert self.error is not None, "a refusal has its reason"
            raise self.error
        if self._state == "closed":
            raise ClosedError("the link is closed")

    # --- dialling -----------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._set("connecting")
            began = loop.time()
            hint_ms = 0
            self._put_off = None
            try:
                connection = await self._dial(self.address)
                closed = await self._talk(connection)
            except (ConnectionLost, OSError, TimeoutError) as error:
                self.error = ConnectionLost(f"{self.address.url}: {error}")
            except (Refused, ClockSuspect) as error:
                self.error = error
                self._set("refused")
                return
            else:
                self.error = self._reason_of(closed)
                hint_ms = closed.retry_after_ms
                if closed.code in FINAL and closed.by_peer:
                    self.error = Refused(closed.code, closed.reason)
                    self._set("refused")
                    return
                if closed.code == Code.AUTHENTICATION and not closed.by_peer:
                    # The listener could not prove to be the one we mean.
                    self.error = Refused(closed.code, closed.reason)
                    self._set("refused")
                    return
            if loop.time() - began > limits.STABLE_SECONDS:
                self._backoff.reset()
            self._set("waiting")
            await asyncio.sleep(self._backoff.next_seconds(hint_ms))

    def _reason_of(self, closed: Closed) -> SyncError:
        # What put all namespaces off says more than that we then closed.
        return self._put_off or ProtocolError(closed.code, closed.reason)

    async def _talk(self, connection: Connection) -> Closed:
        conversation = Dialling(
            self._host,
            connection,
            self.address.device,
            self._namespaces,
            self.address.ticket,
            self._on_live,
            self._in_use_since,
        )
        self._conversation = conversation
        try:
            closed = await conversation.run()
        finally:
            self._conversation = None
        if isinstance(conversation.problem, ClockSuspect):
            raise conversation.problem
        return closed

    def _on_live(self) -> None:
        conversation = self._conversation
        if conversation is None:
            return
        everything = self._namespaces()
        ours = [hosted for hosted in everything if not self._lives_elsewhere(hosted)]
        wanted = {hosted.keeper.namespace for hosted in ours or everything}
        refusals = conversation.refusals
        final = {name for name, refusal in refusals.items() if refusal.retry != "later"}
        if wanted and wanted <= final:
            # Nothing is left to talk about: say why, for good.
            self.error = _error_of(refusals[min(wanted)])
            self._set("refused")
            assert self._task is not None
            self._task.cancel()
            return
        for name in sorted(wanted & refusals.keys()):
            self.error = self._put_off = _error_of(refusals[name])
        if wanted and wanted <= refusals.keys():
            # Not yet: the namespace may be on its way to the hub.
            conversation.session.close(Code.GOING_AWAY, "trying again later")
            conversation.wake()
            return
        self._set("live")

    def opened_namespace(self, hosted: Hosted) -> None:
        """A namespace was made or joined while the link is up."""
        if self._conversation is not None and self._state == "live":
            self._conversation.open(hosted)

    def serves(self, namespace: NamespaceId) -> bool:
        """Whether this link is to carry `namespace`."""
        return any(h.keeper.namespace == namespace for h in self._namespaces())


class _Goal:
    """What was in one namespace's logs when somebody asked to be synced."""

    def __init__(self, hosted: Hosted):
        self.hosted = hosted
        self._keeper = hosted.keeper
        self.namespace = hosted.keeper.namespace
        self._ours = -1
        self._theirs = -1

    def reached(self, conversation: Dialling) -> bool:
        channel = next(
            (c for c in conversation.channels.values() if c.hosted is self.hosted),
            None,
        )
        if channel is None:
            return False
        if self._theirs < 0:
            self._theirs = channel.their_position
        # Only with what is theirs is it known what of ours may leave.
        if channel.durable < self._theirs:
            return False
        if self._ours < 0:
            if not self.hosted.is_sealed:
                self.hosted.seal_now()
                return False
            # Not what is committed: batches may be on their way to the disk.
            self._ours = self._keeper.position
        return channel.sent is not None and channel.confirmed >= self._ours


def _error_of(refusal: Refusal) -> Refused:
    kind = {
        Code.INVITE_EXPIRED: InviteExpired,
        Code.INVITE_USED: InviteUsed,
    }.get(Code(refusal.code), Refused)
    retry = refusal.retry
    if retry not in ("never", "later", "after_action"):
        retry = "later"
    return kind(
        refusal.code,
        refusal.reason,
        retry=retry,  # type: ignore[arg-type]  # checked above
        effect="none" if refusal.effect == "none" else "unknown",
    )
