"""Makes index folders: build one, add products to it, remove some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmtagger import __version__
from llmtagger.backends.arrays import VectorWriter, open_array
from llmtagger.backends.encoders import TEXT_LIMIT
from llmtagger.backends.index_folder import CatalogueIndex, load_graph, open_index
from llmtagger.backends.lexical import LexicalIndex
from llmtagger.backends.manifest import Manifest, describe_files
from llmtagger.backends.panel_files import save_panel
from llmtagger.backends.product_table import ProductTable, ProductWriter
from llmtagger.backends.snapshots import new_snapshot, writing
from llmtagger.backends.vectors import FaissIndex, Kind, choose_kind
from llmtagger.datatypes import Product, Tag
from llmtagger.errors import CatalogError, EncoderError
from llmtagger.experts.panel import MOST, Panel
from llmtagger.protocols import Encoder, Mask, Vectors
from llmtagger.vocabulary import Vocabulary

Progress = Callable[[str, int, int], None]  # stage, done, total (0 while unknown)

_CHUNK = 1024  # texts encoded at a time
_DEAD_SHARE = 0.2  # removed rows, from which on a graph is rebuilt without them
_EXAMPLES = 20  # unknown tags that the manifest names


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What decides about the rest of a snapshot once its products and vectors are written."""

    encoder: Encoder
    dimension: int
    kind_wanted: str
    vocabulary: Vocabulary | None  # None: read off the products
    progress: Progress
    graph: FaissIndex | None = None  # to go on with instead of building one
    known_tags: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def build(
    products: Iterable[Product],
    directory: Path,
    encoder: Encoder,
    *,
    vocabulary: Vocabulary | None = None,
    kind: Kind | None = None,
    progress: Progress = _silent,
) -> CatalogueIndex:
    """Index a catalogue; what the folder held before is replaced as a whole at the end.

    Without a vocabulary, it is read off the labelled products. Only one chunk of products is held
    in memory while they are encoded.
    """
    plan = _Plan(encoder, encoder.dimension, kind or "auto", vocabulary, progress)
    with writing(directory), new_snapshot(directory) as folder:
        with _RowWriter(folder, encoder.dimension) as rows:
            for chunk in _chunks(products):
                rows.extend(chunk, _encode(encoder, [_text(product) for product in chunk]))
                progress("encoding products", rows.count, 0)
        if not rows.count and vocabulary is None:
            raise CatalogError(
                "there are no products to index", hint="name a catalogue with at least one product"
            )
        _complete(folder, plan)
    return open_index(directory, encoder=encoder, verify=False)


def add(
    directory: Path,
    products: Iterable[Product],
    encoder: Encoder | None = None,
    *,
    progress: Progress = _silent,
) -> CatalogueIndex:
    """Add products to an index; one with a known id replaces the old one.

    Only texts that the index has not seen are encoded.
    """
    with writing(directory):
        old = open_index(directory, encoder=encoder)
        added = list(products)
        replaced = [old.position(product.id) for product in added]
        _update(directory, old, added, [row for row in replaced if row is not None], progress)
        return open_index(directory, encoder=old.encoder, verify=False)


def remove(
    directory: Path,
    ids: Iterable[str],
    encoder: Encoder | None = None,
    *,
    progress: Progress = _silent,
) -> tuple[CatalogueIndex, tuple[str, ...]]:
    """Remove products; also returns the ids that the index does not know."""
    with writing(directory):
        old = open_index(directory, encoder=encoder)
        rows = {id: old.position(id) for id in ids}
        found = [row for row in rows.values() if row is not None]
        if found:
            _update(directory, old, [], found, progress)
        unknown = tuple(id for id, row in rows.items() if row is None)
        return open_index(directory, encoder=old.encoder, verify=False), unknown


