"""The vectors are what the code makes, and what a second decoder reads."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests import second_decoder as second
from tests.make_vectors import PATH, vectors

KEPT: dict[str, Any] = json.loads(PATH.read_text())


def test_the_code_makes_the_kept_bytes() -> None:
    assert vectors() == KEPT


def test_the_second_decoder_imports_nothing_of_ours_and_is_short() -> None:
    text = Path(second.__file__).read_text()

    assert "syncengine" not in text
    assert text.count("\n") <= 320


@pytest.mark.parametrize("number", range(3))
def test_entries_are_read(number: int) -> None:
    entry = KEPT["entries"][number]
    name, fields = second.read_entry(
        entry["kind"], bytes.fromhex(entry["body"]), bytes.fromhex(entry["signature"])
    )

    assert name.hex() == entry["id"]
    assert fields[0] == 1
    if number == 0:
        assert name.hex() == KEPT["namespace"]
    else:
        assert fields[1].hex() == KEPT["namespace"]


def test_the_actor_follows_from_its_record() -> None:
    body = second.unpack(bytes.fromhex(KEPT["entries"][2]["body"]))
    made = second.sha256(
        b"sync1:actor\0", body[2], bytes.fromhex(KEPT["namespace"]), body[4]
    )

    assert made[:16].hex() == KEPT["actor"]


def test_batches_are_read() -> None:
    changes: list[list[int]] = []
    prev = bytes(32)
    for batch in KEPT["batches"]:
        raw = bytes.fromhex(batch["header"])
        header = second.read_header(raw)
        root, spine, parts = second.read_payload(bytes.fromhex(batch["payload"]))
        name = second.sha256(raw)
        second.verify(
            bytes.fromhex(KEPT["device"]),
            b"sync1:batch\0" + name,
            bytes.fromhex(batch["signature"]),
        )
        assert name.hex() == batch["id"]
        assert header["root"] == root
        assert header["prev"] == prev
        assert parts["note/1"]
        changes += second.read_changes(header, spine)
        prev = name

    assert changes == KEPT["changes"]


def test_rows_are_read_as_they_travel() -> None:
    ids = second.read_rows(
        bytes.fromhex(KEPT["rows"]),
        bytes.fromhex(KEPT["namespace"]),
        bytes.fromhex(KEPT["device"]),
    )

    assert [name.hex() for name in ids] == [
        row["id"] for row in (*KEPT["entries"], *KEPT["batches"])
    ]


def test_places_in_a_log_and_digests_are_made() -> None:
    chain = bytes(8)
    rows = [*KEPT["entries"], *KEPT["batches"]]
    for row in rows:
        chain = second.sha256(chain, bytes.fromhex(row["id"]))[:8]
    tip = KEPT["batches"][-1]
    header = second.read_header(bytes.fromhex(tip["header"]))
    end = header["first_seq"] + header["n_ops"] - 1
    digest = second.sha256(
        b"sync1:frontier\0", header["actor"], end.to_bytes(8, "big"),
        bytes.fromhex(tip["id"]), bytes.fromhex(KEPT["entries"][-1]["id"]),
    )  # fmt: skip

    assert chain.hex() == KEPT["chain"]
    assert digest.hex() == KEPT["frontier_digest"]


def test_a_session_is_followed_from_its_secrets() -> None:
    kept = {name: bytes.fromhex(value) for name, value in KEPT["handshake"].items()}
    body, signature = kept["CHALLENGE"][:-64], kept["CHALLENGE"][-64:]
    tag, version, nonce, public, hub, lineage = second.unpack(body)
    th1 = second.sha256(b"sync1:hs\0", kept["HELLO"], body)
    second.verify(hub, b"sync1:hs-hub\0" + th1, signature)
    secret = X25519PrivateKey.from_private_bytes(kept["exchange"]).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    sealed = AESGCM(second.hkdf(secret, th1, b"hs", 32))
    auth = sealed.decrypt(bytes(12), kept["AUTH"], b"sync.v1 auth")
    said, proof = auth[:-64], auth[-64:]
    th2 = second.sha256(th1, signature, said)
    device = second.unpack(said)[1]
    second.verify(device, b"sync1:hs-dev\0" + th2, proof)
    keys = second.hkdf(secret, second.sha256(th2, proof), b"app", 64)

    assert (tag, version, nonce, lineage) == (2, 1, kept["hub_nonce"], b"\x0c" * 16)
    assert second.unpack(kept["HELLO"])[2] == kept["nonce"]
    assert second.unpack(second.Sealed(keys[32:]).open(kept["READY"])) == [
        4, b"\x0e" * 16, 1 << 40, [],
    ]  # fmt: skip
    assert second.unpack(second.Sealed(keys[:32]).open(kept["PING"])) == [30]


def test_each_message_is_read_as_the_page_lists_it() -> None:
    numbers = {name: second.unpack(bytes.fromhex(raw)) for name, raw in
               KEPT["messages"].items()}  # fmt: skip

    assert {name: (said[0], len(said) - 1) for name, said in numbers.items()} == {
        "Open": (10, 12), "Opened": (11, 7), "Refusal": (12, 6), "Leave": (13, 1),
        "Void": (14, 1), "Frontier": (20, 3), "Data": (21, 5), "Ack": (22, 2),
        "Idle": (23, 3), "StateDigest": (24, 8), "Notice": (25, 6), "Ping": (30, 0),
        "Pong": (31, 0), "Goodbye": (32, 3),
    }  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_texts_are_merged(number: int) -> None:
    text = KEPT["texts"][number]

    assert second.merge_spans(text["edits"]) == text["shows"]


def test_what_a_member_shows_is_named_and_signed() -> None:
    state = {name: bytes.fromhex(value) if name != "name" else value.encode()
             for name, value in KEPT["state"].items()}  # fmt: skip
    applied = second.sha256(
        b"sync1:applied\0", bytes.fromhex(KEPT["actor"]), (10).to_bytes(8, "big"),
        bytes.fromhex(KEPT["entries"][-1]["id"]),
    )  # fmt: skip
    digest = second.sha256(state["name"], b"\0", state["canonical"])
    fields = b"\x95" + b"".join(
        (b"\xc4\x20" + applied, b"\xa0", b"\xa4" + "\U0010ffff".encode(), b"\x01",
         b"\xc4\x20" + digest)
    )  # fmt: skip

    assert second.unpack(state["canonical"]) == {
        "title": [0, "é😀"], "n": [2, -2], "t": [3, [1]],
    }  # fmt: skip
    assert (applied, digest) == (state["applied"], state["digest"])
    second.verify(
        bytes.fromhex(KEPT["device"]),
        b"sync1:state\0" + bytes.fromhex(KEPT["namespace"]) + fields,
        state["signature"],
    )


def test_a_fork_proof_is_two_signed_headers() -> None:
    fork = KEPT["fork"]
    name, fields = second.read_entry(
        fork["kind"], bytes.fromhex(fork["body"]), bytes.fromhex(fork["signature"])
    )
    (one, one_signature), (two, two_signature) = fields[4]
    for raw, signature in ((one, one_signature), (two, two_signature)):
        message = b"sync1:batch\0" + second.sha256(raw)
        second.verify(bytes.fromhex(KEPT["device"]), message, signature)
    headers = [second.read_header(raw) for raw in (one, two)]
    branch = second.sha256(b"sync1:branch\0", bytes.fromhex(KEPT["batches"][0]["id"]))

    assert name.hex() == fork["id"]
    assert headers[0]["first_seq"] == headers[1]["first_seq"]
    assert one != two
    assert branch[:16].hex() == KEPT["branch"]


def test_a_leader_is_elected_and_writes() -> None:
    kept = KEPT["leader"]
    device, namespace = (bytes.fromhex(KEPT[name]) for name in ("device", "namespace"))
    (mode, mode_fields), (term, fields) = (
        second.read_entry(kind, bytes.fromhex(body), bytes.fromhex(signature))
        for kind, body, signature in kept["entries"]
    )
    _, has_leader, voters, ((_, _, stood), *_), closed = mode_fields[4:9]
    in_mode, number, actor, node, previous, base, _, how, _, votes = fields[4:14]
    said = [namespace, in_mode, number, device, actor, previous, base, voters]
    header = second.read_header(bytes.fromhex(kept["header"]))
    name, body, signature = (bytes.fromhex(part) for part in kept["notice"])

    assert (has_leader, voters, closed) == (True, [device], None)
    assert stood.hex() == KEPT["batches"][0]["id"]
    assert (in_mode, node, how) == (mode, "leader-1", "elected")
    ((voter, vote),) = votes
    second.verify(voter, b"sync1:vote\0" + second.shortest(said), vote)
    assert (header["actor"], header["term"], header["index"]) == (actor, number, 1)
    second.verify(
        device,
        b"sync1:notice\0" + namespace + second.shortest([None, name, body]),
        signature,
    )
    assert second.unpack(body) == [1, mode, 1, "leader-1", term, 7, True, 1, 1]


def test_a_fleet_keeps_namespaces_by_their_partition() -> None:
    kind, body, signature = KEPT["fleet"]["entry"]
    _, fields = second.read_entry(kind, bytes.fromhex(body), bytes.fromhex(signature))
    number, partitions, hubs, homes = fields[4:8]

    assert (kind, number, partitions, homes) == (12, 7, 4, b"\0\1\1\1")
    for name, url in KEPT["fleet"]["homes"]:
        digest = hashlib.blake2b(bytes.fromhex(name), digest_size=8).digest()
        assert hubs[homes[int.from_bytes(digest, "big") % partitions]][1] == url


def test_an_invite_and_its_address_are_read() -> None:
    body = KEPT["invite"].removeprefix("sync1:")
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    version, namespace, grant, secret, _, ops, address = second.unpack(raw[:-4])
    seed = second.sha256(b"sync1:invite\0", secret)
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    url, _, rest = KEPT["address"].partition("/#")
    device, _, ticket = rest.partition(".")

    assert raw[-4:] == second.sha256(raw[:-4])[:4]
    assert (version, ops, namespace.hex()) == (1, 3, KEPT["namespace"])
    assert grant.hex() == KEPT["entries"][1]["id"]
    assert key.hex() == KEPT["invite_key"]
    assert address == f"{url}/#{device}"
    assert base64.b32decode(device.upper() + "====").hex() == KEPT["device"]
    assert base64.b32decode(ticket.upper() + "======") == b"\x0a" * 16
