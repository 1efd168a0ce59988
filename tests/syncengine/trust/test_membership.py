"""Grants: chains from an owner; authority depends on the set of entries alone (S3)."""

import random
from dataclasses import replace
from typing import Any

import pytest

from syncengine import limits
from syncengine.ids import DeviceId
from syncengine.trust.entry import Entry, InvalidEntry, Pending, entry_id
from syncengine.trust.keys import StandIn
from syncengine.trust.membership import (
    EVERYTHING,
    OPS_BY_NAME,
    OPS_OWNER,
    Membership,
    allows,
    gives_more,
    make_actor,
    make_genesis,
    make_grant,
    namespace_id,
)

SCHEME = StandIn()
OWNER, ADMIN, WRITER, OTHER = (SCHEME.private_key(bytes([i]) * 32) for i in range(4))
GENESIS = make_genesis(OWNER, [OWNER.public], b"s" * 16)
NS = namespace_id(GENESIS)


def grant(
    key: Any, parent: Any, subject: Any, ops: int, depth: int, **more: Any
) -> Entry:
    return make_grant(
        key,
        NS,
        [],
        parent=parent,
        subject=DeviceId(subject.public),
        ops=ops,
        depth=depth,
        nonce=b"n" * 16,
        **more,
    )


ROOT = grant(OWNER, None, OWNER, OPS_OWNER, 7)
TO_ADMIN = grant(OWNER, entry_id(ROOT), ADMIN, OPS_BY_NAME["admin"], 6)
TO_WRITER = grant(ADMIN, entry_id(TO_ADMIN), WRITER, OPS_BY_NAME["write"], 5)


def test_a_chain_from_the_owner_grants() -> None:
    membership = Membership(NS, SCHEME)
    for entry in (GENESIS, ROOT, TO_ADMIN, TO_WRITER):
        membership.add(entry)

    assert membership.rights(entry_id(TO_WRITER)).subject == WRITER.public
    assert membership.grant_of(DeviceId(WRITER.public)) == entry_id(TO_WRITER)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_arrival_does_not_matter(seed: int) -> None:
    entries = [
        GENESIS,
        ROOT,
        TO_ADMIN,
        TO_WRITER,
        make_actor(WRITER, NS, [], b"a" * 16),
    ]
    random.Random(seed).shuffle(entries)
    membership = Membership(NS, SCHEME)
    for entry in entries:
        membership.add(entry)

    assert membership.rights(entry_id(TO_WRITER)).ops == OPS_BY_NAME["write"]
    assert list(membership.actors.values()) == [WRITER.public]


def test_a_grant_without_its_parent_grants_nothing_yet() -> None:
    membership = Membership(NS, SCHEME)
    membership.add(GENESIS)
    membership.add(TO_WRITER)
    with pytest.raises(Pending):
        membership.rights(entry_id(TO_WRITER))


WIDENED = {
    "more rights": grant(ADMIN, entry_id(TO_ADMIN), OTHER, OPS_OWNER, 5),
    "another issuer": grant(OTHER, entry_id(TO_ADMIN), OTHER, OPS_BY_NAME["read"], 5),
    "no admin": grant(WRITER, entry_id(TO_WRITER), OTHER, OPS_BY_NAME["read"], 4),
    "the same depth": grant(ADMIN, entry_id(TO_ADMIN), OTHER, OPS_BY_NAME["read"], 6),
    "no owner": grant(OTHER, None, OTHER, OPS_BY_NAME["read"], 7),
    "too deep": grant(OWNER, None, OTHER, OPS_BY_NAME["read"], 8),
    "an invite with admin": grant(
        ADMIN, entry_id(TO_ADMIN), OTHER, OPS_BY_NAME["admin"], 5,
        is_invite=True, uses=1,
    ),
    "an invite without uses": grant(
        ADMIN, entry_id(TO_ADMIN), OTHER, OPS_BY_NAME["read"], 5, is_invite=True
    ),
    "a bad signature": grant(
        ADMIN, entry_id(TO_ADMIN), OTHER, OPS_BY_NAME["read"], 5
    )._replace(signature=bytes(64)),
    "a flipped byte": TO_WRITER._replace(body=TO_WRITER.body[:-1] + b"\x01"),
    "another kind": TO_WRITER._replace(kind=4),
    "no MessagePack": Entry(2, b"\xc1", bytes(64)),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(WIDENED))
