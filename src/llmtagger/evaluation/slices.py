"""Where an evaluation's system is good and where not: by slices, by keys, by confusions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmtagger.evaluation import metrics
from llmtagger.evaluation.harness import Outcome
from llmtagger.evaluation.metrics import Bootstrap, Record
from llmtagger.vocabulary import split_key

_CONFUSIONS = 30
_LENGTHS = ((0, 40), (40, 80), (80, 160), (160, 10**9))  # characters
_FREQUENCIES = ((0, 0), (1, 1), (2, 4), (5, 19), (20, 10**9))  # train products with the tag
_SLICES = 20


def slices(outcome: Outcome, boot: Bootstrap) -> Record:
    """How good the system is by language, category, length of the text and frequency of the tag."""
    products = outcome.test.products
    lengths = [_range(len(product.text()), _LENGTHS) for product in products]
    return {
        "language": _sliced(outcome, boot, [product.lang or "unknown" for product in products]),
        "category": _sliced(outcome, boot, [product.category or "none" for product in products]),
        "text_length": _sliced(outcome, boot, lengths),
        "tag_frequency": _by_frequency(outcome),
    }


def per_key(outcome: Outcome) -> list[Record]:
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
            "precision": metrics.share(total[0], total[1]),
            "recall": metrics.share(total[0], total[2]),
            "f1": float(metrics.f1(total)),
        }
        for key, total in sorted(totals.items(), key=lambda pair: (-pair[1][2], pair[0]))
    ]


def confusions(outcome: Outcome) -> list[Record]:
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


def _sliced(outcome: Outcome, boot: Bootstrap, names: Sequence[str]) -> list[Record]:
    each = metrics.counts(outcome.kept["system"], outcome.gold)
    found = []
    for name, count in Counter(names).most_common(_SLICES):
        inside = np.array([other == name for other in names])
        rows = np.where(inside[:, None], each, 0.0)
        figure: Record = boot.interval(rows, metrics.f1).record()
        groups = {group for group, here in zip(outcome.test.groups, inside, strict=True) if here}
        if len(groups) < metrics.LEAST_GROUPS:
            figure |= {"low": None, "high": None}
        found.append({"slice": name, "products": count, "micro_f1": figure})
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
                    "slice": _range(low, ((low, high + 1),)),
                    "support": int(total[2]),
                    "recall": metrics.share(total[0], total[2]),
                    "precision": metrics.share(total[0], total[1]),
                }
            )
    return found


def _range(value: int, ranges: Sequence[tuple[int, int]]) -> str:
    """The range that holds the value; short, because it labels a narrow plot."""
    low, high = next((low, high) for low, high in ranges if low <= value < high)
    if high >= 10**9:
        return f"{low} or more"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"
