"""What people say of a product's tags, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from llmtagger.datatypes import Product
from llmtagger.normalise import normalise
from llmtagger.vocabulary import Vocabulary


class State(StrEnum):
    """How far a product's tags have been settled; a later mark makes it open again."""

    OPEN = "open"
    REVIEWED = "reviewed"  # somebody said that these are all its tags
    APPROVED = "approved"  # and they are the product's labels in the index


@dataclass(frozen=True, slots=True)
class Mark:
    """Somebody's word on one tag of one product; `at` is UTC in ISO 8601, to the second."""

    product_id: str
    tag: str
    right: bool
    author: str
    at: str


@dataclass(frozen=True, slots=True)
class Rating:
    """What somebody thought of one prompt version's tags for a product: 1 to 5 stars, or none."""

    product_id: str
    version: str
    stars: int | None
    comment: str
    author: str
    at: str


@dataclass(frozen=True, slots=True)
class Entry:
    """All that the book holds about a product, marks in the order in which they were made.

    `author` and `at` tell of the last change; `revision` grows with every one of them.
    """

    product: Product
    marks: tuple[Mark, ...]
    ratings: tuple[Rating, ...]
    state: State
    revision: int
    author: str
    at: str

    def verdicts(self, vocabulary: Vocabulary) -> dict[str, bool]:
        """Every tag that was said to be right or wrong, the product's own included."""
        return settle(words(self.product, self.marks), vocabulary)


def words(product: Product, marks: Iterable[Mark]) -> Iterator[tuple[str, bool]]:
    """Every tag with whether it is right, in order: the product's own, then the marks."""
    yield from ((tag, True) for tag in product.tags or ())
    yield from ((mark.tag, mark.right) for mark in marks)


def settle(said: Iterable[tuple[str, bool]], vocabulary: Vocabulary) -> dict[str, bool]:
    """The last word on each tag, by its name in the vocabulary.

    A tag that the vocabulary does not know keeps its first spelling.

    >>> settle([("rainproof", True), ("Waterproof", False)], vocabulary)  # rainproof: its alias
    {'waterproof': False}
    """
    found: dict[str, bool] = {}
    spelt: dict[str, str] = {}
    for text, right in said:
        known = vocabulary.resolve(text)
        if known is not None:
            found[known.name] = right
        elif key := normalise(text):
            found[spelt.setdefault(key, text.strip())] = right
    return found


def clean(text: str) -> str:
    """A text that any file can hold: no halves of surrogate pairs, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
