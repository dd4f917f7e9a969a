"""What the studio finds again after a restart: cells, drafts, and how the views were left.

An SQLite file beside the index. It may be deleted: cells are computed again from kept answers. Each
text in it begins with a checksum; one that was altered counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
        self._path = path
        self._lock = threading.Lock()
        with self._usable():
            self._rows = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._rows.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}")
            except BaseException:
                self._rows.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._rows.close()

    def keep_cell(self, basis: str, product: str, record: Mapping[str, Any]) -> None:
        """Keep a cell's record; `basis` names everything else that it rests on."""
        text = _sealed(_text(record), "cell", basis, product)
        self._write("REPLACE INTO cells VALUES (?, ?, ?)", basis, product, text)

    def cells(self, basis: str, products: Iterable[str]) -> dict[str, Record]:
        """The kept cells of these products, by id."""
        wanted = set(products)
        rows = self._read("SELECT product, record FROM cells WHERE basis = ?", basis)
        texts = {
            product: _opened(record, "cell", basis, product)
            for product, record in rows
            if product in wanted
        }
        return {product: json.loads(text) for product, text in texts.items() if text is not None}

    def keep_draft(self, parent: str, tab: str, text: str) -> None:
        """Keep a tab's draft; another tab's stays as it is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        sealed = _sealed(text, "draft", parent, tab, at)
        self._write("REPLACE INTO drafts VALUES (?, ?, ?, ?)", parent, tab, sealed, at)

    def drop_draft(self, parent: str, tab: str) -> None:
        """Forget a tab's draft, since it was saved or thrown away."""
        self._write("DELETE FROM drafts WHERE parent = ? AND tab = ?", parent, tab)

    def draft(self, parent: str, tab: str) -> Draft | None:
        """The tab's own draft, else the newest of other tabs."""
        rows = self._read(
            "SELECT parent, tab, text, at FROM drafts WHERE parent = ? "
            "ORDER BY tab = ? DESC, at DESC",
            parent, tab,
        )  # fmt: skip
        for name, owner, sealed, at in rows:
            text = _opened(sealed, "draft", name, owner, at)
            if text is not None:
                return Draft(name, owner, text, at)
        return None

    def keep_view(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep how a view was left."""
        text = _sealed(_text(record), "view", name)
        self._write("REPLACE INTO views VALUES (?, ?)", name, text)

    def view(self, name: str) -> Record:
        """How a view was left; empty where it was never used."""
        for (sealed,) in self._read("SELECT record FROM views WHERE name = ?", name):
            text = _opened(sealed, "view", name)
            if text is not None:
                found: Record = json.loads(text)
                return found
        return {}

    def _write(self, statement: str, *values: str) -> None:
        with self._usable(), self._lock:
            self._rows.execute(statement, values)

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._usable(), self._lock:
            return self._rows.execute(query, values).fetchall()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """SQLite's complaints as a `ConfigError` with the remedy."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: of a damaged schema
            raise ConfigError(
                f"{self._path} cannot be used: {error}",
                hint="make room on the disk, or its folder writable; if neither is amiss, end the "
                "studio and delete that file: no gold is in it",
            ) from error


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True)  # lone surrogates have no UTF-8


def _sealed(text: str, *key: str) -> str:
    """The text behind a checksum of it and of what it belongs to."""
    said = "\0".join((*key, text)).encode(errors="surrogatepass")
    return f"{hashlib.sha256(said).hexdigest()[:16]} {text}"


def _opened(sealed: object, *key: str) -> str | None:
    """The text that was sealed; None where anything of it has been altered."""
    text = sealed[17:] if isinstance(sealed, str) else ""
    return text if _sealed(text, *map(str, key)) == sealed else None
