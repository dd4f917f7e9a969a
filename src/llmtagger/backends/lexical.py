"""BM25 over words: Latin words and numbers, Chinese words and character pairs.

Scores follow Lucene's variant: idf = ln(1 + (N - df + 1/2) / (df + 1/2)), times
tf / (tf + k1 (1 - b + b length / mean length)). A word of the query counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmtagger.backends.arrays import open_array
from llmtagger.backends.vectors import best_positions
from llmtagger.errors import IndexDamaged
from llmtagger.normalise import singular, unicode_form
from llmtagger.protocols import Hits, Mask

_K1, _B = 1.5, 0.75
_LIMIT = 20_000  # characters of a text that are read
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3040-\u30ff"
_RUNS = re.compile(rf"([{_HAN}]+)|([{_KANA}]+)|((?:(?![{_HAN}{_KANA}])[^\W_])+(?:\.\d+)*)")


class LexicalIndex:
    """For every word the texts that hold it, with the weight it has in each."""

    def __init__(
        self,
        terms: dict[str, int],
        starts: NDArray[np.int64],
        texts: NDArray[np.int32],
        weights: NDArray[np.float32],
        count: int,
    ) -> None:
        self._terms, self._starts, self._texts, self._weights = terms, starts, texts, weights
        self._count = count

    @classmethod
    def build(cls, texts: Iterable[str]) -> LexicalIndex:
        """Index texts by their order; an empty one is never found and counts for nothing."""
        terms: dict[str, int] = {}
        lengths: list[int] = []
        chunks: list[NDArray[np.int32]] = []
        for text in texts:
            words = [terms.setdefault(word, len(terms)) for word in words_of(text)]
            lengths.append(len(words))
            chunks.append(np.array(words, dtype=np.int32))
        if not terms:
            return cls._empty(len(lengths))
        long = np.array(lengths, dtype=np.int64)
        flat = np.concatenate(chunks).astype(np.int64)
        owners = np.repeat(np.arange(len(long), dtype=np.int64), long)
        cells, tf = np.unique(flat * len(long) + owners, return_counts=True)
        term, text = np.divmod(cells, len(long))
        weights = _weights(term, tf, long[text], long[long > 0])
        starts = np.searchsorted(term, np.arange(len(terms) + 1))
        return cls(terms, starts.astype(np.int64), text.astype(np.int32), weights, len(long))

    @classmethod
    def _empty(cls, count: int) -> LexicalIndex:
        return cls({}, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), count)

    def __len__(self) -> int:
        return self._count

    def search(self, texts: Sequence[str], k: int, allowed: Mask | None = None) -> Hits:
        """The k best by BM25; see `TextIndex.search`."""
        positions = np.full((len(texts), k), -1, dtype=np.int64)
        found = np.zeros((len(texts), k), dtype=np.float32)
        for row, text in enumerate(texts):
            scores = self._scores(text)
            if allowed is not None:
                scores[~allowed] = 0.0
            best = best_positions(scores, k, above=0.0)
            positions[row, : len(best)] = best
            found[row, : len(best)] = scores[best]
        return positions, found

    def holders(self, word: str) -> int:
        """How many texts hold a word, given as `words_of` gives it."""
        term = self._terms.get(word)
        return 0 if term is None else int(self._starts[term + 1] - self._starts[term])

    def _scores(self, text: str) -> NDArray[np.float32]:
        scores = np.zeros(self._count, dtype=np.float32)
        for word in dict.fromkeys(words_of(text)):
            if (term := self._terms.get(word)) is not None:
                held = slice(self._starts[term], self._starts[term + 1])
                scores[self._texts[held]] += self._weights[held]
        return scores

    def save(self, folder: Path) -> None:
        """Write plain arrays and a list of words, all without pickle, into a new folder."""
        folder.mkdir()
        (folder / "terms.txt").write_text("".join(f"{t}\n" for t in self._terms), encoding="utf-8")
        np.save(folder / "starts.npy", self._starts)
        np.save(folder / "texts.npy", self._texts)
        np.save(folder / "weights.npy", self._weights)

    @classmethod
    def load(cls, folder: Path, *, count: int) -> LexicalIndex:
        """Open what `save` wrote, over `count` texts; the arrays stay on disk until needed."""
        damaged = IndexDamaged(
            f"{folder} is damaged", hint="build the index again with `llmtagger index build`"
        )
        try:
            words = (folder / "terms.txt").read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError) as error:
            raise damaged from error
        starts = open_array(folder / "starts.npy", np.int64, (len(words) + 1,))
        texts = open_array(folder / "texts.npy", np.int32, (int(starts[-1]),))
        weights = open_array(folder / "weights.npy", np.float32, (len(texts),))
        if len(texts) and int(texts.max()) >= count:
            raise damaged
        return cls({word: i for i, word in enumerate(words)}, starts, texts, weights, count)


def _weights(
    term: NDArray[np.int64],
    tf: NDArray[np.int64],
    length: NDArray[np.int64],
    filled: NDArray[np.int64],
) -> NDArray[np.float32]:
    """BM25's weight of each (term, text) cell; `filled` are the lengths of texts with words."""
    df = np.bincount(term)
    idf = np.log1p((len(filled) - df + 0.5) / (df + 0.5))
    damping = _K1 * (1 - _B + _B * length / filled.mean())
    return np.asarray(idf[term] * tf / (tf + damping), dtype=np.float32)


def words_of(text: str) -> Iterator[str]:
    """The words of a text as they are compared.

    >>> list(words_of("Card Slots 无线耳机"))
    ['card', 'slot', '无线', '耳机', '无线耳机', '线耳']
    """
    folded = unicode_form("NFKC", text[:_LIMIT]).casefold()
    for han, kana, word in _RUNS.findall(folded):
        if han:
            yield from _han_words(han)
        elif kana:
            yield from _pairs(kana)
        else:
            yield singular(word)


def _han_words(run: str) -> Iterator[str]:
    """The segmenter's words, and every character pair that is not one of them already."""
    import rjieba

    words = rjieba.cut_for_search(run)
    yield from words
    known = set(words)
    yield from (pair for pair in _pairs(run) if pair not in known)


def _pairs(run: str) -> Iterator[str]:
    yield from (left + right for left, right in pairwise(run)) if len(run) > 1 else (run,)
