"""Catalogues: products read from the files that shops have, and results written back to them.

files ─▶ jsonl | tables (profiles, shops) | parquet ─▶ products ─▶ reading ─▶ Product
records ─▶ writing ─▶ a new file, or (additions, writeback) the file that was read with new tags
"""

from llmtagger.catalog.files import Source, open_source
from llmtagger.catalog.reading import read_catalog
from llmtagger.catalog.rows import CatalogOptions, RejectedRow
from llmtagger.catalog.text import guess_language
from llmtagger.catalog.understanding import Tally, Understood, understand
from llmtagger.catalog.writing import (
    check_format,
    is_written_back,
    write_records,
    write_rejects,
    writes_back,
)

__all__ = [
    "CatalogOptions",
    "RejectedRow",
    "Source",
    "Tally",
    "Understood",
    "check_format",
    "guess_language",
    "is_written_back",
    "open_source",
    "read_catalog",
    "understand",
    "write_records",
    "write_rejects",
    "writes_back",
]
