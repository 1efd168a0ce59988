"""Typed collections as tables: after whatever happens the rows equal the documents."""

import asyncio
import json
import random
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import syncengine
import transport
from syncengine import (
    Converted,
    Counter,
    Document,
    Indexed,
    Invalid,
    List,
    Map,
    MultiValue,
    Replica,
    Searchable,
    Set,
    Space,
    StoreFull,
    Text,
    TransactionOpen,
    Whole,
)
from syncengine.replication import tables
from syncengine.storage.sql import statements


class Note(Document):
    title: Indexed[str]
    pinned: bool = False
    due: datetime | None = None
    likes: Counter = Counter()
    tags: Set[str] = Set()
    todo: List[str] = List()
    extra: Map[str, Any] = Map()
    status: MultiValue[str] = MultiValue()
    whole: Whole[list[int]] = []  # a default, copied for each
    body: Text = Text()


COLUMNS = ("title", "pinned", "due", "likes", "tags", "todo", "extra", "status",
           "whole", "body")  # fmt: skip


async def rows(space: Space) -> dict[str, tuple[Any, ...]]:
    found = await space.sql(f"SELECT id, {', '.join(COLUMNS)} FROM note ORDER BY id")
    return {row["id"]: tuple(row)[1:] for row in found}


async def from_documents(space: Space) -> dict[str, tuple[Any, ...]]:
    """The slow, obviously right version."""

    def sql(value: Any) -> Any:
        if isinstance(value, list | dict):
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if isinstance(value, datetime):
            return value.isoformat().replace("+00:00", "Z")
        return int(value) if isinstance(value, bool) else value

    return {
        note.id: tuple(sql(note.to_dict()[name]) for name in COLUMNS)
        async for note in space.documents(Note)
    }


def edit(tx: Any, chance: random.Random) -> None:
    name = chance.choice("abcd")
    note = tx.get(Note, name, default=None)
    if note is None:
        tx.create(Note, name, title=chance.choice("xyz"))
        return
    match chance.randint(0, 11):
        case 0:
            tx.delete(Note, name)
        case 1:
            note.title = chance.choice("xyzé")
        case 2:
            note.pinned = not note.pinned
        case 3:
            note.likes += chance.randint(1, 3)
        case 4:
            note.tags.add(chance.choice("pq"))
        case 5:
            note.todo.insert(0, chance.choice("uvw"))
        case 6:
            note.extra["deep"] = {"n": [chance.randint(0, 9)]}
        case 7:
            note.status = chance.choice("st")
        case 8:
            note.whole = [chance.randint(0, 9)]
        case 9:
            note.due = datetime(2026, 1, chance.randint(1, 28), tzinfo=UTC)
        case 10:
            tx[f"note/{name}"]["todo"] = 7  # another type under a declared name
        case _:
            note.body.insert(0, chance.choice(("so ", "much ")))


async def joined(one: Replica, other: Replica, space: Space) -> Space:
    return await other.join(await space.invite("write", uses=9), name="home")


async def meet(one: Replica, other: Replica) -> None:
    async with (
        transport.serve(one, "127.0.0.1", 0) as server,
        transport.connect(other, server.address) as link,
    ):
        await link.synced()


@pytest.mark.parametrize("seed", range(6))
async def test_rows_equal_the_documents(seed: int) -> None:
    chance = random.Random(seed)
    async with syncengine.open(":memory:") as one, syncengine.open(":memory:") as other:
        space = await one.namespace("home")
        theirs = await joined(one, other, space)
        for step in range(60):
            mine = chance.choice((space, theirs))
            async with mine.transaction() as tx:
                edit(tx, chance)
            assert await rows(mine) == await from_documents(mine)
            if chance.random() < 0.1:
                await meet(one, other)
                for each in (space, theirs):
                    assert await rows(each) == await from_documents(each)
            if step % 20 == 19:
                async with mine.engine.turn:
                    await mine.engine.rebuild()
                await mine.engine.flush()
                assert await rows(mine) == await from_documents(mine)
        await meet(one, other)
        assert await rows(space) == await rows(theirs)


