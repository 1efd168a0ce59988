"""The commands. Each does one thing through the public interface and prints it."""

import asyncio
import contextlib
import itertools
import json
import logging
import math
import re
import signal
import sys
from collections.abc import Coroutine, Generator, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import syncengine
import transport
from clients.cli import control, fleet, node
from clients.cli import master as master_
from clients.cli.context import Context, command
from clients.cli.listening import listening, parse_listen
from clients.cli.output import (
    INTERRUPTED,
    NO,
    USAGE,
    Output,
    exit_code,
    stderr,
    table,
)
from syncengine.errors import Invalid, NotFound, SyncError
from syncengine.ids import base32, document_id, parse_document_id
from syncengine.system import SystemEntropy
from syncengine.trust.invite import parse as parse_invite
from syncengine.values import unescape

# How long a one-time command waits for the hub before it gives up.
CONNECT_SECONDS = 15.0

# Documents that are imported in one transaction.
IMPORT_DOCUMENTS = 200


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--db", help="The replica's file [SYNCENGINE_DB; sync.db].")
@click.option("-n", "--namespace", help="Which namespace, where there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
@click.pass_context
def cli(
    ctx: click.Context,
    db: str | None,
    namespace: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Documents in a plain SQLite file that work offline and sync."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    ctx.obj = Context(as_json, db, namespace)


@cli.command()
@click.argument("name", default="main")
@command
async def init(context: Context, name: str) -> None:
    """Make a replica and a namespace in it, called NAME."""
    path = context.settings.db
    async with context.open(create=True) as replica:
        fresh = not any(space.name == name for space in replica.spaces())
        space = await replica.namespace(name)
        data = {
            "db": path,
            "namespace": name,
            "namespace_id": space.id,
            "device": replica.id,
            "recovery_key": space.recovery_key,
            "created": fresh,
        }
        if not fresh:
            text = f"{path} has the namespace {name} already."
            if space.recovery_key is not None:
                text += (
                    f"\n\nIts recovery key is still in {path}-sync/recovery-*.txt: "
                    "write it down, keep it apart, then delete that file."
                )
            context.out.result(data, text)
            return
        context.out.result(
            data,
            f"{path} holds the namespace {name}.\n\n"
            f"Recovery key (write it down, keep it apart from this device, then delete "
            f"{path}-sync/recovery-*.txt):\n\n    {space.recovery_key}",
        )


@cli.command()
@click.option("--lose-unsent", is_flag=True, help="Also what is on no other disk.")
@command
async def clear(context: Context, lose_unsent: bool) -> None:
    """Take a namespace out of the file; others keep what they have of it."""
    async with context.open() as replica:
        space = await context.space(replica)
        name = space.name or space.id
        await space.clear(lose_unsent=lose_unsent)
        data = {"cleared": name, "namespace_id": space.id}
        context.out.result(data, f"{name} is not in {context.settings.db} any more.")


@cli.command()
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
    keep = _duration(keep_moved).total_seconds()
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


@cli.command()
@click.option(
    "--ops",
    type=click.Choice(["read", "write", "lead"]),
    default="write",
    show_default=True,
    help="lead: vote, and be elected.",
)
@click.option("--expires", default="24h", show_default=True, help="30m, 24h, 7d.")
@click.option("--uses", default=1, show_default=True)
@click.option("--hub", "address", help="The hub to be dialled by the newcomer.")
@click.option("--qr", is_flag=True, help="Show it as a QR code too.")
@click.option("--offline", is_flag=True, help="Do not tell the hub now.")
@click.option(
    "--timeout",
    "seconds",
    default=CONNECT_SECONDS,
    show_default=True,
    help="Seconds to wait for the hub.",
)
@command
async def invite(
    context: Context,
    ops: str,
    expires: str,
    uses: int,
    address: str | None,
    qr: bool,
    offline: bool,
    seconds: float,
) -> int:
    """Invite a device into the namespace."""
    _check_seconds(seconds)
    if control.is_there(context.settings.db):
        seconds_left = _duration(expires).total_seconds()
        asked = {"ops": ops, "uses": uses, "expires": seconds_left}
        text = await control.ask(
            context.settings.db, {"do": "invite", "hub": address or "", **asked}
        )
        if text is not None:  # a node has the file
            context.out.result({"invite": text, "uses": uses, "ops": ops}, text)
            return 0
    async with context.open() as replica:
        space = await context.space(replica)
        known = replica.invited_addresses()
        hub = address or context.settings.address or next(iter(known), "")
        made = await space.invite(ops, hub=hub, expires=_duration(expires), uses=uses)
        context.out.result({"invite": str(made), "uses": uses, "ops": ops}, str(made))
        if qr:
            context.out.note(made.qr())
        if hub and not offline:
            try:
                async with transport.connect(replica, hub) as link:
                    await _within(link.synced(), link, seconds)
            except (TimeoutError, SyncError) as error:
                context.out.note(
                    f"The hub has not been told of it ({error}). Run `syncengine sync` "
                    "before it is used."
                )
                return exit_code(error)
        elif not offline:
            context.out.note(
                "No hub is known: the newcomer is told none. `syncengine sync ADDRESS` "
                "first, or name one with --hub."
            )
        return 0


@cli.command()
@click.argument("invitation")
@click.option("--name", help="Its name here.  [default: main]")
@click.option("--adopt", is_flag=True, help="Bring a local namespace of that name in.")
@command
async def join(
    context: Context, invitation: str, name: str | None, adopt: bool
) -> None:
    """Join a namespace by INVITATION (- reads it); works offline. Then `sync`.

    A restored or copied file is let in again by a fresh invitation.
    """
    if invitation == "-":
        invitation = sys.stdin.read()
    invite = parse_invite(invitation)
    async with context.open(create=True) as replica:
        here = any(space.engine.keeper.namespace == invite.namespace
                   for space in replica.spaces())  # fmt: skip
        if name is None and not here:
            name = "main"
        space = await replica.join(invite, name=name, adopt=adopt)
        data = {"namespace": space.name, "namespace_id": space.id, "device": replica.id}
        context.out.result(data, f"Joined as {space.name}. Next: syncengine sync")


@cli.command()
@click.option("--namespace-id", help="Which, when it is not in the file.")
@click.option("--name", default="main", show_default=True, help="Its name here then.")
@click.option(
    "--key", prompt="Recovery key", hide_input=True, help="Asked for if not given."
)
@command
async def recover(
    context: Context, namespace_id: str | None, name: str, key: str
) -> None:
    """Make this device an owner's again, by the key that `init` printed. Then `sync`.

    In a restored backup; or, with --namespace-id, of what a hub still has.
    """
    async with context.open(create=namespace_id is not None) as replica:
        space = await replica.recover(key, namespace_id, name=name)
        data = {"namespace": space.name, "namespace_id": space.id, "device": replica.id}
        context.out.result(data, f"Owner of {space.name} again. Next: syncengine sync")


@cli.command()
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
    _check_seconds(seconds)
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
                    await _within(link.synced(), link, seconds)
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


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise Invalid(f"--timeout is a number of seconds, not {seconds:g}")


async def _within(
    waiting: Coroutine[Any, Any, None], link: Any, seconds: float
) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        why = f": {link.error}" if link.error else ""
        raise TimeoutError(
            f"not in sync after {seconds:g} s{why}; everything is kept, try again later"
        ) from None


@cli.command()
@click.argument("path")
@command
async def get(context: Context, path: str) -> None:
    """Print a document (collection/id) or a part of it (collection/id/field/...)."""
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        collection, key, *steps = path.split("/")
        name = document_id(collection, unescape(key))
        document = reader.document(reader.number(context.settings.namespace), name)
        value = document.to_value()
        for step in map(unescape, steps):
            value = _step(value, step, path)
    except (ValueError, TypeError) as error:
        if isinstance(error, SyncError):
            raise
        raise Invalid("a path is collection/id[/field...]", path=path) from error
    finally:
        reader.close()
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )
    context.out.result({"path": path, "value": value}, text)


def _step(value: Any, step: str, path: str) -> Any:
    try:
        return value[int(step) if isinstance(value, list) else step]
    except (KeyError, IndexError, ValueError, TypeError):
        raise NotFound(f"there is no {path}") from None


_ASSIGNMENT = re.compile(r"([^=:+]+)(?::(text|counter))?(\+?=)(.*)", re.DOTALL)


@cli.command()
@click.argument("path")
@click.argument("assignments", nargs=-1)
@click.option("--delete", is_flag=True, help="Delete the document.")
@command
async def put(
    context: Context, path: str, assignments: tuple[str, ...], delete: bool
) -> None:
    """Write to a document: FIELD=VALUE, FIELD:text=TEXT (or @FILE), FIELD:counter+=N.

    VALUE is JSON, or else taken as text.
    """
    collection, slash, key = path.partition("/")
    path = parse_document_id(f"{collection}{slash}{unescape(key)}")
    if not assignments and not delete:
        raise Invalid("nothing to write: give FIELD=VALUE or --delete")
    parsed: list[tuple[str, str | None, str, str]] = []
    for assignment in assignments:
        match = _ASSIGNMENT.fullmatch(assignment)
        if match is None:
            raise Invalid(f"{assignment!r} is not FIELD=VALUE")
        field, kind, operator, raw = match.groups()
        parsed.append((field, kind, operator, raw))
    async with context.open() as replica:
        space = await context.space(replica)
        async with space.transaction() as tx:
            if delete:
                tx.delete(path)
            page = tx[path]
            for field, kind, operator, raw in parsed:
                _assign(page, field, kind, operator, raw)
        context.out.result({"path": path, "pending": space.pending}, "Written.")
        context.note_outsider(space)


def _assign(page: Any, field: str, kind: str | None, operator: str, raw: str) -> None:
    if kind == "text":
        text = _read(raw[1:]) if raw.startswith("@") else raw
        if operator == "+=":
            page.text(field).append(text)
        else:
            page.text(field).replace(text)
    elif kind == "counter" or operator == "+=":
        if kind != "counter" or operator != "+=":
            raise Invalid("a counter is added to: FIELD:counter+=N", path=field)
        try:
            page.counter(field).increment(json.loads(raw))
        except json.JSONDecodeError as error:
            raise Invalid(f"{raw!r} is no number", path=field) from error
    else:
        try:
            page[field] = json.loads(raw)
        except json.JSONDecodeError:
            page[field] = raw


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"@FILE is a file of UTF-8 text: {error}", path=path) from error


