"""Scores: readable sums, whatever their weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.datatypes import (
    Candidate,
    Evidence,
    ParsedTags,
    Product,
    Proposal,
    ScoredTag,
    ScoredTags,
    Shortlist,
    Span,
    Tag,
)
from llmtagger.stages.scoring import COLD, WARM, WeightedScorer, Weights, logistic, signals

PRODUCT = Product("1", "Mug")
SHARE = st.floats(0, 1)
CANDIDATES = st.builds(
    Candidate,
    tag=st.sampled_from([Tag(name, name) for name in "abc"]),
    vote=SHARE,
    lexical_vote=SHARE,
    name_similarity=st.floats(-1, 1),
    name_lexical=SHARE,
    spans=st.sampled_from([(), (Span("title", "Mug"),)]),
    prior=SHARE,
    linear=SHARE,
)


def _shortlist(*candidates: Candidate, labelled: int = 9) -> Shortlist:
    return Shortlist((), candidates, labelled=labelled)


@given(CANDIDATES, st.none() | st.floats(-20, 0), st.booleans(), st.integers(0, 2))
def test_the_contributions_sum_to_the_log_odds(
    candidate: Candidate, logprob: float | None, chosen: bool, labelled: int
) -> None:
    weights = WARM if labelled else COLD
    parsed = ParsedTags((Proposal(candidate.tag, logprob=logprob),) if chosen else ())
    shortlist = _shortlist(candidate, labelled=labelled)
    (item,) = WeightedScorer().score(PRODUCT, shortlist, parsed).items
    log_odds = math.log(item.score / (1 - item.score))
    parts = item.evidence.contributions
    assert log_odds == pytest.approx(sum(parts.values()), abs=1e-9)
    assert parts["bias"] == weights.bias
    for name, value in item.evidence.signals.items():
        assert parts.get(name, 0.0) == pytest.approx(weights.of[name] * value)


@given(CANDIDATES, SHARE)
def test_a_larger_vote_never_scores_less(candidate: Candidate, vote: float) -> None:
    low, high = sorted([candidate.vote, vote])
    one, other = (
        WeightedScorer().score(PRODUCT, _shortlist(replace(candidate, vote=v)), ParsedTags())
        for v in (low, high)
    )
    assert one.items[0].score <= other.items[0].score


def test_every_signal_has_a_weight_and_is_what_it_says() -> None:
    tag = Tag("a", "a")
    candidate = Candidate(
        tag,
        votes=(("n1", 0.9),),
        vote=0.1,
        lexical_vote=0.2,
        name_similarity=0.3,
        name_lexical=0.4,
        prior=0.5,
        linear=0.6,
    )
    proposal = Proposal(tag, spans=(Span("title", "a"),), logprob=math.log(0.25))
    known = signals(candidate, proposal)
    assert known == pytest.approx(
        {
            "vote": 0.1,
            "lexical_vote": 0.2,
            "name_similarity": 0.3,
            "name_lexical": 0.4,
            "literal": 1.0,
            "prior": 0.5,
            "linear": 0.6,
            "chosen": 1.0,
            "confidence": 0.25,
        }
    )
    assert set(known) == set(WARM.of) == set(COLD.of)
    assert not any(signals(Candidate(tag), None).values())


@pytest.mark.parametrize(("labelled", "score"), [(9, 0.5), (0, 0.75)], ids=["warm", "cold"])
def test_the_weights_decide(labelled: int, score: float) -> None:
    nothing = dict.fromkeys(WARM.of, 0.0)
    scorer = WeightedScorer(
        warm=Weights(-1.0, nothing | {"vote": 2.0}),
        cold=Weights(0.0, nothing | {"vote": 2 * math.log(3)}),
    )
    shortlist = _shortlist(Candidate(Tag("a", "a"), vote=0.5), labelled=labelled)
    (item,) = scorer.score(PRODUCT, shortlist, ParsedTags()).items
    assert item.score == pytest.approx(score)
    assert set(item.evidence.contributions) == {"bias", "vote"}


def test_a_proposal_outside_the_shortlist_is_scored_too() -> None:
    known, new = Tag("known", "k"), Tag("new", "n")
    candidate = Candidate(known, votes=(("n1", 0.9),), vote=0.5)
    parsed = ParsedTags(
        (Proposal(new, (Span("title", "Mug"),), -0.5, new=True), Proposal(known, logprob=-0.1))
    )
    scored = WeightedScorer().score(PRODUCT, _shortlist(candidate), parsed)
    by_name = {item.tag.name: item.evidence for item in scored.items}
    assert set(by_name) == {"known", "new"}
    assert by_name["known"].neighbours == (("n1", 0.9),)
    assert (by_name["known"].chosen, by_name["known"].new) == (True, False)
    assert by_name["new"].spans == (Span("title", "Mug"),)
    assert (by_name["new"].chosen, by_name["new"].new, by_name["new"].logprob) == (True, True, -0.5)


@given(st.lists(CANDIDATES, max_size=5, unique_by=lambda candidate: candidate.tag.id))
def test_the_best_come_first(candidates: list[Candidate]) -> None:
    items = WeightedScorer().score(PRODUCT, _shortlist(*candidates), ParsedTags()).items
    assert [(-i.score, i.tag.name) for i in items] == sorted((-i.score, i.tag.name) for i in items)
    assert {item.tag.id for item in items} == {candidate.tag.id for candidate in candidates}


def test_nothing_is_scored_where_nothing_is_known() -> None:
    assert WeightedScorer().score(PRODUCT, _shortlist(), ParsedTags()) == ScoredTags()


@pytest.mark.parametrize(
    ("threshold", "floor", "kept", "review"),
    [
        (0.5, 0.2, "ab", "cn"),
        (0.91, 0.0, "", "abcdn"),
        (0.0, 0.0, "abcd", "n"),
        (0.5, 0.95, "ab", "n"),
    ],
)
def test_at_and_below(threshold: float, floor: float, kept: str, review: str) -> None:
    scores = {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.1}
    items = [ScoredTag(Tag(name, name), score, Evidence()) for name, score in scores.items()]
    new = ScoredTag(Tag("n", "n"), 0.9, Evidence(chosen=True, new=True))
    scored = ScoredTags((*items, new))
    assert "".join(item.tag.name for item in scored.at(threshold)) == kept
    assert "".join(item.tag.name for item in scored.below(threshold, floor)) == review


@pytest.mark.parametrize(
    ("log_odds", "probability"),
    [(0.0, 0.5), (math.log(3), 0.75), (-math.log(3), 0.25), (1e4, 1.0), (-1e4, 0.0)],
)
def test_logistic(log_odds: float, probability: float) -> None:
    assert logistic(log_odds) == pytest.approx(probability)
