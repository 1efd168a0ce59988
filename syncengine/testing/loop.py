"""An event loop in virtual time: when nothing is ready, time jumps to the next timer.

Which of the ready callbacks runs next is drawn from the seed. Every callback belongs
to a *life* (one run of one simulated machine); when a machine crashes, its life ends
and none of its callbacks ever runs again: no `finally`, no `except`, as with
`kill -9`.
"""

import asyncio
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast


class Life:
    """One run of one machine: from its start to its crash."""

    def __init__(self, name: str):
        self.name = name
        self.over = False
        self.kept: list[Any] = []
        """What died with it: kept alive so that nothing in it is finalised."""
        self.paused = False
        self.frozen: list[Any] = []
        """What would have run since it was paused"""


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs until its main future is done; raises when nothing can happen any more."""

    def __init__(self, seed: int):
        super().__init__()
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self._dead: list[Any] = []

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        # What the base class keeps, and its handles, are known to no type checker.
        scheduled = cast(list[Any], self._scheduled)  # type: ignore[attr-defined]
        ready = cast(deque[Any], self._ready)  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if self._stopping:  # type: ignore[attr-defined]
                return
            if not scheduled:
                raise RuntimeError("nothing can ever happen again: a deadlock")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            # Any of the first few: order within a machine may not matter to it.
            if len(ready) > 1 and self.random.random() < 0.1:
                ready.rotate(-1)
            handle = ready.popleft()
            if handle._cancelled:
                continue
            life: Life | None = handle._context.get(LIFE) if handle._context else None
            if life is not None and life.over:
                self._dead.append(handle)
                continue
            if life is not None and life.paused:
                life.frozen.append(handle)
                continue
            self.steps += 1
            handle._run()
        handle = None

    def resume(self, life: Life) -> None:
        """Let a paused life go on, as after SIGCONT: with all that is due at once."""
        life.paused = False
        frozen, life.frozen = life.frozen, []
        cast(deque[Any], self._ready).extend(frozen)  # type: ignore[attr-defined]

    def _process_events(self, event_list: Any) -> None:
        """There are no file descriptors in this world."""

    def _write_to_self(self) -> None:
        """Nor other threads."""

    def run(self, main: Callable[[], Any]) -> Any:
        """Run `main()` to its end in this loop."""
        events.set_event_loop(self)
        try:
            return self.run_until_complete(main())
        finally:
            events.set_event_loop(None)

    def __del__(self) -> None:
        """Nothing to close: there is no descriptor below."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Whatever nobody handled fails the run."""
        error = context.get("exception")
        message = context.get("message", "")
        if "was destroyed" in message or "never retrieved" in message:
            task = context.get("task") or context.get("future")
            life = getattr(task, "_life", None)
            if life is not None and life.over:
                return
        self.failures.append((message, error))

    @property
    def failures(self) -> list[tuple[str, Any]]:
        """What was raised where nobody handled it."""
        return self.__dict__.setdefault("_failures", [])  # type: ignore[no-any-return]  # set here
