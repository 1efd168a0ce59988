"""A pipeline within one process: for tests, and for nodes that share one."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from itertools import islice

from syncengine import limits
from syncengine.errors import Closed, Compacted, Fenced, PositionConflict
from syncengine.ids import check_partitions
from syncengine.storage.pipeline.contract import (
    NAME_BYTES_MAX,
    TOLD_WAITING_MAX,
    Ack,
    Entry,
    Pipeline,
    Token,
    owner_name,
)
from syncengine.system import SystemEntropy


class _Ears:
    """What somebody who listens has not heard yet."""

    def __init__(self) -> None:
        self.told: deque[tuple[bytes, bytes]] = deque(maxlen=TOLD_WAITING_MAX)
        self.came = asyncio.Event()


class _Partition:
    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.ids: dict[bytes, int] = {}
        self.last_of: dict[bytes, int] = {}
        self.first, self.last, self.epoch = 1, 0, 0
        self.grew = asyncio.Condition()
        self.listening: list[_Ears] = []

    def append(self, namespace: bytes, id: bytes, epoch: int, payload: bytes) -> int:
        self.last += 1
        self.entries[self.last] = Entry(self.last, namespace, id, epoch, payload)
        self.ids[id] = self.last_of[namespace] = self.last
        return self.last


class MemoryPipeline(Pipeline):
    """Entries in memory: whoever has the object publishes and follows. Durable for as
    long as that is."""

    def __init__(self, partitions: int = limits.PARTITIONS):
        check_partitions(partitions)
        self.partitions = partitions
        self.id = SystemEntropy().bytes(16)
        self._partitions = [_Partition() for _ in range(partitions)]
        self._closed = False

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
        self._check_open()
        self.check_entry(partition, namespace, id, payload, expect, token)
        to = self._partitions[partition]
        if id in to.ids:
            return Ack(to.ids[id], duplicate=True)
        last = to.last_of.get(namespace, 0)
        if expect is not None and expect != last:
            raise PositionConflict(expect, last)
        if token is not None and token.epoch != to.epoch:
            raise Fenced(token.epoch, to.epoch)
        epoch = 0 if token is None else token.epoch
        position = to.append(namespace, id, epoch, bytes(payload))
        await self._tell(to)
        return Ack(position, duplicate=False)

    async def take(self, partition: int, owner: str) -> Token:
        self._check_open()
        self.check_partition(partition)
        to, name = self._partitions[partition], owner_name(owner)
        to.epoch += 1
        fence = b"\0" * NAME_BYTES_MAX + b"%d" % to.epoch  # longer than anybody's
        position = to.append(b"", fence, to.epoch, name)
        await self._tell(to)
        return Token(partition, to.epoch, position)

    async def _tell(self, to: _Partition) -> None:
        async with to.grew:
            to.grew.notify_all()

    async def read(
        self,
        partition: int,
        after: int = 0,
        limit: int = 1000,
        namespace: bytes | None = None,
    ) -> list[Entry]:
        self._check_open()
        self.check_read(partition, after, limit, namespace)
        of = self._partitions[partition]
        if after + 1 < of.first:
            raise Compacted(of.first)
        behind = range(after + 1, of.last + 1)
        wanted = (
            entry
            for entry in map(of.entries.__getitem__, behind)
            if namespace is None or entry.namespace == namespace
        )
        return list(islice(wanted, limit))

    async def follow(
        self, partition: int, after: int = 0
    ) -> AsyncGenerator[Entry, None]:
        self.check_read(partition, after)
        of = self._partitions[partition]
        while not self._closed:
            entries = await self.read(partition, after)
            for entry in entries:
                yield entry
                after = entry.position
            if not entries:
                async with of.grew:
                    while of.last <= after and not self._closed:
                        await of.grew.wait()

    async def bounds(self, partition: int) -> tuple[int, int]:
        self._check_open()
        self.check_partition(partition)
        of = self._partitions[partition]
        return of.first, of.last

    async def truncate(self, partition: int, before: int) -> None:
        self._check_open()
        self.check_partition(partition)
        of = self._partitions[partition]
        before = min(before, of.last + 1)
        for position in range(of.first, before):
            del of.ids[of.entries.pop(position).id]
        of.first = max(of.first, before)

    async def tell(self, partition: int, namespace: bytes, payload: bytes) -> None:
        self._check_open()
        self.check_told(partition, namespace, payload)
        for ears in self._partitions[partition].listening:
            ears.told.append((bytes(namespace), bytes(payload)))
            ears.came.set()

    async def listen(self, partition: int) -> AsyncGenerator[tuple[bytes, bytes], None]:
        self.check_partition(partition)
        ears, all_ = _Ears(), self._partitions[partition].listening
        all_.append(ears)
        try:
            while not self._closed:
                while ears.told:
                    yield ears.told.popleft()
                ears.came.clear()
                await ears.came.wait()
        finally:
            all_.remove(ears)

    async def close(self) -> None:
        self._closed = True
        for one in self._partitions:
            await self._tell(one)
            for ears in one.listening:
                ears.came.set()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this pipeline is closed")
