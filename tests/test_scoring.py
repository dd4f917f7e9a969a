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
from llmtagger.stages.scoring import (
    COLD,
    MODEL,
    WARM,
    Bend,
    WeightedScorer,
    Weights,
    contributions,
    curve,
    logistic,
    signals,
)

PRODUCT = Product("1", "Mug")
SHARE = st.floats(0, 1)
NAMES = list(signals(Candidate(Tag("a", "a")), None))
CANDIDATES = st.builds(
    Candidate,
    tag=st.sampled_from([Tag("a", "a"), Tag("b", "b", key="Color"), Tag("c", "c", key="Color")]),
    vote=SHARE,
    lexical_vote=SHARE,
    name_similarity=st.floats(-1, 1),
    name_lexical=SHARE,
    spans=st.sampled_from([(), (Span("title", "Mug"),)]),
    prior=SHARE,
    linear=SHARE,
    trust=SHARE,
    extracted=SHARE,
)


def _shortlist(*candidates: Candidate, labelled: int = 9) -> Shortlist:
    return Shortlist((), candidates, labelled=labelled)


WEIGHT = st.floats(-9, 9)
WEIGHTS = st.builds(
    Weights,
    WEIGHT,
    st.dictionaries(st.sampled_from(NAMES), st.tuples(WEIGHT, WEIGHT)),
    st.dictionaries(st.sampled_from(["a", "b", "zz"]), WEIGHT),
    st.dictionaries(st.sampled_from(["Color", "Fit", ""]), WEIGHT),
    st.builds(Bend, st.floats(0.01, 3), st.floats(0.01, 3), st.floats(-3, 3)),
)


@given(st.floats(-300, 300), st.floats(0.01, 3), st.floats(0.01, 3), st.floats(-5, 5))
def test_a_bend_has_its_slopes_and_its_level(
    log_odds: float, below: float, above: float, level: float
) -> None:
    bend = Bend(below, above, level)
    assert Bend()(log_odds) == pytest.approx(log_odds)
    assert bend(40) == pytest.approx(40 * above + level)
    assert bend(-40) == pytest.approx(-40 * below + level)
    assert bend(0) == pytest.approx((above - below) * math.log(2) + level)
    assert bend(log_odds + 0.1) > bend(log_odds)


@given(
    st.lists(CANDIDATES, min_size=1, max_size=3, unique_by=lambda candidate: candidate.tag.id),
    WEIGHTS,
    st.none() | st.floats(-20, 0),
    st.booleans(),
    st.integers(0, 2),
)
def test_the_contributions_sum_to_the_log_odds(
    candidates: list[Candidate],
    weights: Weights,
    logprob: float | None,
    chosen: bool,
    labelled: int,
) -> None:
    tag = candidates[0].tag
    parsed = ParsedTags((Proposal(tag, logprob=logprob),) if chosen else ())
    shortlist = _shortlist(*candidates, labelled=labelled)
    scorer = WeightedScorer(warm=weights, cold=weights)
    items = scorer.score(PRODUCT, shortlist, parsed).items
    assert len(items) == len(candidates)
    for item in items:
        parts, values = item.evidence.contributions, item.evidence.signals
        assert item.score == pytest.approx(logistic(math.fsum(parts.values())), abs=1e-12)
        known, model = weights.bias, 0.0
        for name, (straight, curved) in weights.of.items():
            part = straight * values[name] + curved * curve(values[name])
            assert parts.get(name, 0.0) == pytest.approx(part, abs=1e-12)
            if name in MODEL:
                model += part
            else:
                known += part
        own = weights.tags.get(item.tag.id, 0.0)
        own += weights.keys.get(item.tag.key, 0.0) if item.tag.key else weights.keys.get("", 0.0)
        assert parts.get("tag", 0.0) == own
        by_hand = weights.bend(known + own) + model
        assert sum(parts.values()) == pytest.approx(by_hand, abs=1e-9)
        assert set(parts) <= {"bias", "tag", "bend", *weights.of}


@pytest.mark.parametrize(
    ("share", "log_odds"),
    [(0.0, 0.0), (0.5, math.log(51)), (1.0, math.log(51**2)), (-3.0, 0.0), (2.0, math.log(51**2))],
    ids=["nothing", "half", "all", "less-than-nothing", "more-than-all"],
)
def test_the_curve(share: float, log_odds: float) -> None:
    """(x + .02) / (1.02 - x) is 1/51 at 0, 1 at a half and 51 at 1."""
    assert curve(share) == pytest.approx(log_odds, abs=1e-12)


