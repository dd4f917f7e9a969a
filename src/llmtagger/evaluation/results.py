"""What an evaluation found, as the record of results.json."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from llmtagger import __version__
from llmtagger.datatypes import TagKind
from llmtagger.evaluation import metrics, slices
from llmtagger.evaluation.baselines import NAMES
from llmtagger.evaluation.harness import Kept, Outcome
from llmtagger.evaluation.judging import as_kept
from llmtagger.evaluation.metrics import Bootstrap, Floats, Record
from llmtagger.evaluation.model_share import asked_side, cost, model_share, rule_of
from llmtagger.normalise import normalise
from llmtagger.scorers import KEEP_NOTHING
from llmtagger.stages.scoring import curve
from llmtagger.vocabulary import Vocabulary, split_key

FORMAT = 1
_PROMISED = (0.8, 0.85, 0.9, 0.95, 0.98)


def results_of(outcome: Outcome) -> Record:
    """All figures of an evaluation."""
    config = outcome.config
    boot = Bootstrap(outcome.test.groups, seed=config.seed)
    rule = rule_of(outcome)
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
            "prompt": outcome.template.identity,
            "model": outcome.model,
            "settings": config.settings.fingerprint,
        },
        "products": {
            "train": len(outcome.train.products),
            "test": len(outcome.test.products),
            "train_groups": len(set(outcome.train.groups)),
            "test_groups": len(set(outcome.test.groups)),
            "asked_train": rule.products if rule else 0,
            "asked_test": len(outcome.asked),
        },
        **systems,
        "best_baseline": _best_baseline(outcome, boot),
        "model": model_share(outcome),
        "candidate_recall": _candidate_recall(outcome),
        "ancestor_micro_f1": _with_ancestors(outcome, boot),
        "per_tag": metrics.per_tag(outcome.kept["system"], outcome.gold),
        "per_key": slices.per_key(outcome),
        "slices": slices.slices(outcome, boot),
        "calibration": _calibration(outcome),
        "promises": _promises(outcome),
        "curves": {
            name: metrics.curve_points(outcome.scores[name], outcome.gold)
            for name in ("system", "knn_vote", "tfidf_linear", "embedding_linear", "lookup")
        },
        "confusions": slices.confusions(outcome),
        "weights": _weights(outcome),
        "cost": cost(outcome),
        "seconds": {name: round(spent, 2) for name, spent in outcome.spent.items()}
        | {"total": round(sum(outcome.spent.values()), 2)},
        "leaks": {"compared": len(outcome.test.products), "found": 0},
    }


def _system(outcome: Outcome, name: str, boot: Bootstrap) -> Record | None:
    """The figures of the system or a baseline; None where it was not run."""
    if name not in outcome.kept:
        return None
    gold, kept, scores = outcome.gold, outcome.kept[name], outcome.scores[name]
    rows: Sequence[int] = range(len(gold))
    if name == "llm_only":
        rows = outcome.asked
        gold, boot = asked_side(outcome)
    each = metrics.counts(kept, gold)
    return {
        "products": len(gold),
        "threshold": outcome.thresholds.get(name),
        "micro_f1": boot.interval(each, metrics.f1).record(),
        "micro_precision": _precision(each, boot),
        "micro_recall": boot.interval(each, metrics.recall).record(),
        "macro_f1": boot.macro(kept, gold).record(),
        "product_f1": boot.mean(metrics.product_f1(each)).record(),
        "precision_at": {str(k): metrics.precision_at(scores, gold, k) for k in (1, 3, 5)},
        "rp_at": {str(k): metrics.rp_at(scores, gold, k) for k in (5, 10)},
        "out_of_vocabulary": _out_of_vocabulary(outcome, kept),
        "invalid": _invalid(outcome) if name in ("system", "llm_only") else 0.0,
        "extractgpt": _extractgpt(outcome, kept, gold, rows) if _has_keys(outcome) else None,
    }


def _precision(each: Floats, boot: Bootstrap) -> Record:
    """The precision of all that was kept; unknown where nothing was."""
    if not each[:, 1].any():
        return {"value": None, "low": None, "high": None}
    return boot.interval(each, metrics.precision).record()


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
    unreadable = sum(tagged.failed for tagged in outcome.answered)
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
        gold, own = asked_side(outcome)
        kept = [outcome.kept["system"][row] for row in outcome.asked]
        found["llm_only"] = own.difference(
            metrics.counts(kept, gold), metrics.counts(outcome.kept["llm_only"], gold), metrics.f1
        ).record()
    return {"name": best, "difference": found[best], "differences": found}


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
        promised = replace(
            outcome.cut,
            threshold=KEEP_NOTHING if cut is None else cut,
            answered=None,
            promised=True,
        )
        kept = as_kept(outcome.results, outcome.judge, promised)
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
            full = {s: round(a + b * curve(1.0), 3) for s, (a, b) in fitted.of.items()}
            found[name] = {"bias": fitted.bias} | full
    return found


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
