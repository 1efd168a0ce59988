"""All handlers of an event are called, whatever one of them does."""

import logging

import pytest

from syncengine import Invalid
from syncengine.replication.telling import Handlers


async def test_functions_and_coroutines_are_called_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    handlers = Handlers(["came", "went"])

    async def slow(what: str) -> None:
        told.append(f"slow {what}")

    def broken(what: str) -> None:
        raise ValueError(what)

    handlers.add("came", slow)
    handlers.add("came", broken)
    handlers.add("came", lambda what: told.append(f"quick {what}"))
    assert handlers.has("came")
    assert not handlers.has("went")
    with caplog.at_level(logging.ERROR):
        await handlers.tell("came", "a")
        await handlers.tell("went", "b")

    assert told == ["slow a", "quick a"]
    assert "a handler of came failed" in caplog.text


def test_an_event_that_there_is_not_is_refused() -> None:
    with pytest.raises(Invalid, match="came, went"):
        Handlers(["came", "went"]).add("gone", print)
