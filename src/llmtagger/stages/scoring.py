"""Turns what is known of each candidate into one probability, as a sum a person can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

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

BIAS = -2.0
WEIGHTS: Mapping[str, float] = {
    "vote": 2.0,
    "lexical_vote": 1.0,
    "name_similarity": 1.0,
    "name_lexical": 0.5,
    "literal": 0.5,
    "prior": 0.0,
    "linear": 2.0,
    "chosen": 0.2,
    "confidence": 0.2,
    "cold": 1.0,
}


def signals(
    shortlist: Shortlist, candidate: Candidate, proposal: Proposal | None
) -> dict[str, float]:
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
        "cold": 0.0 if shortlist.labelled else 1.0,
    }


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """The logistic function of a weighted sum of the signals."""

    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    bias: float = BIAS

    def score(self, product: Product, shortlist: Shortlist, parsed: ParsedTags) -> ScoredTags:
        """Every candidate and everything the model proposed, best first."""
        proposals = {proposal.tag.id: proposal for proposal in parsed.accepted}
        known = {candidate.tag.id for candidate in shortlist.candidates}
        candidates = (
            *shortlist.candidates,
            *(Candidate(p.tag, spans=p.spans) for p in parsed.accepted if p.tag.id not in known),
        )
        items = [self._score(shortlist, c, proposals.get(c.tag.id)) for c in candidates]
        items.sort(key=lambda item: (-item.score, item.tag.name))
        return ScoredTags(tuple(items))

    def _score(
        self, shortlist: Shortlist, candidate: Candidate, proposal: Proposal | None
    ) -> ScoredTag:
        values = signals(shortlist, candidate, proposal)
        parts = {name: self.weights[name] * value for name, value in values.items() if value}
        evidence = Evidence(
            neighbours=candidate.votes,
            spans=candidate.spans or (proposal.spans if proposal else ()),
            chosen=proposal is not None,
            logprob=proposal.logprob if proposal else None,
            new=bool(proposal and proposal.new),
            signals=values,
            contributions=parts,
        )
        return ScoredTag(candidate.tag, logistic(self.bias + sum(parts.values())), evidence)


def logistic(log_odds: float) -> float:
    """A probability from log-odds, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))
