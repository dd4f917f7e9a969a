"""The experts together: fitted to labelled products, asked about new ones, or about their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmtagger.datatypes import Extraction, Opinion, Product, TagKind
from llmtagger.experts import extraction, linear
from llmtagger.experts.extraction import Extractor
from llmtagger.experts.linear import LinearExpert
from llmtagger.experts.mentions import UNLEARNT, MentionRates
from llmtagger.experts.places import Mention, Place, find_each, find_mentions, trimmed
from llmtagger.experts.sketch import Sketch
from llmtagger.experts.spelling import Speller
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import Vocabulary

MOST = 20_000  # labelled products that are learnt from; more cost minutes and add little
_TOP = 24  # tags that the linear expert names
_FOLDS = 5
_BELIEVED = 0.1  # credibility from which on a clause that names tags is compared,
_BELIEVED_NAMES = 0.6  # and one that is made of names
_TEXT_LIMIT = 2000  # characters


@dataclass(frozen=True, slots=True)
class Panel:
    """All that was learnt. Without labelled products only mentions are found."""

    vocabulary: Vocabulary
    sketch: Sketch | None = None
    linear: LinearExpert | None = None
    mentions: MentionRates | None = None
    extractor: Extractor | None = None
    speller: Speller | None = field(default=None, compare=False)

    @classmethod
    def fit(
        cls,
        products: Sequence[Product],
        vectors: Vectors,
        labels: Any,
        vocabulary: Vocabulary,
        *,
        given: bool,
    ) -> Panel:
        """Learn from labelled products: their vectors (n, d) and tags, a CSR matrix (n, tags).

        `given` says that the vocabulary was not read off these products.
        """
        if not products or not len(vocabulary):
            return cls(vocabulary)
        sketch = Sketch.fit(text_of(product) for product in products)
        return cls(
            vocabulary,
            sketch,
            linear.fit(features(sketch, products, vectors), labels),
            MentionRates.fit(vocabulary, _seen(products, labels, vocabulary, given)),
            extraction.fit(products) if has_spans(vocabulary) else None,
        )

    def compared(self, product: Product) -> Product:
        """The product as it is compared with others: without names that are not believed."""
        rates = self.mentions
        if rates is None:
            return product

        def believed(place: Place) -> bool:
            stuffed = place in (Place.REPEATED, Place.LISTED)
            return rates.credibility(place) >= (_BELIEVED_NAMES if stuffed else _BELIEVED)

        return trimmed(self.vocabulary, product, believed)

    def judge(self, products: Sequence[Product], vectors: Vectors) -> list[Opinion]:
        """One opinion a product, in order."""
        estimates = self._estimates(products, vectors)
        opinions = []
        for row, product in enumerate(products):
            mentions, misspelt = _find(self.vocabulary, self.speller, product)
            opinions.append(
                Opinion(
                    linear=estimates[row],
                    **_told(mentions, misspelt, self.mentions),
                    extracted=self.extractor.extract(product) if self.extractor else (),
                )
            )
        return opinions

    def _estimates(self, products: Sequence[Product], vectors: Vectors) -> list[dict[int, float]]:
        if self.linear is None or self.sketch is None:
            return [{} for _ in products]
        read = [self.compared(product) for product in products]
        estimates = self.linear.estimate(features(self.sketch, read, vectors))
        return [best(self.linear.tags, row) for row in estimates]


class LeftOut:
    """The experts' opinions of products that they were fitted to, each without its own group.

    The linear expert and the mentions are exact, as if fitted without the group; the extractor is
    cross-fitted in 5 folds. Tags that nobody outside the group carries are unknown, unless the
    vocabulary was `given` rather than read off the products.
    """

    def __init__(
        self,
        panel: Panel,
        products: Sequence[Product],
        vectors: Vectors,
        labels: Any,
        groups: Sequence[int],
        *,
        given: bool,
    ) -> None:
        self._panel = panel
        self._opinions: dict[str, Opinion] = {}
        if panel.sketch is None or panel.mentions is None:
            self._opinions = {
                p.id: o for p, o in zip(products, panel.judge(products, vectors), strict=True)
            }
            return
        tags, estimates = linear.left_out(features(panel.sketch, products, vectors), labels, groups)
        extracted = _cross_fitted(products, groups) if panel.extractor else {}
        seen = list(_seen(products, labels, panel.vocabulary, given))
        support = np.asarray(labels.sum(axis=0)).ravel()
        for members in linear.rows_of(groups):
            rates = panel.mentions.without(seen[row] for row in members)
            carried = np.asarray(labels[members].sum(axis=0)).ravel()
            own = {tag: int(carried[tag]) for tag in np.flatnonzero(carried).tolist()}
            lost = support - carried <= 0
            unknown = frozenset() if given else frozenset(np.flatnonzero(lost).tolist())
            speller = panel.speller and panel.speller.without(products[row] for row in members)
            for row in members.tolist():
                product = products[row]
                mentions, misspelt = _find(panel.vocabulary, speller, product, unknown)
                self._opinions[product.id] = Opinion(
                    linear=best(tags, estimates[row]),
                    **_told(mentions, misspelt, rates),
                    extracted=extracted.get(product.id, ()),
                    unknown=unknown,
                    own=own,
                )

    def compared(self, product: Product) -> Product:
        """The product as it is compared with others, by what all were taught."""
        return self._panel.compared(product)

    def judge(self, products: Sequence[Product], vectors: Vectors) -> list[Opinion]:
        """The opinions of some of the products."""
        return [self._opinions[product.id] for product in products]


def _cross_fitted(
    products: Sequence[Product], groups: Sequence[int]
) -> dict[str, tuple[Extraction, ...]]:
    fold = np.asarray(groups) % _FOLDS
    found = {}
    for number in range(_FOLDS):
        kept = [p for p, of in zip(products, fold, strict=True) if of != number]
        extractor = extraction.fit(kept)
        for product, of in zip(products, fold, strict=True):
            if of == number:
                found[product.id] = extractor.extract(product)
    return found


def _seen(
    products: Sequence[Product], labels: Any, vocabulary: Vocabulary, given: bool
) -> Iterator[tuple[dict[int, Place], set[int]]]:
    """What each product mentions, and where, and what it carries.

    A tag that a product alone brought into the vocabulary hides shorter mentions in its own text,
    but not in another's: these count as well.
    """
    support = np.asarray(labels.sum(axis=0)).ravel()
    for row, product in enumerate(products):
        carried = set(labels.indices[labels.indptr[row] : labels.indptr[row + 1]].tolist())
        mentioned = find_mentions(vocabulary, product)
        brought = set() if given else {tag for tag in carried if support[tag] == 1}
        if brought & mentioned.keys():
            mentioned = find_mentions(vocabulary, product, without=brought) | mentioned
        yield _places(mentioned), carried


def _places(mentions: Mapping[int, Mention]) -> dict[int, Place]:
    return {tag: mention.place for tag, mention in mentions.items()}


def _find(
    vocabulary: Vocabulary,
    speller: Speller | None,
    product: Product,
    without: frozenset[int] = frozenset(),
) -> tuple[dict[int, Mention], dict[int, Mention]]:
    """The tags that a product mentions, and those that it mentions misspelt only."""
    names = (vocabulary, speller) if speller else (vocabulary,)
    mentions, *others = find_each(names, product, without=without)
    found = others[0] if others else {}
    return mentions, {tag: found[tag] for tag in found if tag not in mentions}


def _told(
    mentions: Mapping[int, Mention], misspelt: Mapping[int, Mention], rates: MentionRates | None
) -> dict[str, Any]:
    """What an opinion says of mentions: without rates, how places compare as a rule."""
    places = _places({**mentions, **misspelt})
    of = rates.credibility if rates else UNLEARNT.__getitem__
    return {
        "mentioned": {tag: mention.spans for tag, mention in mentions.items()},
        "misspelt": {tag: mention.spans for tag, mention in misspelt.items()},
        "credibility": {tag: of(place) for tag, place in places.items()},
        "trust": rates.rates(places) if rates else {},
    }


def features(sketch: Sketch, products: Sequence[Product], vectors: Vectors) -> Vectors:
    """Unit rows: a product's vector and the sketch of its words, both with the same weight."""
    words = sketch.encode([text_of(product) for product in products])
    return np.hstack([vectors, words]).astype(np.float32) * np.float32(np.sqrt(0.5))


def best(tags: Any, estimates: Any) -> dict[int, float]:
    """The tags of the highest estimates above 0, 24 at the most."""
    top = np.argpartition(-estimates, _TOP - 1)[:_TOP] if len(estimates) > _TOP else slice(None)
    return {
        int(tag): float(estimate)
        for tag, estimate in zip(tags[top], estimates[top], strict=True)
        if estimate > 0
    }


def has_spans(vocabulary: Vocabulary) -> bool:
    """Whether any value of the vocabulary is to be read off the text."""
    return any(tag.kind is TagKind.SPAN for tag in vocabulary)


def text_of(product: Product) -> str:
    """What the sketch sees of a product."""
    return product.text()[:_TEXT_LIMIT]
