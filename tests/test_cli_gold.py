"""`llmtagger gold …` from the outside: files, messages and what ends up in the index."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmtagger.backends import index_writer
from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import open_index
from llmtagger.cli.gold import app
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError, ConfigError, GoldError, IndexMissing, LlmtaggerError
from llmtagger.goldbook import FILE, GoldBook
from llmtagger.marks import State

WALLET = Product("w1", "red leather wallet", brand="Norrland", tags=("wallet", "leather"))
SHOE = Product("s1", "蓝色 suede shoe", attributes={"Colour": "blue"})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of two products, one of them labelled, with a mark on each."""
    folder = tmp_path / "index"
    index_writer.build([WALLET, SHOE], folder, HashingEncoder())
    with GoldBook(folder / FILE) as book:
        book.take(WALLET, {"leather": False, "red": True}, "ana", reviewed=True)
        book.mark(SHOE, "shoe", True, "ana")
    return folder


def product(folder: Path, id: str) -> Product:
    index = open_index(folder)
    row = index.position(id)
    assert row is not None
    return index.product(row)


def states(folder: Path) -> dict[str, State]:
    with GoldBook(folder / FILE) as book:
        return {entry.product.id: entry.state for entry in book.entries()}


def status(folder: Path) -> dict[str, int]:
    result = run("status", "-i", folder, "--json")
    assert result.exit_code == 0
    found: dict[str, int] = json.loads(result.stdout)
    return found


def test_status(folder: Path) -> None:
    counts = {"open": 1, "reviewed": 1, "approved": 0, "right": 2, "wrong": 1, "ratings": 0}
    assert status(folder) == counts
    lines = run("status", "-i", folder).stdout.splitlines()
    assert [line.split() for line in lines] == [[name, str(n)] for name, n in counts.items()]


