"""`llmtagger tag`: tag a file of products."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmtagger.cli.console import complain, marked, stderr, stdout, write, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import ConfigFile, Endpoints, IndexFolder, Mapped, ModelName, PromptName

AskMode = Literal["auto", "always", "never"]  # as in `scorers`, which is not loaded for --help

if TYPE_CHECKING:
    from llmtagger.config import Settings
    from llmtagger.tagging import Change, DryRun, RunSummary, TagJob

_TOKENS_A_SECOND = 500  # the embedded model on two cores without AVX-512; for estimates only
_SHOWN_PROMPTS = 2


def tag(
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="Products; - is stdin.")],
    index: IndexFolder,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="Output file; its suffix sets the format. - is stdout."
        ),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Add the tags to INPUT; keeps INPUT.bak.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what would change; write no file.")
    ] = False,
    details: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Also write scores and evidence.")
    ] = None,
    review_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write doubtful tags to this column.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Only add tags to a JSONL file, no evidence.")
    ] = False,
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="NAME|none", help="Use this adapter.  [default: the live one]"),
    ] = None,
    prompt: PromptName = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep tags from this score on.")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=0.999,
            help="Keep only tags expected to be right this often (0.9 = 9 in 10). "
            "Run `calibrate` first.",
        ),
    ] = None,
    max_tags: Annotated[
        int | None, typer.Option(min=1, help="Most tags per product, existing ones included.")
    ] = None,
    llm: Annotated[
        AskMode,
        typer.Option(help="Ask the model always, never, or (auto) where it is likely to matter."),
    ] = "auto",
    redact: Annotated[
        bool,
        typer.Option("--redact", help="Mask e-mails, phone, ID and card numbers in prompts."),
    ] = False,
    only_untagged: Annotated[
        bool, typer.Option("--only-untagged", help="Leave products that have tags as they are.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N products.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show prompts and estimate the cost; ask no model.")
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Show the first N results.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    mapped: Mapped = None,
    encoding: Annotated[str | None, typer.Option(help="The input's encoding.")] = None,
    on_duplicate: Annotated[
        str | None, typer.Option(help="error, first or last: which of two equal ids counts.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Tag the products of INPUT. The same command resumes where it stopped.

    An output in the format of INPUT is INPUT with new tags added, ready to import: a Shopify export
    in and .csv out, for example. Example: `llmtagger tag new.csv -i indexes/shop -o tagged.csv`
    """
    from llmtagger.cli.options import catalog_options
    from llmtagger.config import load_settings
    from llmtagger.tagging import STANDARD, TagJob

    if in_place and output is not None:
        raise typer.BadParameter("--in-place and -o name two outputs; give one")
    if output is None and not (in_place or preview or dry_run):
        raise typer.BadParameter("no output: give -o FILE, --in-place or --preview")
    settings = load_settings(config)
    job = TagJob(
        input=input_,
        index=index,
        output=input_ if in_place else output or STANDARD,
        model=model,
        endpoints=tuple(endpoint or ()),
        adapter=adapter,
        prompt=prompt,
        threshold=threshold,
        min_precision=min_precision,
        max_tags=max_tags,
        llm=llm,
        limit=limit,
        only_untagged=only_untagged,
        fresh=fresh,
        details=details,
        review_column=review_column,
        plain=plain,
        in_place=in_place,
        settings=_redacting(settings) if redact else settings,
        options=catalog_options(settings, encoding, on_duplicate, mapped),
    )
    if dry_run:
        _dry_run(job, as_json)
    elif preview:
        _preview(job, as_json)
    else:
        _run(job, show, as_json)


def _redacting(settings: Settings) -> Settings:
    prompting = settings.prompt.model_copy(update={"redact": True})
    return settings.model_copy(update={"prompt": prompting})


