"""A fleet of hubs over real sockets: who is sent where, and what moves, and when."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import syncengine
import transport
from syncengine import Fleet, Hub, Replica, Space, limits
from syncengine.errors import Moved, Refused
from syncengine.ids import (
    DeviceId,
    NamespaceId,
    base32,
    parse_namespace_id,
    partition_of,
)
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Open, Refusal
from syncengine.replication.address import Address, parse_address
from syncengine.replication.link import Link
from syncengine.replication.peer import Channel
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from transport.server import Server


class Stage:
    """An operator, and hubs that can be stopped and started again."""

    def __init__(self, folder: Path, operator: Replica, fleet: Fleet):
        self.folder = folder
        self.operator = operator
        self.fleet = fleet
        self.hubs: dict[str, Hub] = {}
        self.servers: dict[str, Server] = {}
        self.ports: dict[str, int] = {}
        self.keep_moved = 0.0

    async def start(self, name: str) -> str:
        """Start a hub; return its address."""
        port = self.ports.get(name, 0)
        hub = await syncengine.open_hub(
            self.folder / f"{name}.db",
            fleet=self.fleet.space.id,
            keep_moved=self.keep_moved,
        )
        self.hubs[name] = hub
        server = transport.serve(hub, port=port)
        self.servers[name] = await server.__aenter__()
        self.ports[name] = server.port
        return server.address

    async def stop(self, name: str) -> None:
        await self.servers[name].close()
        await self.hubs.pop(name).close()

    async def close(self) -> None:
        for name in list(self.hubs):
            await self.stop(name)

    async def add(self, name: str) -> None:
        """Start a hub, bring it the fleet, and give it its share."""
        address = await self.start(name)
        async with transport.connect(self.operator, address) as link:
            await self.fleet.add(address)
            await link.synced()

    async def tell(self, name: str) -> None:
        """Let a hub hear what was decided."""
        async with transport.connect(self.operator, self.servers[name].address) as link:
            await link.synced()

    def keepers(self, space: Space) -> dict[str, bool]:
        """Return which hubs have a namespace, and whether they gave it away."""
        name = parse_namespace_id(space.id)
        return {
            hub: relay.moved is not None
            for hub, host in self.hubs.items()
            if (relay := host.find(name)) is not None
        }

    def home(self, space: Space) -> str:
        address = self.fleet.home_of(space.id)
        return next(n for n, s in self.servers.items() if s.address.startswith(address))


@asynccontextmanager
async def stage(folder: Path, *names: str) -> AsyncGenerator[Stage]:
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(syncengine.open(":memory:"))
        fleet = Fleet(await operator.namespace("fleet"))
        await fleet.found(16)
        here = Stage(folder, operator, fleet)
        stack.push_async_callback(here.close)
        for name in names:
            await here.add(name)
        yield here


async def until(true: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def spaces(replica: Replica, count: int) -> list[Space]:
    found: list[Space] = []
    for number in range(count):
        space = await replica.namespace(f"team {number}")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = f"of {number}"
        found.append(space)
    return found


async def test_new_namespaces_go_to_the_hub_that_keeps_their_partition(
    tmp_path: Path,
) -> None:
    async with (
        stage(tmp_path, "a", "b", "c") as here,
        syncengine.open(":memory:") as ann,
    ):
        teams = await spaces(ann, 12)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            assert link.state == "live"
            homes = {here.home(space) for space in teams}
            assert homes == {"a", "b", "c"}
            for space in teams:
                assert here.keepers(space) == {here.home(space): False}


async def test_what_is_at_home_elsewhere_moves_and_is_deleted_here(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        teams = await spaces(ann, 12)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            assert all(here.keepers(space) == {"a": False} for space in teams)
            await here.add("b")
            await here.tell("a")
            await until(
                lambda: all(
                    here.keepers(space) == {here.home(space): False} for space in teams
                )
            )
            assert {here.home(space) for space in teams} == {"a", "b"}
            # Who was connected goes on where it is now, by itself.
            for space in teams:
                async with space.transaction() as tx:
                    tx["note/1"]["title"] = "later"
            await link.synced()
            assert link.state == "live"


async def everything_home(here: Stage, teams: list[Space]) -> None:
    await until(
        lambda: all(here.keepers(s) == {here.home(s): False} for s in teams), 20
    )


async def test_a_hub_that_is_to_leave_gives_all_away(tmp_path: Path) -> None:
    async with stage(tmp_path, "a", "b") as here, syncengine.open(":memory:") as ann:
        teams = await spaces(ann, 8)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            b = here.hubs["b"].id
            await here.fleet.remove(base32(b))
            await here.tell("a")
            await everything_home(here, teams)
            assert {here.home(space) for space in teams} == {"a"}
            assert len(here.hubs["b"].relays()) == 1  # the fleet's own


async def test_who_was_sent_on_finds_the_way_when_the_first_hub_is_gone(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, "a", "b") as here:
        file = tmp_path / "ann.db"
        async with syncengine.open(file) as ann:
            teams = await spaces(ann, 8)
            async with transport.connect(ann, here.servers["a"].address) as link:
                await link.synced()
            at_b = [space.name for space in teams if here.home(space) == "b"]
            address = here.servers["a"].address
        assert at_b
        await here.stop("a")
        async with (
            syncengine.open(file) as ann,
            transport.connect(ann, address) as link,
        ):
            for name in at_b:
                space = await ann.namespace(str(name))
                async with space.transaction() as tx:
                    tx["note/1"]["title"] = "still there"
                async with asyncio.timeout(10):
                    await tx.receipt.durable_on("hub")
            assert link.state != "live"  # what "a" keeps waits for it


async def test_a_copy_goes_on_after_either_hub_was_stopped(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            for number in range(300):
                async with team.transaction(wait=False) as tx:
                    tx[f"note/{number}"]["body"] = "x" * 20_000
            await link.synced()
        rows = here.hubs["a"].find(parse_namespace_id(team.id)).keeper.position  # type: ignore[union-attr]  # it is there
        await here.add("b")
        partition = partition_of(parse_namespace_id(team.id), 16)
        await here.fleet.move(partition, base32(here.hubs["b"].id))
        await here.tell("a")
        for name in ("b", "a", "b"):
            await asyncio.sleep(0.05)
            await here.stop(name)
            await here.start(name)
        await everything_home(here, [team])
        moved = here.hubs["b"].find(parse_namespace_id(team.id))
        assert moved is not None
        assert moved.keeper.position == rows
        async with syncengine.open(":memory:") as bob:
            async with transport.connect(ann, here.servers["a"].address) as link:
                await link.synced()
                invite = await team.invite("read", hub=here.servers["a"].address)
                await link.synced()
            theirs = await bob.join(invite)
            async with transport.connect(bob) as link, asyncio.timeout(20):
                await link.synced()
            assert theirs.collections() == [("note", 300)]


async def test_a_copy_is_kept_for_a_while_and_looked_at_again(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        here.keep_moved = 1.0
        await here.stop("a")
        await here.start("a")
        teams = await spaces(ann, 6)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            await here.add("b")
            await here.tell("a")
            away = [space for space in teams if here.home(space) == "b"]
            await until(
                lambda: all(here.keepers(s) == {"a": True, "b": False} for s in away)
            )
            await link.synced()
            moves = here.hubs["a"].moves
            assert moves is not None
            assert moves.moving() == (0, len(away))
            await everything_home(here, teams)


async def test_what_comes_back_meanwhile_is_served_again(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        here.keep_moved = 600.0
        await here.stop("a")
        await here.start("a")
        (team,) = await spaces(ann, 1)
        partition = partition_of(parse_namespace_id(team.id), 16)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            a = base32(here.hubs["a"].id)
            await here.add("b")
            b = base32(here.hubs["b"].id)
            await here.fleet.move(partition, b)
            await here.tell("a")
            await until(lambda: here.keepers(team) == {"a": True, "b": False})
            async with team.transaction() as tx:
                tx["note/1"]["title"] = "while it was at b"
            await link.synced()
            await here.fleet.move(partition, a)
            await here.tell("b")
            await until(lambda: here.keepers(team) == {"a": False, "b": True})
            async with team.transaction() as tx:
                tx["note/1"]["title"] = "back at a"
            await link.synced()
            assert link.state == "live"
            assert not link._branches


# --- who may what ----------------------------------------------------------------------


async def test_only_who_showed_a_ticket_is_given_another_hubs(tmp_path: Path) -> None:
    async with stage(tmp_path, "a", "b") as here:
        moves = here.hubs["a"].moves
        assert moves is not None
        placement = here.fleet.placement
        await here.tell("a")
        await until(lambda: moves.placement() == placement)
        ticket = here.hubs["b"].ticket
        name = next(
            bytes([n]) * 32
            for n in range(100)
            if placement.home_of(NamespaceId(bytes([n]) * 32))
            == placement.hub(here.hubs["b"].id)
        )
        for shown, has in (
            (here.hubs["a"].ticket, True),
            (bytes(16), False),
            (None, False),
        ):
            request = Open(
                0, name, None, None, 0, None, bytes(16), 0, None, bytes(32), [], shown
            )
            with pytest.raises(Moved) as raised:
                here.hubs["a"].check_home(request, DeviceId(bytes(32)))
            told = parse_address(raised.value.address)
            assert told.device == here.hubs["b"].id
            assert told.ticket == (ticket if has else None)


async def test_members_and_the_operator_are_no_hubs(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, "a") as here,
        syncengine.open(":memory:") as ann,
        syncengine.open(":memory:") as bob,
    ):
        (team,) = await spaces(ann, 1)
        moves = here.hubs["a"].moves
        assert moves is not None
        name = parse_namespace_id(team.id)
        a = here.hubs["a"].id
        for device in (here.operator.key.public, ann.key.public, bob.key.public):
            assert moves.rights(name, DeviceId(device)) is None
        # Of each other's namespaces hubs have all, of the fleet's what they were granted.
        assert moves.rights(name, a) is not None
        assert moves.rights(moves.fleet, a) is None


async def test_a_hub_that_was_never_in_the_fleet_gets_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        address = here.servers["a"].address
        async with transport.connect(ann, address) as link:
            await link.synced()
        async with syncengine.open_hub(":memory:", fleet=here.fleet.space.id) as other:
            assert other.rights_of_fellow(open_of(team), here.hubs["a"].id) is None
            assert here.hubs["a"].rights_of_fellow(open_of(team), other.id) is None


def open_of(space: Space) -> Open:
    name = parse_namespace_id(space.id)
    return Open(0, name, None, None, 0, None, bytes(16), 0, None, bytes(32))


async def nobody(_: Address) -> Any:
    raise syncengine.ConnectionLost("nobody is there")


@pytest.mark.parametrize(
    ("dialled", "sent_to", "goes"),
    [
        ("wss://one", "wss://two", True),
        ("ws://one", "ws://two", True),
        ("ws://one", "wss://two", True),
        ("wss://one", "ws://two", False),
        ("wss://one", "http://two", False),
        ("wss://one", "", False),
    ],
)
async def test_a_link_goes_nowhere_less_safe(
    dialled: str, sent_to: str, goes: bool
) -> None:
    one, two = (DeviceId(bytes([n]) * 32) for n in (1, 2))
    async with syncengine.open(":memory:") as ann:
        space = await ann.namespace("home")
        link = Link(ann, nobody, Address(dialled, one), lambda: [space.engine])
        async with link:
            address = str(Address(sent_to, two)) if sent_to else None
            refusal = Refusal(0, Code.MOVED, "moved", "after_action", "none", address)

            assert link._moved(space.engine, refusal) == goes
            assert bool(link._branches) == goes


async def test_a_link_that_is_sent_in_circles_takes_its_time() -> None:
    addresses = [Address("ws://hub", DeviceId(bytes([n]) * 32)) for n in (1, 2, 3)]
    async with syncengine.open(":memory:") as ann:
        space = await ann.namespace("home")
        link = Link(ann, nobody, addresses[0], lambda: [space.engine])
        async with link:
            went: list[int] = []
            for number in range(20):
                to = addresses[1 + number % 2]
                told = Refusal(0, Code.MOVED, "moved", "after_action", "none", str(to))
                assert link._moved(space.engine, told)
                home = link._homes[space.engine.keeper.namespace]
                went.append(addresses.index(home))
            # Four at once; the others wait, each longer than the one before.
            assert went[:4] == [1, 2, 1, 2]
            assert went[4:] == [2] * 16


def test_what_another_hub_keeps_is_refused_with_where_it_is() -> None:
    error = Moved(Code.MOVED, "another hub", address="ws://two/#aa")

    assert isinstance(error, Refused)
    assert (error.address, error.retry) == ("ws://two/#aa", "after_action")


async def test_a_full_disk_moves_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        teams = await spaces(ann, 6)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
            hub = here.hubs["a"]
            commit, failed = hub.store.commit, 0

            async def full(writes: Writes) -> None:
                nonlocal failed
                moving = {sql.PUT_MOVED, *sql.CLEAR_RELAY} & writes._statements.keys()
                if moving and failed < 3:
                    failed += 1
                    raise syncengine.StoreFull("no space left")
                await commit(writes)

            await here.add("b")
            monkeypatch.setattr(hub.store, "commit", full)
            await here.tell("a")
            await everything_home(here, teams)
            assert failed == 3
            await link.synced()


async def test_nothing_is_deleted_that_the_other_was_not_seen_to_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        await here.add("b")
        partition = partition_of(parse_namespace_id(team.id), 16)
        await here.fleet.move(partition, base32(here.hubs["b"].id))
        with monkeypatch.context() as patch:
            patch.setattr(Channel, "agrees", property(lambda _: False))
            patch.setattr(limits, "MOVES_LOOK_SECONDS", 0.01)
            await here.tell("a")
            await until(lambda: here.keepers(team) == {"a": True, "b": False})
            await asyncio.sleep(0.3)
            assert here.keepers(team) == {"a": True, "b": False}
        await everything_home(here, [team])


async def test_what_was_given_away_is_so_after_a_restart(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        here.keep_moved = 600.0
        await here.stop("a")
        await here.start("a")
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        await here.add("b")
        partition = partition_of(parse_namespace_id(team.id), 16)
        await here.fleet.move(partition, base32(here.hubs["b"].id))
        await here.tell("a")
        await until(lambda: here.keepers(team) == {"a": True, "b": False})
        await here.stop("b")
        await here.stop("a")
        await here.start("a")
        assert here.keepers(team) == {"a": True}
        with pytest.raises(Moved):
            here.hubs["a"].check_home(open_of(team), DeviceId(bytes(32)))


async def test_who_opens_what_is_being_given_away_is_sent_on(tmp_path: Path) -> None:
    class Late:
        device = DeviceId(bytes(32))
        told: Refusal | None = None

        def tell(self, message: object) -> None: ...

        def dismiss(self, refusal: Refusal) -> None:
            self.told = refusal

    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        relay = here.hubs["a"].find(parse_namespace_id(team.id))
        assert relay is not None
        early, late = Late(), Late()
        relay.opened(early)
        relay.moved = "ws://two/#aa", 1
        relay.opened(late)
        assert early.told is None
        assert late.told is not None
        assert (late.told.code, late.told.address) == (Code.MOVED, "ws://two/#aa")
        for channel in (early, late):
            relay.closed(channel)


async def test_nothing_is_pushed_to_a_home_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        partition = partition_of(parse_namespace_id(team.id), 16)
        moves = here.hubs["a"].moves
        assert moves is not None

        def pushed_to() -> set[str]:
            return {
                name
                for name, hub in here.hubs.items()
                if (to := moves._links.get(hub.id)) is not None
                and to.conversation is not None
                and len(to.conversation.carried()) > 1
            }

        with monkeypatch.context() as patch:
            patch.setattr(Channel, "agrees", property(lambda _: False))
            await here.add("b")
            await here.add("c")
            for name in ("b", "c"):
                await here.fleet.move(partition, base32(here.hubs[name].id))
                await here.tell("a")
                await until(lambda name=name: pushed_to() == {name})  # type: ignore[misc]  # of this turn
        await everything_home(here, [team])


async def test_what_may_be_on_its_way_is_not_refused_for_good(tmp_path: Path) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        known = team.engine.keeper.membership.entries.values()
        request = replace(open_of(team), entries=[tuple(entry) for entry in known])
        with pytest.raises(Refused) as raised:
            here.hubs["a"].admit(request, DeviceId(ann.key.public))
        assert (raised.value.code, raised.value.retry) == (Code.NO_NAMESPACE, "later")


async def test_a_deletion_that_was_begun_ends_whoever_is_cancelled(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, "a") as here, syncengine.open(":memory:") as ann:
        (team,) = await spaces(ann, 1)
        async with transport.connect(ann, here.servers["a"].address) as link:
            await link.synced()
        hub, name = here.hubs["a"], parse_namespace_id(team.id)
        relay = hub.find(name)
        assert relay is not None
        await until(lambda: not relay.channels)
        deleting = asyncio.create_task(hub.forget(relay))
        await asyncio.sleep(0)
        deleting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deleting
        assert hub.find(name) is None
        assert not hub.store.read("SELECT 1 FROM _sync_namespace WHERE id = ?", name)
        with pytest.raises(syncengine.Closed):
            relay.flush()


async def test_a_closed_link_goes_nowhere() -> None:
    one, two = (Address("ws://hub", DeviceId(bytes([n]) * 32)) for n in (1, 2))
    async with syncengine.open(":memory:") as ann:
        space = await ann.namespace("home")
        link = Link(ann, nobody, one, lambda: [space.engine])
        async with link:
            pass
        told = Refusal(0, Code.MOVED, "moved", "after_action", "none", str(two))
        link._moved(space.engine, told)
        await asyncio.sleep(0)
        assert not link._branches
