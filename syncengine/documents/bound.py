"""What the containers of an application share: each belongs to one view."""

from syncengine.crdt.operation import ContainerId
from syncengine.documents.view import View
from syncengine.errors import Invalid


class Bound:
    """A container of one view. Unbound ones are the defaults of typed fields."""

    _view: View | None = None
    _container: ContainerId = None

    def _bind(self, view: View, container: ContainerId) -> None:
        self._view = view
        self._container = container

    def _bound(self) -> View:
        if self._view is None:
            raise Invalid(
                f"this {type(self).__name__} belongs to no document; it is the "
                "default of a field"
            )
        return self._view
