"""What the system has to beat: simple methods, each with its threshold tuned on the train side."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from llmtagger.datatypes import Opinion, Product, TaggedProduct
from llmtagger.evaluation.judging import Judge, Scored, as_scores
from llmtagger.evaluation.metrics import Floats
from llmtagger.evaluation.splitting import folds
from llmtagger.keeping import write_whole
from llmtagger.normalise import is_han, normalise
from llmtagger.protocols import Vectors
from llmtagger.vocabulary import Vocabulary

VERSION = 1  # of what the linear baselines compute
NAMES = ("knn_vote", "tfidf_linear", "embedding_linear", "lookup", "llm_only")
_SUPPORT = 2  # products that a tag needs to be learnt
_STRENGTH = {"tfidf": 100.0, "embedding": 10.0}  # C; the best of 10 and 100 over six sets
_FOLDS = 3  # that the threshold is tuned on
_BEST = 48  # tags a product that a linear model names
_WORD = re.compile(r"\w+")


def from_signal(results: Sequence[TaggedProduct], judge: Judge, signal: str) -> Scored:
    """A signal of the pipeline by itself, such as the neighbours' vote or the model's choice."""
    found = as_scores(results, judge, lambda scored: scored.evidence.signals.get(signal, 0.0))
    return [{item: value for item, value in each.items() if value > 0} for each in found]


def lookup(
    products: Sequence[Product], opinions: Iterable[Opinion], vocabulary: Vocabulary, judge: Judge
) -> Scored:
    """Known values that stand in the text, longest match, each with how far mentions are right."""
    found = []
    for product, opinion in zip(products, opinions, strict=True):
        scores: dict[str, float] = {}
        for tag in opinion.mentioned:
            if (item := judge.item(product, vocabulary.tags[tag].name)) is not None:
                scores[item] = max(opinion.trust.get(tag, 1.0), scores.get(item, 0.0))
        found.append(scores)
    return found


class Linear:
    """Logistic regression, one tag against the rest, on TF-IDF or on the encoder's vectors."""

    def __init__(self, kind: str, judge: Judge) -> None:
        self._kind = kind
        self._judge = judge

    def cross_scored(
        self, products: Sequence[Product], vectors: Vectors, groups: Sequence[int], seed: int
    ) -> Scored:
        """Scores of the train side, each by a model that has not seen its group."""
        if len(set(groups)) < _FOLDS:
            return [{} for _ in products]
        fold = folds(groups, _FOLDS, seed)
        scored: Scored = [{} for _ in products]
        for number in range(_FOLDS):
            rest, part = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            found = self.scored(
                [products[at] for at in rest], vectors[rest], [products[at] for at in part],
                vectors[part],
            )  # fmt: skip
            for at, scores in zip(part.tolist(), found, strict=True):
                scored[at] = scores
        return scored

    def scored(
        self,
        train: Sequence[Product],
        train_vectors: Vectors,
        test: Sequence[Product],
        test_vectors: Vectors,
    ) -> Scored:
        """Scores of the test side by a model fitted to the train side."""
        names, labels = _labels(train, self._judge)
        if not names:
            return [{} for _ in test]
        if self._kind == "tfidf":
            x, z = _tfidf([p.text() for p in train], [p.text() for p in test])
        else:
            x, z = train_vectors, test_vectors
        chances = _one_against_rest(x, labels, z, _STRENGTH[self._kind])
        top = np.argsort(-chances, axis=1)[:, :_BEST]
        return [self._items(product, names, row, best)
                for product, row, best in zip(test, chances, top, strict=True)]  # fmt: skip

    def _items(
        self, product: Product, names: Sequence[str], row: Floats, best: Any
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for at in best.tolist():  # best first, so several tags that are one item get the best
            if (item := self._judge.item(product, names[at])) is not None:
                found.setdefault(item, float(row[at]))
        return found


def _labels(products: Sequence[Product], judge: Judge) -> tuple[list[str], Any]:
    """The tags that enough products carry, and who carries them (n, tags)."""
    held = [{judge.name(tag) for tag in product.tags or ()} for product in products]
    support: dict[str, int] = {}
    for names in held:
        for name in names:
            support[name] = support.get(name, 0) + 1
    taught = sorted(name for name, count in support.items() if count >= _SUPPORT)
    column = {name: at for at, name in enumerate(taught)}
    labels = np.zeros((len(products), len(taught)), dtype=np.int8)
    for row, names in enumerate(held):
        for name in names & column.keys():
            labels[row, column[name]] = 1
    return taught, labels


def _tfidf(train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=_terms, sublinear_tf=True)
    return _shared(vectorizer.fit_transform(train)), _shared(vectorizer.transform(test))


def _shared(matrix: Any) -> Any:
    """A sparse matrix that several threads may fit to, because none of them can change it.

    scikit-learn sorts unsorted rows in place. Two fits at once would sort the same rows, or read
    them half sorted, and find other weights each time.
    """
    matrix.sort_indices()
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.setflags(write=False)
    return matrix


def _terms(text: str) -> list[str]:
    """Words, pairs of words, 3 and 4 characters of a word; of Chinese 1 to 3 characters."""
    folded = normalise(text)[:2000]
    if any(is_han(char) for char in folded):
        return [
            folded[start : start + size]
            for size in (1, 2, 3)
            for start in range(len(folded) - size + 1)
        ]
    words = _WORD.findall(folded)
    terms = [f"w {word}" for word in words]
    terms += [f"p {a} {b}" for a, b in itertools.pairwise(words)]
    for word in words:
        marked = f"<{word}>"
        terms += [marked[at : at + n] for n in (3, 4) for at in range(len(marked) - n + 1)]
    return terms


def _one_against_rest(x: Any, labels: Any, z: Any, strength: float) -> Floats:
    from sklearn.linear_model import LogisticRegression

    def chance(tag: int) -> Floats:
        if labels[:, tag].all():  # nothing to tell it from
            return np.ones(z.shape[0])
        model = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        found: Floats = model.fit(x, labels[:, tag]).predict_proba(z)[:, 1]
        return found

    with ThreadPoolExecutor(2) as pool:  # liblinear lets go of the interpreter's lock
        return np.stack(list(pool.map(chance, range(labels.shape[1]))), axis=1)


def remembered(path: Path, compute: Callable[[], Mapping[str, Scored]]) -> dict[str, Scored]:
    """What was computed before, as JSON at `path`, else computed now and kept there."""
    if path.is_file():
        found: dict[str, Scored] = json.loads(path.read_text(encoding="utf-8"))
        return found
    fresh = dict(compute())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(fresh, ensure_ascii=False))
    return fresh
