"""Real sockets on loopback: what a server accepts, and what it tells strangers."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

import syncengine
import transport
from syncengine import ConnectionLost, Invalid, NotFound, limits
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


async def test_two_replicas_need_no_hub() -> None:
    async with (
        syncengine.open(":memory:") as a,
        syncengine.open(":memory:") as b,
        transport.serve(a) as server,
        asyncio.timeout(20),
    ):
        space = await a.namespace("home")
        await b.join(await space.invite("write", hub=server.address), name="home")
        async with transport.connect(b) as link:
            await link.synced()
            theirs = await b.namespace("home")
            async with theirs.transaction() as tx:
                tx["note/1"]["title"] = "from b"
            await tx.receipt.durable_on("any")
        assert (await space.get("note/1"))["title"] == "from b"


async def test_namespaces_of_two_hubs_are_on_one_device(
    server: Any, tmp_path: Path
) -> None:
    """Each link serves what is at its hub, and does not wait for the rest."""
    async with (
        syncengine.open_hub(str(tmp_path / "second.db")) as hub,
        transport.serve(hub) as second,
        syncengine.open(":memory:") as a,
        syncengine.open(":memory:") as phone,
        asyncio.timeout(20),
    ):
        for number, hub_address in enumerate((server.address, second.address)):
            name = f"home{number}"
            space = await a.namespace(name)
            async with space.transaction() as tx:
                tx["note/1"]["title"] = name
            async with transport.connect(a, hub_address, namespaces=[name]) as link:
                invite = await space.invite("write", hub=link.hub)
                await link.synced()
            await phone.join(invite, name=name)
        for number, hub_address in enumerate((None, server.address)):
            async with transport.connect(phone, hub_address) as link:
                await link.synced()
                shown = await (await phone.namespace(f"home{1 - number}")).get("note/1")
                assert shown["title"] == f"home{1 - number}"
        with pytest.raises(NotFound, match="home0, home1"):
            transport.connect(phone, namespaces=["hoem"])


async def test_a_link_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub, "localhost", tls=served) as server,
        syncengine.open(":memory:") as a,
        asyncio.timeout(20),
    ):
        await a.namespace("home")
        assert server.address.startswith("wss://localhost:")
        async with transport.connect(a, server.address) as link:
            async for state in link.states():
                if state == "waiting":
                    break
            assert "certificate" in str(link.error)
        async with transport.connect(a, server.address, tls=trusting) as link:
            await link.synced()
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS_MAX", 0.2)
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub, "localhost", tls=served) as server,
        asyncio.timeout(20),
    ):
        silent, writer = await asyncio.open_connection("localhost", server.port)
        assert await silent.read() == b"", "who begins no TLS is let go"
        writer.close()


async def test_more_than_64_strangers_at_once_are_too_many(server: Any) -> None:
    url = parse_address(server.address)
    host, port = "127.0.0.1", int(url.url.rpartition(":")[2])
    idle = [await asyncio.open_connection(host, port) for _ in range(80)]
    with pytest.raises(ConnectionLost, match="503"):
        await dial(url)
    for _, writer in idle:
        writer.close()
    async with asyncio.timeout(5), syncengine.open(":memory:") as a:
        await a.namespace("home")
        async with transport.connect(a, server.address) as link:
            await link.synced()


async def test_a_hub_has_so_many_connections(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
    async with syncengine.open(":memory:") as a:
        await a.namespace("home")
        async with transport.connect(a, server.address) as link:
            await link.synced()
            with pytest.raises(ConnectionLost, match="503"):
                await dial(parse_address(server.address))
            assert link.state == "live"


async def test_a_device_has_so_many_connections(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_PER_DEVICE_MAX", 2)
    async with syncengine.open(":memory:") as a, asyncio.timeout(10):
        names = ("home", "work", "club")
        for name in names:
            await a.namespace(name)
        one, two, three = (
            transport.connect(a, server.address, namespaces=[name]) for name in names
        )
        async with one, two:
            await one.synced()
            await two.synced()
            async with three:
                async for state in three.states():
                    if state == "waiting":
                        break
                assert "too many connections" in str(three.error)
            assert [one.state, two.state] == ["live", "live"]


async def test_a_frame_has_a_size(server: Any) -> None:
    stranger = await dial(parse_address(server.address))
    with contextlib.suppress(ConnectionLost):
        await stranger.send(bytes(limits.WIRE_BYTES_MAX + 1))
    with pytest.raises(ConnectionLost, match="exceeds limit"):
        await stranger.receive()


def test_an_address_may_have_a_path() -> None:
    address = f"wss://example.org/sync/#{'a' * 51}q"

    assert parse_address(address).url == "wss://example.org/sync"
    assert parse_address(str(parse_address(address))) == parse_address(address)


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
