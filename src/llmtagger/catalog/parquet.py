"""Parquet, read in batches; a record that is too long is never turned into Python objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llmtagger.catalog.files import Source
from llmtagger.catalog.jsonl import TOO_LONG, check_values
from llmtagger.catalog.rows import RAW_LIMIT, RECORD_LIMIT, Row, RowFault, Rows, reject
from llmtagger.errors import CatalogError

_BATCH = 1_000  # rows held in memory at once
# A column of a row group that is larger and holds more bytes a row than any catalogue has may be
# one page, which would be unpacked whole
_LARGE, _WIDE = 512 * 1024 * 1024, 100_000


def parquet_names(source: Source) -> tuple[str, ...]:
    """The names of its columns; `CatalogError` where it is no Parquet file."""
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(source.path).names)
    except _damages() as error:
        raise _unreadable(source, error) from error


def parquet_rows(source: Source) -> Rows:
    """Every row; its line is its number, from 1. Dates and the like become text."""
    from llmtagger.catalog.arrow_sizes import row_sizes, runs

    number = 0
    for batch in batches(source):
        sizes = row_sizes(batch)
        for start, end in runs(sizes, RECORD_LIMIT):
            for values in _records(batch.slice(start, end - start), sizes[start] > RECORD_LIMIT):
                number += 1
                yield _row(number, values)


def batches(source: Source) -> Iterator[Any]:
    """The file's record batches; texts keep their dictionaries, which are no larger than read."""
    with parquet_file(source, dictionaries=True) as file:
        for group in range(file.num_row_groups):  # a batch of two has nested texts in two pieces
            yield from file.iter_batches(batch_size=_BATCH, row_groups=[group])


def group_sizes(source: Source) -> list[int]:
    """The bytes of each row group once every row has its own texts."""
    from llmtagger.catalog.arrow_sizes import row_sizes

    with parquet_file(source, dictionaries=True) as file:
        groups = [
            file.iter_batches(batch_size=_BATCH, row_groups=[group])
            for group in range(file.num_row_groups)
        ]
        return [sum(int(row_sizes(batch).sum()) for batch in group) for group in groups]


@contextmanager
def parquet_file(source: Source, *, dictionaries: bool = False) -> Iterator[Any]:
    """The open file, to be read inside only; `CatalogError` where that fails."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(source.path) as plain:
            _check_chunks(plain.metadata, source)
            leaves = [plain.schema.column(place) for place in range(plain.metadata.num_columns)]
            if not dictionaries:
                yield plain
                return
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with parquet.ParquetFile(source.path, read_dictionary=texts) as file:
            yield file
    except _damages() as error:
        raise _unreadable(source, error) from error


def _damages() -> tuple[type[Exception], ...]:
    """What pyarrow raises for files that are damaged or claim too much."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, RecursionError)


def _unreadable(source: Source, error: Exception) -> CatalogError:
    return CatalogError(
        f"{source.name} is not a Parquet file that can be read: {error}",
        hint="check that its export or download finished",
    )


def _check_chunks(metadata: Any, source: Source) -> None:
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            size = chunk.total_uncompressed_size
            if size > max(_LARGE, _WIDE * group.num_rows):
                raise CatalogError(
                    f"{source.name} holds {size >> 20} MiB in {group.num_rows} cells of the column "
                    f"{chunk.path_in_schema!r}",
                    hint="write it again without this column, or without its longest cells",
                )


def _records(batch: Any, too_long: bool) -> Iterator[Mapping[str, Any]]:
    """The rows as values by column; of one that is too long, its short cells and a fault."""
    from llmtagger.catalog.arrow_sizes import sizes

    names = batch.schema.names
    columns = [
        [_TOO_LONG] if too_long and sizes(column)[0] > RAW_LIMIT else _values(column)
        for column in batch.columns
    ]
    if too_long and not any(column == [_TOO_LONG] for column in columns):
        columns[-1] = [_TOO_LONG]  # long only by their number
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


_TOO_LONG = RowFault(TOO_LONG)


def _row(number: int, values: Mapping[str, Any]) -> Any:
    fault = next((each for each in values.values() if isinstance(each, RowFault)), None)
    sound = {name: each for name, each in values.items() if not isinstance(each, RowFault)}
    plain = {name: _plain(value) for name, value in sound.items()}
    raw = json.dumps(plain, ensure_ascii=False)
    try:
        if fault:
            raise RowFault(str(fault))
        check_values(plain, raw)
    except RowFault as found:
        return reject(number, str(found), raw)
    return Row(number, plain, raw)


def _values(array: Any) -> Sequence[Any]:
    """The elements as Python values; a `RowFault` for one that has no form at all."""
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except Exception:  # dates that Python cannot hold, unknown time zones, and whatever else
        return [_value(array.slice(place, 1)) for place in range(len(array))]


def _value(one: Any) -> Any:
    for form in (one.type, _text_type(one.type)):
        try:
            return (one if form is one.type else one.cast(form)).to_pylist()[0]
        except Exception as error:  # as above
            reason = error
    return RowFault(f"a value of the type {one.type} cannot be read: {reason}")


def _text_type(kind: Any) -> Any:
    """The type with texts in place of dates, times and spans of time."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_temporal(kind) or types.is_decimal(kind):
        return pa.string()
    if types.is_struct(kind):
        return pa.struct([(each.name, _text_type(each.type)) for each in kind])
    if types.is_map(kind):
        return pa.map_(_text_type(kind.key_type), _text_type(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_text_type(kind.value_type), kind.list_size)
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return pa.large_list(_text_type(kind.value_type))
    return kind


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        if value and all(type(each) is tuple for each in value):  # a map
            return {str(name): _plain(each) for name, each in value}
        return [_plain(each) for each in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
