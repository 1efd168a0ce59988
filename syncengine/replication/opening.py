"""Opening a file: whose it is, whether it was restored, and its lineage."""

from dataclasses import dataclass

from syncengine.clock import Entropy
from syncengine.errors import NotOurs
from syncengine.ids import LINEAGE_BYTES, Lineage
from syncengine.storage.identity import (
    TOKEN_BYTES,
    FileIdentity,
    Identity,
    MemoryIdentity,
)
from syncengine.storage.inline import InlineStore
from syncengine.storage.opening import MEMORY, refuse_foreign
from syncengine.storage.sql import statements as sql
from syncengine.storage.sqlite import SqliteStore
from syncengine.storage.store import Store, Writes
from syncengine.trust.keys import PrivateKey, Scheme

REPLICA, HUB = "replica", "hub"


@dataclass
class Opened:
    """A store with its identity, ready for a replica or a hub."""

    store: Store
    identity: Identity
    key: PrivateKey
    lineage: Lineage
    restored: bool
    """The file was restored from a backup or copied: its actors are to be retired."""

    async def close(self) -> None:
        await self.store.close()
        self.identity.release()


async def take_over(
    store: Store, identity: Identity, scheme: Scheme, entropy: Entropy, role: str
) -> Opened:
    """Read and renew the open token; raises `NotOurs` when the role is another.

    The token goes to the folder first (beside the old one), then into the file, then
    alone to the folder: whenever a crash comes, file and folder still agree.
    """
    meta = dict(store.read("SELECT key, value FROM _sync_meta"))
    if meta.get("role", role) != role:
        raise NotOurs(
            f"{store.path} belongs to a {meta['role']}, not to a {role}; name another "
            "file"
        )
    token = meta.get("token")
    tokens = identity.tokens()
    restored = "lineage" in meta and (token is None or token not in tokens)
    unfinished = "retire" in meta  # a start after a restore that did not end
    lineage = meta.get("lineage")
    writes = Writes()
    if restored or (lineage is None and tokens):
        # What it has promised since, to voters say, it does not know any more.
        writes.add(sql.PUT_META, "rolled_back", 1)
        writes.add(sql.PUT_META, "retire", 1)
    if lineage is None or restored:
        lineage = entropy.bytes(LINEAGE_BYTES)
        writes.add(sql.PUT_META, "lineage", lineage)
        writes.add(sql.PUT_META, "role", role)
    fresh = entropy.bytes(TOKEN_BYTES)
    identity.set_tokens([fresh] if token is None else [token, fresh])
    writes.add(sql.PUT_META, "token", fresh)
    await store.commit(writes)
    identity.set_tokens([fresh])
    key = scheme.private_key(identity.seed)
    return Opened(store, identity, key, Lineage(lineage), restored or unfinished)


async def open_file(path: str, entropy: Entropy, scheme: Scheme, role: str) -> Opened:
    """Open a file with its folder beside it; leaves nothing open when it fails."""
    store: Store
    if path == MEMORY:
        identity: Identity = MemoryIdentity(entropy.bytes(32))
        store = InlineStore(MEMORY)
    else:
        refuse_foreign(path)
        identity = FileIdentity(path, entropy)
        try:
            store = await SqliteStore.open(path)
        except BaseException:
            identity.release()
            raise
    try:
        return await take_over(store, identity, scheme, entropy, role)
    except BaseException:
        await store.close()
        identity.release()
        raise
