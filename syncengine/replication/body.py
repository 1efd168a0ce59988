"""Names the transaction whose body takes long: remote changes wait for it."""

import asyncio
import logging
from types import FrameType

from syncengine import limits

log = logging.getLogger("syncengine")


class BodyWatch:
    """Watches one namespace's transactions; one body runs at a time."""

    def __init__(self) -> None:
        self._frame: FrameType | None = None
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def began(self, frame: FrameType | None) -> None:
        """A transaction's body runs, behind `frame`."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._frame = frame.f_back if frame else None
        if self._timer is None:
            self._timer = loop.call_later(limits.BODY_SECONDS_MAX, self._due)

    def runs_behind(self, frame: FrameType) -> None:
        """The body that began is in another thread, behind `frame`."""
        self._frame = frame.f_back

    def ended(self) -> None:
        since, self._since = self._since, None
        if since is not None:
            # One that never awaited kept the timer from being heard.
            taken = asyncio.get_running_loop().time() - since
            if taken > limits.BODY_SECONDS_MAX and self._frame is not None:
                self._warn()
        self._frame = None

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        if self._since is None or self._frame is None:
            return
        loop = asyncio.get_running_loop()
        left = self._since + limits.BODY_SECONDS_MAX - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._due)
            return
        self._warn()

    def _warn(self) -> None:
        frame, self._frame = self._frame, None
        assert frame is not None, "a body is warned of once"
        log.warning(
            "a transaction has been open for %.0f s at %s:%s; remote changes wait for "
            "it",
            limits.BODY_SECONDS_MAX,
            frame.f_code.co_filename,
            frame.f_lineno,
        )
