"""What the containers of an application share: each belongs to one view."""

from typing import Any, ClassVar, Self

from syncengine.crdt.operation import ContainerId, Type
from syncengine.documents.view import Unmade, View
from syncengine.errors import Invalid

Name = ContainerId | Unmade
"""A container, or one that its first write makes."""


class Bound:
    """A container of one view. Unbound ones are the defaults of typed fields."""

    _type: ClassVar[Type]
    _view: View | None = None
    _container: Name = None
    _item: Any = None
    """What it was declared to hold; None: anything"""

    def _bind(self, view: View, container: Name, item: Any) -> None:
        self._view = view
        self._container = container
        self._item = item

    def _bound(self) -> View:
        if self._view is None:
            raise Invalid(
                f"this {type(self).__name__} belongs to no document; it is the "
                "default of a field"
            )
        return self._view


class Shaped:
    """What is kept as a map and has declared fields: a `Record`."""

    _type: ClassVar[Type] = Type.MAP

    @classmethod
    def _at(cls, view: View, container: Name) -> Self:
        """Return the record that a map of a view holds."""
        raise NotImplementedError

    @classmethod
    def _of(cls, value: Any, path: str) -> Self:
        """Return a value as a record; raises `Invalid`."""
        raise NotImplementedError

    def _write(self, view: View, container: ContainerId) -> None:
        """Fill a map that was just made."""
        raise NotImplementedError

    def _assign(self, view: View, container: Name) -> None:
        """Make a map show this record, by edits where it differs."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the declared fields as plain data."""
        raise NotImplementedError
