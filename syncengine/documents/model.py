"""Typed documents: a class declares the fields once, by annotation.

A field of a plain type is a register; Counter, Set, List and Text merge. The class
is never instantiated by hand: `tx.create` and `tx.get` give drafts, `space.get`
gives snapshots, of the same class.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

import collections.abc
import contextlib
import copy
import inspect
import re
import sys
import types
import typing
from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from typing import (
    Annotated,
    Any,
    ClassVar,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import msgspec

from syncengine import values
from syncengine.clock import ms_from_hlc
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import Action, ContainerId, Operation, Type, join, length
from syncengine.documents.fields import (
    Counter,
    FloatCounter,
    List,
    Map,
    MultiValue,
    Set,
    assign,
    bound,
    bound_counter,
    fill,
)
from syncengine.documents.text import Text
from syncengine.documents.view import View, own_copy
from syncengine.errors import Invalid
from syncengine.ids import ActorId, DocumentId, check_collection

RESERVED = frozenset({"id", "meta", "to_dict"})

_MISSING: Any = object()

_CONTAINERS: dict[type, Type] = {
    Counter: Type.COUNTER,
    Set: Type.SET,
    List: Type.LIST,
    Map: Type.MAP,
    Text: Type.TEXT,
    MultiValue: Type.MULTI,
}

_INSTEAD: dict[Any, tuple[str, str]] = {
    list: ("List[...]", "Whole[list[...]]"),
    tuple: ("List[...]", "Whole[tuple[...]]"),
    collections.abc.Sequence: ("List[...]", "Whole[list[...]]"),
    dict: ("Map[...]", "Whole[dict[...]]"),
    collections.abc.Mapping: ("Map[...]", "Whole[dict[...]]"),
    set: ("Set[...]", "Whole[set[...]]"),
    frozenset: ("Set[...]", "Whole[set[...]]"),
}

# What an application may write where a container is declared.
_PLAIN_OF: dict[Type, tuple[type, ...]] = {
    Type.COUNTER: (int, float),
    Type.SET: (set, frozenset, Set),
    Type.LIST: (list, tuple, List),
    Type.MAP: (dict, Map),
    Type.TEXT: (Text,),
    Type.MULTI: (MultiValue,),
}

T = TypeVar("T")


class _WholeMark:
    """Marks a field that is one value, whatever it holds."""


Whole = Annotated[T, _WholeMark]
"""`Whole[list[str]]` is a field of one value: the last write replaces all of it."""


class _IndexMark:
    """Marks a field by which queries look documents up."""


Indexed = Annotated[T, _IndexMark]
"""`Indexed[str]` is a field by which `space.sql` finds documents fast."""

_PLAIN = (type(None), bool, int, float, str, bytes, datetime)


class Meta:
    """What is known about a document besides its fields."""

    def __init__(self, view: View):
        self._view = view

    @property
    def pending(self) -> bool:
        """Whether a change of this device was in no batch yet."""
        return self._view.pending

    @property
    def updated_at(self) -> datetime | None:
        """When the newest change still visible was made, by its author's clock."""
        newest = self._view.newest
        if not newest:
            return None
        return datetime.fromtimestamp(ms_from_hlc(newest) / 1000, tz=UTC)

    @property
    def conflicted(self) -> bool:
        """Whether some field holds a value that lost to a concurrent write."""
        root = self._view.state(None, Type.MAP)
        slots = root.slots.values()
        return any(len(slot) > 1 and slot[1].hlc for slot in slots)

    @property
    def needs_upgrade(self) -> bool:
        """Whether a newer version wrote what this one cannot read."""
        return self._view.document.needs_upgrade


