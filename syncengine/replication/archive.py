"""A namespace in one file, with all of its history: every row of its log as it was
signed, so that whoever reads it can check it as if a peer had sent it.

`sync2:archive`, a zero byte, the namespace's id; then segments (`log.segment`), each
`u32 length || segment`; then four zero bytes and the SHA-256 of all before.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syncengine.errors import AlreadyExists, Invalid
from syncengine.ids import NamespaceId
from syncengine.log.batch import Batch
from syncengine.log.run import Row
from syncengine.log.segment import (
    SEGMENT_BYTES,
    SEGMENT_BYTES_MAX,
    decode_segment,
    encode_segment,
)
from syncengine.replication.host import sealed
from syncengine.trust.entry import Entry, entry_id

if TYPE_CHECKING:
    from syncengine.replication.space import Space

_MAGIC = b"sync2:archive\0"


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
            rows: list[Row] = []
            size = 0
            while size < SEGMENT_BYTES and done < until:
                for at, row in engine.keeper.rows_after(done, 1):
                    rows.append(row)
                    size += len(row.payload if isinstance(row, Batch) else row.body)
                    done = at
            piece = await asyncio.to_thread(encode_segment, rows)
            put(len(piece).to_bytes(4, "big"))
            put(piece)
            count += len(rows)
            await engine.whole()
        put(bytes(4))
        file.write(digest.digest())
    return count


def namespace_of(path: str) -> NamespaceId:
    """Return whose archive a file is; raises `Invalid` for one that is none, that is
    not whole, or that holds no beginning of what it says it is."""
    with Path(path).open("rb") as file:
        head = file.read(len(_MAGIC) + 32)
        if not head.startswith(_MAGIC) or len(head) != len(_MAGIC) + 32:
            raise Invalid(f"{path} is no archive of a namespace")
        digest = hashlib.sha256(head)
        namespace = NamespaceId(head[len(_MAGIC) :])
        begins = False
        for size, piece in _pieces(file, path):
            digest.update(size + piece)
            rows = _rows(namespace, piece, path) if piece else []
            begins |= any(
                isinstance(row, Entry) and bytes(entry_id(row)) == head[len(_MAGIC) :]
                for row in rows
            )
        if file.read(33) != digest.digest():
            raise Invalid(f"{path} was damaged: it is not what was written")
        if not begins:
            raise Invalid(f"{path} holds no namespace")
        return namespace


def _rows(namespace: NamespaceId, piece: bytes, path: str) -> list[Row]:
    try:
        return decode_segment(namespace, piece)
    except ValueError as error:
        raise Invalid(f"{path} holds what is no row: {error}") from error


def _pieces(file: BinaryIO, path: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (length, piece), the empty last one too."""
    while True:
        size = file.read(4)
        n = int.from_bytes(size, "big")
        piece = file.read(n) if n <= SEGMENT_BYTES_MAX else b""
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
            rows = _rows(space.engine.keeper.namespace, piece, path)
            admission = await space.engine.take_in(rows)
            if admission.refused or admission.missing:
                raise Invalid(
                    f"{path} holds what no member wrote: {admission.refused[:1]}"
                )
            count += len(admission.stored)
            await space.engine.flush()
    return count
