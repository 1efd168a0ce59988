"""Where a command listens for others, and with which TLS."""

import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

import syncengine
import transport
from syncengine.errors import Invalid
from transport.guard import is_loopback

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Listen:
    """What `transport.serve` is given."""

    host: str
    port: int
    options: dict[str, Any]


def listening(command: F) -> F:
    """Give a command the options that say who has the TLS."""
    for option in reversed(
        [
            click.option("--public-url", help="How others reach it: wss://..."),
            click.option(
                "--tls-cert", type=click.Path(exists=True), help="PEM, with chain."
            ),
            click.option("--tls-key", type=click.Path(exists=True)),
            click.option(
                "--insecure-plaintext", is_flag=True, help="No TLS off loopback."
            ),
            click.option(
                "--behind-proxy", is_flag=True, help="A proxy in front has the TLS."
            ),
        ]
    ):
        command = option(command)
    return command


def parse_listen(
    listen: str,
    *,
    public_url: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure_plaintext: bool,
    behind_proxy: bool,
) -> Listen:
    """Return where to listen; raises `Invalid` for what is no address, or is reached
    from elsewhere without TLS."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"--listen is HOST:PORT, not {listen!r}")
    host = host.strip("[]")
    if tls_key is not None and tls_cert is None:
        raise Invalid("--tls-key goes with --tls-cert")
    tls = None
    if tls_cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(tls_cert, tls_key)
        except ssl.SSLError as error:
            raise Invalid(f"--tls-cert, --tls-key: {error}") from error
    elif not (insecure_plaintext or behind_proxy or is_loopback(host)):
        raise Invalid(
            f"{host} is not loopback and there is no TLS: give --tls-cert, or "
            "--behind-proxy where a proxy has one, or --insecure-plaintext"
        )
    return Listen(
        host,
        int(port),
        {
            "tls": tls,
            "public_url": public_url,
            "insecure_plaintext": insecure_plaintext,
            "behind_proxy": behind_proxy,
        },
    )


async def connected(
    stack: contextlib.AsyncExitStack,
    replica: "syncengine.Replica",
    listen: Listen | None,
    peers: Iterable[str],
) -> str | None:
    """Listen, if at all, and dial peers, until the stack is left; return the address at
    which others reach it."""
    address = None
    if listen is not None:
        server = await stack.enter_async_context(
            transport.serve(replica, listen.host, listen.port, **listen.options)
        )
        address = server.address
    for peer in peers:
        await stack.enter_async_context(transport.connect(replica, peer))
    return address
