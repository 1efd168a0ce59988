"""A row of the membership log: `(kind, body, signature)`.

The body is a MessagePack array `[version, namespace, issuer, heads, ...fields]`, signed
under `sync1:entry || 0 || kind || body`, and named by the SHA-256 of those bytes.
"""

import hashlib
from enum import IntEnum
from typing import Any, NamedTuple

from syncengine import values
from syncengine.ids import EntryId
from syncengine.trust.keys import PrivateKey

VERSION = 1


class Kind(IntEnum):
    """What an entry says. Unknown kinds are kept and forwarded."""

    GENESIS = 1
    GRANT = 2
    REVOKE = 3  # reserved, as are those marked below
    ACTOR = 4
    RETIRE = 5  # reserved
    FORK = 6
    BASE = 7  # reserved
    REKEY = 8  # reserved
    MODE = 9
    ATTEST = 10  # reserved
    TERM = 11
    PLACEMENT = 12


class Entry(NamedTuple):
    """A membership entry as it was received."""

    kind: int
    body: bytes
    signature: bytes


class InvalidEntry(ValueError):
    """An entry that breaks a rule; the text says which."""


class Pending(ValueError):
    """An entry whose parent is not known yet: it may become valid."""


def signed_bytes(kind: int, body: bytes) -> bytes:
    """Return what an entry's signature covers."""
    return b"sync1:entry\0" + bytes((kind,)) + body


def entry_id(entry: Entry) -> EntryId:
    """Return the name of `entry`."""
    return EntryId(hashlib.sha256(signed_bytes(entry.kind, entry.body)).digest())


def sign(key: PrivateKey, kind: int, fields: list[Any]) -> Entry:
    """Return the entry of `fields`, which begin with version, namespace, issuer and
    heads."""
    body = values.encode(fields)
    return Entry(kind, body, key.sign(signed_bytes(kind, body)))


def read_bytes(value: Any, length: int | None) -> bytes:
    """Return `value` if it is bytes, so many of them; raises `InvalidEntry`."""
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise InvalidEntry(f"expected {length or 'some'} bytes")
    return value


def read_text(value: Any) -> str:
    """Return `value` if it is text; raises `InvalidEntry`."""
    if not isinstance(value, str):
        raise InvalidEntry("expected text")
    return value


def read_count(value: Any) -> int:
    """Return `value` if it is a whole number from 0 on; raises `InvalidEntry`."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidEntry("expected a whole number")
    return value
