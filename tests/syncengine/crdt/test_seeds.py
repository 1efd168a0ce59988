"""Seeds: the same content from two authors is there once; of two, the first shows."""

import itertools
from typing import Any

import pytest

from syncengine.crdt.document import Document
from syncengine.crdt.operation import Action, InvalidOperation, UnknownOperation
from syncengine.crdt.seeds import Known, actor_of
from syncengine.crdt.sequence.state import Steps
from syncengine.ids import ActorId, DocumentId
from tests.strategies import ACTORS

A, B, C = ACTORS[:3]
NAME = DocumentId("page/1")
ONE = [[0, None], [1, None, "title", "one"], [8, "body", 0, "one"]]
TWO = [[0, None], [1, None, "title", "two"], [8, "body", 0, "twotwo"]]


def seed(content: list[Any], key: str = "file") -> list[Any]:
    return [int(Action.SEED), None, key, content]


def shown(document: Document) -> dict[str, Any]:
    return dict(document.to_value())


def test_the_same_seed_of_two_is_there_once() -> None:
    document = Document(NAME)
    document.apply(seed(ONE), (5, A, 1), {})
    document.apply(seed(ONE), (6, B, 1), {})

    assert shown(document) == {"title": "one", "body": "one"}


def test_whoever_saw_one_carrier_saw_the_seed() -> None:
    """C saw B's; here A's came first. C's write replaces, C's position counts."""
    document = Document(NAME)
    document.apply(seed(ONE), (5, A, 1), {})
    document.apply(seed(ONE), (6, B, 1), {})
    document.apply([1, None, "title", "mine"], (7, C, 1), {B: 1})
    document.apply([8, "body", 3, "!"], (7, C, 2), {B: 1, C: 1})
    document.apply([1, None, "other", 1], (7, C, 3), {B: 1, C: 2})

    assert shown(document) == {"title": "mine", "body": "one!", "other": 1}
    assert len(document.root.slots["title"]) == 1


def test_a_write_that_did_not_see_it_wins_over_a_seed() -> None:
    document = Document(NAME)
    document.apply([1, None, "title", "mine"], (2, C, 1), {})
    document.apply(seed(ONE), (5, A, 1), {})

    assert shown(document) == {"title": "mine", "body": "one"}


def test_of_two_seeds_of_a_key_the_later_shows_nothing_and_counts() -> None:
    document = Document(NAME)
    document.apply(seed(ONE), (5, A, 1), {})
    document.apply(seed(TWO), (6, B, 1), {})
    assert shown(document) == {"title": "one", "body": "one"}
    assert not document.is_reseeded
    # B went on in its own text: what it typed stays, the seed around it does not.
    document.apply([8, "body", 3, "+"], (7, B, 2), {B: 1})

    assert sorted(shown(document)["body"]) == sorted("one+")


def test_an_earlier_carrier_that_comes_late_asks_for_the_document_anew() -> None:
    document = Document(NAME)
    document.apply(seed(TWO), (6, B, 1), {})
    document.apply(seed(ONE), (5, A, 1), {})
    assert document.is_reseeded

    again = Document(NAME)
    again.preferred = document.preferred
    again.apply(seed(TWO), (6, B, 1), {})
    assert shown(again) == {}
    again.apply(seed(ONE), (5, A, 1), {})
    assert shown(again) == {"title": "one", "body": "one"}
    assert not again.is_reseeded


def test_what_is_taken_back_has_changed_nothing_of_what_shows() -> None:
    """A change with an earlier seed that is void after all."""
    document = Document(NAME)
    document.apply(seed(TWO), (6, B, 1), {})
    document.undo = undo = Steps()
    document.apply(seed(ONE), (5, A, 1), {})
    assert document.is_reseeded
    document.take_back(undo)
    document.undo = None

    assert not document.is_reseeded
    assert document.preferred == {}
    assert document.first_seed("file") in document.seeds


def test_seeds_of_two_keys_are_both_there() -> None:
    document = Document(NAME)
    document.apply(seed([[1, None, "a", 1]], "one"), (5, A, 1), {})
    document.apply(seed([[1, None, "b", 2]], "two"), (6, B, 1), {})

    assert shown(document) == {"a": 1, "b": 2}


def test_a_delete_by_one_who_saw_it_takes_the_seed() -> None:
    document = Document(NAME)
    document.apply(seed(ONE), (5, A, 1), {})
    document.apply([int(Action.DROP)], (6, C, 1), {A: 1})
    assert not document.visible
    document.apply(seed(ONE), (7, B, 1), {})
    assert not document.visible, "a repeat brings nothing back"


@pytest.mark.parametrize(
    "content",
    [7, [], [7], [[]], [["x"]], [[int(Action.DROP)]], [seed(ONE)],
     [[3, None, "a"]], [[8, "body", 5, "far"]], [[1, None, "a", float("nan")]],
     [[1, [A, 1], "a", 1]], [[1, 1, "a", 1]], [[0, None]] * 8_193],
)  # fmt: skip
def test_what_is_no_content_makes_the_change_void(content: Any) -> None:
    with pytest.raises(InvalidOperation):
        Document(NAME).apply([int(Action.SEED), None, "file", content], (5, A, 1), {})


def test_a_bad_seed_is_bad_whether_it_would_show_or_not() -> None:
    """Or its change would be void at one member and have effect at another."""
    document = Document(NAME)
    document.apply(seed(ONE), (5, A, 1), {})
    for hlc in (1, 9):
        with pytest.raises(InvalidOperation):
            document.apply(seed([[8, "body", 9, "far"]]), (hlc, B, 1), {})
    assert not document.is_reseeded
    assert shown(document) == {"title": "one", "body": "one"}


def test_many_seeds_are_looked_up_at_once() -> None:
    """A hostile author's ten thousand: each operation after them costs as before."""
    document = Document(NAME)
    for number in range(2_000):
        document.apply(seed([[0, None]], f"k{number}"), (5, A, number + 1), {})
    known = Known({A: 2_000, C: 7}, document.seeds)
    assert known[C] == 7
    assert all(known[name] == 1 for name in document.seeds)
    assert len(known) == 2_002
    assert not any(name in Known({A: 0}, document.seeds) for name in document.seeds)


def test_a_seed_of_a_newer_version_waits_for_it() -> None:
    with pytest.raises(UnknownOperation):
        Document(NAME).apply(seed([[99, None]]), (5, A, 1), {})


def test_the_name_depends_on_all_that_it_names() -> None:
    names = {
        actor_of(NAME, "file", ONE),
        actor_of(NAME, "file", TWO),
        actor_of(NAME, "other", ONE),
        actor_of(DocumentId("page/2"), "file", ONE),
    }
    assert len(names) == 4


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_made_anew_the_right_one_shows_in_any_order(order: tuple[int, ...]) -> None:
    """One seed and another, each carried by several: the earliest decides."""
    carried = [(10, ONE), (20, TWO), (5, TWO), (1, ONE), (30, TWO)]
    preferred: dict[str, Any] = {}
    document = Document(NAME)
    for _ in range(2):
        document = Document(NAME)
        document.preferred = preferred
        for number in order:
            hlc, content = carried[number]
            document.apply(seed(content), (hlc, ActorId(bytes([number]) * 16), 1), {})
        preferred = {"file": document.first_seed("file")}

    assert shown(document) == {"title": "one", "body": "one"}
    assert sum(seed.shows for seed in document.seeds.values()) == 1
