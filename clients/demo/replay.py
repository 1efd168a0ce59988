"""Replaying a recorded session: each agent a device, each edit at its own version."""

import asyncio
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from clients.cli.output import NO, Output
from clients.demo.stage import (
    DeviceProcess,
    HubProcess,
    Proxy,
    count_concurrent,
    examined,
    make_folder,
    own_environment,
    read_back,
    sha256,
)
from syncengine.errors import Invalid, SyncError

# Beyond this many agents several share a process; each keeps its own replica.
PROCESSES_MAX = 8

# The longest recording known takes a tenth of this.
REPLAY_SECONDS_MAX = 900.0


def load(path: str) -> tuple[list[list[dict[str, Any]]], int, str]:
    """Return (transactions, agents, final text) of a trace, sequential or not."""
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rt") as file:
            trace = json.load(file)
        if trace.get("kind") == "concurrent":
            return trace["txns"], trace["numAgents"], trace["endContent"]
        txns = [
            {"agent": 0, "parents": [i - 1] if i else [], "patches": txn["patches"]}
            for i, txn in enumerate(trace["txns"])
        ]
        return txns, 1, trace["endContent"]  # type: ignore[return-value]  # dicts either way
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise Invalid(f"not a recorded session: {error}", path=path) from error


def plans(
    txns: list[Any], agents: int, actors: list[str], first: list[int]
) -> list[list[Any]]:
    """Return each agent's edits: [index, [[actor, seq] it needs], patches].

    `first` is the seq with which each agent's edits begin.
    """
    ends: list[int] = []  # last seq of each transaction
    versions: list[list[int]] = []  # per agent: how far each transaction had seen
    next_seq = list(first)
    edits: list[list[Any]] = [[] for _ in range(agents)]
    known = [[0] * agents for _ in range(agents)]  # what an agent saw last
    for index, txn in enumerate(txns):
        agent: int = txn["agent"]
        parents: list[int] = txn["parents"]
        seen: list[int] = [0] * agents
        for parent in parents:
            seen = [*map(max, seen, versions[parent])]
            who: int = txns[parent]["agent"]
            seen[who] = max(seen[who], ends[parent])
        size = sum(deleted + len(inserted) for _, deleted, inserted in txn["patches"])
        needs = [
            [actors[other], seen[other]]
            for other in range(agents)
            if other != agent and seen[other] > known[agent][other]
        ]
        known[agent] = [*map(max, known[agent], seen)]
        end = next_seq[agent] + size - 1 if size else seen[agent]
        ends.append(end)
        next_seq[agent] += size
        versions.append(seen)
        edits[agent].append([index, needs, txn["patches"]])
    return edits


async def replay(out: Output, path: str, keep: str | None) -> int:
    """Replay the trace at `path`; print the outcome; return the exit code."""
    own_environment()
    if keep is not None:
        make_folder(keep)
    txns, agents, end_content = load(path)
    with tempfile.TemporaryDirectory(prefix="syncengine-demo-") as scratch:
        folder = make_folder(keep or scratch)
        return await _replay(out, folder, txns, agents, end_content)


