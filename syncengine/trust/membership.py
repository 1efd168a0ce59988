"""The membership log: who owns a namespace, who may do what, which actors are whose.

Entries are rows of the namespace's one log (`trust.entry`). The namespace's id is the
id of its genesis, so it commits to its owners.

Authority converges (S3): what a set of entries grants depends on the set alone, not
on the order of arrival nor on any clock. `nbf`, `exp` and `accept_by` gate sessions;
they never decide whether a batch is valid.
"""

from dataclasses import dataclass
from typing import Any

from syncengine import limits, values
from syncengine.ids import ActorId, DeviceId, EntryId, NamespaceId, actor_id
from syncengine.trust.entry import (
    VERSION,
    Entry,
    InvalidEntry,
    Kind,
    Pending,
    entry_id,
    read_bytes,
    read_text,
    sign,
    signed_bytes,
)
from syncengine.trust.keys import KEY_BYTES, PrivateKey, Scheme
from syncengine.trust.leadership import (
    ModeRecord,
    TermRecord,
    parse_mode,
    parse_term,
)
from syncengine.trust.placement import Placement, parse_placement

SUITE = 1
NONCE_BYTES = 16


class Ops:
    """What a grant allows, as bits."""

    RELAY = 1
    READ = 2
    WRITE = 4
    ADMIN = 8  # issue grants below its own
    REKEY = 16  # reserved
    LEAD = 32  # vote, and lead a namespace that has a leader


OPS_BY_NAME = {
    "read": Ops.RELAY | Ops.READ,
    "write": Ops.RELAY | Ops.READ | Ops.WRITE,
    "lead": Ops.RELAY | Ops.READ | Ops.WRITE | Ops.LEAD,
    "admin": Ops.RELAY | Ops.READ | Ops.WRITE | Ops.ADMIN,
}
OPS_OWNER = OPS_BY_NAME["admin"] | Ops.REKEY | Ops.LEAD

Scope = tuple[tuple[str, str], ...]
"""(collection, prefix of the ids) of what a grant is for."""

EVERYTHING = (("*", ""),)
"""The scope of a grant over all documents."""


@dataclass(frozen=True, slots=True)
class Genesis:
    owners: tuple[DeviceId, ...]
    threshold: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """One link of a chain from an owner to a device (or to an invite's key)."""

    issuer: DeviceId
    parent: EntryId | None
    subject: DeviceId
    ops: int
    scope: Scope
    not_before_ms: int | None
    expires_ms: int | None
    depth: int
    is_invite: bool
    accept_by_ms: int | None
    uses: int | None


@dataclass(frozen=True, slots=True)
class ActorRecord:
    device: DeviceId
    actor: ActorId


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two signed headers of one actor with one seq: it equivocated."""

    headers: tuple[tuple[bytes, bytes], tuple[bytes, bytes]]


def namespace_id(genesis: Entry) -> NamespaceId:
    """Return the namespace that `genesis` founds."""
    return NamespaceId(entry_id(genesis))


def make_genesis(key: PrivateKey, owners: list[DeviceId], salt: bytes) -> Entry:
    """Return the founding entry; `key` must be the first owner's."""
    fields = [VERSION, None, key.public, [], SUITE, owners, 1, salt, None]
    return sign(key, Kind.GENESIS, fields)


def make_grant(
    key: PrivateKey,
    namespace: NamespaceId,
    heads: list[EntryId],
    *,
    parent: EntryId | None,
    subject: DeviceId,
    ops: int,
    depth: int,
    nonce: bytes,
    scope: Scope = EVERYTHING,
    is_invite: bool = False,
    accept_by_ms: int | None = None,
    uses: int | None = None,
) -> Entry:
    """Return a grant link signed by `key`."""
    fields = [
        VERSION,
        namespace,
        key.public,
        heads,
        parent,
        subject,
        None,  # the hash of a device record: comes with encryption
        ops,
        [list(pair) for pair in scope],
        None,
        None,
        depth,
        nonce,
        is_invite,
        accept_by_ms,
        uses,
    ]
    return sign(key, Kind.GRANT, fields)


def make_actor(
    key: PrivateKey, namespace: NamespaceId, heads: list[EntryId], nonce: bytes
) -> Entry:
    """Return the record that binds a new actor to the device `key`."""
    return sign(key, Kind.ACTOR, [VERSION, namespace, key.public, heads, nonce])


