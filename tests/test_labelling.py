"""What a person should label next, and which labels the catalogue itself contradicts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.vectors import unit
from llmtagger.calibration import Calibration
from llmtagger.config import ScoringSettings, Settings
from llmtagger.datatypes import Evidence, Product, ScoredTag, ScoredTags, Tag, TaggedProduct
from llmtagger.errors import CatalogError
from llmtagger.evaluation.learning import calibrate
from llmtagger.evaluation.metrics import Floats
from llmtagger.pipeline import build_tagger
from llmtagger.protocols import Vectors
from llmtagger.scorers import learned_scorer
from llmtagger.stages.scoring import WARM, WeightedScorer
from llmtagger.templates import find_template
from llmtagger.tuning.labelling import (
    FEW,
    Doubt,
    audit,
    doubt_of,
    most_worth,
    suggest,
    unlabelled,
)

SETTINGS = Settings()
TEMPLATE = find_template("tag.v1")
MADE_OF = {"wallet": "leather", "backpack": "waterproof", "mug": "ceramic"}
FILLER = [
    *("oak", "pine", "river", "stone", "cloud", "maple", "amber", "copper", "velvet", "ivory"),
    *("coral", "slate", "dune", "fern", "moss", "cedar", "pearl", "onyx", "jade", "ruby"),
]


def scored(*scores: float) -> TaggedProduct:
    items = [ScoredTag(Tag(f"t{at}", f"t{at}"), s, Evidence()) for at, s in enumerate(scores)]
    return TaggedProduct(Product("p", "p"), ScoredTags(tuple(items)))


@pytest.mark.parametrize(
    ("scores", "doubt"),
    [
        ((), 0.0),
        ((1.0, 0.0), 0.0),
        ((0.5,), 0.5),
        ((0.9,), 0.1),
        ((0.1,), 0.1),
        ((0.75, 0.5, 0.25, 0.0), 1.0),
    ],
    ids=str,
)
def test_doubt_is_the_expected_number_of_wrong_decisions(
    scores: tuple[float, ...], doubt: float
) -> None:
    assert doubt_of(scored(*scores)) == pytest.approx(doubt)


def by_hand(worth: Sequence[float], vectors: Vectors, count: int) -> list[int]:
    """The same, one product at a time."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(worth)):
        best, gain = -1, -1.0
        for at, value in enumerate(worth):
            if at in chosen:
                continue
            like = max((float(vectors[at] @ vectors[other]) for other in chosen), default=0.0)
            left = value * (1 - min(1.0, max(0.0, like)))
            if left > gain:
                best, gain = at, left
        chosen.append(best)
    return chosen


def array(worth: Sequence[float]) -> Floats:
    return np.array(worth, dtype=float)


QUARTERS = np.array(  # cosines of these are 0, 1/2 or 1, which floats hold exactly
    [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1], [-1, -1, 0, 0]], dtype=np.float64
) * np.sqrt(0.5)


@given(
    rows=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 4)), max_size=12),
    count=st.integers(0, 15),
)
def test_the_most_worth_is_what_a_loop_finds(rows: list[tuple[int, int]], count: int) -> None:
    worth = [value / 4 for value, _ in rows]
    vectors = QUARTERS[[at for _, at in rows]].round(12).astype(np.float32)
    found = most_worth(array(worth), vectors, count)
    assert len(found) == len(set(found)) == min(count, len(rows))
    assert set(found) <= {*range(len(rows))}
    nearest = np.zeros(len(rows))
    for at, expected in zip(found, by_hand(worth, vectors, count), strict=True):
        gain = array(worth) * (1 - nearest)
        assert gain[at] == pytest.approx(gain[expected], abs=1e-6)
        nearest = np.maximum(nearest, np.clip(vectors @ vectors[at], 0, 1))


@given(data=st.data(), count=st.integers(1, 30))
def test_no_position_is_chosen_twice(data: st.DataObject, count: int) -> None:
    """Nor where all are alike and nothing is left of their worth."""
    worth = data.draw(st.lists(st.floats(0, 20), max_size=20))
    seed = data.draw(st.integers(0, 99))
    drawn = np.random.default_rng(seed).normal(size=(len(worth), 3)).astype(np.float32)
    vectors = unit(np.ones_like(drawn) if seed % 2 else drawn)
    found = most_worth(array(worth), vectors, count)
    assert len(found) == len(set(found)) == min(count, len(worth))
    if found:
        assert worth[found[0]] == max(worth)


