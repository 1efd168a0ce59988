"""What has no effect, and why: the same at every member, and after a rebuild."""

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

import syncengine
from syncengine import Document, Space, SyncError, Text, limits
from syncengine.crdt.sequence import state, walker
from syncengine.errors import TooLarge
from syncengine.ids import DeviceId, DocumentId
from syncengine.log.batch import (
    NO_BATCH,
    Batch,
    Header,
    Payload,
    batch_id,
    encode_payload,
    root_of,
    seal,
    signed_bytes,
)
from syncengine.log.change import Change, Touch
from syncengine.replication.host import sealed
from syncengine.replication.namespace import Namespace
from syncengine.trust.entry import Entry, entry_id
from syncengine.trust.membership import OPS_BY_NAME, make_grant

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@dataclass
class Author:
    """A granted member whose program was changed: it signs what it likes."""

    engine: Namespace
    readers: list[Space]
    grant: Any = None

    def batch(
        self,
        *ops: list[Any],
        document: str = "note/1",
        hlc: int | None = None,
        count: int | None = None,
        spoil: Callable[[bytes], bytes] | None = None,
    ) -> Batch:
        engine = self.engine
        assert engine.actor is not None
        assert engine.grant is not None
        head = engine.keeper.heads.get(engine.actor)
        seq = head.seq + 1 if head else 1
        stamp = engine.clock.tick() if hlc is None else hlc
        n = len(ops) if count is None else count
        touch = Touch(DocumentId(document), list(ops), n)
        change = Change(engine.actor, seq, stamp, [], [touch])
        payload, root = encode_payload([change], os.urandom(16))
        if spoil is not None:
            payload = spoil(payload)
            spine, salt, parts = decode(payload)
            root = root_of(Payload(spine, salt, list(parts.items())))
        header = Header(
            engine.keeper.namespace, engine.actor, seq, n,
            head.id if head else NO_BATCH, self.grant or engine.grant, root,
        )  # fmt: skip
        name = batch_id(header.encode())
        return Batch(header, name, engine.key.sign(signed_bytes(name)), payload)

    async def send(self, *rows: Batch | Entry) -> list[str]:
        """Hand rows to both readers; return why the first refused."""
        refused: list[str] = []
        for space in self.readers:
            admission = await space.engine.take_in(rows)
            await space.engine.flush()
            refused = admission.refused
        self.engine.keeper.admit(rows)
        return refused

    def voids(self) -> list[str]:
        """Return the reasons of what is void; both readers give the same."""
        one, other = (
            space.engine.keeper.store.read("SELECT seq, reason FROM _sync_void")
            for space in self.readers
        )
        assert one == other
        return [reason for _, reason in one]

    async def shown(self) -> dict[str, Any]:
        """Return what the readers show: the same, also when made anew."""
        found: list[dict[str, Any]] = []
        for space in self.readers:
            for _ in range(2):
                names = space.engine.documents.names("note", "")
                found.append(
                    {name: (await space.get(str(name))).to_dict() for name in names}
                )
                async with space.engine.turn:
                    await space.engine.rebuild()
                await space.engine.flush()
        assert all(shown == found[0] for shown in found)
        return found[0]


@pytest.fixture
async def author() -> AsyncIterator[Author]:
    async with (
        syncengine.open(":memory:") as writer,
        syncengine.open(":memory:") as founder,
        syncengine.open(":memory:") as friend,
    ):
        space = await founder.namespace("home")
        invite = await space.invite("write", uses=2)
        theirs = await writer.join(invite)
        other = await friend.join(invite)
        engines = [space.engine, theirs.engine, other.engine]
        for _ in range(2):
            for engine in engines:
                for source in engines:
                    entries = list(source.keeper.membership.entries.values())
                    await engine.take_in(entries)
                await engine.flush()
        made = Author(theirs.engine, [space, other])
        assert await made.send(made.batch([1, None, "title", "good"])) == []
        yield made


