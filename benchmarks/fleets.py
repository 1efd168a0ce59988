"""Fleets: how even partitions are, beside rendezvous hashing; how fast namespaces move.

Rendezvous hashing (Thaler and Ravishankar 1998) gives a partition to the hub whose hash
with it is the greatest: the usual choice where no table is kept.
"""

import asyncio
import hashlib
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import syncengine
import transport
from benchmarks.row import Row
from clients.demo.stage import own_environment
from syncengine import Fleet
from syncengine.ids import DeviceId, partition_of
from syncengine.replication.balancing import imbalance, spread
from syncengine.trust.placement import HubRecord

PARTITIONS = 64
FLEETS = 200  # of hubs with other ids
NAMESPACES = 100_000
MOVED = 60
WRITES = 40
BODY = "x" * 2_500

HUB = """
    import asyncio, sys
    import syncengine, transport

    async def main(path, fleet):
        async with (syncengine.open_hub(path, fleet=fleet, keep_moved=0) as hub,
                    transport.serve(hub) as server):
            print(server.address, flush=True)
            await server.serve_forever()

    asyncio.run(main(*sys.argv[1:]))
"""


def run() -> list[Row]:
    """Measure balance, then moves between processes."""
    own_environment()
    return [*_balance(), *asyncio.run(_moves())]


# --- balance ---


def _hubs(seed: int, many: int) -> list[HubRecord]:
    return [
        HubRecord(
            DeviceId(hashlib.sha256(b"%d %d" % (seed, number)).digest()), "ws://", None
        )
        for number in range(many)
    ]


def _rendezvous(hubs: list[HubRecord]) -> bytes:
    def score(hub: HubRecord, partition: int) -> bytes:
        said = hub.device + partition.to_bytes(4, "big")
        return hashlib.blake2b(said, digest_size=8).digest()

    return bytes(
        max(range(len(hubs)), key=lambda at: score(hubs[at], partition))
        for partition in range(PARTITIONS)
    )


def _balance() -> list[Row]:
    rows: list[Row] = []
    for many in (3, 5, 12):
        table = [
            imbalance(hubs, spread(hubs, [None] * PARTITIONS))
            for seed in range(FLEETS)
            if (hubs := _hubs(seed, many))
        ]
        hashed = [
            imbalance(hubs, _rendezvous(hubs))
            for seed in range(FLEETS)
            if (hubs := _hubs(seed, many))
        ]
        rows.append(
            Row(f"64 partitions on {many} hubs, the fullest", "of its share",
                [max(table)], 1.0, [sum(hashed) / FLEETS], "rendezvous hashing, mean")
        )  # fmt: skip
    counts = [0] * PARTITIONS
    for number in range(NAMESPACES):
        counts[partition_of(hashlib.sha256(b"%d" % number).digest())] += 1
    fullest = max(counts) * PARTITIONS / NAMESPACES
    rows.append(
        Row("100,000 namespaces in 64 partitions, the fullest", "of its share",
            [fullest], 1.1)
    )  # fmt: skip
    return rows


# --- moves ---


async def _moves() -> list[Row]:
    rates: list[float] = []
    sizes: list[float] = []
    pauses: list[float] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            rate, size, pause = await _move(Path(folder))
        rates.append(rate)
        sizes.append(size)
        pauses.append(pause)
    return [
        Row("a hub's half moves to another, of 60 namespaces of 100 kB", "namespaces/s",
            rates, None),
        Row("the same", "MB/s", sizes, None),
        Row("the same, the longest that a writer waited for a hub meanwhile", "s",
            pauses, None),
    ]  # fmt: skip


async def _move(folder: Path) -> tuple[float, float, float]:
    hubs: list[subprocess.Popen[str]] = []
    async with (
        syncengine.open(folder / "op.db") as operator,
        syncengine.open(folder / "ann.db") as ann,
    ):
        fleet = Fleet(await operator.namespace("fleet"))
        await fleet.found(PARTITIONS)
        try:
            addresses = [_start(folder, name, fleet, hubs) for name in ("a", "b")]
            async with transport.connect(operator, addresses[0]) as link:
                await fleet.add(addresses[0])
                await link.synced()
            teams = [await ann.namespace(f"team {n}") for n in range(MOVED)]
            for team in teams:
                for number in range(WRITES):
                    async with team.transaction(wait=False) as tx:
                        tx[f"note/{number}"]["body"] = BODY + str(number)
            async with (
                transport.connect(ann, addresses[0]) as link,
                transport.connect(operator, addresses[1]),
            ):
                await link.synced()
                writing = asyncio.create_task(_write_on(teams))
                began = time.monotonic()
                await fleet.add(addresses[1])
                load = await _settled(fleet)
                seconds = time.monotonic() - began
                writing.cancel()
                (waits,) = await asyncio.gather(writing)
        finally:
            for hub in hubs:
                hub.kill()
                hub.wait()
    there = load[addresses[1].split("#")[1].split(".")[0]]
    return there.namespaces / seconds, there.bytes / 1e6 / seconds, max(waits)


def _start(
    folder: Path, name: str, fleet: Fleet, hubs: list[subprocess.Popen[str]]
) -> str:
    hub = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HUB), str(folder / f"{name}.db"),
         fleet.space.id],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    hubs.append(hub)
    assert hub.stdout is not None
    return hub.stdout.readline().strip()


async def _settled(fleet: Fleet) -> dict[str, Any]:
    while True:
        load = await fleet.ask_load(within=0.1)
        there = sum(hub.namespaces for hub in load.values())
        moving = any(hub.moving or hub.kept for hub in load.values())
        heard = {hub.number for hub in load.values()} == {fleet.placement.number}
        if len(load) == 2 and there == MOVED and heard and not moving:
            return load
        await asyncio.sleep(0.02)


async def _write_on(teams: list[Any]) -> list[float]:
    """Write in one namespace after the other; return how long each write was not yet
    on a hub's disk."""
    waits: list[float] = []

    async def write(team: Any) -> None:
        async with team.transaction() as tx:
            tx["note/0"]["title"] = str(len(waits))
        began = time.monotonic()
        await tx.receipt.durable_on("hub")
        waits.append(time.monotonic() - began)

    try:
        while True:
            for team in teams:
                await asyncio.shield(asyncio.ensure_future(write(team)))
    except asyncio.CancelledError:
        return waits
