"""Typing: automerge-paper, a change an edit, its delta taken, in memory."""

import contextlib
import gzip
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.row import Row
from syncengine import values
from syncengine.crdt.document import Document
from syncengine.crdt.operation import Action
from syncengine.ids import ActorId, DocumentId
from syncengine.log.change import Change, Touch, encode_change

REPEATS = 3
TRACES = Path(__file__).parent.parent.parent / "shared" / "data" / "editing-traces"


def load(name: str) -> Any:
    """Return a trace; names what is missing when it is not there."""
    path = TRACES / "sequential" / f"{name}.json.gz"
    if not path.exists():
        raise FileNotFoundError(f"the recorded session {path} is not there")
    return json.loads(gzip.open(path).read())


def ours(trace: Any) -> float:
    """Return CPU seconds; each edit is a change with its encoded bytes."""
    actor, name = ActorId(b"a" * 16), DocumentId("note/1")
    document = Document(name)
    began = time.process_time()
    seq, hlc, size = 1, 1 << 40, 0
    for txn in trace["txns"]:
        for pos, deleted, inserted in txn["patches"]:
            ops: list[Any] = []
            hlc += 1
            first = seq
            if deleted:
                op = [int(Action.TEXT_DELETE), "body", pos, deleted]
                document.apply(op, (hlc, actor, seq), None)
                ops.append(op)
                seq += deleted
            if inserted:
                op = [int(Action.TEXT_INSERT), "body", pos, inserted]
                document.apply(op, (hlc, actor, seq), None)
                ops.append(op)
                seq += len(inserted)
            touch = Touch(name, ops, seq - first)
            size += len(encode_change(Change(actor, first, hlc, [], [touch])))
    seconds = time.process_time() - began
    assert document.to_value()["body"] == trace["endContent"]
    assert size > len(trace["txns"])
    assert values.decode(values.encode(1)) == 1
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


def run() -> list[Row]:
    trace = load("automerge-paper")
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(REPEATS):
        mine.append(ours(trace))
        with contextlib.suppress(ImportError):  # then the row fails
            theirs.append(loro(trace))
    return [
        Row(
            "automerge-paper, a change an edit, delta taken, in memory",
            "s CPU",
            mine,
            2.0,
            theirs,
            "loro (Python)",
            detail={"process": os.getpid()},
        )
    ]
