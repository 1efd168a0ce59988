"""Typing: the six sequential sessions, a change an edit, their deltas taken; the same
in one transaction, and kept on disk; a stored text read; the memory of an open one."""

import asyncio
import contextlib
import gc
import gzip
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import syncengine
from benchmarks.row import Row
from syncengine.clock import hlc_from_ms
from syncengine.crdt.document import Document
from syncengine.crdt.operation import Action, Type
from syncengine.ids import ActorId, DocumentId, EntryId, NamespaceId
from syncengine.log.batch import NO_BATCH, Batch, seal
from syncengine.log.change import Change, Touch, encode_change
from syncengine.log.sealing import coalesce, cut
from syncengine.log.segment import SEGMENT_BYTES, decode_segment, encode_segment
from syncengine.replication.documents import StoredCells
from syncengine.replication.draft import Draft
from syncengine.storage.inline import InlineStore
from syncengine.storage.sql import statements as sql
from syncengine.storage.store import Writes
from syncengine.trust.keys import ED25519

REPEATS = 3
TRACES = Path(__file__).parent.parent.parent / "shared" / "data" / "editing-traces"
NAMES = (
    "automerge-paper", "rustcode", "sveltecomponent", "seph-blog1",
    "friendsforever_flat", "clownschool_flat",
)  # fmt: skip

NAME, ACTOR = DocumentId("note/1"), ActorId(b"a" * 16)
SPACE, GRANT = NamespaceId(b"n" * 32), EntryId(b"g" * 32)


class Note(syncengine.Document):
    body: syncengine.Text = syncengine.Text()


def load(name: str) -> Any:
    """Return a trace; names what is missing when it is not there."""
    path = TRACES / "sequential" / f"{name}.json.gz"
    if not path.exists():
        raise FileNotFoundError(f"the recorded session {path} is not there")
    return json.loads(gzip.open(path).read())


# --- a change an edit -----------------------------------------------------------------


def ours(trace: Any) -> float:
    """Return CPU seconds; each edit is a change with its encoded bytes."""
    document = Document(NAME)
    began = time.process_time()
    seq, hlc, size = 1, 1 << 40, 0
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            ops: list[Any] = []
            hlc += 1
            first = seq
            if deleted:
                op = [int(Action.TEXT_DELETE), "body", pos, deleted]
                document.apply(op, (hlc, ACTOR, seq), None)
                ops.append(op)
                seq += deleted
            if inserted:
                op = [int(Action.TEXT_INSERT), "body", pos, inserted]
                document.apply(op, (hlc, ACTOR, seq), None)
                ops.append(op)
                seq += len(inserted)
            touch = Touch(NAME, ops, seq - first)
            size += len(encode_change(Change(ACTOR, first, hlc, [], [touch])))
    document.settle()
    seconds = time.process_time() - began
    assert document.to_value()["body"] == trace["endContent"]
    assert size > len(trace["txns"])
    return seconds


def loro(trace: Any) -> float:
    """Return CPU seconds of loro's binding for the same."""
    peer: Any = importlib.import_module("loro")  # ships no types
    document = peer.LoroDoc()
    text = document.get_text("t")
    taken: list[int] = []

    def take(update: bytes) -> bool:
        taken.append(len(update))
        return True

    subscription = document.subscribe_local_update(take)
    began = time.process_time()
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                text.delete(pos, deleted)
            if inserted:
                text.insert(pos, inserted)
            document.commit()
    seconds = time.process_time() - began
    assert text.to_string() == trace["endContent"]
    assert len(taken) == sum(len(txn["patches"]) for txn in trace["txns"])
    del subscription
    return seconds


def pycrdt(trace: Any) -> float:
    """Return CPU seconds of pycrdt for the same, of a session in ASCII (its positions
    are bytes of UTF-8); a transaction an edit, and its update."""
    peer: Any = importlib.import_module("pycrdt")
    document = peer.Doc()
    text = document.get("t", type=peer.Text)
    taken: list[int] = []
    subscription = document.observe(lambda event: taken.append(len(event.update)))
    began = time.process_time()
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            with document.transaction():
                if deleted:
                    del text[pos : pos + deleted]
                if inserted:
                    text.insert(pos, inserted)
    seconds = time.process_time() - began
    assert str(text) == trace["endContent"]
    assert len(taken) == sum(len(txn["patches"]) for txn in trace["txns"])
    del subscription
    return seconds


# --- in one transaction ---------------------------------------------------------------


def ours_at_once(trace: Any) -> tuple[float, Document]:
    """Return CPU seconds for one change of all edits, which can be taken back, with its
    bytes; and what it made."""
    document = Document(NAME)
    began = time.process_time()
    draft = Draft(0, ACTOR, 1 << 40, 1, documents={NAME: document})
    document.undo = draft.undo
    emit = draft.emit
    delete, insert = int(Action.TEXT_DELETE), int(Action.TEXT_INSERT)
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                emit(document, [delete, "body", pos, deleted])
            if inserted:
                emit(document, [insert, "body", pos, inserted])
    draft.end()
    encode_change(Change(ACTOR, 1, draft.hlc, [], draft.touches))
    seconds = time.process_time() - began
    assert document.to_value()["body"] == trace["endContent"]
    return seconds, document


