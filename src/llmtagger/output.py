"""The output record: a product, its tags with evidence, and what was not kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmtagger.catalog.tagcells import new_tags
from llmtagger.datatypes import (
    Evidence,
    Problem,
    Product,
    Reason,
    Rejection,
    ScoredTag,
    ScoredTags,
    Span,
    Tag,
    TaggedProduct,
)
from llmtagger.normalise import normalise
from llmtagger.vocabulary import tag_from_record, tag_to_record

_KEPT_FROM = 0.02  # candidates that score less are not worth a line in the journal
_SHOWN_NEIGHBOURS = 5
_NOTHING = 2.0  # a threshold that no score reaches
_STEP = re.compile(r"[>/|›»]")  # between the parts of a category's path
_LISTED = re.compile(r"[,;，；]")  # between several categories of one product


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the tags of one result go: kept, for review and why, or blocked.

    `added` are the kept ones that the product did not come with.
    """

    kept: tuple[ScoredTag, ...]
    added: tuple[ScoredTag, ...]
    review: tuple[tuple[ScoredTag, Reason], ...]
    blocked: tuple[ScoredTag, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where scores are cut: kept from `threshold` on, shown for review from `review` on.

    Scores of products that the model has answered are cut at `answered`, where that is set. A
    threshold above 1 keeps nothing. In a category that `categories` names, by its path or the
    start of it, its own threshold counts; where a precision is `promised`, only a higher one. A
    product gets the best tags until it has `max_tags`, those that it came with included; none of
    these is ever removed. Tags of the `blocklist` are neither kept nor shown.
    """

    threshold: float
    review: float
    answered: float | None = None
    max_tags: int | None = None
    categories: tuple[tuple[str, float], ...] = ()
    blocklist: tuple[str, ...] = ()
    promised: bool = False

    def of(self, tagged: TaggedProduct) -> float:
        """The threshold for one result; where the answer failed nothing is kept."""
        if tagged.failed:
            return _NOTHING
        general = self.threshold
        if tagged.answered and self.answered is not None:
            general = self.answered
        own = category_threshold(tagged.product.category, self.categories)
        if own is None:
            return general
        return max(own, general) if self.promised else own

    def place(self, tagged: TaggedProduct, *, as_new: bool = False) -> Placed:
        """Where each tag goes; what scores too low for review is nowhere.

        With `as_new` the product counts as one without tags: where they are gold, they are what is
        looked for.
        """
        threshold = self.of(tagged)
        allowed, banned = unblocked(tagged.scored, self.blocklist)
        above = allowed.at(threshold)
        given = () if as_new else tagged.product.tags or ()
        lang = _language(tagged.product)
        added = tuple(i for i in above if not given or new_tags([i.tag.label(lang)], given))
        room = None if self.max_tags is None else max(0, self.max_tags - len(new_tags(given, ())))
        over = () if room is None else added[room:]
        beyond = {item.tag.id for item in over}
        review = [(item, Reason.TOO_MANY) for item in over]
        low = Reason.NO_ANSWER if tagged.failed else Reason.BELOW_THRESHOLD
        lowest = min(self.review, threshold)
        for item in allowed.below(threshold, lowest):
            review.append((item, Reason.NEW if item.evidence.new else low))
        return Placed(
            tuple(item for item in above if item.tag.id not in beyond),
            added[: len(added) - len(over)],
            tuple(review),
            tuple(i for i in banned.items if i.score >= lowest or i.evidence.chosen),
        )


def unblocked(scored: ScoredTags, blocklist: Iterable[str]) -> tuple[ScoredTags, ScoredTags]:
    """The tags that may be used, and those that the blocklist names."""
    names = set(map(normalise, blocklist))
    parts: tuple[list[ScoredTag], list[ScoredTag]] = ([], [])
    for item in scored.items:
        parts[_named(item.tag, names)].append(item)
    allowed, banned = parts
    return ScoredTags(tuple(allowed)), ScoredTags(tuple(banned))


def _language(product: Product) -> str:
    return product.lang[:2].lower()


def _named(tag: Tag, names: Collection[str]) -> bool:
    """Whether a tag has one of these normalised names, in any language."""
    return bool(names) and any(
        normalise(name) in names for name in (tag.name, *tag.aliases, *tag.labels.values())
    )


def category_threshold(category: str, thresholds: Iterable[tuple[str, float]]) -> float | None:
    """The threshold of the longest path that a product's category starts with; None without one.

    >>> category_threshold("Shoes > Running", [("shoes", 0.6), ("Shoes > Run", 0.9)])
    0.6
    """
    if not category:
        return None
    found = {_path(name): threshold for name, threshold in thresholds}
    paths = [_path(each) for each in (category, *_LISTED.split(category))]
    starts = (path[:length] for path in paths for length in range(1, len(path) + 1))
    return found.get(max((start for start in starts if start in found), key=len, default=()))


def _path(category: str) -> tuple[str, ...]:
    return tuple(part for each in _STEP.split(category) if (part := normalise(each)))


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
    placed = cut.place(tagged)
    lang = _language(tagged.product)
    dropped = [(item, Reason.BLOCKED) for item in placed.blocked]
    shown = {
        item.tag.id for item in (*placed.kept, *(i for i, _ in placed.review), *placed.blocked)
    }
    dropped += [
        (item, Reason.BELOW_THRESHOLD)
        for item in tagged.scored.items
        if item.evidence.chosen and item.tag.id not in shown
    ]
    rejected = [Rejection(item.tag.label(lang), reason) for item, reason in dropped]
    return product_record(tagged.product) | {
        "tags": [_scored(item, lang) for item in placed.kept],
        "review": [_scored(item, lang) | {"reason": why.value} for item, why in placed.review],
        "rejected": [
            {"text": each.text, "reason": each.reason.value}
            for each in (*tagged.rejected, *rejected)
        ],
        "problem": _problem(tagged.problem),
        "run": dict(run) | ({"truncated": list(tagged.truncated)} if tagged.truncated else {}),
    }


def given_record(product: Product, run: Mapping[str, str], tags: Collection[str]) -> dict[str, Any]:
    """One line of output for a product that was not tagged; `tags` are those it came with."""
    return product_record(product) | {
        "tags": [{"tag": tag, "given": True} for tag in tags],
        "review": [],
        "rejected": [],
        "problem": None,
        "run": dict(run),
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
