"""Documents of Yjs: from them, and to them, through `pycrdt` (the extra `yjs`).

Content goes over: maps, arrays, texts with their formats, and plain values. A document
of Yjs is a map of named roots, as ours is one of fields. What the other side has no
word for becomes the nearest that it has: a counter a number, a set and concurrent
values an array, a tree an array of its nodes, a time text. History does not go over:
each side goes on with its own; who wrote a text can, as a format.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import pycrdt as _pycrdt

from syncengine.crdt.marks import MarkRange
from syncengine.documents import model
from syncengine.documents.copies import Said
from syncengine.documents.equality import exact
from syncengine.documents.fields import List, Map, Tree
from syncengine.documents.leaves import Counter, FloatCounter, MultiValue, Set
from syncengine.documents.model import Document
from syncengine.documents.text import Text
from syncengine.replication.history import Passage

# Its types say less than it does.
pycrdt: Any = _pycrdt


def to_yjs(
    document: Document | Map[str, Any],
    authors: Mapping[str, Iterable[Passage]] | None = None,
) -> Any:
    """Return a new `pycrdt.Doc` with the content of a snapshot or a draft: a root for
    each field that merges, of its name, and a map `values` for the plain ones.

    With `authors={"body": await space.blame(Note, "1", "body")}` each passage of that
    text has who wrote it as its format `author`.
    """
    doc = pycrdt.Doc()
    plain = doc.get("values", type=pycrdt.Map)
    fields = model.untyped(model.view_of(document))
    with doc.transaction():
        for name, value in fields.items():
            match value:
                case Text():
                    text = doc.get(name, type=pycrdt.Text)
                    _write_text(text, value)
                    _say_authors(text, (authors or {}).get(name, ()))
                case Map():
                    _write_map(doc.get(name, type=pycrdt.Map), cast(Any, value))
                case List() | Set() | MultiValue() | Tree():
                    _write_array(doc.get(name, type=pycrdt.Array), _items(value))
                case _:
                    _put(plain, name, value)
    return doc


def _items(value: Any) -> list[Any]:
    return value.to_list() if isinstance(value, Tree) else list(value)


def _write_text(target: Any, text: Text) -> None:
    for characters, marks in text.spans():
        # At its own end: it counts in bytes, we in code points.
        target.insert(len(target), characters, {k: _plain(v) for k, v in marks.items()})


def _say_authors(target: Any, passages: Iterable[Passage]) -> None:
    at = 0
    for passage in passages:
        end = at + len(passage.text.encode())  # it counts in bytes
        target.format(at, end, {"author": passage.author})
        at = end


def _write_map(target: Any, value: Mapping[str, Any]) -> None:
    for key, item in value.items():
        _put(target, key, item)


def _put(target: Any, key: str, value: Any) -> None:
    made = _made(value)
    target[key] = made
    _fill(target[key], value)


def _write_array(target: Any, items: Iterable[Any]) -> None:
    for item in items:
        target.append(_made(item))
        _fill(target[len(target) - 1], item)


def _made(value: Any) -> Any:
    """Return what a value is there, empty if it holds something."""
    if isinstance(value, Text):
        return pycrdt.Text()
    if isinstance(value, Map | dict):
        return pycrdt.Map({})
    if isinstance(value, List | Set | MultiValue | Tree | list | tuple):
        return pycrdt.Array([])
    return _plain(value)


def _fill(target: Any, value: Any) -> None:
    if isinstance(value, Text):
        _write_text(target, value)
    elif isinstance(value, Map | dict):
        _write_map(target, cast(Mapping[str, Any], value))
    elif isinstance(value, List | Set | MultiValue | Tree | list | tuple):
        _write_array(target, _items(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return int(value)
    if isinstance(value, FloatCounter):
        return float(value)
    return value.isoformat() if isinstance(value, datetime) else value


# --- from there -----------------------------------------------------------------------


def from_yjs(doc: Any, draft: Map[str, Any], roots: Mapping[str, type]) -> None:
    """Make a draft (`tx["note/1"]`) say what a `pycrdt.Doc` does, by edits where it
    differs, so that doing it again writes nothing.

    `roots` names the roots and their types, which a document of Yjs does not tell:
    `{"body": pycrdt.Text, "items": pycrdt.Array, "values": pycrdt.Map}`. The keys of
    the map `values` are fields. Raises `Invalid`.
    """
    for name, type_ in roots.items():
        root = doc.get(name, type=type_)
        if name == "values" and isinstance(root, pycrdt.Map):
            for key in root.keys():  # noqa: SIM118  # it is no mapping
                _assign(draft, key, _read(root[key]))
        else:
            _assign(draft, name, _read(root))


def _assign(draft: Map[str, Any], key: str, value: Any) -> None:
    if key not in draft or exact(draft[key]) != exact(value):
        draft[key] = value


def _read(value: Any) -> Any:
    if isinstance(value, pycrdt.Text):
        return _read_text(value)
    if isinstance(value, pycrdt.Map):
        return {key: _read(value[key]) for key in value.keys()}  # noqa: SIM118  # the same
    if isinstance(value, pycrdt.Array):
        return [_read(item) for item in value]
    if isinstance(value, dict):  # a value as a whole
        return {key: _read(item) for key, item in cast(Any, value).items()}
    if isinstance(value, list):
        return [_read(item) for item in cast(Any, value)]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # all numbers of Yjs are floats
    return value


def _read_text(value: Any) -> Said:
    found: list[str] = []
    marks: list[MarkRange] = []
    at = 0
    for characters, formats in value.diff():
        bears: dict[str, Any] = formats or {}
        for name, said in bears.items():
            if said is not None:
                marks.append(MarkRange(at, at + len(characters), name, _read(said)))
        found.append(characters)
        at += len(characters)
    return Said("".join(found), marks)
