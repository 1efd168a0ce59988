"""The entries by which a namespace gets a leader: its mode, and its terms.

A MODE entry switches between many masters and one leader, with the frontier at which
it does: what others write beside the log of leaders has no effect from there on. A TERM
entry begins the log of one leader: under which actor he writes, behind which entry, and
the votes that made him so. As a row of the log it plays the part of the empty entry
with which a leader begins in Raft (Ongaro and Ousterhout 2014, sections 5.4.2 and 8):
whoever has stored it is at its term.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from syncengine import limits, values
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId, NamespaceId
from syncengine.trust.entry import (
    VERSION,
    Entry,
    InvalidEntry,
    Kind,
    read_bytes,
    read_count,
    read_text,
    sign,
)
from syncengine.trust.keys import PrivateKey

How = Literal["elected", "manual", "handed over", "voters", "forced"]
"""By what a leader leads: votes that he asked for by himself, because somebody said so,
or because the one before him wished it; votes of the former voters for new ones; or
nothing but the word of a person who accepts that something may be lost."""


@dataclass(frozen=True, slots=True)
class ModeRecord:
    issuer: DeviceId
    number: int
    """Of several with one number the one with the least id counts."""
    has_leader: bool
    voters: tuple[DeviceId, ...]
    """Of the first leader; none: whoever may lead is promoted by hand."""
    frontier: dict[ActorId, tuple[int, BatchId]]
    """(seq, batch) of each actor at which the mode begins"""
    closed: tuple[EntryId, int] | None
    """(term, index) at which the log of leaders ends, if the mode before had one"""


@dataclass(frozen=True, slots=True)
class TermRecord:
    issuer: DeviceId
    mode: EntryId
    number: int
    actor: ActorId
    node: str
    """How the leader calls himself"""
    previous: EntryId | None
    """The term whose log goes on"""
    base: tuple[int, BatchId] | None
    """(index, batch) of the last entry that is kept; None: there was none"""
    voters: tuple[DeviceId, ...]
    how: How
    reason: str
    votes: dict[DeviceId, bytes]

    @property
    def order(self) -> tuple[int, DeviceId, ActorId]:
        """Terms are pairs, of a number and who proposed it: no two leaders share one,
        not even when both were forced."""
        return self.number, self.issuer, self.actor

    @property
    def index(self) -> int:
        """How many entries are kept."""
        return 0 if self.base is None else self.base[0]


def vote_bytes(
    namespace: NamespaceId,
    *,
    mode: EntryId,
    number: int,
    candidate: DeviceId,
    actor: ActorId,
    previous: EntryId | None,
    base: tuple[int, BatchId] | None,
    voters: tuple[DeviceId, ...],
) -> bytes:
    """Return what a vote signs: one candidate, with one log, in one term."""
    said = [namespace, mode, number, candidate, actor, previous, base, list(voters)]
    return b"sync1:vote\0" + values.encode(said)


def make_mode(
    key: PrivateKey, namespace: NamespaceId, heads: list[EntryId], mode: ModeRecord
) -> Entry:
    """Return the entry that says `mode`; `key` is its issuer's."""
    frontier = [[actor, *at] for actor, at in sorted(mode.frontier.items())]
    fields = [VERSION, namespace, key.public, heads, mode.number, mode.has_leader]
    return sign(key, Kind.MODE, [*fields, list(mode.voters), frontier, mode.closed])


def make_term(
    key: PrivateKey, namespace: NamespaceId, heads: list[EntryId], term: TermRecord
) -> Entry:
    """Return the entry that begins `term`; `key` is its leader's."""
    fields = [
        *(VERSION, namespace, key.public, heads),
        *(term.mode, term.number, term.actor, term.node, term.previous, term.base),
        *(list(term.voters), term.how, term.reason),
        [list(vote) for vote in sorted(term.votes.items())],
    ]
    return sign(key, Kind.TERM, fields)


def parse_mode(issuer: DeviceId, rest: list[Any]) -> ModeRecord:
    """Return what a MODE entry says; raises `ValueError`, `TypeError`, `IndexError`."""
    number, has_leader, voters, frontier, closed = rest[:5]
    if type(has_leader) is not bool:
        raise InvalidEntry("a mode says whether there is a leader")
    if len(frontier) > limits.FRONTIER_ITEMS_MAX:
        raise InvalidEntry("a mode's frontier is too long")
    stands = {
        ActorId(read_bytes(actor, 16)): (
            read_count(seq),
            BatchId(read_bytes(batch, 32)),
        )
        for actor, seq, batch in frontier
    }
    if closed is not None:
        term, index = closed
        closed = EntryId(read_bytes(term, 32)), read_count(index)
    return ModeRecord(
        issuer, read_count(number), has_leader, _voters(voters), stands, closed
    )


def parse_term(issuer: DeviceId, rest: list[Any]) -> TermRecord:
    """Return what a TERM entry says; raises as `parse_mode` does."""
    (mode, number, actor, node, previous, base, voters, how, reason, votes) = rest[:10]
    if base is not None:
        index, batch = base
        base = read_count(index), BatchId(read_bytes(batch, 32))
        if not base[0]:
            raise InvalidEntry("an entry's index begins at 1")
    if how not in get_args(How):
        raise InvalidEntry(f"nobody leads by {how!r}")
    if len(votes) > limits.VOTERS_MAX or not read_count(number) > 0:
        raise InvalidEntry("a term has a number from 1 on, and few votes")
    if max(len(read_text(node)), len(read_text(reason))) > limits.KEY_BYTES_MAX:
        raise InvalidEntry("a term's names are short")
    return TermRecord(
        issuer,
        EntryId(read_bytes(mode, 32)),
        number,
        ActorId(read_bytes(actor, 16)),
        node,
        None if previous is None else EntryId(read_bytes(previous, 32)),
        base,
        _voters(voters),
        how,
        reason,
        {
            DeviceId(read_bytes(voter, 32)): read_bytes(signature, 64)
            for voter, signature in votes
        },
    )


def _voters(raw: Any) -> tuple[DeviceId, ...]:
    voters = tuple(DeviceId(read_bytes(voter, 32)) for voter in raw)
    if len(set(voters)) != len(voters) or len(voters) > limits.VOTERS_MAX:
        raise InvalidEntry(f"there are up to {limits.VOTERS_MAX} voters, each once")
    return voters


def majority(voters: tuple[DeviceId, ...]) -> int:
    """Return how many of `voters` decide; 0 where there are none."""
    return len(voters) // 2 + 1 if voters else 0