class _Field:
    """One declared field, as a descriptor."""

    def __init__(self, name: str, declared: Any, default: Any):
        self.name = name
        self.default = default
        bare, whole = _unwrapped(declared)
        self.is_indexed = _is_indexed(declared)
        self.type: Type | None = (
            None if whole else _CONTAINERS.get(get_origin(bare) or bare)
        )
        self.container: ContainerId = (name, int(self.type)) if self.type else None
        self.declared = declared

    def __get__(self, instance: "Document | None", owner: type) -> Any:
        if instance is None:
            return self
        view = instance._view
        match self.type:
            case None:
                slot = view.slot(None, self.name) if view.exists else ()
                for entry in slot:
                    if not entry.type:
                        return self._converted(entry.value)
                if self.default is _MISSING:
                    return None
                return copy.deepcopy(self.default)  # nobody edits it for all
            case Type.COUNTER:
                return bound_counter(view, self.container)
            case Type.SET:
                return bound(Set[Any](), view, self.container)
            case Type.LIST:
                return bound(List[Any](), view, self.container)
            case Type.MAP:
                return bound(Map[str, Any](), view, self.container)
            case Type.MULTI:
                return bound(MultiValue[Any](), view, self.container)
            case _:
                return bound(Text(), view, self.container)

    def __set__(self, instance: "Document", value: Any) -> None:
        view = instance._view
        path = view.path(None, self.name)
        view.writable()
        if self.type is None:
            view.emit(Action.SET, None, self.name, self.checked(value, path))
            return
        if isinstance(value, Counter | List | Map | MultiValue | Set | Text) and (
            getattr(cast(object, value), "_view", None) is view
            and value._container == self.container
            and self.type is not Type.COUNTER
        ):
            return  # `note.body += "x"` has done its work already
        value = self._checked_items(value, path)
        with view.writable().whole():
            assign(view, self.container, self.type, value)

    def write_first(self, view: View, value: Any) -> None:
        """Write the value that `create` was given."""
        path = view.path(None, self.name)
        if self.type is None:
            view.emit(Action.SET, None, self.name, self.checked(value, path))
        else:
            value = self._checked_items(value, path)
            fill(view, self.container, self.type, value, path)

    def checked(self, value: Any, path: str) -> Any:
        """Return `value` as it is stored; raises `Invalid` at its path."""
        try:
            plain = msgspec.to_builtins(
                value, builtin_types=(bytes, datetime), order="deterministic"
            )
            values.check(plain, path)
            msgspec.convert(
                plain, self.declared, strict=True, builtin_types=(bytes, datetime)
            )
        except (msgspec.ValidationError, TypeError) as error:
            raise Invalid(str(error), path=path) from error
        return plain

    def _checked_items(self, value: Any, path: str) -> Any:
        """Return what a container is to hold, read once; raises `Invalid`."""
        wrong: str | None = None
        match self.type:
            case Type.COUNTER:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    wrong = "a counter is set to a number"
            case Type.TEXT:
                if not isinstance(value, str | Text):
                    wrong = "a text is set to a str"
            case Type.MAP:
                if isinstance(value, collections.abc.Mapping):
                    items = dict(cast(collections.abc.Mapping[str, Any], value))
                    return _checked_items(items, self.declared, path)
                wrong = "a map is set to a mapping"
            case Type.MULTI:
                several = (
                    list(cast(Iterable[Any], value))
                    if isinstance(value, MultiValue)
                    else [value]
                )
                return _checked_items(several, self.declared, path)
            case _:
                if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                    assert self.type is not None
                    wrong = f"a {self.type.name.lower()} is set to an iterable"
                else:
                    return _checked_items(list(value), self.declared, path)
        if wrong:
            raise Invalid(f"{wrong}, not {type(value).__name__}", path=path)
        return value

    def _converted(self, value: Any) -> Any:
        """Return a stored value as its declared type; what does not fit, as it is:
        it was written by another version, and is not ours to lose."""
        if isinstance(value, _PLAIN):
            return value
        value = own_copy(value)
        try:
            return msgspec.convert(
                value, self.declared, builtin_types=(bytes, datetime)
            )
        except msgspec.ValidationError:
            return value


def _checked_items(value: Any, declared: Any, path: str) -> Any:
    """Return a container's items as what they were declared; raises `Invalid`."""
    arguments = get_args(declared)
    if not arguments:
        return value
    item = arguments[-1]
    if isinstance(value, dict | Map):
        pairs = cast(dict[str, Any], value).items()
        return {
            key: _checked_item(inner, item, f"{path}/{values.escape(str(key))}")
            for key, inner in pairs
        }
    return [
        _checked_item(inner, item, f"{path}/{index}")
        for index, inner in enumerate(cast(Iterable[Any], value))
    ]


