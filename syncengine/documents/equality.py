"""When two values are the same: of one type, containers as what they are, with marks.

True is not 1, a text is not a str, a list that is one value is not a list in which many
write. Compared are containers of a view, copies of such, and what somebody writes.
"""

# pyright: reportPrivateUsage=false

from collections.abc import Iterable, Mapping
from typing import Any, cast

from syncengine import limits, values
from syncengine.crdt.marks import ranges
from syncengine.crdt.operation import Type
from syncengine.crdt.register import Entry
from syncengine.documents.bound import Bound, Name, Shaped
from syncengine.documents.leaves import Counter, FloatCounter
from syncengine.documents.shape import Single
from syncengine.documents.view import View
from syncengine.errors import TooLarge


def rough(value: Any) -> Any:
    """Return what is equal for plain values that are, and of one type each."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float):
        return ("float", value)
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: rough(item) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [rough(item) for item in cast(Iterable[Any], value)]
    return value


def exact(value: Any, path: str = "", depth: int = 0) -> Any:
    """Return what is equal only for what is the same; raises `TooLarge`."""
    if depth > limits.DEPTH_MAX:
        raise TooLarge(
            f"nested deeper than {limits.DEPTH_MAX}", path=path, bound=limits.DEPTH_MAX
        )
    if isinstance(value, Bound | Shaped) and (view := getattr(value, "_view", None)):
        return exact_in(view, cast(Any, value)._container, value._type)
    if isinstance(value, Single):
        return ("whole", rough(value.value))
    if isinstance(value, Counter | FloatCounter):
        return ("counter", rough(int(value) if isinstance(value, int) else value + 0))
    if isinstance(value, Shaped):
        value = value.to_dict()
    type_ = value._type if isinstance(value, Bound) else 0
    below, content = depth + 1, cast(Any, value)
    if type_ == Type.TEXT:
        return ("text", str(content), _marks(content.marks()))
    if type_ == Type.MULTI:
        return ("multi", rough(list(content)))
    if type_ == Type.TREE:
        rows: list[dict[str, Any]] = content.to_list()
        return (
            "tree",
            [(r["id"], r["parent"], exact(r["value"], path, below)) for r in rows],
        )
    if type_ == Type.SET or isinstance(value, set | frozenset):
        return ("set", sorted(map(values.canonical, content)))
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {key: exact(item, path, below) for key, item in items}
    if type_ == Type.LIST or isinstance(value, list | tuple):
        return [exact(item, path, below) for item in cast(Iterable[Any], value)]
    return rough(value)


def exact_entry(view: View, entry: Entry | None) -> Any:
    """Return the same for what one write shows; None: nothing."""
    if entry is None:
        return ("nothing",)
    if entry.type:
        return exact_in(view, entry.container, entry.type)
    value = entry.value
    return ("whole", rough(value)) if isinstance(value, dict | list) else rough(value)


def exact_in(view: View, name: Name, type_: int) -> Any:
    """Return the same for a container of a view."""
    match type_:
        case Type.MAP:
            return {
                key: exact_entry(view, view.slot(name, key)[0])
                for key in view.keys(name)
            }
        case Type.LIST:
            return [exact_entry(view, entry) for entry in view.entries(name)]
        case Type.TEXT:
            return ("text", view.text(name), _marks(ranges(view.spans(name))))
        case Type.SET:
            return ("set", sorted(view.elements(name)))
        case Type.MULTI:
            return ("multi", rough(view.several(name)))
        case Type.TREE:
            rows = view.plain(name, Type.TREE)
            nodes = tree.nodes() if (tree := view.tree(name)) else ()
            return (
                "tree",
                [
                    (row["id"], row["parent"], exact_in(view, node, Type.MAP))
                    for row, (node, _) in zip(rows, nodes, strict=True)
                ],
            )
        case _:
            return ("counter", rough(view.number(name)))


def _marks(marks: Iterable[Any]) -> list[Any]:
    return [(*mark[:3], rough(mark[3])) for mark in marks]
