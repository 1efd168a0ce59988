"""Which entries of leaders count: the ancestors of the head of the highest term, on
every replica the same, in any order of arrival."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from syncengine import limits
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId, actor_id
from syncengine.log.batch import NO_BATCH, Header, batch_id
from syncengine.log.terms import BESIDE, DEPOSED, Terms
from syncengine.trust.entry import Entry, entry_id
from syncengine.trust.keys import StandIn
from syncengine.trust.leadership import (
    How,
    ModeRecord,
    TermRecord,
    make_mode,
    make_term,
    vote_bytes,
)
from syncengine.trust.membership import (
    OPS_BY_NAME,
    OPS_OWNER,
    Membership,
    make_actor,
    make_genesis,
    make_grant,
    namespace_id,
)

SCHEME = StandIn()
OWNER, *NODES = (SCHEME.private_key(bytes([i]) * 32) for i in range(5))
WRITER = SCHEME.private_key(b"w" * 32)
GENESIS = make_genesis(OWNER, [OWNER.public], b"s" * 16)
NS = namespace_id(GENESIS)
VOTERS = tuple(DeviceId(node.public) for node in NODES[:3])
NO_GRANT = EntryId(bytes(32))


def granted(subject: Any, ops: int) -> Entry:
    return make_grant(
        OWNER, NS, [],
        parent=None, subject=DeviceId(subject.public), ops=ops, depth=3, nonce=b"n" * 16,
    )  # fmt: skip


BEGINNING = [
    GENESIS,
    granted(OWNER, OPS_OWNER),
    *(granted(node, OPS_BY_NAME["lead"]) for node in NODES),
    granted(WRITER, OPS_BY_NAME["write"]),
]


@dataclass
class Made:
    """A term with what its leader wrote, and whether it began as it must."""

    id: EntryId
    record: TermRecord
    entry: Entry
    actor: Entry
    is_sound: bool
    """Whether it is good, given that the one before it is"""
    batches: list[Header] = field(default_factory=list[Header])


def name_of(header: Header) -> BatchId:
    return batch_id(header.encode())


@dataclass
class History:
    """A namespace as somebody made it, who also knows what counts of it."""

    chance: random.Random
    mode: Entry = field(init=False)
    terms: list[Made] = field(default_factory=list[Made])

    def __post_init__(self) -> None:
        record = ModeRecord(DeviceId(OWNER.public), 1, True, VOTERS, {}, None)
        self.mode = make_mode(OWNER, NS, [], record)

    def log_of(self, term: Made | None) -> list[Header]:
        """The slow version: a term's log is what it kept, and what it wrote."""
        if term is None:
            return []
        previous = next((t for t in self.terms if t.id == term.record.previous), None)
        kept = [h for h in self.log_of(previous) if h.term_index <= term.record.index]
        return kept + term.batches

    def elect(self) -> None:
        chance = self.chance
        previous = chance.choice([None, *self.terms[-3:]])
        node = chance.choice([*NODES, WRITER])
        me = DeviceId(node.public)
        nonce = chance.randbytes(16)
        log = self.log_of(previous)
        cut = chance.randint(0, len(log)) if chance.random() < 0.3 else len(log)
        base = (log[cut - 1].term_index, name_of(log[cut - 1])) if cut else None
        is_good = node is not WRITER
        if base is None and previous is not None and previous.record.base is not None:
            is_good = False  # it says that nothing was kept
        if base is not None and chance.random() < 0.1:
            base, is_good = (base[0] + 1, base[1]), False
        step = chance.choice([0, 1, 1, 1, 2, 5, limits.TERM_STEP_MAX + 1])
        last = previous.record.number if previous is not None else 0
        record = TermRecord(
            me, entry_id(self.mode), max(1, last + step), actor_id(me, NS, nonce), "n",
            previous.id if previous is not None else None, base, VOTERS,
            chance.choice(("elected", "elected", "forced")), "", {},
        )  # fmt: skip
        is_good &= last < record.number <= last + limits.TERM_STEP_MAX
        said = vote_bytes(
            NS, mode=record.mode, number=record.number, candidate=me,
            actor=record.actor, previous=record.previous, base=base, voters=VOTERS,
        )  # fmt: skip
        given = chance.sample(NODES, chance.randint(1, 4))
        for voter in given:
            forged = chance.random() < 0.1
            record.votes[DeviceId(voter.public)] = (
                bytes(64) if forged else voter.sign(said)
            )
        votes = sum(
            SCHEME.verify(voter, said, vote)
            for voter, vote in record.votes.items()
            if voter in VOTERS
        )
        is_good &= record.how == "forced" or votes >= 2
        entry = make_term(node, NS, [], record)
        actor = make_actor(node, NS, [], nonce)
        made = Made(entry_id(entry), record, entry, actor, is_good)
        self.terms.append(made)
        prev, index, seq = (
            base[1] if base else NO_BATCH,
            base[0] if base else 0,
            1,
        )
        for _ in range(chance.randint(0, 3)):
            n = chance.randint(1, 3)
            index += n
            root = chance.randbytes(32)
            header = Header(
                *(NS, record.actor, seq, n, prev, NO_GRANT, root),
                record.number,
                index,
            )
            made.batches.append(header)
            prev, seq = name_of(header), seq + n

    @property
    def top(self) -> Made | None:
        good: dict[EntryId | None, Made] = {}
        for term in sorted(self.terms, key=lambda term: term.record.order):
            record = term.record
            if record.previous is None:
                follows = not (good and record.how == "forced")
            else:
                follows = record.previous in good
            if term.is_sound and follows:
                good[term.id] = term
        return max(good.values(), key=lambda term: term.record.order, default=None)


