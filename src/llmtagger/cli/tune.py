"""`llmtagger tune`: turn a labelled catalogue into an adapter for the model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.cli.console import marked, stderr
from llmtagger.cli.options import ConfigFile, IndexFolder, PromptName

if TYPE_CHECKING:
    from llmtagger.adapters import Adapter
    from llmtagger.tuning.examples import Examples
    from llmtagger.tuning.training import Estimate, Report

_MIB = 1 << 20


def tune(
    index: IndexFolder,
    base: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="auto, a folder, or a Hugging Face id.")
    ] = "auto",
    prompt: PromptName = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Learn from at most N products, drawn at random.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often each example is seen.  [default: 2]")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the adapter live if it is better.")
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Continue from the live adapter with new products.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count examples and estimate the effort; tune nothing."),
    ] = False,
    events: Annotated[
        Path | None, typer.Option(help="Also write the losses to this folder, for TensorBoard.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Fine-tune the model on the labelled products of an index.

    Also measures whether the tuned model is better. After an interruption, run the same command to
    resume. Example: `llmtagger tune -i indexes/shop --dry-run`
    """
    from llmtagger import adapters
    from llmtagger.backends.folders import cache_dir
    from llmtagger.catalog.preflight import Output, check_files
    from llmtagger.cli.progress import StageReporter, TrainingReporter
    from llmtagger.config import load_settings
    from llmtagger.recipe import Recipe
    from llmtagger.tuning import job as jobs
    from llmtagger.tuning.events import EventLog

    if events is not None:
        check_files([], [Output(events, "the folder of --events", folder=True)])
    console = stderr()
    job = jobs.TuneJob(
        index=index,
        base=base,
        prompt=prompt,
        limit=limit,
        parent=adapters.live(index) if go_on else None,
        recipe=Recipe(epochs=epochs) if epochs else Recipe(),
        settings=load_settings(config),
    )
    with ExitStack() as stack:
        watchers: list[Report] = []
        if events is not None:
            watchers.append(stack.enter_context(EventLog(events)).report)
        with StageReporter(console) as reporter:
            prepared = jobs.prepare(job, reporter.stage)
            reporter.stage("loading the model", 0, 0)
            trainer = jobs.trainer(prepared)
            reporter.stage("making one step", 0, 0)
            estimate = trainer.estimate(prepared.examples.train)
        _show_estimate(prepared.examples, estimate)
        if dry_run:
            return
        watchers.append(stack.enter_context(TrainingReporter(console)).report)
        adapter = jobs.train(prepared, trainer, lambda at: [watch(at) for watch in watchers])
    del trainer  # its memory is needed by the server
    console.print(
        marked("Wrote the adapter [bold]{}[/] in {:.0f} s.", adapter.name, adapter.seconds)
    )
    with StageReporter(console) as reporter:
        cache = cache_dir() / "evaluation"
        adapter = jobs.judge(index, adapter, job.settings, cache, reporter.stage, reporter.waiting)
    if promote and adapter.verdict and adapter.verdict.better:
        adapters.promote(index, adapter.name)
    show_verdict(index, adapter)


def _show_estimate(examples: Examples, estimate: Estimate) -> None:
    console = stderr()
    counts = ", ".join(f"{count:,} {name}" for name, count in examples.counts().items())
    console.print(f"Examples: {counts}.")
    if estimate.left_out:
        console.print(
            marked(
                "[yellow]Note:[/] {} examples are too long and were left out.", estimate.left_out
            )
        )
    console.print(
        f"{estimate.tokens:,} tokens, {estimate.learnt:,} of them to be learnt: about "
        f"{estimate.seconds / 60:.0f} minutes and {estimate.memory / _MIB:,.0f} MiB here."
    )


def show_verdict(index: Path, adapter: Adapter) -> None:
    """Say whether an adapter is worth using, and how."""
    from llmtagger import adapters
    from llmtagger.tuning.page import PAGE

    console = stderr()
    verdict = adapter.verdict
    assert verdict is not None
    console.print(
        f"On {verdict.products} products held out: micro-F1 {verdict.f1:.3f} with the adapter, "
        f"{verdict.points} points compared with the same pipeline without the model."
    )
    console.print(f"Losses and data card: {adapters.folder_of(index, adapter.name) / PAGE}")
    if adapters.promotions(index).live == adapter.name:
        console.print(f"{adapter.name} is live: `llmtagger tag` uses it.")
    elif verdict.better:
        console.print(f"To use it: llmtagger adapter promote {adapter.name} -i {index}")
    else:
        console.print("No statistically significant gain, so the adapter cannot be promoted.")
