"""One local replica: a file, a device, and the namespaces in it."""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from syncengine import limits
from syncengine.clock import Clock, Entropy, HybridClock, SteadyClock, ms_from_hlc
from syncengine.crdt.operation import NEWEST_ACTION
from syncengine.errors import (
    AlreadyExists,
    ClockSuspect,
    Closed,
    Invalid,
    InviteExpired,
    NotFound,
    Refused,
    WrongLoop,
)
from syncengine.ids import (
    DeviceId,
    NamespaceId,
    base32,
    from_base32,
    parse_namespace_id,
)
from syncengine.protocol.codes import Code
from syncengine.protocol.messages import Open, Refusal
from syncengine.replication import archive
from syncengine.replication.address import parse_address
from syncengine.replication.host import Hosted, sealed
from syncengine.replication.keeper import Keeper
from syncengine.replication.link import Link, LinkState
from syncengine.replication.namespace import Namespace
from syncengine.replication.opening import REPLICA, Opened, open_file
from syncengine.replication.pace import finished
from syncengine.replication.space import Space
from syncengine.replication.tables import Tables
from syncengine.replication.writer import Writer
from syncengine.storage.identity import Identity
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Store, StorePath, Writes
from syncengine.system import process
from syncengine.trust.entry import Entry
from syncengine.trust.invite import Invite
from syncengine.trust.invite import parse as parse_invite
from syncengine.trust.keys import ED25519, SEED_BYTES, Scheme
from syncengine.trust.membership import (
    OPS_OWNER,
    Ops,
    make_genesis,
    make_grant,
    namespace_id,
)

log = logging.getLogger("syncengine")

# Slips in copying a recovery key by hand are noticed; 14 groups of four letters.
RECOVERY_CHECK_BYTES = 3


