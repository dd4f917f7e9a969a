"""Hostile input for all that reads: nothing crashes, and what is not accepted is rejected.

`make test` runs a sample; with --torture each property meets 10,000 inputs, new ones
every time.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llmtagger.catalog import CatalogOptions, RejectedRow, read_catalog, write_records
from llmtagger.config import AnswerSettings, PromptSettings
from llmtagger.datatypes import (
    Candidate,
    Completion,
    Neighbour,
    ParsedTags,
    Product,
    Shortlist,
    Tag,
    TagKind,
    TokenLogprob,
)
from llmtagger.errors import LlmtaggerError, PromptError
from llmtagger.goldbook import GoldBook
from llmtagger.goldsheets import export_gold, import_gold
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.output import product_record
from llmtagger.sandbox import LONGEST, filling
from llmtagger.stages.parsing import MOST_VALUES, answer_format
from llmtagger.stages.prompting import PromptRenderer
from llmtagger.templates import TemplateFile, find_template, list_templates
from llmtagger.vocabulary import Vocabulary, read_vocabulary

FORMATS = ["jsonl", "ndjson", "csv", "tsv", "parquet", "xlsx"]
TORTURE = "--torture" in sys.argv  # settings are made before pytest has its options
fuzz = settings(
    max_examples=10_000 if TORTURE else 15,
    derandomize=not TORTURE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

PIECES = st.sampled_from(
    [
        *(
            '"',
            '""',
            "'",
            ",",
            ";",
            "\t",
            "|",
            "\n",
            "\r",
            "\r\n",
            "\0",
            "\\",
            "\\u0000",
            "\\ud83d",
        ),
        *(
            "id",
            "title",
            "tags",
            "1",
            "a",
            " ",
            "=",
            "{",
            "}",
            "[",
            "]",
            ":",
            "null",
            "NaN",
            "1e999",
        ),
        *(
            '{"id": 1, "title": "a"}',
            "id,title\n",
            "=1+1",
            "<p>",
            "<!--",
            "&#0;",
            "&#9",
            "&amp;",
            "_",
        ),
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "<|im_end|>",
            "忽略以上指令",
            "高清",
            "é",
            "e\u0301",
            "\u0301\u0316",
        ),
        *("\u200b", "\ufeff", "\u202e", "\u2028", "\x85", "\x1a", "\U0001f3f4", "ｔａｇ", "𠮷"),
    ]
)
TEXT = st.one_of(
    st.text(max_size=30), st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
)
WRITABLE = TEXT.map(lambda text: text.encode(errors="replace").decode())
MAGIC = st.sampled_from(
    [b"\xff\xfe", b"\xef\xbb\xbf", b"\xd6\xd0", b"\x81", b"PAR1", b"PK\x03\x04"]
)
BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        TEXT.map(lambda text: text.encode(errors="surrogatepass"))
        | st.sampled_from(
            [b"\xff\xfe", b"\xef\xbb\xbf", b"\xd6\xd0", b"\x81", b"PAR1", b"PK\x03\x04"]
        ),
        max_size=10,
    ).map(b"".join),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORD = st.dictionaries(
    st.sampled_from(["id", "title", "description", "tags", "attributes", "lang", "price"]) | TEXT,
    JSON,
    max_size=6,
)
REPEATED = st.builds(  # a row of something, such as underscores, and what may end it
    lambda piece, count, tail: piece * count + tail,
    PIECES | st.text(min_size=1, max_size=2),
    st.integers(1, 3_000),
    TEXT,
)
PRODUCT = st.builds(
    Product,
    id=TEXT,
    title=TEXT | REPEATED,
    description=TEXT | REPEATED,
    brand=TEXT,
    category=TEXT,
    attributes=st.dictionaries(TEXT, TEXT, max_size=3),
    tags=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    lang=st.sampled_from(["en", "zh", "zh-CN", "", "x"]),
)
VOCABULARY = Vocabulary(
    [Tag("mug", "m", aliases=("cup",)), Tag("防水", "w"), Tag("Color=Red", "r", key="Color")]
)


def _damaged(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The bytes, at each of some places so many replaced by others."""
    for at, length, put in edits:
        at %= len(data) + 1
        data = data[:at] + put + data[at + length :]
    return data


EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 4), st.binary(max_size=4)), max_size=6
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def book(folder: Path) -> Iterator[GoldBook]:
    with GoldBook(folder / "gold") as book:
        yield book


