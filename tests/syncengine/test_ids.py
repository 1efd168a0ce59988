"""Names of documents, and ids as people see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine.errors import Invalid
from syncengine.ids import base32, document_id, from_base32, parse_document_id


@pytest.mark.parametrize("key", ["1", "2026-11-23", "ä b", "x" * 256])
def test_good_ids_name_documents(key: str) -> None:
    assert parse_document_id(f"notes/{key}") == document_id("notes", key)


@pytest.mark.parametrize(
    "name",
    ["", "notes", "notes/", "Notes/1", "1n/x", "notes/a/b", "notes/a\n", "a-b/c",
     "notes/" + "x" * 257, "notes/\ud800", "/x", "n" * 64 + "/x"],
)  # fmt: skip
def test_bad_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(Invalid):
        parse_document_id(name)


@given(st.binary(min_size=1, max_size=40))
def test_base32_can_be_read_back(data: bytes) -> None:
    assert from_base32(base32(data)) == data
