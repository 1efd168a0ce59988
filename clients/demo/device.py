"""A process that plays devices of the demo, told what to do line by line.

Each line on stdin is a JSON object `{"device": name, "do": ...}`; each line on stdout
one that tells what happened. The process may be killed at any moment: that is what
it is for.
"""

import asyncio
import hashlib
import json
import random
import sys
from contextlib import AsyncExitStack
from typing import Any

import syncengine
import transport
from syncengine import Document, Replica, Space, Text
from syncengine.ids import ActorId
from syncengine.replication.link import Link

COLLECTION, KEY = "demo", "text"

# A person types about this many characters a second.
HUMAN_CHARS_PER_SECOND = 6.0


class Shared(Document, collection=COLLECTION):
    """The one document that everybody edits."""

    body: Text = Text()


def tell(device: str, event: str, **facts: Any) -> None:
    print(json.dumps({"device": device, "event": event, **facts}), flush=True)


class Device:
    """One replica and its link."""

    def __init__(self, name: str):
        self.name = name
        self.replica: Replica
        self.space: Space
        self.link: Link | None = None
        self.edits = 0
        self.left = 0
        self._typing: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    # --- commands -----------------------------------------------------------------

    async def do_open(self, db: str, invite: str | None = None) -> None:
        """Open the file; join by `invite`, or make the namespace; tell who we are."""
        self.replica = await self._stack.enter_async_context(syncengine.open(db))
        if self.replica.spaces():
            self.space = self.replica.spaces()[0]
        elif invite is not None:
            self.space = await self.replica.join(invite, name="demo")
        else:
            self.space = await self.replica.namespace("demo")
            async with self.space.transaction() as tx:
                tx.create(Shared, KEY)
        engine = self.space.engine
        assert engine.actor is not None
        tell(self.name, "open", actor=engine.actor.hex(), next_seq=engine.next_seq)

    async def do_invite(self, hub: str, uses: int) -> None:
        invite = await self.space.invite("write", hub=hub, uses=uses)
        tell(self.name, "invite", invite=str(invite))

    async def do_online(self, address: str, quiet: bool = False) -> None:
        """Connect, and tell how long it took until everything was exchanged."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.link = await self._stack.enter_async_context(
            transport.connect(self.replica, address)
        )
        await self.link.synced()
        if not quiet:
            tell(self.name, "synced", seconds=loop.time() - began)

    async def do_offline(self) -> None:
        if self.link is not None:
            await self.link.close()
            self.link = None

    async def do_type(self, text: str, speed: float, seed: int) -> None:
        """Type `text` as a person would, in the background."""
        self.left = len(text)
        self._typing = asyncio.create_task(self._type(text, speed, seed))

    async def do_status(self) -> None:
        """Tell the text's hash and how far we are."""
        shared = await self.space.get(Shared, KEY, None)
        text = "" if shared is None else str(shared.body)
        engine = self.space.engine
        tell(
            self.name,
            "status",
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            length=len(text),
            edits=self.edits,
            left=self.left,
            pending=self.space.pending,
            state=self.link.state if self.link else "offline",
            applied=sum(engine.delivery.version().values()),
        )

    async def do_replay(self, path: str, speed: float = 0.0) -> None:
        self._typing = asyncio.create_task(self._replay(path))

    async def close(self) -> None:
        if self._typing is not None:
            self._typing.cancel()
            await asyncio.gather(self._typing, return_exceptions=True)
        await self._stack.aclose()

    # --- typing -------------------------------------------------------------------

    async def _type(self, text: str, speed: float, seed: int) -> None:
        """Type word by word at a cursor that others' edits move; cut and paste."""
        chance = random.Random(seed)
        pause = 1 / (HUMAN_CHARS_PER_SECOND * speed)
        while await self.space.get(Shared, KEY, None) is None:
            await asyncio.sleep(0.02)  # not synced yet
        async with self.space.live(Shared, KEY) as live:
            cursor = chance.randint(0, len(live.doc.body))
            position = [cursor]
            live.on_patch("body", lambda edits: _shift(position, edits))
            clipboard = ""
            for word in _words(text):
                live.doc.body.insert(position[0], word)
                position[0] += len(word)
                self.edits += 1
                self.left -= len(word)
                roll = chance.random()
                if roll < 0.03 and position[0] > 60:
                    start = position[0] - chance.randint(10, 50)
                    clipboard = live.doc.body[start : position[0]]
                    live.doc.body.delete(start, position[0] - start)
                    position[0] = start
                    self.edits += 1
                elif roll < 0.05 and clipboard:
                    position[0] = chance.randint(0, len(live.doc.body))
                    live.doc.body.insert(position[0], clipboard)
                    position[0] += len(clipboard)
                    clipboard = ""
                    self.edits += 1
                elif roll < 0.10:
                    position[0] = chance.randint(0, len(live.doc.body))
                await asyncio.sleep(len(word) * pause)
        self.left = 0
        tell(self.name, "typed", edits=self.edits)

    # --- replaying ----------------------------------------------------------------

    async def _replay(self, path: str) -> None:
        """Make each recorded edit at exactly the version that the recording says."""
        with open(path) as file:
            plan = json.load(file)
        loop = asyncio.get_running_loop()
        engine = self.space.engine
        allowed: dict[ActorId, int] = {
            ActorId(bytes.fromhex(actor)): seq for actor, seq in plan["first"].items()
        }
        # What is not in the plan (the document's making) is not held back.
        held = {ActorId(bytes.fromhex(actor)) for actor in plan["actors"]}
        engine.delivery.hold = lambda batch, end: (
            batch.header.actor in held and end > allowed.get(batch.header.actor, 0)
        )
        waited = 0.0
        began = loop.time()
        receipt = None
        for index, needs, patches in plan["edits"]:
            before = loop.time()
            for raw, seq in needs:
                actor = ActorId(bytes.fromhex(raw))
                allowed[actor] = max(seq, allowed.get(actor, 0))
            while not all(_has(engine, bytes.fromhex(raw), seq) for raw, seq in needs):
                await engine.apply_held()
                if all(_has(engine, bytes.fromhex(raw), seq) for raw, seq in needs):
                    break
                await engine.log_grew.wait()
            waited += loop.time() - before
            async with self.space.transaction(f"{index}", wait=False) as tx:
                body = tx[f"{COLLECTION}/{KEY}"].text("body")
                for pos, deleted, inserted in patches:
                    if deleted:
                        body.delete(pos, deleted)
                    if inserted:
                        body.insert(pos, inserted)
            receipt = tx.receipt
            self.edits += 1
            if self.edits % 16 == 0:
                await asyncio.sleep(0)
            if self.edits % 1024 == 0:
                await receipt
        if receipt is not None:
            await receipt
        engine.delivery.hold = None
        await engine.apply_held()
        tell(
            self.name,
            "replayed",
            edits=self.edits,
            seconds=loop.time() - began,
            waiting=waited,
        )


def _has(engine: Any, actor: bytes, seq: int) -> bool:
    state = engine.delivery.applied.get(actor)
    return state is not None and state.seq >= seq


def _shift(position: list[int], edits: list[Any]) -> None:
    """Move a cursor by somebody else's splices."""
    for pos, deleted, inserted in edits:
        if pos < position[0]:
            position[0] = max(pos, position[0] - deleted) + len(inserted)


def _words(text: str) -> list[str]:
    """Return `text` in the bursts in which people type."""
    words: list[str] = []
    for line in text.splitlines(keepends=True):
        for word in line.split(" "):
            words.append(word if word.endswith("\n") else f"{word} ")
    return [word for word in words if word]


async def run() -> None:
    """Obey stdin until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    devices: dict[str, Device] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while line := await reader.readline():
            order = json.loads(line)
            name, what = order.pop("device"), order.pop("do")
            device = devices.setdefault(name, Device(name))
            task = asyncio.create_task(_obey(device, what, order))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        for device in devices.values():
            await device.close()


async def _obey(device: Device, what: str, order: dict[str, Any]) -> None:
    try:
        await getattr(device, f"do_{what}")(**order)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        tell(device.name, "failed", what=what, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(run())
