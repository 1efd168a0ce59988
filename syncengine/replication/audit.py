"""Do two members show the same for the same changes? They compare, and say when not.

A digest of all visible documents travels between members (a hub only hands it on),
signed, and counts for the one who has applied exactly the same. Unequal ones are
halved by document id until one document is named. What this finds is a bug or a
damaged file: an alarm, never a thing to merge.

The digest of a set of documents is the sum of their SHA-256 modulo 2^256 (Bellare and
Micciancio 1997, "AdHash"): any part of it can be made from stored digests. It resists
accidents, not an adversary who chooses documents; members trust each other's content.
"""

import asyncio
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from syncengine import limits, values
from syncengine.clock import Entropy
from syncengine.errors import DivergenceDetected, Invalid
from syncengine.ids import (
    ActorId,
    DeviceId,
    DocumentId,
    EntryId,
    NamespaceId,
    base32,
    parse_document_id,
)
from syncengine.log.delivery import Delivery
from syncengine.protocol.messages import StateDigest
from syncengine.replication.documents import Documents
from syncengine.replication.host import Signal, Told
from syncengine.replication.keeper import Keeper
from syncengine.trust.entry import InvalidEntry, Pending
from syncengine.trust.keys import PrivateKey
from syncengine.trust.membership import Ops

log = logging.getLogger("syncengine")

# Every name of a document lies between these.
FIRST, LAST = "", "\U0010ffff"


class Sum(NamedTuple):
    """The digest of the documents of a range."""

    n: int
    digest: bytes
    middle: DocumentId | None
    """where to halve: the first of the upper half"""


class Applies(Protocol):
    """The engine, as far as an audit looks at it."""

    channels: list[Told]
    delivery: Delivery
    log_grew: Signal

    @property
    def all_on_disk(self) -> bool: ...

    def flush(self) -> object: ...


def applied_digest(version: Mapping[ActorId, int], heads: Iterable[EntryId]) -> bytes:
    """Return what names a set of applied changes, and the members known with it."""
    digest = hashlib.sha256(b"sync1:applied\0")
    for actor, seq in sorted(version.items()):
        digest.update(actor + seq.to_bytes(8, "big"))
    for head in heads:
        digest.update(head)
    return digest.digest()


def signed_bytes(namespace: NamespaceId, message: StateDigest) -> bytes:
    """Return what a member signs of what it shows."""
    fields = (
        *(message.applied, message.low, message.high),
        *(message.count, message.digest),
    )
    return b"sync1:state\0" + namespace + values.encode(fields)


