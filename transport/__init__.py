"""Connects replicas: dial a hub or a peer, or serve one, over WebSockets.

async with transport.connect(replica, address) as link:
    await link.synced()
"""

import ssl
from typing import TYPE_CHECKING, Any

from syncengine.errors import Invalid, NotFound
from syncengine.replication.address import parse_address

if TYPE_CHECKING:
    from syncengine.replication.host import Hosted
    from syncengine.replication.link import Link
    from syncengine.replication.replica import Replica
    from transport.pipeline import WebSocketPipeline, serve_pipeline
    from transport.server import Served, Server

__all__ = ["WebSocketPipeline", "connect", "serve", "serve_pipeline"]


def __getattr__(name: str) -> Any:
    if name in ("WebSocketPipeline", "serve_pipeline"):
        from transport import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def connect(
    replica: "Replica",
    address: str | None = None,
    *,
    namespaces: list[str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> "Link":
    """Return a link to a hub or peer; use with `async with`. Enters at once.

    `address` is what `server.address` gave; without it, the hub that the newest
    invite named. `namespaces` are names; without them, all that the replica holds,
    and one that another hub is known for is not waited for. Raises `Invalid` for what
    is no address, `NotFound` for a name that is not here.
    """
    from syncengine.replication.address import Address
    from syncengine.replication.link import Link
    from transport.websocket import WebSocketConnection, dial

    if address is None:
        invited = replica.invited_addresses()
        if not invited:
            raise Invalid(
                "no address was given, and no invite named one; pass the address that "
                "the hub printed"
            )
        address = invited[0]

    to = parse_address(address)
    known = {space.name for space in replica.spaces()}
    for name in namespaces or ():
        if name not in known:
            there = ", ".join(sorted(filter(None, known))) or "none"
            raise NotFound(f"there is no namespace {name!r} here; there are: {there}")

    def chosen() -> "list[Hosted]":
        return [
            space.engine
            for space in replica.spaces()
            if namespaces is None or space.name in namespaces
        ]

    def lives_elsewhere(hosted: "Hosted") -> bool:
        hub = None if namespaces else replica.hub_of(hosted.keeper.namespace)
        try:
            return hub is not None and parse_address(hub).device != to.device
        except Invalid:
            return False

    async def connect_to(address: Address) -> WebSocketConnection:
        return await dial(address, tls)

    return Link(replica, connect_to, to, chosen, lives_elsewhere)


def serve(
    host: "Served",
    bind: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ssl.SSLContext | None = None,
    public_url: str | None = None,
    insecure_plaintext: bool = False,
    behind_proxy: bool = False,
) -> "Server":
    """Return a server of a hub or a replica; use with `async with`.

    `public_url` is how others reach it (`wss://sync.example.org`), where that is not
    the bound address. Raises `Invalid` off loopback without TLS.
    """
    from transport.server import Server

    return Server(
        host,
        bind,
        port,
        tls=tls,
        public_url=public_url,
        insecure_plaintext=insecure_plaintext,
        behind_proxy=behind_proxy,
    )
