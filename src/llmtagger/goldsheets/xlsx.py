"""Excel workbooks of one sheet: every cell a text, nothing computed, nothing unpacked unseen."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from io import BytesIO
from typing import IO, Any
from xml.parsers import expat

from llmtagger.catalog.files import Source
from llmtagger.catalog.rows import Row, RowFault, Rows, reject
from llmtagger.catalog.tables import check_header, table_line
from llmtagger.errors import GoldError
from llmtagger.goldsheets.statement import columns_of_catalogues

UNPACKED = 512 * 1024 * 1024  # bytes of all parts together; a larger workbook is not opened
PARTS = 1_000  # files in the archive; ours have nine
_ROWS, _WIDEST = 1_048_576, 256  # Excel's most rows; columns beyond the widest are not looked at
_CELL = 32_767  # UTF-16 units in a cell, by Excel's specification
# Characters that XML cannot hold or would change, as Excel writes them: _x000D_
_ESCAPED = re.compile("[\x01-\x08\x0b-\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_WRITTEN = re.compile("_x([0-9A-Fa-f]{4})_")


def write_rows(rows: Iterable[Sequence[str]], handle: IO[bytes]) -> int:
    """Write rows of texts as a workbook, the header first; returns how many there were."""
    openpyxl = _openpyxl()
    from openpyxl.cell import WriteOnlyCell

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("gold")
    sheet.freeze_panes = "C2"  # id, title and the header stay in sight
    count = 0

    def cell(text: str) -> Any:
        made = WriteOnlyCell(sheet, _escaped(text))
        made.data_type = "s"  # openpyxl takes some texts for formulas or errors
        return made

    try:
        for row in rows:
            sheet.append([cell(text) for text in row])
            count += 1
    except BaseException:
        book.save(BytesIO())  # closes and removes openpyxl's temporary file
        raise
    book.save(handle)
    return count


def read_rows(source: Source) -> Rows:
    """The rows under the header of the first sheet; a formula is read as its text."""
    openpyxl = _openpyxl()
    _check_archive(source)
    try:
        book = openpyxl.load_workbook(source.path, read_only=True, keep_links=False)
    except Exception as error:  # it raises whatever a damaged part leads to
        raise _unreadable(source, error) from error
    with closing(book):
        if not book.worksheets:
            raise GoldError(f"{source.name} has no sheet", hint="export it again")
        found = _rows(book.worksheets[0], source)
        number, first = next(found, (0, []))
        header = tuple(name.strip() for name in first)
        while header and not header[-1]:
            header = header[:-1]
        check_header(header, columns_of_catalogues(), source)
        for number, cells in found:
            raw = table_line(cells, ",")
            try:
                yield Row(number, _values(header, cells), raw)
            except RowFault as fault:
                yield reject(number, str(fault), raw)


def _values(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise RowFault(f"a cell stands to the right of the {len(header)} columns with a name")
    if any(len(cell) > _CELL for cell in cells):
        raise RowFault(f"a cell holds more than {_CELL} characters")
    filled = [*cells, *[""] * (len(header) - len(cells))]
    return {name: cell for name, cell in zip(header, filled, strict=False) if name}


def _rows(sheet: Any, source: Source) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with their numbers."""
    # limits, since a sheet may claim a cell in row 10**9, up to which blank rows would be made
    rows = enumerate(sheet.iter_rows(max_row=_ROWS, max_col=_WIDEST, values_only=True), start=1)
    while True:
        try:
            number, values = next(rows)
        except StopIteration:
            return
        except Exception as error:  # as above
            raise _unreadable(source, error) from error
        if values.count(None) == len(values):
            continue  # at once: there may be a million of them
        cells = [_text(value) for value in values]
        while cells and not cells[-1]:
            cells.pop()
        if any(cell.strip() for cell in cells):
            yield number, cells


def _text(value: Any) -> str:
    """A cell as text: whole numbers without a point, days as ISO dates, formulas as written."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _WRITTEN.sub(_character, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(getattr(value, "text", value) or "")  # an array formula holds its text


def _escaped(text: str) -> str:
    written = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    if len(written.encode("utf-16-le")) > 2 * _CELL:
        raise GoldError(
            f"a text is longer than a cell of a workbook may be: {text[:40]!r}…",
            hint="export to a .csv or .json file instead",
        )
    return written


def _character(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    ours = character == "_" or _ESCAPED.fullmatch(character)
    return character if ours else found[0]


def _check_archive(source: Source) -> None:
    """Refuse what would unpack to more than a sheet, and parts that define entities."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            parts = archive.infolist()
            if len(parts) > PARTS or sum(part.file_size for part in parts) > UNPACKED:
                raise GoldError(
                    f"{source.name} unpacks to more than {UNPACKED >> 20} MiB, or {PARTS} parts",
                    hint="split it, or save the sheet as .csv",
                )
            for part in parts:
                with archive.open(part) as handle:
                    _check_prolog(handle, source)
    except GoldError:
        raise
    except Exception as error:  # zipfile and zlib have many ways to fail
        raise _unreadable(source, error) from error


class _RootReached(Exception):
    """A document type, which alone can define entities, can only stand before the root."""


def _check_prolog(handle: IO[bytes], source: Source) -> None:
    def refuse(*declaration: object) -> None:
        raise GoldError(
            f"{source.name} holds XML with a document type, which no spreadsheet program writes",
            hint="do not open it elsewhere either unless you trust where it is from",
        )

    def stop(*element: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        while data := handle.read(1 << 16):
            parser.Parse(data)
    except (_RootReached, expat.ExpatError):  # an image, or XML that is refused when it is read
        return


def _unreadable(source: Source, error: Exception) -> GoldError:
    return GoldError(
        f"{source.name} is no workbook that can be read: {type(error).__name__}: {error}",
        hint="open and save it in a spreadsheet program, or save the sheet as .csv",
    )


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise GoldError(
            "openpyxl is not installed, so no .xlsx can be read or written",
            hint="pip install 'llmtagger[studio]', or use a .csv or .json file",
        ) from error
    # it warns of whatever it leaves out: validations, styles, drawings; we want none of them
    warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
    return openpyxl
