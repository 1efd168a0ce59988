"""What is different between two snapshots of a document."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from syncengine import values
from syncengine.crdt.marks import MarkRange, changes, spliced
from syncengine.crdt.operation import ContainerId, Type
from syncengine.crdt.register import Entry
from syncengine.crdt.sequence.difference import splices, text_splices
from syncengine.crdt.sequence.state import Edit
from syncengine.documents.equality import exact_entry
from syncengine.documents.view import View
from syncengine.ids import parse_node_id


@dataclass(frozen=True)
class Difference:
    """One place where two snapshots differ."""

    path: str
    """`field/key-or-index`, without the document's own"""
    before: Any
    """What it showed, as plain data; None: it was not there"""
    after: Any
    """What it shows; None: it is gone"""
    edits: list[Edit | MarkRange] = field(default_factory=list[Edit | MarkRange])
    """Of a text or a list: the splices, and what became of marks, that make one of the
    other"""


def differences(before: View | None, after: View | None) -> list[Difference]:
    """Return where two snapshots differ, in the order of paths; None: the document was
    not there."""
    return list(_map(before, None, after, None, ""))


def _map(
    before: View | None,
    was: ContainerId,
    after: View | None,
    now: ContainerId,
    path: str,
) -> Iterator[Difference]:
    old = before.keys(was) if before is not None else []
    new = after.keys(now) if after is not None else []
    for key in sorted({*old, *new}):
        one = before.slot(was, key)[0] if before is not None and key in old else None
        other = after.slot(now, key)[0] if after is not None and key in new else None
        step = values.escape(key)
        yield from _entry(before, one, after, other, f"{path}/{step}" if path else step)


def _entry(
    before: View | None,
    was: Entry | None,
    after: View | None,
    now: Entry | None,
    path: str,
) -> Iterator[Difference]:
    old = before.plain_entry(was) if before is not None and was is not None else None
    new = after.plain_entry(now) if after is not None and now is not None else None
    if before and was and after and now and was.type == now.type:
        if was.type in (Type.MAP, Type.TEXT, Type.LIST, Type.TREE):
            pass  # told in parts
        elif exact_entry(before, was) == exact_entry(after, now):
            return
        if was.type == Type.MAP:
            yield from _map(before, was.container, after, now.container, path)
            return
        if was.type == Type.TEXT:
            edits = _text(before, was.container, after, now.container)
            if edits:
                yield Difference(path, old, new, edits)
            return
        if was.type == Type.LIST:
            edits = _list(before, was.container, after, now.container, new or [])
            if edits:
                yield Difference(path, old, new, edits)
            there = {e.container: e for e in before.entries(was.container) if e.type}
            for index, entry in enumerate(after.entries(now.container)):
                if entry.type and (same := there.get(entry.container)):
                    yield from _entry(before, same, after, entry, f"{path}/{index}")
            return
        if was.type == Type.TREE:
            if _places(old) != _places(new):
                yield Difference(path, old, new)
            nodes = {row["id"] for row in old or ()}
            for row in new or ():
                if row["id"] in nodes:
                    node = parse_node_id(row["id"])
                    yield from _map(before, node, after, node, f"{path}/{row['id']}")
            return
    yield Difference(path, old, new)


def _text(
    before: View, was: ContainerId, after: View, now: ContainerId
) -> list[Edit | MarkRange]:
    edits: list[Edit | MarkRange] = []
    spans = before.spans(was)
    for splice in text_splices(before.text(was), after.text(now)):
        edits.append(Edit(*splice))
        spans = spliced(spans, *splice)
    return [*edits, *changes(spans, after.spans(now))]


def _places(rows: list[dict[str, Any]] | None) -> list[tuple[Any, Any]]:
    """Return where the nodes of a tree stand."""
    return [(row["id"], row["parent"]) for row in rows or ()]


def _list(
    before: View, was: ContainerId, after: View, now: ContainerId, new: list[Any]
) -> list[Edit | MarkRange]:
    """Return the splices; what changed inside an element is no part of them."""

    def known(view: View, entry: Entry) -> Any:
        return ("is", entry.container) if entry.type else exact_entry(view, entry)

    old_elements = [known(before, entry) for entry in before.entries(was)]
    new_elements = [known(after, entry) for entry in after.entries(now)]
    return [
        Edit(pos, deleted, new[inserted])
        for pos, deleted, inserted in splices(old_elements, new_elements)
    ]
