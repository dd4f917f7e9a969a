"""What counts as the same text, and the way back to what was written."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtagger.normalise import FoldedText, is_han, loosen, normalise, unescaped, unicode_form

# Marks, jamo, half-width kana and ligatures: what composes, folds to several, or is not seen.
AWKWARD = st.text(
    st.sampled_from(
        "eEaßẞİΐﬁ½가각ｶﾞＬ Ｗ\t\n-_/·\u0301\u0323\u0345\u0327\u200b\u00ad\ufe0f漢️高👍🏽¨"
    ),
    max_size=12,
)
TEXTS = st.one_of(st.text(max_size=30), AWKWARD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("  Leather\t Wallet\n", "leather wallet", id="case-and-space"),
        pytest.param("Ｌｅａｔｈｅｒ　４Ｋ", "leather 4k", id="full-width"),
        pytest.param("STRASSE straße", "strasse strasse", id="casefold"),
        pytest.param("Cafe\u0301", "café", id="decomposed"),
        pytest.param("ﬁlter", "filter", id="ligature"),
        pytest.param("wa\u00adter\u200bproof\ufeff", "waterproof", id="invisible"),
        pytest.param("T-Shirt", "t-shirt", id="hyphen-kept"),
        pytest.param("高清　电视", "高清 电视", id="chinese"),
        pytest.param("\u200b \n", "", id="nothing"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T-Shirt", "t shirt"),
        ("rfid–blocking", "rfid blocking"),
        ("-- a_b / c --", "a b c"),
        ("蓝牙·耳机", "蓝牙 耳机"),
        ("-", ""),
    ],
)
def test_loosen_reads_hyphens_as_spaces(text: str, expected: str) -> None:
    assert loosen(text) == expected


@given(TEXTS)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert loosen(loosen(text)) == loosen(text)


@given(TEXTS)
def test_decomposed_text_is_the_same_text(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(text)


@pytest.mark.parametrize(
    ("char", "expected"),
    [("高", True), ("㐀", True), ("𠀀", True), ("a", False), ("カ", False), ("👍", False)],
)
def test_is_han(char: str, expected: bool) -> None:
    assert is_han(char) is expected


@given(TEXTS)
def test_folded_text_is_the_loosened_text(text: str) -> None:
    assert FoldedText(text).text == loosen(text)


@given(TEXTS, st.data())
def test_what_was_written_folds_to_what_was_found(text: str, data: st.DataObject) -> None:
    folded = FoldedText(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    written = folded.written(start, end)
    assert written in text
    assert folded.text[start:end].strip() in loosen(written)


@given(TEXTS)
def test_the_whole_folded_text_was_written(text: str) -> None:
    folded = FoldedText(text)
    if folded.text:
        assert loosen(folded.written(0, len(folded.text))) == folded.text


@pytest.mark.parametrize(
    ("text", "needle", "written"),
    [
        pytest.param("Zippered  Coin-Pocket", "coin pocket", "Coin-Pocket", id="hyphen"),
        pytest.param("４Ｋ高清", "4k", "４Ｋ", id="full-width"),
        pytest.param("Cafe\u0301 noir", "café", "Cafe\u0301", id="decomposed"),
        pytest.param(
            "wa\u00adter\u200bproof bag", "waterproof", "wa\u00adter\u200bproof", id="shy"
        ),
        pytest.param("ﬁlter bag", "filter", "ﬁlter", id="ligature"),
        pytest.param("Card\n\t slots", "card slots", "Card\n\t slots", id="white-space"),
        pytest.param("x é\u0323 y", "ẹ́", "é\u0323", id="marks-reordered"),
        pytest.param("高清液晶电视", "液晶", "液晶", id="chinese-needs-no-space"),
        pytest.param("coins and a coin", "coin", "coin", id="second-place-is-the-word"),
        pytest.param("coins", "coin", None, id="part-of-a-word"),
        pytest.param("144k", "4k", None, id="part-of-a-number"),
        pytest.param("4K电视", "4k", "4K", id="latin-beside-chinese"),
        pytest.param("anything", "", None, id="empty-needle"),
    ],
)
def test_find(text: str, needle: str, written: str | None) -> None:
    folded = FoldedText(text)
    place = folded.find(loosen(needle))
    assert (folded.written(*place) if place else None) == written


@pytest.mark.parametrize(
    "text",
    ["e" + "\u0301" * 50_000, "\u200b" * 50_000, "\u1100\u1161" * 25_000, "a" * 50_000],
    ids=["marks", "invisible", "jamo", "plain"],
)
def test_hostile_text_folds_in_linear_time(text: str) -> None:
    start = time.perf_counter()
    FoldedText(text)
    assert time.perf_counter() - start < 5


@given(st.lists(st.sampled_from("a가ｶ€\u0301\u0316\u0f73\u0344\uff9e"), min_size=40, max_size=90))
def test_long_runs_of_marks_are_normalised_as_by_the_standard(chars: list[str]) -> None:
    text = "".join(chars)
    assert unicode_form("NFKC", text) == unicodedata.normalize("NFKC", text)
    assert unicode_form("NFKD", text) == unicodedata.normalize("NFKD", text)


def test_a_number_of_any_length_is_unescaped() -> None:
    assert unescaped(f"a &#{'9' * 5_000}; &amp; b") == "a \ufffd & b"
