"""From a calibration to a scorer, and to the decision whether the model is asked at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmtagger.calibration import Calibration, Fitted
from llmtagger.config import ScoringSettings
from llmtagger.datatypes import ScoredTags
from llmtagger.errors import ConfigError, Unpromised
from llmtagger.output import Cut
from llmtagger.stages.scoring import MODEL, WARM, Bend, WeightedScorer, Weights

AskMode = Literal["auto", "always", "never"]

KEEP_NOTHING = 2.0  # a threshold that no score reaches


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run scores, where it cuts, and whether it asks; `warnings` are for the person at it.

    `calibration` is the learned scorer in use, if any; of one that was fitted with another model
    or prompt, only what holds without a model is used. `decision` says in one sentence what `auto`
    does and why. `promised` is false where nothing can be kept at the precision asked for.
    """

    mode: AskMode
    calibration: Calibration | None
    cut: Cut
    asks: bool
    decision: str = ""
    warnings: tuple[str, ...] = ()
    promised: bool = True

    @property
    def scorer(self) -> WeightedScorer:
        """The scorer to use."""
        return learned_scorer(self.calibration) if self.calibration else WeightedScorer()

    def worth_asking(self, scored: ScoredTags) -> bool:
        """Whether the model is to be asked about a product with these scores."""
        return self.asks and worth_asking(self.mode, self.calibration, scored)

    @property
    def identity(self) -> dict[str, str]:
        """What tells the scores of this plan from those of another."""
        fitted = self.calibration
        return {"llm": self.mode, "scorer": f"fitted@{fitted.fingerprint}" if fitted else "default"}


def may_ask(mode: AskMode, calibration: Calibration | None, labelled: int) -> bool:
    """Whether a run can ask any model at all, whichever it is; only then one needs to be there."""
    if mode == "auto":
        return not labelled or (calibration is not None and calibration.ask is not None)
    return mode == "always"


def plan(
    calibration: Calibration | None,
    identity: Mapping[str, str],
    settings: ScoringSettings,
    *,
    mode: AskMode,
    labelled: int,
    threshold: float | None,
    min_precision: float | None,
    cold: float | None = None,
    measure: str = "llmtagger calibrate --model …",
) -> Plan:
    """Decide how a run scores. `identity` names its model, prompt, index and settings.

    `labelled` counts the labelled products of the index, `cold` is the threshold that suits it
    while there are none, `measure` is the command that finds out what the model's answers are
    worth. Raises `ConfigError` where two options contradict each
    other, `Unpromised` where a precision is asked for that nothing was measured for.
    """
    if min_precision is not None:
        _check_promise(calibration, identity, threshold)
    warnings = _doubts(calibration, identity, mode)
    if calibration and _used(calibration) != _used(identity):
        calibration = calibration.model_copy(update={"asked": None, "ask": None})
    asks = mode == "always"
    decision = ""
    if mode == "auto":
        asks, decision = _decide(calibration, labelled, measure)
    cuts = _cut(calibration, settings, threshold, min_precision, cold)
    if calibration is None:
        return Plan(mode, None, cuts, asks, decision, warnings)
    promised = True
    if min_precision is not None:
        promised, doubts = _promise(calibration, cuts, min_precision, mode, asks)
        warnings += doubts
    return Plan(mode, calibration, cuts, asks, decision, warnings, promised)


def _used(of: Calibration | Mapping[str, str]) -> tuple[str | None, str | None]:
    """The model and the prompt of a calibration, or of a run's identity."""
    return (of.model, of.prompt) if isinstance(of, Calibration) else (of["model"], of["prompt"])


def _doubts(
    calibration: Calibration | None, identity: Mapping[str, str], mode: AskMode
) -> tuple[str, ...]:
    """What to warn of where a calibration was fitted to something else."""
    if calibration is None:
        return ()
    found = []
    if calibration.index != identity["index"]:
        found.append(
            "The index changed since calibration, so scores may be off. Run `llmtagger calibrate`."
        )
    if calibration.settings != identity["settings"]:
        found.append(
            "Your settings changed since calibration, so scores may be off. "
            "Run `llmtagger calibrate`."
        )
    if mode == "always" and calibration.model and _used(calibration) != _used(identity):
        found.append(
            f"Calibration measured {calibration.model} with {calibration.prompt}. The answers of "
            "this run are weighted by default."
        )
    return tuple(found)


def _decide(calibration: Calibration | None, labelled: int, measure: str) -> tuple[bool, str]:
    """Whether `auto` asks the model, and why."""
    if not labelled:
        return True, "Asking the model about every product: nothing in this index is labelled."
    rule = calibration.ask if calibration else None
    if rule is None:
        return False, (
            "Not asking the model: calibration has not measured it. "
            f"Run `{measure}` to find out, or use --llm always."
        )
    value, low, high = (100 * part for part in rule.added)
    found = f"{value:+.1f} points of F1 [{low:+.1f}, {high:+.1f}]"
    if rule.margin == 0:
        return False, f"Not asking the model: calibration found no gain ({found})."
    return True, f"Asking the model where a tag is in doubt: calibration found a gain ({found})."


