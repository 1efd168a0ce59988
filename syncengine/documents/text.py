"""A text as an application edits it: characters, marks over them, cursors in them."""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

import base64
import binascii
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

from syncengine import values
from syncengine.crdt.marks import Expand, MarkRange, Span, changes, ranges
from syncengine.crdt.operation import Action, Type
from syncengine.crdt.sequence.difference import text_splices
from syncengine.documents.bound import Bound
from syncengine.documents.view import View
from syncengine.errors import Invalid, NotFound, OutOfRange
from syncengine.ids import ActorId

Edges = Literal["none", "before", "after", "both"]

# How many heads a version that a cursor names may have: as many as wrote at once.
CURSOR_IDS_MAX = 10_000

# What is typed at the end of a link or a comment is no part of it; of anything else
# that stands over text (bold, a colour), it is.
ENDING = frozenset({"link", "comment"})


class Text(Bound):
    """A text that many can edit at once. Positions are Unicode code points."""

    _type = Type.TEXT

    def __get__(self, instance: object, owner: type | None = None) -> "Text":
        return self

    def __set__(self, instance: object, value: "str | Text") -> None:
        raise AssertionError("typed fields are replaced when their class is made")

    def insert(self, index: int, text: str) -> None:
        """Insert `text` before `index`; raises `Invalid` beyond the end."""
        view = self._bound()
        if view.types(8, self._container, index, text):  # TEXT_INSERT
            return
        self._check_text(view, text)
        index = self._index(view, index)
        if not text:
            view.writable()
            return
        at = view.author_position(self._container, Type.TEXT, index)
        view.emit(Action.TEXT_INSERT, self._container, at, text)

    def _index(self, view: View, index: int) -> int:
        """Return where an index is that may count from the end; raises `Invalid`."""
        length = view.text_length(self._container)
        self._check_ints(view, index)
        if index < 0:
            index += length
        if not 0 <= index <= length:
            raise OutOfRange(
                f"index {index} is beyond the length {length}",
                path=view.path(self._container),
                bound=length,
            )
        return index

    def _check_ints(self, view: View, *numbers: Any) -> None:
        for number in numbers:
            if not isinstance(number, int) or isinstance(number, bool):
                raise Invalid(
                    f"a place in a text is an int, not {type(number).__name__}",
                    path=view.path(self._container),
                )

    def append(self, text: str) -> None:
        """Insert `text` at the end."""
        self.insert(len(self), text)

    def splice(self, index: int, count: int, text: str) -> None:
        """Delete `count` code points from `index` on and insert `text` in their place:
        what an editor tells of a step. Raises `Invalid`, and then does nothing."""
        if not count:
            self.insert(index, text)
        elif not text:
            self.delete(index, count)
        else:
            view = self._bound()
            self._check_text(view, text)
            index = self._range(view, index, count)
            view.splice_text(self._container, index, count, text)

    def _check_text(self, view: View, text: str) -> None:
        if type(text) is not str:
            path = view.path(self._container)
            raise Invalid(f"text is a str, not {type(text).__name__}", path=path)
        if not text.isascii():
            values.check_text(text, view.path(self._container))

    def _range(self, view: View, index: int, count: int) -> int:
        """Return where a range begins that may count from the end; raises `Invalid`."""
        length = view.text_length(self._container)
        self._check_ints(view, index, count)
        if index < 0:
            index += length
        if count < 0 or index < 0 or index + count > length:
            raise OutOfRange(
                f"[{index}, {index + count}) is beyond the length {length}",
                path=view.path(self._container),
                bound=length,
            )
        return index

    def delete(self, index: int, count: int = 1) -> None:
        """Delete `count` code points from `index` on; raises `Invalid`."""
        view = self._bound()
        if view.types(9, self._container, index, count):  # TEXT_DELETE
            return
        index = self._range(view, index, count)
        if not count:
            view.writable()
            return
        view.delete_elements(self._container, Type.TEXT, index, count)

    def replace(self, text: "str | Text") -> None:
        """Make this `text` by edits where it differs, so that what others write
        elsewhere at the same time stays."""
        with self._bound().writable().whole():
            for start, deleted, inserted in text_splices(str(self), str(text)):
                if deleted:
                    self.delete(start, deleted)
                if inserted:
                    self.insert(start, inserted)

    def __str__(self) -> str:
        return "" if self._view is None else self._view.text(self._container)

    def __repr__(self) -> str:
        return f"Text({str(self)!r})"

    def __len__(self) -> int:
        return 0 if self._view is None else self._view.text_length(self._container)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | Text):
            return str(self) == str(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a draft's text changes

    def __contains__(self, text: str) -> bool:
        return text in str(self)

    def __getitem__(self, index: int | slice) -> str:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._bound().text_slice(self._container, start, stop)
            return str(self)[index]
        return str(self)[index]

    def __iter__(self) -> Iterator[str]:
        return iter(str(self))

    def __add__(self, text: str) -> str:
        return str(self) + text

    def __iadd__(self, text: str) -> "Text":
        self.append(text)
        return self

    # --- marks --------------------------------------------------------------------

    def mark(
        self,
        start: int,
        stop: int,
        name: str,
        value: Any = True,
        *,
        expand: Edges | None = None,
    ) -> None:
        """Put a mark over the characters [start, stop): `text.mark(0, 5, "bold")`.

        Of marks with one name the latest shows; give each comment a name of its own
        ("comment:17"). `expand` says at which edge typing goes on with it: "after" if
        not given, "none" for links and comments. Raises `Invalid`.
        """
        if value is None:
            raise Invalid(
                "a mark's value is something; unmark takes a mark off",
                path=self._bound().path(self._container),
            )
        self._mark(start, stop, name, value, expand)

    def unmark(
        self, start: int, stop: int, name: str, *, expand: Edges | None = None
    ) -> None:
        """Take a mark off the characters [start, stop); raises `Invalid`."""
        self._mark(start, stop, name, None, expand)

    def _mark(
        self, start: int, stop: int, name: str, value: Any, expand: Edges | None
    ) -> None:
        view = self._bound()
        path = view.path(self._container)
        values.check_key(name, path)
        values.check(value, path)
        length = len(self)
        self._check_ints(view, start, stop)
        if not 0 <= start <= stop <= length:
            raise Invalid(
                f"[{start}, {stop}) is no range within the length {length}",
                path=path,
                bound=length,
            )
        edges = Expand.__members__.get(str(expand or _edges_of(name)).upper())
        if edges is None:
            raise Invalid(
                f'a mark expands "none", "before", "after" or "both", not {expand!r}',
                path=path,
            )
        view.writable()
        if start < stop:
            at = view.author_position(self._container, Type.TEXT, start)
            end = view.author_position(self._container, Type.TEXT, stop)
            view.emit(Action.MARK, self._container, at, end, name, value, int(edges))

    def spans(self) -> list[Span]:
        """Return the text in order as (text, marks): neighbours with equal marks are
        one span."""
        return [] if self._view is None else self._view.spans(self._container)

    def marks(self) -> list[MarkRange]:
        """Return where each mark shows."""
        return ranges(self.spans())

    def restyle(self, marks: Iterable[MarkRange]) -> None:
        """Make `marks` those that show, by edits where they differ."""
        wanted = _painted(str(self), list(marks), self._bound().path(self._container))
        with self._bound().writable().whole():
            for start, stop, name, value in changes(self.spans(), wanted):
                self._mark(start, stop, name, value, None)

    # --- cursors ------------------------------------------------------------------

    def cursor(self, index: int, *, stick: Literal["before", "after"] = "after") -> str:
        """Return a name for the place before the character at `index`, for `index_of`.

        It holds on to that character, so that what is inserted at the place comes to
        stand before the cursor; with `stick="before"` to the one before it. It can be
        kept, and sent to whoever has this text. Raises `Invalid`.
        """
        view = self._bound()
        index, length = self._index(view, index), len(self)
        if stick not in ("before", "after"):
            raise Invalid(
                'a cursor sticks "before" or "after"', path=view.path(self._container)
            )
        held = index if stick == "after" else index - 1
        place = view.cursor(self._container, held) if 0 <= held < length else None
        raw = values.encode([stick == "after", place])
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def index_of(self, cursor: str) -> int:
        """Return where a cursor is now: in what this shows. Where its character was
        deleted, that is where it stood.

        It looks at what was written since the cursor was made. Raises `NotFound` where
        that text did not come in yet, and `Invalid` for what is no cursor.
        """
        view = self._bound()
        is_after, place = _decoded(cursor, view.path(self._container))
        if place is None:
            return len(self) if is_after else 0
        found = view.follow(self._container, place)
        if found is None:
            raise NotFound(
                "this cursor is of a version of the text that is not here; it comes "
                "with the next changes, or is of another text"
            )
        index, is_shown = found
        return index + (is_shown and not is_after)


def _edges_of(name: str) -> Edges:
    return "none" if name.partition(":")[0] in ENDING else "after"


def _painted(text: str, marks: list[MarkRange], path: str) -> list[Span]:
    """Return the spans of a text that bears these marks, the later over the earlier."""
    for mark in marks:
        if not 0 <= mark.start <= mark.stop <= len(text):
            raise Invalid(
                f"{mark} is no range of a text of {len(text)} characters",
                path=path,
                bound=len(text),
            )
    edges = sorted({0, len(text), *(at for mark in marks for at in mark[:2])})
    number = {at: i for i, at in enumerate(edges)}
    over: list[dict[str, Any]] = [{} for _ in edges]
    for start, stop, name, value in marks:
        for i in range(number[start], number[stop]):
            over[i][name] = value
    return [Span(text[a:b], over[number[a]]) for a, b in pairwise(edges)]


def _decoded(cursor: str, path: str) -> Any:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        is_after, place = values.decode(raw)
        if place is not None:
            ids, pos = place
            if type(pos) is not int or pos < 0 or len(ids) > CURSOR_IDS_MAX:
                raise ValueError("a cursor has a position")
            for actor, seq in ids:
                if type(actor) is not bytes or type(seq) is not int:
                    raise ValueError("a cursor names operations")
            place = [(ActorId(actor), seq) for actor, seq in ids], pos
    except (TypeError, ValueError, binascii.Error) as error:
        raise Invalid(
            "this is no cursor: they come from text.cursor()", path=path
        ) from error
    return bool(is_after), place
