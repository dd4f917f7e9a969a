"""What counts as right: one item for a tag and its aliases, none for what nobody judged."""

from __future__ import annotations

import pytest

from llmtagger.datatypes import Product, Tag, TagKind
from llmtagger.evaluation.judging import Judge
from llmtagger.vocabulary import Vocabulary

SHOP = Vocabulary(
    [
        Tag("Waterproof", "w", ("rainproof",), labels={"zh": "防水"}),
        Tag("travel", "t"),
        Tag("Color=Brown", "c1", ("tan",), key="Color", kind=TagKind.SPAN),
        Tag("Color=Red", "c2", key="Color", kind=TagKind.SPAN),
        Tag("Size=30 l", "s", key="Size"),
    ]
)


def product(*tags: str) -> Product:
    return Product("p", "Bag", tags=tags)


@pytest.mark.parametrize(
    ("tag", "item"),
    [
        pytest.param("Waterproof", "waterproof", id="its-name"),
        pytest.param("ＷＡＴＥＲＰＲＯＯＦ ", "waterproof", id="case-width-space"),
        pytest.param("Rainproof", "waterproof", id="an-alias"),
        pytest.param("防水", "waterproof", id="a-label"),
        pytest.param("TAN", "color=brown", id="an-alias-of-a-value"),
        pytest.param("size=30-L", "size=30 l", id="a-hyphen"),
        pytest.param("Brand New", "brand new", id="not-in-the-vocabulary"),
    ],
)
def test_a_tag_is_one_item_whatever_it_is_called(tag: str, item: str) -> None:
    judge = Judge(SHOP)
    assert judge.name(tag) == item
    assert judge.gold(product(tag)) == {item}
    for other in (product(), product(tag), product("travel")):
        assert judge.item(other, tag) == item


def test_gold_is_a_set_of_items() -> None:
    judge = Judge(SHOP)
    assert judge.gold(product("rainproof", "防水", "WATERPROOF", "travel")) == {
        "waterproof",
        "travel",
    }
    assert judge.gold(Product("p", "Bag")) == frozenset()


def test_the_unjudged_is_neither_right_nor_wrong() -> None:
    judge = Judge(SHOP, unjudged={"p": frozenset({"rainproof", "new"})})
    assert judge.item(product("travel"), "Waterproof") is None
    assert judge.item(product("travel"), "NEW") is None
    assert judge.item(product("travel"), "travel") == "travel"
    assert judge.item(product(), "Color=Red") == "color=red"
    other = Product("q", "Bag", tags=())
    assert judge.item(other, "Waterproof") == "waterproof"


def test_what_is_right_is_judged_even_if_it_is_listed_as_unjudged() -> None:
    judge = Judge(SHOP, unjudged={"p": frozenset({"Waterproof"})})
    assert judge.gold(product("rainproof")) == {"waterproof"}
    assert judge.item(product("rainproof"), "防水") == "waterproof"


@pytest.mark.parametrize("apart", ["Color", " COLOR", "ｃolor"])
def test_keys_that_are_kept_apart_are_no_items(apart: str) -> None:
    judge = Judge(SHOP, apart=[apart])
    held = product("Color=Brown", "tan", "color = red", "travel", "Color")
    assert judge.gold(held) == {"travel", "color"}
    for tag in ("Color=Brown", "color=RED", "Color=Unheard of", "tan"):
        assert judge.item(held, tag) is None
        assert judge.item(product(), tag) is None
    assert judge.item(held, "Size=30 l") == "size=30 l"
    assert judge.item(held, "Color") == "color"


def test_alternatives_count_once() -> None:
    """Two right values are one item; a wrong value stays itself, and so does another key's."""
    judge = Judge(SHOP, alternatives=True)
    held = product("Color=Brown", "Color=Red", "Size=30 l", "travel")
    gold = judge.gold(held)
    assert gold == {"color=*", "size=*", "travel"}
    said = {
        judge.item(held, tag) for tag in ("tan", "Color=Red", "Color=Blue", "Size=9 l", "travel")
    }
    assert said == {"color=*", "color=blue", "size=9 l", "travel"}
    assert len(said & gold) == 2  # one hit for both colours, and "travel"
    assert judge.item(held, "Color=Red") in gold


def test_alternatives_are_those_of_the_product() -> None:
    judge = Judge(SHOP, alternatives=True)
    assert judge.item(product("Color=Brown"), "Color=Red") == "color=red"
    assert judge.item(product("Color=Red"), "Color=Red") == "color=*"


def test_without_alternatives_every_value_counts() -> None:
    judge = Judge(SHOP)
    held = product("Color=Brown", "Color=Red")
    assert judge.gold(held) == {"color=brown", "color=red"}
    assert judge.item(held, "tan") == "color=brown"
