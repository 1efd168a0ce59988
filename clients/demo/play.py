"""The default demo: devices type one text together, vanish, are killed, return."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

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

NAMES = ("laptop", "phone", "tablet", "desktop", "reader", "watch", "van", "shed")

# What each device types of the text; the whole of it would take minutes.
CHARS_PER_DEVICE = 4000

# With fewer a device is done before it can be killed while it types.
CHARS_PER_DEVICE_MIN = 300

CONVERGE_SECONDS_MAX = 60.0


class Stage:
    """What the audience sees, and what is measured."""

    def __init__(self, out: Output, folder: Path, names: list[str]):
        self.out = out
        self.folder = folder
        self.names = names
        self.proxy = Proxy()
        self.hub = HubProcess(folder, self.proxy)
        self.processes = {name: DeviceProcess() for name in names}
        self.states: dict[str, dict[str, Any]] = {name: {} for name in names}
        self.doing: dict[str, str] = dict.fromkeys(names, "starting")
        self.log: list[str] = []
        self.reconnects: dict[str, float] = {}
        self.began = time.monotonic()

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def say(self, text: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:5.1f} s  {text}")
        if not self._on_terminal:
            self.out.note(self.log[-1])

    @property
    def _on_terminal(self) -> bool:
        return not self.out.as_json and Console(stderr=True).is_terminal

    def table(self) -> Table:
        table = Table(title="one text, edited everywhere", title_justify="left")
        for column in ("device", "process", "link", "text", "pending", "edits", ""):
            table.add_column(column, justify="left")
        hashes = [state.get("sha256", "") for state in self.states.values()]
        for name in self.names:
            state = self.states[name]
            digest = state.get("sha256", "")
            same = hashes.count(digest) == len(hashes)
            process = self.processes[name].process
            table.add_row(
                name,
                str(process.pid) if process else "-",
                state.get("state", "-"),
                f"[{'green' if same else 'yellow'}]{digest[:8]}[/] "
                f"{state.get('length', 0):,}",
                str(state.get("pending", 0)),
                str(state.get("edits", 0)),
                self.doing[name],
            )
        table.caption = "\n".join(self.log[-6:])
        table.caption_justify = "left"
        return table

    async def watch(self) -> None:
        """Keep the picture fresh until cancelled."""
        if not self._on_terminal:
            while True:
                await self.refresh()
                await asyncio.sleep(0.5)
        with Live(console=Console(stderr=True), refresh_per_second=8) as live:
            try:
                while True:
                    await self.refresh()
                    live.update(self.table())
                    await asyncio.sleep(0.15)
            finally:
                live.update(self.table())

    async def refresh(self) -> None:
        for name in self.names:
            process = self.processes[name].process
            if self.doing[name] in ("starting", "killed") or process is None:
                continue
            try:
                self.states[name] = await self.processes[name].status(name)
            except (SyncError, ConnectionError):
                continue

    # --- acts ---------------------------------------------------------------------

    async def open(self, name: str, invite: str | None) -> None:
        await self.processes[name].start()
        order = {"db": str(self.file(name))}
        if invite is not None:
            order["invite"] = invite
        await self.processes[name].tell(name, "open", **order)
        await self.processes[name].hear(name, "open")
        await self.online(name)

    async def online(self, name: str) -> None:
        self.doing[name] = "connecting"
        await self.processes[name].tell(name, "online", address=self.hub.address)
        synced = await self.processes[name].hear(name, "synced")
        self.doing[name] = ""
        self.say(f"{name} is in sync after {synced['seconds'] * 1000:.0f} ms")

    async def come_back(self, name: str, label: str) -> None:
        """Reconnect and measure until all devices show the same."""
        began = time.monotonic()
        await self.online(name)
        await self.converge()
        self.reconnects[label] = round(time.monotonic() - began, 3)

    async def type(self, name: str, text: str, speed: float, seed: int) -> None:
        self.doing[name] = "typing"
        await self.processes[name].tell(name, "type", text=text, speed=speed, seed=seed)

    async def typed(self, name: str) -> None:
        await self.processes[name].hear(name, "typed")
        self.doing[name] = "done typing"

    async def all_live(self) -> None:
        """Wait until every device is connected."""
        async with asyncio.timeout(CONVERGE_SECONDS_MAX):
            while True:
                states = [await self.processes[n].status(n) for n in self.names]
                if all(state["state"] == "live" for state in states):
                    return
                await asyncio.sleep(0.02)

    async def converge(self) -> float:
        """Wait until all show the same and nothing is pending; return how long."""
        began = time.monotonic()
        while time.monotonic() - began < CONVERGE_SECONDS_MAX:
            states = [await self.processes[n].status(n) for n in self.names]
            self.states = dict(zip(self.names, states, strict=True))
            if (
                len({state["sha256"] for state in states}) == 1
                and len({state["applied"] for state in states}) == 1
                and not any(state["pending"] for state in states)
            ):
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        raise SyncError(f"no convergence after {CONVERGE_SECONDS_MAX:.0f} s")


async def play(
    out: Output, devices: int, speed: float, text: str | None, keep: str | None
) -> int:
    """Play the demo; print the outcome; return the exit code."""
    if not 2 <= devices <= len(NAMES):
        raise Invalid(f"--devices is 2 to {len(NAMES)}")
    if speed <= 0:
        raise Invalid("--speed is above 0")
    own_environment()
    source = _text(text)
    share = min(CHARS_PER_DEVICE, len(source) // devices)
    if share < CHARS_PER_DEVICE_MIN:
        raise Invalid(
            f"--text needs at least {CHARS_PER_DEVICE_MIN * devices} characters for "
            f"{devices} devices to type"
        )
    with tempfile.TemporaryDirectory(prefix="syncengine-demo-") as scratch:
        folder = make_folder(keep or scratch)
        stage = Stage(out, folder, list(NAMES[:devices]))
        await stage.proxy.start()
        watching: asyncio.Task[None] | None = None
        try:
            await stage.hub.start()
            watching = asyncio.create_task(stage.watch())
            edits, killed = await _acts(stage, source, share, speed)
        except SyncError as error:
            out.result({"converged": False, "error": str(error)}, f"failed: {error}")
            return NO
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            for process in stage.processes.values():
                await process.stop()
            await stage.hub.stop()
            await stage.proxy.stop()
        return await _verdict(stage, edits, killed)


def _text(path: str | None) -> str:
    """Return what is typed: the project's own protocol.md, or a file."""
    own = Path(__file__).parent.parent.parent / "protocol.md"
    if path is not None:
        try:
            return Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"--text is a file of UTF-8: {error}") from error
    if own.exists():
        return own.read_text()
    return "\n\n".join(
        file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))
    )


