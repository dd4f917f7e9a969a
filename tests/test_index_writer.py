"""Building an index folder, and changing it under the eyes of readers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_folder import CatalogueIndex, open_index
from llmtagger.backends.index_writer import add, build, learnt_from, remove, tag_text
from llmtagger.backends.snapshots import current_snapshot, writing
from llmtagger.backends.vectors import Kind
from llmtagger.datatypes import Opinion, Product, Tag
from llmtagger.errors import CatalogError, EncoderError, IndexFolderError, IndexMissing
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import Vocabulary

WORDS = ("red", "blue", "leather", "wallet", "bag", "shoe", "lamp", "wool", "steel", "oak")


def products(count: int, start: int = 0) -> list[Product]:
    """Product 37 is "item37 lamp oak steel", tagged lamp and oak."""
    made = []
    for n in range(start, start + count):
        words = (WORDS[n * 7 % 10], WORDS[n * 3 % 10], WORDS[n * 9 % 10])
        made.append(Product(id=f"p{n}", title=f"item{n} {' '.join(words)}", tags=words[:2]))
    return made


class CountingEncoder(HashingEncoder):
    """Remembers what it was asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.seen += texts
        return super().encode(texts)


def check(index: CatalogueIndex, expected: Sequence[Product]) -> None:
    """The index holds just these products, each found by its own text, with its own tags."""
    assert len(index) == len(expected) == int(index.live.sum())
    held = [index.product(row) for row in np.flatnonzero(index.live)]
    assert sorted(held, key=lambda p: p.id) == sorted(expected, key=lambda p: p.id)
    if not expected:
        return
    texts = [product.text() for product in expected]
    vectors = HashingEncoder().encode(texts)
    nearest, similarities = index.product_vectors.search(vectors, 1)
    np.testing.assert_allclose(similarities, 1.0, atol=1e-5)
    np.testing.assert_allclose(index.vectors[nearest[:, 0]], vectors, atol=1e-6)
    assert index.live[nearest].all()
    by_words = index.product_texts.search(texts, 1)[0]
    for product, vector, word in zip(expected, vectors, by_words[:, 0], strict=True):
        row = index.position(product.id)
        assert row is not None
        assert word == row
        tags = [index.vocabulary.resolve(tag) for tag in product.tags or ()]
        assert {tag.name for tag in tags if tag} == set(index.tags_of(row))
        np.testing.assert_allclose(index.vectors[row], vector, atol=1e-6)


KINDS = pytest.mark.parametrize("kind", ["flat", "hnsw"])


@KINDS
@pytest.mark.parametrize("count", [1, 60])
def test_build(kind: Kind, count: int, tmp_path: Path) -> None:
    index = build(products(count), tmp_path / "i", HashingEncoder(), kind=kind)
    check(index, products(count))
    assert index.manifest.kind == kind
    assert index.manifest.vocabulary_source == "catalogue"


@KINDS
def test_add_and_remove_end_at_the_same_index_as_a_build(kind: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(60), folder, HashingEncoder(), kind=kind)
    check(add(folder, products(15, start=60)), products(75))
    index, unknown = remove(folder, ["p3", "p70", "nobody", "p3"])
    expected = [p for p in products(75) if p.id not in ("p3", "p70")]
    check(index, expected)
    check(open_index(folder), expected)
    assert unknown == ("nobody",)
    whole = build(expected, tmp_path / "whole", HashingEncoder(), kind=kind)
    assert {tag.name for tag in index.vocabulary} == {tag.name for tag in whole.vocabulary}
    assert index.manifest.labelled == whole.manifest.labelled


@KINDS
def test_a_known_id_replaces_the_product(kind: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(60), folder, HashingEncoder(), kind=kind)
    new = Product(id="p5", title="quite another thing", tags=("velvet",))
    index = add(folder, [new])
    check(index, [p for p in products(60) if p.id != "p5"] + [new])
    assert index.vocabulary.resolve("velvet") is not None


