"""What an operator of masters does: add one, watch them, sit out a partition, end a
conflict storm, find a clock that is wrong, recover one that lost its disk, remove one.
`python examples/operating_masters.py`; from a shell: `syncengine master NAME`."""

import asyncio
import contextlib
import logging
import time
from typing import Any

import syncengine, transport
from syncengine import GCounter, MultiMasterManager, Replica, validate_event_timestamp

HOUR_MS = 3_600_000


class Cluster:
    """Masters that reach each other through one hub, while they are online."""

    def __init__(self, stack: contextlib.AsyncExitStack, address: str):
        self.stack, self.address = stack, address
        self.masters: dict[str, MultiMasterManager] = {}
        self.replicas: dict[str, Replica] = {}
        self.links: dict[str, contextlib.AsyncExitStack] = {}

    async def add(self, name: str, file: str, strategy: Any = "lww") -> None:
        """Join, catch up, and say so to the others."""
        replica = await self.stack.enter_async_context(syncengine.open(file))
        if self.replicas:
            some = next(iter(self.replicas.values())).spaces()[0]
            invite = await some.invite("write", hub=self.address)
            space = await replica.join(invite, name="shop")
        else:
            space = await replica.namespace("shop")
        self.replicas[name] = replica
        master = MultiMasterManager(name, None, space, strategy)
        self.masters[name] = await self.stack.enter_async_context(master)
        await self.online(name)
        await master.caught_up()  # all that was written before it came
        await master.write(f"_cluster:{name}", {"status": "online"})

    async def remove(self, name: str) -> None:
        """Say goodbye, and wait until another one has all that was written here."""
        master = self.masters.pop(name)
        await master.write(f"_cluster:{name}", {"status": "leaving"})
        await master.drain()
        await master.close()
        await self.offline(name)
        await self.replicas.pop(name).close()

    async def online(self, name: str) -> None:
        stack = self.links[name] = contextlib.AsyncExitStack()
        link = transport.connect(self.replicas[name], self.address)
        await stack.enter_async_context(link)

    async def offline(self, name: str) -> None:
        await self.links.pop(name).aclose()

    async def settled(self) -> None:
        """Wait until all that are online have what each of them has."""
        for _ in range(2):
            for name in self.links:
                await self.masters[name].drain()
            for name in self.links:
                await self.masters[name].caught_up()


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(syncengine.open_hub("hub.db"))
        server = await stack.enter_async_context(transport.serve(hub))
        cluster = Cluster(stack, server.address)
        await cluster.add("usa", "usa.db")
        usa = cluster.masters["usa"]
        for number in range(50):
            await usa.write(f"customer-{number}", {"orders": 0})

        # Adding a master: it catches up, and announces itself.
        await cluster.add("eu", "eu.db")
        eu = cluster.masters["eu"]
        await cluster.settled()
        print("eu has", eu.get_metrics().events_applied, "events")
        presence = await usa.get_entity("_cluster:eu")
        print("usa knows that eu is", presence and presence.data["status"])

        # A partition: both write on, and what they wrote meets afterwards.
        usa.on("conflictDetected", lambda c: print("conflict:", c.entity_id))
        await cluster.offline("eu")
        await usa.write("customer-1", {"orders": 1, "by": "usa"})
        result = await eu.write("customer-1", {"orders": 2, "by": "eu"})
        print("eu is cut off; its write is queued:", result.queued)
        await cluster.online("eu")
        await cluster.settled()
        found = [await m.get_entity("customer-1") for m in (usa, eu)]
        print("both show the same:", found[0] == found[1])

        # A conflict storm: which entities are hot, and what helps.
        for _ in range(8):
            await cluster.offline("eu")
            await usa.write("views", {"count": 1})
            await eu.write("views", {"count": 2})
            await cluster.online("eu")
            await cluster.settled()
        if usa.conflict_rate() > 0.1:
            print(
                "High conflict rate detected! Hot entities:", await usa.hot_entities(1)
            )
        # Values that merge: both start again with the strategy for them.
        for name in ("usa", "eu"):
            await cluster.masters[name].close()
            space = cluster.replicas[name].spaces()[0]
            again = MultiMasterManager(name, None, space, "crdt")
            cluster.masters[name] = await stack.enter_async_context(again)
        for name, master in cluster.masters.items():
            counter = GCounter(name)
            counter.increment(5)
            await master.write("views", {"count": counter})
        await cluster.settled()
        merged = await cluster.masters["usa"].get_entity("views")
        print("views, of both:", merged and merged.data["count"].value())

        # A clock that is an hour ahead: what it stamps waits for its time, everywhere.
        events = cluster.replicas["usa"].spaces()[0].changes()
        event = await anext(events)
        await events.aclose()
        now_ms = int(time.time() * 1000)
        print("stamped well:", validate_event_timestamp(event))
        is_good = validate_event_timestamp(event, now_ms=now_ms - HOUR_MS)
        print("seen by a clock that is an hour behind:", is_good)
        print("usa's own clock is off:", cluster.replicas["usa"].clock_suspect)

        # A master whose disk is gone begins anew: join again, catch up.
        await cluster.offline("eu")
        await cluster.masters.pop("eu").close()
        await cluster.replicas.pop("eu").close()
        await cluster.add("eu-2", "eu-2.db", "crdt")
        recovered = cluster.masters["eu-2"]
        await cluster.settled()
        metrics = recovered.get_metrics()
        print(f"Catch-up: {metrics.events_applied} events applied")
        print(f"Buffer: {metrics.event_buffer_size} events pending")

        # Removing one: nothing that it wrote is lost.
        await recovered.write("last", {"words": "goodbye"})
        await cluster.remove("eu-2")
        await cluster.settled()
        last = await cluster.masters["usa"].get_entity("last")
        presence = await cluster.masters["usa"].get_entity("_cluster:eu-2")
        assert last is not None
        assert presence is not None
        print(f"eu-2 is {presence.data['status']}; it left {last.data['words']!r}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(main())
