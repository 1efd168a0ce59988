"""A WebSocket as a `Connection`: dialling and accepting."""

import logging
import ssl
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from syncengine import limits
from syncengine.errors import ConnectionLost
from syncengine.replication.address import Address

SUBPROTOCOL = Subprotocol("sync.v1")

# The library's own log prints frames and headers at DEBUG: it gets a name of its
# own, which nobody turns on by chance.
WEBSOCKETS_LOG = logging.getLogger("syncengine.websockets")
WEBSOCKETS_LOG.setLevel(logging.WARNING)

OPTIONS: dict[str, Any] = {
    "compression": None,  # batches are compressed; secrets are not beside them
    "max_size": limits.WIRE_BYTES_MAX,
    "max_queue": 16,
    "write_limit": 64 * limits.KIB,
    "ping_interval": None,  # the session asks by itself, on every transport
    "open_timeout": limits.HANDSHAKE_SECONDS_MAX,
    "close_timeout": 1.0,
    "subprotocols": [SUBPROTOCOL],
    "logger": WEBSOCKETS_LOG,
}


class WebSocketConnection:
    """Frames over one WebSocket."""

    def __init__(self, socket: Any):
        self._socket = socket
        # The headers of the upgrade: 4 kB for each connection that nobody reads again.
        for upgrade in (socket.request, socket.response):
            upgrade.headers.clear()

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise ConnectionLost(_reason(error)) from None

    async def receive(self) -> bytes:
        try:
            frame = await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise ConnectionLost(_reason(error)) from None
        assert isinstance(frame, bytes), "frames are asked for undecoded"
        return frame

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code, reason[:100])


def _reason(error: ConnectionClosed) -> str:
    if error.rcvd is not None and error.rcvd.reason:
        return error.rcvd.reason
    return "the connection was lost"


async def dial(
    address: Address, tls: ssl.SSLContext | None = None
) -> WebSocketConnection:
    """Connect to a listener; raises `ConnectionLost`. Safe to cancel."""
    options = dict(OPTIONS)
    if address.url.startswith("wss:"):
        options["ssl"] = tls or ssl.create_default_context()
    try:
        socket = await connect(
            address.url, user_agent_header=None, proxy=None, **options
        )
    except (TimeoutError, OSError, InvalidHandshake, InvalidURI) as error:
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            raise ConnectionLost(f"the server answered {status}") from None
        raise ConnectionLost(str(error) or "no answer in time") from None
    except ConnectionClosed as error:
        raise ConnectionLost(_reason(error)) from None
    return WebSocketConnection(socket)