async def test_a_collection_that_is_there_already_becomes_a_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "FILL_DOCUMENTS", 3)
    async with syncengine.open(":memory:") as replica:
        for name in ("home", "work"):
            space = await replica.namespace(name)
            async with space.transaction() as tx:
                for number in range(8):
                    tx[f"note/{number}"]["title"] = name
        space = await replica.namespace("home")
        async with space.transaction() as tx:  # declares it, and changes some
            tx.get(Note, "1").title = "changed"
            tx.delete(Note, "6")
        assert await rows(space) == await from_documents(space)
        assert len(await rows(space)) == 7


async def test_a_class_that_grows_keeps_what_others_declare() -> None:
    class One(Document, collection="thing"):
        name: str

    class Two(Document, collection="thing"):
        name: str
        size: Indexed[int] = 5

    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        for kind in (One, Two, One):
            async with space.transaction() as tx:
                made: Any = tx.ensure(kind, kind.__name__, name="x")
                assert made.name == "x"
        found = await space.sql("SELECT id, name, size FROM thing ORDER BY id")
        assert [tuple(row) for row in found] == [("One", "x", 5), ("Two", "x", 5)]


async def test_a_query_sees_its_own_namespace_and_nothing_else() -> None:
    async with syncengine.open(":memory:") as replica:
        for name in ("home", "work"):
            space = await replica.namespace(name)
            async with space.transaction() as tx:
                tx.create(Note, "n", title=f"at {name}")
        space = await replica.namespace("home")
        assert [tuple(row) for row in await space.sql("SELECT title FROM note")] == [
            ("at home",)
        ]
        counted = await space.sql(
            "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k LIMIT 3) "
            "SELECT sum(n), (SELECT count(*) FROM note), upper('x') FROM k"
        )
        assert tuple(counted[0]) == (6, 1, "X")
        tags = await space.sql("SELECT j.value FROM note, json_each(note.tags) j")
        assert tags == []


@pytest.mark.parametrize(
    "query",
    ["SELECT * FROM main.note", "SELECT * FROM _sync_table_note",
     "SELECT * FROM _sync_log", "SELECT * FROM sqlite_master",
     "SELECT * FROM temp.sqlite_master", "SELECT * FROM pragma_table_list",
     "PRAGMA user_version", "ATTACH 'x.db' AS x", "DELETE FROM note",
     "DROP VIEW note", "CREATE TABLE x (y)", "INSERT INTO note (title) VALUES ('x')",
     "UPDATE _sync_log SET body = ''", "SELECT load_extension('x')",
     "SELECT 1; SELECT 2", "SELECT nothing FROM note", "SELECT * FROM nowhere",
     "SELEC", "BEGIN", "COMMIT", "VACUUM", "EXPLAIN QUERY PLAN SELECT * FROM note",
     " /* a\n */ -- b\n explain SELECT * FROM note", "\ufeff;EXPLAIN SELECT 1",
     "WITH note AS (SELECT * FROM _sync_table_note) SELECT * FROM note",
     "WITH note AS (SELECT * FROM main.note) SELECT * FROM note",
     "WITH note AS (SELECT key FROM _sync_meta) SELECT * FROM note",
     "SELECT (WITH note(x) AS (SELECT title FROM main.note) SELECT x FROM note)"],
)  # fmt: skip
async def test_a_query_that_asks_for_more_is_refused(
    query: str, tmp_path: Path
) -> None:
    for path in (":memory:", tmp_path / "a.db"):
        async with syncengine.open(path) as replica:
            space = await replica.namespace("home")
            async with space.transaction() as tx:
                tx.create(Note, "n", title="kept")
            with pytest.raises(Invalid, match="SQL"):
                await space.sql(query)
            (row,) = await space.sql("SELECT title FROM note")
            assert row["title"] == "kept"
            async with space.transaction() as tx:
                tx.get(Note, "n").likes += 1


async def test_a_query_shows_what_is_on_its_way_to_disk_and_may_say_explain() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction(wait=False) as tx:
            tx.create(Note, "n", title="explain this")
        (row,) = await space.sql("SELECT id FROM note WHERE title LIKE 'explain%'")
        assert row["id"] == "n"


