"""Commands for the operator of a fleet: several hubs that share the namespaces."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

import syncengine
import transport
from clients.cli.context import Context, command
from clients.cli.output import OFFLINE, table
from syncengine.errors import AlreadyExists, Invalid, NotFound
from syncengine.ids import base32
from syncengine.replication.address import address_of

if TYPE_CHECKING:
    from syncengine import Fleet, HubLoad
    from syncengine.trust.placement import Placement

# How long hubs are waited for.
HUB_SECONDS = 4.0

# Of an id, what tells hubs apart for a person.
SHORT = 8


@click.group()
def fleet() -> None:
    """Several hubs that share the namespaces of a deployment."""


@fleet.command()
@click.argument("name", default="fleet")
@click.option(
    "--partitions", default=64, show_default=True, help="A power of two; it stays."
)
@command
async def new(context: Context, name: str, partitions: int) -> None:
    """Found a fleet: a namespace NAME that says which hub keeps what."""
    async with context.open(create=True) as replica:
        if any(space.name == name for space in replica.spaces()):
            raise AlreadyExists(f"there is a namespace {name!r} already")
        space = await replica.namespace(name)
        await syncengine.Fleet(space).found(partitions)
        data = {
            "namespace": name,
            "fleet": space.id,
            "partitions": partitions,
            "recovery_key": space.recovery_key,
        }
        context.out.result(
            data,
            f"The fleet is {space.id}\n\n"
            f"Start each hub with:  syncengine hub --fleet {space.id}\n"
            "and take it in with:  syncengine fleet add ADDRESS\n\n"
            f"Recovery key (write it down, keep it apart from this device, then delete "
            f"{context.settings.db}-sync/recovery-*.txt):\n\n    {space.recovery_key}",
        )


@fleet.command()
@click.argument("address")
@click.option("--weight", default=1, show_default=True, help="Its share: 2 is double.")
@click.option("--by-bytes", is_flag=True, help="Even out by what hubs keep.")
@command
async def add(context: Context, address: str, weight: int, by_bytes: bool) -> int:
    """Take in the hub at ADDRESS (as it printed it), or change its weight."""
    async with _fleet(context) as (replica, mine):
        load = await _load(replica, mine) if by_bytes else None
        before = mine.placement
        # What cannot be reached is no hub yet: nothing is decided.
        async with transport.connect(replica, address) as link:
            async with _in_time(f"no answer from {link.hub}"):
                await link.connected()
            await mine.add(address, weight=weight, load=load)
            async with _in_time(f"no answer from {link.hub}"):
                await link.synced()
        return _tell(context, before, mine.placement, reached=True)


@fleet.command()
@click.argument("hub")
@click.option("--by-bytes", is_flag=True, help="Even out by what hubs keep.")
@command
async def remove(context: Context, hub: str, by_bytes: bool) -> int:
    """Take HUB (its id, or how that begins) out: what it keeps moves to the others."""
    async with _fleet(context) as (replica, mine):
        load = await _load(replica, mine) if by_bytes else None
        before = mine.placement
        await mine.remove(_named(before, hub), load=load)
        # It is to hear it too, though it is none of the hubs any more.
        reached = await _synced(replica, before)
        return _tell(context, before, mine.placement, reached=reached)


@fleet.command()
@click.argument("partition", type=int)
@click.argument("hub")
@command
async def move(context: Context, partition: int, hub: str) -> int:
    """Move one PARTITION to HUB (its id, or how that begins)."""
    async with _fleet(context) as (replica, mine):
        before = mine.placement
        await mine.move(partition, _named(before, hub))
        reached = await _synced(replica, before)
        return _tell(context, before, mine.placement, reached=reached)


@fleet.command()
@click.option("--by-bytes", is_flag=True, help="By what hubs keep, not by count.")
@command
async def balance(context: Context, by_bytes: bool) -> int:
    """Even out what hubs keep, moving as little as that needs."""
    async with _fleet(context) as (replica, mine):
        load = await _load(replica, mine) if by_bytes else None
        before = mine.placement
        await mine.balance(load)
        reached = await _synced(replica, before)
        return _tell(context, before, mine.placement, reached=reached)


@fleet.command()
@click.option("--timeout", "seconds", default=5.0, show_default=True)
@command
async def status(context: Context, seconds: float) -> int:
    """Ask all hubs what they keep."""
    async with _fleet(context) as (replica, mine):
        load: dict[str, HubLoad] = {}
        async with _any_hub(replica, mine.placement) as is_linked:
            if is_linked:
                load = await mine.ask_load(within=seconds)
        now = mine.placement
        silent = [hub for hub in now.hubs if base32(hub.device) not in load]
        context.out.result(_facts(mine, now, load), _shown(mine, now, load))
        if silent:
            urls = ", ".join(hub.url for hub in silent)
            context.out.note(f"No answer from {urls}.")
        return OFFLINE if silent else 0


def _facts(
    mine: "Fleet", now: "Placement", load: Mapping[str, "HubLoad"]
) -> dict[str, Any]:
    hubs: list[dict[str, Any]] = []
    for hub in now.hubs:
        name = base32(hub.device)
        each = load.get(name)
        hubs.append(
            {
                "hub": name,
                "url": hub.url,
                "weight": hub.weight,
                "partitions": now.partitions_of(hub.device),
                "answered": each is not None,
                "namespaces": each.namespaces if each else None,
                "bytes": each.bytes if each else None,
                "moving": each.moving if each else None,
                "kept": each.kept if each else None,
                "placement": each.number if each else None,
            }
        )
    return {
        "fleet": mine.space.id,
        "placement": now.number,
        "partitions": now.partitions,
        "hubs": hubs,
        "former": {
            name: {"namespaces": each.namespaces, "moving": each.moving}
            for name, each in _former(now, load).items()
        },
        "imbalance": {
            "partitions": mine.imbalance(),
            "bytes": mine.imbalance(load) if load else None,
        },
    }


def _former(now: "Placement", load: Mapping[str, "HubLoad"]) -> dict[str, "HubLoad"]:
    """Return what hubs that were taken out say."""
    present = {base32(hub.device) for hub in now.hubs}
    return {name: each for name, each in load.items() if name not in present}


def _shown(mine: "Fleet", now: "Placement", load: Mapping[str, "HubLoad"]) -> Table:
    shown = table(
        "hub", "address", "weight", "partitions", "namespaces", "bytes", "moving",
        "kept", "heard",
    )  # fmt: skip
    shown.columns[1].overflow = "fold"
    for hub in now.hubs:
        name = base32(hub.device)
        each = load.get(name)
        told = ("?", "?", "?", "?", "no answer")
        if each is not None:
            told = (
                f"{each.namespaces:,}",
                f"{each.bytes:,}",
                f"{each.moving:,}",
                f"{each.kept:,}",
                "all" if each.number == now.number else f"{each.number}/{now.number}",
            )
        count = str(len(now.partitions_of(hub.device)))
        shown.add_row(name[:SHORT], hub.url, str(hub.weight), count, *told)
    for name, each in _former(now, load).items():
        left = (f"{each.namespaces:,}", f"{each.bytes:,}", f"{each.moving:,}")
        shown.add_row(name[:SHORT], "taken out", "", "0", *left, f"{each.kept:,}", "")
    fullest = f"The fullest hub is at {mine.imbalance():.2f} of its share by partitions"
    if load:
        fullest += f", at {mine.imbalance(load):.2f} by bytes"
    shown.caption = fullest + "."
    shown.caption_justify = "left"
    return shown


def _tell(
    context: Context, before: "Placement", now: "Placement", *, reached: bool
) -> int:
    moved = [
        partition
        for partition, home in enumerate(now.homes)
        if not before.homes
        or before.hubs[before.homes[partition]].device != now.hubs[home].device
    ]
    data = {
        "placement": now.number,
        "moved": moved,
        "hubs": {
            base32(hub.device): len(now.partitions_of(hub.device)) for hub in now.hubs
        },
        "told": reached,
    }
    shares = ", ".join(
        f"{base32(hub.device)[:SHORT]} {len(now.partitions_of(hub.device))}"
        for hub in now.hubs
    )
    context.out.result(
        data, f"{len(moved)} of {now.partitions} partitions move. Shares: {shares}."
    )
    if not reached:
        context.out.note(
            "No hub could be reached to be told: `syncengine fleet status` tells them."
        )
        return OFFLINE
    return 0


def _named(placement: "Placement", hub: str) -> str:
    """Return the id of the one hub whose id begins so; raises `NotFound`, `Invalid`."""
    ids = [base32(one.device) for one in placement.hubs]
    found = [name for name in ids if name.startswith(hub) and hub]
    if len(found) > 1:
        raise Invalid(f"several hubs begin with {hub!r}: say more of the id")
    if not found:
        there = ", ".join(name[:SHORT] for name in ids) or "none"
        raise NotFound(f"there is no hub {hub!r} in this fleet; there are: {there}")
    return found[0]


@contextlib.asynccontextmanager
async def _fleet(
    context: Context,
) -> AsyncGenerator[tuple["syncengine.Replica", "Fleet"]]:
    """Open the replica, and the fleet in it: the namespace named, or the only one."""
    async with context.open() as replica:
        name = context.settings.namespace
        fleets: list[Fleet] = []
        for space in replica.spaces():
            with contextlib.suppress(NotFound):
                candidate = syncengine.Fleet(space)
                if candidate.placement and name in (None, space.name):
                    fleets.append(candidate)
        if not fleets:
            raise NotFound("there is no fleet here; `syncengine fleet new` founds one")
        if len(fleets) > 1:
            names = ", ".join(str(one.space.name) for one in fleets)
            raise NotFound(f"say which fleet (--namespace); there are: {names}")
        yield replica, fleets[0]


@contextlib.asynccontextmanager
async def _in_time(what: str) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(HUB_SECONDS):
            yield
    except TimeoutError:
        raise TimeoutError(what) from None


@contextlib.asynccontextmanager
async def _any_hub(
    replica: "syncengine.Replica", placement: "Placement"
) -> AsyncGenerator[bool]:
    """Keep links to all hubs; tell whether one of them is in sync."""
    async with contextlib.AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(
                transport.connect(replica, str(address_of(hub)))
            )
            for hub in placement.hubs
        ]
        yield await _first_of([link.synced() for link in links])


async def _first_of(waiting: list[Coroutine[Any, Any, None]]) -> bool:
    """Tell whether one of those ends well, in time."""
    tasks = {asyncio.create_task(each) for each in waiting}
    everyone = set(tasks)
    try:
        async with asyncio.timeout(HUB_SECONDS):
            while tasks:
                done, tasks = await asyncio.wait(
                    tasks, return_when=asyncio.FIRST_COMPLETED
                )
                if any(task.exception() is None for task in done):
                    return True
    except TimeoutError:
        pass
    finally:
        for task in everyone:
            task.cancel()
        await asyncio.gather(*everyone, return_exceptions=True)
    return False


async def _synced(replica: "syncengine.Replica", placement: "Placement") -> bool:
    async with _any_hub(replica, placement) as is_linked:
        return is_linked


async def _load(replica: "syncengine.Replica", mine: "Fleet") -> dict[str, "HubLoad"]:
    """Return what all hubs keep; raises `TimeoutError` where one does not say."""
    async with _any_hub(replica, mine.placement) as is_linked:
        load = await mine.ask_load() if is_linked else {}
    silent = [hub.url for hub in mine.placement.hubs if base32(hub.device) not in load]
    if silent:
        raise TimeoutError(
            f"no answer from {', '.join(silent)}: what they keep is not known"
        )
    return load
