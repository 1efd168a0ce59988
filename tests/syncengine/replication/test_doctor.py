"""The doctor finds what is wrong, and nothing where nothing is."""

# pyright: reportPrivateUsage=false

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import syncengine
from syncengine import Replica, Space
from syncengine.errors import NotOurs
from syncengine.ids import DeviceId
from syncengine.protocol.messages import Notice, Refusal, StateDigest
from syncengine.replication.doctor import Finding, examine
from syncengine.system import SystemClock, SystemEntropy
from syncengine.trust.keys import ED25519
from tests.wires import Wire


class Deaf:
    device = DeviceId(bytes(32))

    def tell(self, message: StateDigest | Notice) -> None:
        """Nobody is there."""

    def dismiss(self, refusal: Refusal) -> None:
        """The same."""


async def make(path: Path) -> None:
    """Write a file with sealed batches, an outbox, texts and lists."""
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home")
        engine = space.engine
        for number in range(6):
            # As with a link, until the fourth: changes are sealed.
            engine.channels = [Deaf()] if number < 4 else []
            async with space.transaction() as tx:
                page = tx[f"note/{number % 2}"]
                page["title"] = f"title {number}"
                page.text("body").insert(0, f"line {number}\n")
                page.list("items").append({"n": number})
        engine.channels = []


async def findings(path: Path) -> list[Finding]:
    return await examine(str(path), entropy=SystemEntropy(), scheme=ED25519)


async def test_a_file_in_which_nothing_is_written_yet_is_clean(tmp_path: Path) -> None:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        await replica.namespace("home")

    assert await findings(tmp_path / "a.db") == []


async def test_a_healthy_file_is_clean(tmp_path: Path) -> None:
    await make(tmp_path / "a.db")

    assert await findings(tmp_path / "a.db") == []


DAMAGES: dict[str, tuple[str, str]] = {
    "flipped byte in a batch": (
        "UPDATE _sync_log SET body = CAST(substr(body, 1, 40) || x'00' || "
        "substr(body, 42) AS BLOB) WHERE position = 5",
        "not what its id says|damaged",
    ),
    "deleted batch": ("DELETE FROM _sync_log WHERE position = 5", "missing"),
    "deleted newest batch": (
        "DELETE FROM _sync_log WHERE position = (SELECT max(position) FROM _sync_log)",
        "should reach row|frontier",
    ),
    "edited projection": (
        "UPDATE _sync_cell SET state = (SELECT state FROM _sync_cell WHERE "
        "key = CAST('ktitle' AS BLOB) AND document = 1) "
        "WHERE key = CAST('ktitle' AS BLOB) AND document = 2",
        "does not show what its log says",
    ),
    "edited frontier": (
        "UPDATE _sync_actor SET applied = applied - 1",
        "applied frontier",
    ),
    "edited stored frontier": (
        "UPDATE _sync_head SET seq = seq + 1",
        "stored frontier",
    ),
    "edited membership": (
        "UPDATE _sync_log SET signature = zeroblob(64) WHERE kind = 2",
        "membership entry is damaged",
    ),
    **{
        f"edited {column}": (
            f"UPDATE _sync_document SET {column} = {value} WHERE document = 1",
            "does not show what its log says",
        )
        for column, value in {
            "visible": "0",
            "upgrade": "1",
            "digest": "zeroblob(32)",
            "touches": "x'90'",
        }.items()
    },
    "edited seen": ("UPDATE _sync_actor SET seen = x'9192c4016101'", "frontier"),
    "edited stamp": ("UPDATE _sync_actor SET hlc = hlc + 1", "applied frontier"),
    "next name given": ("UPDATE _sync_namespace SET next_seq = 1", "name twice"),
    "clock set back": ("UPDATE _sync_namespace SET hlc = 1", "name twice"),
    "edited chain": (
        "UPDATE _sync_log SET chain = zeroblob(8) WHERE position = 5",
        "what stands before it",
    ),
    "edited index": (
        "UPDATE _sync_log SET last_seq = last_seq + 1 WHERE position = 5",
        "not what its header says",
    ),
    "damaged outbox": ("UPDATE _sync_outbox SET change = x'00'", "not sent yet"),
    "removed signature": (
        "UPDATE _sync_log SET signature = x'' WHERE position = "
        "(SELECT max(position) FROM _sync_log)",
        "without a signature",
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
async def test_each_damage_is_found_by_name(tmp_path: Path, damage: str) -> None:
    import re

    path = tmp_path / "a.db"
    await make(path)
    statement, expected = DAMAGES[damage]
    connection = sqlite3.connect(path)
    assert connection.execute(statement).rowcount > 0
    connection.commit()
    connection.close()

    found = await findings(path)
    assert any(re.search(expected, finding.what) for finding in found), found
    assert all(finding.remedy for finding in found)


Surgery = Callable[[Path], None]


async def test_a_missing_key_is_found(tmp_path: Path) -> None:
    await make(tmp_path / "a.db")
    (tmp_path / "a.db-sync" / "device.key").unlink()
    (found,) = await findings(tmp_path / "a.db")

    assert "key is missing" in found.what


async def test_a_foreign_file_is_said_to_be_one(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(NotOurs):
        await findings(tmp_path / "x.db")


async def test_what_waits_for_its_time_is_no_finding(tmp_path: Path) -> None:
    """Stamped ahead, stored, not applied: not then, nor when its time has come."""
    path = tmp_path / "a.db"
    async with (
        syncengine.open(str(path)) as replica,
        syncengine.open(":memory:") as fast,
    ):
        space = await replica.namespace("home")
        await make_member(space, fast)
        theirs = fast.spaces()[0]
        theirs.engine.clock.last = theirs.engine.clock.tick() + (120_000 << 16)
        async with theirs.transaction() as tx:
            tx["note/ahead"]["n"] = 1
        async with Wire(replica).link(fast) as link:
            await link.synced()
        assert space.engine.delivery.waiting_count == 1
        assert await findings(path) == []
    with pytest.MonkeyPatch.context() as patch:
        later = SystemClock().now_ms() + 600_000

        def now_ms(_: SystemClock) -> int:
            return later

        patch.setattr(SystemClock, "now_ms", now_ms)
        assert await findings(path) == []


async def make_member(space: Space, other: Replica) -> None:
    await other.join(await space.invite("write"), name="home")
    async with Wire(space._replica).link(other) as link:
        await link.synced()


async def test_a_file_that_is_written_to_meanwhile_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home")
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                async with space.transaction() as tx:
                    tx[f"note/{number % 5}"].text("body").append("x")

        writing = asyncio.create_task(write())
        for _ in range(20):
            await asyncio.sleep(0.005)
            assert await asyncio.to_thread(asyncio.run, findings(path)) == []
        stop.set()
        await writing


async def test_a_file_that_was_cut_off_is_told(tmp_path: Path) -> None:
    await make(tmp_path / "a.db")
    with open(tmp_path / "a.db", "r+b") as file:
        file.truncate(5000)
    (found,) = await findings(tmp_path / "a.db")

    assert "cannot be read" in found.what


async def test_torn_pages_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    raw = bytearray(path.read_bytes())
    for at in range(8192, len(raw), 4096):
        raw[at : at + 200] = bytes(200)
    path.write_bytes(raw)

    assert await findings(path) != []
