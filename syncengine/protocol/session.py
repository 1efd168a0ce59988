"""A session: one connection's worth of protocol, for either role.

Use: hand each arriving frame to `receive`, take `events()`, act on them with the
`send_*` methods, then send what `frames_to_send()` gives. Call `on_time` at
`deadline()`. Bad input never raises: it becomes a `Closed` event with a code.
"""

from dataclasses import dataclass

import msgspec

from syncengine import limits
from syncengine.errors import ProtocolError
from syncengine.ids import DeviceId, Lineage
from syncengine.protocol.codes import Code
from syncengine.protocol.handshake import Dialler, Listener
from syncengine.protocol.messages import (
    Auth,
    Goodbye,
    LinkMessage,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Ready,
    Refusal,
)
from syncengine.protocol.states import TRANSITIONS, State
from syncengine.trust.sealing import Sealer

AAD = b"sync.v1"
LAST, MORE = b"\0", b"\1"

_encode = msgspec.msgpack.Encoder().encode
_ready = msgspec.msgpack.Decoder(Ready)
_message = msgspec.msgpack.Decoder(LinkMessage)

_MALFORMED = (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError)


@dataclass(frozen=True)
class Challenged:
    """Dialler: the listener proved itself. Next: `authenticate`."""

    listener: DeviceId
    lineage: Lineage


@dataclass(frozen=True)
class Authenticated:
    """Listener: the device proved itself. Next: `accept`."""

    auth: Auth


@dataclass(frozen=True)
class Closed:
    """The session is over; close the connection with `code`."""

    code: int
    reason: str
    by_peer: bool
    retry_after_ms: int = 0


Event = Challenged | Authenticated | Ready | LinkMessage | Closed


