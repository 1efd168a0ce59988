"""Typed and untyped documents, as an application writes them."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import msgspec
import pytest

import syncengine
from syncengine import (
    Counter,
    Document,
    FloatCounter,
    FrozenDocument,
    Invalid,
    List,
    Map,
    MultiValue,
    NotFound,
    OutOfRange,
    Replica,
    Set,
    Space,
    Text,
    TooLarge,
    TransactionClosed,
    Whole,
    limits,
)
from syncengine.documents.fields import plain_value
from syncengine.ids import DocumentId
from tests.wires import Wire, meet, two_members


class Page(Document):
    sizes: Map[str, int] = Map()
    rows: List[List[str]] = List()


class Score(Document):
    by_name: Map[str, Counter] = Map()


class Account(Document):
    balance: FloatCounter = FloatCounter()


class Note(Document):
    title: str
    pinned: bool = False
    due: datetime | None = None
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    body: Text = Text()


# A class statement inside `pytest.raises`, as a call.
META: Any = type(Document)


@pytest.fixture
async def space() -> Any:
    async with syncengine.open(":memory:") as replica:
        yield await replica.namespace("home")


async def make(space: Space) -> None:
    async with space.transaction() as tx:
        tx.create(Note, "n", title="T", tags={"a"})


async def test_a_draft_reads_its_own_writes_and_ends_as_a_snapshot(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="T")
        note.likes += 2
        note.likes.increment(3)
        note.body.insert(0, "hello")
        note.body += "!"
        note.todo.append("x")
        note.tags.add("b")
        assert (note.likes, str(note.body), list(note.todo)) == (5, "hello!", ["x"])
    with pytest.raises(FrozenDocument, match="transaction"):
        note.title = "other"

    assert note.to_dict() == (await space.get(Note, "n")).to_dict()
    assert note.pinned is False


async def test_a_snapshot_never_changes(space: Space) -> None:
    await make(space)
    before = await space.get(Note, "n")
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        note.title = "new"
        note.body.insert(0, "text")
        note.tags.discard("a")

    assert (before.title, str(before.body), set(before.tags)) == ("T", "", {"a"})
    assert (await space.get(Note, "n")).title == "new"


async def test_a_snapshot_outlives_everything(tmp_path: Any) -> None:
    """The cache that let go of its document, later edits of parts that nobody had
    read, and the replica itself."""
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        await make(space)
        async with space.transaction() as tx:
            tx.get(Note, "n").body = "old"
        space.engine.documents.forget()
        before = await space.get(Note, "n")
        meta = before.meta.updated_at
        space.engine.documents.forget()
        async with space.transaction() as tx:
            note = tx.get(Note, "n")
            note.title, note.body = "new", "new"
            note.tags.add("b")
    assert before.to_dict()["title"] == "T"
    assert (str(before.body), set(before.tags)) == ("old", {"a"})
    assert before.meta.updated_at == meta
    assert meta is not None
    assert (note.title, str(note.body)) == ("new", "new")


async def test_a_snapshot_keeps_what_nobody_had_read_of_it(tmp_path: Any) -> None:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["page/1"]["tree"] = {"a": {"b": [1]}}
        space.engine.documents.forget()
        before = await space.get("page/1")
        async with space.transaction() as tx:
            del tx["page/1"]["tree"]
    assert before.to_dict() == {"tree": {"a": {"b": [1]}}}


async def test_what_is_being_edited_stays_in_memory(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CACHED_DOCUMENTS_MAX", 2)
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        await make(space)
        async with space.transaction(wait=False) as first:
            for number in range(9):
                first.create(Note, f"x{number}", title="X")
        while not space.engine._committing:
            await asyncio.sleep(0)
        async with space.transaction() as tx:
            note = tx.get(Note, "n")
            for number in range(9):  # used since: it is the first to go
                await space.get(Note, f"x{number}")
            await first.receipt  # its group is on disk: the cache lets go of some
            note.title = "edited"
        async with space.transaction() as tx:
            tx.create(Note, "other", title="X")
        space.engine.documents.forget()
        shown = await space.get(Note, "n")
        assert (shown.title, set(shown.tags)) == ("edited", {"a"})


async def test_a_failed_block_writes_nothing(space: Space) -> None:
    await make(space)
    drafts: list[Note] = []
    with pytest.raises(RuntimeError):
        async with space.transaction() as tx:
            note = tx.get(Note, "n")
            drafts.append(note)
            note.title = "lost"
            note.body.insert(0, "lost")
            note.todo.extend(["lost", "too"])
            drafts.append(tx.create(Note, "other", title="lost"))
            raise RuntimeError

    assert (await space.get(Note, "n")).to_dict()["title"] == "T"
    assert str((await space.get(Note, "n")).body) == ""
    assert await space.get(Note, "other", None) is None
    for use in (
        lambda: drafts[0].title,
        lambda: drafts[1].title,
        lambda: str(drafts[1].body),
        lambda: drafts[1].to_dict(),
        lambda: drafts[1].meta.updated_at,
        lambda: setattr(drafts[1], "title", "x"),
    ):
        with pytest.raises(TransactionClosed):
            use()


async def test_assigning_a_container_writes_the_difference(space: Space) -> None:
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="T", todo=["a", "b", "c"], body="kitten")
        note.todo = ["a", "x", "c"]
        note.body = "sitting"
        note.tags = {"p", "q"}
        note.likes = 7
        note.todo = note.todo + ["z"]

    assert note.to_dict()["todo"] == ["a", "x", "c", "z"]
    assert (str(note.body), sorted(note.tags), note.likes) == ("sitting", ["p", "q"], 7)


async def test_a_field_may_be_a_map(space: Space) -> None:
    async with space.transaction() as tx:
        rows: Any = [["x"]]
        page = tx.create(Page, "p", sizes={"a": 1}, rows=rows)
        page.sizes["b"] = 2
        page.sizes = {"b": 3, "c": 4}
        more: Any = ["y", "z"]
        page.rows.append(more)
    with pytest.raises(Invalid, match="page/p/sizes/d"):
        async with space.transaction() as tx:
            tx.get(Page, "p").sizes = {"d": "no"}  # type: ignore[dict-item]
    with pytest.raises(Invalid, match="page/p/rows/0/1"):
        async with space.transaction() as tx:
            tx.get(Page, "p").rows = [["x", 2]]  # type: ignore[list-item]
    shown = (await space.get(Page, "p")).to_dict()

    assert shown == {"sizes": {"b": 3, "c": 4}, "rows": [["x"], ["y", "z"]]}


async def test_items_become_what_was_declared(space: Space) -> None:
    plain: Any = {"a": 5}
    async with space.transaction() as tx:
        score: Any = tx.create(Score, "s", by_name=plain)
        score.by_name["a"] += 1
        score.by_name["a"].increment(2)
    assert (await space.get(Score, "s")).by_name["a"] == 8
    with pytest.raises(Invalid, match="score/s/by_name/a"):
        async with space.transaction() as tx:
            wrong: Any = {"a": True}
            tx.get(Score, "s").by_name = wrong


async def test_equal_values_of_another_type_are_written(space: Space) -> None:
    async with space.transaction() as tx:
        tx["page/1"]["list"], tx["page/1"]["map"] = [1, 2], {"a": 1}
    async with space.transaction() as tx:
        tx["page/1"]["list"], tx["page/1"]["map"] = [True, 2.0], {"a": True}
    shown = (await space.get("page/1")).to_dict()

    assert repr(shown) == repr({"list": [True, 2.0], "map": {"a": True}})


async def test_what_is_assigned_may_be_read_only_once(space: Space) -> None:
    await make(space)
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        note.todo = (word for word in ("b", "a"))
        note.todo = reversed(note.todo)
        note.tags = map(str, range(2))

    assert (list(note.todo), set(note.tags)) == (["a", "b"], {"0", "1"})


async def test_what_fails_half_way_writes_no_half(space: Space) -> None:
    await make(space)
    bad: Any = object()
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        note.body = "kept"
        for wrong in (
            lambda: tx.create(Note, "half", title="x", due=bad),
            lambda: note.todo.extend(["a", bad]),
            lambda: tx["page/1"].update(tree={"a": 1, "b": [2, bad]}),
        ):
            with pytest.raises((Invalid, TypeError)):
                wrong()
        note.body += "!"
    assert await space.get(Note, "half", None) is None
    assert list(note.todo) == []
    assert str((await space.get(Note, "n")).body) == "kept!"
    with pytest.raises(NotFound):
        await space.get("page/1")


async def test_what_is_nested_too_deep_is_named_and_writes_nothing(
    space: Space,
) -> None:
    deep: Any = "leaf"
    for _ in range(limits.DEPTH_MAX + 1):
        deep = {"a": deep}
    with pytest.raises(TooLarge, match=r"note/n/tree/a/a.*deeper") as caught:
        async with space.transaction() as tx:
            tx["note/n"]["tree"] = deep
    assert caught.value.bound == limits.DEPTH_MAX
    async with space.transaction() as tx:
        tx["note/n"]["tree"] = deep["a"]
    assert (await space.get("note/n"))["tree"].to_dict() == deep["a"]


async def test_plus_equals_on_an_untyped_counter_adds(space: Space) -> None:
    async with space.transaction() as tx:
        tx["page/1"].counter("n").increment(2)
    async with space.transaction() as tx:
        tx["page/1"]["n"] += 3
        tx["page/1"].counter("n").increment()

    assert (await space.get("page/1"))["n"] == 6


async def test_a_path_says_where_in_a_list_and_escapes_names(space: Space) -> None:
    with pytest.raises(Invalid, match=r"page/a~0b/rows/1/x~1y/z: "):
        async with space.transaction() as tx:
            page = tx["page/a~b"]
            page["rows"] = [1, {"x/y": {}}]
            page["rows"].insert(0, 0)
            del page["rows"][0]
            page["rows"][1]["x/y"]["z"] = float("nan")


WRITES: list[Callable[[Note], object]] = [
    lambda note: setattr(note, "title", "x"),
    lambda note: note.likes.increment(0),
    lambda note: note.likes.increment(),
    lambda note: note.tags.add("x"),
    lambda note: note.tags.clear(),
    lambda note: note.todo.extend([]),
    lambda note: note.todo.append("x"),
    lambda note: note.body.append(""),
    lambda note: note.body.insert(0, "x"),
]


@pytest.mark.parametrize("write", WRITES)
async def test_every_write_to_a_snapshot_is_refused(
    space: Space, write: Callable[[Note], object]
) -> None:
    await make(space)
    with pytest.raises(FrozenDocument):
        write(await space.get(Note, "n"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("title", 3), ("pinned", "yes"), ("due", datetime(2026, 1, 1)), ("tags", [1]),
     ("todo", "text"), ("body", 1), ("likes", "x"), ("title", "\ud800")],
)  # fmt: skip
async def test_wrong_values_are_named_by_path(
    space: Space, field: str, value: Any
) -> None:
    await make(space)
    with pytest.raises(Invalid, match=f"note/n/{field}"):
        async with space.transaction() as tx:
            setattr(tx.get(Note, "n"), field, value)

    assert (await space.get(Note, "n")).title == "T"


async def test_bounds_of_texts_and_lists_are_checked(space: Space) -> None:
    await make(space)
    async with space.transaction() as tx:
        note = tx.get(Note, "n")
        with pytest.raises(Invalid, match="beyond the length 0"):
            note.body.insert(1, "x")
        with pytest.raises(Invalid, match="beyond the length 0"):
            note.body.delete(0, 1)
        with pytest.raises(IndexError):
            note.todo[0] = "x"
        note.due = datetime(2026, 1, 1, tzinfo=UTC)

    assert note.due == datetime(2026, 1, 1, tzinfo=UTC)


async def test_untyped_documents_are_mappings(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["notes/1"]
        page["title"] = "front"
        page["tree"] = {"a": [1, {"b": 2}], "c": None}
        page.counter("total").increment(2)
        page.text("body").insert(0, "hi")
        page["tree"]["a"][1]["b"] = 3
        page["tree"]["a"].append([4])
        del page["tree"]["c"]
    shown = await space.get("notes/1")

    assert shown.to_dict() == {
        "title": "front",
        "tree": {"a": [1, {"b": 3}, [4]]},
        "total": 2,
        "body": "hi",
    }
    assert "title" in shown
    assert len(shown) == 4


async def test_a_deleted_document_begins_anew(space: Space) -> None:
    await make(space)
    async with space.transaction() as tx:
        tx.get(Note, "n").body.insert(0, "old")
        tx.delete(Note, "n")
    assert await space.get(Note, "n", None) is None
    async with space.transaction() as tx:
        note = tx.create(Note, "n", title="new")
        note.body.append("fresh")

    assert note.to_dict()["tags"] == []
    assert str(note.body) == "fresh"


class Task(Document):
    title: str = ""
    status: MultiValue[str] = MultiValue()


async def test_values_of_several_show_until_somebody_decides(space: Space) -> None:
    async with syncengine.open(":memory:") as other:
        theirs = await other.join(await space.invite("write"))
        wire = Wire(space._replica)
        async with space.transaction() as tx:
            tx.create(Task, "1", status="open")
        async with wire.link(other) as link:
            await link.synced()
        for where, status in ((space, "done"), (theirs, "dropped")):
            async with where.transaction() as tx:
                task = tx.get(Task, "1")
                task.status = status
                assert list(task.status) == [status]
        async with wire.link(other) as link:
            await link.synced()
        shown = [await where.get(Task, "1") for where in (space, theirs)]
        assert list(shown[0].status) == list(shown[1].status)
        assert shown[0].status == {"done", "dropped"}
        assert "done" in shown[0].status
        assert len(shown[0].status) == 2
        assert shown[0].to_dict()["status"] == list(shown[0].status)
        async with space.transaction() as tx:
            tx.get(Task, "1").status.set("done")
        async with wire.link(other) as link:
            await link.synced()
        assert list((await theirs.get(Task, "1")).status) == ["done"]
        assert shown[0].status == ["dropped", "done"], "a snapshot stays"


async def test_several_values_are_written_untyped_and_nested(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["page/1"]
        page.multi("who").set("ann", "bob")
        page["inner"] = {"x": 1}
        page["inner"].multi("deep").set([1, 2])
        page["copy"] = page.multi("who")
    page = await space.get("page/1")
    assert page.to_dict() == {
        "who": ["bob", "ann"], "copy": ["bob", "ann"], "inner": {"x": 1, "deep": [[1, 2]]},
    }  # fmt: skip
    page.multi("who")._shown().append("carol")
    async with space.transaction() as tx:
        tx["page/1"].multi("who").clear()
        assert list(tx["page/1"].multi("who")) == []
        tx.delete("page/1")
        tx["page/1"].multi("copy").set("fresh")
    assert (await space.get("page/1")).to_dict() == {"copy": ["fresh"]}
    with pytest.raises(FrozenDocument):
        page.multi("who").set("x")


async def test_each_of_several_values_is_checked(space: Space) -> None:
    async with space.transaction() as tx:
        task = tx.create(Task, "1")
        with pytest.raises(Invalid, match="task/1/status"):
            task.status = 3  # type: ignore[assignment]
        with pytest.raises(Invalid, match="task/1/status"):
            task.status.set(float("nan"))  # type: ignore[arg-type]
        assert list(task.status) == []


class Place(msgspec.Struct):
    street: str
    number: int = 0


class Card(Document):
    where: Place | None = None
    codes: Whole[list[str]] = []
    marks: Whole[set[int]] = set()
    extra: Whole[dict[str, Any]] = {}
    size: Annotated[int, msgspec.Meta(ge=0)] = 0


async def test_one_value_is_replaced_as_a_whole(space: Space) -> None:
    async with space.transaction() as tx:
        card = tx.create(Card, "1", codes=["a", "b"], where=Place("High Street", 7))
        card.marks = {3, 1, 2}
        card.extra = {"deep": [1, {"x": 2}]}
    seen = await space.get(Card, "1")
    assert seen.codes == ["a", "b"]
    assert seen.where == Place("High Street", 7)
    assert (seen.marks, seen.extra) == ({1, 2, 3}, {"deep": [1, {"x": 2}]})
    assert seen.to_dict()["where"] == {"street": "High Street", "number": 7}
    # One write each: a concurrent one would win or lose as a whole.
    assert (await space.get("card/1"))["codes"] == ["a", "b"]
    document = space.engine.documents.find(DocumentId("card/1"))
    assert document is not None
    assert all(not slot[0].type for slot in document.root.slots.values())


async def test_editing_what_was_read_changes_nothing(space: Space) -> None:
    async with space.transaction() as tx:
        given = ["a"]
        card = tx.create(Card, "1", codes=given, extra={"deep": [1]})
        given.append("later")
        card.codes.append("lost")
        card.marks.add(9)
    seen = await space.get(Card, "1")
    seen.codes.append("c")
    seen.extra["deep"].append(2)
    seen.marks.add(1)

    page = await space.get("card/1")
    page["codes"].append("d")
    page.to_dict()["extra"]["deep"].append(3)

    again = await space.get(Card, "1")
    assert (again.codes, again.extra, again.marks) == (["a"], {"deep": [1]}, set())
    assert (await space.get("card/1")).to_dict()["extra"] == {"deep": [1]}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("codes", ["a", 1], r"card/1/codes: .*str"),
        ("where", {"street": 1}, r"card/1/where: .*str"),
        ("size", -1, r"card/1/size: .*>= 0"),
        ("extra", {"x": object()}, "card/1/extra"),
        ("extra", {1: 2}, "card/1/extra"),
    ],
)
async def test_one_value_is_checked_as_declared(
    space: Space, field: str, value: Any, says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        async with space.transaction() as tx:
            setattr(tx.create(Card, "1"), field, value)


def test_one_value_holds_nothing_that_merges() -> None:
    with pytest.raises(TypeError, match="a List merges"):
        META(
            "Bad",
            (Document,),
            {
                "__module__": __name__,
                "__annotations__": {"x": "Whole[dict[str, List[str]]]"},
            },
        )


@pytest.mark.parametrize(
    "kind",
    ["list[str]", "dict[str, int]", "set[str]", "list[str] | None", "tuple[int, ...]"],
)
def test_plain_containers_are_refused_with_the_two_ways_out(kind: str) -> None:
    with pytest.raises(TypeError, match=r"Whole\["):
        META("Bad", (Document,), {"__annotations__": {"x": kind}})


def test_an_unknown_annotation_is_named() -> None:
    with pytest.raises(TypeError, match="Nowhere"):
        META("Bad", (Document,), {"__annotations__": {"x": "Nowhere"}})


def test_a_container_has_no_other_type_beside_it() -> None:
    with pytest.raises(TypeError, match="without `None`"):
        META(
            "Bad",
            (Document,),
            {"__module__": __name__, "__annotations__": {"x": "List[str] | None"}},
        )


def test_a_class_sees_the_names_around_it_and_no_callers() -> None:
    class Kind(msgspec.Struct):
        n: int

    class Inner(Document):
        x: Kind
        count: ClassVar[int] = 0

    def caller(**_: object) -> Any:
        return META("Outer", (Document,), {"__annotations__": {"x": "str"}})

    assert Inner._fields["x"].declared is Kind
    assert list(Inner._fields) == ["x"]
    assert shadowing(caller)._fields["x"].declared is str


def shadowing(call: Callable[..., Any]) -> Any:
    """A caller with a local name that the class's module means otherwise."""
    str = int
    return call(str=str)