def _update(
    directory: Path,
    old: CatalogueIndex,
    added: Sequence[Product],
    dropped: Sequence[int],
    progress: Progress,
) -> None:
    """Write the next snapshot: old rows less the dropped ones, then the added ones."""
    live = old.live.copy()
    live[list(dropped)] = False
    wanted = old.manifest.kind_wanted
    kind = choose_kind(int(live.sum()) + len(added)) if wanted == "auto" else wanted
    dead = int((~live).sum()) / max(1, len(live) + len(added))
    graph = None
    if old.manifest.kind == kind == "hnsw" and dead <= _DEAD_SHARE:
        graph = load_graph(old.folder, old.manifest)
    with new_snapshot(directory) as folder:
        with _RowWriter(folder, old.manifest.dimension) as rows:
            rows.copy(old, live, keep_dead=graph is not None)
            known = {_text(old.product(row)): old.vectors[row] for row in dropped}
            for chunk in _chunks(added):
                vectors = _encode_unknown(old.encoder, [_text(each) for each in chunk], known)
                rows.extend(chunk, vectors)
                if graph is not None:
                    graph.add(vectors)
                progress("encoding products", rows.count, 0)
        _complete(folder, _plan_of(old, graph, progress))


def _plan_of(old: CatalogueIndex, graph: FaissIndex | None, progress: Progress) -> _Plan:
    return _Plan(
        encoder=old.encoder,
        dimension=old.manifest.dimension,
        kind_wanted=old.manifest.kind_wanted,
        vocabulary=old.vocabulary if old.manifest.vocabulary_source == "file" else None,
        progress=progress,
        graph=graph,
        known_tags=dict(zip(map(tag_text, old.vocabulary), old.tag_matrix, strict=True)),
    )


