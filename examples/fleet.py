"""A fleet of hubs in one process: three share twelve namespaces, and one leaves.

    python examples/fleet.py

Devices dial the first hub, and go by themselves where each namespace is at home.
"""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import syncengine
import transport
from syncengine import Fleet, HubLoad


async def main(folder: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        operator = await stack.enter_async_context(syncengine.open(folder / "op.db"))
        fleet = Fleet(await operator.namespace("fleet"))
        await fleet.found(16)
        addresses: list[str] = []
        for name in ("a", "b", "c"):
            hub = await stack.enter_async_context(
                syncengine.open_hub(
                    folder / f"{name}.db", fleet=fleet.space.id, keep_moved=0
                )
            )
            server = await stack.enter_async_context(transport.serve(hub))
            await stack.enter_async_context(transport.connect(operator, server.address))
            await fleet.add(server.address)
            addresses.append(server.address)

        device = await stack.enter_async_context(syncengine.open(folder / "ann.db"))
        teams = [await device.namespace(f"team {number}") for number in range(12)]
        for team in teams:
            async with team.transaction() as tx:
                tx["note/1"]["title"] = f"of {team.name}"
        link = await stack.enter_async_context(transport.connect(device, addresses[0]))
        await link.synced()
        show("three hubs", await settled(fleet, 12))

        last = max(await fleet.ask_load())
        await fleet.remove(last)
        show("one leaves", await settled(fleet, 12))
        async with teams[0].transaction() as tx:
            tx["note/1"]["title"] = "the link went where it moved"
        await link.synced()
        print("in sync")


async def settled(fleet: Fleet, namespaces: int) -> dict[str, HubLoad]:
    """Wait until each namespace is at its home and nowhere else."""
    while True:
        load = await fleet.ask_load(within=1)
        keeping = {name: hub for name, hub in load.items() if hub.namespaces}
        there = sum(hub.namespaces for hub in keeping.values())
        if len(keeping) == len(fleet.placement.hubs) and there == namespaces:
            return keeping
        await asyncio.sleep(0.05)


def show(when: str, load: dict[str, HubLoad]) -> None:
    shares = sorted(hub.namespaces for hub in load.values())
    print(f"{when}: {len(load)} keep {sum(shares)} namespaces")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
