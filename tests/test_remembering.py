"""Vectors that are known already are not computed again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from llmtagger.backends.fakes import HashingEncoder
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.protocols import Vectors


class Counting(HashingEncoder):
    """Notes what it is asked to encode."""

    def __init__(self, dimension: int = 32) -> None:
        super().__init__(dimension)
        self.seen: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.seen.append(list(texts))
        return super().encode(texts)


TEXTS = ["red bag", "blue mug", "red bag", "防水"]


def test_each_text_is_encoded_once() -> None:
    counting = Counting()
    encoder = RememberingEncoder(counting)
    found = encoder.encode(TEXTS)
    assert counting.seen == [["red bag", "blue mug", "防水"]]
    assert np.array_equal(found, HashingEncoder(32).encode(TEXTS))
    assert found.dtype == np.float32
    assert np.array_equal(encoder.encode(["new", *TEXTS[::-1]])[1:], found[::-1])
    assert counting.seen[1:] == [["new"]]
    assert encoder.encode([]).shape == (0, 32)


def test_it_is_called_what_the_encoder_is_called() -> None:
    encoder = RememberingEncoder(HashingEncoder(32))
    assert (encoder.name, encoder.revision, encoder.dimension) == ("hashing", "1", 32)


def test_what_it_is_given_it_takes_for_known() -> None:
    counting = Counting()
    encoder = RememberingEncoder(counting)
    given = np.eye(32, dtype=np.float32)[:2]
    encoder.learn(["red bag", "blue mug"], given)
    assert np.array_equal(encoder.encode(["blue mug", "red bag"]), given[::-1])
    assert counting.seen == []
    with pytest.raises(ValueError, match="zip"):
        encoder.learn(["one"], given)


def test_vectors_are_kept_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    first = RememberingEncoder(Counting()).encode_kept(TEXTS, folder)
    assert np.array_equal(first, HashingEncoder(32).encode(TEXTS))
    assert [path.suffixes for path in folder.iterdir()] == [[".npy"]]
    counting = Counting()
    second = RememberingEncoder(counting)
    assert np.array_equal(second.encode_kept(TEXTS, folder), first)
    assert np.array_equal(second.encode(["防水"]), first[3:])  # and they are known from now on
    assert counting.seen == []


def test_other_texts_or_another_encoder_are_not_mixed_up(tmp_path: Path) -> None:
    class Later(Counting):
        revision = "2"

    RememberingEncoder(Counting()).encode_kept(TEXTS, tmp_path)
    cases: list[tuple[Counting, list[str]]] = [
        (Later(), TEXTS),
        (Counting(), TEXTS[:3]),
        (Counting(), TEXTS[::-1]),
        (Counting(), ["red", "bag blue mug red bag 防水"]),
    ]
    for counting, texts in cases:
        found = RememberingEncoder(counting).encode_kept(texts, tmp_path)
        assert np.array_equal(found, HashingEncoder(32).encode(texts))
        assert counting.seen == [list(dict.fromkeys(texts))]
    assert len(list(tmp_path.iterdir())) == 1 + len(cases)


def test_a_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    RememberingEncoder(Counting()).encode_kept(TEXTS, tmp_path)
    (path,) = tmp_path.iterdir()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        RememberingEncoder(Counting()).encode_kept(TEXTS, tmp_path)
