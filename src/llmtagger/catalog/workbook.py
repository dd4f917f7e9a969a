"""Excel workbooks as rows of texts: read as a stream, nothing computed, memory bounded."""

from __future__ import annotations

import re
import zipfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import IO, Any
from xml.parsers import expat

from llmtagger.catalog.files import Source
from llmtagger.errors import CatalogError

UNPACKED = 512 * 1024 * 1024  # bytes of all parts together; a larger workbook is not opened
PARTS = 1_000  # files in the archive
ROWS, WIDEST = 1_048_576, 2_000  # Excel's most rows; the columns that are read
STRINGS, CELLS = 2_000_000, 10_000_000  # texts that cells share; cells and rows of one sheet
CELL = 32_767  # characters in a cell, by Excel's specification
_PIECE = 1 << 16
_REF = re.compile("([A-Z]{1,3})([0-9]{1,7})")
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*?\bref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')
_MERGES = 100_000  # merged areas that are looked at
_SMALLEST = len("<c/>")
_OPENED = re.compile(rb"<(?:\w+:)?(?:c|row)[\s/>]")
_SPREAD = ("array", "dataTable")  # formulas whose results stand in several cells
_AREA = re.compile("([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})")
# Characters that XML cannot hold or would change, as Excel writes them: _x000D_
ESCAPED = re.compile("[\x01-\x08\x0b-\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_WRITTEN = re.compile("_x([0-9A-Fa-f]{4})_")
_PADDED = re.compile(r"0+")
_DECIMALS = re.compile(r"(?:#,##)?0\.(0+)(%?)|0(%)")

Values = dict[int, str]
Area = tuple[int, int, int, int]  # its first and last row, its first and last column


@dataclass(frozen=True, slots=True)
class Sheet:
    """A visible sheet: its name and its part of the archive."""

    name: str
    part: str


@dataclass(slots=True)
class Cell:
    """A cell as it stands in the sheet: its type, its style, its text, and its formula."""

    kind: str
    style: int
    text: list[str] = field(default_factory=list)
    formula: list[str] = field(default_factory=list)
    computed: bool = False  # a formula may have no text of its own
    spread: Area | None = None  # where the results of a formula for several cells stand


class Workbook:
    """An open workbook; `CatalogError` where it is damaged or unpacks to too much."""

    def __init__(self, source: Source, archive: zipfile.ZipFile) -> None:
        self.source = source
        self.archive = archive
        self.sheets: list[Sheet] = []
        self._targets: dict[str, str] = {}
        self._is_1904 = False
        self._strings = _Strings()
        self._formats: list[str] = []
        self._check()
        parts = set(archive.namelist())
        folder = "xl/"
        self._parse(f"{folder}_rels/workbook.xml.rels", self._relation)
        self._parse(f"{folder}workbook.xml", self._declaration)
        if f"{folder}sharedStrings.xml" in parts:
            self._strings.read(self._stream(f"{folder}sharedStrings.xml"))
        if f"{folder}styles.xml" in parts:
            styles = _Styles()
            self._parse(f"{folder}styles.xml", styles.start, styles.end)
            self._formats = styles.codes()

    def rows(self, sheet: Sheet) -> Iterator[tuple[int, Values]]:
        """Rows that are not blank: their numbers and texts by column, from 0.

        A cell that is merged with those under it stands in each of their rows. A text in column
        `WIDEST` stands for all texts from there on. `CatalogError` where the sheet is too large.
        """
        self._check_size(sheet)
        merged = self._merged(sheet)
        anchors: dict[tuple[int, int], str] = {}
        reader = SheetReader()
        for number, cells in reader.rows(self._stream(sheet.part)):
            values = {column: self.text(cell) for column, cell in cells.items()}
            values = {column: text for column, text in values.items() if text.strip()}
            for column, first in merged.get(number, ()):
                if first == number:
                    anchors[column, first] = values.get(column, "")
                elif text := anchors.get((column, first), ""):
                    values.setdefault(column, text)
            if values:
                yield number, values

    def _merged(self, sheet: Sheet) -> Mapping[int, list[tuple[int, int]]]:
        """By row the columns that are merged downwards, with the first row of the area."""
        found: dict[int, list[tuple[int, int]]] = {}
        count = 0
        for first, last, column, _ in self.areas(sheet):
            for number in range(first, min(last, first + _MERGES) + 1 if last > first else first):
                found.setdefault(number, []).append((column, first))
                count += 1
            if count > _MERGES:
                break
        return found

    def _check_size(self, sheet: Sheet) -> None:
        """Refuse a sheet with too many cells in seconds; reading them takes minutes.

        A tag across two pieces is not counted: while the sheet is read, all cells are.
        """
        if self.archive.getinfo(sheet.part).file_size < CELLS * _SMALLEST:
            return
        count = 0
        for data in self._stream(sheet.part):
            count += len(_OPENED.findall(data))
            if count > CELLS:
                raise _too_many_cells()

    def areas(self, sheet: Sheet) -> Iterator[Area]:
        """The areas that are merged."""
        tail, count = b"", 0
        for data in self._stream(sheet.part):
            joined = tail + data
            for match in _MERGED.finditer(joined):
                left, right = (column_of(match[each].decode()) for each in (1, 3))
                yield int(match[2]), int(match[4]), left, right
                count += 1
                if count > _MERGES:
                    return
            last_end = max((match.end() for match in _MERGED.finditer(joined)), default=0)
            tail = joined[max(last_end, len(joined) - 200) :]

    def text(self, cell: Cell) -> str:
        """A cell as a person sees it: the value of a formula, an ISO date, 12 and not 12.0."""
        text = "".join(cell.text)
        if not text and cell.formula:
            return f"={''.join(cell.formula)}"  # no program has computed it yet
        if cell.kind == "s":
            return self._strings[int(text)] if text else ""
        if cell.kind in ("str", "inlineStr"):
            return unescaped(text)
        if cell.kind == "b":
            return {"1": "true", "0": "false"}.get(text, text)
        if cell.kind == "e":
            return ""
        code = self._formats[cell.style] if cell.style < len(self._formats) else "General"
        return _number(text, code, is_1904=self._is_1904) if cell.kind == "n" else text

    def _check(self) -> None:
        parts = self.archive.infolist()
        if len(parts) > PARTS or sum(part.file_size for part in parts) > UNPACKED:
            raise CatalogError(
                f"{self.source.name} unpacks to more than {UNPACKED >> 20} MiB, or {PARTS} parts",
                hint="split it, or save the sheet as .csv",
            )
        for part in parts:
            with self.archive.open(part) as handle:
                _check_prolog(handle, self.source)

    def _stream(self, part: str) -> Iterator[bytes]:
        with self.archive.open(part) as handle:
            while data := handle.read(_PIECE):
                yield data

    def _parse(
        self,
        part: str,
        start: Callable[[str, dict[str, str]], None],
        end: Callable[[str], None] | None = None,
    ) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = lambda name, given: start(_local(name), given)
        parser.EndElementHandler = (lambda name: end(_local(name))) if end else None
        for data in self._stream(part):
            parser.Parse(data)
        parser.Parse(b"", True)

    def _relation(self, name: str, given: dict[str, str]) -> None:
        if name == "Relationship" and given.get("TargetMode") != "External":
            target = given["Target"]
            path = target[1:] if target.startswith("/") else f"xl/{target}"
            self._targets[given["Id"]] = path

    def _declaration(self, name: str, given: dict[str, str]) -> None:
        if name == "workbookPr":
            self._is_1904 = given.get("date1904") in ("1", "true")
        if name == "sheet" and given.get("state", "visible") == "visible":
            relation = next(
                value for key, value in given.items() if _local(key) == "id" and ":" in key
            )
            part = self._targets.get(relation, "")
            if part.startswith("xl/worksheets/"):  # not a chart
                self.sheets.append(Sheet(given["name"], part))


class SheetReader:
    """The cells of a sheet, row by row; what stands where is told to `note`."""

    def __init__(self, note: Callable[[str, int, int, int], None] | None = None) -> None:
        self._note = note or (lambda what, number, column, at: None)
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._number, self._column = 0, -1
        self._cells: dict[int, Cell] = {}
        self._cell: Cell | None = None
        self._held: Cell | None = None
        self._into: list[str] | None = None
        self._size = 0
        self._count = 0
        self._done: list[tuple[int, dict[int, Cell]]] = []

    def rows(self, stream: Iterator[bytes]) -> Iterator[tuple[int, dict[int, Cell]]]:
        """The rows in the order of the file, cells by column."""
        for data in stream:
            self._parser.Parse(data)
            yield from self._done
            self._done = []
        self._parser.Parse(b"", True)
        yield from self._done

    def _start(self, name: str, given: dict[str, str]) -> None:
        name = _local(name)
        if name in ("c", "row"):
            self._count += 1
            if self._count > CELLS:
                raise _too_many_cells()
        if name == "c":
            match = _REF.fullmatch(given.get("r", ""))
            self._column = column_of(match[1]) if match else self._column + 1
            self._cell = Cell(given.get("t", "n"), int(given.get("s", 0)))
            self._note("cell", self._number, self._column, self._parser.CurrentByteIndex)
        elif name in ("v", "t") and self._cell is not None:
            self._into, self._size = self._cell.text, 0
        elif name == "f" and self._cell is not None:
            self._into, self._size = self._cell.formula, 0
            self._cell.computed = True
            if given.get("t") in _SPREAD:
                self._cell.spread = _area(given.get("ref", ""))
        elif name == "rPh":  # how to pronounce it
            self._into = None
            self._cell, self._held = None, self._cell
        elif name == "row":
            self._number, self._column = int(given.get("r") or self._number + 1), -1
            self._cells = {}

    def _end(self, name: str) -> None:
        name = _local(name)
        if name in ("v", "t", "f"):
            self._into = None
        elif name == "c":
            self._note("cell's end", self._number, self._column, self._parser.CurrentByteIndex)
            if self._cell is not None and (self._column < WIDEST or _holds(self._cell)):
                self._cells[min(self._column, WIDEST)] = self._cell
            self._cell = None
        elif name == "rPh":
            self._cell = self._held
        elif name == "row":
            self._note("row's end", self._number, -1, self._parser.CurrentByteIndex)
            if self._cells and self._number <= ROWS:
                self._done.append((self._number, self._cells))

    def _characters(self, data: str) -> None:
        if self._into is not None and self._size <= CELL:
            self._into.append(data[: CELL + 1])
            self._size += len(data)


def _holds(cell: Cell) -> bool:
    return bool(cell.text or cell.formula)


def _area(reference: str) -> Area | None:
    """The area that `C2:D5` names; None for a single cell."""
    match = _AREA.fullmatch(reference)
    if match is None:
        return None
    return int(match[2]), int(match[4]), column_of(match[1]), column_of(match[3])


def _too_many_cells() -> CatalogError:
    return _too_many(f"{CELLS:,} cells in a sheet")


def _too_many(what: str) -> CatalogError:
    return CatalogError(
        f"the workbook holds more than {what}",
        hint="split it, or save the sheet as .csv",
    )


class _Strings:
    """The texts that cells share, held as bytes: a million small texts are no million objects."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q", [0])

    def __getitem__(self, place: int) -> str:
        start, end = self._ends[place], self._ends[place + 1]
        return unescaped(self._data[start:end].decode())

    def read(self, stream: Iterator[bytes]) -> None:
        """Take in the part of the archive that holds them."""
        state = {"in": False, "skip": 0, "size": 0}

        def start(name: str, given: object) -> None:
            name = _local(name)
            state["in"] = name == "t" and not state["skip"]
            state["skip"] += name == "rPh"
            if name == "si":
                state["size"] = 0

        def end(name: str) -> None:
            name = _local(name)
            state["in"] = False
            state["skip"] -= name == "rPh"
            if name == "si":
                self._ends.append(len(self._data))
                if len(self._ends) > STRINGS + 1:
                    raise _too_many(f"{STRINGS:,} texts")

        def characters(data: str) -> None:
            if state["in"] and state["size"] <= CELL:
                self._data.extend(data[: CELL + 1].encode())
                state["size"] += len(data)

        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = characters
        for data in stream:
            parser.Parse(data)
        parser.Parse(b"", True)


class _Styles:
    """The number format of each style of cells."""

    def __init__(self) -> None:
        self._own: dict[int, str] = {}
        self._used: list[int] = []
        self._inside = False

    def start(self, name: str, given: dict[str, str]) -> None:
        if name == "numFmt":
            self._own[int(given["numFmtId"])] = given["formatCode"]
        elif name == "cellXfs":
            self._inside = True
        elif name == "xf" and self._inside and len(self._used) < _PIECE:
            self._used.append(int(given.get("numFmtId", 0)))

    def end(self, name: str) -> None:
        if name == "cellXfs":
            self._inside = False

    def codes(self) -> list[str]:
        """Their codes, by the number of the style."""
        from openpyxl.styles.numbers import BUILTIN_FORMATS

        return [self._own.get(used, BUILTIN_FORMATS.get(used, "General")) for used in self._used]


@contextmanager
def open_workbook(source: Source) -> Iterator[Workbook]:
    """The workbook of a file; `CatalogError` says what to do with one that cannot be read."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            yield Workbook(source, archive)
    except CatalogError:
        raise
    except Exception as error:  # zipfile, zlib and expat have many ways to fail
        raise unreadable_workbook(source, error) from error


def unreadable_workbook(source: Source, error: Exception) -> CatalogError:
    """What to say of a file that is no workbook, or a damaged one."""
    return CatalogError(
        f"{source.name} is no workbook that can be read: {type(error).__name__}: {error}",
        hint="open it in a spreadsheet program, without a password, and save it as .xlsx or .csv",
    )


def unescaped(text: str) -> str:
    """A text without Excel's escapes: `_x000D_` is a carriage return."""
    return _WRITTEN.sub(_character, text) if "_x" in text else text


def _character(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    ours = character == "_" or ESCAPED.fullmatch(character)
    return character if ours else found[0]


def column_of(letters: str) -> int:
    """`A` is 0, `AA` is 26."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _number(text: str, code: str, *, is_1904: bool) -> str:
    """A number as its format shows it, as far as that matters to a reader of text."""
    from openpyxl.styles.numbers import is_date_format

    try:
        value = float(text)
    except ValueError:
        return text
    if code != "General" and is_date_format(code):
        return _moment(value, is_1904=is_1904) or text
    if _PADDED.fullmatch(code) and value >= 0:
        return f"{value:0{len(code)}.0f}"
    if match := _DECIMALS.fullmatch(code):
        percent = bool(match[2] or match[3])
        shown = f"{value * 100 if percent else value:.{len(match[1] or '')}f}"
        return f"{shown}%" if percent else shown
    plain = f"{value:.15g}"
    return plain if "e" not in plain or abs(value) >= 1e21 else f"{value:.0f}"


def _moment(value: float, *, is_1904: bool) -> str:
    from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, from_excel

    try:
        found: Any = from_excel(value, CALENDAR_MAC_1904 if is_1904 else CALENDAR_WINDOWS_1900)
    except (ValueError, OverflowError, TypeError):
        return ""
    if isinstance(found, datetime) and found.time() == time():
        return found.date().isoformat()
    return str(found.isoformat()) if hasattr(found, "isoformat") else str(found)


class _RootReached(Exception):
    """A document type, which alone can define entities, can only stand before the root."""


def _check_prolog(handle: IO[bytes], source: Source) -> None:
    def refuse(*declaration: object) -> None:
        raise CatalogError(
            f"{source.name} holds XML with a document type, which no spreadsheet program writes",
            hint="do not open it elsewhere either unless you trust where it is from",
        )

    def stop(*element: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        while data := handle.read(_PIECE):
            parser.Parse(data)
    except (_RootReached, expat.ExpatError):  # an image, or XML that is refused when it is read
        return
