"""Three voters; the leader is killed with `kill -9`, another one goes on, and what was
acknowledged is there. Where the network was parted, what does not count is rescued."""

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path

import syncengine, transport
from syncengine import LeaderFollowerManager

LEADER = """
import asyncio, json, sys
import syncengine, transport

async def main(path):
    async with syncengine.open(path) as replica:
        space = await replica.namespace("shop")
        node = syncengine.LeaderFollowerManager(
            "node-1", "leader", None, replica, "shop",
            heartbeat_interval_ms=100, heartbeat_timeout_ms=500)
        async with node, transport.serve(replica) as server:
            invite = await space.invite("lead", hub=server.address, uses=2)
            print(json.dumps([server.address, replica.id, str(invite)]), flush=True)
            await node.add_voter(replica.id)
            for device in sys.stdin.readline().split():
                while True:
                    try:
                        await node.add_voter(device)
                        break
                    except syncengine.PromotionFailed:  # it follows first
                        await asyncio.sleep(0.05)
            for number in range(1_000_000):
                result = await node.write(f"order-{number}", number)
                if result.success:
                    print(number, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def main() -> None:
    folder = Path(tempfile.mkdtemp())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEADER, str(folder / "node-1.db")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address, _, invite = json.loads(await process.stdout.readline())
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[LeaderFollowerManager] = []
        devices: list[str] = []
        other = ""
        for number in (2, 3):
            path = str(folder / f"node-{number}.db")
            replica = await stack.enter_async_context(syncengine.open(path))
            await replica.join(invite, name="shop")
            for where in filter(None, (address, other)):
                await stack.enter_async_context(transport.connect(replica, where))
            server = await stack.enter_async_context(transport.serve(replica))
            other = server.address
            node = LeaderFollowerManager(
                f"node-{number}", "follower", None, replica, "shop",
                heartbeat_interval_ms=100, heartbeat_timeout_ms=500,
            )  # fmt: skip
            node.on("leaderFailed", lambda failed: print(failed.leader_id, "failed"))
            nodes.append(await stack.enter_async_context(node))
            devices.append(replica.id)
        process.stdin.write(" ".join(devices).encode() + b"\n")
        acknowledged = -1
        while acknowledged < 50:
            acknowledged = int(await process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in (await process.stdout.read()).split():
            acknowledged = int(line)
        await process.wait()
        print("node-1 is killed")

        while not (leaders := [n for n in nodes if n.get_role() == "leader"]):
            await asyncio.sleep(0.02)
        (leader,) = leaders
        print(f"Node {leader.get_node_id()} is now leader, in term {leader.term}")
        found = [await leader.read(f"order-{n}") for n in range(acknowledged + 1)]
        assert found == list(range(acknowledged + 1))
        print(f"all {acknowledged + 1} acknowledged orders are there")
        result = await leader.write("order-new", "on we go")
        print(f"Durably written at sequence {result.sequence}, by {result.level}")


asyncio.run(main())
