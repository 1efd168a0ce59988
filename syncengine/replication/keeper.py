"""A keeper of one namespace's log: what is admitted, and what is handed out.

The hub and every replica admit by the same checks (size, prev, hash, signature,
grant), so a lying hub gains nothing; and both hand out by the same cursor. A keeper
knows headers, names of parts and membership entries, and nothing of documents.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from syncengine import limits
from syncengine.ids import (
    ActorId,
    BatchId,
    DeviceId,
    EntryId,
    Lineage,
    NamespaceId,
    short,
)
from syncengine.log.batch import (
    HEADER_BYTES,
    NO_BATCH,
    Batch,
    Header,
    batch_id,
    decode_header,
    signed_bytes,
    split_payload,
)
from syncengine.log.run import RUN_BATCHES_MAX, Row
from syncengine.log.terms import Terms
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Store, Writes
from syncengine.trust.entry import Entry, InvalidEntry, Kind, Pending
from syncengine.trust.keys import PrivateKey, Scheme
from syncengine.trust.membership import ForkProof, Membership, Ops, allows, make_fork

# Rows kept in memory for peers that follow closely; others read from the file.
RECENT_ROWS = 256

# Rows looked at before others get a turn of the event loop: a signature is 160 us.
ADMIT_SLICE = 64

BRANCH_SALT = b"sync1:branch\0"

# Tells two logs apart that grew from one backup; nobody gains by forging it.
CHAIN_BYTES = 8
NO_CHAIN = bytes(CHAIN_BYTES)


class Cursor(NamedTuple):
    """A place in a peer's log: the position, and the chain of what stands up to it."""

    position: int = 0
    chain: bytes = NO_CHAIN


NOWHERE = Cursor()


@dataclass(slots=True)
class PeerRecord:
    """What is kept of a peer: our cursor into its log, and its into ours."""

    lineage: Lineage | None = None
    cursor: Cursor = NOWHERE
    acked: int = 0
    seen_ms: int = 0


class Head(NamedTuple):
    """The newest stored batch of an actor."""

    seq: int
    id: BatchId


NO_HEAD = Head(0, NO_BATCH)


@dataclass(slots=True)
class Admission:
    """What became of rows that were offered."""

    stored: list[tuple[int, Row]] = field(default_factory=list[tuple[int, Row]])
    """(position, row) of what is new"""
    missing: list[tuple[ActorId, int]] = field(
        default_factory=list[tuple[ActorId, int]]
    )
    """(actor, first seq that is lacking) where a predecessor is not stored"""
    refused: list[str] = field(default_factory=list[str])
    """why others were refused: the peer should not have sent them"""
    forks: dict[ActorId, int | None] = field(default_factory=dict[ActorId, int | None])
    """actors newly proved to equivocate, or earlier than known: by then from where"""


def chain_after(chain: bytes, name: bytes) -> bytes:
    """Return the chain of a log that goes on with the row `name`."""
    return hashlib.sha256(chain + name).digest()[:CHAIN_BYTES]


