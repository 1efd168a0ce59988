"""The laws of versions: `join` is a least upper bound in the order of `covers`."""

from hypothesis import given

from syncengine import version
from syncengine.ids import ActorId
from tests.strategies import versions

V = dict[ActorId, int]


@given(versions, versions, versions)
def test_join_is_commutative_associative_idempotent(a: V, b: V, c: V) -> None:
    assert version.join(a, b) == version.join(b, a)
    assert version.join(a, version.join(b, c)) == version.join(version.join(a, b), c)
    assert version.join(a, a) == a


@given(versions, versions)
def test_join_covers_both_and_nothing_less_does(a: V, b: V) -> None:
    joined = version.join(a, b)

    assert version.covers(joined, a)
    assert version.covers(joined, b)
    assert all(seq in (a.get(actor), b.get(actor)) for actor, seq in joined.items())


@given(versions, versions)
def test_growth_is_what_leads_from_one_to_the_join(a: V, b: V) -> None:
    grown = dict(a)
    version.advance(grown, version.growth(a, b))

    assert grown == version.join(a, b)
