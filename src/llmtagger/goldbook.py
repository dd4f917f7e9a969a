"""Tags that people gave by hand: an SQLite file beside an index's snapshots.

Any number of processes and threads may write at once. Every write is one small transaction about
one product, so that none undoes what another one has just said of something else.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from llmtagger.datatypes import Product
from llmtagger.errors import GoldError
from llmtagger.marks import Entry, Mark, Rating, State, clean, settle, words
from llmtagger.normalise import normalise
from llmtagger.vocabulary import Vocabulary

FILE = "studio.sqlite"
VIEWS = "studio-views.sqlite"  # the studio's own, beside it; may be deleted
FILES = tuple(  # both with what SQLite lays beside them
    name + suffix for name in (FILE, VIEWS) for suffix in ("", "-wal", "-shm", "-journal")
)
PATIENCE = 30.0  # seconds that a write waits for others

_APPLICATION = 0x6C74676F  # "ltgo", in the file's header: says whose file it is
_FORMAT = 1
_SCHEMA = (
    """CREATE TABLE products (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record TEXT NOT NULL,
        state TEXT NOT NULL, revision INTEGER NOT NULL, author TEXT NOT NULL, at TEXT NOT NULL
    ) STRICT""",
    # a mark that is made again gets a new place: the order of places is that of writing
    """CREATE TABLE marks (
        place INTEGER PRIMARY KEY AUTOINCREMENT, product_id TEXT NOT NULL, tag TEXT NOT NULL,
        is_right INTEGER NOT NULL CHECK (is_right IN (0, 1)),
        author TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (product_id, tag)
    ) STRICT""",
    """CREATE TABLE ratings (
        product_id TEXT NOT NULL, version TEXT NOT NULL, stars INTEGER, comment TEXT NOT NULL,
        author TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (product_id, version)
    ) STRICT, WITHOUT ROWID""",
)
_TABLES = {"products", "marks", "ratings", "sqlite_sequence"}
_PRODUCT = TypeAdapter(Product)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many products there are in each state, how many marks of each kind, and ratings."""

    open: int
    reviewed: int
    approved: int
    right: int
    wrong: int
    ratings: int


