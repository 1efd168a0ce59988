"""An audit log in a database of its own, in which each change stands exactly once:

    python examples/audit_log.py order tea 3     write an order (orders.db)
    python examples/audit_log.py audit           bring the log up to date (audit.db)
    python examples/audit_log.py show            print it, and what could not be logged

`audit` may be killed at any time, and run as often as one likes: what it writes to the
log is kept together with how far it has read, or not at all.
"""

import asyncio
import sys

import syncengine
from syncengine import Change, CheckpointStore, CheckpointTransaction, Document
from syncengine import EventSubscriber as Subscriber


class Order(Document):
    what: str
    count: int


async def order(what: str, count: str) -> None:
    async with syncengine.open("orders.db") as replica:
        space = await replica.namespace("shop")
        async with space.transaction() as tx:
            tx.create(Order, syncengine.new_id(), what=what, count=int(count))


async def audit() -> None:
    async with (
        syncengine.open("orders.db") as replica,
        await CheckpointStore.open("audit.db") as store,
    ):
        space = await replica.namespace("shop")
        async with store.transaction() as tx:
            await tx.execute("CREATE TABLE IF NOT EXISTS line (change, at, order_)")

        async def note(event: Change, tx: CheckpointTransaction) -> None:
            past = await space.at(event.id)  # as its author left it
            for path in event.documents:
                seen = await past.get(Order, path.partition("/")[2])
                if seen.count <= 0:
                    raise ValueError(f"nobody orders {seen.count} of {seen.what}")
                line = (event.id, event.at.isoformat(), f"{seen.count} {seen.what}")
                await tx.execute("INSERT INTO line VALUES (?, ?, ?)", line)

        async with Subscriber(space, store, note, name="audit", retry_delay=1) as log:
            await log.caught_up()
            print(f"{log.get_metrics().events_handled} new")


async def show() -> None:
    async with await CheckpointStore.open("audit.db") as store:
        async with store.transaction() as tx:
            for (line,) in await tx.execute("SELECT order_ FROM line ORDER BY rowid"):
                print(line)
        for letter in await store.dead_letters("audit"):
            print(f"not logged: {letter.error}")


COMMANDS = {"order": order, "audit": audit, "show": show}

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]  # as typed
