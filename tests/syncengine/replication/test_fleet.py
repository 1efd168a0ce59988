"""What an operator decides about a fleet, and what hubs answer."""

# pyright: reportPrivateUsage=false

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import syncengine
import transport
from syncengine import AlreadyExists, Fleet, HubLoad, Invalid, NotFound, Refused
from syncengine.ids import DeviceId, base32, parse_namespace_id
from syncengine.replication.address import Address
from tests.syncengine.replication.test_moving import spaces, stage, until
from tests.wires import meet

HUBS = [DeviceId(bytes([n]) * 32) for n in range(4)]
IDS = [base32(hub) for hub in HUBS]


def address(number: int, url: str = "ws://hub") -> str:
    return str(Address(f"{url}{number}", HUBS[number], bytes([number]) * 16))


@pytest.fixture
async def fleet(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Fleet]:
    async with syncengine.open(":memory:") as replica:
        # The ids above are no keys of anybody's.
        def is_good_key(*_: object) -> bool:
            return True

        monkeypatch.setattr(type(replica.scheme), "is_good_key", is_good_key)
        made = Fleet(await replica.namespace("fleet"))
        await made.found(16)
        yield made


def counts(fleet: Fleet) -> list[int]:
    now = fleet.placement
    return [len(now.partitions_of(hub.device)) for hub in now.hubs]


async def test_the_first_hub_keeps_everything_and_others_get_their_share(
    fleet: Fleet,
) -> None:
    await fleet.add(address(0))
    assert counts(fleet) == [16]
    await fleet.add(address(1), weight=3)
    assert counts(fleet) == [4, 12]
    assert fleet.imbalance() == 1.0
    assert fleet.placement.number == 3


async def test_whoever_leaves_keeps_nothing(fleet: Fleet) -> None:
    for number in range(4):
        await fleet.add(address(number))
    before = fleet.placement
    after = await fleet.remove(IDS[2])

    assert counts(fleet) in ([6, 5, 5], [5, 6, 5], [5, 5, 6])
    stayed = [
        partition
        for partition in range(16)
        if before.hubs[before.homes[partition]].device
        == after.hubs[after.homes[partition]].device
    ]
    assert len(stayed) == 12


async def test_a_partition_is_moved_and_evened_out_again(fleet: Fleet) -> None:
    for number in range(2):
        await fleet.add(address(number))
    for partition in range(16):
        await fleet.move(partition, IDS[1])
    assert counts(fleet) == [0, 16]
    assert fleet.imbalance() == 2.0
    await fleet.balance()
    assert counts(fleet) == [8, 8]


async def test_load_evens_out_bytes(fleet: Fleet) -> None:
    for number in range(2):
        await fleet.add(address(number))
    mine = fleet.placement.partitions_of(HUBS[0])
    load = {
        IDS[0]: HubLoad(3, 0, 0, dict.fromkeys(mine, (5, 1000000))),
        IDS[1]: HubLoad(3, 0, 0, {}),
    }
    assert load[IDS[0]].bytes == 8_000_000
    assert load[IDS[0]].namespaces == 40
    assert fleet.imbalance(load) == 2.0
    await fleet.balance(load)
    assert fleet.imbalance(load) <= 1.25  # of 8 MB, 5 and 3; empty ones weigh, too


async def test_an_address_or_a_weight_changes_in_place(fleet: Fleet) -> None:
    await fleet.add(address(0))
    await fleet.add(address(1))
    await fleet.add(address(0, "wss://new"), weight=1)

    hub = fleet.placement.hub(HUBS[0])
    assert hub is not None
    assert hub.url == "wss://new0"
    assert counts(fleet) == [8, 8]
    grants = fleet.space.engine.keeper.membership.grants.values()
    assert [grant.subject for grant in grants].count(HUBS[0]) == 1


async def test_what_changes_nothing_is_not_written(fleet: Fleet) -> None:
    await fleet.add(address(0))
    before = fleet.placement
    await fleet.balance()
    await fleet.add(address(0))
    await fleet.move(3, IDS[0])

    assert fleet.placement == before


