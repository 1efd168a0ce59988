"""Merging texts in memory: recorded sessions of several writers, offline branches, and
what one remote keystroke costs. Loro gets the same changes, as updates of its own."""

import contextlib
import gc
import gzip
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import accelerated
from benchmarks.row import Row
from benchmarks.text import TRACES
from syncengine.clock import hlc_from_ms
from syncengine.crdt.document import Document
from syncengine.crdt.list import ListState
from syncengine.crdt.operation import Action, Type
from syncengine.crdt.sequence.oplog import BACK, DEL, INS
from syncengine.crdt.text import TextState
from syncengine.ids import ActorId, DocumentId, Stamp
from syncengine.log.change import Change, Touch
from syncengine.log.sealing import coalesce

REPEATS = 3
A, B, C = (ActorId(letter * 16) for letter in (b"a", b"b", b"c"))


class Update(NamedTuple):
    """One recorded transaction, as it comes in."""

    actor: ActorId
    seq: int
    hlc: int
    seen: dict[ActorId, int]
    ops: list[tuple[list[Any], int]]


def load(name: str) -> Any:
    path = TRACES / "concurrent" / f"{name}.json.gz"
    if not path.exists():
        raise FileNotFoundError(f"the recorded session {path} is not there")
    return json.loads(gzip.open(path).read())


def updates(trace: Any) -> list[Update]:
    """Return the transactions of a recording as operations with what was seen."""
    versions: list[dict[ActorId, int]] = []
    seqs: dict[ActorId, int] = {}
    made: list[Update] = []
    for number, txn in enumerate(trace["txns"], 1):
        actor = ActorId(bytes([txn["agent"] + 1]) * 16)
        seen: dict[ActorId, int] = {}
        for parent in txn["parents"]:
            for other, seq in versions[parent].items():
                seen[other] = max(seq, seen.get(other, 0))
        seq = seqs.get(actor, 0) + 1
        ops: list[tuple[list[Any], int]] = []
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                ops.append(([int(Action.TEXT_DELETE), "t", pos, deleted], deleted))
            if inserted:
                op = [int(Action.TEXT_INSERT), "t", pos, inserted]
                ops.append((op, len(inserted)))
        end = seq - 1 + sum(n for _, n in ops)
        if ops:
            made.append(Update(actor, seq, number, seen, ops))
        seqs[actor] = end
        versions.append({**seen, actor: end})
    return made


def ours(trace: Any) -> float:
    """Return CPU seconds for all changes, one by one, into an empty document."""
    changes = updates(trace)
    document = Document(DocumentId("note/1"))
    began = time.process_time()
    for actor, seq, hlc, seen, ops in changes:
        known = dict(seen)
        for op, n in ops:
            known[actor] = seq - 1
            document.apply(op, (hlc, actor, seq), known)
            seq += n
    seconds = time.process_time() - began
    assert document.to_value()["t"] == trace["endContent"]
    return seconds


def loro(trace: Any) -> tuple[float, float]:
    """Return CPU seconds of loro for its updates of the same: batch, one by one."""
    peer: Any = importlib.import_module("loro")  # ships no types
    made = _loro_updates(peer, trace)
    spent: list[float] = []
    for batch in (True, False):
        document = peer.LoroDoc()
        began = time.process_time()
        if batch:
            document.import_batch(made)
        else:
            for update in made:
                document.import_(update)
        spent.append(time.process_time() - began)
        assert document.get_text("t").to_string() == trace["endContent"]
    return spent[0], spent[1]


def _loro_updates(peer: Any, trace: Any) -> list[bytes]:
    """Make the session's transactions in loro: a document for each line of work."""
    closures: list[int] = []
    lanes: list[tuple[Any, Any, list[bytes], list[int], Any]] = []
    made: list[bytes | None] = []
    for number, txn in enumerate(trace["txns"]):
        past = 0
        for parent in txn["parents"]:
            past |= closures[parent]
        closures.append(past | 1 << number)
        fitting = [lane for lane in lanes if past >> lane[3][0] & 1]
        if fitting:
            lane = max(fitting, key=lambda lane: lane[3][0])
        else:
            document = peer.LoroDoc()
            document.peer_id = len(lanes) + 1
            taken: list[bytes] = []

            def take(update: bytes, taken: list[bytes] = taken) -> bool:
                taken.append(bytes(update))
                return True

            subscription = document.subscribe_local_update(take)
            text = document.get_text("t")
            lane = (document, text, taken, [-1], subscription)
            lanes.append(lane)
        document, text, taken, last, _ = lane
        missing = past & ~(closures[last[0]] if last[0] >= 0 else 0)
        while missing:
            low = missing & -missing
            missing ^= low
            if (update := made[low.bit_length() - 1]) is not None:
                document.import_(update)
        taken.clear()
        for pos, deleted, inserted in txn["patches"]:
            if deleted:
                text.delete(pos, deleted)
            if inserted:
                text.insert(pos, inserted)
        document.commit()
        made.append(taken[-1] if txn["patches"] else None)
        last[0] = number
    return [update for update in made if update is not None]


