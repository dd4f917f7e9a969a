"""Fits the learned scorer: from signals that were computed without the product's own help.

signals of labelled products ─ fit_logistic ─▶ weights ─ offsets ─▶ tags' own thresholds
                             ─ cross-validated scores ─▶ threshold, promises, calibration error
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger.calibration import Fitted, Promise
from llmtagger.datatypes import TaggedProduct
from llmtagger.evaluation import metrics
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.metrics import Floats
from llmtagger.evaluation.splitting import folds
from llmtagger.stages.scoring import MODEL, WARM, Bend, Weights, curve

# A signal counts as it is; these also by their curve.
STRAIGHT = (
    *("vote", "lexical_vote", "name_similarity", "name_lexical", "literal", "trust", "extracted"),
    *("misspelt", "linear", "rival", "prior", "support"),
)
CURVED = ("vote", "lexical_vote", "name_lexical", "trust", "extracted", "linear", "rival")
_PULLS = (1.0, 10.0, 100.0)  # towards the default weights that are tried, the first if rows abound
_MANY_ROWS = 20_000
_SPREADS = (0.0, 0.1, 0.3, 1.0)  # variances of tags' offsets that are tried
_FOLDS = 5
_ROUNDS = 30  # of Newton's method; it ends when nothing moves
_FLATTEST = 0.01  # slope of a bend: it must not turn the order of scores around
_ONE_SIDED = 2.326  # 99 %: the lowest of many scores is picked, which flatters it
_TABLE = 400  # entries of the table of promises


@dataclass(frozen=True, slots=True)
class Table:
    """Every scored candidate of some products as a row.

    `values` (n, signals) in the order of `names`, `right` (n,), `product` (n,) a position in
    `gold`, the number of gold items of each product; `groups` has a number for each product.
    """

    names: tuple[str, ...]
    values: Floats
    right: NDArray[np.bool_]
    product: NDArray[np.int64]
    tags: tuple[str, ...]
    keys: tuple[str, ...]
    gold: NDArray[np.int64]
    groups: NDArray[np.int64]


def table_of(results: Sequence[TaggedProduct], judge: Judge, groups: Sequence[int]) -> Table:
    """The rows of labelled products' results.

    Unjudged candidates are left out, and of several that are one item all but the best.
    """
    names = (*STRAIGHT, *MODEL)
    values, right, product, tags, keys, gold = [], [], [], [], [], []
    for at, tagged in enumerate(results):
        wanted = judge.gold(tagged.product)
        gold.append(len(wanted))
        seen: set[str] = set()
        for scored in tagged.scored.items:
            item = judge.item(tagged.product, scored.tag.name)
            if item is not None and item not in seen and not scored.evidence.new:
                seen.add(item)
                values.append([scored.evidence.signals[name] for name in names])
                right.append(item in wanted)
                product.append(at)
                tags.append(scored.tag.id)
                keys.append(scored.tag.key or "")
    return Table(
        names,
        np.array(values, dtype=float).reshape(-1, len(names)),
        np.array(right, dtype=bool),
        np.array(product, dtype=np.int64),
        tuple(tags),
        tuple(keys),
        np.array(gold, dtype=np.int64),
        np.asarray(groups, dtype=np.int64),
    )


def fit_logistic(
    x: Floats, right: NDArray[np.bool_], start: Floats | None = None, *, pull: float = 1.0
) -> Floats:
    """Weights (d + 1,), the bias last: penalised maximum likelihood by Newton's method.

    `start` (n,) are log-odds that the sum is added to. The bias is not penalised.
    """
    rows = np.hstack([x, np.ones((len(x), 1))])
    offset = np.zeros(len(x)) if start is None else start
    penalty = np.diag([pull] * x.shape[1] + [1e-6])
    weights = np.zeros(rows.shape[1])

    def loss(weights: Floats) -> float:
        return _loss(rows @ weights + offset, right) + float(weights @ penalty @ weights) / 2

    for _ in range(_ROUNDS):
        chance = chances(rows @ weights + offset)
        slope = rows.T @ (chance - right) + penalty @ weights
        bend = (rows * (chance * (1 - chance))[:, None]).T @ rows + penalty
        step = np.linalg.solve(bend, slope)
        while np.abs(step).max() >= 1e-6 and loss(weights - step) > loss(weights):
            step /= 2  # far from the best, a whole step of Newton's leads away from it
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def offsets(
    log_odds: Floats, right: NDArray[np.bool_], names: Sequence[str], spread: float
) -> dict[str, float]:
    """What each name adds to the log-odds: the most likely, pulled towards 0 where rows are few.

    A normal prior of variance `spread` around 0; Newton's method for all names side by side.
    """
    if spread <= 0 or not len(right):
        return {}
    unique, place = np.unique(np.array(names), return_inverse=True)
    found = np.zeros(len(unique))
    for _ in range(_ROUNDS):
        chance = chances(log_odds + found[place])
        slope = np.bincount(place, chance - right, len(unique)) + found / spread
        bend = np.bincount(place, chance * (1 - chance), len(unique)) + 1 / spread
        found -= np.clip(slope / bend, -2, 2)
    return {str(n): round(float(v), 4) for n, v in zip(unique, found, strict=True) if abs(v) > 0.01}


def design(table: Table) -> Floats:
    """The signals and their curves, (n, d), in the order that `weights_of` reads."""
    columns = [table.values[:, table.names.index(name)] for name in STRAIGHT]
    columns += [
        np.array([curve(v) if v else 0.0 for v in table.values[:, table.names.index(name)]])
        for name in CURVED
    ]
    return np.stack(columns, axis=1)


def weights_of(fitted: Floats) -> Weights:
    """Weights out of a fit on `design`."""
    curved = dict(zip(CURVED, fitted[len(STRAIGHT) : -1].tolist(), strict=True))
    of = {
        name: (round(float(straight), 4), round(curved.get(name, 0.0), 4))
        for name, straight in zip(STRAIGHT, fitted, strict=False)
    }
    return Weights(round(float(fitted[-1]), 4), of)


def coefficients(weights: Weights) -> Floats:
    """Weights as `design` takes them (d + 1,), the bias last."""
    straight = [weights.of.get(name, (0.0, 0.0))[0] for name in STRAIGHT]
    curved = [weights.of.get(name, (0.0, 0.0))[1] for name in CURVED]
    return np.array([*straight, *curved, weights.bias])


def log_odds_of(weights: Weights, x: Floats, table: Table, rows: NDArray[Any]) -> Floats:
    """The log-odds of some rows, `x` being theirs of `design`."""
    own = [
        weights.tags.get(table.tags[at], 0.0) + weights.keys.get(table.keys[at], 0.0)
        for at in rows.tolist()
    ]
    each = coefficients(weights)
    return bent(weights.bend, x @ each[:-1] + each[-1] + np.array(own))


def with_offsets(
    base: Weights, log_odds: Floats, table: Table, rows: NDArray[Any], spread: float
) -> Weights:
    """Weights of signals, completed by what keys add, then by what tags add, seen in some rows."""
    keys = _offsets_at(log_odds, table, rows, table.keys, spread)
    log_odds = log_odds + np.array([keys.get(table.keys[at], 0.0) for at in rows.tolist()])
    tags = _offsets_at(log_odds, table, rows, table.tags, spread)
    return Weights(base.bias, base.of, tags, keys)


def _offsets_at(
    log_odds: Floats, table: Table, rows: NDArray[Any], names: Sequence[str], spread: float
) -> dict[str, float]:
    found = offsets(log_odds, table.right[rows], [names[at] for at in rows.tolist()], spread)
    found.pop("", None)  # tags without a key have nothing in common
    return found


@dataclass(frozen=True, slots=True)
class Strength:
    """How hard weights are pulled towards the defaults, and how far tags' offsets may spread."""

    pull: float = 1.0
    spread: float = 0.0


