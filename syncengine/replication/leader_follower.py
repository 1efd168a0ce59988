"""Leader and followers: one writes, all read, and another one goes on when he fails.

The manager of a node is thin. What is written are ordinary transactions of the
namespace; the log brings them to the others over its links (or a pipeline); who leads
is in the log too (`log.terms`), and found out by `replication.election`.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from syncengine import values
from syncengine.errors import (
    Closed,
    Invalid,
    NotLeader,
    PromotionFailed,
    Refused,
    StoreError,
    StoreFull,
    SyncError,
    TransactionOpen,
)
from syncengine.ids import (
    ActorId,
    DeviceId,
    DocumentId,
    EntryId,
    base32,
    parse_device_id,
    parse_document_id,
    short,
)
from syncengine.log.batch import Header
from syncengine.log.terms import Term, Terms
from syncengine.protocol.messages import Notice
from syncengine.protocol.notices import Spoken, decode
from syncengine.replication import feed
from syncengine.replication.consistency import VALUE, Reads
from syncengine.replication.election import Election, Lease
from syncengine.replication.feed import Change
from syncengine.replication.host import Bell
from syncengine.replication.modes import LEADER_FOLLOWER, switch
from syncengine.replication.notices import decode_notice, encode_notice
from syncengine.replication.pipeline import (
    NoticeCarrier,
    PipelineEmitter,
    PipelineReceiver,
)
from syncengine.replication.rescue import RESCUED, Rescue
from syncengine.replication.roles import (
    ALREADY_EXISTS,
    EVENTS,
    FOLLOWER_READ_ONLY,
    MANAGER_CLOSED,
    NOT_FOUND,
    NOT_LEADER,
    OPERATIONS,
    STALE_LEADER,
    STORE_FAILED,
    TIMEOUT,
    Consistency,
    EventApplied,
    FollowerInfo,
    FollowerState,
    LeaderChanged,
    LeaderFailed,
    LeaderFollowerWriteResult,
    LeaderState,
    Level,
    Operation,
    ReadResult,
    ReplicationMetrics,
    ReplicationRole,
    RoleChanged,
    WritesRescued,
)
from syncengine.replication.seat import Seat
from syncengine.replication.succession import Succession
from syncengine.replication.telling import Handler, Handlers
from syncengine.replication.tokens import Token
from syncengine.storage.pipeline.contract import Pipeline

if TYPE_CHECKING:
    from syncengine.replication.namespace import Namespace
    from syncengine.replication.replica import Replica
    from syncengine.replication.space import Space

log = logging.getLogger("syncengine")

# Batches read at once to tell of what took effect: a follower that catches up has many.
ENTRIES_A_TURN = 64


class HeartbeatService(Protocol):
    """Carries what nodes say about leading, besides their links: a bus, a broadcast.
    What it carries is signed; it is trusted with nothing but delivery."""

    def send(self, raw: bytes) -> None:
        """Take it to the other nodes, or not."""
        ...

    def listen(self, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with what others send, in this event loop."""
        ...


class _Parts(NamedTuple):
    """What a started node is made of."""

    seat: Seat
    reads: Reads
    succession: Succession


