"""One connection from its first frame to its last: a session pumped over a
`Connection`, and the channels of its namespaces.

Two tasks: one reads and decides, one writes. All frames leave through the writer.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from syncengine import limits
from syncengine.errors import Closed as ClosedError
from syncengine.errors import ConnectionLost, Moved, ProtocolError, Refused, SyncError
from syncengine.ids import DeviceId, EntryId, NamespaceId, short
from syncengine.log.run import Row
from syncengine.protocol.codes import Code
from syncengine.protocol.handshake import Dialler, Listener
from syncengine.protocol.messages import (
    Ack,
    Data,
    Frontier,
    Idle,
    Leave,
    LinkMessage,
    Notice,
    Open,
    Opened,
    Ready,
    Refusal,
    StateDigest,
    Void,
)
from syncengine.protocol.session import (
    Authenticated,
    Challenged,
    Closed,
    Event,
    Session,
)
from syncengine.protocol.states import State
from syncengine.replication.backoff import Backoff
from syncengine.replication.host import Bell, Host, Hosted, sealed
from syncengine.replication.keeper import NOWHERE, Cursor
from syncengine.replication.peer import Channel
from syncengine.trust.entry import Entry, InvalidEntry, Pending
from syncengine.trust.membership import Grant, Membership, Ops
from syncengine.trust.sealing import Exchange

log = logging.getLogger("syncengine")


class Connection(Protocol):
    """Frames to and from one peer, in order. Transports and the simulator give it."""

    async def send(self, frame: bytes) -> None:
        """Send a frame, waiting while the peer is slow; raises `ConnectionLost`."""
        ...

    async def receive(self) -> bytes:
        """Return the next frame; raises `ConnectionLost`. Safe to cancel."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close; never raises."""
        ...


# One for all: each empty frozenset takes 216 bytes.
_NOTHING_LEFT: frozenset[int] = frozenset()


