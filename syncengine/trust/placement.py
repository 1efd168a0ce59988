"""The entry that says which hub of a fleet keeps which namespaces.

A fleet is itself a namespace, whose members are its operator and its hubs. Namespaces
fall into partitions by a hash; a PLACEMENT says where each partition is at home. It is
a table rather than a hash of hubs: all share as evenly as can be, and what moves when a
hub comes or goes is what has to.
"""

from dataclasses import dataclass, field
from typing import Any

from syncengine import limits
from syncengine.errors import Invalid
from syncengine.ids import (
    DeviceId,
    EntryId,
    NamespaceId,
    check_partitions,
    partition_of,
)
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


@dataclass(frozen=True, slots=True)
class HubRecord:
    """One hub of a fleet."""

    device: DeviceId
    url: str
    ticket: bytes | None = field(repr=False)
    """Admits new namespaces; told to whoever showed another hub of the fleet its own"""
    weight: int = 1
    """Its share: a hub of weight 2 keeps twice as much as one of weight 1"""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each partition is at home."""

    issuer: DeviceId
    number: int
    """The highest counts; of several with one number that of the least id."""
    partitions: int
    hubs: tuple[HubRecord, ...]
    homes: bytes
    """For each partition the index of its hub; empty where there are no hubs"""

    def home_of(self, namespace: NamespaceId) -> HubRecord | None:
        """Return the hub that keeps a namespace; None where there are no hubs."""
        if not self.hubs:
            return None
        return self.hubs[self.homes[partition_of(namespace, self.partitions)]]

    def hub(self, device: DeviceId) -> HubRecord | None:
        """Return what is said of a hub."""
        return next((hub for hub in self.hubs if hub.device == device), None)

    def partitions_of(self, device: DeviceId) -> list[int]:
        """Return the partitions that are at home at a hub."""
        return [
            partition
            for partition, home in enumerate(self.homes)
            if self.hubs[home].device == device
        ]


def make_placement(
    key: PrivateKey, namespace: NamespaceId, heads: list[EntryId], said: Placement
) -> Entry:
    """Return the entry that says a placement; `key` is its issuer's."""
    hubs = [[hub.device, hub.url, hub.ticket, hub.weight] for hub in said.hubs]
    fields = [VERSION, namespace, key.public, heads]
    return sign(
        key, Kind.PLACEMENT, [*fields, said.number, said.partitions, hubs, said.homes]
    )


def parse_placement(issuer: DeviceId, rest: list[Any]) -> Placement:
    """Return what a PLACEMENT says; raises `ValueError`, `TypeError`, `IndexError`."""
    number, partitions, raw, homes = rest[:4]
    try:
        check_partitions(read_count(partitions))
    except Invalid as error:
        raise InvalidEntry(str(error)) from error
    hubs = tuple(_hub(*fields[:4]) for fields in raw)
    if len({hub.device for hub in hubs}) != len(hubs):
        raise InvalidEntry("a hub is in a fleet once")
    if len(hubs) > limits.FLEET_HUBS_MAX:
        raise InvalidEntry(f"a fleet has up to {limits.FLEET_HUBS_MAX} hubs")
    read_bytes(homes, partitions if hubs else 0)
    if any(home >= len(hubs) for home in homes):
        raise InvalidEntry("a partition is at home at a hub of the fleet")
    return Placement(issuer, read_count(number), partitions, hubs, homes)


def _hub(device: Any, url: Any, ticket: Any, weight: Any) -> HubRecord:
    if len(read_text(url).encode()) > limits.HUB_URL_BYTES_MAX:
        raise InvalidEntry("a hub's address is too long")
    if not url.startswith(("ws://", "wss://")):
        raise InvalidEntry("a hub's address begins with ws:// or wss://")
    if not 1 <= read_count(weight) <= limits.HUB_WEIGHT_MAX:
        raise InvalidEntry(f"a hub's weight is 1 to {limits.HUB_WEIGHT_MAX}")
    return HubRecord(
        DeviceId(read_bytes(device, 32)),
        url,
        None if ticket is None else read_bytes(ticket, 16),
        weight,
    )