async def test_fields_are_given_by_name(space: Space) -> None:
    with pytest.raises(TypeError, match="by name"):
        async with space.transaction() as tx:
            tx.create(Page, "p", "junk")  # type: ignore[call-arg, arg-type]


def test_reserved_names_are_refused() -> None:
    with pytest.raises(TypeError, match="reserved"):
        META("Bad", (Document,), {"__annotations__": {"id": "str"}})


def test_documents_are_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match=r"tx\.create"):
        Note(title="x")


async def test_the_meta_tells_pending_and_time(space: Space, tmp_path: Any) -> None:
    await make(space)
    note = await space.get(Note, "n")

    assert note.id == "n"
    assert note.meta.pending
    assert not note.meta.conflicted
    assert note.meta.updated_at is not None
    assert isinstance(space._replica, Replica)


async def test_moving_keeps_what_others_do_to_an_element(space: Space) -> None:
    async with space.transaction() as tx:
        items = tx["page/1"].list("items")
        items.extend(["a", "b", {"name": "c"}, "d"])
        items.move(2, 0)
        assert [plain_value(item) for item in items] == [{"name": "c"}, "a", "b", "d"]
        items[0]["name"] = "C"
        items.move(0, -1)
        items[1] = "B"
        items.insert(1, "new")
        del items[0]
        with pytest.raises(IndexError):
            items.move(9, 0)
    page = await space.get("page/1")
    assert page.to_dict()["items"] == ["new", "B", "d", {"name": "C"}]
    with pytest.raises(FrozenDocument):
        page["items"].move(0, 1)


