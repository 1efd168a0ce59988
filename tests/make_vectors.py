"""Makes `tests/vectors.json`: `python -m tests.make_vectors`. Same bytes every time."""

import json
from pathlib import Path
from typing import Any

import msgspec

from syncengine.crdt.document import Document
from syncengine.ids import (
    ActorId,
    DeviceId,
    DocumentId,
    EntryId,
    Lineage,
    NamespaceId,
    actor_id,
)
from syncengine.log.batch import NO_BATCH, Batch, seal
from syncengine.log.change import Change, Dep, Meta, Origin, Touch
from syncengine.log.run import encode_rows
from syncengine.protocol.handshake import Dialler, Listener
from syncengine.protocol.messages import (
    Ack,
    Data,
    Frontier,
    Goodbye,
    Idle,
    Leave,
    Message,
    Notice,
    Open,
    Opened,
    Ping,
    Pong,
    Refusal,
    StateDigest,
    Void,
)
from syncengine.protocol.notices import Beat
from syncengine.protocol.notices import encode as encode_said
from syncengine.protocol.session import Session
from syncengine.replication.address import Address
from syncengine.replication.audit import applied_digest, signed_bytes
from syncengine.replication.documents import digest_of
from syncengine.replication.keeper import Keeper
from syncengine.replication.notices import signed_bytes as signed_notice
from syncengine.storage.inline import InlineStore
from syncengine.trust.entry import Entry, entry_id
from syncengine.trust.invite import Invite
from syncengine.trust.keys import ED25519, PrivateKey
from syncengine.trust.leadership import (
    ModeRecord,
    TermRecord,
    make_mode,
    make_term,
    vote_bytes,
)
from syncengine.trust.membership import (
    OPS_OWNER,
    ForkProof,
    make_actor,
    make_fork,
    make_genesis,
    make_grant,
    namespace_id,
)
from syncengine.trust.placement import HubRecord, Placement, make_placement
from syncengine.trust.sealing import Exchange

PATH = Path(__file__).parent / "vectors.json"


def vectors() -> dict[str, Any]:
    """Return every vector, byte strings as hex."""
    owner = ED25519.private_key(bytes(range(32)))
    genesis = make_genesis(owner, [owner.public], b"\x01" * 16)
    namespace = namespace_id(genesis)
    grant = make_grant(
        owner, namespace, [EntryId(namespace)], parent=None, subject=owner.public,
        ops=OPS_OWNER, depth=7, nonce=b"\x02" * 16,
    )  # fmt: skip
    record = make_actor(owner, namespace, [entry_id(grant)], b"\x03" * 16)
    actor = actor_id(owner.public, namespace, b"\x03" * 16)
    other = actor_id(owner.public, namespace, b"\x04" * 16)
    note, page = DocumentId("note/1"), DocumentId("page/2")
    changes = [
        Change(actor, 1, 1 << 40, [], [Touch(note, [[0], [1, None, "title", "é😀"]], 2)]),
        Change(
            actor, 3, (1 << 40) + 7, [Dep(other, 9, b"\x05" * 16)],
            [Touch(page, [[8, "body", 0, "héllo"]], 5), Touch(note, [[5, "n", -2]], 1)],
            Meta(None, "retry", Origin(other, 4, 1 << 39)),
        ),
    ]  # fmt: skip
    first = seal(owner, namespace, entry_id(grant), NO_BATCH, changes, b"\x06" * 16)
    later = Change(actor, 9, (1 << 40) + 8, [], [Touch(note, [[10, "t", 1, 2]], 2)])
    second = seal(owner, namespace, entry_id(grant), first.id, [later], b"\x07" * 16)

    wrong = seal(owner, namespace, entry_id(grant), NO_BATCH, changes, b"\x08" * 16)
    proof = ForkProof(
        (
            (first.header.encode(), first.signature),
            (wrong.header.encode(), wrong.signature),
        )
    )
    fork = make_fork(owner, namespace, [entry_id(record)], proof)
    keeper = Keeper(
        InlineStore(":memory:"), 1, namespace, Lineage(b"\x09" * 16), ED25519
    )
    keeper.admit([genesis, grant, record, first, second])
    chain, digest = keeper.chain, keeper.digest()
    keeper.admit([fork, wrong])
    address = Address("wss://sync.example.org/hub", owner.public, b"\x0a" * 16)
    invite = Invite(
        namespace, entry_id(grant), b"\x0b" * 16, 1 << 40, 3, address.without_ticket
    )

    def entry(made: Entry) -> dict[str, Any]:
        return {
            "kind": made.kind,
            "body": made.body.hex(),
            "signature": made.signature.hex(),
            "id": entry_id(made).hex(),
        }

    def batch(made: Any) -> dict[str, Any]:
        return {
            "header": made.header.encode().hex(),
            "id": made.id.hex(),
            "signature": made.signature.hex(),
            "payload": made.payload.hex(),
            "root": made.header.root.hex(),
        }

    document = Document(note)
    for op, at in (([1, None, "title", "é😀"], 1), ([5, "n", -2], 2), ([6, "t", 1], 3)):
        document.apply(op, ((1 << 40) + at, actor, at), None)
    shown = StateDigest(
        0, owner.public, applied_digest({actor: 10}, [entry_id(record)]), "", "\U0010ffff",
        1, digest_of(document), bytes(64),
    )  # fmt: skip
    return {
        "fleet": fleet(owner, namespace),
        "leader": leader(owner, namespace, entry_id(grant), first),
        "handshake": handshake(),
        "messages": messages(),
        "texts": texts(),
        "state": {
            "name": note,
            "canonical": document.canonical().hex(),
            "applied": shown.applied.hex(),
            "digest": shown.digest.hex(),
            "signature": owner.sign(signed_bytes(namespace, shown)).hex(),
        },
        "device": owner.public.hex(),
        "namespace": namespace.hex(),
        "actor": actor.hex(),
        "entries": [entry(made) for made in (genesis, grant, record)],
        "batches": [batch(first), batch(second)],
        "rows": encode_rows([genesis, grant, record, first, second]).hex(),
        "chain": chain.hex(),
        "frontier_digest": digest.hex(),
        "fork": entry(fork),
        "branch": keeper.branch_of(first).hex(),
        "address": str(address),
        "invite": str(invite),
        "invite_key": invite.key(ED25519).public.hex(),
        "changes": [
            [change.seq, change.n, change.hlc, len(change.deps)]
            for change in (*changes, later)
        ],
    }


