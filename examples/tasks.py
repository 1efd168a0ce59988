"""A typed task list: `python examples/tasks.py add "Buy milk" home`, `done 1`, `list`.

Its file is tasks.db in the current folder; the command line (`syncengine --db tasks.db
invite`, `join`, `sync`) brings it to other devices.
"""

import asyncio
import sys
from datetime import UTC, datetime

import syncengine
from syncengine import Document, List, Record, Set


class Task(Record):
    text: str
    done: bool = False
    added: datetime | None = None
    tags: Set[str] = Set()


class Tasks(Document, collection="tasks"):
    items: List[Task] = List()  # each task merges field by field, wherever it stands


async def main(command: str = "list", *words: str) -> None:
    async with syncengine.open("tasks.db") as replica:
        space = await replica.namespace("tasks")
        if command == "add":
            text, *tags = words
            async with space.transaction() as tx:
                task = Task(text=text, added=datetime.now(UTC))
                task.tags = tags
                tx.ensure(Tasks, "mine").items.append(task)
        elif command == "done":
            async with space.transaction() as tx:
                tx.get(Tasks, "mine").items[int(words[0]) - 1].done = True
        elif command == "first":
            async with space.transaction() as tx:
                tx.get(Tasks, "mine").items.move(int(words[0]) - 1, 0)
        elif command == "undo":
            await space.undoing(Tasks, "mine").undo()
        tasks = await space.get(Tasks, "mine", None)
        for number, task in enumerate(tasks.items if tasks else (), 1):
            tags_ = " ".join(f"#{tag}" for tag in task.tags)
            print(
                f"{number}. [{'x' if task.done else ' '}] {task.text} {tags_}".rstrip()
            )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
