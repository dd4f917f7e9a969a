"""`llmtagger label`: where a person's labels are worth most."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from llmtagger.cli.console import marked, stderr, write_json
from llmtagger.cli.options import ConfigFile, IndexFolder, Mapped

app = typer.Typer(
    help="Find products to label next, and labels that may be wrong.", no_args_is_help=True
)

_Count = Annotated[int, typer.Option("-n", min=1, help="How many to show.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@app.command()
def suggest(
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="Products; - is stdin.")],
    index: IndexFolder,
    count: _Count = 50,
    as_json: _Json = False,
    mapped: Mapped = None,
    config: ConfigFile = None,
) -> None:
    """Rank unlabelled products by how much labelling them would help. Asks no model.

    Example: `llmtagger label suggest new.csv -i indexes/shop -n 20`
    """
    from rich.table import Table

    from llmtagger.backends.index_folder import open_index
    from llmtagger.calibration import read_calibration
    from llmtagger.catalog import RejectedRow, read_catalog
    from llmtagger.cli.options import catalog_options
    from llmtagger.config import load_settings
    from llmtagger.templates import find_template, live_template
    from llmtagger.tuning import labelling

    settings = load_settings(config)
    opened = open_index(index)
    options = catalog_options(settings, mapped=mapped)
    rejected: list[RejectedRow] = []
    rows = read_catalog(input_, options, rejected=rejected.append)
    products = labelling.unlabelled(rows, opened)
    if rejected:
        stderr().print(
            marked(
                "[yellow]Note:[/] Rows skipped because they are not products: {}.", len(rejected)
            )
        )
    template = find_template(live_template(opened.vocabulary.kind, settings.live))
    calibration = read_calibration(index)
    found = labelling.suggest(opened, products, template, settings, calibration, count)
    if found and labelling.has_few(opened):
        stderr().print(
            f"Drawn at random: with fewer than {labelling.FEW} labelled products, "
            "typical products teach more than doubtful ones."
        )
    if as_json:
        for each in found:
            record = {"id": each.product.id, "title": each.product.title, "doubt": each.doubt}
            write_json(record | {"tags": [{"tag": tag, "score": s} for tag, s in each.tags]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("id", "left"), ("doubt", "right"), ("closest calls", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for each in found:
        calls = ", ".join(f"{tag} {score:.2f}" for tag, score in each.tags[:3])
        table.add_row(
            marked("[cyan]{}[/]", each.product.id),
            f"{each.doubt:.1f}",
            marked("{}\n[dim]{}[/]", each.product.title[:60], calls),
        )
    stderr().print(table if found else "Every product in this file is already labelled.")


@app.command()
def audit(
    index: IndexFolder, count: _Count = 50, as_json: _Json = False, config: ConfigFile = None
) -> None:
    """List labels that the rest of the catalogue contradicts.

    Example: `llmtagger label audit -i indexes/shop -n 20`
    """
    from rich.table import Table

    from llmtagger.backends.index_folder import open_index
    from llmtagger.cli.progress import StageReporter
    from llmtagger.config import load_settings
    from llmtagger.evaluation.remembering import known_index
    from llmtagger.templates import find_template, live_template
    from llmtagger.tuning import labelling

    settings = load_settings(config)
    opened = known_index(open_index(index))
    template = find_template(live_template(opened.vocabulary.kind, settings.live))
    with StageReporter(stderr()) as reporter:
        found = labelling.audit(opened, template, settings, reporter.stage)
    if as_json:
        for each in found[:count]:
            record = {"id": each.product.id, "title": each.product.title}
            write_json(record | {k: v for k, v in asdict(each).items() if k != "product"})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "label", "", "title"):
        table.add_column(name)
    for each in found[:count]:
        says = "present, but" if each.fault == "unlikely" else "missing, but"
        table.add_row(
            marked("[cyan]{}[/]", each.product.id),
            marked("[bold]{}[/]", each.tag),
            f"{says} {likely(each.probability)} likely",
            marked("[dim]{}[/]", each.product.title[:50]),
        )
    stderr().print(table if found else "No label stands out.")
    if len(found) > count:
        stderr().print(f"{len(found) - count} more: -n {len(found)}", style="dim")


def likely(probability: float) -> str:
    """A probability in whole percent; what is rounded to none or all is said to be near it.

    >>> likely(0.004), likely(0.42), likely(0.999)
    ('under 1%', '42%', 'over 99%')
    """
    if probability < 0.01:
        return "under 1%"
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"