@given(SHARE, SHARE)
def test_the_curve_rises(one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert curve(low) <= curve(high)
    assert high - low < 1e-9 or curve(low) < curve(high)


VALUED = st.builds(
    Candidate,
    tag=st.builds(
        lambda number, key: Tag(f"{key}={number}", f"t{number}", key=key),
        st.integers(0, 9),
        st.sampled_from([None, "Color", "Fit"]),
    ),
    vote=SHARE,
    linear=SHARE,
    extracted=SHARE,
    trust=SHARE,
)


@given(
    st.lists(VALUED, max_size=7, unique_by=lambda c: c.tag.id),
    st.lists(VALUED, max_size=3, unique_by=lambda c: c.tag.id),
)
def test_a_rival_is_the_strongest_other_value_of_the_key(
    listed: list[Candidate], others: list[Candidate]
) -> None:
    known = {candidate.tag.id for candidate in listed}
    proposed = [other.tag for other in others if other.tag.id not in known]
    parsed = ParsedTags(tuple(Proposal(tag) for tag in proposed), answered=True)
    items = WeightedScorer().score(PRODUCT, _shortlist(*listed), parsed).items
    found = {item.tag.id: item.evidence.signals["rival"] for item in items}
    everyone = listed + [Candidate(tag) for tag in proposed]
    assert set(found) == {one.tag.id for one in everyone}
    for one in everyone:
        rivals = [
            max(other.vote, other.linear, other.extracted)
            for other in everyone
            if other.tag.id != one.tag.id and one.tag.key and other.tag.key == one.tag.key
        ]
        assert found[one.tag.id] == max(rivals, default=0.0)


@pytest.mark.parametrize(
    ("prior", "labelled", "support"),
    [
        pytest.param(0.1, 90, math.log(10) / math.log(1001), id="nine-carriers"),
        pytest.param(0.5, 2000, 1.0, id="a-thousand"),
        pytest.param(1.0, 5000, 1.0, id="no-more-than-1"),
        pytest.param(0.5, 0, 0.0, id="nothing-labelled"),
    ],
)
def test_support_counts_carriers_by_their_logarithm(
    prior: float, labelled: int, support: float
) -> None:
    candidate = Candidate(Tag("a", "a"), prior=prior)
    assert signals(candidate, None, labelled=labelled)["support"] == pytest.approx(support)
    scored = WeightedScorer().score(PRODUCT, _shortlist(candidate, labelled=labelled), ParsedTags())
    assert scored.items[0].evidence.signals["support"] == pytest.approx(support)


def _by(number: float) -> Weights:
    return Weights(number, {})


@pytest.mark.parametrize("asked", [None, _by(3.0)], ids=["not-fitted", "fitted"])
@pytest.mark.parametrize("answered", [True, False], ids=["answered", "not-answered"])
@pytest.mark.parametrize("labelled", [9, 0], ids=["warm", "cold"])
def test_which_weights_are_used(asked: Weights | None, answered: bool, labelled: int) -> None:
    """`asked` needs an answer and labelled products; an empty answer is one too."""
    scorer = WeightedScorer(warm=_by(1.0), cold=_by(2.0), asked=asked)
    shortlist = _shortlist(Candidate(Tag("a", "a")), labelled=labelled)
    (item,) = scorer.score(PRODUCT, shortlist, ParsedTags(answered=answered)).items
    expected = 2.0 if not labelled else 3.0 if asked and answered else 1.0
    assert item.evidence.contributions == {"bias": expected}
    assert item.score == pytest.approx(1 / (1 + math.exp(-expected)))


@pytest.mark.parametrize(
    ("asked", "labelled", "bias"),
    [
        pytest.param(None, 9, 2.0, id="by-the-cold-weights"),
        pytest.param(None, 0, 2.0, id="cold-anyway"),
        pytest.param(_by(3.0), 9, 3.0, id="by-the-fitted-weights"),
        pytest.param(_by(3.0), 0, 2.0, id="fitted-but-cold"),
    ],
)
def test_what_the_model_brought_up(asked: Weights | None, labelled: int, bias: float) -> None:
    scorer = WeightedScorer(warm=_by(1.0), cold=_by(2.0), asked=asked)
    parsed = ParsedTags((Proposal(Tag("n", "n")),), answered=True)
    (item,) = scorer.score(PRODUCT, _shortlist(labelled=labelled), parsed).items
    assert item.evidence.contributions == {"bias": bias}
    assert item.evidence.signals["chosen"] == 1.0


@given(CANDIDATES, SHARE)
def test_a_larger_vote_never_scores_less(candidate: Candidate, vote: float) -> None:
    low, high = sorted([candidate.vote, vote])
    one, other = (
        WeightedScorer().score(PRODUCT, _shortlist(replace(candidate, vote=v)), ParsedTags())
        for v in (low, high)
    )
    assert one.items[0].score <= other.items[0].score


def test_every_signal_is_what_it_says() -> None:
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
        trust=0.7,
        extracted=0.8,
    )
    proposal = Proposal(tag, spans=(Span("title", "a"),), logprob=math.log(0.25))
    known = signals(candidate, proposal, rival=0.9, labelled=18)
    assert known == pytest.approx(
        {
            "vote": 0.1,
            "lexical_vote": 0.2,
            "name_similarity": 0.3,
            "name_lexical": 0.4,
            "literal": 1.0,
            "prior": 0.5,
            "linear": 0.6,
            "trust": 0.7,
            "misspelt": 0.0,
            "extracted": 0.8,
            "rival": 0.9,
            "support": math.log(10) / math.log(1001),
            "chosen": 1.0,
            "confidence": 0.25,
        }
    )
    assert set(WARM.of) <= set(known)
    assert set(COLD.of) <= set(known) - {"vote", "lexical_vote", "linear", "prior", "support"}
    assert not any(signals(Candidate(tag), None).values())


