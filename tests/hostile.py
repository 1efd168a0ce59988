"""A granted peer that says what it likes: sealed and signed, and wrong.

It does the handshake as anybody does, but what it sends is mutated first: by structure
(a field replaced, dropped, doubled), by bytes, or inside the batches that it signs.
"""

# pyright: reportPrivateUsage=false

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec

from syncengine import ConnectionLost, values
from syncengine.ids import DeviceId, Lineage
from syncengine.log.batch import (
    NO_BATCH,
    Batch,
    Header,
    Payload,
    batch_id,
    encode_payload,
    root_of,
    signed_bytes,
)
from syncengine.log.change import Change, Touch
from syncengine.log.run import encode_rows
from syncengine.protocol import handshake
from syncengine.protocol.handshake import Dialler, Listener
from syncengine.protocol.messages import (
    Ack,
    Auth,
    Challenge,
    Data,
    Frontier,
    Goodbye,
    Hello,
    Idle,
    Leave,
    Message,
    Notice,
    Open,
    Opened,
    Ping,
    Pong,
    Ready,
    Refusal,
    StateDigest,
    Void,
)
from syncengine.protocol.notices import (
    Beat,
    Candidacy,
    Progress,
    Spoken,
    TakeOver,
    Vote,
)
from syncengine.protocol.notices import encode as encode_said
from syncengine.protocol.session import Authenticated, Challenged, Session
from syncengine.protocol.states import State
from syncengine.replication.namespace import Namespace
from syncengine.replication.notices import signed_bytes as signed_notice
from syncengine.trust.entry import signed_bytes as signed_entry
from syncengine.trust.keys import ED25519, PrivateKey
from syncengine.trust.membership import ForkProof, make_actor, make_fork, make_grant
from syncengine.trust.sealing import Exchange, Sealer
from transport.memory import MemoryConnection

encode = msgspec.msgpack.Encoder().encode

ODD: list[Any] = [
    None, True, -1, 0, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 1.5, float("nan"), "",
    "x" * 600, "a/b", "\0", "\U0010ffff", b"", bytes(16), bytes(31), bytes(32),
    bytes(33), bytes(64), [], [[]], [None], {}, {"a": 1}, [[[[[[[[1]]]]]]]],
]  # fmt: skip


def mutated(value: Any, chance: random.Random, *, keep: int = 0) -> Any:
    """Return a decoded message with something wrong somewhere below `keep`."""
    if values.is_list(value) and len(value) > keep and chance.random() < 0.85:
        items = list(value)
        at = chance.randrange(keep, len(items))
        match chance.randrange(8):
            case 0:
                del items[at]
            case 1:
                items.insert(at, chance.choice(ODD))
            case 2:
                items[at] = items[chance.randrange(keep, len(items))]
            case _:
                items[at] = mutated(items[at], chance)
        return items
    if isinstance(value, bytes) and value and chance.random() < 0.6:
        raw = bytearray(value)
        match chance.randrange(3):
            case 0:
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
            case 1:
                del raw[chance.randrange(len(raw)) :]
            case _:
                at = chance.randrange(len(raw))
                raw[at : at + 8] = chance.randbytes(8)
        return bytes(raw)
    if type(value) is int and chance.random() < 0.5:
        return value + chance.choice((-1, 1, 1000))
    return chance.choice(ODD)


def mutated_bytes(plain: bytes, chance: random.Random) -> bytes:
    """Return an encoded message with a flipped bit, cut short, or longer."""
    raw = bytearray(plain)
    match chance.randrange(4):
        case 0:
            return bytes(raw[: chance.randrange(len(raw))])
        case 1:
            return bytes(raw) + chance.randbytes(chance.randint(1, 20))
        case _:
            for at in {chance.randrange(len(raw)) for _ in range(3)}:
                raw[at] ^= 1 << chance.randrange(8)
            return bytes(raw)


def mutant(plain: bytes, chance: random.Random) -> bytes:
    """Return an encoded message, wrong in structure or in bytes."""
    if chance.random() < 0.3:
        return mutated_bytes(plain, chance)
    return encode(mutated(msgspec.msgpack.decode(plain), chance, keep=1))


class HostileDialler(Dialler):
    """Signs and seals what `spoil` makes of its AUTH."""

    spoil: Callable[[bytes], bytes] | None = None

    def authenticate(
        self, instance: bytes, opens: list[Open]
    ) -> tuple[bytes, Sealer, Sealer]:
        body = encode(Auth(self._key.public, instance, opens))
        if self.spoil is not None:
            body = self.spoil(body)
        th2 = handshake._sha256(self._th1, self._signature, body)
        signature = self._key.sign(handshake._DEVICE + th2)
        frame = self._keys.auth.seal(body + signature, handshake.AUTH_AAD)
        return frame, *self._keys.session(th2, signature)


