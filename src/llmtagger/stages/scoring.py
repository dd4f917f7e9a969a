"""Turns what is known of each candidate into one probability, as a sum a person can read."""

from __future__ import annotations

import math
from collections import defaultdict
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
    Tag,
    TagKind,
)

_SOFT = 0.02  # keeps the curve finite at 0 and 1
_MANY = 1000  # carriers from which on a tag counts as fully supported
_BACKED = 0.6  # a vote or an estimate from which on a mention counts in full
_SURE = 6  # the power of `trust` that needs no backing: .9 is .53, .5 nothing
_UNBACKED = 0.08  # what it counts if neither speaks for the tag
MODEL = ("chosen", "confidence")  # signals that are there only where the model was asked


@dataclass(frozen=True, slots=True)
class Bend:
    """Turns a sum of evidence into log-odds: slopes far below and far above 0, and a level.

    Beta calibration (Kull, Silva Filho and Flach 2017), written in log-odds. With both slopes 1
    and the level 0 nothing changes.
    """

    below: float = 1.0
    above: float = 1.0
    level: float = 0.0

    def __call__(self, log_odds: float) -> float:
        """Monotone while the slopes are positive."""
        near = math.log1p(math.exp(-abs(log_odds)))
        up, down = max(log_odds, 0.0) + near, max(-log_odds, 0.0) + near
        return self.above * up - self.below * down + self.level


STRAIGHT = Bend()


@dataclass(frozen=True, slots=True)
class Weights:
    """What each signal adds to the log-odds, and where they start.

    `of` holds two numbers a signal x: of x itself, and of `curve(x)`. `tags` and `keys` are what a
    tag's own name (by id) and its key add: a tag's threshold, as it were, moved by so much. `bend`
    corrects the sum of all but the model's own signals, which are added last.
    """

    bias: float
    of: Mapping[str, tuple[float, float]]
    tags: Mapping[str, float] = field(default_factory=dict)
    keys: Mapping[str, float] = field(default_factory=dict)
    bend: Bend = STRAIGHT


# Fitted by benchmarks/default_weights.py to six labelled sets, English and Chinese, and used until
# `llmtagger calibrate` has fitted an index's own. Where nothing is labelled, values of span keys
# have weights of their own: one that the text does not name is nearly never right, while a closed
# tag may be. The weight of `misspelt` is fitted to the same sets with typos by
# benchmarks/typos.py; without labelled products, where it came out above that of `literal`, it is
# set below it. The model's two weights are set by hand, and small: models differ, and the small
# ones choose almost anything or nothing.
WARM = Weights(
    -4.56,
    {
        "vote": (1.04, 0.12),
        "lexical_vote": (-0.72, 0.41),
        "name_similarity": (0.07, 0.0),
        "name_lexical": (1.02, 0.07),
        "literal": (0.52, 0.0),
        "trust": (-4.91, 1.43),
        "misspelt": (3.96, 0.0),
        "extracted": (-1.30, 0.49),
        "linear": (4.25, -0.07),
        "rival": (1.67, -0.37),
        "prior": (0.20, 0.0),
        "support": (-0.02, 0.0),
        "chosen": (0.3, 0.0),
        "confidence": (0.3, 0.0),
    },
)
COLD = Weights(
    -4.91,
    {
        "name_similarity": (4.37, 0.0),
        "name_lexical": (1.95, 0.0),
        "literal": (2.22, 0.0),
        "misspelt": (1.9, 0.0),
        "chosen": (1.0, 0.0),
        "confidence": (1.0, 0.0),
    },
)
COLD_SPANS = Weights(
    -6.22,
    {
        "name_lexical": (3.23, 0.0),
        "literal": (4.23, 0.0),
        "misspelt": (3.6, 0.0),
        "chosen": (1.0, 0.0),
        "confidence": (1.0, 0.0),
    },
)


def curve(value: float) -> float:
    """The log-odds of a share, softened and moved so that 0 stays 0: .5 is 3.9, 1 is 7.9."""
    share = min(max(value, 0.0), 1.0)
    return math.log((share + _SOFT) / (1 + _SOFT - share) * (1 + _SOFT) / _SOFT)


def _trusted(candidate: Candidate, backing: float) -> float:
    """The trust in a mention that is backed so far.

    A shop's own title is doubted least. In other places the log-odds are multiplied: the curve is
    steep near 0, so a tenth of a share still has half of its log-odds.
    """
    if candidate.credibility >= 1:
        return candidate.trust * backing
    return _weakened(candidate.trust, backing)


def _weakened(share: float, factor: float) -> float:
    """The share whose log-odds, as `curve` counts them, are `factor` times those of this one."""
    odds = math.exp(factor * curve(share)) * _SOFT / (1 + _SOFT)
    return max(0.0, (odds * (1 + _SOFT) - _SOFT) / (1 + odds))


