"""The learned scorer on disk, what it promises, and when it asks the model."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.calibration import (
    FILE,
    FORMAT,
    AskRule,
    Calibration,
    Fitted,
    Promise,
    read_calibration,
)
from llmtagger.datatypes import (
    Candidate,
    Evidence,
    ParsedTags,
    Product,
    ScoredTag,
    ScoredTags,
    Shortlist,
    Tag,
)
from llmtagger.errors import IndexDamaged, IndexFolderError
from llmtagger.scorers import AskMode, learned_scorer, worth_asking
from llmtagger.stages.scoring import Bend

Record = dict[str, Any]


def _fitted(bias: float = -2.0, *, threshold: float = 0.4, promises: Any = ()) -> Fitted:
    return Fitted(
        bias=bias,
        of={"vote": (1.5, 0.25), "linear": (2.0, 0.0)},
        tags={"防水": 0.5},
        keys={"Color": -0.25},
        bend=(1.2, 0.5, 0.1),
        threshold=threshold,
        f1=0.8,
        calibration_error=0.01,
        promises=list(promises),
    )


def _calibration(*, asked: Fitted | None = None, ask: AskRule | None = None) -> Calibration:
    return Calibration(
        created="2026-11-21T09:00:00+00:00",
        index="abc",
        vocabulary="def",
        settings="ghi",
        products=200,
        unasked=_fitted(promises=[Promise(score=0.9, kept=10, right=9, lower=0.6)]),
        asked=asked,
        ask=ask,
    )


def _rule(margin: float) -> AskRule:
    return AskRule(margin=margin, added=(0.02, 0.01, 0.03), products=50, share=0.4, kept=0.9)


FULL = _calibration(asked=_fitted(-1.0), ask=_rule(0.1)).model_copy(
    update={"model": "smollm", "prompt": "tag.v1@123"}
)


@pytest.mark.parametrize("calibration", [_calibration(), FULL], ids=["no-model", "with-model"])
def test_what_is_written_is_read_back(tmp_path: Path, calibration: Calibration) -> None:
    path = calibration.write(tmp_path)
    assert path == tmp_path / FILE
    assert read_calibration(tmp_path) == calibration
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    record = json.loads(path.read_text(encoding="utf-8"))  # it is JSON, and so holds no code
    assert record["format"] == FORMAT
    assert record["unasked"]["of"]["vote"] == [1.5, 0.25]


NUMBER = st.floats(-50, 50)


@given(
    NUMBER,
    st.dictionaries(st.text(max_size=4), st.tuples(NUMBER, NUMBER), max_size=3),
    st.dictionaries(st.text(max_size=4), NUMBER, max_size=3),
)
def test_no_number_is_rounded(
    tmp_path: Path, bias: float, of: dict[str, tuple[float, float]], tags: dict[str, float]
) -> None:
    fitted = _fitted().model_copy(update={"bias": bias, "of": of, "tags": tags})
    calibration = _calibration().model_copy(update={"unasked": fitted})
    calibration.write(tmp_path)
    assert read_calibration(tmp_path) == calibration


def test_a_second_one_takes_the_first_ones_place(tmp_path: Path) -> None:
    FULL.write(tmp_path)
    _calibration().write(tmp_path)
    assert read_calibration(tmp_path) == _calibration()


def test_one_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FULL.write(tmp_path)

    def full(path: Path, text: str, encoding: str) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(IndexFolderError, match="No space left") as caught:
        _calibration().write(tmp_path)
    assert "room" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert read_calibration(tmp_path) == FULL


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None
    assert read_calibration(tmp_path / "missing") is None


def _set(value: Any, *path: str) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        at = record
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        return record

    return change


def _without(name: str) -> Callable[[Record], Record]:
    return lambda record: {key: value for key, value in record.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_set("many", "products"), id="text-for-a-number"),
        pytest.param(_set(math.nan, "unasked", "bias"), id="nan"),
        pytest.param(_set(math.inf, "unasked", "tags", "防水"), id="infinite"),
        pytest.param(_set([1.0], "unasked", "of", "vote"), id="one-weight-of-two"),
        pytest.param(_set(1.5, "unasked", "threshold"), id="threshold-above-1"),
        pytest.param(_set(-0.1, "ask", "margin"), id="margin-below-0"),
        pytest.param(_set(None, "unasked"), id="nothing-fitted"),
        pytest.param(_set(1, "surprise"), id="an-unknown-field"),
        pytest.param(_without("index"), id="a-field-missing"),
        pytest.param(_set(FORMAT + 1, "format"), id="a-later-format"),
        pytest.param(_set(0, "format"), id="an-earlier-format"),
        pytest.param(lambda record: [record], id="a-list"),
        pytest.param(lambda record: None, id="null"),
    ],
)
def test_damage_is_found(tmp_path: Path, change: Callable[[Record], Any]) -> None:
    path = FULL.write(tmp_path)
    damaged = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(damaged), encoding="utf-8")
    _refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_found(tmp_path: Path, share: float) -> None:
    path = FULL.write(tmp_path)
    held = path.read_bytes().rstrip()
    path.write_bytes(held[: int(len(held) * share)])
    _refused(tmp_path)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b"\xff\xfe{}", b'{"created": "\xe9"}'])
def test_bytes_that_are_no_json_are_found(tmp_path: Path, content: bytes) -> None:
    """The first is a pickle: it is refused like any other damage."""
    (tmp_path / FILE).write_bytes(content)
    _refused(tmp_path)


def test_a_folder_in_its_place_is_found(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    _refused(tmp_path)


def _refused(folder: Path) -> None:
    with pytest.raises(IndexDamaged, match=FILE) as caught:
        read_calibration(folder)
    assert "llmtagger calibrate" in caught.value.hint
    assert str(folder / FILE) in caught.value.message


@pytest.mark.parametrize(
    ("precision", "cut"),
    [(0.5, 0.3), (0.7, 0.3), (0.75, 0.5), (0.8, 0.5), (0.81, 0.9), (0.95, 0.9), (0.951, None)],
)
def test_the_lowest_score_whose_bound_holds(precision: float, cut: float | None) -> None:
    """Bounds need not fall with the score: at .7 it is lower than at .5."""
    bounds = {0.9: 0.95, 0.7: 0.6, 0.5: 0.8, 0.3: 0.7, 0.1: 0.2}
    promises = [Promise(score=s, kept=9, right=9, lower=low) for s, low in bounds.items()]
    assert _fitted(promises=promises).cut_for(precision) == cut
    assert _fitted(promises=reversed(promises)).cut_for(precision) == cut


def test_nothing_is_promised_without_promises() -> None:
    assert _fitted().cut_for(0.0) is None


@pytest.mark.parametrize("labelled", [9, 0])
@pytest.mark.parametrize(("answered", "bias"), [(False, -2.0), (True, -1.0)])
def test_the_learned_scorer_uses_what_was_fitted(
    labelled: int, answered: bool, bias: float
) -> None:
    candidate = Candidate(Tag("Color=防水", "防水", key="Color"), linear=0.5)
    shortlist = Shortlist((), (candidate,), labelled=labelled)
    scorer = learned_scorer(FULL)
    (item,) = scorer.score(Product("1", "x"), shortlist, ParsedTags(answered=answered)).items
    expected = bias if labelled else -2.0  # where nothing is labelled, nobody asked
    parts = {"bias": expected, "linear": 1.0, "tag": 0.25}
    log_odds = Bend(1.2, 0.5, 0.1)(expected + 1.25)
    assert item.evidence.contributions == parts | {"bend": log_odds - expected - 1.25}
    assert item.score == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_without_a_fit_for_answers_those_without_are_used() -> None:
    scorer = learned_scorer(_calibration())
    shortlist = Shortlist((), (Candidate(Tag("a", "a"), linear=0.5),), labelled=9)
    scored = [
        scorer.score(Product("1", "x"), shortlist, ParsedTags(answered=answered))
        for answered in (True, False)
    ]
    assert scored[0] == scored[1]
    parts = scored[0].items[0].evidence.contributions
    assert parts == {"bias": -2.0, "linear": 1.0, "bend": Bend(1.2, 0.5, 0.1)(-1.0) + 1.0}


def _scores(*scores: float) -> ScoredTags:
    return ScoredTags(
        tuple(ScoredTag(Tag(str(s), str(s)), s, Evidence()) for s in sorted(scores, reverse=True))
    )


@pytest.mark.parametrize(
    ("mode", "calibration", "scores", "asks"),
    [
        pytest.param("always", None, (), True, id="always"),
        pytest.param("always", _calibration(ask=_rule(0.0)), (0.4,), True, id="always-for-nothing"),
        pytest.param("never", None, (0.4,), False, id="never"),
        pytest.param("never", _calibration(ask=_rule(1.0)), (0.4,), False, id="never-though-good"),
        pytest.param("auto", None, (0.99,), True, id="nothing-learnt"),
        pytest.param("auto", _calibration(), (0.4,), False, id="nothing-learnt-of-the-model"),
        pytest.param("auto", _calibration(ask=_rule(0.0)), (0.4, 0.41), False, id="adds-nothing"),
        pytest.param("auto", _calibration(ask=_rule(0.1)), (0.9, 0.45), True, id="near-above"),
        pytest.param("auto", _calibration(ask=_rule(0.1)), (0.9, 0.35), True, id="near-below"),
        pytest.param("auto", _calibration(ask=_rule(0.1)), (0.9, 0.1), False, id="all-clear"),
        pytest.param("auto", _calibration(ask=_rule(0.1)), (), False, id="no-candidates"),
    ],
)
def test_when_the_model_is_asked(
    mode: AskMode, calibration: Calibration | None, scores: tuple[float, ...], asks: bool
) -> None:
    """The cut without the model is .4."""
    assert worth_asking(mode, calibration, _scores(*scores)) is asks
