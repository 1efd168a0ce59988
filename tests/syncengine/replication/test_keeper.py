"""What a keeper stores of what it is offered: each row once, and forks with proof."""

from collections.abc import AsyncIterator

import pytest

import syncengine
from syncengine.ids import ActorId, BatchId, DocumentId, node_id
from syncengine.log.batch import NO_BATCH, Batch, seal
from syncengine.log.change import Change, Origin, Touch
from syncengine.replication.feed import find
from syncengine.replication.keeper import Keeper
from syncengine.replication.namespace import Namespace
from syncengine.replication.origins import key_of
from syncengine.storage.inline import InlineStore
from syncengine.trust.membership import ForkProof, make_fork


def batch(
    engine: Namespace, seq: int, prev: BatchId, value: int, count: int = 1
) -> Batch:
    assert engine.actor is not None
    assert engine.grant is not None
    touch = Touch(DocumentId("note/1"), [[1, None, "n", value]], 1)
    changes = [
        Change(engine.actor, at, engine.clock.tick(), [], [touch])
        for at in range(seq, seq + count)
    ]
    salt = value.to_bytes(16, "big")
    return seal(engine.key, engine.keeper.namespace, engine.grant, prev, changes, salt)


@pytest.fixture
async def author_and_keeper() -> AsyncIterator[tuple[Namespace, Keeper]]:
    """An author, and the keeper of another member, who knows the author's entries."""
    async with (
        syncengine.open(":memory:") as author,
        syncengine.open(":memory:") as other,
    ):
        engine = (await author.namespace("home")).engine
        invite = await author.spaces()[0].invite("write")
        keeper = (await other.join(str(invite))).engine.keeper
        keeper.admit(engine.keeper.membership.entries.values())
        yield engine, keeper


@pytest.mark.parametrize("longer", ["first", "second"])
async def test_both_branches_of_a_fork_are_stored_once(
    author_and_keeper: tuple[Namespace, Keeper], longer: str
) -> None:
    engine, keeper = author_and_keeper
    one = batch(engine, 1, NO_BATCH, 1)
    two = batch(engine, 1, NO_BATCH, 2)
    more = batch(engine, 2, one.id if longer == "first" else two.id, 3)
    rows = [one, two, more]

    first = keeper.admit(rows)
    assert [row for _, row in first.stored] == rows
    assert first.forks == {engine.actor: None}
    for _ in range(2):
        again = keeper.admit(rows)
        assert (again.stored, again.refused, again.missing) == ([], [], [])
        assert again.forks == {}


@pytest.mark.parametrize("first", ["batch", "proof"])
async def test_a_fork_proved_within_a_batch_begins_where_the_batch_does(
    author_and_keeper: tuple[Namespace, Keeper], first: str
) -> None:
    """Else what others saw of that batch is in no history, and they are never heard."""
    engine, keeper = author_and_keeper
    assert engine.actor is not None
    seen = batch(engine, 1, NO_BATCH, 1, count=4)
    more = batch(engine, 5, seen.id, 2)
    left, right = (batch(engine, 3, seen.id, value) for value in (3, 4))
    proof = ForkProof(
        (
            (left.header.encode(), left.signature),
            (right.header.encode(), right.signature),
        )
    )
    heads = keeper.membership.recent_heads()
    entry = make_fork(engine.key, keeper.namespace, heads, proof)

    keeper.admit([seen, more, entry] if first == "batch" else [entry, seen, more])
    assert keeper.forks == {engine.actor: 1}
    branch = keeper.branch(engine.actor, 4, seen.id[:16])
    assert branch is not None
    assert branch == keeper.branch_of(seen) == keeper.branch_of(more)
    keeper.load()
    assert keeper.forks == {}, "nothing of it was written"


async def test_rows_that_no_file_has_yet_are_read_without_a_gap(
    author_and_keeper: tuple[Namespace, Keeper],
) -> None:
    """Else a rebuild in the middle of a catch-up would leave them out for ever."""
    engine, keeper = author_and_keeper
    prev = NO_BATCH
    rows: list[Batch] = []
    for seq in range(1, 701):
        rows.append(batch(engine, seq, prev, seq))
        prev = rows[-1].id
    keeper.admit(rows)

    position = 0
    seen: list[int] = []
    while found := keeper.rows_after(position, 100):
        position = found[-1][0]
        seen += [at for at, _ in found]
    assert seen == list(range(1, keeper.position + 1))


async def test_a_change_is_found_without_reading_those_before_it() -> None:
    """A follower looks one up for every entry: it was 75 % of its time at 30,000."""
    async with (
        syncengine.open(":memory:") as author,
        syncengine.open(":memory:") as other,
    ):
        engine = (await author.namespace("home")).engine
        invite = await author.spaces()[0].invite("write")
        joined = (await other.join(str(invite))).engine
        assert engine.actor is not None
        await joined.take_in(list(engine.keeper.membership.entries.values()))
        prev = NO_BATCH
        rows: list[Batch] = []
        for seq in range(1, 401):
            rows.append(batch(engine, seq, prev, seq))
            prev = rows[-1].id
        await joined.take_in(rows)
        await joined.flush()
        store = joined.keeper.store
        assert isinstance(store, InlineStore)

        def steps(seq: int) -> int:
            """How many instructions of SQLite's machine finding it takes."""
            taken = 0

            def step() -> int:
                nonlocal taken
                taken += 1
                return 0

            store.connection.set_progress_handler(step, 1)
            found = joined.keeper.batches_at(ActorId(engine.actor or b""), seq)
            store.connection.set_progress_handler(None, 0)
            assert [row.header.first_seq for row in found] == ([seq] * (seq < 401))
            return taken

        first = steps(1)
        assert first > 0, "it reads the file"
        assert [steps(seq) for seq in (200, 400, 401, 9_999)] == [first] * 4
        change = find(joined.keeper, node_id((engine.actor, 399)))
        assert change.id == node_id((engine.actor, 399))


@pytest.mark.parametrize(
    ("op", "n"), [([9, "body", 0, 2**40], 2**40), ([8, "body", 2**64 - 1, "ab"], 2)]
)
def test_a_repeated_change_of_any_size_costs_little(op: list[object], n: int) -> None:
    origin = Origin(ActorId(bytes(16)), 1, 1)
    touch = Touch(DocumentId("note/1"), [op], n)
    try:
        key = key_of(origin, ActorId(b"a" * 16), 1, [touch])
    except ValueError:
        return
    assert key is None
