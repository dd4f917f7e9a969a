"""`llmtagger tag`: tag a file of products."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmtagger.cli.console import complain, stderr, write, write_json
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import ConfigFile, Endpoints, IndexFolder, ModelName

AskMode = Literal["auto", "always", "never"]  # as in `scorers`, which is not loaded for --help

if TYPE_CHECKING:
    from llmtagger.tagging import DryRun, TagJob

_TOKENS_A_SECOND = 500  # the embedded model on two cores without AVX-512; for estimates only
_SHOWN_PROMPTS = 2


def tag(
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="Products; - is stdin.")],
    index: IndexFolder,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write; - is stdout.")],
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME|none", help="A tuned one.  [default: the live one]")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A prompt's name or a .jinja file.  [default: by the index]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep tags from this score on.")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=0.999,
            help="Keep what is that precise by estimate, the rest is for review; see `calibrate`.",
        ),
    ] = None,
    llm: Annotated[
        AskMode,
        typer.Option(help="Ask the model always, never, or (auto) where it is likely to matter."),
    ] = "auto",
    redact: Annotated[
        bool,
        typer.Option("--redact", help="Mask e-mails, phone, ID and card numbers in prompts."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N products.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show prompts and token counts; ask no server.")
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Show the first N results.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    encoding: Annotated[str | None, typer.Option(help="The input's encoding.")] = None,
    on_duplicate: Annotated[
        str | None, typer.Option(help="error, first or last: which of two equal ids counts.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Tag the products of INPUT. The same command resumes where it stopped.

    Example: `llmtagger tag new.csv -i indexes/shop -o tagged.jsonl`
    """
    from llmtagger.cli.options import catalog_options
    from llmtagger.config import load_settings
    from llmtagger.tagging import TagJob

    settings = load_settings(config)
    if redact:
        prompting = settings.prompt.model_copy(update={"redact": True})
        settings = settings.model_copy(update={"prompt": prompting})
    job = TagJob(
        input=input_,
        index=index,
        output=output,
        model=model,
        endpoints=tuple(endpoint or ()),
        adapter=adapter,
        prompt=prompt,
        threshold=threshold,
        min_precision=min_precision,
        llm=llm,
        limit=limit,
        fresh=fresh,
        settings=settings,
        options=catalog_options(settings, encoding, on_duplicate),
    )
    if dry_run:
        _dry_run(job, as_json)
    else:
        _run(job, show, as_json)


def _run(job: TagJob, show: int, as_json: bool) -> None:
    from dataclasses import asdict, replace

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
    if not summary.promised:
        raise typer.Exit(ExitCode.UNPROMISED)
    if summary.rejected_rows:
        raise typer.Exit(ExitCode.REJECTED)


def _dry_run(job: TagJob, as_json: bool) -> None:
    from llmtagger.tagging import dry_run

    plan = dry_run(job)
    if as_json:
        for (product, prompt), tokens in zip(plan.prompts, plan.tokens, strict=True):
            record = {"id": product.id, "tokens": tokens, "messages": list(prompt.messages)}
            write_json(record)
    else:
        _show_plan(plan)


def _show_plan(plan: DryRun) -> None:
    for product, prompt in plan.prompts[:_SHOWN_PROMPTS]:
        write(f"\n=== {product.id} · {prompt.template}\n")
        for role, text in prompt.messages:
            write(f"--- {role}\n{text}\n")
    total, count = sum(plan.tokens), len(plan.tokens)
    how = "counted by the model's tokenizer" if plan.counted else "estimated from characters"
    stderr().print(
        f"{count} prompts, {total:,} tokens ({how}; median {sorted(plan.tokens)[count // 2]}, "
        f"longest {max(plan.tokens)}).\nAt {_TOKENS_A_SECOND} tokens a second, as the embedded "
        f"model does on two CPU cores: about {total / _TOKENS_A_SECOND / 60:.1f} minutes."
    )
