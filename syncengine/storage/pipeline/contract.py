"""What every pipeline keeps, whatever carries it: `tests/suites/test_pipeline.py`.

A pipeline is a fixed number of partitions; each namespace belongs to one, by a hash.
Within a partition entries have one order for everybody, in positions that grow (and
may leave gaps). An acknowledged entry survives. Publishing twice with one id stores
once, as long as the first one is kept.

What is *told* is for those who listen at that moment, and is kept nowhere: heartbeats
are no entries.

A *token* fences: whoever takes a partition makes every earlier token worthless, and who
holds one of these stores nothing any more, however late it wakes up. Readers see each
taking in the order of entries, so that they can judge the same by themselves: an entry
with an epoch below the highest taken before it is void.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import NamedTuple, Self

from syncengine import limits
from syncengine.errors import Invalid, TooLarge
from syncengine.ids import partition_of
from syncengine.values import check_count

# One entry. What is larger goes in several, or by a name of where it is.
ENTRY_BYTES_MAX = 1 << 20

NAME_BYTES_MAX = 256

# What is told at once: a heartbeat has some hundred bytes.
TOLD_BYTES_MAX = 64 * limits.KIB

# What a slow listener has not heard yet: the newest say all.
TOLD_WAITING_MAX = 256


class Entry(NamedTuple):
    """One entry of a partition. `epoch` is that of the token it was published with, 0
    without one. A taking of the partition has no namespace, and who took it as
    payload."""

    position: int
    namespace: bytes
    id: bytes
    epoch: int
    payload: bytes

    @property
    def is_fence(self) -> bool:
        return not self.namespace


class Ack(NamedTuple):
    """Where an entry is stored; `duplicate`: it was there already."""

    position: int
    duplicate: bool


class Token(NamedTuple):
    """The right to publish to a partition, until somebody else takes it."""

    partition: int
    epoch: int
    position: int


def owner_name(owner: str) -> bytes:
    """Return who takes a partition as its entry has it; raises `Invalid`."""
    try:
        return owner.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{owner!r} is no name: {error}") from None


class Pipeline(ABC):
    """What carries entries between nodes."""

    partitions: int
    id: bytes
    """Made with it, at random: a position in one says nothing about another"""

    @abstractmethod
    async def publish(
        self,
        partition: int,
        namespace: bytes,
        id: bytes,
        payload: bytes,
        *,
        expect: int | None = None,
        token: Token | None = None,
    ) -> Ack:
        """Store an entry, on disk when this returns.

        `expect` is the position of the last entry of the namespace (0: none), else
        `PositionConflict`; with `token`, `Fenced` when somebody took the partition
        since. One condition at most. Raises `TooLarge`, `Invalid`, `OutcomeUnknown`
        (publish again with the same id). Cancelled, it is stored or not.
        """

    @abstractmethod
    async def take(self, partition: int, owner: str) -> Token:
        """Take a partition: tokens that were given before are worth nothing."""

    @abstractmethod
    async def read(
        self,
        partition: int,
        after: int = 0,
        limit: int = 1000,
        namespace: bytes | None = None,
    ) -> list[Entry]:
        """Return up to `limit` entries behind a position, in order; with `namespace`,
        its own alone. Raises `Compacted` when some between are not kept any more."""

    @abstractmethod
    def follow(self, partition: int, after: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield what is behind a position, then what comes: no gap, and none twice.
        Raises as `read` does. Leave it to stop."""

    @abstractmethod
    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return (position of the first that is kept, of the last that ever was)."""

    @abstractmethod
    async def truncate(self, partition: int, before: int) -> None:
        """Keep nothing before a position. What the last of a namespace was is known
        all the same."""

    @abstractmethod
    async def tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        """Tell those who listen now; it may be lost, and is no entry. Raises
        `TooLarge`, `Invalid`."""

    @abstractmethod
    def listen(self, partition: int) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Yield (namespace, payload) of what is told from now on, also by oneself. Who
        is slow misses the oldest. Leave it to stop."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it. Who follows is at the end; twice does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def partition_of(self, namespace: bytes) -> int:
        return partition_of(namespace, self.partitions)

    def check_partition(self, partition: int) -> None:
        if type(partition) is not int or not 0 <= partition < self.partitions:
            raise Invalid(
                f"there are {self.partitions} partitions, and no {partition!r}",
                bound=self.partitions,
            )

    def check_read(
        self, partition: int, after: int, limit: int = 1, namespace: object = None
    ) -> None:
        """Raise what is wrong with a request for entries."""
        self.check_partition(partition)
        check_count(after, "after", least=0, most=limits.INT_MAX)
        check_count(limit, "limit", most=limits.INT_MAX)
        if namespace is not None:
            _check_bytes("a namespace", namespace)

    def check_told(self, partition: int, namespace: bytes, payload: bytes) -> None:
        """Raise what is wrong with what is to be told."""
        self.check_partition(partition)
        _check_bytes("a namespace", namespace)
        _check_bytes("a payload", payload)
        if len(payload) > TOLD_BYTES_MAX:
            raise TooLarge(
                f"at most {TOLD_BYTES_MAX} bytes are told, not {len(payload)}",
                bound=TOLD_BYTES_MAX,
            )

    def check_entry(
        self,
        partition: int,
        namespace: bytes,
        id: bytes,
        payload: bytes,
        expect: int | None,
        token: Token | None,
    ) -> None:
        """Raise what is wrong with an entry, before anything is stored."""
        self.check_partition(partition)
        _check_bytes("a payload", payload)
        if expect is not None:
            check_count(expect, "expect", least=0, most=limits.INT_MAX)
        for what, name in (("a namespace", namespace), ("an id", id)):
            _check_bytes(what, name)
            if not 0 < len(name) <= NAME_BYTES_MAX:
                raise Invalid(
                    f"{what} has 1 to {NAME_BYTES_MAX} bytes, not {len(name)}",
                    bound=NAME_BYTES_MAX,
                )
        if len(payload) > ENTRY_BYTES_MAX:
            raise TooLarge(
                f"an entry has at most {ENTRY_BYTES_MAX} bytes, not {len(payload)}; "
                "publish it in several",
                bound=ENTRY_BYTES_MAX,
            )
        if expect is not None and token is not None:
            raise Invalid("an entry has one condition: expect, or a token")
        if token is not None and token.partition != partition:
            raise Invalid(
                f"the token is of partition {token.partition}, not of {partition}"
            )


def _check_bytes(what: str, given: object) -> None:
    if not isinstance(given, bytes | bytearray):
        raise Invalid(f"{what} is bytes, not {type(given).__name__}")
