"""Documents as tables, for whatever reads SQLite, while the program runs:
`python examples/analytics.py` asks the `sqlite3` shell and pandas, if they are there.
`datasette readings.db` serves the same views as web pages."""

import asyncio
import importlib
import importlib.util
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import syncengine
from syncengine import Counter, Document, Indexed, Searchable, Set, Text


class Reading(Document):
    sensor: Indexed[str]
    celsius: float
    tags: Set[str] = Set()
    seen: Counter = Counter()
    remark: Searchable[Text] = Text()


QUERY = """
SELECT sensor, count(*) AS n, round(avg(celsius), 2) AS mean
FROM reading, json_each(reading.tags) AS tag
WHERE tag.value = 'roof' GROUP BY sensor ORDER BY sensor
"""


async def main() -> None:
    path = Path(tempfile.mkdtemp()) / "readings.db"
    async with syncengine.open(path) as replica:
        space = await replica.namespace("station")
        async with space.transaction() as tx:
            for number in range(300):
                reading = tx.create(
                    Reading,
                    f"{number:04}",
                    sensor=f"s{number % 3}",
                    celsius=10 + number % 7,
                    tags={"roof"} if number % 2 else set(),
                )
                if number == 7:
                    reading.remark.insert(0, "a bird sat on it")
        for row in await space.sql(QUERY):
            print(*row, sep="|")
        print([found.extract for found in await space.search(Reading, "bird")])
        if importlib.util.find_spec("pandas") is not None:
            pandas = importlib.import_module("pandas")
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
                print(
                    pandas.read_sql("SELECT sensor, celsius FROM reading", connection)
                )
        shell = shutil.which("sqlite3")
        if shell is None:
            print("(no sqlite3 shell here)")
            return
        # The file stays open here; the shell reads the same view.
        asked = await asyncio.create_subprocess_exec(
            shell, "-readonly", str(path), QUERY, stdout=subprocess.PIPE
        )
        answer, _ = await asked.communicate()
        print("sqlite3 says:", answer.decode(), sep="\n", end="")


if __name__ == "__main__":
    asyncio.run(main())
