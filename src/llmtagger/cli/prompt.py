"""`llmtagger prompt`: versions of prompts, what they become, and which is better."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmtagger.cli.console import marked, stderr, stdout, write, write_json
from llmtagger.cli.options import ConfigFile, Endpoints, IndexFolder, Mapped, ModelName
from llmtagger.datatypes import Strategy
from llmtagger.person import login
from llmtagger.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.text import Text

    from llmtagger.datatypes import Product
    from llmtagger.evaluation.trials import Bench, Cell, Shown
    from llmtagger.templates import TemplateFile

app = typer.Typer(help="Create, try and compare prompt versions.", no_args_is_help=True)

_AUTHOR = Annotated[
    str | None, typer.Option(help="Who made the version.  [default: your login name]")
]


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    config: ConfigFile = None,
) -> None:
    """List all prompt versions. Some come with llmtagger; yours are in prompts/."""
    from rich.table import Table

    from llmtagger.config import load_settings
    from llmtagger.templates import find_template, list_templates, live_template

    settings = load_settings(config)
    found = [find_template(name) for name in list_templates()]
    live = {live_template(template.kind, settings.live) for template in found}
    if as_json:
        records = [
            _said(template)
            | {"name": template.name, "live": template.name in live, "hash": template.hash}
            for template in found
        ]
        write_json(records, indent=1)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("version", "", "out of", "by", "on", "why"):
        table.add_column(column)
    for template in found:
        said = _said(template)
        table.add_row(
            marked("[bold]{}[/]", template.name),
            "live" if template.name in live else "",
            *(one_line(str(said.get(key) or "")) for key in ("parent", "author")),
            (said.get("date") or "")[: len("2026-11-21")],
            marked("[red]{}[/]", said["problem"]) if "problem" in said else one_line(said["note"]),
        )
    stdout().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A prompt's name or a .jinja file.")]) -> None:
    """Print a prompt's template. Example: `llmtagger prompt show tag.v1`"""
    from llmtagger.templates import find_template

    write(find_template(name).source)


@app.command()
def new(
    parent: Annotated[str, typer.Argument(metavar="NAME", help="The version to start from.")],
    text: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The new text.  [default: an editor opens]"),
    ] = None,
    note: Annotated[str, typer.Option(help="Why there is a new version.")] = "",
    author: _AUTHOR = None,
    strategy: Annotated[Strategy | None, typer.Option(help="How examples are chosen.")] = None,
    count: Annotated[
        int | None, typer.Option(min=0, max=50, help="How many examples are shown.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="Id of a product to use as an example; repeatable.")
    ] = None,
) -> None:
    """Save a new version in prompts/. Existing versions are not changed.

    Example: `llmtagger prompt new tag.v1 edited.jinja --note "fewer rules"`
    """
    from llmtagger.errors import ConfigError
    from llmtagger.pipeline import limited_filling
    from llmtagger.templates import find_template
    from llmtagger.versions import make_version

    old = find_template(parent)
    if text is None:
        said = old.body if strategy or count is not None or pin else _edited(old.body)
    else:
        try:
            said = text.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {text}: {error}", hint="check the path") from error
    wanted = {"strategy": strategy, "count": count, "pinned": tuple(pin) if pin else None}
    changed = {name: value for name, value in wanted.items() if value is not None}
    made = make_version(
        old,
        said,
        note=note,
        author=login() if author is None else author,
        examples=old.header.examples.model_copy(update=changed) if changed else None,
        filling=limited_filling,
    )
    stderr().print(f"Wrote prompts/{made.name}.jinja.")
    write(f"{made.name}\n")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A version.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another version.")],
) -> None:
    """Show what changed from A to B. Example: `llmtagger prompt diff tag.v1 tag.v3`"""
    from llmtagger.templates import difference, find_template

    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in difference(find_template(a), find_template(b)):
        stdout().print(line, style=colours.get(line[:1], ""), soft_wrap=True)


@app.command()
def render(
    name: Annotated[str, typer.Argument(help="A prompt's name or a .jinja file.")],
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="Products; - is stdin.")],
    index: IndexFolder,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N products.")] = 3,
    mapped: Mapped = None,
    config: ConfigFile = None,
) -> None:
    """Print the prompts for INPUT exactly as the model would get them. Needs no server."""
    from llmtagger.cli.options import catalog_options
    from llmtagger.config import load_settings
    from llmtagger.tagging import TagJob, dry_run

    settings = load_settings(config)
    options = catalog_options(settings, mapped=mapped)
    job = TagJob(input_, index, "-", prompt=name, limit=limit, settings=settings, options=options)
    for product, prompt in dry_run(job).prompts:
        write(f"=== {product.id}\n")
        for role, text in prompt.messages:
            write(f"--- {role}\n{text}\n")


