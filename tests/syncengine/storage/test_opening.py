"""Files that are not ours, or not yet."""

from pathlib import Path

import pytest

from syncengine.errors import NewerFormat, NotOurs
from syncengine.storage.inline import InlineStore


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "mail.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mail (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NotOurs, match="another program"):
        InlineStore(str(path))

    assert path.read_bytes() == before


def test_a_text_file_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 200)
    with pytest.raises(NotOurs):
        InlineStore(str(path))


def test_a_newer_file_is_refused_by_its_format(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    store = InlineStore(path)
    store.connection.execute("PRAGMA user_version = 99")
    store.connection.close()
    with pytest.raises(NewerFormat, match="format 99"):
        InlineStore(path)
