"""How versions of a class understand each other: what one calls or writes otherwise
than another, in both directions.

Devices update one by one, so that several versions write one document at a time. What
stands in the document is what the first version called it; a later class says how it
reads and writes that:

    class Task(Document, version=3, lenses=[
        Renamed("title", "headline"),
        Converted("done", "status", up=lambda done: "done" if done else "open",
                  down=lambda status: status == "done"),
    ]):
        headline: str
        status: str = "open"

A class that writes what older ones must not write beside says so: `since=3`. Older
versions then read such a document, and refuse to write it, with the reason.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from syncengine import values
from syncengine.crdt.register import Slot

# Where a document says which version of its class may write it: no field begins so.
SCHEMA = "_schema"


@dataclass(frozen=True)
class Renamed:
    """A field is called otherwise: what is stored keeps its name."""

    old: str
    new: str


@dataclass(frozen=True)
class Converted:
    """A field of one value took the place of another that says less, or it otherwise.

    Both are written; whoever wrote last is read: what an older version wrote through
    `up`, and it reads what `down` makes. (A program without the class knows no
    functions: in tables that it writes to, the column has what was written as such,
    until one that has the class opens the file.)
    """

    old: str
    new: str
    up: Callable[[Any], Any]
    down: Callable[[Any], Any]


Lens = Renamed | Converted


def combined(new: Slot, old: Slot, lens: Converted) -> Slot:
    """Return the writes of a field, those of what it was converted from as it reads
    them; the one that shows first."""
    new = tuple(entry for entry in new if not entry.type)
    old = tuple(entry for entry in old if not entry.type)
    # Who writes the new field writes the other one right before.
    beside = {(entry.actor, entry.seq - 1) for entry in new}
    there = {(entry.actor, entry.seq) for entry in old}
    latest = max((entry[:3] for entry in old), default=None)
    found = [
        entry._replace(value=lens.up(values.own_copy(entry.value)))
        for entry in old
        if (entry.actor, entry.seq) not in beside
    ]
    # Where that other one was written over, by who had seen it, so was the new one.
    found += [
        entry
        for entry in new
        if latest is None or entry[:3] > latest or (entry.actor, entry.seq - 1) in there
    ]
    return tuple(sorted(found, key=lambda entry: entry[:3], reverse=True))


def keys(lenses: Iterable[Lens]) -> tuple[dict[str, str], dict[str, Converted]]:
    """Return (stored name of each field that was renamed, field -> what it is converted
    from, by its stored name); lenses are given from the oldest on."""
    stored: dict[str, str] = {}
    converted: dict[str, Converted] = {}
    for lens in lenses:
        before = stored.pop(lens.old, lens.old)
        if isinstance(lens, Renamed):
            stored[lens.new] = before
            if lens.old in converted:
                converted[lens.new] = converted.pop(lens.old)
        elif lens.old in converted:
            raise TypeError(
                f"{lens.old} was converted once already; convert {lens.new} from what "
                "that was converted from"
            )
        else:
            converted[lens.new] = Converted(before, lens.new, lens.up, lens.down)
    return stored, converted
