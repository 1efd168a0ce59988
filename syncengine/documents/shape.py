"""What a field or an item was declared to be: what may be written there, and how what
was stored is shown."""

# pyright: reportPrivateUsage=false

import types
import typing
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

import msgspec

from syncengine import values
from syncengine.documents.bound import Shaped
from syncengine.errors import Invalid

T = TypeVar("T")

_UNIONS = (typing.Union, types.UnionType)


class WholeMark:
    """Marks a field that is one value, whatever it holds."""


class IndexMark:
    """Marks a field by which queries look documents up."""


class SearchMark:
    """Marks a field whose words queries look for."""


Whole = Annotated[T, WholeMark]
"""`Whole[list[str]]` is a field of one value: the last write replaces all of it."""

Indexed = Annotated[T, IndexMark]
"""`Indexed[str]` is a field by which `space.sql` finds documents fast."""

Searchable = Annotated[T, SearchMark]
"""`Searchable[Text]` is a field in whose words `space.search` looks."""

PLAIN = (type(None), bool, int, float, str, bytes, datetime)


class Single:
    """A list or a dict that is to be one value, where it would become a container."""

    def __init__(self, value: Any):
        self.value = value


def unwrapped(declared: Any) -> tuple[Any, bool]:
    """Return a type without what it is annotated with, and whether it is `Whole`."""
    if get_origin(declared) is not Annotated:
        return declared, False
    bare, *notes = get_args(declared)
    return bare, WholeMark in notes


def is_marked(declared: Any, mark: type) -> bool:
    return get_origin(declared) is Annotated and mark in get_args(declared)[1:]


def container_of(declared: Any) -> int:
    """Return which container a declared type is; 0: a plain value."""
    bare, whole = unwrapped(declared)
    bare = get_origin(bare) or bare
    if whole or not isinstance(bare, type):
        return 0
    return int(getattr(bare, "_type", 0))


def record_of(declared: Any) -> type[Shaped] | None:
    """Return the declared record, or None."""
    bare, whole = unwrapped(declared)
    if whole or not isinstance(bare, type) or not issubclass(bare, Shaped):
        return None
    return bare


def item_of(declared: Any) -> Any:
    """Return what a declared container holds; None: anything."""
    arguments = get_args(unwrapped(declared)[0])
    item = arguments[-1] if arguments else None
    return None if item is Any or isinstance(item, typing.TypeVar) else item


def checked(value: Any, declared: Any, path: str) -> Any:
    """Return a plain value as it is stored; raises `Invalid` at its path."""
    try:
        plain = msgspec.to_builtins(
            value, builtin_types=(bytes, datetime), order="deterministic"
        )
        values.check(plain, path)
        msgspec.convert(plain, declared, strict=True, builtin_types=(bytes, datetime))
    except (msgspec.ValidationError, TypeError) as error:
        raise Invalid(str(error), path=path) from error
    return plain


def kept_unknown(plain: Any, before: Any, declared: Any) -> Any:
    """Return what is to be written over `before`, with what that has in fields which a
    declared struct does not know: a newer version wrote them."""
    kind = _struct_in(declared)
    if kind is None or not (isinstance(plain, dict) and isinstance(before, dict)):
        return cast(Any, plain)
    written = cast(dict[str, Any], plain)
    there = cast(dict[str, Any], before)
    fields = msgspec.structs.fields(kind)
    known = {field.encode_name for field in fields}
    unknown = {key: value for key, value in there.items() if key not in known}
    for field in fields:
        name = field.encode_name
        if name in written and name in there:
            written[name] = kept_unknown(written[name], there[name], field.type)
    return {**values.own_copy(unknown), **written}


def _struct_in(declared: Any) -> type[msgspec.Struct] | None:
    """Return the only struct that a declared type may be."""
    bare, _ = unwrapped(declared)
    options = get_args(bare) if get_origin(bare) in _UNIONS else (bare,)
    structs = [
        option
        for option in options
        if isinstance(option, type) and issubclass(option, msgspec.Struct)
    ]
    return structs[0] if len(structs) == 1 else None


def converted(value: Any, declared: Any) -> Any:
    """Return a stored value as its declared type; what does not fit, as it is: it was
    written by another version, and is not ours to lose."""
    if isinstance(value, PLAIN):
        return value
    value = values.own_copy(value)
    if declared is None:
        return value
    try:
        return msgspec.convert(value, declared, builtin_types=(bytes, datetime))
    except msgspec.ValidationError:
        return value


def plain_item(value: Any, declared: Any, path: str) -> Any:
    """Return an item as it is stored; raises `Invalid` at its path."""
    if declared is not None:
        return checked(value, declared, path)
    values.check(value, path)
    return value
