"""Shows tagged products and a run's summary to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from llmtagger.output import explain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from llmtagger.datatypes import ScoredTag, TaggedProduct
    from llmtagger.output import Cut
    from llmtagger.tagging import RunSummary

_SHOWN_TAGS = 8


def show_results(console: Console, results: Iterable[TaggedProduct], cut: Cut) -> None:
    """A small table a product: tags, scores, and the evidence in words."""
    for tagged in results:
        product = tagged.product
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
        table.add_column(min_width=22, style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        threshold = cut.of(tagged)
        kept = tagged.scored.at(threshold)
        for item in kept[:_SHOWN_TAGS]:
            _row(table, item, product.lang, "green")
        for item in tagged.scored.below(threshold, cut.review)[: max(2, _SHOWN_TAGS - len(kept))]:
            _row(table, item, product.lang, "yellow")
        console.print(f"\n[cyan]{escape(product.id)}[/]  {escape(product.title[:90])}")
        if tagged.problem:
            console.print(f"  [red]{tagged.problem.code}[/]: {escape(tagged.problem.message)}")
        console.print(table if table.row_count else "  [dim]no tag is sure enough[/]")


def _row(table: Table, item: ScoredTag, lang: str, colour: str) -> None:
    mark = "?" if colour == "yellow" else " "
    table.add_row(
        f"{mark} {escape(item.tag.label(lang[:2]))}",
        f"[{colour}]{item.score:.2f}[/]",
        escape(explain(item.evidence)),
    )


def show_summary(console: Console, summary: RunSummary) -> None:
    """What the run did, in a few lines."""
    done = summary.products - summary.resumed
    rate = f", {done / summary.seconds:.2f} products/s" if summary.seconds and done else ""
    tokens = summary.prompt_tokens + summary.completion_tokens
    cache = (
        f", {summary.cache_hit_rate:.0%} of prompt tokens from the prefix cache"
        if summary.cache_hit_rate is not None
        else ""
    )
    console.print(
        f"\n[bold]{summary.products} products[/]: {summary.kept} tags kept, "
        f"{summary.review} for review"
        + (f" ({summary.new} of them new)" if summary.new else "")
        + f", {summary.problems} problems, {summary.rejected_rows} rejected rows."
    )
    for warning in summary.warnings:
        console.print(f"[yellow]Note:[/] {escape(warning)}.")
    if done and summary.asked < done:
        console.print(f"[dim]The model was asked about {summary.asked} of {done}.[/]")
    if done:
        console.print(f"[dim]{summary.seconds:.1f} s{rate}, {tokens:,} tokens{cache}.[/]")
    console.print(f"[dim]{escape(summary.run['model'])} · {escape(summary.run['prompt'])}[/]")
    if summary.rejects:
        console.print(f"Rejected rows: {escape(summary.rejects)}")
    if summary.output != "-":
        console.print(f"Written: [bold]{escape(summary.output)}[/]")
