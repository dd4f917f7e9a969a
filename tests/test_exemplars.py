"""Examples in prompts: each strategy beside a loop that does the same, and what is never shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.vectors import unit
from llmtagger.config import PromptSettings, Settings
from llmtagger.datatypes import (
    Candidate,
    Evidence,
    Neighbour,
    ParsedTags,
    Product,
    ScoredTag,
    ScoredTags,
    Shortlist,
    Strategy,
    Tag,
)
from llmtagger.errors import PromptError
from llmtagger.pipeline import build_tagger
from llmtagger.protocols import Vectors
from llmtagger.stages.exemplars import STRATEGIES, Exemplars
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import Examples, Header, TemplateFile, find_template

ASKED = Product("asked", "what is asked about")


@dataclass
class Shelf:
    """Labelled products with their vectors."""

    products: Sequence[Product]
    vectors: Vectors

    def product(self, position: int) -> Product:
        return self.products[position]

    def position(self, id: str) -> int | None:
        return next((at for at, each in enumerate(self.products) if each.id == id), None)


@dataclass
class Scores:
    """A scorer that knows the answer, and takes note of what it was told of the model's."""

    of: dict[str, float]

    def score(self, product: Product, shortlist: Shortlist, parsed: ParsedTags) -> ScoredTags:
        assert parsed == ParsedTags()  # which tags are in doubt is asked before the model is
        tags = [candidate.tag for candidate in shortlist.candidates]
        return ScoredTags(tuple(ScoredTag(tag, self.of[tag.id], Evidence()) for tag in tags))


def shelf(count: int, vectors: Vectors | None = None) -> Shelf:
    products = [Product(f"p{at}", f"title {at}", tags=("x",)) for at in range(count)]
    return Shelf(products, np.eye(count, dtype=np.float32) if vectors is None else vectors)


def neighbours(on: Shelf, similarities: Sequence[float]) -> tuple[Neighbour, ...]:
    """All that lies on the shelf, nearest first."""
    order = sorted(range(len(similarities)), key=lambda at: -similarities[at])
    return tuple(Neighbour(on.products[at], similarities[at]) for at in order)


def chosen(
    rule: Examples,
    on: Shelf,
    shortlist: Shortlist,
    count: int,
    scores: dict[str, float] | None = None,
    product: Product = ASKED,
) -> list[str]:
    found = Exemplars(rule, on, Scores(scores or {})).choose(product, shortlist, count)
    return [each.id for each in found]


def mmr(near: Sequence[float], vectors: Vectors, count: int) -> list[list[float]]:
    """Of every step, what each is worth: half its likeness to the product, less half that to the
    one of those chosen before that it is most like, which counts from 0 on."""
    picked: list[int] = []
    steps = []
    while len(picked) < min(count, len(near)):
        worth = []
        for at, similarity in enumerate(near):
            like = max((float(vectors[at] @ vectors[other]) for other in picked), default=0.0)
            worth.append(-9.0 if at in picked else 0.5 * similarity - 0.5 * max(0.0, like))
        steps.append(worth)
        picked.append(worth.index(max(worth)))
    return steps


@given(seed=st.integers(0, 10_000), size=st.integers(0, 9), count=st.integers(0, 11))
def test_diverse_is_maximal_marginal_relevance(seed: int, size: int, count: int) -> None:
    drawn = np.random.default_rng(seed)
    vectors = unit(drawn.normal(size=(size, 3)).astype(np.float32))
    near = drawn.uniform(-1, 1, size).round(3).tolist()
    on = shelf(size, vectors)
    around = neighbours(on, near)
    rule = Examples(strategy=Strategy.DIVERSE)
    found = chosen(rule, on, Shortlist(around, ()), count)
    rows = [int(each.product.id[1:]) for each in around]
    steps = mmr([near[row] for row in rows], vectors[rows], count)
    assert found == [f"p{rows[step.index(max(step))]}" for step in steps]


def test_diverse_passes_over_a_twin() -> None:
    """p1 is p0 again, p2 is half like it, p3 is near to nothing."""
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 1]], dtype=np.float32)
    on = shelf(4, vectors)
    around = Shortlist(neighbours(on, [0.9, 0.89, 0.8, 0.25]), ())
    assert chosen(Examples(), on, around, 3) == ["p0", "p1", "p2"]
    assert chosen(Examples(strategy=Strategy.DIVERSE), on, around, 3) == ["p0", "p2", "p3"]


CARRIED = st.lists(st.sets(st.integers(0, 5)), max_size=7)


