"""Three regions that all write, apart and together again; and a cart about which a
person decides. `python examples/three_masters.py`"""

import asyncio
import contextlib

import syncengine
from syncengine import EntityConflict, MemoryPipeline, MultiMasterManager, Replica

REGIONS = ("us-east", "eu-west", "ap-south")


async def main() -> None:
    # Between processes of one machine: `await SqlitePipeline.open("events.db")`.
    pipeline = MemoryPipeline()
    async with contextlib.AsyncExitStack() as stack:
        replicas: list[Replica] = [
            await stack.enter_async_context(syncengine.open(":memory:"))
            for _ in REGIONS
        ]
        space = await replicas[0].namespace("shop")
        invite = await space.invite("write", uses=2)
        spaces = [space, *[await r.join(invite, name="shop") for r in replicas[1:]]]
        masters = [
            await stack.enter_async_context(
                MultiMasterManager(
                    f"master-{region}", pipeline, each, conflict_strategy="manual"
                )
            )
            for region, each in zip(REGIONS, spaces, strict=True)
        ]

        def route(region: str) -> MultiMasterManager:
            return next(m for m in masters if region in m.get_master_id())

        await route("eu").write("cart-1", {"items": ["milk"]})
        await everywhere(masters)
        print("everywhere:", await seen(masters))

        # Two write at once, without a word to each other.
        detected: list[EntityConflict] = []
        route("ap").on("conflictDetected", detected.append)
        await route("us").write("cart-1", {"items": ["milk", "tea"]})
        await route("eu").write("cart-1", {"items": ["milk", "eggs"]})
        await everywhere(masters)
        for conflict in await route("ap").get_pending_conflicts():
            versions = [version.data["items"] for version in conflict.versions]
            print("for a person:", sorted(versions))
            items = sorted({item for items in versions for item in items})
            await route("ap").resolve_conflict(conflict.entity_id, {"items": items})
        await everywhere(masters)
        print("everywhere:", await seen(masters))
        pending = [len(await m.get_pending_conflicts()) for m in masters]
        print("to be decided:", pending, "seen:", len(detected))


async def everywhere(masters: list[MultiMasterManager]) -> None:
    """Wait until all have what each has written."""
    for master in masters:
        await master.drain()
    for master in masters:
        await master.caught_up()


async def seen(masters: list[MultiMasterManager]) -> list[object]:
    found = [await master.get_entity("cart-1") for master in masters]
    return [one and one.data["items"] for one in found]


if __name__ == "__main__":
    asyncio.run(main())
