"""The k best of many scores: most of them equal, as BM25's zeros are, or none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.vectors import best_positions


@given(
    count=st.integers(0, 3000),
    values=st.integers(1, 3000),
    k=st.integers(0, 50),
    above=st.sampled_from([-np.inf, 0.0, 5.0]),
    seed=st.integers(0, 999),
)
def test_as_if_all_were_sorted(count: int, values: int, k: int, above: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(-1, values, count)
    scores = np.where(drawn < 0, -np.inf, drawn).astype(np.float32)
    in_order = sorted(np.flatnonzero(scores > above).tolist(), key=lambda at: (-scores[at], at))
    assert best_positions(scores, k, above=above).tolist() == in_order[:k]


@pytest.mark.parametrize("count", [639, 640, 641, 704])
def test_the_last_scores_stand_for_themselves(count: int) -> None:
    """A run is 64 scores, and what is left over is no run."""
    scores = np.arange(count, dtype=np.float32)
    expected = list(range(count - 1, count - 11, -1))
    assert best_positions(scores, 10, above=0.0).tolist() == expected
