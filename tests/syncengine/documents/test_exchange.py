"""Documents as JSON and back: nothing is lost, and a second time changes nothing."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

import syncengine
from syncengine import Counter, Document, Invalid, List, MultiValue, Set, Text, Whole


class Everything(Document):
    title: str
    when: datetime | None = None
    raw: bytes = b""
    n: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[Any] = List()
    body: Text = Text()
    several: MultiValue[Any] = MultiValue()
    whole: Whole[dict[str, list[int]]] = {}  # a default, copied


async def made() -> list[dict[str, Any]]:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            one = tx.create(Everything, "1", title="a/b~c")
            one.when = datetime(2026, 11, 23, tzinfo=UTC)
            one.raw = b"\x00\xff"
            one.n += 3
            one.tags.add("x")
            one.todo = ["plain", {"deep": [1, {"er": None}]}, 2.5]
            one.body.insert(0, "héllo")
            one.several.set(1, "two")
            one.whole = {"k": [1, 2]}
            page = tx["page/2"]
            page["a/b"] = {"~": {"text": "no text"}}
            page.counter("half").increment(0.5)
            page.map("m").text("inner").insert(0, "deep text")
            page.list("texts").append(Text())
        return [record async for record in space.dump()]


async def test_what_is_exported_is_imported_whole() -> None:
    records = json.loads(json.dumps(await made()))
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        assert await space.load(records) == 2
        assert [record async for record in space.dump()] == records
        one = await space.get(Everything, "1")
        assert one.raw == b"\x00\xff"
        assert one.when == datetime(2026, 11, 23, tzinfo=UTC)
        assert one.whole == {"k": [1, 2]}
        assert str((await space.get("page/2")).map("m").text("inner")) == "deep text"

        before = space.engine.next_seq
        await space.load(records)
        assert space.engine.next_seq == before, "a second time changes nothing"


async def test_what_differs_is_edited() -> None:
    records = await made()
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        await space.load(records)
        async with space.transaction() as tx:
            one = tx.get(Everything, "1")
            one.body.append(" world")
            one.n += 5
            one.tags.add("mine")
            tx["page/2"]["extra"] = 1
        await space.load(records)
        assert [record async for record in space.dump()] == records


async def test_a_part_is_chosen_by_how_paths_begin() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        await space.load(await made())
        found = [record["path"] async for record in space.dump("page/")]
        assert found == ["page/2"]


@pytest.mark.parametrize(
    "record",
    [[], "x", None, {"path": "a/b", "value": {1: 1}}, {}, {"path": 7}, {"path": "x"}, {"path": "a/b"}, {"path": "a/b", "value": 7},
     {"path": "a/b", "value": {"t": 7}, "types": {"/t": "text"}},
     {"path": "a/b", "value": {"t": "x"}, "types": {"/t": "tree"}},
     {"path": "a/b", "value": {"t": "x"}, "types": {"/t": "bytes"}},
     {"path": "a/b", "value": {"t": "x"}, "types": {"/t": "datetime"}},
     {"path": "a/b", "value": {"t": "x"}, "types": {"/t": "counter"}},
     {"path": "a/b", "value": {"t": True}, "types": {"/t": "counter"}},
     {"path": "a/b", "value": {"t": {}}, "types": {"/t": "set"}},
     {"path": "a/b", "value": {"ok": 1, "t": 2**70}}],
)  # fmt: skip
async def test_what_is_no_record_changes_nothing(record: Any) -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        with pytest.raises(Invalid):
            await space.load([record])
        assert space.collections() == []


async def test_what_has_no_json_form_is_named() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")

        class Odd(Document):
            whole: Whole[list[bytes]] = []  # a default, copied

        async with space.transaction() as tx:
            tx.create(Odd, "1", whole=[b"x"])
        with pytest.raises(Invalid, match="/whole/0"):
            _ = [record async for record in space.dump()]


async def test_sets_values_and_totals_of_any_kind_come_back() -> None:
    async with syncengine.open(":memory:") as one, syncengine.open(":memory:") as two:
        space, other = await one.namespace("home"), await two.namespace("home")
        async with space.transaction() as tx:
            for value in (True, 1, 1.0, [1, 2], {"a": 1}):
                tx["page/1"].set("s").add(value)
            tx["page/1"].multi("m").set({"a": [1]})
            tx["page/1"].counter("c").increment(2**63 - 1)
            tx["page/1"].counter("c").increment(2**63 - 1)
        await other.load([record async for record in space.dump()])
        here, there = await space.get("page/1"), await other.get("page/1")
        assert there.to_dict() == here.to_dict()
        assert list(map(type, there["s"])) == list(map(type, here["s"]))
