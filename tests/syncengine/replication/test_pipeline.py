"""A namespace over a pipeline: everybody ends with the same, whatever carries it."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import syncengine
import transport
from syncengine import (
    Closed,
    Invalid,
    LeaderFollowerManager,
    MemoryPipeline,
    Pipeline,
    PipelineEmitter,
    PipelineReceiver,
    Replica,
    Space,
    SqlitePipeline,
    limits,
)
from tests.wires import Flaky


@pytest.fixture(params=["memory", "sqlite"])
async def pipeline(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[Pipeline]:
    async with asyncio.timeout(60):
        if request.param == "memory":
            opened: Pipeline = MemoryPipeline(4)
        else:
            opened = await SqlitePipeline.open(str(tmp_path / "p.db"), partitions=4)
        async with opened:
            yield opened


@pytest.fixture
async def spaces() -> AsyncGenerator[list[Space]]:
    """Three members that never met."""
    async with contextlib.AsyncExitStack() as stack:
        replicas: list[Replica] = [
            await stack.enter_async_context(syncengine.open(":memory:"))
            for _ in range(3)
        ]
        space = await replicas[0].namespace("home")
        invite = await space.invite("write", uses=2)
        yield [space, *[await r.join(invite, name="home") for r in replicas[1:]]]


@contextlib.asynccontextmanager
async def carried(
    pipeline: Pipeline, *spaces: Space, **options: Any
) -> AsyncGenerator[list[tuple[PipelineEmitter, PipelineReceiver]]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            (
                await stack.enter_async_context(
                    PipelineEmitter(space, pipeline, **options)
                ),
                await stack.enter_async_context(PipelineReceiver(space, pipeline)),
            )
            for space in spaces
        ]


async def settled(both: list[tuple[PipelineEmitter, PipelineReceiver]]) -> None:
    """Wait until everybody has what everybody has. Taking in may make rows."""
    for _ in range(3):
        for emitter, _ in both:
            await emitter.drained()
        for _, receiver in both:
            await receiver.caught_up()


async def write(space: Space, page: int, text: str) -> None:
    async with space.transaction() as tx:
        tx[f"page/{page}"]["title"] = text
        tx[f"page/{page}"].text("body").insert(0, text)
        tx[f"page/{page}"].counter("n").increment()


async def shown(space: Space) -> dict[str, Any]:
    return {id: page.to_dict() async for id, page in space.documents("page")}


async def test_members_converge_over_a_pipeline_alone(
    pipeline: Pipeline, spaces: list[Space]
) -> None:
    async with carried(pipeline, *spaces) as both:
        await settled(both)
        for number, space in enumerate(spaces):
            await write(space, 1, f"t{number} ")
            await write(space, 2 + number, "own")
        await settled(both)
        for number, space in enumerate(spaces):
            await write(space, 1, f"u{number} ")
        await settled(both)
        states = [await shown(space) for space in spaces]

    assert states[0] == states[1] == states[2]
    assert states[0]["1"]["n"] == 6
    assert len(states[0]["1"]["body"]) == 18
    assert [r.refused for _, r in both] == [0, 0, 0]
    assert {e.health for e, _ in both} == {"healthy"}


async def test_it_goes_on_where_it_was(pipeline: Pipeline, spaces: list[Space]) -> None:
    first, second, _ = spaces
    published = 0
    for round_ in range(3):
        await write(first, round_, "a")
        await write(second, round_ + 10, "b")
        async with carried(pipeline, first, second) as both:
            await settled(both)
            published += both[0][0].get_metrics().rows_published
            assert await shown(first) == await shown(second)
    assert len(await shown(first)) == 6
    assert published < 15, "what is out is not published again"


async def test_rows_are_packed(pipeline: Pipeline, spaces: list[Space]) -> None:
    first, second, _ = spaces
    async with carried(pipeline, first, second) as both:
        await settled(both)
        before = both[0][0].get_metrics()
        for number in range(300):
            async with first.transaction(wait=False) as tx:
                tx[f"page/{number}"]["n"] = number
        await settled(both)
        metrics = both[0][0].get_metrics()
        entries = metrics.entries_published - before.entries_published
        assert entries <= 10
        assert len(await shown(second)) == 300


async def test_a_large_change_goes_in_pieces(
    pipeline: Pipeline, spaces: list[Space]
) -> None:
    first, second, _ = spaces
    async with carried(pipeline, first, second) as both:
        async with first.transaction() as tx:
            tx["page/1"]["blob"] = bytes(limits.CHANGE_BYTES_MAX - 1000)
        await write(first, 2, "after")
        await settled(both)
        assert await shown(second) == await shown(first)
        assert both[0][0].get_metrics().entries_published >= 8


async def test_what_is_written_while_the_pipeline_is_away_goes_out_later(
    spaces: list[Space],
) -> None:
    first, second, _ = spaces
    pipeline = Flaky()
    async with carried(pipeline, first, second, retry_delay=1) as both:
        await settled(both)
        pipeline.away = True
        for number in range(20):
            await write(first, number, "x")
        emitter = both[0][0]
        async with asyncio.timeout(5):
            while emitter.health != "degraded":
                await asyncio.sleep(0.001)
        assert emitter.pending > 0
        assert isinstance(emitter.last_error, OSError)
        assert await shown(second) == {}
        pipeline.away, pipeline.mute = False, True
        await settled(both)
        assert (emitter.health, emitter.pending) == ("healthy", 0)
        assert await shown(second) == await shown(first)
        metrics = emitter.get_metrics()
        assert metrics.retries > 0
        assert metrics.duplicates > 0


async def test_writers_wait_for_room(spaces: list[Space]) -> None:
    pipeline = Flaky()
    pipeline.away = True
    space = spaces[0]
    options: dict[str, Any] = {"max_pending": 5, "retry_delay": 1}
    async with PipelineEmitter(space, pipeline, **options) as emitter:
        for number in range(10):
            await write(space, number, "x")
        waiting = asyncio.create_task(emitter.room())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        pipeline.away = False
        await waiting
        await emitter.drained()
        assert emitter.pending == 0


async def test_who_is_stopped_says_so(spaces: list[Space]) -> None:
    pipeline = Flaky()
    pipeline.away = True
    emitter = PipelineEmitter(spaces[0], pipeline, retry_delay=1)
    with pytest.raises(Closed):
        await emitter.drained()
    await emitter.start()
    with pytest.raises(Invalid, match="already"):
        await emitter.start()
    await write(spaces[0], 1, "x")
    waiting = asyncio.create_task(emitter.drained())
    await asyncio.sleep(0.01)
    await emitter.stop()
    await emitter.stop()
    with pytest.raises(Closed):
        await waiting


async def test_forged_entries_harm_nobody(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    first, second, _ = spaces
    name = bytes(first.engine.keeper.namespace)
    at = pipeline.partition_of(name)
    encode = syncengine.values.encode
    async with carried(pipeline, first, second) as both:
        await settled(both)
        hostile: list[Any] = [
            b"",
            b"\xc1nonsense",
            encode([1, 2, 3]),
            encode([b"x" * 16, 5, 2, b""]),
            encode([b"x" * 16, 0, 10**9, b""]),
            encode([b"x" * 16, 0, 1, b"no rows"]),
            encode([b"y" * 16, 0, 2, b"half"]),
            encode([b"y" * 16, 1, 3, b"of another"]),
            encode([[1] * 16, 0, 2, b""]),
            encode([b"x" * 16, 0.5, 2, b""]),
            encode([b"x" * 16, 0, 2.0, b""]),
        ]
        for number, payload in enumerate(hostile):
            await pipeline.publish(at, name, b"h%d" % number, payload)
        for number in range(300):
            pack = encode([b"%016d" % number, 0, 2, bytes(100)])
            await pipeline.publish(at, name, b"p%d" % number, pack)
        await write(first, 1, "good")
        await settled(both)
        assert await shown(second) == await shown(first)
        receiver = both[1][1]
        assert receiver.refused >= 10  # some are read again
        assert receiver.is_running
        assert len(receiver._partial) <= 257


async def test_a_bridge_hands_on_what_others_wrote(spaces: list[Space]) -> None:
    one, other = MemoryPipeline(4), MemoryPipeline(4)
    first, between, last = spaces
    async with (
        carried(one, first, between) as here,
        carried(other, between, last, name="other", bridge=True) as there,
        PipelineEmitter(between, one, name="back", bridge=True) as back,
    ):
        await write(first, 1, "from the first")
        await write(last, 2, "from the last")
        for _ in range(3):
            await settled(here)
            await settled(there)
            await back.drained()
        states = [await shown(space) for space in spaces]
    assert states[0] == states[1] == states[2]
    assert len(states[0]) == 2


@pytest.mark.parametrize(
    "option",
    ["batch_size", "batch_bytes", "flush_interval_ms", "retry_delay", "max_pending"],
)
async def test_wrong_options_are_refused(spaces: list[Space], option: str) -> None:
    for value in (-1, 1.5, "x", True):
        with pytest.raises(Invalid, match=option):
            PipelineEmitter(spaces[0], MemoryPipeline(), **{option: value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_who_is_there_already_waits_for_nothing(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    first, second, _ = spaces
    async with carried(pipeline, first, second) as both:
        await write(first, 1, "x")
        await settled(both)
    async with carried(pipeline, first, second) as both, asyncio.timeout(5):
        await both[0][0].drained()
        await both[0][0].room()
        await both[1][1].caught_up()


async def test_a_cursor_is_of_one_pipeline(spaces: list[Space]) -> None:
    first, second, _ = spaces
    for number in range(3):
        # As when its file was lost, or another one is taken.
        async with carried(MemoryPipeline(4), first, second) as both:
            await write(first, number, "x")
            await settled(both)
            assert await shown(second) == await shown(first)
    assert len(await shown(second)) == 3


async def test_what_did_not_fit_is_read_again(spaces: list[Space]) -> None:
    pipeline, shuffled = MemoryPipeline(4), MemoryPipeline(4)
    first, second, _ = spaces
    options: dict[str, Any] = {"batch_size": 1, "flush_interval_ms": 0}
    async with carried(pipeline, first, second) as both:
        await settled(both)
    async with PipelineEmitter(first, pipeline, **options) as emitter:
        for number in range(6):
            await write(first, number, "x")
            await emitter.drained()
    name = bytes(first.engine.keeper.namespace)
    at = pipeline.partition_of(name)
    entries = [entry for entry in await pipeline.read(at) if entry.namespace == name]
    for entry in (*entries[:-6], *entries[-5:], entries[-6]):
        await shuffled.publish(at, name, entry.id, entry.payload)
    async with PipelineReceiver(second, shuffled, waiting_max=2) as receiver:
        async with asyncio.timeout(10):
            while len(await shown(second)) < 6:
                await receiver.caught_up()
                await asyncio.sleep(0.01)


async def test_what_is_not_kept_any_more_is_passed_over(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    first, second, _ = spaces
    async with carried(pipeline, first, second) as both:
        await settled(both)
        at = pipeline.partition_of(bytes(first.engine.keeper.namespace))
    _, last = await pipeline.bounds(at)
    async with PipelineEmitter(first, pipeline) as emitter:
        await write(first, 1, "x")
        await emitter.drained()
        await pipeline.truncate(at, last + 2)
        async with PipelineReceiver(second, pipeline) as receiver, asyncio.timeout(5):
            await receiver.caught_up()
            assert receiver.gaps == 1
            assert receiver.is_running


WRITER = """
import asyncio, sys
import syncengine
from syncengine import PipelineEmitter, SqlitePipeline

