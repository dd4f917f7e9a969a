"""CSV and its relatives: records out of lines, and what to do where quotes do not close."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO

from llmtagger.catalog.files import Line, Source, lines
from llmtagger.catalog.jsonl import TOO_LONG, check_text
from llmtagger.catalog.products import SYNONYMS, Columns
from llmtagger.catalog.rows import RECORD_LIMIT, CatalogOptions, Row, RowFault, Rows, reject
from llmtagger.errors import CatalogError

_DELIMITERS = ",;\t|"
_PATIENCE = 3 * RECORD_LIMIT  # characters read twice before quotes are followed less far
_IMPATIENT_LIMIT = 1_000  # characters of a record of several lines from then on
# What a spreadsheet takes for a formula, after any quotes that were put before it here
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of a record and the text they stood in; `fault` says why there are none."""

    line: int
    cells: tuple[str, ...]
    raw: str
    whole: bool = True
    fault: str | None = None


class _Feed:
    """Hands lines to `csv.reader`, remembers which ones a record took, and takes some back."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._waiting: deque[Line] = deque()
        self._patience = _PATIENCE
        self.taken: list[Line] = []
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._source)
        self.taken.append(line)
        self._size += len(line.text)
        limit = RECORD_LIMIT if self._patience > 0 else _IMPATIENT_LIMIT
        if not line.whole or (len(self.taken) > 1 and self._size > limit):
            raise RowFault("a quotation mark does not close")
        return line.text

    def begin(self) -> None:
        """A new record starts with the next line."""
        self.taken, self._size = [], 0

    def retry(self) -> None:
        """All but the record's first line are read again, as records of their own."""
        self._patience -= self._size
        self._waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def records(source: Source, encoding: str, delimiter: str) -> Iterator[Record]:
    """Every record, the header included; blank lines are records without cells.

    A quote that never closes, or closes before other text, spoils its own line only.
    """
    csv.field_size_limit(RECORD_LIMIT)
    feed = _Feed(lines(source, encoding))
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells, fault = tuple(next(reader)), None
        except StopIteration:
            return
        except (csv.Error, RowFault) as error:
            feed.retry()
            cells, fault = _literal(feed.taken[0], delimiter), f"not valid CSV: {error}"
            fault = None if cells else fault
        first = feed.taken[0]
        raw = "".join(line.text for line in feed.taken)
        yield Record(first.number, cells, raw, first.whole, fault if first.whole else TOO_LONG)


def _literal(line: Line, delimiter: str) -> tuple[str, ...]:
    """Cells of a tab-separated line whose quotes are plain text, as in `"Nike" shoes`."""
    if delimiter != "\t" or not line.whole:
        return ()
    return tuple(line.text.rstrip("\r\n").split(delimiter))


def table_line(cells: Iterable[str], delimiter: str) -> str:
    """A record as text, without its line end; cells with line ends of any kind are quoted."""
    text = StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def find_delimiter(source: Source, encoding: str, options: CatalogOptions) -> str:
    """The delimiter whose header holds most columns that we know, else most columns."""

    def fitness(delimiter: str) -> tuple[int, int]:
        names = read_header(source, encoding, delimiter)
        known = Columns(options, SYNONYMS).layout(names)
        return len(known.fields) + len(known.attributes), len(names)

    return max(_DELIMITERS, key=fitness)


def read_header(source: Source, encoding: str, delimiter: str) -> tuple[str, ...]:
    """The names in the first record that is not blank."""
    found = (r.cells for r in records(source, encoding, delimiter) if r.raw.strip())
    return tuple(name.strip() for name in next(found, ()))


def check_header(header: tuple[str, ...], columns: Columns, source: Source) -> None:
    """`CatalogError` unless every column has one meaning and an id and a title are among them."""
    try:
        check_text("".join(header), "text")
    except RowFault as fault:
        raise CatalogError(
            f"the header of {source.name} is damaged: {fault}", hint="mend its first line"
        ) from fault
    layout = columns.layout(header)
    named = [name for name in header if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise CatalogError(
            f"{source.name} has two columns {twice!r}", hint="rename or remove one of them"
        )
    if len(named) < 2 and not layout.fields:
        raise CatalogError(
            f"{source.name} has one column only: {''.join(named)[:100]!r}",
            hint="separate columns with a comma, semicolon, tab or |, and name them in line 1",
        )
    present = {*layout.fields, *(f"attributes.{name}" for name in layout.attributes)}
    for field in ("id", "title", *columns.mapped):
        if field not in present:
            raise columns.missing(named, field, source.name)


def guard(cell: str) -> str:
    """The cell, with a quote before it where a spreadsheet would take it for a formula.

    >>> guard("=1+1"), restore("'=1+1"), guard("'tis"), restore(guard("'=1"))
    ("'=1+1", '=1+1', "'tis", "'=1")
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """What `guard` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def table_rows(source: Source, encoding: str, delimiter: str) -> Rows:
    """The rows under the header; columns without a name are left out."""
    found = (r for r in records(source, encoding, delimiter) if r.raw.strip() or r.fault)
    header = tuple(name.strip() for name in next(found).cells)
    for record in found:
        try:
            yield Row(record.line, _values(record, header, encoding), record.raw)
        except RowFault as fault:
            yield reject(record.line, str(fault), record.raw)


def _values(record: Record, header: tuple[str, ...], encoding: str) -> dict[str, str]:
    check_text(record.raw, encoding)
    if record.fault:
        raise RowFault(record.fault)
    if len(record.cells) != len(header):
        raise RowFault(f"{len(record.cells)} cells, the header has {len(header)}")
    return {name: cell for name, cell in zip(header, record.cells, strict=True) if name}
