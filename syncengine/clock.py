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


# So far a clock may have moved against the monotonic one before what corrects it is
# looked at again: reading both is not exact.
DRIFT_MS = 1_000

# How far the wall clock may fall behind the monotonic one before it was set back.
SET_BACK_MS = 60_000


class SteadyClock:
    """A wall clock that is not set back while the process runs.

    Somebody who sets a clock back by an hour would otherwise keep this device from
    applying anything for an hour. Forward jumps are believed: after a suspend they
    are right.

    A hub tells its time, and is not trusted with it: it corrects this clock only as
    far as the newest stamp signed by another member agrees. A hub that lies cannot
    have changes stamped a century ahead (nobody could ever take that back), nor stop
    this device from applying what members wrote.
    """

    def __init__(self, wall: Clock, monotonic: Callable[[], float]):
        self._wall = wall
        self._monotonic = monotonic
        self._ahead_ms = wall.now_ms() - int(monotonic() * 1000)
        self._hub_offset_ms = 0
        self._seen_offset_ms: int | None = None
        self._corrected_at_ms = self._ahead_ms
        """Where `_ahead_ms` was when the offsets were as they are."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, corrected where this machine is wrong."""
        return max(0, self.own_ms() + self.offset_ms)

    @property
    def offset_ms(self) -> int:
        """By how much this machine's clock is corrected."""
        hub, seen = self._hub_offset_ms, self._seen_offset_ms
        if seen is None:
            return min(hub, 0)
        return max(min(hub, 0), min(seen, max(hub, 0)))

    def saw(self, stamp_ms: int) -> None:
        """Another member has signed that it was `stamp_ms`, at least."""
        offset = stamp_ms - self.own_ms()
        if self._seen_offset_ms is None or offset > self._seen_offset_ms:
            self._seen_offset_ms = offset

    def own_ms(self) -> int:
        """Return the same by this machine alone."""
        wall, monotonic = self._wall.now_ms(), int(self._monotonic() * 1000)
        jump = wall - monotonic - self._ahead_ms
        if jump >= -SET_BACK_MS:
            self._ahead_ms = wall - monotonic
        moved = self._ahead_ms - self._corrected_at_ms
        if moved > DRIFT_MS:
            # Set right, or fast, or back from a sleep: what was to be corrected may be
            # gone, and the next handshake tells. Left as it was it would run ahead.
            self._moved(moved)
        return self._ahead_ms + monotonic

    def _moved(self, ms: int) -> None:
        self._corrected_at_ms += ms
        left = max(0, self._hub_offset_ms - ms)
        self._hub_offset_ms = min(self._hub_offset_ms, left)
        if self._seen_offset_ms is not None:
            self._seen_offset_ms -= ms

    @property
    def hub_offset_ms(self) -> int:
        """How far a hub says that this machine is behind; less than 0: ahead."""
        return self._hub_offset_ms

    @hub_offset_ms.setter
    def hub_offset_ms(self, offset: int) -> None:
        self._moved(max(0, self._ahead_ms - self._corrected_at_ms))
        self._hub_offset_ms, self._corrected_at_ms = offset, self._ahead_ms


class HybridClock:
    """Stamps for one actor. `last` is the high-water mark to keep on disk."""

    def __init__(
        self,
        wall: Clock,
        last: int = 0,
        saw: Callable[[int], None] = lambda _: None,
        told: Callable[[int], None] = lambda _: None,
    ):
        self._wall = wall
        self.last = last
        self.saw = saw
        """Called with the stamp of another member's change, in ms"""
        self.told = told
        """Called with what the clocks of others say it is, in ms; may raise
        `ClockSuspect`"""

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
