"""The fitted experts on disk: what is read back, and what is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.backends.panel_files import open_panel, save_panel
from llmtagger.datatypes import Product, Tag, TagKind
from llmtagger.errors import IndexDamaged
from llmtagger.experts.panel import Panel
from llmtagger.vocabulary import Vocabulary

COLOURS = ("red", "blue", "深 green", "black")
VOCABULARY = Vocabulary(
    [
        *(Tag(f"Color={c}", f"Color={c}", key="Color", kind=TagKind.SPAN) for c in COLOURS),
        Tag("wallet", "wallet"),
    ]
)
PRODUCTS = [
    Product(f"p{n}", f"Wallet {n} in {COLOURS[n % 4]}", tags=(f"Color={COLOURS[n % 4]}", "wallet"))
    for n in range(24)
]
NEW = [
    Product("x", "Wallet in teal, \ud800 red"),
    Product("y", "black mug 9 in blue"),
    Product("z", ""),
    Product("深", "深 green"),
]
DIMENSION = 32
ARRAYS = (
    *("words_idf.npy", "linear.npy", "linear_tags.npy"),
    *("linear_shares.npy", "mentions.npy", "places.npy", "extractor.npy"),
)
MARKS = ("linear.npy", "extractor.npy")  # without them nothing was learnt; the manifest lists them


def _vectors(products: list[Product]) -> NDArray[np.float32]:
    return HashingEncoder(DIMENSION).encode([product.text() for product in products])


@pytest.fixture(scope="module")
def panel() -> Panel:
    labels = np.array([[n % 4 == c for c in range(4)] + [True] for n in range(24)])
    return Panel.fit(PRODUCTS, _vectors(PRODUCTS), csr_matrix(labels), VOCABULARY, given=True)


@pytest.fixture
def folder(panel: Panel, tmp_path: Path) -> Path:
    save_panel(panel, tmp_path)
    return tmp_path


def _open(folder: Path) -> Panel:
    return open_panel(folder, VOCABULARY, DIMENSION)


def test_an_opened_panel_has_the_same_opinions(panel: Panel, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*ARRAYS, "extractor.json"}
    products = [*PRODUCTS, *NEW]
    before, after = (each.judge(products, _vectors(products)) for each in (panel, _open(folder)))
    assert any(opinion.extracted for opinion in before)
    for one, other in zip(before, after, strict=True):
        assert other.linear == pytest.approx(one.linear, abs=1e-6)
        assert replace(other, linear={}) == replace(one, linear={})


def test_the_linear_weights_are_mapped_not_read(folder: Path) -> None:
    expert = _open(folder).linear
    assert expert is not None
    assert isinstance(expert.weights.base, np.memmap)


def test_a_panel_that_learnt_nothing_leaves_no_file(tmp_path: Path) -> None:
    save_panel(Panel(VOCABULARY), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert _open(tmp_path) == Panel(VOCABULARY)


def test_without_values_to_extract_there_is_no_extractor(panel: Panel, tmp_path: Path) -> None:
    save_panel(Panel(VOCABULARY, panel.sketch, panel.linear, panel.mentions), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*ARRAYS} - {"extractor.npy"}
    assert _open(tmp_path).extractor is None


def test_a_panel_that_was_taught_no_tag_can_be_kept(tmp_path: Path) -> None:
    product = Product("1", "in red", tags=("Color=red",))
    labels = csr_matrix(np.eye(1, 5, dtype=bool))
    save_panel(Panel.fit([product], _vectors([product]), labels, VOCABULARY, given=True), tmp_path)
    (opinion,) = _open(tmp_path).judge([product], _vectors([product]))
    assert (opinion.linear, opinion.extracted) == ({}, ())
    assert set(opinion.mentioned) == {0}


def _narrower(array: NDArray[Any]) -> NDArray[Any]:
    return array[..., :-1]


def _deeper(array: NDArray[Any]) -> NDArray[Any]:
    return array[None]


def _other_numbers(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.int32 if array.dtype == np.int64 else np.float64)


def _objects(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(object)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("harm", [_narrower, _deeper, _other_numbers, _objects])
def test_arrays_of_another_shape_or_type_are_refused(
    harm: Callable[[NDArray[Any]], NDArray[Any]], name: str, folder: Path
) -> None:
    array = np.load(folder / name)
    os.unlink(folder / name)
    np.save(folder / name, harm(array), allow_pickle=True)
    with pytest.raises(IndexDamaged, match="is damaged") as caught:
        _open(folder)
    assert "llmtagger index build" in caught.value.hint


@pytest.mark.parametrize("name", [*ARRAYS, "extractor.json"])
@pytest.mark.parametrize("kept", [0, 5, 0.5, -1])
def test_a_truncated_file_is_named(kept: float, name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    end = int(kept * len(whole)) if kept == 0.5 else int(kept)
    (folder / name).write_bytes(whole[:end])
    with pytest.raises(IndexDamaged, match=name):
        _open(folder)


@pytest.mark.parametrize("name", sorted({*ARRAYS, "extractor.json"} - {*MARKS}))
def test_a_file_that_is_missing_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(IndexDamaged, match=name):
        _open(folder)


@pytest.mark.parametrize("tag", [-1, len(VOCABULARY), 2**62])
def test_a_tag_that_is_not_in_the_vocabulary_is_refused(tag: int, folder: Path) -> None:
    tags = np.load(folder / "linear_tags.npy")
    tags[1] = tag
    np.save(folder / "linear_tags.npy", tags)
    with pytest.raises(IndexDamaged, match="linear_tags"):
        _open(folder)


@pytest.mark.parametrize("counts", [(-2, 0), (-3, -3), (1, 2), (0, -1)])
@pytest.mark.parametrize("name", ["mentions.npy", "places.npy"])
def test_mentions_that_cannot_be_counted_are_refused(
    name: str, counts: tuple[int, int], folder: Path
) -> None:
    found = np.load(folder / name)
    found[0] = counts
    np.save(folder / name, found)
    with pytest.raises(IndexDamaged, match=name):
        _open(folder)


def test_an_extractor_without_weights_is_refused(folder: Path) -> None:
    np.save(folder / "extractor.npy", np.load(folder / "extractor.npy")[:0])
    with pytest.raises(IndexDamaged, match=r"extractor\.npy"):
        _open(folder)


WHOLE: dict[str, Any] = {"keys": ["Color"], "values": {"red": {"Color": 6}}}


WRONG: list[dict[str, Any]] = [
    {"keys": None},
    {"keys": "Color"},
    {"keys": {"Color": 1}},
    {"keys": [1]},
    {"keys": [["Color"]]},
    {"keys": []},
    {"keys": ["Color", "Size"]},
    {"values": None},
    {"values": ["red"]},
    {"values": {"red": None}},
    {"values": {"red": "Color"}},
    {"values": {"red": ["Color"]}},
    {"values": {"red": 6}},
    {"values": {"red": {"Color": "6"}}},
    {"values": {"red": {"Color": None}}},
    {"values": {"red": {"Color": True}}},
    {"values": {"red": {"Color": 1.5}}},
    {"values": {"red": {"Color": math.nan}}},
    {"values": {"red": {"Color": -1}}},
    {"values": {"red": {"Color": [6]}}},
    {"values": {"red": {"Color": {"6": 6}}}},
    {"more": 1},
]


def test_the_damage_below_is_the_only_one(folder: Path) -> None:
    (folder / "extractor.json").write_text(json.dumps(WHOLE))
    extractor = _open(folder).extractor
    assert extractor is not None
    assert extractor.extract(Product("x", "in red"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b'{"keys": ["Color"', id="cut"),
        pytest.param(b"\xff\xfe{}", id="not-utf-8"),
        pytest.param(b'{"keys": ["Color"], "values": ' + b"[" * 100_000, id="deep"),
        *(pytest.param(json.dumps(WHOLE | change).encode(), id=str(change)) for change in WRONG),
    ],
)
def test_what_the_extractor_knows_is_checked(text: bytes, folder: Path) -> None:
    (folder / "extractor.json").write_bytes(text)
    with pytest.raises(IndexDamaged, match="extractor"):
        _open(folder)