@given(
    carried=CARRIED,
    eighths=st.lists(st.integers(0, 8), min_size=6, max_size=6),
    count=st.integers(0, 9),
)
def test_covering_is_the_greedy_cover(
    carried: list[set[int]], eighths: list[int], count: int
) -> None:
    """Eighths are floats that add up exactly, so that equals are equal."""
    on = shelf(len(carried))
    around = neighbours(on, [0.9 - 0.1 * at for at in range(len(carried))])
    candidates = tuple(
        Candidate(
            Tag(f"tag {tag}", f"t{tag}"),
            votes=tuple((f"p{at}", 0.5) for at, tags in enumerate(carried) if tag in tags),
        )
        for tag in range(6)
    )
    scores = {f"t{tag}": eighth / 8 for tag, eighth in enumerate(eighths)}
    rule = Examples(strategy=Strategy.COVERING)
    found = chosen(rule, on, Shortlist(around, candidates), count, scores)

    open_, expected = {tag: min(e, 8 - e) for tag, e in enumerate(eighths)}, list[int]()
    while len(expected) < min(count, len(carried)):
        rest = [at for at in range(len(carried)) if at not in expected]
        gains = [sum(open_[tag] for tag in carried[at]) for at in rest]
        expected.append(rest[gains.index(max(gains))])
        open_ |= dict.fromkeys(carried[expected[-1]], 0)
    assert found == [f"p{at}" for at in expected]


def test_covering_shows_the_tags_in_doubt() -> None:
    """The nearest carries what is sure; p2 carries the doubt, p1 less of it."""
    on = shelf(3)
    candidates = (
        Candidate(Tag("sure", "sure"), votes=(("p0", 0.9), ("p1", 0.8))),
        Candidate(Tag("even", "even"), votes=(("p1", 0.8), ("p2", 0.7))),
        Candidate(Tag("odd", "odd"), votes=(("p2", 0.7),)),
    )
    around = Shortlist(neighbours(on, [0.9, 0.8, 0.7]), candidates)
    scores = {"sure": 0.99, "even": 0.5, "odd": 0.25}
    assert chosen(Examples(), on, around, 2) == ["p0", "p1"]
    rule = Examples(strategy=Strategy.COVERING)
    assert chosen(rule, on, around, 3, scores) == ["p2", "p0", "p1"]


@given(near=st.lists(st.integers(-99, 99), unique=True, max_size=8), count=st.integers(-1, 10))
def test_similar_is_the_nearest(near: list[int], count: int) -> None:
    on = shelf(len(near))
    found = chosen(Examples(), on, Shortlist(neighbours(on, near), ()), count)
    ordered = sorted(range(len(near)), key=lambda at: near[at], reverse=True)
    assert found == [f"p{at}" for at in ordered[: max(0, count)]]


@pytest.mark.parametrize("strategy", Strategy)
def test_what_is_pinned_comes_first(strategy: Strategy) -> None:
    assert strategy in STRATEGIES
    on = shelf(5)
    around = Shortlist(neighbours(on, [0.9, 0.8, 0.7, 0.6, 0.5]), ())
    rule = Examples(strategy=strategy, pinned=("p3", "p0", "p3"))
    assert chosen(rule, on, around, 4) == ["p3", "p0", "p1", "p2"]
    assert chosen(rule, on, around, 2) == ["p3", "p0"]
    assert chosen(rule, on, around, 1) == ["p3"]
    assert chosen(rule, on, around, 0) == []
    assert chosen(rule, on, Shortlist((), ()), 4) == ["p3", "p0"]  # near or not


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize(
    ("own", "shown"),
    [
        (Product("p0", "another title"), False),
        (Product("9", "title 0"), False),
        (Product("9", "  TITLE 0 "), False),
        (Product("9", "another title", group="g"), False),
        (Product("9", "another title", group=""), True),
        (Product("9", "another title", group="h"), True),
    ],
    ids=["id", "title", "spelling", "group", "no-group", "other-group"],
)
def test_a_pinned_product_is_no_example_of_itself(
    strategy: Strategy, own: Product, shown: bool
) -> None:
    on = shelf(3)
    on.products = [replace(on.products[0], group="g" if own.group else ""), *on.products[1:]]
    around = Shortlist(neighbours(on, [0.9, 0.8, 0.7])[1:], ())
    rule = Examples(strategy=strategy, pinned=("p0",))
    expected = ["p0", "p1"] if shown else ["p1", "p2"]
    assert chosen(rule, on, around, 2, product=own) == expected


@pytest.mark.parametrize("unknown", ["nobody", "bare"])
def test_an_unknown_or_unlabelled_pinned_product_is_refused(unknown: str) -> None:
    on = Shelf([Product("p0", "x", tags=()), Product("bare", "y")], np.eye(2, dtype=np.float32))
    assert chosen(Examples(pinned=("p0",)), on, Shortlist((), ()), 1) == ["p0"]
    with pytest.raises(PromptError, match=repr(unknown)) as caught:
        Exemplars(Examples(pinned=("p0", unknown)), on, Scores({}))
    assert caught.value.hint


