"""Every pipeline keeps the same promises."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import transport
from syncengine import Closed, Invalid, TooLarge
from syncengine.errors import Compacted, Fenced, PositionConflict
from syncengine.ids import partition_of
from syncengine.storage.pipeline.contract import (
    ENTRY_BYTES_MAX,
    TOLD_BYTES_MAX,
    TOLD_WAITING_MAX,
    Ack,
    Entry,
    Pipeline,
    Token,
)
from syncengine.storage.pipeline.memory import MemoryPipeline
from syncengine.storage.pipeline.sqlite import SqlitePipeline

NS, OTHER = b"family", b"team"


@pytest.fixture(params=["memory", "sqlite", "websocket"])
async def pipeline(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[Pipeline]:
    async with asyncio.timeout(60):
        if request.param == "websocket":
            async with transport.serve_pipeline(MemoryPipeline(4)) as server:
                far = await transport.WebSocketPipeline.open(server.address)
                async with far:
                    yield far
            return
        if request.param == "memory":
            opened: Pipeline = MemoryPipeline(4)
        else:
            opened = await SqlitePipeline.open(str(tmp_path / "p.db"), partitions=4)
        async with opened:
            yield opened


async def put(pipeline: Pipeline, *numbers: int, ns: bytes = NS) -> list[Ack]:
    return [
        await pipeline.publish(1, ns, b"%b %d" % (ns, n), b"%d" % n) for n in numbers
    ]


def payloads(entries: list[Entry]) -> list[int]:
    return [int(entry.payload) for entry in entries]


async def test_entries_have_one_order_in_growing_positions(pipeline: Pipeline) -> None:
    acks = await asyncio.gather(*(put(pipeline, n) for n in range(20)))
    entries = await pipeline.read(1)

    positions = [entry.position for entry in entries]
    assert positions == sorted(set(positions))
    told = {ack.position: n for n, (ack,) in enumerate(acks)}
    assert {e.position: int(e.payload) for e in entries} == told
    assert not any(ack.duplicate for (ack,) in acks)
    assert await pipeline.read(2) == []


async def test_an_entry_is_read_as_it_was_published(pipeline: Pipeline) -> None:
    ack = await pipeline.publish(3, NS, b"id", bytes(range(256)))

    (entry,) = await pipeline.read(3)
    assert entry == Entry(ack.position, NS, b"id", 0, bytes(range(256)))
    assert not entry.is_fence


async def test_publishing_twice_stores_once(pipeline: Pipeline) -> None:
    (first,) = await put(pipeline, 1)
    again = await asyncio.gather(*(put(pipeline, 1) for _ in range(5)))

    assert all(acks == [Ack(first.position, True)] for acks in again)
    assert payloads(await pipeline.read(1)) == [1]


async def test_an_entry_follows_the_one_that_its_author_knew(
    pipeline: Pipeline,
) -> None:
    first = await pipeline.publish(1, NS, b"1", b"", expect=0)
    await put(pipeline, 1, ns=OTHER)
    second = await pipeline.publish(1, NS, b"2", b"", expect=first.position)
    for expected in (0, first.position, second.position + 1):
        with pytest.raises(PositionConflict) as caught:
            await pipeline.publish(1, NS, b"3", b"", expect=expected)
        assert caught.value.last == second.position
    assert [e.id for e in await pipeline.read(1, namespace=NS)] == [b"1", b"2"]


async def test_of_many_that_expect_the_same_one_wins(pipeline: Pipeline) -> None:
    outcomes = await asyncio.gather(
        *(pipeline.publish(1, NS, b"%d" % n, b"", expect=0) for n in range(10)),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, Ack) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PositionConflict) for outcome in outcomes) == 9


async def test_a_retry_of_what_was_stored_is_no_conflict(pipeline: Pipeline) -> None:
    first = await pipeline.publish(1, NS, b"1", b"", expect=0)

    assert await pipeline.publish(1, NS, b"1", b"", expect=0) == Ack(
        first.position, duplicate=True
    )


async def test_what_was_last_is_known_when_it_is_not_kept(pipeline: Pipeline) -> None:
    (ack,) = await put(pipeline, 1)
    await pipeline.truncate(1, ack.position + 1)
    with pytest.raises(PositionConflict):
        await pipeline.publish(1, NS, b"x", b"", expect=0)

    await pipeline.publish(1, NS, b"x", b"", expect=ack.position)


async def test_who_took_a_partition_fences_all_before(pipeline: Pipeline) -> None:
    old = await pipeline.take(1, "old")
    await pipeline.publish(1, NS, b"1", b"", token=old)
    new = await pipeline.take(1, "new")
    with pytest.raises(Fenced) as caught:
        await pipeline.publish(1, NS, b"2", b"", token=old)
    assert (caught.value.epoch, caught.value.now) == (old.epoch, new.epoch)
    await pipeline.publish(1, NS, b"3", b"", token=new)

    assert old.epoch < new.epoch
    entries = await pipeline.read(1)
    assert [(e.is_fence, e.epoch) for e in entries] == [
        (True, old.epoch),
        (False, old.epoch),
        (True, new.epoch),
        (False, new.epoch),
    ]
    assert [e.payload for e in entries if e.is_fence] == [b"old", b"new"]


async def test_of_many_takers_one_is_left(pipeline: Pipeline) -> None:
    tokens = await asyncio.gather(*(pipeline.take(1, f"n{n}") for n in range(8)))
    outcomes = await asyncio.gather(
        *(pipeline.publish(1, NS, b"%d" % t.epoch, b"", token=t) for t in tokens),
        return_exceptions=True,
    )

    assert len({token.epoch for token in tokens}) == 8
    assert sum(isinstance(outcome, Ack) for outcome in outcomes) == 1


async def test_what_a_taking_is_called_is_nobody_elses(pipeline: Pipeline) -> None:
    await pipeline.publish(1, NS, b"fence 1", b"1")
    await pipeline.take(1, "me")
    ack = await pipeline.publish(1, NS, b"fence 2", b"2")
    assert not ack.duplicate
    await pipeline.take(1, "you")
    with pytest.raises(Invalid, match="no name"):
        await pipeline.take(1, "\ud800")
    await pipeline.truncate(1, ack.position)
    assert len(await pipeline.read(1, ack.position - 1)) == 2


async def test_who_follows_beyond_the_end_waits(pipeline: Pipeline) -> None:
    following = pipeline.follow(1, 1)
    coming = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.05)
    await put(pipeline, 1, 2)
    assert (await coming).position == 2
    await following.aclose()


async def test_a_reader_that_is_cancelled_twice_harms_nobody(
    pipeline: Pipeline,
) -> None:
    await put(pipeline, 1)
    for turns in range(20):
        task = asyncio.create_task(pipeline.read(1))
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        assert len(await pipeline.read(1)) == 1


async def test_who_has_no_condition_is_not_fenced(pipeline: Pipeline) -> None:
    await pipeline.take(1, "leader")
    await put(pipeline, 1)

    assert payloads(await pipeline.read(1, namespace=NS)) == [1]


async def test_reading_goes_on_behind_a_position(pipeline: Pipeline) -> None:
    acks = await put(pipeline, *range(5))
    await put(pipeline, 9, ns=OTHER)

    first = await pipeline.read(1, limit=2)
    rest = await pipeline.read(1, first[-1].position, namespace=NS)
    assert payloads(first) == [0, 1]
    assert payloads(rest) == [2, 3, 4]
    assert await pipeline.read(1, acks[-1].position + 10) == []


async def test_who_follows_has_no_gap_and_nothing_twice(pipeline: Pipeline) -> None:
    await put(pipeline, *range(10))

    async def follow(after: int) -> list[int]:
        seen: list[int] = []
        async with aclosing(pipeline.follow(1, after)) as entries:
            async for entry in entries:
                seen.append(int(entry.payload))
                if seen[-1] == 99:
                    return seen
        return seen

    (position, *_) = [entry.position for entry in await pipeline.read(1)]
    following = [asyncio.create_task(follow(after)) for after in (0, 0, position)]
    for start in range(10, 100, 15):
        await put(pipeline, *range(start, min(start + 15, 100)))
        await asyncio.sleep(0)

    assert await asyncio.gather(*following) == [
        list(range(100)),
        list(range(100)),
        list(range(1, 100)),
    ]


async def test_what_is_not_kept_is_said_to_be_gone(pipeline: Pipeline) -> None:
    assert await pipeline.bounds(1) == (1, 0)
    acks = await put(pipeline, *range(5))
    await pipeline.truncate(1, acks[3].position)
    await pipeline.truncate(1, acks[1].position)

    assert await pipeline.bounds(1) == (acks[3].position, acks[4].position)
    assert payloads(await pipeline.read(1, acks[2].position)) == [3, 4]
    with pytest.raises(Compacted) as caught:
        await pipeline.read(1)
    assert caught.value.first == acks[3].position
    with pytest.raises(Compacted):
        await anext(pipeline.follow(1))
    await pipeline.truncate(1, 10**6)
    first, last = await pipeline.bounds(1)
    assert first == last + 1
    (ack,) = await put(pipeline, 7)
    assert ack.position > last


@pytest.mark.parametrize(
    ("partition", "ns", "id", "payload", "error"),
    [
        (4, NS, b"1", b"", Invalid),
        (-1, NS, b"1", b"", Invalid),
        (1, b"", b"1", b"", Invalid),
        (1, NS, b"", b"", Invalid),
        (1, NS, b"i" * 300, b"", Invalid),
        (1, NS, b"1", bytes(ENTRY_BYTES_MAX + 1), TooLarge),
    ],
)
async def test_what_is_no_entry_is_refused(
    pipeline: Pipeline,
    partition: int,
    ns: bytes,
    id: bytes,
    payload: bytes,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        await pipeline.publish(partition, ns, id, payload)
    await pipeline.publish(1, NS, b"1", bytes(ENTRY_BYTES_MAX))


async def test_an_entry_has_one_condition(pipeline: Pipeline) -> None:
    token = await pipeline.take(1, "me")
    with pytest.raises(Invalid, match="one condition"):
        await pipeline.publish(1, NS, b"1", b"", expect=0, token=token)
    with pytest.raises(Invalid, match="of partition 1"):
        await pipeline.publish(2, NS, b"1", b"", token=token)
    with pytest.raises(Fenced):
        await pipeline.publish(2, NS, b"1", b"", token=Token(2, 9, 1))


async def test_a_publisher_that_is_cancelled_harms_nobody(pipeline: Pipeline) -> None:
    tasks = [asyncio.create_task(put(pipeline, n)) for n in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    await put(pipeline, *range(10))

    assert all(isinstance(outcome, list) for outcome in done[1::2])
    assert sorted(payloads(await pipeline.read(1))) == list(range(10))


async def test_closing_ends_who_follows(pipeline: Pipeline) -> None:
    await put(pipeline, 1)

    async def follow() -> list[int]:
        return [int(entry.payload) async for entry in pipeline.follow(1)]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    await pipeline.close()
    await pipeline.close()

    assert await following == [1]
    with pytest.raises(Closed):
        await put(pipeline, 2)
    with pytest.raises(Closed):
        await pipeline.read(1)


def test_a_namespace_is_always_of_one_partition() -> None:
    assert partition_of(b"family") == 30
    assert partition_of(b"family", 16) == 30 % 16
    spread = [0] * 64
    for number in range(64_000):
        spread[partition_of(b"namespace %d" % number)] += 1
    assert min(spread) > 850
    assert max(spread) < 1150


@pytest.mark.parametrize("count", [0, 3, 100, 8192])
def test_partitions_are_a_power_of_two(count: int) -> None:
    with pytest.raises(Invalid, match="power of two"):
        MemoryPipeline(count)


# --- what is told ---------------------------------------------------------------------


async def heard(pipeline: Pipeline, partition: int, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with aclosing(pipeline.listen(partition)) as listening:
        async for namespace, payload in listening:
            assert namespace == NS
            found.append(payload)
            if len(found) == count:
                return found
    raise AssertionError("it ended")


async def test_what_is_told_is_heard_by_who_listens_and_kept_nowhere(
    pipeline: Pipeline,
) -> None:
    await pipeline.tell(1, NS, b"nobody listens")
    hearing = [asyncio.create_task(heard(pipeline, 1, 3)) for _ in range(2)]
    await asyncio.sleep(0.1)
    await pipeline.tell(2, NS, b"elsewhere")
    for number in range(3):
        await pipeline.tell(1, NS, b"%d" % number)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*hearing) == [[b"0", b"1", b"2"]] * 2
    assert await pipeline.read(1) == []
    assert await pipeline.bounds(1) == (1, 0)


async def test_who_does_not_hear_in_time_misses_the_oldest(pipeline: Pipeline) -> None:
    listening = pipeline.listen(1)
    async with aclosing(listening), asyncio.timeout(20):
        first = asyncio.ensure_future(anext(listening))
        await asyncio.sleep(0.1)
        await pipeline.tell(1, NS, b"first")
        assert await first == (NS, b"first")
        for number in range(TOLD_WAITING_MAX + 50):
            await pipeline.tell(1, NS, b"%d" % number)
        told = int((await anext(listening))[1])
        while told < TOLD_WAITING_MAX + 49:
            newer = int((await anext(listening))[1])
            assert newer > told
            told = newer


async def test_who_listens_ends_when_the_pipeline_is_closed(pipeline: Pipeline) -> None:
    async def listen() -> None:
        async with aclosing(pipeline.listen(1)) as listening:
            async for _ in listening:
                pass

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    await pipeline.close()
    async with asyncio.timeout(10):
        await listener


# --- bad input ------------------------------------------------------------------------


NONSENSE: list[Callable[[Any], Any]] = [
    lambda p: p.read(1, 2**63),
    lambda p: p.read(1, -1),
    lambda p: p.read(1, limit=0),
    lambda p: p.read(1, limit=2**70),
    lambda p: p.read(1, namespace="text"),
    lambda p: p.read(99),
    lambda p: p.read("1"),
    lambda p: anext(p.follow(99)),
    lambda p: anext(p.follow(1, -1)),
    lambda p: anext(p.listen(99)),
    lambda p: p.tell(1, NS, bytes(TOLD_BYTES_MAX + 1)),
    lambda p: p.tell(1, "text", b""),
    lambda p: p.publish(1, NS, b"id", "text"),
    lambda p: p.publish(1, "text", b"id", b""),
    lambda p: p.publish(1, NS, 7, b""),
    lambda p: p.publish(1, NS, b"id", b"", expect="1"),
    lambda p: p.publish(1, NS, b"id", b"", expect=2**70),
]


@pytest.mark.parametrize("request_", NONSENSE)
async def test_what_makes_no_sense_is_refused_alike(
    pipeline: Pipeline, request_: Any
) -> None:
    """And harms nobody who publishes at the same time."""
    good = asyncio.gather(*(put(pipeline, n) for n in range(5)))
    with pytest.raises(Invalid):
        await request_(pipeline)
    assert len(await good) == 5
