"""The verdict: is one version better than another, where, and at what cost."""

from __future__ import annotations

from typing import Any

from nicegui import run, ui

from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.interval import points
from llmtagger.evaluation.verdicts import UNCLEAR, sentences, winner
from llmtagger.person import login
from llmtagger.studio.asking import Asking, Column
from llmtagger.studio.frame import Frame, text
from llmtagger.studio.silence import draw_silence
from llmtagger.templates import find_template

_FIGURES = {"micro_f1": "F1", "micro_precision": "Precision", "micro_recall": "Recall"}
_SIDES = {"system": "Tags kept", "model": "The model alone"}
_ASKED = (10, 25, 50, 100, 200, 500)  # products
_SHOWN = 12

Record = dict[str, Any]


class VerdictView:
    """The view of one browser tab."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._workspace = frame, frame.workspace
        say = frame.say
        names = [template.name for template in self._workspace.versions()]
        left = self._workspace.shelf.view("verdict")
        live = self._workspace.live
        a = left.get("a") if left.get("a") in names else live
        others = [name for name in names if name != a]
        b = left.get("b") if left.get("b") in names else [a, *others][-1]
        with ui.element("div").classes("tools"):
            self._a = ui.select(names, value=a, label="A").props("dense outlined").mark("a")
            self._b = ui.select(names, value=b, label="B").props("dense outlined").mark("b")
            known = [size for size in _ASKED if size < len(self._workspace.products)]
            sizes = known or [len(self._workspace.products)]
            self._size = ui.select(
                sizes, value=sizes[min(1, len(sizes) - 1)], label=say("Products")
            )
            self._size.props("dense outlined").mark("verdict-size")
            self._asking = Asking(frame, say("Compare"), self._ask)
        self._result = ui.column().classes("w-full gap-0").mark("result")
        self._a.on_value_change(self._chosen)
        self._b.on_value_change(self._chosen)
        self._size.on_value_change(self._expect)
        ui.timer(0, self._show, once=True)

    async def _chosen(self) -> None:
        self._workspace.shelf.keep_view("verdict", {"a": self._a.value, "b": self._b.value})
        await self._show()

    def _columns(self) -> list[Column]:
        products = self._workspace.products[: self._size.value]
        templates = [find_template(name) for name in dict.fromkeys((self._a.value, self._b.value))]
        return [Column(each, products, self._workspace.known(each, products)) for each in templates]

    def _expect(self) -> None:
        self._asking.expect(self._columns())

    async def _ask(self) -> None:
        """Ask with both versions about as many products as are wanted, then show the verdict."""
        try:
            await self._asking.fill(self._columns(), lambda: None)
        finally:
            await self._show()

    async def _show(self) -> None:
        found: Record | None = None
        a, b = self._a.value, self._b.value
        try:
            self._expect()
            if a != b:
                found = await run.io_bound(
                    self._workspace.compared, find_template(a), find_template(b)
                )
        except LlmtaggerError:  # nothing that both were tried on
            pass
        self._result.clear()
        with self._result:
            if found is not None:
                self._draw(found)
                return
            said = "Nothing to compare yet. Press Compare."
            if a == b:
                said = "A and B are the same version. Choose two versions."
            ui.label(self._frame.say(said)).classes("verdict").mark("no-verdict")

    def _draw(self, found: Record) -> None:
        system = found["system"]
        cells = [cell for column in self._columns() for cell in column.cells.values()]
        draw_silence(self._frame, cells)
        ui.label(self._sentence(found)).classes("verdict").mark("verdict")
        self._draw_promotion(found)
        self._draw_figures(found)
        self._draw_tags(system["per_tag"])
        with ui.element("div").classes("split w-full"):
            for side, title in (
                ("won", "Products that improved"),
                ("lost", "Products that got worse"),
            ):
                self._draw_products(self._frame.say(title), system[side])

    def _draw_figures(self, found: Record) -> None:
        say = self._frame.say
        with ui.element("table").classes("figures"):
            _row("th", "", found["a"], found["b"], say("Difference, points"))
            for side, name in _SIDES.items():
                for key, label in _FIGURES.items():
                    each = found[side][key]
                    values = (f"{each[end]['value']:.3f}" for end in ("a", "b"))
                    shown = _points(each["difference"])
                    _row("td", f"{say(name)}: {say(label)}", *values, shown)
            for key, label, shape in (
                ("prompt_tokens", "Tokens of a prompt", "{:.0f}"),
                ("seconds", "Seconds of an answer", "{:.2f}"),
            ):
                costs = (shape.format(found["cost"][side][key]) for side in ("a", "b"))
                _row("td", say(label), *costs, "")
        ui.label(
            say("{count} products. In brackets: where the true difference lies, 19 times in 20.",
                count=found["system"]["products"])
        ).classes("facts")  # fmt: skip

    def _draw_tags(self, rows: list[Record]) -> None:
        say = self._frame.say
        sure = [row for row in rows if row["verdict"] != UNCLEAR][:_SHOWN]
        if not sure:
            return
        said = ", ".join(f"{self._tag(r['tag'])} {r['a']:.2f} → {r['b']:.2f}" for r in sure)
        ui.label(f"{say('Tags that surely changed')}: {said}").classes("facts").props("dir=auto")

    def _draw_products(self, title: str, products: list[Record]) -> None:
        with ui.element("section").classes("pane"):
            text("h2", title)
            for each in products[:_SHOWN]:
                ui.label(each["title"][:120]).props("dir=auto")
                with ui.element("div"):
                    for tag in sorted(set(each["a"]) ^ set(each["b"])):
                        is_gain = (tag in each["gold"]) == (tag in each["b"])
                        sign = "+" if tag in each["b"] else "−"
                        ui.label(f"{sign} {self._tag(tag)}").classes(
                            f"chip {'right' if is_gain else 'wrong'}"
                        ).props("dir=auto")
            if not products:
                ui.label(self._frame.say("none")).classes("empty")

    def _draw_promotion(self, found: Record) -> None:
        """A button a version; loud only where the verdict speaks for it."""
        say = self._frame.say
        better = winner(found["system"], found["a"], found["b"])
        with ui.element("div").classes("tools"):
            for name in (found["a"], found["b"]):
                if name == self._workspace.live:
                    ui.label(say("{version} is live", version=name)).classes("note")
                    continue
                ui.button(
                    say("Make {version} live", version=name),
                    on_click=lambda name=name: self._promote_sheet(name, self._sentence(found)),
                ).props("no-caps " + ("unelevated" if name == better else "flat")).mark(
                    f"promote {name}"
                )

    def _tag(self, name: str) -> str:
        return self._workspace.label(name, self._frame.lang)

    def _sentence(self, found: Record) -> str:
        is_silent = found["silent"] == found["answers"]
        said = sentences(found["system"], found["a"], found["b"], is_silent=is_silent)
        return self._frame.between.join(self._frame.say(text, **values) for text, values in said)

    def _promote_sheet(self, name: str, verdict: str) -> None:
        say = self._frame.say
        with ui.dialog() as sheet, ui.card().classes("sheet"):
            text("h1", say("Make {version} live", version=name))
            ui.label(verdict).classes("facts")
            ui.label(say("From then on, `llmtagger tag` uses this version.")).classes("facts")
            note = ui.textarea(say("Why?")).props("outlined autofocus").classes("w-full")
            note.mark("why")

            def promote() -> None:
                try:
                    self._workspace.promote(name, note=note.value or "", author=login())
                except LlmtaggerError as error:
                    self._frame.complain(error)
                    return
                sheet.close()
                self._frame.done(say("{version} is live", version=name))
                ui.timer(0, self._show, once=True)

            with ui.row().classes("w-full justify-end"):
                ui.button(say("Close"), on_click=sheet.close).props("flat no-caps")
                ui.button(say("Make it live"), on_click=promote).props("unelevated no-caps").mark(
                    "promote-it"
                )
        sheet.on("hide", sheet.delete)
        sheet.open()


def _row(cell: str, *texts: str) -> None:
    with ui.element("tr"):
        for said in texts:
            text(cell, said)


def _points(difference: Record) -> str:
    value, low, high = (points(difference[part]) for part in ("value", "low", "high"))
    return f"{value} [–]" if difference["low"] is None else f"{value} [{low},\u00a0{high}]"
