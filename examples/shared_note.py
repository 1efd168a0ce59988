"""A Markdown note that two devices edit at once, each shown by a window that is told of
exactly what changed: `python examples/shared_note.py`."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import syncengine
import transport
from syncengine import Document, Edit, MarkRange, Space, Text
from syncengine.bridges.markdown import to_markdown, write_markdown


class Note(Document):
    body: Text = Text()


class Window:
    """What an editor widget is: characters with formats, changed by patches alone."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, dict[str, Any]]] = []
        self.patches = 0

    def apply(self, patches: list[Any]) -> None:
        for patch in patches:
            self.patches += 1
            if isinstance(patch, MarkRange):
                for _, formats in self.shown[patch.start : patch.stop]:
                    formats.pop(patch.name, None)
                    if patch.value is not None:
                        formats[patch.name] = patch.value
            else:
                new = [(character, dict[str, Any]()) for character in patch.inserted]
                self.shown[patch.pos : patch.pos + patch.deleted] = new

    def __str__(self) -> str:
        return "".join(character for character, _ in self.shown)


async def edit(space: Space, old: str, new: str) -> None:
    """Change a note as somebody does who edits its Markdown."""
    async with space.transaction() as tx:
        body = tx.get(Note, "trip").body
        before = to_markdown(body)
        write_markdown(body, before.replace(old, new), before)


async def main() -> None:
    folder = Path(tempfile.mkdtemp())
    async with (
        syncengine.open(folder / "laptop.db") as laptop,
        syncengine.open(folder / "phone.db") as phone,
        transport.serve(laptop, "127.0.0.1", 0) as server,
    ):
        space = await laptop.namespace("trip")
        async with space.transaction() as tx:
            body = tx.create(Note, "trip").body
            write_markdown(body, "# Trip\n\nWe leave on **Friday** at noon.")
        invite = await space.invite("write", hub=server.address)
        shared = await phone.join(invite, name="trip")
        async with transport.connect(phone) as link:
            await link.synced()
            async with (
                space.live(Note, "trip") as one,
                shared.live(Note, "trip") as two,
            ):
                windows = [Window(), Window()]
                for live, window in zip((one, two), windows, strict=True):
                    window.apply(shown(live.doc.body))
                    live.on_patch("body", window.apply)
                # Both at once: one moves the day, the other the hour.
                await asyncio.gather(
                    edit(space, "**Friday**", "**Saturday** morning"),
                    edit(shared, "at noon", "at *nine*"),
                )
                await link.synced()
                texts = {str(window) for window in windows}
                assert texts == {str(one.doc.body)} == {str(two.doc.body)}
                print(to_markdown(two.doc.body))
                print(f"({windows[0].patches} and {windows[1].patches} patches)")


def shown(body: Text) -> list[Any]:
    """Return the patches that show a text from the beginning."""
    return [Edit(0, 0, str(body)), *body.marks()]


if __name__ == "__main__":
    asyncio.run(main())