def typed(
    text: TextState,
    edit: tuple[Any, ...],
    stamp: Stamp,
    seen: dict[ActorId, int] | None,
) -> None:
    kind, pos, n, content = edit
    text.apply(kind, pos, n, content, stamp, seen, None)


def branch(chance: random.Random, length: int, edits: int) -> list[tuple[Any, ...]]:
    """Return an offline writer's keystrokes: words here and there, some deleted."""
    made: list[tuple[Any, ...]] = []
    at = chance.randrange(length)
    for _ in range(edits):
        if chance.random() < 0.03:
            at = chance.randrange(length)
        if chance.random() < 0.15 and at:
            at, length = at - 1, length - 1
            made.append((DEL, at, 1, None))
        else:
            made.append((INS, at, 1, "x"))
            at, length = at + 1, length + 1
    return made


def branches(edits: int, *, sealed: bool = False) -> float:
    """Return CPU milliseconds to merge as many edits of another as were made here: a
    change each, or as a device seals what somebody typed at 8 keystrokes a second."""
    base = "a line of text\n" * 7_000
    chance = random.Random(1)
    text = TextState()
    text.apply(INS, 0, len(base), base, (1, C, 1), None, None)
    for seq, edit in enumerate(branch(chance, len(base), edits), 1):
        typed(text, edit, (2, A, seq), None)
    theirs = list(enumerate(branch(chance, len(base), edits), 1))
    if sealed:
        theirs = as_sealed(theirs)
    gc.collect()  # what was made to measure with
    began = time.process_time()
    for seq, edit in theirs:
        typed(text, edit, (2, B, seq), {C: len(base), B: seq - 1})
    return (time.process_time() - began) * 1e3


def as_sealed(
    edits: list[tuple[int, tuple[Any, ...]]],
) -> list[tuple[int, tuple[Any, ...]]]:
    """Return keystrokes as the operations that become of them in the signed log."""
    name = DocumentId("note/1")
    changes: list[Change] = []
    for seq, (kind, pos, n, content) in edits:
        action = Action.TEXT_INSERT if kind == INS else Action.TEXT_DELETE
        op = [int(action), "t", pos, content if kind == INS else n]
        touch = Touch(name, [op], n)
        changes.append(Change(B, seq, hlc_from_ms(10_000 + 125 * seq), [], [touch]))
    kinds = {8: INS, 9: DEL, 10: BACK}
    found: list[tuple[int, tuple[Any, ...]]] = []
    for change in coalesce(changes):
        seq = change.seq
        for action, _, pos, what in change.touches[0].ops:
            kind, n = kinds[action], len(what) if action == 8 else what
            found.append((seq, (kind, pos, n, what if kind == INS else None)))
            seq += n
    return found


def live(*, bursts: bool) -> float:
    """Return CPU microseconds to receive one keystroke while one types oneself."""
    chance = random.Random(2)
    texts, actors, seqs = [TextState(), TextState()], [A, B], [0, 0]
    for text in texts:
        text.apply(INS, 0, 1_800, "y" * 1_800, (1, C, 1), {}, None)
    seen = [{C: 1_800}, {C: 1_800}]
    under_way: list[list[Any]] = [[], []]
    at, spent, received, turn = [100, 1_000], 0.0, 0, 0
    while received < 3_000:
        me, turn = turn % 2, turn + 1
        for _ in range(chance.randint(1, 12) if bursts else 1):
            if chance.random() < 0.05:
                at[me] = chance.randrange(texts[me].length)
            pos = min(at[me], texts[me].length)
            seqs[me] += 1
            stamp = (2, actors[me], seqs[me])
            under_way[1 - me].append((INS, pos, 1, "z", stamp, dict(seen[me])))
            texts[me].apply(INS, pos, 1, "z", stamp, None, None)
            seen[me][actors[me]] = seqs[me]
            at[me] = pos + 1
        arrived = under_way[me][: max(0, len(under_way[me]) - 3)]
        del under_way[me][: len(arrived)]
        for edit in arrived:
            began = time.process_time()
            typed(texts[me], edit[:4], edit[4], edit[5])
            spent += time.process_time() - began
            seen[me][edit[4][1]] = edit[4][2]
        received += len(arrived)
    return spent / received * 1e6


