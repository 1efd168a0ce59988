"""Mutual authentication in one round trip more than WebSocket's own.

::

    dialler                                   listener
    HELLO      fresh nonce and exchange  ->
               <-  CHALLENGE   the same, its device, SIG_S
    AUTH sealed: device, opens, SIG_C    ->
               <-  READY sealed: answers

After SIGMA-I (Krawczyk 2003), as Noise XX shapes it: the dialler shows itself only
to the listener that it means. `th1` and `th2` are hashes of everything said so far;
the listener signs th1, the dialler th2, and the session keys depend on both.
"""

import hashlib

import msgspec

from syncengine.errors import ProtocolError
from syncengine.ids import DeviceId, Lineage
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import VERSION, Auth, Challenge, Hello, Open
from syncengine.trust.keys import SIGNATURE_BYTES, PrivateKey, Scheme
from syncengine.trust.sealing import Exchange, Sealer, derive

_CONTEXT = b"sync1:hs\0"
_HUB = b"sync1:hs-hub\0"
_DEVICE = b"sync1:hs-dev\0"
AUTH_AAD = b"sync.v1 auth"

_encode = msgspec.msgpack.Encoder().encode
_hello = msgspec.msgpack.Decoder(Hello)
_challenge = msgspec.msgpack.Decoder(Challenge)
_auth = msgspec.msgpack.Decoder(Auth)

_MALFORMED = (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError)


class AuthenticationFailed(ProtocolError):
    """The handshake failed. The peer is told nothing more than that."""

    def __init__(self, why: str):
        super().__init__(Code.AUTHENTICATION, f"authentication failed: {why}")


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


class _Keys:
    """The key schedule, the same on both sides."""

    def __init__(self, secret: bytes, th1: bytes):
        self._secret = secret
        self.auth = Sealer(derive(secret, salt=th1, info=b"hs"))

    def session(self, th2: bytes, signature: bytes) -> tuple[Sealer, Sealer]:
        """Return the sealers of (dialler to listener, listener to dialler)."""
        both = derive(
            self._secret, salt=_sha256(th2, signature), info=b"app", length=64
        )
        return Sealer(both[:32]), Sealer(both[32:])


class Dialler:
    """The side that connects."""

    def __init__(
        self,
        scheme: Scheme,
        key: PrivateKey,
        nonce: bytes,
        exchange: Exchange,
        wanted: DeviceId | None,
    ):
        self._scheme = scheme
        self._key = key
        self._exchange = exchange
        self._wanted = wanted
        self.hello = _encode(Hello(VERSION, nonce, exchange.public, wanted))
        self.listener: DeviceId
        self.lineage: Lineage

    def challenged(self, frame: bytes) -> None:
        """Check CHALLENGE; after this, `listener` and `lineage` are known.

        Raises `AuthenticationFailed` before anything of ours was shown.
        """
        body, signature = frame[:-SIGNATURE_BYTES], frame[-SIGNATURE_BYTES:]
        try:
            challenge = _challenge.decode(body)
        except _MALFORMED as error:
            raise ProtocolError(Code.PROTOCOL, "a malformed challenge") from error
        if challenge.version != VERSION:
            raise ProtocolError(
                Code.VERSION, f"the peer speaks version {challenge.version}"
            )
        if self._wanted is not None and challenge.device != self._wanted:
            raise AuthenticationFailed(
                "another hub answers under this address; ask for its new address"
            )
        self._th1 = _sha256(_CONTEXT, self.hello, body)
        if not self._scheme.verify(challenge.device, _HUB + self._th1, signature):
            raise AuthenticationFailed("the hub cannot prove who it is")
        try:
            secret = self._exchange.shared(challenge.exchange)
        except ValueError as error:
            raise AuthenticationFailed("a degenerate key") from error
        self._keys = _Keys(secret, self._th1)
        self._signature = signature
        self.listener = DeviceId(challenge.device)
        self.lineage = Lineage(challenge.lineage)

    def authenticate(
        self, instance: bytes, opens: list[Open]
    ) -> tuple[bytes, Sealer, Sealer]:
        """Return AUTH, and the sealers (outgoing, incoming) of what follows."""
        body = _encode(Auth(self._key.public, instance, opens))
        th2 = _sha256(self._th1, self._signature, body)
        signature = self._key.sign(_DEVICE + th2)
        frame = self._keys.auth.seal(body + signature, AUTH_AAD)
        return frame, *self._keys.session(th2, signature)


class Listener:
    """The side that was connected to."""

    def __init__(
        self,
        scheme: Scheme,
        key: PrivateKey,
        nonce: bytes,
        exchange: Exchange,
        lineage: Lineage,
    ):
        self._scheme = scheme
        self._key = key
        self._nonce = nonce
        self._exchange = exchange
        self._lineage = lineage

    def greeted(self, frame: bytes) -> bytes:
        """Return CHALLENGE for HELLO."""
        try:
            hello = _hello.decode(frame)
        except _MALFORMED as error:
            raise ProtocolError(Code.PROTOCOL, "a malformed hello") from error
        if hello.version != VERSION:
            raise ProtocolError(
                Code.VERSION, f"the peer speaks version {hello.version}"
            )
        # Whom it means is for the dialler to check: it can tell its user.
        body = _encode(
            Challenge(
                VERSION,
                self._nonce,
                self._exchange.public,
                self._key.public,
                self._lineage,
            )
        )
        self._th1 = _sha256(_CONTEXT, frame, body)
        self._signature = self._key.sign(_HUB + self._th1)
        try:
            secret = self._exchange.shared(hello.exchange)
        except ValueError as error:
            raise AuthenticationFailed("a degenerate key") from error
        self._keys = _Keys(secret, self._th1)
        return body + self._signature

    def authenticated(self, frame: bytes) -> tuple[Auth, Sealer, Sealer]:
        """Return what AUTH says and the sealers (outgoing, incoming).

        Nothing is done with the device's key before its signature is good.
        """
        plain = self._keys.auth.open(frame, AUTH_AAD)
        if plain is None:
            raise AuthenticationFailed("AUTH does not open")
        body, signature = plain[:-SIGNATURE_BYTES], plain[-SIGNATURE_BYTES:]
        try:
            auth = _auth.decode(body)
        except _MALFORMED as error:
            raise AuthenticationFailed("a malformed AUTH") from error
        th2 = _sha256(self._th1, self._signature, body)
        if not self._scheme.verify(auth.device, _DEVICE + th2, signature):
            raise AuthenticationFailed("the device cannot prove who it is")
        incoming, outgoing = self._keys.session(th2, signature)
        return auth, outgoing, incoming
