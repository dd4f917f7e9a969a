"""The verdict of a comparison in sentences, shared by studio, command line and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtagger.evaluation.interval import points
from llmtagger.evaluation.metrics import LEAST_GROUPS

UNCLEAR = "too close to call"  # an interval that holds zero

_SAME = "No difference: same tags on all {count} products."
_SILENT = "The model chose none, so the prompt cannot matter. Try a larger model."
_BETTER = "{winner} is better: F1 {value} points (95% interval {low} to {high})."
_UNCLEAR = (
    "Too close to call: from {a} to {b} F1 changes by {value} points (95% interval {low} to "
    "{high}). More products may show a difference."
)

_FEW = (
    "Too few products for a verdict: from {a} to {b} F1 changes by {value} points. At least "
    "{least} different products are needed."
)

# A text with `{names}`, which the studio translates, and their values.
Sentence = tuple[str, dict[str, object]]


def sentences(
    found: Mapping[str, Any], a: str, b: str, *, is_silent: bool = False
) -> list[Sentence]:
    """What `comparison.paired` found, in words.

    `a` and `b` name the two sides; `is_silent` says that no answer of the model chose a tag.
    """
    if found["changed"] == 0:
        said: list[Sentence] = [(_SAME, {"count": found["products"]})]
        return [*said, (_SILENT, {})] if is_silent else said
    figure = found["micro_f1"]["difference"]
    value, low, high = (figure[part] for part in ("value", "low", "high"))
    if low is None:
        few = {"a": a, "b": b, "value": points(value), "least": LEAST_GROUPS}
        return [(_FEW, few)]
    better = winner(found, a, b)
    if better == a:  # told from the winner's side
        value, low, high = -value, -high, -low
    shown = {"value": points(value), "low": points(low), "high": points(high)}
    if better is None:
        return [(_UNCLEAR, {"a": a, "b": b, **shown})]
    return [(_BETTER, {"winner": better, **shown})]


def in_english(said: list[Sentence]) -> str:
    """The sentences as one text."""
    return " ".join(text.format(**values) for text, values in said)


def winner(found: Mapping[str, Any], a: str, b: str) -> str | None:
    """The side whose F1 is higher beyond chance."""
    return {"a is better": a, "b is better": b}.get(found["micro_f1"]["verdict"])
