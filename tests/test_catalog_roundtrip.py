"""Text tables written back: only the cells that get new tags change, to the byte."""

from __future__ import annotations

import csv
import decimal
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog, write_records
from llmtagger.catalog.cells import spans
from llmtagger.catalog.files import open_source
from llmtagger.catalog.tables import records
from llmtagger.catalog.text import mend
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError


@dataclass(frozen=True)
class Case:
    """A file of one format: rows of cells, how they are written, and what is read from it."""

    name: str
    rows: tuple[tuple[str, ...], ...]
    expected: Mapping[str, Mapping[str, Any]]  # fields by id
    delimiter: str = ","
    suffix: str = ".csv"
    joiner: str = ", "
    header: int = 0  # of the rows, where the header stands
    column: str = ""  # of the tags; it is made where it is empty
    encodings: tuple[str, ...] = ("utf-8", "utf-8-sig", "utf-16")


def case(name: str, *rows: str, cells: str = "¦", **more: Any) -> Case:
    return Case(name, tuple(tuple(row.split(cells)) for row in rows), **more)


CASES = [
    case(
        "shopify-old",
        "Handle¦Title¦Body (HTML)¦Vendor¦Type¦Tags¦Option1 Name¦Option1 Value",
        'hat¦Wool "Hat"¦<p>Warm,\r\nsoft</p>¦Acme¦Hats¦wool, Winter¦Size¦S',
        "hat¦¦¦¦¦¦¦M",
        "cap¦Cap¦¦Acme¦¦¦Title¦Default Title",
        expected={
            "hat": {
                "title": 'Wool "Hat"', "description": "Warm, soft", "brand": "Acme",
                "category": "Hats", "tags": ("wool", "Winter"), "attributes": {"Size": "S, M"},
            },
            "cap": {"title": "Cap", "tags": None, "attributes": {}},
        },
        column="Tags",
    ),
    case(
        "shopify-new",
        "Title¦URL handle¦Description¦Vendor¦Product category¦Type¦Tags¦Option1 name¦Option1 value",
        "Hat¦hat¦<b>Warm</b>¦Acme¦Apparel > Hats¦¦wool,Winter¦Color¦Red",
        "Cap¦cap¦¦Acme¦Apparel > Caps¦Caps¦¦¦",
        expected={
            "hat": {"category": "Apparel > Hats", "tags": ("wool", "Winter"),
                    "attributes": {"Color": "Red"}},
            "cap": {"category": "Caps", "tags": None},
        },
        joiner=",",
        column="Tags",
    ),
    case(
        "woocommerce",
        "ID¦Type¦SKU¦Name¦Published¦Is featured?¦Short description¦Description¦Categories¦Tags"
        "¦Parent¦Attribute 1 name¦Attribute 1 value(s)¦Attribute 1 visible",
        "44¦variable¦tee¦Tee¦1¦0¦Soft¦<p>Of cotton</p>¦Clothing > Tees¦soft, black\\, white¦¦"
        "Color¦Blue, Red¦1",
        "45¦variation¦tee-blue¦Tee - Blue¦1¦0¦¦¦¦¦id:44¦Color¦Blue¦",
        '46¦"simple, virtual"¦song¦Song¦1¦0¦¦¦Music¦¦¦¦¦'.replace('"', ""),
        "47¦variation¦lost¦Lost¦1¦0¦¦¦¦¦elsewhere¦Color¦Blue¦",
        expected={
            "44": {
                "title": "Tee", "description": "Soft\nOf cotton", "category": "Clothing > Tees",
                "tags": ("soft", "black, white"), "attributes": {"Color": "Blue, Red"},
            },
            "46": {"title": "Song", "category": "Music", "tags": None},
            "47": {"title": "Lost"},
        },
        column="Tags",
    ),
    case(
        "merchant",
        "id¦title¦description¦link¦image_link¦availability¦price¦brand¦google_product_category"
        "¦product_type¦item_group_id¦color¦product_detail¦product_detail",
        "1¦Hat¦Warm hat¦http://x/1¦http://x/1.jpg¦in_stock¦9 EUR¦Acme¦178¦Hats > Wool¦g¦red¦a:b:c¦",
        "2¦Cap¦¦http://x/2¦http://x/2.jpg¦in_stock¦9 EUR¦Acme¦178¦¦g¦¦¦",
        expected={
            "1": {"category": "Hats > Wool", "group": "g",
                  "attributes": {"color": "red", "product_detail": "a:b:c"}},
            "2": {"category": "178", "brand": "Acme"},
        },
        delimiter="\t", suffix=".txt",
    ),
    case(
        "akeneo",
        "sku¦categories¦enabled¦family¦groups¦parent¦X_SELL-products¦name-en_US¦name-de_DE"
        "¦description-en_US-mobile¦main_color¦price-EUR¦tags",
        "A1¦winter,hats¦1¦hats¦¦m1¦A2¦Hat¦Hut¦Warm¦red¦9.00¦warm,wool",
        "A2¦hats¦1¦hats¦¦¦¦¦Mütze¦¦blue¦9.00¦",
        expected={
            "A1": {"title": "Hat", "category": "winter,hats", "group": "m1",
                   "tags": ("warm", "wool"), "attributes": {"main_color": "red"}},
            "A2": {"title": "Mütze", "attributes": {"main_color": "blue"}, "tags": None},
        },
        delimiter=";", joiner=",", column="tags",
    ),
    case(
        "amazon",
        "TemplateType=fptcustom¦Version=2021.0625¦The top 3 rows are for Amazon.com use only.¦¦¦¦",
        "Product Type¦Seller SKU¦Brand Name¦Product Name¦Color¦Key Product Features¦Parent SKU",
        "feed_product_type¦item_sku¦brand_name¦item_name¦color_name¦bullet_point1¦parent_sku",
        "hat¦H-1¦Acme¦Wool hat¦red¦Keeps you warm¦H",
        "hat¦H-2¦Acme¦Wool hat, blue¦blue¦¦H",
        expected={
            "H-1": {"title": "Wool hat", "category": "hat", "description": "Keeps you warm",
                    "attributes": {"color": "red"}, "group": "H"},
            "H-2": {"brand": "Acme"},
        },
        delimiter="\t", suffix=".txt", header=2,
    ),
    case(
        "amazon-2024",
        "settings=feedType=256&headerLanguageTag=en_US¦¦",
        "SKU¦Item Name¦Color",
        "contribution_sku#1.value¦item_name[marketplace_id=X][language_tag=en_US]#1.value"
        "¦color[marketplace_id=X]#1.value",
        "H-1¦Wool hat¦red",
        expected={"H-1": {"title": "Wool hat", "attributes": {"color": "red"}}},
        delimiter="\t", suffix=".tsv", header=2,
    ),
    case(
        "ebay",
        "#INFO,Version=0.0.2,Template= eBay-draft-listings-template_US¦¦¦¦¦",
        "*Action(SiteID=US|Country=US|Currency=USD|Version=1193)¦CustomLabel¦*Title¦Relationship"
        "¦*Description¦*C:Brand¦C:Color",
        "Add¦H1¦Wool hat¦¦<p>Warm</p>¦Acme¦Red",
        "¦H1-S¦¦Variation¦¦¦",
        "Add¦H2¦Cap¦¦¦¦",
        expected={
            "H1": {"title": "Wool hat", "description": "Warm", "brand": "Acme",
                   "attributes": {"Color": "Red"}},
            "H2": {"title": "Cap"},
        },
        header=1,
    ),
    case(
        "ebay-report",
        "Item number¦Title¦Variation details¦Custom label (SKU)¦eBay category 1 name",
        "31¦Paint¦Color=Red;Blue¦¦Crafts",
        "31¦Paint¦Color=Red¦P-R¦Crafts",
        "32¦Brush¦¦B¦Crafts",
        expected={"31": {"title": "Paint", "category": "Crafts"}, "32": {"title": "Brush"}},
    ),
    case(
        "magento",
        "sku¦store_view_code¦attribute_set_code¦product_type¦categories¦name¦description"
        "¦short_description¦additional_attributes¦configurable_variations",
        "T¦¦Top¦configurable¦Default/Tops¦Tee¦<p>Of cotton</p>¦Soft"
        '¦material=Cotton|Wool,fit="loose, long"¦sku=T-S,size=S|sku=T-M,size=M',
        "T¦de¦Top¦configurable¦¦T-Hemd¦¦¦¦",
        "T-S¦¦Top¦simple¦Default/Tops¦Tee S¦¦¦size=S¦",
        "M¦¦Mug¦simple¦Default/Mugs¦Mug¦¦¦¦",
        expected={
            "T": {"title": "Tee", "description": "Soft\nOf cotton", "category": "Default/Tops",
                  "attributes": {"material": "Cotton, Wool", "fit": "loose, long"}},
            "M": {"title": "Mug"},
        },
        joiner=",",
    ),
    case(
        "taobao-data-pack",
        "version 1.00",
        "title¦cid¦seller_cids¦description¦outer_id¦num_id",
        "宝贝名称¦宝贝类目¦店铺类目¦宝贝描述¦商家编码¦数字ID",
        "羊毛帽子¦50006298¦,1,¦<p>保暖</p>¦H-1¦",
        "鸭舌帽¦50006298¦¦¦H-2¦77",
        expected={
            "H-1": {"title": "羊毛帽子", "description": "保暖", "lang": "zh"},
            "77": {"title": "鸭舌帽"},
        },
        delimiter="\t", joiner="，", header=2, encodings=("utf-16", "gb18030"),
    ),
    case(
        "taobao",
        "宝贝ID¦宝贝标题¦宝贝价格¦商家编码¦商品标签",
        "1¦羊毛帽子，保暖¦9¦A¦保暖；羊毛",
        "2¦鸭舌帽子，遮阳防晒，男女通用¦9¦B¦",
        "3¦棒球帽子，夏季新款，透气网眼¦9¦C¦夏季；透气、新款",
        expected={
            "1": {"tags": ("保暖", "羊毛")}, "2": {"tags": None},
            "3": {"tags": ("夏季", "透气", "新款")},
        },
        joiner="；", column="商品标签", encodings=("utf-8-sig", "gb18030"),
    ),
    case(
        "youzan",
        "商品ID¦商品标题¦商品类目¦商品分组¦商品标签¦规格¦商品编码",
        "1¦羊毛帽子保暖加厚¦服饰¦新品¦保暖、羊毛¦红色¦A1",
        "1¦¦¦¦¦蓝色¦A2",
        "2¦遮阳鸭舌帽男女同款¦¦热卖¦¦¦B1",
        expected={
            "1": {"category": "服饰", "tags": ("保暖", "羊毛"), "attributes": {"规格": "红色"}},
            "2": {"category": "热卖", "tags": None},
        },
        joiner="、", column="商品标签", encodings=("utf-8", "gb18030"),
    ),
    case(
        "plain",
        "sku¦Product Name¦Notes¦labels¦Price",
        'A¦Wool "hat"¦two\nlines¦warm; wool¦9',
        "B¦Cap¦¦¦8",
        expected={"A": {"tags": ("warm", "wool")}, "B": {"title": "Cap", "tags": None}},
        delimiter="|", joiner="; ", column="labels",
    ),
    case(
        "titles-with-header", "Title", "Wool hat", "Cap", cells="\0",
        expected={"1": {"title": "Wool hat"}, "2": {"title": "Cap"}}, joiner="|",
    ),
]  # fmt: skip
Quoting = Literal[0, 1, 2, 3]
IDS = [each.name for each in CASES]


