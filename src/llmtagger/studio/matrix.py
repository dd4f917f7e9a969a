"""The matrix: a row a product, a column a version, a cell the tags beside gold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from typing import Any

from nicegui import events, ui

from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.matrix import look, matrix_page
from llmtagger.evaluation.report import OUTCOMES
from llmtagger.evaluation.trials import Cell
from llmtagger.studio.asking import Asking
from llmtagger.studio.cell import open_cell
from llmtagger.studio.chip import shown_tag
from llmtagger.studio.frame import Frame
from llmtagger.templates import TemplateFile, find_template

SIZES = (10, 25, 50, 100, 250, 500)
_VIEW = "matrix"  # the shelf's name for how it was left
_CALM = 0.25  # seconds between two refreshes while answers come in


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
        with ui.element("div").classes("tools"):
            self._search = ui.input(say("Search"), on_change=self._draw)
            self._search.classes("short").props("dense outlined clearable debounce=200").mark(
                "search"
            )
            self._differ = ui.checkbox(say("Only where versions differ"), on_change=self._draw)
            self._wrong = ui.checkbox(say("Only wrong"), on_change=self._draw)
            self._sort = ui.checkbox(say("Sort by disagreement"), on_change=self._draw)
            self._tag, self._category, self._lang = (
                ui.select([], label=say(label), with_input=True, clearable=True,
                          on_change=self._draw).props("dense outlined").classes("short")
                for label in ("Tag", "Category", "Language")
            )  # fmt: skip
            ui.button(say("Report"), on_click=self._report).props("flat no-caps").mark("report")
        with ui.element("div").classes("key"):
            for outcome, name in (("right", "right"), ("wrong", "wrong"), ("missed", "missed")):
                ui.html(f"<b>{OUTCOMES[outcome]}</b>{say(name)}", sanitize=False).classes(
                    f"chip {outcome}"
                )
            ui.label(say("dropped")).classes("chip out")
            ui.label(f"ᵐ {say('said by the model')}").classes("note")
        self._table = ui.table(rows=[], columns=[], row_key="id").classes("matrix w-full")
        self._table.props("flat virtual-scroll hide-pagination :rows-per-page-options='[0]'")
        row = resources.files(__package__).joinpath("row.html").read_text("utf-8")
        self._table.add_slot("body", row)
        self._table.on("cell", self._open)
        self._load()

    @property
    def _products(self) -> Sequence[Product]:
        return self._workspace.products[: self._size.value]

    def _templates(self) -> list[TemplateFile]:
        return [find_template(name) for name in self._versions.value]

    def _chosen(self) -> None:
        self._workspace.shelf.keep_view(
            _VIEW, {"versions": self._versions.value, "size": self._size.value}
        )
        self._load()

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
        self._draw()

    def _draw(self) -> None:
        shown = list(self._versions.value)
        wide = {"name": "product", "label": self._frame.say("Product"), "field": "title"}
        columns = [wide, *({"name": name, "label": name, "field": name} for name in shown)]
        for column in columns:
            column["align"] = "left"
        rows = [self._row(product, shown) for product in self._wanted(shown)]
        self._table.columns, self._table.rows = columns, rows
        self._table.update()

    def _wanted(self, versions: Sequence[str]) -> list[Product]:
        found = []
        text = (self._search.value or "").casefold()
        for product in self._products:
            cells = self._row_of(product, versions)
            kept = [cell.kept for cell in cells]
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
        }

    def _shown(self, cell: Cell) -> dict[str, Any]:
        say = self._frame.say
        refused = ", ".join(f"{r.text[:60]} ({r.reason.value})" for r in cell.rejected[:6])
        return {
            "problem": f"{cell.problem.code}: {cell.problem.message[:200]}" if cell.problem else "",
            "tags": [shown_tag(tag, self._workspace, cell.product.lang) for tag in cell.tags],
            "refused": f"{say('refused')}: {refused}" if refused else "",
            "none": say("nothing"),
        }

    def _open(self, event: events.GenericEventArguments) -> None:
        id, version = event.args
        product = next((product for product in self._products if product.id == id), None)
        if product is None:  # another tab has changed what is shown
            self._load()
            return
        cell = self._cells.get(version, {}).get(id)

        def changed() -> None:
            for cells in self._cells.values():
                if id in cells:
                    cells[id] = self._workspace.judged(cells[id])
            self._draw()

        open_cell(self._frame, product, version, cell, changed)

    async def _ask(self) -> None:
        """Ask with every chosen version about every chosen product that has no answer yet."""
        products = self._products
        if not self._versions.value:
            self._frame.done(self._frame.say("No version is chosen."))
        drawn = 0.0

        def changed() -> None:
            nonlocal drawn
            if time.monotonic() - drawn > _CALM * (1 + len(products) / 100):
                self._draw()
                drawn = time.monotonic()

        try:
            for template in self._templates():
                cells = self._cells.setdefault(template.name, {})
                await self._asking.fill(template, products, cells, changed)
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
