"""Classes that declare fields: what a typed document and a `Record` have in common.

A field of a plain type is a register; Counter, Set, List, Map, Text, Tree and a Record
merge.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

import collections.abc
import copy
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import (
    Any,
    ClassVar,
    Self,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import msgspec

from syncengine import values
from syncengine.crdt.operation import Action, ContainerId, Type
from syncengine.crdt.register import Entry
from syncengine.documents.bound import Bound, Name, Shaped
from syncengine.documents.equality import exact
from syncengine.documents.fields import (
    Tree,
    assign,
    container_at,
    fill,
    plain_value,
    unmade,
)
from syncengine.documents.lenses import Converted, Lens, combined, keys
from syncengine.documents.shape import (
    IndexMark,
    SearchMark,
    checked,
    container_of,
    converted,
    is_marked,
    kept_unknown,
    record_of,
    unwrapped,
)
from syncengine.documents.view import View
from syncengine.errors import Invalid

RESERVED = frozenset({"id", "meta", "to_dict"})

MISSING: Any = object()

_INSTEAD: dict[Any, tuple[str, str]] = {
    list: ("List[...]", "Whole[list[...]]"),
    tuple: ("List[...]", "Whole[tuple[...]]"),
    collections.abc.Sequence: ("List[...]", "Whole[list[...]]"),
    dict: ("Map[...]", "Whole[dict[...]]"),
    collections.abc.Mapping: ("Map[...]", "Whole[dict[...]]"),
    set: ("Set[...]", "Whole[set[...]]"),
    frozenset: ("Set[...]", "Whole[set[...]]"),
}


class Field:
    """One declared field, as a descriptor."""

    def __init__(
        self,
        name: str,
        declared: Any,
        default: Any,
        key: str,
        lens: Converted | None = None,
    ):
        self.name = name
        self.key = key
        """What it is called where it is stored"""
        self.lens = lens
        self.default = default
        self.declared = declared
        self.is_indexed = is_marked(declared, IndexMark)
        self.is_searched = is_marked(declared, SearchMark)
        self.type = container_of(declared)
        """The type of its container; 0: a register"""
        self.container: ContainerId = (key, self.type) if self.type else None
        """Its container in a document"""
        if isinstance(default, Record) and default._given:
            raise TypeError(
                f"{name}: a record that nobody wrote shows the defaults of its class; "
                f"write {type(default).__name__}() here"
            )
        if self.type and default is MISSING:
            record = record_of(declared)
            if record is None or not any(
                field.is_required for field in cast(Any, record)._fields.values()
            ):
                self.default = None

    @property
    def is_required(self) -> bool:
        """Whether whoever makes it has to give a value."""
        return self.default is MISSING

    def __get__(self, instance: "Declared | None", owner: type) -> Any:
        if instance is None:
            return self
        view, at = instance._view, instance._container
        if view is None:
            return instance._given.get(self.name, self._empty())
        if self.type:
            name = unmade(at, self.key, self.type)
            return container_at(view, name, self.type, self.declared)
        if self.lens is not None and view.shows(at):
            slots = view.slot(at, self.key), view.slot(at, self.lens.old)
            entry = next(iter(combined(*slots, self.lens)), None)
        else:
            entry = _plain_entry(view, at, self.key)
        return self._empty() if entry is None else converted(entry.value, self.declared)

    def _empty(self) -> Any:
        """Return what shows where nobody wrote."""
        if self.default is MISSING:
            return None
        if self.type and self.default is None:
            bare = unwrapped(self.declared)[0]
            return (get_origin(bare) or bare)()
        return copy.deepcopy(self.default)  # nobody edits it for all

    def __set__(self, instance: "Declared", value: Any) -> None:
        view, at = instance._view, instance._container
        if view is None:
            if not self.type:
                checked(value, self.declared, self.name)
            instance._given[self.name] = value
            return
        path = view.path(at, self.key)
        view.writable()
        if not self.type:
            self._write(view, at, value, path)
            return
        name = unmade(at, self.key, self.type)
        own = isinstance(value, Bound) and value._view is view
        if own and value._container == name:
            return  # `note.body += "x"` has done its work already
        with view.writable().whole():
            assign(view, name, self.type, value, path, self.declared)

    def _write(self, view: View, at: Name, value: Any, path: str) -> None:
        plain = checked(value, self.declared, path)
        before = _plain_entry(view, at, self.key)
        if before is not None:
            plain = kept_unknown(plain, before.value, self.declared)
        if self.lens is None:
            view.emit(Action.SET, at, self.key, plain)
            return
        older = self.lens.down(value)
        values.check(older, path)
        with view.writable().whole():
            view.emit(Action.SET, at, self.lens.old, older)
            view.emit(Action.SET, at, self.key, plain)  # the later of the two

    def write_first(self, view: View, at: ContainerId, value: Any) -> None:
        """Write the first value into what was just made; `MISSING`: nothing."""
        path = view.path(at, self.key)
        if not self.type:
            if value is not MISSING:
                self._write(view, at, value, path)
            return
        made = self.container
        if at is not None:
            # Made with the record, so that all who write to it write to the same.
            seq = view.emit(Action.MAKE, at, self.key, self.type)
            made = (view.writable().actor, seq)
            record = record_of(self.declared)
            if value is MISSING and record is not None and not self.is_required:
                value = record()
        if value is not MISSING:
            fill(view, made, self.type, value, path, self.declared)


def _plain_entry(view: View, at: Name, key: str) -> Entry | None:
    slot = view.slot(at, key) if view.shows(at) else ()
    return next((entry for entry in slot if not entry.type), None)


class DeclaredMeta(type):
    """Makes fields of a class's annotations."""

    _fields: dict[str, Field]

    def _declare(cls, frame: types.FrameType, lenses: Iterable[Lens]) -> None:
        own: dict[str, Any] = inspect.get_annotations(cls)
        local = _names_around(cls.__qualname__, frame)
        try:
            hints = typing.get_type_hints(cls, None, local, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"{cls.__name__}: the annotation {error.name!r} is not defined where "
                "the class is made"
            ) from error
        fields: dict[str, Field] = dict(getattr(cls, "_fields", {}))
        stored, converted_ = keys(lenses)
        for key in own:
            declared = hints[key]
            if key.startswith("_") or ClassVar in (declared, get_origin(declared)):
                continue
            if key in RESERVED:
                raise TypeError(f"{cls.__name__}.{key}: the name is reserved")
            _check_declared(f"{cls.__name__}.{key}", declared)
            default = cls.__dict__.get(key, MISSING)
            lens = converted_.pop(key, None)
            field = Field(key, declared, default, stored.pop(key, key), lens)
            if lens is not None and (field.type or not callable(lens.up)):
                raise TypeError(
                    f"{cls.__name__}.{key}: what is converted is a field of one value"
                )
            fields[key] = field
            setattr(cls, key, field)
        if left := sorted(stored.keys() | converted_.keys()):
            raise TypeError(
                f"{cls.__name__}: a lens names {', '.join(left)}, which is no field"
            )
        used = [field.key for field in fields.values()]
        used += [field.lens.old for field in fields.values() if field.lens]
        if len(set(used)) < len(used):
            raise TypeError(f"{cls.__name__}: two fields would be stored as one")
        if len({name.lower() for name in fields}) < len(fields):
            raise TypeError(
                f"{cls.__name__}: two fields differ only in case, and a table's "
                "columns do not"
            )
        cls._fields = fields


