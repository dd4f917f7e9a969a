"""Shows what a run would change, product by product, and what it changed in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from llmtagger.datatypes import Reason
from llmtagger.output import explain
from llmtagger.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

    from llmtagger.datatypes import ScoredTag
    from llmtagger.output import Cut
    from llmtagger.tagging import Change, RunSummary

_DOUBTFUL = 3  # tags for review that a product's change shows
_FREQUENT = 8
_NAME = 36  # cells of a tag's name
REASONS = {
    Reason.BELOW_THRESHOLD: "below the threshold",
    Reason.TOO_MANY: "over the limit",
    Reason.NEW: "not in the vocabulary",
    Reason.NO_ANSWER: "no usable answer",
}


def show_change(console: Console, change: Change) -> None:
    """A product and the tags that it would get, as the added lines of a diff; none: nothing."""
    if not change.added and not change.review and change.problem is None:
        return
    product, lang = change.product, change.product.lang[:2]
    title = Text.assemble((one_line(product.id), "cyan"), f"  {one_line(product.title)}")
    title.truncate(console.width, overflow="ellipsis")
    console.print(title)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    shown = (*change.added, *(item for item, _ in change.review[:_DOUBTFUL]))
    widest = max((cell_len(f"  + {item.tag.label(lang)}") for item in shown), default=0)
    wide = min(widest, _NAME)  # long evidence is cut, not the name
    table.add_column(no_wrap=True, overflow="ellipsis", min_width=wide, max_width=wide)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    for item in change.added:
        _row(table, "+", "green", item, lang, explain(item.evidence))
    for item, reason in change.review[:_DOUBTFUL]:
        _row(table, "?", "yellow", item, lang, f"for review: {REASONS[reason]}")
    if table.row_count:
        console.print(table)
    if len(change.review) > _DOUBTFUL:
        console.print(Text(f"  … {len(change.review) - _DOUBTFUL} more for review", "dim"))
    if (problem := change.problem) is not None:
        console.print(Text.assemble("  ", (problem.code, "red"), f": {one_line(problem.message)}"))


def _row(table: Table, mark: str, colour: str, item: ScoredTag, lang: str, said: str) -> None:
    name = Text(f"  {mark} {one_line(item.tag.label(lang))}", colour)
    table.add_row(name, f"{item.score:.2f}", Text(one_line(said)))


def change_record(change: Change) -> dict[str, Any]:
    """The same for a program."""
    lang = change.product.lang[:2]
    return {
        "id": change.product.id,
        "title": change.product.title,
        "add": [_scored(item, lang) for item in change.added],
        "review": [_scored(item, lang) | {"reason": why.value} for item, why in change.review],
        "problem": change.problem.code if change.problem else None,
    }


def _scored(item: ScoredTag, lang: str) -> dict[str, Any]:
    return {"tag": item.tag.label(lang), "score": round(item.score, 4)}


def show_statistics(console: Console, summary: RunSummary) -> None:
    """Which tags were kept, which products have none, what is for review and why."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, said in _statistics(summary):
        table.add_row(f"  {name}", Text(one_line(said)))
    if table.row_count:
        console.print(table, soft_wrap=False)


def _statistics(summary: RunSummary) -> Iterable[tuple[str, str]]:
    if summary.passed:
        yield "had tags", f"{summary.passed:,} of {summary.products:,} products, left as they are"
    if summary.untagged:
        yield "no tag", f"{summary.untagged:,} of {summary.products:,} products"
    if summary.tags:
        yield "most frequent", _counted(summary.tags)
    if summary.reasons:
        yield "for review", ", ".join(_told(summary.reasons, summary.cut))
    if summary.blocked:
        yield "blocked", f"{summary.blocked:,} tags on the blocklist"
    if summary.rejected_reasons:
        yield "rejected rows", _counted(summary.rejected_reasons)


def _told(reasons: Mapping[str, int], cut: Cut) -> Iterable[str]:
    for name, count in reasons.items():
        limit = f" of {cut.max_tags} tags" if name == Reason.TOO_MANY else ""
        yield f"{count:,} {REASONS[Reason(name)]}{limit}"


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_FREQUENT]]
    return ", ".join(shown) + (", …" if len(counts) > _FREQUENT else "")
