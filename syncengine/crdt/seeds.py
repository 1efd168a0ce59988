"""Seeds: content that several may bring into a document, and that is there once.

A seed is named by what it says: its operations are those of a *virtual actor*, whose
name is a hash of the document, a key and the content, and none of them has seen
anything. So the same seed from two devices is the same operations. Whoever has seen a
change that carries a seed has seen the seed.

Of several seeds of one key (the source was changed in between) one shows: that whose
earliest carrying change is least in `(hlc, actor, seq)`. The others count for
positions and show nothing, as if void. When an earlier carrier comes in late, another
seed shows, and the document is made anew from the log.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.operation import Action, InvalidOperation, UnknownOperation
from syncengine.ids import ActorId, DocumentId, Stamp

_LABEL = b"sync1:seed\0"

# What a seed may say: what makes content. It neither deletes nor holds another seed.
_MAKING = frozenset(
    {
        Action.TOUCH,
        Action.SET,
        Action.MAKE,
        Action.INCREMENT,
        Action.ADD,
        Action.TEXT_INSERT,
        Action.LIST_INSERT,
        Action.LIST_MAKE,
        Action.MULTI_SET,
    }
)


class Seed(NamedTuple):
    """One seed that a document knows."""

    key: str
    n: int
    """How many seqs its operations take."""
    first: Stamp
    """Its earliest carrying change."""
    carriers: Mapping[ActorId, int]
    """actor -> the seq of the first change of it that carries the seed"""
    shows: bool

    def carried_by(self, stamp: Stamp) -> "Seed":
        """Return the seed after one more change was found to carry it."""
        _, actor, seq = stamp
        carriers = {**self.carriers, actor: min(seq, self.carriers.get(actor, seq))}
        return self._replace(first=min(self.first, stamp), carriers=carriers)


def actor_of(document: DocumentId, key: str, content: Any) -> ActorId:
    """Return a seed's virtual actor; raises `InvalidOperation` for what is none."""
    if not values.is_list(content) or not content:
        raise InvalidOperation("a seed is a list of operations")
    for op in content:
        if not values.is_list(op) or not op or type(op[0]) is not int:
            raise InvalidOperation("an operation of a seed is [action, ...]")
        if op[0] not in _MAKING:
            if op[0] in Action._value2member_map_:
                raise InvalidOperation("a seed makes content, and does nothing else")
            raise UnknownOperation(f"action {op[0]} in a seed")
    said = hashlib.sha256(values.encode(content)).digest()
    named = _LABEL + document.encode() + b"\0" + key.encode() + b"\0" + said
    return ActorId(hashlib.sha256(named).digest()[:16])


def seen_with(seeds: Mapping[ActorId, Seed], seen: Mapping[ActorId, int]) -> Any:
    """Return `seen` with the seeds that came with what was seen."""
    found: dict[ActorId, int] | None = None
    for name, seed in seeds.items():
        for actor, seq in seed.carriers.items():
            if seen.get(actor, 0) >= seq:
                found = dict(seen) if found is None else found
                found[name] = seed.n
                break
    return seen if found is None else found


def shown(seeds: Mapping[ActorId, Seed], key: str) -> ActorId | None:
    """Return the seed of `key` that shows."""
    for name, seed in seeds.items():
        if seed.key == key and seed.shows:
            return name
    return None


def first(seeds: Mapping[ActorId, Seed], key: str) -> ActorId:
    """Return the seed of `key` that is to show, of those that are known."""
    return min((seed.first, name) for name, seed in seeds.items() if seed.key == key)[1]


def decode(raw: list[Any]) -> Seed:
    """Invert the encoding of a seed, as an array of its fields."""
    key, n, (hlc, actor, seq), carriers, shows = raw
    found = {ActorId(carrier): at for carrier, at in carriers.items()}
    return Seed(key, n, (hlc, ActorId(actor), seq), found, shows)