class Conversation:
    """What both sides of a connection do alike. `run()` is its whole life."""

    def __init__(self, host: Host, connection: Connection, session: Session):
        self.host = host
        self.session = session
        self.device: DeviceId | None = None
        self.channels: dict[int, Channel] = {}
        self.closed: Closed | None = None
        self.problem: SyncError | None = None
        """What of ours ended it."""
        self._left = _NOTHING_LEFT
        self._connection = connection
        self._wake = Bell()
        self._now = asyncio.get_running_loop().time

    async def run(self) -> Closed:
        """Talk until the end; return how it ended. Cancelling closes politely."""
        self._began()
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        except ConnectionLost as error:
            self._end(Closed(Code.GOING_AWAY, str(error), True))
        except asyncio.CancelledError:
            self.session.close(Code.GOING_AWAY, "closing")
            self._end(Closed(Code.GOING_AWAY, "closing", False))
            self._wake.set()
            raise
        except SyncError as error:
            # Our disk, our state: the peer is told only that we go.
            log.warning("link with %s ended: %s", self._peer_name(), error)
            self.problem = error
            self.session.close(Code.GOING_AWAY, "the peer cannot go on")
            self._end(Closed(Code.GOING_AWAY, str(error), False))
        except Exception as error:
            self._end_by_bug(error)
        finally:
            self._leave_all()
            self._wake.set()
            try:
                await self._finish(writer)
            finally:
                self._ended()
        assert self.closed is not None
        return self.closed

    def _began(self) -> None:
        """Overridden by the listener; a coroutine around `run` would take 250 bytes."""

    def _ended(self) -> None:
        """The same, whatever ended it."""

    async def _finish(self, writer: "asyncio.Task[None]") -> None:
        """Let the last frames out, but not for long; then close."""
        try:
            async with asyncio.timeout(1.0):
                await writer
        except (TimeoutError, ConnectionLost):
            writer.cancel()
            await self._connection.close(Code.GOING_AWAY, "closing")

    def _end(self, closed: Closed) -> None:
        if self.closed is None:
            self.closed = closed

    def _peer_name(self) -> str:
        return short(self.device) if self.device else "a stranger"

    # --- reading ------------------------------------------------------------------

    async def _read(self) -> None:
        while self.closed is None:
            await self._hear(await self._connection.receive())

    async def _hear(self, frame: bytes) -> None:
        self.session.receive(frame, self._now())
        for event in self.session.events():
            await self._handle(event)
            if self.closed is not None:
                break
        self._wake.set()

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._end(event)
            return
        try:
            await self._act(event)
        except ProtocolError as error:
            log.warning("link with %s: %s", self._peer_name(), error)
            self.session.close(error.code, str(error))
            self._end(Closed(error.code, str(error), False))

    async def _act(self, event: Event) -> None:
        if getattr(event, "channel", None) in self._left:
            return  # on its way when we left
        match event:
            case Data():
                await self._take_in(self._channel(event.channel), event)
            case Ack():
                channel = self._channel(event.channel)
                channel.acknowledged(event)
                if not channel.hosted.in_flight:
                    channel.hosted.seal_now()
            case Idle():
                self._channel(event.channel).idle_received(event)
            case Frontier():
                self._channel(event.channel).frontier_received(event)
            case Void():
                self._channel(event.channel).void_received()
            case StateDigest():
                channel = self._channel(event.channel)
                channel.hosted.hear_state(event, channel)
            case Notice():
                channel = self._channel(event.channel)
                channel.hosted.hear_notice(event, channel)
            case Leave():
                channel_ = self.channels.pop(event.channel, None)
                if channel_ is not None:
                    self._leave(channel_)
            case _:
                raise ProtocolError(Code.PROTOCOL, "a message out of place")

    def _channel(self, number: int) -> Channel:
        channel = self.channels.get(number)
        if channel is None:
            raise ProtocolError(Code.PROTOCOL, f"channel {number} is not open")
        return channel

    async def _take_in(self, channel: Channel, message: Data) -> None:
        rows = channel.rows_of(message)
        self._check_writes(channel, rows)
        admission = await channel.hosted.take_in(rows)
        if admission.refused:
            raise ProtocolError(Code.INVALID_BATCH, admission.refused[0])
        channel.data_received(
            message, complete=not admission.missing, news=bool(admission.stored)
        )
        on_disk = channel.hosted.flush()
        if not admission.missing:
            on_disk.then(lambda error: self._stored(channel, message, error))

    def _check_writes(self, channel: Channel, rows: list[Row]) -> None:
        """Overridden by the listener, for what a session's grant does not allow."""

    def _stored(self, channel: Channel, message: Data, error: Exception | None) -> None:
        if not channel.is_open:
            return
        if error is not None:
            # Nothing was acknowledged, so the peer sends it again.
            self.session.close(Code.FULL, "the peer cannot write", 30_000)
            self._end(Closed(Code.FULL, str(error), False, 30_000))
        else:
            channel.stored(message)
        self._wake.set()

    # --- writing ------------------------------------------------------------------

    def send(self, message: LinkMessage) -> None:
        """Put a message behind those that wait."""
        self.session.send(message)
        self._wake.set()

    def ask(self) -> None:
        """Find out soon whether the peer is still there."""
        self.session.ask(self._now())
        self._wake.set()

    def wake(self) -> None:
        """Something may have to be sent."""
        self._wake.set()

    async def _write(self) -> None:
        """Send until the end, then close: that also ends a waiting `receive`."""
        try:
            while True:
                if self.session.state is State.LIVE and self.closed is None:
                    for channel in list(self.channels.values()):
                        while channel.is_open and (message := channel.next_message()):
                            self.session.send(message)
                            await self._flush_frames()
                        if channel.is_open and channel.dismissal is not None:
                            self.session.send(channel.dismissal)
                            self._left |= {channel.number}
                            self._leave(self.channels.pop(channel.number))
                await self._flush_frames()
                if self.closed is not None or self.session.state is State.CLOSED:
                    break
                try:
                    async with asyncio.timeout_at(self._deadline()):
                        await self._wake.heard()
                except TimeoutError:
                    self._on_time(self._now())
            closed = self.closed or Closed(Code.GOING_AWAY, "closing", False)
            await self._close_connection(closed)
        except ConnectionLost:
            raise
        except Exception as error:
            self._end_by_bug(error)
            await self._close_connection(Closed(Code.GOING_AWAY, "closing", False))

    def _end_by_bug(self, error: Exception) -> None:
        """Never leave a link that looks alive and does nothing."""
        log.exception("link with %s ended by a bug", self._peer_name())
        self.session.close(Code.GOING_AWAY, "the peer cannot go on")
        self._end(Closed(Code.GOING_AWAY, repr(error), False))

    def _deadline(self) -> float:
        stalled = [channel.stalled_at for channel in self.channels.values()]
        return min([self.session.deadline(), *stalled])

    def _on_time(self, now: float) -> None:
        self.session.on_time(now)
        if any(channel.stalled_at <= now for channel in self.channels.values()):
            self.session.close(Code.SLOW, "a full window was not acknowledged")
        for event in self.session.events():
            if isinstance(event, Closed):
                self._end(event)

    async def _close_connection(self, closed: Closed) -> None:
        await self._connection.close(closed.code, closed.reason)

    async def _flush_frames(self) -> None:
        for frame in self.session.frames_to_send():
            try:
                async with asyncio.timeout(limits.STALLED_SECONDS):
                    await self._connection.send(frame)
            except TimeoutError:
                self._end(Closed(Code.SLOW, "the peer takes no more frames", False))
                await self._close_connection(
                    Closed(Code.SLOW, "the peer takes no more frames", False)
                )
                raise ConnectionLost("the peer takes no more frames") from None

    # --- channels -----------------------------------------------------------------

    def _join(self, channel: Channel) -> None:
        self.session.is_granted = True
        self.channels[channel.number] = channel
        hosted = channel.hosted
        hosted.log_grew.listen(self.wake)
        hosted.opened(channel)
        # With the next commit: that somebody came is no reason for one.
        channel.record.seen_ms = self.host.clock.now_ms()
        hosted.keeper.peer_changed(channel.device)
        self.wake()

    def _leave(self, channel: Channel) -> None:
        channel.is_open = False
        channel.pass_over()
        channel.record.acked = max(channel.record.acked, channel.confirmed)
        hosted = channel.hosted
        hosted.log_grew.unlisten(self.wake)
        hosted.closed(channel)
        hosted.in_flight.discard(channel)
        channel.record.seen_ms = self.host.clock.now_ms()
        hosted.keeper.peer_changed(channel.device)
        hosted.progress.set()
        with contextlib.suppress(ClosedError):
            hosted.flush()

    def _leave_all(self) -> None:
        for channel in self.channels.values():
            self._leave(channel)
        self.channels.clear()


