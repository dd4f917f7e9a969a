"""From a calibration to a plan: where scores are cut, when the model is asked, what is promised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmtagger.calibration import AskRule, Calibration, Fitted, Promise
from llmtagger.config import ScoringSettings
from llmtagger.datatypes import Evidence, ScoredTag, ScoredTags, Tag
from llmtagger.errors import ConfigError
from llmtagger.output import Cut
from llmtagger.scorers import AskMode, Plan, may_ask, plan
from llmtagger.stages.scoring import WARM, WeightedScorer

Record = dict[str, Any]

IDENTITY = {"model": "fake", "prompt": "tag.v1@abc", "index": "i1", "settings": "s1"}
SETTINGS = ScoringSettings(threshold=0.35, review=0.15)
UNASKED = [
    Promise(score=0.9, kept=50, right=50, lower=0.96),
    Promise(score=0.7, kept=100, right=96, lower=0.91),
    Promise(score=0.3, kept=200, right=150, lower=0.7),
]
ASKED = [Promise(score=0.8, kept=60, right=58, lower=0.92)]


def _fitted(threshold: float, promises: list[Promise], bias: float = -2.0) -> Fitted:
    return Fitted(
        bias=bias,
        of={"vote": (3.0, 0.1)},
        bend=(1.0, 1.0, 0.0),
        threshold=threshold,
        f1=0.8,
        calibration_error=0.02,
        promises=promises,
    )


def _rule(margin: float) -> AskRule:
    return AskRule(margin=margin, added=(0.02, 0.01, 0.03), products=150, share=0.4, kept=0.95)


def _calibration(*, model: bool = True, margin: float = 0.1, **changed: Any) -> Calibration:
    with_model: Record = {
        "model": "fake",
        "prompt": "tag.v1@abc",
        "asked": _fitted(0.55, ASKED, bias=-3.0),
        "ask": _rule(margin),
    }
    fields: Record = {
        "created": "2026-11-20T10:00:00+00:00",
        "index": "i1",
        "vocabulary": "v1",
        "settings": "s1",
        "products": 300,
        "unasked": _fitted(0.45, UNASKED),
    }
    return Calibration(**fields | (with_model if model else {}) | changed)


def _plan(
    calibration: Calibration | None,
    *,
    mode: AskMode = "auto",
    threshold: float | None = None,
    min_precision: float | None = None,
    labelled: int = 300,
    **changed: Any,
) -> Plan:
    return plan(
        calibration,
        IDENTITY | changed,
        SETTINGS,
        mode=mode,
        labelled=labelled,
        threshold=threshold,
        min_precision=min_precision,
    )


def _scored(*scores: float) -> ScoredTags:
    return ScoredTags(tuple(ScoredTag(Tag(f"t{s}", f"t{s}"), s, Evidence()) for s in scores))


def test_without_a_calibration_the_settings_decide() -> None:
    found = _plan(None)
    assert found.cut == Cut(0.35, 0.15)
    assert found.scorer == WeightedScorer()
    assert found.warnings == ()
    assert found.calibration is None


def test_a_calibration_brings_its_own_thresholds() -> None:
    found = _plan(_calibration())
    assert found.cut == Cut(0.45, 0.15, 0.55)
    assert found.warnings == ()
    assert (found.scorer.warm.bias, found.scorer.cold.bias) == (-2.0, -2.0)
    assert found.scorer.asked is not None
    assert found.scorer.asked.bias == -3.0


def test_without_the_model_all_are_cut_alike() -> None:
    assert _plan(_calibration(model=False)).cut == Cut(0.45, 0.15, None)


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        pytest.param(None, Cut(0.6, 0.15), id="not calibrated"),
        pytest.param(_calibration(), Cut(0.6, 0.15, 0.6), id="calibrated"),
        pytest.param(_calibration(model=False), Cut(0.6, 0.15), id="calibrated without a model"),
    ],
)
def test_a_threshold_that_is_given_wins(calibration: Calibration | None, expected: Cut) -> None:
    assert _plan(calibration, threshold=0.6).cut == expected


@pytest.mark.parametrize("calibration", [None, _calibration()], ids=["default", "calibrated"])
@pytest.mark.parametrize(("threshold", "review"), [(0.1, 0.1), (0.0, 0.0), (1.0, 0.15)])
def test_nothing_is_kept_that_is_not_shown(
    calibration: Calibration | None, threshold: float, review: float
) -> None:
    assert _plan(calibration, threshold=threshold).cut.review == review


def test_review_begins_under_the_lower_of_two_thresholds() -> None:
    low = _calibration(asked=_fitted(0.05, ASKED))
    assert _plan(low).cut == Cut(0.45, 0.05, 0.05)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        pytest.param(0.6, Cut(0.3, 0.15, 0.8), id="the lowest score that will do"),
        pytest.param(0.9, Cut(0.7, 0.15, 0.8), id="each from its own promises"),
        pytest.param(0.91, Cut(0.7, 0.15, 0.8), id="the bound itself will do"),
        pytest.param(0.95, Cut(0.9, 0.15, 2.0), id="none for answered products"),
        pytest.param(0.99, Cut(2.0, 0.15, 2.0), id="none at all"),
    ],
)
def test_a_precision_is_cut_from_the_promises(precision: float, expected: Cut) -> None:
    assert _plan(_calibration(), min_precision=precision).cut == replace(expected, promised=True)


def test_where_nothing_is_promised_not_even_certainty_is_kept() -> None:
    cut = _plan(_calibration(model=False), mode="never", min_precision=0.99).cut
    assert _scored(1.0).at(cut.threshold) == ()
    assert len(_scored(1.0, 0.2, 0.1).below(cut.threshold, cut.review)) == 2


def test_answers_of_an_unknown_worth_are_not_kept_on_a_promise() -> None:
    found = _plan(_calibration(model=False), mode="always", min_precision=0.9)
    assert found.cut == Cut(0.7, 0.15, 2.0, promised=True)
    assert not found.promised
    (warning,) = found.warnings
    assert "--llm never" in warning
    assert "calibrate --model" in warning


@pytest.mark.parametrize("changed", [{}, {"model": "other"}, {"prompt": "own@1"}])
def test_where_the_model_was_not_measured_the_promise_holds_without_it(changed: Record) -> None:
    calibration = _calibration(model=bool(changed))
    found = _plan(calibration, min_precision=0.9, **changed)
    assert (found.asks, found.promised, found.warnings) == (False, True, ())
    assert found.cut.threshold == 0.7


@pytest.mark.parametrize(
    ("precision", "mode", "margin", "promised", "says"),
    [
        pytest.param(0.91, "auto", 0.1, True, (), id="both can"),
        pytest.param(
            0.95, "auto", 0.1, False, ("the model answers: the highest is 0.92",), id="one cannot"
        ),
        pytest.param(0.95, "auto", 0.0, True, (), id="the one that can is all there is"),
        pytest.param(0.95, "never", 0.1, True, (), id="nor is the other asked"),
        pytest.param(0.97, "never", 0.1, False, ("the highest is 0.96",), id="none can"),
        pytest.param(
            0.97, "always", 0.1, False, ("the model answers: the highest is 0.92",), id="always"
        ),
        pytest.param(0.97, "auto", 0.1, False, ("is 0.92", "is 0.96"), id="neither can"),
    ],
)
def test_what_cannot_be_promised_is_said(
    precision: float, mode: AskMode, margin: float, promised: bool, says: tuple[str, ...]
) -> None:
    found = _plan(_calibration(margin=margin), mode=mode, min_precision=precision)
    assert found.promised is promised
    assert len(found.warnings) == len(says)
    assert all(part in said for part, said in zip(says, found.warnings, strict=True))


@pytest.mark.parametrize(
    ("calibration", "changed", "says", "remedy"),
    [
        pytest.param(None, {}, "not calibrated", "llmtagger calibrate", id="not calibrated"),
        pytest.param(
            _calibration(), {"index": "i2"}, "changed since", "llmtagger calibrate", id="stale"
        ),
        pytest.param(
            _calibration(),
            {"settings": "s2"},
            "changed since",
            "llmtagger calibrate",
            id="settings",
        ),
        pytest.param(_calibration(), {"threshold": 0.5}, "--threshold", "one of", id="two cuts"),
        pytest.param(None, {"threshold": 0.0}, "--threshold", "one of", id="two cuts, one of 0"),
    ],
)
def test_a_promise_that_nothing_stands_behind_is_refused(
    calibration: Calibration | None, changed: Record, says: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        _plan(calibration, min_precision=0.9, **changed)
    assert remedy in refused.value.hint


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"index": "i2"}, "index changed"), ({"settings": "s2"}, "settings changed")],
    ids=["index", "settings"],
)
def test_a_stale_scorer_is_used_with_a_warning(changed: Record, says: str) -> None:
    found = _plan(_calibration(), **changed)
    (warning,) = found.warnings
    assert says in warning
    assert "llmtagger calibrate" in warning
    assert found.cut == Cut(0.45, 0.15, 0.55)
    assert found.calibration == _calibration()


@pytest.mark.parametrize("changed", [{"model": "other"}, {"prompt": "tag.v1@changed"}])
def test_of_another_model_only_what_holds_without_one_is_used(changed: Record) -> None:
    found = _plan(_calibration(), mode="always", **changed)
    (warning,) = found.warnings
    assert "fake with tag.v1@abc" in warning
    assert found.calibration is not None
    assert (found.calibration.asked, found.calibration.ask) == (None, None)
    assert found.calibration.unasked == _calibration().unasked
    assert found.cut == Cut(0.45, 0.15, None)
    # What it says is weighed by hand; `auto` would not ask, since nothing is known of it.
    assert found.scorer.asked is None
    assert found.scorer.warm.of["chosen"] == WARM.of["chosen"]
    assert found.worth_asking(_scored(0.99))
    quiet = _plan(_calibration(), **changed)
    assert (quiet.asks, quiet.warnings) == (False, ())


def test_another_model_does_not_matter_where_none_is_asked() -> None:
    assert _plan(_calibration(), mode="never", model="none").warnings == ()
    assert _plan(_calibration(model=False), model="other").warnings == ()


@pytest.mark.parametrize(
    ("calibration", "mode", "asks"),
    [
        pytest.param(None, "auto", False, id="auto, nothing learnt"),
        pytest.param(None, "never", False, id="never, nothing learnt"),
        pytest.param(_calibration(model=False), "auto", False, id="auto, nothing of the model"),
        pytest.param(_calibration(margin=0.1), "auto", True, id="auto, a margin"),
        pytest.param(_calibration(margin=0.0), "auto", False, id="auto, asking adds nothing"),
        pytest.param(_calibration(margin=0.0), "always", True, id="always"),
        pytest.param(_calibration(margin=1.0), "never", False, id="never"),
    ],
)
def test_whether_the_model_is_asked_at_all(
    calibration: Calibration | None, mode: AskMode, asks: bool
) -> None:
    found = _plan(calibration, mode=mode)
    assert found.asks is asks
    # No server is started for nothing, and nothing is asked of none.
    anywhere = any(found.worth_asking(_scored(score / 20)) for score in range(21))
    assert anywhere is asks


def test_where_nothing_is_labelled_the_model_is_asked_about_everything() -> None:
    found = _plan(None, labelled=0)
    assert found.asks
    assert found.worth_asking(_scored())
    assert not _plan(None, labelled=0, mode="never").asks


@pytest.mark.parametrize(
    ("calibration", "labelled", "says"),
    [
        (None, 0, "Asking the model about every product: nothing in this index is labelled."),
        (None, 1, "Not asking the model: calibration has not measured it. Run `llmtagger calibr"),
        (_calibration(model=False), 9, "Not asking the model: calibration has not measured it."),
        (_calibration(margin=0), 9, "found no gain (+2.0 points of F1 [+1.0, +3.0])."),
        (_calibration(), 9, "Asking the model where a tag is in doubt: calibration found a gain"),
    ],
)
def test_what_auto_decides_is_said_with_its_reason(
    calibration: Calibration | None, labelled: int, says: str
) -> None:
    assert says in _plan(calibration, labelled=labelled).decision
    # A person has decided.
    assert _plan(calibration, labelled=labelled, mode="always").decision == ""


@pytest.mark.parametrize("labelled", [0, 9])
@pytest.mark.parametrize("mode", ["auto", "always", "never"])
@pytest.mark.parametrize("calibration", [None, _calibration(model=False), _calibration()])
def test_a_model_is_looked_for_only_where_it_can_be_asked(
    calibration: Calibration | None, mode: AskMode, labelled: int
) -> None:
    if _plan(calibration, mode=mode, labelled=labelled).asks:
        assert may_ask(mode, calibration, labelled)


@pytest.mark.parametrize(
    ("scores", "worth"),
    [((0.9, 0.5), True), ((0.36,), True), ((0.9, 0.6, 0.3), False), ((), False)],
)
def test_close_calls_are_worth_asking_about(scores: tuple[float, ...], worth: bool) -> None:
    assert _plan(_calibration(margin=0.1)).worth_asking(_scored(*scores)) is worth
    assert _plan(_calibration(margin=0.1), mode="always").worth_asking(_scored(*scores))


def test_the_cut_of_a_run_does_not_change_what_is_asked() -> None:
    """So that another --threshold needs no new answers."""
    plans = [
        _plan(_calibration()),
        _plan(_calibration(), threshold=0.9),
        _plan(_calibration(), min_precision=0.9),
    ]
    for score in (0.3, 0.4, 0.5, 0.9):
        assert len({found.worth_asking(_scored(score)) for found in plans}) == 1
    assert all(found.identity == plans[0].identity for found in plans)


def test_the_identity_tells_scorers_and_modes_apart() -> None:
    later = _calibration(products=77)
    again = _calibration(created="2026-11-21T10:00:00+00:00")
    modes: tuple[AskMode, ...] = ("auto", "always", "never")
    found = [
        _plan(calibration, mode=mode).identity
        for calibration in (None, _calibration(), later)
        for mode in modes
    ]
    assert len({tuple(sorted(each.items())) for each in found}) == 9
    assert _plan(None).identity == {"llm": "auto", "scorer": "default"}
    assert _plan(later).identity["scorer"] == f"fitted@{later.fingerprint}"
    assert _plan(later).identity != _plan(again).identity
    assert _plan(again).identity == _plan(_calibration()).identity
