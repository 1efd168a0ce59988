"""Members compare what they show; a difference is named, and only members are heard."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from syncengine import limits
from syncengine.protocol.messages import StateDigest
from syncengine.replication.audit import Sum
from syncengine.replication.hub import Relay
from syncengine.testing import World, simulate
from syncengine.testing.network import Weather
from syncengine.testing.world import Node

QUIET = 60.0  # virtual seconds: time for everybody to compare
NOTES = 40


def in_a_world(story: Callable[[World], Awaitable[None]]) -> None:
    simulate(story, seeds=1, repeat=False)


async def two(world: World, notes: int = NOTES) -> tuple[Node, Node]:
    """Two members that show the same, over a hub."""
    world.network.weather = Weather()
    hub = await world.hub()
    a, b = await world.replica("a"), await world.replica("b")
    assert a.replica is not None
    assert b.replica is not None
    await a.wait(a.replica.namespace("home"))
    await a.connect(hub)
    invite = await a.wait(a.space.invite("write", hub=hub.address.without_ticket))
    await b.wait(b.replica.join(str(invite), name="home"))
    await b.connect(hub.address)
    for number in range(notes):
        await a.wait(write(a.space, f"note/{number:03}", number))
    while b.space.engine.delivery.version() != a.space.engine.delivery.version():
        await asyncio.sleep(0.1)
    return a, b


async def write(space: Any, name: str, value: int) -> None:
    async with space.transaction() as tx:
        tx[name]["n"] = value


def damage(node: Node, key: str) -> None:
    """Let one file show a document with the value of another, as a bug would."""
    ids = dict(
        node.disk.store.read("SELECT id, document FROM _sync_document"),
    )
    connection = node.disk.store.connection
    connection.execute(
        "UPDATE _sync_cell SET state = (SELECT state FROM _sync_cell "
        "WHERE document = ? AND key = x'6b6e') WHERE document = ? AND key = x'6b6e'",
        (ids["011"], ids[key]),
    )
    connection.execute(
        "UPDATE _sync_document SET digest = NULL WHERE document = ?", (ids[key],)
    )


def paths(node: Node) -> list[str]:
    return [error.path for error in node.space.divergences]


def forgive(*nodes: Node) -> None:
    """A world in which somebody diverged has failed, unless it was planned."""
    for node in nodes:
        node.space.engine.audit.found.clear()


def test_who_shows_the_same_is_content() -> None:
    async def story(world: World) -> None:
        a, b = await two(world)
        await asyncio.sleep(QUIET)
        for node in (a, b):
            ((left,),) = node.disk.store.read(
                "SELECT count(*) FROM _sync_document WHERE digest IS NULL"
            )
            assert left == 0, "everything was compared"
            assert paths(node) == []

    in_a_world(story)


def test_a_difference_is_found_and_named_on_both_sides() -> None:
    async def story(world: World) -> None:
        a, b = await two(world)
        hub = world.nodes["hub"].address
        b.crash(power_loss=False)
        damage(b, "023")
        await b.start()
        await b.connect(hub)
        await asyncio.sleep(QUIET)

        assert paths(a) == paths(b) == ["note/023"]
        (error,) = a.space.divergences
        assert "syncengine doctor" in str(error)
        forgive(a, b)

    in_a_world(story)


def test_a_document_that_only_one_shows_is_found() -> None:
    async def story(world: World) -> None:
        a, b = await two(world)
        hub = world.nodes["hub"].address
        b.crash(power_loss=False)
        b.disk.store.connection.execute(
            "UPDATE _sync_document SET visible = 0 WHERE id = '007'"
        )
        await b.start()
        await b.connect(hub)
        await asyncio.sleep(QUIET)

        assert paths(a) == paths(b) == ["note/007"]
        forgive(a, b)

    in_a_world(story)


def test_a_quiet_hour_costs_a_handful_of_messages() -> None:
    async def story(world: World) -> None:
        heard: list[StateDigest] = []
        original = Relay.hear_state

        def count(self: Relay, message: StateDigest, source: Any) -> None:
            heard.append(message)
            original(self, message, source)

        Relay.hear_state = count  # type: ignore[method-assign]
        try:
            await two(world)
            await asyncio.sleep(3600)
        finally:
            Relay.hear_state = original  # type: ignore[method-assign]

        assert 1 <= len(heard) <= 4

    in_a_world(story)


def test_a_lying_hub_cannot_raise_an_alarm() -> None:
    async def story(world: World) -> None:
        original = Relay.hear_state

        def lie(self: Relay, message: StateDigest, source: Any) -> None:
            original(self, replace(message, digest=bytes(32), count=1), source)

        Relay.hear_state = lie  # type: ignore[method-assign]
        try:
            a, b = await two(world, 1)
            await asyncio.sleep(QUIET)
        finally:
            Relay.hear_state = original  # type: ignore[method-assign]

        assert paths(a) == paths(b) == []

    in_a_world(story)


def test_a_member_who_floods_is_answered_so_often_and_no_more() -> None:
    async def story(world: World) -> None:
        a, b = await two(world, 2)
        await asyncio.sleep(QUIET)
        theirs = b.space.engine.audit
        applied = theirs._applied()  # pyright: ignore[reportPrivateUsage]
        assert applied is not None
        said: list[str] = []
        ours = a.space.engine.audit
        original = ours._say  # pyright: ignore[reportPrivateUsage]

        def say(*message: Any) -> None:
            said.append(message[1])
            original(*message)

        ours._say = say  # type: ignore[method-assign, assignment]
        for number in range(2 * limits.STATES_PER_AUTHOR_MAX):
            wrong = Sum(2, number.to_bytes(32, "big"), None)
            theirs._say(applied, "a", "z", wrong)  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.05)
        assert 0 < len(said) <= 2 * limits.STATES_PER_AUTHOR_MAX

    in_a_world(story)
