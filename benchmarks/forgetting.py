"""What `tune --continue` forgets: old categories learnt first, new ones learnt on top of them.

    python benchmarks/forgetting.py GOLD.jsonl FOLDER [--each 300] [--epochs 2]

The products of one half of the categories are indexed and learnt; those of the other half are added
and learnt with `--continue`, which repeats some of the old ones. Products of the first half that
were held out of both are asked about with either adapter, in the same index: what the second does
worse on them was forgotten. The second is asked about held-out products of the new half too, to
show that it has learnt. A FOLDER that holds adapters already is only measured.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from simulation import points
from tune import show, step

from llmtagger import adapters
from llmtagger.adapters import Adapter
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import open_index
from llmtagger.config import Settings
from llmtagger.datatypes import Product
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.remembering import known_index
from llmtagger.evaluation.trials import Bench, Cell, compare
from llmtagger.recipe import Recipe
from llmtagger.templates import find_template
from llmtagger.tuning import job as jobs


def llmtagger(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "llmtagger", *arguments], check=True)


def halves(gold: Path, folder: Path, each: int) -> tuple[Path, Path]:
    """Two catalogues with no category in common, of `each` labelled products at the most."""
    rows = [json.loads(line) for line in gold.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["tags"]]
    random.Random(0).shuffle(rows)
    categories = sorted({row["category"] for row in rows})
    old = set(categories[::2])
    paths = folder / "old.jsonl", folder / "new.jsonl"
    for path, is_old in zip(paths, (True, False), strict=True):
        chosen = [row for row in rows if (row["category"] in old) is is_old][:each]
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
    return paths


def learn(gold: Path, folder: Path, each: int, epochs: int) -> None:
    """The two adapters, the second gone on from the first."""
    folder.mkdir(parents=True, exist_ok=True)
    old, new = halves(gold, folder, each)
    index = folder / "index"
    llmtagger("index", "build", str(old), "-o", str(index), "--encoder", "multilingual")
    first = tuned(jobs.TuneJob(index, recipe=Recipe(epochs=epochs)))
    llmtagger("index", "add", str(index), str(new))
    tuned(jobs.TuneJob(index, parent=first.name, recipe=Recipe(epochs=epochs)))


def tuned(job: jobs.TuneJob) -> Adapter:
    prepared = jobs.prepare(job, show)
    sys.stderr.write(f"  {prepared.examples.counts()}\n")
    return jobs.train(prepared, jobs.trainer(prepared), step)


def asked(index: Path, adapter: Adapter, products: Sequence[Product]) -> list[Cell]:
    settings = Settings()
    bench = Bench(known_index(open_index(index)), settings)
    template = find_template(adapter.prompt)
    with kept_answers(
        adapter.source,
        (),
        settings.engine,
        cache_dir() / "evaluation",
        lambda said, seconds: None,
        adapters.served(index, adapter),
    ) as answers:
        cells = {cell.product.id: cell for cell in bench.cells(template, products, answers)}
    return [cells[product.id] for product in products]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("gold", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2)
    chosen = parser.parse_args()
    index = chosen.folder / "index"
    if not index.exists():
        learn(chosen.gold, chosen.folder, chosen.each, chosen.epochs)
    first, second = adapters.list_adapters(index)
    opened = open_index(index)
    by_id = {opened.product(row).id: opened.product(row) for row in opened.labelled.nonzero()[0]}
    sys.stdout.write("| held out | products | first adapter alone, F1 | second | difference ")
    sys.stdout.write("| of what is kept |\n|---|---|---|---|---|---|\n")
    for name, ids in (
        ("old categories", first.held_out),
        ("new categories", sorted(set(second.held_out) - set(first.held_out))),
    ):
        products = [by_id[id] for id in ids]
        both = compare(*(asked(index, adapter, products) for adapter in (first, second)))
        alone = both["model"]["micro_f1"]
        sys.stdout.write(
            f"| {name} | {len(products)} | {alone['a']['value']:.3f} | {alone['b']['value']:.3f} "
            f"| {points(alone['difference'])} "
            f"| {points(both['system']['micro_f1']['difference'])} |\n"
        )


if __name__ == "__main__":
    main()
