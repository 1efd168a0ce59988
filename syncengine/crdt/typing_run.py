"""Typing: edits of one author in one text, taken up one by one and given effect as one.

What a keystroke does to a log, a buffer and the touches above it is nearly the same for
a hundred of them: so they are kept together until somebody looks or writes elsewhere.
"""

from syncengine.crdt.operation import Action, FieldRef, Operation
from syncengine.crdt.sequence.oplog import BACK, DEL, INS, RUN_MAX
from syncengine.crdt.sequence.state import Run, Undo
from syncengine.crdt.text import TextState
from syncengine.ids import Stamp
from syncengine.limits import ELEMENTS_MAX

_ACTIONS = {
    INS: int(Action.TEXT_INSERT),
    DEL: int(Action.TEXT_DELETE),
    BACK: int(Action.TEXT_BACKSPACE),
}


class Typing:
    """Edits whose effect is still to be given, as runs: what follows at one place.

    Law (`tests/syncengine/crdt/test_typing_run.py`): given effect at any moment, it
    comes to what its operations come to one by one.
    """

    __slots__ = (
        "_end",
        "_hlc",
        "_kind",
        "_last",
        "_length",
        "_n",
        "_next",
        "_parts",
        "_pos",
        "_runs",
        "_seq",
        "_text",
        "actor",
        "container",
        "field",
    )

    def __init__(self, container: FieldRef, text: TextState, at: Stamp):
        self.container = container
        self.field = container[0]
        self._text = text
        self._length = text.buffer.length
        self._hlc, self.actor, self._seq = at
        self._last = self._next = self._seq
        self._runs: list[Run] = []
        # The last run, while it goes on: what it is, where, and how many elements.
        self._kind = -1
        self._pos = self._end = self._n = 0
        self._parts: list[str] = []

    @classmethod
    def begin(
        cls, container: FieldRef, text: TextState, op: Operation, at: Stamp
    ) -> "Typing | None":
        """Return what begins with an operation of one who has seen all; None where that
        is to be applied by itself."""
        if text.is_watched or text.voids or text.buffer.hidden:
            return None  # told one by one, or positions count what is not shown
        typing = cls(container, text, at)
        return typing if typing.takes(op, at) else None

    @property
    def count(self) -> int:
        """How many elements were inserted and deleted."""
        return self._next - self._seq

    def takes(self, op: Operation, at: Stamp) -> bool:
        """Take up an operation of one who has seen all; tell whether it is the next of
        these, in the same text and within it."""
        hlc, actor, seq = at
        if seq != self._next or actor != self.actor or len(op) != 4:
            return False
        action, field, pos, what = op
        if field != self.field or type(pos) is not int or seq - self._seq > RUN_MAX:
            return False
        if action == 8:  # TEXT_INSERT
            if type(what) is not str or not what:
                return False
            if not (what.isascii() or _is_text(what)):
                return False
            n = len(what)
            if n > RUN_MAX or self._length + n > ELEMENTS_MAX:
                return False  # a paste is an edit by itself, which a bound may refuse
            if pos != self._end or self._kind != INS:
                if not 0 <= pos <= self._length:
                    return False
                self._begin_run(INS, pos)
            self._parts.append(what)
            self._end = pos + n
            self._length += n
        elif action == 9 and type(what) is int and what > 0:  # TEXT_DELETE
            n, kind = what, self._kind
            if not 0 <= pos <= self._length - n:
                return False
            if pos == self._pos and kind == DEL:
                pass
            # A longer deletion runs forward and would give its elements other names.
            elif (
                pos == self._pos - 1
                and n == 1
                and (kind == BACK or (kind == DEL and self._n == 1))
            ):
                self._kind = BACK
                self._pos = pos
            else:
                self._begin_run(DEL, pos)
            self._length -= n
        else:
            return False
        self._n += n
        self._next = seq + n
        self._last = seq
        self._hlc = hlc
        return True

    def _begin_run(self, kind: int, pos: int) -> None:
        self._end_run()
        self._kind, self._pos, self._end = kind, pos, pos

    def _end_run(self) -> None:
        if self._n:
            content = "".join(self._parts) if self._kind == INS else None
            self._runs.append(Run(self._kind, self._pos, self._n, content))
            self._n = 0
            self._parts.clear()
        self._kind = -1

    def operations(self) -> list[Operation]:
        """Return what it comes to as few operations. It goes on with a new run."""
        self._end_run()
        return [
            [_ACTIONS[kind], self.field, pos, n if content is None else content]
            for kind, pos, n, content in self._runs
        ]

    def settle(self, undo: Undo) -> Stamp:
        """Give it effect on its text; return the stamp of its last operation."""
        self._end_run()
        self._text.apply_runs(self._runs, self.actor, self._seq, undo)
        return self._hlc, self.actor, self._last


def _is_text(text: str) -> bool:
    """Whether it can be encoded; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