def spine(change: Callable[[list[Any]], Any]) -> Callable[[bytes], bytes]:
    def spoil(payload: bytes) -> bytes:
        raw, salt, parts = decode(payload)
        return encode([encode(change(decode(raw))), salt, parts])

    return spoil


def parts(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def spoil(payload: bytes) -> bytes:
        raw, salt, found = decode(payload)
        return encode([raw, salt, {name: change(part) for name, part in found.items()}])

    return spoil


VOID: dict[str, tuple[dict[str, Any], str]] = {
    "a name without a collection": ({"document": "x"}, "collection/id"),
    "a collection in capitals": ({"document": "Note/1"}, "a collection is"),
    "an id with a line feed": ({"document": "note/a\n"}, "control characters"),
    "a stamp that does not rise": ({"hlc": 1}, "does not follow"),
    "a spine that is no array": ({"spoil": spine(lambda _: 7)}, "not readable"),
    "a spine that counts wrongly": (
        {"spoil": spine(lambda s: [s[0], s[1], s[2], [[0, 5]], *s[4:]])},
        "not readable",
    ),
    "a spine that goes back in time": (
        {"spoil": spine(lambda s: [[-5], *s[1:]])},
        "not readable",
    ),
    "a part that is no MessagePack": ({"spoil": parts(lambda _: b"\xc1")}, "Message"),
    "a part that lacks its operations": ({"spoil": parts(lambda _: b"\x90")}, "part"),
    "operations that are miscounted": ({"count": 3}, "counts its operations wrongly"),
    "a position beyond the end": ({"ops": [[8, "body", 5, "x"]]}, "position"),
    "a deletion beyond the end": ({"ops": [[9, "body", 0, 1]]}, "position"),
    "a counter that counts in text": ({"ops": [[5, "n", "3"]]}, "numbers"),
    "an action that is no number": ({"ops": [["set", None, "a", 1]]}, "action"),
    "a value that is not finite": (
        {"ops": [[1, None, "a", float("nan")]]},
        "finite",
    ),
    "a key that is too long": ({"ops": [[1, None, "k" * 2000, 1]]}, "key"),
}


@pytest.mark.parametrize("what", sorted(VOID))
async def test_a_bad_change_is_void_as_a_whole(author: Author, what: str) -> None:
    options, reason = VOID[what]
    options = dict(options)
    good = [1, None, "title", "BAD"]
    ops = [good, *options.pop("ops", [])]
    options.setdefault("count", len(ops))
    assert await author.send(author.batch(*ops, **options)) == [], "it is stored"

    (told,) = author.voids()
    assert reason in told
    assert await author.shown() == {"note/1": {"title": "good"}}
    # Its author goes on, and is heard.
    await author.send(author.batch([1, None, "title", "better"]))
    assert await author.shown() == {"note/1": {"title": "better"}}


async def test_a_batch_that_is_applied_in_part_goes_on_where_it_was(
    author: Author,
) -> None:
    """Its second change is stamped ahead, and the program ends meanwhile."""
    engine = author.engine
    assert engine.actor is not None
    assert engine.grant is not None
    head = engine.keeper.heads[engine.actor]
    ahead = engine.clock.tick() + (120_000 << 16)
    changes = [
        Change(engine.actor, head.seq + 1 + index, stamp, [],
               [Touch(DocumentId("note/1"), [[5, "n", 1]], 1)])
        for index, stamp in enumerate((engine.clock.tick(), ahead))
    ]  # fmt: skip
    batch = seal(
        engine.key, engine.keeper.namespace, engine.grant, head.id, changes, bytes(16)
    )
    (space, _) = author.readers
    await space.engine.take_in([batch])
    await space.engine.flush()
    assert (await space.get("note/1")).counter("n") == 1
    for _ in range(2):
        space.engine.load()  # as a start does
        space.engine.apply_soon()
        await asyncio.sleep(0.01)
        assert (await space.get("note/1")).counter("n") == 1
    assert space.engine.delivery.waiting_count == 1


@pytest.mark.parametrize("earlier", [True, False])
async def test_a_bad_seed_beside_a_good_one_is_void_everywhere(
    author: Author, earlier: bool
) -> None:
    """It made a member rebuild for ever, or was void at one and not at another."""
    space, other = author.readers
    bad_seed = [17, None, "k", [[8, "body", 99, "zz"]]]
    bad = author.batch(bad_seed, [1, None, "extra", "x"], document="note/2")
    if not earlier:
        await other.engine.take_in([bad])
    async with space.transaction() as tx:
        tx.seed("note/2", key="k", title="honest")
    async with asyncio.timeout(20):
        await space.engine.take_in([bad])
    assert (await space.get("note/2")).to_dict() == {"title": "honest"}
    assert await other.get("note/2", default=None) is None


def inserts(n: int, document: str = "note/1") -> list[list[Any]]:
    return [[8, "body", 0, "ab"], *[[8, "body", 1, "x"] for _ in range(n)]]


async def test_what_says_too_much_is_void_before_it_is_decoded(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_ITEMS_MAX", 2_000)
    await author.send(author.batch([1, None, "deep", [{}] * 1_900]))
    assert author.voids() == []
    await author.send(author.batch([1, None, "title", [{}] * 2_100]))

    assert "2000 items" in author.voids()[0]
    shown = (await author.shown())["note/1"]
    assert shown["title"] == "good"
    assert len(shown["deep"]) == 1_900


async def test_a_transaction_that_says_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CHANGE_ITEMS_MAX", 2_000)
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        with pytest.raises(TooLarge, match="at most 2000 items"):
            async with space.transaction() as tx:
                tx["note/1"]["title"] = ["x"] * 2_000
        assert await space.get("note/1", default=None) is None
        async with space.transaction() as tx:
            tx["note/1"].text("long").insert(0, "x" * 100_000)


async def test_a_long_change_lets_others_go_on_and_shows_as_a_whole(
    author: Author,
) -> None:
    """Its operations are applied in steps; readers wait for the last."""
    space = author.readers[0]
    long = author.batch(*inserts(5_000), count=5_002)
    turns = 0
    seen: list[int] = []

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def reads() -> None:
        while True:
            note = await space.get("note/1")
            seen.append(len(note.text("body")))
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(others()), asyncio.create_task(reads())]
    await asyncio.sleep(0)
    before = turns
    await space.engine.take_in([long])
    assert turns - before >= 4
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    assert set(seen) == {0, 5_002}


async def test_an_editor_sees_a_long_change_at_once(author: Author) -> None:
    class Note(Document):
        body: Text = Text()

    space = author.readers[0]
    patches: list[int] = []
    async with space.live(Note, "1") as live:
        live.on_patch("body", lambda edits: patches.append(len(live.doc.body)))

        async def types() -> None:
            while not patches:
                assert str(live.doc.body) == ""
                await asyncio.sleep(0)

        typing = asyncio.create_task(types())
        await space.engine.take_in([author.batch(*inserts(5_000), count=5_002)])
        await typing
    assert patches == [5_002]


async def test_a_void_long_change_leaves_nothing(author: Author) -> None:
    bad = [*inserts(5000), [8, "body", 1 << 40, "far"]]
    await author.send(author.batch(*bad, count=len(bad) + 1))

    assert "position" in author.voids()[0]
    assert await author.shown() == {"note/1": {"title": "good"}}


async def test_taking_in_can_be_cancelled_anywhere(author: Author) -> None:
    """What was stored is applied all the same, and later changes find it whole."""
    space = author.readers[0]
    batches = [author.batch(*inserts(3_000), count=3_002)]
    for _ in range(3):
        author.engine.keeper.admit(batches[-1:])
        batches.append(author.batch([5, "n", 1]))
    task = asyncio.create_task(space.engine.take_in(batches))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    await space.engine.flush()

    note = await space.get("note/1")
    assert len(note.text("body")) == 3_002
    assert note.counter("n") == 3
    assert space.engine.delivery.waiting_count == 0


async def test_an_editor_types_while_others_changes_come_in(author: Author) -> None:
    class Note(Document):
        body: Text = Text()

    space = author.readers[0]
    batches: list[Batch] = []
    for _ in range(600):
        batches.append(author.batch([5, "n", 1]))
        author.engine.keeper.admit(batches[-1:])
    typed = 0
    async with space.live(Note, "1") as live:
        catching_up = asyncio.create_task(space.engine.take_in(batches))
        while not space.engine.is_between_changes:
            await asyncio.sleep(0)
        while not catching_up.done():
            if space.engine.is_between_changes:
                live.doc.body.insert(0, "x")
                typed += 1
            await asyncio.sleep(0)
    assert typed
    note = await space.get("note/1")
    assert (note.counter("n"), str(note.text("body"))) == (600, "x" * typed)


def grant(author: Author, ops: str, scope: tuple[tuple[str, str], ...]) -> Entry:
    """Return what the founder grants to the author besides."""
    founder = author.readers[0].engine
    membership = founder.keeper.membership
    return make_grant(
        founder.key, founder.keeper.namespace, membership.recent_heads(),
        parent=founder.grant, subject=DeviceId(author.engine.key.public),
        ops=OPS_BY_NAME[ops], depth=3, nonce=os.urandom(16), scope=scope,
    )  # fmt: skip


async def test_what_is_outside_a_grant_is_refused(author: Author) -> None:
    narrow = grant(author, "write", (("note", "mine-"),))
    assert await author.send(narrow) == []
    author.grant = entry_id(narrow)
    refused = await author.send(author.batch([1, None, "title", "BAD"]))
    assert "may not write note/1" in refused[0]
    refused = await author.send(author.batch([0], document="page/mine-1"))
    assert "may not write page/mine-1" in refused[0]
    inside = author.batch([1, None, "title", "ok"], document="note/mine-1")
    assert await author.send(inside) == []

    assert await author.shown() == {
        "note/1": {"title": "good"},
        "note/mine-1": {"title": "ok"},
    }
    assert author.voids() == []


async def test_what_a_reader_writes_is_refused(author: Author) -> None:
    reading = grant(author, "read", (("*", ""),))
    await author.send(reading)
    author.grant = entry_id(reading)
    refused = await author.send(author.batch([1, None, "title", "BAD"]))

    assert "may only read" in refused[0]
    assert await author.shown() == {"note/1": {"title": "good"}}


async def test_a_grant_that_is_widened_by_its_holder_lets_nobody_write(
    author: Author,
) -> None:
    """A writer grants admin to itself: nobody takes it, nor what is under it."""
    engine = author.engine
    wide = make_grant(
        engine.key, engine.keeper.namespace, engine.keeper.membership.recent_heads(),
        parent=engine.grant, subject=DeviceId(engine.key.public),
        ops=OPS_BY_NAME["admin"], depth=3, nonce=os.urandom(16),
    )  # fmt: skip
    author.grant = entry_id(wide)
    written = author.batch([1, None, "title", "BAD"])
    refused: list[str] = []
    for space in author.readers:
        admission = await space.engine.take_in([wide, written])
        refused.append(" ".join(admission.refused))

    assert all("grant" in text for text in refused), refused
    assert await author.shown() == {"note/1": {"title": "good"}}


async def test_what_a_newer_version_wrote_can_be_read_and_not_written(
    author: Author,
) -> None:
    await author.send(author.batch([99, "title", 1]))

    for space in author.readers:
        shown = await space.get("note/1")
        assert shown.to_dict() == {"title": "good"}
        with pytest.raises(SyncError, match="newer version"):
            async with space.transaction() as tx:
                tx["note/1"]["title"] = "x"
        with pytest.raises(SyncError, match="newer version"):
            async with space.transaction() as tx:
                tx.delete("note/1")
    assert author.voids() == []


async def test_a_program_that_learned_more_understands_what_it_could_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "notes.db"
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "new"
    # As a program leaves it that did not know how to write a field.
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE _sync_document SET upgrade = 1, visible = 0")
        file.execute("DELETE FROM _sync_cell")
        file.execute("UPDATE _sync_meta SET value = 0 WHERE key = 'actions'")

    for _ in range(2):
        async with syncengine.open(path) as replica:
            note = await (await replica.namespace("home")).get("note/1")
            assert note.to_dict() == {"title": "new"}


async def test_a_text_has_a_bound_beyond_which_all_of_a_change_is_void(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (state, walker):
        monkeypatch.setattr(module, "ELEMENTS_MAX", 10)
    await author.send(author.batch([8, "body", 0, "0123456"], count=7))
    await author.send(author.batch([8, "body", 0, "0123"], count=4))
    await author.send(author.batch([8, "body", 0, "012"], count=3))
    await author.send(author.batch([11, "list", 0, list(range(11))], count=11))

    shown = await author.shown()
    assert shown["note/1"]["body"] == "0120123456"
    assert "list" not in shown["note/1"]
    assert len(author.voids()) == 2


@pytest.mark.parametrize("seed", range(6))
async def test_rows_in_any_order_cut_anywhere_and_twice_leave_the_same(
    seed: int,
) -> None:
    chance = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(syncengine.open(":memory:"))
            for _ in range(4)
        ]
        founder = await replicas[0].namespace("home")
        invite = await founder.invite("write", uses=3)
        spaces = [founder, *[await replica.join(invite) for replica in replicas[1:]]]
        *writers, late = spaces

        async def hand_over(source: Space, to: Space) -> None:
            engine = source.engine
            await sealed(engine)
            await to.engine.take_in([r for _, r in engine.keeper.rows_after(0, 10_000)])
            await to.engine.flush()

        for _ in range(2):
            for one in spaces:
                for other in spaces:
                    await hand_over(one, other)
        for number in range(30):
            space = chance.choice(writers)
            async with space.transaction() as tx:
                page = tx[f"page/{chance.randrange(2)}"]
                page["title"] = number
                page.text("body").insert(0, f"{number} ")
                items = page.list("items")
                items.append(number)
                items.move(chance.randrange(len(items)), 0)
                if chance.random() < 0.3:
                    del items[-1]
                page.counter("n").increment(number)
            if chance.random() < 0.3:
                await hand_over(space, chance.choice(writers))
        for _ in range(2):
            for one in writers:
                for other in writers:
                    await hand_over(one, other)

        rows = [row for _, row in writers[0].engine.keeper.rows_after(0, 10_000)]
        waiting = [*rows, *chance.sample(rows, len(rows) // 2)]
        chance.shuffle(waiting)
        for _ in range(len(rows)):
            at = 0
            while at < len(waiting):
                count = chance.randint(1, 5)
                await late.engine.take_in(waiting[at : at + count])
                at += count
            await late.engine.flush()
            if late.engine.version == writers[0].engine.version:
                break

        for name in ("page/0", "page/1"):
            shown = [(await s.get(name)).to_dict() for s in [*writers, late]]
            assert all(one == shown[0] for one in shown), name


def all_wait(*_: object) -> bool:
    return True


@pytest.mark.parametrize("fails", [False, True])
async def test_after_a_rebuild_nothing_is_read_from_the_file_of_before(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """What waits again for a majority stood there until the commit was done: it was
    read, kept, and written again. When that commit fails, it does have its effect."""
    async with syncengine.open(":memory:") as replica, asyncio.timeout(10):
        space = await replica.namespace("home")
        engine, store = space.engine, replica.store
        async with space.transaction() as tx:
            tx["note/1"]["n"] = 1
        engine.seal_now(ahead=True)
        await sealed(engine)
        commit, gate = store.commit, asyncio.Event()

        async def slow(writes: Any) -> None:
            await gate.wait()
            if fails:
                raise syncengine.StoreFull("no space")
            await commit(writes)

        monkeypatch.setattr(store, "commit", slow)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_is_held", all_wait)
            async with engine.turn:
                await engine.rebuild()
            flush = engine.flush()
            await asyncio.sleep(0.05)
            assert await space.get("note/1", default=None) is None
            gate.set()
            with contextlib.suppress(syncengine.StoreFull):
                await flush
            there = await space.get("note/1", default=None) is not None
            assert there == fails