async def main():
    async with (
        syncengine.open(sys.argv[1]) as replica,
        await SqlitePipeline.open(sys.argv[2]) as pipeline,
    ):
        space = await replica.namespace("home")
        async with PipelineEmitter(space, pipeline, flush_interval_ms=1) as emitter:
            print("open", flush=True)
            for number in range(int(sys.argv[3]), 10_000):
                async with space.transaction() as tx:
                    tx[f"page/{number:05}"]["n"] = number
                print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_written_before_a_kill_comes_out_after_it(
    tmp_path: Path,
) -> None:
    notes, events = str(tmp_path / "notes.db"), str(tmp_path / "p.db")
    async with (
        syncengine.open(":memory:") as replica,
        await SqlitePipeline.open(events) as pipeline,
    ):
        async with syncengine.open(notes) as first:
            space = await first.namespace("home")
            ours = await replica.join(await space.invite("write"), name="home")
            async with carried(pipeline, space, ours) as both:
                await settled(both)
        written = 0
        async with PipelineReceiver(ours, pipeline) as receiver:
            for count in (1, 7, 30):
                child = subprocess.Popen(
                    [sys.executable, "-c", WRITER, notes, events, f"{written}"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert child.stdout is not None
                assert child.stdout.readline() == "open\n"
                for _ in range(count):
                    written = int(child.stdout.readline()) + 1
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                child.stdout.close()
            async with (
                syncengine.open(notes) as first,
                PipelineEmitter(await first.namespace("home"), pipeline) as emitter,
            ):
                await emitter.drained()
                wanted = await shown(await first.namespace("home"))
            await receiver.caught_up()
            assert len(wanted) >= written
            assert await shown(ours) == wanted


# --- pipelines that lose what they had ------------------------------------------------


async def pages(space: Space) -> list[str]:
    return sorted(await shown(space), key=int)


async def test_a_pipeline_that_begins_anew_gets_all_that_a_device_has(
    spaces: list[Space],
) -> None:
    """Its server was restarted at the same address, with another file."""
    kept, secret = MemoryPipeline(4), bytes(16)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
        server = transport.serve_pipeline(kept, secret=secret)
        await server.__aenter__()
        address, port = server.address, int(server.address.split(":")[2].split("/")[0])
        far = [
            await stack.enter_async_context(
                await transport.WebSocketPipeline.open(address)
            )
            for _ in range(2)
        ]
        both = [
            pair
            for space, carrier in zip(spaces, far, strict=False)
            for pair in await stack.enter_async_context(carried(carrier, space))
        ]
        await write(spaces[0], 1, "a")
        await settled(both)
        await server.__aexit__(None, None, None)

        await write(spaces[0], 2, "b")
        server = transport.serve_pipeline(MemoryPipeline(4), port=port, secret=secret)
        await stack.enter_async_context(server)
        await write(spaces[1], 3, "c")
        await settled(both)
        assert await pages(spaces[0]) == await pages(spaces[1]) == ["1", "2", "3"]

        late = await transport.WebSocketPipeline.open(server.address)
        async with late, carried(late, spaces[2]) as third:
            await settled([*both, *third])
            assert await pages(spaces[2]) == ["1", "2", "3"]


@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_pipeline_put_back_from_a_backup_gets_its_tail_again(
    tmp_path: Path, spaces: list[Space], is_ahead: bool
) -> None:
    """Also where what comes behind the backup takes the places of what was lost: a
    reader that is ahead of it would pass over it."""
    path = tmp_path / "p.db"
    first, second, _ = spaces
    async with await SqlitePipeline.open(str(path), partitions=4) as pipeline:
        async with carried(pipeline, first, second) as both:
            await write(first, 1, "a")
            await settled(both)
        backup = path.read_bytes()
        async with carried(pipeline, first) as one:
            for page in range(2, 5):
                await write(first, page, "b")
            await settled(one)
        if is_ahead:
            async with carried(pipeline, second) as two:
                await settled(two)
    for leftover in tmp_path.glob("p.db*"):
        leftover.unlink()
    path.write_bytes(backup)

    async with await SqlitePipeline.open(str(path), partitions=4) as pipeline:
        await write(first, 5, "c")
        async with carried(pipeline, first, second) as both, asyncio.timeout(30):
            await settled(both)
            assert await pages(second) == ["1", "2", "3", "4", "5"]
            assert [receiver.waiting for _, receiver in both] == [0, 0]


async def test_an_emitter_with_nothing_to_do_looks_too(
    spaces: list[Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncengine.replication.pipeline.MAKE_SURE_SECONDS", 0.05)
    first, second, _ = spaces
    pipeline = MemoryPipeline(4)
    async with carried(pipeline, first), asyncio.timeout(10):
        await write(first, 1, "a")
        number = pipeline.partition_of(bytes(first.engine.keeper.namespace))
        partition = pipeline._partitions[number]
        while partition.last == 0:
            await asyncio.sleep(0.01)
        for lost in (partition.entries, partition.ids, partition.last_of):
            lost.clear()
        partition.last = 0
        async with carried(pipeline, second):
            while not await shown(second):
                await asyncio.sleep(0.01)


# --- what is told and not kept --------------------------------------------------------


async def test_heartbeats_do_not_enter_the_log(tmp_path: Path) -> None:
    path = str(tmp_path / "p.db")
    async with (
        syncengine.open(":memory:") as one,
        syncengine.open(":memory:") as two,
        await SqlitePipeline.open(path, partitions=4) as pipeline,
        await SqlitePipeline.open(path) as other,
        asyncio.timeout(30),
    ):
        space = await one.namespace("home")
        theirs = await two.join(await space.invite("lead"), name="home")
        options: Any = {"heartbeat_interval_ms": 20, "heartbeat_timeout_ms": 300}
        leader = LeaderFollowerManager(
            "n1", "leader", pipeline, space, "home", **options
        )
        follower = LeaderFollowerManager(
            "n2", "follower", other, theirs, "home", **options
        )
        async with leader, follower:
            await leader.write("k", 1)
            while await follower.read("k") != 1 or follower.is_stale():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # what they write when they begin is out
            before = [await pipeline.bounds(n) for n in range(4)]
            beats = leader.get_metrics().heartbeats_sent
            while leader.get_metrics().heartbeats_sent < beats + 20:
                await asyncio.sleep(0.01)
            assert follower.is_leader_healthy()
            assert [await pipeline.bounds(n) for n in range(4)] == before
