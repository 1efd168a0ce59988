"""How commands talk to the node that has a file open: lines of JSON on a local socket.

The socket lies in the folder beside the file, which nobody else may enter. A request is
`{"do": name, ...}`, an answer `{"ok": {...}}` or `{"error": kind, "message": text}`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import syncengine
from clients.cli.output import plain
from syncengine.errors import Invalid, SyncError

SOCKET = "control"

# Longer ones are cut by the system, without a word.
SOCKET_PATH_MAX = 100

# A request and its answer: a list of what was rescued, say.
LINE_BYTES_MAX = 16 * 1024 * 1024

Do = Callable[[dict[str, Any]], Awaitable[Any]]


def _path(db: str) -> Path:
    path = Path(f"{db}-sync") / SOCKET
    if len(str(path.absolute())) <= SOCKET_PATH_MAX:
        return path.absolute()
    return path  # relative to where the command runs: shorter, mostly


def is_there(db: str) -> bool:
    """Tell whether a node has the file open, or was killed while it had."""
    return _path(db).exists()


@contextlib.asynccontextmanager
async def answering(db: str, do: Do) -> AsyncGenerator[None]:
    """Answer commands while a node has the file open. Raises `Invalid` where the path
    is too long for a socket."""
    path = _path(db)
    if len(str(path)) > SOCKET_PATH_MAX:
        raise Invalid(f"{path} is too long for a socket: start it nearer to the file")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(json.dumps(await _done(do, line), default=plain).encode())
                writer.write(b"\n")
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # of one that was killed: the file's lock says so
    server = await asyncio.start_unix_server(serve, path, limit=LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _done(do: Do, line: bytes) -> dict[str, Any]:
    try:
        result = await do(json.loads(line))
        if is_dataclass(result) and not isinstance(result, type):
            result = asdict(result)
        return {"ok": result}
    except (SyncError, ValueError, TypeError, KeyError) as error:
        return {"error": type(error).__name__, "message": str(error)}


async def ask(db: str, request: dict[str, Any]) -> Any:
    """Ask the node that has the file open; None where there is none. Raises what it
    raised."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(
            _path(db), limit=LINE_BYTES_MAX
        )
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                raise _raised(answer["error"], answer["message"])
            return answer["ok"]
    return None


def _raised(kind: str, message: str) -> Exception:
    found = getattr(syncengine, kind, SyncError)
    try:
        error: Exception = found(message)
    except TypeError:  # it has more to say than its text
        error = SyncError(message)
    return error
