"""Excel files as catalogues: read, written for people, and written back cell by cell."""

from __future__ import annotations

import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any
from xml.sax.saxutils import escape

from llmtagger.catalog.files import Source
from llmtagger.catalog.rows import RECORD_LIMIT, Row, RowFault, Rows, reject
from llmtagger.catalog.tables import table_line
from llmtagger.catalog.workbook import (
    CELL,
    ESCAPED,
    WIDEST,
    Area,
    Sheet,
    SheetReader,
    Values,
    open_workbook,
)
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

OLD = {".xls", ".xlsm", ".xlsb"}
_HEAD = 20  # rows that are not blank among which the header is looked for
_ELSEWHERE = "write to a .jsonl or .csv file instead"


@dataclass(frozen=True, slots=True)
class SheetTable:
    """The sheet of a workbook that holds products, and the row and the names of its header."""

    source: Source
    sheet: Sheet
    line: int
    header: tuple[str, ...]


def refuse_old(name: str, suffix: str) -> CatalogError:
    """What to say of the formats of Excel that are not read."""
    return CatalogError(
        f"{name} is an Excel file of the kind {suffix}, which is not read",
        hint="open it in a spreadsheet program and save it as .xlsx (without macros)",
    )


def open_sheet(source: Source, understood: Callable[[tuple[str, ...]], bool]) -> SheetTable:
    """The first visible sheet with a header that is `understood`, else the first that holds any.

    The header is among the first rows, since some files have a title above it. `CatalogError`
    where it has too many columns, or where there is none.
    """
    table = _found_sheet(source, understood)
    if table is None:
        raise CatalogError(f"{source.name} has no visible sheet with a row", hint="export it again")
    if len(table.header) > WIDEST:
        raise CatalogError(
            f"{source.name} has more than {WIDEST:,} columns in its sheet {table.sheet.name!r}",
            hint="leave columns out, or save the sheet as .csv",
        )
    return table


def _found_sheet(
    source: Source, understood: Callable[[tuple[str, ...]], bool]
) -> SheetTable | None:
    first: SheetTable | None = None
    with open_workbook(source) as book:
        for sheet in book.sheets:
            rows = book.rows(sheet)
            for _, (line, values) in zip(range(_HEAD), rows, strict=False):
                table = SheetTable(source, sheet, line, _filled(values))
                if understood(table.header):
                    return table
                first = first or table
    return first


def sheet_rows(table: SheetTable) -> Rows:
    """The rows under the header, empty cells as empty texts."""
    with open_workbook(table.source) as book:
        for line, values in book.rows(table.sheet):
            if line <= table.line:
                continue
            cells = _filled(values)
            size = sum(map(len, cells))
            raw = table_line(cells, ",") if size <= RECORD_LIMIT else ""
            try:
                yield Row(line, _values(table.header, cells), raw)
            except RowFault as fault:
                yield reject(line, str(fault), raw)


def _filled(values: Values) -> tuple[str, ...]:
    return tuple(values.get(column, "").strip() for column in range(max(values) + 1))


