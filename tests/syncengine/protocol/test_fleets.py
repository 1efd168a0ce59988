"""What hubs and operators tell each other is read as it was said, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import limits
from syncengine.protocol.fleets import Load, LoadAsked, decode, encode

LOAD = Load(b"question", 7, 300, 2, 1, [(0, 3, 2**40), (63, 1, 0)])


def test_they_say_what_they_said() -> None:
    assert decode(encode(LOAD)) == LOAD
    assert decode(encode(LoadAsked(b"question"))) == LoadAsked(b"question")


def test_the_largest_fits_into_a_notice() -> None:
    loads = [(4095, 2**31, 2**50)] * limits.LOADS_IN_NOTICE_MAX

    said = encode(Load(b"question", 2**40, 4096, 2**31, 2**31, loads))

    assert len(said) <= limits.NOTICE_BYTES_MAX


@given(st.binary(max_size=200))
def test_anything_else_is_no_notice_of_a_fleet(body: bytes) -> None:
    try:
        said = decode(body)
    except ValueError:
        return
    assert decode(encode(said)) == said


@pytest.mark.parametrize(
    "wrong",
    [b"", b"\x93\x07", encode(LOAD)[:-1], encode(LoadAsked(b"long question"))],
)
def test_what_is_damaged_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="no notice"):
        decode(wrong)
