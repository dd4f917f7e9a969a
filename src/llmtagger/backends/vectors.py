"""Nearest vectors: exact in numpy, exact or approximate in FAISS. Similarity is always cosine."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmtagger.errors import IndexDamaged, IndexFolderError
from llmtagger.protocols import Hits, Mask, VectorIndex, Vectors

Kind = Literal["flat", "hnsw"]

FLAT_LIMIT = 50_000  # vectors; searched exactly up to here, by graph above
LINKS = 24  # HNSW's M
EF_BUILD = 80
EF_SEARCH = 128  # recall@10 of 1.0 at 100,000 x 384; see benchmarks/README.md
_EF_MOST = 4096
_SCAN_LIMIT = 50_000  # allowed vectors up to which scanning them beats walking the graph
_RUN = 64  # scores in a row whose largest stands for them
_BLOCK = 1 << 24  # similarities held at once by the exact search (64 MB)


def unit(vectors: ArrayLike) -> Vectors:
    """Each row scaled to length 1, float32; a row without direction becomes the first axis."""
    rows = np.array(vectors, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lost = ~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0))
    rows[lost], lengths[lost] = 0.0, 1.0
    rows[lost, 0] = 1.0
    return np.asarray(rows / lengths, dtype=np.float32)


def choose_kind(count: int) -> Kind:
    """How that many vectors are searched unless the user says otherwise."""
    return "flat" if count <= FLAT_LIMIT else "hnsw"


class ExactIndex:
    """Compares a query with every vector; needs nothing but numpy."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> Hits:
        """The k nearest, equals in the order of their positions; see `VectorIndex.search`."""
        queries = unit(vectors)
        step = max(1, _BLOCK // max(1, len(self._vectors)))
        blocks = [
            self._block(queries[start : start + step], k, allowed)
            for start in range(0, len(queries), step)
        ]
        if not blocks:
            return _nothing(0, k)
        positions, similarities = zip(*blocks, strict=True)
        return np.concatenate(positions), np.concatenate(similarities)

    def _block(self, queries: Vectors, k: int, allowed: Mask | None) -> Hits:
        positions, similarities = _nothing(len(queries), k)
        scores = queries @ self._vectors.T
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        for row, each in enumerate(scores):
            best = best_positions(each, k, above=-np.inf)
            positions[row, : len(best)] = best
            similarities[row, : len(best)] = each[best]
        return positions, similarities


class FaissIndex:
    """A FAISS index over unit vectors: `flat` is exact, `hnsw` a graph for large catalogues.

    `live` marks the vectors that may be found at all: a graph cannot delete, so removed ones stay
    in it as stepping stones.
    """

    def __init__(self, index: Any, *, live: Mask | None = None) -> None:
        self._index = index
        self._live = live

    @classmethod
    def build(cls, vectors: Vectors, kind: Kind) -> FaissIndex:
        """Index unit vectors; a graph over 1,000,000 x 384 takes long, see benchmarks/."""
        faiss = import_faiss()
        dimension = vectors.shape[1]
        if kind == "flat":
            index = faiss.IndexFlatIP(dimension)
        else:
            index = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = EF_BUILD
        built = cls(index)
        built.add(vectors)
        return built

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def with_live(self, live: Mask | None) -> FaissIndex:
        """The same index with another set of vectors that may be found."""
        return FaissIndex(self._index, live=live)

    def add(self, vectors: Vectors) -> None:
        """Append unit vectors; their positions follow those already there."""
        step = max(1, _BLOCK // vectors.shape[1])
        for start in range(0, len(vectors), step):
            self._index.add(np.ascontiguousarray(vectors[start : start + step], dtype=np.float32))

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> Hits:
        """The k nearest; see `VectorIndex.search`."""
        queries = unit(vectors)
        allowed = _both(self._live, allowed)
        if not len(queries) or not len(self) or not k:
            return _nothing(len(queries), k)
        index, parameters = self._plan(k, allowed)
        similarities, positions = index.search(queries, k, params=parameters)
        similarities[positions < 0] = -1.0
        return positions, similarities

    def _plan(self, k: int, allowed: Mask | None) -> tuple[Any, Any]:
        """What to search and how: few allowed vectors are scanned, many make the walk longer."""
        faiss = import_faiss()
        found = len(self) if allowed is None else int(np.count_nonzero(allowed))
        selector = None if found == len(self) or allowed is None else _selector(faiss, allowed)
        if not self._is_graph:
            return self._index, _parameters(faiss.SearchParameters, selector)
        if found <= min(_SCAN_LIMIT, len(self) // 2):
            return self._index.storage, _parameters(faiss.SearchParameters, selector)
        effort = max(EF_SEARCH, 2 * k) * len(self) // found
        walk = {"efSearch": min(effort, max(_EF_MOST, 2 * k))}
        return self._index, _parameters(faiss.SearchParametersHNSW, selector, **walk)

    @cached_property
    def _is_graph(self) -> bool:
        return hasattr(self._index, "hnsw")

    def save(self, path: Path) -> None:
        """Write the FAISS file that `load` reads."""
        import_faiss().write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, *, count: int, dimension: int) -> FaissIndex:
        """Read an index of `count` vectors; `IndexDamaged` where it is not one."""
        faiss = import_faiss()
        damaged = IndexDamaged(
            f"{path} is damaged", hint="build the index again with `llmtagger index build`"
        )
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise damaged from error
        if (index.ntotal, index.d) != (count, dimension):
            raise damaged
        return cls(index)


def exact_index(vectors: Vectors) -> VectorIndex:
    """An exact index: FAISS where it is installed, else numpy."""
    if importlib.util.find_spec("faiss") is None:
        return ExactIndex(vectors)
    return FaissIndex.build(vectors, "flat")


def import_faiss() -> Any:
    """FAISS, or the line that installs it."""
    try:
        import faiss
    except ImportError as error:
        raise IndexFolderError(
            "this index needs FAISS, which is not installed",
            hint="pip install 'llmtagger[cpu]', or llmtagger[gpu] on a machine with CUDA",
        ) from error
    return faiss


def best_positions(scores: NDArray[np.float32], k: int, *, above: float) -> NDArray[np.int64]:
    """Positions of the k largest scores over `above`, best first, equals by position."""
    if k < len(scores):
        least = _best_of(scores, k) if k else np.inf
        picked = np.flatnonzero((scores >= least) & (scores > above))
    else:
        picked = np.flatnonzero(scores > above)
    order = np.argsort(-scores[picked], kind="stable")[:k]
    return np.asarray(picked[order], dtype=np.int64)


def _best_of(scores: NDArray[np.float32], k: int) -> np.float32:
    """The k-th largest score.

    The k-th largest of runs' largest is no larger. To leave out all below it first is several times
    as fast, and fifty times where most are equal, as BM25's zeros are: partition is slow with ties.
    """
    if k * _RUN < len(scores):
        heads = scores[: len(scores) // _RUN * _RUN].reshape(-1, _RUN).max(axis=1)
        scores = scores[scores >= np.partition(heads, -k)[-k]]
    return np.float32(np.partition(scores, -k)[-k])


def _nothing(rows: int, k: int) -> Hits:
    return np.full((rows, k), -1, dtype=np.int64), np.full((rows, k), -1.0, dtype=np.float32)


def _both(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _selector(faiss: Any, allowed: Mask) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _parameters(kind: Any, selector: Any, **settings: int) -> Any:
    parameters = kind(**settings)
    if selector is not None:
        parameters.sel = selector
    return parameters
