"""What lost to a concurrent write is kept in the file, and is the same for everybody."""

import asyncio
from pathlib import Path

import syncengine
import transport
from syncengine import Replica


async def lost(replica: Replica) -> list[tuple[object, object]]:
    space = await replica.namespace("home", create=False)
    return [(value.value, value.author) for value in await space.lost_values("note/1")]


async def write(replica: Replica, title: str) -> None:
    space = await replica.namespace("home", create=False)
    async with space.transaction() as tx:
        tx["note/1"]["title"] = title


async def synced(*replicas: Replica) -> None:
    """Let everybody have everything: two rounds, since links are dialled in turn."""
    for _ in range(2):
        for replica in replicas:
            async with transport.connect(replica) as link:
                await link.synced()


async def test_lost_values_survive_a_restart_and_reach_who_joins_later(
    tmp_path: Path,
) -> None:
    one, two, late = (str(tmp_path / f"{name}.db") for name in ("one", "two", "late"))
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
    ):
        async with syncengine.open(one) as a, syncengine.open(two) as b:
            space = await a.namespace("home")
            async with transport.connect(a, server.address) as link:
                await link.synced()
                invite = await space.invite("write", hub=link.hub, uses=2)
                await link.synced()
                await a.remember(link.hub)
            await b.join(str(invite), name="home")
            await write(a, "A")
            await write(b, "B")
            await synced(a, b)
            before = await lost(a)
            assert len(before) == 1
            assert await lost(b) == before
        async with (
            syncengine.open(one) as a,
            syncengine.open(two) as b,
            syncengine.open(late) as c,
        ):
            assert await lost(a) == await lost(b) == before
            await c.join(str(invite), name="home")
            await synced(c)
            assert await lost(c) == before

            await write(c, "after both")
            await synced(c, a, b)
            await asyncio.sleep(0)
            for replica in (a, b, c):
                assert await lost(replica) == [], "somebody saw both, and decided"
