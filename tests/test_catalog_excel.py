"""Excel: cells as a person sees them, one cell written back at a time, memory bounded."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.styles import Font, PatternFill

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog, workbook, write_records
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError


def read(path: Path, **options: Any) -> tuple[list[Product], list[RejectedRow]]:
    """All products and rejected rows of a workbook."""
    rejected: list[RejectedRow] = []
    found = read_catalog(path, CatalogOptions(**options), rejected=rejected.append)
    return list(found), rejected


def saved(path: Path, *rows: list[Any]) -> Path:
    """A workbook of one sheet."""
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(row)
    made.save(path)
    return path


def test_cells_are_read_as_a_person_sees_them(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.xlsx",
        ["id", "title", "whole", "part", "day", "moment", "truth", "error", "padded", "price"],
        [
            *(12.0, "Hat", 4006381333931, 0.1 + 0.2, datetime.date(2024, 2, 29)),
            *(datetime.datetime(2024, 2, 29, 1, 2, 3), True, "#N/A", 42, 9.5),
        ],
    )
    made = openpyxl.load_workbook(path)
    made.active["I2"].number_format, made.active["J2"].number_format = "00000", "0.00"
    made.save(path)
    (product,), rejected = read(path)
    assert rejected == []
    assert (product.id, product.title) == ("12", "Hat")
    assert product.extra == {
        "whole": "4006381333931",
        "part": "0.3",
        "day": "2024-02-29",
        "moment": "2024-02-29T01:02:03",
        "truth": "true",
        "error": "",
        "padded": "00042",
        "price": "9.50",
    }


def test_the_sheet_with_a_header_that_we_know_is_read(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    made.active.append(["How to use this file"])
    hidden = made.create_sheet("hidden")
    hidden.sheet_state = "hidden"
    hidden.append(["id", "title"])
    hidden.append(["0", "Hidden"])
    shown = made.create_sheet("products")
    for row in (
        ["Our products"],
        [],
        ["SKU", "Name", "Category"],
        [1, "Hat", "Summer"],
        [2, "Cap"],
    ):
        shown.append(row)
    shown.merge_cells("C4:C5")
    made.save(tmp_path / "a.xlsx")
    products, rejected = read(tmp_path / "a.xlsx")
    assert rejected == []
    assert [(p.id, p.title, p.category) for p in products] == [
        ("1", "Hat", "Summer"),
        ("2", "Cap", "Summer"),
    ]


def test_no_sheet_with_an_id(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no id"):
        read(saved(tmp_path / "a.xlsx", ["Price", "title"], [1, "x"]))


def styled(path: Path) -> Path:
    """A workbook with styles, a formula, a chart, a second sheet, widths and a merged cell."""
    made = openpyxl.Workbook()
    sheet = made.active
    rows: list[list[Any]] = [
        ["id", "title", "tags", "price", "twice", "day"],
        [1, "Hat", "summer; sun", 9.5, "=D2*2", datetime.date(2024, 2, 29)],
        [2, "Cap & <co>", None, 7, "=D3*2", datetime.date(2024, 3, 1)],
        [3, "Tie", "silk", 5, "=D4*2", None],
    ]
    for row in rows:
        sheet.append(row)
    sheet["C2"].font, sheet["C2"].fill = Font(bold=True), PatternFill("solid", fgColor="FFFF00")
    sheet["D2"].number_format = "0.00"
    sheet.column_dimensions["B"].width = 40
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=4, min_row=1, max_row=4), titles_from_data=True)
    sheet.add_chart(chart, "H2")
    other = made.create_sheet("other")
    other["A1"] = "kept"
    other.merge_cells("A1:B2")
    made.save(path)
    return path


def cells(path: Path) -> dict[str, tuple[Any, ...]]:
    """Every cell of every sheet with its type and style."""
    made = openpyxl.load_workbook(path)
    return {
        f"{sheet.title}!{cell.coordinate}": (
            *(cell.value, cell.data_type, cell.number_format),
            *map(repr, (cell.font, cell.fill, cell.border, cell.alignment)),
        )
        for sheet in made.worksheets
        for row in sheet.iter_rows()
        for cell in row
        if cell.value is not None or cell.has_style
    }


def record(id: str, *tags: str, review: tuple[str, ...] = ()) -> dict[str, Any]:
    """An output record with those tags."""
    return {
        "id": id,
        "tags": [{"tag": tag} for tag in tags],
        "review": [{"tag": tag} for tag in review],
    }


def test_nothing_new_is_a_copy(tmp_path: Path) -> None:
    path = styled(tmp_path / "a.xlsx")
    records = [record("1", "Sun", "summer"), record("2"), record("3")]
    assert write_records(records, tmp_path / "o.xlsx", source=path) == 3
    assert (tmp_path / "o.xlsx").read_bytes() == path.read_bytes()


def test_new_tags_change_their_cells_only(tmp_path: Path) -> None:
    path, output = styled(tmp_path / "a.xlsx"), tmp_path / "o.xlsx"
    records = [record("1", "hat"), record("2", "cap", 'a "b" <c>'), record("3", "silk")]
    write_records(records, output, source=path)
    before, after = cells(path), cells(output)
    changed = {where for where in before | after if before.get(where) != after.get(where)}
    assert changed == {"Sheet!C2", "Sheet!C3"}
    assert after["Sheet!C2"][0] == "summer; sun; hat"
    assert after["Sheet!C2"][2:] == before["Sheet!C2"][2:]
    assert after["Sheet!C3"][0] == 'cap; a "b" <c>'
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(output) as new:
        assert new.namelist() == old.namelist()
        for name in old.namelist():
            if name != "xl/worksheets/sheet1.xml":
                assert new.read(name) == old.read(name), name
    assert [product.tags for product in read(output)[0]] == [
        ("summer", "sun", "hat"),
        ("cap", 'a "b" <c>'),
        ("silk",),
    ]


def test_columns_that_are_missing_are_made(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"], [2, "Cap"])
    records = [record("1", "hat", review=("sun",)), record("2")]
    output = tmp_path / "o.xlsx"
    write_records(records, output, source=path, review_column="doubtful")
    rows = list(openpyxl.load_workbook(output).active.iter_rows(values_only=True))
    assert rows == [
        ("id", "title", "tags", "doubtful"),
        (1, "Hat", "hat", "sun"),
        (2, "Cap", None, None),
    ]


def test_a_review_column_that_is_a_field_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"])
    with pytest.raises(CatalogError, match="cannot stand in the column 'title'"):
        write_records([], tmp_path / "o.xlsx", source=path, review_column="title")


def test_a_workbook_for_people(tmp_path: Path) -> None:
    product = {"id": "1", "title": "=1+1", "description": "x" * 40_000, **record("1", "hat", "sun")}
    write_records([product], tmp_path / "o.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "o.xlsx").active
    assert sheet.freeze_panes == "C2"
    assert sheet["A1"].font.bold
    assert (sheet["B2"].value, sheet["B2"].data_type) == ("=1+1", "s")
    (found,), rejected = read(tmp_path / "o.xlsx")
    assert (found.title, found.tags, rejected) == ("=1+1", ("hat", "sun"), [])


MEASURED = """
import re, sys
from llmtagger.catalog import read_catalog
from llmtagger.errors import CatalogError
rejected, count = [], 0
try:
    count = sum(1 for _ in read_catalog(sys.argv[1], rejected=rejected.append))
