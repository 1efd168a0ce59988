"""The outbox against a plain list: what is made, written, sealed and written again."""

from hypothesis import given
from hypothesis import strategies as st

from syncengine.ids import ActorId, DocumentId
from syncengine.log.change import Change, Touch, encode_change
from syncengine.replication.outbox import Outbox
from syncengine.storage.inline import InlineStore
from syncengine.storage.opening import MEMORY
from syncengine.storage.store import Writes

ONE, OTHER = ActorId(b"1" * 16), ActorId(b"2" * 16)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "commit", "seal", "fail", "take"]),
        st.integers(1, 5),
    ),
    max_size=30,
)


def change(actor: ActorId, seq: int) -> Change:
    touch = Touch(DocumentId("note/1"), [[1, None, "n", seq]], 1)
    return Change(actor, seq, 2**16 + seq, [], [touch])


@given(STEPS)
async def test_it_holds_what_no_batch_holds(steps: list[tuple[str, int]]) -> None:
    store = InlineStore(MEMORY)
    outbox, actor = Outbox(store, 1), ONE
    held: list[int] = []
    on_disk: list[int] = []
    next_seq = 1

    async def commit(sealed: int = 0) -> None:
        nonlocal held, on_disk
        writes = Writes()
        if sealed:
            changes = outbox.unsealed(actor)
            assert [change.seq for change in changes] == held
            outbox.sealed(changes[:sealed], writes)
            held = held[sealed:]
        outbox.collect(writes)
        await store.commit(writes)
        on_disk = list(held)

    for what, n in steps:
        match what:
            case "add":
                made = change(actor, next_seq)
                outbox.add(made, encode_change(made))
                held.append(next_seq)
                next_seq += 1
            case "commit":
                await commit()
            case "fail":
                outbox.load()
                held = list(on_disk)
            case "take":
                taken = outbox.take(actor)
                assert [change.seq for change in taken] == held
                actor = OTHER if actor == ONE else ONE
                held = list(range(1, len(held) + 1))
                outbox.fill(change(actor, seq) for seq in held)
                next_seq = len(held) + 1
                await commit()
            case _:
                await commit(n)
        stored = outbox.stored(actor)
        found = [change.seq for change in stored + [c for c, _ in outbox.new]]
        assert found == held
        assert len(outbox) == len(held)
        assert all(change.actor == actor for change in stored)
    await store.close()
