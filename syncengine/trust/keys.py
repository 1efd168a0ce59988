"""Signing keys, and when a signature counts.

Validity is a consensus rule: a batch that one peer accepts and another refuses is a
divergence. So it is defined here and not by the library below (protocol.md 1.2):
a signature is good iff the key is 32 canonical bytes and not of small order, S < L,
R is not of small order, and the verification equation holds. OpenSSL and libsodium
disagree on exactly the cases that the extra rules exclude.
"""

import hashlib
import hmac
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from syncengine.ids import DeviceId

SEED_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT = 2**255
# The y coordinates of the points of order 1, 2, 4 and 8, with the two
# non-canonical spellings that a decoder may accept.
_Y8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "little",
)
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8})


def _y(point: bytes) -> int:
    return int.from_bytes(point, "little") & (_SIGN_BIT - 1)


class PrivateKey(Protocol):
    """A device's secret, ready to sign."""

    @property
    def public(self) -> DeviceId: ...

    def sign(self, message: bytes) -> bytes: ...


class Scheme(Protocol):
    """A signature scheme: Ed25519, or a stand-in where only speed is simulated."""

    def private_key(self, seed: bytes) -> PrivateKey: ...

    def is_good_key(self, public: bytes) -> bool: ...

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool: ...


class _Ed25519Key:
    def __init__(self, seed: bytes):
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = DeviceId(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return "<private key>"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class Ed25519:
    """The signature scheme of suite 1."""

    def private_key(self, seed: bytes) -> PrivateKey:
        """Return the key of a 32-byte seed."""
        return _Ed25519Key(seed)

    def is_good_key(self, public: bytes) -> bool:
        """Tell whether `public` may be registered at all."""
        if len(public) != KEY_BYTES:
            return False
        y = _y(public)
        return y < _P and y not in _SMALL_ORDER_Y

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is good, by the rule above; never raises."""
        if len(signature) != SIGNATURE_BYTES or not self.is_good_key(public):
            return False
        if int.from_bytes(signature[32:], "little") >= _L:
            return False
        if _y(signature[:32]) in _SMALL_ORDER_Y:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class _StandInKey:
    def __init__(self, seed: bytes):
        self.public = DeviceId(hashlib.sha256(b"stand-in\0" + seed).digest())

    def sign(self, message: bytes) -> bytes:
        return _stand_in_signature(self.public, message)


def _stand_in_signature(public: bytes, message: bytes) -> bytes:
    half = hashlib.sha256(public + message).digest()
    return half + half


class StandIn:
    """Not secure: lets the simulator run most seeds without paying for Ed25519.

    Anyone can forge it. It is reachable only through `syncengine.testing`.
    """

    def private_key(self, seed: bytes) -> PrivateKey:
        return _StandInKey(seed)

    def is_good_key(self, public: bytes) -> bool:
        return len(public) == KEY_BYTES

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(_stand_in_signature(public, message), signature)


ED25519 = Ed25519()
