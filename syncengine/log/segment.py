"""Segments: many rows of a log in few bytes, and every byte of them back.

What rows say is taken apart into columns of one kind each (stamps, positions, lengths,
text), of which each is compressed by itself; what follows from the rows before it, as
in `run.py`, is not written. A payload that its columns do not give back byte for byte
is kept as it is.

A segment is MessagePack: `[rows, [column...]]`. `rows` is what `encode_rows` makes,
with nil for each payload that is in the columns; the columns are LZMA2 streams
(dictionary 4 MiB, preset 6), of numbers as 8 planes of their bytes, low first.
"""

import lzma
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from syncengine import limits, values
from syncengine.ids import NamespaceId
from syncengine.log.batch import Payload, split_payload
from syncengine.log.run import (
    RUN,
    RUN_BATCHES_MAX,
    Row,
    decode_rows,
    row_groups,
)

# What one segment is made of, and the rest of a run: a window in which things are said
# again.
SEGMENT_BYTES = 4 << 20

# What a reader makes of its columns: more stays as it is. A number takes 8 bytes there
# that took one.
COLUMN_BYTES_MAX = 64 << 20

# A run can be longer than a segment is meant to be.
SEGMENT_BYTES_MAX = COLUMN_BYTES_MAX + (RUN_BATCHES_MAX + 1) * limits.BATCH_BYTES_MAX

