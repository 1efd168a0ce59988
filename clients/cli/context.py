"""What every command is handed, and how errors become exit codes."""

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import click

import syncengine
from clients.cli import settings as configuration
from clients.cli.output import INTERRUPTED, Output, exit_code
from syncengine.errors import NotFound, StoreLocked, SyncError

# How long a command waits for another one that has the file open.
LOCK_SECONDS = 2.0


class Context:
    """What every command is handed."""

    def __init__(self, as_json: bool, db: str | None, namespace: str | None):
        self.out = Output(as_json)
        self._db = db
        self._namespace = namespace

    @functools.cached_property
    def settings(self) -> configuration.Settings:
        return configuration.load(self._db, self._namespace)

    async def space(self, replica: "syncengine.Replica") -> "syncengine.Space":
        """Return the namespace meant: the one named, or the only one."""
        name = self.settings.namespace
        if name is not None:
            return await replica.namespace(name, create=False)
        spaces = replica.spaces()
        if len(spaces) == 1:
            return spaces[0]
        names = ", ".join(str(space.name) for space in spaces) or "none"
        raise NotFound(f"say which namespace (--namespace); there are: {names}")

    @contextlib.asynccontextmanager
    async def open(
        self, *, create: bool = False
    ) -> AsyncGenerator["syncengine.Replica", None]:
        """Open the replica; a command that ends soon is waited for."""
        path = self.settings.db
        if not create and not Path(path).exists():
            raise NotFound(f"there is no {path}; `syncengine init` or `join` makes it")
        async with await _patiently(path) as replica:
            yield replica

    def note_outsider(self, space: "syncengine.Space") -> None:
        """Say so when this file is not let in (any more): its key is another one."""
        if not space.is_member and not space.is_new:
            self.out.note(
                "This device has no right to the namespace yet (a restored or copied "
                "file has a new key): what is written stays here until you `join` "
                "with a fresh invite, or `recover` with the recovery key."
            )


async def _patiently(path: str) -> "syncengine.Replica":
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return await syncengine.open(path)
        except StoreLocked:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.05)


Command = Callable[..., Coroutine[Any, Any, int | None]]


def command(function: Command) -> Callable[..., None]:
    """Make a click command of an async function: errors become exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_obj
    @functools.wraps(function)
    def run(context: Context, /, *args: Any, **kwargs: Any) -> None:
        context.out.as_json |= kwargs.pop("as_json")
        try:
            code = asyncio.run(function(context, *args, **kwargs))
        except TimeoutError as error:
            context.out.error(TimeoutError(str(error) or "no answer in time"))
            sys.exit(exit_code(error))
        except (SyncError, OSError, UnicodeDecodeError) as error:
            context.out.error(error)
            sys.exit(exit_code(error))
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(INTERRUPTED)
        sys.exit(code or 0)

    return run