def fit_signals(x: Floats, right: NDArray[np.bool_], pull: float) -> Floats:
    """Weights (d + 1,) for rows of `design`, pulled towards the default ones."""
    default = coefficients(WARM)
    start = x @ default[:-1] + default[-1]
    return default + fit_logistic(x, right, start, pull=pull)


def cross_scored(table: Table, *, seed: int = 0) -> tuple[Floats, Strength]:
    """Log-odds of every row by weights that were fitted without its group, and the best strength.

    Strengths are compared by the likelihood of rows left out: the pull first, then the spread.
    """
    x = design(table)
    if len(np.unique(table.groups)) < _FOLDS:
        return x @ coefficients(WARM)[:-1] + WARM.bias, Strength(max(_PULLS))
    fold = folds(table.groups, _FOLDS, seed)[table.product]
    parts = [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(_FOLDS)]

    def scored(strength: Strength, fits: Sequence[Floats]) -> Floats:
        log_odds = np.zeros(len(x))
        for (rest, part), found in zip(parts, fits, strict=True):
            seen = x[rest] @ found[:-1] + found[-1]
            weights = with_offsets(weights_of(found), seen, table, rest, strength.spread)
            log_odds[part] = log_odds_of(weights, x[part], table, part)
        return log_odds

    tried = []
    for pull in _PULLS if len(x) < _MANY_ROWS else _PULLS[:1]:
        fits = [fit_signals(x[rest], table.right[rest], pull) for rest, _ in parts]
        strength = Strength(pull)
        tried.append((_loss(scored(strength, fits), table.right), pull, fits))
    _, pull, fits = min(tried, key=lambda each: each[:2])
    found = {Strength(pull, spread): scored(Strength(pull, spread), fits) for spread in _SPREADS}
    best = min(found, key=lambda strength: _loss(found[strength], table.right))
    return found[best], best


