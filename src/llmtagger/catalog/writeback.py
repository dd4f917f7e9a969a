"""A text table written back with new tags: every other byte stays as it is."""

from __future__ import annotations

import codecs
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO

from llmtagger.catalog.additions import Additions
from llmtagger.catalog.cells import as_cell, line_end, spans
from llmtagger.catalog.files import Source, find_encoding, marked_encoding
from llmtagger.catalog.products import SYNONYMS, Columns, fold
from llmtagger.catalog.reading import Found, open_catalog
from llmtagger.catalog.rows import CatalogOptions, RejectedRow
from llmtagger.catalog.shops import Shop
from llmtagger.catalog.tables import Record, Table, all_records, body, open_table
from llmtagger.catalog.tagcells import TagCells, tag_cells
from llmtagger.errors import CatalogError

_log = logging.getLogger(__name__)

ADDED = "tags"  # the column that is made where a file has none
_SAMPLE = 1_000  # rows that show how tags are joined
ELSEWHERE = "write to a .jsonl file instead"


def write_table(
    source: Source, options: CatalogOptions, additions: Additions, output: BinaryIO
) -> None:
    """Write the table with its additions.

    Columns that are missing are made at the end, once something is to be written there. A tag
    that a cell cannot hold is left out with a warning. `CatalogError` where the encoding has no
    such character, or where the file could not be written back byte for byte.
    """
    encoding = find_encoding(source, options.encoding)
    table = open_table(source, encoding, options)
    editor = _Editor(table, options, additions)
    lines = described(open_catalog(source, options).found, options, additions)
    changes: dict[int, dict[str, str]] = {}
    for record in body(table):
        if (name := lines.get(record.line)) and (change := editor.change(record, name)):
            changes[record.line] = change
    if not changes:
        copy(source, output)
        return
    added = editor.added(changes)
    pieces = ((record, editor.text(record, changes, added)) for record in _whole(table))
    header = editor.header(added) if added and not table.line else None
    write_exactly(source, table.encoding, _with_header(pieces, header), output)


def copy(source: Source, output: BinaryIO) -> None:
    """Write the source as it is."""
    with source.path.open("rb") as original:
        shutil.copyfileobj(original, output)


def described(
    found: Found, options: CatalogOptions, additions: Additions, *, by_place: bool = False
) -> dict[int, str]:
    """The products to which something is added, by the line that describes each.

    With `by_place` they are numbered instead, from 0: several objects may stand on one line.
    """
    lines: dict[str, int] = {}
    for place, each in enumerate(found):
        if isinstance(each, RejectedRow):
            continue
        product, row = each
        if product.id not in additions.tags and product.id not in additions.review:
            continue
        if options.on_duplicate == "last" or product.id not in lines:
            lines[product.id] = place if by_place else row.line
    return {line: name for name, line in lines.items()}


def review_name(header: Sequence[str], wanted: str, columns: Columns) -> str:
    """The column for review: one of the file's, or a new name that is no field's."""
    same = (name for name in header if fold(name) == fold(wanted))
    name = wanted if wanted in header else next(same, wanted.strip())
    layout = columns.layout(tuple(header if name in header else (*header, name)))
    field = next((f for f, column in layout.fields.items() if column == name), None)
    field = "tags" if fold(name) == ADDED else field
    if field is not None or not name:
        raise CatalogError(
            f"tags for review cannot stand in the column {name!r}"
            + (f", which is read as {field}" if field else ""),
            hint="give --review-column another name, e.g. tags_to_review",
        )
    return name


def say_lost(name: str, tags: Iterable[str]) -> None:
    """Warn of tags that a cell of a product cannot hold."""
    for tag in tags:
        _log.warning("%s: the tag %r is left out, its cell cannot hold it", name, tag)


def _whole(table: Table) -> Iterator[Record]:
    for record in all_records(table):
        if not record.whole:
            raise CatalogError(
                f"line {record.line} of {table.source.name} is too long to be written back",
                hint=ELSEWHERE,
            )
        yield record


