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
    table = {
        name: outcomes
        for report in terminalreporter.stats.get("passed", [])
        for key, (name, outcomes) in report.user_properties
        if key == "mutants"
    }
    if table:
        columns = sorted({outcome for row in table.values() for outcome in row})
        total = sum(sum(row.values()) for row in table.values())
        terminalreporter.write_line(f"{total} mutants: what became of them")
        terminalreporter.write_line(f"{'':12}" + "".join(f"{c:>15}" for c in columns))
        for name, row in table.items():
            counts = "".join(f"{row.get(column, 0):15}" for column in columns)
            terminalreporter.write_line(f"{name:12}{counts}")
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skipped: {skipped}")
