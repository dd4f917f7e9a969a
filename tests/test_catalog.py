"""Reading catalogues: formats, encodings, and everything that can be wrong with a file."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog
from llmtagger.catalog.products import join_tags, split_tags
from llmtagger.catalog.profiles import recognise
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

Content = str | bytes
LONG = "x" * 12_000_000


def read(
    folder: Path, name: str, content: Content, **options: Any
) -> tuple[list[Product], list[RejectedRow]]:
    """The products and rejected rows of a file with that content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rejected: list[RejectedRow] = []
    return list(read_catalog(path, CatalogOptions(**options), rejected=rejected.append)), rejected


def unexpected(row: RejectedRow) -> None:
    """For files without a fault."""
    pytest.fail(f"line {row.line}: {row.reason}")


def test_jsonl_fields_and_extra(tmp_path: Path) -> None:
    record = {
        "id": 7,
        "title": " Leather Wallet ",
        "description": "Zippered.",
        "brand": None,
        "category": ["Bags", "Wallets"],
        "attributes": {"Colour": "brown", "Slots": 6, "Lined": True, "Weight": None},
        "tags": ["wallet", " leather ", "wallet", ""],
        "group": "w",
        "price": 19.5,
        "run": {"mine": 1},
    }
    products, rejected = read(tmp_path, "a.jsonl", json.dumps(record) + "\n\n")
    assert rejected == []
    assert products == [
        Product(
            id="7",
            title="Leather Wallet",
            description="Zippered.",
            category="Bags, Wallets",
            attributes={"Colour": "brown", "Slots": "6", "Lined": "true"},
            tags=("wallet", "leather"),
            lang="en",
            group="w",
            extra={"price": 19.5, "run": {"mine": 1}},
        )
    ]


@pytest.mark.parametrize(
    ("header", "row", "options", "expected"),
    [
        pytest.param("id,title", "1,Hat", {}, {}, id="comma"),
        pytest.param("id;title", "1;Hat", {}, {}, id="semicolon"),
        pytest.param("id\ttitle", "1\tHat", {}, {}, id="tab"),
        pytest.param("id|title", "1|Hat", {}, {}, id="bar"),
        pytest.param('"id";"title"', '"1";"Hat"', {}, {}, id="quoted semicolon"),
        pytest.param("SKU,Product Name", "1,Hat", {}, {}, id="synonyms, case and spaces"),
        pytest.param("商品ID,标题,品牌", "1,Hat,B", {}, {"brand": "B"}, id="chinese header"),
        pytest.param(
            "id,title,Vendor,Type,Price", "1,Hat,V,T,9", {},
            {"brand": "V", "category": "T", "extra": {"Price": "9"}}, id="extra",
        ),
        pytest.param(
            "Nr,Was,Farbe", "1,Hat,rot",
            {"columns": {"id": "Nr", "title": "was", "attributes.colour": "Farbe"}},
            {"attributes": {"colour": "rot"}}, id="mapped",
        ),
        pytest.param(
            "id,sku,title", "x,1,Hat", {"columns": {"id": "sku"}},
            {"extra": {"input_id": "x"}}, id="a column that poses as a mapped field",
        ),
        pytest.param(
            "id,title,attributes.colour,attributes", '1,Hat,red,"{""size"": ""M""}"', {},
            {"attributes": {"size": "M", "colour": "red"}}, id="attributes",
        ),
        pytest.param("id,title,tags", "1,Hat,", {}, {"tags": None}, id="no tags"),
        pytest.param("id,title,tags", "1,Hat,a, b", {}, None, id="a cell too many"),
        pytest.param("id,title,lang", "1,Hat,de", {}, {"lang": "de"}, id="language given"),
        pytest.param('id,title', '1,15" Hat', {}, {"title": '15" Hat'}, id="quote in a cell"),
        pytest.param(
            "id\ttitle", '1\t"Big" Hat', {}, {"title": '"Big" Hat'}, id="plain quotes in tsv"
        ),
        pytest.param("id,title,,", "1,Hat,,", {}, {}, id="columns without a name"),
    ],
)  # fmt: skip
def test_csv(
    tmp_path: Path, header: str, row: str, options: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    products, rejected = read(tmp_path, "a.csv", f"{header}\r\n{row}\r\n", **options)
    if expected is None:
        assert (products, [r.line for r in rejected]) == ([], [2])
        return
    fields: dict[str, Any] = {"id": "1", "title": "Hat", "lang": "en"} | expected
    assert (products, rejected) == ([Product(**fields)], [])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["a|b", "c"]', ["a|b", "c"]),
        ("a|b, c;d", ["a", "b, c;d"]),
        ("a; b, c", ["a", "b, c"]),
        ("a, b,,c ", ["a", "b", "c"]),
        ("a", ["a"]),
        (" ", None),
    ],
)
def test_split_tags(cell: str, expected: list[str] | None) -> None:
    assert split_tags(cell) == expected