def _run(job: TagJob, show: int, as_json: bool) -> None:
    from dataclasses import asdict, replace

    from llmtagger.cli.changes import show_statistics
    from llmtagger.cli.progress import ProgressReporter
    from llmtagger.cli.results import show_results, show_summary
    from llmtagger.redaction import redacted
    from llmtagger.tagging import run

    with ProgressReporter(stderr()) as reporter:
        summary = run(job, reporter)
    if show and not as_json and job.output != "-":
        shown = reporter.examples(show)
        if job.settings.prompt.redact:
            shown = [replace(each, product=redacted(each.product)) for each in shown]
        show_results(stderr(), shown, summary.cut)
    if as_json:
        text = json.dumps(asdict(summary), ensure_ascii=False)
        (complain if job.output == "-" else write)(text + "\n")
    else:
        show_summary(stderr(), summary)
        show_statistics(stderr(), summary)
    _exit(summary)


def _preview(job: TagJob, as_json: bool) -> None:
    from dataclasses import asdict

    from llmtagger.cli.changes import change_record, show_change, show_statistics
    from llmtagger.cli.progress import ProgressReporter
    from llmtagger.tagging import preview

    changed = 0

    with ProgressReporter(stderr()) as reporter:

        def show(change: Change) -> None:
            nonlocal changed
            changed += bool(change.added)
            reporter.finish()
            write_json(change_record(change)) if as_json else show_change(stdout(), change)

        summary = preview(job, reporter, show)
    if as_json:
        write_json({"summary": asdict(summary)})
    else:
        stderr().print(
            marked(
                "\n[bold]{:,} of {:,} products[/] would get new tags. Nothing was written.",
                changed,
                summary.products,
            )
        )
        show_statistics(stderr(), summary)
    _exit(summary)


def _exit(summary: RunSummary) -> None:
    if not summary.promised:
        raise typer.Exit(ExitCode.UNPROMISED)
    if summary.rejected_rows:
        raise typer.Exit(ExitCode.REJECTED)


def _dry_run(job: TagJob, as_json: bool) -> None:
    from llmtagger.tagging import dry_run

    plan = dry_run(job)
    if not as_json:
        _show_plan(plan)
        return
    for (product, prompt), tokens in zip(plan.prompts, plan.tokens, strict=True):
        write_json({"id": product.id, "tokens": tokens, "messages": list(prompt.messages)})
    write_json({"estimate": _estimate(plan)})


def _estimate(plan: DryRun) -> dict[str, object]:
    return {
        "products": plan.products,
        "share_asked": round(plan.asked, 4),
        "prompt_tokens": plan.prompt_tokens,
        "most_answer_tokens": plan.answer_tokens,
        "seconds": round(plan.prompt_tokens / _TOKENS_A_SECOND, 1),
        "cost": list(plan.costs) if plan.costs else None,
    }


def _show_plan(plan: DryRun) -> None:
    from llmtagger.cli.progress import brief, duration

    for product, prompt in plan.prompts[:_SHOWN_PROMPTS]:
        write(f"\n=== {product.id} · {prompt.template}\n")
        for role, text in prompt.messages:
            write(f"--- {role}\n{text}\n")
    console, count = stderr(), len(plan.tokens)
    if not count:
        console.print("Every product has tags already; nothing would be asked.")
        return
    how = "counted by the model's tokenizer" if plan.counted else "estimated from characters"
    console.print(
        f"\n{count:,} prompts: {sum(plan.tokens):,} tokens ({how}), "
        f"median {sorted(plan.tokens)[count // 2]:,}, longest {max(plan.tokens):,}."
    )
    console.print(
        f"Whole file: {plan.products:,} products, {plan.asked:.0%} of them asked about: "
        f"about {brief(plan.prompt_tokens)} tokens of prompts, at most "
        f"{brief(plan.answer_tokens)} of answers."
    )
    time = duration(plan.prompt_tokens / _TOKENS_A_SECOND)
    console.print(f"About {time} for the embedded model on two CPU cores ({_TOKENS_A_SECOND}/s).")
    if plan.costs:
        low, high = plan.costs
        console.print(f"Cost: {low:,.2f} to {high:,.2f}, at {plan.price:,.2f} a million tokens.")
    else:
        console.print("For the cost, set engine.price_per_million_tokens.", style="dim")
