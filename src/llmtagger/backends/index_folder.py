"""A catalogue, indexed: opened from a folder, read-only, with all that retrieval asks of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger.backends.arrays import open_array
from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.lexical import LexicalIndex
from llmtagger.backends.manifest import Manifest, check_files, read_manifest
from llmtagger.backends.panel_files import open_panel
from llmtagger.backends.product_table import ProductTable
from llmtagger.backends.snapshots import current_snapshot
from llmtagger.backends.vectors import ExactIndex, FaissIndex, exact_index
from llmtagger.datatypes import Product
from llmtagger.errors import IndexDamaged, IndexMismatch, VocabularyError
from llmtagger.experts.spelling import Speller
from llmtagger.protocols import Encoder, Experts, Mask, TextIndex, VectorIndex
from llmtagger.vocabulary import Vocabulary, read_vocabulary

_REBUILD = "build the index again with `llmtagger index build`"


class CatalogueIndex:
    """Products, tags and who carries which, with vectors and words to find them by.

    A row's position is its place in `products.arrow`; `len()` counts the live ones. In `labelled`
    and `live` removed rows are False, in `assignments` they are empty.
    """

    def __init__(self, folder: Path, manifest: Manifest, encoder: Encoder) -> None:
        self.folder = folder
        self.manifest = manifest
        self.fingerprint = manifest.fingerprint
        self.encoder = encoder
        self.products = ProductTable(folder / "products.arrow")
        self.vectors = open_array(
            folder / "vectors.npy", np.float32, (manifest.rows, manifest.dimension)
        )
        self.vocabulary = _vocabulary(folder / "vocabulary.jsonl", manifest)
        self.tag_matrix = open_array(
            folder / "tag_vectors.npy", np.float32, (manifest.tags, manifest.dimension)
        )
        self.tag_vectors: VectorIndex = ExactIndex(self.tag_matrix)  # no copy: opens at once
        self.tag_texts: TextIndex = LexicalIndex.load(folder / "tag_words", count=manifest.tags)
        words = LexicalIndex.load(folder / "product_words", count=manifest.rows)
        self.product_texts: TextIndex = words
        if len(self.products) != manifest.rows:
            raise IndexDamaged(f"{folder / 'products.arrow'} lacks rows", hint=_REBUILD)
        self.live: Mask = np.array(self.products.live(), dtype=bool)
        self.labelled: Mask = self.live & np.array(self.products.labelled(), dtype=bool)
        self.product_vectors: VectorIndex = self._product_vectors()
        self.assignments = _assignments(folder, manifest)
        self.prior = self._prior()
        self.panel = replace(
            open_panel(folder, self.vocabulary, manifest.dimension),
            speller=Speller.of(self.vocabulary, words.holders),
        )
        self.experts: Experts = self.panel

    def _product_vectors(self) -> VectorIndex:
        if self.manifest.kind == "flat":
            return exact_index(self.vectors)
        return load_graph(self.folder, self.manifest).with_live(
            None if self.live.all() else self.live
        )

    def _prior(self) -> NDArray[np.float32]:
        carriers = np.asarray(self.assignments.sum(axis=0), dtype=np.float32).ravel()
        return carriers / np.float32(max(1, self.labelled.sum()))

    def __len__(self) -> int:
        return self.manifest.products

    def product(self, position: int) -> Product:
        """The product in that row."""
        return self.products[position]

    def position(self, id: str) -> int | None:
        """The row of the live product with that id."""
        return self._positions.get(id)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.products.ids()) if self.live[row]}

    def tags_of(self, position: int) -> tuple[str, ...]:
        """The names of the vocabulary's tags that the product in that row carries."""
        rows = self.assignments
        held = rows.indices[rows.indptr[position] : rows.indptr[position + 1]]
        return tuple(self.vocabulary.tags[tag].name for tag in held.tolist())


def open_index(
    directory: Path, *, encoder: Encoder | None = None, verify: bool = True
) -> CatalogueIndex:
    """Open an index folder, with the encoder that its manifest names or an equal one handed in.

    `verify` reads every file once to compare checksums; without it only sizes are compared.
    """
    folder = current_snapshot(directory)
    try:
        return _open(folder, encoder, verify)
    except IndexDamaged:
        replaced = current_snapshot(directory)  # a writer may have swept the old one meanwhile
        if replaced == folder:
            raise
        return _open(replaced, encoder, verify)


def _open(folder: Path, encoder: Encoder | None, verify: bool) -> CatalogueIndex:
    manifest = read_manifest(folder)
    check_files(folder, manifest, contents=verify)
    return CatalogueIndex(folder, manifest, _matching(manifest, encoder))


def _matching(manifest: Manifest, encoder: Encoder | None) -> Encoder:
    """The encoder for an index; its dimension is looked at only where that loads no model."""
    chosen = encoder or load_encoder(manifest.encoder)
    made = (manifest.encoder, manifest.encoder_revision)
    if (chosen.name, chosen.revision) != made:
        raise IndexMismatch(
            f"the index was made by the encoder {made[0]!r} (revision {made[1] or 'none'}), "
            f"not by {chosen.name!r} (revision {chosen.revision or 'none'})",
            hint=f"use the encoder it was made by, or {_REBUILD}",
        )
    if encoder is not None and encoder.dimension != manifest.dimension:
        raise IndexMismatch(
            f"the index holds vectors of {manifest.dimension} dimensions, "
            f"the encoder makes {encoder.dimension}",
            hint=_REBUILD,
        )
    return chosen


def load_graph(folder: Path, manifest: Manifest) -> FaissIndex:
    """A snapshot's graph over all of its rows, removed ones too."""
    return FaissIndex.load(
        folder / "vectors.faiss", count=manifest.rows, dimension=manifest.dimension
    )


def _vocabulary(path: Path, manifest: Manifest) -> Vocabulary:
    if not manifest.tags:
        return Vocabulary(())
    try:
        vocabulary = read_vocabulary(path)
    except VocabularyError as error:
        raise IndexDamaged(f"{path} is damaged: {error}", hint=_REBUILD) from error
    if len(vocabulary) != manifest.tags:
        raise IndexDamaged(f"{path} has {len(vocabulary)} tags", hint=_REBUILD)
    return vocabulary


def _assignments(folder: Path, manifest: Manifest) -> Any:
    from scipy.sparse import csr_matrix

    indptr = open_array(folder / "tags_indptr.npy", np.int64, (manifest.rows + 1,))
    indices = open_array(folder / "tags_indices.npy", np.int32, (None,))
    try:
        matrix = csr_matrix(
            (np.ones(len(indices), dtype=bool), np.array(indices), np.array(indptr)),
            shape=(manifest.rows, manifest.tags),
        )
        matrix.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise IndexDamaged(f"{folder}/tags_*.npy are damaged", hint=_REBUILD) from error
    return matrix
