"""A simulated disk: the real SQL on an in-memory SQLite, with waits and power loss.

A commit takes time, before and after the moment at which it happens, and the machine
may crash in either. A power loss takes back what SQLite had not been told to sync:
under `synchronous=FULL` nothing, under anything weaker all commits since the last
checkpoint.
"""

import asyncio
import random
from typing import Any

from syncengine.errors import Closed, StoreFull
from syncengine.storage.identity import MemoryIdentity
from syncengine.storage.inline import InlineStore
from syncengine.storage.opening import MEMORY
from syncengine.storage.store import QueryParams, SqlRow, Views, Writes
from syncengine.testing.loop import Life

# Weak syncing would checkpoint about as often as this many commits.
CHECKPOINT_COMMITS = 20

FULL = 2


class SimDisk:
    """What survives a machine's crashes: the file, and the folder beside it."""

    def __init__(self, seed: bytes, chance: random.Random):
        self.identity = MemoryIdentity(seed)
        self.store = InlineStore(MEMORY)
        self.chance = chance
        self.commits = 0
        self.full = False
        self.delay = 0.0
        """How long each sync takes more, in seconds: a disk that is about to fail"""
        self._synced: bytes | None = None
        self._tokens: list[bytes] = []

    def committed(self) -> None:
        self.commits += 1
        (level,) = self.store.connection.execute("PRAGMA synchronous").fetchone()
        if level >= FULL:
            self._synced = None  # every commit is safe: nothing to go back to
        elif self._synced is None or self.commits % CHECKPOINT_COMMITS == 0:
            self._synced = self.store.connection.serialize()

    def power_loss(self) -> None:
        """Lose what was not synced."""
        if self.store.connection.in_transaction:
            self.store.connection.execute("ROLLBACK")
        if self._synced is not None:
            self.store.connection.deserialize(self._synced)

    def image(self) -> tuple[bytes, list[bytes]]:
        """Return a backup of file and folder."""
        return self.store.connection.serialize(), self.identity.tokens()

    def restore(self, image: tuple[bytes, list[bytes]], *, with_folder: bool) -> None:
        """Put a backup of the file in its place (and of the folder too)."""
        self.store.connection.deserialize(image[0])
        if with_folder:
            self.identity.set_tokens(image[1])


class SimStore:
    """A store for one life of a machine: dead with it."""

    path = "simulated"

    def __init__(self, disk: SimDisk, life: Life, *, slow: float):
        self._disk = disk
        self._life = life
        self._slow = slow
        self._closed = False

    def read(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        self._check()
        return self._disk.store.read(sql, *params)

    async def query(self, views: Views, sql: str, params: QueryParams) -> list[SqlRow]:
        self._check()
        return await self._disk.store.query(views, sql, params)

    async def commit(self, writes: Writes) -> None:
        chance = self._disk.chance
        await asyncio.sleep(chance.expovariate(1 / self._slow) + self._disk.delay)
        self._check()
        if self._disk.full:
            raise StoreFull("the simulated disk is full; free some space")
        self._disk.store.commit_now(writes)
        self._disk.committed()
        await asyncio.sleep(chance.expovariate(1 / self._slow))

    async def backup(self, path: str) -> None:
        raise NotImplementedError("a simulated disk is backed up by `image`")

    async def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._life.over:
            raise AssertionError("a dead machine touched its disk")
        if self._closed:
            raise Closed("the simulated store is closed")
