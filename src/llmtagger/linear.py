"""The linear expert: one ridge regression a tag, from a product's vector to 0 or 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmtagger.protocols import Vectors

RIDGE = 1.0  # products' worth of pull towards 0
_SUPPORT = 2  # labelled products that a tag needs; of one, only its own words would be learned
_ROWS = 65_536


def fit(vectors: Vectors, labels: Any, *, ridge: float = RIDGE) -> Vectors:
    """Weights (tags, d + 1), the bias last, for unit vectors (n, d) and a 0/1 CSR matrix (n, tags).

    Solved in closed form: (X'X + ridge) W = X'Y with X = [vectors, 1]; the bias is not penalised.
    Tags on fewer than two products get zeros.
    """
    count, dimension = vectors.shape
    weights = np.zeros((labels.shape[1], dimension + 1), dtype=np.float32)
    support = np.asarray(labels.sum(axis=0)).ravel()
    taught = np.flatnonzero(support >= _SUPPORT)
    if not len(taught):
        return weights
    gram = np.diag([ridge] * dimension + [0.0])
    target = np.zeros((len(taught), dimension + 1))
    wanted = labels[:, taught].astype(np.float32)
    for start in range(0, count, _ROWS):
        rows = with_bias(vectors[start : start + _ROWS])
        gram += rows.T @ rows
        target += wanted[start : start + _ROWS].T @ rows
    weights[taught] = np.linalg.solve(gram, target.T).T
    return weights


def predict(weights: Vectors, vectors: Vectors) -> Vectors:
    """Estimates (n, tags), each clipped to 0..1."""
    return np.clip(with_bias(vectors) @ weights.T, 0.0, 1.0)


def with_bias(vectors: Vectors) -> Vectors:
    """The rows with a 1 behind each."""
    return np.hstack([vectors, np.ones((len(vectors), 1), dtype=np.float32)])
