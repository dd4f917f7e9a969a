"""Shopify's product CSV, in both generations of its header.

    Handle,     Title, Body (HTML), Vendor, Type, Tags, …, Option1 Name, Option1 Value   until 2024
    URL handle, Title, Description, Vendor, Type, Tags, …, Option1 name, Option1 value   since

A product is one or more rows with the same handle: the first one with a title describes it, the
others hold further variants and images. They need not follow one another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmtagger.catalog.files import Source
from llmtagger.catalog.products import Columns, Layout, Synonyms
from llmtagger.catalog.rows import Row, Rows, reject
from llmtagger.catalog.tables import Record, read_header, records, table_line, table_rows
from llmtagger.catalog.text import html_to_text
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

SHOPIFY: Synonyms = {
    "id": ("handle", "url_handle"),
    "title": ("title",),
    "description": ("body_(html)", "description"),
    "brand": ("vendor",),
    "category": ("type",),
    "tags": ("tags",),
}
_FALLBACK = "product category"  # of the taxonomy, where the shop gave no type
_ATTRIBUTES = "\0options"  # a column of our own, beside those of the file
_DELIMITER = ","


def is_shopify(header: tuple[str, ...]) -> bool:
    """Whether these are the columns of Shopify's export."""
    names = {name.casefold() for name in header}
    return (
        "title" in names
        and not names.isdisjoint({"handle", "url handle"})
        and not names.isdisjoint({"body (html)", "option1 name", "option1 value"})
    )


@dataclass(slots=True)
class _Group:
    """A product's describing line, whether it has a title, and the values of its options."""

    line: int
    titled: bool
    names: dict[int, str] = field(default_factory=dict)
    values: dict[int, dict[str, None]] = field(default_factory=dict)

    def options(self) -> dict[str, str]:
        """`{"Size": "S, M"}`; Shopify's stand-in for "no options" is none."""
        found: dict[str, str] = {}
        for number, name in sorted(self.names.items()):
            values = list(self.values.get(number, ()))
            if values and (name, values) != ("Title", ["Default Title"]):
                found[name] = ", ".join(values)
        return found


class ShopifyTable:
    """One export. It is read twice: for the groups, which are small, and for the products."""

    def __init__(self, source: Source, encoding: str, columns: Columns) -> None:
        self._source, self._encoding, self._columns = source, encoding, columns
        header = read_header(source, encoding, _DELIMITER)
        self.names = header
        self._options = {
            (number, part): name
            for name in header
            for number in (1, 2, 3)
            for part in ("name", "value")
            if name.casefold() == f"option{number} {part}"
        }
        skipped = {n for n in header if n.casefold().startswith(("option1", "option2", "option3"))}
        self.layout = self._with_options(tuple(name for name in header if name not in skipped))

    def _with_options(self, names: tuple[str, ...]) -> Layout:
        layout = self._columns.layout(names)
        fields = {**layout.fields, "attributes": layout.fields.get("attributes", _ATTRIBUTES)}
        return Layout(fields, layout.attributes, layout.extra)

    def rows(self) -> Rows:
        """One row a product, where its describing row stands; empty cells are left out."""
        groups = self._groups()
        fallback = next((name for name in self.names if name.casefold() == _FALLBACK), "")
        for row in table_rows(self._source, self._encoding, _DELIMITER):
            if not isinstance(row, Row):
                yield row
                continue
            handle = self._handle(row.values)
            if not handle:
                yield reject(row.line, "the row has no handle", row.raw)
            elif groups[handle].line == row.line:
                yield Row(row.line, self._product(row.values, groups[handle], fallback), row.raw)

    def _groups(self) -> dict[str, _Group]:
        groups: dict[str, _Group] = {}
        for row in table_rows(self._source, self._encoding, _DELIMITER):
            if not isinstance(row, Row) or not (handle := self._handle(row.values)):
                continue
            titled = bool(row.values[self.layout.fields["title"]].strip())
            group = groups.setdefault(handle, _Group(row.line, titled))
            if titled and not group.titled:
                group.line, group.titled = row.line, True
            self._note_options(group, row.values)
        return groups

    def _note_options(self, group: _Group, values: Mapping[str, Any]) -> None:
        for (number, part), column in self._options.items():
            if not (text := values[column].strip()):
                continue
            if part == "name":
                group.names.setdefault(number, text)
            else:
                group.values.setdefault(number, {})[text] = None

    def _handle(self, values: Mapping[str, Any]) -> str:
        handle: str = values[self.layout.fields["id"]].strip()
        return handle

    def _product(self, values: Mapping[str, Any], group: _Group, fallback: str) -> dict[str, Any]:
        found: dict[str, Any] = {name: cell for name, cell in values.items() if cell.strip()}
        fields = self.layout.fields
        if (body := fields.get("description")) in found:
            found[body] = html_to_text(found[body])
        if (tags := fields.get("tags")) in found:
            found[tags] = split_merchant_tags(found[tags])
        if (kind := fields.get("category")) is not None and kind not in found and fallback in found:
            found[kind] = found[fallback]
        return found | {_ATTRIBUTES: group.options()}

    def merged(self, tags: Mapping[str, list[str]]) -> Iterator[str]:
        """The file's text, record by record, with each product's new tags after the shop's own.

        All other text stays as it is, faulty rows included.
        """
        column = self._tags_position()
        describing = {group.line: handle for handle, group in self._groups().items()}
        for record in records(self._source, self._encoding, _DELIMITER):
            if not record.whole:
                raise CatalogError(
                    f"line {record.line} of {self._source.name} is too long to be written back",
                    hint="write to a .jsonl file instead",
                )
            handle = describing.get(record.line, "")
            yield _with_tags(record, column, tags.get(handle, []), handle)

    def _tags_position(self) -> int:
        if "tags" not in self.layout.fields:
            raise CatalogError(
                f"{self._source.name} has no Tags column to write to",
                hint="export the products with their tags, or write to a .jsonl file",
            )
        return self.names.index(self.layout.fields["tags"])


def split_merchant_tags(cell: str) -> list[str]:
    """The tags of a Shopify cell: `"sale, Women's shoes"`."""
    return [tag for part in cell.split(",") if (tag := part.strip())]


def _with_tags(record: Record, column: int, tags: list[str], handle: str) -> str:
    """The record's text; rewritten only where a tag is new."""
    if not tags or record.fault:
        return record.raw
    known = {tag.casefold() for tag in split_merchant_tags(record.cells[column])}
    fresh: list[str] = []
    for tag in tags:
        if "," in tag:
            _log.warning("%s: Shopify cannot hold the tag %r, it has a comma", handle, tag)
        elif tag.casefold() not in known:
            known.add(tag.casefold())
            fresh.append(tag)
    if not fresh:
        return record.raw
    own = record.cells[column].rstrip(", ")
    cells = list(record.cells)
    cells[column] = ", ".join([own, *fresh] if own else fresh)
    return table_line(cells, _DELIMITER) + record.raw[len(record.raw.rstrip("\r\n")) :]
