"""Chooses the labelled products that a prompt shows as examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from llmtagger.datatypes import Neighbour, ParsedTags, Product, Shortlist, Strategy
from llmtagger.errors import PromptError
from llmtagger.normalise import normalise
from llmtagger.protocols import Scorer, Vectors
from llmtagger.templates import Examples

_LIKENESS = 0.5  # what being unlike those shown counts, against being like the product


class LabelledProducts(Protocol):
    """The opened index, as far as examples are looked up in it."""

    vectors: Vectors

    def product(self, position: int) -> Product: ...

    def position(self, id: str) -> int | None: ...


class Exemplars:
    """Pinned products first, then neighbours in the order of the rule's strategy.

    A product is never its own example. One with its title or of its group is not shown to it by
    being pinned; whether neighbours may be such, retrieval decides. Raises `PromptError` where a
    pinned product is not in the index, or has no tags.
    """

    def __init__(self, rule: Examples, products: LabelledProducts, scorer: Scorer) -> None:
        self._order = STRATEGIES[rule.strategy]
        self._products, self._scorer = products, scorer
        self._pinned = tuple(self._find(id) for id in dict.fromkeys(rule.pinned))

    def choose(self, product: Product, shortlist: Shortlist, count: int) -> tuple[Product, ...]:
        """`count` examples at the most, those to be shown first first."""
        pinned = [each for each in self._pinned if not _alike(each, product)]
        shown = {each.id for each in pinned}
        free = [n for n in shortlist.neighbours if n.product.id not in shown]
        rest = self._order(self, product, shortlist, free, count - len(pinned))
        return (*pinned, *(neighbour.product for neighbour in rest))[:count]

    def similar(
        self, product: Product, shortlist: Shortlist, free: Sequence[Neighbour], count: int
    ) -> Sequence[Neighbour]:
        """The nearest."""
        return free[: max(count, 0)]

    def diverse(
        self, product: Product, shortlist: Shortlist, free: Sequence[Neighbour], count: int
    ) -> Sequence[Neighbour]:
        """Near to the product and unlike each other.

        Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), on the index's vectors.
        """
        rows = [self._products.position(each.product.id) for each in free]
        vectors = np.array([self._products.vectors[row] for row in rows], dtype=np.float32)
        near = np.array([each.similarity for each in free])
        like, chosen = np.zeros(len(free)), list[int]()
        for _ in range(min(count, len(free))):
            worth = (1 - _LIKENESS) * near - _LIKENESS * like
            worth[chosen] = -np.inf
            chosen.append(int(worth.argmax()))
            like = np.maximum(like, vectors @ vectors[chosen[-1]])
        return [free[at] for at in chosen]

    def covering(
        self, product: Product, shortlist: Shortlist, free: Sequence[Neighbour], count: int
    ) -> Sequence[Neighbour]:
        """Those that carry the tags in doubt: the ones that go wrong without the model.

        Each next one adds most doubt that none before it covers; doubt is the chance of being
        wrong about a candidate, by its score without an answer.
        """
        doubts = _doubts(self._scorer, product, shortlist)
        carries = {
            each.product.id: {
                candidate.tag.id
                for candidate in shortlist.candidates
                if any(id == each.product.id for id, _ in candidate.votes)
            }
            for each in free
        }
        left, chosen = list(free), list[Neighbour]()
        while left and len(chosen) < count:

            def gain(each: Neighbour) -> float:
                return sum(doubts.get(tag, 0.0) for tag in carries[each.product.id])

            best = max(left, key=gain)  # the nearest of equals
            left.remove(best)
            chosen.append(best)
            for tag in carries[best.product.id]:
                doubts.pop(tag, None)
        return chosen

    def _find(self, id: str) -> Product:
        row = self._products.position(id)
        product = None if row is None else self._products.product(row)
        if product is None or product.tags is None:
            raise PromptError(
                f"the pinned example {id!r} is no labelled product of the index",
                hint="pin another one, or add it: llmtagger index add",
            )
        return product


_Order = Callable[[Exemplars, Product, Shortlist, Sequence[Neighbour], int], Sequence[Neighbour]]
STRATEGIES: Mapping[Strategy, _Order] = {
    Strategy.SIMILAR: Exemplars.similar,
    Strategy.DIVERSE: Exemplars.diverse,
    Strategy.COVERING: Exemplars.covering,
}


def _alike(one: Product, other: Product) -> bool:
    same_group = bool(one.group) and one.group == other.group
    return one.id == other.id or same_group or normalise(one.title) == normalise(other.title)


def _doubts(scorer: Scorer, product: Product, shortlist: Shortlist) -> dict[str, float]:
    scored = scorer.score(product, shortlist, ParsedTags())
    return {item.tag.id: min(item.score, 1 - item.score) for item in scored.items}
