"""What a keeper stores of what it is offered: each row once, and forks with proof."""

import pytest

import syncengine
from syncengine.ids import BatchId, DocumentId
from syncengine.log.batch import NO_BATCH, Batch, seal
from syncengine.log.change import Change, Touch
from syncengine.replication.namespace import Namespace


def batch(engine: Namespace, seq: int, prev: BatchId, value: int) -> Batch:
    assert engine.actor is not None
    assert engine.grant is not None
    touch = Touch(DocumentId("note/1"), [[1, None, "n", value]], 1)
    change = Change(engine.actor, seq, engine.clock.tick(), [], [touch])
    salt = value.to_bytes(16, "big")
    return seal(engine.key, engine.keeper.namespace, engine.grant, prev, [change], salt)


@pytest.mark.parametrize("longer", ["first", "second"])
async def test_both_branches_of_a_fork_are_stored_once(longer: str) -> None:
    async with (
        syncengine.open(":memory:") as author,
        syncengine.open(":memory:") as other,
    ):
        engine = (await author.namespace("home")).engine
        invite = await author.spaces()[0].invite("write")
        keeper = (await other.join(str(invite))).engine.keeper
        keeper.admit(engine.keeper.membership.entries.values())
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