async def test_an_assigned_list_is_what_was_assigned(space: Space) -> None:
    chance = random.Random(1)
    choice = [1, 2, True, "a", {"n": 1}, {"n": 2}]
    async with space.transaction() as tx:
        items = tx["page/1"].list("items")
        for _ in range(300):
            wanted = chance.choices(choice, k=chance.randint(0, 8))
            kept = chance.sample(list(items), chance.randint(0, len(items)))
            wanted += kept
            chance.shuffle(wanted)
            plain = [plain_value(item) for item in wanted]
            items.replace(wanted)
            assert [plain_value(item) for item in items] == plain
            assert [type(plain_value(item)) for item in items] == list(map(type, plain))


async def test_who_reorders_a_list_loses_nothing_that_others_write() -> None:
    async with two_members() as (ours, theirs):
        async with ours.transaction() as tx:
            tx["page/1"].list("rows").extend([{"n": n} for n in range(4)])
        await meet(ours, theirs)
        async with ours.transaction() as tx:
            rows = tx["page/1"].list("rows")
            rows.sort(key=lambda row: -row["n"])
        async with theirs.transaction() as tx:
            rows = tx["page/1"].list("rows")
            rows[0]["text"] = "new"
            tx["page/1"]["rows"] = [*rows[1:], rows[0]]
        await meet(ours, theirs)

        shown = [(await space.get("page/1")).to_dict() for space in (ours, theirs)]
        assert shown[0] == shown[1]
        assert sorted(row["n"] for row in shown[0]["rows"]) == [0, 1, 2, 3]
        assert {"n": 0, "text": "new"} in shown[0]["rows"]


