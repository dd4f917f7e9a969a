"""How good sets of tags are, with intervals from resampling whole product groups.

Items are compared as sets (strict): an item is right if gold has it. Intervals are 95 % percentile
intervals of the bootstrap, drawn over groups, since siblings are not independent (Efron &
Tibshirani 1993; Field & Welsh 2007 for clusters). Of few groups there is no interval: drawn again
and again, a handful of equal products would look certain.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger.evaluation.interval import Interval

Floats = NDArray[np.float64]
Items = Sequence[Collection[str]]
Scores = Sequence[Mapping[str, float]]
Record = dict[str, Any]  # of a JSON file

_DRAWS = 1000
_MACRO_DRAWS = 200  # each is a table of tags
LEAST_GROUPS = 10  # that an interval needs
SHOWN = 0.02  # scores below are shown to nobody


def counts(kept: Items, gold: Items) -> Floats:
    """(n, 3): right, kept and gold items of each product."""
    rows = [
        (len(set(k) & set(g)), len(set(k)), len(set(g))) for k, g in zip(kept, gold, strict=True)
    ]
    return np.array(rows, dtype=float).reshape(-1, 3)


def precision(totals: Floats) -> Any:
    """Of (..., 3) counts; 0 where nothing was kept."""
    return totals[..., 0] / np.maximum(totals[..., 1], 1e-12)


def recall(totals: Floats) -> Any:
    """Of (..., 3) counts; 0 where there is no gold."""
    return totals[..., 0] / np.maximum(totals[..., 2], 1e-12)


def f1(totals: Floats) -> Any:
    """Of (..., 3) counts; 0 where nothing was kept and nothing was gold."""
    return 2 * totals[..., 0] / np.maximum(totals[..., 1] + totals[..., 2], 1e-12)


def share(part: float, whole: float) -> float | None:
    """A share, such as the precision of one tag; None of nothing."""
    return part / whole if whole else None


def product_f1(each: Floats) -> Floats:
    """(n,): 1 where nothing was gold and nothing was kept."""
    return np.where(each[:, 1] + each[:, 2] == 0, 1.0, f1(each))


class Bootstrap:
    """Draws of product groups with replacement: the same draws for everything that is compared.

    Intervals have no ends where there are fewer groups than `least`.
    """

    def __init__(
        self, groups: Sequence[int], *, seed: int, draws: int = _DRAWS, least: int = LEAST_GROUPS
    ) -> None:
        self._group = np.unique(np.asarray(groups), return_inverse=True)[1]
        count = int(self._group.max(initial=-1)) + 1
        random = np.random.default_rng(seed)
        shares = np.full(count, 1 / max(count, 1))
        self.weights: NDArray[Any] = random.multinomial(count, shares, size=draws)
        self._count = count
        self._is_enough = count >= least

    def sums(self, rows: Floats) -> Floats:
        """Totals (draws, ...) of per-product rows (n, ...)."""
        grouped = np.zeros((self._count, *rows.shape[1:]))
        np.add.at(grouped, self._group, rows)
        flat = self.weights @ grouped.reshape(self._count, -1)
        sums: Floats = flat.reshape(len(self.weights), *rows.shape[1:])
        return sums

    def interval(self, rows: Floats, figure: Callable[[Floats], Any]) -> Interval:
        """A figure of summed rows, such as `f1` of counts."""
        return self._interval(float(figure(rows.sum(axis=0))), figure(self.sums(rows)))

    def difference(self, a: Floats, b: Floats, figure: Callable[[Floats], Any]) -> Interval:
        """The figure of `a` less that of `b`, paired by product."""
        value = float(figure(a.sum(axis=0)) - figure(b.sum(axis=0)))
        return self._interval(value, figure(self.sums(a)) - figure(self.sums(b)))

    def mean(self, values: Floats) -> Interval:
        """The mean of one value a product."""
        rows = np.stack([values, np.ones_like(values)], axis=1)
        return self.interval(rows, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1e-12))

    def macro(self, kept: Items, gold: Items) -> Interval:
        """The mean over tags, each that is in gold or kept, of the tag's F1."""
        cells, tags = _tag_cells(kept, gold)
        if not tags:
            return Interval(0.0, 0.0, 0.0)
        from scipy.sparse import coo_matrix

        sums = []
        some = self.weights[:_MACRO_DRAWS]
        whole = []
        for kind in range(3):
            rows, columns = cells[kind]
            where = (self._group[rows], columns)
            table = coo_matrix((np.ones(len(rows)), where), (self._count, tags)).tocsr()
            sums.append(some @ table)
            whole.append(np.asarray(table.sum(axis=0)).ravel())
        drawn, all_ = np.stack(sums, axis=-1), np.stack(whole, axis=-1)
        present = drawn[..., 1] + drawn[..., 2] > 0
        means = (f1(drawn) * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
        return self._interval(float(f1(all_).mean()), means)

    def _interval(self, value: float, drawn: Floats) -> Interval:
        if not self._is_enough:
            return Interval(value, math.nan, math.nan)
        low, high = np.percentile(drawn, [2.5, 97.5])
        return Interval(value, float(low), float(high))


def _tag_cells(kept: Items, gold: Items) -> tuple[list[tuple[Any, Any]], int]:
    number: dict[str, int] = {}
    cells: list[tuple[list[int], list[int]]] = [([], []), ([], []), ([], [])]
    for row, (k, g) in enumerate(zip(kept, gold, strict=True)):
        for kind, items in enumerate((set(k) & set(g), set(k), set(g))):
            for item in items:
                cells[kind][0].append(row)
                cells[kind][1].append(number.setdefault(item, len(number)))
    return [(np.array(r, dtype=int), np.array(c, dtype=int)) for r, c in cells], len(number)


def keep(scores: Scores, threshold: float) -> list[frozenset[str]]:
    """The items that score `threshold` or more."""
    return [frozenset(i for i, s in each.items() if s >= threshold) for each in scores]


def best_threshold(scores: Scores, gold: Items) -> float:
    """The threshold of the highest micro-F1; ties go to the higher one, no scores give 1."""
    values, right = _judged(scores, gold)
    return best_cut(values, right, sum(len(set(g)) for g in gold))[0] if len(values) else 1.0


def best_cut(scores: Floats, right: NDArray[np.bool_], gold: int) -> tuple[float, float]:
    """Of one item or more, the threshold of the highest micro-F1, and that F1; `gold` counts all.

    It stands half way to the next score, so that a score a little lower is still kept.
    """
    order = np.argsort(-scores, kind="stable")
    values, hits = scores[order], np.cumsum(right[order])
    figures = 2 * hits / (np.arange(1, len(order) + 1) + gold)
    ends = last_of_equals(values)
    at = int(ends[figures[ends].argmax()])
    below = values[at + 1] if at + 1 < len(values) else 0.0
    middle = (values[at] + below) / 2
    return float(middle if 0 < below < middle else values[at]), float(figures[at])


def last_of_equals(values: Floats) -> NDArray[np.int64]:
    """The last position of each run of equal values: a threshold keeps all of a run, or none."""
    return np.append(np.flatnonzero(np.diff(values)), len(values) - 1)


def _judged(scores: Scores, gold: Items) -> tuple[Floats, NDArray[np.bool_]]:
    """All scores, the highest first, and whether each is of a right item."""
    flat = sorted(
        ((s, i in g) for each, g in zip(scores, gold, strict=True) for i, s in each.items()),
        reverse=True,
    )
    return np.array([s for s, _ in flat]), np.array([right for _, right in flat], dtype=bool)


def precision_at(scores: Scores, gold: Items, k: int) -> float:
    """Mean over products of the share of right items among the k best."""
    shares = [
        sum(item in g for item in _top(each, k)) / k for each, g in zip(scores, gold, strict=True)
    ]
    return float(np.mean(shares)) if shares else 0.0


def rp_at(scores: Scores, gold: Items, k: int) -> float:
    """R-precision at k (Chalkidis et al., 2019): right among the k best, over min(k, gold)."""
    shares = [
        sum(item in g for item in _top(each, k)) / min(k, len(set(g)))
        for each, g in zip(scores, gold, strict=True)
        if g
    ]
    return float(np.mean(shares)) if shares else 0.0


def _top(scores: Mapping[str, float], k: int) -> list[str]:
    return sorted(scores, key=lambda item: (-scores[item], item))[:k]


def curve_points(scores: Scores, gold: Items, points: int = 60) -> list[dict[str, float]]:
    """Precision and recall as the threshold falls."""
    values, right = _judged(scores, gold)
    total = sum(len(set(g)) for g in gold)
    if not len(values) or not total:
        return []
    hits = np.cumsum(right)
    ends = last_of_equals(values)
    places = ends[np.unique(np.linspace(0, len(ends) - 1, points).astype(int))]
    return [
        {
            "threshold": float(values[at]),
            "precision": float(hits[at] / (at + 1)),
            "recall": float(hits[at] / total),
        }
        for at in places
    ]


def calibration_bins(scores: Scores, gold: Items, bins: int = 10) -> list[dict[str, float]]:
    """Bins of about equal counts over the scores that are shown, from low to high."""
    values, right = (each[::-1] for each in _judged(scores, gold))
    values, right = values[values >= SHOWN], right[values >= SHOWN]
    parts = np.array_split(values, min(bins, max(len(values), 1)))
    starts = [part[0] for part in parts if len(part)]
    cuts = np.unique(np.searchsorted(values, starts))  # equal ones together
    return [
        {
            "low": float(held[0]),
            "high": float(held[-1]),
            "mean_score": float(held.mean()),
            "right": float(hits.mean()),
            "count": len(held),
        }
        for held, hits in zip(np.split(values, cuts), np.split(right, cuts), strict=True)
        if len(held)
    ]


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: the mean gap between score and share right, by bin size."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["mean_score"] - b["right"]) for b in bins) / max(total, 1)


def wilson_low(right: float, count: float, z: float = 1.96) -> float:
    """The lower end of Wilson's score interval (1927) for a share; 0 without observations."""
    if count <= 0:
        return 0.0
    share = right / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - spread) / (1 + z * z / count))


