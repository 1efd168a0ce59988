"""How long to wait before dialling again: exponential, with full jitter.

The first window is the widest in proportion: it is when all clients of a hub that
restarted come back at once.
"""

from syncengine import limits
from syncengine.clock import Entropy


class Backoff:
    """The waits between attempts of one link."""

    def __init__(self, entropy: Entropy):
        self._entropy = entropy
        self._attempt = 0

    def next_seconds(self, hint_ms: int = 0) -> float:
        """Return the next wait; never less than what the peer asked for."""
        window = min(
            limits.BACKOFF_SECONDS_MAX,
            limits.BACKOFF_FIRST_SECONDS * 2.0**self._attempt,
        )
        self._attempt = min(self._attempt + 1, 16)
        fraction = int.from_bytes(self._entropy.bytes(4), "big") / 2**32
        return max(hint_ms / 1000, 0.0) + window * fraction

    def reset(self) -> None:
        """The last connection was stable: begin anew."""
        self._attempt = 0
