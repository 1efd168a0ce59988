"""What a session has seen of the log of leaders, as text to be kept.

Nobody vouches for a token: it is trusted for nothing but waiting.
"""

import base64
import binascii
from typing import NamedTuple, Self

from syncengine.errors import Invalid
from syncengine.ids import EntryId, NamespaceId

_NAMESPACE_BYTES, _MODE_BYTES, _COUNT_BYTES, _HASH_BYTES = 8, 32, 8, 16
_TOKEN_BYTES = _NAMESPACE_BYTES + _MODE_BYTES + 2 * _COUNT_BYTES + _HASH_BYTES


class Token(NamedTuple):
    """An entry of the log of leaders: all up to it was seen."""

    namespace8: bytes
    """The first 8 bytes of the namespace's id"""
    mode: EntryId
    """The entry that began the mode"""
    term: int
    """The number of the highest term that was known where it was seen"""
    sequence: int
    hash16: bytes
    """The first 16 bytes of the id of the batch that holds it"""

    def encode(self) -> str:
        counts = (n.to_bytes(_COUNT_BYTES, "big") for n in (self.term, self.sequence))
        raw = b"".join((self.namespace8, self.mode, *counts, self.hash16))
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def is_of(self, namespace: NamespaceId) -> bool:
        return namespace.startswith(self.namespace8)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token in `text`; raises `Invalid`."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != _TOKEN_BYTES:
            raise Invalid("this is no session token; they come with writes and reads")
        namespace8, rest = raw[:_NAMESPACE_BYTES], raw[_NAMESPACE_BYTES:]
        mode, rest = rest[:_MODE_BYTES], rest[_MODE_BYTES:]
        term, sequence = (
            int.from_bytes(rest[at : at + _COUNT_BYTES], "big")
            for at in (0, _COUNT_BYTES)
        )
        hash16 = rest[2 * _COUNT_BYTES :]
        return cls(namespace8, EntryId(mode), term, sequence, hash16)
