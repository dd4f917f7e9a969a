"""The gold book: the last word counts, whoever writes at the same time."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger import goldbook
from llmtagger.datatypes import Product
from llmtagger.errors import GoldError
from llmtagger.goldbook import FILE, Counts, GoldBook
from llmtagger.marks import State, settle
from llmtagger.vocabulary import Vocabulary

WALLET = Product("w1", "皮夹 leather wallet", tags=("wallet", "leather"), lang="zh")
MUG = Product(
    "m1", "Mug", attributes={"Colour": "blue"}, group="g", extra={"price": 3.5, "in": [{"a": None}]}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


@pytest.fixture
def book(path: Path) -> Iterator[GoldBook]:
    with GoldBook(path) as book:
        yield book


def said(book: GoldBook, product_id: str) -> dict[str, bool]:
    """Every marked tag with what was said of it."""
    return {mark.tag: mark.right for mark in book.marks(product_id)}


def test_marks_last_from_one_opening_to_the_next(path: Path) -> None:
    with GoldBook(path) as book:
        book.mark(WALLET, " gift ", True, "ana")
        book.mark(WALLET, "leather", False, "bo")
    with GoldBook(path) as book:
        [gift, leather] = book.marks("w1")
    assert (gift.product_id, gift.tag, gift.right, gift.author) == ("w1", "gift", True, "ana")
    assert (leather.tag, leather.right, leather.author) == ("leather", False, "bo")
    assert gift.at.endswith("+00:00")


def test_a_later_mark_of_a_pair_replaces_the_earlier(book: GoldBook) -> None:
    for tag, right in (("gift", True), ("red", True), ("gift", False)):
        book.mark(WALLET, tag, right, "ana")
    book.mark(MUG, "gift", True, "ana")
    assert list(said(book, "w1").items()) == [("red", True), ("gift", False)]
    assert said(book, "m1") == {"gift": True}
    book.unmark("w1", "red")
    book.unmark("w1", "never said")
    assert said(book, "w1") == {"gift": False}


@pytest.mark.parametrize("tag", ["", "  ", "\u200b"])
def test_a_tag_that_nobody_sees_is_refused(book: GoldBook, tag: str) -> None:
    with pytest.raises(GoldError, match="visible"):
        book.mark(WALLET, tag, True, "ana")
    assert list(book.entries()) == []


def test_the_product_comes_back_as_it_was(book: GoldBook) -> None:
    for product in (WALLET, MUG, replace(MUG, id="e", tags=())):
        book.mark(product, "gift", True, "ana")
        entry = book.entry(product.id)
        assert entry is not None
        assert entry.product == product
    assert [entry.product.id for entry in book.entries()] == ["w1", "m1", "e"]
    assert book.entry("nobody") is None


def test_text_that_no_file_can_hold_is_replaced(book: GoldBook) -> None:
    book.mark(replace(MUG, title="a\ud800"), "b\udc00\0", True, "c\ud800")
    [entry] = book.entries()
    assert entry.product.title == "a?"
    assert [(mark.tag, mark.author) for mark in entry.marks] == [("b?\ufffd", "c?")]


def test_gold_is_own_tags_and_right_ones_less_wrong_ones(
    book: GoldBook, vocabulary: Vocabulary
) -> None:
    product = replace(WALLET, tags=("Billfold", "leather wallet", "odd"))
    assert book.gold(product, vocabulary) == ("wallet", "leather wallet", "odd")
    book.mark(product, "皮夹", False, "ana")  # the label of `leather wallet`
    book.mark(product, "Rainproof", True, "ana")  # the alias of `waterproof`
    book.mark(product, "ODD", False, "ana")
    assert book.gold(product, vocabulary) == ("wallet", "waterproof")
    book.mark(product, "waterproof", False, "bo")
    assert book.gold(product, vocabulary) == ("wallet",)
    book.mark(product, "Rainproof", True, "ana")  # an older pair, but the last word
    assert book.gold(product, vocabulary) == ("wallet", "waterproof")


def test_the_last_word_on_a_tag_counts_under_any_name(vocabulary: Vocabulary) -> None:
    assert settle([("rainproof", True), ("Waterproof", False)], vocabulary) == {"waterproof": False}
    assert settle([("Odd one", True), ("odd  ONE", False)], vocabulary) == {"Odd one": False}
    assert settle([("\u200b", True)], vocabulary) == {}


def test_any_later_word_opens_a_product_again(book: GoldBook) -> None:
    assert book.state("w1") is State.OPEN
    book.mark(WALLET, "gift", True, "ana")
    changes: list[Callable[[], None]] = [
        lambda: book.mark(WALLET, "gift", True, "ana"),
        lambda: book.unmark("w1", "gift"),
    ]
    for settled in (book.review, book.approve):
        for change in changes:
            book.mark(WALLET, "gift", True, "ana")
            settled("w1", "ana")
            assert book.state("w1") is not State.OPEN
            book.unmark("w1", "never said")
            book.rate(WALLET, "tag.v1", 4, "", "ana")
            book.add(WALLET, "ana")
            assert book.state("w1") is not State.OPEN
            change()
            assert book.state("w1") is State.OPEN


def test_approval_of_what_has_changed_meanwhile_is_refused(book: GoldBook) -> None:
    book.mark(WALLET, "gift", True, "ana")
    read = book.entry("w1")
    assert read is not None
    book.mark(WALLET, "red", True, "bo")
    assert not book.approve("w1", "ana", revision=read.revision)
    assert book.state("w1") is State.OPEN
    again = book.entry("w1")
    assert again is not None
    assert book.approve("w1", "ana", revision=again.revision)
    assert book.state("w1") is State.APPROVED


def test_a_product_that_was_altered_counts_as_changed(book: GoldBook) -> None:
    book.add(WALLET, "ana")
    read = book.entry("w1")
    assert read is not None
    book.add(WALLET, "ana")
    assert book.entry("w1") == read
    book.add(replace(WALLET, tags=("other",)), "ana")
    assert not book.approve("w1", "ana", revision=read.revision)


@pytest.mark.parametrize("settled", ["review", "approve"])
def test_an_unknown_product_cannot_be_settled(book: GoldBook, settled: str) -> None:
    with pytest.raises(GoldError, match="'nobody'"):
        getattr(book, settled)("nobody", "ana")


def test_several_marks_and_a_review_at_once(book: GoldBook) -> None:
    book.take(WALLET, {"gift": True, "leather": False}, "ana", reviewed=True)
    assert (said(book, "w1"), book.state("w1")) == ({"gift": True, "leather": False}, "reviewed")
    book.approve("w1", "ana")
    book.take(WALLET, {}, "bo", reviewed=True)
    assert book.state("w1") is State.APPROVED
    with pytest.raises(GoldError):
        book.take(WALLET, {"red": True, " ": True}, "ana")
    assert "red" not in said(book, "w1")


def test_ratings_are_one_for_a_product_and_version(book: GoldBook) -> None:
    book.rate(WALLET, "v1", 2, "so so", "ana")
    book.rate(WALLET, "v2", None, "", "ana")
    book.rate(WALLET, "v1", 5, "好", "bo")
    book.rate(MUG, "v1", 1, "", "ana")
    cells = [(r.product_id, r.version, r.stars, r.comment, r.author) for r in book.ratings()]
    assert cells == [
        ("m1", "v1", 1, "", "ana"),
        ("w1", "v1", 5, "好", "bo"),
        ("w1", "v2", None, "", "ana"),
    ]
    entry = book.entry("w1")
    assert entry is not None
    assert [rating.version for rating in entry.ratings] == ["v1", "v2"]
    for stars in (0, 6):
        with pytest.raises(GoldError, match="stars"):
            book.rate(WALLET, "v1", stars, "", "ana")


def test_counts(book: GoldBook) -> None:
    assert book.counts() == Counts(0, 0, 0, 0, 0, 0)
    book.take(WALLET, {"gift": True, "leather": False}, "ana", reviewed=True)
    book.mark(MUG, "gift", True, "ana")
    book.add(replace(MUG, id="m2"), "ana")
    book.approve("m1", "ana")
    book.rate(MUG, "v1", 3, "", "ana")
    assert book.counts() == Counts(open=1, reviewed=1, approved=1, right=2, wrong=1, ratings=1)


_STEP = st.tuples(
    st.integers(0, 1),  # which handle
    st.sampled_from(["w1", "m1"]),
    st.sampled_from(["gift", "red", "防水"]),
    st.sampled_from([True, False, None]),  # None: taken back
)


@given(steps=st.lists(_STEP, max_size=20))
def test_two_handles_agree_on_the_last_word(
    steps: list[tuple[int, str, str, bool | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("book") / FILE
    expected: dict[str, dict[str, bool]] = {"w1": {}, "m1": {}}
    with GoldBook(path) as one, GoldBook(path) as other:
        for handle, id, tag, right in steps:
            book = (one, other)[handle]
            expected[id].pop(tag, None)
            if right is None:
                book.unmark(id, tag)
            else:
                book.mark(replace(WALLET, id=id), tag, right, str(handle))
                expected[id][tag] = right
        for book in (one, other):
            for id, tags in expected.items():
                assert list(said(book, id).items()) == list(tags.items())


WRITER = """
import sys
from pathlib import Path
from llmtagger.datatypes import Product
from llmtagger.goldbook import GoldBook