class _RowWriter:
    """Writes products.arrow and vectors.npy side by side, a row in each for every product."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._products = ProductWriter(folder / "products.arrow")
        self._vectors = VectorWriter(folder / "vectors.npy", dimension)
        self._ids: set[str] = set()

    @property
    def count(self) -> int:
        """Rows written so far."""
        return self._vectors.count

    def __enter__(self) -> _RowWriter:
        self._vectors.__enter__()
        self._products.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._products.__exit__(*error)
        self._vectors.__exit__(*error)

    def extend(self, products: Sequence[Product], vectors: Vectors) -> None:
        """Append products, none with an id that a live row has."""
        for product in products:
            if product.id in self._ids:
                raise CatalogError(
                    f"two products have the id {product.id!r}",
                    hint="give each its own, or keep one with --on-duplicate first or last",
                )
            self._ids.add(product.id)
            self._products.write(product)
        self._vectors.write(vectors)

    def copy(self, old: CatalogueIndex, live: Mask, *, keep_dead: bool) -> None:
        """Append the rows of another index, marked or left out where not live."""
        kept = np.flatnonzero(live | keep_dead)
        for row, product in enumerate(old.products):
            if live[row]:
                self._ids.add(product.id)
            if live[row] or keep_dead:
                self._products.write(product, live=bool(live[row]))
        for start in range(0, len(kept), _CHUNK):
            self._vectors.write(old.vectors[kept[start : start + _CHUNK]])


def _complete(folder: Path, plan: _Plan) -> None:
    """Write all that follows from the products and their vectors, the manifest last."""
    table = ProductTable(folder / "products.arrow")
    live = np.array(table.live(), dtype=bool)
    labelled = live & np.array(table.labelled(), dtype=bool)
    vectors: Vectors = open_array(folder / "vectors.npy", np.float32, (len(table), plan.dimension))
    vocabulary = plan.vocabulary or Vocabulary.from_products(_live(table, live))
    kind = _write_graph(folder, vectors, int(live.sum()), plan)
    plan.progress("indexing words", 0, len(table))
    texts = (product.text() if live[row] else "" for row, product in enumerate(table))
    LexicalIndex.build(texts).save(folder / "product_words")
    _write_tags(folder, vocabulary, plan)
    labels, unknown = _assign(table, labelled, vocabulary)
    np.save(folder / "tags_indptr.npy", labels.indptr.astype(np.int64))
    np.save(folder / "tags_indices.npy", labels.indices.astype(np.int32))
    if len(vocabulary) and labelled.any():
        plan.progress("fitting the experts", 0, len(vocabulary))
        rows = learnt_from(labelled)
        products = [table[row] for row in rows.tolist()]
        given = plan.vocabulary is not None
        panel = Panel.fit(products, vectors[rows], labels[rows], vocabulary, given=given)
        save_panel(panel, folder)
    Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        llmtagger=__version__,
        encoder=plan.encoder.name,
        encoder_revision=plan.encoder.revision,
        dimension=plan.dimension,
        kind=kind,
        kind_wanted=plan.kind_wanted,
        rows=len(table),
        products=int(live.sum()),
        labelled=int(labelled.sum()),
        tags=len(vocabulary),
        vocabulary=vocabulary.fingerprint,
        vocabulary_source="catalogue" if plan.vocabulary is None else "file",
        unknown_tags=len(unknown),
        unknown_examples=tuple(unknown[:_EXAMPLES]),
        files=describe_files(folder),
    ).write(folder)


def learnt_from(labelled: Mask) -> NDArray[np.int64]:
    """The labelled rows that the experts learn from: all, or a sample, always the same one."""
    rows = np.flatnonzero(labelled)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    return rows


def _live(table: ProductTable, live: Mask) -> Iterator[Product]:
    return (product for row, product in enumerate(table) if live[row])


def _write_graph(folder: Path, vectors: Vectors, live: int, plan: _Plan) -> str:
    """Decide how the vectors are searched; a graph is written, a flat index needs no file."""
    kind = choose_kind(live) if plan.kind_wanted == "auto" else plan.kind_wanted
    if kind == "hnsw":
        plan.progress("building the graph", 0, len(vectors))
        graph = plan.graph or FaissIndex.build(vectors, "hnsw")
        graph.save(folder / "vectors.faiss")
    return kind


def _write_tags(folder: Path, vocabulary: Vocabulary, plan: _Plan) -> None:
    texts = [tag_text(tag) for tag in vocabulary]
    matrix = np.zeros((len(texts), plan.dimension), dtype=np.float32)
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        matrix[start : start + _CHUNK] = _encode_unknown(plan.encoder, chunk, plan.known_tags)
        plan.progress("encoding tags", start + len(chunk), len(texts))
    np.save(folder / "tag_vectors.npy", matrix)
    LexicalIndex.build(texts).save(folder / "tag_words")
    vocabulary.write(folder / "vocabulary.jsonl")


def _assign(table: ProductTable, labelled: Mask, vocabulary: Vocabulary) -> tuple[Any, list[str]]:
    """Which row carries which tag (CSR), and the tags that the vocabulary does not know."""
    from scipy.sparse import csr_matrix

    indptr, indices = [0], list[int]()
    unknown: dict[str, None] = {}
    positions: dict[str, int | None] = {}
    for row, product in enumerate(table):
        held = set()
        for name in (product.tags or ()) if labelled[row] else ():
            if name not in positions:
                tag = vocabulary.resolve(name)
                positions[name] = None if tag is None else vocabulary.position(tag)
            if (position := positions[name]) is None:
                unknown[name] = None
            else:
                held.add(position)
        indices += sorted(held)
        indptr.append(len(indices))
    matrix = csr_matrix(
        (
            np.ones(len(indices), dtype=bool),
            np.array(indices, np.int32),
            np.array(indptr, np.int64),
        ),
        shape=(len(table), len(vocabulary)),
    )
    return matrix, list(unknown)


def tag_text(tag: Tag) -> str:
    """All that names a tag, for encoders and the lexical index: name, aliases, labels.

    >>> tag_text(Tag(name="Color=Red", id="1", aliases=("crimson",), labels={"zh": "红色"}))
    'Color Red, crimson, 红色'
    """
    names = dict.fromkeys((tag.name, *tag.aliases, *tag.labels.values()))
    return ", ".join(name.replace("=", " ") for name in names)


def _text(product: Product) -> str:
    return product.text()[:TEXT_LIMIT]


def _chunks(products: Iterable[Product]) -> Iterator[list[Product]]:
    source = iter(products)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk


def _encode_unknown(
    encoder: Encoder, texts: Sequence[str], known: Mapping[str, NDArray[np.float32]]
) -> Vectors:
    """Vectors of the texts, taken from `known` where it has them."""
    new = [text for text in dict.fromkeys(texts) if text not in known]
    found = dict(zip(new, _encode(encoder, new), strict=True)) if new else {}
    return np.array([known[t] if t in known else found[t] for t in texts], dtype=np.float32)


def _encode(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    vectors = encoder.encode(texts)
    if vectors.shape != (len(texts), encoder.dimension):
        raise EncoderError(
            f"the encoder {encoder.name!r} gave vectors of the shape {vectors.shape} "
            f"for {len(texts)} texts",
            hint=f"it must give ({len(texts)}, {encoder.dimension})",
        )
    return vectors
