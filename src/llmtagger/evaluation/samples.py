"""What an evaluation found for each test product, as the records of samples.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmtagger.datatypes import TaggedProduct
from llmtagger.evaluation.harness import Outcome
from llmtagger.evaluation.metrics import SHOWN, Record


def samples_of(outcome: Outcome) -> list[Record]:
    """One record a test product."""
    answered = dict(zip(outcome.asked, outcome.answered, strict=True))
    place = {row: at for at, row in enumerate(outcome.asked)}
    return [
        _sample(outcome, row, tagged, answered.get(row), place.get(row))
        for row, tagged in enumerate(outcome.results)
    ]


def _sample(
    outcome: Outcome,
    row: int,
    tagged: TaggedProduct,
    answered: TaggedProduct | None,
    place: int | None,
) -> Record:
    product, gold = tagged.product, outcome.gold[row]
    scores = outcome.scores["system"][row]
    named = (
        (outcome.judge.item(product, item.tag.name) or item.tag.name, item)
        for item in tagged.scored.items
    )
    # A missed tag is worth its line, however low it scored.
    shown = [(name, item) for name, item in named if item.score >= SHOWN or name in gold]
    kept = {name: sorted(each[row]) for name, each in outcome.kept.items() if name != "llm_only"}
    if place is not None and "llm_only" in outcome.kept:
        kept["llm_only"] = sorted(outcome.kept["llm_only"][place])
    completion = tagged.completion or (answered.completion if answered else None)
    return {
        "id": product.id,
        "group": outcome.test.groups[row],
        "lang": product.lang,
        "category": product.category,
        "title": product.title,
        "gold": sorted(gold),
        "unjudged": sorted(outcome.gold_set.unjudged.get(product.id, ())),
        "kept": kept,
        "scores": {
            "system": {i: round(s, 4) for i, s in scores.items() if s >= SHOWN or i in gold}
        },
        "signals": {name: _rounded(each.evidence.signals) for name, each in shown},
        "contributions": {name: _rounded(each.evidence.contributions) for name, each in shown},
        "neighbours": list(
            dict.fromkeys(name for _, each in shown for name, _ in each.evidence.neighbours)
        ),
        "asked": tagged.completion is not None,
        "prompt_hash": tagged.prompt_hash,
        "problem": tagged.problem.code if tagged.problem else None,
        "prompt_tokens": completion.prompt_tokens if completion else 0,
        "completion_tokens": completion.completion_tokens if completion else 0,
        "model_seconds": round(completion.seconds, 3) if completion else 0.0,
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if value}


def write_samples(samples: Sequence[Record], path: Path) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for sample in samples:
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")
