"""The types are worth what they catch: every planted mistake, at its line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

BAD = Path(__file__).with_name("bad.py")
ROOT = Path(__file__).parents[2]


def planted() -> set[int]:
    lines = BAD.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# bad:" in line}


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_reports_every_planted_mistake_and_nothing_else() -> None:
    found = re.findall(r"bad\.py:(\d+): error", run("mypy", "--no-pretty", str(BAD)))

    assert set(map(int, found)) == planted()


def test_pyright_reports_every_planted_mistake_and_nothing_else(
    tmp_path: Path,
) -> None:
    # The project's own settings exclude the file.
    shutil.copy(BAD, tmp_path)
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    report = json.loads(
        run(
            "pyright",
            *("--outputjson", "--project", str(tmp_path)),
            *("--pythonpath", sys.executable),
        )
    )
    found = {
        item["range"]["start"]["line"] + 1 for item in report["generalDiagnostics"]
    }

    assert found == planted()