async def _replay(
    out: Output, folder: Path, txns: list[Any], agents: int, end_content: str
) -> int:
    proxy = Proxy()
    await proxy.start()
    hub = HubProcess(folder, proxy)
    processes = [DeviceProcess() for _ in range(min(agents, PROCESSES_MAX))]
    names = [f"agent{i}" for i in range(agents)]
    plays = {name: processes[i % len(processes)] for i, name in enumerate(names)}
    files = [folder / f"{name}.db" for name in names]
    began = time.monotonic()
    try:
        await hub.start()
        for process in processes:
            await process.start()
        out.note(f"hub: process {hub.pid}; devices: {[p.pid for p in processes]}")
        opened = await _open_all(plays, names, files, hub)
        actors = [event["actor"] for event in opened]
        first = [event["next_seq"] for event in opened]
        edits = plans(txns, agents, actors, first)
        for index, name in enumerate(names):
            plan = folder / f"{name}.json"
            plan.write_text(
                json.dumps(
                    {
                        "actors": actors,
                        "first": {a: s - 1 for a, s in zip(actors, first, strict=True)},
                        "edits": edits[index],
                    }
                )
            )
            await plays[name].tell(name, "replay", path=str(plan))
        waiting = 0.0
        for name in names:
            done = await plays[name].hear(name, "replayed", REPLAY_SECONDS_MAX)
            waiting += done["waiting"]
            out.note(f"{name}: {done['edits']} edits, {done['seconds']:.1f} s")
        await _wait_equal(plays, names)
        seconds = time.monotonic() - began
        own = {name: (await plays[name].status(name))["edits"] for name in names}
        pids = {name: plays[name].pid for name in names}
    finally:
        for process in processes:
            await process.stop()
        await hub.stop()
        await proxy.stop()
    texts = [await read_back(file, "demo/text/body") for file in files]
    changes, concurrent = count_concurrent(files[0])
    clean = await examined([*files, folder / "hub.db"])
    equal = len(set(texts)) == 1
    matches = texts[0] == end_content
    met = concurrent > 0 or agents == 1
    converged = equal and matches and clean and met
    summary: dict[str, Any] = {
        "converged": converged,
        "replicas": agents,
        "edits": sum(own.values()),
        "edits_by_device": own,
        "changes_stored": changes,
        "concurrent_edits": concurrent,
        "text_sha256": sha256(texts[0]),
        "matches_end_content": matches,
        "doctor_clean": clean,
        "seconds": round(seconds, 2),
        "waiting_seconds": round(waiting, 2),
        "bytes_on_wire": proxy.bytes,
        "processes": {"hub": hub.pid, **pids},
        "files": {name: str(file) for name, file in zip(names, files, strict=True)},
    }
    out.result(
        summary,
        f"{summary['edits']} edits ({concurrent} concurrent) by {agents} devices in "
        f"{seconds:.1f} s, {proxy.bytes:,} bytes on the wire\n"
        f"text {summary['text_sha256'][:16]}: "
        f"{'the same everywhere' if equal else 'DIFFERENT'}, "
        f"{'as recorded' if matches else 'NOT as recorded'}; "
        f"doctor: {'clean' if clean else 'NOT clean'}"
        f"{'' if met else '; NOTHING was concurrent'}",
    )
    return 0 if converged else NO


async def _open_all(
    plays: dict[str, DeviceProcess],
    names: list[str],
    files: list[Path],
    hub: HubProcess,
) -> list[dict[str, Any]]:
    """Open every device, the first as founder, and bring all to the same start."""
    founder, *others = names
    opened: list[dict[str, Any]] = []
    await plays[founder].tell(founder, "open", db=str(files[0]))
    opened.append(await plays[founder].hear(founder, "open"))
    await plays[founder].tell(founder, "online", address=hub.address)
    await plays[founder].hear(founder, "synced")
    if others:
        address = hub.address.rpartition(".")[0]
        await plays[founder].tell(founder, "invite", hub=address, uses=len(others))
        invite = (await plays[founder].hear(founder, "invite"))["invite"]
        await plays[founder].tell(founder, "online", address=hub.address)
        await plays[founder].hear(founder, "synced")
        for name, file in zip(others, files[1:], strict=True):
            await plays[name].tell(name, "open", db=str(file), invite=invite)
            opened.append(await plays[name].hear(name, "open"))
            await plays[name].tell(name, "online", address=hub.address)
            await plays[name].hear(name, "synced")
    return opened


async def _wait_equal(plays: dict[str, DeviceProcess], names: list[str]) -> None:
    """Wait until every device shows the same text and has nothing pending."""
    states: list[dict[str, Any]] = []
    for _ in range(600):
        states = [await plays[name].status(name) for name in names]
        if (
            len({state["sha256"] for state in states}) == 1
            and len({state["applied"] for state in states}) == 1
            and not any(state["pending"] for state in states)
        ):
            return
        await asyncio.sleep(0.1)
    raise SyncError(f"the devices did not converge: {states}")
