"""What a file's readers hand on: rows that may become products, and those that cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_SURROGATE = re.compile("[\ud800-\udfff]")
RAW_LIMIT = 2_000  # characters of a rejected row that are kept
MOST_COLUMNS = 10_000  # of a table, keys of a record
RECORD_LIMIT = 10_000_000  # characters of one record; a longer one is rejected unread


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is no product: the line where it starts, why, and its first 2,000 characters."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """How catalogues are read.

    `encoding` is found by itself when None. `columns` names the file's column for a field of
    ours, e.g. `{"id": "Artikelnummer", "attributes.colour": "Farbe"}`.
    """

    encoding: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    on_duplicate: Literal["error", "first", "last"] = "error"


@dataclass(frozen=True, slots=True)
class Row:
    """A readable row: its values by column, the line where it starts, and its text."""

    line: int
    values: Mapping[str, Any]
    raw: str


Rows = Iterator[Row | RejectedRow]


class RowFault(ValueError):
    """Why a row is no product; caught where the row is read and turned into a `RejectedRow`."""


def reject(line: int, reason: str, raw: str) -> RejectedRow:
    """A rejected row whose text is cut and, where it did not decode, made printable."""
    shown = raw[:RAW_LIMIT].rstrip("\r\n")
    return RejectedRow(line, reason, _SURROGATE.sub("\ufffd", shown))
