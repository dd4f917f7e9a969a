"""What tuning is worth: the pipeline with and without a tuned model, on products neither has seen.

    python benchmarks/tune.py SET... [--base FOLDER] [--prompt NAME] [--limit N] [--epochs N]
                              [--batch N] [--rate R] [--test N]

For each set of eval/runs the train side is indexed and the model tuned to it (`llmtagger tune`);
the weight of its answers is fitted on a part of the train side that was held out of training. Then
N products of the test side are tagged without a model and with the tuned one. The figures are
written to eval/results/tune/SET.json; `make bench-tune` runs all sets and prints the table. An
adapter that is there already is used again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulation import points

from llmtagger import adapters
from llmtagger.adapters import Adapter
from llmtagger.backends.folders import cache_dir
from llmtagger.calibration import Calibration, read_calibration
from llmtagger.evaluation import baselines, metrics
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.harness import Evaluation, Kept, Outcome, read_config
from llmtagger.evaluation.judging import as_scores
from llmtagger.evaluation.learning import tag_watched
from llmtagger.normalise import normalise
from llmtagger.pipeline import build_tagger
from llmtagger.recipe import Recipe
from llmtagger.scorers import learned_scorer
from llmtagger.templates import TemplateFile, find_template
from llmtagger.tuning import job as jobs
from llmtagger.vocabulary import split_key

ROOT = Path(__file__).parents[1]
RUNS, RESULTS = ROOT / "eval" / "runs", ROOT / "eval" / "results" / "tune"
DATA = Path(os.environ.get("LLMTAGGER_GOLD", ROOT))

Record = dict[str, Any]


def show(stage: str, done: int, total: int) -> None:
    if not total or done == total or done % 50 == 0:
        sys.stderr.write(f"  {stage} {done}/{total}\n")


def wait(message: str, seconds: float) -> None:
    if seconds < 1:
        sys.stderr.write(f"  {message}\n")


@dataclass(frozen=True)
class Tested:
    """What was kept of the test products that the model was asked about."""

    without: Kept
    tuned: Kept
    alone: Kept
    gold: Kept
    groups: list[int]
    rows: list[int]


@dataclass(frozen=True)
class Trial:
    """What is tuned, and how."""

    base: str
    prompt: str | None
    recipe: Recipe
    limit: int | None

    @property
    def suffix(self) -> str:
        """Of files and folders, so that trials of one set lie side by side."""
        base = "" if self.base == "auto" else f".{Path(self.base).name}"
        return base + (f".{Path(self.prompt).name}" if self.prompt else "")


def measure(name: str, trial: Trial, test: int) -> Record:
    """Everything about one set."""
    source = RUNS / f"{name}.toml"
    config = read_config(source).model_copy(update={"llm": "never", "ask_test": 0, "ask_train": 0})
    folder = RESULTS / f"{name}{trial.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    card, cache = source.parent / config.dataset, cache_dir() / "evaluation"
    outcome = Evaluation(config, card, DATA, folder, cache, None, show).run()
    adapter, template = tuned(folder / "index", trial)
    calibration = read_calibration(adapters.folder_of(folder / "index", adapter.name))
    assert calibration is not None
    tested = ask(outcome, adapter, template, calibration, folder / "index", trial.base, test)
    return record(name, outcome, adapter, tested)


def tuned(index: Path, trial: Trial) -> tuple[Adapter, TemplateFile]:
    """The newest adapter of an index, made and judged where there is none."""
    job = jobs.TuneJob(
        index, base=trial.base, prompt=trial.prompt, limit=trial.limit, recipe=trial.recipe
    )
    found = [each for each in adapters.list_adapters(index) if each.recipe == trial.recipe]
    if not found or found[-1].verdict is None:
        prepared = jobs.prepare(job, show)
        if not found:
            trainer = jobs.trainer(prepared)
            sys.stderr.write(f"  {prepared.examples.counts()}\n")
            found = [jobs.train(prepared, trainer, step)]
            del trainer
            gc.collect()
        found = [jobs.judge(index, found[-1], job.settings, cache_dir() / "evaluation", show, wait)]
    adapter = found[-1]
    verdict = adapter.verdict
    assert verdict is not None
    sys.stderr.write(f"  held out: F1 {verdict.f1:.3f}, {verdict.points}\n")
    return adapter, find_template(adapter.prompt)


def step(at: Any) -> None:
    if at.step % 10 == 0 or at.step == at.steps:
        sys.stderr.write(
            f"  step {at.step}/{at.steps}, {at.tokens / at.seconds:.0f} tokens/s, "
            f"{at.remaining / 60:.0f} min left, loss {at.loss:.3f}, held out {at.held_out}\n"
        )


def ask(
    outcome: Outcome,
    adapter: Adapter,
    template: TemplateFile,
    calibration: Calibration,
    index: Path,
    base: str,
    test: int,
) -> Tested:
    """Tag the first `test` products of the test side, which are in random order, with the model."""
    rows = list(range(min(test, len(outcome.test.products))))
    products = [outcome.test.products[row] for row in rows]
    settings = outcome.config.settings
    tuned = adapters.served(index, adapter)
    with kept_answers(
        base, (), settings.engine, cache_dir() / "evaluation", wait, tuned=tuned
    ) as answers:
        tagger = build_tagger(
            outcome.index,
            template,
            settings,
            answers,
            leave_out_siblings=True,
            scorer=learned_scorer(calibration),
        )
        results = tag_watched(tagger, products, show, "asking about test products")
    assert calibration.asked is not None
    said = baselines.from_signal(results, outcome.judge, "chosen")
    return Tested(
        [outcome.kept["system"][row] for row in rows],
        metrics.keep(as_scores(results, outcome.judge), calibration.asked.threshold),
        metrics.keep(said, 0.5),
        [outcome.gold[row] for row in rows],
        [outcome.test.groups[row] for row in rows],
        rows,
    )


def record(name: str, outcome: Outcome, adapter: Adapter, tested: Tested) -> Record:
    boot = metrics.Bootstrap(tested.groups, seed=outcome.config.seed)
    each = {
        "without": metrics.counts(tested.without, tested.gold),
        "tuned": metrics.counts(tested.tuned, tested.gold),
        "alone": metrics.counts(tested.alone, tested.gold),
    }
    for kind in ("knn_vote", "tfidf_linear", "embedding_linear", "lookup"):
        kept = [outcome.kept[kind][row] for row in tested.rows]
        each[kind] = metrics.counts(kept, tested.gold)
    absent = [
        frozenset(
            normalise(key) for key in outcome.gold_set.absent.get(outcome.test.products[row].id, ())
        )
        for row in tested.rows
    ]
    has_keys = any(split_key(item)[0] for gold in tested.gold for item in gold)
    verdict = adapter.verdict
    assert verdict is not None
    return {
        "set": name,
        "base": adapter.base,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        ).stdout.strip(),
        "recipe": adapter.recipe.model_dump(),
        "counts": adapter.counts,
        "train_seconds": adapter.seconds,
        "held_out": {"products": verdict.products, "f1": verdict.f1, "added": verdict.added},
        "products": len(tested.rows),
        "f1": {kind: boot.interval(rows, metrics.f1).record() for kind, rows in each.items()},
        "added": boot.difference(each["tuned"], each["without"], metrics.f1).record(),
        "extractgpt": {
            kind: metrics.extractgpt(kept, tested.gold, absent)
            for kind, kept in (
                ("without", tested.without), ("tuned", tested.tuned), ("alone", tested.alone)
            )
        } if has_keys else None,
    }  # fmt: skip


def table() -> str:
    """All sets that were measured."""
    lines = [
        "| set | base | examples | minutes | test | without | with | added | tuned model alone | "
        "ExtractGPT: without, with | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        each = json.loads(path.read_text("utf-8"))
        f1 = each["f1"]
        published = each["extractgpt"]
        cells = (
            each["set"],
            each["base"],
            f"{each['counts']['train']} × {each['recipe']['epochs']}",
            f"{each['train_seconds'] / 60:.0f}",
            str(each["products"]),
            f"{f1['without']['value']:.3f}",
            f"{f1['tuned']['value']:.3f}",
            points(each["added"]),
            f"{f1['alone']['value']:.3f}",
            f"{published['without']['f1']:.3f}, {published['tuned']['f1']:.3f}"
            if published
            else "–",
            each["commit"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--base", default="auto")
    parser.add_argument("--prompt", help="a version of the prompts, or a file")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--batch", type=int, default=Recipe().batch)
    parser.add_argument("--rate", type=float, default=Recipe().rate)
    parser.add_argument("--test", type=int, default=500)
    chosen = parser.parse_args()
    recipe = Recipe(epochs=chosen.epochs, batch=chosen.batch, rate=chosen.rate)
    trial = Trial(chosen.base, chosen.prompt, recipe, chosen.limit)
    for name in chosen.sets:
        sys.stderr.write(f"=== {name}\n")
        found = measure(name, trial, chosen.test)
        path = RESULTS / f"{name}{trial.suffix}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table() + "\n")


if __name__ == "__main__":
    main()
