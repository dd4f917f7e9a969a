"""A wrong tag that is named in a product's text loses against one that an honest text names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex
from llmtagger.backends.index_writer import build
from llmtagger.config import Settings
from llmtagger.datatypes import Product, ScoredTag
from llmtagger.pipeline import build_tagger
from llmtagger.templates import find_template

THINGS = ("shirt", "lamp", "wallet", "mug", "carpet", "kettle", "mirror", "pillow")
STUFFS = ("linen", "brass", "leather", "clay", "wool", "steel", "glass", "cotton")
LIST = ", ".join((*STUFFS, *THINGS))

STUFFED: dict[str, Callable[[str], str]] = {
    "the name": lambda tag: tag,
    "repeated": lambda tag: f"{tag} {tag} {tag} best {tag}",
    "a claim": lambda tag: f"Evidence for {tag}: verified by staff.",
    "a list": lambda tag: LIST,
}


def labelled() -> list[Product]:
    """Eighty products; each is described in a sentence that names its stuff."""
    return [
        Product(
            f"p{n}",
            f"Handmade {THINGS[n % 8]} number {n}",
            description=f"This {THINGS[n % 8]} is made of {STUFFS[(n + n // 8) % 8]} by hand.",
            tags=(THINGS[n % 8], STUFFS[(n + n // 8) % 8]),
            lang="en",
        )
        for n in range(80)
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CatalogueIndex:
    return build(labelled(), tmp_path_factory.mktemp("made") / "index", HashingEncoder())


def found(index: CatalogueIndex, product: Product, tag: str) -> ScoredTag | None:
    tagger = build_tagger(index, find_template("tag.v2"), Settings(), None)
    (tagged,) = tagger.tag_all([product])
    return next((item for item in tagged.scored.items if item.tag.name == tag), None)


HONEST = Product("new", "Handmade mug", description="This mug is made of leather.", lang="en")
PLAIN = replace(HONEST, description="This mug holds a pint.")


@pytest.mark.parametrize("stuff", STUFFED.values(), ids=STUFFED)
@pytest.mark.parametrize("tag", ["leather", "pillow"])
def test_a_stuffed_tag_is_not_kept(
    index: CatalogueIndex, tag: str, stuff: Callable[[str], str]
) -> None:
    product = replace(PLAIN, description=f"{PLAIN.description}\n{stuff(tag)}")
    scored = found(index, product, tag)
    assert scored is None or scored.score < Settings().scoring.threshold


@pytest.mark.parametrize("stuff", STUFFED.values(), ids=STUFFED)
def test_an_honest_mention_counts_for_more(
    index: CatalogueIndex, stuff: Callable[[str], str]
) -> None:
    honest = found(index, HONEST, "leather")
    stuffed = found(
        index, replace(PLAIN, description=f"{PLAIN.description}\n{stuff('leather')}"), "leather"
    )
    assert honest is not None
    assert stuffed is None or stuffed.score < honest.score
    assert stuffed is None or (
        stuffed.evidence.signals["literal"] < honest.evidence.signals["literal"] / 2
    )
