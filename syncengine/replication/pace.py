"""Long work in short steps, so that others have the event loop in between."""

import asyncio


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
