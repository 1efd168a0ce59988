"""One leader writes, three followers serve reads; lag is watched, nodes come and go."""

import asyncio
import contextlib

import syncengine, transport
from clients import ReadRouter, SessionConsistentClient
from syncengine import LeaderFollowerManager


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        home = await stack.enter_async_context(syncengine.open("leader.db"))
        space = await home.namespace("tenant-abc")
        leader = LeaderFollowerManager("leader-1", "leader", None, home, "tenant-abc")
        await stack.enter_async_context(leader)
        server = await stack.enter_async_context(transport.serve(home))
        invite = await space.invite("read", hub=server.address, uses=3)

        followers: list[LeaderFollowerManager] = []
        copies: list[syncengine.Space] = []
        for number in range(1, 4):  # add a follower: a file, a link, a manager
            replica = await stack.enter_async_context(
                syncengine.open(f"follower-{number}.db")
            )
            copies.append(await replica.join(invite, name="tenant-abc"))
            await stack.enter_async_context(transport.connect(replica, server.address))
            follower = LeaderFollowerManager(
                f"follower-{number}", "follower", None, replica, "tenant-abc"
            )
            await stack.enter_async_context(follower)
            await leader.register_follower(follower.get_node_id())
            followers.append(follower)

        result = await leader.write(
            "customer-123", {"name": "Alice", "email": "alice@example.com"}, "create"
        )
        print(f"Write sequence: {result.sequence}")
        for follower in followers:
            await follower.caught_up_to(str(result.token))
            print(follower.get_node_id(), await follower.read("customer-123"))
            while follower.is_stale():  # until it has heard that nothing is missing
                await asyncio.sleep(0.01)
        refused = await followers[0].write("customer-456", {"name": "Bob"}, "create")
        print(refused.error, refused.error_code, refused.leader_id)

        router = ReadRouter(leader, followers)
        asked = [router.next_node() for _ in range(3)]
        print("Reads go to", ", ".join(one.get_node_id() for one in asked))
        assert await router.read("customer-123", prefer_fresh=True)  # from the leader
        client = SessionConsistentClient(leader, followers)
        await client.write("customer-123", {"name": "Alice Smith"})
        print("I see what I wrote:", await client.read("customer-123"))

        state, metrics = leader.get_leader_state(), leader.get_metrics()
        assert state is not None
        print("=== Replication Metrics ===")
        print(f"Current sequence: {state.current_sequence}")
        print(f"Events emitted: {metrics.events_emitted}")
        print(f"Follower count: {state.follower_count}")
        for follower_id, info in sorted(state.followers.items()):
            lag = leader.get_follower_lag(follower_id)
            print(f"Follower {follower_id}: lag = {lag} events")
            if lag is not None and lag > 100:
                print("  WARNING: High lag detected!")
            assert info.last_reported_sequence <= state.current_sequence

        # Remove a follower: nobody waits for it, and its file is empty then.
        await leader.unregister_follower("follower-3")
        await followers[2].close()
        await copies[2].clear()
        print("follower-3 is removed")


asyncio.run(main())
