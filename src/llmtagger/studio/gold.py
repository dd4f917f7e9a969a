"""Gold: what people said, and what of it becomes labels of the index."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nicegui import events, run, ui

from llmtagger.errors import LlmtaggerError
from llmtagger.goldsheets import export_gold, import_gold
from llmtagger.marks import State
from llmtagger.person import login
from llmtagger.studio.cell import Review
from llmtagger.studio.frame import Frame, text

_FORMATS = {".xlsx": "XLSX", ".csv": "CSV", ".json": "Label Studio"}
_LONGEST = 50 << 20  # bytes of a file that is sent to the studio


class GoldView:
    """The view of one browser tab."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._workspace = frame, frame.workspace
        say = frame.say
        ui.label(
            say(
                "Here are the products whose tags people have checked. Approving them makes their "
                "tags labels of the index, which `tag` and the prompts learn from."
            )
        ).classes("note lead")
        with ui.element("div").classes("tools"):
            for suffix, name in _FORMATS.items():
                ui.button(
                    f"{say('Export')}: {name}", on_click=lambda suffix=suffix: self._export(suffix)
                ).props("flat no-caps").mark(f"export {suffix}")
            self._upload = (
                ui.upload(auto_upload=True, max_file_size=_LONGEST, on_upload=self._import)
                .props(f'accept="{",".join(_FORMATS)}"')
                .classes("hidden")
                .mark("import-file")
            )
            ui.button(say("Import"), on_click=lambda: self._upload.run_method("pickFiles")).props(
                "flat no-caps"
            ).mark("import")
            self._approve = ui.button(on_click=self._confirm)
            self._approve.props("unelevated no-caps").mark("approve")
        self._table = ui.table(
            rows=[], row_key="id", selection="multiple", on_select=self._name_button,
            columns=[
                {"name": name, "label": say(label), "field": name, "align": "left"}
                for name, label in (
                    ("title", "Product"), ("state", "State"), ("right", "marked right"),
                    ("wrong", "marked wrong"), ("author", "Author"),
                )
            ],
            pagination=50,
        ).classes("w-full")  # fmt: skip
        self._table.props("flat wrap-cells :grid=Quasar.Screen.lt.sm").mark("entries")
        with self._table.add_slot("no-data"):
            text(
                "span",
                say("Nothing is checked yet. Click a product of the matrix to check its tags."),
            )
        self._table.on("rowClick", self._open)
        self._draw()

    def _draw(self) -> None:
        rows = []
        for entry in self._workspace.book.entries():
            rows.append(
                {
                    "id": entry.product.id,
                    "title": entry.product.title[:160],
                    "state": self._frame.say(entry.state.value),
                    "right": ", ".join(m.tag for m in entry.marks if m.right),
                    "wrong": ", ".join(m.tag for m in entry.marks if not m.right),
                    "author": entry.author,
                }
            )
        self._table.rows = rows
        self._table.selected = []
        self._table.update()
        self._name_button()

    def _name_button(self) -> None:
        say, chosen = self._frame.say, len(self._table.selected)
        self._approve.text = (
            say("Approve {count} selected", count=chosen) if chosen else say("Approve all reviewed")
        )

    def _open(self, event: events.GenericEventArguments) -> None:
        queue = [entry.product for entry in self._workspace.book.entries()]
        at = next((n for n, each in enumerate(queue) if each.id == event.args[1]["id"]), None)
        if at is not None:
            Review(self._frame, queue, at, "–", lambda id: None, lambda id: self._draw())

    def _export(self, suffix: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"gold{suffix}"
            try:
                export_gold(self._workspace.book.entries(), path, self._workspace.index.vocabulary)
            except LlmtaggerError as error:
                self._frame.complain(error)
                return
            ui.download.content(path.read_bytes(), f"{self._workspace.folder.name}-gold{suffix}")

    async def _import(self, event: events.UploadEventArguments) -> None:
        suffix = Path(event.file.name).suffix.lower()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"gold{suffix}"  # its own name is the sender's, and not trusted
            await event.file.save(path)
            try:
                done = await run.io_bound(
                    import_gold, path, self._workspace.book, self._workspace.index.vocabulary,
                    login(),
                )  # fmt: skip
            except LlmtaggerError as error:
                self._frame.complain(error)
                return
        if done is None:  # the studio is being ended
            return
        say = self._frame.say
        said = say("{count} products imported", count=done.products)
        if done.rejected:
            said += "; " + say("{count} rows could not be read", count=len(done.rejected))
        self._frame.done(said)
        self._draw()

    async def _confirm(self) -> None:
        """Approve what is selected; all that is reviewed only after a question."""
        say = self._frame.say
        if chosen := [row["id"] for row in self._table.selected]:
            await self._approve_them(chosen)
            return
        entries = self._workspace.book.entries()
        reviewed = [each.product.id for each in entries if each.state is State.REVIEWED]
        if not reviewed:
            self._frame.done(say("No product is reviewed. Say of one that its list is complete."))
            return
        if await self._frame.confirmed(
            say("Approve all {count} reviewed products?", count=len(reviewed)),
            say("Their tags become labels of the index. This cannot be undone here."),
            say("Approve"),
        ):
            await self._approve_them(reviewed)

    async def _approve_them(self, chosen: list[str]) -> None:
        say = self._frame.say
        self._approve.set_enabled(False)
        try:
            left = await run.io_bound(self._workspace.approve, chosen, login())
        except LlmtaggerError as error:
            self._frame.complain(error)
        else:
            self._frame.done(say("{count} products approved", count=len(chosen) - len(left or [])))
        finally:
            self._approve.set_enabled(True)
        self._draw()
