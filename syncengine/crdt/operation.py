"""Operations: what a change does to one document, and the bytes that say so.

An operation is a MessagePack array `[action, container, ...]`. A container is named
by nil (the document itself), by text (a field of the document; the action tells its
type), by the seq of the own operation that made it, or by `[actor, seq]`.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from syncengine import values
from syncengine.errors import Invalid
from syncengine.ids import ActorId, OpId


class Type(IntEnum):
    """The types of containers."""

    MAP = 1
    COUNTER = 2
    SET = 3
    LIST = 4
    TEXT = 5
    TREE = 6
    MULTI = 7


class Action(IntEnum):
    """What an operation does. The shape of each is in protocol.md, section 3."""

    TOUCH = 0
    SET = 1
    MAKE = 2
    DELETE = 3
    DROP = 4
    INCREMENT = 5
    ADD = 6
    REMOVE = 7
    TEXT_INSERT = 8
    TEXT_DELETE = 9
    TEXT_BACKSPACE = 10
    LIST_INSERT = 11
    LIST_DELETE = 12
    LIST_SET = 13
    LIST_MAKE = 14
    LIST_PUT = 15
    MOVE = 16
    SEED = 17
    MARK = 18
    MULTI_SET = 20
    TREE_MOVE = 21


NEWEST_ACTION = max(Action)
"""What a program of this version understands: a newer one more."""

# Keyed by plain numbers, as they come from the wire; an IntEnum is one.
TYPE_OF_ACTION: dict[int, Type] = {
    Action.SET: Type.MAP,
    Action.MAKE: Type.MAP,
    Action.DELETE: Type.MAP,
    Action.INCREMENT: Type.COUNTER,
    Action.ADD: Type.SET,
    Action.REMOVE: Type.SET,
    Action.TEXT_INSERT: Type.TEXT,
    Action.TEXT_DELETE: Type.TEXT,
    Action.TEXT_BACKSPACE: Type.TEXT,
    Action.LIST_INSERT: Type.LIST,
    Action.LIST_DELETE: Type.LIST,
    Action.LIST_SET: Type.LIST,
    Action.LIST_MAKE: Type.LIST,
    Action.LIST_PUT: Type.LIST,
    Action.MOVE: Type.LIST,
    Action.MARK: Type.TEXT,
    Action.MULTI_SET: Type.MULTI,
    Action.TREE_MOVE: Type.TREE,
}

NESTABLE = frozenset(Type)

Operation = list[Any]

FieldRef = tuple[str, int]
"""(field, type): a container at the root, named by the field: made by first use."""

ContainerId = FieldRef | OpId | None
"""A field's container, the operation that made a nested one, or None: the root."""


class InvalidOperation(Invalid):
    """An operation that no replica gives effect: its whole change is void."""


class UnknownOperation(Exception):
    """An operation of a newer version: its document waits for an upgrade."""


def check_nestable(type_: Any) -> None:
    """Raise unless a container of this type can be made."""
    if type_ in NESTABLE:
        return
    if type(type_) is int and type_ > 0:
        raise UnknownOperation(f"container type {type_}")
    raise InvalidOperation("a container's type is a positive number")


def container_key(container: ContainerId) -> bytes:
    """Return the bytes under which a container is kept."""
    if container is None:
        return b""
    name, number = container
    if isinstance(name, str):
        return bytes((number,)) + name.encode()
    return b"\xff" + name + number.to_bytes(8, "big")


def container_from_key(key: bytes) -> ContainerId:
    """Invert `container_key`."""
    if not key:
        return None
    if key[0] == 0xFF:
        return (ActorId(key[1:17]), int.from_bytes(key[17:], "big"))
    return (key[1:].decode(), key[0])


def reference(container: ContainerId, author: ActorId) -> Any:
    """Return how an operation of `author` names `container`."""
    if container is None:
        return None
    name, number = container
    if isinstance(name, str):
        return name
    return number if name == author else [name, number]


def resolve(raw: Any, action: int, author: ActorId) -> ContainerId:
    """Return the container that an operation names; raises `InvalidOperation`."""
    if raw is None:
        if TYPE_OF_ACTION.get(action) is Type.MAP:
            return None
        raise InvalidOperation("the document itself is a map")
    kind = values.kind_of(raw)
    if kind is str:
        values.check_key(raw, "")
        return (raw, int(TYPE_OF_ACTION[action]))
    if kind is int and raw > 0:
        return (author, raw)
    if kind is list and len(raw) == 2:
        actor, seq = raw
        if type(actor) is bytes and len(actor) == 16 and type(seq) is int and seq > 0:
            return (ActorId(actor), seq)
    raise InvalidOperation("a container is nil, a field, a seq or [actor, seq]")


def renamed(op: Operation, name: Callable[[int], Any]) -> Operation:
    """Return `op` with each name of what its author made itself (a seq) as `name` says.

    Those are its container, and the nodes that a move in a tree is about.
    """
    last = 4 if op[0] == Action.TREE_MOVE else 2
    return [
        name(part) if 1 <= at < last and type(part) is int and part > 0 else part
        for at, part in enumerate(op)
    ]


_COUNTED = frozenset({Action.TEXT_DELETE, Action.TEXT_BACKSPACE, Action.LIST_DELETE})


def length(op: Operation) -> int:
    """Return how many seqs `op` takes; raises `InvalidOperation`.

    One for each inserted or deleted element, two for a move (a slot, and whose it is)
    and for a mark (its anchors), one for anything else.
    """
    try:
        action = op[0]
        if action == 8 or action == 11:  # TEXT_INSERT, LIST_INSERT
            return len(op[3])
        if action == 1:  # SET
            return 1
        if action in _COUNTED:
            n = op[3]
            if type(n) is not int or n <= 0:
                raise InvalidOperation("a length is a positive number")
            return int(n)
        if action in (Action.MOVE, Action.MARK):
            return 2
    except (TypeError, IndexError) as error:
        raise InvalidOperation("an operation is [action, ...]") from error
    return 1


def first_part(op: Operation, n: int) -> Operation | None:
    """Return what the first `n` seqs of an operation do, that takes more; None where
    that is no operation."""
    if n <= 0:
        return None
    match op[0]:
        case Action.TEXT_INSERT | Action.LIST_INSERT:
            return [*op[:3], op[3][:n]]
        case Action.TEXT_DELETE | Action.LIST_DELETE:
            return [*op[:3], n]
        case Action.TEXT_BACKSPACE:
            return [*op[:2], op[2] + op[3] - n, n]
        case _:
            return None


def join(last: Operation, op: Operation) -> bool:
    """Make one operation of two insertions that touch; tell whether it was done."""
    if (
        last[0] == op[0] == Action.TEXT_INSERT
        and last[1] == op[1]
        and op[2] == last[2] + len(last[3])
    ):
        last[3] += op[3]
        return True
    return False
