"""Three regions that all write: apart while the network is, and together again.
`python examples/three_masters.py`"""

import asyncio
import contextlib

import syncengine, transport
from clients import RegionRouter
from syncengine import GCounter, MultiMasterManager, Replica

REGIONS = ("us-east", "eu-west", "ap-south")


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(syncengine.open_hub("hub.db"))
        server = await stack.enter_async_context(transport.serve(hub))
        replicas: list[Replica] = [
            await stack.enter_async_context(syncengine.open(f"{region}.db"))
            for region in REGIONS
        ]
        space = await replicas[0].namespace("shop")
        invite = await space.invite("write", hub=server.address, uses=2)
        spaces = [space, *[await r.join(invite, name="shop") for r in replicas[1:]]]
        # In the fields of an entity the latest write stands; counters add up.
        masters = {
            region: await stack.enter_async_context(
                MultiMasterManager(region, None, each, conflict_strategy="crdt")
            )
            for region, each in zip(REGIONS, spaces, strict=True)
        }
        router = RegionRouter(
            masters,
            region_of=lambda user: user["region"],
            nearest={"ap-north": ("ap-south", "us-east")},
        )
        alice = {"region": "eu-west"}
        await router.write(
            "cart-1", {"items": 1, "views": views("eu-west", 1)}, user=alice
        )

        async def together() -> None:
            """The network is there: all have what each has."""
            async with contextlib.AsyncExitStack() as links:
                for replica in replicas:
                    await links.enter_async_context(
                        transport.connect(replica, server.address)
                    )
                for _ in range(2):
                    for master in masters.values():
                        await master.drain()
                    for master in masters.values():
                        await master.caught_up()

        await together()
        print("everywhere:", await seen(masters))

        # Apart: each region goes on at once, and says that it waits for the others.
        for count, region in enumerate(REGIONS, 1):
            cart = await masters[region].get_entity("cart-1")
            assert cart is not None
            counter = cart.data["views"]
            counter.increment(count)
            data = {**cart.data, "views": counter, region: count}
            result = await masters[region].write("cart-1", data)
            print(f"{region} wrote at once; it waits for the others: {result.queued}")
        print("apart:", await seen(masters))

        await together()
        print("everywhere:", await seen(masters))
        bob = {"region": "ap-north"}  # has no master of its own
        print("ap-north is served by", router.master_of(bob).get_master_id())
        conflicts = [len(await m.get_conflicts()) for m in masters.values()]
        print("conflicts that merged by themselves:", conflicts)


def views(region: str, count: int) -> GCounter:
    counter = GCounter(region)
    counter.increment(count)
    return counter


async def seen(masters: dict[str, MultiMasterManager]) -> list[int]:
    """Return how many views each region knows of."""
    found = [await master.get_entity("cart-1") for master in masters.values()]
    return [one.data["views"].value() if one else 0 for one in found]


if __name__ == "__main__":
    asyncio.run(main())
