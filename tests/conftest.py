"""What many tests need: recorded sessions, where they are, and a quiet end."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data; says clearly what is skipped without it."""
    if not SHARED.exists():
        pytest.skip("no recorded data beside the project: conformance and traces")
    return SHARED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skipped: {skipped}")
