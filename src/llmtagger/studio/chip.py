"""A tag as the pages show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nicegui import ui

from llmtagger.evaluation.matrix import look
from llmtagger.evaluation.report import OUTCOMES
from llmtagger.evaluation.trials import Cell, Shown
from llmtagger.studio.workspace import Workspace

if TYPE_CHECKING:
    from llmtagger.studio.frame import Frame

_REFUSED = 6  # shown at most
_REASONS = {
    "not_in_vocabulary": "not in the vocabulary",
    "not_in_shortlist": "not among the tags on offer",
    "not_in_text": "not in the product's text",
    "duplicate": "named twice",
    "too_many": "more tags than allowed",
    "below_threshold": "too unsure",
    "retired": "retired",
    "malformed": "not a tag",
}


def shown_tag(
    tag: Shown, workspace: Workspace, lang: str, why: Callable[[str], str] = str
) -> dict[str, str]:
    """A tag for the page: its text, its mark and look, its score, and its evidence."""
    drawn = look(tag)
    return {
        "name": workspace.label(tag.name, lang)[:120] + ("ᵐ" if tag.chosen else ""),
        "mark": OUTCOMES.get(drawn, ""),
        "look": drawn,
        "score": "" if tag.score is None else f"{tag.score:.2f}",
        "why": why(tag.why[:300]),
    }


def draw_chip(shown: dict[str, str]) -> ui.label:
    """Put a tag of `shown_tag` on the page."""
    label = ui.label(f"{shown['mark']} {shown['name']}".strip())
    return label.classes(f"chip {shown['look']}").props("dir=auto")


def refusals(frame: Frame, cell: Cell) -> str:
    """What the model said and no tag was made of, with the reasons; empty where there is none."""
    said = ", ".join(
        f"{each.text[:60]} ({frame.say(_REASONS[each.reason.value])})"
        for each in cell.rejected[:_REFUSED]
    )
    return f"{frame.say('refused')}: {said}" if said else ""
