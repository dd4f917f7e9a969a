"""The matrix as a page to send around: nothing of the catalogue becomes markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from selectolax.lexbor import LexborHTMLParser as HTMLParser
from selectolax.lexbor import LexborNode as Node
from typer.testing import CliRunner

from llmtagger.backends.fakes import FakeGenerator, HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.cli.prompt import app
from llmtagger.datatypes import Problem, Product, Reason, Rejection
from llmtagger.evaluation.matrix import look, matrix_page, write_matrix
from llmtagger.evaluation.trials import Cell, Outcome, Shown

EVIL = "<script>alert('1')</script><img src=x onerror=\"alert(2)\">&amp;{{ 1 }}"
PRODUCTS = [Product("p1", "Red mug", tags=("mug",)), Product(EVIL, EVIL), Product("p3", "耳机")]
TAGS = (
    Shown("mug", "right", kept=True, score=0.9, why="said"),
    Shown("hat", "wrong", kept=True, chosen=True),
    Shown("red", "missed"),
    Shown("blue", "missed", chosen=True),
    Shown("gift", "wrong", chosen=True),
    Shown("new", "unjudged", kept=True),
)


def page(*columns: list[Cell]) -> HTMLParser:
    cells = {column[0].version: {c.product.id: c for c in column} for column in columns}
    return HTMLParser(matrix_page(PRODUCTS, cells).decode())


def grid(found: HTMLParser) -> list[list[Node]]:
    return [row.css("td") for row in found.css("table.matrix tbody tr")]


@pytest.mark.parametrize(
    ("outcome", "kept", "chosen", "drawn"),
    [
        ("right", True, False, "right"),
        ("wrong", True, True, "wrong"),
        ("wrong", False, True, "out"),
        ("unjudged", False, True, "out"),
        ("missed", False, True, "missed"),
        ("missed", False, False, "missed"),
    ],
)
def test_looks(outcome: Outcome, kept: bool, chosen: bool, drawn: str) -> None:
    assert look(Shown("x", outcome, kept, chosen)) == drawn


def test_hostile_texts_are_shown_and_nothing_else() -> None:
    cell = Cell(
        PRODUCTS[1],
        EVIL,
        (Shown(EVIL, "wrong", kept=True, why=EVIL),),
        (Rejection(EVIL, Reason.NOT_IN_VOCABULARY),),
        Problem(EVIL, EVIL),
    )
    clean = page([Cell(PRODUCTS[1], "tag.v1", (Shown("x", "wrong", kept=True),))])
    found = page([cell])
    for element in ("script", "img", "svg", "style"):
        assert len(found.css(element)) == len(clean.css(element))
    assert found.css("[onerror]") == []
    (shown,) = found.css("table.matrix td bdi")[:1]
    assert shown.text() == EVIL
    (chip,) = found.css("table.matrix td .chip")
    assert chip.attributes["title"] == EVIL
    assert "".join(found.css("table.matrix thead th")[1].text()) == EVIL


def test_every_product_has_a_cell_of_every_version() -> None:
    one = [Cell(product, "tag.v1", TAGS) for product in PRODUCTS]
    other = [Cell(PRODUCTS[0], "tag.v2", ())]
    rows = grid(page(one, other))
    assert [len(cells) for cells in rows] == [2, 2, 2]
    assert [len(cells[0].css(".chip")) for cells in rows] == [6, 6, 6]
    texts = [cells[1].text(strip=True) for cells in rows]
    assert texts == ["nothing", "no answer yet", "no answer yet"]


def test_marks_and_counts() -> None:
    found = page([Cell(PRODUCTS[0], "tag.v1", TAGS)])
    chips = grid(found)[0][0].css(".chip")
    looks = [(chip.attributes["class"] or "").split()[-1] for chip in chips]
    assert looks == ["right", "wrong", "missed", "missed", "out", "unjudged"]
    marks = [bold.text() for chip in chips for bold in chip.css("b")]
    assert marks == ["✓", "+", "−", "−", "", "?"]
    assert "0.90" in chips[0].text()
    assert [i for i, chip in enumerate(chips) if "ᵐ" in chip.text()] == [1, 3, 4]
    facts = [cell.text() for cell in found.css("table.tight td.num")]
    assert facts == ["1", "1", "1", "2"]  # products, right, wrong, missed: as many as are drawn


def test_the_page_is_written(tmp_path: Path) -> None:
    columns = [[Cell(each, version, TAGS) for each in PRODUCTS] for version in ("a", "b")]
    write_matrix(columns, tmp_path / "m.html")
    rows = grid(HTMLParser((tmp_path / "m.html").read_text(encoding="utf-8")))
    assert [len(cells) for cells in rows] == [2, 2, 2]


class Model(FakeGenerator):
    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_try_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llmtagger.evaluation.answers.kept_answers", lambda *_: Model())
    build([Product("w", "leather wallet", tags=("wallet",))], tmp_path / "i", HashingEncoder())
    (tmp_path / "new.csv").write_text("id,title\n1,red <b>mug</b>\n2,leather wallet\n")
    asked = ["try", "tag.v1", "tag.v2", "new.csv", "-i", "i", "--report", "m.html"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    found = HTMLParser((tmp_path / "m.html").read_text(encoding="utf-8"))
    assert [th.text() for th in found.css("table.matrix thead th")] == [
        "Product", "tag.v1", "tag.v2",
    ]  # fmt: skip
    assert [len(cells) for cells in grid(found)] == [2, 2]
    assert "no answer yet" not in found.html  # type: ignore[operator]
