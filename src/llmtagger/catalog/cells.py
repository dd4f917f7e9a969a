"""Where the cells of a record stand in its text, so that one of them can be replaced."""

from __future__ import annotations

import re
from functools import cache

from llmtagger.catalog.tables import Record
from llmtagger.errors import CatalogError

_END = re.compile(r"(?:\r\n|\r|\n)?\Z")


@cache
def _cell(delimiter: str) -> re.Pattern[str]:
    """A cell as `csv.reader` takes it: in quotes, or up to the next delimiter or line end."""
    free = f"[^{re.escape(delimiter)}\r\n]"
    return re.compile(f'"[^"]*(?:""[^"]*)*"|(?!"){free}*')


def spans(record: Record, delimiter: str) -> list[tuple[int, int]]:
    """The start and end of each cell in the record's text, quotes included."""
    raw, end = record.raw, len(record.raw) - len(line_end(record.raw))
    found: list[tuple[int, int]] = []
    position = 0
    while True:
        if record.literal:
            stop = raw.find(delimiter, position, end)
            stop = end if stop < 0 else stop
        else:
            match = _cell(delimiter).match(raw, position, end)
            stop = match.end() if match else end
        found.append((position, stop))
        if not raw.startswith(delimiter, stop) or stop >= end:
            break
        position = stop + 1
    if len(found) != len(record.cells) or stop != end:
        raise CatalogError(
            f"line {record.line} has cells that cannot be told apart",
            hint="write to a .jsonl file instead",
        )
    return found


def line_end(raw: str) -> str:
    """The line end of a record, empty at the end of some files."""
    match = _END.search(raw)
    return match[0] if match else ""


def as_cell(text: str, delimiter: str, *, quoted: bool) -> str:
    """Text as it stands in a file: in quotes where it has to be, or where its neighbours are."""
    if quoted or any(char in text for char in (delimiter, '"', "\r", "\n")):
        doubled = text.replace('"', '""')
        return f'"{doubled}"'
    return text
