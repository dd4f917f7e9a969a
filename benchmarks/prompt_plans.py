"""What the order of products and the form of prompt and answer do to speed and to accuracy.

    python benchmarks/prompt_plans.py INDEX [--products 100] [--rounds 1] [--model auto]

Labelled products of the index, asked about as if they were new, in five ways:

    as shipped    tag.v1, products in random order
    by category   the same, products sorted by category and title, so that like ones follow
    shared list   all tags of the vocabulary in the system prompt, which the server keeps computed;
                  the prompt of a product lists none, the grammar still admits the shortlist alone
    numbered      the shortlist with numbers, and a list of numbers for an answer
    short         tag.v2, the prompt that models are tuned on

Each way and round has a mark of its own at the start of the system prompt, so that none finds
another's blocks; a block of vLLM on a CPU is 128 tokens long, and only whole ones are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simulation import points
from tag_ceiling import marked

from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.models import resolve_model
from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.backends.vllm_process import serving
from llmtagger.config import Settings
from llmtagger.datatypes import (
    Completion,
    Constraint,
    ParsedTags,
    Product,
    Shortlist,
    TagKind,
)
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.remembering import known_index
from llmtagger.evaluation.trials import Bench, Cell, cell_of, compare
from llmtagger.pipeline import Tagger, catalogue_retriever, prompt_renderer
from llmtagger.protocols import AnswerFormat
from llmtagger.scorers import cut_of
from llmtagger.stages.parsing import answer_format
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile, find_template
from llmtagger.wording import offered_labels

SHOWN = '{{ "可选标签：" if zh else "Possible tags: " }}{{ candidates | json }}\n'


class Numbered:
    """A JSON list of numbers, counted from 1, of the tags that were offered."""

    def __init__(self, inner: AnswerFormat, most: int) -> None:
        self._inner, self._most = inner, most

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint | None:
        count = len(offered_labels(product, shortlist))
        if not count:
            return None
        items = {"type": "integer", "enum": list(range(1, count + 1))}
        schema = {"type": "array", "items": items, "maxItems": self._most}
        return Constraint(schema, 8 + 4 * self._most)

    def parse(self, completion: Completion, product: Product, shortlist: Shortlist) -> ParsedTags:
        """Read as if the tags had been named; probabilities of tokens are not carried over."""
        labels = list(offered_labels(product, shortlist))
        try:
            names = [labels[number - 1] for number in json.loads(completion.text)]
        except (ValueError, TypeError, IndexError):
            return self._inner.parse(completion, product, shortlist)
        said = json.dumps(names, ensure_ascii=False)
        return self._inner.parse(replace(completion, text=said, logprobs=()), product, shortlist)


@dataclass(frozen=True)
class Plan:
    """A way of asking: the template, how answers look, and the order of the products."""

    name: str
    template: TemplateFile
    format: Callable[[AnswerFormat], AnswerFormat] = lambda inner: inner
    sort: bool = False


@dataclass(frozen=True)
class Made:
    """What a plan came to in one round: cells by product, and what they took."""

    cells: dict[str, Cell]
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    hit_rate: float | None


def plans(index: CatalogueIndex, settings: Settings) -> list[Plan]:
    source = find_template("tag.v1")
    names = json.dumps([tag.name for tag in index.vocabulary.tags], ensure_ascii=False)
    listed = f"Possible tags: {{% raw %}}{names}{{% endraw %}}\n{{% endblock %}}"
    shared = source.source.replace("{% endblock %}", listed, 1).replace(SHOWN, "")
    by_number = source.source.replace(
        SHOWN,
        '{{ "可选标签：" if zh else "Possible tags:" }}\n'
        "{% for each in candidates %}\n{{ loop.index }}. {{ each }}\n{% endfor %}\n",
    )
    by_number = by_number.replace("copied exactly; never make one up", "by their numbers")
    by_number = by_number.replace('list such as ["waterproof", "backpack"]', "list such as [3, 17]")
    assert "1. {{" not in shared
    assert shared != source.source != by_number
    most = settings.answer.max_tags
    return [
        Plan("as shipped", source),
        Plan("by category", source, sort=True),
        Plan("shared list", replace(source, source=shared)),
        Plan("numbered", replace(source, source=by_number), lambda inner: Numbered(inner, most)),
        Plan("short", find_template("tag.v2")),
    ]


def run(
    bench: Bench, plan: Plan, mark: str, products: Sequence[Product], generator: VllmGenerator
) -> Made:
    index, settings, scorer = bench.index, bench.settings, WeightedScorer()
    template = marked(plan.template, mark)
    tagger = Tagger(
        catalogue_retriever(index, settings, leave_out_siblings=True, experts=bench.experts),
        prompt_renderer(index, template, settings, scorer),
        plan.format(answer_format(TagKind.CLOSED, index.vocabulary, settings.answer)),
        scorer,
        generator,
    )
    if plan.sort:
        products = sorted(products, key=lambda product: (product.category, product.title))
    before, begun = generator.metrics(), time.monotonic()
    tagged = tagger.tag_all(products)
    seconds = time.monotonic() - begun
    judge, cut = Judge(index.vocabulary), cut_of(settings.scoring, None)
    cells = [cell_of(each, plan.name, cut, judge, each.product.tags) for each in tagged]
    said = [each.completion for each in tagged if each.completion]
    return Made(
        {cell.product.id: cell for cell in cells},
        seconds,
        sum(each.prompt_tokens for each in said),
        sum(each.completion_tokens for each in said),
        generator.metrics().hit_rate(since=before),
    )


def table(products: Sequence[Product], made: dict[str, list[Made]]) -> str:
    lines = [
        "| plan | products/s | prompt tokens each | from the cache | answer tokens each "
        "| model alone, F1 | less as shipped, points |",
        "|---|---|---|---|---|---|---|",
    ]
    first = [made["as shipped"][0].cells[product.id] for product in products]
    for name, rounds in made.items():
        cells = [rounds[0].cells[product.id] for product in products]
        alone = compare(first, cells)["model"]["micro_f1"]
        rate = len(products) / statistics.median(each.seconds for each in rounds)
        hits = statistics.median(each.hit_rate or 0 for each in rounds)
        lines.append(
            f"| {name} | {rate:.2f} | {rounds[0].prompt_tokens / len(products):.0f} | {hits:.0%} "
            f"| {rounds[0].completion_tokens / len(products):.1f} | {alone['b']['value']:.3f} "
            f"| {points(alone['difference'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--endpoint")
    chosen = parser.parse_args()
    index, settings = known_index(open_index(chosen.index)), Settings()
    rows = index.labelled.nonzero()[0].tolist()
    random.Random(0).shuffle(rows)
    products = [index.product(row) for row in rows[: chosen.products]]
    bench, made = Bench(index, settings), dict[str, list[Made]]()

    def measure(endpoint: str) -> None:
        generator = VllmGenerator([endpoint])
        ways = plans(index, settings)
        run(bench, ways[0], "warm-up", products[:8], generator)
        for number in range(chosen.rounds):
            for plan in ways[number:] + ways[:number]:
                done = run(bench, plan, f"{plan.name} {number}", products, generator)
                made.setdefault(plan.name, []).append(done)
                sys.stderr.write(f"  {plan.name}: {done.seconds:.0f} s\n")
        generator.close()

    if chosen.endpoint:
        measure(chosen.endpoint)
    else:
        with serving(resolve_model(chosen.model), progress=lambda said, seconds: None) as server:
            measure(server.url)
    sys.stdout.write(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, ")
    sys.stdout.write(f"{chosen.index}, {chosen.products} products, {chosen.model}\n")
    sys.stdout.write(table(products, made) + "\n")


if __name__ == "__main__":
    main()