def _checked_item(inner: Any, item: Any, path: str) -> Any:
    container = _CONTAINERS.get(get_origin(item) or item)
    if container is None:
        try:
            msgspec.convert(inner, item, strict=True, builtin_types=(bytes, datetime))
        except msgspec.ValidationError as error:
            raise Invalid(str(error), path=path) from error
        return inner
    if not isinstance(inner, _PLAIN_OF[container]) or isinstance(inner, bool):
        raise Invalid(
            f"expected {container.name.lower()}, got {type(inner).__name__}", path=path
        )
    if container is Type.COUNTER:
        if isinstance(inner, Counter | FloatCounter):
            return inner
        number = cast(float, inner)
        return Counter(number) if isinstance(inner, int) else FloatCounter(number)
    if isinstance(inner, Text):
        return inner
    items = _checked_items(inner, item, path)
    return set(items) if container is Type.SET else items


@dataclass_transform(kw_only_default=True)
class _DocumentMeta(type):
    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        collection: str | None = None,
    ) -> "_DocumentMeta":
        cls = super().__new__(mcls, name, bases, namespace)
        if not bases:
            return cls
        cls._declare(collection or _snake_case(name), sys._getframe(1))
        return cls

    def _declare(cls, collection: str, frame: types.FrameType) -> None:
        check_collection(collection)
        own: dict[str, Any] = inspect.get_annotations(cls)
        local = _names_around(cls.__qualname__, frame)
        try:
            hints = typing.get_type_hints(cls, None, local, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"{cls.__name__}: the annotation {error.name!r} is not defined where "
                "the class is made"
            ) from error
        fields: dict[str, _Field] = dict(getattr(cls, "_fields", {}))
        for key in own:
            declared = hints[key]
            if key.startswith("_") or ClassVar in (declared, get_origin(declared)):
                continue
            if key in RESERVED:
                raise TypeError(f"{cls.__name__}.{key}: the name is reserved")
            _check_declared(f"{cls.__name__}.{key}", declared)
            default = cls.__dict__.get(key, _MISSING)
            field = _Field(key, declared, default)
            if field.type is not None and default is _MISSING:
                field.default = None
            fields[key] = field
            setattr(cls, key, field)
        if len({name.lower() for name in fields}) < len(fields):
            raise TypeError(
                f"{cls.__name__}: two fields differ only in case, and a table's "
                "columns do not"
            )
        cls._fields = fields
        cls._collection = collection


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
    declared, whole = _unwrapped(declared)
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
    elif inside and bare in _CONTAINERS:
        raise TypeError(
            f"{name}: a {bare.__name__} is always there, empty at first; write it "
            "without `None` or another type beside it"
        )


def _unwrapped(declared: Any) -> tuple[Any, bool]:
    """Return a type without what it is annotated with, and whether it is `Whole`."""
    if get_origin(declared) is not Annotated:
        return declared, False
    bare, *notes = get_args(declared)
    return bare, _WholeMark in notes


def _is_indexed(declared: Any) -> bool:
    return get_origin(declared) is Annotated and _IndexMark in get_args(declared)[1:]


def _container_in(declared: Any) -> type | None:
    bare = get_origin(declared) or declared
    if bare in _CONTAINERS:
        return cast(type, bare)
    return next(filter(None, map(_container_in, get_args(declared))), None)


