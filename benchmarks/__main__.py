"""`python -m benchmarks [NAME ...] [--json] [--write]`."""

import argparse
import json
import platform
import sys
from pathlib import Path

from benchmarks import fleets, large, leaders, merge, sql, sync, text
from benchmarks.row import HEADER, Row

ALL = {
    "text": text.run,
    "merge": merge.run,
    **sync.PARTS,
    "large": large.run,
    "sql": sql.run,
    "leaders": leaders.run,
    "fleets": fleets.run,
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - ALL.keys()
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for name in arguments.names or ALL:
        rows += ALL[name]()
    if arguments.json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        print(HEADER)
        for row in rows:
            print(row.as_line())
    if arguments.write:
        lines = "\n".join(row.as_line() for row in rows)
        RESULTS.write_text(
            "# Results\n\nMedians of one run (`make bench`); other is measured in the "
            "same run. "
            f"Python {platform.python_version()}, {platform.machine()}, two cores "
            f"shared with others.\n\n{HEADER}\n{lines}\n"
        )
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
