"""Asking the model from a page: a button, one that cancels, how far it is and how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from nicegui import ui

from llmtagger.datatypes import Product
from llmtagger.errors import EngineCancelled, LlmtaggerError
from llmtagger.evaluation.trials import Cell
from llmtagger.studio.frame import Frame
from llmtagger.studio.pace import Pace, duration
from llmtagger.studio.streaming import streamed
from llmtagger.templates import TemplateFile

_PACES = "pace"  # the shelf's name for seconds per answer, by model


@dataclass(frozen=True)
class Column:
    """One version, the products it is tried on, and the cells known so far, which are added to."""

    template: TemplateFile
    products: Sequence[Product]
    cells: dict[str, Cell]


class Asking:
    """The buttons of one browser tab; `work` runs on a click, and only once at a time."""

    def __init__(self, frame: Frame, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._frame, self._work = frame, work
        self._stop = threading.Event()
        self._busy = False
        self._able = True
        self._expected = ""
        self._ask = ui.button(name, on_click=self.run)
        self._ask.props("unelevated no-caps").mark("ask")
        self._cancel = ui.button(frame.say("Cancel"), on_click=self._give_up)
        self._cancel.props("flat no-caps").mark("cancel").set_visibility(False)
        with ui.element("div").classes("progress"):
            self._progress = ui.label().classes("note").props("role=status").mark("progress")
            self._bar = ui.linear_progress(0, show_value=False, size="4px")
            self._bar.props("rounded instant-feedback aria-hidden=true").set_visibility(False)

    def enable(self, able: bool) -> None:
        """Whether there is something to ask with."""
        self._able = able
        self._ask.set_enabled(able and not self._busy)

    def expect(self, columns: Sequence[Column]) -> None:
        """Say how many answers a click asks for, and how long that takes by the last pace."""
        say, left = self._frame.say, sum(len(self._left(each)) for each in columns)
        pace = self._frame.workspace.shelf.view(_PACES).get(self._frame.workspace.model)
        self._expected = say("{count} answers to ask for", count=f"{left:,}") if left else ""
        if left and pace:
            self._expected += f" · {duration(left * pace, say)}"
        if not self._busy:
            self._progress.text = self._expected

    async def run(self) -> None:
        """Do the work, as a click does."""
        if self._busy or not self._able:
            return
        self._stop = threading.Event()  # a thread that was told to stop keeps its own
        self._show(busy=True)
        try:
            await self._work()
        except EngineCancelled:
            pass
        except LlmtaggerError as error:
            self._frame.complain(error)
        finally:
            self._show(busy=False)

    def _give_up(self) -> None:
        self._stop.set()
        self._progress.text = self._frame.say("Stopping …")

    def _show(self, *, busy: bool) -> None:
        self._busy = busy
        self._cancel.set_visibility(busy)
        self._bar.set_visibility(busy)
        self._bar.value = 0
        self.enable(self._able)
        self._progress.text = self._frame.say("Asking …") if busy else self._expected

    async def fill(self, columns: Sequence[Column], changed: Callable[[], None]) -> None:
        """Ask for the answers that are missing or stale, and put each into its cells as it comes.

        `changed` is called after each.
        """
        stop, pace = self._stop, Pace()
        whole = sum(len(each.products) for each in columns)
        left = sum(len(self._left(each)) for each in columns)
        for column in columns:
            wanted = self._left(column)
            if not wanted or stop.is_set():
                continue
            async for cell in streamed(self._question(column, wanted, stop), stop):
                column.cells[cell.product.id] = cell
                left -= 1
                pace.answered()
                self._tell(column.template.name, whole - left, whole, left, pace)
                changed()
        self._keep(pace)

    def _question(
        self, column: Column, wanted: Sequence[Product], stop: threading.Event
    ) -> Callable[[], Iterator[Cell]]:
        def waiting(message: str, seconds: float) -> None:
            if stop.is_set():
                raise EngineCancelled("the start was cancelled", hint="ask again to start it")
            self._progress.text = self._frame.say(
                "Starting the model's server … {seconds} s", seconds=f"{seconds:.0f}"
            )

        return lambda: self._frame.workspace.ask(column.template, wanted, waiting)

    def _left(self, column: Column) -> list[Product]:
        stale = self._frame.workspace.is_stale
        known = {id for id, cell in column.cells.items() if not cell.failed and not stale(cell)}
        return [product for product in column.products if product.id not in known]

    def _tell(self, version: str, done: int, whole: int, left: int, pace: Pace) -> None:
        if self._stop.is_set():
            return
        say = self._frame.say
        self._bar.value = done / max(whole, 1)
        text = f"{version}: {done:,} / {whole:,}"
        if left and pace.seconds is not None:
            text += f" · {say('{time} left', time=duration(left * pace.seconds, say))}"
        self._progress.text = text

    def _keep(self, pace: Pace) -> None:
        if pace.seconds is None:
            return
        shelf, model = self._frame.workspace.shelf, self._frame.workspace.model
        shelf.keep_view(_PACES, shelf.view(_PACES) | {model: round(pace.seconds, 3)})
