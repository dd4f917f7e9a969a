"""What labels are worth: F1 against their number, in the order suggested and in random order.

    python benchmarks/label_curve.py SET... [--seeds 5] [--test 300]

For each set of eval/runs the train side plays the unlabelled pool. Both orders begin with the same
25 labelled products drawn at random; the rest are labelled in the order of `llmtagger label
suggest`, asked anew at each budget, or at random. At each budget an index is built of what is
labelled, calibrated, and tested on the test side, without a model. The interval is that of the
difference in F1 over test products, all seeds together. Writes eval/results/labels/SET.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from llmtagger.backends import index_writer
from llmtagger.backends.encoders import choose_encoder, load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import CatalogueIndex
from llmtagger.calibration import Calibration
from llmtagger.config import Settings
from llmtagger.datatypes import Product, TagKind
from llmtagger.errors import CatalogError
from llmtagger.evaluation import metrics, splitting
from llmtagger.evaluation.gold import load_gold
from llmtagger.evaluation.harness import read_config
from llmtagger.evaluation.judging import Judge, as_scores, gold_of
from llmtagger.evaluation.learning import calibrate
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.pipeline import build_tagger
from llmtagger.scorers import learned_scorer
from llmtagger.stages.prompting import default_template, find_template
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.tuning.labelling import suggest
from llmtagger.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
RUNS, RESULTS = ROOT / "eval" / "runs", ROOT / "eval" / "results" / "labels"
BEGIN, BUDGETS = 25, (50, 100, 200, 400)
SETTINGS = Settings()


class Simulation:
    """One set: a pool to label from, and a test side."""

    def __init__(self, name: str, test: int, folder: Path) -> None:
        config = read_config(RUNS / f"{name}.toml")
        card = RUNS / config.dataset
        data = Path(os.environ["LLMTAGGER_GOLD"])
        gold = load_gold(card, data, limit=config.rows)
        texts = [product.text()[: SETTINGS.retrieval.text_limit] for product in gold.products]
        self.encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
        vectors = self.encoder.encode_kept(texts, cache_dir() / "evaluation" / "vectors")
        groups = splitting.groups(gold.products, vectors)
        parts = splitting.split(groups, test=min(test, len(texts) // 3), seed=config.seed)
        self.pool = [gold.products[at] for at in parts.train]
        self.test = [gold.products[at] for at in parts.test]
        self.groups = [groups[at] for at in parts.test]
        self.template = find_template(default_template(gold.kind))
        closed = gold.kind is TagKind.CLOSED
        self.vocabulary = Vocabulary.from_products(gold.products) if closed else None
        self.folder = folder
        self.gold_set = gold

    def curve(self, seed: int, suggested: bool) -> dict[int, Any]:
        """Counts (n, 3) on the test side by budget."""
        order = np.random.default_rng(seed).permutation(len(self.pool)).tolist()
        labelled = [self.pool[at] for at in order[:BEGIN]]
        waiting = [self.pool[at] for at in order[BEGIN:]]
        found = {}
        for budget in BUDGETS:
            if suggested:
                index, calibration = self._learn(labelled)
                bare = [replace(product, tags=None) for product in waiting]
                more = budget - len(labelled)
                best = suggest(index, bare, self.template, SETTINGS, calibration, more)
                chosen = {each.product.id for each in best}
                labelled += [product for product in waiting if product.id in chosen]
                waiting = [product for product in waiting if product.id not in chosen]
            else:
                labelled = [self.pool[at] for at in order[:budget]]
            found[budget] = self._tested(*self._learn(labelled))
            f1 = metrics.f1(found[budget].sum(axis=0))
            sys.stderr.write(f"  seed {seed}, suggested {suggested}, {budget}: {f1:.3f}\n")
        return found

    def _learn(self, labelled: list[Product]) -> tuple[CatalogueIndex, Calibration | None]:
        index = index_writer.build(
            labelled, self.folder / "index", self.encoder, vocabulary=self.vocabulary
        )
        try:
            learnt = calibrate(index, self.template, SETTINGS, None, ask=0)
        except CatalogError:
            return index, None
        return index, learnt.calibration

    def _tested(self, index: CatalogueIndex, calibration: Calibration | None) -> Any:
        scorer = learned_scorer(calibration) if calibration else WeightedScorer()
        tagger = build_tagger(index, self.template, SETTINGS, None, scorer=scorer)
        results = list(tagger.tag_ordered(self.test))
        judge = Judge(
            index.vocabulary,
            unjudged=self.gold_set.unjudged,
            apart=self.gold_set.apart,
            alternatives=self.gold_set.alternatives,
        )
        cut = SETTINGS.scoring.threshold if calibration is None else calibration.unasked.threshold
        kept = metrics.keep(as_scores(results, judge), cut)
        return metrics.counts(kept, gold_of(self.test, judge))


def measure(name: str, seeds: int, test: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(name, test, Path(folder))
        both: dict[bool, list[dict[int, Any]]] = {True: [], False: []}
        for seed in range(seeds):
            for suggested in both:
                both[suggested].append(simulation.curve(seed, suggested))
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
            value, low, high = (100 * row["difference"][key] for key in ("value", "low", "high"))
            one, other = (f"{row[key]['value']:.3f}" for key in ("suggested", "random"))
            points = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
            lines.append(f"| {found['set']} | {row['labels']} | {one} | {other} | {points} |")
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
