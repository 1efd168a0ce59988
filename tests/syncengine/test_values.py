"""Values: what can be stored, and that equal values are equal bytes."""

import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given

from syncengine import values
from syncengine.errors import Invalid, TooLarge
from tests.strategies import plain_values


@given(plain_values)
def test_every_valid_value_survives_its_encoding(value: Any) -> None:
    values.check(value, "x")

    assert values.decode(values.encode(value)) == value


def items(value: Any) -> int:
    inside: list[Any] = []
    if isinstance(value, dict):
        inside += [*value.keys(), *value.values()]
    elif isinstance(value, list):
        inside += value
    return 1 + sum(map(items, inside))


@given(plain_values)
def test_items_are_counted_without_decoding(value: Any) -> None:
    value = [
        value,
        *[0.5] * 20,
        ["x" * 300] * 20,
        {str(n): b"y" * n for n in range(300)},
    ]
    data = values.encode(value)

    assert values.item_count(data, 1 << 40) == items(value)


def test_the_count_of_items_stops_early() -> None:
    data = b"\xdd\xff\xff\xff\xff" + b"\x80" * 1_000_000

    assert values.item_count(data, 100) == 101
    for cut in range(6):
        assert values.item_count(data[:cut], 100) <= 2


@given(plain_values)
def test_the_canonical_form_is_stable(value: Any) -> None:
    once = values.canonical(value)

    assert values.canonical(values.decode(once)) == once


def test_key_order_and_negative_zero_do_not_show() -> None:
    assert values.canonical({"a": -0.0, "b": 1}) == values.canonical({"b": 1, "a": 0.0})


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "\ud800", object(), {1: 2}, {"k" * 1025: 1}, datetime(2026, 1, 1)],
)  # fmt: skip
def test_what_cannot_be_stored_is_named_with_its_path(value: Any) -> None:
    with pytest.raises(Invalid, match="note/1/field"):
        values.check([value], "note/1/field")


def test_integers_beyond_64_bits_are_too_large() -> None:
    with pytest.raises(TooLarge):
        values.check(2**63, "n")


def test_nesting_has_a_bound() -> None:
    deep: Any = 1
    for _ in range(33):
        deep = [deep]

    with pytest.raises(TooLarge, match="deeper than 32"):
        values.check(deep, "d")


@pytest.mark.parametrize("key", ["", "a/b", "~", "~1/~0"])
def test_steps_of_a_path_can_be_read_back(key: str) -> None:
    assert values.unescape(values.escape(key)) == key
