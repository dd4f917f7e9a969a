"""From a gold book into a file, and from a file into a gold book."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar

from llmtagger.catalog.files import Source, find_encoding, first_character, open_source
from llmtagger.catalog.jsonl import read_array
from llmtagger.catalog.products import Columns
from llmtagger.catalog.rows import CatalogOptions, RejectedRow, Row, RowFault, Rows, reject
from llmtagger.catalog.tables import open_table, table_line, table_rows
from llmtagger.catalog.writing import replacing
from llmtagger.errors import GoldError
from llmtagger.goldbook import GoldBook
from llmtagger.goldsheets import xlsx
from llmtagger.goldsheets.label_studio import from_task, write_tasks
from llmtagger.goldsheets.statement import (
    COLUMNS,
    Statement,
    columns_of_catalogues,
    from_row,
    statement_of,
    to_cells,
)
from llmtagger.marks import Entry, State, settle, words
from llmtagger.vocabulary import Vocabulary

Function = TypeVar("Function")

LARGEST = 256 * 1024 * 1024  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    `products` are rows that were taken, `new` those whose product the book did not know, `marks`
    what changed by them. Of `silent` rows nobody has said anything. `unknown` are tags that the
    vocabulary does not have; they are marks like any other.
    """

    products: int
    new: int
    marks: int
    silent: int
    unknown: tuple[str, ...]
    rejected: tuple[RejectedRow, ...]


def export_gold(entries: Iterable[Entry], path: Path, vocabulary: Vocabulary) -> int:
    """Write entries to a .csv, .xlsx or .json (Label Studio) file; returns how many there were.

    A file that is there is replaced at the end, unless something fails before.
    """
    write = _by_suffix(path, _WRITERS)
    with replacing(path) as handle:
        return write((statement_of(entry, vocabulary) for entry in entries), handle)


def import_gold(path: Path, book: GoldBook, vocabulary: Vocabulary, author: str) -> Imported:
    """Take in what a .csv, .xlsx or .json (Label Studio) file says.

    A row's tags are marked right and wrong. Where it is reviewed, it names all of the product's
    tags: any other is marked wrong. What the book holds already is left as it is, with its author.
    `author` stands for rows that name none. `GoldError` or `CatalogError` where the file as a
    whole cannot be read; a faulty row is left out and reported.
    """
    read = _by_suffix(path, _READERS)
    columns = columns_of_catalogues()
    products = new = marks = silent = 0
    unknown: dict[str, None] = {}
    rejected: list[RejectedRow] = []
    with open_source(path) as source:
        if source.path.stat().st_size > LARGEST:
            raise GoldError(
                f"{path} is larger than {LARGEST >> 20} MiB", hint="split it into several files"
            )
        for row, said in _statements(read(source), read is _read_tasks, columns, vocabulary):
            if isinstance(row, RejectedRow):
                rejected.append(row)
            elif said is None:
                silent += 1
            else:
                was_new, changed = _take(said, book, vocabulary, said.author or author)
                products, new, marks = products + 1, new + was_new, marks + changed
                tags = (*said.right, *said.wrong)
                unknown.update((tag, None) for tag in tags if vocabulary.resolve(tag) is None)
    return Imported(products, new, marks, silent, tuple(unknown), tuple(rejected))


def _statements(
    rows: Rows, tasks: bool, columns: Columns, vocabulary: Vocabulary
) -> Iterator[tuple[Row | RejectedRow, Statement | None]]:
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row, None
            continue
        try:
            said = from_task(row, columns) if tasks else from_row(row, columns)
            if said is not None:
                _check(said, vocabulary)
        except RowFault as fault:
            yield reject(row.line, str(fault), row.raw), None
        else:
            yield row, said


def _check(said: Statement, vocabulary: Vocabulary) -> None:
    pairs = [*((tag, True) for tag in said.right), *((tag, False) for tag in said.wrong)]
    verdicts = settle(pairs, vocabulary)
    for tag in settle(((tag, True) for tag in said.right), vocabulary):
        if not verdicts[tag]:
            raise RowFault(f"the tag {tag!r} is both right and wrong")


def _take(said: Statement, book: GoldBook, vocabulary: Vocabulary, author: str) -> tuple[bool, int]:
    """Whether the product is new, and how many marks were made: none that changes nothing."""
    entry = book.entry(said.product.id)
    product = entry.product if entry else said.product
    before = list(words(product, entry.marks)) if entry else []
    verdicts = settle(before, vocabulary)
    reviewed = said.state is State.REVIEWED
    after = settle(
        chain(
            before,
            ((tag, False) for tag, right in verdicts.items() if right and reviewed),
            ((tag, False) for tag in said.wrong),
            ((tag, True) for tag in said.right),
        ),
        vocabulary,
    )
    changed = {tag: right for tag, right in after.items() if verdicts.get(tag) is not right}
    if entry is None or changed or (reviewed and entry.state is State.OPEN):
        book.take(product, changed, author, reviewed=reviewed)
    return entry is None, len(changed)


def _write_csv(statements: Iterable[Statement], handle: IO[bytes]) -> int:
    """With a byte order mark, by which spreadsheets know that it is UTF-8."""
    handle.write("\ufeff".encode())
    rows = chain([COLUMNS], map(to_cells, statements))
    count = -1
    for count, cells in enumerate(rows):  # noqa: B007  the header is number 0
        handle.write(f"{table_line(cells, ',')}\r\n".encode())
    return count


def _write_xlsx(statements: Iterable[Statement], handle: IO[bytes]) -> int:
    return xlsx.write_rows(chain([COLUMNS], map(to_cells, statements)), handle) - 1


def _read_csv(source: Source) -> Rows:
    encoding = find_encoding(source, None)
    return table_rows(open_table(source, encoding, CatalogOptions(), profiles=(), titles=False))


def _read_tasks(source: Source) -> Rows:
    encoding = find_encoding(source, None)
    if first_character(source, encoding) != "[":
        raise GoldError(
            f"{source.name} is no list of tasks", hint="export JSON or JSON-MIN from Label Studio"
        )
    return read_array(source, encoding)


_WRITERS: dict[str, Callable[[Iterable[Statement], IO[bytes]], int]] = {
    ".csv": _write_csv,
    ".xlsx": _write_xlsx,
    ".json": write_tasks,
}
_READERS: dict[str, Callable[[Source], Rows]] = {
    ".csv": _read_csv,
    ".xlsx": xlsx.read_rows,
    ".json": _read_tasks,
}


SUFFIXES = tuple(_WRITERS)


def _by_suffix(path: Path, known: dict[str, Function]) -> Function:
    found = known.get(path.suffix.lower())
    if found is None:
        raise GoldError(
            f"{path} is not a format for gold",
            hint=f"use a name that ends in {', '.join(known)} (.json is Label Studio's)",
        )
    return found
