"""Writes, and strong reads, that wait for others to have what they stand on."""

import asyncio
from dataclasses import dataclass

from syncengine.ids import EntryId
from syncengine.replication.election import Election
from syncengine.replication.roles import Level
from syncengine.trust.leadership import majority

NEVER = float("inf")


@dataclass(slots=True)
class _Waiting:
    index: int
    term: EntryId
    level: Level
    beat: int | None
    expires: float
    """By the loop's clock; then `TimeoutError`"""
    done: "asyncio.Future[bool]"


class Acknowledgements:
    """What waits on a leader. One timer serves all: thousands of writes a second that
    each had their own would spend more on timers than on the log."""

    def __init__(self, election: Election):
        self._election = election
        self._waiting: dict[int, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def until(
        self,
        index: int,
        term: EntryId,
        level: Level,
        beat: int | None = None,
        expires: float = NEVER,
    ) -> bool:
        """Wait until others have the log up to an index, and have answered a beat; tell
        whether this node led in that term all the time. Raises `TimeoutError`. Safe to
        cancel."""
        leading = self._election.leading
        if leading is None or leading.id != term or self._closed:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(index, term, level, beat, expires, done)
        if self._is_reached(waiting):
            return True
        self._waiting[id(waiting)] = waiting
        self._expire_by(expires)
        try:
            return await done
        finally:
            self._waiting.pop(id(waiting), None)

    def settle(self) -> None:
        """Answer all that the election decides now."""
        leading = self._election.leading
        for waiting in list(self._waiting.values()):
            if waiting.done.done():
                continue
            if leading is None or leading.id != waiting.term:
                waiting.done.set_result(False)
            elif self._is_reached(waiting):
                waiting.done.set_result(True)

    def close(self) -> None:
        """Nothing is waited for any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._waiting.values():
            if not waiting.done.done():
                waiting.done.set_result(False)

    def _is_reached(self, waiting: _Waiting) -> bool:
        election = self._election
        if waiting.beat is not None and election.count_heard(waiting.beat) < majority(
            election.voters
        ):
            return False
        if waiting.level == "majority":
            return election.commit >= waiting.index
        if waiting.level == "all":
            stored = election.have_all_stored(waiting.index)
            return stored and election.commit >= waiting.index
        assert isinstance(waiting.level, int), "local waits for nobody"
        return election.count_stored(waiting.index) >= waiting.level

    def _expire_by(self, when: float) -> None:
        """Look at what waits at a time, if not before."""
        if when == NEVER or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting.values():
            if waiting.done.done():
                continue
            if waiting.expires <= now:
                waiting.done.set_exception(TimeoutError())
            else:
                self._expire_by(waiting.expires)
