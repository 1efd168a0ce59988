"""Long work in short steps, so that others have the event loop in between."""

import asyncio
from collections.abc import Awaitable


class Pace:
    """How one piece of work goes on. Made where it begins, asked at each step."""

    def __init__(self) -> None:
        self.cancelled = False

    async def pause(self) -> None:
        """Let others have a turn of the event loop.

        Once the task is cancelled there is no more waiting: the work goes on to where
        it can be left, and its owner raises then.
        """
        if self.cancelled:
            return
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled = True

    def raise_cancelled(self) -> None:
        """Raise what `pause` held back: the work can be left here."""
        if self.cancelled:
            raise asyncio.CancelledError


async def finished(work: Awaitable[None]) -> bool:
    """Wait until `work` has ended, whatever becomes of who waits; raises what it
    raised. Tells whether who waits was cancelled meanwhile, and is to raise that."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    return cancelled