def loro_at_once(trace: Any) -> tuple[float, bytes]:
    """Return the same of loro, and its snapshot."""
    peer: Any = importlib.import_module("loro")  # ships no types
    document = peer.LoroDoc()
    text = document.get_text("t")
    began = time.process_time()
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                text.delete(pos, deleted)
            if inserted:
                text.insert(pos, inserted)
    document.commit()
    document.export(peer.ExportMode.Updates(peer.VersionVector()))
    seconds = time.process_time() - began
    assert text.to_string() == trace["endContent"]
    return seconds, document.export(peer.ExportMode.Snapshot())


# --- the history ----------------------------------------------------------------------


def history(trace: Any, *, recorded: bool) -> int:
    """Return the bytes of the signed log of a session, as segments: sealed as a device
    seals what was written offline, at the recorded times (some recordings have few),
    or at about 8 keystrokes a second, of which then each second is a change."""
    key, chance = ED25519.private_key(bytes(32)), Random(1)
    ms, seq, changes = 1_700_000_000_000, 1, list[Change]()
    if recorded:
        ms = 0
    for txn in trace["txns"]:
        at = int(datetime.fromisoformat(txn["time"]).timestamp() * 1000)
        for pos, deleted, inserted in txn["patches"]:
            ms = max(ms, at + 1) if recorded else ms + chance.randint(40, 210)
            ops: list[Any] = []
            if deleted:
                ops.append([int(Action.TEXT_DELETE), "body", pos, deleted])
            if inserted:
                ops.append([int(Action.TEXT_INSERT), "body", pos, inserted])
            n = deleted + len(inserted)
            touch = Touch(NAME, ops, n)
            changes.append(Change(ACTOR, seq, hlc_from_ms(ms), [], [touch]))
            seq += n
    rows: list[Batch] = []
    prev, left, total, size = NO_BATCH, changes, 0, 0
    while left:
        group, left = cut(left)
        salt = os.urandom(16)
        sealed = coalesce(group)
        batch = seal(key, SPACE, GRANT, prev, sealed, salt)
        rows.append(batch)
        prev, size = batch.id, size + len(batch.payload)
        if size > SEGMENT_BYTES or not left:
            packed = encode_segment(rows)
            assert [row.id for row in rows] == [
                row.id
                for row in decode_segment(SPACE, packed)
                if isinstance(row, Batch)
            ]
            total, rows, size = total + len(packed), [], 0
    return total


# --- from the disk --------------------------------------------------------------------


def stored(document: Document) -> StoredCells:
    """Return a document as a file has it."""
    store = InlineStore(":memory:")
    writes = Writes()
    for container, (key, state) in document.take_cells():
        if state is not None:
            writes.add(sql.PUT_CELL, 1, container, key, state)
    store.commit_now(writes)
    return StoredCells(store, 1)


def least(work: Callable[[], Any]) -> float:
    """Return the milliseconds of CPU of the best of several runs of a short thing."""
    found: list[float] = []
    for _ in range(15):
        began = time.process_time()
        for _ in range(10):
            work()
        found.append((time.process_time() - began) * 100)
    return min(found)


def reading(trace: Any, cells: StoredCells) -> float:
    """Return milliseconds from a stored document to its text."""

    length = len(trace["endContent"])

    def read() -> None:
        document = Document(NAME, cells)
        assert len(document.to_value(("body", 5), Type.TEXT)) == length

    return least(read)


def loro_reading(trace: Any, snapshot: bytes) -> float:
    peer: Any = importlib.import_module("loro")  # ships no types

    def read() -> None:
        document = peer.LoroDoc()
        document.import_(snapshot)
        assert len(document.get_text("t").to_string()) == len(trace["endContent"])

    return least(read)


# --- on disk, edit by edit; in memory -------------------------------------------------


async def durable(trace: Any) -> float:
    """Return CPU seconds of an editor, whose edits are each on disk in the end."""
    with tempfile.TemporaryDirectory() as folder:
        async with syncengine.open(Path(folder) / "a.db") as replica:
            space = await replica.namespace("home")
            async with space.transaction() as tx:
                tx.create(Note, "1")
            began = time.process_time()
            async with space.live(Note, "1") as live:
                body = live.doc.body
                for number, txn in enumerate(trace["txns"]):
                    for pos, deleted, inserted in txn["patches"]:
                        body.splice(pos, deleted, inserted)
                    if not number % 100:
                        await asyncio.sleep(0)
            seconds = time.process_time() - began
            assert str((await space.get(Note, "1")).body) == trace["endContent"]
            return seconds


def memory() -> float:
    """Return MB that an open text of 100 kB takes after it was edited, in a process of
    its own: beyond the same process without it."""
    run = [sys.executable, "-c", "from benchmarks import text; text.held()"]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    return float(done.stdout)