async def test_two_who_put_the_same_element_first_do_not_double_it() -> None:
    async with two_members() as (ours, theirs):
        async with ours.transaction() as tx:
            tx["page/1"].list("l").extend("abcd")
        await meet(ours, theirs)
        for space in (ours, theirs):
            async with space.transaction() as tx:
                tx["page/1"]["l"] = list("dabc")
        await meet(ours, theirs)

        for space in (ours, theirs):
            assert (await space.get("page/1")).to_dict() == {"l": list("dabc")}


async def test_turning_a_list_round_moves_its_elements(space: Space) -> None:
    async with space.transaction() as tx:
        rows = tx["page/1"].list("rows")
        rows.extend([{"n": 1}, "x", {"n": 2}, 3])
        first = rows[0]
        rows.reverse()
        first["n"] = 7
        assert rows == [3, {"n": 2}, "x", {"n": 7}]
        rows[::2] = [{"n": 2}, 3]
        assert rows == [{"n": 2}, {"n": 2}, 3, {"n": 7}]


async def test_a_refused_node_leaves_its_tree_as_it_was(space: Space) -> None:
    async with space.transaction() as tx:
        tree = tx["page/1"].map("m").tree("outline")
        with pytest.raises(IndexError):
            tree.add({"text": "x"}, index=5)
        tx["page/1"].map("m").text("body").insert(0, "t")
        tree.add({"text": "good"})
    shown = (await space.get("page/1")).to_dict()["m"]

    assert [row["value"] for row in shown["outline"]] == [{"text": "good"}]


