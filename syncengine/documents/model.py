"""Typed documents: a class declares the fields once, by annotation.

The class is never instantiated by hand: `tx.create` and `tx.get` give drafts,
`space.get` gives snapshots, of the same class.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

import contextlib
import re
import sys
import typing
from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec

from syncengine.clock import ms_from_hlc
from syncengine.crdt.document import Document as State
from syncengine.crdt.operation import Action, Operation, Type, join, length
from syncengine.documents.bound import Name
from syncengine.documents.equality import exact
from syncengine.documents.fields import Map, assign, bound
from syncengine.documents.lenses import Converted, Lens
from syncengine.documents.record import Declared, DeclaredMeta, check_given
from syncengine.documents.versions import encode_version
from syncengine.documents.view import View
from syncengine.errors import Invalid
from syncengine.ids import ActorId, DocumentId, check_collection


class Meta:
    """What is known about a document besides its fields."""

    def __init__(self, view: View):
        self._view = view

    @property
    def pending(self) -> bool:
        """Whether a change of this device was in no batch yet."""
        return self._view.pending

    @property
    def version(self) -> str:
        """What is shown, for `space.at`: of a draft, what it began with."""
        return encode_version(self._view.version)

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
        """Whether a newer version wrote what this one cannot read, or must not write
        to: then it is read-only here."""
        return self._view.document.needs_upgrade or self._view.refusal is not None


@dataclass_transform(kw_only_default=True)
class _DocumentMeta(DeclaredMeta):
    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        collection: str | None = None,
        version: int = 1,
        since: int = 1,
        lenses: Iterable[Lens] = (),
    ) -> "_DocumentMeta":
        cls = super().__new__(mcls, name, bases, namespace)
        if bases != (Declared,):
            if not 1 <= since <= version:
                raise TypeError(f"{name}: since is a version from 1 to {version}")
            cls._collection = check_collection(collection or _snake_case(name))
            cls._version, cls._since = version, since
            cls._declare(sys._getframe(1), lenses)
        return cls

    _collection: str
    _version: int
    _since: int


class Document(Declared, metaclass=_DocumentMeta):
    """The base of typed documents: `class Note(Document, collection="note")`."""

    _collection: ClassVar[str] = ""
    _version: ClassVar[int] = 1
    _since: ClassVar[int] = 1
    _container: ClassVar[Name] = None

    def __new__(cls, *args: Any, **fields: Any) -> "Document":
        raise TypeError(
            f"a {cls.__name__} is made inside a transaction: "
            f"tx.create({cls.__name__}, id, ...)"
        )

    if typing.TYPE_CHECKING:
        _view: ClassVar[View]  # pyright: ignore  # a document is always in one

    @property
    def id(self) -> str:
        """The part of the document's name behind its collection."""
        return self._view.document.name.partition("/")[2]

    @property
    def meta(self) -> Meta:
        """What is known about the document besides its fields."""
        return Meta(self._view)

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


def declared(kind: type[Document]) -> list[tuple[str, int, Any, bool, bool, str, str]]:
    """Return (name, type of its container or 0, default, is indexed, is searched, name
    where it is stored, that of what it is converted from or "") of each field."""
    return [
        (
            name,
            field.type,
            None
            if field.is_required or field.type
            else msgspec.to_builtins(field.default, builtin_types=(bytes, datetime)),
            field.is_indexed,
            field.is_searched,
            field.key,
            field.lens.old if field.lens else "",
        )
        for name, field in kind._fields.items()
    ]


def stored_name(kind: type[Document], field: str) -> str:
    """Return what a field is called where it is stored."""
    declared_ = kind._fields.get(field)
    return field if declared_ is None else declared_.key


def lens_of(kind: type[Document], field: str) -> Converted | None:
    """Return how a field is made of another."""
    return kind._fields[field].lens if field in kind._fields else None


def lenses(kind: type[Document]) -> dict[str, Converted]:
    """Return how fields, by their stored names, are made of others."""
    return {field.key: field.lens for field in kind._fields.values() if field.lens}


def typed(kind: type[D], view: View) -> D:
    """Return a document as a `kind`: a draft or a snapshot, as its view is."""
    view.understand(kind.__name__, kind._version, kind._since)
    document = object.__new__(kind)
    object.__setattr__(document, "_view", view)
    return document


def view_of(snapshot: "Document | Map[str, Any]") -> View:
    """Return the view of a document that an application holds; raises `Invalid`."""
    view = getattr(snapshot, "_view", None)
    if view is None or snapshot._container is not None:
        raise Invalid("this is no document that was read or made here")
    return view  # type: ignore[no-any-return]  # a view


def create(kind: type[Document], view: View, fields: dict[str, Any]) -> None:
    """Write the first values of a new document; raises `Invalid`."""
    check_given(kind, fields, view.document.name)
    view.understand(kind.__name__, kind._version, kind._since)
    view.emit(Action.TOUCH, None)
    for name, value in fields.items():
        kind._fields[name].write_first(view, None, value)


class _Recorder:
    """Takes down the operations that make a document, for nobody in particular."""

    def __init__(self) -> None:
        self.actor = ActorId(bytes(16))
        self.ops: list[Operation] = []
        self._seq = 1

    def emit(self, document: State, *ops: Operation) -> int:
        first = self._seq
        for op in ops:
            document.apply(op, (1, self.actor, self._seq), None)
            self._seq += length(op)
            if not self.ops or not join(self.ops[-1], op):
                self.ops.append(op)
        return first

    def types(self, document: State, op: Operation) -> bool:
        return False  # each is taken down

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
        whole = {**untyped(view).to_dict(), **fields}
        assign(view, None, Type.MAP, whole, view.document.name)
        return
    document = typed(kind, view)
    for name, value in fields.items():
        if exact(getattr(document, name)) != exact(value):
            setattr(document, name, value)


def untyped(view: View) -> Map[str, Any]:
    """Return a document as a map."""
    return bound(Map[str, Any](), view, None)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