@pytest.mark.parametrize("name", ["gold.csv", "gold.xlsx", "gold.json"])
def test_gold_goes_from_one_index_to_another(folder: Path, tmp_path: Path, name: str) -> None:
    result = run("export", tmp_path / name, "-i", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 products written" in result.stderr
    other = tmp_path / "other"
    index_writer.build([WALLET], other, HashingEncoder())
    result = run("import", tmp_path / name, "-i", other)
    assert result.exit_code == 0
    assert "2 products, 2 of them new; 4 marks changed." in result.stderr
    assert "2 tags are not in the vocabulary: red, shoe" in result.stderr
    assert states(other) == {"w1": State.REVIEWED, "s1": State.OPEN}


def test_the_author_of_rows_that_name_nobody(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("id,title,tags,author\n1,a,x,\n2,b,x,cy\n")
    assert run("import", tmp_path / "g.csv", "-i", folder, "--author", "bo").exit_code == 0
    with GoldBook(folder / FILE) as book:
        assert [book.marks(id)[0].author for id in "12"] == ["bo", "cy"]


def test_bad_rows_are_told_of_with_their_number(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("id,title,tags,state\n1,a,x,done\n2,b,x,\n")
    result = run("import", tmp_path / "g.csv", "-i", folder)
    assert result.exit_code == 3
    assert "Row 2: the state 'done' is none of open, reviewed, approved" in result.stderr
    assert "1 products, 1 of them new" in result.stderr
    (row,) = map(json.loads, (tmp_path / "index.rejects.jsonl").read_text().splitlines())
    assert row["line"] == 2


def test_tasks_without_an_annotation_are_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps([{"id": "1", "title": "a"}]))
    result = run("import", tmp_path / "g.json", "-i", folder)
    assert (result.exit_code, status(folder)["open"]) == (0, 1)
    assert "1 tasks have no annotation" in result.stderr


def test_what_is_approved_is_labelled_in_the_index(folder: Path) -> None:
    assert product(folder, "w1").tags == ("wallet", "leather")
    result = run("approve", "--all", "-i", folder)
    assert result.exit_code == 0
    assert "Approved 1 products." in result.stderr
    assert "2 products, 1 of them labelled, 2 tags" in result.stderr
    assert product(folder, "w1").tags == ("wallet", "red")
    assert product(folder, "s1").tags is None  # open
    assert states(folder) == {"w1": State.APPROVED, "s1": State.OPEN}
    assert len(open_index(folder)) == 2


def test_a_product_is_approved_by_id_with_all_that_the_index_knows(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "g.csv").write_text("id,title,tags\nnew,a mug,mug\ns1,shoe,shoe|blue\n")
    assert run("import", tmp_path / "g.csv", "-i", folder).exit_code == 0
    result = run("approve", "s1", "new", "nobody", "-i", folder)
    assert result.exit_code == 3
    assert "Approved 2 products." in result.stderr
    assert "1 are not in the gold book: nobody" in result.stderr
    shoe = product(folder, "s1")
    assert (shoe.title, shoe.attributes, shoe.tags) == (
        *(SHOE.title, SHOE.attributes, ("shoe", "blue")),
    )
    assert product(folder, "new").tags == ("mug",)
    assert states(folder) == {"w1": State.REVIEWED, "s1": State.APPROVED, "new": State.APPROVED}


def test_the_index_keeps_its_own_version_of_a_product(folder: Path) -> None:
    with GoldBook(folder / FILE) as book:
        book.take(Product("s1", "a sheet's title"), {"shoe": True}, "ana", reviewed=True)
    assert run("approve", "s1", "-i", folder).exit_code == 0
    assert product(folder, "s1").title == SHOE.title
    assert product(folder, "s1").attributes == SHOE.attributes


def test_what_changes_while_the_index_is_written_stays_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = index_writer.add

    def slow(*given: Any, **named: Any) -> Any:
        with GoldBook(folder / FILE) as tab:
            tab.mark(WALLET, "gift", True, "bo")
        return add(*given, **named)

    monkeypatch.setattr(index_writer, "add", slow)
    result = run("approve", "--all", "-i", folder)
    assert "Approved 0 products." in result.stderr
    assert "1 changed in the meantime and are still open: w1" in result.stderr
    assert states(folder)["w1"] is State.OPEN
    assert product(folder, "w1").tags == ("wallet", "red")


def test_nothing_to_approve_leaves_the_index(folder: Path) -> None:
    before = (folder / "CURRENT").read_text()
    assert run("approve", "nobody", "-i", folder).exit_code == 3
    assert (folder / "CURRENT").read_text() == before


def test_an_index_that_is_built_anew_keeps_its_book(folder: Path) -> None:
    index_writer.build([SHOE], folder, HashingEncoder())
    assert status(folder)["reviewed"] == 1


def test_a_sheet_that_a_person_changed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    assert run("export", path, "-i", folder).exit_code == 0
    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[1] |= {"tags": "shoe|wallet", "state": "reviewed"}
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run("import", path, "-i", folder).exit_code == 0
    assert run("approve", "--all", "-i", folder).exit_code == 0
    assert product(folder, "s1").tags == ("shoe", "wallet")
    assert status(folder)["approved"] == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["export", "g.csv", "-i", "nowhere"], IndexMissing),
        (["status", "-i", "nowhere"], IndexMissing),
        (["approve", "--all", "-i", "nowhere"], IndexMissing),
        (["import", "missing.csv", "-i", "index"], CatalogError),
        (["import", "g.txt", "-i", "index"], GoldError),
        (["export", "g.txt", "-i", "index"], ConfigError),
    ],
    ids=lambda value: "_".join(value[:2]) if isinstance(value, list) else value.__name__,
)
def test_what_cannot_be_done_is_refused_with_a_remedy(
    arguments: list[str],
    error: type[LlmtaggerError],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder.parent)
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert result.exception.hint
    assert not (folder.parent / "nowhere").exists()


@pytest.mark.parametrize("arguments", [["approve"], ["approve", "w1", "--all"], ["export"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], folder: Path) -> None:
    assert run(*arguments, "-i", folder).exit_code == 2
