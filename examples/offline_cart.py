"""A cart in two pockets: both are offline, both fill it, and a person decides.

    python examples/offline_cart.py

A phone and a tablet have a file each. Without a network they write all the same, and
are switched off meanwhile. When they meet, neither list is thrown away.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import syncengine, transport
from syncengine import EntityConflict, MultiMasterManager


@contextlib.asynccontextmanager
async def device(
    name: str, hub: str | None = None
) -> AsyncGenerator[MultiMasterManager]:
    """Switch a device on; with the address of a hub it is online."""
    async with contextlib.AsyncExitStack() as stack:
        replica = await stack.enter_async_context(syncengine.open(f"{name}.db"))
        space = await replica.namespace("family", create=False)
        if hub is not None:
            await stack.enter_async_context(transport.connect(replica, hub))
        yield await stack.enter_async_context(
            MultiMasterManager(name, None, space, conflict_strategy="manual")
        )


async def main() -> None:
    async with syncengine.open_hub("hub.db") as hub, transport.serve(hub) as server:
        home = server.address
        async with syncengine.open("phone.db") as phone:
            space = await phone.namespace("family")
            invite = await space.invite("write", hub=home)
        async with syncengine.open("tablet.db") as tablet:
            await tablet.join(invite, name="family")
        # At home, once: both have the cart.
        async with device("phone", home) as mine, device("tablet", home) as theirs:
            await mine.write("cart", ["milk"])
            await mine.drain()
            await theirs.caught_up()

        # On the road: no network for either of them, and off again.
        async with device("phone") as mine:
            result = await mine.write("cart", ["milk", "tea"])
            print("phone, offline; it waits for the others:", result.queued)
        async with device("tablet") as theirs:
            await theirs.write("cart", ["milk", "eggs"])
            print("tablet, offline:", await shown(theirs))

        # The network is there again.
        async with device("phone", home) as mine, device("tablet", home) as theirs:
            for _ in range(2):
                await mine.caught_up()
                await theirs.caught_up()
            for_now = [await shown(one) for one in (mine, theirs)]
            print("for now both show the same:", for_now[0] == for_now[1])
            (conflict,) = await mine.get_pending_conflicts()
            items = decide(conflict)
            await mine.resolve_conflict("cart", items, conflict=conflict.id)
            await mine.drain()
            await theirs.caught_up()
            print("both:", await shown(mine), await shown(theirs))
            print("to be decided:", len(await theirs.get_pending_conflicts()))


async def shown(master: MultiMasterManager) -> list[str]:
    entity = await master.get_entity("cart")
    return [] if entity is None else entity.data


def decide(conflict: EntityConflict) -> list[str]:
    """Ask a person; this one wants all of it."""
    for version in conflict.versions:
        print(f"  {version.master_id} has {version.data}")
    return sorted({item for version in conflict.versions for item in version.data})


if __name__ == "__main__":
    asyncio.run(main())
