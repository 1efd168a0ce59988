"""A session's token is text that comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine import Invalid
from syncengine.ids import EntryId
from syncengine.replication.tokens import Token

COUNTS = st.integers(0, 2**63)
TOKENS = st.builds(
    Token,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=32, max_size=32).map(EntryId),
    COUNTS,
    COUNTS,
    st.binary(min_size=16, max_size=16),
)


@given(TOKENS)
def test_a_token_is_read_as_it_was_written(token: Token) -> None:
    assert Token.parse(token.encode()) == token


@given(st.text(max_size=100))
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no session token"):
        Token.parse(text)
