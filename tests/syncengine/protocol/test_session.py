"""Sessions: two real endpoints with a fake wire between them."""

# pyright: reportPrivateUsage=false

import random
from typing import Any

import pytest

from syncengine import limits
from syncengine.ids import DeviceId, Lineage
from syncengine.protocol.codes import Code
from syncengine.protocol.handshake import Dialler, Listener
from syncengine.protocol.messages import Ack, Data, Open, Opened, Ready
from syncengine.protocol.session import (
    AAD,
    MORE,
    Authenticated,
    Challenged,
    Closed,
    Session,
)
from syncengine.protocol.states import State
from syncengine.trust.keys import ED25519
from syncengine.trust.sealing import Exchange

DEVICE = ED25519.private_key(b"d" * 32)
HUB = ED25519.private_key(b"h" * 32)
LINEAGE = Lineage(b"l" * 16)


class Pair:
    """A dialler and a listener; the test carries the frames."""

    def __init__(self, wanted: bytes | None = HUB.public, seed: int = 0):
        chance = random.Random(seed)
        self.dialler = Session(
            Dialler(
                ED25519, DEVICE, chance.randbytes(32), Exchange(chance.randbytes(32)),
                None if wanted is None else DeviceId(wanted),
            ),
            0.0,
        )  # fmt: skip
        self.listener = Session(
            Listener(
                ED25519,
                HUB,
                chance.randbytes(32),
                Exchange(chance.randbytes(32)),
                LINEAGE,
            ),
            0.0,
        )
        self.heard: dict[str, list[Any]] = {"dialler": [], "listener": []}

    def exchange(self) -> None:
        """Carry frames until both are silent, answering the handshake."""
        moved = True
        while moved:
            moved = False
            for name, source, target in (
                ("listener", self.dialler, self.listener),
                ("dialler", self.listener, self.dialler),
            ):
                for frame in source.frames_to_send():
                    target.receive(frame, 0.0)
                    moved = True
                for event in target.events():
                    self.heard[name].append(event)
                    if isinstance(event, Challenged):
                        target.authenticate(b"i" * 16, [])
                    elif isinstance(event, Authenticated):
                        target.accept(b"s" * 16, 123, [])

    def live(self) -> "Pair":
        self.exchange()
        assert self.dialler.state is self.listener.state is State.LIVE
        return self


def closed(session: Session) -> Closed:
    """Return how a session ended."""
    event = session.events()[-1]
    assert isinstance(event, Closed)
    return event


def test_the_handshake_proves_both_sides() -> None:
    pair = Pair().live()

    (challenged, ready) = pair.heard["dialler"]
    assert challenged == Challenged(DeviceId(HUB.public), LINEAGE)
    assert isinstance(ready, Ready)
    (authenticated,) = pair.heard["listener"]
    assert authenticated.auth.device == DEVICE.public


def test_the_device_shows_itself_to_nobody_but_the_hub_it_means() -> None:
    pair = Pair(wanted=DEVICE.public)
    pair.listener.receive(pair.dialler.frames_to_send()[0], 0.0)
    (challenge,) = pair.listener.frames_to_send()
    pair.dialler.receive(challenge, 0.0)

    assert pair.dialler.frames_to_send() == []
    (closed,) = pair.dialler.events()
    assert isinstance(closed, Closed)
    assert closed.code == Code.AUTHENTICATION


def test_messages_pass_both_ways_and_large_ones_in_pieces() -> None:
    pair = Pair().live()
    body = random.Random(1).randbytes(3 * limits.FRAME_BYTES_MAX)
    pair.listener.send(Data(0, (9, bytes(8)), None, False, body))
    frames = pair.listener.frames_to_send()
    assert len(frames) == 4
    assert max(map(len, frames)) <= limits.FRAME_BYTES_MAX
    for frame in frames:
        pair.dialler.receive(frame, 0.0)
    pair.dialler.send(Ack(0, 9))
    pair.exchange()

    assert pair.heard["dialler"][-1] == Data(0, (9, bytes(8)), None, False, body)
    assert pair.heard["listener"][-1] == Ack(0, 9)


def transcript() -> list[tuple[str, bytes]]:
    """Return every frame of a handshake, and who receives it."""
    pair = Pair()
    frames: list[tuple[str, bytes]] = []
    for _ in range(3):
        for name, source, target in (
            ("listener", pair.dialler, pair.listener),
            ("dialler", pair.listener, pair.dialler),
        ):
            for frame in source.frames_to_send():
                frames.append((name, frame))
                target.receive(frame, 0.0)
            for event in target.events():
                if isinstance(event, Challenged):
                    target.authenticate(b"i" * 16, [])
                elif isinstance(event, Authenticated):
                    target.accept(b"s" * 16, 1, [])
    assert len(frames) == 4
    return frames


@pytest.mark.parametrize("number", range(4))
def test_every_flipped_bit_of_a_handshake_fails_it(number: int) -> None:
    """Exhaustive over bytes, one bit each."""
    to, frame = transcript()[number]
    for at in range(len(frame)):
        pair = Pair()
        sent = 0
        done = False
        while not done:
            done = True
            for name, source, target in (
                ("listener", pair.dialler, pair.listener),
                ("dialler", pair.listener, pair.dialler),
            ):
                for one in source.frames_to_send():
                    done = False
                    if sent == number:
                        assert name == to
                        one = (
                            one[:at] + bytes([one[at] ^ (1 << at % 8)]) + one[at + 1 :]
                        )
                    sent += 1
                    target.receive(one, 0.0)
                for event in target.events():
                    if isinstance(event, Challenged):
                        target.authenticate(b"i" * 16, [])
                    elif isinstance(event, Authenticated):
                        target.accept(b"s" * 16, 1, [])
        assert not (
            pair.dialler.state is State.LIVE and pair.listener.state is State.LIVE
        ), f"byte {at}"


