"""What the studio finds again after a restart: cells, drafts, and how the views were left.

An SQLite file beside the index. It may be deleted: cells are computed again from kept answers.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmtagger.errors import ConfigError

_PATIENCE = 30.0  # seconds that a write waits for others
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    basis TEXT NOT NULL, product TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (basis, product)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drafts (
    parent TEXT NOT NULL, tab TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (parent, tab)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS views (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
"""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A text that was not saved as a version yet, by the browser tab that wrote it."""

    parent: str
    tab: str
    text: str
    at: str


class Shelf:
    """Every write is one row, so that two tabs or two studios do not undo each other's work."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._rows = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._rows.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}")
        except sqlite3.Error as error:
            raise ConfigError(
                f"{path} cannot be used: {error}", hint="delete that file; no gold is in it"
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._rows.close()

    def keep_cell(self, basis: str, product: str, record: Mapping[str, Any]) -> None:
        """Keep a cell's record; `basis` names everything else that it rests on."""
        self._write("REPLACE INTO cells VALUES (?, ?, ?)", basis, product, _text(record))

    def cells(self, basis: str, products: Iterable[str]) -> dict[str, Record]:
        """The kept cells of these products, by id."""
        wanted = set(products)
        rows = self._read("SELECT product, record FROM cells WHERE basis = ?", basis)
        return {product: json.loads(record) for product, record in rows if product in wanted}

    def keep_draft(self, parent: str, tab: str, text: str) -> None:
        """Keep a tab's draft; another tab's stays as it is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._write("REPLACE INTO drafts VALUES (?, ?, ?, ?)", parent, tab, text, at)

    def drop_draft(self, parent: str, tab: str) -> None:
        """Forget a tab's draft, since it was saved or thrown away."""
        self._write("DELETE FROM drafts WHERE parent = ? AND tab = ?", parent, tab)

    def draft(self, parent: str, tab: str) -> Draft | None:
        """The tab's own draft, else the newest of other tabs."""
        rows = self._read(
            "SELECT parent, tab, text, at FROM drafts WHERE parent = ? "
            "ORDER BY tab = ? DESC, at DESC LIMIT 1",
            parent, tab,
        )  # fmt: skip
        return Draft(*rows[0]) if rows else None

    def keep_view(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep how a view was left."""
        self._write("REPLACE INTO views VALUES (?, ?)", name, _text(record))

    def view(self, name: str) -> Record:
        """How a view was left; empty where it was never used."""
        rows = self._read("SELECT record FROM views WHERE name = ?", name)
        found: Record = json.loads(rows[0][0]) if rows else {}
        return found

    def _write(self, statement: str, *values: str) -> None:
        with self._lock:
            self._rows.execute(statement, values)

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._rows.execute(query, values).fetchall()


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True)  # lone surrogates have no UTF-8
