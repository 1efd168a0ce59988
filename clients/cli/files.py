"""The file itself: how it is, whether it is whole, and copies of it."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from clients.cli.context import Context, command
from clients.cli.output import (
    NO,
    table,
)
from syncengine.errors import NotFound, SyncError
from syncengine.ids import base32
from syncengine.system import SystemEntropy


@click.command()
@click.argument("file", type=click.Path())
@command
async def archive(context: Context, file: str) -> None:
    """Write the namespace with all of its history to FILE, which is not there yet."""
    async with context.open() as replica:
        space = await context.space(replica)
        count = await space.archive(file)
        context.out.result({"rows": count, "file": file}, f"Written: {count} rows.")


@click.command()
@click.argument("file", type=click.Path(exists=True))
@command
async def unarchive(context: Context, file: str) -> None:
    """Take in a namespace from FILE, as `archive` wrote it; named by -n."""
    async with context.open(create=True) as replica:
        space = await replica.unarchive(file, context.settings.namespace)
        data = {"namespace": space.name, "id": space.id}
        context.out.result(data, f"It is here, as {space.name or space.id[:8]}.")


@click.command()
@command
async def status(context: Context) -> None:
    """Show what is pending, and what each peer has.

    `pending` are changes that no peer has been sent yet; `behind` are rows of our log
    that a peer has not said to be on its disk.
    """
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        read = reader.store.read
        shown = table("namespace", "documents", "pending", "peer", "behind", "contact")
        spaces: list[dict[str, Any]] = []
        wanted = context.settings.namespace
        chosen = reader.number(wanted) if wanted else None
        for ns, name, called in reader.namespaces():
            if chosen not in (None, ns):
                continue
            ((pending,),) = read("SELECT count(*) FROM _sync_outbox WHERE ns = ?", ns)
            ((documents,),) = read(
                "SELECT count(*) FROM _sync_document WHERE ns = ? AND visible", ns
            )
            ((position,),) = read(
                "SELECT position FROM _sync_namespace WHERE ns = ?", ns
            )
            peers: list[dict[str, Any]] = [
                {
                    "peer": base32(peer),
                    "behind": max(0, position - acked),
                    "last_contact": _when(seen_ms),
                }
                for peer, acked, seen_ms in read(
                    "SELECT peer, acked, seen_ms FROM _sync_peer WHERE ns = ?", ns
                )
            ]
            spaces.append(
                {
                    "namespace": called,
                    "namespace_id": base32(name),
                    "documents": documents,
                    "pending": pending,
                    "peers": peers,
                    **reader.leadership(ns),
                }
            )
            title = (called or base32(name)[:8], str(documents), str(pending))
            led = spaces[-1]
            if led["mode"] == "leader-follower":
                leader = led["leader_id"] or "nobody"
                context.out.note(f"{title[0]}: {leader} leads, in term {led['term']}.")
            if led["not_counted"]:
                context.out.note(
                    f"{title[0]}: {led['not_counted']} changes do not count; see "
                    "`syncengine rescue list`."
                )
            if not peers:
                shown.add_row(*title, "-", "-", "never")
            for peer in peers:
                shown.add_row(
                    *title,
                    peer["peer"][:8],
                    str(peer["behind"]),
                    peer["last_contact"] or "never",
                )
        context.out.result({"db": context.settings.db, "namespaces": spaces}, shown)
    finally:
        reader.close()


def _when(ms: int) -> str | None:
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(timespec="seconds")


@click.command()
@click.argument("files", nargs=-1)
@command
async def doctor(context: Context, files: tuple[str, ...]) -> int:
    """Check FILES (or the replica): every batch, every document, the key."""
    from syncengine.replication.doctor import Finding, examine
    from syncengine.trust.keys import ED25519

    reports: list[dict[str, Any]] = []
    for path in files or (context.settings.db,):
        try:
            if not Path(path).exists():
                raise NotFound(f"there is no {path}")
            findings = await examine(path, entropy=SystemEntropy(), scheme=ED25519)
        except SyncError as error:
            if len(files) < 2:
                raise
            findings = [Finding(path, str(error), "name another file")]
        reports.append(
            {
                "file": path,
                "clean": not findings,
                "findings": [
                    {"where": f.where, "what": f.what, "remedy": f.remedy}
                    for f in findings
                ],
            }
        )
    lines: list[str] = []
    for report in reports:
        lines.append(f"{report['file']}: {'clean' if report['clean'] else 'NOT clean'}")
        lines += [
            f"  {f['where']}: {f['what']}\n    {f['remedy']}"
            for f in report["findings"]
        ]
    clean = all(report["clean"] for report in reports)
    context.out.result({"clean": clean, "files": reports}, "\n".join(lines))
    return 0 if clean else NO


@click.command()
@click.argument("target")
@command
async def backup(context: Context, target: str) -> None:
    """Write the replica into one file TARGET, without the device's key."""
    async with context.open() as replica:
        await replica.backup(target)
    size = Path(target).stat().st_size
    context.out.result({"backup": target, "bytes": size}, f"{target}: {size:,} bytes")


COMMANDS = [status, doctor, backup, archive, unarchive]
