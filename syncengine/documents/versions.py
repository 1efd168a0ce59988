"""Versions as an application keeps them: what a snapshot holds, as text."""

import base64
import binascii
from collections.abc import Mapping

from syncengine import values
from syncengine.errors import Invalid
from syncengine.ids import ActorId

Version = Mapping[ActorId, int]
"""actor -> the last seq of it that counts"""

NO_VERSION: Version = {}

_PREFIX = "v."


def encode_version(version: Version) -> str:
    """Return a version as text."""
    raw = values.encode([[actor, seq] for actor, seq in sorted(version.items())])
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def is_version(text: str) -> bool:
    """Whether text looks like a version, and not like the id of a change."""
    return text.startswith(_PREFIX)


def decode_version(text: str) -> dict[ActorId, int]:
    """Invert `encode_version`; raises `Invalid`."""
    try:
        if not is_version(text):
            raise ValueError("no version")
        coded = text.removeprefix(_PREFIX)
        raw = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
        found = {actor: int(seq) for actor, seq in values.decode(raw)}
        if any(type(actor) is not bytes for actor in found):
            raise TypeError("an actor is bytes")
    except (AttributeError, TypeError, ValueError, binascii.Error) as error:
        raise Invalid(
            f"{text!r:.40} is no version; space.version, snapshot.meta.version and "
            "change.id are"
        ) from error
    return {ActorId(actor): seq for actor, seq in found.items()}
