"""Shopify's CSV: both headers, grouped rows, and writing back nothing but new tags."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog, write_records
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

OLD = """Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,\
Option2 Name,Option2 Value,Image Src\r
camisole,Camisole,"<p>Lace &amp; silk.</p>\n<ul><li>Navy</li></ul>",Hearts,Lingerie,\
"lace, Women's, SALE",true,COLOR,Navy,SIZE,S,a.jpg\r
camisole,,,,,,,,Navy,,M,\r
wallet,Wallet,Leather,,,"",true,Title,Default Title,,,\r
camisole,,,,,,,,Black,,S,\r
camisole,,,,,,,,,,,b.jpg\r
"""
NEW = """Title,URL handle,Description,Vendor,Product category,Type,Tags,Status,\
Option1 name,Option1 value,Option2 name,Option2 value,Product image URL
Camisole,camisole,"<p>Lace &amp; silk.</p>
<ul><li>Navy</li></ul>",Hearts,Apparel > Lingerie,Lingerie,\
"lace, Women's, SALE",true,COLOR,Navy,SIZE,S,a.jpg
,camisole,,,,,,,,Navy,,M,
Wallet,wallet,Leather,,Apparel > Wallets,,,Active,Title,Default Title,,,
,camisole,,,,,,,,Black,,S,
"""


def unexpected(row: RejectedRow) -> None:
    """For files without a fault."""
    pytest.fail(f"line {row.line}: {row.reason}")


def save(folder: Path, content: str, encoding: str = "utf-8") -> Path:
    path = folder / "shop.csv"
    path.write_bytes(content.encode(encoding))
    return path


def tagged(handle: str, *tags: str) -> dict[str, Any]:
    return {"id": handle, "tags": [{"tag": tag, "score": 0.9, "evidence": {}} for tag in tags]}


def written(path: Path, *records: dict[str, Any], **options: Any) -> str:
    output = path.with_name("out.csv")
    count = write_records(records, output, source=path, options=CatalogOptions(**options))
    assert count == len(records)
    return output.read_bytes().decode()


@pytest.mark.parametrize("content", [OLD, NEW], ids=["old header", "new header"])
def test_rows_are_grouped_by_handle(tmp_path: Path, content: str) -> None:
    first, second = read_catalog(save(tmp_path, content), rejected=unexpected)
    assert first == Product(
        id="camisole",
        title="Camisole",
        description="Lace & silk.\nNavy",
        brand="Hearts",
        category="Lingerie",
        attributes={"COLOR": "Navy, Black", "SIZE": "S, M"},
        tags=("lace", "Women's", "SALE"),
        lang="en",
        extra=first.extra,
    )
    assert "a.jpg" in first.extra.values()
    assert (second.id, second.attributes, second.tags) == ("wallet", {}, None)
    assert second.category == ("" if content is OLD else "Apparel > Wallets")


def test_the_row_with_a_title_describes_the_product(tmp_path: Path) -> None:
    content = (
        "Handle,Title,Tags,Option1 Name,Option1 Value\na,,,,S\na,Hat,x,Size,M\nb,,y,,\n,Tie,,,\n"
    )
    rejected: list[RejectedRow] = []
    products = list(read_catalog(save(tmp_path, content), rejected=rejected.append))
    assert [(p.id, p.title, p.attributes) for p in products] == [("a", "Hat", {"Size": "S, M"})]
    assert [(r.line, r.reason) for r in rejected] == [
        (4, "the title is empty"),
        (5, "the row has no Handle"),
    ]


def test_mapping_overrides_a_column(tmp_path: Path) -> None:
    options = CatalogOptions(columns={"category": "Product category", "attributes.state": "status"})
    first = next(read_catalog(save(tmp_path, NEW), options, rejected=unexpected))
    assert first.category == "Apparel > Lingerie"
    assert first.attributes["state"] == "true"


def test_only_new_tags_are_added_after_a_persons(tmp_path: Path) -> None:
    result = written(save(tmp_path, OLD), tagged("camisole", "LACE", "navy", "Navy", "silk"))
    assert result == OLD.replace("lace, Women's, SALE", "lace, Women's, SALE, navy, silk")


def test_a_product_without_tags_gets_some(tmp_path: Path) -> None:
    result = written(save(tmp_path, OLD), tagged("wallet", "leather", "wallet"))
    assert result == OLD.replace('Leather,,,""', 'Leather,,,"leather, wallet"')


def test_the_new_header_is_written_back_too(tmp_path: Path) -> None:
    result = written(save(tmp_path, NEW), tagged("wallet", "leather"))
    assert result == NEW.replace(",,Active", ",leather,Active")


def test_a_tag_with_a_comma_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert written(save(tmp_path, OLD), tagged("camisole", "black, white")) == OLD
    assert "'black, white'" in caplog.text


def test_faulty_rows_and_an_unnamed_encoding_are_written_back(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    damaged = OLD.encode("utf-8-sig") + b'short,row\r\nbad,H\xe9t,,,,x,,,,,,\r\n"never closed\r\n'
    path.write_bytes(damaged)
    write_records([tagged("bad", "hat")], tmp_path / "out.csv", source=path)
    assert (tmp_path / "out.csv").read_bytes() == damaged


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "gb18030"])
def test_the_encoding_is_kept(tmp_path: Path, encoding: str) -> None:
    content = OLD.replace("Wallet,Leather", "钱包,真皮，多卡位，拉链零钱袋")
    path = save(tmp_path, content, encoding)
    write_records([tagged("wallet", "真皮")], tmp_path / "out.csv", source=path)
    expected = content.replace('零钱袋,,,""', '零钱袋,,,"真皮"').encode(encoding)
    assert (tmp_path / "out.csv").read_bytes() == expected


def test_a_tag_that_the_encoding_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be written back as cp1252"):
        written(save(tmp_path, OLD), tagged("wallet", "真皮"), encoding="cp1252")
    assert [path.name for path in tmp_path.iterdir()] == ["shop.csv"]


def test_an_export_without_tags_gets_a_column(tmp_path: Path) -> None:
    path = save(tmp_path, "Handle,Title,Option1 Name\na,Hat,Size\na,,\n")
    assert written(path, tagged("a", "x")) == (
        "Handle,Title,Option1 Name,tags\na,Hat,Size,x\na,,,\n"
    )


def test_an_export_may_be_replaced_in_place(tmp_path: Path) -> None:
    path = save(tmp_path, OLD)
    products = read_catalog(path, rejected=unexpected)
    write_records((tagged(p.id, "new") for p in products), path, source=path)
    after = list(read_catalog(path, rejected=unexpected))
    assert [p.tags for p in after] == [("lace", "Women's", "SALE", "new"), ("new",)]


_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_TAG = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), max_size=8)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), _CELL, _CELL, _CELL, _CELL), max_size=6),
    tags=st.lists(_TAG.map(str.strip).filter(bool), max_size=3),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_untouched_cells_stay_equal(
    tmp_path: Path, rows: list[tuple[str, ...]], tags: list[str], ending: str
) -> None:
    header = ("Handle", "Title", "Body (HTML)", "Tags", "Option1 Value")
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ending).writerows([header, *rows])
    result = written(save(tmp_path, text.getvalue()), *(tagged(h, *tags) for h in "abc"))
    before = list(csv.reader(io.StringIO(text.getvalue(), newline="")))
    after = list(csv.reader(io.StringIO(result, newline="")))
    assert [row[:3] + row[4:] for row in after] == [row[:3] + row[4:] for row in before]
    for old, new in zip(before, after, strict=True):
        if {t.strip() for t in old[3].split(",")} - {""}:
            assert new[3].startswith(old[3].rstrip(", \t\r\n\u3000"))
        assert {t.strip() for t in old[3].split(",")} - {""} <= {
            t.strip() for t in new[3].split(",")
        }
