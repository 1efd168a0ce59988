"""The package with its merging compiled: `setup.py` says what is, and README how."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


class NotBuilt(Exception):
    """There is no C compiler, or it failed; the message is what it said."""


def build(folder: Path) -> dict[str, str]:
    """Compile a copy of the package in an empty folder; return the environment in
    which `python -P` imports that one. Takes half a minute; raises `NotBuilt`."""
    skipped = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "syncengine", folder / "syncengine", ignore=skipped)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("transport", "clients"):  # named by pyproject.toml
        (folder / name).mkdir()
    run = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    environment = {**os.environ, "SYNCENGINE_ACCELERATE": "1"}
    done = subprocess.run(
        run, cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise NotBuilt((done.stdout + done.stderr)[-2000:])
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
