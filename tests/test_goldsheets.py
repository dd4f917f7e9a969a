"""Gold as files: what is exported is imported again, and hostile files do no harm."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openpyxl.worksheet.formula import ArrayFormula

from llmtagger.catalog import workbook as workbooks
from llmtagger.catalog.tables import guard, restore
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError, GoldError, LlmtaggerError
from llmtagger.goldbook import FILE, GoldBook
from llmtagger.goldsheets import Imported, export_gold, import_gold, transfer
from llmtagger.goldsheets.statement import COLUMNS
from llmtagger.marks import Entry, State
from llmtagger.normalise import normalise
from llmtagger.vocabulary import Vocabulary

NAMES = ("gold.csv", "gold.xlsx", "gold.json")
SHEETS = NAMES[:2]
WALLET = Product("w1", "皮夹 leather wallet", brand="Norrland", tags=("billfold", "travel"))
MUG = Product("m1", "Mug", category="Kitchen")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[GoldBook]:
    with GoldBook(tmp_path / FILE) as book:
        yield book


def told(book: GoldBook, vocabulary: Vocabulary) -> dict[str, tuple[Any, ...]]:
    """What a file keeps of a book: gold and wrong tags in order, and the state."""
    found = {}
    for entry in book.entries():
        verdicts = entry.verdicts(vocabulary)
        gold = tuple(tag for tag, right in verdicts.items() if right)
        assert gold == book.gold(entry.product, vocabulary)
        found[entry.product.id] = (gold, {*verdicts} - {*gold}, entry.state)
    return found


def entry_of(book: GoldBook, id: str) -> Entry:
    entry = book.entry(id)
    assert entry is not None
    return entry


def sheet(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    """A file as a person or a program may write it: nothing guarded."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows(rows)
    else:
        made = openpyxl.Workbook()
        for row in rows:
            made.active.append(row)
        made.save(path)
    return path


_LETTERS = st.one_of(
    st.characters(codec="utf-8", exclude_characters="\0"),
    st.sampled_from("=+-@\t\r\n'\"|;,[]_x000D 防水\u2028\x85\x0b\ufeff\uffff"),
)
_TEXT = st.one_of(
    st.text(_LETTERS, max_size=12).map(str.strip),
    st.sampled_from(["=1+1", "'=1", "''@x", "_x000D_", "_x005F_x000A_", "#N/A", "TRUE", "1e5"]),
)
_TAGS = st.lists(_TEXT.filter(normalise), max_size=4, unique_by=normalise)


@st.composite
def _said(draw: st.DrawFn) -> dict[str, Any]:
    tags = draw(_TAGS)
    own = draw(st.sets(st.sampled_from(tags)) if tags else st.just(set()))
    return {
        "product": Product(
            draw(_TEXT.filter(bool)),
            draw(_TEXT.filter(bool)),
            draw(_TEXT),
            tags=tuple(tag for tag in tags if tag in own) or None,
        ),
        "verdicts": {tag: draw(st.booleans()) for tag in tags if tag not in own},
        "author": draw(_TEXT),
        "reviewed": draw(st.booleans()),
    }


