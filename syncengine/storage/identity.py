"""The folder beside a database: the device's key, the open token, the lock.

`notes.db-sync/` (mode 0700) holds what must not travel with a copy of the file. Each
open writes a fresh token here and into the file; when they disagree, the file was
restored or copied, and its old actor is retired. Paths, devices and inodes are no
signs of that: files are moved honestly all the time.
"""

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncengine.clock import Entropy
from syncengine.errors import StoreError, StoreLocked, StoreReadOnly
from syncengine.trust.keys import SEED_BYTES

TOKEN_BYTES = 16


class Identity(Protocol):
    """What a replica is besides its file."""

    seed: bytes

    def tokens(self) -> list[bytes]:
        """Return the tokens of the last opens: one, or two after a crash."""
        ...

    def set_tokens(self, tokens: list[bytes]) -> None:
        """Keep `tokens`, durably."""
        ...

    def write_secret(self, name: str, text: str) -> None:
        """Keep a secret for the user in the folder (mode 0600)."""
        ...

    def read_secret(self, name: str) -> str | None: ...

    def release(self) -> None:
        """Give up the lock."""
        ...


@dataclass
class MemoryIdentity:
    """A throw-away identity: of `:memory:` replicas and simulated machines."""

    seed: bytes

    def __post_init__(self) -> None:
        self._tokens: list[bytes] = []
        self._secrets: dict[str, str] = {}

    def tokens(self) -> list[bytes]:
        return list(self._tokens)

    def set_tokens(self, tokens: list[bytes]) -> None:
        self._tokens = list(tokens)

    def write_secret(self, name: str, text: str) -> None:
        self._secrets[name] = text

    def read_secret(self, name: str) -> str | None:
        return self._secrets.get(name)

    def release(self) -> None: ...


class FileIdentity:
    """The identity in a folder, held under an OS lock for as long as it is open."""

    def __init__(self, database: str, entropy: Entropy):
        self._folder = Path(f"{database}-sync")
        try:
            self._folder.mkdir(mode=0o700, parents=False, exist_ok=True)
        except FileNotFoundError as error:
            if self._folder.parent.exists():
                raise StoreReadOnly(f"{self._folder} cannot be made") from error
            raise StoreReadOnly(
                f"the folder {self._folder.parent} does not exist; create it first"
            ) from None
        except OSError as error:
            raise StoreReadOnly(f"{self._folder} cannot be made: {error}") from error
        self._lock = self._take_lock(database)
        try:
            self.seed = self._seed(entropy)
        except BaseException:
            self.release()
            raise

    def _take_lock(self, database: str) -> int:
        path = self._folder / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreReadOnly(f"{path} cannot be written: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            os.close(lock)
            raise StoreLocked(database, holder) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()}\n".encode(), 0)
        return lock

    def _seed(self, entropy: Entropy) -> bytes:
        path = self._folder / "device.key"
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            seed = entropy.bytes(SEED_BYTES)
            self._write("device.key", seed)
            return seed
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise StoreError(
                f"{path} can be read by others; run `chmod 600 {path}` and open again"
            )
        seed = path.read_bytes()
        if len(seed) != SEED_BYTES:
            raise StoreError(
                f"{path} is damaged; restore it, or delete it to begin anew"
            )
        return seed

    def tokens(self) -> list[bytes]:
        try:
            raw = (self._folder / "token").read_bytes()
        except FileNotFoundError:
            return []
        return [raw[at : at + TOKEN_BYTES] for at in range(0, len(raw), TOKEN_BYTES)]

    def set_tokens(self, tokens: list[bytes]) -> None:
        self._write("token", b"".join(tokens))

    def write_secret(self, name: str, text: str) -> None:
        self._write(name, text.encode())

    def read_secret(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Replace a file at once and durably; nobody else can read it at any time."""
        new = self._folder / f"{name}.new"
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.open(new, flags, 0o600)
            try:
                os.write(file, data)
                os.fsync(file)
            finally:
                os.close(file)
            new.rename(self._folder / name)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreReadOnly(f"{new} cannot be written: {error}") from error

    def release(self) -> None:
        os.close(self._lock)
