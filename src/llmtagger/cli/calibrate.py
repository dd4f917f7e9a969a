"""`llmtagger calibrate`: check an index against its labelled products and set the cut-off."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.cli.console import stderr
from llmtagger.cli.options import ConfigFile, Endpoints, IndexFolder, PromptName

if TYPE_CHECKING:
    from llmtagger.calibration import Calibration

_ASKED = 150  # products; enough to see a change of some points of F1


def calibrate(
    index: IndexFolder,
    model: Annotated[
        str,
        typer.Option(
            help="none, auto, a folder, or a Hugging Face id; a name with --endpoint. Unless "
            "none, also measures what its answers add."
        ),
    ] = "none",
    endpoint: Endpoints = None,
    ask: Annotated[
        int, typer.Option(min=20, help="How many labelled products to ask the model about.")
    ] = _ASKED,
    prompt: PromptName = None,
    limit: Annotated[
        int | None, typer.Option(min=20, help="Use only N labelled products, drawn at random.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Check against your own labelled products and set the cut-off. Run once after building.

    Writes scorer.json into the index folder. With --model it also measures what the model's answers
    add; they are cached, so recalibrating asks only about new products. Example:
    `llmtagger calibrate -i indexes/shop`
    """
    from llmtagger.backends.folders import cache_dir
    from llmtagger.backends.index_folder import open_index
    from llmtagger.cli.progress import StageReporter
    from llmtagger.config import load_settings
    from llmtagger.evaluation.answers import kept_answers
    from llmtagger.evaluation.learning import calibrate as learn
    from llmtagger.evaluation.remembering import known_index
    from llmtagger.templates import find_template, live_template

    settings = load_settings(config)
    with ExitStack() as stack:
        reporter = stack.enter_context(StageReporter(stderr()))
        reporter.stage("opening the index", 0, 0)
        opened = known_index(open_index(index))
        template = find_template(prompt or live_template(opened.vocabulary.kind, settings.live))
        generator = None
        if model != "none" or endpoint:
            generator = stack.enter_context(
                kept_answers(
                    "auto" if model == "none" else model,
                    endpoint or [],
                    settings.engine,
                    cache_dir() / "evaluation",
                    reporter.waiting,
                )
            )
        learnt = learn(
            opened,
            template,
            settings,
            generator,
            ask=ask,
            limit=limit,
            progress=reporter.stage,
        )
        path = learnt.calibration.write(index)
    _show(learnt.calibration, path)


def _show(calibration: Calibration, path: Path) -> None:
    console = stderr()
    fitted = calibration.unasked
    console.print(
        f"Fitted to {calibration.products} labelled products: cross-validated micro-F1 "
        f"{fitted.f1:.3f} at the threshold {fitted.threshold:.2f}, calibration error "
        f"{fitted.calibration_error:.3f}."
    )
    for precision in (0.9, 0.95):
        cut = fitted.cut_for(precision)
        kept = next((p for p in fitted.promises if p.score == cut), None)
        if kept is None:
            console.print(
                f"  --min-precision {precision}: cannot be promised yet: all tags go to review"
            )
        else:
            console.print(
                f"  --min-precision {precision}: keeps {kept.kept / calibration.products:.1f} tags "
                f"a product, {kept.right / kept.kept:.1%} of them right"
            )
    if rule := calibration.ask:
        value, low, high = rule.added
        console.print(
            f"The model's answers add {100 * value:+.1f} points of F1 [{100 * low:+.1f}, "
            f"{100 * high:+.1f}] on {rule.products} products; `--llm auto` asks about "
            f"{rule.share:.0%}."
        )
    console.print(str(path), style="dim")
