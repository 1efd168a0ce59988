"""A hub's part in its fleet: it keeps what is at home here, and moves what is not.

A move is what a link does anyway: the hub dials the new home and sends what that lacks,
row by row, from a cursor. Then it **copies** until the other is close behind,
**switches** (a row on its disk; from then on it takes nothing more from members and
sends them there), **verifies** (both hold the same, by digest), keeps its copy for a
while, verifies again, and **deletes**. Whatever ends in between goes on where it was:
nothing is deleted that the new home has not just shown to have. Two homes at once,
while hubs know different placements, harm nothing: each hands on what it gets.
"""

import asyncio
import contextlib
import logging
import math
from typing import TYPE_CHECKING

from syncengine import limits
from syncengine.errors import Moved, SyncError
from syncengine.ids import DeviceId, NamespaceId, partition_of, short
from syncengine.protocol.codes import Code
from syncengine.protocol.fleets import Load, LoadAsked, decode, encode
from syncengine.replication.address import address_of
from syncengine.replication.backoff import Backoff
from syncengine.replication.conversation import Dialling
from syncengine.replication.host import Bell, Hosted
from syncengine.replication.link import Dial, Link
from syncengine.replication.notices import Notices
from syncengine.replication.pace import Pace
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.trust.membership import EVERYTHING, Grant, Membership, Ops
from syncengine.trust.placement import HubRecord, Placement

if TYPE_CHECKING:
    from syncengine.replication.hub import Hub, Relay

log = logging.getLogger("syncengine")

MOVED_TEXT = "another hub of the fleet keeps this namespace now"


