"""Calibrates an index: every signal of every labelled product without its own help, then a fit.

labelled products ─ experts left out, neighbours without siblings ─▶ results ─ fit ─▶ Calibration
                  └ some of them, with the model's answers ─────────▶ results ┘
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmtagger.calibration import AskRule, Calibration
from llmtagger.config import Settings
from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.errors import CatalogError
from llmtagger.evaluation import fitting, metrics, splitting
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.metrics import Floats
from llmtagger.experts.panel import LeftOut
from llmtagger.pipeline import Tagger, build_tagger
from llmtagger.protocols import Experts, Generator
from llmtagger.scorers import learned_scorer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

LEAST = 20  # labelled products; fewer cannot be cross-validated
_MARGINS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
_KEPT = 0.9  # of what asking for all adds, that asking for some must keep

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled products that an index learns from, each with opinions that left it out.

    `groups` has a number for each product; siblings share one.
    """

    products: tuple[Product, ...]
    groups: tuple[int, ...]
    experts: Experts

    @classmethod
    def of(
        cls,
        index: CatalogueIndex,
        settings: Settings,
        progress: Progress,
        *,
        groups: Sequence[int] | None = None,
    ) -> Labelled:
        """`groups` is in the order of the labelled rows; without it, siblings are found."""
        from llmtagger.backends.index_writer import learnt_from

        rows = learnt_from(index.labelled)
        products = tuple(index.product(row) for row in rows.tolist())
        vectors = np.asarray(index.vectors[rows])
        progress("leaving each product out of what was learnt from it", 0, len(products))
        near = settings.retrieval.near_duplicate
        groups = groups or splitting.groups(products, vectors, near_duplicate=near)
        given = index.manifest.vocabulary_source == "file"
        experts = LeftOut(
            index.panel, products, vectors, index.assignments[rows], groups, given=given
        )
        return cls(products, tuple(groups), experts)


@dataclass(frozen=True, slots=True)
class Learnt:
    """A calibration and what it was fitted to: labelled products, their groups and results."""

    calibration: Calibration
    products: tuple[Product, ...]
    groups: tuple[int, ...]
    experts: Experts
    results: tuple[TaggedProduct, ...]
    judge: Judge


def calibrate(
    index: CatalogueIndex,
    template: TemplateFile,
    settings: Settings,
    generator: Generator | None,
    *,
    ask: int,
    ask_only: Collection[str] | None = None,
    limit: int | None = None,
    judge: Judge | None = None,
    groups: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Learnt:
    """Fit the scorer of an index to its labelled products, `limit` of them at the most.

    The model, if there is one, is asked about `ask` of them, and only about those with an id in
    `ask_only`, where that is given: a tuned model knows the others' answers. `groups` tells which
    products are siblings, in the order of the labelled rows; without it they are found. Raises
    `CatalogError` where there are too few labelled products.
    """
    if (count := int(index.labelled.sum())) < LEAST:
        raise CatalogError(
            f"{count} labelled products are too few to calibrate on",
            hint=f"label at least {LEAST}; until then default weights are used",
        )
    labelled = Labelled.of(index, settings, progress, groups=groups)
    judge = judge or Judge(index.vocabulary)
    random = np.random.default_rng(seed)
    picked = random.permutation(len(labelled.products))[:limit].tolist()
    if ask_only is not None:
        picked.sort(key=lambda at: labelled.products[at].id not in ask_only)
        ask = min(ask, sum(labelled.products[at].id in ask_only for at in picked))
    some = tuple(labelled.products[at] for at in picked)
    own = tuple(int(labelled.groups[at]) for at in picked)

    def run(
        products: Sequence[Product], generator: Generator | None, name: str
    ) -> list[TaggedProduct]:
        tagger = build_tagger(
            index, template, settings, generator, leave_out_siblings=True,
            experts=labelled.experts, scorer=WeightedScorer(),
        )  # fmt: skip
        return tag_watched(tagger, products, progress, name)

    results = run(some, None, "computing signals")
    table = fitting.table_of(results, judge, own)
    progress("fitting", 0, 0)
    unasked, held_out = fitting.fit(table, seed=seed)
    calibration = Calibration(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        index=index.fingerprint,
        vocabulary=index.manifest.vocabulary,
        settings=settings.fingerprint,
        products=len(some),
        unasked=unasked,
    )
    if generator is not None and ask:
        answered = run(some[:ask], generator, "asking the model")
        helped = fitting.table_of(answered, judge, own[:ask])
        alone = fitting.carried_over(held_out, table, helped, learned_scorer(calibration).warm)
        calibration = _with_model(calibration, helped, alone, generator, template, seed)
    return Learnt(calibration, some, own, labelled.experts, tuple(results), judge)


def tag_watched(
    tagger: Tagger, products: Sequence[Product], progress: Progress, name: str
) -> list[TaggedProduct]:
    """One result a product, in their order; `progress` hears of each."""
    results = []
    for tagged in tagger.tag_ordered(products):
        results.append(tagged)
        progress(name, len(results), len(products))
    return results


def _with_model(
    calibration: Calibration,
    table: fitting.Table,
    alone: Floats,
    generator: Generator,
    template: TemplateFile,
    seed: int,
) -> Calibration:
    """Complete a calibration by what the model's answers add to the log-odds `alone`."""
    base = learned_scorer(calibration).warm
    asked, helped = fitting.fit_asked(table, base, alone, seed=seed)
    cuts = (calibration.unasked.threshold, asked.threshold)
    return calibration.model_copy(
        update={
            "model": generator.model,
            "prompt": template.identity,
            "asked": asked,
            "ask": ask_rule(table, fitting.chances(alone), helped, cuts, seed),
        }
    )


def ask_rule(
    table: fitting.Table,
    without: Floats,
    answered: Floats,
    cuts: tuple[float, float],
    seed: int,
) -> AskRule:
    """The smallest margin around the cut that keeps most of what asking adds; 0 if it adds nothing.

    `without` and `answered` are the rows' probabilities, each with its own cut. "Adds" means that
    the interval of the difference in F1 lies above 0; of too few products it is as wide as can be.
    """
    boot = metrics.Bootstrap(table.groups.tolist(), seed=seed)
    alone, helped = _counts(table, without >= cuts[0]), _counts(table, answered >= cuts[1])
    added = boot.difference(helped, alone, metrics.f1)
    low, high = (added.low, added.high) if added.is_known else (-1.0, 1.0)
    gap = np.full(len(table.gold), np.inf)
    np.minimum.at(gap, table.product, np.abs(without - cuts[0]))
    chosen = (0.0, 0.0, 0.0)
    for margin in _MARGINS if low > 0 else ():
        asked = gap <= margin
        mixed = np.where(asked[:, None], helped, alone)
        gain = float(metrics.f1(mixed.sum(axis=0)) - metrics.f1(alone.sum(axis=0)))
        chosen = (margin, float(asked.mean()), gain / added.value)
        if chosen[2] >= _KEPT:
            break
    return AskRule(
        margin=chosen[0],
        added=(added.value, low, high),
        products=len(table.gold),
        share=chosen[1],
        kept=chosen[2],
    )


def _counts(table: fitting.Table, kept: NDArray[np.bool_]) -> Floats:
    each = np.zeros((len(table.gold), 3))
    np.add.at(each[:, 0], table.product, kept & table.right)
    np.add.at(each[:, 1], table.product, kept)
    each[:, 2] = table.gold
    return each
