"""Writing results: every format reads back, and a file appears whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmtagger.catalog import RejectedRow, read_catalog, write_records, write_rejects
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

TAGGED: dict[str, Any] = {
    "id": "1",
    "title": "无线耳机, \"pro\"\r\nblack",
    "attributes": {"Colour": "black"},
    "price": 19.5,
    "sizes": ["S", "M"],
    "sold_out": False,
    "tags": [
        {"tag": "耳机", "score": 0.9, "evidence": {"neighbours": []}},
        {"tag": "a|b", "score": 0.8, "evidence": {}},
    ],
    "review": [{"tag": "blue", "score": 0.3, "evidence": {}}],
    "rejected": [{"text": "x", "reason": "not_in_text"}],
    "problem": None,
    "run": {"id": "r"},
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "id": "2",
    "title": "=1+1",
    "note": "only here",
    "tags": [],
    "problem": {"code": "cut_off", "message": "the answer is cut off"},
}


def unexpected(row: RejectedRow) -> None:
    """For files without a fault."""
    pytest.fail(f"line {row.line}: {row.reason}")


def test_no_two_columns_have_the_same_name(tmp_path: Path) -> None:
    record = {"id": "1", "title": "Hat", "a": 1, "a ": 2, " ": 3, "tags": []}
    write_records([record], tmp_path / "o.csv")
    (product,) = read_catalog(tmp_path / "o.csv", rejected=unexpected)
    assert {k: v for k, v in product.extra.items() if v} == {"a": "1", "a (2)": "2", "unnamed": "3"}


def test_more_columns_than_a_table_has_are_refused(tmp_path: Path) -> None:
    records = [{"id": str(n), "title": "Hat", f"x{n}": 1} for n in range(10_001)]
    with pytest.raises(CatalogError, match="10,006 different fields"):
        write_records(records, tmp_path / "o.csv")


def test_jsonl_is_written_as_it_is(tmp_path: Path) -> None:
    assert write_records([TAGGED, PLAIN], tmp_path / "o.jsonl") == 2
    lines = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [TAGGED, PLAIN]
    assert "无线耳机" in lines[0]


def test_standard_output_is_jsonl(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert write_records([PLAIN], "-") == 1
    assert json.loads(capsysbinary.readouterr().out) == PLAIN


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.parquet"])
def test_flat_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write_records(iter([TAGGED, PLAIN]), path) == 2
    if name == "o.parquet":
        from pyarrow import parquet

        rows: list[dict[str, str]] = parquet.read_table(path).to_pylist()
    else:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="," if name == "o.csv" else "\t"))
    assert list(rows[0]) == [
        *("id", "title", "price", "sizes", "sold_out", "attributes.Colour", "note"),
        *("tags", "review", "problem"),
    ]
    first = rows[0]
    assert first["title"] == TAGGED["title"]
    assert (first["price"], first["sold_out"], first["note"]) == ("19.5", "false", "")
    assert (first["sizes"], first["attributes.Colour"]) == ("S; M", "black")
    assert (first["tags"], first["review"]) == ('["耳机", "a|b"]', "blue")
    assert (first["problem"], rows[1]["problem"]) == ("", "the answer is cut off")
    guarded = "=1+1" if name == "o.parquet" else "'=1+1"
    assert (rows[1]["title"], rows[1]["note"], rows[1]["tags"]) == (guarded, "only here", "")


def test_a_spreadsheet_is_told_that_a_new_csv_is_utf_8(tmp_path: Path) -> None:
    """Without the mark, Excel shows Chinese as signs of its own code page."""
    path = tmp_path / "o.csv"
    write_records([TAGGED], path)
    assert path.read_bytes().startswith("\ufeffid,title,".encode())
    (product,) = read_catalog(path, rejected=unexpected)
    assert (product.id, product.title) == (TAGGED["id"], TAGGED["title"])
    again = [{"id": TAGGED["id"], "tags": [{"tag": "新"}]}]
    write_records(again, tmp_path / "back.csv", source=path)
    back = (tmp_path / "back.csv").read_bytes()
    assert "新" in back.decode()
    assert back.startswith("\ufeffid,title,".encode())
    write_records([TAGGED], tmp_path / "o.tsv")
    assert (tmp_path / "o.tsv").read_bytes().startswith(b"id\ttitle\t")


@pytest.mark.parametrize("name", ["o.csv", "o.tsv"])
def test_no_cell_of_an_output_is_a_formula(tmp_path: Path, name: str) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "'=1", "＝1", "=HYPERLINK()", "\t=1"]
    records = [
        {"id": f"{text}{place}", "title": text, text: text, "tags": [{"tag": text}]}
        for place, text in enumerate(texts)
    ]
    write_records(records, tmp_path / name)
    with (tmp_path / name).open(encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle, delimiter="," if name == "o.csv" else "\t")
        found = [cell for row in rows for cell in row]
    assert len(found) > len(texts) * len(texts)
    assert [cell for cell in found if cell.lstrip()[:1] in tuple("=+-@＝")] == []
    titles = [each.title for each in read_catalog(tmp_path / name, rejected=unexpected)]
    assert titles == [text.strip() for text in texts]


# Characters that reading mends are left out: their round trip is a mended text.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(str.strip)
_CLEAN = st.text(
    st.one_of(st.characters(codec="ascii", exclude_characters="\0"), st.sampled_from("汉字，、🚀ش"))
).map(str.strip)
_RECORD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "id": _TEXT.filter(bool),
        "title": _CLEAN.filter(bool),
        "description": _CLEAN,
        "attributes": st.dictionaries(_TEXT, _CLEAN.filter(bool), max_size=3),
        "tags": st.lists(_CLEAN.filter(bool), max_size=4, unique=True),
        "lang": st.just("de"),
        "Anything else": _TEXT,
    }
)


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.tsv", "o.parquet"])
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(
    records=[
        {
            "id": "\\u0000",
            "title": "a",
            "description": "",
            "attributes": {},
            "tags": [],
            "lang": "de",
            "Anything else": "\\ud800",
        }
    ]
)
@given(records=st.lists(_RECORD, min_size=1, max_size=4, unique_by=lambda r: str(r["id"])))
def test_round_trip(tmp_path: Path, name: str, records: list[dict[str, Any]]) -> None:
    flat = name != "o.jsonl"
    written = [r | {"tags": [{"tag": t} for t in r["tags"]]} if flat else r for r in records]
    write_records(written, tmp_path / name)
    results = ("review", "problem")
    for record, product in zip(
        records, read_catalog(tmp_path / name, rejected=unexpected), strict=True
    ):
        extra = {key: value for key, value in product.extra.items() if key not in results}
        assert product == Product(
            id=record["id"],
            title=record["title"],
            description=record["description"],
            attributes=record["attributes"],
            tags=tuple(record["tags"]) or (None if flat else ()),
            lang="de",
            extra=product.extra,
        )
        assert extra == {"Anything else": record["Anything else"]}


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")

    def failing() -> Iterator[dict[str, Any]]:
        yield PLAIN
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(failing(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    write_records([PLAIN], tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads((tmp_path / "real.jsonl").read_text()) == PLAIN


@pytest.mark.parametrize(
    ("name", "message"), [("o.docx", "cannot tell the format"), ("none/o.jsonl", "cannot write")]
)
def test_impossible_outputs(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        write_records([PLAIN], tmp_path / name)


def test_rejects(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    assert write_rejects([RejectedRow(3, "the id is empty", "{高清}")], path) == 1
    assert json.loads(path.read_text("utf-8")) == {
        "line": 3,
        "reason": "the id is empty",
        "raw": "{高清}",
    }


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("origin", "replaced", "mode"),
    [
        pytest.param(0o600, None, 0o600, id="of-a-private-input"),
        pytest.param(0o640, None, 0o640, id="of-a-groups-input"),
        pytest.param(0o400, None, 0o600, id="its-owner-may-write"),
        pytest.param(0o666, None, 0o644, id="the-umask-holds"),
        pytest.param(0o755, None, 0o644, id="no-output-is-a-program"),
        pytest.param(None, None, 0o644, id="of-a-pipe"),
        pytest.param(0o600, 0o664, 0o664, id="a-replaced-file-keeps-its-own"),
        pytest.param(0o644, 0o600, 0o600, id="a-replaced-private-file-stays-private"),
    ],
)
def test_an_output_is_no_more_open_than_its_input(
    tmp_path: Path, origin: int | None, replaced: int | None, mode: int
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    if origin is not None:
        source.write_text('{"id": "1", "title": "Mug"}\n')
        source.chmod(origin)
    if replaced is not None:
        output.write_text("old")
        output.chmod(replaced)
    old = os.umask(0o022)
    try:
        write_records([TAGGED], output, source=source)
        write_rejects([RejectedRow(1, "no id", "{}")], tmp_path / "rejects.jsonl", like=source)
    finally:
        os.umask(old)
    assert _mode(output) == mode
    if replaced is None:
        assert _mode(tmp_path / "rejects.jsonl") == mode


def test_rejects_of_an_earlier_run_are_removed_by_a_clean_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl.rejects.jsonl"
    assert write_rejects([], path) == 0
    write_rejects([RejectedRow(3, "the id is empty", "{}")], path)
    assert write_rejects([], path) == 0
    assert not path.exists()


@pytest.mark.parametrize("text", ['{"id": "1", "line": 1}\n', "precious\n", "", "[" * 99_999])
def test_a_file_with_that_name_that_is_not_ours_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_text(text)
    write_rejects([], path)
    assert path.read_text() == text
