"""Archives: all of a namespace, history and signatures, in a file."""

import hashlib
import lzma
from pathlib import Path

import pytest

import syncengine
from syncengine import AlreadyExists, Document, Invalid, Refused, Text, values
from syncengine.log.segment import FILTERS
from tests.wires import meet, two_members


class Note(Document):
    title: str = ""
    body: Text = Text()


async def test_a_namespace_goes_through_a_file_with_its_history(tmp_path: Path) -> None:
    path = tmp_path / "home.archive"
    async with two_members() as (space, theirs):
        for number in range(300):
            async with space.transaction() as tx:
                tx.ensure(Note, "1").body.append(f"{number} ")
                tx[f"page/{number}"]["n"] = number
        await meet(space, theirs)
        async with theirs.transaction() as tx:
            tx.get(Note, "1").title = "theirs"
        await meet(space, theirs)
        count = await space.archive(path)
        with pytest.raises(AlreadyExists):
            await space.archive(path)
        versions = [c.id for c in await space.history(Note, "1", limit=3)]
        async with syncengine.open(":memory:") as other:
            copy = await other.unarchive(path, name="copy")
            assert (copy.id, copy.name) == (space.id, "copy")
            assert await copy.get(Note, "1") == await space.get(Note, "1")
            assert copy.collections() == space.collections()
            assert [c.id for c in await copy.history(Note, "1", limit=3)] == versions
            assert len(list(copy.engine.keeper.rows_after(0, 10_000))) == count
            assert not copy.is_member
            # Let in, it goes on where the archive ended.
            again = await other.join(await space.invite("write"), name="copy")
            async with again.transaction() as tx:
                tx.get(Note, "1").title = "of the copy"
            await meet(space, again)
            assert (await space.get(Note, "1")).title == "of the copy"


async def test_an_archive_brings_what_is_missing(tmp_path: Path) -> None:
    async with two_members() as (space, theirs):
        async with space.transaction() as tx:
            tx.create(Note, "1", title="new")
        await space.archive(tmp_path / "a")
        replica = theirs._replica  # pyright: ignore[reportPrivateUsage]
        assert await replica.unarchive(tmp_path / "a") is theirs
        assert (await theirs.get(Note, "1")).title == "new"
        await replica.unarchive(tmp_path / "a")


async def test_a_damaged_archive_is_refused_before_anything_is_taken(
    tmp_path: Path,
) -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "1", title="x" * 1000)
        await space.archive(tmp_path / "good")
        good = (tmp_path / "good").read_bytes()
        async with syncengine.open(":memory:") as other:
            damaged = good[:-40] + b"!" + good[-39:]
            wrong = (b"", b"x" * 100, good[:60], good[:-1], good + b"x", damaged)
            for number, bad in enumerate(wrong):
                path = tmp_path / str(number)
                path.write_bytes(bad)
                with pytest.raises(Invalid):
                    await other.unarchive(path, name="home")
            assert other.spaces() == []
            await other.namespace("taken")
            with pytest.raises(AlreadyExists):
                await other.unarchive(tmp_path / "good", name="taken")
            with pytest.raises(FileNotFoundError):
                await other.unarchive(tmp_path / "nowhere", name="home")
            copy = await other.unarchive(tmp_path / "good", name="home")
            with pytest.raises(Refused):
                async with copy.transaction() as tx:
                    tx.create(Note, "2")


async def test_large_changes_are_archived(tmp_path: Path) -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        for number in range(6):
            async with space.transaction() as tx:
                tx[f"page/{number}"]["x"] = bytes([number]) * 4_000_000
        await space.archive(tmp_path / "large")
        async with syncengine.open(":memory:") as other:
            copy = await other.unarchive(tmp_path / "large", name="home")
            assert (await copy.get("page/5"))["x"] == bytes([5]) * 4_000_000
            with pytest.raises(AlreadyExists, match="is here already, as 'home'"):
                await other.unarchive(tmp_path / "large", name="another")


async def test_an_archive_that_says_too_much_leaves_nothing(tmp_path: Path) -> None:
    bomb = lzma.compress(bytes(200 << 20), lzma.FORMAT_RAW, filters=FILTERS)
    for number, piece in enumerate(
        (values.encode([[], [bomb] * 10]), values.encode([[], []]), b"none")
    ):
        head = b"sync2:archive\0" + bytes(32)
        body = head + len(piece).to_bytes(4, "big") + piece + bytes(4)
        path = tmp_path / str(number)
        path.write_bytes(body + hashlib.sha256(body).digest())
        async with syncengine.open(":memory:") as other:
            with pytest.raises(Invalid):
                await other.unarchive(path, name="home")
            assert other.spaces() == []
