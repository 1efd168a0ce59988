"""`transport` without async, for `syncengine.blocking`."""

import ssl

import transport
from syncengine.blocking import Closing, Hub, Loop, Replica, loop
from syncengine.errors import SyncError
from syncengine.replication.link import Link as _AsyncLink
from syncengine.replication.link import LinkState
from transport.server import Server as _AsyncServer


class Link(Closing):
    """A connection that keeps itself up; use with `with`. See `transport.connect`."""

    def __init__(self, loop: Loop, inner: _AsyncLink):
        self._loop = loop
        self._inner = inner

    def __enter__(self) -> "Link":
        self._loop.run(self._inner.__aenter__())
        return self

    def close(self) -> None:
        """End the link; what was acknowledged is on the peer's disk."""
        self._loop.run(self._inner.close())

    @property
    def state(self) -> LinkState:
        """connecting, live, waiting, refused or closed."""
        return self._inner.state

    @property
    def error(self) -> SyncError | None:
        """Why the link is refused; or the last reason why it waits."""
        return self._inner.error

    @property
    def hub(self) -> str:
        """The address to hand on in invites: without its ticket."""
        return self._inner.hub

    def connected(self, *, timeout: float | None = None) -> None:
        """Wait until the link is up; raises `Refused`, `TimeoutError`."""
        self._loop.run(self._inner.connected(), timeout)

    def synced(self, *, timeout: float | None = None) -> None:
        """Wait until what was mine and theirs on entry is on both disks."""
        self._loop.run(self._inner.synced(), timeout)


class Server(Closing):
    """A listening hub or replica; use with `with`. See `transport.serve`."""

    def __init__(self, loop: Loop, inner: _AsyncServer):
        self._loop = loop
        self._inner = inner

    def __enter__(self) -> "Server":
        self._loop.run(self._inner.__aenter__())
        return self

    def close(self) -> None:
        """Say goodbye to everybody and stop listening."""
        self._loop.run(self._inner.close())

    @property
    def address(self) -> str:
        """Where to connect."""
        return self._inner.address

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._inner.port

    def serve_forever(self) -> None:
        """Wait until closed."""
        self._loop.run(self._inner.serve_forever())


def connect(
    replica: Replica,
    address: str | None = None,
    *,
    namespaces: list[str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Link:
    """Return a link to a hub or peer; enters at once. See `transport.connect`."""

    async def made() -> _AsyncLink:  # in the loop's thread: it reads the file
        return transport.connect(replica.inner, address, namespaces=namespaces, tls=tls)

    return Link(loop(), loop().run(made()))


def serve(
    host: Hub | Replica,
    bind: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: ssl.SSLContext | None = None,
    public_url: str | None = None,
    insecure_plaintext: bool = False,
    behind_proxy: bool = False,
) -> Server:
    """Return a server of a hub or a replica. See `transport.serve`."""
    inner = transport.serve(
        host.inner,
        bind,
        port,
        tls=tls,
        public_url=public_url,
        insecure_plaintext=insecure_plaintext,
        behind_proxy=behind_proxy,
    )
    return Server(loop(), inner)


__all__ = ["Link", "Server", "connect", "serve"]
