"""Parquet written back with new tags: all other columns stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO

from llmtagger.catalog.additions import Additions
from llmtagger.catalog.files import Source
from llmtagger.catalog.parquet import group_sizes, parquet_file, parquet_names
from llmtagger.catalog.products import SYNONYMS, Columns
from llmtagger.catalog.reading import open_catalog
from llmtagger.catalog.rows import CatalogOptions
from llmtagger.catalog.tagcells import TagCells, new_tags, tag_cells
from llmtagger.catalog.writeback import (
    ADDED,
    ELSEWHERE,
    copy,
    described,
    review_name,
    say_lost,
)
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

_SAMPLE = 1_000  # rows that show how tags are joined
_BATCH = 10_000  # rows of a column held at once as it is looked through
_VERSIONS = ("1.0", "2.4", "2.6")
_LARGE = 256 * 1024 * 1024  # bytes of a row group that is written as several

Tags = str | list[str]  # as a cell holds them: joined, or a list


def write_parquet(
    source: Source, options: CatalogOptions, additions: Additions, output: BinaryIO
) -> None:
    """Write the rows with the additions, one row group at a time; without any, the same file.

    Columns that are missing are made at the end, as texts. `CatalogError` where a column for tags
    holds neither texts nor lists of texts.
    """
    names = parquet_names(source)
    catalog = open_catalog(source, options)
    given = {catalog.fields.get("tags", ADDED): additions.tags}
    if additions.review_column is not None:
        columns = Columns(options, SYNONYMS)
        given[review_name(names, additions.review_column, columns)] = additions.review
    lines = described(catalog.found, options, additions)
    changes: dict[str, dict[int, Tags]] = {}
    besides: dict[int, list[str]] = {}  # tags of a product that are none for review
    for name, tags in given.items():
        column = _Column(source, name) if name in names else None
        changes[name] = _changes(column, lines, tags, besides)
    changes = {name: rows for name, rows in changes.items() if rows}
    if changes:
        _write(source, changes, output)
    else:
        copy(source, output)


class _Column:
    """A column of texts or of lists of texts, and how it joins them."""

    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name
        with parquet_file(source) as file:
            self._kind = file.schema_arrow.field(name).type
        if not _holds_tags(self._kind):
            raise CatalogError(
                f"tags cannot be added to the column {name!r} of {source.name}: it holds "
                f"{self._kind}",
                hint=ELSEWHERE,
            )
        self.lists = _is_list(self._kind)
        cells = (str(value) for _, value in self.values() if isinstance(value, str))
        self.style: TagCells = tag_cells(None, islice(cells, _SAMPLE), guarded=False)

    def values(self, wanted: Mapping[int, str] | None = None) -> Iterator[tuple[int, Any]]:
        """The wanted values, or all that are short, with the numbers of their rows."""
        from llmtagger.catalog.arrow_sizes import sizes

        number = 0
        for array in _arrays(self._source, self._name):
            short = sizes(array) < _BATCH if wanted is None else ()
            for place in range(len(array)):
                number += 1
                if short[place] if wanted is None else number in wanted:
                    yield number, _plain(array[place].as_py())


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _holds_tags(kind: Any) -> bool:
    from pyarrow import types

    if _is_list(kind):
        return _is_text(kind.value_type)
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_null(kind) or types.is_binary(kind) or _is_text(kind)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _arrays(source: Source, name: str) -> Iterator[Any]:
    with parquet_file(source) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=[name]):
            yield batch.column(batch.schema.names.index(name))


def _changes(
    column: _Column | None,
    lines: Mapping[int, str],
    given: Mapping[str, tuple[str, ...]],
    besides: dict[int, list[str]],
) -> dict[int, Tags]:
    """The values of a column that become others, by the number of the row, from 1."""
    style = column.style if column else tag_cells(None, [], guarded=False)
    held = {} if column is None else dict(column.values(lines))
    found: dict[int, Tags] = {}
    for line, name in lines.items():
        value = held.get(line)
        own = style.split(value) if isinstance(value, str) else [tag for tag in value or () if tag]
        fresh = new_tags(given.get(name, ()), (*own, *besides.get(line, ())))
        besides[line] = [*own, *fresh]
        if not fresh:
            continue
        if column is not None and column.lists:
            found[line] = [*(value or ()), *fresh]
            continue
        text, lost = style.extended(value or "", fresh)
        say_lost(name, lost)
        if text != (value or ""):
            found[line] = text
    return found


def _write(source: Source, changes: Mapping[str, Mapping[int, Tags]], output: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet_file(source) as file:
        schema = _schema(file.schema_arrow, changes)
        settings = _settings(file, schema)
    try:
        with parquet.ParquetWriter(output, schema, **settings) as writer:
            number = 0
            for table in _tables(source):
                edited = _edited(table, number, changes, schema)
                writer.write_table(edited, row_group_size=max(1, len(edited)))
                number += len(edited)
    except pa.ArrowException as error:
        raise CatalogError(
            f"{source.name} cannot be written back: {error}", hint=ELSEWHERE
        ) from error


def _schema(schema: Any, changes: Iterable[str]) -> Any:
    """The file's schema, with what is made at the end; a column of nulls becomes one of texts."""
    import pyarrow as pa
    from pyarrow import types

    for name in changes:
        place = schema.get_field_index(name)
        if place < 0:
            schema = schema.append(pa.field(name, pa.string()))
        elif types.is_null(schema.field(place).type):
            schema = schema.set(place, schema.field(place).with_type(pa.string()))
    return schema


