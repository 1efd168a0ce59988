"""A pair of connected pipes with the interface of a connection: for tests and for
embedding two ends in one process."""

import asyncio

from syncengine.errors import ConnectionLost

# Frames in flight before a sender waits, as a socket's buffer would make it.
QUEUE_FRAMES = 16


class MemoryConnection:
    """One end of a pair."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_FRAMES)
        self.other: MemoryConnection
        self._closed = asyncio.Event()
        self.reason = ""
        self.code = 0
        """With which the other end closed; 0: it has not."""

    async def send(self, frame: bytes) -> None:
        if self._closed.is_set() or self.other._closed.is_set():
            raise ConnectionLost("the pipe is closed")
        put = asyncio.ensure_future(self.other._incoming.put(frame))
        gone = asyncio.ensure_future(self.other._closed.wait())
        try:
            await asyncio.wait({put, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not put.done():
                put.cancel()

    async def receive(self) -> bytes:
        get = asyncio.ensure_future(self._incoming.get())
        gone = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({get, gone}, return_when=asyncio.FIRST_COMPLETED)
            if get.done():
                frame = get.result()
                if frame is not None:
                    return frame
        finally:
            gone.cancel()
            get.cancel()
        raise ConnectionLost(self.reason or "the pipe is closed")

    async def close(self, code: int, reason: str) -> None:
        if not self._closed.is_set():
            self._closed.set()
            other = self.other
            if not other._closed.is_set():
                other.reason, other.code = reason, code
                try:
                    other._incoming.put_nowait(None)
                except asyncio.QueueFull:
                    other._closed.set()


def pair() -> tuple[MemoryConnection, MemoryConnection]:
    """Return two connected ends."""
    one, two = MemoryConnection(), MemoryConnection()
    one.other, two.other = two, one
    return one, two
