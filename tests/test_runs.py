"""The journal: nothing lost, nothing doubled, nothing mixed."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmtagger.datatypes import Evidence, Product, ScoredTag, ScoredTags, Tag, TaggedProduct
from llmtagger.errors import RunError
from llmtagger.runs import Journal, digest

BASIS = {"model": "fake", "prompt": "tag.v1:abc", "index": "123"}
PRODUCTS = [Product(str(n), f"product {n}") for n in range(6)]

# Records products 0, 1, 2, … for ever, saying which; the number of half seconds is the pace.
ENDLESS = """
import itertools, pathlib, sys, time
from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.runs import Journal
with Journal(pathlib.Path(sys.argv[1]), {"model": "fake"}) as journal:
    for n in itertools.count():
        journal.record(TaggedProduct(Product(str(n), f"product {n}")))
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
        time.sleep(float(sys.argv[2]))
"""


def _tagged(product: Product, score: float = 0.5) -> TaggedProduct:
    item = ScoredTag(Tag("mug", "m"), score, Evidence(neighbours=(("n", 0.9),)))
    return TaggedProduct(product, ScoredTags((item,)))


def _left(journal: Journal, products: Sequence[Product] = PRODUCTS) -> list[Product]:
    return [product for product in products if journal.lacks(product)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.journal"


@pytest.fixture
def endless(path: Path) -> Any:
    """Starts a process that records until it is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(pace: float) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", ENDLESS, str(path), str(pace)],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_same_command_goes_on_where_it_stopped(path: Path) -> None:
    with Journal(path, BASIS) as journal:
        assert _left(journal) == PRODUCTS
        for product in PRODUCTS[:2]:
            journal.record(_tagged(product))
        first = journal.run_id
    with Journal(path, dict(reversed(BASIS.items()))) as journal:
        assert journal.run_id == first
        assert _left(journal) == PRODUCTS[2:]
        assert list(journal.results(PRODUCTS)) == [_tagged(product) for product in PRODUCTS[:2]]


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_results_come_in_the_order_of_the_input(path: Path, place: str) -> None:
    with Journal(path if place == "disk" else None, BASIS) as journal:
        for product in reversed(PRODUCTS):
            journal.record(_tagged(product))
        assert [tagged.product for tagged in journal.results(PRODUCTS)] == PRODUCTS
        assert [tagged.product.id for tagged in journal.results(PRODUCTS[3:1:-1])] == ["3", "2"]
        assert _left(journal) == []