class Dialling(Conversation):
    """The dialler's side: opens namespaces and learns what became of it."""

    def __init__(
        self,
        host: Host,
        connection: Connection,
        wanted: DeviceId | None,
        namespaces: Callable[[], list[Hosted]],
        ticket: bytes | None,
        on_live: Callable[[], None],
        in_use_since: dict[NamespaceId, float],
        on_joined: Callable[[Hosted], None] | None = None,
        on_moved: Callable[[Hosted, Refusal], bool] | None = None,
    ):
        """`on_moved` tells whether somebody follows a namespace to where it moved."""
        exchange = Exchange(host.entropy.bytes(32))
        machine = Dialler(
            host.scheme, host.key, host.entropy.bytes(32), exchange, wanted
        )
        session = Session(machine, asyncio.get_running_loop().time())
        super().__init__(host, connection, session)
        self._namespaces = namespaces
        self._ticket = ticket
        self._on_live = on_live
        self._in_use_since = in_use_since
        self._on_joined = on_joined
        self._on_moved = on_moved
        self._opening: dict[int, tuple[Hosted, Open]] = {}
        self._asking_again: dict[
            NamespaceId, tuple[Backoff, asyncio.TimerHandle, int]
        ] = {}
        self._unwanted: set[int] = set()  # asked for, and left before the answer
        self._next_channel = 0
        self._free: list[int] = []  # the listener says nothing more under these
        self._reopened: set[NamespaceId] = set()
        self._retired: set[NamespaceId] = set()
        self.refusals: dict[NamespaceId, Refusal] = {}

    async def _act(self, event: Event) -> None:
        match event:
            case Challenged():
                self.device = event.listener
                opens: list[Open] = []
                self._later: list[Hosted] = []
                for hosted in self._namespaces():
                    await _settled(hosted)
                    known = hosted.keeper.peer(event.listener).lineage == event.lineage
                    if known and len(opens) < limits.OPENS_IN_AUTH_MAX:
                        opens.append(self._open(hosted, known=True))
                    else:
                        # First contact: the entries that vouch for us come along,
                        # and may be too much for the handshake.
                        self._later.append(hosted)
                self._lineage = event.lineage
                self.session.authenticate(self.host.instance, opens)
            case Ready():
                self.host.told_time(event.now_ms)
                for hosted in self._later:
                    self.send(self._open(hosted, known=False))
                for answer in event.answers:
                    await self._answered(answer)
                self._told()
            case Refusal() if event.channel in self.channels:
                channel = self.channels.pop(event.channel)
                self._leave(channel)
                await self._refused(channel.hosted, None, event)
                self._told()
            case Refusal() if (
                event.channel in self._left and event.channel not in self._opening
            ):
                self._free.append(event.channel)  # dismissed as we left
            case Opened() | Refusal():
                await self._answered(event)
                self._told()
            case _:
                await super()._act(event)

    def open(self, hosted: Hosted) -> None:
        """Open another namespace on a live link, or one anew, under another grant."""
        if self.session.state is not State.LIVE:
            return
        if not self._free and self._next_channel >= limits.NAMESPACES_PER_LINK_MAX:
            self.session.close(Code.GOING_AWAY, "all channels were used")
            self.wake()
            return
        self.leave(hosted)
        self.send(self._open(hosted, known=False))

    def leave(self, hosted: Hosted) -> None:
        """Carry a namespace no more, nor ask for it."""
        self._ask_no_more(hosted.keeper.namespace)
        for number, (asked, _) in self._opening.items():
            if asked is hosted:
                self._unwanted.add(number)
        for number, channel in list(self.channels.items()):
            if channel.hosted is hosted:
                self.send(Leave(number))
                self._left |= {number}
                self._leave(self.channels.pop(number))

    def _ask_no_more(self, namespace: NamespaceId) -> None:
        asking = self._asking_again.pop(namespace, None)
        if asking is not None:
            asking[1].cancel()
            if asking[2] not in self._opening:
                self._free.append(asking[2])

    def waits(self, hosted: Hosted) -> bool:
        """Tell whether a namespace is to be asked for again."""
        return hosted.keeper.namespace in self._asking_again

    def carried(self) -> list[Hosted]:
        """Return the namespaces that are open, or asked for."""
        asked = [hosted for hosted, _ in self._opening.values()]
        return [channel.hosted for channel in self.channels.values()] + asked

    def channel_of(self, hosted: Hosted) -> Channel | None:
        """Return the open channel of a namespace."""
        return next((c for c in self.channels.values() if c.hosted is hosted), None)

    def asks(self, hosted: Hosted) -> bool:
        """Tell whether the peer was asked for a namespace, and has not answered."""
        return any(asked is hosted for asked, _ in self._opening.values())

    def _told(self) -> None:
        """Tell the link how it stands, once everything asked is answered."""
        if not self._opening:
            self._on_live()

    def _ask_later(self, hosted: Hosted, channel: int) -> None:
        """Ask for a namespace again: the peer may have heard of it by then."""
        namespace = hosted.keeper.namespace
        known = self._asking_again.get(namespace)
        backoff = known[0] if known else Backoff(self.host.entropy)
        if known:
            known[1].cancel()
        timer = asyncio.get_running_loop().call_later(
            backoff.next_seconds(), self._ask_again, hosted, channel
        )
        self._asking_again[namespace] = backoff, timer, channel

    def _ask_again(self, hosted: Hosted, channel: int) -> None:
        if self.session.state is State.LIVE and self.closed is None:
            self.send(self._open(hosted, known=False, channel=channel))

    def _leave_all(self) -> None:
        for _, timer, _ in self._asking_again.values():
            timer.cancel()
        super()._leave_all()

    def _open(self, hosted: Hosted, *, known: bool, channel: int | None = None) -> Open:
        assert self.device is not None
        keeper = hosted.keeper
        record = keeper.peer(self.device)
        actor = hosted.actor
        head = keeper.heads.get(actor) if actor else None
        membership = keeper.membership
        device = DeviceId(self.host.key.public)
        grant = membership.grant_of(device) or _own_link(membership, device)
        entries: list[tuple[int, bytes, bytes]] = []
        if not known and grant is not None:
            entries = [
                (entry.kind, entry.body, entry.signature)
                for entry in membership.chain(grant)
            ]
        elif not known and actor is None:  # a hub's: what the namespace's id is of
            founding = membership.entries.get(EntryId(keeper.namespace))
            if founding is not None:
                entries = [(founding.kind, founding.body, founding.signature)]
        number = channel
        if number is None and self._free:
            number = self._free.pop()
        if number is None:
            number = self._next_channel
            self._next_channel += 1
        message = Open(
            number,
            keeper.namespace,
            grant,
            actor,
            head.seq if head else 0,
            head.id if head else None,
            self.host.lineage,
            keeper.position,
            record.cursor if known else None,
            keeper.digest(),
            entries,
            None if known else self._ticket,
        )
        self._opening[number] = (hosted, message)
        return message

    async def _answered(self, answer: Opened | Refusal) -> None:
        opening = self._opening.pop(answer.channel, None)
        if opening is None:
            raise ProtocolError(Code.PROTOCOL, "an answer to no question")
        hosted, asked = opening
        assert self.device is not None
        if answer.channel in self._unwanted:
            self._unwanted.discard(answer.channel)
            if isinstance(answer, Refusal):
                self._free.append(answer.channel)
            else:
                self.send(Leave(answer.channel))
                self._left |= {answer.channel}
            return
        if isinstance(answer, Refusal):
            await self._refused(hosted, asked, answer)
            return
        self._in_use_since.pop(hosted.keeper.namespace, None)
        self._left -= {answer.channel}
        self.refusals.pop(hosted.keeper.namespace, None)
        asking = self._asking_again.pop(hosted.keeper.namespace, None)
        if asking is not None:
            asking[1].cancel()
        if hosted.actor is not None and hosted.actor == asked.actor:
            head = hosted.keeper.heads.get(hosted.actor)
            seq = head.seq if head else 0
            ahead = answer.head_seq > seq
            other = answer.head_seq == seq and answer.head not in (
                None,
                head.id if head else None,
            )
            if ahead or other:
                # The peer has changes of ours that we do not: we are a restored
                # backup or a copy, and must not write under this actor again.
                self.send(Leave(answer.channel))
                self._left |= {answer.channel}
                await self._retire(hosted)
                return
        record = hosted.keeper.peer(self.device)
        if asked.cursor is None:
            record.lineage = self._lineage
            record.cursor = NOWHERE
            record.acked = 0
        channel = Channel(answer.channel, hosted, self.device, may_read=True)
        channel.begin(
            theirs=answer.cursor,
            ours=None if asked.cursor is None else Cursor(*asked.cursor),
            position=answer.position,
            digest=answer.digest,
            told=(asked.position, asked.digest),
        )
        self._join(channel)
        if self._on_joined is not None:
            self._on_joined(hosted)

    async def _refused(
        self, hosted: Hosted, asked: Open | None, answer: Refusal
    ) -> None:
        """The listener refused what was `asked`, or dismisses what it had granted."""
        namespace = hosted.keeper.namespace
        follow = self._on_moved if answer.code == Code.MOVED else None
        if follow is not None and follow(hosted, answer):
            self._free.append(answer.channel)
            return
        if answer.code == Code.ACTOR_IN_USE:
            # Our own connection from before a crash, until the listener gives it
            # up; a clone, if it goes on longer than that.
            since = self._in_use_since.setdefault(namespace, self._now())
            if self._now() - since > limits.SILENCE_SECONDS_MAX + limits.PING_SECONDS:
                del self._in_use_since[namespace]
                await self._retire(hosted)
                return
        elif (
            answer.code in (Code.NOT_GRANTED, Code.NO_NAMESPACE)
            and asked is not None
            and not asked.entries
            and namespace not in self._reopened
        ):
            # It does not know our grant, or the namespace, (any more): show all of it.
            self._reopened.add(namespace)
            self.send(self._open(hosted, known=False, channel=answer.channel))
            return
        self.refusals[namespace] = answer
        hosted.progress.set()
        if answer.retry == "later":
            self._ask_later(hosted, answer.channel)

    async def _retire(self, hosted: Hosted) -> None:
        """Become a new actor, and ask again."""
        if hosted.keeper.namespace in self._retired:
            raise ProtocolError(Code.ACTOR_IN_USE, "the new actor is in use too")
        self._retired.add(hosted.keeper.namespace)
        log.warning("this replica was restored or copied: it goes on as a new actor")
        await hosted.retire_actor()
        self.send(self._open(hosted, known=False))


