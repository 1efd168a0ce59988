"""The real world, as the arguments the engine takes: the wall clock and randomness."""

import os
import time


class _Process:
    """Which process this is: a fork begins another life."""

    life = 0

    def __init__(self) -> None:
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.life += 1


process = _Process()


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemEntropy:
    """The operating system's random bytes."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)
