"""Accepting links for a hub, or for a replica: two laptops need no hub.

Binds to loopback unless told otherwise; refuses to listen elsewhere without TLS,
unless told that a proxy does it or that plaintext is meant. Frames are sealed above
the WebSocket in any case: TLS hides who talks to whom.
"""

import asyncio
import functools
import http
import logging
import socket
import ssl
from types import TracebackType
from typing import Any, Protocol

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from syncengine import limits
from syncengine.errors import Invalid
from syncengine.ids import DeviceId
from syncengine.protocol.codes import Code
from syncengine.replication.address import Address
from syncengine.replication.conversation import Listening, Registry
from syncengine.replication.host import Host
from transport.guard import Guard, is_loopback
from transport.websocket import OPTIONS, SUBPROTOCOL, WebSocketConnection, dial

log = logging.getLogger("syncengine")

# After a restart everybody dials at once: they are asked to spread over this.
RETRY_AFTER_MS = 1000


class Served(Host, Protocol):
    """What can be served: a hub or a replica."""


class Server:
    """A listening host. `address` is exactly what `connect` takes."""

    def __init__(
        self,
        host: Served,
        bind: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        public_url: str | None,
        insecure_plaintext: bool,
        behind_proxy: bool,
    ):
        plain = tls is None and not (insecure_plaintext or behind_proxy)
        if plain and not is_loopback(bind):
            raise Invalid(
                f"{bind} is not loopback and there is no TLS: give a certificate "
                "(tls=...), or say behind_proxy=True where a proxy has one, or "
                "insecure_plaintext=True"
            )
        if public_url is not None and not public_url.startswith(("ws://", "wss://")):
            raise Invalid(
                f"public_url begins with ws:// or wss://, not {public_url[:40]!r}"
            )
        self._host = host
        self._bind = bind
        self._port = port
        self._tls = tls
        self._public_url = public_url
        self._registry = Registry()
        self._behind_proxy = behind_proxy
        self._guard: Guard | None = None
        self._server: WebSocketServer | None = None
        self._done = asyncio.Event()

    # --- life ---------------------------------------------------------------------

    async def __aenter__(self) -> "Server":
        self._host.check_usable()
        options = dict(OPTIONS)
        options.pop("open_timeout")
        if self._tls:  # what is not yet TLS is not counted: it has no more time
            options["ssl_handshake_timeout"] = limits.HANDSHAKE_SECONDS_MAX
        if not self._behind_proxy:
            self._guard = Guard(asyncio.get_running_loop().time)
        try:
            self._server = await self._listen(options)
        except socket.gaierror as error:
            raise Invalid(f"{self._bind} is no address ({error.strerror})") from None
        if (moves := getattr(self._host, "moves", None)) is not None:
            moves.start(dial)
        return self

    async def _listen(self, options: dict[str, Any]) -> WebSocketServer:
        return await serve(
            self._accept,
            self._bind,
            self._port,
            ssl=self._tls,
            origins=[None],  # no browser, until its origin is listed
            process_request=self._check_request,
            server_header=None,
            open_timeout=limits.HANDSHAKE_SECONDS_MAX,
            create_connection=functools.partial(_Guarded, self._guard),  # type: ignore[arg-type]  # called as a class is
            **options,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye to everybody and stop listening."""
        server, self._server = self._server, None
        if server is None:
            return
        if (moves := getattr(self._host, "moves", None)) is not None:
            await moves.stop()
        for conversation in list(self._registry.all):
            conversation.session.close(
                Code.GOING_AWAY, "the server is closing", RETRY_AFTER_MS
            )
            conversation.wake()
        server.close(close_connections=False)
        for _ in range(100):
            if not self._registry.all:
                break
            await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()
        self._done.set()

    async def serve_forever(self) -> None:
        """Wait until closed. Safe to cancel."""
        await self._done.wait()

    # --- who and where ------------------------------------------------------------

    @property
    def port(self) -> int:
        assert self._server is not None, "the server is not listening"
        socket = next(iter(self._server.sockets))
        port: int = socket.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """Where to connect: pins our key, and has the ticket of a hub."""
        url = self._public_url
        if url is None:
            scheme = "wss" if self._tls else "ws"
            host = f"[{self._bind}]" if ":" in self._bind else self._bind
            url = f"{scheme}://{host}:{self.port}"
        url = url.rstrip("/")
        ticket = getattr(self._host, "ticket", None)
        return str(Address(url, DeviceId(self._host.key.public), ticket))

    @property
    def connections(self) -> int:
        """How many links are up."""
        return len(self._registry.all)

    # --- accepting ----------------------------------------------------------------

    def _check_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        if len(self._registry.all) >= limits.CONNECTIONS_MAX:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "full\n")
        waiting = self._registry.unauthenticated_count
        if self._guard is not None:  # those that have not even upgraded count too
            known = len(self._registry.all) - waiting
            waiting = self._guard.open - known - 1  # this one
        if waiting >= limits.UNAUTHENTICATED_MAX:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "busy\n")
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        if not any(SUBPROTOCOL in value for value in offered):
            return connection.respond(http.HTTPStatus.OK, "ok\n")
        return None

    async def _accept(self, socket: Any) -> None:
        connection = WebSocketConnection(socket)
        address = _address(socket)
        closed = await Listening(self._host, connection, self._registry).run()
        wrong = closed.code == Code.AUTHENTICATION and not closed.by_peer
        if wrong and self._guard is not None:
            self._guard.failed(address)


class _Guarded(ServerConnection):
    """A connection that is counted from its first byte on."""

    def __init__(self, guard: Guard | None, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._guard = guard
        self._from = ""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._from = _address(self)
        if self._guard is not None and not self._guard.enter(self._from):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._guard is not None:
            self._guard.leave(self._from)
        super().connection_lost(exc)


def _address(socket: Any) -> str:
    peer = socket.transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""
