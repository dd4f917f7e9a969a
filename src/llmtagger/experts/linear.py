"""The linear expert: one ridge regression a tag, from a product's features to 0 or 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger.protocols import Vectors

RIDGE = 0.1  # for unit rows; .05 to .2 give the same within .005 F1 on six sets
_SUPPORT = 2  # labelled products that a tag needs; of one, only its own words would be learnt
_MOST_TAGS = 5000  # the most frequent ones: weights take 18 kB a tag


@dataclass(frozen=True, slots=True)
class LinearExpert:
    """`weights` (taught, d) and `shares` (taught,) of the tags at the positions `tags`."""

    tags: NDArray[np.int64]
    weights: Vectors
    shares: NDArray[np.float32]

    def estimate(self, features: Vectors) -> Vectors:
        """Estimates (n, taught), each clipped to 0..1."""
        estimates: Vectors = np.clip(features @ self.weights.T + self.shares, 0.0, 1.0)
        return estimates


def fit(features: Vectors, labels: Any, *, ridge: float = RIDGE) -> LinearExpert:
    """Fit unit rows (n, d) to a 0/1 CSR matrix (n, tags), in closed form.

    With Y less each tag's share: (X'X + ridge) W = X'Y, or, where products are fewer than
    features, its dual. Only tags on two products or more are taught.
    """
    return _Solved(features, labels, ridge).expert()


def left_out(
    features: Vectors, labels: Any, groups: Sequence[int], *, ridge: float = RIDGE
) -> tuple[NDArray[np.int64], Vectors]:
    """The taught tags' positions, and for each product the estimates (n, taught) without its group.

    Exact for a fixed share and without another fit: the residuals of the rows G left out together
    are (I - H_GG)^-1 of those fitted, H being the hat matrix (Cook & Weisberg 1982, 2.2). A tag
    that fewer than two products of other groups carry would not be taught: it is estimated at 0.
    """
    solved = _Solved(features, labels, ridge)
    return solved.tags, solved.left_out(groups)


class _Solved:
    """A ridge regression of all taught tags at once, solved on the smaller side."""

    def __init__(self, features: Vectors, labels: Any, ridge: float) -> None:
        support = np.asarray(labels.sum(axis=0)).ravel()
        taught = np.flatnonzero(support >= _SUPPORT)
        if len(taught) > _MOST_TAGS:
            order = np.argsort(-support[taught], kind="stable")[:_MOST_TAGS]
            taught = np.sort(taught[order])
        self.tags: NDArray[np.int64] = taught.astype(np.int64)
        self._features = features
        self._labels = labels[:, taught].toarray().astype(np.float32)
        self._support = support[taught]
        self._shares = self._labels.mean(axis=0) if len(features) else np.zeros(0, np.float32)
        self._ridge = ridge
        self._dual = len(features) < features.shape[1]
        gram = features @ features.T if self._dual else features.T @ features
        gram[np.diag_indices_from(gram)] += ridge
        self._inverse = np.linalg.inv(gram)
        target = self._labels - self._shares
        if self._dual:
            self._weights = features.T @ (self._inverse @ target)
        else:
            self._weights = self._inverse @ (features.T @ target)

    def expert(self) -> LinearExpert:
        weights = np.ascontiguousarray(self._weights.T, dtype=np.float32)
        return LinearExpert(self.tags, weights, self._shares.astype(np.float32))

    def left_out(self, groups: Sequence[int]) -> Vectors:
        residuals = self._labels - self._shares - self._features @ self._weights
        estimates: Vectors = np.empty_like(self._labels)
        for rows in rows_of(groups):
            missing = np.linalg.solve(self._rest(rows), residuals[rows])
            others = self._support - self._labels[rows].sum(axis=0)
            estimates[rows] = np.where(others >= _SUPPORT, self._labels[rows] - missing, 0.0)
        clipped: Vectors = np.clip(estimates, 0.0, 1.0)
        return clipped

    def _rest(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The block of I - H that belongs to those rows."""
        if self._dual:
            block: NDArray[Any] = self._ridge * self._inverse[np.ix_(rows, rows)]
            return block
        own = self._features[rows]
        rest: NDArray[Any] = np.eye(len(rows)) - own @ self._inverse @ own.T
        return rest


def rows_of(groups: Sequence[int]) -> Iterable[NDArray[np.int64]]:
    """The positions of each group's members."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(np.asarray(groups)[order])) + 1
    return np.split(order, cuts) if len(order) else []
