"""How one sequence becomes another: the splices of an assignment.

Elements that both have in common are not written again, so that what others do to
them at the same time stays. Shortest edit scripts by E. Myers, "An O(ND) Difference
Algorithm and Its Variations" (1986), the greedy one; texts are compared by lines, then
changed lines by words, so that no letter is kept by chance.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

# Elements removed and added up to which the shortest way is looked for, at the cost of
# their square: a tenth of a second here. Beyond, two sequences have little in common,
# and the middle is replaced as a whole.
DIFFERENCE_MAX = 400

# Changed places of a text that are compared word by word.
CHANGED_LINES_MAX = 50

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


class Splice(NamedTuple):
    """At `pos`, delete `deleted` elements and insert those of the new sequence in
    `inserted`. Positions count from the front, earlier splices done."""

    pos: int
    deleted: int
    inserted: slice


def splices(before: Sequence[Any], after: Sequence[Any]) -> list[Splice]:
    """Return the splices that make `after` of `before`, front to back."""
    start, deleted, inserted = difference(before, after)
    if not deleted and not len(inserted):
        return []
    middle = before[start : start + deleted]
    pairs = _common(middle, inserted)
    if pairs is None:
        return [Splice(start, deleted, slice(start, start + len(inserted)))]
    found: list[Splice] = []
    x = y = 0
    for at, to in [*pairs, (len(middle), len(inserted))]:
        if at > x or to > y:
            found.append(Splice(start + y, at - x, slice(start + y, start + to)))
        x, y = at + 1, to + 1
    return found


def sources(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[int | None]:
    """Return for each element of `after` which one of `before` it is: where both have
    as few as possible to move, and each of `before` at most once. None: a new one."""
    found: list[int | None] = [None] * len(after)
    left = set(range(len(before)))
    y = 0
    x = 0
    for at, deleted, inserted in splices(before, after):
        for _ in range(at - y):
            found[y] = x
            left.discard(x)
            x, y = x + 1, y + 1
        x, y = x + deleted, inserted.stop
    for at in range(y, len(after)):
        found[at] = x + at - y
        left.discard(x + at - y)
    of: dict[Hashable, list[int]] = {}
    for old in sorted(left, reverse=True):
        of.setdefault(before[old], []).append(old)
    for at, element in enumerate(after):
        if found[at] is None and (olds := of.get(element)):
            found[at] = olds.pop()
    return found


def longest_ascending(numbers: Sequence[int]) -> set[int]:
    """Return the numbers of a longest ascending subsequence: of an arrangement, what
    can stay where it is. Numbers are distinct. Schensted (1961), by piles."""
    tops: list[int] = []  # the least that ends an ascent of each length
    below: dict[int, int | None] = {}
    for number in numbers:
        at = bisect_left(tops, number)
        below[number] = tops[at - 1] if at else None
        tops[at : at + 1] = [number]
    found: set[int] = set()
    last = tops[-1] if tops else None
    while last is not None:
        found.add(last)
        last = below[last]
    return found


def text_splices(before: str, after: str) -> list[tuple[int, int, str]]:
    """Return (position, deleted, inserted) of each change of a text."""
    found: list[tuple[int, int, str]] = []

    def by(pieces: "list[re.Pattern[str]]", old: str, new: str, pos: int) -> None:
        if not pieces:
            at, deleted, inserted = difference(old, new)
            gone = old[at : at + deleted]
            if deleted and gone in inserted:  # written around
                left, _, right = inserted.partition(gone)
                found.append((pos + at, 0, left))
                found.append((pos + at + len(left) + deleted, 0, right))
            elif deleted or inserted:
                found.append((pos + at, deleted, inserted))
            return
        olds, news = pieces[0].findall(old), pieces[0].findall(new)
        x = y = 0  # pieces passed
        here = pos
        changed = splices(olds, news)
        # Words are looked at where few lines changed.
        deeper = pieces[1:] if len(changed) <= CHANGED_LINES_MAX else []
        for at, deleted, put in changed:
            # What stands before the splice is in both.
            here += sum(map(len, news[y:at]))
            x += at - y
            old_part = "".join(olds[x : x + deleted])
            new_part = "".join(news[put])
            by(deeper, old_part, new_part, here)
            x += deleted
            y = put.stop
            here += len(new_part)

    by([_LINES, _WORDS], before, after, 0)
    return found


def rebased(before: str, mine: str, theirs: str) -> list[tuple[int, int, str]]:
    """Return the changes from `before` to `mine` as changes of `theirs`, which was
    made of `before` as well: (position, deleted, inserted), the last first.

    What both deleted is deleted once; what is inserted where they deleted stands there.
    """
    kept: list[tuple[int, int, int]] = []  # (in before, in theirs, how many)
    old = new = 0
    for at, deleted, inserted in text_splices(before, theirs):
        kept.append((old, new, at - new))
        old += at - new + deleted
        new = at + len(inserted)
    kept.append((old, new, len(before) - old))
    found: list[tuple[int, int, str]] = []
    shift = 0
    for at, deleted, inserted in text_splices(before, mine):
        start = at - shift
        shift += len(inserted) - deleted
        place = 0
        for in_before, in_theirs, n in kept:
            if in_before <= start:
                place = in_theirs + min(n, start - in_before)
        if inserted:
            found.append((place, 0, inserted))
        for in_before, in_theirs, n in kept:
            low = max(start, in_before)
            high = min(start + deleted, in_before + n)
            if low < high:
                found.append((in_theirs + low - in_before, high - low, ""))
    return sorted(found, key=lambda one: (one[0], one[1]), reverse=True)


def _common(
    before: Sequence[Any], after: Sequence[Any]
) -> list[tuple[int, int]] | None:
    """Return the pairs of a longest common subsequence; None: too far apart."""
    n, m = len(before), len(after)
    reach = {1: 0}  # diagonal -> the furthest x on it
    steps: list[dict[int, int]] = []
    for d in range(min(n + m, DIFFERENCE_MAX) + 1):
        steps.append(dict(reach))
        for k in range(-d, d + 1, 2):
            down = k == -d or (k != d and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            y = x - k
            while x < n and y < m and before[x] == after[y]:
                x, y = x + 1, y + 1
            reach[k] = x
            if x >= n and y >= m:
                return _back(steps, n, m)
    return None


def _back(steps: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for d in range(len(steps) - 1, -1, -1):
        reach, k = steps[d], x - y
        down = k == -d or (k != d and reach[k - 1] < reach[k + 1])
        earlier = k + 1 if down else k - 1
        before_x = reach[earlier] if d else 0
        before_y = before_x - earlier if d else 0
        while x > before_x and y > before_y:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = before_x, before_y
    return pairs[::-1]


def difference(before: Any, after: Any) -> tuple[int, int, Any]:
    """Return one splice (pos, deleted, inserted) that makes `after` of `before`."""
    shorter = min(len(before), len(after))
    start = _longest(shorter, lambda n: before[:n] == after[:n])
    tail = _longest(
        shorter - start,
        lambda n: before[len(before) - n :] == after[len(after) - n :],
    )
    return start, len(before) - start - tail, after[start : len(after) - tail]


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the greatest n <= most that fits, by halving; 0 always does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
