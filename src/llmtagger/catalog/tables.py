"""CSV and its relatives: records out of lines, and what to do where quotes do not close."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import dropwhile
from pathlib import Path

from llmtagger.catalog.files import Line, Source, lines
from llmtagger.catalog.jsonl import TOO_LONG, check_text
from llmtagger.catalog.products import SYNONYMS, Columns, fold
from llmtagger.catalog.profiles import PROFILES, Profile, recognise
from llmtagger.catalog.rows import (
    MOST_COLUMNS,
    RECORD_LIMIT,
    CatalogOptions,
    Row,
    RowFault,
    Rows,
    reject,
)
from llmtagger.errors import CatalogError

LINE = "\0line"  # a column of our own: the line of a title in its list
_DELIMITERS = ",;\t|"
_HEAD, _HEAD_SIZE = 12, 1_000_000  # records, characters of them, that may hold a header
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NO_TITLE = re.compile(r"[<{\[%]")  # a web page, JSON or PDF by another name
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
    literal: bool = False  # quotes are plain text


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
        literal = False
        try:
            cells, fault = tuple(next(reader)), None
        except StopIteration:
            return
        except (csv.Error, RowFault) as error:
            feed.retry()
            cells, fault = _literal(feed.taken[0], delimiter), f"not valid CSV: {error}"
            literal = bool(cells)
            fault = None if cells else fault
        first = feed.taken[0]
        raw = "".join(line.text for line in feed.taken)
        fault = fault if first.whole else TOO_LONG
        yield Record(first.number, cells, raw, first.whole, fault, literal)


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


@dataclass(frozen=True, slots=True)
class Table:
    """A text table: how it is written, its header and the line where that stands.

    Above the header of a known format (`profile`) other lines may stand. In a list of titles
    (`titles`) a product's id is its line below the header; without a header, `line` is 0.
    """

    source: Source
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    line: int
    profile: Profile | None = None
    titles: bool = False


def open_table(
    source: Source,
    encoding: str,
    options: CatalogOptions,
    *,
    profiles: Sequence[Profile] = PROFILES,
    titles: bool = True,
) -> Table:
    """How a table is written; `CatalogError` where its header cannot be used."""
    heads = {delimiter: _head(source, encoding, delimiter) for delimiter in _DELIMITERS}
    for delimiter, head in heads.items():
        if found := _known(head, profiles):
            record, profile = found
            header = _numbered(_names(record))
            return Table(source, encoding, delimiter, header, record.line, profile)

    columns = Columns(options, SYNONYMS)

    def fitness(delimiter: str) -> tuple[int, int]:
        names = _names(heads[delimiter][0]) if heads[delimiter] else ()
        if len(names) > MOST_COLUMNS:
            return 0, len(names)
        layout = columns.layout(names)
        return len(layout.fields) + len(layout.attributes), len(names)

    delimiter = max(_DELIMITERS, key=fitness)
    head = heads[delimiter]
    table = Table(
        source,
        encoding,
        delimiter,
        _names(head[0]) if head else (),
        head[0].line if head else 1,
    )
    if titles and (listed := _title_list(table, heads, columns)):
        return listed
    check_header(table.header, columns, source)
    return table


def _head(source: Source, encoding: str, delimiter: str) -> list[Record]:
    """The first records that are not blank, in which a header may stand."""
    found: list[Record] = []
    size = 0
    for record in records(source, encoding, delimiter):
        if record.raw.strip():
            found.append(record)
            size += len(record.raw)
        if len(found) >= _HEAD or size > _HEAD_SIZE:
            break
    return found


def _names(record: Record) -> tuple[str, ...]:
    return tuple(name.strip() for name in record.cells)


def _known(head: Sequence[Record], profiles: Sequence[Profile]) -> tuple[Record, Profile] | None:
    """The header of a known format: the last one, as some have it in two languages."""
    for record in reversed(head):
        names = _names(record)
        if len(names) <= MOST_COLUMNS and (profile := recognise(names, profiles)):
            return record, profile
    return None


def _numbered(header: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that a known format may repeat, told apart: `product_detail (2)`."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for name in header:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if name and seen[name] > 1 else name)
    return tuple(names)


def _title_list(
    table: Table, heads: Mapping[str, Sequence[Record]], columns: Columns
) -> Table | None:
    """The table as a list of titles, if it is one: no id, and nothing but titles and their tags."""
    header = table.header
    if not header or len(header) > MOST_COLUMNS:
        return None
    fields = columns.layout(header).fields
    if "id" not in fields and header[:2] == tuple(
        fields[each] for each in ("title", "tags")[: len(header)] if each in fields
    ):
        return replace(table, titles=True)
    if fields or not _bare(heads, table.source):
        return None
    delimiter = "," if _suffix(table.source) == ".csv" else "\t"
    return replace(table, delimiter=delimiter, header=("title",), line=0, titles=True)


def _bare(heads: Mapping[str, Sequence[Record]], source: Source) -> bool:
    """Whether lines are titles: of one cell each in .csv and .tsv, else not the rows of a table."""
    first = next(iter(heads.values()))[0].raw
    words = {fold(word) for word in re.split(r"[^\w\s-]+", first)}
    known = sum(not words.isdisjoint(synonyms) for synonyms in SYNONYMS.values())
    if known > 1 or "\0" in first or _NO_TITLE.match(first):
        return False
    if _suffix(source) in (".csv", ".tsv"):
        return all(len(head[0].cells) == 1 for head in heads.values())
    shapes = [(len(head), {len(record.cells) for record in head}) for head in heads.values()]
    return not any(rows > 1 and len(widths) == 1 and widths != {1} for rows, widths in shapes)


def _suffix(source: Source) -> str:
    return "" if source.piped else Path(source.name).suffix.lower()


def check_header(header: tuple[str, ...], columns: Columns, source: Source) -> None:
    """`CatalogError` unless every column has one meaning and an id and a title are among them."""
    if len(header) > MOST_COLUMNS:
        raise CatalogError(
            f"{source.name} has {len(header):,} columns, and {MOST_COLUMNS:,} are the most",
            hint="check its delimiter and its first line, or leave columns out",
        )
    try:
        check_text("".join(header), "text")
    except RowFault as fault:
        raise CatalogError(
            f"the header of {source.name} is damaged: {fault}",
            hint="write the header again as UTF-8 text, and try again",
        ) from fault
    layout = columns.layout(header)
    named = [name for name in header if name]
    twice = next((name for name, count in Counter(named).items() if count > 1), None)
    if twice is not None:
        raise CatalogError(
            f"{source.name} has two columns {twice!r}", hint="rename or remove one of them"
        )
    if len(named) < 2 and not layout.fields:
        raise CatalogError(
            f"{source.name} has one column only: {''.join(named)[:100]!r}",
            hint="separate columns with a comma, semicolon, tab or |, and name them in line 1",
        )
    if lacking := columns.lacking(layout):
        raise columns.missing(named, lacking, source.name)


def guard(cell: str) -> str:
    """The cell, with a quote before it where a spreadsheet would take it for a formula.

    >>> guard("=1+1"), restore("'=1+1"), guard("'tis"), restore(guard("'=1"))
    ("'=1+1", '=1+1', "'tis", "'=1")
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """What `guard` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def table_rows(table: Table) -> Rows:
    """The rows under the header; columns without a name are left out."""
    for record in body(table):
        if not (record.raw.strip() or record.fault):
            continue
        try:
            yield Row(record.line, _values(record, table), record.raw)
        except RowFault as fault:
            yield reject(record.line, str(fault), record.raw)


def body(table: Table) -> Iterator[Record]:
    """The records below the header, blank ones included."""
    return dropwhile(lambda record: record.line <= table.line, all_records(table))


def all_records(table: Table) -> Iterator[Record]:
    """Every record of the file, what stands above the header included."""
    if table.titles and len(table.header) == 1:
        return title_records(table)
    return records(table.source, table.encoding, table.delimiter)


def _values(record: Record, table: Table) -> dict[str, str]:
    check_text(record.raw, table.encoding)
    if record.fault:
        raise RowFault(record.fault)
    header = table.header
    if len(record.cells) != len(header):
        raise RowFault(f"{len(record.cells)} cells, the header has {len(header)}")
    values = {name: cell for name, cell in zip(header, record.cells, strict=True) if name}
    if table.titles:
        values[LINE] = str(record.line - table.line)
    return values


def title_records(table: Table) -> Iterator[Record]:
    """Each line as a record of one cell; quotes and delimiters within it are text."""
    for line in lines(table.source, table.encoding):
        text = line.text.strip()
        if not line.whole:
            yield Record(line.number, (), line.text, False, TOO_LONG)
        elif _QUOTED.fullmatch(text):
            yield Record(line.number, (text[1:-1].replace('""', '"'),), line.text)
        else:
            yield Record(line.number, (text,), line.text, literal=True)
