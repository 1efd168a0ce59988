"""A namespace in one file, with all of its history: every row of its log as it was
signed, so that whoever reads it can check it as if a peer had sent it.

`sync1:archive`, a zero byte, the namespace's id; then pieces, each `u32 length || zlib`
of rows as links carry them; then four zero bytes and the SHA-256 of all before.
"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syncengine import limits
from syncengine.errors import AlreadyExists, Invalid
from syncengine.ids import NamespaceId
from syncengine.log.run import decode_rows, encode_rows
from syncengine.replication.host import sealed

if TYPE_CHECKING:
    from syncengine.replication.space import Space

_MAGIC = b"sync1:archive\0"

# Rows of a piece, at least: a megabyte or so, most of which is compressed away.
PIECE_ROWS = 200

# A piece is read as a whole; a change has 8 MiB at most, a run of them 16.
PIECE_BYTES_MAX = 16 * limits.BATCH_BYTES_MAX


async def write(space: "Space", path: str) -> int:
    """Write all of a namespace to a new file; return how many rows."""
    engine = space.engine
    if Path(path).exists():  # noqa: ASYNC240  # one look, before a long write
        raise AlreadyExists(f"{path} exists; an archive replaces nothing")
    await sealed(engine)
    until, done, count = engine.committed_position, 0, 0
    digest = hashlib.sha256()
    with Path(path).open("xb") as file:  # noqa: ASYNC230  # a piece takes milliseconds

        def put(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        put(_MAGIC + engine.keeper.namespace)
        while done < until:
            rows = engine.keeper.rows_after(done, PIECE_ROWS)
            piece = zlib.compress(encode_rows(row for _, row in rows), 6)
            put(len(piece).to_bytes(4, "big"))
            put(piece)
            done = rows[-1][0]
            count += len(rows)
            await engine.whole()
        put(bytes(4))
        file.write(digest.digest())
    return count


def namespace_of(path: str) -> NamespaceId:
    """Return whose archive a file is; raises `Invalid` for one that is none, or that is
    not whole."""
    with Path(path).open("rb") as file:
        head = file.read(len(_MAGIC) + 32)
        if not head.startswith(_MAGIC) or len(head) != len(_MAGIC) + 32:
            raise Invalid(f"{path} is no archive of a namespace")
        digest = hashlib.sha256(head)
        for size, piece in _pieces(file, path):
            digest.update(size + piece)
        if file.read(33) != digest.digest():
            raise Invalid(f"{path} was damaged: it is not what was written")
        return NamespaceId(head[len(_MAGIC) :])


def _pieces(file: BinaryIO, path: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (length, piece), the empty last one too."""
    while True:
        size = file.read(4)
        n = int.from_bytes(size, "big")
        piece = file.read(n) if n <= PIECE_BYTES_MAX else b""
        if len(size) != 4 or len(piece) != n:
            raise Invalid(f"{path} was damaged: it ends too soon")
        yield size, piece
        if not n:
            return


async def read(space: "Space", path: str) -> int:
    """Take in what an archive has and this namespace lacks; return how many rows.

    Each is checked as if a peer had sent it. Raises `Invalid`.
    """
    count = 0
    with Path(path).open("rb") as file:  # noqa: ASYNC230  # a piece takes milliseconds
        file.seek(len(_MAGIC) + 32)
        for _, piece in _pieces(file, path):
            if not piece:
                break
            try:
                body = zlib.decompress(piece)
                rows = decode_rows(space.engine.keeper.namespace, body)
            except (ValueError, zlib.error) as error:
                raise Invalid(f"{path} holds what is no row: {error}") from error
            admission = await space.engine.take_in(rows)
            if admission.refused or admission.missing:
                raise Invalid(
                    f"{path} holds what no member wrote: {admission.refused[:1]}"
                )
            count += len(admission.stored)
            await space.engine.flush()
    return count
