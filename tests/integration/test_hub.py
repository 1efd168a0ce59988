"""A running hub: it never loads the document code, and relays what it cannot read."""

import asyncio
import subprocess
import sys
from pathlib import Path

import syncengine
import transport
from syncengine.ids import DocumentId
from syncengine.log.batch import seal
from syncengine.log.change import Change, Touch

ROOT = Path(__file__).parent.parent.parent

PROBE = """
import asyncio, sys
import syncengine, transport

async def main():
    async with syncengine.open_hub(sys.argv[1]) as hub, transport.serve(hub) as server:
        print(server.address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        loaded = [m for m in sys.modules if m.startswith("syncengine.crdt")]
        print(len(loaded), sum(r.keeper.position for r in hub._relays.values()))

asyncio.run(main())
"""


async def test_a_hub_relays_without_the_document_code(tmp_path: Path) -> None:
    hub = subprocess.Popen(
        [sys.executable, "-c", PROBE, str(tmp_path / "hub.db")],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert hub.stdout is not None
    assert hub.stdin is not None
    address = hub.stdout.readline().strip()
    async with syncengine.open(":memory:") as a, syncengine.open(":memory:") as b:
        space = await a.namespace("home")
        async with space.transaction() as tx:
            tx["note/1"]["title"] = "x"
        async with transport.connect(a, address) as link:
            await link.synced()
            invite = await space.invite(hub=link.hub)
            # An operation of a version that nobody here knows:
            engine = space.engine
            assert engine.actor is not None
            assert engine.grant is not None
            head = engine.keeper.heads[engine.actor]
            change = Change(
                engine.actor, engine.next_seq, engine.clock.tick(), [],
                [Touch(DocumentId("note/9"), [[77, "future"]], 1)],
            )  # fmt: skip
            batch = seal(
                a.key,
                engine.keeper.namespace,
                engine.grant,
                head.id,
                [change],
                b"s" * 16,
            )
            await engine.take_in([batch])
            engine.next_seq += 1
            await link.synced()
            theirs = await b.join(str(invite))
            async with transport.connect(b) as other:
                await other.synced()
                async with asyncio.timeout(5):
                    while theirs.engine.delivery.version() != engine.delivery.version():
                        await asyncio.sleep(0.01)
    out, _ = hub.communicate("\n", timeout=20)

    loaded, rows = map(int, out.split())
    assert loaded == 0
    assert rows > 4
