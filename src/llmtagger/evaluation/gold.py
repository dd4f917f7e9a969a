"""Gold sets: products whose tags a person or a shop gave, each described by a card.

A card is a folder: `dataset.toml` says how to load the set, `card.md` what it is and where it
fails. The products themselves stay in the data root, outside the repository.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog
from llmtagger.catalog.text import mend
from llmtagger.config import read_toml
from llmtagger.datatypes import Product, TagKind
from llmtagger.errors import CatalogError, ConfigError

ENTRY = "dataset.toml"
DATA_VARIABLE = "LLMTAGGER_GOLD"
_UNJUDGED = "tags_unjudged"  # the column of tags that are neither right nor wrong
_ABSENT = "attributes_na"  # the column of keys that were looked for and have no value


class Card(BaseModel):
    """What `dataset.toml` says of a gold set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    title: str = Field(min_length=1, description="the set in one line")
    licence: str = Field(min_length=1)
    file: str = Field(
        min_length=1,
        description="in the data root; in the card's folder if it is there or starts with a dot",
    )
    kind: TagKind = Field(strict=False, description="closed, span or free")
    rows: int | None = Field(None, ge=1, description="products that are sampled by default")
    apart: list[str] = Field(
        default_factory=list, description="keys that are reported apart, not in the headline"
    )
    alternatives: bool = Field(
        False, description="values of one key are variants of each other: one hit counts"
    )
    group_from: re.Pattern[str] | None = Field(
        None, description="found in an id; what its parentheses hold is the product's group"
    )

    @field_validator("group_from")
    @classmethod
    def _holds_one_group(cls, pattern: re.Pattern[str] | None) -> re.Pattern[str] | None:
        if pattern is not None and pattern.groups != 1:
            raise ValueError("the pattern needs one pair of parentheses")
        return pattern


@dataclass(frozen=True, slots=True)
class GoldSet:
    """Products with tags, and how to judge answers to them.

    `unjudged` holds, by product id, tags that are neither right nor wrong. Tags under a key of
    `apart` are judged, but not in the headline. With `alternatives`, the values of one key are
    variants of each other, and one hit counts. `absent` holds, by product id, keys that are known
    to have no value. `fingerprint` is that of the whole data file.
    """

    name: str
    kind: TagKind
    products: tuple[Product, ...]
    unjudged: Mapping[str, frozenset[str]]
    absent: Mapping[str, frozenset[str]]
    apart: tuple[str, ...]
    alternatives: bool
    fingerprint: str


def read_card(folder: Path) -> Card:
    """The loader entry of a card; `ConfigError` where it is missing or wrong."""
    path = folder / ENTRY
    return read_toml(
        path,
        Card,
        str(path),
        unreadable="name a folder of eval/datasets, such as eval/datasets/examples",
        invalid=f"an entry may hold {', '.join(Card.model_fields)}",
    )


def load_gold(
    card: Path,
    data: Path | None,
    *,
    limit: int | None = None,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
) -> GoldSet:
    """The gold set that the folder `card` describes; `data` is the data root.

    At most `limit` products, else the card's own `rows`, are sampled: always the same ones, and
    whole groups. Products that nobody labelled are left out; an empty list of tags is a label.
    Raises `ConfigError` or `CatalogError` where card and data do not agree.
    """
    entry = read_card(card)
    path = _data_file(card, entry, data)
    labelled = [p for p in _read(path, options) if p.tags is not None]
    _check_keys(entry.apart, labelled, card)
    if entry.group_from is not None:
        labelled = [_regrouped(product, entry.group_from) for product in labelled]
    most = (entry.rows or len(labelled)) if limit is None else limit
    products = _sample(labelled, most)
    if not products:
        raise CatalogError(
            f"no labelled products came out of {path}",
            hint="give its products a list of tags, or raise the limit",
        )
    return GoldSet(
        name=card.resolve().name,
        kind=entry.kind,
        products=tuple(products),
        unjudged={p.id: tags for p in products if (tags := _listed(p, _UNJUDGED, path))},
        absent={p.id: keys for p in products if (keys := _listed(p, _ABSENT, path))},
        apart=tuple(entry.apart),
        alternatives=entry.alternatives,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    )


def data_file(card: Path, data: Path | None) -> Path:
    """The file with the products of a card; `ConfigError` where it is missing."""
    return _data_file(card, read_card(card), data)


def _data_file(card: Path, entry: Card, data: Path | None) -> Path:
    own = card / entry.file
    if own.is_file() or entry.file.startswith("."):
        path = own
    elif data is None:
        raise ConfigError(
            f"the data of {card.name} is not part of the repository",
            hint=f"name the data root: --data FOLDER, or the variable {DATA_VARIABLE}",
        )
    else:
        path = data / entry.file
    if not path.is_file():
        raise ConfigError(
            f"{card.name} has no data: there is no file {path}",
            hint=f"check `file` in {card / ENTRY} and the data root (--data, {DATA_VARIABLE})",
        )
    return path


def _read(path: Path, options: CatalogOptions) -> list[Product]:
    """All products; a faulty row is an error here, since a part of a gold set is another set."""
    rejected: list[RejectedRow] = []
    products = list(read_catalog(path, options, rejected=rejected.append))
    if rejected:
        first = rejected[0]
        raise CatalogError(
            f"{path} has rows that are no products: {len(rejected)}, "
            f"the first on line {first.line}: {first.reason}",
            hint="correct the file; a gold set is read whole or not at all",
        )
    return products


def _check_keys(keys: Sequence[str], products: Iterable[Product], card: Path) -> None:
    """A key that no tag has would leave the headline as it is, without a word."""
    found = {tag.partition("=")[0] for p in products for tag in p.tags or () if "=" in tag}
    if unknown := [key for key in keys if key not in found]:
        raise ConfigError(
            f"{card / ENTRY}: no tag has the key {', '.join(unknown)}",
            hint=f"correct `apart`; the keys are {', '.join(sorted(found)) or 'none'}",
        )


def _regrouped(product: Product, pattern: re.Pattern[str]) -> Product:
    found = pattern.search(product.id)
    return replace(product, group=found[1]) if found and found[1] else product


def _sample(products: Sequence[Product], most: int) -> list[Product]:
    """At most that many, in order: whole groups, taken in the order of their names' hashes."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for position, product in enumerate(products):
        groups[product.group or f"id {product.id}"].append(position)
    taken: list[int] = []
    for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(taken) + len(groups[name]) <= most:
            taken += groups[name]
    return [products[position] for position in sorted(taken)]


def _listed(product: Product, column: str, path: Path) -> frozenset[str]:
    tags = product.extra.get(column) or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CatalogError(
            f"{path}: {column} of the product {product.id!r} is not a list of texts",
            hint='write it as a JSON list, such as ["Colour=red"]',
        )
    return frozenset(mend(tag.strip()) for tag in tags)
