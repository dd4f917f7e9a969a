"""Fitting: what was planted is found, nothing is learnt from a product's own group."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from llmtagger.calibration import Fitted
from llmtagger.datatypes import Evidence, Product, ScoredTag, ScoredTags, Tag, TaggedProduct
from llmtagger.evaluation import fitting, learning, metrics
from llmtagger.evaluation.fitting import CURVED, STRAIGHT, Table
from llmtagger.evaluation.judging import Judge, as_scores, gold_of
from llmtagger.evaluation.metrics import Floats
from llmtagger.evaluation.splitting import folds
from llmtagger.stages.scoring import MODEL, WARM, Bend, Weights, contributions
from llmtagger.vocabulary import Vocabulary

NAMES = (*STRAIGHT, *MODEL)
Bools = NDArray[np.bool_]

# What the simulated world is like: signals with a part to play, tags and a key of their own.
TRUE = Weights(
    -3.0,
    {"vote": (3.0, 0.0), "linear": (0.0, 0.6), "rival": (-1.0, 0.0), "literal": (1.0, 0.0)},
    {f"t{number}": (-1.2, 0.0, 1.2)[number % 3] for number in range(12)},
    {"Color": 0.5},
)


def _world(products: int, seed: int, *, each: int = 6, siblings: int = 2) -> tuple[Table, Floats]:
    """Candidates of products, right with the probability that `TRUE` says, and that as log-odds."""
    random = np.random.default_rng(seed)
    n = products * each
    values = np.zeros((n, len(NAMES)))
    for name in ("vote", "linear", "rival", "prior", "lexical_vote"):
        values[:, NAMES.index(name)] = random.beta(0.6, 1.2, n) * (random.random(n) < 0.8)
    values[:, NAMES.index("literal")] = random.random(n) < 0.3
    tags = tuple(f"t{number}" for number in random.integers(0, 12, n).tolist())
    keys = tuple("Color" if int(tag[1:]) < 6 else "" for tag in tags)
    log_odds = np.array(
        [
            sum(contributions(TRUE, dict(zip(NAMES, row, strict=True)), tag, key).values())
            for row, tag, key in zip(values.tolist(), tags, keys, strict=True)
        ]
    )
    right = random.random(n) < 1 / (1 + np.exp(-log_odds))
    product = np.repeat(np.arange(products), each)
    missed = random.integers(0, 2, products)  # gold that is no candidate
    gold = np.bincount(product, right, products).astype(np.int64) + missed
    groups = np.arange(products) // siblings
    return Table(NAMES, values, right, product, tags, keys, gold, groups), log_odds


@pytest.fixture(scope="module")
def world() -> tuple[Table, Floats]:
    return _world(400, seed=1)


@pytest.fixture(scope="module")
def learnt(world: tuple[Table, Floats]) -> tuple[Fitted, Floats]:
    return fitting.fit(world[0])


def _small(right: list[bool], gold: int = 0, groups: list[int] | None = None) -> Table:
    """A row a product, without signals."""
    n = len(right)
    return Table(
        NAMES,
        np.zeros((n, len(NAMES))),
        np.array(right, dtype=bool),
        np.arange(n),
        tuple(f"t{at}" for at in range(n)),
        ("",) * n,
        np.array([int(each) for each in right[:-1]] + [int(right[-1]) + gold]),
        np.array(groups if groups is not None else range(n)),
    )


@pytest.mark.parametrize("pull", [0.1, 1.0, 20.0])
def test_the_fit_is_that_of_scikit_learn(pull: float) -> None:
    """Both add half a ridge to the loss: C is its inverse. The bias is free in both."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4))
    right = random.random(300) < 1 / (1 + np.exp(-(x @ [2.0, -1.0, 0.5, 0.0] - 1)))
    theirs = LogisticRegression(C=1 / pull, tol=1e-10, max_iter=10_000).fit(x, right)
    found = fitting.fit_logistic(x, right, pull=pull)
    assert found[:-1] == pytest.approx(theirs.coef_[0], abs=1e-3)
    assert found[-1] == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_a_start_is_added_to() -> None:
    """Given the log-odds that a fit found, nothing is left to add; given none, all of it."""
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 2))
    right = random.random(500) < 1 / (1 + np.exp(-(2 * x[:, 0] - 1)))
    found = fitting.fit_logistic(x, right, pull=1e-9)
    again = fitting.fit_logistic(x, right, x @ found[:-1] + found[-1], pull=1e-9)
    assert again == pytest.approx(np.zeros(3), abs=1e-4)
    assert fitting.fit_logistic(x, right, np.zeros(500), pull=1e-9) == pytest.approx(found)


