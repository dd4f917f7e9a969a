"""From a calibration to a scorer, and to the decision whether the model is asked at all."""

from __future__ import annotations

from typing import Literal

from llmtagger.calibration import Calibration, Fitted
from llmtagger.datatypes import ScoredTags
from llmtagger.stages.scoring import WeightedScorer, Weights

AskMode = Literal["auto", "always", "never"]


def learned_scorer(calibration: Calibration) -> WeightedScorer:
    """The scorer that was fitted, for products with and without an answer by the model."""
    unasked = _weights(calibration.unasked)
    asked = _weights(calibration.asked) if calibration.asked else None
    return WeightedScorer(warm=unasked, cold=unasked, asked=asked)


def worth_asking(mode: AskMode, calibration: Calibration | None, scored: ScoredTags) -> bool:
    """Whether the model is likely to change what is kept, going by the scores without it.

    `auto` asks about everything where nothing was learnt about the model.
    """
    if mode != "auto" or calibration is None or calibration.ask is None:
        return mode != "never"
    margin, cut = calibration.ask.margin, calibration.unasked.threshold
    return margin > 0 and any(abs(item.score - cut) <= margin for item in scored.items)


def _weights(fitted: Fitted) -> Weights:
    return Weights(fitted.bias, fitted.of, fitted.tags, fitted.keys)
