"""Why a field shows what it shows, who wrote which part of a text, and which changes
made a document."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from syncengine import values
from syncengine.clock import ms_from_hlc
from syncengine.crdt.document import Document as State
from syncengine.crdt.document import MapState
from syncengine.crdt.list import ListState
from syncengine.crdt.operation import ContainerId, Type
from syncengine.crdt.register import Entry, Slot
from syncengine.crdt.text import TextState
from syncengine.crdt.tree import TreeState
from syncengine.documents.lenses import Converted, combined
from syncengine.errors import NotFound
from syncengine.ids import (
    ActorId,
    DeviceId,
    DocumentId,
    Stamp,
    base32,
    node_id,
    parse_node_id,
)
from syncengine.log.batch import ChangeHead, decode_spine, split_payload
from syncengine.log.run import Row
from syncengine.replication.feed import READ_ROWS, Change, told
from syncengine.replication.keeper import Keeper
from syncengine.replication.past import Index
from syncengine.storage.sql import statements as sql

_NESTS = frozenset({Type.MAP, Type.LIST, Type.TREE})

Devices = Mapping[ActorId, DeviceId]
"""actor -> the device that wrote under it"""


@dataclass(frozen=True)
class LostValue:
    """A value that lost to a concurrent write; `tx.restore` writes it again."""

    value: Any
    author: str
    """The device that wrote it."""
    at: datetime
    path: str
    """`collection/id/field/...`"""
    type: int = field(default=0, repr=False)
    """That of its container; 0: a plain value"""
    place: Any = field(default=None, repr=False, compare=False)
    """(container, key or element) where it stood: an index would move on"""
    container: ContainerId = field(default=None, repr=False, compare=False)
    """What it is, where it is a container"""


@dataclass(frozen=True)
class Conflict:
    """Two writes that did not know of each other, as they were seen here."""

    path: str
    """`collection/id/field/...`; with `-` in the place of an element that is deleted"""
    value: Any
    """What lost"""
    author: str
    """The device that wrote it."""
    at: datetime
    winner: str | None
    """The device whose write showed instead; None: it was a deletion"""


@dataclass(frozen=True)
class Why:
    """Why a field shows its value."""

    path: str
    value: Any
    author: str
    """The device whose write shows, or that touched last what merges."""
    at: datetime
    rule: str
    """In words"""
    over: list[LostValue]
    """Concurrent writes that lost, and nobody replaced since"""
    change: str = ""
    """The change that wrote it, as in `history`; before it is signed, of this device
    alone, its last operation"""
    arrived: datetime | None = None
    """When it was on this disk; None: not signed yet, or not known"""


_MERGES = {
    Type.COUNTER: "a counter: the sum of what every device added",
    Type.SET: "a set: an element is in it while somebody's adding was not seen removed",
    Type.TEXT: "a text: all insertions, without what somebody deleted",
    Type.LIST: "a list: all elements that nobody deleted, each in its latest place",
    Type.MAP: "a map: each key by itself",
    Type.TREE: "a tree: each node where its latest move that made no cycle put it",
    Type.MULTI: "concurrent values all show, until somebody decides",
}


def why(
    document: State,
    path: str,
    steps: list[str],
    keeper: Keeper,
    lens: Converted | None = None,
) -> Why:
    """Return why the field at `steps` shows what it shows; raises `NotFound`. With
    `lens`, it is converted from another."""
    devices = keeper.membership.actors
    (winner, *rest), place, moved = _slot(document, path, steps, lens)
    lost = [
        lost_value(document, path, entry, devices, place) for entry in rest if entry.hlc
    ]
    if winner.type:
        rule = _MERGES[Type(winner.type)]
        if lost:
            rule += "; it was touched after the writes beside it"
    elif not winner.hlc:
        rule = "content that was seeded, and nobody wrote over"
    elif lost:
        rule = (
            f"the latest of {len(lost) + 1} concurrent writes, by the clocks of their "
            "authors (of equal ones, by device)"
        )
    else:
        rule = "the last write; its author had seen all others"
    if moved is not None:
        by, at = _device(moved[1], devices), _moment(moved[0])
        rule += f"; it stands where {by[:8]} moved it at {at:%Y-%m-%d %H:%M:%S}Z"
    change, arrived = _arrival(keeper, winner.actor, winner.seq)
    return Why(
        path,
        document.entry_value(winner),
        _device(winner.actor, devices),
        _when(winner),
        rule,
        lost,
        change,
        arrived,
    )


def _arrival(keeper: Keeper, actor: ActorId, seq: int) -> tuple[str, datetime | None]:
    """Return (the change that an operation is of, when its batch came in here)."""
    for batch in keeper.batches_at(actor, seq):
        for head in decode_spine(batch.header, split_payload(batch.payload)):
            if head.seq <= seq <= head.end:
                ((arrived,),) = keeper.store.read(sql.ARRIVED, keeper.ns, batch.id) or [
                    (None,)
                ]
                when = None
                if arrived is not None:
                    when = datetime.fromtimestamp(arrived / 1000, tz=UTC)
                return node_id((actor, head.seq)), when
    return node_id((actor, seq)), None


def text_at(document: State, path: str, steps: list[str]) -> ContainerId:
    """Return the text that a field shows; raises `NotFound`."""
    shown = _slot(document, path, steps, None)[0][0]
    if shown.type != Type.TEXT:
        raise NotFound(f"{path} shows no text that merges")
    return shown.container


def _slot(
    document: State, path: str, steps: list[str], lens: Converted | None
) -> tuple[Slot, Any, Stamp | None]:
    """Return the writes at a place, what that is: (container, key or element), and the
    move that put it there, if one did."""
    place: Any = None
    moved: Stamp | None = None
    container: ContainerId = None
    type_: int = Type.MAP
    slot: Slot = ()
    for step in steps:
        state = document.state(container, type_)
        slot, moved = (), None
        if isinstance(state, TreeState):
            node = parse_node_id(step)
            if state.place(node) is not None:
                stamp = state.moved(node)
                moved = stamp if stamp[1:] != node else None  # else it was made there
                slot = (Entry(*stamp, None, Type.MAP, node),)
        elif isinstance(state, MapState):
            slot, place = state.slots.get(step, ()), (container, step)
            if lens is not None and container is None:
                slot = combined(slot, state.slots.get(lens.old, ()), lens)
        elif (
            isinstance(state, ListState)
            and step.isdecimal()
            and int(step) < state.shown_length
        ):
            element = state.element_at(int(step))
            slot, place = state.slots[element], (container, element)
            moved = next((e[:3] for e in state.places.get(element, ())), None)
        if not slot:
            raise NotFound(f"there is no {path}")
        container, type_ = slot[0].container, slot[0].type or -1
        if type_ not in _NESTS and step is not steps[-1]:
            raise NotFound(f"there is no {path}: {step} has no parts that are written")
    return slot, place, moved


@dataclass(frozen=True)
class Passage:
    """A part of a text that one device wrote in one change."""

    text: str
    author: str
    """The device that wrote it."""
    at: datetime | None
    """When, by its author's clock; None for content that was seeded"""