def unexpected(row: RejectedRow) -> None:
    """For files without a fault."""
    pytest.fail(f"line {row.line}: {row.reason}")


def text_of(each: Case, ending: str = "\r\n", quoting: Quoting = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=each.delimiter, quoting=quoting, lineterminator=ending)
    writer.writerows(each.rows)
    return text.getvalue()


def cells_of(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def tagged(name: str, *tags: str, review: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "id": name,
        "tags": [{"tag": tag} for tag in tags],
        "review": [{"tag": tag} for tag in review],
    }


def read(path: Path) -> list[Product]:
    return list(read_catalog(path, rejected=unexpected))


def decoded(data: bytes, encoding: str) -> str:
    return data.decode(encoding)


@pytest.mark.parametrize("each", CASES, ids=IDS)
def test_the_fields_are_found(tmp_path: Path, each: Case) -> None:
    path = tmp_path / f"in{each.suffix}"
    path.write_bytes(text_of(each).encode(each.encodings[0]))
    products = {product.id: product for product in read(path)}
    assert list(products) == list(each.expected)
    for name, fields in each.expected.items():
        found = {field: getattr(products[name], field) for field in fields}
        assert found == fields


VARIANTS = [
    ("\n", csv.QUOTE_MINIMAL, False),
    ("\r\n", csv.QUOTE_ALL, True),
    ("\r\n", csv.QUOTE_MINIMAL, True),
]


@pytest.mark.parametrize(("ending", "quoting", "whole"), VARIANTS, ids=["lf", "quoted", "crlf"])
@pytest.mark.parametrize("each", CASES, ids=IDS)
def test_written_back(
    tmp_path: Path, each: Case, ending: str, quoting: Quoting, whole: bool
) -> None:
    text = text_of(each, ending, quoting)
    text = text if whole else text.removesuffix(ending) + ending + ending  # a blank line at the end
    for encoding in each.encodings:
        path, output = tmp_path / f"in{each.suffix}", tmp_path / f"out{each.suffix}"
        path.write_bytes(text.encode(encoding))
        names = list(each.expected)
        write_records([tagged(name) for name in names], output, source=path)
        assert output.read_bytes() == path.read_bytes()
        same = [tagged(p.id, *(t.upper() for t in p.tags or ())) for p in read(path)]
        write_records(same, output, source=path)
        assert output.read_bytes() == path.read_bytes()
        write_records([tagged(names[0], "brand new", "NEW")], output, source=path)
        after = output.read_bytes().decode(encoding)
        _check_only_tags_changed(each, text, after, quoting)
        products = {product.id: product for product in read(output)}
        own = tuple(each.expected[names[0]].get("tags") or ())
        assert products[names[0]].tags == (*own, "brand new", "NEW")
        assert list(products) == names
        for name in names[1:]:
            assert products[name].tags == each.expected[name].get("tags")


def _check_only_tags_changed(each: Case, before: str, after: str, quoting: Quoting) -> None:
    old, new = cells_of(before, each.delimiter), cells_of(after, each.delimiter)
    header = each.rows[each.header]
    column = header.index(each.column) if each.column else None
    changed = 0
    assert len(old) == len(new)
    for was, now in zip(old, new, strict=True):
        if column is None:
            assert now[: len(was)] == was
            changed += len(now) > len(was) and now[len(was) :] not in ([""], ["tags"])
        else:
            assert [*now[:column], *now[column + 1 :]] == [*was[:column], *was[column + 1 :]]
            changed += now != was
    assert changed == 1
    if column is not None:  # the text around that cell
        front = _shared(before, after)
        old_rest, new_rest = before[front:], after[front:]
        back = _shared(old_rest[::-1], new_rest[::-1])
        old_part = old_rest[: len(old_rest) - back]
        new_part = new_rest[: len(new_rest) - back]
        cell = next(row for row in each.rows[each.header + 1 :])[column]
        assert old_part in f'"{cell}"'
        assert each.joiner.join(["brand new", "NEW"]) in new_part
        assert len(new_part) <= len(f'"{cell}{each.joiner * 2}brand newNEW"')


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_a_bare_list_of_titles_gets_a_header(tmp_path: Path) -> None:
    path, output = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_bytes(b'15" screen\r\n\r\nHat, red\r\n"Big" bag')
    assert [(p.id, p.title) for p in read(path)] == [
        ("1", '15" screen'), ("3", "Hat, red"), ("4", '"Big" bag'),
    ]  # fmt: skip
    write_records([tagged("1")], output, source=path)
    assert output.read_bytes() == path.read_bytes()
    write_records([tagged("3", "red", "warm")], output, source=path)
    assert output.read_bytes().decode() == (
        'title\ttags\r\n15" screen\t\r\n\r\nHat, red\tred|warm\r\n"""Big"" bag"\t'
    )
    assert [(p.id, p.title, p.tags) for p in read(output)] == [
        ("1", '15" screen', None), ("3", "Hat, red", ("red", "warm")), ("4", '"Big" bag', None),
    ]  # fmt: skip


def test_tags_for_review_go_into_their_column(tmp_path: Path) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("sku,title,tags,Maybe\n1,Hat,wool|warm,\n2,Cap,,\n3,Tie,,old\n")
    found = [
        tagged("1", "red", review=("Wool", "red", "soft")),
        tagged("2", review=("blue",)),
        tagged("3", review=("old", "new")),
    ]
    write_records(found, output, source=path, review_column="maybe")
    assert output.read_text() == (
        "sku,title,tags,Maybe\n1,Hat,wool|warm|red,soft\n2,Cap,,blue\n3,Tie,,old|new\n"
    )
    write_records(found, output, source=path, review_column="Doubtful")
    assert output.read_text() == (
        "sku,title,tags,Maybe,Doubtful\n1,Hat,wool|warm|red,,soft\n2,Cap,,,blue\n"
        "3,Tie,,old,old|new\n"
    )


@pytest.mark.parametrize("name", ["title", "Tags", "brand", " "])
def test_tags_for_review_have_no_column_of_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,title,tags\n1,Hat,\n")
    with pytest.raises(CatalogError, match="for review cannot stand"):
        write_records([], tmp_path / "o.csv", source=path, review_column=name)
    assert not (tmp_path / "o.csv").exists()


def test_what_a_cell_cannot_hold_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text('id,title,tags\n1,Hat,"a, b"\n2,Cap,\n3,Tie,"[""x|y""]"\n')
    write_records(
        [tagged("1", "c|d", "e"), tagged("2", "=f"), tagged("3", "z")], output, source=path
    )
    assert output.read_text() == (
        'id,title,tags\n1,Hat,"a, b, e"\n2,Cap,\'=f\n3,Tie,"[""x|y"", ""z""]"\n'
    )
    assert "'c|d'" in caplog.text


def test_faulty_rows_stay_and_stay_faulty(tmp_path: Path) -> None:
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    data = b'id,title\n1,Hat\n2,Red, wool\n\n3\n4,Caf\xe9\n"never closed\n'
    path.write_bytes(data)
    rejected: list[RejectedRow] = []
    assert [p.id for p in read_catalog(path, rejected=rejected.append)] == ["1"]
    write_records([tagged("1", "x")], output, source=path)
    assert output.read_bytes() == (
        b'id,title,tags\n1,Hat,x\n2,Red, wool,\n\n3,\n4,Caf\xe9,\n"never closed\n'
    )
    again: list[RejectedRow] = []
    assert [p.id for p in read_catalog(output, rejected=again.append)] == ["1"]
    assert [row.line for row in again] == [row.line for row in rejected]


def test_an_encoding_that_is_not_exact_is_refused(tmp_path: Path) -> None:
    """The same character has two forms in GB18030: what was read would not be written again."""
    path = tmp_path / "in.csv"
    path.write_bytes("id,title\n1,羊毛帽子，保暖\n".encode("gb18030"))
    options = CatalogOptions(encoding="gbk")
    with pytest.raises(CatalogError, match="cannot be written back as gbk"):
        write_records([tagged("1", "👒")], tmp_path / "o.csv", source=path, options=options)
    assert not (tmp_path / "o.csv").exists()


_CELL = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=8
) | st.sampled_from(['"', '""', '"a"', "a,b", "a|b", "\r\n", "\n", " ", "=1", "'=1", "，", '["a"]'])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=4),
    tags=st.lists(_CELL, max_size=3),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    column=st.sampled_from([("tags",), (), ("Maybe",)]),
)
def test_random_tables_keep_all_other_cells(
    tmp_path: Path,
    rows: list[tuple[str, str, str]],
    tags: list[str],
    delimiter: str,
    quoting: Quoting,
    column: tuple[str, ...],
) -> None:
    header = ["id", "title", "note", *column]
    lines = [[str(n), row[0], row[1], *[row[2]] * len(column)] for n, row in enumerate(rows)]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([header, *lines])
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_bytes(text.getvalue().encode())
    found: list[RejectedRow] = []
    products = list(read_catalog(path, rejected=found.append))
    write_records([tagged(p.id, *tags) for p in products], output, source=path)
    after = list(read_catalog(output, rejected=found.append))
    assert [(p.id, p.title) for p in after] == [(p.id, p.title) for p in products]
    for old, new in zip(products, after, strict=True):
        assert (new.tags or ())[: len(old.tags or ())] == (old.tags or ())
    was = cells_of(text.getvalue(), delimiter)
    now = cells_of(output.read_bytes().decode(), delimiter)
    kept = 3 if column == ("tags",) else len(header)
    assert [row[:kept] for row in now] == [row[:kept] for row in was]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.lists(_CELL, min_size=1, max_size=4), min_size=1, max_size=4),
    delimiter=st.sampled_from(",;\t|"),
)
def test_cells_are_found_where_the_csv_module_finds_them(
    tmp_path: Path, rows: list[list[str]], delimiter: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path = tmp_path / "in.csv"
    path.write_bytes(text.getvalue().encode())
    with open_source(path) as source:
        for record in records(source, "utf-8", delimiter):
            if not record.cells:
                continue
            found = [record.raw[slice(*span)] for span in spans(record, delimiter)]
            plain = [
                cell[1:-1].replace('""', '"')
                if cell.startswith('"') and not record.literal
                else cell
                for cell in found
            ]
            assert tuple(plain) == record.cells


def written(
    folder: Path, data: bytes, found: list[dict[str, Any]], suffix: str = ".jsonl", **more: Any
) -> bytes:
    """What becomes of a file of JSON that is written back."""
    path, output = folder / f"in{suffix}", folder / f"out{suffix}"
    path.write_bytes(data)
    write_records(found, output, source=path, plain=True, **more)
    return output.read_bytes()


LINES = (
    '{"id": 1, "price": 9.50, "title":  "Hat",  "tags": ["wool", "Winter"], "n": 1E3}\r\n'
    "\r\n"
    '  {"sku":"2","title":"Caf\\u00e9","Labels":[],"big":123456789012345678901234567890}\n'
    "{not JSON\n"
    '{ "id" : "3" , "title" : "Tie" }\n'
    '{"id":"4","title":"Bag","tags":null,"tags":["a"]}\n'
    '{"title": "no id"}\n'
    '{"id": "5", "title": "帽子", "tags": [{"tag": "own", "score": 0.50}], "nan": NaN}'
)
SPACED = [
    ('"tags": ["wool", "Winter"]', '"tags": ["wool", "Winter", "red", "a\\"b"]'),
    ('"Labels":[]', '"Labels":["red","a\\"b"]'),
    ('"Tie" }', '"Tie" , "tags" : ["red", "a\\"b"] }'),
    ('"tags":["a"]', '"tags":["a","red","a\\"b"]'),
    ('"score": 0.50}]', '"score": 0.50}, "red", "a\\"b"]'),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_json_lines_keep_all_but_their_tags(tmp_path: Path, encoding: str) -> None:
    data = LINES.encode(encoding)
    assert written(tmp_path, data, [tagged("1", "WOOL"), tagged("3")]) == data
    found = [tagged(str(number), "red", 'a"b', "RED") for number in range(1, 6)]
    expected = LINES
    for old, new in SPACED:
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    assert written(tmp_path, data, found) == expected.encode(encoding)
    again = read_catalog(tmp_path / "out.jsonl", rejected=lambda _: None)
    assert [p.tags[-2:] for p in again if p.tags] == [("red", 'a"b')] * 5
    assert written(tmp_path, expected.encode(encoding), found) == expected.encode(encoding)


def test_json_arrays_keep_all_but_their_tags(tmp_path: Path) -> None:
    pretty = (
        '[\n  {\n    "id": 1,\n    "title": "Hat",\n    "tags": [\n      "wool"\n    ]\n  },\n'
        '  {\n    "id": 2,\n    "title": "Cap"\n  }\n]\n'
    )
    found = [tagged("1", "red"), tagged("2", "blue", "new")]
    assert written(tmp_path, pretty.encode(), [tagged("2")], ".json") == pretty.encode()
    after = written(tmp_path, pretty.encode(), found, ".json").decode()
    assert after == pretty.replace('"wool"', '"wool",\n      "red"').replace(
        '"Cap"', '"Cap",\n    "tags": ["blue", "new"]'
    )
    one_line = b'\xef\xbb\xbf[{"id":1,"title":"Hat"},7,{"id":2,"title":"Cap","tags":[]}] '
    assert written(tmp_path, one_line, found, ".json") == one_line.replace(
        b'"Hat"', b'"Hat","tags":["red"]'
    ).replace(b"[]", b'["blue","new"]')


def test_json_lines_with_a_column_for_review(tmp_path: Path) -> None:
    data = (
        b'{"id": 1, "title": "Hat", "Maybe": ["old"]}\n{"id": 2, "title": "Cap", "maybe": "a; b"}\n'
        b'{"id": 3, "title": "Tie", "maybe": 7}\n{"id": 4, "title": "Bag"}\n'
    )
    found = [tagged(each, "kept", review=("Old", "Kept", "a", "new")) for each in "1234"]
    assert written(tmp_path, data, found, review_column="maybe").splitlines() == [
        b'{"id": 1, "title": "Hat", "Maybe": ["old", "a", "new"], "tags": ["kept"]}',
        b'{"id": 2, "title": "Cap", "maybe": "a; b; Old; new", "tags": ["kept"]}',
        b'{"id": 3, "title": "Tie", "maybe": 7, "tags": ["kept"]}',
        b'{"id": 4, "title": "Bag", "tags": ["kept"], "maybe": ["Old", "a", "new"]}',
    ]
    with pytest.raises(CatalogError, match="which is read as title"):
        written(tmp_path, data, found, review_column="Name")


def test_json_lines_that_cannot_be_read_stay(tmp_path: Path) -> None:
    long = b'{"id": "9", "title": "' + b"x" * 10_000_000 + b'"}\n'
    data = b'{"id":"1","title":"a"}\n' + long + b'{"id":"2","title":"\xff"}\n{"id":"3","title":"c"}'
    after = written(tmp_path, data, [tagged(each, "t") for each in "1239"])
    assert after == data.replace(b'"a"', b'"a","tags":["t"]').replace(b'"c"', b'"c","tags":["t"]')


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _CELL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_CELL, inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.dictionaries(_CELL, _VALUE, max_size=3), min_size=1, max_size=4),
    own=st.none() | st.lists(_CELL, max_size=3),
    tags=st.lists(_CELL, max_size=3),
    indent=st.sampled_from([None, 0, 2]),
    ascii=st.booleans(),
    spaced=st.booleans(),
)
def test_random_objects_keep_all_other_values(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    own: list[str] | None,
    tags: list[str],
    indent: int | None,
    ascii: bool,
    spaced: bool,
) -> None:
    objects = [{**row, "id": number, "title": "t", "tags": own} for number, row in enumerate(rows)]
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(objects, indent=indent, ensure_ascii=ascii, separators=separators)
    found = [tagged(str(number), *tags) for number in range(len(rows))]
    after = written(tmp_path, text.encode("utf-8", "surrogatepass"), found, ".json").decode()
    changed = json.loads(after)
    for old, new in zip(json.loads(text), changed, strict=True):
        held = old.pop("tags") or []
        assert (new.pop("tags") or [])[: len(held)] == held
        assert json.dumps(new) == json.dumps(old)
    products = read(tmp_path / "out.json")
    for product in products:
        wanted = {mend(tag.strip()).casefold() for tag in tags if tag.strip()}
        assert wanted <= {mend(tag).casefold() for tag in product.tags or ()}


