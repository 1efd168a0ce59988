"""A fleet of hubs, as its operator holds it.

One deployment runs several hubs, each keeping a share of the namespaces; devices dial
any of them and are sent to the one that is meant. Which that is stands in the log of a
namespace of its own, *the fleet's*, whose members are the operator and the hubs: it
reaches the hubs as everything reaches everybody.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from syncengine import limits, values
from syncengine.errors import AlreadyExists, Invalid, NotFound, Refused
from syncengine.ids import (
    DeviceId,
    EntryId,
    NamespaceId,
    base32,
    check_partitions,
    parse_device_id,
    parse_namespace_id,
)
from syncengine.protocol.codes import Code
from syncengine.protocol.fleets import Load, LoadAsked, decode, encode
from syncengine.replication.address import address_of, parse_address
from syncengine.replication.balancing import imbalance, spread
from syncengine.trust.membership import Ops
from syncengine.trust.placement import HubRecord, Placement, make_placement

if TYPE_CHECKING:
    from syncengine.replication.space import Space

QUESTION_BYTES = 8

# How long hubs that were taken out are waited for: those that are switched off never
# answer.
FORMER_SECONDS = 0.5


@dataclass
class HubLoad:
    """What a hub says it keeps."""

    number: int
    """Of the placement that it knows: behind the newest, it has not heard yet"""
    moving: int
    """Namespaces that are to be copied to other hubs"""
    kept: int
    """Namespaces that others have, of which it still has a copy"""
    partitions: dict[int, tuple[int, int]] = field(
        default_factory=dict[int, tuple[int, int]]
    )
    """(namespaces, bytes of their logs) of each partition of which it has any"""

    @property
    def namespaces(self) -> int:
        return sum(count for count, _ in self.partitions.values())

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.partitions.values())


class Fleet:
    """The hubs of a deployment, and where partitions of namespaces are at home.

    `space` is the fleet's own namespace: start each hub with its id
    (`open_hub(path, fleet=space.id)`). What is decided here takes effect when a link of
    `space` to one of the hubs is up. Raises `Refused` in all that decides, unless this
    device owns the namespace or was granted admin.
    """

    def __init__(self, space: "Space"):
        self.space = space

    # --- what is decided ----------------------------------------------------------

    @property
    def placement(self) -> Placement:
        """Where partitions are at home now; raises `NotFound` before `found`."""
        placement = self.space.engine.keeper.membership.placement()
        if placement is None:
            raise NotFound(
                f"{self.space.name!r} is no fleet's namespace; begin with "
                "`Fleet(space).found()`"
            )
        return placement

    def home_of(self, namespace: str) -> str:
        """Return the address (without a ticket) of the hub that keeps a namespace, by
        its id; raises `Invalid`, `NotFound`."""
        home = self.placement.home_of(parse_namespace_id(namespace))
        if home is None:
            raise NotFound("the fleet has no hub yet")
        return address_of(home).without_ticket

    def imbalance(self, load: Mapping[str, HubLoad] | None = None) -> float:
        """Return how much fuller the fullest hub is than its share (1.0: even), by
        bytes where `load` is given, else by partitions."""
        now = self.placement
        return imbalance(now.hubs, now.homes, _bytes_of(load, now.partitions))

    # --- deciding -----------------------------------------------------------------

    async def found(self, partitions: int = limits.PARTITIONS) -> Placement:
        """Make the namespace a fleet's, without hubs; `partitions`, a power of two,
        stays. Raises `AlreadyExists`, `Invalid`."""
        check_partitions(partitions)
        if self.space.engine.keeper.membership.placement() is not None:
            raise AlreadyExists(f"{self.space.name!r} is a fleet's namespace already")
        return await self._decide(lambda _: ((), b""), partitions=partitions)

    async def add(
        self,
        address: str,
        *,
        weight: int = 1,
        load: Mapping[str, HubLoad] | None = None,
    ) -> Placement:
        """Take in a hub by the whole address that it printed (its ticket lets it admit
        new namespaces), or change its address or weight. It gets its share at once.

        `load`, as `ask_load` returns it, makes shares even by bytes. A hub that never
        was in the fleet has to be brought its namespace: connect to `address` once.
        """
        to = parse_address(address)
        values.check_count(weight, "weight", most=limits.HUB_WEIGHT_MAX)
        if len(to.url.encode()) > limits.HUB_URL_BYTES_MAX:
            raise Invalid("the address is too long", bound=limits.HUB_URL_BYTES_MAX)
        new = HubRecord(to.device, to.url, to.ticket, weight)
        known = self.placement
        if known.hub(to.device) is None and len(known.hubs) >= limits.FLEET_HUBS_MAX:
            raise Invalid(
                f"a fleet has up to {limits.FLEET_HUBS_MAX} hubs",
                bound=limits.FLEET_HUBS_MAX,
            )
        await self._let_in(to.device)

        def with_it(now: Placement) -> tuple[tuple[HubRecord, ...], bytes]:
            others = [hub for hub in now.hubs if hub.device != to.device]
            hubs = tuple(sorted([*others, new], key=lambda hub: hub.device))
            return hubs, self._spread(hubs, now, load)

        return await self._decide(with_it)

    async def remove(
        self, hub: str, *, load: Mapping[str, HubLoad] | None = None
    ) -> Placement:
        """Take a hub (by its id) out: what it keeps moves to the others. It may be
        switched off once it says that it keeps nothing. Raises `NotFound`, and
        `Invalid` for the last one."""
        device = self._hub(hub).device
        if len(self.placement.hubs) == 1:
            raise Invalid("the last hub has nowhere to move what it keeps")

        def without(now: Placement) -> tuple[tuple[HubRecord, ...], bytes]:
            hubs = tuple(one for one in now.hubs if one.device != device)
            return hubs, self._spread(hubs, now, load)

        return await self._decide(without)

    async def move(self, partition: int, hub: str) -> Placement:
        """Move one partition to a hub, by its id. Raises `NotFound`, `Invalid`."""
        device = self._hub(hub).device
        if type(partition) is not int or not 0 <= partition < self.placement.partitions:
            raise Invalid(
                f"there are the partitions 0 to {self.placement.partitions - 1}, and "
                f"no {partition}",
                bound=self.placement.partitions,
            )

        def moved(now: Placement) -> tuple[tuple[HubRecord, ...], bytes]:
            homes = bytearray(now.homes)
            homes[partition] = [one.device for one in now.hubs].index(device)
            return now.hubs, bytes(homes)

        return await self._decide(moved)

    async def balance(self, load: Mapping[str, HubLoad] | None = None) -> Placement:
        """Even out what hubs keep, moving as little as that needs: by bytes where
        `load` is given (what is within 5 % of the mean stays), else by partitions."""
        return await self._decide(
            lambda now: (now.hubs, self._spread(now.hubs, now, load))
        )

    def _spread(
        self,
        hubs: tuple[HubRecord, ...],
        now: Placement,
        load: Mapping[str, HubLoad] | None,
    ) -> bytes:
        homes: list[DeviceId | None] = [now.hubs[home].device for home in now.homes]
        homes = homes or [None] * now.partitions
        return spread(hubs, homes, _bytes_of(load, now.partitions))

    def _hub(self, hub: str) -> HubRecord:
        known = self.placement.hub(parse_device_id(hub))
        if known is None:
            there = ", ".join(base32(one.device) for one in self.placement.hubs)
            raise NotFound(
                f"there is no hub {hub[:8]}... in this fleet; there are: "
                f"{there or 'none'}"
            )
        return known

    async def _let_in(self, device: DeviceId) -> None:
        membership = self.space.engine.keeper.membership
        if not membership.may(device, Ops.RELAY | Ops.READ):
            await self.space.grant_device(base32(device), "read")

    async def _decide(
        self,
        decide: Callable[[Placement], tuple[tuple[HubRecord, ...], bytes]],
        *,
        partitions: int | None = None,
    ) -> Placement:
        """Put a placement into the log, if it says anything new."""
        space, engine = self.space, self.space.engine
        space.check_usable()
        space.check_outside()
        membership = engine.keeper.membership
        me = DeviceId(engine.key.public)
        owners = membership.genesis.owners if membership.genesis is not None else ()
        if me not in owners and not membership.may(me, Ops.ADMIN):
            raise Refused(
                Code.NOT_GRANTED,
                "only the fleet's operator decides which hub keeps what",
                retry="after_action",
            )
        async with engine.turn:
            now = (
                self.placement
                if partitions is None
                else Placement(me, 0, partitions, (), b"")
            )
            hubs, homes = decide(now)
            if partitions is None and (hubs, homes) == (now.hubs, now.homes):
                return now
            said = Placement(me, now.number + 1, now.partitions, hubs, homes)
            heads: list[EntryId] = membership.recent_heads()
            namespace: NamespaceId = engine.keeper.namespace
            engine.keeper.append_own(make_placement(engine.key, namespace, heads, said))
        await engine.flush()
        return said

    # --- what there is ------------------------------------------------------------

    async def ask_load(self, *, within: float = 5.0) -> dict[str, HubLoad]:
        """Return what each hub keeps, by its id: of those that answered within
        `within` seconds, over a link to any of them.

        Hubs that were taken out are asked, too, and waited for a moment: they may be
        switched off once they keep nothing. Safe to cancel.
        """
        engine = self.space.engine
        question = engine.entropy.bytes(QUESTION_BYTES)
        wanted = {hub.device for hub in self.placement.hubs}
        former = self._hubs_ever() - wanted
        answers: dict[DeviceId, HubLoad] = {}
        complete: set[DeviceId] = set()
        all_here = asyncio.Event()

        def heard(author: DeviceId, body: bytes) -> None:
            try:
                said = decode(body)
            except ValueError:
                return
            if not isinstance(said, Load) or said.question != question:
                return
            known = answers.setdefault(
                author, HubLoad(said.number, said.moving, said.kept)
            )
            for partition, count, size in said.loads:
                known.partitions[partition] = count, size
            if len(known.partitions) >= said.partitions:
                complete.add(author)
            if wanted <= complete:
                all_here.set()

        engine.notices.listeners.append(heard)
        try:
            engine.notices.say(encode(LoadAsked(question)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await all_here.wait()
            if not former <= complete:
                wanted |= former
                all_here.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FORMER_SECONDS):
                        await all_here.wait()
        finally:
            engine.notices.listeners.remove(heard)
        return {base32(device): answers[device] for device in sorted(complete)}

    def _hubs_ever(self) -> set[DeviceId]:
        placements = self.space.engine.keeper.membership.good_placements()
        return {hub.device for _, _, said in placements for hub in said.hubs}


def _bytes_of(
    load: Mapping[str, HubLoad] | None, partitions: int
) -> dict[int, float] | None:
    """Return what each partition weighs: where several hubs have some of it, during a
    move, what the fullest has."""
    if load is None:
        return None
    for each in load.values():
        if not isinstance(cast(object, each), HubLoad):
            raise Invalid(f"a load is what ask_load returns, not {each!r}", path="load")
    found: dict[int, float] = {}
    for each in load.values():
        for partition, (_, size) in each.partitions.items():
            if partition < partitions:
                found[partition] = max(found.get(partition, 0.0), float(size))
    return found
