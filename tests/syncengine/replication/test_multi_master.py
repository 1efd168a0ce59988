"""Masters: each writes at once, and with the same versions all show the same."""

# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import (
    Change,
    Closed,
    Entity,
    EntityConflict,
    GCounter,
    Invalid,
    MemoryPipeline,
    MultiMasterManager,
    NotFound,
    PipelineEmitter,
    PipelineReceiver,
    Space,
    VectorClock,
)
from syncengine.storage.pipeline.contract import Ack
from tests.wires import Flaky, meet

Make = Callable[..., MultiMasterManager]
NAMES = ("master-usa", "master-eu", "master-asia")


@pytest.fixture
async def spaces() -> AsyncGenerator[list[Space]]:
    """Three members that never met."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        replicas = [
            await stack.enter_async_context(syncengine.open(":memory:")) for _ in NAMES
        ]
        space = await replicas[0].namespace("home")
        invite = await space.invite("write", uses=2)
        yield [space, *[await r.join(invite, name="home") for r in replicas[1:]]]


@contextlib.asynccontextmanager
async def masters(
    spaces: list[Space], pipeline: MemoryPipeline, **options: Any
) -> AsyncGenerator[list[MultiMasterManager]]:
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                MultiMasterManager(name, pipeline, space, **options)
            )
            for name, space in zip(NAMES, spaces, strict=True)
        ]
        await settled(made)
        yield made


async def settled(made: list[MultiMasterManager]) -> None:
    """Wait until everybody has what everybody has."""
    for _ in range(3):
        for one in made:
            await one.drain()
        for one in made:
            await one.caught_up()


async def shown(made: list[MultiMasterManager], entity: str) -> Entity | None:
    """Return what all masters show: the same."""
    found = [await one.get_entity(entity) for one in made]
    assert all(one == found[0] for one in found), found
    return found[0]


async def test_a_write_is_here_at_once_and_there_later(spaces: list[Space]) -> None:
    alice = {"name": "Alice", "email": "alice@example.com", "region": "USA"}
    async with masters(spaces, MemoryPipeline(4)) as made:
        result = await made[0].write("customer-123", alice)
        assert result.success
        assert (result.master_id, result.entity_id) == ("master-usa", "customer-123")
        assert not result.queued
        here = await made[0].get_entity("customer-123")
        assert here is not None
        assert here.data == alice
        await settled(made)
        there = await shown(made, "customer-123")
    assert there is not None
    assert (there.type, there.version, there.conflicted) == ("entity", 1, False)
    assert there.updated_at == result.timestamp


async def test_clocks_tell_who_knew_of_what(spaces: list[Space]) -> None:
    async with masters(spaces, MemoryPipeline(4)) as made:
        usa, eu, _ = made
        first = await usa.write("entity-1", {"step": 1})
        assert first.vector_clock == {"master-usa": 1}
        assert usa.get_vector_clock() == VectorClock({"master-usa": 1})
        second = await usa.write("entity-1", {"step": 2})
        assert second.vector_clock == {"master-usa": 2}
        await settled(made)
        third = await eu.write("entity-1", {"step": 3})
        assert third.vector_clock == {"master-eu": 1, "master-usa": 2}
        await settled(made)
        assert [one.get_vector_clock().to_json() for one in made] == [
            {"master-eu": 1, "master-usa": 2}
        ] * 3
        assert await usa.get_conflicts() == []
        assert made[2].get_metrics().vector_clock_nodes == 2


async def test_the_latest_of_two_writes_shows_and_the_conflict_is_told(
    spaces: list[Space],
) -> None:
    told: list[EntityConflict] = []
    applied: list[Change] = []
    async with masters(spaces, MemoryPipeline(4)) as made:
        usa, eu, asia = made
        asia.on("conflictDetected", told.append)
        asia.on("eventApplied", applied.append)
        await usa.write("c", {"name": "Alice"})
        await eu.write("c", {"name": "Alice Smith"})
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data in ({"name": "Alice"}, {"name": "Alice Smith"})
        conflicts = [await one.get_conflicts() for one in made]
        assert len({conflict.id for (conflict,) in conflicts}) == 1
        (conflict,) = conflicts[2]
        assert told == [conflict]
        assert {v.master_id for v in conflict.versions} == {"master-usa", "master-eu"}
        assert [v.data for v in conflict.versions][-1] == entity.data
        assert conflict.resolution == "lww"
        assert await asia.get_pending_conflicts() == []
        metrics = asia.get_metrics()
        assert (metrics.conflicts_detected, metrics.events_applied) == (1, 2)
        assert len(applied) == 2
        assert asia.conflict_rate() == 0.5
        assert await asia.hot_entities() == [("c", 1)]
        results = [await asia.apply_remote_event(event) for event in applied]
        assert all(result.is_conflict for result in results)
        assert {result.entity_ids for result in results} == {("c",)}


async def test_equal_writes_are_no_conflict(spaces: list[Space]) -> None:
    async with masters(spaces, MemoryPipeline(4)) as made:
        for one in made:
            await one.write("c", {"name": "Alice"})
        await settled(made)
        await shown(made, "c")
        assert await made[0].get_conflicts() == []


async def test_people_decide_where_they_are_to(spaces: list[Space]) -> None:
    async with masters(spaces, MemoryPipeline(4), conflict_strategy="manual") as made:
        usa, eu, asia = made
        await usa.write("cart", {"items": ["milk"]})
        await eu.write("cart", {"items": ["tea"]})
        await settled(made)
        entity = await shown(made, "cart")
        assert entity is not None
        assert entity.conflicted
        (pending,) = await asia.get_pending_conflicts()
        assert pending.resolution_options == ["local", "remote", "merge"]
        # Who goes on writing decides about nothing.
        await asia.write("cart", {"items": ["tea", "eggs"]})
        await settled(made)
        (later,) = await usa.get_pending_conflicts()
        assert later.id != pending.id
        versions = [version.data["items"] for version in later.versions]
        assert len(versions) == 2
        await usa.resolve_conflict(
            "cart", {"items": sorted({*versions[0], *versions[1]})}
        )
        await settled(made)
        entity = await shown(made, "cart")
        assert entity is not None
        assert not entity.conflicted
        for one in made:
            assert await one.get_pending_conflicts() == []
            how = [conflict.resolution for conflict in await one.get_conflicts()]
            assert how == ["superseded", "resolved"]
        with pytest.raises(NotFound):
            await eu.resolve_conflict("cart", {})


async def test_detecting_shows_the_latest_and_waits_for_people(
    spaces: list[Space],
) -> None:
    async with masters(spaces, MemoryPipeline(4), conflict_strategy="detect") as made:
        await made[0].write("c", 1)
        await made[1].write("c", 2)
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.conflicted
        (conflict,) = await made[2].get_pending_conflicts()
        assert sorted(version.data for version in conflict.versions) == [1, 2]
        await made[2].write("c", 3)
        await settled(made)
        assert await made[0].get_pending_conflicts() == []


async def test_fields_that_different_masters_wrote_are_all_there(
    spaces: list[Space],
) -> None:
    async with masters(spaces, MemoryPipeline(4), conflict_strategy="field") as made:
        usa, eu, _ = made
        await usa.write("c", {"name": "A", "age": 1, "city": "X"})
        await settled(made)
        await usa.write("c", {"name": "B", "age": 1, "city": "X"})
        await eu.write("c", {"name": "A", "age": 2, "city": "X"})
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data == {"name": "B", "age": 2, "city": "X"}
        await usa.write("c", {**entity.data, "city": "Y"})
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data == {"name": "B", "age": 2, "city": "Y"}


async def test_values_that_merge_merge(spaces: list[Space]) -> None:
    async with masters(spaces, MemoryPipeline(4), conflict_strategy="crdt") as made:
        for one in made:
            views = GCounter(one.get_master_id())
            views.increment(5)
            await one.write("c", {"views": views, "by": one.get_master_id()})
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data["views"].value() == 15
        entity = await made[0].get_entity("c")
        assert entity is not None
        entity.data["views"].increment(1)
        await made[0].write("c", entity.data)
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data["views"].value() == 16


def union(local: Entity, remote: Entity) -> Entity:
    data = {
        **local.data,
        **remote.data,
        "tags": sorted({*local.data.get("tags", []), *remote.data.get("tags", [])}),
        "viewCount": max(local.data["viewCount"], remote.data["viewCount"]),
    }
    version = max(local.version, remote.version) + 1
    return replace(remote, data=data, version=version)


async def test_a_function_decides(spaces: list[Space]) -> None:
    async with masters(
        spaces,
        MemoryPipeline(4),
        conflict_strategy="custom",
        merge_fn=union,
        debug=True,
    ) as made:
        for number, one in enumerate(made):
            await one.write("p", {"tags": [f"t{number}", "all"], "viewCount": number})
        await settled(made)
        entity = await shown(made, "p")
    assert entity is not None
    assert entity.data == {"tags": ["all", "t0", "t1", "t2"], "viewCount": 2}
    assert entity.version == 3


def nothing(local: Entity, remote: Entity) -> Any:
    return None


def raises(local: Entity, remote: Entity) -> Entity:
    raise ZeroDivisionError


@pytest.mark.parametrize("wrong", [nothing, raises])
async def test_a_function_that_fails_loses_nothing(
    spaces: list[Space], wrong: Any
) -> None:
    async with masters(
        spaces, MemoryPipeline(4), conflict_strategy="custom", merge_fn=wrong
    ) as made:
        await made[0].write("p", {"n": 0})
        await made[1].write("p", {"n": 1})
        await settled(made)
        entity = await shown(made, "p")
        assert entity is not None
        assert entity.data in ({"n": 0}, {"n": 1})
        assert entity.conflicted
        assert made[0].get_metrics().merge_failures > 0
        (conflict,) = await made[0].get_conflicts()
        assert len(conflict.versions) == 2


async def test_what_was_deleted_is_gone_unless_somebody_wrote_later(
    spaces: list[Space],
) -> None:
    async with masters(spaces, MemoryPipeline(4)) as made:
        await made[0].write("c", {"n": 1})
        await settled(made)
        await made[1].delete("c")
        assert await made[1].get_entity("c") is None
        await settled(made)
        assert await shown(made, "c") is None
        await made[2].write("c", {"n": 2})
        await settled(made)
        entity = await shown(made, "c")
        assert entity is not None
        assert (entity.data, entity.version) == ({"n": 2}, 3)
        assert await made[0].get_entity("never") is None


async def test_what_is_written_offline_is_queued_and_goes_out(
    spaces: list[Space],
) -> None:
    pipeline = MemoryPipeline(4)
    usa, eu, _ = (
        MultiMasterManager(name, pipeline, space)
        for name, space in zip(NAMES, spaces, strict=True)
    )
    result = await usa.write("c", {"n": 1})
    assert result.success
    assert result.queued
    async with usa, eu:
        await settled([usa, eu])
        assert await shown([usa, eu], "c") is not None
        assert not (await usa.write("c", {"n": 2})).queued


async def test_conflicts_survive_a_restart_and_are_seen_by_sql(tmp_path: Path) -> None:
    pipeline = MemoryPipeline(4)
    path = tmp_path / "a.db"
    async with syncengine.open(":memory:") as other, asyncio.timeout(60):
        async with syncengine.open(path) as replica:
            space = await replica.namespace("home")
            theirs = await other.join(await space.invite("write"), name="home")
            options: Any = {"conflict_strategy": "manual"}
            eu = MultiMasterManager("eu", pipeline, theirs, **options)
            await eu.subscribe()
            async with MultiMasterManager("usa", pipeline, space, **options) as usa:
                await settled([usa, eu])
                await usa.write("c", {"n": 1, "raw": b"x"})
                await eu.write("c", {"n": 2})
                await settled([usa, eu])
                (before,) = await usa.get_pending_conflicts()
                clock = usa.get_vector_clock()
            await eu.write("d", 1)
            await eu.drain()
        async with syncengine.open(path) as replica:
            space = await replica.namespace("home")
            async with MultiMasterManager("usa", pipeline, space, **options) as usa:
                await usa.write("d", 2)
                await settled([usa, eu])
                pending = await usa.get_pending_conflicts()
                assert [conflict.entity_id for conflict in pending] == ["c", "d"]
                assert pending[0] == before
                assert VectorClock.compare(clock, usa.get_vector_clock()) == "before"
        await eu.close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT entity, json_array_length(versions) FROM _sync_versions ORDER BY 1"
        )
        assert rows.fetchall() == [("entity/c", 2), ("entity/d", 2)]


async def test_another_strategy_takes_over_what_stands(spaces: list[Space]) -> None:
    """What nobody was asked about is asked, and what was asked is decided."""
    pipeline = MemoryPipeline(4)
    async with masters(spaces, pipeline) as (usa, eu, _):
        await usa.write("c", {"n": 1})
        await eu.write("c", {"n": 2})
        await settled([usa, eu])
        (before,) = await usa.get_conflicts()
        assert before.resolution == "lww"
        assert not await usa.get_pending_conflicts()

    told: list[EntityConflict] = []
    manual = MultiMasterManager(
        NAMES[0], pipeline, spaces[0], conflict_strategy="manual"
    )
    manual.on("conflictDetected", told.append)
    async with manual:
        await manual.caught_up()
        undecided = replace(before, resolved_at=None, resolution=None)
        assert await manual.get_pending_conflicts() == told == [undecided]
    async with MultiMasterManager(
        NAMES[0], pipeline, spaces[0], conflict_strategy="field"
    ) as field:
        assert not await field.get_pending_conflicts()
        (after,) = await field.get_conflicts()
        assert after.id == before.id
        assert after.resolution == "field"
    async with MultiMasterManager(
        NAMES[0], pipeline, spaces[0], conflict_strategy="manual"
    ) as manual:
        await manual.caught_up()
        await manual.resolve_conflict("c", 3)
        assert not await manual.get_pending_conflicts()
        (after,) = await manual.get_conflicts()
        assert after.resolution == "resolved"


def both(local: Entity, remote: Entity) -> Entity:
    return replace(remote, data={**local.data, **remote.data})


@pytest.mark.parametrize("strategy", ["lww", "manual", "detect", "field", "custom"])
@pytest.mark.parametrize("seed", range(3))
async def test_masters_converge_and_then_write_no_more(
    spaces: list[Space], strategy: Any, seed: int
) -> None:
    chance = random.Random(seed)
    options: dict[str, Any] = {"conflict_strategy": strategy}
    if strategy == "custom":
        options["merge_fn"] = both
    async with masters(spaces, MemoryPipeline(4), **options) as made:
        for number in range(40):
            one, entity = chance.choice(made), f"e{chance.randrange(3)}"
            match chance.randrange(8):
                case 0:
                    await one.delete(entity)
                case 1:
                    await settled(chance.sample(made, 2))
                case 2:
                    for conflict in await one.get_pending_conflicts():
                        with contextlib.suppress(NotFound):
                            data = conflict.versions[0].data
                            await one.resolve_conflict(conflict.entity_id, data)
                case _:
                    field = chance.choice("ab")
                    before = await one.get_entity(entity)
                    kept: dict[str, Any] = {}
                    if before is not None and chance.random() < 0.5:
                        kept = before.data or {}
                    await one.write(entity, {**kept, field: number})
        await settled(made)
        for number in range(3):
            await shown(made, f"e{number}")
        pending = [
            {(c.entity_id, c.id) for c in await one.get_pending_conflicts()}
            for one in made
        ]
        assert pending[0] == pending[1] == pending[2]
        versions = [space.engine.version for space in spaces]
        await settled(made)
        assert [space.engine.version for space in spaces] == versions


async def test_a_master_is_added_and_removed(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    usa, eu = (
        MultiMasterManager(name, pipeline, space)
        for name, space in zip(NAMES[:2], spaces[:2], strict=True)
    )
    async with usa, eu:
        for number in range(20):
            await usa.write(f"e{number}", number)
        await usa.drain()
        # It comes later, and has what was written before.
        asia = MultiMasterManager("master-asia", pipeline, spaces[2])
        await asia.subscribe()
        await settled([usa, eu, asia])
        for number in range(20):
            entity = await asia.get_entity(f"e{number}")
            assert entity is not None
            assert entity.data == number
        here = {"status": "online", "joinedAt": 1}
        await asia.write("_cluster:master-asia", here)
        await settled([usa, eu, asia])
        presence = await usa.get_entity("_cluster:master-asia")
        assert presence is not None
        assert presence.data == here

        await asia.write("last", "words")
        await asia.write("_cluster:master-asia", {"status": "leaving", "leftAt": 2})
        await asia.drain()
        await asia.close()
        await settled([usa, eu])
        last = await eu.get_entity("last")
        assert last is not None
        assert last.data == "words"


async def test_masters_write_on_while_they_are_parted(spaces: list[Space]) -> None:
    told: list[str] = []
    one, other = MemoryPipeline(4), MemoryPipeline(4)
    first, second = spaces[:2]
    usa = MultiMasterManager("usa", one, first)
    eu = MultiMasterManager("eu", other, second)

    def note(conflict: EntityConflict) -> None:
        told.append(conflict.entity_id)

    usa.on("conflictDetected", note)
    async with usa, eu:
        for number in range(5):
            assert (await usa.write("c", {"usa": number})).success
            assert (await eu.write("c", {"eu": number})).success
        assert await usa.get_conflicts() == []
        # It heals: whoever has both carries over.
        async with (
            PipelineEmitter(first, other, name="heal"),
            PipelineReceiver(first, other, name="heal") as here,
            PipelineEmitter(second, one, name="heal") as back,
        ):
            for _ in range(3):
                await eu.drain()
                await here.caught_up()
                await back.drained()
                await settled([usa, eu])
            await shown([usa, eu], "c")
            await usa.get_conflicts()
        assert set(told) == {"c"}
        ids = [{c.id for c in await one.get_conflicts()} for one in (usa, eu)]
        assert ids[0] & ids[1]


async def test_a_master_that_was_away_catches_up(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    async with MultiMasterManager("usa", pipeline, spaces[0]) as usa:
        async with MultiMasterManager("eu", pipeline, spaces[1]) as eu:
            await settled([usa, eu])
        for number in range(200):
            await usa.write(f"e{number % 50}", number)
        await usa.drain()
        recovered = MultiMasterManager(
            "eu", pipeline, spaces[1], event_buffer_size=10_000
        )
        async with recovered as eu:
            await settled([usa, eu])
            for number in range(150, 200):
                entity = await shown([usa, eu], f"e{number % 50}")
                assert entity is not None
                assert entity.data == number
            metrics = eu.get_metrics()
            assert metrics.events_applied >= 50
            assert metrics.event_buffer_size == 0


class Leaky(MemoryPipeline):
    """Stores something else instead of an entry when asked to."""

    loses_next = False

    async def publish(
        self,
        partition: int,
        namespace: bytes,
        id: bytes,
        payload: bytes,
        **options: Any,
    ) -> Ack:
        if self.loses_next:
            self.loses_next, payload = False, b"junk"
        return await super().publish(partition, namespace, id, payload, **options)


async def test_what_waits_for_something_before_it_is_counted(
    spaces: list[Space],
) -> None:
    pipeline = Leaky(4)
    async with masters(spaces, pipeline) as made:
        usa, eu, _ = made
        await usa.write("e", {"n": 0})
        await settled(made)
        pipeline.loses_next = True
        for number in range(1, 103):
            await usa.write("e", {"n": number})
            while usa._emitter.pending:  # type: ignore[union-attr]  # a drain would look
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while eu.get_metrics().event_buffer_size <= 100:
                await asyncio.sleep(0.01)
        entity = await eu.get_entity("e")
        assert entity is not None
        assert entity.data == {"n": 0}
        for space in spaces[1:]:
            await meet(spaces[0], space)  # a link brings what the pipeline lost
        await settled(made)
        assert (await shown(made, "e")).data == {"n": 102}  # type: ignore[union-attr]  # it is there
        async with asyncio.timeout(10):
            while eu.get_metrics().event_buffer_size:
                await asyncio.sleep(0.01)


async def test_a_clock_that_is_off_shows_in_what_it_wrote(spaces: list[Space]) -> None:
    async with masters(spaces, MemoryPipeline(4)) as made:
        await made[0].write("test-entity", {})
        entity = await made[0].get_entity("test-entity")
        assert entity is not None
        now = spaces[0].engine.clock.now_ms()
        assert abs(now - entity.updated_at) < 60_000


async def test_what_others_cannot_read_is_refused_and_harms_nobody(
    spaces: list[Space],
) -> None:
    odd: Any = {"v": {"$crdt": "nope", "state": 1}}
    tricky = {"$bytes": "hello", "$at": "x"}
    pipeline = Flaky()
    async with masters(spaces, pipeline, conflict_strategy="manual") as made:
        with pytest.raises(Invalid, match="nope"):
            await made[0].write("c", odd)

        async def written(number: int, one: MultiMasterManager) -> None:
            name, data = one.get_master_id(), odd | {"n": number}
            version: list[Any] = [name, data, {}, 5, 1, "t", {}, False]
            async with spaces[number].transaction() as tx:  # another program's, say
                tx["entity/c"].multi("versions").set(version)
            await one.write("d", {**tricky, "n": number})
            await one.write("e", {"$map": {"$bytes": str(number)}})

        pipeline.away = True
        await asyncio.gather(*(written(*of) for of in enumerate(made[:2])))
        pipeline.away = False
        await settled(made)
        pending = {c.entity_id: c for c in await made[2].get_pending_conflicts()}
        assert pending.keys() == {"c", "d", "e"}
        assert {**tricky, "n": 0} in [v.data for v in pending["d"].versions]
        data = [v.data for v in pending["e"].versions]
        assert {"$map": {"$bytes": "1"}} in data
        entity = await shown(made, "c")
        assert entity is not None
        assert entity.data["v"] == odd["v"]
        await made[2].resolve_conflict("c", 1)
        await settled(made)
        assert len(await made[0].get_pending_conflicts()) == 2


async def test_collections_do_not_mix(spaces: list[Space]) -> None:
    pipeline = MemoryPipeline(4)
    options: dict[str, Any] = {"conflict_strategy": "manual", "collection": "one"}
    async with masters(spaces, pipeline, **options) as made:
        await made[0].write("c", 1)
        await made[1].write("c", 2)
        await settled(made)
        options["collection"] = "two"
        async with MultiMasterManager("x", None, spaces[0], **options) as other:
            assert await other.get_conflicts() == []
            assert await other.hot_entities() == []
        assert len(await made[0].get_pending_conflicts()) == 1


async def test_who_asks_and_is_cancelled_keeps_nobody_from_being_told(
    spaces: list[Space],
) -> None:
    told: list[str] = []

    async def slow(conflict: EntityConflict) -> None:
        await asyncio.sleep(0.01)
        told.append(conflict.entity_id)

    async with masters(spaces, MemoryPipeline(4)) as made:
        made[2].on("conflictDetected", slow)
        for number in range(4):
            await made[0].write(f"c{number}", 1)
            await made[1].write(f"c{number}", 2)
        for one in made[:2]:
            await one.drain()
        for turns in range(30):
            asking = asyncio.create_task(made[2].get_conflicts())
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            asking.cancel()
        await settled(made)
        closing = asyncio.create_task(made[2].close())
        await asyncio.sleep(0)
        closing.cancel()
        await made[2].close()
    assert sorted(told) == ["c0", "c1", "c2", "c3"]


async def test_writes_at_once_are_counted_each(spaces: list[Space]) -> None:
    async with MultiMasterManager("a", MemoryPipeline(4), spaces[0]) as master:
        writes = (master.write(f"e{number}", number) for number in range(10))
        results = await asyncio.gather(*writes)
        clocks = [result.vector_clock for result in results]
        assert clocks == [{"a": number} for number in range(1, 11)]
        assert master.get_vector_clock() == VectorClock({"a": 10})


async def test_an_event_that_is_not_here_is_said_to_be_not_here(
    spaces: list[Space],
) -> None:
    pipeline = MemoryPipeline(4)
    async with MultiMasterManager("a", pipeline, spaces[0], apply_timeout=20) as one:
        result = await one.apply_remote_event(syncengine.ids.node_id((bytes(16), 1)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert not result.success
    assert result.error_code == "EVENT_NOT_HERE"


async def test_a_closed_master_says_so(spaces: list[Space]) -> None:
    master = MultiMasterManager("a", MemoryPipeline(4), spaces[0])
    await master.subscribe()
    await master.subscribe()
    await master.close()
    await master.close()
    result = await master.write("c", 1)
    assert (result.success, result.error_code) == (False, "MANAGER_CLOSED")
    with pytest.raises(Closed, match="closed"):
        await master.subscribe()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"master_id": ""}, "name"),
        ({"conflict_strategy": "newest"}, "no conflict strategy"),
        ({"conflict_strategy": "custom"}, "merge_fn"),
        ({"merge_fn": union}, "merge_fn"),
        ({"event_buffer_size": 0}, "event_buffer_size"),
        ({"apply_timeout": "5"}, "apply_timeout"),
        ({"collection": "Bad Name"}, "collection"),
    ],
)
async def test_wrong_options_are_refused(
    spaces: list[Space], options: dict[str, Any], says: str
) -> None:
    given: dict[str, Any] = {"master_id": "a", "pipeline": None, **options}
    with pytest.raises(Invalid, match=says):
        MultiMasterManager(state_manager=spaces[0], **given)


async def test_what_is_no_entity_is_refused(spaces: list[Space]) -> None:
    async with MultiMasterManager("a", MemoryPipeline(4), spaces[0]) as master:
        for wrong in (object(), float("nan"), {1: 2}):
            with pytest.raises(Invalid):
                await master.write("c", wrong)
        with pytest.raises(Invalid):
            await master.write("a/b", 1)
        with pytest.raises(Invalid, match="conflictDetected"):
            master.on("nothing", print)
        assert await master.get_entity("c") is None


async def test_what_it_is_can_be_asked(spaces: list[Space]) -> None:
    async with MultiMasterManager("a", MemoryPipeline(4), spaces[0]) as master:
        assert (master.get_master_id(), master.get_conflict_strategy()) == ("a", "lww")
        await master.write("c", 1)
        assert master.get_metrics().writes_local == 1
