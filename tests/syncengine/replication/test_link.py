"""Links between replicas and hubs over pipes: grants, invites, refusals, clones."""

# pyright: reportPrivateUsage=false

import asyncio
import math
import os
import zlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import syncengine
import transport
from syncengine import (
    AlreadyExists,
    Hub,
    Invalid,
    InviteExpired,
    InviteUsed,
    Refused,
    Replica,
    limits,
)
from syncengine.errors import ProtocolError
from syncengine.ids import ActorId, DeviceId, DocumentId, NamespaceId, base32
from syncengine.log.batch import NO_BATCH, seal, split_payload
from syncengine.log.change import Change, Touch
from syncengine.log.run import decode_rows
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Data, Frontier, Idle
from syncengine.replication.address import Address
from syncengine.replication.backoff import Backoff
from syncengine.replication.conversation import Dialling
from syncengine.replication.keeper import Cursor
from syncengine.replication.link import Link
from syncengine.replication.peer import Channel
from syncengine.system import SystemEntropy
from tests.wires import Wire


@pytest.fixture
async def hub(tmp_path: Path) -> Any:
    async with syncengine.open_hub(str(tmp_path / "hub.db")) as opened:
        yield opened


@pytest.fixture
async def founder(tmp_path: Path) -> Any:
    async with syncengine.open(str(tmp_path / "a.db")) as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "first"
        yield replica


async def equal(*replicas: Replica) -> None:
    """Wait until all replicas have applied the same."""
    async with asyncio.timeout(10):
        while True:
            versions = [r.spaces()[0].engine.delivery.version() for r in replicas]
            if all(version == versions[0] for version in versions):
                return
            await asyncio.sleep(0.01)


async def test_an_invited_device_has_everything(hub: Hub, founder: Replica) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        await link.synced()
        invite = await founder.spaces()[0].invite("write", hub=str(link.address))
        await link.synced()
        space = await other.join(invite, name="home")
        async with wire.link(other) as theirs:
            await theirs.synced()
            assert (await space.get("note/1"))["title"] == "first"
            async with space.transaction() as tx:
                tx["note/1"]["title"] = "second"
            await tx.receipt.durable_on("hub")
            await equal(founder, other)
    assert (await founder.spaces()[0].get("note/1"))["title"] == "second"


async def test_two_replicas_need_no_hub(founder: Replica) -> None:
    wire = Wire(founder)
    async with syncengine.open(":memory:") as other:
        invite = await founder.spaces()[0].invite("write")
        space = await other.join(str(invite))
        async with space.transaction() as tx:
            tx["note/2"]["title"] = "offline"
        async with wire.link(other) as link:
            await link.synced()
            await equal(founder, other)
            assert (await founder.spaces()[0].get("note/2"))["title"] == "offline"


async def test_synced_is_with_what_the_other_wrote_before(founder: Replica) -> None:
    """Nobody was there to seal it for."""
    wire = Wire(founder)
    space = founder.spaces()[0]
    async with syncengine.open(":memory:") as other:
        theirs = await other.join(await space.invite("write"))
        for number in range(3):
            async with space.transaction() as tx:
                tx["note/1"]["title"] = f"{number}"
            async with wire.link(other) as link:
                await link.synced()
            assert (await theirs.get("note/1"))["title"] == f"{number}"


