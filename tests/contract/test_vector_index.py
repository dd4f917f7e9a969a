"""Every vector index against cosines computed one by one, in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmtagger.backends import vectors as module
from llmtagger.backends.vectors import ExactIndex, FaissIndex, choose_kind, exact_index, unit
from llmtagger.errors import IndexDamaged
from llmtagger.protocols import Hits, Mask, VectorIndex, Vectors

COUNT, DIMENSION = 240, 24
KINDS = ["exact", "flat", "hnsw", "flat_saved", "hnsw_saved", "hnsw_appended"]


def make(kind: str, vectors: Vectors, folder: Path) -> VectorIndex:
    if kind == "exact":
        return ExactIndex(vectors)
    if kind == "hnsw_appended":
        grown = FaissIndex.build(vectors[: len(vectors) // 2], "hnsw")
        grown.add(vectors[len(vectors) // 2 :])
        return grown
    built = FaissIndex.build(vectors, "flat" if kind.startswith("flat") else "hnsw")
    if not kind.endswith("saved"):
        return built
    built.save(folder / "vectors.faiss")
    return FaissIndex.load(folder / "vectors.faiss", count=len(vectors), dimension=vectors.shape[1])


def reference(vectors: Vectors, queries: Vectors, k: int, allowed: Mask | None) -> Hits:
    positions = np.full((len(queries), k), -1, dtype=np.int64)
    similarities = np.full((len(queries), k), -1.0, dtype=np.float32)
    for row, query in enumerate(queries.astype(float)):
        scored = sorted(
            (
                -float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query)),
                position,
            )
            for position, vector in enumerate(vectors.astype(float))
            if allowed is None or allowed[position]
        )
        for rank, (negative, position) in enumerate(scored[:k]):
            positions[row, rank], similarities[row, rank] = position, -negative
    return positions, similarities


@pytest.fixture(scope="module")
def data() -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(12, DIMENSION))
    vectors = unit(centres[rng.integers(12, size=COUNT)] + rng.normal(size=(COUNT, DIMENSION)))
    queries = rng.normal(size=(9, DIMENSION)).astype(np.float32)
    queries *= np.array([[0.001], [0.1], [1], [3], [10], [50], [250], [1e4], [1e-6]], np.float32)
    return vectors, queries


MASKS = {
    "all": None,
    "half": np.arange(COUNT) % 2 == 0,
    "most": np.arange(COUNT) % 10 != 0,
    "three": np.isin(np.arange(COUNT), [5, 77, 200]),
    "none": np.zeros(COUNT, dtype=bool),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("k", [1, 10, COUNT + 5])
def test_equals_the_exact_answer_on_queries_of_any_length(
    kind: str, mask: str, k: int, data: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    vectors, queries = data
    wanted = reference(vectors, queries, k, MASKS[mask])
    found = make(kind, vectors, tmp_path).search(queries, k, MASKS[mask])
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)
    np.testing.assert_array_equal(found[0], wanted[0])
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_find_or_to_look_for(
    kind: str, data: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    vectors, queries = data
    empty = make(kind, vectors[:0], tmp_path)
    positions, similarities = empty.search(queries, 3)
    assert positions.tolist() == [[-1] * 3] * len(queries)
    assert similarities.tolist() == [[-1.0] * 3] * len(queries)
    assert make(kind, vectors, tmp_path).search(queries[:0], 3)[0].shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_without_direction_still_gets_an_answer(
    kind: str, data: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    queries = np.zeros((2, DIMENSION), dtype=np.float32)
    queries[1] = np.nan
    positions, similarities = make(kind, data[0], tmp_path).search(queries, 4)
    assert (positions >= 0).all()
    assert np.isfinite(similarities).all()


def test_equal_similarities_come_in_the_order_of_positions() -> None:
    vectors = unit([[1, 0], [0, 1], [1, 0], [1, 0]])
    assert ExactIndex(vectors).search(vectors[:1], 2)[0].tolist() == [[0, 2]]


def test_the_exact_index_works_in_blocks(
    data: tuple[Vectors, Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = data
    whole = ExactIndex(vectors).search(queries, 5)
    monkeypatch.setattr(module, "_BLOCK", 2 * COUNT)
    np.testing.assert_array_equal(ExactIndex(vectors).search(queries, 5)[0], whole[0])


def test_a_graph_walks_on_when_a_mask_is_selective(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector in twenty, none scanned: found by walking twenty times as far."""
    monkeypatch.setattr(module, "_SCAN_LIMIT", 0)
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(4000, 16)))
    queries = unit(rng.normal(size=(20, 16)))
    allowed = np.arange(4000) % 20 == 0
    wanted = reference(vectors, queries, 10, allowed)[0]
    found = FaissIndex.build(vectors, "hnsw").search(queries, 10, allowed)[0]
    hits = sum(len(set(a) & set(b)) for a, b in zip(wanted.tolist(), found.tolist(), strict=True))
    assert hits >= 0.98 * 200


@pytest.mark.parametrize("mask", ["all", "half", "three"])
def test_vectors_that_are_not_live_are_never_found(
    mask: str, data: tuple[Vectors, Vectors]
) -> None:
    vectors, queries = data
    live = np.arange(COUNT) % 7 != 0
    allowed = MASKS[mask]
    index = FaissIndex.build(vectors, "hnsw").with_live(live)
    wanted = reference(vectors, queries, 6, live if allowed is None else live & allowed)
    np.testing.assert_array_equal(index.search(queries, 6, allowed)[0], wanted[0])


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other_count", "missing"])
def test_a_damaged_file_is_refused(
    damage: str, data: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    path = tmp_path / "vectors.faiss"
    FaissIndex.build(data[0], "hnsw").save(path)
    whole = path.read_bytes()
    changed = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not an index\n" * 50}
    path.write_bytes(changed.get(damage, whole))
    if damage == "missing":
        path.unlink()
    with pytest.raises(IndexDamaged, match=r"vectors\.faiss"):
        FaissIndex.load(path, count=COUNT - (damage == "other_count"), dimension=DIMENSION)


@pytest.mark.parametrize(("count", "kind"), [(0, "flat"), (50_000, "flat"), (50_001, "hnsw")])
def test_the_size_decides_the_kind(count: int, kind: str) -> None:
    assert choose_kind(count) == kind


def test_without_faiss_exact_search_is_numpy(
    data: tuple[Vectors, Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(exact_index(data[0]), FaissIndex)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(exact_index(data[0]), ExactIndex)


@pytest.mark.parametrize(
    ("row", "scaled"),
    [
        ([3, 4], [0.6, 0.8]),
        ([0, 0], [1, 0]),
        ([np.inf, 1], [1, 0]),
        ([np.nan, 1], [1, 0]),
        ([0, -2], [0, -1]),
    ],
    ids=["any", "zero", "infinite", "nan", "negative"],
)
def test_unit(row: list[float], scaled: list[float]) -> None:
    np.testing.assert_allclose(unit([row]), [scaled], atol=1e-7)