def _read(path: Path) -> tuple[list[Product], list[RejectedRow]]:
    rejected: list[RejectedRow] = []
    products = list(read_catalog(path, CatalogOptions(), rejected=rejected.append))
    for product in products:
        assert product.id
        assert product.title
        product.text().encode()
    for row in rejected:
        json.dumps([row.reason, row.raw], ensure_ascii=False).encode()
    return products, rejected


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
@fuzz
@given(content=BYTES)
def test_any_bytes_are_a_catalogue_or_an_error(folder: Path, suffix: str, content: bytes) -> None:
    path = folder / f"bytes.{suffix}"
    path.write_bytes(content)
    with suppress(LlmtaggerError):
        _read(path)


def _numbered(records: list[Any]) -> list[Any]:
    """No two with the same id: a second one condemns the file."""
    return [
        {**record, "id": number} if isinstance(record, dict) and record.get("id") else record
        for number, record in enumerate(records)
    ]


@fuzz
@given(records=st.lists(RECORD | JSON, max_size=6).map(_numbered), array=st.booleans())
def test_json_rows_are_accepted_or_rejected(folder: Path, records: list[Any], array: bool) -> None:
    records = [{"id": "first", "title": "so that the file has an id"}, *records]
    path = folder / ("rows.json" if array else "rows.jsonl")
    lines = [json.dumps(record) for record in records]
    path.write_text(f"[{','.join(lines)}]" if array else "\n".join(lines), encoding="utf-8")
    products, rejected = _read(path)
    assert len(products) + len(rejected) == len(records)


ONE_PRODUCT = st.fixed_dictionaries(
    {"title": st.text(min_size=1, max_size=9) | TEXT.filter(bool)},
    optional={
        "description": TEXT,
        "brand": TEXT,
        "category": TEXT,
        "attributes": st.dictionaries(TEXT, TEXT, max_size=3),
        "tags": st.lists(TEXT, max_size=3),
        "lang": st.sampled_from(["en", "zh"]),
        "price": JSON,
    },
)


@pytest.mark.parametrize("suffix", FORMATS)
@fuzz
@given(given=st.lists(ONE_PRODUCT, max_size=4))
@example(given=[{"title": "Hat", "attributes": {"colour": "\ud800"}, "price": "\0"}])
def test_what_is_written_is_read_again(
    folder: Path, suffix: str, given: list[dict[str, Any]]
) -> None:
    """Whatever comes in, the output of it is the same products, in every format."""
    source, output = folder / "given.jsonl", folder / f"output.{suffix}"
    first: dict[str, Any] = {"title": "so that there is one"}
    records = [each | {"id": f"x{number}"} for number, each in enumerate([first, *given])]
    source.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    products, _ = _read(source)
    results = [{"tags": [{"tag": tag} for tag in product.tags or ()]} for product in products]
    write_records(
        (product_record(product) | more for product, more in zip(products, results, strict=True)),
        output,
    )
    again, rejected = _read(output)
    assert rejected == []
    for product, read in zip(products, again, strict=True):
        assert replace(read, tags=read.tags or (), extra={}) == replace(
            product, tags=product.tags or (), extra={}
        )


@fuzz
@given(
    rows=st.lists(st.lists(WRITABLE, min_size=3, max_size=5), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
)
@example(rows=[["x", "a\0b\0c\0d\0e\0f\0g\0", "", ""]], delimiter=",")  # like UTF-16, half of it
@example(rows=[["x", "ab\0c\0d\0e\0f\0g\0", "", ""]], delimiter=",")
def test_table_rows_are_accepted_or_rejected(
    folder: Path, rows: list[list[str]], delimiter: str
) -> None:
    rows = [[f"x{number}", *row[1:]] if row[0].strip() else row for number, row in enumerate(rows)]
    text = StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "title", "description", "tags"], *rows])
    path = folder / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    products, rejected = _read(path)
    assert len(products) + len(rejected) == len(rows)


@fuzz
@given(rows=st.lists(st.tuples(WRITABLE, WRITABLE, st.lists(WRITABLE, max_size=3)), max_size=6))
def test_parquet_rows_are_accepted_or_rejected(folder: Path, rows: list[Any]) -> None:
    path = folder / "rows.parquet"
    ids = [f"x{number}" if row[0].strip() else row[0] for number, row in enumerate(rows)]
    columns = {
        "id": pa.array(ids, pa.string()),
        "title": pa.array([row[1] for row in rows], pa.string()),
        "tags": pa.array([row[2] for row in rows], pa.list_(pa.string())),
    }
    parquet.write_table(pa.table(columns), path)
    products, rejected = _read(path)
    assert len(products) + len(rejected) == len(rows)