async def test_an_invite_is_used_once_and_the_other_is_told(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    async with (
        syncengine.open(":memory:") as first,
        syncengine.open(":memory:") as second,
        wire.link(founder) as link,
    ):
        invite = await founder.spaces()[0].invite("write")
        await link.synced()
        for replica in (first, second):
            await replica.join(invite)
        async with wire.link(first) as one:
            await one.synced()
        async with wire.link(second) as two:
            with pytest.raises(InviteUsed, match="before"):
                await two.synced()
            assert [state async for state in two.states()] == ["refused"]


async def test_an_expired_invite_is_told_here_and_there(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        invite = await founder.spaces()[0].invite(expires=timedelta(milliseconds=30))
        await link.synced()
        await asyncio.sleep(0.05)
        with pytest.raises(InviteExpired):
            await other.join(invite)
        other.clock.hub_offset_ms = -60_000
        await other.join(invite)
        async with wire.link(other) as theirs:
            with pytest.raises(InviteExpired, match="new one"):
                await theirs.synced()


async def test_a_reader_cannot_write_here_nor_at_the_hub(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as reader, wire.link(founder) as link:
        invite = await founder.spaces()[0].invite("read")
        await link.synced()
        space = await reader.join(invite)
        async with wire.link(reader) as theirs:
            await theirs.synced()
            assert (await space.get("note/1"))["title"] == "first"
            with pytest.raises(Refused, match="read but not write"):
                async with space.transaction() as tx:
                    tx["note/1"]["title"] = "mine"
            # One whose program is changed to write all the same:
            forged = _forged(reader, space.engine.actor)
            space.engine.keeper.append_own(forged)
            await asyncio.shield(space.engine.flush())
            async with asyncio.timeout(5):
                while theirs.state == "live":
                    await asyncio.sleep(0.01)
    stored = hub.find(founder.spaces()[0].engine.keeper.namespace)
    assert stored is not None
    assert forged.header.actor not in stored.keeper.heads


def _forged(replica: Replica, actor: Any, document: str = "note/1") -> Any:
    engine = replica.spaces()[0].engine
    assert engine.grant is not None
    head = engine.keeper.heads.get(actor)
    change = Change(
        actor,
        head.seq + 1 if head else 1,
        engine.clock.tick(),
        [],
        [Touch(DocumentId(document), [[1, None, "title", "forged"]], 1)],
    )
    return seal(
        replica.key,
        engine.keeper.namespace,
        engine.grant,
        head.id if head else NO_BATCH,
        [change],
        os.urandom(16),
    )


async def test_a_lying_hub_gains_nothing(
    hub: Hub, founder: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    """It stores and forwards a batch that nobody granted; every peer refuses it."""
    wire = Wire(hub)
    async with syncengine.open(":memory:") as reader, wire.link(founder) as link:
        invite = await founder.spaces()[0].invite("read")
        await link.synced()
        space = await reader.join(invite)
        async with wire.link(reader) as theirs:
            await theirs.synced()
        forged = _forged(reader, space.engine.actor)
        relay = hub.find(space.engine.keeper.namespace)
        assert relay is not None
        relay.keeper.append_own(forged)
        await asyncio.shield(relay.flush())
        await asyncio.sleep(0.1)

        assert "may only read" in caplog.text
        assert forged.header.actor not in founder.spaces()[0].engine.keeper.heads
        assert (await founder.spaces()[0].get("note/1"))["title"] == "first"


def nothing(*_: object) -> None: ...


@pytest.mark.parametrize("peer", ["never acknowledges", "never reads"])
async def test_a_peer_that_takes_nothing_is_let_go(
    hub: Hub, founder: Replica, monkeypatch: pytest.MonkeyPatch, peer: str
) -> None:
    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "DATA_BYTES_CUT", 1)
    monkeypatch.setattr(limits, "STALLED_SECONDS", 0.3)
    wire = Wire(hub)
    space = founder.spaces()[0]
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        for number in range(40):
            async with space.transaction() as tx:
                tx["note/1"]["n"] = number
            await tx.receipt.durable_on("hub")
        invite = await space.invite("write")
        await link.synced()
        await other.join(invite)
        if peer == "never reads":
            monkeypatch.setattr(Dialling, "_take_in", forever)
        else:
            monkeypatch.setattr(Dialling, "_stored", nothing)
        async with wire.link(other) as theirs, asyncio.timeout(10):
            listening: Any = None
            async for state in theirs.states():
                if state == "live":
                    (listening,) = (
                        c
                        for c in wire.registry.all
                        if c.device == DeviceId(other.key.public)
                    )
                    break
            assert listening is not None
            while listening.closed is None:
                await asyncio.sleep(0.01)
        assert listening.closed.code == Code.SLOW


async def test_a_peer_is_sent_so_much_before_it_acknowledges(
    hub: Hub, founder: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WINDOW_BYTES", 20_000)
    monkeypatch.setattr(limits, "DATA_BYTES_CUT", 1)
    wire = Wire(hub)
    space = founder.spaces()[0]
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        for _ in range(40):
            async with space.transaction() as tx:
                tx["note/1"]["blob"] = os.urandom(5_000)
            await tx.receipt.durable_on("hub")
        await other.join(await space.invite("write"))
        await link.synced()
        monkeypatch.setattr(Dialling, "_stored", nothing)
        async with wire.link(other) as theirs, asyncio.timeout(10):
            async for state in theirs.states():
                if state == "live":
                    break
            (channel,) = (
                channel
                for c in wire.registry.all
                for channel in c.channels.values()
                if c.device == DeviceId(other.key.public)
            )
            while channel.stalled_at == math.inf:
                await asyncio.sleep(0.01)
            # The last message may be the one that fills it.
            assert 20_000 <= channel._window_bytes < 26_000


async def test_what_is_on_its_way_is_not_asked_for(founder: Replica) -> None:
    """Else a listener that takes a while to begin sends everything twice."""
    engine = founder.spaces()[0].engine
    await engine.flush()
    keeper = engine.keeper
    channel = Channel(0, engine, DeviceId(bytes(32)), may_read=True)
    channel.begin(
        theirs=(keeper.position, keeper.chain),
        ours=Cursor(7, bytes(8)),
        position=9,
        digest=b"another's".ljust(32),
        told=(keeper.position, keeper.digest()),
    )
    assert channel.next_message() is None
    channel.idle_received(Idle(0, (9, bytes(8)), b"another's".ljust(32)))
    assert isinstance(channel.next_message(), Frontier)


async def test_what_inflates_too_far_is_not_inflated(
    hub: Hub, founder: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INFLATED_BYTES_MAX", 100_000)
    engine = founder.spaces()[0].engine
    channel = Channel(0, engine, DeviceId(bytes(32)), may_read=True)
    bomb = zlib.compress(bytes(10_000_000), 9)
    with pytest.raises(ProtocolError, match="inflate too far") as caught:
        channel.rows_of(Data(0, (1, bytes(8)), None, True, bomb))
    assert caught.value.code == Code.TOO_LARGE


async def test_what_inflates_to_empty_maps_costs_nothing(hub: Hub) -> None:
    """An untyped decoder makes 64 bytes of each."""
    import tracemalloc

    body = msgspec.msgpack.encode([[1, {}] for _ in range(200_000)])
    tracemalloc.start()
    with pytest.raises(ValueError, match="malformed"):
        decode_rows(NamespaceId(bytes(32)), body)
    with pytest.raises(ValueError, match="payload"):
        split_payload(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100_000


async def test_a_stranger_is_refused_with_a_reason(hub: Hub, founder: Replica) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as stranger:
        await stranger.namespace("own")
        address = Address("ws://memory", DeviceId(hub.key.public), None)
        link = Link(
            stranger, wire.dial, address, lambda: [s.engine for s in stranger.spaces()]
        )
        async with link:
            with pytest.raises(Refused, match="ticket"):
                await link.synced()


@pytest.mark.parametrize("host", ["hub", "replica"])
async def test_a_link_that_waits_for_its_only_namespace_says_why(
    hub: Hub, founder: Replica, host: str
) -> None:
    async with syncengine.open(":memory:") as other, asyncio.timeout(10):
        if host == "hub":
            await other.join(await founder.spaces()[0].invite("write"))
            wire, why = Wire(hub), "it will once the device that made it connects"
        else:
            await other.namespace("mine")
            wire, why = Wire(founder), "this replica does not hold that namespace"
        async with wire.link(other) as link:
            async for state in link.states():
                if state == "waiting":
                    break
            assert why in str(link.error)


async def test_a_namespace_that_must_wait_does_not_hold_up_the_others(
    hub: Hub, founder: Replica
) -> None:
    """The device that made the invite has not told the hub yet."""
    wire = Wire(hub)
    other = await founder.namespace("other")
    async with syncengine.open(":memory:") as device:
        home = founder.spaces()[0]
        home_invite = await home.invite("write")
        async with wire.link(founder) as link:
            await link.synced()
        late_invite = await other.invite("write")
        mine = await device.join(home_invite, name="home")
        late = await device.join(late_invite, name="other")
        async with wire.link(device) as link:
            await link.connected()
            async with mine.transaction() as tx:
                tx["note/2"]["title"] = "at once"
            await tx.receipt.durable_on("hub")
            assert link.state == "live"
            assert "has not arrived here yet" in str(link.error)
            async with asyncio.timeout(20), wire.link(founder) as theirs:
                await theirs.synced()
                await link.synced()
            assert link.state == "live"
        assert late.engine.keeper.membership.genesis is not None


async def test_a_namespace_that_is_refused_is_told_after_the_others(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as device:
        home = founder.spaces()[0]
        once = await home.invite("write", uses=1)
        async with wire.link(founder) as link:
            await link.synced()
        async with syncengine.open(":memory:") as first:
            await first.join(once)
            async with wire.link(first) as link:
                await link.synced()
        own = await device.namespace("own")
        await device.join(once, name="used")
        async with wire.link(device) as link:
            with pytest.raises(InviteUsed):
                await link.synced()
            relay = hub.find(own.engine.keeper.namespace)
            assert relay is not None
            assert relay.keeper.digest() == own.engine.keeper.digest()
            assert link.state == "live"


async def test_a_link_reconnects_by_itself(hub: Hub, founder: Replica) -> None:
    wire = Wire(hub)
    space = founder.spaces()[0]
    async with wire.link(founder) as link:
        await link.synced()
        wire.plugged = False
        await wire.cut()
        while link.state == "live":
            await asyncio.sleep(0.01)
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "offline"
        assert space.pending == 1
        wire.plugged = True
        async with asyncio.timeout(20):
            await tx.receipt.durable_on("hub")
    assert space.pending == 0


async def test_the_other_end_of_the_wire_must_be_the_hub_we_mean(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    wrong = Address("ws://memory", DeviceId(founder.key.public), None)
    link = Link(founder, wire.dial, wrong, lambda: [])
    async with link:
        with pytest.raises(Refused, match="another hub answers"):
            await link.connected()


async def test_an_equivocating_actor_is_proved_and_voided_everywhere(
    hub: Hub, founder: Replica
) -> None:
    """Two histories under one actor: both without effect, on every replica."""
    wire = Wire(hub)
    space = founder.spaces()[0]
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        invite = await space.invite("write")
        await link.synced()
        theirs = await other.join(invite)
        async with theirs.transaction() as tx:
            tx["note/2"]["title"] = "good"
        async with wire.link(other) as one:
            await one.synced()
            actor = theirs.engine.actor
            assert actor is not None
            await equal(founder, other)
            left, right = _two_histories(other, actor)
            relay = hub.find(space.engine.keeper.namespace)
            assert relay is not None
            await relay.take_in([left])
            await asyncio.shield(relay.flush())
            await space.engine.take_in([right])
            await asyncio.shield(space.engine.flush())
            async with asyncio.timeout(10):
                while not (
                    actor in space.engine.keeper.forks
                    and actor in theirs.engine.keeper.forks
                ):
                    await asyncio.sleep(0.02)
            await equal(founder, other)
            for shown in (space, theirs):
                assert (await shown.get("note/1"))["title"] == "first"
                assert (await shown.get("note/2"))["title"] == "good"
            # Its owner goes on under a new actor, and is heard.
            assert theirs.engine.actor != actor
            async with theirs.transaction() as tx:
                tx["note/2"]["title"] = "better"
            await equal(founder, other)
    assert (await space.get("note/2"))["title"] == "better"


def _two_histories(replica: Replica, actor: ActorId) -> tuple[Any, Any]:
    return _forged(replica, actor), _forged(replica, actor)


async def test_no_address_and_no_invite_says_what_to_do(founder: Replica) -> None:
    with pytest.raises(Invalid, match="address"):
        transport.connect(founder)


def test_the_first_wait_has_a_wide_window() -> None:
    waits = [Backoff(SystemEntropy()).next_seconds() for _ in range(200)]

    assert max(waits) <= 1.0
    assert max(waits) - min(waits) > 0.5
    assert Backoff(SystemEntropy()).next_seconds(5_000) >= 5.0


async def test_joining_with_adopt_brings_the_local_documents(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        mine = await other.namespace("home")
        async with mine.transaction() as tx:
            page = tx["note/9"]
            page["title"] = "mine"
            page.counter("n").increment(2)
            page.text("body").insert(0, "text")
            page["tree"] = {"a": [1, {"b": 2}]}
        shown = (await mine.get("note/9")).to_dict()
        invite = await founder.spaces()[0].invite("write")
        await link.synced()
        space = await other.join(invite, name="home", adopt=True)
        assert (await space.get("note/9")).to_dict() == shown
        assert space.name == "home"

        # Again, as after a crash in the middle: nothing is there twice.
        await other.join(invite, name="home", adopt=True)
        assert (await space.get("note/9")).to_dict() == shown
        # And into another namespace: the name is free again.
        async with syncengine.open(":memory:") as third:
            await third.namespace("home")
            second = await (await third.namespace("more")).invite("write")
        await other.join(second, name="home", adopt=True)
        assert {made.name for made in other.spaces()} == {
            "home", f"home (before joining {space.id[:8]})",
            f"home (before joining {base32(second.namespace)[:8]})",
        }  # fmt: skip
        with pytest.raises(AlreadyExists, match="before joining"):
            await other.join(invite, name="wrong")


async def test_a_reader_brings_nothing_along(founder: Replica) -> None:
    invite = await founder.spaces()[0].invite("read")
    async with syncengine.open(":memory:") as other:
        await other.namespace("home")
        with pytest.raises(Invalid, match="ask for one to write"):
            await other.join(invite, name="home", adopt=True)
        assert [space.name for space in other.spaces()] == ["home"]


@pytest.mark.parametrize("ops", ["read", "write"])
async def test_a_fresh_invite_helps_who_came_too_late(
    hub: Hub, founder: Replica, ops: str
) -> None:
    """What was written while waiting arrives; the used invite gives nothing more."""
    wire = Wire(hub)
    home = founder.spaces()[0]
    async with syncengine.open(":memory:") as other, wire.link(founder) as link:
        used = await home.invite("write")
        fresh = await home.invite("write")
        await link.synced()
        async with syncengine.open(":memory:") as first:
            await first.join(used)
            async with wire.link(first) as theirs:
                await theirs.synced()
        space = await other.join(used, name="home")
        async with space.transaction() as tx:
            tx["note/2"]["title"] = "waited"
        async with wire.link(other) as late:
            with pytest.raises(InviteUsed):
                await late.synced()
        if ops == "read":
            invite = await home.invite("read")
            await link.synced()
        else:
            invite = fresh
        assert await other.join(invite) is space
        async with wire.link(other) as late:
            await late.synced()
            assert (await space.get("note/1"))["title"] == "first"
            assert space.grant is not None
            assert space.grant.ops == invite.ops
            if ops == "write":
                await equal(founder, other)
                assert (await home.get("note/2"))["title"] == "waited"
            else:
                assert space.pending == 1, "kept, and shown to nobody"
                assert late.state == "live"
                with pytest.raises(Refused, match="may read but not write"):
                    async with space.transaction() as tx:
                        tx["note/2"]["title"] = "more"


@pytest.mark.parametrize("how", ["a fresh invite", "the recovery key"])
async def test_a_restored_backup_is_let_in_again(
    hub: Hub, founder: Replica, tmp_path: Path, how: str
) -> None:
    """On a new device, which has another key."""
    wire = Wire(hub)
    home = founder.spaces()[0]
    key = home.recovery_key
    assert key is not None
    async with wire.link(founder) as link:
        fresh = await home.invite("write")
        await link.synced()
        await founder.backup(str(tmp_path / "copy.db"))
        async with syncengine.open(str(tmp_path / "copy.db")) as restored:
            space = restored.spaces()[0]
            async with space.transaction() as tx:
                tx["note/2"]["title"] = "restored"
            async with wire.link(restored) as other:
                with pytest.raises(Refused, match="no grant"):
                    await other.synced()
            if how == "a fresh invite":
                assert await restored.join(fresh) is space
            else:
                assert await restored.recover(key.upper()) is space
                assert (await space.invite("write")).ops
            async with wire.link(restored) as other:
                await other.synced()
                await link.synced()
                await equal(founder, restored)
            assert (await home.get("note/2"))["title"] == "restored"


async def test_nothing_is_sealed_before_it_is_known_what_lets_us_in(
    founder: Replica,
) -> None:
    """A link that dies early leaves what was written to be sent under any grant."""
    home = founder.spaces()[0]
    first, second = await home.invite("write"), await home.invite("write")
    async with syncengine.open(":memory:") as other:
        space = await other.join(first, name="home")
        async with space.transaction() as tx:
            tx["note/2"]["title"] = "waiting"
        link: Any = SimpleNamespace(tell=print)
        space.engine.opened(link)
        await space.engine.flush()
        space.engine.closed(link)
        assert space.pending == 1
        await other.join(second)
        assert (await space.get("note/2"))["title"] == "waiting"
        wire = Wire(founder)
        async with wire.link(other) as there:
            await there.synced()
            await equal(founder, other)
        assert (await home.get("note/2"))["title"] == "waiting"


async def test_an_invite_names_a_hub_or_none(founder: Replica) -> None:
    invite = await founder.spaces()[0].invite("write")
    async with syncengine.open(":memory:") as other:
        with pytest.raises(Invalid, match="ws://"):
            await other.join(replace(invite, address="junk"))
        assert other.spaces() == []


async def test_an_owner_who_lost_everything_but_the_key_comes_back(
    hub: Hub, founder: Replica
) -> None:
    wire = Wire(hub)
    home = founder.spaces()[0]
    assert home.recovery_key is not None
    async with wire.link(founder) as link:
        await link.synced()
    async with syncengine.open(":memory:") as fresh:
        with pytest.raises(Invalid, match="owns none"):
            await fresh.recover(home.recovery_key)
        with pytest.raises(Invalid, match="no recovery key"):
            await fresh.recover("abcd-efgh")
        slip = home.recovery_key[:-1] + ("a" if home.recovery_key[-1] != "a" else "e")
        with pytest.raises(Invalid, match="no recovery key"):
            await fresh.recover(slip, home.id, name="home")
        async with syncengine.open(":memory:") as stranger:
            wrong = (await stranger.namespace("own")).recovery_key
        assert wrong is not None
        await fresh.recover(wrong, home.id, name="home")
        space = await fresh.recover(home.recovery_key, home.id, name="home")
        async with wire.link(fresh) as other:
            await other.synced()
        assert (await space.get("note/1"))["title"] == "first"
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "mine again"
        async with wire.link(fresh) as other, wire.link(founder) as link:
            await other.synced()
            await link.synced()
            await equal(founder, fresh)
        assert (await home.get("note/1"))["title"] == "mine again"
    async with syncengine.open(":memory:") as thief:
        other_key = (await thief.namespace("own")).recovery_key
        assert other_key is not None
        await thief.recover(other_key, home.id, name="home")
        async with wire.link(thief) as link:
            with pytest.raises(Refused):
                await link.synced()
