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
    told: dict[str, int | dict[str, int]] = dict(
        item
        for report in terminalreporter.stats.get("passed", [])
        for item in report.user_properties
    )
    tables = {key: value for key, value in told.items() if isinstance(value, dict)}
    seeds = {key: tables.pop(key) for key in list(tables) if key.startswith("seeds")}
    if seeds:
        terminalreporter.write_line("simulated")
        _table(terminalreporter, seeds)
    mutants = tables
    if mutants:
        total = sum(sum(row.values()) for row in mutants.values())
        terminalreporter.write_line(f"{total} mutants, and what became of them")
        _table(terminalreporter, mutants)
    kills = {key: value for key, value in told.items() if isinstance(value, int)}
    if kills:
        terminalreporter.write_line(f"{sum(kills.values())} kills, by phase")
        for phase, count in sorted(kills.items()):
            terminalreporter.write_line(f"{phase:45}{count:5}")
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skipped: {skipped}")


def _table(
    terminalreporter: pytest.TerminalReporter, rows: dict[str, dict[str, int]]
) -> None:
    columns = sorted({column for row in rows.values() for column in row})
    terminalreporter.write_line(f"{'':20}" + "".join(f"{c:>18}" for c in columns))
    for name, row in rows.items():
        cells = "".join(f"{row.get(column, 0):18}" for column in columns)
        terminalreporter.write_line(f"{name:20}{cells}")
