"""A batch: consecutive changes of one actor, hash-linked and signed once.

It is built once: header, signature and payload are on disk before the first byte
leaves, and are never rebuilt. A relay reads the header and the parts' names only.

The payload is a *spine* (per change: hlc, deps, meta, what it touches) and one
*part* for each document touched. The header commits to both through `root`, so a
part can later be withheld, erased or expired by sending its hash in its place.
"""

import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import msgspec

from syncengine import limits, values
from syncengine.ids import (
    ActorId,
    BatchId,
    DocumentId,
    EntryId,
    NamespaceId,
)
from syncengine.log.change import Change, Dep, Meta, Touch, parse_meta
from syncengine.trust.keys import PrivateKey

VERSION = 1
SUITE = 1
SALT_BYTES = 16
NO_BATCH = BatchId(bytes(32))
NO_EPOCH = bytes(16)

# version, suite, namespace, actor, first_seq, n_ops, prev, grant, term, index,
# epoch, root: 190 bytes, big-endian.
_HEADER = struct.Struct(">BB32s16sQI32s32sQQ16s32s")
HEADER_BYTES = _HEADER.size


class Header(NamedTuple):
    """What is signed. `prev` is the actor's previous batch, or zeros."""

    namespace: NamespaceId
    actor: ActorId
    first_seq: int
    n_ops: int
    prev: BatchId
    grant: EntryId
    root: bytes
    term: int = 0
    term_index: int = 0
    epoch: bytes = NO_EPOCH

    def encode(self) -> bytes:
        return _HEADER.pack(
            VERSION,
            SUITE,
            self.namespace,
            self.actor,
            self.first_seq,
            self.n_ops,
            self.prev,
            self.grant,
            self.term,
            self.term_index,
            self.epoch,
            self.root,
        )

    @property
    def end(self) -> int:
        """The last seq of the batch."""
        return self.first_seq + self.n_ops - 1


def decode_header(data: bytes) -> Header:
    """Return the header in `data`; raises `ValueError`."""
    if len(data) != HEADER_BYTES:
        raise ValueError(f"a header has {HEADER_BYTES} bytes")
    version, suite, namespace, actor, seq, n, prev, grant, term, index, epoch, root = (
        _HEADER.unpack(data)
    )
    if (version, suite) != (VERSION, SUITE):
        raise ValueError(f"batch version {version}, suite {suite} is not known")
    return Header(
        NamespaceId(namespace),
        ActorId(actor),
        seq,
        n,
        BatchId(prev),
        EntryId(grant),
        root,
        term,
        index,
        epoch,
    )


def batch_id(header: bytes) -> BatchId:
    """Return the name of the batch with these header bytes."""
    return BatchId(hashlib.sha256(header).digest())


def signed_bytes(batch: BatchId) -> bytes:
    """Return what a batch's signature covers."""
    return b"sync1:batch\0" + batch


class Batch(NamedTuple):
    """A batch as it is kept and relayed; inside a run `signature` may be empty."""

    header: Header
    id: BatchId
    signature: bytes
    payload: bytes


class Payload(NamedTuple):
    """The parts of a payload, still encoded: what a relay sees."""

    spine: bytes
    salt: bytes
    parts: list[tuple[str, bytes]]


_Parts = Annotated[dict[str, bytes], msgspec.Meta(max_length=limits.PARTS_MAX)]


class _Payload(msgspec.Struct, array_like=True, gc=False):
    """A payload as it is decoded by one who trusts nobody: it holds what it may and no
    more, or a few kilobytes of empty maps would fill the memory."""

    spine: bytes
    salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    parts: _Parts


_payload = msgspec.msgpack.Decoder(_Payload)


def split_payload(payload: bytes) -> Payload:
    """Return spine, salt and named parts; raises `ValueError` when malformed."""
    try:
        outer = _payload.decode(payload)
    except values.DECODE_ERRORS as error:
        raise ValueError("a payload is [spine, salt, {name: part}]") from error
    return Payload(outer.spine, outer.salt, list(outer.parts.items()))


def root_of(payload: Payload) -> bytes:
    """Return the hash that a header carries.

    SHA-256 over the spine's hash and, for each part, SHA-256(salt_i || name || 0 ||
    part), where salt_i = SHA-256(salt || i): a withheld part cannot be guessed from
    its hash by one who has not been given its salt.
    """
    sha256 = hashlib.sha256
    root = sha256(sha256(payload.spine).digest())
    for index, (name, part) in enumerate(payload.parts):
        salt = sha256(payload.salt + index.to_bytes(4, "big")).digest()
        root.update(sha256(salt + name.encode() + b"\0" + part).digest())
    return root.digest()


def encode_payload(changes: Sequence[Change], salt: bytes) -> tuple[bytes, bytes]:
    """Return the payload of `changes` and its root."""
    order: dict[DocumentId, int] = {}
    groups: list[list[list[Any]]] = []
    touches: list[list[int]] = []
    for change in changes:
        flat: list[int] = []
        for document, ops, n in change.touches:
            part = order.get(document)
            if part is None:
                part = order[document] = len(groups)
                flat.append(0)
                groups.append([ops])
            else:
                flat.append(len(groups) - part)
                groups[part].append(ops)
            flat.append(n)
        touches.append(flat)
    hlcs = [changes[0].hlc]
    hlcs += [later.hlc - earlier.hlc for earlier, later in pairwise(changes)]
    deps = [[i, change.deps] for i, change in enumerate(changes) if change.deps]
    metas = [
        [i, meta]
        for i, change in enumerate(changes)
        if (meta := change.meta.encode()) is not None
    ]
    spine = values.encode([hlcs, deps, metas, touches])
    parts = {str(document): values.encode(groups[i]) for document, i in order.items()}
    payload = values.encode([spine, salt, parts])
    return payload, root_of(Payload(spine, salt, list(parts.items())))


