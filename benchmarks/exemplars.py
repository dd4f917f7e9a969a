"""What the choice of examples does to answers: each strategy against the nearest neighbours.

    python benchmarks/exemplars.py INDEX... [--products 60] [--model auto]

For each index, products drawn from its labelled ones are asked about as if they were new, with the
same prompt and another strategy in its header. Prints F1 of what the model alone says, and the
paired difference to `similar` with its interval. Answers are kept: a second run asks nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from simulation import points

from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import open_index
from llmtagger.config import Settings
from llmtagger.datatypes import Strategy
from llmtagger.evaluation.answers import kept_answers
from llmtagger.evaluation.remembering import known_index
from llmtagger.evaluation.trials import Bench, Cell, compare
from llmtagger.templates import Examples, Header, TemplateFile, default_template, find_template


def tried(index: Path, model: str, count: int) -> dict[Strategy, list[Cell]]:
    """The cells of each strategy, all about the same products in the same order."""
    settings = Settings()
    opened = known_index(open_index(index))
    rows = opened.labelled.nonzero()[0].tolist()
    random.Random(0).shuffle(rows)
    products = [opened.product(row) for row in rows[:count]]
    source = find_template(default_template(opened.vocabulary.kind))
    found = {}
    with kept_answers(
        model, (), settings.engine, cache_dir() / "evaluation", lambda said, seconds: None
    ) as answers:
        bench = Bench(opened, settings)
        for strategy in Strategy:
            header = Header(examples=Examples(strategy=strategy))
            template = TemplateFile(source.name, header.text() + source.body)
            cells = {cell.product.id: cell for cell in bench.cells(template, products, answers)}
            found[strategy] = [cells[product.id] for product in products]
            sys.stderr.write(f"  {index}: {strategy.value}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("indexes", nargs="+", type=Path)
    parser.add_argument("--products", type=int, default=60)
    parser.add_argument("--model", default="auto")
    chosen = parser.parse_args()
    sys.stdout.write("| index | strategy | model alone, F1 | less `similar` | of what is kept |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for index in chosen.indexes:
        found = tried(index, chosen.model, chosen.products)
        for strategy, cells in found.items():
            both = compare(found[Strategy.SIMILAR], cells)
            alone = both["model"]["micro_f1"]
            sys.stdout.write(
                f"| {index} | {strategy.value} | {alone['b']['value']:.3f} "
                f"| {points(alone['difference'])} "
                f"| {points(both['system']['micro_f1']['difference'])} |\n"
            )


if __name__ == "__main__":
    main()
