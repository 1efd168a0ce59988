"""Who may open another connection: bounds for each address (of IPv6: each /64),
before anybody is known.

Behind a proxy all connections come from it: there the proxy has to do this. Loopback
is not bounded, since whoever is there has the machine anyway.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from syncengine import limits


@dataclass(slots=True)
class _Visitor:
    open: int = 0
    tokens: float = limits.ADDRESS_UPGRADES_BURST
    tokens_at: float = 0.0
    failures: int = 0
    failures_since: float = 0.0
    refused_until: float = 0.0

    def takes(self, now: float, per_second: float, burst: float) -> bool:
        """Take one token of a bucket that fills with time; tell whether there was."""
        self.tokens = min(burst, self.tokens + (now - self.tokens_at) * per_second)
        self.tokens_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Guard:
    """Counts what each address does. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]):
        self._now = now
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()
        self._all = _Visitor(tokens=limits.UPGRADES_PER_SECOND, tokens_at=now())
        self.open = 0
        """Connections of all addresses, upgraded or not."""

    def enter(self, address: str) -> bool:
        """Count a connection, and tell whether it may stay; `leave` follows always."""
        self.open += 1
        visitor = self._visitor(_who(address))
        visitor.open += 1
        if is_loopback(address):
            return True
        now = self._now()
        if visitor.refused_until > now or not (
            visitor.takes(
                now, limits.ADDRESS_UPGRADES_PER_SECOND, limits.ADDRESS_UPGRADES_BURST
            )
            and self._all.takes(
                now, limits.UPGRADES_PER_SECOND, limits.UPGRADES_PER_SECOND
            )
        ):
            return False
        return visitor.open <= limits.CONNECTIONS_PER_ADDRESS_MAX

    def leave(self, address: str) -> None:
        """A connection that was counted is gone."""
        self.open -= 1
        visitor = self._visitors.get(_who(address))
        if visitor is not None:
            visitor.open = max(0, visitor.open - 1)

    def failed(self, address: str) -> None:
        """Somebody there could not prove who they are."""
        visitor, now = self._visitor(_who(address)), self._now()
        if now - visitor.failures_since > limits.AUTH_FAILURES_SECONDS:
            visitor.failures, visitor.failures_since = 0, now
        visitor.failures += 1
        if visitor.failures >= limits.AUTH_FAILURES_MAX:
            visitor.refused_until = now + limits.AUTH_REFUSED_SECONDS

    def _visitor(self, address: str) -> _Visitor:
        visitor = self._visitors.get(address)
        if visitor is None:
            visitor = self._visitors[address] = _Visitor(tokens_at=self._now())
        self._visitors.move_to_end(address)
        if len(self._visitors) > limits.ADDRESSES_KEPT_MAX:
            self._visitors.popitem(last=False)
        return visitor


def _who(address: str) -> str:
    """Return whose address it is: with IPv6 everybody has 2**64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