async def _settled(hosted: Hosted) -> None:
    """Wait until what a dead connection brought is on disk: the cursor that is told
    now counts as an acknowledgement."""
    if hosted.keeper.position != hosted.committed_position:
        await hosted.flush()


def _own_link(membership: Membership, device: DeviceId) -> EntryId | None:
    """Return the link that this device gave itself, while its parents are unknown."""
    for name, link in reversed(membership.grants.items()):
        if link.subject == device and not link.is_invite:
            return name
    return None


class Listening(Conversation):
    """The listener's side: judges who may do what on this link."""

    def __init__(self, host: Host, connection: Connection, registry: "Registry"):
        exchange = Exchange(host.entropy.bytes(32))
        machine = Listener(
            host.scheme, host.key, host.entropy.bytes(32), exchange, host.lineage
        )
        session = Session(machine, asyncio.get_running_loop().time())
        super().__init__(host, connection, session)
        self.instance = b""
        self._registry = registry
        self._grants: dict[int, Grant] = {}

    def _began(self) -> None:
        self._registry.add(self)

    def _ended(self) -> None:
        self._registry.remove(self)

    async def _close_connection(self, closed: Closed) -> None:
        if closed.code == Code.AUTHENTICATION:
            # All failures look alike, and cost the same to find out about.
            jitter = self.host.entropy.bytes(1)[0] / 255
            await asyncio.sleep(0.05 + 0.1 * jitter)
            closed = Closed(closed.code, "authentication failed", False)
        await super()._close_connection(closed)

    async def _act(self, event: Event) -> None:
        match event:
            case Authenticated():
                self.device = DeviceId(event.auth.device)
                self.instance = event.auth.instance
                self._registry.authenticated(self)
                answers: list[Opened | Refusal] = []
                begun: list[Channel] = []
                for request in event.auth.opens:
                    answers.append(await self._judged(request, begun))
                self.session.accept(
                    self.host.entropy.bytes(16), self.host.clock.now_ms(), answers
                )
                for channel in begun:
                    self._join(channel)
            case Open():
                self._left -= {event.channel}
                begun = []
                self.send(await self._judged(event, begun))
                for channel in begun:
                    self._join(channel)
            case _:
                await super()._act(event)

    async def _judged(self, request: Open, begun: list[Channel]) -> Opened | Refusal:
        try:
            return await self._grant(request, begun)
        except Refused as refused:
            return Refusal(
                request.channel,
                refused.code,
                refused.reason,
                refused.retry,
                refused.effect,
                refused.address if isinstance(refused, Moved) else None,
            )

    async def _grant(self, request: Open, begun: list[Channel]) -> Opened:
        device = self.device
        assert device is not None
        if request.channel in self.channels:
            raise ProtocolError(Code.PROTOCOL, "a channel is opened twice")
        self.host.check_home(request, device)
        hosted = self.host.find(NamespaceId(request.namespace))
        if hosted is None:
            hosted = self.host.admit(request, device)
        entries = [Entry(*entry) for entry in request.entries]
        check_invites(hosted.keeper.membership, entries, self.host.clock.now_ms())
        if entries:
            admission = await hosted.take_in(entries)
            if admission.refused:
                raise Refused(Code.NOT_GRANTED, admission.refused[0])
            if admission.stored:
                await hosted.flush()
        await _settled(hosted)
        grant = self.host.rights_of_fellow(request, device) or self._rights(
            hosted.keeper.membership, request, device
        )
        self._check_clone(hosted, request)
        await sealed(hosted)
        keeper = hosted.keeper
        record = keeper.peer(device)
        ours: Cursor | None = record.cursor
        if record.lineage != request.lineage:
            record.lineage = request.lineage  # type: ignore[assignment]  # 16 bytes, checked
            record.cursor, record.acked = NOWHERE, 0
            keeper.peer_changed(device)
            ours = None
        may_read = bool(grant.ops & Ops.READ)
        channel = Channel(request.channel, hosted, device, may_read=may_read)
        told = (hosted.committed_position, keeper.digest())
        channel.begin(
            theirs=request.cursor,
            ours=ours,
            position=request.position,
            digest=request.digest,
            told=told,
        )
        self._grants[request.channel] = grant
        begun.append(channel)
        head = keeper.heads.get(request.actor) if request.actor else None  # type: ignore[call-overload]  # 16 bytes
        return Opened(
            request.channel,
            grant.ops,
            told[0],
            ours,
            told[1],
            head.seq if head else 0,
            head.id if head else None,
        )

    def _rights(self, membership: Membership, request: Open, device: DeviceId) -> Grant:
        name = EntryId(request.grant) if request.grant else None
        try:
            if name is None:
                raise Pending("no grant was shown")
            grant = membership.rights(name)
        except Pending as error:
            known = name in membership.grants
            raise Refused(
                Code.NOT_GRANTED,
                "the invite that this device joined by has not arrived here yet; the "
                "device that made it must connect first"
                if known
                else "this device has no grant for this namespace; ask a member for "
                "an invite",
                retry="later" if known else "after_action",
            ) from error
        except InvalidEntry as error:
            raise Refused(
                Code.NOT_GRANTED,
                f"this device has no grant for this namespace ({error}); ask a member "
                "for an invite",
                retry="after_action",
            ) from error
        now = self.host.clock.now_ms()
        if grant.subject != device:
            raise Refused(Code.NOT_GRANTED, "the grant shown is another device's")
        if grant.expires_ms is not None and grant.expires_ms < now:
            raise Refused(
                Code.NOT_GRANTED,
                "the grant has expired; ask for a new one",
                retry="after_action",
            )
        return grant

    def _check_clone(self, hosted: Hosted, request: Open) -> None:
        """Two running copies must not write as one actor."""
        if request.actor is None:
            return
        other = self._registry.holder(hosted.keeper.namespace, request.actor)
        if other is None or other is self:
            pass
        elif other.instance == self.instance:
            other.session.close(Code.GOING_AWAY, "replaced by a newer connection")
            other.wake()
        else:
            other.ask()
            raise Refused(
                Code.ACTOR_IN_USE,
                "another running copy of this replica writes under the same actor",
                retry="later",
            )
        self._registry.hold(hosted.keeper.namespace, request.actor, self)

    def _check_writes(self, channel: Channel, rows: list[Row]) -> None:
        if self._grants[channel.number].ops & Ops.WRITE:
            return
        # It may have been granted more since it came.
        membership = channel.keeper.membership
        now = membership.grant_of(channel.device)
        if now is not None and membership.grants[now].ops & Ops.WRITE:
            self._grants[channel.number] = membership.grants[now]
            return
        for row in rows:
            if not isinstance(row, Entry):
                raise ProtocolError(
                    Code.NOT_GRANTED, "this device may read but not write here"
                )