async def test_parameters_are_given_in_order_or_by_name() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "n", title="a")
        for given in (["a"], [{"title": "a"}]):
            mark = "?" if given == ["a"] else ":title"
            found = await space.sql(f"SELECT id FROM note WHERE title = {mark}", *given)
            assert [row["id"] for row in found] == ["n"]
        with pytest.raises(Invalid, match="SQL"):
            await space.sql("SELECT id FROM note WHERE title = ?")


async def test_inside_a_transaction_a_query_says_that_it_would_wait() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "n", title="a")
            with pytest.raises(TransactionOpen):
                await space.sql("SELECT 1")


async def test_a_long_query_leaves_the_loop_alone_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    endless = "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k) "
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        asking = asyncio.create_task(space.sql(endless + "SELECT max(n) FROM k"))
        async with space.transaction() as tx:
            tx.create(Note, "n", title="meanwhile")
        await asyncio.sleep(0.05)
        assert not asking.done()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        (row,) = await space.sql("SELECT title FROM note")
        assert row["title"] == "meanwhile"
        long = await space.sql(
            endless + "SELECT count(*) FROM (SELECT n FROM k LIMIT 300000)"
        )
        assert long[0][0] == 300_000


async def test_other_programs_read_the_file_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with syncengine.open(path) as replica:
        for name in ("home", "work"):
            space = await replica.namespace(name)
            async with space.transaction() as tx:
                tx.create(Note, "n", title=f"at {name}", tags={"a", "b"})
        await replica.tables.ready()
        query = "SELECT namespace, id, title, json_array_length(tags) FROM note"
        plain = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert sorted(plain.execute(query)) == [
            ("home", "n", "at home", 2),
            ("work", "n", "at work", 2),
        ]
        plan = plain.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM note WHERE title = 'x'"
        ).fetchall()
        assert "_sync_index_0_of_note" in str(plan), "the index is used"
        plain.close()
        shell = shutil.which("sqlite3")
        if shell is not None:
            told = await asyncio.create_subprocess_exec(
                shell, "-readonly", str(path), query, stdout=asyncio.subprocess.PIPE
            )
            assert b"home|n|at home|2" in (await told.communicate())[0]


async def test_tables_are_kept_by_a_program_that_does_not_know_the_class(
    tmp_path: Path,
) -> None:
    path = tmp_path / "notes.db"
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "n", title="first")
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/n"]["title"] = "second"
            tx["note/m"]["title"] = "another"
        found = await space.sql("SELECT id, title, likes FROM note ORDER BY id")
        assert [tuple(row) for row in found] == [
            ("m", "another", 0),
            ("n", "second", 0),
        ]


async def test_a_file_of_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/n"]["title"] = "old"
    plain = sqlite3.connect(path)
    plain.execute("DROP TABLE _sync_table")
    plain.execute("DROP TABLE _sync_past")
    for table in (
        "_sync_seen",
        "_sync_branch",
        "_sync_branch_change",
        "_sync_versions",
        "_sync_ballot",
        "_sync_rescue",
        "_sync_moved",
    ):
        plain.execute(f"DROP TABLE {table}")
    plain.execute("ALTER TABLE _sync_log DROP COLUMN arrived")
    plain.execute("PRAGMA user_version = 1")
    plain.commit()
    plain.close()
    async with syncengine.open(path) as replica:
        space = await replica.namespace("home")
        assert (await space.get(Note, "n")).title == "old"
        assert (await rows(space))["n"][0] == "old"
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA user_version").fetchone() == (statements.FORMAT,)
    plain.close()


def test_names_that_a_table_cannot_have_are_refused() -> None:
    made: Any = type(Document)
    with pytest.raises(Invalid, match="sqlite_"):
        made("One", (Document,), {"__module__": __name__}, collection="sqlite_things")
    fields = {"__annotations__": {"name": str, "Name": str}, "__module__": __name__}
    with pytest.raises(TypeError, match="differ only in case"):
        made("Two", (Document,), fields)


