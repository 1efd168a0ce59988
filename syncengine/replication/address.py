"""A listener's address: one string that says where it is and who it must be.

`wss://host[:port]/#<device id>[.<ticket>]`: the part behind `#` pins the hub's key
and, with its ticket, admits namespaces. It never goes over the wire as a URL.
"""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from syncengine.errors import Invalid
from syncengine.ids import DeviceId, base32, from_base32
from syncengine.trust.placement import HubRecord

TICKET_BYTES = 16


@dataclass(frozen=True)
class Address:
    """Where to dial, whom to expect there, and by which ticket to come in."""

    url: str
    device: DeviceId
    ticket: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        ticket = f".{base32(self.ticket)}" if self.ticket else ""
        return f"{self.url}/#{base32(self.device)}{ticket}"

    @property
    def without_ticket(self) -> str:
        """The address to hand on: it pins the hub and admits nothing."""
        return str(Address(self.url, self.device))


def parse_address(text: str) -> Address:
    """Return the address in `text`; raises `Invalid` saying what is wrong."""
    url, hash_, rest = text.strip().partition("#")
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise Invalid(f"an address begins with ws:// or wss://, not {text[:40]!r}")
    if not hash_:
        raise Invalid(
            "the address lacks the hub's id (the part behind '#'); copy the whole "
            "address that the hub printed"
        )
    device, _, ticket = rest.partition(".")
    try:
        key = from_base32(device)
        secret = from_base32(ticket) if ticket else None
    except ValueError as error:
        raise Invalid(
            "the hub's id in the address is damaged; copy it again"
        ) from error
    if len(key) != 32 or (secret is not None and len(secret) != TICKET_BYTES):
        raise Invalid("the hub's id in the address is cut off; copy it again")
    where = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return Address(where, DeviceId(key), secret)


def address_of(hub: HubRecord) -> Address:
    """Return where to dial a hub of a fleet."""
    return Address(hub.url, hub.device, hub.ticket)