def check_invites(membership: Membership, entries: list[Entry], now_ms: int) -> None:
    """Raise `Refused` when an entry joins by an invite that is expired or used.

    First use wins: whoever this keeper knows to have joined goes on.
    """
    for entry in entries:
        if entry.kind != 2:
            continue
        try:
            _, link = membership.parse(entry)
        except InvalidEntry as error:
            raise Refused(Code.NOT_GRANTED, str(error)) from error
        if not isinstance(link, Grant) or link.parent is None:
            continue
        invite = membership.grants.get(link.parent)
        if invite is None or not invite.is_invite:
            continue
        joined = membership.joined_by(link.parent)
        if link.subject in joined:
            continue
        if invite.accept_by_ms is not None and now_ms > invite.accept_by_ms:
            raise Refused(
                Code.INVITE_EXPIRED, "this invite has expired; ask for a new one"
            )
        if len(joined) >= (invite.uses or 1):
            raise Refused(
                Code.INVITE_USED,
                "somebody joined with this invite before; ask for a new one",
            )


class Registry:
    """The listening conversations of one host."""

    def __init__(self) -> None:
        self.all: set[Listening] = set()
        self._actors: dict[tuple[NamespaceId, bytes], Listening] = {}

    def add(self, conversation: Listening) -> None:
        self.all.add(conversation)

    def remove(self, conversation: Listening) -> None:
        self.all.discard(conversation)
        for key in [k for k, held in self._actors.items() if held is conversation]:
            del self._actors[key]

    @property
    def unauthenticated_count(self) -> int:
        return sum(conversation.device is None for conversation in self.all)

    def authenticated(self, conversation: Listening) -> None:
        """Count a device's connections; raises `ProtocolError` beyond the limit."""
        device = conversation.device
        count = sum(other.device == device for other in self.all)
        if count > limits.CONNECTIONS_PER_DEVICE_MAX:
            raise ProtocolError(Code.RATE, "too many connections of one device")

    def holder(self, namespace: NamespaceId, actor: bytes) -> Listening | None:
        return self._actors.get((namespace, actor))

    def hold(self, namespace: NamespaceId, actor: bytes, holder: Listening) -> None:
        self._actors[(namespace, actor)] = holder
