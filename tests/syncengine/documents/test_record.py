"""Records: fields inside fields, items with fields, merged one by one."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import msgspec
import pytest

import syncengine
from syncengine import (
    Counter,
    Document,
    FrozenDocument,
    Invalid,
    List,
    Map,
    MultiValue,
    NotFound,
    Record,
    Set,
    Space,
    Text,
    Tree,
    Whole,
)
from tests.wires import meet, two_members


class Address(Record):
    street: str
    city: str = "Berlin"
    tags: Set[str] = Set()


class Size(msgspec.Struct):
    width: int
    height: int = 0


class Box(msgspec.Struct):
    inner: Size


class Sheet(Document):
    size: Size
    box: Box | None = None


class NewSize(Size):
    depth: int = 0


class NewBox(msgspec.Struct):
    inner: NewSize


class NewSheet(Document, collection="sheet"):
    size: NewSize
    box: NewBox | None = None


class Line(Record):
    text: str
    done: bool = False
    votes: Counter = Counter()
    notes: Text = Text()
    address: Address
    size: Size | None = None


class Small(Record):
    n: int = 0
    names: List[str] = List()


class Card(Document):
    title: str = ""
    home: Address
    small: Small = Small()
    lines: List[Line] = List()
    by_name: Map[str, Line] = Map()
    rows: List[List[int]] = List()
    sizes: List[Size] = List()
    whole: List[Whole[list[int]]] = List()
    counts: Map[str, Counter] = Map()
    outline: Tree[Small] = Tree()
    status: MultiValue[Annotated[int, msgspec.Meta(ge=0)]] = MultiValue()


META: Any = type(Document)


def line(text: str = "x") -> Line:
    return Line(text=text, address=Address(street="High Street"))


@pytest.fixture
async def space() -> AsyncGenerator[Space]:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Card, "1", home=Address(street="Main Road"))
        yield space


async def test_a_record_is_read_and_edited_in_place(space: Space) -> None:
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.home.city = "Rome"
        card.home.tags.add("old")
        card.small.n = 3
        card.small.names.append("x")

    card = await space.get(Card, "1")
    assert card.home == Address(street="Main Road", city="Rome", tags={"old"})
    assert (card.small.n, list(card.small.names)) == (3, ["x"])
    assert card.to_dict()["home"] == {"street": "Main Road", "city": "Rome", "tags": ["old"]}  # fmt: skip
    with pytest.raises(FrozenDocument):
        card.home.city = "Paris"
    with pytest.raises(FrozenDocument):
        card.small.names.append("y")


async def test_reading_a_draft_writes_nothing(space: Space) -> None:
    before = space.engine.next_seq
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        assert (card.small.n, list(card.small.names), len(card.outline)) == (0, [], 0)

    assert space.engine.next_seq == before


async def test_fields_of_a_record_merge_one_by_one() -> None:
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            card = tx.create(Card, "1", home=Address(street="a"))
            card.lines.append(line())
        await meet(*pair)
        async with pair[0].transaction() as tx:
            card = tx.get(Card, "1")
            card.home.street = "mine"
            card.lines[0].done = True
            card.lines[0].notes.append("one")
            card.lines[0].votes += 2
        async with pair[1].transaction() as tx:
            card = tx.get(Card, "1")
            card.home.city = "theirs"
            card.lines[0].text = "y"
            card.lines[0].notes.append("two")
            card.lines[0].votes += 3
        await meet(*pair)

        cards = [await space.get(Card, "1") for space in pair]
        assert cards[0] == cards[1]
        card = cards[0]
        assert (card.home.street, card.home.city) == ("mine", "theirs")
        one = card.lines[0]
        assert (one.text, one.done, int(one.votes)) == ("y", True, 5)
        assert sorted(str(one.notes)) == sorted("onetwo")


async def test_items_are_records(space: Space) -> None:
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.lines.append(line("a"))
        card.lines = [*card.lines, line("b")]
        card.by_name["k"] = line("c")
        card.by_name["k"].address.tags.add("t")
        card.lines[1].size = Size(3, 4)

    card = await space.get(Card, "1")
    assert isinstance(card.lines[0], Line)
    assert [one.text for one in card.lines] == ["a", "b"]
    assert card.lines[1].size == Size(3, 4)
    assert card.by_name["k"].address == Address(street="High Street", tags={"t"})
    assert card.by_name["k"].to_dict()["votes"] == 0


async def test_an_assigned_list_keeps_the_records_that_stay(space: Space) -> None:
    """So that what others do to them is not lost."""
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.lines = [line("a"), line("b"), line("c")]
    before = await names_of(space)
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        changed = Line(text="B", done=True, address=Address(street="High Street"))
        card.lines = [line("a"), changed, line("c")]

    assert await names_of(space) == before
    card = await space.get(Card, "1")
    assert [(one.text, one.done) for one in card.lines] == [("a", False), ("B", True), ("c", False)]  # fmt: skip


async def names_of(space: Space) -> list[Any]:
    view: Any = (await space.get(Card, "1"))._view  # pyright: ignore[reportPrivateUsage]
    return [entry.container for entry in view.entries(("lines", 4))]


async def test_what_is_no_record_is_refused_at_its_path(space: Space) -> None:
    wrong: list[tuple[Callable[[Any], Any], str]] = [
        (lambda card: card.lines.append("x"), "card/1/lines.*mapping"),
        (lambda card: setattr(card, "lines", [line(), {"text": "y"}]), "lines/1: Line needs address"),
        (lambda card: setattr(card, "home", {"street": 5}), "card/1/home/street"),
        (lambda card: setattr(card, "home", {"street": "x", "zip": 1}), "no field zip"),
        (lambda card: setattr(card.home, "street", 5), "card/1/home/street"),
        (lambda card: card.rows.append(["x"]), "card/1/rows/0/0"),
        (lambda card: card.rows.append("x"), "card/1/rows/0: a list is set to"),
        (lambda card: card.sizes.append(5), "card/1/sizes/0"),
        (lambda card: card.whole.append(["x"]), "card/1/whole/0"),
        (lambda card: card.counts.update(k="x"), "card/1/counts/k: a counter"),
        (lambda card: card.by_name.update(k=5), "card/1/by_name/k"),
        (lambda card: card.outline.add({"n": "x"}), "card/1/outline/.*/n"),
        (lambda card: card.status.set(-1), "card/1/status"),
        (lambda card: setattr(card, "status", -1), "card/1/status"),
    ]  # fmt: skip
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        for write, says in wrong:
            with pytest.raises(Invalid, match=says):
                write(card)
        assert card.to_dict() == (await space.get(Card, "1")).to_dict()


async def test_one_value_in_a_list_is_read_as_declared(space: Space) -> None:
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.sizes.append(Size(1, 2))
        card.whole.append([1, 2])
        card.rows.append([3])  # type: ignore[arg-type]  # a list will do
        card.counts["k"] = Counter(2)

    card = await space.get(Card, "1")
    assert card.sizes[0] == Size(1, 2)
    assert card.whole[0] == [1, 2]
    assert list(card.rows[0]) == [3]
    plain = (await space.get("card/1")).to_dict()
    assert plain["sizes"] == [{"width": 1, "height": 2}]
    assert plain["counts"] == {"k": 2}


async def test_unknown_fields_of_newer_versions_stay(space: Space) -> None:
    async with space.transaction() as tx:
        tx["card/1"].map("home")["zip"] = "10115"
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.home = Address(street="New Road")

    assert (await space.get("card/1")).map("home")["zip"] == "10115"


async def test_unknown_fields_go_along_with_an_element_that_is_moved(
    space: Space,
) -> None:
    async with space.transaction() as tx:
        tx.get(Card, "1").lines = [
            Line(text=t, address=Address(street="s")) for t in "ab"
        ]
        tx["card/1"].list("lines")[0]["color"] = "red"
    async with space.transaction() as tx:
        card = tx.get(Card, "1")
        card.lines = list(reversed(list(card.lines)))

    lines = (await space.get("card/1")).to_dict()["lines"]
    assert [(line["text"], line.get("color")) for line in lines] == [
        ("b", None),
        ("a", "red"),
    ]


async def test_unknown_fields_of_a_struct_stay(space: Space) -> None:
    async with space.transaction() as tx:
        newer = NewSize(1, 2, depth=3)
        tx.create(NewSheet, "1", size=newer, box=NewBox(newer))
    async with space.transaction() as tx:
        sheet = tx.get(Sheet, "1")
        sheet.size = Size(5)
        sheet.box = Box(Size(6, 7))

    plain = (await space.get("sheet/1")).to_dict()
    assert plain["size"] == {"width": 5, "height": 0, "depth": 3}
    assert plain["box"] == {"inner": {"width": 6, "height": 7, "depth": 3}}


async def test_a_record_by_hand_is_checked() -> None:
    with pytest.raises(Invalid, match="Address needs street"):
        Address()  # type: ignore[call-arg]
    with pytest.raises(Invalid, match="declares no field x"):
        Address(street="s", x=1)  # type: ignore[call-arg]
    with pytest.raises(Invalid, match="street"):
        Address(street=5)  # type: ignore[arg-type]
    one = Address(street="s")
    one.city = "Bonn"
    assert one == Address(street="s", city="Bonn")
    assert repr(one) == "Address(street='s', city='Bonn', tags=[])"
    with pytest.raises(AttributeError, match="no field"):
        one.town = "x"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "says"),
    [("Tree[str]", "hold a Record or a Map"), ("List[list[str]]", "Whole"),
     ("Address | None", "without `None`"), ("Set[Address]", "plain values"),
     ("Whole[Address]", "merges"),  ("MultiValue[List[str]]", "plain values")],
)  # fmt: skip
def test_what_could_mean_two_things_is_refused(kind: str, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        META("Bad", (Document,), {"__module__": __name__, "__annotations__": {"x": kind}})  # fmt: skip


def test_a_default_record_is_empty() -> None:
    with pytest.raises(TypeError, match=r"write Small\(\) here"):
        META(
            "Bad",
            (Document,),
            {
                "__module__": __name__,
                "__annotations__": {"x": "Small"},
                "x": Small(n=1),
            },
        )


async def test_a_document_needs_the_records_that_need_something(space: Space) -> None:
    with pytest.raises(Invalid, match="Card needs home"):
        async with space.transaction() as tx:
            tx.create(Card, "2")  # type: ignore[call-arg]


# --- trees ----------------------------------------------------------------------------


async def test_nodes_are_added_moved_and_deleted(space: Space) -> None:
    async with space.transaction() as tx:
        tree = tx.get(Card, "1").outline
        one = tree.add(Small(n=1))
        two = tree.add(Small(n=2), under=one)
        three = tree.add(Small(n=3), under=one, index=0)
        four = tree.add()
        four.value.n = 4
        assert [node.value.n for node in tree] == [1, 3, 2, 4]
        assert (two.parent, one.parent, one.children) == (one, None, [three, two])
        four.move(under=one, index=1)
        assert [node.value.n for node in one.children] == [3, 4, 2]
        four.move(index=0)
        assert tree.roots == [four, one]
        two.delete()
        assert (two.is_deleted, two in tree, tree.deleted()) == (True, False, [two])
        with pytest.raises(Invalid, match="below itself"):
            one.move(under=three)
        with pytest.raises(IndexError):
            one.move(index=7)

    tree = (await space.get(Card, "1")).outline
    assert [node.value.n for node in tree] == [4, 1, 3]
    assert (len(tree), tree[one.id].value.n) == (3, 1)
    assert tree.to_list() == [
        {"id": four.id, "parent": None, "value": {"n": 4, "names": []}},
        {"id": one.id, "parent": None, "value": {"n": 1, "names": []}},
        {"id": three.id, "parent": one.id, "value": {"n": 3, "names": []}},
    ]
    async with space.transaction() as tx:
        tree = tx.get(Card, "1").outline
        tree[two.id].move()
        tree[one.id].delete()
        assert tree[three.id].is_deleted
    snapshot = (await space.get(Card, "1")).outline
    async with space.transaction() as tx:
        tx.get(Card, "1").outline[two.id].delete()
    assert [node.value.n for node in snapshot] == [4, 2]
    with pytest.raises(FrozenDocument):
        snapshot.roots[0].delete()


async def test_a_tree_is_copied_and_assigned_by_its_difference(space: Space) -> None:
    async with space.transaction() as tx:
        tree = tx.get(Card, "1").outline
        top = tree.add(Small(n=1))
        tree.add(Small(n=2), under=top)
        other = tx.create(Card, "2", home=Address(street="x"))
        other.outline = tree
        shape = [(row["value"], row["parent"] is None) for row in tree.to_list()]
        assert [(r["value"], r["parent"] is None) for r in other.outline.to_list()] == shape  # fmt: skip
        wanted = tree.to_list()
        wanted[1]["value"]["n"] = 5
        tree.replace(wanted[::1])
        tree.add(Small(n=9))
        tree.replace(wanted)
        assert tree.to_list() == wanted
    before = space.engine.next_seq
    async with space.transaction() as tx:
        tx.get(Card, "1").outline.replace(wanted)

    assert space.engine.next_seq == before


async def test_an_untyped_tree_holds_maps(space: Space) -> None:
    async with space.transaction() as tx:
        page = tx["page/1"]
        node = page.tree("outline").add({"title": "x", "tags": {"a"}})
        node.value["title"] = "y"
        tx.get(Card, "1").title = "t"
    page = await space.get("page/1")
    assert page.to_dict()["outline"] == [
        {"id": node.id, "parent": None, "value": {"title": "y", "tags": ["a"]}}
    ]
    assert page["outline"].roots[0].value["title"] == "y"
    async with space.transaction() as tx:
        tx.delete("page/1")
        tx["page/1"].tree("outline").add()
    assert len((await space.get("page/1"))["outline"]) == 1


async def test_trees_are_exported_and_imported(space: Space) -> None:
    async with space.transaction() as tx:
        tree = tx.get(Card, "1").outline
        top = tree.add(Small(n=1))
        tree.add(Small(n=2), under=top).value.names.append("x")
    records = [record async for record in space.dump()]
    async with syncengine.open(":memory:") as replica:
        copy = await replica.namespace("copy")
        for _ in range(2):
            await copy.load(records)
            made = (await copy.get(Card, "1")).outline
            assert [(n.value.n, list(n.value.names)) for n in made] == [(1, []), (2, ["x"])]  # fmt: skip
            assert made.roots[0].children[0].value.n == 2


async def test_a_tree_without_its_trunk_is_refused(space: Space) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "parent": "zz", "value": {}}]
    with pytest.raises(Invalid, match="zz") as caught:
        async with space.transaction() as tx:
            tx["page/1"].tree("outline").replace(rows)
    assert caught.value.path == "page/1/outline"


async def test_two_devices_edit_one_tree() -> None:
    async with two_members() as pair:
        async with pair[0].transaction() as tx:
            tree = tx.create(Card, "1", home=Address(street="a")).outline
            one, two = tree.add(Small(n=1)), tree.add(Small(n=2))
        await meet(*pair)
        async with pair[0].transaction() as tx:
            tx.get(Card, "1").outline[one.id].move(under=two)
        async with pair[1].transaction() as tx:
            tree = tx.get(Card, "1").outline
            tree[two.id].move(under=one)
            tree[one.id].value.n = 11
        await meet(*pair)

        trees = [(await space.get(Card, "1")).outline.to_list() for space in pair]
        assert trees[0] == trees[1]
        assert len(trees[0]) == 2
        assert sorted(row["value"]["n"] for row in trees[0]) == [2, 11]


async def test_what_a_node_holds_has_its_reasons(space: Space) -> None:
    async with space.transaction() as tx:
        node = tx.get(Card, "1").outline.add(Small(n=7))
    why = await space.why(f"card/1/outline/{node.id}/n")

    assert (why.value, why.path) == (7, f"card/1/outline/{node.id}/n")
    assert "latest move" in (await space.why("card/1/outline")).rule
    with pytest.raises(NotFound):
        await space.why("card/1/outline/aaaaaaaaaaaaaaaaaaaaaaaaaa-9/n")
