"""Opening an index folder: what it gives, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmtagger.backends import index_folder
from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import build
from llmtagger.backends.manifest import MANIFEST, Manifest, read_manifest
from llmtagger.backends.snapshots import current_snapshot
from llmtagger.backends.vectors import Kind
from llmtagger.datatypes import Product, Span, Tag
from llmtagger.errors import IndexDamaged, IndexMismatch, IndexMissing
from llmtagger.experts.panel import Panel
from llmtagger.vocabulary import Vocabulary

PRODUCTS = [
    Product(
        id="w1",
        title="red leather wallet",
        description="eight card slots",
        brand="Harrow",
        category="Bags > Wallets",
        attributes={"colour": "red", "材质": "皮革"},
        tags=("wallet", "leather"),
        lang="en",
        group="harrow",
        extra={"price": 12.5, "stock": [1, None], "nested": {"a": "é"}},
    ),
    Product(id="w2", title="blue leather wallet", tags=("wallet", "leather")),
    Product(id="h1", title="无线耳机 😀", tags=("headphones", "unheard of")),
    Product(id="n1", title="blue suede shoe"),
    Product(id="e1", title="an empty list of tags", tags=()),
]
TAGS = Vocabulary(
    [
        Tag(name="wallet", id="t1", aliases=("purse",)),
        Tag(name="leather", id="t2", labels={"zh": "皮革"}),
        Tag(name="headphones", id="t3", labels={"zh": "耳机"}),
        Tag(name="garden", id="t4"),
    ]
)


@pytest.fixture(scope="module", params=["flat", "hnsw"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("index") / "shop"
    build(PRODUCTS, folder, HashingEncoder(), vocabulary=TAGS, kind=request.param)
    return folder


@pytest.fixture
def index(made: Path) -> CatalogueIndex:
    return open_index(made)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def test_every_product_comes_back_as_it_was(index: CatalogueIndex) -> None:
    assert [index.product(row) for row in range(len(index))] == PRODUCTS
    assert list(index.products) == PRODUCTS
    assert [index.position(product.id) for product in PRODUCTS] == [0, 1, 2, 3, 4]
    assert index.position("nobody") is None
    with pytest.raises(IndexError):
        index.product(5)


def test_labels_become_assignments_of_known_tags(index: CatalogueIndex) -> None:
    assert index.assignments.toarray().tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False] * 4,
        [False] * 4,
    ]
    assert index.labelled.tolist() == [True, True, True, False, True]
    np.testing.assert_allclose(index.prior, [0.5, 0.5, 0.25, 0])
    assert index.tags_of(0) == ("wallet", "leather")
    assert index.manifest.unknown_tags == 1
    assert index.manifest.unknown_examples == ("unheard of",)


def test_products_are_found_by_vector_and_by_words(index: CatalogueIndex) -> None:
    query = "blue wallet"
    vector = index.encoder.encode([query])
    positions, similarities = index.product_vectors.search(vector, 5)
    wanted = HashingEncoder().encode([p.text() for p in PRODUCTS]) @ vector[0]
    np.testing.assert_allclose(similarities[0], np.sort(wanted)[::-1], atol=1e-5)
    assert positions[0][0] == 1
    np.testing.assert_allclose(index.vectors[positions[0]] @ vector[0], similarities[0], atol=1e-5)
    assert index.product_texts.search([query], 1)[0].tolist() == [[1]]
    assert index.product_texts.search(["耳机"], 1)[0].tolist() == [[2]]


def test_tags_are_found_by_name_alias_and_label(index: CatalogueIndex) -> None:
    for text in ("purse", "wallet"):
        assert index.tag_texts.search([text], 1)[0].tolist() == [[0]]
        assert index.tag_vectors.search(index.encoder.encode([text]), 1)[0].tolist() == [[0]]
    assert index.tag_texts.search(["耳机"], 1)[0].tolist() == [[2]]
    assert index.tag_matrix.shape == (4, 256)
    assert list(index.vocabulary) == list(TAGS)


def test_the_linear_expert_knows_the_tags_with_two_carriers(index: CatalogueIndex) -> None:
    assert isinstance(index.experts, Panel)
    assert index.experts.linear is not None
    assert index.experts.linear.tags.tolist() == [0, 1]
    assert index.experts.linear.weights.shape == (2, 256 + 4096)
    np.testing.assert_array_equal(index.experts.linear.shares, [0.5, 0.5])


def test_the_experts_judge_by_the_labelled_products(index: CatalogueIndex) -> None:
    green = Product(id="x", title="green leather purse")
    (opinion,) = index.experts.judge([green], index.encoder.encode([green.text()]))
    assert 0 < opinion.linear[0] <= 1
    assert opinion.mentioned == {0: (Span("title", "purse"),), 1: (Span("title", "leather"),)}
    # both wallets say "wallet" and "leather", h1 says 耳机, all five mentions are right: tags
    # without a key start from (5 + 1/2) / (5 + 1) = 11/12, which counts like two mentions
    share = (2 + 11 / 6) / 4
    # and all stand in titles, (5 + 20 * 11/12 * 6/6.1) / (5 + 20) of which are right, not 11/12
    title = (5 + 20 * 11 / 12 * 6 / 6.1) / 25
    odds = share / (1 - share) * title / (1 - title) / 11
    assert opinion.trust == pytest.approx(dict.fromkeys((0, 1), odds / (1 + odds)))
    assert opinion.credibility == {0: 1.0, 1: 1.0}
    assert opinion.extracted == ()


def test_the_manifest_describes_the_index(index: CatalogueIndex) -> None:
    manifest = index.manifest
    assert (manifest.encoder, manifest.encoder_revision, manifest.dimension) == (
        "hashing",
        "1",
        256,
    )
    assert (manifest.rows, manifest.products, manifest.labelled, manifest.tags) == (5, 5, 4, 4)
    assert (manifest.metric, manifest.vocabulary) == ("cosine", TAGS.fingerprint)
    assert manifest.vocabulary_source == "file"
    assert manifest.fingerprint == index.fingerprint
    assert set(manifest.files) == {
        path.relative_to(index.folder).as_posix()
        for path in index.folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_equal_content_has_an_equal_fingerprint(index: CatalogueIndex, tmp_path: Path) -> None:
    def fingerprint(products: list[Product], name: str) -> str:
        kind: Kind = "flat" if index.manifest.kind == "flat" else "hnsw"
        folder = tmp_path / name
        return build(products, folder, HashingEncoder(), vocabulary=TAGS, kind=kind).fingerprint

    assert fingerprint(PRODUCTS, "same") == index.fingerprint
    assert fingerprint(PRODUCTS[:-1], "other") != index.fingerprint


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _names(folder: Path) -> list[str]:
    snapshot = current_snapshot(folder)
    files = (path for path in snapshot.rglob("*") if path.is_file())
    return sorted(path.relative_to(snapshot).as_posix() for path in files)


@pytest.mark.parametrize("harm", [_cut, _flip, _lengthen, Path.unlink], ids=lambda f: f.__name__)
def test_a_damaged_file_is_named(harm: Callable[[Path], None], made: Path, tmp_path: Path) -> None:
    for name in _names(made):
        copy = shutil.copytree(made, tmp_path / name.replace("/", "_"))
        path = current_snapshot(copy) / name
        if not path.stat().st_size and harm in (_cut, _flip):
            continue
        harm(path)
        if name == MANIFEST and harm is _lengthen:
            path.write_bytes(path.read_bytes().rstrip(b"\0") + b"}")
        if name == MANIFEST and harm is _cut:
            path.write_bytes(path.read_bytes().rstrip()[:-1])
        with pytest.raises(IndexDamaged) as caught:
            open_index(copy)
        assert name in caught.value.message
        assert "index build" in caught.value.hint


@pytest.mark.parametrize("name", ["vectors.npy", "linear.npy", "tags_indices.npy"])
def test_sizes_are_compared_even_unverified(name: str, copy: Path) -> None:
    _cut(current_snapshot(copy) / name)
    with pytest.raises(IndexDamaged, match=name):
        open_index(copy, verify=False)


def test_unverified_files_are_still_read_with_care(copy: Path) -> None:
    """A bit turned in each file in turn: it opens, or says that it is damaged; nothing else."""
    snapshot = current_snapshot(copy)
    for name in _names(copy):
        path = snapshot / name
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            data = bytearray(whole)
            data[place] ^= 0xFF
            if name != "vectors.faiss":
                path.write_bytes(data)
                with contextlib.suppress(IndexDamaged, IndexMismatch):
                    open_index(copy, verify=False)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"notes.txt": "hello"},
        {"manifest.json": "{}"},
        {"CURRENT": None},
    ],
    ids=["empty", "foreign", "bare_manifest", "current_is_a_folder"],
)
def test_a_folder_that_is_no_index(contents: dict[str, str | None], tmp_path: Path) -> None:
    for name, text in contents.items():
        (tmp_path / name).mkdir() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(IndexMissing, match="is not an index folder") as caught:
        open_index(tmp_path)
    assert "llmtagger index build" in caught.value.hint


def test_a_path_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("nothing", "file"):
        with pytest.raises(IndexMissing):
            open_index(tmp_path / name)


@pytest.mark.parametrize("name", ["", "../../etc", "20260101T000000-00000000", "a\nb", "x" * 9999])
def test_a_pointer_to_no_snapshot(name: str, copy: Path) -> None:
    (copy / "CURRENT").write_text(name)
    with pytest.raises(IndexDamaged):
        open_index(copy)


class _Renamed(HashingEncoder):
    name = "other"


class _Newer(HashingEncoder):
    revision = "2"


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (_Renamed(), "not by 'other'"),
        (_Newer(), "revision 2"),
        (HashingEncoder(64), "256 dimensions"),
    ],
    ids=["name", "revision", "dimension"],
)
def test_another_encoder_is_refused(encoder: HashingEncoder, said: str, made: Path) -> None:
    with pytest.raises(IndexMismatch, match=said) as caught:
        open_index(made, encoder=encoder)
    assert caught.value.hint


@pytest.mark.parametrize(("version", "hint"), [(4, "update llmtagger"), (2, "build the index")])
def test_another_format_is_refused(version: int, hint: str, copy: Path) -> None:
    path = current_snapshot(copy) / MANIFEST
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"format": version}), encoding="utf-8")
    with pytest.raises(IndexMismatch, match=f"format {version}") as caught:
        open_index(copy)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": 128},
        {"dimension": "256"},
        {"rows": -1},
        {"files": {}},
        {"files": {"products.arrow": 3}},
        {"kind": "flat2"},
        {"format": "one"},
    ],
    ids=lambda change: "-".join(change),
)
def test_an_edited_manifest_is_refused(change: dict[str, object], copy: Path) -> None:
    path = current_snapshot(copy) / MANIFEST
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | change), encoding="utf-8")
    with pytest.raises(IndexDamaged, match=r"manifest\.json"):
        open_index(copy)


def test_a_reader_that_loses_the_race_looks_again(
    made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CURRENT named a snapshot that a writer swept before it was opened."""
    gone = copy / "snapshots" / "20200101T000000-00000000"
    answers = iter([gone])
    monkeypatch.setattr(
        index_folder, "current_snapshot", lambda folder: next(answers, current_snapshot(folder))
    )
    assert len(open_index(copy)) == len(PRODUCTS)


def test_the_manifest_reads_back(index: CatalogueIndex, tmp_path: Path) -> None:
    index.manifest.write(tmp_path)
    again = read_manifest(tmp_path)
    assert isinstance(again, Manifest)
    assert again == index.manifest