def fleet(owner: PrivateKey, namespace: NamespaceId) -> dict[str, Any]:
    """Return a placement of four partitions on two hubs, and where three ids belong."""
    hubs = (
        HubRecord(DeviceId(b"\x14" * 32), "wss://one.example", None, 1),
        HubRecord(DeviceId(b"\x15" * 32), "wss://two.example", b"\x16" * 16, 3),
    )
    placement = Placement(DeviceId(owner.public), 7, 4, hubs, b"\0\1\1\1")
    made = make_placement(owner, namespace, [], placement)
    ids = [NamespaceId(bytes([n]) * 32) for n in range(3)]
    return {
        "entry": [made.kind, made.body.hex(), made.signature.hex()],
        "homes": [
            [name.hex(), home.url if (home := placement.home_of(name)) else None]
            for name in ids
        ],
    }


def leader(
    owner: PrivateKey, namespace: NamespaceId, grant: EntryId, before: Batch
) -> dict[str, Any]:
    """Return a namespace that gets a leader, who is elected and writes."""
    me = DeviceId(owner.public)
    stands = {before.header.actor: (before.header.end, before.id)}
    mode = make_mode(
        owner, namespace, [], ModeRecord(me, 1, True, (me,), stands, None)
    )  # fmt: skip
    record = TermRecord(
        me, entry_id(mode), 1, actor_id(me, namespace, b"\x11" * 16), "leader-1", None,
        None, (me,), "elected", "", {},
    )  # fmt: skip
    said = vote_bytes(
        namespace, mode=record.mode, number=1, candidate=me, actor=record.actor,
        previous=None, base=None, voters=record.voters,
    )  # fmt: skip
    record.votes[me] = owner.sign(said)
    term = make_term(owner, namespace, [entry_id(mode)], record)
    change = Change(
        record.actor, 1, 1 << 41, [], [Touch(DocumentId("entry/k"), [[0]], 1)]
    )
    batch = seal(
        owner, namespace, grant, NO_BATCH, [change], b"\x12" * 16, term=1, index=1
    )  # fmt: skip
    beat = Beat(record.mode, 1, "leader-1", entry_id(term), 7, True, 1, 1)
    notice = Notice(0, me, None, b"\x13" * 8, encode_said(beat), bytes(64))
    signature = owner.sign(signed_notice(namespace, notice))
    return {
        "entries": [
            [made.kind, made.body.hex(), made.signature.hex()] for made in (mode, term)
        ],
        "header": batch.header.encode().hex(),
        "notice": [notice.name.hex(), notice.body.hex(), signature.hex()],
    }


