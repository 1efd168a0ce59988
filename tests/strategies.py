"""Hypothesis strategies for values, versions and histories."""

from datetime import UTC

from hypothesis import strategies as st

from syncengine.ids import ActorId

ACTORS = [ActorId(bytes([i]) * 16) for i in range(1, 5)]

actors = st.sampled_from(ACTORS)
versions = st.dictionaries(actors, st.integers(1, 50))
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
)
plain_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
    ),
    max_leaves=12,
)
