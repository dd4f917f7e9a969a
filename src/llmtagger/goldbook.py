"""Tags that people gave by hand: an SQLite file beside an index's snapshots.

Any number of processes and threads may write at once. Every write is one small transaction about
one product, so that none undoes what another one has just said of something else. All that is held
about a product has a checksum, so that a damaged file gives no wrong gold.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
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
_FORMAT = 2  # 1 had no seals
_SEALS = (
    "CREATE TABLE seals (product_id TEXT PRIMARY KEY, checksum TEXT NOT NULL) STRICT, WITHOUT ROWID"
)
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
    _SEALS,
)
_TABLES = {
    1: {"products", "marks", "ratings", "sqlite_sequence"},
    2: {"products", "marks", "ratings", "seals", "sqlite_sequence"},
}
_HELD = (  # all about a product
    "SELECT * FROM products WHERE id = ?",
    "SELECT * FROM marks WHERE product_id = ? ORDER BY place",
    "SELECT * FROM ratings WHERE product_id = ? ORDER BY version",
)
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
            _create(path)
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
            self._check(application, written, held)
            if written == 1:
                self._seal_all()
        self._write_ahead()

    def _check(self, application: int, written: int, held: set[str]) -> None:
        if not (held or application or written):
            raise GoldError(
                f"the gold book {self._path} is empty, so what it held is lost",
                hint="bring back a copy, or move it away and import your last export",
            )
        automatic = {name for name in held if name.startswith("sqlite_autoindex_")}
        tables = _TABLES.get(written)
        if application != _APPLICATION or tables not in (None, held - automatic):
            raise GoldError(
                f"{self._path} is no gold book", hint="move it away: a new one is made in its place"
            )
        if tables is None:
            raise GoldError(
                f"{self._path} has the format {written}, this llmtagger writes {_FORMAT}",
                hint="use the llmtagger that wrote it, or a newer one",
            )

    def _seal_all(self) -> None:
        """Bring a book of the format 1 to the one of now."""
        self._connection.execute(_SEALS)
        for (id,) in self._all("SELECT id FROM products"):
            self._seal(id, self._checksum(id))
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def _seal(self, id: str, checksum: str) -> None:
        self._connection.execute("REPLACE INTO seals VALUES (?, ?)", (id, checksum))

    def _checksum(self, id: str) -> str:
        return _digest(self._connection.execute(query, (id,)).fetchall() for query in _HELD)

    def _checked(self, id: str) -> str:
        """The checksum of what is held about a product, which is the one that was written."""
        row = self._connection.execute(
            "SELECT checksum FROM seals WHERE product_id = ?", (id,)
        ).fetchone()
        found = self._checksum(id)
        if found != (row[0] if row else _NOTHING):
            raise self._damaged(f"what it holds about the product {id!r} has been altered")
        return found

    @contextmanager
    def _writing(self, id: str) -> Iterator[None]:
        """A transaction that changes what is held about one product."""
        with self._transaction("IMMEDIATE"):
            before = self._checked(id)
            yield
            if (now := self._checksum(id)) != before:
                self._seal(id, now)

    @contextmanager
    def _reading(self, id: str) -> Iterator[None]:
        """A transaction that reads what is held about one product."""
        with self._transaction("DEFERRED"):
            self._checked(id)
            yield

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
        with self._writing(id):
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
        with self._writing(id):
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
        at, author, id = _now(), clean(author), clean(product.id)
        with self._writing(id):
            self._store(product, author, at)
            self._connection.execute(
                "REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?)",
                (id, clean(version), stars, clean(comment), author, at),
            )

    def add(self, product: Product, author: str) -> None:
        """Store a product that has no marks yet, or store it again as it is now."""
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
        with self._writing(id):
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
        id = clean(product_id)
        with self._reading(id):
            return self._marks(id)

    def _marks(self, id: str) -> tuple[Mark, ...]:
        rows = self._all(
            "SELECT product_id, tag, is_right, author, at FROM marks WHERE product_id = ? "
            "ORDER BY place",
            id,
        )
        return tuple(Mark(id, tag, bool(right), author, at) for id, tag, right, author, at in rows)

    def ratings(self) -> tuple[Rating, ...]:
        """All ratings, by product and version."""
        with self._transaction("DEFERRED"):
            found = self._ratings("TRUE")
            for id in {rating.product_id for rating in found}:
                self._checked(id)
            return found

    def _ratings(self, which: str, *values: str) -> tuple[Rating, ...]:
        rows = self._all(
            "SELECT product_id, version, stars, comment, author, at FROM ratings "
            f"WHERE {which} ORDER BY product_id, version",
            *values,
        )
        return tuple(Rating(*row) for row in rows)

    def state(self, product_id: str) -> State:
        """The product's state; one that the book does not know is open."""
        id = clean(product_id)
        with self._reading(id):
            return self._state(id)

    def gold(self, product: Product, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The product's own tags and those marked right, less those marked wrong.

        An alias and its tag are the same tag; known tags go by their names in the vocabulary.
        """
        said = settle(words(product, self.marks(product.id)), vocabulary)
        return tuple(tag for tag, right in said.items() if right)

    def entry(self, product_id: str) -> Entry | None:
        """All about one product, as it was at one moment; None where the book does not know it."""
        id = clean(product_id)
        with self._reading(id):
            row = self._connection.execute(
                "SELECT record, state, revision, author, at FROM products WHERE id = ?", (id,)
            ).fetchone()
            if row is None:
                return None
            record, state, revision, author, at = row
            product = self._product(record)
            marks, ratings = self._marks(id), self._ratings("product_id = ?", id)
            return Entry(product, marks, ratings, State(state), revision, author, at)

    def entries(self) -> Iterator[Entry]:
        """Every product, in the order in which the book came to know them."""
        with self._transaction("DEFERRED"):
            ids = [id for (id,) in self._all("SELECT id FROM products ORDER BY place")]
            if {id for (id,) in self._all("SELECT product_id FROM seals")} != set(ids):
                raise self._damaged("a product is missing")
        for id in ids:
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
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, reason: object) -> GoldError:
        return GoldError(
            f"the gold book {self._path} cannot be used: {reason}",
            hint="check that its folder is there, writable and has room; if so, the file is "
            "damaged: bring back a copy, or move it away and import your last export",
        )


def _create(path: Path) -> None:
    """Make a book where there is none: whole or not at all, so that an empty file is a damaged one.

    Of several processes that do this at once, one makes it.
    """
    if path.exists():
        return
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            for statement in ("BEGIN", *_SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("COMMIT")
        _place(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _place(fresh: Path, path: Path) -> None:
    with suppress(FileExistsError):
        try:
            os.link(fresh, path)
        except (NotImplementedError, PermissionError):  # a file system without hard links
            if not path.exists():
                fresh.rename(path)


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # none where a text is no UTF-8
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _record(product: Product) -> str:
    """JSON that reads back as an equal product; an output record could not be told from its extras.

    Values of `extra` that JSON does not know become texts.
    """
    return clean(json.dumps(asdict(product), ensure_ascii=False, default=str))


def _digest(held: Iterable[Sequence[tuple[Any, ...]]]) -> str:
    text = json.dumps(list(held), default=repr)  # a damaged value may be bytes
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_NOTHING = _digest([[] for _ in _HELD])  # what is held about an unknown product


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
