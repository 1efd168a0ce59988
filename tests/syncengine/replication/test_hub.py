"""Whom a hub admits, and rights that reach everybody through it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import syncengine
from syncengine import Hub, Invalid, Refused, Replica
from syncengine.ids import base32
from tests.wires import Wire


@pytest.fixture
async def founder(tmp_path: Path) -> Any:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "first"
        yield replica


async def is_admitted(hub: Hub, replica: Replica, *, ticket: bool) -> bool:
    wire = Wire(hub)
    link = wire.link(replica)
    if not ticket:
        link.address = replace(link.address, ticket=None)
    async with link, asyncio.timeout(10):
        try:
            await link.synced()
        except Refused:
            return False
    return True


async def test_a_namespace_comes_in_by_the_ticket(founder: Replica) -> None:
    async with syncengine.open_hub(":memory:") as hub:
        assert not await is_admitted(hub, founder, ticket=False)
        assert await is_admitted(hub, founder, ticket=True)
        assert await is_admitted(hub, founder, ticket=False), "it is here now"


async def test_a_namespace_of_anyone_comes_in(founder: Replica) -> None:
    async with syncengine.open_hub(":memory:", admit="anyone") as hub:
        assert hub.ticket is None
        assert await is_admitted(hub, founder, ticket=False)


async def test_a_function_decides_who_comes_in(founder: Replica) -> None:
    space = founder.spaces()[0]
    asked: list[tuple[str, str]] = []

    def decide(namespace: bytes, device: bytes) -> bool:
        asked.append((base32(namespace), base32(device)))
        return len(asked) > 1

    async with syncengine.open_hub(":memory:", admit=decide) as hub:
        assert not await is_admitted(hub, founder, ticket=False)
        assert await is_admitted(hub, founder, ticket=False)
    assert asked == [(space.id, base32(founder.key.public))] * 2


async def test_a_policy_that_is_none_is_told() -> None:
    with pytest.raises(Invalid, match="ticket"):
        await syncengine.open_hub(":memory:", admit="everyone")  # type: ignore[arg-type]


async def test_an_admin_is_granted_and_invites(founder: Replica) -> None:
    space = founder.spaces()[0]
    async with (
        syncengine.open_hub(":memory:") as hub,
        syncengine.open(":memory:") as second,
        syncengine.open(":memory:") as third,
        asyncio.timeout(20),
    ):
        wire = Wire(hub)
        async with wire.link(founder) as link:
            invite = await space.invite("read")
            await link.synced()
            theirs = await second.join(invite)
            async with wire.link(second) as other:
                await other.synced()
                with pytest.raises(Refused, match="admin"):
                    await theirs.invite("write")
                with pytest.raises(Refused, match="read but not write"):
                    async with theirs.transaction() as tx:
                        tx["note/1"]["title"] = "too early"
                await space.grant_device(base32(second.key.public), "admin")
                while not (theirs.grant and theirs.grant.ops & 8):
                    await asyncio.sleep(0.01)
                onward = await theirs.invite("write")
                async with theirs.transaction() as tx:
                    tx["note/1"]["title"] = "by the second"
                await other.synced()
                newest = await third.join(onward)
                async with wire.link(third) as last:
                    async with newest.transaction() as tx:
                        tx["note/2"]["title"] = "by the third"
                    await last.synced()
                    while await space.get("note/2", default=None) is None:
                        await asyncio.sleep(0.01)
        assert (await space.get("note/1"))["title"] == "by the second"


@pytest.mark.parametrize("device", ["nobody", "", "a" * 52, "é"])
async def test_rights_are_granted_to_a_device(founder: Replica, device: str) -> None:
    with pytest.raises(Invalid, match="device"):
        await founder.spaces()[0].grant_device(device)