def carried_over(log_odds: Floats, known: Table, table: Table, weights: Weights) -> Floats:
    """The log-odds of `known` rows for the same products' rows in `table`.

    Both count the same products in the same order. Rows that only `table` has, which the model
    brought up, get what the weights say.
    """
    by_row = dict(zip(zip(known.product.tolist(), known.tags, strict=True), log_odds, strict=True))
    fresh = log_odds_of(weights, design(table), table, np.arange(len(table.right)))
    rows = zip(table.product.tolist(), table.tags, fresh.tolist(), strict=True)
    return np.array([by_row.get((product, tag), score) for product, tag, score in rows])


def _loss(log_odds: Floats, right: NDArray[np.bool_]) -> float:
    """The negative log-likelihood."""
    return float(np.logaddexp(0, np.where(right, -log_odds, log_odds)).sum())


def fit(table: Table, *, seed: int = 0) -> tuple[Fitted, Floats]:
    """The learned scorer, and the cross-validated log-odds of every row.

    Offsets fitted to few rows make scores too sure of themselves, and a sum of signals may not
    grow as log-odds do, so the sum is bent to what the rows left out say.
    """
    log_odds, strength = cross_scored(table, seed=seed)
    x, rows = design(table), np.arange(len(table.right))
    found = fit_signals(x, table.right, strength.pull)
    seen = x @ found[:-1] + found[-1]
    weights = with_offsets(weights_of(found), seen, table, rows, strength.spread)
    weights = replace(weights, bend=fit_bend(log_odds, table.right))
    log_odds = bent(weights.bend, log_odds)
    return fitted(weights, log_odds, table), log_odds


def fit_bend(log_odds: Floats, right: NDArray[np.bool_]) -> Bend:
    """The bend that makes log-odds likeliest, pulled towards none, with positive slopes."""
    change = fit_logistic(_sides(log_odds), right, log_odds)
    above, below = np.maximum(1 + change[:2], _FLATTEST).tolist()
    level = float(change[2])
    return Bend(round(below, 4), round(above, 4), round(level, 4))


def bent(bend: Bend, log_odds: Floats) -> Floats:
    """`bend` of all log-odds (n,)."""
    changed: Floats = _sides(log_odds) @ [bend.above, bend.below] + bend.level
    return changed


