"""Is this file what it says? Every check here can fail, and says what that means.

It re-hashes each batch, follows the chains, checks signatures, and makes the
documents anew from the log in memory, by the same code that made them, to compare.
Nothing is written.
"""

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncengine import values
from syncengine.clock import Entropy, HybridClock
from syncengine.crdt.document import Document
from syncengine.errors import StoreDamaged, SyncError
from syncengine.ids import ActorId, BatchId, Lineage, NamespaceId, short
from syncengine.log.batch import (
    NO_BATCH,
    batch_id,
    decode_header,
    root_of,
    signed_bytes,
    split_payload,
)
from syncengine.replication.documents import Documents, digest_of
from syncengine.replication.keeper import NO_CHAIN, Keeper, chain_after
from syncengine.replication.namespace import Namespace
from syncengine.replication.writer import Writer
from syncengine.storage.inline import InlineStore
from syncengine.storage.store import Writes
from syncengine.trust.entry import Entry, InvalidEntry
from syncengine.trust.keys import PrivateKey, Scheme
from syncengine.trust.membership import Membership

_LOG_TABLES = (
    *("_sync_namespace", "_sync_log", "_sync_head", "_sync_outbox", "_sync_ballot"),
)


@dataclass(frozen=True)
class Finding:
    """Something wrong: where, what, and what to do."""

    where: str
    what: str
    remedy: str


_RESEND = (
    "connect to a peer that has it: a copy made from an invite gets everything again"
)
_LOST = "keep a copy of the file; open it, and what is damaged is written again or lost"
_REBUILD = "the log is whole: documents can be made anew from it"


async def examine(path: str, *, entropy: Entropy, scheme: Scheme) -> list[Finding]:
    """Return all that is wrong with the file at `path`; empty: nothing.

    Raises `NotOurs` or `NewerFormat` when it is no file of this version.
    """
    try:
        store = InlineStore(path, read_only=True)
    except StoreDamaged as error:
        return [Finding(path, f"the file cannot be read: {error}", _RESEND)]
    findings: list[Finding] = []
    store.connection.execute("BEGIN")  # one moment of it, whoever writes meanwhile
    try:
        try:
            ((said,), *_) = store.read("PRAGMA integrity_check")
            if said != "ok":
                findings.append(Finding(path, f"SQLite finds: {said}", _RESEND))
        except (SyncError, sqlite3.Error) as error:
            return [Finding(path, f"the file cannot be read: {error}", _RESEND)]
        findings += _examine_identity(path)
        meta = dict(store.read("SELECT key, value FROM _sync_meta"))
        is_replica = meta.get("role") == "replica"
        for ns, name, called in store.read("SELECT ns, id, name FROM _sync_namespace"):
            title = called or short(name)
            log_findings = _examine_log(store, ns, NamespaceId(name), title, scheme)
            findings += log_findings
            if is_replica and not log_findings:
                key = scheme.private_key(entropy.bytes(32))
                findings += await _examine_documents(
                    store, ns, NamespaceId(name), title, scheme, entropy, key
                )
    finally:
        await store.close()
    return findings


def _examine_identity(path: str) -> list[Finding]:
    folder = Path(f"{path}-sync")
    if not (folder / "device.key").exists():
        return [
            Finding(
                str(folder),
                "the device's key is missing",
                "this file is a copy or a backup: opening it makes a new device, which "
                "needs a grant (join again by an invite)",
            )
        ]
    return []