class Replica:
    """A database file with its own identity. Open with `syncengine.open`."""

    def __init__(
        self,
        opened: Opened,
        *,
        clock: Clock,
        entropy: Entropy,
        scheme: Scheme,
        strict_clock: bool = False,
    ):
        self._opened = opened
        self.store: Store = opened.store
        self.identity: Identity = opened.identity
        self.key = opened.key
        self.lineage = opened.lineage
        self._loop = asyncio.get_running_loop()
        self.clock = SteadyClock(clock, self._loop.time)
        self.entropy = entropy
        self.scheme = scheme
        self.instance = entropy.bytes(16)
        self.clock_suspect = False
        """Whether our clock is more than a minute off a hub's, or went back. It is
        corrected as far as other members' stamps agree."""
        self._strict_clock = strict_clock
        self._life = process.life
        self._closed = False
        self.writer = Writer(opened.store)
        self.tables = Tables(opened.store, self.writer)
        self._task = asyncio.create_task(self.writer.run())
        self._spaces: dict[NamespaceId, Space] = {}
        self._links: list[Link] = []
        ((last,),) = self.store.read("SELECT max(document) FROM _sync_document")
        self._last_row = last or 0
        ((last_ns,),) = self.store.read("SELECT max(ns) FROM _sync_namespace")
        self._last_ns = last_ns or 0

    async def start(self) -> None:
        """Load the namespaces; after a restore, go on under new actors.

        Raises `ClockSuspect` when the clock went back and that is to be an error.
        """
        for ns, name, called in self.store.read(
            "SELECT ns, id, name FROM _sync_namespace"
        ):
            space = self.add_space(ns, NamespaceId(name), called)
            space.engine.load()
            space.engine.committed_position = space.engine.keeper.position
            await space.engine.settle_terms()
            space.engine.apply_soon()
            if self._opened.restored:
                space.engine.leadership.forget_votes()
                await space.engine.flush()
            if self._opened.restored and space.engine.actor is not None:
                log.warning(
                    "%s was restored or copied; %s goes on under a new actor",
                    self.store.path,
                    called or base32(name)[:8],
                )
                await space.engine.retire_actor()
        if self._opened.restored:
            done = Writes()
            done.add("DELETE FROM _sync_meta WHERE key = ?", "retire")
            await self.store.commit(done)
        await self._understand()
        latest = max((s.engine.clock.last for s in self._spaces.values()), default=0)
        # Others' stamps are up to a minute ahead of us, too.
        back = ms_from_hlc(latest) - limits.CLOCK_AHEAD_MS_MAX - self.clock.own_ms()
        if back > limits.CLOCK_OFF_MS:
            self._suspect_clock(f"{back / 1000:.0f} s behind what it was")

    async def _understand(self) -> None:
        """Make anew what an older version of this program could not understand."""
        stored = self.store.read("SELECT value FROM _sync_meta WHERE key = 'actions'")
        understood = stored[0][0] if stored else 0
        if understood == NEWEST_ACTION:
            return
        older = understood < NEWEST_ACTION
        for (ns,) in self.store.read(
            "SELECT DISTINCT ns FROM _sync_document WHERE upgrade AND ?", older
        ):
            (space,) = (s for s in self._spaces.values() if s.engine.ns == ns)
            log.info("%s is made anew: it has what a newer version wrote", space.name)
            async with space.engine.turn:
                await space.engine.rebuild()
            await space.engine.flush()
        writes = Writes()
        writes.add(sql.PUT_META, "actions", int(NEWEST_ACTION))
        await self.store.commit(writes)

    def _suspect_clock(self, how: str) -> None:
        self.clock_suspect = True
        if self._strict_clock:
            raise ClockSuspect(f"this device's clock is {how}; set it right")
        log.warning("this device's clock is %s; writes go on in order", how)

    # --- life ---------------------------------------------------------------------

    async def __aenter__(self) -> "Replica":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its links, write what is left, and close the file. Idempotent."""
        if self._closed:
            return
        for link in list(self._links):
            await link.close()
        self._closed = True
        for space in self._spaces.values():
            space.engine.stop()
        self.writer.close()
        await self._task
        for space in self._spaces.values():
            space.engine.documents.forget()
        await self._opened.close()

    def check_usable(self) -> None:
        """Raise `Closed` or `WrongLoop` at once rather than hang later."""
        if self._closed:
            raise Closed(f"{self.store.path} is closed; open it again")
        if self._life != process.life:
            raise WrongLoop(
                "this replica was opened before a fork; open it in the child process, "
                "and give each process or thread its own (syncengine.blocking has one "
                "for programs without a loop)"
            )
        try:
            loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._loop:
            raise WrongLoop(
                "a replica belongs to the event loop that opened it; from another "
                "loop or thread use syncengine.blocking"
            )

    @property
    def id(self) -> str:
        """This device's id: a public key."""
        return base32(self.key.public)

    # --- namespaces ---------------------------------------------------------------

    async def namespace(self, name: str, *, create: bool = True) -> Space:
        """Return the namespace that this replica calls `name`, made on first use.

        Raises `NotFound` with `create=False`.
        """
        self.check_usable()
        _check_name(name)
        for space in self._spaces.values():
            if space.name == name:
                return space
        if not create:
            raise NotFound(
                f"there is no namespace {name!r} here; there are: "
                f"{', '.join(sorted(s.name for s in self._spaces.values() if s.name))}"
            )
        return await self._found(name)

    def spaces(self) -> list[Space]:
        """Return all namespaces of this replica."""
        return list(self._spaces.values())

    async def _found(self, name: str) -> Space:
        """Make a namespace: this device owns it, and so does a key to be printed."""
        recovery_seed = self.entropy.bytes(32)
        recovery = self.scheme.private_key(recovery_seed)
        device = DeviceId(self.key.public)
        owners = [device, DeviceId(recovery.public)]
        genesis = make_genesis(self.key, owners, self.entropy.bytes(16))
        namespace = namespace_id(genesis)
        self.identity.write_secret(
            f"recovery-{base32(namespace)[:8]}.txt", _recovery_text(recovery_seed)
        )
        space = await self._new(namespace, name, None)
        async with space.engine.turn:
            keeper = space.engine.keeper
            keeper.append_own(genesis)
            grant = make_grant(
                self.key,
                namespace,
                keeper.membership.recent_heads(),
                parent=None,
                subject=device,
                ops=OPS_OWNER,
                depth=7,
                nonce=self.entropy.bytes(16),
            )
            keeper.append_own(grant)
            space.engine.grant = keeper.membership.grant_of(device)
            space.engine.new_actor()
        await space.engine.flush()
        self._tell_links(space)
        return space

    async def join(
        self, invite: str | Invite, *, name: str | None = None, adopt: bool = False
    ) -> Space:
        """Join the namespace of an invite; works offline.

        `name` is how this replica will call it. With `adopt=True`, what a local
        namespace of that name holds is written again into the joined one; after a
        crash, joining again goes on with that. A namespace that is here already, on
        a device that has no right to it (any more), is let in again by a fresh
        invite. Raises `InviteExpired`, `Invalid`, `AlreadyExists`.
        """
        self.check_usable()
        if isinstance(invite, str):
            invite = parse_invite(invite)
        if name is not None:
            _check_name(name)
        if invite.address:
            parse_address(invite.address)
        if adopt and not invite.ops & Ops.WRITE:
            raise Invalid(
                "this invite lets you read; to bring documents along, ask for one to "
                "write"
            )
        known = self._spaces.get(invite.namespace)
        if known is not None and name not in (None, known.name):
            raise AlreadyExists(
                f"this namespace is here already, as {known.name!r}; join it under "
                "that name"
            )
        if known is not None and known.is_member:
            if adopt:
                await self._adopt_all(known)
            return known
        if self.clock.now_ms() > invite.accept_by_ms:
            raise InviteExpired(
                Code.INVITE_EXPIRED, "this invite has expired; ask for a new one"
            )
        if known is not None:
            await known.engine.take_grant(self._link_of(invite))
            self._tell_links(known)
            if adopt:
                await self._adopt_all(known)
            return known
        old = next((s for s in self._spaces.values() if s.name == name and name), None)
        if old is not None and not adopt:
            raise AlreadyExists(
                f"a namespace {name!r} is here already; join under another name, or "
                "with adopt=True to bring its documents along"
            )
        if old is not None:
            await self._rename(old, _name_before(name, invite.namespace))
        space = await self._new(invite.namespace, name, invite.address or None)
        await space.engine.take_grant(self._link_of(invite))
        if adopt:
            await self._adopt_all(space)
        self._tell_links(space)
        return space

    def _link_of(self, invite: Invite) -> Entry:
        """Return the grant by which an invite lets this device in."""
        return make_grant(
            invite.key(self.scheme),
            invite.namespace,
            [invite.grant],
            parent=invite.grant,
            subject=DeviceId(self.key.public),
            ops=invite.ops,
            depth=0,
            nonce=self.entropy.bytes(16),
        )

    async def recover(
        self, recovery_key: str, namespace_id: str | None = None, *, name: str = "main"
    ) -> Space:
        """Make this device an owner's again, by the key that was printed at first.

        Of a namespace that is here (from a backup, say), or of the one named, which a
        hub still has: it is then called `name`, and arrives by the next link. Raises
        `Invalid` for a key that owns nothing here.
        """
        self.check_usable()
        owner = self.scheme.private_key(_recovery_seed(recovery_key))
        wanted = parse_namespace_id(namespace_id) if namespace_id else None
        space = next(
            (
                space
                for space in self._spaces.values()
                if wanted in (None, space.engine.keeper.namespace)
                and (
                    (wanted and space.is_new)
                    or (
                        (genesis := space.engine.keeper.membership.genesis) is not None
                        and owner.public in genesis.owners
                    )
                )
            ),
            None,
        )
        if space is None and (wanted is None or wanted in self._spaces):
            raise Invalid(
                "this key owns none of the namespaces here that are meant; restore a "
                "backup, or name another one by its id (`syncengine status` shows it)"
            )
        if space is None:
            assert wanted is not None
            _check_name(name)
            if any(space.name == name for space in self._spaces.values()):
                raise AlreadyExists(
                    f"a namespace {name!r} is here already; give another name"
                )
            space = await self._new(wanted, name, None)
        keeper = space.engine.keeper
        link = make_grant(
            owner,
            keeper.namespace,
            keeper.membership.recent_heads(),
            parent=None,
            subject=DeviceId(self.key.public),
            ops=OPS_OWNER,
            depth=7,
            nonce=self.entropy.bytes(16),
        )
        await space.engine.take_grant(link)
        self._tell_links(space)
        return space

    async def _adopt_all(self, space: Space) -> None:
        for old in list(self._spaces.values()):
            if old.name == _name_before(space.name, space.engine.keeper.namespace):
                await _adopt(old, space)

    async def _new(
        self, namespace: NamespaceId, name: str | None, address: str | None
    ) -> Space:
        self._last_ns += 1
        writes = Writes()
        writes.add(sql.ADD_NAMESPACE, self._last_ns, namespace, name, address)
        await self.store.commit(writes)
        space = self.add_space(self._last_ns, namespace, name)
        space.engine.load()
        return space

    async def _rename(self, space: Space, name: str) -> None:
        writes = Writes()
        writes.add(sql.NAME_NAMESPACE, name, None, space.engine.ns)
        await self.store.commit(writes)
        space.name = name

    async def clear(self, space: Space, *, lose_unsent: bool) -> None:
        """Take a namespace out of the file. See `Space.clear`."""
        engine = space.engine
        namespace = engine.keeper.namespace
        await sealed(engine)
        _check_sent(space, lose_unsent=lose_unsent)
        del self._spaces[namespace]  # nobody opens it any more
        for link in self._links:
            link.leave(engine)
        gone = (0, Code.NO_NAMESPACE, "it was taken out of this file", "later", "none")
        try:
            while engine.channels:
                for channel in engine.channels:
                    channel.dismiss(Refusal(*gone))
                engine.log_grew.set()
                await engine.progress.wait()
            async with engine.turn:
                await engine.settled()
                _check_sent(space, lose_unsent=lose_unsent)  # somebody may have written
                writes = Writes()
                engine.collect_end(writes)
                cancelled = await finished(self.store.commit(writes))
                engine.is_cleared = True
                self.writer.drop(engine)
                engine.stop()
        except BaseException:
            self._spaces[namespace] = space
            self._tell_links(space)
            raise
        engine.documents.forget()
        if cancelled:
            raise asyncio.CancelledError

    def add_space(self, ns: int, namespace: NamespaceId, name: str | None) -> Space:
        keeper = Keeper(self.store, ns, namespace, self.lineage, self.scheme)
        clock = HybridClock(self.clock, saw=self.clock.saw, told=self.told_time)
        engine = Namespace(
            keeper, self.writer, clock, self.entropy, self.key, self._new_row
        )
        engine.documents.projection = self.tables
        space = self._spaces[namespace] = Space(self, engine, name)
        return space

    def _new_row(self) -> int:
        self._last_row += 1
        return self._last_row

    def _tell_links(self, space: Space) -> None:
        for link in self._links:
            if link.serves(space.engine.keeper.namespace):
                link.opened_namespace(space.engine)

    # --- as links see it ----------------------------------------------------------

    def find(self, namespace: NamespaceId) -> Hosted | None:
        space = self._spaces.get(namespace)
        return space.engine if space else None

    def admit(self, request: Open, device: DeviceId) -> Hosted:
        raise Refused(
            Code.NO_NAMESPACE,
            "this replica does not hold that namespace",
            retry="later",
        )

    def check_home(self, request: Open, device: DeviceId) -> None:
        """A replica is of no fleet."""

    def rights_of_fellow(self, request: Open, device: DeviceId) -> None:
        """The same."""

    def homes(self, hub: DeviceId) -> dict[NamespaceId, str]:
        """Return the addresses of the hubs to which `hub` sent us."""
        rows = self.store.read(
            "SELECT n.id, m.address FROM _sync_moved m "
            "JOIN _sync_namespace n USING (ns) WHERE m.hub = ?",
            hub,
        )
        return {NamespaceId(name): address for name, address in rows}

    async def keep_home(
        self, namespace: NamespaceId, hub: DeviceId, address: str | None
    ) -> None:
        """Keep where `hub` sent us for a namespace (None: it has it itself)."""
        space = self._spaces.get(namespace)
        if space is None or self.homes(hub).get(namespace) == address:
            return
        writes = Writes()
        if address is None:
            writes.add(sql.DROP_MOVED, space.engine.ns, hub)
        else:
            now_ms = self.clock.now_ms()
            writes.add(sql.PUT_MOVED, space.engine.ns, hub, address, now_ms)
        await self.store.commit(writes)

    def told_time(self, now_ms: int) -> None:
        """Others told their clocks, a hub or voters: note how far off ours is."""
        offset = now_ms - self.clock.own_ms()
        off = abs(offset) > limits.CLOCK_OFF_MS
        if off and (self._strict_clock or not self.clock_suspect):
            self._suspect_clock(f"{offset / 1000:.0f} s off the others'")
        self.clock_suspect = off
        if not off and not self.clock.hub_offset_ms:
            return
        self.clock.hub_offset_ms = offset if off else 0
        for space in self._spaces.values():
            space.engine.apply_soon()

    async def links_synced(self, namespace: NamespaceId) -> None:
        """Wait until the links that carry a namespace and reach their peers are synced:
        one at least, where there are any, unless others have dialled us."""
        engine, is_done = self._spaces[namespace].engine, False
        while not is_done:
            links = [
                link
                for link in self._links
                if link.state != "closed" and link.serves(namespace)
            ]
            ready = [link for link in links if link.state in _ANSWERED]
            if links and not ready:
                if engine.channels:
                    return
                with contextlib.suppress(TimeoutError):
                    # Or somebody dials us meanwhile.
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                        await _first_answered(links)
                continue
            outcomes = await asyncio.gather(*map(_synced, ready))
            is_done = any(outcomes) or not links

    def link_began(self, link: Link) -> None:
        self.check_usable()
        self._links.append(link)

    def link_ended(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)

    async def flush_all(self) -> None:
        for space in self._spaces.values():
            await space.engine.flush()

    def invited_addresses(self) -> list[str]:
        """Return the addresses that invites named, newest first."""
        rows = self.store.read(
            "SELECT address FROM _sync_namespace WHERE address IS NOT NULL "
            "ORDER BY ns DESC"
        )
        return [address for (address,) in rows]

    def hub_of(self, namespace: NamespaceId) -> str | None:
        """Return the address by which a namespace's hub is known."""
        rows = self.store.read(
            "SELECT address FROM _sync_namespace WHERE id = ?", namespace
        )
        return rows[0][0] if rows else None

    async def remember(self, address: str) -> None:
        """Keep where the hub is (without its ticket) for namespaces that know none."""
        self.check_usable()
        writes = Writes()
        for space in self._spaces.values():
            writes.add(sql.REMEMBER_ADDRESS, address, space.engine.ns)
        if writes:
            await self.store.commit(writes)

    async def unarchive(self, path: StorePath, name: str | None = None) -> Space:
        """Take in a namespace from a file that `space.archive` wrote; return it.

        `name` is how this replica will call it. What is here already stays, so that an
        archive brings what is missing, as a link would. Each row is checked; this
        device can show it, and takes part when let in by an invite. Raises `Invalid`
        for a file that is none or was damaged, and `AlreadyExists` for the name.
        """
        self.check_usable()
        path = os.fspath(path)
        namespace = archive.namespace_of(path)
        space = self._spaces.get(namespace)
        if space is not None and name not in (None, space.name):
            raise AlreadyExists(
                f"this namespace is here already, as {space.name!r}; take it in under "
                "that name"
            )
        if space is None:
            if name is not None:
                _check_name(name)
                if any(other.name == name for other in self._spaces.values()):
                    raise AlreadyExists(f"a namespace {name!r} is here already")
            space = await self._new(namespace, name, None)
        await archive.read(space, path)
        return space

    async def backup(self, path: StorePath) -> None:
        """Write one consistent file, without the device's key.

        Opened elsewhere, or here in place of this one, it is a new actor.
        """
        self.check_usable()
        if os.path.exists(path):  # noqa: ASYNC240  # one look, before a long write
            raise AlreadyExists(f"{path} exists; a backup replaces nothing")
        await self.flush_all()
        await self.store.backup(os.fspath(path))


