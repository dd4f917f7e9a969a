"""Draws the README's picture of the terminal from a run that was really done.

python tools/terminal_picture.py out/examples.jsonl examples/new.jsonl docs/terminal.svg ID...
"""

from __future__ import annotations

import html
import io
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from llmtagger.catalog import read_catalog
from llmtagger.cli.results import show_results
from llmtagger.config import Settings
from llmtagger.runs import Journal
from llmtagger.scorers import cut_of

WIDTH = 104  # cells, so that the longest title fits


def draw(output: str, catalogue: str, picture: str, ids: list[str]) -> None:
    """The results of those products as `llmtagger tag` shows them, in an SVG."""
    with closing(sqlite3.connect(f"{output}.journal")) as connection:
        basis = dict(connection.execute("SELECT key, value FROM meta WHERE key != 'run_id'"))
    products = {p.id: p for p in read_catalog(catalogue, rejected=lambda row: None)}
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(f"[bold]$[/] llmtagger tag {catalogue} -i indexes/examples -o {output}")
    with Journal(Path(f"{output}.journal"), basis) as journal:
        results = list(journal.results([products[name] for name in ids]))
    show_results(console, results, cut_of(Settings().scoring, None))
    Path(picture).write_text(_spaced(console.export_svg(title="llmtagger")), encoding="utf-8")


def _spaced(picture: str) -> str:
    """The picture with wide characters over two cells each, which rich takes for one cell."""

    def of(found: re.Match[str]) -> str:
        text = html.unescape(found[3])
        length = float(found[2]) * cell_len(text) / len(text)
        return f"{found[1]}{length:g}{found[0][found.end(2) - found.start() :]}"

    return re.sub(r'(<text [^>]*textLength=")([\d.]+)"[^>]*>([^<]+)</text>', of, picture)


if __name__ == "__main__":
    draw(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