async def test_what_is_popped_is_written_elsewhere(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["page/1"]
        page["old"], page["n"] = ["a", {"b": 1}], 1
        page.text("t").insert(0, "text")
    async with space.transaction() as tx:
        page = tx["page/1"]
        page["new"], page["u"] = page.pop("old"), page.pop("t")
        assert page.pop("n") == 1
        assert page.pop("n", None) is None
        with pytest.raises(KeyError):
            page.pop("n")
        page.setdefault("tags", []).append("tag")
        page.setdefault("tags", []).append("more")
        assert page.setdefault("one", 1) == 1
    page = await space.get("page/1")

    assert page.to_dict() == {
        "new": ["a", {"b": 1}], "u": "text", "tags": ["tag", "more"], "one": 1,
    }  # fmt: skip
    assert isinstance(page["u"], Text)


async def test_an_element_that_is_extended_stays_the_one_it_is(space: Space) -> None:
    async with space.transaction() as tx:
        tx["page/1"]["rows"] = [[1], [2]]
    async with space.transaction() as tx:
        rows = tx["page/1"]["rows"]
        before = rows[0]._container
        rows[0] += [3]
        assert rows[0]._container == before
    assert (await space.get("page/1")).to_dict() == {"rows": [[1, 3], [2]]}


async def test_a_float_counter_is_shown_like_any_value(space: Space) -> None:
    class Account(Document):
        total: Counter = Counter()

    async with space.transaction() as tx:
        account = tx.create(Account, "1")
        account.total.increment(0.5)
        tx["page/1"].counter("n").increment(1e17)
        tx["page/1"]["n"] = 0.1
        with pytest.raises(Invalid, match=r"1\.79769e\+308"):
            tx["page/1"].counter("m").increment(1.7e308)
            tx["page/1"].counter("m").increment(1.7e308)
        with pytest.raises(Invalid):
            tx["page/1"].counter("m").increment(10**40)
    account = await space.get(Account, "1")

    assert account.to_dict() == {"total": 0.5}
    assert account == account
    assert (await space.get("page/1"))["n"] == 0.1


async def test_what_is_nested_too_deep_is_refused_wherever_it_goes(
    space: Space,
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"x": deep}
    async with space.transaction() as tx:
        page = tx["page/1"]
        page["m"], page["l"] = {"a": {}}, [[]]
        for key, value in (("m", {"a": deep}), ("l", [deep]), ("new", deep)):
            with pytest.raises(TooLarge, match="page/1"):
                page[key] = value


async def test_a_place_that_is_not_there_is_named_with_the_bound(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["page/1"]
        items, tree = page.list("items"), page.tree("tree")
        text = page.text("text")
        items.append("a")
        text.append("abc")
        for wrong, path, bound in (
            (lambda: items[7], "page/1/items", 1),
            (lambda: items.pop(-2), "page/1/items", 1),
            (lambda: items.move(0, 3), "page/1/items", 1),
            (lambda: tree.add({}, index=9), "page/1/tree", 0),
            (lambda: text.insert(4, "x"), "page/1/text", 3),
        ):
            with pytest.raises(OutOfRange) as caught:
                wrong()
            assert isinstance(caught.value, IndexError)
            assert (caught.value.path, caught.value.bound) == (path, bound)
        for wrong, path in (
            (lambda: items.insert(1.5, "x"), "page/1/items"),  # type: ignore[arg-type]
            (lambda: items.move("x", 0), "page/1/items"),  # type: ignore[arg-type]
            (lambda: text.insert(True, "x"), "page/1/text"),
        ):
            with pytest.raises(Invalid, match="is an int") as caught_:
                wrong()
            assert caught_.value.path == path
        assert page.to_dict() == {"items": ["a"], "text": "abc"}


async def test_what_is_too_large_is_named(space: Space) -> None:
    with pytest.raises(TooLarge) as caught:
        async with space.transaction() as tx:
            tx["page/1"]["small"] = 1
            tx["page/1"]["big"] = "x" * limits.CHANGE_BYTES_MAX
    assert caught.value.path == "page/1/big"
    assert caught.value.bound == limits.CHANGE_BYTES_MAX


async def test_a_counter_may_be_declared_to_be_of_floats(space: Space) -> None:
    async with space.transaction() as tx:
        account = tx.create(Account, "1")
        assert (type(account.balance), account.balance) == (FloatCounter, 0.0)
        account.balance += 2
        account.balance.increment(0.5)
        account.balance.decrement(1)
    account = await space.get(Account, "1")

    assert account.balance == 1.5
    assert isinstance(account.balance, float)
    ((balance,),) = await space.sql("SELECT balance FROM account")
    assert balance == 1.5


async def test_what_is_assigned_may_hold_what_is_shown(space: Space) -> None:
    async with space.transaction() as tx:
        rows = tx["page/1"].list("rows")
        rows.extend([{"a": 1}, {"b": 2}])
        rows.replace([{"x": rows[1]}, {"y": rows[0]}])
        assert [row.to_dict() for row in rows] == [{"x": {"b": 2}}, {"y": {"a": 1}}]
        rows.replace([{"kids": [*rows]}])
        kids = [{"x": {"b": 2}}, {"y": {"a": 1}}]
        assert [row.to_dict() for row in rows] == [{"kids": kids}]


async def test_a_long_list_in_another_order_is_written(space: Space) -> None:
    chance = random.Random(1)
    async with space.transaction() as tx:
        items = tx["page/1"].list("items")
        items.extend([*range(3_000), {"n": 1}])
        held = items[-1]
        wanted = chance.sample(list(items), len(items))
        items.replace(wanted)
        assert [plain_value(item) for item in items] == list(map(plain_value, wanted))
        held["n"] = 2
        assert {"n": 2} in [plain_value(item) for item in items]
