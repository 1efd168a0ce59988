"""Real sockets on loopback: what a server accepts, and what it tells strangers."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

import syncengine
import transport
from syncengine import ConnectionLost, Invalid
from syncengine.replication.address import parse_address
from transport.websocket import dial


@pytest.fixture
async def server(tmp_path: Path) -> Any:
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as running,
    ):
        yield running


async def test_two_devices_meet_through_a_hub(server: Any) -> None:
    async with syncengine.open(":memory:") as a, syncengine.open(":memory:") as b:
        space = await a.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "x" * 600_000  # several frames
        async with transport.connect(a, server.address) as link:
            invite = await space.invite("write", hub=link.hub)
            await link.synced()
            theirs = await b.join(str(invite), name="home")
            async with transport.connect(b) as other:
                await other.synced()
                assert len((await theirs.get("note/1"))["title"]) == 600_000
                assert [link.state, other.state] == ["live", "live"]


async def test_offline_one_enters_at_once_and_waits() -> None:
    async with syncengine.open(":memory:") as a:
        await a.namespace("home")
        address = f"ws://127.0.0.1:9/#{'a' * 51}q"
        async with transport.connect(a, address) as link:
            states = link.states()
            seen = [await anext(states), await anext(states)]
        assert seen == ["connecting", "waiting"]
        assert isinstance(link.error, ConnectionLost)


async def test_the_server_closes_politely_and_asks_to_come_back(tmp_path: Path) -> None:
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        syncengine.open(":memory:") as a,
    ):
        await a.namespace("home")
        async with transport.serve(hub) as server:
            link = transport.connect(a, server.address)
            await link.__aenter__()
            await link.connected()
            assert server.connections == 1
        async with asyncio.timeout(5):
            while link.state == "live":
                await asyncio.sleep(0.01)
        assert "closing" in str(link.error)
        await link.close()


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1"])
async def test_off_loopback_needs_tls_or_a_word(tmp_path: Path, bind: str) -> None:
    async with syncengine.open_hub(str(tmp_path / "hub.db")) as hub:
        with pytest.raises(Invalid, match="TLS"):
            transport.serve(hub, bind)
        transport.serve(hub, bind, behind_proxy=True)
        transport.serve(hub, bind, insecure_plaintext=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        transport.serve(hub, bind, tls=context)


async def test_a_browser_of_any_origin_is_turned_away(server: Any) -> None:
    url = parse_address(server.address).url
    with pytest.raises(Exception, match="403"):
        await connect(url, origin="https://evil.example", subprotocols=["sync.v1"])  # type: ignore[arg-type,list-item]  # plain text will do


async def test_plain_http_learns_nothing_but_ok(server: Any) -> None:
    url = parse_address(server.address).url
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(url.rpartition(":")[2])
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read(1000)
    writer.close()
    assert b"hub" not in answer.lower()


async def test_garbage_frames_close_with_a_code_and_disturb_nobody(server: Any) -> None:
    async with syncengine.open(":memory:") as a:
        space = await a.namespace("home")
        async with transport.connect(a, server.address) as link:
            await link.synced()
            for garbage in (b"", b"\xc1", bytes(300), b"\x93\x01\x02"):
                stranger = await dial(parse_address(server.address))
                await stranger.send(garbage)
                with pytest.raises(ConnectionLost):
                    await stranger.receive()
                await stranger.close(1000, "")
            async with space.transaction() as tx:
                tx["note/1"]["title"] = "still here"
            await tx.receipt.durable_on("hub")
            assert link.state == "live"


def test_an_address_is_checked_before_anything_is_dialled() -> None:
    with pytest.raises(Invalid, match="ws://"):
        transport.connect(None, "http://x")  # type: ignore[arg-type]  # never looked at