async def test_columns_may_be_called_like_anything() -> None:
    class Order(Document, collection="order"):
        select: str
        namespace: int = 3
        group: Indexed[str] = "g"

    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Order, "1", select="x")
        found = await space.sql('SELECT "select", namespace, "group", id FROM "order"')
        assert [tuple(row) for row in found] == [("x", 3, "g", "1")]


async def test_collections_whose_names_begin_alike_have_tables_of_their_own() -> None:
    class One(Document, collection="thing"):
        name: Indexed[str]

    class Two(Document, collection="thing_id"):
        name: str

    class Three(Document, collection="thing_0"):
        name: str

    for kinds in ((One, Two, Three), (Three, Two, One)):
        async with syncengine.open(":memory:") as replica:
            space = await replica.namespace("home")
            for kind in kinds:
                async with space.transaction() as tx:
                    made: Any = tx.create(kind, "1", name=kind.__name__)
                    assert made.name
            for name in ("thing", "thing_id", "thing_0"):
                assert len(await space.sql(f"SELECT * FROM {name}")) == 1


async def test_what_can_be_no_table_is_kept_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "COLUMNS_MAX", 3)

    class Wide(Document):
        a: str = ""
        b: str = ""
        c: str = ""
        d: str = ""

    class Taken(Document, collection="json_each"):
        a: str = ""

    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        for kind in (Wide, Taken):
            async with space.transaction() as tx:
                made: Any = tx.create(kind, "1", a="x")
                assert made.a == "x"
            with pytest.raises(Invalid, match="SQL"):
                await space.sql("SELECT a FROM wide")


async def test_a_disk_that_fails_with_the_table_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        store: Any = replica.store
        commit = store.commit

        async def full(writes: Any) -> None:
            raise StoreFull("no space")

        monkeypatch.setattr(store, "commit", full)
        with pytest.raises(StoreFull):
            async with space.transaction() as tx:
                tx.create(Note, "n", title="lost")
        monkeypatch.setattr(store, "commit", commit)
        async with space.transaction() as tx:
            tx.create(Note, "n", title="kept")
        assert (await rows(space))["n"][0] == "kept"
        assert await rows(space) == await from_documents(space)


# --- words ----------------------------------------------------------------------------


META: Any = type(Document)


class Recipe(Document):
    title: Searchable[str] = ""
    body: Searchable[Text] = Text()
    secret: str = ""


@pytest.mark.parametrize("seed", range(4))
async def test_words_are_found_where_they_stand(seed: int) -> None:
    chance = random.Random(seed)
    words = ["milk", "eggs", "flour", "salt", "butter"]
    async with syncengine.open(":memory:") as replica:
        space, other = await replica.namespace("a"), await replica.namespace("b")
        async with other.transaction() as tx:
            tx.create(Recipe, "hidden", title=" ".join(words))
        for _ in range(60):
            async with space.transaction() as tx:
                id = str(chance.randint(0, 9))
                recipe = tx.ensure(Recipe, id, secret="milk")
                match chance.randint(0, 3):
                    case 0:
                        recipe.title = chance.choice(words)
                    case 1:
                        recipe.body.insert(0, chance.choice(words) + " ")
                    case 2:
                        recipe.body = chance.choice(words)
                    case _:
                        tx.delete(Recipe, id)
            if chance.random() < 0.1:
                async with space.engine.turn:
                    await space.engine.rebuild()
            if chance.random() < 0.3:
                word = chance.choice(words)
                found = await space.search(Recipe, word)
                expected = [
                    recipe.id
                    async for recipe in space.documents(Recipe)
                    if word in f"{recipe.title} {recipe.body}"
                ]
                assert sorted(one.id for one in found) == expected
                assert all(f"[{word}]" in one.extract for one in found)


