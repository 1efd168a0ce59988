"""What becomes of own changes when they are sealed: joined, cut, or written again.

Typing makes a change a keystroke. Sealed, consecutive ones become one, and a batch is
cut at a change once it is large enough.
"""

from typing import Any

from syncengine import limits, values
from syncengine.clock import ms_from_hlc
from syncengine.crdt.operation import Action, Operation, join, renamed
from syncengine.ids import ActorId
from syncengine.log.change import NO_META, Change, Touch


def cut(changes: list[Change]) -> tuple[list[Change], list[Change]]:
    """Return the changes of the next batch, and the rest."""
    size = 0
    for index, change in enumerate(changes):
        # In the spine a touch is two numbers, in its part an array; a dep is 40 bytes.
        size += 64 + 40 * len(change.deps) + len(change.meta.operation_id or "")
        size += sum(4 + len(values.encode(touch.ops)) for touch in change.touches)
        if size >= limits.BATCH_BYTES_CUT:
            return changes[: index + 1], changes[index + 1 :]
    return changes, []


def coalesce(changes: list[Change]) -> list[Change]:
    """Return `changes` with consecutive typing into one text joined.

    Joined are neighbours that touch nothing but one text, without deps and meta,
    within one second. The joined change bears the last one's stamp, so that the
    author's own state (which knows the last stamp) equals everybody's.
    """
    joined: list[Change] = []
    first_hlc = 0
    ops: list[Operation] = []  # of the last one, where it was joined: our own to change
    text: Any = None
    for change in changes:
        last = joined[-1] if joined else None
        edited = _only_text(change)
        if (
            last is not None
            and edited is not None
            and edited == text
            and not change.deps
            and change.meta == NO_META == last.meta
            and change.touches[0].document == last.touches[0].document
            and ms_from_hlc(change.hlc) - ms_from_hlc(first_hlc) < limits.COALESCE_MS
        ):
            touch, more = last.touches[0], change.touches[0]
            if touch.ops is not ops:
                ops = [list(op) for op in touch.ops]
            for op in more.ops:
                if not _joined_typing(ops[-1], op):
                    ops.append(list(op))
            both = Touch(touch.document, ops, touch.n + more.n)
            joined[-1] = Change(
                last.actor, last.seq, change.hlc, last.deps, [both], NO_META
            )
        else:
            joined.append(change)
            first_hlc, text = change.hlc, edited
    return joined


def _only_text(change: Change) -> Any:
    """Return the one text that `change` edits, wrapped; None when there is more."""
    if len(change.touches) != 1:
        return None
    ops = change.touches[0].ops
    container = ops[0][1] if len(ops[0]) > 1 else None
    for op in ops:
        if not Action.TEXT_INSERT <= op[0] <= Action.TEXT_BACKSPACE:
            return None
        if op[1] != container:
            return None
    return (container,)


def _joined_typing(last: Operation, op: Operation) -> bool:
    """Make one operation of two that touch; the seqs stay as they were."""
    if join(last, op):
        return True
    deletes = (Action.TEXT_DELETE, Action.TEXT_BACKSPACE)
    if last[0] not in deletes or op[0] not in deletes:
        return False
    if last[0] == op[0] == Action.TEXT_DELETE and op[2] == last[2]:
        last[3] += op[3]
        return True
    single = op[0] == Action.TEXT_BACKSPACE or op[3] == 1
    backwards = last[0] == Action.TEXT_BACKSPACE or last[3] == 1
    if single and backwards and op[2] + op[3] == last[2]:
        last[0], last[2], last[3] = Action.TEXT_BACKSPACE, op[2], last[3] + op[3]
        return True
    return False


def moved(op: Operation, before: ActorId, shift: int, first: int) -> Operation:
    """Return `op` of the old actor as one of the new: names of containers change."""
    return renamed(op, lambda seq: seq + shift if seq >= first else [before, seq])