def _sides(log_odds: Floats) -> Floats:
    """What the slopes of a bend count (n, 2): log-odds above 0 and below it, softly parted."""
    return np.stack([np.logaddexp(0, log_odds), -np.logaddexp(0, -log_odds)], axis=1)


def fit_asked(
    table: Table, base: Weights, unasked: Floats, *, seed: int = 0
) -> tuple[Fitted, Floats]:
    """What an answered question adds to log-odds found without it, and the resulting probabilities.

    `unasked` are the cross-validated log-odds of the rows. Only the bias and the model's own
    signals are fitted: answers are dear, and rows few.
    """
    x = table.values[:, [table.names.index(name) for name in MODEL]]
    several = len(np.unique(table.groups)) >= _FOLDS
    fold = folds(table.groups, _FOLDS if several else 1, seed)[table.product]
    log_odds = unasked.copy()
    for number in range(_FOLDS if several else 0):
        rest, part = fold != number, fold == number
        change = fit_logistic(x[rest], table.right[rest], unasked[rest])
        log_odds[part] += x[part] @ change[:-1] + change[-1]
    change = fit_logistic(x, table.right, unasked)
    of = dict(base.of) | {
        name: (round(float(w), 4), 0.0) for name, w in zip(MODEL, change, strict=False)
    }
    bend = replace(base.bend, level=round(base.bend.level + float(change[-1]), 4))
    weights = replace(base, of=of, bend=bend)
    return fitted(weights, log_odds, table), chances(log_odds)


def fitted(weights: Weights, log_odds: Floats, table: Table) -> Fitted:
    """Weights with what their cross-validated scores say of them."""
    chance = chances(log_odds)
    threshold, best = best_cut(chance, table)
    scores = [dict[str, float]() for _ in table.gold]
    gold = [set[str]() for _ in table.gold]
    for at, (product, score) in enumerate(zip(table.product.tolist(), chance, strict=True)):
        scores[product][str(at)] = float(score)
        if table.right[at]:
            gold[product].add(str(at))
    return Fitted(
        bias=weights.bias,
        of=dict(weights.of),
        tags=dict(weights.tags),
        keys=dict(weights.keys),
        bend=astuple(weights.bend),
        threshold=threshold,
        f1=best,
        calibration_error=metrics.calibration_error(metrics.calibration_bins(scores, gold)),
        promises=promises(chance, table),
    )


def best_cut(chance: Floats, table: Table) -> tuple[float, float]:
    """The threshold of the highest micro-F1 over all gold, and that F1."""
    if not len(chance):
        return 0.5, 0.0
    return metrics.best_cut(chance, table.right, int(table.gold.sum()))


def promises(chance: Floats, table: Table) -> list[Promise]:
    """How precise the tags from each score on are, with a lower bound.

    Tags of one product are right or wrong together, so the variance of the precision is taken
    over groups (ratio estimator; Cochran 1977, 6.4), and Wilson's bound over as many independent
    tags as have that variance.
    """
    order = np.argsort(-chance, kind="stable")
    order = order[chance[order] >= metrics.SHOWN]
    group = np.unique(table.groups, return_inverse=True)[1][table.product]
    found = []
    ends = metrics.last_of_equals(chance[order]) + 1
    places = np.linspace(0, len(ends) - 1, _TABLE).astype(int)
    for size in ends[np.unique(places)].tolist() if len(order) else []:
        kept = order[:size]
        right = int(table.right[kept].sum())
        share = right / size
        gaps = np.bincount(group[kept], table.right[kept] - share)
        spread = float((gaps**2).sum()) / size**2
        alike = share * (1 - share) / spread if spread > 0 else len(np.unique(group[kept]))
        count = min(float(size), alike)
        lower = metrics.wilson_low(share * count, count, _ONE_SIDED)
        found.append(Promise(score=float(chance[kept[-1]]), kept=size, right=right, lower=lower))
    return found


def chances(log_odds: Floats) -> Floats:
    """Probabilities of log-odds."""
    found: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -35, 35)))
    return found
