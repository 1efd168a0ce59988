"""A placement is read as it was made, and only whoever may says where things are."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import limits, values
from syncengine.ids import DeviceId, NamespaceId, partition_of
from syncengine.trust.entry import InvalidEntry, Kind, entry_id, sign
from syncengine.trust.keys import StandIn
from syncengine.trust.membership import (
    OPS_BY_NAME,
    Membership,
    make_genesis,
    make_grant,
    namespace_id,
)
from syncengine.trust.placement import HubRecord, Placement, make_placement

KEY, OTHER = (StandIn().private_key(bytes([n]) * 32) for n in range(2))
ME, THEM = DeviceId(KEY.public), DeviceId(OTHER.public)
NS = NamespaceId(bytes(32))
HUBS = (
    HubRecord(DeviceId(b"\1" * 32), "ws://one", None, 1),
    HubRecord(DeviceId(b"\2" * 32), "wss://two", b"\3" * 16, 5),
)
PLACEMENT = Placement(ME, 3, 4, HUBS, b"\0\1\1\0")


def parsed(entry: Any) -> Any:
    return Membership(NS, StandIn()).parse(entry)[1]


def test_it_says_what_it_said() -> None:
    empty = dataclasses.replace(PLACEMENT, hubs=(), homes=b"")

    assert parsed(make_placement(KEY, NS, [], PLACEMENT)) == PLACEMENT
    assert parsed(make_placement(KEY, NS, [], empty)) == empty
    assert empty.home_of(NS) is None


@given(st.binary(min_size=32, max_size=32))
def test_a_namespace_is_at_home_where_its_partition_is(name: bytes) -> None:
    home = PLACEMENT.home_of(NamespaceId(name))

    assert home is not None
    assert partition_of(name, 4) in PLACEMENT.partitions_of(home.device)


def test_a_ticket_is_not_shown() -> None:
    assert "3" * 8 not in repr(HUBS[1]).replace("\\x03", "3")


@pytest.mark.parametrize(
    "wrong",
    [
        {"partitions": 3, "homes": b"\0\0\0"},
        {"partitions": 2 * limits.PARTITIONS_MAX},
        {"homes": b"\0\1\2\0"},
        {"homes": b"\0\1\1"},
        {"homes": b""},
        {"hubs": ()},
        {"hubs": (HUBS[0], HUBS[0])},
        {"hubs": (dataclasses.replace(HUBS[0], url="http://one"), HUBS[1])},
        {"hubs": (dataclasses.replace(HUBS[0], url="ws://" + "x" * 300), HUBS[1])},
        {"hubs": (dataclasses.replace(HUBS[0], weight=0), HUBS[1])},
        {"hubs": (dataclasses.replace(HUBS[0], ticket=b"short"), HUBS[1])},
        {"number": -1},
    ],
)
def test_one_that_breaks_a_rule_is_refused(wrong: dict[str, Any]) -> None:
    entry = make_placement(KEY, NS, [], dataclasses.replace(PLACEMENT, **wrong))

    with pytest.raises(InvalidEntry):
        parsed(entry)


@pytest.mark.parametrize("field", range(4, 8))
def test_a_field_of_another_type_is_refused(field: int) -> None:
    fields: list[Any] = values.decode(make_placement(KEY, NS, [], PLACEMENT).body)
    fields[field] = {"no": "such thing"}

    with pytest.raises(InvalidEntry):
        parsed(sign(KEY, Kind.PLACEMENT, fields))


def test_the_largest_fleet_fits_into_an_entry() -> None:
    many = limits.FLEET_HUBS_MAX
    hubs = tuple(
        HubRecord(
            DeviceId(bytes([n]) * 32),
            "ws://".ljust(limits.HUB_URL_BYTES_MAX, "x"),
            bytes(16),
            limits.HUB_WEIGHT_MAX,
        )
        for n in range(many)
    )
    homes = bytes(n % many for n in range(limits.PARTITIONS_MAX))
    largest = Placement(ME, 2**60, limits.PARTITIONS_MAX, hubs, homes)

    assert parsed(make_placement(KEY, NS, [], largest)) == largest


def test_the_highest_number_of_who_may_counts_whatever_came_first() -> None:
    genesis = make_genesis(KEY, [ME], bytes(16))
    name = namespace_id(genesis)
    grant = make_grant(
        KEY, name, [], parent=None, subject=THEM, ops=OPS_BY_NAME["write"], depth=1,
        nonce=bytes(16),
    )  # fmt: skip
    old, new, also_new = (
        dataclasses.replace(PLACEMENT, number=number, homes=homes)
        for number, homes in ((1, b"\0\0\0\0"), (2, b"\1\1\1\1"), (2, b"\0\1\0\1"))
    )
    entries = [make_placement(KEY, name, [], said) for said in (old, new, also_new)]
    stranger = dataclasses.replace(PLACEMENT, issuer=THEM, number=9)
    entries.append(make_placement(OTHER, name, [], stranger))
    least = min(entries[1:3], key=entry_id)
    wanted = (new, also_new)[entries[1:3].index(least)]

    for order in (entries, entries[::-1]):
        membership = Membership(name, StandIn())
        for entry in (genesis, grant, *order):
            membership.add(entry)
        assert membership.placement() == wanted
