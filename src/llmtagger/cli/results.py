"""Shows tagged products and a run's summary to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from llmtagger.cli.changes import REASONS
from llmtagger.cli.console import marked
from llmtagger.output import explain
from llmtagger.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from llmtagger.datatypes import Reason, ScoredTag, TaggedProduct
    from llmtagger.output import Cut
    from llmtagger.tagging import RunSummary

_SHOWN_TAGS = 8
LEGEND = "\nEach row is a tag, its score (how likely it is right) and the evidence for it."


def show_results(console: Console, results: Iterable[TaggedProduct], cut: Cut) -> None:
    """A small table a product: tags, scores, and the evidence in words; a legend at the end."""
    shown = 0
    reasons: dict[Reason, None] = {}
    for tagged in results:
        product = tagged.product
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
        table.add_column(min_width=22, style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        placed = cut.place(tagged)
        for item in placed.kept[:_SHOWN_TAGS]:
            _row(table, item, product.lang, "green")
        for item, why in placed.review[: max(2, _SHOWN_TAGS - len(placed.kept))]:
            _row(table, item, product.lang, "yellow")
            reasons[why] = None
        console.print(marked("\n[cyan]{}[/]  {}", product.id, product.title[:90]))
        if tagged.problem:
            console.print(marked("  [red]{}[/]: {}", tagged.problem.code, tagged.problem.message))
        console.print(table if table.row_count else marked("  [dim]no tag is sure enough[/]"))
        shown += table.row_count
    if shown:
        console.print(LEGEND, style="dim")
    if reasons:
        said = ", ".join(REASONS[each] for each in reasons)
        console.print(f"? marks a tag for review ({said}).", style="dim")


def _row(table: Table, item: ScoredTag, lang: str, colour: str) -> None:
    mark = "?" if colour == "yellow" else " "
    table.add_row(
        f"{mark} {one_line(item.tag.label(lang[:2]))}",
        marked(f"[{colour}]{{:.2f}}[/]", item.score),
        one_line(explain(item.evidence)),
    )


def show_summary(console: Console, summary: RunSummary) -> None:
    """What the run did, in a few lines."""
    done = summary.products - summary.passed - summary.resumed
    rate = f", {done / summary.seconds:.2f} products/s" if summary.seconds and done else ""
    tokens = summary.prompt_tokens + summary.completion_tokens
    cache = (
        f", {summary.cache_hit_rate:.0%} of prompt tokens from the prefix cache"
        if summary.cache_hit_rate is not None
        else ""
    )
    new = f" ({summary.new} of them new)" if summary.new else ""
    console.print(
        marked(
            "\n[bold]{0.products} products[/]: {0.kept} tags kept, {0.review} for review{1}, "
            "{0.problems} problems, {0.rejected_rows} rejected rows.",
            summary,
            new,
        )
    )
    for warning in summary.warnings:
        console.print(marked("[yellow]Note:[/] {}", warning))
    if summary.decision:
        console.print(summary.decision)
    if done and summary.asked < done:
        console.print(f"The model was asked about {summary.asked} of {done}.", style="dim")
    if done:
        console.print(f"{summary.seconds:.1f} s{rate}, {tokens:,} tokens{cache}.", style="dim")
    console.print(f"{summary.run['model']} · {summary.run['prompt']}", style="dim")
    if summary.rejects:
        console.print(f"Rejected rows: {summary.rejects}")
    if summary.cost is not None:
        console.print(f"Cost: {summary.cost:,.2f}.", style="dim")
    if summary.output != "-":
        console.print(marked("Written: [bold]{}[/]", summary.output))
    if summary.backup:
        console.print(f"Backup of the original: {summary.backup}")
