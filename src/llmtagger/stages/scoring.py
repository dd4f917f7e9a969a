"""Turns what is known of each candidate into one probability, as a sum a person can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmtagger.datatypes import (
    Candidate,
    Evidence,
    ParsedTags,
    Product,
    Proposal,
    ScoredTag,
    ScoredTags,
    Shortlist,
)


@dataclass(frozen=True, slots=True)
class Weights:
    """What each signal adds to the log-odds, and where they start."""

    bias: float
    of: Mapping[str, float]


# Fitted by benchmarks/default_weights.py over nine labelled sets, English and Chinese; how they
# compare with the neighbour vote on other products is in docs/scores.md. The model's two weights
# are set by hand, and small: models differ, and the small ones choose almost anything or nothing.
WARM = Weights(
    -5.0,
    {
        "vote": 2.1,
        "lexical_vote": 3.2,
        "name_similarity": -0.3,
        "name_lexical": 2.0,
        "literal": 1.9,
        "prior": -0.2,
        "linear": 5.1,
        "chosen": 0.3,
        "confidence": 0.3,
    },
)
COLD = Weights(
    -4.4,
    {
        "vote": 0.0,
        "lexical_vote": 0.0,
        "name_similarity": 1.7,
        "name_lexical": 2.4,
        "literal": 2.5,
        "prior": 0.0,
        "linear": 0.0,
        "chosen": 1.0,
        "confidence": 1.0,
    },
)


def signals(candidate: Candidate, proposal: Proposal | None) -> dict[str, float]:
    """All that is known of a candidate as numbers between 0 and 1 (a cosine for the name)."""
    spans = candidate.spans or (proposal.spans if proposal else ())
    confidence = math.exp(proposal.logprob) if proposal and proposal.logprob is not None else 0.0
    return {
        "vote": candidate.vote,
        "lexical_vote": candidate.lexical_vote,
        "name_similarity": candidate.name_similarity,
        "name_lexical": candidate.name_lexical,
        "literal": 1.0 if spans else 0.0,
        "prior": candidate.prior,
        "linear": candidate.linear,
        "chosen": 1.0 if proposal else 0.0,
        "confidence": confidence,
    }


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """The logistic function of a weighted sum of the signals.

    `cold` holds the weights where there are no votes to go by: for an index without labelled
    products, and for what the model proposed on its own.
    """

    warm: Weights = WARM
    cold: Weights = COLD

    def score(self, product: Product, shortlist: Shortlist, parsed: ParsedTags) -> ScoredTags:
        """Every candidate and everything the model proposed, best first."""
        proposals = {proposal.tag.id: proposal for proposal in parsed.accepted}
        listed = {candidate.tag.id for candidate in shortlist.candidates}
        weights = self.warm if shortlist.labelled else self.cold
        items = [_score(weights, c, proposals.get(c.tag.id)) for c in shortlist.candidates]
        items += [
            _score(self.cold, Candidate(proposal.tag, spans=proposal.spans), proposal)
            for proposal in parsed.accepted
            if proposal.tag.id not in listed
        ]
        items.sort(key=lambda item: (-item.score, item.tag.name))
        return ScoredTags(tuple(items))


def _score(weights: Weights, candidate: Candidate, proposal: Proposal | None) -> ScoredTag:
    values = signals(candidate, proposal)
    parts = {"bias": weights.bias} | {
        name: weights.of[name] * value for name, value in values.items() if weights.of[name] * value
    }
    evidence = Evidence(
        neighbours=candidate.votes,
        spans=candidate.spans or (proposal.spans if proposal else ()),
        chosen=proposal is not None,
        logprob=proposal.logprob if proposal else None,
        new=bool(proposal and proposal.new),
        signals=values,
        contributions=parts,
    )
    return ScoredTag(candidate.tag, logistic(sum(parts.values())), evidence)


def logistic(log_odds: float) -> float:
    """A probability from log-odds, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))