def _promise(
    calibration: Calibration, cut: Cut, precision: float, mode: AskMode, asks: bool
) -> tuple[bool, tuple[str, ...]]:
    """Whether tags of that precision can be kept, and what to say where not."""
    found = []
    if asks and calibration.asked is None:
        found.append(
            "No precision can be promised for products that the model answers, because "
            "calibration has not measured it; all their tags are for review. "
            "Run `llmtagger calibrate --model …`, or use --llm never."
        )
    elif asks and cut.answered == KEEP_NOTHING and calibration.asked:
        found.append(_too_high(precision, calibration.asked, " for products the model answers"))
    if mode != "always" and cut.threshold == KEEP_NOTHING:
        found.append(_too_high(precision, calibration.unasked, ""))
    return not found, tuple(found)


def _too_high(precision: float, fitted: Fitted, where: str) -> str:
    highest = max((promise.lower for promise in fitted.promises), default=0.0)
    said = f"the highest is {math.floor(1000 * highest) / 1000:g}" if highest else "none can be yet"
    return (
        f"A precision of {precision:g} cannot be promised{where}: {said}. All tags are for review. "
        "More labelled products raise what can be promised."
    )


def _check_promise(
    calibration: Calibration | None, identity: Mapping[str, str], threshold: float | None
) -> None:
    if threshold is not None:
        raise ConfigError(
            "--threshold and --min-precision both say what is kept", hint="give one of them"
        )
    if calibration is None:
        raise Unpromised(
            "no precision can be promised: this index is not calibrated",
            hint="calibrate it with its labelled products: llmtagger calibrate -i INDEX",
        )
    if calibration.index != identity["index"] or calibration.settings != identity["settings"]:
        raise Unpromised(
            "no precision can be promised: the index or the settings changed since calibration",
            hint="calibrate again: llmtagger calibrate -i INDEX",
        )


def cut_of(
    settings: ScoringSettings,
    calibration: Calibration | None,
    threshold: float | None = None,
    *,
    cold: float | None = None,
) -> Cut:
    """What is kept, by the settings and what was learnt; every run, evaluation and trial asks here.

    A `threshold` given for one run counts for all products, whatever their category. Where nothing
    was learnt and the settings name no threshold, `cold` counts.
    """
    if threshold is not None:
        settings = settings.model_copy(update={"categories": {}})
        return _with(settings, threshold, threshold if calibration and calibration.asked else None)
    if calibration is None:
        if cold is None or "threshold" in settings.model_fields_set:
            return _with(settings, settings.threshold, None)
        return _with(_scaled(settings, cold), cold, None)
    asked = calibration.asked
    return _with(settings, calibration.unasked.threshold, asked.threshold if asked else None)


def _scaled(settings: ScoringSettings, threshold: float) -> ScoringSettings:
    """Settings whose mark for review moves as the threshold does, if they do not name it."""
    if "review" in settings.model_fields_set:
        return settings
    review = settings.review * threshold / settings.threshold
    return settings.model_copy(update={"review": review})


def _with(settings: ScoringSettings, threshold: float, answered: float | None) -> Cut:
    return Cut(
        threshold,
        min(settings.review, threshold, threshold if answered is None else answered),
        answered,
        settings.max_tags,
        tuple(settings.categories.items()),
        tuple(settings.blocklist),
    )


def _cut(
    calibration: Calibration | None,
    settings: ScoringSettings,
    threshold: float | None,
    min_precision: float | None,
    cold: float | None,
) -> Cut:
    if min_precision is None or calibration is None:
        return cut_of(settings, calibration, threshold, cold=cold)

    def of(fitted: Fitted | None) -> float:
        # nothing is known of how right scores are that an unmeasured model has moved
        promised = fitted.cut_for(min_precision) if fitted else None
        return KEEP_NOTHING if promised is None else promised

    cut = _with(settings, of(calibration.unasked), of(calibration.asked))
    return replace(cut, promised=True)


def learned_scorer(calibration: Calibration) -> WeightedScorer:
    """The scorer that was fitted, for products with and without an answer by the model."""
    unasked = _weights(calibration.unasked)
    if calibration.asked is None:  # what the model says still counts, by hand-set weights
        of = dict(unasked.of) | {name: WARM.of[name] for name in MODEL}
        unasked = replace(unasked, of=of)
    asked = _weights(calibration.asked) if calibration.asked else None
    return WeightedScorer(warm=unasked, cold=unasked, cold_spans=unasked, asked=asked)


def worth_asking(mode: AskMode, calibration: Calibration | None, scored: ScoredTags) -> bool:
    """Whether the model is likely to change what is kept, going by the scores without it.

    `auto` asks about everything where nothing was learnt, and about nothing where the model was
    not measured.
    """
    if mode != "auto" or calibration is None:
        return mode != "never"
    if calibration.ask is None:
        return False
    margin, cut = calibration.ask.margin, calibration.unasked.threshold
    return margin > 0 and any(abs(item.score - cut) <= margin for item in scored.items)


def _weights(fitted: Fitted) -> Weights:
    return Weights(fitted.bias, fitted.of, fitted.tags, fitted.keys, Bend(*fitted.bend))