class Moves:
    """What one hub does for its fleet, besides relaying."""

    def __init__(self, hub: "Hub", fleet: NamespaceId, keep_seconds: float):
        self.fleet = fleet
        self._hub = hub
        self._me = DeviceId(hub.key.public)
        self._keep_ms = int(keep_seconds * 1000)
        self._dial: Dial | None = None
        self._placement: Placement | None = None
        self._known: tuple[Placement | None, frozenset[DeviceId]] = None, frozenset()
        self._known_for: tuple[Membership | None, int] = None, 0
        self._links: dict[DeviceId, Link] = {}
        self._refused: dict[DeviceId, tuple[float, Backoff]] = {}  # until when
        self._away: dict[DeviceId, dict[NamespaceId, Relay]] = {}
        self._listening: set[Relay] = set()
        self._put_off: dict[NamespaceId, float] = {}  # until when
        self._bell = Bell()
        self._task: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self.deleting: set[NamespaceId] = set()

    # --- life ---------------------------------------------------------------------

    def start(self, dial: Dial) -> None:
        """Begin to keep links to the other hubs, and to move."""
        self._dial = dial
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the links; moves go on from there when started again."""
        task, self._task = self._task, None
        tasks = [one for one in (task, *self._answering) if one is not None]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links.values():
            await link.close()
        self._links.clear()
        self._placement = None
        for relay in list(self._listening):
            self._unlisten(relay)

    def took_in(self, relay: "Relay") -> None:
        """The hub has a namespace that it did not have before."""
        if relay.keeper.namespace == self.fleet:
            hub = self._hub
            relay.notices = Notices(relay.keeper, hub.key, hub.entropy, relay)
            relay.notices.listeners.append(self._heard)
            relay.log_grew.listen(self._bell.set)
            relay.progress.listen(self._bell.set)
        elif self._placement is not None:
            self._sort_out(relay, self._placement)
        self._bell.set()

    # --- who keeps what -----------------------------------------------------------

    def placement(self) -> Placement | None:
        """Return where partitions are at home, as far as this hub knows."""
        return self._what_counts()[0]

    def is_fellow(self, device: DeviceId) -> bool:
        """Tell whether a device is, or was, a hub of this fleet."""
        return device in self._what_counts()[1]

    def _what_counts(self) -> tuple[Placement | None, frozenset[DeviceId]]:
        fleet = self._hub.find(self.fleet)
        if fleet is not None:
            membership = fleet.keeper.membership
            state = membership, len(membership.entries)
            if self._known_for != state:
                hubs = frozenset(
                    hub.device
                    for _, _, said in membership.good_placements()
                    for hub in said.hubs
                )
                self._known, self._known_for = (membership.placement(), hubs), state
        return self._known

    def rights(self, namespace: NamespaceId, device: DeviceId) -> Grant | None:
        """Return what a hub of the fleet may do in members' namespaces."""
        if namespace == self.fleet or not self.is_fellow(device):
            return None
        ops = Ops.RELAY | Ops.READ | Ops.WRITE
        return Grant(
            issuer=device,
            parent=None,
            subject=device,
            ops=ops,
            scope=EVERYTHING,
            not_before_ms=None,
            expires_ms=None,
            depth=0,
            is_invite=False,
            accept_by_ms=None,
            uses=None,
        )

    def check_home(
        self, namespace: NamespaceId, device: DeviceId, *, has_ticket: bool
    ) -> None:
        """Raise `Moved` where a member should go to another hub."""
        if namespace == self.fleet or self.is_fellow(device):
            return
        relay = self._hub.find(namespace)
        placement = self.placement()
        home = placement.home_of(namespace) if placement is not None else None
        if relay is not None and relay.moved is None:
            return  # until the other has what is here
        if home is not None and home.device != self._me:
            address = address_of(home)
            text = str(address) if has_ticket else address.without_ticket
            raise Moved(Code.MOVED, MOVED_TEXT, address=text)

    # --- moving -------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                wait = await self._step()
            except (SyncError, OSError) as error:
                log.warning("moving namespaces waits: %s", error)
                wait = limits.STORE_RETRY_SECONDS
            except Exception:
                log.exception("moving namespaces: a bug")
                wait = limits.STORE_RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else wait):
                    await self._bell.heard()

    async def _step(self) -> float:
        """Do what can be done now; return in how many seconds to look again."""
        placement = self.placement()
        if placement is None or not self.is_fellow(self._me):
            return math.inf  # not of the fleet, yet
        if placement is not self._placement:
            self._placement = placement  # of what is taken in meanwhile, too
            try:
                await self._replaced(placement)
            except BaseException:
                self._placement = None  # to be done again
                raise
        wait = math.inf
        for hub in placement.hubs:
            link = self._links.get(hub.device)
            if link is None:
                continue
            if link.state == "refused":
                # It has not heard of us yet; or it is no hub of this fleet.
                wait = min(wait, await self._dial_again(hub, link))
                continue
            wait = min(wait, await self._push(hub.device, link, placement))
        return wait

    async def _dial_again(self, hub: HubRecord, link: Link) -> float:
        now = asyncio.get_running_loop().time()
        known = self._refused.get(hub.device)
        if known is None:
            backoff = Backoff(self._hub.entropy)
            known = now + backoff.next_seconds(), backoff
            self._refused[hub.device] = known
        due, backoff = known
        if due > now:
            return due - now
        log.info("the hub at %s refuses us: %s", hub.url, link.error)
        self._refused[hub.device] = now + backoff.next_seconds(), backoff
        await link.close()
        await self._keep_link(hub)
        return math.inf

    async def _replaced(self, placement: Placement) -> None:
        """Another placement counts: keep other links, sort out what is away."""
        me = self._me
        for device, link in list(self._links.items()):
            hub = placement.hub(device)
            if hub is None or address_of(hub) != link.address:
                await self._links.pop(device).close()
        for hub in placement.hubs:
            if hub.device != me and hub.device not in self._links:
                await self._keep_link(hub)
        self._away.clear()
        self._put_off.clear()
        pace = Pace()
        for relay in self._hub.relays():
            self._sort_out(relay, placement)
            home = placement.home_of(relay.keeper.namespace)
            if home is not None and relay.moved is not None:
                # Who was seen to have it need not be its home any more.
                address = address_of(home).without_ticket
                relay.is_new_home_verified &= relay.moved[0] == address
            await pace.pause()
        pace.raise_cancelled()
        listening = {r for away in self._away.values() for r in away.values()}
        for relay in self._listening - listening:
            self._unlisten(relay)
        for relay in self._hub.relays():
            home = placement.home_of(relay.keeper.namespace)
            if relay.moved is not None and home is not None and home.device == me:
                await self._come_back(relay)

    def _leave_others(self, home: DeviceId, conversation: Dialling) -> None:
        """Carry over a link nothing that is at home elsewhere: it would be in use
        there, and nobody could delete it."""
        mine = set(self._away.get(home, {}))
        for hosted in conversation.carried():
            if hosted.keeper.namespace not in mine | {self.fleet}:
                conversation.leave(hosted)

    def _sort_out(self, relay: "Relay", placement: Placement) -> None:
        namespace = relay.keeper.namespace
        home = placement.home_of(namespace)
        if namespace != self.fleet and home is not None and home.device != self._me:
            self._away.setdefault(home.device, {})[namespace] = relay

    async def _keep_link(self, hub: HubRecord) -> None:
        assert self._dial is not None, "it was started"

        def namespaces() -> list[Hosted]:
            fleet = self._hub.find(self.fleet)
            return [] if fleet is None else [fleet]

        link = Link(self._hub, self._dial, address_of(hub), namespaces)
        self._links[hub.device] = await link.__aenter__()
        link.changed.listen(self._bell.set)

    async def _push(self, home: DeviceId, link: Link, placement: Placement) -> float:
        """Go on with what is to move over one link."""
        away = self._away.get(home, {})
        conversation = link.conversation
        fleet = self._hub.find(self.fleet)
        if conversation is not None:
            self._leave_others(home, conversation)
        if conversation is None or fleet is None:
            return math.inf
        self._refused.pop(home, None)
        if not away:
            return math.inf
        known = conversation.channel_of(fleet)
        if known is None or known.confirmed < fleet.keeper.position:
            return math.inf  # it is to know first that we are of its fleet
        now_ms = self._hub.clock.now_ms()
        wait = math.inf
        active = 0
        now = asyncio.get_running_loop().time()
        for relay in list(away.values()):
            if active >= limits.MOVES_AT_ONCE:
                break
            left = self._put_off.get(relay.keeper.namespace, 0.0) - now
            if left > 0:
                wait = min(wait, left)
                continue
            if relay.is_new_home_verified and relay.moved is not None:
                left_ms = relay.moved[1] + self._keep_ms - now_ms
                if left_ms > 0:
                    wait = min(wait, left_ms / 1000)
                    continue
                if relay.channels and conversation.channel_of(relay) is None:
                    wait = min(wait, limits.MOVES_LOOK_SECONDS)
                    continue  # another hub hands on what it has
            active += 1
            wait = min(wait, limits.MOVES_LOOK_SECONDS)
            await self._go_on(relay, conversation, placement)
        return wait

    async def _go_on(
        self, relay: "Relay", conversation: Dialling, placement: Placement
    ) -> None:
        """Take the next step of one namespace's move."""
        if relay not in self._listening:
            self._listening.add(relay)
            relay.progress.listen(self._bell.set)
        channel = conversation.channel_of(relay)
        if channel is None:
            refusal = conversation.refusals.get(relay.keeper.namespace)
            if refusal is not None and refusal.retry != "later":
                name = short(relay.keeper.namespace)
                log.warning("the new home refuses %s: %s", name, refusal.reason)
                del conversation.refusals[relay.keeper.namespace]
                until = asyncio.get_running_loop().time() + limits.MOVE_REFUSED_SECONDS
                self._put_off[relay.keeper.namespace] = until
            elif refusal is None and not conversation.asks(relay):
                conversation.open(relay)
            return
        behind = relay.committed_position - channel.confirmed
        if relay.moved is None:
            # Never before it has something: it would not know who comes.
            if channel.confirmed and behind <= limits.MOVE_BEHIND_ROWS_MAX:
                await self._switch(relay, placement)
        elif channel.agrees:
            due_ms = relay.moved[1] + self._keep_ms
            kept_long = self._hub.clock.now_ms() >= due_ms
            relay.is_new_home_verified = True
            conversation.leave(relay)
            self._unlisten(relay)
            if kept_long:
                await self._delete(relay)
            else:
                self._bell.set()  # to look again when it is due

    async def _switch(self, relay: "Relay", placement: Placement) -> None:
        """Give a namespace away: from here on members are sent to the new home."""
        home = placement.home_of(relay.keeper.namespace)
        assert home is not None, "it was away"
        address = address_of(home).without_ticket
        now_ms = self._hub.clock.now_ms()
        writes = Writes()
        writes.add(sql.PUT_MOVED, relay.keeper.ns, self._me, address, now_ms)
        await self._hub.store.commit(writes)
        log.info("gave %s to %s", short(relay.keeper.namespace), home.url)
        relay.moved = address, now_ms
        relay.is_new_home_verified = False
        for channel in relay.channels:
            relay.send_on(channel)
        self._bell.set()

    async def _come_back(self, relay: "Relay") -> None:
        """What was given away is at home here (again): members may come."""
        writes = Writes()
        writes.add(sql.DROP_MOVED, relay.keeper.ns, self._me)
        await self._hub.store.commit(writes)
        relay.moved = None

    async def _delete(self, relay: "Relay") -> None:
        """Delete what the new home was just seen to have, unless somebody came."""
        position = relay.keeper.position
        for link in self._links.values():
            link.leave(relay)  # also what was asked, and not answered yet
        await relay.flush()
        if relay.channels or relay.keeper.position != position:
            return
        namespace = relay.keeper.namespace
        for away in self._away.values():
            away.pop(namespace, None)
        self.deleting.add(namespace)
        try:
            await self._hub.forget(relay)
        except BaseException:
            if self._placement is not None and self._hub.find(namespace) is relay:
                self._sort_out(relay, self._placement)
            raise
        finally:
            self.deleting.discard(namespace)
        log.info("deleted the copy of %s, which moved", short(namespace))

    def _unlisten(self, relay: "Relay") -> None:
        if relay in self._listening:
            self._listening.discard(relay)
            relay.progress.unlisten(self._bell.set)

    # --- what there is ------------------------------------------------------------

    async def load(self) -> dict[int, tuple[int, int]]:
        """Return (namespaces, bytes of their logs) of each partition that has any."""
        found: dict[int, tuple[int, int]] = {}
        placement = self.placement()
        pace = Pace()
        for relay in self._hub.relays():
            if placement is None or relay.keeper.namespace == self.fleet:
                continue
            at = partition_of(relay.keeper.namespace, placement.partitions)
            count, size = found.get(at, (0, 0))
            found[at] = count + 1, size + relay.log_bytes()
            await pace.pause()
        pace.raise_cancelled()
        return found

    def moving(self) -> tuple[int, int]:
        """Return how many namespaces are to be copied, and how many copies are kept of
        what was."""
        away = [relay for some in self._away.values() for relay in some.values()]
        kept = sum(relay.moved is not None for relay in away)
        return len(away) - kept, kept

    def _heard(self, author: DeviceId, body: bytes) -> None:
        try:
            said = decode(body)
        except ValueError:
            return
        if isinstance(said, LoadAsked):
            task = asyncio.create_task(self._answer(author, said))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, author: DeviceId, asked: LoadAsked) -> None:
        fleet = self._hub.find(self.fleet)
        if fleet is None or fleet.notices is None:
            return
        load = sorted((at, *each) for at, each in (await self.load()).items())
        moving, kept = self.moving()
        placement = self.placement()
        number = placement.number if placement is not None else 0
        for first in range(0, max(len(load), 1), limits.LOADS_IN_NOTICE_MAX):
            part = load[first : first + limits.LOADS_IN_NOTICE_MAX]
            said = Load(asked.question, number, len(load), moving, kept, part)
            fleet.notices.say(encode(said), author)
