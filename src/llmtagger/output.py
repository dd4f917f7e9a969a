"""The output record: a product, its tags with evidence, and what was not kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmtagger.datatypes import (
    Evidence,
    Problem,
    Product,
    Reason,
    Rejection,
    ScoredTag,
    ScoredTags,
    Span,
    TaggedProduct,
)
from llmtagger.vocabulary import tag_from_record, tag_to_record

_KEPT_FROM = 0.02  # candidates that score less are not worth a line in the journal
_SHOWN_NEIGHBOURS = 5
_NOTHING = 2.0  # a threshold that no score reaches


@dataclass(frozen=True, slots=True)
class Cut:
    """Where scores are cut: kept from `threshold` on, shown for review from `review` on.

    Scores of products that the model has answered are cut at `answered`, where that is set. A
    threshold above 1 keeps nothing.
    """

    threshold: float
    review: float
    answered: float | None = None

    def of(self, tagged: TaggedProduct) -> float:
        """The threshold for one result; where the answer failed nothing is kept."""
        if tagged.failed:
            return _NOTHING
        if tagged.answered and self.answered is not None:
            return self.answered
        return self.threshold


def product_record(product: Product) -> dict[str, Any]:
    """The input's fields as they came, unknown ones included."""
    record: dict[str, Any] = {"id": product.id, "title": product.title}
    for name in ("description", "brand", "category", "lang", "group"):
        if value := getattr(product, name):
            record[name] = value
    if product.attributes:
        record["attributes"] = dict(product.attributes)
    if product.reviews:
        record["reviews"] = list(product.reviews)
    return record | dict(product.extra)


def output_record(tagged: TaggedProduct, cut: Cut, run: Mapping[str, str]) -> dict[str, Any]:
    """One line of output. Of a failed answer nothing is kept: what is plausible goes to review."""
    threshold = cut.of(tagged)
    lang = tagged.product.lang[:2].lower()
    kept, review = tagged.scored.at(threshold), tagged.scored.below(threshold, cut.review)
    shown = {item.tag.id for item in (*kept, *review)}
    dropped = [
        {"text": item.tag.label(lang), "reason": Reason.BELOW_THRESHOLD.value}
        for item in tagged.scored.items
        if item.evidence.chosen and item.tag.id not in shown
    ]
    return product_record(tagged.product) | {
        "tags": [_scored(item, lang) for item in kept],
        "review": [_scored(item, lang) for item in review],
        "rejected": [{"text": r.text, "reason": r.reason.value} for r in tagged.rejected] + dropped,
        "problem": _problem(tagged.problem),
        "run": dict(run) | ({"truncated": list(tagged.truncated)} if tagged.truncated else {}),
    }


def _scored(item: ScoredTag, lang: str) -> dict[str, Any]:
    return {
        "tag": item.tag.label(lang),
        "score": round(item.score, 4),
        "evidence": _evidence(item.evidence),
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    model: dict[str, Any] = {"chosen": evidence.chosen}
    if evidence.logprob is not None:
        model["logprob"] = round(evidence.logprob, 4)
    model["effect"] = round(
        sum(evidence.contributions.get(name, 0.0) for name in ("chosen", "confidence")), 4
    )
    return {
        "neighbours": [
            {"id": name, "similarity": round(similarity, 4)}
            for name, similarity in evidence.neighbours[:_SHOWN_NEIGHBOURS]
        ],
        "spans": [{"field": span.field, "text": span.text} for span in evidence.spans],
        "model": model,
        "signals": {name: round(value, 4) for name, value in evidence.signals.items() if value},
        "contributions": {n: round(value, 4) for n, value in evidence.contributions.items()},
    } | ({"new": True} if evidence.new else {})


def explain(evidence: Evidence) -> str:
    """The evidence in one line: where it stands, the nearest carrier and how many more, the model.

    `“zippered” in title · bag-3 0.58 +4 · model`
    """
    parts = []
    if evidence.spans:
        span = evidence.spans[0]
        parts.append(f"“{span.text}” in {span.field}")
    if evidence.neighbours:
        name, similarity = max(evidence.neighbours, key=lambda each: each[1])
        more = f" +{len(evidence.neighbours) - 1}" if len(evidence.neighbours) > 1 else ""
        parts.append(f"{name} {similarity:.2f}{more}")
    if evidence.chosen:
        parts.append("new, by the model" if evidence.new else "model")
    return " · ".join(parts) or "its name is near the text"


def _problem(problem: Problem | None) -> dict[str, str] | None:
    return None if problem is None else {"code": problem.code, "message": problem.message}


def to_payload(tagged: TaggedProduct) -> dict[str, Any]:
    """All of a result but its product, so that it can be cut again at another threshold."""
    return {
        "scored": [
            {
                "tag": tag_to_record(item.tag),
                "score": item.score,
                "neighbours": [list(each) for each in item.evidence.neighbours],
                "spans": [[span.field, span.text] for span in item.evidence.spans],
                "chosen": item.evidence.chosen,
                "logprob": item.evidence.logprob,
                "new": item.evidence.new,
                "signals": dict(item.evidence.signals),
                "contributions": dict(item.evidence.contributions),
            }
            for item in tagged.scored.items
            if item.score >= _KEPT_FROM or item.evidence.chosen
        ],
        "rejected": [[r.text, r.reason.value] for r in tagged.rejected],
        "problem": _problem(tagged.problem),
        "truncated": list(tagged.truncated),
        "answered": tagged.answered,
    }


def from_payload(product: Product, payload: Mapping[str, Any]) -> TaggedProduct:
    """The result that `to_payload` took down."""
    problem = payload["problem"]
    return TaggedProduct(
        product=product,
        scored=ScoredTags(tuple(_scored_tag(item) for item in payload["scored"])),
        rejected=tuple(Rejection(text, Reason(reason)) for text, reason in payload["rejected"]),
        problem=Problem(**problem) if problem else None,
        truncated=tuple(payload["truncated"]),
        answered=payload["answered"],
    )


def _scored_tag(item: Mapping[str, Any]) -> ScoredTag:
    evidence = Evidence(
        neighbours=tuple((name, similarity) for name, similarity in item["neighbours"]),
        spans=tuple(Span(field, text) for field, text in item["spans"]),
        chosen=item["chosen"],
        logprob=item["logprob"],
        new=item["new"],
        signals=item["signals"],
        contributions=item["contributions"],
    )
    return ScoredTag(tag_from_record(item["tag"]), item["score"], evidence)
