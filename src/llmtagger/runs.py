"""The journal of a run: what is done is done, and the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.errors import RunError
from llmtagger.locking import sole
from llmtagger.output import from_payload, product_record, to_payload

_FORMAT = "2"
_PRIVATE = 0o600
_SYNC_EVERY = 0.5  # seconds of results that a power failure may take; a kill takes none
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS results (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, payload BLOB NOT NULL, checksum TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
_DAMAGED = "the file is damaged or not a journal: start over with --fresh"
_ROOM = (
    "free disk space or make the folder writable, then run the same command to resume"
    " (if that is not the cause, the file is damaged: start over with --fresh)"
)


class Journal:
    """Results by product id, in an SQLite file beside the output (a temporary one without a path).

    A product counts as done when its id and its text are those of the journal; a changed one is
    done again. `basis` is all that an answer depends on: another basis is refused. The file is
    locked while the journal is open, and only its owner may read it: it holds product texts.
    """

    def __init__(self, path: Path | None, basis: Mapping[str, str], *, fresh: bool = False) -> None:
        self._path = path
        with ExitStack() as stack:
            if path:
                _hold(stack, path, fresh)
            with _usable(path):
                self._connection = sqlite3.connect(path or "")
                stack.callback(self._connection.close)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.executescript(_SCHEMA)
                self.run_id = self._begin(path, {**basis, "format": _FORMAT})
                if path:
                    _make_private(path)
                self._connection.execute("PRAGMA synchronous = NORMAL")
            self._closing = stack.pop_all()
        self._synced = time.monotonic()

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
                hint="resume the old run, write to another output, or start over with --fresh",
            )
        return run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def __bool__(self) -> bool:
        """Whether there is any result."""
        with _usable(self._path):
            return self._connection.execute("SELECT 1 FROM results LIMIT 1").fetchone() is not None

    def lacks(self, product: Product) -> bool:
        """Whether the product has no result yet."""
        query = "SELECT 1 FROM results WHERE id = ? AND digest = ?"
        with _usable(self._path):
            row = self._connection.execute(query, (product.id, digest(product))).fetchone()
        return row is None

    def record(self, tagged: TaggedProduct) -> None:
        """Take down one result. A process that is killed afterwards does not lose it."""
        text = json.dumps(to_payload(tagged))  # ASCII: a text may hold half a surrogate pair
        payload = zlib.compress(text.encode(), level=1)
        name, said = tagged.product.id, digest(tagged.product)
        row = (name, said, payload, _checksum(name, said, payload))
        due = time.monotonic() - self._synced > _SYNC_EVERY
        with _usable(self._path):
            if due:  # SQLite waits for the disk once, and takes all commits before along
                self._connection.execute("PRAGMA synchronous = FULL")
            with self._connection:
                self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)
            if due:
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._synced = time.monotonic()

    def results(self, products: Iterable[Product]) -> Iterator[TaggedProduct]:
        """The results of those products that are done, in the products' order."""
        query = "SELECT payload, checksum FROM results WHERE id = ? AND digest = ?"
        for product in products:
            key = (product.id, digest(product))
            with _usable(self._path):
                row = self._connection.execute(query, key).fetchone()
            if row is None:
                continue
            payload, checksum = row
            altered = RunError(
                f"the journal {self._path} is damaged: the result of {product.id!r} has been "
                "altered",
                hint=_DAMAGED,
            )
            if checksum != _checksum(*key, payload):
                raise altered
            try:
                result = from_payload(product, json.loads(zlib.decompress(payload)))
            except (zlib.error, ValueError, KeyError, TypeError) as error:
                raise altered from error
            yield result


def _hold(stack: ExitStack, path: Path, fresh: bool) -> None:
    """Be the only process that works on a journal, emptied if it is to be `fresh`."""
    busy = RunError(
        f"another process is working on {path}", hint="wait for it, or write to another output"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(sole(path, busy, mode=_PRIVATE))
        if fresh:  # not removed: the lock is the file's. SQLite drops the -wal of an empty file
            os.truncate(path, 0)
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write the journal {path}: {error.strerror}",
            hint="write the output to a folder that may be written to",
        ) from error


def _make_private(path: Path) -> None:
    """Close a journal to others that was begun by a version that left it open to them."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.chmod(f"{os.path.realpath(path)}{suffix}", _PRIVATE)


@contextmanager
def _usable(path: Path | None) -> Iterator[None]:
    """SQLite's complaints as a `RunError` with the remedy."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: of a damaged schema
        name = getattr(error, "sqlite_errorname", "")
        disk = name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY"))
        raise RunError(
            f"the journal {path} cannot be used: {error}", hint=_ROOM if disk else _DAMAGED
        ) from error


def _checksum(name: str, said: str, payload: bytes) -> str:
    head = f"{name}\0{said}\0".encode(errors="surrogatepass")
    return hashlib.sha256(head + payload).hexdigest()[:16]


def digest(product: Product) -> str:
    """Identifies what a product says, its labels left out."""
    record: dict[str, Any] = product_record(product)
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
