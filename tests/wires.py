"""Links over pipes, in one process: the whole path but for the socket."""

import asyncio
from typing import Any

from syncengine import ConnectionLost, Replica
from syncengine.ids import DeviceId
from syncengine.replication.address import Address
from syncengine.replication.conversation import Listening, Registry
from syncengine.replication.link import Link
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
