from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.backends.lexical import LexicalIndex, words_of
from llmtagger.errors import IndexDamaged

TEXTS = [
    "red leather wallet",
    "leather bag, leather strap",
    "",
    "无线耳机 wireless headphones",
    "blue wallet with card slots and a very long name",
    "!!! …",
]


def bm25(texts: list[str], query: str) -> list[float]:
    """The formula in the module's docstring, term by term."""
    bags = [Counter(words_of(text)) for text in texts]
    filled = [bag for bag in bags if bag]
    mean = sum(bag.total() for bag in filled) / len(filled)
    scores = []
    for bag in bags:
        score = 0.0
        for word in set(words_of(query)):
            df = sum(word in other for other in filled)
            idf = math.log(1 + (len(filled) - df + 0.5) / (df + 0.5))
            tf = bag[word]
            score += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * bag.total() / mean))
        scores.append(score)
    return scores


def test_a_score_worked_out_by_hand() -> None:
    """Two texts of 2 and 4 words, mean 3; `bag` is in the first only: idf = ln 2."""
    index = LexicalIndex.build(["red bag", "red hat red scarf"])
    positions, scores = index.search(["bag"], 2)
    assert positions.tolist() == [[0, -1]]
    assert scores[0].tolist() == pytest.approx([math.log(2) / (1 + 1.5 * (0.25 + 0.75 * 2 / 3)), 0])


@pytest.mark.parametrize(
    "query",
    ["leather wallet", "Wallets", "耳机", "无线", "wireless 耳机 bag", "leather leather leather"],
)
def test_scores_equal_the_formula(query: str) -> None:
    wanted = bm25(TEXTS, query)
    positions, scores = LexicalIndex.build(TEXTS).search([query], len(TEXTS))
    order = sorted(
        (i for i, score in enumerate(wanted) if score > 0), key=lambda i: (-wanted[i], i)
    )
    assert [p for p in positions[0].tolist() if p >= 0] == order
    np.testing.assert_allclose(scores[0][: len(order)], [wanted[i] for i in order], rtol=1e-5)
    assert not scores[0][len(order) :].any()


def test_a_mask_hides_texts() -> None:
    allowed = np.array([False, True, True, True, True, True])
    positions, _ = LexicalIndex.build(TEXTS).search(["red leather wallet"], 3, allowed)
    assert 0 not in positions
    assert set(positions[0].tolist()) == {1, 4, -1}


@pytest.mark.parametrize("query", ["", "???", "unheard-of", "\ud800"])
def test_nothing_is_found_by_nothing(query: str) -> None:
    positions, scores = LexicalIndex.build(TEXTS).search([query], 2)
    assert positions.tolist() == [[-1, -1]]
    assert scores.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("texts", [[], [""], ["", "…"]], ids=["none", "empty", "no_words"])
def test_texts_without_words(texts: list[str], tmp_path: Path) -> None:
    index = LexicalIndex.build(texts)
    assert len(index) == len(texts)
    index.save(tmp_path / "words")
    again = LexicalIndex.load(tmp_path / "words", count=len(texts))
    assert again.search(["wallet"], 1)[0].tolist() == [[-1]]


def test_a_saved_index_answers_the_same(tmp_path: Path) -> None:
    index = LexicalIndex.build(TEXTS)
    index.save(tmp_path / "words")
    again = LexicalIndex.load(tmp_path / "words", count=len(TEXTS))
    queries = ["leather wallet", "无线耳机", "nothing"]
    for one, other in zip(index.search(queries, 4), again.search(queries, 4), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["terms.txt", "starts.npy", "texts.npy", "weights.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "object"])
def test_a_damaged_file_is_refused(name: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    LexicalIndex.build(TEXTS).save(folder)
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif damage == "object" and path.suffix == ".npy":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-9])
    with pytest.raises(IndexDamaged):
        LexicalIndex.load(folder, count=len(TEXTS))


def test_an_index_over_more_texts_than_stated_is_refused(tmp_path: Path) -> None:
    LexicalIndex.build(TEXTS).save(tmp_path / "words")
    with pytest.raises(IndexDamaged):
        LexicalIndex.load(tmp_path / "words", count=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Card Slots", ["card", "slot"]),
        ("GLASS bus gas", ["glass", "bus", "gas"]),
        ("Bluetooth 5.3, IPX-7", ["bluetooth", "5.3", "ipx", "7"]),
        ("Ｗｉｄｅ ﬁt", ["wide", "fit"]),
        ("无线耳机", ["无线", "耳机", "无线耳机", "线耳"]),
        ("4K电视", ["4k", "电视"]),
        ("鞋", ["鞋"]),
        ("カメラ", ["カメ", "メラ"]),
        ("größe Łódź", ["grösse", "łódź"]),
        ("snake_case", ["snake", "case"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


@given(st.text(max_size=200))
def test_any_text_has_words_that_find_it(text: str) -> None:
    words = list(words_of(text))
    assert all(word and not word.isspace() and "\n" not in word for word in words)
    found = LexicalIndex.build([text, "zzz"]).search([text], 2)[0][0].tolist()
    assert (0 in found) == bool(words)
