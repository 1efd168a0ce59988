"""A session's token is short, and whoever has reached it shows no less."""

import asyncio
import random

import pytest

from syncengine import Invalid, StaleRead
from syncengine.replication.sessions import TOKEN_BYTES_MAX
from tests.wires import meet, two_members


async def test_what_was_seen_is_waited_for() -> None:
    async with two_members() as (one, other):
        async with one.transaction() as tx:
            tx["note/1"]["title"] = "seen"
        token = one.token()
        await one.reached(token)
        with pytest.raises(StaleRead, match="1 writers"):
            await other.reached(token, timeout_ms=20)
        waiting = asyncio.create_task(other.reached(token))
        await meet(one, other)
        await waiting
        assert (await other.get("note/1"))["title"] == "seen"


async def test_one_token_stands_for_all_that_was_known() -> None:
    chance = random.Random(5)
    async with two_members() as (one, other):
        for number in range(40):
            space = chance.choice((one, other))
            async with space.transaction() as tx:
                tx[f"note/{chance.randint(1, 5)}"]["n"] = number
            if chance.random() < 0.2:
                await meet(one, other)
        await meet(one, other)
        async with one.transaction() as tx:
            tx["note/1"]["n"] = "last"

        token = one.token()
        assert len(token) < 100  # one head, whatever was before
        with pytest.raises(StaleRead):
            await other.reached(token, timeout_ms=20)
        await meet(one, other)
        await other.reached(token)
        await one.reached(other.token())


async def test_other_text_is_refused() -> None:
    async with two_members() as (one, _):
        for text in ("", "x", "nonsense!", "A" * TOKEN_BYTES_MAX * 2):
            with pytest.raises(Invalid, match="no session token"):
                await one.reached(text)
        strange = await one._replica.namespace("else")  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Invalid, match="another namespace"):
            await one.reached(strange.token())
