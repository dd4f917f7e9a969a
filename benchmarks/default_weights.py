"""Fits the default weights of `stages/scoring.py`, which hold until `llmtagger calibrate` has run.

    python benchmarks/default_weights.py DATA_ROOT

Fitted to gold sets that are not among those that `make eval` judges by: what is learnt here can
tell nothing of those. Of each set 150 products are scored by an index of the others, by one of 50
of them, and by the names of the tags alone. No model is asked: its weights are set by hand. The
weight of `misspelt` is not taken from here, as these texts have few typos: see typos.py.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmtagger.backends import index_writer
from llmtagger.backends.encoders import TEXT_LIMIT, choose_encoder, load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.config import Settings
from llmtagger.datatypes import Product
from llmtagger.evaluation import fitting, metrics, splitting
from llmtagger.evaluation.gold import GoldSet, load_gold
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.pipeline import build_tagger
from llmtagger.templates import default_template, find_template
from llmtagger.vocabulary import Vocabulary

SETS = (
    *("debtags_en_zh", "bestbuy_phones_en", "flipkart_attr_en", "ae110k_en", "yanxuan_zh"),
    "examples",
)
CARDS = Path(__file__).parents[1] / "eval" / "datasets"
ROWS, SCORED, FEW = 400, 150, 50
COLD = ("name_similarity", "name_lexical", "literal")


def tables(gold: GoldSet) -> dict[str, fitting.Table]:
    """The signals of 150 products, by how many labelled ones the index has."""
    texts = [product.text()[:TEXT_LIMIT] for product in gold.products]
    encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
    vectors = encoder.encode_kept(texts, cache_dir() / "evaluation" / "vectors")
    groups = splitting.groups(gold.products, vectors)
    parts = splitting.split(groups, test=min(SCORED, len(texts) // 3), seed=7)
    train = [gold.products[at] for at in parts.train]
    test = [gold.products[at] for at in parts.test]
    own = [groups[at] for at in parts.test]
    given = Vocabulary.from_products(train)
    few = np.random.default_rng(7).permutation(len(train))[:FEW].tolist()
    nobody = [replace(product, tags=None) for product in train]
    return {
        "warm": table(gold, encoder, train, None, test, own),
        "few": table(gold, encoder, [train[at] for at in few], given, test, own),
        "cold": table(gold, encoder, nobody, given, test, own),
    }


def table(
    gold: GoldSet,
    encoder: RememberingEncoder,
    indexed: list[Product],
    vocabulary: Vocabulary | None,
    test: list[Product],
    groups: list[int],
) -> fitting.Table:
    with tempfile.TemporaryDirectory() as folder:
        index = index_writer.build(indexed, Path(folder) / "i", encoder, vocabulary=vocabulary)
        template = find_template(default_template(gold.kind))
        tagger = build_tagger(index, template, Settings(), None, leave_out_siblings=True)
        judge = Judge(index.vocabulary, unjudged=gold.unjudged, alternatives=gold.alternatives)
        return fitting.table_of(tagger.tag_all(test), judge, groups)


def pooled(several: list[fitting.Table]) -> tuple[np.ndarray, np.ndarray]:
    """Design and truth of several tables, as many rows of each."""
    random = np.random.default_rng(7)
    least = min(len(t.right) for t in several)
    picked = [random.permutation(len(t.right))[:least] for t in several]
    x = np.vstack([fitting.design(t)[rows] for t, rows in zip(several, picked, strict=True)])
    return x, np.concatenate([t.right[rows] for t, rows in zip(several, picked, strict=True)])


def main() -> None:
    found = []
    for name in SETS:
        gold = load_gold(CARDS / name, Path(sys.argv[1]), limit=ROWS)
        found.append(tables(gold))
        sys.stderr.write(f"{name}: {len(gold.products)} products\n")
    out = sys.stdout.write
    x, right = pooled([each[part] for each in found for part in ("warm", "few")])
    warm = fitting.weights_of(fitting.fit_logistic(x, right))
    out(f"WARM = {warm}\n")
    x, right = pooled([each["cold"] for each in found])
    columns = [fitting.STRAIGHT.index(name) for name in COLD]
    cold = fitting.fit_logistic(x[:, columns], right)
    out(f"COLD = bias {cold[-1]:.2f} {dict(zip(COLD, cold.round(2).tolist(), strict=False))}\n")
    for part in ("warm", "few"):
        figures = []
        for name, each in zip(SETS, found, strict=True):
            t = each[part]
            scores = fitting.log_odds_of(warm, fitting.design(t), t, np.arange(len(t.right)))
            cut, best = fitting.best_cut(fitting.chances(scores), t)
            kept = fitting.chances(scores) >= 0.35
            total = np.array([(kept & t.right).sum(), kept.sum(), t.gold.sum()], dtype=float)
            figures.append(f"{name} {float(metrics.f1(total)):.3f} (best {best:.3f} at {cut:.2f})")
        out(f"{part}, F1 at .35 on the products fitted to: {', '.join(figures)}\n")


if __name__ == "__main__":
    main()
