"""Fits the default weights of `stages/scoring.py` and compares them with the neighbour vote.

    python benchmarks/default_weights.py SET.jsonl... [--rows 2000]

Each set is split by product group into an index (60 %), products to fit on (20 %) and products to
judge on (20 %). One logistic regression is fitted over all sets at once; the vote's threshold is
chosen for each set on the products to fit on. No model is asked: its share is set by hand.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from llmtagger import linear
from llmtagger.backends.encoders import choose_encoder, load_encoder
from llmtagger.backends.lexical import LexicalIndex
from llmtagger.backends.vectors import ExactIndex
from llmtagger.catalog import read_catalog
from llmtagger.config import RetrievalSettings
from llmtagger.datatypes import Product
from llmtagger.normalise import normalise
from llmtagger.protocols import Encoder
from llmtagger.stages.retrieval import CatalogueRetriever
from llmtagger.stages.scoring import signals
from llmtagger.vocabulary import Vocabulary

SEED = 7
WARM = ("vote", "lexical_vote", "name_similarity", "name_lexical", "literal", "prior", "linear")
COLD = ("name_similarity", "name_lexical", "literal")


@dataclass
class Sample:
    """Candidates of many products: signals, whether right, and gold tags never offered."""

    values: np.ndarray
    right: np.ndarray
    gold: int
    recall_offered: float


Sets = dict[str, dict[str, Sample]]
Figures = tuple[float, float, float]


def catalogue_of(
    products: list[Product], vocabulary: Vocabulary, labelled: bool, encoder: Encoder | None = None
) -> SimpleNamespace:
    encoder = encoder or load_encoder(choose_encoder([p.text() for p in products]))
    vectors = encoder.encode([p.text()[:2000] for p in products])
    rows, columns = [], []
    for row, product in enumerate(products):
        known = (vocabulary.resolve(tag) for tag in product.tags or ())
        tags = {vocabulary.position(tag) for tag in known if tag}
        columns += tags
        rows += [row] * len(tags)
    shape = (len(products), len(vocabulary))
    labels = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    names = [" ".join((t.name, *t.aliases, *t.labels.values())) for t in vocabulary]
    tag_matrix = encoder.encode(names)
    return SimpleNamespace(
        encoder=encoder,
        vocabulary=vocabulary,
        labelled=np.full(len(products), labelled),
        vectors=vectors,
        product_vectors=ExactIndex(vectors),
        product_texts=LexicalIndex.build([p.text() for p in products]),
        tag_matrix=tag_matrix,
        tag_vectors=ExactIndex(tag_matrix),
        tag_texts=LexicalIndex.build(names),
        assignments=labels,
        linear=linear.fit(vectors, labels) if labelled else None,
        prior=np.asarray(labels.mean(axis=0)).ravel().astype(np.float32) * labelled,
        product=lambda position: products[position],
    )


def sample(catalogue: SimpleNamespace, products: list[Product]) -> Sample:
    retriever = CatalogueRetriever(catalogue, RetrievalSettings(), leave_out_siblings=True)
    values, right, gold_count, offered = [], [], 0, 0
    for start in range(0, len(products), 64):
        batch = products[start : start + 64]
        for product, shortlist in zip(batch, retriever.retrieve(batch), strict=True):
            gold = {normalise(tag) for tag in product.tags or ()}
            gold_count += len(gold)
            for position, candidate in enumerate(shortlist.candidates):
                known = signals(candidate, None)
                hit = normalise(candidate.tag.name) in gold or any(
                    normalise(x) in gold
                    for x in (*candidate.tag.aliases, *candidate.tag.labels.values())
                )
                values.append([known[name] for name in WARM])
                right.append(hit)
                offered += hit and position < shortlist.offered
    return Sample(np.array(values), np.array(right), gold_count, offered / gold_count)


def f1(scores: np.ndarray, data: Sample, threshold: float) -> tuple[float, float, float]:
    kept = scores >= threshold
    hits = float((kept & data.right).sum())
    p, r = hits / max(kept.sum(), 1), hits / data.gold
    return 2 * p * r / max(p + r, 1e-9), p, r


def best_threshold(scores: np.ndarray, data: Sample) -> float:
    return max(np.arange(0.05, 0.96, 0.05), key=lambda t: f1(scores, data, t)[0])


def split(products: list[Product]) -> tuple[list[Product], list[Product], list[Product]]:
    groups = defaultdict(list)
    for product in products:
        groups[product.group or normalise(product.title)].append(product)
    order = list(groups.values())
    random.Random(SEED).shuffle(order)
    flat = [p for group in order for p in group]
    a, b = int(len(flat) * 0.6), int(len(flat) * 0.8)
    return flat[:a], flat[a:b], flat[b:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    arguments = parser.parse_args()
    data: Sets = {}
    for path in arguments.sets:
        products = list(read_catalog(path, rejected=lambda row: None))
        random.Random(SEED).shuffle(products)
        index, fit, judge = split([p for p in products[: arguments.rows] if p.tags])
        vocabulary = Vocabulary.from_products(index)
        everything = Vocabulary.from_products([*index, *fit, *judge])
        warm, cold = catalogue_of(index, vocabulary, True), catalogue_of(index, everything, False)
        data[path.stem] = {
            "fit": sample(warm, fit),
            "judge": sample(warm, judge),
            "cold_fit": sample(cold, fit),
            "cold_judge": sample(cold, judge),
        }
        sys.stderr.write(f"{path.stem} {len(index)} products, {len(vocabulary)} tags\n")
    report(data)


def fitted(
    data: dict[str, dict[str, Sample]], part: str, names: tuple[str, ...]
) -> LogisticRegression:
    columns = [WARM.index(name) for name in names]
    x = np.vstack([d[part].values[:, columns] for d in data.values()])
    y = np.concatenate([d[part].right for d in data.values()])
    weight = np.concatenate(
        [np.full(len(d[part].right), 1e4 / len(d[part].right)) for d in data.values()]
    )
    return LogisticRegression(C=1.0, max_iter=2000).fit(x, y, sample_weight=weight)


def judged(data: Sets, name: str, part: str, names: tuple[str, ...], kept: Sets) -> Figures:
    """F1, precision and recall at .5 on one set, by a model fitted on the sets in `kept`."""
    target = data[name][f"{part.removesuffix('fit')}judge"]
    columns = [WARM.index(n) for n in names]
    scores = fitted(kept, part, names).predict_proba(target.values[:, columns])[:, 1]
    return f1(scores, target, 0.5)


def report(data: Sets) -> None:
    out = sys.stdout.write
    for part, names in (("fit", WARM), ("cold_fit", COLD)):
        model = fitted(data, part, names)
        weights = {n: round(float(w), 2) for n, w in zip(names, model.coef_[0], strict=True)}
        out(f"{part}: bias {model.intercept_[0]:.2f} {json.dumps(weights)}\n")
    out("\nF1, precision, recall of: the vote at its own threshold | all sets' weights | ")
    out("weights fitted without this set | cold\n")
    for name, d in data.items():
        threshold = best_threshold(d["fit"].values[:, 0], d["fit"])
        others = {k: v for k, v in data.items() if k != name} or data
        figures = (
            f1(d["judge"].values[:, 0], d["judge"], threshold),
            judged(data, name, "fit", WARM, data),
            judged(data, name, "fit", WARM, others),
            judged(data, name, "cold_fit", COLD, data),
        )
        row = " | ".join(" ".join(f"{x:.3f}" for x in each) for each in figures)
        out(f"{name} (recall@24 {d['judge'].recall_offered:.3f}): {row}\n")


if __name__ == "__main__":
    main()
