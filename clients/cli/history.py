"""What happened: the log of a document, why it is as it is, and conflicts."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich.markup import escape

import syncengine
from clients.cli import control
from clients.cli.context import Context, command
from clients.cli.output import (
    NO,
    table,
)
from syncengine.errors import Invalid, NotFound
from syncengine.ids import parse_document_id


@click.command()
@click.argument("path", required=False)
@click.option("-c", "--count", default=20, show_default=True, help="How many at most.")
@command
async def log(context: Context, path: str | None, count: int) -> None:
    """List changes, the newest first: when, who, what they touched.

    Of the namespace, or of a document (collection/id) or collection.
    """
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        found = reader.changes(reader.number(context.settings.namespace), path, count)
    finally:
        reader.close()
    shown = table("when", "device", "documents", "")
    for change in found:
        names = ", ".join(change.documents[:3])
        more = len(change.documents) - 3
        shown.add_row(
            change.at.astimezone().isoformat(" ", timespec="seconds"),
            change.author[:8],
            escape(names + (f" and {more} more" if more > 0 else "")),
            escape(f"void: {change.void}" if change.void else "")
            or ("" if change.cursor else "on this device alone"),
        )
    context.out.result({"changes": [asdict(change) for change in found]}, shown)


@click.command()
@click.argument("path")
@command
async def why(context: Context, path: str) -> None:
    """Say why a field (collection/id/field) shows what it shows."""
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        found = reader.why(reader.number(context.settings.namespace), path)
    finally:
        reader.close()

    def line(value: Any, author: str, at: datetime) -> str:
        told = json.dumps(value, ensure_ascii=False, default=str)
        when = at.astimezone().isoformat(" ", timespec="seconds")
        return f"{told}\n  written by {author[:8]} at {when}"

    lines = [line(found.value, found.author, found.at), f"  {found.rule}"]
    if found.arrived is not None:
        when = found.arrived.astimezone().isoformat(" ", timespec="seconds")
        lines.append(f"  change {found.change}, here since {when}")
    for lost in found.over:
        lines.append(f"over {line(lost.value, lost.author, lost.at)}")
    context.out.result(asdict(found), "\n".join(lines))


@click.group()
def conflicts() -> None:
    """What was written at once by several: look at it, decide."""


@conflicts.command("list")
@click.argument("document", required=False)
@click.option("-c", "--count", default=20, show_default=True, help="How many at most.")
@command
async def list_(context: Context, document: str | None, count: int) -> None:
    """List what lost to somebody else's write, the latest first, and entities about
    which masters wait for a person."""
    from syncengine.replication.reader import Reader

    name = None if document is None else parse_document_id(document)
    reader = Reader(context.settings.db)
    try:
        ns = reader.number(context.settings.namespace)
        lost = reader.conflicts(ns, name, count)
        waiting = [] if name else reader.entity_conflicts(ns, pending=True)
    finally:
        reader.close()
    shown = table("when", "where", "lost", "written by", "instead of it")
    for one in lost:
        shown.add_row(
            one.at.astimezone().isoformat(" ", timespec="seconds"),
            escape(one.path),
            escape(_told(one.value)),
            one.author[:8],
            "a deletion" if one.winner is None else f"what {one.winner[:8]} wrote",
        )
    for conflict in waiting:
        masters = ", ".join(version.master_id for version in conflict.versions)
        when = datetime.fromtimestamp(conflict.detected_at / 1000).astimezone()
        shown.add_row(
            when.isoformat(" ", timespec="seconds"),
            escape(f"entity {conflict.entity_id}"),
            f"{len(conflict.versions)} versions",
            escape(masters),
            "to be decided: `syncengine conflicts show`",
        )
    data = {
        "lost": [asdict(one) for one in lost],
        "pending": [asdict(conflict) for conflict in waiting],
    }
    context.out.result(data, shown)


@conflicts.command("show")
@click.argument("entity")
@command
async def show(context: Context, entity: str) -> None:
    """Show the versions of ENTITY between which somebody has to decide."""
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        ns = reader.number(context.settings.namespace)
        found = reader.entity_conflicts(ns, pending=True)
    finally:
        reader.close()
    conflicts = [conflict for conflict in found if conflict.entity_id == entity]
    if not conflicts:
        raise NotFound(f"nobody has to decide about {entity}")
    lines: list[str] = []
    for version in conflicts[-1].versions:
        lines.append(f"{version.master_id}: {_told(version.data)}")
    shown = conflicts[-1]
    lines.append(
        f"decide: syncengine conflicts resolve {entity} JSON --master NAME "
        f"--conflict {shown.id}"
    )
    context.out.result(asdict(shown), "\n".join(lines))


@conflicts.command("resolve")
@click.argument("entity")
@click.argument("data")
@click.option("--master", help="As which master: its name, where none is running.")
@click.option("--conflict", help="The id that `show` told: what came in since then "
              "waits on. Without it, all versions that are here.")  # fmt: skip
@click.option("--collection", default="entity", show_default=True)
@command
async def resolve(
    context: Context,
    entity: str,
    data: str,
    master: str | None,
    conflict: str | None,
    collection: str,
) -> int:
    """Decide about ENTITY: DATA (JSON) stands instead of its versions."""
    try:
        wanted = json.loads(data)
    except ValueError as error:
        raise Invalid(f"{data!r:.60} is no JSON: {error}") from None
    told = f"{entity} is {_told(wanted)} now."
    done = await control.ask(
        context.settings.db,
        {
            "do": "resolve conflict",
            "entity": entity,
            "data": wanted,
            "conflict": conflict,
        },
    )
    if done is not None:
        context.out.result(done, told if done["success"] else done["error"])
        return 0 if done["success"] else NO
    if master is None:
        raise Invalid("no master runs here: say as which one (--master NAME)")
    async with context.open() as replica:
        space = await context.space(replica)
        manager = syncengine.MultiMasterManager.of_file(
            master, space, collection=collection
        )
        async with manager:
            result = await manager.resolve_conflict(entity, wanted, conflict=conflict)
        context.out.result(asdict(result), told if result.success else result.error)
        context.note_outsider(space)
    return 0 if result.success else NO


def _told(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


COMMANDS = [log, why, conflicts]
