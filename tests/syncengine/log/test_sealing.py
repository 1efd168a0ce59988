"""Typing is sealed as one change; what was not sealed can be written again."""

from typing import Any

from syncengine import limits
from syncengine.clock import hlc_from_ms
from syncengine.ids import ActorId, DocumentId
from syncengine.log.change import NO_META, Change, Touch
from syncengine.log.sealing import coalesce, cut, moved

A, B = ActorId(b"a" * 16), ActorId(b"b" * 16)


def change(seq: int, ms: int, *ops: list[Any], n: int = 1) -> Change:
    touch = Touch(DocumentId("note/1"), [*ops], n)
    return Change(A, seq, hlc_from_ms(ms), [], [touch], NO_META)


def test_consecutive_typing_is_one_change_with_the_last_stamp() -> None:
    typed = [change(i + 1, i, [8, "body", i, c]) for i, c in enumerate("typing")]
    erased = [change(7 + i, 7 + i, [9, "body", 5 - i, 1]) for i in range(3)]

    (joined,) = coalesce(typed + erased)
    assert joined.touches[0].ops == [[8, "body", 0, "typing"], [10, "body", 3, 3]]
    assert (joined.seq, joined.n, joined.hlc) == (1, 9, hlc_from_ms(9))


def test_a_pause_another_text_and_a_dependency_keep_changes_apart() -> None:
    first = change(1, 0, [8, "body", 0, "a"])

    for other in (
        change(2, 5_000, [8, "body", 1, "b"]),
        change(2, 1, [8, "title", 1, "b"]),
        change(2, 1, [1, None, "k", 1]),
    ):
        assert coalesce([first, other]) == [first, other]


def test_a_batch_is_cut_at_a_change(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "BATCH_BYTES_CUT", 200)
    changes = [change(i, i, [1, None, "k", "x" * 60]) for i in range(1, 6)]

    group, rest = cut(changes)
    assert group + rest == changes
    assert len(group) == 2


def test_what_is_written_again_names_its_containers_anew() -> None:
    assert moved([1, 12, "k", 1], A, -9, 10) == [1, 3, "k", 1]  # made with it
    assert moved([1, 4, "k", 1], A, -9, 10) == [1, [A, 4], "k", 1]  # made before
    assert moved([1, [B, 4], "k", 1], A, -9, 10) == [1, [B, 4], "k", 1]
    assert moved([4], A, -9, 10) == [4]