def test_what_separates_perfectly_stays_finite() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    found = fitting.fit_logistic(x, x[:, 0] > 0)
    assert np.isfinite(found).all()
    assert found[0] > 1
    assert fitting.fit_logistic(x[:0], x[:0, 0] > 0) == pytest.approx([0, 0])


def _best_offset(log_odds: Floats, right: Bools, spread: float) -> float:
    def loss(value: float) -> float:
        odds = log_odds + value
        return float(np.logaddexp(0, np.where(right, -odds, odds)).sum() + value**2 / (2 * spread))

    return float(optimize.minimize_scalar(loss, bounds=(-9, 9), method="bounded").x)


@pytest.mark.parametrize("spread", [0.1, 0.3, 1.0])
def test_offsets_are_the_most_likely_ones(spread: float) -> None:
    random = np.random.default_rng(2)
    planted = {"up": 1.5, "down": -1.5, "none": 0.0}
    names = [*("up",) * 200, *("down",) * 200, *("none",) * 200, "once"]
    base = random.normal(size=len(names))
    odds = base + np.array([planted.get(name, 0.0) for name in names])
    right = random.random(len(names)) < 1 / (1 + np.exp(-odds))
    found = fitting.offsets(base, right, names, spread)
    for name in {*names}:
        rows = np.array([each == name for each in names])
        best = _best_offset(base[rows], right[rows], spread)
        assert found.get(name, 0.0) == pytest.approx(
            best, abs=0.0101 if name not in found else 1e-3
        )
    assert found["up"] > 0.5
    assert found["down"] < -0.5


def test_offsets_are_pulled_towards_nothing() -> None:
    """Always right: the more rows say so, the more it adds; and the wider the prior."""
    names = ["few"] * 3 + ["many"] * 300
    base, right = np.zeros(len(names)), np.ones(len(names), dtype=bool)
    narrow, wide = (fitting.offsets(base, right, names, spread) for spread in (0.1, 1.0))
    assert 0 < narrow["few"] < narrow["many"] < wide["many"]
    assert narrow["few"] < wide["few"]
    assert fitting.offsets(base, right, names, 0.0) == {}
    assert fitting.offsets(base[:0], right[:0], [], 1.0) == {}


def test_the_weights_say_what_the_design_says(world: tuple[Table, Floats]) -> None:
    """The scorer adds up one candidate at a time; fitting, a matrix."""
    table = world[0]
    random = np.random.default_rng(3)
    x = fitting.design(table)
    assert x.shape == (len(table.right), len(STRAIGHT) + len(CURVED))
    fit = random.normal(size=x.shape[1] + 1).round(4)
    weights = replace(
        fitting.weights_of(fit),
        tags={"t3": 0.5},
        keys={"Color": -0.25},
        bend=Bend(1.3, 0.4, -0.2),
    )
    rows = np.arange(0, len(table.right), 97)
    found = fitting.log_odds_of(weights, x[rows], table, rows)
    for row, log_odds in zip(rows.tolist(), found, strict=True):
        values = dict(zip(NAMES, table.values[row].tolist(), strict=True))
        parts = contributions(weights, values, table.tags[row], table.keys[row])
        assert log_odds == pytest.approx(sum(parts.values()))