class HostileListener(Listener):
    """Signs what `spoil` makes of its CHALLENGE."""

    spoil: Callable[[bytes], bytes] | None = None

    def greeted(self, frame: bytes) -> bytes:
        answer = super().greeted(frame)
        if self.spoil is None:
            return answer
        body = self.spoil(answer[:-64])
        self._th1 = handshake._sha256(handshake._CONTEXT, frame, body)
        return body + self._key.sign(handshake._HUB + self._th1)


class HostileSession(Session):
    """A session that remembers what it was told, and can say anything."""

    def __init__(self, machine: Dialler | Listener):
        super().__init__(machine, 0.0)
        self.told: list[Any] = []  # messages, decoded
        self.asked = 0
        self.ready: bytes | None = None  # said instead of a good READY

    def say(self, plain: bytes) -> None:
        self._send(plain)

    def accept(
        self, session: bytes, now_ms: int, answers: list[Opened | Refusal]
    ) -> None:
        if self.ready is None:
            super().accept(session, now_ms, answers)
        else:
            self._step("send READY")
            self._send(self.ready)

    def _opened(self, frame: bytes) -> bytes | None:
        plain = super()._opened(frame)
        if plain is not None:
            self.told.append(msgspec.msgpack.decode(plain))
        return plain


class Enemy:
    """A device with a grant, and what it can say."""

    def __init__(self, key: PrivateKey, engine: Namespace, chance: random.Random):
        self.key = key
        self.engine = engine
        self.chance = chance
        self._hlc = engine.clock.tick()

    def session(self, *, dials: bool) -> HostileSession:
        exchange = Exchange(os.urandom(32))
        if dials:
            return HostileSession(
                HostileDialler(ED25519, self.key, os.urandom(32), exchange, None)
            )
        lineage = Lineage(os.urandom(16))
        return HostileSession(
            HostileListener(ED25519, self.key, os.urandom(32), exchange, lineage)
        )

    def open(self, channel: int = 0) -> Open:
        keeper, engine = self.engine.keeper, self.engine
        assert engine.actor is not None
        assert engine.grant is not None
        head = keeper.heads[engine.actor]
        entries = [
            (e.kind, e.body, e.signature) for e in keeper.membership.chain(engine.grant)
        ]
        return Open(
            channel, keeper.namespace, engine.grant, None, head.seq, head.id,
            os.urandom(16), keeper.position, None, keeper.digest(), entries, None,
        )  # fmt: skip

    def valid(self, kind: type[Message], theirs: Any) -> Message:
        """Return a message of that kind that is in order; `theirs`: the peer's keeper."""
        keeper, chance = self.engine.keeper, self.chance
        position = theirs.position
        if kind is Open:
            return self.open(1)
        if kind is Opened:
            return Opened(0, 3, position, None, keeper.digest(), 0, None)
        if kind is Refusal:
            return Refusal(0, 4403, "no", "later", "none")
        if kind is Leave:
            return Leave(0)
        if kind is Void:
            return Void(0)
        if kind is Frontier:
            return Frontier(0, list(keeper.tips()), list(keeper.membership.entries))
        if kind is Data:
            place = (position, chance.randbytes(8))
            return Data(0, place, None, False, encode_rows([self.row(theirs)]))
        if kind is Ack:
            return Ack(0, chance.randint(0, position))
        if kind is Idle:
            return Idle(0, (position, chance.randbytes(8)), keeper.digest())
        if kind is StateDigest:
            return self.state()
        if kind is Notice:
            return self.notice()
        if kind is Ready:
            return Ready(
                bytes(16), 1, [Opened(0, 3, position, None, keeper.digest(), 0, None)]
            )
        if kind is Goodbye:
            return Goodbye(1000, "bye", 0)
        return Ping() if kind is Ping else Pong()

    def state(self) -> StateDigest:
        chance = self.chance
        fields = (chance.randbytes(32), "", "\U0010ffff", 3, chance.randbytes(32))
        signed = b"sync1:state\0" + self.engine.keeper.namespace + values.encode(fields)
        return StateDigest(0, self.key.public, *fields, self.key.sign(signed))

    def notice(self) -> Notice:
        """Return what a member might say about leading, whether or not it may."""
        chance, me = self.chance, self.key.public
        mode, term, node = bytes(32), chance.randint(0, 9), "enemy"
        said: list[Spoken] = [
            Beat(mode, term, node, chance.randbytes(32), 1, True, 5, 5),
            Progress(mode, term, node, None, 1, 2, 2, True),
            Candidacy(mode, term, node, False, bytes(16), None, None, [me], False),
            Vote(mode, term, node, False, True, bytes(64)),
            TakeOver(mode, term, node),
        ]
        body = encode_said(chance.choice(said))
        notice = Notice(0, me, None, chance.randbytes(8), body, bytes(64))
        namespace = self.engine.keeper.namespace
        return Notice(
            *(0, me, None, notice.name, notice.body),
            self.key.sign(signed_notice(namespace, notice)),
        )

    # --- rows that it signs -------------------------------------------------------

    def row(self, theirs: Any) -> Any:
        """Return a batch or an entry, wrong inside, with a good signature."""
        if self.chance.random() < 0.15:
            return self._entry()
        return self._batch(theirs)

    def _entry(self) -> Any:
        keeper, chance = self.engine.keeper, self.chance
        heads = keeper.membership.recent_heads()
        match chance.randrange(3):
            case 0:
                entry = make_actor(
                    self.key, keeper.namespace, heads, chance.randbytes(16)
                )
            case 1:
                entry = make_grant(
                    self.key, keeper.namespace, heads, parent=self.engine.grant,
                    subject=DeviceId(chance.randbytes(32)), ops=chance.randint(0, 9),
                    depth=chance.randint(0, 9), nonce=chance.randbytes(16),
                )  # fmt: skip
            case _:
                chain = (chance.randbytes(190), chance.randbytes(64))
                entry = make_fork(
                    self.key, keeper.namespace, heads, ForkProof((chain, chain))
                )
        body = encode(mutated(msgspec.msgpack.decode(entry.body), chance))
        return entry._replace(
            body=body, signature=self.key.sign(signed_entry(entry.kind, body))
        )

    def _batch(self, theirs: Any) -> Batch:
        engine, chance = self.engine, self.chance
        assert engine.actor is not None
        assert engine.grant is not None
        head = theirs.heads.get(engine.actor)
        seq = head.seq + 1 if head else 1
        self._hlc += 2**16
        op = mutated(chance.choice(OPERATIONS), chance)
        ops = [op] if chance.random() < 0.7 else [chance.choice(OPERATIONS), op]
        name = chance.choice(["note/1", "note/enemy", "x", "A/b", "note/\0", "é/x"])
        change = Change(engine.actor, seq, self._hlc, [], [Touch(name, ops, len(ops))])  # type: ignore[arg-type]
        payload, root = encode_payload([change], chance.randbytes(16))
        n = len(ops)
        if chance.random() < 0.5:
            spine, salt, parts = msgspec.msgpack.decode(payload)
            if chance.random() < 0.7:
                spine = encode(mutated(msgspec.msgpack.decode(spine), chance))
            else:
                parts = mutated(parts, chance)
            payload = encode([spine, salt, parts])
            try:
                root = root_of(Payload(spine, salt, list(parts.items())))
            except (TypeError, ValueError, AttributeError):
                root = chance.randbytes(32)
        fields: dict[str, Any] = {
            "namespace": engine.keeper.namespace, "actor": engine.actor,
            "first_seq": seq, "n_ops": n, "prev": head.id if head else NO_BATCH,
            "grant": engine.grant, "root": root,
        }  # fmt: skip
        if chance.random() < 0.3:
            wrong = chance.choice(list(fields))
            if isinstance(fields[wrong], int):
                fields[wrong] += chance.choice((1, 5, 2**31))
            else:
                fields[wrong] = chance.randbytes(len(fields[wrong]))
        header = Header(**fields)
        name_ = batch_id(header.encode())
        return Batch(header, name_, self.key.sign(signed_bytes(name_)), payload)