CATALOGUE = [
    Product("w1", "brown leather wallet slim", tags=("wallet", "leather"), lang="en"),
    Product("w2", "brown leather wallet slim new", tags=("wallet", "leather"), lang="en"),
    Product("w3", "brown leather wallet slim old", tags=("wallet", "leather"), lang="en"),
    Product("w4", "nylon travel wallet", tags=("wallet", "travel"), lang="en", group="travel"),
    Product("w5", "brown suede belt", tags=("belt", "suede"), lang="en"),
    Product("b1", "waterproof hiking backpack", tags=("backpack",), lang="en"),
    Product("n1", "unlabelled thing", lang="en"),
]
NEW = Product("new", "slim brown leather wallet for travel", lang="en")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CatalogueIndex:
    folder = tmp_path_factory.mktemp("shop") / "index"
    build(CATALOGUE, folder, HashingEncoder())
    return open_index(folder)


Shown = Callable[..., list[str]]


@pytest.fixture
def shown(index: CatalogueIndex) -> Shown:
    """`shown(rule, product=NEW, examples=…)`: the titles in the prompt of a tagger."""
    body = (
        "{% block system %}Rules.{% endblock %}{% block user %}"
        "{% for each in examples %}{{ each.title }}\n{% endfor %}{% endblock %}"
    )

    def render(rule: Examples, product: Product = NEW, **settings: Any) -> list[str]:
        template = TemplateFile("tag.v9", Header(examples=rule).text() + body)
        chosen = Settings(prompt=PromptSettings(**settings))
        tagger = build_tagger(index, template, chosen, None, leave_out_siblings=True)
        ((_, _, prompt),) = tagger.prepare([product])
        return prompt.messages[1][1].splitlines()

    return render


TITLES = {each.id: each.title for each in CATALOGUE}


def test_a_header_decides_what_a_prompt_shows(shown: Shown, index: CatalogueIndex) -> None:
    """Three wallets that are nearly one, or three different ones."""
    similar = shown(Examples())
    assert set(similar) == {TITLES[id] for id in ("w1", "w2", "w3")}
    diverse = shown(Examples(strategy=Strategy.DIVERSE))
    assert diverse[0] == similar[0]
    assert TITLES["w4"] in diverse
    covering = shown(Examples(strategy=Strategy.COVERING))
    assert covering != similar
    tagger = build_tagger(index, find_template("tag.v1"), Settings(), None)
    ((_, shortlist, _),) = tagger.prepare([NEW])
    expected = Exemplars(Examples(strategy=Strategy.COVERING), index, WeightedScorer()).choose(
        NEW, shortlist, 3
    )
    assert covering == [each.title for each in expected]


def test_a_headers_count_is_used_before_the_settings(shown: Shown) -> None:
    assert len(shown(Examples())) == 3
    assert len(shown(Examples(), examples=2)) == 2
    assert len(shown(Examples(count=4), examples=2)) == 4
    assert shown(Examples(count=0)) == []
    assert shown(Examples(count=0, pinned=("b1",))) == []
    assert shown(Examples(pinned=("b1",)), examples=0) == []
    assert shown(Examples(count=1, pinned=("b1",)), examples=0) == [TITLES["b1"]]


@pytest.mark.parametrize("strategy", Strategy)
def test_neither_a_product_nor_a_sibling_is_its_example(shown: Shown, strategy: Strategy) -> None:
    """With siblings left out, as trials ask for it; pinned or not."""
    own = [
        replace(CATALOGUE[3], tags=None),
        Product("9", TITLES["w4"].upper()),
        Product("9", "nylon wallet for travel", group="travel"),
    ]
    for product in own:
        for rule in (Examples(strategy=strategy), Examples(strategy=strategy, pinned=("w4",))):
            found = shown(rule, product, examples=6)
            assert len(found) == 5
            assert TITLES["w4"] not in found
    assert TITLES["w4"] in shown(Examples(strategy=strategy), NEW, examples=6)


@pytest.mark.parametrize("unknown", ["nobody", "n1"])
def test_a_wrong_pin_stops_before_the_first_product(index: CatalogueIndex, unknown: str) -> None:
    source = Header(examples=Examples(pinned=(unknown,))).text() + find_template("tag.v1").body
    generator = FakeGenerator()
    with pytest.raises(PromptError, match=unknown):
        build_tagger(index, TemplateFile("tag.v9", source), Settings(), generator)
    assert generator.asked == []
