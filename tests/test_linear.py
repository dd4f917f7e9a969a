from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from llmtagger import linear
from llmtagger.backends.vectors import unit
from llmtagger.protocols import Vectors


@pytest.fixture
def taught() -> tuple[Vectors, csr_matrix]:
    """60 products in 8 dimensions; tag 0 follows the first axis, tag 3 has one carrier."""
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(60, 8)))
    labels = rng.random((60, 5)) < 0.3
    labels[:, 0] = vectors[:, 0] > 0
    labels[:, 3] = np.arange(60) == 17
    labels[:, 4] = False
    return vectors, csr_matrix(labels)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_weights_are_the_penalised_least_squares_solution(
    ridge: float, taught: tuple[Vectors, csr_matrix]
) -> None:
    """The penalty written as eight further rows of data, solved by another routine."""
    vectors, labels = taught
    rows = np.hstack([vectors.astype(float), np.ones((60, 1))])
    pull = np.hstack([np.sqrt(ridge) * np.eye(8), np.zeros((8, 1))])
    target = np.vstack([labels.toarray().astype(float), np.zeros((8, 5))])
    wanted = np.linalg.lstsq(np.vstack([rows, pull]), target, rcond=None)[0].T
    wanted[3:] = 0.0
    np.testing.assert_allclose(linear.fit(vectors, labels, ridge=ridge), wanted, atol=1e-4)


def test_chunks_make_no_difference(
    taught: tuple[Vectors, csr_matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = linear.fit(*taught)
    monkeypatch.setattr(linear, "_ROWS", 7)
    np.testing.assert_allclose(linear.fit(*taught), whole, atol=1e-5)


def test_a_tag_with_one_carrier_or_none_is_not_learned(
    taught: tuple[Vectors, csr_matrix],
) -> None:
    weights = linear.fit(*taught)
    assert weights.shape == (5, 9)
    assert weights.dtype == np.float32
    assert not weights[3:].any()
    assert weights[:3].any(axis=1).all()


def test_estimates_stay_within_0_and_1_and_tell_the_tag(
    taught: tuple[Vectors, csr_matrix],
) -> None:
    vectors, labels = taught
    estimates = linear.predict(linear.fit(vectors, labels, ridge=0.01), vectors)
    assert estimates.min() == 0.0
    assert estimates.max() <= 1.0
    carries = labels.toarray()[:, 0]
    assert estimates[carries, 0].mean() > estimates[~carries, 0].mean() + 0.4


@pytest.mark.parametrize("tags", [0, 3])
def test_without_products_there_is_nothing_to_learn(tags: int) -> None:
    weights = linear.fit(np.zeros((0, 4), np.float32), csr_matrix((0, tags), dtype=bool))
    assert weights.shape == (tags, 5)
    assert not weights.any()
