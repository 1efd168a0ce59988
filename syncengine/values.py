"""Plain values: what a register holds, and the one encoding of each.

A value is nil, bool, int64, finite float, str, bytes, an aware datetime, or a list
or a str-keyed dict of values, nested at most `DEPTH_MAX` deep. Everything travels
as MessagePack; the canonical form sorts map keys, so equal values are equal bytes.
"""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeGuard, cast

import msgspec

from syncengine import limits
from syncengine.errors import Invalid, TooLarge

Value = Any
"""None, bool, int, float, str, bytes, datetime, list[Value] or dict[str, Value]."""

_canonical = msgspec.msgpack.Encoder(order="sorted")
encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder()

DECODE_ERRORS = (
    msgspec.DecodeError,
    msgspec.ValidationError,
    RecursionError,
    UnicodeDecodeError,
    ValueError,
    OverflowError,
)


# `type` itself; this name tells strict checkers that the result is known.
kind_of: Callable[[object], type[object]] = type


def is_list(raw: object) -> TypeGuard[list[Any]]:
    """Tell whether `raw`, fresh from a decoder, is an array."""
    return type(raw) is list


def own_copy(value: Value) -> Any:
    """Return a value for somebody who may edit it: not what is here."""
    if is_list(value):
        return list(map(own_copy, value))
    if type(value) is dict:
        entries = cast(dict[str, Any], value).items()
        return {key: own_copy(item) for key, item in entries}
    return value


def decode(data: bytes | memoryview) -> Any:
    """Return the value in `data`; raises one of `DECODE_ERRORS`."""
    return _decoder.decode(data)


# By the first byte of a MessagePack item: how many bytes follow, or in how many bytes
# stands how many.
_FIXED = (
    {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
    | {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    | {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
    | {0xA0 + n: n for n in range(32)}
)
_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENDED = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_CONTAINERS = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def item_count(data: bytes, most: int) -> int:
    """Return how many items `data`, MessagePack, holds; it stops beyond `most`.

    To be asked before it is decoded: a byte becomes an object of 64. Of what is
    malformed it counts what it can.
    """
    at = count = 0
    end = len(data)
    while at < end and count <= most:
        first = data[at]
        at += 1
        count += 1
        if 0x80 <= first < 0xA0:
            continue  # a short map or array: what it holds follows, and counts
        if first in _FIXED:
            at += _FIXED[first]
        elif first in _LENGTH:
            width = _LENGTH[first]
            at += width + int.from_bytes(data[at : at + width], "big")
        elif first in _EXTENDED:
            width = _EXTENDED[first]
            at += width + 1 + int.from_bytes(data[at : at + width], "big")
        elif first in _CONTAINERS:
            at += _CONTAINERS[first]
    return count


def canonical(value: Value) -> bytes:
    """Return the one encoding of `value`: keys sorted, -0.0 as 0.0."""
    return _canonical.encode(_normal(value))


def _normal(value: Value) -> Value:
    kind = kind_of(value)
    if kind is float:
        return value + 0.0  # -0.0 + 0.0 is 0.0
    if kind is list:
        return [_normal(item) for item in value]
    if kind is dict:
        return {key: _normal(item) for key, item in value.items()}
    return value


def check(value: Value, path: str, depth: int = 0) -> None:
    """Raise `Invalid`, naming `path`, unless `value` can be stored."""
    kind = kind_of(value)
    if kind is str:
        check_text(value, path)
    elif kind is int:
        if not limits.INT_MIN <= value <= limits.INT_MAX:
            raise TooLarge(
                "an integer has 64 bits; store larger ones as text",
                path=path,
                bound=limits.INT_MAX,
            )
    elif kind is float:
        if not math.isfinite(value):
            raise Invalid(f"{value} is not a finite number", path=path)
    elif value is None or kind is bool or kind is bytes:
        pass
    elif kind is datetime:
        if value.utcoffset() is None:
            raise Invalid("a datetime needs a time zone", path=path)
    elif kind is list or kind is dict:
        _check_nested(value, path, depth)
    else:
        raise Invalid(
            f"{kind.__name__} cannot be stored; use None, bool, int, float, str, "
            "bytes, datetime, list or dict",
            path=path,
        )


def _check_nested(value: list[Any] | dict[Any, Any], path: str, depth: int) -> None:
    if depth >= limits.DEPTH_MAX:
        raise TooLarge(
            f"nested deeper than {limits.DEPTH_MAX}", path=path, bound=limits.DEPTH_MAX
        )
    if isinstance(value, list):
        for index, item in enumerate(value):
            if not _is_small(item):
                check(item, f"{path}/{index}", depth + 1)
        return
    for key, item in value.items():
        check_key(key, path)
        if not _is_small(item):
            check(item, f"{path}/{escape(key)}", depth + 1)


def _is_small(value: Value) -> bool:
    """Whether it can be stored at first sight, as most can: no path need be made."""
    kind = kind_of(value)
    return (
        (kind is str and value.isascii())
        or (kind is int and limits.INT_MIN <= value <= limits.INT_MAX)
        or kind is bool
        or value is None
    )


def check_text(text: str, path: str) -> None:
    """Raise `Invalid` when `text` holds half a character (a lone surrogate)."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            f"a lone surrogate at index {error.start} cannot be stored", path=path
        ) from None


def check_key(key: object, path: str) -> None:
    """Raise `Invalid` unless `key` can be a key of a map."""
    if type(key) is str and len(key) <= limits.KEY_BYTES_MAX and key.isascii():
        return  # nearly always
    if not isinstance(key, str):
        raise Invalid(f"a key is a str, not {type(key).__name__}", path=path)
    check_text(key, path)
    # A code point has at most four bytes: short keys need no count.
    if len(key) * 4 > limits.KEY_BYTES_MAX < len(key.encode()):
        raise TooLarge(
            f"a key has at most {limits.KEY_BYTES_MAX} bytes of UTF-8",
            path=path,
            bound=limits.KEY_BYTES_MAX,
        )


def check_name(name: object, path: str) -> None:
    """Raise `Invalid` unless `name` is text, and not empty."""
    if not isinstance(name, str) or not name:
        raise Invalid(f"a name is a str, and not empty; not {name!r}", path=path)
    check_text(name, path)


def check_count(
    value: object, path: str, *, least: int = 1, most: int | None = None
) -> None:
    """Raise `Invalid` unless an option is a whole number from `least` to `most`."""
    if type(value) is not int or value < least or (most is not None and value > most):
        reach = f"{least} or more" if most is None else f"{least} to {most}"
        raise Invalid(f"{path} is a whole number, {reach}; not {value!r}", path=path)


def escape(key: str) -> str:
    """Return `key` as one step of a path (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def unescape(step: str) -> str:
    """Invert `escape`."""
    return step.replace("~1", "/").replace("~0", "~")