def blame(document: State, container: ContainerId, keeper: Keeper) -> list[Passage]:
    """Return who wrote which part of a text, in order."""
    state = document.state(container, Type.TEXT)
    assert isinstance(state, TextState)
    shown, start = str(state), 0
    times = _Times(keeper)
    found: list[Passage] = []
    for actor, seq, n in state.writers():
        for length, at in times.of(actor, seq, n):
            text = shown[start : start + length]
            start += length
            author = _device(actor, keeper.membership.actors)
            if found and (found[-1].author, found[-1].at) == (author, at):
                found[-1] = Passage(found[-1].text + text, author, at)
            else:
                found.append(Passage(text, author, at))
    return found


class _Times:
    """When operations were made: looked up by batch."""

    def __init__(self, keeper: Keeper):
        self._keeper = keeper
        self._heads: dict[ActorId, list[ChangeHead]] = {}

    def of(
        self, actor: ActorId, seq: int, n: int
    ) -> Iterator[tuple[int, datetime | None]]:
        """Yield (how many, when) of the operations [seq, seq + n)."""
        while n:
            head = self._head(actor, seq)
            if head is None:
                yield n, None
                return
            count = min(n, head.end - seq + 1)
            yield count, _moment(head.hlc)
            seq, n = seq + count, n - count

    def _head(self, actor: ActorId, seq: int) -> ChangeHead | None:
        heads = self._heads.get(actor, [])
        if not heads or not heads[0].seq <= seq <= heads[-1].end:
            heads = []
            for batch in self._keeper.batches_at(actor, seq):
                heads = decode_spine(batch.header, split_payload(batch.payload))
                break
            self._heads[actor] = heads
        at = bisect_right(heads, seq, key=lambda head: head.seq) - 1
        return heads[at] if at >= 0 else None


