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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from syncengine import limits, values
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
        Action.MARK,
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
    if len(content) > limits.SEED_OPERATIONS_MAX:
        raise InvalidOperation(
            f"a seed has at most {limits.SEED_OPERATIONS_MAX} operations"
        )
    for op in content:
        if not values.is_list(op) or not op or type(op[0]) is not int:
            raise InvalidOperation("an operation of a seed is [action, ...]")
        if len(op) > 1 and values.is_list(op[1]):
            raise InvalidOperation("a seed has seen nothing that others made")
        if op[0] not in _MAKING:
            if op[0] in Action._value2member_map_:
                raise InvalidOperation("a seed makes content, and does nothing else")
            raise UnknownOperation(f"action {op[0]} in a seed")
    said = hashlib.sha256(values.encode(content)).digest()
    named = _LABEL + document.encode() + b"\0" + key.encode() + b"\0" + said
    return ActorId(hashlib.sha256(named).digest()[:16])


class Known(Mapping[ActorId, int]):
    """What an author had seen, with the seeds that came with it."""

    def __init__(self, seen: Mapping[ActorId, int], seeds: Mapping[ActorId, Seed]):
        self._seen = seen
        self._seeds = seeds

    def __getitem__(self, actor: ActorId) -> int:
        seed = self._seeds.get(actor)
        if seed is None:
            return self._seen[actor]
        seen = self._seen
        if any(seen.get(other, 0) >= seq for other, seq in seed.carriers.items()):
            return seed.n
        return seen[actor]

    def __iter__(self) -> Iterator[ActorId]:
        yield from self._seen
        yield from (name for name in self._seeds if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def first(seeds: Mapping[ActorId, Seed], names: Iterable[ActorId]) -> ActorId:
    """Return which of the seeds of one key is to show."""
    return min((seeds[name].first, name) for name in names)[1]


def decode(raw: list[Any]) -> Seed:
    """Invert the encoding of a seed, as an array of its fields."""
    key, n, (hlc, actor, seq), carriers, shows = raw
    found = {ActorId(carrier): at for carrier, at in carriers.items()}
    return Seed(key, n, (hlc, ActorId(actor), seq), found, shows)
