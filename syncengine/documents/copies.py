"""Containers that are nowhere yet: what is to be written somewhere, types and all."""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

from collections.abc import Iterator
from typing import Any

from syncengine import values
from syncengine.crdt.marks import MarkRange, ranges
from syncengine.crdt.operation import ContainerId, Type
from syncengine.crdt.register import Entry
from syncengine.documents.fields import Tree
from syncengine.documents.leaves import Counter, FloatCounter, MultiValue, Set
from syncengine.documents.shape import Single
from syncengine.documents.text import Text
from syncengine.documents.view import View
from syncengine.ids import node_id


class Said(Text):
    """A text."""

    def __init__(self, text: str, marks: list[MarkRange]):
        self._said = text
        self._marks = marks

    def __str__(self) -> str:
        return self._said

    def marks(self) -> list[MarkRange]:
        return self._marks


class Several(MultiValue[Any]):
    """Concurrent values."""

    def __init__(self, several: list[Any]):
        self._several = several

    def _shown(self) -> list[Any]:
        return self._several


class Elements(Set[Any]):
    """A set."""

    def __init__(self, elements: list[Any]):
        self._all = elements

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class Planted(Tree[Any]):
    """A tree."""

    def __init__(self, rows: list[dict[str, Any]]):
        self._rows = rows

    def to_list(self) -> list[dict[str, Any]]:
        return self._rows


def copy_of(view: View, container: ContainerId, type_: int) -> Any:
    """Return what a container of a view shows, to be written elsewhere."""
    match type_:
        case Type.MAP:
            # In the order in which they were written: where two say the same in two
            # versions of a class, the later one counts.
            slots = {key: view.slot(container, key)[0] for key in view.keys(container)}
            return {
                key: copy_of_entry(view, entry)
                for key, entry in sorted(slots.items(), key=lambda one: one[1][:3])
            }
        case Type.LIST:
            return [copy_of_entry(view, entry) for entry in view.entries(container)]
        case Type.TEXT:
            return Said(view.text(container), ranges(view.spans(container)))
        case Type.SET:
            return Elements([values.decode(e) for e in view.elements(container)])
        case Type.MULTI:
            return Several(view.several(container))
        case Type.TREE:
            tree = view.tree(container)
            return Planted(
                [
                    {
                        "id": node_id(node),
                        "parent": None if parent is None else node_id(parent),
                        "value": copy_of(view, node, Type.MAP),
                    }
                    for node, parent in (tree.nodes() if tree else ())
                ]
            )
        case _:
            number = view.number(container)
            made = Counter if isinstance(number, int) else FloatCounter
            return made(number)


def copy_of_entry(view: View, entry: Entry) -> Any:
    """Return what one write shows, to be written elsewhere."""
    if entry.type:
        return copy_of(view, entry.container, entry.type)
    value = entry.value
    return Single(value) if isinstance(value, dict | list) else value


def copy_of_plain(value: Any, type_: int) -> Any:
    """Return plain data to be written as the container that it was."""
    match type_:
        case Type.TEXT:
            return Said(value, [])
        case Type.SET:
            return Elements(value)
        case Type.MULTI:
            return Several(value)
        case Type.TREE:
            return Planted(value)
        case Type.COUNTER:
            return Counter(value) if isinstance(value, int) else FloatCounter(value)
        case Type.MAP | Type.LIST:
            return value
        case _:
            return Single(value) if isinstance(value, dict | list) else value