def handshake() -> dict[str, str]:
    """Return a session from its first frame to a PING, and the secrets behind it."""
    seeds = {name: bytes([n]) * 32 for n, name in enumerate(SECRETS, 0x20)}
    device = ED25519.private_key(seeds["device"])
    hub = ED25519.private_key(seeds["hub"])
    dialler = Session(
        Dialler(
            ED25519, device, seeds["nonce"], Exchange(seeds["exchange"]),
            DeviceId(hub.public),
        ),
        0.0,
    )  # fmt: skip
    listener = Session(
        Listener(
            ED25519, hub, seeds["hub_nonce"], Exchange(seeds["hub_exchange"]),
            Lineage(b"\x0c" * 16),
        ),
        0.0,
    )  # fmt: skip
    found = {name: seed.hex() for name, seed in seeds.items()}

    def carry(name: str, source: Session, target: Session) -> None:
        (frame,) = source.frames_to_send()
        found[name] = frame.hex()
        target.receive(frame, 0.0)
        target.events()

    carry("HELLO", dialler, listener)
    carry("CHALLENGE", listener, dialler)
    dialler.authenticate(b"\x0d" * 16, [])
    carry("AUTH", dialler, listener)
    listener.accept(b"\x0e" * 16, 1 << 40, [])
    carry("READY", listener, dialler)
    dialler.send(Ping())
    carry("PING", dialler, listener)
    return found


SECRETS = ("device", "nonce", "exchange", "hub", "hub_nonce", "hub_exchange")


def messages() -> dict[str, str]:
    """Return one of each message that a live session says."""
    some, place = b"\x0f" * 32, (7, b"\x10" * 8)
    said: list[Message] = [
        Open(1, some, some, some[:16], 3, some, some[:16], 7, place, some,
             [(2, b"body", b"signature")], some[:16]),
        Opened(1, 7, 7, None, some, 0, None),
        Refusal(1, 4403, "why", "after_action", "none", "ws://hub/#aa"),
        Leave(1),
        Void(1),
        Frontier(1, [(some[:16], 3, some)], [some]),
        Data(1, place, some, False, b"rows"),
        Ack(1, 7),
        Idle(1, place, some),
        StateDigest(1, some, some, "", "\U0010ffff", 2, some, bytes(64)),
        Notice(1, some, None, some[:8], b"body", bytes(64)),
        Ping(),
        Pong(),
        Goodbye(1001, "going away", 1000),
    ]  # fmt: skip
    return {type(one).__name__: msgspec.msgpack.encode(one).hex() for one in said}


def texts() -> list[dict[str, Any]]:
    """Return concurrent edits of one text, and what everybody then shows.

    An edit is [actor, seq, what its author had seen, [action, text, ...], stamp].
    """
    a, b, c = (bytes([n]) * 16 for n in (1, 2, 3))
    histories: list[list[tuple[bytes, int, dict[bytes, int], list[Any]]]] = [
        [(a, 1, {}, [8, "t", 0, "c"]), (a, 2, {a: 1}, [8, "t", 0, "b"]),
         (a, 3, {a: 2}, [8, "t", 0, "a"])],
        [(a, 1, {}, [8, "t", 0, "ac"]), (b, 1, {a: 2}, [8, "t", 1, "xy"]),
         (c, 1, {a: 2}, [8, "t", 1, "12"]), (a, 3, {a: 2}, [9, "t", 0, 2])],
        [(a, 1, {}, [8, "t", 0, "hello"]), (b, 1, {a: 5}, [9, "t", 1, 3]),
         (c, 1, {a: 5}, [8, "t", 3, "XY"]), (b, 4, {a: 5, b: 3}, [8, "t", 1, "--"]),
         (a, 6, {a: 5, c: 2}, [10, "t", 5, 2])],
        [(a, 1, {}, [8, "t", 0, "ab cd"]), (b, 1, {a: 5}, [18, "t", 3, 5, "b", True, 2]),
         (b, 3, {a: 5}, [18, "t", 0, 2, "l", "x", 0]), (c, 1, {a: 5}, [8, "t", 5, "!"]),
         (a, 6, {a: 5}, [8, "t", 2, "?"]), (c, 2, {a: 5, b: 4}, [18, "t", 1, 6, "b", None, 1])],
    ]  # fmt: skip
    found: list[dict[str, Any]] = []
    for history in histories:
        document = Document(DocumentId("note/1"))
        for at, (actor, seq, seen, op) in enumerate(history, 1):
            stamp = (at << 16, ActorId(actor), seq)
            known = {ActorId(name): end for name, end in seen.items()}
            document.apply(list(op), stamp, known)
        edits = [
            [actor.hex(), seq, {name.hex(): end for name, end in seen.items()}, op, at]
            for at, (actor, seq, seen, op) in enumerate(history, 1)
        ]
        state: Any = document.state(("t", 5), 5)
        found.append({"edits": edits, "shows": [list(span) for span in state.spans()]})
    return found


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
