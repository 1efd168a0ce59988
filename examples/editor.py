"""A note in the terminal with undo, edited together: `python examples/editor.py [FILE]`
(the extra `examples` installs Textual). Ctrl+Z takes back what was typed here, Ctrl+Y
brings it again; what others type stays. `syncengine --db FILE invite` lets them in.
"""

import sys
from typing import Any

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.widgets import Footer, TextArea

import syncengine
from syncengine import Document, Text


class Note(Document):
    body: Text = Text()


class Editor(App[None]):
    """Shows one text, tells it of each edit, and is told of each from elsewhere."""

    BINDINGS = [  # noqa: RUF012  # as Textual has it
        Binding("ctrl+z", "undo", "Undo", priority=True),
        Binding("ctrl+y", "redo", "Redo", priority=True),
        Binding("ctrl+q", "quit", "Quit"),
    ]

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def compose(self) -> ComposeResult:
        yield TextArea(id="note")
        yield Footer()

    async def on_mount(self) -> None:
        self.replica = await syncengine.open(self.path)
        self.space = await self.replica.namespace("notes")
        async with self.space.transaction() as tx:
            tx.ensure(Note, "note")
        self.live = self.space.live(Note, "note")
        await self.live.__aenter__()
        self.undoing = self.space.undoing(Note, "note")
        self.area = self.query_one("#note", TextArea)
        self.area.text = str(self.live.doc.body)
        self.live.on_patch("body", self.patched)
        self.area.focus()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Somebody typed here: what is different is written at once."""
        self.live.doc.body.replace(event.text_area.text)

    def patched(self, patches: list[Any]) -> None:
        """Somebody typed elsewhere, or it was undone: show it, and keep the caret."""
        for pos, deleted, inserted in patches:
            document: Any = self.area.document
            place = document.get_location_from_index
            self.area.replace(inserted, place(pos), place(pos + deleted))

    async def action_undo(self) -> None:
        await self.undoing.undo()

    async def action_redo(self) -> None:
        await self.undoing.redo()

    async def on_unmount(self) -> None:
        await self.live.__aexit__(None, None, None)
        await self.replica.close()


if __name__ == "__main__":
    Editor(sys.argv[1] if len(sys.argv) > 1 else "notes.db").run()
