"""Rows turned into products: which column is which field, and what a cell may hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llmtagger.catalog.rows import MOST_COLUMNS, CatalogOptions, RowFault
from llmtagger.catalog.text import guess_language, mend, writable
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

Synonyms = Mapping[str, tuple[str, ...]]

FIELDS = (
    *("id", "title", "description", "brand", "category", "attributes", "reviews"),
    *("tags", "lang", "group"),
)
SYNONYMS: Synonyms = {
    "id": (
        *("id", "sku", "product_id", "item_id", "handle", "article_number", "art_number"),
        *("product_code", "product_number", "prod_number", "item_number", "sku_number"),
        *("stock_code", "stock_number", "part_number"),
        *("商品id", "商品编号", "编号", "商品编码", "商品代码", "商家编码", "货号", "款号"),
        *("code", "reference", "ref"),  # last: a table may have an id and a code of something else
    ),
    "title": (
        *("title", "name", "product_name", "product_title", "item_name"),
        *("标题", "商品名称", "名称", "商品标题", "宝贝标题", "宝贝名称", "品名"),
    ),
    "description": (
        *("description", "product_description", "long_description", "body"),
        *("描述", "商品描述", "商品详情", "详情"),
    ),
    "brand": ("brand", "vendor", "manufacturer", "品牌", "品牌名称"),
    "category": (
        *("category", "类目", "分类", "product_type", "type", "categories", "product_category"),
        *("商品类目", "商品分类", "类别"),
    ),
    "attributes": ("attributes", "属性"),
    "reviews": (
        *("reviews", "customer_reviews", "comments"),
        *("评价", "买家评价", "用户评价", "评论", "买家评论", "用户评论"),
    ),
    "tags": ("tags", "标签", "tag", "labels", "商品标签"),
    "lang": ("lang", "language"),
    "group": ("group", "item_group_id"),
}
_PREFIX = "attributes."
_GAPS = re.compile(r"[\s_-]+")
_SHORTENED = re.compile(r"\.(?=_|$)")  # as in "Ref."
_NUMBER_OF = re.compile(r"(?<=\w)(?:[_.](?:no|nr|num)|_?[#№])$")  # as in "Art. No.", "SKU #"
_SHOWN, _SHOWN_LENGTH = 40, 80  # column names in a message, characters of each
_GUESSED_FROM = 500  # characters of a description that tell its language
_NUMBER = re.compile(r"[\d.,]{1,20}")
SEPARATORS = "|;；,，、"  # of tags in a cell; the first one found counts
_HELD = 100_000  # column names in the layouts that are kept; rows of ever new shapes have more


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file by field and by attribute, and the rest as (column, output name)."""

    fields: Mapping[str, str]
    attributes: Mapping[str, str]
    extra: tuple[tuple[str, str], ...]


