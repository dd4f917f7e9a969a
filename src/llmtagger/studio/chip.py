"""A tag as the pages show it."""

from __future__ import annotations

from nicegui import ui

from llmtagger.evaluation.matrix import look
from llmtagger.evaluation.report import OUTCOMES
from llmtagger.evaluation.trials import Shown
from llmtagger.studio.workspace import Workspace


def shown_tag(tag: Shown, workspace: Workspace, lang: str) -> dict[str, str]:
    """A tag for the page: its text, its mark and look, its score, and its evidence."""
    drawn = look(tag)
    return {
        "name": workspace.label(tag.name, lang)[:120] + ("ᵐ" if tag.chosen else ""),
        "mark": OUTCOMES.get(drawn, ""),
        "look": drawn,
        "score": "" if tag.score is None else f"{tag.score:.2f}",
        "why": tag.why[:300],
    }


def draw_chip(shown: dict[str, str]) -> ui.label:
    """Put a tag of `shown_tag` on the page."""
    label = ui.label(f"{shown['mark']} {shown['name']}".strip())
    return label.classes(f"chip {shown['look']}").props("dir=auto")