def _names_around(qualname: str, frame: types.FrameType) -> dict[str, Any]:
    """Return the names that a class statement sees besides its module's: those of the
    functions around it, as far as they still run, and of no caller."""
    around = [part for part in qualname.split(".")[:-1] if part != "<locals>"]
    local: dict[str, Any] = {}
    where: types.FrameType | None = frame
    for name in reversed(around):
        while where is not None and not (
            where.f_code.co_name == name and where.f_globals is frame.f_globals
        ):
            where = where.f_back
        if where is None:
            break
        local = {**where.f_locals, **local}
        where = where.f_back
    return local


def _check_declared(name: str, declared: Any, *, inside: bool = False) -> None:
    """Raise `TypeError` for a field that could mean two things, or is no value."""
    if is_marked(declared, SearchMark):
        bare = unwrapped(declared)[0]
        if bare is not str and container_of(bare) != Type.TEXT:
            raise TypeError(f"{name}: what is searched is a str or a Text")
    declared, whole = unwrapped(declared)
    if whole:
        if inner := _container_in(declared):
            raise TypeError(
                f"{name}: a {inner.__name__} merges, so it is no part of one value; "
                "write list[...], dict[...] or str in Whole[...]"
            )
        return
    bare = get_origin(declared) or declared
    if bare in _INSTEAD:
        merging, replaced = _INSTEAD[bare]
        raise TypeError(
            f"{name}: write {merging} for one that merges element by element, or "
            f"{replaced} for one value that is replaced as a whole"
        )
    if bare in (typing.Union, types.UnionType):
        for option in get_args(declared):
            _check_declared(name, option, inside=True)
        return
    if not container_of(declared):
        return
    if inside:
        raise TypeError(
            f"{name}: a {bare.__name__} is always there, empty at first; write it "
            "without `None` or another type beside it"
        )
    items = get_args(declared)[-1:]
    for item in items:
        _check_declared(name, item)
        if bare is Tree and not (item is Any or container_of(item) == Type.MAP):
            raise TypeError(f"{name}: the nodes of a Tree hold a Record or a Map")
        if container_of(declared) in (Type.SET, Type.MULTI) and container_of(item):
            raise TypeError(f"{name}: a {bare.__name__} holds plain values")


