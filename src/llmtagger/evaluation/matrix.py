"""Writes a matrix of products and prompt versions as one HTML page to send around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtagger.datatypes import Product
from llmtagger.evaluation.report import page_of
from llmtagger.evaluation.trials import Cell, Shown


def write_matrix(columns: Sequence[Sequence[Cell]], path: Path) -> None:
    """The page of some versions, each a column of cells about the same products."""
    products = [cell.product for cell in columns[0]]
    cells = {column[0].version: {c.product.id: c for c in column} for column in columns if column}
    path.write_bytes(matrix_page(products, cells))


def matrix_page(products: Sequence[Product], columns: Mapping[str, Mapping[str, Cell]]) -> bytes:
    """The page, UTF-8: a row a product, and by version the cells that are known, by product id."""
    context = {
        "versions": [_facts(version, list(cells.values())) for version, cells in columns.items()],
        "rows": [
            {"product": product, "cells": [cells.get(product.id) for cells in columns.values()]}
            for product in products
        ],
        "look": look,
    }
    return page_of("matrix.html.jinja", context)


def look(tag: Shown) -> str:
    """How a tag is drawn: `out` is what the model said and the system does not keep."""
    return "out" if tag.chosen and not tag.kept and tag.outcome != "missed" else tag.outcome


def _facts(version: str, cells: Sequence[Cell]) -> dict[str, Any]:
    looks = [look(tag) for cell in cells for tag in cell.tags]
    return {
        "name": version,
        "products": len(cells),
        **{name: looks.count(name) for name in ("right", "wrong", "missed")},
    }
