"""What a command runs with: flag, else environment, else file, else default.

The file is `syncengine.toml` in the current folder: `db`, `namespace`, `address`.
"""

import os
import tomllib
from pathlib import Path

import msgspec

from syncengine.errors import Invalid

FILE = "syncengine.toml"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings of one run."""

    db: str = "sync.db"
    namespace: str | None = None
    address: str | None = None


def load(db: str | None, namespace: str | None) -> Settings:
    """Return the settings; raises `Invalid` on a file that is not understood."""
    settings = Settings()
    path = Path(FILE)
    if path.exists():
        try:
            settings = msgspec.convert(tomllib.loads(path.read_text()), Settings)
        except (ValueError, msgspec.ValidationError) as error:
            raise Invalid(f"{error}", path=FILE) from error
    environment = os.environ
    return Settings(
        db=db or environment.get("SYNCENGINE_DB") or settings.db,
        namespace=(
            namespace or environment.get("SYNCENGINE_NAMESPACE") or settings.namespace
        ),
        address=environment.get("SYNCENGINE_ADDRESS") or settings.address,
    )