def conflicts(keeper: Keeper, name: DocumentId) -> Iterator[Conflict]:
    """Yield the conflicts of a document that were seen here, the oldest write first."""
    collection, _, key = name.partition("/")
    rows = keeper.store.read(sql.CONFLICTS, keeper.ns, collection, key)
    return _conflicts(keeper, rows)


def latest_conflicts(
    keeper: Keeper, name: DocumentId | None, count: int
) -> Iterator[Conflict]:
    """Yield up to `count` conflicts that were seen here, the latest write first: all,
    or those of a document."""
    if name is None:
        rows = keeper.store.read(sql.LATEST_CONFLICTS, keeper.ns, count)
        return _conflicts(keeper, rows)
    return iter(list(conflicts(keeper, name))[: -count - 1 : -1])


def _conflicts(keeper: Keeper, rows: list[tuple[Any, ...]]) -> Iterator[Conflict]:
    devices = keeper.membership.actors
    for path, actor, hlc, raw, winner in rows:
        yield Conflict(
            path,
            values.decode(raw),
            _device(ActorId(actor), devices),
            _moment(hlc),
            _device(ActorId(winner), devices) if winner else None,
        )


def lost_value(
    document: State, path: str, entry: Entry, devices: Devices, place: Any = None
) -> LostValue:
    """Return a write that lost, as it is told."""
    value = document.entry_value(entry)
    author = _device(entry.actor, devices)
    at = _when(entry)
    return LostValue(value, author, at, path, entry.type, place, entry.container)


def _device(actor: ActorId, devices: Devices) -> str:
    return base32(devices.get(actor, DeviceId(actor)))


def _when(entry: Entry) -> datetime:
    return _moment(entry.hlc)


def _moment(hlc: int) -> datetime:
    return datetime.fromtimestamp(ms_from_hlc(hlc) / 1000, tz=UTC)


def newest(keeper: Keeper, position: int, path: str | None, count: int) -> list[Change]:
    """Return up to `count` changes of a log up to a position, the newest first: all, or
    those of a document (collection/id) or a collection. It reads the log backwards."""
    found: list[Change] = []
    while position > 0 and len(found) < count:
        before = max(0, position - READ_ROWS)
        rows = [r for r in keeper.rows_after(before, READ_ROWS) if r[0] <= position]
        for at, row in reversed(rows):
            found += _of_row(keeper, at, row, path)
        position = before
    return found[:count]


def newest_of(keeper: Keeper, index: Index, path: str, count: int) -> list[Change]:
    """Return the same of a document or a collection, by the index of the log."""
    found: list[Change] = []
    for at in reversed(index.positions(path if "/" in path else f"{path}/")):
        found += _of_row(keeper, at, index.row_at(at), path)
        if len(found) >= count:
            break
    return found[:count]


def _of_row(keeper: Keeper, at: int, row: Row, path: str | None) -> list[Change]:
    return [
        change
        for change in reversed(told(keeper, at - 1, at, row))
        if is_about(change, path)
    ]


def is_about(change: Change, path: str | None) -> bool:
    """Whether a change touched a document or a collection; None: any."""
    return path is None or any(
        touched == path or touched.startswith(f"{path}/")
        for touched in change.documents
    )


def steps_of(path: str) -> tuple[str, list[str]]:
    """Return (collection/id, the steps behind it) of a path; raises `NotFound`."""
    collection, *more = path.split("/")
    if len(more) < 2 or not all(more[:1]):
        raise NotFound(f"{path!r} names no field: give collection/id/field")
    key, *steps = map(values.unescape, more)
    return f"{collection}/{key}", steps
