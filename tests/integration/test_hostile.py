"""10,000 mutants over all message types, most of them sealed and signed by a granted
peer: each costs its sender the connection, or nothing; nobody else notices.

The closing lines of the run show a table type x outcome.
"""

# pyright: reportPrivateUsage=false

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import syncengine
from syncengine import Hub, Replica, Space
from syncengine.protocol import messages
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import (
    Ack,
    Auth,
    Challenge,
    Data,
    Frontier,
    Goodbye,
    Hello,
    Idle,
    Leave,
    Message,
    Notice,
    Open,
    Opened,
    Ping,
    Pong,
    Ready,
    Refusal,
    StateDigest,
    Void,
)
from syncengine.protocol.states import State
from syncengine.replication.conversation import Dialling, Listening, Registry
from syncengine.replication.keeper import Keeper
from syncengine.replication.link import Link
from syncengine.trust.keys import ED25519
from tests.hostile import Enemy, HostileSession, mutant, mutated_bytes, receive
from tests.wires import Wire
from transport.memory import MemoryConnection, pair

MUTANTS = int(os.environ.get("MUTANTS", "10000"))

TYPES: list[type[Message]] = [
    Hello, Challenge, Auth, Ready, Open, Opened, Refusal, Leave, Frontier, Data, Ack,
    Idle, Void, StateDigest, Notice, Ping, Pong, Goodbye,
]  # fmt: skip

GOODBYE = 32

CLOSING = {
    Code.NORMAL,  # a goodbye of ours that was in order
    Code.PROTOCOL,
    Code.AUTHENTICATION,
    Code.NOT_GRANTED,
    Code.TOO_LARGE,
    Code.INVALID_BATCH,
    Code.VERSION,
    Code.RATE,  # many at once
}
"""What a mutant may cost its sender."""

TO_DIALLER = (Challenge, Ready, Opened, Refusal)
"""Said by a listener; everything else is said to one."""

# Mutants that one connection takes before a new one is made, if it lives so long.
PER_CONNECTION = 40


def test_every_message_is_attacked() -> None:
    declared = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }

    assert declared == set(TYPES)


class Stage:
    """A hub with two honest members on live links, and an enemy with a grant."""

    def __init__(self, hub: Hub, founder: Replica, friend: Replica, enemy: Enemy):
        self.hub = hub
        self.founder = founder
        self.friend = friend
        self.enemy = enemy
        self.outcomes: Counter[str] = Counter()
        self.registry = Registry()
        self.ended: list[asyncio.Task[Any]] = []
        self.unhandled: list[dict[str, Any]] = []
        self.links: list[Link] = []
        self.codes: set[int] = set()

    def closed(self, session: HostileSession, connection: MemoryConnection) -> str:
        """Return how the peer ended it: by a goodbye, or by closing."""
        goodbyes = [told[1] for told in session.told if told[0] == GOODBYE]
        code = goodbyes[-1] if goodbyes else connection.code
        if not code and session.state is State.CLOSED:
            return "given up"  # by the enemy: the answer was no answer to it
        self.codes.add(code)
        return f"closed {code}"

    def run(self, conversation: Any) -> None:
        self.ended.append(asyncio.create_task(conversation.run()))

    async def dial(self, host: Any) -> tuple[HostileSession, MemoryConnection]:
        """Return a live link to `host`, with the namespace open."""
        ours, theirs = pair()
        self.run(Listening(host, theirs, self.registry))
        session = self.enemy.session(dials=True)
        live = await receive(
            session,
            ours,
            lambda: session.state is State.LIVE,
            lambda: [self.enemy.open()],
        )
        assert live, "a granted device is let in"
        return session, ours

    def dialled(self, replica: Replica) -> tuple[HostileSession, MemoryConnection]:
        """Return the listener's end of a link that `replica` dials."""
        ours, theirs = pair()
        engines = [space.engine for space in replica.spaces()]
        self.run(
            Dialling(replica, theirs, None, lambda: list(engines), None, _nothing, {})
        )
        return self.enemy.session(dials=False), ours


