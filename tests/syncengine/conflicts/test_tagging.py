"""CRDTs inside values: they come back as what they were."""

from typing import Any

import pytest

from syncengine import GCounter, GSet, Invalid, PNCounter, register_crdt
from syncengine.conflicts.tagging import from_plain, to_plain


def value() -> dict[str, Any]:
    views = GCounter("a")
    views.increment(3)
    return {"views": views, "tags": [GSet(["x", 1])], "title": "T", "n": {"m": None}}


def test_crdts_come_back_from_plain_values() -> None:
    again = from_plain(to_plain(value()), "b")

    assert again == value()
    again["views"].increment(1)
    assert again["views"].to_json() == {"a": 3, "b": 1}


def test_a_mapping_that_looks_like_a_counter_is_none() -> None:
    shape = {"a": 3, "positive": {"a": 1}, "negative": {}}

    assert from_plain(to_plain(shape)) == shape


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(Invalid, match="hyperlog"):
        from_plain({"$crdt": "hyperlog", "state": {}})


def test_a_class_is_known_once_it_is_registered() -> None:
    class Votes(PNCounter):
        name = "test.votes"

    votes = Votes("a")
    with pytest.raises(Invalid, match="not registered"):
        to_plain({"votes": votes})

    register_crdt(Votes)
    register_crdt(Votes)

    assert type(from_plain(to_plain(votes))) is Votes
    with pytest.raises(Invalid, match="already"):

        @register_crdt
        class _Other(PNCounter):
            name = "test.votes"