def held() -> None:
    """Print what it takes; nothing large is freed before: its place would be used."""
    words = Random(1).choices(("lorem", "ipsum", "dolor", "sit", "amet"), k=20_000)
    kept = " ".join(words)[:100_000]
    document = Document(NAME)
    document.apply([8, "body", 0, "warm"], (1, ACTOR, 1), None)
    stored(document)
    before = _resident()
    document = Document(NAME)
    document.apply([8, "body", 0, kept], (1, ACTOR, 1), None)
    document = Document(NAME, stored(document))
    for number in range(2_000):
        pos = (number * 7919) % len(kept)
        op = [8, "body", pos, "x"]
        document.apply(op, (2, ACTOR, len(kept) + 1 + number), None)
    print((_resident() - before) / 1e6)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def run() -> list[Row]:
    traces = {name: load(name) for name in NAMES}
    gc.collect()
    gc.freeze()  # the recordings are not ours to walk through
    detail = {"process": os.getpid()}
    mine: dict[str, list[float]] = {name: [] for name in NAMES}
    theirs: dict[str, list[float]] = {name: [] for name in NAMES}
    at_once: dict[str, list[float]] = {name: [] for name in NAMES}
    at_once_theirs: dict[str, list[float]] = {name: [] for name in NAMES}
    read: dict[str, float] = {}
    read_theirs: dict[str, float] = {}
    for name, trace in traces.items():
        cells = stored(ours_at_once(trace)[1])
        for _ in range(REPEATS):
            mine[name].append(ours(trace))
            at_once[name].append(ours_at_once(trace)[0])
        read[name] = reading(trace, cells)
        with contextlib.suppress(ImportError):  # then the rows fail
            for _ in range(REPEATS):
                theirs[name].append(loro(trace))
                at_once_theirs[name].append(loro_at_once(trace)[0])
            read_theirs[name] = loro_reading(trace, loro_at_once(trace)[1])
    slow: list[float] = []
    with contextlib.suppress(ImportError):
        slow = [sum(map(pycrdt, traces.values()))]  # once: it takes a while
    keeping = [asyncio.run(durable(traces["rustcode"])) for _ in range(REPEATS)]

    def total(of: dict[str, list[float]]) -> list[float]:
        return [sum(each) for each in zip(*of.values(), strict=True)]

    def worst(of: dict[str, float], other: dict[str, float]) -> str:
        return max(other, key=lambda name: of[name] / other[name], default=NAMES[0])

    first = NAMES[0]
    middle = {name: sorted(found)[len(found) // 2] for name, found in mine.items()}
    middle_theirs = {n: sorted(f)[len(f) // 2] for n, f in theirs.items() if f}
    slowest = worst(middle, middle_theirs)
    latest = worst(read, read_theirs)
    peer = "loro (Python)"
    each = "a change an edit, delta taken, in memory"
    others_read = [read_theirs[latest]] if read_theirs else []
    rows: list[tuple[str, str, list[float], float, list[float], str]] = [
        (f"{first}, {each}", "s CPU", mine[first], 2.0, theirs[first], peer),
        (f"the six sessions, {each}", "s CPU", total(mine), 0.6, total(theirs), peer),
        (
            f"the six sessions, {each}",
            *("s CPU", total(mine), 0.15, slow, "pycrdt"),
        ),
        (
            f"of them the slowest beside the other, {slowest}",
            *("s CPU", mine[slowest], 1.0, theirs[slowest], peer),
        ),
        (
            "the six sessions, each in one transaction",
            *("s CPU", total(at_once), 2.0, total(at_once_theirs), peer),
        ),
        (
            "rustcode, an editor, each edit on disk in the end",
            *("s CPU", keeping, 1.0, theirs["rustcode"], f"{peer}, in memory"),
        ),
        (
            f"from the disk to a string, slowest beside the other: {latest}",
            *("ms CPU", [read[latest]], 0.5, others_read, f"{peer}, snapshot"),
        ),
    ]
    kept = [history(trace, recorded=True) / 1e3 for trace in traces.values()]
    each_second = [history(trace, recorded=False) / 1e3 for trace in traces.values()]
    theirs_kept: list[float] = []
    with contextlib.suppress(ImportError):
        theirs_kept = [len(loro_at_once(t)[1]) / 1e3 for t in traces.values()]
    what = "the signed history as segments"
    rows += [
        (f"{first}, {what}", "kB", kept[:1], 80.0, [], ""),
        (f"the six sessions, {what}", "kB", [sum(kept)], 439.0, [], ""),
        (
            f"the six sessions, {what}",
            *("kB", [sum(kept)], 0.4, [sum(theirs_kept)], f"{peer}, snapshots"),
        ),
        (
            f"the six sessions, {what}, a change a second",
            *("kB", [sum(each_second)], 439.0, [], ""),
        ),
    ]
    held_ = [memory() for _ in range(REPEATS)]
    return [
        *(Row(*row, detail=detail) for row in rows),
        Row("an open text of 100 kB after 2,000 edits", "MB of memory", held_, 3.0),
    ]