async def _acts(
    stage: Stage, source: str, share: int, speed: float
) -> tuple[int, list[int]]:
    """The story. Returns (edits made, process ids killed)."""
    names = stage.names
    founder, *others = names
    killed: list[int] = []
    await stage.open(founder, None)
    process = stage.processes[founder]
    hub = stage.hub.address.rpartition(".")[0]
    await process.tell(founder, "invite", hub=hub, uses=len(others))
    invite = (await process.hear(founder, "invite"))["invite"]
    await process.tell(founder, "online", address=stage.hub.address)
    await process.hear(founder, "synced")
    for name in others:
        await stage.open(name, invite)
    stage.say(f"{len(names)} devices share an empty text")

    shares = [source[i * share : (i + 1) * share] for i in range(len(names))]
    thirds = len(shares[0]) // 3
    edits = 0

    # Act 1: everybody types at once.
    for index, name in enumerate(names):
        await stage.type(name, shares[index][:thirds], speed, seed=index)
    offline = others[0]
    await asyncio.sleep(1.0)
    stage.say(f"{offline} goes offline and types on")
    stage.doing[offline] = "typing offline"
    await stage.processes[offline].tell(offline, "offline")
    for name in names:
        await stage.typed(name)
    await stage.come_back(offline, f"{offline}, offline")

    # Act 2: a device is killed while it types.
    for index, name in enumerate(names):
        await stage.type(name, shares[index][thirds : 2 * thirds], speed, 10 + index)
    victim = others[-1]
    await asyncio.sleep(1.0)
    state = await stage.processes[victim].status(victim)
    edits += state["edits"]
    left = state["left"]
    killed.append(stage.processes[victim].pid)
    stage.say(f"kill -9 {stage.processes[victim].pid}: {victim}, while it types")
    stage.doing[victim] = "killed"
    await stage.processes[victim].kill()
    await asyncio.sleep(0.5)
    stage.processes[victim] = DeviceProcess()
    for name in names:
        if name != victim:
            await stage.typed(name)
    began = time.monotonic()
    await stage.open(victim, None)
    await stage.converge()
    stage.reconnects[f"{victim}, killed"] = round(time.monotonic() - began, 3)
    rest = shares[names.index(victim)][2 * thirds - left : 2 * thirds]
    if rest:
        await stage.type(victim, rest, speed, 20)
        await stage.typed(victim)

    # Act 3: the hub is killed while everybody types.
    for index, name in enumerate(names):
        await stage.type(name, shares[index][2 * thirds :], speed, 30 + index)
    await asyncio.sleep(1.0)
    killed.append(stage.hub.pid)
    stage.say(f"kill -9 {stage.hub.pid}: the hub, while everybody types")
    await stage.hub.kill()
    await asyncio.sleep(0.5)
    began = time.monotonic()
    await stage.hub.start()
    await stage.all_live()
    back = round(time.monotonic() - began, 3)
    stage.say(f"all devices are back, {back:.1f} s after the hub was started")
    stage.reconnects["hub, killed: all are back"] = back
    for name in names:
        await stage.typed(name)
    last = await stage.converge()
    stage.reconnects["hub, killed: after the last key"] = round(last, 3)
    await stage.refresh()
    edits += sum(state["edits"] for state in stage.states.values())
    return edits, killed