def _check_sent(space: Space, *, lose_unsent: bool) -> None:
    unsent = space.engine.unsent_count()
    if unsent and not lose_unsent:
        raise Invalid(
            f"{unsent} changes of {space.name or space.id[:8]} are on no other disk; "
            "connect first, or clear it with lose_unsent=True"
        )


async def _adopt(old: Space, new: Space) -> None:
    """Write the documents of `old` again, in `new`; each once, however often."""
    for collection, _ in old.collections():
        async for key, page in old.documents(collection):
            name = f"{collection}/{key}"
            what = hashlib.sha256(f"{old.id} {name}".encode()).digest()[:16]
            async with new.transaction(f"adopt:{base32(what)}") as tx:
                if tx.repeated:
                    continue
                target = tx[name]
                for field, value in page.items():
                    target[field] = value


def _name_before(name: str | None, joined: NamespaceId) -> str:
    """Return how a namespace is called whose documents were brought into `joined`."""
    return f"{name} (before joining {base32(joined)[:8]})"


def _check_name(name: str) -> None:
    if not name or len(name) > 200 or not name.isprintable():
        raise Invalid("a namespace's name is 1 to 200 printable characters")


def _recovery_seed(text: str) -> bytes:
    try:
        raw = from_base32("".join(text.split()).replace("-", ""))
    except ValueError:
        raw = b""
    seed, check = raw[:SEED_BYTES], raw[SEED_BYTES:]
    if len(raw) != SEED_BYTES + RECOVERY_CHECK_BYTES or check != _recovery_check(seed):
        raise Invalid("this is no recovery key; copy all of its groups again")
    return seed


