"""Who is called with which event."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from syncengine.errors import Invalid

log = logging.getLogger("syncengine")

Handler = Callable[[Any], Any]

# After this it is said that a handler holds others up: it may never return.
SLOW_SECONDS = 30.0


class Handlers:
    """Functions, or coroutine functions, that are called with events."""

    def __init__(self, events: Iterable[str]):
        self._handlers: dict[str, list[Handler]] = {event: [] for event in events}

    def add(self, event: str, handler: Handler) -> None:
        """Call `handler` with each `event` from now on. Raises `Invalid`."""
        if event not in self._handlers:
            there = ", ".join(self._handlers)
            raise Invalid(f"there is no event {event!r}; there are {there}")
        self._handlers[event].append(handler)

    def has(self, event: str) -> bool:
        """Whether anybody is to be told."""
        return bool(self._handlers[event])

    async def tell(self, event: str, what: Any) -> None:
        """Call all of an event, in their order; what one raises is logged."""
        for handler in list(self._handlers[event]):
            try:
                told = handler(what)
                if inspect.isawaitable(told):
                    await self._ended(event, told)
            except Exception:
                log.exception("a handler of %s failed", event)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                log.exception("a handler of %s awaited what was cancelled", event)

    async def _ended(self, event: str, told: Awaitable[Any]) -> None:
        slow = asyncio.get_running_loop().call_later(
            SLOW_SECONDS,
            log.warning,
            "a handler of %s has not returned for %.0f s: what comes behind it waits",
            *(event, SLOW_SECONDS),
        )
        try:
            await told
        finally:
            slow.cancel()
