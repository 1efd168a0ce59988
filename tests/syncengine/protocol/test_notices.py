"""What members say about leading is read as it was said, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine.protocol.notices import (
    Beat,
    Candidacy,
    Progress,
    Spoken,
    TakeOver,
    Vote,
    decode,
    encode,
)

SAID: list[Spoken] = [
    Beat(bytes(32), 3, "node", bytes(32), 7, True, 9, 8),
    Progress(bytes(32), 3, "node", None, 7, 9, 8, False),
    Candidacy(bytes(32), 3, "node", True, bytes(16), None, (4, bytes(32)), [], False),
    Vote(bytes(32), 3, "node", False, True, bytes(64)),
    TakeOver(bytes(32), 3, "node"),
]


@pytest.mark.parametrize("said", SAID)
def test_what_is_said_is_read(said: Spoken) -> None:
    assert decode(encode(said)) == said


@pytest.mark.parametrize("said", SAID)
def test_a_newer_member_may_say_more(said: Spoken) -> None:
    raw = encode(said)

    assert decode(bytes([raw[0] + 1]) + raw[1:] + b"\xc0") == said


@given(st.binary(max_size=80))
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no notice"):
        decode(raw)
