"""The chunked text behaves like a str, whatever is done to it."""

import random

import pytest

from syncengine.crdt.sequence import buffer
from syncengine.crdt.sequence.buffer import TextBuffer


@pytest.mark.parametrize("seed", range(60))
def test_edits_equal_those_of_a_plain_string(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "CHUNK_MAX", 8)
    chance = random.Random(seed)
    text, plain = TextBuffer(), ""
    for _ in range(200):
        if plain and chance.random() < 0.45:
            at = chance.randrange(len(plain))
            n = min(len(plain) - at, chance.randint(1, 30))
            text.delete(at, n)
            plain = plain[:at] + plain[at + n :]
        else:
            at = chance.randint(0, len(plain))
            new = "".join(chance.choices("abcdé😀", k=chance.randint(1, 25)))
            text.insert(at, new)
            plain = plain[:at] + new + plain[at:]
        start, stop = sorted(chance.choices(range(len(plain) + 1), k=2))
        assert text.slice(start, stop) == plain[start:stop]
        assert str(text) == plain
        assert text.length == len(plain)


def test_only_changed_chunks_are_named() -> None:
    text = TextBuffer()
    text.insert(0, "x" * 10_000)
    text.changed.clear()
    text.insert(9_999, "y")

    assert len(text.changed) == 1
