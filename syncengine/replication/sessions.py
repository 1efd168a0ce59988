"""What somebody has seen of a namespace that all write, as text to be kept.

A token names the newest changes of which no other one knew: whoever has applied these
has applied all that they build upon. So it is as long as there are concurrent writers,
whatever the history. Nobody vouches for a token: it is trusted for nothing but waiting.
"""

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Annotated

import msgspec

from syncengine import limits
from syncengine.errors import HistoryDiverged, Invalid, StaleRead
from syncengine.ids import ActorId, BatchId

if TYPE_CHECKING:
    from syncengine.replication.space import Space

_HASH_BYTES = 8

# A token goes with requests, in a header or a cookie: this many concurrent writers.
TOKEN_BYTES_MAX = 4096


class _Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    actor: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    seq: Annotated[int, msgspec.Meta(ge=1)]
    hash8: Annotated[bytes, msgspec.Meta(max_length=_HASH_BYTES)]
    """Begins the id of the batch that holds it; empty: it was in none yet"""


class _Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    namespace: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    heads: Annotated[list[_Head], msgspec.Meta(max_length=limits.ACTORS_MAX)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Seen)


def token_of(space: "Space") -> str:
    """Return what names all that shows here now. Raises `Invalid` where more wrote at
    once than a token has room for."""
    engine = space.engine
    engine.end_typing()
    applied = engine.delivery.applied
    heads: list[_Head] = []
    for actor, state in sorted(applied.items()):
        known = any(
            other.seen.get(actor, 0) >= state.seq
            for name, other in applied.items()
            if name != actor
        )
        if state.seq and not known:
            name = engine.keeper.hash16_at(actor, state.seq) or b""
            heads.append(_Head(actor, state.seq, name[:_HASH_BYTES]))
    raw = _encoder.encode(_Seen(engine.keeper.namespace[:8], heads))
    if len(raw) > TOKEN_BYTES_MAX:
        raise Invalid(
            f"{len(heads)} wrote at once, and nobody has seen it all: a token has no "
            "room for that"
        )
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def reach(space: "Space", token: str, timeout_ms: int) -> None:
    """Wait until all that a token names shows here. Raises `StaleRead` when it does
    not within the time, `HistoryDiverged` when it never will, `Invalid` for another
    text. Safe to cancel."""
    seen = _parse(token)
    engine = space.engine
    if engine.keeper.namespace[:8] != seen.namespace:
        raise Invalid("this session token is of another namespace")
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            while True:
                space.check_usable()
                if all(_shows(space, head) for head in seen.heads):
                    return
                await engine.progress.wait()
    except TimeoutError:
        missing = sum(not _shows(space, head) for head in seen.heads)
        raise StaleRead(
            f"what this session has seen is not here after {timeout_ms} ms: changes of "
            f"{missing} writers are missing; read elsewhere, or wait longer",
            have=0,
            staleness_ms=None,
        ) from None


def _shows(space: "Space", head: _Head) -> bool:
    """Tell whether a change is applied; raises `HistoryDiverged`."""
    engine, actor = space.engine, ActorId(head.actor)
    here = engine.keeper.hash16_at(actor, head.seq)
    if here is not None and head.hash8 and here[:_HASH_BYTES] != head.hash8:
        known = engine.keeper.branches.get(actor, {})
        if not any(BatchId(name)[:_HASH_BYTES] == head.hash8 for name in known):
            raise HistoryDiverged(
                "what this session has seen was taken back: its author wrote another "
                "history"
            )
    state = engine.delivery.applied.get(actor)
    return state is not None and state.seq >= head.seq


def _parse(token: str) -> _Seen:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if len(raw) > TOKEN_BYTES_MAX:
            raise Invalid("this is no session token: it is too long")
        return _decoder.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid("this is no session token; `space.token()` gives one") from None
