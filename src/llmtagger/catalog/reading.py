"""Products out of any file that we know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from llmtagger.catalog.excel import OLD, SheetTable, open_sheet, refuse_old, sheet_rows
from llmtagger.catalog.files import Source, find_encoding, first_character, open_source, unreadable
from llmtagger.catalog.jsonl import is_array, read_array, read_lines
from llmtagger.catalog.parquet import parquet_names, parquet_rows
from llmtagger.catalog.products import SYNONYMS, Columns, Layout, build
from llmtagger.catalog.profiles import PROFILES, recognise
from llmtagger.catalog.rows import CatalogOptions, RejectedRow, Row, RowFault, Rows, reject
from llmtagger.catalog.shops import Shop
from llmtagger.catalog.tables import LINE, Table, check_header, open_table, restore, table_rows
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

Found = Iterator[tuple[Product, Row] | RejectedRow]


@dataclass(frozen=True, slots=True)
class Opened:
    """A catalogue that is being read: the name of its format, its columns by field, its products.

    The columns of a JSON file are known only once a row was read.
    """

    format: str
    fields: Mapping[str, str]
    found: Found


_JSON = {".jsonl", ".ndjson", ".json"}
_TABLES = {".csv", ".tsv", ".txt"}
_PARQUET = {".parquet"}
_EXCEL = {".xlsx"}
_FORMATS = (
    "formats are CSV (.csv, .tsv, .txt), Excel (.xlsx), JSON (.json, .jsonl, .ndjson) and Parquet "
    "(.parquet); where a column is not found, name it with --map title=COLUMN"
)
_UNNAMED = 20  # objects without an id field, none before them with one, that condemn a file


def read_catalog(
    path: Path | str | Source,
    options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
    *,
    rejected: Callable[[RejectedRow], None],
    opened: Callable[[Opened], None] = lambda _: None,
) -> Iterator[Product]:
    """The products of a JSONL, JSON, CSV, TSV, Excel or Parquet file; `-` is standard input.

    Standard input can be read once; opened with `open_source`, it is read again at each call.

    A faulty row goes to `rejected` and reading goes on; `CatalogError` is raised, not before the
    first product is asked for, where the file as a whole cannot be read. Of products with the
    same id, `on_duplicate="error"` raises at the second; `"first"` drops the later ones; `"last"`
    holds the whole catalogue in memory, since only the end of the file shows what to keep.

    `opened` is told the format and the columns once they are known, for instance a `Tally`.

    Fields that are not ours go to `extra` as read. Of these, the output overwrites `review`,
    `rejected`, `problem` and `run` (and `tag_details` in flat formats). A column that poses as a
    field which is mapped to another one goes there as `input_<name>`.
    """
    with nullcontext(path) if isinstance(path, Source) else open_source(path) as source:
        try:
            catalog = open_catalog(source, options)
            opened(catalog)
            found = catalog.found
            if options.on_duplicate == "last":
                yield from _last(found, rejected)
            else:
                yield from _unique(found, rejected, source.name, options.on_duplicate == "error")
        except OSError as error:  # of reading: what is done with a product happens elsewhere
            raise unreadable(source.name, error) from error


def open_catalog(source: Source, options: CatalogOptions) -> Opened:
    """A catalogue in its format, every product with the row that describes it, in file order."""
    kind = _kind(source)
    if kind in _PARQUET:
        return _parquet(source, options)
    if kind in _EXCEL:
        return _excel(source, options)
    encoding = find_encoding(source, options.encoding)
    if kind == "":
        kind = ".json" if first_character(source, encoding) in "{[" else ".csv"
    if kind in _TABLES:
        return _table(open_table(source, encoding, options), options)
    array = kind == ".json" and is_array(source, encoding)
    return _json(source, (read_array if array else read_lines)(source, encoding), options)


def _kind(source: Source) -> str:
    """The suffix; none where only the content can tell."""
    suffix = "" if source.piped else Path(source.name).suffix.lower()
    if source.piped or suffix in _JSON | _TABLES | _PARQUET | _EXCEL:
        return suffix
    if suffix in OLD:
        raise refuse_old(source.name, suffix)
    raise CatalogError(f"{source.name} is not in a format that can be read", hint=_FORMATS)


def _json(source: Source, rows: Rows, options: CatalogOptions) -> Opened:
    fields: dict[str, str] = {}
    return Opened("JSON", fields, _objects(source, rows, options, fields))


def _objects(source: Source, rows: Rows, options: CatalogOptions, fields: dict[str, str]) -> Found:
    """Each object has columns of its own; a file whose objects never have an id is refused."""
    columns = Columns(options, SYNONYMS)
    unnamed = 0
    for row in rows:
        if not isinstance(row, Row):
            yield row
            continue
        layout = columns.layout(tuple(row.values))
        if layout.fields.keys() - fields.keys():
            fields.update(layout.fields)
        if "id" in layout.fields:
            unnamed = -1
        elif unnamed >= 0:
            unnamed, last = unnamed + 1, row
            if unnamed == _UNNAMED:
                raise columns.missing(row.values, columns.lacking(layout), source.name)
        yield _built(row, layout, cells=False)
    if unnamed > 0:
        lacking = columns.lacking(columns.layout(tuple(last.values)))
        raise columns.missing(last.values, lacking, source.name)


def _table(table: Table, options: CatalogOptions) -> Opened:
    if table.profile is not None:
        shop = Shop(table.profile, table.header, options)
        check_header(table.header, shop.columns, table.source)
        rows = shop.rows(table_rows(table), table_rows(table))
        found = (_built(row, shop.layout, cells=True) for row in rows)
        return Opened(table.profile.name, shop.fields, found)
    layout = Columns(options, SYNONYMS).layout(tuple(name for name in table.header if name))
    if table.titles:
        layout = replace(layout, fields={"id": LINE, **layout.fields})
    rows = map(_restored, table_rows(table))
    fields = {field: column for field, column in layout.fields.items() if column != LINE}
    name = "list of titles" if table.titles else "table"
    return Opened(name, fields, (_built(row, layout, cells=True) for row in rows))


def _restored(row: Row | RejectedRow) -> Row | RejectedRow:
    """The row as it was before its cells were guarded against being formulas."""
    if not isinstance(row, Row) or (row.raw and "'" not in row.raw):
        return row
    return replace(row, values={name: restore(str(cell)) for name, cell in row.values.items()})


def _parquet(source: Source, options: CatalogOptions) -> Opened:
    columns = Columns(options, SYNONYMS)
    names = parquet_names(source)
    check_header(names, columns, source)
    layout = columns.layout(names)
    found = (_built(row, layout, cells=True) for row in parquet_rows(source))
    return Opened("Parquet file", layout.fields, found)


def _excel(source: Source, options: CatalogOptions) -> Opened:
    table, columns = open_excel(source, options)
    profile = recognise(table.header, PROFILES)
    if profile is not None:
        shop = Shop(profile, table.header, options)
        rows = shop.rows(sheet_rows(table), sheet_rows(table))
        found = (_built(row, shop.layout, cells=True) for row in rows)
        return Opened(f"{profile.name} (Excel)", shop.fields, found)
    layout = columns.layout(tuple(name for name in table.header if name))
    rows = map(_restored, sheet_rows(table))
    found = (_built(row, layout, cells=True) for row in rows)
    return Opened("Excel file", layout.fields, found)


def open_excel(source: Source, options: CatalogOptions) -> tuple[SheetTable, Columns]:
    """The sheet with the products and how its columns are found, the header checked."""

    def columns(header: tuple[str, ...]) -> Columns:
        profile = recognise(header, PROFILES)
        return Shop(profile, header, options).columns if profile else general

    def understood(header: tuple[str, ...]) -> bool:
        return not columns(header).lacking(columns(header).layout(header))

    general = Columns(options, SYNONYMS)
    table = open_sheet(source, understood)
    check_header(table.header, columns(table.header), source)
    return table, columns(table.header)


def _built(
    row: Row | RejectedRow, layout: Layout, *, cells: bool
) -> tuple[Product, Row] | RejectedRow:
    if not isinstance(row, Row):
        return row
    try:
        return build(row.values, layout, cells=cells), row
    except RowFault as fault:
        return reject(row.line, str(fault), row.raw)


def _unique(
    found: Found, rejected: Callable[[RejectedRow], None], name: str, strict: bool
) -> Iterator[Product]:
    seen: dict[str, int] = {}
    dropped = 0
    for each in found:
        if isinstance(each, RejectedRow):
            rejected(each)
            continue
        product, row = each
        first = seen.setdefault(product.id, row.line)
        if first == row.line:
            yield product
        elif strict:
            raise CatalogError(
                f"{name} has the id {product.id!r} twice, on lines {first} and {row.line}",
                hint="give each product an id of its own, or choose one: --on-duplicate first|last",
            )
        else:
            dropped += 1
    _say_dropped(dropped)


def _last(found: Found, rejected: Callable[[RejectedRow], None]) -> Iterator[Product]:
    kept: dict[str, Product] = {}
    dropped = 0
    for each in found:
        if isinstance(each, RejectedRow):
            rejected(each)
            continue
        product = each[0]
        dropped += kept.pop(product.id, None) is not None
        kept[product.id] = product
    yield from kept.values()
    _say_dropped(dropped)


def _say_dropped(count: int) -> None:
    if count:
        _log.warning("%d rows dropped, their ids stand elsewhere in the catalogue", count)
