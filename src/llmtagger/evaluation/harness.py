"""One evaluation: a gold set, split; the system and every baseline on the same products.

RUN.toml, card ─ split, leak check ─▶ index ─ calibrate ─▶ system, baselines on the test side
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from llmtagger.calibration import Calibration
from llmtagger.catalog import CatalogOptions
from llmtagger.config import Settings, read_toml
from llmtagger.datatypes import Product, TaggedProduct, TagKind
from llmtagger.errors import LeakFound
from llmtagger.evaluation import baselines, splitting
from llmtagger.evaluation.gold import GoldSet, load_gold
from llmtagger.evaluation.judging import Judge, Scored, as_kept, as_scores, gold_of
from llmtagger.evaluation.learning import LEAST, Learnt, Progress, calibrate, tag_watched
from llmtagger.evaluation.metrics import best_threshold, keep
from llmtagger.evaluation.remembering import RememberingEncoder
from llmtagger.output import Cut
from llmtagger.pipeline import build_tagger, threshold_without_labels
from llmtagger.protocols import Generator, Vectors
from llmtagger.scorers import cut_of, learned_scorer, worth_asking
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile, find_template, live_template
from llmtagger.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

Kept = list[frozenset[str]]
_LINEAR = ("tfidf", "embedding")


class RunConfig(BaseModel):
    """What RUN.toml says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: str = Field(description="a card's folder, relative to the file")
    regime: Literal["warm", "cold"] = "warm"
    labelled: int = Field(0, ge=0, description="cold only: labelled products there are")
    rows: int | None = Field(None, ge=1, description="products taken from the set")
    test: int = Field(500, ge=1, description="products tested on, about; a third at the most")
    seed: int = 1
    llm: Literal["auto", "always", "never"] = "auto"
    ask_train: int = Field(80, ge=0, description="labelled products the model is calibrated on")
    ask_test: int = Field(80, ge=0, description="test products asked for `llm_only` and its share")
    prompt: str | None = None
    settings: Settings = Settings()


def read_config(path: Path) -> RunConfig:
    """The run that a TOML file describes; `ConfigError` where it cannot be read."""
    return read_toml(
        path,
        RunConfig,
        f"the run {path}",
        unreadable="name a file of eval/runs",
        invalid=f"a run may hold {', '.join(RunConfig.model_fields)}",
    )


@dataclass(frozen=True, slots=True)
class Side:
    """Products, their vectors (n, d) and group numbers, row by row."""

    products: tuple[Product, ...]
    vectors: Vectors
    groups: tuple[int, ...]


@dataclass(slots=True)
class Outcome:
    """All that an evaluation found, before it is put into figures.

    `cut` says what the system keeps, as in a run with these settings. `scores` and `kept` hold, by
    name, items for each test product; `thresholds` where each was cut. `asked` are the positions of
    the test products that the model answered; `llm_only` is about these alone, as are `alone` and
    `helped`: what the system keeps of them without and with the model's answers. `wanted` are those
    that the mode asks about. `spent` is seconds by stage.
    """

    config: RunConfig
    gold_set: GoldSet
    train: Side
    test: Side
    judge: Judge
    gold: Kept
    results: list[TaggedProduct]
    calibration: Calibration | None
    cut: Cut
    index: CatalogueIndex
    template: TemplateFile
    model: str | None = None
    scores: dict[str, Scored] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    asked: tuple[int, ...] = ()
    answered: list[TaggedProduct] = field(default_factory=list)
    alone: Kept = field(default_factory=list)
    helped: Kept = field(default_factory=list)
    wanted: frozenset[int] = frozenset()
    spent: dict[str, float] = field(default_factory=dict)


