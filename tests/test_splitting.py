"""Splits: what is alike stays on one side, and an independent check agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.datatypes import Product
from llmtagger.errors import ConfigError
from llmtagger.evaluation import splitting
from llmtagger.evaluation.splitting import (
    Leak,
    LeakReason,
    find_leaks,
    folds,
    groups,
    shingles,
    split,
)
from llmtagger.protocols import Vectors

LONG = "wallet of brown leather with a zip, twelve slots and a pouch for coins"


def titled(*titles: str) -> list[Product]:
    return [Product(id=str(number), title=title) for number, title in enumerate(titles)]


def towards(*degrees: float) -> Vectors:
    """Unit vectors in a plane: the cosine of two is that of the angle between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        pytest.param(["Red Hat", "blue shoe", " red  ＨＡＴ"], [0, 1, 0], id="same-but-for-case"),
        pytest.param([LONG, "other", LONG + "s"], [0, 1, 0], id="a-letter-more"),
        pytest.param([LONG, LONG.replace("brown", "black")], [0, 1], id="a-word-changed"),
        pytest.param(["abc", "abd", "ABC"], [0, 1, 0], id="shorter-than-a-shingle"),
        pytest.param(["\u200b", "\u200b", "a"], [0, 1, 2], id="nothing-to-see"),
        pytest.param([], [], id="none"),
    ],
)
def test_titles_that_are_alike(titles: list[str], expected: list[int]) -> None:
    assert groups(titled(*titles), None) == expected


def test_likeness_is_handed_on() -> None:
    """0 and 1 share a group, 1 and 2 a title, 2 and 3 a direction."""
    products = [
        Product(id="0", title="a", group="g"),
        Product(id="1", title="b", group="g"),
        Product(id="2", title="B"),
        Product(id="3", title="d"),
        Product(id="4", title="e"),
    ]
    assert groups(products, towards(0, 40, 80, 90, 130)) == [0, 0, 0, 0, 1]
    assert groups(products, None) == [0, 0, 0, 1, 2]


def test_the_threshold_of_vectors_is_the_callers() -> None:
    products = titled("a", "b", "c")
    vectors = towards(0, 10, 30)  # cosines 0.985, 0.940 and 0.866
    found = [groups(products, vectors, near_duplicate=t) for t in (0.99, 0.95, 0.93)]
    assert found == [[0, 1, 2], [0, 0, 1], [0, 0, 0]]


def test_vectors_are_compared_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 20)
    rng = np.random.default_rng(0)
    degrees = rng.uniform(0, 360, 10)
    vectors = towards(*degrees, *degrees)
    titles = [chr(ord("a") + number) for number in range(20)]
    found = groups(titled(*titles), vectors, near_duplicate=0.9999999)
    assert found[:10] == found[10:]


def slowly_alike(titles: Sequence[str]) -> list[int]:
    """Groups by shingles as the definition has it: every pair, and again until nothing changes."""
    found = list(range(len(titles)))
    sets = [shingles(title) for title in titles]
    for _ in titles:
        for a in range(len(titles)):
            for b in range(len(titles)):
                if len(sets[a] & sets[b]) >= 0.85 * len(sets[a] | sets[b]):
                    found[a] = found[b] = min(found[a], found[b])
    order = {number: rank for rank, number in enumerate(dict.fromkeys(found))}
    return [order[number] for number in found]


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59), st.sampled_from("ab ")), max_size=8)
)
def test_no_pair_of_titles_is_overlooked(changes: list[tuple[int, int, str]]) -> None:
    base = [chr(ord("a") + number % 26) for number in range(0, 180, 3)]
    titles = []
    for start, length, char in changes:
        title = base[start : start + length]
        title[:: max(1, len(title))] = [char] if title else []
        titles.append("".join(title).strip() or "x")
    assert groups(titled(*titles), None) == slowly_alike(titles)


WORDS = st.lists(st.sampled_from(["red", "blue", "leather", "wallet", "shoe", "2024"]), min_size=1)
PRODUCTS = st.lists(
    st.tuples(WORDS, st.sampled_from(["", "", "", "g", "h"]), st.integers(0, 71)),
    min_size=4,
    max_size=30,
)


@given(PRODUCTS, st.integers(1, 10), st.integers(0, 5))
def test_a_split_by_groups_has_no_leaks(
    rows: list[tuple[list[str], str, int]], test: int, seed: int
) -> None:
    products = [
        Product(id=str(number), title=" ".join(words), group=group)
        for number, (words, group, _) in enumerate(rows)
    ]
    vectors = towards(*(5.0 * step for _, _, step in rows))
    numbers = groups(products, vectors, near_duplicate=0.996)  # 5 degrees
    try:
        halves = split(numbers, test=test, seed=seed)
    except ConfigError:
        return
    assert halves.groups == tuple(numbers)
    assert sorted(halves.train + halves.test) == list(range(len(products)))
    assert {numbers[i] for i in halves.train}.isdisjoint(numbers[i] for i in halves.test)
    assert 0 < len(halves.test) < 2 * test
    train, tested = list(halves.train), list(halves.test)
    leaks = find_leaks(
        [products[i] for i in train],
        [products[i] for i in tested],
        vectors[train],
        vectors[tested],
        near_duplicate=0.996,
    )
    assert leaks == []


