"""From a calibration to a scorer, and to the decision whether the model is asked at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmtagger.calibration import Calibration, Fitted
from llmtagger.config import ScoringSettings
from llmtagger.datatypes import ScoredTags
from llmtagger.errors import ConfigError
from llmtagger.output import Cut
from llmtagger.stages.scoring import MODEL, WARM, Bend, WeightedScorer, Weights

AskMode = Literal["auto", "always", "never"]

KEEP_NOTHING = 2.0  # a threshold that no score reaches


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run scores, where it cuts, and when it asks; `warnings` are for the person at it.

    `calibration` is the learned scorer in use, if any; of one that was fitted with another model
    or prompt, only what holds without a model is used.
    """

    mode: AskMode
    calibration: Calibration | None
    cut: Cut
    warnings: tuple[str, ...] = ()

    @property
    def scorer(self) -> WeightedScorer:
        """The scorer to use."""
        return learned_scorer(self.calibration) if self.calibration else WeightedScorer()

    @property
    def asks(self) -> bool:
        """Whether the model is asked about any product at all."""
        rule = self.calibration.ask if self.calibration else None
        return self.mode == "always" or (self.mode == "auto" and (rule is None or rule.margin > 0))

    def worth_asking(self, scored: ScoredTags) -> bool:
        """Whether the model is to be asked about a product with these scores."""
        return worth_asking(self.mode, self.calibration, scored)

    @property
    def identity(self) -> dict[str, str]:
        """What tells the scores of this plan from those of another."""
        fitted = self.calibration
        return {"llm": self.mode, "scorer": f"fitted@{fitted.fingerprint}" if fitted else "default"}


def plan(
    calibration: Calibration | None,
    identity: Mapping[str, str],
    settings: ScoringSettings,
    *,
    mode: AskMode,
    threshold: float | None,
    min_precision: float | None,
) -> Plan:
    """Decide how a run scores. `identity` names its model, prompt, index and settings.

    Raises `ConfigError` where a precision is asked for that nothing stands behind.
    """
    if min_precision is not None:
        _check_promise(calibration, identity, threshold)
    if calibration is None:
        cut = settings.threshold if threshold is None else threshold
        return Plan(mode, None, Cut(cut, min(settings.review, cut)))
    warnings = []
    if calibration.index != identity["index"]:
        warnings.append(
            "the scorer was fitted to an earlier state of this index; "
            "`llmtagger calibrate` brings it up to date"
        )
    if calibration.settings != identity["settings"]:
        warnings.append(
            "the scorer was fitted with other settings; `llmtagger calibrate` fits it anew"
        )
    used = (calibration.model, calibration.prompt)
    if calibration.model and used != (identity["model"], identity["prompt"]) and mode != "never":
        warnings.append(
            f"the scorer knows the answers of {calibration.model} to {calibration.prompt}; those "
            "of this run are weighed by default"
        )
    if used != (identity["model"], identity["prompt"]):
        calibration = calibration.model_copy(update={"asked": None, "ask": None})
    if min_precision is not None and calibration.asked is None and mode != "never":
        warnings.append(
            "nothing is promised where the model is asked, so all of that is for review: "
            "`--llm never` asks nothing, `llmtagger calibrate --model …` learns what answers say"
        )
    return Plan(
        mode,
        calibration,
        _cut(calibration, settings, threshold, min_precision),
        tuple(warnings),
    )


def _check_promise(
    calibration: Calibration | None, identity: Mapping[str, str], threshold: float | None
) -> None:
    if threshold is not None:
        raise ConfigError(
            "--threshold and --min-precision both say what is kept", hint="give one of them"
        )
    if calibration is None:
        raise ConfigError(
            "no precision can be promised: this index has no fitted scorer",
            hint="fit one to its labelled products: llmtagger calibrate -i INDEX",
        )
    if calibration.index != identity["index"] or calibration.settings != identity["settings"]:
        raise ConfigError(
            "no precision can be promised: the scorer was fitted to another state of the index "
            "or with other settings",
            hint="fit it anew: llmtagger calibrate -i INDEX",
        )


def _cut(
    calibration: Calibration,
    settings: ScoringSettings,
    threshold: float | None,
    min_precision: float | None,
) -> Cut:
    def of(fitted: Fitted) -> float:
        if min_precision is not None:
            promised = fitted.cut_for(min_precision)
            return KEEP_NOTHING if promised is None else promised
        return fitted.threshold if threshold is None else threshold

    unasked = of(calibration.unasked)
    answered = of(calibration.asked) if calibration.asked else None
    if answered is None and min_precision is not None:
        answered = KEEP_NOTHING  # nothing is known of how right scores are that a model has moved
    return Cut(unasked, min(settings.review, unasked, answered or unasked), answered)


def learned_scorer(calibration: Calibration) -> WeightedScorer:
    """The scorer that was fitted, for products with and without an answer by the model."""
    unasked = _weights(calibration.unasked)
    if calibration.asked is None:  # what the model says still counts, by hand-set weights
        of = dict(unasked.of) | {name: WARM.of[name] for name in MODEL}
        unasked = replace(unasked, of=of)
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
    return Weights(fitted.bias, fitted.of, fitted.tags, fitted.keys, Bend(*fitted.bend))