@app.command("try")
def try_(
    names: Annotated[
        list[str], typer.Argument(metavar="A B... INPUT", help="Versions, then a product file.")
    ],
    index: IndexFolder,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N products.")] = 10,
    report: Annotated[
        Path | None, typer.Option(help="Also write the results as an HTML table.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per cell.")
    ] = False,
    mapped: Mapped = None,
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    config: ConfigFile = None,
) -> None:
    """Show versions side by side on the same products.

    Asks the model with each version; answers are cached. Example:
    `llmtagger prompt try tag.v1 tag.v3 new.csv -i indexes/shop --limit 5`
    """
    from llmtagger.catalog.preflight import Output, check_files
    from llmtagger.cli.options import catalog_options
    from llmtagger.errors import ConfigError
    from llmtagger.evaluation.trials import cell_record
    from llmtagger.tagging import TagJob, read_products

    *versions, input_ = names
    if not versions:
        raise ConfigError("no version is named", hint="llmtagger prompt try tag.v1 new.csv -i …")
    if report is not None:
        check_files([input_, *versions], [Output(report, "the report", (".html", ".htm"))])
    with _bench(index, model, endpoint, config) as (bench, tried):
        options = catalog_options(bench.settings, mapped=mapped)
        job = TagJob(input_, index, "-", limit=limit, options=options)
        products, rejected = read_products(job)
        matrix = {version: tried(version, products) for version in dict.fromkeys(versions)}
    if rejected:
        stderr().print(
            marked(
                "[yellow]Note:[/] Rows skipped because they are not products: {}.", len(rejected)
            )
        )
    if report is not None:
        from llmtagger.evaluation.matrix import write_matrix

        write_matrix(list(matrix.values()), report)
    if as_json:
        for cells in matrix.values():
            for cell in cells:
                write_json(cell_record(cell))
        return
    for row in zip(*matrix.values(), strict=True):
        _show_row(row)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A version.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another version.")],
    index: IndexFolder,
    input_: Annotated[
        str | None,
        typer.Option("--on", metavar="INPUT", help="Labelled products.  [default: the index's]"),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=10, help="Compare on N products, drawn at random.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    mapped: Mapped = None,
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    config: ConfigFile = None,
) -> None:
    """Tell whether B is better than A on labelled products.

    Each product is treated as if it were new and untagged.

    Example: `llmtagger prompt compare tag.v1 tag.v3 -i indexes/shop`
    """
    from llmtagger.evaluation.trials import compare as compared

    with _bench(index, model, endpoint, config) as (bench, tried):
        products = _judged(bench, input_, index, mapped)
        order = random.Random(0).sample(range(len(products)), min(limit, len(products)))
        some = [products[at] for at in order]
        found = compared(tried(a, some), tried(b, some))
    if as_json:
        write_json(found, indent=1)
    else:
        show_verdict(found)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="The version to use from now on.")],
    note: Annotated[str, typer.Option(help="Why.")] = "",
    author: _AUTHOR = None,
    config: ConfigFile = None,
) -> None:
    """Make a version live. `tag` and `calibrate` use it unless --prompt is given.

    Writes the choice to the settings, and who made it and why to prompts/promotions.jsonl.
    """
    from llmtagger.config import DEFAULT_FILE
    from llmtagger.versions import promote_version

    path = config or Path(DEFAULT_FILE)
    before = promote_version(name, path, note=note, author=login() if author is None else author)
    stderr().print(f"{name} is live in {path}" + (f"; it replaces {before}." if before else "."))
    stderr().print("Run `llmtagger calibrate` to measure what its answers are worth.")


def _said(template: TemplateFile) -> dict[str, Any]:
    """What a version says of itself, or the `problem` that keeps it from being read."""
    from llmtagger.errors import PromptError

    try:
        return template.header.model_dump(mode="json")
    except PromptError as error:
        return {"problem": error.message}


def _edited(text: str) -> str:
    """The text as a person leaves it in their editor."""
    from llmtagger.errors import ConfigError

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompt.jinja"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            return file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"the editor failed: {error}", hint="set EDITOR, or name a FILE"
            ) from error


