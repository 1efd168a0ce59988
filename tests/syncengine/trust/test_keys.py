"""When a signature counts: the edge cases that libraries disagree about."""

# pyright: reportPrivateUsage=false

import pytest

from syncengine.trust.keys import _P, _SMALL_ORDER_Y, _Y8, ED25519

_L = 2**252 + 27742317777372353535851937790883648493
KEY = ED25519.private_key(b"k" * 32)

SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little")
    for y in sorted(_SMALL_ORDER_Y)
    for sign in (0, 1)
]


def test_a_good_signature_is_good_and_another_message_is_not() -> None:
    signature = KEY.sign(b"hello")

    assert ED25519.verify(KEY.public, b"hello", signature)
    assert not ED25519.verify(KEY.public, b"hellp", signature)


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_small_order_keys_are_no_keys(key: bytes) -> None:
    """With such a key, some signature holds for almost any message."""
    assert not ED25519.is_good_key(key)
    assert not ED25519.verify(key, b"x", key + bytes(32))


def test_the_list_is_that_of_libsodium() -> None:
    assert len(SMALL_ORDER) == 14


def test_eight_times_the_listed_point_is_the_identity() -> None:
    """The y of order 8 is no typing mistake: computed on the curve itself."""
    d = -121665 * pow(121666, -1, _P) % _P

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        k = d * a[0] * b[0] * a[1] * b[1] % _P
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, _P)
        y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, _P)
        return x % _P, y % _P

    u = (_Y8 * _Y8 - 1) * pow(d * _Y8 * _Y8 + 1, -1, _P) % _P
    x = pow(u, (_P + 3) // 8, _P)
    if x * x % _P != u:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    assert x * x % _P == u
    point = (x, _Y8)
    for _ in range(3):
        point = add(point, point)

    assert point == (0, 1)


def test_non_canonical_keys_are_no_keys() -> None:
    assert not ED25519.is_good_key((_P + 3).to_bytes(32, "little"))
    assert not ED25519.is_good_key(b"short")


def test_a_scalar_beyond_the_group_order_is_refused() -> None:
    signature = KEY.sign(b"x")
    larger = int.from_bytes(signature[32:], "little") + _L
    forged = signature[:32] + larger.to_bytes(32, "little")

    assert not ED25519.verify(KEY.public, b"x", forged)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_small_order_r_is_refused(point: bytes) -> None:
    assert not ED25519.verify(KEY.public, b"x", point + KEY.sign(b"x")[32:])


def test_a_key_hides_itself() -> None:
    assert "private" in repr(KEY)
