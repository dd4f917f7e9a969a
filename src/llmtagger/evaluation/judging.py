"""Decides what is right: one notion of "the same tag" for gold, answers and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from llmtagger.datatypes import Product, ScoredTag, TaggedProduct
from llmtagger.normalise import normalise
from llmtagger.output import Cut
from llmtagger.vocabulary import Vocabulary, split_key
from llmtagger.wording import neutralise

Scored = list[dict[str, float]]  # for each product its items


class Judge:
    """Maps tags to items that are compared as sets.

    A tag and its aliases are one item. Unjudged tags and those under a key of `apart` are no item
    at all. With `alternatives`, the right values of one key are the same item.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        unjudged: Mapping[str, frozenset[str]] | None = None,
        apart: Iterable[str] = (),
        alternatives: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._unjudged = unjudged or {}
        self._apart = {normalise(key) for key in apart}
        self._alternatives = alternatives
        self._names: dict[str, str] = {}
        self._written: dict[str, str] = {}

    def name(self, tag: str) -> str:
        """The item's name: that of the vocabulary's tag, else the text as `normalise` sees it."""
        if tag not in self._names:
            known = self._vocabulary.resolve(tag)
            self._names[tag] = normalise(known.name if known else tag)
        return self._names[tag]

    def written(self, tag: str) -> str:
        """The item's name as people write it, one spelling for all that have the same `name`.

        That of the vocabulary's tag, else the spelling that was met first.
        """
        known = self._vocabulary.resolve(tag)
        return known.name if known else self._written.setdefault(self.name(tag), neutralise(tag))

    def gold(self, product: Product) -> frozenset[str]:
        """The items that are right for a labelled product."""
        names = {self.name(tag) for tag in product.tags or () if not self._left_out(tag)}
        return frozenset(self._merged(name, names) for name in names)

    def item(self, product: Product, tag: str) -> str | None:
        """The item that an answer stands for; None where it is neither right nor wrong."""
        if self._left_out(tag):
            return None
        name = self.name(tag)
        right = {self.name(each) for each in product.tags or ()}
        if name not in right:
            open_tags = self._unjudged.get(product.id, frozenset())
            if name in {self.name(each) for each in open_tags}:
                return None
        return self._merged(name, right)

    def _merged(self, name: str, right: set[str]) -> str:
        key = split_key(name)[0]
        return f"{key}=*" if self._alternatives and key and name in right else name

    def _left_out(self, tag: str) -> bool:
        key = split_key(self.name(tag))[0]
        return key is not None and key in self._apart


def gold_of(products: Sequence[Product], judge: Judge) -> list[frozenset[str]]:
    """Each product's gold items."""
    return [judge.gold(product) for product in products]


def as_kept(results: Sequence[TaggedProduct], judge: Judge, cut: Cut) -> list[frozenset[str]]:
    """Each product's items that a run would keep of it, were it new: its own tags are the gold."""
    found = []
    for tagged in results:
        kept = cut.place(tagged, as_new=True).kept
        items = (judge.item(tagged.product, scored.tag.name) for scored in kept)
        found.append(frozenset(item for item in items if item is not None))
    return found


def as_scores(
    results: Sequence[TaggedProduct],
    judge: Judge,
    value: Callable[[ScoredTag], float] = lambda scored: scored.score,
) -> Scored:
    """Each product's items with their scores; the best where several tags are one item."""
    found = []
    for tagged in results:
        scores: dict[str, float] = {}
        for scored in tagged.scored.items:
            item = judge.item(tagged.product, scored.tag.name)
            if item is not None and not scored.evidence.new:
                scores[item] = max(value(scored), scores.get(item, 0.0))
        found.append(scores)
    return found
