"""Asking the model from a page: a button, one that cancels, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

from nicegui import ui

from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.evaluation.trials import Cell
from llmtagger.studio.frame import Frame
from llmtagger.studio.streaming import streamed
from llmtagger.templates import TemplateFile


class Asking:
    """The buttons of one browser tab; `work` runs on a click, and only once at a time."""

    def __init__(self, frame: Frame, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._frame, self._work = frame, work
        self._stop = threading.Event()
        self._busy = False
        self._able = True
        self._ask = ui.button(name, on_click=self._run)
        self._ask.props("unelevated no-caps").mark("ask")
        self._cancel = ui.button(frame.say("Cancel"), on_click=self._stop.set)
        self._cancel.props("flat no-caps").mark("cancel").set_visibility(False)
        self._progress = ui.label().classes("note").props("role=status").mark("progress")

    def enable(self, able: bool) -> None:
        """Whether there is something to ask with."""
        self._able = able
        self._ask.set_enabled(able and not self._busy)

    async def _run(self) -> None:
        if self._busy:
            return
        self._stop.clear()
        self._show(busy=True)
        try:
            await self._work()
        except LlmtaggerError as error:
            self._frame.complain(error)
        finally:
            self._show(busy=False)

    def _show(self, *, busy: bool) -> None:
        self._busy = busy
        self._cancel.set_visibility(busy)
        self.enable(self._able)
        self._progress.text = ""

    async def fill(
        self,
        template: TemplateFile,
        products: Sequence[Product],
        cells: dict[str, Cell],
        changed: Callable[[], None],
    ) -> None:
        """Ask about the products that have no answer in `cells`, and put each in as it comes."""
        left = [each for each in products if each.id not in cells or cells[each.id].failed]
        done = len(products) - len(left)

        def waiting(message: str, seconds: float) -> None:
            self._progress.text = f"{self._frame.say('starting the server')} … {seconds:.0f} s"

        def work() -> Iterator[Cell]:
            return self._frame.workspace.ask(template, left, waiting)

        if not left or self._stop.is_set():
            return
        async for cell in streamed(work, self._stop):
            cells[cell.product.id] = cell
            done += 1
            self._progress.text = f"{template.name}: {done} / {len(products)}"
            changed()
