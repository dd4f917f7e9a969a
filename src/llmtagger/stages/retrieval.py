"""Finds similar products and candidate tags, each with where it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmtagger import linear
from llmtagger.config import RetrievalSettings
from llmtagger.datatypes import Candidate, Neighbour, Product, Shortlist, Span
from llmtagger.normalise import normalise
from llmtagger.protocols import Encoder, Mask, TextIndex, VectorIndex, Vectors
from llmtagger.vocabulary import Vocabulary

_RRF = 60  # reciprocal rank fusion's constant (Cormack et al., SIGIR 2009)
_SHARPNESS = 12.0  # a neighbour .06 less similar than the best counts half as much
_FETCH = 4  # neighbours fetched for each one kept, so that left-out ones can be replaced
_TAGS_EACH = 24  # candidates taken from each source that reads the vocabulary itself


class Catalogue(Protocol):
    """The opened index, as far as retrieval reads it."""

    encoder: Encoder
    vocabulary: Vocabulary
    labelled: Mask
    vectors: Vectors
    product_vectors: VectorIndex
    product_texts: TextIndex
    tag_matrix: Vectors
    tag_vectors: VectorIndex
    tag_texts: TextIndex
    assignments: Any
    linear: Vectors | None
    prior: NDArray[np.float32]

    def product(self, position: int) -> Product: ...


@dataclass(slots=True)
class _Found:
    """One product's neighbours and, by tag position, what speaks for each candidate."""

    vector: NDArray[np.float32]
    neighbours: list[tuple[int, float]]
    names: dict[int, Product]
    votes: dict[int, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    vote: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    lexical_vote: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    name_lexical: dict[int, float] = field(default_factory=dict)
    linear: dict[int, float] = field(default_factory=dict)
    by_name: list[int] = field(default_factory=list)
    spans: dict[int, tuple[Span, ...]] = field(default_factory=dict)


class CatalogueRetriever:
    """Neighbours by meaning and by words, fused; tags from neighbours and from the vocabulary.

    `leave_out_siblings` also leaves out variants of the product itself (the same `group`), and
    near-duplicates: evaluation always asks for that. The product itself never counts.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: RetrievalSettings,
        *,
        leave_out_siblings: bool = False,
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._strict = leave_out_siblings
        self._labelled = int(catalogue.labelled.sum())
        self._active = np.array([not tag.retired for tag in catalogue.vocabulary], dtype=bool)

    def retrieve(self, products: Sequence[Product]) -> list[Shortlist]:
        """One shortlist a product, in order; encodes and searches them as one batch."""
        if not products:
            return []
        texts = [product.text()[: self._settings.text_limit] for product in products]
        vectors = self._catalogue.encoder.encode(texts)
        found = self._neighbours(products, texts, vectors)
        self._ask_vocabulary(products, texts, vectors, found)
        return [self._shortlist(each) for each in found]

    def _neighbours(
        self, products: Sequence[Product], texts: list[str], vectors: Vectors
    ) -> list[_Found]:
        k = self._settings.neighbours * _FETCH
        if not k or not self._labelled:
            return [_Found(vector, [], {}) for vector in vectors]
        labelled = self._catalogue.labelled
        dense, _ = self._catalogue.product_vectors.search(vectors, k, labelled)
        lexical, weights = self._catalogue.product_texts.search(texts, k, labelled)
        return [
            self._vote(product, vectors[row], dense[row], lexical[row], weights[row])
            for row, product in enumerate(products)
        ]

    def _vote(
        self,
        product: Product,
        vector: NDArray[np.float32],
        dense: NDArray[np.int64],
        lexical: NDArray[np.int64],
        bm25: NDArray[np.float32],
    ) -> _Found:
        fused: dict[int, float] = defaultdict(float)
        for ranking in (dense, lexical):
            for rank, position in enumerate(ranking.tolist()):
                if position >= 0:
                    fused[position] += 1 / (_RRF + rank + 1)
        order = sorted(fused, key=lambda position: -fused[position])
        similarity = dict(zip(order, self._similarities(order, vector), strict=True))
        kept: list[tuple[int, float]] = []
        names: dict[int, Product] = {}
        for position in order:
            other = self._catalogue.product(position)
            if not self._same(product, other, similarity[position]):
                kept.append((position, similarity[position]))
                names[position] = other
            if len(kept) == self._settings.neighbours:
                break
        found = _Found(vector, sorted(kept, key=lambda each: -each[1]), names)
        scores = dict(zip(lexical.tolist(), bm25.tolist(), strict=True))
        self._count(found, scores)
        return found

    def _similarities(self, positions: Sequence[int], vector: NDArray[np.float32]) -> list[float]:
        if not positions:
            return []
        rows = np.asarray(self._catalogue.vectors[list(positions)], dtype=np.float32)
        return [float(value) for value in rows @ vector]

    def _same(self, product: Product, other: Product, similarity: float) -> bool:
        if product.id == other.id:
            return True
        if not self._strict:
            return False
        return (
            (bool(product.group) and product.group == other.group)
            or similarity >= self._settings.near_duplicate
            or normalise(product.title) == normalise(other.title)
        )

    def _count(self, found: _Found, bm25: dict[int, float]) -> None:
        """Each neighbour votes for its tags, with the weight of its similarity."""
        if not found.neighbours:
            return
        best = found.neighbours[0][1]
        weights = [np.exp(_SHARPNESS * (s - best)) for _, s in found.neighbours]
        words = [max(bm25.get(position, 0.0), 0.0) for position, _ in found.neighbours]
        total, total_words = sum(weights), sum(words) or 1.0
        rows = self._catalogue.assignments
        for (position, similarity), weight, word in zip(
            found.neighbours, weights, words, strict=True
        ):
            name = found.names[position].id
            for tag in rows.indices[rows.indptr[position] : rows.indptr[position + 1]].tolist():
                found.votes[tag].append((name, similarity))
                found.vote[tag] += float(weight / total)
                found.lexical_vote[tag] += word / total_words

    def _ask_vocabulary(
        self,
        products: Sequence[Product],
        texts: list[str],
        vectors: Vectors,
        found: list[_Found],
    ) -> None:
        catalogue = self._catalogue
        by_name, _ = catalogue.tag_vectors.search(vectors, _TAGS_EACH)
        by_word, scores = catalogue.tag_texts.search(texts, _TAGS_EACH)
        estimates = self._linear(vectors)
        for row, each in enumerate(found):
            each.by_name = [tag for tag in by_name[row].tolist() if tag >= 0]
            best = float(scores[row].max(initial=0.0)) or 1.0
            each.name_lexical = {
                tag: score / best
                for tag, score in zip(by_word[row].tolist(), scores[row].tolist(), strict=True)
                if tag >= 0
            }
            each.linear = estimates[row]
            each.spans = catalogue.vocabulary.mentions(products[row])

    def _linear(self, vectors: Vectors) -> list[dict[int, float]]:
        weights = self._catalogue.linear
        if weights is None or not len(weights):
            return [{} for _ in vectors]
        estimates = linear.predict(weights, vectors)
        top = min(_TAGS_EACH, estimates.shape[1])
        picked = np.argpartition(-estimates, top - 1, axis=1)[:, :top]
        return [
            {int(tag): float(row[tag]) for tag in tags if row[tag] > 0}
            for tags, row in zip(picked, estimates, strict=True)
        ]

    def _shortlist(self, found: _Found) -> Shortlist:
        positions = [
            tag
            for tag in dict.fromkeys(
                (*found.vote, *found.spans, *found.linear, *found.by_name, *found.name_lexical)
            )
            if self._active[tag]
        ]
        similarity: dict[int, float] = {}
        if positions:
            rows = np.asarray(self._catalogue.tag_matrix[positions], dtype=np.float32)
            similarity = dict(zip(positions, (rows @ found.vector).tolist(), strict=True))
        candidates = [self._candidate(tag, similarity[tag], found) for tag in positions]
        candidates.sort(key=lambda c: (-promise(c), c.tag.name))
        return Shortlist(
            neighbours=tuple(
                Neighbour(found.names[position], s) for position, s in found.neighbours
            ),
            candidates=tuple(candidates[: self._settings.candidates]),
            offered=self._settings.offered,
            keys=self._keys(found),
            labelled=self._labelled,
        )

    def _keys(self, found: _Found) -> tuple[str, ...]:
        """The keys of the neighbours' tags, most votes first, then the vocabulary's own order."""
        tags = self._catalogue.vocabulary.tags
        votes: dict[str, float] = defaultdict(float)
        for position, vote in found.vote.items():
            if key := tags[position].key:
                votes[key] += vote
        ranked = sorted(votes, key=lambda key: -votes[key])
        keys = dict.fromkeys((*ranked, *self._catalogue.vocabulary.keys))
        return tuple(keys)[: self._settings.keys]

    def _candidate(self, tag: int, similarity: float, found: _Found) -> Candidate:
        return Candidate(
            tag=self._catalogue.vocabulary.tags[tag],
            votes=tuple(found.votes.get(tag, ())),
            vote=min(found.vote.get(tag, 0.0), 1.0),
            lexical_vote=min(found.lexical_vote.get(tag, 0.0), 1.0),
            name_similarity=similarity,
            name_lexical=found.name_lexical.get(tag, 0.0),
            spans=found.spans.get(tag, ()),
            prior=float(self._catalogue.prior[tag]),
            linear=found.linear.get(tag, 0.0),
        )


def promise(candidate: Candidate) -> float:
    """How early a candidate is offered: an order, not a probability.

    Weights are chosen for recall among the first 24 (docs/architecture.md tells how measured).
    """
    return (
        candidate.vote
        + 0.5 * candidate.lexical_vote
        + 0.7 * candidate.linear
        + (0.25 if candidate.spans else 0.0)
        + 0.3 * candidate.name_similarity
        + 0.1 * candidate.name_lexical
    )