@pytest.mark.parametrize("fault", ["replay", "drop", "swap", "truncate", "reflect"])
def test_a_live_session_closes_on_any_other_frame(fault: str) -> None:
    pair = Pair().live()
    for position in range(3):
        pair.dialler.send(Ack(0, position))
    one, two, three = pair.dialler.frames_to_send()
    frames = {
        "replay": [one, one],
        "drop": [one, three],
        "swap": [two, one],
        "truncate": [one, two[:-1]],
        "reflect": [],
    }[fault]
    target = pair.listener
    if fault == "reflect":
        target, frames = pair.dialler, [one]
    for frame in frames:
        target.receive(frame, 0.0)

    assert target.state is State.CLOSED
    assert closed(target).code == Code.PROTOCOL


@pytest.mark.parametrize("seed", range(50))
def test_garbage_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    for stage in range(4):
        pair = Pair()
        if stage == 3:
            pair.live()
        elif stage:
            pair.listener.receive(pair.dialler.frames_to_send()[0], 0.0)
        for session in (pair.dialler, pair.listener):
            session.receive(chance.randbytes(chance.randint(0, 400)), 0.0)
            assert session.state is State.CLOSED


def test_a_handshake_has_a_size() -> None:
    pair = Pair()
    pair.listener.receive(bytes(limits.HANDSHAKE_BYTES_MAX + 1), 0.0)

    assert closed(pair.listener).code == Code.TOO_LARGE


@pytest.mark.parametrize("piece", [limits.FRAME_BYTES_MAX - 64, 1])
def test_a_message_has_a_size_and_so_many_pieces(piece: int) -> None:
    pair = Pair().live()
    assert pair.listener._incoming is not None
    assert pair.dialler._outgoing is not None
    pair.listener.is_granted = True
    taken = 0
    while pair.listener.state is State.LIVE:
        frame = pair.dialler._outgoing.seal(MORE + bytes(piece), AAD)
        pair.listener.receive(frame, 0.0)
        taken += 1

    assert closed(pair.listener).code == Code.TOO_LARGE
    assert taken <= limits.PIECES_MAX + 2
    assert sum(map(len, pair.listener._pieces)) <= limits.MESSAGE_BYTES_MAX


def test_who_is_not_granted_anything_sends_nothing_large() -> None:
    pair = Pair().live()
    pair.dialler.send(Data(0, (9, bytes(8)), None, False, bytes(300_000)))
    pair.exchange()

    assert pair.heard["listener"][-1].code == Code.TOO_LARGE


@pytest.mark.parametrize("channel", [-1, limits.NAMESPACES_PER_LINK_MAX])
def test_a_link_has_so_many_channels(channel: int) -> None:
    pair = Pair().live()
    pair.dialler.send(Ack(limits.NAMESPACES_PER_LINK_MAX - 1, 9))
    pair.exchange()
    assert pair.listener.state is State.LIVE
    pair.dialler.send(Ack(channel, 9))
    pair.exchange()

    assert pair.heard["listener"][-1].code == Code.PROTOCOL


def test_silence_is_asked_about_and_then_given_up() -> None:
    pair = Pair().live()
    pair.dialler.on_time(limits.PING_SECONDS)
    assert len(pair.dialler.frames_to_send()) == 1
    pair.dialler.on_time(limits.SILENCE_SECONDS_MAX)

    assert closed(pair.dialler).code == Code.SLOW


def test_a_handshake_has_its_time() -> None:
    pair = Pair()
    pair.listener.on_time(limits.HANDSHAKE_SECONDS_MAX)

    assert pair.listener.state is State.CLOSED


def test_a_goodbye_carries_its_reason() -> None:
    pair = Pair().live()
    pair.listener.close(Code.GOING_AWAY, "restarting", 5_000)
    pair.exchange()

    assert pair.heard["dialler"][-1] == Closed(
        Code.GOING_AWAY, "restarting", True, 5_000
    )


def test_opens_and_answers_fit_the_handshake() -> None:
    pair = Pair()
    request = Open(
        0,
        b"n" * 32,
        b"g" * 32,
        b"a" * 16,
        1,
        b"h" * 32,
        LINEAGE,
        5,
        (4, b"c" * 8),
        b"d" * 32,
    )
    pair.listener.receive(pair.dialler.frames_to_send()[0], 0.0)
    pair.dialler.receive(pair.listener.frames_to_send()[0], 0.0)
    pair.dialler.authenticate(b"i" * 16, [request] * limits.OPENS_IN_AUTH_MAX)
    pair.listener.receive(pair.dialler.frames_to_send()[0], 0.0)
    authenticated: Any
    ready: Any
    (authenticated,) = pair.listener.events()
    answer = Opened(0, 7, 5, (4, b"c" * 8), b"d" * 32, 1, b"h" * 32)
    pair.listener.accept(b"s" * 16, 1, [answer] * limits.OPENS_IN_AUTH_MAX)
    pair.dialler.receive(pair.listener.frames_to_send()[0], 0.0)

    ready = pair.dialler.events()[-1]
    assert authenticated.auth.opens[0] == request
    assert ready.answers[0] == answer
