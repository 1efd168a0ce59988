"""Identifiers: small types that cannot be mixed up, and how a person sees them."""

import base64
import hashlib
import re
from typing import NewType

from syncengine import limits
from syncengine.errors import Invalid

ActorId = NewType("ActorId", bytes)  # 16 bytes: one incarnation of a replica
BatchId = NewType("BatchId", bytes)  # 32 bytes: SHA-256 of a batch header
DeviceId = NewType("DeviceId", bytes)  # 32 bytes: an Ed25519 public key
EntryId = NewType("EntryId", bytes)  # 32 bytes: a membership entry; a grant's id
NamespaceId = NewType("NamespaceId", bytes)  # 32 bytes: commits to the owners
Lineage = NewType("Lineage", bytes)  # 16 bytes: one storage history of a log
DocumentId = NewType("DocumentId", str)  # "collection/id"

OpId = tuple[ActorId, int]
"""(actor, seq): names one operation for ever."""

Stamp = tuple[int, ActorId, int]
"""(hlc, actor, seq): the total order of writes."""

ACTOR_BYTES = 16
DEVICE_BYTES = 32
HASH_BYTES = 32
HASH16_BYTES = 16
LINEAGE_BYTES = 16

_COLLECTION = re.compile(r"(?!sqlite_)[a-z][a-z0-9_]{0,62}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def actor_id(device: DeviceId, namespace: NamespaceId, nonce: bytes) -> ActorId:
    """Return the actor that `device` makes with `nonce` (16 bytes)."""
    digest = hashlib.sha256(b"sync1:actor\0" + device + namespace + nonce).digest()
    return ActorId(digest[:ACTOR_BYTES])


def partition_of(namespace: bytes, partitions: int = limits.PARTITIONS) -> int:
    """Return the partition of a namespace: the one hash, of pipelines and fleets."""
    digest = hashlib.blake2b(namespace, digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def check_partitions(count: int) -> None:
    """Raise `Invalid` unless `count` is a power of two: then it can be doubled."""
    is_count = type(count) is int and 1 <= count <= limits.PARTITIONS_MAX
    if not is_count or count & (count - 1):
        raise Invalid(
            f"there is a power of two of partitions, up to {limits.PARTITIONS_MAX}, "
            f"not {count!r}",
            bound=limits.PARTITIONS_MAX,
        )


def document_id(collection: str, key: str) -> DocumentId:
    """Return `collection/key`; raises `Invalid` with the rule that it breaks."""
    check_collection(collection)
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(
            f"a document id is a str, not {type(key).__name__}", path=collection
        )
    if not key:
        raise Invalid("a document id is not empty", path=f"{collection}/")
    if "/" in key or _CONTROL.search(key):
        raise Invalid(
            "a document id has no '/' and no control characters",
            path=f"{collection}/{key!r}",
        )
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Invalid("a document id holds a lone surrogate", path=collection) from None
    if size > limits.DOCUMENT_ID_BYTES_MAX:
        raise Invalid(
            f"a document id has at most {limits.DOCUMENT_ID_BYTES_MAX} bytes of UTF-8",
            path=f"{collection}/{key[:40]}...",
            bound=limits.DOCUMENT_ID_BYTES_MAX,
        )
    return DocumentId(f"{collection}/{key}")


def parse_document_id(text: str) -> DocumentId:
    """Return `text` as a document id, checked; raises `Invalid`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"a document is named by a str, not {type(text).__name__}")
    collection, slash, key = text.partition("/")
    if not slash:
        raise Invalid("a document is named collection/id", path=text)
    return document_id(collection, key)


def check_collection(name: str) -> str:
    """Return `name`; raises `Invalid` unless it can be a collection."""
    if not _COLLECTION.fullmatch(name):
        raise Invalid(
            "a collection is 1 to 63 of a-z, 0-9 and _, and begins with a letter (not "
            "with sqlite_)",
            path=name,
            bound=limits.COLLECTION_BYTES_MAX,
        )
    return name


def base32(data: bytes) -> str:
    """Return `data` in lower-case base32 without padding."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def from_base32(text: str) -> bytes:
    """Invert `base32`; raises `ValueError`."""
    padding = "=" * (-len(text) % 8)
    return base64.b32decode(text.upper() + padding)


def parse_device_id(text: str) -> DeviceId:
    """Return the device that `text` names; raises `Invalid`."""
    try:
        device = from_base32(text)
    except ValueError:
        device = b""
    if len(device) != DEVICE_BYTES:
        raise Invalid(f"a device is named by the 52 characters of its id, not {text!r}")
    return DeviceId(device)


def parse_namespace_id(text: str) -> NamespaceId:
    """Return the namespace whose id `text` is; raises `Invalid`."""
    try:
        raw = from_base32(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != HASH_BYTES:
        raise Invalid("this is no namespace's id; copy it again as a whole")
    return NamespaceId(raw)


def node_id(node: OpId) -> str:
    """Return how an application names the node of a tree."""
    actor, seq = node
    return f"{base32(actor)}-{seq}"


def parse_node_id(text: str) -> OpId:
    """Invert `node_id`; raises `Invalid`."""
    name, _, number = text.partition("-")
    try:
        actor, seq = from_base32(name), int(number)
    except ValueError:
        actor, seq = b"", 0
    if len(actor) != ACTOR_BYTES or seq < 1:
        raise Invalid(f"{text!r} names no node; node.id does")
    return ActorId(actor), seq


def short(data: bytes) -> str:
    """Return the eight characters by which logs and people name an id."""
    return base32(data)[:8]
