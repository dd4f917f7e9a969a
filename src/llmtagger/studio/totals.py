"""What each version comes to: right, wrong and missed tags, above the matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nicegui import ui

from llmtagger.evaluation.matrix import look
from llmtagger.evaluation.report import OUTCOMES
from llmtagger.evaluation.trials import Cell
from llmtagger.studio.frame import Frame, text


@dataclass(frozen=True, slots=True)
class Total:
    """Counts over the answers of one version; tags that nobody judged are in none."""

    answers: int
    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float | None:
        """Of all tags kept; None where nothing was judged."""
        whole = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / whole if whole else None


def total(cells: Iterable[Cell]) -> Total:
    """The sum of some cells, of which those that failed do not count."""
    held = [cell for cell in cells if not cell.failed]
    looks = [look(tag) for cell in held for tag in cell.tags]
    return Total(len(held), *(looks.count(each) for each in ("right", "wrong", "missed")))


def draw_totals(frame: Frame, cells: Mapping[str, Iterable[Cell]]) -> None:
    """A row for each version that has an answer."""
    say, totals = frame.say, {name: total(each) for name, each in cells.items()}
    live = frame.workspace.live
    with ui.element("table").classes("figures totals"):
        heads = [f"{OUTCOMES[key]} {say(key)}" for key in ("right", "wrong", "missed")]
        with ui.element("tr"):
            for head in (say("Version"), say("Answers"), *heads, "F1"):
                text("th", head)
        for name, each in totals.items():
            if not each.answers:
                continue
            figure = "–" if each.f1 is None else f"{each.f1:.3f}"
            counts = (each.answers, each.right, each.wrong, each.missed)
            with ui.element("tr"):
                text("td", f"{name} · {say('live')}" if name == live else name)
                for said in (*(f"{count:,}" for count in counts), figure):
                    text("td", said)