def test_an_illegal_entry_is_refused_and_forgotten(what: str) -> None:
    membership = Membership(NS, SCHEME)
    for entry in (GENESIS, ROOT, TO_ADMIN, TO_WRITER):
        membership.add(entry)
    before = membership.heads()
    with pytest.raises(InvalidEntry):
        membership.add(WIDENED[what])

    assert membership.heads() == before


def test_an_entry_has_a_size_and_so_many_heads_and_scopes() -> None:
    membership = Membership(NS, SCHEME)
    for entry in (GENESIS, ROOT):
        membership.add(entry)

    def granted(heads: int, scopes: int, prefix: str = "") -> Entry:
        return make_grant(
            OWNER, NS, [entry_id(GENESIS)] * heads, parent=entry_id(ROOT),
            subject=DeviceId(WRITER.public), ops=OPS_BY_NAME["write"], depth=6,
            nonce=b"n" * 16, scope=tuple(("note", f"{prefix}{n}") for n in range(scopes)),
        )  # fmt: skip

    membership.add(granted(limits.HEADS_MAX, limits.GRANT_SCOPES_MAX))
    with pytest.raises(InvalidEntry, match="at most 64 scopes"):
        membership.add(granted(1, limits.GRANT_SCOPES_MAX + 1))
    with pytest.raises(InvalidEntry, match="at most 16 ids"):
        membership.add(granted(limits.HEADS_MAX + 1, 1))
    with pytest.raises(InvalidEntry, match="too large"):
        membership.add(granted(1, 1, "x" * limits.ENTRY_BYTES_MAX))


@pytest.mark.parametrize(
    ("more", "gives"),
    [
        ({}, True),
        ({"expires_ms": 10**13}, False),
        ({"not_before_ms": 1}, False),
        ({"scope": (("note", ""),)}, False),
    ],
)
def test_a_grant_that_ends_gives_no_more_than_one_for_ever(
    more: dict[str, Any], gives: bool
) -> None:
    membership = Membership(NS, SCHEME)
    wide = grant(OWNER, entry_id(ROOT), WRITER, OPS_BY_NAME["admin"], 6)
    for entry in (GENESIS, ROOT, TO_ADMIN, TO_WRITER, wide):
        membership.add(entry)
    old, new = (membership.grants[entry_id(entry)] for entry in (TO_WRITER, wide))
    new = replace(new, **more)

    assert gives_more(new, old) is gives
    assert not gives_more(old, new)


def test_grants_are_handed_on_so_often() -> None:
    membership = Membership(NS, SCHEME)
    for entry in (GENESIS, ROOT):
        membership.add(entry)
    with pytest.raises(InvalidEntry, match="depth"):
        membership.add(
            grant(OWNER, entry_id(ROOT), OTHER, 1, limits.GRANT_DEPTH_MAX + 1)
        )


def test_a_genesis_of_another_namespace_is_refused() -> None:
    other = make_genesis(OTHER, [OTHER.public], b"t" * 16)
    with pytest.raises(InvalidEntry, match="another namespace"):
        Membership(NS, SCHEME).add(other)


def test_a_scope_is_a_collection_and_a_prefix() -> None:
    membership = Membership(NS, SCHEME)
    scoped = grant(
        OWNER,
        entry_id(ROOT),
        WRITER,
        OPS_BY_NAME["write"],
        6,
        scope=(("note", "2026-"),),
    )
    for entry in (GENESIS, ROOT, scoped):
        membership.add(entry)
    link = membership.rights(entry_id(scoped))

    assert allows(link, "note/2026-11")
    assert not allows(link, "note/2025-11")
    assert not allows(link, "page/2026-11")
    assert EVERYTHING == (("*", ""),)
