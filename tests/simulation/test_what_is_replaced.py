"""The simulator runs the real engine: this is all that it puts in the world's place."""

# pyright: reportPrivateUsage=false

import asyncio
from typing import Any

from syncengine.protocol.session import Session
from syncengine.replication.conversation import Dialling, Listening
from syncengine.replication.hub import Hub
from syncengine.replication.keeper import Keeper
from syncengine.replication.link import Link
from syncengine.replication.namespace import Namespace
from syncengine.replication.peer import Channel
from syncengine.replication.replica import Replica
from syncengine.replication.writer import Writer
from syncengine.storage.identity import MemoryIdentity
from syncengine.storage.inline import InlineStore
from syncengine.testing import World, simulate
from syncengine.testing.disk import SimStore
from syncengine.testing.loop import VirtualLoop
from syncengine.testing.network import SimConnection
from syncengine.testing.world import SimClock, SimEntropy
from syncengine.trust.keys import ED25519

REPLACED = {
    "event loop": VirtualLoop,  # time jumps; the order of what is ready is drawn
    "wall clock": SimClock,
    "randomness": SimEntropy,
    "socket": SimConnection,
    "disk": SimStore,  # around the inline store: the real SQL, in memory
    "folder beside the file": MemoryIdentity,
}

# Watched, and called as they are: to check each change as it is applied or made.
WATCHED: dict[type[object], set[str]] = {
    Namespace: {"apply", "finish"},
    Replica: {"add_space"},
}

REAL = (
    Namespace, Replica, Hub, Keeper, Writer, Link, Dialling, Listening, Session, Channel,
)  # fmt: skip


def overridden(one: object) -> set[str]:
    """Return the methods of an object that are not its class's."""
    own: dict[str, object] = getattr(one, "__dict__", {})
    return {name for name in own if callable(getattr(type(one), name, None))}


def test_only_the_world_is_replaced() -> None:
    seen: set[type] = set()

    async def story(world: World) -> None:
        world.scheme = ED25519
        hub = await world.hub()
        a = await world.replica("a")
        assert a.replica is not None
        assert hub.hub is not None
        await a.wait(a.replica.namespace("home"))
        await a.connect(hub)
        while a.link is None or a.link.state != "live":
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        engine = a.space.engine
        dialling: Any = a.link._conversation
        (listening,) = hub.registry.all
        channel = next(iter(dialling.channels.values()))
        inside: list[object] = [
            engine, a.replica, hub.hub, engine.keeper, a.replica.writer, a.link,
            dialling, listening, dialling.session, listening.session, channel,
        ]  # fmt: skip
        assert {type(one) for one in inside} == set(REAL)
        for one in inside:
            assert overridden(one) == WATCHED.get(type(one), set())
        seen.update(
            map(type, (world.loop, a.clock, a.entropy, dialling._connection,
                       a.replica.store, a.disk.identity))
        )  # fmt: skip
        assert type(a.disk.store) is InlineStore

    simulate(story, seeds=1, repeat=False)
    assert seen == set(REPLACED.values())