class Audit:
    """Compares one namespace with its other members, in quiet times."""

    def __init__(
        self,
        keeper: Keeper,
        documents: Documents,
        turn: asyncio.Lock,
        entropy: Entropy,
        key: PrivateKey,
        engine: Applies,
    ):
        self._keeper = keeper
        self._documents = documents
        self._turn = turn
        self._entropy = entropy
        self._key = key
        self._engine = engine
        self._compared: bytes | None = None  # the frontier we told or heard agreed
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._task: asyncio.Task[None] | None = None
        self._heard: deque[StateDigest] = deque(maxlen=limits.STATES_WAITING_MAX)
        self._answering: bytes | None = None  # the frontier that `_answers` are for
        self._answers: Counter[DeviceId] = Counter()
        self.found: dict[DocumentId, DivergenceDetected] = {}

    def changed(self) -> None:
        """Something was applied, or somebody came: compare when it is quiet again."""
        if not self._engine.channels:
            return
        loop = asyncio.get_running_loop()
        self._quiet_since = loop.time()
        if self._timer is None:
            # Not all members at once: who hears an equal digest says nothing.
            spread = 1 + self._entropy.bytes(1)[0] / 256
            delay = limits.AUDIT_SECONDS * spread
            self._timer = loop.call_later(delay, self._due, delay)

    def hear(self, message: StateDigest) -> None:
        """A member told what it shows."""
        self._heard.append(message)
        self._work()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _due(self, delay: float) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        left = self._quiet_since + delay - loop.time()
        if left > 0.001:
            self._timer = loop.call_later(left, self._due, delay)
        elif self._engine.channels:
            self._is_due = True
            self._work()

    def _work(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while self._heard or self._is_due:
            if self._heard:
                await self._answer(self._heard.popleft())
            else:
                self._is_due = False
                await self._tell()
        if self._documents.has_new_digests:
            self._engine.flush()

    async def _tell(self) -> None:
        """Say what is shown, when it is quiet and nobody has said the same."""
        applied = self._applied()
        if applied is None or applied == self._compared:
            return
        shown = await self._sum(FIRST, LAST, applied)
        if shown is not None:
            self._compared = applied
            self._say(applied, FIRST, LAST, shown)

    # --- what is compared ---------------------------------------------------------

    def _applied(self) -> bytes | None:
        """Return what names the applied changes; None while something is unsettled."""
        if not self._engine.all_on_disk:
            return None
        version = self._engine.delivery.version()
        return applied_digest(version, self._keeper.membership.heads())

    async def _sum(self, low: str, high: str, applied: bytes) -> Sum | None:
        """Return the digest of the documents in [low, high).

        None when something is applied meanwhile, or was written by a newer version.
        """
        total = 0
        names: list[DocumentId] = []
        after = low
        while True:
            async with self._turn:
                if self._applied() != applied:
                    return None
                page = self._documents.digests(after, high, limits.AUDIT_SLICE)
            if page is None:
                return None
            for name, digest in page:
                total += int.from_bytes(digest, "big")
                names.append(name)
            if len(page) < limits.AUDIT_SLICE:
                break
            after = page[-1][0] + "\0"
            await asyncio.sleep(0)
        middle = names[len(names) // 2] if len(names) > 1 else None
        return Sum(len(names), (total % 2**256).to_bytes(32, "big"), middle)

    # --- talking ------------------------------------------------------------------

    def _say(self, applied: bytes, low: str, high: str, shown: Sum) -> None:
        key = self._key
        message = StateDigest(
            *(0, key.public, applied, low, high), shown.n, shown.digest, bytes(64)
        )
        message = replace(
            message, signature=key.sign(signed_bytes(self._keeper.namespace, message))
        )
        for channel in self._engine.channels:
            channel.tell(message)
        self._engine.log_grew.set()

    def _is_members(self, message: StateDigest) -> bool:
        """Tell whether one who may read signed it: a hub cannot raise an alarm."""
        membership = self._keeper.membership
        author = DeviceId(message.author)
        grant = membership.grant_of(author)
        try:
            may = grant is not None and membership.rights(grant).ops & Ops.READ
        except (Pending, InvalidEntry):
            return False
        return bool(may) and self._keeper.scheme.verify(
            author, signed_bytes(self._keeper.namespace, message), message.signature
        )

    async def _answer(self, message: StateDigest) -> None:
        applied = self._applied()
        if applied is None or applied != message.applied:
            return
        if applied != self._answering:
            self._answering = applied
            self._answers.clear()
        author = DeviceId(message.author)
        if self._answers[author] >= limits.STATES_PER_AUTHOR_MAX:
            return
        if not self._is_members(message):
            return
        self._answers[author] += 1
        low, high = message.low, message.high
        shown = await self._sum(low, high, applied)
        if shown is None:
            return
        if shown.digest == message.digest:
            if (low, high) == (FIRST, LAST):
                self._compared = applied
            return
        self._compared = None  # if this search is cut short, the next one begins anew
        if shown.middle is not None:
            for start, end in ((low, shown.middle), (shown.middle, high)):
                half = await self._sum(start, end, applied)
                if half is not None:
                    self._say(applied, start, end, half)
        elif message.count > 1:
            self._say(applied, low, high, shown)
        else:
            await self._alarm(message, applied, shown)

    async def _alarm(self, message: StateDigest, applied: bytes, shown: Sum) -> None:
        """At most one document is left on each side: name it."""
        low, high = message.low, message.high
        if shown.n:
            page = self._documents.digests(low, high, 1)
            if not page:
                return
            name = page[0][0]
        elif high == low + "\0":
            try:
                name = parse_document_id(low)
            except Invalid:
                return
        else:
            self._say(applied, low, high, shown)  # only the other knows its name
            return
        if name in self.found or len(self.found) >= limits.DIVERGENCES_MAX:
            return
        error = DivergenceDetected(name, base32(message.author)[:8])
        self.found[name] = error
        log.error("%s", error)
        exact = await self._sum(name, name + "\0", applied)
        if exact is not None:
            self._say(applied, name, name + "\0", exact)
