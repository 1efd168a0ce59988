"""A second decoder, written from protocol.md alone: it imports nothing of ours.

It has its own MessagePack, checks ids, roots, links and signatures, and dials a hub.
"""

import hashlib
import os
import struct
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def unpack(data: bytes) -> Any:
    """Return the one MessagePack value in `data`."""
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError("bytes behind the value")
    return value


def _value(data: bytes, at: int) -> tuple[Any, int]:
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 256, at
    if first < 0x90:
        return _map(data, at, first & 0x0F)
    if first < 0xA0:
        return _array(data, at, first & 0x0F)
    if first < 0xC0:
        return data[at : at + (first & 0x1F)].decode(), at + (first & 0x1F)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if first in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}[first]
        size = int.from_bytes(data[at : at + width], "big")
        at += width
        raw = data[at : at + size]
        return (raw if first < 0xD0 else raw.decode()), at + size
    if first == 0xCB:
        return struct.unpack(">d", data[at : at + 8])[0], at + 8
    if 0xCC <= first <= 0xCF:
        width = 1 << (first - 0xCC)
        return int.from_bytes(data[at : at + width], "big"), at + width
    if 0xD0 <= first <= 0xD3:
        width = 1 << (first - 0xD0)
        return int.from_bytes(data[at : at + width], "big", signed=True), at + width
    if first in (0xDC, 0xDD):
        width = 2 if first == 0xDC else 4
        size = int.from_bytes(data[at : at + width], "big")
        return _array(data, at + width, size)
    raise ValueError(f"byte {first:#x}")


def _array(data: bytes, at: int, size: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    for _ in range(size):
        item, at = _value(data, at)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, size: int) -> tuple[dict[Any, Any], int]:
    pairs, at = _array(data, at, 2 * size)
    return dict(zip(pairs[0::2], pairs[1::2], strict=True)), at


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Raise unless the signature is good."""
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def read_entry(kind: int, body: bytes, signature: bytes) -> tuple[bytes, list[Any]]:
    """Return an entry's id and fields (section 2)."""
    fields = unpack(body)
    message = b"sync1:entry\0" + bytes([kind]) + body
    verify(fields[2], message, signature)
    return sha256(message), fields


def read_header(data: bytes) -> dict[str, Any]:
    """Return the fields of a header (section 4.1)."""
    names = (
        "version suite namespace actor first_seq n_ops prev grant term index epoch root"
    )
    return dict(
        zip(
            names.split(), struct.unpack(">BB32s16sQI32s32sQQ16s32s", data), strict=True
        )
    )


def read_payload(payload: bytes) -> tuple[bytes, list[Any], dict[str, Any]]:
    """Return root, spine and parts (sections 4.2 and 4.3)."""
    spine, salt, named = unpack(payload)
    hashes = [sha256(spine)]
    parts: dict[str, Any] = {}
    for index, (name, part) in enumerate(named.items()):
        own = sha256(salt, index.to_bytes(4, "big"))
        hashes.append(sha256(own, name.encode(), b"\0", part))
        parts[name] = unpack(part)
    return sha256(*hashes), unpack(spine), parts


def read_changes(header: dict[str, Any], spine: list[Any]) -> list[list[int]]:
    """Return [seq, n, hlc, number of deps] of each change."""
    hlcs, deps, _, touches = spine
    counts = {index: len(found) for index, found in deps}
    seq, hlc = header["first_seq"], 0
    changes: list[list[int]] = []
    for index, flat in enumerate(touches):
        hlc += hlcs[index]
        n = sum(flat[1::2])
        changes.append([seq, n, hlc, counts.get(index, 0)])
        seq += n
    assert seq == header["first_seq"] + header["n_ops"]
    return changes


def read_rows(body: bytes, namespace: bytes, device: bytes) -> list[bytes]:
    """Return the ids of the rows of a data message (section 6.3)."""
    ids: list[bytes] = []
    for row in unpack(body):
        if row[0] == 0:
            ids.append(read_entry(row[1], row[2], row[3])[0])
            continue
        _, actor, seq, prev, grant, term, index, epoch, flat, signature = row
        for n_ops, payload in zip(flat[0::2], flat[1::2], strict=True):
            root, _, _ = read_payload(payload)
            header = struct.pack(
                ">BB32s16sQI32s32sQQ16s32s", 1, 1, namespace, actor, seq, n_ops, prev,
                grant, term, index, epoch or bytes(16), root,
            )  # fmt: skip
            prev = sha256(header)
            ids.append(prev)
            seq += n_ops
        verify(device, b"sync1:batch\0" + prev, signature)
    return ids


# --- texts (sections 3.6 and 3.12) ----------------------------------------------------


def merge(edits: list[list[Any]]) -> str:
    """Return what a text shows after edits in causal order."""
    return "".join(text for text, _ in merge_spans(edits))


