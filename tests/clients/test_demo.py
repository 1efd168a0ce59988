"""The demo and the replay, whole: processes, kills, fresh readers."""

# pyright: reportPrivateUsage=false

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


def test_a_recorded_session_is_replayed_at_its_own_versions(
    shared: Path, tmp_path: Path
) -> None:
    trace = shared / "editing-traces" / "concurrent" / "friendsforever.json.gz"
    summary = demo("--trace", str(trace), cwd=tmp_path)

    assert summary["matches_end_content"] is True
    assert summary["converged"] is True
    assert summary["edits"] == 26_078
    assert summary["concurrent_edits"] == 16_900
    assert summary["seconds"] < 120


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
