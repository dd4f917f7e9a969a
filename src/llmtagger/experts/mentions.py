"""How far a literal mention can be trusted: of the products that name a tag, how many carry it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmtagger.vocabulary import Vocabulary

_PULL = 2.0  # mentions' worth of pull towards the rate of the tag's key

Seen = tuple[Iterable[int], set[int]]  # the tags that a product mentions, and those it carries


@dataclass(frozen=True)
class MentionRates:
    """`counts` (tags, 2): products that mention the tag, and those of them that carry it.

    `families` (tags,) has a number for each key; tags without a key share one.
    """

    counts: NDArray[np.int64]
    families: NDArray[np.int64]

    @classmethod
    def fit(cls, vocabulary: Vocabulary, products: Iterable[Seen]) -> MentionRates:
        """Count over labelled products."""
        return cls.of(vocabulary, _counts(len(vocabulary), products))

    @classmethod
    def of(cls, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> MentionRates:
        """The same from counts that were kept."""
        numbers: dict[str | None, int] = {None: 0}
        families = [numbers.setdefault(tag.key, len(numbers)) for tag in vocabulary]
        return cls(counts, np.array(families, dtype=np.int64))

    def without(self, products: Iterable[Seen]) -> MentionRates:
        """The same had those products not been there."""
        return MentionRates(self.counts - _counts(len(self.counts), products), self.families)

    def rates(self, mentioned: Iterable[int]) -> dict[int, float]:
        """The share in 0..1 for each mentioned tag, pulled towards that of its key where rare."""
        return {tag: self._rate(tag) for tag in mentioned}

    def _rate(self, tag: int) -> float:
        named, carried = self._of_keys[self.families[tag]]
        base = (carried + 0.5) / (named + 1.0)
        return float((self.counts[tag, 1] + _PULL * base) / (self.counts[tag, 0] + _PULL))

    @cached_property
    def _of_keys(self) -> NDArray[np.float64]:
        """(keys, 2): the counts of all tags of a key together."""
        return np.stack([np.bincount(self.families, each) for each in self.counts.T], axis=1)


def _counts(tags: int, products: Iterable[Seen]) -> NDArray[np.int64]:
    counts = np.zeros((tags, 2), dtype=np.int64)
    for mentioned, carried in products:
        for tag in mentioned:
            counts[tag] += (1, tag in carried)
    return counts