FILTERS: list[dict[str, int]] = [
    {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": SEGMENT_BYTES}
]

# Operations on text that have a column for each of their parts; others are kept whole.
_INSERT, _DELETE, _BACKSPACE = 8, 9, 10
_LIST_INSERT = 11
_OTHER = 0

_FITS = 1 << 60  # how far a number may be from its guess


class _Columns:
    """What payloads say, by kind; of numbers, how far each is from its guess."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.stamps: list[int] = []
        self.touches: list[int] = []
        self.kinds = bytearray()
        self.places: list[int] = []
        self.lengths: list[int] = []
        self.containers: list[int] = []
        self.salts = bytearray()
        self.texts: list[str] = []
        self.rest: list[Any] = []  # what is not worth a column of its own


class _Guesses:
    """What comes next, if things go on: the same for who writes and who reads."""

    def __init__(self) -> None:
        self.hlc = 0
        self.at: dict[tuple[str, int], int] = {}

    def place(self, where: tuple[str, int], action: int, n: int) -> int:
        """Return where an edit of text would be that goes on where the last one was."""
        at = self.at.get(where, 0)
        if action == _BACKSPACE:
            return at - n
        return at - 1 if action == _DELETE and n == 1 else at

    def moved(self, where: tuple[str, int], action: int, pos: int, n: int) -> None:
        self.at[where] = pos + n if action == _INSERT else pos


class _Counted:
    """How many operations each touch has, by what it did."""

    def __init__(self, parts: list[list[list[Any]]]):
        self._parts = parts
        self._done: list[int] = []

    def next(self, back: int) -> int:
        """Return the next touch's, of a part named as in a spine."""
        if back == 0:
            self._done.append(0)
        part = len(self._done) - (back or 1)
        if not 0 <= part < min(len(self._done), len(self._parts)):
            return 0
        groups, number = self._parts[part], self._done[part]
        self._done[part] += 1
        found = sum(map(_length, groups[number])) if number < len(groups) else 0
        return min(found, _FITS)


class _Writer:
    def __init__(self) -> None:
        self.columns = _Columns()
        self._guesses = _Guesses()
        self._containers: dict[bytes, int] = {}
        self._size = 0

    def add(self, payload: bytes) -> bool:
        """Take a payload apart; tell whether it can be put together again."""
        if self._size + 8 * len(payload) > COLUMN_BYTES_MAX:
            return False
        try:
            whole = split_payload(payload)
            spine = values.decode(whole.spine)
            parts = [(name, values.decode(raw)) for name, raw in whole.parts]
            if not _is_regular(spine, parts) or _joined(whole, spine, parts) != payload:
                return False
        except (*values.DECODE_ERRORS, TypeError, OverflowError):
            return False
        self._size += 8 * len(payload)
        columns = self.columns
        hlcs, deps, metas, touches = spine
        columns.salts += whole.salt
        columns.counts += (len(hlcs), len(parts))
        first = self._guesses.hlc
        columns.stamps += (_zigzag(hlcs[0] - first), *map(_zigzag, hlcs[1:]))
        self._guesses.hlc = sum(hlcs)
        columns.rest += (deps, metas)
        for name, groups in parts:
            columns.rest.append(name)
            columns.counts.append(len(groups))
            for ops in groups:
                columns.counts.append(len(ops))
                for op in ops:
                    self._add_op(name, op)
        counted = _Counted([groups for _, groups in parts])
        for flat in touches:
            columns.touches.append(len(flat))
            for back, n in zip(flat[::2], flat[1::2], strict=True):
                columns.touches += (back, _zigzag(n - counted.next(back)))
        return True

    def _add_op(self, name: str, op: list[Any]) -> None:
        columns, guesses = self.columns, self._guesses
        if not _is_text(op):
            columns.kinds.append(_OTHER)
            columns.rest.append(op)
            return
        action, raw, pos, what = op
        columns.kinds.append(action)
        key = values.encode(raw)
        number = self._containers.get(key)
        if number is None:
            number = self._containers[key] = len(self._containers)
            columns.rest.append(raw)
        columns.containers.append(number)
        n = len(what) if action == _INSERT else what
        if action == _INSERT:
            columns.texts.append(what)
        where = (name, number)
        columns.lengths.append(n)
        columns.places.append(_zigzag(pos - guesses.place(where, action, n)))
        guesses.moved(where, action, pos, n)

    def packed(self) -> list[bytes]:
        columns = self.columns
        return [
            _compressed(data)
            for data in (
                _planes(columns.counts),
                _planes(columns.stamps),
                _planes(columns.touches),
                bytes(columns.kinds),
                _planes(columns.places),
                _planes(columns.lengths),
                _planes(columns.containers),
                bytes(columns.salts),
                "".join(columns.texts).encode(),
                values.encode(columns.rest),
            )
        ]


class _Reader:
    def __init__(self, packed: list[bytes]):
        room = COLUMN_BYTES_MAX
        data: list[bytes] = []
        for column in packed:
            data.append(_decompressed(column, room))
            room -= len(data[-1])
        counts, stamps, touches, kinds, places, lengths, containers, salts, *more = data
        text, rest = more
        self._counts = iter(_numbers(counts))
        self._stamps = iter(_numbers(stamps))
        self._touches = iter(_numbers(touches))
        self._kinds = iter(kinds)
        self._places = iter(_numbers(places))
        self._lengths = iter(_numbers(lengths))
        self._of = iter(_numbers(containers))
        self._salts = salts
        self._text = text.decode()
        self._rest = iter(values.decode(rest))
        self._at = 0
        self._guesses = _Guesses()
        self._containers: list[Any] = []

    def next(self) -> bytes:
        """Return the next payload."""
        take, stamps = self._counts, self._stamps
        changes, parts = next(take), next(take)
        hlcs = [_unzigzag(next(stamps)) for _ in _many(changes)]
        hlcs[0] += self._guesses.hlc
        self._guesses.hlc = sum(hlcs)
        salt, self._salts = self._salts[:16], self._salts[16:]
        deps, metas = next(self._rest), next(self._rest)
        made: list[tuple[str, list[list[Any]]]] = []
        for _ in _many(parts):
            name = next(self._rest)
            groups = [
                [self._op(name) for _ in _many(next(take))] for _ in _many(next(take))
            ]
            made.append((name, groups))
        counted = _Counted([groups for _, groups in made])
        touches: list[list[int]] = []
        for _ in _many(changes):
            flat: list[int] = []
            for _ in _many(next(self._touches) // 2):
                back = next(self._touches)
                flat += (back, _unzigzag(next(self._touches)) + counted.next(back))
            touches.append(flat)
        return _joined(Payload(b"", salt, []), [hlcs, deps, metas, touches], made)

    def _op(self, name: str) -> Any:
        action = next(self._kinds)
        if action == _OTHER:
            return next(self._rest)
        number = next(self._of)
        if number == len(self._containers):
            self._containers.append(next(self._rest))
        n, where = next(self._lengths), (name, number)
        pos = _unzigzag(next(self._places)) + self._guesses.place(where, action, n)
        self._guesses.moved(where, action, pos, n)
        what: Any = n
        if action == _INSERT:
            what = self._text[self._at : self._at + n]
            self._at += n
        return [action, self._containers[number], pos, what]


def encode_segment(rows: Iterable[Row]) -> bytes:
    """Return rows as `encode_rows` takes them, of `SEGMENT_BYTES` and a run at most."""
    writer = _Writer()
    groups: list[list[Any]] = []
    for group in row_groups(rows):
        if group[0] == RUN:
            flat = group[8]
            for at in range(1, len(flat), 2):
                if writer.add(flat[at]):
                    flat[at] = None
        groups.append(group)
    return values.encode([groups, writer.packed()])


def decode_segment(namespace: NamespaceId, data: bytes) -> list[Row]:
    """Return the rows of a segment, unverified; raises `ValueError` when malformed."""
    try:
        groups, packed = values.decode(data)
        if len(packed) != len(_Writer().packed()):
            raise ValueError("a segment has its columns")
        reader = _Reader(packed)
        for group in groups:
            if group[0] == RUN:
                flat = group[8]
                for at in range(1, len(flat), 2):
                    if flat[at] is None:
                        flat[at] = reader.next()
        body = values.encode(groups)
    except (
        *values.DECODE_ERRORS,
        lzma.LZMAError,
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        StopIteration,
        TypeError,
    ) as error:
        raise ValueError(f"malformed segment: {error!r:.200}") from error
    return decode_rows(namespace, body)


def _joined(
    outer: Payload, spine: list[Any], parts: list[tuple[str, list[Any]]]
) -> bytes:
    """Return the payload that says this."""
    encoded = {name: values.encode(groups) for name, groups in parts}
    return values.encode([values.encode(spine), outer.salt, encoded])


def _is_regular(spine: Any, parts: list[tuple[str, Any]]) -> bool:
    """Whether a payload has the shape that the columns are for."""
    if len(spine) != 4:
        return False
    hlcs, _, _, touches = spine
    return (
        bool(hlcs)
        and all(type(hlc) is int and 0 <= hlc < _FITS for hlc in hlcs)
        and sum(hlcs) < _FITS
        and len(touches) == len(hlcs)
        and all(type(n) is int and 0 <= n < _FITS for flat in touches for n in flat)
        and all(len(flat) % 2 == 0 for flat in touches)
        and all(
            values.is_list(groups) and all(map(values.is_list, groups))
            for _, groups in parts
        )
    )


def _is_text(op: Any) -> bool:
    if not values.is_list(op) or len(op) != 4:
        return False
    action, _, pos, what = op
    if type(action) is not int or type(pos) is not int or not 0 <= pos < _FITS:
        return False
    if action == _INSERT:
        return type(what) is str and bool(what)
    return action in (_DELETE, _BACKSPACE) and type(what) is int and 0 < what < _FITS


def _many(n: int) -> range:
    if n > COLUMN_BYTES_MAX:
        raise ValueError("a segment says more than it may")
    return range(n)


def _length(op: Any) -> int:
    """Return how many seqs an operation takes, nearly always: where it is another
    number, the difference is written."""
    if not values.is_list(op) or len(op) != 4:
        return 1
    action, _, _, what = op
    if action == _INSERT and isinstance(what, str):
        return len(what)
    if action == _LIST_INSERT and values.is_list(what):
        return len(what)
    deletes = action in (_DELETE, _BACKSPACE) and type(what) is int
    return what if deletes and 0 < what < _FITS else 1


def _zigzag(n: int) -> int:
    return 2 * n if n >= 0 else -2 * n - 1


def _unzigzag(n: int) -> int:
    return -((n + 1) >> 1) if n & 1 else n >> 1


def _planes(numbers: list[int]) -> bytes:
    """Return the lowest byte of each number, then the next of each ..."""
    raw = _little(array("Q", numbers)).tobytes()
    return b"".join(raw[plane::8] for plane in range(8))


def _numbers(planes: bytes) -> Iterator[int]:
    count, left = divmod(len(planes), 8)
    if left:
        raise ValueError("a number has 8 bytes")
    raw = bytearray(len(planes))
    for plane in range(8):
        raw[plane::8] = planes[plane * count : (plane + 1) * count]
    return iter(_little(array("Q", bytes(raw))))


def _little(numbers: "array[int]") -> "array[int]":
    """Return numbers whose bytes stand with the lowest first, or are to."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _compressed(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=FILTERS)


def _decompressed(data: bytes, most: int) -> bytes:
    unpacking = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
    found = unpacking.decompress(data, most)
    if not unpacking.eof:
        raise ValueError("a segment is cut, or larger than it may be")
    return found
