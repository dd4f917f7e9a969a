"""What labels are worth: F1 against their number, in the order suggested and in random order.

    python benchmarks/label_curve.py SET... [--seeds 5] [--test 300]

For each set of eval/runs the train side plays the unlabelled pool. Both orders begin with the same
25 labelled products drawn at random; the rest are labelled in the order of `llmtagger label
suggest`, run again at each budget, or at random. At each budget an index is built of what is
labelled, calibrated, and tested on the test side, without a model. The interval is that of the
difference in F1 over test products, all seeds together. Writes eval/results/labels/SET.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from simulation import ROOT, SETTINGS, Simulation, points

from llmtagger.evaluation import metrics
from llmtagger.evaluation.metrics import Floats
from llmtagger.tuning.labelling import suggest

RESULTS = ROOT / "eval" / "results" / "labels"
BEGIN, BUDGETS = 25, (50, 100, 200, 400)


def curve(simulation: Simulation, seed: int, suggested: bool) -> dict[int, Floats]:
    """Counts (n, 3) on the test side by budget."""
    order = np.random.default_rng(seed).permutation(len(simulation.pool)).tolist()
    labelled = [simulation.pool[at] for at in order[:BEGIN]]
    waiting = [simulation.pool[at] for at in order[BEGIN:]]
    found = {}
    for budget in BUDGETS:
        if suggested:
            index, calibration = simulation.learn(labelled)
            bare = [replace(product, tags=None) for product in waiting]
            more = budget - len(labelled)
            best = suggest(index, bare, simulation.template, SETTINGS, calibration, more)
            chosen = {each.product.id for each in best}
            labelled += [product for product in waiting if product.id in chosen]
            waiting = [product for product in waiting if product.id not in chosen]
        else:
            labelled = [simulation.pool[at] for at in order[:budget]]
        found[budget] = simulation.tested(*simulation.learn(labelled))
        f1 = metrics.f1(found[budget].sum(axis=0))
        sys.stderr.write(f"  seed {seed}, suggested {suggested}, {budget}: {f1:.3f}\n")
    return found


def measure(name: str, seeds: int, test: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(name, test, Path(folder))
        both: dict[bool, list[dict[int, Floats]]] = {True: [], False: []}
        for seed in range(seeds):
            for suggested in both:
                both[suggested].append(curve(simulation, seed, suggested))
    boot = metrics.Bootstrap(simulation.groups, seed=0)
    rows = []
    for budget in BUDGETS:
        one, other = (sum(each[budget] for each in both[suggested]) for suggested in both)
        rows.append(
            {
                "labels": budget,
                "suggested": boot.interval(one, metrics.f1).record(),
                "random": boot.interval(other, metrics.f1).record(),
                "difference": boot.difference(one, other, metrics.f1).record(),
            }
        )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return {"set": name, "date": today, "seeds": seeds, "test": test, "budgets": rows}


def table() -> str:
    lines = ["| set | labels | suggested | random | difference |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        for row in found["budgets"]:
            one, other = (f"{row[key]['value']:.3f}" for key in ("suggested", "random"))
            cells = (found["set"], str(row["labels"]), one, other, points(row["difference"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=int, default=300)
    chosen = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in chosen.sets:
        sys.stderr.write(f"=== {name}\n")
        found = measure(name, chosen.seeds, chosen.test)
        (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table() + "\n")


if __name__ == "__main__":
    main()