def _recovery_check(seed: bytes) -> bytes:
    return hashlib.sha256(b"sync1:recovery\0" + seed).digest()[:RECOVERY_CHECK_BYTES]


def _recovery_text(seed: bytes) -> str:
    """Return a recovery key in groups that a person can copy by hand."""
    text = base32(seed + _recovery_check(seed))
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


class Opening:
    """What `syncengine.open` returns: await it, or use it with `async with`."""

    def __init__(
        self,
        path: str,
        *,
        strict_clock: bool = False,
        clock: Clock,
        entropy: Entropy,
        scheme: Scheme = ED25519,
    ):
        self._path = path
        self._strict = strict_clock
        self._clock = clock
        self._entropy = entropy
        self._scheme = scheme
        self._replica: Replica | None = None

    def __await__(self) -> Generator[Any, None, Replica]:
        return self._open().__await__()

    async def __aenter__(self) -> Replica:
        self._replica = await self._open()
        return self._replica

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._replica is not None
        await self._replica.close()

    async def _open(self) -> Replica:
        opened = await open_file(self._path, self._entropy, self._scheme, REPLICA)
        replica = Replica(
            opened,
            clock=self._clock,
            entropy=self._entropy,
            scheme=self._scheme,
            strict_clock=self._strict,
        )
        try:
            await replica.start()
        except BaseException:
            await replica.close()
            raise
        return replica


async def _until(link: Link, so: Callable[[LinkState], bool]) -> None:
    async for state in link.states():
        if so(state):
            return


async def _race(*coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    """Return the tasks of these, once one has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return tasks


_ANSWERED = ("live", "refused")

# How often somebody who waits for a link of his own looks whether others have dialled.
LOOK_AGAIN_SECONDS = 1.0


async def _first_answered(links: list[Link]) -> None:
    await _race(*(_until(link, lambda state: state in _ANSWERED) for link in links))


async def _synced(link: Link) -> bool:
    """Wait until a link is synced; tell whether it was, before it lost its peer."""
    if link.state == "refused":
        await link.synced()  # it raises why
    synced, _ = await _race(link.synced(), _until(link, lambda state: state != "live"))
    if synced.cancelled():
        return False
    synced.result()
    return True
