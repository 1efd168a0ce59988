"""Links over pipes, in one process: the whole path but for the socket; pipelines that
can be unplugged."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import syncengine
import transport
from syncengine import (
    ConnectionLost,
    MemoryPipeline,
    OutcomeUnknown,
    Replica,
    Space,
)
from syncengine.ids import DeviceId
from syncengine.replication.address import Address
from syncengine.replication.conversation import Listening, Registry
from syncengine.replication.link import Link
from syncengine.storage.pipeline.contract import Ack
from transport.memory import MemoryConnection, pair


class Wire:
    """Dials a host over pipes; can be unplugged."""

    def __init__(self, host: Any):
        self.host = host
        self.registry = Registry()
        self.plugged = True
        self.tasks: list[asyncio.Task[Any]] = []
        self.ends: list[MemoryConnection] = []

    async def dial(self, _: Address) -> MemoryConnection:
        if not self.plugged:
            raise ConnectionLost("unplugged")
        ours, theirs = pair()
        listening = Listening(self.host, theirs, self.registry)
        self.tasks.append(asyncio.create_task(listening.run()))
        self.ends.append(theirs)
        return ours

    async def cut(self) -> None:
        for end in self.ends:
            await end.close(1006, "cut")
        self.ends.clear()

    def link(self, replica: Replica) -> Link:
        ticket = getattr(self.host, "ticket", None)
        address = Address("ws://memory", DeviceId(self.host.key.public), ticket)
        return Link(
            replica, self.dial, address, lambda: [s.engine for s in replica.spaces()]
        )


class Flaky(MemoryPipeline):
    """Can be unplugged; and sometimes stores without saying so."""

    def __init__(self) -> None:
        super().__init__(4)
        self.away = False
        self.mute = False

    async def publish(self, *args: Any, **options: Any) -> Ack:
        if self.away:
            raise OSError("no route")
        ack = await super().publish(*args, **options)
        if self.mute and not ack.duplicate:
            raise OutcomeUnknown("who knows")
        return ack


async def meet(one: Space, other: Space) -> None:
    """Let the replicas of two spaces have what the other has; then part them."""
    host = one._replica
    async with (
        transport.serve(host, "127.0.0.1", 0) as server,
        transport.connect(other._replica, server.address) as link,
    ):
        await link.synced()


@asynccontextmanager
async def two_members() -> AsyncGenerator[tuple[Space, Space]]:
    """Give two members that have met, and are apart now."""
    async with syncengine.open(":memory:") as one, syncengine.open(":memory:") as other:
        space = await one.namespace("home")
        theirs = await other.join(await space.invite("write"), name="home")
        await meet(space, theirs)
        yield space, theirs
