"""Tables of a known format, read as products: attributes gathered, variants with their products."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmtagger.catalog.products import Columns, Layout, fold
from llmtagger.catalog.profiles import Profile
from llmtagger.catalog.rows import CatalogOptions, Row, Rows, reject
from llmtagger.catalog.text import html_to_text

_ATTRIBUTES = "\0attributes"  # a column of our own, beside those of the file
_TAGS = "\0tags"
# a=1,b="2,3"; a name is bounded, since each of its characters may be where one begins
_LISTED = re.compile(r'(?:^|,)([^=,"]{1,100})=("(?:[^"]|"")*"|[^,]*(?:,(?![^=,"]{1,100}=)[^,]*)*)')


def split_cell(cell: str, profile: Profile) -> list[str]:
    """The tags in a cell, as this format writes them: `"sale, Women's shoes"`."""
    if profile.escape:
        cell = cell.replace(f"{profile.escape},", "\0")
    parts = re.split(f"[{re.escape(profile.separators)}]", cell)
    return [tag for part in parts if (tag := part.replace("\0", ",").strip())]


@dataclass(slots=True)
class _Product:
    """A product's describing line, whether that has a title, and its options over all rows."""

    line: int
    titled: bool
    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, None]] = field(default_factory=dict)

    def options(self) -> dict[str, str]:
        """`{"Size": "S, M"}`; Shopify's stand-in for "no options" is none."""
        found: dict[str, str] = {}
        for number, name in sorted(self.names.items()):
            values = list(self.values.get(number, ()))
            if values and (name, values) != ("Title", ["Default Title"]):
                found[name] = ", ".join(values)
        return found


class Shop:
    """How one file's columns stand in its format: fields, attributes, and what tells variants.

    `layout` is for the rows that `product` makes, whose tags and attributes are taken apart.
    """

    def __init__(self, profile: Profile, header: tuple[str, ...], options: CatalogOptions) -> None:
        self.profile = profile
        self.header = header
        synonyms = profile.synonyms(header)
        self.columns = Columns(options, synonyms)
        found = self.columns.layout(header)
        by_name = {fold(name): name for name in reversed(header)}
        self._choices = {
            each: [by_name[name] for name in synonyms.get(each, ())] or [column]
            for each, column in found.fields.items()
        }
        single = {"tags", *options.columns}  # tags are written back to where they come from
        self._choices |= {f: [column] for f, column in found.fields.items() if f in single}
        self.fields = found.fields
        self._pairs = self._find_pairs()
        self._variants = {
            role: by_name.get(name, "")
            for role, name in (
                ("where", profile.variants.where),
                ("parent", profile.variants.parent),
                ("children", profile.variants.children),
                ("listed", profile.listed),
            )
        }
        self.layout = self._with_attributes(found)

    def _find_pairs(self) -> dict[tuple[str, bool], str]:
        """The columns of names (True) and values of attributes by their number."""
        found: dict[tuple[str, bool], str] = {}
        for pattern, named in zip(self.profile.pairs or (), (True, False), strict=False):
            for name in self.header:
                if match := re.fullmatch(pattern, fold(name)):
                    found[match[1], named] = name
        return found

    def _with_attributes(self, layout: Layout) -> Layout:
        """The layout with its attributes; what else belongs to a pair or a list is no extra."""
        attributes = dict(layout.attributes)
        ours = {*self._pairs.values(), self._variants["listed"]}
        chosen = {column for columns in self._choices.values() for column in columns}
        extra = []
        for column, name in layout.extra:
            match = re.fullmatch(self.profile.attributes, column, re.IGNORECASE)
            if column in ours or not column:
                continue
            if match and column not in chosen:
                attributes.setdefault(match["name"], column)
            else:
                extra.append((column, name))
        fields = {**layout.fields, "attributes": layout.fields.get("attributes", _ATTRIBUTES)}
        if "tags" in fields:
            fields["tags"] = _TAGS
        return Layout(fields, attributes, tuple(extra))

    def rows(self, rows: Rows, again: Rows) -> Rows:
        """One row a product, where its describing row stands; empty cells are left out.

        The file is gone through twice: `rows` is for what its rows say of each other.
        """
        variants = self.profile.variants
        families = _Families(self)
        if variants.repeated or variants.parent or variants.children:
            for row in rows:
                if isinstance(row, Row):
                    families.note(row)
        for row in again:
            if not isinstance(row, Row):
                yield row
            elif variants.repeated and not self.is_variant(row) and not self.identity(row):
                yield reject(row.line, f"the row has no {self.layout.fields['id']}", row.raw)
            elif families.describes(row):
                yield replace(row, values=self._product(row, families.options(row)))

    def identity(self, row: Row) -> str:
        """The product's id, from the first column that has one."""
        return self._first("id", row.values).strip()

    def _first(self, name: str, values: Mapping[str, Any]) -> str:
        for column in self._choices.get(name, ()):
            if (cell := str(values.get(column, ""))).strip():
                return cell
        return ""

    def names(self, row: Row) -> Iterator[str]:
        """What a variant may call this row as its parent."""
        for column in self._choices.get("id", ()):
            if cell := str(row.values.get(column, "")).strip():
                yield cell
                yield f"id:{cell}"

    def cell(self, role: str, row: Row) -> str:
        """A row's cell in the column that has this part in telling variants."""
        return str(row.values.get(self._variants[role], "")).strip()

    def is_variant(self, row: Row) -> bool:
        """Whether the row says that it is a variant."""
        variants = self.profile.variants
        if not variants.where:
            return False
        cell = self.cell("where", row)
        return bool(cell) and re.fullmatch(variants.value, cell, re.IGNORECASE) is not None

    def titled(self, row: Row) -> bool:
        """Whether the row has a title."""
        return bool(self._first("title", row.values).strip())

    def options(self, row: Row) -> Iterator[tuple[str, bool, str]]:
        """The names (True) and values of attributes in a row, with their numbers."""
        for (number, named), column in self._pairs.items():
            if text := str(row.values.get(column, "")).strip():
                yield number, named, text

    def _product(self, row: Row, options: dict[str, str]) -> dict[str, Any]:
        values = {name: cell for name, cell in row.values.items() if str(cell).strip()}
        for each, columns in self._choices.items():
            texts = [str(values[column]) for column in columns if column in values]
            if texts:
                last = len(texts) if each in self.profile.joined else 1
                values[self.layout.fields[each]] = "\n".join(texts[:last])
        body = self.layout.fields.get("description")
        if self.profile.html and body in values:
            values[body] = html_to_text(str(values[body]))
        if _TAGS in values:
            values[_TAGS] = split_cell(str(values[_TAGS]), self.profile)
        listed = {
            name.strip(): value.strip('"').replace("|", ", ")
            for name, value in _LISTED.findall(self.cell("listed", row))
        }
        return values | {_ATTRIBUTES: options | listed}


