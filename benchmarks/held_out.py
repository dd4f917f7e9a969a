"""An index of a gold set's train side, held-out products, and two scorers to try on them.

What stuffing.py and typos.py share: both change the texts of the held-out products and tag them
without a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llmtagger.backends import index_writer
from llmtagger.backends.encoders import TEXT_LIMIT, choose_encoder, load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import CatalogueIndex
from llmtagger.config import Settings
from llmtagger.datatypes import ParsedTags, Product, Shortlist, TaggedProduct
from llmtagger.evaluation import splitting
from llmtagger.evaluation.gold import GoldSet
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.learning import calibrate
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.output import Cut
from llmtagger.pipeline import BATCH, catalogue_retriever
from llmtagger.scorers import cut_of, learned_scorer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import default_template, find_template

CARDS = Path(__file__).parents[1] / "eval" / "datasets"
SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Side:
    """An index of labelled products, and products to test on."""

    index: CatalogueIndex
    judge: Judge
    groups: tuple[int, ...]
    test: tuple[Product, ...]


def prepare(gold: GoldSet, folder: Path, *, test: int, seed: int) -> Side:
    """Split by groups as the evaluation does, and index the train side."""
    texts = [product.text()[:TEXT_LIMIT] for product in gold.products]
    encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
    vectors = encoder.encode_kept(texts, cache_dir() / "evaluation" / "vectors")
    near = SETTINGS.retrieval.near_duplicate
    groups = splitting.groups(gold.products, vectors, near_duplicate=near)
    parts = splitting.split(groups, test=min(test, len(texts) // 3), seed=seed)
    train = [gold.products[at] for at in parts.train]
    index = index_writer.build(train, folder / "index", encoder)
    judge = Judge(index.vocabulary, unjudged=gold.unjudged, alternatives=gold.alternatives)
    chosen = [gold.products[at] for at in parts.test[:test]]
    return Side(index, judge, tuple(groups[at] for at in parts.train), tuple(chosen))


def shortlists(side: Side, products: Iterable[Product]) -> list[tuple[Product, Shortlist]]:
    """What `tag --llm never` finds for each product before it is scored."""
    retriever = catalogue_retriever(side.index, SETTINGS, leave_out_siblings=True)
    found = []
    remaining = iter(products)
    while batch := list(islice(remaining, BATCH)):
        read = [guard_product(product)[0] for product in batch]
        lists = map(guard_shortlist, retriever.retrieve(read))
        found += list(zip(read, lists, strict=True))
    return found


@dataclass(frozen=True, slots=True)
class Scoring:
    """A scorer, and where its scores are cut."""

    scorer: WeightedScorer
    cut: Cut

    def kept(self, product: Product, shortlist: Shortlist) -> frozenset[str]:
        """The ids of the tags that are kept."""
        scored = self.scorer.score(product, shortlist, ParsedTags())
        placed = self.cut.place(TaggedProduct(product, scored), as_new=True)
        return frozenset(item.tag.id for item in placed.kept)


def scorings(side: Side, gold: GoldSet) -> dict[str, Scoring]:
    """The default weights, and those that are fitted to the train side."""
    template = find_template(default_template(gold.kind))
    learnt = calibrate(
        side.index, template, SETTINGS, None, ask=0, judge=side.judge, groups=side.groups
    )  # fmt: skip
    fitted = learnt.calibration
    return {
        "default": Scoring(WeightedScorer(), cut_of(SETTINGS.scoring, None)),
        "calibrated": Scoring(learned_scorer(fitted), cut_of(SETTINGS.scoring, fitted)),
    }


def options(said: str | None, sets: Sequence[str], *, products: int) -> argparse.ArgumentParser:
    """The options of a benchmark: where the sets are, which of them, how many products, a seed."""
    parser = argparse.ArgumentParser(
        description=said, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--set", nargs="+", dest="sets", default=list(sets))
    parser.add_argument("--products", type=int, default=products)
    parser.add_argument("--seed", type=int, default=7)
    return parser
