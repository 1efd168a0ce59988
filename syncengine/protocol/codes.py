"""Close and refusal codes: stable, and the same on the wire, in errors and in logs."""

from enum import IntEnum


class Code(IntEnum):
    """Why a connection closes or a namespace is refused."""

    NORMAL = 1000
    GOING_AWAY = 1001
    MOVED = 4308
    PROTOCOL = 4400
    AUTHENTICATION = 4401
    NOT_GRANTED = 4403
    NO_NAMESPACE = 4404
    SLOW = 4408
    ACTOR_IN_USE = 4409
    REVOKED = 4410
    TOO_LARGE = 4413
    INVITE_EXPIRED = 4420
    INVITE_USED = 4421
    INVALID_BATCH = 4422
    VERSION = 4426
    RATE = 4429
    FULL = 4507


FINAL = frozenset(
    {
        Code.NOT_GRANTED,
        Code.REVOKED,
        Code.INVITE_EXPIRED,
        Code.INVITE_USED,
        Code.VERSION,
        Code.INVALID_BATCH,
    }
)
"""Dialling again cannot help: the link ends and says why."""
