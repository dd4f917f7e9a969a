"""`llmtagger adapter`: the adapters of an index, and which of them is live."""

from __future__ import annotations

from typing import Annotated

import typer

from llmtagger.cli.console import marked, stderr, write, write_json
from llmtagger.cli.options import ConfigFile, IndexFolder

app = typer.Typer(help="Show, promote and revert tuned adapters.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[str, typer.Argument(help="An adapter's name.")]


@app.command("list")
def list_(index: IndexFolder, as_json: _Json = False) -> None:
    """List the adapters, oldest first; ● marks the live one."""
    from rich.table import Table

    from llmtagger import adapters

    found = adapters.list_adapters(index)
    live = adapters.promotions(index).live
    if as_json:
        brief = {"learnt", "held_out", "losses"}
        records = [
            {"live": each.name == live} | each.model_dump(mode="json", exclude=brief)
            for each in found
        ]
        write_json(records)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "adapter", "base", "prompt"):
        table.add_column(name)
    for name in ("examples", "micro-F1", "points added"):
        table.add_column(name, justify="right")
    for each in found:
        verdict = each.verdict
        table.add_row(
            "●" if each.name == live else "",
            marked("[bold]{}[/]", each.name),
            each.base,
            each.template.partition("@")[0],
            str(each.counts["train"]),
            f"{verdict.f1:.3f}" if verdict else "–",
            verdict.points if verdict else "not judged",
        )
    stderr().print(table if found else "No adapter yet: llmtagger tune -i " + str(index))


@app.command()
def show(name: _Name, index: IndexFolder) -> None:
    """Print an adapter's record as JSON: data, recipe, losses, verdict."""
    from llmtagger import adapters

    adapter = adapters.read_adapter(index, name)
    write(adapter.model_dump_json(indent=1, exclude={"learnt", "held_out"}) + "\n")


@app.command()
def judge(
    name: _Name,
    index: IndexFolder,
    config: ConfigFile = None,
) -> None:
    """Measure an adapter again. Do so after adding products or an interrupted tuning."""
    from llmtagger import adapters
    from llmtagger.backends.folders import cache_dir
    from llmtagger.cli.progress import StageReporter
    from llmtagger.cli.tune import show_verdict
    from llmtagger.config import load_settings
    from llmtagger.tuning.job import judge as judged

    adapter = adapters.read_adapter(index, name)
    cache = cache_dir() / "evaluation"
    with StageReporter(stderr()) as reporter:
        adapter = judged(
            index, adapter, load_settings(config), cache, reporter.stage, reporter.waiting
        )
    show_verdict(index, adapter)


@app.command()
def promote(name: _Name, index: IndexFolder) -> None:
    """Make an adapter live if it beats the pipeline without it."""
    from llmtagger import adapters

    adapters.promote(index, name)
    stderr().print(f"{name} is live: `llmtagger tag` uses it from now on.")


@app.command()
def revert(index: IndexFolder) -> None:
    """Go back to what was live before the last promotion."""
    from llmtagger import adapters

    stderr().print(f"Live now: {adapters.revert(index) or 'no adapter'}.")
