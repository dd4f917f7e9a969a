"""Index synthetic vectors: build time, memory, recall@10, time a query, with FAISS bare beside it.

    python benchmarks/million_products.py                        # 1,000,000 x 384
    python benchmarks/million_products.py --count 50000 --kind hnsw

The vectors are drawn around centres, one for every 100 products, since products come in kinds;
uniform noise would be no test of a graph. Queries are further draws around the same centres.
Beside them stands BM25, the other half of retrieval, over as many texts of a dozen words each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from scale import texts

from llmtagger.backends.arrays import VectorWriter, open_array
from llmtagger.backends.lexical import LexicalIndex
from llmtagger.backends.vectors import (
    EF_BUILD,
    EF_SEARCH,
    LINKS,
    FaissIndex,
    Kind,
    choose_kind,
    unit,
)
from llmtagger.protocols import Positions, Vectors

_A_CENTRE = 100  # vectors drawn around each
_CHUNK = 50_000
_K = 10


def draw(
    rng: np.random.Generator, centres: Vectors, count: int, spread: float
) -> Iterator[Vectors]:
    """Unit vectors around random centres; `spread` is the noise's length to their 1."""
    dimension = centres.shape[1]
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        noise = rng.standard_normal((size, dimension), dtype=np.float32)
        noise *= spread / dimension**0.5
        yield unit(centres[rng.integers(len(centres), size=size)] + noise)


def exact(vectors: Vectors, queries: Vectors) -> Positions:
    """The ten nearest by comparing with every vector, a chunk at a time; needs no index."""
    best = np.full((len(queries), _K), -2.0, dtype=np.float32)
    where: Positions = np.full((len(queries), _K), -1, dtype=np.int64)
    rows = np.arange(len(queries))[:, None]
    for start in range(0, len(vectors), _CHUNK):
        scores = np.hstack([best, queries @ np.asarray(vectors[start : start + _CHUNK]).T])
        top = np.argpartition(-scores, _K - 1, axis=1)[:, :_K]
        places = np.hstack(
            [
                where,
                np.broadcast_to(
                    np.arange(start, start + scores.shape[1] - _K),
                    (len(queries), scores.shape[1] - _K),
                ),
            ]
        )
        best, where = scores[rows, top], places[rows, top]
    return where


def recall(found: Positions, wanted: Positions) -> float:
    """The share of the true ten that were found."""
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / wanted.size


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}


def timed(index: FaissIndex, queries: Vectors, batch: int, allowed: Any = None) -> dict[str, float]:
    """Time of a call with `batch` queries, over all the queries."""
    return percentiles(
        [
            clocked(lambda some=some: index.search(some, _K, allowed))
            for some in batches(queries, batch)
        ]
    )


def beside_bare(
    index: FaissIndex, bare: Any, queries: Vectors, batch: int
) -> dict[str, dict[str, float]]:
    """Our search and FAISS's own on the same queries, turn about, so that noise meets both."""
    ours, theirs = [], []
    for number, some in enumerate(batches(queries, batch)):
        turns = [
            (ours, lambda some=some: index.search(some, _K)),
            (theirs, lambda some=some: bare.search(some, _K)),
        ]
        for seconds, call in turns[:: 1 if number % 2 else -1]:
            seconds.append(clocked(call))
    return {"ours": percentiles(ours), "bare": percentiles(theirs)}


def batches(queries: Vectors, size: int) -> Iterator[Vectors]:
    """The queries in whole batches."""
    for start in range(0, len(queries) - size + 1, size):
        yield queries[start : start + size]