def told(history: History, chance: random.Random) -> tuple[Terms, Membership]:
    """Return what somebody knows to whom all came in some order, judged at times."""
    stored: dict[BatchId, Header] = {}
    membership = Membership(NS, SCHEME)
    terms = Terms(NS, membership, SCHEME, stored.get)
    rows: list[Entry | Header] = [*BEGINNING, history.mode]
    for term in history.terms:
        rows += [term.actor, term.entry, *term.batches]
    chance.shuffle(rows)
    for row in rows:
        if isinstance(row, Entry):
            membership.add(row)
            terms.changed()
        else:
            name = name_of(row)
            stored[name] = row
            terms.stored(name)
        if chance.random() < 0.3:
            assert terms.top is None or terms.has_leader
    return terms, membership


@pytest.mark.parametrize("seed", range(120))
def test_what_counts_is_the_log_of_the_highest_term(seed: int) -> None:
    chance = random.Random(seed)
    history = History(chance)
    for _ in range(chance.randint(1, 9)):
        history.elect()
    counts = {name_of(header) for header in history.log_of(history.top)}

    for order in range(3):
        terms, _ = told(history, random.Random(f"{seed}/{order}"))
        top = terms.top
        assert (top.id if top else None) == (history.top.id if history.top else None)
        for term in history.terms:
            for header in term.batches:
                reason = terms.void_reason(header)
                assert reason == (None if name_of(header) in counts else DEPOSED)


def known(*entries: Entry) -> Terms:
    membership = Membership(NS, SCHEME)
    for entry in (*BEGINNING, *entries):
        membership.add(entry)
    terms = Terms(NS, membership, SCHEME, lambda _: None)
    terms.changed()
    return terms


def test_who_may_not_switch_the_mode_does_not() -> None:
    record = ModeRecord(DeviceId(WRITER.public), 1, True, (), {}, None)

    assert known(make_mode(WRITER, NS, [], record)).mode is None
    owners = replace(record, issuer=DeviceId(OWNER.public))
    assert known(make_mode(OWNER, NS, [], owners)).has_leader


def test_what_others_write_beside_a_leader_is_void_from_the_switch_on() -> None:
    me, other = DeviceId(OWNER.public), ActorId(b"o" * 16)
    led = ModeRecord(me, 1, True, (), {other: (5, BatchId(b"b" * 32))}, None)
    open_ = ModeRecord(me, 2, False, (), {other: (9, BatchId(b"c" * 32))}, None)
    terms = known(make_mode(OWNER, NS, [], led))

    def reason(terms: Terms, first: int, n: int) -> str | None:
        return terms.void_reason(
            Header(NS, other, first, n, NO_BATCH, NO_GRANT, bytes(32))
        )

    assert reason(terms, 1, 5) is None
    assert reason(terms, 6, 1) == BESIDE
    assert terms.spans_beside(other, 12) == [(6, 12)]
    later = known(make_mode(OWNER, NS, [], led), make_mode(OWNER, NS, [], open_))
    assert not later.has_leader
    assert reason(later, 6, 4) == BESIDE
    assert reason(later, 10, 1) is None
    assert later.spans_beside(other, 12) == [(6, 9)]


