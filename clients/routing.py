"""Which of several nodes a read or a write goes to: fresh, near, or of a session.

What is routed to are managers in this process, or anything else with their methods: a
client of a web service that wraps one, say.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

from syncengine.errors import (
    Closed,
    Invalid,
    NotFound,
    NotLeader,
    StaleRead,
)
from syncengine.replication.multi_master import (
    MasterWriteResult,
    MultiMasterManager,
)
from syncengine.replication.roles import (
    FollowerState,
    LeaderFollowerWriteResult,
    Operation,
    ReadResult,
    ReplicationRole,
)
from syncengine.replication.tokens import Token
from syncengine.replication.versions import Entity

Guarantee = Literal[
    "read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads"
]
CAUSAL: tuple[Guarantee, ...] = get_args(Guarantee)
"""All four: what the session does is seen in its order."""


class Node(Protocol):
    """What is asked of a node of a namespace with a leader."""

    def get_node_id(self) -> str: ...
    @property
    def is_closed(self) -> bool: ...
    def get_role(self) -> ReplicationRole: ...
    def is_stale(self) -> bool: ...
    def get_follower_state(self) -> FollowerState | None: ...
    async def read(self, key: str) -> Any: ...
    async def read_result(
        self, key: str, *, token: str | None = None
    ) -> ReadResult: ...
    async def write(
        self,
        key: str,
        value: Any = None,
        operation: Operation = "update",
        *,
        client_op_id: str | None = None,
    ) -> LeaderFollowerWriteResult: ...
    async def caught_up_to(self, token: str, *, timeout_ms: int = 5_000) -> None: ...


class ReadRouter:
    """Spreads reads over followers that are fresh.

        router = ReadRouter(leader, followers)
        await router.read("customer-123")
        await router.read("customer-123", prefer_fresh=True)

    `leader` is who led when it was made; whoever of all leads when something is asked
    is taken for it.
    """

    def __init__(self, leader: Node, followers: Iterable[Node] = ()):
        self.leader = leader
        self.followers = list(followers)
        self.round_robin_index = 0

    async def read(self, key: str, *, prefer_fresh: bool = False) -> Any:
        """Return the value of a key: from the leader with `prefer_fresh`, else from the
        next follower that is not stale; from the leader where all are. Raises
        `NotLeader` with `prefer_fresh` while nobody leads, `Closed` where all nodes
        are."""
        for _ in self._nodes:
            with contextlib.suppress(Closed):  # just now: the next one is asked
                return await self.next_node(prefer_fresh=prefer_fresh).read(key)
        raise Closed("all nodes are closed")

    @property
    def _nodes(self) -> list[Node]:
        return [self.leader, *self.followers]

    def next_node(self, *, prefer_fresh: bool = False) -> Node:
        """Return who is asked next."""
        leader = self.present_leader
        if prefer_fresh:
            if leader.get_role() != "leader":
                raise NotLeader("nobody leads now, so nobody knows what is fresh")
            return leader
        fresh = [n for n in self._nodes if n is not leader and _is_fresh(n)]
        if not fresh:
            return leader
        node = fresh[self.round_robin_index % len(fresh)]
        self.round_robin_index += 1
        return node

    @property
    def present_leader(self) -> Node:
        """Who leads now; while nobody does, who did, or whoever is there."""
        there = [node for node in self._nodes if not node.is_closed]
        for node in there:
            if node.get_role() == "leader":
                return node
        return self.leader if self.leader in there else (there or [self.leader])[0]


def _is_fresh(node: Node) -> bool:
    return not node.is_closed and node.get_role() == "follower" and not node.is_stale()


class SessionConsistentClient:
    """One client's reads and writes, in an order that makes sense to it.

        client = SessionConsistentClient(leader, followers)
        await client.write("k", 1)
        await client.read("k")  # 1, whoever is asked

    Args:
        leader: Who leads; whoever of all leads when it writes is taken for it.
        followers: Where it reads.
        guarantees: Which of the four it keeps; all of them by default: read your
            writes, monotonic reads, monotonic writes, writes follow reads.
        token: Where an earlier session, of a process that has ended, say, had got to:
            its `token`.
        timeout_ms: How long somebody is waited for who has not seen it yet.

    Raises `Invalid` for a text that is no token, or another guarantee.
    """

    def __init__(
        self,
        leader: Node,
        followers: Iterable[Node] = (),
        *,
        guarantees: Sequence[Guarantee] = CAUSAL,
        token: str | None = None,
        timeout_ms: int = 5_000,
    ):
        for guarantee in guarantees:
            if guarantee not in CAUSAL:
                raise Invalid(
                    f"there is no guarantee {guarantee!r}; there are "
                    f"{', '.join(CAUSAL)}",
                    path="guarantees",
                )
        self._router = ReadRouter(leader, followers)
        self._guarantees = frozenset(guarantees)
        self._timeout_ms = timeout_ms
        self._token: Token | None = None
        if token:
            self._token = Token.parse(token)
        self.last_write_sequence = 0

    @property
    def leader(self) -> Node:
        """Who leads now, as far as it is known."""
        return self._router.present_leader

    @property
    def followers(self) -> list[Node]:
        """Where it reads."""
        return list(self._router.followers)

    @property
    def token(self) -> str:
        """What this session has seen, as text: give it to the next one. Empty: nothing
        yet."""
        return self._token.encode() if self._token is not None else ""

    async def write(
        self,
        key: str,
        value: Any = None,
        operation: Operation = "update",
        *,
        client_op_id: str | None = None,
    ) -> LeaderFollowerWriteResult:
        """Write a key on the leader, once that has seen what this session has; return
        what became of it. Raises `StaleRead` when it has not in time,
        `HistoryDiverged` when what was seen was taken back."""
        leader = self._router.present_leader
        if self._guarantees & {"monotonic_writes", "writes_follow_reads"}:
            try:
                await self._reach(leader)
            except Closed:
                leader = self._router.present_leader  # another one, or it raises again
                await self._reach(leader)
        result = await leader.write(key, value, operation, client_op_id=client_op_id)
        if result.success and result.sequence is not None:
            self.last_write_sequence = max(self.last_write_sequence, result.sequence)
            if self._guarantees & {"read_your_writes", "monotonic_writes"}:
                self._saw(result.token)
        return result

    async def read(self, key: str) -> Any:
        """Return the value of a key as a node has it that has seen what this session
        has: a follower if one has, else the leader, else who has it in time. Raises
        `StaleRead`, `HistoryDiverged`."""
        return (await self.read_result(key)).value

    async def read_result(self, key: str) -> ReadResult:
        """Return the same, with how it was read."""
        wanted = self._guarantees & {"read_your_writes", "monotonic_reads"}
        token = self.token if wanted else ""
        error: Exception | None = None
        for node in self._candidates():
            try:
                if token:
                    await self._reach(node)
                result = await node.read_result(key, token=token)
            except (StaleRead, NotLeader, Closed) as failed:
                error = failed
                continue
            if self._guarantees & {"monotonic_reads", "writes_follow_reads"}:
                self._saw(result.token)
            return result
        raise error or NotLeader("nobody is there to be asked")

    def forget(self) -> None:
        """Begin a new session: after `HistoryDiverged`, when the person was told."""
        self._token = None
        self.last_write_sequence = 0

    def _candidates(self) -> list[Node]:
        """Return whom to ask, first who can answer at once."""
        leader = self._router.present_leader
        least = self._token.sequence if self._token is not None else 0
        able = [node for node in self._router.followers if _applied(node) >= least]
        start = self._router.round_robin_index % len(able) if able else 0
        self._router.round_robin_index += 1
        able = able[start:] + able[:start]
        rest = [node for node in self._router.followers if node not in able]
        rest.sort(key=_applied, reverse=True)
        first = [node for node in able if node is not leader]
        return [*first, leader, *rest]

    async def _reach(self, node: Node) -> None:
        if self._token is not None:
            await node.caught_up_to(self.token, timeout_ms=self._timeout_ms)

    def _saw(self, token: str | None) -> None:
        if not token:
            return
        new, old = Token.parse(token), self._token
        if (
            old is not None
            and new.mode == old.mode
            and (new.sequence, new.term) < (old.sequence, old.term)
        ):
            return
        self._token = new


def _applied(node: Node) -> int:
    state = node.get_follower_state()
    return -1 if state is None else state.applied_sequence


class RegionRouter:
    """Writes and reads of users at the master of their region; at the next nearest
    while that one, or its replica, is closed.

        router = RegionRouter(masters, region_of=lambda user: user.region)
        await router.write("customer-123", {"name": "Alice"}, user=alice)

    Args:
        masters: The master of each region, by its name.
        region_of: The region of a user.
        nearest: For a region the others, the nearest first; by default in the order of
            `masters`.

    What a user wrote is read wherever he goes: give `token` of a write, or of
    `session_token()`, and the master waits until it shows that.
    """

    def __init__(
        self,
        masters: Mapping[str, MultiMasterManager],
        region_of: Callable[[Any], str],
        nearest: Mapping[str, Sequence[str]] | None = None,
    ):
        if not masters:
            raise Invalid("there is no region", path="masters")
        self._masters = dict(masters)
        self._region_of = region_of
        self._nearest = nearest or {}

    def master_of(self, user: Any) -> MultiMasterManager:
        """Return the master that serves a user now. Raises `NotFound` where all that
        could are closed."""
        region = self._region_of(user)
        order = [region, *self._nearest.get(region, ()), *self._masters]
        for name in order:
            master = self._masters.get(name)
            if master is not None and not master.is_closed:
                return master
        raise NotFound(f"no master serves {region!r}")

    async def write(self, entity_id: str, data: Any, *, user: Any) -> MasterWriteResult:
        """Write an entity at the user's master."""
        return await self.master_of(user).write(entity_id, data)

    async def get_entity(
        self, entity_id: str, *, user: Any, token: str | None = None
    ) -> Entity | None:
        """Return an entity as the user's master shows it, not older than `token`.
        Raises `StaleRead`, `HistoryDiverged`."""
        master = self.master_of(user)
        if token:
            await master.caught_up_to(token)
        return await master.get_entity(entity_id)
