"""Metrics: each against a count by hand, a naive loop, or another library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from llmtagger.evaluation import metrics
from llmtagger.evaluation.metrics import Bootstrap, Floats

Sets = list[frozenset[str]]
Scored = list[dict[str, float]]

KEPT: Sets = [frozenset("ab"), frozenset("c"), frozenset(), frozenset("xyz")]
GOLD: Sets = [frozenset("bc"), frozenset("c"), frozenset(), frozenset("a")]

ITEMS = st.frozensets(st.sampled_from("abcde"))
PAIRS = st.lists(st.tuples(ITEMS, ITEMS), min_size=1, max_size=8)
COARSE = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)
SCORED = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abcde"), COARSE), ITEMS), min_size=1, max_size=6
)


def _sides(pairs: Sequence[tuple[Any, frozenset[str]]]) -> tuple[Any, Sets]:
    return [one for one, _ in pairs], [other for _, other in pairs]


def test_counts_by_hand() -> None:
    """Right, kept, gold; 2 right of 6 kept and of 4 in gold."""
    each = metrics.counts(KEPT, GOLD)
    assert each.tolist() == [[1, 2, 2], [1, 1, 1], [0, 0, 0], [0, 3, 1]]
    totals = each.sum(axis=0)
    assert metrics.precision(totals) == pytest.approx(2 / 6)
    assert metrics.recall(totals) == pytest.approx(2 / 4)
    assert metrics.f1(totals) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert metrics.product_f1(each) == pytest.approx([0.5, 1.0, 1.0, 0.0])
    assert metrics.counts([["a", "a", "b"]], [["a", "a"]]).tolist() == [[1, 2, 1]]
    assert metrics.counts([], []).shape == (0, 3)


@pytest.mark.parametrize("figure", [metrics.precision, metrics.recall, metrics.f1])
def test_nothing_divided_by_nothing_is_nothing(figure: Any) -> None:
    assert figure(np.zeros(3)) == 0
    assert figure(np.array([[0.0, 2, 0], [0, 0, 2]])).tolist() == [0, 0]


def test_the_sides_must_be_as_long() -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics.counts(KEPT, GOLD[:-1])


@given(PAIRS)
def test_micro_f1_is_that_of_scikit_learn(
    pairs: list[tuple[frozenset[str], frozenset[str]]],
) -> None:
    kept, gold = _sides(pairs)
    found = metrics.f1(metrics.counts(kept, gold).sum(axis=0))
    assert found == pytest.approx(_sklearn(kept, gold, "micro"))


@given(PAIRS)
def test_macro_f1_is_that_of_scikit_learn(
    pairs: list[tuple[frozenset[str], frozenset[str]]],
) -> None:
    kept, gold = _sides(pairs)
    boot = Bootstrap(range(len(pairs)), seed=0, draws=5)
    assert boot.macro(kept, gold).value == pytest.approx(_sklearn(kept, gold, "macro"))


def _sklearn(kept: Sets, gold: Sets, average: str) -> float:
    tags = sorted(set().union(*kept, *gold))
    if not tags:
        return 0.0
    table = MultiLabelBinarizer(classes=tags).fit([tags])
    wanted, said = table.transform(gold), table.transform(kept)
    if len(tags) == 1:  # a single column would be read as yes or no
        average = "binary"
    return float(f1_score(wanted, said, average=average, zero_division=0))


def _clustered(rng: np.random.Generator, count: int, size: int) -> tuple[Floats, list[int]]:
    """Values that are equal within a group."""
    values = np.repeat(rng.normal(size=count), size)
    return values, np.repeat(np.arange(count), size).tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 9))
def test_a_draw_sums_whole_groups(groups: list[int], seed: int) -> None:
    boot = Bootstrap(groups, seed=seed, draws=4)
    rows: Floats = np.square(np.arange(2.0 * len(groups)).reshape(-1, 2))
    known = sorted(set(groups))
    assert boot.weights.shape == (4, len(known))
    assert (boot.weights.sum(axis=1) == len(known)).all()
    for draw, found in zip(boot.weights.tolist(), boot.sums(rows), strict=True):
        naive = np.zeros(2)
        for times, group in zip(draw, known, strict=True):
            for row, own in zip(rows, groups, strict=True):
                naive += times * row * (own == group)
        assert found == pytest.approx(naive)


def test_draws_are_as_likely_as_they_should_be() -> None:
    """All 27 ways to draw 3 groups of 3, against the shares of 20 000 draws."""
    boot = Bootstrap([5, 5, 7, 9], seed=1, draws=20_000)
    ways = [tuple(np.bincount(way, minlength=3)) for way in itertools.product(range(3), repeat=3)]
    for kind in set(ways):
        share = (boot.weights == kind).all(axis=1).mean()
        assert share == pytest.approx(ways.count(kind) / 27, abs=0.015)


def test_an_interval_is_that_of_every_possible_draw() -> None:
    """The 4**4 draws of 4 groups, one of two products, each with its mean."""
    values, groups = np.array([1.0, 2.0, 4.0, 8.0, 3.0]), [0, 1, 2, 3, 3]
    means = []
    for way in itertools.product(range(4), repeat=4):
        drawn = [v for group in way for v, own in zip(values, groups, strict=True) if own == group]
        means.append(np.mean(drawn))
    low, high = np.percentile(means, [2.5, 97.5])
    found = Bootstrap(groups, seed=3, draws=40_000, least=1).mean(values)
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.1)


def test_an_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=60)
    found = Bootstrap(range(60), seed=1, draws=4000).mean(values)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.03)
    assert found.high == pytest.approx(theirs.high, abs=0.03)


def test_the_same_seed_draws_the_same() -> None:
    values = np.random.default_rng(0).normal(size=30)
    one, same, other = (Bootstrap(range(30), seed=seed).mean(values) for seed in (1, 1, 2))
    assert one == same
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)
    assert one.low < one.value < one.high


@pytest.mark.parametrize(("groups", "known"), [(9, False), (10, True)])
def test_a_handful_of_equal_products_is_not_certain(groups: int, known: bool) -> None:
    """Two siblings a group; all are right, so every draw is the same."""
    boot = Bootstrap([at // 2 for at in range(2 * groups)], seed=0)
    right = np.ones((2 * groups, 3))
    perfect = [frozenset("a")] * (2 * groups)
    for found in (
        boot.interval(right, metrics.f1),
        boot.difference(right, 0 * right, metrics.f1),
        boot.mean(np.ones(2 * groups)),
        boot.macro(perfect, perfect),
    ):
        assert found.value == pytest.approx(1.0)
        assert found.is_known is known
        ends = pytest.approx(1.0) if known else None
        assert found.record() == {"value": pytest.approx(1.0), "low": ends, "high": ends}


def test_siblings_widen_the_interval() -> None:
    """Ten equal siblings tell as much as one: the interval is √10 times as wide."""
    values, groups = _clustered(np.random.default_rng(0), count=40, size=10)
    clustered = Bootstrap(groups, seed=0, draws=4000).mean(values)
    alone = Bootstrap(range(len(values)), seed=0, draws=4000).mean(values)
    ratio = (clustered.high - clustered.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)
    names = [f"{group * 7 - 3}" for group in groups]  # what groups are called does not matter
    numbers = [int(name) for name in names]
    assert Bootstrap(numbers, seed=0, draws=4000).mean(values) == clustered


def test_a_difference_is_paired() -> None:
    """Every product gains as much, so that nothing is left to chance."""
    each = np.array([[1.0, 4, 4], [3, 4, 4], [0, 4, 4], [2, 4, 4]])
    better = each + np.array([1.0, 0, 0])
    found = Bootstrap(range(4), seed=0, least=1).difference(better, each, metrics.f1)
    assert found.record() == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})
    back = Bootstrap(range(4), seed=0, least=1).difference(each, better, metrics.f1)
    assert back.value == pytest.approx(-0.25)


@given(PAIRS, st.integers(0, 5))
def test_macro_is_a_mean_over_the_tags_that_were_drawn(
    pairs: list[tuple[frozenset[str], frozenset[str]]], seed: int
) -> None:
    kept, gold = _sides(pairs)
    groups = [at // 2 for at in range(len(pairs))]
    boot = Bootstrap(groups, seed=seed, draws=7, least=1)
    figures = []
    for draw in boot.weights.tolist():
        rows = [at for at, group in enumerate(groups) for _ in range(draw[group])]
        figures.append(_naive_macro([kept[at] for at in rows], [gold[at] for at in rows]))
    low, high = np.percentile(figures, [2.5, 97.5])
    found = boot.macro(kept, gold)
    assert found.value == pytest.approx(_naive_macro(kept, gold))
    assert [found.low, found.high] == pytest.approx([low, high])


def _naive_macro(kept: Sets, gold: Sets) -> float:
    tags = set().union(*kept, *gold)
    figures = []
    for tag in tags:
        hits = sum(tag in k and tag in g for k, g in zip(kept, gold, strict=True))
        misses = sum((tag in k) != (tag in g) for k, g in zip(kept, gold, strict=True))
        figures.append(2 * hits / (2 * hits + misses))
    return sum(figures) / len(figures) if figures else 0.0


def _f1_at(scores: Scored, gold: Sets, threshold: float) -> float:
    """By hits, false alarms and misses, product by product."""
    hits = wrong = missed = 0
    for each, wanted in zip(scores, gold, strict=True):
        kept = {item for item, score in each.items() if score >= threshold}
        hits, wrong, missed = (
            hits + len(kept & wanted),
            wrong + len(kept - wanted),
            missed + len(wanted - kept),
        )
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


NEXT = math.nextafter(0.5, 1)


@given(SCORED)
@example([({"a": NEXT, "b": 0.5}, frozenset("a"))])
@example([({"a": 0.5, "b": 0.5}, frozenset("a")), ({"c": 0.0}, frozenset("c"))])
def test_the_best_threshold_is_the_best(
    pairs: list[tuple[dict[str, float], frozenset[str]]],
) -> None:
    scores, gold = _sides(pairs)
    found = metrics.best_threshold(scores, gold)
    values = sorted({score for each in scores for score in each.values()})
    figures = {value: _f1_at(scores, gold, value) for value in values}
    assert _f1_at(scores, gold, found) == pytest.approx(max(figures.values(), default=0.0))
    kept = metrics.keep(scores, found)
    attained = metrics.f1(metrics.counts(kept, gold).sum(axis=0))
    assert attained == pytest.approx(_f1_at(scores, gold, found))
    if values:  # of several that are as good, it keeps the fewest
        most = max(figures.values())
        highest = max(value for value in values if figures[value] == pytest.approx(most))
        assert kept == metrics.keep(scores, highest)


def test_a_threshold_stands_half_way_to_the_next_score() -> None:
    scores = [{"a": 0.9, "b": 0.5, "c": 0.2}]
    assert metrics.best_threshold(scores, [frozenset("ab")]) == pytest.approx(0.35)
    assert metrics.best_threshold(scores, [frozenset("abc")]) == pytest.approx(0.2)
    assert metrics.best_threshold([{}, {}], [frozenset("a"), frozenset()]) == 1.0
    assert metrics.best_threshold([], []) == 1.0


RANKED: Scored = [
    {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6},
    {"b": 0.5, "a": 0.5, "c": 0.4},
    {},
    {"z": 0.3},
]
WANTED: Sets = [frozenset("acd"), frozenset("b"), frozenset("a"), frozenset()]


@pytest.mark.parametrize(
    ("k", "share"),
    [
        pytest.param(1, (1 + 0 + 0 + 0) / 4, id="equals-go-by-name"),
        pytest.param(2, (1 / 2 + 1 / 2 + 0 + 0) / 4, id="two"),
        pytest.param(3, (2 / 3 + 1 / 3 + 0 + 0) / 4, id="three"),
    ],
)
def test_precision_at(k: int, share: float) -> None:
    assert metrics.precision_at(RANKED, WANTED, k) == pytest.approx(share)


@pytest.mark.parametrize(
    ("k", "share"),
    [
        pytest.param(1, (1 + 0 + 0) / 3, id="over-one"),
        pytest.param(2, (1 / 2 + 1 + 0) / 3, id="over-at-most-two"),
        pytest.param(5, (3 / 3 + 1 + 0) / 3, id="over-all-gold"),
    ],
)
def test_rp_at_leaves_out_products_without_gold(k: int, share: float) -> None:
    assert metrics.rp_at(RANKED, WANTED, k) == pytest.approx(share)


def test_ranks_of_nothing() -> None:
    assert metrics.precision_at([], [], 3) == 0.0
    assert metrics.rp_at([{"a": 1.0}], [frozenset()], 3) == 0.0


def test_curve_points_by_hand() -> None:
    scores = [{"a": 0.9, "b": 0.7}, {"a": 0.8, "c": 0.6}]
    gold = [frozenset("ab"), frozenset("cd")]
    assert metrics.curve_points(scores, gold) == [
        {"threshold": 0.9, "precision": 1.0, "recall": 0.25},
        {"threshold": 0.8, "precision": 0.5, "recall": 0.25},
        {"threshold": 0.7, "precision": pytest.approx(2 / 3), "recall": 0.5},
        {"threshold": 0.6, "precision": 0.75, "recall": 0.75},
    ]
    assert metrics.curve_points([{}], [frozenset("a")]) == []
    assert metrics.curve_points(scores, [frozenset(), frozenset()]) == []


@given(SCORED, st.integers(2, 9))
def test_a_curve_point_is_what_its_threshold_keeps(
    pairs: list[tuple[dict[str, float], frozenset[str]]], points: int
) -> None:
    scores, gold = _sides(pairs)
    found = metrics.curve_points(scores, gold, points)
    values = {score for each in scores for score in each.values()}
    assert len(found) == (min(points, len(values)) if any(gold) else 0)
    assert not found or found[-1]["threshold"] == min(values)
    for point in found:
        totals = metrics.counts(metrics.keep(scores, point["threshold"]), gold).sum(axis=0)
        assert point["precision"] == pytest.approx(metrics.precision(totals))
        assert point["recall"] == pytest.approx(metrics.recall(totals))


def test_calibration_by_hand() -> None:
    """Two bins of two; the .01 is shown to nobody. |.3 - .5| and |.8 - 1|, equally many."""
    scores = [{"a": 0.2, "b": 0.9, "z": 0.01}, {"a": 0.4, "b": 0.7}]
    gold = [frozenset("bz"), frozenset("ab")]
    bins = metrics.calibration_bins(scores, gold, bins=2)
    assert bins == [
        {"low": 0.2, "high": 0.4, "mean_score": pytest.approx(0.3), "right": 0.5, "count": 2},
        {"low": 0.7, "high": 0.9, "mean_score": pytest.approx(0.8), "right": 1.0, "count": 2},
    ]
    assert metrics.calibration_error(bins) == pytest.approx(0.2)
    assert metrics.calibration_error(
        [
            {"count": 3, "mean_score": 0.5, "right": 0.4},
            {"count": 1, "mean_score": 0.9, "right": 0.5},
        ]
    ) == pytest.approx((3 * 0.1 + 0.4) / 4)
    assert metrics.calibration_bins([{}], [frozenset()]) == []
    assert metrics.calibration_error([]) == 0.0


def test_equal_scores_are_in_one_bin() -> None:
    """Half of forty are right, as .5 says: nothing to complain of."""
    scores = [{f"{at}": 0.5 for at in range(40)}]
    bins = metrics.calibration_bins(scores, [frozenset(f"{at}" for at in range(20))])
    assert [(b["count"], b["right"]) for b in bins] == [(40, 0.5)]
    assert metrics.calibration_error(bins) == 0.0


@given(SCORED, st.integers(1, 5))
def test_bins_hold_every_shown_score_once(
    pairs: list[tuple[dict[str, float], frozenset[str]]], bins: int
) -> None:
    scores, gold = _sides(pairs)
    shown = sorted(s for each in scores for s in each.values() if s >= 0.02)
    found = metrics.calibration_bins(scores, gold, bins)
    assert len(found) <= bins
    assert sum(b["count"] for b in found) == len(shown)
    for one, after in itertools.pairwise(found):
        assert one["high"] < after["low"]
    for one in found:
        held = [
            (s, item in wanted)
            for each, wanted in zip(scores, gold, strict=True)
            for item, s in each.items()
            if one["low"] <= s <= one["high"]
        ]
        assert one["count"] == len(held)
        assert one["mean_score"] == pytest.approx(np.mean([s for s, _ in held]))
        assert one["right"] == pytest.approx(np.mean([right for _, right in held]))
    if len(set(shown)) == len(shown) and shown:
        sizes = [b["count"] for b in found]
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from([0.9, 0.95, 0.98]))
def test_wilsons_bound_is_that_of_scipy(count: int, right: int, confidence: float) -> None:
    right = min(right, count)
    theirs = stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    z = stats.norm.ppf((1 + confidence) / 2)
    assert metrics.wilson_low(right, count, z) == pytest.approx(theirs.low, abs=1e-12)


def test_wilsons_bound_of_nothing() -> None:
    assert metrics.wilson_low(0, 0) == 0.0
    assert metrics.wilson_low(1, 1) == pytest.approx(1 / (1 + 1.96**2))


def test_a_row_for_each_tag() -> None:
    rows = metrics.per_tag(
        [frozenset("ab"), frozenset("a"), frozenset("b")],
        [frozenset("a"), frozenset("ac"), frozenset("a")],
    )
    assert [(r["tag"], r["support"], r["kept"], r["right"]) for r in rows] == [
        ("a", 3, 2, 2),
        ("c", 1, 0, 0),
        ("b", 0, 2, 0),
    ]
    assert [(r["precision"], r["recall"]) for r in rows] == [
        (1.0, pytest.approx(2 / 3)),
        (None, 0.0),  # never kept
        (0.0, None),  # never right
    ]
    assert [r["f1"] for r in rows] == pytest.approx([0.8, 0.0, 0.0])
