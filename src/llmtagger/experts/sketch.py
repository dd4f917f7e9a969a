"""Texts as vectors of hashed character n-grams: what a linear model needs to know of the words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtagger.normalise import normalise
from llmtagger.protocols import Vectors

DIMENSION = 4096
BUCKETS = 1 << 18
_LONGEST = 4  # characters of an n-gram; all lengths from 1 on count
_LETTER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a product with it loses nothing
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, slots=True)
class Sketch:
    """TF-IDF of character n-grams, folded into 4,096 dimensions with random signs.

    `idf` (2**18,) weighs the hash buckets. The dot product of two sketches estimates the cosine
    of the two TF-IDF vectors (feature hashing: Weinberger et al., ICML 2009).
    """

    idf: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Sketch:
        """Learn how rare each bucket is; what no text holds counts as rarest."""
        frequency = np.zeros(BUCKETS, dtype=np.int64)
        count = 0
        for text in texts:
            frequency[np.unique(_buckets(text))] += 1
            count += 1
        return cls((np.log((1 + count) / (1 + frequency)) + 1).astype(np.float32))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, 4096); that of an empty text is zero."""
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            found, counts = np.unique(_buckets(text), return_counts=True)
            weights = (1 + np.log(counts)) * self.idf[found]
            signs = np.where(found // DIMENSION % 2, 1.0, -1.0)
            vectors[row] = np.bincount(found % DIMENSION, weights * signs, minlength=DIMENSION)
            if norm := np.linalg.norm(vectors[row]):
                vectors[row] /= norm
        return vectors


def _buckets(text: str) -> NDArray[np.int64]:
    """The bucket of every n-gram, a polynomial hash of its characters; words are set off by blanks.

    >>> len(_buckets("red"))  # " red ": 5 of one character, 4 of two, 3 of three, 2 of four
    14
    """
    folded = normalise(text)
    if not folded:
        return np.zeros(0, dtype=np.int64)
    encoded = f" {folded} ".encode("utf-32-le", errors="replace")
    letters = np.frombuffer(encoded, dtype="<u4").astype(np.uint64)
    state = np.zeros(len(letters), dtype=np.uint64)
    found = []
    for length in range(1, min(_LONGEST, len(letters)) + 1):
        last = letters[length - 1 :] + np.uint64(length)
        state = state[: len(last)] * _LETTER + last * _MIX
        mixed = (state ^ (state >> np.uint64(31))) * _MIX
        found.append((mixed ^ (mixed >> np.uint64(29))) % np.uint64(BUCKETS))
    return np.concatenate(found).astype(np.int64)