class LeaderFollowerManager:
    """A node of a namespace that one writes and all read.

        leader = LeaderFollowerManager("leader-1", "leader", None, replica, "tenant")
        await leader.start()
        result = await leader.write("customer-123", {"name": "Alice"}, "create")

    Args:
        node_id: How this node calls itself, its own name among all.
        role: "leader" or "follower", at first. A leader whose term was ended meanwhile
            comes back as a follower.
        pipeline: What carries the namespace to the others; None: links do.
        state_store: The replica (or the space) in which the namespace is.
        namespace: Its name there.
        leader_id: Who leads, as far as one knows; the log knows it better soon.
        heartbeat_service: Carries heartbeats besides the links.
        heartbeat_interval_ms: Between two heartbeats of a leader.
        heartbeat_timeout_ms: Silence after which a leader has failed; elections begin
            after one to 1.2 times as long.
        max_staleness_ms: Age of what is known here beyond which reads are stale.
        last_applied_sequence: From where `eventApplied` is told anew; None: from what
            comes.
        promotion_eligible: Whether this node may lead.
        voters: At the very first start of a leader: the devices (their ids) of which a
            majority decides. None: promotion is by hand, and a write is acknowledged
            by the leader's disk alone. Three or more elect another leader by
            themselves.
        lease: Somebody outside who says who may lead.
        collection: Where keys are kept: documents `collection/key`.

    Raises `Invalid` for what is none of these.
    """

    def __init__(
        self,
        node_id: str,
        role: ReplicationRole | Literal["leader", "follower"],
        pipeline: Pipeline | None,
        state_store: "Replica | Space",
        namespace: str,
        leader_id: str | None = None,
        heartbeat_service: "HeartbeatService | None" = None,
        heartbeat_interval_ms: int = 1000,
        heartbeat_timeout_ms: int = 5000,
        max_staleness_ms: int = 30000,
        last_applied_sequence: int | None = None,
        promotion_eligible: bool = True,
        *,
        voters: Sequence[str] = (),
        lease: Lease | None = None,
        collection: str = "entry",
    ):
        values.check_key(node_id, "node_id")
        if not 0 < len(node_id) <= 200:
            raise Invalid("a node's name has 1 to 200 characters", path="node_id")
        try:
            self._wished = ReplicationRole(role)
        except ValueError:
            raise Invalid("a role is leader or follower", path="role") from None
        for option, value in (
            ("heartbeat_interval_ms", heartbeat_interval_ms),
            ("heartbeat_timeout_ms", heartbeat_timeout_ms),
            ("max_staleness_ms", max_staleness_ms),
        ):
            values.check_count(value, option)
        if heartbeat_interval_ms * 2 > heartbeat_timeout_ms:
            raise Invalid(
                "a leader that misses one heartbeat has not failed: let "
                "heartbeat_timeout_ms be twice heartbeat_interval_ms or more",
                path="heartbeat_timeout_ms",
            )
        if last_applied_sequence is not None:
            values.check_count(last_applied_sequence, "last_applied_sequence", least=0)
        parse_document_id(f"{collection}/key")
        if len(voters) in (1, 2):
            log.warning(
                "with %d voters nobody is elected when one fails: promote by hand, or "
                "have three",
                len(voters),
            )
        self._store = state_store
        self._node = node_id
        self._namespace = namespace
        self._pipeline = pipeline
        self._leader_hint = leader_id
        self._service = heartbeat_service
        self._beat_seconds = heartbeat_interval_ms / 1000
        self._timeout = heartbeat_timeout_ms / 1000
        self._max_staleness_ms = max_staleness_ms
        self._told = last_applied_sequence
        self._eligible = promotion_eligible
        self._first_voters = tuple(map(parse_device_id, voters))
        self._lease = lease
        self._collection = collection
        self._metrics = ReplicationMetrics()
        self._handlers = Handlers(EVENTS)
        self._registered: dict[str, None] = {}
        self._parts: _Parts | None = None
        self._workers: list[Any] = []
        self._bell = Bell()
        self._inbox: deque[tuple[DeviceId, bytes]] = deque()
        self._starting = asyncio.Lock()
        self._takes_part = False
        self._queue: deque[tuple[str, Any]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._telling: list[asyncio.Task[None]] = []
        self._told_bell = Bell()
        self._applied_bell = Bell()
        self._role: ReplicationRole = ReplicationRole.FOLLOWER
        self._has_led = False
        self._generation = 0
        self._told_failed = False
        self._known_top: EntryId | None = None
        self._log: EntryId | None = None
        """The mode whose log is followed"""
        self._applied = 0
        self._rescued: set[tuple[ActorId, int]] = set()
        self._rescued_new: list[tuple[int, str]] = []
        self._told_mode: EntryId | None = None
        self._ending: asyncio.Future[None] | None = None
        self._closed = False

    # --- life -----------------------------------------------------------------------

    async def start(self) -> None:
        """Take part: lead, or follow and catch up. Twice does nothing.

        The first start of a leader makes of the namespace one that has a leader, which
        an owner may. Raises `NotFound` for a namespace that is not here, `Refused`.
        """
        self._check_open()
        async with self._starting:
            if self._task is not None:
                return
            try:
                await self._start()
            except BaseException:
                await self._leave()
                raise
        if self._closed:  # meanwhile
            await self.close()

    async def _start(self) -> None:
        space = await self._found()
        engine = space.engine
        terms = engine.keeper.terms
        if self._wished is ReplicationRole.LEADER and not terms.has_leader:
            await switch(space, LEADER_FOLLOWER, self._first_voters)
        election = Election(
            engine,
            self._node,
            beat_seconds=self._beat_seconds,
            timeout_seconds=self._timeout,
            eligible=self._eligible,
            lease=self._lease,
            is_first=self._wished is ReplicationRole.LEADER,
        )
        seat = Seat(
            space,
            election,
            node=self._node,
            bell=self._bell,
            beat_seconds=self._beat_seconds,
            timeout_seconds=self._timeout,
            leader_hint=self._leader_hint,
            metrics=self._metrics,
        )
        self._parts = _Parts(seat, Reads(seat), Succession(seat))
        if terms.has_leader:
            engine.leadership.take_part(election.me)
            await engine.flush()
        self._generation = engine.generation
        self._note_log(terms)
        self._applied = engine.applied_index
        if self._told is None:
            self._told = self._applied
        voids = space.index.voids()
        self._rescued = {name[:2] for name, why in voids.items() if why in RESCUED}
        self._take_part(engine)
        for worker in self._carriers(space):
            self._workers.append(worker)
            await worker.start()
        if self._wished is ReplicationRole.LEADER:
            async with self._seat.turn:
                await self._lead_at_first(election)
        self._task = asyncio.create_task(self._run(election))
        for telling in (self._tell_all(), self._tell_applied()):
            self._telling.append(asyncio.create_task(telling))
        self._bell.set()

    def _take_part(self, engine: "Namespace") -> None:
        self._takes_part = True
        engine.notices.listeners.append(self._hear)
        if self._service is not None:
            engine.notices.carriers.append(self._carry)
            self._service.listen(self._heard_elsewhere)
        engine.on_void.append(self._note_void)
        engine.on_terms.append(self._bell.set)
        engine.log_grew.listen(self._bell.set)
        engine.on_stopped.append(self._bell.set)
        engine.feeds += 1  # what is written comes into the log with its commit

    async def _leave(self) -> None:
        """Undo what `_take_part` and the carriers began; who leads, or is about to,
        does not."""
        if self._parts is not None:
            with contextlib.suppress(SyncError):
                async with self._seat.turn:
                    await self._parts.succession.resign()
        workers, self._workers = self._workers, []
        for worker in workers:
            await worker.stop()
        if not self._takes_part:
            return
        self._takes_part = False
        engine = self._space.engine
        engine.notices.listeners.remove(self._hear)
        if self._service is not None:
            engine.notices.carriers.remove(self._carry)
        engine.on_void.remove(self._note_void)
        engine.on_terms.remove(self._bell.set)
        engine.log_grew.unlisten(self._bell.set)
        engine.on_stopped.remove(self._bell.set)
        engine.feeds -= 1

    async def _found(self) -> "Space":
        store: Any = self._store
        if hasattr(store, "engine"):
            space: Space = store
            space.check_usable()
            if self._namespace not in (space.name, space.id):
                raise Invalid(
                    f"the state store is of {space.name!r}, not of {self._namespace!r}",
                    path="namespace",
                )
            return space
        found: Space = await store.namespace(self._namespace, create=False)
        return found

    def _carriers(self, space: "Space") -> list[Any]:
        if self._pipeline is None:
            return []
        name = f"node {self._node}"
        return [
            PipelineReceiver(space, self._pipeline, name=name),
            PipelineEmitter(space, self._pipeline, name=name),
            NoticeCarrier(space, self._pipeline, name=name),
        ]

    async def _lead_at_first(self, election: Election) -> None:
        """Lead as far as that is this node's to say, and nobody else does."""
        top = election.top
        if election.voters:
            election.deadline = asyncio.get_running_loop().time()
            if top is None and election.is_voter and self._eligible:
                await election.stand("elected", is_asking=True)
            return
        if top is None or top.leader == election.me:
            # Also where it led before: whoever knows that term has heard its beats.
            election.check_may_lead()
            try:
                await election.stand("manual")
            except PromotionFailed as error:
                if top is None:
                    raise
                log.warning("%s led, and does not now: %s", self._node, error)
            self._note_role()
        else:
            log.warning(
                "%s does not lead: %s does since; promote it by hand",
                self._node,
                top.record.node,
            )

    async def close(self) -> None:
        """Take no more part; a leader hands nothing over (see `demote`). Twice does
        nothing. Cancelled, it happens all the same."""
        parts = self._parts
        if not self._closed and parts is not None and not parts.seat.space.is_closed:
            parts.seat.space.check_outside()
        self._closed = True
        if parts is not None:
            parts.seat.close()
        if self._starting.locked():
            return  # it ends when it has started
        caller = asyncio.current_task()
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end(caller))
        if caller not in self._telling:  # a handler that closes goes on
            await asyncio.shield(self._ending)

    async def _end(self, caller: "asyncio.Task[Any] | None") -> None:
        for task in (self._task, *self._telling):
            if task is not None and task is not caller:
                task.cancel()
                await asyncio.wait([task])
        await self._leave()
        if self._parts is not None:
            self._parts.seat.election.close()

    async def __aenter__(self) -> "LeaderFollowerManager":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this manager was closed; make another one")

    @property
    def state_store(self) -> "Replica | Space":
        """Where the namespace is: its space, once this was started."""
        return self._store if self._parts is None else self._space

    @property
    def _started(self) -> _Parts:
        if self._parts is None:
            raise Invalid("start the manager first: await manager.start()")
        return self._parts

    @property
    def _seat(self) -> Seat:
        return self._started.seat

    @property
    def _space(self) -> "Space":
        return self._seat.space

    @property
    def _election(self) -> Election:
        return self._seat.election

    # --- what it is -----------------------------------------------------------------

    def get_node_id(self) -> str:
        return self._node

    def get_role(self) -> ReplicationRole:
        """Return "leader" or "follower", as of now."""
        leads = self._parts is not None and self._election.leading is not None
        return ReplicationRole.LEADER if leads else ReplicationRole.FOLLOWER

    def is_of(self, space: "Space") -> bool:
        """Whether it was started, and serves that space: after a restart of the replica
        it serves nobody."""
        return self._parts is not None and self._space is space

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing any more, also since its replica was closed."""
        return self._closed or (self._parts is not None and self._space.is_closed)

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as it is known here; None while nobody does."""
        return self._leader_hint if self._parts is None else self._seat.leader_id

    @property
    def term(self) -> int:
        """The number of the highest term in the log here; 0: there was none."""
        return self._seat.term

    def is_leader_healthy(self) -> bool:
        """Whether the leader was heard within `heartbeat_timeout_ms`."""
        return self._election.is_leader_healthy()

    def staleness_ms(self) -> int | None:
        """Return for how long something may be missing here; None: it is not known,
        since nothing proved that all is here after the start."""
        return self._seat.staleness_ms()

    def is_stale(self) -> bool:
        """Whether what is read here may be older than `max_staleness_ms`."""
        staleness = self.staleness_ms()
        return staleness is None or staleness > self._max_staleness_ms

    def can_participate_in_election(self) -> bool:
        """Whether this node may be elected, or promoted by hand."""
        return self._election.may_lead

    def get_leader_state(self) -> LeaderState | None:
        """Return what a leader knows of its followers; None on a follower."""
        election = self._election
        term = election.leading
        if term is None:
            return None
        followers = {name: FollowerInfo(0, 0) for name in self._registered}
        now = asyncio.get_running_loop().time()
        names = [known.node for known in election.followers.values()]
        for device, known in election.followers.items():
            name = known.node
            if names.count(name) > 1:  # two call themselves so
                name = f"{name} {short(device)}"
            followers[name] = FollowerInfo(
                known.heard_ms,
                known.stored,
                known.applied,
                now - known.heard_at <= self._timeout,
                base32(device),
                device in election.voters,
                known.votes,
            )
        durable = election.engine.leadership.durable
        commit = election.commit if election.voters else durable and durable[1]
        return LeaderState(
            election.engine.newest_index,
            followers,
            len(followers),
            max(0, commit or 0),
            term.number,
        )

    def get_follower_lag(self, follower_id: str) -> int | None:
        """Return how many writes a follower has not stored yet, as it reported; None
        where it is not known, or this is no leader."""
        state = self.get_leader_state()
        if state is None or follower_id not in state.followers:
            return None
        reported = state.followers[follower_id].last_reported_sequence
        return max(0, state.current_sequence - reported)

    def get_connected_followers(self) -> list[str]:
        """Return the followers heard within `heartbeat_timeout_ms`."""
        state = self.get_leader_state()
        if state is None:
            return []
        return sorted(name for name, f in state.followers.items() if f.is_connected)

    def get_follower_state(self) -> FollowerState | None:
        """Return how far a follower is; None on a leader."""
        election = self._election
        if election.leading is not None:
            return None
        end = election.end()[1]
        now = asyncio.get_running_loop().time()
        ago = now - election.contact
        clock = election.engine.clock.now_ms()
        return FollowerState(
            election.engine.applied_index,
            self.is_stale(),
            end,
            self.leader_id,
            0 if ago == float("inf") else clock - int(ago * 1000),
            self.staleness_ms(),
            self.term,
        )

    def get_metrics(self) -> ReplicationMetrics:
        """Return what happened here since it was made."""
        sent = 0 if self._parts is None else self._election.beats_said
        return replace(self._metrics, heartbeats_sent=sent)

    async def register_follower(self, follower_id: str) -> None:
        """Watch a follower by name, also before it was ever heard."""
        self._check_open()
        values.check_key(follower_id, "follower_id")
        self._registered[follower_id] = None

    async def unregister_follower(self, follower_id: str) -> None:
        """Watch a follower no more; one that still follows comes back with its next
        report."""
        self._check_open()
        self._registered.pop(follower_id, None)
        followers = self._election.followers
        for device in [d for d, k in followers.items() if k.node == follower_id]:
            if device not in self._election.voters:
                del followers[device]

    def on(self, event: str, handler: Handler) -> None:
        """Call `handler`, which may be a coroutine function, with each event:
        "leaderFailed" (once a failure), "leaderChanged", "roleChanged",
        "eventApplied" (a write of another node took effect here, in order), and
        "writesRescued". What it raises is logged. Raises `Invalid`."""
        self._handlers.add(event, handler)

    # --- writing --------------------------------------------------------------------

    async def write(
        self,
        key: str,
        value: Any = None,
        operation: Operation = "update",
        *,
        level: Level | None = None,
        timeout_ms: int = 10_000,
        client_op_id: str | None = None,
        strict: bool = False,
    ) -> LeaderFollowerWriteResult:
        """Write a key, on a leader; on another node the result says who leads.

        `level`: "local" (this disk), "majority" of the voters, "all" of them, or how
        many others; by default a majority, where there are voters. With `strict`,
        creating what is there and changing what is not fail. Safe to cancel: it is
        written or not, and may be written again with its `client_op_id`. Raises
        `Invalid` for what cannot be stored.
        """
        if operation not in OPERATIONS:
            raise Invalid(
                f"there is no operation {operation!r}; there are "
                f"{', '.join(OPERATIONS)}",
                path="operation",
            )
        name = self._name(key)
        if client_op_id is not None:
            values.check_name(client_op_id, "client_op_id")
        if self._closed:
            return self._failed("this manager was closed", MANAGER_CLOSED, client_op_id)
        election, engine = self._election, self._space.engine
        self._checked(level)
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        why = "the voters that are being changed have not agreed yet"
        repeated = False
        try:
            async with asyncio.timeout_at(until):
                while self._seat.changes_voters:  # a new term begins
                    await self._seat.stirs()
                if not self._may_write():
                    return self._refused(client_op_id)
                why = "what this leader goes on from has not all its effect here yet"
                while (term := election.leading) and not self._is_ready(term):
                    await self._seat.stirs()
                level = self._checked(level)
            why = "another transaction was open here for as long as that"
            async with contextlib.AsyncExitStack() as stack:
                opening = stack.enter_async_context(
                    self._space.transaction(client_op_id, wait=False)
                )
                if engine.turn.locked():
                    async with asyncio.timeout_at(until):
                        tx = await opening
                else:
                    tx = await opening
                repeated = tx.repeated
                problem = None
                page = tx[name]
                exists = (strict or operation == "delete") and VALUE in page
                if strict and not repeated and operation == "create" and exists:
                    problem = f"{key} is there already", ALREADY_EXISTS
                elif strict and not repeated and operation != "create" and not exists:
                    problem = f"there is no {key}", NOT_FOUND
                elif operation == "delete":
                    if not exists:
                        page[VALUE] = None  # it has its place in the log all the same
                    del page[VALUE]
                else:
                    page[VALUE] = value
            if problem is not None:
                return self._failed(*problem, client_op_id)
            term = engine.leadership.leading
            index = engine.newest_index
            try:
                await tx.receipt
            except StoreFull:
                raise  # SQLite has taken it back
            except StoreError as error:  # maybe it reached the disk all the same
                return self._unknown(
                    self._failed("", "", client_op_id), STORE_FAILED, str(error)
                )
        except NotLeader:
            return self._refused(client_op_id)
        except TimeoutError:
            return self._failed(why, TIMEOUT, client_op_id)
        except Closed as error:
            if not self._closed:
                raise
            return self._failed(str(error), MANAGER_CLOSED, client_op_id)
        except (Invalid, Refused, TransactionOpen):
            raise
        except SyncError as error:
            return self._failed(str(error), STORE_FAILED, client_op_id)
        actor, seq = tx.receipt.actor, tx.receipt.seq
        assert actor is not None, "who writes has an actor"
        sequence: int | None = index
        named: Token | None
        if not repeated:
            self._metrics.events_emitted += 1
            named = self._started.reads.named(index, actor, seq)
        elif self._is_of_present_log(actor):
            index = sequence = engine.index_of(actor, seq) or index
            named = self._started.reads.named(index, actor, seq)
        else:  # of a log that was ended: the present one goes on from it
            sequence, named = None, self._started.reads.named_entry(index)
        result = LeaderFollowerWriteResult(
            True,
            sequence,
            "ok",
            level,
            term.number if term is not None else None,
            self._is_queued(),
            named=named,
            leader_id=self.leader_id,
            client_op_id=client_op_id,
        )
        if not election.holds_lease:
            why = "its lease ended before it was on disk; another one may lead"
            return self._unknown(result, STALE_LEADER, why)
        if level == "local":
            return result
        if term is None or (repeated and term.record.actor != actor):
            term = engine.leadership.leading
            if term is None:
                return self._unknown(result, STALE_LEADER, self._why_it_stopped())
        return await self._acknowledged(result, term.id, index, level, until)

    def _may_write(self) -> bool:
        election = self._election
        leads = election.leading is not None and election.holds_lease
        return leads and not self._seat.drains

    def _is_ready(self, term: Term) -> bool:
        """Whether all that a leader goes on from has its effect, and its clock was
        compared."""
        return self._election.has_time and self._space.engine.has_all_before(term)

    def _checked(self, level: Level | None) -> Level:
        voters = self._election.voters
        if level is None:
            return "majority" if voters else "local"
        if level in ("majority", "all") and not voters:
            raise Invalid(
                f"there are no voters, so nothing is acknowledged by {level}: give "
                "them when the leader is made, or say how many others",
                path="level",
            )
        if not isinstance(level, str):
            values.check_count(level, "level")
        elif level not in ("local", "majority", "all"):
            raise Invalid(
                'a level is "local", "majority", "all" or how many others',
                path="level",
            )
        return level

    async def _acknowledged(
        self,
        result: LeaderFollowerWriteResult,
        term: EntryId,
        index: int,
        level: Level,
        until: float,
    ) -> LeaderFollowerWriteResult:
        try:
            good = await self._seat.acks.until(index, term, level, expires=until)
        except TimeoutError:
            return self._unknown(
                result, TIMEOUT, f"it is not acknowledged by {level} yet"
            )
        if not good:
            return self._unknown(result, STALE_LEADER, self._why_it_stopped())
        return result

    def _why_it_stopped(self) -> str:
        if self._closed:
            return "this manager was closed before it was acknowledged"
        top = self._election.top
        if top is not None and top.leader != self._election.me:
            return "another leader goes on, who may not have it"
        return "no majority of the voters was heard in time; this node leads no more"

    def _is_queued(self) -> bool:
        engine, election = self._space.engine, self._election
        if engine.channels:
            return False
        if any(worker.health == "healthy" for worker in self._workers[:1]):
            return False
        now = asyncio.get_running_loop().time()
        heard = (now - f.heard_at <= self._timeout for f in election.followers.values())
        return not any(heard)

    def _refused(self, client_op_id: str | None) -> LeaderFollowerWriteResult:
        self._metrics.writes_rejected += 1
        known = self.leader_id if self.leader_id != self._node else None
        if not self._space.engine.keeper.terms.has_leader:
            why = "Nobody leads here: all are masters; write with the space."
            return self._failed(why, NOT_LEADER, client_op_id)
        if known is None:
            why = "Nobody is known to lead; it goes on when one does (see promote)."
            code = NOT_LEADER if self._has_led else FOLLOWER_READ_ONLY
            return self._failed(why, code, client_op_id)
        if self._has_led:
            why = "This node leads no more. Redirect to leader."
            return self._failed(why, NOT_LEADER, client_op_id, known)
        why = "Follower is read-only. Redirect to leader."
        return self._failed(why, FOLLOWER_READ_ONLY, client_op_id, known)

    def _failed(
        self,
        error: str,
        code: str,
        client_op_id: str | None,
        leader_id: str | None = None,
    ) -> LeaderFollowerWriteResult:
        return LeaderFollowerWriteResult(
            False,
            status="failed",
            error=error,
            error_code=code,
            leader_id=leader_id,
            client_op_id=client_op_id,
        )

    def _unknown(
        self, result: LeaderFollowerWriteResult, code: str, error: str
    ) -> LeaderFollowerWriteResult:
        return replace(
            result,
            success=False,
            status="unknown",
            error=error,
            error_code=code,
            leader_id=self.leader_id,
        )

    def _name(self, key: str) -> DocumentId:
        values.check_key(key, "key")
        return parse_document_id(f"{self._collection}/{key}")

    def _is_of_present_log(self, actor: ActorId) -> bool:
        terms = self._space.engine.keeper.terms
        term = terms.term_of(actor)
        return term is not None and term.record.mode == terms.mode_id

    # --- reading --------------------------------------------------------------------

    async def read(
        self,
        key: str,
        consistency: Consistency = "any",
        *,
        token: str | None = None,
        max_staleness_ms: int | None = None,
        timeout_ms: int = 5_000,
    ) -> Any:
        """Return the value of a key, or None; what `read_result` returns, without how
        it came about."""
        result = await self.read_result(
            key,
            consistency,
            token=token,
            max_staleness_ms=max_staleness_ms,
            timeout_ms=timeout_ms,
        )
        return result.value

    async def read_result(
        self,
        key: str,
        consistency: Consistency = "any",
        *,
        token: str | None = None,
        max_staleness_ms: int | None = None,
        timeout_ms: int = 5_000,
    ) -> ReadResult:
        """Return the value of a key and how it was read.

        `consistency`: "any" as it is here; "bounded" not older than `max_staleness_ms`
        (of the manager, if none is given); "strong" what every acknowledged write
        before has made it, from a leader that a majority has confirmed since. With
        `token`, nothing older than what the session has seen; waits for it. An empty
        token begins a session.

        Raises `StaleRead`, `NotLeader` (a strong read elsewhere), `HistoryDiverged`,
        `Invalid`, `Closed`. Safe to cancel.
        """
        self._check_open()
        return await self._started.reads.read(
            self._name(key),
            consistency,
            token,
            self._max_staleness_ms if max_staleness_ms is None else max_staleness_ms,
            timeout_ms,
        )

    async def caught_up_to(self, token: str, *, timeout_ms: int = 5_000) -> None:
        """Wait until what a session has seen shows here. Raises `StaleRead`,
        `HistoryDiverged`, `Invalid`, `Closed`. Safe to cancel."""
        self._check_open()
        await self._started.reads.reach(token, timeout_ms)

    @property
    def rescue(self) -> Rescue:
        """What was written and does not count: listed, replayed, dismissed."""
        return self._space.rescue

    # --- leading by hand ------------------------------------------------------------

    async def promote(
        self,
        *,
        require: Literal["majority", "i_accept_loss"] = "majority",
        reason: str = "",
        without: Iterable[str] = (),
        expected_term: int | None = None,
        timeout_ms: int = 10_000,
    ) -> None:
        """Make this node the leader, in a new term.

        Where there are voters a majority elects it; without, it leads from now on: two
        that do so at once both do, until they meet, and what the lesser one wrote goes
        to the rescue area. `require="i_accept_loss"` leads without a majority, and says
        who and why (`reason`) in the log. It leads on only where it hears from a
        majority of the voters: `without` names the devices that are lost for good and
        vote no more, as an owner may say. With `expected_term`, only while that is the
        highest term known here: somebody else has not decided meanwhile. Raises
        `PromotionFailed`; it leads already where it does.
        """
        self._check_open()
        await self._started.succession.promote(
            require=require,
            reason=reason,
            without=without,
            expected_term=expected_term,
            timeout_ms=timeout_ms,
        )
        self._note_role()

    async def demote(
        self, *, handoff: bool | None = None, timeout_ms: int = 10_000
    ) -> None:
        """Make this leader a follower.

        With `handoff` (by default where a follower is there who may lead) another one
        has all that was written, and leads, when this returns. Raises `PromotionFailed`
        where nobody took over in time: it leads on. A follower stays one.
        """
        self._check_open()
        await self._started.succession.demote(handoff, timeout_ms)
        self._note_role()

    async def switch_to_masters(self, *, timeout_ms: int = 10_000) -> None:
        """Let all write from now on: this leader's log ends with what it has written.

        Returns when a majority of the voters knows, so that nobody else is elected.
        Raises `NotLeader`; `Refused` for one who is no owner; `OutcomeUnknown` where no
        majority was reached in time: it is switched here, and counts unless they elect
        another leader before they hear of it.
        """
        self._check_open()
        await self._started.succession.switch_to_masters(timeout_ms)

    def get_voters(self) -> list[str]:
        """Return the ids of the devices whose majority decides."""
        return [base32(voter) for voter in self._election.voters]

    async def add_voter(self, device: str, *, timeout_ms: int = 10_000) -> None:
        """Let a device vote from now on: a follower that has nearly all, one at a time.

        One that came back from a backup, and may have voted without knowing it, votes
        again after this, whether it was a voter or not: a term begins without it first.
        Raises `PromotionFailed` where the voters before do not agree, `NotLeader`.
        """
        self._check_open()
        await self._started.succession.add_voter(device, timeout_ms)

    async def remove_voter(self, device: str, *, timeout_ms: int = 10_000) -> None:
        """Let a device vote no more; raises as `add_voter` does. A leader that removes
        itself hands over then, or leads no more where nobody takes over."""
        self._check_open()
        await self._started.succession.remove_voter(device, timeout_ms)
        self._note_role()

    # --- what goes on ---------------------------------------------------------------

    def _hear(self, author: DeviceId, body: bytes) -> None:
        self._inbox.append((author, body))
        self._bell.set()

    def _carry(self, notice: Notice) -> None:
        assert self._service is not None, "it carries where there is one"
        try:
            self._service.send(encode_notice(notice))
        except Exception as error:  # the links carry it, too
            log.warning("%s: the heartbeat service did not send: %r", self._node, error)

    def _heard_elsewhere(self, raw: object) -> None:
        if isinstance(raw, bytes) and self._takes_part:
            with contextlib.suppress(ValueError):
                self._space.engine.notices.hear(decode_notice(raw))

    async def _run(self, election: Election) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(election.next_time()):
                    await self._bell.heard()
            try:
                self._space.check_usable()
                async with self._seat.turn:
                    await self._step(election)
            except Closed:
                return
            except SyncError as error:
                log.warning("%s: %s", self._node, error)
                await asyncio.sleep(1)
                self._bell.set()
            except Exception:
                log.exception("%s: a bug", self._node)
                await asyncio.sleep(1)
            self._seat.stir()

    async def _step(self, election: Election) -> None:
        """Do all that is to do now."""
        engine = election.engine
        if engine.leadership.ballot.mode != engine.keeper.terms.mode_id:
            if not engine.keeper.terms.has_leader:
                await self._step_as_master(election)
                return
            engine.leadership.take_part(election.me)
            election.wait_anew()
            await engine.flush()
        self._note_log(engine.keeper.terms)
        await engine.settle_terms()
        await self._lead_after_a_failure(election)
        while self._inbox:
            author, body = self._inbox.popleft()
            try:
                said: Spoken = decode(body)
            except ValueError:
                continue
            await election.hear(author, said)
        await election.on_time()
        if election.advance():
            election.tell_commit()
        self._note_role()
        self._note_leader(election)
        self._note_rescued()
        election.note_applied()
        self._note_applied(election)
        election.report()
        self._seat.acks.settle()

    async def _lead_after_a_failure(self, election: Election) -> None:
        """A commit failed, and all that was known is read from the file again. Without
        voters nobody else would lead now: this one goes on, in a new term, once its
        disk lets it."""
        generation = election.engine.generation
        if generation != self._generation and self._role is ReplicationRole.LEADER:
            top = election.top
            is_ours = top is not None and top.leader == election.me
            self._generation = generation
            if election.leading is None and is_ours and not election.voters:
                try:
                    await election.stand("manual")
                except PromotionFailed as error:  # then somebody promotes a node
                    log.warning("%s leads no more: %s", self._node, error)
        self._generation = generation

    async def _step_as_master(self, election: Election) -> None:
        """All write: tell, once, that this is known, and count who knows it."""
        mode = election.engine.keeper.terms.mode_id
        while self._inbox:
            author, body = self._inbox.popleft()
            with contextlib.suppress(ValueError):
                election.note_mode(author, decode(body))
        if self._told_mode != mode:
            engine = election.engine
            while engine.committed_position != engine.keeper.position:
                await engine.flush()  # before anybody counts on it
            if engine.keeper.terms.mode_id == mode:
                self._told_mode = mode
                election.say_mode()
        self._note_role()
        self._note_rescued()
        self._seat.acks.settle()

    def _note_role(self) -> None:
        role = self.get_role()
        if role is not self._role:
            self._role = role
            self._has_led |= role is ReplicationRole.LEADER
            self._queue_event("roleChanged", RoleChanged(role, self.term))

    def _note_leader(self, election: Election) -> None:
        top = election.top
        if top is None:
            return
        if top.id != self._known_top:
            self._known_top = top.id
            self._told_failed = False
            if election.leading is None:
                # Somebody was elected: he has the time-out to be heard.
                now = asyncio.get_running_loop().time()
                election.contact = max(election.contact, now)
                election.deadline = max(election.deadline, now + self._timeout)
            record = top.record
            self._queue_event(
                "leaderChanged",
                LeaderChanged(record.node, top.number, record.how, record.reason),
            )
        if election.is_leader_healthy():
            self._told_failed = False
        elif not self._told_failed and top.leader != election.me:
            self._told_failed = True
            self._queue_event("leaderFailed", LeaderFailed(top.record.node, top.number))

    def _note_log(self, terms: Terms) -> None:
        """Each log counts from 1: what is told of one says nothing of the next."""
        if terms.has_leader and terms.mode_id != self._log:
            if self._log is not None:
                self._told = self._applied = 0
            self._log = terms.mode_id

    def _note_applied(self, election: Election) -> None:
        if election.leading is not None:
            self._applied = self._told = election.engine.newest_index
            return
        applied = election.engine.applied_index
        assert self._told is not None, "it was started"
        if applied > self._applied:
            self._metrics.events_applied += applied - self._applied
        elif applied < self._applied:
            self._told = min(self._told, applied)  # some of it was taken back
        self._applied = applied
        if applied > self._told:
            self._applied_bell.set()

    def _note_void(self, header: Header, seq: int, reason: str) -> None:
        name = header.actor, seq
        if reason not in RESCUED or name in self._rescued:
            return  # of no use, or made anew
        self._rescued.add(name)
        term = self._space.engine.keeper.terms.term_of(header.actor)
        node = "" if term is None else term.record.node
        self._rescued_new.append((header.term_index, node))
        self._bell.set()

    def _note_rescued(self) -> None:
        new, self._rescued_new = self._rescued_new, []
        for node in dict.fromkeys(node for _, node in new):
            indexes = [index for index, of in new if of == node]
            self._metrics.writes_rescued += len(indexes)
            what = WritesRescued(len(indexes), min(indexes), max(indexes), node)
            self._queue_event("writesRescued", what)

    def _queue_event(self, event: str, what: Any) -> None:
        if self._handlers.has(event):
            self._queue.append((event, what))
            self._told_bell.set()

    async def _tell_all(self) -> None:
        """Call the handlers of what happens, one event after the other."""
        while not self._closed:
            await self._told_bell.heard()
            while self._queue and not self._closed:
                await self._handlers.tell(*self._queue.popleft())

    async def _tell_applied(self) -> None:
        """The same for what takes effect, beside it: who is slow with a thousand writes
        hears at once that the leader has failed."""
        while not self._closed:
            await self._applied_bell.heard()
            assert self._told is not None, "it was started"
            if not self._handlers.has("eventApplied"):
                self._told = max(self._told, self._applied)
                continue
            log_of = self._space.engine.keeper.terms
            mode = log_of.mode_id
            for sequence, change in self._applied_since():
                await self._handlers.tell(
                    "eventApplied", EventApplied(sequence, change)
                )
                if log_of.mode_id != mode or self._closed:
                    break  # another log has begun meanwhile
                self._told = min(sequence, self._applied)

    def _applied_since(self) -> list[tuple[int, Change]]:
        """Return the next writes that took effect and were not told."""
        engine = self._space.engine
        assert self._told is not None, "it was started"
        found: list[tuple[int, Change]] = []
        for at, batch in engine.entries_from(self._told + 1, ENTRIES_A_TURN):
            changes = feed.told(engine.keeper, at - 1, at, batch)
            first = batch.header.term_index - len(changes) + 1
            for index, change in enumerate(changes, first):
                if self._told < index <= self._applied:
                    found.append((index, change))
        if found and found[-1][0] < self._applied:
            self._applied_bell.set()
        return found
