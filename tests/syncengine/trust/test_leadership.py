"""Entries by which a namespace gets a leader are read as they were made."""

import dataclasses
from typing import Any

import pytest

from syncengine import limits, values
from syncengine.ids import ActorId, BatchId, DeviceId, EntryId, NamespaceId
from syncengine.trust.entry import InvalidEntry, Kind, sign
from syncengine.trust.keys import StandIn
from syncengine.trust.leadership import (
    ModeRecord,
    TermRecord,
    majority,
    make_mode,
    make_term,
)
from syncengine.trust.membership import Membership

KEY = StandIn().private_key(bytes(32))
ME = DeviceId(KEY.public)
NS = NamespaceId(bytes(32))
MODE = ModeRecord(
    ME, 1, True, (ME,), {ActorId(bytes(16)): (3, BatchId(bytes(32)))}, None
)
TERM = TermRecord(
    ME, EntryId(b"\1" * 32), 2, ActorId(bytes(16)), "node", EntryId(bytes(32)),
    (7, BatchId(b"\2" * 32)), (ME,), "elected", "why", {ME: bytes(64)},
)  # fmt: skip


def parsed(entry: Any) -> Any:
    return Membership(NS, StandIn()).parse(entry)[1]


def test_they_say_what_they_said() -> None:
    closed = dataclasses.replace(MODE, has_leader=False, closed=(EntryId(bytes(32)), 9))

    assert parsed(make_mode(KEY, NS, [], MODE)) == MODE
    assert parsed(make_mode(KEY, NS, [], closed)) == closed
    assert parsed(make_term(KEY, NS, [], TERM)) == TERM


@pytest.mark.parametrize(
    "wrong",
    [
        {"how": "by force"},
        {"number": 0},
        {"number": -1},
        {"base": (0, BatchId(bytes(32)))},
        {"node": "x" * (limits.KEY_BYTES_MAX + 1)},
        {"voters": (ME, ME)},
        {"voters": tuple(bytes([n]) * 32 for n in range(limits.VOTERS_MAX + 1))},
        {"votes": {ME: b"short"}},
        {"actor": b"short"},
    ],
)
def test_a_term_that_breaks_a_rule_is_refused(wrong: dict[str, Any]) -> None:
    entry = make_term(KEY, NS, [], dataclasses.replace(TERM, **wrong))

    with pytest.raises(InvalidEntry):
        parsed(entry)


@pytest.mark.parametrize("field", range(4, 14))
@pytest.mark.parametrize("kind", [Kind.MODE, Kind.TERM])
def test_a_field_of_another_type_is_refused(kind: Kind, field: int) -> None:
    made = make_mode(KEY, NS, [], MODE) if kind == Kind.MODE else make_term(
        KEY, NS, [], TERM
    )  # fmt: skip
    fields: list[Any] = values.decode(made.body)
    if field >= len(fields):
        return
    fields[field] = {"no": "such thing"}

    with pytest.raises(InvalidEntry):
        parsed(sign(KEY, kind, fields))


def test_a_majority_is_more_than_half() -> None:
    voters = [DeviceId(bytes([n]) * 32) for n in range(5)]

    assert [majority(tuple(voters[:n])) for n in range(6)] == [0, 1, 2, 2, 3, 3]
