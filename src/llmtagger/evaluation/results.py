"""What an evaluation found, as the records of results.json and samples.jsonl."""

from __future__ import annotations

import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from llmtagger import __version__
from llmtagger.datatypes import TaggedProduct
from llmtagger.evaluation import metrics
from llmtagger.evaluation.baselines import NAMES
from llmtagger.evaluation.harness import Kept, Outcome
from llmtagger.evaluation.metrics import Bootstrap
from llmtagger.normalise import normalise
from llmtagger.vocabulary import Vocabulary, split_key

FORMAT = 1
_PROMISED = (0.8, 0.85, 0.9, 0.95, 0.98)
_CONFUSIONS = 30
_LENGTHS = ((0, 40), (40, 80), (80, 160), (160, 10**9))  # characters
_FREQUENCIES = ((0, 0), (1, 1), (2, 4), (5, 19), (20, 10**9))  # train products with the tag
_SLICES = 20

Record = dict[str, Any]


def results_of(outcome: Outcome) -> Record:
    """All figures of an evaluation."""
    config = outcome.config
    boot = Bootstrap(outcome.test.groups, seed=config.seed)
    systems = {name: _system(outcome, name, boot) for name in ("system", *NAMES)}
    return {
        "format": FORMAT,
        "run": {
            "name": f"{outcome.gold_set.name} {config.regime}"
            + (f" {config.labelled}" if config.regime == "cold" else ""),
            "dataset": outcome.gold_set.name,
            "title": outcome.gold_set.name,
            "kind": outcome.gold_set.kind.value,
            "regime": config.regime,
            "labelled": int(outcome.index.labelled.sum()),
            "seed": config.seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "llmtagger": __version__,
            "llm": config.llm,
            "model": outcome.model,
        },
        "config": config.model_dump(mode="json"),
        "fingerprints": {
            "dataset": outcome.gold_set.fingerprint,
            "index": outcome.index.fingerprint,
            "encoder": f"{outcome.index.encoder.name}@{outcome.index.encoder.revision}",
            "prompt": f"{outcome.template.name}@{outcome.template.hash}",
            "model": outcome.model,
            "settings": config.settings.fingerprint,
        },
        "products": {
            "train": len(outcome.train.products),
            "test": len(outcome.test.products),
            "train_groups": len(set(outcome.train.groups)),
            "test_groups": len(set(outcome.test.groups)),
            "asked_train": _asked_train(outcome),
            "asked_test": len(outcome.asked),
        },
        **systems,
        "best_baseline": _best_baseline(outcome, boot),
        "model": _model(outcome),
        "candidate_recall": _candidate_recall(outcome),
        "ancestor_micro_f1": _with_ancestors(outcome, boot),
        "per_tag": metrics.per_tag(outcome.kept["system"], outcome.gold),
        "per_key": _per_key(outcome),
        "slices": _slices(outcome, boot),
        "calibration": _calibration(outcome),
        "promises": _promises(outcome),
        "curves": {
            name: metrics.curve_points(outcome.scores[name], outcome.gold)
            for name in ("system", "knn_vote", "tfidf_linear", "embedding_linear", "lookup")
        },
        "confusions": _confusions(outcome),
        "weights": _weights(outcome),
        "cost": _cost(outcome),
        "seconds": {name: round(spent, 2) for name, spent in outcome.spent.items()}
        | {"total": round(sum(outcome.spent.values()), 2)},
        "leaks": {"compared": len(outcome.test.products), "found": 0},
    }


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
    product = tagged.product
    scores = outcome.scores["system"][row]
    shown = [
        (outcome.judge.item(product, item.tag.name) or item.tag.name, item)
        for item in tagged.scored.items
        if item.score >= metrics.SHOWN
    ]
    kept = {
        name: sorted(items[row])
        for name, items in outcome.kept.items()
        if name != "llm_only"
    }  # fmt: skip
    if place is not None and "llm_only" in outcome.kept:
        kept["llm_only"] = sorted(outcome.kept["llm_only"][place])
    completion = (tagged.completion or (answered.completion if answered else None)) or None
    return {
        "id": product.id,
        "group": outcome.test.groups[row],
        "lang": product.lang,
        "category": product.category,
        "title": product.title,
        "gold": sorted(outcome.gold[row]),
        "unjudged": sorted(outcome.gold_set.unjudged.get(product.id, ())),
        "kept": kept,
        "scores": {"system": {i: round(s, 4) for i, s in scores.items() if s >= metrics.SHOWN}},
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


def _system(outcome: Outcome, name: str, boot: Bootstrap) -> Record | None:
    """The figures of the system or a baseline; None where it was not run."""
    if name not in outcome.kept:
        return None
    gold, kept, scores = outcome.gold, outcome.kept[name], outcome.scores[name]
    rows: Sequence[int] = range(len(gold))
    if name == "llm_only":
        rows = outcome.asked
        gold = [outcome.gold[row] for row in outcome.asked]
        groups = [outcome.test.groups[row] for row in outcome.asked]
        boot = Bootstrap(groups, seed=outcome.config.seed)
    each = metrics.counts(kept, gold)
    return {
        "products": len(gold),
        "threshold": outcome.thresholds.get(name),
        "micro_f1": boot.interval(each, metrics.f1).record(),
        "micro_precision": boot.interval(each, metrics.precision).record(),
        "micro_recall": boot.interval(each, metrics.recall).record(),
        "macro_f1": boot.macro(kept, gold).record(),
        "product_f1": boot.mean(metrics.product_f1(each)).record(),
        "precision_at": {str(k): metrics.precision_at(scores, gold, k) for k in (1, 3, 5)},
        "rp_at": {str(k): metrics.rp_at(scores, gold, k) for k in (5, 10)},
        "out_of_vocabulary": _out_of_vocabulary(outcome, kept),
        "invalid": _invalid(outcome) if name in ("system", "llm_only") else 0.0,
        "extractgpt": _extractgpt(outcome, kept, gold, rows) if _has_keys(outcome) else None,
    }


def _extractgpt(outcome: Outcome, kept: Kept, gold: Kept, rows: Sequence[int]) -> dict[str, float]:
    absent = [
        frozenset(
            normalise(key) for key in outcome.gold_set.absent.get(outcome.test.products[row].id, ())
        )
        for row in rows
    ]
    return metrics.extractgpt(kept, gold, absent)


def _has_keys(outcome: Outcome) -> bool:
    return any(split_key(item)[0] for gold in outcome.gold for item in gold)


def _out_of_vocabulary(outcome: Outcome, kept: Kept) -> float:
    """The share of kept items that are neither in the vocabulary nor values of a span key."""
    from llmtagger.datatypes import TagKind

    spans = {tag.key for tag in outcome.index.vocabulary if tag.kind is TagKind.SPAN}
    folded = {key.casefold() for key in spans if key}
    items = [item for each in kept for item in each]
    strange = [
        item
        for item in items
        if outcome.index.vocabulary.resolve(item) is None
        and (split_key(item)[0] or "").casefold() not in folded
    ]
    return len(strange) / max(len(items), 1)


def _invalid(outcome: Outcome) -> float:
    """The share of answers that could not be read."""
    unreadable = sum(tagged.problem is not None for tagged in outcome.answered)
    return unreadable / max(len(outcome.answered), 1)


def _best_baseline(outcome: Outcome, boot: Bootstrap) -> Record:
    """The baseline of the highest micro-F1 on all test products, and how the system compares."""
    system = metrics.counts(outcome.kept["system"], outcome.gold)
    others = {
        name: metrics.counts(outcome.kept[name], outcome.gold)
        for name in NAMES
        if name in outcome.kept and name != "llm_only"
    }
    best = max(others, key=lambda name: float(metrics.f1(others[name].sum(axis=0))))
    found = {
        name: boot.difference(system, each, metrics.f1).record() for name, each in others.items()
    }
    if outcome.asked:
        own = Bootstrap(
            [outcome.test.groups[row] for row in outcome.asked], seed=outcome.config.seed
        )
        gold = [outcome.gold[row] for row in outcome.asked]
        kept = [outcome.kept["system"][row] for row in outcome.asked]
        found["llm_only"] = own.difference(
            metrics.counts(kept, gold), metrics.counts(outcome.kept["llm_only"], gold), metrics.f1
        ).record()
    return {"name": best, "difference": found[best], "differences": found}


def _model(outcome: Outcome) -> Record | None:
    """What the model's answers change, on the test products that it was asked about."""
    if not outcome.asked:
        return None
    gold = [outcome.gold[row] for row in outcome.asked]
    groups = [outcome.test.groups[row] for row in outcome.asked]
    boot = Bootstrap(groups, seed=outcome.config.seed)
    helped = metrics.counts(outcome.helped, gold)
    alone = metrics.counts(outcome.alone, gold)
    added = boot.difference(helped, alone, metrics.f1)
    total = len(outcome.test.products)
    rule = outcome.calibration.ask if outcome.calibration else None
    return {
        "added": added.record(),
        "products": len(gold),
        "share_asked": _share_asked(outcome),
        "f1_with": boot.interval(helped, metrics.f1).record(),
        "f1_without": boot.interval(alone, metrics.f1).record(),
        "f1_kept": _f1_kept(boot, alone, helped, outcome).record(),
        "seconds_saved": (1 - _share_asked(outcome)) * total * _model_seconds(outcome),
        "rule": rule.model_dump() if rule else None,
        "note": _note(outcome),
    }


def _share_asked(outcome: Outcome) -> float:
    return len(outcome.wanted) / max(len(outcome.test.products), 1)


def _f1_kept(boot: Bootstrap, alone: Any, helped: Any, outcome: Outcome) -> metrics.Interval:
    """The F1 of asking only where the mode says so, as a share of that of asking everywhere."""
    asked = np.array([row in outcome.wanted for row in outcome.asked])
    mixed = np.where(asked[:, None], helped, alone)
    both = np.stack([mixed, helped], axis=-1)
    return boot.interval(
        both, lambda sums: metrics.f1(sums[..., 0]) / np.maximum(metrics.f1(sums[..., 1]), 1e-12)
    )


def _note(outcome: Outcome) -> str:
    rule = outcome.calibration.ask if outcome.calibration else None
    if outcome.config.llm != "auto" or rule is None:
        return f"mode {outcome.config.llm}"
    if rule.margin == 0:
        return (
            f"on {rule.products} labelled products asking changed F1 by {rule.added[0]:+.3f} "
            f"[{rule.added[1]:+.3f}, {rule.added[2]:+.3f}], so `auto` does not ask"
        )
    return f"asked where a score is within {rule.margin:g} of the threshold"


def _asked_train(outcome: Outcome) -> int:
    rule = outcome.calibration.ask if outcome.calibration else None
    return rule.products if rule else 0


def _candidate_recall(outcome: Outcome) -> Record:
    """The share of gold items among all candidates, and among those offered to the model."""
    everything = [frozenset(scores) for scores in outcome.scores["system"]]
    offered = [
        frozenset(
            item
            for name in tagged.offered
            if (item := outcome.judge.item(tagged.product, name)) is not None
        )
        for tagged in outcome.results
    ]
    return {
        "all": float(metrics.recall(metrics.counts(everything, outcome.gold).sum(axis=0))),
        "offered": float(metrics.recall(metrics.counts(offered, outcome.gold).sum(axis=0))),
    }


def _with_ancestors(outcome: Outcome, boot: Bootstrap) -> Record | None:
    """Micro-F1 where a tag also stands for its ancestors; None for a flat vocabulary."""
    vocabulary = outcome.index.vocabulary
    if not any(tag.parent for tag in vocabulary):
        return None
    kept = [_upward(items, vocabulary, outcome) for items in outcome.kept["system"]]
    gold = [_upward(items, vocabulary, outcome) for items in outcome.gold]
    return boot.interval(metrics.counts(kept, gold), metrics.f1).record()


def _upward(items: frozenset[str], vocabulary: Vocabulary, outcome: Outcome) -> frozenset[str]:
    found = set(items)
    for item in items:
        tag = vocabulary.resolve(item)
        seen: set[str] = set()
        while tag and tag.parent and tag.parent not in seen:
            seen.add(tag.parent)
            found.add(outcome.judge.name(tag.parent))
            tag = vocabulary.resolve(tag.parent)
    return frozenset(found)


def _per_key(outcome: Outcome) -> list[Record]:
    """A row a key of `key=value` tags, the most frequent first."""
    totals: defaultdict[str, Any] = defaultdict(lambda: np.zeros(3))
    for kept, gold in zip(outcome.kept["system"], outcome.gold, strict=True):
        for at, items in enumerate((kept & gold, kept, gold)):
            for item in items:
                if key := split_key(item)[0]:
                    totals[key][at] += 1
    return [
        {
            "key": key,
            "support": int(total[2]),
            "precision": float(metrics.precision(total)),
            "recall": float(metrics.recall(total)),
            "f1": float(metrics.f1(total)),
        }
        for key, total in sorted(totals.items(), key=lambda pair: (-pair[1][2], pair[0]))
    ]


def _slices(outcome: Outcome, boot: Bootstrap) -> Record:
    products = outcome.test.products
    lengths = [_range(len(product.text()), _LENGTHS, "characters") for product in products]
    return {
        "language": _sliced(outcome, boot, [product.lang or "unknown" for product in products]),
        "category": _sliced(outcome, boot, [product.category or "none" for product in products]),
        "text_length": _sliced(outcome, boot, lengths),
        "tag_frequency": _by_frequency(outcome),
    }


def _sliced(outcome: Outcome, boot: Bootstrap, names: Sequence[str]) -> list[Record]:
    each = metrics.counts(outcome.kept["system"], outcome.gold)
    found = []
    for name, count in Counter(names).most_common(_SLICES):
        inside = np.array([other == name for other in names])
        rows = np.where(inside[:, None], each, 0.0)
        found.append(
            {
                "slice": name,
                "products": count,
                "micro_f1": boot.interval(rows, metrics.f1).record(),
            }
        )
    return found


def _by_frequency(outcome: Outcome) -> list[Record]:
    """Recall and precision by how many train products carry the tag."""
    carried = Counter(item for p in outcome.train.products for item in outcome.judge.gold(p))
    found = []
    for low, high in _FREQUENCIES:
        total = np.zeros(3)
        for kept, gold in zip(outcome.kept["system"], outcome.gold, strict=True):
            for at, items in enumerate((kept & gold, kept, gold)):
                total[at] += sum(low <= carried[item] <= high for item in items)
        if total[2]:
            found.append(
                {
                    "slice": _range(low, ((low, high + 1),), "train products"),
                    "support": int(total[2]),
                    "recall": float(metrics.recall(total)),
                    "precision": float(metrics.precision(total)),
                }
            )
    return found


def _range(value: int, ranges: Sequence[tuple[int, int]], unit: str) -> str:
    for low, high in ranges:
        if low <= value < high:
            if high >= 10**9:
                return f"{low} {unit} or more"
            return f"{low} {unit}" if high == low + 1 else f"{low} to {high - 1} {unit}"
    return unit


def _calibration(outcome: Outcome) -> Record:
    bins = metrics.calibration_bins(outcome.scores["system"], outcome.gold)
    return {"ece": metrics.calibration_error(bins), "bins": bins}


def _promises(outcome: Outcome) -> list[Record]:
    """What each promised precision keeps of the test side, and how right that is."""
    if outcome.calibration is None:
        return []
    found = []
    for precision in _PROMISED:
        cut = outcome.calibration.unasked.cut_for(precision)
        kept = metrics.keep(outcome.scores["system"], 2.0 if cut is None else cut)
        right, count, gold = metrics.counts(kept, outcome.gold).sum(axis=0)
        found.append(
            {
                "precision": precision,
                "threshold": cut,
                "kept": int(count),
                "right": int(right),
                "share": float(right / max(gold, 1)),
                "seen": float(right / max(count, 1)),
                "wilson_low": metrics.wilson_low(right, count),
            }
        )
    return found


def _confusions(outcome: Outcome) -> list[Record]:
    """Wrong items beside missed ones: of the same key, or, without keys, of the same product."""
    pairs: Counter[tuple[str, str]] = Counter()
    for kept, gold in zip(outcome.kept["system"], outcome.gold, strict=True):
        for wrong in kept - gold:
            for missed in gold - kept:
                if split_key(wrong)[0] == split_key(missed)[0]:
                    pairs[missed, wrong] += 1
    return [
        {"gold": gold, "predicted": predicted, "count": count}
        for (gold, predicted), count in pairs.most_common(_CONFUSIONS)
    ]


def _weights(outcome: Outcome) -> Record:
    if outcome.calibration is None:
        return {}
    found = {}
    for name, fitted in (
        ("without the model", outcome.calibration.unasked),
        ("with the model", outcome.calibration.asked),
    ):
        if fitted is not None:
            # At its fullest: what a signal of 1 adds.
            from llmtagger.stages.scoring import curve

            full = {s: round(a + b * curve(1.0), 3) for s, (a, b) in fitted.of.items()}
            found[name] = {"bias": fitted.bias} | full
    return found


def _cost(outcome: Outcome) -> Record:
    """Tokens and seconds a product asked, and our own seconds a test product."""
    answers = [tagged.completion for tagged in outcome.answered if tagged.completion]
    count = max(len(answers), 1)
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers) / count,
        "completion_tokens": sum(answer.completion_tokens for answer in answers) / count,
        "model_seconds": _model_seconds(outcome),
        "own_seconds": outcome.spent.get("testing", 0.0) / max(len(outcome.test.products), 1),
    }


def _model_seconds(outcome: Outcome) -> float:
    """Server time a product: answers are timed with others in flight, so that is divided out."""
    seconds = [tagged.completion.seconds for tagged in outcome.answered if tagged.completion]
    together = min(len(seconds), outcome.config.settings.engine.concurrency)
    return sum(seconds) / len(seconds) / together if seconds else 0.0


def _commit() -> str:
    """The commit of the code, if it lies in a git checkout; with a `+` where files differ."""
    here = ["git", "-C", str(Path(__file__).parent)]

    def said(*words: str) -> str:
        return subprocess.run(
            [*here, *words], capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip()

    try:
        commit = said("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if commit and said("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def write_samples(samples: Sequence[Record], path: Path) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for sample in samples:
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")