def test_a_bend_is_found_again() -> None:
    """The truth rises steeply below 0 and hardly above it, as no straight stretch could."""
    random = np.random.default_rng(8)
    log_odds = random.normal(-1, 4, 20_000)
    true = Bend(below=1.5, above=0.2, level=0.7)
    right = random.random(20_000) < fitting.chances(fitting.bent(true, log_odds))
    found = fitting.fit_bend(log_odds, right)
    assert found.below == pytest.approx(true.below, abs=0.1)
    assert found.above == pytest.approx(true.above, abs=0.1)
    assert found.level == pytest.approx(true.level, abs=0.1)
    few = fitting.fit_bend(log_odds[:10], right[:10])
    assert abs(few.above - 1) < 1  # with little to go by, it stays near none


def test_a_bend_keeps_the_order_even_of_scores_that_were_upside_down() -> None:
    log_odds = np.linspace(-6, 6, 4000)
    random = np.random.default_rng(9)
    upside_down = random.random(4000) < fitting.chances(-log_odds)
    found = fitting.bent(fitting.fit_bend(log_odds, upside_down), log_odds)
    assert (np.diff(found) > 0).all()


def test_a_group_is_scored_without_itself(
    world: tuple[Table, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the answers of a fold's products, their own held-out scores stay as they are."""
    table = world[0]
    monkeypatch.setattr(fitting, "_SPREADS", (1.0,))
    monkeypatch.setattr(fitting, "_PULLS", (1.0,))
    before, _ = fitting.cross_scored(table)
    group = table.groups[table.product] == 17
    turned = replace(table, right=np.where(group, ~table.right, table.right))
    after, _ = fitting.cross_scored(turned)
    assert (before[group] == after[group]).all()
    same = before == after
    fold = folds(table.groups.tolist(), 5, 0)[table.product]
    assert (same == (fold == fold[group][0])).mean() > 0.99  # all others have learnt from it


def test_a_tag_that_one_group_alone_teaches_is_unknown_to_it(
    world: tuple[Table, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve rows, always right; the weights that saw them know the tag, the held-out ones not."""
    monkeypatch.setattr(fitting, "_SPREADS", (1.0,))
    monkeypatch.setattr(fitting, "_PULLS", (1.0,))
    table = world[0]
    own = table.groups[table.product] == 17
    tags = tuple("planted" if mine else tag for mine, tag in zip(own, table.tags, strict=True))
    planted = replace(
        table,
        tags=tags,
        right=table.right | own,
        values=np.where(own[:, None], 0.0, table.values),
        keys=tuple("" if mine else key for mine, key in zip(own, table.keys, strict=True)),
    )
    held_out, _ = fitting.cross_scored(planted)
    fitted, _ = fitting.fit(planted)
    assert own.sum() == 12
    assert (fitting.chances(held_out[own]) < 0.2).all()
    assert fitted.tags["planted"] > 1.5
    seen = fitting.chances(np.array([fitted.bias + fitted.tags["planted"]]))[0]
    assert seen > fitting.chances(held_out[own]).max() + 0.1


def test_too_few_groups_are_scored_by_the_default_weights(world: tuple[Table, Floats]) -> None:
    table = _small([True, False, True, False], groups=[0, 1, 2, 3])
    table = replace(table, values=world[0].values[:4])
    log_odds, strength = fitting.cross_scored(table)
    for found, row in zip(log_odds, table.values.tolist(), strict=True):
        values = dict(zip(STRAIGHT, row, strict=False))
        assert found == pytest.approx(sum(contributions(WARM, values, "", None).values()))
    assert strength.pull == max(fitting._PULLS)
    assert strength.spread == 0


@pytest.mark.parametrize("pull", [1.0, 30.0, 100.0])
def test_signals_are_pulled_towards_the_default_weights(
    world: tuple[Table, Floats], pull: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a general minimiser of the same loss; these defaults are far from the truth."""
    wrong = Weights(-4.0, {"vote": (-3.0, 0.5), "prior": (2.0, 0.0), "chosen": (9.0, 0.0)})
    monkeypatch.setattr(fitting, "WARM", wrong)
    table = world[0]
    x, right = fitting.design(table)[:600], table.right[:600]
    default = fitting.coefficients(wrong)

    def loss(weights: Floats) -> float:
        odds = x @ weights[:-1] + weights[-1]
        away = (weights - default)[:-1]
        likely = np.logaddexp(0, np.where(right, -odds, odds)).sum()
        return float(likely + pull * (away**2).sum() / 2)

    found = fitting.fit_signals(x, right, pull)
    best = optimize.minimize(loss, default, method="L-BFGS-B", options={"maxiter": 2000})
    assert loss(found) <= best.fun + 1e-6
    assert loss(found) == pytest.approx(best.fun, abs=1e-3)
    firm = fitting.fit_signals(x, right, 1e9)
    assert firm[:-1] == pytest.approx(default[:-1], abs=1e-4)
    assert np.abs(found - default)[:-1].max() > 0.3


def test_the_strength_is_chosen_on_rows_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = _world(150, seed=9)
    _, chosen = fitting.cross_scored(table)

    def loss(pull: float, spread: float) -> float:
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "_PULLS", (pull,))
            patch.setattr(fitting, "_SPREADS", (spread,))
            log_odds, _ = fitting.cross_scored(table)
        chance = 1 / (1 + np.exp(-log_odds))
        return -float(np.log(np.where(table.right, chance, 1 - chance)).sum())

    assert chosen.pull == min(fitting._PULLS, key=lambda pull: loss(pull, 0.0))
    assert chosen.spread == min(fitting._SPREADS, key=lambda spread: loss(chosen.pull, spread))
    assert chosen.spread > 0  # tags do differ here


def test_what_was_simulated_is_found(
    world: tuple[Table, Floats], learnt: tuple[Fitted, Floats]
) -> None:
    table, true = world
    fitted, held_out = learnt
    assert fitted.calibration_error < 0.045
    overconfident = fitting.fitted(_base(fitted), 3 * held_out, table)
    assert overconfident.calibration_error > 2 * fitted.calibration_error
    assert np.corrcoef(held_out, true)[0, 1] > 0.95
    assert {tag for tag, value in fitted.tags.items() if value > 0.4} == {
        tag for tag, value in TRUE.tags.items() if value > 0
    }
    assert {tag for tag, value in fitted.tags.items() if value < -0.4} == {
        tag for tag, value in TRUE.tags.items() if value < 0
    }
    assert fitted.of["rival"][0] + fitted.of["rival"][1] < 0
    assert set(fitted.of) == set(STRAIGHT)
    plain = replace(table, tags=("same",) * len(table.tags), keys=("",) * len(table.keys))
    assert fitted.f1 > fitting.fit(plain)[0].f1 + 0.02  # what tags' own thresholds are worth


def test_it_holds_on_products_that_nobody_has_seen(learnt: tuple[Fitted, Floats]) -> None:
    fitted, _ = learnt
    fresh, _ = _world(1200, seed=2)
    weights = _base(fitted)
    rows = np.arange(len(fresh.right))
    chance = fitting.chances(fitting.log_odds_of(weights, fitting.design(fresh), fresh, rows))
    gaps = [
        abs(chance[part].mean() - fresh.right[part].mean())
        for part in np.array_split(np.argsort(chance), 10)
    ]
    assert np.mean(gaps) < 0.03
    kept = chance >= fitted.threshold
    f1 = 2 * fresh.right[kept].sum() / (kept.sum() + fresh.gold.sum())
    assert f1 == pytest.approx(fitted.f1, abs=0.03)
    promised = [precision for precision in (0.6, 0.7, 0.8, 0.85) if fitted.cut_for(precision)]
    assert len(promised) >= 3
    for precision in promised:
        cut = fitted.cut_for(precision)
        assert cut is not None
        assert fresh.right[chance >= cut].mean() >= precision
    assert fitted.cut_for(0.999) is None


def test_promises_count_what_is_kept(
    learnt: tuple[Fitted, Floats], world: tuple[Table, Floats]
) -> None:
    fitted, held_out = learnt
    table, chance = world[0], fitting.chances(held_out)
    assert 100 < len(fitted.promises) <= 400
    for one in fitted.promises:
        kept = chance >= one.score
        assert (one.kept, one.right) == (kept.sum(), table.right[kept].sum())
        assert 0 <= one.lower <= one.right / one.kept
        independent = metrics.wilson_low(one.right, one.kept, 2.326)
        assert one.lower <= independent + 1e-12
    for one, after in itertools.pairwise(fitted.promises):
        assert one.kept < after.kept
        assert one.right <= after.right
        assert one.score > after.score
    assert fitted.promises[-1].kept == (chance >= 0.02).sum()


def test_siblings_weaken_a_promise() -> None:
    """Nine of ten right, 200 tags: by themselves, or all tags of a group alike."""
    right = [at % 10 != 0 for at in range(20) for _ in range(10)]
    chance = np.full(200, 0.9)
    alone, together = (
        fitting.promises(chance, _small(right, groups=groups))
        for groups in (list(range(200)), [at // 10 for at in range(200)])
    )
    assert [(one.kept, one.right) for one in (*alone, *together)] == [(200, 180)] * 2
    assert alone[0].lower == pytest.approx(metrics.wilson_low(180, 200, 2.326))
    assert together[0].lower == pytest.approx(metrics.wilson_low(18, 20, 2.326))


CHANCE = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | st.floats(0, 1)


@given(st.lists(st.tuples(CHANCE, st.booleans()), min_size=1, max_size=9), st.integers(0, 3))
@example([(0.5, True), (0.5, True), (0.5, False), (0.5, False)], 0)
@example([(float(np.nextafter(0.5, 1)), True), (0.5, False)], 0)
def test_the_best_cut_is_the_best(rows: list[tuple[float, bool]], missed: int) -> None:
    chance, right = np.array([c for c, _ in rows]), [r for _, r in rows]
    table = _small(right, missed)

    def f1_at(cut: float) -> float:
        kept = [r for c, r in rows if c >= cut]
        return 2 * sum(kept) / max(len(kept) + sum(right) + missed, 1)

    cut, f1 = fitting.best_cut(chance, table)
    assert f1 == pytest.approx(max(f1_at(each) for each in chance.tolist()))
    assert f1_at(cut) == pytest.approx(f1)


@given(st.lists(st.tuples(CHANCE, st.booleans()), min_size=1, max_size=9))
def test_a_promise_covers_all_equal_scores(rows: list[tuple[float, bool]]) -> None:
    chance = np.array([c for c, _ in rows])
    found = fitting.promises(chance, _small([r for _, r in rows]))
    assert [one.score for one in found] == sorted({c for c, _ in rows if c >= 0.02}, reverse=True)
    for one in found:
        kept = [r for c, r in rows if c >= one.score]
        assert (one.kept, one.right) == (len(kept), sum(kept))


def test_nothing_to_fit() -> None:
    table = _small([False])
    nothing = replace(
        table,
        values=table.values[:0],
        right=table.right[:0],
        product=table.product[:0],
        tags=(),
        keys=(),
    )
    assert fitting.best_cut(np.zeros(0), nothing) == (0.5, 0.0)
    assert fitting.promises(np.zeros(0), nothing) == []


def _answered(table: Table, chosen: Bools) -> Table:
    values = table.values.copy()
    values[:, NAMES.index("chosen")] = chosen
    return replace(table, values=values)


def _base(fitted: Fitted) -> Weights:
    return Weights(fitted.bias, fitted.of, fitted.tags, fitted.keys, Bend(*fitted.bend))


def test_a_model_that_knows_gets_weight(
    world: tuple[Table, Floats], learnt: tuple[Fitted, Floats]
) -> None:
    table, (fitted, unasked) = world[0], learnt
    random = np.random.default_rng(4)
    chosen = np.where(random.random(len(table.right)) < 0.9, table.right, ~table.right)
    asked, chance = fitting.fit_asked(_answered(table, chosen), _base(fitted), unasked)
    # Right with odds of 9 to 1, whatever else is known: ln 81 between chosen and not.
    assert asked.of["chosen"][0] == pytest.approx(np.log(81), abs=0.5)
    assert asked.bias == fitted.bias
    assert asked.bend[2] == pytest.approx(fitted.bend[2] - np.log(9), abs=0.4)
    assert asked.f1 > fitted.f1 + 0.1
    assert asked.calibration_error < 0.045
    assert (asked.tags, asked.keys) == (fitted.tags, fitted.keys)
    assert {name: asked.of[name] for name in STRAIGHT} == fitted.of
    assert ((chance > 0) & (chance < 1)).all()


def test_a_model_that_guesses_gets_none(
    world: tuple[Table, Floats], learnt: tuple[Fitted, Floats]
) -> None:
    table, (fitted, unasked) = world[0], learnt
    chosen = np.random.default_rng(5).random(len(table.right)) < 0.4
    answered = _answered(table, chosen)
    asked, chance = fitting.fit_asked(answered, _base(fitted), unasked)
    assert abs(asked.of["chosen"][0]) < 0.3
    assert chance == pytest.approx(fitting.chances(unasked), abs=0.1)
    rule = learning.ask_rule(
        answered, fitting.chances(unasked), chance, (fitted.threshold, asked.threshold), 0
    )
    assert (rule.margin, rule.share, rule.kept) == (0.0, 0.0, 0.0)
    assert rule.added[1] <= 0


def test_answers_are_weighed_without_the_groups_own(
    world: tuple[Table, Floats], learnt: tuple[Fitted, Floats]
) -> None:
    table, (fitted, unasked) = world[0], learnt
    random = np.random.default_rng(4)
    chosen = np.where(random.random(len(table.right)) < 0.9, table.right, ~table.right)
    answered = _answered(table, chosen)
    group = table.groups[table.product] == 17
    turned = replace(answered, right=np.where(group, ~table.right, table.right))
    before, after = (
        fitting.fit_asked(each, _base(fitted), unasked)[1] for each in (answered, turned)
    )
    assert (before[group] == after[group]).all()
    assert (before != after).any()


def test_too_few_answers_change_no_held_out_score() -> None:
    table = _answered(_small([True, False, True]), np.array([True, False, True]))
    unasked = np.array([0.5, -0.5, 0.1])
    asked, chance = fitting.fit_asked(table, Weights(0.0, {}), unasked)
    assert chance == pytest.approx(fitting.chances(unasked))
    assert asked.of["chosen"][0] > 0


def test_asking_everybody_where_it_helps_everywhere() -> None:
    """Half the candidates are right and all score alike: only the model can tell."""
    right = [at % 2 == 0 for at in range(200)]
    table = _small(right)
    answered = np.where(right, 0.9, 0.1)
    rule = learning.ask_rule(table, np.full(200, 0.5), answered, (0.25, 0.5), 0)
    assert rule.added[0] == pytest.approx(1 - 2 * 100 / 300)
    assert rule.added[1] > 0
    assert (rule.margin, rule.share) == (0.25, 1.0)
    assert rule.kept == pytest.approx(1.0)
    assert rule.products == 200


def test_the_smallest_share_that_keeps_most_is_asked() -> None:
    """The model is right about everything; without it, scores are wrong mostly near the cut."""
    random = np.random.default_rng(6)
    without = random.random(400)
    right = random.random(400) < 1 / (1 + np.exp(-12 * (without - 0.5)))
    table = _small(right.tolist())
    answered = np.where(right, 0.95, 0.05)
    rule = learning.ask_rule(table, without, answered, (0.5, 0.5), 0)

    def gain(margin: float) -> float:
        near = np.abs(without - 0.5) <= margin
        kept = np.where(near, answered, without) >= 0.5
        return float(2 * right[kept].sum() / (kept.sum() + right.sum()))

    shares = {margin: (gain(margin) - gain(-1)) / (1 - gain(-1)) for margin in learning._MARGINS}
    expected = min(margin for margin, share in shares.items() if share >= 0.9)
    assert 0.02 < expected < 0.5
    assert rule.margin == expected
    assert rule.kept == pytest.approx(shares[expected])
    assert rule.share == pytest.approx((np.abs(without - 0.5) <= expected).mean())
    assert rule.added[0] == pytest.approx(1 - gain(-1))


def _scored(name: str, score: float, *, new: bool = False, key: str | None = None) -> ScoredTag:
    signals = dict.fromkeys(NAMES, 0.0) | {"vote": score}
    return ScoredTag(Tag(name, name, key=key), score, Evidence(new=new, signals=signals))


def _tagged(product: Product, *items: ScoredTag) -> TaggedProduct:
    return TaggedProduct(product, ScoredTags(items))


RED, BLUE = Tag("Color=Red", "Color=Red", key="Color"), Tag("Color=Blue", "Color=Blue", key="Color")
SHOP = Vocabulary([Tag("bag", "bag"), Tag("mug", "mug"), RED, BLUE])
FIRST = Product("1", "x", tags=("Bag", "Color=Red", "missing"))
SECOND = Product("2", "y", tags=("mug",))


def test_a_row_for_each_judged_candidate() -> None:
    results = [
        _tagged(
            FIRST,
            _scored("Color=Red", 0.9, key="Color"),
            _scored("bag", 0.8),
            _scored("mug", 0.7),
            _scored("new", 0.6, new=True),
        ),
        _tagged(SECOND, _scored("bag", 0.5)),
    ]
    judge = Judge(SHOP, unjudged={"1": frozenset({"mug"})})
    table = fitting.table_of(results, judge, [4, 4])
    assert table.names == NAMES
    assert table.tags == ("Color=Red", "bag", "bag")
    assert table.keys == ("Color", "", "")
    assert table.right.tolist() == [True, True, False]
    assert table.product.tolist() == [0, 0, 1]
    assert table.gold.tolist() == [3, 1]
    assert table.groups.tolist() == [4, 4]
    assert table.values[:, NAMES.index("vote")].tolist() == [0.9, 0.8, 0.5]
    assert table.values.sum() == pytest.approx(0.9 + 0.8 + 0.5)
    assert as_scores(results, judge) == [{"color=red": 0.9, "bag": 0.8}, {"bag": 0.5}]
    assert gold_of([FIRST, SECOND], judge) == [{"bag", "color=red", "missing"}, {"mug"}]


def test_alternatives_are_one_hit_of_one() -> None:
    both = Product("1", "x", tags=("Color=Red", "Color=Blue"))
    results = [
        _tagged(
            both, _scored("Color=Blue", 0.9, key="Color"), _scored("Color=Red", 0.4, key="Color")
        )
    ]
    judge = Judge(SHOP, alternatives=True)
    table = fitting.table_of(results, judge, [0])
    assert (table.right.tolist(), table.gold.tolist()) == ([True], [1])
    assert fitting.best_cut(np.array([0.9]), table)[1] == 1.0
    assert as_scores(results, judge) == [{"color=*": 0.9}]


def test_what_was_held_out_stays_so_when_the_model_is_asked() -> None:
    known = fitting.table_of(
        [_tagged(FIRST, _scored("bag", 0.8), _scored("mug", 0.7)), _tagged(SECOND)],
        Judge(SHOP),
        [0, 1],
    )
    asked = fitting.table_of(
        [
            _tagged(FIRST, _scored("mug", 0.7), _scored("bag", 0.8)),
            _tagged(SECOND, _scored("bag", 0.5)),
        ],
        Judge(SHOP),
        [0, 1],
    )
    weights = replace(fitting.weights_of(np.zeros(len(STRAIGHT) + len(CURVED) + 1)), bias=-4.0)
    found = fitting.carried_over(np.array([1.0, 2.0]), known, asked, weights)
    assert found == pytest.approx([2.0, 1.0, -4.0])