@given(st.lists(st.text(min_size=1).map(str.strip).filter(bool)))
def test_joined_tags_split_again(tags: list[str]) -> None:
    assert (split_tags(join_tags(tags)) or []) == tags


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_encodings_are_found(tmp_path: Path, name: str, encoding: str) -> None:
    titles = ["高清液晶电视，4K分辨率，HDR功能", "无线耳机，通话清晰，降噪效果显著"]
    if name == "a.csv":
        text = "id,title\n" + "".join(f"{n},{title}\n" for n, title in enumerate(titles))
    else:
        rows = [{"id": n, "title": title} for n, title in enumerate(titles)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]"
    products, rejected = read(tmp_path, name, text.encode(encoding))
    assert rejected == []
    assert [(p.id, p.title, p.lang) for p in products] == [
        ("0", titles[0], "zh"),
        ("1", titles[1], "zh"),
    ]


def test_encoding_can_be_given(tmp_path: Path) -> None:
    content = "id,title\n1,Café crème\n".encode("cp1252")
    products, _ = read(tmp_path, "a.csv", content, encoding="cp1252")
    assert products[0].title == "Café crème"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"id": 1, "title": "Hat"}\n', "jsonl"),
        ('[{"id": 1, "title": "Hat"}]', "json"),
        ("id;title\n1;Hat\n", "csv"),
    ],
    ids=["jsonl", "array", "csv"],
)
def test_standard_input_is_sniffed(
    monkeypatch: pytest.MonkeyPatch, content: str, kind: str
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(content.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    products = list(read_catalog("-", rejected=unexpected))
    assert [(p.id, p.title) for p in products] == [("1", "Hat")]


@pytest.mark.parametrize(
    "title",
    ["👩‍🚀 Space suit 🚀", "قميص قطني أزرق", "\u202eevil\u202c", "👍🏽", "کفش مردانه"],
    ids=["emoji", "arabic", "override", "skin tone", "persian"],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_unusual_titles(tmp_path: Path, name: str, title: str) -> None:
    jsonl = json.dumps({"id": 1, "title": title}) + "\n"
    products, rejected = read(
        tmp_path, name, f"id,title\n1,{title}\n" if name == "a.csv" else jsonl
    )
    assert rejected == []
    assert products[0].title == title


def test_5_000_tags_on_one_product(tmp_path: Path) -> None:
    tags = [f"tag {n}" for n in range(5_000)]
    record = {"id": 1, "title": "Hat", "tags": tags}
    products, _ = read(tmp_path, "a.jsonl", json.dumps(record))
    assert products[0].tags == tuple(tags)
    products, _ = read(tmp_path, "a.csv", f"id,title,tags\n1,Hat,{'|'.join(tags)}\n")
    assert products[0].tags == tuple(tags)


GOOD = '{"id": "good", "title": "Hat"}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param('{"id": 1, "title": "Ha', "not valid JSON", id="broken JSON"),
        pytest.param('["id", "title"]', "not a JSON object", id="an array"),
        pytest.param("null", "not a JSON object", id="null"),
        pytest.param('{"id": null, "title": "Hat"}', "the id is empty", id="null id"),
        pytest.param('{"id": "  ", "title": "Hat"}', "the id is empty", id="blank id"),
        pytest.param('{"id": true, "title": "Hat"}', "the id is neither", id="boolean id"),
        pytest.param('{"id": 1}', "the title is empty", id="no title"),
        pytest.param('{"id": 1, "title": ["Hat"]}', "the title is neither", id="list title"),
        pytest.param('{"id": 1, "title": NaN}', "the title is empty", id="NaN"),
        pytest.param('{"id": 1, "title": "a\0b"}', "NUL", id="NUL byte"),
        pytest.param('{"id": "a\\u0000b", "title": "a"}', "half a character", id="NUL in the id"),
        pytest.param('{"id": "a\\ud83d", "title": "a"}', "half a character", id="half of an id"),
        pytest.param(b'{"id": 1, "title": "\xc3\x28"}', "does not decode as utf-8", id="not utf-8"),
        pytest.param('{"id": 1, "title": "a", "tags": "x"}', "not a list", id="tags are a text"),
        pytest.param('{"id": 1, "title": "a", "tags": [1]}', "not a list", id="tags are numbers"),
        pytest.param(
            '{"id": 1, "title": "a", "attributes": [1]}', "not an object", id="attributes"
        ),
        pytest.param('{"id": 1, "title": "a", "brand": {}}', "brand is neither", id="brand object"),
        pytest.param("[" * 100_000, "nested too deeply", id="deep nesting"),
        pytest.param(
            '{"id": 1, "title": "a", "x": ' + "[" * 90 + "]" * 90 + "}", "nested too", id="deep"
        ),
        pytest.param('{"id": ' + "9" * 5_000 + ', "title": "a"}', "not valid", id="huge number"),
        pytest.param(f'{{"id": 1, "title": "{LONG}"}}', "10 million", id="12 MB line"),
    ],
)  # fmt: skip
def test_bad_jsonl_row(tmp_path: Path, row: Content, reason: str) -> None:
    raw = row.encode() if isinstance(row, str) else row
    products, rejected = read(tmp_path, "a.jsonl", b"\n" + raw + b"\n" + GOOD.encode())
    assert [p.id for p in products] == ["good"]
    assert [r.line for r in rejected] == [2]
    assert reason in rejected[0].reason
    assert rejected[0].raw == raw.decode(errors="replace")[:2_000]


@pytest.mark.parametrize(
    ("rows", "lines", "reason"),
    [
        pytest.param("1,Hat", [2], "2 cells, the header has 3", id="too few cells"),
        pytest.param("1,Hat,,", [2], "4 cells, the header has 3", id="too many cells"),
        pytest.param(",Hat,", [2], "the id is empty", id="no id"),
        pytest.param("1, ,", [2], "the title is empty", id="no title"),
        pytest.param("1,H\0t,", [2], "NUL", id="NUL byte"),
        pytest.param(b"1,H\xe9t,", [2], "does not decode as utf-8", id="not utf-8"),
        pytest.param("1,Hat,[a", [2], "not a JSON list", id="tags are broken JSON"),
        pytest.param('1,"Hat,', [2], "not valid CSV", id="quote never closes"),
        pytest.param('1,"Hat" x,', [2], "not valid CSV", id="text after a quote"),
        pytest.param('1,"Hat,\n2,"Cap",\n3,Tie,', [2], "not valid CSV", id="only its line is lost"),
        pytest.param('1,"two\nlines"', [2], "2 cells", id="a record of two lines"),
        pytest.param(f"1,{LONG},", [2], "10 million", id="12 MB line"),
        pytest.param(f'1,"Hat\n{LONG}",', [2, 3], "", id="12 MB line within quotes"),
    ],
)
def test_bad_csv_row(tmp_path: Path, rows: Content, lines: list[int], reason: str) -> None:
    raw = rows.encode() if isinstance(rows, str) else rows
    content = b"id,title,tags\n" + raw + "\ngood,Käppi,a\nalso,Mütze,b\n".encode()
    products, rejected = read(tmp_path, "a.csv", content)
    assert [p.id for p in products][-2:] == ["good", "also"]
    assert [r.line for r in rejected] == lines
    assert reason in rejected[0].reason
    assert all(len(r.raw) <= 2_000 for r in rejected)


def test_rows_after_a_broken_quote_are_kept(tmp_path: Path) -> None:
    products, rejected = read(
        tmp_path, "a.csv", 'id,title\n1,"Hat\n2,"Cap"\n3,Tie\n4,"So\nck"\n5,"Belt'
    )
    assert [(p.id, p.title) for p in products] == [("2", "Cap"), ("3", "Tie"), ("4", "So\nck")]
    assert [(r.line, r.raw) for r in rejected] == [(2, '1,"Hat'), (7, '5,"Belt')]


def test_quotes_that_never_close_are_read_in_linear_time(tmp_path: Path) -> None:
    rows = 20_000
    products, rejected = read(tmp_path, "a.csv", "id,title\n" + 'x","\n' * rows)
    assert (products, len(rejected)) == ([], rows)


@pytest.mark.parametrize(
    ("name", "content", "options", "message", "hint"),
    [
        pytest.param("a.csv", "", {}, "is empty", "export", id="empty csv"),
        pytest.param("a.jsonl", " \n\n", {}, "is empty", "export", id="blank jsonl"),
        pytest.param("a.csv", "id^title\n1^Hat\n", {}, "one column only", "comma", id="delimiter"),
        pytest.param("a.csv", "<html>\n<p>\n", {}, "one column only", "comma", id="a web page"),
        pytest.param(
            "a.csv", "title,price\nHat,9\n", {}, "no id column; it has: title, price",
            '--map id="..."', id="no id",
        ),
        pytest.param("a.csv", "id,price\n1,9\n", {}, "no title col", "--map title=", id="no title"),
        pytest.param(
            "a.csv", "Artikel,Preis\nHat,9\n", {},
            "no id column and no title column; it has: Artikel, Preis",
            "call the id column id or sku or product_id", id="neither",
        ),
        pytest.param(
            "a.jsonl", '{"title": "Hat"}\n', {}, "no id column; it has: title",
            '--map id="..."', id="no id in jsonl",
        ),
        pytest.param(
            "a.csv", "id,title\n1,Hat\n", {"columns": {"id": "Nr"}},
            "no column 'Nr', to which id is mapped", "correct", id="mapped to nothing",
        ),
        pytest.param(
            "a.csv", "id,title\n1,Hat\n", {"columns": {"colour": "x"}},
            "unknown field 'colour'", "attributes.<name>", id="unknown field",
        ),
        pytest.param(
            "a.csv", "id,title,title\n1,a,b\n", {}, "two columns 'title'", "rename", id="twice"
        ),
        pytest.param("a.csv", "id,ti\0tle\n", {}, "header", "header again", id="NUL in the header"),
        pytest.param("a.xlsx", "PK", {}, "no workbook", "spreadsheet", id="bad workbook"),
        pytest.param("a.xls", "x", {}, "Excel file of the kind .xls", "save it as .xlsx", id="xls"),
        pytest.param("a.xlsm", "x", {}, "of the kind .xlsm", "without macros", id="xlsm"),
        pytest.param(
            "a.doc", "PK", {}, "not in a format that can be read", "Excel (.xlsx)", id="suffix"
        ),
        pytest.param("a.pdf", "%PDF", {}, "a.pdf", "--map title=COLUMN", id="column to name"),
        pytest.param("a.parquet", "PAR1nonsense", {}, "not a Parquet", "export", id="bad parquet"),
        pytest.param("a.json", '[{"id": 1}, {', {}, "not a JSON array", ".jsonl", id="bad array"),
        pytest.param("a.csv", "id,title\n", {"encoding": "nope"}, "'nope'", "utf-8", id="name"),
        pytest.param(
            "a.csv", "id,title\n1,高清电视\n2,无线耳机\n".encode("gb18030"), {"encoding": "utf-8"},
            "does not decode as utf-8", "leave --encoding out", id="wrong encoding",
        ),
        pytest.param(
            "a.csv", "id,title\n1,Café noir\n2,Thé vert\n".encode("cp1252"), {},
            "neither UTF-8", "--encoding", id="unknown encoding",
        ),
        pytest.param(
            "a.csv", "id,title\n7,a\n8,b\n7,c\n", {}, "id '7' twice, on lines 2 and 4",
            "--on-duplicate first|last", id="duplicate id",
        ),
    ],
)  # fmt: skip
def test_whole_file_faults(
    tmp_path: Path, name: str, content: Content, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, name, content, **options)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_header_of_too_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    header = "id,title," + ",".join(f"c{n}" for n in range(100_000))
    begun = time.process_time()
    with pytest.raises(CatalogError, match=r"100,002 columns, and 10,000 are the most"):
        read(tmp_path, "a.csv", f"{header}\n")
    assert time.process_time() - begun < 20  # 40,000 took 73 s when it was quadratic


def test_rows_of_ever_new_keys_do_not_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("w", encoding="utf-8") as file:
        for row in range(150):
            keys = {f"key {row} {n}": 1 for n in range(3_000)}
            file.write(json.dumps({"id": row, "title": "Hat"} | keys) + "\n")
    tracemalloc.start()
    count = sum(1 for _ in read_catalog(tmp_path / "a.jsonl", rejected=unexpected))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 150
    assert most < 40_000_000  # 66 MB when all shapes were kept


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(CatalogError, match="cannot read"):
            list(read_catalog(path, rejected=unexpected))


def test_mixed_encodings_cost_their_rows_only(tmp_path: Path) -> None:
    rows = [
        "1,高清电视".encode(),
        "2,无线耳机".encode("gb18030"),
        "3,真皮钱包".encode(),
        b"4,Caf\xe9",
    ]
    products, rejected = read(tmp_path, "a.csv", b"id,title\n" + b"\n".join(rows))
    assert [p.id for p in products] == ["1", "3"]
    assert [r.line for r in rejected] == [3, 5]


@pytest.mark.parametrize(
    ("choice", "titles"), [("first", ["a", "b"]), ("last", ["b", "c"])], ids=["first", "last"]
)
def test_duplicates_by_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, choice: str, titles: list[str]
) -> None:
    products, _ = read(tmp_path, "a.csv", "id,title\n7,a\n8,b\n7,c\n", on_duplicate=choice)
    assert [p.title for p in products] == titles
    assert "1 rows dropped" in caplog.text


def test_json_array_rows_have_lines(tmp_path: Path) -> None:
    content = '[\n {"id": 1, "title": "Hat"},\n {"id": 2},\n {"id": 3, "title": "Cap"}\n]\n'
    products, rejected = read(tmp_path, "a.json", content)
    assert [p.id for p in products] == ["1", "3"]
    assert rejected == [RejectedRow(3, "the title is empty", '{"id": 2}')]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "id": [1.0, 2.0, None],
            "title": ["Hat", "Ca\0p", "Tie"],
            "tags": [["a", "b"], None, []],
            "attributes": [{"size": "M"}, None, {"size": None}],
            "added": pa.array([0, 1, 2], pa.date32()),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    rejected: list[RejectedRow] = []
    products = list(read_catalog(tmp_path / "a.parquet", rejected=rejected.append))
    assert products == [
        Product(
            id="1", title="Hat", tags=("a", "b"), attributes={"size": "M"}, lang="en",
            extra={"added": "1970-01-01"},
        ),
        Product(id="2", title="Ca\ufffdp", lang="en", extra={"added": "1970-01-02"}),
    ]  # fmt: skip
    assert [(r.line, r.reason) for r in rejected] == [(3, "the id is empty")]


@pytest.mark.parametrize("half", ["\\ud800", "\\u0000"], ids=["half a character", "NUL"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_what_no_file_can_hold_is_replaced_at_intake(tmp_path: Path, name: str, half: str) -> None:
    attributes, tags = f'{{"colo{half}ur": "re{half}d"}}', f'["a{half}"]'
    if name == "a.csv":
        rows = [["id", "title", "attributes", "tags"], ["1", "Hat", attributes, tags]]
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        content = text.getvalue().encode()
    elif name == "a.jsonl":
        content = (
            f'{{"id": 1, "title": "Hat", "attributes": {attributes}, "tags": {tags}, '
            f'"ex{half}tra": ["{half}", {{"{half}": 1}}]}}'
        ).encode()
    else:
        import pyarrow as pa
        from pyarrow import parquet

        handle = io.BytesIO()
        cells = {"id": ["1"], "title": ["Hat"], "attributes": [attributes], "tags": [tags]}
        parquet.write_table(pa.table(cells), handle)
        content = handle.getvalue()
    (product,), rejected = read(tmp_path, name, content)
    assert rejected == []
    assert product.attributes == {"colo\ufffdur": "re\ufffdd"}
    assert product.tags == ("a\ufffd",)
    if name == "a.jsonl":
        assert product.extra == {"ex\ufffdtra": ["\ufffd", {"\ufffd": 1}]}


_BYTES = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [b"id,title\n", b'{"id":1,"title":"a"}', b"\n", b'"', b",", b"\0", b"\xff\xfe", b"[",
             b"\xef\xbb\xbf", b"\xd6\xd0", b"\r", b"1,a", b"Handle,Title,Option1 Name\n", b"}"]
        )
    ).map(b"".join),
)  # fmt: skip


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=_BYTES)
def test_random_bytes_raise_nothing_but_catalog_errors(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with suppress(CatalogError):
        products, rejected = read(tmp_path, name, content)
        json.dumps([r.raw for r in rejected], ensure_ascii=False).encode()
        assert all(p.id and p.title for p in products)


@pytest.mark.parametrize(
    "name",
    [
        *("Item number", "item_no", "Article number", "article-no", "Product code", "Code", "REF"),
        *(
            "product number",
            "Reference",
            "Stock code",
            "Part number",
            "货号",
            "商品编码",
            "商品代码",
        ),
    ],
)
def test_the_usual_names_of_an_id_are_understood(tmp_path: Path, name: str) -> None:
    (product,), rejected = read(tmp_path, "a.csv", f"Brand,{name},Title\nAcme,7,Hat\n")
    assert (product.id, product.brand, rejected) == ("7", "Acme", [])


@pytest.mark.parametrize(
    "name",
    [
        *("Item No.", "Item no", "ITEM NO", "Item #", "Item#", "Item Nr.", "Item-Nr", "Item num."),
        *("Art. No.", "Art.No.", "Art.-Nr.", "Article No.", "SKU #", "SKU No.", "SKU №"),
        *("Product No.", "Prod. No.", "Part No.", "Part #", "Stock No.", "Ref."),
    ],
)
def test_an_id_may_be_called_a_number_in_short(tmp_path: Path, name: str) -> None:
    row = {"Brand": "Acme", name: "7", "Title": "Hat"}
    book = openpyxl.Workbook()
    book.active.append([*row])
    book.active.append([*row.values()])
    book.save(tmp_path / "made.xlsx")
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "made.parquet")
    contents: dict[str, Content] = {
        "a.csv": f"{','.join(row)}\n{','.join(row.values())}\n",
        "a.jsonl": json.dumps(row),
        "a.xlsx": (tmp_path / "made.xlsx").read_bytes(),
        "a.parquet": (tmp_path / "made.parquet").read_bytes(),
    }
    for file, content in contents.items():
        (product,), rejected = read(tmp_path, file, content)
        assert (product.id, product.brand, rejected) == ("7", "Acme", []), file