class Columns:
    """Finds our fields among a file's columns: as mapped, else by name, whatever its case.

    >>> columns = Columns(CatalogOptions(columns={"brand": "Maker"}), SYNONYMS)
    >>> columns.layout(("SKU", "Title", "Maker", "Price")).fields
    {'id': 'SKU', 'title': 'Title', 'brand': 'Maker'}
    """

    def __init__(self, options: CatalogOptions, synonyms: Synonyms) -> None:
        for field in options.columns:
            if field not in FIELDS and not field.startswith(_PREFIX):
                raise CatalogError(
                    f"the column mapping names an unknown field {field!r}",
                    hint=f"fields are {', '.join(FIELDS)} and attributes.<name>",
                )
        self.mapped = options.columns
        self._synonyms = synonyms
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._held = 0

    def layout(self, names: tuple[str, ...]) -> Layout:
        """The layout of a row with these columns; rows of one shape share it."""
        if names not in self._layouts:
            self._held += len(names) + 1
            if self._held > _HELD:
                self._layouts.clear()
                self._held = len(names) + 1
            self._layouts[names] = self._find(names)
        return self._layouts[names]

    def _find(self, names: tuple[str, ...]) -> Layout:
        by_key = {fold(name): name for name in reversed(names)}
        present = set(names)
        fields: dict[str, str] = {}
        attributes: dict[str, str] = {}
        for field, wanted in self.mapped.items():
            column = wanted if wanted in present else by_key.get(fold(wanted))
            if column is not None and field.startswith(_PREFIX):
                attributes[field.removeprefix(_PREFIX)] = column
            elif column is not None:
                fields[field] = column
        taken = {*fields.values(), *attributes.values()}
        for name in names:
            if name.startswith(_PREFIX) and name not in taken:
                attributes.setdefault(name.removeprefix(_PREFIX), name)
                taken.add(name)
        for field, synonyms in self._synonyms.items():
            if field in self.mapped:
                continue
            free = (by_key[s] for s in synonyms if by_key.get(s, "") not in ("", *taken))
            if column := field if field in present - taken else next(free, None):
                fields[field] = column
                taken.add(column)
        ordered = {field: fields[field] for field in FIELDS if field in fields}
        return Layout(
            ordered, attributes, tuple((n, _free_name(n)) for n in names if n not in taken)
        )

    def lacking(self, layout: Layout) -> list[str]:
        """The fields that a catalogue must have, or that are mapped, and that no column is."""
        present = {*layout.fields, *(f"{_PREFIX}{name}" for name in layout.attributes)}
        wanted = dict.fromkeys(("id", "title", *self.mapped))
        return [field for field in wanted if field not in present]

    def missing(self, names: Iterable[str], lacking: Sequence[str], source: str) -> CatalogError:
        """What to say of a file that has no column for these fields, all in one message."""
        found = _some(names)
        mapped = [field for field in lacking if field in self.mapped]
        unnamed = [field for field in lacking if field not in self.mapped]
        wrong = [
            f"no column {self.mapped[field]!r}, to which {field} is mapped" for field in mapped
        ]
        absent = [f"no {field} column" for field in unnamed]
        hints = [f"call the {f} column {' or '.join(self._synonyms[f][:5])}" for f in unnamed]
        maps = " ".join(f'--map {field}="..."' for field in unnamed)
        if unnamed:
            hints.append(f"or say which columns they are: {maps}")
        if mapped:
            hints.append("correct the mapping: --map, or [catalogue.columns] in the configuration")
        return CatalogError(
            f"{source} has {' and '.join(wrong + absent)}; it has: {found}", hint="; ".join(hints)
        )


def fold(name: str) -> str:
    """A column's name as it is compared: case, gaps and abbreviations do not matter.

    >>> fold("Product Name"), fold("Item No."), fold("SKU #"), fold("Art.-Nr.")
    ('product_name', 'item_number', 'sku_number', 'art_number')
    """
    plain = _SHORTENED.sub("", _GAPS.sub("_", name.strip().casefold()))
    return _NUMBER_OF.sub("_number", plain)


def _some(names: Iterable[str]) -> str:
    """The first names, for a message."""
    shown = [name[:_SHOWN_LENGTH] for name in names if name]
    rest = f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + rest


def _free_name(name: str) -> str:
    """An unmapped column may not pose as a field of ours: its output name is prefixed."""
    return f"input_{name}" if name in FIELDS else str(writable(name))


def build(values: Mapping[str, Any], layout: Layout, *, cells: bool) -> Product:
    """The product that a row describes; `RowFault` says why it is none.

    With `cells`, tags and attributes may be text to be taken apart, as in a CSV file. Characters
    that no file can hold become U+FFFD, except in an id: two ids could become one.
    """

    def get(field: str) -> Any:
        value = values.get(layout.fields.get(field))  # type: ignore[arg-type]  # None finds nothing
        return value if field == "id" else _held(value)

    title = mend(_required("title", get("title")))
    description = mend(_text("description", get("description")))
    reviews = _reviews(get("reviews"))
    extra = {name: _held(values[column]) for column, name in layout.extra if column in values}
    if reviews is None:  # a count, a rating: kept as it came
        extra[layout.fields["reviews"]] = get("reviews")
    return Product(
        id=_identity(get("id")),
        title=title,
        description=description,
        brand=mend(_text("brand", get("brand"))),
        category=mend(_text("category", get("category"))),
        attributes=_attributes(get("attributes"), values, layout.attributes),
        reviews=reviews or (),
        tags=_tags(get("tags"), cells),
        lang=_text("lang", get("lang")) or guess_language(title + description[:_GUESSED_FROM]),
        group=_text("group", get("group")),
        extra=extra,
    )


