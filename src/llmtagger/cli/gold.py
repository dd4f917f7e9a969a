"""`llmtagger gold`: tags that people gave, out of an index's gold book and into it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.cli.console import stderr, write, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import IndexFolder
from llmtagger.person import login

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmtagger.goldbook import GoldBook

app = typer.Typer(help="Export, import and approve tags set by hand.", no_args_is_help=True)

_NAMED = 5  # ids, tags or rows that a message names

_File = Annotated[
    Path, typer.Argument(metavar="FILE", help=".csv, .xlsx, or .json (Label Studio).")
]
_Author = Annotated[str | None, typer.Option(help="Who approves them.  [default: your login name]")]


@app.command()
def export(file: _File, index: IndexFolder) -> None:
    """Write all products that people have tagged or rated to a file.

    Example: `llmtagger gold export gold.xlsx -i indexes/shop`
    """
    from llmtagger.backends.index_folder import open_index
    from llmtagger.catalog.preflight import Output, check_files
    from llmtagger.goldbook import FILE
    from llmtagger.goldsheets import SUFFIXES, export_gold

    check_files([index / FILE], [Output(file, "the output", SUFFIXES)])
    vocabulary = open_index(index, verify=False).vocabulary
    with _book(index) as book:
        count = export_gold(book.entries(), file, vocabulary)
    stderr().print(f"{count} products written to {file}.")


@app.command("import")
def import_(
    file: _File,
    index: IndexFolder,
    author: Annotated[
        str | None,
        typer.Option(help="Author for rows that have none.  [default: your login name]"),
    ] = None,
) -> None:
    """Take in a file: its tags become marks. What the book holds already stays as it is.

    Example: `llmtagger gold import gold.xlsx -i indexes/shop`
    """
    from llmtagger.backends.index_folder import open_index
    from llmtagger.catalog.preflight import Output, check_files
    from llmtagger.cli.index import finish, rejects_of
    from llmtagger.goldsheets import import_gold

    check_files([file], [Output(rejects_of(index), "the rejects file")])
    vocabulary = open_index(index, verify=False).vocabulary
    with _book(index) as book:
        done = import_gold(file, book, vocabulary, author or login())
    stderr().print(f"{done.products} products, {done.new} of them new; {done.marks} marks changed.")
    if done.silent:
        stderr().print(f"{done.silent} tasks have no annotation and were skipped.")
    if done.unknown:
        stderr().print(
            f"{len(done.unknown)} tags are not in the vocabulary: {_some(done.unknown)}",
        )
    for row in done.rejected[:_NAMED]:
        stderr().print(f"Row {row.line}: {row.reason}")
    finish(done.rejected, index)


@app.command()
def status(
    index: IndexFolder, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Count products by state, marks and ratings."""
    with _book(index) as book:
        counts = asdict(book.counts())
    if as_json:
        write_json(counts)
        return
    for name, count in counts.items():
        write(f"{name:10}{count}\n")


@app.command()
def approve(
    index: IndexFolder,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids of products, reviewed or not."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All reviewed products.")] = False,
    author: _Author = None,
) -> None:
    """Add products with their gold tags to the index.

    Example: `llmtagger gold approve --all -i indexes/shop`
    """
    from llmtagger import approval
    from llmtagger.backends.index_folder import open_index
    from llmtagger.cli.index import report_index, writing_progress

    if bool(ids) == everything:
        raise typer.BadParameter("name products, or give --all")
    changed: list[str] = []
    with _book(index) as book:
        if everything:
            chosen = [entry for entry in book.entries() if entry.state == "reviewed"]
            unknown: list[str] = []
        else:
            found = {id: book.entry(id) for id in ids or ()}
            chosen = [entry for entry in found.values() if entry is not None]
            unknown = [id for id, entry in found.items() if entry is None]
        if chosen:
            with writing_progress() as report:
                changed = approval.approve(index, chosen, book, author or login(), report)
            report_index(open_index(index), index)
    stderr().print(f"Approved {len(chosen) - len(changed)} products.")
    if changed:
        stderr().print(
            f"{len(changed)} changed in the meantime and are still open: {_some(changed)}",
        )
    if unknown:
        stderr().print(
            f"{len(unknown)} are not in the gold book: {_some(unknown)}",
        )
        raise typer.Exit(ExitCode.REJECTED)


def _book(index: Path) -> GoldBook:
    from llmtagger.backends.snapshots import current_snapshot
    from llmtagger.goldbook import FILE, GoldBook

    current_snapshot(index)  # says so where there is no index
    return GoldBook(index / FILE)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
