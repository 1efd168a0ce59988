"""What both stores do to a connection before anything else: is this file ours?"""

import contextlib
import sqlite3
from pathlib import Path

from syncengine.errors import (
    NewerFormat,
    NotOurs,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)
from syncengine.storage.sql.statements import (
    APPLICATION_ID,
    FORMAT,
    MIGRATIONS,
    PRAGMAS,
    SCHEMA,
)

MEMORY = ":memory:"


def mark_backup(path: str) -> None:
    """Let a copy of a file say that it is one: without an open token no folder takes it
    for the file it knows, though it was made and put back between two starts."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as copy, copy:
            copy.execute("DELETE FROM _sync_meta WHERE key = 'token'")
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def refuse_foreign(path: str) -> bool:
    """Tell whether `path` is to be created; raises unless it is absent or ours.

    Nothing is written: a file of another program stays as it is.
    """
    if path == MEMORY or not Path(path).exists():
        return True
    if Path(path).is_dir():
        raise StoreError(f"{path} is a folder; name a file in it")
    if Path(path).stat().st_size == 0:
        return True
    try:
        connection = sqlite3.connect(f"file:{quoted(path)}?mode=ro", uri=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise NotOurs(
                f"{path} is not a SQLite database; name another file"
            ) from None
        raise translate(error, path) from error
    if application != APPLICATION_ID:
        raise NotOurs(
            f"{path} is a database of another program; it was not touched. "
            "Name another file"
        )
    if version > FORMAT:
        raise NewerFormat(
            f"{path} has format {version}, this version reads up to {FORMAT}; "
            "update syncengine to open it"
        )
    return False


def quoted(path: str) -> str:
    """Return `path` as a part of a `file:` address."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def prepare(connection: sqlite3.Connection, path: str, *, create: bool) -> None:
    """Set the pragmas and, for a new file, the schema."""
    try:
        for pragma in PRAGMAS:
            connection.execute(pragma)
        if create:
            connection.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {FORMAT}; {SCHEMA} COMMIT;"
            )
        else:
            _migrate(connection)
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring a file of an older format up to ours, as a whole or not at all."""
    ((version,),) = connection.execute("PRAGMA user_version")
    while version < FORMAT:
        statements = "; ".join(MIGRATIONS[version])
        version += 1
        connection.executescript(
            f"BEGIN IMMEDIATE; {statements}; PRAGMA user_version = {version}; COMMIT;"
        )


# SQLite reports a write beyond a quota or a file-size limit as an I/O error.
_NO_SPACE = frozenset(
    {
        "SQLITE_FULL",
        "SQLITE_IOERR_WRITE",
        "SQLITE_IOERR_TRUNCATE",
        "SQLITE_IOERR_SHMSIZE",
    }
)


def translate(error: Exception, path: str) -> StoreError:
    """Return our error for one of SQLite's."""
    text, name = str(error), getattr(error, "sqlite_errorname", "")
    if name in _NO_SPACE or "is full" in text:
        return StoreFull(
            f"no space to write {path} ({text}); free some space and try again"
        )
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"the disk below {path} failed ({text}, {name})")
    if "readonly" in text or "unable to open" in text:
        return StoreReadOnly(
            f"{path} cannot be written ({text}); check its permissions"
        )
    if "locked" in text:
        return StoreLocked(path, "")
    if "malformed" in text or "not a database" in text:
        return StoreDamaged(
            f"{path} is damaged ({text}); `syncengine doctor` says what is lost"
        )
    return StoreError(f"{path}: {text}")