except CatalogError as error:
    print(error.message, file=sys.stderr)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(count, len(rejected), int(peak[1]) // 1024)
"""


def test_a_small_file_that_unpacks_to_much_is_bounded(tmp_path: Path) -> None:
    """Hundreds of thousands of shared texts in a small file: none becomes an object."""
    path = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    texts = b"<si><t>id</t></si><si><t>title</t></si><si><t>Hat</t></si>"
    parts["xl/sharedStrings.xml"] = b"<sst>%b%b</sst>" % (texts, b"<si><t>x</t></si>" * 400_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    products, _, peak = map(int, done.stdout.split())
    assert products == 1, done.stderr
    assert peak < 200, peak


@pytest.mark.parametrize(
    ("part", "limit", "content", "message"),
    [
        ("xl/sharedStrings.xml", "STRINGS", b"<sst>" + b"<si/>" * 200, "more than 100 texts"),
        ("xl/worksheets/sheet1.xml", "CELLS", b"<row>" + b"<c/>" * 200, "more than 100 cells"),
        ("xl/worksheets/sheet1.xml", "CELLS", b"<sheet>" + b"<row/>" * 200, "more than 100 cells"),
    ],
)
def test_counts_are_bounded_while_they_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    limit: str,
    content: bytes,
    message: str,
) -> None:
    """The part breaks off after what is too much: it is refused before its end."""
    monkeypatch.setattr(workbook, limit, 100)
    plain = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"])
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new,
    ):
        for name in old.namelist():
            if name != part:
                new.writestr(name, old.read(name))
        new.writestr(part, content)
    with pytest.raises(CatalogError, match=message):
        read(tmp_path / "b.xlsx")


def test_two_million_texts_are_refused_in_time(tmp_path: Path) -> None:
    plain = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"])
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name != "xl/sharedStrings.xml":
                new.writestr(name, old.read(name))
        new.writestr("xl/sharedStrings.xml", b"<sst>" + b"<si><t>a</t></si>" * 9_000_000)
    began = time.process_time()
    with pytest.raises(CatalogError, match="more than 2,000,000 texts"):
        read(tmp_path / "b.xlsx")
    assert time.process_time() - began < 30


def test_formulas_and_merged_cells_are_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(
        tmp_path / "a.xlsx",
        *(["id", "title", "tags"], [1, "Hat", "=B2"], [2, "Cap", "both"], [3, "Tie", None]),
        *([4, "Bag", "own"], [5, "Coat", "wide", None]),
    )
    made = openpyxl.load_workbook(path)
    made.active.merge_cells("C3:C4")
    made.active.merge_cells("C6:D6")
    made.save(path)
    output = tmp_path / "o.xlsx"
    write_records([record(each, "new") for each in "1235"], output, source=path)
    assert output.read_bytes() == path.read_bytes()
    for each, reason in [("1", "holds a formula"), ("2", "is merged"), ("5", "is merged")]:
        assert f"{each}: its cell for tags is left as it is: it {reason}" in caplog.text
    write_records([record(each, "new") for each in "12345"], output, source=path)
    assert cells(output) == cells(path) | {
        "Sheet!C5": (*("own|new",), *cells(path)["Sheet!C5"][1:])
    }


def test_the_case_of_a_review_column_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.xlsx", ["id", "title", "Maybe"], [1, "Hat", "old"])
    output = tmp_path / "o.xlsx"
    write_records([record("1", review=("new",))], output, source=path, review_column="maybe")
    (product,), _ = read(output)
    assert product.extra == {"Maybe": "old|new"}


def with_sheet(path: Path, old: bytes, new: bytes) -> Path:
    """The workbook with a piece of its first sheet replaced."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old in parts[sheet]
    parts[sheet] = parts[sheet].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("kind", "area", "locked"),
    [
        ("array", "C2:C3", "12"),
        ("dataTable", "C3:D4", "23"),
        ("array", "B2:E4", "123"),
        ("array", "D2:E4", ""),
        ("array", "F1", ""),
        ("shared", "C2:C4", ""),  # each of its cells has a formula of its own
    ],
)
def test_results_of_a_formula_for_several_cells_are_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, area: str, locked: str
) -> None:
    """The formula stands in F1: where it stands does not matter, its area does."""
    rows = [[number, title, "own"] for number, title in [(1, "Hat"), (2, "Cap"), (3, "Tie")]]
    path = saved(tmp_path / "a.xlsx", ["id", "title", "tags", "x", "y", "z"], *rows)
    formula = f'<c r="F1" t="str"><f t="{kind}" ref="{area}">B2</f><v>z</v></c>'.encode()
    with_sheet(path, b'<c r="F1" t="inlineStr"><is><t>z</t></is></c>', formula)
    output = tmp_path / "o.xlsx"
    write_records([record(each, "new") for each in "123"], output, source=path)
    tags = {product.id: product.tags for product in read(output)[0]}
    assert {each for each, found in tags.items() if found == ("own",)} == {*locked}
    assert {each for each, found in tags.items() if found == ("own", "new")} == {*"123"} - {*locked}
    for each in locked:
        assert f"{each}: its cell for tags is left as it is: it is part of an array" in caplog.text


