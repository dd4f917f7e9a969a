"""Parquet: every type of Arrow is text or a rejected row, and memory is bounded."""

from __future__ import annotations

import datetime
import decimal
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from llmtagger.catalog import RejectedRow, read_catalog
from llmtagger.catalog import parquet as module
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

FAR = 9_400_000_000_000  # s; the year 299,846
DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 1, 2, 3)
AMOUNT = decimal.Decimal("1.50")
TEXTS = pa.array(["a", None])

# An array of two elements for every type, and what the first one is as an extra value.
ARRAYS: dict[str, tuple[pa.Array, Any]] = {
    "null": (pa.nulls(2), None),
    "bool": (pa.array([True, None]), True),
    **{
        str(kind): (pa.array([1, None], kind), 1)
        for kind in (
            *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
            *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
            *(pa.float16(), pa.float32(), pa.float64()),
        )
    },
    "not a number": (pa.array([float("nan"), float("inf")]), None),
    "large integer": (pa.array([2**64 - 1, None], pa.uint64()), 2**64 - 1),
    "string": (TEXTS, "a"),
    "large_string": (TEXTS.cast(pa.large_string()), "a"),
    "string_view": (TEXTS.cast(pa.string_view()), "a"),
    "binary": (pa.array([b"a\xff", None]), "a\ufffd"),
    "large_binary": (pa.array([b"a", None], pa.large_binary()), "a"),
    "binary_view": (pa.array([b"a", None], pa.binary_view()), "a"),
    "fixed_size_binary": (pa.array([b"ab", None], pa.binary(2)), "ab"),
    "dictionary": (TEXTS.dictionary_encode(), "a"),
    "date32": (pa.array([DAY, None], pa.date32()), "2024-02-29"),
    "date64": (pa.array([DAY, None], pa.date64()), "2024-02-29"),
    "far date32": (pa.array([2**31 - 1, None], pa.date32()), "<value out of range: 2147483647>"),
    "timestamp[s]": (pa.array([MOMENT, None], pa.timestamp("s")), "2024-02-29 01:02:03"),
    "timestamp[ns]": (pa.array([1, None], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
    "far timestamp": (pa.array([FAR * 1000, None], pa.timestamp("ms")), f"<value {FAR * 1000}>"),
    "zone": (pa.array([0, None], pa.timestamp("s", "Asia/Shanghai")), "1970-01-01 08:00:00+08:00"),
    "unknown zone": (pa.array([0, None], pa.timestamp("us", "Nowhere/X")), RejectedRow),
    "time32": (pa.array([datetime.time(1, 2), None], pa.time32("s")), "01:02:00"),
    "time64": (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([datetime.timedelta(1), None], pa.duration("s")), "1 day, 0:00:00"),
    "duration[ns]": (pa.array([1, None], pa.duration("ns")), "1"),
    **{
        f"decimal{bits}": (pa.array([AMOUNT, None], make(9, 2)), "1.50")
        for bits, make in (
            *((32, pa.decimal32), (64, pa.decimal64)),
            *((128, pa.decimal128), (256, pa.decimal256)),
        )
    },
    "list": (pa.array([["a"], None]), ["a"]),
    "large_list": (pa.array([["a"], None], pa.large_list(pa.string())), ["a"]),
    "list_view": (pa.array([["a"], None], pa.list_view(pa.string())), ["a"]),
    "large_list_view": (pa.array([["a"], None], pa.large_list_view(pa.string())), ["a"]),
    "fixed_size_list": (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), ["a", "b"]),
    "struct": (pa.array([{"x": "a", "y": {"z": 1}}, None]), {"x": "a", "y": {"z": 1}}),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), {"k": 1}),
    "moments in a list": (
        pa.array([[{"at": 1}], None], pa.list_(pa.struct([("at", pa.timestamp("ns"))]))),
        [{"at": "1970-01-01 00:00:00.000000001"}],
    ),
    "moments in a map": (
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.timestamp("ns"))),
        {"k": "1970-01-01 00:00:00.000000001"},
    ),
    "extension": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, None], pa.binary(16))),
        "61616161-6161-6161-6161-616161616161",
    ),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), TEXTS), "a"),
}
# Types that no Parquet file holds.
ELSEWHERE = {
    *("DENSE_UNION", "SPARSE_UNION", "RUN_END_ENCODED"),
    *("INTERVAL_MONTHS", "INTERVAL_DAY_TIME", "INTERVAL_MONTH_DAY_NANO"),
}


def read(path: Path) -> tuple[list[Product], list[RejectedRow]]:
    """All products and rejected rows of a file."""
    rejected: list[RejectedRow] = []
    return list(read_catalog(path, rejected=rejected.append)), rejected


def write(path: Path, **columns: Any) -> Path:
    """A file of two products with more columns."""
    parquet.write_table(pa.table({"id": ["1", "2"], "title": ["Hat", "Cap"], **columns}), path)
    return path