@pytest.mark.parametrize("name", NAMES)
@example(
    rows=[
        {
            "product": Product("=cmd|' /C calc'!A0", "\t-2+3", "a\r\nb\rc\nd", tags=("@own",)),
            "verdicts": {"'=1": True, "a|b": True, "[c": False, "_x000D_": False, "d\re": True},
            "author": "+me",
            "reviewed": True,
        }
    ]
)
@given(rows=st.lists(_said(), max_size=3, unique_by=lambda row: str(row["product"].id)))
def test_what_is_exported_is_imported_again(
    name: str, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, empty = tmp_path_factory.mktemp("gold"), Vocabulary([])
    with GoldBook(folder / "a") as book, GoldBook(folder / "b") as other:
        for row in rows:
            book.take(**row)
        assert export_gold(book.entries(), folder / name, empty) == len(rows)
        done = import_gold(folder / name, other, empty, "nobody")
        assert done.rejected == ()
        assert (done.products, done.new) == (len(rows), len(rows))
        expected = told(book, empty)
        if name.endswith(".json"):  # it says nothing of the order of products, but keeps it
            assert list(told(other, empty)) == list(expected)
        assert told(other, empty) == expected
        again = import_gold(folder / name, other, empty, "nobody")
        assert (again.marks, again.new) == (0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_of_a_product(name: str, tmp_path: Path, vocabulary: Vocabulary) -> None:
    full = replace(WALLET, description="two\nlines", category="=A1", attributes={"a": "b"})
    with GoldBook(tmp_path / "a") as book, GoldBook(tmp_path / "b") as other:
        book.mark(full, "rainproof", True, "ana")
        export_gold(book.entries(), tmp_path / name, vocabulary)
        import_gold(tmp_path / name, other, vocabulary, "bo")
        entry = entry_of(other, "w1")
    assert entry.product == replace(full, tags=None, attributes={}, lang="en")
    assert [(mark.tag, mark.right, mark.author) for mark in entry.marks] == [
        *(("wallet", True, "ana"), ("travel", True, "ana"), ("waterproof", True, "ana"))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cannot_approve(
    name: str, book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    book.mark(WALLET, "gift", True, "ana")
    book.approve("w1", "ana")
    export_gold(book.entries(), tmp_path / name, vocabulary)
    with GoldBook(tmp_path / "b") as other:
        import_gold(tmp_path / name, other, vocabulary, "bo")
        assert other.state("w1") is State.REVIEWED
    import_gold(tmp_path / name, book, vocabulary, "bo")
    assert book.state("w1") is State.APPROVED  # nothing new was said


def row_of(**cells: str) -> list[str]:
    full = {"id": "w1", "title": "Wallet"} | cells
    return [full.get(name, "") for name in COLUMNS]


@pytest.mark.parametrize("name", SHEETS)
def test_only_a_reviewed_row_says_what_is_missing(
    name: str, book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    book.mark(WALLET, "gift", True, "ana")
    said = {"tags": "Rucksack", "wrong": "travel", "author": "cy"}
    path = sheet(tmp_path / name, [COLUMNS, row_of(**said)])
    assert import_gold(path, book, vocabulary, "bo").marks == 2
    assert book.gold(WALLET, vocabulary) == ("wallet", "gift", "backpack")
    assert book.state("w1") is State.OPEN
    path = sheet(tmp_path / name, [COLUMNS, row_of(**said, state="Reviewed")])
    assert import_gold(path, book, vocabulary, "bo") == Imported(1, 0, 2, 0, (), ())
    assert book.gold(WALLET, vocabulary) == ("backpack",)
    entry = entry_of(book, "w1")
    assert entry.product == WALLET  # known: the row's title does not count
    assert entry.state is State.REVIEWED
    assert {mark.tag: mark.author for mark in entry.marks} == {
        **dict.fromkeys(["backpack", "travel"], "cy"),
        **dict.fromkeys(["wallet", "gift"], "cy"),
    }


@pytest.mark.parametrize("name", SHEETS)
def test_a_bad_row_is_told_of_and_the_rest_goes_on(
    name: str, book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    rows = [
        COLUMNS,
        row_of(id=""),
        row_of(id="a", state="done"),
        row_of(id="b", tags="waterproof", wrong="rainproof"),
        row_of(id="c", tags='["x", 1]'),
        row_of(id="d", tags="[x"),
        row_of(id="good", tags="waterproof|brand new|hiking"),
    ]
    done = import_gold(sheet(tmp_path / name, rows), book, vocabulary, "bo")
    assert [(row.line, row.reason.split(":")[0]) for row in done.rejected] == [
        (2, "the id is empty"),
        (3, "the state 'done' is none of open, reviewed, approved"),
        (4, "the tag 'waterproof' is both right and wrong"),
        (5, "the tags are not a list of texts"),
        (6, "the tags start with [ but are not a JSON list"),
    ]
    assert (done.products, done.new, done.marks, done.unknown) == (1, 1, 3, ("brand new",))
    assert [entry.product.id for entry in book.entries()] == ["good"]
    assert book.gold(Product("good", "x"), vocabulary) == ("waterproof", "brand new", "hiking")


@pytest.mark.parametrize("name", SHEETS)
def test_columns_in_any_order_and_under_other_names(
    name: str, book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    rows = [["标签", "WRONG", "SKU", "price", "名称"], ["防水", "travel", "9", "3", "皮夹"]]
    done = import_gold(sheet(tmp_path / name, rows), book, vocabulary, "bo")
    assert done.rejected == ()
    entry = entry_of(book, "9")
    assert entry.product == Product("9", "皮夹", lang="zh", extra={"price": "3"})
    assert entry.verdicts(vocabulary) == {"travel": False, "waterproof": True}


ACTIVE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "'=1",
    "＝1",
    "=HYPERLINK()",
]
PASSIVE = ["", "a=1", "'tis", "1-2", "'", "''", "a\t=", "防水"]


@pytest.mark.parametrize("text", ACTIVE)
def test_formulas_are_guarded(text: str) -> None:
    assert guard(text) == f"'{text}"
    assert restore(guard(text)) == text


@pytest.mark.parametrize("text", PASSIVE)
def test_other_text_is_left_alone(text: str) -> None:
    assert guard(text) == restore(text) == text


@pytest.mark.parametrize("name", SHEETS)
def test_no_cell_of_an_export_is_a_formula(
    name: str, book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    for place, text in enumerate(ACTIVE):
        product = Product(f"{text.strip()}{place}", text.strip(), text, text, text)
        book.mark(product, text.strip(), True, text)
    export_gold(book.entries(), tmp_path / name, vocabulary)
    if name.endswith(".csv"):
        with (tmp_path / name).open(encoding="utf-8-sig", newline="") as handle:
            cells = [cell for row in csv.reader(handle) for cell in row]
    else:
        found = openpyxl.load_workbook(tmp_path / name)
        [only] = found.worksheets
        filled = [cell for row in only.iter_rows() for cell in row if cell.value is not None]
        assert {cell.data_type for cell in filled} == {"s"}
        cells = [str(cell.value) for cell in filled]
    assert len(cells) > 9 * len(ACTIVE) * 0.7
    assert [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@＝")] == []
    assert [cell for cell in cells if cell[:1] in ("\t", "\r", "\n")] == []


def test_a_formula_found_in_a_workbook_is_text(
    book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    rows = [COLUMNS, row_of(title="=1+1", tags="=A1", author="=B1"), row_of(id="2")]
    path = sheet(tmp_path / "f.xlsx", rows)
    made = openpyxl.load_workbook(path)
    assert made.active["B2"].data_type == "f"
    made.active["B3"] = ArrayFormula("B3", "=SUM(A1:A2)")
    made.save(path)
    import_gold(path, book, vocabulary, "bo")
    assert entry_of(book, "w1").product.title == "=1+1"
    assert [(mark.tag, mark.author) for mark in book.marks("w1")] == [("=A1", "=B1")]
    assert entry_of(book, "2").product.title == "=SUM(A1:A2)"


def test_cells_that_are_no_text(book: GoldBook, tmp_path: Path, vocabulary: Vocabulary) -> None:
    rows: list[list[Any]] = [
        ["id", "title", "brand", "tags"],
        [12, 3.5, True, 2024],
        [7.0, "Mug", None, None],
    ]
    import_gold(sheet(tmp_path / "n.xlsx", rows), book, vocabulary, "bo")
    first = entry_of(book, "12")
    assert (first.product.title, first.product.brand) == ("3.5", "true")
    assert [mark.tag for mark in first.marks] == ["2024"]
    assert entry_of(book, "7").marks == ()


def test_a_text_that_no_cell_holds_is_refused_by_a_workbook_only(
    book: GoldBook, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    book.mark(replace(MUG, description="😀" * 17_000), "gift", True, "ana")
    with pytest.raises(CatalogError, match="longer than a cell"):
        export_gold(book.entries(), tmp_path / "o.xlsx", vocabulary)
    assert not (tmp_path / "o.xlsx").exists()
    assert export_gold(book.entries(), tmp_path / "o.csv", vocabulary) == 1


def parts_of(path: Path, changed: Mapping[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    """The workbook with some of its parts replaced or added."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in (parts | dict(changed)).items():
            archive.writestr(name, data)
    return path


SHEET = "xl/worksheets/sheet1.xml"
LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">
<c t="inlineStr"><is><t>&b;</t></is></c></row></sheetData></worksheet>"""


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    return sheet(tmp_path / "w.xlsx", [COLUMNS, row_of(tags="gift")])


def test_a_zip_bomb_is_not_unpacked(
    workbook: Path, book: GoldBook, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbooks, "UNPACKED", 1 << 20)
    bomb = b"<a/>" + b" " * (1 << 19)
    parts_of(workbook, {"xl/a.xml": bomb, "xl/b.xml": bomb}, zipfile.ZIP_DEFLATED)
    assert workbook.stat().st_size < 50_000
    with pytest.raises(CatalogError, match="unpacks to more"):
        import_gold(workbook, book, vocabulary, "bo")


def test_many_parts_are_refused(workbook: Path, book: GoldBook, vocabulary: Vocabulary) -> None:
    parts_of(workbook, {f"xl/{n}.xml": b"<a/>" for n in range(workbooks.PARTS)})
    with pytest.raises(CatalogError, match="parts"):
        import_gold(workbook, book, vocabulary, "bo")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("part", [SHEET, "xl/workbook.xml", "xl/styles.xml", "other.rels"])
def test_entities_are_refused(
    part: str, encoding: str, workbook: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    parts_of(workbook, {part: LAUGHS.decode().encode(encoding)})
    with pytest.raises(CatalogError, match="document type"):
        import_gold(workbook, book, vocabulary, "bo")
    assert list(book.entries()) == []


def test_no_blank_rows_are_made_up_to_a_cell_far_away(
    workbook: Path, book: GoldBook, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(workbook) as archive:
        plain = archive.read(SHEET).decode()
    far = '<row r="999999999"><c r="ZZZ999999999" t="inlineStr"><is><t>x</t></is></c></row>'
    parts_of(workbook, {SHEET: plain.replace("</sheetData>", f"{far}</sheetData>").encode()})
    assert import_gold(workbook, book, vocabulary, "bo").products == 1


def test_a_long_cell_spoils_its_row_only(
    workbook: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    with zipfile.ZipFile(workbook) as archive:
        plain = archive.read(SHEET).decode()
    long = f'<row r="3"><c r="A3" t="inlineStr"><is><t>{"x" * 40_000}</t></is></c></row>'
    parts_of(workbook, {SHEET: plain.replace("</sheetData>", f"{long}</sheetData>").encode()})
    done = import_gold(workbook, book, vocabulary, "bo")
    assert (done.products, [row.line for row in done.rejected]) == (1, [3])
    assert len(done.rejected[0].raw) <= 2_000


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 cut", b"id,title\n1,a\n", b"\xd0\xcf\x11\xe0" * 100],
    ids=["empty", "cut", "csv", "xls"],
)
def test_what_is_no_workbook(
    data: bytes, tmp_path: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    (tmp_path / "x.xlsx").write_bytes(data)
    with pytest.raises(CatalogError, match="no workbook"):
        import_gold(tmp_path / "x.xlsx", book, vocabulary, "bo")


@pytest.mark.parametrize(
    "part", [b"", b"<worksheet>", b"<sheet><row r='x'/></sheet>"], ids=["empty", "cut", "strange"]
)
def test_a_damaged_part(
    part: bytes, workbook: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    parts_of(workbook, {SHEET: part})
    with pytest.raises(LlmtaggerError):
        import_gold(workbook, book, vocabulary, "bo")


@pytest.mark.parametrize("name", NAMES)
def test_a_large_file_is_refused(
    name: str,
    tmp_path: Path,
    book: GoldBook,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book.mark(MUG, "gift", True, "ana")
    export_gold(book.entries(), tmp_path / name, vocabulary)
    size = (tmp_path / name).stat().st_size
    monkeypatch.setattr(transfer, "LARGEST", size)
    assert import_gold(tmp_path / name, book, vocabulary, "bo").products == 1
    monkeypatch.setattr(transfer, "LARGEST", size - 1)
    with pytest.raises(GoldError, match="larger than"):
        import_gold(tmp_path / name, book, vocabulary, "bo")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.txt", "x", GoldError),
        ("a.csv", "", CatalogError),
        ("a.csv", "name,tags\nx,y\n", CatalogError),
        ("a.csv", "id,title,tags,tags\n1,2,3,4\n", CatalogError),
        ("a.json", '{"id": 1}', GoldError),
        ("a.json", "[{,", CatalogError),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole(
    name: str,
    text: str,
    error: type[LlmtaggerError],
    tmp_path: Path,
    book: GoldBook,
    vocabulary: Vocabulary,
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error) as caught:
        import_gold(tmp_path / name, book, vocabulary, "bo")
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path, book: GoldBook, vocabulary: Vocabulary) -> None:
    with pytest.raises(CatalogError):
        import_gold(tmp_path / "no.csv", book, vocabulary, "bo")
    with pytest.raises(GoldError, match="not a format for gold"):
        export_gold([], tmp_path / "o.txt", vocabulary)


def choices(*tags: str, control: str = "tags", **more: Any) -> dict[str, Any]:
    value = {"choices": list(tags)}
    result = {"from_name": control, "to_name": "title", "type": "choices", "value": value}
    return {"id": 7, "result": [result]} | more


TASKS: list[Any] = [
    {
        "id": 101,
        "data": {"product_id": "w1", "id": "w1", "title": "Wallet", "state": "open", "wrong": []},
        "annotations": [
            choices("hiking", updated_at="2026-01-02", completed_by={"id": 1, "email": "a@b.c"}),
            choices("gift", updated_at="2026-01-01", completed_by={"id": 2, "email": "x@y.z"}),
            choices("sale", updated_at="2026-01-03", was_cancelled=True, completed_by=3),
        ],
        "predictions": [choices("mug")],
    },
    {"data": {"id": "p", "title": "P"}, "annotations": [], "predictions": [choices("mug")]},
    {
        "data": {"id": "o", "title": "O", "state": "open", "wrong": ["mug"], "author": "ana"},
        "annotations": [choices("Rainproof")],
    },
    {"data": "no", "annotations": [choices("gift")]},
    {"data": {"id": "q", "title": "Q"}, "annotations": [choices("gift", result=[1])]},
    {"data": {"title": "no id"}, "annotations": [choices("gift")]},
    17,
]  # fmt: skip


def test_label_studios_export(tmp_path: Path, book: GoldBook, vocabulary: Vocabulary) -> None:
    (tmp_path / "t.json").write_text(json.dumps(TASKS, indent=1), encoding="utf-8")
    done = import_gold(tmp_path / "t.json", book, vocabulary, "me")
    assert (done.products, done.silent) == (2, 1)
    assert [row.reason for row in done.rejected] == [
        "the task's data is not an object",
        "the annotation's result is not a list of objects",
        "the id is empty",
        "the row is not a JSON object",
    ]
    assert told(book, vocabulary) == {
        "w1": (("hiking",), set(), State.REVIEWED),  # annotated by a person: this is all
        "o": (("waterproof",), {"mug"}, State.OPEN),
    }
    assert {mark.author for mark in book.marks("w1")} == {"a@b.c"}
    assert {mark.author for mark in book.marks("o")} == {"ana"}


def test_other_controls_are_not_tags(
    tmp_path: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    annotation = choices("gift")
    annotation["result"] += choices("mug", control="colour")["result"]
    annotation["result"].append({"from_name": "tags", "type": "textarea", "value": {"text": ["x"]}})
    task = {"data": {"id": "1", "title": "A"}, "annotations": [annotation]}
    (tmp_path / "t.json").write_text(json.dumps([task]))
    import_gold(tmp_path / "t.json", book, vocabulary, "me")
    assert [(mark.tag, mark.author) for mark in book.marks("1")] == [("gift", "me")]


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ({"choices": ["gift", "mug"]}, ("gift", "mug")),
        (["gift", "mug"], ("gift", "mug")),
        ("gift", ("gift",)),
        ([], ()),
    ],
    ids=["object", "list", "one", "none"],
)
def test_label_studios_short_export(
    given: object,
    tags: tuple[str, ...],
    tmp_path: Path,
    book: GoldBook,
    vocabulary: Vocabulary,
) -> None:
    task = {"product_id": "w1", "title": "Wallet", "id": 55, "annotation_id": 3, "tags": given}
    record = [task | {"annotator": 4, "created_at": "2026"}, {"id": 56, "title": "Nobody did"}]
    (tmp_path / "t.json").write_text(json.dumps(record))
    assert import_gold(tmp_path / "t.json", book, vocabulary, "me").silent == 1
    assert told(book, vocabulary) == {"w1": (tags, set(), State.REVIEWED)}
    entry = entry_of(book, "w1")
    assert (entry.author, entry.product.extra) == ("4", {})


@pytest.mark.parametrize("given", [7, {"choices": 7}, [1], {"text": "x"}])
def test_tags_of_no_known_form(
    given: object, tmp_path: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"id": "1", "title": "A", "tags": given}]))
    [row] = import_gold(tmp_path / "t.json", book, vocabulary, "me").rejected
    assert "the tags are not a list" in row.reason


def test_an_export_is_what_label_studio_imports(
    tmp_path: Path, book: GoldBook, vocabulary: Vocabulary
) -> None:
    book.take(WALLET, {"travel": False}, "ana", reviewed=True)
    export_gold(book.entries(), tmp_path / "o.json", vocabulary)
    [task] = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert task["data"]["product_id"] == task["data"]["id"] == "w1"
    assert task["data"]["title"] == WALLET.title
    [annotation] = task["annotations"]
    assert annotation["result"] == [
        {
            "from_name": "tags",
            "to_name": "title",
            "type": "choices",
            "value": {"choices": ["wallet"]},
        }
    ]