def clocked(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def build_bare(vectors: Vectors, kind: Kind) -> Any:
    """The same index, made with FAISS alone."""
    width = vectors.shape[1]
    made = (
        faiss.IndexFlatIP(width)
        if kind == "flat"
        else faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
    )
    if kind == "hnsw":
        made.hnsw.efConstruction = EF_BUILD
    made.add(np.asarray(vectors))
    return made


def memory() -> int:
    """Resident memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1_000_000


def main() -> None:
    """Run once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--spread", type=float, default=0.8)
    parser.add_argument("--kind", choices=["flat", "hnsw"], default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    sys.stdout.write(json.dumps(result) + "\n")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything the benchmark reports."""
    rng = np.random.default_rng(20)
    shape = (max(1, arguments.count // _A_CENTRE), arguments.dimension)
    centres = unit(rng.standard_normal(shape, dtype=np.float32))
    with VectorWriter(folder / "vectors.npy", arguments.dimension) as writer:
        for chunk in draw(rng, centres, arguments.count, arguments.spread):
            writer.write(chunk)
    vectors = open_array(folder / "vectors.npy", np.float32, (arguments.count, None))
    queries = np.vstack(list(draw(rng, centres, arguments.queries, arguments.spread)))
    kind: Kind = arguments.kind or choose_kind(arguments.count)
    before, began = memory(), time.perf_counter()
    index = FaissIndex.build(vectors, kind)
    built = time.perf_counter() - began
    held = memory() - before
    index.save(folder / "vectors.faiss")
    began = time.perf_counter()
    index = FaissIndex.load(
        folder / "vectors.faiss", count=arguments.count, dimension=arguments.dimension
    )
    loaded = time.perf_counter() - began
    masks: dict[str, NDArray[np.bool_] | None] = {"all": None}
    masks |= {f"{share:.0%}": rng.random(arguments.count) < share for share in (0.5, 0.1, 0.01)}
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}",
        "count": arguments.count,
        "dimension": arguments.dimension,
        "spread": arguments.spread,
        "kind": kind,
        "build_s": round(built, 1),
        "held_mb": held,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000,
        "file_mb": (folder / "vectors.faiss").stat().st_size // 1_000_000,
        "load_s": round(loaded, 2),
    }
    began = time.perf_counter()
    bare = faiss.read_index(str(folder / "vectors.faiss"))
    result["load_bare_s"] = round(time.perf_counter() - began, 2)
    if kind == "hnsw":
        bare.hnsw.efSearch = EF_SEARCH
    result["one"] = beside_bare(index, bare, queries, 1)
    result["batch_of_64"] = beside_bare(index, bare, queries, 64)
    result["build_bare_s"] = round(clocked(lambda: build_bare(vectors, kind)), 1)
    result["load_1m"] = round(os.getloadavg()[0], 1)
    for name, mask in masks.items():
        rows = np.arange(arguments.count) if mask is None else np.flatnonzero(mask)
        some = queries if mask is None else queries[:100]
        wanted = rows[exact(vectors if mask is None else vectors[rows], some)]
        found = index.search(some, _K, mask)[0]
        result[f"recall_at_10_{name}"] = round(recall(found, wanted), 4)
        if mask is not None:
            result[f"one_of_{name}"] = timed(index, some, 1, mask)
    del index, bare
    return result | words(arguments.count, arguments.queries, folder)


def words(count: int, queries: int, folder: Path) -> dict[str, Any]:
    """The same of BM25: every text may be found."""
    dice = np.random.default_rng(21)
    before, began = memory(), time.perf_counter()
    LexicalIndex.build(texts(dice, count)).save(folder / "words")
    built = time.perf_counter() - began
    began = time.perf_counter()
    index = LexicalIndex.load(folder / "words", count=count)
    loaded = time.perf_counter() - began
    allowed = np.ones(count, dtype=np.bool_)
    asked = list(texts(dice, queries))
    taken = [clocked(lambda text=text: index.search([text], _K, allowed)) for text in asked]
    return {
        "words_build_s": round(built, 1),
        "words_load_s": round(loaded, 2),
        "words_held_mb": memory() - before,
        "words_one": percentiles(taken),
    }


if __name__ == "__main__":
    main()
