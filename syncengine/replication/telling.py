"""Who is called with which event."""

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from syncengine.errors import Invalid

log = logging.getLogger("syncengine")

Handler = Callable[[Any], Any]


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
                    await told
            except Exception:
                log.exception("a handler of %s failed", event)
