"""What can be compiled passes the tests of what it is made of."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import accelerated

# Convergence, merging and marks; what does no merging runs the same code either way.
PASSED_COMPILED = ["tests/syncengine/crdt"]


def test_the_compiled_modules_pass_the_tests_of_the_pure_ones(tmp_path: Path) -> None:
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler on this machine: the accelerator is not tested")
    environment = accelerated.build(tmp_path)
    where = "import syncengine.crdt.sequence.walker as w; print(w.__file__)"
    python = [sys.executable, "-P"]
    found = subprocess.run(
        [*python, "-c", where], env=environment, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(tmp_path)), found.stderr
    assert not found.stdout.strip().endswith(".py")
    # Without the repository's own pythonpath, which would find the pure ones first.
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={tmp_path}"]
    done = subprocess.run(
        [*python, "-m", "pytest", *options, *PASSED_COMPILED],
        cwd=accelerated.ROOT,
        env={**environment, "EXPECT_COMPILED": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
