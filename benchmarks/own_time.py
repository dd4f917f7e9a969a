"""What llmtagger itself takes for a product, where the server answers at once.

    python benchmarks/own_time.py INDEX [--products 500] [--rounds 3] [--processes 2]

Retrieval, rendering, asking, parsing, scoring and the journal, with `instant_server.py` in place of
a model. The products are the index's own, as if they were new, and their vectors are the stored
ones; the encoder's rate stands apart. First the same client with every prompt ready, which is the
ceiling, and `tag`; then `tag` in several processes with as many products each, as who splits a
catalogue would run it, on cores of their own (`taskset`) and not; then the stages one by one in one
thread, in CPU time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from instant_server import instant
from numpy.typing import NDArray
from tag_ceiling import Pass, cpu_seconds, straight, tagged

from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.config import Settings
from llmtagger.datatypes import Product
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.pipeline import BATCH, catalogue_retriever, prompt_renderer
from llmtagger.protocols import Encoder
from llmtagger.stages.parsing import answer_format
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile, default_template, find_template
from llmtagger.threads import one_core_each


class Stored:
    """The vectors that an index holds, by the text that they were made from."""

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], vectors: NDArray[np.float32]
    ) -> None:
        self.name, self.revision = encoder.name, encoder.revision
        self.dimension = encoder.dimension
        self._vectors = dict(zip(texts, vectors, strict=True))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder would."""
        return np.stack([self._vectors[text] for text in texts])


def texts_of(products: Sequence[Product]) -> list[str]:
    """What retrieval encodes."""
    return [product.text()[: Settings().retrieval.text_limit] for product in products]


def opened(folder: Path, count: int) -> tuple[CatalogueIndex, list[Product], TemplateFile]:
    """The index with its vectors for an encoder, and its first labelled products as new ones."""
    index = open_index(folder)
    rows = np.flatnonzero(index.labelled)[:count].tolist()
    known = [index.product(row) for row in rows]
    index.encoder = Stored(index.encoder, texts_of(known), np.array(index.vectors[rows]))
    products = [replace(product, id=f"new {product.id}", tags=None) for product in known]
    return index, products, find_template(default_template(index.vocabulary.kind))


def encoder_rate(folder: Path, count: int) -> float:
    """Products a second, in the batches in which `tag` encodes them."""
    index = open_index(folder)
    rows = np.flatnonzero(index.labelled)[:count].tolist()
    texts = texts_of([index.product(row) for row in rows])
    index.encoder.encode(texts[:BATCH])
    begun = time.monotonic()
    for start in range(0, len(texts), BATCH):
        index.encoder.encode(texts[start : start + BATCH])
    return len(texts) / (time.monotonic() - begun)


def one_process(folder: Path, count: int, rounds: int) -> None:
    index, products, template = opened(folder, count)
    passes: dict[str, list[Pass]] = {"straight": [], "tag": []}
    with instant() as url:
        generator = VllmGenerator([url])
        tagged(index, template, products[:BATCH], generator)
        for number in range(rounds):
            ways = [straight, tagged] if number % 2 else [tagged, straight]
            for way in ways:
                each = way(index, template, products, generator)
                passes[each.name].append(each)
        generator.close()
    for name, made in passes.items():
        seconds = statistics.median(each.seconds for each in made)
        cpu = statistics.median(each.cpu for each in made)
        say(f"{name}: {count / seconds:.0f} products/s, {1000 * cpu / count:.2f} ms of CPU each")


def side_by_side(folder: Path, count: int, processes: int, rounds: int) -> None:
    """In turn with a core for each process, and with all cores for all."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for own_core, found in rates.items():
            found.append(rate_of_several(folder, count, processes, own_core))
    for own_core, found in rates.items():
        cores = "a core for each" if own_core else "all cores for all"
        each = ", ".join(f"{rate:.0f}" for rate in sorted(found))
        say(f"tag in {processes} processes, {cores}: {statistics.median(found):.0f} ({each})")


def rate_of_several(folder: Path, count: int, processes: int, own_core: bool) -> float:
    """Products a second from the first prompt of all to the last answer."""
    spawn = multiprocessing.get_context("spawn")
    with instant() as url:
        ready = spawn.Barrier(processes + 1)
        each = [
            spawn.Process(
                target=one_of_several,
                args=(folder, count, url, ready, number if own_core else None),
            )
            for number in range(processes)
        ]
        for process in each:
            process.start()
        ready.wait()
        begun = time.monotonic()
        ready.wait()
        rate = processes * count / (time.monotonic() - begun)
        for process in each:
            process.join()
    return rate


def one_of_several(folder: Path, count: int, url: str, ready: Any, core: int | None) -> None:
    if core is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})
    index, products, template = opened(folder, count)
    generator = VllmGenerator([url])
    tagged(index, template, products[:BATCH], generator)
    ready.wait()
    tagged(index, template, products, generator)
    ready.wait()
    generator.close()


def stages(folder: Path, count: int) -> None:
    """CPU time of each stage; that of the template's worker process is the rendering's."""
    index, products, template = opened(folder, count)
    settings, scorer = Settings(), WeightedScorer()
    retriever = catalogue_retriever(index, settings)
    renderer = prompt_renderer(index, template, settings, scorer)
    answers = answer_format(template.kind, index.vocabulary, settings.answer)
    spent: dict[str, float] = {}

    def timed(stage: str, work: Callable[..., Any], rows: Iterable[Any]) -> list[Any]:
        clock = cpu_seconds if stage == "rendering" else time.process_time
        begun = clock()
        done = [work(*row) for row in rows]
        spent[stage] = spent.get(stage, 0.0) + clock() - begun
        return done

    with instant() as url:
        generator = VllmGenerator([url])
        generator.probe()
        for start in range(0, len(products), BATCH):
            given = products[start : start + BATCH]
            read = [product for product, _ in timed("guard", guard_product, zip(given))]
            found = timed("retrieval", retriever.retrieve, [(read,)])[0]
            shown = timed("guard", guard_shortlist, zip(found))
            both = list(zip(read, shown, strict=True))
            prompts = timed("rendering", renderer.render, both)
            wanted = timed("grammar", answers.constraint, both)
            said = timed("asking", generator.complete, zip(prompts, wanted, strict=True))
            parsed = timed("parsing", answers.parse, zip(said, read, shown, strict=True))
            timed("scoring", scorer.score, zip(read, shown, parsed, strict=True))
        generator.close()
    for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        say(f"  {stage}: {1000 * seconds / count:.2f} ms")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("--products", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    say(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores")
    say(f"the encoder alone: {encoder_rate(chosen.index, chosen.products):.0f} products/s")
    one_process(chosen.index, chosen.products, chosen.rounds)
    side_by_side(chosen.index, chosen.products, chosen.processes, chosen.rounds)
    with one_core_each():
        stages(chosen.index, chosen.products)


if __name__ == "__main__":
    main()