class _Editor:
    """What becomes of each record: a tags cell and a review cell, each made where it is not."""

    def __init__(self, table: Table, options: CatalogOptions, additions: Additions) -> None:
        self._table = table
        self._additions = additions
        columns = Columns(options, SYNONYMS)
        if table.profile is not None:
            columns = Shop(table.profile, table.header, options).columns
        fields = columns.layout(table.header).fields
        names = {"tags": fields.get("tags", ADDED)}
        if additions.review_column is not None:
            names["review"] = review_name(table.header, additions.review_column, columns)
        self._names = names
        self._places = {
            each: table.header.index(name) for each, name in names.items() if name in table.header
        }
        self._cells = {each: self._style(self._places.get(each)) for each in names}

    def _style(self, place: int | None) -> TagCells:
        rows = islice(body(self._table), _SAMPLE)
        cells = (row.cells[place] for row in rows if place is not None and place < len(row.cells))
        return tag_cells(self._table.profile, cells)

    def change(self, record: Record, name: str) -> dict[str, str]:
        """The cells of a product's record that become others, by what they are for."""
        found: dict[str, str] = {}
        own = self._cell(record, "tags")
        tags = self._additions.tags.get(name, ())
        found["tags"] = self._extended(record, "tags", name, tags, ())
        if "review" in self._names:
            besides = (*self._cells["tags"].split(own), *tags)
            review = self._additions.review.get(name, ())
            found["review"] = self._extended(record, "review", name, review, besides)
        return {each: text for each, text in found.items() if text != self._cell(record, each)}

    def _cell(self, record: Record, each: str) -> str:
        place = self._places.get(each)
        return "" if place is None else record.cells[place]

    def _extended(
        self, record: Record, each: str, name: str, tags: Iterable[str], besides: Iterable[str]
    ) -> str:
        plain = [tag for tag in tags if not (record.literal and _breaks(tag, self._table))]
        text, lost = self._cells[each].extended(self._cell(record, each), plain, besides)
        say_lost(name, (*lost, *(tag for tag in tags if tag not in plain)))
        return text

    def added(self, changes: Mapping[int, Mapping[str, str]]) -> list[str]:
        """What the columns are for that are made at the end."""
        used = {each for change in changes.values() for each in change}
        return [each for each in self._names if each in used and each not in self._places]

    def header(self, added: list[str]) -> str:
        """The header of a file that has none, with the columns that are made."""
        names = [*self._table.header, *(self._names[each] for each in added)]
        return self._table.delimiter.join(
            as_cell(name, self._table.delimiter, quoted=False) for name in names
        )

    def text(
        self, record: Record, changes: Mapping[int, Mapping[str, str]], added: list[str]
    ) -> str:
        """The record's text with what has changed in it."""
        table, raw = self._table, record.raw
        change = changes.get(record.line, {})
        below = record.line >= max(table.line, 1)
        if not record.cells or not raw.strip() or not below or not (change or added):
            return raw
        where = spans(record, table.delimiter) if len(table.header) > 1 or not table.titles else []
        last = raw[slice(*where[-1])] if where else ""
        for place, each in sorted(
            ((self._places[each], each) for each in change if each in self._places), reverse=True
        ):
            start, stop = where[place]
            cell = self._as_cell(change[each], record, quoted=raw.startswith('"', start))
            raw = raw[:start] + cell + raw[stop:]
        if added:
            head = record.line == table.line
            texts = [self._names[each] if head else change.get(each, "") for each in added]
            quoted = last.startswith('"') and not record.literal
            cells = [self._as_cell(text, record, quoted=quoted) for text in texts]
            end = line_end(raw)
            front = raw[: len(raw) - len(end)]
            front = front if where else _title_cell(front, record, table.delimiter)
            raw = table.delimiter.join([front, *cells]) + end
        return raw

    def _as_cell(self, text: str, record: Record, *, quoted: bool) -> str:
        plain = record.literal and not self._table.titles
        return text if plain else as_cell(text, self._table.delimiter, quoted=quoted)


def _breaks(tag: str, table: Table) -> bool:
    """Whether a tag cannot stand in a line whose quotes are plain text."""
    return not table.titles and any(char in tag for char in (table.delimiter, '"', "\r", "\n"))


def _title_cell(text: str, record: Record, delimiter: str) -> str:
    """A title alone in its line, as the first of several cells."""
    unclear = delimiter in text or text.lstrip().startswith('"')
    return as_cell(text, delimiter, quoted=True) if record.literal and unclear else text


def _with_header(
    pieces: Iterable[tuple[Record, str]], header: str | None
) -> Iterator[tuple[str, str]]:
    """The old and the new text of each record; a list of titles gets the header that it lacks."""
    first = header is not None
    for record, text in pieces:
        if first:
            end = line_end(record.raw) or "\n"
            yield record.raw, f"{header}{end}{text}"
            first = False
        else:
            yield record.raw, text


def write_exactly(
    source: Source, encoding: str, pieces: Iterable[tuple[str, str]], output: BinaryIO
) -> None:
    """Write the new texts in the file's encoding, where the old ones encode to its very bytes."""
    with source.path.open("rb") as original:
        encoding, mark = marked_encoding(source, encoding)
        output.write(original.read(len(mark)))
        for old, new in pieces:
            was = _encoded(old, encoding, source)
            if original.read(len(was)) != was:
                raise CatalogError(
                    f"{source.name} cannot be written back byte for byte as {encoding}",
                    hint=f"save it as UTF-8 first, or {ELSEWHERE}",
                )
            output.write(was if new == old else _encoded(new, encoding, source))


def _encoded(text: str, encoding: str, source: Source) -> bytes:
    try:
        return codecs.encode(text, encoding, "surrogateescape")
    except UnicodeEncodeError as error:
        raise CatalogError(
            f"{source.name} cannot be written back as {encoding}: {error}",
            hint=f"save it as UTF-8 first, or {ELSEWHERE}",
        ) from error
