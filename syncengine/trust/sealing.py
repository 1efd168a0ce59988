"""Sealing frames for one session: X25519, HKDF-SHA-256, AES-256-GCM.

The counter is never sent: a frame that was replayed, dropped or reordered does not
open, and the connection closes.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from syncengine import limits

EXCHANGE_BYTES = 32
TAG_BYTES = 16


class Exchange:
    """One side's ephemeral half of a key agreement; used once."""

    def __init__(self, seed: bytes):
        self._key = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        """Return the shared secret; raises `ValueError` on a degenerate key."""
        return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))


def derive(secret: bytes, *, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """Return `length` key bytes by HKDF-SHA-256."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


class Sealer:
    """One direction of a session: seals, or opens, frame after frame."""

    def __init__(self, key: bytes):
        self._key = key
        self._cipher = AESGCM(key)
        self._count = 0

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return `plaintext` sealed under the next nonce."""
        nonce = self._nonce()  # first: it may change the cipher
        return self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, frame: bytes, aad: bytes) -> bytes | None:
        """Return what is in `frame`, or None when it is not the next one."""
        nonce = self._nonce()
        try:
            return self._cipher.decrypt(nonce, frame, aad)
        except InvalidTag:
            return None

    def _nonce(self) -> bytes:
        # The position inside the key's life; both sides rekey at the same frame.
        position = self._count % limits.REKEY_FRAMES
        if self._count and position == 0:
            self._key = HKDFExpand(SHA256(), 32, b"rekey").derive(self._key)
            self._cipher = AESGCM(self._key)
        self._count += 1
        return position.to_bytes(12, "big")
