"""How far a literal mention can be trusted: by the tag that it names, and by where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmtagger.experts.places import PLACES, Place
from llmtagger.vocabulary import Vocabulary

_PULL = 2.0  # mentions' worth of pull towards the rate of the tag's key
_PLACE_PULL = 20.0  # mentions' worth of pull towards what a place is worth elsewhere
_RARE = 0.02  # of the right mentions, in a place where this catalogue's tags hardly stand
_START = 1.0  # right mentions that are taken for granted in each place
# How often a mention is right, as a share of how often one in a title is: about what six labelled
# sets have (see docs/scores.md); no set has reviews.
USUAL = {
    Place.TITLE: 1.0,
    Place.BRAND: 1.0,
    Place.CATEGORY: 1.0,
    Place.ATTRIBUTES: 1.0,
    Place.NEAR: 0.6,
    Place.FAR: 0.35,
    Place.BARE: 0.3,
    Place.REPEATED: 0.05,
    Place.LISTED: 0.05,
    Place.REVIEWS: 0.1,
}

UNLEARNT = dict.fromkeys(PLACES, 1.0) | {  # without labelled products mentions are all there is
    Place.REPEATED: 0.1,
    Place.LISTED: 0.1,
    Place.REVIEWS: 0.25,
}

Seen = tuple[Mapping[int, Place], set[int]]  # the tags that a product mentions, and carries


@dataclass(frozen=True)
class MentionRates:
    """How often mentions are right, by tag and by place.

    `counts` (tags, 2): products that mention the tag, and those of them that carry it. `places`
    (places, 2): the same in the order of `PLACES`, for a tag's best place in each product.
    `families` (tags,) has a number for each key; tags without a key share one.
    """

    counts: NDArray[np.int64]
    places: NDArray[np.int64]
    families: NDArray[np.int64]

    @classmethod
    def fit(cls, vocabulary: Vocabulary, products: Iterable[Seen]) -> MentionRates:
        """Count over labelled products."""
        return cls.of(vocabulary, *_counts(len(vocabulary), products))

    @classmethod
    def of(
        cls, vocabulary: Vocabulary, counts: NDArray[np.int64], places: NDArray[np.int64]
    ) -> MentionRates:
        """The same from counts that were kept."""
        numbers: dict[str | None, int] = {None: 0}
        families = [numbers.setdefault(tag.key, len(numbers)) for tag in vocabulary]
        return cls(counts, places, np.array(families, dtype=np.int64))

    def without(self, products: Iterable[Seen]) -> MentionRates:
        """The same had those products not been there."""
        counts, places = _counts(len(self.counts), products)
        return MentionRates(self.counts - counts, self.places - places, self.families)

    def rates(self, mentioned: Mapping[int, Place]) -> dict[int, float]:
        """How likely each mentioned tag is right, 0..1.

        The share of its own mentions that are, pulled towards that of its key where they are rare,
        and moved by how the place compares with all places.
        """
        odds = self._rate_of_places / (1 - self._rate_of_places)
        usual = self._rate / (1 - self._rate)
        found = {}
        for tag, place in mentioned.items():
            share = self._of_tag(tag)
            moved = share / (1 - share) * float(odds[PLACES.index(place)]) / usual
            found[tag] = moved / (1 + moved)
        return found

    def credibility(self, place: Place) -> float:
        """How often a mention in a place is right, as a share of how often one in a title is."""
        rates = self._rate_of_places
        return min(1.0, float(rates[PLACES.index(place)] / rates[PLACES.index(Place.TITLE)]))

    def _of_tag(self, tag: int) -> float:
        named, carried = self._of_keys[self.families[tag]]
        base = (carried + 0.5) / (named + 1.0)
        return float((self.counts[tag, 1] + _PULL * base) / (self.counts[tag, 0] + _PULL))

    @cached_property
    def _rate(self) -> float:
        """The share of all mentions that are right."""
        named, carried = map(float, self.places.sum(axis=0))
        return (carried + 0.5) / (named + 1.0)

    @cached_property
    def _rate_of_places(self) -> NDArray[np.float64]:
        """(places,): the share that is right in each, pulled towards what is usual.

        Where nearly all right mentions stand elsewhere, less than usual is taken for granted: a
        name in a description says little if no labelled product has one there.
        """
        named, carried = self.places.astype(float).T
        known = (carried + _START) / (carried + _START + _RARE * carried.sum())
        usual = self._rate * np.array([USUAL[place] for place in PLACES]) * known
        rates: NDArray[np.float64] = (carried + _PLACE_PULL * usual) / (named + _PLACE_PULL)
        return rates

    @cached_property
    def _of_keys(self) -> NDArray[np.float64]:
        """(keys, 2): the counts of all tags of a key together."""
        return np.stack([np.bincount(self.families, each) for each in self.counts.T], axis=1)


def _counts(tags: int, products: Iterable[Seen]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.zeros((tags, 2), dtype=np.int64)
    places = np.zeros((len(PLACES), 2), dtype=np.int64)
    for mentioned, carried in products:
        for tag, place in mentioned.items():
            right = (1, tag in carried)
            places[PLACES.index(place)] += right
            if place is not Place.REVIEWS:  # customers' words teach nothing of the shop's own
                counts[tag] += right
    return counts, places
