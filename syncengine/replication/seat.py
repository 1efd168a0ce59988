"""What the parts of a node share that takes part in leading: reading, succession, and
the manager that offers both."""

import asyncio
from typing import TYPE_CHECKING

from syncengine.errors import Closed, NotLeader
from syncengine.log.terms import Term
from syncengine.replication.acknowledging import Acknowledgements
from syncengine.replication.election import Election
from syncengine.replication.host import Bell
from syncengine.replication.roles import STALE_LEADER, ReplicationMetrics

if TYPE_CHECKING:
    from syncengine.replication.namespace import Namespace
    from syncengine.replication.space import Space


class Seat:
    """A started node's place in its namespace."""

    def __init__(
        self,
        space: "Space",
        election: Election,
        *,
        node: str,
        bell: Bell,
        beat_seconds: float,
        timeout_seconds: float,
        leader_hint: str | None,
        metrics: ReplicationMetrics,
    ):
        self.space = space
        self.election = election
        self.node = node
        self.bell = bell
        """Rings for the task that does what is to do"""
        self.beat_seconds = beat_seconds
        self.timeout_seconds = timeout_seconds
        self._leader_hint = leader_hint
        self.acks = Acknowledgements(election)
        self.turn = asyncio.Lock()
        """Held while the election takes a step"""
        self.metrics = metrics
        self.drains = False
        """Whether it takes no writes, since what it has is handed on"""
        self.changes_voters = False
        self._moved = asyncio.Event()
        self._closed = False

    @property
    def engine(self) -> "Namespace":
        return self.election.engine

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as it is known here; None while nobody does."""
        top = self.election.top
        if top is None:
            return self._leader_hint
        has_stopped = top.leader == self.election.me and self.election.leading is None
        return None if has_stopped else top.record.node

    @property
    def term(self) -> int:
        """The number of the highest term in the log here; 0: there was none."""
        top = self.election.top
        return 0 if top is None else top.number

    def staleness_ms(self) -> int | None:
        staleness = self.election.staleness()
        return None if staleness is None else int(staleness * 1000)

    def check_open(self) -> None:
        if self._closed:
            raise Closed("this manager was closed; make another one")

    def check(self) -> None:
        """Raise `Closed`, or `TransactionOpen` within a transaction."""
        self.check_open()
        self.space.check_outside()

    def close(self) -> None:
        """Nothing is waited for any more."""
        self._closed = True
        self.acks.close()
        self._moved.set()

    def stir(self) -> None:
        """Let whoever waits in `stirs` look again."""
        self._moved.set()

    async def stirs(self) -> None:
        """Wait until something may have changed; raises `Closed`."""
        self.check_open()
        self._moved.clear()
        await self._moved.wait()

    def led_term(self) -> Term:
        """Return the term in which this node leads; raises `NotLeader`."""
        term = self.election.leading
        if term is None:
            raise NotLeader(leader_id=self.leader_id)
        return term

    def superseded(self) -> NotLeader:
        """Return what to raise where this node led a moment ago."""
        return NotLeader(leader_id=self.leader_id, error_code=STALE_LEADER)

    def ask(self, term: Term) -> int:
        """Ask who hears this leader; return the number of the beat. Raises `NotLeader`
        where it leads no more."""
        leading = self.election.leading
        if leading is None or leading.id != term.id:
            raise self.superseded()
        return self.election.say_beat(asks=True)
