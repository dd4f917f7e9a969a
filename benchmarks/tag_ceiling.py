"""`tag` against the same prompts sent straight to the same server, side by side in one run.

    python benchmarks/tag_ceiling.py CATALOGUE -i INDEX [--products 500] [--endpoint URL]

The ceiling is the server's own: every prompt and grammar is ready, and the same client sends them
from as many threads. `tag` has to retrieve, render, parse, score and journal besides. Each pass
has a mark of its own at the start of the prompt, so that no pass is served from another's prefix
cache; within a pass the cache works as usual.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from llmtagger.backends.hardware import has_cuda
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.models import resolve_model
from llmtagger.backends.vllm_client import ServerMetrics, VllmGenerator
from llmtagger.backends.vllm_process import serving
from llmtagger.catalog import read_catalog
from llmtagger.config import Settings
from llmtagger.datatypes import Completion, Product
from llmtagger.pipeline import build_tagger
from llmtagger.runs import Journal
from llmtagger.stages.parsing import answer_format
from llmtagger.templates import TemplateFile, default_template, find_template
from llmtagger.threads import one_core_each


@dataclass(frozen=True)
class Pass:
    """One pass over the products."""

    name: str
    products: int
    seconds: float
    cpu: float
    prompt_tokens: int
    completion_tokens: int
    hit_rate: float | None

    def row(self) -> str:
        rate = f"{self.products / self.seconds:.2f} products/s"
        tokens = f"{(self.prompt_tokens + self.completion_tokens) / self.seconds:.0f} tokens/s"
        hits = "" if self.hit_rate is None else f", prefix cache {self.hit_rate:.1%}"
        cpu = f"{1000 * self.cpu / self.products:.1f} ms of CPU each"
        return f"{self.name}: {self.seconds:.1f} s, {rate}, {cpu}, {tokens}{hits}\n"


class Clock:
    """Seconds since it was made: by the wall, and of this process's CPU time and its children's."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), cpu_seconds()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._wall, cpu_seconds() - self._cpu


def cpu_seconds() -> float:
    """Of this process, and of the template workers that it has started."""
    workers = psutil.Process().children()
    of_workers = (each.cpu_times() for each in workers if "template_worker" in str(each.cmdline()))
    return time.process_time() + sum(times.user + times.system for times in of_workers)


def marked(template: TemplateFile, mark: str) -> TemplateFile:
    """The template with a mark at the start of the system prompt."""
    source = template.source.replace("{% block system %}\n", f"{{% block system %}}\n[{mark}]\n", 1)
    return replace(template, source=source)


def straight(
    index: CatalogueIndex, template: TemplateFile, products: list[Product], generator: VllmGenerator
) -> Pass:
    settings = Settings()
    tagger = build_tagger(index, template, settings, None)
    answers = answer_format(template.kind, index.vocabulary, settings.answer)
    ready = []
    for product, shortlist, prompt in tagger.prepare(products):
        constraint = answers.constraint(product, shortlist)
        if constraint is not None:
            ready.append((prompt, constraint))
    before, begun = generator.metrics(), Clock()
    with ThreadPoolExecutor(generator.concurrency) as pool:
        completions = list(pool.map(lambda each: generator.complete(*each), ready))
    return measured("straight", begun, completions, generator, before)


def tagged(
    index: CatalogueIndex,
    template: TemplateFile,
    products: list[Product],
    generator: VllmGenerator,
    *,
    crowded: bool = False,
) -> Pass:
    tagger = build_tagger(index, template, Settings(), generator)
    completions = []
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j", {}) as journal:
        before, begun = generator.metrics(), Clock()
        with one_core_each(crowded=crowded):
            for result in tagger.tag(products):
                journal.record(result)
                if result.completion:
                    completions.append(result.completion)
        return measured("tag", begun, completions, generator, before)


def measured(
    name: str,
    begun: Clock,
    completions: list[Completion],
    generator: VllmGenerator,
    before: ServerMetrics,
) -> Pass:
    seconds, cpu = begun.read()
    return Pass(
        name,
        len(completions),
        seconds,
        cpu,
        sum(c.prompt_tokens for c in completions),
        sum(c.completion_tokens for c in completions),
        generator.metrics().hit_rate(since=before),
    )


def compare(
    index: CatalogueIndex,
    products: list[Product],
    generator: VllmGenerator,
    rounds: int,
    *,
    crowded: bool,
) -> None:
    """Each way once a round; `crowded` as `tag` is where the server computes on these cores."""
    template = find_template(default_template(index.vocabulary.kind))
    straight(index, marked(template, "warm-up"), products[:16], generator)
    for number in range(rounds):
        passes = [
            straight(index, marked(template, f"straight {number}"), products, generator),
            tagged(
                index, marked(template, f"pipeline {number}"), products, generator, crowded=crowded
            ),
        ]
        for each in passes:
            sys.stdout.write(each.row())
        sys.stdout.write(f"tag / straight: {passes[0].seconds / passes[1].seconds:.3f}\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("catalogue")
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--products", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--endpoint")
    arguments = parser.parse_args()
    products = list(read_catalog(arguments.catalogue, rejected=lambda row: None))
    products = products[: arguments.products]
    index = open_index(arguments.index)
    date = time.strftime("%Y-%m-%d")
    sys.stdout.write(f"{date}, {platform.machine()}, {os.cpu_count()} cores\n")
    if arguments.endpoint:
        generator = VllmGenerator([arguments.endpoint])
        compare(index, products, generator, arguments.rounds, crowded=False)
        return
    with serving(resolve_model("auto"), progress=lambda message, seconds: None) as server:
        generator = VllmGenerator([server.url])
        compare(index, products, generator, arguments.rounds, crowded=not has_cuda())


if __name__ == "__main__":
    main()
