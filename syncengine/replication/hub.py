"""A hub: relays any number of namespaces, from one file, without reading them.

It keeps logs as every replica does and checks what a relay can check. It never
imports `syncengine.crdt`: documents are none of its business.
"""

import asyncio
from collections.abc import Callable, Iterable
from hmac import compare_digest
from types import TracebackType
from typing import Literal

from syncengine import limits
from syncengine.clock import Clock, Entropy
from syncengine.errors import Closed, Invalid, Refused, SyncError, WrongLoop
from syncengine.ids import ActorId, DeviceId, NamespaceId
from syncengine.log.run import Row
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Notice, Open, Refusal, StateDigest
from syncengine.replication.address import TICKET_BYTES
from syncengine.replication.host import Signal, Told
from syncengine.replication.keeper import Admission, Keeper
from syncengine.replication.link import Link
from syncengine.replication.moving import MOVED_TEXT, Moves
from syncengine.replication.notices import Known, Notices, hand_on
from syncengine.replication.opening import Opened
from syncengine.replication.pace import Pace, finished
from syncengine.replication.writer import Flush, Writer
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.trust.entry import Entry, Kind
from syncengine.trust.keys import PrivateKey, Scheme
from syncengine.trust.membership import Grant, namespace_id

Admit = Literal["ticket", "anyone"] | Callable[[NamespaceId, DeviceId], bool]


# Who writes waits for what is in flight; a hub does not write, in any namespace.
_UNUSED: set[object] = set()


def _nobody(_: DeviceId) -> bool:
    return False


class Relay:
    """One namespace at a hub."""

    def __init__(
        self,
        keeper: Keeper,
        writer: Writer,
        key: PrivateKey,
        clock: Clock,
        *,
        is_new: bool,
    ):
        self.keeper = keeper
        self.is_fellow: Callable[[DeviceId], bool] = _nobody
        self._clock = clock
        self._is_new = is_new  # no file knows it yet
        self.committed_position = keeper.position
        self.channels: list[Told] = []
        self.in_flight = _UNUSED
        self.log_grew = Signal()
        self.progress = Signal()
        self._writer = writer
        self._key = key

    actor: ActorId | None = None

    async def take_in(self, rows: Iterable[Row]) -> Admission:
        admission = Admission()
        pace = Pace()
        failures = self._failures
        for _ in self.keeper.admitting(rows, admission):
            await pace.pause()
            if self._failures != failures:
                raise SyncError("a disk write failed; what was coming in comes again")
        if admission.forks:
            self.keeper.tell_forks(self._key)
        if pace.cancelled:
            self.flush()
            pace.raise_cancelled()
        return admission

    def flush(self) -> Flush:
        if self.is_deleted:
            raise Closed("this hub deleted its copy of this namespace")
        return self._writer.flush(self)

    is_ending = False
    """Whether the next commit takes all of it out of the file"""
    is_deleted = False

    def ready_to_collect(self) -> bool:
        return True

    def collect(self, writes: Writes) -> int:
        if self.is_ending:
            for statement in sql.CLEAR_RELAY:
                writes.add(statement, self.keeper.ns)
            return self.keeper.position
        if self._is_new:
            row = (self.keeper.ns, self.keeper.namespace, None, None)
            writes.clear(sql.ADD_NAMESPACE, *row)
        self.keeper.collect(writes, self._clock.now_ms())
        writes.add(sql.SET_POSITION, self.keeper.position, self.keeper.ns)
        return self.keeper.position

    def committed(self, token: int) -> None:
        self._is_new = False
        self.keeper.committed()
        self.committed_position = token
        self.log_grew.set()
        self.progress.set()

    def failed(self, error: Exception) -> None:
        self.is_ending = False
        self._failures += 1
        self.keeper.load()

    _failures = 0

    def opened(self, channel: Told) -> None:
        self.channels.append(channel)
        self.send_on(channel)

    def send_on(self, channel: Told) -> None:
        """Send a member to where the namespace moved, if it did."""
        if self.moved is not None and not self.is_fellow(channel.device):
            said = (0, Code.MOVED, MOVED_TEXT, "after_action", "none", self.moved[0])
            channel.dismiss(Refusal(*said))
            self.log_grew.set()

    def closed(self, channel: Told) -> None:
        self.channels.remove(channel)

    def seal_now(self, *, ahead: bool = False) -> None:
        """A hub writes no changes of its own."""

    @property
    def is_sealed(self) -> bool:
        return True

    async def retire_actor(self) -> None:
        raise AssertionError("a hub has no actor")

    def hear_state(self, message: StateDigest, source: Told) -> None:
        # Each hub of a fleet has a link to each other one: whoever hands on to all what
        # one of them handed on, never ends.
        was_handed_on = self.is_fellow(source.device)
        for channel in self.channels:
            if channel is not source and not (
                was_handed_on and self.is_fellow(channel.device)
            ):
                channel.tell(message)
        self.log_grew.set()

    def hear_notice(self, message: Notice, source: Told) -> None:
        if self.notices is not None:
            self.notices.hear(message, source)
            return
        if self._known is None:
            self._known = Known()
        if self._known.is_new(message):
            hand_on(message, self.channels, source)
            self.log_grew.set()

    _known: Known | None = None
    notices: Notices | None = None
    """What a hub says itself, in the namespace of its fleet"""

    moved: tuple[str, int] | None = None
    """(address, when in ms) where another hub of the fleet keeps it"""
    is_new_home_verified = False
    """Whether that one was seen to have all of it"""

    def log_bytes(self) -> int:
        """Return the size of its log; each row is looked at once."""
        position, size = self._measured
        end = self.committed_position
        if position < end:
            store, ns = self.keeper.store, self.keeper.ns
            ((more,),) = store.read(sql.LOG_BYTES, ns, position, end)
            self._measured = end, size + more
        return self._measured[1]

    _measured = 0, 0