class Session:
    """Invariants: (1) every frame after the handshake is sealed; (2) after CLOSED
    nothing is received or sent; (3) all frames pass `_send`."""

    __slots__ = (
        "_events",
        "_frames",
        "_handshake_bytes",
        "_heard",
        "_incoming",
        "_machine",
        "_outgoing",
        "_pieces",
        "_pieces_bytes",
        "_pinged",
        "_started",
        "is_granted",
        "state",
    )

    def __init__(self, machine: Dialler | Listener, now: float):
        self._machine: Dialler | Listener | None = machine
        self._outgoing: Sealer | None = None
        self._incoming: Sealer | None = None
        self._frames: list[bytes] = []
        self._events: list[Event] = []
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._handshake_bytes = 0
        self._started = now
        self._heard = now
        self._pinged = False
        self.is_granted = isinstance(machine, Dialler)
        """Whether the peer may send what is large: a stranger need not."""
        if isinstance(machine, Dialler):
            self.state = State.CONNECTING
            self._frames.append(machine.hello)
        else:
            self.state = State.LISTENING

    # --- time ---------------------------------------------------------------------

    def deadline(self) -> float:
        """Return when to call `on_time` next, if nothing happens before."""
        if self.state is State.LIVE:
            if self._pinged:
                return self._heard + limits.SILENCE_SECONDS_MAX
            return self._heard + limits.PING_SECONDS
        return self._started + limits.HANDSHAKE_SECONDS_MAX

    def on_time(self, now: float) -> None:
        """The deadline passed: ask, or give up. Then send `frames_to_send()`."""
        if now < self.deadline() or self.state is State.CLOSED:
            return
        if self.state is not State.LIVE:
            self._close(Code.SLOW, "the handshake took too long")
        elif self._pinged:
            self._close(Code.SLOW, "the peer has been silent for too long")
        else:
            self._pinged = True
            self.send(Ping())

    def ask(self, now: float) -> None:
        """Find out soon whether the peer is there. Then send `frames_to_send()`."""
        if self.state is State.LIVE and not self._pinged:
            self._pinged = True
            self._heard = now - limits.SILENCE_SECONDS_MAX + limits.ANSWER_SECONDS
            self.send(Ping())

    # --- receiving ----------------------------------------------------------------

    def receive(self, frame: bytes, now: float) -> None:
        """Take one frame. Then take `events()` and send `frames_to_send()`."""
        if self.state is State.CLOSED:
            return
        self._heard, self._pinged = now, False
        try:
            if self.state is State.LIVE:
                self._receive_live(frame)
            else:
                self._receive_handshake(frame)
        except ProtocolError as error:
            self._close(error.code, str(error))

    def events(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def _step(self, what: str) -> None:
        after = TRANSITIONS.get((self.state, what))
        if after is None:
            raise ProtocolError(
                Code.PROTOCOL, f"cannot {what} in state {self.state.value}"
            )
        self.state = after

    def _receive_handshake(self, frame: bytes) -> None:
        self._handshake_bytes += len(frame)
        if self._handshake_bytes > limits.HANDSHAKE_BYTES_MAX:
            raise ProtocolError(Code.TOO_LARGE, "the handshake is too large")
        machine = self._machine
        if self.state is State.LISTENING and isinstance(machine, Listener):
            self._frames.append(machine.greeted(frame))
            self._step("receive HELLO")
        elif self.state is State.CONNECTING and isinstance(machine, Dialler):
            machine.challenged(frame)
            self._step("receive CHALLENGE")
            self._events.append(Challenged(machine.listener, machine.lineage))
        elif self.state is State.PROVING and isinstance(machine, Listener):
            auth, self._outgoing, self._incoming = machine.authenticated(frame)
            self._step("receive AUTH")
            self._events.append(Authenticated(auth))
        elif self.state is State.AUTHENTICATING:
            message = self._opened(frame)
            if message is None:
                return
            try:
                ready = _ready.decode(message)
            except _MALFORMED as error:
                raise ProtocolError(Code.PROTOCOL, "a malformed READY") from error
            self._step("receive READY")
            self._machine = None  # with its secrets
            self._events.append(ready)
        else:
            raise ProtocolError(
                Code.PROTOCOL, f"a frame too early, in state {self.state.value}"
            )

    def _receive_live(self, frame: bytes) -> None:
        plain = self._opened(frame)
        if plain is None:
            return
        try:
            message = _message.decode(plain)
        except _MALFORMED as error:
            raise ProtocolError(Code.PROTOCOL, "a malformed message") from error
        self._step("receive message")
        if isinstance(message, Ping):
            self.send(Pong())
        elif isinstance(message, Goodbye):
            self.state = State.CLOSED
            self._events.append(
                Closed(message.code, message.reason, True, message.retry_after_ms)
            )
        elif not isinstance(message, Pong):
            self._events.append(message)

    def _opened(self, frame: bytes) -> bytes | None:
        """Return a whole message, or None when more pieces follow."""
        assert self._incoming is not None, "sealed frames follow the handshake"
        plain = self._incoming.open(frame, AAD)
        if plain is None:
            raise ProtocolError(Code.PROTOCOL, "a frame that is not the next one")
        mark, piece = plain[:1], plain[1:]
        if mark not in (LAST, MORE):
            raise ProtocolError(Code.PROTOCOL, "a frame without its mark")
        self._pieces_bytes += len(piece)
        most = limits.MESSAGE_BYTES_MAX if self.is_granted else limits.FRAME_BYTES_MAX
        if self._pieces_bytes > most or len(self._pieces) > limits.PIECES_MAX:
            raise ProtocolError(Code.TOO_LARGE, "a message is too large")
        self._pieces.append(piece)
        if mark == MORE:
            return None
        message = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        return message

    # --- sending ------------------------------------------------------------------

    def authenticate(self, instance: bytes, opens: list[Open]) -> None:
        """Dialler, after `Challenged`. Then send `frames_to_send()`."""
        assert isinstance(self._machine, Dialler), "a listener does not authenticate"
        self._step("send AUTH")
        frame, self._outgoing, self._incoming = self._machine.authenticate(
            instance, opens
        )
        self._frames.append(frame)

    def accept(
        self, session: bytes, now_ms: int, answers: list[Opened | Refusal]
    ) -> None:
        """Listener, after `Authenticated`. Then send `frames_to_send()`."""
        self._step("send READY")
        self._machine = None  # with its secrets
        self._send(_encode(Ready(session, now_ms, answers)))

    def send(self, message: LinkMessage) -> int:
        """Send a message; return its size. Then send `frames_to_send()`."""
        if self.state is State.CLOSED:
            return 0
        self._step("send message")
        return self._send(_encode(message))

    def close(self, code: int, reason: str, retry_after_ms: int = 0) -> None:
        """Say goodbye. Then send `frames_to_send()` and close the connection."""
        self._close(code, reason, retry_after_ms)

    def frames_to_send(self) -> list[bytes]:
        """Return the frames to put on the wire, in order."""
        frames, self._frames = self._frames, []
        return frames

    def _send(self, plain: bytes) -> int:
        assert self._outgoing is not None, "sealed frames follow the handshake"
        size = limits.FRAME_BYTES_MAX - 64
        for at in range(0, max(1, len(plain)), size):
            mark = LAST if at + size >= len(plain) else MORE
            piece = mark + plain[at : at + size]
            self._frames.append(self._outgoing.seal(piece, AAD))
        return len(plain)

    def _close(self, code: int, reason: str, retry_after_ms: int = 0) -> None:
        if self.state is State.CLOSED:
            return
        if self.state is State.LIVE:
            self._send(_encode(Goodbye(code, reason[:500], retry_after_ms)))
        self.state = State.CLOSED
        self._events.append(Closed(code, reason, False))


__all__ = [
    "Authenticated",
    "Challenged",
    "Closed",
    "Event",
    "Message",
    "Session",
]