class Document(metaclass=_DocumentMeta):
    """The base of typed documents: `class Note(Document, collection="note")`."""

    _fields: ClassVar[dict[str, _Field]] = {}
    _collection: ClassVar[str] = ""

    def __new__(cls, *args: Any, **fields: Any) -> "Document":
        raise TypeError(
            f"a {cls.__name__} is made inside a transaction: "
            f"tx.create({cls.__name__}, id, ...)"
        )

    if typing.TYPE_CHECKING:
        _view: ClassVar[View]

    @property
    def id(self) -> str:
        """The part of the document's name behind its collection."""
        return self._view.document.name.partition("/")[2]

    @property
    def meta(self) -> Meta:
        """What is known about the document besides its fields."""
        return Meta(self._view)

    def to_dict(self) -> dict[str, Any]:
        """Return the declared fields as plain data, defaults included."""
        return {
            name: msgspec.to_builtins(
                _plain_field(getattr(self, name)), builtin_types=(bytes, datetime)
            )
            for name in self._fields
        }

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise AttributeError(f"{type(self).__name__} declares no field {name!r}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={value!r}" for name, value in self.to_dict().items()
        )
        return f"{type(self).__name__}({self.id!r}, {fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.id == other.id and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a draft changes


D = TypeVar("D", bound=Document)


def collection_of(kind: type[Document]) -> str:
    """Return the first part of the names of `kind`'s documents."""
    return kind._collection


def declared(kind: type[Document]) -> list[tuple[str, int, Any, bool]]:
    """Return (name, type of its container or 0, default, is indexed) of each field."""
    return [
        (
            name,
            int(field.type or 0),
            None
            if field.default is _MISSING or field.type
            else msgspec.to_builtins(field.default, builtin_types=(bytes, datetime)),
            field.is_indexed,
        )
        for name, field in kind._fields.items()
    ]


def typed(kind: type[D], view: View) -> D:
    """Return a document as a `kind`: a draft or a snapshot, as its view is."""
    document = object.__new__(kind)
    object.__setattr__(document, "_view", view)
    return document


def create(kind: type[Document], view: View, fields: dict[str, Any]) -> None:
    """Write the first values of a new document; raises `Invalid`."""
    unknown = fields.keys() - kind._fields.keys()
    if unknown:
        raise Invalid(
            f"{kind.__name__} declares no field {', '.join(sorted(unknown))}",
            path=view.document.name,
        )
    missing = [
        name
        for name, field in kind._fields.items()
        if field.default is _MISSING and name not in fields
    ]
    if missing:
        raise Invalid(
            f"{kind.__name__} needs {', '.join(missing)}", path=view.document.name
        )
    view.emit(Action.TOUCH, None)
    for name, value in fields.items():
        kind._fields[name].write_first(view, value)


class _Recorder:
    """Takes down the operations that make a document, for nobody in particular."""

    def __init__(self) -> None:
        self.actor = ActorId(bytes(16))
        self.ops: list[Operation] = []
        self._seq = 1

    def emit(self, document: State, op: Operation) -> int:
        seq = self._seq
        document.apply(op, (1, self.actor, seq), None)
        self._seq += length(op)
        if not self.ops or not join(self.ops[-1], op):
            self.ops.append(op)
        return seq

    @contextlib.contextmanager
    def whole(self) -> Generator[None, None, None]:
        yield  # what fails is recorded for nothing


def content_of(
    kind: type[Document] | None, name: DocumentId, fields: dict[str, Any]
) -> list[Operation]:
    """Return the operations that make a document of `fields`; raises `Invalid`."""
    recorder = _Recorder()
    view = View(State(name), recorder)
    if kind is not None:
        create(kind, view, fields)
    else:
        view.emit(Action.TOUCH, None)
        inside = untyped(view)
        for key, value in fields.items():
            inside[key] = value
    return recorder.ops


def write_difference(
    kind: type[Document] | None, view: View, fields: dict[str, Any]
) -> None:
    """Make an existing document's fields what is given, by edits where they differ."""
    if kind is None:
        assign(view, None, Type.MAP, {**untyped(view).to_dict(), **fields})
        return
    document = typed(kind, view)
    for name, value in fields.items():
        if _plain_field(getattr(document, name)) != _plain_field(value):
            setattr(document, name, value)


def untyped(view: View) -> Map[str, Any]:
    """Return a document as a map."""
    return bound(Map[str, Any](), view, None)


def _plain_field(value: Any) -> Any:
    if isinstance(value, List | MultiValue | Set):
        return list(map(_plain_field, cast(Iterable[Any], value)))
    if isinstance(value, Map):
        return value.to_dict()
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, Counter):
        return int(value)
    return value


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
