"""Documents, read and written from a shell."""

import asyncio
import contextlib
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import syncengine
import transport
from clients.cli.context import Context, command
from clients.cli.output import (
    stderr,
    table,
)
from syncengine.errors import Invalid, NotFound, SyncError
from syncengine.ids import document_id, parse_document_id
from syncengine.values import unescape

# Documents that are imported in one transaction.
IMPORT_DOCUMENTS = 200

_ASSIGNMENT = re.compile(r"([^=:+]+)(?::(text|counter))?(\+?=)(.*)", re.DOTALL)


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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


@click.command("import")
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


@click.command()
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


COMMANDS = [get, put, ls, sql, edit, export, import_, watch]