@cli.command()
@click.argument("collection", required=False)
@command
async def ls(context: Context, collection: str | None) -> None:
    """List collections, or the documents of one."""
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        documents = reader.documents(reader.number(context.settings.namespace))
        if collection is None:
            counts = documents.collections()
            rows = table("collection", "documents")
            for name, count in counts:
                rows.add_row(name, str(count))
            context.out.result({"collections": dict(counts)}, rows)
            return
        ids = [name.partition("/")[2] for name in documents.names(collection, "")]
        if not ids:
            raise NotFound(f"there is no collection {collection}")
        context.out.result({"collection": collection, "ids": ids}, "\n".join(ids))
    finally:
        reader.close()


@cli.command()
@click.argument("query")
@command
async def sql(context: Context, query: str) -> None:
    """Run a SELECT over the typed collections of the namespace.

    A table is there once a program with the class has opened the file; it has the
    document's id and a column for each field. Reads only, beside whoever has the file
    open.
    """
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    try:
        names, found = reader.sql(reader.number(context.settings.namespace), query)
    finally:
        reader.close()
    shown = table(*names)
    for row in found:
        shown.add_row(*(escape(_cell(value)) for value in row))
    rows = [dict(zip(names, row, strict=True)) for row in found]
    context.out.result({"columns": names, "rows": rows}, shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


@cli.command()
@click.argument("path")
@command
async def edit(context: Context, path: str) -> None:
    """Edit a text (collection/id/field) in $EDITOR.

    Bold, links and the like are Markdown there. The file is not kept open meanwhile:
    what you change is written as changes to what the text is by then.
    """
    from syncengine.bridges.markdown import to_markdown, write_markdown

    collection, key, field = (path.split("/") + [""] * 3)[:3]
    if path.count("/") != 2 or not field:
        raise Invalid("name a text as collection/id/field", path=path)
    name, field = document_id(collection, unescape(key)), unescape(field)
    async with context.open() as replica:
        text = await _text(await context.space(replica), name, field)
        before = to_markdown(text)
    try:
        edited = await asyncio.to_thread(click.edit, before, extension=".md")
    except UnicodeDecodeError:
        raise Invalid("the editor saved no UTF-8; nothing was changed") from None
    if edited is not None and not before.endswith("\n"):
        edited = edited.removesuffix("\n")  # given to the last line for the editor
    if edited is None or edited == before:
        context.out.result({"path": path, "changes": 0}, "Nothing was changed.")
        return
    async with context.open() as replica:
        space = await context.space(replica)
        await _text(space, name, field)
        async with space.transaction() as tx:
            made = write_markdown(tx[name].text(field), edited, before)
        data = {"path": path, "changes": made, "pending": space.pending}
        context.out.result(data, f"Written: {made} changes.")
        context.note_outsider(space)


async def _text(
    space: "syncengine.Space", name: str, field: str
) -> list[syncengine.Span]:
    found = await space.get(name, default=None)
    value: Any = "" if found is None else found.get(field, "")
    if not isinstance(value, str | syncengine.Text) or (
        isinstance(value, str) and value
    ):
        raise Invalid(
            f"{name}/{field} is no text that merges; `put` writes it", path=name
        )
    return value.spans() if isinstance(value, syncengine.Text) else []


@cli.command()
@click.argument("prefix", default="")
@click.option("--out", type=click.Path(), help="A file that is not there yet.")
@command
async def export(context: Context, prefix: str, out: str | None) -> None:
    """Print documents (all, or those that begin with PREFIX), a line of JSON each."""
    from syncengine.documents import exchange
    from syncengine.replication.reader import Reader

    reader = Reader(context.settings.db)
    count = 0
    try:
        ns = reader.number(context.settings.namespace)
        with open(out, "x") if out else contextlib.nullcontext(sys.stdout) as file:
            for name in reader.all_names(ns):
                if name.startswith(prefix):
                    record = exchange.dump(reader.document(ns, name))
                    print(json.dumps(record, ensure_ascii=False), file=file)
                    count += 1
    finally:
        reader.close()
    if out:
        context.out.result({"documents": count, "file": out}, f"{count} documents.")


@cli.command()
@click.argument("file", type=click.Path())
@command
async def archive(context: Context, file: str) -> None:
    """Write the namespace with all of its history to FILE, which is not there yet."""
    async with context.open() as replica:
        space = await context.space(replica)
        count = await space.archive(file)
        context.out.result({"rows": count, "file": file}, f"Written: {count} rows.")


@cli.command()
@click.argument("file", type=click.Path(exists=True))
@command
async def unarchive(context: Context, file: str) -> None:
    """Take in a namespace from FILE, as `archive` wrote it; named by -n."""
    async with context.open(create=True) as replica:
        space = await replica.unarchive(file, context.settings.namespace)
        data = {"namespace": space.name, "id": space.id}
        context.out.result(data, f"It is here, as {space.name or space.id[:8]}.")


@cli.command("import")
@click.argument("file", type=click.File())
@command
async def import_(context: Context, file: Any) -> None:
    """Make documents what FILE says (- reads it): lines as `export` prints them.

    What is there is edited where it differs; importing twice changes nothing.
    """

    size = None if file.name == "<stdin>" else Path(file.name).stat().st_size
    count = read = 0

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        nonlocal read
        for number, line in enumerate(file, 1):
            read += len(line.encode())
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("no object")
            except ValueError as error:
                raise Invalid(f"line {number} is no record: {error}") from None
            yield number, record

    async with context.open() as replica:
        space = await context.space(replica)
        waiting = records()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        quiet = not stderr.is_terminal
        with Progress(*columns, console=stderr, transient=True, disable=quiet) as bar:
            task = bar.add_task("Importing", total=size)
            while page := list(itertools.islice(waiting, IMPORT_DOCUMENTS)):
                async with space.transaction() as tx:
                    for number, record in page:
                        try:
                            tx.load(record)
                        except Invalid as error:
                            raise Invalid(f"line {number}: {error}") from error
                count += len(page)
                told = f"Importing: {count:,} documents"
                bar.update(task, completed=read, description=told)
        data = {"documents": count, "pending": space.pending}
        context.out.result(data, f"{count} documents.")
        context.note_outsider(space)


@cli.command()
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


@cli.command()
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


@cli.group()
def conflicts() -> None:
    """What was written at once by several: look at it, decide."""


@conflicts.command("list")
@click.argument("document", required=False)
@click.option("-c", "--count", default=20, show_default=True, help="How many at most.")
@command
async def list_(context: Context, document: str | None, count: int) -> None:
    """List what lost to somebody else's write, the latest first, and entities about
    which masters wait for a person."""
    from syncengine.ids import parse_document_id
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


@cli.command()
@click.argument("path")
@click.option("--address", help="Stay connected to this hub, or to the one known.")
@click.option("--offline", is_flag=True, help="Connect to nothing.")
@command
async def watch(
    context: Context, path: str, address: str | None, offline: bool
) -> None:
    """Print a document (collection/id) or a collection now and whenever it changes."""
    async with context.open() as replica, contextlib.AsyncExitStack() as stack:
        space = await context.space(replica)
        address = address or context.settings.address
        known = replica.invited_addresses()
        if not offline and (address or known):
            await stack.enter_async_context(transport.connect(replica, address))
        async for seen in space.watch(path):
            if "/" in path:
                seen = {path.partition("/")[2]: seen}
            for key, document in seen.items():
                value = None if document is None else document.to_dict()
                name = f"{path.partition('/')[0]}/{key}"
                text = json.dumps(value, ensure_ascii=False, default=str)
                context.out.result({"path": name, "value": value}, f"{name} {text}")


@cli.command()
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


@cli.command()
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


@cli.command()
@click.argument("target")
@command
async def backup(context: Context, target: str) -> None:
    """Write the replica into one file TARGET, without the device's key."""
    async with context.open() as replica:
        await replica.backup(target)
    size = Path(target).stat().st_size
    context.out.result({"backup": target, "bytes": size}, f"{target}: {size:,} bytes")


@cli.command()
@click.option("--trace", type=click.Path(exists=True), help="A recorded session.")
@click.option("--devices", default=3, show_default=True, help="Without --trace.")
@click.option("--speed", default=30.0, show_default=True, help="Times human typing.")
@click.option("--text", type=click.Path(exists=True), help="What is typed.")
@click.option("--keep", type=click.Path(), help="Leave the files in this folder.")
@command
async def demo(
    context: Context,
    trace: str | None,
    devices: int,
    speed: float,
    text: str | None,
    keep: str | None,
) -> int:
    """A hub and devices that edit one text, vanish, are killed, and meet again."""
    from clients.demo import play, replay

    if not 0 < speed < math.inf:
        raise Invalid(f"--speed is a number above 0, not {speed:g}")
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # what it started ends with it
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    if trace is not None:
        return await replay(context.out, trace, keep)
    return await play(context.out, devices, speed, text, keep)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise Invalid(f"a duration is 30m, 24h or 7d, not {text!r}")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    try:
        return timedelta(**{unit: int(match[1])})
    except OverflowError:
        raise Invalid(f"{text} is longer than anything lasts") from None


for _command in (*node.COMMANDS, *master_.COMMANDS, fleet.fleet):
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        if "--json" in sys.argv[1:]:
            Output(as_json=True).error(Invalid(error.format_message()))
        else:
            error.show()
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.Abort):
        stderr.print("interrupted")
        sys.exit(INTERRUPTED)