def signals(
    candidate: Candidate, proposal: Proposal | None, *, rival: float = 0.0, labelled: int = 0
) -> dict[str, float]:
    """All that is known of a candidate as numbers between 0 and 1 (a cosine for the name).

    A mention counts as far as it can be believed: by its place, and by whether similar products or
    the linear expert speak for the tag as well. `misspelt` is there only where the name is
    misspelt: the trust, or else the credibility, times the backing. `rival` is the strength of the
    strongest other value of the same key, `support` the number of the tag's carriers on a
    logarithmic scale.
    """
    spans = candidate.spans or (proposal.spans if proposal else ())
    confidence = math.exp(proposal.logprob) if proposal and proposal.logprob is not None else 0.0
    carriers = candidate.prior * labelled
    backing = _backing(candidate, carriers)
    believed = candidate.credibility * backing if spans else 0.0
    misspelt = (candidate.trust or candidate.credibility) * backing if candidate.misspelt else 0.0
    return {
        "vote": candidate.vote,
        "lexical_vote": candidate.lexical_vote,
        "name_similarity": candidate.name_similarity,
        "name_lexical": candidate.name_lexical * (believed if spans else 1.0),
        "literal": believed,
        "trust": 0.0 if candidate.misspelt else _trusted(candidate, backing),
        "misspelt": misspelt,
        "extracted": candidate.extracted,
        "linear": candidate.linear,
        "rival": rival,
        "prior": candidate.prior,
        "support": min(1.0, math.log1p(carriers) / math.log1p(_MANY)),
        "chosen": 1.0 if proposal else 0.0,
        "confidence": confidence,
    }


def _backing(candidate: Candidate, carriers: float) -> float:
    """How far a mention is borne out by what similar products carry and the linear expert says.

    Where no labelled product carries the tag, neither can speak for it, and none is missed. A tag
    whose mentions have nearly always been right needs it less.
    """
    if carriers <= 0:
        return 1.0
    least = max(_UNBACKED, candidate.trust**_SURE)
    return min(1.0, least + (1 - least) / _BACKED * max(candidate.vote, candidate.linear))


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """The logistic function of a weighted sum of the signals.

    `asked` replaces `warm` for products that the model has answered, where it was fitted; `cold`
    holds the weights for an index without labelled products, `cold_spans` those for its span keys.
    """

    warm: Weights = WARM
    cold: Weights = COLD
    cold_spans: Weights = COLD_SPANS
    asked: Weights | None = None

    def score(self, product: Product, shortlist: Shortlist, parsed: ParsedTags) -> ScoredTags:
        """Every candidate and everything the model proposed, best first."""
        proposals = {proposal.tag.id: proposal for proposal in parsed.accepted}
        listed = {candidate.tag.id for candidate in shortlist.candidates}
        proposed = [
            Candidate(proposal.tag, spans=proposal.spans)
            for proposal in parsed.accepted
            if proposal.tag.id not in listed
        ]
        warm = self.asked if self.asked is not None and parsed.answered else self.warm
        rivals = _rivals((*shortlist.candidates, *proposed))
        items = []
        for candidate in shortlist.candidates:
            proposal = proposals.get(candidate.tag.id)
            rival = rivals[candidate.tag.id]
            values = signals(candidate, proposal, rival=rival, labelled=shortlist.labelled)
            weights = warm if shortlist.labelled else self._cold(candidate.tag)
            items.append(_scored(weights, candidate, proposal, values))
        # Nothing but the model speaks for what it proposed itself, unless weights were fitted.
        fitted = self.asked is not None and shortlist.labelled
        for candidate in proposed:
            weights = warm if fitted else self._cold(candidate.tag)
            proposal = proposals[candidate.tag.id]
            values = signals(candidate, proposal, rival=rivals[candidate.tag.id])
            items.append(_scored(weights, candidate, proposal, values))
        items.sort(key=lambda item: (-item.score, item.tag.name))
        return ScoredTags(tuple(items))

    def _cold(self, tag: Tag) -> Weights:
        return self.cold_spans if tag.kind is TagKind.SPAN else self.cold


def _rivals(candidates: tuple[Candidate, ...]) -> dict[str, float]:
    """For each candidate the strength of the strongest other one of its key; 0 without a key."""
    strengths: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for candidate in candidates:
        if candidate.tag.key:
            strength = max(candidate.vote, candidate.linear, candidate.extracted)
            strengths[candidate.tag.key].append((strength, candidate.tag.id))
    rivals = dict.fromkeys((candidate.tag.id for candidate in candidates), 0.0)
    for several in strengths.values():
        several.sort(reverse=True)
        for place, (_, tag) in enumerate(several):
            rival = 0 if place else 1
            rivals[tag] = several[rival][0] if rival < len(several) else 0.0
    return rivals


def contributions(
    weights: Weights, values: Mapping[str, float], tag: str, key: str | None
) -> dict[str, float]:
    """What each signal, the tag's key, the tag itself and the bend add; in sum, the log-odds."""
    parts = {"bias": weights.bias}
    for name, value in values.items():
        if value:
            straight, curved = weights.of.get(name, (0.0, 0.0))
            if part := straight * value + (curved and curved * curve(value)):
                parts[name] = part
    if own := weights.tags.get(tag, 0.0) + weights.keys.get(key or "", 0.0):
        parts["tag"] = own
    if weights.bend != STRAIGHT:
        known = sum(part for name, part in parts.items() if name not in MODEL)
        parts["bend"] = weights.bend(known) - known
    return parts


def _scored(
    weights: Weights,
    candidate: Candidate,
    proposal: Proposal | None,
    values: Mapping[str, float],
) -> ScoredTag:
    parts = contributions(weights, values, candidate.tag.id, candidate.tag.key)
    evidence = Evidence(
        neighbours=candidate.votes,
        spans=candidate.spans or candidate.misspelt or (proposal.spans if proposal else ()),
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