path, name = sys.argv[1:]
sys.stdin.readline()  # so that all open the file, which is not there yet, at once
with GoldBook(Path(path)) as book:
    for number in range(50):
        book.mark(Product("both", "Mug"), f"{name} {number}", True, name)
        book.mark(Product(f"{name} {number}", "Mug"), "mug", True, name)
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    names = ("a", "b", "c")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], stdin=subprocess.PIPE)
        for name in names
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with GoldBook(path) as book:
        assert set(said(book, "both")) == {f"{name} {n}" for name in names for n in range(50)}
        assert len(list(book.entries())) == 151


def test_threads_share_a_book(book: GoldBook) -> None:
    def write(number: int) -> None:
        book.mark(WALLET, f"tag {number}", True, "ana")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(book.marks("w1")) == 100


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE marks (a)")
    other.close()


def _alter(statement: str, path: Path) -> None:
    GoldBook(path).close()
    with sqlite3.connect(path) as own:
        own.execute(statement)
    own.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"not a database, but some text" * 50), "cannot be used"),
        (_foreign, "is no gold book"),
        (lambda path: _alter("CREATE VIEW v AS SELECT 1", path), "is no gold book"),
        (lambda path: _alter("DROP TABLE ratings", path), "is no gold book"),
        (lambda path: _alter("PRAGMA user_version = 9", path), "format 9"),
        (lambda path: path.mkdir(), "cannot be used"),
    ],
    ids=["text", "foreign", "a view", "a table less", "newer", "a folder"],
)
def test_what_is_no_gold_book_is_refused(path: Path, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(path)
    with pytest.raises(GoldError, match=message) as caught:
        GoldBook(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE products SET record = '{\"id\": 1}'",
        "UPDATE products SET record = 'cut'",
        "UPDATE products SET state = 'done'",
    ],
)
def test_a_damaged_product_is_refused(path: Path, statement: str) -> None:
    with GoldBook(path) as book:
        book.mark(WALLET, "gift", True, "ana")
    _alter(statement, path)
    with GoldBook(path) as book, pytest.raises(GoldError, match="cannot be used"):
        list(book.entries())