def make_fork(
    key: PrivateKey,
    namespace: NamespaceId,
    heads: list[EntryId],
    proof: ForkProof,
) -> Entry:
    """Return the entry by which `key` tells of a fork it has seen."""
    pairs = [list(pair) for pair in sorted(proof.headers)]
    return sign(key, Kind.FORK, [VERSION, namespace, key.public, heads, pairs])


Parsed = Genesis | Grant | ActorRecord | ForkProof | ModeRecord | TermRecord | Placement

# How large an entry of a kind may be; the others have one limit.
BYTES_MAX = {
    Kind.MODE: limits.MODE_BYTES_MAX,
    Kind.PLACEMENT: limits.PLACEMENT_BYTES_MAX,
}


class Membership:
    """What a namespace's entries say together.

    Invariants: (1) every entry kept has a good signature; (2) a kept grant whose
    parent is known is valid under it; (3) entries are never removed.
    """

    def __init__(self, namespace: NamespaceId, scheme: Scheme):
        self.namespace = namespace
        self._scheme = scheme
        self.entries: dict[EntryId, Entry] = {}
        self.genesis: Genesis | None = None
        self.actors: dict[ActorId, DeviceId] = {}
        self.grants: dict[EntryId, Grant] = {}
        self.forks: list[ForkProof] = []
        self.modes: dict[EntryId, ModeRecord] = {}
        self.terms: dict[EntryId, TermRecord] = {}
        self.placements: dict[EntryId, Placement] = {}
        # By some later entry's heads. A dict: an empty set takes three times as much.
        self._named: dict[EntryId, None] = {}
        self._valid: dict[EntryId, bool] = {}

    def heads(self) -> list[EntryId]:
        """Return the entries that no other one names, sorted."""
        return sorted(self.entries.keys() - self._named.keys())

    def recent_heads(self) -> list[EntryId]:
        """Return the heads that a new entry names, within the limit."""
        return self.heads()[: limits.HEADS_MAX]

    def add(self, entry: Entry) -> EntryId | None:
        """Keep `entry`; return its id, or None when it was known.

        Raises `InvalidEntry` when it breaks a rule. A grant whose parent is not
        known is kept and grants nothing until the parent comes.
        """
        name = entry_id(entry)
        if name in self.entries:
            return None
        heads, parsed = self.parse(entry)
        self.entries[name] = entry
        self._named.update(dict.fromkeys(heads))
        if isinstance(parsed, Genesis):
            self.genesis = parsed
        elif isinstance(parsed, Grant):
            self.grants[name] = parsed
            try:
                self.rights(name)
            except Pending:
                pass
            except InvalidEntry:
                del self.entries[name], self.grants[name]
                raise
        elif isinstance(parsed, ActorRecord):
            self.actors[parsed.actor] = parsed.device
        elif isinstance(parsed, ForkProof):
            self.forks.append(parsed)
        elif isinstance(parsed, ModeRecord):
            self.modes[name] = parsed
        elif isinstance(parsed, TermRecord):
            self.terms[name] = parsed
        elif isinstance(parsed, Placement):
            self.placements[name] = parsed
        return name

    def rights(self, grant: EntryId) -> Grant:
        """Return the grant of that id once its whole chain is valid.

        Raises `Pending` while a link is missing, `InvalidEntry` when one is bad.
        """
        link = self.grants.get(grant)
        if link is None:
            raise Pending("unknown grant")
        if self._valid.get(grant):
            return link
        if self.genesis is None:
            raise Pending("unknown genesis")
        if link.parent is None:
            if link.issuer not in self.genesis.owners:
                raise InvalidEntry("a first grant is issued by an owner")
            if link.depth >= limits.GRANT_DEPTH_MAX:
                raise InvalidEntry("a chain of grants is too long")
        else:
            _check_narrower(self.rights(link.parent), link)
        self._valid[grant] = True
        return link

    def grant_of(self, device: DeviceId) -> EntryId | None:
        """Return the widest valid grant of `device`, the least id among equals."""
        best: tuple[int, bool, EntryId] | None = None
        for name, link in self.grants.items():
            if link.subject != device or link.is_invite:
                continue
            try:
                self.rights(name)
            except (Pending, InvalidEntry):
                continue
            # Fewer bits sort later; ids break ties.
            rank = (-link.ops.bit_count(), link.scope != EVERYTHING, name)
            if best is None or rank < best:
                best = rank
        return best[2] if best else None

    def may(self, device: DeviceId, ops: int) -> bool:
        """Tell whether some grant gives `device` all of `ops`, on all documents."""
        for name, link in self.grants.items():
            if link.subject != device or link.is_invite or ops & ~link.ops:
                continue
            try:
                self.rights(name)
            except (Pending, InvalidEntry):
                continue
            if link.scope == EVERYTHING:
                return True
        return False

    def placement(self) -> Placement | None:
        """Return where a fleet's partitions are at home: what the placement with the
        highest number says, of several that with the least id."""
        return max(self.good_placements(), default=(0, b"", None))[2]

    def good_placements(self) -> list[tuple[int, bytes, Placement]]:
        """Return the placements of owners, or who has admin over everything, each
        behind what they count by."""
        owners = self.genesis.owners if self.genesis is not None else ()
        return [
            (said.number, bytes(255 - byte for byte in name), said)
            for name, said in self.placements.items()
            if said.issuer in owners or self.may(said.issuer, Ops.ADMIN)
        ]

    def joined_by(self, invite: EntryId) -> set[DeviceId]:
        """Return the devices that came in through `invite`."""
        return {link.subject for link in self.grants.values() if link.parent == invite}

    def chain(self, grant: EntryId) -> list[Entry]:
        """Return the known entries that `grant` rests on, parents first."""
        chain: list[Entry] = []
        name: EntryId | None = grant
        while name is not None and name in self.entries:
            chain.append(self.entries[name])
            name = self.grants[name].parent
        founding = self.entries.get(EntryId(self.namespace))
        if founding is not None:
            chain.append(founding)
        return chain[::-1]

    def parse(self, entry: Entry) -> tuple[list[EntryId], Parsed | None]:
        """Return the heads that `entry` names and what it says, once its signature
        is found good; raises `InvalidEntry`."""
        if len(entry.body) > BYTES_MAX.get(entry.kind, limits.ENTRY_BYTES_MAX):  # type: ignore[call-overload]  # kinds are whole numbers
            raise InvalidEntry("an entry is too large")
        if not 0 <= entry.kind <= 255:
            raise InvalidEntry("an entry's kind is one byte")
        try:
            fields = values.decode(entry.body)
        except values.DECODE_ERRORS as error:
            raise InvalidEntry("an entry is not MessagePack") from error
        try:
            version, namespace, issuer, heads, *rest = fields
        except (TypeError, ValueError) as error:
            raise InvalidEntry("an entry is too short") from error
        if version != VERSION:
            raise InvalidEntry(f"entry version {version!r} is not known")
        if entry.kind == Kind.GENESIS:
            if namespace_id(entry) != self.namespace:
                raise InvalidEntry("the genesis of another namespace")
        elif namespace != self.namespace:
            raise InvalidEntry("an entry of another namespace")
        if not isinstance(issuer, bytes) or not values.is_list(heads):
            raise InvalidEntry("an entry names its issuer and heads")
        if len(heads) > limits.HEADS_MAX or not all(
            isinstance(head, bytes) and len(head) == 32 for head in heads
        ):
            raise InvalidEntry("an entry's heads are at most 16 ids")
        signed = signed_bytes(entry.kind, entry.body)
        if not self._scheme.verify(issuer, signed, entry.signature):
            raise InvalidEntry("an entry's signature is not its issuer's")
        return heads, self._parse(entry.kind, DeviceId(issuer), rest)

    def _parse(self, kind: int, issuer: DeviceId, rest: list[Any]) -> Parsed | None:
        try:
            match kind:
                case Kind.GENESIS:
                    return self._genesis(issuer, rest)
                case Kind.GRANT:
                    return self._grant(issuer, rest)
                case Kind.ACTOR:
                    nonce = read_bytes(rest[0], NONCE_BYTES)
                    actor = actor_id(issuer, self.namespace, nonce)
                    return ActorRecord(issuer, actor)
                case Kind.FORK:
                    (first, second) = (
                        (read_bytes(header, None), read_bytes(signature, 64))
                        for header, signature in rest[0]
                    )
                    return ForkProof((first, second))
                case Kind.MODE:
                    return parse_mode(issuer, rest)
                case Kind.TERM:
                    return parse_term(issuer, rest)
                case Kind.PLACEMENT:
                    return parse_placement(issuer, rest)
                case _:
                    return None
        except (TypeError, IndexError) as error:
            raise InvalidEntry("an entry's fields do not fit its kind") from error
        except ValueError as error:
            if isinstance(error, InvalidEntry):
                raise
            raise InvalidEntry("an entry's fields do not fit its kind") from error

    def _genesis(self, issuer: DeviceId, rest: list[Any]) -> Genesis:
        suite, owners, threshold, salt, *_ = rest
        if suite != SUITE:
            raise InvalidEntry(f"suite {suite!r} is not known")
        if not values.is_list(owners) or not 1 <= len(owners) <= 8:
            raise InvalidEntry("a namespace has 1 to 8 owners")
        if not all(
            isinstance(owner, bytes) and self._scheme.is_good_key(owner)
            for owner in owners
        ):
            raise InvalidEntry("an owner's key is not a good key")
        if issuer not in owners or threshold != 1:
            raise InvalidEntry("a genesis is signed by an owner, with threshold 1")
        return Genesis(
            tuple(map(DeviceId, owners)), threshold, read_bytes(salt, NONCE_BYTES)
        )

    def _grant(self, issuer: DeviceId, rest: list[Any]) -> Grant:
        (parent, subject, record, ops, scope, nbf, exp, depth, nonce) = rest[:9]
        is_invite, accept_by, uses = rest[9:12]
        read_bytes(nonce, NONCE_BYTES)
        if record is not None:
            read_bytes(record, 32)
        if not self._scheme.is_good_key(read_bytes(subject, KEY_BYTES)):
            raise InvalidEntry("a grant's subject is not a good key")
        if type(ops) is not int or not 0 < ops < 2**16:
            raise InvalidEntry("a grant's ops are bits")
        if type(depth) is not int or not 0 <= depth <= limits.GRANT_DEPTH_MAX:
            raise InvalidEntry("a grant's depth is 0 to 8")
        if type(is_invite) is not bool:
            raise InvalidEntry("a grant says whether it is an invite")
        if len(scope) > limits.GRANT_SCOPES_MAX:
            raise InvalidEntry("a grant has at most 64 scopes")
        pairs = tuple(
            (read_text(collection), read_text(prefix)) for collection, prefix in scope
        )
        for moment in (nbf, exp, accept_by, uses):
            if moment is not None and (type(moment) is not int or moment < 0):
                raise InvalidEntry("a grant's times and uses are whole numbers")
        if is_invite and (uses is None or uses < 1 or ops & Ops.ADMIN):
            raise InvalidEntry("an invite counts its uses and grants no admin")
        return Grant(
            issuer,
            None if parent is None else EntryId(read_bytes(parent, 32)),
            DeviceId(subject),
            ops,
            pairs,
            nbf,
            exp,
            depth,
            is_invite,
            accept_by,
            uses,
        )


