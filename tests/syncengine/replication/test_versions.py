"""Versions are read as they were written, whatever stands beside them."""

import json
from typing import Any

from hypothesis import given

from syncengine import ConflictVersion, GCounter, VectorClock
from syncengine.replication.versions import (
    Version,
    read_versions,
    version_from_json,
    version_to_json,
)
from tests.strategies import plain_values


def version(data: Any) -> Version:
    clock = VectorClock({"a": 2, "b": 1})
    return Version("a", data, clock, 5, 3, "note", {"x": (4, "b")}, deleted=False)


@given(plain_values)
def test_a_version_is_read_as_it_was_written(data: Any) -> None:
    assert read_versions([version(data).plain()]) == [version(data)]


@given(plain_values)
def test_what_another_program_put_there_is_no_version(junk: Any) -> None:
    """At worst it reads as one."""
    for raw in (junk, [junk] * 8, [*version(junk).plain()[:6], junk, False]):
        for found in read_versions([raw]):
            assert read_versions([found.plain()]) == [found]


@given(plain_values)
def test_json_keeps_each_type(data: Any) -> None:
    told = ConflictVersion("a", data, {"a": 1}, 7)
    assert version_from_json(json.loads(json.dumps(version_to_json(told)))) == told


def test_json_keeps_counters_that_can_be_changed() -> None:
    counter = GCounter("a")
    counter.increment(2)
    told = ConflictVersion("a", {"n": counter}, {"a": 1}, 7)
    read = version_from_json(json.loads(json.dumps(version_to_json(told))), "b")
    read.data["n"].increment(3)
    assert read.data["n"].value() == 5
    assert counter.value() == 2
