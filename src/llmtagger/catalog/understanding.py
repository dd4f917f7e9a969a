"""What was understood of a catalogue, in one line for the person who gave it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmtagger.catalog.files import Source, open_source, unreadable
from llmtagger.catalog.profiles import PROFILES
from llmtagger.catalog.reading import open_catalog
from llmtagger.catalog.rows import CatalogOptions, RejectedRow

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
        parts = [f"{self.products:,} product{'' if self.products == 1 else 's'}"]
        title = self.columns.get("title", "title")
        named = _NAMED if title == "title" or self.known else ("title", *_NAMED)
        for field in named:
            if column := self.columns.get(field):
                parts.append(f'{_PLURAL.get(field, field)} from "{column}"')
        return f"{self.format}: {', '.join(parts)}"


def understand(
    path: Path | str | Source,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
) -> Understood:
    """Read a catalogue once and say how; `CatalogError` where it cannot be read."""
    if isinstance(path, Source):
        try:
            return _understand(path, options)
        except OSError as error:
            raise unreadable(path.name, error) from error
    with open_source(path) as source:
        return understand(source, options)


def _understand(source: Source, options: CatalogOptions) -> Understood:
    opened = open_catalog(source, options)
    carriers: Counter[str] = Counter()
    only: Counter[str] = Counter()  # tags that are the only one of a product
    products = rejected = labelled = 0
    for found in opened.found:
        if isinstance(found, RejectedRow):
            rejected += 1
            continue
        products += 1
        tags = found[0].tags or ()
        labelled += bool(tags)
        carriers.update(tags)
        only.update(tags if len(tags) == 1 else ())
    oddities = _oddities(opened.fields, products, rejected, labelled, carriers, only)
    known = any(profile.name == opened.format for profile in PROFILES)
    columns = dict(opened.fields)
    return Understood(opened.format, products, rejected, columns, tuple(oddities), known)


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
        found.append(f"{rejected:,} rows are no products")
    if products and not labelled:
        where = f'"{fields["tags"]}" is empty everywhere' if "tags" in fields else "no column"
        found.append(f"no product has tags ({where})")
    lonely = sum(count for tag, count in only.items() if carriers[tag] == 1)
    if lonely and labelled >= _FEWEST:
        found.append(f"{lonely:,} products whose only tag occurs once")
    long = sum(1 for tag in carriers if _sentence(tag))
    if long * 4 > len(carriers) >= _FEWEST:
        found.append(f"{long:,} of {len(carriers):,} tags read like sentences")
    if carriers and labelled >= _FEWEST and len(only) == len(carriers) == labelled:
        found.append("no two products share a tag: perhaps this is not the column of tags")
    return found


def _sentence(tag: str) -> bool:
    return len(tag.split()) > _WORDS or (tag.isascii() is False and len(tag) > _CHARACTERS)