def test_a_product_recorded_twice_is_there_once(path: Path) -> None:
    with Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0], 0.1))
        journal.record(_tagged(PRODUCTS[0], 0.9))
        assert list(journal.results(PRODUCTS)) == [_tagged(PRODUCTS[0], 0.9)]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"title": "new"}, True),
        ({"description": "new"}, True),
        ({"attributes": {"Color": "Red"}}, True),
        ({"lang": "zh"}, True),
        ({"extra": {"price": 1}}, True),
        ({"tags": ("label",)}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_product_is_done_again(path: Path, change: dict[str, Any], again: bool) -> None:
    changed = replace(PRODUCTS[0], **change)
    with Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
        assert bool(_left(journal, [changed])) is again
        assert bool(list(journal.results([changed]))) is not again


def test_attributes_in_another_order_are_no_change() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    product = Product("1", "x")
    assert digest(replace(product, attributes=one)) == digest(replace(product, attributes=other))


@pytest.mark.parametrize(
    ("basis", "named"),
    [
        ({"model": "other"}, "another model"),
        ({"model": "other", "index": "456"}, "another index, model"),
        ({"settings": "new"}, "another settings"),
    ],
    ids=["changed", "two-changed", "added"],
)
def test_another_basis_is_refused_and_named(path: Path, basis: dict[str, str], named: str) -> None:
    with Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
    with pytest.raises(RunError) as caught:
        Journal(path, BASIS | basis)
    assert caught.value.message.endswith(named)
    assert "--fresh" in caught.value.hint
    with Journal(path, BASIS) as journal:  # neither locked nor changed by the refusal
        assert _left(journal) == PRODUCTS[1:]


def test_fresh_starts_anew(path: Path) -> None:
    with Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
        first = journal.run_id
    with Journal(path, BASIS | {"model": "other"}, fresh=True) as journal:
        assert journal.run_id != first
        assert _left(journal) == PRODUCTS


def _overwrite(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(data)


def _other_database(path: Path, sql: str) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


def _read_all(path: Path) -> None:
    with Journal(path, BASIS) as journal:
        _left(journal)
        list(journal.results(PRODUCTS))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("this is no database, " * 99),
    "header": lambda path: _overwrite(path, 0, b"\0" * 100),
    "first-page": lambda path: _overwrite(path, 100, b"\xff" * 3000),
    "other-pages": lambda path: _overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "other-tables": lambda path: _other_database(path, "CREATE TABLE meta (a, b, c)"),
    "other-columns": lambda path: _other_database(path, "CREATE TABLE results (x)"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_journal_is_refused(path: Path, damage: Callable[[Path], object]) -> None:
    with Journal(path, BASIS) as journal:
        for product in PRODUCTS:
            journal.record(_tagged(product))
    damage(path)
    with pytest.raises(RunError) as caught:
        _read_all(path)
    assert "--fresh" in caught.value.hint
    with Journal(path, BASIS, fresh=True) as journal:
        assert _left(journal) == PRODUCTS


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        Journal(tmp_path / "file" / "out.journal", BASIS)
    assert "folder" in caught.value.hint


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        Journal(tmp_path, BASIS)


def test_texts_that_no_file_can_hold_do_not_stop_a_run(path: Path) -> None:
    half = TaggedProduct(
        Product("1", "half \ud83d"),
        ScoredTags((ScoredTag(Tag("mug", "m"), 0.5, Evidence(neighbours=(("\ud83d", 0.1),))),)),
    )
    with Journal(path, BASIS) as journal:
        journal.record(half)
        assert list(journal.results([half.product])) == [half]


def test_only_one_process_works_on_a_journal(path: Path, endless: Any) -> None:
    process = endless(0.01)
    assert process.stdout.readline() == "0\n"
    for fresh in (False, True):
        with pytest.raises(RunError, match="another process"):
            Journal(path, {"model": "fake"}, fresh=fresh)
    process.kill()
    process.wait()
    with Journal(path, {"model": "fake"}) as journal:
        assert journal.run_id


@pytest.mark.parametrize("pace", [0.0, 0.05])
def test_a_killed_process_loses_nothing_that_it_recorded(
    path: Path, endless: Any, pace: float
) -> None:
    process = endless(pace)
    said = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 1.2:  # with results that are synced and some that are not
        said = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    last = int(rest[-1]) if rest else said
    products = [Product(str(n), f"product {n}") for n in range(last + 3)]
    with Journal(path, {"model": "fake"}) as journal:
        done = [int(tagged.product.id) for tagged in journal.results(products)]
        left = _left(journal, products)
    assert done == list(range(len(done)))
    assert [product.id for product in left] == [str(n) for n in range(len(done), last + 3)]
    assert len(done) - (last + 1) in (0, 1)  # 1: recorded, but killed before it could say so


def test_nothing_lies_beside_a_journal_that_is_closed(path: Path) -> None:
    for fresh in (False, True):
        with Journal(path, BASIS, fresh=fresh) as journal:
            journal.record(_tagged(PRODUCTS[0]))
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_run_that_starts_anew_after_a_kill_finds_nothing(path: Path, endless: Any) -> None:
    process = endless(0.0)
    assert process.stdout.readline() == "0\n"
    process.kill()
    process.wait()
    assert Path(f"{path}-wal").stat().st_size > 0
    with Journal(path, BASIS, fresh=True) as journal:
        assert not journal
        assert _left(journal) == PRODUCTS


def test_an_altered_result_is_refused(path: Path) -> None:
    with Journal(path, BASIS) as journal:
        for number, product in enumerate(PRODUCTS):
            journal.record(_tagged(product, number / 10))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE results SET payload = (SELECT payload FROM results WHERE id = '1')")
    connection.commit()
    connection.close()
    with Journal(path, BASIS) as journal:
        assert list(journal.results(PRODUCTS[1:2])) == [_tagged(PRODUCTS[1], 0.1)]
        with pytest.raises(RunError, match="'0' has been altered") as caught:
            list(journal.results(PRODUCTS))
    assert "--fresh" in caught.value.hint


def test_an_error_in_the_middle_keeps_what_is_done(path: Path) -> None:
    def stop_after_one() -> None:
        with Journal(path, BASIS) as journal:
            journal.record(_tagged(PRODUCTS[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_one()
    with Journal(path, BASIS) as journal:
        assert _left(journal) == PRODUCTS[1:]


def test_a_link_where_a_file_would_be_made_harms_nothing(path: Path, tmp_path: Path) -> None:
    """Somebody else may have put it there, in a folder that all may write to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(RunError), Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
    assert victim.read_text() == "precious"


def test_the_folder_of_an_output_is_made(tmp_path: Path) -> None:
    with Journal(tmp_path / "out" / "today" / "new.jsonl.journal", BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
    assert (tmp_path / "out" / "today" / "new.jsonl.journal").is_file()


@pytest.mark.parametrize("old", [None, 0o644], ids=["new", "of-an-earlier-version"])
def test_only_its_owner_may_read_a_journal(path: Path, old: int | None) -> None:
    if old is not None:
        with Journal(path, BASIS):
            pass
        path.chmod(old)
    with Journal(path, BASIS) as journal:
        journal.record(_tagged(PRODUCTS[0]))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert len(modes) == 3  # with the -wal and -shm of SQLite
        assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
