"""Typing that goes on: edits of one author that follow each other in one text, taken
up one by one and given effect as one.

What a keystroke does to a log, a buffer and the touches above it is the same for a
hundred of them: so they are kept together until somebody looks or writes elsewhere.
"""

from syncengine.crdt.operation import Action, FieldRef, Operation
from syncengine.crdt.sequence.oplog import BACK, DEL, INS, RUN_MAX
from syncengine.crdt.sequence.state import Undo
from syncengine.crdt.text import TextState
from syncengine.ids import Stamp

_KINDS = {int(Action.TEXT_INSERT): INS, int(Action.TEXT_DELETE): DEL}


class TypingRun:
    """A run whose effect is still to be given.

    Law (`tests/syncengine/crdt/test_typing_run.py`): given effect at any moment, it
    comes to what its operations come to one by one.
    """

    __slots__ = (
        "_end",
        "_hlc",
        "_last",
        "_next",
        "_parts",
        "_seq",
        "actor",
        "container",
        "field",
        "kind",
        "n",
        "pos",
        "text",
    )

    def __init__(
        self, container: FieldRef, text: TextState, kind: int, op: Operation, at: Stamp
    ):
        self.container = container
        self.field = container[0]
        self.text = text
        self.kind = kind
        self.pos: int = op[2]
        self._parts: list[str] = []
        self.n: int = op[3]
        if kind == INS:
            self._parts.append(op[3])
            self.n = len(op[3])
        self._hlc, self.actor, self._seq = at
        self._last = self._seq
        self._next = self._seq + self.n
        self._end = self.pos + self.n

    @classmethod
    def begin(
        cls, container: FieldRef, text: TextState, op: Operation, at: Stamp
    ) -> "TypingRun | None":
        """Return a run that begins with an operation of one who has seen all; None
        where that is to be applied by itself."""
        if len(op) != 4:
            return None
        action, _, pos, what = op
        kind = _KINDS.get(action)
        buffer = text.buffer
        if kind is None or type(pos) is not int or text.is_watched:
            return None
        if text.voids or buffer.hidden:
            return None  # positions count what is not shown
        if kind == INS:
            if type(what) is not str or not what or not _is_text(what):
                return None
            reach = pos
        else:
            if type(what) is not int or what <= 0:
                return None
            reach = pos + what
        if not 0 <= pos <= reach <= buffer.length:
            return None
        return cls(container, text, kind, op, at)

    def takes(self, op: Operation, at: Stamp) -> bool:
        """Take up an operation of one who has seen all; tell whether it goes on with
        this, in the same text."""
        hlc, actor, seq = at
        if seq != self._next or actor != self.actor or len(op) != 4:
            return False
        action, field, pos, what = op
        if field != self.field or type(pos) is not int:
            return False
        if action == 8:  # TEXT_INSERT
            if self.kind != INS or pos != self._end or self.n > RUN_MAX:
                return False
            if type(what) is not str or not what:
                return False
            if not (what.isascii() or _is_text(what)):
                return False
            self._parts.append(what)
            what = len(what)
            self._end = pos + what
        # A longer deletion runs forward and would give its elements other names.
        elif action == 9 and type(what) is int and what == 1 and self.kind != INS:
            if pos == self.pos and self.kind == DEL:
                if pos >= self.text.buffer.length - self.n:
                    return False
            elif pos == self.pos - 1 >= 0 and (self.kind == BACK or self.n == 1):
                self.kind = BACK
                self.pos = pos
            else:
                return False
        else:
            return False
        self.n += what
        self._next = seq + what
        self._last = seq
        self._hlc = hlc
        return True

    def operation(self) -> Operation:
        """Return the one operation that it comes to."""
        if self.kind == INS:
            self._parts = ["".join(self._parts)]
            return [int(Action.TEXT_INSERT), self.field, self.pos, self._parts[0]]
        action = Action.TEXT_BACKSPACE if self.kind == BACK else Action.TEXT_DELETE
        return [int(action), self.field, self.pos, self.n]

    def settle(self, undo: Undo) -> Stamp:
        """Give it effect on its text; return the stamp of its last operation."""
        at = (self._hlc, self.actor, self._seq)
        content = "".join(self._parts) if self.kind == INS else None
        self.text.apply(self.kind, self.pos, self.n, content, at, None, undo)
        return self._hlc, self.actor, self._last


def _is_text(text: str) -> bool:
    """Whether it can be encoded; half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