def gives_more(new: Grant, old: Grant) -> bool:
    """Tell whether `new` allows all that `old` does, and something besides."""
    if new.not_before_ms is not None or (
        new.expires_ms is not None
        and (old.expires_ms is None or new.expires_ms < old.expires_ms)
    ):
        return False
    return (
        not old.ops & ~new.ops
        and _all_within(old.scope, new.scope)
        and (new.ops != old.ops or not _all_within(new.scope, old.scope))
    )


def _check_narrower(parent: Grant, child: Grant) -> None:
    """Raise `InvalidEntry` unless `child` is within what `parent` may hand on."""
    if child.issuer != parent.subject:
        raise InvalidEntry("a grant is issued by its parent's subject")
    if not (parent.ops & Ops.ADMIN or parent.is_invite):
        raise InvalidEntry("issuing a grant needs admin")
    if child.ops & ~parent.ops:
        raise InvalidEntry("a grant gives more than its parent has")
    if child.depth >= parent.depth:
        raise InvalidEntry("a grant's depth is below its parent's")
    if parent.is_invite and child.is_invite:
        raise InvalidEntry("an invite issues grants, not invites")
    if not _all_within(child.scope, parent.scope):
        raise InvalidEntry("a grant's scope is wider than its parent's")
    if parent.expires_ms is not None and (
        child.expires_ms is None or child.expires_ms > parent.expires_ms
    ):
        raise InvalidEntry("a grant outlives its parent")
    if parent.not_before_ms is not None and (
        child.not_before_ms is None or child.not_before_ms < parent.not_before_ms
    ):
        raise InvalidEntry("a grant begins before its parent")


def _all_within(narrow: Scope, wide: Scope) -> bool:
    return all(any(_scope_within(pair, other) for other in wide) for pair in narrow)


def _scope_within(narrow: tuple[str, str], wide: tuple[str, str]) -> bool:
    return wide[0] == "*" or (wide[0] == narrow[0] and narrow[1].startswith(wide[1]))


def allows(grant: Grant, document: str) -> bool:
    """Tell whether `grant` lets its subject write `document` (collection/id)."""
    if not grant.ops & Ops.WRITE:
        return False
    if grant.scope == EVERYTHING:
        return True
    collection, _, key = document.partition("/")
    return any(_scope_within((collection, key), pair) for pair in grant.scope)