class Hub:
    """Keeps and relays logs. Make one with `syncengine.open_hub`."""

    def __init__(
        self,
        opened: Opened,
        *,
        clock: Clock,
        entropy: Entropy,
        scheme: Scheme,
        admit: Admit,
        fleet: NamespaceId | None = None,
        keep_moved: float = limits.MOVED_KEEP_SECONDS,
    ):
        self._opened = opened
        self.store = opened.store
        self.key = opened.key
        self.lineage = opened.lineage
        self.clock = clock
        self.entropy = entropy
        self.scheme = scheme
        self.instance = entropy.bytes(16)
        self._admit: Admit = admit
        self.writer = Writer(opened.store)
        self._task = asyncio.create_task(self.writer.run())
        self._relays: dict[NamespaceId, Relay] = {}
        self.moves: Moves | None = None
        """This hub's part in its fleet; the server that serves it starts it"""
        if fleet is not None:
            self.moves = Moves(self, fleet, keep_moved)
        for ns, name, address, at in self.store.read(sql.RELAYS, self.key.public):
            relay = self._add(ns, NamespaceId(name))
            relay.moved = None if address is None else (address, at)

    def _add(self, ns: int, namespace: NamespaceId, *, is_new: bool = False) -> Relay:
        keeper = Keeper(self.store, ns, namespace, self.lineage, self.scheme)
        keeper.load()
        relay = Relay(keeper, self.writer, self.key, self.clock, is_new=is_new)
        if self.moves is not None:
            relay.is_fellow = self.moves.is_fellow
        self._relays[namespace] = relay
        if self.moves is not None:
            self.moves.took_in(relay)
        return relay

    def relays(self) -> list[Relay]:
        """Return all namespaces that are here."""
        return list(self._relays.values())

    async def forget(self, relay: Relay) -> None:
        """Delete a namespace that nobody has open; all of it stays where it fails."""
        del self._relays[relay.keeper.namespace]
        relay.is_ending = True  # behind all of it that is on its way to the disk
        try:
            cancelled = await finished(relay.flush())
        except BaseException:
            self._relays[relay.keeper.namespace] = relay
            raise
        relay.is_deleted = True
        self.writer.drop(relay)
        if cancelled:
            raise asyncio.CancelledError

    # --- life ---------------------------------------------------------------------

    async def __aenter__(self) -> "Hub":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def check_usable(self) -> None:
        """Raise `WrongLoop` unless in the loop that opened it."""
        if asyncio.get_running_loop() is not self._task.get_loop():
            raise WrongLoop("a hub belongs to the event loop that opened it")

    async def close(self) -> None:
        """Write what is left and close the file."""
        if self.moves is not None:
            await self.moves.stop()
        self.writer.close()
        await self._task
        await self._opened.close()

    # --- as links see it ----------------------------------------------------------

    @property
    def id(self) -> DeviceId:
        """The key that addresses pin."""
        return DeviceId(self.key.public)

    @property
    def ticket(self) -> bytes | None:
        """What a newcomer's address must hold to bring a namespace here."""
        if self._admit != "ticket":
            return None
        rows = self.store.read("SELECT value FROM _sync_meta WHERE key = 'ticket'")
        return rows[0][0] if rows else None

    async def make_ticket(self) -> None:
        """Draw the ticket, once in the life of the file."""
        if self._admit == "ticket" and self.ticket is None:
            writes = Writes()
            writes.add(sql.PUT_META, "ticket", self.entropy.bytes(TICKET_BYTES))
            await self.store.commit(writes)

    def find(self, namespace: NamespaceId) -> Relay | None:
        return self._relays.get(namespace)

    def admit(self, request: Open, device: DeviceId) -> Relay:
        namespace = NamespaceId(request.namespace)
        if self.moves is not None and namespace in self.moves.deleting:
            raise Refused(
                Code.NO_NAMESPACE,
                "this hub is deleting its copy of this namespace",
                retry="later",
            )
        genesis = next(
            (Entry(*entry) for entry in request.entries if entry[0] == Kind.GENESIS),
            None,
        )
        if genesis is None or namespace_id(genesis) != namespace:
            raise Refused(
                Code.NO_NAMESPACE,
                "this hub does not have this namespace yet; it will once the device "
                "that made it connects",
                retry="later",
            )
        if not self._admits(request, namespace, device):
            if self.moves is not None:
                raise Refused(
                    Code.NO_NAMESPACE,
                    "this hub does not have this namespace yet: another one of its "
                    "fleet may, or a device with this hub's whole address",
                    retry="later",
                )
            raise Refused(
                Code.NOT_GRANTED,
                "this hub admits a new namespace only by its ticket; connect with the "
                "whole address that the hub printed",
                retry="after_action",
            )
        ((last,),) = self.store.read("SELECT max(ns) FROM _sync_namespace")
        used = max(
            last or 0,
            max((relay.keeper.ns for relay in self._relays.values()), default=0),
        )
        return self._add(used + 1, namespace, is_new=True)

    def _admits(self, request: Open, namespace: NamespaceId, device: DeviceId) -> bool:
        if self.moves is not None and self.moves.rights(namespace, device) is not None:
            return True
        if self._admit == "anyone":
            return True
        if self._admit == "ticket":
            return self._is_ticket(request)
        return self._admit(namespace, device)

    def _is_ticket(self, request: Open) -> bool:
        return compare_digest(request.ticket or b"", self.ticket or b"-")

    # --- of a fleet ---------------------------------------------------------------

    def check_home(self, request: Open, device: DeviceId) -> None:
        """Raise `Moved` where another hub of the fleet keeps the namespace."""
        if self.moves is not None:
            namespace = NamespaceId(request.namespace)
            has_ticket = request.ticket is not None and self._is_ticket(request)
            self.moves.check_home(namespace, device, has_ticket=has_ticket)

    def rights_of_fellow(self, request: Open, device: DeviceId) -> Grant | None:
        if self.moves is None:
            return None
        return self.moves.rights(NamespaceId(request.namespace), device)

    # --- as its links to other hubs see it ------------------------------------------

    def link_began(self, link: Link) -> None:
        self.check_usable()

    def link_ended(self, link: Link) -> None: ...

    async def flush_all(self) -> None:
        for relay in self._relays.values():
            await relay.flush()

    def homes(self, hub: DeviceId) -> dict[NamespaceId, str]:
        return {}

    async def keep_home(
        self, namespace: NamespaceId, hub: DeviceId, address: str | None
    ) -> None: ...

    def told_time(self, now_ms: int) -> None:
        """Hubs keep good time, or their operator sees it in their logs."""


def check_admit(admit: Admit) -> Admit:
    """Raise `Invalid` unless `admit` is a policy."""
    if admit not in ("ticket", "anyone") and not callable(admit):
        raise Invalid('admit is "ticket", "anyone" or a function')
    return admit