@cache
def _sound_parquet() -> bytes:
    handle = BytesIO()
    columns = {"id": ["1", "2"], "title": ["Hat", "Cap"], "tags": [["a"], None]}
    parquet.write_table(pa.table(columns), handle)
    return handle.getvalue()


@fuzz
@given(edits=EDITS)
@example(edits=[(2206, 4, b"\0\0\0\x80")])  # a column's name that is no UTF-8
def test_a_damaged_parquet_file_is_read_or_refused(
    folder: Path, edits: list[tuple[int, int, bytes]]
) -> None:
    path = folder / "damaged.parquet"
    path.write_bytes(_damaged(_sound_parquet(), edits))
    with suppress(LlmtaggerError):
        _read(path)


@fuzz
@given(
    rows=st.lists(st.lists(WRITABLE, min_size=2, max_size=5), max_size=5),
    tags=st.lists(WRITABLE, max_size=3),
    header=st.sampled_from(
        [
            *(["id", "title", "tags"], ["id", "title"], ["title"], ["sku", "name", "标签"]),
            ["Handle", "Title", "Body (HTML)", "Tags"],
            ["Type", "SKU", "Name", "Published", "Tags", "Parent"],
            ["商品ID", "商品标题", "商品标签", "规格"],
        ]
    ),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
)
def test_a_table_comes_back_with_nothing_but_tags_changed(
    folder: Path,
    rows: list[list[str]],
    tags: list[str],
    header: list[str],
    delimiter: str,
    encoding: str,
) -> None:
    text = StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    path, output = folder / "back.csv", folder / "back-out.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    options = CatalogOptions(encoding=encoding, on_duplicate="first")
    with suppress(LlmtaggerError):
        before = list(read_catalog(path, options, rejected=lambda row: None))
        records: list[dict[str, Any]] = [{"id": product.id, "tags": []} for product in before]
        write_records(records, output, source=path, options=options)
        assert output.read_bytes() == path.read_bytes()
        records = [record | {"tags": [{"tag": tag} for tag in tags]} for record in records]
        write_records(records, output, source=path, options=options)
        after = list(read_catalog(output, options, rejected=lambda row: None))
        assert [replace(each, tags=None) for each in after] == [
            replace(each, tags=None) for each in before
        ]
        for old, new in zip(before, after, strict=True):
            assert (new.tags or ())[: len(old.tags or ())] == (old.tags or ())


SHOP = "Handle,Title,Body (HTML),Option1 Name,Option1 Value,Tags,Variant SKU"


@fuzz
@given(rows=st.lists(st.lists(WRITABLE, min_size=7, max_size=7), max_size=6))
def test_a_shop_export_is_read_or_refused(folder: Path, rows: list[list[str]]) -> None:
    text = StringIO(newline="")
    csv.writer(text).writerows([SHOP.split(","), *rows])
    path = folder / "shop.csv"
    path.write_bytes(text.getvalue().encode())
    with suppress(LlmtaggerError):
        products, rejected = _read(path)
        assert len(products) + len(rejected) <= len(rows)
        assert bool(rows) >= bool(products or rejected)


@pytest.mark.parametrize("suffix", ["csv", "json", "xlsx"])
@fuzz
@given(content=BYTES)
def test_any_bytes_are_a_gold_sheet_or_an_error(
    folder: Path, book: GoldBook, suffix: str, content: bytes
) -> None:
    path = folder / f"gold.{suffix}"
    path.write_bytes(content)
    with suppress(LlmtaggerError):
        import_gold(path, book, VOCABULARY, "nobody")


@fuzz
@given(
    rows=st.lists(
        st.tuples(WRITABLE, WRITABLE, WRITABLE, st.sampled_from(["", "open", "Reviewed", "x"])),
        max_size=5,
    )
)
@example(rows=[("xa\0b\0c\0d\0e\0f\0g\0h\0", "t", "", "")])  # every other byte zero, as in UTF-16
@example(rows=[("a\0b\0c\0d\0e\0f\0g\0h\0", "t", "", "")])
def test_gold_rows_are_taken_or_rejected(
    folder: Path, book: GoldBook, rows: list[tuple[str, ...]]
) -> None:
    text = StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "title", "tags", "state"])
    writer.writerows(rows)
    path = folder / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    done = import_gold(path, book, VOCABULARY, "nobody")
    assert done.products + done.silent + len(done.rejected) == len(rows)