def _settings(file: Any, schema: Any) -> dict[str, Any]:
    """How the file was written, as far as that shows in it."""
    from itertools import product

    meta = file.metadata
    leaves = [file.schema.column(place) for place in range(meta.num_columns)]
    first = meta.row_group(0) if meta.num_row_groups else None
    chunks = [first.column(each) for each in range(meta.num_columns)] if first else []
    codecs = {
        leaf.path: "NONE" if chunk.compression == "UNCOMPRESSED" else chunk.compression
        for leaf, chunk in zip(leaves, chunks, strict=False)
    }
    fixed = {
        "version": meta.format_version if meta.format_version in _VERSIONS else _VERSIONS[-1],
        "store_schema": b"ARROW:schema" in (meta.metadata or {}),
        "use_deprecated_int96_timestamps": any(leaf.physical_type == "INT96" for leaf in leaves),
    }
    wanted = {str(leaf) for leaf in leaves}
    tried = []
    for nested, decimals in product((True, False), repeat=2):
        form = {"use_compliant_nested_type": nested, "store_decimal_as_integer": decimals, **fixed}
        tried.append((len(wanted - _stored(schema, form)), form))
    lost, best = min(tried, key=lambda each: each[0])
    if lost:
        _log.warning("%d columns keep their values, but not the form they are stored in", lost)
    return {**best, "compression": codecs or "snappy"}


def _stored(schema: Any, form: Mapping[str, Any]) -> set[str]:
    """The columns as a file written so would have them."""
    from pyarrow import parquet

    empty = BytesIO()
    parquet.write_table(schema.empty_table(), empty, **form)
    made = parquet.ParquetFile(empty)
    return {str(made.schema.column(place)) for place in range(made.metadata.num_columns)}


def _tables(source: Source) -> Iterator[Any]:
    """The row groups; of those that are large, as many rows as fit."""
    import pyarrow as pa

    sizes = group_sizes(source)
    with parquet_file(source) as file:
        for group, size in enumerate(sizes):
            if size <= _LARGE:
                yield file.read_row_group(group)
                continue
            rows = max(1, file.metadata.row_group(group).num_rows * _LARGE // size)
            for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                yield pa.Table.from_batches([batch])


def _edited(table: Any, before: int, changes: Mapping[str, Mapping[int, Tags]], schema: Any) -> Any:
    """The rows with their changes; `before` of the file's rows stand before them."""
    for name, rows in changes.items():
        field = schema.field(name)
        new = {
            line - before - 1: tags
            for line, tags in rows.items()
            if before < line <= before + len(table)
        }
        place = table.schema.get_field_index(name)
        old = _blank(len(table), field) if place < 0 else table.column(place)
        column = _replaced(old.cast(field.type) if old.type != field.type else old, new)
        table = (
            table.append_column(field, column)
            if place < 0
            else table.set_column(place, field, column)
        )
    return table.replace_schema_metadata(schema.metadata)


def _blank(length: int, field: Any) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.nulls(length, field.type)])


def _replaced(column: Any, new: Mapping[int, Tags]) -> Any:
    """The column with other values at some places."""
    import pyarrow as pa
    from pyarrow import types

    if not new:
        return column
    binary = types.is_binary(column.type)
    values = [v.encode() if binary and isinstance(v, str) else v for v in new.values()]
    both = pa.chunked_array([*column.chunks, pa.array(values, column.type)])
    places = list(range(len(column)))
    for number, place in enumerate(new):
        places[place] = len(column) + number
    return both.take(pa.array(places, pa.int64()))
