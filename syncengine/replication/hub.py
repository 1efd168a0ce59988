"""A hub: relays any number of namespaces, from one file, without reading them.

It keeps logs as every replica does and checks what a relay can check. It never
imports `syncengine.crdt`: documents are none of its business.
"""

import asyncio
from collections.abc import Callable, Iterable
from hmac import compare_digest
from types import TracebackType
from typing import Literal

from syncengine.clock import Clock, Entropy
from syncengine.errors import Invalid, Refused, SyncError, WrongLoop
from syncengine.ids import ActorId, DeviceId, NamespaceId
from syncengine.log.run import Row
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Notice, Open, StateDigest
from syncengine.replication.address import TICKET_BYTES
from syncengine.replication.host import Signal, Told
from syncengine.replication.keeper import Admission, Keeper
from syncengine.replication.notices import Known, hand_on
from syncengine.replication.opening import Opened
from syncengine.replication.pace import Pace
from syncengine.replication.writer import Flush, Writer
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.trust.entry import Entry, Kind
from syncengine.trust.keys import PrivateKey, Scheme
from syncengine.trust.membership import namespace_id

Admit = Literal["ticket", "anyone"] | Callable[[NamespaceId, DeviceId], bool]


# Who writes waits for what is in flight; a hub does not write, in any namespace.
_UNUSED: set[object] = set()


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
            raise asyncio.CancelledError
        return admission

    def flush(self) -> Flush:
        return self._writer.flush(self)

    def ready_to_collect(self) -> bool:
        return True

    def collect(self, writes: Writes) -> int:
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
        self._failures += 1
        self.keeper.load()

    _failures = 0

    def opened(self, channel: Told) -> None:
        self.channels.append(channel)

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
        for channel in self.channels:
            if channel is not source:
                channel.tell(message)
        self.log_grew.set()

    def hear_notice(self, message: Notice, source: Told) -> None:
        if self._known is None:
            self._known = Known()
        if self._known.is_new(message):
            hand_on(message, self.channels, source)
            self.log_grew.set()

    _known: Known | None = None


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
        for ns, name in self.store.read("SELECT ns, id FROM _sync_namespace"):
            self._add(ns, NamespaceId(name))

    def _add(self, ns: int, namespace: NamespaceId, *, is_new: bool = False) -> Relay:
        keeper = Keeper(self.store, ns, namespace, self.lineage, self.scheme)
        keeper.load()
        relay = Relay(keeper, self.writer, self.key, self.clock, is_new=is_new)
        self._relays[namespace] = relay
        return relay

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
        if self._admit == "anyone":
            return True
        if self._admit == "ticket":
            return compare_digest(request.ticket or b"", self.ticket or b"-")
        return self._admit(namespace, device)

    def told_time(self, now_ms: int) -> None:
        raise AssertionError("a hub does not dial")


def check_admit(admit: Admit) -> Admit:
    """Raise `Invalid` unless `admit` is a policy."""
    if admit not in ("ticket", "anyone") and not callable(admit):
        raise Invalid('admit is "ticket", "anyone" or a function')
    return admit