@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_is_a_value_or_a_rejected_row(tmp_path: Path, name: str) -> None:
    array, expected = ARRAYS[name]
    products, rejected = read(write(tmp_path / "a.parquet", x=array))
    if expected is RejectedRow:
        assert [product.id for product in products] == ["2"]
        assert "cannot be read" in rejected[0].reason
        return
    assert rejected == []
    found = products[0].extra["x"]
    if isinstance(expected, str) and expected.startswith("<value"):
        found = re.sub("out of range: ", "", found)
        expected = re.sub("out of range: ", "", expected)
    assert found == expected
    assert products[1].extra["x"] is None


@pytest.mark.parametrize("field", ["title", "description", "tags", "attributes", "lang"])
@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_in_every_field_is_read_or_rejected(
    tmp_path: Path, name: str, field: str
) -> None:
    path = write(tmp_path / "a.parquet", **{field: ARRAYS[name][0]})
    products, rejected = read(path)
    assert len(products) + len(rejected) == 2


def test_no_type_of_arrow_is_left_out() -> None:
    known = {name: getattr(pa.lib, name) for name in dir(pa.lib) if name.startswith("Type_")}
    covered = {array.type.id for array, _ in ARRAYS.values()}
    missing = {name.removeprefix("Type_") for name, id in known.items() if id not in covered}
    assert missing == ELSEWHERE


def test_types_that_are_said_to_be_elsewhere_cannot_be_written(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    encoded = pa.RunEndEncodedArray.from_arrays([1], ["a"])
    interval = pa.nulls(1, pa.month_day_nano_interval())
    for array in (union, encoded, interval):
        with pytest.raises(pa.ArrowNotImplementedError):
            parquet.write_table(pa.table({"x": array}), tmp_path / "x.parquet")


LONG = "x" * 12_000_000


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([LONG, "a"], id="a text"),
        pytest.param([[LONG], ["a"]], id="a list"),
        pytest.param([["a"] * 1_000_000, ["a"]], id="many in a list"),
        pytest.param([{"k": LONG}, None], id="a struct"),
        pytest.param(pa.array([[("k", LONG)], None], pa.map_(pa.string(), pa.string())), id="map"),
    ],
)
def test_a_record_that_is_too_long_is_rejected(tmp_path: Path, cells: Any) -> None:
    products, rejected = read(write(tmp_path / "a.parquet", x=cells))
    assert [product.id for product in products] == ["2"]
    assert [(row.line, row.reason) for row in rejected] == [
        (1, "the record is longer than 10 million characters")
    ]
    assert rejected[0].raw == '{"id": "1", "title": "Hat"}'


# VmHWM and not ru_maxrss, which a process has from the one that started it
MEASURED = """
import re, sys
from llmtagger.catalog import read_catalog
rejected = []
count = sum(1 for _ in read_catalog(sys.argv[1], rejected=rejected.append))
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(count, len(rejected), int(peak[1]) // 1024)
"""


def measured(path: Path) -> tuple[int, int, int]:
    """Products and rejected rows of a file, and the MiB that a process needs to read them."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    products, rejected, peak = map(int, done.stdout.split())
    return products, rejected, peak


def test_a_cell_of_300_mb_takes_less_than_1500_mib(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=["x" * 300_000_000, ""])
    products, rejected, peak = measured(path)
    assert (products, rejected) == (1, 1)
    assert peak < 1_500, peak


def test_a_long_text_in_every_row_is_held_once(tmp_path: Path) -> None:
    rows = 200
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 9_000_000])
    ids = list(map(str, range(rows)))
    parquet.write_table(pa.table({"id": ids, "title": ids, "x": long}), tmp_path / "a.parquet")
    products, rejected, peak = measured(tmp_path / "a.parquet")
    assert (products, rejected) == (rows, 0)
    assert peak < 600, peak


def test_cells_that_cannot_be_bounded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGE", 10_000_000)
    path = write(tmp_path / "a.parquet", x=["x" * 11_000_000, ""])
    with pytest.raises(CatalogError, match="holds 10 MiB in 2 cells of the column 'x'"):
        read(path)


@pytest.mark.parametrize("cut", [-1, -9, 5, 50, 200])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CatalogError, match="is not a Parquet file"):
        read(path)


def test_damaged_pages_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=["a" * 1000, "b"])
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(CatalogError, match="is not a Parquet file"):
        read(path)


def test_a_struct_with_two_fields_of_a_name_costs_its_rows(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
    products, rejected = read(write(tmp_path / "a.parquet", x=twice))
    assert len(products) + len(rejected) == 2


@pytest.mark.parametrize("tags", [["a", "b"], {"x": ["a"]}, [["a"]]])
def test_lists_of_texts_are_read_across_row_groups(tmp_path: Path, tags: Any) -> None:
    count = 7
    table = pa.table({"id": range(count), "title": ["t"] * count, "note": [tags] * count})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    products, rejected = read(tmp_path / "a.parquet")
    assert not rejected
    assert [product.extra["note"] for product in products] == [tags] * count
