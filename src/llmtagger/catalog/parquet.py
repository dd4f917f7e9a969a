"""Parquet, read in batches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from llmtagger.catalog.files import Source
from llmtagger.catalog.jsonl import check_values
from llmtagger.catalog.rows import Row, RowFault, Rows, reject
from llmtagger.errors import CatalogError

_BATCH = 1_000  # rows held in memory at once


def parquet_names(source: Source) -> tuple[str, ...]:
    """The names of its columns; `CatalogError` where it is no Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(source.path).names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error


def parquet_rows(source: Source) -> Rows:
    """Every row; its line is its number, from 1. Dates and the like become text."""
    for number, values in enumerate(_records(source), start=1):
        plain = {name: _plain(value) for name, value in values.items()}
        raw = json.dumps(plain, ensure_ascii=False)
        try:
            check_values(plain, raw)
            yield Row(number, plain, raw)
        except RowFault as fault:
            yield reject(number, str(fault), raw)


def _records(source: Source) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(source.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist(maps_as_pydicts="lossy")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Source, error: Exception) -> CatalogError:
    return CatalogError(
        f"{source.name} is not a Parquet file that can be read: {error}",
        hint="check that its export or download finished",
    )


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
