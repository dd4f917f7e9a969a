"""Splits that do not flatter: what resembles each other is learnt from or tested on, never both.

products ─ groups ─▶ group numbers ─ split | folds ─▶ sides ─ find_leaks ─▶ nothing, one hopes
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger.datatypes import Product
from llmtagger.errors import ConfigError
from llmtagger.normalise import normalise
from llmtagger.protocols import Vectors

Numbers = NDArray[np.int64]
Pairs = tuple[Numbers, Numbers]

SHARED = 0.85  # Jaccard similarity of two titles' shingles from which they count as the same
_SHINGLE = 4  # characters
_BLOCK = 1 << 24  # similarities held at once (64 MB)
_PAIRS = 1 << 16  # pairs of titles compared at once
_ROUNDING = 1e-5  # more than float32 cosines differ by with the shape of their matrix


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the products on either side, ascending, and every product's group number."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    groups: tuple[int, ...]


class LeakReason(StrEnum):
    """Why a test product is known from the train side, the surest reason first."""

    ID = "same_id"
    GROUP = "same_group"
    TITLE = "same_title"
    VECTOR = "near_duplicate_vector"
    SHINGLES = "near_duplicate_title"


@dataclass(frozen=True, slots=True)
class Leak:
    """A test product that resembles a train product too much; `similarity` is 0..1.

    It is the cosine for `VECTOR`, the Jaccard similarity of the titles for `SHINGLES`, else 1.
    """

    train_id: str
    test_id: str
    reason: LeakReason
    similarity: float


def groups(
    products: Sequence[Product], vectors: Vectors | None, *, near_duplicate: float = 0.95
) -> list[int]:
    """A group number for each product; products of different groups do not resemble each other.

    Products are joined, also through others, by an equal `group`, an equal normalised title, titles
    whose 4-character shingles have a Jaccard similarity of `SHARED` or more, and, where unit
    vectors (n, d) are given, a cosine of `near_duplicate` or more. How near duplicates are depends
    on the encoder: one that spreads a language over a narrow cone needs a higher threshold.
    """
    titles = [normalise(product.title) for product in products]
    numbers = np.arange(len(products))
    for pairs in _alike(products, titles, vectors, near_duplicate):
        numbers = _joined(numbers, pairs)
    return [int(number) for number in numbers]


def split(groups: Sequence[int], *, test: int, seed: int) -> Split:
    """Whole groups, shuffled, go to the test side until it holds `test` products or more.

    It never holds twice as many: a group of more than `test` products goes to the train side.
    Raises `ConfigError` where one side would be empty.
    """
    numbers = np.asarray(groups, dtype=np.int64)
    sizes = np.bincount(numbers)
    held, chosen = 0, np.zeros(len(sizes), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if held < test and sizes[group] <= test:
            chosen[group] = True
            held += sizes[group]
    tested = chosen[numbers]
    if tested.all() or not tested.any():
        raise ConfigError(
            f"{len(numbers)} products in {np.count_nonzero(sizes)} groups, the largest of "
            f"{sizes.max(initial=0)}, cannot be split with {test} to test on",
            hint="test on fewer products, or on more if all groups are large",
        )
    return Split(
        train=tuple(np.flatnonzero(~tested).tolist()),
        test=tuple(np.flatnonzero(tested).tolist()),
        groups=tuple(numbers.tolist()),
    )


def folds(groups: Sequence[int] | Numbers, k: int, seed: int) -> Numbers:
    """A fold number 0..k-1 for each product, one for a whole group, the folds about equal in size.

    Large groups are placed first, each in the fold that is smallest so far; equals are shuffled.
    Raises `ConfigError` where there are fewer groups than folds.
    """
    numbers = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)[1]
    sizes = np.bincount(numbers)
    if not 1 <= k <= len(sizes):
        raise ConfigError(
            f"{len(sizes)} groups of products cannot make {k} folds",
            hint="ask for fewer folds, at least 1, or give more products",
        )
    fold_of, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(k, dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[numbers]


def find_leaks(
    train_products: Sequence[Product],
    test_products: Sequence[Product],
    train_vectors: Vectors | None,
    test_vectors: Vectors | None,
    *,
    near_duplicate: float,
) -> list[Leak]:
    """What the test side shares with the train side: one leak a test product, the surest reason.

    It compares the two sides by other means than `groups`, so that a fault there shows here.
    Vectors are unit rows (n, d); without those of both sides only texts are compared.
    """
    found: dict[str, Leak] = {}
    for leaks in (
        _equal(train_products, test_products, lambda p: p.id, LeakReason.ID),
        _equal(train_products, test_products, lambda p: p.group, LeakReason.GROUP),
        _equal(train_products, test_products, _title, LeakReason.TITLE),
        _close(train_products, test_products, train_vectors, test_vectors, near_duplicate),
        _overlapping(train_products, test_products),
    ):
        for leak in leaks:
            found.setdefault(leak.test_id, leak)
    return [found[product.id] for product in test_products if product.id in found]


def shingles(title: str) -> frozenset[str]:
    """All stretches of 4 characters; a shorter title is its own shingle, an empty one has none."""
    if not title:
        return frozenset()
    last = max(1, len(title) - _SHINGLE + 1)
    return frozenset(title[start : start + _SHINGLE] for start in range(last))


def _alike(
    products: Sequence[Product], titles: Sequence[str], vectors: Vectors | None, threshold: float
) -> Iterator[Pairs]:
    yield _same([product.group for product in products])
    yield _same(titles)
    yield from _similar_titles(titles)
    if vectors is not None:
        yield from _similar_vectors(vectors, threshold - _ROUNDING)


def _joined(numbers: Numbers, pairs: Pairs) -> Numbers:
    """Group numbers after the groups of each pair of positions became one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = numbers[pairs[0]], numbers[pairs[1]]
    shape = (len(numbers), len(numbers))
    graph = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=shape)
    merged = connected_components(graph, directed=False)[1].astype(np.int64)[numbers]
    return np.asarray(np.unique(merged, return_inverse=True)[1], dtype=np.int64)


