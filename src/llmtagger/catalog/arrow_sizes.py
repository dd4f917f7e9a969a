"""How many bytes each row of Arrow data takes, told without a Python object for any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, types

_FIXED = 16  # bytes that a number, a date or an empty list counts for

Sizes = np.ndarray[tuple[int], np.dtype[np.int64]]


def row_sizes(batch: Any) -> Sizes:
    """The bytes of each row of a record batch."""
    return sum((sizes(column) for column in batch.columns), np.zeros(len(batch), np.int64))


def sizes(array: Any) -> Sizes:
    """The bytes of each element, those of its dictionary's text for it included."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return sizes(array.storage)
    if types.is_dictionary(kind):
        places = compute.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
        known = sizes(array.dictionary)
        held = array.indices.is_valid().to_numpy(zero_copy_only=False)
        found: Sizes = np.full(len(array), _FIXED, np.int64)
        found[held] = known[places[held]]
        return found
    if types.is_string(kind) or types.is_binary(kind) or _is_long_text(kind):
        lengths = compute.fill_null(compute.binary_length(array), 0)
        texts: Sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        return texts + _FIXED
    if types.is_struct(kind):
        total: Sizes = np.full(len(array), _FIXED, np.int64)
        for place in range(kind.num_fields):
            total += sizes(array.field(place))
        return total
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        ends = array.offsets.to_numpy()
        return _within(_elements(array), ends[:-1], ends[1:])
    if types.is_fixed_size_list(kind):
        starts = (array.offset + np.arange(len(array))) * kind.list_size
        return _within(array.values, starts, starts + kind.list_size)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        starts = array.offsets.to_numpy()
        return _within(array.values, starts, starts + array.sizes.to_numpy())
    if types.is_nested(kind) or types.is_string_view(kind) or types.is_binary_view(kind):
        return np.array([array.slice(place, 1).nbytes for place in range(len(array))], np.int64)
    return np.full(len(array), _FIXED)


def _is_long_text(kind: Any) -> bool:
    long = types.is_large_string(kind) or types.is_large_binary(kind)
    return bool(long or types.is_fixed_size_binary(kind))


def _elements(array: Any) -> Any:
    """The values of all lists, one after the other; of a map, its pairs."""
    if not isinstance(array, pa.MapArray):
        return array.values
    return pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])


def _within(elements: Any, starts: Any, ends: Any) -> Sizes:
    total = np.concatenate([[0], np.cumsum(sizes(elements))])
    found: Sizes = _FIXED + total[ends] - total[starts]
    return found


def runs(rows: Sizes, most: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows, each of `most` bytes at most or of one row."""
    start, held = 0, 0
    for place, size in enumerate(rows.tolist()):
        if place > start and held + size > most:
            yield start, place
            start, held = place, 0
        held += size
    if len(rows):
        yield start, len(rows)