class _Families:
    """What the rows of a file say of each other: which describe a product, with which options."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._repeated = shop.profile.variants.repeated
        self._products: dict[str, _Product] = {}
        self._names: set[str] = set()
        self._children: set[str] = set()

    def note(self, row: Row) -> None:
        shop = self._shop
        if shop.is_variant(row):
            return
        if shop.profile.variants.parent:
            self._names.update(shop.names(row))
        if shop.profile.variants.children:
            self._children.update(
                re.findall(shop.profile.variants.child, shop.cell("children", row))
            )
        if self._repeated and (name := shop.identity(row)):
            self._repeat(name, row)

    def _repeat(self, name: str, row: Row) -> None:
        titled = self._shop.titled(row)
        product = self._products.setdefault(name, _Product(row.line, titled))
        if titled and not product.titled:
            product.line, product.titled = row.line, True
        _note_options(product, self._shop, row)

    def describes(self, row: Row) -> bool:
        """Whether the row describes a product: it is no variant, nor a further row of one."""
        shop = self._shop
        if shop.is_variant(row):
            parent = shop.profile.variants.parent
            return bool(parent) and shop.cell("parent", row) not in self._names
        if self._repeated:
            return self._products[shop.identity(row)].line == row.line
        return not self._children or self._shop.identity(row) not in self._children

    def options(self, row: Row) -> dict[str, str]:
        """The options of the product that the row describes, those of its other rows included."""
        if self._repeated and (product := self._products.get(self._shop.identity(row))):
            return product.options()
        product = _Product(row.line, True)
        _note_options(product, self._shop, row)
        return product.options()


def _note_options(product: _Product, shop: Shop, row: Row) -> None:
    for number, named, text in shop.options(row):
        if named:
            product.names.setdefault(number, text)
        else:
            product.values.setdefault(number, {})[text] = None
