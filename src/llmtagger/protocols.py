"""Every seam of llmtagger on one screen. An implementation is any class with these methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmtagger.datatypes import (
    Completion,
    Constraint,
    Opinion,
    ParsedTags,
    Product,
    Prompt,
    ScoredTags,
    Shortlist,
)

Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]
Hits = tuple[Positions, Vectors]


class Encoder(Protocol):
    """Turns texts into vectors. `name` and `revision` identify it in an index's manifest."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), float32."""
        ...


class VectorIndex(Protocol):
    """Finds the nearest of the vectors it holds."""

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> Hits:
        """Positions and cosine similarities of the k nearest, each (n, k), best first.

        Queries need not be normalised. Only positions where `allowed` is true are found; where
        there are fewer than k, positions are padded with -1 and similarities with -1.
        """
        ...


class TextIndex(Protocol):
    """Finds texts that share words with a query."""

    def search(self, texts: Sequence[str], k: int, allowed: Mask | None = None) -> Hits:
        """Positions and BM25 scores of the k best, each (n, k), best first.

        Only positions with a score above 0 are found; the rest is padded with -1 and 0.
        """
        ...


class Generator(Protocol):
    """Answers prompts. `complete` is called from up to `concurrency` threads at once."""

    @property
    def model(self) -> str: ...

    @property
    def concurrency(self) -> int: ...

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        """One answer. Raises `EngineError` where no server could give one."""
        ...


class Experts(Protocol):
    """Judge products by what was learnt from labelled ones."""

    def compared(self, product: Product) -> Product:
        """The product as it is compared with others: without names that are not believed."""
        ...

    def judge(self, products: Sequence[Product], vectors: Vectors) -> list[Opinion]:
        """One opinion a product, in order; `vectors` are the products' own."""
        ...


class Retriever(Protocol):
    """Finds similar products and candidate tags."""

    def retrieve(self, products: Sequence[Product]) -> list[Shortlist]:
        """One shortlist a product, in order."""
        ...


class AnswerFormat(Protocol):
    """Says what an answer must look like and reads it: one object, since both must agree."""

    def constraint(self, product: Product, shortlist: Shortlist) -> Constraint | None:
        """What an answer must look like; None where there is nothing to ask about."""
        ...

    def parse(
        self, completion: Completion, product: Product, shortlist: Shortlist
    ) -> ParsedTags: ...


class Scorer(Protocol):
    """Turns what is known of each candidate into one probability."""

    def score(self, product: Product, shortlist: Shortlist, parsed: ParsedTags) -> ScoredTags: ...