def _values(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise RowFault(f"a cell stands to the right of the {len(header)} columns with a name")
    if any(len(cell) > CELL for cell in cells):
        raise RowFault(f"a cell holds more than {CELL} characters")
    filled = [*cells, *[""] * (len(header) - len(cells))]
    return {name: cell for name, cell in zip(header, filled, strict=False) if name}


def write_rows(
    rows: Iterable[Sequence[str]], handle: IO[bytes], title: str, *, cut: bool = False
) -> int:
    """Write rows of texts as a workbook, the header first; returns how many there were.

    A text that is longer than a cell may be is cut, or a `CatalogError` without `cut`.
    """
    import openpyxl
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet(title)
    sheet.freeze_panes = "C2"  # id, title and the header stay in sight
    bold = Font(bold=True)
    count = 0

    def cell(text: str) -> Any:
        made = WriteOnlyCell(sheet, _escaped(text, cut=cut))
        made.data_type = "s"  # openpyxl takes some texts for formulas or errors
        if not count:
            made.font = bold
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


def _escaped(text: str, *, cut: bool) -> str:
    written = ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    if len(written.encode("utf-16-le")) <= 2 * CELL:
        return written
    if not cut:
        raise CatalogError(
            f"a text is longer than a cell of a workbook may be: {text[:40]!r}…",
            hint=_ELSEWHERE,
        )
    _log.warning("a text is cut at the length of a cell: %r…", text[:40])
    return written[: CELL // 2]


Edits = Mapping[int, Mapping[int, str]]  # texts by row and column


def locked_cells(table: SheetTable, wanted: Edits) -> dict[tuple[int, int], str]:
    """Which of the wanted cells may not be changed, by row and column, and why.

    They hold a formula, are results of one for several cells, or are merged with others.
    """
    found: dict[tuple[int, int], str] = {}
    results: list[Area] = []
    columns = {column for row in wanted.values() for column in row}
    with open_workbook(table.source) as book:
        with book.archive.open(table.sheet.part) as handle:
            for line, cells in SheetReader().rows(iter(lambda: handle.read(1 << 16), b"")):
                spread = (cell.spread for cell in cells.values() if cell.spread)
                results += [area for area in spread if any(_across(area, each) for each in columns)]
                for column in wanted.get(line, ()):
                    if column in cells and cells[column].computed:
                        found[line, column] = "it holds a formula"
        merged = book.areas(table.sheet)
        found |= dict.fromkeys(_inside(wanted, merged), "it is merged with other cells")
    formula = "it is part of an array formula or a data table"
    return dict.fromkeys(_inside(wanted, results), formula) | found


def _inside(wanted: Edits, areas: Iterable[Area]) -> Iterator[tuple[int, int]]:
    """Those of the wanted cells that are in an area, by row and column."""
    areas = sorted(areas)
    for column in {column for row in wanted.values() for column in row}:
        lines = sorted(line for line, row in wanted.items() if column in row)
        across = (area[:2] for area in areas if _across(area, column))
        yield from ((line, column) for line in _within(lines, across))


def _across(area: Area, column: int) -> bool:
    _, _, left, right = area
    return left <= column <= right


def _within(lines: Iterable[int], areas: Iterator[tuple[int, int]]) -> Iterator[int]:
    """Those of the lines, in order, that are in an area; areas are in the order of their tops."""
    reach, waiting = 0, next(areas, None)
    for line in lines:
        while waiting is not None and waiting[0] <= line:
            reach, waiting = max(reach, waiting[1]), next(areas, None)
        if line <= reach:
            yield line


def write_cells(table: SheetTable, edits: Edits, output: IO[bytes]) -> None:
    """Write the workbook with some cells of the sheet replaced, all else as it is.

    Other parts are the same to the byte, and so is the sheet around the cells, whose styles stay.
    """
    if not edits:
        with table.source.path.open("rb") as original:
            shutil.copyfileobj(original, output)
        return
    with open_workbook(table.source) as book, zipfile.ZipFile(output, "w") as copied:
        _warn_of_losses(book.archive, table)
        for part in book.archive.infolist():
            made = zipfile.ZipInfo(part.filename, part.date_time)
            made.compress_type, made.external_attr = part.compress_type, part.external_attr
            with book.archive.open(part) as old, copied.open(made, "w") as new:
                if part.filename == table.sheet.part:
                    _edit(book.archive, table, edits, new)
                else:
                    shutil.copyfileobj(old, new)


def _warn_of_losses(archive: zipfile.ZipFile, table: SheetTable) -> None:
    names = archive.namelist()
    if any(name.startswith("_xmlsignatures/") for name in names):
        _log.warning("%s is signed; the signature does not hold for the copy", table.source.name)
    if "xl/calcChain.xml" in names:
        _log.warning(
            "%s has formulas; those that read the tags show the new ones once it is recalculated",
            table.source.name,
        )


def _edit(archive: zipfile.ZipFile, table: SheetTable, edits: Edits, output: IO[bytes]) -> None:
    """Copy the sheet with its edits, at the bytes that a first pass finds."""
    places = _Places(edits)
    with archive.open(table.sheet.part) as handle:
        for _ in SheetReader(places.note).rows(iter(lambda: handle.read(1 << 16), b"")):
            pass
    with archive.open(table.sheet.part) as handle:
        if handle.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise CatalogError(
                f"{table.source.name} is written in UTF-16, which cannot be edited",
                hint="save it in a spreadsheet program and try again",
            )
    with archive.open(table.sheet.part) as handle:
        _copy_with(handle, iter(places.found), output)


@dataclass(frozen=True, slots=True)
class _Place:
    """Bytes of a sheet where a cell stands (up to the `>` from `end` on) or is to be put."""

    start: int
    end: int | None
    reference: str
    text: str


class _Places:
    """Finds the bytes of the cells that are edited."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self.found: list[_Place] = []
        self._row: int | None = None
        self._waiting: list[tuple[int, str]] = []
        self._open: int | None = None

    def note(self, what: str, number: int, column: int, at: int) -> None:
        if number != self._row:
            self._row = number
            self._waiting = sorted(self._edits.get(number, {}).items())
        if what == "cell":
            while self._waiting and self._waiting[0][0] < column:
                self._put(at, None)
            self._open = at if self._waiting and self._waiting[0][0] == column else None
        elif what == "cell's end" and self._open is not None:
            self._put(self._open, at)
            self._open = None
        elif what == "row's end":
            while self._waiting:
                self._put(at, None)

    def _put(self, start: int, end: int | None) -> None:
        column, text = self._waiting.pop(0)
        self.found.append(_Place(start, end, f"{letters_of(column)}{self._row}", text))


def letters_of(column: int) -> str:
    """0 is `A`, 26 is `AA`."""
    from openpyxl.utils import get_column_letter

    return str(get_column_letter(column + 1))


_STYLE = re.compile(rb'\bs="(\d+)"')
_NAME = re.compile(rb"<((?:\w+:)?)c\b")


def _copy_with(handle: IO[bytes], places: Iterator[_Place], output: IO[bytes]) -> None:
    """Copy bytes, at each place the new cell instead of the old one."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        return handle.read(count)

    prefix = b""
    for place in places:
        while place.start > position:
            output.write(piece := take(min(1 << 16, place.start - position)))
            if match := _NAME.search(piece):
                prefix = match[1]
        style = b""
        if place.end is not None:
            old = take(place.end - position)
            while not old.endswith(b">") or position <= place.end:
                old += take(1)
            opening = old[: old.index(b">")]
            if match := _NAME.match(opening):
                prefix = match[1]
            style = b" " + found[0] if (found := _STYLE.search(opening)) else b""
        output.write(_cell(place, prefix, style))
    shutil.copyfileobj(handle, output)


def _cell(place: _Place, prefix: bytes, style: bytes) -> bytes:
    text = escape(_escaped(place.text, cut=False)).encode()
    p, reference = prefix, place.reference.encode()
    return b'<%bc r="%b"%b t="inlineStr"><%bis><%bt xml:space="preserve">%b</%bt></%bis></%bc>' % (
        p,
        reference,
        style,
        p,
        p,
        text,
        p,
        p,
        p,
    )