def per_tag(kept: Items, gold: Items) -> list[dict[str, Any]]:
    """A row a tag, the most frequent first."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for k, g in zip(kept, gold, strict=True):
        for item in set(k):
            found[item]["kept"] += 1
            found[item]["right"] += item in g
        for item in set(g):
            found[item]["support"] += 1
    rows = []
    for tag, seen in found.items():
        row = np.array([seen["right"], seen["kept"], seen["support"]], dtype=float)
        rows.append(
            {
                "tag": tag,
                "support": seen["support"],
                "kept": seen["kept"],
                "right": seen["right"],
                "precision": share(seen["right"], seen["kept"]),
                "recall": share(seen["right"], seen["support"]),
                "f1": float(f1(row)),
            }
        )
    return sorted(rows, key=lambda row: (-row["support"], -row["kept"], row["tag"]))


def extractgpt(kept: Items, gold: Items, absent: Items) -> dict[str, float]:
    """ExtractGPT's metric (Brinkmann et al., 2024): attributes that gold does not list are ignored.

    For each attribute of a product's gold: right (a predicted value is among gold's), wrong, or
    none predicted; for each of `absent`, keys known to have no value: whether one was predicted.
    """
    right = wrong = missing = invented = 0
    for k, g, none in zip(kept, gold, absent, strict=True):
        wanted, said = _by_key(g), _by_key(k)
        invented += sum(key in said for key in set(none) - wanted.keys())
        for key, values in wanted.items():
            if key not in said:
                missing += 1
            elif said[key] & values:
                right += 1
            else:
                wrong += 1
    p, r = right / max(right + wrong + invented, 1), right / max(right + missing + wrong, 1)
    return {"precision": p, "recall": r, "f1": 2 * p * r / max(p + r, 1e-12)}


def _by_key(items: Collection[str]) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        key, equals, value = item.partition("=")
        if equals:
            found[key].add(value)
    return dict(found)
