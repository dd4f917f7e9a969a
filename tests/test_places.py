"""Where a mention stands, and what mentions in such places have been worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.datatypes import Product, Span, Tag
from llmtagger.experts.mentions import USUAL, MentionRates, Seen
from llmtagger.experts.places import PLACES, Place, find_mentions, trimmed
from llmtagger.vocabulary import Vocabulary

NAMES = (
    "wallet",
    "leather",
    "coin pocket",
    "gold",
    "silver",
    "wool",
    "linen",
    "silk",
    "真皮",
    "钱包",
)
VOCABULARY = Vocabulary([Tag(name, name) for name in NAMES])
LEATHER = 1
WALLET = Product("1", "Zippered wallet", brand="Montana")

PLACED: dict[str, tuple[Product, Place]] = {
    "in the title": (Product("1", "Leather wallet"), Place.TITLE),
    "as the brand": (replace(WALLET, brand="Leather"), Place.BRAND),
    "as the category": (replace(WALLET, category="Leather"), Place.CATEGORY),
    "as an attribute": (replace(WALLET, attributes={"Stuff": "leather"}), Place.ATTRIBUTES),
    "in a sentence with a word of the title": (
        replace(WALLET, description="This wallet is made of soft leather."),
        Place.NEAR,
    ),
    "in the plural of a word of the title": (
        replace(WALLET, description="Our wallets come in leather."),
        Place.NEAR,
    ),
    "in a sentence with the brand": (
        replace(WALLET, description="Montana makes it of the best leather there is."),
        Place.NEAR,
    ),
    "in another sentence": (
        replace(WALLET, description="Zippered wallet. Evidence for leather: verified by staff."),
        Place.FAR,
    ),
    "in another line": (
        replace(WALLET, description="Zippered wallet\nGoes well with any leather shoes"),
        Place.FAR,
    ),
    "by itself": (replace(WALLET, description="Zippered wallet\nleather"), Place.BARE),
    "many times": (
        replace(WALLET, description="leather leather leather best leather"),
        Place.REPEATED,
    ),
    "in a list of names": (
        replace(WALLET, description="gold, silver, leather, wool, linen, silk"),
        Place.LISTED,
    ),
    "in a list with the title's word": (
        replace(WALLET, description="wallet, gold, silver, leather, wool, linen, silk"),
        Place.LISTED,
    ),
    "in a review": (replace(WALLET, reviews=("Real leather",)), Place.REVIEWS),
    "twice, the better place counts": (
        replace(WALLET, description="leather\nA wallet of the softest leather."),
        Place.NEAR,
    ),
}


@pytest.mark.parametrize(("product", "place"), PLACED.values(), ids=PLACED)
def test_the_place_of_a_mention(product: Product, place: Place) -> None:
    assert find_mentions(VOCABULARY, product)[LEATHER].place is place


@pytest.mark.parametrize(
    ("description", "place"),
    [
        ("这款钱包采用头层真皮制作", Place.NEAR),
        ("旗舰手提包。真皮的依据：已由工作人员核实。", Place.FAR),
        ("真皮 真皮 真皮 最佳真皮", Place.REPEATED),
        ("真皮", Place.BARE),
    ],
)
def test_chinese_is_told_by_pairs_of_characters(description: str, place: Place) -> None:
    product = Product("1", "男士钱包", description=description, lang="zh")
    assert find_mentions(VOCABULARY, product)[NAMES.index("真皮")].place is place


CUT: dict[str, tuple[str, str]] = {
    "a clause among others": (
        "A wallet with a zip.\nleather leather\nMade to last!",
        "A wallet with a zip.\nMade to last!",
    ),
    "the last clause": ("A wallet with a zip. leather", "A wallet with a zip."),
    "the only clause": ("leather leather", ""),
    "no clause": ("A wallet of soft leather.\n  Ａ zip", "A wallet of soft leather.\n  Ａ zip"),
    "a Chinese clause": ("头层钱包结实耐用。真皮真皮。送礼", "头层钱包结实耐用。送礼"),
}


@pytest.mark.parametrize(("description", "left"), CUT.values(), ids=CUT)
def test_clauses_that_are_not_believed_are_not_compared(description: str, left: str) -> None:
    product = replace(WALLET, description=description)
    found = trimmed(VOCABULARY, product, lambda place: place is not Place.BARE)
    assert found == replace(WALLET, description=left)
    assert trimmed(VOCABULARY, product, lambda place: True) is product


WORDS = st.sampled_from([*NAMES, "a", "of", "\n", ". ", "。", "Zippered", "İ", "\u0301", ", "])
TEXTS = st.lists(WORDS, max_size=20).map(" ".join)


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=2).map(tuple))
def test_the_spans_are_those_of_the_vocabulary(
    title: str, description: str, reviews: tuple[str, ...]
) -> None:
    product = Product("1", title, description=description, reviews=reviews)
    found = find_mentions(VOCABULARY, product)
    assert {tag: mention.spans for tag, mention in found.items()} == VOCABULARY.mentions(product)
    named = {Place.TITLE: title, Place.REVIEWS: " ".join(reviews)}
    for mention in found.values():
        assert isinstance(mention.spans[0], Span)
        if mention.place in named:
            assert mention.spans[0].text.casefold() in named[mention.place].casefold()


def rates(**of: tuple[int, int]) -> MentionRates:
    """Mentions and right ones by place, all of one tag."""
    places = np.array([of.get(place.value, (0, 0)) for place in PLACES], dtype=np.int64)
    return MentionRates.of(VOCABULARY, np.zeros((len(VOCABULARY), 2), np.int64), places)


def test_with_nothing_learnt_a_place_is_worth_what_is_usual() -> None:
    for place in PLACES:
        assert rates().credibility(place) == pytest.approx(USUAL[place])


LEARNT: dict[str, tuple[MentionRates, Place, float, float]] = {
    "right as often as in titles": (rates(title=(200, 150), far=(200, 150)), Place.FAR, 0.9, 1),
    "never right": (rates(title=(200, 150), near=(200, 0)), Place.NEAR, 0, 0.03),
    "never seen, of many": (rates(title=(2000, 1500)), Place.NEAR, 0, 0.02),
    "never seen, of few": (rates(title=(4, 3)), Place.NEAR, 0.5, 0.6),
    "lists are common here": (rates(title=(200, 100), listed=(200, 100)), Place.LISTED, 0.8, 1),
    "titles hardly tell": (rates(title=(200, 4), near=(200, 20)), Place.NEAR, 1, 1),
}


@pytest.mark.parametrize(("learnt", "place", "least", "most"), LEARNT.values(), ids=LEARNT)
def test_a_catalogue_teaches_what_its_places_are_worth(
    learnt: MentionRates, place: Place, least: float, most: float
) -> None:
    assert least <= learnt.credibility(place) <= most


COUNTS = st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda n: (max(n), min(n)))


@given(st.dictionaries(st.sampled_from([p.value for p in PLACES]), COUNTS))
def test_rates_are_probabilities_and_a_right_mention_more_never_lowers_a_place(
    counts: dict[str, tuple[int, int]],
) -> None:
    learnt = rates(**counts)
    for place in PLACES:
        named, right = counts.get(place.value, (0, 0))
        (trust,) = learnt.rates({0: place}).values()
        assert 0 < trust < 1
        assert 0 < learnt.credibility(place) <= 1
        more = rates(**{**counts, place.value: (named + 1, right + 1)})
        if place is not Place.TITLE:
            assert more.credibility(place) >= learnt.credibility(place) - 0.02


def test_products_left_out_are_taken_off_their_places() -> None:
    seen: list[Seen] = [
        ({0: Place.TITLE, 1: Place.FAR}, {0}),
        ({0: Place.NEAR}, {0}),
        ({1: Place.REVIEWS}, {1}),
    ]
    rest = MentionRates.fit(VOCABULARY, seen).without(seen[1:])
    alone = MentionRates.fit(VOCABULARY, seen[:1])
    np.testing.assert_array_equal(rest.places, alone.places)
    np.testing.assert_array_equal(rest.counts, alone.counts)