def moves(count: int) -> float:
    """Return CPU seconds for as many random moves as the list has elements."""
    chance = random.Random(3)
    document = Document(DocumentId("note/1"))
    everything = list(range(count))
    document.apply([int(Action.LIST_INSERT), "l", 0, everything], (1, A, 1), None)
    state = document.state(("l", Type.LIST), Type.LIST)
    assert isinstance(state, ListState)
    began = time.process_time()
    for seq in range(count + 1, 3 * count, 2):
        at, to = chance.randrange(count), chance.randrange(count)
        (source, _), *_ = state.author_ranges(at, 1)
        ((target, _),) = state.author_ranges(to + (to > at), 0)
        op = [int(Action.MOVE), "l", source, target]
        document.apply(op, (2, A, seq), None)
    seconds = time.process_time() - began
    assert sorted(document.to_value()["l"]) == everything
    return seconds


def marks(count: int) -> float:
    """Return CPU seconds for as many overlapping marks on 100 kB, and reading them."""
    chance = random.Random(4)
    document = Document(DocumentId("note/1"))
    size = 100_000
    document.apply([int(Action.TEXT_INSERT), "t", 0, "x" * size], (1, A, 1), None)
    state = document.state(("t", Type.TEXT), Type.TEXT)
    assert isinstance(state, TextState)
    began = time.process_time()
    for number in range(count):
        start = chance.randrange(size - 1_000)
        stop = start + chance.randint(1, 1_000)
        ((at, _),) = state.author_ranges(start, 0)
        ((end, _),) = state.author_ranges(stop, 0)
        name = chance.choice(("bold", "italic", f"comment:{number}"))
        op = [int(Action.MARK), "t", at, end, name, number, 2]
        document.apply(op, (2, A, size + 1 + 2 * number), None)
    spans = state.spans()
    seconds = time.process_time() - began
    assert sum(len(span.text) for span in spans) == size
    assert len(spans) > count // 2
    return seconds


NAMES = ("friendsforever", "clownschool")
BRANCHES = {450: None, 4_500: 25.0}
TURNS = {"in bursts": 25.0, "in strict turns": 70.0}


def figures() -> dict[str, list[float]]:
    """Return what merging takes, by name."""
    found: dict[str, list[float]] = {}
    for name in NAMES:
        trace = load(name)
        found[name] = [ours(trace) for _ in range(REPEATS)]
    for edits in BRANCHES:
        found[f"{edits}"] = [branches(edits) for _ in range(REPEATS)]
        found[f"{edits} sealed"] = [
            branches(edits, sealed=True) for _ in range(REPEATS)
        ]
    for how in TURNS:
        bursts = how == "in bursts"
        found[how] = [live(bursts=bursts) for _ in range(REPEATS)]
    return found


def compiled() -> dict[str, list[float]]:
    """Return the same figures of the same source, compiled; nothing without a C
    compiler: then the rows are missing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            environment = accelerated.build(Path(folder))
        except accelerated.NotBuilt as error:
            print(f"not compiled: {error}", file=sys.stderr)
            return {}
        run = [sys.executable, "-P", "-c", "from benchmarks import merge; merge.tell()"]
        done = subprocess.run(
            run, env=environment, check=True, capture_output=True, text=True
        )
        found: dict[str, list[float]] = json.loads(done.stdout)
        return found


def tell() -> None:
    print(json.dumps(figures()))


def run() -> list[Row]:
    rows: list[Row] = []
    detail = {"process": os.getpid()}
    pure = figures()
    theirs: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
    with contextlib.suppress(ImportError):  # then the rows fail
        theirs = {name: [loro(load(name)) for _ in range(REPEATS)] for name in NAMES}

    def add(
        title: str,
        unit: str,
        samples: list[float],
        bar: float | None,
        others: Sequence[float] = (),
        other: str = "",
    ) -> None:
        row = Row(title, unit, samples, bar, list(others), other, detail=detail)
        rows.append(row)

    for how, found in (("", pure), (", compiled", compiled())):
        if not found:
            continue
        for name in NAMES:
            title = f"merge {name} into an empty document, change by change{how}"
            for index, (bar, by) in enumerate(((1.5, "import_batch"), (0.5, "each"))):
                others = [spent[index] for spent in theirs[name]]
                add(title, "s CPU", found[name], bar, others, f"loro (Python), {by}")
        for edits, most in BRANCHES.items():
            title = f"two offline branches of {edits:,} keystrokes on 105 kB"
            add(f"{title}, a change each{how}", "ms CPU", found[f"{edits}"], most)
            sealed = found[f"{edits} sealed"]
            add(f"{title}, as they are sealed{how}", "ms CPU", sealed, most)
        for turns, most in TURNS.items():
            title = f"receive a keystroke while typing, two writers {turns}{how}"
            add(title, "us CPU", found[turns], most)
    for title, work in (
        ("10,000 moves in a list of 10,000", moves),
        ("10,000 overlapping marks on 100 kB, and reading them", marks),
    ):
        long, short = [], []
        for _ in range(REPEATS):
            long.append(work(10_000))
            short.append(work(5_000))
        rows.append(Row(title, "s CPU", long, 2.3, short, "half of it", detail=detail))
    return rows
