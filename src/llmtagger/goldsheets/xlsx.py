"""Gold in Excel workbooks of one sheet: every cell a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

from llmtagger.catalog.excel import open_sheet, sheet_rows
from llmtagger.catalog.excel import write_rows as write_sheet
from llmtagger.catalog.files import Source
from llmtagger.catalog.rows import Rows
from llmtagger.catalog.tables import check_header
from llmtagger.goldsheets.statement import columns_of_catalogues


def write_rows(rows: Iterable[Sequence[str]], handle: IO[bytes]) -> int:
    """Write rows of texts as a workbook, the header first; returns how many there were."""
    return write_sheet(rows, handle, "gold")


def read_rows(source: Source) -> Rows:
    """The rows under the header of the sheet that holds products."""
    columns = columns_of_catalogues()
    table = open_sheet(source, lambda header: "id" in columns.layout(header).fields)
    check_header(table.header, columns, source)
    return sheet_rows(table)