@pytest.mark.parametrize("count", [30, 500])
async def test_editing_while_words_are_brought_in(count: int, tmp_path: Path) -> None:
    class Plain(Document, collection="recipe"):
        body: Text = Text()

    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            for number in range(count):
                tx.create(Plain, f"{number:03}", body=f"alpha {number}")
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = replica.spaces()[0]
        for number in range(20):
            async with space.transaction() as tx:
                tx.get(Recipe, f"{number:03}").body.replace("beta")
        assert len(await space.search(Recipe, "beta", limit=100)) == 20
        assert len(await space.search(Recipe, "alpha", limit=1000)) == count - 20
        await asyncio.gather(*(delete(space, number) for number in range(5)))
        assert len(await space.search(Recipe, "beta", limit=100)) == 15


async def delete(space: Space, number: int) -> None:
    async with space.transaction() as tx:
        tx.delete(Recipe, f"{number:03}")


async def test_what_is_no_search_is_refused() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Recipe, "1", title="milk and eggs")
        for wrong in ('"', "AND", "milk AND", "nothing: x", "(", "*milk", "locked:x"):
            with pytest.raises(Invalid, match="is no search"):
                await space.search(Recipe, wrong)
        for limit in (0, -1, 2**70, "x"):
            with pytest.raises(Invalid, match="1 to"):
                await space.search(Recipe, "x", limit=limit)  # type: ignore[arg-type]
        with pytest.raises(Invalid, match="Searchable"):
            await space.search(Note, "x")
        (found,) = await space.search(Recipe, "mil* NOT salt")
        assert found.extract == "[milk] and eggs"
        (found,) = await space.search(Recipe, "title: milk")
        assert await space.search(Recipe, "body: milk") == []


class Page(Document):
    rank: Searchable[str] = ""
    body: Searchable[Text] = Text()


async def test_a_search_names_fields_whatever_they_are_called() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Page, "1", rank="first", body="second")
        (found,) = await space.search(Page, "rank_: first")
        assert found.extract == "[first]"
        async with space.transaction() as tx:
            tx.get(Page, "1").rank = "third"
        assert await space.search(Page, "first") == []
        (found,) = await space.search(Page, "third body: second")
        assert found.id == "1"


def test_what_is_searched_is_text() -> None:
    with pytest.raises(TypeError, match="str or a Text"):
        META("Bad", (Document,), {"__module__": __name__, "__annotations__": {"x": "Searchable[int]"}})  # fmt: skip


async def test_a_field_may_become_searchable_later(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")

        class Plain(Document, collection="recipe"):
            title: str = ""

        async with space.transaction() as tx:
            tx.create(Plain, "1", title="milk")
        await space.sql("SELECT * FROM recipe")
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        assert [one.id for one in await space.search(Recipe, "milk")] == ["1"]
    plain = sqlite3.connect(tmp_path / "a.db")
    assert plain.execute("SELECT rowid FROM _sync_search_recipe('milk')").fetchall()
    plain.close()


class Task1(Document, collection="task"):
    done: bool = False


class Task2(
    Document,
    collection="task",
    lenses=[
        Converted(
            "done", "status", up=lambda d: "done" if d else "open", down="done".__eq__
        )
    ],
):
    status: Indexed[str] = "open"


async def test_a_column_shows_what_an_older_version_wrote_as_it_is_converted(
    tmp_path: Path,
) -> None:
    asked = "SELECT id FROM task WHERE status = 'done' ORDER BY id"
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Task1, "1", done=True)
            tx.create(Task2, "2", status="waiting")
        assert [row["id"] for row in await space.sql(asked)] == ["1"]
        async with space.transaction() as tx:
            tx.get(Task1, "2").done = True
            tx.get(Task2, "1").status = "waiting"
        assert [row["id"] for row in await space.sql(asked)] == ["2"]
    # A program without the class cannot convert: who has it makes it right again.
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["task/3"]["done"] = True
            tx["task/2"]["done"] = False
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        await space.get(Task2, "1")
        assert [row["id"] for row in await space.sql(asked)] == ["3"]


async def test_a_clause_is_counted_and_a_table_of_ours_is_not(
    tmp_path: Path,
) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        asked = "WITH x AS MATERIALIZED (SELECT 1 AS a UNION SELECT 2) SELECT count(*) FROM x"
        ((count,),) = await space.sql(asked)
        assert count == 2
        recursive = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) "
            "SELECT count(*) FROM n"
        )
        ((count,),) = await space.sql(recursive)
        assert count == 9
        for name in ("_sync_log", "sqlite_master", "pragma_table_list", "dbstat"):
            with pytest.raises(Invalid):
                await space.sql(f"SELECT count(*) FROM {name}")
            with pytest.raises(Invalid):
                await space.sql(
                    f"WITH x AS (SELECT * FROM {name}) SELECT count(*) FROM x"
                )


