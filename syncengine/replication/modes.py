"""Who may append to the log of a namespace: all, or the leader of the present term.

The mode is an entry of the log itself, with where each actor stood when it was
switched: what somebody had written behind that, and nobody here knew of, has no effect
with a leader, and waits in the rescue area. So a namespace is switched while all are at
work.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from syncengine import limits
from syncengine.errors import Invalid, Refused
from syncengine.ids import DeviceId, EntryId
from syncengine.protocol.codes import Code
from syncengine.replication.host import sealed
from syncengine.trust.entry import Entry
from syncengine.trust.leadership import ModeRecord, make_mode
from syncengine.trust.membership import Ops

if TYPE_CHECKING:
    from syncengine.replication.space import Space

Mode = Literal["multi-master", "leader-follower"]
MULTI_MASTER: Mode = "multi-master"
LEADER_FOLLOWER: Mode = "leader-follower"


def mode_of(space: "Space") -> Mode:
    """Return who may write in a namespace now."""
    has_leader = space.engine.keeper.terms.has_leader
    return LEADER_FOLLOWER if has_leader else MULTI_MASTER


async def switch(space: "Space", mode: Mode, voters: Sequence[DeviceId] = ()) -> None:
    """Switch the mode from what is here on. See `Space.switch_mode`."""
    engine = space.engine
    keeper, terms = engine.keeper, engine.keeper.terms
    me = DeviceId(engine.key.public)
    if mode not in (MULTI_MASTER, LEADER_FOLLOWER):
        raise Invalid(f"a mode is {MULTI_MASTER!r} or {LEADER_FOLLOWER!r}", path="mode")
    if voters and mode != LEADER_FOLLOWER:
        raise Invalid("only a namespace with a leader has voters", path="voters")
    if len(set(voters)) != len(voters) or len(voters) > limits.VOTERS_MAX:
        raise Invalid(
            f"there are up to {limits.VOTERS_MAX} voters, each once",
            path="voters",
            bound=limits.VOTERS_MAX,
        )
    genesis = keeper.membership.genesis
    is_owner = genesis is not None and me in genesis.owners
    if not is_owner and not keeper.membership.may(me, Ops.ADMIN | Ops.LEAD):
        raise Refused(
            Code.NOT_GRANTED,
            "only an owner says whether a namespace has a leader; its first leader is "
            "started there",
            retry="after_action",
        )
    if terms.voters and engine.leadership.leading is None:
        raise Refused(
            Code.NOT_GRANTED,
            "where there are voters the leader switches the mode: another one cannot "
            "know all that was acknowledged; promote this node first",
            retry="after_action",
        )
    await sealed(engine)

    def made(heads: list[EntryId]) -> Entry:
        before, top = terms.mode, terms.top
        frontier = {
            actor: (head.seq, head.id)
            for actor, head in keeper.heads.items()
            if terms.term_of(actor) is None
        }
        closed = None
        if top is not None:
            closed = top.id, keeper.last_index(top.record.actor)
        number = 1 if before is None else before[1].number + 1
        has_leader = mode == LEADER_FOLLOWER
        record = ModeRecord(me, number, has_leader, tuple(voters), frontier, closed)
        return make_mode(engine.key, keeper.namespace, heads, record)

    await engine.switch(made)