def merge_spans(edits: list[list[Any]]) -> list[list[Any]]:
    """Return [characters, marks] of a text after edits in causal order: the tree, as it
    is said.

    An edit is [actor, seq, what its author had seen, [action, text, position, ...],
    stamp]; only marks need their stamp.
    """
    # id -> parent, side, left origin, character, rank
    at: dict[Any, tuple[Any, str, Any, str, int]] = {}
    gone: dict[Any, list[Any]] = {}  # id -> ids of its deletions
    marks: dict[Any, tuple[Any, Any, Any]] = {}  # id -> stamp, key, value

    def walk(node: Any) -> list[Any]:
        sides: dict[str, list[Any]] = {"left": [], "right": []}
        for _, name in sorted((at[n][4], n) for n in at if at[n][0] == node):
            sides[at[name][1]] += walk(name)
        return sides["left"] + ([node] if node else []) + sides["right"]

    def put(actor: Any, seq: int, seen: Any, position: int, what: Any) -> None:
        seen = {**seen, actor: seq - 1}
        order = [name for name in walk(None) if name[1] <= seen.get(name[0], 0)]
        left = present(order, seen)[position - 1] if position else None
        for offset, (char, rank) in enumerate(what):
            behind = order[order.index(left) + 1 if left else 0 :]
            name, right = (actor, seq + offset), behind[0] if behind else None
            if right is not None and at[right][2] == left:
                at[name] = (right, "left", left, char, rank)
            else:
                at[name] = (left, "right", left, char, rank)
            order.insert(order.index(left) + 1 if left else 0, name)
            left = name

    def present(order: list[Any], seen: Any) -> list[Any]:
        return [
            name
            for name in order
            if not any(by[1] <= seen.get(by[0], 0) for by in gone.get(name, []))
        ]

    for actor, seq, seen, (action, _, position, what, *rest), *stamp in edits:
        if action == 8:
            put(actor, seq, seen, position, [(char, 0) for char in what])
        elif action == 18:
            key, value, expand = rest
            put(actor, seq, seen, position, [("", -1 if expand & 1 else 1)])
            put(actor, seq + 1, seen, what + 1, [("", 1 if expand & 2 else -1)])
            marks[actor, seq] = ((*stamp, actor, seq), key, value)
        else:  # 9 deletes from its position up, 10 the same ones from the last down
            known = {**seen, actor: seq - 1}
            order = [name for name in walk(None) if name[1] <= known.get(name[0], 0)]
            taken = present(order, known)[position : position + what]
            for offset, name in enumerate(taken if action == 9 else taken[::-1]):
                gone.setdefault(name, []).append((actor, seq + offset))

    shown = [name for name in walk(None) if name not in gone]
    found: list[list[Any]] = []
    for index, name in enumerate(shown):
        if not at[name][3]:
            continue
        over: dict[Any, Any] = {}
        for actor, seq in marks:
            ends = (actor, seq), (actor, seq + 1)
            if not all(end in shown for end in ends):
                continue
            if shown.index(ends[0]) < index < shown.index(ends[1]):
                stamp_, key, value = marks[actor, seq]
                over[key] = max(over.get(key, ((), None)), (stamp_, value))
        styled = {key: value for key, (_, value) in over.items() if value is not None}
        if found and found[-1][1] == styled:
            found[-1][0] += at[name][3]
        else:
            found.append([at[name][3], styled])
    return found


# --- one session (section 5) ----------------------------------------------------------


def pack(value: Any) -> bytes:
    """Return `value` as MessagePack; lengths in their longest form are legal too."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if value < 0x80 else b"\xcf" + value.to_bytes(8, "big")
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, str):
        raw = value.encode()
        return b"\xdb" + len(raw).to_bytes(4, "big") + raw
    return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(pack, value))


def shortest(value: Any) -> bytes:
    """Return a list of bytes, small numbers, None and lists, as what is signed is."""
    if isinstance(value, bytes):
        return b"\xc4" + bytes([len(value)]) + value
    if value.__class__ is list:
        return bytes([0x90 + len(value)]) + b"".join(map(shortest, value))
    return pack(value)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class Sealed:
    """Frames in one direction."""

    def __init__(self, key: bytes):
        self.key = AESGCM(key)
        self.count = 0

    def nonce(self) -> bytes:
        self.count += 1
        return (self.count - 1).to_bytes(12, "big")

    def seal(self, plain: bytes) -> bytes:
        return self.key.encrypt(self.nonce(), b"\0" + plain, b"sync.v1")

    def open(self, frame: bytes) -> bytes:
        plain = self.key.decrypt(self.nonce(), frame, b"sync.v1")
        assert plain[0] == 0, "a short message is one piece"
        return plain[1:]


class Dialler:
    """The dialler's side of a handshake."""

    def __init__(self, device: Ed25519PrivateKey, wanted: bytes):
        self.device = device
        self.wanted = wanted
        self.exchange = X25519PrivateKey.generate()
        public = self.exchange.public_key().public_bytes_raw()
        self.hello = pack([1, 1, os.urandom(32), public, wanted])

    def auth(self, challenge: bytes, opens: list[list[Any]]) -> bytes:
        """Return AUTH for CHALLENGE; then `ours` and `theirs` are ready."""
        body, signature = challenge[:-64], challenge[-64:]
        tag, version, _, exchange, listener, self.lineage = unpack(body)
        assert (tag, version, listener) == (2, 1, self.wanted)
        th1 = sha256(b"sync1:hs\0", self.hello, body)
        verify(listener, b"sync1:hs-hub\0" + th1, signature)
        z = self.exchange.exchange(X25519PublicKey.from_public_bytes(exchange))
        key = hkdf(z, th1, b"hs", 32)
        public = self.device.public_key().public_bytes_raw()
        auth = pack([3, public, os.urandom(16), opens])
        th2 = sha256(th1, signature, auth)
        proof = self.device.sign(b"sync1:hs-dev\0" + th2)
        keys = hkdf(z, sha256(th2, proof), b"app", 64)
        self.ours, self.theirs = Sealed(keys[:32]), Sealed(keys[32:])
        return AESGCM(key).encrypt(bytes(12), auth + proof, b"sync.v1 auth")