def test_a_cell_beyond_the_last_column_that_is_read_rejects_its_row(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"], [2, "Cap"], [3, "Tie"])
    made = openpyxl.load_workbook(path)
    made.active.cell(3, 2_001, "far")
    made.active.cell(4, 2_500).font = Font(bold=True)  # holds nothing
    made.save(path)
    products, rejected = read(path)
    assert [product.id for product in products] == ["1", "3"]
    assert [(row.line, row.reason) for row in rejected] == [
        (3, "a cell stands to the right of the 2 columns with a name")
    ]


def test_more_columns_than_are_read_are_refused(tmp_path: Path) -> None:
    header = ["id", "title", *(f"c{number}" for number in range(1_998))]
    path = saved(tmp_path / "a.xlsx", header, [1, "Hat"])
    assert len(read(path)[0]) == 1
    path = saved(tmp_path / "a.xlsx", [*header, "one more"], [1, "Hat"])
    with pytest.raises(CatalogError, match="more than 2,000 columns") as refused:
        read(path)
    assert ".csv" in refused.value.hint


def test_too_many_cells_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of what is refused; to read that many takes five seconds and more."""
    monkeypatch.setattr(workbook, "CELLS", 1_000_000)
    path = saved(tmp_path / "a.xlsx", ["id", "title"], [1, "Hat"])
    row = b'<row r="2"><c r="A2"/><c/><c></c>\n<x:c t="s"/></row>'
    with_sheet(path, b"</sheetData>", row * 220_000 + b"</sheetData>")
    began = time.process_time()
    with pytest.raises(CatalogError, match="more than 1,000,000 cells") as refused:
        read(path)
    assert time.process_time() - began < 1
    assert ".csv" in refused.value.hint