def _nothing() -> None:
    """A link would note that it is live."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        syncengine.open(str(tmp_path / "founder.db")) as founder,
        syncengine.open(str(tmp_path / "friend.db")) as friend,
        syncengine.open(":memory:") as third,
    ):
        space = await founder.namespace("home")
        async with space.transaction() as tx:
            page = tx["note/1"]
            page["title"] = "ours"
            page.text("body").insert(0, "a text of ours")
            page.list("items").extend([1, 2, 3])
        wire = Wire(hub)
        async with wire.link(founder) as link:
            invite = await space.invite("write", hub=str(link.address), uses=2)
            await link.synced()
            await friend.join(str(invite), name="home")
            theirs = await third.join(str(invite), name="home")
            async with theirs.transaction() as tx:
                tx["note/3"]["title"] = "before it turned"
            async with wire.link(friend) as other:
                async with wire.link(third) as last:
                    await last.synced()
                await other.synced()
                chance = random.Random(1)
                made = Stage(
                    hub, founder, friend, Enemy(third.key, theirs.engine, chance)
                )
                made.links += [link, other]
                loop = asyncio.get_running_loop()
                loop.set_exception_handler(lambda _, what: made.unhandled.append(what))
                yield made
                await _is_undisturbed(made, wire)


async def _is_undisturbed(stage: Stage, wire: Wire) -> None:
    """Everybody honest goes on; everything stored is good; nothing void shows."""
    for task in stage.ended:
        if not task.done():
            task.cancel()
    async with asyncio.timeout(20):
        results = await asyncio.gather(*stage.ended, return_exceptions=True)
    errors = [
        error
        for error in results
        if isinstance(error, BaseException)
        and not isinstance(error, asyncio.CancelledError)
    ]
    assert errors == []
    assert stage.unhandled == []
    for link in stage.links:
        assert link.state == "live", f"{link.state}: {link.error}"
    space, theirs = stage.founder.spaces()[0], stage.friend.spaces()[0]
    async with space.transaction() as tx:
        tx["note/2"]["title"] = "still here"
    async with asyncio.timeout(20):
        await tx.receipt.durable_on("hub")
        while space.engine.delivery.version() != theirs.engine.delivery.version():
            await asyncio.sleep(0.01)
    assert (await theirs.get("note/2"))["title"] == "still here"
    assert (await theirs.get("note/3"))["title"] == "before it turned"
    for keeper in (stage.hub.find(space.engine.keeper.namespace), space.engine):
        assert keeper is not None
        _passes_every_check(keeper.keeper)
    shown = _shown(space)
    assert shown == _shown(theirs)
    async with space.engine.turn:
        await space.engine.rebuild()
    assert _shown(space) == shown


def _passes_every_check(keeper: Keeper) -> None:
    again = Keeper(keeper.store, -1, keeper.namespace, keeper.lineage, ED25519)
    rows = [row for _, row in keeper.rows_after(0, 10**6)]
    admission = again.admit(rows)
    assert admission.refused == []
    assert len(admission.stored) == len(rows)


def _shown(space: Space) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted({*space.engine.documents.in_memory(), "note/1", "note/3"}):
        document = space.engine.documents.find(name)  # type: ignore[arg-type]
        if document is not None and document.visible:
            found[name] = document.canonical()
    return found


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
async def test_mutants(
    stage: Stage, kind: type[Message], record_property: Callable[[str, object], None]
) -> None:
    count = -(-MUTANTS // len(TYPES))
    done = 0
    chance = random.Random(kind.__name__)
    while done < count:
        if kind in (Hello, Auth):
            # Together: whoever fails to authenticate is kept waiting for a while.
            some = min(50, count - done)
            await asyncio.gather(
                *(_while_dialling(stage, kind, chance) for _ in range(some))
            )
            done += some
        elif kind in TO_DIALLER:
            await _while_dialled(stage, kind, chance)
            done += 1
        else:
            done += await _on_a_live_link(stage, kind, chance, count - done)
    await asyncio.sleep(0)

    assert sum(stage.outcomes.values()) == done >= count
    if kind not in (Hello, Challenge):  # before there is a key to seal with
        wire = sum(n for how, n in stage.outcomes.items() if how.startswith("wire"))
        assert done >= 2 * wire, "most were mutated before they were sealed and signed"
    if kind is Goodbye:
        stage.outcomes = Counter({"closed as told": done})  # with the code it named
    else:
        assert stage.codes <= CLOSING, "the reason is one of the sender's making"
    record_property(kind.__name__, dict(stage.outcomes))


async def _while_dialling(
    stage: Stage, kind: type[Message], chance: random.Random
) -> None:
    """One handshake with a wrong HELLO, or a wrong AUTH that is signed and sealed."""
    ours, theirs = pair()
    stage.run(
        Listening(chance.choice((stage.hub, stage.founder)), theirs, stage.registry)
    )
    session = stage.enemy.session(dials=True)
    if kind is Hello:
        frame = mutant(session.frames_to_send()[0], chance)
        session._frames.append(frame)
    else:
        session._machine.spoil = lambda plain: mutant(plain, chance)  # type: ignore[union-attr]
    live = await receive(
        session, ours, lambda: session.state is State.LIVE, lambda: [stage.enemy.open()]
    )
    stage.outcomes["harmless" if live else stage.closed(session, ours)] += 1
    await ours.close(1000, "next")


async def _while_dialled(
    stage: Stage, kind: type[Message], chance: random.Random
) -> None:
    """A replica dials a hostile hub."""
    session, ours = stage.dialled(chance.choice((stage.founder, stage.friend)))
    keeper = stage.founder.spaces()[0].engine.keeper
    if kind is Challenge:
        session._machine.spoil = lambda plain: mutant(plain, chance)  # type: ignore[union-attr]
    if kind is Ready:
        plain = mutant(msgspec.msgpack.encode(stage.enemy.valid(Ready, keeper)), chance)
        session.ready = plain
    live = await receive(session, ours, lambda: session.state is State.LIVE)
    if live and kind in (Opened, Refusal):
        session.say(
            mutant(msgspec.msgpack.encode(stage.enemy.valid(kind, keeper)), chance)
        )
    survived = live and await _is_heard(session, ours)
    stage.outcomes["harmless" if survived else stage.closed(session, ours)] += 1
    await ours.close(1000, "next")


async def _on_a_live_link(
    stage: Stage, kind: type[Message], chance: random.Random, most: int
) -> int:
    """Mutants one after the other, for as long as the connection bears them."""
    host: Any = chance.choice((stage.hub, stage.founder))
    session, ours = await stage.dial(host)
    hosted = host.find(stage.enemy.engine.keeper.namespace)
    done = 0
    while done < min(PER_CONNECTION, most):
        done += 1
        message = stage.enemy.valid(kind, hosted.keeper)
        plain = msgspec.msgpack.encode(message)
        session.told.clear()
        if chance.random() < 0.2:
            # On the wire, as somebody between the two would.
            session.say(plain)
            frame = session._frames.pop()
            session._frames.append(mutated_bytes(frame, chance))
            how = "wire: "
        else:
            inside = kind in (Data, StateDigest, Notice) and chance.random() < 0.7
            session.say(plain if inside else mutant(plain, chance))
            how = ""
        survived = await _answers(session, ours)
        if survived and kind is Data:
            await hosted.flush()  # what was good is acknowledged after its commit
            survived = await _answers(session, ours)
        outcome = _outcome(session.told) if survived else stage.closed(session, ours)
        stage.outcomes[how + outcome] += 1
        if not survived:
            break
    await ours.close(1000, "next")
    return done


async def _is_heard(session: HostileSession, connection: MemoryConnection) -> bool:
    """Tell whether a dialler still answers."""
    pong = msgspec.msgpack.decode(msgspec.msgpack.encode(Pong()))
    session.say(msgspec.msgpack.encode(Ping()))
    return await receive(session, connection, lambda: pong in session.told)


async def _answers(session: HostileSession, connection: MemoryConnection) -> bool:
    """Tell whether the peer still talks to us: it refuses a question of ours."""
    number = session.asked = session.asked % 500 + 1
    question = Open(
        *(500 + number, os.urandom(32), None, None, 0, None, bytes(16)),
        *(0, None, bytes(32)),
    )
    session.say(msgspec.msgpack.encode(question))

    def refused() -> bool:
        return any(told[:2] == [12, 500 + number] for told in session.told)

    survived = await receive(session, connection, refused)
    session.told = [told for told in session.told if told[:2] != [12, 500 + number]]
    return survived


def _outcome(told: list[Any]) -> str:
    said = {message[0] for message in told}
    for tag, outcome in (
        (12, "refused"),
        (11, "granted"),
        (22, "stored"),
        (20, "asked"),
    ):
        if tag in said:
            return outcome
    return "harmless"
