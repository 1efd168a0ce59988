"""Changes in the outbox can be read back."""

from syncengine.ids import DocumentId
from syncengine.log.change import (
    Change,
    Dep,
    Meta,
    Origin,
    Touch,
    decode_change,
    encode_change,
)
from tests.strategies import ACTORS

A, B, *_ = ACTORS


def test_a_change_survives_the_outbox() -> None:
    change = Change(
        A,
        7,
        99 << 16,
        [Dep(B, 4, bytes(16))],
        [Touch(DocumentId("n/1"), [[1, None, "k", "v"], [8, "t", 0, "abc"]], 4)],
        Meta(None, "retry-1", Origin(B, 3, 5)),
    )

    assert decode_change(A, encode_change(change)) == change
    assert (change.n, change.end) == (4, 10)
