"""Results on stdout, everything else on stderr; tables for people, JSON for programs.

Exit codes, stable: 0 done, 1 the answer is no (a difference, a finding), 2 wrong
usage, 3 not found, 4 refused by a peer, 5 the file (locked, full, damaged, not
ours), 6 no connection in time, 130 interrupted.
"""

import json
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncengine.errors import (
    AlreadyExists,
    ConnectionLost,
    Invalid,
    NotFound,
    Refused,
    StoreError,
    SyncError,
)

NO, USAGE, NOT_FOUND, REFUSED, FILE, OFFLINE, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

stderr = Console(stderr=True)
stdout = Console()


def exit_code(error: BaseException) -> int:
    """Return the exit code that says what kind of error this is."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, Refused):
        return REFUSED
    if isinstance(error, StoreError):
        return FILE
    if isinstance(error, ConnectionLost | TimeoutError):
        return OFFLINE
    if isinstance(error, Invalid | AlreadyExists):
        return USAGE
    if isinstance(error, OSError):
        return FILE
    return NO if isinstance(error, SyncError) else 70


class Output:
    """Where a command's result goes."""

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def result(self, data: dict[str, Any], text: str | Table | None = None) -> None:
        """Print one result: `data` for programs, `text` for people."""
        if self.as_json:
            print(json.dumps(data, default=plain, ensure_ascii=False), flush=True)
        elif text is not None:
            if isinstance(text, str):
                print(text, flush=True)
            else:
                stdout.print(text)

    def note(self, text: str) -> None:
        """Tell a person something that is no result."""
        if not self.as_json:
            stderr.print(text, highlight=False)

    def error(self, error: BaseException) -> None:
        """Say what went wrong."""
        kind = type(error).__name__
        if self.as_json:
            data = {"error": kind, "message": str(error)}
            print(json.dumps(data, ensure_ascii=False), flush=True)
            return
        # What a user wrote may look like markup, and is quoted in messages.
        message = escape(str(error))
        stderr.print(f"[bold red]{kind}[/]: {message}", highlight=False, markup=True)


def table(*columns: str) -> Table:
    """Return an empty table in the house's style."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column)
    return made


def plain(value: Any) -> Any:
    """Return a value as JSON has it; raises `TypeError`."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value))
    if isinstance(value, Sequence | Set):
        return list(cast(Sequence[Any], value))
    raise TypeError(f"{type(value).__name__} has no JSON form")
