"""The extractor: finds values of known keys in a title, also values that nobody has listed yet.

Every token gets a probability of beginning a value of a key, of going on with one, or of neither
(BIO labels; Ramshaw & Marcus 1995), by a softmax over hashed features of the token, its
surroundings and what is known of it. A stretch's probability is the product along it.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from llmtagger.datatypes import Extraction, Product, Span
from llmtagger.normalise import normalise
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import split_key

_WEIGHTS = 1 << 22  # at most: 16 MB, as float32
_MOST_KEYS = 60
_LEAST = 5  # values of a key that must stand in titles before it is learnt
_WINDOW = 3  # tokens to either side that a token's features tell of
_LONGEST = 12  # tokens of a value
_LEAST_PROBABILITY = 0.05
_MOST = 30  # values of a title
_TOKEN_LIMIT = 120  # of a title
_EPOCHS, _BATCH, _RATE = 8, 64, 0.05
_TOKEN = re.compile(
    r"[A-Za-z\u00c0-\u024f]+(?:['’][A-Za-z]+)?|\d+(?:[.,/]\d+)*|[^\W\d_]|[^\w\s]|_", re.UNICODE
)
_RUNS = re.compile(r"(.)\1+")


@dataclass(frozen=True, slots=True)
class _Token:
    folded: str
    shape: str
    start: int
    end: int


Gazetteer = Mapping[str, Counter[str]]


@dataclass(frozen=True, slots=True)
class Extractor:
    """`weights` (buckets, 1 + 2 keys): what a feature says for no value, for B-key, I-key, ...

    `gazetteer` counts the labelled products that have a value, by its tokens and key.
    """

    keys: tuple[str, ...]
    weights: Vectors
    gazetteer: Gazetteer

    def extract(self, product: Product) -> tuple[Extraction, ...]:
        """The values that are likely enough, likeliest first; they may overlap."""
        tokens = _tokens(product.title)
        if not tokens or not self.keys:
            return ()
        rows = _features(tokens, product.category, self.gazetteer, {}, len(self.weights))
        scores = np.stack([self.weights[row].sum(axis=0, dtype=np.float32) for row in rows])
        found = sorted(_stretches(_softmax(scores)), reverse=True)[:_MOST]
        return tuple(
            Extraction(
                self.keys[key],
                Span("title", product.title[tokens[start].start : tokens[end - 1].end]),
                probability,
            )
            for probability, start, end, key in found
        )


def _stretches(chances: Vectors) -> Iterator[tuple[float, int, int, int]]:
    """(probability, start, end, key) of every stretch that is likely enough.

    Sums over all labellings in which I-key follows only B-key or I-key (forward and backward sums;
    Rabiner 1989), each weighed by the product of its tokens' chances.
    """
    count, outside = len(chances), np.r_[True, np.arange(1, chances.shape[1]) % 2 == 1]
    before, after = _sums(chances, outside)
    total = before[count]
    if not total > 0:  # every labelling's weight has run out of floating point
        return
    for start, key in np.argwhere(chances[:, 1::2] >= _LEAST_PROBABILITY / 2).tolist():
        weight = before[start] * float(chances[start, 1 + 2 * key])
        for end in range(start + 1, min(count, start + _LONGEST) + 1):
            if (probability := weight * after[end] / total) >= _LEAST_PROBABILITY:
                yield probability, start, end, key
            if end < count:
                weight *= float(chances[end, 2 + 2 * key])


def _sums(chances: Vectors, outside: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Weights of all labellings before each place, and from it on where no value goes on there.

    Both have one entry more than there are tokens; `outside` marks the labels other than I-key.
    """
    count = len(chances)
    before, state = [1.0], np.zeros(chances.shape[1])
    for place in range(count):
        step = np.where(outside, before[-1], 0.0)
        step[2::2] = state[1::2] + state[2::2]
        state = step * chances[place]
        before.append(float(state.sum()))
    after, onward = [1.0], np.ones(chances.shape[1] // 2)
    for place in range(count - 1, -1, -1):
        row = chances[place]
        end = after[-1]
        after.append(float(row[0] * end + row[1::2] @ onward))
        onward = after[-1] + row[2::2] * onward
    return before, after[::-1]


def fit(products: Sequence[Product], *, seed: int = 0) -> Extractor:
    """Learn from labelled products' `key=value` tags, as far as their values stand in the title."""
    marked = [_marked(product) for product in products]
    support = Counter(key for _, values in marked for _, _, key in values)
    keys = tuple(key for key, count in support.most_common(_MOST_KEYS) if count >= _LEAST)
    gazetteer = _gazetteer(products)
    if not keys:
        return Extractor((), np.zeros((1, 1), np.float32), gazetteer)
    labels = 1 + 2 * len(keys)
    buckets = min(1 << 17, 1 << int(np.log2(_WEIGHTS / labels)))
    number = {key: at for at, key in enumerate(keys)}
    rows: list[NDArray[np.int64]] = []
    wanted: list[int] = []
    for product, (tokens, values) in zip(products, marked, strict=True):
        rows += _features(tokens, product.category, gazetteer, _values(product), buckets)
        held = [0] * len(tokens)
        for start, end, key in values:
            if key in number:
                held[start] = 1 + 2 * number[key]
                held[start + 1 : end] = [2 + 2 * number[key]] * (end - start - 1)
        wanted += held
    weights = _train(rows, np.array(wanted), (buckets, labels), seed)
    return Extractor(keys, weights, gazetteer)


def _train(
    rows: list[NDArray[np.int64]], wanted: NDArray[np.int64], shape: tuple[int, int], seed: int
) -> Vectors:
    """Softmax regression by AdaGrad with one rate a bucket (Duchi et al., JMLR 2011)."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate(rows)
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(rows), shape[0]))
    weights = np.zeros(shape, dtype=np.float32)
    squares = np.full((shape[0], 1), 1e-2, dtype=np.float32)
    random = np.random.default_rng(seed)
    for _ in range(_EPOCHS):
        order = random.permutation(len(rows))
        for start in range(0, len(order), _BATCH):
            picked = order[start : start + _BATCH]
            batch = matrix[picked]
            held, inverse = np.unique(batch.indices, return_inverse=True)
            small = csr_matrix((batch.data, inverse, batch.indptr), (len(picked), len(held)))
            error = _softmax(small @ weights[held])
            error[np.arange(len(picked)), wanted[picked]] -= 1
            gradient = small.T @ error
            squares[held] += (gradient * gradient).mean(axis=1, keepdims=True)
            weights[held] -= _RATE * gradient / np.sqrt(squares[held])
    return weights


def _softmax(scores: Vectors) -> Vectors:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Vectors = raised / raised.sum(axis=1, keepdims=True)
    return chances


def _tokens(title: str) -> list[_Token]:
    """Words, numbers and signs; of Chinese, every character."""
    found = (
        _Token(normalise(m[0]), _shape(m[0]), m.start(), m.end())
        for m in _TOKEN.finditer(title)
        if normalise(m[0])
    )
    return list(islice(found, _TOKEN_LIMIT))


def _shape(text: str) -> str:
    """`Xx` for `Red`, `9` for `128`: upper, lower, digit, each once a run."""
    kinds = "".join(
        "9" if c.isdigit() else "X" if c.isupper() else "x" if c.islower() else "." for c in text
    )
    return _RUNS.sub(r"\1", kinds)


def _values(product: Product) -> dict[tuple[str, str], None]:
    """The product's values as joined tokens, with their keys."""
    pairs = (split_key(tag) for tag in product.tags or ())
    return {
        (" ".join(token.folded for token in _tokens(value)), key): None
        for key, value in pairs
        if key
    }


def _gazetteer(products: Sequence[Product]) -> dict[str, Counter[str]]:
    known: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for product in products:
        for value, key in _values(product):
            known[value][key] += 1
    return dict(known)


def _marked(product: Product) -> tuple[list[_Token], list[tuple[int, int, str]]]:
    """A title's tokens, and (start, end, key) of each value that stands there, longest first."""
    tokens = _tokens(product.title)
    folded = [token.folded for token in tokens]
    taken: set[int] = set()
    found = []
    for value, key in sorted(_values(product), key=lambda pair: -len(pair[0])):
        parts = value.split(" ")
        for start in range(len(tokens) - len(parts) + 1):
            place = range(start, start + len(parts))
            if folded[start : start + len(parts)] == parts and taken.isdisjoint(place):
                taken.update(place)
                found.append((start, start + len(parts), key))
                break
    return tokens, found


def _features(
    tokens: Sequence[_Token],
    category: str,
    gazetteer: Gazetteer,
    own: Mapping[tuple[str, str], None],
    buckets: int,
) -> list[NDArray[np.int64]]:
    """Each token's buckets. `own` values are not known by this product's own doing."""
    known = _known(tokens, gazetteer, own)
    return [
        np.array(
            [zlib.crc32(text.encode(errors="replace")) % buckets for text in (*said, *known[at])]
        )
        for at, said in enumerate(_describe(tokens, at, category) for at in range(len(tokens)))
    ]


def _describe(tokens: Sequence[_Token], at: int, category: str) -> Iterator[str]:
    def word(offset: int) -> str:
        place = at + offset
        return tokens[place].folded if 0 <= place < len(tokens) else "<" if place < 0 else ">"

    here = tokens[at].folded
    for offset in range(-_WINDOW, _WINDOW + 1):
        yield f"{offset} {word(offset)}"
    for offset in range(-2, 2):
        yield f"{offset}+ {word(offset)} {word(offset + 1)}"
    for offset in range(-2, 1):
        three = f"{word(offset)} {word(offset + 1)} {word(offset + 2)}"
        yield f"{offset}++ {three}"
        yield f"{offset}+++ {word(offset - 1)} {three}"
    for offset in range(-2, 3):
        if 0 <= at + offset < len(tokens):
            yield f"{offset}s {tokens[at + offset].shape}"
    for length in range(2, 5):
        yield f"^ {here[:length]}"
        yield f"$ {here[-length:]}"
    yield f"from start {min(at, 6)}"
    yield f"from end {min(len(tokens) - at, 6)}"
    yield f"category {category}"
    yield f"category {category} {here}"


def _known(
    tokens: Sequence[_Token], gazetteer: Gazetteer, own: Mapping[tuple[str, str], None]
) -> list[list[str]]:
    """What the gazetteer says of each token: where a known value begins and goes on."""
    said: list[list[str]] = [[] for _ in tokens]
    folded = [token.folded for token in tokens]
    for start in range(len(tokens)):
        for end in range(start + 1, min(len(tokens), start + _LONGEST) + 1):
            value = " ".join(folded[start:end])
            for key, count in gazetteer.get(value, {}).items():
                if count == 1 and (value, key) in own:
                    continue
                size = min(end - start, 3)
                said[start].append(f"B {key} {size}")
                for inside in range(start + 1, end):
                    said[inside].append(f"I {key} {size}")
    return said
