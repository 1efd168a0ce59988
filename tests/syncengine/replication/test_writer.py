"""The one task that commits: what fails is told, and the next commit is not harmed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from syncengine.replication.writer import Writer
from syncengine.storage.inline import InlineStore
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes


class Meta:
    """Writes one row of `_sync_meta`, or raises."""

    def __init__(self, key: str, error: Exception | None = None):
        self.key = key
        self.error = error
        self.became: list[Any] = []

    def ready_to_collect(self) -> bool:
        return True

    def collect(self, writes: Writes) -> str:
        if self.error is not None:
            raise self.error
        writes.add(sql.PUT_META, self.key, b"there")
        return "token"

    def committed(self, token: str) -> None:
        self.became.append(token)

    def failed(self, error: Exception) -> None:
        self.became.append(error)


async def test_an_error_while_collecting_is_told_to_all_who_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = InlineStore(str(tmp_path / "a.db"))
    writer = Writer(store)
    task = asyncio.create_task(writer.run())
    good, bad = Meta("good"), Meta("bad", KeyError("a bug"))
    waiting = [writer.flush(good), writer.flush(bad)]
    for future in waiting:
        with pytest.raises(KeyError, match="a bug"):
            await future
    assert good.became == bad.became == [bad.error]
    assert "a commit failed" in caplog.text

    await writer.flush(good)
    assert good.became[-1] == "token"
    writer.close()
    await task
    assert store.read("SELECT key FROM _sync_meta WHERE key IN ('good', 'bad')") == [
        ("good",)
    ]
    await store.close()
