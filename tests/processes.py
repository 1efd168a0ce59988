"""Children for tests with real processes, and what is asked of their files."""

import subprocess
import sys
from pathlib import Path

import syncengine
from syncengine.replication.doctor import Finding, examine
from syncengine.system import SystemEntropy
from syncengine.trust.keys import ED25519

ROOT = Path(__file__).parent.parent


def child(
    program: str,
    *args: str,
    errors: int = subprocess.DEVNULL,
    stdin: bool = False,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Start a Python program that imports the project; its output is piped."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


async def seen(path: Path) -> set[str]:
    """Return the marks in a writer's file; each is there wholly, or not at all."""
    async with syncengine.open(str(path)) as replica:
        space = await replica.namespace("home", create=False)
        page = await space.get("marks/all")
        marks = set(page.set("seen"))
        log = str(page.text("log"))
        assert all(mark in log for mark in marks), "half a transaction"
        return marks


async def findings(path: Path) -> list[Finding]:
    return await examine(str(path), entropy=SystemEntropy(), scheme=ED25519)