async def test_a_namespace_is_found_by_its_id(fleet: Fleet) -> None:
    with pytest.raises(NotFound, match="no hub"):
        fleet.home_of(fleet.space.id)
    await fleet.add(address(0))
    assert fleet.home_of(fleet.space.id) == str(Address("ws://hub0", HUBS[0]))
    with pytest.raises(Invalid):
        fleet.home_of("nothing")


async def test_bad_input_says_what_to_do(fleet: Fleet) -> None:
    await fleet.add(address(0))
    before = fleet.placement
    other = Fleet(await fleet.space._replica.namespace("other"))
    with pytest.raises(AlreadyExists):
        await fleet.found()
    with pytest.raises(NotFound, match="found"):
        await other.add(address(1))
    with pytest.raises(Invalid, match="power of two"):
        await other.found(12)
    with pytest.raises(Invalid, match="last hub"):
        await fleet.remove(IDS[0])
    with pytest.raises(NotFound, match="no hub"):
        await fleet.remove(IDS[1])
    with pytest.raises(NotFound, match="no hub"):
        await fleet.move(0, IDS[1])
    with pytest.raises(Invalid, match="0 to 15"):
        await fleet.move(16, IDS[0])
    with pytest.raises(Invalid, match="52 characters"):
        await fleet.move(0, "hub-1")
    with pytest.raises(Invalid, match="weight"):
        await fleet.add(address(1), weight=0)
    with pytest.raises(Invalid, match="copy the whole"):
        await fleet.add("ws://hub1")
    with pytest.raises(Invalid, match="too long"):
        await fleet.add(str(Address("ws://" + "h" * 300, HUBS[1])))
    assert fleet.placement == before


async def test_only_the_operator_decides(tmp_path: Path) -> None:
    async with (
        syncengine.open(":memory:") as one,
        syncengine.open(":memory:") as other,
    ):
        fleet = Fleet(await one.namespace("fleet"))
        await fleet.found()
        space = await other.join(await fleet.space.invite("write"))
        unknown = str(Address("ws://hub", DeviceId(other.key.public)))
        await meet(fleet.space, space)
        with pytest.raises(Refused, match="operator"):
            await Fleet(space).add(unknown)
        await fleet.space.grant_device(other.id, "admin")
        await meet(fleet.space, space)
        async with (
            syncengine.open_hub(tmp_path / "h.db", fleet=fleet.space.id) as hub,
            transport.serve(hub) as server,
        ):
            await Fleet(space).add(server.address)
            assert len(Fleet(space).placement.hubs) == 1


async def test_hubs_say_what_they_keep(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, "a", "b", "c") as here,
        syncengine.open(":memory:") as ann,
    ):
        teams = await spaces(ann, 9)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        async with transport.connect(here.operator, here.servers["b"].address) as link:
            await link.synced()
            await until(
                lambda: all(
                    hub.moves is not None
                    and hub.moves.placement() == here.fleet.placement
                    for hub in here.hubs.values()
                )
            )
            load = await here.fleet.ask_load()

        fleet_id = parse_namespace_id(here.fleet.space.id)
        assert set(load) == {base32(hub.id) for hub in here.hubs.values()}
        assert sum(each.namespaces for each in load.values()) == len(teams)
        for name, hub in here.hubs.items():
            kept = load[base32(hub.id)]
            mine = [space for space in teams if here.home(space) == name]
            assert kept.namespaces == len(mine)
            assert kept.bytes == sum(
                relay.log_bytes()
                for relay in hub.relays()
                if relay.keeper.namespace != fleet_id
            )
            assert (kept.moving, kept.kept) == (0, 0)
            assert kept.number == here.fleet.placement.number


async def test_who_does_not_answer_is_left_out(fleet: Fleet) -> None:
    await fleet.add(address(0))

    assert await fleet.ask_load(within=0.05) == {}


async def test_a_hub_needs_the_id_of_its_fleet() -> None:
    with pytest.raises(Invalid, match="namespace's id"):
        syncengine.open_hub(":memory:", fleet="my fleet")
    with pytest.raises(Invalid, match="keep_moved"):
        syncengine.open_hub(":memory:", keep_moved=-1.0)