def test_an_ebay_report_may_shorten_its_id() -> None:
    profile = recognise(["Item No.", "Title", "Custom label (SKU)"])
    assert profile is not None
    assert profile.synonyms(["Item No."])["id"] == ("item_number",)


@pytest.mark.parametrize("name", ["No.", "#", "Nr.", "Casino", "Number of pieces", "Item #2"])
def test_not_every_number_is_an_id(tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogError, match="no id column"):
        read(tmp_path, "a.csv", f"{name},Brand,Title\n1,Acme,Hat\n")


def test_a_code_is_no_id_where_the_table_has_one(tmp_path: Path) -> None:
    text = "code,part_number,reference,sku,title\nred,P-1,R,7,Hat\n"
    (product,), _ = read(tmp_path, "a.csv", text)
    assert product.id == "7"
    assert product.extra == {"code": "red", "part_number": "P-1", "reference": "R"}


def test_a_record_of_too_many_keys_is_rejected(tmp_path: Path) -> None:
    many = {f"k{number}": number for number in range(10_001)}
    rows = [
        {"id": 1, "title": "Hat", **many},
        {"id": 2, "title": "Cap", "attributes": many},
        {"id": 3, "title": "Tie"},
    ]
    products, rejected = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [product.id for product in products] == ["3"]
    assert [row.reason for row in rejected] == [
        "the record has 10,003 keys, and 10,000 are the most",
        "the product has more than 10,000 attributes",
    ]


_MEMORY = """
import resource, sys
from llmtagger.catalog import read_catalog
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read_catalog(sys.argv[1], rejected=print))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_3_000_own_keys_in_each_of_400_rows_take_less_than_100_mib(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as handle:
        for row in range(400):
            own = ", ".join(f'"key {row} {number}": {number}' for number in range(3_000))
            handle.write(f'{{"id": {row}, "title": "t", {own}}}\n')
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    count, mib = map(int, done.stdout.split())
    assert count == 400
    assert mib < 100