@KINDS
def test_only_new_texts_are_encoded(kind: Kind, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    build(products(60), tmp_path / "i", encoder, kind=kind)
    encoder.seen.clear()
    same = [Product(id="p1", title=products(2)[1].title, tags=("red", "velvet"))]
    add(tmp_path / "i", [*same, *products(2, start=60)], encoder)
    assert sorted(encoder.seen) == sorted([p.text() for p in products(2, start=60)] + ["velvet"])
    encoder.seen.clear()
    remove(tmp_path / "i", ["p60"], encoder)
    assert encoder.seen == []


def test_a_graph_keeps_removed_rows_until_there_are_many(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(60), folder, HashingEncoder(), kind="hnsw")
    index, _ = remove(folder, [f"p{n}" for n in range(12)])
    assert (index.manifest.rows, index.manifest.products) == (60, 48)
    check(index, products(48, start=12))
    index, _ = remove(folder, ["p12"])
    assert (index.manifest.rows, index.manifest.products) == (47, 47)
    check(index, products(47, start=13))


def test_an_index_may_be_emptied_and_filled_again(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(3), folder, HashingEncoder())
    index, _ = remove(folder, ["p0", "p1", "p2"])
    check(index, [])
    assert len(index.vocabulary) == 0
    check(add(folder, products(4)), products(4))


def test_the_size_decides_the_kind_until_the_user_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmtagger.backends.vectors.FLAT_LIMIT", 20)
    assert build(products(20), tmp_path / "a", HashingEncoder()).manifest.kind == "flat"
    assert add(tmp_path / "a", products(1, start=20)).manifest.kind == "hnsw"
    assert remove(tmp_path / "a", ["p20"])[0].manifest.kind == "flat"
    build(products(20), tmp_path / "b", HashingEncoder(), kind="flat")
    assert add(tmp_path / "b", products(9, start=20)).manifest.kind == "flat"


def test_a_given_vocabulary_stays_as_it_is(tmp_path: Path) -> None:
    tags = Vocabulary([Tag(name="red", id="1", aliases=("crimson",)), Tag(name="oak", id="2")])
    index = build(products(30), tmp_path / "i", HashingEncoder(), vocabulary=tags)
    assert index.manifest.unknown_tags == 8
    assert set(index.manifest.unknown_examples) == set(WORDS) - {"red", "oak"}
    index = add(tmp_path / "i", [Product(id="c", title="crimson", tags=("Crimson", "new"))])
    row = index.position("c")
    assert row is not None
    assert index.tags_of(row) == ("red",)
    assert index.vocabulary.fingerprint == tags.fingerprint
    assert index.manifest.unknown_tags == 9


def test_unknown_tags_are_counted_and_some_are_named(tmp_path: Path) -> None:
    many = Product(id="m", title="many", tags=tuple(f"tag {n}" for n in range(5000)))
    tags = Vocabulary([Tag(name="tag 7", id="7")])
    index = build([many], tmp_path / "i", HashingEncoder(), vocabulary=tags)
    assert index.manifest.unknown_tags == 4999
    assert len(index.manifest.unknown_examples) == 20
    assert index.tags_of(0) == ("tag 7",)
    assert index.product(0) == many


def test_five_thousand_tags_on_one_product(tmp_path: Path) -> None:
    many = Product(id="m", title="many", tags=tuple(f"tag{n}" for n in range(5000)))
    index = build([many, *products(3)], tmp_path / "i", HashingEncoder())
    assert len(index.tags_of(0)) == 5000


def test_without_labels_or_vocabulary_there_are_no_tags(tmp_path: Path) -> None:
    index = build([Product(id="1", title="a lamp")], tmp_path / "i", HashingEncoder())
    assert (index.manifest.tags, index.manifest.labelled) == (0, 0)
    assert index.experts.judge([index.product(0)], index.vectors) == [Opinion({}, {}, {})]
    assert index.tag_vectors.search(index.vectors, 3)[0].tolist() == [[-1, -1, -1]]
    assert open_index(tmp_path / "i").tag_texts.search(["lamp"], 1)[0].tolist() == [[-1]]


def test_experts_are_fitted_anew_when_products_come_and_go(tmp_path: Path) -> None:
    vectors = HashingEncoder().encode([product.text() for product in products(60)])
    build(products(70), tmp_path / "a", HashingEncoder())
    remove(tmp_path / "a", [product.id for product in products(20, start=50)])
    changed = add(tmp_path / "a", products(10, start=50))
    built = build(products(60), tmp_path / "b", HashingEncoder())
    assert list(changed.vocabulary) == list(built.vocabulary)
    for one, other in zip(
        changed.experts.judge(products(60), vectors),
        built.experts.judge(products(60), vectors),
        strict=True,
    ):
        assert one.linear == pytest.approx(other.linear, abs=1e-4)
        assert (one.mentioned, one.trust) == (other.mentioned, other.trust)


def test_experts_learn_from_a_sample_of_many_products() -> None:
    labelled = np.arange(50_000) % 2 == 0
    rows = learnt_from(labelled)
    assert len(rows) == 20_000
    assert (np.diff(rows) > 0).all()
    assert labelled[rows].all()
    np.testing.assert_array_equal(rows, learnt_from(labelled))
    np.testing.assert_array_equal(learnt_from(labelled[:9]), [0, 2, 4, 6, 8])


def test_a_vocabulary_alone_is_enough(tmp_path: Path) -> None:
    tags = Vocabulary([Tag(name="lamp", id="1")])
    index = build([], tmp_path / "i", HashingEncoder(), vocabulary=tags)
    assert len(index) == 0
    assert index.tag_texts.search(["lamp"], 1)[0].tolist() == [[0]]
    assert index.product_vectors.search(index.tag_matrix, 2)[0].tolist() == [[-1, -1]]


HOSTILE = [
    Product(id="1", title="half a pair \ud83d", extra={"k": "\ud83d"}),
    Product(id="2", title="NUL \x00 and \u202e override", attributes={"a\x00": "b"}),
    Product(id="3", title="", tags=("", "  ", "ok")),
    Product(id="4", title="x" * 300_000),
    Product(id="", title="no id"),
    Product(id="5", title="a date", extra={"when": object()}),
]


def test_hostile_text_is_kept(tmp_path: Path) -> None:
    build(HOSTILE, tmp_path / "i", HashingEncoder())
    back = list(open_index(tmp_path / "i").products)
    assert back[1:5] == HOSTILE[1:5]
    assert back[0].title == "half a pair ?"
    assert back[0].extra == {"k": "\ud83d"}


def test_many_products_span_several_batches(tmp_path: Path) -> None:
    many = [Product(id=str(n), title=f"lamp {n}") for n in range(9000)]
    index = build(iter(many), tmp_path / "i", HashingEncoder(16))
    for row in (0, 4095, 4096, 8191, 8192, 8999):
        assert index.product(row) == many[row]
        assert index.position(str(row)) == row


def test_one_id_twice_is_refused_and_the_old_index_stays(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(3), folder, HashingEncoder())
    with pytest.raises(CatalogError, match="two products have the id 'p0'"):
        build([*products(3), *products(1)], folder, HashingEncoder())
    with pytest.raises(CatalogError, match="two products have the id 'x'"):
        add(folder, [Product(id="x", title="a"), Product(id="x", title="b")])
    check(open_index(folder), products(3))
    assert [p.name for p in (folder / "snapshots").iterdir()] == [current_snapshot(folder).name]


def test_nothing_to_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no products"):
        build([], tmp_path / "i", HashingEncoder())
    with pytest.raises(IndexMissing):
        open_index(tmp_path / "i")
    check(build(products(2), tmp_path / "i", HashingEncoder()), products(2))


def test_an_encoder_with_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    class Wrong(HashingEncoder):
        def encode(self, texts: Sequence[str]) -> Vectors:
            return super().encode(texts)[:, :-1]

    with pytest.raises(EncoderError, match="shape"):
        build(products(3), tmp_path / "i", Wrong())


@pytest.mark.parametrize("foreign", ["notes.txt", "manifest.json", "src/"])
def test_a_folder_with_other_files_is_left_alone(foreign: str, tmp_path: Path) -> None:
    path = tmp_path / foreign
    path.mkdir() if foreign.endswith("/") else path.write_text("mine")
    with pytest.raises(IndexFolderError, match="holds other files"):
        build(products(1), tmp_path, HashingEncoder())
    assert [p.name for p in tmp_path.iterdir()] == [foreign.rstrip("/")]


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(IndexFolderError, match="cannot use"):
            build(products(1), path, HashingEncoder())


def test_adding_to_no_index_makes_none(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing):
        add(tmp_path / "i", products(1))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    build(products(2), tmp_path / "i", HashingEncoder())
    with writing(tmp_path / "i"), pytest.raises(IndexFolderError, match="another process"):
        remove(tmp_path / "i", ["p0"])
    check(remove(tmp_path / "i", ["p0"])[0], products(1, start=1))


def test_a_reader_keeps_the_old_index_while_a_new_one_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    old = build(products(10), folder, HashingEncoder())

    def watched() -> Iterator[Product]:
        for product in products(5, start=100):
            check(open_index(folder), products(10))
            yield product

    check(build(watched(), folder, HashingEncoder()), products(5, start=100))
    check(build(products(2), folder, HashingEncoder()), products(2))
    check(old, products(10))
    assert len(list((folder / "snapshots").iterdir())) == 2


def test_a_failure_in_the_middle_leaves_the_old_index(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(3), folder, HashingEncoder())

    def failing() -> Iterator[Product]:
        yield from products(2000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(failing(), folder, HashingEncoder())
    check(open_index(folder), products(3))
    assert len(list((folder / "snapshots").iterdir())) == 1


DYING = """
import os, sys
from pathlib import Path
from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.index_writer import build
from llmtagger.datatypes import Product

def dying():
    for n in range(3000):
        yield Product(id=str(n), title="lamp")
    os.kill(os.getpid(), 9)

build(dying(), Path(sys.argv[1]), HashingEncoder())
"""


def test_a_killed_writer_leaves_the_old_index_and_garbage_that_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    build(products(3), folder, HashingEncoder())
    killed = subprocess.run(
        [sys.executable, "-c", DYING, folder], check=False, env=dict(os.environ)
    )
    assert killed.returncode == -9
    snapshots = folder / "snapshots"
    assert len(list(snapshots.glob(".tmp-*"))) == 1
    check(open_index(folder), products(3))
    check(add(folder, products(1, start=3)), products(4))
    assert not list(snapshots.glob(".tmp-*"))


def test_progress_is_reported(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    build(
        products(1500),
        tmp_path / "i",
        HashingEncoder(),
        progress=lambda stage, done, total: said.append((stage, done, total)),
    )
    assert said[:2] == [("encoding products", 1024, 0), ("encoding products", 1500, 0)]
    assert ("encoding tags", 10, 10) in said


def test_the_text_of_a_tag_is_all_its_names() -> None:
    tag = Tag(name="Color=Red", id="1", aliases=("crimson", "Color=Red"), labels={"zh": "红色"})
    assert tag_text(tag) == "Color Red, crimson, 红色"
