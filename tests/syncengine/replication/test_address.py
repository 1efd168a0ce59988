"""Addresses: one string that pins the hub."""

import pytest

from syncengine.errors import Invalid
from syncengine.ids import DeviceId
from syncengine.replication.address import Address, parse_address

ADDRESS = Address("wss://hub.example:8765", DeviceId(b"d" * 32), b"t" * 16)


def test_an_address_can_be_read_back() -> None:
    assert parse_address(f"  {ADDRESS}\n") == ADDRESS


def test_handed_on_it_admits_nothing() -> None:
    assert parse_address(ADDRESS.without_ticket).ticket is None
    assert "tttt" not in repr(ADDRESS)


@pytest.mark.parametrize(
    "text",
    ["", "hub", "https://hub/#x", "wss://hub", "wss://hub/#", "wss://hub/#abc",
     str(ADDRESS)[:-3], "wss:///#" + "a" * 52, str(ADDRESS).replace("#", "#!")],
)  # fmt: skip
def test_what_is_no_address_says_what_is_wrong(text: str) -> None:
    with pytest.raises(Invalid):
        parse_address(text)
