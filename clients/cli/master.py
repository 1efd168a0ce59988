"""Commands for masters of a namespace that all write: run one, look at it, tell it."""

import asyncio
import contextlib
import signal
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

import syncengine
from clients.cli import control
from clients.cli.context import Context, command
from clients.cli.listening import Listen, connected, listening, parse_listen
from clients.cli.output import Output, table
from syncengine.conflicts.tagging import to_plain
from syncengine.errors import Invalid, SyncError
from syncengine.replication.multi_master import STRATEGIES

if TYPE_CHECKING:
    from syncengine import EntityConflict, MultiMasterManager, Space

# How long a master that is asked to stop waits until somebody has what it wrote.
DRAIN_SECONDS = 10.0

HOT_SHOWN = 10


async def run(
    context: Context,
    name: str,
    *,
    strategy: Any,
    collection: str,
    listen: Listen | None,
    peers: tuple[str, ...],
) -> None:
    """Take part as a master until interrupted; print what happens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with context.open() as replica, contextlib.AsyncExitStack() as stack:
        space = await context.space(replica)
        address = await connected(stack, replica, listen, peers)
        manager = syncengine.MultiMasterManager(
            name, None, space, strategy, collection=collection
        )

        def detected(conflict: "EntityConflict") -> None:
            masters = ", ".join(version.master_id for version in conflict.versions)
            text = f"conflictDetected: {conflict.entity_id}, between {masters}"
            event = {"event": "conflictDetected", **asdict(conflict)}
            context.out.result(event, text)

        manager.on("conflictDetected", detected)
        master = _Master(manager, space, address or "")
        await stack.enter_async_context(
            control.answering(context.settings.db, master.do)
        )
        await stack.enter_async_context(manager)
        started = {"event": "started", "master": name, "device": replica.id}
        text = f"{name} takes part, and decides by {strategy}"
        if address:
            text += f"\nothers reach it at {address}"
        context.out.result({**started, "address": address}, text)
        coming = asyncio.create_task(master.come())
        await stop.wait()
        context.out.note("Stopping.")
        coming.cancel()
        await master.announce("leaving")
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await manager.drain()
        except TimeoutError:
            context.out.note(
                f"Nobody has all that was written here: {context.settings.db} does, "
                "and sends it when it is opened again."
            )


class _Master:
    """What commands can ask of a running master."""

    def __init__(self, manager: "MultiMasterManager", space: "Space", address: str):
        self._manager = manager
        self._space = space
        self._address = address

    async def come(self) -> None:
        """Say so, once it is in touch: before, a clock that is wrong is not known to
        be, and what is stamped ahead of all others waits."""
        await self._manager.caught_up()
        await self.announce("online")

    async def announce(self, status: str) -> None:
        """Tell the others that this master comes, or goes: an entity says so."""
        name = self._manager.get_master_id()
        now_ms = self._space.engine.clock.now_ms()
        with contextlib.suppress(SyncError):
            await self._manager.write(
                f"_cluster:{name}", {"status": status, "at": now_ms}, type="presence"
            )

    async def do(self, request: dict[str, Any]) -> Any:
        manager = self._manager
        match request["do"]:
            case "write":
                if request["client_op_id"] is not None:
                    raise Invalid("a master's write has no name of its own: no --id")
                key, value = request["key"], request["value"]
                if request["operation"] == "delete":
                    return await manager.delete(key)
                return await manager.write(key, value)
            case "read":
                if request["consistency"] == "strong":
                    raise Invalid("no master knows of all that is written: no --strong")
                found = await manager.get_entity(request["key"])
                if found is None:
                    return {"value": None}
                shown = {**asdict(found), "value": to_plain(found.data)}
                del shown["data"]
                return shown
            case "peers":
                return await self._told()
            case "resolve conflict":
                return await manager.resolve_conflict(
                    request["entity"], request["data"], conflict=request["conflict"]
                )
            case "invite":
                made = await self._space.invite(
                    request["ops"],
                    hub=request["hub"] or self._address,
                    expires=timedelta(seconds=request["expires"]),
                    uses=request["uses"],
                )
                return str(made)
            case "mode":
                if request["mode"] is not None:
                    await self._space.switch_mode(
                        request["mode"], voters=request["voters"]
                    )
                return self._space.mode
            case other:
                raise Invalid(f"a master knows nothing of {other!r}")

    async def _told(self) -> dict[str, Any]:
        manager = self._manager
        return {
            "master": manager.get_master_id(),
            "strategy": manager.get_conflict_strategy(),
            "vector_clock": manager.get_vector_clock().to_json(),
            "metrics": asdict(manager.get_metrics()),
            "conflict_rate": manager.conflict_rate(),
            "hot_entities": await manager.hot_entities(HOT_SHOWN),
            "pending": [
                conflict.entity_id for conflict in await manager.get_pending_conflicts()
            ],
        }


def show_master(out: Output, told: dict[str, Any]) -> None:
    """Print what a master is, and where its conflicts are."""
    metrics = told["metrics"]
    out.note(
        f"{told['master']} decides by {told['strategy']}: {metrics['writes_local']} "
        f"writes, {metrics['events_applied']} of others applied, "
        f"{metrics['event_buffer_size']} wait; {told['conflict_rate']:.0%} of them "
        f"conflicts, {len(told['pending'])} to be decided"
    )
    shown = table("entity", "conflicts", "to be decided")
    for entity, count in told["hot_entities"]:
        shown.add_row(
            escape(entity), str(count), "yes" if entity in told["pending"] else "-"
        )
    out.result(told, shown)


@click.command("master")
@click.argument("name")
@click.option("--strategy", type=click.Choice([s for s in STRATEGIES if s != "custom"]),
              default="lww", show_default=True,
              help="What shows of versions that were written at once.")  # fmt: skip
@click.option("--collection", default="entity", show_default=True)
@click.option("--listen", help="HOST:PORT at which others reach it.")
@listening
@click.option("--peer", "peers", multiple=True, help="An address to be dialled: of a "
              "hub, or of another master.")  # fmt: skip
@command
async def master(
    context: Context,
    name: str,
    strategy: str,
    collection: str,
    listen: str | None,
    peers: tuple[str, ...],
    **options: Any,
) -> None:
    """Take part as the master NAME in a namespace that all write, until interrupted.

    It announces itself in the entity `_cluster:NAME`; who is asked to stop waits until
    another one has all that it wrote.
    """
    at = None if listen is None else parse_listen(listen, **options)
    await run(
        context, name, strategy=strategy, collection=collection, listen=at, peers=peers
    )


COMMANDS = [master]
