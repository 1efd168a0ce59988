"""Branches: edited apart, compared, merged as the work of one who was away."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import syncengine
import syncengine.blocking
import transport
from syncengine import (
    AlreadyExists,
    Counter,
    Document,
    Invalid,
    List,
    MarkRange,
    NotFound,
    Refused,
    Replica,
    Set,
    Space,
    StoreFull,
    Text,
    TooLarge,
    TransactionClosed,
    TransactionOpen,
    Tree,
    limits,
)
from syncengine.replication.replica import Opening
from syncengine.storage.store import Writes
from syncengine.system import SystemEntropy
from tests.wires import meet, two_members


class Note(Document):
    title: str = ""
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    body: Text = Text()
    outline: Tree[Any] = Tree()


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncGenerator[Replica]:
    async with syncengine.open(tmp_path / "a.db") as replica:
        yield replica


@pytest.fixture
async def space(replica: Replica) -> Space:
    space = await replica.namespace("home")
    async with space.transaction() as tx:
        note = tx.create(Note, "1", title="first", body="hello world")
        note.todo.extend(["a", "b", "c"])
        note.likes += 1
    return space


async def test_what_is_done_in_a_branch_shows_there_alone(space: Space) -> None:
    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        tx.get(Note, "1").body.append("!")
        tx.create(Note, "2")
    async with space.transaction() as tx:
        tx.get(Note, "1").title = "second"

    assert str((await branch.get(Note, "1")).body) == "hello world!"
    assert (await branch.get(Note, "1")).title == "first"
    assert str((await space.get(Note, "1")).body) == "hello world"
    assert await space.get(Note, "2", None) is None
    assert branch.documents() == ["note/1", "note/2"]
    assert await branch.get("note/3", default=None) is None
    with pytest.raises(NotFound, match="draft"):
        await branch.get("note/3")


async def test_a_merge_keeps_what_both_sides_did(space: Space) -> None:
    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        note = tx.get(Note, "1")
        note.body.insert(5, ", dear")
        note.body.mark(0, 5, "bold")
        note.todo.move(0, 2)
        note.likes += 10
        note.tags.add("kept")
        note.outline.add({"text": "root"})
    async with space.transaction() as tx:
        note = tx.get(Note, "1")
        note.body.delete(5, 6)
        note.todo[0] = "A"
        note.likes += 100
    receipt = await branch.merge()
    note = await space.get(Note, "1")

    assert str(note.body) == "hello, dear"
    assert note.body.marks() == [MarkRange(0, 5, "bold", True)]
    assert list(note.todo) == ["b", "c", "A"]
    assert note.likes == 111
    assert list(note.tags) == ["kept"]
    assert [node.value["text"] for node in note.outline] == ["root"]
    assert not receipt.pending
    assert space.branches() == []


async def test_a_merge_is_what_a_device_that_was_away_would_have_brought() -> None:
    """The same edits, in a branch and on a device without a link: one outcome."""

    def edit(note: Note, seed: int) -> None:
        chance = Random(seed)
        for _ in range(12):
            length = len(note.body)
            at = chance.randint(0, length)
            what = chance.choice(("type", "delete", "list", "move", "count", "tag"))
            if what == "type":
                note.body.insert(at, chance.choice("xyz") * 3)
            elif what == "delete" and at < length:
                note.body.delete(at, min(4, length - at))
            elif what == "list":
                index = chance.randint(0, len(note.todo))
                note.todo.insert(index, str(chance.random()))
            elif what == "move":
                count = len(note.todo)
                note.todo.move(chance.randrange(count), chance.randrange(count))
            elif what == "count":
                note.likes += chance.randint(1, 9)
            else:
                note.tags.add(chance.choice("pqrs"))

    def shown(note: Note) -> Any:
        # Which of two that were inserted at one place stands first is by author.
        plain = note.to_dict()
        return {**plain, "body": sorted(plain["body"]), "todo": sorted(plain["todo"])}

    async def outcome(seed: int, *, in_branch: bool) -> Any:
        async with two_members() as (one, other):
            async with one.transaction() as tx:
                note = tx.create(Note, "1", body="a line of text\n" * 3)
                note.todo.extend("abcdef")
            await meet(one, other)
            branch = await one.fork("draft")
            away = branch if in_branch else other
            for step in range(3):
                async with away.transaction() as tx:
                    edit(tx.get(Note, "1"), seed + step)
                async with one.transaction() as tx:
                    edit(tx.get(Note, "1"), seed + step + 1000)
            if in_branch:
                await branch.merge()
            await meet(one, other)
            await meet(other, one)
            found = [shown(await each.get(Note, "1")) for each in (one, other)]
            assert found[0] == found[1]
            return found[0]

    for seed in range(0, 60, 10):
        assert await outcome(seed, in_branch=True) == await outcome(
            seed, in_branch=False
        )


async def test_branches_outlive_the_program(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "1", body="hello")
        branch = await space.fork("draft")
        async with branch.transaction("once") as tx:
            tx.get(Note, "1").body.append(" there")
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        assert space.branches() == ["draft"]
        branch = await space.branch("draft")
        async with branch.transaction("once") as tx:
            assert tx.repeated
            tx.get(Note, "1").body.append(" twice")
        async with branch.transaction() as tx:
            tx.get(Note, "1").body.append("!")
        assert str((await branch.get(Note, "1")).body) == "hello there!"
        await branch.merge()
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        assert space.branches() == []
        assert str((await space.get(Note, "1")).body) == "hello there!"


async def test_two_branches_are_merged_one_after_the_other() -> None:
    async with two_members() as (one, other):
        async with one.transaction() as tx:
            tx.create(Note, "1", body="middle")
        left, right = await one.fork("left"), await one.fork("right")
        async with left.transaction() as tx:
            tx.get(Note, "1").body.insert(0, "left ")
        async with right.transaction() as tx:
            tx.get(Note, "1").body.append(" right")
        await left.merge()
        await right.merge()
        await meet(one, other)
        for space in (one, other):
            assert str((await space.get(Note, "1")).body) == "left middle right"
        assert await one.undoing(Note, "1").undo()
        assert str((await one.get(Note, "1")).body) == "left middle"
        authors = {change.author for change in await other.history(Note, "1")}
        assert len(authors) == 1  # branches are a device's own


async def test_what_cannot_be_done_says_why_and_changes_nothing(space: Space) -> None:
    branch = await space.fork("draft")
    with pytest.raises(AlreadyExists):
        await space.fork("draft")
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(Invalid):
            await space.fork(name)
    with pytest.raises(NotFound):
        await space.branch("other")
    with pytest.raises(RuntimeError):
        async with branch.transaction() as tx:
            tx.get(Note, "1").title = "never"
            raise RuntimeError
    with pytest.raises(TooLarge):
        async with branch.transaction() as tx:
            tx["page/1"]["x"] = "x" * (limits.CHANGE_BYTES_MAX + 1)
    async with branch.transaction() as tx:
        draft = tx.get(Note, "1")
        draft.title = "open"
        assert (await branch.get(Note, "1")).title == "first"
        with pytest.raises(TransactionOpen):
            async with branch.transaction():
                pass
    with pytest.raises(Invalid, match="merged"):
        await tx.receipt.durable_on("any")
    async with space.transaction():
        with pytest.raises(TransactionOpen):
            await branch.merge()
    await branch.discard()
    for use in (branch.get("note/1"), branch.merge(), branch.discard()):
        with pytest.raises(NotFound, match="discarded"):
            await use
    with pytest.raises(NotFound):
        async with branch.transaction():
            pass
    assert space.branches() == []
    assert (await space.get(Note, "1")).title == "first"
    assert await space.get("page/1", default=None) is None


async def test_nothing_is_merged_where_nothing_was_done(space: Space) -> None:
    branch = await space.fork("draft")
    version = space.version
    await branch.merge()

    assert space.version == version
    assert space.branches() == []


async def test_a_full_disk_leaves_the_branch_as_it_was(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = space.engine.writer.store
    commit = store.commit

    async def full(writes: Writes) -> None:
        raise StoreFull("no space")

    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        tx.get(Note, "1").title = "kept"
    lost: Any = None
    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(StoreFull):
        async with branch.transaction() as tx:
            lost = tx.get(Note, "1")
            lost.title = "lost"
    with pytest.raises(TransactionClosed):
        str(lost.title)
    with pytest.raises(StoreFull):
        await branch.merge()
    monkeypatch.setattr(store, "commit", commit)
    assert space.branches() == ["draft"]
    assert (await branch.get(Note, "1")).title == "kept"
    assert (await space.get(Note, "1")).title == "first"
    await branch.merge()
    assert (await space.get(Note, "1")).title == "kept"


async def test_a_merge_that_is_cancelled_happens_once(space: Space) -> None:
    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        tx.get(Note, "1").likes += 10
    merging = asyncio.create_task(branch.merge())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    merging.cancel()
    await asyncio.gather(merging, return_exceptions=True)
    await asyncio.sleep(0.05)
    if space.branches():
        await branch.merge()
    await space.engine.flush()

    assert (await space.get(Note, "1")).likes == 11
    assert space.branches() == []


def test_branches_without_a_loop(tmp_path: Path) -> None:
    with syncengine.blocking.open(tmp_path / "a.db") as replica:
        space = replica.namespace("home")
        with space.transaction() as tx:
            tx.create(Note, "1", body="hello")
        branch = space.fork("draft")
        with branch.transaction() as tx:
            tx.get(Note, "1").body.append("!")
        held = branch.get(Note, "1")
        assert space.branch("draft").documents() == branch.documents() == ["note/1"]
        assert branch.diff(Note, "1")
        assert branch.base.startswith("v.")
        branch.merge()
        space.fork("other").discard()
        assert space.branches() == []
        assert str(held.body) == str(space.get(Note, "1").body) == "hello!"


async def test_all_handles_of_a_branch_are_one(space: Space) -> None:
    one = await space.fork("draft")
    two = await space.branch("draft")
    async with one.transaction() as tx:
        tx.get(Note, "1").body.append("!")
    assert str((await two.get(Note, "1")).body) == "hello world!"
    async with two.transaction() as tx:
        tx.get(Note, "1").body.append("?")
    await one.merge()
    with pytest.raises(NotFound, match="merged"):
        await two.merge()
    assert str((await space.get(Note, "1")).body) == "hello world!?"
    found = await asyncio.gather(
        space.fork("z"), space.fork("z"), return_exceptions=True
    )
    assert sum(isinstance(one, AlreadyExists) for one in found) == 1


async def test_nothing_of_a_discarded_branch_is_in_the_next_one(space: Space) -> None:
    old = await space.fork("draft")
    async with space.transaction(wait=False) as tx:
        tx.get(Note, "1").body.append(".")
    async with old.transaction(wait=False) as tx:
        tx.get(Note, "1").body.append(" OLD")
    await old.discard()
    new = await space.fork("draft")
    async with new.transaction() as tx:
        tx.get(Note, "1").body.append(" NEW")
    assert str((await new.get(Note, "1")).body) == "hello world. NEW"
    rows = space.engine.keeper.store.read("SELECT seq FROM _sync_branch_change")
    assert len(rows) == 1


async def test_a_discard_that_fails_leaves_the_branch(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = await space.fork("draft")
    async with branch.transaction() as tx:
        tx.get(Note, "1").title = "kept"
    store: Any = space.engine.writer.store
    commit = store.commit

    async def full(writes: Writes) -> None:
        raise StoreFull("no space")

    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(StoreFull):
        await branch.discard()
    monkeypatch.setattr(store, "commit", commit)
    async with space.transaction() as tx:
        tx.get(Note, "1").likes += 1
    assert space.branches() == ["draft"]
    assert (await branch.get(Note, "1")).title == "kept"


async def test_an_operation_id_counts_on_both_sides_of_a_merge(space: Space) -> None:
    for number in range(3):
        branch = await space.fork(f"draft{number}")
        async with branch.transaction("once") as tx:
            tx.get(Note, "1").likes += 10
        await branch.merge()
    async with space.transaction("once") as tx:
        tx.get(Note, "1").likes += 10

    assert (await space.get(Note, "1")).likes == 11


async def test_a_branch_ends_in_no_transaction(space: Space) -> None:
    branch = await space.fork("draft")
    for home in (space, branch):
        async with home.transaction():
            for end in (branch.merge, branch.discard):
                with pytest.raises(TransactionOpen):
                    await end()
    await branch.discard()


async def test_a_branch_from_a_backup_is_not_merged_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with (
        syncengine.open_hub(tmp_path / "hub.db") as hub,
        transport.serve(hub) as server,
    ):
        async with syncengine.open(path) as replica:
            space = await replica.namespace("home")
            async with space.transaction() as tx:
                tx.create(Note, "1", body="hello")
            branch = await space.fork("draft")
            async with branch.transaction() as tx:
                tx.get(Note, "1").body.append(" A")
            await replica.backup(tmp_path / "backup.db")
            await branch.merge()
            async with transport.connect(replica, server.address) as link:
                await link.synced()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        (tmp_path / "backup.db").rename(path)
        async with syncengine.open(path) as replica:
            space = await replica.namespace("home")
            async with transport.connect(replica, server.address) as link:
                await link.synced()
            await (await space.branch("draft")).merge()
            assert str((await space.get(Note, "1")).body) == "hello A"


async def test_a_clock_that_is_set_back_takes_nothing_from_a_branch(
    tmp_path: Path,
) -> None:
    class Wall:
        back_ms = 0

        def now_ms(self) -> int:
            return int(time.time() * 1000) - self.back_ms

    for back_ms in (1_000, 7_200_000):
        path, wall = tmp_path / f"{back_ms}.db", Wall()
        async with Opening(str(path), clock=wall, entropy=SystemEntropy()) as replica:
            space = await replica.namespace("home")
            async with space.transaction() as tx:
                tx.create(Note, "1", body="hello")
            branch = await space.fork("draft")
            async with branch.transaction() as tx:
                tx.get(Note, "1").body.append(" one")
        wall.back_ms = back_ms
        async with Opening(str(path), clock=wall, entropy=SystemEntropy()) as replica:
            space = await replica.namespace("home")
            branch = await space.branch("draft")
            async with branch.transaction() as tx:
                tx.get(Note, "1").body.append(" two")
            await branch.merge()
            assert str((await space.get(Note, "1")).body) == "hello one two"


async def test_what_is_not_signed_yet_cannot_be_stood_on() -> None:
    async with (
        syncengine.open(":memory:") as one,
        syncengine.open(":memory:") as other,
    ):
        invite = await (await one.namespace("home")).invite("write")
        space = await other.join(invite, name="home")
        async with space.transaction() as tx:
            tx.create(Note, "1")
        with pytest.raises(Refused, match="connect"):
            await space.fork("draft")
        assert space.branches() == []


async def test_who_waits_for_its_turn_writes_nothing_into_a_merged_branch(
    space: Space,
) -> None:
    branch = await space.fork("draft")

    async def late() -> None:
        async with branch.transaction() as tx:
            tx.get(Note, "1").body.append(" LATE")

    async with branch.transaction() as tx:
        tx.get(Note, "1").body.append("!")
        merging = asyncio.create_task(branch.merge())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(late()) for _ in range(3)]
        await asyncio.sleep(0)
    await merging
    done = await asyncio.gather(*waiting, return_exceptions=True)
    kept = sum(one is None for one in done)
    body = str((await space.get(Note, "1")).body)

    assert body == "hello world!" + " LATE" * kept
    assert all(one is None or isinstance(one, NotFound) for one in done)
    rows = space.engine.keeper.store.read("SELECT seq FROM _sync_branch_change")
    assert rows == []