def test_damaged_pages_are_refused(path: Path) -> None:
    with GoldBook(path) as book:
        for number in range(200):
            book.mark(replace(MUG, id=str(number)), "gift", True, "ana")
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(GoldError, match="cannot be used"), GoldBook(path) as book:
        list(book.entries())


def test_a_writer_that_never_ends_is_told_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmtagger.goldbook.PATIENCE", 0.1)
    with GoldBook(path) as book:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(GoldError, match="others have been writing"):
                book.mark(WALLET, "gift", True, "ana")
        finally:
            other.close()
        book.mark(WALLET, "gift", True, "ana")
        assert said(book, "w1") == {"gift": True}


def test_the_records_are_plain_json(book: GoldBook, path: Path) -> None:
    book.mark(WALLET, "gift", True, "ana")
    other = sqlite3.connect(path)
    [(record,)] = other.execute("SELECT record FROM products").fetchall()
    other.close()
    assert json.loads(record)["title"] == "皮夹 leather wallet"


def test_an_empty_file_is_a_damaged_book_and_not_a_new_one(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(GoldError, match="is empty") as caught:
        GoldBook(path)
    assert "bring back a copy" in caught.value.hint
    assert path.read_bytes() == b""


def test_a_crash_while_a_book_is_made_leaves_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(fresh: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(goldbook, "_place", crash)
        with pytest.raises(KeyboardInterrupt):
            GoldBook(path)
    assert list(path.parent.iterdir()) == []
    GoldBook(path).close()


def test_a_book_is_made_where_there_are_no_hard_links(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    with GoldBook(path) as book:
        book.add(Product("1", "Mug"), "ann")
    with GoldBook(path) as book:
        assert [entry.product.id for entry in book.entries()] == ["1"]
