"""Hybrid logical clock: 48 bits of wall milliseconds, 16 bits of counter.

After Kulkarni et al., "Logical Physical Clocks" (2014), packed into one integer.
Law (O3): what `tick` returns strictly increases over the life of an actor, across
restarts, whatever the wall clock does; the caller stores `last` with what it stamps.
"""

from collections.abc import Callable
from typing import Protocol

COUNTER_BITS = 16
_COUNTER_MASK = (1 << COUNTER_BITS) - 1
HLC_MAX = 2**63 - 1


class Clock(Protocol):
    """The wall clock, as an argument. Milliseconds since 1970, UTC."""

    def now_ms(self) -> int: ...


class Entropy(Protocol):
    """Where random bytes come from: the system, or a seed."""

    def bytes(self, n: int) -> bytes: ...


def hlc_from_ms(milliseconds: int) -> int:
    """Return the first stamp of that millisecond."""
    return milliseconds << COUNTER_BITS


def ms_from_hlc(hlc: int) -> int:
    """Return the wall milliseconds inside `hlc`."""
    return hlc >> COUNTER_BITS


# How far the wall clock may fall behind the monotonic one before it was set back.
SET_BACK_MS = 60_000


class SteadyClock:
    """A wall clock that is not set back while the process runs.

    Somebody who sets a clock back by an hour would otherwise keep this device from
    applying anything for an hour. Forward jumps are believed: after a suspend they
    are right. A hub's handshake corrects both (`offset_ms`).
    """

    def __init__(self, wall: Clock, monotonic: Callable[[], float]):
        self._wall = wall
        self._monotonic = monotonic
        self._ahead_ms = wall.now_ms() - int(monotonic() * 1000)
        self.offset_ms = 0

    def now_ms(self) -> int:
        """Return milliseconds since 1970, corrected by what the hub told."""
        return max(0, self.own_ms() + self.offset_ms)

    def own_ms(self) -> int:
        """Return the same by this machine alone."""
        wall, monotonic = self._wall.now_ms(), int(self._monotonic() * 1000)
        if wall >= self._ahead_ms + monotonic - SET_BACK_MS:
            self._ahead_ms = wall - monotonic
        return self._ahead_ms + monotonic


class HybridClock:
    """Stamps for one actor. `last` is the high-water mark to keep on disk."""

    def __init__(self, wall: Clock, last: int = 0):
        self._wall = wall
        self.last = last

    def now_ms(self) -> int:
        """Return the wall time."""
        return self._wall.now_ms()

    def tick(self) -> int:
        """Return the next stamp: later than every stamp given or observed."""
        # The counter may overflow into the milliseconds: the order still holds,
        # and the clock catches up when the writes slow down.
        self.last = max(hlc_from_ms(self.now_ms()), self.last + 1)
        return self.last

    def observe(self, hlc: int) -> None:
        """Make later stamps exceed `hlc`, a stamp seen on an applied change."""
        if hlc > self.last:
            self.last = hlc
