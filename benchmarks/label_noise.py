"""What wrong labels cost, and how many of them `llmtagger label audit` finds.

    python benchmarks/label_noise.py SET... [--test 300] [--tune N] [--epochs 1]

A share of the labels of the train side (0, 10 and 20 %) is replaced by tags drawn as often as
they occur; the test side stays as it is. For each share: F1 of the pipeline without a model; of as
many labels as were replaced, the surest that `label audit` calls unlikely, how many are wrong, and
how many of a random choice would be. With `--tune N` the model is also tuned on N noisy products
and the pipeline with it tested. Writes eval/results/noise/SET.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from simulation import ROOT, SETTINGS, Simulation, points

from llmtagger import adapters
from llmtagger.backends.folders import cache_dir
from llmtagger.calibration import read_calibration
from llmtagger.datatypes import Product
from llmtagger.evaluation import metrics
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.metrics import Floats
from llmtagger.pipeline import build_tagger
from llmtagger.recipe import Recipe
from llmtagger.scorers import learned_scorer
from llmtagger.templates import find_template
from llmtagger.tuning import job as jobs
from llmtagger.tuning.labelling import audit

RESULTS = ROOT / "eval" / "results" / "noise"
SHARES = (0.0, 0.1, 0.2)

Wrong = set[tuple[str, str]]  # product id and tag


def noisy(
    products: list[Product], share: float, random: np.random.Generator
) -> tuple[list[Product], Wrong]:
    """The products with a share of their labels replaced, and which labels are wrong now."""
    every = [tag for product in products for tag in product.tags or ()]
    found, wrong = [], set()
    for product in products:
        tags = list(product.tags or ())
        for place in range(len(tags)):
            if random.random() < share:
                other = every[int(random.integers(len(every)))]
                if other not in (product.tags or ()):
                    tags[place] = other
                    wrong.add((product.id, other))
        found.append(replace(product, tags=tuple(dict.fromkeys(tags))))
    return found, wrong


def tuned(simulation: Simulation, limit: int, recipe: Recipe) -> Floats:
    """Counts (n, 3) on the test side of the pipeline with a model tuned to the index there."""
    job = jobs.TuneJob(simulation.index, limit=limit, recipe=recipe)
    cache = cache_dir() / "evaluation"
    prepared = jobs.prepare(job, quiet)
    trainer = jobs.trainer(prepared)
    adapter = jobs.train(prepared, trainer, quiet)
    del trainer
    gc.collect()
    adapter = jobs.judge(simulation.index, adapter, SETTINGS, cache, quiet, quiet)
    calibration = read_calibration(adapters.folder_of(simulation.index, adapter.name))
    assert calibration is not None
    assert calibration.asked is not None
    served = adapters.served(simulation.index, adapter)
    with kept_answers("auto", (), SETTINGS.engine, cache, quiet, tuned=served) as answers:
        tagger = build_tagger(
            prepared.opened,
            find_template(adapter.prompt),
            SETTINGS,
            answers,
            scorer=learned_scorer(calibration),
        )
        results = list(tagger.tag_ordered(simulation.test))
    return simulation.counts(prepared.opened, results, calibration.asked.threshold)


def quiet(*heard: object) -> None:
    """Hears of progress and says nothing."""


def measure(name: str, test: int, limit: int, epochs: int) -> dict[str, Any]:
    rows, clean = [], {}
    for share in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            simulation = Simulation(name, test, Path(folder))
            pool, wrong = noisy(simulation.pool, share, np.random.default_rng(5))
            index, calibration = simulation.learn(pool)
            each = {"without": simulation.tested(index, calibration)}
            doubts = audit(index, simulation.template, SETTINGS, quiet)
            if limit:
                each["tuned"] = tuned(simulation, limit, Recipe(epochs=epochs))
        boot = metrics.Bootstrap(simulation.groups, seed=0)
        clean = clean or each
        unlikely = [(d.product.id, d.tag) for d in doubts if d.fault == "unlikely"][: len(wrong)]
        labels = sum(len(product.tags or ()) for product in pool)
        row: dict[str, Any] = {
            "share": share,
            "labels": labels,
            "wrong": len(wrong),
            "listed": len(unlikely),
            "found": sum(each in wrong for each in unlikely),
        }
        for kind, counts in each.items():
            row[kind] = boot.interval(counts, metrics.f1).record()
            row[f"{kind}_lost"] = boot.difference(counts, clean[kind], metrics.f1).record()
        sys.stderr.write(f"  {row}\n")
        rows.append(row)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return {"set": name, "date": today, "test": test, "tuned_on": limit, "rows": rows}


def table() -> str:
    lines = [
        "| set | wrong labels | F1 without a model | lost | F1 with the tuned model | lost | "
        "the audit's surest: wrong of listed | by chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        for row in found["rows"]:
            cells = [found["set"], f"{row['share']:.0%}"]
            for kind in ("without", "tuned"):
                lost = row.get(f"{kind}_lost")
                cells.append(f"{row[kind]['value']:.3f}" if kind in row else "–")
                cells.append(points(lost) if lost and row["share"] else "–")
            listed = f"{row['found']} of {row['listed']}" if row["wrong"] else "–"
            cells += [listed, f"{row['wrong'] / row['labels']:.0%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    chosen = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in chosen.sets:
        sys.stderr.write(f"=== {name}\n")
        found = measure(name, chosen.test, chosen.tune, chosen.epochs)
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table() + "\n")


if __name__ == "__main__":
    main()
