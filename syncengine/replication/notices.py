"""Notices between members: signed, handed on once, kept by nobody.

They travel on every link of a namespace, through hubs and replicas, and wherever else
somebody carries them. What they say is checked by those who listen.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from syncengine import limits, values
from syncengine.clock import Entropy
from syncengine.ids import DeviceId, NamespaceId
from syncengine.protocol.messages import Notice
from syncengine.replication.host import Signal, Told
from syncengine.replication.keeper import Keeper
from syncengine.trust.keys import PrivateKey
from syncengine.trust.membership import Ops

log = logging.getLogger("syncengine")

NAME_BYTES = 8

Listener = Callable[[DeviceId, bytes], None]
Carrier = Callable[[Notice], None]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Notice)


def encode_notice(notice: Notice) -> bytes:
    """Return a notice for somebody who carries it in another way than links do."""
    return _encoder.encode(notice)


def decode_notice(raw: bytes) -> Notice:
    """Return a notice, unverified; raises `ValueError`."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no notice: {error}") from error


def signed_bytes(namespace: NamespaceId, notice: Notice) -> bytes:
    """Return what the author of a notice signs."""
    said = values.encode([notice.to, notice.name, notice.body])
    return b"sync1:notice\0" + namespace + said


class Known:
    """The names of notices that came, as far as they are remembered."""

    def __init__(self) -> None:
        self._names: dict[tuple[bytes, bytes], None] = {}

    def is_new(self, notice: Notice) -> bool:
        """Tell whether it came the first time, and remember it."""
        name = notice.author, notice.name
        if name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > limits.NOTICES_KNOWN_MAX:
            del self._names[next(iter(self._names))]
        return True


def hand_on(notice: Notice, channels: Iterable[Told], source: Told | None) -> None:
    """Tell those whom it may concern, but not the one who told it."""
    others = [channel for channel in channels if channel is not source]
    meant = [channel for channel in others if channel.device == notice.to]
    for channel in meant or others:  # who is meant may be behind one of them
        channel.tell(notice)


class Linked(Protocol):
    """The engine, as far as notices need it."""

    channels: list[Told]
    log_grew: Signal


class Notices:
    """The notices of one namespace at a replica."""

    def __init__(
        self, keeper: Keeper, key: PrivateKey, entropy: Entropy, engine: Linked
    ):
        self._keeper = keeper
        self._key = key
        self._entropy = entropy
        self._engine = engine
        self._known = Known()
        self.listeners: list[Listener] = []
        self.carriers: list[Carrier] = []
        """What else takes them to others"""

    def say(self, body: bytes, to: DeviceId | None = None) -> None:
        """Tell one member, or all."""
        name = self._entropy.bytes(NAME_BYTES)
        notice = Notice(0, self._key.public, to, name, body, bytes(64))
        signature = self._key.sign(signed_bytes(self._keeper.namespace, notice))
        notice = Notice(0, self._key.public, to, name, body, signature)
        self._known.is_new(notice)
        self._send(notice, None)

    def hear(self, notice: Notice, source: Told | None = None) -> None:
        """Somebody told it, over a link or in another way."""
        if not self._known.is_new(notice):
            return
        me = DeviceId(self._key.public)
        if notice.to != me:
            others = [told for told in self._engine.channels if told is not source]
            if others:
                self._send(notice, source)
        if notice.to in (None, me) and self.listeners:
            author = DeviceId(notice.author)
            if self._is_members(author, notice):
                for listener in list(self.listeners):
                    listener(author, notice.body)

    def _send(self, notice: Notice, source: Told | None) -> None:
        hand_on(notice, self._engine.channels, source)
        for carry in self.carriers:
            carry(notice)
        self._engine.log_grew.set()

    def _is_members(self, author: DeviceId, notice: Notice) -> bool:
        """Tell whether one who may read signed it: a hub makes none up."""
        return self._keeper.membership.may(author, Ops.READ) and (
            self._keeper.scheme.verify(
                author,
                signed_bytes(self._keeper.namespace, notice),
                notice.signature,
            )
        )
