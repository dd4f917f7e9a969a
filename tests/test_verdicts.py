"""The sentences of a verdict, which studio, command line and pages share."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmtagger.evaluation.comparison import verdict
from llmtagger.evaluation.verdicts import in_english, sentences, winner


def found(value: float, low: float, high: float, *, changed: int = 7) -> dict[str, Any]:
    """A comparison on 25 products."""
    difference = {"value": value, "low": low, "high": high}
    figure = {"difference": difference, "verdict": verdict(low, high)}
    return {"products": 25, "changed": changed, "micro_f1": figure}


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            found(0.02, 0.01, 0.03),
            "v2 is better: F1 +2.0 points (95% interval +1.0 to +3.0).",
        ),
        (
            found(-0.02, -0.03, -0.01),
            "v1 is better: F1 +2.0 points (95% interval +1.0 to +3.0).",
        ),
        (
            found(-0.0001, -0.03, 0.01),
            "Too close to call: from v1 to v2 F1 changes by +0.0 points (95% interval −3.0 to "
            "+1.0). More products may show a difference.",
        ),
        (found(0, 0, 0, changed=0), "No difference: same tags on all 25 products."),
    ],
)
def test_each_outcome_has_its_sentence(difference: dict[str, Any], said: str) -> None:
    assert in_english(sentences(difference, "v1", "v2")) == said


def test_of_a_few_products_there_is_no_verdict() -> None:
    difference = found(0.2, math.nan, math.nan)
    difference["micro_f1"]["difference"] |= {"low": None, "high": None}
    assert in_english(sentences(difference, "v1", "v2")) == (
        "Too few products for a verdict: from v1 to v2 F1 changes by +20.0 points. At least 10 "
        "different products are needed."
    )
    assert winner(difference, "v1", "v2") is None


def test_a_model_that_chose_nothing_is_blamed_only_where_nothing_differs() -> None:
    same = sentences(found(0, 0, 0, changed=0), "v1", "v2", is_silent=True)
    assert in_english(same).endswith("Try a larger model.")
    other = sentences(found(0.1, -0.1, 0.2), "v1", "v2", is_silent=True)
    assert "larger model" not in in_english(other)


def test_names_with_braces_are_names() -> None:
    assert "{0}" in in_english(sentences(found(0.02, 0.01, 0.03), "{winner}", "{0}"))


def test_the_winner_is_the_side_that_is_better_beyond_chance() -> None:
    sides = [winner(found(0, low, high), "v1", "v2") for low, high in ((1, 2), (-2, -1), (-1, 1))]
    assert sides == ["v2", "v1", None]
