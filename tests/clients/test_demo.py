"""The demo and the replay, whole: processes, kills, fresh readers."""

# pyright: reportPrivateUsage=false

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import syncengine
from clients.cli.output import NO, Output
from clients.demo.play import _verdict
from clients.demo.stage import _concurrent
from syncengine.ids import ActorId

ROOT = Path(__file__).parent.parent.parent


def demo(*words: str, cwd: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "syncengine", "--json", "demo", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_devices_that_vanish_and_are_killed_end_with_one_text(tmp_path: Path) -> None:
    summary = demo("--speed", "120", cwd=tmp_path)

    assert summary["converged"] is True
    assert summary["concurrent_edits"] > 0
    assert summary["doctor_clean"] is True
    assert summary["replicas"] == 3
    assert len(summary["killed"]) == 2
    pids = {*summary["processes"].values(), *summary["killed"]}
    assert len(pids) >= 5
    assert summary["bytes_on_wire"] > 10_000
    assert set(summary["reconnect_seconds"]) == {
        "phone, offline", "tablet, killed", "hub, killed: all are back",
        "hub, killed: after the last key",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "edits", "concurrent"),
    [
        ("friendsforever", [12_124, 13_954], 16_900),
        ("clownschool", [12_676, 1_670, 8_790], 16_374),
    ],
)
def test_a_recorded_session_is_replayed_at_its_own_versions(
    shared: Path, tmp_path: Path, name: str, edits: list[int], concurrent: int
) -> None:
    trace = shared / "editing-traces" / "concurrent" / f"{name}.json.gz"
    summary = demo("--trace", str(trace), cwd=tmp_path)

    assert summary["matches_end_content"] is True
    assert summary["converged"] is True
    assert list(summary["edits_by_device"].values()) == edits
    assert summary["edits"] == sum(edits)
    assert summary["concurrent_edits"] == concurrent
    assert summary["seconds"] < 120


@pytest.mark.parametrize("second", ["the same", "another"])
async def test_the_verdict_is_no_where_anything_differs(
    tmp_path: Path, second: str
) -> None:
    names = ["one", "two"]
    for name, text in zip(names, ["the same", second], strict=True):
        async with syncengine.open(str(tmp_path / f"{name}.db")) as replica:
            space = await replica.namespace("demo")
            async with space.transaction() as tx:
                tx["demo/text"].text("body").insert(0, text)
    async with syncengine.open_hub(str(tmp_path / "hub.db")):
        pass
    told = Output(as_json=True)

    def file_of(name: str) -> Path:
        return tmp_path / f"{name}.db"

    stage: Any = SimpleNamespace(
        names=names, file=file_of, folder=tmp_path,
        began=0.0, reconnects={}, proxy=SimpleNamespace(bytes=1), out=told,
        hub=SimpleNamespace(pid=1),
        processes={name: SimpleNamespace(pid=2) for name in names},
    )  # fmt: skip
    # These two never met, and did nothing at once: that alone is a no.
    assert await _verdict(stage, 2, []) == NO

    def met(_: Path) -> tuple[int, int]:
        return 2, 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_verdict.__globals__, "count_concurrent", met)
        expected = 0 if second == "the same" else NO
        assert await _verdict(stage, 2, []) == expected


def test_a_file_that_is_no_session_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "syncengine", "demo", "--trace", "x.json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not a recorded session" in done.stderr


@pytest.mark.parametrize(
    ("seen_by_b", "expected"), [({}, 3), ({b"a": 1}, 2), ({b"a": 2}, 0)]
)
def test_concurrency_is_counted_from_what_was_seen(
    seen_by_b: dict[ActorId, int], expected: int
) -> None:
    a, b = ActorId(b"a"), ActorId(b"b")
    chains: dict[ActorId, list[tuple[int, int, dict[ActorId, int]]]] = {
        a: [(1, 1, {}), (2, 2, {})],
        b: [(1, 1, seen_by_b)],
    }

    assert _concurrent(chains) == expected