JOINED = [
    "SELECT value FROM (SELECT 0 AS value) l FULL JOIN _sync_meta USING (value)",
    "SELECT c0 FROM (SELECT 0 AS c0) l FULL JOIN [_sync_table_note] USING (c0)",
    "SELECT c0 FROM (SELECT 0 AS c0) l FULL JOIN `_SYNC_table_note` USING (c0)",
    "SELECT c0 FROM (SELECT 0 AS c0) l FULL JOIN '_sync_table_note' USING (c0)",
    'SELECT c0 FROM (SELECT 0 AS c0) l FULL JOIN "_sync_table_note" USING (c0)',
    "SELECT sql FROM (SELECT 0 AS sql) l FULL JOIN sqlite_master USING (sql)",
    "SELECT name FROM (SELECT 0 AS name) l FULL JOIN temp . sqlite_master USING (name)",
    "SELECT count(*) FROM (SELECT 2 AS ns) l JOIN /* */ _sync_log USING (ns)",
    "SELECT title FROM (SELECT '' AS title) l JOIN main.note USING (title)",
    "SELECT ns FROM (SELECT 1 AS ns) l NATURAL JOIN _sync_namespace",
]


@pytest.mark.parametrize("asked", JOINED)
async def test_what_is_joined_by_name_is_no_way_in(tmp_path: Path, asked: str) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(Note, "a", title="_sync_ or sqlite_master")
        with pytest.raises(Invalid, match="is not for queries"):
            await space.sql(asked)
        (row,) = await space.sql(
            "SELECT [id] FROM `note` WHERE title = ? -- _sync_log, 'and\n",
            "_sync_ or sqlite_master",
        )
        assert row["id"] == "a"


async def test_a_result_has_a_bound(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        many = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40) "
        )
        with pytest.raises(Invalid, match="fewer"):
            await space.sql(many + "SELECT zeroblob(15000000) FROM n")


async def test_one_function_cannot_fill_the_memory(tmp_path: Path) -> None:
    async with syncengine.open(tmp_path / "a.db") as replica:
        space = await replica.namespace("home")
        with pytest.raises(Invalid, match="too big"):
            await space.sql("SELECT length(zeroblob(900000000))")
        ((size,),) = await space.sql("SELECT length(printf('%.*c', 900000000, 'x'))")
        assert size is None, "as SQLite has it"
        for wanted in (2_000_000, 20_000_000):
            ((size,),) = await space.sql("SELECT length(zeroblob(?))", wanted)
            assert size == wanted


async def test_a_callback_is_told_of_a_query() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        seen: list[list[Any]] = []
        told = asyncio.Event()

        def tell(found: list[Any]) -> None:
            seen.append([tuple(row) for row in found])
            told.set()

        async with space.transaction() as tx:
            tx.create(Note, "a", title="A")
        subscription = space.subscribe_sql(
            tell, "SELECT title FROM note WHERE id = ?", "a"
        )
        await told.wait()
        told.clear()
        async with space.transaction() as tx:
            tx.get(Note, "a").title = "B"
        await told.wait()
        subscription.cancel()

        assert seen == [[("A",)], [("B",)]]


async def test_words_follow_what_an_older_version_writes() -> None:
    class Old(Document, collection="recipe3"):
        name: str = ""

    class New(
        Document,
        collection="recipe3",
        lenses=[Converted("name", "title", up=str.upper, down=str.lower)],
    ):
        title: Searchable[str] = ""

    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx.create(New, "1", title="MILK")
        for word in ("eggs", "bread"):
            async with space.transaction() as tx:
                tx.get(Old, "1").name = word
            assert [found.id for found in await space.search(New, word)] == ["1"]
        assert await space.search(New, "milk") == []
