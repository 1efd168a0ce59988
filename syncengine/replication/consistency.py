"""Reading on a node of a log of leaders: what is here, what is fresh, what a session
has seen, or what every acknowledged write before has made it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from syncengine.errors import HistoryDiverged, Invalid, StaleRead, StoreError
from syncengine.ids import ActorId, DocumentId
from syncengine.replication.roles import Consistency, ReadResult
from syncengine.replication.seat import Seat
from syncengine.replication.tokens import Token

# The field of a document in which a key has its value.
VALUE = "value"


class Reads:
    """The reads of one node."""

    def __init__(self, seat: Seat):
        self._seat = seat

    async def read(
        self,
        name: DocumentId,
        consistency: Consistency,
        token: str | None,
        max_staleness_ms: int,
        timeout_ms: int,
    ) -> ReadResult:
        """What `LeaderFollowerManager.read_result` promises."""
        if consistency not in ("any", "bounded", "strong"):
            raise Invalid('reads are "strong", "bounded" or "any"', path="consistency")
        async with self._within(timeout_ms):
            while token is not None and self._seat.engine.shows_too_much:
                await self._seat.stirs()  # what it wrote as a leader may not last
            if token:
                await self._reach(Token.parse(token))
            if consistency == "strong":
                return await self._read_strong(name)
            if consistency == "bounded":
                self._check_staleness(max_staleness_ms)
            return await self._read_here(name, consistency, token)

    async def reach(self, token: str, timeout_ms: int) -> None:
        """What `LeaderFollowerManager.caught_up_to` promises."""
        async with self._within(timeout_ms):
            await self._reach(Token.parse(token))

    @asynccontextmanager
    async def _within(self, timeout_ms: int) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                yield
        except TimeoutError:
            raise StaleRead(
                f"what was asked for did not come within {timeout_ms} ms; read from "
                "the leader, or wait longer",
                have=self._seat.engine.applied_index,
                staleness_ms=self._seat.staleness_ms(),
            ) from None

    def named(self, index: int, actor: ActorId, seq: int) -> Token | None:
        """Return what names all up to a write; None while it is in no batch."""
        keeper = self._seat.engine.keeper
        hash16, term = keeper.hash16_at(actor, seq), keeper.terms.term_of(actor)
        if hash16 is None or term is None:
            return None  # it waits for the next batch: there was very much
        # The namespace may have been switched since.
        mode = term.record.mode
        known = self._seat.term if mode == keeper.terms.mode_id else term.number
        return Token(keeper.namespace[:8], mode, known, index, hash16)

    def named_entry(self, index: int) -> Token | None:
        """Return what names all up to an entry; None while it is in no batch, or where
        there is none."""
        engine, keeper = self._seat.engine, self._seat.engine.keeper
        top = keeper.terms.top
        if top is None:
            return None
        head = keeper.heads.get(top.record.actor)
        if head is not None and index == keeper.last_index(top.record.actor):
            hash16 = head.id[:16]
        else:
            entry = engine.entry_at(index)
            if entry is None:
                return None
            hash16 = entry.id[:16]
        mode = keeper.terms.mode_id
        return Token(keeper.namespace[:8], mode, self._seat.term, index, hash16)

    def _token(self, index: int) -> str | None:
        named = self.named_entry(index)
        return None if named is None else named.encode()

    def _check_staleness(self, bound: int) -> None:
        staleness = self._seat.staleness_ms()
        if staleness is None or staleness > bound:
            raise StaleRead(
                f"what is here may be older than {bound} ms; read from the leader",
                have=self._seat.engine.applied_index,
                staleness_ms=staleness,
            )

    async def _read_here(
        self, name: DocumentId, consistency: Consistency, token: str | None
    ) -> ReadResult:
        while True:
            result = await self._shown(name, consistency)
            if token is None or self._seat.election.leading is None:
                return result
            try:
                await self._seat.engine.flush()  # it shows what has no name yet
            except StoreError:
                continue  # what it showed was taken back
            return replace(result, token=self._token(result.sequence))

    async def _read_strong(self, name: DocumentId) -> ReadResult:
        seat, election = self._seat, self._seat.election
        term = seat.led_term()
        while seat.engine.applied_index < term.record.index:
            await seat.stirs()  # what it goes on from takes effect first
        # What shows may be ahead of what a majority has: it counts once they have it,
        # and nobody else was elected before it was read.
        result = await self._shown(name, "strong")
        if election.voters:
            beat = seat.ask(term)
            if not await seat.acks.until(result.sequence, term.id, "majority", beat):
                raise seat.superseded()
        else:
            try:
                await seat.engine.flush()
            except StoreError:  # what it showed was taken back
                raise seat.superseded() from None
        leading = election.leading
        if leading is None or leading.id != term.id or not election.holds_lease:
            raise seat.superseded()
        return replace(result, staleness_ms=0, token=self._token(result.sequence))

    async def _shown(self, name: DocumentId, consistency: Consistency) -> ReadResult:
        seat = self._seat
        document = await seat.space.get(name, default=None)
        leads = seat.election.leading is not None
        index = seat.engine.newest_index if leads else seat.engine.applied_index
        return ReadResult(
            None if document is None else document.to_dict().get(VALUE),
            index,
            seat.staleness_ms(),
            seat.node,
            consistency,
            self._token(index),
        )

    async def _reach(self, token: Token) -> None:
        """Wait until what a session has seen shows here."""
        engine, keeper = self._seat.engine, self._seat.engine.keeper
        if not token.is_of(keeper.namespace):
            raise Invalid("this token is of another namespace", path="token")
        while True:
            mode = keeper.terms.mode_id
            if token.mode != mode and token.mode in keeper.membership.modes:
                raise HistoryDiverged(
                    "the session's token is of a log of leaders that was ended"
                )
            # Before, this node may know less of who leads than the session does.
            if token.mode == mode and self._seat.term >= token.term:
                header = keeper.header_beginning(token.hash16)
                counts = header is not None and not keeper.terms.void_reason(header)
                shows = engine.applied_index >= token.sequence
                if (header is not None or shows) and not counts and token.sequence:
                    raise HistoryDiverged(
                        "what this session has seen was taken back: its leader was "
                        "deposed before a majority had it"
                    )
                if shows:
                    return
            await self._seat.stirs()
