"""The verdict: is one version better than another, where, and at what cost."""

from __future__ import annotations

from typing import Any

from nicegui import run, ui

from llmtagger.errors import LlmtaggerError
from llmtagger.person import login
from llmtagger.studio.asking import Asking
from llmtagger.studio.frame import Frame, text
from llmtagger.templates import find_template

_FIGURES = {"micro_f1": "F1", "micro_precision": "Precision", "micro_recall": "Recall"}
_ASKED = (10, 25, 50, 100, 200, 500)  # products
_SHOWN = 12


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
        ui.timer(0, self._show, once=True)

    async def _chosen(self) -> None:
        self._workspace.shelf.keep_view("verdict", {"a": self._a.value, "b": self._b.value})
        await self._show()

    async def _ask(self) -> None:
        """Ask with both versions about as many products as are wanted, then show the verdict."""
        products = self._workspace.products[: self._size.value]
        try:
            for name in (self._a.value, self._b.value):
                template = find_template(name)
                cells = self._workspace.known(template, products)
                await self._asking.fill(template, products, cells, lambda: None)
        finally:
            await self._show()

    async def _show(self) -> None:
        try:
            found = await run.io_bound(
                self._workspace.compared, find_template(self._a.value), find_template(self._b.value)
            )
        except LlmtaggerError as error:
            found, why = None, f"{error.message} → {error.hint}"
        else:
            why = ""
        self._result.clear()
        with self._result:
            if found is None:
                ui.label(
                    self._frame.say("Choose two versions that were tried on the same products.")
                ).classes("note").mark("no-verdict")
                ui.label(why).classes("note")
            else:
                self._draw(found)

    def _draw(self, found: dict[str, Any]) -> None:
        say = self._frame.say
        system = found["system"]
        ui.label(self._sentence(found)).classes("verdict").mark("verdict")
        with ui.element("div").classes("scroll"), ui.element("table").classes("figures"):
            _row("th", "", found["a"], found["b"], f"{say('Difference')}, {say('points')}", "")
            for side, name in (("system", "what is kept"), ("model", "the model alone")):
                for key, label in _FIGURES.items():
                    each = found[side][key]
                    _row(
                        "td",
                        f"{say(name)}: {say(label)}",
                        f"{each['a']['value']:.3f}",
                        f"{each['b']['value']:.3f}",
                        _points(each["difference"]),
                        say(_plain(each["verdict"])),
                    )
            for key, label in (("prompt_tokens", "tokens"), ("seconds", "seconds")):
                cost = [found["cost"][side][key] for side in ("a", "b")]
                shown = [f"{each:.0f}" if key != "seconds" else f"{each:.2f}" for each in cost]
                _row("td", f"{say('Cost of an answer')}, {say(label)}", *shown, "", "")
        ui.label(f"{system['products']} {say('products')}").classes("facts")
        self._tags(system["per_tag"])
        with ui.element("div").classes("split w-full"):
            for side in ("won", "lost"):
                with ui.element("section").classes("pane"):
                    text("h2", f"{say('Products')}: {say(side)}")
                    for each in system[side][:_SHOWN]:
                        ui.label(each["title"][:120]).props("dir=auto")
                        gone = set(each["a"]) ^ set(each["b"])
                        with ui.element("div"):
                            for tag in sorted(gone):
                                right = tag in each["gold"]
                                sign = "+" if tag in each["b"] else "−"
                                ui.label(f"{sign} {tag}").classes(
                                    f"chip {'right' if right == (sign == '+') else 'wrong'}"
                                ).props("dir=auto")
                    if not system[side]:
                        ui.label(say("none")).classes("empty")
        with ui.row().classes("w-full").style("margin-top: 18px"):
            for name in (found["a"], found["b"]):
                live = name == self._workspace.live
                button = (
                    ui.button(
                        f"{name}: {say('live' if live else 'Make it live')}",
                        on_click=lambda name=name: self._promote_sheet(name, self._sentence(found)),
                    )
                    .props("no-caps " + ("flat" if live else "unelevated"))
                    .mark(f"promote {name}")
                )
                button.set_enabled(not live)

    def _tags(self, rows: list[dict[str, Any]]) -> None:
        say = self._frame.say
        sure = [row for row in rows if row["verdict"] != "not distinguishable"]
        ui.label(
            f"{say('Tags that surely changed')}: "
            + (", ".join(f"{r['tag']} {r['a']:.2f} → {r['b']:.2f}" for r in sure[:_SHOWN])
               or say("none"))
        ).classes("facts").props("dir=auto")  # fmt: skip

    def _sentence(self, found: dict[str, Any]) -> str:
        figure = found["system"]["micro_f1"]
        winner = {"b is better": found["b"], "a is better": found["a"]}.get(figure["verdict"])
        said = (
            f"{winner}: {self._frame.say('better')}"
            if winner
            else self._frame.say("not distinguishable")
        )
        return f"{said}; F1 {_points(figure['difference'])} {self._frame.say('points')}"

    def _promote_sheet(self, name: str, verdict: str) -> None:
        say = self._frame.say
        with ui.dialog() as sheet, ui.card().classes("sheet"):
            text("h1", f"{name}: {say('Make it live')}")
            ui.label(verdict).classes("facts")
            note = ui.textarea(say("Why?")).props("outlined autofocus").classes("w-full")
            note.mark("why")

            def promote() -> None:
                try:
                    self._workspace.promote(name, note=note.value or "", author=login())
                except LlmtaggerError as error:
                    self._frame.complain(error)
                    return
                sheet.close()
                self._frame.done(f"{name} {say('is live')}")
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


def _points(difference: dict[str, float]) -> str:
    value, low, high = (100 * difference[part] for part in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _plain(verdict: str) -> str:
    return {"b is better": "better", "a is better": "worse"}.get(verdict, verdict)