def test_of_two_switches_with_one_number_one_counts_everywhere() -> None:
    me = DeviceId(OWNER.public)
    made = [
        make_mode(OWNER, NS, [], ModeRecord(me, 1, leads, (), {}, None))
        for leads in (True, False)
    ]
    expected = min(map(entry_id, made))

    for order in (made, made[::-1]):
        assert known(*order).mode_id == expected


def test_a_switch_ends_the_log_of_the_highest_term_or_nothing() -> None:
    me = DeviceId(OWNER.public)
    led = make_mode(OWNER, NS, [], ModeRecord(me, 1, True, (me,), {}, None))

    def term(number: int, how: How) -> tuple[Entry, Entry]:
        nonce = bytes([number]) * 16
        actor = make_actor(OWNER, NS, [], nonce)
        record = TermRecord(
            me, entry_id(led), number, actor_id(me, NS, nonce), "n", None, None, (me,),
            how, "", {},
        )  # fmt: skip
        said = vote_bytes(
            NS, mode=record.mode, number=number, candidate=me, actor=record.actor,
            previous=None, base=None, voters=(me,),
        )  # fmt: skip
        record.votes[me] = OWNER.sign(said)
        return actor, make_term(OWNER, NS, [], record)

    first, second = term(1, "elected"), term(2, "elected")
    ends = ModeRecord(me, 2, False, (), {}, (entry_id(first[1]), 0))
    switch = make_mode(OWNER, NS, [], ends)

    assert not known(led, *first, switch).has_leader
    assert known(led, *first, switch, *second).has_leader
    assert known(led, *second, *first, switch).mode_id == entry_id(led)
    assert not known(led, *first, switch, *term(3, "forced")).has_leader
    blind = make_mode(OWNER, NS, [], replace(ends, closed=None))
    assert known(led, *first, blind).has_leader
    assert not known(led, blind).has_leader


def test_nobody_speaks_for_anothers_actor() -> None:
    me, nonce = DeviceId(OWNER.public), b"a" * 16
    led = make_mode(OWNER, NS, [], ModeRecord(me, 1, True, (), {}, None))
    actor = make_actor(OWNER, NS, [], nonce)
    record = TermRecord(
        me, entry_id(led), 2, actor_id(me, NS, nonce), "n", None, None, (), "manual",
        "", {},
    )  # fmt: skip
    good = make_term(OWNER, NS, [], record)
    for key in (WRITER, NODES[0]):
        forged = replace(record, issuer=DeviceId(key.public), number=1, how="forced")
        terms = known(led, actor, good, make_term(key, NS, [], forced(forged)))
        assert terms.top is not None
        assert terms.top.id == entry_id(good)


def forced(record: TermRecord) -> TermRecord:
    return replace(record, how="forced", reason="because I say so")


def test_who_is_forced_neither_empties_the_log_nor_chooses_the_voters() -> None:
    history = History(random.Random(1))
    node, me = NODES[0], DeviceId(NODES[0].public)
    while history.top is None or not history.top.batches:
        history.elect()
    nonce = b"f" * 16
    actor = make_actor(node, NS, [], nonce)
    record = TermRecord(
        me, entry_id(history.mode), 2**32, actor_id(me, NS, nonce), "n", None, None,
        VOTERS, "forced", "", {},
    )  # fmt: skip
    top = history.top
    for bad in (record, replace(record, previous=top.id, voters=(me,))):
        terms, membership = told(history, random.Random(2))
        membership.add(actor)
        membership.add(make_term(node, NS, [], bad))
        terms.changed()
        assert terms.top is not None
        assert terms.top.id == top.id


def test_an_owner_may_force_that_lost_voters_vote_no_more_but_not_all() -> None:
    history = History(random.Random(1))
    while history.top is None or not history.top.batches:
        history.elect()
    me, nonce = DeviceId(OWNER.public), b"f" * 16
    record = TermRecord(
        me, entry_id(history.mode), history.top.record.number + 1, actor_id(me, NS, nonce),
        "n", history.top.id, None, VOTERS[:1], "forced", "", {},
    )  # fmt: skip
    for voters, counts in ((VOTERS[:1], True), ((), False), ((me,), False)):
        terms, membership = told(history, random.Random(2))
        membership.add(make_actor(OWNER, NS, [], nonce))
        entry = make_term(OWNER, NS, [], replace(record, voters=voters))
        membership.add(entry)
        terms.changed()
        assert terms.top is not None
        assert (terms.top.id == entry_id(entry)) == counts
