"""Every connection keeps the same promises: pipes, and WebSockets on loopback."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from syncengine import ConnectionLost, limits
from transport.memory import pair
from transport.websocket import OPTIONS, WebSocketConnection


@asynccontextmanager
async def sockets() -> AsyncGenerator[tuple[Any, Any]]:
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def accept(socket: Any) -> None:
        arrived.set_result(WebSocketConnection(socket))
        await ended.wait()

    async with serve(accept, "127.0.0.1", 0, **OPTIONS) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", **OPTIONS) as socket:
            yield WebSocketConnection(socket), await arrived
            ended.set()


@pytest.fixture(params=["memory", "websocket"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Any]]:
    async with asyncio.timeout(20):
        if request.param == "memory":
            yield pair()
        else:
            async with sockets() as both:
                yield both


async def test_frames_arrive_whole_and_in_order(ends: tuple[Any, Any]) -> None:
    one, other = ends
    frames = [b"", b"x", bytes(limits.FRAME_BYTES_MAX), *(bytes([n]) for n in range(9))]
    for left, right in ((one, other), (other, one)):
        for frame in frames:
            await left.send(frame)
        assert [await right.receive() for _ in frames] == frames


async def test_closing_ends_whoever_waits_and_says_why(ends: tuple[Any, Any]) -> None:
    one, other = ends
    waiting = asyncio.create_task(other.receive())
    await asyncio.sleep(0.01)
    await one.close(4400, "enough")
    with pytest.raises(ConnectionLost, match="enough"):
        await waiting
    for end in ends:
        with pytest.raises(ConnectionLost):
            await end.receive()
        with pytest.raises(ConnectionLost):
            await end.send(b"x")
        await end.close(1000, "twice is once")


async def test_what_was_sent_before_closing_arrives(ends: tuple[Any, Any]) -> None:
    one, other = ends
    await one.send(b"last words")
    await one.close(1000, "bye")

    assert await other.receive() == b"last words"
    with pytest.raises(ConnectionLost):
        await other.receive()


async def test_a_cancelled_receive_takes_nothing(ends: tuple[Any, Any]) -> None:
    one, other = ends
    for number in range(20):
        waiting = asyncio.create_task(other.receive())
        await asyncio.sleep(0)
        await one.send(bytes([number]))
        waiting.cancel()
        try:
            frame = await waiting
        except asyncio.CancelledError:
            frame = await other.receive()
        assert frame == bytes([number])


async def test_a_sender_waits_for_who_does_not_read(ends: tuple[Any, Any]) -> None:
    one, other = ends
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await one.send(bytes(limits.FRAME_BYTES_MAX))
            sent += 1

    flooding = asyncio.create_task(flood())
    before = -1
    while sent != before:  # until nothing moves any more
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 100
    for _ in range(sent):
        await other.receive()
    while sent == before:
        await asyncio.sleep(0.01)
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
