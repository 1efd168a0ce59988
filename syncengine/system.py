"""The real world, as the arguments the engine takes: the wall clock and randomness."""

import os
import time


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemEntropy:
    """The operating system's random bytes."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)
