"""The matrix: a row a product, a column a version, a cell the tags beside gold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from nicegui import events, ui

from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.matrix import look, matrix_page
from llmtagger.evaluation.report import OUTCOMES
from llmtagger.evaluation.trials import Cell
from llmtagger.studio.asking import Asking, Column
from llmtagger.studio.cell import Review
from llmtagger.studio.chip import refusals, shown_tag
from llmtagger.studio.frame import Frame, text
from llmtagger.studio.silence import draw_silence
from llmtagger.studio.totals import draw_totals
from llmtagger.templates import TemplateFile, find_template

SIZES = (10, 25, 50, 100, 250, 500)
_VIEW = "matrix"  # the shelf's name for how it was left
_CALM = 0.25  # seconds between two refreshes while answers come in
_STEPS = (
    (
        "Press Ask the model",
        "See which tags it gives to {count} products whose tags are known. The first answer takes "
        "about a minute, because the model has to start.",
    ),
    (
        "Look at what is wrong",
        "Every tag is marked right, wrong or missed. Click a product to see why, and to correct "
        "its tags.",
    ),
    (
        "Change the prompt",
        "Under Edit, change the rules in plain words. Under Verdict, see whether that helped.",
    ),
)


class Matrix:
    """The view of one browser tab."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._workspace = frame, frame.workspace
        self._cells: dict[str, dict[str, Cell]] = {}
        left = self._workspace.shelf.view(_VIEW)
        names = [template.name for template in self._workspace.versions()]
        live = self._workspace.live
        versions = [name for name in left.get("versions", []) if name in names] or [live]
        say = frame.say
        with ui.element("div").classes("tools"):
            self._versions = ui.select(
                {name: f"{name} · {say('live')}" if name == live else name for name in names},
                value=versions, multiple=True, label=say("Versions"), on_change=self._chosen,
            ).props("dense outlined use-chips").classes("wide").mark("versions")  # fmt: skip
            known = [size for size in SIZES if size < len(self._workspace.products)]
            sizes = [*known, min(SIZES[-1], len(self._workspace.products))]
            size = left.get("size", 10)
            self._size = (
                ui.select(
                    sizes, value=size if size in sizes else sizes[0], label=say("Products"),
                    on_change=self._chosen,
                ).props("dense outlined").mark("size")
            )  # fmt: skip
            self._asking = Asking(frame, say("Ask the model"), self._ask)
        self._start = ui.element("section").classes("pane start").mark("start")
        with self._start:
            self._draw_steps()
        self._summary = ui.element("div").mark("summary")
        self._body = ui.element("div")
        with self._body:
            self._draw_filters()
            self._table = self._draw_table()
        self._load()

    def _draw_steps(self) -> None:
        say = self._frame.say
        text("h1", say("Find out how good the prompt is, in three steps"))
        with ui.element("ol"):
            for title, detail in _STEPS:
                with ui.element("li"):
                    text("b", say(title))
                    text("p", say(detail, count=self._size.value))
        ui.button(say("Show the products without answers"), on_click=self._show_all).props(
            "flat no-caps"
        ).mark("show-all")

    def _draw_filters(self) -> None:
        say = self._frame.say
        with ui.element("div").classes("tools"):
            self._search = ui.input(say("Search"), on_change=self._draw)
            self._search.classes("short").props("dense outlined clearable debounce=200").mark(
                "search"
            )
            self._wrong = self._check("Only wrong")
            self._unasked = self._check("Also products without answers")
            more = ui.button(say("More filters")).props("flat no-caps").mark("more-filters")
            ui.button(say("Download report"), on_click=self._report).props("flat no-caps").mark(
                "report"
            )
        with ui.element("div").classes("tools") as hidden:
            self._tag, self._category, self._lang = (
                ui.select([], label=say(label), with_input=True, clearable=True,
                          on_change=self._draw).props("dense outlined").classes("short")
                for label in ("Tag", "Category", "Language")
            )  # fmt: skip
            self._differ = self._check("Only where versions differ")
            self._sort = self._check("Most different first")
        hidden.set_visibility(False)
        more.on_click(lambda: hidden.set_visibility(not hidden.visible))
        with ui.element("div").classes("key"):
            for outcome, name in (("right", "right"), ("wrong", "wrong"), ("missed", "missed")):
                with ui.element("span").classes(f"chip {outcome}"):
                    text("b", OUTCOMES[outcome])
                    text("span", say(name))
            ui.label(say("named by the model, not kept")).classes("chip out")
            ui.label(f"ᵐ {say('named by the model')}").classes("note")

    def _check(self, name: str) -> ui.checkbox:
        return ui.checkbox(self._frame.say(name), on_change=self._draw).props("dense")

    def _draw_table(self) -> ui.table:
        table = ui.table(rows=[], columns=[], row_key="id").classes("matrix w-full")
        table.props("flat virtual-scroll hide-pagination :rows-per-page-options='[0]'")
        row = resources.files(__package__).joinpath("row.html").read_text("utf-8")
        table.add_slot("body", row)
        with table.add_slot("no-data"):
            text("span", self._frame.say("No product matches."))
        table.on("cell", self._open)
        return table

    @property
    def _products(self) -> Sequence[Product]:
        return self._workspace.products[: self._size.value]

    def _templates(self) -> list[TemplateFile]:
        return [find_template(name) for name in self._versions.value]

    def _columns(self) -> list[Column]:
        return [
            Column(each, self._products, self._cells.setdefault(each.name, {}))
            for each in self._templates()
        ]

    def _shown_cells(self) -> Mapping[str, Sequence[Cell]]:
        ids = {product.id for product in self._products}
        return {
            name: [cell for id, cell in self._cells.get(name, {}).items() if id in ids]
            for name in self._versions.value
        }

    def _chosen(self) -> None:
        self._workspace.shelf.keep_view(
            _VIEW, {"versions": self._versions.value, "size": self._size.value}
        )
        self._load()

    def _show_all(self) -> None:
        self._unasked.set_value(True)

    def _load(self) -> None:
        """Show what is known of the chosen versions and products."""
        try:
            for template in self._templates():
                self._cells[template.name] = self._workspace.known(template, self._products)
        except LlmtaggerError as error:
            self._frame.complain(error)
        tags = {t.name for cells in self._cells.values() for c in cells.values() for t in c.tags}
        self._tag.set_options(sorted(tags))
        self._category.set_options(sorted({p.category for p in self._products if p.category}))
        self._lang.set_options(sorted({p.lang for p in self._products if p.lang}))
        self._asking.expect(self._columns())
        self._draw()

    def _draw(self) -> None:
        shown = list(self._versions.value)
        begun = any(self._shown_cells().values())
        self._start.set_visibility(not begun and not self._unasked.value)
        self._body.set_visibility(begun or bool(self._unasked.value))
        self._draw_summary()
        wide = {"name": "product", "label": self._frame.say("Product"), "field": "title"}
        columns = [wide, *({"name": name, "label": name, "field": name} for name in shown)]
        for column in columns:
            column["align"] = "left"
        rows = [self._row(product, shown) for product in self._wanted(shown)]
        self._table.columns, self._table.rows = columns, rows
        self._table.update()

    def _draw_summary(self) -> None:
        cells = self._shown_cells()
        every = [cell for each in cells.values() for cell in each]
        stale = sum(map(self._workspace.is_stale, every))
        self._summary.clear()
        if not every:
            return
        with self._summary:
            draw_silence(self._frame, every)
            draw_totals(self._frame, cells)
            if stale:
                ui.label(
                    self._frame.say(
                        "{count} answers are from before the index changed. Ask the model to "
                        "refresh them.",
                        count=stale,
                    )
                ).classes("facts").mark("stale")

    def _wanted(self, versions: Sequence[str]) -> list[Product]:
        found = []
        text = (self._search.value or "").casefold()
        for product in self._products:
            cells = self._row_of(product, versions)
            kept = [cell.kept for cell in cells]
            if not cells and not self._unasked.value:
                continue
            if text and text not in product.text().casefold() and text not in product.id.casefold():
                continue
            if self._differ.value and (len(kept) < 2 or all(each == kept[0] for each in kept)):
                continue
            if self._wrong.value and not any(
                cell.problem or any(look(tag) in ("wrong", "missed") for tag in cell.tags)
                for cell in cells
            ):
                continue
            names = {tag.name for cell in cells for tag in cell.tags}
            if self._tag.value and self._tag.value not in names:
                continue
            if self._category.value and product.category != self._category.value:
                continue
            if self._lang.value and product.lang != self._lang.value:
                continue
            found.append(product)
        if self._sort.value:
            found.sort(key=lambda each: -_disagreement(self._row_of(each, versions)))
        return found

    def _row_of(self, product: Product, versions: Sequence[str]) -> list[Cell]:
        cells = (self._cells.get(version, {}).get(product.id) for version in versions)
        return [cell for cell in cells if cell is not None]

    def _row(self, product: Product, versions: Sequence[str]) -> dict[str, Any]:
        cells = {cell.version: self._shown(cell) for cell in self._row_of(product, versions)}
        return {
            "id": product.id,
            "title": product.title[:300],
            "category": product.category[:120],
            "cells": cells,
            "unasked": self._frame.say("not asked yet"),
        }

    def _shown(self, cell: Cell) -> dict[str, Any]:
        return {
            "problem": self._frame.problem(cell.problem) if cell.problem else "",
            "tags": [
                shown_tag(tag, self._workspace, cell.product.lang, self._frame.why)
                for tag in cell.tags
            ],
            "refused": refusals(self._frame, cell),
            "none": self._frame.say("no tag"),
            "stale": self._workspace.is_stale(cell),
        }

    def _open(self, event: events.GenericEventArguments) -> None:
        id, version = event.args
        queue = self._wanted(list(self._versions.value))
        at = next((at for at, product in enumerate(queue) if product.id == id), None)
        if at is None:  # another tab has changed what is shown
            self._load()
            return

        def changed(id: str) -> None:
            for cells in self._cells.values():
                if id in cells:
                    cells[id] = self._workspace.judged(cells[id])
            self._draw()

        cells = self._cells.get(version, {})
        Review(self._frame, queue, at, version, cells.get, changed)

    async def _ask(self) -> None:
        """Ask with every chosen version about every chosen product that has no answer yet."""
        if not self._versions.value:
            self._frame.done(self._frame.say("No version is chosen."))
        drawn = 0.0

        def changed() -> None:
            nonlocal drawn
            if time.monotonic() - drawn > _CALM * (1 + len(self._products) / 100):
                self._draw()
                drawn = time.monotonic()

        try:
            await self._asking.fill(self._columns(), changed)
        finally:
            self._load()

    def _report(self) -> None:
        shown = list(self._versions.value)
        products = self._wanted(shown)
        columns = {version: self._cells.get(version, {}) for version in shown}
        page = matrix_page(products, columns)
        ui.download.content(page, f"{self._workspace.folder.name}-matrix.html", "text/html")


def _disagreement(cells: Sequence[Cell]) -> float:
    """How unlike each other the kept tags are: one less the Jaccard index of all versions."""
    kept = [cell.kept for cell in cells]
    whole = frozenset[str]().union(*kept)
    shared = frozenset.intersection(*kept) if kept else frozenset()
    return 1 - len(shared) / len(whole) if whole else 0.0