class Evaluation:
    """Runs one evaluation; `generator` is None where no model is to be asked."""

    def __init__(
        self,
        config: RunConfig,
        card: Path,
        data: Path | None,
        folder: Path,
        cache: Path,
        generator: Generator | None,
        progress: Progress,
        *,
        limit: int | None = None,
        options: CatalogOptions = CatalogOptions(),  # noqa: B008  it is frozen
    ) -> None:
        self._config = config
        self._options = options
        self._card, self._data, self._limit = card, data, limit
        self._folder, self._cache = folder, cache
        self._generator = generator if config.llm != "never" or config.ask_test else None
        self._progress = progress
        self._spent: dict[str, float] = {}

    def run(self) -> Outcome:
        """Raises `LeakFound` where the test side is known from the train side."""
        config = self._config
        with self._timed("splitting"):
            gold_set = load_gold(
                self._card, self._data, limit=self._limit or config.rows, options=self._options
            )
            encoder, train, test = self._split(gold_set)
        with self._timed("indexing"):
            index, labelled = self._index(encoder, train, gold_set)
        template = find_template(
            config.prompt or live_template(gold_set.kind, config.settings.live)
        )
        judge = Judge(
            index.vocabulary,
            unjudged=gold_set.unjudged,
            apart=gold_set.apart,
            alternatives=gold_set.alternatives,
        )
        # Before the model's server starts: its workers spin even when nobody asks.
        with self._timed("fitting linear baselines"):
            linear = {kind: self._linear(kind, judge, labelled, test) for kind in _LINEAR}
        learnt = None
        with self._timed("calibrating"):
            if len(labelled.products) >= LEAST:
                learnt = calibrate(
                    index,
                    template,
                    config.settings,
                    self._generator,
                    ask=config.ask_train,
                    judge=judge,
                    groups=labelled.groups,
                    seed=config.seed,
                    progress=self._progress,
                )
        calibration = learnt.calibration if learnt else None
        outcome = Outcome(
            config,
            gold_set,
            train,
            test,
            judge,
            gold_of(test.products, judge),
            [],
            calibration,
            cut_of(
                config.settings.scoring,
                calibration,
                cold=None if learnt else threshold_without_labels(index, config.settings),
            ),
            index,
            template,
            self._generator.model if self._generator else None,
        )
        with self._timed("testing"):
            self._test(outcome)
        with self._timed("asking"):
            self._ask(outcome)
        with self._timed("comparing"):
            self._compare(outcome, labelled, learnt, linear)
        outcome.spent = self._spent
        return outcome

    def _split(self, gold_set: GoldSet) -> tuple[RememberingEncoder, Side, Side]:
        from llmtagger.backends.encoders import choose_encoder, load_encoder

        products = gold_set.products
        texts = [
            product.text()[: self._config.settings.retrieval.text_limit] for product in products
        ]
        encoder = RememberingEncoder(load_encoder(choose_encoder(texts)))
        self._progress("encoding products", 0, len(products))
        vectors = encoder.encode_kept(texts, self._cache / "vectors")
        near = self._config.settings.retrieval.near_duplicate
        groups = splitting.groups(products, vectors, near_duplicate=near)
        most = min(self._config.test, len(products) // 3)
        parts = splitting.split(groups, test=most, seed=self._config.seed)
        train, test = (
            Side(
                tuple(products[at] for at in rows),
                vectors[list(rows)],
                tuple(groups[at] for at in rows),
            )
            for rows in (parts.train, parts.test)
        )
        check_leaks(train, test, near)
        return encoder, train, test

    def _index(
        self, encoder: RememberingEncoder, train: Side, gold_set: GoldSet
    ) -> tuple[CatalogueIndex, Side]:
        """The index of the train side, and what is labelled of it: all, or, cold, a few products.

        Cold, the tags' names are known: of a closed set all of them, as a shop knows its own list.
        A text may hold values that nobody listed, so of a span set those of the train side's other
        products are known: those of the labelled are found in the list as often as new ones.
        """
        from llmtagger.backends import index_writer

        vocabulary = None
        labelled = train
        unlabelled: list[Product] = []
        if self._config.regime == "cold":
            random = np.random.default_rng(self._config.seed)
            order = random.permutation(len(train.products))
            rows = np.sort(order[: self._config.labelled]).tolist()
            others = [train.products[at] for at in order[self._config.labelled :].tolist()]
            unlabelled = [replace(product, tags=None) for product in others]
            closed = gold_set.kind is TagKind.CLOSED
            vocabulary = Vocabulary.from_products(gold_set.products if closed else others)
            labelled = Side(
                tuple(train.products[at] for at in rows),
                train.vectors[rows],
                tuple(train.groups[at] for at in rows),
            )
        index = index_writer.build(
            [*labelled.products, *unlabelled],
            self._folder / "index",
            encoder,
            vocabulary=vocabulary,
        )
        return index, labelled

    def _test(self, outcome: Outcome) -> None:
        """The test side without the model."""
        outcome.results = self._tagged(outcome, range(len(outcome.test.products)), None)
        outcome.scores["system"] = as_scores(outcome.results, outcome.judge)
        outcome.thresholds["system"] = outcome.cut.threshold
        outcome.kept["system"] = as_kept(outcome.results, outcome.judge, outcome.cut)

    def _tagged(
        self, outcome: Outcome, rows: Sequence[int], generator: Generator | None
    ) -> list[TaggedProduct]:
        tagger = build_tagger(
            outcome.index,
            outcome.template,
            self._config.settings,
            generator,
            leave_out_siblings=True,
            scorer=learned_scorer(outcome.calibration) if outcome.calibration else WeightedScorer(),
        )
        name = "asking the model about test products" if generator else "tagging test products"
        products = [outcome.test.products[row] for row in rows]
        return tag_watched(tagger, products, self._progress, name)

    def _ask(self, outcome: Outcome) -> None:
        """Ask about a sample, for the model's own share; and about all that the mode asks for."""
        if self._generator is None:
            return
        count = len(outcome.test.products)
        random = np.random.default_rng(self._config.seed)
        sample = np.sort(random.permutation(count)[: self._config.ask_test]).tolist()
        wanted = {
            row
            for row, tagged in enumerate(outcome.results)
            if worth_asking(self._config.llm, outcome.calibration, tagged.scored)
        }
        rows = sorted({*sample, *wanted})
        answered = dict(zip(rows, self._tagged(outcome, rows, self._generator), strict=True))
        outcome.wanted = frozenset(wanted)
        sampled = [answered[row] for row in sample]
        outcome.asked, outcome.answered = tuple(sample), sampled
        outcome.alone = [outcome.kept["system"][row] for row in sample]
        results = [answered[row] for row in rows]
        helped = as_scores(results, outcome.judge)
        kept = dict(zip(rows, as_kept(results, outcome.judge, outcome.cut), strict=True))
        outcome.helped = [kept[row] for row in sample]
        for row, scores in zip(rows, helped, strict=True):
            if row in wanted:
                outcome.results[row] = answered[row]
                outcome.scores["system"][row] = scores
                outcome.kept["system"][row] = kept[row]
        if sampled:
            outcome.scores["llm_only"] = baselines.from_signal(sampled, outcome.judge, "chosen")
            outcome.kept["llm_only"] = keep(outcome.scores["llm_only"], 0.5)

    def _compare(
        self,
        outcome: Outcome,
        labelled: Side,
        learnt: Learnt | None,
        linear: Mapping[str, dict[str, Scored]],
    ) -> None:
        """The baselines, each cut where it is best on the labelled products."""
        judge, test = outcome.judge, outcome.test
        opinions = outcome.index.experts.judge(test.products, test.vectors)
        found = {
            "knn_vote": baselines.from_signal(outcome.results, judge, "vote"),
            "lookup": baselines.lookup(test.products, opinions, outcome.index.vocabulary, judge),
        }
        gold = gold_of(labelled.products, judge)
        tuned: dict[str, tuple[Scored, Kept]] = {}
        if learnt is not None:
            own = learnt.experts.judge(learnt.products, np.empty((0, 0), dtype=np.float32))
            wanted = gold_of(learnt.products, judge)
            said = baselines.lookup(learnt.products, own, outcome.index.vocabulary, judge)
            vote = baselines.from_signal(learnt.results, judge, "vote")
            tuned = {"knn_vote": (vote, wanted), "lookup": (said, wanted)}
        for kind, both in linear.items():
            found[f"{kind}_linear"] = both["test"]
            tuned[f"{kind}_linear"] = (both["train"], gold)
        for name, scores in found.items():
            # With nothing labelled there is nothing to tune on: whatever is found is kept.
            threshold = best_threshold(*tuned[name]) if name in tuned and gold else 0.0
            outcome.scores[name] = scores
            outcome.thresholds[name] = threshold
            outcome.kept[name] = keep(scores, threshold)

    def _linear(self, kind: str, judge: Judge, labelled: Side, test: Side) -> dict[str, Scored]:
        model = baselines.Linear(kind, judge)

        def compute() -> dict[str, Scored]:
            train = (labelled.products, labelled.vectors)
            return {
                "train": model.cross_scored(*train, labelled.groups, self._config.seed),
                "test": model.scored(*train, test.products, test.vectors),
            }

        known = (kind, baselines.VERSION, self._config.seed, _identity(labelled), _identity(test))
        digest = hashlib.sha256(repr(known).encode("utf-8", "replace")).hexdigest()[:32]
        return baselines.remembered(self._cache / "baselines" / f"{digest}.json", compute)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._progress(name, 0, 0)
        yield
        self._spent[name] = time.monotonic() - begun


def _identity(side: Side) -> list[tuple[str, str, tuple[str, ...] | None]]:
    return [(product.id, product.text(), product.tags) for product in side.products]


def check_leaks(train: Side, test: Side, near_duplicate: float) -> None:
    """Raise `LeakFound` where a test product resembles a train product."""
    leaks = splitting.find_leaks(
        train.products,
        test.products,
        train.vectors,
        test.vectors,
        near_duplicate=near_duplicate,
    )
    if leaks:
        first = leaks[0]
        raise LeakFound(
            f"{len(leaks)} test products are known from the train side; the first, "
            f"{first.test_id!r}, resembles {first.train_id!r} ({first.reason.value}, "
            f"{first.similarity:.3f})",
            hint="figures on such a split would flatter; give siblings the same `group`",
        )
