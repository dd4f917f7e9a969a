"""`llmtagger index`: build an index of a catalogue, change it, look into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmtagger.cli.console import marked, stderr, stdout, write, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import ConfigFile, Mapped
from llmtagger.terminal import one_line

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex
    from llmtagger.backends.index_writer import Progress
    from llmtagger.catalog import RejectedRow, Understood
    from llmtagger.cli.sources import Sources

app = typer.Typer(help="Build, change and search the index of a catalogue.", no_args_is_help=True)

_NAMED = 5  # unknown ids or tags that a message names

Catalogues = Annotated[
    list[str], typer.Argument(metavar="CATALOGUE...", help="Product files; - is stdin.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")]
Encoding = Annotated[str | None, typer.Option(help="The files' encoding.")]
OnDuplicate = Annotated[
    str | None,
    typer.Option(help="If an id occurs twice, keep the first or the last, or stop (error)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    catalogues: Catalogues,
    output: Annotated[Path, typer.Option("-o", "--output", help="The index folder to create.")],
    encoder: Annotated[
        str, typer.Option(help="auto, english, multilingual, a folder, or a Hugging Face id.")
    ] = "auto",
    vocabulary: Annotated[
        Path | None, typer.Option(help="Allowed tags: a text file or JSONL.  [default: the labels]")
    ] = None,
    kind: Annotated[
        Literal["auto", "flat", "hnsw"],
        typer.Option(help="flat: exact search; hnsw: a graph, for large catalogues."),
    ] = "auto",
    mapped: Mapped = None,
    encoding: Encoding = None,
    on_duplicate: OnDuplicate = None,
    config: ConfigFile = None,
) -> None:
    """Build an index from one or more catalogues. An existing index is replaced.

    Example: `llmtagger index build catalogue.csv -o indexes/shop`
    """
    from llmtagger.backends import encoders, index_writer
    from llmtagger.vocabulary import read_vocabulary

    _check_files(catalogues, output, [vocabulary] if vocabulary else [])
    tags = None if vocabulary is None else read_vocabulary(vocabulary)
    for note in (tags.merged if tags else ())[:_NAMED]:
        stderr().print(f"Vocabulary: {note}.")
    sources = _sources(catalogues, encoding, on_duplicate, mapped, config)
    sample = sources.sample()
    if encoder == "auto":
        encoder = encoders.choose_encoder(product.title for product in sample)
        stderr().print(f"Encoder: {encoder}, by the language of the titles.")
    elif warning := encoders.warn_if_unsuitable(encoder, sample):
        stderr().print(marked("[yellow]Warning:[/] {}", warning))
    chosen = encoders.load_encoder(encoder)
    with writing_progress() as report:
        index = index_writer.build(
            sources,
            output,
            chosen,
            vocabulary=tags,
            kind=None if kind == "auto" else kind,
            progress=report,
        )
    report_understood(sources.understood())
    report_index(index, output)
    finish(sources.rejected, output)


@app.command()
def add(
    directory: Folder,
    catalogues: Catalogues,
    mapped: Mapped = None,
    encoding: Encoding = None,
    on_duplicate: OnDuplicate = None,
    config: ConfigFile = None,
) -> None:
    """Add products. A product with a known id replaces the old one."""
    from llmtagger.backends import index_writer

    _check_files(catalogues, directory)
    sources = _sources(catalogues, encoding, on_duplicate, mapped, config)
    with writing_progress() as report:
        index = index_writer.add(directory, sources, progress=report)
    report_understood(sources.understood())
    report_index(index, directory)
    finish(sources.rejected, directory)


@app.command()
def remove(
    directory: Folder,
    ids: Annotated[str, typer.Option(help="A file with one id a line; - is stdin.")],
) -> None:
    """Remove products by id. Unknown ids are listed."""
    from llmtagger.backends import index_writer
    from llmtagger.cli.sources import read_ids

    wanted = read_ids(ids)
    with writing_progress() as report:
        index, unknown = index_writer.remove(directory, wanted, progress=report)
    if unknown:
        names = ", ".join(unknown[:_NAMED]) + (", …" if len(unknown) > _NAMED else "")
        stderr().print(f"{len(unknown)} ids are not in the index: {names}")
    stderr().print(f"Removed {len(wanted) - len(unknown)} products.")
    report_index(index, directory)


@app.command()
def search(
    directory: Folder,
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many of each.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the products and tags most similar to a text."""
    from llmtagger.backends.index_folder import open_index

    index = open_index(directory)
    query = index.encoder.encode([text])
    rows, likeness = index.product_vectors.search(query, k)
    tags, nearness = index.tag_vectors.search(query, k)
    found = {
        "query": text,
        "products": [
            {
                "id": index.product(row).id,
                "title": index.product(row).title,
                "similarity": round(float(similarity), 4),
                "tags": list(index.product(row).tags or ()),
            }
            for row, similarity in zip(rows[0].tolist(), likeness[0], strict=True)
            if row >= 0
        ],
        "tags": [
            {"tag": index.vocabulary.tags[tag].name, "similarity": round(float(similarity), 4)}
            for tag, similarity in zip(tags[0].tolist(), nearness[0], strict=True)
            if tag >= 0
        ],
    }
    write_json(found) if as_json else _print_found(found)


