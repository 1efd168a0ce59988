"""The vectors are what the code makes, and what a second decoder reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import second_decoder as second
from tests.make_vectors import PATH, vectors

KEPT: dict[str, Any] = json.loads(PATH.read_text())


def test_the_code_makes_the_kept_bytes() -> None:
    assert vectors() == KEPT


def test_the_second_decoder_imports_nothing_of_ours_and_is_short() -> None:
    text = Path(second.__file__).read_text()

    assert "syncengine" not in text
    assert text.count("\n") <= 300


@pytest.mark.parametrize("number", range(3))
def test_entries_are_read(number: int) -> None:
    entry = KEPT["entries"][number]
    name, fields = second.read_entry(
        entry["kind"], bytes.fromhex(entry["body"]), bytes.fromhex(entry["signature"])
    )

    assert name.hex() == entry["id"]
    assert fields[0] == 1
    if number == 0:
        assert name.hex() == KEPT["namespace"]
    else:
        assert fields[1].hex() == KEPT["namespace"]


def test_the_actor_follows_from_its_record() -> None:
    body = second.unpack(bytes.fromhex(KEPT["entries"][2]["body"]))
    made = second.sha256(
        b"sync1:actor\0", body[2], bytes.fromhex(KEPT["namespace"]), body[4]
    )

    assert made[:16].hex() == KEPT["actor"]


def test_batches_are_read() -> None:
    changes: list[list[int]] = []
    prev = bytes(32)
    for batch in KEPT["batches"]:
        raw = bytes.fromhex(batch["header"])
        header = second.read_header(raw)
        root, spine, parts = second.read_payload(bytes.fromhex(batch["payload"]))
        name = second.sha256(raw)
        second.verify(
            bytes.fromhex(KEPT["device"]),
            b"sync1:batch\0" + name,
            bytes.fromhex(batch["signature"]),
        )
        assert name.hex() == batch["id"]
        assert header["root"] == root
        assert header["prev"] == prev
        assert parts["note/1"]
        changes += second.read_changes(header, spine)
        prev = name

    assert changes == KEPT["changes"]


def test_rows_are_read_as_they_travel() -> None:
    ids = second.read_rows(
        bytes.fromhex(KEPT["rows"]),
        bytes.fromhex(KEPT["namespace"]),
        bytes.fromhex(KEPT["device"]),
    )

    assert [name.hex() for name in ids] == [
        row["id"] for row in (*KEPT["entries"], *KEPT["batches"])
    ]
