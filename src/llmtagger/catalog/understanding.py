"""What was understood of a catalogue, in one line for the person who gave it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmtagger.catalog.files import Source
from llmtagger.catalog.profiles import PROFILES
from llmtagger.catalog.reading import Opened, read_catalog
from llmtagger.catalog.rows import CatalogOptions, RejectedRow
from llmtagger.datatypes import Product

_NAMED = ("tags", "category")  # fields that are named in the line
_WORDS = 6  # of a tag that reads like a sentence
_CHARACTERS = 25  # of one in a language without spaces
_FEWEST = 20  # products below which a share says nothing
_PLURAL = {"category": "categories"}


@dataclass(frozen=True, slots=True)
class Understood:
    """A catalogue's format, its products, their columns by field, and what looks wrong.

    `rejected` counts the rows that are no products; `known` is a shop system's own format.
    """

    format: str
    products: int
    rejected: int
    columns: Mapping[str, str]
    oddities: tuple[str, ...]
    known: bool = False

    def __str__(self) -> str:
        """`WooCommerce export: 812 products, tags from "Tags", categories from "Categories"`."""
        parts = [_counted(self.products, "product")]
        title = self.columns.get("title", "title")
        named = _NAMED if title == "title" or self.known else ("title", *_NAMED)
        for field in named:
            if column := self.columns.get(field):
                parts.append(f'{_PLURAL.get(field, field)} from "{column}"')
        return f"{self.format}: {', '.join(parts)}"


class Tally:
    """Counts what a catalogue holds while somebody else reads it.

    Its `opened` and `reject` are handed to `read_catalog`, and each product to `add`.
    """

    def __init__(self) -> None:
        self._opened: Opened | None = None
        self._carriers: Counter[str] = Counter()
        self._only: Counter[str] = Counter()  # tags that are the only one of a product
        self._products = self._rejected = self._labelled = 0

    def opened(self, opened: Opened) -> None:
        """The format is known."""
        self._opened = opened

    def reject(self, row: RejectedRow) -> None:
        """A row is no product."""
        self._rejected += 1

    def add(self, product: Product) -> None:
        """One more product was read."""
        tags = product.tags or ()
        self._products += 1
        self._labelled += bool(tags)
        self._carriers.update(tags)
        self._only.update(tags if len(tags) == 1 else ())

    def understood(self) -> Understood | None:
        """What was read so far; None where the file could not even be opened."""
        if self._opened is None:
            return None
        columns = dict(self._opened.fields)
        oddities = _oddities(
            columns, self._products, self._rejected, self._labelled, self._carriers, self._only
        )
        known = any(self._opened.format.startswith(profile.name) for profile in PROFILES)
        return Understood(
            self._opened.format, self._products, self._rejected, columns, tuple(oddities), known
        )


def understand(
    path: Path | str | Source,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
) -> Understood:
    """Read a catalogue once and say how; `CatalogError` where it cannot be read."""
    tally = Tally()
    for product in read_catalog(path, options, rejected=tally.reject, opened=tally.opened):
        tally.add(product)
    understood = tally.understood()
    assert understood is not None  # it was opened, else reading had failed
    return understood


def _oddities(
    fields: Mapping[str, str],
    products: int,
    rejected: int,
    labelled: int,
    carriers: Counter[str],
    only: Counter[str],
) -> list[str]:
    found: list[str] = []
    if rejected:
        found.append(f"{_counted(rejected, 'row')} could not be read as products")
    if products and not labelled:
        where = f'"{fields["tags"]}" is empty everywhere' if "tags" in fields else "no column"
        found.append(f"no product has tags ({where})")
    lonely = sum(count for tag, count in only.items() if carriers[tag] == 1)
    if lonely and labelled >= _FEWEST:
        found.append(f"{_counted(lonely, 'product')} whose only tag occurs once")
    long = sum(1 for tag in carriers if _sentence(tag))
    if long * 4 > len(carriers) >= _FEWEST:
        found.append(f"{long:,} of {len(carriers):,} tags read like sentences")
    if carriers and labelled >= _FEWEST and len(only) == len(carriers) == labelled:
        found.append("no two products share a tag: perhaps this is not the column of tags")
    return found


def _sentence(tag: str) -> bool:
    return len(tag.split()) > _WORDS or (tag.isascii() is False and len(tag) > _CHARACTERS)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
