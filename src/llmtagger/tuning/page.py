"""An adapter's page: its losses, its data card and how it was made, as one offline HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmtagger.adapters import Adapter
from llmtagger.evaluation.plots import Line, trends
from llmtagger.evaluation.report import write_page

PAGE = "adapter.html"
_POINTS = 120  # of the training curve: a step's own loss is noise, so means of steps are drawn


def write_tuning(adapter: Adapter, folder: Path) -> Path:
    """Writes the page into a folder and returns where it lies."""
    lines = [
        Line("products held out", tuple(adapter.losses.get("held_out", ())), "s0"),
        Line("training, means of steps", smoothed(adapter.losses.get("train", ())), "s1"),
    ]
    facts = {
        "base": f"{adapter.base} {adapter.base_fingerprint}",
        "prompt": adapter.template,
        "index": adapter.index,
        "vocabulary": adapter.vocabulary,
        "weights, SHA-256": adapter.weights,
        **{name: str(value) for name, value in adapter.recipe.model_dump().items()},
        **adapter.versions,
    }
    context = {
        "adapter": adapter,
        "minutes": round(adapter.seconds / 60),
        "lines": lines,
        "plot": trends(lines, "Loss by step", "step", "loss"),
        "facts": facts,
    }
    path = folder / PAGE
    write_page("tuning.html.jinja", context, path)
    return path


def smoothed(losses: Sequence[tuple[int, float]]) -> tuple[tuple[float, float], ...]:
    """Means of neighbouring steps, `_POINTS` at the most, each at its steps' middle.

    >>> smoothed([(1, 2.0), (2, 1.0)])
    ((1.0, 2.0), (2.0, 1.0))
    """
    each = -(-len(losses) // _POINTS) or 1
    parts = [losses[at : at + each] for at in range(0, len(losses), each)]
    return tuple(
        (sum(step for step, _ in part) / len(part), sum(loss for _, loss in part) / len(part))
        for part in parts
    )
