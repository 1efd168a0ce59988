"""Makes `tests/vectors.json`: `python -m tests.make_vectors`. Same bytes every time."""

import json
from pathlib import Path
from typing import Any

from syncengine.ids import DocumentId, EntryId, Lineage, actor_id
from syncengine.log.batch import NO_BATCH, seal
from syncengine.log.change import Change, Dep, Meta, Origin, Touch
from syncengine.log.run import encode_rows
from syncengine.replication.address import Address
from syncengine.replication.keeper import Keeper
from syncengine.storage.inline import InlineStore
from syncengine.trust.invite import Invite
from syncengine.trust.keys import ED25519
from syncengine.trust.membership import (
    OPS_OWNER,
    Entry,
    ForkProof,
    entry_id,
    make_actor,
    make_fork,
    make_genesis,
    make_grant,
    namespace_id,
)

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

    return {
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


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
