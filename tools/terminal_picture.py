"""Draws the README's picture of the terminal from a run that was really done.

python tools/terminal_picture.py out/examples.jsonl examples/new.jsonl docs/terminal.svg ID...
"""

from __future__ import annotations

import io
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from rich.console import Console

from llmtagger.catalog import read_catalog
from llmtagger.cli.results import show_results
from llmtagger.config import Settings
from llmtagger.output import Cut
from llmtagger.runs import Journal


def draw(output: str, catalogue: str, picture: str, ids: list[str]) -> None:
    """The results of those products as `llmtagger tag` shows them, in an SVG."""
    scoring = Settings().scoring
    with closing(sqlite3.connect(f"{output}.journal")) as connection:
        basis = dict(connection.execute("SELECT key, value FROM meta WHERE key != 'run_id'"))
    products = {p.id: p for p in read_catalog(catalogue, rejected=lambda row: None)}
    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(f"[bold]$[/] llmtagger tag {catalogue} -i indexes/examples -o {output}")
    with Journal(Path(f"{output}.journal"), basis) as journal:
        results = list(journal.results([products[name] for name in ids]))
    show_results(console, results, Cut(scoring.threshold, scoring.review))
    console.save_svg(picture, title="llmtagger")


if __name__ == "__main__":
    draw(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