def _reviews(value: Any) -> tuple[str, ...] | None:
    """The reviews in a text, a list of texts or the JSON of a list; None for anything else."""
    if isinstance(value, str):
        value = _listed(value.strip())
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return () if value is None else None
    return tuple(text for each in value if (text := mend(each.strip())))


def _listed(cell: str) -> Any:
    """What a cell of reviews holds: a number is no review."""
    if cell.startswith("["):
        with suppress(ValueError, RecursionError):
            return writable(json.loads(cell))
    return 0 if _NUMBER.fullmatch(cell) else [cell]


def _held(value: Any) -> Any:
    """A value whose texts any file can hold."""
    if type(value) is str and value.isascii() and "\0" not in value:  # nearly all: no call
        return value
    try:
        return writable(value)
    except RecursionError as error:
        raise RowFault("a value is nested too deeply") from error


def _identity(value: Any) -> str:
    text = _required("id", value)
    if writable(text) != text:
        raise RowFault("the id holds a character that no file can hold: NUL or half a character")
    return text


def _required(field: str, value: Any) -> str:
    if isinstance(value, (dict, list, bool)):
        raise RowFault(f"the {field} is neither text nor a number")
    text = _text(field, value)
    if not text:
        raise RowFault(f"the {field} is empty")
    return text


def _text(field: str, value: Any) -> str:
    """A value as text: numbers as they are written, lists joined, nothing for null."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (int, float)):
        return "" if math.isnan(value) else str(value)
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return ", ".join(text for item in value if (text := _text(field, item)))
    raise RowFault(f"the {field} is neither text, nor a number, nor a list of them")


def _attributes(
    value: Any, values: Mapping[str, Any], columns: Mapping[str, str]
) -> Mapping[str, str]:
    if isinstance(value, str) and value.strip():
        try:
            value = writable(json.loads(value))
        except (ValueError, RecursionError) as error:
            raise RowFault(f"the attributes are not a JSON object: {error}") from error
    if value in (None, "") and not columns:
        return {}
    if not isinstance(value or {}, Mapping):
        raise RowFault("the attributes are not an object")
    if len(value or {}) > MOST_COLUMNS:
        raise RowFault(f"the product has more than {MOST_COLUMNS:,} attributes")
    pairs = [*(value or {}).items(), *((name, values.get(c)) for name, c in columns.items())]
    texts = (
        (writable(str(name)).strip(), mend(_text(f"attribute {name}", _held(each))))
        for name, each in pairs
    )
    return {name: text for name, text in texts if text}


def _tags(value: Any, cells: bool) -> tuple[str, ...] | None:
    if cells and isinstance(value, str):
        value = split_tags(value)
    if value is None:
        return None
    if isinstance(value, list):  # our own output has an object for each tag
        value = [tag.get("tag") if isinstance(tag, Mapping) else tag for tag in value]
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise RowFault("the tags are not a list of texts")
    return tuple(dict.fromkeys(text for tag in value if (text := mend(tag.strip()))))


def split_tags(cell: str) -> list[str] | None:
    """The tags in a cell: a JSON list if it starts with `[`, else split on one separator.

    That is `|`, else `;`, else `；`, `,`, `，` or `、`. None for an empty cell: nobody has labelled
    the product.
    """
    cell = cell.strip()
    if cell.startswith("["):
        try:
            found: list[str] = writable(json.loads(cell))
        except (ValueError, RecursionError) as error:
            raise RowFault(f"the tags start with [ but are not a JSON list: {error}") from error
        return found
    separator = next((each for each in SEPARATORS if each in cell), ",")
    return [tag for part in cell.split(separator) if (tag := part.strip())] or None


def join_tags(tags: list[str]) -> str:
    """A cell that `split_tags` takes apart again: joined with `|`, else a JSON list.

    >>> join_tags(["red", "wool"]), join_tags(["black, white"]), join_tags(["a|b", "c"])
    ('red|wool', 'black, white|', '["a|b", "c"]')
    """
    for plain in ("|".join(tags), f"{'|'.join(tags)}|"):
        if not plain.startswith("[") and (split_tags(plain) or []) == tags:
            return plain
    return json.dumps(tags, ensure_ascii=False)