def seal(
    key: PrivateKey,
    namespace: NamespaceId,
    grant: EntryId,
    prev: BatchId,
    changes: Sequence[Change],
    salt: bytes,
    *,
    term: int = 0,
    index: int = 0,
) -> Batch:
    """Return the signed batch of `changes`, all of one actor and without gaps; a
    leader's has its term, and the index of its last change."""
    assert changes, "a batch holds at least one change"
    payload, root = encode_payload(changes, salt)
    header = Header(
        namespace,
        changes[0].actor,
        changes[0].seq,
        sum(change.n for change in changes),
        prev,
        grant,
        root,
        term,
        index,
    )
    name = batch_id(header.encode())
    return Batch(header, name, key.sign(signed_bytes(name)), payload)


class ChangeHead(msgspec.Struct, frozen=True, gc=False):
    """A change as its spine tells it; its operations are still encoded."""

    seq: int
    n: int
    hlc: int
    deps: list[Dep]
    meta: Meta
    touches: list[tuple[int, int, int]]
    """(part, which group of the part, n operations)"""

    @property
    def end(self) -> int:
        return self.seq + self.n - 1


class UndecodableBatch(ValueError):
    """A payload that no replica can read: all of the batch is void."""


def decode_spine(header: Header, payload: Payload) -> list[ChangeHead]:
    """Return the changes of a batch in order; raises `UndecodableBatch`.

    The verdict depends on the bytes alone, so every replica reaches the same.
    """
    _check_items(payload)
    try:
        hlcs, deps, metas, touches, *_ = values.decode(payload.spine)
        deps_by_index = {index: _deps(raw) for index, raw in deps}
        meta_by_index = {index: parse_meta(raw) for index, raw in metas}
        heads: list[ChangeHead] = []
        groups: list[int] = []
        seq, hlc = header.first_seq, 0
        for index, flat in enumerate(touches):
            step = hlcs[index]
            if type(step) is not int or step <= 0:
                raise ValueError("stamps strictly increase")
            hlc += step
            head = ChangeHead(
                seq,
                sum(flat[1::2]),
                hlc,
                deps_by_index.get(index, []),
                meta_by_index.get(index, _NO_META),
                _touches(flat, groups),
            )
            if head.n <= 0:
                raise ValueError("a change has operations")
            heads.append(head)
            seq += head.n
        if seq != header.first_seq + header.n_ops or len(hlcs) != len(touches):
            raise ValueError("a spine counts what its header counts")
        if len(groups) != len(payload.parts):
            raise ValueError("a spine names each part")
    except (*values.DECODE_ERRORS, TypeError, IndexError, KeyError) as error:
        raise UndecodableBatch(str(error)) from error
    return heads


def _check_items(payload: Payload) -> None:
    """Raise before more is decoded than a batch may say."""
    encoded = [payload.spine, *(part for _, part in payload.parts)]
    if sum(map(len, encoded)) <= limits.BATCH_ITEMS_MAX:
        return  # each item takes a byte
    left = limits.BATCH_ITEMS_MAX
    for part in encoded:
        left -= values.item_count(part, left)
        if left < 0:
            raise UndecodableBatch(
                f"it holds more than {limits.BATCH_ITEMS_MAX} items; a writer splits it"
            )


_NO_META = Meta()


def _touches(flat: list[Any], groups: list[int]) -> list[tuple[int, int, int]]:
    if len(flat) == 2:  # nearly always
        return [_touch(flat[0], flat[1], groups)]
    return [
        _touch(back, n, groups) for back, n in zip(flat[0::2], flat[1::2], strict=True)
    ]


def _touch(back: Any, n: Any, groups: list[int]) -> tuple[int, int, int]:
    if type(back) is not int or type(n) is not int or n <= 0 or back < 0:
        raise ValueError("a touch is [how far back, operations]")
    if back == 0:
        groups.append(0)
        return len(groups) - 1, 0, n
    part = len(groups) - back
    if part < 0:
        raise ValueError("a touch names an earlier part")
    groups[part] += 1
    return part, groups[part], n


def _deps(raw: Any) -> list[Dep]:
    if len(raw) > limits.FRONTIER_ITEMS_MAX:
        raise ValueError("too many deps")
    deps: list[Dep] = []
    for actor, seq, hash16 in raw:
        if not (
            isinstance(actor, bytes)
            and len(actor) == 16
            and type(seq) is int
            and seq > 0
            and isinstance(hash16, bytes)
            and len(hash16) == 16
        ):
            raise ValueError("a dep is [actor, seq, hash16]")
        deps.append(Dep(ActorId(actor), seq, hash16))
    return deps


class Parts:
    """The parts of one batch, decoded as they are asked for."""

    __slots__ = ("_decoded", "_payload")

    def __init__(self, payload: Payload):
        self._payload = payload
        self._decoded: dict[int, Any] = {}

    def touches(self, head: ChangeHead) -> list[Touch]:
        """Return what the change did; raises `ValueError` when undecodable."""
        found: list[Touch] = []
        for part, group, n in head.touches:
            name, raw = self._payload.parts[part]
            groups = self._decoded.get(part)
            if groups is None:
                try:
                    groups = values.decode(raw)
                except values.DECODE_ERRORS as error:
                    raise ValueError("a part is not MessagePack") from error
                if not values.is_list(groups):
                    raise ValueError("a part is an array")
                self._decoded[part] = groups
            ops = groups[group] if group < len(groups) else None
            if not values.is_list(ops):
                raise ValueError("a part holds what its spine tells")
            found.append(Touch(DocumentId(name), ops, n))
        return found