def _container_in(declared: Any) -> type | None:
    bare = get_origin(declared) or declared
    if container_of(declared):
        return cast(type, bare)
    return next(filter(None, map(_container_in, get_args(declared))), None)


class Declared(metaclass=DeclaredMeta):
    """What has declared fields: in a view, or (a record) nowhere yet."""

    _fields: ClassVar[dict[str, Field]] = {}

    if typing.TYPE_CHECKING:
        _view: ClassVar[View | None]
        _container: ClassVar[Name]
        _given: ClassVar[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the declared fields as plain data, defaults included."""
        return {
            name: msgspec.to_builtins(
                plain_value(getattr(self, name)), builtin_types=(bytes, datetime)
            )
            for name in self._fields
        }

    if not typing.TYPE_CHECKING:  # checkers would take it for leave to set anything

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in self._fields:
                kind = type(self).__name__
                raise AttributeError(f"{kind} declares no field {name!r}")
            super().__setattr__(name, value)


def check_given(kind: type[Declared], given: Mapping[str, Any], path: str) -> None:
    """Raise `Invalid` unless these are fields of `kind`, and none is missing."""
    unknown = given.keys() - kind._fields.keys()
    if unknown:
        raise Invalid(
            f"{kind.__name__} declares no field {', '.join(sorted(unknown))}", path=path
        )
    missing = [
        name
        for name, field in kind._fields.items()
        if field.is_required and name not in given
    ]
    if missing:
        raise Invalid(f"{kind.__name__} needs {', '.join(missing)}", path=path)


@dataclass_transform(kw_only_default=True)
class _RecordMeta(DeclaredMeta):
    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        lenses: Iterable[Lens] = (),
    ) -> "_RecordMeta":
        cls = super().__new__(mcls, name, bases, namespace)
        if Shaped not in bases:
            cls._declare(sys._getframe(1), lenses)
        return cls


class Record(Declared, Shaped, metaclass=_RecordMeta):
    """Fields inside a document, which merge one by one: `class Line(Record)`.

    It stands in a field (`address: Address`) or as an item (`List[Line]`, `Map[str,
    Line]`, `Tree[Line]`). One that was made by hand, `Line(text="x")`, is a value to be
    written; what is read shows and edits the document.
    """

    def __init__(self, **fields: Any) -> None:
        set_ = object.__setattr__
        set_(self, "_view", None)
        set_(self, "_container", None)
        set_(self, "_given", {})
        check_given(type(self), fields, type(self).__name__)
        for name, value in fields.items():
            setattr(self, name, value)

    @classmethod
    def _at(cls, view: View, container: Name) -> Self:
        record = object.__new__(cls)
        object.__setattr__(record, "_view", view)
        object.__setattr__(record, "_container", container)
        return record

    @classmethod
    def _of(cls, value: Any, path: str) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, Shaped):
            value = value.to_dict()
        if not isinstance(value, Mapping):
            raise Invalid(
                f"expected {cls.__name__}, got {type(value).__name__}", path=path
            )
        given = cast(Mapping[str, Any], value)
        check_given(cls, given, path)
        record = cls.__new__(cls)
        for name, part in (("_view", None), ("_container", None), ("_given", given)):
            object.__setattr__(record, name, part)
        return record

    def _write(self, view: View, container: ContainerId) -> None:
        for name, field in self._fields.items():
            if self._view is None:
                value = self._given.get(name, MISSING)
            else:
                value = getattr(self, name)
            field.write_first(view, container, value)

    def _assign(self, view: View, container: Name) -> None:
        shown = self._at(view, container)
        for name in self._fields:
            new = getattr(self, name)
            if exact(getattr(shown, name)) != exact(new):
                setattr(shown, name, new)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a draft changes

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={value!r}" for name, value in self.to_dict().items()
        )
        return f"{type(self).__name__}({fields})"