@contextmanager
def _bench(
    index: Path, model: str, endpoint: list[str] | None, config: Path | None
) -> Iterator[tuple[Bench, Callable[[str, Sequence[Product]], list[Cell]]]]:
    """A bench, and how a version is tried on products while someone watches."""
    from llmtagger.backends.folders import cache_dir
    from llmtagger.backends.index_folder import open_index
    from llmtagger.calibration import read_calibration
    from llmtagger.cli.progress import StageReporter
    from llmtagger.config import load_settings
    from llmtagger.evaluation.answers import kept_answers
    from llmtagger.evaluation.trials import Bench
    from llmtagger.templates import find_template

    settings = load_settings(config)
    with ExitStack() as stack:
        reporter = stack.enter_context(StageReporter(stderr()))
        reporter.stage("opening the index", 0, 0)
        opened = open_index(index)
        cache = cache_dir() / "evaluation"
        answers = stack.enter_context(
            kept_answers(model, endpoint or [], settings.engine, cache, reporter.waiting)
        )
        bench = Bench(opened, settings, read_calibration(index))

        def tried(version: str, products: Sequence[Product]) -> list[Cell]:
            cells = {}
            for cell in bench.cells(find_template(version), products, answers):
                cells[cell.product.id] = cell
                reporter.stage(f"asking with {version}", len(cells), len(products))
            return [cells[product.id] for product in products]

        yield bench, tried


def _judged(
    bench: Bench, input_: str | None, index: Path, mapped: list[str] | None
) -> list[Product]:
    if input_ is None:
        rows = bench.index.labelled.nonzero()[0].tolist()
        return [bench.index.product(row) for row in rows]
    from llmtagger.cli.options import catalog_options
    from llmtagger.tagging import TagJob, read_products

    options = catalog_options(bench.settings, mapped=mapped)
    products, _ = read_products(TagJob(input_, index, "-", options=options))
    return [product for product in products if product.tags is not None]


def _show_row(cells: Sequence[Cell]) -> None:
    from rich.table import Table

    product = cells[0].product
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for cell in cells:
        table.add_row(cell.version, _said_in(cell))
    stdout().print(marked("\n[cyan]{}[/]  {}", product.id, product.title[:90]))
    stdout().print(table)


def _said_in(cell: Cell) -> Text:
    """What is in a cell: what went wrong, the tags with their marks, what was refused."""
    from rich.text import Text

    said = Text()
    if cell.problem:
        said.append_text(marked("[red]{0.code}[/] {0.message} ", cell.problem))
    said.append_text(Text(" · ").join(map(_shown, cell.tags)) or marked("[dim]nothing[/]"))
    if cell.rejected:
        refused = ", ".join(f"{each.text} ({each.reason.value})" for each in cell.rejected)
        said.append_text(marked("  [dim]refused: {}[/]", refused))
    return said


def _shown(tag: Shown) -> Text:
    """A tag with the mark that says whether it is right; a small m where the model said it."""
    marks = {"right": "[green]✓", "wrong": "[red]✗", "missed": "[yellow]−", "unjudged": "[blue]?"}
    dropped = " dropped" if tag.chosen and not tag.kept else ""
    return marked(marks[tag.outcome] + " {}{}{}[/]", tag.name, "ᵐ" * tag.chosen, dropped)


def show_verdict(found: dict[str, Any]) -> None:
    """Say which of two versions is better, by which figures, and what each costs."""
    from llmtagger.cli.eval import points
    from llmtagger.evaluation.verdicts import in_english, sentences

    console = stderr()
    system, is_silent = found["system"], found["silent"] == found["answers"]
    said = sentences(system, found["a"], found["b"], is_silent=is_silent)
    console.print(f"{system['products']} products in {system['groups']} groups.")
    console.print(in_english(said), style="bold")
    for side, name in (("system", "tags kept"), ("model", "the model alone")):
        if not found[side]["changed"]:
            continue
        console.print(f"  {name}, {found['a']} → {found['b']}:")
        for figure in ("micro_f1", "micro_precision", "micro_recall"):
            each = found[side][figure]
            console.print(
                f"    {figure[6:]:9} {each['a']['value']:.3f} → {each['b']['value']:.3f}  "
                f"{points(each['difference'])}  {each['verdict']}"
            )
    for side in ("a", "b"):
        cost = found["cost"][side]
        console.print(
            f"  cost of an answer, {found[side]}: {cost['prompt_tokens']:.0f} tokens read, "
            f"{cost['completion_tokens']:.0f} written, {cost['seconds']:.2f} s",
        )
