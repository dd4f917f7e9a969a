"""Where in a product's text a tag is mentioned: that tells how much the mention says.

A shop names what it sells in the title, or in a sentence about it. A name that stands by itself,
in a list of names, or in a sentence that shares no word with the title may have been put there for
another reason.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Protocol

from llmtagger.datatypes import Product, Span
from llmtagger.normalise import FoldedText, is_han
from llmtagger.vocabulary import Hit, Vocabulary

_ENDS = re.compile(r"[\r\n]+|[.!?;]\s|[。！？；]")
_WORD = re.compile(r"[^\W_]+")
_SHORTEST = 3  # letters of a word that tells what a clause is about
_EMPTY = frozenset(
    (
        *(
            "the",
            "and",
            "for",
            "you",
            "are",
            "our",
            "its",
            "can",
            "has",
            "not",
            "all",
            "any",
            "one",
        ),
        *("this", "that", "with", "from", "your", "have", "will", "made", "product", "item"),
        *("产品", "商品", "本品"),
    )
)
_OFTEN = 3  # times that one clause says a name
_MANY = 6  # different names that make a clause a list, if there is little else in it
_MOST = 0.6  # of a clause's letters and digits
_SHOWN = 3  # places of a mention that are kept


class Place(StrEnum):
    """Kinds of places, the most telling first; from `NEAR` to `LISTED`, in a description."""

    TITLE = "title"
    BRAND = "brand"
    CATEGORY = "category"
    ATTRIBUTES = "attributes"
    NEAR = "near"  # a clause that shares a word with the fields above
    FAR = "far"  # a clause that shares none
    BARE = "bare"  # a clause of little but this name
    REPEATED = "repeated"  # a clause that says this name three times or more
    LISTED = "listed"  # a clause of little but many names
    REVIEWS = "reviews"


PLACES = tuple(Place)


@dataclass(frozen=True, slots=True)
class Mention:
    """The stretches of text that name a tag, three at the most, and the best place among all."""

    spans: tuple[Span, ...]
    place: Place


class Names(Protocol):
    """Finds names of tags in a text; see `Vocabulary.hits`."""

    def hits(self, folded: FoldedText, without: Collection[int] = ...) -> Iterable[Hit]: ...


def find_mentions(
    names: Names, product: Product, *, without: Collection[int] = frozenset()
) -> dict[int, Mention]:
    """By position in the vocabulary, the tags that a product names, with their best places.

    By a vocabulary's own names, the spans are those of `Vocabulary.mentions`.
    """
    (found,) = find_each((names,), product, without=without)
    return found


def find_each(
    several: Sequence[Names], product: Product, *, without: Collection[int] = frozenset()
) -> list[dict[int, Mention]]:
    """`find_mentions` by several kinds of names, for little more than one of them costs."""
    texts = [
        (field, _Clauses(text) if field == "description" else FoldedText(text))
        for field, text in product.sources()
    ]
    return [_find(names, product, texts, without) for names in several]


def _find(
    names: Names,
    product: Product,
    texts: Sequence[tuple[str, FoldedText]],
    without: Collection[int],
) -> dict[int, Mention]:
    spans: defaultdict[int, list[Span]] = defaultdict(list)
    places: dict[int, Place] = {}
    own: frozenset[str] | None = None
    for field, folded in texts:
        hits = list(names.hits(folded, without))
        if not hits:
            continue
        if isinstance(folded, _Clauses):
            own = own or _own_words(product)
            placed = _in_description(folded, hits, own)
        else:
            placed = [Place(field.partition(".")[0])] * len(hits)
        for (start, end, tags), place in zip(hits, placed, strict=True):
            for tag in tags:
                if len(spans[tag]) < _SHOWN:
                    spans[tag].append(Span(field, folded.written(start, end)))
                places[tag] = min(places.get(tag, place), place, key=PLACES.index)
    return {tag: Mention(tuple(found), places[tag]) for tag, found in spans.items()}


class _Clauses(FoldedText):
    """A folded text that knows where its clauses begin."""

    __slots__ = ("_begins", "_cuts")

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._begins, self._cuts = [0], [0]  # in the folded text, and in the source
        for found in _ENDS.finditer(source):
            begin = bisect_left(self._starts, found.end())
            if self._begins[-1] < begin < len(self.text):
                self._begins.append(begin)
                self._cuts.append(found.end())

    def number(self, at: int) -> int:
        """The number of the clause that a position belongs to."""
        return bisect_right(self._begins, at) - 1

    def clause(self, number: int) -> str:
        """A clause's text."""
        ends = (*self._begins[1:], len(self.text))
        return self.text[self._begins[number] : ends[number]]

    def without(self, numbers: Container[int]) -> str:
        """The text as it was written, without some of its clauses."""
        cuts = (*self._cuts, len(self._source))
        kept = (at for at in range(len(self._cuts)) if at not in numbers)
        return "".join(self._source[cuts[at] : cuts[at + 1]] for at in kept).strip()


def trimmed(vocabulary: Vocabulary, product: Product, believed: Callable[[Place], bool]) -> Product:
    """The product without those clauses of its description where it names tags unbelieved."""
    if not product.description:
        return product
    text = _Clauses(product.description)
    hits = list(vocabulary.hits(text))
    places = _in_description(text, hits, _own_words(product)) if hits else []
    numbers = {
        text.number(hit[0]) for hit, place in zip(hits, places, strict=True) if not believed(place)
    }
    return replace(product, description=text.without(numbers)) if numbers else product


def _in_description(text: _Clauses, hits: Sequence[Hit], own: frozenset[str]) -> list[Place]:
    """The place of each hit."""
    by_clause: defaultdict[int, list[Hit]] = defaultdict(list)
    for hit in hits:
        by_clause[text.number(hit[0])].append(hit)
    found: dict[tuple[int, int], Place] = {}
    for number, several in by_clause.items():
        clause = text.clause(number)
        letters = max(1, sum(map(str.isalnum, clause)))
        times = Counter(text.text[start:end] for start, end, _ in several)
        names = {name: n * sum(map(str.isalnum, name)) for name, n in times.items()}
        is_list = len(names) >= _MANY and sum(names.values()) > _MOST * letters
        shared = _words(clause) & own
        for start, end, _ in several:
            name = text.text[start:end]
            if is_list:
                found[start, end] = Place.LISTED
            elif times[name] >= _OFTEN:
                found[start, end] = Place.REPEATED
            elif names[name] > _MOST * letters:
                found[start, end] = Place.BARE
            else:
                found[start, end] = Place.NEAR if shared - _words(name) else Place.FAR
    return [found[start, end] for start, end, _ in hits]


def _own_words(product: Product) -> frozenset[str]:
    """The words of all fields but the description."""
    texts = (text for field, text in product.fields() if field != "description")
    return frozenset().union(*(_words(FoldedText(text).text) for text in texts))


def _words(text: str) -> frozenset[str]:
    """Words of three letters or more without a plural s, and pairs of Chinese characters."""
    found: set[str] = set()
    for word in _WORD.findall(text):
        if any(map(is_han, word)):
            found.update(a + b for a, b in pairwise(word))
        elif len(word) >= _SHORTEST:
            found.add(word.removesuffix("s") if len(word) > _SHORTEST else word)
    return frozenset(found - _EMPTY)
