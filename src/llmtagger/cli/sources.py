"""What the index commands read: catalogues, several as one, and lists of ids."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from llmtagger.catalog import CatalogOptions, RejectedRow, Tally, Understood, read_catalog
from llmtagger.datatypes import Product
from llmtagger.errors import CatalogError

_SAMPLE = 5000  # products that are looked at to choose an encoder


class Sources:
    """The products of several files as one catalogue, read once; faulty rows in `rejected`."""

    def __init__(self, paths: Sequence[str], options: CatalogOptions) -> None:
        self._paths = paths
        self.rejected: list[RejectedRow] = []
        self._tallies: list[Tally] = []
        self._products = _distinct(self._read(options), options.on_duplicate)

    def __iter__(self) -> Iterator[Product]:
        return self._products

    def sample(self) -> list[Product]:
        """The first products; iterating still yields them."""
        head = list(islice(self._products, _SAMPLE))
        self._products = chain(head, self._products)
        return head

    def _read(self, options: CatalogOptions) -> Iterator[Product]:
        for path in self._paths:
            before = len(self.rejected)
            yield from self._counted(path, options)
            if len(self._paths) > 1:
                self.rejected[before:] = [
                    replace(row, reason=f"{path}: {row.reason}") for row in self.rejected[before:]
                ]

    def _counted(self, path: str, options: CatalogOptions) -> Iterator[Product]:
        tally = Tally()
        self._tallies.append(tally)

        def rejected(row: RejectedRow) -> None:
            tally.reject(row)
            self.rejected.append(row)

        for product in read_catalog(path, options, rejected=rejected, opened=tally.opened):
            tally.add(product)
            yield product

    def understood(self) -> list[Understood]:
        """What was understood of each file that was read so far."""
        return [each for tally in self._tallies if (each := tally.understood()) is not None]


def _distinct(products: Iterator[Product], on_duplicate: str) -> Iterator[Product]:
    """One product an id across files; with `error` the index itself refuses the second."""
    if on_duplicate == "error":
        yield from products
    elif on_duplicate == "last":
        yield from {product.id: product for product in products}.values()
    else:
        seen: set[str] = set()
        for product in products:
            if product.id not in seen:
                seen.add(product.id)
                yield product


def read_ids(path: str) -> list[str]:
    """The ids in a file, one a line; `-` is standard input."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(
            f"cannot read ids from {path}: {error}", hint="name a UTF-8 file with one id a line"
        ) from error
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
