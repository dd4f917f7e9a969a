"""Gold: what people said, and what of it becomes labels of the index."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nicegui import events, run, ui

from llmtagger.errors import LlmtaggerError
from llmtagger.goldsheets import export_gold, import_gold
from llmtagger.marks import State
from llmtagger.person import login
from llmtagger.studio.cell import open_cell
from llmtagger.studio.frame import Frame

_FORMATS = {".xlsx": "XLSX", ".csv": "CSV", ".json": "Label Studio"}
_LONGEST = 50 << 20  # bytes of a file that is sent to the studio


class GoldView:
    """The view of one browser tab."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._workspace = frame, frame.workspace
        say = frame.say
        ui.label(
            f"{say('Click a cell of the matrix to mark its tags.')} "
            f"{say('Approved products become labelled products of the index.')}"
        ).classes("note").style("margin-bottom: 12px")
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
            self._approve = ui.button(say("Approve"), on_click=self._approve_chosen)
            self._approve.props("unelevated no-caps").mark("approve")
        self._table = ui.table(
            rows=[], row_key="id", selection="multiple",
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
        self._table.add_slot("no-data", f"<span>{say('Nothing is marked yet.')}</span>")
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

    def _open(self, event: events.GenericEventArguments) -> None:
        entry = self._workspace.book.entry(event.args[1]["id"])
        if entry is not None:
            open_cell(self._frame, entry.product, "–", None, self._draw)

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
        text = f"{done.products} {say('products')} {say('imported')}"
        if done.rejected:
            text += f"; {len(done.rejected)} {say('rows are no products')}"
        self._frame.done(text)
        self._draw()

    async def _approve_chosen(self) -> None:
        chosen = [row["id"] for row in self._table.selected] or [
            entry.product.id
            for entry in self._workspace.book.entries()
            if entry.state is State.REVIEWED
        ]
        self._approve.set_enabled(False)
        try:
            left = await run.io_bound(self._workspace.approve, chosen, login())
        except LlmtaggerError as error:
            self._frame.complain(error)
        else:
            say = self._frame.say
            self._frame.done(
                f"{len(chosen) - len(left or [])} {say('products')}: {say('approved')}"
            )
        finally:
            self._approve.set_enabled(True)
        self._draw()
