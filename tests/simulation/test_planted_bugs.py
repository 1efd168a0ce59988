"""A simulator is worth what it catches: each bug is planted and must be found."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from syncengine.crdt import register
from syncengine.log.batch import Batch
from syncengine.log.delivery import Delivery
from syncengine.protocol.messages import Ack
from syncengine.replication import namespace, peer, writer
from syncengine.replication.conversation import Conversation
from syncengine.replication.keeper import Keeper
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.testing.disk import SimDisk
from syncengine.testing.story import standard
from syncengine.testing.world import Invariant, run_seed

SEEDS_MAX = 80

Plant = Callable[[pytest.MonkeyPatch], None]


def ack_before_commit(patch: pytest.MonkeyPatch) -> None:
    async def take_in(self: Conversation, channel: Any, message: Any) -> None:
        channel._owed.append(Ack(channel.number, message.place[0]))
        self.wake()
        await original(self, channel, message)

    def stored(self: peer.Channel, message: Any) -> None:
        self._uncommitted -= 1

    original = Conversation._take_in
    patch.setattr(Conversation, "_take_in", take_in)
    patch.setattr(peer.Channel, "stored", stored)


def normal_instead_of_full(patch: pytest.MonkeyPatch) -> None:
    original = SimDisk.__init__

    def weak(self: SimDisk, *args: Any) -> None:
        original(self, *args)
        self.store.connection.execute("PRAGMA synchronous=NORMAL")

    patch.setattr(SimDisk, "__init__", weak)


def cursor_saved_before_apply(patch: pytest.MonkeyPatch) -> None:
    async def take_in(self: Conversation, channel: Any, message: Any) -> None:
        record = channel.record
        early = Writes()
        early.add(
            sql.PUT_PEER, channel.keeper.ns, channel.device, record.lineage,
            *message.place, record.acked, 0,
        )  # fmt: skip
        await channel.keeper.store.commit(early)
        await original(self, channel, message)

    original = Conversation._take_in
    patch.setattr(Conversation, "_take_in", take_in)


def double_apply(patch: pytest.MonkeyPatch) -> None:
    """What is delivered again counts again."""

    def admitting(self: Keeper, rows: Iterable[Any], admission: Any) -> Any:
        rows = list(rows)
        here = [row for row in rows if isinstance(row, Batch) and self.has(row.id)]
        yield from original(self, rows, admission)
        admission.stored += [(self.position, row) for row in here]

    def queue(self: Delivery, actor: Any, batch: Batch) -> None:
        known = self.applied.pop(actor, None)
        queue_new(self, actor, batch)
        if known is not None:
            known.hlc = 0  # else it would be void for its stamp
            self.applied[actor] = known

    original, queue_new = Keeper.admitting, Delivery.queue
    patch.setattr(Keeper, "admitting", admitting)
    patch.setattr(Delivery, "queue", queue)


def tie_by_arrival(patch: pytest.MonkeyPatch) -> None:
    def by_arrival(entries: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(entries)[::-1]

    patch.setattr(register, "_ordered", by_arrival)


def high_water_not_stored(patch: pytest.MonkeyPatch) -> None:
    """The clock begins anew with each start, and trusts the wall."""
    original = namespace.Namespace.load

    def load(self: Any) -> None:
        original(self)
        self.clock.last = 0

    patch.setattr(namespace.Namespace, "load", load)


def hold_back_skipped(patch: pytest.MonkeyPatch) -> None:
    def satisfied(self: Delivery, dep: Any) -> Any:
        return dep.actor

    patch.setattr(Delivery, "_satisfied", satisfied)


def sent_before_the_seal_is_stored(patch: pytest.MonkeyPatch) -> None:
    """Rows leave as soon as they are made; a crash then makes another history."""
    original = namespace.Namespace.collect

    def collect(self: Any, writes: Writes) -> Any:
        token = original(self, writes)
        self.committed_position = self.keeper.position
        self.log_grew.set()
        return token

    patch.setattr(namespace.Namespace, "collect", collect)


def receipt_before_commit(patch: pytest.MonkeyPatch) -> None:
    """The caller is told before the disk is asked."""

    def flush(self: Any, source: Any) -> Any:
        original(self, source)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    original = writer.Writer.flush
    patch.setattr(writer.Writer, "flush", flush)


PLANTED: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        ack_before_commit,
        normal_instead_of_full,
        cursor_saved_before_apply,
        double_apply,
        tie_by_arrival,
        high_water_not_stored,
        hold_back_skipped,
        sent_before_the_seal_is_stored,
        receipt_before_commit,
    )
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_the_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    for seed in range(SEEDS_MAX):
        error = run_seed(standard, seed).error
        if error is not None:
            print(f"{name}: seed {seed}: {type(error).__name__}: {str(error)[:120]}")
            assert isinstance(error, Invariant | AssertionError | LookupError)
            return
    pytest.fail(f"{name} went through {SEEDS_MAX} seeds")
