"""An index of some of the examples, for tests that tag files."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.catalog import read_catalog

EXAMPLES = Path(__file__).parents[1] / "examples"


def build_examples(folder: Path) -> Path:
    """An index of sixty of the examples, without a learned scorer."""
    lines = (EXAMPLES / "catalogue.jsonl").read_text("utf-8").splitlines(keepends=True)[:60]
    (folder / "some.jsonl").write_text("".join(lines), "utf-8")
    products = read_catalog(folder / "some.jsonl", rejected=lambda row: pytest.fail(row.reason))
    build(products, folder / "index", HashingEncoder())
    return folder / "index"