class GoldBook:
    """Marks, ratings and states of products by id; use it with `with`.

    The file is made if need be. `GoldError` where it is damaged, another program's, or cannot be
    written; what waits longer than `PATIENCE` for other writers gives up with one too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()  # one transaction at a time on the one connection
        with self._usable():
            self._connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            with self._usable():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA trusted_schema = OFF")
        with self._transaction("IMMEDIATE"):
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (written,) = self._connection.execute("PRAGMA user_version").fetchone()
            held = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
            if not held and not application and not written:
                for statement in _SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {_FORMAT}")
            else:
                self._check(application, written, held)
        self._write_ahead()

    def _check(self, application: int, written: int, held: set[str]) -> None:
        automatic = {name for name in held if name.startswith("sqlite_autoindex_")}
        if application != _APPLICATION or (written == _FORMAT and held - automatic != _TABLES):
            raise GoldError(
                f"{self._path} is no gold book", hint="move it away: a new one is made in its place"
            )
        if written != _FORMAT:
            raise GoldError(
                f"{self._path} has the format {written}, this llmtagger writes {_FORMAT}",
                hint="use the llmtagger that wrote it, or a newer one",
            )

    def _write_ahead(self) -> None:
        """Readers and the one writer do not wait for each other from here on.

        SQLite does not wait where two processes change the mode at once, so it is tried again.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def mark(self, product: Product, tag: str, right: bool, author: str) -> None:
        """Say that a tag is right or wrong for a product, which is then open again."""
        self.take(product, {tag: right}, author)

    def take(
        self, product: Product, verdicts: Mapping[str, bool], author: str, *, reviewed: bool = False
    ) -> None:
        """Several marks of one product at once; with `reviewed`, an open product is reviewed then.

        The product is stored as it is handed in. Without marks its state stays as it was.
        """
        marks = [(clean(tag.strip()), right) for tag, right in verdicts.items()]
        if not all(normalise(tag) for tag, _ in marks):
            raise GoldError("a tag without a visible character", hint="give the tag a name")
        at, author, id = _now(), clean(author), clean(product.id)
        with self._transaction("IMMEDIATE"):
            self._store(product, author, at)
            self._connection.executemany(
                "REPLACE INTO marks (product_id, tag, is_right, author, at) VALUES (?, ?, ?, ?, ?)",
                [(id, tag, int(right), author, at) for tag, right in marks],
            )
            if marks:
                self._move(id, State.OPEN, author, at)
            if reviewed and self._state(id) is State.OPEN:
                self._move(id, State.REVIEWED, author, at)

    def unmark(self, product_id: str, tag: str) -> None:
        """Take a mark back, if there is one; its product is then open again."""
        id = clean(product_id)
        with self._transaction("IMMEDIATE"):
            gone = self._connection.execute(
                "DELETE FROM marks WHERE product_id = ? AND tag = ?", (id, clean(tag.strip()))
            )
            if gone.rowcount:
                self._connection.execute(
                    "UPDATE products SET state = ?, revision = revision + 1 WHERE id = ?",
                    (State.OPEN.value, id),
                )

    def rate(
        self, product: Product, version: str, stars: int | None, comment: str, author: str
    ) -> None:
        """Rate a prompt version's tags for a product; the last word counts. No state changes."""
        if stars is not None and not 1 <= stars <= 5:
            raise GoldError(f"{stars} stars", hint="give 1 to 5 stars, or none")
        at, author = _now(), clean(author)
        with self._transaction("IMMEDIATE"):
            self._store(product, author, at)
            self._connection.execute(
                "REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?)",
                (clean(product.id), clean(version), stars, clean(comment), author, at),
            )

    def add(self, product: Product, author: str) -> None:
        """Store a product of which nothing has been said yet, or store it anew as it is now."""
        self.take(product, {}, author)

    def review(self, product_id: str, author: str) -> None:
        """Say that the product's gold is all of its tags; `GoldError` for an unknown product."""
        self._settle_state(product_id, State.REVIEWED, author, None)

    def approve(self, product_id: str, author: str, *, revision: int | None = None) -> bool:
        """Say that the gold is in the index; `GoldError` for an unknown product.

        False, and nothing changes, where `revision` is no longer that of the entry: somebody has
        said something since it was read.
        """
        return self._settle_state(product_id, State.APPROVED, author, revision)

    def _settle_state(
        self, product_id: str, state: State, author: str, revision: int | None
    ) -> bool:
        id = clean(product_id)
        with self._transaction("IMMEDIATE"):
            row = self._connection.execute(
                "SELECT revision FROM products WHERE id = ?", (id,)
            ).fetchone()
            if row is None:
                raise GoldError(
                    f"the gold book does not know the product {product_id!r}",
                    hint="mark one of its tags first, or import it",
                )
            if revision not in (None, row[0]):
                return False
            self._move(id, state, clean(author), _now())
            return True

    def marks(self, product_id: str) -> tuple[Mark, ...]:
        """The marks of a product in the order in which they were made."""
        rows = self._all(
            "SELECT product_id, tag, is_right, author, at FROM marks WHERE product_id = ? "
            "ORDER BY place",
            clean(product_id),
        )
        return tuple(Mark(id, tag, bool(right), author, at) for id, tag, right, author, at in rows)

    def ratings(self) -> tuple[Rating, ...]:
        """All ratings, by product and version."""
        return self._ratings("TRUE")

    def _ratings(self, which: str, *values: str) -> tuple[Rating, ...]:
        rows = self._all(
            "SELECT product_id, version, stars, comment, author, at FROM ratings "
            f"WHERE {which} ORDER BY product_id, version",
            *values,
        )
        return tuple(Rating(*row) for row in rows)

    def state(self, product_id: str) -> State:
        """The product's state; one that the book does not know is open."""
        with self._usable(), self._lock:
            return self._state(clean(product_id))

    def gold(self, product: Product, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The product's own tags and those marked right, less those marked wrong.

        An alias and its tag are the same tag; known tags go by their names in the vocabulary.
        """
        said = settle(words(product, self.marks(product.id)), vocabulary)
        return tuple(tag for tag, right in said.items() if right)

    def entry(self, product_id: str) -> Entry | None:
        """All about one product, as it was at one moment; None where the book does not know it."""
        id = clean(product_id)
        with self._transaction("DEFERRED"):
            row = self._connection.execute(
                "SELECT record, state, revision, author, at FROM products WHERE id = ?", (id,)
            ).fetchone()
            if row is None:
                return None
            record, state, revision, author, at = row
            product = self._product(record)
            marks, ratings = self.marks(id), self._ratings("product_id = ?", id)
            return Entry(product, marks, ratings, State(state), revision, author, at)

    def entries(self) -> Iterator[Entry]:
        """Every product, in the order in which the book came to know them."""
        for (id,) in self._all("SELECT id FROM products ORDER BY place"):
            entry = self.entry(id)
            if entry is not None:
                yield entry

    def counts(self) -> Counts:
        """What the book holds, in numbers."""
        with self._transaction("DEFERRED"):
            states = dict(self._all("SELECT state, COUNT(*) FROM products GROUP BY state"))
            marks = dict(self._all("SELECT is_right, COUNT(*) FROM marks GROUP BY is_right"))
            [(ratings,)] = self._all("SELECT COUNT(*) FROM ratings")
        return Counts(
            open=states.get(State.OPEN.value, 0),
            reviewed=states.get(State.REVIEWED.value, 0),
            approved=states.get(State.APPROVED.value, 0),
            right=marks.get(1, 0),
            wrong=marks.get(0, 0),
            ratings=ratings,
        )

    def _store(self, product: Product, author: str, at: str) -> None:
        self._connection.execute(
            "INSERT INTO products (id, record, state, revision, author, at) "
            "VALUES (?, ?, ?, 0, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET record = excluded.record, revision = revision + 1 WHERE record <> excluded.record",
            (clean(product.id), _record(product), State.OPEN.value, author, at),
        )

    def _move(self, id: str, state: State, author: str, at: str) -> None:
        self._connection.execute(
            "UPDATE products SET state = ?, revision = revision + 1, author = ?, at = ? "
            "WHERE id = ?",
            (state.value, author, at, id),
        )

    def _state(self, id: str) -> State:
        row = self._connection.execute("SELECT state FROM products WHERE id = ?", (id,)).fetchone()
        return State.OPEN if row is None else State(row[0])

    def _product(self, record: str) -> Product:
        try:
            return _PRODUCT.validate_json(record)
        except ValidationError as error:
            raise self._damaged(f"a product in it cannot be read: {error}") from error

    def _all(self, query: str, *values: str) -> Sequence[tuple[Any, ...]]:
        with self._usable(), self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        with self._usable(), self._lock:
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """SQLite's complaints, and values that cannot be, as a `GoldError` with the remedy."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise GoldError(
                    f"others have been writing to {self._path} for {PATIENCE:.0f} seconds",
                    hint="try again; if nobody is, some process holds it without an end",
                ) from error
            raise self._damaged(error) from error
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, reason: object) -> GoldError:
        return GoldError(
            f"the gold book {self._path} cannot be used: {reason}",
            hint="check that its folder is there and writable; if so, the file is damaged: "
            "bring back a copy, or move it away and import your last export",
        )


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _record(product: Product) -> str:
    """JSON that reads back as an equal product; an output record could not be told from its extras.

    Values of `extra` that JSON does not know become texts.
    """
    return clean(json.dumps(asdict(product), ensure_ascii=False, default=str))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
