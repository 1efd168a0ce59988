"""A link: dial, talk, and dial again, for as long as it is open.

Entering never waits for a network; losing one is normal life. What ends a link is
its owner, or a refusal that trying again cannot help.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, Protocol

from syncengine import limits
from syncengine.errors import (
    ClockSuspect,
    ConnectionLost,
    Invalid,
    InviteExpired,
    InviteUsed,
    Moved,
    ProtocolError,
    Refused,
    SyncError,
)
from syncengine.errors import (
    Closed as ClosedError,
)
from syncengine.ids import DeviceId, NamespaceId
from syncengine.protocol.codes import FINAL, Code
from syncengine.protocol.messages import Refusal
from syncengine.protocol.session import Closed
from syncengine.replication.address import Address, parse_address
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

    def homes(self, hub: DeviceId) -> dict[NamespaceId, str]:
        """Return the addresses of the hubs to which `hub` sent us."""
        ...

    async def keep_home(
        self, namespace: NamespaceId, hub: DeviceId, address: str | None
    ) -> None:
        """Keep where `hub` sent us for a namespace (None: it has it itself)."""
        ...


class Link:
    """A connection to one listener that keeps itself up. Use with `async with`.

    Where that is a hub of a fleet and sends us to another one for some namespaces, the
    link goes there too: it has *branches*, links of their own, that end with it.
    """

    def __init__(
        self,
        host: Dialler,
        dial: Dial,
        address: Address,
        namespaces: Callable[[], list[Hosted]],
        lives_elsewhere: Callable[[Hosted], bool] = lambda _: False,
        *,
        root: "Link | None" = None,
    ):
        """`lives_elsewhere` tells of a namespace that another hub is known for: that
        this peer does not have it is no reason to wait, or to give up. `root`: the
        link of which this is a branch."""
        self._host = host
        self._dial = dial
        self.address = address
        self._namespaces = namespaces
        self._lives_elsewhere = lives_elsewhere
        self._backoff = Backoff(host.entropy)
        self._state: LinkState = "connecting"
        self._root = root or self
        self._branches: dict[DeviceId, Link] = {}
        self._homes: dict[NamespaceId, Address] = {}  # of what a branch carries
        self._kept: dict[NamespaceId, str] = {}  # what the host keeps of these
        self._followed: dict[NamespaceId, tuple[int, Backoff]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._ending: set[Link] = set()  # branches that carry nothing any more
        self._is_closing = False
        self.changed: Signal = root.changed if root is not None else Signal()
        """Raised when the state of the link or a branch changed"""
        self._task: asyncio.Task[None] | None = None
        self._conversation: Dialling | None = None
        self._in_use_since: dict[NamespaceId, float] = {}
        self._put_off: Refused | None = None
        self.error: SyncError | None = None
        """Why the link is refused; or the last reason why it waits."""

    # --- life ---------------------------------------------------------------------

    async def __aenter__(self) -> "Link":
        self._host.link_began(self)
        self._kept = self._host.homes(self.address.device)
        for namespace, address in self._kept.items():
            self._homes[namespace] = parse_address(address)
        for hosted in self._namespaces():
            home = self._homes.get(hosted.keeper.namespace)
            if home is not None:
                self._branch_to(home)
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
            self._is_closing = True
            for one in (task, *self._chores):
                one.cancel()
            await asyncio.gather(task, *self._chores, return_exceptions=True)
            self._ending |= set(self._branches.values())
            self._branches.clear()
            for branch in self._ending:
                await branch.close()
            self._ending.clear()
            if self._root is self:
                self._host.link_ended(self)
        self._set("closed")

    @property
    def state(self) -> LinkState:
        """connecting, live, waiting (to dial again), refused (for good), closed.

        With branches: live when all of them are, else the state of one that is not.
        """
        states: list[LinkState] = [branch._state for branch in self._branches.values()]
        if not states or self._state == "closed" or self._carried():
            states.insert(0, self._state)
        for state in states:
            if state != "live":
                return state
        return "live"

    async def states(self) -> AsyncIterator[LinkState]:
        """Yield the state now and each later one; ends when the link does."""
        self._host.check_usable()
        seen: LinkState | None = None
        while True:
            if self.state != seen:
                seen = self.state
                yield seen
                continue
            if seen in ("refused", "closed"):
                return
            await self.changed.wait()

    @property
    def hub(self) -> str:
        """The address without its ticket: to be named in invites."""
        return self.address.without_ticket

    @property
    def conversation(self) -> Dialling | None:
        """What is being said with the listener, while the link is live."""
        return self._conversation if self._state == "live" else None

    def _set(self, state: LinkState) -> None:
        if state != self._state:
            self._state = state
            self.changed.set()

    # --- where namespaces are at home ---------------------------------------------

    def _carried(self) -> list[Hosted]:
        """Return the namespaces that no branch carries."""
        homes = self._homes
        return [h for h in self._namespaces() if h.keeper.namespace not in homes]

    def _carrier(self, namespace: NamespaceId) -> "Link":
        home = self._homes.get(namespace)
        return self if home is None else self._branches.get(home.device, self)

    def _moved(self, hosted: Hosted, refusal: Refusal) -> bool:
        """The listener, or a branch's, sends us to another hub: tell whether we go."""
        try:
            to = parse_address(refusal.address or "")
        except Invalid:
            return False
        root = self._root
        if root.address.url.startswith("wss:") and not to.url.startswith("wss:"):
            log.warning("%s sends us to a hub without TLS", self.address.url)
            return False
        namespace = hosted.keeper.namespace
        times, backoff = root._followed.get(namespace, (0, Backoff(self._host.entropy)))
        root._followed[namespace] = times + 1, backoff
        if times < limits.MOVES_FOLLOWED_MAX:
            root._go(hosted, to)
        else:  # in circles, it seems
            wait = backoff.next_seconds()
            root._chore(lambda: root._go_later(hosted, to, wait))
        return True

    async def _go_later(self, hosted: Hosted, to: Address, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._go(hosted, to)

    def _go(self, hosted: Hosted, to: Address) -> None:
        """Carry a namespace over a link to the hub that was named."""
        namespace = hosted.keeper.namespace
        carrier = self._carrier(namespace)
        if carrier.address.device == to.device and carrier.carries(hosted):
            return  # as it is already
        if to.device == self.address.device:
            self._homes.pop(namespace, None)
        else:
            self._homes[namespace] = to
            self._branch_to(to)
        self.opened_namespace(hosted)
        self._chore(self._prune)
        hosted.progress.set()

    def _branch_to(self, to: Address) -> None:
        if self._is_closing:
            return
        branch = self._branches.pop(to.device, None)
        if branch is not None:
            is_same = to in (branch.address, parse_address(branch.hub))
            if is_same and branch._state != "refused":
                self._branches[to.device] = branch
                return
            self._ending.add(branch)
            self._chore(self._prune)

        def carried() -> list[Hosted]:
            return [
                hosted
                for hosted in self._namespaces()
                if (home := self._homes.get(hosted.keeper.namespace)) is not None
                and home.device == to.device
            ]

        branch = Link(
            *(self._host, self._dial, to, carried, self._lives_elsewhere), root=self
        )
        branch._task = asyncio.create_task(branch._run())
        self._branches[to.device] = branch

    async def _prune(self) -> None:
        """End the branches that carry nothing (any more)."""
        for device, branch in list(self._branches.items()):
            if not branch._namespaces():
                del self._branches[device]
                self._ending.add(branch)
        for branch in list(self._ending):
            await branch.close()
            self._ending.discard(branch)

    def _joined(self, hosted: Hosted) -> None:
        """The listener, or a branch's, carries a namespace: it is at home there."""
        root, namespace = self._root, hosted.keeper.namespace
        root._followed.pop(namespace, None)
        home = root._homes.get(namespace)
        hub = root.address.device
        if self is root and home is not None:
            branch = self._branches.get(home.device)
            del self._homes[namespace]
            if branch is not None and branch.conversation is not None:
                branch.conversation.leave(hosted)
            self._chore(self._prune)
        known = None if self is root or home is None else home.without_ticket
        if root._kept.get(namespace) != known:
            if known is None:
                del root._kept[namespace]
            else:
                root._kept[namespace] = known
            root._chore(lambda: self._host.keep_home(namespace, hub, known))

    def _doubt(self) -> None:
        """A branch does not get on: ask the root's hub again where things are."""
        root = self._root
        if self is root or root.conversation is None:
            return
        for hosted in self._namespaces():
            talk = root.conversation
            if not (talk.asks(hosted) or talk.waits(hosted)):
                talk.open(hosted)

    def _chore(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def done() -> None:
            try:
                await work()
            except (SyncError, OSError) as error:
                log.warning("link to %s: %s", self.address.url, error)

        task = asyncio.create_task(done())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # --- waiting ------------------------------------------------------------------

    async def connected(self) -> None:
        """Wait until live; raises the refusal if that is final. Safe to cancel."""
        self._host.check_usable()
        while self.state != "live":
            self._check()
            await self.changed.wait()

    @property
    def progress(self) -> tuple[int, int]:
        """How far catching up has come: rows of the peer's logs that were passed, of
        how many there were when the link began; (0, 0) while there is no link."""
        links = [self, *self._branches.values()]
        talks = [c for link in links if (c := link._conversation) is not None]
        channels = [channel for talk in talks for channel in talk.channels.values()]
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
            refused: list[tuple[_Goal, Refusal]] = []
            for goal in list(waiting):
                conversation = self._carrier(goal.namespace).conversation
                if conversation is None:
                    continue
                if goal.reached(conversation):
                    waiting.remove(goal)
                    continue
                refusal = conversation.refusals.get(goal.namespace)
                elsewhere = self._lives_elsewhere(goal.hosted)
                if refusal is not None and (elsewhere or refusal.retry != "later"):
                    refused.append((goal, refusal))
            if len(refused) == len(waiting):
                for goal, refusal in refused:
                    if not self._lives_elsewhere(goal.hosted):
                        raise _error_of(refusal)
                return
            await self._wait_for_any(waiting)

    async def _wait_for_any(self, goals: "list[_Goal]") -> None:
        signals = [self.changed, *(goal.hosted.progress for goal in goals)]
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
        if self.state == "refused":
            links = [self, *self._branches.values()]
            raise next(
                link.error
                for link in links
                if link._state == "refused" and link.error is not None
            )
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
                self._end(error)
                return
            else:
                self.error = self._reason_of(closed)
                hint_ms = closed.retry_after_ms
                is_final = closed.code in FINAL and closed.by_peer
                # The listener could not prove to be the one we mean.
                is_another = closed.code == Code.AUTHENTICATION and not closed.by_peer
                if is_final or is_another:
                    self._end(Refused(closed.code, closed.reason))
                    return
            if loop.time() - began > limits.STABLE_SECONDS:
                self._backoff.reset()
            self._set("waiting")
            self._doubt()
            await asyncio.sleep(self._backoff.next_seconds(hint_ms))

    def _end(self, error: SyncError) -> None:
        """Trying again cannot help: the link ends. A branch asks its root anew."""
        self.error = error
        self._set("refused")
        self._doubt()

    def _reason_of(self, closed: Closed) -> SyncError:
        # What put all namespaces off says more than that we then closed.
        return self._put_off or ProtocolError(closed.code, closed.reason)

    async def _talk(self, connection: Connection) -> Closed:
        conversation = Dialling(
            self._host,
            connection,
            self.address.device,
            self._carried,
            self.address.ticket,
            self._on_live,
            self._in_use_since,
            self._joined,
            self._moved,
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
        everything = self._carried()
        ours = [hosted for hosted in everything if not self._lives_elsewhere(hosted)]
        wanted = {hosted.keeper.namespace for hosted in ours or everything}
        refusals = conversation.refusals
        final = {name for name, refusal in refusals.items() if refusal.retry != "later"}
        if wanted and wanted <= final:
            # Nothing is left to talk about: say why, for good.
            self._end(_error_of(refusals[min(wanted)]))
            assert self._task is not None
            self._task.cancel()
            return
        for name in sorted(wanted & refusals.keys()):
            self.error = self._put_off = _error_of(refusals[name])
        if wanted & refusals.keys():
            self._doubt()
        if wanted and wanted <= refusals.keys():
            # Not yet: the namespace may be on its way to the hub.
            conversation.session.close(Code.GOING_AWAY, "trying again later")
            conversation.wake()
            return
        self._set("live")
        for hosted in everything:  # what came while we were connecting
            if not self.carries(hosted) and hosted.keeper.namespace not in refusals:
                conversation.open(hosted)

    def opened_namespace(self, hosted: Hosted) -> None:
        """A namespace was made or joined while the link is up."""
        conversation = self._carrier(hosted.keeper.namespace).conversation
        if conversation is not None:
            conversation.open(hosted)

    def leave(self, hosted: Hosted) -> None:
        """Carry a namespace no more, over any branch."""
        for link in (self, *self._branches.values()):
            if link._conversation is not None:
                link._conversation.leave(hosted)

    def carries(self, hosted: Hosted) -> bool:
        """Tell whether a namespace is open on this link, or asked for."""
        talk = self.conversation
        return talk is not None and (
            talk.channel_of(hosted) is not None or talk.asks(hosted)
        )

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
        self._hub: DeviceId | None = None

    def reached(self, conversation: Dialling) -> bool:
        channel = conversation.channel_of(self.hosted)
        if channel is None:
            return False
        if self._theirs < 0 or channel.device != self._hub:
            self._hub = channel.device  # it may have moved: another log
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
    if refusal.address is not None:
        return Moved(refusal.code, refusal.reason, address=refusal.address)
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