def test_a_giant_group_is_learnt_from() -> None:
    numbers = [0] * 50 + list(range(1, 31))
    for seed in range(10):
        halves = split(numbers, test=10, seed=seed)
        assert len(halves.test) == 10
        assert set(range(50)) <= set(halves.train)


def test_a_seed_decides() -> None:
    numbers = list(range(100))
    assert split(numbers, test=20, seed=1) == split(numbers, test=20, seed=1)
    assert split(numbers, test=20, seed=1) != split(numbers, test=20, seed=2)
    assert (folds(numbers, 5, 1) == folds(numbers, 5, 1)).all()
    assert (folds(numbers, 5, 1) != folds(numbers, 5, 2)).any()


@pytest.mark.parametrize(
    ("numbers", "test"),
    [
        pytest.param([0, 0, 0, 0], 2, id="one-giant-group"),
        pytest.param([0, 1, 2], 3, id="nothing-to-learn-from"),
        pytest.param([0, 1, 2], 0, id="nothing-to-test-on"),
        pytest.param([], 1, id="no-products"),
    ],
)
def test_a_side_may_not_be_empty(numbers: list[int], test: int) -> None:
    with pytest.raises(ConfigError, match="cannot be split") as caught:
        split(numbers, test=test, seed=0)
    assert caught.value.hint


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 6), st.integers(0, 9))
def test_folds_hold_whole_groups_and_are_about_equal(numbers: list[int], k: int, seed: int) -> None:
    sizes = Counter(numbers)
    if k > len(sizes):
        with pytest.raises(ConfigError, match="folds"):
            folds(numbers, k, seed)
        return
    found = folds(numbers, k, seed).tolist()
    assert len(set(zip(numbers, found, strict=True))) == len(sizes)
    filled = Counter(found)
    assert set(filled) == set(range(k))
    assert max(filled.values()) - min(filled.values()) <= max(sizes.values())


def test_large_groups_are_placed_first() -> None:
    numbers = [0] * 4 + [1] * 3 + [2] * 3 + [3] * 2
    assert [Counter(folds(numbers, 2, seed).tolist())[0] for seed in range(5)] == [6] * 5


TRAIN = [
    Product(id="t0", title=LONG, group="g"),
    Product(id="t1", title="running shoe"),
    Product(id="t2", title="kettle"),
]


@pytest.mark.parametrize(
    ("product", "degrees", "expected"),
    [
        pytest.param(
            Product(id="t1", title="x", group="g"),
            180,
            Leak("t1", "t1", LeakReason.ID, 1.0),
            id="id",
        ),
        pytest.param(
            Product(id="n", title="x", group="g"),
            180,
            Leak("t0", "n", LeakReason.GROUP, 1.0),
            id="group",
        ),
        pytest.param(
            Product(id="n", title="Running  SHOE"),
            180,
            Leak("t1", "n", LeakReason.TITLE, 1.0),
            id="title",
        ),
        pytest.param(
            Product(id="n", title="x"),
            93,
            Leak("t2", "n", LeakReason.VECTOR, float(np.cos(np.radians(3)))),
            id="vector",
        ),
        pytest.param(
            Product(id="n", title=LONG + "s"),
            180,
            Leak("t0", "n", LeakReason.SHINGLES, 67 / 68),
            id="shingles",
        ),
    ],
)
def test_planted_leaks_are_found(product: Product, degrees: float, expected: Leak) -> None:
    clean = Product(id="clean", title="garden hose")
    [leak] = find_leaks(
        TRAIN, [clean, product], towards(0, 45, 90), towards(270, degrees), near_duplicate=0.95
    )
    assert leak.similarity == pytest.approx(expected.similarity)
    assert replace(leak, similarity=expected.similarity) == expected


def test_leaks_without_vectors_or_products() -> None:
    test = [Product(id="n", title="x"), Product(id="m", title="Kettle")]
    leaks = find_leaks(TRAIN, test, None, None, near_duplicate=0.95)
    assert [leak.test_id for leak in leaks] == ["m"]
    assert find_leaks([], test, towards(), towards(0, 1), near_duplicate=0.95) == []
    assert find_leaks(TRAIN, [], None, None, near_duplicate=0.95) == []
