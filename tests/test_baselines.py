"""The baselines: they learn what is plain to see, and from nothing that they are tested on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.datatypes import (
    Evidence,
    Opinion,
    Product,
    ScoredTag,
    ScoredTags,
    Span,
    Tag,
    TaggedProduct,
)
from llmtagger.evaluation import baselines
from llmtagger.evaluation.baselines import Linear, from_signal, lookup, remembered
from llmtagger.evaluation.judging import Judge
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import Vocabulary

SHOP = Vocabulary(
    [
        Tag("bag", "bag", ("sack",)),
        Tag("mug", "mug"),
        Tag("Color=Red", "red", key="Color"),
        Tag("Color=Dark Red", "dark", key="Color"),
    ]
)
JUDGE = Judge(SHOP)
KINDS = pytest.mark.parametrize("kind", ["tfidf", "embedding"])
COLOURS = ("red", "blue", "green", "black")


def _catalogue(count: int = 24) -> list[Product]:
    """Whoever says "leather" is a bag, whoever says "ceramic" a mug; colours mean nothing."""
    return [
        Product(
            str(at),
            f"{COLOURS[at % 4]} {'leather tote' if at % 2 else 'ceramic cup'} {at}",
            tags=("SACK",) if at % 2 else ("mug",),
        )
        for at in range(count)
    ]


def _vectors(products: Sequence[Product]) -> Vectors:
    return HashingEncoder(1024).encode([product.text() for product in products])


NEW = [Product("n1", "leather tote, large"), Product("n2", "ceramic cup, large")]


@KINDS
def test_a_plain_rule_is_learnt(kind: str) -> None:
    train = _catalogue()
    bag, mug = Linear(kind, JUDGE).scored(train, _vectors(train), NEW, _vectors(NEW))
    assert set(bag) == set(mug) == {"bag", "mug"}
    assert bag["bag"] > 0.7 > 0.3 > bag["mug"]
    assert mug["mug"] > 0.7 > 0.3 > mug["bag"]


def test_the_scores_are_those_of_one_model_a_tag() -> None:
    train = _catalogue()
    x, z = _vectors(train), _vectors(NEW)
    found = Linear("embedding", JUDGE).scored(train, x, NEW, z)
    for tag, odd in (("bag", 1), ("mug", 0)):
        model = LogisticRegression(C=10.0, solver="liblinear", random_state=0)
        chances = model.fit(x, [at % 2 == odd for at in range(24)]).predict_proba(z)[:, 1]
        assert [each[tag] for each in found] == pytest.approx(chances)


@KINDS
def test_rare_tags_are_not_learnt_and_frequent_ones_are_sure(kind: str) -> None:
    """One carrier teaches nothing; with a tag on every product there is nothing to tell apart."""
    train = [
        Product(p.id, p.title, tags=(*(p.tags or ()), "all", *(("once",) if p.id == "3" else ())))
        for p in _catalogue()
    ]
    for scores in Linear(kind, JUDGE).scored(train, _vectors(train), NEW, _vectors(NEW)):
        assert set(scores) == {"bag", "mug", "all"}
        assert scores["all"] == 1.0
    nothing = [Product(p.id, p.title) for p in train]
    assert Linear(kind, JUDGE).scored(nothing, _vectors(train), NEW, _vectors(NEW)) == [{}, {}]


def test_the_best_of_alternatives_counts() -> None:
    """Two right values are one item, with the score of the likelier one."""
    train = [
        Product(str(at), "scarlet" if at % 2 else "grey", tags=("Color=Red", "warm")
                if at % 2 else ("Color=Dark Red",)) for at in range(20)
    ]  # fmt: skip
    asked = [Product("n", "scarlet", tags=("Color=Red", "Color=Dark Red"))]
    x, z = _vectors(train), _vectors(asked)
    (plain,) = Linear("embedding", JUDGE).scored(train, x, asked, z)
    (merged,) = Linear("embedding", Judge(SHOP, alternatives=True)).scored(train, x, asked, z)
    assert plain["color=red"] > plain["color=dark red"]
    assert merged == {"color=*": plain["color=red"], "warm": plain["warm"]}


def test_what_is_unjudged_is_not_scored() -> None:
    train = _catalogue()
    judge = Judge(SHOP, unjudged={"n1": frozenset({"mug"})})
    found = Linear("embedding", judge).scored(train, _vectors(train), NEW, _vectors(NEW))
    assert [set(each) for each in found] == [{"bag"}, {"bag", "mug"}]


@KINDS
def test_a_group_is_scored_by_a_model_that_has_not_seen_it(kind: str) -> None:
    """A word and a tag that one group alone has: other models cannot know it, its own would."""
    odd = [Product(f"x{at}", f"zebra {at}", tags=("striped", "mug")) for at in range(3)]
    products = [*_catalogue(), *odd]
    groups = [*range(24), 90, 90, 90]
    found = Linear(kind, JUDGE).cross_scored(products, _vectors(products), groups, seed=0)
    assert len(found) == len(products)
    for product, scores in zip(products[:24], found, strict=False):
        right = "bag" if "leather" in product.title else "mug"
        assert scores[right] > 0.6
    assert all("striped" not in scores for scores in found[24:])
    assert any("striped" in scores for scores in found[:24])  # others did learn it
    own = Linear(kind, JUDGE).scored(products, _vectors(products), odd, _vectors(odd))
    assert all(scores["striped"] > 0.5 for scores in own)


@KINDS
def test_a_groups_own_answers_change_nothing_for_it(kind: str) -> None:
    products = _catalogue()
    groups = [at // 4 for at in range(24)]
    turned = [
        Product(p.id, p.title, tags=("bag", "mug")) if groups[at] == 2 else p
        for at, p in enumerate(products)
    ]
    before, after = (
        Linear(kind, JUDGE).cross_scored(each, _vectors(each), groups, seed=0)
        for each in (products, turned)
    )
    own = [at for at in range(24) if groups[at] == 2]
    assert [before[at] for at in own] == [after[at] for at in own]
    assert sum(one != other for one, other in zip(before, after, strict=True)) >= 12


def test_too_few_groups_are_not_scored() -> None:
    products = _catalogue(6)
    found = Linear("tfidf", JUDGE).cross_scored(products, _vectors(products), [0, 0, 0, 1, 1, 1], 0)
    assert found == [{}] * 6


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("Red T-Shirt", ["w red", "p red t", "p t shirt", "<re", "shir", "rt>"], ["<red>", "T"]),
        ("防水 A", ["防", "水", "防水", "防水 ", "a"], ["w a", "防水 a"]),
    ],
)  # fmt: skip
def test_terms(text: str, some: list[str], none: list[str]) -> None:
    terms = baselines._terms(text)
    assert set(some) <= set(terms)
    assert not set(none) & set(terms)


def _opinion(mentioned: Sequence[int], trust: dict[int, float]) -> Opinion:
    return Opinion({}, {at: (Span("title", "x"),) for at in mentioned}, trust)


def test_lookup_names_what_stands_in_the_text() -> None:
    products = [Product("1", "x", tags=("Color=Red", "Color=Dark Red")), Product("2", "y")]
    opinions = [_opinion([2, 3, 0], {2: 0.9, 3: 0.2, 1: 0.7}), _opinion([], {0: 1.0})]
    assert lookup(products, opinions, SHOP, JUDGE) == [
        {"color=red": 0.9, "color=dark red": 0.2, "bag": 1.0},
        {},
    ]
    merged = Judge(SHOP, alternatives=True)
    assert lookup(products, opinions, SHOP, merged)[0] == {"color=*": 0.9, "bag": 1.0}
    apart = Judge(SHOP, apart=["Color"])
    assert lookup(products, opinions, SHOP, apart)[0] == {"bag": 1.0}
    with pytest.raises(ValueError, match="zip"):
        lookup(products, opinions[:1], SHOP, JUDGE)


def test_a_signal_by_itself() -> None:
    def item(name: str, vote: float, *, new: bool = False) -> ScoredTag:
        signals = {"vote": vote, "chosen": 1.0}
        return ScoredTag(Tag(name, name), 0.5, Evidence(new=new, signals=signals))

    tagged = TaggedProduct(
        Product("1", "x", tags=("Color=Red", "Color=Dark Red")),
        ScoredTags(
            (
                item("Color=Red", 0.4),
                item("Color=Dark Red", 0.8),
                item("bag", 0.1),
                item("mug", 0.0),
                item("new", 0.9, new=True),
            )
        ),
    )
    assert from_signal([tagged], JUDGE, "vote") == [
        {"color=red": 0.4, "color=dark red": 0.8, "bag": 0.1}
    ]
    assert from_signal([tagged], Judge(SHOP, alternatives=True), "vote") == [
        {"color=*": 0.8, "bag": 0.1}
    ]
    assert set(from_signal([tagged], JUDGE, "chosen")[0]) == {
        *("color=red", "color=dark red", "bag", "mug"),
    }
    assert from_signal([tagged], JUDGE, "unheard_of") == [{}]


def test_what_was_computed_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.json"
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"train": [{"防水": 1 / 3}, {}], "test": [{"a": 0.1 + 0.2}]}

    first = remembered(path, compute)
    assert first == compute()
    assert remembered(path, compute) == first
    assert len(calls) == 2  # one of them was ours
    assert json.loads(path.read_text(encoding="utf-8")) == first
    assert [each.name for each in path.parent.iterdir()] == ["scores.json"]


def test_what_failed_is_not_remembered(tmp_path: Path) -> None:
    def fail() -> dict[str, Any]:
        raise KeyError

    path = tmp_path / "scores.json"
    with pytest.raises(KeyError):
        remembered(path, fail)
    assert remembered(path, lambda: {"test": []}) == {"test": []}


def test_products_without_words_can_be_scored() -> None:
    train = _catalogue()
    (found,) = Linear("tfidf", JUDGE).scored(
        train, _vectors(train), [Product("n", "!!!")], np.zeros((1, 1024), dtype=np.float32)
    )
    assert set(found) == {"bag", "mug"}


def test_models_that_are_fitted_at_once_cannot_change_what_they_share() -> None:
    """scikit-learn sorts rows in place; two that did so at once found other weights each time."""
    texts = [f"{word} bag of no. {at}" for at, word in enumerate(("zinc", "tin", "iron") * 8)]
    for matrix in baselines._tfidf(texts, texts[:5]):
        before = [part.tobytes() for part in (matrix.data, matrix.indices, matrix.indptr)]
        labels = np.array([at % 2 for at in range(matrix.shape[0])], dtype=np.int8)
        LogisticRegression(solver="liblinear").fit(matrix, labels)
        assert [part.tobytes() for part in (matrix.data, matrix.indices, matrix.indptr)] == before
        with pytest.raises(ValueError, match="read-only"):
            matrix.data[0] = 1.0
