"""A model that chooses nothing: no prompt can change that, and the page says so."""

from __future__ import annotations

from collections.abc import Iterable

from nicegui import ui

from llmtagger.evaluation.trials import Cell
from llmtagger.studio.frame import Frame
from llmtagger.studio.model import open_model_sheet

_LEAST, _SHARE = 5, 0.95  # answers; share of them without a chosen tag


def silent_answers(cells: Iterable[Cell]) -> tuple[int, int] | None:
    """How many answers chose no tag, of how many; None while the model reacts or few are known."""
    chosen = [bool(cell.said) for cell in cells if not cell.failed]
    silent = chosen.count(False)
    if len(chosen) < _LEAST or silent < _SHARE * len(chosen):
        return None
    return silent, len(chosen)


def draw_silence(frame: Frame, cells: Iterable[Cell]) -> None:
    """A banner where the model does not react to prompts, with the way to another model."""
    found = silent_answers(cells)
    if found is None:
        return
    say, (silent, answers) = frame.say, found
    with ui.element("div").classes("banner").props("role=status").mark("silence"):
        ui.label(
            say(
                "The model chose no tag in {silent} of {answers} answers, so changing the prompt "
                "changes nothing. Try a larger model.",
                silent=silent,
                answers=answers,
            )
        )
        ui.button(say("Switch model"), on_click=lambda: open_model_sheet(frame)).props(
            "flat dense no-caps"
        ).mark("switch-model")