def _examine_log(
    store: InlineStore, ns: int, namespace: NamespaceId, title: str, scheme: Scheme
) -> list[Finding]:
    findings: list[Finding] = []
    membership = Membership(namespace, scheme)
    tips: dict[tuple[ActorId, BatchId], int] = {}
    known: dict[BatchId, int] = {NO_BATCH: 0}
    unsigned: dict[BatchId, str] = {}
    expected, chain = 1, NO_CHAIN

    def wrong(where: str, what: str) -> None:
        findings.append(Finding(f"{title}: {where}", what, _RESEND))

    for position, name, kind, head, body, signature, *derived in store.read(
        "SELECT position, id, kind, head, body, signature, "
        "chain, actor, first_seq, last_seq FROM _sync_log "
        "WHERE ns = ? ORDER BY position",
        ns,
    ):
        where = f"row {position}"
        if position != expected:
            wrong(where, f"rows {expected} to {position - 1} are missing")
        expected, chain = position + 1, chain_after(chain, name)
        if derived[0] != chain:
            wrong(where, "its place in the log is not what stands before it")
            chain = derived[0]  # said once
        if kind:
            try:
                if membership.add(Entry(kind, body, signature)) != name:
                    wrong(where, "a membership entry is not what its id says")
            except InvalidEntry as error:
                wrong(where, f"a membership entry is damaged: {error}")
            continue
        try:
            header = decode_header(head)
            root = root_of(split_payload(body))
        except ValueError as error:
            wrong(where, f"a batch is damaged: {error}")
            continue
        if batch_id(head) != name or root != header.root:
            wrong(where, f"a batch of {short(header.actor)} is not what its id says")
            continue
        if derived[1:] != [header.actor, header.first_seq, header.end]:
            wrong(where, f"the index of {short(name)} is not what its header says")
        follows = known.get(header.prev, -1)
        if follows < 0 or (
            follows != header.first_seq - 1
            and not (header.term and header.first_seq == 1)  # behind another's
        ):
            wrong(where, f"the batch before {short(name)} is missing")
        known[BatchId(name)] = header.end
        tips.pop((header.actor, header.prev), None)
        unsigned.pop(header.prev, None)
        tips[(header.actor, BatchId(name))] = header.end
        if not signature:
            unsigned[BatchId(name)] = where
            continue
        device = membership.actors.get(header.actor)
        if device is None:
            wrong(where, f"no entry says whose actor {short(header.actor)} is")
        elif not scheme.verify(device, signed_bytes(BatchId(name)), signature):
            wrong(where, f"a batch of {short(header.actor)} has a bad signature")
    for where in unsigned.values():
        wrong(where, "a run of batches ends without a signature")
    ((position,),) = store.read("SELECT position FROM _sync_namespace WHERE ns = ?", ns)
    if position != expected - 1:
        wrong("end", f"the log should reach row {position}, it ends at {expected - 1}")
    stored = {
        (ActorId(actor), BatchId(name)): seq
        for actor, name, seq in store.read(
            "SELECT actor, id, seq FROM _sync_head WHERE ns = ?", ns
        )
    }
    if stored != tips:
        wrong("frontier", "the stored frontier is not where the log ends")
    return findings


class _Stopped:
    """No time passes: what waited when the file was written waits still."""

    def now_ms(self) -> int:
        return 0


