"""A hub that listens, and replicas that sync with one."""

import asyncio
import contextlib
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import syncengine
import transport
from clients.cli.context import Context, command
from clients.cli.listening import listening, parse_listen
from clients.cli.output import (
    stderr,
)
from clients.cli.seconds import CONNECT_SECONDS, check_seconds, duration, within
from syncengine.errors import NotFound


@click.command()
@click.option(
    "--data", default="hub.db", show_default=True, help="Its file, or a folder for it."
)
@click.option("--listen", default="127.0.0.1:8765", show_default=True)
@click.option("--admit", type=click.Choice(["ticket", "anyone"]), default="ticket")
@click.option("--fleet", "fleet_id", help="The id of the fleet that it is part of.")
@click.option(
    "--keep-moved",
    default="10m",
    show_default=True,
    help="How long it keeps its copy of what it gave to another hub.",
)
@listening
@command
async def hub(
    context: Context,
    data: str,
    listen: str,
    admit: Any,
    fleet_id: str | None,
    keep_moved: str,
    **options: Any,
) -> None:
    """Relay namespaces between devices, until interrupted."""
    at = parse_listen(listen, **options)
    keep = duration(keep_moved).total_seconds()
    if Path(data).is_dir():
        data = str(Path(data) / "hub.db")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with (
        syncengine.open_hub(
            data, admit=admit, fleet=fleet_id, keep_moved=keep
        ) as opened,
        transport.serve(opened, at.host, at.port, **at.options) as server,
    ):
        context.out.note("Connect with this address (its last part is a secret):")
        context.out.result({"address": server.address}, server.address)
        await stop.wait()
        context.out.note("Stopping.")


@click.command()
@click.argument("address", required=False)
@click.option("--watch", is_flag=True, help="Stay connected until interrupted.")
@click.option(
    "--timeout",
    "seconds",
    default=CONNECT_SECONDS,
    show_default=True,
    help="Seconds to wait.",
)
@command
async def sync(
    context: Context, address: str | None, watch: bool, seconds: float
) -> None:
    """Exchange what is missing with the hub at ADDRESS (or the one known)."""
    check_seconds(seconds)
    async with context.open() as replica:
        if not replica.spaces():
            raise NotFound(
                f"{context.settings.db} has no namespace yet; `syncengine init` makes "
                "one, `join` brings one in"
            )
        address = address or context.settings.address
        only = context.settings.namespace
        link = transport.connect(replica, address, namespaces=[only] if only else None)
        async with link:
            if not watch:
                with _catching_up(link):
                    await within(link.synced(), link, seconds)
                await replica.remember(link.hub)
                pending = sum(space.pending for space in replica.spaces())
                data = {"state": "synced", "pending": pending, "hub": link.hub}
                context.out.result(data, "In sync.")
                return
            async for state in link.states():
                error = str(link.error) if link.error and state != "live" else None
                context.out.result(
                    {"state": state, "error": error},
                    state if error is None else f"{state}: {error}",
                )
                if state == "live":
                    await replica.remember(link.hub)
            if link.error is not None:
                raise link.error


@contextlib.contextmanager
def _catching_up(link: Any) -> Generator[None, None, None]:
    """Show how far it is, on stderr, where somebody looks."""
    if not stderr.is_terminal:
        yield
        return
    shown = Progress(
        TextColumn("Catching up"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
    )
    task = shown.add_task("", total=1)

    async def follow() -> None:
        while True:
            passed, there = link.progress
            shown.update(task, completed=passed, total=max(there, 1))
            await asyncio.sleep(0.1)

    with shown:
        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()


COMMANDS = [hub, sync]
