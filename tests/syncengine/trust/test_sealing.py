"""Sealed frames open once, in order, and never otherwise (S4)."""

import pytest

from syncengine import limits
from syncengine.trust.sealing import Exchange, Sealer, derive

KEY = bytes(range(32))


def test_frames_open_in_order() -> None:
    out, back = Sealer(KEY), Sealer(KEY)

    assert [back.open(out.seal(m, b"a"), b"a") for m in (b"1", b"2")] == [b"1", b"2"]


@pytest.mark.parametrize("fault", ["replayed", "dropped", "flipped", "other aad"])
def test_anything_else_does_not_open(fault: str) -> None:
    out, back = Sealer(KEY), Sealer(KEY)
    first, second = out.seal(b"1", b"a"), out.seal(b"2", b"a")
    assert back.open(first, b"a") == b"1"
    frame, aad = {
        "replayed": (first, b"a"),
        "dropped": (out.seal(b"3", b"a"), b"a"),
        "flipped": (bytes([second[0] ^ 1]) + second[1:], b"a"),
        "other aad": (second, b"b"),
    }[fault]

    assert back.open(frame, aad) is None


def test_keys_change_at_the_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REKEY_FRAMES", 3)
    out, back = Sealer(KEY), Sealer(KEY)
    frames = [out.seal(b"same", b"") for _ in range(8)]

    assert [back.open(frame, b"") for frame in frames] == [b"same"] * 8
    assert len(set(frames)) == 8


def test_both_sides_agree_and_a_degenerate_key_is_refused() -> None:
    one, two = Exchange(b"1" * 32), Exchange(b"2" * 32)

    assert one.shared(two.public) == two.shared(one.public)
    with pytest.raises(ValueError, match=r"."):
        one.shared(bytes(32))
    assert derive(b"s", salt=b"a", info=b"x") != derive(b"s", salt=b"a", info=b"y")