TASK = st.fixed_dictionaries(
    {},
    optional={
        "data": RECORD | JSON,
        "annotations": st.lists(
            st.fixed_dictionaries(
                {}, optional={"result": JSON, "was_cancelled": JSON, "completed_by": JSON}
            )
            | JSON,
            max_size=3,
        )
        | JSON,
        "tags": JSON,
        "annotator": JSON,
        "id": JSON,
        "title": JSON,
    },
)


@fuzz
@given(tasks=st.lists(TASK | JSON, max_size=4))
def test_tasks_are_taken_or_rejected(folder: Path, book: GoldBook, tasks: list[Any]) -> None:
    path = folder / "tasks.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    done = import_gold(path, book, VOCABULARY, "nobody")
    assert done.products + done.silent + len(done.rejected) == len(tasks)


@pytest.fixture(scope="module")
def sound_workbook(folder: Path) -> bytes:
    with GoldBook(folder / "sound") as book:
        book.take(Product("1", "Mug"), {"mug": True, "防水": False}, "ann", reviewed=True)
        export_gold(book.entries(), folder / "sound.xlsx", VOCABULARY)
    return (folder / "sound.xlsx").read_bytes()


@fuzz
@given(edits=EDITS)
def test_a_damaged_workbook_is_read_or_refused(
    folder: Path, book: GoldBook, sound_workbook: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    path = folder / "damaged.xlsx"
    path.write_bytes(_damaged(sound_workbook, edits))
    with suppress(LlmtaggerError):
        import_gold(path, book, VOCABULARY, "nobody")


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
@fuzz
@given(
    content=BYTES
    | st.lists(
        st.fixed_dictionaries(
            {"name": TEXT},
            optional=dict.fromkeys(("id", "aliases", "parent", "key", "kind", "labels"), JSON),
        ),
        max_size=4,
    ).map(lambda records: "\n".join(map(json.dumps, records)).encode())
)
def test_any_bytes_are_a_vocabulary_or_an_error(folder: Path, suffix: str, content: bytes) -> None:
    path, copy = folder / f"vocabulary.{suffix}", folder / "copy.jsonl"
    path.write_bytes(content)
    with suppress(LlmtaggerError):
        vocabulary = read_vocabulary(path)
        vocabulary.write(copy)
        assert read_vocabulary(copy).tags == vocabulary.tags
        vocabulary.mentions(Product("1", content.decode(errors="replace")))


@cache
def _renderer(name: str) -> PromptRenderer:
    return PromptRenderer(find_template(name), PromptSettings(), max_tags=10)


@fuzz
@given(
    product=PRODUCT,
    neighbour=PRODUCT,
    tags=st.lists(TEXT, max_size=4),
    keys=st.lists(TEXT, max_size=3),
    name=st.sampled_from(list_templates()),
)
def test_any_product_fills_every_template(
    product: Product, neighbour: Product, tags: list[str], keys: list[str], name: str
) -> None:
    shortlist = guard_shortlist(
        Shortlist(
            (Neighbour(neighbour, 0.5),),
            tuple(Candidate(Tag(tag, tag)) for tag in tags),
            keys=tuple(keys),
        )
    )
    read, _ = guard_product(product)
    prompt = _renderer(name).render(read, shortlist)
    (_, system), (_, user) = prompt.messages
    for text in (system, user):
        text.encode()
        assert "<|im_end|>" not in text
    answer_format(find_template(name).kind, VOCABULARY, AnswerSettings()).constraint(
        read, shortlist
    )


JINJA = st.lists(
    st.sampled_from(
        [
            *("{{ product.title }}", "{{ product }}", "{{ candidates | json }}", "{{ lang }}"),
            *("{% if lang == 'zh' %}", "{% else %}", "{% endif %}", "{% for e in examples %}"),
            *(
                "{{ e.title }}",
                "{% endfor %}",
                "{% set x = 1 %}",
                "{{ x }}",
                "{{ 1/0 }}",
                "{{ nix }}",
            ),
            *("{{ ''.__class__ }}", "{{ votes[0] }}", "{{ product.x.y }}", "{% block user %}"),
            *(
                "{% block system %}",
                "{% endblock %}",
                "{#",
                "#}",
                "{{",
                "}}",
                "{%",
                "%}",
                "{% raw %}",
            ),
            *(
                "{{ keys() }}",
                "{% include 'x' %}",
                "{% extends 'x' %}",
                "{% import 'x' as y %}",
                "\n",
            ),
        ]
    )
    | st.text(max_size=4),
    max_size=8,
).map("".join)


@fuzz
@given(system=JINJA, user=JINJA, around=st.booleans())
def test_any_template_is_filled_or_refused(system: str, user: str, around: bool) -> None:
    source = f"{{% block system %}}{system}{{% endblock %}}{{% block user %}}{user}{{% endblock %}}"
    template = TemplateFile("tag.v9", source if around else system + user)
    with suppress(PromptError):
        values = _renderer("tag.v1")._values(Product("1", "Mug"), Shortlist((), ()), [])[0]
        messages = filling(template)(values)
        assert [role for role, _ in messages] == ["system", "user"]
        assert all(len(text) <= LONGEST for _, text in messages)


PRODUCT_TEXT = Product("1", "Red mug", description="防水 coating", attributes={"Color": "red"})
SHORTLIST = Shortlist((), tuple(map(Candidate, VOCABULARY)), keys=("Color", "Size"))


def _parse(kind: TagKind, text: str, finish: str, spelled: bool) -> ParsedTags:
    data = text.encode(errors="surrogatepass")
    logprobs = tuple(TokenLogprob(bytes([byte]), -1.0) for byte in data) if spelled else ()
    completion = Completion(text, finish, "fake", logprobs=logprobs)
    parsed = answer_format(kind, VOCABULARY, AnswerSettings(max_tags=2)).parse(
        completion, PRODUCT_TEXT, SHORTLIST
    )
    assert len(parsed.accepted) <= 2 * (MOST_VALUES if kind is TagKind.SPAN else 1)
    assert not (parsed.problem and (parsed.accepted or parsed.answered))
    for rejection in parsed.rejected:
        rejection.text.encode()
    for proposal in parsed.accepted:
        proposal.tag.name.encode()
        if kind is TagKind.CLOSED:
            assert proposal.tag in VOCABULARY.tags
    return parsed


ANSWER = st.sampled_from(
    ['["', '"]', '{"', '"}', '", "', '": ["', "mug", "\\u", "\ud83d", "[", "}", "]"]
)
SAID = st.sampled_from(["mug", "cup", "防水", "hat", "red", "Color=Red"]) | JSON


@pytest.mark.parametrize("kind", [TagKind.CLOSED, TagKind.FREE])
@fuzz
@given(said=st.lists(SAID, max_size=6), spelled=st.booleans(), ascii_=st.booleans())
def test_list_answers_are_accepted_or_rejected(
    kind: TagKind, said: list[Any], spelled: bool, ascii_: bool
) -> None:
    parsed = _parse(kind, json.dumps(said, ensure_ascii=ascii_), "stop", spelled)
    assert parsed.problem is None
    assert len(parsed.accepted) + len(parsed.rejected) == len(said)


@fuzz
@given(
    said=st.dictionaries(
        st.sampled_from(["Color", "color", "Size", "x"]) | TEXT,
        st.lists(SAID, max_size=4) | SAID,
        max_size=4,
    ),
    spelled=st.booleans(),
)
def test_object_answers_are_accepted_or_rejected(said: dict[str, Any], spelled: bool) -> None:
    parsed = _parse(TagKind.SPAN, json.dumps(said), "stop", spelled)
    assert parsed.problem is None
    values = [each if isinstance(each, list) else [each] for each in said.values()]
    assert len(parsed.accepted) + len(parsed.rejected) == sum(map(len, values))


@fuzz
@given(
    text=TEXT
    | st.lists(
        st.sampled_from(
            ['["', '"]', '{"', '"}', '", "', '": ["', "mug", "\\u", "\ud83d", "[", "}"]
        ),
        max_size=12,
    ).map("".join),
    kind=st.sampled_from(TagKind),
    finish=st.sampled_from(["stop", "length", ""]),
    spelled=st.booleans(),
)
def test_no_answer_is_too_strange(text: str, kind: TagKind, finish: str, spelled: bool) -> None:
    _parse(kind, text, finish, spelled)