def test_likeness_is_discounted() -> None:
    """1 is like 0, 2 is half like it, 3 is like nothing: 3 and 2 come before 1."""
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 1]], dtype=np.float32)
    assert most_worth(array([5.0, 4.9, 3.0, 2.0]), vectors, 4) == [0, 3, 2, 1]
    assert most_worth(array([5.0, 4.9, 4.1, 2.0]), vectors, 4) == [0, 2, 3, 1]
    opposed = np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32)
    assert most_worth(array([3.0, 2.0, 1.9]), opposed, 2) == [0, 1]  # no bonus, no discount


def catalogue(count: int) -> list[Product]:
    """Wallets of leather, waterproof backpacks and mugs of ceramic, each called otherwise."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        kind = ("wallet", "backpack", "mug")[number % 3]
        title = " ".join([*chance.sample(FILLER, 4), MADE_OF[kind], kind])
        found.append(Product(f"p{number}", title, tags=(kind, MADE_OF[kind]), lang="en"))
    return found


def opened(products: Sequence[Product], folder: Path) -> CatalogueIndex:
    build(products, folder, HashingEncoder())
    return open_index(folder)


def judged(products: Sequence[Product], folder: Path) -> list[Doubt]:
    return audit(opened(products, folder), TEMPLATE, SETTINGS, lambda *_: None)


def test_an_audit_of_a_sound_catalogue_finds_nothing(tmp_path: Path) -> None:
    assert judged(catalogue(60), tmp_path / "index") == []


def test_an_audit_finds_what_was_put_in(tmp_path: Path) -> None:
    """One label too few and one too many."""
    products = catalogue(60)
    products[30] = replace(products[30], tags=("wallet",))
    products[31] = replace(products[31], tags=("backpack", "waterproof", "ceramic"))
    found = {each.product.id: each for each in judged(products, tmp_path / "index")}
    assert found.keys() == {"p30", "p31"}
    missing, wrong = found["p30"], found["p31"]
    assert (missing.tag, missing.fault, missing.product) == ("leather", "missing", products[30])
    assert (wrong.tag, wrong.fault, wrong.product) == ("ceramic", "unlikely", products[31])
    assert 0.8 <= missing.probability <= 1
    assert 0 <= wrong.probability <= 0.2


def test_an_audit_finds_what_nothing_brought_up(tmp_path: Path) -> None:
    """With two candidates a product, a third label is never scored, however usual it is."""
    products = catalogue(60)
    products[31] = replace(products[31], tags=("backpack", "waterproof", "ceramic"))
    products[32] = replace(products[32], tags=("mug", "ceramic", "one of a kind"))
    few = SETTINGS.model_copy(
        update={"retrieval": SETTINGS.retrieval.model_copy(update={"candidates": 2})}
    )
    index = opened(products, tmp_path / "index")
    found = audit(index, TEMPLATE, few, lambda *_: None)
    assert [(each.product.id, each.tag, each.probability, each.fault) for each in found] == [
        ("p31", "ceramic", 0.0, "unlikely")
    ]


def test_the_surest_faults_come_first(tmp_path: Path) -> None:
    products = catalogue(90)
    for at in range(0, 12, 3):
        products[at] = replace(products[at], tags=("wallet",))
        products[at + 1] = replace(products[at + 1], tags=("backpack", "waterproof", "mug"))
    found = judged(products, tmp_path / "index")
    sure = [d.probability if d.fault == "missing" else 1 - d.probability for d in found]
    assert {d.fault for d in found} == {"missing", "unlikely"}
    assert sure == sorted(sure, reverse=True)
    assert min(sure) >= 0.8


def test_an_audit_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="19 labelled products are too few"):
        judged(catalogue(19), tmp_path / "index")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CatalogueIndex:
    return opened(catalogue(FEW), tmp_path_factory.mktemp("shop") / "index")


NEW = [
    Product("clear", "leather wallet oak pine", lang="en"),
    Product("odd", "leather mug wallet with a waterproof backpack", lang="en"),
    Product("odd again", "leather mug wallet with a waterproof backpack", lang="en"),
    Product("strange", "zinc bucket", lang="en"),
    Product("mug", "ceramic mug river jade", lang="en"),
]


@pytest.mark.parametrize("fitted", [False, True], ids=["default", "fitted"])
def test_suggestions_are_ranked_by_doubt_less_likeness(index: CatalogueIndex, fitted: bool) -> None:
    learnt = calibrate(index, TEMPLATE, SETTINGS, None, ask=0).calibration if fitted else None
    scorer = learned_scorer(learnt) if learnt else WeightedScorer()
    results = build_tagger(index, TEMPLATE, SETTINGS, None, scorer=scorer).tag_all(NEW)
    doubts = [sum(min(i.score, 1 - i.score) for i in each.scored.items) for each in results]
    vectors = HashingEncoder().encode([product.text() for product in NEW])
    found = suggest(index, NEW, TEMPLATE, SETTINGS, learnt, 4)
    assert [NEW.index(each.product) for each in found] == by_hand(doubts, vectors, 4)
    ids = [each.product.id for each in found]
    assert len({"odd", "odd again"} & set(ids)) == 1  # a twin teaches nothing
    for each in found:
        at = NEW.index(each.product)
        scores = {item.tag.name: item.score for item in results[at].scored.items}
        closest = sorted(scores.values(), key=lambda score: abs(score - 0.5))[:5]
        assert each.doubt == pytest.approx(doubts[at])
        assert [score for _, score in each.tags] == closest
        assert all(scores[name] == score for name, score in each.tags)


def test_a_calibration_decides_the_doubt(index: CatalogueIndex) -> None:
    learnt = calibrate(index, TEMPLATE, SETTINGS, None, ask=0).calibration
    flat = learnt.unasked.model_copy(update={"bias": WARM.bias - 50, "bend": (1.0, 1.0, 0.0)})
    sure = Calibration.model_validate(learnt.model_copy(update={"unasked": flat}).model_dump())
    (first,) = suggest(index, NEW, TEMPLATE, SETTINGS, sure, 1)
    (other,) = suggest(index, NEW, TEMPLATE, SETTINGS, None, 1)
    assert first.doubt < 1e-6 < 0.1 < other.doubt


def test_a_blocked_tag_is_no_doubt(index: CatalogueIndex) -> None:
    plain = {each.product.id: each for each in suggest(index, NEW, TEMPLATE, SETTINGS, None, 99)}
    blocked = plain["mug"].tags[0][0]
    settings = Settings(scoring=ScoringSettings(blocklist=[blocked]))
    found = {each.product.id: each for each in suggest(index, NEW, TEMPLATE, settings, None, 99)}
    assert all(blocked != tag for each in found.values() for tag, _ in each.tags)
    assert found["mug"].doubt < plain["mug"].doubt


def test_of_few_products_all_are_suggested_and_of_none_none(index: CatalogueIndex) -> None:
    assert len(suggest(index, NEW, TEMPLATE, SETTINGS, None, 99)) == len(NEW)
    assert suggest(index, [], TEMPLATE, SETTINGS, None, 3) == []


def test_while_little_is_labelled_suggestions_are_drawn_from_all_alike(tmp_path: Path) -> None:
    """Each of 200 is as likely as the next: of 60 drawn, 30 are of the more doubtful half."""
    new = [replace(product, id=f"new {product.id}", tags=None) for product in catalogue(200)]
    few = opened(catalogue(FEW - 1), tmp_path / "few")
    found = suggest(few, new, TEMPLATE, SETTINGS, None, 60)
    assert found == suggest(few, new, TEMPLATE, SETTINGS, None, 60)
    ranked = sorted(suggest(few, new, TEMPLATE, SETTINGS, None, 200), key=lambda each: -each.doubt)
    half = {each.product.id for each in ranked[:100]}
    assert len({each.product.id for each in found}) == 60
    assert 15 <= sum(each.product.id in half for each in found) <= 45  # 4.6 standard errors
    enough = opened(catalogue(FEW), tmp_path / "enough")
    (first,) = suggest(enough, new, TEMPLATE, SETTINGS, None, 1)
    assert first.doubt == max(e.doubt for e in suggest(enough, new, TEMPLATE, SETTINGS, None, 200))


def test_unlabelled_is_what_the_index_has_no_label_of(tmp_path: Path) -> None:
    known = [
        Product("a", "red wallet", tags=("wallet",)),
        Product("b", "blue wallet", tags=()),
        Product("c", "green wallet"),
    ]
    index = opened(known, tmp_path / "index")
    given = [Product(id, "any wallet", tags=("wallet",)) for id in ("z", "c", "b", "a")]
    assert [product.id for product in unlabelled(iter(given), index)] == ["z", "c"]