@app.command()
def info(directory: Folder, as_json: AsJson = False) -> None:
    """Show what an index folder holds and how it was made."""
    from llmtagger.backends.manifest import check_files, read_manifest
    from llmtagger.backends.snapshots import current_snapshot

    folder = current_snapshot(directory)
    manifest = read_manifest(folder)
    check_files(folder, manifest, contents=False)
    record = manifest.to_record()
    if as_json:
        write_json(record)
        return
    record["bytes"] = sum(entry.size for entry in manifest.files.values())
    for name, value in record.items():
        if name not in ("files", "unknown_examples"):
            write(f"{name:18} {value}\n")


def _sources(
    catalogues: list[str],
    encoding: str | None,
    on_duplicate: str | None,
    mapped: list[str] | None,
    config: Path | None,
) -> Sources:
    from llmtagger.cli.options import catalog_options
    from llmtagger.cli.sources import Sources
    from llmtagger.config import load_settings

    options = catalog_options(load_settings(config), encoding, on_duplicate, mapped)
    return Sources(catalogues, options)


@contextmanager
def writing_progress() -> Iterator[Progress]:
    """A line on stderr that says what is being done and how far it is."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    said = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), said, MofNCompleteColumn(), Elapsed())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield report


def report_understood(files: Sequence[Understood]) -> None:
    """Say how each file was read, and what looks wrong in it."""
    for understood in files:
        stderr().print(f"{understood}.")
        for oddity in understood.oddities:
            stderr().print(marked("[yellow]Check:[/] {}.", oddity))


def report_index(index: CatalogueIndex, directory: Path) -> None:
    """Say what an index holds now, and which labels its vocabulary does not know."""
    manifest = index.manifest
    stderr().print(
        f"{directory}: {manifest.products} products, {manifest.labelled} of them labelled, "
        f"{manifest.tags} tags, encoder {manifest.encoder}, {manifest.kind} search",
    )
    if manifest.unknown_tags:
        names = ", ".join(manifest.unknown_examples[:_NAMED])
        stderr().print(
            f"{manifest.unknown_tags} labels are not in the vocabulary and were left out: {names}"
            + (", …" if manifest.unknown_tags > _NAMED else ""),
        )


def finish(rejected: Sequence[RejectedRow], directory: Path) -> None:
    """Write rejected rows beside the index and say so with exit code 3."""
    from llmtagger.catalog import write_rejects

    path = rejects_of(directory)
    if write_rejects(rejected, path):
        stderr().print(f"{len(rejected)} rows rejected, see {path}")
        raise typer.Exit(ExitCode.REJECTED)


def rejects_of(directory: Path) -> Path:
    """Where rejected rows are written: beside the index."""
    return directory.with_name(f"{directory.resolve().name}.rejects.jsonl")


def _check_files(catalogues: Sequence[str], directory: Path, others: Sequence[Path] = ()) -> None:
    from llmtagger.catalog.preflight import Output, check_files

    outputs = [
        Output(directory, "the index", folder=True),
        Output(rejects_of(directory), "the rejects file"),
    ]
    check_files([*catalogues, *others], outputs)


def _print_found(found: dict[str, Any]) -> None:
    from rich.table import Table

    for title, rows in (("product", found["products"]), ("tag", found["tags"])):
        table = Table(
            title, "similarity", *(["id", "tags"] if title == "product" else []), box=None
        )
        for row in rows:
            cells = [row.get("title") or row.get("tag", ""), f"{row['similarity']:.3f}"]
            if title == "product":
                cells += [row["id"], ", ".join(row["tags"])]
            table.add_row(*map(one_line, cells))
        stdout().print(table)