OPERATIONS: list[list[Any]] = [
    [0], [1, None, "title", "enemy"], [2, None, "m", 1], [3, None, "title"], [4],
    [5, "n", 3], [6, "tags", "x"], [7, "tags", "x"], [8, "body", 0, "enemy"],
    [9, "body", 0, 1], [10, "body", 0, 1], [11, "items", 0, [1, 2]],
    [12, "items", 0, 1], [13, "items", 0, 5], [14, "items", 0, 1], [16, "items", 0, 1],
    [18, "body", 0, 1, "b", True, 2], [21, "outline", None, None, 0],
]  # fmt: skip


async def receive(
    session: HostileSession,
    connection: MemoryConnection,
    until: Callable[[], bool],
    opens: Callable[[], list[Open]] = list,
) -> bool:
    """Talk until `until()`; False when the peer closed first. A hang is an error."""
    async with asyncio.timeout(10):
        while True:
            try:
                for frame in session.frames_to_send():
                    await connection.send(frame)
                if until():
                    return True
                session.receive(await connection.receive(), 0.0)
            except ConnectionLost:
                return until()
            for event in session.events():
                if isinstance(event, Challenged):
                    session.authenticate(os.urandom(16), opens())
                elif isinstance(event, Authenticated):
                    session.accept(bytes(16), 1, [])
            if session.state is State.CLOSED:
                return until()


HANDSHAKE = (Hello, Challenge, Auth, Ready)
"""Said once for each connection; the others are said on a live link."""
