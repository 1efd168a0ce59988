"""What we know of one peer in one namespace: its cursor into our log, ours into its.

*A subscriber is a cursor.* Catch-up and live are one path: read rows after the
cursor, leave out what the peer has, send, and stop when its window is full. A slow
peer costs a cursor, not a queue.
"""

import asyncio
import math
import zlib

from msgspec.structs import replace

from syncengine import limits
from syncengine.errors import ProtocolError
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId
from syncengine.log.batch import Batch
from syncengine.log.run import Row, decode_rows, encode_rows
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import (
    Ack,
    Data,
    Frontier,
    Idle,
    LinkMessage,
    Notice,
    Refusal,
    StateDigest,
    Void,
)
from syncengine.replication.host import Hosted
from syncengine.replication.keeper import NOWHERE, Cursor
from syncengine.trust.entry import entry_id

# Rows read from the log at once; a message is cut by bytes, not by this.
READ_ROWS = 512


# One for all: each empty frozenset takes 216 bytes, and a hub has many channels.
_NOBODY: frozenset[ActorId] = frozenset()


class Channel:
    """One namespace on one link.

    Invariants: (1) `sent` is None until the peer's cursor or frontier is known;
    (2) `_window` holds what was sent and not acknowledged, in order; (3) nothing
    beyond `hosted.committed_position` is sent.
    """

    __slots__ = (
        "_compared",
        "_diverged",
        "_has",
        "_has_entries",
        "_owed",
        "_stored",
        "_their_digest",
        "_told",
        "_uncommitted",
        "_window",
        "_window_bytes",
        "_window_ends",
        "device",
        "dismissal",
        "hosted",
        "is_open",
        "keeper",
        "may_read",
        "number",
        "received",
        "record",
        "sent",
        "stalled_at",
        "their_position",
    )

    def __init__(
        self, number: int, hosted: Hosted, device: DeviceId, *, may_read: bool
    ):
        self.number = number
        self.hosted = hosted
        self.keeper = hosted.keeper
        self.device = device
        self.record = hosted.keeper.peer(device)
        self.may_read = may_read
        self.sent: int | None = None
        self.received: Cursor | None = None
        self._stored = 0
        self._uncommitted = 0
        self.their_position = 0
        # Lists, since a deque takes 760 bytes and these hold a few.
        self._window: list[tuple[int, int]] = []  # (position before, bytes)
        self._window_ends: list[int] = []
        self._window_bytes = 0
        self.stalled_at = math.inf
        """When the peer will have been too slow, on the loop's clock."""
        self._has: dict[ActorId, int] = {}
        self._has_entries: dict[EntryId, None] = {}
        self._diverged = _NOBODY
        self._told: tuple[int, bytes] | None = None
        self._their_digest: bytes | None = None
        self._compared: tuple[bytes, bytes] | None = None
        self._owed: list[LinkMessage] = []  # acknowledgements and the like
        self.dismissal: Refusal | None = None
        """The last that the peer is told"""
        self.is_open = True

    # --- beginning ----------------------------------------------------------------

    def begin(
        self,
        *,
        theirs: tuple[int, bytes] | None,
        ours: Cursor | None,
        position: int,
        digest: bytes,
        told: tuple[int, bytes],
    ) -> None:
        """Start with the peer's cursor into our log and ours into its (None: void).

        A cursor whose chain is not ours means that this log, or the peer's memory of
        it, came back from a backup with everything that could tell.
        """
        self.their_position = position
        self._their_digest = digest
        self._told = told
        if theirs is not None:
            position, chain = theirs
            if self.keeper.chain_at(position) == chain:
                self.sent = position
                self.record.acked = min(self.record.acked, self.keeper.position)
                self._note_confirmed()
            else:
                self.record.acked = 0
                self._owed.append(Void(self.number))
        if ours is None:
            self.void_received()
        else:
            self.received, self._stored = ours, ours.position

    def void_received(self) -> None:
        """Our cursor into the peer's log is void: it is told all that we have."""
        self.received, self._stored = NOWHERE, 0
        self._their_digest = None
        self._owe_frontier()

    @property
    def durable(self) -> int:
        """Up to where the peer's log is on our disk."""
        received = self.received.position if self.received else 0
        return self._stored if self._uncommitted else received

    def _owe_frontier(self) -> None:
        """Say what we have, once: it is large, and a peer asks for it in five bytes."""
        if not any(isinstance(message, Frontier) for message in self._owed):
            self._owed.append(self._frontier())

    def _frontier(self) -> Frontier:
        tips: list[tuple[bytes, int, bytes]] = list(self.keeper.tips())
        return Frontier(self.number, tips, list(self.keeper.membership.entries))

    # --- outgoing -----------------------------------------------------------------

    @property
    def confirmed(self) -> int:
        """Up to where the peer has our log on its disk."""
        if self._window:
            return self._window[0][0]
        return self.sent or 0

    @property
    def at_rest(self) -> bool:
        """Whether all we have is with the peer, and acknowledged."""
        return (
            self.sent is not None
            and not self._window
            and not self._owed
            and self.sent >= self.hosted.committed_position
            and self.keeper.position == self.hosted.committed_position
        )

    @property
    def agrees(self) -> bool:
        """Whether both sides hold the same, on disk, as far as both have told."""
        return self.at_rest and self._their_digest == self.keeper.digest()

    def tell(self, message: StateDigest | Notice) -> None:
        """Hand on what a member says, unless the peer is slow: it is told again."""
        if self.is_open and self.may_read and len(self._owed) < limits.WINDOW_MESSAGES:
            self._owed.append(replace(message, channel=self.number))

    def dismiss(self, refusal: Refusal) -> None:
        """Tell the peer this instead of anything more: by a listener."""
        self.dismissal = replace(refusal, channel=self.number)

    def next_message(self) -> LinkMessage | None:
        """Return the next message to send, or None when there is nothing to say."""
        if self.dismissal is not None:
            return None
        if self._owed:
            return self._owed.pop(0)
        if self.sent is None:
            return None
        while self.sent < self.hosted.committed_position:
            if (
                self._window_bytes >= limits.WINDOW_BYTES
                or len(self._window) >= limits.WINDOW_MESSAGES
            ):
                if self.stalled_at == math.inf:
                    now = asyncio.get_running_loop().time()
                    self.stalled_at = now + limits.STALLED_SECONDS
                return None
            message = self._next_data()
            if message is not None:
                return message
        if self._uncommitted or self.keeper.position != self.hosted.committed_position:
            return None  # a digest is said after what it holds was acknowledged
        told = (self.keeper.position, self.keeper.digest())
        if told != self._told:
            self._told = told
            return Idle(self.number, self.keeper.end, told[1])
        self._compare()
        return self._owed.pop(0) if self._owed else None

    def _next_data(self) -> Data | None:
        """Read on from `sent`; return a message, or None when all was skipped."""
        assert self.sent is not None
        before = self.sent
        chosen: list[Row] = []
        size = 0
        rows = self.keeper.rows_after(before, READ_ROWS)
        assert rows, "what is committed is there"  # or this would go on for ever
        for index, (position, row) in enumerate(rows):
            if position > self.hosted.committed_position:
                break
            self.sent = position
            if not self._wanted(row):
                continue
            chosen.append(row)
            size += len(row.payload) if isinstance(row, Batch) else len(row.body)
            # A run is never cut before its signature.
            if size >= limits.DATA_BYTES_CUT and row.signature:
                break
            assert row.signature or index + 1 < len(rows), "a run ends in a signature"
        if not chosen:
            self._note_confirmed()  # what the peer has anyway counts, too
            return None
        body = encode_rows(chosen)
        packed = len(body) >= limits.COMPRESS_BYTES_MIN
        if packed:
            body = zlib.compress(body, 6)
        at_end = self.sent == self.keeper.position == self.hosted.committed_position
        digest = self.keeper.digest() if at_end and not self._uncommitted else None
        chain = self.keeper.chain_at(self.sent)
        assert chain is not None, "what is sent is stored"
        place = Cursor(self.sent, chain)
        if digest is not None:
            self._told = (self.sent, digest)
        self._window.append((before, len(body)))
        self._window_ends.append(self.sent)
        self._window_bytes += len(body)
        self.hosted.in_flight.add(self)
        return Data(self.number, place, digest, packed, body)

    def pass_over(self) -> None:
        """Let the cursor pass what the peer has anyway, up to what it lacks."""
        while self.sent is not None:
            rows = self.keeper.rows_after(self.sent, READ_ROWS)
            if not rows:
                return
            for position, row in rows:
                if position > self.hosted.committed_position or self._wanted(row):
                    return
                self.sent = position

    def _wanted(self, row: Row) -> bool:
        if isinstance(row, Batch):
            actor = row.header.actor
            if actor in self._diverged or actor in self.keeper.forks:
                return self.may_read  # what the peer has may be the other branch
            return row.header.end > self._has.get(actor, 0) and self.may_read
        return entry_id(row) not in self._has_entries

    def acknowledged(self, message: Ack) -> None:
        """The peer has all up to a position on its disk."""
        self.stalled_at = math.inf
        while self._window_ends and self._window_ends[0] <= message.position:
            self._window_ends.pop(0)
            self._window_bytes -= self._window.pop(0)[1]
        self._their_digest = None  # said before it had this
        self._note_confirmed()

    def _note_confirmed(self) -> None:
        if not self._window:
            self.hosted.in_flight.discard(self)
        if self.confirmed > self.record.acked:
            self.record.acked = self.confirmed
            self.keeper.peer_changed(self.device)
        self.hosted.progress.set()

    def frontier_received(self, message: Frontier) -> None:
        """The peer's cursor is void: begin anew, leaving out what it has."""
        self._has = {}
        self._diverged = _NOBODY
        for actor, seq, name in message.tips:
            known = ActorId(actor)
            if known in self._has or known in self.keeper.forks:
                self._diverged |= {known}
            self._has[known] = max(seq, self._has.get(known, 0))
            ours = self.keeper.hash16_at(known, seq)
            if ours is not None and ours != BatchId(name)[:16]:
                self._diverged |= {known}
        self._has_entries = dict.fromkeys(map(EntryId, message.heads))
        self._window.clear()
        self._window_ends.clear()
        self._window_bytes = 0
        self.stalled_at = math.inf
        self.hosted.in_flight.discard(self)
        self.sent = 0
        self.record.acked = 0
        self._told = None

    # --- incoming -----------------------------------------------------------------

    def rows_of(self, message: Data) -> list[Row]:
        """Return the rows of a data message; raises `ProtocolError`."""
        body = message.body
        if message.packed:
            inflate = zlib.decompressobj()
            try:
                body = inflate.decompress(body, limits.INFLATED_BYTES_MAX)
            except zlib.error as error:
                raise ProtocolError(
                    Code.PROTOCOL, "rows that do not inflate"
                ) from error
            if inflate.unconsumed_tail or not inflate.eof:
                raise ProtocolError(Code.TOO_LARGE, "rows that inflate too far")
        try:
            rows = decode_rows(self.keeper.namespace, body)
        except ValueError as error:
            raise ProtocolError(Code.PROTOCOL, str(error)) from error
        for row in rows:
            if isinstance(row, Batch):
                actor = row.header.actor
                if row.header.end > self._has.get(actor, 0):
                    self._has[actor] = row.header.end
            else:
                self._has_entries[entry_id(row)] = None
        return rows

    def data_received(self, message: Data, *, complete: bool, news: bool) -> None:
        """Rows were admitted: our cursor moves with the commit that follows."""
        if not news:
            # The peer awaits what we hold after this; it is what we said before.
            self._told = None
        if not complete:
            # A predecessor is missing: ask for all that we lack.
            self._their_digest = None
            self._owe_frontier()
            return
        self._uncommitted += 1
        self._their_digest = message.digest
        self._move_cursor(message.place)

    def stored(self, message: Data) -> None:
        """The rows are on disk: acknowledge."""
        self._uncommitted -= 1
        position = message.place[0]
        self._stored = max(position, self._stored)
        self.hosted.progress.set()
        self._owed.append(Ack(self.number, position))

    def idle_received(self, message: Idle) -> None:
        """The peer has nothing more for us."""
        self._their_digest = message.digest
        self._move_cursor(message.place)

    def _move_cursor(self, place: tuple[int, bytes]) -> None:
        assert self.received is not None
        if place[0] >= self.received.position:
            self.received = Cursor(*place)
        if self.received != self.record.cursor:
            self.record.cursor = self.received
            self.keeper.peer_changed(self.device)
        self.hosted.progress.set()

    def _compare(self) -> None:
        """When both are at rest, equal digests say that both hold the same."""
        theirs = self._their_digest
        if theirs is None or not self.at_rest or not self.may_read:
            return
        if self.received is None or self.received.position < self.their_position:
            return  # it told its digest first, and what it is of is on its way
        ours = self.keeper.digest()
        if theirs == ours:
            # Both hold the same: nothing has to be left out any more.
            self._has, self._has_entries, self._diverged = {}, {}, _NOBODY
        if theirs != ours and self._compared != (ours, theirs):
            self._compared = (ours, theirs)
            self._owe_frontier()
