"""What the studio keeps, damaged: refused or not there, and never other tags."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.torture.damaging import all_damages

from llmtagger.datatypes import Product
from llmtagger.errors import ConfigError, GoldError, LlmtaggerError
from llmtagger.goldbook import FILE, VIEWS, GoldBook
from llmtagger.marks import Entry
from llmtagger.studio.shelf import Shelf

pytestmark = pytest.mark.usefixtures("nothing_is_unpickled")

PRODUCTS = [
    Product(f"p{number}", f"a leather wallet, number {number}", tags=("wallet",), lang="en")
    for number in range(40)
]
CELL = {"version": "tag.v1", "tags": [{"name": "wallet", "kept": True}, {"name": "leather"}]}


def _write(path: Path, content: bytes) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(content)


def _altered(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    """A gold book with marks, ratings and states."""
    path = tmp_path / FILE
    with GoldBook(path) as book:
        for product in PRODUCTS:
            book.take(product, {"leather": True, "gift": False}, "ana", reviewed=True)
            book.rate(product, "tag.v1", 4, "good", "ben")
    return path


@pytest.fixture
def entries(gold: Path) -> dict[str, Entry]:
    """What the book holds while it is whole."""
    with GoldBook(gold) as book:
        return {entry.product.id: entry for entry in book.entries()}


def _gold_is_right_or_refused(path: Path, entries: dict[str, Entry]) -> str | None:
    """Through every way to read it; the remedy where it is refused."""
    try:
        with GoldBook(path) as book:
            for id, entry in entries.items():
                assert book.marks(id) == entry.marks
                assert book.state(id) is entry.state
                assert book.entry(id) == entry
            assert {each.product.id: each for each in book.entries()} == entries
            held = tuple(rating for id in sorted(entries) for rating in entries[id].ratings)
            assert book.ratings() == held
            book.counts()
    except GoldError as error:
        return error.hint
    return None


@pytest.mark.timeout(1200)
@pytest.mark.seeds(short=12, long=500)
def test_a_damaged_gold_book_is_refused_or_right(
    gold: Path, entries: dict[str, Entry], seed: int
) -> None:
    for what, damaged in all_damages(gold, seed):
        _write(gold, damaged)
        hint = _gold_is_right_or_refused(gold, entries)
        assert hint is None or hint, what
        assert hint is not None or what.startswith("bit"), f"{what} was not noticed"


GOLD = {
    "a mark turned round": "UPDATE marks SET is_right = 1 WHERE product_id = 'p7' AND tag = 'gift'",
    "a mark's tag": "UPDATE marks SET tag = 'lecther' WHERE product_id = 'p7' AND tag = 'leather'",
    "a mark that is gone": "DELETE FROM marks WHERE product_id = 'p7' AND tag = 'gift'",
    "a mark of another product": "UPDATE marks SET product_id = 'q7' WHERE product_id = 'p7'",
    "a title": "UPDATE products SET record = replace(record, 'wallet', 'walled') WHERE id = 'p7'",
    "a text that is no UTF-8": "UPDATE marks SET at = CAST(x'ff' AS TEXT) WHERE product_id = 'p7'",
    "a state": "UPDATE products SET state = 'approved' WHERE id = 'p7'",
    "an id": "UPDATE products SET id = 'q7' WHERE id = 'p7'",
    "a product that is gone": "DELETE FROM products WHERE id = 'p7'",
    "stars": "UPDATE ratings SET stars = 5 WHERE product_id = 'p7'",
    "a rating that is gone": "DELETE FROM ratings WHERE product_id = 'p7'",
    "a seal": "UPDATE seals SET checksum = 'x' WHERE product_id = 'p7'",
    "a seal that is gone": "DELETE FROM seals WHERE product_id = 'p7'",
}


@pytest.mark.parametrize("statement", GOLD.values(), ids=GOLD)
def test_what_is_altered_in_a_gold_book_is_refused(gold: Path, statement: str) -> None:
    _altered(gold, statement)
    uses: list[Callable[[GoldBook], object]] = [
        lambda book: book.marks("p7"),
        lambda book: book.state("p7"),
        lambda book: book.entry("p7"),
        lambda book: book.mark(PRODUCTS[7], "gift", True, "ana"),  # nor is it sealed as it is
        lambda book: book.unmark("p7", "leather"),
        lambda book: book.approve("p7", "ana"),
        lambda book: list(book.entries()),
    ]
    with GoldBook(gold) as book:
        for use in uses:
            with pytest.raises(GoldError, match="cannot be used") as refused:
                use(book)
            assert "bring back a copy" in refused.value.hint
        assert len(book.marks("p8")) == 2  # the others are whole
        book.mark(PRODUCTS[8], "gift", True, "ana")


def test_a_book_of_the_first_format_is_taken_over(gold: Path, entries: dict[str, Entry]) -> None:
    with closing(sqlite3.connect(gold)) as connection, connection:
        connection.execute("DROP TABLE seals")
        connection.execute("PRAGMA user_version = 1")
    assert _gold_is_right_or_refused(gold, entries) is None
    _altered(gold, GOLD["a mark turned round"])
    assert _gold_is_right_or_refused(gold, entries)


@pytest.fixture
def views(tmp_path: Path) -> Path:
    """A shelf with cells, a draft and a view."""
    path = tmp_path / VIEWS
    shelf = Shelf(path)
    for product in PRODUCTS:
        shelf.keep_cell("basis", product.id, CELL | {"id": product.id})
    shelf.keep_draft("tag.v1", "tab", "{% block user %}Dear model{% endblock %}")
    shelf.keep_view("matrix", {"versions": ["tag.v1"], "size": 25})
    shelf.close()
    return path


def _shelf_is_right_or_refused(path: Path) -> str | None:
    """Something may be gone; the remedy where it is refused."""
    try:
        shelf = Shelf(path)
        with closing(shelf):
            found = shelf.cells("basis", [product.id for product in PRODUCTS])
            assert all(cell == CELL | {"id": id} for id, cell in found.items())
            draft = shelf.draft("tag.v1", "tab")
            assert draft is None or draft.text == "{% block user %}Dear model{% endblock %}"
            assert shelf.view("matrix") in ({}, {"versions": ["tag.v1"], "size": 25})
            shelf.keep_cell("basis", "p7", CELL | {"id": "p7"})
            shelf.keep_draft("tag.v1", "tab", "another")
            shelf.drop_draft("tag.v1", "tab")
            shelf.keep_view("matrix", {})
    except ConfigError as error:
        return error.hint
    return None


@pytest.mark.timeout(1200)
@pytest.mark.seeds(short=12, long=500)
def test_a_damaged_shelf_is_refused_or_lacks_something(views: Path, seed: int) -> None:
    for what, damaged in all_damages(views, seed):
        _write(views, damaged)
        hint = _shelf_is_right_or_refused(views)
        assert hint is None or "delete that file" in hint, what


def test_a_shelf_whose_schema_is_no_utf_8_is_refused(views: Path) -> None:
    raw = views.read_bytes()
    assert b"PRIMARY KEY (basis" in raw
    _write(views, raw.replace(b"PRIMARY KEY (basis", b"PRIMARY \xcbEY (basis"))
    assert "delete that file" in (_shelf_is_right_or_refused(views) or "")


SHELF = {
    "a cell": "UPDATE cells SET record = replace(record, 'wallet', 'walled') WHERE product = 'p7'",
    "a cell of another product": "UPDATE cells SET product = 'p' WHERE product = 'p7'",
    "a cell without a checksum": "UPDATE cells SET record = '{}' WHERE product = 'p7'",
    "a cell that is bytes": "UPDATE cells SET record = x'80049500' WHERE product = 'p7'",
    "a cell that is empty": "UPDATE cells SET record = '' WHERE product = 'p7'",
}


@pytest.mark.parametrize("statement", SHELF.values(), ids=SHELF)
def test_an_altered_cell_counts_as_not_there(views: Path, statement: str) -> None:
    _altered(views, statement)
    shelf = Shelf(views)
    with closing(shelf):
        ids = ["p", *(product.id for product in PRODUCTS)]
        others = {product.id: CELL | {"id": product.id} for product in PRODUCTS}
        del others["p7"]
        assert shelf.cells("basis", ids) == others


def test_an_altered_draft_gives_way_to_a_whole_one(views: Path) -> None:
    shelf = Shelf(views)
    with closing(shelf):
        shelf.keep_draft("tag.v1", "own", "newer")
    _altered(views, "UPDATE drafts SET text = replace(text, 'newer', 'never') WHERE tab = 'own'")
    _altered(views, "UPDATE views SET record = replace(record, '25', '52')")
    shelf = Shelf(views)
    with closing(shelf):
        draft = shelf.draft("tag.v1", "own")
        assert draft is not None
        assert draft.text == "{% block user %}Dear model{% endblock %}"
        assert shelf.view("matrix") == {}


def _damaged_while_open(path: Path) -> None:
    """All pages but the first, which names the tables."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (len(raw) - 4096))


def test_a_shelf_that_is_damaged_under_an_open_studio_says_what_to_do(views: Path) -> None:
    shelf = Shelf(views)
    with closing(shelf):
        _damaged_while_open(views)
        uses: list[Callable[[], object]] = [
            lambda: shelf.cells("basis", ["p7"]),
            lambda: shelf.draft("tag.v1", "tab"),
            lambda: shelf.view("matrix"),
            lambda: shelf.keep_cell("basis", "p7", CELL),
            lambda: shelf.keep_view("matrix", {}),
        ]
        for use in uses:
            with pytest.raises(LlmtaggerError, match="cannot be used") as refused:
                use()
            assert "delete that file" in refused.value.hint
