"""Bringing content in once: `tx.ensure` and `tx.seed`, on devices and servers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import syncengine
from syncengine import Counter, Document, Invalid, List, Set, Space, Text
from tests.wires import meet, two_members


class Page(Document):
    title: str
    theme: str = "light"
    visits: Counter = Counter()
    tags: Set[str] = Set()
    steps: List[str] = List()
    body: Text = Text()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Space, Space]]:
    async with two_members() as pair:
        yield pair


async def test_two_that_ensure_offline_have_one_document(
    pair: tuple[Space, Space],
) -> None:
    for space in pair:
        async with space.transaction() as tx:
            page = tx.ensure(Page, "home", title="Home", tags={"a"}, steps=["x", "y"])
            page.body.append("mine")
            page.visits += 1
    await meet(*pair)

    pages = [await space.get(Page, "home") for space in pair]
    assert pages[0] == pages[1]
    assert pages[0].to_dict() == {
        "title": "Home", "theme": "light", "visits": 2, "tags": ["a"],
        "steps": ["x", "y"], "body": "minemine",
    }  # fmt: skip
    assert not pages[0].meta.conflicted


async def test_ensure_leaves_what_is_there_as_it_is(pair: tuple[Space, Space]) -> None:
    space, _ = pair
    async with space.transaction() as tx:
        tx.create(Page, "home", title="First")
    async with space.transaction() as tx:
        assert tx.ensure(Page, "home", title="Home").title == "First"


async def test_ensure_makes_again_what_was_deleted(pair: tuple[Space, Space]) -> None:
    space, _ = pair
    for _ in range(2):
        async with space.transaction() as tx:
            page = tx.ensure(Page, "home", title="Home", steps=["x"])
            assert page.to_dict()["steps"] == ["x"]
        async with space.transaction() as tx:
            tx.delete(Page, "home")
    assert await space.get(Page, "home", default=None) is None


async def test_ensure_checks_its_fields(pair: tuple[Space, Space]) -> None:
    space, _ = pair
    async with space.transaction() as tx:
        with pytest.raises(Invalid, match="page/home/title"):
            tx.ensure(Page, "home", title=7)  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="needs title"):
            tx.ensure(Page, "home")  # type: ignore[call-arg]
    assert await space.get(Page, "home", default=None) is None


async def test_what_was_edited_after_a_seed_stays(pair: tuple[Space, Space]) -> None:
    _, theirs = pair
    for one in pair:
        async with one.transaction() as tx:
            tx.seed("page/guide", key="guide.md", title="Guide", body="as value")
    async with theirs.transaction() as tx:
        tx["page/guide"]["title"] = "Our guide"
    await meet(*pair)
    for one in pair:
        async with one.transaction() as tx:
            tx.seed("page/guide", key="guide.md", title="Guide 2", body="changed")
        assert (await one.get("page/guide")).to_dict() == {
            "title": "Our guide",
            "body": "as value",
        }


async def test_seeding_over_what_is_there_writes_the_difference(
    pair: tuple[Space, Space],
) -> None:
    space, _ = pair
    async with space.transaction() as tx:
        page = tx.create(Page, "guide", title="Old", body=Text())
        page.body.insert(0, "one two three")
    async with space.transaction() as tx:
        page = tx.seed(Page, "guide", key="guide.md", title="New", body="one 2 three")
    assert (page.title, str(page.body)) == ("New", "one 2 three")


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_sources_one_is_there_whoever_comes_first(
    pair: tuple[Space, Space], first: int
) -> None:
    """The source was changed between two that had not met; both then typed."""
    order = [pair[first], pair[1 - first]]
    for one, text in zip(order, ("the first text", "another text"), strict=True):
        async with one.transaction() as tx:
            page = tx.seed(Page, "guide", key="guide.md", title=text, body=text)
            page.body.append("!")
        await asyncio.sleep(0.002)
    await meet(*pair)

    pages = [await one.get(Page, "guide") for one in pair]
    assert pages[0] == pages[1]
    assert pages[0].title == "the first text"
    assert sorted(str(pages[0].body)) == sorted("the first text!!")
    for one in pair:
        async with one.engine.turn:
            await one.engine.rebuild()
        assert (await one.get(Page, "guide")) == pages[0]


async def test_a_server_that_is_deployed_anew_seeds_nothing_twice(
    tmp_path: Path,
) -> None:
    """It re-seeds from its (edited) file with an empty database; old clients come
    back with what they have, and what they wrote."""
    source, changed = "Welcome.\nRead this.\n", "Welcome!\nRead this.\n"
    async with (
        syncengine.open(tmp_path / "first.db") as first,
        syncengine.open(tmp_path / "client.db") as client,
        syncengine.open(tmp_path / "second.db") as second,
    ):
        space = await first.namespace("site")
        async with space.transaction() as tx:
            tx.seed(Page, "index", key="index.md", title="Index", body=source)
        invite = await space.invite("write", uses=3)
        theirs = await client.join(invite, name="site")
        await meet(space, theirs)
        async with theirs.transaction() as tx:
            tx.get(Page, "index").body.append("Written by a client.\n")
        await first.close()

        again = await second.join(invite, name="site")
        async with again.transaction() as tx:
            tx.seed(Page, "index", key="index.md", title="Index", body=changed)
        await meet(theirs, again)
        pages = [await one.get(Page, "index") for one in (theirs, again)]
        expected = source + "Written by a client.\n"
        assert [str(page.body) for page in pages] == [expected] * 2
        async with again.transaction() as tx:
            tx.seed(Page, "index", key="index.md", title="Index", body=changed)
        assert str((await again.get(Page, "index")).body) == expected