def parquet_of(path: Path, tags: pa.Array | None, **more: Any) -> bytes:
    """A file of many types in three row groups, one row of it faulty; its bytes."""
    count = 7
    columns: dict[str, Any] = {
        "id": pa.array(range(1, count + 1), pa.int32()),
        "title": pa.array(["Hat", "Cap", "", "Tie", "Bag", "Coat", "Sock"], pa.large_string()),
        "moment": pa.array([None, *range(1, count)], pa.timestamp("us", "Asia/Tokyo")),
        "price": pa.array([decimal.Decimal(f"{n}.50") for n in range(count)], pa.decimal128(9, 2)),
        **({} if tags is None else {"tags": tags}),
        "kind": pa.array(["a", "b", None, "a", "b", "a", "a"]).dictionary_encode(),
        "nested": pa.array([[{"x": n, "y": [b"z"]}] for n in range(count)]),
        "far": pa.array([2**62 // 10**6 * 10**6] * count, pa.timestamp("ns")),
    }
    schema = pa.schema(
        [pa.field(name, each.type, metadata={"own": name}) for name, each in columns.items()],
        metadata={"shop": "Acme", "pandas": "{}"},
    )
    table = pa.Table.from_arrays(list(columns.values()), schema=schema)
    parquet.write_table(table, path, row_group_size=3, compression="gzip", **more)
    return path.read_bytes()


NONE = [None] * 4
PARQUET: dict[str, tuple[pa.Array | None, Any, Any]] = {
    "list": (
        pa.array([["wool"], [], *NONE, None], pa.list_(pa.string())), ["wool", "b", "c"], ["b", "c"]
    ),
    "large list": (
        pa.array([["wool"], [], *NONE, None], pa.large_list(pa.large_string())),
        ["wool", "b", "c"], ["b", "c"],
    ),
    "text": (pa.array(["wool", "x; y", *NONE, None]), "wool; b; c", "x; y; b; c"),
    "categories": (
        pa.array(["wool", "x; y", *NONE, None]).dictionary_encode(), "wool; b; c", "x; y; b; c"
    ),
    "bytes": (pa.array([b"wool", b"x; y", *NONE, None]), b"wool; b; c", b"x; y; b; c"),
    "formula": (pa.array(["=a", None, *NONE, None]), "=a|b|c", "b|c"),
    "nulls": (pa.nulls(7), "b|c", "b|c"),
    "none": (None, "b|c", "b|c"),
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "new": {},
    "old": {"version": "1.0", "store_schema": False, "use_compliant_nested_type": False},
    "oldest": {"use_deprecated_int96_timestamps": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", PARQUET)
def test_parquet_keeps_all_but_its_tags(tmp_path: Path, kind: str, form: str) -> None:
    tags, first, second = PARQUET[kind]
    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    before = parquet_of(path, tags, **FORMS[form])
    write_records([tagged("1"), tagged("4"), tagged("3", "faulty")], output, source=path)
    assert output.read_bytes() == before
    found = [tagged("1", "b", "B", "c"), tagged("2", "b", "c"), tagged("7", "b")]
    write_records(found, output, source=path)
    old, new = parquet.ParquetFile(path), parquet.ParquetFile(output)
    was, now = old.read(), new.read()
    assert now.column("tags").to_pylist()[:2] == [first, second]
    assert now.column_names == [*was.column_names, *(["tags"] if tags is None else [])]
    if "tags" in was.column_names and kind != "nulls":
        assert now.schema.equals(was.schema, check_metadata=True)
        assert str(new.schema).partition("\n")[2] == str(old.schema).partition("\n")[2]
    assert now.column("tags").to_pylist()[2:6] == NONE
    for name in was.column_names:
        if name != "tags":
            assert now.column(name).equals(was.column(name))
            assert now.schema.field(name).equals(was.schema.field(name), check_metadata=True)
    assert now.schema.metadata == was.schema.metadata
    for place in range(old.num_row_groups):
        one, other = old.metadata.row_group(place), new.metadata.row_group(place)
        assert one.num_rows == other.num_rows
        assert one.column(0).compression == other.column(0).compression
    again = output.read_bytes()
    write_records(found, path, source=output)
    assert path.read_bytes() == again


def test_parquet_with_a_column_for_review(tmp_path: Path) -> None:
    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    columns = {"id": ["1", "2"], "title": ["a", "b"], "tags": [["x"], []], "Maybe": [["y"], None]}
    parquet.write_table(pa.table(columns), path)
    found = [tagged("1", "new", review=("X", "New", "y", "z")), tagged("2", review=("z",))]
    write_records(found, output, source=path, review_column="maybe")
    after = parquet.read_table(output).to_pydict()
    assert after == columns | {"tags": [["x", "new"], []], "Maybe": [["y", "z"], ["z"]]}
    parquet.write_table(pa.table({"id": ["1"], "title": ["a"], "maybe": [7]}), path)
    with pytest.raises(CatalogError, match="cannot be added to the column 'maybe'"):
        write_records(found, output, source=path, review_column="maybe")
