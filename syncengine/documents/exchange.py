"""Documents as JSON, and back: what a document shows, and the types that JSON lacks.

A record is `{"path": "note/1", "value": {...}, "types": {...}}`. `types` names, by path
inside the document, what plain JSON does not tell: text, set, counter, multi (values
that are concurrent), tree, datetime, bytes, and whole (a list or dict that is one
value).
A text that bears marks has them in `"marks": {path: [[start, stop, name, value]...]}`.
"""

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

from syncengine import values
from syncengine.crdt.document import Document as State
from syncengine.crdt.marks import MarkRange, ranges
from syncengine.crdt.operation import ContainerId, Type
from syncengine.crdt.register import Entry
from syncengine.documents.copies import Elements, Planted, Said, Several
from syncengine.documents.fields import assign
from syncengine.documents.leaves import Counter, FloatCounter
from syncengine.documents.shape import Single
from syncengine.documents.view import View
from syncengine.errors import Invalid
from syncengine.ids import node_id

_NAMES = {
    Type.COUNTER: "counter",
    Type.SET: "set",
    Type.TEXT: "text",
    Type.MULTI: "multi",
}


class _Notes(NamedTuple):
    """What a record says besides plain values, by path."""

    types: dict[str, str]
    marks: dict[str, Any]


def dump(document: State) -> dict[str, Any]:
    """Return a document's record."""
    types: dict[str, str] = {}
    marked: dict[str, Any] = {}
    value = _dumped(document, None, Type.MAP, "", _Notes(types, marked))
    record = {"path": str(document.name), "value": value, "types": types}
    return {**record, "marks": marked} if marked else record


def _dumped(
    document: State,
    container: ContainerId,
    type_: int,
    path: str,
    notes: _Notes,
) -> Any:
    types = notes.types
    if type_ in _NAMES:
        types[path] = _NAMES[Type(type_)]
        shown = document.to_value(container, type_)
        state: Any = document.state(container, type_)
        if type_ == Type.TEXT and (found := ranges(state.spans())):
            for mark in found:
                _check_json(mark.value, f"{path}: mark {mark.name}")
            notes.marks[path] = [list(mark) for mark in found]
        if values.is_list(shown):
            return [_plain(v, f"{path}/{i}", types) for i, v in enumerate(shown)]
        return shown
    if type_ == Type.MAP:
        state = document.state(container, Type.MAP)
        steps = {key: slot[0] for key, slot in state.slots.items()}
        return {
            key: _entry(document, entry, f"{path}/{values.escape(key)}", notes)
            for key, entry in sorted(steps.items())
        }
    if type_ == Type.TREE:
        types[path] = "tree"
        state = document.state(container, Type.TREE)
        rows: list[dict[str, Any]] = []
        for node, parent in state.nodes():
            name = node_id(node)
            above = None if parent is None else node_id(parent)
            value = _dumped(document, node, Type.MAP, f"{path}/{name}", notes)
            rows.append({"id": name, "parent": above, "value": value})
        return rows
    state = document.state(container, Type.LIST)
    return [
        _entry(document, state.slots[name][0], f"{path}/{index}", notes)
        for index, name in enumerate(state.elements())
    ]


def _entry(document: State, entry: Entry, path: str, notes: _Notes) -> Any:
    if entry.type:
        return _dumped(document, entry.container, entry.type, path, notes)
    return _plain(entry.value, path, notes.types)


def _plain(value: Any, path: str, types: dict[str, str]) -> Any:
    if isinstance(value, datetime):
        types[path] = "datetime"
        return value.isoformat()
    if isinstance(value, bytes):
        types[path] = "bytes"
        return base64.b64encode(value).decode()
    if isinstance(value, dict | list):
        types[path] = "whole"
        _check_json(cast(Any, value), path)
    return cast(Any, value)


def _check_json(value: Any, path: str) -> None:
    if isinstance(value, datetime | bytes):
        raise Invalid(
            "a datetime or bytes inside one whole value has no JSON form", path=path
        )
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            _check_json(item, f"{path}/{values.escape(key)}")
    elif values.is_list(value):
        for index, item in enumerate(value):
            _check_json(item, f"{path}/{index}")


def load(view: View, record: Mapping[str, Any]) -> None:
    """Make a document what its record says, by edits where it differs.

    Raises `Invalid` for what is no record.
    """
    types = record.get("types", {})
    value = record.get("value")
    if not isinstance(types, dict) or not isinstance(value, dict):
        raise Invalid('a record is {"path": ..., "value": {...}, "types": {...}}')
    try:
        notes = _Notes(types, _marks(record.get("marks", {})))
        built: Any = _built(value, "", notes)
    except Invalid as error:
        # Paths in a record begin with the field.
        path = f"{view.path(None)}{error.path}"
        told = str(error).removeprefix(f"{error.path}: ")
        raise Invalid(told, path=path, bound=error.bound) from error
    assign(view, None, Type.MAP, built, view.document.name)


def _marks(raw: Any) -> dict[str, list[MarkRange]]:
    try:
        return {
            path: [
                MarkRange(_of(int, one[0]), _of(int, one[1]), _of(str, one[2]), one[3])
                for one in found
            ]
            for path, found in raw.items()
        }
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Invalid(
            "the marks of a record are {path: [[start, stop, name, value], ...]}"
        ) from error


def _built(value: Any, path: str, notes: _Notes) -> Any:
    """Return what is to be written: containers as what they were."""
    kind = notes.types.get(path)
    try:
        match kind:
            case None:
                pass
            case "text":
                return Said(_of(str, value), notes.marks.get(path, []))
            case "counter":
                number = _of((int, float), value)
                made = Counter if isinstance(number, int) else FloatCounter
                return made(number)
            case "set" | "multi":
                items = [
                    _built(item, f"{path}/{index}", notes)
                    for index, item in enumerate(_of(list, value))
                ]
                plain = [i.value if isinstance(i, Single) else i for i in items]
                return Elements(plain) if kind == "set" else Several(plain)
            case "tree":
                return Planted(
                    [
                        {
                            **row,
                            "value": _built(row["value"], f"{path}/{row['id']}", notes),
                        }
                        for row in _of(list, value)
                    ]
                )
            case "datetime":
                return datetime.fromisoformat(_of(str, value))
            case "bytes":
                return base64.b64decode(_of(str, value), validate=True)
            case "whole":
                return Single(value)
            case _:
                raise Invalid(f"{kind!r} is no type of this version", path=path)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid(f"not a {kind}: {error}", path=path) from error
    if isinstance(value, dict):
        for name in cast(dict[object, Any], value):
            values.check_key(name, path)
        return {
            key: _built(item, f"{path}/{values.escape(key)}", notes)
            for key, item in cast(dict[str, Any], value).items()
        }
    if values.is_list(value):
        return [_built(item, f"{path}/{i}", notes) for i, item in enumerate(value)]
    return value


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} {value!r:.40}")
    return value
