"""What a typed collection looks like as a table: a column for each field.

Columns are kept in the file, so that a program without the class (the command line,
another application) keeps the tables right too.
"""

from typing import Any, NamedTuple

import msgspec

from syncengine import limits
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import Type
from syncengine.documents import model
from syncengine.documents.lenses import Converted, combined

_json = msgspec.json.Encoder(order="sorted")


class Column(NamedTuple):
    """One field. `type` is that of its container, 0 for a register; `default` what an
    unwritten one shows; `indexed` whether queries look documents up by it, `searched`
    whether they look for words in it; `key` what it is called where it is stored, and
    `converts` what it is converted from (`lenses.Converted`)."""

    name: str
    type: int
    default: Any
    indexed: bool
    searched: bool = False
    key: str = ""
    converts: str = ""

    @property
    def stored(self) -> str:
        return self.key or self.name


def columns_of(kind: type[model.Document]) -> list[Column]:
    """Return the columns of a class's documents, in the order of its fields."""
    return [
        Column(
            name,
            type_,
            None if type_ else cell(default),
            indexed,
            searched,
            "" if key == name else key,
            converts,
        )
        for name, type_, default, indexed, searched, key, converts in (
            model.declared(kind)
        )
    ]


def merged(stored: list[Column], declared: list[Column]) -> list[Column]:
    """Return the columns of two versions of a class: none of another is dropped."""
    found = {column.name: column for column in stored}
    found.update((column.name, column) for column in declared)
    return list(found.values())


def encode(columns: list[Column]) -> str:
    return _json.encode(columns).decode()


def decode(raw: str) -> list[Column]:
    """Invert `encode`."""
    return [Column(*fields) for fields in msgspec.json.decode(raw)]


def cell(value: Any) -> Any:
    """Return a value as SQL has it: what it has no type for is JSON."""
    if value is None or isinstance(value, str | bytes | float):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        fits = limits.INT_MIN <= value <= limits.INT_MAX
        return value if fits else str(value)  # a sum may outgrow 64 bits
    encoded = _json.encode(value).decode()
    # A datetime is text without quotes.
    return encoded[1:-1] if encoded[:1] == '"' else encoded


def value_of(document: State, column: Column, lens: Converted | None = None) -> Any:
    """Return what a field shows, as SQL has it; `lens`: how it is converted."""
    slots = document.root.slots
    slot = slots.get(column.stored, ())
    if lens is not None:
        slot = combined(slot, slots.get(lens.old, ()), lens)
    if not column.type:
        for entry in slot:
            if not entry.type:
                return cell(entry.value)
        return column.default
    container = (column.stored, column.type)
    shows = bool(slot) and slot[0].container == container
    if not shows:
        return {Type.COUNTER: 0, Type.TEXT: "", Type.MAP: "{}"}.get(
            Type(column.type), "[]"
        )
    return cell(document.to_value(container, column.type))