def _same(keys: Sequence[str]) -> Pairs:
    """Each position with the first one that has the same key; no key is like nothing."""
    first: dict[str, int] = {}
    firsts = [first.setdefault(key, at) if key else at for at, key in enumerate(keys)]
    return np.arange(len(keys)), np.array(firsts, dtype=np.int64)


def _similar_vectors(vectors: Vectors, threshold: float) -> Iterator[Pairs]:
    step = max(1, _BLOCK // max(1, len(vectors)))
    for start in range(0, len(vectors), step):
        left, right = np.nonzero(vectors[start : start + step] @ vectors[start:].T >= threshold)
        later = right > left
        yield left[later] + start, right[later] + start


def _similar_titles(titles: Sequence[str]) -> Iterator[Pairs]:
    """Pairs with a Jaccard similarity of `SHARED` or more, first of equal titles only.

    Two such sets must share one of their rarest shingles: of a set of n, one of the rarest
    n - ceil(SHARED * n) + 1. Pairs that do are few, and are compared in full.
    """
    first = {title: position for position, title in reversed(list(enumerate(titles))) if title}
    positions = np.array(list(first.values()), dtype=np.int64)
    sets = [shingles(title) for title in first]
    spread = Counter(each for held in sets for each in held)
    ranked = [sorted(held, key=lambda each: (spread[each], each)) for held in sets]
    left, right = _sharing([held[: _prefix(len(held))] for held in ranked])
    full, sizes = _matrix(ranked), np.array([len(held) for held in sets], dtype=np.int64)
    for start in range(0, len(left), _PAIRS):
        a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
        common = np.asarray(full[a].multiply(full[b]).sum(axis=1)).ravel()
        near = _jaccard(common, sizes[a], sizes[b]) >= SHARED
        yield positions[a[near]], positions[b[near]]


def _prefix(size: int) -> int:
    return size - ceil(SHARED * size - _ROUNDING) + 1


def _sharing(sets: Sequence[Sequence[str]]) -> Pairs:
    """Pairs of positions, each once, whose sets have something in common."""
    from scipy.sparse import triu

    matrix = _matrix(sets)
    shared = triu(matrix @ matrix.T, k=1)
    return shared.row.astype(np.int64), shared.col.astype(np.int64)


def _matrix(sets: Sequence[Sequence[str]]) -> Any:
    """A 0/1 matrix in CSR form, a row a set, a column a shingle."""
    from scipy.sparse import csr_matrix

    column: dict[str, int] = {}
    columns = [column.setdefault(each, len(column)) for held in sets for each in held]
    ends = np.cumsum([0, *map(len, sets)])
    return csr_matrix(
        (np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(sets), len(column))
    )


def _jaccard(common: NDArray[Any], one: NDArray[Any] | int, other: NDArray[Any] | int) -> Any:
    return common / (one + other - common)


def _title(product: Product) -> str:
    return normalise(product.title)


def _equal(
    train: Sequence[Product],
    test: Sequence[Product],
    key: Callable[[Product], str],
    reason: LeakReason,
) -> Iterator[Leak]:
    known = {value: product.id for product in reversed(train) if (value := key(product))}
    for product in test:
        if train_id := known.get(key(product)):
            yield Leak(train_id, product.id, reason, 1.0)


def _close(
    train: Sequence[Product],
    test: Sequence[Product],
    train_vectors: Vectors | None,
    test_vectors: Vectors | None,
    threshold: float,
) -> Iterator[Leak]:
    if train_vectors is None or test_vectors is None or not train:
        return
    step = max(1, _BLOCK // len(train))
    for start in range(0, len(test), step):
        cosines = test_vectors[start : start + step] @ train_vectors.T
        for product, nearest, cosine in zip(
            test[start : start + step], cosines.argmax(axis=1), cosines.max(axis=1), strict=True
        ):
            if cosine >= threshold:
                yield Leak(
                    train[nearest].id, product.id, LeakReason.VECTOR, min(1.0, float(cosine))
                )


def _overlapping(train: Sequence[Product], test: Sequence[Product]) -> Iterator[Leak]:
    """Counts shared shingles through an index from each shingle to the train titles with it."""
    holders: defaultdict[str, list[int]] = defaultdict(list)
    sizes = np.zeros(len(train), dtype=np.int64)
    for position, product in enumerate(train):
        held = shingles(_title(product))
        sizes[position] = len(held)
        for each in held:
            holders[each].append(position)
    index = {each: np.array(held, dtype=np.int64) for each, held in holders.items()}
    for product in test:
        held = shingles(_title(product))
        hits = [index[each] for each in held if each in index]
        if not hits:
            continue
        common = np.bincount(np.concatenate(hits), minlength=len(train))
        shared = _jaccard(common, sizes, len(held))
        nearest = int(shared.argmax())
        if shared[nearest] >= SHARED:
            yield Leak(train[nearest].id, product.id, LeakReason.SHINGLES, float(shared[nearest]))
