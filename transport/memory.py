"""A pair of connected pipes with the interface of a connection: for tests and for
embedding two ends in one process."""

# pyright: reportPrivateUsage=false

import asyncio
from collections import deque

from syncengine.errors import ConnectionLost

# Frames in flight before a sender waits, as a socket's buffer would make it.
QUEUE_FRAMES = 16


class MemoryConnection:
    """One end of a pair."""

    def __init__(self) -> None:
        self.other: MemoryConnection
        self.reason = ""
        self.code = 0
        """With which the other end closed; 0: it has not."""
        self._incoming: deque[bytes] = deque()
        self._is_closed = False
        self._changed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        """Raises `ConnectionLost` once an end is closed. Safe to cancel."""
        other = self.other
        while len(other._incoming) >= QUEUE_FRAMES and not self._is_over:
            await self._change()
        if self._is_over:
            raise ConnectionLost(self.reason or "the pipe is closed")
        other._incoming.append(frame)
        other._changed.set()

    async def receive(self) -> bytes:
        """Return the next frame; what was sent before closing arrives.

        Raises `ConnectionLost`. Safe to cancel.
        """
        while not self._incoming and not self._is_over:
            await self._change()
        if self._is_closed or not self._incoming:
            raise ConnectionLost(self.reason or "the pipe is closed")
        frame = self._incoming.popleft()
        self.other._changed.set()
        return frame

    async def close(self, code: int, reason: str) -> None:
        if not self._is_over:
            self.other.reason, self.other.code = reason, code
        self._is_closed = True
        self._changed.set()
        self.other._changed.set()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self.other._is_closed

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def pair() -> tuple[MemoryConnection, MemoryConnection]:
    """Return two connected ends."""
    one, two = MemoryConnection(), MemoryConnection()
    one.other, two.other = two, one
    return one, two
