"""Fits the default weights of `stages/scoring.py`, which hold until `llmtagger calibrate` has run.

    python benchmarks/default_weights.py DATA_ROOT

Fitted to gold sets that are not among those that `make eval` judges by: what is learnt here can
tell nothing of those. Of each set 150 products are scored by an index of the others, by one of 50
of them, and by one where nothing is labelled. No model is asked: its weights are set by hand. The
weight of `misspelt` is not taken from here, as these texts have few typos: see typos.py.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmtagger.backends import index_writer
from llmtagger.backends.encoders import TEXT_LIMIT, choose_encoder, load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.config import Settings
from llmtagger.datatypes import Product, ScoredTags, TaggedProduct, TagKind
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
ROWS, SCORED, FEW = 600, 150, 50
ROWS_EACH = 3000  # drawn of each set, some more than once
COLD = {  # a value that the text does not name is nearly never right, however similar it is
    "closed": ("name_similarity", "name_lexical", "literal"),
    "spans": ("name_lexical", "literal"),
}
KINDS = frozenset(TagKind)


def tables(gold: GoldSet) -> dict[str, fitting.Table]:
    """The signals of 150 products, by how many labelled ones the index has; cold, by kind too."""
    texts = [product.text()[:TEXT_LIMIT] for product in gold.products]
    encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
    vectors = encoder.encode_kept(texts, cache_dir() / "evaluation" / "vectors")
    groups = splitting.groups(gold.products, vectors)
    parts = splitting.split(groups, test=min(SCORED, len(texts) // 3), seed=7)
    train = [gold.products[at] for at in parts.train]
    test = [gold.products[at] for at in parts.test]
    own = [groups[at] for at in parts.test]
    closed = gold.kind is TagKind.CLOSED
    given = Vocabulary.from_products(gold.products if closed else train)
    few = np.random.default_rng(7).permutation(len(train))[:FEW].tolist()
    nobody = [replace(product, tags=None) for product in train]
    return {
        "warm": table(gold, encoder, train, None, test, own, KINDS),
        "few": table(gold, encoder, [train[at] for at in few], given, test, own, KINDS),
        "closed": table(gold, encoder, nobody, given, test, own, KINDS - {TagKind.SPAN}),
        "spans": table(gold, encoder, nobody, given, test, own, {TagKind.SPAN}),
    }


def table(
    gold: GoldSet,
    encoder: RememberingEncoder,
    indexed: list[Product],
    vocabulary: Vocabulary | None,
    test: list[Product],
    groups: list[int],
    kinds: Set[TagKind],
) -> fitting.Table:
    with tempfile.TemporaryDirectory() as folder:
        index = index_writer.build(indexed, Path(folder) / "i", encoder, vocabulary=vocabulary)
        template = find_template(default_template(gold.kind))
        tagger = build_tagger(index, template, Settings(), None, leave_out_siblings=True)
        judge = Judge(index.vocabulary, unjudged=gold.unjudged, alternatives=gold.alternatives)
        return fitting.table_of([only(kinds, each) for each in tagger.tag_all(test)], judge, groups)


def only(kinds: Set[TagKind], tagged: TaggedProduct) -> TaggedProduct:
    items = tuple(item for item in tagged.scored.items if item.tag.kind in kinds)
    return replace(tagged, scored=ScoredTags(items))


def pooled(several: list[fitting.Table]) -> tuple[np.ndarray, np.ndarray]:
    """Design and truth of several tables, as many rows of each."""
    random = np.random.default_rng(7)
    least = min(len(t.right) for t in several)
    picked = [random.permutation(len(t.right))[:least] for t in several]
    x = np.vstack([fitting.design(t)[rows] for t, rows in zip(several, picked, strict=True)])
    return x, np.concatenate([t.right[rows] for t, rows in zip(several, picked, strict=True)])


def within(several: list[fitting.Table], names: Sequence[str]) -> np.ndarray:
    """Weights of these signals, and the bias, that tell right from wrong within a set.

    Sets differ in how many tags their products have, and in the scale of name similarity. So each
    has a bias of its own while the weights are fitted, and all count alike. The bias that is
    returned is then fitted to all of them.
    """
    random = np.random.default_rng(7)
    several = [t for t in several if len(t.right) >= FEW]
    columns = [fitting.STRAIGHT.index(name) for name in names]
    parts, truth = [], []
    for at, t in enumerate(several):
        rows = random.choice(len(t.right), ROWS_EACH)
        own = np.zeros((ROWS_EACH, len(several)))
        own[:, at] = 1
        parts.append(np.hstack([fitting.design(t)[rows][:, columns], own]))
        truth.append(t.right[rows])
    x, right = np.vstack(parts), np.concatenate(truth)
    found = fitting.fit_logistic(x, right, pull=0.1)[: len(names)]
    bias = fitting.fit_logistic(x[:, :0], right, x[:, : len(names)] @ found)
    return np.append(found, bias)


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
    for part, names in COLD.items():
        cold = within([each[part] for each in found], names)
        said = dict(zip(names, cold.round(2).tolist(), strict=False))
        out(f"COLD, {part}: bias {cold[-1]:.2f} {said}\n")
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