async def _verdict(stage: Stage, edits: int, killed: list[int]) -> int:
    """Read everything back in fresh processes, compare, and print."""
    files = [stage.file(name) for name in stage.names]
    texts = [await read_back(file, "demo/text/body") for file in files]
    changes, concurrent = count_concurrent(files[0])
    clean = await examined([*files, stage.folder / "hub.db"])
    equal = len(set(texts)) == 1
    converged = equal and clean and concurrent > 0
    seconds = time.monotonic() - stage.began
    summary = {
        "converged": converged,
        "replicas": len(stage.names),
        "edits": edits,
        "changes_stored": changes,
        "concurrent_edits": concurrent,
        "text_sha256": sha256(texts[0]),
        "text_length": len(texts[0]),
        "matches_end_content": None,
        "doctor_clean": clean,
        "seconds": round(seconds, 2),
        "waiting_seconds": round(sum(stage.reconnects.values()), 2),
        "reconnect_seconds": stage.reconnects,
        "bytes_on_wire": stage.proxy.bytes,
        "killed": killed,
        "processes": {
            "hub": stage.hub.pid,
            **{name: stage.processes[name].pid for name in stage.names},
        },
        "files": {name: str(stage.file(name)) for name in stage.names},
    }
    lines = [
        f"{edits:,} edits, {changes:,} changes stored, {concurrent:,} of them "
        f"concurrent; {stage.proxy.bytes:,} bytes on the wire; {seconds:.0f} s"
    ]
    lines += [
        f"back in sync after {label}: {took:.2f} s"
        for label, took in stage.reconnects.items()
    ]
    for name, text in zip(stage.names, texts, strict=True):
        lines.append(f"{sha256(text)[:16]}  {len(text):,} characters  {name}")
    lines.append("doctor: every file clean" if clean else "doctor: NOT clean")
    lines.append("the same text everywhere" if equal else "DIFFERENT TEXTS")
    if not concurrent:
        lines.append("NOTHING was concurrent: this demo showed nothing")
    stage.out.result(summary, "\n".join(lines))
    return 0 if converged else NO
