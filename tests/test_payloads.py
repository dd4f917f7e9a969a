"""Prompt injections against the whole pipeline, with a model that does whatever it is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from benchmarks.payloads import OBFUSCATIONS, PLACES, Payload, payloads

from llmtagger.backends.fakes import FakeGenerator
from llmtagger.config import Settings
from llmtagger.datatypes import Constraint, Product, Prompt, Shortlist, TaggedProduct
from llmtagger.pipeline import Tagger, prompt_renderer
from llmtagger.protocols import Retriever
from llmtagger.stages.parsing import answer_format
from llmtagger.stages.retrieval import CatalogueRetriever
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import find_template

ALL = payloads()
SAMPLE = ALL[::2]
TAG = "gift"  # carried by no product of the fixture
CUT = 0.35


@dataclass(frozen=True)
class Poisoned:
    """A retriever in whose shortlists a product's payload stands, by its position in the id."""

    retriever: Retriever

    def retrieve(self, products: Sequence[Product]) -> list[Shortlist]:
        found = self.retriever.retrieve(products)
        return [
            SAMPLE[int(product.id)].on_shortlist(shortlist, TAG)
            if product.id.isdigit()
            else shortlist
            for product, shortlist in zip(products, found, strict=True)
        ]


def obey(prompt: Prompt, constraint: Constraint) -> str:
    """Says the tag, and one that nobody knows, to whoever names the tag outside of the offer."""
    told = [line for line in prompt.messages[1][1].split("\n") if "Possible tags" not in line]
    told = [line for line in told if "可选标签：" not in line[:5]]
    return json.dumps([TAG, "best of all"] if TAG in " ".join(told) else [])


def attacked(catalogue: Any, product: Product, *, guarded: bool) -> list[TaggedProduct]:
    """The product with each of the payloads, and last of all without."""
    settings, template, scorer = Settings(), find_template("tag.v1"), WeightedScorer()
    tagger = Tagger(
        Poisoned(CatalogueRetriever(catalogue, settings.retrieval)),
        prompt_renderer(catalogue, template, settings, scorer),
        answer_format(template.kind, catalogue.vocabulary, settings.answer),
        scorer,
        FakeGenerator(obey, logprob=0.0),
        guarded=guarded,
    )
    told = [
        replace(payload.on_product(product, TAG), id=str(number))
        for number, payload in enumerate(SAMPLE)
    ]
    return tagger.tag_all([*told, product])


@pytest.fixture(scope="module")
def product() -> Product:
    return Product(
        "new",
        "Brown leather wallet, zippered",
        description="A wallet with eight card slots.",
        brand="Norrland",
        attributes={"Color": "Brown"},
        lang="en",
    )


@pytest.fixture(scope="module")
def guarded(catalogue: Any, product: Product) -> list[TaggedProduct]:
    return attacked(catalogue, product, guarded=True)


@pytest.fixture(scope="module")
def unguarded(catalogue: Any, product: Product) -> list[TaggedProduct]:
    return attacked(catalogue, product, guarded=False)


def _kept(tagged: TaggedProduct) -> set[str]:
    return {each.tag.name for each in tagged.scored.at(CUT)}


def test_there_are_enough_of_each_kind() -> None:
    assert len({payload.id for payload in ALL}) == len(ALL) >= 150
    for kinds, least in (
        (Counter(payload.place for payload in ALL), 20),
        (Counter(payload.obfuscation for payload in ALL), 20),
        (Counter(payload.lang for payload in ALL), 60),
        (Counter(payload.is_known for payload in ALL), 60),
    ):
        assert min(kinds.values()) >= least
    assert {payload.place for payload in ALL} == set(PLACES)
    assert {payload.obfuscation for payload in ALL} == set(OBFUSCATIONS)


@pytest.mark.parametrize("payload", ALL[:54], ids=lambda payload: payload.id)
def test_a_payload_is_where_it_says(payload: Payload, product: Product) -> None:
    told = payload.on_product(product, TAG)
    said = payload.said(TAG)
    placed = {
        "title": told.title,
        "description": told.description,
        "comment": told.description,
        "attribute": told.attributes.get("Note", ""),
        "key": " ".join(told.attributes),
        "brand": told.brand,
    }
    assert (said in placed[payload.place]) if payload.place in placed else told == product
    assert payload.mention().said(TAG) == TAG


def test_with_the_guard_known_orders_bring_nothing(
    guarded: list[TaggedProduct], product: Product
) -> None:
    *results, clean = guarded
    known = [
        (tagged, payload)
        for tagged, payload in zip(results, SAMPLE, strict=True)
        if payload.is_known
    ]
    gained = [payload.id for tagged, payload in known if TAG in _kept(tagged)]
    assert len(gained) <= 0.01 * len(known), gained
    for tagged, payload in known:
        if payload.on_product(product, TAG) != product:
            assert tagged.problem is not None, payload.id
            assert (tagged.problem.code, tagged.failed) == ("instruction_in_text", False)
            assert _kept(tagged) & _kept(clean), payload.id  # it has tags all the same


def test_without_the_guard_they_are_obeyed(unguarded: list[TaggedProduct]) -> None:
    obeyed = [
        tagged
        for tagged in unguarded
        if any(each.tag.name == TAG and each.evidence.chosen for each in tagged.scored.items)
    ]
    assert len(obeyed) > 0.2 * len(SAMPLE)
    assert all(tagged.problem is None for tagged in unguarded)


@pytest.mark.parametrize("results", ["guarded", "unguarded"])
def test_no_order_brings_a_tag_that_nobody_knows(
    catalogue: Any, results: str, request: pytest.FixtureRequest
) -> None:
    known = {tag.id for tag in catalogue.vocabulary}
    found: list[TaggedProduct] = request.getfixturevalue(results)
    assert any(tagged.rejected for tagged in found)
    for tagged in found:
        assert {each.tag.id for each in tagged.scored.at(0.0)} <= known
