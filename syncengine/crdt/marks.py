"""Marks: what stands over a range of a text, as bold or a link does.

After Litt, Lim, Kleppmann and van Hardenberg, "Peritext: A CRDT for Collaborative Rich
Text Editing" (2022), with our own way to hold on to the edges: a mark stands between
two *anchors*, elements of the text without a character. What is typed at an edge falls
inside or outside by where it is inserted; what is concurrently inserted there, by the
rank of the anchor, which stands before or behind all that is inserted with it. So the
two agree: inside where the mark expands, else outside.

Of marks with one name over one character the greatest by (hlc, actor, seq) shows; one
whose value is None takes off what others put there. A mark is there while both its
anchors are.

Laws (`tests/syncengine/crdt/test_marks.py`): every order of delivery leaves the same
spans; they are those of a text whose characters each know their marks.
"""

from bisect import insort
from collections.abc import Iterable, Mapping
from enum import IntFlag
from typing import Any, NamedTuple, cast

from syncengine import values
from syncengine.crdt.sequence.buffer import Piece
from syncengine.ids import ActorId, OpId, Stamp
from syncengine.values import Value


class Expand(IntFlag):
    """Which edges take in what is typed right there."""

    NONE = 0
    BEFORE = 1
    AFTER = 2
    BOTH = 3


class Mark(NamedTuple):
    """One mark. Its first anchor has its name, its second the seq behind that."""

    hlc: int
    actor: ActorId
    seq: int
    key: str
    value: Value
    expand: int

    @property
    def stamp(self) -> Stamp:
        return self[:3]

    @property
    def anchors(self) -> tuple[OpId, OpId]:
        return (self.actor, self.seq), (self.actor, self.seq + 1)


class Span(NamedTuple):
    """Neighbouring characters with the same marks: name -> value."""

    text: str
    marks: dict[str, Any]


class MarkRange(NamedTuple):
    """Where a mark shows: over the characters [start, stop)."""

    start: int
    stop: int
    name: str
    value: Any


def place(marks: Mapping[OpId, Mark], anchors: list[OpId]) -> int:
    """Return behind how many of the anchors at one place something is inserted.

    Behind the last one that wants it so: where they cannot all have it, what does not
    expand ends for certain. Marks over nothing, all of whose text was deleted, are not
    asked.
    """
    found = 0
    for number, (actor, seq) in enumerate(anchors, 1):
        mark = marks.get((actor, seq))
        if mark is not None:
            other, behind = (actor, seq + 1), bool(mark.expand & Expand.BEFORE)
        else:
            mark = marks.get((actor, seq - 1))
            other = (actor, seq - 1)
            behind = mark is not None and not mark.expand & Expand.AFTER
        if behind and other not in anchors:
            found = number
    return found


def spans(pieces: Iterable[Piece], marks: Mapping[OpId, Mark]) -> list[Span]:
    """Return a text as spans, in order."""
    pieces = list(pieces)
    there = {anchor for _, anchor in pieces}
    open_: dict[str, list[tuple[Stamp, Value]]] = {}
    shown: dict[str, Any] = {}
    differs: set[str] = set()  # what shows now unlike in the span before
    found: list[Span] = []
    for text, anchor in pieces:
        if text:
            if found and not differs:
                found[-1] = Span(found[-1].text + text, found[-1].marks)
            else:
                found.append(Span(text, dict(sorted(shown.items()))))
                differs.clear()
        if anchor is None:
            continue
        actor, seq = anchor
        mark = marks.get(anchor)
        begins = mark is not None
        if mark is None:
            mark = marks.get((actor, seq - 1))
        if mark is None or not there.issuperset(mark.anchors):
            continue
        over = open_.setdefault(mark.key, [])
        if begins:
            insort(over, (mark.stamp, mark.value), key=_stamp)
        else:
            over.remove((mark.stamp, mark.value))
        if over and over[-1][1] is not None:
            shown[mark.key] = over[-1][1]
        else:
            shown.pop(mark.key, None)
        if found:
            before = found[-1].marks
            if same(before.get(mark.key), shown.get(mark.key)):
                differs.discard(mark.key)
            else:
                differs.add(mark.key)
    return found


def _stamp(one: tuple[Stamp, Value]) -> Stamp:
    return one[0]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one type: True is not 1."""
    if one != other or type(one) is not type(other):
        return False
    if isinstance(one, dict):
        entries = cast(dict[str, Any], one)
        return all(same(value, other[key]) for key, value in entries.items())
    if values.is_list(one):
        return all(map(same, one, other))
    return True


def ranges(spans: Iterable[Span]) -> list[MarkRange]:
    """Return where each mark shows."""
    return _grown(
        (len(text), name, value)
        for text, marks in spans
        for name, value in [(None, None), *marks.items()]
    )


def changes(before: list[Span], after: list[Span]) -> list[MarkRange]:
    """Return what to mark, in a text that stays, to make one of the other; the value
    None: to take off."""
    return _grown(
        (n, name, new.get(name) if name is not None else None)
        for n, old, new in _pairs(before, after)
        for name in [None, *sorted(old.keys() | new.keys())]
        if name is None
        or name not in old
        or not same(old[name], new.get(name) if name in new else None)
    )


def _grown(steps: Iterable[tuple[int, str | None, Any]]) -> list[MarkRange]:
    """Return ranges, neighbours as one, of (how many characters, name, value); the name
    None begins with the next characters."""
    found: list[MarkRange] = []
    last: dict[str, int] = {}  # name -> which of `found`
    start = stop = 0
    for n, name, value in steps:
        if name is None:
            start, stop = stop, stop + n
            continue
        before = last.get(name)
        if (
            before is not None
            and found[before].stop == start
            and same(found[before].value, value)
        ):
            found[before] = found[before]._replace(stop=stop)
        else:
            last[name] = len(found)
            found.append(MarkRange(start, stop, name, value))
    return found


def spliced(
    spans: Iterable[Span], pos: int, deleted: int, inserted: str = ""
) -> list[Span]:
    """Return spans after a splice; what is inserted bears no mark."""
    found: list[Span] = []
    new = Span(inserted, {}) if inserted else None
    at = 0
    for text, marks in spans:
        low, high = max(0, pos - at), max(0, pos + deleted - at)
        at += len(text)
        if text[:low]:
            found.append(Span(text[:low], marks))
        if new is not None and at >= pos:
            found.append(new)
            new = None
        if text[max(low, high) :]:
            found.append(Span(text[max(low, high) :], marks))
    return [*found, new] if new is not None else found


def piece(spans: Iterable[Span], start: int, stop: int | None = None) -> list[Span]:
    """Return the spans of the characters [start, stop)."""
    found: list[Span] = []
    at = 0
    for text, marks in spans:
        end = None if stop is None else max(0, stop - at)
        part = text[max(0, start - at) : end]
        if part:
            found.append(Span(part, marks))
        at += len(text)
    return found


def _pairs(
    before: list[Span], after: list[Span]
) -> Iterable[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield (how many characters, marks before, marks after) of two equal texts."""
    i = j = 0
    left = len(before[0].text) if before else 0
    right = len(after[0].text) if after else 0
    while i < len(before) and j < len(after):
        n = min(left, right)
        yield n, before[i].marks, after[j].marks
        left, right = left - n, right - n
        if not left:
            i += 1
            left = len(before[i].text) if i < len(before) else 0
        if not right:
            j += 1
            right = len(after[j].text) if j < len(after) else 0
