"""What an open transaction has done so far, and how to take it back."""

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from syncengine import limits, values
from syncengine.crdt.document import Document
from syncengine.crdt.operation import Operation, join, length
from syncengine.crdt.sequence.state import Steps
from syncengine.crdt.typing_run import Typing
from syncengine.errors import TooLarge
from syncengine.ids import ActorId, DocumentId
from syncengine.log.change import (
    NO_META,
    Change,
    Dep,
    Meta,
    Touch,
    encode_change,
)


class Known(Protocol):
    """Where documents come from."""

    def get(self, name: DocumentId) -> Document:
        """Return a document, made when nothing was ever written to it."""
        ...


class Mark(NamedTuple):
    """How far a draft was at a moment."""

    undo: int
    touches: int
    ops: int
    last_op: Operation
    touch_n: int
    n: int
    redone: int


@dataclass(slots=True)
class Draft:
    """One change in the making. Its operations have taken effect on the documents."""

    generation: int
    actor: ActorId
    hlc: int
    first_seq: int
    undo: Steps = field(default_factory=Steps)
    touches: list[Touch] = field(default_factory=list[Touch])
    documents: dict[DocumentId, Document] = field(
        default_factory=dict[DocumentId, Document]
    )
    n: int = 0
    run: Typing | None = None
    """What the last operation stands for, while it goes on."""
    redone: int = 0
    """How often it was taken back and made again"""

    def document(self, documents: Known, name: DocumentId) -> Document:
        """Return a document to edit."""
        document = self.documents.get(name)
        if document is None:
            document = self.documents[name] = documents.get(name)
            document.undo = self.undo
        return document

    def emit(self, document: Document, op: Operation) -> int:
        """Apply one own operation and put it into the change; return its seq.

        Raises `Invalid`, and then nothing was changed.
        """
        seq = self.first_seq + self.n
        if self.run is not None:
            if self.types(document, op):
                return seq
            self._close_run()
            document.settle()
        n = length(op)
        document.apply(op, (self.hlc, self.actor, seq), None)
        run = document.run
        self.run = run if run is not None and run.count == n else None  # begun by this
        self.n += n
        last = self.touches[-1] if self.touches else None
        if last is None or last.document != document.name:
            self.touches.append(Touch(document.name, [op], n))
            return seq
        if self.run is not None or not join(last.ops[-1], op):
            last.ops.append(op)
        self.touches[-1] = Touch(last.document, last.ops, last.n + n)
        return seq

    def types(self, document: Document, op: Operation) -> bool:
        """Put an operation that goes on with typing into the change; tell whether it
        does."""
        run = self.run
        if run is None or document.run is not run:
            return False
        before = run.count
        at = (self.hlc, self.actor, self.first_seq + self.n)
        if not run.takes(op, at):
            return False
        self.n += run.count - before
        return True

    def _close_run(self) -> None:
        """Write down typing that does not go on."""
        run, self.run = self.run, None
        if run is not None:
            last = self.touches[-1]
            n = last.n - length(last.ops[-1]) + run.count
            last.ops[-1:] = run.operations()
            self.touches[-1] = Touch(last.document, last.ops, n)

    def end(self) -> list[Document]:
        """Let go of the documents; return those that were changed."""
        self._close_run()
        for document in self.documents.values():
            document.undo = None
        names = dict.fromkeys(touch.document for touch in self.touches)
        return [self.documents[name] for name in names]

    def change(
        self, changed: list[Document], deps: list[Dep], operation_id: str | None
    ) -> tuple[Change, bytes]:
        """Return what was done as a change, and its bytes; raises `TooLarge`."""
        if len(changed) > limits.CHANGE_DOCUMENTS_MAX:
            raise TooLarge(
                f"a transaction has at most {limits.CHANGE_DOCUMENTS_MAX} documents; "
                "split it into several",
                bound=limits.CHANGE_DOCUMENTS_MAX,
            )
        meta = Meta(operation_id=operation_id) if operation_id else NO_META
        change = Change(self.actor, self.first_seq, self.hlc, deps, self.touches, meta)
        encoded = encode_change(change)
        if len(encoded) > limits.CHANGE_BYTES_MAX:
            raise TooLarge(
                f"a transaction has at most {limits.CHANGE_BYTES_MAX} bytes, this has "
                f"{len(encoded)}; split it into several",
                path=self._largest(),
                bound=limits.CHANGE_BYTES_MAX,
            )
        most = limits.CHANGE_ITEMS_MAX
        if len(encoded) > most and values.item_count(encoded, most) > most:
            raise TooLarge(
                f"a transaction has at most {most} items (a field written is about "
                "five); split it into several",
                path=self._largest(),
                bound=most,
            )
        return change, encoded

    def _largest(self) -> str:
        """Return where most of what was done went: a document, or a field of it."""
        sizes: dict[str, int] = {}
        for touch in self.touches:
            for op in touch.ops:
                at = str(touch.document)
                if len(op) > 1 and isinstance(op[1], str):
                    at += f"/{values.escape(op[1])}"
                elif len(op) > 2 and op[1] is None and isinstance(op[2], str):
                    at += f"/{values.escape(op[2])}"
                sizes[at] = sizes.get(at, 0) + len(values.encode(op))
        return max(sizes, key=sizes.__getitem__, default="")

    def take_back(self) -> None:
        """Undo all of it, and let go of the documents."""
        self._close_run()
        for document in self.documents.values():
            document.undo = None
        self._undo(self.undo)

    def mark(self) -> Mark:
        """Return a place to which `back_to` can take the draft."""
        self._close_run()
        for document in self.documents.values():
            document.settle()
        place = self.undo.place()
        if not self.touches:
            return Mark(place, 0, 0, [], 0, self.n, self.redone)
        last = self.touches[-1]
        # Later operations join the last one, or follow it.
        return Mark(
            place,
            len(self.touches),
            len(last.ops),
            list(last.ops[-1]),
            last.n,
            self.n,
            self.redone,
        )

    def back_to(self, mark: Mark) -> None:
        """Take back what was done since `mark`; nobody awaited meanwhile."""
        self._close_run()
        for document in self.documents.values():
            document.settle()
        was_redone = mark.redone != self.redone
        if was_redone:
            # Its steps are others now: all goes, and what is kept is made again.
            self.take_back()
        else:
            self._undo(self.undo.cut(mark.undo))
        del self.touches[mark.touches :]
        if mark.touches:
            last = self.touches[-1]
            del last.ops[mark.ops :]
            last.ops[-1] = mark.last_op
            self.touches[-1] = Touch(last.document, last.ops, mark.touch_n)
        self.n = mark.n
        if was_redone:
            self._redo()

    def _undo(self, steps: list[Any]) -> None:
        for document in list(self.documents.values())[:1]:  # any: a step knows its own
            document.take_back(steps)

    @contextlib.contextmanager
    def hidden(self, names: Iterable[DocumentId]) -> Generator[None, None, None]:
        """Show documents without this draft, while inside; never await there.

        The draft is taken back and made again, so that snapshots taken inside are
        told of its changes as of any others.
        """
        if not any(name in self.documents for name in names):
            yield
            return
        self.take_back()
        try:
            yield
        finally:
            self._redo()

    def _redo(self) -> None:
        """Make it again, after it was taken back."""
        self.redone += 1
        for document in self.documents.values():
            document.undo = self.undo
        seq = self.first_seq
        for touch in self.touches:
            document = self.documents[touch.document]
            for op in touch.ops:
                document.apply(op, (self.hlc, self.actor, seq), None)
                seq += length(op)