async def _examine_documents(
    store: InlineStore,
    ns: int,
    namespace: NamespaceId,
    title: str,
    scheme: Scheme,
    entropy: Entropy,
    key: PrivateKey,
) -> list[Finding]:
    """Make the documents anew from a copy of the log, and compare."""
    findings: list[Finding] = []
    ((actor, next_seq, hlc),) = store.read(
        "SELECT actor, next_seq, hlc FROM _sync_namespace WHERE ns = ?", ns
    )
    ((applied, newest),) = store.read(
        "SELECT max(CASE WHEN actor = ? THEN applied END), max(hlc) FROM _sync_actor "
        "WHERE ns = ?",
        *(actor, ns),
    )
    if next_seq <= (applied or 0) or hlc < (newest or 0):
        findings.append(
            Finding(
                f"{title}: clock", "what is written next would have a name twice", _LOST
            )
        )
    copy = InlineStore(":memory:")
    writes = Writes()
    for table in _LOG_TABLES:
        for row in store.read(f"SELECT * FROM {table} WHERE ns = ?", ns):
            marks = ", ".join("?" * len(row))
            writes.add(f"INSERT INTO {table} VALUES ({marks})", *row)
    # As far as it was applied: a clock that was set back hides none of it.
    writes.add(
        "UPDATE _sync_namespace SET hlc = max(hlc, ?) WHERE ns = ?", newest or 0, ns
    )
    copy.commit_now(writes)
    keeper = Keeper(copy, ns, namespace, Lineage(bytes(16)), scheme)
    rows = iter(range(1, 1 << 62))
    engine = Namespace(
        keeper, Writer(copy), HybridClock(_Stopped()), entropy, key, lambda: next(rows)
    )
    engine.load()
    try:
        async with engine.turn:
            await engine.rebuild()
    except (*values.DECODE_ERRORS, TypeError) as error:
        await copy.close()
        what = f"a change that was not sent yet is damaged: {error}"
        return [*findings, Finding(f"{title}: outbox", what, _LOST)]
    fresh = Writes()
    engine.collect(fresh)
    copy.commit_now(fresh)
    engine.stop()
    # An actor that has written nothing may have a row, or none yet.
    if _frontier(store, ns) != _frontier(copy, ns):
        findings.append(
            Finding(
                f"{title}: frontier", "the applied frontier is not the log's", _REBUILD
            )
        )
    stored_docs = Documents(store, ns, lambda: 0)
    anew_docs = Documents(copy, ns, lambda: 0)
    names = {
        f"{collection}/{key_}"
        for source in (store, copy)
        for collection, key_ in source.read(
            "SELECT collection, id FROM _sync_document WHERE ns = ?", ns
        )
    }
    for index, name in enumerate(sorted(names)):
        stored = stored_docs.find(name)  # type: ignore[arg-type]  # a document's name
        made = anew_docs.find(name)  # type: ignore[arg-type]  # the same
        told = _columns(store, ns, name)
        if not _same(stored, made) or (made and not _tells(told, made)):
            findings.append(
                Finding(
                    f"{title}: {name}", "it does not show what its log says", _REBUILD
                )
            )
        if index % 100 == 0:
            await asyncio.sleep(0)
    await copy.close()
    return findings


def _frontier(store: InlineStore, ns: int) -> Any:
    """Return what is applied of each actor, and what it had seen of others."""
    try:
        return {
            actor: (seq, hlc, {a: s for a, s in values.decode(seen) if a != actor})
            for actor, seq, hlc, seen in store.read(
                "SELECT actor, applied, hlc, seen FROM _sync_actor "
                "WHERE ns = ? AND applied > 0",
                ns,
            )
        }
    except (*values.DECODE_ERRORS, TypeError):
        return "damaged"


def _columns(store: InlineStore, ns: int, name: str) -> tuple[Any, ...] | None:
    collection, _, key = name.partition("/")
    rows = store.read(
        "SELECT touches, visible, upgrade, digest FROM _sync_document "
        "WHERE ns = ? AND collection = ? AND id = ?",
        *(ns, collection, key),
    )
    return rows[0] if rows else None


def _tells(columns: tuple[Any, ...] | None, made: Document) -> bool:
    """Tell whether the row of a document is what was made from the log."""
    if columns is None:
        return not made.touches and not made.root.slots
    touches, visible, upgrade, digest = columns
    return (
        # Not their seqs: the author's are of keystrokes, the log's of what was joined.
        {actor: hlc for actor, _, hlc in values.decode(touches)}
        == {actor: hlc for actor, (_, hlc) in made.touches.items()}
        and bool(visible) == made.visible
        and bool(upgrade) == made.needs_upgrade
        and digest in (None, digest_of(made))
    )


def _same(stored: Document | None, made: Document | None) -> bool:
    try:
        one = (stored.canonical(), stored.visible) if stored else None
    except (*values.DECODE_ERRORS, KeyError, TypeError):
        return False
    other = (made.canonical(), made.visible) if made else None
    nothing = (values.canonical({}), False)
    return (one or nothing) == (other or nothing)
