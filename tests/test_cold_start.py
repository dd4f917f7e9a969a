"""Scores and the cut while nothing is labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.config import ScoringSettings, Settings
from llmtagger.datatypes import (
    Candidate,
    Evidence,
    ParsedTags,
    Product,
    ScoredTag,
    ScoredTags,
    Shortlist,
    Span,
    Tag,
    TagKind,
)
from llmtagger.pipeline import threshold_without_labels
from llmtagger.scorers import cut_of
from llmtagger.stages.cold_start import HIGHEST, cold_threshold
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.vocabulary import Vocabulary

CHANCES = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=30)


def scored(*chances: float, named: bool = False) -> ScoredTags:
    """Tags with these chances; the texts name them, or they do not."""
    evidence = Evidence(signals={"literal": 1.0 if named else 0.0})
    tags = [Tag(f"t{n}", f"t{n}") for n in range(len(chances))]
    return ScoredTags(tuple(ScoredTag(t, c, evidence) for t, c in zip(tags, chances, strict=True)))


def expected_f1(chances: Sequence[float], threshold: float) -> float:
    kept = [chance for chance in chances if chance >= threshold]
    return 2 * sum(kept) / (len(kept) + sum(chances))


@given(CHANCES)
def test_the_cut_is_where_f1_is_expected_to_be_highest(chances: list[float]) -> None:
    found = cold_threshold([scored(*chances)])
    best = max(expected_f1(chances, each) for each in chances)
    if found < HIGHEST:
        assert expected_f1(chances, found) == pytest.approx(best)
    else:
        assert found == HIGHEST
        assert max(expected_f1(chances, c) for c in chances if c >= HIGHEST) == pytest.approx(best)


@given(CHANCES, CHANCES)
def test_nearly_all_tags_that_a_text_names_are_kept(
    named: list[float], others: list[float]
) -> None:
    found = cold_threshold([scored(*named, named=True), scored(*others)])
    assert sum(chance >= found for chance in named) >= 0.9 * len(named) - 1


def test_without_products_the_cut_is_the_highest() -> None:
    assert cold_threshold([]) == HIGHEST


def test_doubtful_candidates_lower_the_cut() -> None:
    doubtful = cold_threshold([scored(*[0.06] * 50)])
    assert doubtful == pytest.approx(0.06)
    assert cold_threshold([scored(0.14, *[0.001] * 50)]) == pytest.approx(0.14)


def test_a_value_that_the_text_does_not_name_is_less_likely_than_a_closed_tag() -> None:
    def score(kind: TagKind, *spans: Span) -> float:
        tag = Tag("Colour=red", "a", key="Colour", kind=kind)
        shortlist = Shortlist((), (Candidate(tag, name_similarity=0.4, spans=spans),))
        product = Product("1", "A red mug")
        return WeightedScorer().score(product, shortlist, ParsedTags()).items[0].score

    red = Span("title", "red")
    assert score(TagKind.SPAN) < score(TagKind.CLOSED) / 2
    assert score(TagKind.SPAN, red) > 10 * score(TagKind.SPAN)
    assert score(TagKind.SPAN, red) > HIGHEST / 2


TITLES = ("Red ceramic mug", "Blue steel bottle", "Green glass vase", "White paper lamp")


def test_a_catalogue_without_labels_tells_its_own_cut(
    make_catalogue: Callable[..., object],
) -> None:
    vocabulary = Vocabulary([Tag("red", "r"), Tag("mug", "m"), Tag("bottle", "b")])
    bare = [Product(str(n), title) for n, title in enumerate(TITLES)]
    found = threshold_without_labels(make_catalogue(bare, vocabulary), Settings())  # type: ignore[arg-type]
    assert found is not None
    assert 0 < found <= HIGHEST
    labelled = [*bare, Product("9", "Red cup", tags=("red",))]
    assert threshold_without_labels(make_catalogue(labelled, vocabulary), Settings()) is None  # type: ignore[arg-type]


def test_removed_products_tell_nothing(make_catalogue: Callable[..., object]) -> None:
    vocabulary = Vocabulary([Tag("red", "r"), Tag("mug", "m")])
    catalogue = make_catalogue([Product("1", "Red mug")], vocabulary)
    catalogue.live = np.zeros(1, dtype=bool)  # type: ignore[attr-defined]
    assert threshold_without_labels(catalogue, Settings()) == HIGHEST  # type: ignore[arg-type]


def test_a_threshold_that_the_settings_name_comes_first() -> None:
    cut = cut_of(ScoringSettings(), None, cold=0.12)
    assert cut.threshold == 0.12
    assert cut.review == pytest.approx(0.12 * 0.15 / 0.35)
    assert cut_of(ScoringSettings(review=0.1), None, cold=0.12).review == 0.1
    assert cut_of(ScoringSettings(threshold=0.35), None, cold=0.12).threshold == 0.35
    assert cut_of(ScoringSettings(), None, 0.5, cold=0.12).threshold == 0.5
    assert cut_of(ScoringSettings(), None).threshold == 0.35
