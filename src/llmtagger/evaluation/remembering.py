"""Vectors that are known already: evaluation meets each text many times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmtagger.protocols import Encoder, Vectors

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex


class RememberingEncoder:
    """An encoder that encodes each text once, and takes for known what it is given."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, Vectors] = {}

    @property
    def name(self) -> str:
        """The encoder's own."""
        return self._encoder.name

    @property
    def revision(self) -> str:
        """The encoder's own."""
        return self._encoder.revision

    @property
    def dimension(self) -> int:
        """The encoder's own."""
        return self._encoder.dimension

    def learn(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Take these vectors (n, d) for those of the texts."""
        self._known.update(zip(texts, vectors, strict=True))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (n, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self.learn(new, self._encoder.encode(new))
        found = [self._known[text] for text in texts]
        return np.array(found, dtype=np.float32).reshape(len(texts), self.dimension)

    def encode_kept(self, texts: Sequence[str], folder: Path) -> Vectors:
        """The same, kept in a file of the folder from one process to the next."""
        digest = hashlib.sha256(
            "\0".join((self.name, self.revision, *texts)).encode("utf-8", "replace")
        )
        path = folder / f"{digest.hexdigest()[:32]}.npy"
        if path.is_file():
            vectors: Vectors = np.load(path, allow_pickle=False)
            self.learn(texts, vectors)
            return vectors
        vectors = self.encode(texts)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{path.stem}.part.npy"
        np.save(part, vectors)
        part.replace(path)
        return vectors


def known_index(index: CatalogueIndex) -> CatalogueIndex:
    """The index, whose encoder does not encode again what the index holds the vectors of."""
    from llmtagger.backends.encoders import TEXT_LIMIT

    encoder = RememberingEncoder(index.encoder)
    rows = np.flatnonzero(index.labelled).tolist()
    encoder.learn([index.product(row).text()[:TEXT_LIMIT] for row in rows], index.vectors[rows])
    index.encoder = encoder
    return index
