"""The README's first program: two devices, one hub, one note."""

import asyncio
import syncengine, transport
from syncengine import Counter, Document, List, Set, Text


class Note(Document):
    title: str
    likes: Counter = Counter()  # everybody's increments add up
    tags: Set[str] = Set()  # an add wins over a concurrent remove
    todo: List[str] = List()  # insert, delete, set: element by element
    body: Text = Text()  # many can type in it at once


async def main() -> None:
    async with (
        syncengine.open_hub("hub.db") as hub,
        transport.serve(hub) as server,
        syncengine.open("laptop.db") as laptop,
        syncengine.open("phone.db") as phone,
    ):
        space = await laptop.namespace("family")
        async with space.transaction() as tx:  # leaving it means: on this disk
            tx.create(Note, "groceries", title="Groceries", body="milk")
        async with transport.connect(laptop, server.address) as link:
            invite = await space.invite("write", hub=link.hub)
            await link.synced()
            shared = await phone.join(str(invite), name="family")
            async with transport.connect(phone) as other:
                await other.synced()
                async with shared.transaction() as tx:
                    tx.get(Note, "groceries").body.append(", eggs")
                await tx.receipt.durable_on("hub")  # ... and on the hub's
                print(await shared.get(Note, "groceries"))


asyncio.run(main())
