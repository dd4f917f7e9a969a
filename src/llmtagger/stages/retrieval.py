"""Finds similar products and candidate tags, each with where it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmtagger.config import RetrievalSettings
from llmtagger.datatypes import (
    Candidate,
    Extraction,
    Neighbour,
    Opinion,
    Product,
    Shortlist,
    Tag,
    TagKind,
)
from llmtagger.normalise import normalise
from llmtagger.protocols import Encoder, Experts, Mask, TextIndex, VectorIndex, Vectors
from llmtagger.vocabulary import Vocabulary
from llmtagger.wording import neutralise

_RRF = 60  # reciprocal rank fusion's constant (Cormack et al., SIGIR 2009)
_SHARPNESS = 12.0  # a neighbour .06 less similar than the best counts half as much
_FETCH = 4  # neighbours fetched for each one kept, so that left-out ones can be replaced
_LONGEST_VALUE = 60  # characters of a value that the vocabulary does not know
_TAGS_EACH = 24  # candidates taken from each source that reads the vocabulary itself


class Catalogue(Protocol):
    """The opened index, as far as retrieval reads it."""

    encoder: Encoder
    vocabulary: Vocabulary
    live: Mask
    labelled: Mask
    vectors: Vectors
    product_vectors: VectorIndex
    product_texts: TextIndex
    tag_matrix: Vectors
    tag_vectors: VectorIndex
    tag_texts: TextIndex
    assignments: Any
    experts: Experts
    prior: NDArray[np.float32]

    def product(self, position: int) -> Product: ...

    def position(self, id: str) -> int | None: ...


_SILENCE = Opinion({}, {}, {})


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
    by_name: list[int] = field(default_factory=list)
    opinion: Opinion = _SILENCE
    extracted: dict[int, Extraction] = field(default_factory=dict)
    new: dict[str, tuple[Tag, Extraction]] = field(default_factory=dict)


class CatalogueRetriever:
    """Neighbours by meaning and by words, fused; tags from neighbours and from the vocabulary.

    `leave_out_siblings` also leaves out variants of the product itself (the same `group`), and
    near-duplicates: evaluation always asks for that. The product itself never counts. `experts` are
    asked instead of the catalogue's own.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: RetrievalSettings,
        *,
        leave_out_siblings: bool = False,
        experts: Experts | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._experts = experts or catalogue.experts
        self._settings = settings
        self._strict = leave_out_siblings
        self._labelled = int(catalogue.labelled.sum())
        self._open = {t.key for t in catalogue.vocabulary if t.kind is TagKind.SPAN}
        self._active = np.array([not tag.retired for tag in catalogue.vocabulary], dtype=bool)

    def retrieve(self, products: Sequence[Product]) -> list[Shortlist]:
        """One shortlist a product, in order; encodes and searches them as one batch."""
        if not products:
            return []
        read = [self._experts.compared(product) for product in products]
        texts = [product.text()[: self._settings.text_limit] for product in read]
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
        opinions = self._experts.judge(products, vectors)
        for row, each in enumerate(found):
            each.opinion = opinions[row]
            each.by_name = [tag for tag in by_name[row].tolist() if tag >= 0]
            best = float(scores[row].max(initial=0.0)) or 1.0
            each.name_lexical = {
                tag: score / best
                for tag, score in zip(by_word[row].tolist(), scores[row].tolist(), strict=True)
                if tag >= 0
            }
            self._place(each)

    def _place(self, found: _Found) -> None:
        """Sort what was extracted into tags of the vocabulary and new values, each at its best."""
        vocabulary = self._catalogue.vocabulary
        for extraction in sorted(found.opinion.extracted, key=lambda each: -each.probability):
            value = neutralise(extraction.span.text)
            name = f"{extraction.key}={value}"
            tag = vocabulary.resolve(name)
            if tag is not None and vocabulary.position(tag) not in found.opinion.unknown:
                found.extracted.setdefault(vocabulary.position(tag), extraction)
            elif 0 < len(value) <= _LONGEST_VALUE and extraction.key in self._open:
                new = Tag(name, name, key=extraction.key, kind=TagKind.SPAN)
                found.new.setdefault(normalise(name), (new, extraction))

    def _shortlist(self, found: _Found) -> Shortlist:
        positions = [
            tag
            for tag in dict.fromkeys(
                (
                    *found.vote,
                    *found.opinion.mentioned,
                    *found.opinion.misspelt,
                    *found.opinion.linear,
                    *found.extracted,
                    *found.by_name,
                    *found.name_lexical,
                )
            )
            if self._active[tag] and tag not in found.opinion.unknown
        ]
        rows = np.asarray(self._catalogue.tag_matrix[positions], dtype=np.float32)
        similarity = (rows @ found.vector).tolist()
        prior = self._catalogue.prior[positions].tolist()
        candidates = [
            self._candidate(*each, found) for each in zip(positions, similarity, prior, strict=True)
        ]
        candidates += [
            Candidate(tag, spans=(e.span,), extracted=e.probability)
            for tag, e in found.new.values()
        ]
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

    def _candidate(self, tag: int, similarity: float, prior: float, found: _Found) -> Candidate:
        total = max(1, self._labelled)
        opinion, extraction = found.opinion, found.extracted.get(tag)
        return Candidate(
            tag=self._catalogue.vocabulary.tags[tag],
            votes=tuple(found.votes.get(tag, ())),
            vote=min(found.vote.get(tag, 0.0), 1.0),
            lexical_vote=min(found.lexical_vote.get(tag, 0.0), 1.0),
            name_similarity=similarity,
            name_lexical=found.name_lexical.get(tag, 0.0),
            spans=opinion.mentioned.get(tag) or ((extraction.span,) if extraction else ()),
            prior=max(0.0, prior - opinion.own.get(tag, 0) / total),
            linear=opinion.linear.get(tag, 0.0),
            trust=opinion.trust.get(tag, 0.0),
            credibility=opinion.credibility.get(tag, 1.0),
            extracted=extraction.probability if extraction else 0.0,
            misspelt=opinion.misspelt.get(tag, ()),
        )


def promise(candidate: Candidate) -> float:
    """How early a candidate is offered: an order, not a probability.

    Weights are chosen for recall among the first 24 (docs/architecture.md tells how measured).
    """
    return (
        candidate.vote
        + 0.5 * candidate.lexical_vote
        + 0.7 * candidate.linear
        + 0.7 * candidate.extracted
        + (0.25 * (candidate.trust or 1.0) if candidate.spans or candidate.misspelt else 0.0)
        + 0.3 * candidate.name_similarity
        + 0.1 * candidate.name_lexical
    )
