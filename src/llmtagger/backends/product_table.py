"""The products of an index as an Arrow file: written row by row, read where it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmtagger.datatypes import Product
from llmtagger.errors import IndexDamaged

_BATCH = 4096  # rows of every Arrow batch but the last; positions are found by division
_REMEMBERED = 4096  # rows that were read last: like products have the same neighbours
_TEXTS = ("id", "title", "description", "brand", "category", "lang", "group")


def _schema() -> Any:
    import pyarrow as pa

    columns = [pa.field(name, pa.string(), nullable=False) for name in _TEXTS]
    columns += [
        pa.field("reviews", pa.list_(pa.string()), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),  # JSON object
        pa.field("extra", pa.string(), nullable=False),  # JSON object
        pa.field("tags", pa.list_(pa.string())),  # null: nobody has labelled it
        pa.field("live", pa.bool_(), nullable=False),  # false: removed, its vector still in a graph
    ]
    return pa.schema(columns)


class ProductWriter:
    """Appends products to a new Arrow file; use it with `with`."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._schema = _schema()
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> ProductWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, product: Product, *, live: bool = True) -> None:
        """Append one product."""
        self._rows.append(_to_row(product, live))
        if len(self._rows) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []


class ProductTable:
    """Products by position, memory-mapped."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._path = path
        try:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [file.get_batch(i) for i in range(file.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise self._damaged() from error
        lengths: list[int] = [batch.num_rows for batch in self._batches]
        if file.schema != _schema() or any(n != _BATCH for n in lengths[:-1]):
            raise self._damaged()
        self._count = sum(lengths, 0)
        self._read = lru_cache(_REMEMBERED)(self._load)

    def _damaged(self) -> IndexDamaged:
        return IndexDamaged(
            f"{self._path} is damaged", hint="build the index again with `llmtagger index build`"
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Product]:
        for batch in self._batches:
            yield from map(_from_row, batch.to_pylist())

    def __getitem__(self, position: int) -> Product:
        if not 0 <= position < self._count:
            raise IndexError(position)
        return self._read(position)

    def _load(self, position: int) -> Product:
        batch, row = divmod(position, _BATCH)
        return _from_row(self._batches[batch].slice(row, 1).to_pylist()[0])

    def ids(self) -> list[str]:
        """The id of every row, removed ones too."""
        return self._column("id")

    def live(self) -> list[bool]:
        """Which rows are still in the catalogue."""
        return self._column("live")

    def labelled(self) -> list[bool]:
        """Which rows somebody has labelled."""
        return [flag for batch in self._batches for flag in batch["tags"].is_valid().to_pylist()]

    def _column(self, name: str) -> list[Any]:
        return [value for batch in self._batches for value in batch[name].to_pylist()]


def _to_row(product: Product, live: bool) -> dict[str, Any]:
    row: dict[str, Any] = {name: _written(getattr(product, name)) for name in _TEXTS}
    row["attributes"] = json.dumps(dict(product.attributes), default=str)
    row["extra"] = json.dumps(dict(product.extra), default=str)
    row["reviews"] = list(map(_written, product.reviews))
    row["tags"] = None if product.tags is None else [_written(tag) for tag in product.tags]
    row["live"] = live
    return row


def _from_row(row: dict[str, Any]) -> Product:
    return Product(
        **{name: row[name] for name in _TEXTS},
        attributes=json.loads(row["attributes"]),
        extra=json.loads(row["extra"]),
        reviews=tuple(row["reviews"]),
        tags=None if row["tags"] is None else tuple(row["tags"]),
    )


def _written(text: str) -> str:
    """The text, with halves of surrogate pairs replaced: Arrow holds valid UTF-8 only."""
    return text.encode("utf-8", "replace").decode("utf-8")
