"""A pipeline over a WebSocket: found by its address, lost and found again."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

import syncengine
import transport
from syncengine import (
    Invalid,
    MemoryPipeline,
    MultiMasterManager,
    OutcomeUnknown,
    PipelineError,
)
from syncengine.storage.pipeline.contract import ENTRY_BYTES_MAX
from transport.pipeline import SUBPROTOCOL

SECRET = bytes(range(16))


async def test_who_has_another_secret_is_not_let_in() -> None:
    async with transport.serve_pipeline(MemoryPipeline(4)) as server:
        url, _, secret = server.address.partition("/#")
        other = "a" * len(secret)
        with pytest.raises(PipelineError, match="401"):
            await transport.WebSocketPipeline.open(f"{url}/#{other}")
        with pytest.raises(InvalidStatus):
            await connect(url, subprotocols=[SUBPROTOCOL])
        for wrong in (url, f"{url}/#short", f"http://x/#{secret}", "nonsense"):
            with pytest.raises(Invalid, match="address"):
                await transport.WebSocketPipeline.open(wrong)
    with pytest.raises(Invalid, match="no TLS"):
        transport.serve_pipeline(MemoryPipeline(4), "0.0.0.0")
    with pytest.raises(Invalid, match="16 bytes"):
        transport.serve_pipeline(MemoryPipeline(4), secret=b"x")


async def test_more_than_one_answer_holds_is_read_all_the_same() -> None:
    async with (
        transport.serve_pipeline(MemoryPipeline(4)) as server,
        await transport.WebSocketPipeline.open(server.address) as far,
    ):
        for number in range(7):
            payload = bytes([number]) * ENTRY_BYTES_MAX
            await far.publish(1, b"ns", b"%d" % number, payload)
        entries = await far.read(1)
        assert [entry.payload[0] for entry in entries] == list(range(7))
        assert len(await far.read(1, limit=5)) == 5


async def test_it_is_dialled_again_and_what_was_under_way_is_unknown() -> None:
    kept = MemoryPipeline(4)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
        server = transport.serve_pipeline(kept, secret=SECRET)
        await server.__aenter__()
        address = server.address
        port = int(address.split(":")[2].split("/")[0])
        far = await transport.WebSocketPipeline.open(address)
        await stack.enter_async_context(far)
        await far.publish(1, b"ns", b"1", b"1")
        waiting = asyncio.ensure_future(anext(far.follow(1, 1)))
        await asyncio.sleep(0.05)
        await server.__aexit__(None, None, None)
        with pytest.raises(OutcomeUnknown):
            await waiting
        with pytest.raises(PipelineError):
            await far.publish(1, b"ns", b"2", b"2")
        async with transport.serve_pipeline(kept, port=port, secret=SECRET):
            ack = await far.publish(1, b"ns", b"2", b"2")
            assert (await anext(far.follow(1, 1))).position == ack.position


async def test_what_is_no_request_ends_the_connection() -> None:
    async with transport.serve_pipeline(MemoryPipeline(4)) as server:
        url, _, secret = server.address.partition("/#")
        for wrong in (b"\xc1", b"\x93\x01\xa4nope\x01", "text"):
            socket = await connect(
                url, subprotocols=[SUBPROTOCOL],
                additional_headers={"Authorization": f"Bearer {secret}"},
            )  # fmt: skip
            await socket.recv()
            await socket.send(wrong)
            await socket.wait_closed()
            assert socket.close_code in (1003, 1007)


async def test_masters_converge_over_it() -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        server = await stack.enter_async_context(
            transport.serve_pipeline(MemoryPipeline(4))
        )
        one, two = [
            await stack.enter_async_context(syncengine.open(":memory:"))
            for _ in range(2)
        ]
        space = await one.namespace("home")
        other = await two.join(await space.invite("write"), name="home")
        masters: list[MultiMasterManager] = []
        for name, each in (("a", space), ("b", other)):
            carried = await transport.WebSocketPipeline.open(server.address)
            await stack.enter_async_context(carried)
            master = MultiMasterManager(name, carried, each)
            masters.append(await stack.enter_async_context(master))
        await masters[0].write("e", {"n": 1})
        await masters[0].drain()
        await masters[1].caught_up()
        entity = await masters[1].get_entity("e")
        assert entity is not None
        assert entity.data == {"n": 1}


# --- servers that are none ------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(*messages: bytes) -> AsyncGenerator[str]:
    """Give the address of something that says these, one for each that it hears; the
    first at once."""

    async def say(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(messages[0])
            for message in messages[1:]:
                await socket.recv()
                await socket.send(message)
            await socket.wait_closed()

    async with serve(say, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/#{'a' * 26}"


GREETING = msgspec.msgpack.encode([4, b"id"])

GREETINGS: list[Any] = [5, [4], [0, b"x"], ["4", 5], {}]
ANSWERS: list[Any] = [{}, [0, "x"], [0, [1]], [0, None, 5], [[1], 2]]


@pytest.mark.parametrize(
    "greeting", [b"", b"\xff\xff", *map(msgspec.msgpack.encode, GREETINGS)]
)
async def test_what_greets_otherwise_is_no_pipeline(greeting: bytes) -> None:
    async with answering(greeting) as address, asyncio.timeout(10):
        with pytest.raises(PipelineError, match="no pipeline"):
            await transport.WebSocketPipeline.open(address)


@pytest.mark.parametrize(
    "answer", [b"", b"\xff\xff", b"\x01", *map(msgspec.msgpack.encode, ANSWERS)]
)
async def test_who_answers_nonsense_is_left(answer: bytes) -> None:
    """Nobody waits for ever, and it can be closed."""
    async with answering(GREETING, answer) as address, asyncio.timeout(10):
        far = await transport.WebSocketPipeline.open(address)
        async with far:
            with pytest.raises(PipelineError):
                await asyncio.gather(far.bounds(1), far.bounds(1))


async def test_who_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport.pipeline.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("transport.pipeline.ANSWER_SECONDS", 0.1)
    async with (
        answering(GREETING) as address,
        await transport.WebSocketPipeline.open(address) as far,
        asyncio.timeout(10),
    ):
        with pytest.raises(OutcomeUnknown, match="in time"):
            await far.publish(1, b"ns", b"id", b"")


async def test_a_pipeline_that_fails_is_said_to_whoever_asked() -> None:
    class Broken(MemoryPipeline):
        async def bounds(self, partition: int) -> tuple[int, int]:
            raise RuntimeError("a bug")

    async with (
        transport.serve_pipeline(Broken(4)) as server,
        await transport.WebSocketPipeline.open(server.address) as far,
        asyncio.timeout(10),
    ):
        with pytest.raises(PipelineError, match="bounds failed there"):
            await far.bounds(1)
        assert await far.read(1) == []
