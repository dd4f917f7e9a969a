"""Neighbours and candidates, with votes that a person can compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from llmtagger.config import RetrievalSettings
from llmtagger.datatypes import (
    Candidate,
    Extraction,
    Opinion,
    Product,
    Shortlist,
    Span,
    Tag,
    TagKind,
)
from llmtagger.protocols import Vectors
from llmtagger.stages.retrieval import CatalogueRetriever, promise
from llmtagger.vocabulary import Vocabulary

MakeCatalogue = Callable[..., Any]
HALF = math.sqrt(0.5)


class TableEncoder:
    """Looks the first word of a text up in a table of angles, in degrees."""

    name, revision, dimension = "table", "1", 2

    def __init__(self, **degrees: float) -> None:
        self.degrees = degrees

    def encode(self, texts: Sequence[str]) -> Vectors:
        angles = [math.radians(self.degrees.get((text.split() or [""])[0], 90)) for text in texts]
        return np.array([[math.cos(a), math.sin(a)] for a in angles], dtype=np.float32).reshape(
            len(texts), 2
        )


@dataclass
class Saying:
    """Has the same opinion of every product."""

    opinion: Opinion

    def compared(self, product: Product) -> Product:
        return product

    def judge(self, products: Sequence[Product], vectors: Vectors) -> list[Opinion]:
        assert len(products) == len(vectors)
        return [self.opinion for _ in products]


def _product(name: str, *tags: str, title: str = "", **rest: Any) -> Product:
    return Product(name, title or name, tags=tags or None, **rest)


def _vocabulary(names: str, *more: Tag) -> Vocabulary:
    return Vocabulary([*(Tag(name, name) for name in names.split()), *more])


def _by_name(shortlist: Shortlist) -> dict[str, Candidate]:
    return {candidate.tag.name: candidate for candidate in shortlist.candidates}


def _neighbours(shortlist: Shortlist) -> list[str]:
    return [neighbour.product.id for neighbour in shortlist.neighbours]


def _retrieve(
    catalogue: Any, product: Product, *, strict: bool = False, **settings: Any
) -> Shortlist:
    retriever = CatalogueRetriever(
        catalogue, RetrievalSettings(**settings), leave_out_siblings=strict
    )
    (shortlist,) = retriever.retrieve([product])
    return shortlist


def test_votes_are_weighted_by_similarity(make_catalogue: MakeCatalogue) -> None:
    # cosines with the query: near 1, far cos 60° = 1/2; a vote weighs exp(12 (cosine - best))
    products = [_product("near", "a", "b"), _product("far", "b", "c"), _product("unlabelled")]
    encoder = TableEncoder(query=0, near=0, far=60, unlabelled=0)
    catalogue = make_catalogue(products, _vocabulary("a b c"), encoder=encoder)
    shortlist = _retrieve(catalogue, _product("query"))
    assert _neighbours(shortlist) == ["near", "far"]
    assert [n.similarity for n in shortlist.neighbours] == pytest.approx([1.0, 0.5])
    found = _by_name(shortlist)
    weight = math.exp(-6)
    assert found["a"].vote == pytest.approx(1 / (1 + weight))
    assert found["b"].vote == pytest.approx(1.0)
    assert found["c"].vote == pytest.approx(weight / (1 + weight), rel=1e-3)
    assert dict(found["a"].votes) == pytest.approx({"near": 1.0})
    assert dict(found["b"].votes) == pytest.approx({"near": 1.0, "far": 0.5})
    assert shortlist.labelled == 2


def test_lexical_votes_are_shares_of_the_matching_words(make_catalogue: MakeCatalogue) -> None:
    products = [
        _product("1", "a", title="red cotton bag"),
        _product("2", "b", title="red hat"),
        _product("3", "c", title="mug"),
    ]
    catalogue = make_catalogue(products, _vocabulary("a b c"), encoder=TableEncoder())
    found = _by_name(_retrieve(catalogue, _product("9", title="red cotton scarf")))
    # words shared: 2, 1, 0
    assert found["a"].lexical_vote == pytest.approx(2 / 3)
    assert found["b"].lexical_vote == pytest.approx(1 / 3)
    assert found["c"].lexical_vote == 0
    assert found["c"].vote == pytest.approx(1 / 3)


def test_a_neighbour_of_either_ranking_counts(make_catalogue: MakeCatalogue) -> None:
    products = [
        _product("like", "a"),
        _product("word", "b", title="word query"),
        _product("x", "c"),
    ]
    catalogue = make_catalogue(
        products, _vocabulary("a b c"), encoder=TableEncoder(query=0, like=5, word=80, x=60)
    )
    shortlist = _retrieve(catalogue, _product("9", title="query"), neighbours=2)
    # fused 1/(60+rank): word is third by meaning and first by words, like first by meaning alone
    assert _neighbours(shortlist) == ["like", "word"]


def test_the_product_itself_never_counts(
    make_catalogue: MakeCatalogue, products: tuple[Product, ...], vocabulary: Vocabulary
) -> None:
    catalogue = make_catalogue(products, vocabulary)
    for product in products:
        for strict in (False, True):
            shortlist = _retrieve(catalogue, product, strict=strict)
            assert product.id not in _neighbours(shortlist)
            voters = {name for c in shortlist.candidates for name, _ in c.votes}
            assert product.id not in voters
            assert voters <= set(_neighbours(shortlist))


SIBLINGS = [
    _product("twin", "a", title="Blue mug", group="g1"),
    _product("same", "a", title="ＲＥＤ  mug"),
    _product("near", "a", title="close"),
    _product("other", "b", title="apart"),
    _product("groupless", "b", title="elsewhere", group=""),
]


@pytest.mark.parametrize(
    ("strict", "near_duplicate", "expected"),
    [
        pytest.param(False, 0.985, {"twin", "same", "near", "other", "groupless"}, id="kept"),
        pytest.param(True, 0.985, {"other", "groupless"}, id="left-out"),
        pytest.param(True, 0.9999, {"near", "other", "groupless"}, id="only-the-very-near"),
    ],
)
def test_siblings_and_near_duplicates_are_left_out_when_asked(
    make_catalogue: MakeCatalogue, strict: bool, near_duplicate: float, expected: set[str]
) -> None:
    encoder = TableEncoder(Red=0, Blue=40, close=5, apart=30, elsewhere=50)
    catalogue = make_catalogue(SIBLINGS, _vocabulary("a b"), encoder=encoder)
    query = _product("9", title="Red mug", group="g1")
    shortlist = _retrieve(catalogue, query, strict=strict, near_duplicate=near_duplicate)
    assert set(_neighbours(shortlist)) == expected
    assert bool(_by_name(shortlist)["a"].votes) == bool(expected & {"twin", "same", "near"})


def test_others_take_the_place_of_those_left_out(make_catalogue: MakeCatalogue) -> None:
    angles = {f"p{n}": float(n) for n in range(12)}
    products = [_product(f"p{n}", "a", group="g" if n < 4 else "") for n in range(12)]
    catalogue = make_catalogue(
        products, _vocabulary("a"), encoder=TableEncoder(query=-20, **angles)
    )
    query = _product("9", title="query", group="g")
    assert _neighbours(_retrieve(catalogue, query, neighbours=3)) == ["p0", "p1", "p2"]
    assert _neighbours(_retrieve(catalogue, query, neighbours=3, strict=True)) == ["p4", "p5", "p6"]


@pytest.mark.parametrize("labelled", [False, True], ids=["none-labelled", "no-products"])
def test_a_cold_start_rests_on_the_vocabulary(
    make_catalogue: MakeCatalogue, vocabulary: Vocabulary, labelled: bool
) -> None:
    stock = [] if labelled else [Product("1", "Leather wallet"), Product("2", "Mug")]
    catalogue = make_catalogue(stock, vocabulary)
    shortlist = _retrieve(catalogue, Product("9", "Brown wallet with coin pocket"))
    assert (shortlist.neighbours, shortlist.labelled) == ((), 0)
    assert shortlist.keys == ("Color", "Material")
    found = _by_name(shortlist)
    assert found["coin pocket"].spans == (Span("title", "coin pocket"),)
    assert found["Color=Brown"].spans == (Span("title", "Brown"),)
    assert not any(candidate.votes or candidate.vote for candidate in found.values())
    assert {c.tag.name for c in shortlist.candidates[:3]} == {
        "coin pocket",
        "wallet",
        "Color=Brown",
    }


def test_without_neighbours_wanted_none_vote(
    make_catalogue: MakeCatalogue, products: tuple[Product, ...], vocabulary: Vocabulary
) -> None:
    shortlist = _retrieve(make_catalogue(products, vocabulary), products[0], neighbours=0)
    assert shortlist.neighbours == ()
    assert "leather wallet" in _by_name(shortlist)


def test_an_empty_vocabulary_offers_nothing(make_catalogue: MakeCatalogue) -> None:
    catalogue = make_catalogue([_product("1", "a")], Vocabulary([]))
    shortlist = _retrieve(catalogue, _product("9"))
    assert (shortlist.candidates, shortlist.keys) == ((), ())


def test_retired_tags_are_never_offered(make_catalogue: MakeCatalogue) -> None:
    vocabulary = _vocabulary("mug", Tag("clearance", "clearance", retired=True))
    catalogue = make_catalogue([_product("1", "clearance", "mug")], vocabulary)
    found = _by_name(_retrieve(catalogue, _product("9", title="clearance mug")))
    assert set(found) == {"mug"}


def test_every_source_leaves_its_mark(make_catalogue: MakeCatalogue) -> None:
    vocabulary = _vocabulary("voted named linear", Tag("in the text", "t", aliases=("literal",)))
    said = Opinion(linear={2: 0.75}, mentioned={3: (Span("title", "literal"),)}, trust={3: 0.6})
    catalogue = make_catalogue(
        [_product("1", "voted")],
        vocabulary,
        encoder=TableEncoder(query=0, named=60),
        experts=Saying(said),
    )
    found = _by_name(_retrieve(catalogue, _product("9", title="query literal")))
    assert found["voted"].votes[0][0] == "1"
    assert found["voted"].prior == 1.0
    assert found["named"].name_similarity == pytest.approx(0.5)
    assert found["linear"].linear == 0.75
    assert found["in the text"].spans == (Span("title", "literal"),)
    assert found["in the text"].trust == 0.6
    assert found["voted"].linear == found["named"].linear == 0.0


COLOURS = Vocabulary(
    Tag(name, name, (name.split("=")[1] + "ish",), key="Color", kind=TagKind.SPAN)
    for name in ("Color=Red", "Color=Blue")
)


def _extraction(text: str, probability: float = 0.8, key: str = "Color") -> Extraction:
    return Extraction(key, Span("title", text), probability)


def _extracted(make_catalogue: MakeCatalogue, *said: Extraction, **opinion: Any) -> Shortlist:
    """What is offered for a title that shares nothing with the two colours of the vocabulary."""
    experts = Saying(Opinion({}, {}, {}, extracted=said, **opinion))
    catalogue = make_catalogue([], COLOURS, encoder=TableEncoder(), experts=experts)
    return _retrieve(catalogue, _product("9", title="scarf"))


def test_extracted_values_join_the_tags_that_they_name(make_catalogue: MakeCatalogue) -> None:
    found = _by_name(_extracted(make_catalogue, _extraction("RED"), _extraction("teal", 0.6)))
    assert set(found) == {"Color=Red", "Color=Blue", "Color=teal"}
    assert found["Color=Red"].tag == COLOURS.tags[0]
    assert (found["Color=Red"].extracted, found["Color=Red"].spans) == (
        0.8,
        (Span("title", "RED"),),
    )
    assert found["Color=Blue"].extracted == 0.0
    assert found["Color=teal"] == Candidate(
        Tag("Color=teal", "Color=teal", key="Color", kind=TagKind.SPAN),
        spans=(Span("title", "teal"),),
        extracted=0.6,
    )


def test_a_mention_is_the_better_place_to_show(make_catalogue: MakeCatalogue) -> None:
    mentioned = {0: (Span("brand", "Red"), Span("title", "red"))}
    experts = Saying(Opinion({}, mentioned, {0: 0.5}, extracted=(_extraction("RED"),)))
    catalogue = make_catalogue([], COLOURS, encoder=TableEncoder(), experts=experts)
    red = _by_name(_retrieve(catalogue, _product("9")))["Color=Red"]
    assert (red.spans, red.trust, red.extracted) == (mentioned[0], 0.5, 0.8)


@pytest.mark.parametrize(
    ("texts", "name"), [(("Teal", "teal", "TEAL"), "Color=teal"), (("red", "Red"), "Color=Red")]
)
def test_a_value_that_stands_there_twice_is_offered_once(
    make_catalogue: MakeCatalogue, texts: tuple[str, ...], name: str
) -> None:
    said = [_extraction(text, 0.9 if text in name else 0.3) for text in texts]
    shortlist = _extracted(make_catalogue, *said)
    assert [(c.tag.name, c.extracted) for c in shortlist.candidates if c.extracted] == [(name, 0.9)]


def test_new_values_are_safe_to_show(make_catalogue: MakeCatalogue) -> None:
    said = (_extraction("<|im_end|>\u200b"), _extraction("dark\n <|im_end|>teal"))
    found = _by_name(_extracted(make_catalogue, *said))
    assert set(found) == {"Color=Red", "Color=Blue", "Color=dark teal"}
    assert found["Color=dark teal"].spans == (said[1].span,)


def test_retired_values_are_not_offered_when_extracted(make_catalogue: MakeCatalogue) -> None:
    retired = Tag("Color=Red", "r", key="Color", kind=TagKind.SPAN, retired=True)
    experts = Saying(Opinion({}, {}, {}, extracted=(_extraction("red"),)))
    catalogue = make_catalogue([], Vocabulary([retired]), encoder=TableEncoder(), experts=experts)
    assert _retrieve(catalogue, _product("9")).candidates == ()


def test_unknown_tags_are_as_if_not_in_the_vocabulary(make_catalogue: MakeCatalogue) -> None:
    products = [_product("1", "Color=Red", title="red")]
    experts = Saying(
        Opinion({0: 0.9}, {0: (Span("title", "red"),)}, {0: 0.9}, unknown=frozenset({0}))
    )
    catalogue = make_catalogue(products, COLOURS, encoder=TableEncoder(), experts=experts)
    assert set(_by_name(_retrieve(catalogue, _product("9", title="red")))) == {"Color=Blue"}
    unknown = frozenset({0})
    found = _by_name(_extracted(make_catalogue, _extraction("red"), unknown=unknown))
    assert set(found) == {"Color=red", "Color=Blue"}
    assert found["Color=red"].tag == Tag(
        "Color=red", "Color=red", key="Color", kind=TagKind.SPAN
    ), "a new tag, not the vocabulary's"


def test_own_carriers_do_not_count_into_the_prior(make_catalogue: MakeCatalogue) -> None:
    products = [_product(f"{n}", "a" if n < 3 else "b") for n in range(4)]
    experts = Saying(Opinion({}, {}, {}, own={0: 2}))
    catalogue = make_catalogue(products, _vocabulary("a b"), experts=experts)
    found = _by_name(_retrieve(catalogue, _product("9")))
    assert (found["a"].prior, found["b"].prior) == (1 / 4, 1 / 4)


def test_experts_handed_in_replace_those_of_the_catalogue(make_catalogue: MakeCatalogue) -> None:
    catalogue = make_catalogue([], COLOURS, experts=Saying(Opinion({0: 0.9}, {}, {})))
    retriever = CatalogueRetriever(
        catalogue, RetrievalSettings(), experts=Saying(Opinion({1: 0.4}, {}, {}))
    )
    first, second = retriever.retrieve([_product("8"), _product("9")])
    for shortlist in (first, second):
        found = _by_name(shortlist)
        assert (found["Color=Red"].linear, found["Color=Blue"].linear) == (0.0, 0.4)


def test_words_of_a_name_are_measured_against_the_best(make_catalogue: MakeCatalogue) -> None:
    vocabulary = Vocabulary([Tag("red bag", "1"), Tag("red", "2"), Tag("mug", "3")])
    catalogue = make_catalogue([], vocabulary, encoder=TableEncoder())
    found = _by_name(_retrieve(catalogue, _product("9", title="bag of red wool")))
    assert {name: each.name_lexical for name, each in found.items()} == {
        "red bag": 1.0,
        "red": 0.5,
        "mug": 0.0,
    }


def test_candidates_are_sorted_by_promise_and_say_where_they_came_from(
    make_catalogue: MakeCatalogue, products: tuple[Product, ...], vocabulary: Vocabulary
) -> None:
    catalogue = make_catalogue(products, vocabulary)
    retriever = CatalogueRetriever(catalogue, RetrievalSettings(neighbours=3))
    nearest, _ = catalogue.tag_vectors.search(
        catalogue.encoder.encode([product.text() for product in products]), 24
    )
    for shortlist, names in zip(retriever.retrieve(products), nearest.tolist(), strict=True):
        order = [(-promise(c), c.tag.name) for c in shortlist.candidates]
        assert order == sorted(order)
        assert len({c.tag.id for c in shortlist.candidates}) == len(shortlist.candidates)
        for candidate in shortlist.candidates:
            assert bool(candidate.votes) == (candidate.vote > 0)
            sounds_alike = vocabulary.position(candidate.tag) in names
            assert candidate.votes or candidate.spans or candidate.name_lexical or sounds_alike
            for value in (candidate.vote, candidate.lexical_vote, candidate.prior):
                assert 0 <= value <= 1


def test_what_neighbours_and_text_say_comes_before_what_only_sounds_alike(
    catalogue: Any, products: tuple[Product, ...]
) -> None:
    by_id = {product.id: product for product in products}
    wallet = _retrieve(catalogue, by_id["n1"], neighbours=3)
    assert {c.tag.name for c in wallet.candidates[:4]} >= {"leather wallet", "Color=Brown"}
    phones = _retrieve(catalogue, by_id["n2"], neighbours=3)
    assert _neighbours(phones)[0] == "z1"
    assert {c.tag.name for c in phones.candidates[:3]} >= {"无线耳机", "降噪"}


def test_as_many_as_the_settings_say(catalogue: Any, products: tuple[Product, ...]) -> None:
    shortlist = _retrieve(catalogue, products[0], neighbours=2, candidates=5, offered=3)
    assert (len(shortlist.neighbours), len(shortlist.candidates)) == (2, 5)
    assert shortlist.offer == shortlist.candidates[:3]


def test_only_the_beginning_of_a_long_text_is_compared(make_catalogue: MakeCatalogue) -> None:
    products = [_product("1", "a", title="red"), _product("2", "b", title="blue")]
    catalogue = make_catalogue(products, _vocabulary("a b"), encoder=TableEncoder())
    query = _product("9", title="red " * 20 + "blue")
    found = _by_name(_retrieve(catalogue, query, text_limit=50))
    assert (found["a"].lexical_vote, found["b"].lexical_vote) == (1.0, 0.0)


def test_a_batch_finds_what_each_alone_finds(catalogue: Any, products: tuple[Product, ...]) -> None:
    retriever = CatalogueRetriever(catalogue, RetrievalSettings())
    assert retriever.retrieve([]) == []
    for product, together in zip(products, retriever.retrieve(products), strict=True):
        (alone,) = retriever.retrieve([product])
        assert _neighbours(alone) == _neighbours(together)
        assert [c.tag for c in alone.candidates] == [c.tag for c in together.candidates]
        for one, other in zip(alone.candidates, together.candidates, strict=True):
            assert one.vote == pytest.approx(other.vote, abs=1e-6)
            assert one.name_similarity == pytest.approx(other.name_similarity, abs=1e-6)


@pytest.mark.parametrize("title", ["", " ", "\u200b", "👍", "\u202eمرحبا", "x" * 100_000])
def test_any_title_finds_something_or_nothing(
    catalogue: Any, vocabulary: Vocabulary, title: str
) -> None:
    shortlist = _retrieve(catalogue, Product("9", title), strict=True)
    assert len(shortlist.neighbours) == 10
    assert all(not c.tag.retired for c in shortlist.candidates)


def test_keys_of_similar_products_come_first_and_are_bounded(make_catalogue: MakeCatalogue) -> None:
    vocabulary = Vocabulary(Tag(name, name, key=name[0]) for name in ("a=0", "a=1", "b=0", "c=0"))
    assert vocabulary.keys == ("a", "b", "c")
    products = [_product("near", "c=0"), _product("far", "b=0")]
    catalogue = make_catalogue(products, vocabulary, encoder=TableEncoder(query=0, near=0, far=60))
    shortlist = _retrieve(catalogue, _product("query"))
    assert shortlist.keys == ("c", "b", "a")
    assert _retrieve(catalogue, _product("query"), keys=2).keys == ("c", "b")
