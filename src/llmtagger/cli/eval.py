"""`llmtagger eval`: measure on gold sets, and compare two measurements."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from llmtagger.cli.console import marked, stderr, write, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import Endpoints, Mapped, ModelName, catalog_options

_FILES = ("results.json", "samples.jsonl", "report.html")  # of an evaluation's folder
_GATED = ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "product_f1")
_FIGURES = ("", "micro-F1", "precision", "recall", "macro-F1", "products")
_COMPARED = ("", "A", "B", "B minus A", "verdict")
AsMarkdown = Annotated[
    bool, typer.Option("--markdown", help="Print the figures as a Markdown table to stdout.")
]
app = typer.Typer(help="Measure quality on gold sets, and compare runs.", no_args_is_help=True)


@app.command("run")
def run(
    config: Annotated[Path, typer.Argument(metavar="RUN.toml", help="What to measure.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A folder for the results.")],
    data: Annotated[
        Path | None,
        typer.Option(envvar="LLMTAGGER_GOLD", help="Folder with the gold sets' product files."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=10, help="Use only N products of the set.")
    ] = None,
    mapped: Mapped = None,
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json as well.")] = False,
    as_markdown: AsMarkdown = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METRIC=]VALUE",
            help="Exit with code 4 if the system scores lower: micro_f1 (the default), "
            "micro_precision, micro_recall, macro_f1 or product_f1; repeatable.",
        ),
    ] = None,
) -> None:
    """Measure the system and every baseline on a gold set.

    Writes results.json, samples.jsonl and report.html.

    Example: `llmtagger eval run eval/runs/examples.toml -o eval/results/examples`
    """
    from llmtagger.backends.folders import cache_dir
    from llmtagger.cli.progress import StageReporter
    from llmtagger.evaluation.answers import kept_answers
    from llmtagger.evaluation.gold import data_file
    from llmtagger.evaluation.harness import Evaluation, read_config
    from llmtagger.evaluation.report import write_report
    from llmtagger.evaluation.results import results_of
    from llmtagger.evaluation.samples import samples_of, write_samples

    gates = [_gate(text) for text in fail_under or ()]
    wanted = read_config(config)
    options = catalog_options(wanted.settings, mapped=mapped)
    card = config.parent / wanted.dataset
    _check_files([config, data_file(card, data)], output)
    output.mkdir(parents=True, exist_ok=True)
    cache = cache_dir() / "evaluation"
    with ExitStack() as stack:
        reporter = stack.enter_context(StageReporter(stderr()))
        answers = None
        if wanted.llm != "never" or wanted.ask_test:
            answers = stack.enter_context(
                kept_answers(model, endpoint or [], wanted.settings.engine, cache, reporter.waiting)
            )
        outcome = Evaluation(
            wanted,
            card,
            data,
            output,
            cache,
            answers,
            reporter.stage,
            limit=limit,
            options=options,
        ).run()
        reporter.stage("writing the report", 0, 0)
        results, samples = results_of(outcome), samples_of(outcome)
    write_samples(samples, output / "samples.jsonl")
    text = json.dumps(results, ensure_ascii=False, indent=1)
    (output / "results.json").write_text(text + "\n", encoding="utf-8")
    write_report(results, samples, output / "report.html")
    if as_json:
        write(text + "\n")
    elif as_markdown:
        write(_markdown(_FIGURES, _rows(results)))
    else:
        _show(results, output)
    _check(gates, results["system"])


def _gate(text: str) -> tuple[str, float]:
    """The metric and the least value that `[METRIC=]VALUE` names."""
    name, _, value = text.rpartition("=")
    try:
        least = float(value)
    except ValueError:
        least = math.nan
    if (name or _GATED[0]) not in _GATED or not 0 <= least <= 1:
        raise typer.BadParameter(
            f"{text!r} is not METRIC=VALUE with one of {', '.join(_GATED)} and a value from 0 to 1",
            param_hint="--fail-under",
        )
    return name or _GATED[0], least


def _check(gates: list[tuple[str, float]], system: dict[str, Any]) -> None:
    """Say which gates failed, and exit so."""
    failed = [(name, least) for name, least in gates if (system[name]["value"] or 0.0) < least]
    for name, least in failed:
        stderr().print(f"Gate failed: {name} is {_value(system[name])}, below {least:g}.")
    if failed:
        raise typer.Exit(ExitCode.GATE)


def _rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures of the system and the baselines, as cells."""
    from llmtagger.evaluation.baselines import NAMES

    best = results["best_baseline"]["name"]
    return [
        (
            name + " (best baseline)" * (name == best),
            _interval(figures["micro_f1"]),
            *(_value(figures[f]) for f in ("micro_precision", "micro_recall", "macro_f1")),
            str(figures["products"]),
        )
        for name in ("system", *NAMES)
        if (figures := results[name])
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = (header, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _check_files(inputs: Sequence[Path], folder: Path) -> None:
    from llmtagger.catalog.preflight import Output, check_files

    files = [Output(folder / name, f"the file {name}") for name in _FILES]
    check_files(inputs, [Output(folder, "the folder", folder=True), *files])


def _show(results: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    run = results["run"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for at, name in enumerate(_FIGURES):
        table.add_column(name, justify="right" if at else "left")
    for row in _rows(results):
        table.add_row(*row, style="bold" if row[0] == "system" else "")
    console = stderr()
    console.print(marked("\n[bold]{dataset}[/], {regime}, {labelled} labelled\n", **run))
    console.print(table)
    best = results["best_baseline"]
    console.print(f"\nSystem minus {best['name']}: {points(best['difference'])}")
    if model := results["model"]:
        console.print(
            f"The model adds {points(model['added'])} on {model['products']} products; "
            f"the run asks about {model['share_asked']:.0%} of all test products."
        )
    console.print(f"Took {results['seconds']['total']:.0f} s. Report: {output / 'report.html'}")


def _compared(found: dict[str, Any], name: str) -> tuple[str, ...]:
    figure = found[name]
    values = (f"{figure[side]['value']:.3f}" for side in ("a", "b"))
    return (name, *values, points(figure["difference"]), figure["verdict"])


def _value(figure: dict[str, Any]) -> str:
    """A figure; a dash where there is none, as the precision of nothing."""
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"


def _interval(figure: dict[str, Any]) -> str:
    return f"{_value(figure)} {_ends(figure, '.3f', 1)}"


def points(difference: dict[str, Any]) -> str:
    """A difference in points, with its interval; a dash where there are too few products for one.

    >>> points({"value": 0.012, "low": None, "high": None})
    '+1.2 points [–]'
    """
    return f"{100 * difference['value']:+.1f} points {_ends(difference, '+.1f', 100)}"


def _ends(figure: dict[str, Any], form: str, scale: int) -> str:
    low, high = figure["low"], figure["high"]
    return "[–]" if low is None else f"[{scale * low:{form}}, {scale * high:{form}}]"


@app.command("compare")
def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR_A", help="The results folder of one run.")],
    b: Annotated[Path, typer.Argument(metavar="DIR_B", help="The results folder of another run.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write an HTML report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Tell whether run B is better than run A on the products they share.

    Example: `llmtagger eval compare eval/results/a eval/results/b -o compared.html`
    """
    from llmtagger.catalog.preflight import Output, check_files
    from llmtagger.evaluation.comparison import compare as compared
    from llmtagger.evaluation.report import write_comparison
    from llmtagger.evaluation.verdicts import in_english, sentences

    if output is not None:
        inputs = [folder / name for folder in (a, b) for name in _FILES]
        check_files(inputs, [Output(output, "the report", (".html", ".htm"))])
    found = compared(a, b)
    if output is not None:
        write_comparison(found, output)
    if as_json:
        write_json(found, indent=1)
        return
    if as_markdown:
        write(_markdown(_COMPARED, [_compared(found, name) for name in _GATED[:3]]))
        return
    console = stderr()
    for warning in found["warnings"]:
        console.print(warning, style="yellow")
    names = (found["a"]["name"], found["b"]["name"])
    console.print(f"{found['products']} products in {found['groups']} groups.")
    console.print(in_english(sentences(found, *names)), style="bold")
    if found["changed"]:
        _show_changes(found)
    if output is not None:
        console.print(f"Report: {output}")


def _show_changes(found: dict[str, Any]) -> None:
    from llmtagger.evaluation.verdicts import UNCLEAR

    console = stderr()
    console.print("B minus A:")
    for name in _GATED[:3]:
        figure = found[name]
        console.print(
            f"  {name:16} {figure['a']['value']:.3f} → {figure['b']['value']:.3f}  "
            f"{points(figure['difference'])}  {figure['verdict']}"
        )
    sure = [row for row in found["per_tag"] if row["verdict"] != UNCLEAR]
    tested = len(found["per_tag"])
    console.print(f"  tags with a significant change: {len(sure)} of {tested} tested")
    for row in sure[:10]:
        console.print(f"    {row['tag']}: {row['a']:.2f} → {row['b']:.2f}")
    console.print(
        f"  products better in B: {len(found['won'])}, worse: {len(found['lost'])} (at most 30)"
    )
