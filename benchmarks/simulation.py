"""A gold set whose labels are played with: a pool to learn from, and a test side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llmtagger.backends import index_writer
from llmtagger.backends.encoders import choose_encoder, load_encoder
from llmtagger.backends.folders import cache_dir
from llmtagger.backends.index_folder import CatalogueIndex
from llmtagger.calibration import Calibration
from llmtagger.config import Settings
from llmtagger.datatypes import Product, TaggedProduct, TagKind
from llmtagger.errors import CatalogError
from llmtagger.evaluation import metrics, splitting
from llmtagger.evaluation.gold import load_gold
from llmtagger.evaluation.harness import read_config
from llmtagger.evaluation.judging import Judge, as_scores, gold_of
from llmtagger.evaluation.learning import calibrate
from llmtagger.evaluation.metrics import Floats
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.pipeline import build_tagger
from llmtagger.scorers import learned_scorer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import default_template, find_template
from llmtagger.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "eval" / "runs"
SETTINGS = Settings()


class Simulation:
    """One set of eval/runs; `folder` is where indexes are built, each over the one before."""

    def __init__(self, name: str, test: int, folder: Path) -> None:
        config = read_config(RUNS / f"{name}.toml")
        data = Path(os.environ["LLMTAGGER_GOLD"])
        gold = load_gold(RUNS / config.dataset, data, limit=config.rows)
        texts = [product.text()[: SETTINGS.retrieval.text_limit] for product in gold.products]
        self.encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
        vectors = self.encoder.encode_kept(texts, cache_dir() / "evaluation" / "vectors")
        groups = splitting.groups(gold.products, vectors)
        parts = splitting.split(groups, test=min(test, len(texts) // 3), seed=config.seed)
        self.pool = [gold.products[at] for at in parts.train]
        self.test = [gold.products[at] for at in parts.test]
        self.groups = [groups[at] for at in parts.test]
        self.template = find_template(default_template(gold.kind))
        closed = gold.kind is TagKind.CLOSED
        self.vocabulary = Vocabulary.from_products(gold.products) if closed else None
        self.index = folder / "index"
        self._gold_set = gold

    def learn(self, labelled: list[Product]) -> tuple[CatalogueIndex, Calibration | None]:
        """An index of labelled products, calibrated if they are enough for that."""
        index = index_writer.build(labelled, self.index, self.encoder, vocabulary=self.vocabulary)
        try:
            return index, calibrate(index, self.template, SETTINGS, None, ask=0).calibration
        except CatalogError:
            return index, None

    def tested(self, index: CatalogueIndex, calibration: Calibration | None) -> Floats:
        """Counts (n, 3) on the test side, without a model."""
        scorer = learned_scorer(calibration) if calibration else WeightedScorer()
        tagger = build_tagger(index, self.template, SETTINGS, None, scorer=scorer)
        cut = SETTINGS.scoring.threshold if calibration is None else calibration.unasked.threshold
        return self.counts(index, list(tagger.tag_ordered(self.test)), cut)

    def counts(self, index: CatalogueIndex, results: list[TaggedProduct], cut: float) -> Floats:
        """Counts (n, 3) of test products' results: right, kept, in gold."""
        gold = self._gold_set
        judge = Judge(
            index.vocabulary,
            unjudged=gold.unjudged,
            apart=gold.apart,
            alternatives=gold.alternatives,
        )
        kept = metrics.keep(as_scores(results, judge), cut)
        return metrics.counts(kept, gold_of(self.test, judge))


def points(figure: Mapping[str, float]) -> str:
    """A difference of F1 with its interval, in points."""
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
