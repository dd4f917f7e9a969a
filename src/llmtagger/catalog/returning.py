"""Excel files written back with new tags: no other cell changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import BinaryIO

from llmtagger.catalog.additions import Additions
from llmtagger.catalog.excel import SheetTable, locked_cells, sheet_rows, write_cells
from llmtagger.catalog.files import Source
from llmtagger.catalog.profiles import PROFILES, recognise
from llmtagger.catalog.reading import open_catalog, open_excel
from llmtagger.catalog.rows import CatalogOptions, Row
from llmtagger.catalog.tagcells import TagCells, tag_cells
from llmtagger.catalog.writeback import ADDED, ELSEWHERE, described, review_name, say_lost
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

_SAMPLE = 1_000  # rows that show how tags are joined


def write_excel(
    source: Source, options: CatalogOptions, additions: Additions, output: BinaryIO
) -> None:
    """Write the workbook with its additions; without any, it is the same file.

    Columns that are missing are made at the end. `CatalogError` where `review_column` is a column
    that holds something else.
    """
    table, columns = open_excel(source, options)
    fields = columns.layout(table.header).fields
    tags_column = fields.get("tags", ADDED)
    given = {tags_column: additions.tags}
    if (wanted := additions.review_column) is not None:
        given[review_name(table.header, wanted, columns)] = additions.review
    lines = described(open_catalog(source, options).found, options, additions)
    header = list(table.header)
    edits: dict[int, dict[int, str]] = {}
    for name, tags in given.items():
        changes = _changes(table, lines, tags, name)
        if changes and name not in header:
            edits.setdefault(table.line, {})[len(header)] = name
            header.append(name)
        for line, text in changes.items():
            edits.setdefault(line, {})[header.index(name)] = text
    write_cells(table, _unlocked(table, edits, lines), output)


def _unlocked(
    table: SheetTable, edits: dict[int, dict[int, str]], lines: Mapping[int, str]
) -> dict[int, dict[int, str]]:
    """The edits without those of cells that may not be changed; a warning names each product."""
    for (line, column), reason in locked_cells(table, edits).items():
        if line == table.line:
            raise CatalogError(
                f"the header of {table.source.name} has no room for a column: {reason}",
                hint=ELSEWHERE,
            )
        del edits[line][column]
        if line in lines:
            _log.warning("%s: its cell for tags is left as it is: %s", lines[line], reason)
    return {line: cells for line, cells in edits.items() if cells}


def _changes(
    table: SheetTable,
    lines: Mapping[int, str],
    given: Mapping[str, tuple[str, ...]],
    column: str,
) -> dict[int, str]:
    """The cells of a column that become others, by line."""
    sample = islice(_cells(table, column), _SAMPLE)
    style = tag_cells(recognise(table.header, PROFILES), (cell for _, cell in sample))
    found = {
        line: (cell, _extended(style, cell, lines[line], given))
        for line, cell in _cells(table, column)
        if given.get(lines.get(line, ""))
    }
    return {line: new for line, (old, new) in found.items() if new != old}


def _cells(table: SheetTable, column: str) -> Iterable[tuple[int, str]]:
    rows = (row for row in sheet_rows(table) if isinstance(row, Row))
    return ((row.line, str(row.values.get(column, ""))) for row in rows)


def _extended(style: TagCells, cell: str, name: str, given: Mapping[str, tuple[str, ...]]) -> str:
    text, lost = style.extended(cell, given[name])
    say_lost(name, lost)
    return text