@pytest.mark.parametrize(("labelled", "score"), [(9, 0.5), (0, 0.75)], ids=["warm", "cold"])
def test_the_weights_decide(labelled: int, score: float) -> None:
    scorer = WeightedScorer(
        warm=Weights(-1.0, {"vote": (2.0, 0.0), "linear": (9.0, 9.0)}),
        cold=Weights(0.0, {"vote": (0.0, math.log(3) / math.log(51))}),
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


BACKED: dict[str, tuple[Candidate, int, float]] = {
    "nothing speaks for it": (Candidate(Tag("a", "a"), prior=0.1), 100, 0.08),
    "neighbours do": (Candidate(Tag("a", "a"), prior=0.1, vote=0.6), 100, 1.0),
    "the linear expert does": (Candidate(Tag("a", "a"), prior=0.1, linear=0.9), 100, 1.0),
    "a little": (Candidate(Tag("a", "a"), prior=0.1, vote=0.3), 100, 0.54),
    "nobody could": (Candidate(Tag("a", "a"), prior=0.0), 100, 1.0),
    "nothing is labelled": (Candidate(Tag("a", "a"), prior=0.0), 0, 1.0),
}


@pytest.mark.parametrize(("candidate", "labelled", "backing"), BACKED.values(), ids=BACKED)
def test_a_mention_counts_by_its_place_and_its_backing(
    candidate: Candidate, labelled: int, backing: float
) -> None:
    told = replace(
        candidate,
        spans=(Span("description", "a"),),
        credibility=0.5,
        trust=0.2,
        name_lexical=0.8,
    )
    known = signals(told, None, labelled=labelled)
    assert known["literal"] == pytest.approx(0.5 * backing)
    assert curve(known["trust"]) == pytest.approx(backing * curve(0.2))
    assert known["name_lexical"] == pytest.approx(0.8 * 0.5 * backing)
    unnamed = signals(replace(told, spans=(), trust=0.0), None, labelled=labelled)
    assert (unnamed["literal"], unnamed["name_lexical"]) == (0.0, 0.8)


def test_a_misspelt_name_counts_as_trust_would_and_instead_of_it() -> None:
    told = Candidate(
        Tag("a", "a"),
        misspelt=(Span("title", "b"),),
        prior=0.1,
        vote=0.3,
        trust=0.2,
        credibility=0.5,
    )
    known = signals(told, None, labelled=100)
    assert known["misspelt"] == pytest.approx(0.2 * 0.54)
    assert (known["literal"], known["trust"]) == (0.0, 0.0)
    nobody = signals(replace(told, prior=0.0, trust=0.0), None, labelled=0)
    assert nobody["misspelt"] == pytest.approx(0.5), "as much as the place is worth"
    right = signals(replace(told, misspelt=(), spans=told.misspelt), None, labelled=100)
    assert right["misspelt"] == 0.0
    assert curve(right["trust"]) == pytest.approx(0.54 * curve(0.2))


@pytest.mark.parametrize("weights", [WARM, COLD], ids=["warm", "cold"])
def test_a_misspelt_name_counts_for_a_tag_but_less_than_one_spelt_right(weights: Weights) -> None:
    named = Candidate(Tag("a", "a"), spans=(Span("title", "a"),), prior=0.1, vote=0.6, trust=0.8)
    if weights is COLD:
        named = replace(named, prior=0.0, vote=0.0, trust=0.0)
    wrong = replace(named, spans=(), misspelt=named.spans)
    right, misspelt, unnamed = (
        sum(contributions(weights, signals(each, None, labelled=100), "a", None).values())
        for each in (named, wrong, replace(wrong, misspelt=(), trust=0.0))
    )
    assert unnamed < misspelt < right


def test_trust_in_a_title_is_weakened_less() -> None:
    told = Candidate(Tag("a", "a"), spans=(Span("title", "a"),), prior=0.1, vote=0.3, trust=0.2)
    assert signals(told, None, labelled=100)["trust"] == pytest.approx(0.2 * 0.54)
    elsewhere = signals(replace(told, credibility=0.99), None, labelled=100)["trust"]
    assert 0 < elsewhere < 0.2 * 0.54


def test_a_tag_whose_mentions_are_right_needs_no_backing() -> None:
    told = Candidate(Tag("a", "a"), spans=(Span("title", "a"),), prior=0.1, trust=0.9)
    assert signals(told, None, labelled=100)["literal"] == pytest.approx(0.9**6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_mention_that_is_believed_more_never_counts_less(
    vote: float, credibility: float, more: float
) -> None:
    told = Candidate(
        Tag("a", "a"),
        spans=(Span("title", "a"),),
        vote=vote,
        prior=0.1,
        credibility=credibility,
        trust=0.5,
    )
    better = replace(told, credibility=max(credibility, more), vote=max(vote, more))
    for name in ("literal", "trust"):
        one, other = (signals(each, None, labelled=100)[name] for each in (told, better))
        assert 0 <= one <= other <= 1
