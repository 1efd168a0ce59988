"""A simulated network of WebSocket-like connections: frames, in order, or cut.

It delays, cuts, drops, duplicates and reorders by the seed. A dropped, doubled or
reordered frame is what a broken middlebox does; the sealed session notices and
closes, and the link comes back.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from syncengine.errors import ConnectionLost
from syncengine.testing.loop import LIFE, Life, VirtualLoop

ONE_FRAME_SECONDS = 1e-6


@dataclass
class Weather:
    """How bad the network is; drawn anew for each seed."""

    delay_mean: float = 0.05
    delay_tail: float = 0.0  # chance of a delay of seconds
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    cut_mean: float = 30.0  # seconds between cuts, over all connections

    @classmethod
    def draw(cls, chance: random.Random) -> "Weather":
        """Return weather in which each fault may be absent, or frequent."""

        def rate(most: float) -> float:
            return chance.choice((0.0, 0.0, chance.uniform(0, most)))

        return cls(
            delay_mean=chance.choice((0.001, 0.02, 0.2)),
            delay_tail=rate(0.01),
            drop=rate(0.004),
            duplicate=rate(0.004),
            reorder=rate(0.004),
            cut_mean=chance.uniform(3.0, 12.0),
        )


# What a machine does when it is dialled: it makes its end, in its life, and serves it.
Accept = Callable[[Callable[[Life], "SimConnection"]], "SimConnection"]


class SimConnection:
    """One end of a connection."""

    def __init__(self, network: "Network", life: Life | None):
        self.number = network.numbered()
        self.names: frozenset[str] = frozenset()
        self.name = ""
        self._network = network
        self.life = life
        self._inbox: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.closed = False
        self.reason = ""
        self.other: SimConnection
        self.busy_until = 0.0

    async def send(self, frame: bytes) -> None:
        await self._network.breathe()
        if self.closed:
            raise ConnectionLost(self.reason or "closed")
        self._network.carry(self, frame)

    async def receive(self) -> bytes:
        while not self._inbox:
            if self.closed:
                raise ConnectionLost(self.reason or "closed")
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def close(self, code: int, reason: str) -> None:
        self._network.shut(self, reason, politely=True)

    def deliver(self, frame: bytes) -> None:
        if not self.closed and not (self.life and self.life.over):
            self._inbox.append(frame)
            self._arrived.set()

    def lose(self, reason: str) -> None:
        if not self.closed:
            self.closed, self.reason = True, reason
            self._arrived.set()


class Network:
    """Who listens where, what is under way, and who cannot reach whom."""

    def __init__(self, loop: VirtualLoop, weather: Weather):
        self._loop = loop
        self.weather = weather
        self._listeners: dict[str, Any] = {}
        self._connections: set[SimConnection] = set()
        self.parted: set[frozenset[str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        """(from, to): nothing arrives, while the other way all does"""
        self.cut_count = 0
        self.frames = 0
        self.bytes = 0
        self._last_number = 0

    def numbered(self) -> int:
        self._last_number += 1
        return self._last_number

    def _all(self) -> list[SimConnection]:
        """Return the connections by age: a set's order would not repeat."""
        return sorted(self._connections, key=lambda end: end.number)

    async def breathe(self) -> None:
        """Sending yields, now and then."""
        if self._loop.random.random() < 0.3:
            await asyncio.sleep(0)

    def listen(self, name: str, accept: "Accept") -> None:
        """Let `accept(make)` serve whoever dials `name`, with the end it makes."""
        self._listeners[name] = accept

    def unlisten(self, name: str) -> None:
        self._listeners.pop(name, None)

    async def dial(self, source: str, target: str) -> SimConnection:
        """Connect; raises `ConnectionLost`."""
        await asyncio.sleep(self._delay())
        accept = self._listeners.get(target)
        one_way = {(source, target), (target, source)} & self.deaf
        if accept is None or one_way or frozenset((source, target)) in self.parted:
            raise ConnectionLost(f"{target} cannot be reached")
        ours = SimConnection(self, LIFE.get())

        def make(life: Life) -> SimConnection:
            return SimConnection(self, life)

        theirs = accept(make)
        ours.other, theirs.other = theirs, ours
        ours.names = theirs.names = frozenset((source, target))
        ours.name, theirs.name = source, target
        self._connections |= {ours, theirs}
        return ours

    def _delay(self) -> float:
        chance, weather = self._loop.random, self.weather
        if chance.random() < weather.delay_tail:
            return chance.uniform(0.5, 8.0)
        return chance.expovariate(1 / weather.delay_mean)

    def carry(self, source: SimConnection, frame: bytes) -> None:
        chance, weather = self._loop.random, self.weather
        self.frames += 1
        self.bytes += len(frame)
        target = source.other
        if (source.name, target.name) in self.deaf:
            return
        if chance.random() < weather.drop:
            return
        # Later than the one before: the loop shuffles what is due at one moment.
        when = max(
            self._loop.now + self._delay(), source.busy_until + ONE_FRAME_SECONDS
        )
        if chance.random() >= weather.reorder:
            source.busy_until = when
        copies = 2 if chance.random() < weather.duplicate else 1
        for _ in range(copies):
            self._loop.call_at(when, target.deliver, frame)

    def shut(self, end: SimConnection, reason: str, *, politely: bool) -> None:
        end.lose(reason)
        other = end.other
        when = max(self._loop.now + self._delay(), end.busy_until + ONE_FRAME_SECONDS)
        if politely:
            self._loop.call_at(when, other.lose, reason)
        else:
            other.lose(reason)
        self._connections -= {end, other}

    # --- faults -------------------------------------------------------------------

    def cut_one(self) -> bool:
        """Cut a connection, as a router that forgets it; tell whether there was one.

        Half of the time one end does not learn of it: it must find out by itself.
        """
        if not self._connections:
            return False
        chance = self._loop.random
        victim = chance.choice(self._all())
        self.cut_count += 1
        other = victim.other
        self._connections -= {victim, other}
        victim.lose("cut")
        if chance.random() < 0.5:
            other.lose("cut")
        return True

    def end_of(self, life: Life) -> None:
        """A machine crashed: its ends are gone, the others learn it (or not)."""
        for end in self._all():
            if end.life is life:
                end.closed = True
                if self._loop.random.random() < 0.8:
                    end.other.lose("reset")
                self._connections -= {end, end.other}

    def part(self, one: str, two: str) -> None:
        """Nothing passes between two machines until `heal`."""
        pair = frozenset((one, two))
        self.parted.add(pair)
        for end in self._all():
            if end.names == pair:
                end.lose("parted")
                self._connections.discard(end)

    def heal(self) -> None:
        self.parted.clear()
        self.deaf.clear()
