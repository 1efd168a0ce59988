"""What an operator does: recover a follower with progress, sit out a partition, end a
split brain, decide about what was rescued, switch to many masters and back."""

import asyncio
import contextlib
from typing import Any

import syncengine, transport
from syncengine import LeaderFollowerManager, Replica

FAST: Any = {"heartbeat_interval_ms": 50, "heartbeat_timeout_ms": 250}


def node(name: str, role: Any, replica: Replica, **more: Any) -> LeaderFollowerManager:
    return LeaderFollowerManager(
        name, role, None, replica, "tenant-abc", **FAST, **more
    )


async def until(so: Any) -> None:
    while not so():  # many things may make it so
        await asyncio.sleep(0.01)


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(syncengine.open("one.db"))
        two = await stack.enter_async_context(syncengine.open("two.db"))
        space = await one.namespace("tenant-abc")
        leader = await stack.enter_async_context(node("leader-1", "leader", one))
        server = await stack.enter_async_context(transport.serve(one))
        invite = await space.invite("lead", hub=server.address)
        other = await two.join(invite, name="tenant-abc")
        for number in range(200):
            await leader.write(f"k{number}", number)

        # A follower with an empty (or lost) file begins from the beginning.
        follower = node("follower-1", "follower", two, last_applied_sequence=0)
        shown: list[float] = []
        follower.on("eventApplied", lambda event: shown.append(event.sequence / 2))
        failed: list[str] = []
        follower.on("leaderFailed", lambda event: failed.append(event.leader_id))
        await stack.enter_async_context(follower)
        async with transport.connect(two, server.address):
            await until(lambda: len(shown) == 200)
            print(f"Recovery progress: {shown[99]:.1f}%, {shown[199]:.1f}%")
            await until(
                lambda: follower.is_leader_healthy() and not follower.is_stale()
            )
        # The link is gone: a partition. Reads go on, and grow stale.
        await until(lambda: failed)
        print(f"Partition detected: cannot reach {failed[0]}")
        if follower.can_participate_in_election():
            await follower.promote(require="i_accept_loss", reason="the site is gone")
        await leader.write("k0", "by the old leader")
        await leader.write("only-here", 1)
        await follower.write("k0", "by the new leader")

        leaders = [n for n in (leader, follower) if n.get_role() == "leader"]
        if len(leaders) > 1:
            print("SPLIT BRAIN DETECTED!")
            for claimant in leaders:
                state = claimant.get_leader_state()
                assert state is not None
                print(f"Leader: {claimant.get_node_id()}, term {claimant.term}")
                print(f"  Sequence: {state.current_sequence}")
                print(f"  Followers: {', '.join(claimant.get_connected_followers())}")
        async with transport.connect(two, server.address):
            # Healing needs nobody: the higher term goes on, and what the other leader
            # wrote waits for a decision. Nothing is thrown away by its length.
            await until(lambda: leader.get_role() == "follower")
            await until(lambda: leader.leader_id == "follower-1")
            winner = follower.get_node_id()
            print(
                f"Winner: {winner}; {leader.get_node_id()} follows {leader.leader_id}"
            )
            for rescued in await follower.rescue.list():
                print(f"  rescued: {', '.join(rescued.documents)}")
            wrote = await follower.rescue.replay()  # what nobody wrote since
            print(f"  written again: {len(wrote)}; k0 is {await follower.read('k0')!r}")

            # Let all write, and one again.
            await follower.demote()
            await leader.promote()
            await leader.switch_to_masters()
            await until(lambda: other.mode == "multi-master")
            async with other.transaction() as tx:
                tx["entry/free"]["value"] = "anybody's"
            await until(lambda: len(space.engine.version) > 1)
            await space.switch_mode("leader-follower")
            await leader.promote()
            print(f"{leader.get_node_id()} leads again: {leader.get_role()}")


asyncio.run(main())
