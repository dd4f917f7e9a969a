"""Stand-ins with answers that a person can compute, for tests and dry runs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmtagger.backends.vectors import unit
from llmtagger.protocols import Vectors

_WORDS = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]")


class HashingEncoder:
    """Counts words by a checksum: two texts are as similar as the words they share.

    A Chinese character is a word. Without a collision, `encode(["red bag", "red hat"])` gives two
    vectors whose cosine is 1/2: one word of two in common.
    """

    name = "hashing"
    revision = "1"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors with a word count in each word's place."""
        counts: NDArray[np.float32] = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORDS.findall(text.casefold()):
                counts[row, self.place(word)] += 1
        return unit(counts)

    def place(self, word: str) -> int:
        """The dimension that counts a word; 0 is left to texts without any."""
        return 1 + zlib.crc32(word.encode("utf-8", "replace")) % (self.dimension - 1)