class Keeper:
    """One namespace's log, as its keeper holds it.

    Invariants: (1) positions are dense from 1 to `position`; (2) `heads` are the
    tips of the stored batches; (3) what no file has yet is in `_unwritten`, or, while
    its commit is under way, in `_writing`.
    """

    def __init__(
        self,
        store: Store,
        ns: int,
        namespace: NamespaceId,
        lineage: Lineage,
        scheme: Scheme,
    ):
        self.store = store
        self.ns = ns
        self.namespace = namespace
        self.lineage = lineage
        self.scheme = scheme
        self._reset()

    def _reset(self) -> None:
        self.position = 0
        self.chain = NO_CHAIN
        self.heads: dict[ActorId, Head] = {}
        self.branches: dict[ActorId, dict[BatchId, Head]] = {}
        self.membership = Membership(self.namespace, self.scheme)
        self.terms = Terms(self.namespace, self.membership, self.scheme, self.header_of)
        # (term, index) of actors' heads; (0, 0): no leader's. Read when asked for.
        self._places: dict[ActorId, tuple[int, int]] = {}
        self.forks: dict[ActorId, int] = {}  # actor -> first seq that is void
        self._untold: list[ForkProof] = []
        self._recent: list[tuple[int, Row]] = []
        self._clear_first = False
        self._unwritten: list[tuple[int, Row, bytes, bytes]] = []
        self._writing: list[tuple[int, Row, bytes, bytes]] = []
        # Dicts for sets: an empty one takes a quarter of the memory, and a hub keeps
        # many namespaces.
        self._dropped_heads: dict[tuple[ActorId, BatchId], None] = {}
        self._changed_heads: dict[tuple[ActorId, Head], None] = {}
        self.peers: dict[DeviceId, PeerRecord] = {}
        self._changed_peers: dict[DeviceId, None] = {}
        self._digest: bytes | None = None
        self._by_seq: OrderedDict[tuple[ActorId, int], BatchId] = OrderedDict()
        self._found = ActorId(b""), 1, 0, NO_BATCH

    def load(self) -> None:
        """Read what the file says, if it knows us; forget what was not written."""
        self._reset()
        store = self.store
        rows = store.read("SELECT position FROM _sync_namespace WHERE ns = ?", self.ns)
        if not rows:
            return
        ((self.position,),) = rows
        self.chain = self.chain_at(self.position) or NO_CHAIN
        for actor, name, seq in store.read(
            "SELECT actor, id, seq FROM _sync_head WHERE ns = ? ORDER BY seq, id",
            self.ns,
        ):
            head = Head(seq, BatchId(name))
            if actor in self.heads:
                self.branches.setdefault(actor, {})[head.id] = head
            else:
                self.heads[ActorId(actor)] = head
        for kind, body, signature in store.read(
            "SELECT kind, body, signature FROM _sync_log WHERE ns = ? AND kind > 0 "
            "ORDER BY position",
            self.ns,
        ):
            self.membership.add(Entry(kind, body, signature))
        self.terms.changed()
        for proof in self.membership.forks:
            self._note_fork(proof, Admission())
        for peer, lineage, cursor, chain, acked, seen_ms in store.read(
            "SELECT peer, lineage, cursor, chain, acked, seen_ms FROM _sync_peer "
            "WHERE ns = ?",
            self.ns,
        ):
            self.peers[DeviceId(peer)] = PeerRecord(
                lineage, Cursor(cursor, chain), acked, seen_ms
            )

    def peer(self, device: DeviceId) -> PeerRecord:
        """Return what is kept of `device`, to be changed and then `peer_changed`."""
        record = self.peers.get(device)
        if record is None:
            record = self.peers[device] = PeerRecord()
        return record

    def peer_changed(self, device: DeviceId) -> None:
        """Write the record of `device` with the next commit."""
        self._changed_peers[device] = None

    # --- admitting ----------------------------------------------------------------

    def admit(self, rows: Iterable[Row]) -> Admission:
        """Take what is new and good of `rows`; the caller then commits `collect`."""
        admission = Admission()
        for _ in self.admitting(rows, admission):
            pass
        return admission

    def admitting(
        self, rows: Iterable[Row], admission: Admission
    ) -> Generator[None, None, None]:
        """Do what `admit` does in steps; each leaves everything in order."""
        run: list[Batch] = []
        for count, row in enumerate(rows, 1):
            if count % ADMIT_SLICE == 0:
                yield
            if isinstance(row, Entry):
                self._admit_entry(row, admission)
            else:
                run.append(row)
                if row.signature:
                    self._admit_run(run, admission)
                    run = []
        if run:
            admission.refused.append("a run without a signature at its end")

    def _admit_entry(self, entry: Entry, admission: Admission) -> None:
        try:
            name = self.membership.add(entry)
        except InvalidEntry as error:
            admission.refused.append(str(error))
            return
        if name is None:
            return
        self.terms.changed()
        if entry.kind == Kind.FORK:
            self._note_fork(self.membership.forks[-1], admission)
        self._append(entry, name, b"", admission)

    def _admit_run(self, run: list[Batch], admission: Admission) -> None:
        """Admit batches of one actor whose last signature binds them all."""
        if len(run) > RUN_BATCHES_MAX:
            admission.refused.append("a run is too long")
            return
        last = run[-1]
        problem = self._unverified(last)
        if problem:
            admission.refused.append(problem)
            return
        verified = False
        for index, batch in enumerate(run):
            header = batch.header
            head = self.heads.get(header.actor, NO_HEAD)
            may_be_known = header.end <= head.seq or header.actor in self.branches
            if may_be_known and self.has(batch.id):
                continue
            if not verified:
                device = self.membership.actors[header.actor]
                if not self.scheme.verify(
                    device, signed_bytes(last.id), last.signature
                ):
                    admission.refused.append(
                        f"a batch of {short(header.actor)} with a bad signature"
                    )
                    return
                verified = True
            problem = self._out_of_scope(batch)
            if problem:
                admission.refused.append(problem)
                return
            if not self._link(batch, run[index:], admission):
                return
            self._append(batch, batch.id, batch.signature, admission)
            fork = self.forks.get(header.actor)
            if fork is not None and header.first_seq < fork <= header.end:
                self._void_from(header.actor, header.first_seq, admission)

    def _unverified(self, batch: Batch) -> str | None:
        """Return why `batch` may not be stored whatever its signature says."""
        header = batch.header
        device = self.membership.actors.get(header.actor)
        if device is None:
            return f"a batch of the unknown actor {short(header.actor)}"
        try:
            grant = self.membership.rights(header.grant)
        except (Pending, InvalidEntry):
            return f"a batch of {short(header.actor)} under no known grant"
        if grant.subject != device:
            return f"a batch of {short(header.actor)} under somebody else's grant"
        if not grant.ops & Ops.WRITE:
            return f"a batch of {short(header.actor)}, who may only read"
        if bool(header.term) != bool(header.term_index):
            return "a batch of a leader has an index, and no other one has"
        return None

    def _out_of_scope(self, batch: Batch) -> str | None:
        if len(batch.payload) > limits.BATCH_BYTES_MAX:
            return "a batch above the size limit"
        grant = self.membership.grants[batch.header.grant]
        for name, _ in split_payload(batch.payload).parts:
            if not allows(grant, name):
                return f"{short(batch.header.actor)} may not write {name}"
        return None

    def _link(self, batch: Batch, rest: list[Batch], admission: Admission) -> bool:
        """Find the place of a good, unknown batch behind its predecessor."""
        header = batch.header
        actor = header.actor
        head = self.heads.get(actor, NO_HEAD)
        before = head.id
        if header.first_seq == 1 and header.term and header.prev != NO_BATCH:
            # It goes on from another one's: whether from the right one, its term says.
            if not self.has(header.prev):
                admission.missing.append((actor, 1))
                return False
            if head is NO_HEAD:
                before = header.prev
        elif header.first_seq > 1:
            place = self._place_of(actor, head, header.prev)
            if place is not None and not _goes_on(place, header):
                admission.refused.append("a leader's entries are not counted up")
                return False
        if header.prev == before and header.first_seq == head.seq + 1:
            self._set_head(actor, head, batch)
            return True
        known = header.prev == NO_BATCH or self.has(header.prev)
        if not known:
            admission.missing.append((actor, head.seq + 1))
            return False
        branches = self.branches.get(actor, {})
        tip = branches.get(header.prev)
        if tip is not None and header.first_seq == tip.seq + 1:
            self._drop_head(actor, tip)
            del branches[tip.id]
            self._add_branch(actor, batch)
            return True
        # The predecessor is known and has another successor: two histories.
        sibling = self._successor(actor, header.first_seq, header.prev)
        if sibling is None:
            admission.refused.append(
                f"a batch of {short(actor)} that does not follow its predecessor"
            )
            return False
        if len(branches) + 1 >= limits.FORK_BRANCHES_MAX:
            return False
        proof = ForkProof((sibling, _signed_chain(rest)))
        if self._note_fork(proof, admission):
            self._untold.append(proof)
        self._add_branch(actor, batch)
        return True

    def base_of(self, actor: ActorId) -> BatchId:
        """Return the entry behind which a leader's actor begins."""
        term = self.terms.term_of(actor)
        base = term.record.base if term is not None else None
        return NO_BATCH if base is None else base[1]

    def last_index(self, actor: ActorId) -> int:
        """Return the index of the last stored entry of a leader's actor; where there is
        none, that of the entry behind which it begins."""
        head = self.heads.get(actor, NO_HEAD)
        place = self._place_of(actor, head, head.id)
        if place is None:
            term = self.terms.term_of(actor)
            return term.record.index if term is not None else 0
        return place[1]

    def _place_of(
        self, actor: ActorId, head: Head, name: BatchId
    ) -> tuple[int, int] | None:
        """Return (term, index) of an actor's stored batch; None: it is not stored."""
        if name == head.id and actor in self._places:
            return self._places[actor]
        header = self.header_of(name)
        if header is None:
            return None
        place = header.term, header.term_index
        if name == head.id:
            self._places[actor] = place
        return place

    def header_beginning(self, hash16: bytes) -> Header | None:
        """Return the header of the stored batch whose id begins so."""
        for _, row, known, _ in self._not_on_disk():
            if known[:16] == hash16 and isinstance(row, Batch):
                return row.header
        last = hash16 + b"\xff" * 16
        rows = self.store.read(sql.HEADER_BEGINNING, self.ns, hash16, last)
        return decode_header(rows[0][0]) if rows else None

    def position_of(self, name: BatchId) -> int:
        """Return where a stored batch stands in this log."""
        for position, _, known, _ in self._not_on_disk():
            if known == name:
                return position
        ((position,),) = self.store.read(sql.POSITION_OF_ROW, self.ns, name)
        return int(position)

    def header_of(self, name: BatchId) -> Header | None:
        """Return the header of a stored batch."""
        for _, row, known, _ in self._not_on_disk():
            if known == name and isinstance(row, Batch):
                return row.header
        rows = self.store.read(sql.HEADER_OF, self.ns, name)
        return decode_header(rows[0][0]) if rows else None

    def _set_head(self, actor: ActorId, head: Head, batch: Batch) -> None:
        if head is not NO_HEAD:
            self._drop_head(actor, head)
        new = Head(batch.header.end, batch.id)
        self.heads[actor] = new
        self._changed_heads[(actor, new)] = None

    def _add_branch(self, actor: ActorId, batch: Batch) -> None:
        new = Head(batch.header.end, batch.id)
        self.branches.setdefault(actor, {})[batch.id] = new
        self._changed_heads[(actor, new)] = None

    def _drop_head(self, actor: ActorId, head: Head) -> None:
        self._dropped_heads[(actor, head.id)] = None
        self._changed_heads.pop((actor, head), None)

    def append_own(self, row: Row) -> int:
        """Append a row of our own making; return its position."""
        admission = Admission()
        if isinstance(row, Entry):
            name = self.membership.add(row)
            assert name is not None, "an entry of our own is new"
            self.terms.changed()
            self._append(row, name, b"", admission)
        else:
            self._set_head(
                row.header.actor, self.heads.get(row.header.actor, NO_HEAD), row
            )
            self._append(row, row.id, row.signature, admission)
        return self.position

    def begin_again(self, rows: list[Row]) -> None:
        """Forget a log that no peer ever had, and begin another."""
        assert not self._writing, "a commit has ended first"
        self._reset()
        self._clear_first = True
        for row in rows:
            self.append_own(row)

    def _append(
        self, row: Row, name: bytes, signature: bytes, admission: Admission
    ) -> None:
        self.position += 1
        self.chain = chain_after(self.chain, name)
        self._digest = None
        self._unwritten.append((self.position, row, name, self.chain))
        self._recent.append((self.position, row))
        if len(self._recent) > 2 * RECENT_ROWS:
            del self._recent[:RECENT_ROWS]
        if isinstance(row, Batch):
            header = row.header
            self._remember(header.actor, header.end, row.id)
            if self.heads.get(header.actor, NO_HEAD).id == row.id:
                self._places[header.actor] = header.term, header.term_index
            if header.term:
                self.terms.stored(row.id)
        admission.stored.append((self.position, row))

    def collect(self, writes: Writes, now_ms: int) -> None:
        """Add to `writes` what no file has yet; it arrives now."""
        ns = self.ns
        if self._clear_first:
            for statement in sql.CLEAR_LOG:
                writes.clear(statement, ns)
            self._clear_first = False
        for position, row, name, chain in self._unwritten:
            if isinstance(row, Batch):
                header = row.header
                writes.add(
                    sql.APPEND,
                    ns,
                    position,
                    name,
                    0,
                    header.actor,
                    header.first_seq,
                    header.end,
                    header.encode(),
                    row.payload,
                    row.signature,
                    chain,
                    now_ms,
                )
            else:
                writes.add(
                    sql.APPEND,
                    ns,
                    position,
                    name,
                    row.kind,
                    None,
                    None,
                    None,
                    None,
                    row.body,
                    row.signature,
                    chain,
                    now_ms,
                )
        assert not self._writing, "one commit at a time"
        self._writing, self._unwritten = self._unwritten, []
        for actor, dropped in sorted(self._dropped_heads):
            writes.add(sql.DROP_HEAD, ns, actor, dropped)
        for actor, head in sorted(self._changed_heads):
            writes.add(sql.PUT_HEAD, ns, actor, head.id, head.seq)
        self._dropped_heads.clear()
        self._changed_heads.clear()
        for device in sorted(self._changed_peers):
            peer = self.peer(device)
            writes.add(
                sql.PUT_PEER,
                ns,
                device,
                peer.lineage,
                *peer.cursor,
                peer.acked,
                peer.seen_ms,
            )
        self._changed_peers.clear()

    def committed(self) -> None:
        """What was collected is on disk."""
        self._writing = []

    def _not_on_disk(self) -> Iterator[tuple[int, Row, bytes, bytes]]:
        yield from self._writing
        yield from self._unwritten

    # --- forks --------------------------------------------------------------------

    def _note_fork(self, proof: ForkProof, admission: Admission) -> bool:
        """Void the actor from the fork on, if the proof holds; tell whether it does
        and says something new."""
        firsts: list[tuple[ActorId, int, BatchId]] = []
        for chain, signature in proof.headers:
            first = self._verified_chain(chain, signature)
            if first is None:
                return False
            firsts.append(first)
        (actor, seq, name), (other_actor, other_seq, other_name) = firsts
        if (actor, seq) != (other_actor, other_seq) or name == other_name:
            return False
        return self._void_from(actor, seq, admission)

    def _void_from(self, actor: ActorId, seq: int, admission: Admission) -> bool:
        """Void an actor from the batch on that holds `seq`; tell whether that is new.

        A proof may name a seq in the middle of a stored batch, and no batch may lie
        in two histories: what others saw of its beginning would never be found.
        """
        first = seq
        while batches := self.batches_at(actor, first):
            earlier = min(batch.header.first_seq for batch in batches)
            if earlier == first:
                break
            first = earlier
        before = self.forks.get(actor)
        if before is not None and before <= first:
            return False
        self.forks[actor] = first
        # A row is offered once: keep what was known before all of them.
        admission.forks.setdefault(actor, before)
        return True

    def _verified_chain(
        self, chain: bytes, signature: bytes
    ) -> tuple[ActorId, int, BatchId] | None:
        """Return (actor, seq, id) of a proof's first header, if all is in order."""
        headers = [
            chain[at : at + HEADER_BYTES] for at in range(0, len(chain), HEADER_BYTES)
        ]
        try:
            parsed = [decode_header(raw) for raw in headers]
        except ValueError:
            return None
        if not parsed or len(parsed) > RUN_BATCHES_MAX:
            return None
        names = [batch_id(raw) for raw in headers]
        for name, header in zip(names, parsed[1:], strict=False):
            if header.prev != name or header.actor != parsed[0].actor:
                return None
        device = self.membership.actors.get(parsed[0].actor)
        if parsed[0].namespace != self.namespace or device is None:
            return None
        if not self.scheme.verify(device, signed_bytes(names[-1]), signature):
            return None
        return parsed[0].actor, parsed[0].first_seq, names[0]

    def tell_forks(self, key: PrivateKey) -> None:
        """Append an entry for each fork proof found here that nobody told yet."""
        for proof in self._untold:
            heads = self.membership.recent_heads()
            self.append_own(make_fork(key, self.namespace, heads, proof))
        self._untold.clear()

    def branch(self, actor: ActorId, seq: int, hash16: bytes) -> ActorId | None:
        """Return who a dep means: see `log.delivery.History`."""
        fork = self.forks.get(actor)
        if fork is None or seq < fork:
            found = self.hash16_at(actor, seq)
            return actor if found == hash16 else None
        for batch in self.batches_of(actor, fork):
            if batch.id[:16] == hash16 and batch.header.first_seq <= seq:
                return self.branch_of(batch)
        return None

    def branch_of(self, batch: Batch) -> ActorId:
        """Return the actor whose history `batch` belongs to: its author's, or, from
        a fork on, that of its branch (named by the branch's first batch)."""
        actor = batch.header.actor
        fork = self.forks.get(actor)
        if fork is None or batch.header.end < fork:
            return actor
        by_id = {b.id: b for b in self.batches_of(actor, fork)}
        first = batch
        while first.header.prev in by_id:
            first = by_id[first.header.prev]
        return ActorId(hashlib.sha256(BRANCH_SALT + first.id).digest()[:16])

    def _successor(
        self, actor: ActorId, seq: int, prev: BatchId
    ) -> tuple[bytes, bytes] | None:
        """Return the signed chain of another stored batch at `seq` behind `prev`."""
        chain: list[Batch] = []
        for batch in self.batches_of(actor, seq):
            if chain:
                if batch.header.prev != chain[-1].id:
                    continue
            elif batch.header.first_seq != seq or (
                batch.header.prev != prev and seq > 1  # which goes on from anything
            ):
                continue
            chain.append(batch)
            if batch.signature:
                return _signed_chain(chain)
        return None

    # --- handing out --------------------------------------------------------------

    def has(self, name: BatchId | EntryId) -> bool:
        """Tell whether a row of that id is stored (or about to be)."""
        if any(name == unwritten for _, _, unwritten, _ in self._not_on_disk()):
            return True
        return bool(self.store.read(sql.HAS_ROW, self.ns, name))

    @property
    def end(self) -> Cursor:
        """Where this log ends now."""
        return Cursor(self.position, self.chain)

    def chain_at(self, position: int) -> bytes | None:
        """Return the chain up to a position; None beyond the end."""
        if position == 0:
            return NO_CHAIN
        for at, _, _, chain in self._not_on_disk():
            if at == position:
                return chain
        rows = self.store.read(sql.CHAIN_AT, self.ns, position)
        return rows[0][0] if rows else None

    def hash16_at(self, actor: ActorId, seq: int) -> bytes | None:
        """Return the short id of the stored batch that holds `seq` of `actor`."""
        head = self.heads.get(actor, NO_HEAD)
        if seq == head.seq:
            return head.id[:16]
        if seq > head.seq:
            return None
        last, first, end, found = self._found
        if actor == last and first <= seq <= end:
            return found[:16]  # of what was written at once all is asked for
        known = self._by_seq.get((actor, seq))
        if known is None:
            for _, row, name, _ in self._not_on_disk():
                if (
                    isinstance(row, Batch)
                    and row.header.actor == actor
                    and row.header.first_seq <= seq <= row.header.end
                ):
                    known = BatchId(name)
                    self._found = actor, row.header.first_seq, row.header.end, known
                    break
            else:
                rows = self.store.read(sql.BATCH_AT, self.ns, actor, seq, 1)
                if not rows or rows[0][1] < seq:
                    return None
                known = BatchId(rows[0][0])
                self._found = actor, rows[0][2], rows[0][1], known
            self._remember(actor, seq, known)
        return known[:16]

    def _remember(self, actor: ActorId, seq: int, name: BatchId) -> None:
        self._by_seq[(actor, seq)] = name
        if len(self._by_seq) > 4 * RECENT_ROWS:
            self._by_seq.popitem(last=False)

    def rows_after(self, position: int, count: int) -> list[tuple[int, Row]]:
        """Return up to `count` stored rows after `position`, and beyond that to the
        end of a run, so that what is returned ends in a signature."""
        if self._recent and self._recent[0][0] <= position + 1:
            skip = position + 1 - self._recent[0][0]
            rows = self._recent[skip:]
            return rows[: self._signed_end(rows, count)]
        found = [
            (at, _row(kind, head, name, body, signature))
            for at, kind, name, head, body, signature in self.store.read(
                sql.LOG_AFTER, self.ns, position, count + RUN_BATCHES_MAX
            )
        ]
        # What no file has yet follows what the file has, without a gap.
        last = found[-1][0] if found else position
        if len(found) < count + RUN_BATCHES_MAX:
            found += [(at, row) for at, row, _, _ in self._not_on_disk() if at > last]
        return found[: self._signed_end(found, count)]

    def _signed_end(self, rows: list[tuple[int, Row]], count: int) -> int:
        end = min(count, len(rows))
        while end < len(rows) and not rows[end - 1][1].signature:
            end += 1
        return end

    def batches_of(self, actor: ActorId, seq: int, count: int = 100_000) -> list[Batch]:
        """Return up to `count` stored batches of `actor` from `seq` on (of all
        branches)."""
        rows = [
            _row(kind, head, name, body, signature)
            for _, kind, name, head, body, signature in self.store.read(
                sql.BATCHES_OF, self.ns, actor, seq, count
            )
        ]
        rows += [
            row
            for _, row, _, _ in self._not_on_disk()
            if isinstance(row, Batch)
            and row.header.actor == actor
            and row.header.first_seq >= seq
        ]
        return [row for row in rows if isinstance(row, Batch)][:count]

    def batches_at(self, actor: ActorId, seq: int) -> list[Batch]:
        """Return the stored batches of `actor` that hold `seq` (of all branches)."""
        statement = sql.BATCHES_AT if actor in self.branches else sql.LAST_BATCH_TO
        rows = [
            _row(kind, head, name, body, signature)
            for _, kind, name, head, body, signature in self.store.read(
                statement, self.ns, actor, seq
            )
        ]
        rows += [row for _, row, _, _ in self._not_on_disk()]
        return [
            row
            for row in rows
            if isinstance(row, Batch)
            and row.header.actor == actor
            and row.header.first_seq <= seq <= row.header.end
        ]

    def tips(self) -> list[tuple[ActorId, int, BatchId]]:
        """Return the stored frontier: (actor, seq, head batch), sorted."""
        tips = [(actor, head.seq, head.id) for actor, head in self.heads.items()]
        tips += [
            (actor, head.seq, head.id)
            for actor, branches in self.branches.items()
            for head in branches.values()
        ]
        return sorted(tips)

    def digest(self) -> bytes:
        """Return the digest of what is stored: equal iff two keepers hold the same."""
        if self._digest is None:
            digest = hashlib.sha256(b"sync1:frontier\0")
            for actor, seq, name in self.tips():
                digest.update(actor + seq.to_bytes(8, "big") + name)
            for entry in self.membership.heads():
                digest.update(entry)
            self._digest = digest.digest()
        return self._digest


def _signed_chain(chain: list[Batch]) -> tuple[bytes, bytes]:
    headers = b"".join(batch.header.encode() for batch in chain)
    return headers, chain[-1].signature


def _row(
    kind: int, head: bytes | None, name: bytes, body: bytes, signature: bytes
) -> Row:
    if kind:
        return Entry(kind, body, signature)
    assert head is not None
    return Batch(decode_header(head), BatchId(name), signature, body)


def _goes_on(before: tuple[int, int], header: Header) -> bool:
    """Tell whether an actor's batch has the term of the one before it, and an index
    behind that one's: which does not depend on what else is known."""
    term, index = before
    return header.term == term and (not term or header.term_index > index)
