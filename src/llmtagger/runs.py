"""The journal of a run: what is done is done, and the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.errors import RunError
from llmtagger.output import from_payload, product_record, to_payload

_COMMIT_EVERY = 0.5  # seconds; what a killed process has to do again
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS results (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, payload TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Journal:
    """Results by product id, in an SQLite file beside the output (or in memory).

    A product counts as done when its id and its text are those of the journal; a changed one is
    done again. `basis` is all that an answer depends on: another basis is refused.
    """

    def __init__(self, path: Path | None, basis: Mapping[str, str], *, fresh: bool = False) -> None:
        self._path = path
        self._lock = FileLock(f"{path}.lock") if path else None
        self._acquire(path)
        try:
            if path and fresh:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
            with _usable(path):
                self._connection = sqlite3.connect(path or ":memory:")
        except BaseException:
            self._release()
            raise
        try:
            with _usable(path):
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.executescript(_SCHEMA)
                self.run_id = self._begin(path, basis)
        except BaseException:
            self._connection.close()
            self._release()
            raise
        self._committed = time.monotonic()

    def _acquire(self, path: Path | None) -> None:
        if self._lock is None:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"another process is working on {path}",
                hint="wait for it, or write to another output",
            ) from error
        except OSError as error:
            raise RunError(
                f"cannot write the journal {path}: {error.strerror}",
                hint="write the output to a folder that exists and may be written to",
            ) from error

    def _begin(self, path: Path | None, basis: Mapping[str, str]) -> str:
        stored: dict[str, str] = dict(self._connection.execute("SELECT key, value FROM meta"))
        run_id = stored.pop("run_id", None)
        if run_id is None:
            run_id = time.strftime("%Y%m%dT%H%M%S-") + secrets.token_hex(3)
            rows = [*basis.items(), ("run_id", run_id)]
            with self._connection:
                self._connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        elif stored != dict(basis):
            changed = sorted(k for k in stored | dict(basis) if stored.get(k) != basis.get(k))
            raise RunError(
                f"{path} belongs to a run with another {', '.join(changed)}",
                hint="go on with the old one, write to another output, or start anew with --fresh",
            )
        return run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            with _usable(self._path):
                self._connection.commit()
        finally:
            self._connection.close()
            self._release()

    def _release(self) -> None:
        if self._lock:
            self._lock.release()

    def remaining(self, products: Sequence[Product]) -> list[Product]:
        """The products that have no result yet."""
        with _usable(self._path):
            done = dict(self._connection.execute("SELECT id, digest FROM results"))
        return [product for product in products if done.get(product.id) != digest(product)]

    def record(self, tagged: TaggedProduct) -> None:
        """Take down one result; those of the last half second may wait for the next one."""
        payload = json.dumps(to_payload(tagged))  # ASCII: a text may hold half a surrogate pair
        row = (tagged.product.id, digest(tagged.product), payload)
        with _usable(self._path):
            self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", row)
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._connection.commit()
                self._committed = time.monotonic()

    def results(self, products: Sequence[Product]) -> Iterator[TaggedProduct]:
        """The results of those products that are done, in the products' order."""
        query = "SELECT payload FROM results WHERE id = ? AND digest = ?"
        for product in products:
            with _usable(self._path):
                row = self._connection.execute(query, (product.id, digest(product))).fetchone()
            if row:
                yield from_payload(product, json.loads(row[0]))


@contextmanager
def _usable(path: Path | None) -> Iterator[None]:
    """SQLite's complaints as a `RunError` with the remedy."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"the journal {path} cannot be used: {error}",
            hint="if the disk has room, the file is damaged or no journal: start anew with --fresh",
        ) from error


def digest(product: Product) -> str:
    """Identifies what a product says, its labels left out."""
    record: dict[str, Any] = product_record(product)
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
